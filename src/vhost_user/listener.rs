//! The thread that accepts front-ends and serves them, one at a time.
//!
//! Garbage or a refused request ends a connection, never the thread; then the
//! next one is accepted. Rings that an ended connection leaves behind are
//! awaited here, and while any is missing the next connection is served in
//! everything but ring starts. Not here: what messages do (`session`).

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};
use vhost_user_backend::VhostUserBackend;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::queue::RingHost;
use crate::vhost_user::back_channel::{self, Answer, BackChannel, Lost};
use crate::vhost_user::peer::Peer;
use crate::vhost_user::session::{Session, SessionError};
use crate::vhost_user::socket::{Kind, Socket};
use crate::vhost_user::stragglers::Stragglers;
use crate::vhost_user::vring;
use crate::vhost_user::{DisconnectReason, Extras, SHARE_MEMORY, SessionEvent, Settings};

/// A front-end that stops in the middle of a message is given up after this.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same in the middle of a header, which is sent at once: so many looks,
/// and how long between them.
const HEADER_LOOKS: u32 = 200;
const HEADER_LOOK: Duration = Duration::from_millis(5);
/// How often rings left behind are looked for, in milliseconds.
const STRAGGLER_POLL: i32 = 20;

/// Told of everything that happens to the connection, on the listener's thread.
pub type EventSink = Box<dyn Fn(SessionEvent) + Send>;

/// A running listener. Dropping it shuts it down without waiting.
#[derive(Debug)]
pub struct ListenerHandle {
    stop: EventFd,
    news: EventFd,
    shutdown: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl ListenerHandle {
    /// Ends the connection and the listening; rings are stopped and left
    /// marked in flight. Returns at once.
    pub fn shutdown(&self) {
        self.shutdown.store(true, Ordering::Relaxed);
        // Cannot fail: the counter is far from full and the fd is ours.
        let _ = self.stop.write(1);
    }

    /// The device's configuration space has changed by itself: a front-end
    /// that gave a back-end channel is told, once its rings run. Never waits.
    pub fn config_changed(&self) {
        // As above.
        let _ = self.news.write(1);
    }

    /// Shuts down and waits until every ring is back, at most the command
    /// timeout and margin; returns how many rings the kernel still keeps
    /// commands of.
    pub fn join(mut self) -> usize {
        self.shutdown();
        self.thread.take().map_or(0, |thread| thread.join().unwrap_or(0))
    }

    /// Whether the thread has ended (see [`SessionEvent::Finished`]).
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for ListenerHandle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Starts serving `device` on `socket`, its rings run by `host`.
///
/// # Errors
///
/// No eventfd or no thread.
pub fn spawn<B>(
    socket: Socket,
    device: Arc<B>,
    host: Arc<dyn RingHost>,
    settings: Settings,
    events: EventSink,
) -> io::Result<ListenerHandle>
where
    B: VhostUserBackend<Bitmap = ()> + Extras + 'static,
{
    let stop = EventFd::new(EFD_NONBLOCK)?;
    let news = EventFd::new(EFD_NONBLOCK)?;
    let shutdown = Arc::new(AtomicBool::new(false));
    let listener = Listener {
        device,
        host,
        settings,
        events,
        stop: stop.try_clone()?,
        news: news.try_clone()?,
        shutdown: Arc::clone(&shutdown),
        stragglers: Stragglers::default(),
    };
    let thread =
        thread::Builder::new().name("vhost-user".into()).spawn(move || listener.run(socket))?;
    Ok(ListenerHandle { stop, news, shutdown, thread: Some(thread) })
}

struct Listener<B> {
    device: Arc<B>,
    host: Arc<dyn RingHost>,
    settings: Settings,
    events: EventSink,
    stop: EventFd,
    news: EventFd,
    shutdown: Arc<AtomicBool>,
    stragglers: Stragglers,
}

impl<B: VhostUserBackend<Bitmap = ()> + Extras> Listener<B> {
    fn run(mut self, socket: Socket) -> usize {
        let result = match &socket.kind {
            Kind::Listening(listener) => self.accept_loop(listener),
            Kind::Connected(stream) => stream.try_clone().and_then(|s| self.serve(s, None)),
        };
        if let Err(error) = result {
            log::error!("vhost-user socket: {error}");
        }
        // Nobody can connect any more while the last rings come home.
        drop(socket);
        let left = self.await_stragglers();
        self.tell(SessionEvent::Finished);
        left
    }

    fn tell(&self, event: SessionEvent) {
        (self.events)(event);
    }

    fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::Relaxed)
    }

