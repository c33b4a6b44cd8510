//! What can go wrong, and what the faults of one path do to a new task.
//!
//! State only; ending the tasks that are already pending, and the faults that
//! concern the LU, are the array's part.

pub(super) mod words;

use std::fmt;
use std::time::Duration;

use super::attention::Attentions;
use super::command::{self, Command};
use super::owner::{Access, BECOMING_READY};
use super::reservation::foreign::Foreign;
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
    /// The next `count` commands that move or verify blocks end with CHECK
    /// CONDITION, not executed, TEST UNIT READY and everything else being
    /// served: the path says that it takes I/O and takes none. 0 means until
    /// [`Fault::Plug`].
    IoSense {
        /// Which sense.
        code: SenseCode,
        /// How many commands.
        count: u32,
    },
    /// The same with a host byte.
    IoHostByte {
        /// Which host byte.
        host: HostByte,
        /// How many commands.
        count: u32,
    },
    /// The next `count` SET TARGET PORT GROUPS or MODE SELECTs end with CHECK
    /// CONDITION, not executed: 05/91/36, 05/04/00, 02/04/03. 0 means until
    /// [`Fault::Plug`].
    ActivationSense {
        /// Which sense.
        code: SenseCode,
        /// How many commands.
        count: u32,
    },
    /// The next `count` PERSISTENT RESERVE OUTs of the path end so; 0 means
    /// until [`Fault::Plug`].
    ReserveFails {
        /// How.
        end: ReserveEnd,
        /// How many commands.
        count: u32,
    },
    /// Another host does something about the LU's reservation, at once and
    /// whatever is wrong with the path.
    Foreign {
        /// Its initiator port; not one of ours, which are 0 unless they say
        /// otherwise.
        host: u16,
        /// What it does.
        order: Foreign,
    },
    /// The array forgets the registration of the path's nexus, and tells
    /// nobody; with it the reservation if that nexus holds it.
    ForgetRegistration,
    /// The array loses all that it knows of the LU's reservations, and tells
    /// nobody: REPLACE LOST RESERVATION is for that.
    LoseReservations,
    /// A REGISTER that arrives while another is under way with the LU takes so
    /// much longer; zero ends it.
    RegisterStall(Duration),
    /// A registration with the LU counts for all target ports: there is one for
    /// each initiator port, as with arrays that want ALL_TG_PT. Or no longer.
    PerInitiator(bool),
    /// The LU tells every unit attention before RESERVATION CONFLICT, as many
    /// targets do, not only those that SAM-5 5.3.3 wants first. Or no longer.
    AttentionsFirst(bool),
    /// The array loses its power and has it back at once: every task ends with
    /// `DID_TRANSPORT_DISRUPTED`, not executed, those of [`Fault::LateCut`]
    /// too; what LUs have is as after a reset, but for blocks; registrations
    /// without APTPL are gone. Raises 06/29/00 on every path.
    PowerLoss,
    /// What the host says of the path changes, until [`Fault::Plug`].
    Device(DeviceState),
    /// As [`Fault::Cut`], but what the pending writes were to do is done after
    /// this long, whatever the initiator does meanwhile: an array that does
    /// not end a nexus's tasks when it is lost. No initiator can defend itself
    /// (the known limit of law 1 of `docs/architecture.md`).
    LateCut(Duration),
    /// The path's controller goes down: for every path of its target port
    /// group, [`Fault::Cut`] before execution. After `takeover` the other
    /// groups are active/optimized, and own what it owned; until then they are
    /// transitioning (those that have something to change). Raises what that
    /// raises.
    ControllerDown {
        /// How long the others take.
        takeover: Duration,
    },
    /// The path's controller is up again: active/optimized if no other group
    /// is, else active/non-optimized, or what it was if it was not active. It
    /// owns what nobody owns. Raises 06/29/00 on the group's paths and 06/2a/06
    /// everywhere.
    ControllerUp,
    /// The array's firmware is upgraded: every path answers `how` for so long
    /// (zero ends it now); owners do not change. At its end 06/3f/01 is raised
    /// everywhere, after [`Upgrade::Gone`] also 06/29/00.
    Upgrade {
        /// What initiators see of it.
        how: Upgrade,
        /// Until it is done.
        lasting: Duration,
    },
    /// The path's target port group wants to change its state and cannot: it
    /// is `transitioning` for so long, then what it was; 06/2a/07 everywhere.
    AluaFails {
        /// How long it tries.
        transition: Duration,
    },
    /// The path's controller takes the LU, as if another host had asked for
    /// it: it becomes its owner, or where LUs have none, the path's target
    /// port group becomes active/optimized. Takes the time that
    /// [`super::Array::set_transition`] says.
    TakeOwnership,
    /// How long the array takes for what an initiator asks of it from now on,
    /// see [`super::Array::set_transition`].
    Transition(Duration),
    /// The path's target port group changes its access state; not zero:
    /// through `transitioning` for so long (longer than an initiator waits, if
    /// it is to be that). Raises 06/2a/06 everywhere when the new state is
    /// reached.
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

