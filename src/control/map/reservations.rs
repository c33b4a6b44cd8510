//! Reservations of a map's guest, as far as the engine does not decide: its
//! orders on their way in and out, what is to be remembered, and who is still
//! waited for.
//!
//! A guest's REGISTER is answered once its key is on the disk
//! (`control::prkeys`): a daemon that is started anew must know which paths
//! are registered, and with what. Where it cannot be written the guest is
//! answered all the same, and the administrator told: the reservation holds,
//! and what is lost by a crash is paths that are not registered by themselves.

use std::collections::VecDeque;

use super::Map;
use crate::control::events;
use crate::control::prkeys::keeper::Keeper;
use crate::control::status::{RegistrationStatus, ReservationStatus};
use crate::io::{Outcome, Time};
use crate::mpath::errand::LastSeen;
use crate::mpath::event::Event;
use crate::mpath::path::Path;
use crate::mpath::policy::ReservationKey;
use crate::mpath::reservation::{Answer, Ask, Facts, OrderId, Remembered};
use crate::mpath::snapshot::{PathId, PathTable};
use crate::scsi::cdb::Cdb;
use crate::scsi::reservation::{Key, Out};
use crate::scsi::sense::{Sense, SenseCode, SenseFormat};
use crate::scsi::status::Status;

/// See the module.
#[derive(Debug)]
pub(super) struct Reservations {
    /// `None`: its guest cannot reserve.
    keeper: Option<Keeper>,
    /// Number of the last note to be kept.
    noted: u64,
    /// Number of the last one that was tried.
    kept: u64,
    /// It could not be written.
    unsaved: bool,
    /// Answers that wait for a note.
    answers: VecDeque<(u64, OrderId, Outcome)>,
    last_seen: LastSeen,
    /// A suspended table of which the engine has not heard [`Event::Quiet`].
    suspended: Option<u64>,
    /// Commands of which other paths may have to tell, and were not asked yet.
    untold: usize,
    /// A command is out.
    at_work: bool,
    /// This one is not yet: until every queue thread works by this table.
    entry: Option<(u64, Asked)>,
}

/// A command of the engine's: by which path, its number, what.
type Asked = (PathId, u32, Ask);

impl Reservations {
    pub(super) fn new(keeper: Option<Keeper>) -> Reservations {
        Reservations {
            keeper,
            noted: 0,
            kept: 0,
            unsaved: false,
            answers: VecDeque::new(),
            last_seen: LastSeen::default(),
            suspended: None,
            untold: 0,
            at_work: false,
            entry: None,
        }
    }

    /// An answer that is to be given now; one that waits for a note is `None`.
    fn waits_for_note(&mut self, order: OrderId, outcome: Outcome) -> Option<Outcome> {
        if self.kept >= self.noted {
            return Some(outcome);
        }
        self.answers.push_back((self.noted, order, outcome));
        None
    }

    /// A command begins: it, if it is to be sent now. A path is registered once every queue thread
    /// knows that it carries nothing: should the guest turn out to have been
    /// preempted the path loses that again, and nothing of the guest's has gone by
    /// it meanwhile.
    fn begin(&mut self, asked: Asked, table: u64, acknowledged: u64) -> Option<Asked> {
        self.at_work = true;
        self.entry = Some((table, asked)).filter(|_| asked.2.enters() && acknowledged < table);
        self.entry.is_none().then_some(asked)
    }

    /// What has waited for queue threads.
    fn entry(&mut self, acknowledged: u64) -> Option<Asked> {
        self.entry.take_if(|(table, _)| *table <= acknowledged).map(|(_, asked)| asked)
    }

    /// A note was tried: whoever has waited for it.
    fn kept(&mut self, number: u64) -> Vec<(OrderId, Outcome)> {
        self.kept = number.max(self.kept);
        let due = self.answers.iter().take_while(|(after, ..)| *after <= self.kept).count();
        self.answers.drain(..due).map(|(_, order, outcome)| (order, outcome)).collect()
    }

    /// Whether the last state was saved. `None`: it does not matter, there is a
    /// newer note, or it is of a map that has had this slot before.
    fn save(&mut self, number: u64, saved: bool) -> Option<bool> {
        (number == self.noted).then(|| !std::mem::replace(&mut self.unsaved, !saved))
    }
}

