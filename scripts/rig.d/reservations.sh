#!/bin/bash
# Job: reservations.sh [all|short|quick|fence [TRANSPORT [SEED]]]. Persistent reservations of a real guest over four paths, seen by the
# logical unit and by another host's nexus. The guest runs sg_persist for each service action while it writes to a file system; each
# time a path is cut: before (the daemon knows), unseen (it does not), meanwhile, or after. Each time the LU, the other host and the guest must
# agree on who is registered and who holds; no I/O of the guest's may meet a conflict, and when the path is back nothing stale
# is. Then every type, seen by the other side, and the other host fences the guest. all: each service action at each moment; short: each
# once; quick: every fourth once, and less of the rest; fence: the rest only.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/nexuses.sh
HERE=$PWD
. lib/orders.sh

extent=${1:-all} transport=${2:-auto} RANDOM=${3:-1}
GUEST_DEVICE=scsi GUEST_ARCHIVES=/rig/guest/scsi-tools
[ "${RIG_PATHS:-lio}" = lio ] || die "only LIO has reservations"
dir=/tmp/job
mkdir -p $dir
make_nexuses 192
daemon_start $dir --device scsi --transport "$transport" --wwid "$W" --polling-interval 1 --set max_polling_interval=1 \
  --path-grouping-policy multibus --path-selector "round-robin 0"
soon 10000 "four paths" all_are
step "four paths by --transport $(sed -n "s/.*path $P1: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG"), another host is $OTHER"
GUEST_TIMEOUT=900 orders_guest $dir reservations

# --- the guest --------------------------------------------------------------------------------------------------------------

# tell WORDS: an order to the guest; told: waits for what came of it: RC and SAID.
exec {CONSOLE}<"$GUEST_CONSOLE"
exec {NAP}<> <(:)
PART=''
tell() { ORDERS=$((ORDERS + 1)); guest_tell "$ORDERS $*"; }
told() {
  local line until=$((SECONDS + 60))
  while :; do
    if IFS= read -r -u "$CONSOLE" line; then
      line=$PART${line%$'\r'} PART=''
      case $line in
        *"GUEST: said $ORDERS rc="*)
          line=${line#*"said $ORDERS rc="}
          RC=${line%% *} SAID=${line#* }
          SAID=${SAID%$'\r'}
          return 0
          ;;
        *"GUEST: FAILED"*) oops "the guest says: ${line#*GUEST: }" ;;
      esac
    else
      PART+=$line
      [ $SECONDS -lt $until ] || oops "the guest did not answer order $ORDERS"
      kill -0 "$GUEST_PID" 2>/dev/null || oops "the guest ended"
      read -rt 0.03 -u "$NAP" line || true
    fi
  done
}
guest() { tell pr "$@"; told; }
# must RC WHAT COMMAND…: guest or other ends so.
must() {
  local rc=$1 what=$2
  shift 2
  guest "$@"
  [ "$RC" = "$rc" ] || oops "the guest's $what ($*) ended with $RC, not $rc: $SAID"
}
# oops WHAT: the end of a session, with everything there is to be seen of it.
oops() {
  say "WRONG: $CASE: $1"
  lu_words
  ctl show reservations || true
  ctl show topology || true
  { grep -aE 'GUEST: (FAILED|said)' "$GUEST_CONSOLE" || true; } | tail -4
  tail -n "+$LOGGED" "$DAEMON_LOG" | tail -40
  exit 1
}
LOGGED=1
CASE=''

# --- what is so --------------------------------------------------------------------------------------------------------------
# KEY and HELD (a type's number) are the guest's, FOREIGN the other host's key and FOREIGN_HELD its type; empty: none. agreed [DOWN]: LU,
# other host and guest say so; path number DOWN is away, and has what it has.

declare -A NAME_OF=([1]="Write Exclusive" [3]="Exclusive Access" [5]="Write Exclusive, registrants only"
  [6]="Exclusive Access, registrants only" [7]="Write Exclusive, all registrants" [8]="Exclusive Access, all registrants")