    fn accept_loop(&mut self, listener: &UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let epoll = watch(&[self.stop.as_raw_fd(), listener.as_raw_fd()])?;
        while !self.is_shutting_down() {
            wait(&epoll, self.poll_timeout())?;
            self.poll_stragglers();
            match listener.accept() {
                Ok((stream, _)) => self.serve(stream, Some(listener))?,
                Err(e) if is_passing(&e) => {}
                // Out of descriptors or memory: the connection stays pending.
                Err(e) if is_shortage(&e) => {
                    log::error!("vhost-user socket: cannot accept: {e}");
                    thread::sleep(Duration::from_secs(1));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Milliseconds to sleep at most; -1 = until something happens.
    fn poll_timeout(&self) -> i32 {
        if self.stragglers.len() > 0 { STRAGGLER_POLL } else { -1 }
    }

    /// Returns whether the last ring left behind has just come back.
    fn poll_stragglers(&mut self) -> bool {
        if self.stragglers.len() == 0 {
            return false;
        }
        self.stragglers.poll(&*self.host, self.settings.stop_deadline());
        let none_left = self.stragglers.len() == 0;
        if none_left {
            self.tell(SessionEvent::RingsReturned);
        }
        none_left
    }

    /// Rings with nothing in the kernel come back within a moment: those are
    /// no event.
    fn await_briefly(&mut self) {
        for _ in 0..STRAGGLER_POLL {
            self.stragglers.poll(&*self.host, self.settings.stop_deadline());
            if self.stragglers.len() == 0 || self.is_shutting_down() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn await_stragglers(&mut self) -> usize {
        let slice = Duration::from_millis(STRAGGLER_POLL.unsigned_abs().into());
        let mut waited = Duration::ZERO;
        let limit = self.settings.stop_deadline() + self.settings.margin;
        while self.stragglers.len() > 0 && waited < limit {
            self.poll_stragglers();
            thread::sleep(slice.min(limit));
            waited += slice;
        }
        self.stragglers.len()
    }

    /// One connection from beginning to end. Errors are the listener's own;
    /// whatever is wrong with the connection is reported and over.
    fn serve(&mut self, stream: UnixStream, others: Option<&UnixListener>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
        stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
        self.tell(SessionEvent::Connected);
        let session = Arc::new(Mutex::new(Session::new(
            Arc::clone(&self.device),
            Arc::clone(&self.host),
            self.settings,
            Arc::clone(&self.shutdown),
            self.stragglers.len() > 0,
            Peer::of(&stream),
        )));
        let reason = self.converse(stream, &session, others);
        self.stragglers.append(lock(&session).close());
        self.await_briefly();
        self.tell(SessionEvent::Disconnected { reason: reason? });
        // At the end of the daemon no ring starts anyway.
        if self.stragglers.len() > 0 && !self.is_shutting_down() {
            self.tell(SessionEvent::RingsHeld(self.stragglers.len()));
        }
        Ok(())
    }

    fn converse(
        &mut self,
        stream: UnixStream,
        session: &Arc<Mutex<Session<B>>>,
        others: Option<&UnixListener>,
    ) -> io::Result<DisconnectReason> {
        let header = HeaderPeek::of(&stream)?;
        let mut watched = vec![self.stop.as_raw_fd(), self.news.as_raw_fd(), stream.as_raw_fd()];
        watched.extend(others.map(AsRawFd::as_raw_fd));
        let mut line =
            Line { epoll: watch(&watched)?, stream: stream.try_clone()?, back: None, lost: None };
        let client = stream.as_raw_fd();
        let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(session));
        loop {
            let ready = wait(&line.epoll, self.poll_timeout())?;
            if self.is_shutting_down() {
                return Ok(DisconnectReason::Shutdown);
            }
            if self.poll_stragglers() {
                if let Err(refusal) = lock(session).release() {
                    return Ok(DisconnectReason::Refused(refusal.to_string()));
                }
            }
            self.attend_channel(&mut line, &ready, session);
            if ready.contains(&client) {
                let header = match header.next(&self.shutdown)? {
                    Next::Header(header) => Some(header),
                    Next::Gone => None,
                    Next::Stalled if self.is_shutting_down() => {
                        return Ok(DisconnectReason::Shutdown);
                    }
                    Next::Stalled => {
                        let what = "the header of a message does not end";
                        return Ok(DisconnectReason::Protocol(what.to_owned()));
                    }
                };
                let taken = header.is_some_and(|h| h.is(FrontendReq::SET_BACKEND_REQ_FD))
                    && lock(session).takes_channel();
                let over = if taken {
                    self.take_channel(&mut line, header, session)?
                } else {
                    let handled = handler.handle_request();
                    let gives_area = |h: Header| h.is(FrontendReq::SET_INFLIGHT_FD);
                    if handled.is_ok() && header.is_some_and(gives_area) {
                        self.tell(SessionEvent::AreaGiven);
                    }
                    handled.err().and_then(|error| self.judge(header, &error, session))
                };
                if let Some(reason) = over {
                    return Ok(reason);
                }
            } else if let Some(listener) = others.filter(|l| ready.contains(&l.as_raw_fd())) {
                // Only if ours was silent at that same moment: else it may be
                // gone, and this may be the same front-end coming back.
                self.send_away(listener);
            }
            self.tell_config(&mut line, session);
        }
    }

    /// SET_BACKEND_REQ_FD; the reason if the connection is over with it.
    fn take_channel(
        &self,
        line: &mut Line,
        header: Option<Header>,
        session: &Mutex<Session<B>>,
    ) -> io::Result<Option<DisconnectReason>> {
        let file = match back_channel::take_message(&line.stream) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let what = format!("SET_BACKEND_REQ_FD: {error}");
                return Ok(Some(DisconnectReason::Protocol(what)));
            }
            Err(error) if is_passing(&error) => {
                let what = "SET_BACKEND_REQ_FD: the message does not end";
                return Ok(Some(DisconnectReason::Protocol(what.to_owned())));
            }
            Err(_) => return Ok(Some(DisconnectReason::Closed)),
        };
        let mut session = lock(session);
        let socket = file.and_then(|file| vring::socket_pair(file).ok());
        let taken = socket.is_some();
        if let Some(socket) = socket {
            line.give_up();
            line.back = Some(BackChannel::open(socket, session.acknowledges(), &line.epoll)?);
            session.channel_changed();
        }
        let asked = header.is_some_and(Header::is_acknowledged) && session.acknowledges();
        if asked && back_channel::acknowledge(&line.stream, taken).is_err() {
            return Ok(Some(DisconnectReason::Closed));
        }
        let (request, reason) =
            ("SET_BACKEND_REQ_FD".to_owned(), SessionError::NotAChannel.to_string());
        Ok(match (taken, asked) {
            (true, _) => None,
            (false, true) => {
                self.tell(SessionEvent::RequestRefused { request, reason });
                None
            }
            (false, false) => {
                Some(DisconnectReason::Refused(format!("{request} refused: {reason}")))
            }
        })
    }

    /// Reads what the front-end has answered.
    fn attend_channel(&self, line: &mut Line, ready: &[RawFd], session: &Mutex<Session<B>>) {
        if ready.contains(&self.news.as_raw_fd()) {
            // Nothing but a wake-up: the session knows what there is to tell.
            let _ = self.news.read();
        }
        let Line { epoll, back, .. } = line;
        let Some(channel) = back.as_mut().filter(|b| ready.contains(&b.as_raw_fd())) else {
            return;
        };
        match channel.attend(epoll) {
            Ok(None) => {}
            Ok(Some(Answer::Taken)) => log::debug!("the front-end has taken the change"),
            Ok(Some(Answer::Refused)) => self.tell(SessionEvent::ConfigRefused),
            // Mostly the connection is over, too: told once it is missed.
            Err(closed @ Lost::Closed(_)) => {
                line.give_up();
                line.lost = Some(closed);
                // What was told by it last may not have arrived.
                lock(session).channel_changed();
            }
            Err(abused @ Lost::Abused(_)) => self.lose_channel(line, &abused),
        }
    }

    /// Tells the front-end that the configuration space has changed, if that
    /// is due and there is a way.
    fn tell_config(&self, line: &mut Line, session: &Mutex<Session<B>>) {
        let Line { epoll, back, lost, .. } = line;
        if (back.is_none() && lost.is_none()) || !lock(session).config_is_due() {
            return;
        }
        if let Some(why) = lost.take() {
            self.tell(SessionEvent::ChannelLost(why.to_string()));
        } else if let Some(Err(why)) = back.as_mut().map(|back| back.tell_config_changed(epoll)) {
            self.lose_channel(line, &why);
        }
    }

    fn lose_channel(&self, line: &mut Line, why: &Lost) {
        line.give_up();
        self.tell(SessionEvent::ChannelLost(why.to_string()));
    }

    /// Refuses whoever has waited longest to connect.
    fn send_away(&self, listener: &UnixListener) {
        if let Ok((stream, _)) = listener.accept() {
            drop(stream);
            self.tell(SessionEvent::ClientRefused);
        }
    }

    /// What a failed request means for the connection: its end, or nothing
    /// where the front-end has been told that it failed.
    fn judge(
        &self,
        header: Option<Header>,
        error: &Error,
        session: &Mutex<Session<B>>,
    ) -> Option<DisconnectReason> {
        if self.is_shutting_down() {
            // Waits were cut short; that is not the request's fault.
            return Some(DisconnectReason::Shutdown);
        }
        let mut session = lock(session);
        let request = header.map_or_else(|| "a request".into(), |h| h.name());
        if let Some(refusal) = session.take_refusal() {
            let told = session.acknowledges() && header.is_some_and(|h| h.is_acknowledged());
            let reason = refusal.to_string();
            if told && !refusal.is_fatal() {
                self.tell(SessionEvent::RequestRefused { request, reason });
                return None;
            }
            return Some(DisconnectReason::Refused(format!("{request} refused: {reason}")));
        }
        Some(match error {
            Error::Disconnected | Error::SocketBroken(_) => DisconnectReason::Closed,
            // Mostly the peer went away before a message, not within one.
            Error::PartialMessage if header.is_none() => DisconnectReason::Closed,
            Error::SocketRetry(_) => {
                DisconnectReason::Protocol(format!("{request}: the message does not end"))
            }
            Error::InvalidMessage if header.is_some_and(|h| h.is(FrontendReq::SET_MEM_TABLE)) => {
                DisconnectReason::Protocol(format!(
                    "{request} is malformed or has no file descriptors; {SHARE_MEMORY}"
                ))
            }
            other => DisconnectReason::Protocol(format!("{request}: {other}")),
        })
    }
}

/// A connection's sockets, and what watches them.
struct Line {
    epoll: Epoll,
    stream: UnixStream,
    back: Option<BackChannel>,
    /// Why there is no back-end channel any more, until that is told.
    lost: Option<Lost>,
}

impl Line {
    /// Lets go of the back-end channel.
    fn give_up(&mut self) {
        self.lost = None;
        if let Some(channel) = self.back.take() {
            channel.close(&self.epoll);
        }
    }
}

/// A session's state is never left half-changed by a panic: the release build
/// aborts, and tests end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn is_shortage(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS].into_iter().any(|e| Some(e) == code)
}

fn watch(fds: &[RawFd]) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    for &fd in fds {
        let event = EpollEvent::new(EventSet::IN, u64::from(fd.unsigned_abs()));
        epoll.ctl(ControlOperation::Add, fd, event)?;
    }
    Ok(epoll)
}

/// Waits for any of the watched descriptors; returns those that are ready.
fn wait(epoll: &Epoll, timeout: i32) -> io::Result<Vec<RawFd>> {
    let mut events = [EpollEvent::default(); 5];
    match epoll.wait(timeout, &mut events) {
        Ok(count) => Ok(events[..count].iter().map(EpollEvent::fd).collect()),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The first two words of a message.
#[derive(Clone, Copy, Debug)]
struct Header {
    request: u32,
    flags: u32,
}

impl Header {
    const NEED_REPLY: u32 = 8;
    /// With the size of the body.
    const LEN: usize = 12;

    fn of(bytes: &[u8; Header::LEN]) -> Header {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header { request: word(0), flags: word(4) }
    }

    fn is(self, request: FrontendReq) -> bool {
        self.request == u32::from(request)
    }

    fn name(self) -> String {
        match FrontendReq::try_from(self.request) {
            Ok(request) => format!("{request:?}"),
            Err(()) => format!("request {}", self.request),
        }
    }

    /// Whether failure is told by the acknowledgement asked for. A request
    /// with a reply of its own has no way to fail.
    fn is_acknowledged(self) -> bool {
        let replies = self.is(FrontendReq::GET_VRING_BASE)
            || self.is(FrontendReq::GET_INFLIGHT_FD)
            || self.is(FrontendReq::GET_SHMEM_CONFIG)
            || self.is(FrontendReq::SET_LOG_BASE);
        self.flags & Header::NEED_REPLY != 0 && !replies
    }
}

/// Looks at the next message before the `vhost` crate takes it: the crate does
/// not tell its handler whether an acknowledgement was asked for, nor us which
/// request it could not stomach.
struct HeaderPeek {
    /// `UnixStream::peek` is not stable yet. What it would do, and what
    /// `TcpStream::peek` does, is one `recv(MSG_PEEK)`, which is the same for
    /// any stream socket; nothing else is ever called on this.
    socket: TcpStream,
}

impl HeaderPeek {
    fn of(stream: &UnixStream) -> io::Result<HeaderPeek> {
        Ok(HeaderPeek { socket: TcpStream::from(OwnedFd::from(stream.try_clone()?)) })
    }

    /// The next header, once all of it is there: the crate would wait for the
    /// rest of one for ever.
    fn next(&self, shutdown: &AtomicBool) -> io::Result<Next> {
        let mut bytes = [0; Header::LEN];
        for _ in 0..HEADER_LOOKS {
            match self.socket.peek(&mut bytes) {
                Ok(0) => return Ok(Next::Gone),
                Ok(Header::LEN) => return Ok(Next::Header(Header::of(&bytes))),
                Ok(_) if shutdown.load(Ordering::Relaxed) => return Ok(Next::Stalled),
                Ok(_) => thread::sleep(HEADER_LOOK),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(Next::Gone),
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Next::Stalled)
    }
}

/// What lies in the socket.
enum Next {
    Header(Header),
    /// A piece of one; no more came.
    Stalled,
    /// Nothing: the peer is gone.
    Gone,
}

#[cfg(test)]
mod tests;
