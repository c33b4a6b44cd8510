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
multibus, alua|path_grouping_policy multibus; prio alua; failback immediate; path_checker readsector0; no_path_retry 4
by prio, const|path_grouping_policy group_by_prio; prio const; failback immediate; path_checker tur; no_path_retry fail
by prio, manual|path_grouping_policy group_by_prio; prio alua; failback manual; path_checker tur; no_path_retry 4
by prio, immediate|path_grouping_policy group_by_prio; prio alua; failback immediate; path_checker tur; no_path_retry queue
by prio, 5 s|path_grouping_policy group_by_prio; prio alua; failback 5; path_checker tur; no_path_retry fail
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
