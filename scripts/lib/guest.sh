# A real guest: Debian's kernel, a small busybox initramfs, QEMU on a vhost-user-blk or vhost-user-scsi socket. Sourced, never run.
# Needs lib/say.sh and lib/install.sh. Nothing is written outside $CACHE and the caller's own directory.
# shellcheck shell=bash

GUEST_D=$(cd "$(dirname "${BASH_SOURCE[0]}")/../guest.d" && pwd)
# What the guest may need; one that a kernel has built in, or does not know any more, is left out.
GUEST_MODULES="virtio_pci virtio_blk virtio_scsi sd_mod crc32c_generic crc32c-intel ext4"

# guest_prepare: fetch the kernel and build the initramfs, once. Sets GUEST_KERNEL and GUEST_INITRD.
guest_prepare() {
  local package version dir key
  [ "$(uname -m)" = x86_64 ] || die "the guest is an x86-64 Debian and this machine is $(uname -m)" \
    "Run this on an x86-64 machine; on others start QEMU by hand as in qemu/README.md."
  mkdir -p "$CACHE/guest"
  exec {GUEST_LOCK}>"$CACHE/guest/lock"
  flock "$GUEST_LOCK"
  if [ -n "${GUEST_KERNEL_VERSION:-}" ]; then
    version=$GUEST_KERNEL_VERSION
  else
    version=$(guest_kernel_offered) || die "apt offers no linux-image-cloud-amd64" \
      "The guest's kernel is Debian's. As root: apt-get update; on another system unpack a Debian kernel package into $CACHE/guest/VERSION/root and set GUEST_KERNEL_VERSION."
  fi
  dir=$CACHE/guest/$version
  if [ ! -e "$dir/vmlinuz" ]; then
    package=linux-image-$version
    step "fetching the guest's kernel: $package"
    rm -rf "$dir.new"
    mkdir -p "$dir.new/root"
    guest_unpack "$package" "$dir.new"
    mv "$dir.new" "$dir"
  fi
  key=$({ echo "$GUEST_MODULES"; cat "$GUEST_D/init" "${BASH_SOURCE[0]}"; mke2fs -V 2>&1; } | sha256sum | cut -c1-16)
  GUEST_KERNEL=$dir/vmlinuz
  GUEST_INITRD=$dir/initrd-$key
  [ -e "$GUEST_INITRD" ] || guest_build_initramfs "$version" "$dir" "$GUEST_INITRD"
  flock -u "$GUEST_LOCK"
  exec {GUEST_LOCK}>&-
}

# The version the release's kernel package stands for, for instance 6.1.0-40-cloud-amd64.
guest_kernel_offered() {
  local v
  v=$(guest_kernel_depends)
  if [ -z "$v" ]; then
    as_root apt-get -qq update >/dev/null 2>&1 || true
    v=$(guest_kernel_depends)
  fi
  [ -n "$v" ] && echo "$v"
}

guest_kernel_depends() {
  local p v
  for p in linux-image-cloud-amd64 linux-image-amd64; do
    v=$(apt-cache --no-all-versions show "$p" 2>/dev/null | sed -n 's/^Depends: linux-image-\([^ ,]*\).*/\1/p' | head -1)
    [ -z "$v" ] || { echo "$v"; return; }
  done
}

# guest_unpack PACKAGE DIR: the package is only unpacked, never installed: the host's /boot is not touched. APT_VIEW as
# of apt_view, where it comes from another release.
guest_unpack() (
  cd "$2" || exit
  sandbox=("${APT_VIEW[@]}")
  # As root apt would read the download directory as its own user, which it cannot.
  [ "$(id -u)" != 0 ] || sandbox+=(-o APT::Sandbox::User=root)
  apt-get -qq "${sandbox[@]}" download "$1" || die "could not download $1" "As root: apt-get update"
  dpkg-deb -x "$1"_*.deb root
  # Newer kernels come as a meta-package over linux-binary-… and linux-modules-….
  for p in $(dpkg-deb -f "$1"_*.deb Depends | tr ',' '\n' | grep -oE 'linux-(binary|modules)-[^ ,]+' | sort -u); do
    apt-get -qq "${sandbox[@]}" download "$p"
    dpkg-deb -x "$p"_*.deb root
  done
  rm -f ./*.deb
  v=${1#linux-image-}
  # Debian 13 has everything under /usr; modprobe looks below /lib.
  [ -e root/lib ] || ln -s usr/lib root/lib
  for k in "root/boot/vmlinuz-$v" "root/lib/modules/$v/vmlinuz"; do [ ! -e "$k" ] || cp "$k" vmlinuz; done
  [ -e vmlinuz ] || die "$1 has no vmlinuz where Debian puts it"
  depmod -b root "$v"
)

# guest_build_initramfs VERSION DIR OUT
guest_build_initramfs() (
  version=$1 dir=$2 out=$3
  w=$(mktemp -d)
  trap 'rm -rf "$w"' EXIT
  mkdir -p "$w"/{bin,sbin,mod,proc,sys,dev,mnt,tmp,newroot}
  cp "$(busybox_static)" "$w/bin/busybox"
  install -m 755 "$GUEST_D/init" "$w/init"
  guest_add_modules "$dir/root" "$version" "$w/mod" order "$GUEST_MODULES"
  # busybox makes ext2 only: the host's own mke2fs, e2fsck and resize2fs go along with their libraries.
  guest_add_program "$w" mke2fs
  guest_add_program "$w" e2fsck
  guest_add_program "$w" resize2fs
  [ ! -e /etc/mke2fs.conf ] || { mkdir -p "$w/etc"; cp /etc/mke2fs.conf "$w/etc/"; }
  (cd "$w" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$out.new"
  mv "$out.new" "$out"
)

# guest_add_modules KERNEL_ROOT VERSION INTO ORDER MODULES: these modules and what they need, unpacked, and the order to
# load them in.
guest_add_modules() {
  local m f n
  : >"$3/$4"
  for m in $5; do
    # A module may be missing (crc32c became a library in newer kernels): then nothing needs it.
    { modprobe -d "$1" -S "$2" -D "$m" 2>/dev/null || true; } | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' | while read -r f; do
    n=${f##*/}
    case $n in
      *.xz) n=${n%.xz}; xz -dc "$f" >"$3/$n" ;;
      *.zst) n=${n%.zst}; zstd -qdc "$f" >"$3/$n" ;;
      *.gz) n=${n%.gz}; gzip -dc "$f" >"$3/$n" ;;
      *) cp "$f" "$3/$n" ;;
    esac
    echo "$n" >>"$3/$4"
  done
}

