//! Paths to the simulated array, in real time.
//!
//! One thread per image owns the [`Array`] and its medium; every path to the
//! image is a nexus of that array. The thread sleeps until the next deadline
//! or message, and reads the only clock. What the array does with a command
//! and a fault is `crate::sim`'s work; nothing is decided here.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::data::Buffer;
use super::inbox::Ticket;
use super::wire::Wire;
use crate::io::{Completion, Direction, ErrnoFrom, Segment, Time, total_len};
use crate::scsi::alua::AccessState;
use crate::scsi::cdb::Cdb;
use crate::sim::{
    Array, DeviceState, Done, Fault, LuConfig, LuId, Medium, NexusId, NotInjected, Personality,
    Plugged, PortConflict, Reservations, Stats, Task, Tpgs,
};
use crate::sys::file::{self, Range};
use crate::sys::scsi_generic;
use crate::sys::segment;

#[cfg(test)]
mod tests;

/// Messages taken between two polls of the array.
const BATCH: usize = 64;

/// What an array knows of registrations when it is started, and who is told of
/// what it knows, in words ([`Reservations::to_words`]), before the initiator
/// hears that its command has changed it.
pub struct Keeper {
    /// From the last time.
    pub kept: Reservations,
    /// For the next.
    pub keep: Box<dyn FnMut(&str) + Send>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// What a host would say of a simulated path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimFacts {
    /// As sysfs `device/state`.
    pub state: DeviceState,
    /// As `device/access_state` and `device/preferred_path`.
    pub access: Option<(AccessState, bool)>,
}

/// Who waits for a task.
enum Waiter {
    Port { ticket: Ticket, segments: Vec<Segment> },
    Thread(SyncSender<(Completion, Vec<u8>)>),
}

enum Message {
    Submit { task: Task, waiter: Waiter },
    Add(String, Plugged, SyncSender<Result<NexusId, PortConflict>>),
    Remove(NexusId),
    Inject(NexusId, Fault, SyncSender<Result<(), NotInjected>>),
    Reset(NexusId),
    Describe(NexusId, SyncSender<(String, Option<Stats>)>),
    Facts(NexusId, SyncSender<Option<SimFacts>>),
    Latency(Duration),
    Quit,
}

/// A simulated LU on an image, and the thread that serves it. Shared by its
/// paths; the thread ends, and the image is closed, with the last of them.
pub struct SimImage {
    to_array: Mutex<Sender<Message>>,
    behaviour: (Personality, Tpgs),
    thread: Option<JoinHandle<()>>,
}

impl SimImage {
    /// Starts an array that knows of no registrations.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: LuConfig, medium: Box<dyn Medium>) -> io::Result<SimImage> {
        let (kept, keep) = (Reservations::default(), Box::new(|_: &str| {}));
        SimImage::start_with(config, medium, Keeper { kept, keep })
    }

    /// Starts an array.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_with(
        config: LuConfig,
        medium: Box<dyn Medium>,
        keeper: Keeper,
    ) -> io::Result<SimImage> {
        let (to_array, messages) = mpsc::channel();
        let behaviour = (config.personality, config.tpgs);
        let thread = thread::Builder::new().name("sim-array".to_owned()).spawn(move || {
            scsi_generic::block_signals();
            Server::new(Array::new(config, medium), keeper).run(&messages);
        })?;
        Ok(SimImage { to_array: Mutex::new(to_array), behaviour, thread: Some(thread) })
    }

    fn send(&self, message: Message) {
        // The thread lives as long as the image: it ends by `Quit` only.
        let _ = self.to_array.lock().unwrap_or_else(PoisonError::into_inner).send(message);
    }

    /// Whose array it behaves like, and how its access states change.
    pub fn behaviour(&self) -> (Personality, Tpgs) {
        self.behaviour
    }

    /// Plugs in a path, at a port of its own.
    ///
    /// # Errors
    /// When the array's thread is gone.
    pub fn add_path(self: &Arc<Self>, name: &str) -> io::Result<SimNexus> {
        self.add_path_at(name, Plugged::default())
    }

    /// Plugs in a path where `at` says.
    ///
    /// # Errors
    /// When its port is in another group already, or the array's thread gone.
    ///
    /// # Panics
    /// The array's thread, for an LU that is not there.
    pub fn add_path_at(self: &Arc<Self>, name: &str, at: Plugged) -> io::Result<SimNexus> {
        let (answer, id) = mpsc::sync_channel(1);
        self.send(Message::Add(name.to_owned(), at, answer));
        let id = id.recv().map_err(|_| io::Error::other("the simulated array has ended"))?;
        let id = id.map_err(|conflict| io::Error::new(io::ErrorKind::AddrInUse, conflict))?;
        Ok(SimNexus { image: Arc::clone(self), id })
    }

    /// Service time of every command from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.send(Message::Latency(latency));
    }
}

