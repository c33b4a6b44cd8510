//! One LU, not N paths: what a vhost-user-scsi guest may see of a map with two
//! paths, and what of each path where paths are exposed; what it may not do,
//! and what the administrator is told of that.

use serde_json::{Value, json};

use crate::harness::cdb;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

/// GOOD data-in of a command to a LU.
fn ask(guest: &mut ScsiGuest, lun: [u8; 8], cdb: &[u8]) -> Vec<u8> {
    let answer = guest.run(&Task::new(cdb).to(lun).reading(4096));
    assert!(answer.is_good(), "{cdb:02x?}: {answer}");
    answer.transferred().to_vec()
}

/// Association and type of each designator of page 83h.
fn designators(guest: &mut ScsiGuest, lun: [u8; 8]) -> Vec<(u8, u8)> {
    let page = ask(guest, lun, &cdb::inquiry(Some(0x83), 1024));
    let mut rest = &page[4..];
    let mut found = Vec::new();
    while rest.len() >= 4 {
        found.push((rest[1] >> 4 & 3, rest[1] & 0xf));
        rest = &rest[4 + usize::from(rest[3])..];
    }
    assert!(rest.is_empty(), "{page:02x?}");
    found
}

/// The NAA designator of the LU.
fn naa(guest: &mut ScsiGuest, lun: [u8; 8]) -> Vec<u8> {
    let page = ask(guest, lun, &cdb::inquiry(Some(0x83), 1024));
    let mut rest = &page[4..];
    while rest[1] & 0x3f != 3 {
        rest = &rest[4 + usize::from(rest[3])..];
    }
    rest[4..4 + usize::from(rest[3])].to_vec()
}

/// TPGS, 3PC and MULTIP of standard INQUIRY data.
fn path_bits(inquiry: &[u8]) -> (u8, u8, u8) {
    (inquiry[5] >> 4 & 3, inquiry[5] >> 3 & 1, inquiry[6] >> 4 & 1)
}

/// Operation codes that REPORT SUPPORTED OPERATION CODES lists.
fn opcodes(guest: &mut ScsiGuest, lun: [u8; 8]) -> Vec<(u8, u16)> {
    let list = ask(guest, lun, &cdb::all_opcodes(4096));
    assert_eq!(list.len() - 4, u32::from_be_bytes(list[..4].try_into().expect("4")) as usize);
    list[4..].chunks_exact(8).map(|d| (d[0], u16::from_be_bytes([d[2], d[3]]))).collect()
}

const HERE: [u8; 8] = lun(0, 0);

#[test]
fn a_map_of_two_paths_shows_one_lu() {
    let setup = Setup::scsi().with(&["--path-grouping-policy", "multibus"]);
    let mut daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 1);
    // Whichever path answers: the answers are the same.
    let mut answers: Option<Vec<Vec<u8>>> = None;
    for path in [None, Some(0), Some(1)] {
        if let Some(path) = path {
            daemon.cut(path, "before");
        }
        assert!(designators(&mut guest, HERE).iter().all(|(association, _)| *association == 0));
        let inquiry = ask(&mut guest, HERE, &cdb::inquiry(None, 96));
        assert_eq!(path_bits(&inquiry), (0, 0, 0), "{inquiry:02x?}");
        let commands: [&[u8]; 8] = [
            &cdb::inquiry(None, 96),
            &cdb::inquiry(Some(0x00), 255),
            &cdb::inquiry(Some(0x80), 255),
            &cdb::inquiry(Some(0x83), 1024),
            &cdb::inquiry(Some(0xb0), 64),
            &cdb::target_port_groups(false, 255),
            &cdb::target_port_groups(true, 255),
            &cdb::all_opcodes(4096),
        ];
        let now: Vec<_> = commands.iter().map(|cdb| ask(&mut guest, HERE, cdb)).collect();
        assert_eq!(answers.get_or_insert_with(|| now.clone()), &now, "without {path:?}");
        if let Some(path) = path {
            daemon.plug(path);
            daemon.reinstate(path);
            daemon.until_usable(2);
        }
    }
    let answers = answers.expect("asked");
    assert!(!answers[1][4..].iter().any(|page| [0x88, 0x90, 0x91].contains(page)), "SCSI ports");
    for page in [0x88, 0x90, 0x91] {
        let answer = guest.run(&Task::new(&cdb::inquiry(Some(page), 255)).reading(255));
        assert_eq!(answer.to_string(), "05/24/00", "page {page:02x}");
    }
    // One group, active/optimized, of one port.
    let groups = &answers[5];
    assert_eq!(groups.len(), 4 + 8 + 4);
    assert_eq!((groups[4] & 0x0f, groups[4 + 7]), (0, 1), "{groups:02x?}");
    assert_eq!(&answers[6][8..], &groups[4..], "the extended header differs only");
}

