#!/bin/bash
# Job: random-paths.sh [SECONDS [TRANSPORT [double|guest [SEED]]]]. Four paths to one logical unit that are deleted, found again,
# put offline and back at random, one or several at once, sometimes all four for less than two seconds. Meanwhile the front-end
# double writes and reads, each byte verified, or a real guest fills a file system. At the end all four are paths again, under the
# names they had at first, and the daemon has nothing open of a device that was deleted. Prints what it did, with the seed that does it
# again (what the kernel makes of it in time is another matter).
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/random-faults.sh

seconds=${1:-60} transport=${2:-auto} load_kind=${3:-double} seed=${4:-$((SRANDOM % 32768))}
# Not every run boots a guest: in a bed without one there is the double.
[ "$load_kind" != guest ] || . lib/inner-guest.sh
needs_examples loadgen
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO makes four paths here"
dir=/tmp/job
mkdir -p $dir
make_paths 192 4
read -ra HOST <<<"$HOSTS"
for h in "${HOST[@]}"; do sd_of_host "$h" >/dev/null; done
all_names() { for h in "${HOST[@]}"; do sd_now "$h"; done | sort | xargs; }
NAMES=$(all_names)
W=$(wwid_of "$P1")
daemon_start $dir --transport "$transport" --wwid "$W" --polling-interval 1 --path-grouping-policy multibus --path-selector "round-robin 0"
step "seed $seed, $seconds s, paths $NAMES over $(sed -n "s/.*path $P1: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG"), load: $load_kind"

work_begins() {
  if [ "$load_kind" = guest ]; then
    GUEST_TIMEOUT=$((seconds + 300)) guest_start $dir "$DAEMON_SOCKET" guest.d/failover
    guest_await "GUEST: writing" 180
  else
    load_begin loadgen --queues 2 --depth 8 --block-size 65536 --span 8388608 --seed "$seed"
  fi
}
work_goes_on() {
  if [ "$load_kind" = guest ]; then
    kill -0 "$GUEST_PID" 2>/dev/null || { guest_explain "the guest ended"; trouble "the guest ended"; }
  else
    load_goes_on
  fi
}
work_ends() {
  if [ "$load_kind" = guest ]; then
    guest_tell stop
    guest_finish 240
    step "the guest $(guest_said wrote)"
    step "the guest $(guest_said verified)"
    LONGEST=$(guest_said wrote | sed 's/.*took //')
  else
    load_end
    load_told
    LONGEST="$SLOWEST ms"
  fi
}

work_begins
RANDOM=$seed
until=$((SECONDS + seconds)) turns=0
while [ $SECONDS -lt $until ]; do
  turn
  turns=$((turns + 1))
  work_goes_on
  # Not always are all back before the next blow; but never is there nothing to strike at for long.
  if [ $((RANDOM % 3)) = 0 ]; then await_usable 4 15; else await_usable 1 15; nap $((RANDOM % 700)); fi
done
await_usable 4 30
# The last blow: all at once. Names that somebody held would not be given again.
for h in "${HOST[@]}"; do delete_at "$h"; done
sleep 1
! readlink "/proc/$DAEMON_PID"/fd/* | grep -E '^/dev/(sd|bsg)' || trouble "it has open what was deleted"
for h in "${HOST[@]}"; do rescan "$h"; done
await_usable 4 15
[ "$(all_names)" = "$NAMES" ] || trouble "the names are $(all_names) now, they were $NAMES"
# Each disk is open once, with its bsg node, and nothing else is.
[ "$(readlink "/proc/$DAEMON_PID"/fd/* | grep -E '^/dev/sd' | sort | xargs)" = "/dev/${NAMES// / /dev/}" ] ||
  trouble "it has other disks open: $(readlink "/proc/$DAEMON_PID"/fd/* | grep -E '^/dev/' | sort | xargs)"
work_ends
ctl show paths
no_error_told "$DAEMON_LOG"
kinds=
for what in "${!COUNT[@]}"; do kinds+=", $what ${COUNT[$what]}"; done
daemon_end
conclude "seed $seed, $seconds s, --transport $transport, $load_kind: $turns turns (${kinds#, }); no error, no wrong byte, all four paths back as $NAMES; the longest I/O took $LONGEST."
