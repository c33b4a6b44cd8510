# docs/failover.md: what a guest lives through while its paths fail, on today's stack and on ours, from what the rig's job
# compare-failover.sh printed. Sourced, never run.
# shellcheck shell=bash

FAILOVER=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/docs/failover.md

# failover_cases: NUMBER|BED|WHAT. The bed is made anew where it changes.
failover_cases() {
  cat <<'ROWS'
0|alua|no fault, 10 s
1|alua|the active path deleted, rescanned after 2 s, 5 times
2|alua|the active path offline for 5 s, online for 5 s, 5 times
3|alua|both paths offline for 20 s
4|alua|ALUA group 1 standby, optimized, unavailable, optimized, 3 s each, twice
6|alua|both paths deleted, rescanned after 8 s
5a|alua|type 5 reserved; in turn each path deleted, rescanned after 2 s, 5 times; the active one offline for 5 s
5b|alua|type 1 reserved; the same
5c|alua|type 5 reserved; both paths deleted, rescanned after 8 s
8|hangable|reads and writes of the active path hang for 20 s, other commands do not
7|scsi_debug|a medium error at one block of the logical unit
9a|scsi_debug|every 20th command: recovered error
9b|scsi_debug|every 20th command: aborted command (0B/4B/03)
9c|scsi_debug|every 20th command: transfers less than asked for
9d|scsi_debug|every 20th command: the host is busy
9e|scsi_debug|every 20th command: aborted by the host
9f|scsi_debug|commands are lost: no answer until the kernel gives up
ROWS
}

# failover_has STACK CASE: no command of the guest's reaches the array where its disk is none of SCSI: no reservation.
failover_has() { case $1/$2 in *-blk*/5?) return 1 ;; esac; }

# failover_keep STACK CONSOLE: what the job has seen, into RESULTS; a case seen before is replaced.
failover_keep() {
  local to=$RESULTS/$1
  touch "$to"
  tr -d '\r' <"$2" | sed -n "s/^.*\(SEEN\(-[A-Z]*\)\{0,1\}: $1|.*\)/\1/p" >"$to.new"
  # The newer line of the same beginning wins.
  awk -F'|' '{ k = $1 (($1 ~ /^SEEN: /) ? "|" $2 : ""); if (!(k in line)) order[++n] = k; line[k] = $0 }
    END { for (i = 1; i <= n; i++) print line[order[i]] }' "$to" "$to.new" >"$to.both"
  mv "$to.both" "$to"
  rm "$to.new"
}

# failover_rows STACKS CASES: CASE|STACK|app errors|SG errors|longest ms of reads and writes|longest ms of SG_IO|longest nap ms|
# outage ms|wrong blocks|device commands|for how many bad reads|probe ms|what became of the bad reads|I/Os|what the guest saw|ms until both paths were well again|
# what the guest reads of its reservation|what became of another host's write|what the guest reads when it has unregistered
failover_rows() {
  local s c
  for c in $2; do
    for s in $1; do
      [ -e "$RESULTS/$s" ] || continue
      awk -F'|' -v s="$s" -v c="$c" '
        $1 == "SEEN: " s && $2 == c {
          for (i = 3; i <= NF; i++) { at = index($i, "="); v[substr($i, 1, at - 1)] = substr($i, at + 1) }
          saw = ""
          for (i = 1; i <= split("app_kinds sg_kinds kernel", k, " "); i++) if (v[k[i]] != "") saw = saw (saw == "" ? "" : "; ") v[k[i]]
          print c "|" s "|" v["app"] "|" (v["commands"] + 0 ? v["sg"] : "-") "|" v["longest_ms"] "|" v["longest_command_ms"] "|" v["nap_ms"] "|" v["outage_ms"] "|" v["wrong"] "|" v["device_commands"] "|" v["for_reads"] "|" v["probes"] "|" v["read"] "|" v["ios"] "|" saw "|" v["well_ms"] "|" v["reservation"] "|" v["other"] "|" v["left"]
        }' "$RESULTS/$s"
    done
  done
}

failover_what() { failover_cases | awk -F'|' -v c="$1" '$1 == c { print $3 }'; }