#[test]
fn a_short_allocation_gets_the_beginning_of_the_whole_answer() {
    let daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    for (page, most) in [(None, 96), (Some(0x00), 200), (Some(0x83), 300), (Some(0xb0), 64)] {
        let whole = ask(&mut guest, HERE, &cdb::inquiry(page, most));
        for allocation in 0..=u16::try_from(whole.len()).expect("short") + 3 {
            let part = ask(&mut guest, HERE, &cdb::inquiry(page, allocation));
            let expected = usize::from(allocation).min(whole.len());
            assert_eq!(part, whole[..expected], "{page:02x?} of {allocation}");
        }
    }
    let whole = ask(&mut guest, HERE, &cdb::all_opcodes(4096));
    for allocation in [4, 5, 12, 13, 100] {
        let part = ask(&mut guest, HERE, &cdb::all_opcodes(allocation));
        assert_eq!(part, whole[..usize::from(allocation)]);
    }
}

#[test]
fn exposed_paths_are_targets_with_ports_of_their_own() {
    let daemon = Daemon::start(&Setup::scsi().with(&["--expose", "paths"]));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    let targets = [lun(0, 0), lun(1, 0)];
    let mut groups = Vec::new();
    let mut pages = Vec::new();
    for target in targets {
        let found = designators(&mut guest, target);
        for port in [(1, 3), (1, 4), (1, 5)] {
            assert!(found.contains(&port), "designator {port:?} of {found:?}");
        }
        let inquiry = ask(&mut guest, target, &cdb::inquiry(None, 96));
        assert_ne!(path_bits(&inquiry).0, 0, "TPGS");
        groups.push(ask(&mut guest, target, &cdb::target_port_groups(false, 255)));
        pages.push(ask(&mut guest, target, &cdb::inquiry(Some(0x83), 1024)));
    }
    assert_eq!(naa(&mut guest, targets[0]), naa(&mut guest, targets[1]), "one LU");
    assert_ne!(pages[0], pages[1], "two ports");
    assert_eq!(groups[0][4 + 7], 2, "the array's own group of two ports: {:02x?}", groups[0]);
    // What one target wrote, the other reads.
    let data = [0x42; 512];
    let write = guest.run(&Task::new(&cdb::blocks(0x8a, 1, 1)).to(targets[0]).writing(&data));
    assert!(write.is_good());
    let read = guest.run(&Task::new(&cdb::blocks(0x88, 1, 1)).to(targets[1]).reading(512));
    assert_eq!(read.data, data);
}

#[test]
fn a_cut_exposed_path_fails_its_target_and_no_other() {
    for (answer, expected) in [("transport", "TRANSPORT_FAILURE"), ("not-ready", "02/3a/00")] {
        let setup = Setup::scsi().with(&["--expose", "paths", "--no-path", answer]);
        let mut daemon = Daemon::start(&setup);
        let mut guest = ScsiGuest::connect(&daemon, 1);
        let read = |guest: &mut ScsiGuest, target| {
            let cdb = cdb::blocks(0x88, 0, 1);
            guest.run(&Task::new(&cdb).to(lun(target, 0)).reading(512)).to_string()
        };
        for _ in 0..2 {
            assert_eq!((read(&mut guest, 0), read(&mut guest, 1)), ("GOOD".into(), "GOOD".into()));
            daemon.cut(1, "before");
            assert_eq!(
                (read(&mut guest, 0), read(&mut guest, 1)),
                ("GOOD".into(), expected.into())
            );
            daemon.plug(1);
            daemon.reinstate(1);
            daemon.until_usable(2);
            // Who sees paths hears of their loss: I_T NEXUS LOSS.
            assert_eq!(guest.attentions(lun(1, 0)), ["06/29/07"]);
            assert_eq!(guest.attentions(lun(0, 0)), [""; 0]);
        }
    }
}

#[test]
fn block_limits_are_what_every_path_can_carry() {
    let daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    let page = ask(&mut guest, HERE, &cdb::inquiry(Some(0xb0), 64));
    let word = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().expect("4"));
    let (most, optimal) = (word(8), word(12));
    assert!(most > 0 && optimal <= most, "maximum {most}, optimal {optimal}");
    assert!(u32::from(page[5]) <= most / 2, "COMPARE AND WRITE of {} blocks", page[5]);
    let supported = ask(&mut guest, HERE, &cdb::inquiry(Some(0), 255));
    assert!(supported[4..].contains(&0xb0) && supported[4..].is_sorted());
}

