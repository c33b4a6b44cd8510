# What the jobs with a guest on vhost-user-scsi share. Sourced by them, inside the rig's kernel only.
# shellcheck shell=bash disable=SC2034,SC2154,SC2317  # names of the job that sources this, and of lib/daemon.sh

# path_options COUNT: the daemon's, for so many paths.
path_options() { local h all; read -ra all <<<"$HOSTS"; for h in "${all[@]:0:$1}"; do printf -- '--path /dev/%s ' "$(sd_of_host "$h")"; done; }

# bare JOB: a job of scripts/guest.d on the bare /dev/$P1, with the tools the guest has.
bare() (
  set +eu # the guest's jobs are written for a shell that goes on
  mkdir -p /tmp/tools
  [ -e /tmp/tools/usr ] || (cd /tmp/tools && zcat /rig/guest/scsi-tools | cpio -idm --quiet 'usr/bin/*' 'lib/x86_64-linux-gnu/*')
  export LD_LIBRARY_PATH=/tmp/tools/lib/x86_64-linux-gnu PATH=/tmp/tools/usr/bin:$PATH
  report() { printf 'BARE: %s\n' "$*"; }
  other_host() { other_does "$@"; }
  DISK=/dev/$P1
  # shellcheck source=/dev/null
  . "guest.d/$1"
)

# through JOB OPTION…: the same job in a guest, on the daemon with these options. Prints what it said.
through() {
  local job=$1
  shift
  DAEMON_PEER_FILE=/dev/$P1
  daemon_start "$dir" --device scsi --discover no "$@"
  GUEST_DEVICE=scsi GUEST_ARCHIVES=/rig/guest/scsi-tools GUEST_TIMEOUT=800 guest_start "$dir" "$DAEMON_SOCKET" "guest.d/$job"
  ! declare -F other_does >/dev/null || other_serves
  guest_finish 800 || { tail -8 "$DAEMON_LOG"; exit 1; }
  grep -a 'GUEST: ' "$GUEST_CONSOLE" | tr -d '\r'
  daemon_end
}

# other_serves: what the guest's job wants another host to do ("other sg_persist's options") is done, until its end.
other_serves() {
  local served=0 words
  until grep -qa 'GUEST: end rc=' "$GUEST_CONSOLE" || ! kill -0 "$GUEST_PID" 2>/dev/null; do
    # Whole lines only: it may be writing one.
    words=$({ grep -a $'GUEST: other .*\r$' "$GUEST_CONSOLE" || true; } | tr -d '\r' | sed -n "$((served + 1))s/^.*GUEST: other //p")
    if [ -z "$words" ]; then sleep 0.1; continue; fi
    served=$((served + 1))
    # shellcheck disable=SC2086  # options
    other_does $words
    guest_tell go
  done
}