# guest_add_program TREE NAME: a program of the host into a tree for the guest, with its libraries.
guest_add_program() {
  local x l
  x=$(command -v "$2") || die "there is no $2 to take along for the guest"
  mkdir -p "$1/sbin"
  cp -L "$x" "$1/sbin/"
  for l in $(ldd "$x" | grep -oE '/[^ ]+\.so[^ ]*'); do mkdir -p "$1$(dirname "$l")"; cp -L "$l" "$1$l"; done
}

# guest_add_job INITRD JOB OUT [TREE]: the initramfs with one script as its job, and more files where TREE is
# given; the kernel reads archives one after another, those of GUEST_ARCHIVES in between.
guest_add_job() (
  w=$(mktemp -d)
  trap 'rm -rf "$w"' EXIT
  [ -z "${4:-}" ] || cp -R "$4/." "$w/"
  cp "$2" "$w/job"
  # shellcheck disable=SC2086  # archives are named without blanks, one after another
  (cd "$w" && find . -mindepth 1 | cpio -o -H newc --quiet | gzip -1) | cat "$1" ${GUEST_ARCHIVES:-} - >"$3"
)

# guest_qemu_at_least MAJOR MINOR
guest_qemu_at_least() {
  local v
  v=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
  [ "${v% *}" -gt "$1" ] || { [ "${v% *}" -eq "$1" ] && [ "${v#* }" -ge "$2" ]; }
}

# The option that makes QEMU come back to a daemon that restarted, with a comma before it; seconds until 9.1,
# milliseconds from 9.2. vhost-user-scsi does not start with it before 8.2.
guest_reconnect() {
  if guest_qemu_at_least 9 2; then echo ,reconnect-ms=500
  elif [ "${GUEST_DEVICE:-blk}" = blk ] || guest_qemu_at_least 8 2; then echo ,reconnect=1
  fi
}

# KVM only where it really is: some machines show /dev/kvm on processors that cannot use it.
guest_accel() {
  if [ -w /dev/kvm ] && grep -qE '^flags.*\<(vmx|svm)\>' /proc/cpuinfo; then echo kvm; else echo tcg,thread=multi; fi
}

# guest_start DIR SOCKET JOB [QEMU OPTIONS…]: boot, console in DIR/console. JOB "" boots from the disk itself.
# GUEST_TREE names a directory of further files for the guest. Sets GUEST_PID; what the caller writes to descriptor GUEST_IN reaches the guest's console.
guest_start() {
  local dir=$1 socket=$2 job=$3 accel cpu boot=()
  shift 3
  accel=$(guest_accel)
  cpu=max
  [ "$accel" != kvm ] || cpu=host
  GUEST_CONSOLE=$dir/console
  : >"$GUEST_CONSOLE"
  rm -f "$dir/console.in"
  mkfifo "$dir/console.in"
  # Opened for reading too, so that it neither blocks here nor ends when nobody writes.
  exec {GUEST_IN}<>"$dir/console.in"
  if [ -n "$job" ]; then
    guest_add_job "$GUEST_INITRD" "$job" "$dir/initrd" "${GUEST_TREE:-}"
    boot=(-kernel "$GUEST_KERNEL" -initrd "$dir/initrd" -append "console=ttyS0 panic=-1 quiet loglevel=4")
  fi
  guest_qemu_command "$socket" "${GUEST_MEMORY:-512}" "${GUEST_CPUS:-2}" "$accel" "$cpu"
  timeout -k 5 "${GUEST_TIMEOUT:-300}" "${GUEST_QEMU[@]}" -display none -serial stdio -monitor none \
    "${boot[@]}" "$@" <&"$GUEST_IN" >"$GUEST_CONSOLE" 2>"$dir/qemu-errors" &
  GUEST_PID=$!
}

