//! From settings to a running daemon: paths, map, queue threads, sockets.
//!
//! Runs once, on the control thread, before anything is served; here it may
//! wait for paths. Whatever fails ends the start with a message that names it.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::daemon::{Clock, Daemon};
use super::lun::Address;
use super::mailbox::{Mail, Mailbox};
use super::maps::{Common, LunError, Maps, Shown};
use super::opening::{Lu, OpenLuError, open_lu};
use super::prkeys::Prkeys;
use super::prkeys::keeper::Keeper;
use super::qmp::Server;
use super::settings::{self, Expose, Listen, LuReset, LuSettings, Settings};
use super::topology;
use crate::guest::inflight::InflightArea;
use crate::host::understand_wwid;
use crate::queue::{DeviceSettings, Inlet, Queues};
use crate::sys::inherit;
use crate::sys::poll::{self, Interest, PollFd};
use crate::sys::signal::{self, SignalFd};
use crate::vhost_blk::{BlkDevice, BlkError, BlkSettings};
use crate::vhost_scsi::{ScsiDevice, ScsiError, ScsiSettings};
use crate::vhost_user::listener::{self, EventSink, ListenerHandle};
use crate::vhost_user::socket::{Socket, SocketError};
use crate::vhost_user::{self, Extras};

/// Most requests one queue thread has at once, whatever the rings could hold:
/// more wait in their rings.
const MAX_REQUESTS: usize = 4096;

/// Between two looks for a path at the start.
const LOOK: Duration = Duration::from_millis(200);

/// What the kernel may take beyond a command's own time limit to end it.
const ENDING: Duration = Duration::from_secs(10);

