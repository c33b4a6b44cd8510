# docs/scsi-exactness.md: the answers of a bare /dev/sdX and of the same logical unit through the daemon, command by
# command, from what the rig's job scsi-exactness.sh printed. Sourced, never run. Needs lib/say.sh.
# shellcheck shell=bash

EXACTNESS=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/docs/scsi-exactness.md

# The differences that must be there: the command's name|the reason|what the answer through the daemon must match, its
# words and, after a #, its data in hex. A * at a name's end stands for any rest. A difference without a line here is a bug, a line without its difference too.
exactness_expected() {
  cat <<'ROWS'
INQUIRY, standard, 36 bytes|one LU, not four paths: TPGS, 3PC and MULTIP are not set|#00000602..8000
INQUIRY, standard, 96 bytes|the same|#00000602..8000
INQUIRY, standard, 255 bytes|the same|#00000602..8000
INQUIRY, CMDDT|the same; LIO ignores the bit|#00000602..8000
INQUIRY, VPD page 83|one LU, not four paths: the designators of ports and port groups are left out|#0083003c010300106001405deadbeef00010000000000000
INQUIRY, VPD page 83, 8 bytes|the same: the page is shorter|#0083003c01030010$
INQUIRY, VPD page b0|the transfer lengths that every path can carry; as long as SBC-3 has the page, since Linux reads the limits of discards from no shorter one|^good, 64 bytes#00b0003c
REPORT TARGET PORT GROUPS|one LU, not four paths: one group, active/optimized, with one port|#0000000c000100010000000100000001$
REPORT TARGET PORT GROUPS, extended|the same|#0000001010000000000100010000000100000001$
REPORT LUNS, select report 01|REPORT LUNS is answered for the guest's target, by the standard: the well-known logical unit|#0000000800000000c101000000000000$
REPORT LUNS, select report 02|the same: all logical units, the well-known one too|#00000010000000000000000000000000c101000000000000$
REPORT LUNS, select report 7f|the same: a reserved value is refused|^sense 05/24/00
REPORT LUNS, 8 bytes|the same: an allocation length below 16 is refused|^sense 05/24/00
REPORT SUPPORTED OPERATION CODES, all|what the policy denies is not listed|^good
REPORT SUPPORTED OPERATION CODES, PERSISTENT RESERVE OUT, service action 07|REGISTER AND MOVE is refused: not supported|#0001000[0-9a-f]*$
REPORT SUPPORTED OPERATION CODES, FORMAT UNIT|denied: not supported, in the standard's four bytes (LIO leaves out two)|#0001000[0-9a-f]*$
TEST UNIT READY, NACA|SG_IO cannot keep an ACA condition for the guest|^sense 05/24/00
opcode 9e, service action 1f|policy: unknown|^sense 05/20/00
MODE SELECT(6), a page that is too short|policy: mode-select|^sense 05/20/00
START STOP UNIT, stop|policy: stop-unit|^sense 05/20/00
RESERVE(6)|policy: reserve, always denied with more than one path|^sense 05/20/00
RELEASE(6)|the same|^sense 05/20/00
PERSISTENT RESERVE OUT, reserved service action|a service action that there is not is refused for that, LIO looks at the list first|^sense 05/24/00
EXTENDED COPY, no data|policy: third-party-copy|^sense 05/20/00
SET TARGET PORT GROUPS, no data|policy: maintenance-out|^sense 05/20/00
PERSISTENT RESERVE IN, service action 02|one LU, not four paths: no capability that names ports (SIP_C, ATP_C)|#00081190
PERSISTENT RESERVE IN, REPORT CAPABILITIES, 64 bytes|no capability that names ports|#00081190
PERSISTENT RESERVE IN, REPORT CAPABILITIES, after APTPL, 8 bytes|no capability that names ports|#00081190
PERSISTENT RESERVE OUT, REGISTER AND MOVE, not registered|refused: nothing that names ports|^sense 05/24/00
PERSISTENT RESERVE OUT, REGISTER AND MOVE|refused: nothing that names ports|^sense 05/24/00
PERSISTENT RESERVE OUT, REGISTER, SPEC_I_PT|refused by us: our sense names the field|^sense 05/26/00
PERSISTENT RESERVE OUT, REGISTER AND IGNORE, SPEC_I_PT|refused by us: our sense names the field|^sense 05/26/00
PERSISTENT RESERVE OUT, service action 1f|refused by us: our sense names the field|^sense 05/24/00
PERSISTENT RESERVE OUT, REGISTER, 8 of 24 bytes|a list that the guest's buffer does not hold is virtio-scsi's OVERRUN, which the guest's driver makes a host error|^good, host_status=0x0*7
PERSISTENT RESERVE IN, READ KEYS, cut, 4 bytes|cut as the standard says; LIO refuses fewer than 8 bytes|^good, 4 bytes
INQUIRY, another host*|one LU, not four paths: TPGS, 3PC and MULTIP are not set|#00000602..8000
INQUIRY, registered, another host*|one LU, not four paths: TPGS, 3PC and MULTIP are not set|#00000602..8000
INQUIRY, preempted*|one LU, not four paths: TPGS, 3PC and MULTIP are not set|#00000602..8000
ROWS
}

