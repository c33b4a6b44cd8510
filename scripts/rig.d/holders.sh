#!/bin/bash
# Job: holders.sh. Disks that somebody else uses, each refused at once with who it is and what to do: a mounted file system, device
# mapper, a path of dm-multipath, dm-multipath's own device, an md member, swap space, another vhost-mpath. Prints the words.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. rig.d/paths.sh
. rig.d/multipathd.sh

make_paths 64
dir=/tmp/job
mkdir -p $dir /tmp/mnt
tree_opened
modprobe dm-mod
modprobe dm-multipath
modprobe dm-round-robin
modprobe md-mod
modprobe raid1

# refused NODE WORD…: the daemon does not start, says each word, and is quick.
refused() {
  local node=$1 began=${EPOCHREALTIME/[.,]/} rc=0 word took
  shift
  timeout 20 "$VHOST_MPATH" --socket-path $dir/refused.sock --path "$node" 2>$dir/refused || rc=$?
  took=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
  sed 's/^/  /' $dir/refused
  [ $rc = 1 ] || die "$node was not refused (exit code $rc)"
  [ $took -lt 3000 ] || die "that took $took ms"
  for word in "$@"; do grep -qF -- "$word" $dir/refused || die "it does not say '$word'"; done
}

step "mounted"
mkfs.ext2 -q "/dev/$P1"
mount "/dev/$P1" /tmp/mnt
refused "/dev/$P1" "a mounted file system ($P1 on /tmp/mnt)" "umount /tmp/mnt"
refused "$(node_of sg "$P1")" "a mounted file system ($P1 on /tmp/mnt)"
refused "$(node_of bsg "$P1")" "a mounted file system ($P1 on /tmp/mnt)"
umount /tmp/mnt

step "held by device mapper"
dm create --noudevsync held --table "0 2048 linear /dev/$P1 0"
refused "/dev/$P1" "device-mapper device held" "dmsetup remove held"
dm remove --noudevsync held

step "a path of dm-multipath, and its head"
sectors=$(cat "/sys/block/$P1/size")
dm create --noudevsync mpatha --uuid "mpath-$(wwid_of "$P1")" \
  --table "0 $sectors multipath 0 0 1 1 round-robin 0 2 1 /dev/$P1 1 /dev/$P2 1"
refused "/dev/$P1" "multipathd (map mpatha)" "multipath -f mpatha"
head=$(basename "$(readlink -f "/sys/block/$P1"/holders/*)")
[ -b "/dev/$head" ] || mknod "/dev/$head" b "$(cut -d: -f1 "/sys/block/$head/dev")" "$(cut -d: -f2 "/sys/block/$head/dev")"
refused "/dev/$head" "is itself a multipath device (mpatha)" "give its paths instead: $P1 $P2"
dm remove --noudevsync mpatha

step "a member of an md array"
echo md0 >/sys/module/md_mod/parameters/new_array 2>/dev/null || echo md_vhost >/sys/module/md_mod/parameters/new_array
md=$(basename "$(ls -d /sys/block/md*)")
echo raid1 >"/sys/block/$md/md/level"
echo none >"/sys/block/$md/md/metadata_version"
echo 2 >"/sys/block/$md/md/raid_disks"
cat "/sys/block/$P1/dev" >"/sys/block/$md/md/new_dev"
refused "/dev/$P1" "the md array $md" "mdadm --stop /dev/$md"
echo clear >"/sys/block/$md/md/array_state" 2>/dev/null || true

step "swap space"
mkswap "/dev/$P2" >/dev/null
swapon "/dev/$P2"
refused "/dev/$P2" "swap space ($P2)" "swapoff /dev/$P2"
swapoff "/dev/$P2"

step "another vhost-mpath"
daemon_start $dir --discover no --path "/dev/$P2"
refused "/dev/$P2" "process $DAEMON_PID (vhost-mpath)"
daemon_end

step "and nobody: it starts"
daemon_start $dir --discover no --path "/dev/$P2"
daemon_end
conclude "each holder was named, and what to do about it."
