# multipathd with what it needs around it: udevd, dm. Both run in a Debian tree of their own (/multipath unless MULTIPATH_TREE names another), newer than
# the rest. Sourced by the jobs, inside the rig's kernel only.
# shellcheck shell=bash

MULTIPATHD_LOG=/tmp/multipathd.log
MULTIPATH_TREE=${MULTIPATH_TREE-/multipath}
multipathd_say() { chroot "$MULTIPATH_TREE" multipathd "$@"; }

# tree_opened [DIR…]: what its programs look at, seen in it, too (dev, proc and sys). dm WORDS…: dmsetup of it.
tree_opened() {
  local d
  [ $# -gt 0 ] || set -- dev proc sys
  for d in "$@"; do mount --rbind "/$d" "${MULTIPATH_TREE:-/multipath}/$d"; done
}
dm() { chroot "${MULTIPATH_TREE:-/multipath}" dmsetup "$@"; }

# multipathd_udev: before the first disk appears.
multipathd_udev() {
  local rules=$MULTIPATH_TREE/usr/lib/udev/rules.d
  tree_opened dev proc sys run tmp
  # Of udev's rules only dm's own: the others ask every disk for what nobody here wants to know, and read from maps
  # that hold their reads.
  mkdir -p /tmp/rules.d
  cp "$rules"/55-dm.rules "$rules"/95-dm-notify.rules /tmp/rules.d/
  mount --bind /tmp/rules.d "$rules"
  modprobe dm-mod
  modprobe dm-multipath
  modprobe dm-service-time
  modprobe dm-round-robin
  chroot "$MULTIPATH_TREE" /usr/lib/systemd/systemd-udevd --daemon
}

# multipathd_start, with multipath.conf on standard input; returns when it is idle.
multipathd_start() {
  local until=$((SECONDS + 30))
  mkdir -p "$MULTIPATH_TREE/etc/multipath"
  cat >"$MULTIPATH_TREE/etc/multipath.conf"
  rm -f "$MULTIPATH_TREE"/etc/multipath/{wwids,bindings}
  chroot "$MULTIPATH_TREE" multipathd -d -s -v2 >$MULTIPATHD_LOG 2>&1 &
  MULTIPATHD_PID=$!
  until multipathd_say show daemon 2>/dev/null | grep -q idle; do
    kill -0 $MULTIPATHD_PID 2>/dev/null || { tail -20 $MULTIPATHD_LOG; die "multipathd ended"; }
    [ $SECONDS -lt $until ] || { tail -20 $MULTIPATHD_LOG; die "multipathd does not become idle"; }
    sleep 0.2
  done
}
