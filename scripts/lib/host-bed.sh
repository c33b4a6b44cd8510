# A rig's job on this machine's own SCSI subsystem: LIO and scsi_debug in the running kernel, and all of it taken away
# again. Sourced by scripts/rig, never run. Needs the other libraries. Root.
# shellcheck shell=bash

HOST_MODULES="scsi_mod sd_mod sg scsi_debug target_core_mod target_core_file tcm_loop iscsi_target_mod iscsi_tcp"
# What the jobs make in the file system, deepest last; a directory that was there stays.
HOST_DIRS="/rig /etc/multipath /etc/target /etc/target/pr /etc/target/alua /var/target /var/target/pr /var/target/alua"
HOST_TARGET=/sys/kernel/config/target
# Jobs that look at every SCSI disk of the machine, not only at those they made, or leave more behind than is undone here.
HOST_GREEDY="shell.sh"
# Jobs that use programs of the bed's own tree.
HOST_NEVER="compare-multipathd.sh compare-failover.sh holders.sh kill.sh discovery.sh peers.sh"

# host_run SECONDS YES JOB ARG…: what is in $RIG_TREE is what the job finds under /rig.
host_run() {
  local seconds=$1 yes=$2 job=$3 rc=0
  shift 3
  [ "$(id -u)" = 0 ] || die "--host loads kernel modules and makes SCSI devices, which needs root" "sudo scripts/rig --host run $job"
  host_check "$job" "$yes"
  host_plan "$job"
  HOST_BEFORE=$(mktemp -d)
  host_state "$HOST_BEFORE"
  # Also if this is ended from outside.
  trap 'host_undo; rm -rf "$HOST_BEFORE"' EXIT
  step "$(uname -sr) runs $job $*"
  host_job "$seconds" || rc=$?
  trap - EXIT
  host_undo || rc=1
  rm -rf "$HOST_BEFORE"
  return $rc
}

host_disks() {
  local d
  for d in /sys/class/scsi_device/*; do
    [ ! -e "$d" ] || echo "${d##*/} $(xargs <"$d/device/model") $(basename -a "$d"/device/block/* 2>/dev/null)"
  done
}

# A job must not meet devices that it has not made: then it wants an explicit --yes.
host_check() {
  local m why='' missing=''
  case " $HOST_NEVER " in *" $1 "*) die "$1 needs programs that only a bed has" "Run it without --host." ;; esac
  for m in sd_mod sg scsi_debug tcm_loop target_core_file; do modprobe -n -q "$m" || missing+=" $m"; done
  [ -z "$missing" ] || die "this kernel has no module$missing" "scripts/rig setup makes a bed with a kernel of its own."
  if [ -d /sys/module/scsi_debug ]; then why="scsi_debug is loaded already: its devices would be the job's"; fi
  if compgen -G "$HOST_TARGET/core/*_*/*" >/dev/null || compgen -G "$HOST_TARGET/loopback/naa.*" >/dev/null; then
    why=${why:-"LIO has a configuration already: a name in it may be one of the job's"}
  fi
  case " $HOST_GREEDY " in *" $1 "*)
    [ -z "$(host_disks)" ] || why=${why:-"$1 looks at every SCSI disk, and this machine has some that it has not made"} ;;
  esac
  [ -n "$why" ] || return 0
  host_disks | sed 's/^/  there is /' >&2
  [ -n "$2" ] || die "$why" "Nothing was touched. With --yes the job runs all the same."
  warn "$why; going on (--yes)"
}

host_plan() {
  local m d modules='' dirs=''
  for m in $HOST_MODULES; do [ -d "/sys/module/$m" ] || modules+=" $m"; done
  for d in $HOST_DIRS; do [ -e "$d" ] || dirs+=" $d"; done
  say "On this machine $1 may"
  say "  load these modules, where it wants them, and unload them at the end:${modules:- none}"
  say "  make SCSI hosts and disks of scsi_debug, LIO targets loopback/naa.600140500000000N over a file in a /tmp of its own, and remove them"
  say "  make these directories and remove them:${dirs:- none}"
  say "It touches no other disk: $(host_disks | grep -c . || true) are there now."
}

# host_state DIR: what there is, to be compared with and to be left.
host_state() {
  host_disks >"$1/disks"
  ls /sys/module >"$1/modules"
  (cd $HOST_TARGET 2>/dev/null && find . -mindepth 1 -type d) >"$1/lio" || true
  for d in $HOST_DIRS; do [ ! -e "$d" ] || echo "$d"; done >"$1/dirs"
}

# In a name space of mounts, so that its /rig and /tmp are its own, and one of processes, so that what it started ends
# with it.
host_job() {
  mkdir -p /rig
  modprobe configfs 2>/dev/null || true
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
  mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug || true
  # shellcheck disable=SC2016  # the inner shell's
  timeout --foreground -k 5 "$1" unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash -c '
    set -e
    mount --bind "$1" /rig
    mount -t tmpfs tmpfs /tmp
    . /rig/job
    cd /rig/scripts
    exec bash "rig.d/${RIG_JOB[0]}" "${RIG_JOB[@]:1}"' job "$RIG_TREE" </dev/null
}

# host_undo: everything that was not there before goes; says so where something stays.
host_undo() {
  local d left m turn
  host_undo_lio
  [ -d /sys/module/scsi_debug ] && ! grep -qx scsi_debug "$HOST_BEFORE/modules" && rmmod scsi_debug 2>/dev/null
  # Again for what another one has kept.
  for turn in 1 2 3; do
    [ "$turn" = 1 ] || sleep 0.2
    for m in scsi_debug tcm_loop target_core_file target_core_iblock target_core_pscsi target_core_user iscsi_target_mod target_core_mod iscsi_tcp sg sd_mod; do
      if [ -d "/sys/module/$m" ] && ! grep -qx "$m" "$HOST_BEFORE/modules"; then modprobe -r -q "$m" 2>/dev/null || true; fi
    done
  done
  for d in $(tr ' ' '\n' <<<"$HOST_DIRS" | tac); do
    if [ -d "$d" ] && ! grep -qx "$d" "$HOST_BEFORE/dirs"; then rmdir "$d" 2>/dev/null || warn "$d is not empty and stays"; fi
  done
  left=$(host_disks | grep -vxFf "$HOST_BEFORE/disks") || true
  [ -z "$left" ] || { warn "these SCSI devices of the job's are left: $left"; return 1; }
  step "what the job made is removed"
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
