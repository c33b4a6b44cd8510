//! Every answer a vhost-user-scsi guest can get, row by row: what the LU says
//! and what a path does, addresses, sizes, residuals, CDBs that are no CDBs,
//! chains cut at every place, requests no driver should make.

use serde_json::{Value, json};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost_mpath::guest::driver::{Descriptor, WRITE};

use crate::harness::cdb;
use crate::harness::guest;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{
    Answer, Event, F_CHANGE, F_HOTPLUG, F_INOUT, F_T10_PI, HEADER, NEXUS_RESET, RESPONSE,
    ScsiQueue, Task, header, lun, response_name,
};
use crate::harness::sim_daemon::{Daemon, Setup};
use crate::harness::slot_queue::{Payload, UNANSWERED};

/// READ(16) of one block.
fn read_one() -> Vec<u8> {
    cdb::blocks(0x88, 0, 1)
}

fn read(guest: &mut ScsiGuest) -> String {
    guest.run(&Task::new(&read_one()).reading(512)).to_string()
}

fn start(options: &[&'static str]) -> (Daemon, ScsiGuest) {
    let options = [&["--command-timeout", "1", "--checker-timeout", "1"], options].concat();
    let daemon = Daemon::start(&Setup::scsi().lun("0:1", "one").with(&options));
    let guest = ScsiGuest::connect(&daemon, 2);
    (daemon, guest)
}

/// Ends every fault, and has every path used again.
fn mend(daemon: &mut Daemon) {
    daemon.plug_all();
    (0..2).for_each(|path| daemon.reinstate(path));
    daemon.until_usable(4);
}

/// The table of how a host's verdict reaches the guest: the LU's word as it
/// is, a path's never.
#[test]
fn what_the_lu_says_reaches_the_guest_and_what_a_path_does_not() {
    let (mut daemon, mut guest) = start(&["--no-path-retry", "fail"]);
    let sense = |code: &str| json!({"fault": "sense", "sense": code, "count": 0});
    let host = |host: u8, count: u32| json!({"fault": "host-byte", "host": host, "count": count});
    let cut = || json!({"fault": "cut", "mode": "before"});
    // What happens to which of the two paths, and the answer to a read.
    let rows: Vec<(&[usize], Value, &str)> = vec![
        (&[0, 1], sense("3/11/00"), "03/11/00"),
        (&[0, 1], sense("4/44/00"), "04/44/00"),
        (&[0, 1], sense("5/24/00"), "05/24/00"),
        (&[0, 1], sense("7/27/00"), "07/27/00"),
        (&[0, 1], host(0x10, 0), "TARGET_FAILURE"),
        (&[0, 1], host(0x11, 0), "CONFLICT"),
        (&[0, 1], host(0x12, 0), "07/27/07"),
        (&[0, 1], host(0x13, 0), "03/11/00"),
        (&[0], cut(), "GOOD"),
        (&[0], sense("2/04/0b"), "GOOD"),
        (&[0], host(0x0e, 1), "GOOD"),
        (&[0, 1], json!({"fault": "busy", "count": 2}), "GOOD"),
        (&[0, 1], json!({"fault": "busy", "count": 0}), "BUSY STATUS"),
        (&[0, 1], json!({"fault": "task-set-full", "count": 0}), "TASK SET FULL"),
        (&[0, 1], host(0x08, 1), "GOOD"),
        (&[0, 1], cut(), "TRANSPORT_FAILURE"),
        (&[0, 1], json!({"fault": "hang"}), "0b/2e/02"),
    ];
    for (paths, fault, expected) in rows {
        assert_eq!(read(&mut guest), "GOOD", "before {fault}");
        for path in paths {
            daemon.fault_of(&format!("sim{path}"), fault.clone());
        }
        assert_eq!(read(&mut guest), expected, "{fault} on {paths:?}");
        // The neighbour does not notice.
        let other = guest.run(&Task::new(&read_one()).to(lun(0, 1)).reading(512));
        assert_eq!(other.to_string(), "GOOD", "LUN 1 with {fault} on LUN 0");
        mend(&mut daemon);
    }
}

/// A path that leads nowhere is a path's trouble; that it leads to the LU again
/// is an event of the array, which the guest hears.
#[test]
fn a_path_without_the_lun_is_no_affair_of_the_guest() {
    let (mut daemon, mut guest) = start(&["--no-path-retry", "fail"]);
    daemon.fault_of("sim0", json!({"fault": "unmap-lun"}));
    (0..3).for_each(|_| assert_eq!(read(&mut guest), "GOOD"));
    mend(&mut daemon);
    assert_eq!(guest.attentions(lun(0, 0)), ["06/3f/03"]);
    assert_eq!(read(&mut guest), "GOOD");
}

/// As from a drive without a medium, by choice.
#[test]
fn no_path_may_look_like_no_medium() {
    let (mut daemon, mut guest) = start(&["--no-path-retry", "fail", "--no-path", "not-ready"]);
    assert_eq!(read(&mut guest), "GOOD");
    daemon.cut_all();
    assert_eq!(read(&mut guest), "02/3a/00");
    mend(&mut daemon);
    assert_eq!(read(&mut guest), "GOOD");
}

/// No path leads to a LU any more: that is the array's word, and told.
#[test]
fn a_lun_that_the_array_took_away_is_gone_for_the_guest() {
    let (mut daemon, mut guest) = start(&["--no-path-retry", "fail"]);
    guest.events().post_events(4);
    assert_eq!(read(&mut guest), "GOOD");
    (0..2).for_each(|path| daemon.fault_of(&format!("sim{path}"), json!({"fault": "unmap-lun"})));
    for _ in 0..3 {
        assert_eq!(read(&mut guest), "05/25/00");
    }
    let done = guest.events().wait_for(|| "REMOVED".into());
    assert_eq!(guest.events().event(&done), Event::removed(lun(0, 0)));
    mend(&mut daemon);
    let done = guest.events().wait_for(|| "RESCAN".into());
    assert_eq!(guest.events().event(&done), Event::rescan(lun(0, 0)));
    assert_eq!(guest.attentions(lun(0, 0)), ["06/3f/03"]);
    assert_eq!(read(&mut guest), "GOOD");
}

/// LUN fields on the request queues, and on the control queue.
#[test]
fn luns_are_found_in_every_format_that_names_them_and_in_no_other() {
    let setup = Setup::scsi().lun("0:1", "one").lun("0:260", "far").lun("7:3", "other");
    let daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 1);
    for (lun, command, management) in [
        ([1, 0, 0, 0, 0, 0, 0, 0], "GOOD", "OK"),
        ([1, 0, 0, 1, 0, 0, 0, 0], "GOOD", "OK"),
        ([1, 0, 0x40, 1, 0, 0, 0, 0], "GOOD", "OK"),
        ([1, 0, 0x41, 4, 0, 0, 0, 0], "GOOD", "OK"),
        ([1, 7, 0x40, 3, 0, 0, 0, 0], "GOOD", "OK"),
        ([1, 0, 0, 2, 0, 0, 0, 0], "05/25/00", "INCORRECT_LUN"),
        ([1, 0, 0x7f, 0xff, 0, 0, 0, 0], "05/25/00", "INCORRECT_LUN"),
        ([1, 7, 0, 0, 0, 0, 0, 0], "05/25/00", "INCORRECT_LUN"),
        ([1, 1, 0, 0, 0, 0, 0, 0], "BAD_TARGET", "BAD_TARGET"),
        ([1, 255, 0, 0, 0, 0, 0, 0], "BAD_TARGET", "BAD_TARGET"),
        // The well-known LU of REPORT LUNS has no tasks to manage.
        ([0xc1, 1, 0, 0, 0, 0, 0, 0], "GOOD", "BAD_TARGET"),
        // Another bus, logical unit addressing, extended, a second level.
        ([1, 0, 1, 0, 0, 0, 0, 0], "BAD_TARGET", "INCORRECT_LUN"),
        ([1, 0, 0x80, 0, 0, 0, 0, 0], "BAD_TARGET", "INCORRECT_LUN"),
        ([1, 0, 0xd2, 0, 0, 0, 1, 0], "BAD_TARGET", "INCORRECT_LUN"),
        ([1, 0, 0, 0, 0, 1, 0, 0], "BAD_TARGET", "INCORRECT_LUN"),
        ([0, 0, 0, 0, 0, 0, 0, 0], "BAD_TARGET", "BAD_TARGET"),
        ([2, 0, 0, 0, 0, 0, 0, 0], "BAD_TARGET", "BAD_TARGET"),
        ([0xff; 8], "BAD_TARGET", "BAD_TARGET"),
    ] {
        let answer = guest.run(&Task::new(&cdb::TUR).to(lun));
        assert_eq!(answer.to_string(), command, "{lun:02x?}");
        let response = guest.control().run_tmf(crate::harness::scsi_queue::QUERY_TASK_SET, lun, 0);
        assert_eq!(response, management, "{lun:02x?}");
    }
}

