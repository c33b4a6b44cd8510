//! Persistent reservations of one LU: who is registered, who holds it, and
//! what PERSISTENT RESERVE IN and OUT do and answer (SPC-5 5.14, 6.16, 6.17;
//! formats in [`crate::scsi::reservation`]).
//!
//! Registrations belong to I_T nexuses by their ports and outlive the paths.
//! Not here: what a reservation forbids (`access`), and how nexuses are told
//! and tasks aborted, which is the array's part. SPEC_I_PT and REGISTER AND MOVE
//! are not implemented (SIP_C=0). REPLACE LOST RESERVATION is (RLR_C=1); that
//! commands are told of the loss until then is not.

use std::time::Duration;

use super::ItNexus;
use super::answer::{
    Answer, Call, Effect, Failure, Outcome, Refusal, wrong_field, wrong_parameter,
};
use super::lu::Lu;
use crate::scsi::cdb::Cdb;
use crate::scsi::reservation::{self, Capabilities, Held, Key, LIST_LEN, Out, OutAction, Type};
use crate::scsi::sense::SenseCode;

mod access;
pub(super) mod foreign;
mod kept;

/// Every type of reservation and its word in commands.
pub const RESERVATION_TYPES: [(Type, &str); 6] = [
    (Type::WriteExclusive, "write-exclusive"),
    (Type::ExclusiveAccess, "exclusive-access"),
    (Type::WriteExclusiveRegistrantsOnly, "write-exclusive-registrants-only"),
    (Type::ExclusiveAccessRegistrantsOnly, "exclusive-access-registrants-only"),
    (Type::WriteExclusiveAllRegistrants, "write-exclusive-all-registrants"),
    (Type::ExclusiveAccessAllRegistrants, "exclusive-access-all-registrants"),
];

/// In place of a target port: a registration by all of them. No port has it.
const EVERY_PORT: u16 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registration {
    nexus: ItNexus,
    key: Key,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reserved {
    kind: Type,
    /// As its registration has it; of no meaning where all registrants hold.
    holder: ItNexus,
}

/// The registrations and the reservation of one LU.
#[derive(Debug, Default)]
pub struct Reservations {
    /// In order of registration.
    registrations: Vec<Registration>,
    held: Option<Reserved>,
    generation: u32,
    /// APTPL of the last registration.
    aptpl: bool,
    /// All that was known is lost, and may be replaced.
    lost: bool,
    /// One registration counts for all ports.
    pub(super) per_initiator: bool,
    /// Counts changes of all that, see [`Reservations::revision`].
    revision: u64,
    /// Every unit attention is told before a conflict.
    pub(super) attentions_first: bool,
    /// How much longer a registration takes while another is under way.
    pub(super) stall: Duration,
}

/// What follows from a PERSISTENT RESERVE OUT.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Unit attentions for others.
    pub(super) attentions: Vec<(ItNexus, SenseCode)>,
    /// Whose tasks are aborted.
    pub(super) aborted: Vec<ItNexus>,
}

impl Told {
    fn tell(&mut self, whom: &[Registration], by: ItNexus, code: SenseCode) {
        let others = whom.iter().map(|of| of.nexus).filter(|of| !of.covers(by));
        self.attentions.extend(others.map(|of| (of, code)));
    }
}

impl ItNexus {
    /// Whether what belongs to this one belongs to `other`.
    pub(super) fn covers(self, other: ItNexus) -> bool {
        self.initiator == other.initiator && [EVERY_PORT, other.port].contains(&self.port)
    }
}

impl Reservations {
    /// PRGENERATION.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether registrations are kept through a loss of power (PTPL_A).
    pub fn persists(&self) -> bool {
        self.aptpl
    }

    /// Every registration, in order; port 0 stands for every port.
    pub fn registrations(&self) -> impl Iterator<Item = (ItNexus, Key)> {
        self.registrations.iter().map(|of| (of.nexus, of.key))
    }

    /// The reservation, as READ RESERVATION has it.
    pub fn held(&self) -> Option<Held> {
        let Reserved { kind, holder } = self.held?;
        let key = if kind.is_of_all_registrants() { None } else { self.key_of(holder) };
        Some(Held { key: key.unwrap_or(Key::NONE), kind })
    }

