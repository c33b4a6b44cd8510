//! A shadow copy of the disk: what each sector may hold, by the rules a guest
//! relies on.
//!
//! Every write fills each of its sectors with a pattern of (sector, version).
//! A sector that no write is out for holds exactly its last version; one whose
//! write failed, or is out, may hold the old or the new. Concurrent requests
//! do not overlap, unless both read: the shadow refuses to hand out a range
//! that is busy.

use std::collections::HashMap;
use std::fmt;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;

/// Version of a sector that reads as zeroes.
const ZERO: u32 = 0;

/// What went wrong where.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    sector: u64,
    expected: Vec<u32>,
    found: Option<u32>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { sector, expected, found } = self;
        write!(f, "sector {sector} should hold one of the versions {expected:?} and ")?;
        match found {
            Some(version) => write!(f, "holds {version}"),
            None => write!(f, "holds no version as a whole"),
        }
    }
}

/// See the module.
pub(crate) struct Shadow {
    versions: Vec<u32>,
    /// Other versions that a sector may hold as well.
    doubtful: HashMap<u64, Vec<u32>>,
    /// Requests out per sector: readers, or `BUSY` for a writer.
    busy: Vec<u8>,
    next: u32,
}

const BUSY: u8 = u8::MAX;

fn pattern_word(sector: u64, version: u32, word: u64) -> u64 {
    // Any mixing will do that never yields zero sectors by chance.
    let seed = (sector << 24) ^ (u64::from(version) << 1) ^ word.rotate_left(40) | 1;
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Fills whole sectors, the first word naming sector and version.
pub(crate) fn fill(bytes: &mut [u8], first: u64, version: u32) {
    for (sector, chunk) in (first..).zip(bytes.chunks_exact_mut(SECTOR)) {
        if version == ZERO {
            chunk.fill(0);
            continue;
        }
        for (word, out) in (0..).zip(chunk.chunks_exact_mut(8)) {
            let value =
                if word == 0 { u64::from(version) } else { pattern_word(sector, version, word) };
            out.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The version a sector holds, if it is whole.
pub(crate) fn version_of(sector: u64, bytes: &[u8]) -> Option<u32> {
    let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
    let version = u32::try_from(word(0)).ok()?;
    let whole = (1..SECTOR / 8).all(|i| {
        word(i) == if version == ZERO { 0 } else { pattern_word(sector, version, i as u64) }
    });
    whole.then_some(version)
}

impl Shadow {
    /// Of a disk that reads as zeroes.
    pub(crate) fn new(sectors: u64) -> Shadow {
        let len = usize::try_from(sectors).expect("a small disk");
        Shadow { versions: vec![ZERO; len], doubtful: HashMap::new(), busy: vec![0; len], next: 1 }
    }

    /// The version of a sector, if only one is possible.
    pub(crate) fn certain(&self, sector: u64) -> Option<u32> {
        let at = Self::range(sector, 1).start;
        (!self.doubtful.contains_key(&sector)).then(|| self.versions[at])
    }

    fn range(first: u64, sectors: u64) -> std::ops::Range<usize> {
        let at = |s: u64| usize::try_from(s).expect("a small disk");
        at(first)..at(first + sectors)
    }

    /// Takes a range to read; false if a write is out for part of it.
    pub(crate) fn begin_read(&mut self, first: u64, sectors: u64) -> bool {
        let busy = &mut self.busy[Self::range(first, sectors)];
        if busy.iter().any(|&b| b >= BUSY - 1) {
            return false;
        }
        busy.iter_mut().for_each(|b| *b += 1);
        true
    }

    /// Takes a range to change; None if anything is out for part of it, else
    /// the version to write.
    pub(crate) fn begin_write(&mut self, first: u64, sectors: u64) -> Option<u32> {
        let busy = &mut self.busy[Self::range(first, sectors)];
        if busy.iter().any(|&b| b != 0) {
            return None;
        }
        busy.fill(BUSY);
        self.next += 1;
        Some(self.next)
    }

    /// A read came back: its data, or None if it failed.
    pub(crate) fn end_read(
        &mut self,
        first: u64,
        sectors: u64,
        data: Option<&[u8]>,
    ) -> Result<(), Mismatch> {
        self.busy[Self::range(first, sectors)].iter_mut().for_each(|b| *b -= 1);
        data.map_or(Ok(()), |data| self.verify(first, data))
    }

    /// A write of `version` came back; `done` = with success.
    pub(crate) fn end_write(&mut self, first: u64, sectors: u64, version: u32, done: bool) {
        self.busy[Self::range(first, sectors)].fill(0);
        for sector in first..first + sectors {
            if done {
                self.doubtful.remove(&sector);
                self.versions[Self::range(sector, 1).start] = version;
            } else {
                self.doubtful.entry(sector).or_default().push(version);
            }
        }
    }

    /// A range was zeroed (`version` from [`Shadow::begin_write`] is not used);
    /// `sure` = it reads as zeroes now, else it may hold what it held.
    pub(crate) fn end_zero(&mut self, first: u64, sectors: u64, sure: bool) {
        self.end_write(first, sectors, ZERO, sure);
    }

    /// Compares what was read with what may be there. A sector in doubt is in
    /// doubt no more.
    pub(crate) fn verify(&mut self, first: u64, data: &[u8]) -> Result<(), Mismatch> {
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR)) {
            let at = Self::range(sector, 1).start;
            let found = version_of(sector, bytes);
            if found == Some(self.versions[at]) && !self.doubtful.contains_key(&sector) {
                continue;
            }
            let mut expected = vec![self.versions[at]];
            expected.extend(self.doubtful.get(&sector).into_iter().flatten());
            match found {
                Some(version) if expected.contains(&version) => {
                    self.versions[at] = version;
                    self.doubtful.remove(&sector);
                }
                _ => return Err(Mismatch { sector, expected, found }),
            }
        }
        Ok(())
    }
}
