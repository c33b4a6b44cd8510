# docs/scsi-conformance.md: what libiscsi's tests say, test by test, of several disks. Sourced, never run. Needs
# lib/say.sh. A result file has the lines of the job guest.d/iscsi-test-cu: SUITE.TEST|verdict|reason.
# shellcheck shell=bash

CONFORMANCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/docs/scsi-conformance.md

# conformance_results CONSOLE: the results among other lines.
conformance_results() { tr -d '\r' <"$1" | sed -n 's/^.*GUEST: cu //p'; }

# Why a test fails that should not have to pass: SUITE.TEST|explanation; a * stands for every test of the suite. A failure
# without a line here is a bug.
conformance_explanations() {
  cat <<'ROWS'
ROWS
}

# conformance_explain SUITE.TEST
conformance_explain() {
  conformance_explanations | awk -F'|' -v t="$1" '{ p = $1; sub(/\*$/, "", p); if ($1 == t || ($1 ~ /\*$/ && index(t, p) == 1)) { print $2; exit } }'
}

# conformance_unexplained RESULTS: the failures nobody has explained.
conformance_unexplained() {
  local t why
  grep '|FAILED|' "$1" | while IFS="|" read -r t _ why; do
    [ -n "$(conformance_explain "$t")" ] || echo "$t: $why"
  done
}

# conformance_counts RESULTS
conformance_counts() {
  awk -F'|' '{ n[$2]++ } END { printf "%d tests: %d passed, %d skipped, %d failed", NR, n["passed"], n["skipped"], n["FAILED"] }' "$1"
}

# conformance_table TITLE=RESULTS…: one row per test, one column per disk; reasons of the first column that has one.
conformance_table() {
  local a titles=() files=()
  for a in "$@"; do titles+=("${a%%=*}"); files+=("${a#*=}"); done
  printf '| test |'; printf ' %s |' "${titles[@]}"; printf ' remark |\n|---|'; printf '%.0s---|' "${titles[@]}"; printf -- '---|\n'
  awk -F'|' -v columns=${#files[@]} '
    FNR == 1 { file++ }
    { if (!($1 in seen)) { seen[$1] = 1; order[++n] = $1 }
      verdict[$1, file] = $2
      if ($3 != "" && ($1, "why") in why == 0) why[$1, "why"] = $3 }
    END { for (i = 1; i <= n; i++) { t = order[i]; row = t "|"
        for (c = 1; c <= columns; c++) row = row ((t, c) in verdict ? verdict[t, c] : "–") "|"
        print row why[t, "why"] } }' "${files[@]}" |
    while IFS= read -r a; do
      local t=${a%%|*} explained
      explained=''
      [[ $a != *"|FAILED|"* ]] || explained=$(conformance_explain "$t")
      printf '%s\n' "$a" | awk -F'|' -v e="$explained" '{ r = $NF; if (e != "") r = e; out = "| " $1 " |"
        for (c = 2; c < NF; c++) out = out " " ($c == "FAILED" ? "**failed**" : $c) " |"; print out " " r " |" }'
    done
}

# conformance_section NAME, the text on standard input: replaces what is between the marks of that name in the document.
conformance_section() {
  local new=$CONFORMANCE.new
  grep -qF "<!-- $1 -->" "$CONFORMANCE" || die "docs/scsi-conformance.md has no section '$1'"
  { sed "/^<!-- $1 -->\$/q" "$CONFORMANCE"; echo; cat; echo; sed -n "/^<!-- end of $1 -->\$/,\$p" "$CONFORMANCE"; } >"$new"
  mv "$new" "$CONFORMANCE"
}

# conformance_lost RESULTS NAME COLUMN: tests that passed when the document's section NAME was written (in that column
# of its table, 2 is the first disk) and do not now.
conformance_lost() {
  awk -F'|' -v name="$2" -v column="$3" '
    NR == FNR { now[$1] = $2; why[$1] = $3; next }
    $0 == "<!-- " name " -->" { inside = 1 }
    $0 == "<!-- end of " name " -->" { inside = 0 }
    inside && NF > 3 { t = $2; v = $(column + 1); gsub(/ /, "", t); gsub(/ /, "", v)
      if (v == "passed" && t in now && now[t] != "passed") print t ": " now[t] ", " why[t] }' "$1" "$CONFORMANCE"
}

# conformance_write_lio CONSOLE: the document's section of the rig's job scsi-iscsi-test-cu.sh.
conformance_write_lio() {
  local w
  w=$(mktemp -d)
  tr -d '\r' <"$1" | sed -n 's/^.*BARE: cu //p' >"$w/bare"
  conformance_results "$1" >"$w/through"
  {
    # shellcheck disable=SC2016  # Markdown's backticks
    printf 'Bare `/dev/sdX`: %s.\nThrough the daemon, in a guest: %s.\n\n' "$(conformance_counts "$w/bare")" "$(conformance_counts "$w/through")"
    conformance_table "bare=$w/bare" "through the daemon=$w/through"
  } | conformance_section lio
  rm -rf "$w"
  step "written: docs/scsi-conformance.md"
}
