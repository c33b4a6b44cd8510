//! Which LUs a SCSI device shows, in the administrator's words.
//!
//! `--lun T:L,path=SPEC[,path=SPEC…][,alias=NAME][,allow=GROUP][,deny=GROUP]
//! [,set=KEYWORD=VALUE][,read-only=on|off]`, a list as QEMU's: a comma inside a
//! value is doubled.
//! Text only: what a path leads to is seen when it is opened.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::host::{PathSpec, SpecError, Target, split_list};
use crate::mpath::policy::keywords::{KeywordError, Setting};
use crate::scsi::command::{CommandPolicy, Group, UnknownGroup};
use crate::scsi::luns::LUN_MAX;

/// Where a guest finds an LU: target and LUN, written `T:L`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Target.
    pub target: u8,
    /// LUN, at most [`LUN_MAX`].
    pub lun: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.lun)
    }
}

/// What is wrong with a list of LUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LunError {
    /// Not two numbers.
    #[error("`{0}` is no address of a LUN: write TARGET:LUN, such as 0:1")]
    Address(String),
    /// Beyond what virtio-scsi can name.
    #[error("target {0} does not exist: targets are 0 to 255")]
    Target(u64),
    /// Beyond flat addressing.
    #[error("LUN {0} does not exist: LUNs are 0 to {LUN_MAX}")]
    Lun(u64),
    /// Not `key=value`.
    #[error("`{0}` is not of the form key=value (write a comma inside a value twice)")]
    NotAnOption(String),
    /// No such key.
    #[error("there is no option `{0}`; a LUN takes path, alias, set, allow, deny and read-only")]
    UnknownOption(String),
    /// Given twice.
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    /// An LU must lead somewhere.
    #[error("LUN {0} has no path; give path=SPEC, once for each")]
    NoPath(Address),
    /// See [`PathSpec`].
    #[error("{0}")]
    Path(#[from] SpecError),
    /// See [`Group`].
    #[error("{0}")]
    Group(#[from] UnknownGroup),
    /// See [`Setting`].
    #[error("set: {0}")]
    Setting(#[from] KeywordError),
    /// Both allowed and denied.
    #[error("`{0}` is both allowed and denied")]
    Undecided(Group),
    /// Not on or off.
    #[error("read-only={0}: write on or off")]
    Switch(String),
    /// See [`check_alias`].
    #[error("alias={0}: use letters, digits and any of _.:- (at most 127)")]
    Alias(String),
    /// Two LUs at one address.
    #[error("LUN {0} is given twice")]
    AddressTwice(Address),
    /// As above, by the targets that `--expose paths` adds.
    #[error(
        "target {target} is wanted twice: with --expose paths, path number N of LUN {base} is \
         LUN {lun} of target {first} + N"
    )]
    ExposedTwice {
        /// The one wanted twice.
        target: u8,
        /// Address of the LU that wants it.
        base: Address,
        /// Its LUN.
        lun: u16,
        /// Its first target.
        first: u8,
    },
    /// More paths than targets.
    #[error(
        "--expose paths makes a target of each path: the {paths} paths of LUN {base} do not fit \
         below target 256"
    )]
    NoTargetLeft {
        /// Address of the LU.
        base: Address,
        /// Its paths.
        paths: usize,
    },
    /// One path in two LUs.
    #[error("`{path}` is a path of LUN {first} and of LUN {second}: a path leads to one LU")]
    PathTwice {
        /// As given.
        path: String,
        /// One LU.
        first: Address,
        /// The other.
        second: Address,
    },
    /// A name that would be taken for an address.
    #[error("alias {0} is the address of a LUN; choose another name")]
    AliasIsAddress(String),
    /// Two maps of one name.
    #[error("alias {0} is given to two LUNs")]
    AliasTwice(String),
}

impl FromStr for Address {
    type Err = LunError;

    fn from_str(text: &str) -> Result<Address, LunError> {
        let wrong = || LunError::Address(text.to_owned());
        let (target, lun) = text.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX)).ok_or_else(wrong)
        };
        let (target, lun) = (number(target)?, number(lun)?);
        let small = u16::try_from(lun).ok().filter(|lun| *lun <= LUN_MAX);
        Ok(Address {
            target: u8::try_from(target).map_err(|_| LunError::Target(target))?,
            lun: small.ok_or(LunError::Lun(lun))?,
        })
    }
}

/// One LU of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LuSettings {
    /// Where the guest finds it; 0:0 for a disk served as vhost-user-blk.
    pub address: Address,
    /// Its paths, in order.
    pub paths: Vec<PathSpec>,
    /// Name of the map; the WWID without one.
    pub alias: Option<String>,
    /// What steers its map, whatever holds for the device.
    pub set: Vec<Setting>,
    /// Groups of commands allowed, whatever holds for the device.
    pub allow: Vec<Group>,
    /// Groups of commands denied, whatever holds for the device.
    pub deny: Vec<Group>,
    /// Refuse writes.
    pub read_only: bool,
}

