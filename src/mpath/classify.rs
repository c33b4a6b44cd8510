//! What a completion means: one table from (host byte, status, sense, errno)
//! to a [`Disposition`].
//!
//! The table is the whole policy; it is tested row by row, printed by the
//! tools (the rule's name stands in every event) and extended by adding rows.
//! First match wins. Pure; used by the request core on the queue threads.
//!
//! Sources: the kernel's `scsi_decide_disposition`, `scsi_check_sense` and
//! `blk_path_error`, and SPC-5 4.4; the differences are deliberate: the kernel
//! sees one path, we see all of them (law 4: the LU's word is passed on, a
//! path's word is not).

use std::time::Duration;

use crate::io::{Completion, ErrnoFrom};
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

/// What the completion says about the path it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathVerdict {
    /// Nothing against it.
    Keep,
    /// It failed; only the engine reinstates it.
    Fail,
    /// It may lead to something else now: no new issue until its identity has
    /// been proven again (law 2).
    Doubt,
    /// Unclear: have the checker look at it, meanwhile keep using it.
    Check,
    /// It is in order, but its target port group does not carry I/O now
    /// (standby, unavailable, offline, in transition: the sense says which).
    /// No new issue until the engine has read the access state; no failure.
    Passive,
    /// It goes on, but its priority or access state may be another one now:
    /// have the prioritizer read it.
    Refresh,
    /// It works but badly (`DID_TRANSPORT_MARGINAL`): to be used last.
    Marginal,
    /// Its nexus may have lost the guest's registration: no new issue until
    /// the engine knows; no failure (law 5).
    Conflict,
}

/// Where the command goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Finished well.
    Done,
    /// The LU's answer: the guest gets it.
    Deliver,
    /// Our own or the host's error, no path's fault: the guest gets an error.
    Own,
    /// The same path again, at most `tries` times at once, then as `Deliver`.
    Again {
        /// Most immediate repetitions.
        tries: u8,
    },
    /// Any path, after `delay`, until the command's time budget has run out;
    /// then as `Deliver`.
    Later {
        /// Wait this long first.
        delay: Duration,
    },
    /// A path that has not answered this command yet; when every usable path
    /// has, they agree and it is the LU's answer (LU-versus-path verdict). A
    /// path that is the only usable one is asked twice.
    Other,
    /// Like `Other`, but what all agree on may have passed already: so many
    /// rounds over the paths, one at once after the other.
    OtherInRounds {
        /// Rounds in all.
        rounds: u8,
    },
    /// Like `Other`, but what all agree on may pass: ask again after `delay`,
    /// until the command's time budget has run out.
    OtherThenLater {
        /// Pause between two rounds over the paths.
        delay: Duration,
    },
    /// Like `Other`, by SCSI passthrough, to learn the sense the block layer
    /// kept to itself; falls back to the same path if there is no other.
    OtherPassthrough,
}

/// Whether the command may have had an effect on the medium (law 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// Certainly not.
    No,
    /// Perhaps.
    Maybe,
}

/// The decision for one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// Name of the rule, for events and `ctl why`.
    pub rule: &'static str,
    /// Verdict on the path.
    pub path: PathVerdict,
    /// Verdict on the command.
    pub next: Next,
    /// For commands that are not idempotent.
    pub executed: Executed,
}

impl PathVerdict {
    /// Nothing new goes there until the engine has decided, so that what the
    /// path said is nobody's answer.
    pub fn puts_aside(self) -> bool {
        use PathVerdict::{Conflict, Doubt, Fail, Passive};
        matches!(self, Fail | Doubt | Passive | Conflict)
    }
}

impl Disposition {
    /// The command goes round again, somewhere, at some time.
    pub fn is_retried(&self) -> bool {
        !matches!(self.next, Next::Done | Next::Deliver | Next::Own)
    }

    /// The LU has refused the command because of a reservation.
    pub fn is_conflict(&self) -> bool {
        CONFLICTS.contains(&self.rule)
    }

