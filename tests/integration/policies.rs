//! A map under other policies than the first user's: access states of the
//! array, path groups, failback, activation, unreliable paths, queueing, and
//! the verbs that steer them.

use std::time::Duration;

use serde_json::{Value, json};
use vhost_mpath::virtio::blk::RequestType;

use crate::harness::blk_queue::{PATIENCE, Payload};
use crate::harness::daemon::{Daemon, Scratch, run, until};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::load::{Load, Mix};

const MIX: Mix = Mix { sectors: 4096, block: 1, most: 32, zeroes: true };
/// What is not over by then is held; a request that fails takes far less.
const HELD: Duration = Duration::from_millis(100);
const QUICK: [&str; 2] = ["--polling-interval=0.2", "--alias=m"];

/// A daemon over a simulated LU: a path for each of `paths`, which says where
/// it is plugged in.
fn start(scratch: &Scratch, paths: &[&str], more: &[&str]) -> Daemon {
    let image = scratch.text("lu.img");
    let spec = |at: &&str| format!("--path=sim:{image},size=8M,{at}");
    let paths: Vec<String> = paths.iter().map(spec).collect();
    let options: Vec<&str> = paths.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Daemon::start(scratch, &[&QUICK[..], &options].concat())
}

/// Two paths to each of two target port groups: a0, a1, b0, b1.
const FOUR: [&str; 4] = [
    "name=a0,tpg=1",
    "name=a1,tpg=1",
    "name=b0,tpg=2,access=active-non-optimized",
    "name=b1,tpg=2",
];

fn front_end(daemon: &Daemon) -> FrontEnd {
    FrontEnd::connect(&daemon.socket, Shape::default())
}

fn map(daemon: &Daemon) -> Value {
    let all: Value = serde_json::from_str(&daemon.ctl("show maps json")).unwrap();
    all["maps"][0].clone()
}

fn path(daemon: &Daemon, name: &str) -> Value {
    let all: Value = serde_json::from_str(&daemon.ctl("show paths --json")).unwrap();
    all.as_array().unwrap().iter().find(|path| path["dev"] == name).unwrap().clone()
}

