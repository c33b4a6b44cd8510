#!/bin/bash
# Job: scsi-exactness.sh [TRANSPORT]. A list of SCSI commands on the bare /dev/sdX, and the same list in a guest through the daemon
# over both paths; what came back of each is compared outside (lib/exactness.sh).
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh
. rig.d/scsi-paths.sh


make_paths 64
dir=/tmp/job
mkdir -p $dir
step "the bare disk"
bare answers
step "through the daemon, in a guest"
through answers --transport "${1:-sg-io}" --path "/dev/$P1" --path "/dev/$P2"
