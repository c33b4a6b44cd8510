#!/bin/bash
# Job: session.sh [TRANSPORT]. A session on a hypervisor host, as a transcript: a guest writes to a file system while one of its disk's
# two paths is deleted, found again by a rescan of its host, and then the other one. Lines that begin with # are typed, what stands
# below each is its output. The end of the README's section is what this prints.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

transport=${1:-auto}

dir=/run/vm1
mkdir -p $dir
make_paths 256 >$dir/paths
! daemon_is_peer || { say "only with the daemon built here"; exit 1; }
PATH=/rig/bin:$PATH
W=$(wwid_of "$P1")

typed() { printf '# %s\n' "$*"; }
# run COMMAND: types it and shows what it says.
run() {
  typed "$1"
  eval "$1" | sed 's/ *$//'
  echo
}
topology() { run "vhost-mpath ctl --control $dir/control.sock show topology"; }
# guest_goes_on FILES: so many more of each writer, with what it says of that.
guest_goes_on() {
  local from
  from=$(guest_written)
  guest_await_files "$1"
  printf 'guest: the first writer had written %s files, now %s\n\n' "$from" "$(guest_written)"
}
run "lsscsi -s"
typed "vhost-mpath --socket-path $dir/disk.sock --control $dir/control.sock --wwid $W &"
options=()
[ "$transport" = auto ] || options=(--transport "$transport")
daemon_start $dir --wwid "$W" "${options[@]}"
until grep -q "serving" "$DAEMON_LOG"; do sleep 0.05; done
sed 's/^/daemon: /' "$DAEMON_LOG" | grep -v "QEMU\|^daemon:  "
echo
guest_qemu_command $dir/disk.sock $GUEST_MEMORY $GUEST_CPUS "$(guest_accel)" max
typed "${GUEST_QEMU[*]} … &"
GUEST_TIMEOUT=250 guest_start $dir "$DAEMON_SOCKET" guest.d/failover
guest_await "GUEST: writing" 120
printf 'guest: %s\n' "$(guest_said up:)"
printf 'guest: ext4 made and mounted, two writers at work: files of 1 MiB, each synced\n\n'
guest_goes_on 4
topology

run "echo 1 > /sys/block/$P1/device/delete"
soon 10000 "$P1 leaves" has_no_path "$P1"
topology
run "lsscsi -s"
guest_goes_on 8

run "echo '- - -' > /sys/class/scsi_host/host$H1/scan"
[ "$(sd_of_host "$H1")" = "$P1" ] || die "it came back under another name: $(sd_now "$H1")"
soon 10000 "$P1 joins" has_path "$P1"
topology
guest_goes_on 4

say "And the other one, so that everything goes by the path that came back:"
echo
run "echo 1 > /sys/block/$P2/device/delete"
soon 10000 "$P2 leaves" has_no_path "$P2"
topology
guest_goes_on 8
run "echo '- - -' > /sys/class/scsi_host/host$H2/scan"
[ "$(sd_of_host "$H2")" = "$P2" ] || die "it came back under another name: $(sd_now "$H2")"
soon 10000 "$P2 joins" has_path "$P2"
topology
guest_goes_on 4

guest_tell stop
guest_finish 120
printf 'guest: %s\n' "$(guest_said wrote)"
printf 'guest: unmounted, checked by e2fsck, mounted again: %s\n' "$(guest_said verified)"
grep -qa 'GUEST: kernel log clean' "$GUEST_CONSOLE" && printf 'guest: no I/O error in its kernel log\n'
echo
run "grep -E 'removed|added' $DAEMON_LOG"
daemon_end
