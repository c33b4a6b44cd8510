#!/bin/bash
# Job: alua.sh [TRANSPORT]. Two real paths in two ALUA target port groups; the array moves their access states about while
# a verified load runs over vhost-user-blk: I/O follows to the group that `show topology` names, no request fails, and
# the longest one is printed.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

transport=${1:-auto}
needs_examples loadgen
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO's access states can be moved"
make_paths 96
core=/sys/kernel/config/target/core/fileio_0/lu
for n in 1 2; do
  mkdir $core/alua/tg$n
  echo $((10 + n)) >$core/alua/tg$n/tg_pt_gp_id
  echo 1 >$core/alua/tg$n/alua_access_type
  echo tg$n >"/sys/kernel/config/target/loopback/naa.60014050000000$n/tpgt_1/lun/lun_0/alua_tg_pt_gp"
done
# The kernel hears what making them has left behind.
for p in $P1 $P2; do echo 1 >"/sys/block/$p/device/rescan"; done
# access STATE STATE: of either group, in LIO's numbers: 0 optimized, 1 non-optimized, 2 standby, 3 unavailable. What
# gets better comes first, as arrays do it.
access() {
  if [ "$1" -le "$2" ]; then echo "$1" >$core/alua/tg1/alua_access_state; fi
  echo "$2" >$core/alua/tg2/alua_access_state
  if [ "$1" -gt "$2" ]; then echo "$1" >$core/alua/tg1/alua_access_state; fi
}
# transition GROUP STATE MILLISECONDS: in transition for so long, in that state then. Goes on behind.
transition() {
  echo "$3" >$core/alua/tg"$1"/trans_delay_msecs
  (echo "$2" >$core/alua/tg"$1"/alua_access_state; echo 0 >$core/alua/tg"$1"/trans_delay_msecs) &
}
dir=/tmp/job
mkdir -p $dir
access 0 1
daemon_start $dir --transport "$transport" --path-grouping-policy group_by_prio --set prio=alua --set failback=immediate \
  --polling-interval 1 --set max_polling_interval=1 --path "/dev/$P1" --path "/dev/$P2"
ctl show topology
load_begin loadgen --depth 8 --block-size 65536

# The disks of the group that I/O goes to.
in_use() { ctl show topology | awk '/status=/ { on = /status=active/ } / sd[a-z] / && on { for (i = 1; i <= NF; i++) if ($i ~ /^sd[a-z]$/) print $i }' | xargs; }
# expect WHAT DISKS: the group in use is that within a few checks, and I/O goes on by it for a while.
expect() {
  within 10000 "$1: I/O goes to $2" goes_to "$2"
  sleep 0.3
}
goes_to() { [ "$(in_use)" = "$1" ]; }
sleep 1
expect "$P1 optimized, $P2 non-optimized" "$P1"
for turn in 1 2; do
  step "round $turn"
  access 1 0
  expect "$P1 non-optimized, $P2 optimized" "$P2"
  access 0 1
  expect "$P1 optimized, $P2 non-optimized" "$P1"
  access 2 0
  expect "$P1 standby, $P2 optimized" "$P2"
  access 0 2
  expect "$P1 optimized, $P2 standby" "$P1"
  access 3 1
  expect "$P1 unavailable, $P2 non-optimized" "$P2"
  ctl show topology
  access 0 3
  expect "$P1 optimized, $P2 unavailable" "$P1"
  access 0 1
  transition 1 2 2000
  expect "$P1 in transition to standby, $P2 non-optimized" "$P2"
  sleep 2
  expect "$P1 standby, $P2 non-optimized" "$P2"
  access 0 1
  expect "$P1 optimized again" "$P1"
done
load_end
load_told
longest=$SLOWEST
load_begin loadgen --depth 8 --block-size 65536
sleep 1
access 2 2
step "both standby for a second: nothing may carry I/O"
sleep 1
access 0 1
expect "$P1 optimized again" "$P1"
load_end
load_told
daemon_end
conclude "--transport $transport: access states went round twice under a verified load; no error, no wrong byte; the longest request took $longest ms, $SLOWEST ms where for a second no group carried I/O."
