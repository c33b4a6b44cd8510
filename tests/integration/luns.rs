//! A SCSI device of many LUs in an administrator's hands: what it shows, LUNs
//! that come and go, paths that the guest joins itself, and mistakes.

use std::fs;

use serde_json::{Value, json};

use crate::harness::daemon::{Daemon, Scratch, run, until};

/// `--lun` with two paths to a simulated LU of its own.
fn lun(scratch: &Scratch, address: &str, image: &str, more: &str) -> String {
    let image = scratch.text(image);
    format!("--lun={address},path=sim:{image},,size=16M,path=sim:{image}{more}")
}

fn start(scratch: &Scratch, options: &[&str]) -> Daemon {
    Daemon::start(scratch, &[&["--device", "scsi"], options].concat())
}

fn two_luns(scratch: &Scratch) -> Daemon {
    let first = lun(scratch, "0:0", "a.img", ",alias=system");
    let second = lun(scratch, "0:260", "b.img", ",alias=data,read-only=on");
    start(scratch, &[&first, &second])
}

fn json_of(daemon: &Daemon, verb: &str) -> Value {
    serde_json::from_str(&daemon.ctl(&format!("--json {verb}"))).unwrap()
}

/// `T:L map usable/all` of each LUN.
fn luns(daemon: &Daemon) -> Vec<String> {
    let table = daemon.ctl("show luns");
    let line = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", cells[0], cells[1], cells[4])
    };
    table.lines().skip(1).map(line).collect()
}

fn opens(daemon: &Daemon, file: &std::path::Path) -> usize {
    let file = file.canonicalize().unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    fds.flatten().filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == file)).count()
}

#[test]
fn every_lun_is_a_map_of_its_own() {
    let scratch = Scratch::new("luns-show");
    let daemon = two_luns(&scratch);
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:260 data 2/2"]);
    let maps = json_of(&daemon, "show maps");
    let of = |n: usize, key: &str| maps["maps"][n][key].clone();
    assert_eq!((of(0, "name"), of(0, "lun")), (json!("system"), json!("0:0")));
    assert_eq!((of(1, "name"), of(1, "lun")), (json!("data"), json!("0:260")));
    assert_eq!((of(0, "write_prot"), of(1, "write_prot")), (json!("rw"), json!("ro")));
    assert_ne!(of(0, "uuid"), of(1, "uuid"));
    let tree = daemon.ctl("show topology");
    assert_eq!(tree.matches("status=active").count(), 2, "{tree}");
    assert!(tree.contains("wp=ro lun=0:260"), "{tree}");
    let paths = daemon.ctl("show paths");
    let last = paths.lines().last().unwrap();
    assert!(last.contains("sim3") && last.ends_with("data"), "{paths}");
    assert!(daemon.ctl("show status").contains("paths: 4 (4 usable)\nmaps: system, data\n"));
    let denied = json_of(&daemon, "show luns")[0]["denied"].clone();
    assert!(denied.as_array().unwrap().contains(&json!("format-unit")), "{denied}");
}

#[test]
fn a_paths_verbs_find_it_in_whichever_map_it_is() {
    let scratch = Scratch::new("luns-paths");
    let daemon = two_luns(&scratch);
    let mut events = daemon.qmp();
    daemon.ctl("fail path sim2");
    assert_eq!(events.event("PATH_FAILED")["data"]["map"], "data");
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:260 data 1/2"]);
    daemon.ctl("reinstate path sim2");
    daemon.ctl("del path sim0");
    assert_eq!(luns(&daemon), ["0:0 system 1/1", "0:260 data 2/2"]);
    let again = format!("sim:{},name=again", scratch.text("a.img"));
    let (good, said) = daemon.try_ctl(&format!("add path {again}"));
    assert!(!good && said.contains("2 maps; say which"), "{said}");
    let (good, said) = daemon.try_ctl(&format!("add path {again} to 0:7"));
    assert!(!good && said.contains("no map 0:7"), "{said}");
    let (good, said) = daemon.try_ctl(&format!("add path {again} to data"));
    assert!(!good && said.contains("leads to another LU"), "{said}");
    daemon.ctl(&format!("add path {again} to 0:0"));
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:260 data 2/2"]);
    assert_eq!(daemon.ctl("sim again cut"), "ok\n");
}

