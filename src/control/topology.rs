//! Maps and paths as multipath-tools print them.
//!
//! Pure text from [`status`](super::status): the tree of `multipath -ll`
//! (`%n (%w) %d %s`, `size=%S features='%f' hwhandler='%h' wp=%r`, `policy='%s'
//! prio=%p status=%t`, `%i %d %D %t %T %o`; we have no `%d`, a dm device), the
//! tables of multipathd's `show paths` and `show maps`.

use std::fmt::Write as _;

use super::status::{
    DaemonStatus, DeviceStatus, LunStatus, MapStatus, PathStatus, ReservationStatus,
};
use crate::mpath::policy::keywords::KEYWORDS;

/// Whether to mark what needs attention with colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI escapes.
    Ansi,
}

impl Colour {
    fn paint(self, good: bool, text: &str) -> String {
        match self {
            Colour::Never => text.to_owned(),
            Colour::Ansi => format!("\x1b[{}m{text}\x1b[0m", if good { 32 } else { 31 }),
        }
    }

    fn bold(self, text: &str) -> String {
        match self {
            Colour::Never => text.to_owned(),
            Colour::Ansi => format!("\x1b[1m{text}\x1b[0m"),
        }
    }
}

/// The tree of `multipath -ll`, with a newline at its end.
pub fn tree(map: &MapStatus, colour: Colour) -> String {
    let name = colour.bold(&map.name);
    let title = if map.name == map.uuid { name } else { format!("{name} ({})", map.uuid) };
    let mut out = format!("{title} {},{}\n", map.vend, map.prod);
    let lun = map.lun.as_ref().map(|lun| format!(" lun={lun}")).unwrap_or_default();
    let back = map.failback_in.map(|left| format!(" failback in {left:.0} s")).unwrap_or_default();
    let _ = writeln!(
        out,
        "size={} features='{}' hwhandler='{}' wp={}{lun}{back}",
        size(map.size),
        map.features,
        map.hwhandler,
        map.write_prot
    );
    let rows: Vec<[&str; 6]> =
        map.path_groups.iter().flat_map(|g| &g.paths).map(tree_row).collect();
    let widths = widths(&rows);
    for (g, group) in map.path_groups.iter().enumerate() {
        let last_group = g + 1 == map.path_groups.len();
        let _ = writeln!(
            out,
            "{}-+- policy='{}' prio={} status={}{}",
            if last_group { '`' } else { '|' },
            group.selector,
            group.pri,
            group.dm_st,
            if group.marginal_st == "marginal" { " marginal" } else { "" }
        );
        for (p, path) in group.paths.iter().enumerate() {
            let branch = if last_group { ' ' } else { '|' };
            let twig = if p + 1 == group.paths.len() { '`' } else { '|' };
            let row = tree_row(path);
            let place = line(&row[..3], &widths[..3]);
            let state = line(&row[3..], &widths[3..]);
            let state = colour.paint(path.dm_st == "active", state.trim_end());
            let _ = writeln!(out, "{branch} {twig}- {place}{state}{}", remarks(path));
        }
    }
    out
}

