#!/bin/bash
# Job: allocations.sh. The test queue_allocations over the two real paths, by the transport auto takes: no allocation for an
# I/O whose data lie in one piece or in several.
set -euo pipefail
. lib/say.sh
. rig.d/paths.sh

[ -x /rig/bin/queue_allocations ] || die "only with the test queue_allocations built here"
make_paths 64
VHOST_MPATH_DISKS=/dev/$P1,/dev/$P2 timeout 200 /rig/bin/queue_allocations --ignored --nocapture | tee /tmp/said
grep -q '^test result: ok\. [1-9]' /tmp/said || die "no test was run"
say "no allocation per I/O over $P1 and $P2"
