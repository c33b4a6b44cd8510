//! Unit attentions of one LU as one guest is to hear them (SPC-5 5.14).
//!
//! An array tells of an event once per I_T nexus, so a map hears of it once
//! per path; the guest, which sees one nexus, hears of it once. An *epoch* per
//! additional sense code says who has told: the first path opens it and its
//! word goes to the guest; a path that has not told yet in that epoch repeats
//! what the guest knows; one that has tells of a new event. So does one that
//! had nothing to tell when the epoch began: it has joined, or lost what it had
//! to tell with its nexus, and was proven since ([`Attentions::drained`]); but
//! not a command of it that is older than that proof. An event of our own
//! begins an epoch as well; what a path may still have to tell from before, it
//! tells besides. Not here: what a unit attention means for a path (that is `mpath::classify`).
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
/// Most epochs before the present one of a code, of which paths may still have
/// to tell.
const MAX_PAST: usize = 8;

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
    /// When the guest last had news of a change of parameters or reservations
    /// (2A): they outlive the epochs that its own commands begin.
    news: Vec<((u8, u8), u64)>,
}

#[derive(Debug)]
struct Epoch {
    code: (u8, u8),
    /// When it began.
    since: u64,
    told_by: VecDeque<Teller>,
    /// The command that causes it is out: that a path has nothing to tell says
    /// nothing yet.
    open: bool,
    /// It is our own doing, since then.
    own: Option<u64>,
    /// Epochs of this code that our own one has followed, oldest first: a path that
    /// has not told in one of them tells of that as well.
    past: Vec<Epoch>,
}

/// An event that is our own doing ([`Attentions::expect_of_others`]).
#[derive(Debug)]
#[must_use]
pub struct Expected {
    code: SenseCode,
    /// The path that tells nothing of it.
    silent: u64,
    since: u64,
}

/// A path that has told in an epoch, or had nothing to tell of it.
#[derive(Debug)]
struct Teller {
    path: u64,
    /// It had nothing to tell at this time: what was sent before may have
    /// told of the epoch itself.
    drained: Option<u64>,
    more: More,
    /// When the command was sent by which it has told.
    sent: u64,
}

/// What a path that has told may still have to tell, and is no other event. A
/// command that was out when our own event was about to be caused tells of that,
/// or of what was before; so does one that was out at a reservation's release,
/// of which the guest rather hears once for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Nothing,
    /// It was such a command that told.
    Once,
    /// It was a later one: an earlier one may come back yet.
    ByEarlierCommand,
}

impl State {
    /// A new epoch of a code that has none.
    fn begin(&mut self, code: (u8, u8), since: u64, told_by: VecDeque<Teller>) {
        if self.epochs.len() == MAX_EPOCHS {
            self.epochs.pop_front();
        }
        let past = Vec::new();
        self.epochs.push_back(Epoch { code, since, told_by, open: false, own: None, past });
    }

    /// The epoch that began with that event of our own.
    fn expected(&mut self, Expected { code, since, .. }: &Expected) -> Option<&mut Epoch> {
        let code = (code.asc, code.ascq);
        let epoch = self.epochs.iter_mut().find(|epoch| epoch.code == code)?;
        if epoch.own == Some(*since) {
            return Some(epoch);
        }
        epoch.past.iter_mut().find(|past| past.own == Some(*since))
    }

    fn is_news(&mut self, code: (u8, u8), now: u64) {
        if code.0 == SenseCode::REGISTRATIONS_PREEMPTED.asc {
            self.news.retain(|(other, _)| *other != code);
            self.news.push((code, now));
        }
    }
}

impl Epoch {
    fn told_by(&mut self, path: u64, drained: Option<u64>) {
        if self.told_by.len() == MAX_TELLERS {
            self.told_by.pop_front();
        }
        self.told_by.push_back(Teller { path, drained, more: More::Nothing, sent: 0 });
    }

    /// The path has nothing to tell at `moment`.
    fn drained(&mut self, path: u64, moment: u64) {
        let told = self.told_by.iter().any(|t| t.path == path);
        if self.open && told {
            // Should it not happen, that was of what was before.
            return;
        }
        if self.since < moment && !self.open && !told {
            self.told_by(path, Some(moment));
        }
        self.past.iter_mut().for_each(|past| past.drained(path, moment));
    }

    /// It follows what was before.
    fn follows(&mut self, before: Option<Epoch>) {
        let Some(mut before) = before else { return };
        self.past = std::mem::take(&mut before.past);
        self.past.push(before);
        if self.past.len() > MAX_PAST {
            self.past.remove(0);
        }
    }

    /// What was before, as it would be without this.
    fn before(&mut self) -> Option<Epoch> {
        let mut before = self.past.pop()?;
        before.past = std::mem::take(&mut self.past);
        Some(before)
    }

    /// Takes what a path tells by a command sent at `sent` for that of an event
    /// before this one, if it has not told of all.
    fn was_before(&mut self, path: u64, sent: u64) -> bool {
        let told = |t: &Teller| t.path == path && t.drained.is_none_or(|at| at <= sent);
        let before = self.past.iter_mut().find(|past| !past.told_by.iter().any(told));
        before.map(|past| past.told_by(path, None)).is_some()
    }

    /// Commands sent before that may tell of what was before ([`More`]).
    fn own_since(&self) -> Option<u64> {
        let released = SenseCode::RESERVATIONS_RELEASED;
        let released = self.code == (released.asc, released.ascq);
        self.own.or(released.then_some(self.since))
    }

