//! A suspended map: nothing new is issued while its engine moves the guest's
//! reservation from path to path, when a command would meet whatever is
//! registered at that moment.
//!
//! What wants a path is held instead, whatever the queueing policy; the time
//! counts towards no limit on being held for want of a path. What is on a path
//! stays there (law 1): the map is *quiet* once nothing is.

use super::Dispatcher;
use super::choose::Choice;
use super::parts::{PartIndex, Place};

impl Dispatcher {
    /// The generation of the present table, if it suspends the map and nothing
    /// of this thread is on any path, in the table or not.
    pub fn quiet(&self) -> Option<u64> {
        let quiet = self.table.suspended && self.selector.all_idle();
        quiet.then_some(self.table.generation)
    }

    /// Holds a part that wants a path until there is another table.
    pub(super) fn suspend(&mut self, index: PartIndex) -> Choice {
        if self.is_stopping(self.parts[index].request) {
            let (outcome, rule, path) = super::stop::STOPPED;
            self.end_part(index, outcome, rule, path);
            return Choice::Gone;
        }
        let part = &mut self.parts[index];
        part.place = Place::Held;
        match part.held_since {
            Some(since) => self.hold(since, index),
            None => self.held.push_back(index),
        }
        Choice::Gone
    }
}
