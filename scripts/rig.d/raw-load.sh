#!/bin/bash
# Job: raw-load.sh sd|sg|bsg [TRANSPORT]. The daemon as vhost-user-scsi over two real paths by these nodes; a guest by
# hand (examples/scsigen) sends READ, WRITE and COMPARE AND WRITE over both, every byte verified, while the paths are
# deleted through sysfs one after the other and come back. No COMPARE AND WRITE may be carried out twice: one whose
# path went away under it ends with 0B/00/06. At the end the guest resets the LU, in the array, too.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

kind=${1:-sd} transport=${2:-auto}
needs_examples scsigen
modprobe bsg 2>/dev/null || true
make_paths 64
dir=/tmp/job
mkdir -p $dir
daemon_start $dir --device scsi --discover no --transport "$transport" --lu-reset array --path-grouping-policy multibus --path-selector "round-robin 0" \
  --polling-interval 1 --path "$(node_of "$kind" "$P1")" --path "$(node_of "$kind" "$P2")"
ctl show topology
load_begin scsigen --queues 2 --depth 8 --span 4194304 --allow 06/,0b/00/06
for turn in 1 2 3; do
  sleep 0.5
  name=$(basename "$(node_of "$kind" "$P1")")
  delete_path "$P1"
  daemon_await_path "$name" failed 10
  step "$P1 is deleted, turn $turn; the guest goes on"
  sleep 0.3
  ctl del path "$name" >/dev/null
  rescan "$H1"
  P1=$(sd_of_host "$H1")
  # Its name and its claim are free when the last command has returned.
  for try in 1 2 3 4 5; do ctl add path "$(node_of "$kind" "$P1")" >/dev/null && break; [ $try -lt 5 ]; sleep 0.2; done
  daemon_await_path "$(basename "$(node_of "$kind" "$P1")")" active 10
  read -r P1 P2 H1 H2 <<<"$P2 $P1 $H2 $H1"
done
load_end
load_told

said=$(printf '%s\n' 000000000000 tmf=5 000000000000 wait=100 000000000000 000000000000 28000000000000000100\ in=512 |
  /rig/bin/scsigen --socket "$DAEMON_SOCKET" | sed 's/ data=.*//; s/^/  /')
echo "$said"
grep -q 'the guest reset the LU; done in the array' "$DAEMON_LOG" || die "the array was not reset"
if [ "${RIG_PATHS:-lio}" = lio ]; then
  [ "$(grep -c 'sense=70000600.*2903' <<<"$said")" = 1 ] || die "29/03 must be heard once"
fi
daemon_end
conclude "--device scsi --transport $transport over $kind nodes: three times a path was deleted under a verified load; no wrong byte, nothing done twice."
