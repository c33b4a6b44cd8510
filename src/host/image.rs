//! Images of simulated LUs: a raw disk and, beside it, its identity.
//!
//! The image stays a plain raw disk that any tool can read. What makes it *a
//! LU* (WWID, serial number, block size) is in `IMAGE.lu`, a line of JSON made
//! when the image is first used; a copy of an image without that file is
//! another disk. How the array behaves (personality, TPGS) is not kept: it is
//! what the first path to it says. Who is registered with the LU, and who has
//! reserved it, is kept in `IMAGE.pr`: a daemon that ends is no power loss of
//! the array. The image is locked while open, and all paths to it in this
//! process share one array (law 2).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::passthrough_scsi::{FileMedium, Keeper, SimImage};
use crate::sim::{LuConfig, Personality, Reservations, Tpgs};
use crate::sys::file::{self, Mode};

use super::error::OpenError;
use super::registry::{self, Inode, OpenImage};
use super::spec::SimSpec;

/// What `IMAGE.lu` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Sidecar {
    /// NAA designator in hexadecimal.
    wwid: String,
    serial: String,
    block_size: u32,
}

/// Opens the LU on an image, or joins the one that is open already.
pub(super) fn open(spec: &SimSpec, read_only: bool) -> Result<Arc<SimImage>, OpenError> {
    let SimSpec { image, size, block_size, .. } = spec;
    let (size, block_size) = (*size, *block_size);
    let file = open_or_create(image, size, block_size.unwrap_or(512), read_only)?;
    let failed = |doing| move |source| OpenError::Io { path: image.to_owned(), doing, source };
    let meta = file.metadata().map_err(failed("reading its size"))?;
    if !meta.is_file() {
        let what = "not a regular file, which a simulated disk needs";
        return Err(OpenError::WrongKind { path: image.to_owned(), what });
    }
    let differs = |what, found: u64, asked: Option<u64>| {
        let asked = asked.map(|asked| asked.to_string());
        check(image, what, &found.to_string(), asked.as_deref())
    };
    differs("its size in bytes", meta.len(), size)?;
    let inode = Inode::from(&meta);
    let mut registry = registry::lock();
    if let Some(open) = registry.images.get(&inode).and_then(|open| open.image.upgrade()) {
        // The block size was settled when it was opened first.
        let sidecar = read_sidecar(&sidecar_path(image)?)?;
        let found = sidecar.map_or(0, |s| u64::from(s.block_size));
        differs("its block size", found, block_size.map(u64::from))?;
        check_behaviour(spec, &open)?;
        return Ok(open);
    }
    let locked = if read_only {
        file::lock_shared(file.as_fd())
    } else {
        file::lock_exclusive(file.as_fd())
    };
    locked.map_err(|_| super::open::locked(image))?;
    let sidecar = identity(image, block_size.unwrap_or(512))?;
    differs("its block size", u64::from(sidecar.block_size), block_size.map(u64::from))?;
    if meta.len() == 0 || meta.len() % u64::from(sidecar.block_size) != 0 {
        let (path, block_size) = (image.to_owned(), sidecar.block_size);
        return Err(OpenError::Size { path, bytes: meta.len(), block_size });
    }
    if registry.images.values().any(|open| open.wwid == sidecar.wwid) {
        let (path, wwid) = (image.to_owned(), sidecar.wwid);
        return Err(OpenError::CopiedIdentity { path, wwid });
    }
    let config = config(spec, &sidecar, meta.len(), read_only)?;
    let medium = Box::new(FileMedium::new(Arc::new(file)));
    let keeper = keeper(image, read_only)?;
    let array = SimImage::start_with(config, medium, keeper);
    let array = Arc::new(array.map_err(failed("starting the simulated array"))?);
    let open = OpenImage { image: Arc::downgrade(&array), wwid: sidecar.wwid };
    registry.images.insert(inode, open);
    Ok(array)
}

fn check(
    image: &Path,
    what: &'static str,
    found: &str,
    asked: Option<&str>,
) -> Result<(), OpenError> {
    match asked {
        Some(asked) if asked != found => {
            let (path, found, asked) = (image.to_owned(), found.to_owned(), asked.to_owned());
            Err(OpenError::ImageDiffers { path, what, found, asked })
        }
        _ => Ok(()),
    }
}

/// How the LU behaves was settled when it was opened first.
fn check_behaviour(spec: &SimSpec, open: &SimImage) -> Result<(), OpenError> {
    let (personality, tpgs) = open.behaviour();
    let asked = spec.personality.map(|asked| word(asked, &Personality::NAMES));
    check(&spec.image, "its personality", word(personality, &Personality::NAMES), asked)?;
    let asked = spec.tpgs.map(|asked| word(asked, &Tpgs::NAMES));
    check(&spec.image, "its tpgs", word(tpgs, &Tpgs::NAMES), asked)
}

