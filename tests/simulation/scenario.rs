//! Outages that were written down, played in virtual time: on demand
//! (`scripts/simulate --scenario FILE`), and those of `scenarios/`, each held to
//! what the first lines of its file promise.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vhost_mpath::mpath::effect::Change;
use vhost_mpath::sim::scenario::Scenario;

use crate::record::{Event, Record};
use crate::world;

/// Seeds of each shipped file.
const SEEDS: u64 = 20;

/// A hold is noticed to be over: every path is checked 0.2 s after its last
/// answer meanwhile; a proof, and the threads' delays.
const NOTICED: Duration = Duration::from_millis(500);

fn read(file: &Path) -> Scenario {
    let text = std::fs::read_to_string(file);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn play(file: &Path, seeds: std::ops::Range<u64>) -> (Scenario, Vec<Record>) {
    let scenario = read(file);
    let run = |seed| match world::replay::play(seed, &scenario) {
        Ok(record) => record,
        Err(why) => panic!("{}: {why}", file.display()),
    };
    let records = seeds.map(run).collect();
    (scenario, records)
}

/// Chosen by `scripts/simulate`, which builds and calls this.
#[test]
#[ignore = "plays VHOST_MPATH_SCENARIO=FILE, for scripts/simulate --scenario"]
fn a_file_is_played() {
    let file = PathBuf::from(std::env::var_os("VHOST_MPATH_SCENARIO").expect("a file"));
    let seeds = if crate::chosen() { crate::seeds() } else { 0..100 };
    let (scenario, records) = play(&file, seeds);
    println!("{}", report(&scenario, &records));
}

/// For whoever wants to know what the outage would have meant.
fn report(scenario: &Scenario, records: &[Record]) -> String {
    let Some(worst) = records.iter().max_by_key(|r| (r.errors(), r.longest().time)) else {
        return "no seed".to_owned();
    };
    let mut lines = vec![scenario.title.clone(), String::new()];
    lines.push(format!("In seed {}, in seconds:", worst.seed));
    let told = |(at, event): &(Duration, Event)| format!("{:10.3}  {event}", at.as_secs_f64());
    lines.extend(worst.events.iter().map(told));
    lines.push(String::new());
    for (n, (number, paths)) in worst.groups.iter().enumerate() {
        let used = if n == 0 { "in use" } else { "standing by" };
        let paths = if paths.is_empty() { "no path".to_owned() } else { paths.join(", ") };
        lines.push(format!("At the end group {number} is {used}: I/O is carried by {paths}"));
    }
    let requests: usize = records.iter().map(|r| r.requests.len()).sum();
    let errors: usize = records.iter().map(Record::errors).sum();
    let longest = worst.longest();
    lines.push(format!("Of {} seeds, {} s each:", records.len(), scenario.length.as_secs_f64()));
    lines.push(format!("  {requests} requests finished, {errors} of them with an error"));
    lines.push(format!(
        "  the longest took {:.3} s (seed {}, sent at {:.3})",
        longest.time.as_secs_f64(),
        worst.seed,
        longest.sent.as_secs_f64()
    ));
    let range = |what: &dyn Fn(&Record) -> usize| {
        let counts = || records.iter().map(what);
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        if least == most { format!("{least}") } else { format!("{least} to {most}") }
    };
    lines.push(format!("  I/O moved to another group {} times", range(&|r| r.switches().len())));
    for path in scenario.paths.iter().map(|path| path.name.as_str()) {
        let failed = range(&|r| r.failures(path).len());
        let back = range(&|r| r.reinstatements(path).len());
        let lost = range(&|r| r.lost.iter().filter(|(_, name)| name == path).count());
        lines.push(format!(
            "  {path} failed {failed} times and was reinstated {back} times; \
             {lost} commands were lost on it"
        ));
    }
    lines.join("\n")
}

// --- what the shipped files promise ------------------------------------------

fn shipped(name: &str) -> Vec<Record> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let (scenario, records) = play(&file.join(format!("{name}.scenario")), 0..SEEDS);
    for record in &records {
        assert!(record.requests.len() > 50, "{name}: seed {} does little", record.seed);
        let (seed, errors) = (record.seed, record.errors());
        assert_eq!(errors, 0, "{name}, seed {seed}: {}", report(&scenario, &records));
    }
    records
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// The longest that a request sent then was out.
fn longest(record: &Record, sent: std::ops::Range<Duration>) -> Duration {
    let then = record.requests.iter().filter(|took| sent.contains(&took.sent));
    then.map(|took| took.time).max().unwrap_or_default()
}

#[test]
fn every_file_that_is_shipped_is_played_here() {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"));
    let names = files.unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> =
        names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    let here = [
        "all-paths-down",
        "confident-path",
        "controller-failover",
        "firmware-upgrade",
        "flapping-port",
        "hung-path",
        "remapped-lun",
    ];
    assert_eq!(names, here, "a new file needs its promise here");
}

#[test]
fn with_all_paths_down_requests_are_held_for_the_outage_and_no_longer() {
    for record in shipped("all-paths-down") {
        let took = record.longest().time;
        assert!(took > seconds(55), "seed {}: nothing was held: {took:?}", record.seed);
        assert!(took < seconds(60) + NOTICED, "seed {}: held for {took:?}", record.seed);
    }
}

#[test]
fn a_controller_failover_holds_requests_for_the_transition_and_ends_where_it_began() {
    for record in shipped("controller-failover") {
        let seed = record.seed;
        let took = record.longest().time;
        assert!(took < seconds(30) + NOTICED, "seed {seed}: held for {took:?}");
        assert_eq!(
            record.groups[0],
            (1, vec!["sim0".to_owned(), "sim1".to_owned()]),
            "seed {seed}"
        );
        assert_eq!(record.switches().len(), 2, "seed {seed}: {:?}", record.switches());
    }
}

#[test]
fn a_firmware_upgrade_costs_takeovers_and_the_last_restart() {
    for record in shipped("firmware-upgrade") {
        let seed = record.seed;
        // The controller is busy first: that is no failure.
        let before = longest(&record, Duration::ZERO..seconds(20));
        assert!(before < seconds(10) + NOTICED, "seed {seed}: held for {before:?}");
        let takeover = longest(&record, seconds(20)..seconds(90));
        assert!(takeover < seconds(5) + NOTICED, "seed {seed}: held for {takeover:?}");
        let restart = longest(&record, seconds(90)..seconds(120));
        assert!(restart < seconds(10) + NOTICED, "seed {seed}: held for {restart:?}");
        assert_eq!(
            record.groups[0],
            (1, vec!["sim0".to_owned(), "sim1".to_owned()]),
            "seed {seed}"
        );
    }
}

#[test]
fn a_flapping_port_costs_nothing_once_it_is_held_back() {
    for record in shipped("flapping-port") {
        let seed = record.seed;
        let marked = |c: &Change, m: bool| matches!(c, Change::Marginal { path, marginal } if path == "sim0" && *marginal == m);
        let held_back = record.times(|c| marked(c, true));
        assert_eq!(held_back.len(), 1, "seed {seed}");
        let released = record.times(|c| marked(c, false)).first().copied();
        let free = held_back[0] + seconds(1)..released.unwrap_or(seconds(70));
        let lost = record.lost.iter().find(|(at, _)| free.contains(at));
        assert_eq!(lost, None, "seed {seed}, held back at {:?}", held_back[0]);
        let took = record.longest().time;
        assert!(took < NOTICED, "seed {seed}: {took:?}, though the other path was in order");
    }
}

#[test]
fn a_hung_path_keeps_what_it_has_and_gets_nothing_new() {
    for record in shipped("hung-path") {
        let seed = record.seed;
        let caught = longest(&record, seconds(9)..seconds(12));
        assert!(caught < seconds(30) + NOTICED, "seed {seed}: {caught:?}");
        let later = longest(&record, seconds(12)..seconds(70));
        assert!(later < NOTICED, "seed {seed}: {later:?}, though the other path was in order");
        assert_eq!(record.groups[0].1.len(), 2, "seed {seed}: both are back");
    }
}

#[test]
fn a_path_to_another_unit_is_taken_out_and_proven_before_it_returns() {
    for record in shipped("remapped-lun") {
        let seed = record.seed;
        let back = record.reinstatements("sim1");
        assert_eq!(back.len(), 1, "seed {seed}");
        assert!(back[0] > seconds(25), "seed {seed}: back at {:?}", back[0]);
        assert!(!record.failures("sim1").is_empty(), "seed {seed}");
        assert!(record.failures("sim0").is_empty(), "seed {seed}");
        let took = record.longest().time;
        assert!(took < NOTICED, "seed {seed}: {took:?}, though the other path was in order");
    }
}

#[test]
fn a_path_that_only_says_it_is_fine_is_held_back() {
    for record in shipped("confident-path") {
        let (seed, failed) = (record.seed, record.failures("sim0").len());
        // Once more than the threshold, in each recovery time.
        assert!((3..=6).contains(&failed), "seed {seed}: failed {failed} times");
        let took = record.longest().time;
        assert!(took < NOTICED, "seed {seed}: {took:?}, though the other path was in order");
    }
}
