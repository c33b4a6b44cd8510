# A guest that does what the story asks for (guest.d/asked), and what the answers have to be. Sourced, never run. Needs
# lib/say.sh, lib/guest.sh and lib/daemon.sh.
# shellcheck shell=bash disable=SC2034  # LATER is the stories'

ASKED=0
# ask_later COMMAND…: the guest begins with it and goes on listening; LATER is its number. ask_end NUMBER: when it has
# ended. ask COMMAND…: both. The last two set SAID, its lines, and RC, its exit code.
ask_later() {
  ASKED=$((ASKED + 1))
  LATER=$ASKED
  guest_tell "$ASKED $* &"
}
ask_end() {
  local until=$((SECONDS + ${ASK_PATIENCE:-60})) end
  until end=$(grep -am1 "GUEST: $1 rc=" "$GUEST_CONSOLE"); do
    kill -0 "$GUEST_PID" 2>/dev/null || { guest_explain "the guest ended"; exit 1; }
    [ $SECONDS -lt $until ] || { guest_explain "the guest does not come to an end with number $1"; ctl show topology >&2; exit 1; }
    sleep 0.02
  done
  end=${end##*rc=}
  RC=${end//[!0-9]/}
  SAID=$(sed -n "s/\r*\$//; s/^.*GUEST: $1| //p" "$GUEST_CONSOLE")
}
# (Not in a subshell: the number would be given twice.)
ask() {
  ASKED=$((ASKED + 1))
  guest_tell "$ASKED $*"
  ask_end $ASKED
}

# ask_files N: until the guest has written so many files more.
ask_files() {
  local target until=$((SECONDS + 60))
  target=$(($(grep -ac 'GUEST: written ' "$GUEST_CONSOLE" || true) + $1))
  until [ "$(grep -ac 'GUEST: written ' "$GUEST_CONSOLE" || true)" -ge "$target" ]; do
    [ $SECONDS -lt $until ] || { guest_explain "the guest writes nothing"; ctl show topology >&2; tail -20 "$DAEMON_LOG" >&2; exit 1; }
    sleep 0.1
  done
}

# Of sg_persist: guest_pr WHAT PATTERN OPTION…: it succeeds and says PATTERN (. is anything, nothing too); guest_pr_refused: it
# fails and says PATTERN. WHAT is told; empty: nothing is.
guest_pr() {
  local what=$1 pattern=$2
  shift 2
  ask "sg_persist -n $* \$G"
  # shellcheck disable=SC2015
  [ "$RC" = 0 ] && { [ "$pattern" = . ] || grep -qiE -- "$pattern" <<<"$SAID"; } || ask_wrong "$what" "sg_persist $*" "$pattern"
  [ -z "$what" ] || say "    ok: $what"
}
guest_pr_refused() {
  local what=$1 pattern=$2
  shift 2
  ask "sg_persist -n $* \$G"
  # shellcheck disable=SC2015
  [ "$RC" != 0 ] && grep -qiE -- "$pattern" <<<"$SAID" || ask_wrong "$what" "sg_persist $*" "$pattern"
  [ -z "$what" ] || say "    ok: $what is refused"
}
ask_wrong() {
  printf '%s\n' "$SAID" | sed 's/^/  guest| /' >&2
  ctl show reservations >&2
  ctl show topology >&2
  die "$1: $2 ended with $RC and does not say '$3'"
}
