//! `vhost-mpath ctl`: multipathd's verbs, spoken as QMP to a running daemon.
//!
//! A process of its own; knows the daemon by its control socket only. What it
//! prints is rendered by [`topology`](super::topology) from the daemon's data,
//! or handed on as JSON.

mod connection;
mod reservations;
mod scenario;
mod show;
mod sim;
mod verbs;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use connection::Connection;
use reservations::{SetKey, What};
use show::Show;
use sim::{Fault, fault_arguments};
use verbs::{Add, Del, Maps, OneMap, OnePath, PathOrMap, Set, Switch};

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
  vhost-mpath ctl --control /run/disk.ctl resize map logs
  vhost-mpath ctl --control /run/disk.ctl show reservations
  vhost-mpath ctl --control /run/disk.ctl getprkey map logs
  vhost-mpath ctl --control /run/disk.ctl sim sim0 cut status-lost
  vhost-mpath ctl --control /run/disk.ctl sim sim0 sense 03/11/00 1
  vhost-mpath ctl --control /run/disk.ctl sim sim0 alua standby 2000
  vhost-mpath ctl --control /run/disk.ctl sim sim0 capacity 2G
  vhost-mpath ctl --control /run/disk.ctl scenario scenarios/controller-failover.scenario
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
    /// Move I/O to a path group, where it stays until paths come or go or priorities change.
    #[command(subcommand, visible_alias = "switchgroup")]
    Switch(Switch),
    /// Have every path read the LU's size: for an array that does not tell of a change.
    #[command(subcommand)]
    Resize(OneMap),
    /// Fail requests at once while no path is left, whatever no_path_retry says.
    #[command(subcommand, name = "disablequeueing")]
    DisableQueueing(Maps),
    /// Lift `disablequeueing`.
    #[command(subcommand, name = "restorequeueing")]
    RestoreQueueing(Maps),
    /// Call a path unreliable until `unsetmarginal`: it is used last, or while no other is left only.
    #[command(subcommand, name = "setmarginal")]
    SetMarginal(OnePath),
    /// Call a path, or all of a map, reliable again.
    #[command(subcommand, name = "unsetmarginal")]
    UnsetMarginal(PathOrMap),
    /// Change a setting of a running map; it lasts as long as the daemon.
    #[command(subcommand)]
    Set(Set),
    /// Print the reservation key that the guest of a map has registered, or none.
    #[command(subcommand, name = "getprkey")]
    GetPrKey(OneMap),
    /// Tell the daemon which key the guest has registered; the array is asked whether it is so.
    #[command(subcommand, name = "setprkey")]
    SetPrKey(SetKey),
    /// Forget the key: no path is registered any more by us; what the array has stays.
    #[command(subcommand, name = "unsetprkey", visible_alias = "unsetprstatus")]
    UnsetPrKey(OneMap),
    /// Ask the array again what the guest has registered and holds: a flag that could be set by hand, as multipathd has, there is not.
    #[command(subcommand, name = "setprstatus", visible_aliases = ["setprhold", "unsetprhold"])]
    SetPrStatus(OneMap),
    /// Print whether the guest of a map has a key registered: set, unset or unknown.
    #[command(subcommand, name = "getprstatus")]
    GetPrStatus(OneMap),
    /// Print whether the guest of a map holds a reservation: set, unset or unknown.
    #[command(subcommand, name = "getprhold")]
    GetPrHold(OneMap),
    /// Break or mend a simulated path, or what it leads to.
    Sim {
        /// Name of the path.
        path: String,
        #[command(subcommand)]
        fault: Fault,
    },
    /// Replay an outage that was written down, against the simulated array: see scenarios/.
    Scenario {
        /// Times, paths and faults.
        file: PathBuf,
    },
    /// Print what happens, as it happens.
    Events,
    /// End the daemon, as SIGTERM does.
    #[command(visible_alias = "quit")]
    Shutdown,
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
    let outage = match &ctl.verb {
        Verb::Scenario { file } => Some(scenario::read(file)?),
        _ => None,
    };
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
        Verb::Resize(what) => verbs::resize(&mut daemon, json, what),
        Verb::DisableQueueing(maps) => verbs::queueing(&mut daemon, json, maps, false),
        Verb::RestoreQueueing(maps) => verbs::queueing(&mut daemon, json, maps, true),
        Verb::SetMarginal(path) => {
            let arguments = json!({ "path": path.name(), "marginal": true });
            change(&mut daemon, json, "path-marginal", &arguments)
        }
        Verb::UnsetMarginal(what) => verbs::unset_marginal(&mut daemon, json, what),
        Verb::Set(what) => verbs::set(&mut daemon, json, what),
        Verb::GetPrKey(map) => reservations::get(&mut daemon, json, map, What::Key),
        Verb::SetPrKey(what) => reservations::set(&mut daemon, json, what),
        Verb::UnsetPrKey(map) => reservations::unset(&mut daemon, json, map),
        Verb::SetPrStatus(map) => reservations::ask_again(&mut daemon, json, map),
        Verb::GetPrStatus(map) => reservations::get(&mut daemon, json, map, What::Status),
        Verb::GetPrHold(map) => reservations::get(&mut daemon, json, map, What::Hold),
        Verb::Sim { path, fault } => {
            change(&mut daemon, json, "sim-fault", &fault_arguments(path, fault))
        }
        Verb::Scenario { .. } => match &outage {
            Some(outage) => scenario::replay(&mut daemon, outage, json),
            None => Ok(()),
        },
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
