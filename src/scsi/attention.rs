//! Unit attentions of one LU as one guest is to hear them (SPC-5 5.14).
//!
//! An array tells of an event once per I_T nexus, so a map hears of it once
//! per path; the guest, which sees one nexus, hears of it once. An *epoch* per
//! additional sense code says who has told: the first path opens it and its
//! word goes to the guest; a path that has not told yet in that epoch repeats
//! what the guest knows; one that has tells of a new event. So does one that
//! had nothing to tell when the epoch began: it has joined, or lost what it had
//! to tell with its nexus, and was proven since ([`Attentions::drained`]); but
//! not a command of it that is older than that proof. Not here: what a unit attention means for a path (that is `mpath::classify`).
//!
//! Shared by the queue threads, the control thread and the checking threads.
//! In the good path it costs one load ([`Attentions::is_pending`]); the lock
//! is taken only when there is a unit attention.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scsi::sense::{Key, Sense, SenseCode};

/// Most unit attentions waiting for the guest; of more the oldest are lost, as
/// SAM-5 5.14 allows a target.
const MAX_PENDING: usize = 32;
/// Most epochs and most paths remembered in one; the oldest are forgotten,
/// which at worst tells the guest twice.
const MAX_EPOCHS: usize = 64;
const MAX_TELLERS: usize = 256;

/// Events that concern a path's way to the LU, not the LU: asymmetric access
/// state transition, asymmetric access state changed, implicit transition failed, I_T nexus loss, reported LUNs
/// changed (our target's inventory is our own).
const OURS: &[(u8, u8)] = &[(0x04, 0x0a), (0x2a, 0x06), (0x2a, 0x07), (0x29, 0x07), (0x3f, 0x0e)];

/// What is to become of a unit attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// The guest has not heard of it.
    News,
    /// The guest knows, or need not: the command that met it is issued again.
    Known,
}

/// See the module.
#[derive(Debug)]
pub struct Attentions {
    /// Paths are joined to one LU; otherwise what a path says is for the guest.
    joined: bool,
    pending: AtomicBool,
    /// Counts beginnings of epochs and proofs of paths.
    clock: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Sense>,
    epochs: VecDeque<Epoch>,
}

#[derive(Debug)]
struct Epoch {
    code: (u8, u8),
    /// When it began.
    since: u64,
    told_by: VecDeque<Teller>,
}

/// A path that has told in an epoch, or had nothing to tell of it.
#[derive(Debug)]
struct Teller {
    path: u64,
    /// It had nothing to tell at this time: what was sent before may have
    /// told of the epoch itself.
    drained: Option<u64>,
}

impl State {
    /// A new epoch of a code that has none.
    fn begin(&mut self, code: (u8, u8), since: u64, told_by: VecDeque<Teller>) {
        if self.epochs.len() == MAX_EPOCHS {
            self.epochs.pop_front();
        }
        self.epochs.push_back(Epoch { code, since, told_by });
    }
}

impl Epoch {
    fn told_by(&mut self, path: u64, drained: Option<u64>) {
        if self.told_by.len() == MAX_TELLERS {
            self.told_by.pop_front();
        }
        self.told_by.push_back(Teller { path, drained });
    }
}

impl Attentions {
    /// Nothing has happened yet. `joined`: the guest sees one LU, not paths.
    pub fn new(joined: bool) -> Attentions {
        let (pending, clock) = (AtomicBool::new(false), AtomicU64::new(0));
        Attentions { joined, pending, clock, state: Mutex::default() }
    }

