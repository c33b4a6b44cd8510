//! Waiting for the kernel: for how long, and who the completions belong to.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::{TAG_IGNORE, TAG_INBOX, TAG_KICK, TAG_MAIL, TAG_SHIFT, Worker};
use crate::io::{Front, RingRole, Time};
use crate::queue::ring::RunningRing;
use crate::sys::uring::Wait;

impl<F: Front> Worker<F> {
    /// Waits for the kernel, but not while there is something to do.
    pub(super) fn how_long(&mut self, now: Time, more: bool) -> Wait {
        if more || self.orders.are_waiting() {
            return Wait::No;
        }
        let has_room = self.maps.room() > 0;
        if has_room && !self.parked.is_empty() {
            return Wait::No;
        }
        let has_events = !self.events.is_empty();
        for ring in self.rings.iter_mut().flatten() {
            let wanted = match ring.role {
                RingRole::Requests => has_room,
                RingRole::Control => true,
                // Its chains lie there for as long as there is no event.
                RingRole::Events => has_events,
            };
            if wanted && ring.is_popping() && (ring.look || ring.queue.enable_notification()) {
                ring.look = true;
                return Wait::No;
            }
        }
        let stops = self.rings.iter().flatten().filter_map(RunningRing::deadline);
        let functions = self.functions.next_deadline(now);
        match stops.chain(self.maps.next_deadline()).chain(functions).min() {
            None => Wait::Forever,
            Some(at) if at <= now => Wait::No,
            Some(at) => Wait::AtMost(at.since(now).max(Duration::from_micros(50))),
        }
    }

    pub(super) fn reap(&mut self) -> io::Result<()> {
        let from_uring = &mut self.from_uring;
        let mut rearm_mail = false;
        let mut rearm_inbox = false;
        let mut look_in_inbox = false;
        let rings = &mut self.rings;
        let mut lost_kick_polls: Option<u16> = None;
        self.uring.reap(|cqe| match cqe.user_data >> TAG_SHIFT {
            0 => from_uring.push_back(cqe),
            TAG_KICK => {
                let (index, generation) = split_kick(cqe.user_data);
                if let Some(ring) = rings.get_mut(usize::from(index)).and_then(Option::as_mut) {
                    if ring.poll_generation == generation {
                        ring.look = true;
                        if !cqe.more {
                            ring.poll_lost = true;
                            lost_kick_polls = Some(index);
                        }
                    }
                }
            }
            TAG_MAIL => rearm_mail |= !cqe.more,
            TAG_INBOX => {
                look_in_inbox = true;
                rearm_inbox |= !cqe.more;
            }
            _ => {}
        });
        if lost_kick_polls.is_some() {
            self.rearm_kicks()?;
        }
        if rearm_mail {
            self.uring.poll_multi(self.mailbox.as_fd(), TAG_MAIL << TAG_SHIFT)?;
        }
        if rearm_inbox {
            self.uring.poll_multi(self.inbox.as_fd(), TAG_INBOX << TAG_SHIFT)?;
        }
        self.complete_from_uring();
        if look_in_inbox {
            self.complete_from_inbox();
        }
        Ok(())
    }

    /// Commands to bsg nodes want another kind of ring, which a thread has from
    /// its first such path on. Where it cannot be had, helper threads carry
    /// those of this `path`, and it is tried again for the next one.
    ///
    /// # Errors
    /// The new ring does not watch what wakes this thread: it cannot go on.
    pub(super) fn widen(&mut self, path: &str) -> io::Result<()> {
        if self.uring.is_wide() {
            return Ok(());
        }
        let kicks = self.rings.iter().flatten();
        let kicks = kicks.map(|ring| kick_user_data(ring.queue.index, ring.poll_generation));
        let watches = [TAG_MAIL << TAG_SHIFT, TAG_INBOX << TAG_SHIFT];
        let watches = watches.into_iter().chain(kicks);
        if let Err(error) = self.uring.widen(TAG_IGNORE << TAG_SHIFT, watches) {
            log::error!("{path}: no io_uring for its commands, SG_IO instead: {error}");
            return Ok(());
        }
        self.uring.poll_multi(self.mailbox.as_fd(), TAG_MAIL << TAG_SHIFT)?;
        self.uring.poll_multi(self.inbox.as_fd(), TAG_INBOX << TAG_SHIFT)?;
        for ring in self.rings.iter_mut().flatten() {
            ring.poll_lost = true;
        }
        self.rearm_kicks()
    }

    fn rearm_kicks(&mut self) -> io::Result<()> {
        for ring in self.rings.iter_mut().flatten() {
            if std::mem::take(&mut ring.poll_lost) {
                let user_data = kick_user_data(ring.queue.index, ring.poll_generation);
                self.uring.poll_multi(ring.queue.kick_fd(), user_data)?;
            }
        }
        Ok(())
    }

    fn complete_from_uring(&mut self) {
        let now = self.now();
        while let Some(cqe) = self.from_uring.pop_front() {
            self.maps.complete_from_uring(now, &cqe);
        }
    }

    fn complete_from_inbox(&mut self) {
        let now = self.now();
        let mut arrived = std::mem::take(&mut self.from_inbox);
        self.inbox.drain(&mut arrived);
        for (user_data, completion) in arrived.drain(..) {
            self.maps.complete_from_inbox(now, user_data, &completion);
        }
        self.from_inbox = arrived;
    }
}

/// User data of the poll of a ring's kick eventfd.
pub(super) fn kick_user_data(index: u16, generation: u32) -> u64 {
    TAG_KICK << TAG_SHIFT | u64::from(generation) << 16 | u64::from(index)
}

fn split_kick(user_data: u64) -> (u16, u32) {
    let index = u16::try_from(user_data & 0xffff).unwrap_or(0);
    let generation = u32::try_from((user_data >> 16) & 0xffff_ffff).unwrap_or(0);
    (index, generation)
}
