//! Our own vhost-user front-end double, with the manners of QEMU.
//!
//! Of either device: what a queue carries is its own affair ([`BlkQueue`],
//! [`ScsiQueue`]). Negotiates, shares memory, starts and stops rings; goes away and comes back
//! as QEMU's devices do: the in-flight area is asked for once and
//! given back at every reconnect, and a ring that was torn from us begins at
//! its used index. Messages are framed by the `vhost` crate; for abuse there
//! is `raw`.
//!
//! [`ScsiQueue`]: super::scsi_queue::ScsiQueue

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::ops::DerefMut;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use vhost_mpath::guest::driver::Driver;
use vhost_mpath::sys::poll::{self, Interest, PollFd};
use vhost_mpath::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES};

use super::blk_queue::BlkQueue;
use super::guest::{Guest, USER_BASE};
use super::slot_queue::{Manner, SlotQueue};

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG.
const CONFIG_CHANGE_MSG: u32 = 2;

/// What a message may take: longer than any ring stop of these tests.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the double is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Queues: of virtio-scsi the control and the event queue, too.
    pub(crate) queues: u16,
    /// How each behaves.
    pub(crate) manner: Manner,
    /// Virtio features not to take though offered.
    pub(crate) without: u64,
    /// Protocol features not to take though offered.
    pub(crate) without_protocol: VhostUserProtocolFeatures,
    /// Memory beyond the first region comes by slots.
    pub(crate) slots: bool,
    /// Memory regions.
    pub(crate) regions: u64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            queues: 1,
            manner: Manner {
                size: 128,
                depth: 32,
                slot_bytes: 64 << 10,
                event_idx: true,
                indirect: true,
                pieces: 3,
                polling: false,
            },
            without: 0,
            without_protocol: VhostUserProtocolFeatures::empty(),
            slots: false,
            regions: 3,
        }
    }
}

impl Shape {
    /// The same with the ways of a plain old driver.
    pub(crate) fn plain(mut self) -> Shape {
        self.manner.event_idx = false;
        self.manner.indirect = false;
        self
    }
}

/// What lays a device's requests on a virtqueue.
pub(crate) trait GuestQueue: DerefMut<Target = SlotQueue> + From<SlotQueue> {}

impl<Q: DerefMut<Target = SlotQueue> + From<SlotQueue>> GuestQueue for Q {}

/// See the module.
pub(crate) struct FrontEnd<Q: GuestQueue = BlkQueue> {
    socket: PathBuf,
    shape: Shape,
    connection: Option<Frontend>,
    /// The same socket, to hang up with.
    stream: Option<UnixStream>,
    pub(crate) guest: Guest,
    pub(crate) queues: Vec<Q>,
    /// Negotiated virtio features.
    pub(crate) features: u64,
    /// Negotiated protocol features.
    pub(crate) protocol: VhostUserProtocolFeatures,
    inflight: Option<(VhostUserInflight, File)>,
    /// Our end of the back-end channel.
    pub(crate) channel: Option<UnixStream>,
}

impl FrontEnd {
    /// A guest that is not connected.
    pub(crate) fn new(socket: &Path, shape: Shape) -> FrontEnd {
        FrontEnd::prepare(socket, shape)
    }

    /// Connects, negotiates and starts every ring, or says what failed.
    pub(crate) fn connect(socket: &Path, shape: Shape) -> FrontEnd {
        let mut front_end = FrontEnd::new(socket, shape);
        front_end.reconnect();
        front_end
    }
}

impl<Q: GuestQueue> FrontEnd<Q> {
    /// A guest of any device that is not connected.
    pub(crate) fn prepare(socket: &Path, shape: Shape) -> FrontEnd<Q> {
        let need = SlotQueue::footprint(&shape.manner) * u64::from(shape.queues) + (1 << 20);
        // Rings stay in one region each; data buffers may run from one into
        // the next.
        let region = (need / shape.regions + (1 << 20)).next_multiple_of(2 << 20);
        let mut guest = Guest::new(&vec![region; usize::try_from(shape.regions).expect("few")]);
        let queue = |_| Q::from(SlotQueue::new(&mut guest, shape.manner));
        let queues = (0..shape.queues).map(queue).collect();
        FrontEnd {
            socket: socket.to_owned(),
            shape,
            connection: None,
            stream: None,
            guest,
            queues,
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            inflight: None,
            channel: None,
        }
    }

    /// The connection.
    pub(crate) fn vhost(&mut self) -> &mut Frontend {
        self.connection.as_mut().expect("connected")
    }

    /// One queue.
    pub(crate) fn queue(&mut self, index: usize) -> &mut Q {
        &mut self.queues[index]
    }

    /// Connects (again) and starts every ring where it stood, in QEMU's order.
    pub(crate) fn reconnect(&mut self) {
        self.attach();
        self.start();
    }

