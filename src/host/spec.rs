//! The value of `--path`: which path, in the administrator's words.
//!
//! `NODE-OR-FILE[,name=N]`, `null:SIZE[,name=N]`,
//! `sim:FILE` with the options of [`SimSpec`]. A comma inside a file name is
//! doubled, as in QEMU. Text only: nothing is looked at.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::scsi::alua::AccessState;
use crate::sim::{ACCESS_STATES, Personality, Tpgs};

/// Which path to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// As given.
    pub text: String,
    /// `name=`.
    pub name: Option<String>,
    /// What it is.
    pub target: Target,
}

/// What a [`PathSpec`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A device node or regular file; which, is seen when it is opened.
    Node(PathBuf),
    /// A null path of so many bytes.
    Null(u64),
    /// A path to a simulated LU.
    Sim(SimSpec),
}

/// A path to a simulated LU: what belongs to the LU, then where it is plugged
/// in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimSpec {
    /// The image.
    pub image: PathBuf,
    /// `size=` in bytes.
    pub size: Option<u64>,
    /// `bs=`.
    pub block_size: Option<u32>,
    /// `personality=`: whose array it behaves like.
    pub personality: Option<Personality>,
    /// `tpgs=`: how access states change.
    pub tpgs: Option<Tpgs>,
    /// `port=`: relative target port identifier.
    pub port: Option<u16>,
    /// `tpg=`: target port group.
    pub group: Option<u16>,
    /// `access=`: the group's access state.
    pub access: Option<AccessState>,
}

impl SimSpec {
    /// What [`SimSpec::set`] knows.
    const OPTIONS: &'static str = "size, name, bs, personality, tpgs, port, tpg and access";

    /// Takes one option; `None` if there is no such, else whether it was given
    /// before.
    fn set(&mut self, key: &str, value: &str) -> Result<Option<bool>, SpecError> {
        Ok(Some(match key {
            "size" => self.size.replace(parse_size(value)?).is_some(),
            "bs" => self.block_size.replace(check_block_size(value)?).is_some(),
            "personality" => {
                let personality = named("personality", value, &Personality::NAMES)?;
                self.personality.replace(personality).is_some()
            }
            "tpgs" => self.tpgs.replace(named("tpgs", value, &Tpgs::NAMES)?).is_some(),
            "port" => self.port.replace(check_number("port", value)?).is_some(),
            "tpg" => self.group.replace(check_number("tpg", value)?).is_some(),
            "access" => self.access.replace(named("access", value, &ACCESS_STATES)?).is_some(),
            _ => return Ok(None),
        }))
    }
}

/// The value a word stands for.
fn named<T: Copy>(key: &'static str, word: &str, names: &[(T, &str)]) -> Result<T, SpecError> {
    let found = names.iter().find(|(_, name)| *name == word);
    found.map(|(value, _)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        SpecError::Word { key, word: word.to_owned(), known: known.join(", ") }
    })
}

/// What is wrong with the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Nothing before the first comma.
    #[error("`{0}` names no device or file")]
    Empty(String),
    /// Not `key=value`.
    #[error(
        "`{option}` in `{spec}` is not of the form key=value (write a comma in a file name twice)"
    )]
    NotAnOption {
        /// As given.
        spec: String,
        /// The part.
        option: String,
    },
    /// No such option for this kind of path.
    #[error("`{spec}`: {kind} takes no option `{key}`; it takes {known}")]
    UnknownOption {
        /// As given.
        spec: String,
        /// Kind of path.
        kind: &'static str,
        /// The option.
        key: String,
        /// What there is.
        known: &'static str,
    },
    /// Given twice.
    #[error("`{spec}` gives `{key}` twice")]
    Twice {
        /// As given.
        spec: String,
        /// The option.
        key: String,
    },
    /// A size that cannot be read.
    #[error(
        "`{0}` is no size: write bytes, or a number with K, M, G or T (powers of 1024), in whole blocks of 512"
    )]
    Size(String),
    /// A block size that is not served.
    #[error("bs={0}: only 512 and 4096 are served")]
    BlockSize(String),
    /// No number of a target port or target port group.
    #[error("{0}={1}: write a number from 1 to 65535")]
    Number(&'static str, String),
    /// None of the words there are.
    #[error("{key}={word}: there are {known}")]
    Word {
        /// The option.
        key: &'static str,
        /// Its value.
        word: String,
        /// What there is.
        known: String,
    },
    /// A name with odd characters.
    #[error("name={0}: use letters, digits and any of `_.:-`, at most 64 of them")]
    Name(String),
}

impl FromStr for PathSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<PathSpec, SpecError> {
        let mut parts = split_list(text).into_iter();
        let head = parts.next().unwrap_or_default();
        let (kind, known, rest) = match (head.strip_prefix("null:"), head.strip_prefix("sim:")) {
            (Some(rest), _) => ("a null path", "name", rest),
            (_, Some(rest)) => ("a simulated path", SimSpec::OPTIONS, rest),
            _ => ("a device or file", "name", head.as_str()),
        };
        let simulated = head.starts_with("sim:");
        if rest.is_empty() {
            return Err(SpecError::Empty(text.to_owned()));
        }
        let mut name = None;
        let mut sim = SimSpec { image: PathBuf::from(rest), ..SimSpec::default() };
        for option in parts {
            let Some((key, value)) = option.split_once('=') else {
                return Err(SpecError::NotAnOption { spec: text.to_owned(), option });
            };
            let twice = match key {
                "name" => Some(name.replace(check_name(value)?).is_some()),
                _ if simulated => sim.set(key, value)?,
                _ => None,
            };
            let Some(twice) = twice else {
                let (spec, key) = (text.to_owned(), key.to_owned());
                return Err(SpecError::UnknownOption { spec, kind, key, known });
            };
            if twice {
                return Err(SpecError::Twice { spec: text.to_owned(), key: key.to_owned() });
            }
        }
        let target = if simulated {
            Target::Sim(sim)
        } else if head.starts_with("null:") {
            Target::Null(parse_size(rest)?)
        } else {
            Target::Node(PathBuf::from(rest))
        };
        Ok(PathSpec { text: text.to_owned(), name, target })
    }
}

