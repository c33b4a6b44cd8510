//! What the device tells its driver unasked, until there is a chain for it.
//!
//! Lives in the queue thread that runs the events ring. That ring is looked
//! at only while something waits: the driver keeps it full of chains, which
//! must neither be taken nor keep the thread awake.

use std::collections::VecDeque;

use crate::io::{DeviceEvent, Front};

/// Most events that wait for chains.
const MAX_WAITING: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<DeviceEvent>,
    /// Some were lost since the last one that was delivered.
    missed: bool,
}

impl Events {
    /// Keeps an event for the driver, whether or not its ring is running: a
    /// driver that has taken the feature and whose ring comes back (a pause,
    /// a new connection) has not looked for itself meanwhile. Without the
    /// feature nobody waits for it.
    pub(super) fn tell(&mut self, front: &impl Front, event: DeviceEvent) {
        if !front.wants_event(&event) {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.missed = true;
        } else {
            self.waiting.push_back(event);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next event that the driver (which may be another one by now) wants,
    /// and whether others were missed before it.
    pub(super) fn next(&mut self, front: &impl Front) -> Option<(DeviceEvent, bool)> {
        while let Some(event) = self.waiting.front() {
            if front.wants_event(event) {
                return Some((*event, self.missed));
            }
            self.waiting.pop_front();
        }
        None
    }

    /// The chain for the next event has been used: it holds the event, or it
    /// cannot, and the event is lost.
    pub(super) fn used(&mut self, delivered: bool) {
        self.waiting.pop_front();
        self.missed = !delivered;
    }
}
