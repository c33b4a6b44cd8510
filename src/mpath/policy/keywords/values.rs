//! How single values are read and printed. What is wrong with a value is said
//! as the rest of a sentence that begins with the value.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::mpath::checker::CheckerKind;
use crate::mpath::hwhandler::HandlerKind;
use crate::mpath::policy::{
    Failback, FlushOnLastDel, MarginalPath, NoPathRetry, Policy, SanPathErr,
};
use crate::mpath::prio::{PrioKind, weightedpath_problem};

/// `path_latency` unless told otherwise: reads, and the base of its scale in
/// thousandths (the fourth root of ten).
const IO_NUM: u16 = 100;
const BASE_MILLI: u32 = 1778;

pub(super) const SAN_DIFFERS: &str = "One of the three switches them on, the others being 5, 10 and \
    60 s then, and `no` for one switches them off; multipath-tools want all three.";

pub(super) const AS_THE_FIRST: &str = "As the first of the family.";

pub(super) const MARGINAL_DIFFERS: &str = "One of the four switches them on, the others being 60 s, \
    120 s, 10 and 300 s then, and `no` for one switches them off; multipath-tools want all four.";

/// Longest time that can be given: a day.
const DAY: f64 = 86_400.0;

/// Puts a value where it belongs, if it could be read.
pub(super) fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

/// What reads itself. Its errors begin with the value in quotes; here they go
/// on with it.
pub(super) fn parsed<T: FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: String| {
        let rest = error.strip_prefix('\'').and_then(|e| e.split_once("' ")).map(|(_, rest)| rest);
        rest.unwrap_or(&error).to_owned()
    })
}

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("is not a value of it; use one of {}", names.join(", "))
    })
}

/// A number of at least `least`.
pub(super) fn count(text: &str, least: u32) -> Result<u32, String> {
    count_within(text, least, u32::MAX)
}

pub(super) fn count_within(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| match most {
        u32::MAX => format!("is not a number from {least} on"),
        _ => format!("is not a number from {least} to {most}"),
    })
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    count_within(text, 0, 60_000).map(|ms| Duration::from_millis(ms.into()))
}

/// Seconds, with a fraction if need be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number of seconds".to_owned())?;
    if !(0.1..=DAY).contains(&seconds) {
        return Err("is out of range; give seconds from 0.1 to 86400 (a day)".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(super) fn seconds_text(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

pub(super) fn whole(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

pub(super) fn optional_seconds(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "no" => Ok(None),
        _ => seconds(text).map(Some),
    }
}

/// `no` for none.
pub(super) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "no".to_owned(), |value| value.to_string())
}

/// `None` for `no`.
fn optional_count(text: &str, least: u32) -> Result<Option<u32>, String> {
    match text {
        "no" => Ok(None),
        _ => count(text, least).map(Some).map_err(|e| format!("{e}, and not `no`")),
    }
}

pub(super) fn san(
    text: &str,
    policy: &mut Policy,
    set: impl FnOnce(&mut SanPathErr, u32),
) -> Result<(), String> {
    policy.san_path_err = optional_count(text, 1)?.map(|number| {
        let mut san = policy.san_path_err.unwrap_or(SanPathErr::USUAL);
        set(&mut san, number);
        san
    });
    Ok(())
}

pub(super) fn marginal(
    text: &str,
    policy: &mut Policy,
    least: u32,
    set: impl FnOnce(&mut MarginalPath, u32),
) -> Result<(), String> {
    policy.marginal_path = optional_count(text, least)?.map(|number| {
        let mut marginal = policy.marginal_path.unwrap_or(MarginalPath::USUAL);
        set(&mut marginal, number);
        marginal
    });
    Ok(())
}

pub(super) fn checker(text: &str) -> Result<Option<CheckerKind>, String> {
    if text == "detect" {
        return Ok(None);
    }
    let found = CheckerKind::ALL.iter().copied().find(|kind| kind.name() == text);
    found.map(Some).ok_or_else(|| {
        let names: Vec<&str> = CheckerKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("is not a path checker; use detect or one of {}", names.join(", "))
    })
}

const HANDLERS: [(&str, &str, HandlerKind); 5] = [
    ("detect", "detect", HandlerKind::Detect),
    ("0", "none", HandlerKind::None),
    ("1 alua", "alua", HandlerKind::Alua),
    ("1 rdac", "rdac", HandlerKind::Rdac),
    ("1 emc", "emc", HandlerKind::Emc),
];

pub(super) fn handler(text: &str) -> Result<HandlerKind, String> {
    let found = HANDLERS.iter().find(|(dm, short, _)| [*dm, *short].contains(&text));
    found.map(|(_, _, kind)| *kind).ok_or_else(|| {
        "is not a hardware handler; use detect, '1 alua', '1 rdac', '1 emc' or 0".to_owned()
    })
}

pub(super) fn handler_text(kind: HandlerKind) -> &'static str {
    let found = HANDLERS.iter().find(|(_, _, known)| *known == kind);
    found.map_or("0", |(dm, _, _)| dm)
}