impl Drop for SimImage {
    fn drop(&mut self) {
        self.send(Message::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SimImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimImage").finish_non_exhaustive()
    }
}

/// One path to a simulated LU; unplugged when dropped.
#[derive(Debug)]
pub struct SimNexus {
    image: Arc<SimImage>,
    id: NexusId,
}

impl SimNexus {
    pub(super) fn issue(
        &self,
        wire: Wire,
        segments: &[Segment],
        timeout: Duration,
        ticket: Ticket,
    ) {
        let Wire { cdb, direction, parameters, .. } = wire;
        let (data_out, data_in_max, segments) = match (direction, parameters) {
            (Direction::None, _) => (Vec::new(), 0, Vec::new()),
            (_, Some(parameters)) => (parameters, 0, Vec::new()),
            (Direction::In, None) => (Vec::new(), total_len(segments), segments.to_vec()),
            (Direction::Out, None) => {
                let mut data = vec![0; total_len(segments)];
                // SAFETY: the requester keeps its segments until the
                // completion (contract of `Segment`); `data` is ours.
                unsafe { segment::copy_in(segments, 0, &mut data) };
                (data, 0, Vec::new())
            }
        };
        let task = Task { nexus: self.id, tag: 0, cdb, data_out, data_in_max, timeout };
        self.image.send(Message::Submit { task, waiter: Waiter::Port { ticket, segments } });
    }

    pub(super) fn execute(&self, cdb: &Cdb, data: Buffer<'_>, timeout: Duration) -> Completion {
        let (answer, done) = mpsc::sync_channel(1);
        let (data_out, data_in) = match data {
            Buffer::In(bytes) => (Vec::new(), bytes),
            Buffer::Out(bytes) => (bytes.to_vec(), &mut [][..]),
        };
        let task = Task {
            nexus: self.id,
            tag: 0,
            cdb: *cdb,
            data_out,
            data_in_max: data_in.len(),
            timeout,
        };
        self.image.send(Message::Submit { task, waiter: Waiter::Thread(answer) });
        match done.recv() {
            Ok((completion, data)) => {
                let len = data.len().min(data_in.len());
                data_in[..len].copy_from_slice(&data[..len]);
                completion
            }
            Err(_) => Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV },
        }
    }

    /// Injects a fault; it is in force when this returns.
    pub(super) fn inject(&self, fault: Fault) -> Result<(), NotInjected> {
        let (answer, result) = mpsc::sync_channel(1);
        self.image.send(Message::Inject(self.id, fault, answer));
        result.recv().unwrap_or(Err(NotInjected::NoPath))
    }

    /// LOGICAL UNIT RESET: ends the commands of every path to the LU, those of
    /// other initiators among them. They return through their own ports,
    /// after this.
    pub fn reset_lu(&self) {
        self.image.send(Message::Reset(self.id));
    }

    /// `None` when the array's thread is gone.
    pub(super) fn facts(&self) -> Option<SimFacts> {
        let (answer, facts) = mpsc::sync_channel(1);
        self.image.send(Message::Facts(self.id, answer));
        facts.recv().ok().flatten()
    }

    pub(super) fn describe(&self) -> (String, Option<Stats>) {
        let (answer, text) = mpsc::sync_channel(1);
        self.image.send(Message::Describe(self.id, answer));
        text.recv().unwrap_or_default()
    }
}

impl Drop for SimNexus {
    fn drop(&mut self) {
        self.image.send(Message::Remove(self.id));
    }
}

