//! One connection's protocol state: from messages to rings.
//!
//! Implements the request handler of the `vhost` crate over a device
//! (`VhostUserBackend`) and a [`RingHost`]. A ring starts when it has a kick
//! fd, addresses and is enabled, and stops by GET_VRING_BASE; it then belongs
//! to its queue thread or to us, never to both. Not here: the socket and what
//! becomes of the connection after an error (`listener`). Runs on the
//! listener's thread only. Specification: `vhost-user.rst`, "Ring states",
//! "Inflight I/O tracking".

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vm_memory::GuestMemoryAtomic;

use crate::guest::inflight::{InflightArea, InflightError};
use crate::guest::memory::{Memory, MemoryError};
use crate::guest::ring::{MAX_RING_SIZE, Ring, RingConfig, RingError};
use crate::guest::virtqueue::{VirtQueue, VirtQueueParts};
use crate::queue::{RingHost, StillInKernel, Stop};
use crate::vhost_user::peer::Peer;
use crate::vhost_user::stragglers::Stragglers;
use crate::vhost_user::vring::{Addresses, Vring, event};
use crate::vhost_user::{Extras, SHARE_MEMORY, Settings};

mod requests;

/// Waits that may last are cut into slices of this, to look whether the
/// daemon is shutting down.
const SLICE: Duration = Duration::from_millis(50);

/// Protocol features a device may ask for; all others are the session's own.
const OF_DEVICE: Protocol = Protocol::MQ.union(Protocol::CONFIG);

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A ring index the device does not have.
    #[error("there is no ring {0}")]
    NoSuchRing(u32),
    /// The message would pull the ring from under its queue thread.
    #[error("ring {0} is running")]
    Running(usize),
    /// SET_VRING_NUM out of range.
    #[error(
        "ring size {size} is not a power of two up to {max}; give the QEMU device \
         queue-size={max}, or this daemon a larger --queue-size"
    )]
    RingSize {
        /// What was asked for.
        size: u32,
        /// The device's limit.
        max: usize,
    },
    /// SET_VRING_BASE beyond 16 bits (a packed ring's?).
    #[error("ring base {0:#x} is beyond 16 bits")]
    RingBase(u32),
    /// SET_VRING_KICK without a file descriptor.
    #[error("ring {0}: polling without a kick file descriptor is not supported")]
    PollingKick(usize),
    /// SET_BACKEND_REQ_FD with another kind of descriptor, or none.
    #[error("the back-end channel must be an end of a Unix socket pair")]
    NotAChannel,
    /// A kick, call or error descriptor of another kind.
    #[error(
        "ring {0}: kick and error descriptors must be eventfds, call descriptors eventfds or ends of socket pairs"
    )]
    NotAnEventfd(usize),
    /// SET_VRING_KICK before SET_VRING_NUM or SET_VRING_ADDR.
    #[error("ring {0} is kicked off before it has a size and addresses")]
    NotSetUp(usize),
    /// A ring address that is in no region we were given.
    #[error(
        "ring address {addr:#x} is not in the {regions} memory regions received; {SHARE_MEMORY}"
    )]
    NotShared {
        /// Address in the front-end's space.
        addr: u64,
        /// Size of our table.
        regions: usize,
    },
    /// The front-end sees other memory than we do (`share=off`).
    #[error(
        "the front-end (process {pid}) maps the guest's memory privately, so nothing the guest \
         writes would be seen here; {SHARE_MEMORY}"
    )]
    PrivateMemory {
        /// Its process id.
        pid: u32,
    },
    /// SET_FEATURES with a bit that was not offered.
    #[error("feature bits {0:#x} were not offered")]
    Features(u64),
    /// SET_PROTOCOL_FEATURES with a bit that was not offered.
    #[error("protocol feature bits {0:#x} were not offered")]
    ProtocolFeatures(u64),
    /// A request for something this device does not have.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// ADD_MEM_REG beyond GET_MAX_MEM_SLOTS.
    #[error("more than {0} memory slots")]
    Slots(usize),
    /// The memory table cannot be mapped.
    #[error("memory table: {error}{}", source_of(.error))]
    Memory {
        /// Why.
        error: MemoryError,
    },
    /// The ring cannot be used as it was set up.
    #[error("ring {index}: {error}")]
    Ring {
        /// Which one.
        index: usize,
        /// Why.
        error: RingError,
    },
    /// The in-flight area cannot be used.
    #[error("{0}")]
    Inflight(#[from] InflightError),
    /// A ring could not be stopped in time.
    #[error("ring {index}: commands are still in the kernel after {seconds} s")]
    StillInKernel {
        /// Which one.
        index: usize,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The queue threads do not answer.
    #[error("the queue threads do not answer")]
    NoAnswer,
    /// The device itself said no.
    #[error("device: {0}")]
    Device(io::Error),
}

fn source_of(error: &MemoryError) -> String {
    std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}

impl SessionError {
    /// Whether the connection cannot go on even if the front-end is told.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(
            self,
            SessionError::Features(_)
                | SessionError::ProtocolFeatures(_)
                | SessionError::StillInKernel { .. }
                | SessionError::NoAnswer
        )
    }
}

