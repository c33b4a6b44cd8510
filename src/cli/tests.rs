use super::*;
use crate::mpath::policy::keywords::KEYWORDS;
use crate::mpath::policy::{Failback, GroupingPolicy, NoPathRetry, Policy};
use crate::mpath::prio::PrioKind;
use crate::mpath::snapshot::SelectorKind;

const SOCKET: [&str; 3] = ["vhost-mpath", "--socket-path", "/s"];

fn parse(options: &[&str]) -> Result<Settings, String> {
    let arguments = SOCKET.iter().chain(options);
    let cli = Cli::try_parse_from(arguments).map_err(|e| e.to_string())?;
    cli.serve.settings().map_err(|e| e.to_string())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_first_user_types_socket_and_paths_only() {
    let settings = parse(&["--path", "/dev/sdb", "--path", "/dev/sdc"]).unwrap();
    assert_eq!(settings.listen, Listen::Path("/s".into()));
    assert_eq!(settings.lus[0].paths.len(), 2);
    assert!(matches!(settings.device, Device::Blk { serial: None }));
    assert_eq!(settings.num_queues, 16);
    assert_eq!(settings.policy, Policy::default());
    assert_eq!(settings.suspect_after, Duration::from_secs(1));
    assert_eq!(settings.open.command_timeout, Duration::from_secs(30));
}

#[test]
fn multipath_confs_words_are_understood() {
    let settings = parse(&[
        "--blk-file=/dev/sdb",
        "--path-grouping-policy=multibus",
        "--path-selector=round-robin 0",
        "--no-path-retry=12",
        "--polling-interval=0.5",
        "--checker-timeout=10",
        "--socket-mode=660",
        "--socket-group=root",
    ])
    .unwrap();
    let policy = settings.policy;
    assert_eq!(policy.grouping, GroupingPolicy::Multibus);
    assert_eq!(policy.selector, SelectorKind::RoundRobin);
    assert_eq!(policy.no_path_retry, NoPathRetry::Times(12));
    assert_eq!(policy.polling_interval, Duration::from_millis(500));
    assert_eq!(policy.no_path_interval, Duration::from_millis(200), "each keyword sets its own");
    assert_eq!((settings.access.mode, settings.access.group), (Some(0o660), Some(0)));
}

#[test]
fn every_keyword_can_be_set_and_wins_over_its_option() {
    let settings = parse(&[
        "--path=/dev/sdb",
        "--set=prio_args=exclusive_pref_bit",
        "--set=prio=alua",
        "--no-path-retry=fail",
        "--set",
        "no_path_retry=6",
        "--set=failback=10",
    ])
    .unwrap();
    let policy = settings.policy;
    assert_eq!(policy.prio, PrioKind::Alua { exclusive_pref: true });
    assert_eq!(policy.no_path_retry, NoPathRetry::Times(6));
    assert_eq!(policy.failback, Failback::After(Duration::from_secs(10)));
}

#[test]
fn a_lun_may_be_set_otherwise_than_the_device() {
    let lun = "0:0,path=/dev/sdb,set=failback=immediate,set=prio_args=exclusive_pref_bit";
    let scsi = ["--device=scsi", "--lun", lun];
    let error = parse(&scsi).unwrap_err();
    assert!(error.contains("--lun 0:0: prio_args") && error.contains("no arguments"), "{error}");
    let settings = parse(&[&scsi[..], &["--set=prio=sysfs"]].concat()).unwrap();
    let set: Vec<String> = settings.lus[0].set.iter().map(ToString::to_string).collect();
    assert_eq!(set, ["failback=immediate", "prio_args=exclusive_pref_bit"]);
    assert_eq!(settings.policy.failback, Failback::Manual);
    let error = parse(&["--device=scsi", "--lun", "0:0,path=x,set=failback=never"]).unwrap_err();
    assert!(error.contains("followover"), "{error}");
}

#[test]
fn every_wrong_value_is_told_with_option_value_and_what_is_accepted() {
    for (option, value, accepted) in [
        ("--device", "tape", "scsi"),
        ("--num-queues", "0", "1..=256"),
        ("--queue-size", "100", "power of two"),
        ("--transport", "tape", "sg-io"),
        ("--path-grouping-policy", "best", "multibus"),
        ("--path-selector", "fastest 0", "service-time 0"),
        ("--no-path-retry", "never", "queue"),
        ("--polling-interval", "0", "0.1 to 86400"),
        ("--set", "failback", "KEYWORD=VALUE"),
        ("--set", "failback=never", "followover"),
        ("--set", "colour=red", "path_grouping_policy"),
        ("--set", "prio_args=exclusive_pref_bit", "takes no arguments"),
        ("--checker-timeout", "-1", "0.1 to 86400"),
        ("--command-timeout", "soon", "number of seconds"),
        ("--suspect-timeout", "31", "--command-timeout"),
        ("--log-level", "loud", "debug"),
        ("--socket-mode", "rw", "octal"),
        ("--socket-group", "no-such-group", "getent group"),
        ("--serial", "more than twenty characters", "20"),
        ("--alias", "two words", "letters"),
        ("--path", "sim:x,colour=red", "personality, tpgs, port, tpg and access"),
        ("--path", "null:lots", "K, M, G"),
        ("--control", "/s", "different sockets"),
        ("--lun", "0:1,path=x", "--device scsi"),
        ("--lun", "0", "TARGET:LUN"),
        ("--expose", "everything", "paths"),
        ("--expose", "paths", "--device scsi"),
        ("--no-path", "panic", "not-ready"),
        ("--allow", "everything", "format-unit"),
        ("--deny", "mode-select", "--device scsi"),
        ("--lu-reset", "world", "array"),
    ] {
        let both = format!("{option}={value}");
        let error = parse(&["--path", "x", &both]).expect_err(&both);
        assert!(error.contains(option), "{both}: {error}");
        assert!(error.contains(accepted), "{both}: {error}");
    }
}

#[test]
fn the_help_names_every_group_and_default() {
    let help = Cli::command().render_long_help().to_string();
    for text in [
        "Front-end:",
        "Disk:",
        "Paths:",
        "Multipath:",
        "SCSI:",
        "Administration:",
        "Examples:",
        "[default: queue]",
        "[default: \"service-time 0\"]",
        "read-only file system",
        "sim:FILE",
    ] {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
    for keyword in KEYWORDS {
        let (name, default) = (keyword.name, keyword.default_in_words());
        assert!(help.contains(&format!("{name}: ")), "{name} is missing in:\n{help}");
        assert!(help.contains(&format!("[default: {default}]")), "{name}");
    }
}

#[test]
fn capabilities_are_valid_json_and_asked_for_among_anything() {
    for (arguments, kind) in [
        (&[][..], "block"),
        (&["--device", "scsi"], "scsi"),
        (&["--device=scsi", "--bogus"], "scsi"),
        (&["--device=scsi", "--device", "blk"], "block"),
        (&["--device"], "block"),
    ] {
        let text = device::capabilities(arguments.iter());
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json["type"], kind, "{arguments:?}");
        assert!(json["features"].is_array());
    }
    let args = ["x", "--bogus", "--print-capabilities"].map(OsString::from);
    assert!(asks_for_capabilities(&args));
    assert!(!asks_for_capabilities(&args[..2]));
}

/// The mistake everybody makes once: `--path /dev/sdb /dev/sdc`.
#[test]
fn a_path_without_its_option_is_told_in_words_of_paths() {
    let words = |arguments: &[&str]| {
        let all = SOCKET.iter().chain(arguments);
        in_our_words(Cli::try_parse_from(all).unwrap_err()).to_string()
    };
    let forgotten = words(&["--path", "/dev/sdb", "/dev/sdc"]);
    assert!(forgotten.contains("each path wants its own --path: --path /dev/sdc"), "{forgotten}");
    let mixed = words(&["--path", "/dev/sdb", "ctl", "events"]);
    assert!(mixed.contains("takes none of the options"), "{mixed}");
}

#[test]
fn one_socket_by_two_names_is_still_one() {
    let error = parse(&["--path", "null:1M", "--control", "/./s"]).unwrap_err();
    assert!(error.contains("two different sockets"), "{error}");
}

#[test]
fn the_man_page_has_every_option_and_verb() {
    let page = include_str!("../../docs/vhost-mpath.8");
    let command = Cli::command();
    let plain = page.replace("\\(aq", "'").replace("...", "…");
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    for keyword in KEYWORDS {
        let (name, takes, default) = (keyword.name, keyword.takes, keyword.default_in_words());
        let there = plain.contains(&format!(".It Cm {name} {takes}; default: {default}. "))
            && plain.contains(keyword.help)
            && plain.contains(keyword.differs.unwrap_or_default());
        assert!(there, "{name} is not in the man page as it is in the table");
    }
    for option in command.get_arguments().filter_map(clap::Arg::get_long) {
        assert!(page.contains(&format!("Fl Fl {option}")), "--{option} is not in the man page");
    }
    let ctl = command.find_subcommand("ctl").unwrap();
    for verb in ctl.get_subcommands().map(clap::Command::get_name) {
        assert!(page.contains(&format!("Cm {verb}")), "`ctl {verb}` is not in the man page");
    }
}
