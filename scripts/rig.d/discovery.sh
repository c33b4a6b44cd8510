#!/bin/bash
# Job: discovery.sh [scsi|blk|nodes|container|outages [scsi|blk]]. Paths that are found by the logical unit's name, leave when their devices are
# deleted and join again by themselves, under load with every byte verified; names that another logical unit gets;
# disks that somebody else uses. Prints how long each took.
#   scsi       vhost-user-scsi: one logical unit by --map, another by add lun --wwid; dm holder, mounted node
#   blk        vhost-user-blk by --wwid, over io_uring: what only a uevent tells (a path that may lead elsewhere)
#   nodes      paths given as bsg and sg nodes
#   outages    both paths deleted at once and back, twenty times
#   container  the daemon in a user namespace of its own, where no uevent comes
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/multipathd.sh

kind=${1:-scsi}
# What the load is a guest of.
device=${2:-scsi}
[ "$kind" != blk ] || device=blk
needs_examples scsigen loadgen
modprobe bsg 2>/dev/null || true
make_paths 64
dir=/tmp/job
mkdir -p $dir
CORE=/sys/kernel/config/target/core
W=$(wwid_of "$P1")

has_let_go() { ! readlink "/proc/$DAEMON_PID"/fd/* | grep -qw "/dev/$1"; }
has_said() { grep -q "$@" "$DAEMON_LOG"; }
load_of_device() {
  case $device in
    blk) load_begin loadgen --queues 2 --depth 8 --block-size 65536 --span 4194304 ;;
    *) load_begin scsigen --queues 2 --depth 8 --span 4194304 --compare 0 --allow 06/ ;;
  esac
}

# another_lu N: a second logical unit, in LIO only. lu_at HOST-NUMBER-OF-PATH LUN LU|none: what a target shows there;
# the disk that was there is deleted.
another_lu() {
  truncate -s 16M "/tmp/lu$1.img"
  mkdir -p "$CORE/fileio_$1/lu"
  echo "fd_dev_name=/tmp/lu$1.img,fd_dev_size=$((16 << 20))" >"$CORE/fileio_$1/lu/control"
  echo "deadbeef000$1" >"$CORE/fileio_$1/lu/wwn/vpd_unit_serial"
  echo 1 >"$CORE/fileio_$1/lu/enable"
}
lu_at() {
  local at=/sys/kernel/config/target/loopback/naa.60014050000000$1/tpgt_1/lun/lun_$2
  mkdir -p "$at"
  rm -f "$at/lu"
  [ "$3" = none ] || ln -s "$CORE/fileio_$3/lu" "$at/lu"
}
sd_at() { # HOST LUN: the disk there
  local i d
  for ((i = 0; i < 200; i++)); do
    for d in /sys/class/scsi_host/host"$1"/device/target*/*:"$2"/block/*; do
      if [ -b "/dev/${d##*/}" ]; then echo "${d##*/}"; return 0; fi
    done
    sleep 0.02
  done
  die "no disk appeared at LUN $2 of SCSI host $1"
}

# delete_and_find: the path leaves and its file is closed; it comes back by the same name and joins.
delete_and_find() { # SDX HOST
  local again
  delete_path "$1"
  within "${3:-1000}" "$1 is deleted and has left the map" has_no_path "$1"
  within 1000 "and its file is closed" has_let_go "$1"
  load_goes_on
  sleep 0.3
  rescan "$2"
  again=$(sd_at "$2" 0)
  [ "$again" = "$1" ] || die "it came back as $again, not as $1: somebody had it open"
  within "${3:-1000}" "$again is found and has joined" has_path "$again"
  load_goes_on
}

