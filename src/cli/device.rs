//! The options that say what the guest sees: which device, which LUs, how.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::control::Prkeys;
use crate::control::settings::{
    Address, Device, Expose, Group, LuReset, LuSettings, LunError, NoPathAnswer, PrShow, Scsi,
    check_together, undecided,
};
use crate::host::PathSpec;

/// What QEMU and libvirt ask a back-end program (`vhost-user.json`).
const BLK_CAPABILITIES: &str = r#"{"type":"block","features":["read-only","blk-file"]}"#;
const SCSI_CAPABILITIES: &str = r#"{"type":"scsi","features":[]}"#;

const LUN_HELP: &str = "\
A logical unit of a SCSI device and its paths; give it once for each.

T:L,path=SPEC[,path=SPEC]…[,alias=NAME][,set=KEYWORD=VALUE][,allow=GROUP][,deny=GROUP][,read-only=on]
T:L,wwid=WWID|map=NAME[,discover=yes|no][,…]: its paths are found, as by --wwid and --map.
T:L is target (0 to 255) and LUN (0 to 16383) as the guest sees them, SPEC is what --path takes. \
Write a comma inside a value twice: path=sim:b.img,,size=1G. --path is short for --lun 0:0.";

/// Options that only `--device scsi` takes.
#[derive(Debug, Args)]
pub(super) struct ScsiOptions {
    /// A logical unit of a SCSI device and its paths; give it once for each.
    #[arg(long = "lun", value_name = "T:L,path=SPEC…", help_heading = "SCSI")]
    #[arg(value_parser = parse_lun, long_help = LUN_HELP)]
    luns: Vec<LuSettings>,

    /// lu: the guest sees a logical unit. paths: it sees each path [default: lu]
    ///
    /// With paths, path number N (from 0) of LUN T:L is LUN L of target T+N, with the logical
    /// unit's identity and its own port's: the guest's multipath software joins them. Requests
    /// are never held then (--no-path-retry fail).
    #[arg(long, value_name = "WHAT", help_heading = "SCSI")]
    #[arg(value_parser = one_of(&[("lu", Expose::Lu), ("paths", Expose::Paths)]))]
    expose: Option<Expose>,

    /// What a guest is told when no path is left and nothing is held [default: transport]
    ///
    /// transport: a transport failure, as from a host bus adapter. not-ready: CHECK CONDITION
    /// 02/3A/00, as from a drive without a medium.
    #[arg(long, value_name = "ANSWER", help_heading = "SCSI", value_parser = one_of(&[
        ("transport", NoPathAnswer::TransportError),
        ("not-ready", NoPathAnswer::NotReady),
    ]))]
    no_path: Option<NoPathAnswer>,

    /// Let the guest send a group of commands that is denied by default; repeatable.
    #[arg(long, value_name = "GROUP", help_heading = "SCSI")]
    #[arg(value_parser = parse_group, long_help = groups_help())]
    allow: Vec<Group>,

    /// Refuse a group of commands; repeatable. The groups are those of --allow.
    #[arg(long, value_name = "GROUP", help_heading = "SCSI", value_parser = parse_group)]
    deny: Vec<Group>,

    /// How far an LU reset of the guest goes [default: own]
    ///
    /// own: the guest's own commands end, other hosts notice nothing. array: the logical unit is
    /// reset in the array as well, which ends the commands of all hosts.
    #[arg(long, value_name = "SCOPE", help_heading = "SCSI")]
    #[arg(value_parser = one_of(&[("own", LuReset::Own), ("array", LuReset::Array)]))]
    lu_reset: Option<LuReset>,

    /// What a guest reads of its own reservation keys [default: one]
    ///
    /// one: PERSISTENT RESERVE IN shows what the guest has registered once, as for a single
    /// path. all: it shows one registration for each path, as the array has them.
    #[arg(long, value_name = "KEYS", help_heading = "SCSI")]
    #[arg(value_parser = one_of(&[("one", PrShow::One), ("all", PrShow::All)]))]
    pr_show: Option<PrShow>,

    /// Keep the guests' reservation keys here, for the next daemon
    ///
    /// In the format of multipath-tools. Several daemons may share it, and do so by default: it is
    /// prkeys in the directory of a service's StateDirectory=, else in /var/lib/vhost-mpath.
    #[arg(long, value_name = "FILE", help_heading = "SCSI")]
    prkeys: Option<PathBuf>,
}

/// Options of the one disk of `--path`.
pub(super) struct Disk<'a> {
    pub(super) paths: &'a [PathSpec],
    pub(super) wwid: Option<&'a str>,
    pub(super) map: Option<&'a str>,
    pub(super) discover: bool,
    pub(super) alias: Option<&'a str>,
    pub(super) serial: Option<&'a str>,
    pub(super) read_only: bool,
    /// `--control` is given.
    pub(super) control: bool,
}

impl ScsiOptions {
    /// The device and its LUs, for `--device NAME`.
    pub(super) fn device(
        &self,
        name: &str,
        disk: &Disk<'_>,
    ) -> Result<(Device, Vec<LuSettings>), String> {
        if name == "scsi" { self.scsi(disk) } else { self.blk(disk) }
    }

