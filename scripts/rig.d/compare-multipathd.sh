#!/bin/bash
# Job: compare-multipathd.sh [--logs] [--short] [CASE…]. multipathd and our daemon under the same faults, with the same policies: who says
# what of each path, which groups they make, which is in use, and what becomes of a read. Each case of lib/comparison.sh
# is a policy; it has two logical units of the same kind, one for either, so that both live through every fault at the
# same moment. What was seen is compared outside (lib/comparison.sh). --short: no transition, no disk that goes, and no
# waiting for what comes seconds later.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. lib/comparison.sh
. rig.d/many-paths.sh
. rig.d/multipathd.sh

logs='' short=''
[ "${1:-}" != --logs ] || { logs=1; shift; }
[ "${1:-}" != --short ] || { short=1; shift; }
needs_examples scsigen
[ -x /multipath/usr/sbin/multipathd ] || die "there is no multipathd in the tree" "scripts/rig setup"
dir=/tmp/job
mkdir -p $dir

# --- the cases: NAME[i] and their keywords; LU 2i is multipathd's, 2i+1 ours ---------------------------------------
NAME=() KEYWORDS=()
while IFS='|' read -r name keywords; do
  # shellcheck disable=SC2254  # patterns on purpose
  [ $# = 0 ] || { for wanted in "$@"; do case $name in $wanted) break ;; *) false ;; esac; done || continue; }
  NAME+=("$name") KEYWORDS+=("$keywords")
done < <(comparison_cases)
CASES=${#NAME[@]}

# keywords_of CASE: KEYWORD VALUE, a line each.
keywords_of() {
  { comparison_always; tr ';' '\n' <<<"${KEYWORDS[$1]}"; } | sed 's/^ *//; s/ *$//' | grep -v '^$'
}

multipath_conf() {
  local i
  printf 'defaults {\n find_multipaths no\n user_friendly_names no\n polling_interval 1\n max_polling_interval 1\n uid_attribute ""\n}\n'
  printf 'blacklist {\n devnode "^(vd|ubd)"\n device {\n vendor "LIO-ORG"\n product "OURS"\n }\n}\ndevices {\n'
  for ((i = 0; i < CASES; i++)); do
    printf ' device {\n vendor "LIO-ORG"\n product "^CASE%02d"\n' $i
    printf '  detect_prio no\n  detect_checker no\n  detect_pgpolicy no\n'
    keywords_of $i | grep -v '^\(polling_interval\|max_polling_interval\) '
    printf ' }\n'
  done
  printf '}\n'
}

ours_start() {
  local i n p key value options
  for ((i = 0; i < CASES; i++)); do
    mkdir -p $dir/$i
    n=$((2 * i + 1)) options=()
    while read -r key value; do
      value=${value#\"} value=${value%\"}
      options+=(--set "$key=$value")
    done < <(keywords_of $i)
    for p in $PORTS; do options+=(--path "/dev/${DISK[$n.$p]}"); done
    "$VHOST_MPATH" --socket-path $dir/$i/s --control $dir/$i/c --device scsi --num-queues 1 --discover no "${options[@]}" \
      >$dir/$i/log 2>&1 &
    OURS_PID[i]=$!
  done
  for ((i = 0; i < CASES; i++)); do
    until [ -S $dir/$i/c ] && [ -S $dir/$i/s ]; do
      kill -0 "${OURS_PID[$i]}" 2>/dev/null || { sed 's/^/  daemon: /' $dir/$i/log; die "our daemon ended (${NAME[$i]})"; }
      sleep 0.05
    done
  done
}
OURS_PID=()

# --- a read of each disk, in the background; one that is held is waited for before the next -------------------------
# Theirs is a dd each, which is over when it has told its records or an error; ours a guest of each daemon, which answers
# the lines of its queue. Both wait as long as it takes.
guests_start() {
  local i ask
  for ((i = 0; i < CASES; i++)); do
    mkfifo $dir/$i/ask
    /rig/bin/scsigen --socket $dir/$i/s <$dir/$i/ask >$dir/$i/answers 2>$dir/$i/guest.err &
    exec {ask}>$dir/$i/ask
    GUEST_ASK[i]=$ask
    # The first answers of a SCSI session are unit attentions.
    printf '%s\n' 000000000000 000000000000 000000000000 >&"${GUEST_ASK[$i]}"
    ASKED[i]=3
  done
}
GUEST_ASK=() ASKED=() THEIR_READ=() OUR_READ=()
READ=28000000000000000800

reads_begin() {
  local i
  for ((i = 0; i < CASES; i++)); do
    if [ -z "${THEIR_READ[$i]:-}" ]; then
      : >$dir/$i/theirs
      LC_ALL=C dd if="/dev/mapper/${MAP[$i]}" of=/dev/null bs=4096 count=1 iflag=direct 2>$dir/$i/theirs &
      THEIR_READ[i]=$!
    fi
    if [ -z "${OUR_READ[$i]:-}" ]; then
      echo "$READ in=4096" >&"${GUEST_ASK[$i]}"
      ASKED[i]=$((ASKED[i] + 1)) OUR_READ[i]=1
    fi
  done
}
# reads_end: what became of those that were under way, into THEIRS_SAW and OURS_SAW.
reads_end() {
  local i
  for ((i = 0; i < CASES; i++)); do
    THEIRS_SAW[i]+=" $(their_read $i)" OURS_SAW[i]+=" $(our_read $i)"
    case ${THEIRS_SAW[$i]} in *held) ;; *) THEIR_READ[i]= ;; esac
    case ${OURS_SAW[$i]} in *held) ;; *) OUR_READ[i]= ;; esac
  done
}
their_read() {
  [ -n "${THEIR_READ[$1]:-}" ] || { echo -; return; }
  case $(<"$dir/$1/theirs") in
    *'1+0 records in'*) echo good ;;
    *'records in'* | *rror* | *failed*) echo failed ;;
    *) echo held ;;
  esac
}
our_read() {
  local answers
  [ -n "${OUR_READ[$1]:-}" ] || { echo -; return; }
  mapfile -t answers <"$dir/$1/answers"
  if [ ${#answers[@]} -lt "${ASKED[$1]}" ]; then echo held; return; fi
  case ${answers[-1]} in *'OK status=00'*) echo good ;; *) echo failed ;; esac
}

