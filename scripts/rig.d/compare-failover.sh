#!/bin/bash
# Job: compare-failover.sh [--judge] STACK CASE…. What a guest lives through in each case of lib/failover.sh when its disk is two
# real paths behind STACK: ours-scsi, ours-blk, or scsi-block@RELEASE, virtio-blk@RELEASE: QEMU on a map of dm-multipath
# with multipathd, both of that Debian release. One line for each case: SEEN: STACK|CASE|KEY=VALUE|…
# With --judge it ends in failure where ours is not as good as it should be, with patience for a busy machine; cases 1, 5 and 6 are
# shorter then.
set -euo pipefail
. lib/say.sh
. lib/inner-guest.sh
. lib/daemon.sh
. lib/load.sh
. lib/failover.sh
. rig.d/paths.sh
. rig.d/other-host.sh
HERE=$PWD
. lib/orders.sh

# How often the path of case 1 is deleted, for how many seconds both are away in case 6, and one is offline in 5.
judge='' times=5 away=8 down=5
[ "$1" != --judge ] || { judge=1 times=2 away=4 down=2; shift; }
STACK=$1
shift
cases=" ${*:-$(failover_cases | cut -d'|' -f1 | xargs)} "
# Ours runs under the newest QEMU there is, so that QEMU makes no difference; else under the bed's own.
MULTIPATH_TREE=/peers/${STACK#*@}
case $STACK in
  ours-*) for MULTIPATH_TREE in /peers/sid /peers/trixie ''; do [ ! -d "$MULTIPATH_TREE/usr" ] || break; done ;;
esac
[ -x "$MULTIPATH_TREE/usr/bin/qemu-system-x86_64" ] || die "there is no QEMU in $MULTIPATH_TREE"
. rig.d/multipathd.sh
ours() { case $STACK in ours-*) ;; *) return 1 ;; esac; }
GUEST_DEVICE=blk
case $STACK in *scsi*) GUEST_DEVICE=scsi ;; esac
dir=/tmp/job
mkdir -p $dir/bin
GUEST_KERNEL=$dir/vmlinuz GUEST_TIMEOUT=1500 ORDER_PATIENCE=200
cp /rig/guest/vmlinuz $dir/vmlinuz
printf '#!/bin/sh\nexec chroot %s/ /usr/bin/qemu-system-x86_64 "$@"\n' "$MULTIPATH_TREE" >$dir/bin/qemu-system-x86_64
chmod +x $dir/bin/qemu-system-x86_64
PATH=$dir/bin:$PATH

# --- the logical units ------------------------------------------------------------------------------------------------
CORE=/sys/kernel/config/target/core
HOST=() # of path 1 and 2
port() { echo "/sys/kernel/config/target/loopback/naa.60014050000000$1/tpgt_1"; }
disk() { sd_of_host "${HOST[$1]}"; }

# An array with ALUA: path 1 in an optimized group, path 2 in one that is not.
bed_alua() {
  make_paths 64
  local n
  for n in 1 2; do
    mkdir $CORE/fileio_0/lu/alua/tg$n
    echo $((10 + n)) >$CORE/fileio_0/lu/alua/tg$n/tg_pt_gp_id
    echo 1 >$CORE/fileio_0/lu/alua/tg$n/alua_access_type
    echo tg$n >"$(port $n)/lun/lun_0/alua_tg_pt_gp"
  done
  access 2 1
  make_other_host
  for n in $P1 $P2; do echo 1 >"/sys/block/$n/device/rescan"; done
  HOST=(0 "$H1" "$H2")
  POLICY="path_grouping_policy group_by_prio;prio alua;failback immediate"
}
# access GROUP STATE: in LIO's numbers.
access() { echo "$2" >$CORE/fileio_0/lu/alua/tg"$1"/alua_access_state; }

