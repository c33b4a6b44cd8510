//! How a task about reservations is written: as a function that reads from top
//! to bottom, though the paths answer at some later time.
//!
//! Each call of a [`Script`] that depends on anything but earlier answers is
//! recorded: what was asked and answered, which paths there were, what was
//! known, what was done. When an answer comes the function runs from its
//! beginning again; what is recorded is not done a second time. The first call
//! whose answer is still to come ends the run ([`Wait`]). Hence the one rule:
//! a task reads and changes the engine by its script only.

use std::time::Duration;

use super::{Answer, Ask, Registration, State, Suspension};
use crate::io::{Completion, Outcome, Time};
use crate::mpath::Multipath;
use crate::mpath::classify::{
    Disposition, Executed, Next, classify, is_word_of_lu, unit_attention,
};
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::path::{Outstanding, Path};
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, InAction, Key, Numbered, Out, OutAction, keys, reservation};
use crate::scsi::sense::{self, Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

/// An answer is awaited.
#[derive(Debug)]
pub(super) struct Wait;

/// What a task's function returns.
pub(super) type Go<T> = Result<T, Wait>;

/// What was read, and by which path.
pub(super) type Found<T> = Result<(PathId, T), Unsettled>;

/// What a path said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Done; with what was read.
    Good(Vec<u8>),
    /// RESERVATION CONFLICT, as the LU said it.
    Conflict(Outcome),
    /// The LU's refusal, or an error of our own: every path would say so.
    Refused(Outcome),
    /// Not by this path, or not now: another may do it.
    Lost {
        /// It may have been executed.
        maybe: bool,
        /// What the LU said, if it did.
        said: Option<Outcome>,
    },
}

impl Word {
    /// What an answer means, and what follows for the path.
    pub(super) fn of(answer: &Answer) -> (Word, Disposition) {
        let completion = &answer.completion;
        let disposition = classify(completion);
        let lu = match *completion {
            Completion::Scsi { status, sense, residual, .. } => {
                Some(Outcome::Lu { status, sense, residual })
            }
            _ => None,
        };
        let good = match completion {
            Completion::Good | Completion::Short(_) => true,
            Completion::Scsi { status, host, .. } => {
                *status == Status::GOOD && *host == HostByte::OK
            }
            Completion::Errno { .. } => false,
        };
        let attention = unit_attention(completion).is_some();
        let maybe = disposition.executed == Executed::Maybe && !attention;
        let said = lu.filter(|_| is_word_of_lu(completion) && !attention);
        let lost = Word::Lost { maybe, said };
        let word = match (disposition.next, *completion) {
            _ if good => {
                // Less than asked for is what an allocation length is for.
                let data = answer.data.clone();
                return (Word::Good(data), classify(&Completion::Good));
            }
            _ if disposition.is_conflict() => Word::Conflict(conflict(lu)),
            _ if attention => lost,
            (Next::Done, _) => Word::Good(answer.data.clone()),
            (Next::Deliver, _) if is_final(completion) => lu.map_or(lost, Word::Refused),
            (Next::Own, Completion::Errno { code, .. }) => Word::Refused(Outcome::Host(code)),
            _ => lost,
        };
        (word, disposition)
    }
}

/// Whether the LU has refused the command itself, so that every path would say
/// the same; what else it may say (a hardware error, a command aborted) another
/// path may do better.
fn is_final(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, sense, .. } => {
            sense.code().is_some_and(|code| {
                matches!(code.key, sense::Key::IllegalRequest | sense::Key::DataProtect)
            })
        }
        _ => true,
    }
}

/// RESERVATION CONFLICT, though the host's kernel may have a word of its own
/// for it.
fn conflict(lu: Option<Outcome>) -> Outcome {
    let status = Status::RESERVATION_CONFLICT;
    match lu {
        Some(Outcome::Lu { sense, residual, .. }) => Outcome::Lu { status, sense, residual },
        _ => Outcome::Lu { status, sense: Sense::EMPTY, residual: 0 },
    }
}

/// One call of a script.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Asked { path: PathId, job: u32, ask: Ask },
    Answered(Word),
    Paths(Vec<PathId>),
    State(State),
    Keys(Vec<Key>),
    Quieting,
    Quiet(bool),
    Said(bool),
    Done,
}

/// BUSY: nothing was done, the guest may try again.
pub(super) const BUSY: Outcome =
    Outcome::Lu { status: Status::BUSY, sense: Sense::EMPTY, residual: 0 };

/// CHECK CONDITION.
pub(super) fn check(code: SenseCode) -> Outcome {
    Outcome::Lu { status: Status::CHECK_CONDITION, sense: Sense::fixed(code), residual: 0 }
}

/// What paths said that did not settle a matter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsettled {
    /// RESERVATION CONFLICT.
    pub(super) conflict: Option<Outcome>,
    /// One of them may have done it.
    pub(super) maybe: bool,
    /// The same, and the LU has not said a word.
    silent: bool,
    /// The LU's refusal of the command itself.
    pub(super) refused: bool,
    said: Option<Outcome>,
}

