//! A thin io_uring: what a queue thread's reactor and the transports need.
//!
//! Owned and used by one thread (`SINGLE_ISSUER` where the kernel has it).
//! User data are opaque numbers; who they belong to is the reactor's business.
//! No retries and no policy: a result is handed over as the kernel gave it.
//!
//! A ring is narrow until somebody asks for commands to bsg nodes, which the
//! kernel takes by a wide ring only; then [`Uring::widen`] puts a wide one in
//! its place (ADR 0005 says why not both shapes in one ring).

mod ring;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::{opcode, squeue, types};

use super::bsg;
use super::eventfd::EventFd;
use crate::io::Segment;
use ring::Ring;

/// How far the set-up had to fall back; newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1).
    Deferred,
    /// COOP_TASKRUN (Linux 5.19).
    Cooperative,
    /// No flags.
    Plain,
}

impl Mode {
    /// For `status`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Deferred => "deferred",
            Mode::Cooperative => "cooperative",
            Mode::Plain => "plain",
        }
    }
}

/// Flags of one read or write (`RWF_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RwFlags(libc::c_int);

impl RwFlags {
    /// None.
    pub const NONE: RwFlags = RwFlags(0);
    /// Durable before it completes (RWF_DSYNC): force unit access.
    pub const DSYNC: RwFlags = RwFlags(libc::RWF_DSYNC);
}

/// How long [`Uring::submit_and_wait`] waits for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    AtMost(Duration),
    /// For ever.
    Forever,
}

/// A completion as the kernel gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// What the operation was queued with.
    pub user_data: u64,
    /// Its result, or a negative errno.
    pub result: i32,
    /// More completions of the same operation will come.
    pub more: bool,
    /// The second result, which only commands to devices have.
    pub extra: u64,
}

/// User data of the watch on a ring that was replaced; nobody else's.
const OLD_RING: u64 = u64::MAX - 1;

/// The narrow ring that a wide one replaced, where it had operations in the
/// kernel. Takes no new ones, and costs nothing once they are back.
struct Old {
    ring: Ring,
    /// Signalled by the kernel when one has ended. (A poll of the ring itself
    /// would not do: with deferred completions that is ready only after a system
    /// call on the ring.)
    ended: EventFd,
}

/// One io_uring instance. Not `Send`: it stays on the thread that made it.
pub struct Uring {
    ring: Ring,
    old: Option<Old>,
    entries: u32,
    mode: Mode,
    /// Something other than a watch was ever queued.
    was_used: bool,
    _stays: PhantomData<*const ()>,
}

impl Uring {
    /// A narrow ring of `entries` submissions (rounded up to a power of two)
    /// and four times as many completions.
    ///
    /// # Errors
    /// ENOSYS or EPERM where io_uring is missing or switched off
    /// (`kernel.io_uring_disabled`, seccomp); ENOMEM.
    pub fn new(entries: u32) -> io::Result<Uring> {
        Ring::narrow(entries).map(|made| Uring::of(made, entries))
    }

    /// The same, wide.
    ///
    /// # Errors
    /// As [`new`](Uring::new), and EINVAL before Linux 5.19.
    pub fn wide(entries: u32) -> io::Result<Uring> {
        Ring::wide(entries).map(|made| Uring::of(made, entries))
    }

    fn of((ring, mode): (Ring, Mode), entries: u32) -> Uring {
        Uring { ring, old: None, entries, mode, was_used: false, _stays: PhantomData }
    }

    /// Which set of flags the kernel took.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether commands to bsg nodes can be queued.
    #[inline]
    pub fn is_wide(&self) -> bool {
        self.ring.is_wide()
    }

