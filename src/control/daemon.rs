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

use super::events::{self, Notice};
use super::mailbox::{Mail, Mailbox};
use super::map::Map;
use super::qmp::Server;
use super::rate::Rate;
use super::requests::Pending;
use super::settings::Settings;
use super::start::{self, StartError};
use crate::host::Options;
use crate::io::Time;
use crate::mpath::event::Event;
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
    Over(u8),
}

/// What a daemon is made of.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) map: Map,
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
}

/// The running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) clock: Clock,
    pub(super) map: Map,
    pub(super) queues: Arc<Queues>,
    inlet: Inlet,
    pub(super) mailbox: Mailbox,
    signals: SignalFd,
    pub(super) control: Option<Server>,
    listener: Option<ListenerHandle>,
    pub(super) socket: String,
    pub(super) open: Options,
    pub(super) front_end: bool,
    phase: Phase,
    stopping_since: Time,
    /// Commands whose answers are not due yet.
    pub(super) pending: Vec<Pending>,
    pub(super) next_ticket: u64,
    rates: HashMap<&'static str, Rate>,
}

/// Serves one disk until told to stop.
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
        let Parts { clock, map, queues, inlet, mailbox, signals, control, listener, socket, open } =
            parts;
        Daemon {
            clock,
            map,
            queues,
            inlet,
            mailbox,
            signals,
            control,
            listener: Some(listener),
            socket,
            open,
            front_end: false,
            phase: Phase::Running,
            stopping_since: Time(0),
            pending: Vec::new(),
            next_ticket: 0,
            rates: HashMap::new(),
        }
    }

    /// The loop; returns the exit code.
    fn run(mut self) -> u8 {
        loop {
            self.read_signals();
            self.read_mail();
            self.read_inlet();
            if self.map.engine.next_deadline().is_some_and(|at| at <= self.clock.now()) {
                self.map.handle(self.clock.now(), Event::Timer);
            }
            self.serve_administrators();
            self.tell_changes();
            if let Phase::Over(code) = self.phase {
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
        let deadlines =
            self.pending.iter().map(|p| p.deadline).chain(self.map.engine.next_deadline());
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
                Phase::Stopping(_) | Phase::Over(_) => self.give_up(name),
            }
        }
    }

    fn read_mail(&mut self) {
        for mail in self.mailbox.take() {
            let now = self.clock.now();
            match mail {
                Mail::Checked { path, check, verdict } => {
                    self.map.handle(now, Event::Checked { path, check, verdict });
                }
                Mail::Proven { path, proof, identity } => {
                    self.map.handle(now, Event::Proven { path, proof, identity });
                }
                Mail::Closed(path) => self.map.closed(path),
                Mail::Opened { ticket, result } => self.opened(ticket, result),
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
                FromQueue::Report(_, Report::Path(report)) => {
                    self.map.handle(now, Event::Io(report));
                }
                FromQueue::Report(_, Report::Guest(error)) => {
                    let path = error.path.and_then(|id| self.map.path_name(id));
                    let notice = events::of_guest_error(&error, path);
                    self.tell_some(notice);
                }
                FromQueue::Detached(_, path) => self.map.detached(path),
                FromQueue::MapGone(_) | FromQueue::Denied(_) => {}
                FromQueue::RingBroken { ring, reason } => {
                    self.tell_some(events::of_ring("RING_BROKEN", ring, &reason));
                }
                FromQueue::BadChain { ring, reason } => {
                    self.tell_some(events::of_ring("BAD_CHAIN", ring, &reason));
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
            SessionEvent::Finished if self.phase == Phase::Running => {
                self.stop(0, "nothing can connect any more");
            }
            _ => {}
        }
        if let Some(notice) = events::of_session(event) {
            self.tell_some(notice);
        }
    }

    // --- what is told -----------------------------------------------------------

    /// News of the engine: changes of state, each told once.
    pub(super) fn tell_changes(&mut self) {
        for notice in self.map.take_news() {
            self.tell(notice);
        }
    }

    fn tell(&mut self, mut notice: Notice) {
        let map = &self.map.name;
        log::log!(notice.level, "{map}: {}", notice.text);
        notice.data.insert("map".to_owned(), json!(map));
        if let Some(control) = &mut self.control {
            control.broadcast(notice.name, &notice.data);
        }
    }

    /// News that somebody else could make us tell without end.
    fn tell_some(&mut self, mut notice: Notice) {
        let rate = self.rates.entry(notice.name).or_default();
        let Some(kept_back) = rate.admit(self.clock.now()) else { return };
        if kept_back > 0 {
            notice.text = format!("{} ({kept_back} more like it were not told)", notice.text);
            notice.data.insert("suppressed".to_owned(), json!(kept_back));
        }
        self.tell(notice);
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
        self.tell(Notice::new("SHUTDOWN", Level::Info, text, json!({ "reason": why })));
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
            let paths = self.map.doubtful_paths().join(", ");
            log::error!(
                "{left} rings still have commands in the kernel (paths not in use: {paths}); \
                 leaving without them"
            );
        }
        self.phase = Phase::Over(if left > 0 { 1 } else { code });
    }

    /// A second signal: whoever sends it does not want to wait.
    fn give_up(&mut self, signal: &str) {
        let paths = self.map.doubtful_paths();
        let out = if paths.is_empty() {
            "rings were still being stopped".to_owned()
        } else {
            format!("commands are still out, probably on {}", paths.join(", "))
        };
        log::error!("second signal ({signal}): leaving at once; {out}");
        self.phase = Phase::Over(1);
    }
}