fn reported(guest: &mut ScsiGuest, lun: [u8; 8], select: u8) -> Vec<[u8; 8]> {
    let answer = guest.run(&Task::new(&cdb::report_luns(select, 256)).to(lun).reading(256));
    assert!(answer.is_good(), "{answer}");
    let data = answer.transferred();
    let len = u32::from_be_bytes(data[..4].try_into().expect("4 bytes"));
    assert_eq!(len as usize, data.len() - 8);
    data[8..].chunks_exact(8).map(|lun| lun.try_into().expect("8 bytes")).collect()
}

#[test]
fn a_target_tells_its_luns_at_every_lun_and_what_is_not_there() {
    let setup = Setup::scsi().lun("0:1", "one").lun("0:260", "far").lun("7:3", "other");
    let daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 1);
    let entry = |high, low| [high, low, 0, 0, 0, 0, 0, 0];
    let (zero, one, far) = (entry(0, 0), entry(0, 1), entry(0x41, 4));
    let well_known = [0xc1, 1, 0, 0, 0, 0, 0, 0];
    // Of a LU, of none, of the well-known one.
    for lun in [lun(0, 0), lun(0, 260), lun(0, 99), well_known] {
        assert_eq!(reported(&mut guest, lun, 0), [zero, one, far]);
        assert_eq!(reported(&mut guest, lun, 1), [well_known]);
        assert_eq!(reported(&mut guest, lun, 2), [zero, one, far, well_known]);
        for bad in [cdb::report_luns(0, 15), cdb::report_luns(0x13, 256)] {
            let answer = guest.run(&Task::new(&bad).to(lun).reading(256));
            assert_eq!(answer.to_string(), "05/24/00");
        }
    }
    assert_eq!(reported(&mut guest, lun(7, 0), 0), [entry(0, 3)]);
    // A LUN without a LU says so wherever it is asked (SPC-5 4.6).
    let absent = lun(0, 2);
    let inquiry = guest.run(&Task::new(&cdb::inquiry(None, 36)).to(absent).reading(36));
    assert_eq!((inquiry.to_string().as_str(), inquiry.data[0]), ("GOOD", 0x7f));
    let sense = guest.run(&Task::new(&cdb::request_sense(false, 18)).to(absent).reading(18));
    assert_eq!(sense.to_string(), "GOOD");
    assert_eq!((sense.data[2], sense.data[12], sense.data[13]), (5, 0x25, 0));
    let read = guest.run(&Task::new(&read_one()).to(absent).reading(512));
    assert_eq!((read.to_string().as_str(), read.residual), ("05/25/00", 512));
}

