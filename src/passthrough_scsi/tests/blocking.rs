//! SG_IO and its helper threads.

use super::super::pool::{Scratch, Work};
use super::super::sg_io::{self, ScsiWork, is_torn};
use super::*;

#[test]
fn a_file_that_is_no_scsi_device_proves_nothing() {
    let node = scsi_node("/dev/null", Interface::V3);
    let about = about(PathKind::ScsiGeneric, Transport::SgIo);
    let error = PathHandle::new(about, Opened::Scsi(node), 4, TIMEOUT, Box::new(())).unwrap_err();
    assert!(error.to_string().starts_with("INQUIRY failed: Inappropriate ioctl"), "{error}");
}

fn scsi_node(path: &str, interface: Interface) -> ScsiNode {
    let queue = QueueLimits { max_transfer_bytes: 65536, max_segments: 2, depth: 4 };
    let file = Arc::new(File::open(path).unwrap());
    ScsiNode {
        file,
        claim: None,
        interface,
        direct: None,
        bsg_uring: false,
        queue,
        read_only: true,
    }
}

/// LIO writes other bytes than those it was given, else.
#[test]
fn blocks_that_are_compared_or_repeated_go_from_a_page_boundary() {
    let at = |addr, len| Segment { addr, len };
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let same_32 = [&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x0d][..], &[0; 22]].concat();
    let write_32 = [&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x0b][..], &[0; 22]].concat();
    let rows: [(&[u8], bool); 6] = [
        (&compare_and_write, true),
        (&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], true),
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], true),
        (&same_32, true),
        (&write_32, false),
        (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], false),
    ];
    for (cdb, minds) in rows {
        let cdb = Cdb::from_bytes(cdb).unwrap();
        assert!(!is_torn(&cdb, &[]));
        assert!(!is_torn(&cdb, &[at(0x3000, 1024)]));
        assert_eq!(is_torn(&cdb, &[at(0x3e00, 1024)]), minds, "{cdb:?}");
        assert_eq!(is_torn(&cdb, &[at(0x3000, 512), at(0x5000, 512)]), minds, "{cdb:?}");
    }
}

#[test]
fn sg_io_on_a_wrong_file_is_an_errno_of_the_ioctl_bounced_or_not() {
    let expected = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    for interface in [Interface::V3, Interface::V4] {
        let mut data = vec![7; 3 * 512];
        let segments: Vec<_> = data.chunks_mut(512).map(segment::of).collect();
        let op = Op::Read(Extent::new(0, 3));
        let command =
            Command { op, data: &segments, extents: &[], passthrough: true, timeout: TIMEOUT };
        let mut work = ScsiWork {
            node: Arc::new(scsi_node("/dev/null", interface)),
            wire: wire::encode(&command, 512).unwrap(),
            segments: segments.clone(),
            timeout: TIMEOUT,
        };
        assert_eq!(work.run(&mut Scratch::default()), expected);
        assert_eq!(data, vec![7; 3 * 512]);
    }
}

#[test]
fn helpers_leave_an_sg_nodes_checkers_room() {
    assert_eq!(helpers_for(PathKind::ScsiGeneric, Interface::V3, 16), 14);
    assert_eq!(helpers_for(PathKind::ScsiDisk, Interface::V3, 16), 16);
    assert_eq!(helpers_for(PathKind::ScsiDisk, Interface::V3, 0), 1);
}

#[test]
fn the_last_owner_closes_the_file_at_once() {
    let file = Arc::new(scratch_file(4096));
    let mut node = disk(file.try_clone().unwrap(), 1);
    node.file = Arc::clone(&file);
    let path = open(Opened::Disk(node), PathKind::File, Transport::File);
    let mut thread = Thread::new(&path);
    assert_eq!(thread.run(Op::Flush, &[]), Completion::Good);
    drop(thread);
    drop(path);
    assert_eq!(Arc::strong_count(&file), 1);
    file.read_at(&mut [0; 1], 0).unwrap();
}

#[test]
fn a_cdb_that_the_path_does_not_take_is_the_lus_illegal_request() {
    let refused = |completion| sg_io::is_too_long(&completion, true);
    let errno = |code| Completion::Errno { from: ErrnoFrom::Ioctl, code };
    let host =
        |host| Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 0 };
    for completion in [errno(libc::EMSGSIZE), errno(libc::EINVAL), host(HostByte::ABORT)] {
        assert!(refused(completion), "{completion:?}");
    }
    for completion in [errno(libc::ENODEV), host(HostByte::NO_CONNECT), Completion::Good] {
        assert!(!refused(completion), "{completion:?}");
    }
    // Short ones, and aborts that took their time, mean what they say.
    assert!(sg_io::is_too_long(&errno(libc::EMSGSIZE), false));
    assert!(!sg_io::is_too_long(&errno(libc::EINVAL), false));
    assert!(!sg_io::is_too_long(&host(HostByte::ABORT), false));
}
