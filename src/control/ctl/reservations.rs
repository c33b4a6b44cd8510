//! `getprkey`, `setprkey`, `unsetprkey`, `getprstatus`, `getprhold` and so on:
//! multipathd's words for what a guest has registered and reserved.
//!
//! What multipathd keeps as a flag that can be set by hand, whether the guest
//! is registered and holds a reservation, is the array's to say here: to set
//! it is to ask the array again.

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::connection::{Connection, CtlError};
use super::say;
use super::verbs::OneMap;
use crate::control::status::ReservationStatus;

#[derive(Debug, Subcommand)]
pub(super) enum SetKey {
    /// A map by its alias, its WWID, or T:L.
    #[command(visible_alias = "multipath")]
    Map {
        /// Its alias, its WWID, or T:L.
        map: String,
        #[arg(value_parser = PossibleValuesParser::new(["key"]))]
        word: String,
        /// Up to sixteen hexadecimal digits; with `:aptpl` if it was registered so.
        key: String,
    },
}

/// What is asked for of a map's reservations.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Key,
    Status,
    Hold,
}

/// `getprkey`, `getprstatus`, `getprhold`.
pub(super) fn get(
    daemon: &mut Connection,
    json: bool,
    which: &OneMap,
    what: What,
) -> Result<(), CtlError> {
    let OneMap::Map { map } = which;
    let answer = daemon.ask("query-reservations", &json!({ "map": map }))?;
    let all: Vec<ReservationStatus> = serde_json::from_value(answer.clone())
        .map_err(|error| daemon.foreign(&error.to_string()))?;
    match &all[..] {
        [one] => say(json, &answer, word(one, what).as_str()),
        _ => Err(CtlError::Refused(format!("there are {} LUNs; say which one", all.len()))),
    }
}

fn word(one: &ReservationStatus, what: What) -> String {
    match (what, &one.prkey) {
        (What::Key, None) => "none".to_owned(),
        (What::Key, Some(key)) => format!("{key}{}", if one.aptpl { ":aptpl" } else { "" }),
        (What::Status, _) => one.prstatus.clone(),
        (What::Hold, _) => one.prhold.clone(),
    }
}

pub(super) fn set(daemon: &mut Connection, json: bool, what: &SetKey) -> Result<(), CtlError> {
    let SetKey::Map { map, key, .. } = what;
    let answer = daemon.ask("map-set-key", &json!({ "map": map, "key": key }))?;
    say(json, &answer, &came_to(&answer))
}

pub(super) fn unset(daemon: &mut Connection, json: bool, which: &OneMap) -> Result<(), CtlError> {
    let OneMap::Map { map } = which;
    let answer = daemon.ask("map-unset-key", &json!({ "map": map }))?;
    say(json, &answer, "ok: forgotten; what the array has registered stays there")
}

/// `setprstatus` and its like.
pub(super) fn ask_again(
    daemon: &mut Connection,
    json: bool,
    which: &OneMap,
) -> Result<(), CtlError> {
    let OneMap::Map { map } = which;
    let answer = daemon.ask("map-ask-reservations", &json!({ "map": map }))?;
    say(json, &answer, &what_the_array_says(&answer))
}

fn what_the_array_says(answer: &Value) -> String {
    let word = |of: &str| answer[of].as_str().unwrap_or("unknown").to_owned();
    match word("prstatus").as_str() {
        "unknown" => "the array has not answered yet: `show reservations`".to_owned(),
        status => format!("the array says: prstatus {status}, prhold {}", word("prhold")),
    }
}

fn came_to(answer: &Value) -> String {
    match (answer["prstatus"].as_str(), answer["prkey"].as_str()) {
        (Some("unknown"), _) => {
            "ok; the array has not said yet whether it is registered: `show reservations`"
                .to_owned()
        }
        (_, Some(key)) => format!("ok: the array has {key}"),
        (_, None) => "ok, but the array has no such key, and it is forgotten".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_map_has_reserved_is_said_in_multipathds_words() {
        let mut one = ReservationStatus {
            map: "m".to_owned(),
            lun: "0:0".to_owned(),
            uuid: "3a".to_owned(),
            prkey: None,
            aptpl: false,
            all_tg_pt: false,
            prstatus: "unset".to_owned(),
            prhold: "unset".to_owned(),
            kind: None,
            holder: None,
            copies: 0,
            orders: 0,
            suspended: false,
            saved: true,
            paths: Vec::new(),
        };
        assert_eq!(word(&one, What::Key), "none");
        (one.prkey, one.aptpl) = (Some("0xabc".to_owned()), true);
        assert_eq!(word(&one, What::Key), "0xabc:aptpl");
        (one.prstatus, one.prhold) = ("set".to_owned(), "unknown".to_owned());
        assert_eq!(word(&one, What::Status), "set");
        assert_eq!(word(&one, What::Hold), "unknown");
    }

    #[test]
    fn a_flag_that_is_set_by_hand_is_what_the_array_says() {
        let said =
            |status: &str| what_the_array_says(&json!({ "prstatus": status, "prhold": "set" }));
        assert_eq!(said("set"), "the array says: prstatus set, prhold set");
        assert!(said("unset").contains("prstatus unset"), "however it was asked");
        assert!(said("unknown").contains("not answered yet"));
    }

    #[test]
    fn an_administrators_key_is_only_what_the_array_says_it_is() {
        let said =
            |status: &str, key: Option<&str>| came_to(&json!({ "prstatus": status, "prkey": key }));
        assert_eq!(said("set", Some("0x1")), "ok: the array has 0x1");
        assert!(said("unset", None).contains("forgotten"));
        assert!(said("unknown", Some("0x1")).contains("not said yet"));
    }
}
