//! `show … format`: lines of fields that the administrator chooses, by
//! multipathd's wildcards (`libmultipath/print.c`).
//!
//! Pure text from [`status`](super::status). One table for each kind of thing;
//! `show wildcards` prints them. Unlike multipathd, which drops it, a wildcard
//! that is not there is an error.

use std::fmt;

use super::status::{GroupStatus, MapStatus, PathStatus};
use super::topology::{next_check, progress, size};

/// multipathd's placeholder for what is not known.
const UNDEF: &str = "[undef]";

/// One wildcard.
pub struct Wildcard<T: 'static> {
    /// Behind the `%`.
    pub letter: char,
    /// What stands above the column.
    pub header: &'static str,
    print: fn(&T) -> String,
}

impl<T> fmt::Debug for Wildcard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{} {}", self.letter, self.header)
    }
}

const fn wildcard<T>(letter: char, header: &'static str, print: fn(&T) -> String) -> Wildcard<T> {
    Wildcard { letter, header, print }
}

/// A format that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not in the table.
    #[error("there is no wildcard %{letter} for {what}; `show wildcards` lists them")]
    Unknown {
        /// As given.
        letter: char,
        /// Of what.
        what: &'static str,
    },
    /// `%` at the end.
    #[error("the format ends with a %; `show wildcards` lists what may follow it")]
    Unfinished,
}

/// Of a map.
pub static MAP: &[Wildcard<MapStatus>] = &[
    wildcard('n', "name", |m| m.name.clone()),
    wildcard('w', "uuid", |m| m.uuid.clone()),
    wildcard('d', "sysfs", |m| m.sysfs.clone()),
    wildcard('F', "failback", failback),
    wildcard('Q', "queueing", |m| m.queueing.clone()),
    wildcard('N', "paths", |m| m.paths.to_string()),
    wildcard('r', "write_prot", |m| m.write_prot.clone()),
    wildcard('t', "dm-st", |m| m.dm_st.clone()),
    wildcard('S', "size", |m| size(m.size)),
    wildcard('f', "features", |m| m.features.clone()),
    wildcard('x', "failures", |m| m.map_failures.to_string()),
    wildcard('h', "hwhandler", |m| m.hwhandler.clone()),
    wildcard('A', "action", |m| m.action.clone()),
    wildcard('0', "path_faults", |m| m.path_faults.to_string()),
    wildcard('1', "switch_grp", |m| m.switch_grp.to_string()),
    wildcard('2', "map_loads", |m| m.map_loads.to_string()),
    wildcard('3', "total_q_time", |m| m.total_q_time.to_string()),
    wildcard('4', "q_timeouts", |m| m.q_timeouts.to_string()),
    wildcard('s', "vend/prod", |m| format!("{},{}", known(&m.vend), known(&m.prod))),
    wildcard('v', "vend", |m| known(&m.vend).to_owned()),
    wildcard('p', "prod", |m| known(&m.prod).to_owned()),
    wildcard('e', "rev", |m| known(&m.rev).to_owned()),
    wildcard('G', "foreign", |_| "--".to_owned()),
    wildcard('g', "vpd page data", |_| UNDEF.to_owned()),
];

/// Of a path group. multipathd uses them inside its topology only.
pub static GROUP: &[Wildcard<GroupStatus>] = &[
    wildcard('s', "selector", |g| g.selector.clone()),
    wildcard('p', "pri", |g| g.pri.to_string()),
    wildcard('t', "dm_st", |g| g.dm_st.clone()),
    wildcard('M', "marginal_st", |g| g.marginal_st.clone()),
];

/// Of a path.
pub static PATH: &[Wildcard<PathStatus>] = &[
    wildcard('w', "uuid", |p| p.wwid.clone()),
    wildcard('i', "hcil", |p| p.hcil.clone()),
    wildcard('d', "dev", |p| p.dev.clone()),
    wildcard('D', "dev_t", |p| p.dev_t.clone()),
    wildcard('t', "dm_st", |p| p.dm_st.clone()),
    wildcard('o', "dev_st", |p| p.dev_st.clone()),
    wildcard('T', "chk_st", |p| p.chk_st.clone()),
    wildcard('s', "vend/prod/rev", |p| p.vend_prod_rev.clone()),
    wildcard('c', "checker", |p| p.checker.clone()),
    wildcard('C', "next_check", next_check),
    wildcard('p', "pri", |p| p.pri.to_string()),
    wildcard('S', "size", |p| size(p.size)),
    wildcard('z', "serial", |p| p.serial.clone()),
    wildcard('M', "marginal_st", |p| p.marginal_st.clone()),
    wildcard('m', "multipath", |p| p.multipath.clone()),
    wildcard('N', "host WWNN", |p| p.host_wwnn.clone()),
    wildcard('n', "target WWNN", |p| p.target_wwnn.clone()),
    wildcard('R', "host WWPN", |p| p.host_wwpn.clone()),
    wildcard('r', "target WWPN", |p| p.target_wwpn.clone()),
    wildcard('a', "host adapter", |p| p.host_adapter.clone()),
    wildcard('G', "foreign", |_| "--".to_owned()),
    wildcard('g', "vpd page data", |_| UNDEF.to_owned()),
    wildcard('0', "failures", |p| p.failures.to_string()),
    wildcard('P', "protocol", |p| p.protocol.clone()),
    wildcard('I', "init_st", |_| "ok".to_owned()),
    wildcard('L', "LUN hex", |p| p.lun_hex.clone()),
    wildcard('A', "TPG", |p| {
        p.target_port_group.map_or_else(|| UNDEF.to_owned(), |group| format!("0x{group:04x}"))
    }),
];

