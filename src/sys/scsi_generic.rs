//! SG_IO: one SCSI command by a blocking ioctl, with status and sense.
//!
//! Header version 3 (`scsi/sg.h`) for sd and sg nodes, version 4
//! (`linux/bsg.h`) for bsg nodes. Any thread may call it; it blocks until the
//! kernel gives the command back, and no signal ends that wait for sd and bsg
//! nodes. The classic sg driver's wait *is* interruptible and would leave a
//! command behind in the kernel (against law 1): callers block signals first,
//! see [`without_signals`].

use std::io::Error;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::io::{Completion, Direction, ErrnoFrom, Segment, total_len};
use crate::scsi::sense::{SENSE_MAX, Sense};
use crate::scsi::status::{HostByte, Status};

const SG_IO: libc::Ioctl = 0x2285;
const SG_GET_VERSION_NUM: libc::Ioctl = 0x2282;
const SG_SCSI_RESET: libc::Ioctl = 0x2284;
const SG_SCSI_RESET_DEVICE: libc::c_int = 1;
const SG_SCSI_RESET_NO_ESCALATE: libc::c_int = 0x100;
const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;
/// Queue behind what is there (`SG_FLAG_Q_AT_TAIL`, `BSG_FLAG_Q_AT_TAIL`);
/// sg and bsg put a command in front otherwise, and a stream of ours would
/// starve others.
const AT_TAIL: u32 = 0x10;
/// Driver byte of kernels before 5.14: the command timed out.
const DRIVER_TIMEOUT: u32 = 0x06;
/// Driver byte: there is sense. Says nothing the sense does not.
const DRIVER_SENSE: u32 = 0x08;

/// Most commands one open file of the classic sg driver takes (it answers
/// EDOM beyond).
pub const SG_FILE_QUEUE: usize = 16;

/// Which header a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `struct sg_io_hdr`: sd and sg nodes; takes a list of segments.
    V3,
    /// `struct sg_io_v4`: bsg nodes; one flat buffer.
    V4,
}

/// `struct sg_io_hdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct HeaderV3 {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: usize,
    cmdp: usize,
    sbp: usize,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: usize,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

/// `struct sg_io_v4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct HeaderV4 {
    guard: i32,
    protocol: u32,
    subprotocol: u32,
    request_len: u32,
    request: u64,
    request_tag: u64,
    request_attr: u32,
    request_priority: u32,
    request_extra: u32,
    max_response_len: u32,
    response: u64,
    dout_iovec_count: u32,
    dout_xfer_len: u32,
    din_iovec_count: u32,
    din_xfer_len: u32,
    dout_xferp: u64,
    din_xferp: u64,
    timeout: u32,
    flags: u32,
    usr_ptr: u64,
    spare_in: u32,
    driver_status: u32,
    transport_status: u32,
    device_status: u32,
    retry_delay: u32,
    info: u32,
    duration: u32,
    response_len: u32,
    din_resid: i32,
    dout_resid: i32,
    generated_tag: u64,
    spare_out: u32,
    padding: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<HeaderV3>() == 88);
    assert!(offset_of!(HeaderV3, dxfer_len) == 12);
    assert!(offset_of!(HeaderV3, dxferp) == 16);
    assert!(offset_of!(HeaderV3, timeout) == 40);
    assert!(offset_of!(HeaderV3, usr_ptr) == 56);
    assert!(offset_of!(HeaderV3, status) == 64);
    assert!(offset_of!(HeaderV3, host_status) == 68);
    assert!(offset_of!(HeaderV3, resid) == 72);
    assert!(offset_of!(HeaderV3, info) == 80);
};

const _: () = {
    assert!(size_of::<HeaderV4>() == 160);
    assert!(offset_of!(HeaderV4, request) == 16);
    assert!(offset_of!(HeaderV4, response) == 48);
    assert!(offset_of!(HeaderV4, dout_xferp) == 72);
    assert!(offset_of!(HeaderV4, din_xferp) == 80);
    assert!(offset_of!(HeaderV4, timeout) == 88);
    assert!(offset_of!(HeaderV4, driver_status) == 108);
    assert!(offset_of!(HeaderV4, response_len) == 132);
    assert!(offset_of!(HeaderV4, din_resid) == 136);
    assert!(offset_of!(HeaderV4, generated_tag) == 144);
    // A list of segments is given to the kernel as `struct iovec`.
    assert!(size_of::<Segment>() == size_of::<libc::iovec>());
    assert!(offset_of!(Segment, addr) == offset_of!(libc::iovec, iov_base));
    assert!(offset_of!(Segment, len) == offset_of!(libc::iovec, iov_len));
};

