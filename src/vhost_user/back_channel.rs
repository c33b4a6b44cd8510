//! The back-end channel: the socket a front-end gives us so that we may speak
//! first (SET_BACKEND_REQ_FD).
//!
//! One thing is said on it: CONFIG_CHANGE_MSG, "read the configuration space
//! again". Nothing here ever waits for the front-end. A message that does not
//! fit goes when there is room, an acknowledgement is read when it is there,
//! and one that never comes is not missed. A channel that is closed, or on
//! which anything but the acknowledgements due arrives, is given up; the
//! connection goes on without it.
//!
//! The `vhost` crate keeps the descriptor to itself and cannot send this
//! message, so the message that brings it is taken off the connection here.
//! Not here: when there is something to tell (`session`). Listener's thread
//! only. Specification: `vhost-user.rst`, "Back-end communication" and
//! "Back-end message types".

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{BackendReq, FrontendReq, VhostUserHeaderFlag};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::sys::socket::{receive_now, receive_with_files, send_now};

/// Request, flags, size of the body.
const HEADER_LEN: usize = 12;
/// A header and the eight bytes of an acknowledgement.
const ACK_LEN: usize = HEADER_LEN + 8;
/// Version of the protocol, in the two lowest bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
/// Acknowledgements looked at before the connection has its turn.
const ACKS_AT_ONCE: usize = 16;

/// What became of the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The front-end has read the space again, or will.
    Taken,
    /// It could not.
    Refused,
}

/// Why a channel is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The other end is closed, as it is at the end of every connection.
    Closed(String),
    /// It is not used as it should be.
    Abused(&'static str),
}

impl Lost {
    fn by(error: &io::Error) -> Lost {
        Lost::Closed(error.to_string())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Closed(how) => write!(f, "the front-end closed it: {how}"),
            Lost::Abused(how) => write!(f, "the front-end {how}"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct BackChannel {
    socket: UnixStream,
    /// Acknowledgements are asked for.
    acknowledged: bool,
    /// There was no room for a message.
    owed: bool,
    /// Messages that are to be acknowledged.
    unanswered: u64,
    /// What has come of the next acknowledgement.
    ack: [u8; ACK_LEN],
    got: usize,
}

impl BackChannel {
    /// A channel over the front-end's socket, watched by `epoll` from now on.
    /// `acknowledged`: REPLY_ACK is in force.
    pub(super) fn open(
        socket: UnixStream,
        acknowledged: bool,
        epoll: &Epoll,
    ) -> io::Result<BackChannel> {
        let channel = BackChannel {
            socket,
            acknowledged,
            owed: false,
            unanswered: 0,
            ack: [0; ACK_LEN],
            got: 0,
        };
        channel.watch(epoll, ControlOperation::Add)?;
        Ok(channel)
    }

    /// Not watched any more. Not by closing it alone: the front-end may keep a
    /// copy of our end, and with it the registration.
    pub(super) fn close(self, epoll: &Epoll) {
        if let Err(error) = self.watch(epoll, ControlOperation::Delete) {
            log::warn!("back-end channel: {error}");
        }
    }

    fn watch(&self, epoll: &Epoll, how: ControlOperation) -> io::Result<()> {
        let events = if self.owed { EventSet::IN | EventSet::OUT } else { EventSet::IN };
        let fd = self.socket.as_raw_fd();
        epoll.ctl(how, fd, EpollEvent::new(events, u64::from(fd.unsigned_abs())))
    }

    /// Has the front-end read the configuration space again; at once, or as
    /// soon as it makes room.
    pub(super) fn tell_config_changed(&mut self, epoll: &Epoll) -> Result<(), Lost> {
        let wants_ack = if self.acknowledged { VhostUserHeaderFlag::NEED_REPLY.bits() } else { 0 };
        let request = u32::from(BackendReq::CONFIG_CHANGE_MSG);
        let message = words([request, VERSION | wants_ack, 0]);
        let owed = match send_now(self.socket.as_fd(), &message) {
            // The kernel takes so short a message whole or not at all.
            Ok(sent) if sent == message.len() => {
                self.unanswered += u64::from(self.acknowledged);
                false
            }
            Ok(_) => return Err(Lost::Abused("takes half a message")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => return Err(Lost::by(&error)),
        };
        if owed != self.owed {
            self.owed = owed;
            self.watch(epoll, ControlOperation::Modify).map_err(|error| Lost::by(&error))?;
        }
        Ok(())
    }

    /// Something has happened on it: what is owed is tried again, and what has
    /// been answered is read. The last answer counts.
    pub(super) fn attend(&mut self, epoll: &Epoll) -> Result<Option<Answer>, Lost> {
        if self.owed {
            self.tell_config_changed(epoll)?;
        }
        let mut last = None;
        for _ in 0..ACKS_AT_ONCE {
            match self.read_ack()? {
                Some(answer) => last = Some(answer),
                None => break,
            }
        }
        Ok(last)
    }

    fn read_ack(&mut self) -> Result<Option<Answer>, Lost> {
        while self.got < ACK_LEN {
            match receive_now(self.socket.as_fd(), &mut self.ack[self.got..]) {
                Ok(0) => return Err(Lost::Closed("end of file".to_owned())),
                Ok(count) => self.got += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::by(&error)),
            }
        }
        self.got = 0;
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&self.ack[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let is_ack = word(0) == u32::from(BackendReq::CONFIG_CHANGE_MSG)
            && word(4) & VhostUserHeaderFlag::REPLY.bits() != 0
            && word(8) == 8;
        if !is_ack || self.unanswered == 0 {
            return Err(Lost::Abused("sent something else than acknowledgements"));
        }
        self.unanswered -= 1;
        let refused = self.ack[HEADER_LEN..].iter().any(|byte| *byte != 0);
        Ok(Some(if refused { Answer::Refused } else { Answer::Taken }))
    }
}

impl AsRawFd for BackChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn words(words: [u32; 3]) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Takes SET_BACKEND_REQ_FD, whose header is the next thing in `stream`, and
/// the descriptor that comes with it. Waits for no longer than the stream's
/// read timeout.
///
/// # Errors
/// Its end or its timeout; `InvalidData` for a message that is none: with a
/// body, of another version, or with several descriptors.
pub(super) fn take_message(mut stream: &UnixStream) -> io::Result<Option<File>> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut header = [0; HEADER_LEN];
    let (got, mut files) = receive_with_files(stream.as_fd(), &mut header)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut header[got..])?;
    let flags = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let is_request = flags & (VERSION_MASK | VhostUserHeaderFlag::REPLY.bits()) == VERSION;
    if !is_request || header[8..] != [0; 4] {
        return Err(malformed("the message is malformed"));
    }
    if files.len() > 1 {
        return Err(malformed("more than one file descriptor"));
    }
    Ok(files.pop())
}

/// Acknowledges SET_BACKEND_REQ_FD.
pub(super) fn acknowledge(mut stream: &UnixStream, taken: bool) -> io::Result<()> {
    let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
    let mut message = [0; ACK_LEN];
    message[..HEADER_LEN].copy_from_slice(&words([
        u32::from(FrontendReq::SET_BACKEND_REQ_FD),
        flags,
        8,
    ]));
    message[HEADER_LEN..].copy_from_slice(&u64::from(!taken).to_ne_bytes());
    stream.write_all(&message)
}

#[cfg(test)]
mod tests;
