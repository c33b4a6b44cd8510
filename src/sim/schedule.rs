//! Tasks under way, in the order in which they will end: by time, then by
//! order of submission.
//!
//! Knows no command and no fault. Places are used again: once there have been
//! as many tasks at once as there will be, nothing is allocated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::command::Command;
use super::fault::Fate;
use super::{LuId, Task};
use crate::io::Time;

/// A task under way.
pub(super) struct Pending {
    pub(super) task: Task,
    pub(super) submitted: Time,
    /// The LU that has it.
    pub(super) lu: LuId,
    /// Of the LU's commands, if it is one.
    pub(super) command: Option<&'static Command>,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: Time,
    order: u64,
    place: usize,
}

/// All of them.
#[derive(Default)]
pub(super) struct Schedule {
    places: Vec<Option<Pending>>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<Key>>,
    submissions: u64,
}

impl Schedule {
    /// Ends at `at`, after what is there for the same moment.
    pub(super) fn push(&mut self, at: Time, pending: Pending) {
        self.submissions += 1;
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        self.places[place] = Some(pending);
        self.due.push(Reverse(Key { at, order: self.submissions, place }));
    }

    /// When the first ends.
    pub(super) fn first(&self) -> Option<Time> {
        self.due.peek().map(|Reverse(key)| key.at)
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<(Time, Pending)> {
        let Reverse(key) = self.due.pop()?;
        self.free.push(key.place);
        Some((key.at, self.places[key.place].take()?))
    }

    /// Takes some, in the order in which they would end.
    pub(super) fn take(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let is_one = |place: &Option<Pending>| place.as_ref().is_some_and(&which);
        if !self.places.iter().any(is_one) {
            return Vec::new();
        }
        let (mut keys, mut stay) = (Vec::new(), Vec::new());
        for Reverse(key) in std::mem::take(&mut self.due) {
            if is_one(&self.places[key.place]) { keys.push(key) } else { stay.push(Reverse(key)) }
        }
        self.due = BinaryHeap::from(stay);
        keys.sort_unstable();
        self.free.extend(keys.iter().map(|key| key.place));
        keys.iter().filter_map(|key| self.places[key.place].take()).collect()
    }

    /// Whether one is such.
    pub(super) fn any(&self, which: impl Fn(&Pending) -> bool) -> bool {
        self.places.iter().flatten().any(which)
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}
