# Another host on the logical unit of rig.d/paths.sh: a port of its own, and a disk that only sg knows of, so that nobody
# takes it for a path. Sourced by the jobs after rig.d/paths.sh, inside the rig's kernel only; LIO only.
# shellcheck shell=bash

# make_other_host: after make_paths. Sets OTHER, its sg node.
make_other_host() {
  local target=/sys/kernel/config/target t h
  t=$target/loopback/naa.60014050000000f/tpgt_1
  echo 0 >/sys/bus/scsi/drivers_autoprobe
  mkdir -p $t
  echo naa.60014051000000f >$t/nexus
  mkdir -p $t/lun/lun_0
  ln -s $target/core/fileio_0/lu $t/lun/lun_0/lu
  h=$(cut -d: -f1 $t/address)
  for _ in {1..100}; do
    for OTHER in /sys/class/scsi_host/host"$h"/device/target*/*/scsi_generic/sg*; do [ ! -e "$OTHER" ] || break 2; done
    sleep 0.1
  done
  echo 1 >/sys/bus/scsi/drivers_autoprobe
  OTHER=/dev/${OTHER##*/}
  [ -c "$OTHER" ] || die "the other host has no disk"
}

# other_writes, other_reads: a block that nobody else uses. In OTHER_SAW: refused, good, or what else came of it.
other_writes() { other_sends -s 512 -i /dev/zero "$OTHER" 2a 00 00 00 10 00 00 00 01 00; }
other_reads() { other_sends -r 512 -o /dev/null "$OTHER" 28 00 00 00 10 00 00 00 01 00; }
other_sends() {
  local said rc=0
  sg_turs "$OTHER" >/dev/null 2>&1 || true # what has happened meanwhile
  said=$(sg_raw "$@" 2>&1) || rc=$?
  # shellcheck disable=SC2034  # of the jobs
  case $rc in 0) OTHER_SAW=good ;; 24) OTHER_SAW=refused ;; *) OTHER_SAW="exit code $rc: $(head -1 <<<"$said")" ;; esac
}

# other_keys: every key that the array has, one per line.
other_keys() { sg_persist --in --read-keys "$OTHER" | sed -n 's/^ *0x\([0-9a-f]*\)$/\1/p'; }

# other_clears: whatever is registered is so no more.
other_clears() {
  sg_turs "$OTHER" >/dev/null 2>&1 || true
  sg_persist --out --register-ignore --param-sark=0xf "$OTHER" >/dev/null
  sg_persist --out --clear --param-rk=0xf "$OTHER" >/dev/null
}
