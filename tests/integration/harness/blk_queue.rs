//! One request queue of a virtio-blk driver: headers and status bytes on a
//! [`SlotQueue`].

use std::ops::{Deref, DerefMut};

use vhost_mpath::virtio::blk::{RequestHeader, RequestType};

use super::slot_queue::{Chain, SlotQueue};
pub(crate) use super::slot_queue::{Done, PATIENCE, Payload};

/// See the module.
pub(crate) struct BlkQueue(SlotQueue);

impl From<SlotQueue> for BlkQueue {
    fn from(queue: SlotQueue) -> BlkQueue {
        BlkQueue(queue)
    }
}

impl Deref for BlkQueue {
    type Target = SlotQueue;
    fn deref(&self) -> &SlotQueue {
        &self.0
    }
}

impl DerefMut for BlkQueue {
    fn deref_mut(&mut self) -> &mut SlotQueue {
        &mut self.0
    }
}

impl BlkQueue {
    /// Makes a request available, without a kick; `None` if it does not fit.
    pub(crate) fn submit(
        &mut self,
        kind: RequestType,
        sector: u64,
        payload: Payload<'_>,
        data_in: u32,
    ) -> Option<u64> {
        self.submit_kind(kind.to_wire(), sector, payload, data_in)
    }

    /// The same with any request type.
    pub(crate) fn submit_kind(
        &mut self,
        kind: u32,
        sector: u64,
        payload: Payload<'_>,
        data_in: u32,
    ) -> Option<u64> {
        let header = RequestHeader { kind, sector }.encode();
        self.submit_chain(&chain(&header, payload, data_in))
    }

    /// Makes the request that `done` was available once more, at another
    /// sector: its chain (in an indirect table) stands as it was.
    pub(crate) fn again(&mut self, done: &Done, sector: u64) -> u64 {
        self.submit_again(done, 8, &sector.to_le_bytes())
    }

    /// Makes one request and waits for it; nothing else may be out.
    pub(crate) fn run(
        &mut self,
        kind: RequestType,
        sector: u64,
        payload: Payload<'_>,
        data_in: u32,
    ) -> Done {
        let header = RequestHeader { kind: kind.to_wire(), sector }.encode();
        self.run_chain(&chain(&header, payload, data_in))
    }
}

/// Header and data-out; data-in and the status byte.
fn chain<'a>(header: &'a [u8; 16], payload: Payload<'a>, data_in: u32) -> Chain<'a> {
    Chain { header, payload, reply: 1, reply_first: false, data_in }
}
