# What every script here says, and how: steps, errors, colours on a terminal. Sourced, never run.
# shellcheck shell=bash disable=SC2034  # the scripts that source this use the names

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
  BOLD='' RED='' GREEN='' PLAIN=''
fi

# Seconds since the script began, with one decimal. Only the clock of the messages; nothing is decided by it.
say_elapsed() {
  local now=${EPOCHREALTIME/[.,]/}
  local tenths=$(((now - SAY_BEGAN) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}
SAY_BEGAN=${EPOCHREALTIME/[.,]/}

say() { printf '%s\n' "$*"; }
step() { printf '%s[%6s s]%s %s\n' "$BOLD" "$(say_elapsed)" "$PLAIN" "$*"; }
good() { printf '%s%s%s\n' "$GREEN" "$*" "$PLAIN"; }
warn() { printf '%snote:%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }

# die MESSAGE [NEXT STEP]: one line with the cause, one with what to do about it.
die() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  [ $# -lt 2 ] || printf '       %s\n' "$2" >&2
  exit 1
}

# usage_of FILE: the comment block at the head of a script is its --help.
usage_of() { sed -n '2,/^[^#]/{/^#/!d;/^# shellcheck /d;s/^# \{0,1\}//;p}' "$1"; }

# Where downloaded kernels and built images are kept between runs.
CACHE=${VHOST_MPATH_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vhost-mpath}
