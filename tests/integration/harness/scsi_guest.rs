//! A guest on a vhost-user-scsi device: control, event and request queues.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::cdb;
use super::front_end::{FrontEnd, Shape};
use super::scsi_queue::{Answer, ScsiQueue, Task};
use super::sim_daemon::Daemon;

/// Rings before the first request queue: control and events.
pub(crate) const FIXED: u16 = 2;

/// See the module. A front-end whose first two queues have their own jobs.
pub(crate) struct ScsiGuest(FrontEnd<ScsiQueue>);

impl Deref for ScsiGuest {
    type Target = FrontEnd<ScsiQueue>;
    fn deref(&self) -> &FrontEnd<ScsiQueue> {
        &self.0
    }
}

impl DerefMut for ScsiGuest {
    fn deref_mut(&mut self) -> &mut FrontEnd<ScsiQueue> {
        &mut self.0
    }
}

impl ScsiGuest {
    /// With so many request queues.
    pub(crate) fn connect(daemon: &Daemon, queues: u16) -> ScsiGuest {
        ScsiGuest::with(&daemon.socket(), ScsiGuest::shape(queues))
    }

    /// The usual shape with so many request queues.
    pub(crate) fn shape(queues: u16) -> Shape {
        Shape { queues: FIXED + queues, ..Shape::default() }
    }

    /// Of any shape.
    pub(crate) fn with(socket: &Path, shape: Shape) -> ScsiGuest {
        let mut front_end = FrontEnd::prepare(socket, shape);
        front_end.reconnect();
        ScsiGuest(front_end)
    }

    pub(crate) fn control(&mut self) -> &mut ScsiQueue {
        &mut self.0.queues[0]
    }

    pub(crate) fn events(&mut self) -> &mut ScsiQueue {
        &mut self.0.queues[1]
    }

    /// One request queue.
    pub(crate) fn requests(&mut self, number: usize) -> &mut ScsiQueue {
        &mut self.0.queues[usize::from(FIXED) + number]
    }

    /// Every request queue.
    pub(crate) fn all_requests(&mut self) -> &mut [ScsiQueue] {
        &mut self.0.queues[usize::from(FIXED)..]
    }

    /// One command on the first request queue, alone.
    pub(crate) fn run(&mut self, task: &Task<'_>) -> Answer {
        self.requests(0).run(task)
    }

    /// A command without data to LUN 0 of target 0: what its answer says.
    pub(crate) fn say(&mut self, cdb: &[u8]) -> String {
        self.run(&Task::new(cdb)).to_string()
    }

    /// Hears every unit attention that waits for the guest at a LU; what they
    /// are, in order.
    pub(crate) fn attentions(&mut self, lun: [u8; 8]) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let answer = self.run(&Task::new(&cdb::TUR).to(lun)).to_string();
            if !answer.starts_with("06/") {
                assert_eq!(answer, "GOOD", "after {heard:?}");
                return heard;
            }
            heard.push(answer);
            assert!(heard.len() < 50, "no end of them: {heard:?}");
        }
    }
}
