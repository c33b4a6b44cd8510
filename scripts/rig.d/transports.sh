#!/bin/bash
# Job: transports.sh [ROUNDS [SECONDS]]. 4 KiB random reads at depth 32 from the front-end double through the daemon, one
# path, by every transport, beside a bare io_uring loop on the same bsg node; interleaved. Prints the rows of
# docs/performance.md: median (least–most), and the ratios of each round.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. lib/rows.sh
. rig.d/paths.sh

rounds=${1:-5} seconds=${2:-2} depth=${RIG_DEPTH:-32}
needs_examples loadgen bareloop
make_paths 64
node=$(node_of bsg "$P1")
dir=/tmp/job ROWS=/tmp/job
mkdir -p $dir

# through NAME OPTION…: one run of the load generator against a daemon with these options
through() {
  local name=$1 line
  shift
  daemon_start $dir --discover no --num-queues 1 "$@"
  line=$(/rig/bin/loadgen --socket "$DAEMON_SOCKET" --pid "$DAEMON_PID" --depth "$depth" --seconds "$seconds" --pieces "${PIECES:-1}" --sleep)
  row "$name" "$line"
  daemon_end
}

bare() {
  local name=$1
  shift
  row "$name" "$(/rig/bin/bareloop --depth "$depth" --seconds "$seconds" "$@")"
}

for ((round = 1; round <= rounds; round++)); do
  step "round $round"
  bare bare-bsg --device "$node"
  through bsg-uring --transport bsg-uring --path "/dev/$P1"
  for n in 1 4 8 16; do through sg-io-$n --transport sg-io --sg-io-threads $n --path "/dev/$P1"; done
  bare bare-blk --device "/dev/$P1"
  through blk-uring --transport blk-uring --path "/dev/$P1"
  bare bare-bsg-registered --device "$node" --registered
  through null --path null:64M
  PIECES=2 through bsg-uring-2-pieces --transport bsg-uring --path "/dev/$P1"
done

say "4 KiB random reads, depth $depth, one queue, one path (${RIG_PATHS:-lio}); $rounds rounds of $seconds s, $(uname -sr), $(nproc) CPU"
say "| | IOPS | CPU µs per I/O | p50 µs | p99 µs |"
say "|---|---|---|---|---|"
for name in bare-bsg bare-bsg-registered bare-blk null bsg-uring bsg-uring-2-pieces blk-uring sg-io-1 sg-io-4 sg-io-8 sg-io-16; do
  say "| $name | $(median $dir/$name.rows 1) | $(median $dir/$name.rows 2) | $(median $dir/$name.rows 3) | $(median $dir/$name.rows 4) |"
done
for name in bare-bsg bsg-uring-2-pieces blk-uring sg-io-1 sg-io-4 sg-io-8 sg-io-16; do say "bsg-uring against $name: $(against bsg-uring $name)"; done
say "blk-uring against bare-blk: $(against blk-uring bare-blk)"
paste -d' ' $dir/bsg-uring.rows $dir/bare-bsg.rows $dir/null.rows | awk '{ print $2 - $6, $2 - $6 - $10 }' >$dir/beyond
say "CPU of the daemon by bsg-uring beyond the bare loop: $(median $dir/beyond 1) µs per I/O; beyond that and a null path: $(median $dir/beyond 2)"
