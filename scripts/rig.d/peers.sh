#!/bin/bash
# Job: peers.sh [ROUNDS [SECONDS]]. 4 KiB random reads at depth 32 on one real path, beside today's tools, interleaved:
#   fio, io_uring on the bare /dev/sdX, and the daemon by blk-uring under the front-end double;
#   a guest's own io_uring loop on QEMU's scsi-block on that /dev/sdX, and on vhost-user-scsi by each transport of ours.
# Prints the rows of docs/performance.md: median (least–most), and the ratios of each round.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. lib/load.sh
. lib/rows.sh
. rig.d/paths.sh

rounds=${1:-3} seconds=${2:-3} depth=32
needs_examples loadgen bareloop
[ -x /fio/usr/bin/fio ] || die "there is no fio in the tree" "scripts/rig run peers.sh unpacks it."
make_paths 64
dir=/tmp/job ROWS=/tmp/job
mkdir -p $dir/tree
mkdir -p /fio/dev /fio/proc
mount --bind /dev /fio/dev
mount -t proc proc /fio/proc
GUEST_DEVICE=scsi GUEST_TIMEOUT=120
guest_add_program $dir/tree /rig/bin/bareloop

fio_on_the_disk() {
  # Of fio's terse line (version 3): 8 read IOPS.
  local iops
  iops=$(chroot /fio /usr/bin/fio --name=r --filename="/dev/$P1" --rw=randread --bs=4k --iodepth=$depth --ioengine=io_uring \
    --direct=1 --time_based --runtime="$seconds" --output-format=terse | tail -n 1 | cut -d';' -f8)
  [ -n "$iops" ] || die "fio said nothing"
  row fio "{\"iops\":$iops}"
}

double_on_the_daemon() {
  daemon_start $dir --discover no --num-queues 1 --transport "$1" --path "/dev/$P1"
  row "double-$1" "$(/rig/bin/loadgen --socket "$DAEMON_SOCKET" --depth $depth --seconds "$seconds" --sleep)"
  daemon_end
}

# in_a_guest ROW: boots, runs the loop and powers off.
in_a_guest() {
  GUEST_TREE=$dir/tree guest_start $dir "${DAEMON_SOCKET:-none}" guest.d/bareloop
  guest_finish 100
  row "$1" "$(tr -d '\r' <"$GUEST_CONSOLE" | sed -n 's/^.*GUEST: row //p')"
}
guest_on_scsi_block() {
  GUEST_PEER=(-blockdev "driver=host_device,filename=/dev/$P1,node-name=d0,cache.direct=on"
    -device "virtio-scsi-pci,id=s0,num_queues=1" -device "scsi-block,drive=d0,bus=s0.0")
  in_a_guest scsi-block
  GUEST_PEER=()
}
guest_on_the_daemon() {
  daemon_start $dir --device scsi --discover no --num-queues 1 --transport "$1" --path "/dev/$P1"
  in_a_guest "guest-$1"
  daemon_end
}

for ((round = 1; round <= rounds; round++)); do
  step "round $round"
  fio_on_the_disk
  double_on_the_daemon blk-uring
  double_on_the_daemon bsg-uring
  guest_on_scsi_block
  guest_on_the_daemon bsg-uring
  guest_on_the_daemon sg-io
done

say "4 KiB random reads, depth $depth, one queue, one path (${RIG_PATHS:-lio}); $rounds rounds of $seconds s, $(uname -sr), $(nproc) CPU"
say "$(chroot /fio /usr/bin/fio --version), $(qemu-system-x86_64 --version | head -1)"
say "| | IOPS |"
say "|---|---|"
for name in fio double-blk-uring double-bsg-uring scsi-block guest-bsg-uring guest-sg-io; do say "| $name | $(median $dir/$name.rows 1) |"; done
for name in double-blk-uring double-bsg-uring; do say "$name against fio: $(against $name fio)"; done
for name in guest-bsg-uring guest-sg-io; do say "$name against scsi-block: $(against $name scsi-block)"; done
