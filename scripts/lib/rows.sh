# Rows of measurements, one file for each thing measured, and what a table says of them. Sourced, never run. Needs ROWS, the
# directory of the files.
# shellcheck shell=bash

# field NAME: from a line of JSON
field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }

# row NAME JSON
row() {
  local f values=()
  for f in iops cpu_us_per_io p50_us p99_us; do f=$(field $f <<<"$2"); values+=("${f:--}"); done
  echo "${values[*]}" >>"$ROWS/$1.rows"
}

# median FILE COLUMN: median (least–most)
median() {
  awk -v c="$2" '$c != "-" { print $c }' "$1" | sort -g | awk '
    { a[NR] = $1 } END {
      if (!NR) { print "-"; exit }
      m = NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2
      f = (m >= 100) ? "%.0f (%.0f–%.0f)\n" : "%.2f (%.2f–%.2f)\n"; printf f, m, a[1], a[NR] }'
}

# against A B: the ratio of IOPS, round by round
against() {
  paste -d' ' "$ROWS/$1.rows" "$ROWS/$2.rows" | awk '{ print $1 / $5 }' >"$ROWS/ratio"
  median "$ROWS/ratio" 1
}