# reads_said WORDS: the read at once, if there was one, and the one after it has settled.
reads_said() {
  # shellcheck disable=SC2086  # words
  set -- $1
  echo "read at once=$1|read later=$2"
}

# --- what each says ---------------------------------------------------------------------------------------------------
# look STEP: a line for each case and side: STEP|CASE|SIDE|KEY=VALUE|…
look() {
  local step=$1 i key
  {
    for key in "${!DISK[@]}"; do echo "disk ${DISK[$key]} ${key/./ }"; done
    for ((i = 0; i < CASES; i++)); do
      echo "case $((2 * i)) ${NAME[$i]}|theirs|$(reads_said "${THEIRS_SAW[$i]}")"
      echo "case $((2 * i + 1)) ${NAME[$i]}|ours|$(reads_said "${OURS_SAW[$i]}")"
    done
    multipathd_say show maps json
    for ((i = 0; i < CASES; i++)); do "$VHOST_MPATH" ctl --control $dir/$i/c show topology --json; done
  } | tee $dir/raw."$step" | sed 's/[{}]/\n&\n/g' | awk -v step="$step" -f lib/comparison.awk | sed 's/^/SEEN: /'
}

# step_of NAME COMMAND…: a fault or a repair, a read while it is fresh, time to settle, a second read, a look.
# repaired_of NAME COMMAND…: where no path was left before: the moment at which the first one is found well again is
# chance, so there is no read until it has settled.
step_of() {
  THEIRS_SAW=() OURS_SAW=()
  step "$1"
  "${@:2}"
  sleep 0.2
  reads_begin
  settle "$1"
}
repaired_of() {
  THEIRS_SAW=() OURS_SAW=()
  step "$1"
  "${@:2}"
  sleep 0.2
  settle "$1"
}
settle() {
  sleep "${SETTLE:-2.3}"
  reads_end
  reads_begin
  sleep 0.5
  reads_end
  look "$1"
}

