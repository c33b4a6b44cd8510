//! The target side of the I_T nexuses: ports, target port groups and their
//! asymmetric access states (SPC-5 5.18), REPORT and SET TARGET PORT GROUPS
//! (SPC-5 6.37, 6.45).
//!
//! A group has one state for every LU of the array, on which an LU with an
//! owner (`owner`) improves. Knows no task.

use std::collections::BTreeMap;
use std::time::Duration;

use super::NexusId;
use super::answer::{Answer, Call, Effect, Outcome, wrong_field, wrong_parameter};
use super::fault::Upgrade;
use super::lu::Lu;
use crate::io::Time;
use crate::scsi::alua::{self, AccessState, TargetPortGroup, supports};
use crate::scsi::sense::{Key, SenseCode};

/// Target port group of a path that says nothing else.
pub(super) const DEFAULT_GROUP: u16 = 1;

/// Every state a group can be in, and its word in commands (SPC-5 5.18.2).
pub const ACCESS_STATES: [(AccessState, &str); 6] = [
    (AccessState::ActiveOptimized, "active-optimized"),
    (AccessState::ActiveNonOptimized, "active-non-optimized"),
    (AccessState::Standby, "standby"),
    (AccessState::Unavailable, "unavailable"),
    (AccessState::Offline, "offline"),
    (AccessState::Transitioning, "transitioning"),
];

/// What [`ACCESS_STATES`] says to RTPG.
const SUPPORTED: u8 = supports::ACTIVE_OPTIMIZED
    | supports::ACTIVE_NON_OPTIMIZED
    | supports::STANDBY
    | supports::UNAVAILABLE
    | supports::OFFLINE
    | supports::TRANSITIONING;

/// A state that SET TARGET PORT GROUPS may ask for.
fn settable(bits: u8) -> Option<AccessState> {
    use AccessState::{ActiveNonOptimized, ActiveOptimized, Standby, Unavailable};
    let state = AccessState::from_bits(bits);
    [ActiveOptimized, ActiveNonOptimized, Standby, Unavailable].contains(&state).then_some(state)
}

/// SET TARGET PORT GROUPS COMMAND FAILED.
const NOT_SET: SenseCode = SenseCode::new(Key::HardwareError, 0x67, 0x0a);

/// In which access states a command is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// In all.
    Always,
    /// In all but transitioning.
    Settled,
    /// In the active ones and in standby.
    Standby,
    /// In the active ones.
    Active,
}

impl Served {
    /// What the command is refused with in `state`.
    pub(super) fn refusal(self, state: AccessState) -> Option<SenseCode> {
        match (self, state) {
            (Served::Always, _) | (Served::Standby, AccessState::Standby) => None,
            (_, AccessState::Transitioning) => Some(SenseCode::NOT_READY_TRANSITIONING),
            (Served::Settled, _) => None,
            (_, AccessState::Standby) => Some(SenseCode::NOT_READY_STANDBY),
            (_, AccessState::Unavailable) => Some(SenseCode::NOT_READY_UNAVAILABLE),
            (_, AccessState::Offline) => Some(SenseCode::NOT_READY_OFFLINE),
            // The active ones.
            _ => None,
        }
    }
}

/// STATUS CODE of RTPG: why a state was last entered.
#[derive(Clone, Copy, Debug, Default)]
#[repr(u8)]
enum Why {
    #[default]
    None = 0,
    Explicit = 1,
    Implicit = 2,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    state: AccessState,
    preferred: bool,
    why: Why,
    /// What follows [`AccessState::Transitioning`].
    next: Option<Next>,
    /// Its controller is down: nothing comes through its ports.
    down: bool,
}

/// The end of a transition.
#[derive(Clone, Copy, Debug)]
struct Next {
    at: Time,
    state: AccessState,
    why: Why,
    /// The array wanted another state than the one it goes back to.
    failed: bool,
    /// Who asked for it.
    by: Option<NexusId>,
}

