//! LUs that one of two controllers owns: RDAC and CLARiiON arrays, as their
//! initiators know them (Linux `scsi_dh_rdac`, `scsi_dh_emc`, the checkers of
//! multipath-tools; formats in [`crate::scsi::rdac`] and
//! [`crate::scsi::clariion`]).
//!
//! A controller is a target port group. Who owns an LU decides about its I/O
//! only where the state of the group lets it through at all.

use super::answer::{Answer, Call, Effect, Failure, Outcome};
use super::config::{Personality, Tpgs};
use super::lu::Lu;
use super::target::DEFAULT_GROUP;
use super::{LuId, NexusId};
use crate::io::Time;
use crate::scsi::alua::AccessState;
use crate::scsi::clariion::{self, Binding, Trespass, UnitPathReport};
use crate::scsi::rdac::{self, ControllerState, Preference, TakeOwnership, VolumeAccess};
use crate::scsi::sense::{Key, SenseCode};

/// RDAC: the controller that was asked is not the owner.
const NOT_OWNER: SenseCode = SenseCode::new(Key::IllegalRequest, 0x94, 0x01);
/// CLARiiON, in the same case: manual intervention required.
const PASSIVE: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x03);
/// In the process of becoming ready.
pub(super) const BECOMING_READY: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x01);
/// RDAC: quiescence achieved, an LU has moved.
pub(super) const QUIESCENCE_ACHIEVED: SenseCode = SenseCode::new(Key::UnitAttention, 0x8b, 0x02);

/// An ownership on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) at: Time,
    pub(super) to: u16,
    /// Who asked for it.
    pub(super) by: Option<NexusId>,
}

/// Which controller (target port group) has the LU; of no meaning for a
/// generic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    default: u16,
    pub(super) current: u16,
    pub(super) moving: Option<Move>,
}

impl Default for Owner {
    fn default() -> Owner {
        Owner { default: DEFAULT_GROUP, current: DEFAULT_GROUP, moving: None }
    }
}

/// How an LU answers through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// What commands are served by.
    pub(super) state: AccessState,
    /// What those that touch blocks are refused with besides,
    pub(super) passive: Option<SenseCode>,
    /// and TEST UNIT READY with them.
    pub(super) tur_too: bool,
}

fn is_active(state: AccessState) -> bool {
    matches!(state, AccessState::ActiveOptimized | AccessState::ActiveNonOptimized)
}

impl Lu {
    pub(super) fn is_owned(&self) -> bool {
        self.config.personality != Personality::Generic
    }

    /// How it answers through the ports of `group`, which is in a state of
    /// its own.
    pub(super) fn access(&self, group: u16, of_group: AccessState) -> Access {
        let state = Access { state: of_group, passive: None, tur_too: true };
        if !self.is_owned() || !is_active(of_group) {
            return state;
        }
        if self.config.tpgs != Tpgs::None {
            return Access { state: self.state(group, of_group), ..state };
        }
        let passive = match (self.owner.moving, self.config.personality) {
            (Some(_), _) => Some(BECOMING_READY),
            (None, _) if self.owner.current == group => None,
            (None, Personality::Clariion) => Some(PASSIVE),
            (None, _) => {
                return Access { passive: Some(NOT_OWNER), tur_too: false, ..state };
            }
        };
        Access { state: AccessState::ActiveOptimized, passive, ..state }
    }

    /// The access state of `group` for this LU.
    pub(super) fn state(&self, group: u16, of_group: AccessState) -> AccessState {
        if !self.is_owned() || !is_active(of_group) {
            return of_group;
        }
        if self.owner.moving.is_some() {
            AccessState::Transitioning
        } else if self.owner.current == group {
            AccessState::ActiveOptimized
        } else if self.config.tpgs == Tpgs::None {
            AccessState::Standby
        } else {
            AccessState::ActiveNonOptimized
        }
    }

    /// VPD pages beyond the standard's.
    pub(super) fn vendor_pages(&self) -> &'static [u8] {
        match self.config.personality {
            Personality::Generic => &[],
            Personality::Rdac => {
                &[rdac::SOFTWARE_VERSION, rdac::DEVICE_IDENTIFICATION, rdac::VOLUME_ACCESS]
            }
            Personality::Clariion => &[clariion::UNIT_PATH_REPORT],
        }
    }

    pub(super) fn vendor_page(&self, call: &Call<'_>, code: u8) -> Option<Vec<u8>> {
        if !self.vendor_pages().contains(&code) {
            return None;
        }
        Some(match code {
            rdac::SOFTWARE_VERSION => rdac::encode_software_version(u8::MAX),
            rdac::DEVICE_IDENTIFICATION => {
                rdac::encode_device_identification(self.number(), self.config.wwid_naa)
            }
            rdac::VOLUME_ACCESS => self.volume_access(call).encode(),
            _ => self.unit_path_report(call).encode(),
        })
    }

    /// The LU's number in the array, for tables of 256.
    fn number(&self) -> u8 {
        self.id.0.to_be_bytes()[1]
    }

    fn volume_access(&self, call: &Call<'_>) -> VolumeAccess {
        let own = call.target.group_of(call.nexus.port);
        let controller = |group: u16| {
            let state = self.state(group, call.target.state_of(group));
            let reason = if call.target.is_down(group) { 0x2 } else { 0 };
            ControllerState { state, reason }
        };
        let preferred = own == self.owner.default;
        VolumeAccess {
            connected: true,
            owned: self.owner.current == own,
            ioship: self.config.tpgs != Tpgs::None,
            avt: false,
            controllers: Some((controller(own), controller(call.target.other_than(own)))),
            preference: if preferred { Preference::Preferred } else { Preference::Secondary },
        }
    }

    fn unit_path_report(&self, call: &Call<'_>) -> UnitPathReport {
        let own = call.target.group_of(call.nexus.port);
        let sp = |group: u16| u8::from(group != DEFAULT_GROUP);
        let owned = self.owner.current == own && self.owner.moving.is_none();
        let alua = self.config.tpgs != Tpgs::None;
        UnitPathReport {
            binding: if owned { Binding::Owned } else { Binding::Bound },
            default_sp: sp(self.owner.default),
            port: call.nexus.port.to_be_bytes()[1],
            current_sp: sp(own),
            revision: 0,
            wwn: self.config.wwid_naa,
            initiator_type: clariion::INITIATOR_FAILOVER,
            failover_mode: if alua { clariion::MODE_ALUA } else { clariion::MODE_PNR },
            options: clariion::ARRAYCOMMPATH,
            operation: u8::from(call.target.upgrade.is_some()),
        }
    }

    /// MODE SELECT of the vendor's page that moves LUs, if it is one.
    pub(super) fn take_ownership(
        &self,
        call: &Call<'_>,
        list: &[u8],
        ten: bool,
    ) -> Option<Outcome> {
        let luns: Vec<LuId> = match self.config.personality {
            Personality::Generic => return None,
            Personality::Rdac => {
                let take = TakeOwnership::parse(list, ten)?;
                take.luns.into_iter().map(|lun| LuId(lun.into())).collect()
            }
            Personality::Clariion => {
                Trespass::parse(list, ten)?;
                vec![self.id]
            }
        };
        if call.target.upgrade.is_some() {
            // What tells the initiator to come back later.
            let clariion = self.config.personality == Personality::Clariion;
            return Some(Err(Failure::from(if clariion { PASSIVE } else { BECOMING_READY })));
        }
        Some(Ok(Answer { effect: Effect::Take(luns), ..Answer::taken(list.len()) }))
    }
}
