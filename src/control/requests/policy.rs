//! `map-set`, `map-switch-group`, `map-queueing`, `map-resize`,
//! `path-marginal`: what steers maps while they run.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ACKNOWLEDGE, Done, REINSTATE, Reply, Wait, arguments};
use crate::control::daemon::Daemon;
use crate::control::map::Map;
use crate::control::qmp::QmpError;
use crate::io::MapSlot;
use crate::mpath::MapError;
use crate::mpath::policy::keywords::Setting;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetKeyword {
    /// Name, WWID or address; without it the only map.
    map: Option<String>,
    keyword: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneMap {
    map: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchGroup {
    map: Option<String>,
    group: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchQueueing {
    /// Without it every map.
    map: Option<String>,
    on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMarginal {
    path: Option<String>,
    /// In place of a path, to make every path of it reliable again.
    map: Option<String>,
    marginal: bool,
}

fn acknowledged(slot: MapSlot, generation: u64) -> Reply {
    Reply::Later { wait: Wait::Acknowledged(slot, generation), patience: ACKNOWLEDGE }
}

impl Daemon {
    /// The map of that name; without one, the only one.
    fn map_named(&mut self, word: Option<&str>) -> Result<&mut Map, QmpError> {
        let slot = self.maps.named(word)?;
        let map = self.maps.get_mut(slot);
        map.ok_or_else(|| QmpError::generic("the map has gone meanwhile"))
    }

    pub(super) fn map_set(&mut self, given: Value) -> Done {
        let SetKeyword { map, keyword, value } = arguments(given)?;
        let in_words = |error: &dyn std::fmt::Display| QmpError::generic(error.to_string());
        let setting = Setting::new(&keyword, &value).map_err(|error| in_words(&error))?;
        let now = self.clock.now();
        let map = self.map_named(map.as_deref())?;
        let generation = map.set(now, &setting).map_err(|error| in_words(&error))?;
        log::info!("{}: {setting}", map.name);
        Ok(acknowledged(map.slot, generation))
    }

    pub(super) fn map_switch_group(&mut self, given: Value) -> Done {
        let SwitchGroup { map, group } = arguments(given)?;
        let now = self.clock.now();
        let map = self.map_named(map.as_deref())?;
        let generation = map.switch_group(now, group)?;
        let wait = Wait::Switched(map.slot, generation);
        Ok(Reply::Later { wait, patience: ACKNOWLEDGE })
    }

    pub(super) fn map_resize(&mut self, given: Value) -> Done {
        let OneMap { map } = arguments(given)?;
        let now = self.clock.now();
        let map = self.map_named(map.as_deref())?;
        map.read_size(now);
        Ok(Reply::Later { wait: Wait::Sized(map.slot), patience: REINSTATE })
    }

    pub(super) fn map_queueing(&mut self, given: Value) -> Done {
        let SwitchQueueing { map, on } = arguments(given)?;
        let now = self.clock.now();
        if map.is_some() {
            let map = self.map_named(map.as_deref())?;
            let generation = map.switch_queueing(now, on);
            return Ok(acknowledged(map.slot, generation));
        }
        let mut tables = Vec::new();
        for slot in self.maps.slots() {
            let map = self.maps.get_mut(slot).filter(|map| !map.is_leaving());
            tables.extend(map.map(|map| (slot, map.switch_queueing(now, on))));
        }
        if tables.is_empty() {
            return Ok(Reply::Now(json!({})));
        }
        Ok(Reply::Later { wait: Wait::AllAcknowledged(tables), patience: ACKNOWLEDGE })
    }

    pub(super) fn path_marginal(&mut self, given: Value) -> Done {
        let SetMarginal { path, map, marginal } = arguments(given)?;
        let now = self.clock.now();
        match (path, map) {
            (Some(path), None) => {
                let map = self.maps.with_path(&path)?;
                let generation = map.set_marginal(now, &path, marginal)?;
                Ok(acknowledged(map.slot, generation))
            }
            (None, Some(map)) if !marginal => {
                let map = self.map_named(Some(&map))?;
                let generation = map.unset_every_marginal(now).map_err(|e: MapError| e)?;
                Ok(acknowledged(map.slot, generation))
            }
            _ => Err(QmpError::generic(
                "give a path; or a map and marginal=false, for every path of it",
            )),
        }
    }
}
