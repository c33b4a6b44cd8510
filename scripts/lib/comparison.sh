# docs/multipathd-comparison.md: what multipathd and our daemon decide under the same faults, from what the rig's job
# compare-multipathd.sh printed. Sourced, never run. Needs lib/say.sh.
# shellcheck shell=bash

COMPARISON=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/docs/multipathd-comparison.md

# comparison_cases: NAME|KEYWORD VALUE;KEYWORD VALUE…, in multipath.conf's words. `const` is prio const.
comparison_cases() {
  cat <<'ROWS'
failover|path_grouping_policy failover; prio const; failback manual; path_checker tur; no_path_retry fail
failover, alua, immediate|path_grouping_policy failover; prio alua; failback immediate; path_checker directio; no_path_retry queue
multibus|path_grouping_policy multibus; prio const; failback manual; path_checker tur; no_path_retry queue
multibus, alua|path_grouping_policy multibus; prio alua; failback immediate; path_checker readsector0; no_path_retry 6
by prio, const|path_grouping_policy group_by_prio; prio const; failback immediate; path_checker tur; no_path_retry fail
by prio, manual|path_grouping_policy group_by_prio; prio alua; failback manual; path_checker tur; no_path_retry 6
by prio, immediate|path_grouping_policy group_by_prio; prio alua; failback immediate; path_checker tur; no_path_retry queue
by prio, 7 s|path_grouping_policy group_by_prio; prio alua; failback 7; path_checker tur; no_path_retry fail
by prio, followover|path_grouping_policy group_by_prio; prio alua; failback followover; path_checker tur; no_path_retry fail
by tpg, const|path_grouping_policy group_by_tpg; prio const; failback manual; path_checker tur; no_path_retry fail
by tpg, manual|path_grouping_policy group_by_tpg; prio alua; failback manual; path_checker directio; no_path_retry fail
by tpg, immediate|path_grouping_policy group_by_tpg; prio alua; failback immediate; path_checker tur; no_path_retry queue
by tpg, followover|path_grouping_policy group_by_tpg; prio alua; failback followover; path_checker readsector0; no_path_retry fail
by serial|path_grouping_policy group_by_serial; prio const; failback manual; path_checker tur; no_path_retry fail
by serial, alua|path_grouping_policy group_by_serial; prio alua; failback immediate; path_checker tur; no_path_retry queue
by node name|path_grouping_policy group_by_node_name; prio alua; failback immediate; path_checker directio; no_path_retry fail
ROWS
}
# What holds for every case.
comparison_always() {
  cat <<'ROWS'
polling_interval 1
max_polling_interval 1
path_selector "round-robin 0"
ROWS
}

