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
    members = members (members == "" ? "" : ",") "p" port
  } else if ((depth, "selector") in field) { # a group
    groups = groups (groups == "" ? "" : " / ") members
    prios = prios (prios == "" ? "" : " / ") field[depth, "pri"]
    status = status (status == "" ? "" : " / ") field[depth, "dm_st"]
    if (field[depth, "dm_st"] == "active") in_use = in_use (in_use == "" ? "" : "+") members
    members = ""
  } else if ((depth, "uuid") in field) { # a map
    lu = map_lu
    if (lu == "") { w = field[depth, "uuid"]; lu = hex(substr(w, 13, 4)) }
    line = step "|" name[lu]
    for (port = 1; port <= 4; port++) if (port in path) line = line "|" path[port]
    print line "|groups=" groups "|in use=" in_use "|group prio=" prios "|group status=" status "|queueing=" field[depth, "queueing"]
    groups = prios = status = in_use = members = ""; split("", path); map_lu = ""
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
