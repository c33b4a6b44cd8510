# Many logical units with the same four SCSI paths each, in two ALUA target port groups, and every fault that LIO and
# sysfs can make. Sourced by the jobs, inside the rig's kernel only.
# shellcheck shell=bash
#
# Path 1 and 2 are in target port group 1, path 3 and 4 in group 2. A path number is a loopback target, so a SCSI host:
# what befalls it befalls that path of every logical unit at the same time.

TARGET=/sys/kernel/config/target
PORTS="1 2 3 4"
LUS=0
declare -A HOST_OF=() PORT_OF_HOST=()

# many_paths_begin: the four targets, without logical units.
many_paths_begin() {
  local n t
  mkdir -p /etc/target/pr /etc/target/alua /var/target/pr /var/target/alua
  modprobe sd_mod
  modprobe sg
  modprobe target_core_file
  modprobe tcm_loop
  for n in $PORTS; do
    t=$(port_of "$n")
    mkdir -p "$t"
    echo "naa.60014051000000$n" >"$t/nexus"
    HOST_OF[$n]=$(cut -d: -f1 "$t/address")
    PORT_OF_HOST[${HOST_OF[$n]}]=$n
  done
}
port_of() { echo "$TARGET/loopback/naa.60014050000000$1/tpgt_1"; }

# many_paths_add PRODUCT: one more logical unit, 1 MiB; its number is its LUN on every host. Sets LUS.
many_paths_add() {
  local n=$LUS core=$TARGET/core/fileio_0/lu$LUS t p g
  LUS=$((LUS + 1))
  truncate -s 1M "/tmp/lu$n.img"
  mkdir -p "$core"
  echo "fd_dev_name=/tmp/lu$n.img,fd_dev_size=$((1 << 20))" >"$core/control"
  printf -v g 'ca5e%04x' "$n"
  echo "$g" >"$core/wwn/vpd_unit_serial"
  echo "$1" >"$core/wwn/product_id"
  echo 1 >"$core/enable"
  mkdir "$core/alua/tg1" "$core/alua/tg2"
  for g in 1 2; do
    echo $((10 + g)) >"$core/alua/tg$g/tg_pt_gp_id"
    echo 1 >"$core/alua/tg$g/alua_access_type"
  done
  for p in $PORTS; do
    t=${PORT_DIR[$p]:=$(port_of "$p")}/lun/lun_$n
    mkdir -p "$t"
    ln -s "$core" "$t/lu"
    echo "tg$(((p + 1) / 2))" >"$t/alua_tg_pt_gp"
  done
}
declare -A PORT_DIR=()

# many_paths_find: which disk is which path now. Sets DISK[LU.PORT]; waits until every one that should be there is.
declare -A DISK=()
many_paths_find() {
  local until=$((SECONDS + 30)) d at n
  while :; do
    n=0
    for d in /sys/block/sd*; do
      [ -e "$d/device" ] || continue
      at=$(readlink "$d/device")
      IFS=: read -r h _ _ l <<<"${at##*/}"
      [ -b "/dev/${d##*/}" ] || continue
      DISK[$l.${PORT_OF_HOST[$h]}]=${d##*/}
      n=$((n + 1))
    done
    [ $n -lt $((LUS * 4)) ] || return 0
    [ $SECONDS -lt $until ] || die "$n disks appeared, not $((LUS * 4))"
    sleep 0.2
  done
}

# attentions_clear: the kernel asks every disk again, which takes what unit attentions making them has left.
attentions_clear() {
  local d
  for d in "${DISK[@]}"; do echo 1 >"/sys/block/$d/device/rescan"; done
}

# link_of PORT… online|offline: of the transport.
link_of() {
  local state=${*: -1} p
  for p in "${@:1:$#-1}"; do echo "$state" >"${PORT_DIR[$p]}/transport_status"; done
}

# access_of GROUP STATE [GROUP STATE]: of target port groups in every logical unit, in LIO's numbers: 0 active/optimized,
# 1 active/non-optimized, 2 standby, 3 unavailable.
access_of() {
  local n d
  for ((n = 0; n < LUS; n++)); do
    d=$TARGET/core/fileio_0/lu$n/alua
    echo "$2" >"$d/tg$1/alua_access_state"
    [ $# -lt 4 ] || echo "$4" >"$d/tg$3/alua_access_state"
  done
}
# transition_of GROUP STATE MILLISECONDS: the group is in transition for so long, and in that state afterwards. Goes on
# behind.
transition_of() {
  local n d
  for ((n = 0; n < LUS; n++)); do
    d=$TARGET/core/fileio_0/lu$n/alua/tg$1
    echo "$3" >"$d/trans_delay_msecs"
    (echo "$2" >"$d/alua_access_state"; echo 0 >"$d/trans_delay_msecs") &
  done
}

# device_state_of PORT STATE: what the kernel says of its disks: offline or running.
device_state_of() {
  local n
  for ((n = 0; n < LUS; n++)); do echo "$2" >"/sys/block/${DISK[$n.$1]}/device/state"; done
}

# device_delete PORT; device_rescan PORT: its disks are there again, perhaps under other names.
device_delete() {
  local n
  for ((n = 0; n < LUS; n++)); do echo 1 >"/sys/block/${DISK[$n.$1]}/device/delete"; done
}
# Not by scanning the host: tcm_loop's would take LUN 0 alone.
device_rescan() {
  local n t
  for ((n = 0; n < LUS; n++)); do
    t=${PORT_DIR[$1]}/lun/lun_$n
    rm "$t/lu"
    ln -s "$TARGET/core/fileio_0/lu$n" "$t/lu"
    echo "tg$((($1 + 1) / 2))" >"$t/alua_tg_pt_gp"
  done
  many_paths_find
}
