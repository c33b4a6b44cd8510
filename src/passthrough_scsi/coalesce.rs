//! The coalescing buffers of a queue thread: where data lie in one piece for a
//! bsg node, which takes no list.
//!
//! One thread owns them and all its ports share them; they come into being with
//! the thread's first bsg port. Bounded: a fixed number of each size, and no
//! memory is allocated for a command. Who gets none sends its command another
//! way. Not here: which data need one (`bsg_uring`).

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::io::Segment;
use crate::sys::buffer::Arena;
use crate::sys::segment;

/// Bytes and number of the buffers of each size. A thread has at most a few
/// hundred commands out, most of them short.
const SIZES: [(usize, usize); 5] =
    [(4 << 10, 256), (16 << 10, 128), (64 << 10, 64), (256 << 10, 24), (1 << 20, 8)];

/// A buffer on loan; whoever has it gives it back by [`Pool::take_back`].
#[derive(Debug)]
#[must_use]
pub(super) struct Lent {
    /// Where in the arena.
    at: usize,
    size: usize,
}

#[derive(Debug)]
struct Pool {
    arena: Arena,
    /// Of each size, where those lie that are free.
    free: [Vec<usize>; SIZES.len()],
}

impl Pool {
    fn new() -> io::Result<Pool> {
        let mut at = 0;
        let free = SIZES.map(|(bytes, number)| {
            let begin = at;
            at += bytes * number;
            // The last one first: a busy thread uses the same few again.
            (0..number).rev().map(|n| begin + n * bytes).collect()
        });
        Ok(Pool { arena: Arena::new(at)?, free })
    }

    /// The smallest that is free and large enough.
    fn lend(&mut self, len: usize) -> Option<Lent> {
        let first = SIZES.iter().position(|(bytes, _)| *bytes >= len)?;
        (first..SIZES.len()).find_map(|size| Some(Lent { at: self.free[size].pop()?, size }))
    }

    fn take_back(&mut self, lent: &Lent) {
        self.free[lent.size].push(lent.at);
    }

    fn is_whole(&self) -> bool {
        self.free.iter().zip(SIZES).all(|(free, (_, number))| free.len() == number)
    }
}

/// See the module. Shared by the ports of one thread, which keep it alive.
#[derive(Debug, Default)]
pub struct Coalescer(RefCell<Option<Pool>>);

impl Coalescer {
    /// One for a thread, without memory as yet.
    pub fn new() -> Rc<Coalescer> {
        Rc::default()
    }

    /// Makes the buffers, if there are none.
    pub(super) fn prepare(&self) {
        let mut pool = self.0.borrow_mut();
        if pool.is_none() {
            match Pool::new() {
                Ok(made) => *pool = Some(made),
                Err(e) => log::warn!("no memory for coalescing buffers: {e}"),
            }
        }
    }

    /// A buffer for `bytes`, with them in it.
    pub(super) fn holding(&self, bytes: &[u8]) -> Option<(Lent, Segment)> {
        self.lend(bytes.len(), |target| target.copy_from_slice(bytes))
    }

    /// A buffer with the data of `segments` in it.
    ///
    /// # Safety
    /// Every segment is mapped and readable for the whole call.
    pub(super) unsafe fn gathered(
        &self,
        segments: &[Segment],
        len: usize,
    ) -> Option<(Lent, Segment)> {
        self.lend(len, |target| {
            // SAFETY: the caller vouches for the segments; the buffer is ours.
            unsafe { segment::copy_in(segments, 0, target) };
        })
    }

    /// A buffer for `len` bytes to come, with zeroes in it where a part may not
    /// come and would be looked at.
    pub(super) fn empty(&self, len: usize, zeroed: bool) -> Option<(Lent, Segment)> {
        self.lend(len, |target| {
            if zeroed {
                target.fill(0);
            }
        })
    }

    fn lend(&self, len: usize, prepare: impl FnOnce(&mut [u8])) -> Option<(Lent, Segment)> {
        let mut pool = self.0.borrow_mut();
        let pool = pool.as_mut()?;
        let lent = pool.lend(len)?;
        prepare(pool.arena.bytes_mut(lent.at, len));
        let segment = pool.arena.segment(lent.at, len);
        Some((lent, segment))
    }

