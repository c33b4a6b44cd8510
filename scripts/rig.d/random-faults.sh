# What happens at random to the paths of a logical unit: deleted, found again, put offline and back. Sourced by the jobs, inside
# the rig's kernel only. Needs lib/daemon.sh, lib/load.sh and rig.d/paths.sh; HOST, the hosts; work_goes_on, which ends the job if
# the load has ended; struck, if the job has it, happens while paths are away.
# shellcheck shell=bash disable=SC2154  # HOST is the job's

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

struck() { :; }
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
      struck
      nap $((RANDOM % 1500))
      ;;
    at-once) # back before anybody has looked
      PAUSE=0
      for h in "${PICKED[@]}"; do delete_at "$h"; rescan "$h"; done
      ;;
    offline)
      for h in "${PICKED[@]}"; do set_state "$h" offline; done
      struck
      nap $((RANDOM % 2500))
      for h in "${PICKED[@]}"; do set_state "$h" running; done
      ;;
    both) # one goes while another is offline
      set_state "${PICKED[0]}" offline
      delete_at "${PICKED[1]}"
      struck
      nap $((RANDOM % 1500))
      set_state "${PICKED[0]}" running
      ;;
  esac
  printf '%6s s  %-8s %-16s for %s s\n' "$(say_elapsed)" "$what" "$names" "$PAUSE"
  for h in "${PICKED[@]}"; do rescan "$h"; done
  COUNT[$what]=$((${COUNT[$what]:-0} + 1))
}
declare -A COUNT=()
