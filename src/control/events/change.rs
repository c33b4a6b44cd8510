//! News of the engine: changes of paths, path groups and maps, in words that
//! say what was seen, what follows from it and what ends it.

use log::Level;
use serde_json::json;

use super::{Notice, cause_as_data, cause_in_words, reservation};
use crate::io::Blocks;
use crate::mpath::effect::{Cause, Change};
use crate::mpath::event::IoReason;
use crate::mpath::hwhandler::Activation;
use crate::mpath::path::Access;
use crate::scsi::alua::AccessState;

/// News of the engine.
pub(in crate::control) fn of_change(change: &Change) -> Notice {
    match change {
        Change::PathAdded { path } => {
            let text = format!("path {path} added");
            Notice::new("PATH_ADDED", Level::Info, text, json!({ "path": path }))
        }
        Change::PathRemoved { path } => {
            let text = format!("path {path} removed");
            Notice::new("PATH_REMOVED", Level::Info, text, json!({ "path": path }))
        }
        Change::PathDeleted { path, left } => {
            let text = format!("path {path} removed: its device has gone; {left} left");
            let data = json!({ "path": path, "reason": "device deleted", "valid-paths": left });
            Notice::new("PATH_REMOVED", Level::Warn, text, data)
        }
        Change::PathFailed { path, cause, left } => {
            let text = format!("path {path} failed: {}; {left} left", cause_in_words(cause));
            let data = json!({
                "path": path,
                "valid-paths": left,
                "reason": cause_in_words(cause),
                "cause": cause_as_data(cause),
            });
            Notice::new("PATH_FAILED", Level::Warn, text, data)
        }
        Change::PathSuspect { path, cause, left } => suspect(path, cause, *left),
        Change::PathReinstated { path, usable } => {
            let text = format!("path {path} reinstated; {usable} usable");
            let data = json!({ "path": path, "valid-paths": usable });
            Notice::new("PATH_REINSTATED", Level::Info, text, data)
        }
        Change::GroupSwitched { from, to } => {
            let text = match from {
                Some(from) => format!("switched from path group {from} to {to}"),
                None => format!("path group {to} in use"),
            };
            let data = json!({ "from": from, "to": to });
            Notice::new("GROUP_SWITCHED", Level::Info, text, data)
        }
        Change::AccessChanged { path, access } => access_changed(path, access),
        Change::Activating { group } => {
            let text = format!("path group {group} is being activated");
            Notice::new("GROUP_ACTIVATING", Level::Info, text, json!({ "group": group }))
        }
        Change::Activated { group, result } => activated(*group, *result),
        Change::Marginal { path, marginal } => marginal_changed(path, *marginal),
        Change::QueueingSwitched { on } => queueing_switched(*on),
        Change::NoPath { held } => {
            let fate = if *held { "requests are held until one returns" } else { "requests fail" };
            let text = format!("no usable path left; {fate}");
            Notice::new("NO_PATH", Level::Error, text, json!({ "held": held }))
        }
        Change::QueueingEnded => {
            let text = "no path returned in time (no_path_retry); held requests fail now";
            Notice::new("QUEUEING_ENDED", Level::Error, text.to_owned(), json!({}))
        }
        Change::Recovered => {
            let text = "a path is usable again; held requests go on";
            Notice::new("RECOVERED", Level::Warn, text.to_owned(), json!({}))
        }
        Change::Resized { from, to } => {
            let text = format!("the LU has {to} blocks now, it had {from}");
            let level = if to < from { Level::Error } else { Level::Warn };
            Notice::new("MAP_RESIZED", level, text, json!({ "from": from.0, "to": to.0 }))
        }
        Change::LunGone => {
            let text = "every path says that its target has no such LU (05/25/00)";
            Notice::new("LUN_GONE", Level::Error, text.to_owned(), json!({}))
        }
        Change::LunBack => {
            let text = "the LU is there again";
            Notice::new("LUN_BACK", Level::Warn, text.to_owned(), json!({}))
        }
        Change::Reservation(news) => reservation::of_news(news),
    }
}

/// What a new capacity of the LU is to the guest of a vhost-user-blk disk that
/// has `shown` blocks now; whether it `grew` just now.
pub(in crate::control) fn add_guest_size(
    notice: &mut Notice,
    from: Blocks,
    to: Blocks,
    shown: Blocks,
    grew: bool,
) {
    notice.text += &if to < from {
        format!(
            "; the guest keeps its {shown} blocks, and what it sends beyond the LU's end fails: \
             make sure that this was meant"
        )
    } else if grew {
        "; the guest's disk grows".to_owned()
    } else {
        format!("; the guest keeps its {shown} blocks")
    };
    notice.data.insert("guest-blocks".to_owned(), json!(shown.0));
}

