//! `show`: what a daemon says of itself, as trees, tables and lines.

use std::io::{self, IsTerminal};

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::connection::{Connection, CtlError};
use super::{print, print_json};
use crate::control::status::{
    DaemonStatus, DeviceStatus, LunStatus, MapStatus, Maps, PathStatus, ReservationStatus,
};
use crate::control::topology::{self, Colour};
use crate::control::wildcards::{self, FormatError};

#[derive(Debug, Subcommand)]
pub(super) enum Show {
    /// The tree of `multipath -ll`.
    Topology,
    /// A line per path.
    #[command(subcommand_negates_reqs = true)]
    Paths {
        #[command(subcommand)]
        layout: Option<Layout>,
    },
    /// A line per map.
    #[command(visible_alias = "multipaths")]
    Maps {
        #[command(subcommand)]
        layout: Option<MapLayout>,
    },
    /// One map.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
        #[command(subcommand)]
        layout: Option<MapLayout>,
    },
    /// A line per path group.
    Groups {
        #[command(subcommand)]
        layout: Layout,
    },
    /// A line per LUN of a SCSI device.
    Luns,
    /// A line per LUN of a SCSI device: which key its guest has registered, what it holds.
    Reservations,
    /// A line per SCSI disk of the host: its nodes, its WWID, and why it is no path.
    Devices,
    /// The settings of each map.
    Config,
    /// What may be set, with defaults; needs no daemon.
    Keywords,
    /// What a format may contain; needs no daemon.
    Wildcards,
    /// Counts, and what the daemon does.
    Status,
}

/// Fields that the administrator chooses.
#[derive(Debug, Subcommand)]
pub(super) enum Layout {
    /// In columns below headers.
    Format {
        /// Text and wildcards, such as '%d %t %T'; `show wildcards` lists them.
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        format: Vec<String>,
    },
    /// Without headers and columns, for programs.
    #[command(subcommand)]
    Raw(RawLayout),
}

