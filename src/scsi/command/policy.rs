//! Which commands a guest may send: a set of denied groups.

use std::fmt;

use super::{Group, known};
use crate::scsi::cdb::Cdb;

/// A policy for one export.
///
/// The default denies what endangers other users of the LU or of the array
/// ([`Group::denied_by_default`]). A denied command gets `05/20/00`.
///
/// `paths_joined` everywhere says that what the guest sees as one LU is more
/// than one nexus (a map of several paths that the guest does not see). Then
/// RESERVE through one nexus would lock the others out, so [`Group::Reserve`]
/// is denied whatever is allowed. Persistent reservations are made to hold for
/// all of them, and pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommandPolicy {
    denied: u32,
}

impl CommandPolicy {
    /// Lets the guest send the commands of `group`.
    pub fn allow(&mut self, group: Group) {
        self.denied &= !group.bit();
    }

    /// Refuses the commands of `group`.
    pub fn deny(&mut self, group: Group) {
        self.denied |= group.bit();
    }

    /// Whether `group` is refused.
    pub fn denies(&self, group: Group, paths_joined: bool) -> bool {
        self.denied & group.bit() != 0 || (paths_joined && group == Group::Reserve)
    }

    /// Whether the guest may send `cdb`.
    ///
    /// # Errors
    /// The denied group the command belongs to; the answer is `05/20/00`.
    pub fn verdict(&self, cdb: &Cdb, paths_joined: bool) -> Result<(), Group> {
        match super::info(cdb).group {
            Some(group) if self.denies(group, paths_joined) => Err(group),
            _ => Ok(()),
        }
    }

    /// Whether some form of this command passes: what REPORT SUPPORTED
    /// OPERATION CODES may say (`opcodes::filter`). `service_action` is `None`
    /// where the list gives none.
    pub fn offers(&self, opcode: u8, service_action: Option<u16>, paths_joined: bool) -> bool {
        super::has_harmless_form(opcode)
            || known(opcode, service_action).group.is_none_or(|g| !self.denies(g, paths_joined))
    }

    /// The denied groups, in the order of [`Group::all`].
    pub fn denied(&self, paths_joined: bool) -> impl Iterator<Item = Group> + '_ {
        Group::all().filter(move |g| self.denies(*g, paths_joined))
    }
}

impl Default for CommandPolicy {
    fn default() -> CommandPolicy {
        let denied = Group::all().filter(|g| g.denied_by_default()).fold(0, |set, g| set | g.bit());
        CommandPolicy { denied }
    }
}

impl fmt::Debug for CommandPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.denied(false)).finish()
    }
}