/// A transition that has ended; everybody is told but who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) failed: bool,
    pub(super) by: Option<NexusId>,
}

impl Default for Group {
    fn default() -> Group {
        let state = AccessState::ActiveOptimized;
        Group { state, preferred: false, why: Why::None, next: None, down: false }
    }
}

/// A port already belongs to another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target port {port} is in target port group {group} already")]
pub struct PortConflict {
    /// Relative target port identifier.
    pub port: u16,
    /// Its target port group.
    pub group: u16,
}

struct Port {
    group: u16,
    nexuses: u32,
}

/// The target device: what all LUs have in common.
pub(super) struct Target {
    /// NAA 5 name, without a port's number.
    name: u64,
    ports: BTreeMap<u16, Port>,
    /// Ports without a nexus, and which path was the last to have them.
    left: BTreeMap<u16, String>,
    groups: BTreeMap<u16, Group>,
    /// How long the array takes for a change that an initiator asked for.
    pub(super) transition: Duration,
    /// What it is doing besides, and until when.
    pub(super) upgrade: Option<(Upgrade, Time)>,
}

impl Target {
    /// A target that takes its name from a LU's.
    pub(super) fn new(lu: &[u8; 16]) -> Target {
        let lu = u128::from_be_bytes(*lu);
        // The company id of the LU; of the rest, what tells arrays apart.
        let company = u64::try_from(lu >> 100 & 0x00ff_ffff).unwrap_or(0);
        let low = u64::try_from((lu ^ lu >> 20 ^ lu >> 40) & 0xf_ffff).unwrap_or(0);
        let name = 5 << 60 | company << 36 | low << 16;
        Target {
            name,
            ports: BTreeMap::new(),
            left: BTreeMap::new(),
            groups: BTreeMap::new(),
            transition: Duration::ZERO,
            upgrade: None,
        }
    }

    /// NAA designator of a port.
    pub(super) fn port_name(&self, port: u16) -> [u8; 8] {
        (self.name | u64::from(port)).to_be_bytes()
    }

    /// The first port from `from` on that is nobody's.
    pub(super) fn free_port(&self, from: u16) -> u16 {
        (from.max(1)..=u16::MAX).find(|port| !self.ports.contains_key(port)).unwrap_or(from.max(1))
    }

    /// The port of a path that says nothing: the one it had, as a path of this
    /// name, else the first from `from` on that is nobody's.
    pub(super) fn port_for(&self, name: &str, from: u16) -> u16 {
        let had = self.left.iter().find(|(_, last)| *last == name).map(|(port, _)| *port);
        had.unwrap_or_else(|| self.free_port(from))
    }

