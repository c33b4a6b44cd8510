//! Path selectors: which path of a group carries the next command.
//!
//! One instance per queue thread, over that thread's own load: no sharing, no
//! lock. `round-robin` and `service-time` behave as the kernel's
//! (`drivers/md/dm-ps-*.c`) with `rr_min_io_rq` 1 and equal throughput.

use super::snapshot::{PathView, SelectorKind};

/// A path's load as this queue thread sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes of commands in flight.
    pub bytes: u64,
    /// Commands in flight.
    pub commands: u32,
}

/// Per-thread selector state.
#[derive(Debug, Default)]
pub struct Selector {
    turn: usize,
}

impl Selector {
    /// Chooses among `paths`; `load` answers `None` for a path that cannot
    /// take the command (failed here, tried already, or full).
    pub fn select(
        &mut self,
        kind: SelectorKind,
        paths: &[PathView],
        load: impl Fn(&PathView) -> Option<Load>,
    ) -> Option<usize> {
        match kind {
            SelectorKind::RoundRobin => self.round_robin(paths, load),
            // The others are being built.
            _ => self.service_time(paths, load),
        }
    }

    fn round_robin(
        &mut self,
        paths: &[PathView],
        load: impl Fn(&PathView) -> Option<Load>,
    ) -> Option<usize> {
        let n = paths.len();
        let chosen = (0..n).map(|i| (self.turn + i) % n).find(|&i| load(&paths[i]).is_some())?;
        self.turn = (chosen + 1) % n;
        Some(chosen)
    }

    /// Fewest bytes in flight; then fewest commands; then the next in turn,
    /// so that idle paths share single commands.
    fn service_time(
        &mut self,
        paths: &[PathView],
        load: impl Fn(&PathView) -> Option<Load>,
    ) -> Option<usize> {
        let n = paths.len();
        let mut best: Option<(usize, Load)> = None;
        for i in (0..n).map(|i| (self.turn + i) % n) {
            let Some(l) = load(&paths[i]) else { continue };
            let better = best.is_none_or(|(_, b)| (l.bytes, l.commands) < (b.bytes, b.commands));
            if better {
                best = Some((i, l));
            }
        }
        let (chosen, _) = best?;
        self.turn = (chosen + 1) % n;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpath::snapshot::PathId;

    fn paths(n: u8) -> Vec<PathView> {
        (0..n)
            .map(|slot| PathView {
                id: PathId { slot, generation: 0 },
                epoch: 1,
                priority: 1,
                repeat: 1,
            })
            .collect()
    }

    const IDLE: Load = Load { bytes: 0, commands: 0 };

    #[test]
    fn round_robin_takes_each_path_in_turn_and_skips_unusable_ones() {
        let paths = paths(3);
        let mut s = Selector::default();
        let picks: Vec<_> = (0..6)
            .map(|_| {
                s.select(SelectorKind::RoundRobin, &paths, |p| (p.id.slot != 1).then_some(IDLE))
            })
            .collect();
        assert_eq!(picks, [Some(0), Some(2), Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn service_time_takes_the_path_with_fewest_bytes_in_flight() {
        let paths = paths(3);
        let mut s = Selector::default();
        let loads = [9000, 512, 4096];
        let pick = s.select(SelectorKind::ServiceTime, &paths, |p| {
            Some(Load { bytes: loads[usize::from(p.id.slot)], commands: 1 })
        });
        assert_eq!(pick, Some(1));
    }

    #[test]
    fn service_time_shares_single_commands_over_idle_paths() {
        let paths = paths(2);
        let mut s = Selector::default();
        let picks: Vec<_> =
            (0..4).map(|_| s.select(SelectorKind::ServiceTime, &paths, |_| Some(IDLE))).collect();
        assert_eq!(picks, [Some(0), Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn no_usable_path_is_no_choice() {
        let mut s = Selector::default();
        for kind in [SelectorKind::RoundRobin, SelectorKind::ServiceTime] {
            assert_eq!(s.select(kind, &paths(2), |_| None), None);
            assert_eq!(s.select(kind, &[], |_| Some(IDLE)), None);
        }
    }
}
