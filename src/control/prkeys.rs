//! The prkeys file: which reservation key each guest has registered, for the
//! next daemon and for multipath-tools.
//!
//! multipath-tools' format (`libmultipath/prkey.c`): `0xKEY WWID` per line,
//! the key in sixteen digits, `0X` where it was registered with APTPL. What
//! that has no place for stands in a comment line of ours. Read where an LU is
//! opened, replaced by a thread of its own ([`keeper`]), never by the control
//! thread: both may wait for a disk. What is remembered is the engine's to say
//! (`mpath::reservation`), what is true the array's.

pub(super) mod keeper;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mpath::policy::ReservationKey;
use crate::mpath::reservation::Remembered;
use crate::scsi::reservation::Key;
use crate::sys::file::lock_exclusive;

/// The file's place where no service manager names another directory.
const DIRECTORY: &str = "/var/lib/vhost-mpath";
/// Its name there, which is multipath-tools'.
const NAME: &str = "prkeys";
/// How a new file begins.
const HEADER: &str = "\
# Persistent reservation keys of guests: `KEY WWID` per line, 0X for APTPL.
# Maintained by vhost-mpath, in the format of multipath-tools.
";
/// Begins our own lines; the WWID follows, and must not end the line:
/// multipath-tools would take it for its own.
const OURS: &str = "# vhost-mpath:";
/// The word for ALL_TG_PT there.
const ALL_TG_PT: &str = "all_tg_pt";
/// How often a file that another process has locked is tried.
const TRIES: u32 = 100;
/// Between two tries.
const BETWEEN: Duration = Duration::from_millis(50);

/// Why keys cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrkeysError {
    /// The system's word.
    #[error("cannot {what} {file}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Where.
        file: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another process does not let go of it.
    #[error("{file}: locked by another process (`lslocks` shows it)")]
    Locked {
        /// Which.
        file: PathBuf,
    },
    /// A line that names the LU, and no key.
    #[error(
        "{file}: `{line}` has no key: write 0x and sixteen digits in front of the WWID, or remove \
         the line"
    )]
    Line {
        /// Which.
        file: PathBuf,
        /// As it is.
        line: String,
    },
}

fn system<'a>(what: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> PrkeysError + 'a {
    move |error| PrkeysError::System { what, file: file.to_owned(), error }
}

/// Where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prkeys {
    file: PathBuf,
    /// Somebody has said so.
    given: bool,
}

impl Prkeys {
    /// In this file (`--prkeys`); without one in the state directory that the
    /// service manager has made (`StateDirectory=`), else in `/var/lib`.
    pub fn new(given: Option<PathBuf>) -> Prkeys {
        let directory = std::env::var_os("STATE_DIRECTORY");
        Prkeys { given: given.is_some(), file: given.unwrap_or_else(|| default(directory)) }
    }

    /// Which file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is known of an LU's guest. A default file that cannot be read is
    /// told and passed over: nobody has asked for it.
    ///
    /// # Errors
    /// A file that was asked for and cannot be read; a line without a key.
    pub(super) fn read(&self, wwid: &str) -> Result<Option<Remembered>, PrkeysError> {
        let text = match read_if_there(&self.file) {
            Err(error) if !self.given => {
                let error = system("read", &self.file)(error);
                log::warn!("{error}; reservation keys of earlier daemons are not known");
                return Ok(None);
            }
            text => text.map_err(system("read", &self.file))?,
        };
        find(&text.unwrap_or_default(), wwid)
            .map_err(|line| PrkeysError::Line { file: self.file.clone(), line })
    }

    /// Remembers it instead of whatever was known, for good: it is on the disk
    /// when this returns. Waits for other processes that change the file, and
    /// for the disk.
    ///
    /// # Errors
    /// [`PrkeysError`]; the file is what it was.
    fn write(&self, wwid: &str, what: Option<Remembered>) -> Result<(), PrkeysError> {
        // A link stays one.
        let file = fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        let directory = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(system("make", directory))?;
        let mut locked = lock(&file)?;
        let mut text = String::new();
        locked.read_to_string(&mut text).map_err(system("read", &file))?;
        let changed = replaced(&text, wwid, what);
        if changed == text {
            return locked.sync_all().map_err(system("write", &file));
        }
        let mode = locked.metadata().map_err(system("read", &file))?.permissions().mode();
        let mut beside = file.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        put(&beside, &changed, mode).map_err(system("write", &beside))?;
        fs::rename(&beside, &file).map_err(system("replace", &file))?;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(system("write", directory))
    }
}