# guest_qemu_command SOCKET MEMORY_MIB CPUS ACCEL CPU: the part of the command line a reader would copy, in GUEST_QEMU.
# GUEST_DEVICE is blk or scsi; GUEST_PEER are QEMU's own disks in place of ours (lib/daemon.sh).
guest_qemu_command() {
  local bootindex=''
  [ -z "${GUEST_BOOTINDEX:-}" ] || bootindex=,bootindex=$GUEST_BOOTINDEX
  GUEST_QEMU=(qemu-system-x86_64 -M q35 -accel "$4" -cpu "$5" -smp "$3" -m "$2" -no-reboot -nodefaults
    -object "memory-backend-memfd,id=mem,size=${2}M,share=on" -machine memory-backend=mem)
  if [ -n "${GUEST_PEER:-}" ]; then
    GUEST_QEMU+=("${GUEST_PEER[@]}")
    return
  fi
  GUEST_QEMU+=(-chardev "socket,id=disk0,path=$1$(guest_reconnect)")
  # QEMU spells the number of queues differently for the two.
  case ${GUEST_DEVICE:-blk} in
    scsi) GUEST_QEMU+=(-device "vhost-user-scsi-pci,chardev=disk0,num_queues=${GUEST_QUEUES:-2}$bootindex") ;;
    *) GUEST_QEMU+=(-device "vhost-user-blk-pci,chardev=disk0,num-queues=${GUEST_QUEUES:-2}$bootindex") ;;
  esac
}

# guest_tell LINE: type a line at the guest.
guest_tell() { printf '%s\n' "$1" >&"$GUEST_IN"; }

# guest_await TEXT SECONDS: until the console shows TEXT; fails when the guest ends or the time is over.
guest_await() {
  local until=$((SECONDS + $2))
  while ! grep -qaF -- "$1" "$GUEST_CONSOLE"; do
    if ! kill -0 "$GUEST_PID" 2>/dev/null; then
      grep -qaF -- "$1" "$GUEST_CONSOLE" && return 0
      guest_explain "the guest ended before it said '$1'"
      return 1
    fi
    if [ $SECONDS -ge $until ]; then guest_explain "the guest did not say '$1' within $2 s"; return 1; fi
    sleep 0.2
  done
}

# guest_said TEXT: how the last console line with TEXT goes on.
guest_said() { { grep -aF -- "GUEST: $1" "$GUEST_CONSOLE" || true; } | tail -1 | tr -d '\r' | sed 's/^.*GUEST: //'; }

# guest_written: how many files the guest's first writer has written, as far as it has said so; guest_await_files N: until N
# further ones are on the disk.
guest_written() { awk '/GUEST: written / { sub(/^.*written /, ""); n = $1 } END { print n + 0 }' "$GUEST_CONSOLE"; }
guest_await_files() {
  local target=$(($(guest_written) + $1)) until=$((SECONDS + 120))
  until [ "$(guest_written)" -ge "$target" ]; do
    kill -0 "$GUEST_PID" 2>/dev/null || { guest_explain "the guest ended while it was writing"; exit 1; }
    if [ $SECONDS -ge $until ]; then
      guest_explain "the guest wrote nothing for two minutes"
      ctl show topology >&2
      tail -20 "$DAEMON_LOG" >&2
      exit 1
    fi
    sleep 0.2 # each look costs a kernel in a rig several processes, which are what is slow there
  done
}

# guest_finish SECONDS: until the guest has powered off; true only if its job and its kernel log were good.
guest_finish() {
  guest_await "GUEST: end rc=" "$1" || return 1
  wait "$GUEST_PID" 2>/dev/null || true
  GUEST_PID=
  guest_close
  grep -qa 'GUEST: kernel log clean' "$GUEST_CONSOLE" && grep -qa 'GUEST: end rc=0' "$GUEST_CONSOLE" && return 0
  guest_explain "the guest's job failed"
  return 1
}

guest_explain() {
  printf '%serror:%s %s; the end of its console:\n' "$RED" "$PLAIN" "$1" >&2
  tail -n 15 "$GUEST_CONSOLE" | tr -d '\r' | sed 's/^/  | /' >&2
  [ ! -s "${GUEST_CONSOLE%/*}/qemu-errors" ] || sed 's/^/  qemu: /' "${GUEST_CONSOLE%/*}/qemu-errors" >&2
}

guest_close() {
  [ -z "${GUEST_IN:-}" ] || exec {GUEST_IN}>&-
  GUEST_IN=
}

# guest_stop: for cleaning up, whatever state the guest is in.
guest_stop() {
  if [ -n "${GUEST_PID:-}" ] && kill "$GUEST_PID" 2>/dev/null; then wait "$GUEST_PID" 2>/dev/null || true; fi
  GUEST_PID=
  guest_close
}
