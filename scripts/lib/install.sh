# What the scripts need of the machine, and how it gets there: Debian packages by apt, the Rust toolchain.
# Sourced, never run. Needs lib/say.sh.
# shellcheck shell=bash

# One row per thing: a command (or a file) and the Debian package that brings it.
install_rows() {
  cat <<'ROWS'
build    cc                               gcc
build    /usr/include/stdlib.h            libc6-dev
guest    qemu-system-x86_64               qemu-system-x86
guest    /bin/busybox                     busybox-static
guest    mke2fs                           e2fsprogs
guest    modprobe                         kmod
guest    cpio                             cpio
guest    xz                               xz-utils
guest    zstd                             zstd
guest    ldd                              libc-bin
boot     extlinux                         extlinux
check    shellcheck                       shellcheck
driver   qemu-img                         qemu-utils
driver   /usr/lib/x86_64-linux-gnu/qemu/block-blkio.so  qemu-block-extra
libvirt  libvirtd                         libvirt-daemon-system
libvirt  virsh                            libvirt-clients
libvirt  /usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so  libvirt-daemon-driver-qemu
rig      mmdebstrap                       mmdebstrap
ROWS
}

# have THING: a command in PATH (or in the sbin directories users often lack), or a file.
have() {
  case $1 in
    /bin/busybox) busybox_static >/dev/null ;;
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}
PATH=$PATH:/usr/sbin:/sbin

# The guest's whole userland is one static busybox; the dynamic one would need its libraries too.
busybox_static() {
  local b
  for b in /bin/busybox /usr/bin/busybox; do
    if [ -x "$b" ] && ! ldd "$b" >/dev/null 2>&1; then echo "$b"; return 0; fi
  done
  return 1
}

# missing GROUP…: the packages of these groups that are not there yet.
missing() {
  local group thing package wanted=" $* "
  install_rows | while read -r group thing package; do
    case $wanted in *" $group "*) have "$thing" || echo "$package" ;; esac
  done | sort -u | tr '\n' ' '
}

# as_root COMMAND…: as root, by sudo where that needs no password or somebody is there to type it.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif sudo -n true 2>/dev/null; then sudo -n "$@"
  elif [ -t 0 ] && command -v sudo >/dev/null; then sudo "$@"
  else return 126
  fi
}

# --no-remove: apt would otherwise take away what conflicts, for instance a qemu-utils from backports for the release's
# own qemu-system-x86. What is on the machine stays; then the installation fails, and says why.
apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-remove --no-install-recommends \
    -o Dpkg::Use-Pty=0 install "$@" >"$INSTALL_LOG" 2>&1
}

# require GROUP…: make sure the groups are there, installing what is missing where that is possible.
require() {
  local packages
  packages=$(missing "$@")
  [ -n "$packages" ] || return 0
  # shellcheck disable=SC2086  # package names, split on purpose
  require_packages $packages
}

require_packages() {
  command -v apt-get >/dev/null || die "this machine lacks what these Debian packages bring: $*" \
    "There is no apt here: install the same programs with this system's own package manager, then run again."
  [ -z "${INSTALL_NOTHING:-}" ] || die "these Debian packages are missing: $*" "apt-get install --no-install-recommends $*"
  step "installing by apt: $*"
  INSTALL_LOG=$(mktemp)
  if ! apt_install "$@"; then
    # Package lists may be old or absent (a fresh container): fetch them once and try again.
    as_root apt-get -qq update >"$INSTALL_LOG.update" 2>&1 || true
    if ! apt_install "$@" && ! install_qemu_like_utils "$@"; then
      tail -5 "$INSTALL_LOG" >&2
      rm -f "$INSTALL_LOG" "$INSTALL_LOG.update"
      die "these packages are missing and could not be installed: $*" \
        "As root: apt-get update && apt-get install --no-install-recommends $*"
    fi
  fi
  rm -f "$INSTALL_LOG" "$INSTALL_LOG.update"
  hash -r
}

