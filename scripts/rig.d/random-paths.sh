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

usable() { ctl show paths raw format '%d %t' | grep -c ' active$' || true; }
# await_usable COUNT SECONDS
await_usable() {
  local until=$((SECONDS + $2))
  until [ "$(usable)" -ge "$1" ]; do
    work_goes_on
    [ $SECONDS -lt $until ] || trouble "only $(usable) paths are usable after $2 s"
    sleep 0.05
  done
}

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

# What a turn does, by dice. some COUNT: so many different hosts, in PICKED.
some() {
  local rest=("${HOST[@]}") i
  PICKED=()
  while [ ${#PICKED[@]} -lt "$1" ]; do
    i=$((RANDOM % ${#rest[@]}))
    PICKED+=("${rest[$i]}")
    rest=("${rest[@]:0:$i}" "${rest[@]:$((i + 1))}")
  done
}
nap() { printf -v PAUSE '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); sleep "$PAUSE"; }
set_state() { # HOST STATE
  local d
  d=$(sd_now "$1")
  [ -z "$d" ] || echo "$2" >"/sys/block/$d/device/state" 2>/dev/null || true
}
delete_at() {
  local d
  d=$(sd_now "$1")
  [ -z "$d" ] || delete_path "$d" 2>/dev/null || true
}
turn() {
  local kind=$((RANDOM % 10)) h what
  case $kind in
    [0-4]) some $((1 + RANDOM % 3)); what=delete ;;
    5) some 4; what=delete ;;
    6 | 7) some $((1 + RANDOM % 2)); what=offline ;;
    8) some 2; what=both ;;
    9) some $((1 + RANDOM % 3)); what=at-once ;;
  esac
  local names=''
  for h in "${PICKED[@]}"; do names+=" $(sd_now "$h")"; done
  case $what in
    delete)
      for h in "${PICKED[@]}"; do delete_at "$h"; done
      nap $((RANDOM % 1500))
      ;;
    at-once) # back before anybody has looked
      PAUSE=0
      for h in "${PICKED[@]}"; do delete_at "$h"; rescan "$h"; done
      ;;
    offline)
      for h in "${PICKED[@]}"; do set_state "$h" offline; done
      nap $((RANDOM % 2500))
      for h in "${PICKED[@]}"; do set_state "$h" running; done
      ;;
    both) # one goes while another is offline
      set_state "${PICKED[0]}" offline
      delete_at "${PICKED[1]}"
      nap $((RANDOM % 1500))
      set_state "${PICKED[0]}" running
      ;;
  esac
  printf '%6s s  %-8s %-16s for %s s\n' "$(say_elapsed)" "$what" "$names" "$PAUSE"
  for h in "${PICKED[@]}"; do rescan "$h"; done
  COUNT[$what]=$((${COUNT[$what]:-0} + 1))
}
declare -A COUNT=()

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
