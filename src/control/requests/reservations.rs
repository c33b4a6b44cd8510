//! `query-reservations`, `map-set-key`, `map-unset-key`, `map-ask-reservations`: what guests have registered and
//! reserved.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Done, REINSTATE, Reply, Wait, arguments};
use crate::control::daemon::Daemon;
use crate::control::map::Map;
use crate::control::prkeys::understand_key;
use crate::control::qmp::QmpError;
use crate::io::MapSlot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Name, WWID or address; without it all.
    map: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetKey {
    /// Name, WWID or address; without it the only map.
    map: Option<String>,
    /// `0xKEY[:aptpl]`.
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneMap {
    /// Name, WWID or address; without it the only map.
    map: Option<String>,
}

fn cannot_reserve(map: &Map) -> QmpError {
    QmpError::generic(format!(
        "map {}: its guest cannot reserve, or does so by paths of its own; reservation keys belong \
         to LUNs of --device scsi",
        map.name
    ))
}

impl Daemon {
    pub(super) fn query_reservations(&mut self, given: Value) -> Done {
        let Query { map } = arguments(given)?;
        if map.is_some() {
            let slot = self.maps.named(map.as_deref())?;
            let map = self.maps.get(slot).ok_or_else(gone)?;
            let status = map.reservation_status().ok_or_else(|| cannot_reserve(map))?;
            return Ok(Reply::Now(json!([status])));
        }
        let maps = self.maps.in_order();
        let all: Vec<_> = maps.into_iter().filter_map(Map::reservation_status).collect();
        Ok(Reply::Now(json!(all)))
    }

    pub(super) fn map_set_key(&mut self, given: Value) -> Done {
        let SetKey { map, key } = arguments(given)?;
        let (key, aptpl) = understand_key(&key).ok_or_else(|| {
            QmpError::generic(format!(
                "`{key}` is no reservation key: write up to sixteen hexadecimal digits, not all \
                 zero, such as 0x123abc, with :aptpl behind them if it was registered so"
            ))
        })?;
        let now = self.clock.now();
        let (slot, map) = self.map_that_reserves(map.as_deref())?;
        map.set_key(now, key, aptpl);
        Ok(Reply::Later { wait: Wait::Recalled(slot), patience: REINSTATE })
    }

    pub(super) fn map_unset_key(&mut self, given: Value) -> Done {
        let OneMap { map } = arguments(given)?;
        let now = self.clock.now();
        let (slot, map) = self.map_that_reserves(map.as_deref())?;
        if !map.forget_key(now) {
            return Err(QmpError::generic(format!(
                "map {}: a command of its guest's about reservations is being carried out; try \
                 again when it has ended (`show reservations`)",
                map.name
            )));
        }
        Ok(Reply::Later { wait: Wait::Recalled(slot), patience: REINSTATE })
    }

    pub(super) fn map_ask_reservations(&mut self, given: Value) -> Done {
        let OneMap { map } = arguments(given)?;
        let now = self.clock.now();
        let (slot, map) = self.map_that_reserves(map.as_deref())?;
        if !map.ask_again(now) {
            return Err(QmpError::generic(format!(
                "map {}: its guest has no key registered that the array could be asked for; \
                 `setprkey map {} key KEY` names one",
                map.name, map.name
            )));
        }
        Ok(Reply::Later { wait: Wait::Recalled(slot), patience: REINSTATE })
    }

    fn map_that_reserves(&mut self, name: Option<&str>) -> Result<(MapSlot, &mut Map), QmpError> {
        let slot = self.maps.named(name)?;
        let map = self.maps.get_mut(slot).ok_or_else(gone)?;
        if map.reservation_status().is_none() {
            return Err(cannot_reserve(map));
        }
        Ok((slot, map))
    }

    /// The answer once the array has said whether it has the key, and that is
    /// remembered.
    pub(super) fn is_recalled(&self, slot: MapSlot, late: bool) -> Option<Answer> {
        let Some(map) = self.maps.get(slot) else { return Some(Err(gone())) };
        let status = map.reservation_status()?;
        let done = status.prstatus != "unknown" && map.is_kept();
        (done || late).then(|| Ok(json!(status)))
    }
}

fn gone() -> QmpError {
    QmpError::generic("the map has gone meanwhile")
}
