#!/bin/bash
# Job: guest.sh [TRANSPORT]. A real guest on the two real paths, once through everything a disk is asked for:
# raw I/O, ext4, fsync, fstrim, remount, e2fsck.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh


make_paths 128
dir=/tmp/job
mkdir -p $dir
DAEMON_PEER_FILE=/dev/$P1
daemon_start $dir --transport "${1:-auto}" --path "/dev/$P1" --path "/dev/$P2"
ctl show topology
GUEST_TIMEOUT=250 guest_start $dir "$DAEMON_SOCKET" guest.d/smoke
guest_finish 200
grep -a 'GUEST: ' "$GUEST_CONSOLE" | tr -d '\r'
daemon_end
