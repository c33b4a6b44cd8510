#!/bin/bash
# Job: device-states.sh kernel | daemon [TRANSPORT [sd|sg|bsg]]. What becomes of a command when its device is taken
# offline, deleted, loses its host, or is blocked and given up by its transport.
#   kernel   without the daemon: one READ by each interface, in flight when it happens and sent afterwards: what it ends
#            with and when. By SG_IO on sd, sg and bsg node, by a direct read of the block device, by io_uring on the bsg
#            node. This is the table of docs/device-states.md
#   daemon   a verified load over two paths, one of which it happens to: what the path's state and reason are, how
#            long the slowest request took, how the path comes back
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/iscsi.sh

kind=${1:-kernel} transport=${2:-auto} node=${3:-sd}
needs_examples scsigen loadgen bareloop
modprobe bsg 2>/dev/null || true
DRIVER=/sys/bus/pseudo/drivers/scsi_debug
dir=/tmp/job
mkdir -p $dir

# What happens, and how it ends. The disk, its host and its place are in P1, H1.
PLACE='' # H:C:T:L, remembered when the disk has gone
state_file() { echo "/sys/bus/scsi/devices/$PLACE/state"; }
happen() {
  PLACE=$(hctl_of "$P1")
  case $1 in
    offline) echo offline >"$(state_file)" ;;
    delete) echo 1 >"/sys/block/$P1/device/delete" ;;
    host-removed) echo -1 >$DRIVER/add_host ;;
    blocked | transport-offline) iscsi_cut 1 ;;
  esac
}
mend() {
  case $1 in
    offline) echo running >"$(state_file)" ;;
    delete) rescan "$H1" ;;
    host-removed)
      local before=$H1 i
      echo 1 >$DRIVER/add_host
      for ((i = 0; i < 50; i++)); do
        H1=$(printf '%s\n' $DRIVER/adapter*/host* | sed 's/.*host//' | grep -vx "$H2") || true
        [ -n "$H1" ] && break
        sleep 0.1
      done
      [ -n "$H1" ] || die "no host came in the place of host$before"
      ;;
    blocked | transport-offline) iscsi_mend 1 ;;
  esac
}
# Commands take so many of the kernel's ticks; the driver takes it only while it has none.
slow() { [ -n "${BY_ISCSI:-}" ] || echo "$1" >$DRIVER/delay; }
# The driver removes the host it made last: that one must be path 1.
last_host_first() { read -r P1 P2 H1 H2 <<<"$P2 $P1 $H2 $H1"; }

# --- kernel ---------------------------------------------------------------------------------------------------

# in_words TEXT: a result in few words. bareloop's are those of the completion queue: an errno, or status, driver, host.
HOST_BYTES=(DID_OK DID_NO_CONNECT DID_BUS_BUSY DID_TIME_OUT DID_BAD_TARGET DID_ABORT DID_PARITY DID_ERROR DID_RESET DID_BAD_INTR
  DID_PASSTHROUGH DID_SOFT_ERROR DID_IMM_RETRY DID_REQUEUE DID_TRANSPORT_DISRUPTED DID_TRANSPORT_FAILFAST)