fn known(text: &str) -> &str {
    if text.is_empty() { "##" } else { text }
}

/// multipathd's: the policy, or how far a deferred failback has come.
fn failback(map: &MapStatus) -> String {
    match (map.failback_in, map.failback.strip_prefix("deferred:")) {
        (Some(left), Some(whole)) => progress(left, whole.parse().unwrap_or(left)),
        _ => map.failback.clone(),
    }
}

/// A format, taken apart: text, then a column.
type Parts<'a, T> = Vec<(String, Option<&'a Wildcard<T>>)>;

fn parts<'a, T>(
    table: &'a [Wildcard<T>],
    what: &'static str,
    format: &str,
) -> Result<Parts<'a, T>, FormatError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next().ok_or(FormatError::Unfinished)? {
            '%' => text.push('%'),
            letter => {
                let found = table.iter().find(|wildcard| wildcard.letter == letter);
                let found = found.ok_or(FormatError::Unknown { letter, what })?;
                parts.push((std::mem::take(&mut text), Some(found)));
            }
        }
    }
    parts.push((text, None));
    Ok(parts)
}

/// A line for each thing; unless `raw`, below a line of headers and in columns.
///
/// # Errors
/// [`FormatError`]; `what` is the things' name in its words.
pub fn lines<T>(
    table: &'static [Wildcard<T>],
    what: &'static str,
    format: &str,
    things: &[T],
    raw: bool,
) -> Result<String, FormatError> {
    let parts = parts(table, what, format)?;
    let columns = || parts.iter().filter_map(|(_, wildcard)| *wildcard);
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !raw {
        rows.push(columns().map(|wildcard| wildcard.header.to_owned()).collect());
    }
    rows.extend(things.iter().map(|t| columns().map(|c| (c.print)(t)).collect::<Vec<_>>()));
    let widths: Vec<usize> = (0..columns().count())
        .map(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0))
        .map(|width| if raw { 0 } else { width })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        let mut cells = row.iter().zip(&widths);
        for (text, wildcard) in &parts {
            line.push_str(text);
            if let (Some(_), Some((cell, width))) = (wildcard, cells.next()) {
                line.push_str(&format!("{cell:<width$}"));
            }
        }
        out.push_str(if raw { &line } else { line.trim_end() });
        out.push('\n');
    }
    Ok(out)
}

/// `show wildcards`.
pub fn all() -> String {
    fn of<T>(what: &str, table: &[Wildcard<T>]) -> String {
        let rows = table.iter().map(|w| format!("%{}  {}\n", w.letter, w.header));
        format!("{what} format wildcards:\n{}", rows.collect::<String>())
    }
    [of("multipath", MAP), of("path", PATH), of("pathgroup", GROUP)].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::{group, map, path};
    use super::*;

    fn two() -> Vec<PathStatus> {
        vec![
            PathStatus {
                target_port_group: Some(0x1f),
                ..path("sdb", "2:0:0:1", "8:16", "active", "ready")
            },
            path("sdcc", "2:0:1:1", "69:0", "failed", "faulty"),
        ]
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_field_and_raw_ones_are_not() {
        let format = "%d|%t %A";
        let table = lines(PATH, "paths", format, &two(), false).unwrap();
        assert_eq!(table, "dev |dm_st  TPG\nsdb |active 0x001f\nsdcc|failed [undef]\n");
        let raw = lines(PATH, "paths", format, &two(), true).unwrap();
        assert_eq!(raw, "sdb|active 0x001f\nsdcc|failed [undef]\n");
    }

    #[test]
    fn every_wildcard_of_every_table_is_told_and_has_a_value() {
        let maps = [map(vec![group(1, "active", two())])];
        let all = all();
        for wildcard in MAP {
            let format = format!("<%{}>", wildcard.letter);
            assert!(lines(MAP, "maps", &format, &maps, true).unwrap().ends_with(">\n"));
            assert!(all.contains(&format!("%{}  {}\n", wildcard.letter, wildcard.header)));
        }
        for wildcard in PATH {
            let format = format!("<%{}>", wildcard.letter);
            assert!(lines(PATH, "paths", &format, &two(), true).unwrap().starts_with('<'));
            assert!(all.contains(&format!("%{}  {}\n", wildcard.letter, wildcard.header)));
        }
        let groups =
            lines(GROUP, "path groups", "%s %p %t %M", &maps[0].path_groups, true).unwrap();
        assert_eq!(groups, "service-time 0 1 active normal\n");
    }

    #[test]
    fn a_format_that_makes_no_sense_is_told_what_is_wrong() {
        let error = |format| lines(PATH, "paths", format, &two(), true).unwrap_err().to_string();
        assert!(error("%d %q").contains("no wildcard %q for paths"));
        assert!(error("%d %").contains("ends with a %"));
        assert_eq!(lines(PATH, "paths", "100%%", &two()[..1], true).unwrap(), "100%\n");
    }

    #[test]
    fn a_deferred_failback_is_a_bar_that_shrinks() {
        let waiting = MapStatus {
            failback: "deferred:10".to_owned(),
            failback_in: Some(5.0),
            ..map(Vec::new())
        };
        assert_eq!(lines(MAP, "maps", "%F", &[waiting], true).unwrap(), "XXXXX..... 5/10\n");
        let idle = MapStatus { failback: "deferred:10".to_owned(), ..map(Vec::new()) };
        assert_eq!(lines(MAP, "maps", "%F", &[idle], true).unwrap(), "deferred:10\n");
    }
}