/// What `multipath -ll` has no word for, where there is something to remark.
fn remarks(path: &PathStatus) -> String {
    let access = path.access_state.as_deref().filter(|state| *state != "active/optimized");
    let marginal = (path.marginal_st == "marginal").then_some("marginal");
    let administrator = path.failed_by_administrator.then_some("by administrator");
    let unregistered = (path.state == "unregistered").then_some("not registered");
    let reserved = (path.state == "reserved").then_some("another path holds the reservation");
    let words = [access, marginal, administrator, unregistered, reserved];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn tree_row(path: &PathStatus) -> [&str; 6] {
    let PathStatus { hcil, dev, dev_t, dm_st, chk_st, dev_st, .. } = path;
    [hcil, dev, dev_t, dm_st, chk_st, dev_st]
}

/// multipathd's `show paths`; where there are several maps, with the map.
pub fn paths(paths: &[PathStatus], colour: Colour) -> String {
    let several = paths.windows(2).any(|pair| pair[0].multipath != pair[1].multipath);
    let header = [
        "hcil",
        "dev",
        "dev_t",
        "pri",
        "dm_st",
        "chk_st",
        "dev_st",
        "next_check",
        if several { "multipath" } else { "" },
    ];
    let cells: Vec<[String; 9]> = paths.iter().map(|path| path_row(path, several)).collect();
    let mut rows = vec![header];
    rows.extend(cells.iter().map(|row| row.each_ref().map(String::as_str)));
    table(
        &rows,
        |row| match row {
            0 => None,
            n => Some(paths[n - 1].dm_st == "active"),
        },
        colour,
    )
}

fn path_row(path: &PathStatus, several: bool) -> [String; 9] {
    [
        path.hcil.clone(),
        path.dev.clone(),
        path.dev_t.clone(),
        path.pri.to_string(),
        path.dm_st.clone(),
        path.chk_st.clone(),
        path.dev_st.clone(),
        next_check(path),
        if several { path.multipath.clone() } else { String::new() },
    ]
}

/// SCSI disks of the host, with the map of each that is a path.
pub fn devices(devices: &[DeviceStatus], colour: Colour) -> String {
    let header = ["hcil", "dev", "dev_t", "sg", "bsg", "uuid", "multipath", "no path because"];
    let cells: Vec<[String; 8]> = devices.iter().map(device_row).collect();
    let mut rows = vec![header];
    rows.extend(cells.iter().map(|row| row.each_ref().map(String::as_str)));
    let good = |row: usize| {
        let device = row.checked_sub(1).map(|n| &devices[n])?;
        let judged = device.multipath.is_some() || device.reason.is_some();
        judged.then(|| device.reason.is_none())
    };
    table(&rows, good, colour)
}

fn device_row(device: &DeviceStatus) -> [String; 8] {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        device.hcil.clone(),
        device.dev.clone(),
        device.dev_t.clone(),
        or_none(&device.sg),
        or_none(&device.bsg),
        if device.uuid.is_empty() { "-".to_owned() } else { device.uuid.clone() },
        or_none(&device.multipath),
        or_none(&device.reason),
    ]
}

/// LUNs of a SCSI device, with the usable of all paths.
pub fn luns(luns: &[LunStatus], colour: Colour) -> String {
    let header = ["lun", "map", "uuid", "size", "paths", "write_prot", "state"];
    let cells: Vec<[String; 7]> = luns.iter().map(lun_row).collect();
    let mut rows = vec![header];
    rows.extend(cells.iter().map(|row| row.each_ref().map(String::as_str)));
    let good = |row: usize| (row > 0).then(|| luns[row - 1].usable > 0);
    table(&rows, good, colour)
}

fn lun_row(lun: &LunStatus) -> [String; 7] {
    [
        lun.lun.clone(),
        lun.map.clone(),
        lun.uuid.clone(),
        size(lun.size),
        format!("{}/{}", lun.usable, lun.paths),
        if lun.read_only { "ro" } else { "rw" }.to_owned(),
        lun.state.clone(),
    ]
}

/// A line per LU of a SCSI device.
pub fn reservations(all: &[ReservationStatus], colour: Colour) -> String {
    let header = ["lun", "map", "key", "registered", "holds", "by", "state"];
    let cells: Vec<[String; 7]> = all.iter().map(reservation_row).collect();
    let mut rows = vec![header];
    rows.extend(cells.iter().map(|row| row.each_ref().map(String::as_str)));
    table(&rows, |_| None, colour)
}

fn reservation_row(one: &ReservationStatus) -> [String; 7] {
    let dash = || "-".to_owned();
    let registered = one.paths.iter().filter(|path| path.registration == "registered").count();
    let key = one.prkey.as_ref();
    let state = match (one.prstatus.as_str(), one.orders, one.saved) {
        _ if one.suspended => "being moved",
        ("unknown", ..) => "being read",
        (_, 1.., _) => "changing",
        (_, _, false) => "not saved",
        _ => "settled",
    };
    [
        one.lun.clone(),
        one.map.clone(),
        key.map_or_else(dash, |key| format!("{key}{}", if one.aptpl { ":aptpl" } else { "" })),
        key.map_or_else(dash, |_| format!("{registered}/{}", one.paths.len())),
        one.kind.clone().unwrap_or_else(dash),
        one.holder.clone().unwrap_or_else(dash),
        state.to_owned(),
    ]
}

/// multipathd's `show maps`, with what a daemon of one map can add.
pub fn maps(maps: &[MapStatus], colour: Colour) -> String {
    let header = ["name", "uuid", "size", "paths", "dm-st", "queueing", "write_prot", "front-end"];
    let cells: Vec<[String; 8]> = maps.iter().map(map_row).collect();
    let mut rows = vec![header];
    rows.extend(cells.iter().map(|row| row.each_ref().map(String::as_str)));
    table(&rows, |_| None, colour)
}

