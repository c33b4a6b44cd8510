#!/bin/bash
# Job: errors.sh [TRANSPORT [scsi|blk]]. What scsi_debug can do to a command, done to one path of two under a verified
# load of reads and writes (and TEST UNIT READY and INQUIRY, over vhost-user-scsi): the guest sees nothing of it (but
# unit attentions and recovered errors, which are the logical unit's word to a SCSI guest). Then a
# medium error, which is the logical unit's word: the guest gets it exactly, at the price of one device command.
# Without debugfs, as in user-mode Linux, faults cannot be had of one path alone: there every so many commands of both.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh

transport=${1:-auto} device=${2:-scsi}
needs_examples scsigen loadgen
RIG_PATHS=scsi_debug make_paths 64
dir=/tmp/job
DRIVER=/sys/bus/pseudo/drivers/scsi_debug
mkdir -p $dir
# Quicker than 30 s, for reads and writes by the block layer, too.
for p in $P1 $P2; do echo 2 >"/sys/block/$p/device/timeout"; done
FAULTS=/sys/kernel/debug/scsi_debug/$(hctl_of "$P1")/error

start() { # OPTION…
  daemon_start $dir --device "$device" --discover no --transport "$transport" --command-timeout 2 --suspect-timeout 0.5 \
    --path-grouping-policy multibus --path-selector "round-robin 0" "$@" --path "/dev/$P1" --path "/dev/$P2"
}
load_of_device() {
  case $device in
    blk) load_begin loadgen --depth 8 --block-size 65536 --span 4194304 ;;
    *) load_begin scsigen --queues 2 --depth 8 --span 4194304 --compare 0 --ask 20 --allow 06/29,06/2a/01,01/ ;;
  esac
  sleep 0.5
}
await_active() { soon 15000 "$2: $1 comes back" has_path "$1"; }

# What the kernel can be told of one device: type, how many commands (all of them: 1), operation code (all: ff), then
# for type 2 host byte, driver byte, status, sense key, ASC, ASCQ, for type 1 what queuecommand answers.
faults() {
  cat <<'ROWS'
the next three commands hang|0 -3 0xff
DID_NO_CONNECT|2 1 0xff 0x01 0 0 0 0 0
DID_BUS_BUSY|2 1 0xff 0x02 0 0 0 0 0
DID_TIME_OUT|2 1 0xff 0x03 0 0 0 0 0
DID_BAD_TARGET|2 1 0xff 0x04 0 0 0 0 0
DID_ABORT|2 1 0xff 0x05 0 0 0 0 0
DID_ERROR|2 1 0xff 0x07 0 0 0 0 0
DID_RESET|2 1 0xff 0x08 0 0 0 0 0
DID_SOFT_ERROR|2 1 0xff 0x0b 0 0 0 0 0
DID_IMM_RETRY|2 1 0xff 0x0c 0 0 0 0 0
DID_REQUEUE|2 1 0xff 0x0d 0 0 0 0 0
DID_TRANSPORT_DISRUPTED|2 1 0xff 0x0e 0 0 0 0 0
DID_TRANSPORT_FAILFAST|2 1 0xff 0x0f 0 0 0 0 0
DID_TRANSPORT_MARGINAL|2 1 0xff 0x14 0 0 0 0 0
BUSY|2 1 0xff 0 0 0x08 0 0 0
TASK SET FULL|2 1 0xff 0 0 0x28 0 0 0
TASK ABORTED|2 1 0xff 0 0 0x40 0 0 0
RECOVERED ERROR 01/17/01|2 1 0xff 0 0 0x02 0x01 0x17 0x01
NOT READY 02/04/01 becoming ready|2 1 0xff 0 0 0x02 0x02 0x04 0x01
NOT READY 02/04/03|2 1 0xff 0 0 0x02 0x02 0x04 0x03
NOT READY 02/04/0a in transition|2 1 0xff 0 0 0x02 0x02 0x04 0x0a
NOT READY 02/04/0b standby|2 1 0xff 0 0 0x02 0x02 0x04 0x0b
HARDWARE ERROR 04/44/00|2 1 0xff 0 0 0x02 0x04 0x44 0x00
ILLEGAL REQUEST 05/25/00 no such LU|2 1 0xff 0 0 0x02 0x05 0x25 0x00
UNIT ATTENTION 06/29/00 ten times|2 -10 0xff 0 0 0x02 0x06 0x29 0x00
UNIT ATTENTION 06/2a/01 ten times|2 -10 0xff 0 0 0x02 0x06 0x2a 0x01
ABORTED COMMAND 0b/00/00|2 1 0xff 0 0 0x02 0x0b 0x00 0x00
the host is busy|1 1 0xff 0x1055
the device is busy|1 1 0xff 0x1056
ROWS
}

# The kernel's error handler takes a device offline that does not answer its TEST UNIT READY either; nobody but an
# administrator brings it back.
running_again() {
  OFFLINED=''
  [ "$(cat "/sys/block/$P1/device/state")" = offline ] || return 0
  OFFLINED="offline by the kernel"
  echo running >"/sys/block/$P1/device/state"
}

