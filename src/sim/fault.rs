//! Faults of one path: what is in force, and what it does to a new task.
//!
//! State only; ending the tasks that are already pending is the array's part.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::Fate;
use crate::scsi::cdb::{Cdb, Decoded};
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::HostByte;

/// What can happen to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The cable is pulled: every pending task of the path ends now with
    /// `DID_TRANSPORT_DISRUPTED`; new ones end at once with `DID_NO_CONNECT`.
    Cut(CutMode),
    /// Every fault ends; the path raises unit attention 06/29/07 once. Tasks
    /// lost to a [`Fault::Hang`] still return only at their timeout.
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
}

/// What a cut does to the tasks that are pending when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// Not executed.
    Before,
    /// Executed; the status is lost.
    StatusLost,
    /// Writes and WRITE SAME execute the first half of their blocks (rounded
    /// down); everything else is executed. The status is lost.
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
    /// Unit attention conditions not yet reported (SAM-5 5.14), oldest first.
    unit_attentions: VecDeque<SenseCode>,
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

const NEXUS_LOSS: SenseCode = SenseCode::new(Key::UnitAttention, 0x29, 0x07);

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

    pub(super) fn apply(&mut self, fault: Fault) {
        let left = |count| if count == 0 { Left::Always } else { Left::Times(count) };
        match fault {
            Fault::Cut(_) => self.cut = true,
            Fault::Plug => {
                // Conditions that were pending are gone: the loss of the
                // nexus comes after them and says more (SAM-5 5.14.5).
                *self = Faults::default();
                self.unit_attentions.push_back(NEXUS_LOSS);
            }
            Fault::Hang => self.hang = true,
            Fault::Delay(delay) => self.delay = delay,
            Fault::Sense { code, count } => self.sense = Some((code, left(count))),
            Fault::HostByte { host, count } => self.host = Some((host, left(count))),
        }
    }

    /// Decides about a new task, and uses up what it is answered with.
    pub(super) fn judge(&mut self, cdb: &Cdb) -> Verdict {
        if self.cut {
            return Verdict::Refuse(HostByte::NO_CONNECT);
        }
        if self.hang {
            return Verdict::Lose;
        }
        Verdict::Serve { delay: self.delay, fate: self.fate(cdb) }
    }

    /// An injected host byte comes before the LU's word, a unit attention
    /// before any other sense.
    fn fate(&mut self, cdb: &Cdb) -> Fate {
        let decoded = cdb.decode();
        let targeted = decoded.is_ok_and(|decoded| is_medium_access_or_tur(&decoded));
        if targeted {
            if let Some(host) = take(&mut self.host) {
                return Fate::Host(host);
            }
        }
        // SPC-5 5.14: three commands are served in spite of a unit attention,
        // and leave it pending; but REQUEST SENSE reports it, as data.
        let attention = match decoded {
            Ok(Decoded::Inquiry { .. } | Decoded::ReportLuns { .. }) => None,
            Ok(Decoded::RequestSense { .. }) => {
                self.unit_attentions.pop_front().map(Fate::ReportSense)
            }
            _ => self.unit_attentions.pop_front().map(Fate::Sense),
        };
        if let Some(fate) = attention {
            return fate;
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

fn is_medium_access_or_tur(decoded: &Decoded) -> bool {
    match decoded {
        Decoded::TestUnitReady
        | Decoded::Read(_)
        | Decoded::Write { .. }
        | Decoded::SynchronizeCache(_)
        | Decoded::Unmap { .. }
        | Decoded::WriteSame { .. } => true,
        Decoded::RequestSense { .. }
        | Decoded::Inquiry { .. }
        | Decoded::ModeSense(_)
        | Decoded::ReadCapacity10
        | Decoded::ReadCapacity16 { .. }
        | Decoded::ReportLuns { .. } => false,
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Times(n) => write!(f, "{n} more"),
            Left::Always => f.write_str("always"),
        }
    }
}

impl fmt::Display for Faults {
    /// `cut, delay 5ms, sense 02/04/0b (3 more)`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        if words.is_empty() { f.write_str("none") } else { f.write_str(&words.join(", ")) }
    }
}