/// Parts between single commas; doubled ones become one.
pub fn split_list(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(ch) = chars.next() {
        match (ch, parts.last_mut()) {
            (',', Some(last)) if chars.next_if_eq(&',').is_some() => last.push(','),
            (',', _) => parts.push(String::new()),
            (_, Some(last)) => last.push(ch),
            (_, None) => {}
        }
    }
    parts
}

fn check_name(name: &str) -> Result<String, SpecError> {
    let good = |ch: char| ch.is_ascii_alphanumeric() || "_.:-".contains(ch);
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        return Err(SpecError::Name(name.to_owned()));
    }
    Ok(name.to_owned())
}

fn check_block_size(value: &str) -> Result<u32, SpecError> {
    match value {
        "512" => Ok(512),
        "4096" | "4k" | "4K" => Ok(4096),
        _ => Err(SpecError::BlockSize(value.to_owned())),
    }
}

fn check_number(key: &'static str, value: &str) -> Result<u16, SpecError> {
    let number = value.parse().ok().filter(|number| *number != 0);
    number.ok_or_else(|| SpecError::Number(key, value.to_owned()))
}

/// Bytes of `10M`, `1G`, `4096`: powers of 1024, a multiple of 512, not zero.
///
/// # Errors
/// [`SpecError::Size`].
pub fn parse_size(text: &str) -> Result<u64, SpecError> {
    let bad = || SpecError::Size(text.to_owned());
    let digits = text.trim_end_matches(|ch: char| ch.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(bad)?;
    // File offsets are signed.
    if bytes == 0 || bytes % 512 != 0 || i64::try_from(bytes).is_err() {
        return Err(bad());
    }
    Ok(bytes)
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse::<PathSpec>().unwrap().target
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(target("/dev/sdb"), Target::Node("/dev/sdb".into()));
        assert_eq!(target("a,,b.img"), Target::Node("a,b.img".into()));
        assert_eq!(target("null:1G"), Target::Null(1 << 30));
        let spec: PathSpec = "sim:disk.img,size=256M,name=sim0,bs=4096".parse().unwrap();
        assert_eq!(spec.name.as_deref(), Some("sim0"));
        let image = PathBuf::from("disk.img");
        let (size, block_size) = (Some(256 << 20), Some(4096));
        let wanted = SimSpec { image, size, block_size, ..SimSpec::default() };
        assert_eq!(spec.target, Target::Sim(wanted));
        let all = "sim:x,personality=rdac,tpgs=explicit,port=65535,tpg=2,access=standby";
        let wanted = SimSpec {
            image: "x".into(),
            personality: Some(Personality::Rdac),
            tpgs: Some(Tpgs::Explicit),
            port: Some(65535),
            group: Some(2),
            access: Some(AccessState::Standby),
            ..SimSpec::default()
        };
        assert_eq!(target(all), Target::Sim(wanted));
        let spec: PathSpec = "/dev/sdb,name=left".parse().unwrap();
        assert_eq!(spec.name.as_deref(), Some("left"));
    }

    #[test]
    fn every_mistake_has_its_own_words() {
        let words = |text: &str| text.parse::<PathSpec>().unwrap_err().to_string();
        assert!(words("").contains("names no device"));
        assert!(words("sim:,size=1M").contains("names no device"));
        assert!(words("/dev/sdb,ro").contains("key=value"));
        assert!(words("/dev/sdb,size=1M").contains("takes no option `size`"));
        assert!(words("null:1G,bs=512").contains("takes no option `bs`"));
        assert!(words("sim:x,size=1M,size=1M").contains("twice"));
        assert!(words("sim:x,bs=520").contains("512 and 4096"));
        assert!(words("sim:x,personality=nice").contains("generic, rdac, clariion"));
        assert!(words("sim:x,tpgs=2").contains("none, implicit, explicit, both"));
        assert!(words("sim:x,access=on").contains("access=on: there are active-optimized"));
        assert!(words("sim:x,tpgs=none,tpgs=both").contains("gives `tpgs` twice"));
        assert!(words("sim:x,colour=red").contains(SimSpec::OPTIONS));
        assert!(words("sim:x,port=0").contains("port=0: write a number from 1"));
        assert!(words("sim:x,tpg=65536").contains("tpg=65536"));
        assert!(words("/dev/sdb,port=1").contains("takes no option `port`"));
        assert!(words("null:many").contains("is no size"));
        assert!(words("/dev/sdb,name=a b").contains("letters, digits"));
    }

    #[test]
    fn sizes_are_whole_blocks_and_fit_a_file() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("2TiB"), Ok(2 << 40));
        for bad in ["0", "100", "1X", "-1K", "K", "9000000T", "1.5G", "99999999999999999999"] {
            assert_eq!(parse_size(bad), Err(SpecError::Size(bad.to_owned())), "{bad}");
        }
    }
}
