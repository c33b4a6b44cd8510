//! The helper threads of one path: each runs one blocking command at a time.
//!
//! They do the system call and nothing else. Ports never hand over more
//! commands than there are threads, so a command that sits in the pool is in
//! the kernel (law 1), and a stop can tell exactly what is still out. A thread
//! that hangs in an ioctl cannot be ended; it keeps the path's open file, and
//! with it the claim on the device, until the kernel returns (law 3).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::inbox::Ticket;
use crate::io::Completion;
use crate::sys::buffer::AlignedBuffer;
use crate::sys::scsi_generic;

/// Threads are small: a system call and a copy.
const STACK: usize = 64 * 1024;

/// A thread's own bounce buffer, grown to the largest transfer it has seen.
#[derive(Debug, Default)]
pub(super) struct Scratch(Option<AlignedBuffer>);

impl Scratch {
    pub(super) fn at_least(&mut self, len: usize) -> &mut AlignedBuffer {
        if self.0.as_ref().is_none_or(|b| b.len() < len) {
            self.0 = None; // free the small one first
        }
        self.0.get_or_insert_with(|| AlignedBuffer::new(len))
    }
}

/// Does one unit of work; blocks until the kernel has let go of it.
pub(super) trait Work: Send + 'static {
    fn run(&mut self, scratch: &mut Scratch) -> Completion;
}

struct State<W> {
    waiting: VecDeque<(W, Ticket)>,
    busy: usize,
    closing: bool,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    wake: Condvar,
}

impl<W> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Helper threads for work of type `W`.
pub(super) struct Pool<W: Work> {
    shared: Arc<Shared<W>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    name: String,
}

impl<W: Work> Pool<W> {
    /// Starts `threads` threads.
    pub(super) fn new(name: &str, threads: usize) -> io::Result<Pool<W>> {
        let state = State { waiting: VecDeque::new(), busy: 0, closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let pool = Pool { shared, threads: Mutex::new(Vec::new()), name: name.to_owned() };
        pool.grow_to(threads)?;
        Ok(pool)
    }

    /// Adds threads up to `wanted`; never removes any. Returns how many there are.
    pub(super) fn grow_to(&self, wanted: usize) -> io::Result<usize> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.len() < wanted {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new()
                .name(format!("io-{}", self.name))
                .stack_size(STACK)
                .spawn(move || serve(&shared))?;
            threads.push(thread);
        }
        Ok(threads.len())
    }

    /// Hands over one command; the caller keeps within its share.
    pub(super) fn submit(&self, work: W, ticket: Ticket) {
        self.shared.lock().waiting.push_back((work, ticket));
        self.shared.wake.notify_one();
    }
}

fn serve<W: Work>(shared: &Shared<W>) {
    scsi_generic::block_signals();
    let mut scratch = Scratch::default();
    loop {
        let mut state = shared.lock();
        let (mut work, ticket) = loop {
            if let Some(next) = state.waiting.pop_front() {
                break next;
            }
            if state.closing {
                return;
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.busy += 1;
        drop(state);
        let completion = work.run(&mut scratch);
        // The work holds the open file: let go of it before anybody hears.
        drop(work);
        shared.lock().busy -= 1;
        ticket.finish(completion);
    }
}

impl<W: Work> Drop for Pool<W> {
    /// Idle threads are awaited, so that the file is closed when this returns;
    /// if a command is still in the kernel nobody waits for it here.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        let idle = state.busy == 0 && state.waiting.is_empty();
        drop(state);
        self.shared.wake.notify_all();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if idle {
                let _ = thread.join();
            }
        }
    }
}

impl<W: Work> fmt::Debug for Pool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::inbox::{InFlight, Inbox};
    use super::*;
    use std::sync::mpsc;

    struct Gate(mpsc::Receiver<()>);

    impl Work for Gate {
        fn run(&mut self, _: &mut Scratch) -> Completion {
            let _ = self.0.recv();
            Completion::Good
        }
    }

    #[test]
    fn commands_run_side_by_side_and_each_completes_once() {
        let pool = Pool::new("test", 3).unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let in_flight = InFlight::default();
        let mut gates = Vec::new();
        for cookie in 0..3 {
            let (open, gate) = mpsc::channel();
            pool.submit(Gate(gate), Ticket::new(&inbox, cookie, &in_flight));
            gates.push(open);
        }
        let mut got = Vec::new();
        for cookie in [1, 2, 0u64] {
            gates[usize::try_from(cookie).unwrap()].send(()).unwrap();
            while got.is_empty() {
                inbox.drain(&mut got);
                thread::yield_now();
            }
            assert_eq!(got, [(cookie, Completion::Good)]);
            got.clear();
        }
        assert_eq!(in_flight.count(), 0);
    }

    #[test]
    fn a_hung_command_does_not_hold_up_the_end() {
        let pool = Pool::new("test", 2).unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let in_flight = InFlight::default();
        let (open, gate) = mpsc::channel();
        pool.submit(Gate(gate), Ticket::new(&inbox, 5, &in_flight));
        while pool.shared.lock().busy == 0 {
            thread::yield_now();
        }
        drop(pool);
        drop(open);
        let mut got = Vec::new();
        while got.is_empty() {
            inbox.drain(&mut got);
            thread::yield_now();
        }
        assert_eq!(got, [(5, Completion::Good)]);
    }
}
