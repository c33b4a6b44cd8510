# A rig's job on this machine's own SCSI subsystem: LIO and scsi_debug in the running kernel, and all of it taken away
# again. Sourced by scripts/rig, never run. Needs the other libraries. Root.
# shellcheck shell=bash

# In the order in which they are unloaded. The kernel loads some of them by itself: LIO its other back-ends, SCSI its handler of ALUA.
# scsi_mod is not among them: numbers of hosts begin anew when it is loaded again, and one that scsi_debug has not let go of still has
# its own.
HOST_MODULES="scsi_debug tcm_loop target_core_file target_core_iblock target_core_pscsi target_core_user target_core_mod scsi_dh_alua sg sd_mod configfs"
# What the jobs make in the file system, deepest last; a directory that was there stays. Their /tmp and /run are their own.
HOST_DIRS="/rig /etc/multipath /etc/target /etc/target/pr /etc/target/alua /var/target /var/target/pr /var/target/alua"
HOST_CONFIG=/sys/kernel/config
HOST_TARGET=$HOST_CONFIG/target

# host_never JOB ARG…: why a machine of its own is no place for it; nothing where it is one.
host_never() {
  case "$1 ${2:-scsi}" in
    compare-multipathd.sh* | compare-failover.sh*) echo "$1 runs multipathd, udevd and dm-multipath of the bed's tree, which would look at every disk of this machine" ;;
    kill.sh* | holders.sh* | "discovery.sh scsi") echo "$1 ${2:-} needs dmsetup of the bed's tree, and what it makes of device mapper, loop devices, md and swap is not undone here" ;;
    scsi-exactness.sh* | scsi-iscsi-test-cu.sh*) echo "what $1 prints is judged by the documents of a bed's kernel" ;;
    reserved-paths.sh*) echo "$1 has the kernel take up no new disk at all for a moment" ;;
    peers.sh*) echo "$1 needs fio of the bed's tree" ;;
    host.sh*) echo "$1 is the test of this very option, and wants a machine to throw away" ;;
    shell.sh*) echo "this machine's shell is at hand" ;;
  esac
}

# host_run SECONDS JOB ARG…, after host_check: what is in $RIG_TREE is what the job finds under /rig.
HOST_PID=''
host_run() {
  local seconds=$1 job=$2 rc=0
  shift
  host_plan "$job"
  HOST_BEFORE=$(mktemp -d)
  # Also if this is ended from outside: the job is waited for in the background, so that no signal has to wait for its end.
  trap 'host_end || true; rm -rf "$RIG_TREE"' EXIT
  trap 'exit 129' HUP
  host_begin
  step "$(uname -sr) runs $*"
  host_job "$seconds" &
  HOST_PID=$!
  wait $HOST_PID || rc=$?
  HOST_PID=''
  trap - EXIT HUP
  host_end || rc=1
  return $rc
}

host_disks() {
  local d
  for d in /sys/class/scsi_device/*; do
    [ ! -e "$d" ] || echo "${d##*/} $(xargs <"$d/device/model") $(basename -a "$d"/device/block/* 2>/dev/null)"
  done
}

# host_check YES JOB ARG…: a job must not meet devices that it has not made: then it wants an explicit --yes.
host_check() {
  local yes=$1 m why missing=''
  shift
  [ "$(id -u)" = 0 ] || die "--host loads kernel modules and makes SCSI devices, which needs root" "sudo scripts/rig --host run $*"
  why=$(host_never "$@")
  [ -z "$why" ] || die "$why" "Nothing was touched. It runs without --host."
  for m in sd_mod sg scsi_debug tcm_loop target_core_file; do modprobe -n -q "$m" || missing+=" $m"; done
  [ -z "$missing" ] || die "this kernel has no module$missing" "scripts/rig setup makes a bed with a kernel of its own."
  if [ -d /sys/module/scsi_debug ]; then why="scsi_debug is loaded already: its devices would be the job's"; fi
  if compgen -G "$HOST_TARGET/core/*_*/*" >/dev/null || compgen -G "$HOST_TARGET/loopback/naa.*" >/dev/null; then
    why=${why:-"LIO has a configuration already: a name in it may be one of the job's"}
  fi
  [ -n "$why" ] || return 0
  host_disks | sed 's/^/  there is /' >&2
  [ -n "$yes" ] || die "$why" "Nothing was touched. With --yes the job runs all the same."
  warn "$why; going on (--yes)"
}

host_plan() {
  local m d modules='' dirs=''
  for m in $HOST_MODULES; do [ -d "/sys/module/$m" ] || modules+=" $m"; done
  for d in $HOST_DIRS; do [ -e "$d" ] || dirs+=" $d"; done
  say "On this machine $1 may"
  say "  load these modules, where it wants them, and unload them at the end:${modules:- none}"
  [ -d /sys/module/scsi_mod ] || say "  load scsi_mod, which stays"
  say "  make SCSI hosts and disks of scsi_debug, LIO targets loopback/naa.600140500000000N over a file in a /tmp and a /run of its own, and remove them"
  say "  make these directories and remove them:${dirs:- none}"
  say "It touches no other disk: $(host_disks | grep -c . || true) are there now."
}