    /// Connects and negotiates; no ring is started.
    pub(crate) fn attach(&mut self) {
        let (mut vhost, offered) = self.greet();
        assert!(offered & F_PROTOCOL_FEATURES != 0, "protocol features are offered");
        self.features = offered & !self.shape.without;
        if !self.shape.manner.event_idx {
            self.features &= !F_EVENT_IDX;
        }
        if !self.shape.manner.indirect {
            self.features &= !F_INDIRECT_DESC;
        }
        let protocol = vhost.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
        self.protocol = protocol & !self.shape.without_protocol;
        vhost.set_protocol_features(self.protocol).expect("SET_PROTOCOL_FEATURES");
        if self.has(VhostUserProtocolFeatures::REPLY_ACK) {
            vhost.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if self.has(VhostUserProtocolFeatures::MQ) {
            let most = vhost.get_queue_num().expect("GET_QUEUE_NUM");
            assert!(most >= u64::from(self.shape.queues), "{most} queues offered");
        }
        self.connection = Some(vhost);
        if self.has(VhostUserProtocolFeatures::BACKEND_REQ) {
            self.give_channel();
        }
    }

    /// Connects and asks what is offered. A daemon that is being killed may take a connection and
    /// never answer: its connections are closed before its listening socket is.
    fn greet(&mut self) -> (Frontend, u64) {
        let mut tries = 0;
        loop {
            let stream = connect(&self.socket);
            self.stream = Some(stream.try_clone().expect("dup"));
            let vhost = Frontend::from_stream(stream, u64::from(self.shape.queues));
            match vhost.set_owner().and_then(|()| vhost.get_features()) {
                Ok(offered) => return (vhost, offered),
                Err(error) => assert!(tries < 3, "SET_OWNER and GET_FEATURES: {error:?}"),
            }
            tries += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives the daemon a (new) channel to speak first on.
    pub(crate) fn give_channel(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        self.vhost().set_backend_request_fd(&theirs).expect("SET_BACKEND_REQ_FD");
        self.channel = Some(ours);
    }

    /// Whether the daemon says that the configuration space has changed, before
    /// so much time is over; acknowledged if it asks for that.
    pub(crate) fn told_of_config(&mut self, within: Duration) -> bool {
        let channel = self.channel.as_mut().expect("a channel");
        channel.set_read_timeout(Some(within)).expect("timeout");
        let mut message = [0; 12];
        if channel.read_exact(&mut message).is_err() {
            return false;
        }
        let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!((word(0), word(8)), (CONFIG_CHANGE_MSG, 0), "{message:?}");
        if word(4) & VhostUserHeaderFlag::NEED_REPLY.bits() != 0 {
            let ack = [CONFIG_CHANGE_MSG, 5, 8, 0, 0].map(u32::to_ne_bytes).concat();
            channel.write_all(&ack).expect("the acknowledgement");
        }
        true
    }

    /// The capacity of a disk, in sectors.
    pub(crate) fn sectors(&mut self) -> u64 {
        u64::from_le_bytes(self.config(0, 60)[..8].try_into().expect("8 bytes"))
    }

    /// Whether a protocol feature was negotiated.
    pub(crate) fn has(&self, feature: VhostUserProtocolFeatures) -> bool {
        self.protocol.contains(feature)
    }

    /// Features, in-flight area, memory, rings.
    pub(crate) fn start(&mut self) {
        if self.has(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
            self.prepare_inflight();
        }
        let features = self.features;
        let slots = self.shape.slots;
        let table = self.guest.table();
        let vhost = self.vhost();
        vhost.set_features(features).expect("SET_FEATURES");
        let at_once = if slots { 1 } else { table.len() };
        vhost.set_mem_table(&table[..at_once]).expect("SET_MEM_TABLE");
        for region in &table[at_once..] {
            vhost.add_mem_region(region).expect("ADD_MEM_REG");
        }
        for index in 0..self.queues.len() {
            let base = self.queues[index].driver.used_idx();
            self.start_ring(index, base);
        }
    }

    fn prepare_inflight(&mut self) {
        let queues = self.shape.queues;
        let size = self.shape.manner.size;
        if self.inflight.is_none() {
            let wanted = VhostUserInflight::new(0, 0, queues, size);
            let area = self.vhost().get_inflight_fd(&wanted).expect("GET_INFLIGHT_FD");
            self.inflight = Some(area);
        }
        let vhost = self.connection.as_mut().expect("connected");
        let (area, file) = self.inflight.as_ref().expect("just made");
        let given = VhostUserInflight::new(area.mmap_size, area.mmap_offset, queues, size);
        vhost.set_inflight_fd(&given, file.as_raw_fd()).expect("SET_INFLIGHT_FD");
    }

    /// Whether the daemon has popped `count` chains of each ring since the in-flight area was made, by the
    /// counters it writes there. True where there is no area: nobody can tell.
    pub(crate) fn has_popped(&self, count: u64) -> bool {
        (0..self.queues.len()).all(|ring| self.has_popped_of(ring, count))
    }

    /// The same of one ring.
    pub(crate) fn has_popped_of(&self, ring: usize, count: u64) -> bool {
        let Some((area, file)) = &self.inflight else { return true };
        let mut bytes = vec![0; usize::try_from(area.mmap_size).expect("a length")];
        file.read_exact_at(&mut bytes, area.mmap_offset).expect("the area");
        let counter = |state: &[u8]| u64::from_ne_bytes(state[8..].try_into().expect("8 bytes"));
        let mut rings = bytes.chunks(bytes.len() / usize::from(self.shape.queues));
        let states = &rings.nth(ring).expect("a ring")[16..];
        states.chunks_exact(16).map(counter).max() >= Some(count - 1)
    }

    /// Sets a ring up and enables it.
    pub(crate) fn start_ring(&mut self, index: usize, base: u16) {
        let queue = &self.queues[index];
        let vhost = self.connection.as_mut().expect("connected");
        let size = queue.driver.config().size;
        vhost.set_vring_num(index, size).expect("SET_VRING_NUM");
        vhost.set_vring_base(index, base).expect("SET_VRING_BASE");
        vhost.set_vring_addr(index, &addresses(&queue.driver)).expect("SET_VRING_ADDR");
        vhost.set_vring_err(index, &queue.err).expect("SET_VRING_ERR");
        vhost.set_vring_kick(index, &queue.kick).expect("SET_VRING_KICK");
        vhost.set_vring_call(index, &queue.call).expect("SET_VRING_CALL");
        vhost.set_vring_enable(index, true).expect("SET_VRING_ENABLE");
    }

    /// Disables the ring and takes it back (GET_VRING_BASE): its position once
    /// it stands.
    pub(crate) fn stop_ring(&mut self, index: usize) -> u16 {
        self.vhost().set_vring_enable(index, false).expect("SET_VRING_ENABLE");
        let base = self.vhost().get_vring_base(index).expect("GET_VRING_BASE");
        u16::try_from(base).expect("16 bits")
    }

    /// Whether the daemon has hung up.
    pub(crate) fn is_cut_off(&self) -> bool {
        let Some(stream) = &self.stream else { return true };
        // Nothing is to be read between a message and the next.
        let mut fds = [PollFd::new(stream.as_fd(), Interest::READ)];
        poll::wait(&mut fds, Some(Duration::ZERO)).expect("poll");
        fds[0].is_ready()
    }

    /// Goes away without a word.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
        self.channel = None;
        if let Some(stream) = self.stream.take() {
            hang_up(&stream);
        }
    }

    /// What a guest's reset does: rings stopped (their bases returned), the
    /// in-flight area given up, rings anew from nothing.
    pub(crate) fn reboot(&mut self) -> Vec<u16> {
        let bases = (0..self.queues.len()).map(|i| self.stop_ring(i)).collect();
        self.inflight = None;
        self.queues.iter_mut().for_each(|queue| queue.reset());
        self.start();
        bases
    }

    /// Bytes of configuration space.
    pub(crate) fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let blank = vec![0; size as usize];
        let flags = VhostUserConfigFlags::empty();
        self.vhost().get_config(offset, size, flags, &blank).expect("GET_CONFIG").1
    }

    /// The guest has seen that the ring is broken.
    pub(crate) fn ring_failed(&self, index: usize) -> bool {
        self.queues[index].err.read().is_ok()
    }
}

impl<Q: GuestQueue> Drop for FrontEnd<Q> {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Ends a connection for good. To close it is not enough here: a process that
/// another test is just starting may hold a copy of the descriptor.
pub(crate) fn hang_up(stream: &UnixStream) {
    // Fails if the other side was faster.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Where a ring is, as SET_VRING_ADDR says it.
pub(crate) fn addresses(driver: &Driver) -> VringConfigData {
    let config = driver.config();
    VringConfigData {
        queue_max_size: config.size,
        queue_size: config.size,
        flags: 0,
        desc_table_addr: USER_BASE + config.desc,
        used_ring_addr: USER_BASE + config.used,
        avail_ring_addr: USER_BASE + config.avail,
        log_addr: None,
    }
}

/// Connects to a socket that may be about to appear, perhaps only when the
/// kernel has ended what the daemon before has left there.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    let until = Instant::now() + Duration::from_secs(45);
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => {
                panic!("cannot connect to {}: {error}", socket.display())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    stream.set_read_timeout(Some(MESSAGE_TIMEOUT)).expect("timeout");
    stream.set_write_timeout(Some(MESSAGE_TIMEOUT)).expect("timeout");
    stream
}
