//! What an earlier process or an administrator knows of the guest's registration,
//! before the array has been asked whether it is so: prkeys, `setprkey`,
//! `setprstatus`, `unsetprkey`, reservation_key. Asking is `lifecycle::recall`.

use super::{News, Nexus, Recall, Remembered, Reservations, Task, told};
use crate::io::Time;
use crate::mpath::Multipath;
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::path::Outstanding;

impl Multipath {
    /// At the start: this is what an earlier process remembers of the guest's
    /// registration. No path carries anything before the array has been asked
    /// whether it is still so. To be called before paths are added, or by an
    /// administrator (`setprkey`), who knows of a registration that we do not.
    pub fn recall(&mut self, now: Time, remembered: Remembered, fx: &mut Effects) {
        let reservations = &mut self.reservations;
        let untold = self.published.is_none();
        let before = std::mem::replace(&mut reservations.ever, true);
        let given = !untold && !before;
        let perhaps = reservations.state.registered.is_some().then_some(remembered);
        reservations.state.registered.get_or_insert(remembered);
        reservations.recall = Some(Recall { perhaps, untold, given });
        for path in self.paths.iter_mut().flatten() {
            path.nexus.unsettled();
        }
        self.settle(now, fx);
    }

    /// At the start, before paths are added: an administrator expects the
    /// guest to have this key. If the array does not have it, it is as if
    /// nothing had been said.
    pub fn expect_key(&mut self, now: Time, expected: Remembered, fx: &mut Effects) {
        self.reservations.ever = true;
        self.reservations.recall =
            Some(Recall { perhaps: Some(expected), untold: false, given: true });
        self.settle(now, fx);
    }

    /// An administrator asks the array anew what the guest has registered and
    /// reserved; false: nothing is known that it could be asked for.
    pub fn ask_again(&mut self, now: Time, fx: &mut Effects) -> bool {
        let Some(registered) = self.reservations.state.registered else { return false };
        self.recall(now, registered, fx);
        true
    }

    /// An administrator has us forget the guest's key. What the array has
    /// stays: no path is registered by us any more, or cleaned, and conflicts
    /// are the guest's. False: an order of the guest's is being carried out.
    pub fn forget_key(&mut self, now: Time, fx: &mut Effects) -> bool {
        let Reservations { work, orders, .. } = &mut self.reservations;
        if work.as_ref().is_some_and(|w| matches!(w.task, Task::Order(_))) {
            return false;
        }
        let orders = std::mem::take(orders);
        let known = self.reservations.state.registered.is_some();
        self.reservations = Reservations { orders, ..Reservations::default() };
        for path in self.paths.iter_mut().flatten() {
            let job = path.nexus.job.map(|job| Outstanding { late: true, ..job });
            path.nexus = Nexus { job, ..Nexus::default() };
            // Whoever has set it aside for its conflicts goes on.
            path.epoch += 1;
        }
        if known {
            fx.push(Effect::Remember(None));
            told(fx, News::Forgotten);
        }
        self.settle(now, fx);
        true
    }
}