#[test]
fn a_read_only_lu_says_so_and_is_not_written() {
    let daemon = Daemon::start(&Setup::scsi().with(&["--read-only"]));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    let mode = ask(&mut guest, HERE, &cdb::mode_sense(255));
    assert_eq!(mode[3] & 0x80, 0x80, "WP of MODE SENSE(10): {mode:02x?}");
    let mode = ask(&mut guest, HERE, &[0x1a, 0, 0x3f, 0, 255, 0]);
    assert_eq!(mode[2] & 0x80, 0x80, "WP of MODE SENSE(6): {mode:02x?}");
    let data = vec![1; 1024];
    for cdb in [
        cdb::blocks(0x0a, 0, 1),
        cdb::blocks(0x2a, 0, 1),
        cdb::blocks(0xaa, 0, 1),
        cdb::blocks(0x8a, 0, 1),
        cdb::blocks(0x41, 0, 1),
        cdb::blocks(0x93, 0, 1),
        cdb::blocks(0x2e, 0, 1),
        cdb::compare_and_write(0, 1),
        cdb::unmap(0, 1).0.to_vec(),
    ] {
        let answer = guest.run(&Task::new(&cdb).writing(&data));
        assert_eq!(answer.to_string(), "07/27/00", "{cdb:02x?}");
    }
    for cdb in [cdb::blocks(0x35, 0, 0), cdb::TUR.to_vec()] {
        assert_eq!(guest.say(&cdb), "GOOD", "{cdb:02x?}");
    }
    assert_eq!(ask(&mut guest, HERE, &cdb::blocks(0x88, 0, 1)), [0; 512]);
}

/// A command of each group that is denied by default, in its group's name.
fn denied_by_default() -> Vec<(Vec<u8>, &'static str)> {
    let of = |opcode: u8, second: u8, len: usize| {
        let mut cdb = vec![0; len];
        (cdb[0], cdb[1]) = (opcode, second);
        cdb
    };
    vec![
        (of(0x04, 0, 6), "format-unit"),
        (of(0x48, 3, 10), "sanitize"),
        (of(0x3f, 0x40, 10), "write-long"),
        (of(0x3b, 5, 10), "write-buffer"),
        (of(0x1b, 0, 6), "stop-unit"),
        (of(0x1d, 0x10, 6), "send-diagnostic"),
        (of(0x15, 0x10, 6), "mode-select"),
        (of(0x55, 0x10, 10), "mode-select"),
        (of(0x4c, 0, 10), "log-select"),
        (of(0xa4, 0x0a, 12), "maintenance-out"),
        (of(0xa4, 0x0f, 12), "set-timestamp"),
        (of(0x83, 0, 16), "third-party-copy"),
        (of(0xb5, 0, 12), "security-protocol-out"),
        (of(0x8c, 0, 16), "attribute"),
        (of(0x85, 0, 16), "ata-pass-through"),
        (of(0xc0, 0, 16), "vendor"),
        (of(0x02, 0, 6), "unknown"),
        (of(0x16, 0, 6), "reserve"),
        (of(0x57, 0, 10), "reserve"),
    ]
}

/// The group of the COMMAND_DENIED that comes next.
fn denied(daemon: &mut Daemon) -> Value {
    daemon.qmp().event("COMMAND_DENIED")["group"].take()
}

#[test]
fn what_endangers_others_is_refused_and_the_administrator_is_told() {
    let mut refused = 0;
    for (cdb, group) in denied_by_default() {
        // Each alone: the event stream has its limits.
        let mut daemon = Daemon::start(&Setup::scsi());
        let mut guest = ScsiGuest::connect(&daemon, 1);
        let list = [0; 24];
        assert_eq!(guest.run(&Task::new(&cdb).writing(&list)).to_string(), "05/20/00", "{group}");
        assert_eq!(denied(&mut daemon), group, "{cdb:02x?}");
        let has_action = matches!(cdb[0], 0x48 | 0xa4 | 0x5f | 0x83 | 0x8c);
        let action = has_action.then_some(cdb[1] & 0x1f);
        let answer = ask(&mut guest, HERE, &cdb::one_opcode(cdb[0], action, 64));
        let has_other_forms = matches!(cdb[0], 0x1b | 0x1d);
        assert!(has_other_forms || answer[1] & 7 == 1, "SUPPORT of {group}: {answer:02x?}");
        refused += 1;
    }
    assert_eq!(refused, denied_by_default().len());
}

