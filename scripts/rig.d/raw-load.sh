#!/bin/bash
# Job: raw-load.sh sd|sg|bsg [TRANSPORT]. The daemon as vhost-user-scsi over two real paths by these nodes; a guest by
# hand (examples/scsigen) sends READ, WRITE and COMPARE AND WRITE over both, every byte verified, while the paths are
# deleted through sysfs one after the other and come back. No COMPARE AND WRITE may be carried out twice: one whose
# path went away under it ends with 0B/00/06. At the end the guest resets the LU, in the array, too.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. rig.d/paths.sh

kind=${1:-sd} transport=${2:-auto}
[ -x /rig/bin/scsigen ] || { say "only with the daemon built here, and its example scsigen"; exit 1; }
modprobe bsg 2>/dev/null || true
make_paths 64
node_of() { # SDX
  case $kind in
    sd) echo "/dev/$1" ;;
    sg) echo "/dev/$(ls "/sys/block/$1/device/scsi_generic")" ;;
    bsg) echo "/dev/bsg/$(basename "$(readlink -f "/sys/block/$1/device")")" ;;
    *) die "sd, sg or bsg?" ;;
  esac
}
dir=/tmp/job
mkdir -p $dir
daemon_start $dir --device scsi --discover no --transport "$transport" --lu-reset array --path-grouping-policy multibus --path-selector "round-robin 0" \
  --polling-interval 1 --path "$(node_of "$P1")" --path "$(node_of "$P2")"
ctl show topology
/rig/bin/scsigen --mode verify --socket "$DAEMON_SOCKET" --queues 2 --depth 8 --span 4194304 --seconds 200 \
  --until $dir/enough --allow 06/,0b/00/06 >$dir/guest 2>&1 &
guest=$!
until grep -q verifying $dir/guest; do
  kill -0 $guest 2>/dev/null || { cat $dir/guest; exit 1; }
  sleep 0.1
done
for turn in 1 2 3; do
  sleep 0.5
  name=$(basename "$(node_of "$P1")")
  delete_path "$P1"
  daemon_await_path "$name" failed 10
  step "$P1 is deleted, turn $turn; the guest goes on"
  sleep 0.3
  ctl del path "$name" >/dev/null
  rescan "$H1"
  P1=$(sd_of_host "$H1")
  # Its name and its claim are free when the last command has returned.
  for try in 1 2 3 4 5; do ctl add path "$(node_of "$P1")" >/dev/null && break; [ $try -lt 5 ]; sleep 0.2; done
  daemon_await_path "$(basename "$(node_of "$P1")")" active 10
  read -r P1 P2 H1 H2 <<<"$P2 $P1 $H2 $H1"
done
kill -0 $guest || { cat $dir/guest; exit 1; }
touch $dir/enough
rc=0
wait $guest || rc=$?
sed 's/^/  /' $dir/guest
[ $rc = 0 ] || exit 1

said=$(printf '%s\n' 000000000000 tmf=5 000000000000 wait=100 000000000000 000000000000 28000000000000000100\ in=512 |
  /rig/bin/scsigen --socket "$DAEMON_SOCKET" | sed 's/ data=.*//; s/^/  /')
echo "$said"
grep -q 'the guest reset the LU; done in the array' "$DAEMON_LOG" || die "the array was not reset"
if [ "${RIG_PATHS:-lio}" = lio ]; then
  [ "$(grep -c 'sense=70000600.*2903' <<<"$said")" = 1 ] || die "29/03 must be heard once"
fi
daemon_stop || die "the daemon did not end cleanly on SIGTERM" "$(tail -3 "$DAEMON_LOG")"
conclude "--device scsi --transport $transport over $kind nodes: three times a path was deleted under a verified load; no wrong byte, nothing done twice."
