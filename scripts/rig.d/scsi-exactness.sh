#!/bin/bash
# Job: scsi-exactness.sh [TRANSPORT [one-path]]. A list of SCSI commands on the bare /dev/sdX, and the same list in a guest through the
# daemon over four paths, with one-path then over one; another host reserves and fences at the same places of the list. What came
# back of each is compared outside (lib/exactness.sh).
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. rig.d/paths.sh
. rig.d/scsi-paths.sh
. rig.d/nexuses.sh

make_nexuses 64
dir=/tmp/job
mkdir -p $dir
step "the bare disk"
bare answers
step "through the daemon, in a guest"
# shellcheck disable=SC2046  # options
through answers --transport "${1:-sg-io}" $(path_options 4)
[ "${2:-}" = one-path ] || exit 0
step "through the daemon over one path, in a guest"
# shellcheck disable=SC2046
through answers --transport "${1:-sg-io}" $(path_options 1) | sed 's/^GUEST: answer/ONE PATH: answer/'