# host_begin: what there is, to be compared with and to be left; then configfs, if nobody has mounted it.
host_begin() {
  local d
  host_disks >"$HOST_BEFORE/disks"
  ls /sys/module >"$HOST_BEFORE/modules"
  for d in $HOST_DIRS; do [ ! -e "$d" ] || echo "$d"; done >"$HOST_BEFORE/dirs"
  modprobe configfs 2>/dev/null || true
  mountpoint -q $HOST_CONFIG || { touch "$HOST_BEFORE/mounted"; mount -t configfs configfs $HOST_CONFIG; }
  (cd $HOST_TARGET 2>/dev/null && find . -mindepth 1 -type d) >"$HOST_BEFORE/lio" || true
}

# In a name space of mounts, so that its /rig, /tmp and /run are its own, and one of processes, so that what it started ends
# with it.
host_job() {
  mkdir -p /rig
  # shellcheck disable=SC2016  # the inner shell's
  exec timeout --foreground -k 5 "$1" unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash -c '
    set -e
    mount --bind "$1" /rig
    mount -t tmpfs tmpfs /tmp
    mount -t tmpfs tmpfs /run
    [ ! -d /sys/kernel/debug ] || mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug || true
    . /rig/job
    cd /rig/scripts
    exec bash "rig.d/${RIG_JOB[0]}" "${RIG_JOB[@]:1}"' job "$RIG_TREE" </dev/null
}

# host_end: the job ends, and everything that was not there before goes. False, and says so, where something stays.
host_end() {
  local rc=0
  if [ -n "$HOST_PID" ]; then
    kill "$HOST_PID" 2>/dev/null || true
    wait "$HOST_PID" || true
    HOST_PID=''
  fi
  host_undo || rc=1
  rm -rf "$HOST_BEFORE"
  return $rc
}

host_undo() {
  local d left='' m turn
  [ -e "$HOST_BEFORE/lio" ] || return 0 # nothing was begun
  host_undo_lio
  [ ! -e "$HOST_BEFORE/mounted" ] || umount $HOST_CONFIG || left=" the mount $HOST_CONFIG"$'\n'
  # Again for what another one has kept.
  for turn in 1 2 3; do
    [ "$turn" = 1 ] || sleep 0.2
    for m in $(host_new_modules); do
      # With what it alone has wanted; that is scsi_mod of these.
      case $m in sg | sd_mod) rmmod "$m" 2>/dev/null || true ;; *) modprobe -r -q "$m" 2>/dev/null || true ;; esac
    done
  done
  for d in $(tr ' ' '\n' <<<"$HOST_DIRS" | tac); do
    if [ -d "$d" ] && ! grep -qx "$d" "$HOST_BEFORE/dirs"; then rmdir "$d" 2>/dev/null || true; fi
  done
  left+=$(
    host_disks | grep -vxFf "$HOST_BEFORE/disks" | sed 's/^/SCSI device /'
    [ ! -d $HOST_TARGET ] || host_new_lio | sed "s,^,$HOST_TARGET/,"
    host_new_modules | sed 's/^/module /'
    for d in $HOST_DIRS; do [ ! -d "$d" ] || grep -qx "$d" "$HOST_BEFORE/dirs" || echo "$d"; done
  ) || true
  [ -z "$left" ] || { warn "of the job's these are left:"$'\n'"$left"; return 1; }
  step "what the job made is removed"
}
host_new_modules() {
  local m
  for m in $HOST_MODULES; do
    # One that is built in has no count of its users.
    if [ -e "/sys/module/$m/refcnt" ] && ! grep -qx "$m" "$HOST_BEFORE/modules"; then echo "$m"; fi
  done
}

# What LIO has now and had not before, from the leaves to the root: links, then directories. Default groups go by themselves.
host_undo_lio() {
  local d
  [ -d $HOST_TARGET ] || return 0
  host_new_lio | while read -r d; do find "$HOST_TARGET/$d" -maxdepth 1 -type l -exec rm {} + 2>/dev/null; done
  for d in $(host_new_lio); do
    [ ! -e "$HOST_TARGET/$d/nexus" ] || echo NULL >"$HOST_TARGET/$d/nexus" 2>/dev/null || true
  done
  for d in $(host_new_lio | awk '{ print length($0), $0 }' | sort -rn | cut -d' ' -f2-); do rmdir "$HOST_TARGET/$d" 2>/dev/null || true; done
}
host_new_lio() { (cd $HOST_TARGET && find . -mindepth 1 -type d) | grep -vxFf "$HOST_BEFORE/lio" || true; }