#[test]
fn harmless_forms_of_denied_commands_pass() {
    let daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    // START STOP UNIT with START=1.
    assert_eq!(guest.say(&[0x1b, 0, 0, 0, 1, 0]), "GOOD");
    // A self-test: of the simulated LU no command, and no policy's business;
    // nor is PERSISTENT RESERVE IN.
    for (cdb, says) in
        [(&[0x1d, 4, 0, 0, 0, 0][..], "05/20/00"), (&[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0], "GOOD")]
    {
        assert_eq!(guest.run(&Task::new(cdb).reading(8)).to_string(), says);
    }
    assert!(!daemon.log().contains("COMMAND_DENIED"), "{}", daemon.log());
    assert!(!daemon.log().contains("denied"), "{}", daemon.log());
}

#[test]
fn groups_are_allowed_and_denied_by_name_and_per_lun() {
    let mut setup = Setup::scsi().lun("0:1", "one").lun("0:2,allow=stop-unit", "two");
    setup.options.extend(["--allow", "mode-select", "--deny", "reassign-blocks"]);
    setup.options.extend(["--deny", "persistent-reserve-out"]);
    let mut daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 1);
    let stop = [0x1b, 0, 0, 0, 0, 0];
    assert_eq!(guest.say(&stop), "05/20/00");
    assert_eq!(denied(&mut daemon), "stop-unit");
    assert_eq!(guest.run(&Task::new(&stop).to(lun(0, 2))).to_string(), "GOOD");
    let start = [0x1b, 0, 0, 0, 1, 0];
    assert_eq!(guest.run(&Task::new(&start).to(lun(0, 2))).to_string(), "GOOD");
    // An empty parameter list changes nothing, and reaches the LU.
    assert_eq!(guest.say(&[0x15, 0x10, 0, 0, 0, 0]), "GOOD");
    let listed = opcodes(&mut guest, HERE);
    assert!(listed.contains(&(0x15, 0)) && !listed.contains(&(0x07, 0)), "{listed:02x?}");
    assert!(listed.contains(&(0xa3, 0x0a)), "RTPG is answered, and listed");
    assert_eq!(guest.say(&[0x07, 0, 0, 0, 0, 0]), "05/20/00");
    assert_eq!(denied(&mut daemon), "reassign-blocks");
    let register = guest.run(&Task::new(&cdb::register()).writing(&[0; 24]));
    assert_eq!(register.to_string(), "05/20/00");
    assert_eq!(denied(&mut daemon), "persistent-reserve-out");
}

/// RESERVE(6).
const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];

/// RESERVE(6) holds for a nexus: with two of them it is refused, with one it is
/// the LU's business (the simulated LU has none, and says so).
#[test]
fn reservations_of_one_nexus_need_one_path() {
    for (paths, options, refused) in [
        (2, &[][..], true),
        (2, &["--allow", "reserve"], true),
        (1, &[], false),
        (2, &["--expose", "paths"], false),
    ] {
        let mut daemon = Daemon::start(&Setup { paths, ..Setup::scsi() }.with(options));
        let mut guest = ScsiGuest::connect(&daemon, 1);
        assert_eq!(guest.say(&RESERVE), "05/20/00");
        // Something that is refused in any case, to have an event to compare.
        guest.say(&[0xc0; 6]);
        let first = denied(&mut daemon);
        let expected = if refused { "reserve" } else { "vendor" };
        assert_eq!(first, json!(expected), "{paths} paths, {options:?}");
    }
}

/// Law 5: what the guest has reserved by one path says nothing for another.
#[test]
fn a_lu_that_its_guest_has_reserved_takes_no_further_path() {
    for reserves in [true, false] {
        let mut daemon = Daemon::start(&Setup { paths: 1, ..Setup::scsi() });
        let mut guest = ScsiGuest::connect(&daemon, 1);
        if reserves {
            guest.say(&RESERVE);
        } else {
            guest.say(&[0; 6]);
        }
        let spec = daemon.spec(&daemon.image(), "late");
        let joined = daemon.qmp().try_execute("path-add", &json!({ "spec": spec }));
        assert_eq!(joined.is_err(), reserves, "{joined:?}");
        if let Err(error) = joined {
            assert!(error.to_string().contains("has one path"), "{error}");
        }
        // Once there are several paths, it cannot be reserved.
        guest.say(&RESERVE);
        guest.say(&[0xc0; 6]);
        let expected = if reserves { "vendor" } else { "reserve" };
        assert_eq!(denied(&mut daemon), json!(expected));
    }
}
