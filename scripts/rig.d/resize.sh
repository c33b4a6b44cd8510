#!/bin/bash
# Job: resize.sh [blk|scsi [TRANSPORT]]. LIO's file behind two real paths gets longer while a guest writes to a file
# system on it, and the guest's disk grows with it: once because an administrator has the daemon look (LIO tells nobody),
# while sd still has the old size; once because both sdX are rescanned, without a word to the daemon. Then it gets shorter.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh
HERE=$PWD
. lib/orders.sh

ORDER_PATIENCE=200
GUEST_DEVICE=${1:-blk}
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO's logical unit can be resized"
make_paths 64
dir=/tmp/job
mkdir -p $dir
daemon_start $dir --device "$GUEST_DEVICE" --transport "${2:-auto}" --polling-interval 1 --set max_polling_interval=1 \
  --path "/dev/$P1" --path "/dev/$P2"
ctl show topology
sectors() { cat "/sys/block/$1/size"; }
rescan_disks() { local p; for p in $P1 $P2; do echo 1 >"/sys/block/$p/device/rescan"; done; }
turn=0
set_size() {
  local core=/sys/kernel/config/target/core/fileio_0/lu
  turn=$((turn + 1))
  # Never shorter than it was: what LIO serves is what it is told here.
  [ "$(stat -c %s /tmp/lu.img)" -ge $(($1 << 20)) ] || truncate -s "$1M" /tmp/lu.img
  echo "fd_dev_size=$(($1 << 20))" >$core/control
  case $turn in
    1)
      step "the LU has $1 MiB; the daemon is asked to look, $P1 still has $(($(sectors "$P1") / 2048)) MiB"
      ctl resize map
      ;;
    2)
      step "the LU has $1 MiB; both disks are rescanned, nobody tells the daemon"
      rescan_disks
      ;;
    *)
      step "the LU has $1 MiB, fewer than before"
      rescan_disks
      ;;
  esac
}
GUEST_TIMEOUT=280 orders_guest $dir resize
resize_story 48 96 128
ctl show topology
ctl show maps json | grep -E '"(guest_)?size"' | sed 's/^ */    /' | sort -u
grep -h 'the LU has' "$DAEMON_LOG" | sed 's/^/    /'
if grep -q 'path sd. failed' "$DAEMON_LOG"; then die "a path was blamed" "$(grep failed "$DAEMON_LOG" | head -3)"; fi
daemon_end
conclude "vhost-user-$GUEST_DEVICE, --transport ${2:-auto}: the LU grew twice under a running file system and shrank at the end; no path was blamed."
