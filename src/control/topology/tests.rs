use std::collections::BTreeMap;

use super::*;
use crate::control::status::{GroupStatus, RegistrationStatus};

pub(in crate::control) fn path(
    dev: &str,
    hcil: &str,
    dev_t: &str,
    dm_st: &str,
    chk_st: &str,
) -> PathStatus {
    let undef = || "[undef]".to_owned();
    PathStatus {
        dev: dev.to_owned(),
        multipath: "mpatha".to_owned(),
        dev_t: dev_t.to_owned(),
        hcil: hcil.to_owned(),
        dm_st: dm_st.to_owned(),
        dev_st: "running".to_owned(),
        chk_st: chk_st.to_owned(),
        checker: "tur".to_owned(),
        pri: 1,
        host_wwnn: undef(),
        target_wwnn: undef(),
        host_wwpn: undef(),
        target_wwpn: undef(),
        host_adapter: undef(),
        lun_hex: undef(),
        marginal_st: "normal".to_owned(),
        protocol: "scsi:unspec".to_owned(),
        target_port_group: None,
        access_state: None,
        preferred: false,
        vend_prod_rev: "VHMPATH,simdisk,1".to_owned(),
        size: 256 << 20,
        serial: String::new(),
        group: 1,
        state: dm_st.to_owned(),
        failed_by_administrator: false,
        checking: false,
        next_check: 3.8,
        check_interval: 20.0,
        failures: 0,
        last_cause: None,
        last_cause_data: None,
        ios: 0,
        bytes: 0,
        spec: dev.to_owned(),
        transport: "sim".to_owned(),
        transport_reason: String::new(),
        wwid: String::new(),
        faults: None,
        sg: None,
        bsg: None,
    }
}

pub(in crate::control) fn group(number: u16, dm_st: &str, paths: Vec<PathStatus>) -> GroupStatus {
    GroupStatus {
        selector: "service-time 0".to_owned(),
        pri: 1,
        dm_st: dm_st.to_owned(),
        marginal_st: "normal".to_owned(),
        group: number,
        paths,
    }
}

pub(in crate::control) fn map(path_groups: Vec<GroupStatus>) -> MapStatus {
    MapStatus {
        name: "mpatha".to_owned(),
        lun: None,
        uuid: "36525400abc".to_owned(),
        sysfs: String::new(),
        failback: "manual".to_owned(),
        failback_in: None,
        queueing_disabled: false,
        map_failures: 0,
        policy: BTreeMap::new(),
        queueing: "on".to_owned(),
        paths: 2,
        write_prot: "rw".to_owned(),
        dm_st: "active".to_owned(),
        features: "1 queue_if_no_path".to_owned(),
        hwhandler: "0".to_owned(),
        action: String::new(),
        path_faults: 0,
        vend: "VHMPATH".to_owned(),
        prod: "simdisk".to_owned(),
        rev: "1".to_owned(),
        switch_grp: 0,
        map_loads: 1,
        total_q_time: 0,
        q_timeouts: 0,
        path_groups,
        size: 256 << 20,
        guest_size: None,
        block_size: 512,
        serial: String::new(),
        front_end: true,
    }
}

#[test]
fn one_path_per_group_looks_as_multipath_ll_prints_it() {
    let left = group(1, "disabled", vec![path("sim0", "0:0:0:0", "0:0", "failed", "faulty")]);
    let right = group(2, "active", vec![path("sim1", "0:0:1:0", "0:0", "active", "ready")]);
    assert_eq!(
        tree(&map(vec![left, right]), Colour::Never),
        "mpatha (36525400abc) VHMPATH,simdisk\n\
         size=256M features='1 queue_if_no_path' hwhandler='0' wp=rw\n\
         |-+- policy='service-time 0' prio=1 status=disabled\n\
         | `- 0:0:0:0 sim0 0:0 failed faulty running\n\
         `-+- policy='service-time 0' prio=1 status=active\n\
         \x20 `- 0:0:1:0 sim1 0:0 active ready  running\n"
    );
}