/// One connection's protocol state.
pub struct Session<B> {
    device: Arc<B>,
    host: Arc<dyn RingHost>,
    settings: Settings,
    shutdown: Arc<AtomicBool>,
    features: u64,
    protocol: u64,
    memory: Arc<Memory>,
    inflight: Option<InflightArea>,
    vrings: Vec<Vring>,
    /// Rings of an earlier session are not back: start none of ours.
    held_back: bool,
    /// Whose memory it is.
    peer: Peer,
    stragglers: Stragglers,
    refusal: Option<SessionError>,
    /// Which change of the configuration space the front-end has been told of
    /// since its rings run.
    told: Option<u64>,
}

impl<B> std::fmt::Debug for Session<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("features", &self.features)
            .field("protocol", &self.protocol)
            .field("vrings", &self.vrings)
            .field("held_back", &self.held_back)
            .finish_non_exhaustive()
    }
}

impl<B: VhostUserBackend<Bitmap = ()> + Extras> Session<B> {
    /// A new connection's state. With `held_back` no ring starts until
    /// `release`; `shutdown` cuts waits for rings short.
    pub(super) fn new(
        device: Arc<B>,
        host: Arc<dyn RingHost>,
        settings: Settings,
        shutdown: Arc<AtomicBool>,
        held_back: bool,
        peer: Peer,
    ) -> Session<B> {
        let vrings = (0..device.num_queues()).map(|_| Vring::default()).collect();
        Session {
            device,
            host,
            settings,
            shutdown,
            features: 0,
            protocol: 0,
            memory: Arc::new(Memory::empty(0)),
            inflight: None,
            vrings,
            held_back,
            peer,
            stragglers: Stragglers::default(),
            refusal: None,
            told: None,
        }
    }

    /// The rings of the earlier session are back: start what waits.
    pub(super) fn release(&mut self) -> Result<(), SessionError> {
        self.held_back = false;
        self.start_ready()
    }

    /// The front-end is gone: stops every ring and returns those on their way
    /// back. Nothing is lost where there is an in-flight area; without one,
    /// the front-end goes on from the used index, so that must not move.
    pub(super) fn close(&mut self) -> Stragglers {
        for index in 0..self.vrings.len() {
            if std::mem::take(&mut self.vrings[index].running) {
                let how = if self.vrings[index].tracked { Stop::Suspend } else { Stop::Discard };
                self.send_stop(index, how);
            }
        }
        std::mem::take(&mut self.stragglers)
    }

    fn send_stop(&mut self, index: usize, how: Stop) {
        let (index, deadline) = (ring_index(index), self.settings.stop_deadline());
        let answer = self.host.stop_ring(index, how, deadline);
        self.stragglers.add(index, how, answer);
    }

    /// Why the last request was refused by us, if it was.
    pub(super) fn take_refusal(&mut self) -> Option<SessionError> {
        self.refusal.take()
    }

    /// Whether acknowledgements are sent for requests that ask for one.
    pub(super) fn acknowledges(&self) -> bool {
        self.has(Protocol::REPLY_ACK)
    }

    /// Whether the front-end may give a channel to tell it something by.
    pub(super) fn takes_channel(&self) -> bool {
        self.has(Protocol::BACKEND_REQ)
    }

    /// What was told by an earlier channel may be lost.
    pub(super) fn channel_changed(&mut self) {
        self.told = None;
    }

    /// Whether the front-end is to read the configuration space again; says so
    /// once for each change. While no ring runs there is no driver to care,
    /// and front-ends ignore the message then (QEMU does): it is due when the
    /// first one starts.
    pub(super) fn config_is_due(&mut self) -> bool {
        let news = if self.any_running() { self.device.unread_config() } else { None };
        let due = news.is_some() && news != self.told;
        self.told = news;
        due
    }

    fn has(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() != 0
    }

