# What the stories of vhost-user-scsi begin and end with. Sourced, never run. Needs the other libraries.
# shellcheck shell=bash

# story_begin NAME ARGUMENT…: the options every story has (one with more defines story_option), everything it needs,
# a directory of its own ($dir) that goes away at the end.
story_begin() {
  local name=$1
  shift
  STORY_KEEP=''
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) usage_of "$0"; exit 0 ;;
      --keep) STORY_KEEP=1; shift ;;
      *) story_option "$1" || die "unknown option: $1" "See scripts/stories/$name --help."; shift ;;
    esac
  done
  require guest build
  [ -n "${VHOST_MPATH:-}" ] || require_rust
  guest_prepare
  scsi_tools_prepare
  daemon_build
  dir=$(mktemp -d "${TMPDIR:-/tmp}/vhost-mpath-$name.XXXXXX")
  trap story_end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

declare -F story_option >/dev/null || story_option() { return 1; }

story_end() {
  local rc=$?
  trap - EXIT
  set +e
  if [ $rc != 0 ] && [ -e "${GUEST_CONSOLE:-}" ]; then
    grep -a -A8 'GUEST: FAILED: ' "$GUEST_CONSOLE" | tr -d '\r' | head -60 >&2
    [ ! -e "${DAEMON_LOG:-}" ] || tail -5 "$DAEMON_LOG" | sed 's/^/  daemon: /' >&2
  fi
  guest_stop
  daemon_stop
  if [ -n "$STORY_KEEP" ]; then say "kept: $dir"; else rm -rf "$dir"; fi
  exit $rc
}

# story_guest JOB [QEMU OPTIONS…]: the guest on vhost-user-scsi, with this job and what the jobs share.
story_guest() {
  local tree=$dir/tree job=$HERE/guest.d/$1
  shift
  mkdir -p "$tree"
  cp "$HERE/guest.d/words" "$tree/words"
  # The job leaves out what QEMU's own disk lacks.
  ! daemon_is_peer || touch "$tree/peer"
  step "booting a guest on vhost-user-scsi ($(guest_accel))"
  GUEST_DEVICE=scsi GUEST_TREE=$tree guest_start "$dir" "$DAEMON_SOCKET" "$job" "$@"
}

# guest_results: what the guest has found right so far and was not shown yet.
guest_results() {
  local all
  all=$(grep -acE 'GUEST: ok: ' "$GUEST_CONSOLE") || true
  grep -aE 'GUEST: (ok|FAILED): ' "$GUEST_CONSOLE" | tr -d '\r' | sed -n "$((STORY_SHOWN + 1)),\$s/^.*GUEST: /    /p"
  STORY_SHOWN=$all
}
STORY_SHOWN=0