# one_path_faults: each under a load of its own, so that the slowest request is that fault's.
one_path_faults() {
  local what rule type count opcode during
  printf '  %-38s %-10s %s\n' "on $P1 alone, for a second" "path" "slowest request"
  while IFS='|' read -r what rule; do
    [[ $what =~ ${RIG_FAULT:-} ]] || continue
    # The driver says so without having done it. By passthrough the residual tells; the block layer believes it, and so
    # must who reads by it.
    [[ $transport != blk-uring || $what != RECOVERED* ]] || continue
    load_of_device
    echo "$rule" >"$FAULTS"
    sleep 1
    load_goes_on
    during=$(state_of "$P1")
    read -r type count opcode _ <<<"$rule"
    # One that is used up may have gone by itself.
    echo "- $type $opcode" >"$FAULTS" 2>/dev/null || [ "$count" -lt 0 ]
    sleep 0.5
    load_end
    running_again
    await_active "$P1" "$what"
    await_active "$P2" "$what"
    printf '  %-38s %-10s %-10s %s\n' "$what" "$during" "$SLOWEST ms" "$OFFLINED"
  done < <(faults)
}

# ended_badly: how many commands the kernel has seen end otherwise than well, by both paths.
ended_badly() { echo $(($(<"/sys/block/$P1/device/ioerr_cnt") + $(<"/sys/block/$P2/device/ioerr_cnt"))); }

# both_paths_faults: by the driver's options, which hold for all devices; every 50th command of any.
both_paths_faults() {
  local what opts before hit
  printf '  %-38s %-18s %s\n' "every 50th command of both paths" "ended otherwise" "slowest request"
  while IFS='|' read -r what opts; do
    # GOOD, and less data than asked for, is an answer that a SCSI guest gets as it is.
    [[ $device != scsi || $what != *short* ]] || continue
    load_of_device
    before=$(ended_badly)
    echo "$opts" >$DRIVER/opts
    echo 50 >$DRIVER/every_nth
    sleep 1.5
    load_goes_on
    echo 0 >$DRIVER/every_nth
    echo 0 >$DRIVER/opts
    sleep 0.5
    load_end
    await_active "$P1" "$what"
    await_active "$P2" "$what"
    hit=$(($(ended_badly) - before))
    # The kernel does not count what ended well, with less than asked for, or was not taken at all.
    [[ $what != *ERROR && $what != ABORTED* ]] || [ $hit -gt 0 ] || die "$what: no command ended with it"
    printf '  %-38s %-18s %s\n' "$what" "$hit" "$SLOWEST ms"
  done <<'ROWS'
RECOVERED ERROR|0x8
ABORTED COMMAND 0b/4b/03|0x10
a short transfer|0x100
the host is busy|0x8000
ROWS
}

# medium_error: five reads of bad blocks through a daemon whose checks do not come in between.
sent() { echo $(($(requests_of "$P1") + $(requests_of "$P2"))); }
medium_error() {
  local before after said i parameters=/sys/module/scsi_debug/parameters
  start --polling-interval 60
  sleep 1.5
  if [ "$device" = scsi ]; then
    printf '000000000000\n%.0s' 1 2 3 | /rig/bin/scsigen --socket "$DAEMON_SOCKET" >/dev/null
  fi
  echo 0 >$parameters/medium_error_start
  echo 8 >$parameters/medium_error_count
  echo 2 >$DRIVER/opts
  before=$(sent)
  if [ "$device" = scsi ]; then
    said=$(printf '28000000000000000800 in=4096\n%.0s' 1 2 3 4 5 | /rig/bin/scsigen --socket "$DAEMON_SOCKET")
    after=$(sent)
    # The first of a guest that has come anew is its unit attention, which costs no device command.
    [ "$(grep -cE 'status=02 .*sense=(f0|70)0003.{18}1100' <<<"$said")" -ge 4 ] || die "this is no 03/11/00: $said"
    i=$(grep -cE 'status=02 .*sense=(f0|70)0003' <<<"$said")
  else
    for i in 1 2 3 4 5; do
      if said=$(/rig/bin/loadgen --mode read --socket "$DAEMON_SOCKET" --depth 1 --span 4096 --seconds 0.1 2>&1); then die "bad blocks were read: $said"; fi
      grep -q 'failed with status 1' <<<"$said" || die "this is no error of the disk: $said"
    done
    after=$(sent)
  fi
  echo 0 >$DRIVER/opts
  step "$i reads of bad blocks cost $((after - before)) device commands; $(grep -o 'the guest sees an error.*' "$DAEMON_LOG" | head -1)"
  [ $((after - before)) = "$i" ] || { grep -v ' debug ' "$DAEMON_LOG" | tail -20; die "not one device command for one medium error"; }
  [ "$(state_of "$P1") $(state_of "$P2")" = "active active" ] || die "a medium error is no path's fault"
  daemon_end
}

start --polling-interval 1 --set max_polling_interval=1
step "$device by $(sed -n "s/.*path $P1: \([a-z-]*\) .*/\1/p" "$DAEMON_LOG" | head -1)"
if [ -w "$FAULTS" ]; then one_path_faults; else both_paths_faults; fi
no_error_told "$DAEMON_LOG"
daemon_end
medium_error
conclude "--device $device --transport $transport: no error but the medium's own came to the guest."
