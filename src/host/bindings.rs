//! Names of maps that multipath-tools knows: `/etc/multipath/bindings`, and
//! `alias` in the `multipaths` section of multipath.conf.
//!
//! Read when asked for one name (`--map`). Of multipath.conf that section is
//! understood and nothing else: policy comes from our own command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::wwid;

/// Why a map's name says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AliasError {
    /// In neither file.
    #[error(
        "no map is called {alias} in {}: give its WWID (--wwid; `multipath -ll` and \
         `/lib/udev/scsi_id -g -u /dev/sdX` show it), or write `{alias} WWID` into \
         /etc/multipath/bindings",
        .places.join(" or ")
    )]
    Unknown {
        /// As given.
        alias: String,
        /// What was looked at.
        places: Vec<String>,
    },
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The WWID of the map of that name.
///
/// # Errors
/// [`AliasError`].
pub fn wwid_of_alias(alias: &str) -> Result<String, AliasError> {
    wwid_below(Path::new("/etc"), alias)
}

/// `etc` is `/etc`. As in multipath-tools an alias of multipath.conf beats the
/// bindings.
fn wwid_below(etc: &Path, alias: &str) -> Result<String, AliasError> {
    let mut files = vec![etc.join("multipath.conf")];
    files.extend(in_directory(&etc.join("multipath/conf.d")));
    let bindings = etc.join("multipath/bindings");
    // The last word in a section wins.
    let mut found = None;
    for file in &files {
        found = read(file)?.and_then(|text| in_configuration(&text, alias)).or(found);
    }
    if found.is_none() {
        found = read(&bindings)?.and_then(|text| in_bindings(&text, alias));
    }
    found.map(|wwid| wwid::understand(&wwid)).ok_or_else(|| AliasError::Unknown {
        alias: alias.to_owned(),
        places: files.iter().chain([&bindings]).map(|path| path.display().to_string()).collect(),
    })
}

fn in_directory(dir: &Path) -> Vec<PathBuf> {
    let names = super::sysfs::entries(dir);
    names.into_iter().filter(|name| name.ends_with(".conf")).map(|name| dir.join(name)).collect()
}

fn read(path: &Path) -> Result<Option<String>, AliasError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(source) => Err(AliasError::Unreadable { path: path.to_owned(), source }),
    }
}

/// `alias wwid` per line; the first wins.
fn in_bindings(text: &str, alias: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        (words.next() == Some(alias)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

/// `multipaths { multipath { wwid W … alias A … } … }`.
fn in_configuration(text: &str, alias: &str) -> Option<String> {
    let mut open: Vec<String> = Vec::new();
    let (mut wwid, mut name) = (None, None);
    let mut found = None;
    for line in text.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [section, "{"] => {
                open.push(section.to_owned());
                (wwid, name) = (None, None);
            }
            ["}"] => {
                if name.as_deref() == Some(alias) && wwid.is_some() {
                    found = wwid.take();
                }
                open.pop();
                (wwid, name) = (None, None);
            }
            [keyword, value] if open == ["multipaths", "multipath"] => match keyword {
                "wwid" => wwid = Some(value.to_owned()),
                "alias" => name = Some(value.to_owned()),
                _ => {}
            },
            _ => {}
        }
    }
    found
}

/// Words of a line: bare ones, and one between quotes, in which a doubled
/// quote is a quote; `#` and `!` begin a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(ch) = chars.next() {
        match ch {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => {
                word.get_or_insert_default().push('"');
            }
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '#' | '!' if !quoted => break,
            '{' | '}' if !quoted => {
                words.extend(word.take());
                words.push(ch.to_string());
            }
            _ if !quoted && ch.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(ch),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::Dir;
    use super::*;

    const CONF: &str = r#"
defaults {
        alias   "not here"
}
multipaths {
        multipath {
                wwid  naa.6001405deadbeef0001000000000000a   # of the database
                alias "db"
                no_path_retry queue
        }
        multipath {
                alias other
                wwid "36001405deadbeef0001000000000000b"
        }
}
"#;

    #[test]
    fn a_map_is_found_by_its_alias_in_either_file() {
        let dir = Dir::new();
        let of = |alias| wwid_below(&dir.0, alias).map_err(|error| error.to_string());
        let unknown = of("db").unwrap_err();
        assert!(unknown.contains("multipath.conf") && unknown.contains("bindings"), "{unknown}");
        dir.put("multipath.conf", CONF);
        dir.put(
            "multipath/bindings",
            "# Multipath bindings\nmpatha 36001405deadbeef0001000000000000c\ndb 3bad\n",
        );
        assert_eq!(of("db").unwrap(), "36001405deadbeef0001000000000000a");
        assert_eq!(of("other").unwrap(), "36001405deadbeef0001000000000000b");
        assert_eq!(of("mpatha").unwrap(), "36001405deadbeef0001000000000000c");
        assert!(of("not here").is_err() && of("mpath").is_err());
        dir.put(
            "multipath/conf.d/z.conf",
            "multipaths {\n multipath {\n wwid 3a\n alias db\n }\n}\n",
        );
        assert_eq!(of("db").unwrap(), "3a", "conf.d comes later");
    }

    #[test]
    fn words_are_split_as_multipath_splits_them() {
        assert_eq!(words(r#"  alias "a ""b"" #1" # x"#), ["alias", r#"a "b" #1"#]);
        assert_eq!(words("multipath {"), ["multipath", "{"]);
        assert_eq!(words("! comment"), Vec::<String>::new());
    }
}