impl Map {
    /// The guest sends a PERSISTENT RESERVE OUT.
    pub(in crate::control) fn ordered(
        &mut self,
        now: Time,
        order: OrderId,
        cdb: &Cdb,
        list: &[u8],
    ) {
        match Out::parse(cdb, list) {
            Ok(out) => {
                log::debug!("{}: order {}: {out:?}", self.name, order.0);
                self.handle(now, Event::Ordered { order, out });
            }
            Err((code, field)) => {
                let sense = Sense::build(SenseFormat::Fixed, code, field);
                // Nothing was taken, however long the guest's list is.
                let (status, residual) = (Status::CHECK_CONDITION, u32::MAX);
                self.queues.answer(self.slot, order, Outcome::Lu { status, sense, residual });
            }
        }
    }

    /// An order has ended otherwise: what has not begun is not to begin.
    pub(in crate::control) fn withdrawn(&mut self, now: Time, order: OrderId) {
        self.reservations.answers.retain(|(_, waiting, _)| *waiting != order);
        self.handle(now, Event::Withdrawn { order });
    }

    /// A command about reservations is about to end that was sent last then.
    pub(in crate::control) fn sent_last(&mut self, job: u32, sent: u64) {
        self.reservations.last_seen.sent(job, sent);
    }

    /// A command about reservations ended. `told`: other paths may have to
    /// tell of it, and it is known ([`Attentions::expect_of_others`]) only
    /// until they have had the opportunity. They get it when what is under way
    /// has ended, or after as many commands as there are paths: an order that
    /// takes one of each costs each of them one question.
    ///
    /// [`Attentions::expect_of_others`]: crate::scsi::attention::Attentions::expect_of_others
    pub(in crate::control) fn reserved(
        &mut self,
        now: Time,
        path: PathId,
        job: u32,
        answer: Answer,
        told: bool,
    ) {
        self.reservations.untold += usize::from(told);
        self.reservations.at_work = false;
        self.reservations.last_seen.answered(job, &answer.completion);
        self.handle(now, Event::Reserved { path, job, answer });
        if !self.reservations.at_work || self.reservations.untold >= self.paths.len() {
            self.have_all_told();
        }
    }

    /// Has every path tell what it has to tell of commands that others have
    /// carried out.
    fn have_all_told(&mut self) {
        if std::mem::take(&mut self.reservations.untold) > 0 {
            let open = self.paths.values().filter_map(|path| path.open.as_ref());
            open.for_each(|(_, checking)| checking.drain());
        }
    }

    /// Whether every queue thread is done with what the guest has out on a
    /// suspended map; the engine is told once.
    pub(in crate::control) fn look_for_quiet(&mut self, now: Time) {
        let Some(generation) = self.reservations.suspended else { return };
        if self.queues.quiet(self.slot) >= generation {
            self.reservations.suspended = None;
            self.handle(now, Event::Quiet { generation });
        }
    }

    /// At the start: what an earlier daemon has kept. Before paths join.
    pub(in crate::control) fn recall(&mut self, now: Time, remembered: Remembered) {
        self.tell(now, |engine, fx| engine.recall(now, remembered, fx));
    }

    /// At the start, of a LU of which nothing is kept (`reservation_key`).
    pub(in crate::control) fn expect_key(&mut self, now: Time) {
        let kept = self.reservations.keeper.is_some();
        let ReservationKey::Key { key, aptpl } = self.engine.policy().reservation_key else {
            return;
        };
        if kept {
            let expected = self.as_registered(key, aptpl);
            self.tell(now, |engine, fx| engine.expect_key(now, expected, fx));
        }
    }

    /// A key of which nobody knows with what else it was registered.
    fn as_registered(&self, key: Key, aptpl: bool) -> Remembered {
        Remembered { key, aptpl, all_tg_pt: self.engine.policy().all_tg_pt }
    }

    /// `setprkey`: an administrator knows what has been lost. If the array does
    /// not have it, it is forgotten again.
    pub(in crate::control) fn set_key(&mut self, now: Time, key: Key, aptpl: bool) {
        let remembered = self.as_registered(key, aptpl);
        self.remember(Some(remembered));
        self.recall(now, remembered);
    }