pub(super) fn failback(text: &str) -> Result<Failback, String> {
    match text {
        "manual" => Ok(Failback::Manual),
        "immediate" | "0" => Ok(Failback::Immediate),
        "followover" => Ok(Failback::Followover),
        _ => seconds(text).map(Failback::After).map_err(|_| {
            "is not a value of it; use manual, immediate, followover or seconds from 0.1 to 86400"
                .to_owned()
        }),
    }
}

pub(super) fn failback_text(failback: Failback) -> String {
    match failback {
        Failback::Manual => "manual".to_owned(),
        Failback::Immediate => "immediate".to_owned(),
        Failback::After(time) => seconds_text(time),
        Failback::Followover => "followover".to_owned(),
    }
}

pub(super) fn flush(text: &str) -> Result<FlushOnLastDel, String> {
    let words = &[
        ("unused", FlushOnLastDel::Unused),
        ("always", FlushOnLastDel::Always),
        ("never", FlushOnLastDel::Never),
        ("yes", FlushOnLastDel::Always),
        ("no", FlushOnLastDel::Never),
    ];
    word(text, words)
}

pub(super) fn flush_text(flush: FlushOnLastDel) -> &'static str {
    match flush {
        FlushOnLastDel::Always => "always",
        FlushOnLastDel::Unused => "unused",
        FlushOnLastDel::Never => "never",
    }
}

/// The prioritizer of that name; `old` keeps its arguments if it is the same.
pub(super) fn prio(text: &str, old: &PrioKind) -> Result<PrioKind, String> {
    let kind = match text {
        "detect" => PrioKind::Detect,
        "const" | "none" => PrioKind::Const,
        "alua" => PrioKind::Alua { exclusive_pref: false },
        "sysfs" => PrioKind::Sysfs { exclusive_pref: false },
        "weightedpath" => PrioKind::WeightedPath(Arc::from("")),
        "path_latency" => PrioKind::PathLatency { io_num: IO_NUM, base_milli: BASE_MILLI },
        "random" => PrioKind::Random,
        "rdac" => PrioKind::Rdac,
        "emc" => PrioKind::Emc,
        _ => {
            return Err("is not a prioritizer; use one of detect, const, alua, sysfs, \
                        weightedpath, path_latency, random, rdac, emc"
                .to_owned());
        }
    };
    let same = std::mem::discriminant(&kind) == std::mem::discriminant(old);
    Ok(if same { old.clone() } else { kind })
}

pub(super) fn prio_name(kind: &PrioKind) -> &'static str {
    match kind {
        PrioKind::Detect => "detect",
        PrioKind::Const => "const",
        PrioKind::Alua { .. } => "alua",
        PrioKind::Sysfs { .. } => "sysfs",
        PrioKind::WeightedPath(_) => "weightedpath",
        PrioKind::PathLatency { .. } => "path_latency",
        PrioKind::Random => "random",
        PrioKind::Rdac => "rdac",
        PrioKind::Emc => "emc",
    }
}

/// The same prioritizer with these arguments.
pub(super) fn prio_args(text: &str, kind: &PrioKind) -> Result<PrioKind, String> {
    match kind {
        PrioKind::Alua { .. } => Ok(PrioKind::Alua { exclusive_pref: exclusive(text)? }),
        PrioKind::Sysfs { .. } => Ok(PrioKind::Sysfs { exclusive_pref: exclusive(text)? }),
        PrioKind::WeightedPath(_) => weights(text),
        PrioKind::PathLatency { .. } => latency(text),
        PrioKind::Detect | PrioKind::Const | PrioKind::Random | PrioKind::Rdac | PrioKind::Emc
            if text.is_empty() =>
        {
            Ok(kind.clone())
        }
        _ => Err(format!("means nothing to prio {}, which takes no arguments", prio_name(kind))),
    }
}

