# Several jobs of the rig at once, a lane each: a lane has a copy of the tree, of hard links, and a console of its own.
# Sourced by scripts/rig, never run. Needs lib/say.sh, RIG and ROOT.
# shellcheck shell=bash disable=SC2016,SC2154  # sh -c has words of its own; timeout and paths are the script's options

LANES_PIDS=()

# lane_enter N: sets ROOT to that lane's copy of the tree, made anew whenever the tree is another.
lane_enter() {
  local key d
  [ "$1" != 1 ] || return 0
  key=$(cd "$ROOT" && { cat "$RIG/uml/version"; ls -di . lib/modules/*; find . -maxdepth 3 -name '.ready*' -printf '%i %p\n' | sort; } 2>/dev/null | cksum | cut -d' ' -f1)
  if [ ! -e "$ROOT-$1/.lane-$key" ]; then
    rm -rf "$ROOT-$1"
    cp -al "$ROOT" "$ROOT-$1"
    rm -rf "$ROOT-$1/rig"
    # What jobs write to must not be the same file in two lanes.
    for d in etc var root multipath/etc multipath/var; do
      [ ! -d "$ROOT/$d" ] || { rm -rf "${ROOT:?}-$1/$d"; cp -a "$ROOT/$d" "$ROOT-$1/$d"; }
    done
    touch "$ROOT-$1/.lane-$key"
  fi
  ROOT=$ROOT-$1
}

# lanes_run N <JOBS: the jobs of standard input (not of a pipe: whoever ends this script ends the lanes), one per line, as
# `scripts/rig --lane L run JOB ARG…` in N lanes. What a job says
# is shown when it has ended. True if all passed; a failure does not keep the others from being run.
lanes_run() {
  local lane
  LANES_DIR=$(mktemp -d) || die "no room for what the jobs say"
  cat >"$LANES_DIR/jobs"
  for ((lane = 1; lane <= $1; lane++)); do
    lane_work "$lane" &
    LANES_PIDS+=($!)
  done
  local failed
  for lane in "${LANES_PIDS[@]}"; do wait "$lane" || echo "  lane $lane" >>"$LANES_DIR/failed"; done
  LANES_PIDS=()
  failed=$(cat "$LANES_DIR/failed" 2>/dev/null || true; sed 's/^/  not run: /' "$LANES_DIR/jobs")
  rm -rf "$LANES_DIR"
  [ -z "$failed" ] || { say "failed in the rig:"; say "$failed"; return 1; }
}

lane_work() {
  local job log=$LANES_DIR/log-$1 child='' began
  trap '[ -z "$child" ] || kill "$child"; exit 143' TERM
  while job=$(lane_next) && [ -n "$job" ]; do
    began=$SECONDS
    # shellcheck disable=SC2086  # words
    "$HERE/rig" --lane "$1" --timeout "$timeout" --paths "$paths" run $job </dev/null >"$log" 2>&1 &
    child=$!
    wait $child || {
      echo "  $job" >>"$LANES_DIR/failed"
      # For whoever runs the rig among other things (scripts/test).
      [ -z "${FAILURES:-}" ] || { echo "-- rig: $job"; tail -n 40 "$log"; } >>"$FAILURES"
    }
    child=''
    flock "$LANES_DIR/lock" sh -c 'printf "\n---- %s: %s s in lane %s\n" "$1" "$2" "$3"; cat "$4"' say "$job" $((SECONDS - began)) "$1" "$log"
  done
}

# The next line, taken off the list.
lane_next() { flock "$LANES_DIR/lock" sh -c 'head -n 1 "$1"; sed -i 1d "$1"' next "$LANES_DIR/jobs"; }