    /// The key a nexus is registered with.
    pub fn key_of(&self, nexus: ItNexus) -> Option<Key> {
        self.place(nexus).map(|at| self.registrations[at].key)
    }

    /// Whether a nexus holds the reservation.
    pub fn is_held_by(&self, nexus: ItNexus) -> bool {
        self.held.is_some_and(|held| match held.kind.is_of_all_registrants() {
            true => self.place(nexus).is_some(),
            false => held.holder.covers(nexus),
        })
    }

    fn place(&self, nexus: ItNexus) -> Option<usize> {
        self.registrations.iter().position(|of| of.nexus.covers(nexus))
    }

    /// Power on: what was not registered with APTPL is gone.
    pub(super) fn power_on(&mut self) {
        self.generation = 0;
        self.revision += 1;
        if !self.aptpl {
            self.registrations.clear();
            self.held = None;
        }
    }

    /// The array loses a nexus's registration, and tells nobody.
    pub(super) fn forget(&mut self, nexus: ItNexus) {
        let gone = self.remove(|of| of.nexus.covers(nexus));
        self.release_without(&gone);
        self.revision += 1;
    }

    /// The array loses all that it knows, and tells nobody.
    pub(super) fn lose(&mut self) {
        self.registrations.clear();
        (self.held, self.lost) = (None, true);
        self.revision += 1;
    }

    /// From now on one registration counts for every port of its initiator, or
    /// no longer; those that are there become one.
    pub(super) fn set_per_initiator(&mut self, per_initiator: bool) {
        if per_initiator {
            let mut seen = Vec::new();
            self.registrations.retain_mut(|of| {
                of.nexus.port = EVERY_PORT;
                let first = !seen.contains(&of.nexus.initiator);
                seen.push(of.nexus.initiator);
                first
            });
            if let Some(held) = &mut self.held {
                held.holder.port = EVERY_PORT;
            }
        }
        self.per_initiator = per_initiator;
        self.revision += 1;
    }

    /// PERSISTENT RESERVE OUT by a nexus of a target that has these ports.
    pub(super) fn carry_out(
        &mut self,
        by: ItNexus,
        ports: &[u16],
        out: &Out,
    ) -> Result<Told, Failure> {
        self.revision += 1;
        if matches!(out.action, OutAction::Register | OutAction::RegisterAndIgnore) {
            return self.register(by, ports, out);
        }
        if out.action == OutAction::ReplaceLost {
            return self.replace_lost(by, out);
        }
        if self.key_of(by) != Some(out.key) {
            return Err(Failure::Conflict);
        }
        match out.action {
            OutAction::Reserve => self.reserve(by, out).map(|()| Told::default()),
            OutAction::Release => self.release(by, out),
            OutAction::Clear => Ok(self.clear(by)),
            OutAction::Preempt => self.preempt(by, out, false),
            OutAction::PreemptAndAbort => self.preempt(by, out, true),
            _ => Err(wrong_field(1, Some(4))),
        }
    }

    /// SPC-5 5.14.7: register, change the key, unregister. By all ports or by
    /// none.
    fn register(&mut self, by: ItNexus, ports: &[u16], out: &Out) -> Result<Told, Failure> {
        let nexuses: Vec<ItNexus> = if self.per_initiator {
            vec![ItNexus { port: EVERY_PORT, ..by }]
        } else if out.all_tg_pt {
            ports.iter().map(|port| ItNexus { port: *port, ..by }).collect()
        } else {
            vec![by]
        };
        let fits = |nexus: &ItNexus| self.key_of(*nexus).unwrap_or(Key::NONE) == out.key;
        if out.action == OutAction::Register && !nexuses.iter().all(fits) {
            return Err(Failure::Conflict);
        }
        let mut told = Told::default();
        if out.action_key.is_none() {
            let gone = self.remove(|of| nexuses.iter().any(|nexus| of.nexus.covers(*nexus)));
            if gone.is_empty() {
                return Ok(told);
            }
            if let Some(kind) = self.release_without(&gone) {
                if kind.is_of_registrants() {
                    told.tell(&self.registrations, by, SenseCode::RESERVATIONS_RELEASED);
                }
            }
        }
        for nexus in nexuses.into_iter().filter(|_| !out.action_key.is_none()) {
            match self.place(nexus) {
                Some(at) => self.registrations[at].key = out.action_key,
                None => self.registrations.push(Registration { nexus, key: out.action_key }),
            }
        }
        self.aptpl = out.aptpl;
        self.generation = self.generation.wrapping_add(1);
        Ok(told)
    }

