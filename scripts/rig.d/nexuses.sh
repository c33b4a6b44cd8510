# A logical unit of LIO with four nexuses for the daemon and a fifth that is another host's, and what the logical unit itself says
# of reservations. Sourced by jobs, inside the rig's kernel only; needs rig.d/paths.sh and lib/load.sh.
# shellcheck shell=bash disable=SC2034,SC2154  # names of the job that sources this

NEXUSES=4
LIO_PR=/sys/kernel/config/target/core/fileio_0/lu/pr

# make_nexuses MIB: HOST[1..4] are the SCSI hosts of the daemon's paths, OTHER the other host's sg node, W the WWID. The fifth has
# no /dev/sdX: nobody but us finds it.
make_nexuses() {
  local n h d
  make_paths "$1" $((NEXUSES + 1))
  for ((n = 1; n <= NEXUSES + 1; n++)); do h=H$n; HOST[n]=${!h}; d=$(sd_of_host "${!h}"); done
  OTHER=/dev/$(sg_of "$d")
  W=$(wwid_of "$P1")
  hctl_of "$d" >/sys/bus/scsi/drivers/sd/unbind
  other_attends
}
HOST=()

# other OPTION…: sg_persist by the other host; what it says is in SAID, true if it went well. other_attends: what it has to be
# told first was told.
other() { SAID=$(sg_persist -n "$@" "$OTHER" 2>&1); }
# other_does OPTION…: the same for a job that has no use for the answer.
other_does() { other_attends; other "$@" || say "another host's sg_persist $*: $SAID"; }
other_attends() { local i; for i in 1 2 3 4; do sg_turs "$OTHER" >/dev/null 2>&1 && return 0; done; }

# at_lu: who is registered and who holds, by configfs: KEYS[n] is the key of nexus n or empty, HOLDER its number or empty, and TYPE
# LIO's words for the type.
at_lu() {
  local line n
  KEYS=() HOLDER='' TYPE=''
  while read -r line; do
    [[ $line =~ Node:\ naa\.60014051000000([0-9]).*Key:\ 0x([0-9a-f]+) ]] || continue
    n=${BASH_REMATCH[1]}
    KEYS[n]=${KEYS[n]:-}$(printf %x "0x${BASH_REMATCH[2]}")
  done <$LIO_PR/res_pr_registered_i_pts
  read -r line <$LIO_PR/res_holder || true
  [[ $line =~ naa\.60014051000000([0-9]) ]] && HOLDER=${BASH_REMATCH[1]}
  read -r line <$LIO_PR/res_pr_type || true
  TYPE=${line#SPC-3 Reservation Type: }
}
lu_words() { at_lu; echo "at the LU: keys 1:${KEYS[1]:--} 2:${KEYS[2]:--} 3:${KEYS[3]:--} 4:${KEYS[4]:--} other:${KEYS[5]:--}, holder ${HOLDER:-none}${HOLDER:+, $TYPE}"; }

# cut_path KIND N: path N goes away: its device is deleted, put offline, or the target's port is. mend_path KIND N.
port_of() { echo "/sys/kernel/config/target/loopback/naa.60014050000000$1/tpgt_1/transport_status"; }
cut_path() {
  case $1 in
    delete) delete_path "$(sd_now "${HOST[$2]}")" ;;
    offline) echo offline >"/sys/block/$(sd_now "${HOST[$2]}")/device/state" ;;
    port) echo offline >"$(port_of "$2")" ;;
  esac
}
mend_path() {
  case $1 in
    delete) rescan "${HOST[$2]}" ;;
    offline) echo running >"/sys/block/$(sd_now "${HOST[$2]}")/device/state" ;;
    port) echo online >"$(port_of "$2")" ;;
  esac
}

# usable: how many paths carry I/O. all_are: all of them. is_down NAME: this one does not.
usable() { ctl show paths raw format '%d %t' | grep -c ' active$' || true; }
all_are() { [ "$(usable)" = $NEXUSES ]; }
is_down() { ! has_path "$1"; }
