//! Working off a ring under the stock `VhostUserDaemon`.
//!
//! Not the data path: one request at a time, on the daemon's worker thread,
//! with `virtio-queue`'s ring and a synchronous executor. It exists so that an
//! independent implementation of the protocol and of the ring can serve the
//! same device and front (docs/architecture.md, "How we know it is right").

use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{
    GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryLoadGuard, GuestMemoryMmap,
};

use crate::io::{Front, Outcome, Parsed, Request, Segment, Tag};

use super::BlkDevice;

type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// `errno` of a request that nobody executes.
const NO_EXECUTOR: i32 = libc::ENOTSUP;

/// Why a ring could not be worked off.
#[derive(Debug, thiserror::Error)]
pub(super) enum StockError {
    #[error("the ring is broken: {0}")]
    Ring(#[from] virtio_queue::Error),
    #[error("cannot notify the front-end: {0}")]
    Call(#[from] std::io::Error),
}

/// Answers every available chain of `vring`.
///
/// The ring stays locked meanwhile, so a ring stop waits for the request in
/// hand.
pub(super) fn serve_ring(
    device: &BlkDevice,
    ring: u16,
    vring: &VringMutex,
    memory: &GuestMemoryAtomic<GuestMemoryMmap>,
) -> Result<(), StockError> {
    let mut state = vring.get_mut();
    let mut first_round = true;
    loop {
        state.disable_notification()?;
        let mut served = 0_usize;
        while let Some(chain) = state.get_queue_mut().pop_descriptor_chain(memory.memory()) {
            let head = chain.head_index();
            let used_len = serve_chain(device, Tag { ring, head }, chain);
            state.add_used(head, used_len)?;
            served += 1;
        }
        if served > 0 && state.needs_notification()? {
            state.signal_used_queue()?;
        }
        // "There is more" after a round that found nothing means that the
        // available index is out of bounds: leave, or we would spin for ever.
        if !state.enable_notification()? || (served == 0 && !first_round) {
            return Ok(());
        }
        first_round = false;
    }
}

fn serve_chain(device: &BlkDevice, tag: Tag, chain: Chain) -> u32 {
    // Keeps the memory mapped for as long as segments into it are used.
    let memory: GuestMemoryMmap = chain.memory().clone();
    let mut readable = Vec::new();
    let mut writable = Vec::new();
    for descriptor in chain {
        let list = if descriptor.is_write_only() { &mut writable } else { &mut readable };
        // A u32 fits the usize of every host this runs on.
        let len = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
        for slice in memory.get_slices(descriptor.addr(), len) {
            let Ok(slice) = slice else {
                log::warn!("ring {}: descriptor outside guest memory", tag.ring);
                return 0;
            };
            let addr = slice.ptr_guard_mut().as_ptr().expose_provenance();
            list.push(Segment { addr, len: slice.len() });
        }
    }
    let mut front = device.front();
    let mut request = Request { tag, ..Request::default() };
    match front.parse(&readable, &writable, &mut request) {
        Parsed::Answered { used_len } => used_len,
        // A disk of virtio-blk has no task management.
        Parsed::Manage(_) => 0,
        Parsed::Submit => {
            let outcome = match &device.executor {
                Some(executor) => executor.execute(&request),
                None => Outcome::Host(NO_EXECUTOR),
            };
            front.finish(&mut request, &outcome)
        }
    }
}
