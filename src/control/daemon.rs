//! The daemon's main loop: one thread, everything that is not a hot path.
//!
//! [`run`] brings the daemon up (`control::start`) and stays in the loop until
//! SIGTERM, SIGINT or `quit`. Ending is orderly: the listener stops the rings,
//! commands in the kernel are awaited, queue threads end; a second signal
//! gives up on that.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use serde_json::json;

use super::discovery::Discovery;
use super::events::{self, Notice};
use super::mailbox::{Mail, Mailbox};
use super::map::Map;
use super::maps::Maps;
use super::prkeys::Prkeys;
use super::qmp::Server;
use super::rate::Rate;
use super::requests::{Opening, Pending};
use super::settings::Settings;
use super::start::{self, StartError};
use crate::host::Options;
use crate::io::{MapSlot, Time};
use crate::mpath::event::Event;
use crate::mpath::policy::Policy;
use crate::queue::dispatch::Report;
use crate::queue::{FromQueue, Inlet, Queues};
use crate::sys::poll::{self, Interest, PollFd};
use crate::sys::signal::SignalFd;
use crate::vhost_user::SessionEvent;
use crate::vhost_user::listener::ListenerHandle;

/// The loop never sleeps for less, whatever a deadline says.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// Signals so soon after the first are the same one: timeout(1) and service
/// managers tell the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// How long the end waits for the disk that reservation keys are kept on.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The control thread's clock; no pure module reads one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    #[allow(clippy::disallowed_methods)] // the one clock of the control thread
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> Time {
        Time(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Rings and queue threads are being stopped; the exit code afterwards.
    Stopping(u8),
    /// The queue threads have ended; an order of a guest's is still being
    /// carried out, and what comes of it is to be remembered. Until then.
    Settling(u8, Time),
    Over(u8),
}

/// What a daemon is made of.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) maps: Maps,
    pub(super) queues: Arc<Queues>,
    pub(super) inlet: Inlet,
    pub(super) mailbox: Mailbox,
    pub(super) signals: SignalFd,
    pub(super) control: Option<Server>,
    pub(super) listener: ListenerHandle,
    /// Where front-ends connect, for display.
    pub(super) socket: String,
    /// How further paths are opened.
    pub(super) open: Options,
    /// Steers the engines of further maps.
    pub(super) policy: Policy,
    /// Refuse writes to whatever is added.
    pub(super) read_only: bool,
    /// Further maps find their paths unless told otherwise.
    pub(super) discover: bool,
    /// Where guests' reservation keys are kept.
    pub(super) prkeys: Option<Prkeys>,
}

/// The running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) clock: Clock,
    pub(super) maps: Maps,
    pub(super) queues: Arc<Queues>,
    inlet: Inlet,
    pub(super) mailbox: Mailbox,
    signals: SignalFd,
    pub(super) control: Option<Server>,
    listener: Option<ListenerHandle>,
    pub(super) socket: String,
    pub(super) open: Options,
    pub(super) policy: Policy,
    pub(super) read_only: bool,
    pub(super) discover: bool,
    pub(super) prkeys: Option<Prkeys>,
    pub(super) front_end: bool,
    phase: Phase,
    stopping_since: Time,
    /// Commands whose answers are not due yet.
    pub(super) pending: Vec<Pending>,
    /// Paths and LUs that are being opened.
    pub(super) opening: Vec<Opening>,
    pub(super) next_ticket: u64,
    /// The SCSI disks of this host.
    pub(super) discovery: Discovery,
    /// The uevents thread runs.
    pub(super) listening: bool,
    /// Something has happened that may be a path's to join.
    pub(super) look_again: bool,
    rates: HashMap<&'static str, Rate>,
}

/// Serves one device until told to stop.
///
/// # Errors
///
/// Why it could not start; the message names the option and the next step.
pub fn run(settings: &Settings) -> Result<ExitCode, StartError> {
    let daemon = start::start(settings)?;
    Ok(ExitCode::from(daemon.run()))
}