# The differences that are intended: STEP|CASE|FIELD|what multipathd says|what we say|may or must|reason. The first five
# are regular expressions for the whole, apart from that a bar inside ( ) is none between columns; the first row that fits
# a difference explains it; "the same" stands for the reason before. A difference without a row is a bug; so is a row with `must` that explains nothing. `may` is for
# what is a chance of time.
comparison_expected() {
  grep -v '^ *#' <<'ROWS' | grep .
# --- ours on purpose
.*|.*|status of .*|enabled|disabled|must|a group without a usable path is *disabled*; dm has that word for a group that is bypassed
.*|.*|order|.*|.*|must|groups are sorted when a priority changes; multipathd sorts them when it loads a map anew, which it does for a failback and where paths come or go
.*|by node name|groups|.*|.*|must|the target's name of a tcm_loop path is known; multipathd knows node names of FC, SAS and iSCSI targets only, so the paths are alike
.*|by node name|in use|.*|p[1-4]|must|the same
.*|failover, alua, immediate|(in use|status of p[12])|.*|.*|must|of groups of equal priority the first in order of configuration is the better; multipathd has put the one that was left last
group 1 non-optimized|.*, immediate|(in use|status of .*)|.*|.*|may|the same

# --- a target port group in transition
group 1 in transition|.*|p[12]\.checker|ready|i/o pending|must|it is said that the checker has no answer; multipathd shows what the last one was
group 1 in transition|.*|p[12]\.(dm|checker)|(failed|faulty)|(active|i/o pending)|may|a path in transition is not failed by any checker; multipathd's readsector0 says faulty
group 1 in transition|.*|p[12]\.prio|50|0|must|the report of target port groups is read during a transition, too
group 1 in transition|.*|prio of .*|(50|30|10)|(5|0)|must|the same
group 1 in transition|.*|read (at once|later)|held|good|must|a group in transition is left while another carries I/O; dm's read waits in the SCSI layer until it is over
group 1 in transition|.*|in use|(p1|p1,p2|none)|(p3|p3,p4)|must|the same
group 1 in transition|.*|status of .*|(active|enabled)|(active|enabled)|must|the same
(group 1 (non-)?optimized|disk 1 .*)|.*(manual|7 s|followover)|in use|p1,p2|(p3,p4|p1,p2,p3,p4)|must|the same: I/O had left group 1 during the transition, and failback is not immediate
(group 1 (non-)?optimized|disk 1 .*)|.*(manual|7 s|followover)|status of .*|.*|.*|must|the same
(group 1 (in transition|(non-)?optimized)|disk 1 .*)|by tpg, const|(in use|status of p[34])|(p4|active|enabled)|(p3|active|enabled)|may|both of its groups for the second target port group are as good; which of them it took in the transition is chance
(group 1 optimized|disk 1 .*)|by prio, 7 s|(in use|status of .*)|.*|.*|may|the seven seconds end about when both are looked at
group 1 non-optimized|by prio, .*|groups|p1,p2 / p3,p4|p1,p2,p3,p4|must|paths are grouped anew when a priority changes; multipathd waits for a failback
group 1 non-optimized|by prio, .*|in use|p3,p4|p1,p2,p3,p4|may|the same

# --- a path lost while multipathd reads its priority
.*|.*|p[1-4]\.prio|-1|.*|may|multipathd was just reading the priority of the path that was lost
.*|by prio, .*|groups|(p1 / p2 / p3,p4|p1,p2 / p3 / p4|.*p[12],p[34].*)|p1,p2 / p3,p4|may|the same, or of one path of two when it changed
(port.*|all ports.*)|by prio, .*|in use|p[12]|p1,p2|may|the same

# --- standby and unavailable
group 1 (standby|unavailable).*|.*|p[1-4]\.prio|(50|10|1)|[01]|must|a report that one path reads is for the groups of all; multipathd does not read the priority of a path that is down
group 1 standby|(by serial|multibus).*|(p[12]\.(dm|checker)|prio of .*)|(failed|faulty|10)|(active|ghost|5)|may|no read is sent to a path in standby, so it stays as the checker finds it; dm's read fails it until the next check
group 1 unavailable, 2 standby|.*|p[34]\.(dm|checker)|(failed|faulty)|(active|ghost)|may|no read is sent to a path in standby, so it stays as the checker finds it; dm's read fails it each time
group 1 unavailable, 2 standby|.*|(in use|status of .*|prio of .*)|.*|.*|may|the same
group 1 unavailable, 2 standby|by prio, immediate|groups|p1,p2,p3,p4|p1,p2 / p3,p4|may|the same
group 1 unavailable, 2 standby|.*|read (at once|later)|(held|failed)|(held|failed)|may|no_path_retry runs from the moment no path carries; multipathd begins anew with each ghost that it reinstates, or has one and does not hold
both groups well|.*|read at once|(good|failed|-)|(good|failed|-)|may|the same
both groups well|.*|(in use|status of .*)|.*|.*|may|the first path that carries I/O again is taken; for multipathd a ghost was in use all the time

# --- held requests
four seconds later|.*|read at once|(held|failed)|(held|failed)|may|no_path_retry runs from the moment no path carries, not from the next check
(all ports offline|group 1 unavailable, 2 standby)|.*|queueing|[0-9]+ (sec|chk)|(off|[0-9]+ chk)|may|of no_path_retry N the number is shown until it is over; multipathd counts the seconds down

# --- disks that go and come
disk 1 deleted|.*|paths|p2,p3,p4|p1,p2,p3,p4|must|a disk that is gone is a failed path until `del path`; multipathd takes it away
disk 1 deleted|.*|groups|.*|.*|must|the same
disk 1 (deleted|back)|.*|(in use|status of .*|prio of .*)|.*|.*|may|the same, and: I/O stays where it is; with the map that multipathd loads then, dm begins with the first group
disk 1 back|.*|p1\.prio|1|50|may|multipathd gives `prio alua` up for a path whose first answer is a unit attention
disk 1 back|.*|groups|.*|.*|may|the same

# --- known, to be mended; a row whose difference is gone goes
group 1 (non-optimized, 2 optimized|optimized, 2 non-optimized)|by prio, .*|(in use|status of .*)|.*|.*|may|not yet: priorities come in path by path and paths are grouped at each, so that I/O leaves with the half that moves
group 1 unavailable.*|by prio, .*|(groups|in use)|.*|.*|may|not yet: the priority of a failed path is that of its last own reading, so that paths of one target port group are grouped apart
group 1 unavailable.*|.*|p[12]\.prio|0|1|may|the same
ROWS
}

