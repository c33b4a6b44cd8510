//! The daemon's parts put together in the test's own process: paths, engine,
//! queue threads, device, listener. For what must be counted or timed inside
//! the process; the stories run the real binary.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost_mpath::host::{Options, PathSpec, open_path};
use vhost_mpath::io::Time;
use vhost_mpath::mpath::checker::{Checker, CheckerKind, Probe, Step};
use vhost_mpath::mpath::effect::Effect;
use vhost_mpath::mpath::event::Event;
use vhost_mpath::mpath::policy::Policy;
use vhost_mpath::mpath::snapshot::{PathId, PathTable, Queueing, SelectorKind};
use vhost_mpath::mpath::{Multipath, NewPath};
use vhost_mpath::passthrough_scsi::PathHandle;
use vhost_mpath::queue::dispatch::{Report, Settings};
use vhost_mpath::queue::{FromQueue, Inlet, Queues};
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::sim::Fault;
use vhost_mpath::vhost_blk::{BlkDevice, BlkSettings};
use vhost_mpath::vhost_user::listener::{self, ListenerHandle};
use vhost_mpath::vhost_user::socket::{Access, Socket};

/// What to put together.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) paths: Vec<String>,
    pub(crate) policy: Policy,
    pub(crate) queues: u16,
    pub(crate) threads: usize,
    pub(crate) command_timeout: Duration,
    pub(crate) suspect_after: Duration,
    pub(crate) read_only: bool,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts {
            paths: Vec::new(),
            policy: Policy::default(),
            queues: 1,
            threads: 1,
            command_timeout: Duration::from_secs(30),
            suspect_after: Duration::from_secs(1),
            read_only: false,
        }
    }
}

/// A running device.
pub(crate) struct InProcess {
    listener: Option<ListenerHandle>,
    queues: Arc<Queues>,
    paths: Vec<Arc<PathHandle>>,
    stop: Arc<AtomicBool>,
    engine: Option<JoinHandle<()>>,
    /// Guest-visible errors and broken rings, in words.
    pub(crate) trouble: Arc<Mutex<Vec<String>>>,
}

impl InProcess {
    /// Opens the paths and listens.
    pub(crate) fn start(socket: &Path, parts: &Parts) -> InProcess {
        let options = Options {
            command_timeout: parts.command_timeout,
            read_only: parts.read_only,
            ..Options::default()
        };
        let open = |spec: &String| {
            let spec: PathSpec = spec.parse().expect("a path");
            open_path(&spec, &options).expect("opens")
        };
        let paths: Vec<_> = parts.paths.iter().map(open).collect();
        let first = &paths[0];
        let settings = BlkSettings {
            identity: first.identity().clone(),
            geometry: first.geometry().clone(),
            limits: *first.limits(),
            num_queues: parts.queues,
            max_queue_size: 1024,
            read_only: parts.read_only,
            serial: None,
        };
        let device = Arc::new(BlkDevice::new(&settings).expect("settings"));
        let core = Settings {
            limits: settings.limits,
            block_size: settings.identity.block_size,
            command_timeout: parts.command_timeout,
            suspect_after: parts.suspect_after,
            max_requests: 1024 * usize::from(parts.queues),
            rings: usize::from(parts.queues),
        };
        let table = Arc::new(PathTable {
            generation: 0,
            groups: Vec::new(),
            queueing: Queueing::Hold,
            selector: SelectorKind::ServiceTime,
        });
        let front = || device.front();
        let (queues, inlet) = Queues::start(parts.threads, core, &table, front).expect("threads");
        let queues = Arc::new(queues);
        let stop = Arc::new(AtomicBool::new(false));
        let trouble = Arc::new(Mutex::new(Vec::new()));
        let (events, inbox) = channel();
        let mut engine = Engine {
            engine: Multipath::new(settings.identity.clone(), parts.policy),
            queues: Arc::clone(&queues),
            handles: Vec::new(),
            events,
            start: Instant::now(),
            trouble: Arc::clone(&trouble),
        };
        for handle in &paths {
            engine.add(handle);
        }
        let stopped = Arc::clone(&stop);
        let run = move || engine.run(&inlet, &inbox, &stopped);
        let engine = std::thread::spawn(run);
        let session = vhost_mpath::vhost_user::Settings {
            command_timeout: parts.command_timeout,
            ..Default::default()
        };
        let socket = Socket::bind(socket, Access::default()).expect("socket");
        let sink = Box::new(|event| log::info!("{event:?}"));
        let listener = listener::spawn(socket, device, Arc::clone(&queues) as _, session, sink)
            .expect("listener");
        InProcess { listener: Some(listener), queues, paths, stop, engine: Some(engine), trouble }
    }

