# The daemon under the scripts: building it, starting it on a socket, talking to it, ending it. Sourced, never run.
# Needs lib/say.sh. VHOST_MPATH names another binary; VHOST_MPATH=qemu-storage-daemon puts QEMU's own
# single-path export in its place, which proves a rig (not us): there are no paths to take away then. For the stories
# of vhost-user-scsi, which no daemon of QEMU's speaks, VHOST_MPATH=qemu-system-x86_64 puts QEMU's own virtio-scsi disks
# into the guest.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# daemon_build: the release binary, unless another was named. Sets VHOST_MPATH.
daemon_build() {
  if [ -n "${VHOST_MPATH:-}" ]; then
    have "$VHOST_MPATH" || die "VHOST_MPATH=$VHOST_MPATH is not there"
    return 0
  fi
  step "building the daemon (cargo build --release; minutes the first time)"
  # On a terminal cargo shows how far it is.
  local quiet=--quiet
  [ ! -t 2 ] || quiet=
  (cd "$REPO" && "${CARGO:-cargo}" build --release --locked ${quiet:+"$quiet"} --bin vhost-mpath) || die "the build failed"
  VHOST_MPATH=${CARGO_TARGET_DIR:-$REPO/target}/release/vhost-mpath
}

daemon_is_peer() { case $(basename "${VHOST_MPATH:-}") in qemu-storage-daemon | qemu-system-x86_64) ;; *) return 1 ;; esac; }

# daemon_start DIR OPTION…: start and wait until the socket is there. Sets DAEMON_PID, DAEMON_SOCKET, DAEMON_CONTROL.
daemon_start() {
  local dir=$1 waited=0
  shift
  DAEMON_SOCKET=$dir/disk.sock
  DAEMON_CONTROL=$dir/control.sock
  DAEMON_LOG=$dir/daemon.log
  # A killed predecessor leaves its socket, so the wait below may end before this daemon has opened its log.
  : >"$DAEMON_LOG"
  if [ "${VHOST_MPATH##*/}" = qemu-system-x86_64 ]; then
    daemon_peer_disks "$dir" "$@"
    return
  elif daemon_is_peer; then
    local file=${DAEMON_PEER_FILE:-$dir/peer.img} driver=file discard=unmap
    # Not on a block device: the kernel would send WRITE SAME longer than LIO takes.
    if [ -b "$file" ]; then driver=host_device discard=ignore; elif [ ! -e "$file" ]; then truncate -s 256M "$file"; fi
    "$VHOST_MPATH" --blockdev "driver=$driver,filename=$file,node-name=d0,discard=$discard" \
      --export "type=vhost-user-blk,id=e0,addr.type=unix,addr.path=$DAEMON_SOCKET,node-name=d0,writable=on,num-queues=2" \
      >"$DAEMON_LOG" 2>&1 &
  else
    # What guests register is of this run, not of the machine.
    local keys=()
    case " $* " in *' --prkeys '*) ;; *' --device scsi '*) keys=(--prkeys "$dir/prkeys") ;; esac
    "$VHOST_MPATH" --socket-path "$DAEMON_SOCKET" --control "$DAEMON_CONTROL" "${keys[@]}" "$@" >"$DAEMON_LOG" 2>&1 &
  fi
  DAEMON_PID=$!
  while [ ! -S "$DAEMON_SOCKET" ]; do
    if ! kill -0 "$DAEMON_PID" 2>/dev/null || [ $waited -ge 100 ]; then
      sed 's/^/  daemon: /' "$DAEMON_LOG" >&2
      die "the daemon did not open its socket" "Its command line: $VHOST_MPATH $*"
    fi
    waited=$((waited + 1))
    sleep 0.05
  done
}

# daemon_peer_disks DIR OPTION…: of the daemon's options those that QEMU's own virtio-scsi can follow: a disk for each
# --path sim:… that names a new file, QEMU's passthrough for the first --path /dev/sdX; with --expose paths each path is a target of its own. Sets GUEST_PEER.
daemon_peer_disks() {
  local dir=$1 file size=64M bs=512 n=0 expose='' known=' ' o
  shift
  case " $* " in *' --expose paths '*) expose=1 ;; esac
  GUEST_PEER=(-device "virtio-scsi-pci,id=scsi0,num_queues=${GUEST_QUEUES:-2}")
  for o in "$@"; do
    case $o in
      sim:*) file=${o#sim:} ;;
      # QEMU's own passthrough; one path of them is all it takes.
      /dev/sd*)
        [ $n = 0 ] || continue
        GUEST_PEER+=(-drive "file=$o,if=none,id=peer0,format=raw,cache=none" -device "scsi-block,drive=peer0,bus=scsi0.0")
        n=1
        continue
        ;;
      *) continue ;;
    esac
    case $file in *,size=*) size=${file#*,size=} size=${size%%,*} ;; esac
    case $o in *,bs=*) bs=${o#*,bs=} bs=${bs%%,*} ;; esac
    file=${file%%,*}
    [ -e "$file" ] || truncate -s "$size" "$file"
    case $known in *" $file "*) [ -n "$expose" ] || continue ;; esac
    known+="$file "
    GUEST_PEER+=(-drive "file=$file,if=none,id=peer$n,format=raw,discard=unmap,file.locking=off"
      -device "scsi-hd,drive=peer$n,bus=scsi0.0,share-rw=on,logical_block_size=$bs,physical_block_size=$bs,serial=peer,wwn=0x5001405000000001,$([ -n "$expose" ] && echo "scsi-id=$n,lun=0" || echo "scsi-id=0,lun=$n")")
    n=$((n + 1))
  done
  DAEMON_PID=
}

# ctl VERB…: speak to the daemon.
ctl() {
  if daemon_is_peer; then echo "(${VHOST_MPATH##*/} has one path and no 'ctl $*')"; return 0; fi
  "$VHOST_MPATH" ctl --control "$DAEMON_CONTROL" "$@"
}

# conclude LINE…: what a story has shown; nothing about paths where the daemon's place was taken.
conclude() {
  local line
  if daemon_is_peer; then
    say "A rehearsal: ${VHOST_MPATH##*/} served the disk, so no path was lost. The rest of the story worked."
    return 0
  fi
  for line in "$@"; do good "$line"; done
}

# daemon_await_path NAME WORD SECONDS: until 'show paths' has WORD in the line of this path.
daemon_await_path() {
  local until=$((SECONDS + $3))
  daemon_is_peer && return 0
  until ctl show paths | grep -w -- "$1" | grep -qw -- "$2"; do
    [ $SECONDS -lt $until ] || { ctl show paths >&2; return 1; }
    sleep 0.1
  done
}

# daemon_stop: by SIGTERM, as a service manager would; true if it went within three seconds, with exit code 0.
daemon_stop() {
  local pid=${DAEMON_PID:-} waited=0
  DAEMON_PID=
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    if [ $waited -ge 60 ]; then kill -9 "$pid"; wait "$pid" 2>/dev/null; return 1; fi
    waited=$((waited + 1))
    sleep 0.05
  done
  wait "$pid"
}

# daemon_end: the same, and anything else ends the script.
daemon_end() { daemon_stop || die "the daemon did not end cleanly on SIGTERM" "$(tail -3 "$DAEMON_LOG")"; }
