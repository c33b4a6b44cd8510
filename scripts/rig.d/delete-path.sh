#!/bin/bash
# Job: delete-path.sh TRANSPORT [MIB]. The daemon over two real /dev/sdX, a guest that writes and verifies, one path
# deleted through sysfs meanwhile; it comes back under another name, is added, then the other path is deleted.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh

transport=${1:-auto}

make_paths "${2:-256}"
dir=/tmp/job
mkdir -p $dir
DAEMON_PEER_FILE=/dev/$P2
daemon_start $dir --transport "$transport" --discover no --no-path-retry fail --polling-interval 1 --path "/dev/$P1" --path "/dev/$P2"
ctl show topology

GUEST_TIMEOUT=250 guest_start $dir "$DAEMON_SOCKET" guest.d/failover
guest_await "GUEST: writing" 120
guest_await_files 4
step "the guest is writing; deleting $P1"
delete_path "$P1"
guest_await_files 4
daemon_await_path "$P1" failed 20
ctl show topology
step "the guest goes on through $P2"

rescan "$H1"
new=$(sd_of_host "$H1")
step "the path is back as $new"
if ! daemon_is_peer; then
  ctl del path "$P1"
  ctl add path "/dev/$new"
  daemon_await_path "$new" active 20
  guest_await_files 4
  step "now deleting $P2: everything must go through $new"
  delete_path "$P2"
fi
guest_await_files 4
ctl show topology
guest_tell stop
guest_finish 120
step "the guest $(guest_said wrote)"
step "the guest $(guest_said verified)"
daemon_end
# Nothing may hold a path any more: the LU is one and the same on the path that is left.
conclude "--transport $transport: a path was deleted under a writing guest, twice; no error, every byte verified."