    /// The same of what met the unit attention, by a command sent at `sent`.
    fn tells(&mut self, path: u64, sent: u64) {
        let more = match self.own_since() {
            Some(since) if sent < since => More::Once,
            Some(_) => More::ByEarlierCommand,
            None => More::Nothing,
        };
        self.told_by(path, None);
        let its = self.told_by.iter_mut().filter(|t| t.path == path);
        its.for_each(|t| (t.more, t.sent) = (more, sent));
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
        state.epochs.iter_mut().for_each(|epoch| epoch.drained(path, moment));
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

    /// The guest is about to cause an event by a command that `path` carries:
    /// the LU tells every other nexus of it, and the guest knows. What `path`
    /// itself tells is somebody else's doing, and news, unless it was known
    /// before.
    pub fn expect_of_others(&self, path: u64, code: SenseCode) -> Expected {
        let mut state = self.lock();
        let is_it = |epoch: &Epoch| epoch.code == (code.asc, code.ascq);
        let before = state.epochs.iter().position(is_it);
        let before = before.and_then(|at| state.epochs.remove(at));
        let since = self.tick();
        // News whenever it was sent.
        let silent = Teller { path, drained: Some(0), more: More::Nothing, sent: 0 };
        state.begin((code.asc, code.ascq), since, VecDeque::from([silent]));
        if let Some(epoch) = state.epochs.back_mut() {
            (epoch.open, epoch.own) = (true, Some(since));
            epoch.follows(before);
        }
        Expected { code, silent: path, since }
    }

    /// It has happened, or may have: a path that is found from now on to have
    /// nothing to tell will not tell of it.
    #[allow(clippy::needless_pass_by_value)] // it is said once
    pub fn has_happened(&self, expected: Expected) {
        let mut state = self.lock();
        let now = self.tick();
        if let Some(epoch) = state.expected(&expected) {
            (epoch.open, epoch.since) = (false, now);
        }
    }

    /// It has not happened: what was told of it meanwhile was of something
    /// else, which the guest hears as if nothing had been expected.
    #[allow(clippy::needless_pass_by_value)] // it is said once
    pub fn has_not_happened(&self, expected: Expected) {
        let Expected { code, silent, since } = expected;
        let mut state = self.lock();
        let its = |epoch: &Epoch| epoch.code == (code.asc, code.ascq);
        let Some(at) = state.epochs.iter().position(its) else { return };
        if state.epochs[at].since != since {
            // Another event has begun an epoch since, as news or as our own.
            let epoch = &mut state.epochs[at];
            epoch.open &= epoch.own != Some(since);
            return epoch.past.retain(|past| past.own != Some(since));
        }
        let Some(mut epoch) = state.epochs.remove(at) else { return };
        state.epochs.extend(epoch.before());
        let sense = Sense::fixed(code);
        let has_told = |teller: &Teller| teller.path != silent;
        for Teller { path, drained, sent, .. } in epoch.told_by.into_iter().filter(has_told) {
            match (drained, state.epochs.iter_mut().find(|epoch| its(epoch))) {
                (None, _) => {
                    if self.hear(&mut state, path, sent, &sense) == Hearing::News {
                        self.queue(&mut state, sense);
                    }
                }
                (Some(_), Some(epoch)) if !epoch.told_by.iter().any(|t| t.path == path) => {
                    epoch.told_by(path, drained);
                }
                (Some(_), _) => {}
            }
        }
    }

    /// An event that was seen otherwise, and happened after `since`
    /// ([`Attentions::moment`]): the guest is to hear of it unless a path has
    /// told of it already, be it in the other words that an LU has for the loss
    /// of a registration (CLEAR); what paths tell from now on is known.
    pub fn seen(&self, code: SenseCode, since: u64) {
        let mut state = self.lock();
        let (lost, cleared) =
            (SenseCode::REGISTRATIONS_PREEMPTED, SenseCode::RESERVATIONS_PREEMPTED);
        let says_it = |said: (u8, u8)| {
            said == (code.asc, code.ascq) || (code == lost && said == (cleared.asc, cleared.ascq))
        };
        if state.news.iter().any(|(said, at)| says_it(*said) && *at > since) {
            return;
        }
        let now = self.tick();
        let words = [code, cleared];
        for word in &words[..if code == lost { 2 } else { 1 }] {
            let word = (word.asc, word.ascq);
            state.epochs.retain(|epoch| epoch.code != word);
            state.begin(word, now, VecDeque::new());
        }
        state.is_news((code.asc, code.ascq), now);
        self.queue(&mut state, Sense::fixed(code));
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
            let earlier = epoch.own_since().is_some_and(|since| sent < since);
            let has_told = epoch.told_by.iter().any(|t| t.path == path);
            let was_before = has_told && epoch.was_before(path, sent);
            let teller = epoch.told_by.iter_mut().find(|t| t.path == path);
            let news = teller.map(|t| {
                let has_more = was_before
                    || t.more == More::Once
                    || (t.more == More::ByEarlierCommand && earlier);
                if has_more {
                    t.more = More::Nothing;
                }
                !has_more && t.drained.is_none_or(|at| at <= sent)
            });
            if news == Some(true) {
                epoch.told_by.clear();
                epoch.since = self.tick();
            }
            if news != Some(false) {
                epoch.tells(path, sent);
            }
            if news == Some(true) {
                state.is_news(code, self.tick());
            }
            return if news == Some(true) { Hearing::News } else { Hearing::Known };
        }
        if self.joined {
            let told_by =
                VecDeque::from([Teller { path, drained: None, more: More::Nothing, sent }]);
            state.begin(code, self.tick(), told_by);
        }
        state.is_news(code, self.tick());
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
mod tests;
