//! The words of a map's settings: one table.
//!
//! A row is a keyword of multipath.conf, or ours in the same style, with what
//! it takes, how it is read and printed, what it means, and where it differs
//! from multipath-tools. Command line, run-time changes, display and manual all
//! go by this table; the default of a keyword is what [`Policy::default`]
//! prints. Text only: what a setting does is the engine's.

use std::fmt;
use std::str::FromStr;

use super::Policy;

mod values;

#[cfg(test)]
mod tests;

/// One keyword.
pub struct Keyword {
    /// multipath.conf's spelling, or ours.
    pub name: &'static str,
    /// Other spellings that are understood.
    pub aliases: &'static [&'static str],
    /// What it takes, for people: words, `N`, `SECONDS`.
    pub takes: &'static str,
    /// What it means, in one or two sentences.
    pub help: &'static str,
    /// Where it differs from multipath-tools.
    pub differs: Option<&'static str>,
    read: fn(&str, &mut Policy) -> Result<(), String>,
    print: fn(&Policy) -> String,
}

impl Keyword {
    /// The keyword of that name.
    ///
    /// # Errors
    /// [`KeywordError::Unknown`].
    pub fn named(name: &str) -> Result<&'static Keyword, KeywordError> {
        let is_it = |keyword: &&Keyword| keyword.name == name || keyword.aliases.contains(&name);
        let found = KEYWORDS.iter().find(is_it);
        found.ok_or_else(|| KeywordError::Unknown(name.to_owned()))
    }

    /// Its value in a policy, as it is given.
    pub fn value(&self, policy: &Policy) -> String {
        (self.print)(policy)
    }

    /// Its value unless told otherwise.
    pub fn default(&self) -> String {
        self.value(&Policy::default())
    }

    /// The same for people: an empty value can be seen.
    pub fn default_in_words(&self) -> String {
        let default = self.default();
        if default.is_empty() { "''".to_owned() } else { default }
    }

    /// Sets it.
    ///
    /// # Errors
    /// [`KeywordError::Value`]; the policy is what it was.
    pub fn set(&self, value: &str, policy: &mut Policy) -> Result<(), KeywordError> {
        let mut changed = policy.clone();
        (self.read)(value, &mut changed).map_err(|why| KeywordError::Value {
            keyword: self.name,
            value: value.to_owned(),
            why,
        })?;
        *policy = changed;
        Ok(())
    }

    /// Its place in the table: settings given together are applied in this
    /// order, because some words go by others (`prio_args` by `prio`).
    fn rank(&self) -> usize {
        KEYWORDS.iter().position(|keyword| keyword.name == self.name).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyword").field(&self.name).finish()
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeywordError {
    /// No `=`.
    #[error("`{0}` is not of the form KEYWORD=VALUE, such as failback=immediate")]
    NotASetting(String),
    /// Not in the table.
    #[error("there is no keyword `{0}`; there are {names}", names = names())]
    Unknown(String),
    /// A value it does not take.
    #[error("{keyword}: '{value}' {why}")]
    Value {
        /// The keyword.
        keyword: &'static str,
        /// As given.
        value: String,
        /// What it takes, as the rest of the sentence.
        why: String,
    },
}

fn names() -> String {
    let names: Vec<&str> = KEYWORDS.iter().map(|keyword| keyword.name).collect();
    names.join(", ")
}

/// `KEYWORD=VALUE`, checked.
#[derive(Clone, Debug)]
pub struct Setting {
    keyword: &'static Keyword,
    value: String,
}

impl Setting {
    /// A value for a keyword.
    ///
    /// # Errors
    /// A keyword that is not in the table; a value that it takes under no
    /// circumstances.
    pub fn new(name: &str, value: &str) -> Result<Setting, KeywordError> {
        let setting = Setting { keyword: Keyword::named(name)?, value: value.trim().to_owned() };
        // The arguments of a prioritizer are understood by that prioritizer.
        if setting.keyword.name != "prio_args" {
            setting.apply(&mut Policy::default())?;
        }
        Ok(setting)
    }

    /// Which keyword.
    pub fn keyword(&self) -> &'static Keyword {
        self.keyword
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Changes `policy` accordingly.
    ///
    /// # Errors
    /// [`KeywordError::Value`] where other settings forbid the value.
    pub fn apply(&self, policy: &mut Policy) -> Result<(), KeywordError> {
        self.keyword.set(&self.value, policy)
    }

    /// `policy` with all of these settings; the last of two for one keyword
    /// counts.
    ///
    /// # Errors
    /// As [`Setting::apply`].
    pub fn apply_all(settings: &[Setting], policy: &Policy) -> Result<Policy, KeywordError> {
        let mut policy = policy.clone();
        let mut sorted: Vec<&Setting> = settings.iter().collect();
        sorted.sort_by_key(|setting| setting.keyword.rank());
        sorted.into_iter().try_for_each(|setting| setting.apply(&mut policy))?;
        Ok(policy)
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Setting) -> bool {
        (self.keyword.name, &self.value) == (other.keyword.name, &other.value)
    }
}

impl Eq for Setting {}

impl FromStr for Setting {
    type Err = KeywordError;

    fn from_str(text: &str) -> Result<Setting, KeywordError> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| KeywordError::NotASetting(text.to_owned()))?;
        Setting::new(name.trim(), value)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.keyword.name, self.value)
    }
}

