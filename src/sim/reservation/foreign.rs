//! Other hosts, as far as they only register, reserve and preempt: what they
//! are told to do happens at once, whatever is wrong with a path.
//!
//! A second host that sends commands is a nexus of its own
//! ([`Array::add_foreign_nexus`]).

use crate::io::Time;
use crate::scsi::reservation::{Key, Out, OutAction, Type};
use crate::sim::answer::Failure;
use crate::sim::{Array, ItNexus, LuId, NexusId, NotInjected};

/// What another host does. It uses the key that it has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// REGISTER AND IGNORE EXISTING KEY; no key: it unregisters.
    Register(Key),
    /// RESERVE.
    Reserve(Type),
    /// RELEASE of what is reserved.
    Release,
    /// CLEAR.
    Clear,
    /// PREEMPT, or PREEMPT AND ABORT.
    Preempt {
        /// Whose key.
        victim: Key,
        /// Of what type the reservation is then, if there is one.
        kind: Type,
        /// Whether the victims' tasks are aborted.
        abort: bool,
    },
}

impl Foreign {
    /// As a command of who is registered with `key`, while a reservation of
    /// type `held` is there.
    fn command(self, key: Key, held: Option<Type>) -> Out {
        match self {
            Foreign::Register(new) => Out::new(OutAction::RegisterAndIgnore, Key::NONE, new),
            Foreign::Reserve(kind) => Out::new(OutAction::Reserve, key, Key::NONE).of_type(kind),
            Foreign::Release => {
                let release = Out::new(OutAction::Release, key, Key::NONE);
                held.map_or(release, |kind| release.of_type(kind))
            }
            Foreign::Clear => Out::new(OutAction::Clear, key, Key::NONE),
            Foreign::Preempt { victim, kind, abort } => {
                let action = if abort { OutAction::PreemptAndAbort } else { OutAction::Preempt };
                Out::new(action, key, victim).of_type(kind)
            }
        }
    }
}

impl Array {
    /// A path of another host to the first LU, through a port that it shares
    /// with the first path there is. `initiator` is that host's own number;
    /// 0 is the host of the paths that say nothing else.
    pub fn add_foreign_nexus(&mut self, name: &str, initiator: u16) -> NexusId {
        let shared = self.nexuses.iter().map(|(_, nexus)| nexus.it.port).next();
        let port = shared.unwrap_or_else(|| self.target.free_port(1));
        self.join(name, ItNexus { initiator, port })
    }

    /// Another host does something to an LU: as the nexus that it is registered
    /// by, else as `nexus`.
    pub(in crate::sim) fn foreign(
        &mut self,
        now: Time,
        lu: LuId,
        nexus: ItNexus,
        order: Foreign,
    ) -> Result<(), NotInjected> {
        let ports = self.target.port_ids();
        let of = &mut self.lus[usize::from(lu.0)].reservations;
        let registered = of.registrations().find(|(of, _)| of.initiator == nexus.initiator);
        let (nexus, key) = registered.unwrap_or((nexus, Key::NONE));
        let held = of.held().map(|held| held.kind);
        match of.carry_out(nexus, &ports, &order.command(key, held)) {
            Ok(told) => {
                self.spread(now, lu, told);
                Ok(())
            }
            Err(Failure::Refused(refusal)) => Err(NotInjected::Refused(refusal.code.to_string())),
            Err(_) => Err(NotInjected::Refused("RESERVATION CONFLICT".to_owned())),
        }
    }
}