    fn has_virtio(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    /// Bits 21 and up are not in here: `vhost` and QEMU have disagreed on
    /// their meaning.
    fn offered_protocol(&self) -> Protocol {
        let mut offered = (self.device.protocol_features() & OF_DEVICE)
            | Protocol::REPLY_ACK
            | Protocol::RESET_DEVICE
            | Protocol::CONFIGURE_MEM_SLOTS;
        if self.device.inflight() {
            offered |= Protocol::INFLIGHT_SHMFD | Protocol::GET_VRING_BASE_INFLIGHT;
        }
        if self.device.config_changes() {
            offered |= Protocol::BACKEND_REQ;
        }
        offered
    }

    fn any_running(&self) -> bool {
        self.vrings.iter().any(|v| v.running)
    }

    fn all_at_rest(&self) -> Result<(), SessionError> {
        let running = self.vrings.iter().position(|v| v.running);
        running.map_or(Ok(()), |index| Err(SessionError::Running(index)))
    }

    /// The ring of a message, by its index.
    fn at(&self, index: u32) -> Result<usize, SessionError> {
        let at = usize::try_from(index).ok().filter(|&i| i < self.vrings.len());
        at.ok_or(SessionError::NoSuchRing(index))
    }

    /// The ring of a message that cannot be done to a running one.
    fn at_rest(&self, index: u32) -> Result<usize, SessionError> {
        let at = self.at(index)?;
        if self.vrings[at].running { Err(SessionError::Running(at)) } else { Ok(at) }
    }

    fn use_features(&mut self, features: u64) -> Result<(), SessionError> {
        let unknown = features & !self.offered_features();
        if unknown != 0 {
            return Err(SessionError::Features(unknown));
        }
        if features != self.features {
            self.all_at_rest()?;
        }
        self.features = features;
        self.device.set_event_idx(self.has_virtio(VIRTIO_RING_F_EVENT_IDX));
        self.device.acked_features(features);
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            // No SET_VRING_ENABLE will come.
            self.vrings.iter_mut().for_each(|v| v.enabled = true);
        }
        self.start_ready()
    }

    fn use_memory(&mut self, memory: Arc<Memory>) -> Result<(), SessionError> {
        if self.any_running() {
            let done = self.host.set_memory(Arc::clone(&memory));
            done.recv_timeout(self.settings.stop_deadline()).map_err(|_| SessionError::NoAnswer)?;
        }
        let atomic = GuestMemoryAtomic::new(memory.backing().clone());
        self.memory = memory;
        self.device.update_memory(atomic).map_err(SessionError::Device)
    }

    fn translate(&self, uva: u64) -> Result<u64, SessionError> {
        let regions = self.memory.num_regions();
        self.memory.uva_to_gpa(uva).ok_or(SessionError::NotShared { addr: uva, regions })
    }

    fn start_ready(&mut self) -> Result<(), SessionError> {
        (0..self.vrings.len()).try_for_each(|index| self.start_if_ready(index))
    }

    /// Hands a ring that has all it needs to its queue thread.
    fn start_if_ready(&mut self, index: usize) -> Result<(), SessionError> {
        if self.held_back || !self.vrings[index].is_ready() {
            return Ok(());
        }
        let Some(config) = self.ring_config(index) else { return Ok(()) };
        let ring = Ring::new(Arc::clone(&self.memory), config)
            .map_err(|error| SessionError::Ring { index, error })?;
        let queue = ring_index(index);
        let inflight = match &self.inflight {
            Some(area) => Some(area.queue(queue, config.size)?),
            None => None,
        };
        let vring = &mut self.vrings[index];
        let Some(kick) = vring.kick.take() else { return Ok(()) };
        vring.tracked = inflight.is_some();
        let (call, err) = (vring.call.take(), vring.err.take());
        let parts = VirtQueueParts { index: queue, ring, inflight, kick, call, err };
        let ring = Box::new(VirtQueue::new(parts)?);
        log::debug!(
            "ring {index}: starts at {} with {} in flight",
            ring.next_avail(),
            ring.in_flight()
        );
        if ring.used_idx() != 0 {
            // An earlier owner may have died between publishing and interrupting.
            ring.signal();
        }
        vring.running = true;
        self.host.start_ring(ring);
        Ok(())
    }

    fn ring_config(&self, index: usize) -> Option<RingConfig> {
        let vring = &self.vrings[index];
        let Addresses { desc, avail, used } = vring.addresses?;
        Some(RingConfig {
            size: vring.size,
            desc,
            avail,
            used,
            event_idx: self.has_virtio(VIRTIO_RING_F_EVENT_IDX),
            indirect: self.has_virtio(VIRTIO_RING_F_INDIRECT_DESC),
            next_avail: vring.base,
        })
    }

