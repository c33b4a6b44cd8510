//! `weightedpath`: the administrator's numbers, by regular expressions
//! (`libmultipath/prioritizers/weightedpath.c`).
//!
//! `prio_args` is `hbtl|devname|serial|wwn REGEX PRIO [REGEX PRIO …]`; the
//! first expression that matches anywhere in the value decides, 0 without any.
//! `wwn` is matched against `HOST_NODE:HOST_PORT:TARGET_NODE:TARGET_PORT`, with
//! `[undef]` for what is not known; the host's names are not, here.
//!
//! multipath-tools compiles POSIX extended expressions; ours (`regex-lite`) are
//! those but for a backslash within brackets, which escapes here, and for back
//! references, which there are none of.

use regex_lite::Regex;

use super::Attributes;

const UNKNOWN_NAME: &str = "[undef]";

/// The priority; where multipath-tools goes on with what it can make of bad
/// arguments, so does this.
pub(super) fn priority(args: &str, attributes: &Attributes) -> i32 {
    let mut words = args.split([' ', '\t']).filter(|word| !word.is_empty());
    let Some(value) = words.next().and_then(|by| value(by, attributes)) else { return 0 };
    while let (Some(expression), Some(priority)) = (words.next(), words.next()) {
        if Regex::new(expression).is_ok_and(|regex| regex.is_match(&value)) {
            return number(priority);
        }
    }
    0
}

/// What is wrong with `args`, in words; for whoever sets them.
pub(super) fn problem(args: &str) -> Option<String> {
    let mut words = args.split([' ', '\t']).filter(|word| !word.is_empty());
    let by = words.next().unwrap_or_default();
    if value(by, &Attributes::default()).is_none() {
        return Some(format!("'{by}' is none of hbtl, devname, serial, wwn"));
    }
    let mut pairs = 0;
    while let Some(expression) = words.next() {
        if let Err(error) = Regex::new(expression) {
            return Some(format!("'{expression}' is no regular expression: {error}"));
        }
        match words.next() {
            None => return Some(format!("there is no priority for '{expression}'")),
            Some(priority) if priority.parse::<i32>().is_err() => {
                return Some(format!("'{priority}' is no priority"));
            }
            Some(_) => pairs += 1,
        }
    }
    (pairs == 0).then(|| "there is no regular expression with its priority".to_owned())
}

/// What the expressions are matched against; `None`: no such attribute.
fn value(by: &str, attributes: &Attributes) -> Option<String> {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| UNKNOWN_NAME.to_owned());
    Some(match by {
        "hbtl" => attributes.hbtl.clone().unwrap_or_default(),
        "devname" => attributes.devname.clone(),
        "serial" => attributes.serial.clone().unwrap_or_default(),
        "wwn" => format!(
            "{UNKNOWN_NAME}:{UNKNOWN_NAME}:{}:{}",
            name(&attributes.target_node),
            name(&attributes.target_port)
        ),
        _ => return None,
    })
}

/// As C's `atoi`: the number the word begins with, 0 if with none.
fn number(word: &str) -> i32 {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let sign = word.len() - digits.len();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    word[..sign + end].parse().unwrap_or(0)
}