/// Longest transfer told to SCSI drivers that ask us, in 512-byte sectors:
/// what QEMU tells. Each LU's Block Limits page says what counts.
const MAX_SECTORS: u32 = 0xffff;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A path cannot be opened.
    #[error("--path {0}")]
    Path(OpenLuError),
    /// The same of a LUN.
    #[error("--lun {address}: {error}")]
    Lun {
        /// Which.
        address: Address,
        /// Why.
        error: OpenLuError,
    },
    /// Told to end before it could begin.
    #[error("stopped by a signal while waiting for a path")]
    Stopped,
    /// The paths do not belong together, or cannot be served for another
    /// reason.
    #[error("{0}")]
    Join(String),
    /// The LU cannot be shown as a virtio disk.
    #[error("{0}")]
    Blk(#[from] BlkError),
    /// Settings no virtio-scsi device can have.
    #[error("{0}")]
    Scsi(#[from] ScsiError),
    /// The front-end's socket.
    #[error("--socket-path {0}")]
    Socket(SocketError),
    /// The inherited socket.
    #[error("--fd {number}: not a Unix socket that was left open for us: {error}")]
    Fd {
        /// As given.
        number: RawFd,
        /// Why.
        error: io::Error,
    },
    /// The control socket.
    #[error("--control {0}")]
    Control(SocketError),
    /// Threads, eventfds, io_uring.
    #[error("cannot {what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Extras for BlkDevice {
    fn area_made(&self) {
        BlkDevice::area_made(self);
    }

    fn area_given(&self, area: &InflightArea) {
        BlkDevice::area_given(self, area);
    }

    fn config_changes(&self) -> bool {
        true
    }

    fn unread_config(&self) -> Option<u64> {
        BlkDevice::unread_config(self)
    }
}

/// A driver's choices for a virtio-scsi device are all in its configuration
/// space and features, which front-ends repeat.
impl Extras for ScsiDevice {}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

/// The device as front-ends see it.
enum Front {
    Blk(Arc<BlkDevice>),
    Scsi(Arc<ScsiDevice>),
}

/// Brings the daemon up. It serves as soon as [`Daemon::run`] is called.
pub(super) fn start(settings: &Settings) -> Result<Daemon, StartError> {
    // First: every thread inherits the mask.
    let signals =
        SignalFd::new(&[signal::TERMINATE, signal::INTERRUPT]).map_err(system("read signals"))?;
    signal::ignore(signal::HANGUP);
    let inherited = match settings.listen {
        Listen::Path(_) => None,
        Listen::Fd(number) => Some(adopt(number)?),
    };
    let clock = Clock::start();
    let lus = open_all(settings, &signals, clock)?;
    let front = front(settings, &lus)?;
    let (queues, inlet) = start_queues(settings, &front)?;
    let queues = Arc::new(queues);
    let mailbox = Mailbox::new().map_err(system("make an eventfd"))?;
    let mut maps = Maps::new(Common {
        queues: Arc::clone(&queues),
        scsi: shown(settings, &front),
        disk: match &front {
            Front::Blk(device) => Some(Arc::clone(device)),
            Front::Scsi(_) => None,
        },
        command_timeout: settings.open.command_timeout,
        suspect_after: settings.suspect_after,
        post: mailbox.sender(),
        keeper: keeper(settings, &mailbox)?,
    });
    for lu in lus {
        maps.add(clock.now(), lu, false).map_err(|e: LunError| StartError::Join(e.to_string()))?;
    }
    let control = settings.control.as_deref().map(Server::bind).transpose();
    let control = control.map_err(StartError::Control)?;
    let (socket, place) = match (inherited, &settings.listen) {
        (Some(socket), _) => (socket, "an inherited socket".to_owned()),
        (None, Listen::Path(path)) => {
            let socket = Socket::bind(path, settings.access).map_err(StartError::Socket)?;
            (socket, path.display().to_string())
        }
        (None, Listen::Fd(number)) => return Err(bad_fd(*number)),
    };
    let post = mailbox.sender();
    let events = Box::new(move |event| post.send(Mail::Session(event)));
    let listener = listen(settings, socket, front, &queues, events)?;
    let parts = super::daemon::Parts {
        clock,
        maps,
        queues,
        inlet,
        mailbox,
        signals,
        control,
        listener,
        socket: place,
        open: settings.open,
        policy: settings.policy.clone(),
        read_only: settings.read_only,
        discover: settings.discover,
        prkeys: settings.prkeys.clone(),
    };
    let mut daemon = Daemon::new(parts);
    daemon.tell_changes();
    announce(settings, &daemon);
    Ok(daemon)
}

fn keeper(settings: &Settings, mailbox: &Mailbox) -> Result<Option<Keeper>, StartError> {
    let start = |prkeys: &Prkeys| Keeper::start(prkeys.clone(), mailbox.sender());
    settings.prkeys.as_ref().map(start).transpose().map_err(system("start a thread"))
}

fn listen(
    settings: &Settings,
    socket: Socket,
    front: Front,
    queues: &Arc<Queues>,
    events: EventSink,
) -> Result<ListenerHandle, StartError> {
    let host = Arc::clone(queues) as Arc<_>;
    let session = vhost_user::Settings {
        command_timeout: settings.open.command_timeout,
        ..vhost_user::Settings::default()
    };
    let listener = match front {
        Front::Blk(device) => listener::spawn(socket, device, host, session, events),
        Front::Scsi(device) => listener::spawn(socket, device, host, session, events),
    };
    listener.map_err(system("start the vhost-user listener"))
}

fn adopt(number: RawFd) -> Result<Socket, StartError> {
    let fd = inherit::adopt(number).map_err(|error| StartError::Fd { number, error })?;
    Socket::adopt(fd).map_err(|error| match error {
        SocketError::BadFd { error, .. } => StartError::Fd { number, error },
        other => StartError::Socket(other),
    })
}

fn bad_fd(number: RawFd) -> StartError {
    StartError::Fd { number, error: io::Error::from_raw_os_error(libc::EBADF) }
}

/// Opens the paths of every LU; waits for the first of one that is given by
/// its name, and for commands that a killed predecessor has left in the kernel.
fn open_all(settings: &Settings, signals: &SignalFd, clock: Clock) -> Result<Vec<Lu>, StartError> {
    let until = clock.now() + settings.wait_paths;
    let until_ended = clock.now() + settings.open.command_timeout + ENDING;
    let prkeys = settings.prkeys.as_ref();
    let mut all = Vec::new();
    for lu in &settings.lus {
        if let Some(given) = &lu.wwid {
            let wwid = understand_wwid(given);
            if wwid != *given {
                log::info!("{given} is {wwid}, as multipath-tools write it");
            }
        }
        let mut waits = None;
        let opened = loop {
            let error = match open_lu(lu, &settings.open, &settings.policy, prkeys) {
                Ok(opened) => break opened,
                Err(error) => error,
            };
            let (until, what) = match &error {
                error if error.is_left_behind() => (until_ended, "its end"),
                OpenLuError::NoneFound { .. } => (until, "one"),
                _ => return Err(in_the_options_words(settings, lu, error)),
            };
            let now = clock.now();
            if now >= until {
                return Err(in_the_options_words(settings, lu, error));
            }
            if waits.replace(what) != Some(what) {
                let left = until.since(now).as_secs_f64();
                log::info!("{error}; waiting for {what}, up to {left:.0} s");
            }
            pause(signals)?;
        };
        match &settings.device {
            settings::Device::Scsi(scsi) if scsi.expose == Expose::Paths => {
                all.extend(opened.by_path());
            }
            _ => all.push(opened),
        }
    }
    Ok(all)
}

/// Between two looks for a path, unless a signal says to end.
fn pause(signals: &SignalFd) -> Result<(), StartError> {
    let mut fds = [PollFd::new(signals.as_fd(), Interest::READ)];
    poll::wait(&mut fds, Some(LOOK)).map_err(system("wait for a path"))?;
    match signals.next() {
        Some(_) => Err(StartError::Stopped),
        None => Ok(()),
    }
}

/// Names the option that is to be changed.
fn in_the_options_words(settings: &Settings, lu: &LuSettings, error: OpenLuError) -> StartError {
    let address = lu.address;
    match (error, &settings.device) {
        (error, settings::Device::Scsi(_)) if address != Address::default() => {
            StartError::Lun { address, error }
        }
        (OpenLuError::Map(error), _) => StartError::Join(error.to_string()),
        (OpenLuError::Alias(error), _) => StartError::Join(format!("--map {error}")),
        (
            error @ (OpenLuError::NoneFound { .. }
            | OpenLuError::OtherLu { .. }
            | OpenLuError::Prkeys(_)),
            _,
        ) => StartError::Join(error.to_string()),
        (error, _) => StartError::Path(error),
    }
}

/// The device, which a vhost-user-blk disk's LU says much of.
fn front(settings: &Settings, lus: &[Lu]) -> Result<Front, StartError> {
    match (&settings.device, lus) {
        (settings::Device::Scsi(_), _) => {
            let device = ScsiSettings {
                num_queues: settings.num_queues,
                max_queue_size: settings.queue_size,
                max_sectors: MAX_SECTORS,
            };
            Ok(Front::Scsi(Arc::new(ScsiDevice::new(&device)?)))
        }
        (settings::Device::Blk { serial }, [lu]) => {
            let device = BlkSettings {
                identity: lu.engine.identity().clone(),
                geometry: lu.geometry.clone(),
                limits: lu.limits,
                num_queues: settings.num_queues,
                max_queue_size: settings.queue_size,
                read_only: lu.read_only,
                serial: serial.clone(),
            };
            Ok(Front::Blk(Arc::new(BlkDevice::new(&device)?)))
        }
        (settings::Device::Blk { .. }, _) => {
            Err(StartError::Join("a vhost-user-blk disk is one logical unit".to_owned()))
        }
    }
}

fn shown(settings: &Settings, front: &Front) -> Option<Shown> {
    match (&settings.device, front) {
        (settings::Device::Scsi(scsi), Front::Scsi(device)) => {
            Some(Shown { device: Arc::clone(device), settings: *scsi })
        }
        _ => None,
    }
}

fn start_queues(settings: &Settings, front: &Front) -> Result<(Queues, Inlet), StartError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let queues = usize::from(settings.num_queues);
    let threads = queues.min((cores - 1).max(1));
    let share = queues.div_ceil(threads) * usize::from(settings.queue_size);
    let max_requests = share.min(MAX_REQUESTS);
    let tell_resets = match &settings.device {
        settings::Device::Blk { .. } => false,
        settings::Device::Scsi(scsi) => scsi.lu_reset == LuReset::Array,
    };
    let started = match front {
        Front::Blk(device) => {
            let device_settings = DeviceSettings { rings: queues, max_requests, tell_resets };
            Queues::start(threads, device_settings, || device.front())
        }
        Front::Scsi(device) => {
            // Control and event rings come before the request queues.
            let device_settings = DeviceSettings { rings: queues + 2, max_requests, tell_resets };
            Queues::start(threads, device_settings, || device.front())
        }
    };
    started.map_err(system("start queue threads"))
}

