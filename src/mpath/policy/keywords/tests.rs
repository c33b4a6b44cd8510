use super::super::*;
use super::*;

fn with(settings: &[&str]) -> Result<Policy, String> {
    let settings: Result<Vec<Setting>, _> = settings.iter().map(|s| s.parse()).collect();
    let settings = settings.map_err(|e: KeywordError| e.to_string())?;
    Setting::apply_all(&settings, &Policy::default()).map_err(|e| e.to_string())
}

#[test]
fn what_is_printed_is_understood_again() {
    let odd = with(&[
        "path_grouping_policy=group_by_tpg",
        "path_selector=queue-length 0",
        "rr_min_io=7",
        "rr_weight=priorities",
        "checker=rdac",
        "prio_args=devname sda 10 sd[bc] 20",
        "prio=weightedpath",
        "hardware_handler=1 rdac",
        "pg_init_retries=50",
        "pg_init_delay_msecs=250",
        "transition_timeout=15",
        "failback=10",
        "no_path_retry=12",
        "queue_timeout=90",
        "reservation_key=0x123abc:aptpl",
        "all_tg_pt=yes",
        "flush_on_last_del=yes",
        "polling_interval=0.5",
        "max_polling_interval=3",
        "checker_timeout=7",
        "no_path_interval=0.2",
        "san_path_err_threshold=2",
        "san_path_err_recovery_time=9",
        "marginal_path_err_sample_time=30",
        "marginal_path_err_rate_threshold=0",
        "marginal_pathgroups=on",
    ])
    .unwrap();
    for policy in [Policy { max_polling: Some(Duration::from_secs(20)), ..Policy::default() }, odd]
    {
        let mut again = Policy::default();
        for keyword in KEYWORDS {
            keyword.set(&keyword.value(&policy), &mut again).unwrap();
        }
        assert_eq!(again, policy);
    }
}

#[test]
fn the_order_of_settings_does_not_matter() {
    let wanted = PrioKind::Alua { exclusive_pref: true };
    let first = with(&["prio_args=exclusive_pref_bit", "prio=alua"]).unwrap();
    let last = with(&["prio=alua", "prio_args=exclusive_pref_bit"]).unwrap();
    assert_eq!((&first.prio, &last.prio), (&wanted, &wanted));
    // And the arguments stay with the word they belong to.
    let mut policy = last;
    Keyword::named("prio").unwrap().set("alua", &mut policy).unwrap();
    assert_eq!(policy.prio, wanted);
    Keyword::named("prio").unwrap().set("sysfs", &mut policy).unwrap();
    assert_eq!(policy.prio, PrioKind::Sysfs { exclusive_pref: false });
}

#[test]
fn one_word_of_a_family_switches_it_on_and_no_switches_it_off() {
    let san = with(&["san_path_err_threshold=2"]).unwrap().san_path_err.unwrap();
    assert_eq!((san.threshold, san.forget_rate), (2, 10));
    assert_eq!(
        with(&["san_path_err_threshold=2", "san_path_err_recovery_time=no"]).unwrap().san_path_err,
        None
    );
    let marginal = with(&["marginal_path_err_recheck_gap_time=5"]).unwrap().marginal_path.unwrap();
    assert_eq!(marginal.recheck_gap, Duration::from_secs(5));
    assert_eq!(marginal.sample_time, Duration::from_secs(120));
}

#[test]
fn features_are_the_kernels_words_and_give_way_to_no_path_retry() {
    let policy = with(&["features=3 queue_if_no_path pg_init_retries 9"]).unwrap();
    assert_eq!((policy.no_path_retry, policy.pg_init_retries), (NoPathRetry::Queue, 9));
    let features = Keyword::named("features").unwrap();
    assert_eq!(features.value(&policy), "3 queue_if_no_path pg_init_retries 9");
    let policy = with(&["no_path_retry=fail", "features=1 queue_if_no_path"]).unwrap();
    assert_eq!(policy.no_path_retry, NoPathRetry::Fail);
    assert_eq!(features.value(&policy), "0");
}

#[test]
fn a_wrong_value_is_told_with_its_keyword_and_what_is_accepted() {
    for (setting, accepted) in [
        ("failback", "KEYWORD=VALUE"),
        ("no_such=1", "path_grouping_policy, path_selector"),
        ("path_grouping_policy=best", "multibus"),
        ("path_selector=fastest 0", "queue-length"),
        ("rr_min_io_rq=0", "from 1"),
        ("rr_weight=some", "priorities"),
        ("path_checker=hp_sw", "emc_clariion"),
        ("prio=ontap", "path_latency"),
        ("hardware_handler=1 hp_sw", "1 alua"),
        ("pg_init_retries=51", "0 to 50"),
        ("pg_init_delay_msecs=-1", "60000"),
        ("features=2 queue_if_no_path", "number of its words"),
        ("features=1 retain_attached_hw_handler", "pg_init_retries"),
        ("failback=never", "followover"),
        ("no_path_retry=never", "queue"),
        ("queue_timeout=0", "0.1 to 86400"),
        ("flush_on_last_del=maybe", "unused"),
        ("polling_interval=soon", "number of seconds"),
        ("san_path_err_threshold=0", "from 1"),
        ("marginal_path_err_sample_time=x", "`no`"),
        ("marginal_pathgroups=fpin", "off, on"),
    ] {
        let error = with(&[setting]).expect_err(setting);
        let keyword = setting.split('=').next().unwrap();
        assert!(error.contains(keyword) && error.contains(accepted), "{setting}: {error}");
    }
    for (prio, args, accepted) in [
        ("const", "x", "takes no arguments"),
        ("alua", "x", "exclusive_pref_bit"),
        ("weightedpath", "name sda 1", "hbtl, devname"),
        ("weightedpath", "devname sd( 1", "no regular expression"),
        ("weightedpath", "devname sda", "PRIORITY"),
        ("path_latency", "io_num=1", "20 to 200"),
    ] {
        let error = with(&[&format!("prio={prio}"), &format!("prio_args={args}")]).unwrap_err();
        assert!(error.contains(accepted), "{prio} {args}: {error}");
    }
}

#[test]
fn a_refused_value_changes_nothing() {
    let mut policy = Policy::default();
    let features = Keyword::named("features").unwrap();
    features.set("4 pg_init_retries 9 queue_if_no_path x", &mut policy).unwrap_err();
    assert_eq!(policy, Policy::default());
}

#[test]
fn names_are_one_word_each_and_none_is_there_twice() {
    let mut names: Vec<&str> =
        KEYWORDS.iter().flat_map(|k| k.aliases.iter().copied().chain([k.name])).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for keyword in KEYWORDS {
        assert!(keyword.help.ends_with('.'), "{keyword:?}");
        assert!(
            keyword.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
    }
}
