//! Test double of everything around a session: device, queue threads, guest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures as Protocol,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_user_backend::{VhostUserBackend, VringRwLock};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::driver::Driver;
use crate::guest::memfd;
use crate::guest::memory::{Memory, Region};
use crate::guest::virtqueue::VirtQueue;
use crate::queue::{RingHost, StillInKernel, Stop};
use crate::vhost_user::listener::{self, ListenerHandle};
use crate::vhost_user::socket::{Access, Socket};
use crate::vhost_user::{Extras, SessionEvent, Settings};

pub(super) const QUEUES: u16 = 2;
pub(super) const SIZE: u16 = 16;
pub(super) const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1;
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
pub(super) const MEMORY: u64 = 0x10000;
pub(super) const USER: u64 = 0x7f12_0000_0000;

type Vring = VringRwLock<GuestMemoryAtomic<GuestMemoryMmap<()>>>;

#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) calls: Mutex<Vec<String>>,
    pub(super) untracked: bool,
    /// Its configuration space may change by itself.
    pub(super) changing: bool,
    /// See `Extras::unread_config`.
    pub(super) unread: Mutex<Option<u64>>,
}

impl Device {
    fn called(&self, what: String) {
        self.calls.lock().unwrap().push(what);
    }

    pub(super) fn saw(&self, what: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|c| c == what)
    }
}

impl Extras for Device {
    fn inflight(&self) -> bool {
        !self.untracked
    }

    fn config_changes(&self) -> bool {
        self.changing
    }

    fn unread_config(&self) -> Option<u64> {
        *self.unread.lock().unwrap()
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES.into()
    }

    fn max_queue_size(&self) -> usize {
        64
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn acked_features(&self, features: u64) {
        self.called(format!("features {features:#x}"));
    }

    fn protocol_features(&self) -> Protocol {
        Protocol::MQ | Protocol::CONFIG | Protocol::SHMEM | Protocol::STATUS
    }

    fn reset_device(&self) {
        self.called("reset".into());
    }

    fn set_event_idx(&self, enabled: bool) {
        self.called(format!("event_idx {enabled}"));
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        (offset..offset + size).map(|i| u8::try_from(i & 0xff).unwrap()).collect()
    }

    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        self.called(format!("config {offset} {buf:?}"));
        if offset == 0 { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap<()>>) -> io::Result<()> {
        use vm_memory::{GuestAddressSpace, GuestMemoryBackend};
        self.called(format!("memory {}", memory.memory().num_regions()));
        Ok(())
    }

    fn handle_event(&self, _: u16, _: EventSet, _: &[Vring], _: usize) -> io::Result<()> {
        unreachable!("the session runs no event loop of vhost-user-backend");
    }
}

type Answer = Result<Box<VirtQueue>, StillInKernel>;

#[derive(Default)]
pub(super) struct HostState {
    pub(super) rings: BTreeMap<u16, Box<VirtQueue>>,
    pub(super) log: Vec<String>,
    /// Rings with commands in the kernel: their stops wait here.
    pub(super) stuck: bool,
    waiting: Vec<(u16, Sender<Answer>)>,
}

impl HostState {
    pub(super) fn ring(&mut self, index: u16) -> &mut VirtQueue {
        self.rings.get_mut(&index).expect("the ring does not run")
    }

    /// The kernel returns everything.
    pub(super) fn unstick(&mut self) {
        self.stuck = false;
        for (index, answer) in std::mem::take(&mut self.waiting) {
            let ring = self.rings.remove(&index).expect("a stopping ring");
            let _ = answer.send(Ok(ring));
        }
    }

