//! What happens to the LU, and the law of unit attentions: each event reaches
//! the guest once, if any path tells of it, and is not repeated.
//!
//! An event of a kind happens only when every path has told of the one before
//! it, or had nothing to tell of it: SAM-5 keeps one unit attention of a kind
//! per nexus, which does not say of which event it is.

use super::*;
use crate::jobs::{Job, What, is_good};
use vhost_mpath::scsi::attention::Attentions;
use vhost_mpath::scsi::mode;
use vhost_mpath::scsi::sense::Sense;
use vhost_mpath::sim::Task;

/// What a guest that speaks SCSI needs around it.
pub(super) struct Scsi {
    pub(super) attentions: std::sync::Arc<Attentions>,
    /// Another host at the same LU.
    host: NexusId,
    descriptor_sense: bool,
    host_is_busy: bool,
    kinds: [Kind; 4],
    /// Commands up to this tag may yet tell of what their path has forgotten.
    lost_until: u64,
}

/// A kind of event, and the last one.
#[derive(Debug)]
struct Kind {
    code: SenseCode,
    /// Paths that have not told of it.
    untold: BTreeSet<PathId>,
    told: bool,
    heard: bool,
    /// When a path first told of it (`Attentions::moment`); zero: none ever.
    since: u64,
    /// Paths that have told of it or were proven since.
    clear: BTreeSet<PathId>,
}

const MODE_CHANGED: usize = 0;
const RESET: usize = 1;
const RESIZED: usize = 2;
const POWER: usize = 3;

impl Kind {
    fn new(asc: u8, ascq: u8) -> Kind {
        let code = SenseCode::new(Key::UnitAttention, asc, ascq);
        let (told, heard, since) = (false, false, 0);
        Kind { code, untold: BTreeSet::new(), told, heard, since, clear: BTreeSet::new() }
    }

    /// The last event has had its effect; another one may come.
    fn is_over(&self) {
        assert_eq!(self.told, self.heard, "{}: told by a path, and heard", self.code);
    }
}

impl Scsi {
    pub(super) fn new(host: NexusId) -> Scsi {
        Scsi {
            attentions: std::sync::Arc::new(Attentions::new(true)),
            host,
            descriptor_sense: false,
            host_is_busy: false,
            kinds: [
                Kind::new(0x2a, 0x01),
                Kind::new(0x29, 0x03),
                Kind::new(0x2a, 0x09),
                Kind::new(0x29, 0x00),
            ],
            lost_until: 0,
        }
    }

    /// A path has told of an event, to whomever.
    pub(super) fn told(&mut self, path: PathId, sense: &Sense) {
        if let Some(kind) = self.kinds.iter_mut().find(|k| Some(k.code) == sense.code()) {
            kind.untold.remove(&path);
            if !kind.told {
                kind.told = true;
                // (The clock ticks: what was proven before is not clear.)
                kind.since = self.attentions.moment();
                kind.clear.clear();
            }
            kind.clear.insert(path);
        }
    }

    /// The path was proven by a command sent after `moment`.
    pub(super) fn proven(&mut self, path: PathId, moment: u64) {
        self.attentions.drained(path.key(), moment);
        for kind in self.kinds.iter_mut().filter(|k| k.since <= moment) {
            kind.clear.insert(path);
        }
    }
}

impl World {
    /// The path has lost its nexus, and with it what it had to tell.
    pub(super) fn nexus_lost(&mut self, path: PathId) {
        let Some(scsi) = &mut self.scsi else { return };
        scsi.lost_until = self.wire.last_tag();
        for kind in &mut scsi.kinds {
            kind.untold.remove(&path);
        }
    }

    /// The guest's last commands carry what still waits; then all is told.
    pub(super) fn last_events(&mut self) {
        while let Some(sense) = self.scsi.as_ref().and_then(|s| s.attentions.take()) {
            self.guest_hears(&sense);
        }
        if let Some(scsi) = &self.scsi {
            scsi.kinds.iter().for_each(Kind::is_over);
        }
    }

    pub(super) fn guest_hears(&mut self, sense: &Sense) {
        let code = sense.code().expect("decodable");
        if self.hears_of_reservations(sense) {
            return;
        }
        let Some(scsi) = &mut self.scsi else { panic!("a guest that hears of none heard {code}") };
        let kind = scsi.kinds.iter_mut().find(|k| k.code == code);
        let kind = kind.unwrap_or_else(|| panic!("the guest heard {code}"));
        assert!(kind.told, "the guest heard of {code} before any path told of it");
        assert!(!kind.heard, "the guest heard of {code} twice");
        kind.heard = true;
        self.totals.heard += 1;
    }