# exactness_compare CONSOLE: one line per command that both lists have: NAME|same or different|bare|through|reason.
exactness_compare() {
  tr -d '\r' <"$1" | awk -F'|' '
    # What a person can read of an answer.
    function sense_words(hex, key, asc) {
      if (substr(hex, 1, 2) == "72" || substr(hex, 1, 2) == "73") { key = substr(hex, 4, 1); asc = substr(hex, 5, 4) }
      else { key = substr(hex, 6, 1); asc = substr(hex, 25, 4) }
      return "sense 0" key "/" substr(asc, 1, 2) "/" substr(asc, 3, 2)
    }
    function words(status, sense, data) {
      if (status ~ /^Check Condition/) return sense_words(sense)
      return tolower(status) (data == "" ? "" : ", " length(data) / 2 " bytes")
    }
    # Which bytes of the data differ, where the lengths are equal.
    function bytes(a, b, i, n, out) {
      if (length(a) != length(b)) return ""
      for (i = 1; i <= length(a); i += 2) if (substr(a, i, 2) != substr(b, i, 2)) { n++
        if (n <= 4) out = out (out == "" ? "" : ", ") "byte " (i - 1) / 2 ": " substr(a, i, 2) "h → " substr(b, i, 2) "h" }
      return n > 4 ? out ", …" : out
    }
    phase == 1 { expected[++rows] = $1; reason[rows] = $2; must[rows] = $3; next }
    /BARE: answer / { sub(/^.*BARE: answer /, ""); order[++n] = $1; bare[$1] = words($2, $3, $4); bare_all[$1] = $2 "|" $3 "|" $4; bare_data[$1] = $4; next }
    /GUEST: answer / { sub(/^.*GUEST: answer /, ""); ours[$1] = words($2, $3, $4); ours_all[$1] = $2 "|" $3 "|" $4; ours_data[$1] = $4 }
    END {
      for (i = 1; i <= n; i++) { c = order[i]; why = ""
        for (r = 1; r <= rows; r++) if (expected[r] == c || (expected[r] ~ /\*$/ && index(c, substr(expected[r], 1, length(expected[r]) - 1)) == 1)) { why = reason[r]; break }
        if (bare_all[c] == ours_all[c]) { print c "|same|" bare[c] "|" ours[c] "|" why; continue }
        there = ours[c]; if (bare_data[c] != "" && (b = bytes(bare_data[c], ours_data[c])) != "") there = there " (" b ")"
        if (!(c in ours)) there = "no answer at all"
        if (why != "" && (there "#" ours_data[c]) !~ must[r]) why = ""
        print c "|different|" bare[c] "|" there "|" why
      }
    }' phase=1 <(exactness_expected) phase=2 -
}

