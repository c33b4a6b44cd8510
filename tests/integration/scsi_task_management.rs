//! Task management on commands that paths are slow with, that no path takes,
//! that hang: each function ends what it reaches and nothing else, is answered
//! after the last of those commands, and every command ends once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::cdb;
use crate::harness::random::Random;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{
    ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, LU_RESET, NEXUS_RESET, QUERY_TASK,
    QUERY_TASK_SET, Task, lun, response_name,
};
use crate::harness::sim_daemon::{Daemon, Setup};
use crate::harness::slot_queue::PATIENCE;

const HERE: [u8; 8] = lun(0, 0);
const NEIGHBOUR: [u8; 8] = lun(0, 1);
const ELSEWHERE: [u8; 8] = lun(1, 0);
const NONE: [&str; 0] = [];

fn start(options: &[&'static str]) -> (Daemon, ScsiGuest) {
    let setup = Setup::scsi().lun("0:1", "one").lun("1:0", "far").with(options);
    let daemon = Daemon::start(&setup);
    let guest = ScsiGuest::connect(&daemon, 2);
    // A ring's first functions wait for what an earlier owner left in flight.
    std::thread::sleep(Duration::from_millis(550));
    (daemon, guest)
}

/// Which of the commands that are out a function reaches.
fn reaches(subtype: u32, function: ([u8; 8], u64), command: ([u8; 8], u64)) -> bool {
    match subtype {
        ABORT_TASK => function == command,
        ABORT_TASK_SET | CLEAR_TASK_SET | LU_RESET => function.0 == command.0,
        NEXUS_RESET => function.0[1] == command.0[1],
        _ => false,
    }
}

/// How what it reaches ends.
fn ending(subtype: u32) -> &'static str {
    if matches!(subtype, LU_RESET | NEXUS_RESET) { "RESET" } else { "ABORTED" }
}

/// Unit attentions that a function leaves at a LU.
fn leaves(subtype: u32, lun: [u8; 8]) -> &'static [&'static str] {
    match subtype {
        LU_RESET if lun == HERE => &["06/29/03"],
        NEXUS_RESET if lun[1] == HERE[1] => &["06/29/07"],
        _ => &[],
    }
}

/// Commands that are out: whose, by queue and token.
type Out = HashMap<(usize, u64), ([u8; 8], u64)>;

/// Two reads of each LU on each queue, named apart within their LU.
fn submit(guest: &mut ScsiGuest) -> Out {
    let cdb = cdb::blocks(0x88, 0, 1);
    let mut out = HashMap::new();
    for number in 0..2 {
        let queue = guest.requests(number);
        for lun in [HERE, NEIGHBOUR, ELSEWHERE] {
            for n in 0..2 {
                let id = 1 + 2 * number as u64 + n;
                let task = Task::new(&cdb).to(lun).named(id).reading(512);
                let token = queue.submit(&task).expect("room");
                out.insert((number, token), (lun, id));
            }
        }
        queue.kick();
    }
    out
}

/// Takes what has come back by now: whose it was, and its answer.
fn reap(guest: &mut ScsiGuest, out: &mut Out) -> Vec<(([u8; 8], u64), String)> {
    let mut answers = Vec::new();
    for (number, queue) in guest.all_requests().iter_mut().enumerate() {
        while let Some(done) = queue.poll() {
            let whose = out.remove(&(number, done.token)).expect("ours");
            answers.push((whose, queue.answer(&done).to_string()));
        }
    }
    answers
}