    /// Breaks or mends a path.
    pub(crate) fn inject(&self, path: usize, fault: Fault) {
        assert!(self.paths[path].inject(fault), "a simulated path");
    }

    /// Commands issued on each path.
    pub(crate) fn issued(&self) -> Vec<u64> {
        let id = |slot| PathId { slot, generation: 0 };
        (0..).zip(&self.paths).map(|(slot, _)| self.queues.issued(id(slot)).0).collect()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        for path in &self.paths {
            path.inject(Fault::Plug);
        }
        if let Some(listener) = self.listener.take() {
            listener.join();
        }
        self.queues.quit();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(engine) = self.engine.take() {
            let _ = engine.join();
        }
    }
}

/// The control thread in small.
struct Engine {
    engine: Multipath,
    queues: Arc<Queues>,
    handles: Vec<(PathId, Arc<PathHandle>)>,
    events: Sender<Event>,
    start: Instant,
    trouble: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).expect("585 years"))
    }

    fn add(&mut self, handle: &Arc<PathHandle>) {
        let checker = if handle.is_scsi() { CheckerKind::Tur } else { CheckerKind::DirectIo };
        let (name, identity) = (handle.name().to_owned(), handle.identity().clone());
        let mut effects = Vec::new();
        let new = NewPath { name, identity, checker };
        let id = self.engine.add_path(self.now(), new, &mut effects).expect("a path of the map");
        self.queues.attach(id, handle);
        self.handles.push((id, Arc::clone(handle)));
        self.carry_out(effects);
    }

    fn run(&mut self, inlet: &Inlet, inbox: &Receiver<Event>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let event = match inbox.recv_timeout(Duration::from_millis(2)) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let due = self.engine.next_deadline().is_some_and(|at| at <= self.now());
            for event in event.into_iter().chain(due.then_some(Event::Timer)) {
                self.step(event);
            }
            while let Some(message) = inlet.next() {
                match message {
                    FromQueue::Report(Report::Path(report)) => self.step(Event::Io(report)),
                    other => self.trouble.lock().expect("lock").push(format!("{other:?}")),
                }
            }
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(self.now(), event, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let handle = |id: PathId| {
            let found = self.handles.iter().find(|(other, _)| *other == id);
            (Arc::clone(&found.expect("attached").1), self.events.clone())
        };
        for effect in effects {
            match effect {
                Effect::Publish(table) => self.queues.publish(&table),
                Effect::Check { path, check } => {
                    let (handle, events) = handle(path);
                    std::thread::spawn(move || {
                        let verdict = run_checker(&handle);
                        let _ = events.send(Event::Checked { path, check, verdict });
                    });
                }
                Effect::Prove { path, proof } => {
                    let (handle, events) = handle(path);
                    std::thread::spawn(move || {
                        let identity = handle.identify(Duration::from_secs(2));
                        let _ = events.send(Event::Proven { path, proof, identity });
                    });
                }
                Effect::Notify(change) => log::info!("{change:?}"),
                Effect::Retire(_) => {}
            }
        }
    }
}

fn run_checker(handle: &PathHandle) -> vhost_mpath::mpath::checker::Verdict {
    let timeout = Duration::from_secs(2);
    let kind = if handle.is_scsi() { CheckerKind::Tur } else { CheckerKind::DirectIo };
    let mut checker = Checker::new(kind);
    let mut step = checker.begin();
    loop {
        let completion = match step {
            Step::Done(verdict) => return verdict,
            Step::Issue(Probe::TestUnitReady) => {
                handle.execute(&Cdb::test_unit_ready(), &mut [], timeout)
            }
            Step::Issue(Probe::ReadFirstBlock) => handle.read_check(timeout),
        };
        step = checker.on_completion(&completion);
    }
}
