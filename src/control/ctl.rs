//! `vhost-mpath ctl`: multipathd's verbs, spoken as QMP to a running daemon.
//!
//! A process of its own; knows the daemon by its control socket only. What it
//! prints is rendered by [`topology`](super::topology) from the daemon's data,
//! or handed on as JSON.

mod connection;
mod show;
mod verbs;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::sim_fault::parse_sense;
use crate::host::parse_size;
use crate::scsi::status::HostByte;
use crate::sim::ACCESS_STATES;
use connection::Connection;
use show::Show;
use verbs::{Add, Del, Maps, OnePath, PathOrMap, Set, Switch};

pub use connection::CtlError;

/// For `vhost-mpath ctl --help`.
pub const ABOUT: &str = "\
Looks at a running daemon and changes its paths and LUNs, in multipathd's words.

The daemon must have been started with --control SOCKET. Whatever is done is done when the \
command returns: after `fail path` or `del path` no queue thread uses the path any more. Paths have names of their \
own in the whole daemon; a map is named by its alias, its WWID or, on a SCSI device, as T:L.";

/// For `vhost-mpath ctl --help`.
pub const EXAMPLES: &str = "\
Examples:
  vhost-mpath ctl --control /run/disk.ctl show topology
  vhost-mpath ctl --control /run/disk.ctl fail path sdb
  vhost-mpath ctl --control /run/disk.ctl reinstate path sdb
  vhost-mpath ctl --control /run/disk.ctl add path /dev/sdd
  vhost-mpath ctl --control /run/disk.ctl add path /dev/sdd to 0:1
  vhost-mpath ctl --control /run/disk.ctl add lun 0:2 /dev/sdf /dev/sdg --alias logs
  vhost-mpath ctl --control /run/disk.ctl del lun 0:2
  vhost-mpath ctl --control /run/disk.ctl show paths format '%d %t %T %p'
  vhost-mpath ctl --control /run/disk.ctl switch map logs group 2
  vhost-mpath ctl --control /run/disk.ctl set map logs failback immediate
  vhost-mpath ctl --control /run/disk.ctl sim sim0 cut status-lost
  vhost-mpath ctl --control /run/disk.ctl sim sim0 sense 03/11/00 1
  vhost-mpath ctl --control /run/disk.ctl sim sim0 alua standby 2000
  vhost-mpath ctl --control /run/disk.ctl sim sim0 capacity 2G
  vhost-mpath ctl --control /run/disk.ctl events

Exit code 0; 1 if the daemon cannot be reached or refuses; 2 for a wrong command line.";

/// Arguments of `vhost-mpath ctl`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Ctl {
    /// The daemon's control socket.
    #[arg(long, value_name = "CONTROL", global = true)]
    control: Option<PathBuf>,

    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show maps, paths, LUNs.
    #[command(subcommand, visible_alias = "list")]
    Show(Show),
    /// Take a path out of use until it is reinstated.
    #[command(subcommand)]
    Fail(OnePath),
    /// Lift `fail path`; the path is checked, and used again if it is well.
    #[command(subcommand)]
    Reinstate(OnePath),
    /// Open a further path and take it into a map, or add a LUN to a SCSI device.
    #[command(subcommand)]
    Add(Add),
    /// Take a path out of its map, or a LUN from the guest, and close it.
    #[command(subcommand, visible_alias = "remove")]
    Del(Del),
    /// Move I/O to a path group, which is then kept as long as it carries any.
    #[command(subcommand, visible_alias = "switchgroup")]
    Switch(Switch),
    /// Fail requests at once while no path is left, whatever no_path_retry says.
    #[command(subcommand, name = "disablequeueing")]
    DisableQueueing(Maps),
    /// Lift `disablequeueing`.
    #[command(subcommand, name = "restorequeueing")]
    RestoreQueueing(Maps),
    /// Call a path unreliable: it is used last, or not at all, until `unsetmarginal`.
    #[command(subcommand, name = "setmarginal")]
    SetMarginal(OnePath),
    /// Call a path, or all of a map, reliable again.
    #[command(subcommand, name = "unsetmarginal")]
    UnsetMarginal(PathOrMap),
    /// Change a setting of a running map; it lasts as long as the daemon.
    #[command(subcommand)]
    Set(Set),
    /// Break or mend a simulated path, or what it leads to.
    Sim {
        /// Name of the path.
        path: String,
        #[command(subcommand)]
        fault: Fault,
    },
    /// Print what happens, as it happens.
    Events,
    /// End the daemon, as SIGTERM does.
    #[command(visible_alias = "quit")]
    Shutdown,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Pull the cable: what is under way ends, what comes later fails at once.
    Cut {
        /// What becomes of the commands under way.
        #[arg(value_enum, default_value_t = Mode::Before)]
        mode: Mode,
    },
    /// End every fault of the path.
    Plug,
    /// Lose every frame: commands end at their timeout.
    Hang,
    /// Add to every command's time.
    Delay {
        /// Milliseconds; 0 ends it.
        milliseconds: u32,
    },
    /// Answer with this sense.
    Sense {
        /// Key/ASC/ASCQ in hexadecimal, such as 02/04/0b.
        #[arg(value_parser = checked_sense)]
        code: String,
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// End with this host byte.
    HostByte {
        /// Its number, or its name without DID_, such as no-connect.
        #[arg(value_parser = checked_host)]
        host: u8,
        /// So many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer BUSY.
    Busy {
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer TASK SET FULL.
    TaskSetFull {
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Make blocks of the unit bad: 03/11/00 for reads, 03/0c/00 for writes.
    MediumError {
        /// The first.
        lba: u64,
        /// How many.
        #[arg(default_value_t = 1)]
        blocks: u64,
    },
    /// Make the unit's bad blocks good again.
    Mend,
    /// Change the access state of the path's target port group.
    Alua {
        /// The new state.
        #[arg(value_parser = access_states())]
        state: String,
        /// Be in transition for so long before.
        #[arg(default_value_t = 0)]
        milliseconds: u32,
    },
    /// Mark the path's target port group as preferred.
    Prefer {
        /// Or no longer.
        #[arg(default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
        preferred: bool,
    },
    /// Reset the unit: every command of every path ends, not executed.
    LuReset,
    /// Lead the path to another unit, until plugged.
    Remap,
    /// Lead the path to no unit, until plugged.
    UnmapLun,
    /// Make the unit, and its image, larger or smaller.
    Capacity {
        /// Such as 2G, or `grow`: to twice what it is.
        #[arg(value_parser = checked_capacity)]
        size: Capacity,
    },
}

/// A new capacity in bytes; none: it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Capacity(Option<u64>);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// They were not executed.
    Before,
    /// They were executed, their status is lost.
    StatusLost,
    /// Half the blocks of writes were written.
    Half,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Before => "before",
            Mode::StatusLost => "status-lost",
            Mode::Half => "half",
        }
    }
}