fn map_row(map: &MapStatus) -> [String; 8] {
    [
        map.name.clone(),
        map.uuid.clone(),
        size(map.size),
        map.paths.to_string(),
        map.dm_st.clone(),
        map.queueing.clone(),
        map.write_prot.clone(),
        if map.front_end { "connected" } else { "-" }.to_owned(),
    ]
}

/// multipathd's `show status`, and what the daemon is.
pub fn status(status: &DaemonStatus) -> String {
    let mut out = "path checker states:\n".to_owned();
    for (state, count) in &status.checker_states {
        let _ = writeln!(out, "{state:<20}{count}");
    }
    let connected = if status.front_end { "connected" } else { "not connected" };
    let doing = if status.stopping { "stopping" } else { "running" };
    let _ = write!(
        out,
        "\npaths: {} ({} usable)\n{}: {}\nfront-end: {connected} ({})\nqueue threads: {}\n\
         daemon: {doing}, version {}, pid {}, up {:.0} s\n",
        status.paths,
        status.usable,
        if status.maps.len() == 1 { "map" } else { "maps" },
        if status.maps.is_empty() { "none".to_owned() } else { status.maps.join(", ") },
        status.socket,
        status.queue_threads,
        status.version,
        status.pid,
        status.uptime
    );
    out
}

/// The settings of each map, as a `multipaths` section has them.
pub fn config(maps: &[MapStatus]) -> String {
    let mut out = "multipaths {\n".to_owned();
    for map in maps {
        let _ = writeln!(out, "\tmultipath {{\n\t\twwid \"{}\"", map.uuid);
        if map.name != map.uuid {
            let _ = writeln!(out, "\t\talias \"{}\"", map.name);
        }
        for keyword in KEYWORDS {
            let Some(value) = map.policy.get(keyword.name) else { continue };
            let ours = if *value == keyword.default() { "" } else { "\t# not the default" };
            let _ = writeln!(out, "\t\t{} \"{value}\"{ours}", keyword.name);
        }
        out.push_str("\t}\n");
    }
    out.push_str("}\n");
    out
}

/// Every keyword: what it takes, its default, what it means.
pub fn keywords() -> String {
    let mut out = String::new();
    for keyword in KEYWORDS {
        let (default, help) = (keyword.default_in_words(), keyword.help);
        let _ = writeln!(out, "{} {}\n\tdefault: {default}\n\t{help}", keyword.name, keyword.takes);
        if let Some(differs) = keyword.differs {
            let _ = writeln!(out, "\tnot as in multipath-tools: {differs}");
        }
    }
    out
}

/// Bytes as multipath-tools print sizes: one decimal below ten.
pub fn size(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    let mut unit = 0;
    let mut scale = 1u64 << 10;
    while bytes / scale >= 1024 && unit + 1 < UNITS.len() {
        unit += 1;
        scale <<= 10;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if bytes / scale < 10 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        let whole = (u128::from(bytes) + u128::from(scale) / 2) / u128::from(scale);
        format!("{whole}{}", UNITS[unit])
    }
}

/// multipathd's progress bar: full right after a check, empty before the next.
pub(super) fn next_check(path: &PathStatus) -> String {
    if path.checking {
        return "checking".to_owned();
    }
    progress(path.next_check, path.check_interval)
}

/// A bar of what is left of a time, in seconds.
pub(super) fn progress(left: f64, whole: f64) -> String {
    const LEN: usize = 10;
    let whole = whole.max(1.0);
    let left = left.clamp(0.0, whole);
    let full = (0..LEN).filter(|i| fraction(*i, LEN) < left / whole).count();
    format!("{}{} {left:.0}/{whole:.0}", "X".repeat(full), ".".repeat(LEN - full))
}

fn fraction(part: usize, whole: usize) -> f64 {
    let small = |n: usize| f64::from(u16::try_from(n).unwrap_or(u16::MAX));
    small(part) / small(whole)
}

fn widths<const N: usize>(rows: &[[&str; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Cells padded to their widths, a space behind each.
fn line(row: &[&str], widths: &[usize]) -> String {
    let mut out = String::new();
    for (cell, width) in row.iter().zip(widths) {
        let _ = write!(out, "{cell:<width$} ");
    }
    out
}

fn table<const N: usize>(
    rows: &[[&str; N]],
    good: impl Fn(usize) -> Option<bool>,
    colour: Colour,
) -> String {
    let widths = widths(rows);
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let line = line(row, &widths);
        let line = line.trim_end();
        match good(n) {
            Some(false) => out.push_str(&colour.paint(false, line)),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
pub(in crate::control) mod tests;