    /// SPC-5 5.14.11.9: who puts new information in the place of what was lost
    /// is registered and holds the reservation. 05/24/00 where nothing is lost.
    fn replace_lost(&mut self, by: ItNexus, out: &Out) -> Result<Told, Failure> {
        if !self.lost {
            return Err(wrong_field(1, Some(4)));
        }
        let kind = new_type(out)?;
        if !out.key.is_none() {
            return Err(wrong_parameter(0));
        }
        if out.action_key.is_none() {
            return Err(wrong_parameter(8));
        }
        let port = if self.per_initiator { EVERY_PORT } else { by.port };
        let nexus = ItNexus { port, ..by };
        self.registrations = vec![Registration { nexus, key: out.action_key }];
        (self.lost, self.aptpl) = (false, out.aptpl);
        self.hold(by, kind);
        self.generation = self.generation.wrapping_add(1);
        Ok(Told::default())
    }

    /// SPC-5 5.14.9.
    fn reserve(&mut self, by: ItNexus, out: &Out) -> Result<(), Failure> {
        let kind = new_type(out)?;
        match self.held {
            Some(held) if self.is_held_by(by) && held.kind == kind => Ok(()),
            Some(_) => Err(Failure::Conflict),
            None => {
                self.hold(by, kind);
                Ok(())
            }
        }
    }

    fn hold(&mut self, by: ItNexus, kind: Type) {
        let holder = self.place(by).map_or(by, |at| self.registrations[at].nexus);
        self.held = Some(Reserved { kind, holder });
    }

    /// SPC-5 5.14.11.2: who does not hold it releases nothing, and is told
    /// that all is well.
    fn release(&mut self, by: ItNexus, out: &Out) -> Result<Told, Failure> {
        let mut told = Told::default();
        let Some(held) = self.held.filter(|_| self.is_held_by(by)) else { return Ok(told) };
        if out.scope_and_type != held.kind.to_bits() {
            return Err(SenseCode::INVALID_RELEASE_OF_RESERVATION.into());
        }
        self.held = None;
        if held.kind.is_of_registrants() {
            told.tell(&self.registrations, by, SenseCode::RESERVATIONS_RELEASED);
        }
        Ok(told)
    }

    /// SPC-5 5.14.11.6.
    fn clear(&mut self, by: ItNexus) -> Told {
        let mut told = Told::default();
        told.tell(&self.registrations, by, SenseCode::RESERVATIONS_PREEMPTED);
        self.registrations.clear();
        self.held = None;
        self.generation = self.generation.wrapping_add(1);
        told
    }

