//! The socket a front-end connects to: made, taken over, or adopted.
//!
//! A socket made here appears under its name only once its mode and group are
//! right: it is bound in a private directory and then renamed. A socket whose
//! owner has died is replaced, one that somebody answers on is not. Not here:
//! accepting (`listener`).

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Longest path a Unix socket address holds, without its final NUL.
const MAX_PATH: usize = 107;
/// How long and how often another process's turn is waited for.
const TURN_POLL: Duration = Duration::from_millis(5);
const TURN_POLLS: usize = 200;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Somebody accepts connections there.
    #[error("{0}: another process is listening on this socket; stop it or choose another path")]
    InUse(PathBuf),
    /// The path names something that is no socket; it is left alone.
    #[error("{0} exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// Its directory does not exist.
    #[error("{0}: its directory does not exist; make it first, with `mkdir -p`")]
    NoDirectory(PathBuf),
    /// EPERM of chown(2).
    #[error(
        "{path}: cannot give the socket to group {group}: {error}; only root may, and members \
         of that group"
    )]
    Group {
        /// The path.
        path: PathBuf,
        /// Group id.
        group: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// Longer than a socket address can hold.
    #[error("{path}: socket paths may have {MAX_PATH} bytes, this one has {len}")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// A system call failed.
    #[error("{path}: cannot {what}: {error}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The adopted file descriptor is no Unix stream socket.
    #[error("file descriptor {fd} is not a Unix socket: {error}")]
    BadFd {
        /// Its number.
        fd: i32,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Who may connect to a socket we make.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// File mode, such as 0o660; None leaves it to the umask.
    pub mode: Option<u32>,
    /// Group id; None leaves it to the system.
    pub group: Option<u32>,
}

/// Where front-ends come from.
#[derive(Debug)]
pub struct Socket {
    pub(super) kind: Kind,
    made: Option<Made>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Listening(UnixListener),
    /// One front-end, already connected.
    Connected(UnixStream),
}

/// A socket file that is ours to remove.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for Made {
    fn drop(&mut self) {
        // Not if somebody has put another one there.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Makes a listening socket at `path`; removed again when dropped.
    ///
    /// # Errors
    ///
    /// A live socket or another file is in the way, the path is too long, or
    /// the kernel refuses; each says what it is.
    pub fn bind(path: &Path, access: Access) -> Result<Socket, SocketError> {
        let len = path.as_os_str().len();
        if len > MAX_PATH {
            return Err(SocketError::TooLong { path: path.into(), len });
        }
        let _turn = turn(path);
        check_free(path)?;
        let private = Private::new(path)?;
        let (listener, at) = private.bind()?;
        if let Some(mode) = access.mode {
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))
                .map_err(|e| failed(path, "set the socket's mode", e))?;
        }
        if let Some(group) = access.group {
            chown(&at, None, Some(group)).map_err(|error| SocketError::Group {
                path: path.into(),
                group,
                error,
            })?;
        }
        let meta = fs::symlink_metadata(&at).map_err(|e| failed(path, "look at the socket", e))?;
        fs::rename(&at, path).map_err(|e| failed(path, "put the socket in place", e))?;
        let made = Some(Made { path: path.into(), id: (meta.dev(), meta.ino()) });
        Ok(Socket { kind: Kind::Listening(listener), made })
    }

    /// Adopts an open socket (`--fd`): listening, or connected already.
    ///
    /// # Errors
    ///
    /// The descriptor is no Unix socket.
    pub fn adopt(fd: OwnedFd) -> Result<Socket, SocketError> {
        let number = fd.as_raw_fd();
        let stream = UnixStream::from(fd);
        stream.local_addr().map_err(|error| SocketError::BadFd { fd: number, error })?;
        // Only a connected socket has a peer.
        let kind = match stream.peer_addr() {
            Ok(_) => Kind::Connected(stream),
            Err(_) => Kind::Listening(UnixListener::from(OwnedFd::from(stream))),
        };
        Ok(Socket { kind, made: None })
    }

    /// The listening socket, unless the adopted one is connected already.
    pub fn listener(&self) -> Option<&UnixListener> {
        match &self.kind {
            Kind::Listening(listener) => Some(listener),
            Kind::Connected(_) => None,
        }
    }

    /// The path of a socket we made.
    pub fn path(&self) -> Option<&Path> {
        self.made.as_ref().map(|m| m.path.as_path())
    }
}

fn failed(path: &Path, what: &'static str, error: io::Error) -> SocketError {
    SocketError::Io { path: path.into(), what, error }
}

/// Our turn to look at the name and to take it, until dropped: two processes
/// that find the same dead socket at once must not both take it over.
///
/// The lock is the directory's name in the kernel's abstract socket namespace,
/// which ends with its process. Whoever blocks it on purpose wins nothing: after a second
/// we go on without (`None`).
fn turn(path: &Path) -> Option<UnixListener> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = fs::metadata(parent).ok()?;
    let name = format!("vhost-mpath {:x}:{:x}", dir.dev(), dir.ino());
    let address = SocketAddr::from_abstract_name(name).ok()?;
    for _ in 0..TURN_POLLS {
        match UnixListener::bind_addr(&address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => thread::sleep(TURN_POLL),
            other => return other.ok(),
        }
    }
    None
}

/// Whether the name may be taken: it is free, or its owner is dead.
fn check_free(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed(path, "look at it", e))?,
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.into())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("{}: taking over the socket of a process that is gone", path.display());
            Ok(())
        }
        Err(e) => Err(failed(path, "find out whether it is in use", e)),
    }
}

/// A directory only we can enter, beside the socket's final place.
struct Private {
    dir: PathBuf,
    target: PathBuf,
}

impl Private {
    fn new(target: &Path) -> Result<Private, SocketError> {
        let parent = target.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let dir = parent.join(format!(".vhost-mpath.{}", std::process::id()));
        let mut last = None;
        // Another disk of this process may be at it too, or an earlier process
        // of our number have left its directory.
        for attempt in 0..100 {
            let dir = dir.with_extension(format!("{}.{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Private { dir, target: target.into() }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = Some(e),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(SocketError::NoDirectory(target.into()));
                }
                Err(e) => return Err(failed(target, "create a directory beside it", e)),
            }
        }
        let error = last.unwrap_or_else(|| io::Error::other("no name left"));
        Err(failed(target, "create a directory beside it", error))
    }

    /// Binds through the directory's descriptor, so that the longer path does
    /// not count against the limit.
    fn bind(&self) -> Result<(UnixListener, PathBuf), SocketError> {
        let dir =
            File::open(&self.dir).map_err(|e| failed(&self.target, "open its directory", e))?;
        let short = format!("/proc/self/fd/{}/s", dir.as_raw_fd());
        let listener =
            UnixListener::bind(short).map_err(|e| failed(&self.target, "bind the socket", e))?;
        Ok((listener, self.dir.join("s")))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.join("s"));
        let _ = fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests;