/// Lengths that do not match: what the CDB says, what the buffers hold, the
/// answer, and how much was not transferred.
#[test]
fn buffers_that_do_not_match_the_cdb_are_overruns_or_residuals() {
    for block in [512, 4096] {
        let setup = Setup { block_size: block, ..Setup::scsi() };
        let daemon = Daemon::start(&setup);
        let mut guest = ScsiGuest::connect(&daemon, 1);
        let read = |opcode, count| cdb::blocks(opcode, 8, count);
        let rows: Vec<(Vec<u8>, u32, u32, &str, u32)> = vec![
            (read(0x88, 2), 0, 2 * block, "GOOD", 0),
            (read(0x88, 2), 0, 3 * block, "GOOD", block),
            (read(0x88, 2), 0, 2 * block + 1, "GOOD", 1),
            (read(0x88, 2), 0, 2 * block - 1, "OVERRUN", 2 * block - 1),
            (read(0x88, 2), 0, block, "OVERRUN", block),
            (read(0x28, 2), 0, 0, "OVERRUN", 0),
            (read(0xa8, 0), 0, 0, "GOOD", 0),
            (read(0xa8, 0), 0, block, "GOOD", block),
            (read(0x08, 4), 0, 4 * block, "GOOD", 0),
            // Of READ(6) a length of 0 is 256 blocks.
            (read(0x08, 0), 0, block, "OVERRUN", block),
            (read(0x8a, 2), 2 * block, 0, "GOOD", 0),
            (read(0x8a, 2), 3 * block, 0, "GOOD", block),
            (read(0x8a, 2), block, 0, "OVERRUN", block),
            (read(0x2a, 2), 0, 0, "OVERRUN", 0),
            // The wrong way round.
            (read(0x88, 1), block, 0, "OVERRUN", block),
            (read(0x8a, 1), 0, block, "OVERRUN", block),
            // No data at all.
            (read(0x35, 0), 0, 64, "GOOD", 64),
            (cdb::TUR.to_vec(), 64, 0, "GOOD", 64),
            // Allocation lengths: the shorter counts.
            (cdb::inquiry(None, 96).to_vec(), 0, 512, "GOOD", 416),
            (cdb::inquiry(None, 96).to_vec(), 0, 36, "GOOD", 0),
            (cdb::inquiry(None, 5).to_vec(), 0, 96, "GOOD", 91),
            (cdb::inquiry(None, 96).to_vec(), 0, 0, "GOOD", 0),
            (cdb::inquiry(None, 0).to_vec(), 0, 16, "GOOD", 16),
            (cdb::read_capacity(32).to_vec(), 0, 32, "GOOD", 0),
            (cdb::read_capacity(32).to_vec(), 0, 12, "GOOD", 0),
            (cdb::read_capacity(12).to_vec(), 0, 32, "GOOD", 20),
            (cdb::request_sense(false, 252).to_vec(), 0, 252, "GOOD", 234),
            (cdb::report_luns(0, 64).to_vec(), 0, 16, "GOOD", 0),
            // Beyond the end, and an LBA that wraps around.
            (cdb::blocks(0x88, u64::MAX, 2), 0, 2 * block, "05/21/00", 2 * block),
            (cdb::compare_and_write(100, 1), 2 * block, 0, "0e/1d/00", 0),
            (cdb::compare_and_write(8, 1), block, 0, "OVERRUN", block),
            (cdb::unmap(8, 1).0.to_vec(), 8, 0, "OVERRUN", 8),
        ];
        for (cdb, out, data_in, expected, residual) in rows {
            let bytes = vec![0x5a; out as usize];
            let task = Task::new(&cdb).reading(data_in);
            let answer = guest.run(&if out > 0 { task.writing(&bytes) } else { task });
            let what = format!("{cdb:02x?}, {out} out, {data_in} in, blocks of {block}");
            assert_eq!(answer.to_string(), expected, "{what}");
            if expected != "0e/1d/00" {
                assert_eq!(answer.residual, residual, "{what}");
            }
            let moved = if data_in > 0 { data_in - residual } else { 0 };
            assert_eq!(answer.used_len, 108 + moved, "{what}");
        }
    }
}