    /// Every port, ascending.
    pub(super) fn port_ids(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// A further nexus through `port`.
    pub(super) fn join(&mut self, port: u16, group: Option<u16>) -> Result<(), PortConflict> {
        let there = self.ports.get(&port).map(|there| there.group);
        let group = group.or(there).unwrap_or(DEFAULT_GROUP);
        if let Some(there) = there.filter(|there| *there != group) {
            return Err(PortConflict { port, group: there });
        }
        self.ports.entry(port).or_insert(Port { group, nexuses: 0 }).nexuses += 1;
        self.left.remove(&port);
        self.groups.entry(group).or_default();
        Ok(())
    }

    /// The nexus of this name less. A group keeps its state for ports that come
    /// back, a port its registrations.
    pub(super) fn leave(&mut self, port: u16, name: String) {
        if let Some(there) = self.ports.get_mut(&port) {
            there.nexuses -= 1;
            if there.nexuses == 0 {
                self.ports.remove(&port);
                self.left.insert(port, name);
            }
        }
    }

    /// The group of a port.
    pub(super) fn group_of(&self, port: u16) -> u16 {
        self.ports.get(&port).map_or(DEFAULT_GROUP, |port| port.group)
    }

    /// The access state of a group, whoever owns an LU; unavailable if its
    /// controller is down.
    pub(super) fn state_of(&self, group: u16) -> AccessState {
        self.groups.get(&group).map_or(AccessState::ActiveOptimized, Group::shown)
    }

    /// [`Target::state_of`] and [`Target::is_down`] at once.
    pub(super) fn meets(&self, group: u16) -> (AccessState, bool) {
        let group = self.groups.get(&group);
        group.map_or((AccessState::ActiveOptimized, false), |group| (group.shown(), group.down))
    }

    /// Whether a group's controller is down.
    pub(super) fn is_down(&self, group: u16) -> bool {
        self.groups.get(&group).is_some_and(|group| group.down)
    }

    /// Groups with ports whose controller works, ascending.
    pub(super) fn working(&self) -> Vec<u16> {
        let has_ports = |id: u16| self.ports.values().any(|port| port.group == id);
        let working = self.groups.iter().filter(|(id, group)| !group.down && has_ports(**id));
        working.map(|(id, _)| *id).collect()
    }

    /// The other controller of a pair: the lowest group that is not this one.
    pub(super) fn other_than(&self, group: u16) -> u16 {
        self.groups.keys().copied().find(|id| *id != group).unwrap_or(group)
    }

    /// Takes a group's controller down; whether it was up.
    pub(super) fn take_down(&mut self, group: u16) -> bool {
        let group = self.groups.entry(group).or_default();
        // What it was changing to is forgotten.
        if let Some(next) = group.next.take() {
            group.state = next.state;
        }
        !std::mem::replace(&mut group.down, true)
    }

    /// Brings it up again, in `state`; whether it was down.
    pub(super) fn bring_up(&mut self, group: u16, state: AccessState) -> bool {
        let group = self.groups.entry(group).or_default();
        if std::mem::take(&mut group.down) {
            group.enter(state, Why::Implicit);
            return true;
        }
        false
    }

    /// The state a group had before its controller went down.
    pub(super) fn state_below(&self, group: u16) -> AccessState {
        self.groups.get(&group).map_or(AccessState::ActiveOptimized, |group| group.state)
    }

    /// Puts a group into a state at once; whether it is another one.
    pub(super) fn put(&mut self, group: u16, state: AccessState) -> bool {
        self.groups.entry(group).or_default().enter(state, Why::None)
    }

    pub(super) fn is_preferred(&self, group: u16) -> bool {
        self.groups.get(&group).is_some_and(|g| g.preferred)
    }

    pub(super) fn prefer(&mut self, group: u16, preferred: bool) -> bool {
        let group = self.groups.entry(group).or_default();
        std::mem::replace(&mut group.preferred, preferred) != preferred
    }

    /// The array changes a group's state on its own, after `transition`.
    /// Returns whether the new state is reached now and is another one.
    pub(super) fn implicit(
        &mut self,
        now: Time,
        group: u16,
        state: AccessState,
        transition: Duration,
    ) -> bool {
        let group = self.groups.entry(group).or_default();
        let next = Next { at: now, state, why: Why::Implicit, failed: false, by: None };
        group.change(transition, next)
    }

    /// The array tries to change a group's state on its own, and gives up
    /// after `transition`. Returns whether it has given up already.
    pub(super) fn fail(&mut self, now: Time, group: u16, transition: Duration) -> bool {
        let group = self.groups.entry(group).or_default();
        let state = group.next.map_or(group.state, |next| next.state);
        let next = Next { at: now, state, why: group.why, failed: true, by: None };
        group.change(transition, next);
        transition.is_zero()
    }

    /// As SET TARGET PORT GROUPS asks. Returns whether anything changed.
    pub(super) fn explicit(
        &mut self,
        now: Time,
        states: &[(u16, AccessState)],
        by: NexusId,
    ) -> bool {
        let transition = self.transition;
        states.iter().fold(false, |changed, (group, state)| {
            let group = self.groups.entry(*group).or_default();
            // What is so already takes no time.
            let transition = if group.state == *state { Duration::ZERO } else { transition };
            let why = Why::Explicit;
            let next = Next { at: now, state: *state, why, failed: false, by: Some(by) };
            group.change(transition, next) || changed
        })
    }

    /// When the next transition ends.
    pub(super) fn next_transition(&self) -> Option<Time> {
        self.groups.values().filter_map(|group| group.next.map(|next| next.at)).min()
    }

    /// Ends the transitions due by `now`.
    pub(super) fn end_transitions(&mut self, now: Time) -> Vec<Ended> {
        let mut ended = Vec::new();
        for group in self.groups.values_mut() {
            if let Some(next) = group.next.filter(|next| next.at <= now) {
                group.enter(next.state, next.why);
                ended.push(Ended { failed: next.failed, by: next.by });
            }
        }
        ended
    }

    /// Seconds for RTPG's IMPLICIT TRANSITION TIME; 0 = not stated.
    fn transition_seconds(&self) -> u8 {
        let seconds = self.transition.as_millis().div_ceil(1000);
        u8::try_from(seconds).unwrap_or(u8::MAX)
    }

    /// RTPG: every group that has ports, in the state it has for `lu`.
    fn report(&self, extended: bool, lu: &Lu) -> Vec<u8> {
        let ports = |of: u16| {
            let of_group = self.ports.iter().filter(move |(_, port)| port.group == of);
            of_group.map(|(id, _)| *id).collect::<Vec<_>>()
        };
        let groups = self.groups.iter().map(|(id, group)| TargetPortGroup {
            id: *id,
            state: lu.state(*id, group.shown()),
            preferred: group.preferred,
            supported: SUPPORTED,
            status_code: group.why as u8,
            ports: ports(*id),
        });
        let groups: Vec<_> = groups.filter(|group| !group.ports.is_empty()).collect();
        alua::encode(extended.then_some(self.transition_seconds()), &groups)
    }
}

impl Group {
    fn shown(&self) -> AccessState {
        if self.down { AccessState::Unavailable } else { self.state }
    }