fn suspect(path: &str, cause: &Cause, left: usize) -> Notice {
    let reason = cause_in_words(cause);
    // A hung path is trouble; a doubt is mostly over in a moment.
    let (level, text) = match cause {
        Cause::Io(IoReason::Hung { .. }) => (
            Level::Warn,
            format!("path {path} is suspect: {reason}; nothing new goes there until it is checked"),
        ),
        _ => (
            Level::Info,
            format!(
                "path {path} is suspect: {reason}; nothing new goes there until its identity is \
                 proven again"
            ),
        ),
    };
    let data = json!({
        "path": path,
        "valid-paths": left,
        "reason": reason,
        "cause": cause_as_data(cause),
    });
    Notice::new("PATH_SUSPECT", level, format!("{text}; {left} left"), data)
}

fn access_changed(path: &str, access: &Access) -> Notice {
    let state = access.state.map_or("unknown", AccessState::name);
    let preferred = if access.preferred { ", preferred" } else { "" };
    let group = access.group.map_or(String::new(), |g| format!(" (target port group {g})"));
    let follows = match access.state {
        Some(AccessState::Transitioning) => "; nothing new goes there until that is over",
        Some(state) if !state.carries_io() => "; nothing new goes there",
        _ => "",
    };
    let text = format!("path {path}{group} is {state}{preferred} now{follows}");
    let data = json!({
        "path": path,
        "access-state": state,
        "preferred": access.preferred,
        "target-port-group": access.group,
    });
    Notice::new("ACCESS_CHANGED", Level::Info, text, data)
}

fn activated(group: u16, result: Activation) -> Notice {
    let (level, word, follows) = match result {
        Activation::Done => (Level::Info, "activated", ""),
        Activation::Unsupported => (Level::Info, "unsupported", "; nothing can activate it"),
        Activation::Busy => (Level::Warn, "busy", "; other path groups are tried first"),
        Activation::Retry { .. } => (Level::Info, "not activated yet", "; it is tried again"),
        Activation::Transition => (Level::Warn, "in transition for too long", ""),
        Activation::Failed => (Level::Warn, "not activated", ""),
    };
    let text = format!("path group {group}: {word}{follows}");
    Notice::new("GROUP_ACTIVATED", level, text, json!({ "group": group, "result": word }))
}

fn marginal_changed(path: &str, marginal: bool) -> Notice {
    let (level, text) = match marginal {
        true => (
            Level::Warn,
            format!("path {path} is unreliable (marginal): it is used when no other is left"),
        ),
        false => (Level::Info, format!("path {path} is reliable again")),
    };
    Notice::new("PATH_MARGINAL", level, text, json!({ "path": path, "marginal": marginal }))
}

fn queueing_switched(on: bool) -> Notice {
    let text = match on {
        true => "no_path_retry is in force again (restorequeueing)",
        false => {
            "requests fail at once while no path is left (disablequeueing; restorequeueing lifts it)"
        }
    };
    Notice::new("QUEUEING_SWITCHED", Level::Warn, text.to_owned(), json!({ "on": on }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_state_is_told_with_what_follows_from_it() {
        let told = |state, preferred| {
            let access = Access { group: Some(2), state: Some(state), preferred };
            of_change(&Change::AccessChanged { path: "sdb".to_owned(), access }).text
        };
        assert_eq!(
            told(AccessState::ActiveOptimized, true),
            "path sdb (target port group 2) is active/optimized, preferred now"
        );
        assert!(told(AccessState::Standby, false).ends_with("standby now; nothing new goes there"));
        assert!(told(AccessState::Transitioning, false).ends_with("until that is over"));
    }

    #[test]
    fn each_end_of_an_activation_has_its_own_word() {
        let ends = [
            Activation::Done,
            Activation::Unsupported,
            Activation::Busy,
            Activation::Retry { delayed: true },
            Activation::Transition,
            Activation::Failed,
        ];
        let told = |result| of_change(&Change::Activated { group: 2, result }).text;
        let mut words: Vec<String> = ends.into_iter().map(told).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), ends.len());
    }
}