/// How a PERSISTENT RESERVE OUT ends that a fault has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveEnd {
    /// With CHECK CONDITION, not executed.
    Sense(SenseCode),
    /// With a host byte, not executed.
    HostByte(HostByte),
    /// With RESERVATION CONFLICT, not executed.
    Conflict,
    /// Executed; the status is lost: `DID_TRANSPORT_DISRUPTED`.
    StatusLost,
}

impl ReserveEnd {
    fn fate(self) -> Fate {
        match self {
            ReserveEnd::Sense(code) => Fate::Sense(code),
            ReserveEnd::HostByte(host) => Fate::Host(host),
            ReserveEnd::Conflict => Fate::Status(Status::RESERVATION_CONFLICT),
            ReserveEnd::StatusLost => Fate::StatusLost,
        }
    }
}

impl fmt::Display for ReserveEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReserveEnd::Sense(code) => write!(f, "sense {code}"),
            ReserveEnd::HostByte(host) => write!(f, "{host}"),
            ReserveEnd::Conflict => write!(f, "{}", Status::RESERVATION_CONFLICT),
            ReserveEnd::StatusLost => f.write_str("status lost"),
        }
    }
}

/// What the host says of a path (sysfs `device/state`), and does with its
/// commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// Commands go to the array.
    #[default]
    Running,
    /// New commands wait, whatever their timeout, until it is something else.
    Blocked,
    /// Commands end at once with `DID_NO_CONNECT`.
    Offline,
}

impl DeviceState {
    /// Every one and its word in commands, which is sysfs's.
    pub const NAMES: [(DeviceState, &'static str); 3] = [
        (DeviceState::Running, "running"),
        (DeviceState::Blocked, "blocked"),
        (DeviceState::Offline, "offline"),
    ];
}

/// What an upgrade of the firmware looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Medium accesses and TEST UNIT READY end with status BUSY.
    Busy,
    /// They end with 02/04/01.
    BecomingReady,
    /// Every path is cut, as by [`CutMode::Before`].
    Gone,
}

impl Upgrade {
    /// Every one and its word in commands.
    pub const NAMES: [(Upgrade, &'static str); 3] = [
        (Upgrade::Busy, "busy"),
        (Upgrade::BecomingReady, "becoming-ready"),
        (Upgrade::Gone, "gone"),
    ];

    pub(super) fn name(self) -> &'static str {
        Upgrade::NAMES.iter().find(|(how, _)| *how == self).map_or("", |(_, name)| name)
    }
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
    io_sense: Option<(SenseCode, Left)>,
    io_host: Option<(HostByte, Left)>,
    activation: Option<(SenseCode, Left)>,
    reserve: Option<(ReserveEnd, Left)>,
    device: DeviceState,
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
    /// Executed already; what has to follow that has followed.
    Good {
        /// Bytes of data-out that were used.
        taken: usize,
    },
    /// Executed, but the answer does not arrive.
    StatusLost,
    /// Executed, but it has ended long ago: nobody hears of it.
    Ghost,
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
    /// Whether a reservation forbids it, and that is said first.
    pub(super) conflicts: bool,
    pub(super) access: Access,
    pub(super) upgrade: Option<Upgrade>,
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