impl Daemon {
    pub(super) fn new(parts: Parts) -> Daemon {
        let Parts { clock, maps, queues, inlet, mailbox, signals, .. } = parts;
        let Parts { control, listener, socket, open, policy, read_only, .. } = parts;
        let Parts { discover, prkeys, .. } = parts;
        Daemon {
            clock,
            maps,
            queues,
            inlet,
            mailbox,
            signals,
            control,
            listener: Some(listener),
            socket,
            open,
            policy,
            read_only,
            discover,
            prkeys,
            front_end: false,
            phase: Phase::Running,
            stopping_since: Time(0),
            pending: Vec::new(),
            opening: Vec::new(),
            next_ticket: 0,
            discovery: Discovery::default(),
            listening: false,
            look_again: false,
            rates: HashMap::new(),
        }
    }

    /// The loop; returns the exit code.
    fn run(mut self) -> u8 {
        loop {
            self.read_signals();
            self.read_mail();
            self.read_inlet();
            self.maps.look_at_queues(self.clock.now());
            self.maps.run_timers(self.clock.now());
            self.serve_administrators();
            self.look_for_paths();
            self.tell_changes();
            self.see_orders_end();
            if let Phase::Over(code) = self.phase {
                self.keep_keys();
                return code;
            }
            self.wait();
        }
    }

