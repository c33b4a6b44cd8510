//! SCSI commands to a bsg node by io_uring (`linux/bsg.h` of Linux 7.1:
//! `struct bsg_uring_cmd`, and the second result of its completion).
//!
//! How a command is written down and what its completion says; nothing here
//! queues anything, that is [`Uring::bsg`](super::uring::Uring::bsg). Any
//! thread. Data are one flat piece: the kernel answers EOPNOTSUPP to a list.
//! Commands are queued behind what is there, the kernel sends none of them
//! twice, and nothing but its timeout ends one that is out.

use std::time::Duration;

use crate::io::{Completion, Direction, ErrnoFrom, Segment};
use crate::scsi::sense::{SENSE_MAX, Sense};

use super::scsi_generic::Report;

/// Longest CDB the kernel takes (EINVAL beyond).
pub const CDB_MAX: usize = 32;
/// Room that a command's sense must have: so much the kernel may write,
/// whatever length it is told (`SCSI_SENSE_BUFFERSIZE`).
pub const SENSE_BYTES: usize = 96;
const _: () = assert!(SENSE_MAX == SENSE_BYTES);

/// Size of `struct bsg_uring_cmd`.
const BYTES: usize = 80;

/// One command. Addresses only: who queues it keeps what they name.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Where the CDB lies.
    pub cdb: usize,
    /// Its length, at most [`CDB_MAX`].
    pub cdb_len: usize,
    /// Where [`SENSE_BYTES`] bytes of sense may go.
    pub sense: usize,
    /// Which way the data go.
    pub direction: Direction,
    /// The data; nothing is looked at where there is no direction.
    pub data: Segment,
    /// The kernel gives up on it after this long, in whole milliseconds, at
    /// least one.
    pub timeout: Duration,
}

impl Command {
    /// As `struct bsg_uring_cmd`. A length beyond 32 bits is cut: no transfer
    /// limit allows it.
    #[inline]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let word = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let timeout = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut bytes = [0; BYTES];
        put64(&mut bytes, 0, self.cdb as u64);
        put32(&mut bytes, 8, word(self.cdb_len));
        // 12: protocol SCSI, 16: subprotocol command; both are 0.
        put32(&mut bytes, 20, word(SENSE_BYTES));
        put64(&mut bytes, 24, self.sense as u64);
        let mut data = |address, length| {
            put64(&mut bytes, address, self.data.addr as u64);
            put32(&mut bytes, length, word(self.data.len));
        };
        match self.direction {
            Direction::None => {}
            Direction::Out => data(32, 40),
            Direction::In => data(48, 56),
        }
        // 44 and 60: the numbers of iovecs, which must be 0.
        put32(&mut bytes, 64, timeout);
        bytes
    }
}

#[inline]
fn put32(bytes: &mut [u8; BYTES], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
}