/// Paths of the group in use.
fn in_use(daemon: &Daemon) -> Vec<String> {
    let map = map(daemon);
    let groups = map["path_groups"].as_array().unwrap();
    let active = groups.iter().filter(|group| group["dm_st"] == "active");
    let paths = active.flat_map(|group| group["paths"].as_array().unwrap());
    paths.map(|path| path["dev"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn until_in_use(daemon: &Daemon, wanted: &[&str]) {
    let what = format!("I/O goes by {wanted:?}");
    let start = std::time::Instant::now();
    while in_use(daemon) != wanted {
        let waited = start.elapsed();
        let state = || format!("{}{}", daemon.ctl("show topology"), daemon.log());
        assert!(waited < PATIENCE, "{what}: not within {waited:?}:\n{}", state());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tree_by_target_port_group_has_the_arrays_priorities() {
    let scratch = Scratch::new("policies-tree");
    let daemon = start(&scratch, &FOUR, &["--set", "path_grouping_policy=group_by_tpg"]);
    let tree = daemon.ctl("show topology");
    let (_, rest) = tree.split_once('\n').unwrap();
    assert_eq!(
        rest,
        "size=8.0M features='1 queue_if_no_path' hwhandler='1 alua' wp=rw\n\
         |-+- policy='service-time 0' prio=50 status=active\n\
         | |- 0:0:0:0 a0 0:0 active ready running\n\
         | `- 0:0:1:0 a1 0:0 active ready running\n\
         `-+- policy='service-time 0' prio=10 status=enabled\n\
         \x20 |- 0:0:2:0 b0 0:0 active ready running (active/non-optimized)\n\
         \x20 `- 0:0:3:0 b1 0:0 active ready running (active/non-optimized)\n"
    );
    let lines = daemon.ctl("show paths raw format %d %t %p %A %M");
    assert_eq!(lines.lines().next(), Some("a0 active 50 0x0001 normal"), "{lines}");
    assert_eq!(lines.lines().last(), Some("b1 active 10 0x0002 normal"), "{lines}");
    assert_eq!(daemon.ctl("show maps raw format %n %N %h %F"), "m 4 1 alua manual\n");
    let columns = daemon.ctl("show paths format %d %p");
    assert!(columns.starts_with("dev pri\na0  50\n"), "{columns}");
    let (good, said) = daemon.try_ctl("show paths format %q");
    assert!(!good && said.contains("no wildcard %q"), "{said}");
    assert!(daemon.ctl("show config").contains("path_grouping_policy \"group_by_tpg\"\t#"));
}

#[test]
fn a_standby_path_carries_nothing_from_the_first_moment() {
    let scratch = Scratch::new("policies-first");
    // The standby one is the first in the configuration.
    let paths = ["name=b0,tpg=2,access=standby", "name=a0,tpg=1"];
    let daemon = start(&scratch, &paths, &[]);
    assert_eq!(in_use(&daemon), ["a0"]);
    let mut guest = front_end(&daemon);
    let done = guest.queue(0).run(RequestType::In, 0, Payload::None, 4096);
    assert_eq!(done.status, 0);
    let standby = path(&daemon, "b0");
    assert_eq!((&standby["ios"], &standby["dm_st"]), (&json!(0), &json!("active")));
    assert!(path(&daemon, "a0")["ios"].as_u64() > Some(0));
}

/// The array moves its groups about, through transitions, under load.
#[test]
fn access_states_that_change_under_load_reach_no_guest() {
    let scratch = Scratch::new("policies-alua");
    let options = ["--set=path_grouping_policy=group_by_prio", "--set=failback=immediate"];
    let daemon = start(&scratch, &FOUR, &options);
    let mut guest = front_end(&daemon);
    let mut load = Load::new(41, MIX);
    let mut faults = Vec::new();
    for (round, state) in
        ["standby", "active-non-optimized", "unavailable", "offline"].into_iter().enumerate()
    {
        let (up, down) = if round % 2 == 0 { ("b0", "a0") } else { ("a0", "b0") };
        load.run(&mut guest.queues, Duration::from_millis(30));
        daemon.ctl(&format!("sim {up} alua active-optimized 100"));
        load.run(&mut guest.queues, Duration::from_millis(20));
        daemon.ctl(&format!("sim {down} alua {state} 50"));
        load.run(&mut guest.queues, Duration::from_millis(30));
        load.settle(&mut guest.queues);
        let wanted = if round % 2 == 0 { ["b0", "b1"] } else { ["a0", "a1"] };
        until_in_use(&daemon, &wanted);
        faults.push(map(&daemon)["path_faults"].clone());
    }
    assert!(load.failed.is_empty(), "{:?}\n{}", load.failed, daemon.log());
    load.read_back(guest.queue(0));
    // Those that the checker calls faulty come after these two.
    assert_eq!(faults[..2], [0, 0], "an access state is no fault: {}", daemon.log());
}

#[test]
fn failback_is_immediate_or_the_administrators() {
    let scratch = Scratch::new("policies-failback");
    let options = ["--set=path_grouping_policy=group_by_prio"];
    let daemon = start(&scratch, &FOUR, &options);
    let mut events = daemon.qmp();
    let away = || {
        daemon.ctl("sim a0 cut");
        daemon.ctl("sim a1 cut");
        until_in_use(&daemon, &["b0", "b1"]);
        daemon.ctl("sim a0 plug");
        daemon.ctl("sim a1 plug");
        daemon.ctl("reinstate path a0");
        daemon.ctl("reinstate path a1");
    };
    away();
    until("both are usable", || map(&daemon)["paths"] == 4);
    // A good check makes the interval longer: failback has had its chance.
    let checked_again = |name| path(&daemon, name)["check_interval"].as_f64() > Some(0.3);
    until("both are checked again", || checked_again("a0") && checked_again("a1"));
    assert_eq!(in_use(&daemon), ["b0", "b1"], "failback manual");
    let group = map(&daemon)["path_groups"].as_array().unwrap().iter().position(|group| {
        group["paths"].as_array().unwrap().iter().any(|path| path["dev"] == "a0")
    });
    let number = group.unwrap() + 1;
    assert_eq!(daemon.ctl(&format!("switch map m group {number}")), "ok\n");
    until_in_use(&daemon, &["a0", "a1"]);
    events.event("GROUP_SWITCHED");
    let (good, said) = daemon.try_ctl("switch map m group 9");
    assert!(!good && said.contains('9'), "{said}");
    daemon.ctl("set map m failback immediate");
    away();
    until_in_use(&daemon, &["a0", "a1"]);
    daemon.ctl("set map m failback 3600");
    assert_eq!(daemon.ctl("show maps raw format %F"), "deferred:3600\n");
    away();
    until("it counts down", || map(&daemon)["failback_in"].as_f64().is_some());
    assert!(daemon.ctl("show topology").contains("failback in 3"));
    assert_eq!(in_use(&daemon), ["b0", "b1"]);
}

/// Explicit ALUA: the other controller's group is standby until it is told.
#[test]
fn a_standby_group_is_activated_when_the_last_active_path_goes() {
    let scratch = Scratch::new("policies-stpg");
    let paths = ["name=a0,tpg=1,tpgs=explicit", "name=b0,tpg=2,access=standby"];
    let daemon = start(&scratch, &paths, &[]);
    let mut guest = front_end(&daemon);
    let mut events = daemon.qmp();
    let mut load = Load::new(42, MIX);
    load.run(&mut guest.queues, Duration::from_millis(30));
    daemon.ctl("sim a0 cut");
    load.run(&mut guest.queues, Duration::from_millis(100));
    load.settle(&mut guest.queues);
    assert!(load.failed.is_empty(), "{:?}\n{}", load.failed, daemon.log());
    until_in_use(&daemon, &["b0"]);
    assert_eq!(events.event("GROUP_ACTIVATED")["data"]["result"], "activated");
    load.read_back(guest.queue(0));
}

#[test]
fn queueing_is_switched_off_and_on_while_no_path_is_left() {
    let scratch = Scratch::new("policies-queueing");
    let daemon = start(&scratch, &["name=a0", "name=a1"], &[]);
    let mut events = daemon.qmp();
    let mut guest = front_end(&daemon);
    daemon.ctl("sim a0 cut");
    daemon.ctl("sim a1 cut");
    events.event("NO_PATH");
    let queue = guest.queue(0);
    queue.submit(RequestType::In, 0, Payload::None, 4096).expect("room");
    queue.kick();
    assert!(queue.wait(HELD).is_none(), "it is not held");
    assert_eq!(daemon.ctl("disablequeueing map m"), "ok\n");
    let done = queue.wait(PATIENCE).expect("it ends");
    assert_eq!(done.status, 1);
    assert_eq!(events.event("QUEUEING_SWITCHED")["data"]["on"], false);
    assert_eq!(queue.run(RequestType::In, 0, Payload::None, 512).status, 1);
    assert_eq!(daemon.ctl("show maps raw format %Q %f"), "off 0\n");
    assert_eq!(map(&daemon)["queueing_disabled"], true);
    assert_eq!(daemon.ctl("restorequeueing maps"), "ok\n");
    queue.submit(RequestType::In, 0, Payload::None, 4096).expect("room");
    queue.kick();
    assert!(queue.wait(HELD).is_none(), "it is not held");
    daemon.ctl("sim a0 plug");
    assert_eq!(queue.wait(PATIENCE).expect("a path is back").status, 0);
    let (good, said) = daemon.try_ctl("disablequeueing map other");
    assert!(!good && said.contains("no map other"), "{said}");
}

#[test]
fn an_unreliable_path_is_used_last_until_it_is_forgiven() {
    let scratch = Scratch::new("policies-marginal");
    let options = ["--set=path_grouping_policy=multibus", "--set=marginal_pathgroups=on"];
    let daemon = start(&scratch, &["name=a0", "name=a1"], &options);
    assert_eq!(in_use(&daemon), ["a0", "a1"]);
    assert_eq!(daemon.ctl("setmarginal path a0"), "ok\n");
    until_in_use(&daemon, &["a1"]);
    let tree = daemon.ctl("show topology");
    assert!(tree.contains("status=enabled marginal") && tree.contains("(marginal)"), "{tree}");
    let paths = daemon.ctl("show paths raw format %d %M");
    assert!(paths.contains("a0 marginal\n") && paths.contains("a1 normal\n"), "{paths}");
    let mut guest = front_end(&daemon);
    daemon.ctl("sim a1 cut");
    let done = guest.queue(0).run(RequestType::In, 0, Payload::None, 4096);
    assert_eq!(done.status, 0, "the last resort is a resort");
    daemon.ctl("sim a1 plug");
    daemon.ctl("unsetmarginal map m");
    until_in_use(&daemon, &["a0", "a1"]);
}

#[test]
fn a_running_map_is_set_and_a_wrong_value_changes_nothing() {
    let scratch = Scratch::new("policies-set");
    let daemon = start(&scratch, &["name=a0", "name=a1"], &[]);
    daemon.ctl("set map m path_grouping_policy multibus");
    until_in_use(&daemon, &["a0", "a1"]);
    daemon.ctl("set map m path_selector round-robin 0");
    daemon.ctl("set map m no_path_retry 12");
    assert_eq!(daemon.ctl("show maps raw format %Q"), "12 chk\n");
    let config = daemon.ctl("show config");
    for line in ["path_selector \"round-robin 0\"", "no_path_retry \"12\"", "prio \"detect\""] {
        assert!(config.contains(line), "{config}");
    }
    for (words, why) in [
        ("failback never", "followover"),
        ("colour red", "no keyword `colour`"),
        ("prio_args exclusive_pref_bit", "takes no arguments"),
    ] {
        let (good, said) = daemon.try_ctl(&format!("set map m {words}"));
        assert!(!good && said.contains(why), "{words}: {said}");
    }
    assert_eq!(map(&daemon)["policy"]["failback"], "manual");
    let mut qmp = daemon.qmp();
    let arguments = json!({ "map": "m", "keyword": "failback", "value": "immediate" });
    assert_eq!(qmp.ask("map-set", &arguments)["return"], json!({}));
    assert_eq!(map(&daemon)["policy"]["failback"], "immediate");
}

/// A file has no TEST UNIT READY: every path would be found down, and all I/O
/// held.
#[test]
fn a_checker_that_speaks_scsi_is_refused_where_a_path_does_not() {
    let scratch = Scratch::new("policies-no-scsi");
    let path = format!("--path={}", scratch.file("disk.img", 1 << 20));
    let socket = format!("--socket-path={}", scratch.text("refused"));
    for checker in ["tur", "rdac", "emc_clariion"] {
        let out = run(&[&socket, &path, &format!("--set=path_checker={checker}")]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success(), "{said}");
        assert!(said.contains("speaks no SCSI") && said.contains(checker), "{said}");
    }
    let daemon = Daemon::start(&scratch, &[&path, "--alias=m", "--set=path_checker=readsector0"]);
    let (good, said) = daemon.try_ctl("set map m path_checker tur");
    assert!(!good && said.contains("path_checker detect"), "{said}");
    assert_eq!(map(&daemon)["policy"]["path_checker"], "readsector0");
}