    fn wait(&self) {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), Interest::READ),
            PollFd::new(self.mailbox.as_fd(), Interest::READ),
            PollFd::new(self.inlet.event().as_fd(), Interest::READ),
        ];
        if let Some(control) = &self.control {
            control.watch(&mut fds);
        }
        let deadlines = self.pending.iter().map(|p| p.deadline).chain(self.maps.next_deadline());
        let deadlines = deadlines.chain(self.discovery_deadline()).chain(match self.phase {
            Phase::Settling(_, until) => Some(until),
            _ => None,
        });
        let now = self.clock.now();
        let timeout = deadlines.min().map(|at| at.since(now).max(SHORTEST_SLEEP));
        if let Err(error) = poll::wait(&mut fds, timeout) {
            // Out of kernel memory: not a reason to give up the disk.
            log::error!("poll: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    // --- what arrives -----------------------------------------------------------

    fn read_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            let name = if signal == libc::SIGINT { "SIGINT" } else { "SIGTERM" };
            match self.phase {
                Phase::Running => self.stop(0, name),
                Phase::Stopping(_) if self.clock.now().since(self.stopping_since) < SAME_SIGNAL => {
                }
                _ => self.give_up(name),
            }
        }
    }

    fn read_mail(&mut self) {
        for (map, mail) in self.mailbox.take() {
            let now = self.clock.now();
            match mail {
                Mail::Checked { path, check, verdict } => {
                    self.maps.handle(now, map, Event::Checked { path, check, verdict });
                }
                Mail::Prioritized { path, reading, found } => {
                    self.maps.handle(now, map, Event::Prioritized { path, reading, found });
                }
                Mail::Activated { path, activation, result } => {
                    self.maps.handle(now, map, Event::Activated { path, activation, result });
                }
                Mail::Sampled { path, sample, good } => {
                    self.maps.handle(now, map, Event::Sampled { path, sample, good });
                }
                Mail::Proven { path, proof, identity } => {
                    self.maps.handle(now, map, Event::Proven { path, proof, identity });
                }
                Mail::Reserved { path, job, answer, sent, told } => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.sent_last(job, sent);
                        map.reserved(now, path, job, answer, told);
                    }
                }
                Mail::Learned => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.learned();
                    }
                }
                Mail::Kept { number, result } => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.kept(number, result);
                    }
                }
                Mail::LuReset { path, result } => {
                    let map_there = self.maps.get_mut(map);
                    let notices = map_there.map(|m| m.lu_reset(path, &result)).unwrap_or_default();
                    notices.into_iter().for_each(|notice| self.tell_some(Some(map), notice));
                }
                Mail::Closed(path) => {
                    self.maps.closed(map, path);
                    self.look_again = true;
                }
                Mail::Opened { ticket, result } => self.opened(map, ticket, result),
                Mail::LunOpened { ticket, result } => self.lun_opened(ticket, result),
                Mail::Found { opening, result } => self.found(map, &opening, result),
                Mail::Devices(news) => self.devices(news),
                Mail::Session(event) => self.session(&event),
                Mail::Stopped { left } => self.stopped(left),
            }
        }
    }

    fn read_inlet(&mut self) {
        self.inlet.event().clear();
        while let Some(message) = self.inlet.next() {
            let now = self.clock.now();
            match message {
                FromQueue::Report(map, Report::Path(report)) => {
                    self.maps.handle(now, map, Event::Io(report));
                }
                FromQueue::Report(slot, Report::Guest(error)) => {
                    let map = self.maps.get(slot);
                    let path = error.path.and_then(|id| map.and_then(|map| map.path_name(id)));
                    let notice = events::of_guest_error(&error, path);
                    self.tell_some(Some(slot), notice);
                }
                FromQueue::Report(slot, Report::Deferred { path, sense }) => {
                    let path = self.maps.get(slot).and_then(|map| map.path_name(path));
                    self.tell_some(Some(slot), events::of_deferred_error(path, &sense));
                }
                FromQueue::Report(slot, Report::BlockLayer { path, avoided }) => {
                    let path = self.maps.get(slot).and_then(|map| map.path_name(path));
                    self.tell_some(Some(slot), events::of_block_layer(path, avoided));
                }
                FromQueue::Detached(map, path) => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.detached(path);
                    }
                }
                FromQueue::Resetting(slot, function) => {
                    let map = self.maps.get_mut(slot);
                    if let Some(notice) = map.and_then(|map| map.reset_lu(function)) {
                        self.tell_some(Some(slot), notice);
                    }
                }
                FromQueue::Ordered { map, order, cdb, list } => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.ordered(now, order, &cdb, &list);
                    }
                }
                FromQueue::Withdrawn(map, order) => {
                    if let Some(map) = self.maps.get_mut(map) {
                        map.withdrawn(now, order);
                    }
                }
                FromQueue::MapGone(map) => self.maps.gone(map),
                FromQueue::Denied(denied) => {
                    let joined = self.maps.get(denied.map).is_some_and(Map::paths_joined);
                    self.tell_some(Some(denied.map), events::of_denied(&denied, joined));
                }
                FromQueue::RingBroken { ring, reason } => {
                    self.tell_some(None, events::of_ring("RING_BROKEN", ring, &reason));
                }
                FromQueue::BadChain { ring, reason } => {
                    self.tell_some(None, events::of_ring("BAD_CHAIN", ring, &reason));
                }
                FromQueue::Died(error) => {
                    // Its rings are lost; a restart with in-flight recovery is
                    // better than a disk that answers by halves.
                    log::error!("a queue thread ended ({error}): the disk cannot be served");
                    self.phase = Phase::Over(1);
                }
            }
        }
    }

    fn session(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Connected => self.front_end = true,
            SessionEvent::Disconnected { .. } => self.front_end = false,
            SessionEvent::AreaGiven => self.maps.tell_inherited_size(),
            SessionEvent::Finished if self.phase == Phase::Running => {
                self.stop(0, "nothing can connect any more");
            }
            _ => {}
        }
        if let Some(notice) = events::of_session(event) {
            self.tell_some(None, notice);
        }
    }

    // --- what is told -----------------------------------------------------------

    /// News of the engines and maps: changes of state, each told once. What
    /// the guest sees of them comes first.
    pub(super) fn tell_changes(&mut self) {
        self.maps.show();
        if self.maps.take_grown() {
            self.listener.iter().for_each(ListenerHandle::config_changed);
        }
        for (map, notice) in self.maps.take_news() {
            let notice = if notice.some { self.admitted(notice) } else { Some(notice) };
            notice.into_iter().for_each(|notice| self.tell(Some(map.clone()), notice));
        }
    }

    /// Tells what concerns a map, or the device. A disk served as
    /// vhost-user-blk is its one map.
    fn tell(&mut self, map: Option<String>, mut notice: Notice) {
        let map = map.or_else(|| self.maps.sole_disk().map(str::to_owned));
        let subject = map.as_deref().unwrap_or("device");
        log::log!(notice.level, "{subject}: {}", notice.text);
        if let Some(map) = map {
            notice.data.insert("map".to_owned(), json!(map));
        }
        if let Some(control) = &mut self.control {
            control.broadcast(notice.name, &notice.data);
        }
    }

    /// News that somebody else could make us tell without end.
    pub(super) fn tell_some(&mut self, map: Option<MapSlot>, notice: Notice) {
        let map = map.and_then(|slot| self.maps.get(slot)).map(|map| map.name.clone());
        if let Some(notice) = self.admitted(notice) {
            self.tell(map, notice);
        }
    }

    /// The notice, if it may be told now; with how many like it were not.
    fn admitted(&mut self, mut notice: Notice) -> Option<Notice> {
        let rate = self.rates.entry(notice.name).or_default();
        let kept_back = rate.admit(self.clock.now())?;
        if kept_back > 0 {
            notice.text = format!("{} ({kept_back} more like it were not told)", notice.text);
            notice.data.insert("suppressed".to_owned(), json!(kept_back));
        }
        Some(notice)
    }

    // --- the end ----------------------------------------------------------------

    pub(super) fn is_stopping(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Begins to end: no ring pops any more, what is in the kernel is awaited.
    pub(super) fn stop(&mut self, code: u8, why: &str) {
        let Some(listener) = self.listener.take() else { return };
        self.phase = Phase::Stopping(code);
        self.stopping_since = self.clock.now();
        let text = format!("stopping ({why})");
        self.tell(None, Notice::new("SHUTDOWN", Level::Info, text, json!({ "reason": why })));
        let (queues, post) = (Arc::clone(&self.queues), self.mailbox.sender());
        // It waits for the kernel; meanwhile paths still fail and return.
        let end = move || {
            let left = listener.join();
            if left == 0 {
                queues.quit();
            }
            post.send(Mail::Stopped { left });
        };
        if let Err(error) = std::thread::Builder::new().name("stop".to_owned()).spawn(end) {
            log::error!("cannot end in order: {error}");
            self.phase = Phase::Over(1);
        }
    }

    fn stopped(&mut self, left: usize) {
        let Phase::Stopping(code) = self.phase else { return };
        if left > 0 {
            let paths = self.maps.doubtful_paths().join(", ");
            log::error!(
                "{left} rings still have commands in the kernel (paths not in use: {paths}); \
                 leaving without them"
            );
        }
        let code = if left > 0 { 1 } else { code };
        self.phase = Phase::Settling(code, self.clock.now() + LAST_WORDS);
    }

    /// An order that was begun has ended: whether the guest's key has changed
    /// is known now.
    fn see_orders_end(&mut self) {
        let Phase::Settling(code, until) = self.phase else { return };
        if self.clock.now() >= until || !self.maps.any_order() {
            self.phase = Phase::Over(code);
        }
    }

    /// What guests have registered is on the disk before we go: for what the
    /// guest was told nothing of yet, too.
    fn keep_keys(&self) {
        if self.maps.keeper().is_some_and(|keeper| !keeper.finish(LAST_WORDS)) {
            log::error!(
                "the prkeys file could not be written in {LAST_WORDS:?}: reservation keys may be lost"
            );
        }
    }

    /// A second signal: whoever sends it does not want to wait.
    fn give_up(&mut self, signal: &str) {
        let paths = self.maps.doubtful_paths();
        let out = if paths.is_empty() {
            "rings were still being stopped".to_owned()
        } else {
            format!("commands are still out, probably on {}", paths.join(", "))
        };
        log::error!("second signal ({signal}): leaving at once; {out}");
        self.phase = Phase::Over(1);
    }
}
