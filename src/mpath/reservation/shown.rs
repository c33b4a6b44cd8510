//! What is shown of reservations: to the administrator, and to the front, which
//! lets its guest see one nexus.

use std::fmt;

use super::Remembered;
use crate::io::Outcome;
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Key, Type};

/// What a path's nexus is to the array, as far as the guest's key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Registration {
    /// It has nothing of the guest's.
    #[default]
    None,
    /// It is registered with the guest's key.
    Registered,
    /// Only the array knows. The path carries nothing before that is settled.
    Unknown,
}

impl Registration {
    /// One word for display.
    pub fn name(self) -> &'static str {
        match self {
            Registration::None => "none",
            Registration::Registered => "registered",
            Registration::Unknown => "unknown",
        }
    }
}

/// What has changed, for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The guest has registered this key, or another than before.
    Registered(Key),
    /// The guest has given its registration up.
    Unregistered,
    /// Somebody else has removed the registration of this key.
    Preempted(Key),
    /// At the start, or after a command that may have been executed or not,
    /// the array says that this key is the guest's; `None`: it has none.
    Recalled(Option<Key>),
    /// An administrator has us forget the guest's key.
    Forgotten,
    /// The guest holds a reservation of this type.
    Reserved(Type),
    /// It does no longer.
    Released,
    /// The reservation was moved to this path from one that is down.
    TakenOver(String),
    /// This path had lost its registration and has it again.
    Repaired(String),
    /// This path could not be registered, which the array said in these words:
    /// it carries nothing.
    Barred(String, Outcome),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Registered(key) => write!(f, "the guest has registered the key {key}"),
            News::Unregistered => f.write_str("the guest has no key registered any more"),
            News::Preempted(key) => {
                write!(f, "another host has removed the guest's key {key}: the guest is fenced")
            }
            News::Recalled(Some(key)) => write!(f, "the array has the guest's key {key}"),
            News::Recalled(None) => f.write_str("the array has no key of the guest's"),
            News::Forgotten => f.write_str(
                "the guest's key is forgotten on request: paths are not registered any more, and \
                 conflicts are the guest's",
            ),
            News::Reserved(kind) => write!(f, "the guest holds a reservation: {}", kind.name()),
            News::Released => f.write_str("the guest holds no reservation any more"),
            News::TakenOver(path) => {
                write!(f, "the guest's reservation was moved to {path} from a path that is down")
            }
            News::Repaired(path) => {
                write!(f, "{path} had lost the guest's registration, and has it again")
            }
            News::Barred(path, outcome) => write!(
                f,
                "{path} carries nothing, for the guest's key could not be registered by it: {outcome:?}"
            ),
        }
    }
}

/// The state of reservations, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The guest's registration.
    pub registered: Option<Remembered>,
    /// The array is being asked whether it still is.
    pub unsure: bool,
    /// Type of the reservation that the guest holds.
    pub held: Option<Type>,
    /// The path that holds it, if that is known.
    pub holder: Option<PathId>,
    /// Orders of the guest's that have not been answered.
    pub orders: usize,
    /// Guest I/O is held while the reservation is moved.
    pub suspended: bool,
}
