#!/bin/bash
# Job: discard.sh [blk|scsi [TRANSPORT]]. What a guest deletes and trims is free again in LIO's backing file: by
# vhost-user-blk's DISCARD, or by UNMAP and WRITE SAME with the UNMAP bit through vhost-user-scsi. `stat` counts.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh
HERE=$PWD
. lib/orders.sh

ORDER_PATIENCE=200
GUEST_DEVICE=${1:-blk}
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO has a backing file"
make_paths 256
dir=/tmp/job
mkdir -p $dir
daemon_start $dir --device "$GUEST_DEVICE" --transport "${2:-auto}" --path "/dev/$P1" --path "/dev/$P2"
ctl show topology
GUEST_TIMEOUT=280 orders_guest $dir discard
case $GUEST_DEVICE in
  blk) discards_story /tmp/lu.img discard ;;
  *) discards_story /tmp/lu.img unmap writesame_16 ;;
esac
orders_end
if grep -q 'path sd. failed' "$DAEMON_LOG"; then die "a path was blamed" "$(grep failed "$DAEMON_LOG" | head -3)"; fi
daemon_end
conclude "vhost-user-$GUEST_DEVICE: what the guest deleted and trimmed is free in LIO's file again."