#[test]
fn several_paths_in_a_group_are_aligned() {
    let both = group(
        1,
        "active",
        vec![
            path("sdb", "2:0:0:0", "8:16", "active", "ready"),
            path("sdaa", "11:0:0:0", "65:160", "active", "ready"),
        ],
    );
    let mut map = map(vec![both]);
    map.name.clone_from(&map.uuid);
    assert_eq!(
        tree(&map, Colour::Never),
        "36525400abc VHMPATH,simdisk\n\
         size=256M features='1 queue_if_no_path' hwhandler='0' wp=rw\n\
         `-+- policy='service-time 0' prio=1 status=active\n\
         \x20 |- 2:0:0:0  sdb  8:16   active ready running\n\
         \x20 `- 11:0:0:0 sdaa 65:160 active ready running\n"
    );
}

#[test]
fn colour_marks_state_and_changes_no_letter() {
    let one = group(1, "active", vec![path("sim0", "0:0:0:0", "0:0", "failed", "faulty")]);
    let map = map(vec![one]);
    let coloured = tree(&map, Colour::Ansi);
    assert!(coloured.contains("\x1b[31mfailed faulty running\x1b[0m"), "{coloured}");
    let mut plain = coloured;
    for escape in ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"] {
        plain = plain.replace(escape, "");
    }
    assert_eq!(plain, tree(&map, Colour::Never));
}

#[test]
fn the_path_table_has_multipathds_columns() {
    let listed = [
        path("sim0", "0:0:0:0", "0:0", "failed", "faulty"),
        path("sim1", "0:0:1:0", "0:0", "active", "ready"),
    ];
    assert_eq!(
        paths(&listed, Colour::Never),
        "hcil    dev  dev_t pri dm_st  chk_st dev_st  next_check\n\
         0:0:0:0 sim0 0:0   1   failed faulty running XX........ 4/20\n\
         0:0:1:0 sim1 0:0   1   active ready  running XX........ 4/20\n"
    );
}

#[test]
fn sizes_are_rounded_as_multipath_does() {
    for (bytes, text) in [
        (1 << 10, "1.0K"),
        (256 << 20, "256M"),
        (1 << 30, "1.0G"),
        (1536 << 20, "1.5G"),
        (10 << 30, "10G"),
        (5 << 40, "5.0T"),
        (512, "0.5K"),
    ] {
        assert_eq!(size(bytes), text, "{bytes}");
    }
}

#[test]
fn luns_are_listed_with_usable_and_all_paths() {
    let lun = |lun: &str, map: &str, usable| LunStatus {
        lun: lun.to_owned(),
        map: map.to_owned(),
        uuid: "36525400abc".to_owned(),
        size: 256 << 20,
        block_size: 512,
        paths: 2,
        usable,
        read_only: usable == 0,
        exposed: "lu".to_owned(),
        state: "serving".to_owned(),
        denied: Vec::new(),
        attention_pending: false,
    };
    assert_eq!(
        luns(&[lun("0:0", "system", 2), lun("0:260", "d", 0)], Colour::Never),
        "lun   map    uuid        size paths write_prot state\n\
         0:0   system 36525400abc 256M 2/2   rw         serving\n\
         0:260 d      36525400abc 256M 0/2   ro         serving\n"
    );
}

#[test]
fn paths_of_several_maps_say_which() {
    let mut all = [
        path("sim0", "0:0:0:0", "0:0", "active", "ready"),
        path("sim1", "0:0:1:0", "0:0", "active", "ready"),
    ];
    let table = |all: &[PathStatus]| paths(all, Colour::Never);
    assert!(!table(&all).contains("mpatha"), "{}", table(&all));
    all[1].multipath = "data".to_owned();
    let text = table(&all);
    let ends: Vec<_> = text.lines().map(|l| l.split_whitespace().last().unwrap()).collect();
    assert_eq!(ends, ["multipath", "mpatha", "data"]);
    let tree = tree(&MapStatus { lun: Some("0:1".to_owned()), ..map(Vec::new()) }, Colour::Never);
    assert!(tree.contains("wp=rw lun=0:1\n"), "{tree}");
}

