use super::*;
use crate::cli::{Cli, Settings};
use crate::host::TransportChoice;
use clap::Parser;

fn parse(options: &[&str]) -> Result<Settings, String> {
    let all = ["vhost-mpath", "--socket-path=/s", "--device=scsi"];
    let cli = Cli::try_parse_from(all.iter().chain(options)).map_err(|e| e.to_string())?;
    cli.serve.settings().map_err(|e| e.to_string())
}

fn scsi(settings: &Settings) -> Scsi {
    match settings.device {
        Device::Scsi(scsi) => scsi,
        Device::Blk { .. } => panic!("no SCSI device"),
    }
}

#[test]
fn paths_alone_are_lun_0_of_target_0() {
    let settings = parse(&["--path=sim:a", "--path=sim:a", "--alias=system"]).unwrap();
    assert_eq!(settings.lus.len(), 1);
    assert_eq!(settings.lus[0].address, Address { target: 0, lun: 0 });
    assert_eq!(settings.lus[0].paths.len(), 2);
    assert_eq!(settings.lus[0].alias.as_deref(), Some("system"));
    let device = scsi(&settings);
    assert_eq!((device.expose, device.lu_reset), (Expose::Lu, LuReset::Own));
    assert!(matches!(device.no_path, NoPathAnswer::TransportError));
    assert_eq!(device.pr_show, PrShow::One);
    assert!(device.policy.denies(Group::FormatUnit, false));
    assert_eq!(settings.num_queues, 64);
    // No faster transport of reads and writes, which would lose unit attentions.
    assert_eq!(settings.open.transport, TransportChoice::Auto);
    assert!(settings.open.scsi_only);
}

#[test]
fn further_luns_are_added_to_those_of_the_paths() {
    let settings = parse(&[
        "--path=sim:a",
        "--read-only",
        "--lun=0:1,path=sim:b,path=sim:b,alias=data,deny=reserve",
        "--lun=7:300,path=/dev/sdq",
        "--allow=mode-select",
        "--deny=reassign-blocks",
        "--expose=lu",
        "--no-path=not-ready",
        "--lu-reset=array",
        "--pr-show=all",
        "--num-queues=254",
    ])
    .unwrap();
    let addresses: Vec<_> = settings.lus.iter().map(|lu| lu.address.to_string()).collect();
    assert_eq!(addresses, ["0:0", "0:1", "7:300"]);
    assert!(settings.lus.iter().all(|lu| lu.read_only));
    let device = scsi(&settings);
    assert_eq!((device.lu_reset, device.pr_show), (LuReset::Array, PrShow::All));
    assert!(matches!(device.no_path, NoPathAnswer::NotReady));
    let data = settings.lus[1].policy(device.policy);
    assert!(!data.denies(Group::ModeSelect, false) && data.denies(Group::Reserve, false));
    let other = settings.lus[2].policy(device.policy);
    assert!(other.denies(Group::ReassignBlocks, false) && !other.denies(Group::Reserve, false));
}

#[test]
fn reservation_keys_are_kept_where_a_guest_can_reserve() {
    let given = parse(&["--path=/dev/sdb", "--prkeys=/etc/multipath/prkeys"]).unwrap().prkeys;
    assert_eq!(given.unwrap().file(), std::path::Path::new("/etc/multipath/prkeys"));
    assert!(parse(&["--path=/dev/sdb"]).unwrap().prkeys.unwrap().file().ends_with("prkeys"));
    let blk = |options: &[&str]| {
        let all = ["vhost-mpath", "--socket-path=/s", "--path=/dev/sdb"];
        let cli = Cli::try_parse_from(all.iter().chain(options)).map_err(|e| e.to_string())?;
        cli.serve.settings().map_err(|e| e.to_string())
    };
    assert_eq!(blk(&[]).unwrap().prkeys, None);
    let refused = blk(&["--prkeys=/x"]).unwrap_err();
    assert!(refused.contains("--prkeys belongs to a SCSI device"), "{refused}");
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (options, words) in [
        (&[][..], "`vhost-mpath ctl add lun`"),
        (&["--path=a", "--lun=0:0,path=b"], "--path is short for --lun 0:0"),
        (&["--lun=0:1,path=a", "--lun=0:1,path=b"], "LUN 0:1 is given twice"),
        (&["--lun=0:1,path=sim:a", "--lun=0:2,path=sim:a"], "of LUN 0:1 and of LUN 0:2"),
        (&["--lun=0:1,path=a", "--alias=x"], "alias=NAME"),
        (&["--path=a", "--serial=x"], "own serial number"),
        (&["--path=a", "--transport=blk-uring"], "reads and writes only"),
        (&["--path=a", "--num-queues=255"], "at most 254"),
        (&["--path=a", "--allow=sanitize", "--deny=sanitize"], "both allowed and denied"),
        (&["--path=sim:a", "--path=sim:a", "--lun=1:0,path=b", "--expose=paths"], "wanted twice"),
        (&["--lun=256:0,path=a"], "targets are 0 to 255"),
        (&["--lun=0:16384,path=a"], "LUNs are 0 to 16383"),
    ] {
        let error = parse(options).map(|s| s.lus).expect_err(words);
        assert!(error.contains(words), "{options:?}: {error}");
    }
}

/// LUNs may come later, by whoever reaches the control socket.
#[test]
fn a_device_may_begin_without_luns_where_they_can_be_added() {
    assert_eq!(parse(&["--control=/c"]).unwrap().lus, []);
}

#[test]
fn the_help_has_every_group_of_commands() {
    let help = groups_help();
    for group in Group::all() {
        assert!(help.contains(&format!("\n{}: {}", group.name(), group.help())), "{group}");
    }
}

/// One table decides, and help, manual and operator's page are told from it.
#[test]
fn the_documents_have_every_group_of_commands_as_the_table_says() {
    let operations = include_str!("../../../docs/operations.md");
    let manual = include_str!("../../../docs/vhost-mpath.8");
    let rows = operations.lines().skip_while(|line| !line.starts_with("| group |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let table = |group: Group| {
        let word = if group.denied_by_default() { "denied" } else { "allowed" };
        format!("| `{}` | {} | {word} |", group.name(), group.help())
    };
    assert_eq!(rows, Group::all().map(table).collect::<Vec<_>>());
    for group in Group::all() {
        let denied = if group.denied_by_default() { "; denied by default" } else { "" };
        let item = format!(".It Cm {}\n{}{denied}.\n", group.name(), group.help());
        assert!(manual.contains(&item), "the man page lacks:\n{item}");
    }
}

#[test]
fn the_descriptors_say_what_the_program_says() {
    for (file, device) in [
        (include_str!("../../../qemu/50-vhost-mpath.json"), "blk"),
        (include_str!("../../../qemu/50-vhost-mpath-scsi.json"), "scsi"),
    ] {
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let said = capabilities(["--device", device].iter());
        let said: serde_json::Value = serde_json::from_str(said).unwrap();
        assert_eq!(file["type"], said["type"]);
        assert_eq!(file["tags"][0], format!("device={device}"));
    }
}