#[derive(Debug, Subcommand)]
pub(super) enum RawLayout {
    /// Lines of this format.
    Format {
        /// Text and wildcards.
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        format: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum MapLayout {
    /// Failback, queueing, usable paths.
    Status,
    /// What has been counted.
    Stats,
    /// The tree of `multipath -ll`.
    Topology,
    /// JSON.
    Json,
    #[command(flatten)]
    Layout(Layout),
}

/// multipathd's formats for `show maps status` and `show maps stats`.
const STATUS: &str = "%n %F %Q %N %t %r";
const STATS: &str = "%n %0 %1 %2 %3 %4";

impl Layout {
    fn format(&self) -> (String, bool) {
        match self {
            Layout::Format { format } => (format.join(" "), false),
            Layout::Raw(RawLayout::Format { format }) => (format.join(" "), true),
        }
    }
}

impl From<FormatError> for CtlError {
    fn from(error: FormatError) -> CtlError {
        CtlError::Format(error)
    }
}

/// What is shown without a daemon; `None`: one is needed.
pub(super) fn offline(what: &Show) -> Option<String> {
    match what {
        Show::Wildcards => Some(wildcards::all()),
        Show::Keywords => Some(topology::keywords()),
        _ => None,
    }
}

pub(super) fn show(daemon: &mut Connection, what: &Show, json: bool) -> Result<(), CtlError> {
    let command = match what {
        Show::Paths { .. } => "query-paths",
        Show::Luns => "query-luns",
        Show::Reservations => "query-reservations",
        Show::Devices => "query-devices",
        Show::Status => "query-status",
        _ => "query-maps",
    };
    let mut answer = daemon.ask(command, &json!({}))?;
    if let Show::Map { map, .. } = what {
        only(&mut answer, map)?;
    }
    let json = json
        || matches!(
            what,
            Show::Maps { layout: Some(MapLayout::Json) }
                | Show::Map { layout: Some(MapLayout::Json), .. }
        );
    if json {
        return print_json(&answer);
    }
    let colour = if io::stdout().is_terminal() { Colour::Ansi } else { Colour::Never };
    let text = match what {
        Show::Paths { layout } => {
            let all = understood::<Vec<PathStatus>>(daemon, answer)?;
            match layout.as_ref().map(Layout::format) {
                None => topology::paths(&all, colour),
                Some((format, raw)) => {
                    wildcards::lines(wildcards::PATH, "paths", &format, &all, raw)?
                }
            }
        }
        Show::Luns => topology::luns(&understood::<Vec<LunStatus>>(daemon, answer)?, colour),
        Show::Reservations => {
            let all = understood::<Vec<ReservationStatus>>(daemon, answer)?;
            topology::reservations(&all, colour)
        }
        Show::Devices => {
            topology::devices(&understood::<Vec<DeviceStatus>>(daemon, answer)?, colour)
        }
        Show::Status => topology::status(&understood::<DaemonStatus>(daemon, answer)?),
        Show::Maps { layout } => {
            let all = understood::<Maps>(daemon, answer)?.maps;
            match layout {
                None => topology::maps(&all, colour),
                Some(layout) => in_layout(&all, layout, colour)?,
            }
        }
        Show::Map { layout, .. } => {
            let all = understood::<Maps>(daemon, answer)?.maps;
            in_layout(&all, layout.as_ref().unwrap_or(&MapLayout::Topology), colour)?
        }
        Show::Groups { layout } => {
            let all = understood::<Maps>(daemon, answer)?.maps;
            let groups: Vec<_> = all.into_iter().flat_map(|map| map.path_groups).collect();
            let (format, raw) = layout.format();
            wildcards::lines(wildcards::GROUP, "path groups", &format, &groups, raw)?
        }
        Show::Config => topology::config(&understood::<Maps>(daemon, answer)?.maps),
        Show::Topology | Show::Keywords | Show::Wildcards => {
            trees(&understood::<Maps>(daemon, answer)?.maps, colour)
        }
    };
    print(&text)
}

/// Leaves the map of that name, WWID or address.
fn only(answer: &mut Value, name: &str) -> Result<(), CtlError> {
    let is_it = |map: &Value| ["name", "uuid", "lun"].iter().any(|key| map[*key] == name);
    if let Some(maps) = answer["maps"].as_array_mut() {
        maps.retain(is_it);
        if maps.is_empty() {
            let text = format!("there is no map {name}; `show maps` lists them");
            return Err(CtlError::Refused(text));
        }
    }
    Ok(())
}

fn in_layout(maps: &[MapStatus], layout: &MapLayout, colour: Colour) -> Result<String, CtlError> {
    let (format, raw) = match layout {
        MapLayout::Topology | MapLayout::Json => return Ok(trees(maps, colour)),
        MapLayout::Status => (STATUS.to_owned(), false),
        MapLayout::Stats => (STATS.to_owned(), false),
        MapLayout::Layout(layout) => layout.format(),
    };
    Ok(wildcards::lines(wildcards::MAP, "maps", &format, maps, raw)?)
}

fn trees(maps: &[MapStatus], colour: Colour) -> String {
    maps.iter().map(|map| topology::tree(map, colour)).collect()
}

fn understood<T: DeserializeOwned>(daemon: &Connection, answer: Value) -> Result<T, CtlError> {
    serde_json::from_value(answer).map_err(|error| daemon.foreign(&error.to_string()))
}

/// One line per event, until the daemon ends.
pub(super) fn follow(daemon: &mut Connection, json: bool) -> Result<(), CtlError> {
    while let Some(event) = daemon.next_event()? {
        if json {
            print_json(&event)?;
        } else {
            print(&format!("{}\n", event_line(&event)))?;
        }
    }
    Ok(())
}

fn event_line(event: &Value) -> String {
    let seconds = event["timestamp"]["seconds"].as_u64().unwrap_or(0);
    let micros = event["timestamp"]["microseconds"].as_u64().unwrap_or(0);
    let name = event["event"].as_str().unwrap_or("?");
    let data = event["data"].as_object().cloned().unwrap_or_default();
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let words: Vec<String> = data
        .iter()
        .filter(|(_, value)| !value.is_object() && !value.is_null())
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    format!("{seconds}.{micros:06} {name} {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_plain_words() {
        let event = json!({
            "event": "PATH_FAILED",
            "timestamp": { "seconds": 12, "microseconds": 34 },
            "data": { "path": "sdb", "valid-paths": 1, "cause": { "kind": "io" }, "map": "m" },
        });
        assert_eq!(event_line(&event), "12.000034 PATH_FAILED map=m path=sdb valid-paths=1");
    }
}