    /// Puts a wide ring in the place of a narrow one. What is in the kernel
    /// completes as before. The watches end, `watches` names them by their user
    /// data: the caller arms them again. Completions of theirs that are under
    /// way come as if there were more to come, so that nobody arms them twice.
    ///
    /// # Errors
    /// As [`wide`](Uring::wide), EMFILE, and what
    /// [`submit_and_wait`](Uring::submit_and_wait) says. It is still the narrow
    /// ring then. Watches may have ended, each by a completion without `more`,
    /// as whenever the kernel ends one; it may be tried again.
    pub fn widen(
        &mut self,
        ignored: u64,
        watches: impl IntoIterator<Item = u64>,
    ) -> io::Result<()> {
        if self.is_wide() {
            return Ok(());
        }
        let (mut ring, mode) = Ring::wide(self.entries)?;
        if self.was_used {
            let ended = EventFd::new()?;
            // (There is one only of an attempt that failed further down.)
            let _ = self.ring.submitter().unregister_eventfd();
            self.ring.submitter().register_eventfd(ended.as_fd().as_raw_fd())?;
            let entry = watch(ended.as_fd().as_raw_fd(), OLD_RING);
            // SAFETY: points to nothing.
            if !unsafe { ring.push(&entry) } {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            for watch in watches {
                self.cancel(watch, ignored)?;
            }
            self.submit_and_wait(Wait::No)?;
            // Whatever came to an end meanwhile, or is not submitted yet.
            ended.signal();
            self.old = Some(Old { ring: std::mem::replace(&mut self.ring, ring), ended });
        } else {
            // The kernel ends its watches when it is closed.
            self.ring = ring;
        }
        self.mode = mode;
        Ok(())
    }

    fn watch_old(&mut self) -> io::Result<()> {
        let Some(old) = &self.old else { return Ok(()) };
        let entry = watch(old.ended.as_fd().as_raw_fd(), OLD_RING);
        // SAFETY: points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Puts an entry into the submission queue, making room first if it is full.
    ///
    /// # Safety
    /// What the entry points to stays valid as the operation demands.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.push(entry) } {
            return Ok(());
        }
        self.make_room()?;
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.push(entry) };
        if pushed { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) }
    }

    fn make_room(&mut self) -> io::Result<()> {
        match self.ring.submitter().submit() {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Sends a SCSI command to a bsg node. Its completion's result is zero, and
    /// what became of the command is in the second one (see [`bsg::completion`]);
    /// or the errno of a command that was not sent.
    ///
    /// # Errors
    /// EOPNOTSUPP on a narrow ring; EBUSY when the submission queue stays full.
    /// The entry was not queued then.
    ///
    /// # Safety
    /// What the command names stays mapped and, where the kernel writes to it,
    /// writable, until the completion is reaped: CDB, sense buffer of
    /// [`bsg::SENSE_BYTES`] and data. The descriptor stays open until the next
    /// [`submit_and_wait`](Uring::submit_and_wait).
    #[inline]
    pub unsafe fn bsg(
        &mut self,
        fd: BorrowedFd<'_>,
        command: &bsg::Command,
        user_data: u64,
    ) -> io::Result<()> {
        if !self.is_wide() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        self.was_used = true;
        let entry = opcode::UringCmd80::new(types::Fd(fd.as_raw_fd()), 0)
            .cmd(command.to_bytes())
            .build()
            .user_data(user_data);
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.push_wide(&entry) } {
            return Ok(());
        }
        self.make_room()?;
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.ring.push_wide(&entry) };
        if pushed { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBUSY)) }
    }

    /// Reads into the segments from byte `offset`.
    ///
    /// # Errors
    /// EBUSY when the submission queue stays full; EINVAL for more segments
    /// than fit. The entry was not queued then.
    ///
    /// # Safety
    /// The *list* stays in place until the next [`submit_and_wait`]; the memory
    /// it names stays mapped and writable, and the descriptor open, until the
    /// completion is reaped.
    ///
    /// [`submit_and_wait`]: Uring::submit_and_wait
    pub unsafe fn readv(
        &mut self,
        fd: BorrowedFd<'_>,
        segments: &[Segment],
        offset: u64,
        flags: RwFlags,
        user_data: u64,
    ) -> io::Result<()> {
        self.was_used = true;
        let fd = types::Fd(fd.as_raw_fd());
        let entry = match single(segments) {
            Some((addr, len)) => {
                opcode::Read::new(fd, addr, len).offset(offset).rw_flags(flags.0).build()
            }
            None => {
                let (list, count) = list(segments)?;
                opcode::Readv::new(fd, list, count).offset(offset).rw_flags(flags.0).build()
            }
        };
        // SAFETY: the caller keeps list and memory.
        unsafe { self.push(&entry.user_data(user_data)) }
    }

    /// Writes the segments at byte `offset`.
    ///
    /// # Errors
    /// As [`readv`](Uring::readv).
    ///
    /// # Safety
    /// As [`readv`](Uring::readv), the memory readable.
    pub unsafe fn writev(
        &mut self,
        fd: BorrowedFd<'_>,
        segments: &[Segment],
        offset: u64,
        flags: RwFlags,
        user_data: u64,
    ) -> io::Result<()> {
        self.was_used = true;
        let fd = types::Fd(fd.as_raw_fd());
        let entry = match single(segments) {
            Some((addr, len)) => {
                opcode::Write::new(fd, addr, len).offset(offset).rw_flags(flags.0).build()
            }
            None => {
                let (list, count) = list(segments)?;
                opcode::Writev::new(fd, list, count).offset(offset).rw_flags(flags.0).build()
            }
        };
        // SAFETY: the caller keeps list and memory.
        unsafe { self.push(&entry.user_data(user_data)) }
    }

    /// Makes everything written to the file durable (fdatasync).
    ///
    /// # Errors
    /// EBUSY when the submission queue stays full.
    pub fn fsync(&mut self, fd: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        self.was_used = true;
        let entry = opcode::Fsync::new(types::Fd(fd.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(user_data);
        // SAFETY: points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Watches `fd` for input: one completion per edge, with `more` set until
    /// the kernel ends the watch (then arm it again).
    ///
    /// # Errors
    /// EBUSY when the submission queue stays full.
    pub fn poll_multi(&mut self, fd: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
        let entry = watch(fd.as_raw_fd(), user_data);
        // SAFETY: points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Asks the kernel to end the operation with user data `target`. Whatever
    /// comes of it, `target`'s own completion still has to be awaited (law 1);
    /// the request to cancel completes too, as `user_data`.
    ///
    /// # Errors
    /// EBUSY when the submission queue stays full.
    pub fn cancel(&mut self, target: u64, user_data: u64) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(target).build().user_data(user_data);
        // SAFETY: points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Gives everything queued to the kernel, runs completion work, and waits.
    /// A time-out, a signal or a full completion queue is no error: reap, then
    /// come back.
    ///
    /// # Errors
    /// What io_uring_enter(2) says otherwise.
    pub fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        if wait == Wait::No && !self.ring.wants_enter() {
            return Ok(()); // completions that are there need no system call
        }
        let submitter = self.ring.submitter();
        let result = match wait {
            Wait::No => submitter.submit(),
            Wait::Forever => submitter.submit_and_wait(1),
            Wait::AtMost(limit) => {
                let limit = types::Timespec::from(limit);
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Hands over every completion that is there, oldest first; returns how
    /// many. No system call, but for what a replaced ring has left.
    #[inline]
    pub fn reap(&mut self, mut each: impl FnMut(Cqe)) -> usize {
        let mut count = 0;
        let mut old = None;
        self.ring.reap(|cqe| {
            if cqe.user_data == OLD_RING {
                old = Some(cqe.more);
            } else {
                each(cqe);
                count += 1;
            }
        });
        if let Some(still_watched) = old {
            count += self.reap_old(still_watched, each);
        }
        count
    }

    #[cold]
    fn reap_old(&mut self, still_watched: bool, mut each: impl FnMut(Cqe)) -> usize {
        let mut count = 0;
        if let Some(old) = &mut self.old {
            // First: what ends from here on is another signal. (The kernel ends
            // a watch that one ring has on another's; it is armed again below.)
            old.ended.clear();
            // Deferred completion work runs in a system call only. What it
            // cannot do now wakes the watch again.
            let _ = old.ring.submitter().submit();
            old.ring.reap(|cqe| {
                each(Cqe { more: true, ..cqe });
                count += 1;
            });
            if old.ring.queued() > 0 {
                // The kernel would not take it, for want of memory, say. Nothing
                // but this brings us back to it.
                old.ended.signal();
            }
        }
        if !still_watched && self.watch_old().is_err() {
            log::error!("cannot watch the io_uring that a wide one has replaced");
        }
        count
    }

    /// Entries queued and not yet given to the kernel.
    pub fn queued(&mut self) -> usize {
        self.ring.queued()
    }
}

/// Watches a descriptor for input, again and again.
fn watch(fd: RawFd, user_data: u64) -> squeue::Entry {
    let events = u32::try_from(libc::POLLIN).unwrap_or(0);
    let poll = opcode::PollAdd::new(types::Fd(fd), events).multi(true);
    poll.build().user_data(user_data)
}

/// Address and length of a list of one.
fn single(segments: &[Segment]) -> Option<(*mut u8, u32)> {
    match segments {
        [one] => Some((one.addr as *mut u8, u32::try_from(one.len).ok()?)),
        _ => None,
    }
}

fn list(segments: &[Segment]) -> io::Result<(*const libc::iovec, u32)> {
    let count =
        u32::try_from(segments.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    Ok((segments.as_ptr().cast(), count))
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("mode", &self.mode)
            .field("wide", &self.is_wide())
            .finish_non_exhaustive()
    }
}

/// Whether this process may use io_uring at all; the reason if not.
///
/// # Errors
/// The errno in words.
pub fn available() -> Result<Mode, String> {
    Uring::new(2).map(|ring| ring.mode()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring".to_owned(),
        Some(libc::EPERM) => {
            "io_uring is not permitted here (sysctl kernel.io_uring_disabled, or seccomp)"
                .to_owned()
        }
        _ => format!("io_uring set-up failed: {e}"),
    })
}

#[cfg(test)]
mod tests;
