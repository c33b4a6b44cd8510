//! What can go wrong, and what the faults of one path do to a new task.
//!
//! State only; ending the tasks that are already pending, and the faults that
//! concern the LU, are the array's part.

pub mod words;

use std::fmt;
use std::time::Duration;

use super::attention::Attentions;
use super::command::{self, Command};
use super::target::Served;
use crate::scsi::alua::AccessState;
use crate::scsi::sense::SenseCode;
use crate::scsi::status::{HostByte, Status};

/// What can happen. It is told to a path; what concerns the LU or the target
/// port group happens to the one the path leads to or belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The cable is pulled: every pending task of the path ends now with
    /// `DID_TRANSPORT_DISRUPTED`; new ones end at once with `DID_NO_CONNECT`.
    Cut(CutMode),
    /// Every fault of the path ends, and its LUN leads to its own LU again;
    /// the path raises unit attention 06/29/07 once, and what a LUN that leads
    /// elsewhere raises. Tasks lost to a [`Fault::Hang`] still return only at
    /// their timeout. What happened to the LU or the group stays.
    Plug,
    /// Frames vanish: pending and new tasks end at their own timeout with
    /// `DID_TIME_OUT`, not executed.
    Hang,
    /// Adds to the service time of tasks submitted from now on; zero ends it.
    Delay(Duration),
    /// The next `count` medium accesses or TEST UNIT READYs end with CHECK
    /// CONDITION, not executed; 0 means until [`Fault::Plug`].
    Sense {
        /// Which sense.
        code: SenseCode,
        /// How many commands.
        count: u32,
    },
    /// The same with a host byte.
    HostByte {
        /// Which host byte.
        host: HostByte,
        /// How many commands.
        count: u32,
    },
    /// The same with status BUSY.
    Busy {
        /// How many commands.
        count: u32,
    },
    /// The same with status TASK SET FULL.
    TaskSetFull {
        /// How many commands.
        count: u32,
    },
    /// Blocks of the LU go bad, until [`Fault::Mend`]: commands that read one
    /// end with 03/11/00, those that write one with 03/0c/00 and nothing
    /// written; INFORMATION is the first of them.
    MediumError {
        /// The first.
        lba: u64,
        /// How many.
        blocks: u64,
    },
    /// The LU's bad blocks are good again.
    Mend,
    /// The path's target port group changes its access state; not zero:
    /// through `transitioning` for so long. Raises 06/2a/06 everywhere when
    /// the new state is reached.
    Alua {
        /// The new state.
        state: AccessState,
        /// How long it takes.
        transition: Duration,
    },
    /// The path's target port group becomes a preferred one (PREF), or is no
    /// longer. Raises 06/2a/06 everywhere.
    Prefer(bool),
    /// LOGICAL UNIT RESET: every task of the LU ends now with `DID_RESET`, not
    /// executed, on all paths; mode parameters are set back; raises 06/29/03
    /// on all paths.
    LuReset,
    /// From now on the path's LUN leads to another LU of the same size, with
    /// its own WWID and blocks in memory, until [`Fault::Plug`]. Raises
    /// 06/3f/03 and 06/3f/0e on the path.
    Remap,
    /// The path's LUN leads nowhere: 05/25/00, until [`Fault::Plug`].
    UnmapLun,
    /// The LU becomes larger or smaller. Raises 06/2a/09 on all paths.
    Capacity(NewCapacity),
}

/// How large a LU becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewCapacity {
    /// So many bytes: whole blocks, not zero.
    Bytes(u64),
    /// Twice what it is.
    Grow,
}

/// What a cut does to the tasks that are pending when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// Not executed.
    Before,
    /// Executed; the status is lost.
    StatusLost,
    /// WRITE, WRITE AND VERIFY and WRITE SAME execute the first half of their
    /// blocks (rounded down); everything else is executed. The status is lost.
    Half,
}

/// How often an injected answer is still given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Times(u32),
    Always,
}

/// The faults in force on a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    cut: bool,
    hang: bool,
    delay: Duration,
    sense: Option<(SenseCode, Left)>,
    host: Option<(HostByte, Left)>,
    status: Option<(Status, Left)>,
}

/// What becomes of a submitted task at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Executed.
    Execute,
    /// Answered with this sense, not executed.
    Sense(SenseCode),
    /// A REQUEST SENSE that reports this sense as its data.
    ReportSense(SenseCode),
    /// Answered with a status that has no sense, not executed.
    Status(Status),
    /// Answered by nobody: there is no LU at the LUN.
    Absent,
    /// Ended by the transport, not executed.
    Host(HostByte),
}