/// CDBs in their field: cut, too long, of other lengths, NACA.
#[test]
fn cdbs_that_are_none_are_refused_and_others_reach_the_lu() {
    let (daemon, mut guest) = start(&[]);
    // READ(32): 7Fh with 24 bytes more.
    let mut long = [0; 32];
    (long[0], long[7], long[9], long[31]) = (0x7f, 24, 9, 1);
    let with = |at: usize, byte: u8, mut cdb: Vec<u8>| {
        cdb[at] = byte;
        cdb
    };
    let naca = |cdb: Vec<u8>| with(cdb.len() - 1, 4, cdb);
    let rows: Vec<(Vec<u8>, &str)> = vec![
        // The LU has no such command, which it says itself.
        (long.to_vec(), "05/20/00"),
        // A length beyond the field, and one that is no multiple of four.
        (with(7, 252, long.to_vec()), "05/24/00"),
        (with(7, 0, long.to_vec()), "05/20/00"),
        // An extended CDB, a reserved group, a vendor's command.
        (vec![0x7e, 0, 0, 0], "05/20/00"),
        (vec![0x60; 16], "05/20/00"),
        (vec![0xc1; 32], "05/20/00"),
        (vec![0xff; 32], "05/20/00"),
        // NACA in every length, and of a command we answer ourselves.
        (naca(cdb::TUR.to_vec()), "05/24/00"),
        (naca(cdb::blocks(0x28, 0, 1)), "05/24/00"),
        (naca(cdb::blocks(0xa8, 0, 1)), "05/24/00"),
        (naca(cdb::blocks(0x88, 0, 1)), "05/24/00"),
        (with(1, 4, long.to_vec()), "05/24/00"),
        (naca(cdb::report_luns(0, 256).to_vec()), "05/24/00"),
        (naca(cdb::inquiry(None, 36).to_vec()), "05/24/00"),
        // Bytes behind the CDB are not the command's.
        ([cdb::blocks(0x88, 0, 1), vec![0xff; 16]].concat(), "GOOD"),
        ([&cdb::TUR[..], &[0xff; 26]].concat(), "GOOD"),
    ];
    for (cdb, expected) in rows {
        let answer = guest.run(&Task::new(&cdb).reading(512));
        assert_eq!(answer.to_string(), expected, "{cdb:02x?}");
        assert_eq!(read(&mut guest), "GOOD", "after {cdb:02x?}");
    }
    // A LU that is not there is asked nothing with NACA either.
    let cdb = naca(cdb::inquiry(None, 36).to_vec());
    let answer = guest.run(&Task::new(&cdb).to(lun(0, 9)).reading(36));
    assert_eq!(answer.to_string(), "05/24/00");
    drop(daemon);
}