agreed() {
  local n down=${1:-} type=${HELD:-${FOREIGN_HELD:-}}
  at_lu
  for ((n = 1; n <= NEXUSES; n++)); do
    [ "$n" != "$down" ] || continue
    [ "${KEYS[n]:-}" = "$KEY" ] || { WRONG="nexus $n has the key '${KEYS[n]:-}', not '$KEY'"; return 1; }
  done
  [ "${KEYS[5]:-}" = "$FOREIGN" ] || { WRONG="the other host has '${KEYS[5]:-}', not '$FOREIGN'"; return 1; }
  case $HELD in
    '') [ "$HOLDER" = "${FOREIGN_HELD:+5}" ] || { WRONG="nexus '$HOLDER' holds"; return 1; } ;;
    7 | 8) [ -n "$HOLDER" ] || { WRONG="nobody holds"; return 1; } ;;
    *) [[ $HOLDER = [1-4] ]] || { WRONG="nexus '$HOLDER' holds"; return 1; } ;;
  esac
  other --in --read-reservation || other --in --read-reservation || { WRONG="the other host: $SAID"; return 1; }
  reads_type "$type" || { WRONG="the other host reads: $SAID"; return 1; }
}
# reads_type TYPE: what was read says so.
reads_type() {
  case $SAID in
    *"NO reservation held"*) [ -z "$1" ] ;;
    *"type: ${NAME_OF[${1:-1}]}") [ -n "$1" ] ;;
    *"type: ${NAME_OF[${1:-1}]}|"*) [ -n "$1" ] ;;
    *) return 1 ;;
  esac
}
guest_agrees() {
  local want got
  must 0 "READ KEYS" --in --read-keys
  want=$(printf '%s\n' ${KEY:+"0x$KEY"} ${FOREIGN:+"0x$FOREIGN"} | sort | xargs)
  got=$({ grep -oE '[ |]0x[0-9a-f]+' | sort | xargs; } <<<"${SAID#*generation=}") || true
  [ "$got" = "$want" ] || oops "the guest reads the keys '$got', not '$want': $SAID"
  must 0 "READ RESERVATION" --in --read-reservation
  reads_type "${HELD:-$FOREIGN_HELD}" || oops "the guest reads the reservation: $SAID"
}
# settled [DOWN]: at once, what an answer has promised is so when it is given. settles: in a moment.
settled() { agreed "${1:-}" || oops "$WRONG"; }
# A path that is back is registered a moment later, and carries nothing before.
settles() {
  local i
  for ((i = 0; i < 50; i++)); do
    ! agreed || return 0
    read -rt 0.1 -u "$NAP" || true
  done
  oops "$WRONG"
}


# --- a session ---------------------------------------------------------------------------------------------------------------

# begin_with KEY HELD FOREIGN FOREIGN_HELD: from nothing.
begin_with() {
  KEY='' HELD='' FOREIGN='' FOREIGN_HELD=''
  if [ -n "$3" ]; then
    other --out --register-ignore --param-sark="$3" || other --out --register-ignore --param-sark="$3" || oops "the other host: $SAID"
    FOREIGN=$3
  fi
  # The guest first: else its writes would meet the reservation.
  if [ -n "$1" ]; then
    attended
    must 0 REGISTER --out --register --param-sark="$1"
    KEY=$1
  fi
  if [ -n "$4" ]; then other --out --reserve --param-rk="$3" --prout-type="$4" || oops "the other host: $SAID"; FOREIGN_HELD=$4; fi
  if [ -n "$2" ]; then must 0 RESERVE --out --reserve --param-rk="$1" --prout-type="$2"; HELD=$2; fi
  settled
}
# nothing_left: the other host ends it.
nothing_left() {
  at_lu
  [ -z "${KEYS[*]}" ] || {
    if [ -n "$KEY" ]; then must 0 CLEAR --out --clear --param-rk="$KEY"
    else other --out --clear --param-rk="$FOREIGN" || other --out --clear --param-rk="$FOREIGN" || oops "the other host: $SAID"; fi
  }
  KEY='' HELD='' FOREIGN='' FOREIGN_HELD=''
  settled
  other_attends
}
# attended: what the guest had to hear it has heard.
attended() {
  local i
  for i in 1 2 3; do
    guest --in --read-keys
    [ "$RC" != 0 ] || return 0
  done
  oops "the guest gets $RC for READ KEYS: $SAID"
}

