//! What all paths of a map can carry: pure.

use crate::io::{Blocks, Limits};

/// What every path of two can carry (law 4). What only one of them can do at
/// all, none is asked for.
pub(in crate::control) fn smallest(a: Limits, b: Limits) -> Limits {
    let granularity = common_multiple(a.unmap_granularity.0, b.unmap_granularity.0);
    Limits {
        max_transfer: a.max_transfer.min(b.max_transfer),
        max_segments: a.max_segments.min(b.max_segments),
        max_unmap: a.max_unmap.min(b.max_unmap),
        max_unmap_descriptors: a.max_unmap_descriptors.min(b.max_unmap_descriptors),
        unmap_granularity: Blocks(granularity),
        // Granules are a hint; where two paths tell them apart, the coarser
        // one's alignment counts.
        unmap_alignment: if a.unmap_granularity >= b.unmap_granularity {
            a.unmap_alignment
        } else {
            b.unmap_alignment
        },
        max_write_same: a.max_write_same.min(b.max_write_same),
        fua: a.fua && b.fua,
    }
}

/// Limits of a running map when a path with others joins. What the guest was
/// offered stays: a path that cannot UNMAP or WRITE SAME at all says so itself,
/// and the request core or the guest goes on without.
pub(super) fn shrunk(map: Limits, path: Limits) -> Limits {
    let mut limits = smallest(map, path);
    if path.max_unmap.0 == 0 {
        limits.max_unmap = map.max_unmap;
        limits.max_unmap_descriptors = map.max_unmap_descriptors;
    }
    if path.max_write_same.0 == 0 {
        limits.max_write_same = map.max_write_same;
    }
    limits
}

/// The least common multiple; the larger one where that overflows.
fn common_multiple(a: u64, b: u64) -> u64 {
    let (a, b) = (a.max(1), b.max(1));
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).unwrap_or_else(|| a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Lba;

    #[test]
    fn limits_of_a_map_are_what_all_its_paths_can_do() {
        let one = Limits {
            max_transfer: Blocks(1024),
            max_segments: 32,
            max_unmap: Blocks(4096),
            max_unmap_descriptors: 1,
            unmap_granularity: Blocks(8),
            unmap_alignment: Lba(4),
            max_write_same: Blocks(0),
            fua: true,
        };
        let other = Limits {
            max_transfer: Blocks(256),
            max_segments: 128,
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(77),
            fua: false,
        };
        let both = Limits {
            max_transfer: Blocks(256),
            max_segments: 32,
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            unmap_granularity: Blocks(8),
            unmap_alignment: Lba(4),
            max_write_same: Blocks(0),
            fua: false,
        };
        assert_eq!(smallest(one, other), both);
        assert_eq!(smallest(other, one), both);
        assert_eq!(smallest(one, one), one);
    }

    #[test]
    fn a_path_that_joins_later_takes_no_offer_back() {
        let map = Limits {
            max_transfer: Blocks(1024),
            max_segments: 32,
            max_unmap: Blocks(4096),
            max_unmap_descriptors: 4,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(64),
            fua: true,
        };
        let poor = Limits {
            max_transfer: Blocks(8),
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            max_write_same: Blocks(0),
            ..map
        };
        assert_eq!(shrunk(map, poor), Limits { max_transfer: Blocks(8), ..map });
    }

    #[test]
    fn granules_of_two_paths_are_those_of_both() {
        assert_eq!(common_multiple(6, 4), 12);
        assert_eq!(common_multiple(0, 8), 8);
        assert_eq!(common_multiple(u64::MAX, u64::MAX - 1), u64::MAX);
    }
}
