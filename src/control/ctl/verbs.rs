//! What the verbs change: their words, and what the daemon is asked for them.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::{Connection, CtlError};
use super::{change, say};
use crate::control::topology::size;

#[derive(Debug, Subcommand)]
pub(super) enum OnePath {
    /// A path by its name: sdb, sim0.
    Path {
        /// Name of the path.
        path: String,
    },
}

impl OnePath {
    pub(super) fn name(&self) -> &str {
        match self {
            OnePath::Path { path } => path,
        }
    }
}

/// A path, or all of a map.
#[derive(Debug, Subcommand)]
pub(super) enum PathOrMap {
    /// A path by its name: sdb, sim0.
    Path {
        /// Name of the path.
        path: String,
    },
    /// Every path of a map.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
    },
}

/// A map, or all of them.
#[derive(Debug, Subcommand)]
pub(super) enum Maps {
    /// A map by its alias, its WWID, or T:L.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
    },
    /// Every map.
    #[command(visible_alias = "multipaths")]
    Maps,
}

#[derive(Debug, Subcommand)]
pub(super) enum Switch {
    /// A map by its alias, its WWID, or T:L.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
        #[arg(value_parser = PossibleValuesParser::new(["group"]))]
        group: String,
        /// Number of the path group, as `show topology` counts them from 1.
        number: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum OneMap {
    /// A map by its alias, its WWID, or T:L.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L; needed where there are several.
        map: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Set {
    /// A map by its alias, its WWID, or T:L.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
        /// Which setting; `show keywords` lists them.
        keyword: String,
        /// Its new value.
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        value: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Add {
    /// A path as for the daemon's --path.
    Path {
        /// /dev/sdX, a file, sim:FILE, null:SIZE.
        spec: String,
        /// Which map it joins; needed where there are several.
        #[arg(requires = "map", value_parser = ["to"])]
        to: Option<String>,
        /// Its alias, its WWID, or T:L.
        map: Option<String>,
    },
    /// A LUN; the guest sees it come.
    Lun(AddLun),
}

#[derive(Debug, Args)]
pub(super) struct AddLun {
    /// Target and LUN as the guest sees them, T:L.
    lun: String,
    /// Its paths, as for the daemon's --path.
    #[arg(required_unless_present_any = ["wwid", "of_map"], value_name = "SPEC")]
    specs: Vec<String>,
    /// Find its paths by this WWID.
    #[arg(long, value_name = "WWID")]
    wwid: Option<String>,
    /// Find its paths by the WWID that multipath-tools has for this map.
    #[arg(long = "map", id = "of_map", value_name = "NAME", conflicts_with = "wwid")]
    map: Option<String>,
    /// Whether paths join and leave by themselves: yes or no [default: as the daemon's]
    #[arg(long, value_name = "WHETHER", value_parser = PossibleValuesParser::new(["yes", "no"]))]
    discover: Option<String>,
    /// Name of the map [default: the WWID]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// A keyword that steers its map, as for the daemon's --set.
    #[arg(long, value_name = "KEYWORD=VALUE")]
    set: Vec<String>,
    /// Let the guest send this group of commands.
    #[arg(long, value_name = "GROUP")]
    allow: Vec<String>,
    /// Refuse this group of commands.
    #[arg(long, value_name = "GROUP")]
    deny: Vec<String>,
    /// Refuse writes.
    #[arg(long)]
    read_only: bool,
}

impl AddLun {
    fn arguments(&self) -> Value {
        let AddLun { lun, specs, wwid, map, discover, alias, set, allow, deny, read_only } = self;
        let mut arguments = json!({
            "lun": lun, "paths": specs, "set": set, "allow": allow, "deny": deny,
            "read-only": read_only,
        });
        for (key, text) in [("alias", alias), ("wwid", wwid), ("map", map)] {
            if let Some(text) = text {
                arguments[key] = json!(text);
            }
        }
        if let Some(discover) = discover {
            arguments["discover"] = json!(discover == "yes");
        }
        arguments
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Del {
    /// A path by its name: sdb, sim0.
    Path {
        /// Name of the path.
        path: String,
    },
    /// A LUN; the guest sees it go, and what it still wants of it fails.
    Lun {
        /// Target and LUN, T:L.
        lun: String,
    },
}

pub(super) fn add(daemon: &mut Connection, json: bool, what: &Add) -> Result<(), CtlError> {
    match what {
        Add::Path { spec, map, .. } => {
            let mut arguments = json!({ "spec": spec });
            if let Some(map) = map {
                arguments["map"] = json!(map);
            }
            let added = daemon.ask("path-add", &arguments)?;
            let name = added["path"].as_str().unwrap_or("?");
            say(json, &added, &format!("ok: path {name} added"))
        }
        Add::Lun(lun) => {
            let added = daemon.ask("lun-add", &lun.arguments())?;
            let (address, map) = (added["lun"].as_str(), added["map"].as_str());
            let text = format!("ok: LUN {} is {}", address.unwrap_or("?"), map.unwrap_or("?"));
            say(json, &added, &text)
        }
    }
}

pub(super) fn del(daemon: &mut Connection, json: bool, what: &Del) -> Result<(), CtlError> {
    let (gone, late) = match what {
        Del::Path { path } => (
            daemon.ask("path-remove", &json!({ "path": path }))?,
            "ok; its device is closed as soon as its last command has returned",
        ),
        Del::Lun { lun } => (
            daemon.ask("lun-remove", &json!({ "lun": lun }))?,
            "ok, the guest has it no more; its devices are closed as soon as their last commands \
             have returned",
        ),
    };
    say(json, &gone, if gone["closed"] == false { late } else { "ok" })
}

pub(super) fn reinstate(daemon: &mut Connection, json: bool, path: &str) -> Result<(), CtlError> {
    let answer = daemon.ask("path-reinstate", &json!({ "path": path }))?;
    let text = match (answer["dm_st"].as_str(), answer["last_cause"].as_str()) {
        (Some("active"), _) => "ok".to_owned(),
        (_, Some(cause)) => format!("ok, but it is not in use yet: {cause}"),
        _ => "ok, but it is not in use yet".to_owned(),
    };
    say(json, &answer, &text)
}

/// `disablequeueing`, `restorequeueing`.
pub(super) fn queueing(
    daemon: &mut Connection,
    json: bool,
    which: &Maps,
    on: bool,
) -> Result<(), CtlError> {
    let arguments = match which {
        Maps::Map { map } => json!({ "map": map, "on": on }),
        Maps::Maps => json!({ "on": on }),
    };
    change(daemon, json, "map-queueing", &arguments)
}

pub(super) fn switch(daemon: &mut Connection, json: bool, what: &Switch) -> Result<(), CtlError> {
    let Switch::Map { map, number, .. } = what;
    let answer = daemon.ask("map-switch-group", &json!({ "map": map, "group": number }))?;
    let text = match answer["group"].as_u64() {
        Some(now) if now == u64::from(*number) => "ok".to_owned(),
        _ => "ok; the group is being activated".to_owned(),
    };
    say(json, &answer, &text)
}

pub(super) fn resize(daemon: &mut Connection, json: bool, what: &OneMap) -> Result<(), CtlError> {
    let OneMap::Map { map } = what;
    let arguments = map.as_ref().map_or_else(|| json!({}), |map| json!({ "map": map }));
    let answer = daemon.ask("map-resize", &arguments)?;
    say(json, &answer, &resized(&answer))
}

fn resized(answer: &Value) -> String {
    let (lu, shown) = (answer["size"].as_u64(), answer["guest-size"].as_u64());
    let lu = lu.unwrap_or_default();
    let mut text = format!("ok: the LU has {}", size(lu));
    if let Some(shown) = shown.filter(|shown| *shown != lu) {
        text += &format!(", the guest keeps {}", size(shown));
    }
    if let Some(left) = answer["asking"].as_u64().filter(|left| *left > 0) {
        text += &format!("; {left} paths have not answered yet");
    }
    text
}

pub(super) fn set(daemon: &mut Connection, json: bool, what: &Set) -> Result<(), CtlError> {
    let Set::Map { map, keyword, value } = what;
    let value = value.join(" ");
    let arguments = json!({ "map": map, "keyword": keyword, "value": value });
    change(daemon, json, "map-set", &arguments)
}

pub(super) fn unset_marginal(
    daemon: &mut Connection,
    json: bool,
    what: &PathOrMap,
) -> Result<(), CtlError> {
    let arguments = match what {
        PathOrMap::Path { path } => json!({ "path": path, "marginal": false }),
        PathOrMap::Map { map } => json!({ "map": map, "marginal": false }),
    };
    change(daemon, json, "path-marginal", &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resize_says_what_the_guest_has_of_it() {
        let answer = |size: u64, shown: Option<u64>, asking: u64| {
            resized(&json!({ "size": size, "guest-size": shown, "asking": asking }))
        };
        assert_eq!(answer(2 << 30, Some(2 << 30), 0), "ok: the LU has 2.0G");
        assert_eq!(answer(2 << 30, None, 0), "ok: the LU has 2.0G");
        assert_eq!(
            answer(1 << 30, Some(2 << 30), 1),
            "ok: the LU has 1.0G, the guest keeps 2.0G; 1 paths have not answered yet"
        );
    }
}
