//! How long a command may rightly take: the least timeout for those that
//! outlast the usual one.
//!
//! The kernel does not merely give a command up when its time has run out: it
//! aborts it, and where the abort fails it resets the LU, which ends the tasks
//! of every host. A timeout that is too short for an honest command is
//! therefore worse than one that is too long. A longer one has a price too:
//! the command cannot be taken back before (law 1), so that a ring stop waits
//! for it. Hence a table of those commands that are known to take long (SBC-4,
//! SPC-5; times as Linux `sd` and sg3_utils have them), and a most.
//!
//! Pure. Who issues the command decides whether this counts: not while a ring
//! is being stopped.

use std::time::Duration;

use super::be;
use super::cdb::Cdb;

/// Nothing waits for longer. What takes more (FORMAT UNIT, SANITIZE, self-tests
/// of a whole disk) has an IMMED bit, or a background variant, for that.
pub const MOST: Duration = Duration::from_secs(3600);

/// As sd allows WRITE SAME, UNMAP and flushes on slow thin LUs.
const MINUTES: Duration = Duration::from_secs(120);
/// Slowest medium of which a verification is expected to get through, in
/// bytes a second.
const VERIFY_RATE: u64 = 32 << 20;

/// The least timeout for `cdb` on an LU with blocks of `block_size` bytes;
/// zero for a command that takes no longer than others.
pub fn at_least(cdb: &Cdb, block_size: u32) -> Duration {
    let raw = cdb.as_slice();
    let bit = |byte: usize, bit: u8| raw.get(byte).is_some_and(|b| b >> bit & 1 != 0);
    let service_action = || raw.get(1).map_or(0, |b| b & 0x1f);
    match cdb.opcode() {
        // SYNCHRONIZE CACHE, WRITE SAME, UNMAP, PRE-FETCH, START STOP UNIT,
        // PERSISTENT RESERVE OUT (PREEMPT AND ABORT ends tasks first).
        0x35 | 0x91 | 0x41 | 0x93 | 0x42 | 0x34 | 0x90 | 0x1b | 0x5f => MINUTES,
        // Variable length: WRITE SAME(32), VERIFY(32).
        0x7f => match be::u16_at(raw, 8) {
            Some(0x000d) => MINUTES,
            Some(0x000a) if !bit(10, 1) => verify(be::u32_at(raw, 28), block_size),
            _ => Duration::ZERO,
        },
        // VERIFY(10), (16), (12) without data to compare with.
        0x2f if !bit(1, 1) => verify(be::u16_at(raw, 7).map(u32::from), block_size),
        0x8f if !bit(1, 1) => verify(be::u32_at(raw, 10), block_size),
        0xaf if !bit(1, 1) => verify(be::u32_at(raw, 6), block_size),
        // WRITE BUFFER (microcode), third-party copy.
        0x3b | 0x83 | 0x84 => MINUTES,
        // SEND DIAGNOSTIC with the default self-test or one in the foreground.
        0x1d if bit(1, 2) || raw.get(1).is_some_and(|b| matches!(b >> 5, 5 | 6)) => MOST,
        // FORMAT UNIT; SANITIZE without IMMED; REASSIGN BLOCKS.
        0x04 => MOST,
        0x48 if !bit(1, 7) => MOST,
        0x07 => MINUTES,
        // SET TARGET PORT GROUPS: answered when the transition is over.
        0xa4 if service_action() == 0x0a => MINUTES,
        _ => Duration::ZERO,
    }
}

fn verify(blocks: Option<u32>, block_size: u32) -> Duration {
    let bytes = u64::from(blocks.unwrap_or(0)).saturating_mul(u64::from(block_size));
    match bytes / VERIFY_RATE {
        0 => Duration::ZERO,
        seconds => MINUTES.saturating_add(Duration::from_secs(seconds)).min(MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::block::Extent;

    fn least(raw: &[u8]) -> u64 {
        at_least(&Cdb::from_bytes(raw).expect("a CDB"), 512).as_secs()
    }

    #[test]
    fn ordinary_commands_take_the_ordinary_time() {
        for cdb in [Cdb::read(Extent::new(0, 8)), Cdb::write(Extent::new(0, 8), true)] {
            assert_eq!(at_least(&cdb.expect("encodes"), 512), Duration::ZERO);
        }
        for cdb in [Cdb::test_unit_ready(), Cdb::inquiry(None, 36), Cdb::read_capacity_16(32)] {
            assert_eq!(at_least(&cdb, 512), Duration::ZERO, "{cdb:?}");
        }
    }

    #[test]
    fn what_changes_many_blocks_at_once_has_minutes() {
        let zeroes = Cdb::write_same_16(Extent::new(0, 8), true, false).expect("encodes");
        let flush = [Cdb::synchronize_cache_10(), Cdb::synchronize_cache_16()];
        for cdb in [zeroes, Cdb::unmap(24), flush[0], flush[1]] {
            assert_eq!(at_least(&cdb, 512), MINUTES, "{cdb:?}");
        }
        let mut write_same_32 = [0; 32];
        (write_same_32[0], write_same_32[9]) = (0x7f, 0x0d);
        assert_eq!(least(&write_same_32), 120);
    }

    #[test]
    fn a_verification_takes_as_long_as_its_range() {
        let verify = |flags: u8, blocks: u32| {
            let mut raw = [0; 16];
            (raw[0], raw[1]) = (0x8f, flags);
            raw[10..14].copy_from_slice(&blocks.to_be_bytes());
            raw
        };
        assert_eq!(least(&verify(0, 8)), 0);
        assert_eq!(least(&verify(0, 65_536 * 60)), 180, "a minute at 32 MiB/s");
        assert_eq!(least(&verify(0, u32::MAX)), MOST.as_secs());
        assert_eq!(least(&verify(0x02, u32::MAX)), 0, "BYTCHK: bounded by its data");
    }

    #[test]
    fn what_runs_in_the_background_needs_no_time() {
        assert_eq!(least(&[0x48, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]), 0, "SANITIZE, IMMED");
        assert_eq!(least(&[0x48, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]), MOST.as_secs());
        assert_eq!(least(&[0x1d, 1 << 5, 0, 0, 0, 0]), 0, "background short self-test");
        assert_eq!(least(&[0x1d, 5 << 5, 0, 0, 0, 0]), MOST.as_secs());
        assert_eq!(least(&[0x1d, 0x04, 0, 0, 0, 0]), MOST.as_secs());
    }

    #[test]
    fn a_cdb_that_is_cut_off_asks_for_nothing() {
        for opcode in [0x7f, 0x8f, 0xaf, 0x2f] {
            assert_eq!(least(&[opcode]), 0);
        }
    }
}
