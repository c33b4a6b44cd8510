//! The `log` implementation: one line per event on standard error.
//!
//! Under systemd the priority goes before the line (sd-daemon(3)) and the
//! journal adds the time; everywhere else the line carries both. Panics become
//! one line and the end of the process: a half-dead daemon is worse than one
//! that starts again and takes its requests over from the in-flight area.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `<N>text`
    Systemd,
    /// `time level: text`
    Stamped,
}

struct Journal {
    style: Style,
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            #[allow(clippy::disallowed_methods)] // log lines carry the time of day
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = line(self.style, now, record.level(), &record.args().to_string());
            // Nobody is left to tell if this fails.
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the process's log lines to standard error from now on.
pub fn init(level: LevelFilter) {
    let terminal = io::stderr().is_terminal();
    let systemd = !terminal && std::env::var_os("JOURNAL_STREAM").is_some();
    let style = if systemd { Style::Systemd } else { Style::Stamped };
    // Twice in one process only in tests; the first one stays.
    if log::set_logger(JOURNAL.get_or_init(|| Journal { style })).is_ok() {
        log::set_max_level(level);
    }
}

/// Says something that helps a person and would only be noise in a log.
pub fn hint(text: &str) {
    if io::stderr().is_terminal() && log::max_level() >= LevelFilter::Info {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Makes a panic one line and the end.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info.location().map_or_else(String::new, |at| format!(" at {at}"));
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let _ = writeln!(
            io::stderr().lock(),
            "vhost-mpath: internal error in thread {name}{place}: {text}; \
             ending at once, please report this"
        );
        std::process::abort();
    }));
}

fn line(style: Style, now: Duration, level: Level, text: &str) -> String {
    // Several lines are several events to whoever reads them.
    let text = text.replace('\n', " ");
    let mut line = String::new();
    match style {
        Style::Systemd => {
            let priority = match level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            let _ = writeln!(line, "<{priority}>{text}");
        }
        Style::Stamped => {
            let level = match level {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            let _ = writeln!(line, "{} {level}: {text}", stamp(now));
        }
    }
    line
}

/// UTC in RFC 3339, to the millisecond.
fn stamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, from days since 1970: years
/// are counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 1 March of the year 0
    let era = days / 146_097; // 400 years
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // 0 is March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_732_147_199, "2024-11-20T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(stamp(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn systemd_gets_priorities_and_everybody_else_the_time() {
        let now = Duration::from_millis(1500);
        assert_eq!(line(Style::Systemd, now, Level::Warn, "a\nb"), "<4>a b\n");
        assert_eq!(
            line(Style::Stamped, now, Level::Error, "x"),
            "1970-01-01T00:00:01.500Z error: x\n"
        );
    }
}
