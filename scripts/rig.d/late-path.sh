#!/bin/bash
# Job: late-path.sh. A device over a simulated LU under a verified load gets a second LU of real SCSI paths meanwhile: its
# threads change to the kind of io_uring that bsg nodes want, without a request of the first LU lost.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

needs_examples scsigen
make_paths 64
dir=/tmp/job
mkdir -p $dir
daemon_start $dir --device scsi --num-queues 2 --path "sim:$dir/lu.img,size=64M" --path "sim:$dir/lu.img"
load_begin scsigen --queues 2 --depth 8 --span 4194304 --allow 06/
sleep 0.5
ctl add lun 0:1 "/dev/$P1" "/dev/$P2"
sleep 0.5
ctl show paths
sleep 0.5
load_end
load_told
transport=$(sed -n "s/.*path $P1: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG")
step "$P1 is served by $transport"
said=$(printf '%s\n' 000000000000\ lun=0:1 000000000000\ lun=0:1 000000000000\ lun=0:1 28000000000000000100\ in=512\ lun=0:1 |
  /rig/bin/scsigen --socket "$DAEMON_SOCKET" | sed 's/ data=.*//; s/^/  /')
echo "$said"
[ "$(tail -1 <<<"$said" | grep -c 'status=00 resid=0')" = 1 ] || die "the second LU does not answer"
daemon_end
conclude "an LU of real paths ($transport) came under the load of another; no wrong byte, no error."
