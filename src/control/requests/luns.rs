//! `lun-add`, `lun-remove`, `query-luns`: LUs of a SCSI device that come and
//! go while the guest runs.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Done, Nothing, Reply, Wait, arguments};
use crate::control::daemon::Daemon;
use crate::control::lun::{Address, LuSettings, check_together};
use crate::control::mailbox::Mail;
use crate::control::map::Map;
use crate::control::opening::{Lu, OpenLuError, open_lu};
use crate::control::qmp::{Answer, QmpError};
use crate::control::settings::Expose;
use crate::io::MapSlot;

/// How long `lun-remove` waits for commands on their paths, beyond what the
/// kernel may take for them.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LunAdd {
    /// `T:L`.
    lun: String,
    /// As `--path` takes them.
    #[serde(default)]
    paths: Vec<String>,
    /// As `--wwid` takes it.
    wwid: Option<String>,
    /// As `--map` takes it.
    map: Option<String>,
    discover: Option<bool>,
    alias: Option<String>,
    /// `KEYWORD=VALUE`.
    #[serde(default)]
    set: Vec<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneLun {
    lun: String,
}

fn understood<T: std::str::FromStr>(text: &str) -> Result<T, QmpError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| QmpError::generic(error.to_string()))
}

impl LunAdd {
    fn settings(&self) -> Result<LuSettings, QmpError> {
        let lu = LuSettings {
            address: understood(&self.lun)?,
            paths: self.paths.iter().map(|p| understood(p)).collect::<Result<_, _>>()?,
            wwid: self.wwid.clone(),
            map: self.map.clone(),
            discover: self.discover,
            alias: self.alias.clone(),
            set: self.set.iter().map(|s| understood(s)).collect::<Result<_, _>>()?,
            allow: self.allow.iter().map(|g| understood(g)).collect::<Result<_, _>>()?,
            deny: self.deny.iter().map(|g| understood(g)).collect::<Result<_, _>>()?,
            read_only: self.read_only,
        };
        lu.check().map_err(|error| QmpError::generic(error.to_string()))?;
        Ok(lu)
    }
}

impl Daemon {
    fn exposes_paths(&self) -> Result<bool, QmpError> {
        match self.maps.scsi() {
            Some(scsi) => Ok(scsi.expose == Expose::Paths),
            None => Err(QmpError::generic(
                "a vhost-user-blk disk is one logical unit; LUNs belong to --device scsi",
            )),
        }
    }

    pub(super) fn query_luns(&mut self, given: Value) -> Done {
        arguments::<Nothing>(given)?;
        let luns: Vec<_> = self.maps.in_order().into_iter().filter_map(Map::lun_status).collect();
        Ok(Reply::Now(json!(luns)))
    }

    pub(super) fn lun_add(&mut self, given: Value) -> Done {
        let expose_paths = self.exposes_paths()?;
        let lu = arguments::<LunAdd>(given)?.settings()?;
        let discover = lu.discover.or(Some(self.discover));
        let lu = LuSettings { read_only: lu.read_only || self.read_only, discover, ..lu };
        let in_words = |error: crate::control::lun::LunError| QmpError::generic(error.to_string());
        check_together(std::slice::from_ref(&lu), expose_paths).map_err(in_words)?;
        let addresses = lu.addresses(expose_paths).map_err(in_words)?;
        for address in &addresses {
            self.maps.admits(*address)?;
            if self.opening.iter().any(|opening| opening.addresses.contains(address)) {
                let desc = format!("LUN {address} is being added already; wait for it");
                return Err(QmpError::generic(desc));
            }
        }
        let (options, policy, post) = (self.open, self.policy.clone(), self.mailbox.sender());
        let prkeys = self.prkeys.clone();
        self.open_aside(addresses, move |ticket| {
            let result = open_lu(&lu, &options, &policy, prkeys.as_ref()).map(Box::new);
            post.send(Mail::LunOpened { ticket, result });
        })
    }

    /// The paths of an LU to be added were opened, or not.
    pub(in crate::control) fn lun_opened(
        &mut self,
        ticket: u64,
        result: Result<Box<Lu>, OpenLuError>,
    ) {
        let answer = match result {
            Ok(lu) => self.show_lu(*lu),
            Err(error) => Err(QmpError::generic(error.to_string())),
        };
        self.look_again = true;
        self.tell_changes();
        self.opening_is_over(ticket, answer);
    }

    fn show_lu(&mut self, lu: Lu) -> Answer {
        if self.is_stopping() {
            return Err(QmpError::generic("the daemon is stopping"));
        }
        let (lun, map) = (lu.address.to_string(), lu.name.clone());
        let lus = if self.exposes_paths()? { lu.by_path() } else { vec![lu] };
        let now = self.clock.now();
        for lu in lus {
            self.maps.add(now, lu, true)?;
        }
        // A device may have gone while it was being opened, when no map had it.
        self.lose_paths(now, None);
        Ok(json!({ "lun": lun, "map": map }))
    }

    pub(super) fn lun_remove(&mut self, given: Value) -> Done {
        self.exposes_paths()?;
        let OneLun { lun } = arguments(given)?;
        let slot = self.maps.remove(understood::<Address>(&lun)?)?;
        let patience = self.open.command_timeout + MARGIN;
        Ok(Reply::Later { wait: Wait::LunRemoved(slot), patience })
    }

    /// The answer once nothing of a removed LU is left. (Its slot may have a
    /// new one by then.)
    pub(super) fn is_lun_gone(&self, slot: MapSlot, late: bool) -> Option<Answer> {
        let leaving = self.maps.get(slot).filter(|map| map.is_leaving());
        match leaving {
            None => Some(Ok(json!({ "closed": true }))),
            Some(map) => late.then(|| Ok(json!({ "closed": false, "open": map.open_paths() }))),
        }
    }
}
