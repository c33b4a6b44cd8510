//! The running daemon in an administrator's hands: topology, paths taken out
//! and put back, simulated faults, events, QMP itself, and the end.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::harness::daemon::{AT_ONCE, Daemon, Scratch, run, two_paths, until};

fn start(scratch: &Scratch, more: &[&str]) -> Daemon {
    let paths = two_paths(scratch);
    let options: Vec<&str> = paths.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Daemon::start(scratch, &options)
}

/// The state of a path, as `show paths` prints it.
fn dm_state(daemon: &Daemon, path: &str) -> String {
    let table = daemon.ctl("show paths");
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(path));
    line.and_then(|line| line.split_whitespace().nth(4)).unwrap_or("absent").to_owned()
}

/// Number of descriptors of the daemon that lead to this file.
fn opens(daemon: &Daemon, file: &std::path::Path) -> usize {
    let file = file.canonicalize().unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    fds.flatten().filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == file)).count()
}

#[test]
fn the_topology_is_that_of_multipath_ll() {
    let scratch = Scratch::new("control-tree");
    let daemon = start(&scratch, &["--alias", "mpatha"]);
    let tree = daemon.ctl("show topology");
    let (title, rest) = tree.split_once('\n').unwrap();
    assert!(title.starts_with("mpatha (36525400") && title.ends_with(",simulated disk"), "{title}");
    assert_eq!(
        rest,
        "size=64M features='1 queue_if_no_path' hwhandler='1 alua' wp=rw\n\
         |-+- policy='service-time 0' prio=50 status=active\n\
         | `- 0:0:0:0 sim0 0:0 active ready running\n\
         `-+- policy='service-time 0' prio=50 status=enabled\n\
         \x20 `- 0:0:1:0 sim1 0:0 active ready running\n"
    );
    let maps: serde_json::Value = serde_json::from_str(&daemon.ctl("show maps --json")).unwrap();
    assert_eq!(maps["maps"][0]["name"], "mpatha");
    assert_eq!(maps["maps"][0]["path_groups"][1]["paths"][0]["dev"], "sim1");
    assert!(daemon.ctl("show status").contains("paths: 2 (2 usable)"));
}

#[test]
fn a_cut_path_is_found_by_its_checker_and_taken_back_after_the_plug() {
    let scratch = Scratch::new("control-cut");
    let daemon = start(&scratch, &["--polling-interval", "0.2"]);
    let mut events = daemon.qmp();
    assert_eq!(daemon.ctl("sim sim0 cut"), "ok\n");
    let failed = events.event("PATH_FAILED");
    assert_eq!(failed["data"]["path"], "sim0");
    assert_eq!(failed["data"]["valid-paths"], 1);
    assert_eq!(failed["data"]["cause"], json!({ "kind": "checker", "state": "faulty" }));
    assert!(failed["data"]["map"].is_string() && failed["timestamp"]["seconds"].is_u64());
    assert_eq!(events.event("GROUP_SWITCHED")["data"]["to"], 2);
    assert_eq!(dm_state(&daemon, "sim0"), "failed");
    daemon.ctl("sim sim1 cut");
    assert_eq!(events.event("NO_PATH")["data"]["held"], true);
    daemon.ctl("sim sim0 plug");
    assert_eq!(events.event("PATH_REINSTATED")["data"]["path"], "sim0");
    events.event("RECOVERED");
    assert_eq!(
        (dm_state(&daemon, "sim0"), dm_state(&daemon, "sim1")),
        ("active".into(), "failed".into())
    );
}

#[test]
fn an_administrators_word_holds_until_it_is_taken_back() {
    let scratch = Scratch::new("control-fail");
    let daemon = start(&scratch, &["--polling-interval", "0.1"]);
    daemon.ctl("fail path sim0");
    assert_eq!(dm_state(&daemon, "sim0"), "failed");
    // Several checks find it well, and change nothing.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(dm_state(&daemon, "sim0"), "failed");
    daemon.ctl("reinstate path sim0");
    assert_eq!(dm_state(&daemon, "sim0"), "active");
    daemon.ctl("sim sim0 cut");
    daemon.ctl("fail path sim0");
    let said = daemon.ctl("reinstate path sim0");
    assert!(said.contains("not in use yet"), "{said}");
    let (good, said) = daemon.try_ctl("fail path sim7");
    assert!(!good && said.contains("no path sim7"), "{said}");
}

#[test]
fn a_path_is_removed_closed_and_added_again() {
    let scratch = Scratch::new("control-add");
    let (a, b) = (scratch.file("lu.img", 1 << 20), scratch.text("link.img"));
    std::os::unix::fs::symlink(&a, &b).unwrap();
    let daemon = Daemon::start(&scratch, &["--path", &format!("{a},name=left")]);
    let (good, said) = daemon.try_ctl("del path left");
    assert!(!good && said.contains("last path"), "{said}");
    daemon.ctl(&format!("add path {b},name=right"));
    assert_eq!(dm_state(&daemon, "right"), "active");
    daemon.ctl("del path left");
    daemon.ctl(&format!("add path {a},name=left"));
    daemon.ctl("del path right");
    assert_eq!(dm_state(&daemon, "right"), "absent");
    assert_eq!(opens(&daemon, scratch.path("lu.img").as_path()), 1);
    let (good, said) = daemon.try_ctl(&format!("add path {a},name=left"));
    assert!(!good && said.contains("left"), "{said}");
    let other = scratch.file("other.img", 1 << 20);
    let (good, said) = daemon.try_ctl(&format!("add path {other}"));
    assert!(!good && said.contains("leads to another LU"), "{said}");
    assert_eq!(opens(&daemon, scratch.path("other.img").as_path()), 0, "a refused path stays open");
    let (good, said) = daemon.try_ctl("sim left cut");
    assert!(!good && said.contains("not simulated"), "{said}");
}