debian_release() { (. /etc/os-release && echo "${VERSION_CODENAME:-}"); }

# The address this machine's apt takes its release from.
debian_mirror() {
  local m
  # shellcheck disable=SC2016  # the dollar is apt's
  m=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $(debian_release)" | head -1)
  [ -n "$m" ] && echo "${m%/}"
}

# apt_view DIR SUITE…: let apt see other releases without touching this machine's sources. Sets APT_VIEW, the options
# that make apt look through it.
apt_view() {
  local dir=$1 suite mirror
  shift
  mirror=$(debian_mirror) || return 1
  mkdir -p "$dir/lists/partial"
  for suite in "$@"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$dir/sources.list"
  APT_VIEW=(-qq -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$dir/lists" -o Dir::Etc::preferencesparts=/dev/null)
  [ "$(id -u)" != 0 ] || APT_VIEW+=(-o APT::Sandbox::User=root)
  as_root apt-get "${APT_VIEW[@]}" update >/dev/null 2>&1
}

# install_qemu_like_utils PACKAGE…: a qemu-utils from backports does not go together with the release's own QEMU; the
# QEMU of the same version does.
install_qemu_like_utils() {
  local version release dir p exact=() rc=0
  version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) || return 1
  [[ " $* " == *" qemu-system-x86 "* && $version == *bpo* ]] || return 1
  release=$(debian_release)
  step "qemu-utils is $version here: taking QEMU of that version from $release-backports"
  dir=$(mktemp -d)
  for p in "$@"; do
    case $p in
      qemu-system-x86) exact+=("$p=$version" "qemu-system-common=$version" "qemu-system-data=$version") ;;
      *) exact+=("$p") ;;
    esac
  done
  apt_view "$dir" "$release" "$release-backports" &&
    apt_install "${APT_VIEW[@]}" -t "$release-backports" "${exact[@]}" || rc=1
  rm -rf "$dir"
  return $rc
}

RUST_AT_LEAST=85 # minor version; Cargo.toml's rust-version

rust_new_enough() {
  local v
  v=$(rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
  [ -n "$v" ] && [ "$v" -ge "$RUST_AT_LEAST" ] && command -v "${CARGO:-cargo}" >/dev/null
}

# require_rust: a toolchain, the user's own if new enough, else the distribution's.
# Debian 13 has it as rustc; Debian 12 as rustc-web (the toolchain its browsers are built with).
require_rust() {
  rust_new_enough && return 0
  if [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ]; then PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH; fi
  rust_new_enough && return 0
  local found suffix minor
  found=$(rustc --version 2>/dev/null || echo "no rustc")
  if command -v apt-cache >/dev/null; then
    [ -n "$(apt-cache policy rustc | sed -n '/Candidate/p')" ] || as_root apt-get -qq update >/dev/null 2>&1 || true
    for suffix in '' -web; do
      minor=$(apt-cache policy "rustc$suffix" | sed -n 's/^ *Candidate: 1\.\([0-9]*\).*/\1/p')
      if [ -n "$minor" ] && [ "$minor" -ge "$RUST_AT_LEAST" ]; then
        require_packages "rustc$suffix" "cargo$suffix" gcc libc6-dev
        rust_new_enough && return 0
      fi
    done
  fi
  die "building needs Rust 1.$RUST_AT_LEAST or newer; here is $found and the distribution has nothing newer" \
    "Install it with rustup (https://rustup.rs): curl --proto '=https' -sSf https://sh.rustup.rs | sh"
}

# require_rust_tool fmt|clippy: what Debian packs apart from its toolchain.
require_rust_tool() {
  case $1:$(dpkg-query -S "$(command -v rustc)" 2>/dev/null) in
    fmt:rustc:*) require_packages rustfmt ;;
    fmt:rustc-web:*) require_packages rustfmt-web ;;
    clippy:rustc:*) require_packages rust-clippy ;;
    clippy:rustc-web:*) require_packages rust-web-clippy ;;
    *) return 1 ;;
  esac
}
