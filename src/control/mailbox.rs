//! What other threads have to tell the control thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::discovery::Opening;
use super::opening::{Arrival, Lu, OpenLuError};
use super::uevents::DeviceNews;
use crate::host::OpenError;
use crate::io::{Identity, MapSlot};
use crate::mpath::checker::Verdict;
use crate::mpath::hwhandler::Activation;
use crate::mpath::prio::Reading;
use crate::mpath::reservation;
use crate::mpath::snapshot::PathId;
use crate::sys::eventfd::EventFd;
use crate::vhost_user::SessionEvent;

/// One message.
#[derive(Debug)]
pub(super) enum Mail {
    /// A path knows what a reservation had kept from it when it was opened.
    Learned,
    /// A check ended.
    Checked { path: PathId, check: u32, verdict: Verdict },
    /// A prioritizer ended.
    Prioritized { path: PathId, reading: u32, found: Reading },
    /// An activation ended.
    Activated { path: PathId, activation: u32, result: Activation },
    /// A sample was read, or not.
    Sampled { path: PathId, sample: u32, good: bool },
    /// A proof of identity ended.
    Proven { path: PathId, proof: u32, identity: Result<Identity, String> },
    /// A command about reservations ended. `told`: other paths may have to
    /// tell of it. `sent`: when it was sent last, by the clock of the guest's
    /// unit attentions.
    Reserved { path: PathId, job: u32, answer: reservation::Answer, sent: u64, told: bool },
    /// What is to be remembered of the map's reservations is on the disk, or
    /// could not be written; with the note's number.
    Kept { number: u64, result: Result<(), String> },
    /// The LU was reset by this path, or not.
    LuReset { path: PathId, result: io::Result<()> },
    /// A removed path's file is closed.
    Closed(PathId),
    /// A path to be added was opened, or not.
    Opened { ticket: u64, result: Result<Arrival, OpenError> },
    /// The paths of an LU to be added were opened, or not.
    LunOpened { ticket: u64, result: Result<Box<Lu>, OpenLuError> },
    /// A disk that discovery has found was opened, or not.
    Found { opening: Opening, result: Result<Arrival, OpenError> },
    /// SCSI disks came, went or spoke.
    Devices(Vec<DeviceNews>),
    /// Something happened to the front-end's connection.
    Session(SessionEvent),
    /// Rings and queue threads have ended; so many rings could not.
    Stopped { left: usize },
}

/// Puts mail into the control thread's box. Never blocks.
#[derive(Clone, Debug)]
pub(super) struct Post {
    mail: Sender<(MapSlot, Mail)>,
    wake: Arc<EventFd>,
    /// Which map it is about, where it is about a path of one.
    map: MapSlot,
}

impl Post {
    /// The same, for mail about a path of `map`.
    pub(super) fn of(&self, map: MapSlot) -> Post {
        Post { map, ..self.clone() }
    }

    pub(super) fn send(&self, mail: Mail) {
        // A control thread that is gone does not listen: the process ends.
        let _ = self.mail.send((self.map, mail));
        self.wake.signal();
    }
}

/// The control thread's end.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Receiver<(MapSlot, Mail)>,
    sender: Post,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Mailbox> {
        let (sender, mail) = channel();
        let wake = Arc::new(EventFd::new()?);
        Ok(Mailbox { mail, sender: Post { mail: sender, wake, map: MapSlot(0) } })
    }

    pub(super) fn sender(&self) -> Post {
        self.sender.clone()
    }

    /// Everything that has arrived, with the map it is about. Clears the wake-up first, so that nothing
    /// that arrives meanwhile is forgotten.
    pub(super) fn take(&self) -> Vec<(MapSlot, Mail)> {
        self.sender.wake.clear();
        self.mail.try_iter().collect()
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sender.wake.as_fd()
    }
}
