//! Sense codes that we send ourselves or look for, by name (SPC-5 annex F).

use super::{Key, SenseCode};

macro_rules! codes {
    ($($name:ident = $key:ident / $asc:literal / $ascq:literal;)*) => {
        #[allow(missing_docs)] // the names are the standard's; `describe` has the words
        impl SenseCode {
            $(pub const $name: SenseCode = SenseCode::new(Key::$key, $asc, $ascq);)*

            /// Every code with a name here.
            pub const NAMED: &'static [SenseCode] = &[$(SenseCode::$name),*];
        }
    };
}

codes! {
    NO_SENSE = NoSense / 0x00 / 0x00;
    NOT_READY_TRANSITIONING = NotReady / 0x04 / 0x0a;
    NOT_READY_STANDBY = NotReady / 0x04 / 0x0b;
    NOT_READY_UNAVAILABLE = NotReady / 0x04 / 0x0c;
    NOT_READY_OFFLINE = NotReady / 0x04 / 0x12;
    MEDIUM_NOT_PRESENT = NotReady / 0x3a / 0x00;
    WRITE_ERROR = MediumError / 0x0c / 0x00;
    UNRECOVERED_READ_ERROR = MediumError / 0x11 / 0x00;
    INTERNAL_TARGET_FAILURE = HardwareError / 0x44 / 0x00;
    PARAMETER_LIST_LENGTH_ERROR = IllegalRequest / 0x1a / 0x00;
    INVALID_OPCODE = IllegalRequest / 0x20 / 0x00;
    LBA_OUT_OF_RANGE = IllegalRequest / 0x21 / 0x00;
    INVALID_FIELD_IN_CDB = IllegalRequest / 0x24 / 0x00;
    LUN_NOT_SUPPORTED = IllegalRequest / 0x25 / 0x00;
    INVALID_FIELD_IN_PARAMETER_LIST = IllegalRequest / 0x26 / 0x00;
    INVALID_RELEASE_OF_RESERVATION = IllegalRequest / 0x26 / 0x04;
    SAVING_NOT_SUPPORTED = IllegalRequest / 0x39 / 0x00;
    POWER_ON_OR_RESET = UnitAttention / 0x29 / 0x00;
    LU_RESET = UnitAttention / 0x29 / 0x03;
    NEXUS_LOSS = UnitAttention / 0x29 / 0x07;
    MODE_PARAMETERS_CHANGED = UnitAttention / 0x2a / 0x01;
    RESERVATIONS_PREEMPTED = UnitAttention / 0x2a / 0x03;
    RESERVATIONS_RELEASED = UnitAttention / 0x2a / 0x04;
    REGISTRATIONS_PREEMPTED = UnitAttention / 0x2a / 0x05;
    ACCESS_STATE_CHANGED = UnitAttention / 0x2a / 0x06;
    ACCESS_STATE_TRANSITION_FAILED = UnitAttention / 0x2a / 0x07;
    CAPACITY_CHANGED = UnitAttention / 0x2a / 0x09;
    COMMANDS_CLEARED = UnitAttention / 0x2f / 0x00;
    INQUIRY_DATA_CHANGED = UnitAttention / 0x3f / 0x03;
    REPORTED_LUNS_CHANGED = UnitAttention / 0x3f / 0x0e;
    WRITE_PROTECTED = DataProtect / 0x27 / 0x00;
    SPACE_ALLOCATION_FAILED = DataProtect / 0x27 / 0x07;
    IO_PROCESS_TERMINATED = AbortedCommand / 0x00 / 0x06;
    COMMAND_TIMEOUT = AbortedCommand / 0x2e / 0x02;
    MISCOMPARE = Miscompare / 0x1d / 0x00;
}