    fn blk(&self, disk: &Disk<'_>) -> Result<(Device, Vec<LuSettings>), String> {
        let given = [
            ("--lun", !self.luns.is_empty()),
            ("--expose", self.expose.is_some()),
            ("--no-path", self.no_path.is_some()),
            ("--allow", !self.allow.is_empty()),
            ("--deny", !self.deny.is_empty()),
            ("--lu-reset", self.lu_reset.is_some()),
            ("--pr-show", self.pr_show.is_some()),
            ("--prkeys", self.prkeys.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(format!("{option} belongs to a SCSI device; add --device scsi"));
        }
        if !disk.is_given() {
            return Err("--path is missing; give it once for each path, or --wwid to have them \
                        found"
                .to_owned());
        }
        Ok((Device::Blk { serial: disk.serial.map(str::to_owned) }, vec![first(disk)]))
    }

    fn scsi(&self, disk: &Disk<'_>) -> Result<(Device, Vec<LuSettings>), String> {
        if disk.serial.is_some() {
            return Err("--serial belongs to --device blk; a SCSI disk shows the logical unit's \
                        own serial number"
                .to_owned());
        }
        let mut lus = Vec::new();
        if disk.is_given() {
            lus.push(first(disk));
        } else if disk.alias.is_some() {
            return Err(
                "--alias names the map of --path or --wwid; for a --lun write alias=NAME in it"
                    .into(),
            );
        }
        let each = self.luns.iter().cloned();
        lus.extend(each.map(|lu| LuSettings {
            read_only: lu.read_only || disk.read_only,
            discover: lu.discover.or(Some(disk.discover)),
            ..lu
        }));
        if lus.is_empty() && !disk.control {
            return Err(
                "--path, --wwid or --lun is missing; a device without any wants --control, by \
                        which `vhost-mpath ctl add lun` adds them"
                    .to_owned(),
            );
        }
        let scsi = self.options()?;
        check_together(&lus, scsi.expose == Expose::Paths).map_err(|error| match error {
            LunError::AddressTwice(address) if address == Address::default() && lus.len() > 1 => {
                format!("{error} (--path is short for --lun 0:0)")
            }
            other => other.to_string(),
        })?;
        Ok((Device::Scsi(scsi), lus))
    }

    /// Where reservation keys are kept; `None`: the guest cannot reserve.
    pub(super) fn prkeys(&self, device: &Device) -> Option<Prkeys> {
        matches!(device, Device::Scsi(_)).then(|| Prkeys::new(self.prkeys.clone()))
    }

    fn options(&self) -> Result<Scsi, String> {
        undecided(&self.allow, &self.deny).map_err(|error| format!("--allow, --deny: {error}"))?;
        let all = LuSettings {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            ..LuSettings::default()
        };
        Ok(Scsi {
            expose: self.expose.unwrap_or(Expose::Lu),
            no_path: self.no_path.unwrap_or(NoPathAnswer::TransportError),
            lu_reset: self.lu_reset.unwrap_or(LuReset::Own),
            pr_show: self.pr_show.unwrap_or_default(),
            policy: all.policy(Default::default()),
        })
    }
}

impl Disk<'_> {
    /// `--path`, or a name to find paths by.
    fn is_given(&self) -> bool {
        !self.paths.is_empty() || self.wwid.is_some() || self.map.is_some()
    }
}

/// The LU of `--path`.
fn first(disk: &Disk<'_>) -> LuSettings {
    LuSettings {
        paths: disk.paths.to_vec(),
        wwid: disk.wwid.map(str::to_owned),
        map: disk.map.map(str::to_owned),
        discover: Some(disk.discover),
        alias: disk.alias.map(str::to_owned),
        read_only: disk.read_only,
        ..LuSettings::default()
    }
}

/// What `--print-capabilities` prints: the last `--device` counts, everything
/// else is ignored.
pub(super) fn capabilities(arguments: impl Iterator<Item = impl AsRef<str>>) -> &'static str {
    let mut scsi = false;
    let mut value_next = false;
    for argument in arguments {
        let argument = argument.as_ref();
        if std::mem::take(&mut value_next) {
            scsi = argument == "scsi";
        } else if argument == "--device" {
            value_next = true;
        } else if let Some(value) = argument.strip_prefix("--device=") {
            scsi = value == "scsi";
        }
    }
    if scsi { SCSI_CAPABILITIES } else { BLK_CAPABILITIES }
}

fn parse_lun(text: &str) -> Result<LuSettings, String> {
    text.parse().map_err(|error: LunError| error.to_string())
}

pub(super) fn parse_group(text: &str) -> Result<Group, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// One line per group, from the table that decides.
pub(super) fn groups_help() -> String {
    let mut text = "Let the guest send a group of commands that is denied by default; repeatable. \
                    A refused command is answered 05/20/00 and told as COMMAND_DENIED.\n"
        .to_owned();
    for group in Group::all() {
        let denied = if group.denied_by_default() { " [denied]" } else { "" };
        text.push_str(&format!("\n{}: {}{denied}", group.name(), group.help()));
    }
    text
}

/// A word for each value.
fn one_of<T: Copy + Send + Sync + 'static>(
    words: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words.iter().map(|(word, _)| *word)).try_map(move |text| {
        let value = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        value.ok_or_else(|| format!("{text} is no such word"))
    })
}

#[cfg(test)]
mod tests;
