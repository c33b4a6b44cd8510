//! What happens to the LU, and the law of unit attentions: each event reaches
//! the guest once, if any path tells of it, and is not repeated.
//!
//! An event of a kind happens only when every path has told of the one before
//! it, or had nothing to tell of it: SAM-5 keeps one unit attention of a kind
//! per nexus, which does not say of which event it is.

use super::*;
use vhost_mpath::scsi::attention::Attentions;
use vhost_mpath::scsi::mode;
use vhost_mpath::scsi::sense::Sense;

/// What a guest that speaks SCSI needs around it.
pub(super) struct Scsi {
    pub(super) attentions: std::sync::Arc<Attentions>,
    /// Another host at the same LU.
    host: NexusId,
    descriptor_sense: bool,
    host_is_busy: bool,
    kinds: [Kind; 3],
    /// Commands up to this tag may yet tell of what their path has forgotten.
    lost_until: u64,
    /// When each check and each command of a proof was sent.
    pub(super) sent: HashMap<u64, u64>,
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
            kinds: [Kind::new(0x2a, 0x01), Kind::new(0x29, 0x03), Kind::new(0x2a, 0x09)],
            lost_until: 0,
            sent: HashMap::new(),
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
        scsi.lost_until = self.wire.borrow().next_tag;
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
        let oldest = self.wire.borrow().tasks.keys().next().copied();
        let last = &scsi.kinds[kind];
        let clear = |id: &PathId| last.since == 0 || last.clear.contains(id);
        last.untold.is_empty()
            && self.nexus_of.keys().all(clear)
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

    fn select_mode(&mut self) {
        let Some(scsi) = &self.scsi else { return };
        let descriptor_sense = !scsi.descriptor_sense;
        let mut data_out = vec![0; 4];
        data_out.extend(mode::encode_control());
        data_out[6] = u8::from(descriptor_sense) << 2;
        let len = u8::try_from(data_out.len()).unwrap();
        let cdb = Cdb::from_bytes(&[0x15, 0x10, 0, 0, len, 0]).unwrap();
        let tag = self.wire.borrow_mut().tag();
        self.wire.borrow_mut().tasks.insert(tag, Purpose::OtherHost { descriptor_sense });
        let (nexus, timeout) = (scsi.host, Duration::from_secs(30));
        let task = Task { nexus, tag, cdb, data_out, data_in_max: 0, timeout };
        self.array.submit(self.now, task);
    }

    /// The other host's MODE SELECT has ended.
    pub(super) fn mode_selected(&mut self, completion: &Completion, descriptor_sense: bool) {
        let Some(scsi) = &mut self.scsi else { return };
        scsi.host_is_busy = false;
        let good = match completion {
            Completion::Good => true,
            Completion::Scsi { status, host, .. } => {
                *status == Status::GOOD && *host == HostByte::OK
            }
            _ => false,
        };
        if good && scsi.descriptor_sense != descriptor_sense {
            scsi.descriptor_sense = descriptor_sense;
            self.happened(MODE_CHANGED);
        }
    }

    fn happened(&mut self, kind: usize) {
        let Some(scsi) = &mut self.scsi else { return };
        if kind == RESET {
            // A reset sets the parameters back, and says so by itself.
            scsi.descriptor_sense = false;
            scsi.kinds[MODE_CHANGED].untold.clear();
        }
        let remapped = &self.wire.borrow().remapped;
        let paths = self.nexus_of.keys().filter(|id| !remapped.contains_key(id));
        let kind = &mut scsi.kinds[kind];
        kind.is_over();
        (kind.told, kind.heard) = (false, false);
        kind.untold = paths.copied().collect();
        self.totals.events += 1;
    }

    /// A check or a proof met a unit attention: the control thread passes on
    /// what no guest's command will.
    pub(super) fn overhear(&mut self, path: PathId, tag: u64, completion: &Completion) {
        let Some(scsi) = &mut self.scsi else { return };
        let sent = scsi.sent.remove(&tag).expect("sent");
        if let Some(sense) = unit_attention(completion) {
            scsi.told(path, sense);
            scsi.attentions.overheard_since(path.key(), sent, sense);
        }
    }
}
