//! Carrying out what checkers, prioritizers and hardware handlers ask of an
//! open path.
//!
//! Blocks as long as the kernel does: the path's checking thread and whoever
//! opens a path, never the control thread. What the answers mean is `mpath`'s.

use std::time::{Duration, Instant};

use crate::host;
use crate::mpath::checker::{Checker, Verdict};
use crate::mpath::hwhandler::{Activation, Handler};
use crate::mpath::prio::{Attributes, Prioritizer, Reading};
use crate::mpath::probe::{Answer, DeviceState, Fact, Probe, Step, Transfer};
use crate::passthrough_scsi::{Data, PathHandle, PathKind};
use crate::scsi::alua::AccessState;
use crate::scsi::cdb::Cdb;
use crate::scsi::vpd::{self, Association, DesignatorKind};
use crate::sim;

/// Longest VPD page read.
const PAGE: usize = 4096;

/// Who answers probes; for each generator a loop that runs it to its end.
pub(super) trait Ask {
    fn ask(&self, probe: &Probe) -> Answer;

    fn check(&self, checker: &mut Checker) -> Verdict {
        self.finish(checker.begin(), |answer| checker.on_answer(answer))
    }

    fn prioritize(&self, prioritizer: &mut Prioritizer) -> Reading {
        self.finish(prioritizer.begin(), |answer| prioritizer.on_answer(answer))
    }

    fn activate(&self, handler: &mut Handler) -> Activation {
        self.finish(handler.begin(), |answer| handler.on_answer(answer))
    }

    fn finish<V>(&self, first: Step<V>, mut next: impl FnMut(&Answer) -> Step<V>) -> V {
        let mut step = first;
        loop {
            step = match step {
                Step::Done(value) => return value,
                Step::Issue(probe) => next(&self.ask(&probe)),
            };
        }
    }
}

/// A path and the kernel's timeout for each command. Unit attentions among the
/// answers go unheard: for a path that carries nothing yet.
pub(super) struct Unheard<'a>(pub(super) &'a PathHandle, pub(super) Duration);

impl Ask for Unheard<'_> {
    fn ask(&self, probe: &Probe) -> Answer {
        carry_out(self.0, probe, self.1)
    }
}

/// One probe.
pub(super) fn carry_out(path: &PathHandle, probe: &Probe, timeout: Duration) -> Answer {
    #[allow(clippy::disallowed_methods)] // path_latency measures real time
    let asked = Instant::now();
    let mut data = Vec::new();
    let completion = match probe {
        Probe::Command { cdb, transfer } => {
            let transfer = match transfer {
                Transfer::None => Data::None,
                Transfer::In(len) => {
                    data.resize(*len, 0);
                    Data::In(&mut data)
                }
                Transfer::Out(list) => Data::Out(list),
            };
            path.execute(cdb, transfer, timeout)
        }
        Probe::ReadFirstBlock => path.read_check(timeout),
        Probe::Fact(Fact::DeviceState) => return Answer::DeviceState(device_state(path)),
        Probe::Fact(Fact::AccessState) => return Answer::AccessState(access_state(path)),
    };
    Answer::Completed { completion, data, took: asked.elapsed() }
}

fn is_generic(path: &PathHandle) -> bool {
    matches!(path.kind(), PathKind::ScsiGeneric | PathKind::ScsiBsg)
}

/// sysfs `device/state`, or what a simulated array says in its place.
pub(super) fn device_state(path: &PathHandle) -> Option<DeviceState> {
    if let Some(facts) = path.simulated_facts() {
        return Some(match facts.state {
            sim::DeviceState::Running => DeviceState::Running,
            sim::DeviceState::Blocked => DeviceState::Blocked,
            sim::DeviceState::Offline => DeviceState::Offline,
        });
    }
    match host::device_state(path.dev_t()?, is_generic(path)) {
        host::DeviceState::Running => Some(DeviceState::Running),
        host::DeviceState::Blocked => Some(DeviceState::Blocked),
        host::DeviceState::Offline | host::DeviceState::Gone => Some(DeviceState::Offline),
        // A state that is too new for us is for the commands to judge.
        host::DeviceState::Other(_) => None,
    }
}

fn access_state(path: &PathHandle) -> Option<(AccessState, bool)> {
    if let Some(facts) = path.simulated_facts() {
        return facts.access;
    }
    host::access_state(path.dev_t()?, is_generic(path))
}

/// What grouping policies and prioritizers go by: sysfs first, then what the
/// LU says of the target itself.
pub(super) fn attributes(path: &PathHandle, timeout: Duration) -> Attributes {
    let fabric = path.fabric();
    let (mut target_node, mut target_port) =
        (fabric.target_node.clone(), fabric.target_port.clone());
    if path.is_scsi() && (target_node.is_none() || target_port.is_none()) {
        let (node, port) = target_names(path, timeout);
        target_node = target_node.or(node);
        target_port = target_port.or(port);
    }
    Attributes {
        devname: path.devname().unwrap_or(path.name()).to_owned(),
        hbtl: path.hctl().map(str::to_owned),
        serial: Some(path.geometry().serial.clone()).filter(|serial| !serial.is_empty()),
        target_node,
        target_port,
    }
}

/// Names of target device and target port by VPD page 83h.
fn target_names(path: &PathHandle, timeout: Duration) -> (Option<String>, Option<String>) {
    let cdb = Cdb::inquiry(Some(vpd::IDENTIFICATION), u16::try_from(PAGE).unwrap_or(u16::MAX));
    let probe = Probe::reading(cdb, PAGE);
    let Answer::Completed { data: page, .. } = carry_out(path, &probe, timeout) else {
        return (None, None);
    };
    let name = |association| {
        let mut list = vpd::designators(&page)?.filter(|d| d.association == association);
        list.find_map(|designator| match designator.kind {
            DesignatorKind::Naa | DesignatorKind::Eui64 => {
                let digits: String = designator.bytes.iter().map(|b| format!("{b:02x}")).collect();
                Some(format!("0x{digits}"))
            }
            DesignatorKind::ScsiName => {
                let text = String::from_utf8_lossy(designator.bytes);
                Some(text.trim_end_matches(['\0', ' ']).to_owned())
            }
            _ => None,
        })
    };
    (name(Association::TargetDevice), name(Association::TargetPort))
}