impl LuSettings {
    /// What the guest may send to this LU, where `device` holds for all.
    pub fn policy(&self, device: CommandPolicy) -> CommandPolicy {
        let mut policy = device;
        self.allow.iter().for_each(|group| policy.allow(*group));
        self.deny.iter().for_each(|group| policy.deny(*group));
        policy
    }

    /// What can be seen to be wrong with it alone.
    ///
    /// # Errors
    ///
    /// No path; a group both allowed and denied; a name with odd characters.
    pub fn check(&self) -> Result<(), LunError> {
        if self.paths.is_empty() {
            return Err(LunError::NoPath(self.address));
        }
        if let Some(alias) = self.alias.as_deref().filter(|alias| !check_alias(alias)) {
            return Err(LunError::Alias(alias.to_owned()));
        }
        undecided(&self.allow, &self.deny)
    }

    /// The addresses it takes: its own or, where the guest sees its paths, a
    /// target for each.
    ///
    /// # Errors
    ///
    /// [`LunError::NoTargetLeft`].
    pub fn addresses(&self, expose_paths: bool) -> Result<Vec<Address>, LunError> {
        let Address { target, lun } = self.address;
        let count = if expose_paths { self.paths.len() } else { 1 };
        let targets = (0..count).map(|n| u8::try_from(usize::from(target) + n).ok());
        let all: Option<Vec<Address>> =
            targets.map(|t| t.map(|target| Address { target, lun })).collect();
        all.ok_or(LunError::NoTargetLeft { base: self.address, paths: count })
    }
}

impl FromStr for LuSettings {
    type Err = LunError;

    fn from_str(text: &str) -> Result<LuSettings, LunError> {
        let mut parts = split_list(text).into_iter();
        let address = parts.next().unwrap_or_default().parse()?;
        let mut lu = LuSettings { address, ..LuSettings::default() };
        let mut read_only = None;
        for part in parts {
            let Some((key, value)) = part.split_once('=') else {
                return Err(LunError::NotAnOption(part));
            };
            match key {
                "path" => lu.paths.push(value.parse()?),
                "alias" if lu.alias.replace(value.to_owned()).is_none() => {}
                "alias" => return Err(LunError::Twice("alias")),
                "set" => lu.set.push(value.parse()?),
                "allow" => lu.allow.push(value.parse()?),
                "deny" => lu.deny.push(value.parse()?),
                "read-only" if read_only.replace(switch(value)?).is_none() => {}
                "read-only" => return Err(LunError::Twice("read-only")),
                _ => return Err(LunError::UnknownOption(key.to_owned())),
            }
        }
        lu.read_only = read_only.unwrap_or(false);
        lu.check()?;
        Ok(lu)
    }
}

fn switch(value: &str) -> Result<bool, LunError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(LunError::Switch(value.to_owned())),
    }
}

/// Whether a map may have this name.
pub fn check_alias(alias: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    !alias.is_empty() && alias.len() <= 127 && alias.chars().all(good)
}

/// One word decides about a group, not two.
///
/// # Errors
///
/// [`LunError::Undecided`].
pub fn undecided(allow: &[Group], deny: &[Group]) -> Result<(), LunError> {
    match allow.iter().find(|group| deny.contains(group)) {
        Some(group) => Err(LunError::Undecided(*group)),
        None => Ok(()),
    }
}

/// Whether these LUs can be LUs of one device.
///
/// # Errors
///
/// Addresses, names or paths that two of them want.
pub fn check_together(lus: &[LuSettings], expose_paths: bool) -> Result<(), LunError> {
    let mut taken = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut paths: BTreeMap<&str, (Address, &str)> = BTreeMap::new();
    for lu in lus {
        for address in lu.addresses(expose_paths)? {
            if taken.insert(address, ()).is_none() {
                continue;
            }
            if !expose_paths {
                return Err(LunError::AddressTwice(address));
            }
            let Address { target: first, lun } = lu.address;
            let target = address.target;
            return Err(LunError::ExposedTwice { target, base: lu.address, lun, first });
        }
        if let Some(alias) = &lu.alias {
            if alias.parse::<Address>().is_ok() {
                return Err(LunError::AliasIsAddress(alias.clone()));
            }
            if names.insert(alias.as_str(), ()).is_some() {
                return Err(LunError::AliasTwice(alias.clone()));
            }
        }
        for path in &lu.paths {
            let Some(place) = place(path) else { continue };
            let (first, _) = *paths.entry(place).or_insert((lu.address, place));
            if first != lu.address {
                let (path, second) = (place.to_owned(), lu.address);
                return Err(LunError::PathTwice { path, first, second });
            }
        }
    }
    Ok(())
}

/// What two LUs cannot share: a node, or the image of a simulated LU.
fn place(path: &PathSpec) -> Option<&str> {
    match &path.target {
        Target::Node(place) => place.to_str(),
        Target::Sim(sim) => sim.image.to_str(),
        Target::Null(_) => None,
    }
}

#[cfg(test)]
mod tests;
