#!/bin/bash
# Job: foreign-reservation.sh [TRANSPORT]. Another host (a fifth nexus) reserves the logical unit that the daemon serves as
# vhost-user-blk over four paths: what the reservation forbids is an I/O error to the guest, VIRTIO_BLK_S_IOERR, and one
# event, told ten times in ten seconds at most; what it allows goes on, and no path has failed. Then it is released.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

transport=${1:-auto}
needs_examples loadgen
make_paths 64 5
OTHER=/dev/$(sd_of_host "$H5")
dir=/tmp/job
mkdir -p $dir
paths=()
for n in 1 2 3 4; do
  h=H$n
  paths+=(--path "/dev/$(sd_of_host "${!h}")")
done
other() { sg_persist -n -o "$@" "$OTHER" >/tmp/said 2>&1 || { cat /tmp/said; die "the other host: sg_persist $*"; }; }
conflicts() { grep -c 'the guest sees an error.*another host has reserved' "$DAEMON_LOG" || true; }
load() { /rig/bin/loadgen --socket "$DAEMON_SOCKET" --depth 8 --block-size 65536 --span 4194304 "$@" >/tmp/said 2>&1; }
goes() { load "$@" || { cat /tmp/said; tail -5 "$DAEMON_LOG"; die "$WHEN: loadgen $* failed"; }; }
is_refused() {
  if load "$@"; then cat /tmp/said; die "$WHEN: loadgen $* went well"; fi
  grep -q 'failed with status 1' /tmp/said || { cat /tmp/said; die "$WHEN: loadgen $*: this is no VIRTIO_BLK_S_IOERR"; }
}
paths_are_good() {
  [ "$(ctl show paths raw format '%t' | sort | uniq -c | tr -s ' ')" = " 4 active" ] || { ctl show paths; die "$WHEN: not all paths are active"; }
  [ "$(ctl --json show paths | grep -c '"failures": 0')" = 4 ] || { ctl --json show paths; die "$WHEN: a path has failed"; }
  step "$WHEN: $* (four paths active, none has ever failed; $(conflicts) events)"
}

start() {
  daemon_start $dir --discover no --transport "$transport" --path-grouping-policy multibus --path-selector "round-robin 0" \
    --polling-interval 1 --set max_polling_interval=1 "${paths[@]}"
}
start
step "blk by $(sed -n "s/.*path [^ ]*: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG" | head -1)"
WHEN="nothing reserved"
goes --mode verify --seconds 1
paths_are_good "every byte verified"

other -G -S bad
other -R -K bad -T 1
WHEN="write exclusive"
goes --mode read --seconds 0.5
[ "$(conflicts)" = 0 ] || die "an event for what went well"
is_refused --mode write --seconds 0.5
sleep 2 # two checks of each path
goes --mode read --seconds 0.5
paths_are_good "reads go on, writes end with I/O errors"
grep -m1 'another host has reserved' "$DAEMON_LOG"

other -L -K bad -T 1
other -R -K bad -T 3
WHEN="exclusive access"
is_refused --mode read --seconds 0.5
for ((i = 0; i < 30; i++)); do is_refused --mode write --seconds 0.1; done
sleep 2
paths_are_good "neither reads nor writes; told $(conflicts) times of more than 30"
if [ "$(conflicts)" -lt 1 ] || [ "$(conflicts)" -gt 20 ]; then die "it was told $(conflicts) times"; fi

first=$(ctl show paths raw format '%d' | head -1)
ctl fail path "$first" >/dev/null
ctl reinstate path "$first" >/dev/null
within 15000 "a path is proven and comes back although another host has exclusive access" has_path "$first"
daemon_end
start
WHEN="exclusive access, and a daemon that starts"
is_refused --mode read --seconds 0.5
paths_are_good "it serves, and neither reads nor writes"

other -L -K bad -T 3
WHEN="released"
goes --mode verify --seconds 1
paths_are_good "every byte verified"
other -G -K bad -S 0
daemon_end
good "--transport $transport: another host's reservation is the guest's I/O error, and no path's failure."