    /// Another host changes the mode parameters, or resets the LU.
    pub(super) fn event(&mut self) {
        let kind = if self.random.one_in(2) { MODE_CHANGED } else { RESET };
        if !self.is_quiet(kind) {
            return;
        }
        let Some(scsi) = &mut self.scsi else { return };
        scsi.host_is_busy = kind == MODE_CHANGED;
        if kind == MODE_CHANGED {
            self.select_mode();
        } else {
            let host = scsi.host;
            self.array.inject(self.now, host, Fault::LuReset);
            self.happened(RESET);
        }
    }

    /// Whether an event can be told from the last one of its kind.
    fn is_quiet(&self, kind: usize) -> bool {
        let Some(scsi) = &self.scsi else { return true };
        let oldest = self.wire.oldest_tag();
        let last = &scsi.kinds[kind];
        let clear = |id: &PathId| last.since == 0 || last.clear.contains(id);
        last.untold.is_empty()
            && self.wire.plugs.iter().all(|p| clear(&p.id))
            && !scsi.attentions.is_pending()
            && !scsi.host_is_busy
            && oldest.is_none_or(|tag| tag > scsi.lost_until)
    }

    pub(super) fn may_be_resized(&self) -> bool {
        self.is_quiet(RESIZED)
    }

    pub(super) fn resized(&mut self) {
        self.happened(RESIZED);
    }

    /// The array tells of a reset by nothing else then.
    pub(super) fn may_lose_power(&self) -> bool {
        [MODE_CHANGED, RESET, RESIZED, POWER].into_iter().all(|kind| self.is_quiet(kind))
    }

    pub(super) fn power_lost(&mut self) {
        self.happened(POWER);
    }

    fn select_mode(&mut self) {
        let Some(scsi) = &self.scsi else { return };
        let descriptor_sense = !scsi.descriptor_sense;
        let mut data_out = vec![0; 4];
        data_out.extend(mode::encode_control());
        data_out[6] = u8::from(descriptor_sense) << 2;
        let len = u8::try_from(data_out.len()).unwrap();
        let cdb = Cdb::from_bytes(&[0x15, 0x10, 0, 0, len, 0]).unwrap();
        let tag = self.wire.tag();
        let what = What::ModeSelect { descriptor_sense };
        self.wire.jobs.push(Job { tag, what, sent: 0, drains: None, begun: self.now });
        let (nexus, timeout) = (scsi.host, Duration::from_secs(30));
        let task = Task { nexus, tag, cdb, data_out, data_in_max: 0, timeout };
        self.array.submit(self.now, task);
    }

    /// The other host's MODE SELECT has ended.
    pub(super) fn mode_selected(&mut self, completion: &Completion, descriptor_sense: bool) {
        let Some(scsi) = &mut self.scsi else { return };
        scsi.host_is_busy = false;
        if is_good(completion) && scsi.descriptor_sense != descriptor_sense {
            scsi.descriptor_sense = descriptor_sense;
            self.happened(MODE_CHANGED);
        }
    }

    fn happened(&mut self, kind: usize) {
        let Some(scsi) = &mut self.scsi else { return };
        if kind == RESET {
            scsi.kinds[POWER].untold.clear();
        }
        if kind == RESET || kind == POWER {
            // A reset sets the parameters back, and says so by itself.
            scsi.descriptor_sense = false;
            scsi.kinds[MODE_CHANGED].untold.clear();
        }
        let paths = self.wire.plugs.iter().filter(|p| p.remapped.is_none());
        let kind = &mut scsi.kinds[kind];
        kind.is_over();
        (kind.told, kind.heard) = (false, false);
        kind.untold = paths.map(|p| p.id).collect();
        if self.trace {
            eprintln!("{:?} {} is to be told by {:?}", self.now, kind.code, kind.untold);
        }
        self.totals.events += 1;
    }

    /// A checking thread's command is back. The control thread passes on a
    /// unit attention that no guest's command will, and one that puts the
    /// path's identity in doubt is remembered for the next command there.
    pub(super) fn overhear(
        &mut self,
        path: PathId,
        sent: u64,
        drains: Option<u64>,
        completion: &Completion,
    ) {
        let met = unit_attention(completion);
        let doubt = met.and_then(|s| s.code()).is_some_and(SenseCode::questions_identity);
        if let Some(plug) = self.wire.plug_mut(path).filter(|_| doubt) {
            plug.doubts.met += 1;
        }
        let Some(scsi) = &mut self.scsi else { return };
        if let Some(sense) = met {
            scsi.told(path, sense);
            scsi.attentions.overheard_since(path.key(), sent, sense);
        } else if let (Completion::Good, Some(moment)) = (completion, drains) {
            scsi.proven(path, moment);
        }
    }
}