fn word<T: Copy + PartialEq>(value: T, names: &[(T, &'static str)]) -> &'static str {
    names.iter().find(|(named, _)| *named == value).map_or("", |(_, name)| name)
}

fn open_or_create(
    image: &Path,
    size: Option<u64>,
    block_size: u32,
    read_only: bool,
) -> Result<File, OpenError> {
    match file::open(image, Mode { read_only, ..Mode::default() }) {
        Ok(file) => return Ok(file),
        Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {
            return Err(OpenError::WrongKind { path: image.to_owned(), what: "a directory" });
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(super::open::refused(image, e, "opening")),
    }
    let Some(size) = size else { return Err(OpenError::NoImage { path: image.to_owned() }) };
    if size % u64::from(block_size) != 0 {
        return Err(OpenError::Size { path: image.to_owned(), bytes: size, block_size });
    }
    let failed = |source| OpenError::NotMade { path: image.to_owned(), bytes: size, source };
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(image);
    let file = match file {
        // Somebody was faster; it is theirs, and the size is checked next.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return file::open(image, Mode::default()).map_err(failed);
        }
        result => result.map_err(failed)?,
    };
    match file.set_len(size) {
        Ok(()) => Ok(file),
        Err(error) => {
            // An empty one would be taken for an image at the next start.
            let _ = fs::remove_file(image);
            Err(failed(error))
        }
    }
}

fn sidecar_path(image: &Path) -> Result<PathBuf, OpenError> {
    beside(image, ".lu")
}

/// Beside the image itself, not beside a link to it.
fn beside(image: &Path, suffix: &str) -> Result<PathBuf, OpenError> {
    let path =
        fs::canonicalize(image).map_err(|e| super::open::refused(image, e, "following links"))?;
    Ok(with_suffix(&path, suffix))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// Whole or not at all.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = with_suffix(path, ".new");
    let mut file = File::create(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// The image's registrations. The image is locked. Of one that is only read
/// they change in memory; where they cannot be written they are lost with the
/// daemon.
fn keeper(image: &Path, read_only: bool) -> Result<Keeper, OpenError> {
    let path = beside(image, ".pr")?;
    let kept = match fs::read_to_string(&path) {
        Ok(text) => Reservations::from_words(&text)
            .map_err(|why| OpenError::Registrations { path: path.clone(), why })?,
        Err(e) if e.kind() == ErrorKind::NotFound => Reservations::default(),
        Err(e) => return Err(super::open::refused(&path, e, "reading")),
    };
    let keep = move |words: &str| {
        if !read_only {
            let _ = replace(&path, words.as_bytes());
        }
    };
    Ok(Keeper { kept, keep: Box::new(keep) })
}

fn read_sidecar(path: &Path) -> Result<Option<Sidecar>, OpenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(super::open::refused(path, e, "reading")),
    };
    let bad = |why: &str| OpenError::Sidecar { path: path.to_owned(), why: why.to_owned() };
    let sidecar: Sidecar = serde_json::from_str(&text).map_err(|e| bad(&e.to_string()))?;
    if parse_naa(&sidecar.wwid).is_none() {
        return Err(bad("`wwid` is not 32 hexadecimal digits beginning with 6"));
    }
    if ![512, 4096].contains(&sidecar.block_size) {
        return Err(bad("`block_size` is neither 512 nor 4096"));
    }
    Ok(Some(sidecar))
}

/// The image's identity, made up now if it has none. The image is locked.
fn identity(image: &Path, block_size: u32) -> Result<Sidecar, OpenError> {
    let path = sidecar_path(image)?;
    if let Some(sidecar) = read_sidecar(&path)? {
        return Ok(sidecar);
    }
    let failed = |doing| {
        let path = path.clone();
        move |source| OpenError::Io { path, doing, source }
    };
    let mut random = [0u8; 13];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(failed("choosing a WWID"))?;
    // NAA 6 with the locally administered company id 52-54-00.
    let digits: String = random.iter().map(|b| format!("{b:02x}")).collect();
    let wwid = format!("6525400{}", &digits[..25]);
    let sidecar = Sidecar { serial: wwid[16..].to_owned(), wwid, block_size };
    let mut text = serde_json::to_vec(&sidecar).unwrap_or_default();
    text.push(b'\n');
    // A torn identity would lock the image out.
    replace(&path, &text).map_err(failed("writing"))?;
    Ok(sidecar)
}

fn parse_naa(text: &str) -> Option<[u8; 16]> {
    let well_formed = text.len() == 32 && text.starts_with('6');
    let value = u128::from_str_radix(text, 16).ok().filter(|_| well_formed)?;
    Some(value.to_be_bytes())
}

fn config(
    spec: &SimSpec,
    sidecar: &Sidecar,
    bytes: u64,
    read_only: bool,
) -> Result<LuConfig, OpenError> {
    let why = "wwid".to_owned();
    let wwid_naa = parse_naa(&sidecar.wwid)
        .ok_or_else(|| OpenError::Sidecar { path: spec.image.clone(), why })?;
    let personality = spec.personality.unwrap_or_default();
    Ok(LuConfig {
        personality,
        tpgs: spec.tpgs.unwrap_or(personality.tpgs()),
        wwid_naa,
        serial: sidecar.serial.clone(),
        block_size: sidecar.block_size,
        physical_block_exp: if sidecar.block_size == 512 { 3 } else { 0 },
        blocks: bytes / u64::from(sidecar.block_size),
        read_only,
        ..LuConfig::default()
    })
}