# Two back-ends over one file, so that each path can hang for itself: below each is a dm device that can be suspended.
bed_hangable() {
  local n loop t
  modprobe loop
  modprobe dm-mod
  [ -n "$MULTIPATH_TREE" ] || tree_opened
  modprobe sd_mod
  modprobe sg
  modprobe bsg 2>/dev/null || true
  modprobe target_core_iblock
  modprobe tcm_loop
  mkdir -p /etc/target/pr /etc/target/alua /var/target/pr /var/target/alua
  truncate -s 64M /tmp/hangable.img
  loop=$(losetup -f --show /tmp/hangable.img)
  for n in 1 2; do
    dm create --noudevsync front$n --table "0 131072 linear $loop 0"
    t=$CORE/iblock_$n/lu
    mkdir -p $t
    echo "udev_path=$(front $n)" >$t/control
    echo deadbeef0008 >$t/wwn/vpd_unit_serial
    echo HANGABLE >$t/wwn/product_id
    echo 1 >$t/enable
    t=/sys/kernel/config/target/loopback/naa.60014050000001$n/tpgt_1
    mkdir -p $t
    echo "naa.60014051000001$n" >$t/nexus
    mkdir -p $t/lun/lun_0
    ln -s $CORE/iblock_$n/lu $t/lun/lun_0/lu
    HOST[n]=$(cut -d: -f1 $t/address)
  done
  POLICY="path_grouping_policy failover;prio const;failback manual"
}
# front N: the block device below path N's back-end.
front() { local d; for d in /sys/block/dm-*; do [ "$(cat "$d/dm/name")" != "front$1" ] || echo "/dev/${d##*/}"; done; }

bed_scsi_debug() {
  RIG_PATHS=scsi_debug make_paths 64
  HOST=(0 "$H1" "$H2")
  POLICY="path_grouping_policy failover;prio const;failback manual"
}
# inject OPTS EVERY_NTH: scsi_debug's, on both paths.
inject() {
  local d=/sys/bus/pseudo/drivers/scsi_debug
  echo 0 >$d/every_nth
  echo "$1" >$d/opts
  echo "$2" >$d/every_nth
}

# --- the stack over them ----------------------------------------------------------------------------------------------
WWID=
stack_start() {
  local key value options=() n
  if ours; then
    while read -r key value; do options+=(--set "$key=$value"); done < <(tr ';' '\n' <<<"$POLICY")
    for n in 1 2; do options+=(--path "/dev/$(disk $n)"); done
    daemon_start $dir --device $GUEST_DEVICE "${options[@]}"
    ctl show topology
  else
    # As tests of today's multipath-tools found it necessary: an override, for the entries built in are stronger.
    {
      printf 'defaults {\n find_multipaths no\n user_friendly_names no\n polling_interval 5\n uid_attribute ""\n}\n'
      printf 'blacklist {\n devnode "^(vd|ubd|loop|dm-)"\n}\noverrides {\n detect_prio no\n detect_checker no\n'
      printf ' detect_pgpolicy no\n path_checker tur\n no_path_retry queue\n uid_attribute ""\n'
      tr ';' '\n' <<<"$POLICY"
      printf '}\n'
    } >$dir/multipath.conf
    multipathd_start <$dir/multipath.conf
    # By its own words: it names scsi_debug otherwise than the kernel does.
    WWID=$(multipathd_say show paths raw format '%d %w' | awk -v d="$(disk 1)" '$1 == d { print $2 }')
    [ -n "$WWID" ] || die "multipathd does not know $(disk 1)"
    for ((n = 0; n < 100; n++)); do [ ! -e "/dev/mapper/$WWID" ] || break; sleep 0.1; done
    [ -e "/dev/mapper/$WWID" ] || { multipathd_say show topology; tail -20 $MULTIPATHD_LOG; die "multipathd has not made the map $WWID"; }
    multipathd_say show topology
    # shellcheck disable=SC2034  # lib/guest.sh's
    GUEST_PEER=(-blockdev "driver=host_device,filename=/dev/mapper/$WWID,node-name=d0,cache.direct=on")
    case $STACK in
      scsi-block@*) GUEST_PEER+=(-device "virtio-scsi-pci,id=s0,num_queues=1" -device "scsi-block,drive=d0,bus=s0.0") ;;
      virtio-blk@*) GUEST_PEER+=(-device "virtio-blk-pci,drive=d0,num-queues=1") ;;
    esac
    DAEMON_SOCKET=none
  fi
  well_before "the guest"
  orders_guest $dir witness
  sleep 1
}
stack_end() {
  order verify
  order end
  case $(guest_said result) in *'|wrong=0|'*) ;; *) die "the guest has read what it did not write: $(guest_said result)" ;; esac
  guest_tell stop
  guest_await "GUEST: end rc=" 60 || exit 1
  guest_stop
  if ours; then
    if grep -q ' error ' "$DAEMON_LOG"; then grep ' error ' "$DAEMON_LOG" | tail -5; fi
    cp "$DAEMON_LOG" "$dir/log-$BED"
    daemon_end
    rm -f "$DAEMON_SOCKET" "$DAEMON_CONTROL"
  else
    multipathd_say disablequeueing maps >/dev/null
    multipathd_say shutdown >/dev/null || true
    wait "$MULTIPATHD_PID" || true
    dm remove --noudevsync --retry "$WWID" || true
  fi
  # Nothing of this bed is for the next.
  delete 1
  delete 2
  ORDERS_SHOWN=0
}