    /// Enters a state, at once or by way of a transition; whether it has, and
    /// it is another one.
    fn change(&mut self, transition: Duration, next: Next) -> bool {
        if transition.is_zero() {
            return self.enter(next.state, next.why);
        }
        self.state = AccessState::Transitioning;
        self.next = Some(Next { at: next.at + transition, ..next });
        false
    }

    fn enter(&mut self, state: AccessState, why: Why) -> bool {
        let changed = self.state != state;
        *self = Group { state, why, next: None, ..*self };
        changed
    }
}

impl Lu {
    /// REPORT TARGET PORT GROUPS.
    pub(super) fn report_target_port_groups(&mut self, call: &Call<'_>) -> Outcome {
        let extended = match call.byte(1) >> 5 {
            0 => false,
            1 => true,
            _ => return Err(wrong_field(1, Some(7))),
        };
        let data = call.target.report(extended, self);
        Ok(Answer::data(data, call.length_32(6)))
    }

    /// SET TARGET PORT GROUPS: all or nothing.
    pub(super) fn set_target_port_groups(&mut self, call: &Call<'_>) -> Outcome {
        let len = call.length_32(6);
        let list = call.announced(len)?;
        if list.is_empty() {
            return Ok(Answer::taken(0));
        }
        if len < 4 || len % 4 != 0 {
            return Err(SenseCode::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let mut states = Vec::new();
        for (index, descriptor) in list[4..].chunks_exact(4).enumerate() {
            let at = 4 + 4 * index;
            let state = settable(descriptor[0] & 0x0f);
            let group = u16::from_be_bytes([descriptor[2], descriptor[3]]);
            let known = call.target.ports.values().any(|port| port.group == group);
            states.push((group, state.ok_or_else(|| wrong_parameter(at))?));
            if !known {
                return Err(wrong_parameter(at + 2));
            }
        }
        if states.iter().any(|(group, _)| call.target.is_down(*group)) {
            return Err(NOT_SET.into());
        }
        Ok(Answer { effect: Effect::Groups(states), ..Answer::taken(len) })
    }
}