    /// The time, for [`Attentions::met`].
    #[inline]
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Acquire)
    }

    /// A guest's command that was sent at `sent` met a unit attention by `path`
    /// (any number that is never used for another path). With
    /// [`Hearing::News`] that command carries it to the guest.
    pub fn met(&self, path: u64, sent: u64, sense: &Sense) -> Hearing {
        self.hear(&mut self.lock(), path, sent, sense)
    }

    /// A command that no guest will see the end of met a unit attention: a
    /// check, a proof, a retry. News wait for the guest's next command.
    pub fn overheard(&self, path: u64, sense: &Sense) {
        self.overheard_since(path, u64::MAX, sense);
    }

    /// The same of a command sent at `sent`, where the path may have been
    /// proven while it was out.
    pub fn overheard_since(&self, path: u64, sent: u64, sense: &Sense) {
        let mut state = self.lock();
        if self.hear(&mut state, path, sent, sense) == Hearing::News {
            self.queue(&mut state, *sense);
        }
    }

    /// A command that meets every unit attention is about to be sent; for
    /// [`Attentions::drained`].
    pub fn moment(&self) -> u64 {
        self.tick()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A command that was sent by `path` after `moment`, and would have met a
    /// unit attention, met none: the path had nothing left to tell of what had
    /// happened before. To be said of every path that joins or is proven.
    pub fn drained(&self, path: u64, moment: u64) {
        let mut state = self.lock();
        for epoch in state.epochs.iter_mut().filter(|e| e.since < moment) {
            if !epoch.told_by.iter().any(|t| t.path == path) {
                epoch.told_by(path, Some(moment));
            }
        }
    }

    /// What was expected has not happened.
    pub fn expect_no_more(&self, code: SenseCode) {
        self.lock().epochs.retain(|epoch| epoch.code != (code.asc, code.ascq));
    }

    /// Something of our own to tell: the LU was reset for this guest, its
    /// inventory has changed.
    pub fn raise(&self, sense: &Sense) {
        self.queue(&mut self.lock(), *sense);
    }

    /// We are about to cause an event of which the guest is told otherwise
    /// ([`Attentions::raise`]): what each path tells of it is known.
    pub fn expect(&self, code: SenseCode) {
        let mut state = self.lock();
        let code = (code.asc, code.ascq);
        state.epochs.retain(|epoch| epoch.code != code);
        state.begin(code, self.tick(), VecDeque::new());
    }

    /// Whether the guest's next command has something to carry.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The oldest that waits, for the command that carries it.
    pub fn take(&self) -> Option<Sense> {
        let mut state = self.lock();
        let sense = state.pending.pop_front();
        self.pending.store(!state.pending.is_empty(), Ordering::Release);
        sense
    }

    /// What waited with this code need not be carried any more: the guest has
    /// learnt of it by other means (REPORT LUNS clears 06/3F/0E).
    pub fn forget(&self, code: SenseCode) {
        if !self.is_pending() {
            return;
        }
        let mut state = self.lock();
        state.pending.retain(|sense| sense.code() != Some(code));
        self.pending.store(!state.pending.is_empty(), Ordering::Release);
    }

    fn hear(&self, state: &mut State, path: u64, sent: u64, sense: &Sense) -> Hearing {
        let Some(code) = sense.code().filter(|c| c.key == Key::UnitAttention) else {
            return Hearing::News;
        };
        let code = (code.asc, code.ascq);
        if self.joined && OURS.contains(&code) {
            return Hearing::Known;
        }
        // Of paths that are not joined there are only those that were expected.
        if let Some(epoch) = state.epochs.iter_mut().find(|e| e.code == code) {
            let teller = epoch.told_by.iter_mut().find(|t| t.path == path);
            let news = teller.map(|t| t.drained.is_none_or(|at| at <= sent));
            if news == Some(true) {
                epoch.told_by.clear();
                epoch.since = self.tick();
            }
            if news != Some(false) {
                epoch.told_by(path, None);
            }
            return if news == Some(true) { Hearing::News } else { Hearing::Known };
        }
        if self.joined {
            let told_by = VecDeque::from([Teller { path, drained: None }]);
            state.begin(code, self.tick(), told_by);
        }
        Hearing::News
    }

    fn queue(&self, state: &mut State, sense: Sense) {
        if state.pending.iter().any(|s| s.code() == sense.code()) {
            return;
        }
        if state.pending.len() == MAX_PENDING {
            state.pending.pop_front();
        }
        state.pending.push_back(sense);
        self.pending.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = u64::MAX;

    fn ua(asc: u8, ascq: u8) -> Sense {
        Sense::fixed(SenseCode::new(Key::UnitAttention, asc, ascq))
    }

    #[test]
    fn an_event_told_by_every_path_is_news_once() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x00)), Hearing::News);
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x00)), Hearing::Known);
        assert_eq!(attentions.met(3, NOW, &ua(0x29, 0x00)), Hearing::Known);
        assert!(!attentions.is_pending());
    }

    #[test]
    fn a_path_that_tells_again_tells_of_another_event() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::Known);
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::News);
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::Known);
    }

    #[test]
    fn a_path_that_had_nothing_left_to_tell_tells_of_another_event() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
        // Another path joins, the first one leaves, and something happens.
        attentions.drained(2, attentions.moment());
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::News);
    }

    #[test]
    fn a_path_that_was_proven_before_an_event_may_still_have_to_tell_of_it() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
        let moment = attentions.moment();
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
        attentions.drained(2, moment);
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::Known);
    }

    #[test]
    fn a_command_older_than_the_proof_of_its_path_tells_of_no_other_event() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, 0, &ua(0x2a, 0x01)), Hearing::News);
        let sent = attentions.now();
        attentions.drained(2, attentions.moment());
        assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x01)), Hearing::Known);
        let sent = attentions.now();
        assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x01)), Hearing::News);
    }

    #[test]
    fn what_is_expected_is_known_from_every_path_and_no_news_is_lost() {
        let attentions = Attentions::new(true);
        attentions.expect(SenseCode::LU_RESET);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::Known);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
        attentions.expect(SenseCode::LU_RESET);
        attentions.expect_no_more(SenseCode::LU_RESET);
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
    }

    #[test]
    fn what_the_array_was_made_to_tell_is_known_once_from_every_path() {
        for joined in [true, false] {
            let attentions = Attentions::new(joined);
            assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
            let before = attentions.moment();
            attentions.expect(SenseCode::LU_RESET);
            // A check that began before says nothing of what comes after.
            attentions.drained(3, before);
            for path in [1, 2, 3] {
                assert_eq!(attentions.met(path, NOW, &ua(0x29, 0x03)), Hearing::Known);
            }
            assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
            attentions.expect(SenseCode::LU_RESET);
            attentions.drained(2, attentions.moment());
            assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News, "of another reset");
            attentions.expect(SenseCode::LU_RESET);
            attentions.expect_no_more(SenseCode::LU_RESET);
            assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
        }
    }

    #[test]
    fn events_of_different_codes_do_not_hide_each_other() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x09)), Hearing::News);
    }

    #[test]
    fn what_a_check_met_waits_for_the_guest() {
        let attentions = Attentions::new(true);
        attentions.overheard(1, &ua(0x2a, 0x09));
        assert!(attentions.is_pending());
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x09)), Hearing::Known);
        assert_eq!(attentions.take(), Some(ua(0x2a, 0x09)));
        assert!(!attentions.is_pending());
        assert_eq!(attentions.take(), None);
    }

    #[test]
    fn what_concerns_a_path_is_kept_from_the_guest_unless_it_sees_paths() {
        for &(asc, ascq) in OURS {
            assert_eq!(Attentions::new(true).met(1, NOW, &ua(asc, ascq)), Hearing::Known);
            assert_eq!(Attentions::new(false).met(1, NOW, &ua(asc, ascq)), Hearing::News);
        }
    }

    #[test]
    fn one_that_waits_already_is_not_queued_twice() {
        let attentions = Attentions::new(true);
        attentions.raise(&ua(0x3f, 0x0e));
        attentions.raise(&ua(0x3f, 0x0e));
        assert!(attentions.take().is_some());
        assert!(attentions.take().is_none());
    }

    #[test]
    fn what_the_guest_learnt_otherwise_is_forgotten_and_nothing_else() {
        let attentions = Attentions::new(true);
        let luns_changed = SenseCode::new(Key::UnitAttention, 0x3f, 0x0e);
        attentions.raise(&ua(0x3f, 0x0e));
        attentions.raise(&ua(0x29, 0x03));
        attentions.forget(luns_changed);
        assert!(attentions.is_pending());
        assert_eq!(attentions.take(), Some(ua(0x29, 0x03)));
        attentions.raise(&ua(0x3f, 0x0e));
        attentions.forget(luns_changed);
        assert!(!attentions.is_pending());
        assert_eq!(attentions.take(), None);
    }

    #[test]
    fn what_we_caused_ourselves_is_known_from_every_path_once() {
        let attentions = Attentions::new(true);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
        for _ in 0..2 {
            attentions.expect(SenseCode::LU_RESET);
            assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
            assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::Known);
        }
        // Somebody else's.
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
    }
}