# comparison_facts CONSOLE: STEP|CASE|FIELD|multipathd|ours, one line per fact. Of a path or a group that only one of them
# has there is no more to say than that; nor of the order of groups that are not the same.
comparison_facts() {
  tr -d '\r' <"$1" | sed -n 's/^.*SEEN: //p' | awk -F'|' '
    phase == 1 { name[++cases] = $1; next }
    {
      at = $1 "|" $2
      if (!($1 in known)) { known[$1] = 1; step[++steps] = $1 }
      for (i = 4; i <= NF; i++) {
        eq = index($i, "="); key = substr($i, 1, eq - 1)
        if (!((at, key) in seen)) { seen[at, key] = 1; keys[at] = keys[at] "|" key }
        said[$3, at, key] = substr($i, eq + 1); has[$3, at, key] = 1
      }
    }
    END {
      for (s = 1; s <= steps; s++) for (c = 1; c <= cases; c++) {
        at = step[s] "|" name[c]; m = split(substr(keys[at], 2), k, "|")
        alike = said["theirs", at, "groups"] == said["ours", at, "groups"]
        for (i = 1; i <= m; i++) {
          if (k[i] ~ /^p[1-4]\.| of p/ && !(("theirs", at, k[i]) in has && ("ours", at, k[i]) in has)) continue
          if (k[i] == "order" && !alike) continue
          print at "|" k[i] "|" word("theirs", at, k[i]) "|" word("ours", at, k[i])
        }
      }
    }
    function word(side, at, key) { return said[side, at, key] == "" ? "none" : said[side, at, key] }' phase=1 <(comparison_cases) phase=2 -
}

# comparison_compare CONSOLE: the facts with same, different or may, and a reason: STEP|CASE|FIELD|multipathd|ours|verdict|reason;
# then the rows that explain nothing of the steps that were taken: unused|ROW.
comparison_compare() {
  comparison_facts "$1" | awk -F'|' '
    phase == 1 { n++; row[n] = $0; columns($0, c); how[n] = c[6]; why[n] = c[7]; if (sub(/^the same/, "", why[n])) why[n] = why[n - 1] why[n]; for (i = 1; i <= 5; i++) re[n, i] = "^(" c[i] ")$"; next }
    !($1 in taken) { taken[$1] = 1; for (r = 1; r <= n; r++) if ($1 ~ re[r, 1]) met[r] = 1 }
    {
      if ($4 == $5) { print $0 "|same|"; next }
      reason = ""
      for (r = 1; r <= n; r++) if ($1 ~ re[r, 1] && $2 ~ re[r, 2] && $3 ~ re[r, 3] && $4 ~ re[r, 4] && $5 ~ re[r, 5]) { used[r] = 1; reason = why[r]; break }
      print $0 "|different|" reason
    }
    END { for (r = 1; r <= n; r++) if (r in met && !(r in used) && how[r] == "must") print "unused|" row[r] }
    function columns(text, c,   i, k, inside, char) {
      split("", c); k = 1
      for (i = 1; i <= length(text); i++) {
        char = substr(text, i, 1); if (k <= 5) inside += (char == "(") - (char == ")")
        if (char == "|" && !inside) k++; else c[k] = c[k] char
      }
    }' phase=1 <(comparison_expected) phase=2 -
}

# comparison_wrong CONSOLE…: what has no reason in any of the runs, one line each; nothing if all is as it should be.
# multipathd's moment of looking is a chance of time, so one run alone may show what no other shows: what is wrong is
# wrong in each.
comparison_wrong() {
  local console
  for console; do
    comparison_compare "$console" | awk -F'|' '
      $1 == "unused" { print "should differ and does not: " substr($0, 8); next }
      $6 == "different" && $7 == "" { print "unexpected: " $1 ", " $2 ", " $3 ": multipathd " $4 ", ours " $5 }' | sort -u
  done | sort | uniq -c | awk -v runs=$# '$1 == runs { sub(/^ *[0-9]+ /, "    "); print }'
}

