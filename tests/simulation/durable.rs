//! A medium with a volatile cache: it knows which blocks would be lost.

use std::io;
use std::sync::{Arc, Mutex};

use vhost_mpath::sim::{Medium, MemoryMedium};

use crate::world::BLOCK;

/// Which blocks were written since the last synchronisation.
#[derive(Clone, Debug)]
pub(crate) struct Dirty(Arc<Mutex<Vec<bool>>>);

impl Dirty {
    pub(crate) fn new(blocks: usize) -> Dirty {
        Dirty(Arc::new(Mutex::new(vec![false; blocks])))
    }

    /// Whether a power failure now would take the block's last write away.
    pub(crate) fn is(&self, block: usize) -> bool {
        self.0.lock().unwrap()[block]
    }

    fn mark(&self, offset: u64, len: u64) {
        let block = |bytes: u64| usize::try_from(bytes).unwrap() / BLOCK;
        self.0.lock().unwrap()[block(offset)..block(offset + len)].fill(true);
    }
}

/// Memory behind a cache.
pub(crate) struct Cached {
    pub(crate) medium: MemoryMedium,
    pub(crate) dirty: Dirty,
}

impl Medium for Cached {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.medium.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.dirty.mark(offset, buf.len() as u64);
        self.medium.write_at(offset, buf)
    }

    fn zero(&mut self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        self.dirty.mark(offset, len);
        self.medium.zero(offset, len, deallocate)
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        let blocks = usize::try_from(len).unwrap() / BLOCK;
        self.dirty.0.lock().unwrap().resize(blocks, false);
        self.medium.resize(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dirty.0.lock().unwrap().fill(false);
        self.medium.sync()
    }
}
