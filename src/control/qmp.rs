//! The QMP server: clients of the control socket, their framing and answers.
//!
//! Speaks QEMU's machine protocol (`qmp-spec.rst`): greeting, capability
//! negotiation, one answer per command in order, events to everybody. Never
//! waits for a client: one that does not read is dropped. Knows nothing of
//! what a command does (`control::requests`); owned by the control thread.

mod framing;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::sys::poll::{Interest, PollFd};
use crate::vhost_user::socket::{Access, Socket, SocketError};
use framing::{Frame, Framer};

/// Most clients at once.
const MAX_CLIENTS: usize = 32;
/// A client that leaves more than this unread is dropped.
const MAX_UNREAD: usize = 1 << 20;

/// Names a client; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId(u64);

/// Why a command failed, as QMP says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QmpError {
    class: &'static str,
    desc: String,
}

impl QmpError {
    /// Anything.
    pub(super) fn generic(desc: impl Into<String>) -> QmpError {
        QmpError { class: "GenericError", desc: desc.into() }
    }

    /// No such command, or not now.
    pub(super) fn not_found(desc: impl Into<String>) -> QmpError {
        QmpError { class: "CommandNotFound", desc: desc.into() }
    }
}

/// What a command returns.
pub(super) type Answer = Result<Value, QmpError>;

/// A command that waits for its answer; the client is asked nothing more
/// until [`Server::answer`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) client: ClientId,
    pub(super) command: String,
    pub(super) arguments: Map<String, Value>,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    framer: Framer,
    unsent: Vec<u8>,
    negotiated: bool,
    /// A command is being carried out; its `id`.
    busy: Option<Option<Value>>,
    /// Nothing more will come.
    ended: bool,
    /// To be dropped, once what is unsent is out if that is possible.
    closing: bool,
    broken: bool,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    socket: Socket,
    clients: Vec<Client>,
    next: u64,
}

impl Server {
    /// Listens at `path`, for the socket's owner only.
    pub(super) fn bind(path: &Path) -> Result<Server, SocketError> {
        let socket = Socket::bind(path, Access { mode: Some(0o600), group: None })?;
        let nonblocking = socket.listener().map_or(Ok(()), |l| l.set_nonblocking(true));
        nonblocking.map_err(|error| {
            let what = "make it non-blocking";
            SocketError::Io { path: path.into(), what, error }
        })?;
        Ok(Server { socket, clients: Vec::new(), next: 0 })
    }

    /// What to wait for.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(listener) = self.socket.listener() {
            fds.push(PollFd::new(listener.as_fd(), Interest::READ));
        }
        for client in &self.clients {
            let read = !client.ended && client.framer.room() > 0;
            let interest = Interest { read, write: !client.unsent.is_empty() };
            // One we want nothing of could report its end over and over.
            if interest != Interest::default() {
                fds.push(PollFd::new(client.stream.as_fd(), interest));
            }
        }
    }

    /// Accepts and reads what can be without waiting. What was read must be
    /// worked off with [`Server::next_request`] before the next wait.
    pub(super) fn receive(&mut self) {
        self.accept();
        for client in &mut self.clients {
            client.read();
        }
    }

    /// Writes what can be without waiting; lets go of clients that are gone.
    pub(super) fn send(&mut self) {
        for client in &mut self.clients {
            client.flush();
        }
        self.clients.retain(|client| !client.is_over());
    }

    /// The next command to carry out. What is no command is answered here.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.clients.iter_mut().find_map(Client::next_request)
    }

    /// Answers the command a client waits for; a client that is gone gets
    /// nothing.
    pub(super) fn answer(&mut self, client: ClientId, answer: Answer) {
        let Some(client) = self.clients.iter_mut().find(|c| c.id == client) else { return };
        if let Some(id) = client.busy.take() {
            client.reply(id, answer);
            client.flush();
        }
    }

    /// Tells an event to every client that has negotiated.
    pub(super) fn broadcast(&mut self, name: &str, data: &Map<String, Value>) {
        let event = json!({ "event": name, "data": data, "timestamp": timestamp() });
        for client in self.clients.iter_mut().filter(|c| c.negotiated) {
            client.send(&event);
            client.flush();
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.socket.listener().map(|l| l.accept()) {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client::new(ClientId(self.next), stream);
            self.next += 1;
            if self.clients.len() < MAX_CLIENTS {
                client.send(&greeting());
            } else {
                let desc = format!("{MAX_CLIENTS} clients are connected already");
                client.reply(None, Err(QmpError::generic(desc)));
                client.closing = true;
            }
            self.clients.push(client);
        }
    }
}

