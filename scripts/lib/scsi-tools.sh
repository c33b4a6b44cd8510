# SCSI tools for the guest: sg3_utils, libiscsi's iscsi-test-cu, multipathd with udev, and the kernel modules they
# need, as a second archive the kernel unpacks after the guest's initramfs. Sourced, never run. Needs lib/say.sh,
# lib/install.sh, lib/guest.sh. The packages are only unpacked, never installed: nothing changes on this machine,
# and no root is needed.
# shellcheck shell=bash disable=SC2034  # GUEST_ARCHIVES is lib/guest.sh's

SCSI_TOOLS_PACKAGES="sg3-utils sg3-utils-udev libiscsi-bin multipath-tools dmsetup udev"
SCSI_TOOLS_PROGRAMS="sg_inq sg_vpd sg_readcap sg_luns sg_unmap sg_write_same sg_opcodes sg_reset sg_turs sg_raw sg_modes
sg_get_lba_status sg_persist sg_rtpg sg_requests sg_dd iscsi-test-cu multipathd multipath dmsetup udevadm"
# udev's own helper programs, and as much of its rules as a disk needs: more would only take time.
SCSI_TOOLS_RULES="50-udev-default.rules 55-dm.rules 55-scsi-sg3_id.rules 56-dm-mpath.rules 60-multipath.rules
60-persistent-storage.rules 60-persistent-storage-dm.rules 95-dm-notify.rules"
# The handler of ALUA is not in every kernel; where it is not, the guest's multipathd does without.
SCSI_TOOLS_MODULES="sg dm-mod dm-multipath dm-round-robin dm-service-time scsi_dh_alua"

# scsi_tools_prepare: after guest_prepare. Fetches the packages and builds the archive, once. Appends it to what
# guest_start gives the guest (GUEST_ARCHIVES).
scsi_tools_prepare() {
  local key root version
  version=$(basename "${GUEST_KERNEL%/*}")
  key=$({ echo "$SCSI_TOOLS_PACKAGES $SCSI_TOOLS_PROGRAMS $SCSI_TOOLS_RULES $SCSI_TOOLS_MODULES"
    cat "${BASH_SOURCE[0]}"; scsi_tools_versions; } | sha256sum | cut -c1-16)
  SCSI_TOOLS=$CACHE/guest/$version/scsi-tools-$key
  GUEST_ARCHIVES=$SCSI_TOOLS
  [ ! -e "$SCSI_TOOLS" ] || return 0
  exec {SCSI_TOOLS_LOCK}>"$CACHE/guest/lock"
  flock "$SCSI_TOOLS_LOCK"
  if [ ! -e "$SCSI_TOOLS" ]; then
    root=$CACHE/guest/scsi-tools-root
    rm -rf "$root"
    mkdir -p "$root"
    scsi_tools_unpack "$root"
    scsi_tools_pack "$root" "$CACHE/guest/$version/root" "$version" "$SCSI_TOOLS"
    rm -rf "$root"
  fi
  flock -u "$SCSI_TOOLS_LOCK"
  exec {SCSI_TOOLS_LOCK}>&-
}

# The versions apt would take: a new one makes a new archive.
scsi_tools_versions() {
  # shellcheck disable=SC2086  # package names, split on purpose
  apt-cache policy $SCSI_TOOLS_PACKAGES 2>/dev/null | sed -n 's/^ *Candidate: //p'
}