#[test]
fn what_multipath_ll_has_no_word_for_stands_behind_its_line() {
    let mut two = map(vec![
        group(1, "active", vec![path("sdb", "2:0:0:1", "8:16", "active", "ready")]),
        GroupStatus {
            marginal_st: "marginal".to_owned(),
            ..group(
                2,
                "enabled",
                vec![PathStatus {
                    access_state: Some("standby".to_owned()),
                    marginal_st: "marginal".to_owned(),
                    state: "unregistered".to_owned(),
                    ..path("sdc", "2:0:1:1", "8:32", "active", "ghost")
                }],
            )
        },
    ]);
    two.failback_in = Some(3.2);
    let tree = tree(&two, Colour::Never);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[1].ends_with("wp=rw failback in 3 s"), "{tree}");
    assert!(lines[3].ends_with("active ready running"), "{tree}");
    assert!(lines[4].ends_with("status=enabled marginal"), "{tree}");
    assert!(
        lines[5].ends_with("active ghost running (standby, marginal, not registered)"),
        "{tree}"
    );
}

#[test]
fn the_configuration_is_a_multipaths_section() {
    let mut one = map(Vec::new());
    for keyword in KEYWORDS {
        one.policy.insert(keyword.name.to_owned(), keyword.default());
    }
    one.policy.insert("failback".to_owned(), "immediate".to_owned());
    let text = config(&[one]);
    assert!(text.starts_with("multipaths {\n\tmultipath {\n\t\twwid \"36525400abc\"\n"), "{text}");
    assert!(text.contains("\t\talias \"mpatha\"\n"), "{text}");
    assert!(text.contains("\t\tno_path_retry \"queue\"\n"), "{text}");
    assert!(text.contains("\t\tfailback \"immediate\"\t# not the default\n"), "{text}");
}

#[test]
fn reservations_say_by_how_many_paths_and_what_is_under_way() {
    let path = |registration: &str| RegistrationStatus {
        dev: "sdb".to_owned(),
        registration: registration.to_owned(),
        barred: registration == "unknown",
    };
    let one = ReservationStatus {
        map: "data".to_owned(),
        lun: "0:1".to_owned(),
        uuid: "3a".to_owned(),
        prkey: Some("0xab".to_owned()),
        aptpl: true,
        all_tg_pt: false,
        prstatus: "set".to_owned(),
        prhold: "set".to_owned(),
        kind: Some("write exclusive".to_owned()),
        holder: Some("sdb".to_owned()),
        copies: 2,
        orders: 0,
        suspended: false,
        saved: true,
        paths: vec![path("registered"), path("unknown")],
    };
    let none = ReservationStatus {
        prkey: None,
        prstatus: "unset".to_owned(),
        kind: None,
        holder: None,
        ..one.clone()
    };
    let text = reservations(&[one.clone(), none], Colour::Never);
    for word in ["0xab:aptpl", "1/2", "write exclusive", "sdb", "settled"] {
        assert!(text.lines().nth(1).unwrap().contains(word), "{word} in {text}");
    }
    assert!(!text.lines().nth(2).unwrap().contains('/'), "{text}");
    let state = |change: fn(&mut ReservationStatus)| {
        let mut one = one.clone();
        change(&mut one);
        reservations(&[one], Colour::Never)
    };
    assert!(state(|one| one.suspended = true).contains("being moved"));
    assert!(state(|one| one.prstatus = "unknown".to_owned()).contains("being read"));
    assert!(state(|one| one.orders = 1).contains("changing"));
    assert!(state(|one| one.saved = false).contains("not saved"));
}
