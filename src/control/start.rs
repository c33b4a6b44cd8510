//! From settings to a running daemon: paths, map, queue threads, sockets.
//!
//! Runs once, on the control thread, before anything is served; here it may
//! wait for paths. Whatever fails ends the start with a message that names it.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use super::daemon::{Clock, Daemon};
use super::mailbox::{Mail, Mailbox};
use super::map::{self, JoinError, Map, Parts, smallest};
use super::qmp::Server;
use super::settings::{Listen, Settings};
use super::topology;
use crate::host::{OpenError, open_path};
use crate::io::{Geometry, Limits};
use crate::mpath::snapshot::{PathTable, Queueing};
use crate::mpath::{MapError, Multipath};
use crate::passthrough_scsi::PathHandle;
use crate::queue::dispatch;
use crate::queue::{DeviceSettings, Inlet, Queues};
use crate::sys::inherit;
use crate::sys::signal::{self, SignalFd};
use crate::vhost_blk::{BlkDevice, BlkError, BlkSettings};
use crate::vhost_scsi::ScsiDevice;
use crate::vhost_user::listener;
use crate::vhost_user::socket::{Socket, SocketError};
use crate::vhost_user::{self, Extras};

/// Most requests one queue thread has at once, whatever the rings could hold:
/// more wait in their rings.
const MAX_REQUESTS: usize = 4096;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A path cannot be opened.
    #[error("--path {0}")]
    Open(OpenError),
    /// The paths do not belong together.
    #[error("{0}")]
    Map(#[from] MapError),
    /// A path could not join for another reason.
    #[error("{0}")]
    Join(String),
    /// The LU cannot be shown as a virtio disk.
    #[error("{0}")]
    Blk(#[from] BlkError),
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

    fn area_given(&self) {
        BlkDevice::area_given(self);
    }
}

/// A driver's choices for a virtio-scsi device are all in its configuration
/// space and features, which front-ends repeat.
impl Extras for ScsiDevice {}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

/// Everything a map of these paths is.
struct Lu {
    engine: Multipath,
    handles: Vec<Arc<PathHandle>>,
    limits: Limits,
    geometry: Geometry,
    read_only: bool,
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
    let lu = open_lu(settings)?;
    let name = settings.alias.clone().unwrap_or_else(|| lu.engine.identity().wwid.clone());
    let device = Arc::new(BlkDevice::new(&BlkSettings {
        identity: lu.engine.identity().clone(),
        geometry: lu.geometry.clone(),
        limits: lu.limits,
        num_queues: settings.num_queues,
        max_queue_size: settings.queue_size,
        read_only: lu.read_only,
        serial: settings.serial.clone(),
    })?);
    let (queues, inlet) = start_queues(settings, &lu, &device)?;
    let queues = Arc::new(queues);
    let mailbox = Mailbox::new().map_err(system("make an eventfd"))?;
    let mut map = Map::new(Parts {
        name,
        engine: lu.engine,
        queues: Arc::clone(&queues),
        limits: lu.limits,
        geometry: lu.geometry,
        read_only: lu.read_only,
        check_timeout: settings.policy.checker_timeout,
        post: mailbox.sender(),
    });
    for handle in &lu.handles {
        introduce(handle);
        map.join(clock.now(), handle).map_err(|error| match error {
            JoinError::Map(error) => StartError::Map(error),
            other => StartError::Join(other.to_string()),
        })?;
    }
    drop(lu.handles);
    let control = settings.control.as_deref().map(Server::bind).transpose();
    let control = control.map_err(StartError::Control)?;
    let (socket, shown) = match (inherited, &settings.listen) {
        (Some(socket), _) => (socket, "an inherited socket".to_owned()),
        (None, Listen::Path(path)) => {
            let socket = Socket::bind(path, settings.access).map_err(StartError::Socket)?;
            (socket, path.display().to_string())
        }
        (None, Listen::Fd(number)) => return Err(bad_fd(*number)),
    };
    let post = mailbox.sender();
    let listener = listener::spawn(
        socket,
        device,
        Arc::clone(&queues) as Arc<_>,
        vhost_user::Settings {
            command_timeout: settings.open.command_timeout,
            ..vhost_user::Settings::default()
        },
        Box::new(move |event| post.send(Mail::Session(event))),
    )
    .map_err(system("start the vhost-user listener"))?;
    let parts = super::daemon::Parts {
        clock,
        map,
        queues,
        inlet,
        mailbox,
        signals,
        control,
        listener,
        socket: shown,
        open: settings.open,
    };
    let mut daemon = Daemon::new(parts);
    daemon.tell_changes();
    announce(settings, &daemon);
    Ok(daemon)
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

/// Opens every path and compares what each has proved (law 2).
fn open_lu(settings: &Settings) -> Result<Lu, StartError> {
    let mut lu: Option<Lu> = None;
    for spec in &settings.paths {
        let handle = open_path(spec, &settings.open).map_err(StartError::Open)?;
        let protected = handle.geometry().read_only;
        if protected && !settings.read_only {
            log::warn!("path {} is write protected: the disk is served read-only", handle.name());
        }
        match &mut lu {
            None => {
                lu = Some(Lu {
                    engine: Multipath::new(handle.identity().clone(), settings.policy),
                    limits: *handle.limits(),
                    geometry: handle.geometry().clone(),
                    read_only: settings.read_only || protected,
                    handles: vec![handle],
                });
            }
            Some(lu) => {
                lu.engine.admits(handle.name(), handle.identity())?;
                lu.limits = smallest(lu.limits, *handle.limits());
                lu.geometry.unmap &= handle.geometry().unmap;
                lu.geometry.unmap_reads_zero &= handle.geometry().unmap_reads_zero;
                lu.read_only |= protected;
                lu.handles.push(handle);
            }
        }
    }
    // The command line wants at least one.
    lu.ok_or_else(|| StartError::Map(MapError::NoSuchPath("(none given)".to_owned())))
}

fn start_queues(
    settings: &Settings,
    lu: &Lu,
    device: &Arc<BlkDevice>,
) -> Result<(Queues, Inlet), StartError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rings = usize::from(settings.num_queues);
    let threads = rings.min((cores - 1).max(1));
    let share = rings.div_ceil(threads) * usize::from(settings.queue_size);
    let table = Arc::new(PathTable {
        generation: 0,
        groups: Vec::new(),
        queueing: Queueing::Hold,
        selector: settings.policy.selector,
    });
    let device_settings = DeviceSettings { rings, max_requests: share.min(MAX_REQUESTS) };
    let core = dispatch::Settings {
        limits: lu.limits,
        block_size: lu.engine.identity().block_size,
        command_timeout: settings.open.command_timeout,
        suspect_after: settings.suspect_after,
        max_requests: device_settings.max_requests,
        rings,
    };
    let started = Queues::start(threads, device_settings, || device.front());
    let (queues, inlet) = started.map_err(system("start queue threads"))?;
    queues.add_map(map::SLOT, core, &table, None);
    Ok((queues, inlet))
}

fn introduce(handle: &PathHandle) {
    let identity = handle.identity();
    log::info!(
        "path {}: {} ({}), WWID {}, {} blocks of {} bytes",
        handle.name(),
        handle.transport().name(),
        handle.transport_reason(),
        identity.wwid,
        identity.capacity,
        identity.block_size
    );
}

fn announce(settings: &Settings, daemon: &Daemon) {
    let Daemon { map, socket, .. } = daemon;
    let identity = map.engine.identity();
    let size = topology::size(identity.capacity.0.saturating_mul(u64::from(identity.block_size)));
    if map.name == identity.wwid {
        log::info!("serving {} ({size}) on {socket}", map.name);
    } else {
        log::info!("serving {} ({}, {size}) on {socket}", map.name, identity.wwid);
    }
    if let Listen::Path(path) = &settings.listen {
        super::journal::hint(&qemu_options(path));
    }
}

/// What to give QEMU so that it finds us; only shown to people.
fn qemu_options(socket: &Path) -> String {
    format!(
        "QEMU: -m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \\\n      \
         -chardev socket,id=disk0,path={},reconnect-ms=1000 \\\n      \
         -device vhost-user-blk-pci,chardev=disk0   (QEMU before 9.2: reconnect=1)",
        socket.display()
    )
}
