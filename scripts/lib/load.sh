# A verified load on the daemon's socket while a job of the rig does things to its paths, and what such jobs wait for.
# Sourced, never run. Needs lib/say.sh and lib/daemon.sh, and the job's $dir.
# shellcheck shell=bash disable=SC2154  # dir is the job's

now_ms() { local now=${EPOCHREALTIME/[.,]/}; echo $((now / 1000)); }

# needs_examples NAME…: they play the guest, and are built beside the daemon.
needs_examples() {
  local tool
  for tool in "$@"; do [ -x "/rig/bin/$tool" ] || die "only with the daemon built here, and its example $tool"; done
}

# load_begin PROGRAM OPTION…: loadgen or scsigen writes and reads, each byte verified, until load_end (or for LOAD_SECONDS). Returns
# when its requests begin, where the program says so.
LOAD=''
load_begin() {
  local program=$1
  shift
  rm -f "$dir/enough"
  : >"$dir/load"
  "/rig/bin/$program" --mode verify --socket "$DAEMON_SOCKET" --seconds "${LOAD_SECONDS:-36000}" --until "$dir/enough" "$@" >"$dir/load" 2>&1 &
  LOAD=$!
  case "$program $*" in
    scsigen* | *--reconnect*) until grep -q verifying "$dir/load"; do load_goes_on; sleep 0.05; done ;;
  esac
}
load_goes_on() { kill -0 "$LOAD" 2>/dev/null || trouble "the load ended"; }
# load_end: it has seen no wrong byte and no error but those it was told to allow. Sets REQUESTS, and SLOWEST in milliseconds.
load_end() {
  load_goes_on
  touch "$dir/enough"
  wait "$LOAD" || { grep -B12 -A3 -m 3 "the guest sees" "$DAEMON_LOG" || true; trouble "the load failed"; }
  LOAD=''
  read -r REQUESTS SLOWEST < <(load_figures)
  [ "${REQUESTS:-0}" -gt 0 ] || trouble "the load has verified nothing"
}
load_told() { step "$REQUESTS requests verified, the longest took $SLOWEST ms"; }

# load_figures: REQUESTS SLOWEST, of loadgen's line of JSON, or of scsigen's: its counts, slowest 12.3ms.
load_figures() {
  awk '
    /"slowest_us":/ {
      match($0, /"requests":[0-9]+/); requests = substr($0, RSTART + 11, RLENGTH - 11)
      match($0, /"slowest_us":[0-9]+/); print requests, int(substr($0, RSTART + 13, RLENGTH - 13) / 1000)
    }
    / slowest [0-9.]+[^0-9]*s$/ {
      rest = $0
      while (match(rest, /": [0-9]+/)) { requests += substr(rest, RSTART + 3, RLENGTH - 3); rest = substr(rest, RSTART + RLENGTH) }
      unit = $NF; sub(/^[0-9.]+/, "", unit)
      print requests, int($NF * (unit == "s" ? 1000 : unit == "ms" ? 1 : 0))
    }' "$dir/load"
}

# trouble MESSAGE: what load and daemon have said, then the end of the job.
trouble() {
  [ ! -e "$dir/load" ] || tail -20 "$dir/load"
  ctl show topology || true
  ctl show devices || true
  tail -30 "$DAEMON_LOG"
  die "$1"
}

# within MILLISECONDS WHAT COMMAND…: until it succeeds; says how long it took. soon MILLISECONDS WHAT COMMAND…: without a word. A load
# that ends meanwhile ends the job.
within() {
  soon "$@"
  step "$2: $SOON ms"
}
soon() {
  local limit=$1 what=$2 began
  shift 2
  began=$(now_ms)
  until "$@"; do
    [ -z "$LOAD" ] || load_goes_on
    [ $(($(now_ms) - began)) -lt "$limit" ] || trouble "not within $limit ms: $what"
    sleep 0.01
  done
  SOON=$(($(now_ms) - began))
}

# state_of NAME: the path's, as `show paths` has it; nothing where it has no such path.
state_of() { ctl show paths raw format '%d %t' | awk -v p="$1" '$1 == p { print $2 }'; }
has_path() { [ "$(state_of "$1")" = active ]; }
has_no_path() {
  local said
  said=$(state_of "$1") && [ -z "$said" ] # a daemon that does not answer says nothing, too
}

# no_error_told LOG…: the guest was told none.
no_error_told() {
  if grep "the guest sees an error" "$@"; then die "the guest was told an error"; fi
}
