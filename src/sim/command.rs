//! The commands the LU implements: one table, from which come dispatch, the
//! check of reserved bits, and REPORT SUPPORTED OPERATION CODES (SPC-5 6.35).
//!
//! A row says how a command looks and when it is served; what it does is in
//! the function it names.

use super::answer::{Call, Failure, Outcome, wrong_field};
use super::config::{LuConfig, Tpgs};
use super::lu::Lu;
use super::target::Served;
use crate::scsi::sense::SenseCode;

/// One command.
#[derive(Clone, Copy)]
pub(super) struct Command {
    /// CDB USAGE DATA: operation code, service action, and which bits of the
    /// others are looked at. As long as the CDB.
    pub(super) usage: &'static [u8],
    /// Told from others of its operation code by the low five bits of byte 1.
    pub(super) has_action: bool,
    /// Bits of byte 1 that may be set and mean nothing here: obsolete hints.
    ignored: u8,
    /// All the bits that may be set, as the CDB lies in memory.
    known: u128,
    needs: Needs,
    pub(super) served: Served,
    /// Is refused while the LU is stopped, and met by injected answers:
    /// medium accesses and TEST UNIT READY.
    pub(super) targeted: bool,
    pub(super) serve: fn(&mut Lu, &Call<'_>) -> Outcome,
}

/// What the LU must be for a command to be implemented.
#[derive(Clone, Copy)]
enum Needs {
    Nothing,
    Unmap,
    CompareAndWrite,
    Alua,
    ExplicitAlua,
}

pub(super) const TEST_UNIT_READY: u8 = 0x00;
pub(super) const MODE_SELECT_6: u8 = 0x15;
pub(super) const MODE_SELECT_10: u8 = 0x55;
pub(super) const MAINTENANCE_OUT: u8 = 0xa4;
pub(super) const PERSISTENT_RESERVE_OUT: u8 = 0x5f;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const REPORT_LUNS: u8 = 0xa0;
pub(super) const REQUEST_SENSE: u8 = 0x03;

/// FUA_NV and RARC, or what they were before.
const HINTS: u8 = 0x06;
/// SYNC_NV.
const SYNC_NV: u8 = 0x04;

type Serve = fn(&mut Lu, &Call<'_>) -> Outcome;

/// A command that describes the LU or manages it.
const fn about(usage: &'static [u8], served: Served, serve: Serve) -> Command {
    let needs = Needs::Nothing;
    let known = 0; // see with_known
    Command { usage, has_action: false, ignored: 0, known, needs, served, targeted: false, serve }
}

/// A command with a service action.
const fn action(usage: &'static [u8], served: Served, serve: Serve) -> Command {
    Command { has_action: true, ..about(usage, served, serve) }
}

/// A service action of PERSISTENT RESERVE OUT.
const fn reserve(usage: &'static [u8]) -> Command {
    action(usage, Served::Standby, Lu::persistent_reserve_out)
}

/// A command that touches blocks.
const fn medium(usage: &'static [u8], ignored: u8, serve: Serve) -> Command {
    Command { ignored, targeted: true, ..about(usage, Served::Active, serve) }
}

const fn if_able(needs: Needs, command: Command) -> Command {
    Command { needs, ..command }
}

/// Fills in [`Command::known`].
const fn with_known<const N: usize>(mut rows: [Command; N]) -> [Command; N] {
    let mut row = 0;
    while row < N {
        let mut known = [0; 16];
        let mut at = 0;
        while at < rows[row].usage.len() {
            known[at] = rows[row].known_at(at);
            at += 1;
        }
        rows[row].known = u128::from_ne_bytes(known);
        row += 1;
    }
    rows
}

/// Every command, ascending.
#[rustfmt::skip]
const COMMANDS: &[Command] = &with_known([
    medium(&[0x00, 0, 0, 0, 0, 0], 0, Lu::test_unit_ready),
    about(&[REQUEST_SENSE, 0x01, 0, 0, 0xff, 0], Served::Always, Lu::request_sense),
    medium(&[0x08, 0x1f, 0xff, 0xff, 0xff, 0], 0, Lu::read),
    medium(&[0x0a, 0x1f, 0xff, 0xff, 0xff, 0], 0, Lu::write),
    about(&[INQUIRY, 0x01, 0xff, 0xff, 0xff, 0], Served::Always, Lu::inquiry),
    about(&[0x15, 0x11, 0, 0, 0xff, 0], Served::Standby, Lu::mode_select),
    about(&[0x1a, 0x08, 0xff, 0xff, 0xff, 0], Served::Standby, Lu::mode_sense),
    about(&[0x1b, 0x01, 0, 0x0f, 0xf7, 0], Served::Active, Lu::start_stop_unit),
    about(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Served::Standby, Lu::read_capacity_10),
    medium(&[0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], HINTS, Lu::read),
    medium(&[0x2a, 0x18, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], HINTS, Lu::write),
    medium(&[0x2e, 0x16, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], 0, Lu::write_and_verify),
    medium(&[0x2f, 0x16, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], 0, Lu::verify),
    medium(&[0x34, 0x02, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], 0, Lu::pre_fetch),
    medium(&[0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], SYNC_NV, Lu::synchronize_cache),
    medium(&[0x41, 0x08, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0], 0, Lu::write_same),
    if_able(Needs::Unmap,
        medium(&[0x42, 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0], 0, Lu::unmap)),
    about(&[0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::mode_select),
    // LLBAA allows long block descriptors; it does not demand them.
    Command { ignored: 0x10,
        ..about(&[0x5a, 0x08, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::mode_sense) },
    action(&[0x5e, 0x00, 0, 0, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::persistent_reserve_in),
    action(&[0x5e, 0x01, 0, 0, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::persistent_reserve_in),
    action(&[0x5e, 0x02, 0, 0, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::persistent_reserve_in),
    action(&[0x5e, 0x03, 0, 0, 0, 0, 0, 0xff, 0xff, 0], Served::Standby, Lu::persistent_reserve_in),
    reserve(&[0x5f, 0x00, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x01, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x02, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x03, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x04, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x05, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x06, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    reserve(&[0x5f, 0x08, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0]),
    medium(&[0x88, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], HINTS, Lu::read),
    if_able(Needs::CompareAndWrite,
        medium(&[0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x3f, 0], 0x02, Lu::compare_and_write)),
    medium(&[0x8a, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], HINTS, Lu::write),
    medium(&[0x8e, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::write_and_verify),
    medium(&[0x8f, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::verify),
    medium(&[0x90, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::pre_fetch),
    medium(&[0x91, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], SYNC_NV, Lu::synchronize_cache),
    medium(&[0x93, 0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::write_same),
    action(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Standby, Lu::read_capacity_16),
    Command { targeted: true,
        ..action(&[0x9e, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], Served::Active, Lu::get_lba_status) },
    about(&[REPORT_LUNS, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Always, Lu::report_luns),
    if_able(Needs::Alua,
        action(&[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Always, Lu::report_target_port_groups)),
    action(&[0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Standby, Lu::report_opcodes),
    action(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Standby, Lu::report_task_management),
    if_able(Needs::ExplicitAlua,
        action(&[0xa4, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], Served::Settled, Lu::set_target_port_groups)),
    medium(&[0xa8, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], HINTS, Lu::read),
    medium(&[0xaa, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], HINTS, Lu::write),
    medium(&[0xae, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::write_and_verify),
    medium(&[0xaf, 0x16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0], 0, Lu::verify),
]);

/// Where in the table an operation code begins; its length where it does not.
const FIRST: [u8; 256] = {
    let mut first = [TABLE_LEN; 256];
    let mut row = COMMANDS.len();
    while row > 0 {
        row -= 1;
        #[allow(clippy::cast_possible_truncation)] // see TABLE_LEN
        let at = row as u8;
        first[COMMANDS[row].usage[0] as usize] = at;
    }
    first
};

/// Rows of the table.
const TABLE_LEN: u8 = {
    assert!(COMMANDS.len() < 256);
    #[allow(clippy::cast_possible_truncation)] // just looked at
    let len = COMMANDS.len() as u8;
    len
};

/// The commands an LU of this configuration implements.
pub(super) fn supported(config: &LuConfig) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().filter(move |command| command.is_supported(config))
}

/// The command a CDB is, if the LU implements it.
///
/// # Errors
/// 05/20/00; or 05/24/00 for a service action that is not implemented
/// (SPC-5 4.2.5.2).
pub(super) fn find(config: &LuConfig, cdb: &[u8]) -> Result<&'static Command, Failure> {
    let opcode = cdb.first().copied().unwrap_or(0);
    let second = cdb.get(1).copied().unwrap_or(0) & 0x1f;
    let rows = COMMANDS[usize::from(FIRST[usize::from(opcode)])..].iter();
    let rows = rows.take_while(|command| command.opcode() == opcode);
    let mut known = false;
    for command in rows.filter(|command| command.is_supported(config)) {
        if !command.has_action || command.action() == second {
            return Ok(command);
        }
        known = true;
    }
    Err(if known { wrong_field(1, Some(4)) } else { SenseCode::INVALID_OPCODE.into() })
}

impl Command {
    pub(super) fn opcode(&self) -> u8 {
        self.usage[0]
    }

    /// Service action; meaningful only with [`Command::has_action`].
    pub(super) fn action(&self) -> u8 {
        self.usage[1] & 0x1f
    }

    /// Bits of a byte that may be set.
    const fn known_at(&self, at: usize) -> u8 {
        let known = self.usage[at];
        match at {
            // A service action was compared whole.
            1 if self.has_action => known | self.ignored | 0x1f,
            1 => known | self.ignored,
            _ => known,
        }
    }

    fn is_supported(&self, config: &LuConfig) -> bool {
        match self.needs {
            Needs::Nothing => true,
            Needs::Unmap => config.unmaps(),
            Needs::CompareAndWrite => config.max_compare_and_write_blocks > 0,
            Needs::Alua => config.tpgs != Tpgs::None,
            Needs::ExplicitAlua => config.tpgs.is_explicit(),
        }
    }

    /// Whether every bit that is set in the CDB is one the command has. Bits
    /// for features we lack (protection information, ANCHOR, NACA) are not.
    ///
    /// # Errors
    /// 05/24/00, pointing at the highest bit that is wrong.
    pub(super) fn check(&self, cdb: &[u8]) -> Result<(), Failure> {
        if cdb.len() < self.usage.len() {
            return Err(SenseCode::INVALID_FIELD_IN_CDB.into());
        }
        let mut all = [0; 16];
        all[..self.usage.len()].copy_from_slice(&cdb[..self.usage.len()]);
        if u128::from_ne_bytes(all) & !self.known == 0 {
            return Ok(());
        }
        for (at, byte) in cdb.iter().enumerate().take(self.usage.len()) {
            let wrong = byte & !self.known_at(at);
            if wrong != 0 {
                let bit = u8::try_from(wrong.ilog2()).ok();
                return Err(wrong_field(u16::try_from(at).unwrap_or(0), bit));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::cdb::opcode_name;

    #[test]
    fn rows_ascend_have_names_and_the_length_of_their_group() {
        let key = |c: &Command| (c.opcode(), if c.has_action { c.action() } else { 0 });
        assert!(COMMANDS.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
        for command in COMMANDS {
            assert!(opcode_name(command.opcode(), command.action().into()).is_some());
            let len = [6, 10, 10, 0, 16, 12, 0, 0][usize::from(command.opcode() >> 5)];
            assert_eq!(command.usage.len(), len, "{:02x}", command.opcode());
        }
    }
}