/// What the path does with a new task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ends at once with this host byte.
    Refuse(HostByte),
    /// Is lost until its timeout.
    Lose,
    /// Is served after the path's extra delay.
    Serve { delay: Duration, fate: Fate },
}

/// What a new task meets beside the faults.
pub(super) struct Arrival<'a> {
    pub(super) opcode: u8,
    /// Of the LU's commands, if it is one.
    pub(super) command: Option<&'static Command>,
    /// Whether the LUN leads to an LU.
    pub(super) mapped: bool,
    pub(super) access: AccessState,
    pub(super) attentions: &'a mut Attentions,
}

impl Faults {
    /// Whether the path is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether the path loses frames.
    pub fn is_hung(&self) -> bool {
        self.hang
    }

    /// Extra service time.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Takes note of a fault of the path; others are the array's.
    pub(super) fn apply(&mut self, fault: Fault) {
        let left = |count| if count == 0 { Left::Always } else { Left::Times(count) };
        match fault {
            Fault::Cut(_) => self.cut = true,
            Fault::Plug => *self = Faults::default(),
            Fault::Hang => self.hang = true,
            Fault::Delay(delay) => self.delay = delay,
            Fault::Sense { code, count } => self.sense = Some((code, left(count))),
            Fault::HostByte { host, count } => self.host = Some((host, left(count))),
            Fault::Busy { count } => self.status = Some((Status::BUSY, left(count))),
            Fault::TaskSetFull { count } => {
                self.status = Some((Status::TASK_SET_FULL, left(count)));
            }
            _ => {}
        }
    }

    /// Decides about a new task, and uses up what it is answered with.
    pub(super) fn judge(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        if self.cut {
            return Verdict::Refuse(HostByte::NO_CONNECT);
        }
        if self.hang {
            return Verdict::Lose;
        }
        Verdict::Serve { delay: self.delay, fate: self.fate(arrival) }
    }

    /// An injected host byte or status comes before the LU's word, a unit
    /// attention before the access state, that before injected sense.
    fn fate(&mut self, arrival: &mut Arrival<'_>) -> Fate {
        let targeted = arrival.command.is_some_and(|command| command.targeted);
        if targeted {
            if let Some(host) = take(&mut self.host) {
                return Fate::Host(host);
            }
            if let Some(status) = take(&mut self.status) {
                return Fate::Status(status);
            }
        }
        if !arrival.mapped {
            return Fate::Absent;
        }
        // SPC-5 5.14: three commands are served in spite of a unit attention,
        // and leave it pending; but REQUEST SENSE reports it, as data, and
        // REPORT LUNS is what one of them asks for.
        let attentions = &mut *arrival.attentions;
        let attention = match arrival.opcode {
            command::INQUIRY => None,
            command::REPORT_LUNS => {
                attentions.forget(SenseCode::REPORTED_LUNS_CHANGED);
                None
            }
            command::REQUEST_SENSE => attentions.take().map(Fate::ReportSense),
            _ => attentions.take().map(Fate::Sense),
        };
        if let Some(fate) = attention {
            return fate;
        }
        let served = arrival.command.map_or(Served::Always, |command| command.served);
        if let Some(code) = served.refusal(arrival.access) {
            return Fate::Sense(code);
        }
        let injected = if targeted { take(&mut self.sense) } else { None };
        injected.map_or(Fate::Execute, Fate::Sense)
    }
}

/// The answer to give now, if one is due.
fn take<T: Copy>(slot: &mut Option<(T, Left)>) -> Option<T> {
    let (answer, left) = (*slot)?;
    *slot = match left {
        Left::Always => Some((answer, Left::Always)),
        Left::Times(n) if n > 1 => Some((answer, Left::Times(n - 1))),
        Left::Times(_) => None,
    };
    Some(answer)
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Times(n) => write!(f, "{n} more"),
            Left::Always => f.write_str("always"),
        }
    }
}

impl Faults {
    /// One word or phrase per fault.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.cut {
            words.push("cut".to_owned());
        }
        if self.hang {
            words.push("hang".to_owned());
        }
        if !self.delay.is_zero() {
            words.push(format!("delay {:?}", self.delay));
        }
        if let Some((code, left)) = self.sense {
            words.push(format!("sense {code} ({left})"));
        }
        if let Some((host, left)) = self.host {
            words.push(format!("{host} ({left})"));
        }
        if let Some((status, left)) = self.status {
            words.push(format!("{status} ({left})"));
        }
        words
    }
}

impl fmt::Display for Faults {
    /// `cut, delay 5ms, sense 02/04/0b (3 more)`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words();
        if words.is_empty() { f.write_str("none") } else { f.write_str(&words.join(", ")) }
    }
}
