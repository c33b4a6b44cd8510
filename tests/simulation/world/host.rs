//! What the host does with its SCSI devices: it deletes one while commands are
//! out and finds it again under another name, it hears what LUs say (uevents),
//! and a disk's block layer says EIO of whatever goes by it.

use super::*;
use vhost_mpath::mpath::event::HostNews;

/// Discovery hears of a device that has gone, in the end.
const HEARD: Duration = Duration::from_secs(30);
/// In a minute a path's block layer may be wrong about this many commands:
/// those that make the row, and those that are out when it is complete.
const MOST_LIES: usize = 100;
/// In so short a time the first of them may not be known for what they are.
const LEARNT: Duration = Duration::from_secs(1);

/// What discovery is about to do.
#[derive(Debug)]
pub(super) enum Discovery {
    /// The device of this path has gone.
    Lost(PathId),
    /// A device through this target port group is there again.
    Found(usize),
}

impl World {
    /// Something of that, from a stream of its own.
    pub(super) fn host_acts(&mut self) {
        let n = self.wire.plugs.len() as u64;
        if n == 0 {
            return;
        }
        let at = usize::try_from(self.host.below(n)).unwrap();
        let id = self.wire.plugs[at].id;
        match self.host.below(8) {
            0..=2 => self.host_hears(id),
            3..=5 => self.device_deleted(at),
            _ => {
                let plug = &mut self.wire.plugs[at];
                plug.lies = !plug.lies;
            }
        }
    }

    /// A uevent: what the LU has said to some command, not one of ours.
    fn host_hears(&mut self, path: PathId) {
        self.totals.host_news += 1;
        let word = HostNews::PerhapsAnother("INQUIRY_DATA_HAS_CHANGED");
        let news = self.host.pick(&[word, HostNews::Capacity, HostNews::AccessStates]);
        self.post(Message::ToEngine(Event::Told { path, news }));
    }

    /// As the daemon does before it tells the engine: no thread's command goes
    /// there before a proof.
    pub(super) fn questioned(&mut self, path: PathId) {
        if let Some(plug) = self.wire.plug_mut(path) {
            plug.doubts.met += 1;
            self.laws.doubted(self.moment, path);
        }
    }

    /// `echo 1 > device/delete`: what is out comes back when it comes back, or
    /// is lost now; the next command finds no device.
    fn device_deleted(&mut self, at: usize) {
        let plug = &mut self.wire.plugs[at];
        if plug.deleted || plug.leaving || self.map.path(plug.id).is_none() {
            return;
        }
        plug.deleted = true;
        let (id, nexus, group) = (plug.id, plug.nexus, plug.group);
        self.totals.deleted += 1;
        if self.trace {
            eprintln!("{:?} the device of {id} is deleted", self.now);
        }
        if self.host.one_in(2) {
            let how = self.host.pick(&[CutMode::Before, CutMode::StatusLost]);
            self.array.inject(self.now, nexus, Fault::Cut(how));
        }
        let most = if self.host.one_in(20) { HEARD } else { Duration::from_secs(1) };
        let lost = self.now + self.host.duration(most);
        self.discovery.push((lost, Discovery::Lost(id)));
        if !self.host.one_in(4) {
            let found = lost + self.host.duration(Duration::from_secs(5));
            self.discovery.push((found, Discovery::Found(group)));
        }
    }

    /// Discovery does what is due.
    pub(super) fn discover(&mut self) -> bool {
        let now = self.now;
        let Some(at) = self.discovery.iter().position(|d| d.0 <= now) else { return false };
        let (_, what) = self.discovery.remove(at);
        self.totals.steps += 1;
        match what {
            Discovery::Lost(id) => self.device_lost(id),
            Discovery::Found(group) => {
                if self.wire.plugs.len() < self.story.most_paths {
                    let name = format!("sim{}", self.paths_made + 1);
                    self.plug_in(name, group, None);
                }
            }
        }
        true
    }

    fn device_lost(&mut self, id: PathId) {
        let Some(name) = self.map.path(id).map(|p| p.name.clone()) else { return };
        let mut fx = Effects::new();
        self.lose_path(&name, &mut fx);
        let told = |e: &Effect| matches!(e, Effect::Notify(Change::PathDeleted { path, .. }) if *path == name);
        assert!(fx.iter().any(told), "{name} has gone, and nobody is told");
        assert!(self.map.path(id).is_none(), "{name} has gone, and stays");
        self.laws.commanded(self.now);
        self.reasons.commanded(self.now);
        self.access.commanded();
        self.carry_out(fx);
    }

    /// The faults end: what has gone is lost now, and comes back no more.
    pub(super) fn host_comes_to_rest(&mut self) {
        for (_, what) in std::mem::take(&mut self.discovery) {
            if let Discovery::Lost(id) = what {
                self.device_lost(id);
            }
        }
        self.wire.plugs.iter_mut().for_each(|p| p.lies = false);
    }

    /// A path's block layer has been wrong about one more command.
    pub(super) fn lied_to(&mut self, path: PathId) {
        let now = self.now;
        self.totals.lies += 1;
        let Some(plug) = self.wire.plug_mut(path) else { return };
        plug.lies_told.push(now);
        plug.lies_told.retain(|at| *at + Duration::from_secs(60) > now);
        let lies = &plug.lies_told;
        if lies.len() <= MOST_LIES {
            return;
        }
        // (Without what came back, of one large request perhaps, before the first was known for
        // one.)
        let burst =
            |from: &Time| lies.iter().filter(|at| (*from..*from + LEARNT).contains(*at)).count();
        let told = lies.len() - lies.iter().map(burst).max().unwrap_or(0);
        assert!(told <= MOST_LIES, "{path} said EIO of {told} good commands in a minute");
    }
}
