//! `alua`, `sysfs`, and what `detect` makes of them.
//!
//! `detect` goes by TPGS of standard INQUIRY data, and by what comes of it: a
//! LU that claims target port groups and cannot report them is `const`, as it
//! is after `detect_prio` of multipath-tools. What was found is remembered.

use super::groups::{Found, Reader, Unread, priority};
use super::{AluaReading, Reading, UNKNOWN};
use crate::mpath::probe::{Answer, Fact, Probe, Step};

/// `alua` by commands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alua {
    reader: Reader,
    exclusive_pref: bool,
    /// `const` for a LU without target port groups.
    detect: bool,
    /// It is one.
    is_const: bool,
    /// It is none: it has reported once.
    is_alua: bool,
}

/// Of `const`, and of a detected LU without target port groups.
pub(super) const CONST: Reading = Reading { priority: Some(1), alua: None };

impl Alua {
    pub(super) fn new(exclusive_pref: bool, detect: bool) -> Alua {
        let reader = Reader::new(None);
        Alua { reader, exclusive_pref, detect, is_const: false, is_alua: false }
    }

    pub(super) fn begin(&mut self) -> Step<Reading> {
        if self.is_const {
            return Step::Done(CONST);
        }
        let step = self.reader.begin();
        self.step(step)
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Reading> {
        let step = self.reader.on_answer(answer);
        self.step(step)
    }

    fn step(&mut self, step: Step<Found>) -> Step<Reading> {
        if self.detect && self.reader.has_none() {
            self.is_const = true;
            return Step::Done(CONST);
        }
        Step::Done(match step {
            Step::Issue(probe) => return Step::Issue(probe),
            Step::Done(Ok(found)) => {
                self.is_alua = true;
                let own = found.own_state();
                let priority = own.map(|(state, pref)| priority(state, pref, self.exclusive_pref));
                Reading { priority, alua: Some(found) }
            }
            Step::Done(Err(Unread::Unsupported)) if self.detect && !self.is_alua => {
                self.is_const = true;
                CONST
            }
            Step::Done(Err(_)) => UNKNOWN,
        })
    }
}

/// The kernel's view, by sysfs. The number of the path's own group is not
/// there, it is asked for once.
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    reader: Reader,
    exclusive_pref: bool,
    /// The path's own group; `Some(None)`: the LU has none.
    own: Option<Option<AluaReading>>,
    /// The next answer is the kernel's.
    asked: bool,
}

impl Sysfs {
    pub(super) fn new(exclusive_pref: bool) -> Sysfs {
        Sysfs { reader: Reader::of_own_group(), exclusive_pref, own: None, asked: false }
    }

    pub(super) fn begin(&mut self) -> Step<Reading> {
        self.asked = false;
        if self.own.is_some() {
            return self.ask();
        }
        let step = self.reader.begin();
        self.step(step)
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Reading> {
        match answer {
            Answer::AccessState(state) => Step::Done(match state {
                Some((state, preferred)) => {
                    let own = self.own.clone().flatten();
                    Reading {
                        priority: Some(priority(*state, *preferred, self.exclusive_pref)),
                        alua: own.map(|own| AluaReading {
                            groups: vec![(own.own, *state, *preferred)],
                            ..own
                        }),
                    }
                }
                None => UNKNOWN,
            }),
            _ if self.asked => Step::Done(UNKNOWN), // not what was asked for
            _ => {
                let step = self.reader.on_answer(answer);
                self.step(step)
            }
        }
    }

    fn step(&mut self, step: Step<Found>) -> Step<Reading> {
        match step {
            Step::Issue(probe) => return Step::Issue(probe),
            Step::Done(Ok(own)) => self.own = Some(Some(own)),
            Step::Done(Err(Unread::Unsupported)) => self.own = Some(None),
            // Asked again next time.
            Step::Done(Err(Unread::Failed(_))) => {}
        }
        self.ask()
    }

    fn ask(&mut self) -> Step<Reading> {
        self.asked = true;
        Step::Issue(Probe::Fact(Fact::AccessState))
    }
}
