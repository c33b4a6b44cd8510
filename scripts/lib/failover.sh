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

# failover_rows STACKS CASES: CASE|STACK|app|sg|commands|longest ms|outage ms|what the guest saw|wrong|device commands|reads|probe ms|longest SG_IO ms
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
          print c "|" s "|" v["app"] "|" (v["commands"] + 0 ? v["sg"] : "-") "|" v["commands"] "|" v["longest_ms"] "|" v["outage_ms"] "|" saw "|" v["wrong"] "|" v["device_commands"] "|" v["for_reads"] "|" v["probes"] "|" v["longest_command_ms"] "|" v["read"]
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
      { longest = ($13 > $6 + 0 ? $13 : $6) / 1000
        printf "  %-18s app errors %5s  SG errors %5s  longest %6.2f s%s%s%s%s\n", $2, $3, $4, longest, ($7 > 0 ? sprintf(" (%.1f s outage)", $7 / 1000) : ""), ($10 != "" ? sprintf("  device commands per bad read %.1f", $10 / $11) : ""), ($12 != "" ? "  a read begun 3 s later " $12 " ms" : ""), ($9 != "0" ? "  WRONG DATA" : "")
        if ($14 != "") print "  " sprintf("%-18s", "") " reads of the bad block: " $14
        if ($8 != "") print "  " sprintf("%-18s", "") " " $8 }'
  done
}

# failover_judge STACKS CASES: true if ours is as good as it should be; says where not. No error and no wrong byte in any
# case; 0.1 s at most while a path is healthy, 0.5 s beyond the end of an outage; one command of a device for a bad read.
failover_judge() {
  local wrong
  wrong=$(failover_rows "$1" "$2" | awk -F'|' '
    $2 !~ /^ours-/ { next }
    { longest = $13 > $6 + 0 ? $13 : $6; seen++ }
    $3 != 0 || ($4 != 0 && $4 != "-") || $9 != 0 { print "case " $1 ", " $2 ": " $3 " application errors, " $4 " SG errors, " $9 " wrong blocks: " $8 }
    $1 ~ /^(0|1|2|4|7|9[a-e])$/ && longest > 100 { print "case " $1 ", " $2 ": " longest " ms while a path was healthy" }
    $7 > 0 && longest > $7 + 500 { print "case " $1 ", " $2 ": " longest " ms, the outage was of " $7 " ms" }
    $10 != "" && $10 > $11 { print "case " $1 ", " $2 ": " $10 " commands for " $11 " reads" }
    END { if (!seen) print "nothing of ours was measured" }')
  [ -z "$wrong" ] || { say "$wrong"; return 1; }
  step "$(good "ours keeps its promises in these cases")"
}
