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
GetLBAStatus.UnmapSingle|the test asks for the status from LBA 9 on and wants a first descriptor of LBA 16: that holds only where a physical block is one logical block; the standard says LBA 9
WriteSame10.InvalidDataOutSize|the test wants ILLEGAL REQUEST for data of the wrong length; virtio-scsi answers OVERRUN to the short one, which the guest's driver makes a host error, and a residual to the long one
WriteSame16.InvalidDataOutSize|as WriteSame10.InvalidDataOutSize
ReceiveCopyResults.CopyStatus|LIO knows no status of a copy that is over
Verify10.Dpo|LIO does not look at DPO of VERIFY
Verify16.Dpo|LIO does not look at DPO of VERIFY
Verify10.VerifyProtect|LIO does not look at VRPROTECT
Verify16.VerifyProtect|LIO does not look at VRPROTECT
Verify10.Mismatch|LIO compares no data for VERIFY
Verify16.Mismatch|LIO compares no data for VERIFY
WriteSame16.Unmap|the test reads 32 MiB by one command; the guest's own sg driver refuses that (no memory: QEMU gives this device 126 segments), it never reaches the disk
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

# conformance_judge_lio CONSOLE: true if no test fails through the daemon that the bare disk passes.
conformance_judge_lio() {
  local worse
  worse=$(tr -d '\r' <"$1" | sed -n 's/^.*BARE: cu /bare|/p; s/^.*GUEST: cu /ours|/p' | awk -F'|' '
    $1 == "bare" { bare[$2] = $3; n++; next }
    { m++; if ($3 == "FAILED" && bare[$2] != "FAILED") print "    " $2 ": " bare[$2] " on the bare disk, failed through the daemon: " $4 }
    END { if (n < 200 || m < 200) print "    only " n + 0 " and " m + 0 " results" }')
  [ -z "$worse" ] || { say "$worse"; die "tests fail through the daemon that the bare disk passes"; }
  step "$(good "no test fails through the daemon that the bare disk passes")"
}

# conformance_write_lio CONSOLE: the document's section of the rig's job scsi-iscsi-test-cu.sh.
conformance_write_lio() {
  local w
  w=$(mktemp -d)
  tr -d '\r' <"$1" | sed -n 's/^.*BARE: cu //p' >"$w/bare"
  conformance_results "$1" >"$w/through"
  tr -d '\r' <"$1" | sed -n 's/^.*ONE PATH: cu //p' >"$w/one"
  {
    # shellcheck disable=SC2016  # Markdown's backticks
    printf 'Bare `/dev/sdX`: %s.\nThrough the daemon over four paths, in a guest: %s.\nOver one path, with `--allow third-party-copy`: %s.\n\n' \
      "$(conformance_counts "$w/bare")" "$(conformance_counts "$w/through")" "$(conformance_counts "$w/one")"
    conformance_table "bare=$w/bare" "four paths=$w/through" "one path=$w/one"
  } | conformance_section lio
  rm -rf "$w"
  step "written: docs/scsi-conformance.md"
}
