//! Commands that move or compare blocks (SBC-4 5): READ, WRITE, VERIFY, WRITE
//! AND VERIFY, COMPARE AND WRITE, SYNCHRONIZE CACHE, PRE-FETCH.

use super::answer::{Answer, Call, Failure, Outcome, Refusal, Share, wrong_field};
use super::lu::{Lu, write_failure};
use crate::io::Extent;
use crate::scsi::sense::SenseCode;

/// FUA, in byte 1 of every command that has it.
const FUA: u8 = 0x08;

impl Lu {
    /// READ(6) to (16).
    pub(super) fn read(&mut self, call: &Call<'_>) -> Outcome {
        let extent = call.extent();
        let len = self.transfer_len(extent)?;
        self.readable(extent)?;
        if call.room < len {
            return Err(Failure::Overrun);
        }
        let mut data_in = call.buffer.take();
        data_in.resize(len, 0);
        self.fetch(self.offset(extent.lba.0), &mut data_in)?;
        Ok(Answer { data_in, ..Answer::default() })
    }

    /// WRITE(6) to (16).
    pub(super) fn write(&mut self, call: &Call<'_>) -> Outcome {
        // The (6) form has LBA where the others have FUA.
        let fua = call.cdb.len() > 6 && call.flag(1, FUA);
        let len = self.store(call)?;
        self.settle(fua)?;
        Ok(Answer::taken(len))
    }

    /// WRITE AND VERIFY(10) to (16). What is verified is on the medium, hence
    /// durable.
    pub(super) fn write_and_verify(&mut self, call: &Call<'_>) -> Outcome {
        let compare = match call.byte(1) >> 1 & 0x03 {
            0 => false,
            1 => true,
            _ => return Err(wrong_field(1, Some(2))),
        };
        let len = self.store(call)?;
        self.settle(true)?;
        if compare && call.share == Share::Whole {
            self.compare(call.extent(), call.announced(len)?)?;
        }
        Ok(Answer::taken(len))
    }

    /// VERIFY(10) to (16).
    pub(super) fn verify(&mut self, call: &Call<'_>) -> Outcome {
        let extent = call.extent();
        match call.byte(1) >> 1 & 0x03 {
            // The medium has no errors but those that were injected.
            0 => {
                self.in_range(extent)?;
                self.readable(extent)?;
                Ok(Answer::taken(0))
            }
            1 => {
                let len = self.transfer_len(extent)?;
                self.compare(extent, call.announced(len)?)?;
                Ok(Answer::taken(len))
            }
            3 => {
                let len = self.transfer_len(extent)?.min(self.block_len());
                self.compare(extent, call.announced(len)?)?;
                Ok(Answer::taken(len))
            }
            _ => Err(wrong_field(1, Some(2))),
        }
    }

    /// COMPARE AND WRITE: whole or not at all.
    pub(super) fn compare_and_write(&mut self, call: &Call<'_>) -> Outcome {
        let extent = Extent::new(call.u64_at(2), u64::from(call.byte(13)));
        if extent.blocks.0 > u64::from(self.config.max_compare_and_write_blocks) {
            return Err(wrong_field(13, None));
        }
        let len = self.transfer_len(extent)?;
        if len == 0 {
            return Ok(Answer::taken(0));
        }
        let (old, new) = call.announced(2 * len)?.split_at(len);
        self.unprotected()?;
        self.readable(extent)?;
        let at = self.offset(extent.lba.0);
        let mut there = vec![0; len];
        self.fetch(at, &mut there)?;
        if let Some(differs) = there.iter().zip(old).position(|(a, b)| a != b) {
            // SBC-4 5.3: where in the data-out buffer.
            return Err(Refusal::about(SenseCode::MISCOMPARE, differs as u64).into());
        }
        self.medium.write_at(at, new).map_err(write_failure)?;
        self.settle(call.flag(1, FUA))?;
        Ok(Answer::taken(2 * len))
    }

    /// SYNCHRONIZE CACHE(10) and (16): always all of it, and with status after
    /// (IMMED allows that).
    pub(super) fn synchronize_cache(&mut self, call: &Call<'_>) -> Outcome {
        self.in_range(call.extent())?;
        self.medium.sync().map_err(write_failure)?;
        Ok(Answer::taken(0))
    }

    /// PRE-FETCH(10) and (16). There is no cache to fetch into, which is told
    /// by GOOD instead of CONDITION MET.
    pub(super) fn pre_fetch(&mut self, call: &Call<'_>) -> Outcome {
        self.in_range(call.extent())?;
        Ok(Answer::taken(0))
    }

    /// The write of a WRITE or WRITE AND VERIFY; returns the bytes taken.
    fn store(&mut self, call: &Call<'_>) -> Result<usize, Failure> {
        let extent = call.extent();
        let len = self.transfer_len(extent)?;
        self.writable(extent)?;
        let data = call.announced(len)?;
        let part = match call.share {
            Share::Whole => len,
            Share::FirstHalf => len / 2 / self.block_len() * self.block_len(),
        };
        let offset = self.offset(extent.lba.0);
        self.medium.write_at(offset, &data[..part]).map_err(write_failure)?;
        Ok(len)
    }

    /// What a write is followed by: nothing, unless it must be durable.
    pub(super) fn settle(&mut self, durable: bool) -> Result<(), Failure> {
        if durable || !self.mode.write_cache {
            self.medium.sync().map_err(write_failure)?;
        }
        Ok(())
    }

    fn fetch(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.medium.read_at(offset, into).map_err(|_| SenseCode::UNRECOVERED_READ_ERROR.into())
    }

    /// Compares `extent` with `wanted`, repeated if shorter.
    fn compare(&mut self, extent: Extent, wanted: &[u8]) -> Result<(), Failure> {
        self.readable(extent)?;
        let len = self.offset(extent.blocks.0);
        let mut there = vec![0; usize::try_from(len).map_err(|_| SenseCode::INVALID_FIELD_IN_CDB)?];
        self.fetch(self.offset(extent.lba.0), &mut there)?;
        let same = there.chunks(wanted.len().max(1)).all(|part| part == wanted);
        if same { Ok(()) } else { Err(SenseCode::MISCOMPARE.into()) }
    }
}