fn checked_sense(text: &str) -> Result<String, String> {
    let words = "give key, ASC and ASCQ in hexadecimal, such as 02/04/0b";
    parse_sense(text).map(|_| text.to_owned()).ok_or_else(|| words.to_owned())
}

/// `no-connect`, `DID_NO_CONNECT`, `1` or `0x1`.
fn checked_host(text: &str) -> Result<u8, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let name = text.to_ascii_uppercase().replace('-', "_");
    let named = || {
        let is_it = |known: &str| known == name || known.strip_prefix("DID_") == Some(&name);
        HostByte::NAMES.iter().find(|(_, known)| is_it(known)).map(|(host, _)| host.0)
    };
    number.or_else(named).ok_or_else(|| "give a number or a name such as no-connect".to_owned())
}

fn access_states() -> PossibleValuesParser {
    PossibleValuesParser::new(ACCESS_STATES.map(|(_, name)| name))
}

fn checked_capacity(text: &str) -> Result<Capacity, String> {
    if text == "grow" {
        return Ok(Capacity(None));
    }
    parse_size(text).map(|bytes| Capacity(Some(bytes))).map_err(|error| error.to_string())
}

/// Runs one verb.
pub fn main(ctl: &Ctl) -> ExitCode {
    match run(ctl) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has read enough.
        Err(CtlError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "vhost-mpath ctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(ctl: &Ctl) -> Result<(), CtlError> {
    if let Verb::Show(what) = &ctl.verb {
        if let Some(text) = show::offline(what) {
            return print(&text);
        }
    }
    let socket = ctl.control.as_deref().ok_or(CtlError::NoSocketGiven)?;
    let mut daemon = Connection::open(socket)?;
    let json = ctl.json;
    match &ctl.verb {
        Verb::Show(what) => show::show(&mut daemon, what, json),
        Verb::Fail(path) => change(&mut daemon, json, "path-fail", &json!({ "path": path.name() })),
        Verb::Reinstate(path) => verbs::reinstate(&mut daemon, json, path.name()),
        Verb::Add(what) => verbs::add(&mut daemon, json, what),
        Verb::Del(what) => verbs::del(&mut daemon, json, what),
        Verb::Switch(what) => verbs::switch(&mut daemon, json, what),
        Verb::DisableQueueing(maps) => verbs::queueing(&mut daemon, json, maps, false),
        Verb::RestoreQueueing(maps) => verbs::queueing(&mut daemon, json, maps, true),
        Verb::SetMarginal(path) => {
            let arguments = json!({ "path": path.name(), "marginal": true });
            change(&mut daemon, json, "path-marginal", &arguments)
        }
        Verb::UnsetMarginal(what) => verbs::unset_marginal(&mut daemon, json, what),
        Verb::Set(what) => verbs::set(&mut daemon, json, what),
        Verb::Sim { path, fault } => {
            change(&mut daemon, json, "sim-fault", &fault_arguments(path, fault))
        }
        Verb::Events => show::follow(&mut daemon, json),
        Verb::Shutdown => change(&mut daemon, json, "quit", &json!({})),
    }
}

fn change(
    daemon: &mut Connection,
    json: bool,
    command: &str,
    arguments: &Value,
) -> Result<(), CtlError> {
    let answer = daemon.ask(command, arguments)?;
    say(json, &answer, "ok")
}

fn fault_arguments(path: &str, fault: &Fault) -> Value {
    let mut arguments = match fault {
        Fault::Cut { mode } => json!({ "fault": "cut", "mode": mode.name() }),
        Fault::Plug => json!({ "fault": "plug" }),
        Fault::Hang => json!({ "fault": "hang" }),
        Fault::Delay { milliseconds } => json!({ "fault": "delay", "milliseconds": milliseconds }),
        Fault::Sense { code, count } => json!({ "fault": "sense", "sense": code, "count": count }),
        Fault::HostByte { host, count } => {
            json!({ "fault": "host-byte", "host": host, "count": count })
        }
        Fault::Busy { count } => json!({ "fault": "busy", "count": count }),
        Fault::TaskSetFull { count } => json!({ "fault": "task-set-full", "count": count }),
        Fault::MediumError { lba, blocks } => {
            json!({ "fault": "medium-error", "lba": lba, "blocks": blocks })
        }
        Fault::Mend => json!({ "fault": "mend" }),
        Fault::Alua { state, milliseconds } => {
            json!({ "fault": "alua", "state": state, "milliseconds": milliseconds })
        }
        Fault::Prefer { preferred } => json!({ "fault": "prefer", "preferred": preferred }),
        Fault::LuReset => json!({ "fault": "lu-reset" }),
        Fault::Remap => json!({ "fault": "remap" }),
        Fault::UnmapLun => json!({ "fault": "unmap-lun" }),
        Fault::Capacity { size: Capacity(None) } => json!({ "fault": "capacity" }),
        Fault::Capacity { size: Capacity(Some(bytes)) } => {
            json!({ "fault": "capacity", "bytes": bytes })
        }
    };
    arguments["path"] = json!(path);
    arguments
}

fn say(json: bool, answer: &Value, text: &str) -> Result<(), CtlError> {
    if json { print_json(answer) } else { print(&format!("{text}\n")) }
}

fn print_json(value: &Value) -> Result<(), CtlError> {
    print(&format!("{value:#}\n"))
}

/// Not `println!`, which panics when nobody reads.
fn print(text: &str) -> Result<(), CtlError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CtlError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_become_the_daemons_arguments() {
        let sense = Fault::Sense { code: "03/11/00".to_owned(), count: 2 };
        assert_eq!(
            fault_arguments("sim0", &sense),
            json!({ "path": "sim0", "fault": "sense", "sense": "03/11/00", "count": 2 })
        );
        let cut = Fault::Cut { mode: Mode::StatusLost };
        assert_eq!(fault_arguments("sim0", &cut)["mode"], "status-lost");
        let grow = Fault::Capacity { size: checked_capacity("grow").unwrap() };
        assert_eq!(fault_arguments("sim0", &grow), json!({ "path": "sim0", "fault": "capacity" }));
    }

    #[test]
    fn faults_are_read_as_they_are_documented() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(subcommand)]
            fault: Fault,
        }
        let given = |words: &str| {
            let line = <Line as clap::Parser>::try_parse_from(
                std::iter::once("sim").chain(words.split_whitespace()),
            );
            line.map(|line| fault_arguments("p", &line.fault)).map_err(|e| e.to_string())
        };
        for (words, wanted) in [
            ("host-byte no-connect", json!({ "fault": "host-byte", "host": 1, "count": 1 })),
            ("host-byte 0x0e 0", json!({ "fault": "host-byte", "host": 14, "count": 0 })),
            ("busy 3", json!({ "fault": "busy", "count": 3 })),
            ("task-set-full", json!({ "fault": "task-set-full", "count": 1 })),
            ("medium-error 7 2", json!({ "fault": "medium-error", "lba": 7, "blocks": 2 })),
            ("alua standby 50", json!({ "fault": "alua", "state": "standby", "milliseconds": 50 })),
            ("prefer", json!({ "fault": "prefer", "preferred": true })),
            ("prefer false", json!({ "fault": "prefer", "preferred": false })),
            ("capacity 1M", json!({ "fault": "capacity", "bytes": 1 << 20 })),
        ] {
            let mut wanted = wanted;
            wanted["path"] = json!("p");
            assert_eq!(given(words), Ok(wanted));
        }
        assert!(given("alua up").unwrap_err().contains("active-non-optimized"));
        assert!(given("host-byte maybe").unwrap_err().contains("no-connect"));
        assert!(given("capacity much").unwrap_err().contains("is no size"));
    }
}
