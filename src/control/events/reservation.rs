//! News of reservations: what the guest has registered and holds, and what
//! becomes of it.

use log::Level;
use serde_json::json;

use super::{Notice, outcome_in_words};
use crate::mpath::reservation::News;

/// News of the engine's. What a guest may do over and over is not told without
/// end.
pub(super) fn of_news(news: &News) -> Notice {
    let text = news.to_string();
    match news {
        News::Registered(key) => {
            let data = json!({ "key": key.to_string() });
            Notice::new("RESERVATION_REGISTERED", Level::Info, text, data).some()
        }
        News::Unregistered => {
            Notice::new("RESERVATION_UNREGISTERED", Level::Info, text, json!({})).some()
        }
        News::Preempted(key) => {
            let data = json!({ "key": key.to_string() });
            Notice::new("RESERVATION_PREEMPTED", Level::Warn, text, data).some()
        }
        News::Recalled(key) => {
            let data = json!({ "key": key.map(|key| key.to_string()) });
            Notice::new("RESERVATION_RECALLED", Level::Info, text, data).some()
        }
        News::Forgotten => {
            Notice::new("RESERVATION_FORGOTTEN", Level::Warn, text, json!({})).some()
        }
        News::Reserved(kind) => {
            let data = json!({ "type": kind.name() });
            Notice::new("RESERVATION_HELD", Level::Info, text, data).some()
        }
        News::Released => Notice::new("RESERVATION_RELEASED", Level::Info, text, json!({})).some(),
        News::TakenOver(path) => {
            Notice::new("RESERVATION_MOVED", Level::Warn, text, json!({ "path": path })).some()
        }
        News::Repaired(path) => {
            Notice::new("RESERVATION_REPAIRED", Level::Warn, text, json!({ "path": path })).some()
        }
        News::Barred(path, outcome) => {
            let reason = outcome_in_words(outcome);
            let text = format!(
                "path {path} carries nothing: the guest's reservation key could not be registered \
                 by it: {reason}"
            );
            let data = json!({ "path": path, "reason": reason });
            Notice::new("RESERVATION_PATH_BARRED", Level::Warn, text, data).some()
        }
    }
}

/// What is to be remembered of a guest's reservations could not be written.
pub(in crate::control) fn of_unsaved_key(why: &str) -> Notice {
    let text = format!(
        "the guest's reservation key is not saved: {why}; it is tried again every 5 s, and until \
         it is done a daemon that is started anew registers no path by itself"
    );
    Notice::new("RESERVATION_NOT_SAVED", Level::Error, text, json!({ "reason": why }))
}

/// It could be, in the end.
pub(in crate::control) fn of_saved_key() -> Notice {
    let text = "the guest's reservation key is saved".to_owned();
    Notice::new("RESERVATION_SAVED", Level::Info, text, json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Outcome;
    use crate::scsi::reservation::{Key, Type};

    #[test]
    fn each_news_has_a_name_of_its_own_and_its_facts() {
        let key = Key(0xab);
        let all = [
            (News::Registered(key), "key", json!("0xab")),
            (News::Unregistered, "key", json!(null)),
            (News::Preempted(key), "key", json!("0xab")),
            (News::Recalled(Some(key)), "key", json!("0xab")),
            (News::Forgotten, "key", json!(null)),
            (News::Reserved(Type::WriteExclusive), "type", json!("write exclusive")),
            (News::Released, "type", json!(null)),
            (News::TakenOver("sdb".to_owned()), "path", json!("sdb")),
            (News::Repaired("sdb".to_owned()), "path", json!("sdb")),
            (News::Barred("sdb".to_owned(), Outcome::NoPath), "path", json!("sdb")),
        ];
        let mut names = Vec::new();
        for (news, fact, value) in all {
            let notice = of_news(&news);
            let found = notice.data.get(fact).cloned().unwrap_or(json!(null));
            assert_eq!(found, value, "{news:?}");
            assert!(notice.some, "{news:?}: a guest or another host may do it without end");
            names.push(notice.name);
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