pub(super) fn prio_args_text(kind: &PrioKind) -> String {
    match kind {
        PrioKind::Alua { exclusive_pref: true } | PrioKind::Sysfs { exclusive_pref: true } => {
            "exclusive_pref_bit".to_owned()
        }
        PrioKind::WeightedPath(text) => text.to_string(),
        PrioKind::PathLatency { io_num, base_milli } => {
            format!("io_num={io_num} base_num={}", f64::from(*base_milli) / 1000.0)
        }
        _ => String::new(),
    }
}

fn exclusive(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(false),
        "exclusive_pref_bit" => Ok(true),
        _ => Err("is not an argument of it; use exclusive_pref_bit".to_owned()),
    }
}

/// `KIND REGEX N [REGEX N]…`, or nothing.
fn weights(text: &str) -> Result<PrioKind, String> {
    let mut words = text.split_whitespace();
    let problem = words.next().and_then(|_| weightedpath_problem(text));
    match problem {
        None => Ok(PrioKind::WeightedPath(Arc::from(text))),
        Some(problem) => Err(format!(
            "is not of the form KIND EXPRESSION PRIORITY [EXPRESSION PRIORITY]…: {problem}"
        )),
    }
}

/// `io_num=N base_num=N`, each at most once.
fn latency(text: &str) -> Result<PrioKind, String> {
    let wrong =
        || "is not of the form 'io_num=N base_num=N', with 20 to 200 and 1.1 to 10".to_owned();
    let (mut io_num, mut base_milli) = (IO_NUM, BASE_MILLI);
    for part in text.split_whitespace() {
        match part.split_once('=').ok_or_else(wrong)? {
            ("io_num", n) => {
                io_num = n.parse().ok().filter(|n| (20..=200).contains(n)).ok_or_else(wrong)?;
            }
            ("base_num", n) => base_milli = thousandths(n).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    Ok(PrioKind::PathLatency { io_num, base_milli })
}

fn thousandths(text: &str) -> Option<u32> {
    let number = text.parse::<f64>().ok().filter(|n| (1.1..=10.0).contains(n))?;
    // Between 1100 and 10000: exact.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((number * 1000.0).round() as u32)
}

/// `features` as dm-multipath prints it: the number of words, and the words.
pub(super) fn features(policy: &Policy) -> String {
    let default = Policy::default();
    let mut words = Vec::new();
    if policy.no_path_retry != NoPathRetry::Fail {
        words.push("queue_if_no_path".to_owned());
    }
    if policy.pg_init_retries != default.pg_init_retries {
        words.push(format!("pg_init_retries {}", policy.pg_init_retries));
    }
    if policy.pg_init_delay != default.pg_init_delay {
        words.push(format!("pg_init_delay_msecs {}", policy.pg_init_delay.as_millis()));
    }
    let count = words.iter().flat_map(|w| w.split(' ')).count();
    words.insert(0, count.to_string());
    words.join(" ")
}

pub(super) fn read_features(text: &str, policy: &mut Policy) -> Result<(), String> {
    let mut words = text.split_whitespace();
    let count = words.next().and_then(|word| word.parse::<usize>().ok());
    if count != Some(words.clone().count()) {
        return Err("does not begin with the number of its words".to_owned());
    }
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        match word {
            // A number of checks is more precise.
            "queue_if_no_path" if policy.no_path_retry != NoPathRetry::Fail => {}
            "queue_if_no_path" => policy.no_path_retry = NoPathRetry::Queue,
            "pg_init_retries" => policy.pg_init_retries = count_within(next(), 0, 50)?,
            "pg_init_delay_msecs" => policy.pg_init_delay = milliseconds(next())?,
            _ => {
                return Err(format!(
                    "has the word {word}; known are queue_if_no_path, pg_init_retries and \
                     pg_init_delay_msecs"
                ));
            }
        }
    }
    Ok(())
}