#[test]
fn every_task_attribute_runs_and_priorities_mean_nothing() {
    let (_daemon, mut guest) = start(&[]);
    for attribute in [0, 1, 2, 3, 4, 77, 255] {
        let cdb = read_one();
        let task = Task { attribute, ..Task::new(&cdb) };
        assert_eq!(guest.run(&task.reading(512)).to_string(), "GOOD", "attribute {attribute}");
    }
}

/// Sense and CDB size, and what else a driver may try to write.
#[test]
fn the_driver_chooses_its_sense_and_cdb_size() {
    let (_daemon, mut guest) = start(&[]);
    let le = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let config = guest.config(0, 36);
    let word = |at: usize| le(&config[at..at + 4]);
    assert_eq!(word(0), 4, "num_queues");
    assert!(word(4) > 0 && word(8) > 0 && word(12) > 0, "{config:02x?}");
    assert_eq!((word(16), word(20), word(24)), (16, 96, 32), "event, sense and CDB sizes");
    assert_eq!(&config[28..36], [0, 0, 255, 0, 0xff, 0x3f, 0, 0], "channel, target, LUN");
    let bad = cdb::blocks(0x88, u64::MAX, 1);
    for (sense, cdb) in [(18u32, 16u32), (8, 32), (252, 260), (0, 32), (96, 32)] {
        let flags = VhostUserConfigFlags::WRITABLE;
        guest.vhost().set_config(20, flags, &sense.to_le_bytes()).expect("sense_size");
        guest.vhost().set_config(24, flags, &cdb.to_le_bytes()).expect("cdb_size");
        assert_eq!(le(&guest.config(20, 4)), sense);
        assert_eq!(le(&guest.config(24, 4)), cdb);
        for queue in guest.all_requests() {
            queue.sense_size = sense as usize;
            queue.cdb_size = cdb as usize;
        }
        assert_eq!(read(&mut guest), "GOOD", "sense {sense}, CDB {cdb}");
        let refused = guest.run(&Task::new(&bad).reading(512));
        assert_eq!((refused.response, refused.status), (0, 2));
        assert_eq!(refused.sense.len(), 18.min(sense as usize));
        assert_eq!(refused.used_len, 12 + sense);
    }
    // READ(16) does not fit a field of 12 bytes.
    let flags = VhostUserConfigFlags::WRITABLE;
    guest.vhost().set_config(24, flags, &12u32.to_le_bytes()).expect("cdb_size");
    guest.requests(0).cdb_size = 12;
    assert_eq!(read(&mut guest), "05/24/00");
    assert_eq!(guest.say(&cdb::TUR), "GOOD");
    for (at, bytes) in [(0u32, vec![1, 0, 0, 0]), (20, vec![0xff; 4]), (24, vec![0; 4])] {
        let refused = guest.vhost().set_config(at, flags, &bytes);
        assert!(refused.is_err(), "{bytes:02x?} at {at} were taken");
    }
    assert_eq!(guest.features & (F_HOTPLUG | F_CHANGE), F_HOTPLUG | F_CHANGE);
    assert_eq!(guest.features & (F_INOUT | F_T10_PI), 0);
}