    /// `unsetprkey`; false: not now.
    pub(in crate::control) fn forget_key(&mut self, now: Time) -> bool {
        let done = self.tell(now, |engine, fx| engine.forget_key(now, fx));
        if done {
            // Also where the engine knew of none: the file may.
            self.remember(None);
        }
        done
    }

    /// `setprstatus`, `setprhold`; false: there is no key to ask for.
    pub(in crate::control) fn ask_again(&mut self, now: Time) -> bool {
        self.tell(now, |engine, fx| engine.ask_again(now, fx))
    }

    /// For `query-reservations`; `None`: its guest cannot reserve.
    pub(in crate::control) fn reservation_status(&self) -> Option<ReservationStatus> {
        let lun = self.lun.as_ref()?;
        self.reservations.keeper.as_ref()?;
        let Facts { registered, unsure, held, holder, orders, suspended } =
            self.engine.reservation_facts();
        let word = |is: bool| {
            if unsure {
                "unknown"
            } else if is {
                "set"
            } else {
                "unset"
            }
        };
        let topology = self.engine.topology();
        let path = |path: &Path| RegistrationStatus {
            dev: path.name.clone(),
            registration: path.registration().name().to_owned(),
            barred: path.is_barred(),
        };
        Some(ReservationStatus {
            map: self.name.clone(),
            lun: lun.address.to_string(),
            uuid: self.engine.identity().wwid.clone(),
            prkey: registered.map(|what| what.key.to_string()),
            aptpl: registered.is_some_and(|what| what.aptpl),
            all_tg_pt: registered.is_some_and(|what| what.all_tg_pt),
            prstatus: word(registered.is_some()).to_owned(),
            prhold: word(held.is_some()).to_owned(),
            kind: held.map(|kind| kind.name().to_owned()),
            holder: holder.and_then(|id| self.path_name(id)).map(str::to_owned),
            copies: self.engine.reservation().iter().find(|r| !r.former).map_or(0, |r| r.copies),
            orders,
            suspended,
            saved: !self.reservations.unsaved,
            paths: topology.groups.iter().flat_map(|group| &group.paths).map(path).collect(),
        })
    }

    /// Whether what is to be remembered is on the disk, or could not be written.
    pub(in crate::control) fn is_kept(&self) -> bool {
        self.reservations.kept >= self.reservations.noted
    }

    // --- what the engine asks for -----------------------------------------------

    /// What the fronts know of the guest's registrations, before the guest can
    /// have heard that something has changed.
    pub(super) fn show_own_keys(&self) {
        if let Some(lun) = &self.lun {
            lun.reservation.set(self.engine.reservation());
        }
    }

    pub(super) fn reserve(&mut self, path: PathId, job: u32, ask: Ask) {
        let (table, acknowledged) = (self.generation(), self.queues.acknowledged(self.slot));
        if let Some(asked) = self.reservations.begin((path, job, ask), table, acknowledged) {
            self.send_reserving(asked);
        }
    }

    /// Whether every queue thread works by the table that a path to be registered
    /// waits for.
    pub(in crate::control) fn look_for_entry(&mut self) {
        if self.reservations.entry.is_none() {
            return;
        }
        let acknowledged = self.queues.acknowledged(self.slot);
        if let Some(asked) = self.reservations.entry(acknowledged) {
            self.send_reserving(asked);
        }
    }

    fn send_reserving(&mut self, (path, job, ask): Asked) {
        let now = self.lun.as_ref().map_or(0, |lun| lun.attentions.moment());
        self.reservations.last_seen.asks(job, ask, now);
        self.with_checking(path, |checking| checking.reserve(job, ask));
    }

    /// Remembers which table waits for quiet.
    pub(super) fn note_suspended(&mut self, table: &PathTable) {
        self.reservations.suspended = table.suspended.then_some(table.generation);
    }

    pub(super) fn attention(&self, code: SenseCode) {
        if let Some(lun) = &self.lun {
            lun.attentions.seen(code, self.reservations.last_seen.moment());
        }
    }

    pub(super) fn remember(&mut self, what: Option<Remembered>) {
        if what.is_some() {
            self.reservations.last_seen.registered();
        }
        let Some(keeper) = &self.reservations.keeper else { return };
        let wwid = &self.engine.identity().wwid;
        self.reservations.noted = keeper.remember(self.slot, wwid, what);
    }

