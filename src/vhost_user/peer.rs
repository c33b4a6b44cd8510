//! What can be seen of the front-end's process: how it maps its memory.
//!
//! A front-end hands over its memory's files even if it maps them privately
//! (QEMU's `share=off`): then nothing the guest writes ever reaches us, and
//! the guest waits for its first read for ever. The process's own map tells.
//! Where that may not be read (another user's process), nothing is concluded.
//! Only looks; runs on the listener's thread.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use crate::sys::peer;

/// The process behind a connection, if it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    pid: Option<u32>,
}

impl Peer {
    pub(super) fn of(socket: &impl AsFd) -> Peer {
        Peer { pid: peer::process(socket.as_fd()) }
    }

    /// The front-end's process, if it certainly maps `file` and nowhere
    /// shared.
    pub(super) fn maps_privately(self, file: &File) -> Option<u32> {
        let pid = self.pid?;
        let meta = file.metadata().ok()?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let device = (libc::major(meta.dev()), libc::minor(meta.dev()));
        only_privately(&maps, device, meta.ino()).then_some(pid)
    }
}

/// Whether lines of proc_pid_maps(5) about this file are there and all private.
fn only_privately(maps: &str, device: (u32, u32), inode: u64) -> bool {
    let device = format!("{:02x}:{:02x}", device.0, device.1);
    let inode = inode.to_string();
    // `address perms offset dev inode path`
    let mut private = maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (perms, _offset, dev, ino) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        (dev == device && ino == inode).then(|| perms.ends_with('p'))
    });
    private.next().is_some_and(|first| first && private.all(|p| p))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vm_memory::{FileOffset, MmapRegion};

    use super::*;
    use crate::guest::memfd;

    const MAPS: &str = "\
        55d0-55d1 r--p 00000000 fe:00 12 /usr/bin/qemu\n\
        7f00-7f20 rw-p 00000000 00:01 1030 /memfd:memory-backend-memfd (deleted)\n\
        7f20-7f40 rw-s 00000000 00:01 1031 /memfd:memory-backend-memfd (deleted)\n\
        7f40-7f41 r--p 00000000 00:01 1031 /memfd:memory-backend-memfd (deleted)\n\
        7ffd-7ffe rw-p 00000000 00:00 0 [stack]\n";

    #[test]
    fn memory_is_private_only_if_no_mapping_of_it_is_shared() {
        assert!(only_privately(MAPS, (0, 1), 1030));
        assert!(!only_privately(MAPS, (0, 1), 1031), "mapped both ways");
        assert!(!only_privately(MAPS, (0, 2), 1030), "another device's inode");
        assert!(!only_privately(MAPS, (0, 1), 99), "not mapped at all");
        assert!(!only_privately("", (0, 1), 1030));
    }

    #[test]
    fn a_private_mapping_of_this_very_process_is_found() {
        let file = Arc::new(memfd::sealed(c"peer", 4096).unwrap());
        let ourselves = Peer { pid: Some(std::process::id()) };
        let map = |flags| {
            let offset = FileOffset::from_arc(Arc::clone(&file), 0);
            MmapRegion::<()>::build(Some(offset), 4096, libc::PROT_READ, flags).unwrap()
        };
        let private = map(libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        assert_eq!(ourselves.maps_privately(&file), Some(std::process::id()));
        let shared = map(libc::MAP_SHARED | libc::MAP_NORESERVE);
        assert_eq!(ourselves.maps_privately(&file), None);
        drop((private, shared));
    }

    #[test]
    fn nothing_is_concluded_about_a_process_that_cannot_be_seen() {
        let file = memfd::sealed(c"peer", 4096).unwrap();
        assert_eq!(Peer { pid: None }.maps_privately(&file), None);
        assert_eq!(Peer { pid: Some(u32::MAX) }.maps_privately(&file), None);
        assert_eq!(Peer { pid: Some(std::process::id()) }.maps_privately(&file), None);
    }
}