/// What readable bytes and how much writable room a chain has, each cut into
/// descriptors at a place.
struct Cut<'a> {
    readable: &'a [u8],
    writable: u32,
    read_at: usize,
    write_at: u32,
}

/// Where the writable part begins, behind the readable one in the slot's data.
const WRITABLE_AT: u64 = 8192;

/// Gives such a chain; all that was writable, and the used length.
fn run_cut(queue: &mut ScsiQueue, cut: &Cut<'_>) -> (Vec<u8>, u32) {
    let len = |bytes: usize| u32::try_from(bytes).expect("short");
    let (first, second) = cut.readable.split_at(cut.read_at.min(cut.readable.len()));
    let write_at = cut.write_at.min(cut.writable);
    let buffers = [
        (0, len(first.len()), 0),
        (first.len() as u64, len(second.len()), 0),
        (WRITABLE_AT, write_at, WRITE),
        (WRITABLE_AT + u64::from(write_at), cut.writable - write_at, WRITE),
    ];
    let used: Vec<_> = buffers.into_iter().filter(|(_, len, _)| *len > 0).collect();
    let mut data = 0;
    queue.submit_raw(used.len(), |driver, slot, indexes| {
        data = slot.data;
        guest::write(driver.memory(), data, cut.readable);
        let blank = vec![UNANSWERED; cut.writable as usize + 16];
        guest::write(driver.memory(), data + WRITABLE_AT, &blank);
        for (i, (offset, len, flags)) in used.iter().enumerate() {
            let next = indexes.get(i + 1).copied();
            let flags = flags | u16::from(next.is_some());
            let next = next.unwrap_or(0);
            let addr = data + offset;
            driver.set_descriptor(indexes[i], Descriptor { addr, len: *len, flags, next });
        }
    });
    queue.kick();
    let done = queue.wait_for(|| format!("{} readable, {write_at} writable", cut.readable.len()));
    let mut written = vec![0; cut.writable as usize + 16];
    guest::read(queue.driver.memory(), data + WRITABLE_AT, &mut written);
    let rest = written.split_off(cut.writable as usize);
    assert_eq!(rest, [UNANSWERED; 16], "written behind the end");
    (written, done.used_len)
}

#[test]
fn a_chain_may_be_cut_anywhere() {
    let (_daemon, mut guest) = start(&[]);
    let pattern: Vec<u8> = (0..512).map(|i| u8::try_from(i % 251).expect("small")).collect();
    let queue = guest.requests(0);
    let write = header(&Task::new(&cdb::blocks(0x8a, 3, 1)), 32);
    let read = header(&Task::new(&cdb::blocks(0x88, 3, 1)), 32);
    let inquiry = header(&Task::new(&cdb::inquiry(Some(0x83), 200)), 32);
    let good = |written: &[u8]| assert_eq!((written[10], written[11]), (0, 0), "{written:02x?}");
    let mut identification = None;
    for at in (1..=120).chain([300, 511, 512, 550, 562, 563, 600]) {
        let readable = [&write[..], &pattern].concat();
        let cut = Cut { readable: &readable, writable: 108, read_at: at, write_at: 54 };
        let (written, used_len) = run_cut(queue, &cut);
        good(&written);
        assert_eq!(used_len, 108);
        let write_at = u32::try_from(at).expect("small");
        let cut = Cut { readable: &read, writable: 108 + 512, read_at: 20, write_at };
        let (written, used_len) = run_cut(queue, &cut);
        good(&written);
        assert_eq!(used_len, 108 + 512);
        assert!(written[108..] == pattern, "cut at {at}");
        // An answer that is edited before the guest gets it.
        let cut = Cut { readable: &inquiry, writable: 108 + 200, read_at: at, write_at };
        let (written, _) = run_cut(queue, &cut);
        good(&written);
        let page = identification.get_or_insert_with(|| written[108..].to_vec());
        assert!(written[108..] == page[..] && page[1] == 0x83, "cut at {at}");
    }
}

