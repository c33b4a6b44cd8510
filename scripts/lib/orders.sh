# Numbered orders to a guest's job, and what the host sees of a backing file meanwhile. Sourced, never run. Needs
# lib/say.sh and lib/guest.sh.
# shellcheck shell=bash

# orders_guest DIR JOB [QEMU OPTIONS…]: a guest on GUEST_DEVICE with this job and what the jobs share, in that directory.
orders_guest() {
  local work=$1 tree=$1/tree job=$HERE/guest.d/$2
  shift 2
  mkdir -p "$tree"
  cp "$HERE/guest.d/words" "$tree/words"
  ORDERS=0 ORDERS_SHOWN=0
  step "booting a guest on vhost-user-$GUEST_DEVICE ($(guest_accel))"
  GUEST_TREE=$tree guest_start "$work" "$DAEMON_SOCKET" "$job" "$@"
  guest_await "GUEST: writing" 120 || exit 1
}

# order WORDS…: tell the guest what to do, and wait until it says that it is done.
order() {
  ORDERS=$((ORDERS + 1))
  guest_tell "$ORDERS $*"
  guest_await "GUEST: done: $ORDERS $*" "${ORDER_PATIENCE:-90}" || exit 1
  orders_results
}
ORDERS=0

# orders_results: what the guest has found right or wrong and was not shown yet; ends the job at the first wrong.
orders_results() {
  local all
  all=$(grep -acE 'GUEST: (ok|FAILED): ' "$GUEST_CONSOLE") || true
  { grep -aE 'GUEST: (ok|FAILED): ' "$GUEST_CONSOLE" || true; } | tr -d '\r' | sed -n "$((ORDERS_SHOWN + 1)),\$s/^.*GUEST: /    /p"
  ORDERS_SHOWN=$all
  if grep -qa 'GUEST: FAILED: ' "$GUEST_CONSOLE"; then guest_explain "the guest is not content"; exit 1; fi
}
ORDERS_SHOWN=0

# orders_end: the job's end.
orders_end() {
  guest_tell end
  guest_finish 120 || exit 1
  orders_results
}

# file_mib FILE: what it occupies on its file system, as stat's block count has it.
file_mib() { echo $(($(stat -c %b "$1") * $(stat -c %B "$1") / 1048576)); }

# discards_story FILE MODE…: fill, delete, trim, and the blocks of FILE after each; once for each MODE of SCSI.
discards_story() {
  local file=$1 mode before full after
  shift
  for mode in "$@"; do
    [ "$GUEST_DEVICE" != scsi ] || order mode "$mode"
    order trim
    before=$(file_mib "$file")
    order fill 48
    full=$(file_mib "$file")
    order delete
    [ "$(file_mib "$file")" -ge $((full - 4)) ] || warn "deleting alone freed blocks: is the file system mounted with discard?"
    order trim
    after=$(file_mib "$file")
    step "$GUEST_DEVICE, $mode: the backing file had $before MiB, $full with the files, $after after fstrim"
    [ "$full" -ge $((before + 40)) ] || die "48 MiB were written and the file grew from $before to $full MiB"
    [ "$after" -le $((before + 8)) ] || die "fstrim gave back too little: $before MiB before, $full full, $after after"
  done
}

# resize_story SHRINK_TO GROW_TO GROW_TO: the guest's part of a LU that grows twice while it is written to and shrinks at
# the end. set_size MIB is the caller's.
resize_story() {
  local small=$1 first=$2 second=$3
  set_size "$first"
  order grow "$first"
  set_size "$second"
  order grow "$second"
  guest_tell stop
  guest_await "GUEST: verified" 120 || exit 1
  orders_results
  set_size "$small"
  ctl resize map
  if [ "$GUEST_DEVICE" = blk ]; then order keep "$second"; else order shrink "$small"; fi
  order beyond "$small"
  orders_end
}
