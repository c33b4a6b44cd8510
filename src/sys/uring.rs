//! A thin io_uring: what a queue thread's reactor and the transports need.
//!
//! Owned and used by one thread (`SINGLE_ISSUER` where the kernel has it).
//! User data are opaque numbers; who they belong to is the reactor's business.
//! No retries and no policy: a result is handed over as the kernel gave it.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use crate::io::Segment;

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

/// One io_uring instance. Not `Send`: it stays on the thread that made it.
pub struct Uring {
    ring: IoUring,
    mode: Mode,
    _stays: PhantomData<*const ()>,
}

impl Uring {
    /// A ring of `entries` submissions (rounded up to a power of two) and four
    /// times as many completions.
    ///
    /// # Errors
    /// ENOSYS or EPERM where io_uring is missing or switched off
    /// (`kernel.io_uring_disabled`, seccomp); ENOMEM.
    pub fn new(entries: u32) -> io::Result<Uring> {
        let base = || {
            let mut builder = IoUring::builder();
            builder.setup_clamp().setup_cqsize(entries.next_power_of_two().saturating_mul(4));
            builder
        };
        let deferred = || {
            let mut b = base();
            b.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
            b.build(entries)
        };
        let cooperative = || {
            let mut b = base();
            b.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            b.build(entries)
        };
        let made = |mode| move |ring| Uring { ring, mode, _stays: PhantomData };
        // EINVAL: an older kernel does not know a flag. Anything else would
        // fail the same way without it.
        let unknown = |e: &io::Error| e.raw_os_error() == Some(libc::EINVAL);
        match deferred() {
            Err(e) if unknown(&e) => match cooperative() {
                Err(e) if unknown(&e) => base().build(entries).map(made(Mode::Plain)),
                result => result.map(made(Mode::Cooperative)),
            },
            result => result.map(made(Mode::Deferred)),
        }
    }

    /// Which set of flags the kernel took.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Puts an entry into the submission queue, making room first if it is full.
    ///
    /// # Safety
    /// What the entry points to stays valid as the operation demands.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        match self.ring.submit() {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            result => drop(result?),
        }
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submission().push(entry) }
            .map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
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
        let events = u32::try_from(libc::POLLIN).unwrap_or(0);
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events)
            .multi(true)
            .build()
            .user_data(user_data);
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
        if wait == Wait::No {
            let submissions = self.ring.submission();
            if submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow() {
                return Ok(()); // completions that are there need no system call
            }
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

    /// Hands over every completion that is there, oldest first, as
    /// `(user data, result, more to come)`; returns how many. No system call.
    pub fn reap(&mut self, mut each: impl FnMut(u64, i32, bool)) -> usize {
        let mut count = 0;
        for completion in self.ring.completion() {
            let more = io_uring::cqueue::more(completion.flags());
            each(completion.user_data(), completion.result(), more);
            count += 1;
        }
        count
    }

    /// Entries queued and not yet given to the kernel.
    pub fn queued(&mut self) -> usize {
        self.ring.submission().len()
    }
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
        f.debug_struct("Uring").field("mode", &self.mode).finish_non_exhaustive()
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
