//! Task management: when a function is over no task it reached is anywhere,
//! and each of them has ended once.

use super::*;
use vhost_mpath::io::{Action, Management, MapSlot, Reach};
use vhost_mpath::queue::dispatch::Ticket;

/// A function that is under way.
#[derive(Debug)]
pub(super) struct Function {
    what: Management,
    ticket: Ticket,
    /// Requests it reached, by head and number.
    reached: Vec<(u16, u64)>,
    /// When it must be over: every path has returned what it had.
    until: Time,
}

impl World {
    pub(super) fn manage(&mut self) {
        let mut tasks: Vec<u64> = self.pending.iter().flatten().map(|p| p.serial).collect();
        tasks.sort_unstable();
        let any = match tasks.is_empty() {
            true => 0,
            false => self.random.pick(&tasks),
        };
        let task = self.random.pick(&[any, any, any, u64::MAX]);
        let action = match self.random.below(5) {
            0 => Action::Query,
            n => Action::End { reset: n < 3 },
        };
        let reach = match self.random.below(4) {
            0 => Reach::Unit(MapSlot(0)),
            1 => Reach::Target(0),
            _ => Reach::Task { map: MapSlot(0), task },
        };
        let what = Management { action, reach };
        let reaches = |p: &Pending| match reach {
            Reach::Task { task, .. } => p.serial == task,
            Reach::Unit(_) | Reach::Target(_) => true,
        };
        let mut reached: Vec<(u16, u64)> = Vec::new();
        for (head, p) in (0..).zip(&mut self.pending) {
            let Some(p) = p.as_mut().filter(|p| reaches(p)) else { continue };
            reached.push((head, p.serial));
            if let Action::End { reset } = action {
                p.aborted.get_or_insert(reset);
            }
        }
        self.touched = true;
        let managed = self.core.manage(self.now, &what);
        assert_eq!(managed.found, !reached.is_empty(), "{what:?}");
        if action == Action::Query {
            assert!(self.core.is_over(&what, managed.ticket));
            return;
        }
        self.totals.functions += 1;
        self.totals.steps += 1;
        let until = self.now + self.longest() + Duration::from_secs(1);
        self.functions.push(Function { what, ticket: managed.ticket, reached, until });
        self.settle();
        // What waited has ended at once.
        for p in self.pending.iter().flatten().filter(|p| p.aborted.is_some()) {
            let memory = p.memory.expect("each has some");
            assert!(self.wire.uses(memory), "a task was aborted, is on no path, and has not ended");
        }
    }

    /// A function is over when, and only when, everything it reached has ended.
    pub(super) fn functions_end(&mut self) {
        let (pending, core, now) = (&self.pending, &self.core, self.now);
        self.functions.retain(|f| {
            let there = |(head, serial): &&(u16, u64)| {
                pending[usize::from(*head)].as_ref().is_some_and(|p| p.serial == *serial)
            };
            let left = f.reached.iter().find(there);
            assert_eq!(core.is_over(&f.what, f.ticket), left.is_none(), "{f:?}");
            assert!(now <= f.until, "{left:?} does not end: {f:?}");
            left.is_some()
        });
    }
}