#[test]
fn requests_and_responses_too_short_are_answered_with_what_fits() {
    let (_daemon, mut guest) = start(&[]);
    let read = header(&Task::new(&read_one()), 32);
    assert_eq!(read.len(), HEADER + 32);
    for readable in [0, 1, 7, 8, 18, 19, 20, 35, 50] {
        let cut = Cut { readable: &read[..readable], writable: 620, read_at: 3, write_at: 9 };
        let (written, _) = run_cut(guest.requests(0), &cut);
        assert_eq!(response_name(written[11]), "FAILURE", "{readable} bytes of request");
        assert_eq!(self::read(&mut guest), "GOOD");
    }
    for writable in [0, 1, 4, 10, 11, 12, 13, 60, 107] {
        let cut = Cut { readable: &read, writable, read_at: 3, write_at: 5 };
        let (written, used_len) = run_cut(guest.requests(0), &cut);
        assert!(used_len <= writable, "{used_len} bytes used of {writable}");
        if let Some(response) = written.get(RESPONSE - 1) {
            assert_eq!(response_name(*response), "FAILURE", "{writable} bytes of room");
        }
        assert_eq!(self::read(&mut guest), "GOOD");
    }
    // A write with a short response is not carried out.
    let ones = [1; 512];
    let write = [header(&Task::new(&cdb::blocks(0x8a, 5, 1)), 32), ones.to_vec()].concat();
    run_cut(guest.requests(0), &Cut { readable: &write, writable: 11, read_at: 9, write_at: 5 });
    let back = guest.run(&Task::new(&cdb::blocks(0x88, 5, 1)).reading(512));
    assert!(back.is_good() && back.data == [0; 512]);
}

#[test]
fn both_ways_at_once_is_refused() {
    let (_daemon, mut guest) = start(&[]);
    let bytes = [9; 512];
    for cdb in [cdb::blocks(0x88, 0, 1), cdb::blocks(0x8a, 0, 1), vec![0x53; 10]] {
        let answer = guest.run(&Task::new(&cdb).reading(512).writing(&bytes));
        assert_eq!(answer.to_string(), "FAILURE", "{cdb:02x?}");
    }
    let back = guest.run(&Task::new(&read_one()).reading(512));
    assert!(back.is_good() && back.data == [0; 512]);
}

#[test]
fn control_requests_of_every_kind_and_length_are_answered() {
    let (_daemon, mut guest) = start(&[]);
    let here = lun(0, 0);
    let notification =
        |kind: u32, lun: [u8; 8]| [&kind.to_le_bytes()[..], &lun, &0x3eu32.to_le_bytes()].concat();
    let control = guest.control();
    for kind in [1, 2] {
        let answer =
            |control: &mut ScsiQueue, lun| control.run_control(&notification(kind, lun), 5);
        assert_eq!(answer(control, here), [0, 0, 0, 0, 0], "no events, OK");
        assert_eq!(answer(control, lun(3, 0)), [0, 0, 0, 0, 3], "BAD_TARGET");
        assert_eq!(answer(control, lun(0, 3)), [0, 0, 0, 0, 12], "INCORRECT_LUN");
    }
    let tmf = |subtype| crate::harness::scsi_queue::tmf(subtype, here, 0);
    for (request, expected) in [
        (tmf(8), "FUNCTION_REJECTED"),
        (tmf(u32::MAX), "FUNCTION_REJECTED"),
        (tmf(2), "FUNCTION_REJECTED"), // CLEAR ACA
        (3u32.to_le_bytes().to_vec(), "FUNCTION_REJECTED"),
        (vec![0xff; 24], "FUNCTION_REJECTED"),
        (tmf(0)[..23].to_vec(), "FAILURE"),
        (vec![0; 4], "FAILURE"),
        (vec![0; 3], "FAILURE"),
    ] {
        let answer = control.run_control(&request, 1);
        assert_eq!(response_name(answer[0]), expected, "{request:02x?}");
    }
    // Nothing to read, nothing to write, too little to write.
    for (request, reply) in [(vec![], 1), (tmf(0), 0), (notification(1, here), 3)] {
        control.run_control(&request, reply);
    }
    assert_eq!(control.run_tmf(NEXUS_RESET, lun(4, 0), 0), "BAD_TARGET");
    assert_eq!(control.run_tmf(NEXUS_RESET, here, 0), "OK");
}

