#!/bin/bash
# Job: kill.sh [TRANSPORT [KILLS]]. The daemon gets SIGKILL while the kernel has its writes, and a successor starts at once. One of the
# two paths is slow: what was written there lands long after the process has died, while by the other path the successor could
# serve immediately. It must not, until the last late command has landed. Front-end double, each byte verified: one write in flight
# and the same blocks written again; then KILLS kills under a full load; and, so that nobody takes this for a test that cannot
# fail, a successor that does not know of the slow path.
set -euo pipefail
. lib/say.sh
. lib/daemon.sh
. lib/load.sh
. rig.d/paths.sh
. rig.d/multipathd.sh

transport=${1:-auto} kills=${2:-5}
needs_examples loadgen
[ "${RIG_PATHS:-lio}" = lio ] || die "scsi_debug writes before it waits: nothing of it lands late"
dir=/tmp/job
mkdir -p $dir

# One file, which LIO shows twice under one name: as it is, and by a device-mapper device that puts writes off.
modprobe loop
modprobe dm-delay
modprobe target_core_iblock
truncate -s 64M /tmp/lu.img
LOOP=$(losetup -f --show /tmp/lu.img)
tree_opened
table() { echo "0 131072 delay $LOOP 0 0 $LOOP 0 $1"; }
dm create --noudevsync slow --table "$(table 0)"
dm mknodes
core=/sys/kernel/config/target/core
make_paths 64
mkdir -p $core/iblock_0/slow
echo "udev_path=/dev/mapper/slow" >$core/iblock_0/slow/control
sed 's/.*: //' $core/fileio_0/lu/wwn/vpd_unit_serial >$core/iblock_0/slow/wwn/vpd_unit_serial
echo 1 >$core/iblock_0/slow/enable
for a in emulate_tpu emulate_tpws; do echo 1 >$core/iblock_0/slow/attrib/$a; done
lun=/sys/kernel/config/target/loopback/naa.600140500000001/tpgt_1/lun/lun_0
rm $lun/lu
ln -s $core/iblock_0/slow $lun/lu
P1=$(sd_of_host "$H1")
[ "$(cat "/sys/block/$P1/device/wwid")" = "$(cat "/sys/block/$P2/device/wwid")" ] || die "$P1 and $P2 are not one logical unit"
W=$(wwid_of "$P1")
# delay MILLISECONDS: of writes by P1.
delay() {
  dm reload --noudevsync slow --table "$(table "$1")"
  dm suspend --noudevsync slow
  dm resume --noudevsync slow
}
step "/dev/$P1 writes with a delay, /dev/$P2 at once"

# life OPTION…: a daemon, whoever was there before.
life() {
  cat $dir/daemon.log >>$dir/lives 2>/dev/null || true
  daemon_start $dir --transport "$transport" --polling-interval 1 --path-grouping-policy multibus --path-selector "round-robin 0" "$@"
}
BOTH=(--path "/dev/$P1" --path "/dev/$P2")
is_serving() { grep -q "serving .* on " "$DAEMON_LOG"; }
# out: commands that the kernel has by the slow path.
out() {
  local device=/sys/block/$P1/device
  echo $(($(<"$device/iorequest_cnt") - $(<"$device/iodone_cnt")))
}
# until_out [ALL]: until the slow path has something to land late. ALL: and nothing else ends there for a moment, so that it is no
# quick command or check.
until_out() {
  local until=$((SECONDS + 20)) ended=/sys/block/$P1/device/iodone_cnt before
  until before=$(<"$ended"); [ "$(out)" -gt 0 ] && sleep 0.1 && [ "$(out)" -gt 0 ] &&
    { [ -z "${1:-}" ] || [ "$before" = "$(<"$ended")" ]; }; do
    load_goes_on
    [ $SECONDS -lt $until ] || die "nothing goes by $P1"
  done
}
# slay OPTION…: kill, and start a successor at once with these options. Sets KILLED_AT, and LEFT: what was out.
slay() {
  local old=$DAEMON_PID
  LEFT=$(out)
  disown "$old"
  kill -9 "$old"
  KILLED_AT=$(now_ms)
  life "$@"
}
# until_served: until the successor serves; nothing may be out then that the dead one has sent. Sets TOOK.
until_served() {
  local until=$((SECONDS + 45))
  until is_serving; do
    kill -0 "$DAEMON_PID" 2>/dev/null || { sed 's/^/  daemon: /' "$DAEMON_LOG"; die "the successor ended"; }
    [ $SECONDS -lt $until ] || { tail -5 "$DAEMON_LOG"; die "the successor does not serve"; }
    sleep 0.01
  done
  TOOK=$(($(now_ms) - KILLED_AT))
}
# until_back COUNT: the load has come to so many successors.
until_back() { soon 30000 "the load has come back" grep -q "connected again ($1)" $dir/load; }

step "one write in flight by the slow path; a write of the same block as soon as it is answered"
life "${BOTH[@]}"
load_begin loadgen --reconnect --depth 1 --block-size 512 --span 4096
delay 1500
until_out all
slay "${BOTH[@]}"
until_served
[ "$TOOK" -ge 1000 ] || die "the successor served $TOOK ms after the kill: that is before the write has landed"
delay 0
until_back 1
sleep 2
load_end
load_told
grep "waiting for its end" "$DAEMON_LOG" | sed 's/^/  daemon: /' || die "it does not say what it waits for"
step "it has waited: it served $TOOK ms after the kill"
daemon_end

step "$kills kills under load"
life "${BOTH[@]}"
load_begin loadgen --reconnect --queues 2 --depth 8 --block-size 32768 --span 2097152
delay 300
waited=0 late=0 longest=0
for ((n = 1; n <= kills; n++)); do
  sleep "0.$((RANDOM % 6 + 2))"
  until_out
  # By the paths' names, and by the logical unit's.
  if [ $((n % 2)) = 1 ]; then slay "${BOTH[@]}"; else slay --wwid "$W"; fi
  until_served
  late=$((late + LEFT)) waited=$((waited + TOOK))
  [ "$TOOK" -le $longest ] || longest=$TOOK
  until_back $n
done
delay 0
load_end
load_told
no_error_told $dir/lives "$DAEMON_LOG"
daemon_end
step "$late commands were out by the slow path at the $kills kills; the successors served $((waited / kills)) ms after on average, $longest ms at most"

hazard="A process that has commands out by SG_IO stays until they have ended, so no front-end comes to a successor earlier."
if [ "$transport" != sg-io ]; then
  step "and a successor that does not know of the slow path: what all this is for"
  # Of each late write seen only if the guest reads the block before it writes it once more: so several at once.
  shown=
  for ((n = 1; n <= 8; n++)); do
    life "${BOTH[@]}"
    LOAD_SECONDS=4 load_begin loadgen --reconnect --depth 8 --block-size 512 --span 16384
    delay 1500
    until_out all
    slay --discover no --path "/dev/$P2"
    until_served
    if ! wait "$LOAD" 2>/dev/null; then
      grep -qa "should hold" $dir/load || trouble "the load failed, but not by a byte that is wrong"
      shown=1
    fi
    delay 0
    daemon_end
    [ -z "$shown" ] || break
  done
  [ -n "$shown" ] || die "no write landed late, $((n - 1)) times: this test shows nothing"
  step "seen at turn $n"
  grep -a "should hold" $dir/load | head -1 | sed 's/^/  /'
  hazard="A successor that was told to use one path only, $TOOK ms after the kill, had its work overwritten: the tests can fail."
fi
conclude "--transport $transport: killed $kills times with $late commands in the kernel, no wrong byte, none lost." "$hazard"