# --- the story ----------------------------------------------------------------------------------------------------------
multipathd_udev
many_paths_begin
for ((i = 0; i < CASES; i++)); do
  many_paths_add "$(printf 'CASE%02d' $i)"
  many_paths_add "$(printf 'OURS%02d' $i)"
done
many_paths_find
chroot /multipath udevadm settle
step "$LUS logical units with four paths each"
access_of 2 1
attentions_clear
multipath_conf >$dir/multipath.conf
multipathd_start <$dir/multipath.conf
say "SEEN-VERSION: $(chroot /multipath multipath -h 2>&1 | sed -n 's/^multipath-tools v\([0-9.]*\).*/\1/p' | head -1)"
MAP=()
for ((i = 0; i < CASES; i++)); do printf -v MAP[i] '36001405ca5e%04x%s' $((2 * i)) 00000000000000000; done
for ((try = 0; try < 100; try++)); do
  [ -e "/dev/mapper/${MAP[-1]}" ] && [ "$(chroot /multipath dmsetup ls --target multipath | grep -c .)" = "$CASES" ] && break
  [ $try -lt 99 ] || { tail -20 $MULTIPATHD_LOG; die "multipathd has not made its $CASES maps"; }
  sleep 0.1
done
step "multipathd has its maps"
ours_start
guests_start
step "our daemons run"

# In order, so that it is no chance which path is back first.
all_online() {
  link_of 1 online
  sleep 1.5
  link_of 2 3 4 online
}
all_well() {
  access_of 1 0
  sleep 1.5
  access_of 2 1
}
disk_1_back() {
  local i gone=()
  for ((i = 0; i < CASES; i++)); do gone[i]=${DISK[$((2 * i + 1)).1]}; done
  device_rescan 1
  for ((i = 0; i < CASES; i++)); do
    { "$VHOST_MPATH" ctl --control $dir/$i/c del path "${gone[$i]}" &&
      "$VHOST_MPATH" ctl --control $dir/$i/c add path "/dev/${DISK[$((2 * i + 1)).1]}"; } >/dev/null
  done
}

step_of "start" true
step_of "port 1 offline" link_of 1 offline
step_of "ports 1 and 2 offline" link_of 2 offline
step_of "port 2 online" link_of 2 online
step_of "port 1 online" link_of 1 online
[ -n "$short" ] || SETTLE=7 step_of "eight seconds later" true
step_of "all ports offline" link_of 1 2 3 4 offline
[ -n "$short" ] || SETTLE=3 step_of "four seconds later" true
repaired_of "all ports online" all_online
step_of "group 1 non-optimized, 2 optimized" access_of 1 1 2 0
step_of "group 1 optimized, 2 non-optimized" access_of 1 0 2 1
step_of "group 1 standby" access_of 1 2
step_of "group 1 unavailable" access_of 1 3
step_of "group 1 unavailable, 2 standby" access_of 2 2
repaired_of "both groups well" all_well
if [ -z "$short" ]; then
  # Long enough for a slow machine to look while it lasts; then so that it is over when the next look comes.
  step_of "group 1 in transition" transition_of 1 1 12000
  SETTLE=11.5 step_of "group 1 non-optimized" true
  step_of "group 1 optimized" access_of 1 0
  step_of "disk 1 offline" device_state_of 1 offline
  step_of "disk 1 running" device_state_of 1 running
  step_of "disk 1 deleted" device_delete 1
  step_of "disk 1 back" disk_1_back
fi

if [ -n "$logs" ]; then
  sed 's/^/log of multipathd: /' $MULTIPATHD_LOG
  for ((i = 0; i < CASES; i++)); do sed "s/^/log of ${NAME[$i]}: /" $dir/$i/log; done
fi
for ((i = 0; i < CASES; i++)); do
  kill "${OURS_PID[$i]}"
  wait "${OURS_PID[$i]}" || die "our daemon did not end cleanly on SIGTERM (${NAME[$i]})" "$(tail -3 $dir/$i/log)"
done
say "SEEN-END"