    /// A conflict as the path's word: its nexus is not registered, though the
    /// guest is. (The LU checks reservations before it does anything.)
    #[must_use]
    pub fn of_an_unregistered_path(self) -> Disposition {
        let (path, next, executed) = (PathVerdict::Conflict, Next::Other, Executed::No);
        Disposition { path, next, executed, ..self }
    }
}

/// What a row of the table looks at.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Host byte.
    Host(HostByte),
    /// Any other host byte but `DID_OK`.
    AnyHost,
    /// Status byte, with host byte `DID_OK`.
    Status(Status),
    /// Sense is about an earlier command.
    Deferred,
    /// Key, ASC and ASCQ.
    Code(u8, u8, u8),
    /// Key and ASC, any ASCQ.
    Asc(u8, u8),
    /// Sense key, anything else.
    Key(u8),
    /// CHECK CONDITION without usable sense.
    NoSense,
    /// An errno of one interface.
    Errno(ErrnoFrom, i32),
    /// Any other errno of one interface.
    AnyErrno(ErrnoFrom),
}

/// One row: condition, then the three verdicts.
pub type Row = (&'static str, When, PathVerdict, Next, Executed);

const BUSY_DELAY: Duration = Duration::from_millis(10);
const NOT_READY_DELAY: Duration = Duration::from_millis(200);
const HOST_ERROR_DELAY: Duration = Duration::from_millis(100);

/// The table. Order matters: specific before general.
#[rustfmt::skip]
pub const TABLE: &[Row] = {
    use Executed::{Maybe, No};
    use Next::{Again, Deliver, Done, Later, Other, OtherInRounds, OtherPassthrough, OtherThenLater, Own};
    use PathVerdict::{Check, Doubt, Fail, Keep, Marginal, Passive, Refresh};
    use When::{AnyErrno, AnyHost, Asc, Code, Deferred, Errno, Host};
    use ErrnoFrom::{Block, File, Ioctl};
    &[
    // The transport's word.
    // Host adapters answer so, too, for what was under way when the port or the adapter went.
    ("host-no-connect",           Host(HostByte::NO_CONNECT),           Fail,  Other,            Maybe),
    ("host-bad-target",           Host(HostByte::BAD_TARGET),           Fail,  Other,            No),
    ("host-transport-disrupted",  Host(HostByte::TRANSPORT_DISRUPTED),  Fail,  Other,            Maybe),
    ("host-transport-failfast",   Host(HostByte::TRANSPORT_FAILFAST),   Fail,  Other,            Maybe),
    ("host-transport-marginal",   Host(HostByte::TRANSPORT_MARGINAL),   Marginal, Other,            Maybe),
    ("host-time-out",             Host(HostByte::TIME_OUT),             Fail,  Other,            Maybe),
    ("host-soft-error",           Host(HostByte::SOFT_ERROR),           Check, Again { tries: 1 }, Maybe),
    ("host-bus-busy",             Host(HostByte::BUS_BUSY),             Check, Again { tries: 1 }, Maybe),
    ("host-imm-retry",            Host(HostByte::IMM_RETRY),            Keep,  Again { tries: 5 }, Maybe),
    ("host-requeue",              Host(HostByte::REQUEUE),              Keep,  Again { tries: 5 }, Maybe),
    ("host-reset",                Host(HostByte::RESET),                Check, Again { tries: 5 }, Maybe),
    ("host-target-failure",       Host(HostByte::TARGET_FAILURE),       Keep,  Deliver,          Maybe),
    ("host-nexus-failure",        Host(HostByte::NEXUS_FAILURE),        Keep,  Deliver,          Maybe),
    ("host-alloc-failure",        Host(HostByte::ALLOC_FAILURE),        Keep,  Deliver,          Maybe),
    ("host-medium-error",         Host(HostByte::MEDIUM_ERROR),         Keep,  Deliver,          Maybe),
    ("host-error",                Host(HostByte::ERROR),                Fail,  Other,            Maybe),
    ("host-other",                AnyHost,                              Fail,  Other,            Maybe),
    // The LU's status.
    ("busy",                      When::Status(Status::BUSY),           Keep,  Later { delay: BUSY_DELAY }, No),
    ("task-set-full",             When::Status(Status::TASK_SET_FULL),  Keep,  Later { delay: BUSY_DELAY }, No),
    ("task-aborted",              When::Status(Status::TASK_ABORTED),   Keep,  Again { tries: 5 }, Maybe),
    ("reservation-conflict",      When::Status(Status::RESERVATION_CONFLICT), Keep, Deliver,     No),
    ("aca-active",                When::Status(Status::ACA_ACTIVE),     Keep,  Deliver,          No),
    ("condition-met",             When::Status(Status::CONDITION_MET),  Keep,  Done,             Maybe),
    // The LU's sense.
    ("sense-deferred",            Deferred,                             Keep,  Again { tries: 5 }, No),
    ("no-sense",                  When::Key(0x0),                       Keep,  Done,             Maybe),
    ("recovered",                 When::Key(0x1),                       Keep,  Done,             Maybe),
    ("becoming-ready",            Code(0x2, 0x04, 0x01),                Keep,  Later { delay: NOT_READY_DELAY }, No),
    ("alua-transition",           Code(0x2, 0x04, 0x0a),                Passive, Other,          No),
    ("alua-standby",              Code(0x2, 0x04, 0x0b),                Passive, Other,          No),
    ("alua-unavailable",          Code(0x2, 0x04, 0x0c),                Passive, Other,          No),
    ("alua-offline",              Code(0x2, 0x04, 0x12),                Passive, Other,          No),
    ("not-ready",                 When::Key(0x2),                       Check, OtherThenLater { delay: NOT_READY_DELAY }, No),
    ("medium",                    When::Key(0x3),                       Keep,  Deliver,          Maybe),
    ("hardware-target",           Asc(0x4, 0x3e),                       Check, Other,            Maybe),
    ("hardware-internal",         Asc(0x4, 0x44),                       Check, Other,            Maybe),
    ("hardware",                  When::Key(0x4),                       Keep,  Deliver,          Maybe),
    ("lun-not-supported",         Code(0x5, 0x25, 0x00),                Fail,  Other,            No),
    // What a LU says of a command or its fields.
    ("illegal-list-length",       Asc(0x5, 0x1a),                       Keep,  Deliver,          No),
    ("illegal-opcode",            Asc(0x5, 0x20),                       Keep,  Deliver,          No),
    ("illegal-lba",               Asc(0x5, 0x21),                       Keep,  Deliver,          No),
    ("illegal-function",          Asc(0x5, 0x22),                       Keep,  Deliver,          No),
    ("illegal-field",             Asc(0x5, 0x24),                       Keep,  Deliver,          No),
    ("illegal-parameter",         Asc(0x5, 0x26),                       Keep,  Deliver,          No),
    ("illegal-write-protected",   Asc(0x5, 0x27),                       Keep,  Deliver,          No),
    ("illegal-sequence",          Asc(0x5, 0x2c),                       Keep,  Deliver,          No),
    // What an RDAC controller says that does not own the LU.
    ("rdac-not-owner",            Code(0x5, 0x94, 0x01),                Passive, Other,          No),
    // Anything else of that key may be one controller's trouble: does another path say so, too?
    ("illegal-request",           When::Key(0x5),                       Check, Other,            No),
    ("ua-inquiry-changed",        Code(0x6, 0x3f, 0x03),                Doubt, Other,            No),
    ("ua-luns-changed",           Code(0x6, 0x3f, 0x0e),                Doubt, Other,            No),
    ("ua-alua-transition",        Code(0x6, 0x04, 0x0a),                Refresh, Later { delay: NOT_READY_DELAY }, No),
    ("ua-alua-changed",           Code(0x6, 0x2a, 0x06),                Refresh, Again { tries: 5 }, No),
    ("ua-alua-failed",            Code(0x6, 0x2a, 0x07),                Refresh, Again { tries: 5 }, No),
    ("ua-rdac-quiescing",         Code(0x6, 0x8b, 0x02),                Refresh, Later { delay: NOT_READY_DELAY }, No),
    ("ua-reset",                  Asc(0x6, 0x29),                       Doubt, Other,            No),
    ("ua-capacity-changed",       Code(0x6, 0x2a, 0x09),                Check, Again { tries: 5 }, No),
    ("ua-other",                  When::Key(0x6),                       Keep,  Again { tries: 5 }, No),
    ("data-protect",              When::Key(0x7),                       Keep,  Deliver,          No),
    ("blank-check",               When::Key(0x8),                       Keep,  Deliver,          Maybe),
    ("copy-aborted",              When::Key(0xa),                       Keep,  Deliver,          Maybe),
    ("volume-overflow",           When::Key(0xd),                       Keep,  Deliver,          Maybe),
    ("miscompare",                When::Key(0xe),                       Keep,  Deliver,          Maybe),
    ("aborted-protection",        Asc(0xb, 0x10),                       Keep,  Deliver,          Maybe),
    ("aborted-duration-limit",    Asc(0xb, 0x2e),                       Keep,  Deliver,          Maybe),
    // Nothing is wrong with the command, and no front-end of block requests repeats it: as often as
    // Linux's sd would for a disk of one path, or more.
    ("aborted",                   When::Key(0xb),                       Check, OtherInRounds { rounds: 3 }, Maybe),
    ("sense-none",                When::NoSense,                        Check, Other,            Maybe),
    // The block layer's word: errno decides first, sense is fetched only where it is ambiguous.
    // What the LU refuses, or one controller's hardware error.
    ("block-target",              Errno(Block, libc::EREMOTEIO),        Check, OtherPassthrough, Maybe),
    ("block-medium",              Errno(Block, libc::ENODATA),          Keep,  Deliver,          Maybe),
    ("block-reservation",         Errno(Block, libc::EBADE),            Keep,  Deliver,          No),
    // A deleted device has no blocks left, and says so of a write by the same errno as a thin LU
    // that is full: another path's sense tells them apart (07/27/07 is delivered).
    ("block-no-space",            Errno(Block, libc::ENOSPC),           Check, OtherPassthrough, Maybe),
    ("block-protection",          Errno(Block, libc::EILSEQ),           Keep,  Deliver,          Maybe),
    ("block-unsupported",         Errno(Block, libc::EOPNOTSUPP),       Keep,  Deliver,          No),
    ("block-no-device",           Errno(Block, libc::ENODEV),           Fail,  Other,            No),
    ("block-no-address",          Errno(Block, libc::ENXIO),            Fail,  Other,            No),
    ("block-link",                Errno(Block, libc::ENOLINK),          Fail,  Other,            Maybe),
    ("block-timeout",             Errno(Block, libc::ETIMEDOUT),        Fail,  Other,            Maybe),
    ("block-again",               Errno(Block, libc::EAGAIN),           Keep,  Later { delay: BUSY_DELAY }, No),
    ("block-io",                  Errno(Block, libc::EIO),              Check, OtherPassthrough, Maybe),
    ("block-other",               AnyErrno(Block),                      Keep,  Own,              Maybe),
    // ioctl(SG_IO) itself failed: a dead device, or our own mistake.
    // sg answers so for a command that was under way when the device went.
    ("ioctl-no-device",           Errno(Ioctl, libc::ENODEV),           Fail,  Other,            Maybe),
    ("ioctl-no-address",          Errno(Ioctl, libc::ENXIO),            Fail,  Other,            No),
    // Never the ioctl's own: a checker has met what questions the path's identity.
    ("identity-in-doubt",         Errno(Ioctl, libc::ESTALE),           Doubt, Other,            No),
    ("ioctl-again",               Errno(Ioctl, libc::EAGAIN),           Keep,  Later { delay: BUSY_DELAY }, No),
    ("ioctl-other",               AnyErrno(Ioctl),                      Keep,  Own,              No),
    ("file",                      AnyErrno(File),                       Keep,  Own,              Maybe),
    ]
};

/// Where a command that the guest composed itself goes instead, by rule: it
/// knows what it asked for, so that what amounts to success for a block
/// operation, or may pass if one waits, is for the guest to judge (law 4).
#[rustfmt::skip]
pub const RAW: &[(&str, Next)] = &[
    // The kernel ends a command so that meets a device just being deleted, too.
    ("host-error",     Next::OtherThenLater { delay: HOST_ERROR_DELAY }),
    ("condition-met",  Next::Deliver),
    ("sense-deferred", Next::Deliver),
    ("no-sense",       Next::Deliver),
    ("recovered",      Next::Deliver),
    // Not before the other paths were asked: it may be one controller's word.
    ("becoming-ready", Next::Other),
    ("not-ready",      Next::Other),
    ("aborted",        Next::Other),
    ("unknown",        Next::Deliver),
];

/// Rules by which an LU refuses a command because of a reservation. While the
/// guest has a key registered, that may be a path's trouble
/// ([`Disposition::of_an_unregistered_path`]).
pub const CONFLICTS: &[&str] = &["host-nexus-failure", "reservation-conflict", "block-reservation"];

/// Host bytes a guest can bring about by a CDB that does not go with its
/// buffers: it must not fail path after path with it. The checker decides.
const BY_THE_GUEST: &[&str] = &["host-error"];

const GOOD: Disposition = Disposition {
    rule: "good",
    path: PathVerdict::Keep,
    next: Next::Done,
    executed: Executed::Maybe,
};

/// No row matched: a status the standard does not define. Let another path
/// say what it thinks.
const UNKNOWN: Disposition = Disposition {
    rule: "unknown",
    path: PathVerdict::Check,
    next: Next::Other,
    executed: Executed::Maybe,
};

/// A transfer that stopped before it began, with no error named.
const NOTHING_MOVED: Disposition = Disposition {
    rule: "nothing-moved",
    path: PathVerdict::Check,
    next: Next::Other,
    executed: Executed::Maybe,
};

/// Status GOOD, or sense that amounts to it, but bytes are missing and nobody
/// says why: not done.
const UNDERRUN: Disposition = Disposition {
    rule: "underrun",
    path: PathVerdict::Check,
    next: Next::Other,
    executed: Executed::Maybe,
};

/// Decides what a completion means.
///
/// `Short(n)` with n > 0 is `Done` here; the request core continues it.
pub fn classify(completion: &Completion) -> Disposition {
    match completion {
        Completion::Good => GOOD,
        Completion::Short(0) => NOTHING_MOVED,
        Completion::Short(_) => GOOD,
        Completion::Scsi { status: Status::GOOD, host: HostByte::OK, residual: 0, .. } => GOOD,
        Completion::Scsi { status: Status::GOOD, host: HostByte::OK, .. } => UNDERRUN,
        _ => {
            let row = TABLE.iter().find(|row| matches(row.1, completion));
            match (row.map_or(UNKNOWN, disposition), completion) {
                (Disposition { next: Next::Done, .. }, Completion::Scsi { residual, .. })
                    if *residual > 0 =>
                {
                    UNDERRUN
                }
                (decided, _) => decided,
            }
        }
    }
}

/// Decides what the completion of a command means that the guest composed
/// itself: as [`classify`], but for the rules of [`RAW`], and missing bytes
/// mean nothing, whatever the status: the guest is told how many.
///
/// `Done` is a plain GOOD; `Short` is GOOD with a residual.
pub fn classify_raw(completion: &Completion) -> Disposition {
    match completion {
        Completion::Good => GOOD,
        Completion::Short(_) => Disposition { next: Next::Deliver, ..GOOD },
        Completion::Scsi { status: Status::GOOD, host: HostByte::OK, sense, residual } => {
            let plain = sense.is_empty() && *residual == 0;
            Disposition { next: if plain { Next::Done } else { Next::Deliver }, ..GOOD }
        }
        _ => {
            let row = TABLE.iter().find(|row| matches(row.1, completion));
            let decided = row.map_or(UNKNOWN, disposition);
            let own = RAW.iter().find(|(rule, _)| *rule == decided.rule);
            let next = own.map_or(decided.next, |&(_, next)| next);
            let path = if BY_THE_GUEST.contains(&decided.rule) {
                PathVerdict::Check
            } else {
                decided.path
            };
            Disposition { path, next, ..decided }
        }
    }
}

/// The sense of a unit attention, if that is what the LU answered with.
pub fn unit_attention(completion: &Completion) -> Option<&Sense> {
    match completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, host, sense, .. }
            if *host == HostByte::OK || is_lu_word(*host) =>
        {
            let code = sense.code().filter(|_| !sense.is_deferred());
            code.filter(|c| c.key == Key::UnitAttention).map(|_| sense)
        }
        _ => None,
    }
}