/// What the kernel reports of a command, in either header version or by
/// io_uring.
pub(super) struct Report {
    pub(super) status: u32,
    pub(super) host: u32,
    pub(super) driver: u32,
    pub(super) sense: Sense,
    pub(super) residual: i32,
}

impl Report {
    /// Everything the kernel said, the sense that comes with a GOOD and the
    /// residual of a GOOD included; `Good` only where there is nothing to add.
    pub(super) fn completion(self, requested: usize) -> Completion {
        let byte = |v: u32| u8::try_from(v & 0xff).unwrap_or(u8::MAX);
        let status = Status(byte(self.status));
        let mut host = HostByte(byte(self.host));
        let driver = self.driver & 0x0f;
        if host == HostByte::OK && driver == DRIVER_TIMEOUT {
            host = HostByte::TIME_OUT;
        } else if host == HostByte::OK && driver != 0 && driver != DRIVER_SENSE {
            host = HostByte::ERROR;
        }
        // A device that claims more than was asked for moved everything; one
        // that claims less than nothing moved nothing.
        let requested = u32::try_from(requested).unwrap_or(u32::MAX);
        let residual = u32::try_from(self.residual).unwrap_or(0).min(requested);
        match (status, host) {
            (Status::GOOD, HostByte::OK) if residual == 0 && self.sense.is_empty() => {
                Completion::Good
            }
            _ => Completion::Scsi { status, host, sense: self.sense, residual },
        }
    }
}

/// Sends one command and waits for it.
///
/// `timeout` is the kernel's, in whole milliseconds, at least one. An errno of
/// the ioctl comes back as [`ErrnoFrom::Ioctl`], exactly as it came; a command
/// that cannot be put into the header at all as EINVAL (V3) or EOPNOTSUPP
/// (V4 with several segments) without a system call. What the device said is
/// in the completion exactly: a GOOD with a residual or with sense data is
/// [`Completion::Scsi`], never [`Completion::Short`].
///
/// How long a CDB may be is the kernel's to say, and it says it late: before
/// 5.18 any length, since then 32 bytes (EINVAL beyond; EMSGSIZE of sg beyond
/// 252). Up to there what is longer than the host adapter takes comes back as
/// `DID_ABORT`, unsent (17 bytes to one of 16). Shorter than 6 is EMSGSIZE of
/// sd and sg; bsg takes it, with zeroes for what is missing. Seen on 6.12 and
/// 7.2.
///
/// # Safety
/// The segments are mapped for the whole call, writable if `direction` is
/// [`Direction::In`].
pub unsafe fn sg_io(
    fd: BorrowedFd<'_>,
    interface: Interface,
    cdb: &[u8],
    direction: Direction,
    data: &[Segment],
    timeout: Duration,
) -> Completion {
    let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
    let outcome = match interface {
        // SAFETY: the caller vouches for the segments.
        Interface::V3 => unsafe { sg_io_v3(fd, cdb, direction, data, timeout) },
        // SAFETY: the caller vouches for the segments.
        Interface::V4 => unsafe { sg_io_v4(fd, cdb, direction, data, timeout) },
    };
    match outcome {
        Ok(report) => report.completion(total_len(data)),
        Err(code) => Completion::Errno { from: ErrnoFrom::Ioctl, code },
    }
}

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