    /// SPC-5 5.14.11.4 and 5.14.11.5. Who names its own key without holding
    /// anything loses its own registration, too.
    fn preempt(&mut self, by: ItNexus, out: &Out, abort: bool) -> Result<Told, Failure> {
        let victim = out.action_key;
        let of_all = self.held.is_some_and(|held| held.kind.is_of_all_registrants());
        if victim.is_none() && !of_all {
            return Err(wrong_parameter(8));
        }
        let takes = self.held().is_some_and(|held| held.key == victim);
        let kind = if takes { Some(new_type(out)?) } else { None };
        let gone = self.remove(|of| match takes {
            true => (of_all || of.key == victim) && !of.nexus.covers(by),
            false => of.key == victim,
        });
        if gone.is_empty() && !takes {
            return Err(Failure::Conflict);
        }
        let mut told = Told::default();
        told.tell(&gone, by, SenseCode::REGISTRATIONS_PREEMPTED);
        if abort {
            told.aborted = gone.iter().map(|of| of.nexus).collect();
        }
        if let Some(kind) = kind {
            let was = self.held.map(|held| held.kind);
            self.hold(by, kind);
            if was != Some(kind) {
                told.tell(&self.registrations, by, SenseCode::RESERVATIONS_RELEASED);
            }
        } else {
            self.release_without(&gone);
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(told)
    }

    fn remove(&mut self, which: impl Fn(&Registration) -> bool) -> Vec<Registration> {
        let gone = self.registrations.iter().copied().filter(&which).collect();
        self.registrations.retain(|of| !which(of));
        gone
    }

    /// Ends the reservation if its holder was among these, and says of what
    /// type it was.
    fn release_without(&mut self, gone: &[Registration]) -> Option<Type> {
        let held = self.held?;
        let lost = match held.kind.is_of_all_registrants() {
            true => self.registrations.is_empty(),
            false => gone.iter().any(|of| of.nexus == held.holder),
        };
        lost.then(|| {
            self.held = None;
            held.kind
        })
    }

    fn keys(&self) -> Vec<u8> {
        let keys: Vec<Key> = self.registrations.iter().map(|of| of.key).collect();
        reservation::encode_keys(self.generation, &keys)
    }

    fn capabilities(&self) -> Vec<u8> {
        let persists = if self.aptpl { Capabilities::PERSIST } else { 0 };
        Capabilities {
            can: Capabilities::REPLACE_LOST | Capabilities::ALL_TG_PT | Capabilities::PERSIST,
            now: Capabilities::TYPE_MASK_VALID | persists,
            types: Type::all().fold(0, |mask, kind| mask | kind.mask()),
        }
        .encode()
    }

    fn full_status(&self) -> Vec<u8> {
        let status = |of: &Registration| reservation::Registration {
            key: of.key,
            all_tg_pt: of.nexus.port == EVERY_PORT,
            holds: self.held.map(|held| held.kind).filter(|_| self.is_held_by(of.nexus)),
            port: of.nexus.port,
            transport_id: of.nexus.transport_id().to_vec(),
        };
        let all: Vec<_> = self.registrations.iter().map(status).collect();
        reservation::encode_full_status(self.generation, &all)
    }
}

/// SCOPE and TYPE of a reservation that is to be: of the LU, and of a type
/// that is known.
fn new_type(out: &Out) -> Result<Type, Failure> {
    if out.scope() != 0 {
        return Err(wrong_field(2, Some(7)));
    }
    out.kind().ok_or_else(|| wrong_field(2, Some(3)))
}

impl ItNexus {
    /// TransportID of the initiator port (SPC-5 7.6.4): Fibre Channel, with a
    /// name of NAA 3, locally assigned.
    fn transport_id(self) -> [u8; 24] {
        let mut id = [0; 24];
        let name = 3 << 60 | 0x73_696d << 16 | u64::from(self.initiator);
        id[8..16].copy_from_slice(&name.to_be_bytes());
        id
    }
}

impl Lu {
    /// PERSISTENT RESERVE IN.
    pub(super) fn persistent_reserve_in(&mut self, call: &Call<'_>) -> Outcome {
        let of = &self.reservations;
        let data = match call.byte(1) & 0x1f {
            0x00 => of.keys(),
            0x01 => reservation::encode_reservation(of.generation, of.held()),
            0x02 => of.capabilities(),
            _ => of.full_status(),
        };
        Ok(Answer::data(data, call.length_16(7)))
    }

    /// PERSISTENT RESERVE OUT.
    pub(super) fn persistent_reserve_out(&mut self, call: &Call<'_>) -> Outcome {
        let list = call.announced(call.length_32(5))?;
        let cdb = Cdb::from_bytes(call.cdb).ok_or(SenseCode::INVALID_FIELD_IN_CDB)?;
        let out = Out::parse(&cdb, list)
            .map_err(|(code, field)| Failure::Refused(Refusal::at(code, field)))?;
        let ports = call.target.port_ids();
        let told = self.reservations.carry_out(call.nexus, &ports, &out)?;
        Ok(Answer { effect: Effect::Reservations(told), ..Answer::taken(LIST_LEN) })
    }
}