/// The sense of a deferred error, if the LU answered with one.
pub fn deferred_error(completion: &Completion) -> Option<&Sense> {
    match completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, sense, .. } => {
            (sense.code().is_some() && sense.is_deferred()).then_some(sense)
        }
        _ => None,
    }
}

/// Whether the LU itself has spoken, and what it said is known.
pub fn is_word_of_lu(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { status, host, sense, .. } => {
            let by_lu = *host == HostByte::OK || is_lu_word(*host);
            by_lu && (*status != Status::CHECK_CONDITION || sense.code().is_some())
        }
        _ => false,
    }
}

/// Whether the path lost the command by a timeout.
pub fn is_timeout(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { host, .. } => *host == HostByte::TIME_OUT,
        Completion::Errno { code, .. } => *code == libc::ETIMEDOUT,
        Completion::Good | Completion::Short(_) => false,
    }
}

fn disposition(row: &Row) -> Disposition {
    let &(rule, _, path, next, executed) = row;
    Disposition { rule, path, next, executed }
}

fn matches(when: When, completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { status, host, sense, .. } if *host != HostByte::OK => match when {
            // The kernel sets the permanent-failure host bytes itself, from
            // the sense it saw; the sense is more exact where it is there.
            When::Host(h) => h == *host && !(is_lu_word(*host) && sense.code().is_some()),
            When::AnyHost => !is_lu_word(*host),
            _ => is_lu_word(*host) && matches_scsi(when, *status, sense),
        },
        Completion::Scsi { status, sense, .. } => matches_scsi(when, *status, sense),
        Completion::Errno { from, code } => match when {
            When::Errno(f, c) => f == *from && c == *code,
            When::AnyErrno(f) => f == *from,
            _ => false,
        },
        Completion::Good | Completion::Short(_) => false,
    }
}

/// Host bytes the kernel derives from the LU's own answer.
fn is_lu_word(host: HostByte) -> bool {
    matches!(
        host,
        HostByte::TARGET_FAILURE
            | HostByte::NEXUS_FAILURE
            | HostByte::ALLOC_FAILURE
            | HostByte::MEDIUM_ERROR
    )
}

fn matches_scsi(when: When, status: Status, sense: &Sense) -> bool {
    if let When::Status(s) = when {
        return s == status;
    }
    if status != Status::CHECK_CONDITION {
        return false;
    }
    let code = sense.code();
    match (when, code) {
        (When::NoSense, code) => code.is_none(),
        (When::Deferred, Some(_)) => sense.is_deferred(),
        (When::Code(k, a, q), Some(c)) => c == SenseCode::new(Key::from_bits(k), a, q),
        (When::Asc(k, a), Some(c)) => c.key == Key::from_bits(k) && c.asc == a,
        (When::Key(k), Some(c)) => c.key == Key::from_bits(k),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
