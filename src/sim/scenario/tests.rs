use super::*;
use crate::scsi::alua::AccessState;
use crate::sim::CutMode;

const EXAMPLE: &str = "\
# A controller fails over.
# Slowly.
path sim0 tpg=1
path sim1 tpg=2,access=standby   # the other one
set path_grouping_policy=group_by_tpg
length 60

12.5  tpg 2  alua active-optimized 30000
10    sim0   cut status-lost
50    all    plug
";

fn told(text: &str) -> String {
    Scenario::parse(text).unwrap_err().to_string()
}

#[test]
fn an_outage_is_read_as_it_is_written_down() {
    let scenario = Scenario::parse(EXAMPLE).unwrap();
    assert_eq!(scenario.title, "A controller fails over.");
    assert_eq!(scenario.paths.len(), 2);
    assert_eq!(
        (scenario.paths[1].group(), scenario.paths[1].option("access")),
        (2, Some("standby"))
    );
    assert_eq!(scenario.settings, [("path_grouping_policy".to_owned(), "group_by_tpg".to_owned())]);
    assert_eq!(scenario.length, Duration::from_secs(60));
    let transition = Duration::from_secs(30);
    let state = AccessState::ActiveOptimized;
    let steps: Vec<_> = scenario.steps.iter().map(|s| (s.at, s.paths.clone(), s.fault)).collect();
    assert_eq!(
        steps,
        [
            (Duration::from_secs(10), vec![0], Fault::Cut(CutMode::StatusLost)),
            (Duration::from_millis(12_500), vec![1], Fault::Alua { state, transition }),
            (Duration::from_secs(50), vec![0, 1], Fault::Plug),
        ]
    );
}

#[test]
fn a_wrong_line_is_named_with_what_it_should_be() {
    for (text, line, word) in [
        ("path sim0\nlength 5\n1 sim1 cut", 3, "'sim1' is no path"),
        ("path sim0\nlength 5\n1 sim0 smoke", 3, "'smoke' is no fault"),
        ("path sim0\nlength 5\n1 sim0 cut status-lost now", 3, "'now' does not belong to cut"),
        ("path sim0\nlength 5\n1 sim0 alua up", 3, "active-non-optimized"),
        ("path sim0\nlength 5\n1 tpg 2 plug", 3, "'tpg' is no path"),
        ("path sim0\npath sim0", 2, "already"),
        ("path all", 1, "cannot be the name"),
        ("path sim0 tpg", 1, "NAME=VALUE"),
        ("path sim0\n-1 sim0 cut", 2, "time in seconds"),
        ("path sim0\nsoon sim0 cut", 2, "time in seconds"),
        ("path sim0\nlength 5\n5 sim0 cut", 1, "after the last fault"),
        ("length 5", 1, "at least one path"),
    ] {
        let told = told(text);
        assert!(told.starts_with(&format!("line {line}: ")) && told.contains(word), "{told}");
    }
}

#[test]
fn every_scenario_that_is_shipped_can_be_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut read = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!scenario.title.is_empty() && !scenario.steps.is_empty(), "{}", path.display());
        read += 1;
    }
    assert!(read >= 5, "{read} scenarios");
}