# both_well: both paths are there and usable, to the stack's knowledge.
both_well() {
  if ours; then
    [ "$(ctl show paths raw format '%t' | grep -cx active)" = 2 ]
  else
    [ "$(multipathd_say show paths raw format '%w %t %T' | grep -cx "$WWID *active *ready *")" = 2 ]
  fi
}
# await_well: for a minute. Sets WELL: milliseconds until then, or never.
await_well() {
  local began
  began=$(now_ms)
  until both_well; do
    if [ $(($(now_ms) - began)) -ge 60000 ]; then
      if ours; then ctl show topology; tail -20 "$DAEMON_LOG"; else multipathd_say show topology; tail -20 $MULTIPATHD_LOG; fi
      WELL=never
      return
    fi
    sleep 0.1
  done
  WELL=$(($(now_ms) - began))
}
# well_before WHAT: a case that does not begin with two good paths is another case. Of today's stack that is to be known, of
# ours it ends the job.
well_before() {
  await_well
  [ $WELL = never ] || return 0
  ! ours || die "not both paths are well after a minute, before $1"
  warn "not both paths are well after a minute, before $1"
}

# --- the cases --------------------------------------------------------------------------------------------------------
# active: the path that has more commands now.
active() {
  local a b x y
  a=$(disk 1) b=$(disk 2)
  x=$(requests_of "$a") y=$(requests_of "$b")
  sleep 0.3
  if [ $(($(requests_of "$a") - x)) -ge $(($(requests_of "$b") - y)) ]; then echo 1; else echo 2; fi
}
delete() { delete_path "$(disk "$1")"; }
back() { rescan "${HOST[$1]}"; disk "$1" >/dev/null; }
link() { echo "$2" >"$(port "$1")/transport_status"; }
# outage_begins; outage_ends: of all paths, or of one that hangs; OUTAGE milliseconds long.
outage_begins() { OUTAGE_SINCE=$(now_ms); }
outage_ends() { OUTAGE=$(($(now_ms) - OUTAGE_SINCE)); }

