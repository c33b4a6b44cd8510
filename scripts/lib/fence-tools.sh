# fence_scsi, Pacemaker's fence agent for persistent reservations, for the guest: the agent itself, and as much of Python as
# it loads, as one more archive the kernel unpacks. Sourced, never run. Needs lib/say.sh, lib/install.sh, lib/guest.sh,
# lib/scsi-tools.sh. The packages are only unpacked, never installed.
# shellcheck shell=bash

# fence_tools_prepare: after scsi_tools_prepare. Fetches and builds, once. Appends to GUEST_ARCHIVES.
fence_tools_prepare() {
  local key
  # Debian 12 has all agents in one package, later ones one each.
  FENCE_TOOLS_PACKAGES=fence-agents
  [ -z "$(apt-cache --no-all-versions show fence-agents-scsi 2>/dev/null)" ] || FENCE_TOOLS_PACKAGES="fence-agents-scsi fence-agents-common"
  FENCE_TOOLS_PACKAGES+=" python3-pexpect python3-ptyprocess python3-pycurl"
  # shellcheck disable=SC2086  # package names, split on purpose
  key=$({ cat "${BASH_SOURCE[0]}"; apt-cache policy $FENCE_TOOLS_PACKAGES 2>/dev/null | sed -n 's/^ *Candidate: //p'; } | sha256sum | cut -c1-16)
  FENCE_TOOLS=$CACHE/guest/fence-tools-$key
  GUEST_ARCHIVES="$GUEST_ARCHIVES $FENCE_TOOLS"
  [ ! -e "$FENCE_TOOLS" ] || return 0
  exec {FENCE_TOOLS_LOCK}>"$CACHE/guest/lock"
  flock "$FENCE_TOOLS_LOCK"
  [ -e "$FENCE_TOOLS" ] || fence_tools_build
  flock -u "$FENCE_TOOLS_LOCK"
  exec {FENCE_TOOLS_LOCK}>&-
}

fence_tools_build() (
  set -e
  root=$(mktemp -d) w=$(mktemp -d)
  trap 'rm -rf "$root" "$w"' EXIT
  fence_tools_unpack "$root"
  python=$(find "$root" -path '*/usr/bin/python3.*' -type f | sort | head -1)
  [ -n "$python" ] || die "the packages of Python bring no Python"
  dirs=$(find "$root" -name '*.so*' -printf '%h\n' | sort -u | tr '\n' ':')
  loader=$(find "$root" -name 'ld-linux-x86-64.so.2' -not -type d -path '*/x86_64-linux-gnu/*' | head -1)
  mkdir -p "$w"/usr/bin "$w"/lib/x86_64-linux-gnu
  cp "$python" "$w/usr/bin/python3"
  cp -L "$root/usr/sbin/fence_scsi" "$w/usr/bin/"
  ln -s fence_scsi "$w/usr/bin/fence_scsi_check"
  # What the agent has loaded once it is loaded itself, compiled here: an emulated processor would take seconds.
  PYTHONHOME=$root/usr PYTHONDONTWRITEBYTECODE=1 "$loader" --library-path "$dirs" "$python" - "$root" "$w" "${python##*/}" <<'PY'
import encodings.ascii, encodings.idna, encodings.latin_1, os, py_compile, runpy, shutil, sys
root, into, python = sys.argv[1:4]
sys.path.append(root + "/usr/share/fence")
runpy.run_path(root + "/usr/sbin/fence_scsi", run_name="fence_scsi")
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
# Python looks for this one to know where its library is.
files.add(root + "/usr/lib/" + python + "/os.py")
for file in sorted(f for f in files if f and os.path.realpath(f).startswith(os.path.realpath(root)) and "/sbin/" not in f):
    to = into + os.path.realpath(file)[len(os.path.realpath(root)):]
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copy(file, to)
    if to.endswith(".py"):
        py_compile.compile(to, dfile=to[len(into):], doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
os.makedirs(into + "/usr/lib/" + python + "/lib-dynload", exist_ok=True)
PY
  scsi_tools_libraries "$root" "$w" "$w/lib/x86_64-linux-gnu"
  (cd "$w" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -1) >"$FENCE_TOOLS.new"
  mv "$FENCE_TOOLS.new" "$FENCE_TOOLS"
)

# fence_tools_unpack ROOT: the packages, Python, and every library they may load.
fence_tools_unpack() (
  set -e
  cd "$1"
  sandbox=()
  [ "$(id -u)" != 0 ] || sandbox=(-o APT::Sandbox::User=root)
  step "fetching fence_scsi and its Python"
  # shellcheck disable=SC2086  # package names, split on purpose
  others=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    python3-pexpect python3-pycurl | grep -E '^(lib|zlib1g|python3\.[0-9]+-minimal)' | grep -vE '^lib(perl|pam|debian|elogind|newt|semanage)' | sort -u)
  mkdir debs
  # shellcheck disable=SC2086
  (cd debs && apt-get -qq "${sandbox[@]}" download $FENCE_TOOLS_PACKAGES $others) ||
    die "could not download fence_scsi ($FENCE_TOOLS_PACKAGES)" "As root: apt-get update"
  for d in debs/*.deb; do dpkg-deb -x "$d" .; done
  rm -rf debs
)
