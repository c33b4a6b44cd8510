# A guest inside a bed's kernel: small, for it is emulated by one CPU. Sourced by the jobs that boot one, never run: scripts/rig
# knows them by that.
# shellcheck shell=bash disable=SC2034  # lib/guest.sh uses these names
. lib/install.sh
. lib/guest.sh

GUEST_KERNEL=/rig/guest/vmlinuz GUEST_INITRD=/rig/guest/initrd
GUEST_MEMORY=256 GUEST_CPUS=1 GUEST_QUEUES=1