    /// What the host says of the path.
    pub fn device_state(&self) -> DeviceState {
        self.device
    }

    /// Extra service time.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Takes note of a fault of the path; others are the array's.
    pub(super) fn apply(&mut self, fault: Fault) {
        let left = |count| if count == 0 { Left::Always } else { Left::Times(count) };
        match fault {
            Fault::Cut(_) | Fault::LateCut(_) => self.cut = true,
            Fault::Plug => *self = Faults::default(),
            Fault::Hang => self.hang = true,
            Fault::Delay(delay) => self.delay = delay,
            Fault::Sense { code, count } => self.sense = Some((code, left(count))),
            Fault::HostByte { host, count } => self.host = Some((host, left(count))),
            Fault::IoSense { code, count } => self.io_sense = Some((code, left(count))),
            Fault::IoHostByte { host, count } => self.io_host = Some((host, left(count))),
            Fault::ActivationSense { code, count } => self.activation = Some((code, left(count))),
            Fault::ReserveFails { end, count } => self.reserve = Some((end, left(count))),
            Fault::Device(state) => self.device = state,
            Fault::Busy { count } => self.status = Some((Status::BUSY, left(count))),
            Fault::TaskSetFull { count } => {
                self.status = Some((Status::TASK_SET_FULL, left(count)));
            }
            _ => {}
        }
    }

    /// Decides about a new task, and uses up what it is answered with.
    pub(super) fn judge(&mut self, arrival: &mut Arrival<'_>) -> Verdict {
        if self.cut || self.device == DeviceState::Offline || arrival.upgrade == Some(Upgrade::Gone)
        {
            return Verdict::Refuse(HostByte::NO_CONNECT);
        }
        if self.hang {
            return Verdict::Lose;
        }
        Verdict::Serve { delay: self.delay, fate: self.fate(arrival) }
    }

    /// An injected host byte or status comes before the LU's word, a reset
    /// before a reservation, that before other unit attentions (SAM-5 5.3.3),
    /// those before the access state, that before injected sense.
    fn fate(&mut self, arrival: &mut Arrival<'_>) -> Fate {
        let targeted = arrival.command.is_some_and(|command| command.targeted);
        let io = targeted && arrival.opcode != command::TEST_UNIT_READY;
        if targeted && arrival.upgrade == Some(Upgrade::Busy) {
            return Fate::Status(Status::BUSY);
        }
        if io {
            if let Some(host) = take(&mut self.io_host) {
                return Fate::Host(host);
            }
        }
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
        if arrival.conflicts {
            return Fate::Status(Status::RESERVATION_CONFLICT);
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
        if let Some(code) = served.refusal(arrival.access.state) {
            return Fate::Sense(code);
        }
        if targeted && arrival.upgrade == Some(Upgrade::BecomingReady) {
            return Fate::Sense(BECOMING_READY);
        }
        if let Some(code) = arrival.access.passive.filter(|_| io || arrival.access.tur_too) {
            if targeted {
                return Fate::Sense(code);
            }
        }
        let injected = match arrival.opcode {
            _ if io => take(&mut self.io_sense).or_else(|| take(&mut self.sense)),
            _ if targeted => take(&mut self.sense),
            command::MODE_SELECT_6 | command::MODE_SELECT_10 | command::MAINTENANCE_OUT => {
                take(&mut self.activation)
            }
            command::PERSISTENT_RESERVE_OUT => {
                return take(&mut self.reserve).map_or(Fate::Execute, ReserveEnd::fate);
            }
            _ => None,
        };
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
        if let Some((code, left)) = self.io_sense {
            words.push(format!("I/O: sense {code} ({left})"));
        }
        if let Some((host, left)) = self.io_host {
            words.push(format!("I/O: {host} ({left})"));
        }
        if let Some((code, left)) = self.activation {
            words.push(format!("activation: sense {code} ({left})"));
        }
        if let Some((end, left)) = self.reserve {
            words.push(format!("reserving: {end} ({left})"));
        }
        match self.device {
            DeviceState::Running => {}
            DeviceState::Blocked => words.push("blocked".to_owned()),
            DeviceState::Offline => words.push("offline".to_owned()),
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
