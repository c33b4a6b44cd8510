//! `vhost-mpath ctl scenario FILE`: an outage that was written down
//! (`sim::scenario`), replayed against a running daemon's simulated array.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::connection::{Connection, CtlError};
use super::print;
use super::sim::arguments_of;
use crate::sim::scenario::Scenario;

/// Reads it, whole, before anything is broken.
pub(super) fn read(file: &Path) -> Result<Scenario, CtlError> {
    let wrong = |why: String| CtlError::Scenario { file: file.to_owned(), why };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Scenario::parse(&text).map_err(|error| wrong(error.to_string()))
}

/// Tells the daemon of each fault at its time; ends when the load may end.
pub(super) fn replay(
    daemon: &mut Connection,
    scenario: &Scenario,
    as_json: bool,
) -> Result<(), CtlError> {
    #[allow(clippy::disallowed_methods)] // the client's own clock
    let began = Instant::now();
    let rest = |at| std::thread::sleep(Duration::saturating_sub(at, began.elapsed()));
    if !as_json {
        print(&format!("{}\n", scenario.title))?;
    }
    for step in &scenario.steps {
        rest(step.at);
        for path in step.paths.iter().map(|&i| &scenario.paths[i].name) {
            let arguments = arguments_of(path, &step.words).map_err(CtlError::Refused)?;
            daemon.ask("sim-fault", &arguments)?;
            let at = step.at.as_secs_f64();
            print(&match as_json {
                true => format!("{}\n", json!({ "at": at, "path": path, "fault": step.words })),
                false => format!("{at:6.1} s  {path}  {}\n", step.words),
            })?;
        }
    }
    rest(scenario.length);
    Ok(())
}