# scsi_tools_unpack ROOT: the packages and every library they may load.
scsi_tools_unpack() (
  set -e
  cd "$1"
  sandbox=()
  [ "$(id -u)" != 0 ] || sandbox=(-o APT::Sandbox::User=root)
  command -v apt-cache >/dev/null || die "the guest's SCSI tools are Debian packages, and there is no apt here"
  [ -n "$(scsi_tools_versions)" ] || as_root apt-get -qq update >/dev/null 2>&1 || true
  step "fetching the guest's SCSI tools"
  # shellcheck disable=SC2086  # package names, split on purpose
  libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances $SCSI_TOOLS_PACKAGES | grep '^lib' | grep -vE '^lib(perl|pam|debian|elogind|newt|semanage)' | sort -u)
  mkdir debs
  # shellcheck disable=SC2086
  (cd debs && apt-get -qq "${sandbox[@]}" download $SCSI_TOOLS_PACKAGES $libraries) ||
    die "could not download the guest's SCSI tools ($SCSI_TOOLS_PACKAGES)" "As root: apt-get update"
  for d in debs/*.deb; do dpkg-deb -x "$d" .; done
  rm -rf debs
)

# scsi_tools_pack ROOT KERNEL_ROOT VERSION OUT
scsi_tools_pack() (
  set -e
  root=$1 kernel=$2 version=$3 out=$4
  w=$(mktemp -d)
  trap 'rm -rf "$w"' EXIT
  libs=$w/lib/x86_64-linux-gnu
  mkdir -p "$w"/{mod,usr/bin,etc/multipath,lib/udev/rules.d,run} "$libs"
  for p in $SCSI_TOOLS_PROGRAMS; do
    f=$(find "$root" -path "*bin/$p" -not -type d | head -1)
    [ -n "$f" ] || die "the package that should bring $p does not"
    cp -L "$f" "$w/usr/bin/"
  done
  ln -s /usr/bin/udevadm "$w/usr/bin/systemd-udevd"
  cp -L "$(find "$root" -name scsi_id -type f)" "$w/lib/udev/"
  for r in $SCSI_TOOLS_RULES; do
    f=$(find "$root" -path "*/udev/rules.d/$r" | head -1)
    [ -z "$f" ] || cp "$f" "$w/lib/udev/rules.d/"
  done
  # Checkers and prioritizers are opened by name, wherever this release keeps them.
  cp -R "$(find "$root" -type d -path '*lib/multipath' | head -1)" "$w/lib/multipath"
  mkdir -p "$w/usr/lib"
  ln -s /lib/multipath "$w/usr/lib/multipath"
  scsi_tools_libraries "$root" "$w" "$libs"
  # The C library opens this one by name when a thread is cancelled, as multipathd's are.
  cp -L "$(find "$root" -name libgcc_s.so.1 | head -1)" "$libs/"
  printf 'root:x:0:0:root:/:/bin/sh\n' >"$w/etc/passwd"
  printf '%s\n' root:x:0: disk:x:6: tty:x:5: kmem:x:15: input:x:101: sgx:x:102: kvm:x:103: render:x:104: \
    lp:x:7: dialout:x:20: video:x:44: audio:x:29: cdrom:x:24: tape:x:26: >"$w/etc/group"
  guest_add_modules "$kernel" "$version" "$w/mod" order.scsi "$SCSI_TOOLS_MODULES"
  (cd "$w" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$out.new"
  mv "$out.new" "$out"
)

# scsi_tools_libraries ROOT TREE INTO: what the programs of TREE are linked with, from ROOT. The tree's own loader
# finds them, so that neither this machine's libraries nor its loader's configuration have a say.
scsi_tools_libraries() {
  local dirs loader f l
  dirs=$(find "$1" -name '*.so*' -not -path '*/multipath/*' -printf '%h\n' | sort -u | tr '\n' ':')
  loader=$(find "$1" -name 'ld-linux-x86-64.so.2' -not -type d -path '*/x86_64-linux-gnu/*' | head -1)
  find "$2" -type f \( -perm -u+x -o -name '*.so*' \) | while read -r f; do
    { "$loader" --library-path "$dirs" --list "$f" 2>/dev/null || true; } |
      sed -n "s|.* => \($1/[^ ]*\) .*|\1|p"
  done | sort -u | while read -r l; do
    case $l in */ld-linux*) ;; *) cp -L "$l" "$3/${l##*/}" ;; esac
  done
}
