//! How other threads talk to a queue thread.
//!
//! Rare messages under a mutex, announced by one flag and one eventfd: the
//! queue thread reads the flag once per round and takes the lock only when
//! there is mail.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::dispatch::Settings;
use super::worker::Order;
use super::{Counters, StillInKernel, Stop};
use crate::guest::memory::Memory;
use crate::guest::virtqueue::VirtQueue;
use crate::io::{DeviceEvent, Limits, MapSlot, Outcome};
use crate::mpath::reservation::OrderId;
use crate::mpath::snapshot::{PathId, PathTable};
use crate::passthrough_scsi::PathHandle;
use crate::scsi::attention::Attentions;
use crate::sys::eventfd::EventFd;

/// Where a ring that stopped goes.
pub(super) type RingReply = Sender<Result<Box<VirtQueue>, StillInKernel>>;

/// Counts queue threads down; the last one answers.
#[derive(Clone, Debug)]
pub(super) struct LastOne {
    left: Arc<AtomicUsize>,
    answer: Sender<()>,
}

impl LastOne {
    pub(super) fn of(count: usize, answer: Sender<()>) -> LastOne {
        LastOne { left: Arc::new(AtomicUsize::new(count)), answer }
    }

    pub(super) fn done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nobody listening any more is fine.
            let _ = self.answer.send(());
        }
    }
}

/// A map as a queue thread is to serve it.
#[derive(Debug)]
pub(super) struct NewMap {
    pub(super) map: MapSlot,
    pub(super) settings: Settings,
    pub(super) table: Arc<PathTable>,
    pub(super) attentions: Option<Arc<Attentions>>,
    pub(super) counters: Arc<Counters>,
}

/// A message to a queue thread, handled in order.
#[derive(Debug)]
pub(super) enum Mail {
    /// A ring to run.
    Start(Box<VirtQueue>),
    /// Give a ring back.
    Stop { index: u16, how: Stop, deadline: Duration, reply: RingReply },
    /// Pop from it, or do not.
    Enable { index: u16, enabled: bool },
    /// Its interrupt goes there now.
    SetCall { index: u16, call: Option<OwnedFd> },
    /// Guest memory lies there now.
    SetMemory { memory: Arc<Memory>, done: LastOne },
    /// A map to serve.
    AddMap(Box<NewMap>),
    /// A map that goes.
    RemoveMap(MapSlot),
    /// A path a later table will name.
    Attach(MapSlot, PathId, Arc<PathHandle>),
    /// A path no table names any more.
    Detach(MapSlot, PathId),
    /// The usable paths.
    Table(MapSlot, Arc<PathTable>),
    /// The smallest limits over all paths.
    SetLimits(MapSlot, Limits),
    /// An order has ended so.
    Answer(MapSlot, OrderId, Outcome),
    /// Task management, from the thread that took it from its ring.
    Manage(Order),
    /// All threads are through with a function of this thread.
    Managed { number: u64, found: bool },
    /// Something for the driver.
    Tell(DeviceEvent),
    /// End the thread once its rings are gone.
    Quit,
}

/// A queue thread's mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Mutex<VecDeque<Mail>>,
    waiting: AtomicBool,
    event: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Mailbox> {
        Ok(Mailbox {
            mail: Mutex::new(VecDeque::with_capacity(16)),
            waiting: AtomicBool::new(false),
            event: EventFd::new()?,
        })
    }

    pub(super) fn post(&self, mail: Mail) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push_back(mail);
        self.waiting.store(true, Ordering::Release);
        self.event.signal();
    }

    /// The next message; costs one load when there is none.
    pub(super) fn next(&self) -> Option<Mail> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        let next = mail.pop_front();
        if next.is_none() {
            // Under the lock: a post after this sets it again.
            self.waiting.store(false, Ordering::Release);
        }
        next
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