#[test]
fn a_lun_comes_and_goes_while_the_others_serve() {
    let scratch = Scratch::new("luns-hotplug");
    let daemon = two_luns(&scratch);
    let mut events = daemon.qmp();
    let image = scratch.text("c.img");
    let said = daemon.ctl(&format!(
        "add lun 0:1 sim:{image},size=16M,name=left sim:{image},name=right --alias logs --read-only"
    ));
    assert_eq!(said, "ok: LUN 0:1 is logs\n");
    let added = events.event("LUN_ADDED");
    assert_eq!((&added["data"]["lun"], &added["data"]["map"]), (&json!("0:1"), &json!("logs")));
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:1 logs 2/2", "0:260 data 2/2"]);
    assert_eq!(json_of(&daemon, "show luns")[1]["read_only"], true);
    // The others of the target have something to say to the guest.
    assert_eq!(json_of(&daemon, "show luns")[0]["attention_pending"], true);
    daemon.ctl("fail path left");
    assert_eq!(daemon.ctl("del lun 0:1"), "ok\n");
    assert_eq!(events.event("LUN_REMOVED")["data"]["lun"], "0:1");
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:260 data 2/2"]);
    assert_eq!(opens(&daemon, &scratch.path("c.img")), 0, "what is gone is closed");
    let (good, said) = daemon.try_ctl("fail path left");
    assert!(!good && said.contains("no path left"), "{said}");
    // Names, image and address are free again.
    daemon.ctl(&format!("add lun 0:1 sim:{image},name=left"));
}

#[test]
fn a_device_may_begin_empty() {
    let scratch = Scratch::new("luns-empty");
    let daemon = start(&scratch, &[]);
    assert_eq!(luns(&daemon), [""; 0]);
    assert!(daemon.ctl("show status").contains("maps: none"));
    assert_eq!(daemon.ctl("show topology"), "");
    let (good, said) = daemon.try_ctl("add path sim:x");
    assert!(!good && said.contains("add lun"), "{said}");
    daemon.ctl(&format!("add lun 255:16383 sim:{},size=16M", scratch.text("a.img")));
    assert_eq!(json_of(&daemon, "show luns")[0]["lun"], "255:16383");
    daemon.ctl("del lun 255:16383");
    assert_eq!(luns(&daemon), [""; 0]);
}

#[test]
fn what_cannot_be_added_or_removed_is_told_and_leaves_nothing_behind() {
    let scratch = Scratch::new("luns-refused");
    let daemon = two_luns(&scratch);
    let (a, new) = (scratch.text("a.img"), scratch.text("new.img"));
    let file = scratch.file("plain.img", 1 << 20);
    for (verb, words) in [
        (format!("add lun 0:0 sim:{new},size=16M"), "LUN 0:0 is there already"),
        (format!("add lun 0:1 sim:{a}"), "is LUN 0:0 already"),
        (format!("add lun 0:1 sim:{new},size=16M --alias data"), "a map data already"),
        (format!("add lun 0:1 {file}"), "speaks no SCSI"),
        (format!("add lun 0:1 sim:{new},size=16M sim:{a}"), "leads to another LU"),
        (format!("add lun 0:1 {new}.not-there"), "no such file"),
        ("add lun 0:1 sim:x,colour=red".to_owned(), "takes no option"),
        ("add lun 0 sim:x".to_owned(), "TARGET:LUN"),
        ("add lun 0:16384 sim:x".to_owned(), "LUNs are 0 to 16383"),
        ("add lun 0:1 sim:x --allow everything".to_owned(), "format-unit"),
        ("del lun 0:1".to_owned(), "no LUN 0:1"),
        ("del path sim9".to_owned(), "no path sim9"),
    ] {
        let (good, said) = daemon.try_ctl(&verb);
        assert!(!good && said.contains(words), "{verb}: {said}");
    }
    assert_eq!(luns(&daemon), ["0:0 system 2/2", "0:260 data 2/2"]);
    assert_eq!(opens(&daemon, &scratch.path("new.img")), 0);
    assert_eq!(opens(&daemon, &scratch.path("plain.img")), 0);
}

#[test]
fn many_luns_that_came_and_went_leave_nothing_behind() {
    let scratch = Scratch::new("luns-churn");
    let daemon = two_luns(&scratch);
    let image = scratch.text("c.img");
    let fds = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    let mut qmp = daemon.qmp();
    let mut round = || {
        let specs = [format!("sim:{image},size=16M"), format!("sim:{image}")];
        let added = qmp.ask("lun-add", &json!({ "lun": "0:1", "paths": specs }));
        assert_eq!(added["return"]["lun"], "0:1", "{added}");
        let gone = qmp.ask("lun-remove", &json!({ "lun": "0:1" }));
        assert_eq!(gone["return"], json!({ "closed": true }), "{gone}");
    };
    round();
    let before = (fds(), threads());
    (0..50).for_each(|_| round());
    until("what was opened is closed", || fds() <= before.0 && threads() <= before.1);
}