TYPES=(1 3 5 6 7 8) KINDS=(delete port)
[ "$extent" != quick ] || { TYPES=(1 7); KINDS=(delete); }
# sessions: NAME|KEY HELD FOREIGN FOREIGN_HELD before|after|sg_persist's options; a - is nothing.
sessions() {
  local t
  cat <<'ROWS'
register|- - - -|1a - - -|--out --register --param-sark=1a
register-ignore|- - - -|1a - - -|--out --register-ignore --param-sark=1a
register beside another|- - 5e -|1a - 5e -|--out --register --param-sark=1a
change of key|1a - - -|2b - - -|--out --register --param-rk=1a --param-sark=2b
change of key, holding|1a 5 5e -|2b 5 5e -|--out --register --param-rk=1a --param-sark=2b
change of key, ignoring|1a 7 5e -|2b 7 5e -|--out --register-ignore --param-sark=2b
ROWS
  for t in 1 3 5 6 7 8; do echo "reserve, type $t|1a - 5e -|1a $t 5e -|--out --reserve --param-rk=1a --prout-type=$t"; done
  for t in 1 3 5 6 7 8; do echo "release, type $t|1a $t 5e -|1a - 5e -|--out --release --param-rk=1a --prout-type=$t"; done
  cat <<'ROWS'
release of nothing|1a - - -|1a - - -|--out --release --param-rk=1a --prout-type=5
release of another's|1a - 5e 5|1a - 5e 5|--out --release --param-rk=1a --prout-type=5
unregister|1a - 5e -|- - 5e -|--out --register --param-rk=1a
unregister, holding|1a 5 5e -|- - 5e -|--out --register --param-rk=1a
unregister, ignoring|1a 6 - -|- - - -|--out --register-ignore
clear|1a 5 5e -|- - - -|--out --clear --param-rk=1a
preempt another's registration|1a 5 5e -|1a 5 - -|--out --preempt --param-rk=1a --param-sark=5e --prout-type=5
preempt another's reservation|1a - 5e 6|1a 5 - -|--out --preempt --param-rk=1a --param-sark=5e --prout-type=5
preempt itself: another type|1a 5 5e -|1a 6 5e -|--out --preempt --param-rk=1a --param-sark=1a --prout-type=6
preempt all registrants|1a 7 5e -|1a 5 - -|--out --preempt --param-rk=1a --prout-type=5
read keys|1a 5 5e -|1a 5 5e -|--in --read-keys
read reservation|1a 6 5e -|1a 6 5e -|--in --read-reservation
report capabilities|1a 5 - -|1a 5 - -|--in --report-capabilities
read full status|1a 5 5e -|1a 5 5e -|--in --read-full-status
ROWS
}

# session NAME BEFORE AFTER OPTIONS MOMENT KIND N
session() {
  local before after options moment=$5 kind=$6 n=$7 name
  read -ra before <<<"$2"
  read -ra after <<<"$3"
  read -ra options <<<"$4"
  begin_with "${before[@]#-}"
  at_lu
  # The path that holds is the one worth cutting.
  [ "$n" != holder ] || n=${HOLDER:-1}
  [ "$n" != 5 ] || n=1
  name=$(sd_now "${HOST[n]}")
  case $moment in
    before)
      cut_path "$kind" "$n"
      soon 10000 "$name is down" is_down "$name"
      tell pr "${options[@]}"
      ;;
    unseen)
      kill -STOP "$DAEMON_PID"
      tell pr "${options[@]}"
      read -rt 0.5 -u "$NAP" || true
      cut_path "$kind" "$n"
      kill -CONT "$DAEMON_PID"
      ;;
    meanwhile)
      tell pr "${options[@]}"
      read -rt "0.$((RANDOM % 3))$((RANDOM % 10))" -u "$NAP" || true
      cut_path "$kind" "$n"
      ;;
    after) tell pr "${options[@]}" ;;
  esac
  told
  [ "$RC" = 0 ] || oops "the guest's command ended with $RC: $SAID"
  KEY=${after[0]#-} HELD=${after[1]#-} FOREIGN=${after[2]#-} FOREIGN_HELD=${after[3]#-}
  if [ "$moment" = after ]; then
    settled
    cut_path "$kind" "$n"
    soon 10000 "$name is down" is_down "$name"
  fi
  settled "$n"
  guest_agrees
  mend_path "$kind" "$n"
  soon 20000 "four paths are usable again" all_are
  settles
  guest_agrees
  nothing_left
}

