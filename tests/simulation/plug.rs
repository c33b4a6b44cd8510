//! A path as the world knows it: where it is plugged in, what must not go
//! there, and what its checking thread keeps.

use vhost_mpath::io::Time;
use vhost_mpath::mpath::checker::Checker;
use vhost_mpath::mpath::classify::PathVerdict;
use vhost_mpath::mpath::prio::{Attributes, Prioritizer};
use vhost_mpath::mpath::snapshot::PathId;
use vhost_mpath::sim::NexusId;

/// The path leads to another LU.
#[derive(Debug)]
pub(crate) struct Remapped {
    /// The array has not yet told anybody.
    pub(crate) attention: bool,
    /// The checking thread's command, by its tag, that is being told.
    pub(crate) telling: Option<u64>,
}

/// Unit attentions met through the path that question its identity, as `passthrough_scsi::PathHandle` counts them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doubts {
    pub(crate) met: u32,
    /// Settled by a proof.
    pub(crate) settled: u32,
}

/// One path, from its opening until it is closed.
#[derive(Debug)]
pub(crate) struct Plug {
    pub(crate) id: PathId,
    pub(crate) name: String,
    pub(crate) attributes: Attributes,
    pub(crate) nexus: NexusId,
    /// Index of its target port group.
    pub(crate) group: usize,
    /// It leads to the other LU.
    pub(crate) remapped: Option<Remapped>,
    /// Nothing goes onto the path before it is listed with a later epoch than
    /// this; and whether it failed, or the engine must decide.
    pub(crate) barred: Option<(u32, PathVerdict)>,
    /// Guest commands on it.
    pub(crate) commands: usize,
    /// It has left the map and is to be closed.
    pub(crate) leaving: bool,
    pub(crate) doubts: Doubts,
    pub(crate) checker: Option<Checker>,
    pub(crate) prioritizer: Option<Prioritizer>,
    /// Answers of its checking thread that do not come before the faults end.
    pub(crate) stuck: u32,
    /// The host has deleted its device: no command finds it any more.
    pub(crate) deleted: bool,
    /// Its block layer says EIO of whatever goes by it; and when it did so.
    pub(crate) lies: bool,
    pub(crate) lies_told: Vec<Time>,
    /// Since when nothing has been wrong with it, while requests are held.
    pub(crate) good_since: Option<Time>,
}

impl Plug {
    pub(crate) fn new(id: PathId, attributes: Attributes, nexus: NexusId, group: usize) -> Plug {
        Plug {
            id,
            name: attributes.devname.clone(),
            attributes,
            nexus,
            group,
            remapped: None,
            barred: None,
            commands: 0,
            leaving: false,
            doubts: Doubts::default(),
            checker: None,
            prioritizer: None,
            stuck: 0,
            deleted: false,
            lies: false,
            lies_told: Vec::new(),
            good_since: None,
        }
    }

    /// What failed is not in doubt any more.
    pub(crate) fn bar(&mut self, epoch: u32, verdict: PathVerdict) {
        if self.barred != Some((epoch, PathVerdict::Fail)) {
            self.barred = Some((epoch, verdict));
        }
    }
}
