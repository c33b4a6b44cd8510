#!/bin/bash
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. rig.d/paths.sh
make_paths 64
node=/dev/bsg/$(basename "$(readlink -f "/sys/block/$P1/device")")
dir=/tmp/job; mkdir -p $dir
cs() { cat /proc/$DAEMON_PID/task/*/status | awk '/^voluntary/ {v+=$2} /^nonvol/ {n+=$2} END {print v, n}'; }
through() {
  local mode=$1 path=$2; shift 2
  daemon_start $dir --num-queues 1 "$@" --path "$path"
  a=$(cs)
  line=$(/rig/bin/loadgen --socket "$DAEMON_SOCKET" --pid "$DAEMON_PID" --seconds 1 $mode)
  b=$(cs)
  echo "$mode $path $* : $line cs $a -> $b"
  cat /proc/$DAEMON_PID/task/*/schedstat | tr '\n' ';'; echo
  daemon_stop
}
for i in 1 2; do
for d in 1 8 32 64; do /rig/bin/bsgloop --device $node --seconds 1 --depth $d; done
through --sleep null:64M
through --poll null:64M
through --sleep /dev/$P1 --transport bsg-uring
through --poll /dev/$P1 --transport bsg-uring
through "--sleep --depth 64" /dev/$P1 --transport bsg-uring
through "--sleep --pieces 2" /dev/$P1 --transport bsg-uring
done
