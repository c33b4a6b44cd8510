use super::*;
use crate::host::SimSpec;

fn lu(text: &str) -> LuSettings {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn a_lun_is_a_list_like_qemus() {
    let all =
        lu("3:260,path=sim:a.img,,size=1G,,name=left,path=/dev/sdb,alias=data,allow=mode-select,\
                  allow=stop-unit,deny=reserve,read-only=on");
    assert_eq!(all.address, Address { target: 3, lun: 260 });
    assert_eq!(all.address.to_string(), "3:260");
    assert_eq!(all.paths.len(), 2);
    assert_eq!(all.paths[1].target, Target::Node("/dev/sdb".into()));
    assert_eq!((all.alias.as_deref(), all.read_only), (Some("data"), true));
    assert_eq!(all.allow, [Group::ModeSelect, Group::StopUnit]);
    assert_eq!(all.deny, [Group::Reserve]);
    let plain = lu("0:0,path=x");
    assert_eq!((plain.alias, plain.read_only), (None, false));
    assert_eq!(lu("255:16383,path=x").address, Address { target: 255, lun: LUN_MAX });
}

/// A comma of the list is doubled once, one in a file name twice over.
#[test]
fn commas_are_doubled_at_each_level() {
    let spec = &lu("0:1,path=sim:a,,,,b.img,,size=1G").paths[0];
    let Target::Sim(SimSpec { image, size, .. }) = &spec.target else { panic!("{spec:?}") };
    assert_eq!((image.to_str(), *size), (Some("a,b.img"), Some(1 << 30)));
}

#[test]
fn every_mistake_has_its_own_words() {
    for (text, words) in [
        ("", "TARGET:LUN"),
        ("1,path=x", "TARGET:LUN"),
        ("0:x,path=x", "TARGET:LUN"),
        ("0:+1,path=x", "TARGET:LUN"),
        ("0:,path=x", "TARGET:LUN"),
        ("256:0,path=x", "targets are 0 to 255"),
        ("0:16384,path=x", "LUNs are 0 to 16383"),
        ("0:99999999999999999999,path=x", "LUNs are 0 to 16383"),
        ("0:1", "LUN 0:1 has no path"),
        ("0:1,alias=a", "LUN 0:1 has no path"),
        ("0:1,sdb", "key=value"),
        ("0:1,paths=sdb", "takes path, wwid, map, discover, alias, set, allow, deny and read-only"),
        ("0:1,path=", "names no device"),
        ("0:1,wwid=3a,map=b", "give one of them"),
        ("0:1,wwid=3a,wwid=3a", "`wwid` is given twice"),
        ("0:1,wwid=", "give a WWID"),
        ("0:1,wwid=3a,discover=on", "yes or no"),
        ("0:1,path=sim:x,size=1G", "no option `size`"),
        ("0:1,path=x,alias=a,alias=b", "`alias` is given twice"),
        ("0:1,path=x,alias=a b", "letters, digits"),
        ("0:1,path=x,allow=everything", "format-unit"),
        ("0:1,path=x,allow=sanitize,deny=sanitize", "both allowed and denied"),
        ("0:1,path=x,read-only=yes", "on or off"),
        ("0:1,path=x,read-only=on,read-only=off", "`read-only` is given twice"),
    ] {
        let error = text.parse::<LuSettings>().expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn an_lu_may_be_given_by_its_name() {
    let named = lu("0:1,wwid=naa.6001405deadbeef0001000000000000a,discover=no");
    assert_eq!((named.paths.len(), named.discover), (0, Some(false)));
    assert_eq!(lu("0:1,map=mpatha").map.as_deref(), Some("mpatha"));
    assert_eq!(named.addresses(false), Ok(vec![named.address]));
    let exposed = named.addresses(true).unwrap_err().to_string();
    assert!(exposed.contains("paths that are named"), "{exposed}");
}

#[test]
fn lus_of_one_device_share_nothing() {
    let check = |texts: &[&str], expose| {
        let lus: Vec<_> = texts.iter().map(|text| lu(text)).collect();
        check_together(&lus, expose).map_err(|error| error.to_string())
    };
    assert_eq!(
        check(&["0:0,path=sim:a,path=sim:a", "0:1,path=sim:b", "1:0,path=sdb"], false),
        Ok(())
    );
    for (texts, expose, words) in [
        (&["0:1,path=a", "0:1,path=b"][..], false, "LUN 0:1 is given twice"),
        (&["0:1,path=/dev/sdb", "0:2,path=/dev/sdb"], false, "of LUN 0:1 and of LUN 0:2"),
        (&["0:1,path=sim:a,,size=1G", "0:2,path=sim:a"], false, "of LUN 0:1 and of LUN 0:2"),
        (&["0:1,path=a,alias=x", "0:2,path=b,alias=x"], false, "alias x is given to two"),
        (&["0:0,path=sim:a,path=sim:a", "1:0,path=sim:b"], true, "target 1 is wanted twice"),
        (&["0:1,path=a,alias=0:2"], false, "alias 0:2 is the address"),
        (&["255:0,path=sim:a,path=sim:a"], true, "do not fit below target 256"),
    ] {
        let error = check(texts, expose).unwrap_err();
        assert!(error.contains(words), "{texts:?}: {error}");
    }
    assert_eq!(check(&["0:0,path=sim:a,path=sim:a", "1:1,path=sim:b"], true), Ok(()));
}

#[test]
fn exposed_paths_are_targets_in_order() {
    let two = lu("4:7,path=sim:a,path=sim:a");
    let words = |expose| -> Vec<String> {
        two.addresses(expose).unwrap().iter().map(Address::to_string).collect()
    };
    assert_eq!(words(false), ["4:7"]);
    assert_eq!(words(true), ["4:7", "5:7"]);
}

#[test]
fn a_luns_word_wins_over_the_devices() {
    let mut device = CommandPolicy::default();
    device.allow(Group::ModeSelect);
    let policy = lu("0:1,path=x,deny=mode-select,allow=stop-unit").policy(device);
    assert!(policy.denies(Group::ModeSelect, false));
    assert!(!policy.denies(Group::StopUnit, false));
    assert!(policy.denies(Group::FormatUnit, false));
    assert!(!lu("0:1,path=x").policy(device).denies(Group::ModeSelect, false));
}
