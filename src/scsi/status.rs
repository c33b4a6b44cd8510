//! SAM-5 status codes and the Linux host bytes that accompany them.
//!
//! The status byte is the LU's word (SAM-5 5.3.1); the host byte (`DID_*`,
//! `include/scsi/scsi_status.h`) is the kernel's or HBA's word about the
//! transport. The two are never mixed up: only the first may reach a guest.

use std::fmt;

/// A SAM-5 status byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

/// A Linux host byte (`DID_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostByte(pub u8);

macro_rules! named_bytes {
    ($ty:ident { $($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)* }) => {
        impl $ty {
            $($(#[$doc])* pub const $name: $ty = $ty($value);)*

            /// Every named code with its conventional spelling.
            pub const NAMES: &'static [($ty, &'static str)] = &[$(($ty::$name, $text)),*];

            /// The conventional spelling, if the code has one.
            pub fn name(self) -> Option<&'static str> {
                Self::NAMES.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#04x}", self.0),
                }
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

named_bytes!(Status {
    /// Completed.
    GOOD = 0x00, "GOOD";
    /// Sense data says what happened.
    CHECK_CONDITION = 0x02, "CHECK CONDITION";
    /// PRE-FETCH: everything fits.
    CONDITION_MET = 0x04, "CONDITION MET";
    /// Try again shortly.
    BUSY = 0x08, "BUSY";
    /// Another nexus holds a reservation.
    RESERVATION_CONFLICT = 0x18, "RESERVATION CONFLICT";
    /// The LU's queue is full.
    TASK_SET_FULL = 0x28, "TASK SET FULL";
    /// An auto contingent allegiance exists.
    ACA_ACTIVE = 0x30, "ACA ACTIVE";
    /// Aborted by another nexus (TAS=1).
    TASK_ABORTED = 0x40, "TASK ABORTED";
});

named_bytes!(HostByte {
    /// The transport worked.
    OK = 0x00, "DID_OK";
    /// Could not connect to the target.
    NO_CONNECT = 0x01, "DID_NO_CONNECT";
    /// The bus stayed busy.
    BUS_BUSY = 0x02, "DID_BUS_BUSY";
    /// The command timed out and was aborted.
    TIME_OUT = 0x03, "DID_TIME_OUT";
    /// The target is not there.
    BAD_TARGET = 0x04, "DID_BAD_TARGET";
    /// Aborted for another reason.
    ABORT = 0x05, "DID_ABORT";
    /// Parity error.
    PARITY = 0x06, "DID_PARITY";
    /// Internal error of the HBA.
    ERROR = 0x07, "DID_ERROR";
    /// Reset by somebody.
    RESET = 0x08, "DID_RESET";
    /// Unexpected interrupt.
    BAD_INTR = 0x09, "DID_BAD_INTR";
    /// Forced past the mid-layer.
    PASSTHROUGH = 0x0a, "DID_PASSTHROUGH";
    /// The low level driver asks for a retry.
    SOFT_ERROR = 0x0b, "DID_SOFT_ERROR";
    /// Retry at once.
    IMM_RETRY = 0x0c, "DID_IMM_RETRY";
    /// Requeue.
    REQUEUE = 0x0d, "DID_REQUEUE";
    /// The transport broke in the middle; the path may come back.
    TRANSPORT_DISRUPTED = 0x0e, "DID_TRANSPORT_DISRUPTED";
    /// The transport's fast-fail timer ran out.
    TRANSPORT_FAILFAST = 0x0f, "DID_TRANSPORT_FAILFAST";
    /// The target reports a permanent failure.
    TARGET_FAILURE = 0x10, "DID_TARGET_FAILURE";
    /// The nexus reports a permanent failure (reservation conflict).
    NEXUS_FAILURE = 0x11, "DID_NEXUS_FAILURE";
    /// Space allocation failed (thin provisioning).
    ALLOC_FAILURE = 0x12, "DID_ALLOC_FAILURE";
    /// Medium error.
    MEDIUM_ERROR = 0x13, "DID_MEDIUM_ERROR";
    /// The port is marginal.
    TRANSPORT_MARGINAL = 0x14, "DID_TRANSPORT_MARGINAL";
});
