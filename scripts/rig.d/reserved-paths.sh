#!/bin/bash
# Job: reserved-paths.sh [SECONDS [TRANSPORT [TYPE,TYPE,… [SEED]]]]. A guest holds a persistent reservation
# while the four paths of its disk are deleted, found again, put offline and back at random, one or several at once, sometimes all
# four for less than two seconds. Meanwhile it writes and reads, each byte compared, and now and then changes its key, or the type by a
# preempt of itself, releases and reserves again, or leaves and comes back: among these types (5,6), with paths lost before,
# during and after. Another host tries to write, and to read, and is refused as the type has it. The guest sees no conflict and
# no error; at the end it holds its reservation, the array has one key per path, and none when the guest has unregistered. Prints what it did,
# with the seed that does it again (what the kernel makes of it in time is another matter).
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/other-host.sh
. rig.d/random-faults.sh
HERE=$PWD
. lib/orders.sh

seconds=${1:-60} transport=${2:-auto} kinds=${3:-5,6} seed=${4:-$((SRANDOM % 32768))}
read -ra types <<<"${kinds//,/ }"
[ ${#types[@]} -ge 2 ] || die "two types at least, of 1 3 5 6 7 8"
needs_examples witness
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO makes four paths here"
dir=/tmp/job
mkdir -p $dir/tree
make_paths 64 4
make_other_host
read -ra HOST <<<"$HOSTS"
for h in "${HOST[@]}"; do sd_of_host "$h" >/dev/null; done
# shellcheck disable=SC2034  # lib/guest.sh's
GUEST_DEVICE=scsi GUEST_TIMEOUT=$((seconds + 300))
daemon_start $dir --device scsi --transport "$transport" --wwid "$(wwid_of "$P1")" --prkeys $dir/prkeys --polling-interval 1 \
  --path-grouping-policy multibus --path-selector "round-robin 0"
step "seed $seed, $seconds s, types $kinds, over $(sed -n "s/.*path $P1: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG")"
guest_add_program $dir/tree /rig/bin/witness
orders_guest $dir witness
work_goes_on() {
  kill -0 "$GUEST_PID" 2>/dev/null || { guest_explain "the guest ended"; trouble "the guest ended"; }
}

# --- the guest's reservation --------------------------------------------------------------------------------------------
# say_order WORDS…: as `order`, but without waiting; orders_done waits for all of them.
say_order() {
  ORDERS=$((ORDERS + 1))
  LAST_ORDER="$ORDERS $*"
  guest_tell "$LAST_ORDER"
  printf '%6s s  the guest: %s\n' "$(say_elapsed)" "$*"
}
orders_done() {
  [ -z "$LAST_ORDER" ] || guest_await "GUEST: done: $LAST_ORDER" 60 || trouble "the guest's order does not end: $LAST_ORDER"
  LAST_ORDER=
  orders_results >/dev/null || trouble "the guest is not content: $(grep -a 'GUEST: FAILED' "$GUEST_CONSOLE" | tail -1)"
}
LAST_ORDER='' KEY=1 TYPE=${types[0]}
other_type() {
  local before=$TYPE
  until [ "$TYPE" != "$before" ]; do TYPE=${types[$((RANDOM % ${#types[@]}))]}; done
}
joins() {
  say_order pr-out 0 0 0 $KEY
  say_order pr-out 1 "$TYPE" $KEY 0
}
# changes: one of them, by dice.
changes() {
  local old=$KEY preempted=$KEY change
  case $((RANDOM % 5)) in
    0) KEY=$((KEY + 1)); change=key; say_order pr-out 0 0 "$old" $KEY ;;
    1 | 2)
      # What all registrants hold is preempted by no key at all.
      case $TYPE in 7 | 8) preempted=0 ;; esac
      change='type'
      other_type
      say_order pr-out 4 "$TYPE" $KEY $preempted
      ;;
    3) change=release; say_order pr-out 2 "$TYPE" $KEY 0; other_type; say_order pr-out 1 "$TYPE" $KEY 0 ;;
    4) change=leave; say_order pr-out 0 0 $KEY 0; KEY=$((KEY + 1)); joins ;;
  esac
  COUNT[$change]=$((${COUNT[$change]:-0} + 1))
}
# intrudes: the other host writes and reads, while the guest holds a reservation.
intrudes() {
  local wanted=good
  other_writes
  [ "$OTHER_SAW" = refused ] || trouble "another host's write: $OTHER_SAW, type $TYPE"
  case $TYPE in 3 | 6 | 8) wanted=refused ;; esac
  other_reads
  [ "$OTHER_SAW" = $wanted ] || trouble "another host's read: $OTHER_SAW, type $TYPE"
  intrusions=$((intrusions + 1))
}
# struck: what happens while the paths are away.
struck() {
  case $((RANDOM % 4)) in 0) changes ;; 1) [ -n "$LAST_ORDER" ] || intrudes ;; esac
}

joins
orders_done
order begin # what the guest is told from now on is the faults' doing
RANDOM=$seed
until=$((SECONDS + seconds)) turns=0 intrusions=0
while [ $SECONDS -lt $until ]; do
  [ $((RANDOM % 4)) != 0 ] || changes
  turn
  turns=$((turns + 1))
  work_goes_on
  # Not always are all back before the next blow; but never is there nothing to strike at for long.
  if [ $((RANDOM % 3)) = 0 ]; then await_usable 4 15; else await_usable 1 15; nap $((RANDOM % 700)); fi
  orders_done
  [ $((RANDOM % 3)) != 0 ] || intrudes
done
await_usable 4 30
orders_done
intrudes
order verify
order end
result=$(guest_said result:)
order pr-in
case $TYPE in 7 | 8) holder=0 ;; *) holder=$KEY ;; esac
[ "$(guest_said reservation:)" = "reservation: keys=$KEY|holder=$holder|type=$TYPE" ] || trouble "the guest reads $(guest_said reservation:), its key is $KEY, the type $TYPE"
ctl show reservations
[ "$(other_keys | sort | uniq -c | xargs)" = "4 $KEY" ] || trouble "the array has the keys $(other_keys | xargs)"
order pr-out 0 0 $KEY 0
[ -z "$(other_keys)" ] || trouble "the guest has unregistered, and the array has the keys $(other_keys | xargs)"
guest_tell stop
guest_await "GUEST: end rc=" 60 || exit 1
guest_stop
step "$result"
case $result in *'|app=0|'*'|sg=0|'*'|wrong=0|'*) ;; *) trouble "the guest has seen something" ;; esac
no_error_told "$DAEMON_LOG"
! grep -E 'RESERVATION_CONFLICT|fenced' "$DAEMON_LOG" || die "a conflict was told"
counts=
for what in "${!COUNT[@]}"; do counts+=", $what ${COUNT[$what]}"; done
daemon_end
ios=${result#*ios=}
longest=${result#*longest_ms=}
conclude "seed $seed, $seconds s, --transport $transport, types $kinds: $turns turns (${counts#, }), another host refused $intrusions times; ${ios%%|*} reads and writes, no conflict, no error, no wrong byte; the reservation held, one key per path and none left; the longest I/O took ${longest%%|*} ms."