unsafe fn sg_io_v3(
    fd: BorrowedFd<'_>,
    cdb: &[u8],
    direction: Direction,
    data: &[Segment],
    timeout: u32,
) -> Result<Report, i32> {
    let mut sense = [0u8; SENSE_MAX];
    // A list of one goes flat: the kernel then skips copying the list.
    let (iovec_count, dxferp) = match data {
        [] => (0, 0),
        [one] => (0, one.addr),
        many => (u16::try_from(many.len()).map_err(|_| libc::EINVAL)?, many.as_ptr() as usize),
    };
    let mut header = HeaderV3 {
        interface_id: i32::from(b'S'),
        dxfer_direction: match direction {
            Direction::None => SG_DXFER_NONE,
            Direction::In => SG_DXFER_FROM_DEV,
            Direction::Out => SG_DXFER_TO_DEV,
        },
        cmd_len: u8::try_from(cdb.len()).map_err(|_| libc::EINVAL)?,
        mx_sb_len: u8::try_from(sense.len()).map_err(|_| libc::EINVAL)?,
        iovec_count,
        dxfer_len: u32::try_from(total_len(data)).map_err(|_| libc::EINVAL)?,
        dxferp,
        cmdp: cdb.as_ptr() as usize,
        sbp: sense.as_mut_ptr() as usize,
        timeout,
        flags: AT_TAIL,
        pack_id: 0,
        usr_ptr: 0,
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is a whole `struct sg_io_hdr` whose pointers name the
    // CDB, the sense buffer and the caller's segments, all alive until the
    // ioctl returns; it returns only once the kernel has let go of them (with
    // signals blocked, see the module's text). There is no safe ioctl.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SG_IO, &raw mut header) };
    if result == -1 {
        return Err(errno());
    }
    let written = usize::from(header.sb_len_wr).min(sense.len());
    Ok(Report {
        status: u32::from(header.status),
        host: u32::from(header.host_status),
        driver: u32::from(header.driver_status),
        sense: Sense::from_bytes(&sense[..written]),
        residual: header.resid,
    })
}

unsafe fn sg_io_v4(
    fd: BorrowedFd<'_>,
    cdb: &[u8],
    direction: Direction,
    data: &[Segment],
    timeout: u32,
) -> Result<Report, i32> {
    let mut sense = [0u8; SENSE_MAX];
    let (address, len) = match data {
        [] => (0, 0),
        [one] => (one.addr as u64, u32::try_from(one.len).map_err(|_| libc::EINVAL)?),
        _ => return Err(libc::EOPNOTSUPP),
    };
    let mut header = HeaderV4 {
        guard: i32::from(b'Q'),
        request_len: u32::try_from(cdb.len()).map_err(|_| libc::EINVAL)?,
        request: cdb.as_ptr() as u64,
        max_response_len: u32::try_from(sense.len()).map_err(|_| libc::EINVAL)?,
        response: sense.as_mut_ptr() as u64,
        timeout,
        flags: AT_TAIL,
        ..HeaderV4::default()
    };
    match direction {
        Direction::None => {}
        Direction::In => (header.din_xferp, header.din_xfer_len) = (address, len),
        Direction::Out => (header.dout_xferp, header.dout_xfer_len) = (address, len),
    }
    // SAFETY: as in `sg_io_v3`, with a whole `struct sg_io_v4`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SG_IO, &raw mut header) };
    if result == -1 {
        return Err(errno());
    }
    let written = usize::try_from(header.response_len).unwrap_or(0).min(sense.len());
    Ok(Report {
        status: header.device_status,
        host: header.transport_status,
        driver: header.driver_status,
        sense: Sense::from_bytes(&sense[..written]),
        residual: if direction == Direction::Out { header.dout_resid } else { header.din_resid },
    })
}

/// Whether the open file speaks SG_IO version 3 at all.
pub fn speaks_v3(fd: BorrowedFd<'_>) -> bool {
    let mut version: libc::c_int = 0;
    // SAFETY: the ioctl writes one int to an int of ours; std has no ioctl.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SG_GET_VERSION_NUM, &raw mut version) };
    result == 0 && version >= 30_000
}

/// Resets the logical unit behind an sd or sg node: LOGICAL UNIT RESET of its
/// nexus (SAM-5 7.6), which ends the tasks of *every* host; the kernel does not
/// go on to resets of the target or the bus where it fails.
///
/// What the nexuses hear of it is the target's: LIO tells 29/03 on each, the
/// kernel's scsi_debug 29/00 on this one only.
///
/// Waits until the host adapter has done it; nothing bounds that but the
/// adapter's own timeouts, as the kernel's error handler has it.
///
/// # Errors
/// The ioctl's: ENOTTY where the node knows no reset (bsg), EACCES
/// without CAP_SYS_ADMIN and CAP_SYS_RAWIO, EIO where the adapter failed.
pub fn reset_device(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let mut how = SG_SCSI_RESET_DEVICE | SG_SCSI_RESET_NO_ESCALATE;
    // SAFETY: the ioctl reads one int of ours; std has no ioctl.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SG_SCSI_RESET, &raw mut how) };
    if result == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Runs `f` with every signal blocked on this thread.
pub fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    let old = block_signals();
    let result = f();
    if let Some(old) = old {
        // SAFETY: `old` is a mask the kernel gave us; std has no signal masks.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    }
    result
}

/// Blocks every signal on this thread for good (helper threads).
pub fn block_signals() -> Option<libc::sigset_t> {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    let mut old = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: writes a whole signal set to our buffer; std has no signal masks.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled, `old` takes a whole signal set.
    let failed =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) };
    // SAFETY: zeroed before, all-zero is the empty set.
    (failed == 0).then(|| unsafe { old.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::{Key, SenseCode};
    use crate::sys::segment;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn report(status: u32, host: u32, driver: u32, residual: i32) -> Completion {
        Report { status, host, driver, sense: Sense::EMPTY, residual }.completion(4096)
    }

    #[test]
    fn only_a_clean_good_is_good() {
        let scsi = |status, host, residual| Completion::Scsi {
            status: Status(status),
            host,
            sense: Sense::EMPTY,
            residual,
        };
        assert_eq!(report(0, 0, 0, 0), Completion::Good);
        assert_eq!(report(0, 0, DRIVER_SENSE, 0), Completion::Good);
        assert_eq!(report(0, 0, 0, 512), scsi(0, HostByte::OK, 512));
        assert_eq!(report(0, 0, 0, 9999), scsi(0, HostByte::OK, 4096));
        assert_eq!(report(0, 0, 0, -512), Completion::Good, "overrun: all of ours moved");
        assert_eq!(report(2, 0, DRIVER_SENSE, 4096), scsi(2, HostByte::OK, 4096));
        assert_eq!(report(0x18, 0, 0, 0), scsi(0x18, HostByte::OK, 0));
        assert_eq!(report(0, 1, 0, 4096), scsi(0, HostByte::NO_CONNECT, 4096));
        assert_eq!(report(0, 0, DRIVER_TIMEOUT, 0), scsi(0, HostByte::TIME_OUT, 0));
        assert_eq!(report(0, 0, 4, 0), scsi(0, HostByte::ERROR, 0));
    }

    #[test]
    fn sense_that_comes_with_a_good_status_is_not_lost() {
        let recovered = Sense::fixed(SenseCode::new(Key::RecoveredError, 0x18, 0x02));
        let report = Report { status: 0, host: 0, driver: 0, sense: recovered, residual: 0 };
        let expected = Completion::Scsi {
            status: Status::GOOD,
            host: HostByte::OK,
            sense: recovered,
            residual: 0,
        };
        assert_eq!(report.completion(512), expected);
    }

    #[test]
    fn a_node_without_a_reset_says_so() {
        let null = File::open("/dev/null").unwrap();
        let error = reset_device(null.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn an_ioctl_errno_is_reported_as_it_came() {
        let null = File::open("/dev/null").unwrap();
        let mut data = [0u8; 36];
        for interface in [Interface::V3, Interface::V4] {
            // SAFETY: `data` lives for the call.
            let completion = unsafe {
                sg_io(
                    null.as_fd(),
                    interface,
                    &[0x12, 0, 0, 0, 36, 0],
                    Direction::In,
                    &[segment::of(&mut data)],
                    Duration::from_secs(1),
                )
            };
            let expected = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
            assert_eq!(completion, expected);
        }
        assert!(!speaks_v3(null.as_fd()));
    }

    #[test]
    fn lists_are_refused_where_the_kernel_takes_none() {
        let null = File::open("/dev/null").unwrap();
        let two = [Segment::default(); 2];
        // SAFETY: the segments are empty.
        let completion = unsafe {
            sg_io(null.as_fd(), Interface::V4, &[0; 6], Direction::In, &two, Duration::ZERO)
        };
        let expected = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EOPNOTSUPP };
        assert_eq!(completion, expected);
    }

    #[test]
    fn signals_are_blocked_inside_and_restored_after() {
        let blocked = || {
            let mut mask = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: reads this thread's mask into a whole signal set.
            unsafe { libc::pthread_sigmask(0, std::ptr::null(), mask.as_mut_ptr()) };
            // SAFETY: zeroed before, so initialised either way.
            let mask = unsafe { mask.assume_init() };
            // SAFETY: an initialised signal set.
            unsafe { libc::sigismember(&raw const mask, libc::SIGUSR1) == 1 }
        };
        assert!(!blocked());
        assert!(without_signals(blocked));
        assert!(!blocked());
    }
}