story_scsi() {
  mkdir -p /etc/multipath
  mount -t tmpfs none /etc/multipath
  echo "database $W" >/etc/multipath/bindings
  daemon_start $dir --device scsi --map database --polling-interval 1 --path-grouping-policy multibus \
    --path-selector "round-robin 0"
  within 2000 "both paths are found by the map's name" eval "has_path $P1 && has_path $P2"
  ctl show topology
  ctl show devices
  load_of_device
  delete_and_find "$P1" "$H1"
  delete_and_find "$P2" "$H2"
  delete_and_find "$P1" "$H1"

  step "both paths at once"
  delete_path "$P1"
  delete_path "$P2"
  within 1000 "both have left" eval "has_no_path $P1 && has_no_path $P2"
  ctl show topology
  sleep 1
  rescan "$H1"
  within 1000 "$P1 is back" has_path "$P1"
  rescan "$H2"
  within 1000 "$P2 is back" has_path "$P2"
  load_goes_on

  step "what an administrator has removed stays out until its device is another one"
  ctl del path "$P1"
  sleep 1
  has_no_path "$P1" || die "$P1 came back by itself"
  ctl show devices
  delete_path "$P1"
  sleep 0.3
  rescan "$H1"
  within 1000 "its device is another one, and it joins" has_path "$P1"

  step "offline and back"
  echo offline >"/sys/block/$P1/device/state"
  ctl show paths
  ctl show paths raw format '%d %o' | grep -qx "$P1 offline" || die "it is not shown as offline"
  echo running >"/sys/block/$P1/device/state"
  within 5000 "$P1 runs again" has_path "$P1"
  load_goes_on

  step "another logical unit under the old name"
  another_lu 3
  local new
  lu_at 1 0 none
  within 1000 "$P1 has left" has_no_path "$P1"
  within 1000 "and its file is closed" has_let_go "$P1"
  lu_at 1 0 3
  new=$(sd_at "$H1" 0)
  [ "$new" = "$P1" ] || die "the other logical unit is $new, not $P1"
  sleep 1
  ctl show devices
  ! has_said "$new .*cannot be a path" || die "another logical unit was opened"
  has_no_path "$new" || die "another logical unit has joined"
  has_let_go "$new" || die "another logical unit's disk is open"
  load_goes_on
  lu_at 1 0 none
  lu_at 1 0 0
  P1=$(sd_at "$H1" 0)
  within 1000 "the old one is back as $P1" has_path "$P1"

  step "disks that somebody else uses"
  another_lu 2
  lu_at 1 1 2
  lu_at 2 1 2
  local a b X
  a=$(sd_at "$H1" 1) b=$(sd_at "$H2" 1)
  X=$(cat "/sys/block/$a/device/wwid")
  mkfs.ext2 -q "/dev/$a"
  mkdir -p /tmp/mnt
  mount -o ro "/dev/$a" /tmp/mnt
  hold_by_dm "$b"
  if ctl add lun 0:1 --wwid "$X" 2>$dir/refused; then die "disks in use were taken"; fi
  sed 's/^/  /' $dir/refused
  grep 'mounted file system' $dir/refused | grep -q 'device-mapper device held' || die "it does not say who"
  umount /tmp/mnt
  ctl add lun 0:1 --wwid "$X"
  within 1000 "$a is not mounted any more, and a path" has_path "$a"
  within 2000 "$b is told to be in use by dm" has_said "$b .*device-mapper device held"
  ctl show devices
  sleep 6 # tried again
  [ "$(grep -c "$b .*cannot be a path" "$DAEMON_LOG")" = 1 ] || die "it was told more than once"
  release_by_dm
  within 2000 "$b is let go of and has joined" has_path "$b"
  delete_path "$a"
  within 1000 "$a is deleted and has left" has_no_path "$a"
  lu_at 1 1 none
  lu_at 1 1 2
  a=$(sd_at "$H1" 1)
  within 1000 "it is back as $a" has_path "$a"
  ctl del lun 0:1
  load_goes_on
  mount -o ro "/dev/$a" /tmp/mnt
  ctl add lun 0:1 --wwid "$X"
  within 1000 "$a is told to be mounted" has_said "$a .*mounted"
  umount /tmp/mnt
  within 7000 "$a is unmounted (no uevent tells that) and has joined" has_path "$a"
  sleep 1
  load_end
  load_told
  ctl show topology
}

# By dm of the tree with multipath-tools, without multipathd or udevd.
hold_by_dm() {
  modprobe dm-mod
  tree_opened
  dm create --noudevsync held --table "0 2048 linear /dev/$1 0"
}
release_by_dm() { dm remove --noudevsync held; }