/// Several requests at a time on every queue: no answer is another's.
#[test]
fn answers_find_their_requests_on_many_queues() {
    let daemon = Daemon::start(&Setup::scsi().lun("0:1", "one"));
    let mut shape = ScsiGuest::shape(4);
    shape.manner.depth = 32;
    for (event_idx, indirect) in [(true, true), (false, false)] {
        (shape.manner.event_idx, shape.manner.indirect) = (event_idx, indirect);
        let mut guest = ScsiGuest::with(&daemon.socket(), shape);
        for round in 0..20u64 {
            let mut asked = Vec::new();
            for (number, queue) in guest.all_requests().iter_mut().enumerate() {
                let mut tokens = Vec::new();
                for n in 0..u64::try_from(queue.room(8)).expect("few") {
                    let block = 1 + (round + n) % 7;
                    let cdb = cdb::blocks(0x88, 0, u32::try_from(block).expect("small"));
                    let unit = lun(0, u16::try_from(n % 2).expect("small"));
                    let room = u32::try_from(512 * block).expect("small");
                    let task = Task::new(&cdb).named(n).to(unit).reading(room);
                    tokens.push((queue.submit(&task).expect("room"), room));
                }
                queue.kick();
                asked.push((number, tokens));
            }
            for (number, tokens) in asked {
                let queue = guest.requests(number);
                for done in queue.drain(crate::harness::slot_queue::PATIENCE) {
                    let answer: Answer = queue.answer(&done);
                    let room = tokens.iter().find(|(token, _)| *token == done.token);
                    assert!(answer.is_good() && answer.residual == 0, "{answer}");
                    assert_eq!(answer.used_len, 108 + room.expect("asked").1);
                }
            }
        }
    }
    drop(daemon);
}

/// A request with more data than one command of a path may carry.
#[test]
fn a_transfer_beyond_the_block_limits_is_told_and_not_a_paths_failure() {
    let daemon = Daemon::start(&Setup { size: 64 << 20, ..Setup::scsi() });
    let mut shape = ScsiGuest::shape(1);
    shape.manner.depth = 1;
    shape.manner.slot_bytes = 8 << 20;
    let mut guest = ScsiGuest::with(&daemon.socket(), shape);
    let page = guest.run(&Task::new(&cdb::inquiry(Some(0xb0), 64)).reading(64));
    assert!(page.is_good());
    let most = u32::from_be_bytes(page.data[8..12].try_into().expect("4 bytes"));
    assert!((1..16384).contains(&most), "MAXIMUM TRANSFER LENGTH {most}");
    for (blocks, expected) in [(most, "GOOD"), (most + 1, "05/24/00"), (most + 7, "05/24/00")] {
        let cdb = cdb::blocks(0x88, 0, blocks);
        let answer = guest.run(&Task::new(&cdb).reading(blocks * 512));
        assert_eq!(answer.to_string(), expected, "{blocks} blocks of at most {most}");
        let cdb = cdb::blocks(0x8a, 0, blocks);
        let task = Task { out: Payload::AsIs(blocks * 512), ..Task::new(&cdb) };
        assert_eq!(guest.run(&task).to_string(), expected, "{blocks} blocks of at most {most}");
    }
}
