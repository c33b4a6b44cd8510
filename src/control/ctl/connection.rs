//! A QMP client: enough of it to ask one thing and to listen for events.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::wildcards::FormatError;

/// The daemon answers everything but `path-add` at once, and that within some
/// command timeouts.
const PATIENCE: Duration = Duration::from_secs(300);
/// The greeting comes at once, or never: from another kind of socket, or a
/// daemon that is stopped.
const GREETING: Duration = Duration::from_secs(5);

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CtlError {
    /// `--control` is missing.
    #[error("--control is missing: give the socket that the daemon was started with")]
    NoSocketGiven,
    /// Nothing there, or a dead daemon's socket.
    #[error(
        "no daemon listens on {0}: start one with `vhost-mpath --socket-path … --path … --control {0}`"
    )]
    NoDaemon(PathBuf),
    /// EACCES.
    #[error("{0}: permission denied; the control socket is for the daemon's own user (and root)")]
    Permission(PathBuf),
    /// Another error of connect(2), read(2) or write(2).
    #[error("{path}: {doing} failed: {error}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// Something listens there and says nothing.
    #[error(
        "{path}: no greeting within {} s: this is not a control socket (the one of --socket-path \
         is QEMU's), or the daemon is stopped", GREETING.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// It went away in the middle.
    #[error("{0}: the daemon ended the connection; its log says why")]
    Gone(PathBuf),
    /// Something listens there, but no daemon of ours.
    #[error("{path}: what answers there is no vhost-mpath of this version ({what})")]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is strange.
        what: String,
    },
    /// The daemon says no; its words.
    #[error("{0}")]
    Refused(String),
    /// A scenario file that cannot be read or understood.
    #[error("{file}: {why}")]
    Scenario {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A format that cannot be understood.
    #[error("{0}")]
    Format(FormatError),
    /// Standard output.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// A negotiated connection.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    events: VecDeque<Value>,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Connection, CtlError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CtlError::NoDaemon(path.to_owned())
            }
            io::ErrorKind::PermissionDenied => CtlError::Permission(path.to_owned()),
            _ => CtlError::Io { path: path.to_owned(), doing: "connecting", error },
        })?;
        let mut this = Connection {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            events: VecDeque::new(),
        };
        this.stream
            .get_ref()
            .set_read_timeout(Some(GREETING))
            .map_err(|error| this.failed("setting a timeout", error))?;
        let greeting = match this.read() {
            Err(CtlError::Io { error, .. }) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(CtlError::Silent { path: path.to_owned() });
            }
            greeting => greeting?.ok_or_else(|| CtlError::Gone(path.to_owned()))?,
        };
        this.stream
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .map_err(|error| this.failed("setting a timeout", error))?;
        if let Some(desc) = greeting["error"]["desc"].as_str() {
            return Err(CtlError::Refused(desc.to_owned()));
        }
        if !greeting["QMP"].is_object() {
            return Err(this.foreign("no QMP greeting"));
        }
        this.ask("qmp_capabilities", &json!({}))?;
        Ok(this)
    }

    /// One command and its answer; events on the way are kept.
    pub(super) fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, CtlError> {
        let mut request = json!({ "execute": command });
        if arguments.as_object().is_some_and(|a| !a.is_empty()) {
            request["arguments"] = arguments.clone();
        }
        let text = format!("{request}\n");
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        sent.map_err(|error| self.failed("sending", error))?;
        loop {
            let Some(mut message) = self.read()? else {
                return Err(CtlError::Gone(self.path.clone()));
            };
            if message["event"].is_string() {
                self.events.push_back(message);
            } else if let Some(desc) = message["error"]["desc"].as_str() {
                return Err(CtlError::Refused(desc.to_owned()));
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// The next event, however long it takes; `None` when the daemon has ended.
    pub(super) fn next_event(&mut self) -> Result<Option<Value>, CtlError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.stream
            .get_ref()
            .set_read_timeout(None)
            .map_err(|error| self.failed("setting a timeout", error))?;
        self.read()
    }

    pub(super) fn foreign(&self, what: &str) -> CtlError {
        CtlError::Foreign { path: self.path.clone(), what: what.to_owned() }
    }

    fn failed(&self, doing: &'static str, error: io::Error) -> CtlError {
        CtlError::Io { path: self.path.clone(), doing, error }
    }

    /// The daemon writes one message per line.
    fn read(&mut self) -> Result<Option<Value>, CtlError> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|error| self.foreign(&error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(self.failed("waiting for an answer", error)),
        }
    }
}