fn default(state_directory: Option<OsString>) -> PathBuf {
    // A service may have several, with colons between them.
    let first = state_directory.and_then(|all| {
        let first = all.to_string_lossy().split(':').next()?.to_owned();
        (!first.is_empty()).then(|| PathBuf::from(first))
    });
    first.unwrap_or_else(|| PathBuf::from(DIRECTORY)).join(NAME)
}

fn read_if_there(file: &Path) -> io::Result<Option<String>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens and locks the file (the lock is multipath-tools', too), and makes it
/// where there is none. Whoever had the lock before may have replaced it.
fn lock(file: &Path) -> Result<File, PrkeysError> {
    for _ in 0..TRIES {
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file)
            .map_err(system("open", file))?;
        match lock_exclusive(open.as_fd()) {
            Ok(()) => {
                let ours = open.metadata().map_err(system("read", file))?.ino();
                if fs::metadata(file).is_ok_and(|now| now.ino() == ours) {
                    return Ok(open);
                }
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                std::thread::sleep(BETWEEN);
            }
            Err(error) => return Err(system("lock", file)(error)),
        }
    }
    Err(PrkeysError::Locked { file: file.to_owned() })
}

fn put(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut new =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    new.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

// --- text -----------------------------------------------------------------------

/// What the text says of that LU; `Err` is a line that says nothing.
fn find(text: &str, wwid: &str) -> Result<Option<Remembered>, String> {
    let mut lines = text.lines().map(str::trim);
    let Some(line) = lines.find(|line| is_of(line, wwid) && !line.starts_with('#')) else {
        return Ok(None);
    };
    let word = line.split_whitespace().next().unwrap_or_default();
    let Some((key, aptpl)) = key_in_file(word) else { return Err(line.to_owned()) };
    let ours = text.lines().find(|line| line.starts_with(OURS) && is_of(line, wwid));
    let has = |word| ours.is_some_and(|line| line.split_whitespace().any(|w| w == word));
    Ok(Some(Remembered { key, aptpl, all_tg_pt: has(ALL_TG_PT) }))
}

/// The text with what is remembered of that LU now.
fn replaced(text: &str, wwid: &str, what: Option<Remembered>) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        lines.extend(HEADER.lines());
    }
    let at = lines.iter().position(|line| is_of(line, wwid)).unwrap_or(lines.len());
    let (before, after) = lines.split_at(at);
    let after = after.iter().filter(|line| !is_of(line, wwid));
    let new = what.map(|what| lines_of(wwid, what)).unwrap_or_default();
    let all = before.iter().copied().chain(new.iter().map(String::as_str)).chain(after.copied());
    all.flat_map(|line| [line, "\n"]).collect()
}

fn lines_of(wwid: &str, what: Remembered) -> Vec<String> {
    let x = if what.aptpl { 'X' } else { 'x' };
    let mut lines = vec![format!("0{x}{:016x} {wwid}", what.key.0)];
    lines.extend(what.all_tg_pt.then(|| format!("{OURS} {wwid} {ALL_TG_PT}")));
    lines
}

/// Whether a line is about that LU: a key, one that multipath-tools has taken
/// back (`#` in the place of its first digit), or ours.
fn is_of(line: &str, wwid: &str) -> bool {
    if let Some(rest) = line.strip_prefix(OURS) {
        return rest.split_whitespace().next() == Some(wwid);
    }
    let mut words = line.split_whitespace();
    let (word, name, more) = (words.next(), words.next(), words.next());
    let commented = word.and_then(|word| word.strip_prefix('#'));
    let was_a_key = commented.is_none_or(|rest| rest.starts_with(['x', 'X']));
    name == Some(wwid) && more.is_none() && was_a_key
}

fn key_in_file(word: &str) -> Option<(Key, bool)> {
    Some((Key::from_words(word)?, word.contains('X')))
}

/// A key as an administrator gives it, multipathd's `KEY[:aptpl]`.
pub(super) fn understand_key(text: &str) -> Option<(Key, bool)> {
    match text.parse() {
        Ok(ReservationKey::Key { key, aptpl }) => Some((key, aptpl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
