# Recipes for people; each is one script or one cargo command that can be typed by hand as well.

# what there is
default:
    @just --list

# everything CI runs
check:
    scripts/test

# unit, property, simulation and integration tests only
test *ARGS:
    cargo test --locked {{ARGS}}

# see a guest survive the loss of a path
demo *ARGS:
    scripts/demo {{ARGS}}

# numbers, as ratios to a peer in the same run
bench *ARGS:
    scripts/bench {{ARGS}}

# the kernel-SCSI test bed: two real /dev/sdX in a small kernel
rig *ARGS:
    scripts/rig {{ARGS}}

# what a guest lives through on today's stack and on ours
compare-failover *ARGS:
    scripts/compare-failover {{ARGS}}

# licences, advisories, duplicates, sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# the two formatters' opinion, applied
fmt:
    cargo fmt
