# Two real SCSI paths to one logical unit, or more. Sourced by the jobs, inside the rig's kernel only. Sets P1 P2 (sdX) and
# H1 H2 (host numbers), and HOSTS, the hosts of all.
# shellcheck shell=bash

# make_paths MIB [COUNT]: more than two by LIO only. RIG_IMAGE: the file under LIO's logical unit.
make_paths() {
  modprobe sd_mod
  modprobe sg
  modprobe bsg 2>/dev/null || true
  case ${RIG_PATHS:-lio} in
    scsi_debug) make_scsi_debug "$1" ;;
    *) make_lio "$1" "${2:-2}" ;;
  esac
  # shellcheck disable=SC2034  # of the jobs
  HOSTS=$(for ((n = 1; n <= ${2:-2}; n++)); do h=H$n; printf '%s ' "${!h}"; done)
  P1=$(sd_of_host "$H1")
  P2=$(sd_of_host "$H2")
  [ "$(cat "/sys/block/$P1/device/wwid")" = "$(cat "/sys/block/$P2/device/wwid")" ] || die "$P1 and $P2 are not one logical unit"
  step "two paths: /dev/$P1 on host $H1, /dev/$P2 on host $H2, $(cat "/sys/block/$P1/device/wwid"), $(cat "/sys/block/$P1/device/model")"
}

# LIO, by writing to configfs: one file as back-end, two loopback targets, so two SCSI hosts see it.
make_lio() {
  local target=/sys/kernel/config/target image=${RIG_IMAGE:-/tmp/lu.img} n t
  # Where LIO keeps reservations that outlive it; which of the two is up to its version.
  mkdir -p /etc/target/pr /etc/target/alua /var/target/pr /var/target/alua
  modprobe target_core_file
  modprobe tcm_loop
  truncate -s "$1M" "$image"
  mkdir -p "$target/core/fileio_0/lu"
  echo "fd_dev_name=$image,fd_dev_size=$(($1 << 20))" >"$target/core/fileio_0/lu/control"
  echo deadbeef0001 >"$target/core/fileio_0/lu/wwn/vpd_unit_serial"
  echo 1 >"$target/core/fileio_0/lu/enable"
  echo 1 >"$target/core/fileio_0/lu/attrib/emulate_tpu"
  echo 1 >"$target/core/fileio_0/lu/attrib/emulate_tpws"
  for ((n = 1; n <= $2; n++)); do
    t=$target/loopback/naa.60014050000000$n/tpgt_1
    mkdir -p "$t"
    echo "naa.60014051000000$n" >"$t/nexus"
    mkdir -p "$t/lun/lun_0"
    ln -s "$target/core/fileio_0/lu" "$t/lun/lun_0/lu"
    printf -v "H$n" %s "$(cut -d: -f1 "$t/address")"
  done
}

# scsi_debug: one store in memory, two hosts. RIG_DELAY: how a command's answer is put off.
make_scsi_debug() {
  local hosts
  modprobe scsi_debug dev_size_mb="$1" num_tgts=1 add_host=2 vpd_use_hostno=0 "${RIG_DELAY:-ndelay=1000}" lbpu=1 lbpws=1 lbpws10=1 max_queue=64
  mapfile -t hosts < <(cd /sys/bus/pseudo/drivers/scsi_debug && echo adapter*/host* | tr ' ' '\n' | sed 's/.*host//')
  H1=${hosts[0]} H2=${hosts[1]}
}

# sd_of_host N: the disk on this SCSI host, waiting for it to appear.
sd_of_host() {
  local i d
  for ((i = 0; i < 100; i++)); do
    for d in /sys/class/scsi_host/host"$1"/device/target*/*/block/*; do
      if [ -b "/dev/${d##*/}" ]; then echo "${d##*/}"; return 0; fi
    done
    sleep 0.1
  done
  die "no disk appeared on SCSI host $1"
}

# hctl_of SDX; sg_of SDX; wwid_of SDX: its place, its sg node's name, its WWID as multipath-tools write it.
hctl_of() { basename "$(readlink -f "/sys/block/$1/device")"; }
sg_of() { ls "/sys/block/$1/device/scsi_generic"; }
wwid_of() { sed 's/^naa\./3/' "/sys/block/$1/device/wwid"; }

# node_of KIND SDX: the disk's node of that kind: sd, sg or bsg.
node_of() {
  case $1 in
    sd) echo "/dev/$2" ;;
    sg) echo "/dev/$(sg_of "$2")" ;;
    bsg) echo "/dev/bsg/$(hctl_of "$2")" ;;
    *) die "sd, sg or bsg?" ;;
  esac
}

# requests_of SDX: how many commands the kernel has sent it so far.
requests_of() { cat "/sys/block/$1/device/iorequest_cnt" 2>/dev/null || echo 0; }

# sd_now HOST: the disk on this SCSI host, if there is one.
sd_now() {
  local d
  for d in /sys/class/scsi_host/host"$1"/device/target*/*/block/*; do
    [ ! -e "$d" ] || echo "${d##*/}"
  done
}

# delete_path SDX, as a pulled cable ends after the transport's dev_loss_tmo; rescan HOST brings the path back,
# under another name while somebody still holds the old one open.
delete_path() { echo 1 >"/sys/block/$1/device/delete"; }
rescan() { echo "- - -" >"/sys/class/scsi_host/host$1/scan"; }
