//! Administrators' commands: what each QMP command does.
//!
//! A command whose effect takes time (a table to be acknowledged by every
//! queue thread, a path to be opened, checked or closed) is answered when it
//! is done; meanwhile the control thread goes on.

mod luns;
mod policy;
mod reservations;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::lun::Address;
use super::mailbox::Mail;
use super::map::Map;
use super::maps::LunError;
use super::opening::{Arrival, open_one};
use super::qmp::{self, Answer, ClientId, QmpError, Request};
use super::sim_fault::SimFault;
use super::status::{DaemonStatus, MapStatus, Maps};
use crate::host::{OpenError, PathSpec};
use crate::io::{MapSlot, Time};
use crate::mpath::MapError;
use crate::mpath::snapshot::PathId;
use crate::sim::NotInjected;

/// Queue threads acknowledge within microseconds, unless something is broken.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// How long `path-remove` waits for the file to be closed.
const CLOSE: Duration = Duration::from_secs(2);
/// How long `path-reinstate` waits for check and proof.
const REINSTATE: Duration = Duration::from_secs(5);
/// Paths being opened at once.
const MAX_OPENING: usize = 8;

/// What a client waits for.
#[derive(Debug)]
enum Wait {
    /// Every queue thread works by this table.
    Acknowledged(MapSlot, u64),
    /// The same of several maps.
    AllAcknowledged(Vec<(MapSlot, u64)>),
    /// As the first; answered with the group in use.
    Switched(MapSlot, u64),
    /// As above, and the file is closed.
    Removed { map: MapSlot, generation: u64, path: PathId },
    /// Every path in use has read the LU's size.
    Sized(MapSlot),
    /// Check and proof are done.
    Reinstated(MapSlot, PathId),
    /// The path, or the LU, is open.
    Opening(u64),
    /// The map has gone.
    LunRemoved(MapSlot),
    /// The array has said whether a key is the guest's.
    Recalled(MapSlot),
}

/// A path or an LU that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    ticket: u64,
    /// Where an LU is to appear: nobody else gets the place.
    addresses: Vec<Address>,
}

/// A command whose answer is not due yet.
#[derive(Debug)]
pub(super) struct Pending {
    client: ClientId,
    wait: Wait,
    /// Answered then at the latest.
    pub(super) deadline: Time,
}

enum Reply {
    Now(Value),
    Later { wait: Wait, patience: Duration },
}

type Done = Result<Reply, QmpError>;

/// What a command does with its arguments.
type Deed = fn(&mut Daemon, Value) -> Done;