impl Client {
    fn new(id: ClientId, stream: UnixStream) -> Client {
        Client {
            id,
            stream,
            framer: Framer::default(),
            unsent: Vec::new(),
            negotiated: false,
            busy: None,
            ended: false,
            closing: false,
            broken: false,
        }
    }

    fn is_over(&self) -> bool {
        let done = self.busy.is_none() && self.unsent.is_empty();
        self.broken || (done && (self.closing || self.ended))
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while !self.ended && !self.closing && self.framer.room() > 0 {
            let most = buffer.len().min(self.framer.room());
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => self.ended = true,
                Ok(got) => self.framer.feed(&buffer[..got]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
            if self.broken {
                return;
            }
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.broken {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
    }

    fn send(&mut self, message: &Value) {
        if self.unsent.len() > MAX_UNREAD && !self.broken {
            log::warn!("control socket: a client that does not read was dropped");
            self.broken = true;
        }
        if !self.broken {
            self.unsent.extend_from_slice(message.to_string().as_bytes());
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    fn reply(&mut self, id: Option<Value>, answer: Answer) {
        let mut message = match answer {
            Ok(value) => json!({ "return": value }),
            Err(QmpError { class, desc }) => json!({ "error": { "class": class, "desc": desc } }),
        };
        if let Some(id) = id {
            message["id"] = id;
        }
        self.send(&message);
    }

    /// Works off input up to a command that somebody else must carry out.
    fn next_request(&mut self) -> Option<Request> {
        while self.busy.is_none() && !self.closing && !self.broken {
            let frame = self.framer.next();
            match frame {
                None => return None,
                Some(Frame::Garbage(desc)) => self.reply(None, Err(QmpError::generic(desc))),
                Some(Frame::TooLong) => {
                    let desc = format!(
                        "a message is longer than {} bytes; closing the connection",
                        framing::MAX_MESSAGE
                    );
                    self.reply(None, Err(QmpError::generic(desc)));
                    self.closing = true;
                }
                Some(Frame::Value(value)) => {
                    let (id, command) = understand(value);
                    match command.and_then(|c| self.negotiate(c)) {
                        Ok(Some((command, arguments))) => {
                            self.busy = Some(id);
                            return Some(Request { client: self.id, command, arguments });
                        }
                        Ok(None) => self.reply(id, Ok(json!({}))),
                        Err(error) => self.reply(id, Err(error)),
                    }
                }
            }
        }
        None
    }

    /// Lets a command pass if its time has come; `None` for the negotiation
    /// itself.
    fn negotiate(&mut self, command: Command) -> Result<Option<Command>, QmpError> {
        match (command.0.as_str(), self.negotiated) {
            ("qmp_capabilities", false) => {
                self.negotiated = true;
                Ok(None)
            }
            ("qmp_capabilities", true) => Err(QmpError::not_found(
                "Capabilities negotiation is already complete, command ignored",
            )),
            (_, true) => Ok(Some(command)),
            (_, false) => Err(QmpError::not_found(
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            )),
        }
    }
}

type Command = (String, Map<String, Value>);

/// Takes a message apart: its `id`, whatever else is wrong with it, and the
/// command.
fn understand(value: Value) -> (Option<Value>, Result<Command, QmpError>) {
    let Value::Object(mut message) = value else {
        return (None, Err(QmpError::generic("QMP input must be a JSON object")));
    };
    let id = message.remove("id");
    let command = match message.remove("execute") {
        Some(Value::String(command)) => command,
        Some(_) => {
            return (id, Err(QmpError::generic("QMP input member 'execute' must be a string")));
        }
        None => return (id, Err(QmpError::generic("QMP input lacks member 'execute'"))),
    };
    let arguments = match message.remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => {
            let desc = "QMP input member 'arguments' must be an object";
            return (id, Err(QmpError::generic(desc)));
        }
    };
    if let Some(other) = message.keys().next() {
        let desc = format!("QMP input member '{other}' is unexpected");
        return (id, Err(QmpError::generic(desc)));
    }
    (id, Ok((command, arguments)))
}

fn greeting() -> Value {
    json!({ "QMP": { "version": version(), "capabilities": [] } })
}

/// In the shape QEMU's clients expect; the numbers are ours.
pub(super) fn version() -> Value {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    json!({
        "qemu": {
            "major": part(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": part(env!("CARGO_PKG_VERSION_MINOR")),
            "micro": part(env!("CARGO_PKG_VERSION_PATCH")),
        },
        "package": concat!("vhost-mpath ", env!("CARGO_PKG_VERSION")),
    })
}

fn timestamp() -> Value {
    #[allow(clippy::disallowed_methods)] // events carry the time of day
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({ "seconds": now.as_secs(), "microseconds": now.subsec_micros() })
}

#[cfg(test)]
mod tests;