# attempt WHAT COMMAND…: goes on after a failure, from nothing, so that one run says all that is wrong.
attempt() {
  CASE=$1
  shift
  LOGGED=$(($(wc -l <"$DAEMON_LOG") + 1))
  # Each has numbers of its own for its orders.
  ORDERS=$((ORDERS / 1000 * 1000 + 1000))
  if ("$@"); then DONE=$((DONE + 1)); else FAILED+=("$CASE"); recover; fi
}
DONE=0 FAILED=()
recover() {
  local n
  kill -CONT "$DAEMON_PID"
  for ((n = 1; n <= NEXUSES; n++)); do
    mend_path port "$n"
    [ -z "$(sd_now "${HOST[n]}")" ] || mend_path offline "$n"
    mend_path delete "$n"
  done 2>/dev/null || true
  (soon 20000 "four paths are usable again" all_are) >/dev/null 2>&1 || true
  other --out --register-ignore --param-sark=5e || other --out --register-ignore --param-sark=5e || true
  other --out --clear --param-rk=5e || true
  other_attends
}

# moments: every session at each moment, or once each; by every kind of cut in turn, of the path that holds or of any.
moments() {
  local turn=0 row name before after options moment kinds=(delete offline port) all=(before unseen meanwhile after) rows
  mapfile -t rows < <(sessions)
  for row in "${rows[@]}"; do
    IFS='|' read -r name before after options <<<"$row"
    turn=$((turn + 1))
    case $extent in
      all) for moment in "${all[@]}"; do turn=$((turn + 1)); one "$moment"; done ;;
      short) one "${all[turn % 4]}" ;;
      quick) [ $((turn % 4)) != 0 ] || one "${all[turn / 4 % 4]}" ;;
    esac
  done
}
# Of three it is the holder's path.
one() {
  local kind=${kinds[turn % 3]} n=holder
  [ $((turn % 4)) != 3 ] || n=$((1 + RANDOM % 4))
  attempt "$name: path $n cut ($kind) $1" session "$name" "$before" "$after" "$options" "$1" "$kind" $n
}

KEY='' HELD='' FOREIGN='' FOREIGN_HELD=''

# --- what each type forbids the other side --------------------------------------------------------------------------------------

# other_io write|read: a word of what came of it.
LAST=$(printf '%08x' $((192 * 2048 - 1)) | sed 's/../& /g')
other_io() {
  local said
  # shellcheck disable=SC2086  # bytes
  case $1 in
    write) said=$(sg_raw -i /dev/zero -s 512 "$OTHER" 2a 00 $LAST 00 00 01 00 2>&1) || true ;;
    read) said=$(sg_raw -r 512 "$OTHER" 28 00 $LAST 00 00 01 00 2>&1) || true ;;
  esac
  case $said in *"SCSI Status: Good"*) echo good ;; *"Reservation"*) echo reservation ;; *) echo "$said" ;; esac
}
# forbids TYPE REGISTERED: what somebody else gets for a write and for a read (SPC-5, table 66).
forbids() {
  case $1$2 in
    1 | 5 | 7 | 1yes) echo reservation good ;;
    3 | 6 | 8 | 3yes) echo reservation reservation ;;
    *) echo good good ;;
  esac
}

# guest_holds TYPE: with the file system at work, by every path.
guest_holds() {
  local registered got
  begin_with 1a "$1" '' ''
  for registered in '' yes; do
    if [ -n "$registered" ]; then
      other --out --register-ignore --param-sark=5e || oops "the other host cannot register: $SAID"
      FOREIGN=5e
    fi
    got="$(other_io write) $(other_io read)"
    [ "$got" = "$(forbids "$1" "$registered")" ] || oops "the other host, registered: ${registered:-no}, gets '$got' for write and read"
  done
  read -rt 1 -u "$NAP" || true
  settled
  guest_agrees
  nothing_left
}
# guest_writes: a word of each of the guest's next N writes to the last block; guest_reads.
guest_writes() { tell write "$1"; told; read -r SAID <<<"$SAID"; }
guest_reads() { tell read; told; }
# other_holds TYPE: the guest meets what the other host would.
other_holds() {
  local registered got
  begin_with '' '' 5e "$1"
  for registered in '' yes; do
    if [ -n "$registered" ]; then attended; must 0 REGISTER --out --register --param-sark=1a; KEY=1a; fi
    attended
    guest_writes 1; got=$SAID
    guest_reads; got="$got $SAID"
    [ "$got" = "$(forbids "$1" "$registered")" ] || oops "the guest, registered: ${registered:-no}, gets '$got' for write and read"
  done
  settled
  guest_agrees
  # Nothing else is wrong with a path that said so.
  all_are || oops "not all paths are usable"
  nothing_left
}

