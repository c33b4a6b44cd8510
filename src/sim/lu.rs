//! The logical unit: executes one command at once.
//!
//! Knows neither paths nor time; faults only as far as they are its own
//! (bad blocks). This file has its state and what its commands have in
//! common; they stand in `blocks`, `provisioning`, `report` and `mode`.

use std::io;

use super::answer::{Call, Failure, Outcome, Refusal, SOFTWARE_PROTECTED, STOPPED};
use super::command::{self, Command};
use super::config::LuConfig;
use super::mode::ModePages;
use super::owner::Owner;
use super::reservation::Reservations;
use super::{LuId, Medium};
use crate::io::{Blocks, Extent};
use crate::scsi::sense::SenseCode;

/// The logical unit.
pub(super) struct Lu {
    pub(super) config: LuConfig,
    pub(super) medium: Box<dyn Medium>,
    pub(super) mode: ModePages,
    /// What a reset sets back to.
    pub(super) saved: ModePages,
    /// The LU's number in the array.
    pub(super) id: LuId,
    pub(super) owner: Owner,
    pub(super) reservations: Reservations,
    /// START STOP UNIT has stopped it.
    pub(super) stopped: bool,
    /// Blocks that can be neither read nor written.
    bad: Vec<Extent>,
}

impl Lu {
    pub(super) fn new(id: LuId, config: LuConfig, medium: Box<dyn Medium>) -> Lu {
        let mode = ModePages::of(&config);
        Lu {
            config,
            medium,
            mode,
            saved: mode,
            id,
            owner: Owner::default(),
            reservations: Reservations::default(),
            stopped: false,
            bad: Vec::new(),
        }
    }

    /// Executes a command, which was found among the LU's already, if it is
    /// one.
    pub(super) fn execute(
        &mut self,
        call: &mut Call<'_>,
        command: Option<&'static Command>,
    ) -> Outcome {
        let command = match command {
            Some(command) => command,
            None => command::find(&self.config, call.cdb)?,
        };
        command.check(call.cdb)?;
        if self.stopped && command.targeted {
            return Err(STOPPED.into());
        }
        // Readers of fields go by the length.
        call.cdb = &call.cdb[..command.usage.len()];
        (command.serve)(self, call)
    }

    /// What a LU reset sets back (SAM-5 6.3.3): mode parameters, and whether
    /// the unit is started.
    pub(super) fn reset(&mut self) {
        self.mode = self.saved;
        self.stopped = false;
    }

    /// Makes the LU larger or smaller.
    ///
    /// # Errors
    /// Those of the medium; the capacity stays as it was.
    pub(super) fn resize(&mut self, blocks: u64) -> io::Result<()> {
        let len = blocks
            .checked_mul(u64::from(self.config.block_size))
            .filter(|len| *len > 0 && i64::try_from(*len).is_ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.medium.resize(len)?;
        self.config.blocks = blocks;
        Ok(())
    }

    /// From now on these blocks answer MEDIUM ERROR.
    pub(super) fn spoil(&mut self, extent: Extent) {
        if extent.blocks.0 > 0 {
            self.bad.push(extent);
        }
    }

    /// No block is bad any more.
    pub(super) fn mend(&mut self) {
        self.bad.clear();
    }

    pub(super) fn bad(&self) -> &[Extent] {
        &self.bad
    }

    /// Refuses an access that meets a bad block; INFORMATION is the first.
    pub(super) fn readable(&self, extent: Extent) -> Result<(), Failure> {
        self.sound(extent, SenseCode::UNRECOVERED_READ_ERROR)
    }

    /// Refuses writes where they are not allowed or meet a bad block.
    pub(super) fn writable(&self, extent: Extent) -> Result<(), Failure> {
        self.unprotected()?;
        self.sound(extent, SenseCode::WRITE_ERROR)
    }

    pub(super) fn unprotected(&self) -> Result<(), Failure> {
        if self.config.read_only {
            return Err(SenseCode::WRITE_PROTECTED.into());
        }
        if self.mode.software_write_protect { Err(SOFTWARE_PROTECTED.into()) } else { Ok(()) }
    }

    fn sound(&self, extent: Extent, code: SenseCode) -> Result<(), Failure> {
        let end = |extent: Extent| extent.lba.0.saturating_add(extent.blocks.0);
        let first = self
            .bad
            .iter()
            .map(|bad| (bad.lba.0.max(extent.lba.0), end(*bad).min(end(extent))))
            .filter(|(from, to)| from < to)
            .map(|(from, _)| from)
            .min();
        first.map_or(Ok(()), |lba| Err(Refusal::about(code, lba).into()))
    }

    /// Bytes a READ or WRITE of `extent` moves, if the LU takes it.
    pub(super) fn transfer_len(&self, extent: Extent) -> Result<usize, Failure> {
        self.in_range(extent)?;
        let limit = u64::from(self.config.max_transfer_blocks);
        if limit != 0 && extent.blocks.0 > limit {
            return Err(SenseCode::INVALID_FIELD_IN_CDB.into());
        }
        usize::try_from(self.offset(extent.blocks.0))
            .map_err(|_| SenseCode::INVALID_FIELD_IN_CDB.into())
    }

    pub(super) fn in_range(&self, extent: Extent) -> Result<(), Failure> {
        if extent.within(Blocks(self.config.blocks)) {
            return Ok(());
        }
        // The first LBA that is not there.
        let lba = extent.lba.0.max(self.config.blocks);
        Err(Refusal::about(SenseCode::LBA_OUT_OF_RANGE, lba).into())
    }

    pub(super) fn block_len(&self) -> usize {
        usize::try_from(self.config.block_size).unwrap_or(usize::MAX)
    }

    /// Blocks as bytes. LBAs were checked against the capacity, which is
    /// that of a medium addressed by 64 bits of bytes.
    pub(super) fn offset(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(u64::from(self.config.block_size))
    }
}

#[allow(clippy::needless_pass_by_value)] // the shape of map_err
pub(super) fn write_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        SenseCode::SPACE_ALLOCATION_FAILED.into()
    } else {
        SenseCode::WRITE_ERROR.into()
    }
}
