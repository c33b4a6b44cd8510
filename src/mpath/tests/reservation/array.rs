//! A small LU with persistent reservations (SPC-5 5.14.11): what the tests hold
//! the engine to, with one nexus for the guest, and what its paths lead to,
//! with one nexus each.

use std::collections::BTreeMap;

use crate::io::{Completion, Outcome};
use crate::mpath::reservation::{Answer, Ask};
use crate::scsi::reservation::{
    Held, InAction, Key, Out, OutAction, Registration, Type, encode_full_status, encode_keys,
    encode_reservation,
};
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

pub(super) type Nexus = &'static str;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Array {
    pub(super) keys: BTreeMap<Nexus, Key>,
    /// `None`: all registrants.
    pub(super) held: Option<(Option<Nexus>, Type)>,
    generation: u32,
    /// All that it knew is gone (REPLACE LOST RESERVATION).
    pub(super) lost: bool,
    /// READ FULL STATUS says that each registration is by all ports.
    pub(super) all_ports: bool,
    /// RELEASE of another type than is held is a conflict (LIO).
    pub(super) release_conflicts: bool,
}

pub(super) fn lu(status: Status, sense: Sense) -> Outcome {
    Outcome::Lu { status, sense, residual: 0 }
}

pub(super) fn conflict() -> Outcome {
    lu(Status::RESERVATION_CONFLICT, Sense::EMPTY)
}

pub(super) fn check(code: SenseCode) -> Outcome {
    lu(Status::CHECK_CONDITION, Sense::fixed(code))
}

/// As a path's thread brings it.
pub(super) fn answer(outcome: Outcome) -> Answer {
    let completion = match outcome {
        Outcome::Lu { status, sense, residual } => {
            Completion::Scsi { status, host: HostByte::OK, sense, residual }
        }
        _ => Completion::Good,
    };
    Answer { completion, data: Vec::new() }
}

impl Array {
    pub(super) fn ask(&mut self, nexus: Nexus, ask: Ask) -> Answer {
        match ask {
            Ask::Out(out) => answer(self.out(nexus, out)),
            Ask::In(action) => Answer { completion: Completion::Good, data: self.read(action) },
        }
    }

    fn read(&self, action: InAction) -> Vec<u8> {
        match action {
            InAction::ReadKeys => {
                let keys: Vec<Key> = self.keys.values().copied().collect();
                encode_keys(self.generation, &keys)
            }
            InAction::ReadReservation => encode_reservation(self.generation, self.reservation()),
            InAction::ReadFullStatus => {
                let one = |(nexus, key): (&Nexus, &Key)| Registration {
                    key: *key,
                    all_tg_pt: self.all_ports,
                    holds: self.held.map(|held| held.1).filter(|_| self.holds(nexus)),
                    port: 1,
                    transport_id: vec![0; 24],
                };
                let all: Vec<Registration> = self.keys.iter().map(one).collect();
                encode_full_status(self.generation, &all)
            }
            _ => panic!("the engine has no use for {action:?}"),
        }
    }

    fn reservation(&self) -> Option<Held> {
        self.held.map(|(holder, kind)| {
            let key = holder.map_or(Key::NONE, |nexus| self.keys[nexus]);
            Held { key, kind }
        })
    }

    fn holds(&self, nexus: Nexus) -> bool {
        match self.held {
            Some((Some(holder), _)) => holder == nexus,
            Some((None, _)) => self.keys.contains_key(nexus),
            None => false,
        }
    }

    pub(super) fn unregister(&mut self, nexus: Nexus) {
        self.keys.remove(nexus);
        let last = self.held.is_some_and(|h| h.0.is_none()) && self.keys.is_empty();
        if last || self.held.is_some_and(|h| h.0 == Some(nexus)) {
            self.held = None;
        }
    }

    /// As if that nexus had reserved it.
    pub(super) fn reserve(&mut self, nexus: Nexus, kind: Type) {
        self.held = Some(((!kind.is_of_all_registrants()).then_some(nexus), kind));
    }

    pub(super) fn out(&mut self, nexus: Nexus, out: Out) -> Outcome {
        let own = self.keys.get(nexus).copied();
        let registers = matches!(out.action, OutAction::Register | OutAction::RegisterAndIgnore);
        if out.action == OutAction::ReplaceLost {
            return self.replace_lost(nexus, out);
        }
        let checks = out.action != OutAction::RegisterAndIgnore;
        if checks && own.unwrap_or(Key::NONE) != out.key {
            return conflict();
        }
        if registers {
            self.generation += 1;
            if out.action_key.is_none() {
                self.unregister(nexus);
            } else {
                self.keys.insert(nexus, out.action_key);
            }
            return Outcome::Good;
        }
        if own.is_none() {
            return conflict();
        }
        let Some(kind) = out.kind().filter(|_| out.scope() == 0 || !out.action.has_type()) else {
            if out.action.has_type() {
                return check(SenseCode::INVALID_FIELD_IN_CDB);
            }
            return self.clear();
        };
        match out.action {
            OutAction::Reserve => match self.held {
                None => self.reserve(nexus, kind),
                Some((_, held)) if self.holds(nexus) && held == kind => {}
                Some(_) => return conflict(),
            },
            OutAction::Release => match self.held {
                Some((_, held)) if self.holds(nexus) && held == kind => self.held = None,
                Some(_) if self.holds(nexus) && self.release_conflicts => return conflict(),
                Some(_) if self.holds(nexus) => {
                    return check(SenseCode::INVALID_RELEASE_OF_RESERVATION);
                }
                _ => {}
            },
            OutAction::Clear => return self.clear(),
            OutAction::Preempt | OutAction::PreemptAndAbort => {
                return self.preempt(nexus, out.action_key, kind);
            }
            _ => panic!("{out:?}"),
        }
        Outcome::Good
    }

    fn replace_lost(&mut self, nexus: Nexus, out: Out) -> Outcome {
        let Some(kind) = out.kind().filter(|_| std::mem::take(&mut self.lost)) else {
            return check(SenseCode::INVALID_FIELD_IN_CDB);
        };
        self.clear();
        self.keys.insert(nexus, out.action_key);
        self.reserve(nexus, kind);
        Outcome::Good
    }

    fn clear(&mut self) -> Outcome {
        self.generation += 1;
        self.keys.clear();
        self.held = None;
        Outcome::Good
    }

    fn preempt(&mut self, nexus: Nexus, key: Key, kind: Type) -> Outcome {
        let holder = self.held.and_then(|h| h.0);
        let takes = match (self.held, holder) {
            (Some(_), None) => key.is_none(),
            (Some(_), Some(holder)) => self.keys[holder] == key,
            (None, _) => false,
        };
        if key.is_none() && !takes {
            return check(SenseCode::INVALID_FIELD_IN_PARAMETER_LIST);
        }
        if !key.is_none() && !self.keys.values().any(|k| *k == key) {
            return conflict();
        }
        self.generation += 1;
        let all = key.is_none();
        self.keys.retain(|n, k| (!all && *k != key) || (takes && *n == nexus));
        if takes {
            self.reserve(nexus, kind);
        }
        Outcome::Good
    }
}
