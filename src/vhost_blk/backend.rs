//! [`VhostUserBackend`] for [`BlkDevice`]: features, configuration space and
//! what the stock daemon needs beside them.
//!
//! Called on the protocol thread; nothing here blocks or touches a ring
//! (`handle_event` hands over to the `stock` module).

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringMutex};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::virtio::blk::{BlkConfig, CONFIG_LEN, CONFIG_WRITEBACK};

use super::{BlkDevice, stock};

/// Bytes of configuration space that can be read, `VHOST_USER_MAX_CONFIG_SIZE`.
/// Front-ends ask for all of their `struct virtio_blk_config`, which is longer
/// than ours wherever they know newer features; the rest reads as zero.
const CONFIG_SPACE_LEN: usize = 256;

/// `capacity` is the first field of the space.
const CAPACITY_LEN: usize = 8;

impl VhostUserBackend for BlkDevice {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        usize::from(self.num_queues)
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.max_queue_size)
    }

    fn features(&self) -> u64 {
        self.shared.offer.features
    }

    fn acked_features(&self, features: u64) {
        self.shared.acked.store(features & self.shared.offer.features, Ordering::Release);
    }

    /// What the device itself needs; a session adds what it can do beyond it
    /// (in-flight tracking, messages to the front-end).
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    /// Forgets the negotiated features. The write-cache mode stays: front-ends
    /// keep their copy of the configuration space over a reset and show it to
    /// the next driver.
    fn reset_device(&self) {
        self.shared.acked.store(0, Ordering::Release);
    }

    /// The rings know; the device does not care.
    fn set_event_idx(&self, _enabled: bool) {}

    /// Empty, which the protocol takes as an error, for a range outside the
    /// configuration space.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let capacity = self.shared.offer.sectors();
        let writeback = self.shared.shown_writeback();
        let config = BlkConfig { capacity, writeback, ..self.shared.offer.config };
        let mut space = [0; CONFIG_SPACE_LEN];
        space[..CONFIG_LEN].copy_from_slice(&config.encode());
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        let bytes = range.and_then(|(start, len)| space.get(start..start.checked_add(len)?));
        if bytes.is_some_and(|bytes| offset == 0 && bytes.len() >= CAPACITY_LEN) {
            self.sectors_read.store(capacity, Ordering::Release);
        }
        bytes.map(<[u8]>::to_vec).unwrap_or_default()
    }

    /// Takes `writeback`, the only byte a driver may write (virtio 1.3,
    /// 5.2.5.1); any value but zero means write-back. It counts once
    /// CONFIG_WCE is negotiated, which front-ends may tell us later.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for anything else; nothing is changed then.
    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        match (usize::try_from(offset), buf) {
            (Ok(CONFIG_WRITEBACK), [writeback]) => {
                self.shared.writeback.store(*writeback != 0, Ordering::Release);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the guest may write only the writeback byte of the configuration space, \
                     not {} bytes at {offset}",
                    buf.len()
                ),
            )),
        }
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    /// One worker; the mask has room for the first 64 queues. Our own session
    /// does not ask.
    fn queues_per_thread(&self) -> Vec<u64> {
        vec![u64::MAX >> (64 - u32::from(self.num_queues).min(64))]
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    /// Only the stock daemon calls this: works off one ring. Never an error,
    /// because the daemon would end the worker and stall every ring.
    fn handle_event(
        &self,
        ring: u16,
        events: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (vrings.get(usize::from(ring)), memory) {
            (Some(vring), Some(memory)) if events.contains(EventSet::IN) => {
                if let Err(error) = stock::serve_ring(self, ring, vring, &memory) {
                    log::error!("ring {ring}: {error}");
                }
            }
            _ => log::warn!("ring {ring}: unexpected event {events:?}"),
        }
        Ok(())
    }
}