/// The array's thread.
struct Server {
    array: Array,
    waiters: HashMap<u64, Waiter>,
    next_tag: u64,
    started: Instant,
    done: Vec<Done>,
    keep: Box<dyn FnMut(&str) + Send>,
    /// Revision of what was kept last.
    kept: u64,
}

impl Server {
    fn new(mut array: Array, Keeper { kept, keep }: Keeper) -> Server {
        #[allow(clippy::disallowed_methods)] // real time enters the array here
        let started = Instant::now();
        array.restore(LuId(0), kept);
        let kept = array.reservations(LuId(0)).revision();
        let (waiters, done) = (HashMap::new(), Vec::new());
        Server { array, waiters, next_tag: 0, started, done, keep, kept }
    }

    /// Has registrations kept that have changed.
    fn keep(&mut self) {
        let reservations = self.array.reservations(LuId(0));
        if reservations.revision() != self.kept {
            self.kept = reservations.revision();
            (self.keep)(&reservations.to_words());
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            self.deliver();
            let first = match self.array.next_deadline() {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => messages.recv_timeout(deadline.since(self.now())),
            };
            let first = match first {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // What else is there, within reason: deadlines wait meanwhile.
            let rest = messages.try_iter().take(BATCH);
            if !std::iter::once(first).chain(rest).all(|message| self.take(message)) {
                return;
            }
        }
    }

    /// Whether to go on.
    fn take(&mut self, message: Message) -> bool {
        let now = self.now();
        match message {
            Message::Submit { mut task, waiter } => {
                task.tag = self.next_tag;
                self.next_tag += 1;
                self.waiters.insert(task.tag, waiter);
                self.array.submit(now, task);
            }
            Message::Add(name, at, answer) => drop(answer.send(self.array.connect(&name, at))),
            Message::Remove(id) => self.array.remove_nexus(now, id),
            Message::Inject(id, fault, answer) => {
                let injected = self.array.try_inject(now, id, fault);
                self.keep();
                drop(answer.send(injected));
            }
            Message::Reset(id) => self.array.reset_lu(now, id),
            Message::Describe(id, answer) => {
                let faults = self.array.condition(id).unwrap_or_default();
                let _ = answer.send((faults, self.array.stats(id)));
            }
            Message::Facts(id, answer) => {
                let access = self.array.access_fact(id);
                let facts = self.array.device_state(id).map(|state| SimFacts { state, access });
                let _ = answer.send(facts);
            }
            Message::Latency(latency) => self.array.set_latency(latency),
            Message::Quit => return false,
        }
        true
    }

    fn deliver(&mut self) {
        let now = self.now();
        self.array.poll(now, &mut self.done);
        self.keep();
        for done in self.done.drain(..) {
            match self.waiters.remove(&done.tag) {
                Some(Waiter::Port { ticket, segments }) => {
                    // SAFETY: the requester keeps its segments until the
                    // completion (contract of `Segment`).
                    unsafe { segment::copy_out(&segments, 0, &done.data_in) };
                    self.array.recycle(done.data_in);
                    ticket.finish(done.completion);
                }
                // Whoever gave up waiting does not want it any more.
                Some(Waiter::Thread(answer)) => drop(answer.send((done.completion, done.data_in))),
                None => {}
            }
        }
    }
}

/// The blocks of a simulated LU in an image file.
#[derive(Debug)]
pub struct FileMedium {
    file: Arc<File>,
}

impl FileMedium {
    /// On an open image of the LU's size.
    pub fn new(file: Arc<File>) -> FileMedium {
        FileMedium { file }
    }
}

impl Medium for FileMedium {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn zero(&mut self, offset: u64, len: u64, deallocate: bool) -> io::Result<()> {
        let range = if deallocate { Range::Punch } else { Range::Zero };
        match file::fallocate(self.file.as_fd(), range, offset, len) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {}
            result => return result,
        }
        let zeroes = [0; 65536];
        let mut at = offset;
        let end = offset.saturating_add(len);
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeroes.len());
            self.file.write_all_at(&zeroes[..part], at)?;
            at += u64::try_from(part).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn mapped(&mut self, offset: u64, len: u64) -> io::Result<(bool, u64)> {
        let (mapped, run) = file::run_at(self.file.as_fd(), offset)?;
        Ok((mapped, run.min(len)))
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}