/// Name and deed of every command.
const COMMANDS: &[(&str, Deed)] = &[
    ("lun-add", Daemon::lun_add),
    ("lun-remove", Daemon::lun_remove),
    ("map-ask-reservations", Daemon::map_ask_reservations),
    ("map-queueing", Daemon::map_queueing),
    ("map-resize", Daemon::map_resize),
    ("map-set", Daemon::map_set),
    ("map-set-key", Daemon::map_set_key),
    ("map-switch-group", Daemon::map_switch_group),
    ("map-unset-key", Daemon::map_unset_key),
    ("path-add", Daemon::path_add),
    ("path-fail", Daemon::path_fail),
    ("path-marginal", Daemon::path_marginal),
    ("path-reinstate", Daemon::path_reinstate),
    ("path-remove", Daemon::path_remove),
    ("query-commands", Daemon::query_commands),
    ("query-devices", Daemon::query_devices),
    ("query-luns", Daemon::query_luns),
    ("query-maps", Daemon::query_maps),
    ("query-paths", Daemon::query_paths),
    ("query-reservations", Daemon::query_reservations),
    ("query-status", Daemon::query_status),
    ("query-version", Daemon::query_version),
    ("quit", Daemon::quit),
    ("sim-fault", Daemon::sim_fault),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnePath {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    spec: String,
    /// Name or address; without it the only map.
    map: Option<String>,
}

impl From<LunError> for QmpError {
    fn from(error: LunError) -> QmpError {
        QmpError::generic(error.to_string())
    }
}

impl From<MapError> for QmpError {
    fn from(error: MapError) -> QmpError {
        QmpError::generic(error.to_string())
    }
}

fn arguments<T: DeserializeOwned>(given: Value) -> Result<T, QmpError> {
    serde_json::from_value(given)
        .map_err(|error| QmpError::generic(format!("wrong arguments: {error}")))
}

impl Daemon {
    /// Serves the control socket as far as that goes without waiting.
    pub(super) fn serve_administrators(&mut self) {
        let Some(control) = &mut self.control else { return };
        control.receive();
        self.settle_pending();
        while let Some(request) = self.control.as_mut().and_then(qmp::Server::next_request) {
            self.carry_out(request);
            self.settle_pending();
        }
        if let Some(control) = &mut self.control {
            control.send();
        }
    }

    fn carry_out(&mut self, request: Request) {
        let Request { client, command, arguments } = request;
        let deed = COMMANDS.iter().find(|(name, _)| *name == command).map(|(_, deed)| deed);
        let done = match deed {
            None => Err(QmpError::not_found(format!("The command {command} has not been found"))),
            Some(deed) => deed(self, Value::Object(arguments)),
        };
        // Events of a command come before its answer.
        self.tell_changes();
        match done {
            Ok(Reply::Later { wait, patience }) => {
                let deadline = self.clock.now() + patience;
                self.pending.push(Pending { client, wait, deadline });
            }
            Ok(Reply::Now(value)) => self.answer(client, Ok(value)),
            Err(error) => self.answer(client, Err(error)),
        }
    }

    fn answer(&mut self, client: ClientId, answer: Answer) {
        if let Some(control) = &mut self.control {
            control.answer(client, answer);
        }
    }

    /// Answers those whose wait is over.
    fn settle_pending(&mut self) {
        let now = self.clock.now();
        for pending in std::mem::take(&mut self.pending) {
            match self.look_at(now, &pending) {
                Some(answer) => self.answer(pending.client, answer),
                None => self.pending.push(pending),
            }
        }
    }

    fn look_at(&self, now: Time, pending: &Pending) -> Option<Answer> {
        let late = pending.deadline <= now;
        let deaf = || {
            Err(QmpError::generic(
                "done, but not every queue thread has acknowledged it: one of them hangs",
            ))
        };
        match &pending.wait {
            Wait::AllAcknowledged(tables) => {
                let done = tables.iter().all(|(slot, table)| self.acknowledged(*slot, *table));
                if done { Some(Ok(json!({}))) } else { late.then(deaf) }
            }
            Wait::Switched(slot, generation) if self.acknowledged(*slot, *generation) => {
                let group = self.maps.get(*slot).and_then(Map::group_in_use);
                Some(Ok(json!({ "group": group })))
            }
            Wait::Switched(..) => late.then(deaf),
            &Wait::Acknowledged(slot, generation) => match self.acknowledged(slot, generation) {
                true => Some(Ok(json!({}))),
                false => late.then(deaf),
            },
            &Wait::Removed { map, generation, path } => {
                let open = self.maps.get(map).is_some_and(|map| map.is_open(path));
                match self.acknowledged(map, generation) {
                    true if !open || late => Some(Ok(json!({ "closed": !open }))),
                    _ => late.then(deaf),
                }
            }
            &Wait::Sized(slot) => {
                let Some(map) = self.maps.get(slot) else {
                    return Some(Err(QmpError::generic("the map has gone meanwhile")));
                };
                let (left, (size, shown)) = (map.engine.being_proven(), map.sizes());
                let sizes = json!({ "size": size, "guest-size": shown, "asking": left });
                (left == 0 || late).then_some(Ok(sizes))
            }
            &Wait::Reinstated(map, id) => {
                let Some(path) = self.maps.get(map).and_then(|map| map.engine.path(id)) else {
                    return Some(Err(QmpError::generic("the path has left the map meanwhile")));
                };
                let over = path.is_usable() || !path.is_being_checked() || late;
                over.then(|| {
                    let cause = path.last_cause.as_ref().map(super::events::cause_in_words);
                    Ok(json!({
                        "dm_st": path.dm_state(),
                        "chk_st": path.checker_state.name(),
                        "checking": path.is_being_checked(),
                        "last_cause": cause.filter(|_| !path.is_usable()),
                    }))
                })
            }
            &Wait::LunRemoved(slot) => self.is_lun_gone(slot, late),
            &Wait::Recalled(slot) => self.is_recalled(slot, late),
            Wait::Opening(_) => late.then(|| {
                Err(QmpError::generic("opening the path takes long; it joins if it succeeds"))
            }),
        }
    }

    /// Whether every queue thread works by this table; a map that has gone has
    /// no table to wait for.
    fn acknowledged(&self, map: MapSlot, generation: u64) -> bool {
        self.maps.get(map).is_none_or(|map| map.is_leaving() || map.acknowledged(generation))
    }

    // --- queries ----------------------------------------------------------------

    fn query_commands(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        let names = COMMANDS.iter().map(|(name, _)| *name).chain(["qmp_capabilities"]);
        Ok(Reply::Now(names.map(|name| json!({ "name": name })).collect()))
    }

    fn query_devices(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        Ok(Reply::Now(json!(self.devices_status())))
    }

    fn query_version(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        Ok(Reply::Now(qmp::version()))
    }

    fn query_maps(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        Ok(Reply::Now(json!(Maps { major_version: 0, minor_version: 1, maps: self.all_maps() })))
    }

    fn query_paths(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        let groups = self.all_maps().into_iter().flat_map(|map| map.path_groups);
        let paths: Vec<_> = groups.flat_map(|group| group.paths).collect();
        Ok(Reply::Now(json!(paths)))
    }

    fn query_status(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        let mut checker_states = BTreeMap::new();
        let (mut paths, mut usable) = (0, 0);
        let maps = self.maps.in_order();
        for (states, all, good) in maps.iter().map(|map| map.counts()) {
            states.into_iter().for_each(|(s, n)| *checker_states.entry(s).or_default() += n);
            (paths, usable) = (paths + all, usable + good);
        }
        Ok(Reply::Now(json!(DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.clock.now().since(Time(0)).as_secs_f64(),
            maps: maps.iter().map(|map| map.name.clone()).collect(),
            socket: self.socket.clone(),
            front_end: self.front_end,
            queue_threads: self.queues.threads(),
            stopping: self.is_stopping(),
            checker_states,
            paths,
            usable,
        })))
    }

    fn all_maps(&self) -> Vec<MapStatus> {
        let now = self.clock.now();
        self.maps.in_order().iter().map(|map| map.status(now, self.front_end)).collect()
    }

    // --- paths ------------------------------------------------------------------

    fn path_fail(&mut self, given: Value) -> Done {
        let OnePath { path } = arguments(given)?;
        let (now, map) = (self.clock.now(), self.maps.with_path(&path)?);
        let (slot, generation) = (map.slot, map.fail_path(now, &path)?);
        Ok(Reply::Later { wait: Wait::Acknowledged(slot, generation), patience: ACKNOWLEDGE })
    }

    fn path_reinstate(&mut self, given: Value) -> Done {
        let OnePath { path } = arguments(given)?;
        let (now, map) = (self.clock.now(), self.maps.with_path(&path)?);
        let (slot, id) = (map.slot, map.reinstate_path(now, &path)?);
        Ok(Reply::Later { wait: Wait::Reinstated(slot, id), patience: REINSTATE })
    }

    fn path_remove(&mut self, given: Value) -> Done {
        let OnePath { path } = arguments(given)?;
        let (now, map) = (self.clock.now(), self.maps.with_path(&path)?);
        let slot = map.slot;
        let (path, generation) = map.remove_path(now, &path)?;
        let device = map.scsi_paths().into_iter().find(|device| device.id == path);
        if let Some(device) = device {
            self.leave_out(&device);
        }
        Ok(Reply::Later { wait: Wait::Removed { map: slot, generation, path }, patience: CLOSE })
    }

    fn path_add(&mut self, given: Value) -> Done {
        let Add { spec, map } = arguments(given)?;
        let spec: PathSpec =
            spec.parse().map_err(|e: crate::host::SpecError| QmpError::generic(e.to_string()))?;
        let slot = self.maps.named(map.as_deref())?;
        let map = self.maps.get(slot);
        let options = map.map_or(self.open, |map| map.options(self.open));
        let policy = map.map_or_else(|| self.policy.clone(), Map::policy);
        let post = self.mailbox.sender().of(slot);
        self.open_aside(Vec::new(), move |ticket| {
            post.send(Mail::Opened { ticket, result: open_one(&spec, &options, &policy) });
        })
    }

    /// Opens something on a thread of its own, which sends the ticket back.
    fn open_aside(
        &mut self,
        addresses: Vec<Address>,
        open: impl FnOnce(u64) + Send + 'static,
    ) -> Done {
        let opening = self.opening.len();
        if opening >= MAX_OPENING {
            let desc = format!("{opening} paths are being opened already; wait for them");
            return Err(QmpError::generic(desc));
        }
        if self.is_stopping() {
            return Err(QmpError::generic("the daemon is stopping"));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        std::thread::Builder::new()
            .name("open".to_owned())
            .spawn(move || open(ticket))
            .map_err(|error| QmpError::generic(format!("cannot start a thread: {error}")))?;
        self.opening.push(Opening { ticket, addresses });
        let patience = self.open.command_timeout * 8;
        Ok(Reply::Later { wait: Wait::Opening(ticket), patience })
    }

    /// Answers whoever waits for something to be opened.
    fn opening_is_over(&mut self, ticket: u64, answer: Answer) {
        self.opening.retain(|opening| opening.ticket != ticket);
        let waits = |p: &Pending| matches!(p.wait, Wait::Opening(t) if t == ticket);
        let Some(index) = self.pending.iter().position(waits) else { return };
        let client = self.pending.swap_remove(index).client;
        self.answer(client, answer);
    }

    /// A path to be added was opened, or not.
    pub(super) fn opened(&mut self, map: MapSlot, ticket: u64, result: Result<Arrival, OpenError>) {
        let now = self.clock.now();
        self.look_again = true;
        let joined = result.map_err(|error| error.to_string()).and_then(|path| {
            self.added_by_hand(&path)?;
            let map = self.maps.get_mut(map).ok_or("the map has gone meanwhile")?;
            let id = map.join(now, &path).map_err(|e| e.to_string())?;
            let handle = &path.handle;
            log::debug!("path {} is {id} of {}", handle.name(), map.name);
            Ok(handle.name().to_owned())
        });
        self.tell_changes();
        let answer =
            joined.map(|name| json!({ "path": name })).map_err(|e: String| QmpError::generic(e));
        self.opening_is_over(ticket, answer);
    }

    // --- the rest ---------------------------------------------------------------

    fn sim_fault(&mut self, given: Value) -> Done {
        let words = fault_in_words(&given);
        let given: SimFault = arguments(given)?;
        let fault = given.fault()?;
        let path = self.maps.with_path(&given.path)?.open_path(&given.path)?;
        let refused = |error: NotInjected| QmpError::generic(error.to_string());
        if !path.try_inject(fault).map_err(refused)? {
            let desc =
                format!("path {} is not simulated; only sim: paths can be broken", given.path);
            return Err(QmpError::generic(desc));
        }
        log::info!("path {}: simulated: {words}", given.path);
        Ok(Reply::Now(json!({})))
    }

    fn quit(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        self.stop(0, "quit");
        Ok(Reply::Now(json!({})))
    }
}

/// What `sim-fault` was given: `cut`, `delay, milliseconds=5`.
fn fault_in_words(given: &Value) -> String {
    let mut words = Vec::new();
    words.extend(given["fault"].as_str().map(str::to_owned));
    for (name, value) in given.as_object().into_iter().flatten() {
        match value {
            _ if name == "fault" || name == "path" => {}
            Value::String(value) => words.push(format!("{name}={value}")),
            value => words.push(format!("{name}={value}")),
        }
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_was_simulated_with_its_arguments() {
        let said = fault_in_words(&json!({
            "path": "sim0", "fault": "reservation", "action": "preempt", "key": "0xab",
            "initiator": 1
        }));
        assert_eq!(said, "reservation, action=preempt, initiator=1, key=0xab");
    }

    #[test]
    fn the_command_table_is_sorted_and_has_no_doubles() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
