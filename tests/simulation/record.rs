//! What an administrator wants to know of an outage: what happened when, how
//! long requests took, what the guest was told.

use std::fmt;
use std::time::Duration;

use vhost_mpath::io::{Outcome, Time};
use vhost_mpath::mpath::effect::Change;
use vhost_mpath::scsi::sense::SenseCode;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A fault of the file, in its words, and the paths it was told to.
    Fault(String),
    /// What the engine tells its administrator.
    Change(Change),
    /// I/O goes by these paths now.
    Moved(String),
    /// The guest was told of an error.
    Error(Outcome),
}

/// A request of the guest that has ended, or is out at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    /// When it was sent.
    pub(crate) sent: Duration,
    /// How long it took.
    pub(crate) time: Duration,
}

/// Times are counted from the first request on.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) seed: u64,
    began: Time,
    /// What is after the file's end is none of it.
    running: bool,
    pub(crate) events: Vec<(Duration, Event)>,
    pub(crate) requests: Vec<Took>,
    /// Commands of the guest that did not end well, and their paths.
    pub(crate) lost: Vec<(Duration, String)>,
    /// Sense that the array was told to give.
    pub(crate) senses: Vec<SenseCode>,
    /// The groups at the end, the one in use first, with the paths that carry
    /// I/O.
    pub(crate) groups: Vec<(u16, Vec<String>)>,
}

impl Record {
    pub(crate) fn new(seed: u64) -> Record {
        Record { seed, ..Record::default() }
    }

    pub(crate) fn begin(&mut self, now: Time) {
        (self.began, self.running) = (now, true);
    }

    pub(crate) fn end(&mut self) {
        self.running = false;
    }

    fn note(&mut self, now: Time, event: Event) {
        if self.running {
            self.events.push((now.since(self.began), event));
        }
    }

    pub(crate) fn fault(&mut self, now: Time, words: String) {
        self.note(now, Event::Fault(words));
    }

    pub(crate) fn changed(&mut self, now: Time, change: &Change) {
        self.note(now, Event::Change(change.clone()));
    }

    /// I/O has moved to another group, of these paths.
    pub(crate) fn moved(&mut self, now: Time, paths: String) {
        self.note(now, Event::Moved(paths));
    }

    /// A guest's request has ended; an error was the end of it?
    pub(crate) fn ended(&mut self, now: Time, submitted: Time, error: Option<&Outcome>) {
        if let Some(outcome) = error {
            self.note(now, Event::Error(*outcome));
        }
        if self.running {
            let (sent, time) = (submitted.since(self.began), now.since(submitted));
            self.requests.push(Took { sent, time });
        }
    }

    /// A command of the guest did not end well.
    pub(crate) fn lost(&mut self, now: Time, path: &str) {
        if self.running {
            self.lost.push((now.since(self.began), path.to_owned()));
        }
    }

    pub(crate) fn errors(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, Event::Error(_))).count()
    }

    /// The request that took longest.
    pub(crate) fn longest(&self) -> Took {
        self.requests.iter().copied().max_by_key(|took| took.time).unwrap_or_default()
    }

    /// When something was told of.
    pub(crate) fn times(&self, what: impl Fn(&Change) -> bool) -> Vec<Duration> {
        let is_it = |event: &Event| matches!(event, Event::Change(change) if what(change));
        self.events.iter().filter(|(_, event)| is_it(event)).map(|(at, _)| *at).collect()
    }

    /// When I/O moved to another group.
    pub(crate) fn switches(&self) -> Vec<Duration> {
        self.times(|c| matches!(c, Change::GroupSwitched { from: Some(_), .. }))
    }

    /// When a path was taken out of use.
    pub(crate) fn failures(&self, name: &str) -> Vec<Duration> {
        self.times(|c| matches!(c, Change::PathFailed { path, .. } if path == name))
    }

    pub(crate) fn reinstatements(&self, name: &str) -> Vec<Duration> {
        self.times(|c| matches!(c, Change::PathReinstated { path, .. } if path == name))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Fault(words) => f.write_str(words),
            Event::Change(change) => write!(f, "  {}", InWords(change)),
            Event::Moved(paths) => write!(f, "    of {paths}"),
            Event::Error(outcome) => write!(f, "  THE GUEST IS TOLD OF AN ERROR: {outcome:?}"),
        }
    }
}

struct InWords<'a>(&'a Change);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Change::PathFailed { path, left, .. } => write!(f, "{path} failed, {left} left"),
            Change::PathSuspect { path, .. } => {
                write!(f, "{path} is suspect: nothing new goes there")
            }
            Change::PathReinstated { path, usable } => {
                write!(f, "{path} reinstated, {usable} usable")
            }
            Change::AccessChanged { path, access } => {
                let state = access.state.map_or("unknown", |state| state.name());
                write!(f, "{path} is {state}")
            }
            Change::GroupSwitched { .. } => f.write_str("I/O moves to another group"),
            Change::Marginal { path, marginal: true } => write!(f, "{path} is unreliable"),
            Change::Marginal { path, marginal: false } => write!(f, "{path} is reliable again"),
            Change::NoPath { held: true } => f.write_str("no path is left: requests are held"),
            Change::NoPath { held: false } => f.write_str("no path is left: requests fail"),
            Change::Recovered => f.write_str("requests go on"),
            Change::QueueingEnded => f.write_str("requests that were held fail"),
            Change::LunGone => f.write_str("every path says that there is no such LUN"),
            Change::LunBack => f.write_str("the LUN is back"),
            Change::Resized { from, to } => write!(f, "{from} blocks become {to}"),
            Change::Activating { group } => write!(f, "group {group} is being activated"),
            Change::Activated { group, result } => {
                write!(f, "activation of group {group}: {result:?}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}