fn announce(settings: &Settings, daemon: &Daemon) {
    let Daemon { maps, socket, .. } = daemon;
    for map in maps.in_order() {
        let identity = map.engine.identity();
        let bytes = identity.capacity.0.saturating_mul(u64::from(identity.block_size));
        let size = topology::size(bytes);
        let place = map.lun.as_ref().map(|lun| format!(" as LUN {}", lun.address));
        let place = place.unwrap_or_default();
        if map.name == identity.wwid {
            log::info!("serving {} ({size}){place} on {socket}", map.name);
        } else {
            log::info!("serving {} ({}, {size}){place} on {socket}", map.name, identity.wwid);
        }
    }
    if maps.in_order().is_empty() {
        log::info!("serving a SCSI device without LUNs on {socket}; `add lun` adds them");
    }
    if let Listen::Path(path) = &settings.listen {
        let scsi = matches!(settings.device, settings::Device::Scsi(_));
        super::journal::hint(&qemu_options(path, scsi));
    }
}

/// What to give QEMU so that it finds us; only shown to people.
fn qemu_options(socket: &Path, scsi: bool) -> String {
    let device = if scsi { "vhost-user-scsi-pci" } else { "vhost-user-blk-pci" };
    format!(
        "QEMU: -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \\\n      \
         -chardev socket,id=disk0,path={},reconnect-ms=1000 \\\n      \
         -device {device},chardev=disk0   (QEMU before 9.2: reconnect=1)",
        socket.display()
    )
}