/// Every keyword. Those that others go by come first.
pub static KEYWORDS: &[Keyword] = &[
    Keyword {
        name: "path_grouping_policy",
        aliases: &[],
        takes: "failover | multibus | group_by_serial | group_by_prio | group_by_node_name | group_by_tpg",
        help: "Which paths work together: one at a time, all, or those of one unit serial number, \
               priority, target node name or target port group.",
        differs: None,
        read: |text, policy| values::put(&mut policy.grouping, values::parsed(text)),
        print: |policy| policy.grouping.name().to_owned(),
    },
    Keyword {
        name: "path_selector",
        aliases: &[],
        takes: "'service-time 0' | 'round-robin 0' | 'queue-length 0' | 'historical-service-time 0' | 'latency 0'",
        help: "Which path of the group in use a request takes.",
        differs: Some("`latency` is ours: it tells reads from writes and small from large."),
        read: |text, policy| values::put(&mut policy.selector, values::parsed(text)),
        print: |policy| format!("{} 0", policy.selector.name()),
    },
    Keyword {
        name: "rr_min_io_rq",
        aliases: &["rr_min_io"],
        takes: "N",
        help: "Commands in a row on a path before 'round-robin 0' moves on.",
        differs: None,
        read: |text, policy| values::put(&mut policy.rr_min_io, values::count(text, 1)),
        print: |policy| policy.rr_min_io.to_string(),
    },
    Keyword {
        name: "rr_weight",
        aliases: &[],
        takes: "uniform | priorities",
        help: "priorities: rr_min_io_rq times the priority of the path.",
        differs: None,
        read: |text, policy| {
            let words = &[("uniform", false), ("priorities", true)];
            values::put(&mut policy.rr_weight_priorities, values::word(text, words))
        },
        print: |policy| {
            if policy.rr_weight_priorities { "priorities" } else { "uniform" }.to_owned()
        },
    },
    Keyword {
        name: "path_checker",
        aliases: &["checker"],
        takes: "detect | tur | directio | readsector0 | rdac | emc_clariion | none",
        help: "How paths are checked. detect: tur for SCSI, directio for the rest.",
        differs: Some(
            "`detect` stands for detect_checker; what the LU itself says (BUSY, TASK SET FULL, a \
             medium error) leaves a path up. cciss_tur and hp_sw are not there.",
        ),
        read: |text, policy| values::put(&mut policy.checker, values::checker(text)),
        print: |policy| policy.checker.map_or("detect", |kind| kind.name()).to_owned(),
    },
    Keyword {
        name: "prio",
        aliases: &[],
        takes: "detect | const | alua | sysfs | weightedpath | path_latency | random | rdac | emc",
        help: "How good a path is; more is better. detect: alua where the target port supports \
               it, else const.",
        differs: Some(
            "`detect` stands for detect_prio, and `none` for const; ana, datacore, hds, hp_sw, \
             iet and ontap are not there.",
        ),
        read: |text, policy| values::prio(text, &policy.prio).map(|prio| policy.prio = prio),
        print: |policy| values::prio_name(&policy.prio).to_owned(),
    },
    Keyword {
        name: "prio_args",
        aliases: &[],
        takes: "'' | exclusive_pref_bit | 'devname|hbtl|serial|wwn REGEX N …' | 'io_num=N base_num=N'",
        help: "Arguments of prio: exclusive_pref_bit for alua and sysfs; pairs of an expression \
               and a priority for weightedpath; io_num (20 to 200) and base_num (1.1 to 10) for \
               path_latency.",
        differs: None,
        read: |text, policy| values::prio_args(text, &policy.prio).map(|prio| policy.prio = prio),
        print: |policy| values::prio_args_text(&policy.prio),
    },
    Keyword {
        name: "hardware_handler",
        aliases: &[],
        takes: "detect | '1 alua' | '1 rdac' | '1 emc' | 0",
        help: "How a path group is made to carry I/O. detect: SET TARGET PORT GROUPS where the \
               array takes it.",
        differs: Some(
            "Not the kernel's scsi_dh: commands go through the path itself. `detect` finds alua \
             only; rdac and emc want their word.",
        ),
        read: |text, policy| values::put(&mut policy.hardware_handler, values::handler(text)),
        print: |policy| values::handler_text(policy.hardware_handler).to_owned(),
    },
    Keyword {
        name: "pg_init_retries",
        aliases: &[],
        takes: "0 to 50",
        help: "How often the activation of a path is tried again before the path fails.",
        differs: Some("A keyword of its own; multipath.conf has it in `features`."),
        read: |text, policy| {
            values::put(&mut policy.pg_init_retries, values::count_within(text, 0, 50))
        },
        print: |policy| policy.pg_init_retries.to_string(),
    },
    Keyword {
        name: "pg_init_delay_msecs",
        aliases: &[],
        takes: "0 to 60000",
        help: "Between two of these, in milliseconds, where the array asks for patience.",
        differs: Some("A keyword of its own; multipath.conf has it in `features`."),
        read: |text, policy| values::put(&mut policy.pg_init_delay, values::milliseconds(text)),
        print: |policy| policy.pg_init_delay.as_millis().to_string(),
    },
    Keyword {
        name: "features",
        aliases: &[],
        takes: "'0' | 'N WORD …' of queue_if_no_path, pg_init_retries N, pg_init_delay_msecs N",
        help: "The words of dm-multipath, for what is copied from a multipath.conf: \
               no_path_retry queue, pg_init_retries and pg_init_delay_msecs.",
        differs: Some(
            "queue_mode and retain_attached_hw_handler mean nothing here and are refused. A word \
             that is not given changes nothing.",
        ),
        read: values::read_features,
        print: values::features,
    },
    Keyword {
        name: "transition_timeout",
        aliases: &[],
        takes: "SECONDS",
        help: "A target port group in transition for longer counts as standby, where the array \
               states no time itself.",
        differs: Some("Ours; the kernel has 60 s built in."),
        read: |text, policy| values::put(&mut policy.transition_timeout, values::seconds(text)),
        print: |policy| values::seconds_text(policy.transition_timeout),
    },
    Keyword {
        name: "failback",
        aliases: &[],
        takes: "manual | immediate | followover | SECONDS",
        help: "When I/O goes back to a better path group: never by itself, at once, when its \
               first path comes back, or so long after its last path came back.",
        differs: None,
        read: |text, policy| values::put(&mut policy.failback, values::failback(text)),
        print: |policy| values::failback_text(policy.failback),
    },
    Keyword {
        name: "no_path_retry",
        aliases: &[],
        takes: "queue | fail | N",
        help: "Requests while no path is left: held until one returns, failed at once, or held \
               for N times polling_interval.",
        differs: Some("The default is queue; multipath-tools' is fail."),
        read: |text, policy| values::put(&mut policy.no_path_retry, values::parsed(text)),
        print: |policy| policy.no_path_retry.to_string(),
    },
    Keyword {
        name: "queue_timeout",
        aliases: &[],
        takes: "no | SECONDS",
        help: "No request is held longer than this, whatever no_path_retry says.",
        differs: Some("Ours; the kernel has queue_if_no_path_timeout_secs for all maps together."),
        read: |text, policy| values::put(&mut policy.queue_timeout, values::optional_seconds(text)),
        print: |policy| policy.queue_timeout.map_or("no".to_owned(), values::seconds_text),
    },
    Keyword {
        name: "flush_on_last_del",
        aliases: &[],
        takes: "unused | always | never",
        help: "What becomes of held requests when the last path's device is taken away: they \
               fail, always or if no guest uses the map, or wait.",
        differs: Some(
            "Without effect so far: paths go by `del path` only, which leaves the last one.",
        ),
        read: |text, policy| values::put(&mut policy.flush_on_last_del, values::flush(text)),
        print: |policy| values::flush_text(policy.flush_on_last_del).to_owned(),
    },
    Keyword {
        name: "reservation_key",
        aliases: &[],
        takes: "file | KEY[:aptpl]",
        help: "At the start, for a logical unit of which the prkeys file says nothing: the key \
               that the guest has registered, if the array has it.",
        differs: Some(
            "A guest registers whichever key it likes, and that is what the file keeps; a running \
             map is told by `setprkey`.",
        ),
        read: |text, policy| values::put(&mut policy.reservation_key, values::parsed(text)),
        print: |policy| policy.reservation_key.to_string(),
    },
    Keyword {
        name: "all_tg_pt",
        aliases: &[],
        takes: "no | yes",
        help: "A guest's registration is sent with ALL_TG_PT: for arrays that have one for each \
               port of the host, whatever port of theirs it came by.",
        differs: Some(
            "Each path is asked all the same whether it is registered, and registered only if not.",
        ),
        read: |text, policy| {
            values::put(&mut policy.all_tg_pt, values::word(text, &[("no", false), ("yes", true)]))
        },
        print: |policy| if policy.all_tg_pt { "yes" } else { "no" }.to_owned(),
    },
    Keyword {
        name: "polling_interval",
        aliases: &[],
        takes: "SECONDS",
        help: "Between two checks of a path that is not good; a good one is checked less and \
               less often, up to max_polling_interval.",
        differs: Some("For each map; takes fractions."),
        read: |text, policy| values::put(&mut policy.polling_interval, values::seconds(text)),
        print: |policy| values::seconds_text(policy.polling_interval),
    },
    Keyword {
        name: "max_polling_interval",
        aliases: &[],
        takes: "SECONDS",
        help: "Longest time between two checks of a good path; four times polling_interval \
               unless it is set.",
        differs: Some("For each map; takes fractions."),
        read: |text, policy| values::put(&mut policy.max_polling, values::seconds(text).map(Some)),
        print: |policy| values::seconds_text(policy.max_polling_interval()),
    },
    Keyword {
        name: "checker_timeout",
        aliases: &[],
        takes: "SECONDS",
        help: "A check, or what a prioritizer or a hardware handler asks, that has not answered \
               by then counts as not answered.",
        differs: Some("30 s unless it is set; multipath-tools go by the device's own timeout."),
        read: |text, policy| values::put(&mut policy.checker_timeout, values::seconds(text)),
        print: |policy| values::seconds_text(policy.checker_timeout),
    },
    Keyword {
        name: "no_path_interval",
        aliases: &[],
        takes: "SECONDS",
        help: "Between two checks of each path that is out of use while no path carries I/O, and \
               between two readings of a group that does not.",
        differs: Some("Ours; multipath-tools keep to polling_interval."),
        read: |text, policy| values::put(&mut policy.no_path_interval, values::seconds(text)),
        print: |policy| values::seconds_text(policy.no_path_interval),
    },
    Keyword {
        name: "san_path_err_threshold",
        aliases: &[],
        takes: "no | N",
        help: "A path that has failed more often is held back when it comes up.",
        differs: Some(values::SAN_DIFFERS),
        read: |text, policy| values::san(text, policy, |san, n| san.threshold = n),
        print: |policy| values::optional(policy.san_path_err.map(|san| san.threshold)),
    },
    Keyword {
        name: "san_path_err_forget_rate",
        aliases: &[],
        takes: "no | N",
        help: "Good checks that make up for one failure.",
        differs: Some(values::AS_THE_FIRST),
        read: |text, policy| values::san(text, policy, |san, n| san.forget_rate = n),
        print: |policy| values::optional(policy.san_path_err.map(|san| san.forget_rate)),
    },
    Keyword {
        name: "san_path_err_recovery_time",
        aliases: &[],
        takes: "no | SECONDS",
        help: "How long it is held back, unless no other path is usable.",
        differs: Some(values::AS_THE_FIRST),
        read: |text, policy| {
            values::san(text, policy, |san, n| san.recovery_time = values::whole(n))
        },
        print: |policy| {
            values::optional(policy.san_path_err.map(|san| san.recovery_time.as_secs()))
        },
    },
    Keyword {
        name: "marginal_path_double_failed_time",
        aliases: &[],
        takes: "no | SECONDS",
        help: "A path that fails twice within this time is sampled before it is used again.",
        differs: Some(values::MARGINAL_DIFFERS),
        read: |text, policy| {
            values::marginal(text, policy, 1, |m, n| m.double_failed_time = values::whole(n))
        },
        print: |policy| {
            values::optional(policy.marginal_path.map(|m| m.double_failed_time.as_secs()))
        },
    },
    Keyword {
        name: "marginal_path_err_sample_time",
        aliases: &[],
        takes: "no | SECONDS",
        help: "It is read ten times a second for so long.",
        differs: Some(
            "From 1 s, multipath-tools want 120 at least; else as the first of the family.",
        ),
        read: |text, policy| {
            values::marginal(text, policy, 1, |m, n| m.sample_time = values::whole(n))
        },
        print: |policy| values::optional(policy.marginal_path.map(|m| m.sample_time.as_secs())),
    },
    Keyword {
        name: "marginal_path_err_rate_threshold",
        aliases: &[],
        takes: "no | N",
        help: "More failures than this, in thousandths of these reads, and it is held back.",
        differs: Some(values::AS_THE_FIRST),
        read: |text, policy| values::marginal(text, policy, 0, |m, n| m.rate_threshold = n),
        print: |policy| values::optional(policy.marginal_path.map(|m| m.rate_threshold)),
    },
    Keyword {
        name: "marginal_path_err_recheck_gap_time",
        aliases: &[],
        takes: "no | SECONDS",
        help: "For so long, before it is sampled again.",
        differs: Some(values::AS_THE_FIRST),
        read: |text, policy| {
            values::marginal(text, policy, 1, |m, n| m.recheck_gap = values::whole(n))
        },
        print: |policy| values::optional(policy.marginal_path.map(|m| m.recheck_gap.as_secs())),
    },
    Keyword {
        name: "marginal_pathgroups",
        aliases: &[],
        takes: "off | on",
        help: "Unreliable paths form path groups of their own and are used last, instead of \
               being held back.",
        differs: Some("fpin is not there: fabric notifications are not listened to."),
        read: |text, policy| {
            let words = &[("off", false), ("on", true), ("no", false), ("yes", true)];
            values::put(&mut policy.marginal_pathgroups, values::word(text, words))
        },
        print: |policy| if policy.marginal_pathgroups { "on" } else { "off" }.to_owned(),
    },
];
