#!/bin/bash
# Job: host.sh. Runs `scripts/rig --host` as a user of this machine would, this machine being the kernel of a bed: two jobs
# on its own SCSI, after which everything that they made is gone; and a refusal where there are devices that a job
# could take for its own.
set -euo pipefail
. lib/say.sh
. lib/load.sh

needs_examples scsigen loadgen bareloop
# The jobs want a /rig of their own: these scripts and programs go elsewhere.
mkdir -p /tmp/here/release/examples
cp -R /rig/scripts /tmp/here/scripts
cp /rig/bin/vhost-mpath /tmp/here/release/
cp /rig/bin/scsigen /rig/bin/loadgen /rig/bin/bareloop /tmp/here/release/examples/
export VHOST_MPATH=/tmp/here/release/vhost-mpath VHOST_MPATH_CACHE=/tmp/here/cache
mkdir -p $VHOST_MPATH_CACHE
rig() { /tmp/here/scripts/rig --host "$@"; }
there_is() {
  ls /sys/class/scsi_host /sys/class/scsi_device 2>/dev/null || true
  find /sys/kernel/config -mindepth 1 -type d 2>/dev/null | grep -E 'core/|loopback/' || true
  for m in scsi_debug tcm_loop target_core_file; do [ ! -d /sys/module/$m ] || echo $m; done
  ls -d /etc/target /var/target /etc/multipath 2>/dev/null || true
}
rmdir /etc/target/pr /etc/target/alua /etc/target /var/target/pr /var/target/alua /var/target 2>/dev/null || true
there_is >/tmp/before
run() {
  rig run "$@" || die "it failed: $*"
  there_is >/tmp/after
  diff /tmp/before /tmp/after || die "something is left of $*"
  step "nothing is left of $*"
}
run raw-load.sh sd sg-io
RIG_FAULT=DID_NO_CONNECT run errors.sh sg-io blk

modprobe scsi_debug dev_size_mb=8
sleep 1
if rig run raw-load.sh sd sg-io >/tmp/refusal 2>&1; then die "it took somebody's scsi_debug for its own"; fi
sed 's/^/  /' /tmp/refusal
grep -q 'Nothing was touched' /tmp/refusal || die "it was no refusal"
[ -d /sys/module/scsi_debug ] || die "somebody's scsi_debug has gone"
good "scripts/rig --host: two jobs left nothing behind; where scsi_debug was in use it touched nothing without --yes."