# exactness_by_one CONSOLE: the commands that are answered otherwise over one path than over four: NAME|over four|over one. RESERVE(6)
# and RELEASE(6) are meant to be: over one path they are allowed, and answered as by the bare disk.
exactness_by_one() {
  tr -d '\r' <"$1" | awk -F'|' '
    /BARE: answer / { sub(/^.*BARE: answer /, ""); bare[$1] = $2 "|" $3 "|" $4; next }
    /GUEST: answer / { sub(/^.*GUEST: answer /, ""); four[$1] = $2 "|" $3 "|" $4; order[++n] = $1; next }
    /ONE PATH: answer / { sub(/^.*ONE PATH: answer /, ""); one[$1] = $2 "|" $3 "|" $4; seen = 1; next }
    END { if (seen) for (i = 1; i <= n; i++) { c = order[i]
        if (c ~ /^(RESERVE|RELEASE)\(6\)$/ && one[c] == bare[c] || c == "REPORT SUPPORTED OPERATION CODES, all" && c in one) continue
        if (four[c] != one[c]) {
        a = four[c]; b = c in one ? one[c] : "no answer at all"; gsub(/[|]/, " ", a); gsub(/[|]/, " ", b)
        print c "|" a "|" b } } }'
}

# exactness_judge CONSOLE: true if the differences are exactly the expected ones; says which are not.
exactness_judge() {
  local list wrong
  list=$(exactness_compare "$1")
  [ "$(wc -l <<<"$list")" -ge 350 ] || die "only $(wc -l <<<"$list") answers to compare"
  wrong=$(awk -F'|' '
    $2 == "different" && $5 == "" { print "    unexpected: " $1 ": " $3 " → " $4 }
    $2 == "same" && $5 != "" { print "    should differ and does not: " $1 ": " $3 " (" $5 ")" }' <<<"$list"
    exactness_by_one "$1" | sed 's/^/    over one path otherwise than over four: /')
  if [ -n "$wrong" ]; then
    say "$wrong"
    die "the answers through the daemon are not exactly those of the bare disk but for the intended differences"
  fi
  step "$(good "$(wc -l <<<"$list") commands, $(grep -c '|different|' <<<"$list") answers differ from the bare disk's, each as intended$(grep -qa 'ONE PATH: answer' "$1" && echo "; over one path every answer is the same as over four")")"
}

# exactness_write CONSOLE: the document.
exactness_write() {
  local list
  list=$(exactness_compare "$1")
  {
    cat <<'HEAD'
# How exact the SCSI disk is

A list of commands, sent by SG_IO to a bare `/dev/sdX` (LIO, Linux' own SCSI target) and, in a guest, to the vhost-user-scsi
disk that the daemon makes of this and three further paths to it; then to the one it makes of this path alone, which must answer as
that of four does. Another host has a path of its own, and reserves, preempts and clears at the same places of the list. Status, sense
and every byte of data are compared, but of PRGENERATION only whether it has changed (it counts every path of a guest). Never
sent is PREEMPT AND ABORT, which LIO does not answer at all. The differences must be the intended ones (one logical unit instead of
several paths; the command policy) and no others: `scripts/rig all` fails otherwise. Written by `scripts/rig write-docs`, not by hand.

HEAD
    printf 'Of %d commands %d are answered byte for byte as by the bare disk.\n\n' "$(wc -l <<<"$list")" "$(grep -c '|same|' <<<"$list")"
    printf '## What differs\n\n| command | bare | through the daemon | why |\n|---|---|---|---|\n'
    awk -F'|' '$2 == "different" { print "| " $1 " | " $3 " | " $4 " | " ($5 == "" ? "**a bug**" : $5) " |" }' <<<"$list"
    printf '\n## What is the same\n\n| command | answer |\n|---|---|\n'
    awk -F'|' '$2 == "same" { print "| " $1 " | " $3 " |" }' <<<"$list"
  } >"$EXACTNESS.new"
  mv "$EXACTNESS.new" "$EXACTNESS"
  step "written: docs/scsi-exactness.md"
}
