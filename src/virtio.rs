//! Virtio as data: feature bits and the wire formats of the device types.
//!
//! Pure constants, encoders and decoders of virtio 1.3, little-endian
//! throughout (VIRTIO_F_VERSION_1). No ring (that is `guest::virtqueue`), no
//! guest memory, no policy: what is *offered* is decided in `vhost_blk` and
//! `vhost_scsi`. No thread owns it; everything here is a value.

pub mod blk;
pub mod scsi;

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};

/// Descriptors may point to a table of descriptors (virtio 1.3, 2.7.5.3).
pub const F_INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Notification suppression by index (virtio 1.3, 2.7.7, 2.7.10).
pub const F_EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// Not a legacy device (virtio 1.3, 6).
pub const F_VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
/// `VHOST_USER_F_PROTOCOL_FEATURES`: bit 30 between front-end and back-end
/// means that vhost-user protocol features can be negotiated; the guest never
/// sees it (vhost-user, "Feature negotiation").
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// A feature bit and its conventional name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The bit as a mask.
    pub mask: u64,
    /// Name without the `VIRTIO_…_F_` prefix.
    pub name: &'static str,
}

/// The bits every device type shares.
pub const FEATURES: &[Feature] = &[
    Feature { mask: F_INDIRECT_DESC, name: "INDIRECT_DESC" },
    Feature { mask: F_EVENT_IDX, name: "EVENT_IDX" },
    Feature { mask: F_PROTOCOL_FEATURES, name: "PROTOCOL_FEATURES" },
    Feature { mask: F_VERSION_1, name: "VERSION_1" },
];