/// The guest's own multipath software joins them: here each is on its own.
#[test]
fn exposed_paths_are_targets_that_hold_nothing() {
    let scratch = Scratch::new("luns-expose");
    let image = scratch.text("a.img");
    let first = format!("sim:{image},size=16M");
    let daemon = start(
        &scratch,
        &["--expose=paths", "--alias=lu", "--path", &first, "--path", &format!("sim:{image}")],
    );
    assert_eq!(luns(&daemon), ["0:0 lu-sim0 1/1", "1:0 lu-sim1 1/1"]);
    let listed = json_of(&daemon, "show luns");
    assert_eq!(listed[0]["uuid"], listed[1]["uuid"]);
    assert_eq!(listed[1]["exposed"], "path");
    assert!(!listed[0]["denied"].as_array().unwrap().contains(&json!("persistent-reserve-out")));
    let maps = json_of(&daemon, "show maps");
    assert_eq!(maps["maps"][0]["queueing"], "off");
    let mut events = daemon.qmp();
    daemon.ctl("sim sim1 cut");
    daemon.ctl("fail path sim1");
    let lost = events.event("NO_PATH");
    assert_eq!((&lost["data"]["map"], &lost["data"]["held"]), (&json!("lu-sim1"), &json!(false)));
    assert_eq!(luns(&daemon), ["0:0 lu-sim0 1/1", "1:0 lu-sim1 0/1"]);
    let (good, said) = daemon.try_ctl(&format!("add path sim:{image} to 0:0"));
    assert!(!good && said.contains("add lun T:L SPEC"), "{said}");
    daemon.ctl(&format!("add lun 2:0 sim:{image}"));
    assert_eq!(luns(&daemon).len(), 3);
    daemon.ctl("del lun 1:0");
    assert_eq!(luns(&daemon).len(), 2);
}

#[test]
fn a_disk_of_one_lu_has_no_luns() {
    let scratch = Scratch::new("luns-blk");
    let image = format!("sim:{},size=16M", scratch.text("a.img"));
    let daemon = Daemon::start(&scratch, &["--path", &image]);
    assert_eq!(luns(&daemon), [""; 0]);
    let (good, said) = daemon.try_ctl("add lun 0:1 sim:x");
    assert!(!good && said.contains("--device scsi"), "{said}");
    let (good, said) = daemon.try_ctl("del lun 0:0");
    assert!(!good && said.contains("--device scsi"), "{said}");
}

#[test]
fn mistakes_of_the_start_are_told_by_the_lun_that_has_them() {
    let scratch = Scratch::new("luns-mistakes");
    let plain = scratch.file("plain.img", 1 << 20);
    let (a, b) = (scratch.text("a.img"), scratch.text("b.img"));
    let good = format!("--lun=0:0,path=sim:{a},,size=16M");
    let socket = scratch.text("unused.sock");
    let taken = format!("--lun=1:3,path=sim:{b},,size=16M,path=sim:{a}");
    for (options, code, words) in [
        (
            vec![good.clone(), format!("--lun=0:1,path={plain}")],
            1,
            vec!["--lun 0:1", "speaks no SCSI", "a file"],
        ),
        (vec!["--path=null:1M".to_owned()], 1, vec!["--path null:1M", "speaks no SCSI"]),
        (vec![taken], 1, vec!["--lun 1:3", "leads to another LU", "WWID"]),
        (vec![good.clone(), good], 2, vec!["LUN 0:0 is given twice"]),
        (vec![], 2, vec!["--path, --wwid or --lun is missing", "--control"]),
    ] {
        let base = ["--socket-path", &socket, "--device", "scsi"].map(str::to_owned);
        let output = run(&[&base[..], &options].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{options:?}: {said}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    }
}

#[test]
fn sigterm_ends_a_device_of_many_luns() {
    let scratch = Scratch::new("luns-term");
    let mut daemon = two_luns(&scratch);
    daemon.ctl("del lun 0:0");
    daemon.terminate();
    assert_eq!(daemon.wait().0, Some(0), "{}", daemon.log());
    assert!(!daemon.socket.exists() && !daemon.control.exists());
}
