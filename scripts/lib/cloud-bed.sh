# The second test bed: QEMU boots Debian's cloud kernel on an image of the rig's tree. It has two CPUs, debugfs and
# scsi_debug's faults per device, which user-mode Linux has not. Sourced by scripts/rig, never run.
# Needs the other libraries, RIG and ROOT. Without KVM a guest inside takes minutes: jobs that boot one are refused.
# shellcheck shell=bash

CLOUD=$RIG/qemu
# What the initramfs needs to find its root; one that the kernel has built in is left out.
CLOUD_MODULES="virtio_pci virtio_blk crc32c_generic crc32c-intel ext4"

# cloud_setup: the kernel, once, and the image of the tree with its modules, whenever the tree is another.
cloud_setup() {
  require guest rig
  cloud_fetch_kernel
  cloud_make_image
}

cloud_version() { cat "$CLOUD/version"; }

# The newest cloud kernel that Debian has: scsi_debug's faults per device came with Linux 6.7, SCSI by io_uring with 7.1.
# The packages are looked up in a private view and only unpacked.
cloud_fetch_kernel() {
  [ ! -e "$CLOUD/version" ] || return 0
  local release suite version
  release=$(debian_release)
  mkdir -p "$CLOUD"
  for suite in sid trixie "$release-backports" "$release"; do
    rm -rf "$CLOUD/apt" "$CLOUD/kernel"
    apt_view "$CLOUD/apt" "$suite" || continue
    version=$(apt-cache "${APT_VIEW[@]}" show linux-image-cloud-amd64 2>/dev/null |
      sed -n 's/^Depends: \(.*, \)*linux-image-\([^ ,]*\).*/\2/p' | head -1)
    [ -n "$version" ] || continue
    step "unpacking linux-image-$version of $suite"
    mkdir -p "$CLOUD/kernel/root"
    if guest_unpack "linux-image-$version" "$CLOUD/kernel"; then
      rm -rf "$CLOUD/apt"
      APT_VIEW=()
      echo "$version" >"$CLOUD/version"
      return 0
    fi
    warn "this one cannot be had, trying an older one"
  done
  die "no cloud kernel can be had" "Debian's package linux-image-cloud-amd64 of sid, trixie and $release was tried."
}

# Made anew from the tree, without the modules of user-mode Linux; runs write to a snapshot of it.
cloud_make_image() {
  local version key image=$CLOUD/root.img
  version=$(cloud_version)
  key=$(cd "$ROOT" && { echo "$version"; echo .ready* ./*/.ready*; cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-16)
  [ ! -e "$image-$key" ] || return 0
  step "making an image of the tree, with $version"
  rm -rf "$image"* "$CLOUD/stage"
  cp -al "$ROOT" "$CLOUD/stage"
  rm -rf "$CLOUD/stage/rig" "$CLOUD/stage"/lib/modules/*
  mkdir -p "$CLOUD/stage/rig" "$CLOUD/stage/lib/modules"
  cp -a "$CLOUD/kernel/root/lib/modules/$version" "$CLOUD/stage/lib/modules/"
  mke2fs -q -q -t ext4 -d "$CLOUD/stage" "$image.new" "$(($(du -sm "$CLOUD/stage" | cut -f1) * 5 / 4 + 256))M"
  rm -rf "$CLOUD/stage"
  cloud_make_initramfs "$version" "$CLOUD/initrd"
  mv "$image.new" "$image-$key"
}

# cloud_make_initramfs VERSION OUT
cloud_make_initramfs() (
  w=$(mktemp -d)
  trap 'rm -rf "$w"' EXIT
  mkdir -p "$w"/{bin,mod,proc,sys,dev,newroot}
  cp "$(busybox_static)" "$w/bin/busybox"
  cat >"$w/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
while read -r m; do insmod "/mod/$m"; done </mod/order
for i in 1 2 3 4 5 6 7 8 9 10; do
  mount -t ext4 /dev/vda /newroot 2>/dev/null && break
  sleep 0.2
done
mount -t ext4 /dev/vdb /newroot/rig
umount /dev
exec switch_root /newroot /bin/bash /rig/scripts/rig.d/init
INIT
  chmod +x "$w/init"
  guest_add_modules "$CLOUD/kernel/root" "$1" "$w/mod" order "$CLOUD_MODULES"
  (cd "$w" && find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$2"
)

# cloud_boot SECONDS SERIAL DIR: until it powers off, at most so long. DIR is what the job finds under /rig; SERIAL is QEMU's word for its console.
cloud_boot() {
  local image accel cpu=max
  image=$(echo "$CLOUD"/root.img-*)
  accel=$(guest_accel)
  [ "$accel" != kvm ] || cpu=host
  rm -f "$3.img"
  mke2fs -q -q -t ext4 -d "$3" "$3.img" "$(($(du -sm "$3" | cut -f1) * 5 / 4 + 16))M"
  exec timeout --foreground -k 5 "$1" qemu-system-x86_64 -M q35 -accel "$accel" -cpu "$cpu" -smp 2 -m 1536 \
    -nodefaults -display none -no-reboot -serial "$2" \
    -kernel "$CLOUD/kernel/vmlinuz" -initrd "$CLOUD/initrd" -append "console=ttyS0 panic=-1 quiet loglevel=1" \
    -drive "file=$image,if=virtio,format=raw,snapshot=on" -drive "file=$3.img,if=virtio,format=raw"
}