story_blk() {
  daemon_start $dir --wwid "0x${W#3}" --polling-interval 20 --transport blk-uring --path-grouping-policy multibus \
    --path-selector "round-robin 0"
  has_said "is $W, as multipath-tools write it" || die "it does not say what it has understood"
  within 2000 "both paths are found by their WWID" eval "has_path $P1 && has_path $P2"
  load_of_device
  delete_and_find "$P1" "$H1"
  delete_and_find "$P2" "$H2"
  local t=/sys/kernel/config/target/loopback/naa.600140500000001/tpgt_1/lun/lun_0
  mkdir "$CORE/fileio_0/lu/alua/other"
  echo 7 >"$CORE/fileio_0/lu/alua/other/tg_pt_gp_id"
  echo 3 >"$CORE/fileio_0/lu/alua/other/alua_access_type"
  step "moving $P1 to another target port group: the LU says that its inquiry data have changed, io_uring does not"
  echo other >"$t/alua_tg_pt_gp"
  within 3000 "$P1 is in doubt by a uevent" has_said "$P1 is suspect: the kernel has heard INQUIRY_DATA_HAS_CHANGED"
  within 2000 "and proven again" has_path "$P1"
  step "the group becomes non-optimized"
  echo 1 >"$CORE/fileio_0/lu/alua/other/alua_access_state"
  within 3000 "that is known, long before the next check" has_said "$P1 .*is active/non-optimized"
  sleep 1
  load_end
  load_told
  ctl show topology
}

story_nodes() {
  local bsg sg
  bsg=$(hctl_of "$P1") sg=$(sg_of "$P2")
  daemon_start $dir --device scsi --path "/dev/bsg/$bsg" --path "/dev/$sg" --polling-interval 1 \
    --path-grouping-policy multibus --path-selector "round-robin 0"
  within 2000 "paths $bsg and $sg" eval "has_path $bsg && has_path $sg"
  load_of_device
  delete_path "$P1"
  within 1000 "$bsg is deleted and has left" has_no_path "$bsg"
  within 1000 "and $P1 is let go of" has_let_go "$P1"
  rescan "$H1"
  within 2000 "it is back as $P1" has_path "$P1"
  load_goes_on
  delete_path "$P2"
  within 1000 "$sg is deleted and has left" has_no_path "$sg"
  within 1000 "and $P2 is let go of" has_let_go "$P2"
  rescan "$H2"
  within 2000 "it is back as $P2" has_path "$P2"
  sleep 1
  load_end
  load_told
}

story_outages() {
  local turn again
  daemon_start $dir --device "$device" --wwid "$W" --polling-interval 1 --path-grouping-policy multibus \
    --path-selector "round-robin 0"
  within 2000 "both paths" eval "has_path $P1 && has_path $P2"
  load_of_device
  for ((turn = 1; turn <= 20; turn++)); do
    delete_path "$P1"
    delete_path "$P2"
    within 1000 "turn $turn: both have left" eval "has_no_path $P1 && has_no_path $P2"
    load_goes_on
    rescan "$H1"
    rescan "$H2"
    P1=$(sd_at "$H1" 0) P2=$(sd_at "$H2" 0)
    within 1000 "turn $turn: $P1 and $P2 are back" eval "has_path $P1 && has_path $P2"
    sleep 0.2
  done
  sleep 1
  load_end
  load_told
}

story_container() {
  step "a user namespace, in which no uevent is heard"
  DAEMON_BINARY=$VHOST_MPATH
  printf '#!/bin/sh\nexec unshare -U -r -n %s "$@"\n' "$DAEMON_BINARY" >$dir/vhost-mpath
  chmod +x $dir/vhost-mpath
  VHOST_MPATH=$dir/vhost-mpath
  daemon_start $dir --device scsi --wwid "$W" --polling-interval 1 --path-grouping-policy multibus
  VHOST_MPATH=$DAEMON_BINARY
  within 3000 "it says so" has_said "looked at once a second"
  within 2000 "both paths" eval "has_path $P1 && has_path $P2"
  load_of_device
  delete_and_find "$P1" "$H1" 2500
  sleep 1
  load_end
  load_told
}

"story_$kind"
sed -n 's/^/  daemon: /p' "$DAEMON_LOG" | grep -v ' debug ' | tail -60
no_error_told "$DAEMON_LOG"
daemon_end
conclude "discovery, $kind: paths were deleted and found again under a verified load, and each joined by itself."