    /// Copies the first `len` bytes out to `segments`, as far as they reach.
    ///
    /// # Safety
    /// Every segment is mapped and writable for the whole call.
    pub(super) unsafe fn scatter(&self, lent: &Lent, len: usize, segments: &[Segment]) {
        if let Some(pool) = self.0.borrow().as_ref() {
            let bytes = pool.arena.bytes(lent.at, len.min(SIZES[lent.size].0));
            // SAFETY: the caller vouches for the segments; none lies in the arena.
            unsafe { segment::copy_out(segments, 0, bytes) };
        }
    }

    #[allow(clippy::needless_pass_by_value)] // it is over with the loan
    pub(super) fn take_back(&self, lent: Lent) {
        if let Some(pool) = self.0.borrow_mut().as_mut() {
            pool.take_back(&lent);
        }
    }
}

impl Drop for Coalescer {
    /// What the kernel may still write to stays mapped.
    fn drop(&mut self) {
        if let Some(pool) = self.0.get_mut().take() {
            if !pool.is_whole() {
                std::mem::forget(pool.arena);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: usize = SIZES[SIZES.len() - 1].0;

    fn pool() -> Rc<Coalescer> {
        let coalescer = Coalescer::new();
        coalescer.prepare();
        coalescer
    }

    #[test]
    fn a_thread_without_a_bsg_path_has_no_buffers() {
        let coalescer = Coalescer::new();
        assert!(coalescer.empty(1, false).is_none());
        assert!(coalescer.0.borrow().is_none());
    }

    #[test]
    fn pieces_are_gathered_and_scattered_in_order() {
        let coalescer = pool();
        let mut pieces = [vec![1u8; 700], vec![2; 1], vec![3; 4096]];
        let list: Vec<_> = pieces.iter_mut().map(|p| segment::of(p)).collect();
        // SAFETY: the vectors live, and are not otherwise used, for the call.
        let (lent, flat) = unsafe { coalescer.gathered(&list, 4797) }.unwrap();
        assert_eq!((flat.addr % 4096, flat.len), (0, 4797));
        let mut got = vec![0; 4797];
        // SAFETY: the buffer is on loan here, and mapped.
        unsafe { segment::copy_in(&[flat], 0, &mut got) };
        assert_eq!(got, pieces.concat());
        let mut targets = [vec![0u8; 2], vec![9; 4795]];
        let list: Vec<_> = targets.iter_mut().map(|p| segment::of(p)).collect();
        // SAFETY: as above.
        unsafe { coalescer.scatter(&lent, 1000, &list) };
        assert_eq!(targets.concat()[..1000], got[..1000]);
        assert_eq!(targets[1][998..], [9; 3797], "beyond what came nothing is touched");
        coalescer.take_back(lent);
        let (lent, flat) = coalescer.empty(4797, true).unwrap();
        // SAFETY: as above.
        unsafe { segment::copy_in(&[flat], 0, &mut got) };
        assert_eq!(got, [0; 4797]);
        coalescer.take_back(lent);
        let (lent, flat) = coalescer.holding(b"parameters").unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { segment::copy_in(&[flat], 0, &mut got) }, 10);
        assert_eq!(&got[..10], b"parameters");
        coalescer.take_back(lent);
        assert!(coalescer.0.borrow().as_ref().unwrap().is_whole());
    }

    #[test]
    fn buffers_never_overlap_and_end_somewhere() {
        let coalescer = pool();
        let mut lent = Vec::new();
        let mut spans = Vec::new();
        for len in [1, 4096, 4097, 16 << 10, 100_000, 300_000, LONGEST].into_iter().cycle() {
            let Some((loan, segment)) = coalescer.empty(len, false) else { break };
            spans.push((segment.addr, segment.addr + SIZES[loan.size].0));
            lent.push(loan);
        }
        let number: usize = SIZES.iter().map(|(_, number)| number).sum();
        assert!(lent.len() <= number);
        spans.sort_unstable();
        assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0));
        assert!(coalescer.empty(LONGEST, false).is_none());
        for loan in lent {
            coalescer.take_back(loan);
        }
        assert!(coalescer.empty(LONGEST + 1, false).is_none(), "too long for any");
        // All the small ones gone, a larger one serves.
        let loans: Vec<_> =
            (0..=SIZES[0].1).map(|_| coalescer.empty(1, false).unwrap().0).collect();
        assert_eq!(loans.last().unwrap().size, 1);
        let whole = |coalescer: &Coalescer| coalescer.0.borrow().as_ref().unwrap().is_whole();
        assert!(!whole(&coalescer));
        loans.into_iter().for_each(|loan| coalescer.take_back(loan));
        assert!(whole(&coalescer));
    }
}