#[inline]
fn put64(bytes: &mut [u8; BYTES], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

/// Whether a completion says that all went well, so that nobody needs to look
/// at sense or residual.
#[inline]
pub fn is_clean(result: i32, extra: u64) -> bool {
    result == 0 && extra == 0
}

/// What became of a command, of a completion's two results. `sense` copies
/// what the kernel has written, called with the length if there is any;
/// `requested` bytes of data were asked for.
///
/// An errno is one of a command that was not sent, and comes as it is
/// ([`ErrnoFrom::Ioctl`]), but for ENOMEM: the kernel tries without waiting for
/// memory, so that this is EAGAIN. What the device said is in the completion
/// exactly, as from [`sg_io`](super::scsi_generic::sg_io).
pub fn completion(
    result: i32,
    extra: u64,
    requested: usize,
    sense: impl FnOnce(usize) -> Sense,
) -> Completion {
    match result {
        0 => {}
        code => {
            let code = if code == -libc::ENOMEM { libc::EAGAIN } else { code.saturating_neg() };
            return Completion::Errno { from: ErrnoFrom::Ioctl, code };
        }
    }
    let byte = |at: u32| u32::try_from(extra >> at & 0xff).unwrap_or(0);
    let written = usize::try_from(byte(24)).unwrap_or(0).min(SENSE_BYTES);
    let sense = if written == 0 { Sense::EMPTY } else { sense(written) };
    // With a CHECK CONDITION that has none the kernel says all of the buffer.
    let is_sense = sense.as_bytes().first().is_some_and(|code| code & 0x70 == 0x70);
    let residual = u32::try_from(extra >> 32).unwrap_or(0);
    let report = Report {
        status: byte(0),
        host: byte(16),
        driver: byte(8),
        sense: if is_sense { sense } else { Sense::EMPTY },
        // More than was asked for is an overrun, as a negative one is.
        residual: i32::try_from(residual).unwrap_or(-1),
    };
    report.completion(requested)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::SenseCode;
    use crate::scsi::status::{HostByte, Status};

    fn word(bytes: &[u8; BYTES], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn long(bytes: &[u8; BYTES], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn a_command_lies_as_linux_bsg_h_has_it() {
        let command = Command {
            cdb: 0x1111_2222_3333,
            cdb_len: 16,
            sense: 0x4444_5555_6666,
            direction: Direction::In,
            data: Segment { addr: 0x7777_8888_9000, len: 4096 },
            timeout: Duration::from_millis(30_500),
        };
        let read = command.to_bytes();
        assert_eq!((long(&read, 0), word(&read, 8)), (0x1111_2222_3333, 16));
        assert_eq!((word(&read, 12), word(&read, 16)), (0, 0), "a SCSI command");
        assert_eq!((word(&read, 20), long(&read, 24)), (96, 0x4444_5555_6666));
        assert_eq!((long(&read, 32), word(&read, 40), word(&read, 44)), (0, 0, 0));
        assert_eq!(
            (long(&read, 48), word(&read, 56), word(&read, 60)),
            (0x7777_8888_9000, 4096, 0)
        );
        assert_eq!(word(&read, 64), 30_500);
        assert_eq!(read[68..], [0; 12], "reserved");
        let write = Command { direction: Direction::Out, ..command }.to_bytes();
        assert_eq!((long(&write, 32), word(&write, 40)), (0x7777_8888_9000, 4096));
        assert_eq!((long(&write, 48), word(&write, 56)), (0, 0));
        let nothing = Command { direction: Direction::None, ..command }.to_bytes();
        assert_eq!(nothing[32..64], [0; 32]);
    }

    #[test]
    fn no_timeout_is_never_the_kernels_own() {
        let command = |timeout| Command {
            cdb: 1,
            cdb_len: 6,
            sense: 1,
            direction: Direction::None,
            data: Segment::default(),
            timeout,
        };
        assert_eq!(word(&command(Duration::ZERO).to_bytes(), 64), 1, "0 would be a minute");
        assert_eq!(word(&command(Duration::MAX).to_bytes(), 64), u32::MAX);
    }

    /// Second results as the kernel builds them.
    fn extra(status: u64, driver: u64, host: u64, sense: u64, residual: u64) -> u64 {
        residual << 32 | sense << 24 | host << 16 | driver << 8 | status
    }

    fn told(result: i32, extra: u64) -> Completion {
        completion(result, extra, 4096, |_| unreachable!("there is no sense"))
    }

    #[test]
    fn only_a_clean_good_is_good() {
        assert!(is_clean(0, 0) && !is_clean(0, extra(0, 0, 0, 0, 1)) && !is_clean(-5, 0));
        assert_eq!(told(0, 0), Completion::Good);
        let scsi = |status, host, residual| Completion::Scsi {
            status: Status(status),
            host,
            sense: Sense::EMPTY,
            residual,
        };
        assert_eq!(told(0, extra(0, 0, 0, 0, 512)), scsi(0, HostByte::OK, 512));
        assert_eq!(told(0, extra(0, 0, 1, 0, 4096)), scsi(0, HostByte::NO_CONNECT, 4096));
        assert_eq!(told(0, extra(0x18, 0, 0, 0, 0)), scsi(0x18, HostByte::OK, 0));
        assert_eq!(told(0, extra(0, 0, 0, 0, 9999)), scsi(0, HostByte::OK, 4096));
        assert_eq!(told(0, extra(0, 0, 0, 0, 0xffff_fe00)), Completion::Good, "an overrun");
    }

    #[test]
    fn an_errno_comes_as_it_is_but_for_one() {
        let errno = |code| Completion::Errno { from: ErrnoFrom::Ioctl, code };
        assert_eq!(told(-libc::ENODEV, 0), errno(libc::ENODEV));
        assert_eq!(told(-libc::EAGAIN, 0), errno(libc::EAGAIN));
        assert_eq!(told(-libc::ENOMEM, 0), errno(libc::EAGAIN));
    }

    #[test]
    fn sense_comes_with_its_length_and_not_without_being_any() {
        let raw = Sense::fixed(SenseCode::INVALID_FIELD_IN_CDB);
        let length = raw.as_bytes().len();
        let check = extra(2, 8, 0, length as u64, 4096);
        let got = completion(0, check, 4096, |written| {
            assert_eq!(written, length);
            raw
        });
        let expected = Completion::Scsi {
            status: Status::CHECK_CONDITION,
            host: HostByte::OK,
            sense: raw,
            residual: 4096,
        };
        assert_eq!(got, expected);
        // The kernel cannot say that there is none.
        let got = completion(0, extra(2, 8, 0, 96, 0), 4096, |n| Sense::from_bytes(&[0; 96][..n]));
        let Completion::Scsi { sense, .. } = got else { panic!("{got:?}") };
        assert!(sense.is_empty());
        // More than there is room for is a kernel's mistake, not ours.
        completion(0, extra(2, 8, 0, 255, 0), 0, |n| Sense::from_bytes(&[0x70; 96][..n]));
    }
}