fn reap_all(guest: &mut ScsiGuest, out: &mut Out) -> Vec<(([u8; 8], u64), String)> {
    let until = Instant::now() + PATIENCE;
    let mut answers = Vec::new();
    while !out.is_empty() {
        answers.extend(reap(guest, out));
        assert!(Instant::now() < until, "not answered: {out:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    answers
}

/// One function while every command is out. `fault` keeps those of the first
/// LU out, a delay the others'.
fn one_function(daemon: &mut Daemon, guest: &mut ScsiGuest, subtype: u32, fault: &Value) {
    let paths = ["sim0", "sim1", "one0", "one1", "far0", "far1"];
    let slow = json!({"fault": "delay", "milliseconds": 150});
    for (n, path) in paths.iter().enumerate() {
        daemon.fault_of(path, if n < 2 { fault.clone() } else { slow.clone() });
    }
    let mut out = submit(guest);
    let what = format!("function {subtype} with {fault}");
    let response = guest.control().run_tmf(subtype, HERE, 3);
    // What it reached has ended by now.
    let answers = reap(guest, &mut out);
    for ((lun, id), answer) in &answers {
        if reaches(subtype, (HERE, 3), (*lun, *id)) {
            assert_eq!(answer, ending(subtype), "{what}: {id} of {lun:?}");
        }
    }
    for (lun, id) in out.values() {
        let reached = reaches(subtype, (HERE, 3), (*lun, *id));
        assert!(!reached, "{what}: answered before {id} of {lun:?}");
    }
    let expected = match subtype {
        CLEAR_ACA => "FUNCTION_REJECTED",
        QUERY_TASK | QUERY_TASK_SET => "FUNCTION_SUCCEEDED",
        _ => "OK",
    };
    assert_eq!(response, expected, "{what}");
    // The rest goes on.
    for path in paths {
        daemon.fault_of(path, json!({"fault": "plug"}));
    }
    (0..2).for_each(|path| daemon.reinstate(path));
    for ((lun, id), answer) in answers.into_iter().chain(reap_all(guest, &mut out)) {
        if !reaches(subtype, (HERE, 3), (lun, id)) {
            assert_eq!(answer, "GOOD", "{what}: {id} of {lun:?}");
        }
    }
    for lun in [HERE, NEIGHBOUR, ELSEWHERE] {
        assert_eq!(guest.attentions(lun), leaves(subtype, lun), "{what}, at {lun:?}");
    }
    daemon.until_usable(6);
}

#[test]
fn functions_end_what_paths_are_slow_with() {
    let (mut daemon, mut guest) = start(&[]);
    for subtype in 0..8 {
        let fault = json!({"fault": "delay", "milliseconds": 150});
        one_function(&mut daemon, &mut guest, subtype, &fault);
    }
}

#[test]
fn functions_end_what_no_path_takes() {
    let (mut daemon, mut guest) = start(&[]);
    for subtype in 0..8 {
        let fault = json!({"fault": "cut", "mode": "before"});
        one_function(&mut daemon, &mut guest, subtype, &fault);
    }
}

#[test]
fn functions_end_what_hangs_once_the_kernel_gives_it_back() {
    let (mut daemon, mut guest) =
        start(&["--command-timeout", "1", "--checker-timeout", "1", "--suspect-timeout", "0.3"]);
    for subtype in [ABORT_TASK, LU_RESET, NEXUS_RESET, QUERY_TASK] {
        one_function(&mut daemon, &mut guest, subtype, &json!({"fault": "hang"}));
    }
}

#[test]
fn on_a_quiet_lu_there_is_nothing_to_do() {
    let (_daemon, mut guest) = start(&[]);
    for (subtype, expected) in [
        (ABORT_TASK, "OK"),
        (ABORT_TASK_SET, "OK"),
        (CLEAR_ACA, "FUNCTION_REJECTED"),
        (CLEAR_TASK_SET, "OK"),
        (NEXUS_RESET, "OK"),
        (LU_RESET, "OK"),
        (QUERY_TASK, "OK"),
        (QUERY_TASK_SET, "OK"),
    ] {
        assert_eq!(guest.control().run_tmf(subtype, HERE, 1), expected, "function {subtype}");
        assert_eq!(guest.attentions(HERE), leaves(subtype, HERE), "function {subtype}");
        assert_eq!(guest.attentions(ELSEWHERE), NONE);
    }
}

/// An LU reset of the guest is its own affair, unless asked for: then others
/// (here the other paths' nexuses) hear of it, the guest once.
#[test]
fn an_lu_reset_goes_to_the_array_only_where_asked_for() {
    for (option, resets) in [("own", false), ("array", true)] {
        let (daemon, mut guest) = start(&["--lu-reset", option, "--log-level", "debug"]);
        assert_eq!(guest.control().run_tmf(LU_RESET, HERE, 0), "OK");
        let mut heard = Vec::new();
        for _ in 0..10 {
            heard.extend(guest.attentions(HERE));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(heard, ["06/29/03"], "--lu-reset {option}");
        assert_eq!(guest.attentions(NEIGHBOUR), NONE);
        if resets {
            daemon.until_said("reset");
        }
    }
}

/// Abandoned as a guest's reboot does it: the rings stop while a function
/// waits for a hung path.
#[test]
fn a_function_that_waits_for_a_hung_path_does_not_keep_the_guest_from_rebooting() {
    let (mut daemon, mut guest) = start(&["--command-timeout", "2", "--suspect-timeout", "0.2"]);
    daemon.hang(0);
    daemon.hang(1);
    let cdb = cdb::blocks(0x88, 0, 1);
    let queue = guest.requests(0);
    queue.submit(&Task::new(&cdb).named(1).reading(512)).expect("room");
    queue.kick();
    guest.control().submit_tmf(LU_RESET, HERE, 0);
    guest.control().kick();
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    daemon.plug_all();
    guest.reboot();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(guest.control().run_tmf(QUERY_TASK_SET, HERE, 0), "OK");
    guest.attentions(HERE);
    assert_eq!(guest.say(&cdb::TUR), "GOOD");
}

/// A function that is out.
struct Function {
    subtype: u32,
    lun: [u8; 8],
    id: u64,
    /// Of the commands submitted before it.
    serial: u64,
}

/// Random functions on a load: what each reached is answered before it.
struct Storm {
    random: Random,
    serial: u64,
    commands: HashMap<(usize, u64), ([u8; 8], u64)>,
    functions: HashMap<u64, Function>,
    answers: HashMap<String, u64>,
    answered: u64,
}

impl Storm {
    fn submit_commands(&mut self, guest: &mut ScsiGuest) {
        let luns = [HERE, NEIGHBOUR, ELSEWHERE];
        for (number, queue) in guest.all_requests().iter_mut().enumerate() {
            for _ in 0..queue.room(8) {
                let lun = self.random.pick(&luns);
                let cdb = cdb::blocks(0x88, self.random.below(100), 1);
                self.serial += 1;
                let task = Task::new(&cdb).to(lun).named(self.serial).reading(512);
                let token = queue.submit(&task).expect("room");
                self.commands.insert((number, token), (lun, self.serial));
            }
            queue.kick();
        }
    }

    fn submit_functions(&mut self, guest: &mut ScsiGuest, most: u64) {
        for _ in 0..self.random.below(most + 1) {
            if guest.control().room(1) == 0 {
                break;
            }
            let subtype = u32::try_from(self.random.below(8)).expect("small");
            // Target 1 is left alone.
            let lun = if self.random.one_in(2) { HERE } else { NEIGHBOUR };
            let id = self.serial - self.random.below(100.min(self.serial));
            let token = guest.control().submit_tmf(subtype, lun, id);
            self.functions.insert(token, Function { subtype, lun, id, serial: self.serial });
        }
        guest.control().kick();
    }

    fn reap(&mut self, guest: &mut ScsiGuest) {
        let mut over = Vec::new();
        while let Some(done) = guest.control().poll() {
            assert!([0, 10, 11].contains(&done.status), "{}", response_name(done.status));
            over.push(self.functions.remove(&done.token).expect("ours"));
        }
        for (number, queue) in guest.all_requests().iter_mut().enumerate() {
            while let Some(done) = queue.poll() {
                let (lun, _) = self.commands.remove(&(number, done.token)).expect("ours");
                let answer = queue.answer(&done).to_string();
                assert!(lun != ELSEWHERE || answer == "GOOD", "a neighbour got {answer}");
                *self.answers.entry(answer).or_default() += 1;
            }
        }
        for f in over {
            self.answered += 1;
            for (lun, serial) in self.commands.values() {
                let reached = reaches(f.subtype, (f.lun, f.id), (*lun, *serial));
                assert!(
                    !reached || *serial > f.serial,
                    "function {} is over, command {serial} is not",
                    f.subtype
                );
            }
        }
    }
}

#[test]
fn a_storm_of_functions_on_four_busy_queues() {
    let setup = Setup::scsi().lun("0:1", "one").lun("1:0", "far");
    let mut daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 4);
    for path in ["sim0", "sim1", "one0", "one1", "far0"] {
        daemon.fault_of(path, json!({"fault": "delay", "milliseconds": 2}));
    }
    let mut storm = Storm {
        random: Random::new(42),
        serial: 0,
        commands: HashMap::new(),
        functions: HashMap::new(),
        answers: HashMap::new(),
        answered: 0,
    };
    let (long_enough, until) =
        (Instant::now() + Duration::from_millis(1500), Instant::now() + PATIENCE);
    let mut cut = false;
    while Instant::now() < long_enough || (storm.answered < 300 && Instant::now() < until) {
        storm.submit_commands(&mut guest);
        storm.submit_functions(&mut guest, 6);
        storm.reap(&mut guest);
        if storm.random.one_in(60) {
            cut = !cut;
            if cut {
                daemon.cut(0, "before");
                daemon.cut(1, "status-lost");
            } else {
                daemon.plug_all();
                (0..2).for_each(|path| daemon.reinstate(path));
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    daemon.plug_all();
    (0..2).for_each(|path| daemon.reinstate(path));
    let until = Instant::now() + PATIENCE;
    while !(storm.commands.is_empty() && storm.functions.is_empty()) {
        storm.reap(&mut guest);
        assert!(
            Instant::now() < until,
            "{} commands, {} functions are out",
            storm.commands.len(),
            storm.functions.len()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{} functions; {:?}", storm.answered, storm.answers);
    let known = ["GOOD", "ABORTED", "RESET", "06/29/03", "06/29/07"];
    assert!(storm.answers.keys().all(|a| known.contains(&a.as_str())), "{:?}", storm.answers);
    let count = |answer: &str| storm.answers.get(answer).copied().unwrap_or(0);
    assert!(storm.answered >= 300, "only {} functions", storm.answered);
    assert!(count("ABORTED") > 20 && count("RESET") > 20 && count("GOOD") > 200);
}