#[test]
fn many_removals_and_returns_leave_nothing_behind() {
    let scratch = Scratch::new("control-churn");
    let daemon = start(&scratch, &[]);
    let image = scratch.text("lu.img");
    let fds = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    let mut qmp = daemon.qmp();
    let mut round = || {
        let gone = qmp.ask("path-remove", &json!({ "path": "sim1" }));
        assert_eq!(gone["return"]["closed"], true, "{gone}");
        let spec = format!("sim:{image},name=sim1");
        let added = qmp.ask("path-add", &json!({ "spec": spec }));
        assert_eq!(added["return"]["path"], "sim1", "{added}");
    };
    // By then every thread has opened what it keeps.
    (0..10).for_each(|_| round());
    let before = (fds(), threads());
    (0..50).for_each(|_| round());
    until("what was opened is closed", || fds() <= before.0 && threads() <= before.1);
}

#[test]
fn qmp_is_qmp() {
    let scratch = Scratch::new("control-qmp");
    let daemon = start(&scratch, &[]);
    let mut raw = daemon.raw_qmp();
    assert!(raw.read()["QMP"]["version"]["qemu"]["major"].is_u64());
    raw.write(r#"{"execute":"query-maps","id":1}"#);
    let early = raw.read();
    assert_eq!((&early["error"]["class"], &early["id"]), (&json!("CommandNotFound"), &json!(1)));
    let mut qmp = daemon.qmp();
    let commands = qmp.ask("query-commands", &json!({}));
    let names: Vec<&str> =
        commands["return"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    for name in ["qmp_capabilities", "query-maps", "query-paths", "path-fail", "sim-fault", "quit"]
    {
        assert!(names.contains(&name), "{name}");
    }
    let paths = qmp.ask("query-paths", &json!({}));
    assert_eq!(paths["return"][0]["transport"], "sim");
    assert_eq!(qmp.ask("no-such", &json!({}))["error"]["class"], "CommandNotFound");
    let wrong = qmp.ask("path-fail", &json!({ "paht": "sim0" }));
    assert!(wrong["error"]["desc"].as_str().is_some_and(|d| d.contains("paht")), "{wrong}");
    qmp.write("this is no JSON\n");
    assert_eq!(qmp.read()["error"]["class"], "GenericError");
    assert!(qmp.ask("query-version", &json!({}))["return"]["package"].is_string());
}

#[test]
fn a_flood_of_nonsense_harms_nobody_else() {
    let scratch = Scratch::new("control-flood");
    let daemon = start(&scratch, &[]);
    let mut hostile = daemon.raw_qmp();
    hostile.write("{\"execute\":\"");
    hostile.write(&"x".repeat(70_000));
    hostile.read();
    assert!(hostile.read()["error"]["desc"].as_str().is_some_and(|d| d.contains("longer than")));
    let idle: Vec<_> = (0..40).map(|_| daemon.raw_qmp()).collect();
    drop(idle);
    until("clients that are gone make room", || daemon.try_ctl("show paths").0);
}

#[test]
fn sigterm_ends_it_at_once_and_removes_the_sockets() {
    let scratch = Scratch::new("control-term");
    let mut daemon = start(&scratch, &[]);
    daemon.terminate();
    let (code, took) = daemon.wait();
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(took < AT_ONCE, "{took:?}");
    assert!(!daemon.socket.exists() && !daemon.control.exists());
    // The same image at once again: nothing holds it.
    let mut daemon = start(&scratch, &[]);
    let mut qmp = daemon.qmp();
    assert_eq!(qmp.ask("quit", &json!({}))["return"], json!({}));
    assert_eq!(daemon.wait().0, Some(0), "{}", daemon.log());
}

#[test]
fn a_hung_check_does_not_hold_up_the_end() {
    let scratch = Scratch::new("control-hang");
    let mut daemon = start(&scratch, &["--polling-interval", "0.1"]);
    daemon.ctl("sim sim0 hang");
    until("a check is out", || {
        let paths: serde_json::Value =
            serde_json::from_str(&daemon.ctl("show paths --json")).unwrap();
        paths[0]["checking"] == true
    });
    daemon.terminate();
    let (code, took) = daemon.wait();
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn help_for_every_verb_exists() {
    for verb in ["", "show", "fail", "reinstate", "add", "del", "sim", "events", "shutdown"] {
        let arguments: Vec<&str> =
            ["ctl", verb, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        let output = run(&arguments);
        assert!(output.status.success(), "{arguments:?}");
    }
}
