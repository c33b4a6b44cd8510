# Two paths to one logical unit over iSCSI, from this kernel's initiator to its own LIO: the transport whose sessions can
# be cut, which brings its disks into the states `blocked` and `transport-offline`. Sourced by the jobs, inside the
# rig's kernel only. Sets P1 P2 and H1 H2 as rig.d/paths.sh does.
# shellcheck shell=bash

ISCSI=/sys/kernel/config/target/iscsi
ISCSI_LU=/sys/kernel/config/target/core/fileio_0/lu

iscsi_tool() { LD_LIBRARY_PATH=/iscsi/usr/lib/x86_64-linux-gnu:/iscsi/lib/x86_64-linux-gnu "/iscsi/sbin/$1" "${@:2}"; }

# make_iscsi_paths MIB RECOVERY: a session that is cut is waited for RECOVERY seconds.
make_iscsi_paths() {
  local n t
  modprobe sd_mod
  modprobe sg
  modprobe target_core_file
  modprobe iscsi_target_mod
  modprobe iscsi_tcp
  truncate -s "$1M" /tmp/lu.img
  mkdir -p "$ISCSI_LU" "$ISCSI"
  echo "fd_dev_name=/tmp/lu.img,fd_dev_size=$(($1 << 20))" >"$ISCSI_LU/control"
  echo deadbeef0001 >"$ISCSI_LU/wwn/vpd_unit_serial"
  echo 1 >"$ISCSI_LU/enable"
  echo 1 >"$ISCSI_LU/attrib/emulate_tpu"
  echo 1 >"$ISCSI_LU/attrib/emulate_tpws"
  for n in 1 2; do
    t=$(iscsi_target_of $n)
    mkdir -p "$t/lun/lun_0"
    ln -s "$ISCSI_LU" "$t/lun/lun_0/lu"
    iscsi_portal_up $n
    for a in authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1; do echo "${a#*=}" >"$t/attrib/${a%=*}"; done
    echo 1 >"$t/enable"
  done
  mkdir -p /run/lock/iscsi /etc/iscsi
  mount -t tmpfs tmpfs /etc/iscsi
  echo InitiatorName=iqn.2026-11.example:rig >/etc/iscsi/initiatorname.iscsi
  # No answer to a NOP within a second, and the session is taken for lost; it is tried again each second.
  cat >/etc/iscsi/iscsid.conf <<CONF
node.startup = manual
node.session.timeo.replacement_timeout = $2
node.conn[0].timeo.noop_out_interval = 1
node.conn[0].timeo.noop_out_timeout = 1
node.conn[0].timeo.login_timeout = 2
node.session.initial_login_retry_max = 3
CONF
  iscsi_tool iscsid -c /etc/iscsi/iscsid.conf -i /etc/iscsi/initiatorname.iscsi
  for n in 1 2; do
    iscsi_tool iscsiadm -m node -o new -T "$(iscsi_name $n)" -p 127.0.0.1:326$n >/dev/null
    iscsi_tool iscsiadm -m node -T "$(iscsi_name $n)" -p 127.0.0.1:326$n --login >/dev/null
  done
  H1=$(iscsi_host 1) H2=$(iscsi_host 2)
  P1=$(iscsi_disk "$H1")
  P2=$(iscsi_disk "$H2")
  step "two paths by iSCSI: /dev/$P1 on host $H1, /dev/$P2 on host $H2, $(cat "/sys/block/$P1/device/wwid")"
}
iscsi_name() { echo iqn.2026-11.example:rig.target"$1"; }
iscsi_target_of() { echo "$ISCSI/$(iscsi_name "$1")/tpgt_1"; }
iscsi_portal_up() { mkdir "$(iscsi_target_of "$1")/np/127.0.0.1:326$1"; }

# iscsi_host N: the SCSI host of its session.
iscsi_host() {
  local s
  for s in /sys/class/iscsi_session/*; do
    if [ "$(cat "$s/targetname")" = "$(iscsi_name "$1")" ]; then s=$(readlink -f "$s"); s=${s%%/session*}; echo "${s##*/host}"; fi
  done
}

iscsi_disk() { # HOST
  local i d
  for ((i = 0; i < 100; i++)); do
    for d in "/sys/bus/scsi/devices/$1":*/block/*; do
      if [ -b "/dev/${d##*/}" ]; then echo "${d##*/}"; return 0; fi
    done
    sleep 0.1
  done
  die "no disk appeared on SCSI host $1"
}

# iscsi_cut N, iscsi_mend N: the target is switched off, which ends its connections, and on again.
iscsi_cut() { echo 0 >"$(iscsi_target_of "$1")/enable"; }
iscsi_mend() { echo 1 >"$(iscsi_target_of "$1")/enable"; }
