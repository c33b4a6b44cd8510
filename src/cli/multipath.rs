//! The options that steer the engine, in multipath.conf's words: a few by
//! name, every one by `--set`.

use std::fmt::Write as _;

use clap::Args;

use crate::mpath::policy::Policy;
use crate::mpath::policy::keywords::{KEYWORDS, KeywordError, Setting};

/// How paths are grouped, chosen, checked and waited for.
#[derive(Debug, Args)]
pub(super) struct MultipathOptions {
    /// Which paths work together: failover (one at a time), multibus (all), group_by_prio,
    /// group_by_tpg, group_by_serial, group_by_node_name.
    #[arg(long, value_name = "POLICY", help_heading = "Multipath", default_value = "failover")]
    #[arg(value_parser = |text: &str| setting("path_grouping_policy", text))]
    path_grouping_policy: Setting,

    /// Which path of a group a request takes: 'service-time 0', 'round-robin 0',
    /// 'queue-length 0', 'historical-service-time 0' or 'latency 0'.
    #[arg(long, value_name = "SELECTOR", help_heading = "Multipath")]
    #[arg(default_value = "service-time 0")]
    #[arg(value_parser = |text: &str| setting("path_selector", text))]
    path_selector: Setting,

    /// Requests while no path is left: fail, queue, or hold for N checks.
    ///
    /// fail: they fail at once. queue: they are held until a path returns. N: they are held for
    /// N times the polling interval.
    /// The default is queue, not multipath-tools' fail: a guest that is held for the length of an
    /// outage goes on afterwards, a guest that got an I/O error has a read-only file system, and
    /// vhost-user has no werror=stop to save it. What is held is bounded by the rings and delays
    /// neither a reboot of the guest nor SIGTERM.
    #[arg(long, value_name = "POLICY", help_heading = "Multipath", default_value = "queue")]
    #[arg(value_parser = |text: &str| setting("no_path_retry", text))]
    no_path_retry: Setting,

    /// Time between two checks of a failed path, in seconds; a good one is checked less and less
    /// often, up to four times as long. While no path is left it is one second at most.
    #[arg(long, value_name = "SECONDS", help_heading = "Multipath", default_value = "5")]
    #[arg(value_parser = |text: &str| setting("polling_interval", text))]
    polling_interval: Setting,

    /// A check that has not answered after this long says that the path is down, in seconds.
    #[arg(long, value_name = "SECONDS", help_heading = "Multipath", default_value = "30")]
    #[arg(value_parser = |text: &str| setting("checker_timeout", text))]
    checker_timeout: Setting,

    /// A setting by its keyword in multipath.conf, such as failback=immediate; repeatable, wins
    /// over the option of that name. `--help` lists them.
    #[arg(long, value_name = "KEYWORD=VALUE", help_heading = "Multipath")]
    #[arg(value_parser = parse_setting, long_help = keywords_help())]
    set: Vec<Setting>,
}

impl MultipathOptions {
    /// What they come to.
    pub(super) fn policy(&self) -> Result<Policy, KeywordError> {
        let named = [
            &self.path_grouping_policy,
            &self.path_selector,
            &self.no_path_retry,
            &self.polling_interval,
            &self.checker_timeout,
        ];
        let named: Vec<Setting> = named.into_iter().cloned().collect();
        Setting::apply_all(&self.set, &Setting::apply_all(&named, &Policy::default())?)
    }
}

/// A value of an option that is a keyword of its own.
fn setting(keyword: &str, value: &str) -> Result<Setting, String> {
    Setting::new(keyword, value).map_err(|error| match error {
        KeywordError::Value { why, .. } => format!("it {why}"),
        other => other.to_string(),
    })
}

fn parse_setting(text: &str) -> Result<Setting, String> {
    text.parse().map_err(|error: KeywordError| error.to_string())
}

/// Every keyword with its default, from the table that decides.
fn keywords_help() -> String {
    let mut text = "A setting by its keyword, spelled as in multipath.conf; repeatable, wins over \
                    the option of that name. A time in SECONDS may have a fraction, but for \
                    san_path_err_* and marginal_path_*.\n"
        .to_owned();
    for keyword in KEYWORDS {
        let (default, help) = (keyword.default_in_words(), keyword.help);
        let _ =
            write!(text, "\n{}: {} [default: {default}]\n  {help}", keyword.name, keyword.takes);
        if let Some(differs) = keyword.differs {
            let _ = write!(text, " Not as in multipath-tools: {differs}");
        }
    }
    text
}