impl Unsettled {
    pub(super) fn take(&mut self, word: &Word) {
        match *word {
            Word::Good(_) => {}
            Word::Conflict(outcome) => self.conflict = Some(outcome),
            Word::Refused(outcome) => (self.refused, self.said) = (true, Some(outcome)),
            Word::Lost { maybe, said } => {
                self.maybe |= maybe;
                self.silent |= maybe && said.is_none();
                self.said = self.said.or(said);
            }
        }
    }

    /// Of what may be ordered again without harm: that it may have been done
    /// does not matter.
    pub(super) fn harmless(self) -> Unsettled {
        Unsettled { maybe: false, silent: false, ..self }
    }

    /// Nothing was done, for the LU is not ready by these paths: its target
    /// port groups are in transition, say.
    pub(super) fn is_unready(&self) -> bool {
        let said = match self.said {
            Some(Outcome::Lu { sense, .. }) => sense.code(),
            _ => None,
        };
        let not_ready = said.is_some_and(|code| code.key == sense::Key::NotReady);
        not_ready && !self.maybe && self.conflict.is_none()
    }

    /// What the guest is told; `None`: it has not been executed, and nobody
    /// has said why.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            // As every command that is not repeated blindly (law 3).
            _ if self.silent => Some(check(SenseCode::IO_PROCESS_TERMINATED)),
            _ => self.conflict.or(self.said),
        }
    }
}

/// See the module.
pub(super) struct Script<'a> {
    map: &'a mut Multipath,
    log: &'a mut Vec<Entry>,
    at: usize,
    now: Time,
    fx: &'a mut Effects,
}