    /// The deadline of every waiting stop passes.
    pub(super) fn expire(&mut self) {
        for (_, answer) in std::mem::take(&mut self.waiting) {
            let _ = answer.send(Err(StillInKernel));
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[derive(Default)]
pub(super) struct Host(Mutex<HostState>);

impl Host {
    pub(super) fn state(&self) -> MutexGuard<'_, HostState> {
        self.0.lock().unwrap()
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }
}

impl RingHost for Host {
    fn start_ring(&self, ring: Box<VirtQueue>) {
        let mut state = self.state();
        state.log.push(format!("start {} at {}", ring.index, ring.next_avail()));
        assert!(state.rings.insert(ring.index, ring).is_none(), "started twice");
    }

    fn stop_ring(&self, index: u16, how: Stop, _: Duration) -> Receiver<Answer> {
        let (sender, receiver) = channel();
        let mut state = self.state();
        state.log.push(format!("stop {index} {how:?}"));
        if state.stuck {
            state.waiting.push((index, sender));
        } else {
            let ring = state.rings.remove(&index).expect("stop of a ring that does not run");
            sender.send(Ok(ring)).unwrap();
        }
        receiver
    }

    fn enable_ring(&self, index: u16, enabled: bool) {
        self.state().log.push(format!("enable {index} {enabled}"));
    }

    fn set_call(&self, index: u16, call: Option<OwnedFd>) {
        let mut state = self.state();
        state.log.push(format!("call {index}"));
        state.ring(index).set_call(call);
    }

    fn set_memory(&self, memory: Arc<Memory>) -> Receiver<()> {
        let (sender, receiver) = channel();
        let mut state = self.state();
        state.log.push(format!("memory {}", memory.num_regions()));
        for ring in state.rings.values_mut() {
            ring.set_memory(Arc::clone(&memory)).unwrap();
        }
        sender.send(()).unwrap();
        receiver
    }
}

/// A listener on a socket in a directory of its own.
pub(super) struct Rig {
    pub(super) device: Arc<Device>,
    pub(super) host: Arc<Host>,
    pub(super) handle: Option<ListenerHandle>,
    pub(super) path: PathBuf,
    events: Receiver<SessionEvent>,
    _dir: vmm_sys_util::tempdir::TempDir,
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig::with(Device::default())
    }

    pub(super) fn with(device: Device) -> Rig {
        let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let path = dir.as_path().join("s");
        let socket = Socket::bind(&path, Access::default()).unwrap();
        let (device, host) = (Arc::new(device), Arc::new(Host::default()));
        let (sender, events) = channel();
        let settings = Settings {
            command_timeout: Duration::from_millis(200),
            margin: Duration::from_millis(200),
        };
        let sink = Box::new(move |event| drop(sender.send(event)));
        let handle =
            listener::spawn(socket, Arc::clone(&device), Arc::clone(&host) as _, settings, sink)
                .unwrap();
        Rig { device, host, handle: Some(handle), path, events, _dir: dir }
    }

    /// The configuration space changes by itself.
    pub(super) fn change_config(&self, to: u64) {
        *self.device.unread.lock().unwrap() = Some(to);
        self.handle.as_ref().unwrap().config_changed();
    }

    /// The next event but those of in-flight areas, of which every start of
    /// rings makes one.
    pub(super) fn event(&self) -> SessionEvent {
        loop {
            let event = self.events.recv_timeout(Duration::from_secs(10)).expect("an event");
            if event != SessionEvent::AreaGiven {
                return event;
            }
        }
    }

    /// The reason of the next disconnection, skipping what comes before.
    pub(super) fn disconnected(&self) -> String {
        loop {
            if let SessionEvent::Disconnected { reason } = self.event() {
                return reason.to_string();
            }
        }
    }

    /// Waits for an event, skipping others.
    pub(super) fn await_event(&self, wanted: &SessionEvent) {
        while self.event() != *wanted {}
    }

    pub(super) fn raw(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    pub(super) fn connect(&self) -> Client {
        Client::connect(&self.path)
    }
}

/// A front-end and the guest behind it.
pub(super) struct Client {
    pub(super) frontend: Frontend,
    pub(super) file: File,
    pub(super) memory: Arc<Memory>,
    pub(super) drivers: Vec<Driver>,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    pub(super) inflight: Option<(VhostUserInflight, File)>,
}

impl Client {
    pub(super) fn connect(path: &Path) -> Client {
        Client::over(Frontend::connect(path, 8).unwrap())
    }

    pub(super) fn over(frontend: Frontend) -> Client {
        let file = memfd::sealed(c"guest", MEMORY).unwrap();
        let region = Region { guest_addr: 0, size: MEMORY, user_addr: USER, mmap_offset: 0 };
        let memory = Memory::map(1, [(region, file.try_clone().unwrap())]).unwrap();
        let memory = Arc::new(memory);
        let base = |i: u16| u64::from(i) * 0x1000;
        let drivers =
            (0..QUEUES).map(|i| Driver::new(Arc::clone(&memory), base(i), SIZE, false)).collect();
        let (kick, call) = (event(), event());
        Client { frontend, file, memory, drivers, kick, call, inflight: None }
    }

    /// The same guest after its front-end has connected again.
    pub(super) fn reconnect(&mut self, path: &Path) {
        // Away first: whoever comes while the last one is still there is sent away.
        let (gone, _) = UnixStream::pair().unwrap();
        self.frontend = Frontend::from_stream(gone, 8);
        self.frontend = Frontend::connect(path, 8).unwrap();
    }

    pub(super) fn negotiate(&mut self) {
        self.negotiate_with(Protocol::all());
    }

    pub(super) fn negotiate_with(&mut self, wanted: Protocol) {
        let frontend = &mut self.frontend;
        let features = frontend.get_features().unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(offered & wanted).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner().unwrap();
        frontend.set_features(features & !(1 << 29)).unwrap();
    }

    pub(super) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    pub(super) fn share_memory(&self) {
        self.frontend.set_mem_table(&[self.region()]).unwrap();
    }

    pub(super) fn share_inflight(&mut self) {
        if self.inflight.is_none() {
            let wanted = VhostUserInflight::new(0, 0, QUEUES, SIZE);
            self.inflight = Some(self.frontend.get_inflight_fd(&wanted).unwrap());
        }
        let (area, file) = self.inflight.as_ref().unwrap();
        self.frontend.set_inflight_fd(area, file.as_raw_fd()).unwrap();
    }

    pub(super) fn addresses(&self, index: usize) -> VringConfigData {
        let config = self.drivers[index].config();
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: USER + config.desc,
            used_ring_addr: USER + config.used,
            avail_ring_addr: USER + config.avail,
            log_addr: None,
        }
    }

    pub(super) fn set_up(&mut self, index: usize, base: u16) {
        let addresses = self.addresses(index);
        self.frontend.set_vring_num(index, SIZE).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_addr(index, &addresses).unwrap();
        self.frontend.set_vring_kick(index, &self.kick).unwrap();
        self.frontend.set_vring_call(index, &self.call).unwrap();
    }

    pub(super) fn start(&mut self, index: usize, base: u16) {
        self.set_up(index, base);
        self.frontend.set_vring_enable(index, true).unwrap();
    }

    /// Negotiated, memory and in-flight area shared, ring 0 started.
    pub(super) fn begin(&mut self) {
        self.negotiate();
        self.share_memory();
        self.share_inflight();
        self.start(0, 0);
    }

    pub(super) fn post(&mut self, count: usize) -> Vec<u16> {
        let driver = &mut self.drivers[0];
        (0..count).map(|_| driver.add(&[(0x8000, 16)], &[(0x9000, 16)]).unwrap()).collect()
    }
}

pub(super) fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}
