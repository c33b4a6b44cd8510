//! REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT
//! FUNCTIONS (SPC-5 6.35, 6.36), from the table of commands.

use crate::sim::answer::{Answer, Call, Failure, Outcome, wrong_field};
use crate::sim::command::{self, Command};
use crate::sim::lu::Lu;

/// SUPPORT: not, or as the standard says.
const NOT_SUPPORTED: u8 = 1;
const SUPPORTED: u8 = 3;

/// Command timeouts descriptor: nothing is said of them.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Lu {
    /// REPORT SUPPORTED OPERATION CODES.
    pub(in crate::sim) fn report_opcodes(&mut self, call: &Call<'_>) -> Outcome {
        let timeouts = call.flag(2, 0x80);
        let data = match call.byte(2) & 0x07 {
            0 => self.all_commands(timeouts),
            option @ 1..=3 => one_command(self.command_asked_for(call, option)?, timeouts),
            _ => return Err(wrong_field(2, Some(2))),
        };
        Ok(Answer::data(data, call.length_32(6)))
    }

    fn all_commands(&self, timeouts: bool) -> Vec<u8> {
        let mut data = vec![0; 4];
        for command in command::supported(&self.config) {
            let action = if command.has_action { command.action() } else { 0 };
            let flags = u8::from(timeouts) << 1 | u8::from(command.has_action);
            let len = u8::try_from(command.usage.len()).unwrap_or(0);
            data.extend([command.opcode(), 0, 0, action, 0, flags, 0, len]);
            if timeouts {
                data.extend(TIMEOUTS);
            }
        }
        let len = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
        data[..4].copy_from_slice(&len.to_be_bytes());
        data
    }

    /// REPORTING OPTIONS 1: an operation code without service actions; 2: one
    /// with; 3: either, where asking for the wrong kind means "no".
    fn command_asked_for(
        &self,
        call: &Call<'_>,
        option: u8,
    ) -> Result<Option<&'static Command>, Failure> {
        let (opcode, action) = (call.byte(3), call.u16_at(4));
        let of_opcode = || command::supported(&self.config).filter(|c| c.opcode() == opcode);
        let has_actions = of_opcode().any(|command| command.has_action);
        match option {
            1 if has_actions => return Err(wrong_field(2, Some(2))),
            2 if of_opcode().next().is_some() && !has_actions => {
                return Err(wrong_field(2, Some(2)));
            }
            _ => {}
        }
        let is_it = |command: &&Command| match (command.has_action, option) {
            (true, _) => u16::from(command.action()) == action,
            (false, 3) => action == 0,
            (false, _) => true,
        };
        Ok(of_opcode().find(is_it))
    }

    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    pub(in crate::sim) fn report_task_management(&mut self, call: &Call<'_>) -> Outcome {
        if call.length_32(6) < 4 {
            return Err(wrong_field(6, None));
        }
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET,
        // QUERY TASK; QUERY TASK SET, I_T NEXUS RESET.
        let mut data = vec![0xdc, 0x03, 0, 0];
        if call.flag(2, 0x80) {
            // Extended: twelve bytes more, of which none is set.
            data[3] = 12;
            data.resize(16, 0);
        }
        Ok(Answer::data(data, call.length_32(6)))
    }
}

fn one_command(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    let Some(command) = command else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let len = u8::try_from(command.usage.len()).unwrap_or(0);
    let mut data = vec![0, u8::from(timeouts) << 7 | SUPPORTED, 0, len];
    data.extend(command.usage);
    if timeouts {
        data.extend(TIMEOUTS);
    }
    data
}