    /// Answers the guest, once everything noted before is kept.
    pub(super) fn answer(&mut self, order: OrderId, outcome: Outcome) {
        log::debug!("{}: order {} ended: {outcome:?}", self.name, order.0);
        self.have_all_told();
        if let Some(outcome) = self.reservations.waits_for_note(order, outcome) {
            self.queues.answer(self.slot, order, outcome);
        }
    }

    /// What was noted is kept, or could not be.
    pub(in crate::control) fn kept(&mut self, number: u64, result: Result<(), String>) {
        for (order, outcome) in self.reservations.kept(number) {
            self.queues.answer(self.slot, order, outcome);
        }
        let Some(was_saved) = self.reservations.save(number, result.is_ok()) else { return };
        match result {
            Err(why) if was_saved => self.news.push(events::of_unsaved_key(&why)),
            Ok(()) if !was_saved => self.news.push(events::of_saved_key()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::{InAction, OutAction};

    fn noted(number: u64) -> Reservations {
        Reservations { noted: number, ..Reservations::new(None) }
    }

    #[test]
    fn a_guest_is_answered_when_what_was_noted_before_is_on_the_disk_and_no_sooner() {
        let mut reservations = noted(0);
        assert_eq!(reservations.waits_for_note(OrderId(1), Outcome::Good), Some(Outcome::Good));
        reservations.noted = 7;
        assert_eq!(reservations.waits_for_note(OrderId(2), Outcome::Good), None);
        reservations.noted = 9;
        assert_eq!(reservations.waits_for_note(OrderId(3), Outcome::NoPath), None);
        assert_eq!(reservations.kept(6), [], "of another map");
        assert_eq!(reservations.kept(7), [(OrderId(2), Outcome::Good)]);
        assert_eq!(reservations.kept(9), [(OrderId(3), Outcome::NoPath)]);
        assert_eq!(reservations.waits_for_note(OrderId(4), Outcome::Good), Some(Outcome::Good));
    }

    #[test]
    fn a_later_note_that_is_kept_answers_for_the_earlier_ones_too() {
        let mut reservations = noted(1);
        reservations.waits_for_note(OrderId(1), Outcome::Good);
        reservations.noted = 2;
        reservations.waits_for_note(OrderId(2), Outcome::Good);
        assert_eq!(reservations.kept(2).len(), 2);
        assert_eq!(reservations.kept(2).len(), 0);
    }

    #[test]
    fn a_path_is_registered_once_every_queue_thread_has_the_table_and_other_commands_at_once() {
        let path = PathId { slot: 1, generation: 0 };
        let ask = |action, key, new| Ask::Out(Out::new(action, key, new));
        let entry = (path, 7, ask(OutAction::RegisterAndIgnore, Key::NONE, Key(1)));
        let mut reservations = Reservations::new(None);
        assert_eq!(reservations.begin(entry, 5, 5), Some(entry), "they all have it");
        assert_eq!(reservations.begin(entry, 6, 5), None);
        assert_eq!(reservations.entry(5), None);
        assert_eq!(reservations.entry(6), Some(entry));
        assert_eq!(reservations.entry(7), None, "once");
        let removal = ask(OutAction::RegisterAndIgnore, Key::NONE, Key::NONE);
        for other in [removal, ask(OutAction::Register, Key(1), Key(1))] {
            let other = (path, 8, other);
            assert_eq!(reservations.begin(other, 9, 6), Some(other), "it brings nothing back");
        }
        // One that the engine has given up is not sent after the next.
        assert_eq!(reservations.begin(entry, 9, 6), None);
        let other = (path, 9, Ask::In(InAction::ReadKeys));
        assert_eq!(reservations.begin(other, 9, 6), Some(other));
        assert_eq!(reservations.entry(9), None);
    }

    #[test]
    fn that_a_key_is_not_saved_is_told_once_and_so_is_its_end() {
        let mut reservations = noted(3);
        assert_eq!(reservations.save(2, false), None, "there is a newer one");
        assert_eq!(reservations.save(3, false), Some(true));
        assert_eq!(reservations.save(3, false), Some(false));
        reservations.noted = 4;
        assert_eq!(reservations.save(4, true), Some(false));
        assert_eq!(reservations.save(4, true), Some(true));
    }
}
