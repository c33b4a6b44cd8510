//! LU resets of the guest that go on to the array (`--lu-reset array`).
//!
//! One at a time for a map; whoever asks meanwhile shares the next one. The
//! guest's function is answered when the array has done it, or could not: its
//! own tasks have ended in either case.

use std::io;

use log::Level;
use serde_json::json;

use super::Map;
use crate::control::events::Notice;
use crate::mpath::snapshot::PathId;
use crate::queue::Resetting;
use crate::scsi::sense::SenseCode;

/// Functions of the guest that wait for a reset.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// For the one under way.
    running: Vec<Resetting>,
    /// For the next one.
    waiting: Vec<Resetting>,
}

impl Map {
    /// The guest resets the LU. Says so where that cannot be passed on.
    pub(in crate::control) fn reset_lu(&mut self, function: Resetting) -> Option<Notice> {
        if self.is_leaving() {
            return None;
        }
        self.resets.waiting.push(function);
        self.begin_reset()
    }

    fn begin_reset(&mut self) -> Option<Notice> {
        if !self.resets.running.is_empty() || self.resets.waiting.is_empty() {
            return None;
        }
        let topology = self.engine.topology();
        let mut paths = topology.groups.iter().flat_map(|group| &group.paths);
        let Some(path) = paths.find(|path| path.is_usable()) else {
            self.resets.waiting.clear();
            return Some(failed("no path is usable"));
        };
        if let Some(lun) = &self.lun {
            // The front tells the guest of it.
            lun.attentions.expect(SenseCode::LU_RESET);
        }
        self.resets.running = std::mem::take(&mut self.resets.waiting);
        self.with_checking(path.id, super::Checking::reset_lu);
        None
    }

    /// The LU was reset by a path, or not: what is to be told.
    pub(in crate::control) fn lu_reset(
        &mut self,
        path: PathId,
        result: &io::Result<()>,
    ) -> Vec<Notice> {
        self.resets.running.clear();
        let name = self.path_name(path).unwrap_or("?");
        let notice = match result {
            Ok(()) => {
                let text = format!("the guest reset the LU; done in the array by path {name}");
                Notice::new("LU_RESET", Level::Warn, text, json!({ "path": name, "array": true }))
            }
            Err(error) => {
                if let Some(lun) = &self.lun {
                    lun.attentions.expect_no_more(SenseCode::LU_RESET);
                }
                failed(&format!("path {name}: {error}"))
            }
        };
        [Some(notice), self.begin_reset()].into_iter().flatten().collect()
    }

    /// Nobody waits for a map that goes.
    pub(super) fn drop_resets(&mut self) {
        self.resets = Resets::default();
    }
}

fn failed(why: &str) -> Notice {
    let text = format!(
        "the guest reset the LU: its own commands have ended, but the array could not be told: {why}"
    );
    Notice::new("LU_RESET", Level::Warn, text, json!({ "array": false, "reason": why }))
}
