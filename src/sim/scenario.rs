//! Scenario files: an outage, written down (time, path, fault).
//!
//! The same file is replayed against the array in real time, under a guest
//! (`ctl scenario`, `scripts/scenario`), and in the deterministic simulation
//! (`scripts/simulate --scenario`). This reads it; carrying it out is theirs.
//!
//! One thing a line, `#` begins a comment:
//!
//! ```text
//! # A controller fails over, and takes its time.
//! path sim0 tpg=1
//! path sim1 tpg=2,access=standby
//! set path_grouping_policy=group_by_tpg
//! length 60
//!
//! 10    sim0    alua unavailable 5000
//! 12.5  tpg 2   alua active-optimized 30000
//! 50    all     plug
//! ```
//!
//! `path` lines name the paths and what belongs to them in a `sim:` path's
//! words; `set` lines are keywords of the map's policy; `length` is how long
//! the guest's load goes on, in seconds. The rest are faults, in the words of
//! `ctl sim`, at a time in seconds; what concerns the LU or a target port group
//! is told to one path of it.

use std::time::Duration;

use super::Fault;

/// One path of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlan {
    /// Its name.
    pub name: String,
    /// What belongs to it, as in `sim:FILE,…`: `tpg=2,access=standby`.
    pub options: Vec<(String, String)>,
}

impl PathPlan {
    /// Its target port group; 1 unless it says so.
    pub fn group(&self) -> u16 {
        self.option("tpg").and_then(|tpg| tpg.parse().ok()).unwrap_or(1)
    }

    /// One of its options.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A fault at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the beginning of the load.
    pub at: Duration,
    /// The paths it is told to, by index into [`Scenario::paths`].
    pub paths: Vec<usize>,
    /// What happens.
    pub fault: Fault,
    /// The same in words.
    pub words: String,
}

/// An outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The first comment: what it is.
    pub title: String,
    /// The map's paths.
    pub paths: Vec<PathPlan>,
    /// Keywords of its policy.
    pub settings: Vec<(String, String)>,
    /// How long the load goes on.
    pub length: Duration,
    /// In order of time.
    pub steps: Vec<Step>,
}

/// What is wrong with a scenario file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ScenarioError {
    /// Counted from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The first line that cannot be understood.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let title = text.lines().find_map(|line| line.strip_prefix('#')).unwrap_or_default();
        let mut scenario = Scenario {
            title: title.trim().to_owned(),
            paths: Vec::new(),
            settings: Vec::new(),
            length: Duration::ZERO,
            steps: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                scenario.take(line).map_err(|what| ScenarioError { line: number, what })?;
            }
        }
        scenario.finish()
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "path" => self.take_path(rest),
            "set" => {
                let (keyword, value) = key_value(rest)?;
                self.settings.push((keyword, value));
                Ok(())
            }
            "length" => {
                self.length = seconds(rest)?;
                Ok(())
            }
            _ => self.take_step(seconds(word)?, rest),
        }
    }

    fn take_path(&mut self, line: &str) -> Result<(), String> {
        let (name, options) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if name.is_empty() || name == "all" || name == "tpg" {
            return Err(format!("'{name}' cannot be the name of a path"));
        }
        if self.paths.iter().any(|path| path.name == name) {
            return Err(format!("path {name} is there already"));
        }
        let options = options.split(',').map(str::trim).filter(|option| !option.is_empty());
        let options = options.map(key_value).collect::<Result<_, _>>()?;
        self.paths.push(PathPlan { name: name.to_owned(), options });
        Ok(())
    }

    fn take_step(&mut self, at: Duration, line: &str) -> Result<(), String> {
        let (target, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (paths, words) = match target {
            "all" => ((0..self.paths.len()).collect(), rest),
            "tpg" => {
                let rest = rest.trim_start();
                let (number, words) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let group = number.parse::<u16>().map_err(|_| format!("'{number}': a number"))?;
                // What happens to a group is told to one of its paths.
                let first = self.paths.iter().position(|path| path.group() == group);
                (first.into_iter().collect(), words)
            }
            name => (self.paths.iter().position(|p| p.name == name).into_iter().collect(), rest),
        };
        let paths: Vec<usize> = paths;
        if paths.is_empty() {
            return Err(format!("'{target}' is no path; `path {target}` comes first"));
        }
        let words = words.trim().to_owned();
        let fault = Fault::from_words(&words)?;
        self.steps.push(Step { at, paths, fault, words });
        Ok(())
    }

    fn finish(mut self) -> Result<Scenario, ScenarioError> {
        let wrong = |what: &str| Err(ScenarioError { line: 1, what: what.to_owned() });
        if self.paths.is_empty() {
            return wrong("a scenario has at least one path: path sim0");
        }
        // Those of one time stay in the order of the file.
        self.steps.sort_by_key(|step| step.at);
        let last = self.steps.last().map_or(Duration::ZERO, |step| step.at);
        if self.length <= last {
            return wrong("length: the load must go on after the last fault");
        }
        Ok(self)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}': NAME=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("'{text}': path, set, length, or a time in seconds"))
}

#[cfg(test)]
mod tests;