# failover_table STACKS CASES: for the terminal.
failover_table() {
  local c
  for c in $2; do
    printf '\n%scase %s%s: %s\n' "$BOLD" "$c" "$PLAIN" "$(failover_what "$c")"
    failover_rows "$1" "$c" | awk -F'|' '
      { longest = ($6 + 0 > $5 + 0 ? $6 : $5) / 1000
        printf "  %-18s app errors %5s  SG errors %5s  longest %6.2f s", $2, $3, $4, longest
        if ($8 > 0) printf " (outage %.2f s)", $8 / 1000
        printf "  machine %.2f s  %s I/Os", $7 / 1000, $14
        if ($10 != "") printf "  device commands per bad read %.1f (%s)", $10 / $11, $13
        if ($12 != "") printf "  a read begun 3 s later %s ms", $12
        if ($9 != 0) printf "  WRONG DATA"
        printf "\n"
        if ($15 != "") printf "  %-18s   %s\n", "", $15
        if ($17 != "") printf "  %-18s   it reads %s; another host'"'"'s write: %s\n", "", $17, $18 }'
  done
}

# failover_judge STACKS CASES [MILLISECONDS]: true if ours is as good as it should be; says where not. No error and no wrong
# byte in any case; 0.1 s at most while a path is healthy, 0.5 s beyond the end of an outage, 1 s beyond the 30 s after which the
# kernel gives a lost command up, all beyond what the machine itself stood still, and MILLISECONDS more; one command of a device for
# a bad read; a guest that has a reservation reads one key and its reservation at the end, another host's write is refused, and nothing stays
# registered when it has unregistered; at the end of each case both paths are well, as soon as the longest interval of checks, 20 s, is over. What was not
# measured is not good.
failover_judge() {
  local wrong s c
  wrong=$(failover_rows "$1" "$2" | awk -F'|' -v more="${3:-0}" '
    $2 !~ /^ours-/ { next }
    { longest = $6 + 0 > $5 + 0 ? $6 : $5 }
    $14 + 0 < 10 { print "case " $1 ", " $2 ": " $14 + 0 " I/Os" }
    ($1 ~ /^([368]|5c)$/ && !($8 > 0)) || ($1 == 8 && $12 == "") || ($1 == 7 && !($11 > 0)) { print "case " $1 ", " $2 ": not measured" }
    $16 !~ /^[0-9]+$/ || $16 > 20000 + $7 + more { print "case " $1 ", " $2 ": both paths well after " ($16 ~ /^[0-9]/ ? $16 " ms" : "a minute: " $16) }
    $1 ~ /^5/ && $17 != "keys=c0ffee holder=c0ffee type=" ($1 == "5b" ? 1 : 5) { print "case " $1 ", " $2 ": the guest reads " $17 }
    $1 ~ /^5/ && $18 != "refused" { print "case " $1 ", " $2 ": the write of another host: " $18 }
    $1 ~ /^5/ && $19 != "keys= holder= type=" { print "case " $1 ", " $2 ": the guest has unregistered, and reads " $19 }
    $1 == "9f" && longest > 31000 + $7 + more { print "case " $1 ", " $2 ": " longest " ms for a lost command" }
    $3 != 0 || ($4 != 0 && $4 != "-") || $9 != 0 { print "case " $1 ", " $2 ": " $3 " application errors, " $4 " SG errors, " $9 " wrong blocks: " $15 }
    $1 ~ /^(0|1|2|4|5[ab]|7|9[a-e])$/ && longest > $7 + 100 + more { print "case " $1 ", " $2 ": " longest " ms while a path was healthy" }
    $8 > 0 && longest > $8 + $7 + 500 + more { print "case " $1 ", " $2 ": " longest " ms, the outage was of " $8 " ms" }
    $12 != "" && $12 + 0 > $7 + 100 + more { print "case " $1 ", " $2 ": a read begun while one path hung took " $12 " ms" }
    $10 != "" && $10 > $11 { print "case " $1 ", " $2 ": " $10 " commands for " $11 " reads" }')
  for s in $1; do
    case $s in ours-*) ;; *) continue ;; esac
    for c in $2; do ! failover_has "$s" "$c" || [ -n "$(failover_rows "$s" "$c")" ] || wrong+="${wrong:+$'\n'}case $c, $s: was not run"; done
  done
  [ -z "$wrong" ] || { say "$wrong"; return 1; }
  step "$(good "ours keeps its promises in these cases")"
}

# failover_write STACKS: the measured part of the document, between its two marks.
failover_write() {
  local s c cases
  cases=$(failover_cases | cut -d'|' -f1 | sort -V)
  {
    sed '/^<!-- measured/q' "$FAILOVER"
    printf '\nMeasured on %s.\n\n| stack | versions | QEMU | Linux |\n|---|---|---|---|\n' "$(LC_ALL=C date '+%-d %B %Y')"
    for s in $1; do
      awk -F'|' -v s="$s" '$1 ~ /^SEEN-VERSION/ { v = $2 } $1 ~ /^SEEN-QEMU/ { q = $2 } $1 ~ /^SEEN-KERNEL/ { k = $2 }
        END { print "| " s " | " v " | " q " | " k " |" }' "$RESULTS/$s"
    done
    printf '\n| case | stack | app errors | SG errors | longest I/O | machine | what the guest saw |\n|---|---|---|---|---|---|---|\n'
    for c in $cases; do
      failover_rows "$1" "$c" | awk -F'|' -v what="$c: $(failover_what "$c")" '
        { longest = ($6 + 0 > $5 + 0 ? $6 : $5) / 1000
          saw = $15
          if ($8 > 0) saw = sprintf("outage %.2f s", $8 / 1000) (saw == "" ? "" : "; " saw)
          if ($12 != "") saw = saw sprintf("; a read begun after 3 s took %.2f s", $12 / 1000)
          if ($10 != "") saw = sprintf("%.1f device commands per bad read (%s)", $10 / $11, $13) (saw == "" ? "" : "; " saw)
          if ($17 != "") saw = (saw == "" ? "" : saw "; ") "at the end " \
            ($17 ~ /holder=c0ffee type/ ? "it holds the reservation" : "**it reads " $17 "**") ", another host'"'"'s write was " ($18 == "refused" ? "" : "**not** refused: ") $18
          if ($9 != 0) saw = "**wrong data** in " $9 " reads" (saw == "" ? "" : "; " saw)
          printf "| %s | %s | %s | %s | %.2f s | %.2f s | %s |\n", (NR == 1 ? what : ""), $2, $3, $4, longest, $7 / 1000, (saw == "" ? "nothing" : saw) }'
    done
    printf '\n'
    sed -n '/^<!-- end of what was measured/,$p' "$FAILOVER"
  } >"$FAILOVER.new"
  mv "$FAILOVER.new" "$FAILOVER"
}
