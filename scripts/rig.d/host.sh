#!/bin/bash
# Job: host.sh. Runs `scripts/rig --host` as a user of this machine would, this machine being the kernel of a bed: jobs
# on its own SCSI, after which everything that they made is gone, also where they are ended from outside; and refusals: of a job
# that would leave something, and where there are devices that a job could take for its own.
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
  ls /sys/module
  losetup -a
  cut -d' ' -f2,3 /proc/mounts
  find /etc/target /var/target /etc/multipath /run /tmp -maxdepth 1 2>/dev/null | grep -v '^/tmp/\(before\|after\|said\)$' || true
}
rmdir /etc/target/pr /etc/target/alua /etc/target /var/target/pr /var/target/alua /var/target 2>/dev/null || true
# As on a machine where nobody has used either yet.
umount /sys/kernel/config /sys/kernel/debug 2>/dev/null || true
modprobe scsi_mod # which stays
there_is >/tmp/before
nothing_left() {
  there_is >/tmp/after
  diff /tmp/before /tmp/after || die "something is left of $*"
  step "nothing is left of $*"
}
run() {
  rig run "$@" || die "it failed: $*"
  nothing_left "$@"
}
run raw-load.sh sd sg-io
run late-path.sh
RIG_FAULT=DID_NO_CONNECT run errors.sh sg-io blk

for signal in TERM HUP; do
  /tmp/here/scripts/rig --host run random-paths.sh 60 sg-io >/tmp/said 2>&1 &
  job=$!
  for ((i = 0; i < 300; i++)); do ! grep -q ' for [0-9.]* s$' /tmp/said || break; sleep 0.1; done
  grep -q ' for [0-9.]* s$' /tmp/said || { cat /tmp/said; die "the job has not begun"; }
  kill -$signal $job
  if wait $job; then die "it was ended and says that it passed"; fi
  nothing_left "a job that SIG$signal has ended"
done

if rig run kill.sh >/tmp/said 2>&1; then die "it ran what leaves something behind"; fi
sed 's/^/  /' /tmp/said
grep -q 'Nothing was touched' /tmp/said || die "it was no refusal"
nothing_left "what was refused"

modprobe scsi_debug dev_size_mb=8
sleep 1
if rig run raw-load.sh sd sg-io >/tmp/said 2>&1; then die "it took somebody's scsi_debug for its own"; fi
sed 's/^/  /' /tmp/said
grep -q 'Nothing was touched' /tmp/said || die "it was no refusal"
[ -d /sys/module/scsi_debug ] || die "somebody's scsi_debug has gone"
good "scripts/rig --host: jobs left nothing behind, ended from outside or not; where scsi_debug was in use it touched nothing without --yes."