case_0() { sleep 10; }
case_1() {
  local p n
  for ((n = 0; n < times; n++)); do
    p=$(active)
    delete "$p"
    sleep 2
    back "$p"
    sleep 2
  done
}
case_2() {
  local p
  for _ in 1 2 3 4 5; do
    p=$(active)
    link "$p" offline
    sleep 5
    link "$p" online
    sleep 5
  done
}
case_3() {
  outage_begins
  link 1 offline
  link 2 offline
  sleep 20
  link 1 online
  link 2 online
  outage_ends
  sleep 8
}
case_4() {
  local state
  for _ in 1 2; do
    for state in 2 0 3 0; do
      access 1 $state
      sleep 3
    done
  done
}
case_6() {
  outage_begins
  delete 1
  delete 2
  sleep $away
  back 1
  outage_ends
  back 2
  sleep 3
}
# reserve TYPE: what a cluster's node does.
KEY=c0ffee
reserve() {
  order pr-out 0 0 0 $KEY
  order pr-out 1 "$1" $KEY 0
  order begin # what the guest is told from now on is the faults' doing
}
each_path_in_turn() {
  local p n
  for ((n = 0; n < times; n++)); do
    p=$((1 + n % 2))
    delete $p
    sleep 2
    back $p
    sleep 2
  done
  p=$(active)
  link "$p" offline
  sleep $down
  link "$p" online
  sleep 3
}
case_5a() { reserve 5; each_path_in_turn; }
case_5b() { reserve 1; each_path_in_turn; }
case_5c() { reserve 5; case_6; }
# reservation_now: what the guest reads of it, and what becomes of another host's write. reservation_over: the guest gives it up, and
# whatever is registered all the same goes, so that the next case begins without.
reservation_now() {
  order pr-in
  other_writes
  EXTRA="|reservation=$(reservation_read)|other=$OTHER_SAW"
}
reservation_over() {
  if ours; then
    order pr-out 0 0 $KEY 0
    order pr-in
    EXTRA+="|left=$(reservation_read)"
  fi
  other_clears
}
reservation_read() { guest_said reservation: | sed 's/^reservation: //; s/|/ /g'; }
# How many commands the paths get for a read that ends with a medium error, alone and beside other I/O.
case_7() {
  local a b x
  inject 2 0
  order read 4656 10
  order pause
  sleep 0.5
  a=$(disk 1) b=$(disk 2)
  x=$(($(requests_of "$a") + $(requests_of "$b")))
  order read 4656 20
  EXTRA="|device_commands=$(($(requests_of "$a") + $(requests_of "$b") - x))|for_reads=20"
  inject 0 0
  order resume
  sleep 1
}
case_8() {
  local p
  p=$(active)
  outage_begins
  dm suspend --noflush --nolockfs "front$p"
  sleep 3
  order probe
  sleep 17
  dm resume "front$p"
  outage_ends
  sleep 3
}
# every_nth EVERY OPTS SECONDS
every_nth() {
  inject "$2" "$1"
  sleep "$3"
  inject 0 0
  sleep 1
}
case_9a() { every_nth 20 8 5; }       # recovered error
case_9b() { every_nth 20 0x10 5; }    # aborted command, ACK/NAK timeout
case_9c() { every_nth 20 0x100 5; }   # short transfer
case_9d() { every_nth 20 0x8000 5; }  # the host is busy
case_9e() { every_nth 20 0x10000 5; } # the command is aborted
case_9f() {                           # a command is lost
  inject 4 200
  sleep 2
  inject 0 0
  sleep 40
}

BED=
run_case() {
  CASE=$1 OUTAGE=0 EXTRA=
  local what=$2 seen
  step "$STACK: case $CASE, $what"
  well_before "case $CASE"
  order begin "$CASE"
  sleep 1
  "case_$CASE"
  sleep 1
  await_well
  case $CASE in 5?) reservation_now ;; esac
  order end
  seen=$(guest_said result: | sed 's/^result: //')
  case $CASE in 5?) reservation_over ;; esac
  say "SEEN: $STACK|$CASE|outage_ms=$OUTAGE|well_ms=$WELL$EXTRA|$seen" | tee -a $dir/seen
}

# What multipathd must see from the first disk on, and QEMU in that tree wants.
[ -z "$MULTIPATH_TREE" ] || multipathd_udev
if ours; then say "SEEN-VERSION: $STACK|$("$VHOST_MPATH" --version)"; else say "SEEN-VERSION: $STACK|multipath-tools $(chroot "$MULTIPATH_TREE" multipath -h 2>&1 | sed -n '1,/^multipath-tools v/s/^multipath-tools v\([0-9.]*\).*/\1/p')"; fi
say "SEEN-QEMU: $STACK|$(qemu-system-x86_64 --version | sed -n 's/QEMU emulator version //p')"
say "SEEN-KERNEL: $STACK|$(uname -r)"
mkdir -p $dir/tree
# The guest's libraries come with it.
guest_add_program $dir/tree /rig/bin/witness
while IFS='|' read -r -u 5 number bed what; do
  case $cases in *" $number "*) failover_has "$STACK" "$number" || continue ;; *) continue ;; esac
  if [ "$bed" != "$BED" ]; then
    [ -z "$BED" ] || stack_end
    BED=$bed CASE="-"
    "bed_$bed"
    stack_start
  fi
  run_case "$number" "$what"
done 5< <(failover_cases)
[ -z "$BED" ] || stack_end
if [ -n "$judge" ]; then
  mkdir $dir/results
  RESULTS=$dir/results
  failover_keep "$STACK" $dir/seen
  failover_judge "$STACK" "$cases" 1000 || die "ours is not as good as it should be"
fi
