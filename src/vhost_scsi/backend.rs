//! [`VhostUserBackend`] for [`ScsiDevice`]: features, configuration space,
//! number of queues.
//!
//! Called on the protocol thread; nothing here blocks or touches a ring. The
//! methods that only the stock daemon calls do nothing: our own session gives
//! rings to queue threads.

use std::io;
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringMutex};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::virtio::scsi::{CONFIG_LEN, ScsiConfig};

use super::{FEATURES, MAX_CDB_SIZE, MAX_SENSE_SIZE, ScsiDevice, Sizes};

/// Bytes of configuration space that can be read, `VHOST_USER_MAX_CONFIG_SIZE`;
/// what is beyond ours reads as zero.
const CONFIG_SPACE_LEN: usize = 256;

impl VhostUserBackend for ScsiDevice {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        usize::from(self.rings())
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.settings.max_queue_size)
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn acked_features(&self, features: u64) {
        self.shared.acked.store(features & FEATURES, Ordering::Release);
    }

    /// What the device itself needs; a session adds what it can do beyond it.
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    /// Forgets the negotiated features and, as virtio 1.3, 5.6.4.2 wants it,
    /// the driver's `sense_size` and `cdb_size`.
    fn reset_device(&self) {
        self.shared.acked.store(0, Ordering::Release);
        self.shared.set_sizes(Sizes::of_reset());
    }

    /// The rings know; the device does not care.
    fn set_event_idx(&self, _enabled: bool) {}

    /// Empty, which the protocol takes as an error, for a range outside the
    /// configuration space.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut space = [0; CONFIG_SPACE_LEN];
        space[..CONFIG_LEN].copy_from_slice(&self.config().encode());
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        range
            .and_then(|(start, len)| space.get(start..start.checked_add(len)?))
            .map(<[u8]>::to_vec)
            .unwrap_or_default()
    }

    /// Takes `sense_size` (up to [`MAX_SENSE_SIZE`]) and `cdb_size` (1 to
    /// [`MAX_CDB_SIZE`]), the only fields a driver may write (virtio 1.3,
    /// 5.6.4.1). A longer write passes if it changes nothing else.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for anything else; nothing is changed then.
    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        let sizes = self.written(offset, buf).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the guest may write only sense_size (at most {MAX_SENSE_SIZE}) and cdb_size \
                     (1 to {MAX_CDB_SIZE}) of the configuration space, not {} bytes at {offset}",
                    buf.len()
                ),
            )
        })?;
        self.shared.set_sizes(sizes);
        Ok(())
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        Ok(())
    }

    /// Only the stock daemon calls this.
    fn handle_event(
        &self,
        ring: u16,
        _events: EventSet,
        _vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        log::warn!("ring {ring}: a virtio SCSI device works by queue threads only");
        Ok(())
    }
}

impl ScsiDevice {
    /// The sizes after such a write, if it may be made.
    fn written(&self, offset: u32, buf: &[u8]) -> Option<Sizes> {
        let before = self.config().encode();
        let mut after = before;
        let start = usize::try_from(offset).ok()?;
        after.get_mut(start..start.checked_add(buf.len())?)?.copy_from_slice(buf);
        let (sense, cdb) = ScsiConfig::sizes(&after);
        let mut allowed = before;
        allowed[ScsiConfig::WRITABLE].copy_from_slice(&after[ScsiConfig::WRITABLE]);
        if after != allowed || buf.is_empty() {
            return None;
        }
        Sizes::new(sense, cdb)
    }
}