# leaves TYPE: whose reservation it is once the guest, who holds it, unregisters: the last registrant's, or nobody's.
leaves() {
  begin_with 1a "$1" 5e ''
  must 0 REGISTER --out --register --param-rk=1a
  KEY='' HELD=''
  case $1 in 7 | 8) FOREIGN_HELD=$1 ;; esac
  settled
  other --out --register --param-rk=5e || other --out --register --param-rk=5e || oops "the other host: $SAID"
  FOREIGN='' FOREIGN_HELD=''
  settled
  nothing_left
}

# --- the fence ---------------------------------------------------------------------------------------------------------------

# fenced KIND: the guest writes, registered and holding; the other host takes registration and reservation; meanwhile and after it paths
# go and return. What the guest's writes got, in their order: good, one unit attention, conflicts; never anything else.
fenced() {
  local kind=$1 n
  begin_with 1a 5 5e ''
  tell hammer; told
  read -rt 1 -u "$NAP" || true
  cut_path "$kind" 2
  other --out --preempt --param-rk=5e --param-sark=1a --prout-type=5 || oops "the other host's PREEMPT: $SAID"
  read -rt 1 -u "$NAP" || true
  at_lu
  [ "$HOLDER/${KEYS[1]:-}${KEYS[2]:-}${KEYS[3]:-}${KEYS[4]:-}" = 5/ ] || oops "the guest is not fenced at the LU"
  mend_path "$kind" 2
  for n in 1 3; do cut_path "$kind" $n; read -rt 1 -u "$NAP" || true; mend_path "$kind" $n; done
  soon 20000 "four paths are usable again" all_are
  read -rt 1 -u "$NAP" || true
  tell enough; told
  step "fenced, paths cut by $kind: the guest's writes: $SAID"
  [[ $SAID =~ ^[0-9]+\*good\ 1\*sense-06/2a/0[35]\ [0-9]+\*reservation\ ?$ ]] || oops "that is not: good, one unit attention, conflicts"
  KEY='' HELD='' FOREIGN=5e FOREIGN_HELD=5
  settles
  guest_agrees
  grep -q RESERVATION_PREEMPTED "$DAEMON_LOG" || grep -q "the guest is fenced" "$DAEMON_LOG" || oops "the daemon does not say so"
  nothing_left
}

KEY='' HELD='' FOREIGN='' FOREIGN_HELD=''
began=$SECONDS
[ "$extent" = fence ] || moments
for type in "${TYPES[@]}"; do attempt "type $type held by the guest, its I/O and the other host's" guest_holds "$type"; done
step "$DONE sessions with a file system written to, $((SECONDS - began)) s"
guest_tell stop
guest_await "GUEST: verified" 120 || FAILED+=("the file system")
# What it had to say of that is not an answer to what comes.
while IFS= read -r -u "$CONSOLE" PART; do case $PART in *"GUEST: FAILED"*) FAILED+=("the file system: ${PART#*GUEST: }") ;; esac; done
for type in "${TYPES[@]}"; do attempt "type $type held by the other host, the guest's I/O" other_holds "$type"; done
for type in "${TYPES[@]}"; do attempt "type $type, and the guest leaves" leaves "$type"; done
for kind in "${KINDS[@]}"; do attempt "fenced ($kind)" fenced "$kind"; done
lu_words
orders_end || FAILED+=("the guest's end")
daemon_end
[ ${#FAILED[@]} = 0 ] || { printf 'WRONG: %s\n' "${FAILED[@]}"; die "${#FAILED[@]} of $((DONE + ${#FAILED[@]})) sessions went wrong"; }
conclude "--transport $transport: $DONE sessions of persistent reservations over four paths, every one as by the LU and the other host; no conflict that was not the guest's."
