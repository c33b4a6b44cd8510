# Two JSON documents of maps (multipathd's `show maps json`, ours of each `ctl show topology --json`), and before them
# which disk is which path (`disk SDX LU PORT`) and which logical unit is which case (`case LU NAME|SIDE|REST`), into one
# line per map: STEP|NAME|SIDE|REST|KEY=VALUE|… JSON here is one key per line, as both print it.
function value(text) {
  sub(/^[^:]*: */, "", text); sub(/,$/, "", text); gsub(/^"|"$/, "", text)
  return text
}
function begin(   k) { depth++; for (k in field) if (index(k, depth SUBSEP) == 1) delete field[k] }
function end_object(   p, lu, port) {
  if ((depth, "chk_st") in field) { # a path
    p = field[depth, "dev"]
    lu = disk_lu[p]; port = disk_port[p]
    map_lu = lu
    path[port] = "p" port ".dm=" field[depth, "dm_st"] "|p" port ".checker=" field[depth, "chk_st"] "|p" port ".device=" field[depth, "dev_st"] "|p" port ".prio=" field[depth, "pri"]
    member[port] = 1
  } else if ((depth, "selector") in field) { # a group
    group = ""
    for (port = 1; port <= 4; port++) if (port in member) group = group (group == "" ? "" : ",") "p" port
    groups++
    name_of[groups] = group
    rest = rest "|status of " group "=" field[depth, "dm_st"] "|prio of " group "=" field[depth, "pri"]
    if (field[depth, "dm_st"] == "active") in_use = in_use (in_use == "" ? "" : "+") group
    split("", member)
  } else if ((depth, "uuid") in field) { # a map
    lu = map_lu
    if (lu == "") lu = hex(substr(field[depth, "uuid"], 13, 4))
    line = step "|" name[lu]
    there = order = grouping = ""
    for (port = 1; port <= 4; port++) if (port in path) { line = line "|" path[port]; there = there (there == "" ? "" : ",") "p" port }
    for (g = 1; g <= groups; g++) order = order (g == 1 ? "" : " / ") name_of[g]
    for (port = 1; port <= 4; port++) for (g = 1; g <= groups; g++)
      if (index(name_of[g], "p" port) == 1) grouping = grouping (grouping == "" ? "" : " / ") name_of[g]
    print line "|paths=" there "|groups=" grouping "|order=" order "|in use=" in_use rest "|queueing=" field[depth, "queueing"]
    groups = 0; rest = in_use = map_lu = ""; split("", path)
  }
  depth--
}
function hex(text,   i, n) { for (i = 1; i <= length(text); i++) n = n * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1; return n }
/^disk / { disk_lu[$2] = $3; disk_port[$2] = $4; next }
/^case / { lu = $2; sub(/^case [0-9]+ /, ""); name[lu] = $0; next }
# Each brace has come to a line of its own.
/^[ \t]*\{/ { begin(); next }
/^[ \t]*\}/ { end_object(); next }
/^[ \t]*"[a-z_]+" *:/ { k = $0; sub(/^[ \t]*"/, "", k); sub(/".*/, "", k); if ($0 !~ /\[[ \t]*$/) field[depth, k] = value($0) }