# comparison_judge CONSOLE…: true if the differences are exactly the intended ones; says which are not. Of several runs,
# which are not in any of them.
comparison_judge() {
  local list wrong facts console
  for console; do
    facts=$(comparison_facts "$console" | wc -l)
    [ "$facts" -ge 4000 ] || die "only $facts facts to compare"
  done
  wrong=$(comparison_wrong "$@")
  if [ -n "$wrong" ]; then
    say "$wrong"
    warn "our decisions differ from multipathd's in what has no reason"
    return 1
  fi
  list=$(comparison_compare "$console") # of the last, as the number of facts
  step "$(good "$facts facts, $(grep -c '|different|' <<<"$list") differ from multipathd's with a reason, of these $(grep -c '|different|not yet: ' <<<"$list" || true) to be mended")"
}

# comparison_write CONSOLE: the document.
comparison_write() {
  local list version
  list=$(comparison_compare "$1")
  version=$(tr -d '\r' <"$1" | sed -n 's/^.*SEEN-VERSION: //p')
  {
    cat <<HEAD
# Our decisions and multipathd's

multipathd $version with dm-multipath, and our daemon with the same policy, live through the same faults at the same moment,
each over a logical unit of its own (LIO) with four paths: p1 and p2 in target port group 1, p3 and p4 in group 2, which is
active/non-optimized at first. After each fault and each repair both say what they think of every path and which path
groups they have made, and both read: at once and after it has settled. The differences must be those with a reason and no
others: \`scripts/rig long\` fails otherwise, and so does \`scripts/rig all\`, whose run is a shorter one (no transition, no disk that goes),
if a second run shows the same difference again. Most are intended;
*not yet* marks what is to be mended. Some of multipathd's answers are a chance of time, so the numbers vary from run
to run. Written by \`scripts/rig write-docs\`, not by hand.

HEAD
    awk -F'|' '$1 == "unused" { next } { n++ } $6 == "same" { same++ } $7 ~ /^not yet: / { open++ }
      END { printf "Of %d facts %d are the same; %d differ, of these %d not yet as they should.\n\n", n, same, n - same, open }' <<<"$list"
    printf '## The policies\n\nAll with'
    comparison_always | awk '{ printf "%s `%s`", (NR > 1 ? "," : ""), $0 }'
    printf '.\n\n| | name | multipath.conf |\n|---|---|---|\n'
    comparison_cases | awk -F'|' '{ printf "| %c | %s | `%s` |\n", 64 + NR, $1, $2 }'
    printf '\n## What differs\n\nOne example of each kind, and how many there are.\n\n| what | multipathd | ours | facts | why |\n|---|---|---|---|---|\n'
    awk -F'|' '$6 == "different" { w = $7 == "" ? "**a bug**" : $7
        f = $3; sub(/^p[1-4]\./, "a path'"'"'s ", f); if (sub(/ of p.*/, "", f)) f = "a group'"'"'s " f
        if (!((w, f) in count)) { order[++n] = w SUBSEP f; example[w, f] = $4 " | " $5 }
        count[w, f]++ }
      END { for (i = 1; i <= n; i++) { split(order[i], a, SUBSEP); print "| " a[2] " | " example[order[i]] " | " count[order[i]] " | " a[1] " |" } }' <<<"$list"
    cat <<'NOTE'

## Which group is in use, and what became of a read

The paths of the group in use by number, `–` where there is none; then the later of the two reads where it was not good:
held or failed. In brackets multipathd's, where it is another.

NOTE
    awk -F'|' '
      $3 == "in use" { a = short($4); b = short($5) }
      function short(t) { if (t == "none") return "–"; gsub(/[p,]/, "", t); return t }
      $1 == "unused" { next }
      { if (!($1 in step)) { step[$1] = 1; steps[++n] = $1 } if (!($2 in case_)) { case_[$2] = 1; cases[++m] = $2 } }
      $3 == "in use" { t[$1, $2] = t[$1, $2] " " a; u[$1, $2] = u[$1, $2] " " b }
      $3 == "read later" { t[$1, $2] = ($4 == "good" ? "" : " " $4); u[$1, $2] = ($5 == "good" ? "" : " " $5) }
      END {
        printf "| |"; for (j = 1; j <= m; j++) printf " %c |", 64 + j
        printf "\n|---|"; for (j = 1; j <= m; j++) printf "---|"; printf "\n"
        for (i = 1; i <= n; i++) { printf "| %s |", steps[i]
          for (j = 1; j <= m; j++) { k = steps[i] SUBSEP cases[j]; x = u[k]; y = t[k]; sub(/^ /, "", x); sub(/^ /, "", y)
            printf " %s |", x == y ? x : x " (" y ")" }
          printf "\n" }
      }' <<<"$list"
  } >"$COMPARISON.new"
  mv "$COMPARISON.new" "$COMPARISON"
  step "written: docs/multipathd-comparison.md"
}
