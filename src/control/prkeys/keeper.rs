//! The thread that keeps the prkeys file.
//!
//! One for the daemon; ends when its owner lets go. What it is told is on the
//! disk when it says so; what could not be written it tries again, so that a
//! full file system costs nothing once it has room.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::Prkeys;
use crate::control::mailbox::{Mail, Post};
use crate::io::MapSlot;
use crate::mpath::reservation::Remembered;

/// Until what could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5000 });

/// Something to be remembered of an LU.
#[derive(Debug)]
struct Note {
    map: MapSlot,
    number: u64,
    wwid: String,
    what: Option<Remembered>,
}

/// What the thread is told.
#[derive(Debug)]
enum Word {
    Keep(Note),
    /// To say when everything before was tried, once more what had failed.
    Finish(Sender<()>),
}

/// The owner's end; the thread ends with the last of its clones.
#[derive(Clone, Debug)]
pub(in crate::control) struct Keeper {
    words: Sender<Word>,
    /// Number of the last note of any map: slots of maps are used again.
    last: Arc<AtomicU64>,
}

impl Keeper {
    /// Starts the thread.
    pub(in crate::control) fn start(prkeys: Prkeys, post: Post) -> io::Result<Keeper> {
        let (words, todo) = channel();
        let thread = Thread { prkeys, post, unwritten: BTreeMap::new() };
        std::thread::Builder::new().name("prkeys".to_owned()).spawn(move || thread.run(&todo))?;
        Ok(Keeper { words, last: Arc::default() })
    }

    /// Remembers this of an LU from now on; answered by [`Mail::Kept`] with
    /// the number that is returned, each time it was tried.
    pub(in crate::control) fn remember(
        &self,
        map: MapSlot,
        wwid: &str,
        what: Option<Remembered>,
    ) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        // The thread ends only after this end is gone.
        let note = Note { map, number, wwid: wwid.to_owned(), what };
        let _ = self.words.send(Word::Keep(note));
        number
    }

    /// Waits until everything is on the disk that is to be remembered, or was
    /// tried in vain, but not for longer than `patience`; whether it came to
    /// that.
    pub(in crate::control) fn finish(&self, patience: Duration) -> bool {
        let (done, is_done) = channel();
        let _ = self.words.send(Word::Finish(done));
        is_done.recv_timeout(patience).is_ok()
    }
}

struct Thread {
    prkeys: Prkeys,
    post: Post,
    /// The newest of each LU that could not be written yet, by WWID.
    unwritten: BTreeMap<String, Note>,
}

impl Thread {
    fn run(mut self, todo: &Receiver<Word>) {
        loop {
            let next = if self.unwritten.is_empty() {
                todo.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                todo.recv_timeout(AGAIN)
            };
            match next {
                Ok(Word::Keep(note)) => {
                    self.unwritten.remove(&note.wwid);
                    self.keep(note);
                }
                Ok(Word::Finish(done)) => {
                    self.try_again();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.try_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn try_again(&mut self) {
        let all = std::mem::take(&mut self.unwritten);
        all.into_values().for_each(|note| self.keep(note));
    }

    fn keep(&mut self, note: Note) {
        let result = self.prkeys.write(&note.wwid, note.what).map_err(|error| error.to_string());
        let failed = result.is_err();
        self.post.of(note.map).send(Mail::Kept { number: note.number, result });
        if failed {
            self.unwritten.insert(note.wwid.clone(), note);
        }
    }
}
