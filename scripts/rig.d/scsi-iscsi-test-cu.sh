#!/bin/bash
# Job: scsi-iscsi-test-cu.sh [one-path]. libiscsi's SCSI tests on the bare /dev/sdX, then in a guest through the daemon
# over four paths; with one-path a third time, over one path and with copying by the array allowed.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh
. rig.d/scsi-paths.sh


make_paths 128 4
dir=/tmp/job
mkdir -p $dir
step "the bare disk"
bare iscsi-test-cu
step "through the daemon, in a guest"
# shellcheck disable=SC2046  # options
through iscsi-test-cu $(path_options 4)
[ "${1:-}" = one-path ] || exit 0
step "through the daemon over one path, in a guest"
through iscsi-test-cu --allow third-party-copy --path "/dev/$P1" | sed 's/^GUEST: cu/ONE PATH: cu/'