errno_name() {
  case $1 in
    2) echo ENOENT ;; 5) echo EIO ;; 6) echo ENXIO ;; 11) echo EAGAIN ;; 19) echo ENODEV ;; 28) echo ENOSPC ;; 61) echo ENODATA ;;
    67) echo ENOLINK ;; 108) echo ESHUTDOWN ;; 110) echo ETIMEDOUT ;; *) echo "errno $1" ;;
  esac
}
in_words() {
  local host
  if [[ $1 =~ \"requests\" ]]; then echo good
  elif [[ $1 =~ ended\ with\ -([0-9]+) ]]; then errno_name "${BASH_REMATCH[1]}"
  elif [[ $1 =~ ended\ with\ ([0-9]+),\ 0x([0-9a-f]+) ]]; then
    host=$((16#${BASH_REMATCH[2]} >> 16 & 255))
    if [ $host != 0 ]; then echo "${HOST_BYTES[$host]}"; else echo "${BASH_REMATCH[1]}, status ${BASH_REMATCH[2]}"; fi
  elif [[ $1 =~ os\ error\ ([0-9]+) ]]; then echo "no open: $(errno_name "${BASH_REMATCH[1]}")"
  elif [[ ${1,,} =~ host_status=0x([0-9a-f]+) ]] && [ $((16#${BASH_REMATCH[1]})) != 0 ]; then echo "${HOST_BYTES[16#${BASH_REMATCH[1]}]}"
  elif [[ $1 =~ Status:\ Good ]]; then echo good
  elif [[ $1 =~ (open|opening)[^$'\n']*(No\ such\ device\ or\ address|No\ such\ device|No\ such\ file) ]]; then echo "no open: $(case ${BASH_REMATCH[2]} in *file) echo ENOENT ;; *address) echo ENXIO ;; *) echo ENODEV ;; esac)"
  elif [[ $1 =~ No\ such\ device\ or\ address ]]; then echo ENXIO
  elif [[ $1 =~ No\ such\ device ]]; then echo ENODEV
  else echo "? ${1:0:300}"
  fi
}
# read_by INTERFACE FILE: a READ by one interface, its result and time into a file.
read_by() {
  local began
  began=$(now_ms)
  {
    case $1 in
      sd) timeout 15 sg_raw -vv -t 12 -r 512 "/dev/$P1" 28 00 00 00 00 00 00 00 01 00 ;;
      sg) timeout 15 sg_raw -vv -t 12 -r 512 "/dev/$SG" 28 00 00 00 00 00 00 00 01 00 ;;
      bsg) timeout 15 sg_raw -vv -t 12 -r 512 "/dev/bsg/$PLACE" 28 00 00 00 00 00 00 00 01 00 ;;
      block) timeout 15 /rig/bin/bareloop --device "/dev/$P1" --depth 1 --span 1048576 --seconds 0.001 ;;
      bsg-uring) timeout 15 /rig/bin/bareloop --device "/dev/bsg/$PLACE" --depth 1 --span 1048576 --seconds 0.001 ;;
    esac
  } >"$2.out" 2>&1 || true
  echo "$(in_words "$(cat "$2.out")"), $(($(now_ms) - began)) ms" >"$2"
}
INTERFACES="sd sg bsg block bsg-uring"
# around WHAT SECONDS: commands in flight, then WHAT, then new ones, then it ends after so many seconds; two rows.
around() {
  local what=$1 i n row
  PLACE=$(hctl_of "$P1") SG=$(sg_of "$P1")
  slow $((2 * ${TICKS:-0}))
  for i in $INTERFACES; do read_by "$i" "$dir/in-flight.$i" & done
  for ((n = 0; n < 50; n++)); do
    sleep 0.02
    if [ -n "${BY_ISCSI:-}" ] || [ $(($(cat "/sys/block/$P1/device/iorequest_cnt") - $(cat "/sys/block/$P1/device/iodone_cnt"))) -ge 5 ]; then break; fi
  done
  happen "$what"
  sleep 0.2
  for i in $INTERFACES; do read_by "$i" "$dir/after.$i" & done
  sleep "$2"
  say "  state is $(cat "$(state_file)" 2>/dev/null || echo "gone")"
  # The kernel asks a device that is back a lot of things, which must not take a second each.
  if [ -z "${BY_ISCSI:-}" ]; then
    wait
    slow 0
  fi
  mend "$what"
  wait
  for row in in-flight after; do
    say "| $what | $row | $(for i in $INTERFACES; do printf '%s | ' "$(cat "$dir/$row.$i")"; done)"
  done
}
back() {
  [ -n "${BY_ISCSI:-}" ] || P1=$(sd_of_host "$H1")
  # What is said of its coming back is heard here.
  sg_turs "/dev/$P1" >/dev/null 2>&1 || true
  sg_turs "/dev/$P1" >/dev/null 2>&1 || true
}

# Measured by a command that is put off by a hundred.
ticks_per_second() {
  local began took least=9999 n
  echo 100 >$DRIVER/delay
  for n in 1 2; do
    began=$(now_ms)
    sg_raw -r 512 "/dev/$(sg_of "$P1")" 28 00 00 00 00 00 00 00 01 00 >/dev/null 2>&1
    took=$(($(now_ms) - began))
    if [ $took -lt $least ]; then least=$took; fi
  done
  echo 0 >$DRIVER/delay
  if [ $least -ge 1000 ]; then echo 100; elif [ $least -ge 400 ]; then echo 250; else echo 1000; fi
}

kernel_rows() {
  RIG_PATHS=scsi_debug make_paths 32
  last_host_first
  TICKS=$(ticks_per_second)
  step "$(uname -sr), $TICKS ticks a second: a command takes 2 s; what happens, happens when the first are out"
  say "| what happens | sent | SG_IO, sd | SG_IO, sg | SG_IO, bsg | read of the block device | io_uring, bsg |"
  say "|---|---|---|---|---|---|---|"
  for what in offline delete host-removed; do
    around $what 3
    back
  done
  rmmod scsi_debug
  [ -x /iscsi/sbin/iscsid ] || { say "no iSCSI initiator here: no row for blocked and transport-offline"; return 0; }
  BY_ISCSI=1
  make_iscsi_paths 32 4
  say "  by iSCSI, whose answers cannot be slowed down: none is in flight long enough; replacement_timeout is 4 s"
  around blocked 2.5
  sleep 3
  back
  around transport-offline 7
}
# --- daemon ---------------------------------------------------------------------------------------------------

name_of() { basename "$(node_of "$node" "$1")"; }
field_of() { ctl show paths raw format "%d|%t|%o" | awk -F'|' -v p="$1" '$1 == p { print $2 " " $3 }'; }
load_of_device() {
  case $transport in
    blk-uring) load_begin loadgen --depth 8 --block-size 65536 --span 2097152 ;;
    *) load_begin scsigen --depth 8 --span 2097152 --compare 0 --ask 20 --allow 06/29 ;;
  esac
  sleep 0.7
}
daemon_begin() {
  local device=scsi discover=yes
  [ "$transport" != blk-uring ] || device=blk
  daemon_start $dir --device $device --discover $discover --transport "$transport" --command-timeout 20 --suspect-timeout 0.5 \
    --path-grouping-policy multibus --path-selector "round-robin 0" --polling-interval 1 --set max_polling_interval=1 \
    --path "$(node_of "$node" "$P1")" --path "$(node_of "$node" "$P2")"
  step "$(name_of "$P1") by $(sed -n "s/.*path $(name_of "$P1"): \([a-z-]*\) .*/\1/p" "$DAEMON_LOG" | head -1)"
}
# befall WHAT SECONDS: under the load; how the path is called while it lasts, and how long after it ended it was back.
befall() {
  local what=$1 name lines during='' began back reason
  name=${NAME:-$(name_of "$P1")}
  load_of_device
  lines=$(wc -l <"$DAEMON_LOG")
  happen "$what"
  sleep "$2"
  load_goes_on
  during=$(field_of "$name")
  [ -n "$during" ] || during="left the map"
  # A device that is only blocked may have ended before anybody was told.
  [[ $what = blocked || $during != active* ]] || trouble "$what, and after $2 s the path is still called active"
  began=$(now_ms)
  mend "$what"
  case $what in delete | host-removed) P1=$(sd_of_host "$H1") ;; esac
  # What discovery finds is a disk, by whatever node it was given before.
  case $what in delete | host-removed) name=$P1 ;; esac
  soon $((20000 - ($(now_ms) - began))) "$what: $name comes back" has_path "$name"
  back=$(($(now_ms) - began))
  NAME=$name
  sleep 0.3
  load_end
  reason=$(tail -n "+$((lines + 1))" "$DAEMON_LOG" | grep -oE "PATH_(FAILED|SUSPECT|REMOVED).*|path [^ ]+ (failed|is suspect|left|removed|was removed).*" | head -2 | paste -sd';')
  say "| $what | $during | ${reason:-no path event} | $SLOWEST ms | $back ms |"
}
daemon_rows() {
  # Twenty milliseconds for each command, so that there are always some in flight.
  RIG_DELAY=ndelay=20000000 RIG_PATHS=scsi_debug make_paths 32
  last_host_first
  daemon_begin
  say "| what happens to one path of two | the path meanwhile | told | slowest request | back after its end |"
  say "|---|---|---|---|---|"
  for what in offline delete host-removed; do befall $what 2; done
  daemon_end
  rmmod scsi_debug
  [ -x /iscsi/sbin/iscsid ] || return 0
  BY_ISCSI=1 NAME=''
  make_iscsi_paths 32 4
  daemon_begin
  befall blocked 2.5
  befall transport-offline 7
  daemon_end
}

"${kind}_rows"
conclude "device states, $*: told above."