    /// Stops a running ring and waits for it, up to the deadline.
    fn stop(&mut self, index: usize, how: Stop) -> Result<(), SessionError> {
        let deadline = self.settings.stop_deadline();
        let answer = self.host.stop_ring(ring_index(index), how, deadline);
        let mut waited = Duration::ZERO;
        loop {
            match answer.recv_timeout(SLICE) {
                Ok(Ok(ring)) => {
                    self.vrings[index].take_back(*ring);
                    return Ok(());
                }
                Ok(Err(StillInKernel)) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(SessionError::NoAnswer),
                Err(RecvTimeoutError::Timeout) => {}
            }
            waited += SLICE;
            // The queue thread keeps the deadline; we allow it to be late.
            if self.shutdown.load(Ordering::Relaxed) || waited > deadline + self.settings.margin {
                // The answer is still to come.
                self.vrings[index].running = false;
                self.stragglers.add(ring_index(index), how, answer);
                return Err(SessionError::StillInKernel { index, seconds: deadline.as_secs() });
            }
        }
        self.vrings[index].running = false;
        let how = if self.vrings[index].tracked { Stop::Suspend } else { Stop::Discard };
        self.send_stop(index, how);
        Err(SessionError::StillInKernel { index, seconds: deadline.as_secs() })
    }

    /// GET_VRING_BASE: where the ring stands, once it stands.
    fn stop_for_base(&mut self, index: usize) -> Result<u16, SessionError> {
        if self.vrings[index].running {
            let may_suspend =
                self.vrings[index].tracked && self.has(Protocol::GET_VRING_BASE_INFLIGHT);
            self.stop(index, if may_suspend { Stop::Suspend } else { Stop::Finish })?;
        }
        let vring = &mut self.vrings[index];
        vring.kick = None;
        Ok(vring.base)
    }

    /// RESET_DEVICE: every ring off, positions and features forgotten.
    fn reset(&mut self) -> Result<(), SessionError> {
        for index in 0..self.vrings.len() {
            if self.vrings[index].running {
                self.stop(index, Stop::Discard)?;
            }
            self.vrings[index].reset();
        }
        self.features = 0;
        self.inflight = None;
        self.device.reset_device();
        Ok(())
    }

    fn set_size(&mut self, index: u32, size: u32) -> Result<(), SessionError> {
        let at = self.at_rest(index)?;
        let max = self.device.max_queue_size().min(usize::from(MAX_RING_SIZE));
        let valid = u16::try_from(size).ok().filter(|s| s.is_power_of_two());
        let Some(size) = valid.filter(|&s| usize::from(s) <= max) else {
            return Err(SessionError::RingSize { size, max });
        };
        self.vrings[at].size = size;
        Ok(())
    }

    fn set_addresses(&mut self, index: u32, uva: &Addresses) -> Result<(), SessionError> {
        let at = self.at(index)?;
        let addresses = Addresses {
            desc: self.translate(uva.desc)?,
            avail: self.translate(uva.avail)?,
            used: self.translate(uva.used)?,
        };
        // Sent again for a running ring only to switch its logging.
        if self.vrings[at].running && self.vrings[at].addresses != Some(addresses) {
            return Err(SessionError::Running(at));
        }
        self.vrings[at].addresses = Some(addresses);
        Ok(())
    }

    fn set_kick(&mut self, index: u32, file: Option<File>) -> Result<(), SessionError> {
        let at = self.at_rest(index)?;
        let kick = event(file).map_err(|()| SessionError::NotAnEventfd(at))?;
        let Some(kick) = kick else { return Err(SessionError::PollingKick(at)) };
        let vring = &mut self.vrings[at];
        if vring.size == 0 || vring.addresses.is_none() {
            return Err(SessionError::NotSetUp(at));
        }
        vring.kick = Some(kick);
        self.start_if_ready(at)
    }

    fn set_enabled(&mut self, index: u32, enabled: bool) -> Result<(), SessionError> {
        let at = self.at(index)?;
        let was = std::mem::replace(&mut self.vrings[at].enabled, enabled);
        if self.vrings[at].running {
            if was != enabled {
                self.host.enable_ring(ring_index(at), enabled);
            }
            return Ok(());
        }
        self.start_if_ready(at)
    }
}

/// `VhostUserBackend` counts queues in usize, the wire in at most 16 bits.
fn ring_index(index: usize) -> u16 {
    u16::try_from(index).expect("a device has at most 65535 queues")
}

#[cfg(test)]
mod tests;
