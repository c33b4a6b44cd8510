//! A medium with a volatile cache: it knows which blocks would be lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhost_mpath::sim::Medium;

use crate::world::{BLOCK, MOST_BLOCKS};

const WORDS: usize = MOST_BLOCKS.div_ceil(64);

/// Which blocks were written since the last synchronisation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty(Arc<[AtomicU64; WORDS]>);

impl Dirty {
    /// The blocks of `which` whose last write a power failure now would take
    /// away.
    pub(crate) fn among(&self, which: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
        let words = self.0.iter().map(|w| w.load(Ordering::Relaxed)).enumerate();
        let set = words.flat_map(|(i, mut bits)| {
            std::iter::from_fn(move || {
                let bit = usize::try_from(bits.trailing_zeros()).unwrap();
                let found = (bits != 0).then_some(i * 64 + bit);
                bits &= bits.wrapping_sub(1);
                found
            })
        });
        set.filter(move |block| which.contains(block))
    }

    fn mark(&self, offset: u64, len: u64) {
        let block = |bytes: u64| usize::try_from(bytes).unwrap() / BLOCK;
        for b in block(offset)..block(offset + len) {
            self.0[b / 64].fetch_or(1 << (b % 64), Ordering::Relaxed);
        }
    }
}

/// Memory behind a cache.
#[derive(Debug)]
pub(crate) struct Cached {
    bytes: Vec<u8>,
    dirty: Dirty,
}

impl Cached {
    /// `blocks` blocks of zeroes.
    pub(crate) fn new(blocks: usize, dirty: Dirty) -> Cached {
        Cached { bytes: vec![0; blocks * BLOCK], dirty }
    }

    fn at(&mut self, offset: u64, len: usize) -> io::Result<&mut [u8]> {
        let offset = usize::try_from(offset).unwrap();
        self.bytes.get_mut(offset..offset + len).ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Medium for Cached {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(self.at(offset, buf.len())?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.dirty.mark(offset, buf.len() as u64);
        self.at(offset, buf.len())?.copy_from_slice(buf);
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, _deallocate: bool) -> io::Result<()> {
        self.dirty.mark(offset, len);
        self.at(offset, usize::try_from(len).unwrap())?.fill(0);
        Ok(())
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        for b in len / BLOCK..MOST_BLOCKS {
            self.dirty.0[b / 64].fetch_and(!(1 << (b % 64)), Ordering::Relaxed);
        }
        self.bytes.resize(len, 0);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        for word in &*self.dirty.0 {
            word.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}