impl<'a> Script<'a> {
    pub(super) fn new(
        map: &'a mut Multipath,
        log: &'a mut Vec<Entry>,
        now: Time,
        fx: &'a mut Effects,
    ) -> Script<'a> {
        Script { map, log, at: 0, now, fx }
    }

    /// The record of this call, made by `make` if it is the first time.
    fn record(&mut self, make: impl FnOnce(&mut Multipath, Time, &mut Effects) -> Entry) -> Entry {
        let at = self.at;
        self.at += 1;
        if at == self.log.len() {
            let entry = make(self.map, self.now, self.fx);
            self.log.push(entry);
        }
        self.log[at].clone()
    }

    // --- asking -------------------------------------------------------------------

    /// Has a path carry out a command. One that cannot be asked is as one that
    /// has failed.
    pub(super) fn ask(&mut self, path: PathId, ask: Ask) -> Go<Word> {
        let entry = self.record(|map, now, fx| {
            map.numbers = map.numbers.wrapping_add(1);
            let job = map.numbers;
            match map.path_mut(path).filter(|p| Multipath::is_askable(p)) {
                Some(asked) => {
                    asked.nexus.job = Some(Outstanding { number: job, since: now, late: false });
                    fx.push(Effect::Reserve { path, job, ask });
                    Entry::Asked { path, job, ask }
                }
                None => Entry::Answered(Word::Lost { maybe: false, said: None }),
            }
        });
        match entry {
            Entry::Answered(word) => Ok(word),
            _ => Err(Wait),
        }
    }

    pub(super) fn out(&mut self, path: PathId, out: Out) -> Go<Word> {
        let word = self.ask(path, Ask::Out(out))?;
        // (SPC-5 6.16.2: RESERVE and RELEASE do not count. What registers a path is what is
        // looked for, and what removes nothing may count or not.)
        let counts = !matches!(
            out.action,
            OutAction::Reserve | OutAction::Release | OutAction::RegisterAndIgnore
        );
        if counts && matches!(word, Word::Good(_)) {
            self.once(|map, _| map.generated());
        }
        Ok(word)
    }

    /// How often each key is registered, as the first of these paths says that
    /// answers, and which it was.
    pub(super) fn keys(&mut self, paths: &[PathId]) -> Go<Result<(PathId, Vec<Key>), Unsettled>> {
        let found = self.registrations(paths)?;
        Ok(found.map(|(path, keys)| (path, keys.what)))
    }

    /// The same with PRGENERATION.
    pub(super) fn registrations(&mut self, paths: &[PathId]) -> Go<Found<Numbered<Vec<Key>>>> {
        let answer = self.read(paths, InAction::ReadKeys, |data| keys(data).ok())?;
        if let Ok((_, keys)) = &answer {
            self.once(|map, _| {
                map.listed(&keys.what);
                map.vouch(keys);
            });
        }
        Ok(answer)
    }

    /// Who holds the LU, likewise.
    pub(super) fn held(
        &mut self,
        paths: &[PathId],
    ) -> Go<Result<(PathId, Option<Held>), Unsettled>> {
        let read = |data: &[u8]| reservation(data).ok().map(|held| held.what);
        let answer = self.read(paths, InAction::ReadReservation, read)?;
        if let Ok((_, Some(held))) = answer {
            self.once(|map, fx| map.noticed(held, fx));
        }
        Ok(answer)
    }

    fn read<T>(
        &mut self,
        paths: &[PathId],
        action: InAction,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Go<Result<(PathId, T), Unsettled>> {
        let mut unsettled = Unsettled::default();
        for &path in paths {
            let word = self.ask(path, Ask::In(action))?;
            if let Word::Good(data) = &word {
                if let Some(what) = read(data) {
                    return Ok(Ok((path, what)));
                }
            }
            unsettled.take(&word);
        }
        Ok(Err(unsettled))
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn polling_interval(&self) -> Duration {
        self.map.policy.polling_interval
    }

    pub(super) fn checker_timeout(&self) -> Duration {
        self.map.policy.checker_timeout
    }

    // --- what is known --------------------------------------------------------------

    pub(super) fn state(&mut self) -> State {
        match self.record(|map, _, _| Entry::State(map.reservations.state)) {
            Entry::State(state) => state,
            _ => State::default(),
        }
    }

    /// Keys that the guest had before, and the array may list.
    pub(super) fn former_keys(&mut self) -> Vec<Key> {
        let entry = self.record(|map, _, _| {
            let all = map.reservation().into_iter();
            Entry::Keys(all.filter(|of| of.former).map(|of| of.key).collect())
        });
        match entry {
            Entry::Keys(keys) => keys,
            _ => Vec::new(),
        }
    }

    /// Whether something is so.
    pub(super) fn is(&mut self, so: impl FnOnce(&Multipath) -> bool) -> bool {
        matches!(self.record(|map, _, _| Entry::Said(so(map))), Entry::Said(true))
    }

    /// Paths that can be asked and of which `which` is true: who holds the
    /// reservation first, then those that are registered, then those that
    /// carry I/O.
    pub(super) fn paths(&mut self, which: impl Fn(&Path) -> bool) -> Vec<PathId> {
        let entry = self.record(|map, _, _| {
            let holder = map.reservations.state.holder;
            let order = map.order.iter().filter_map(|&s| map.paths[usize::from(s)].as_ref());
            let mut paths: Vec<&Path> =
                order.filter(|p| Multipath::is_askable(p) && which(p)).collect();
            paths.sort_by_key(|p| {
                let registered = p.nexus.registration == Registration::Registered;
                (holder != Some(p.id), !registered, !p.standing.carries(p.access))
            });
            Entry::Paths(paths.iter().map(|p| p.id).collect())
        });
        match entry {
            Entry::Paths(paths) => paths,
            _ => Vec::new(),
        }
    }

    /// Every path that can be asked.
    pub(super) fn all(&mut self) -> Vec<PathId> {
        self.paths(|_| true)
    }

    /// Those by which nothing has come too late: what a ghost has may be from after
    /// the guest was preempted, and whatever it does by that brings the guest back.
    pub(super) fn trusted(&mut self) -> Vec<PathId> {
        self.paths(|p| !p.nexus.ghost)
    }

    /// Those that are registered.
    pub(super) fn registered(&mut self) -> Vec<PathId> {
        self.paths(|p| p.nexus.registration == Registration::Registered)
    }

    // --- doing --------------------------------------------------------------------

    /// Does something to the engine, once.
    pub(super) fn once(&mut self, act: impl FnOnce(&mut Multipath, &mut Effects)) {
        self.record(|map, _, fx| {
            act(map, fx);
            Entry::Done
        });
    }

    /// It is known now what a path's nexus is.
    pub(super) fn settle(&mut self, path: PathId, registration: Registration) {
        self.once(|map, _| {
            if let Some(path) = map.path_mut(path) {
                path.nexus.settled(registration);
            }
        });
    }

    /// It is not known any more.
    pub(super) fn unsettle(&mut self, path: PathId) {
        self.once(|map, _| {
            if let Some(path) = map.path_mut(path) {
                path.nexus.unsettled();
            }
        });
    }

    /// A command that registers the path, or not; whether it was done. One that
    /// may come late leaves a ghost.
    pub(super) fn enter(&mut self, path: PathId, out: Out) -> Go<Word> {
        let word = self.out(path, out)?;
        if matches!(word, Word::Lost { maybe: true, .. }) {
            self.once(|map, _| {
                if let Some(path) = map.path_mut(path) {
                    path.nexus.ghost = true;
                }
            });
        }
        Ok(word)
    }

    // --- holding guest I/O ----------------------------------------------------------

    /// Has the queue threads issue nothing more of the guest's, and waits until
    /// nothing is out on any path; false if that does not come about within
    /// `checker_timeout` (a path hangs). It lasts until the task ends.
    pub(super) fn suspend(&mut self) -> Go<bool> {
        let entry = self.record(|map, now, _| {
            let until = now + map.policy.checker_timeout;
            map.reservations.suspension = Some(Suspension { generation: None, until });
            Entry::Quieting
        });
        match entry {
            Entry::Quiet(quiet) => Ok(quiet),
            _ => Err(Wait),
        }
    }
}
