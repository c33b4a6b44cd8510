//! What a front-end sees of the channel, and what a hostile one can do to us by it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::vhost_user::rig::*;
use crate::vhost_user::{SessionEvent, rig};

fn rig() -> Rig {
    Rig::with(Device { changing: true, ..Device::default() })
}

/// The front-end's end of a channel that it has just given.
fn channel(client: &mut Client) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    client.frontend.set_backend_request_fd(&theirs).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    ours
}

/// Flags of the next message, which says that the configuration has changed.
fn told(channel: &mut UnixStream) -> u32 {
    let mut words = [0; 12];
    channel.read_exact(&mut words).unwrap();
    assert_eq!((words[..4].to_vec(), &words[8..]), (2u32.to_ne_bytes().to_vec(), &[0; 4][..]));
    u32::from_ne_bytes(words[4..8].try_into().unwrap())
}

/// Nothing comes, though everything that was sent before has been dealt with.
fn quiet(client: &Client, channel: &mut UnixStream) {
    client.frontend.get_features().unwrap();
    client.frontend.get_features().unwrap();
    channel.set_nonblocking(true).unwrap();
    let nothing = channel.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    channel.set_nonblocking(false).unwrap();
}

fn answer(channel: &mut UnixStream, value: u64) {
    let mut ack = [2u32, 5, 8].map(u32::to_ne_bytes).concat();
    ack.extend(value.to_ne_bytes());
    channel.write_all(&ack).unwrap();
}

/// SET_BACKEND_REQ_FD as nobody should send it.
fn rude(client: &Client, raw: &UnixStream, words: [u32; 3], fds: &[RawFd]) {
    client.frontend.get_features().unwrap();
    let message = words.map(u32::to_ne_bytes).concat();
    raw.send_with_fds(&[&message[..]], fds).unwrap();
}

fn raw_client(rig: &Rig) -> (UnixStream, Client) {
    let raw = rig.raw();
    let frontend = vhost::vhost_user::Frontend::from_stream(raw.try_clone().unwrap(), 8);
    let mut client = Client::over(frontend);
    client.begin();
    (raw, client)
}

#[test]
fn offered_where_the_configuration_changes_by_itself() {
    for changing in [false, true] {
        let rig = Rig::with(Device { changing, ..Device::default() });
        let mut client = rig.connect();
        client.frontend.get_features().unwrap();
        let offered = client.frontend.get_protocol_features().unwrap();
        assert_eq!(offered.contains(Protocol::BACKEND_REQ), changing);
    }
}

#[test]
fn a_change_is_told_once_and_only_while_a_ring_runs() {
    let rig = rig();
    let mut client = rig.connect();
    client.negotiate();
    client.share_memory();
    let mut channel = channel(&mut client);
    rig.change_config(1);
    quiet(&client, &mut channel);
    client.start(0, 0);
    assert_eq!(told(&mut channel), 9, "version 1, an acknowledgement is asked for");
    client.start(1, 0);
    rig.change_config(1);
    quiet(&client, &mut channel);
    rig.change_config(2);
    told(&mut channel);
    // Once it was read there is nothing to tell.
    *rig.device.unread.lock().unwrap() = None;
    client.frontend.get_vring_base(0).unwrap();
    client.frontend.get_vring_base(1).unwrap();
    client.start(0, 0);
    quiet(&client, &mut channel);
    // What was told while the driver was about to go may be lost.
    rig.change_config(3);
    told(&mut channel);
    client.frontend.get_vring_base(0).unwrap();
    client.start(0, 0);
    told(&mut channel);
}

#[test]
fn every_connection_and_every_channel_is_told() {
    let rig = rig();
    let mut client = rig.connect();
    client.begin();
    rig.change_config(7);
    let mut first = channel(&mut client);
    told(&mut first);
    // A second one takes the place of the first, which is closed.
    let mut second = channel(&mut client);
    told(&mut second);
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    drop(client);
    rig.disconnected();
    let mut client = rig.connect();
    client.begin();
    let mut third = channel(&mut client);
    told(&mut third);
}

#[test]
fn without_reply_ack_none_is_asked_for() {
    let rig = rig();
    let mut client = rig.connect();
    client.negotiate_with(Protocol::all() & !Protocol::REPLY_ACK);
    client.share_memory();
    client.start(0, 0);
    let mut channel = channel(&mut client);
    rig.change_config(1);
    assert_eq!(told(&mut channel), 1);
}

#[test]
fn an_answer_is_heard_and_a_refusal_is_news() {
    let rig = rig();
    let mut client = rig.connect();
    client.begin();
    let mut channel = channel(&mut client);
    for value in [0, 1] {
        rig.change_config(value);
        told(&mut channel);
        answer(&mut channel, value);
    }
    rig.await_event(&SessionEvent::ConfigRefused);
    quiet(&client, &mut channel);
}

/// The socket fills up; nothing waits for it, and what is owed comes once there is room.
#[test]
fn a_front_end_that_never_reads_stops_nobody() {
    let rig = rig();
    let mut client = rig.connect();
    client.begin();
    let mut channel = channel(&mut client);
    for value in 0..20_000 {
        rig.change_config(value);
        if value % 8 == 0 {
            client.frontend.get_features().unwrap();
        }
    }
    let last = 20_000;
    rig.change_config(last);
    client.frontend.get_features().unwrap();
    channel.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut words = [0; 12];
    let mut count = 0;
    while channel.read_exact(&mut words).is_ok() {
        count += 1;
    }
    assert!(count > 10, "{count} messages");
    // It is as good as new.
    channel.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    rig.change_config(last + 1);
    told(&mut channel);
}

#[test]
fn a_channel_that_is_closed_or_abused_is_given_up_and_the_connection_goes_on() {
    let rig = rig();
    let mut client = rig.connect();
    client.begin();
    let lost = |why: &str| {
        let SessionEvent::ChannelLost(said) = rig.event() else { panic!("no loss: {why}") };
        assert!(said.contains(why), "{said}");
    };
    assert_eq!(rig.event(), SessionEvent::Connected);
    // Closed: of interest once there is something to tell.
    let other_end = channel(&mut client);
    drop(other_end);
    client.frontend.get_features().unwrap();
    rig.change_config(9000);
    lost("closed");
    let mut junk = channel(&mut client);
    junk.write_all(&[0xff; 4096]).unwrap();
    lost("something else");
    let mut rest = Vec::new();
    let _ = junk.read_to_end(&mut rest);
    assert_eq!(rest.len(), 12, "one message and the end");
    let mut unasked = channel(&mut client);
    answer(&mut unasked, 0);
    answer(&mut unasked, 0);
    lost("something else");
    // Closed while a message is owed.
    let full = channel(&mut client);
    for value in 0..2000 {
        rig.change_config(value);
        client.frontend.get_features().unwrap();
    }
    drop(full);
    lost("closed");
    let mut good = channel(&mut client);
    rig.change_config(5000);
    told(&mut good);
}

/// The front-end keeps a copy of our end: giving it up must end the watch, too.
#[test]
fn a_lost_channel_is_not_watched_any_more() {
    let rig = rig();
    let mut client = rig.connect();
    client.begin();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    client.frontend.set_backend_request_fd(&theirs).unwrap();
    ours.write_all(&[1; 64]).unwrap();
    rig.await_event(&SessionEvent::ChannelLost(
        "the front-end sent something else than acknowledgements".to_owned(),
    ));
    ours.write_all(&[1; 64]).unwrap();
    let mut again = channel(&mut client);
    rig.change_config(1);
    told(&mut again);
    quiet(&client, &mut again);
}

#[test]
fn only_an_end_of_a_socket_pair_is_taken() {
    let rig = rig();
    let (raw, mut client) = raw_client(&rig);
    let refused = |client: &mut Client, fd: &dyn AsRawFd| {
        assert!(client.frontend.set_backend_request_fd(fd).is_err());
        loop {
            if let SessionEvent::RequestRefused { request, .. } = rig.event() {
                assert_eq!(request, "SET_BACKEND_REQ_FD");
                break;
            }
        }
    };
    refused(&mut client, &rig::event());
    refused(&mut client, &raw);
    refused(&mut client, &std::fs::File::open("/dev/null").unwrap());
    // One without any.
    rude(&client, &raw, [FrontendReq::SET_BACKEND_REQ_FD.into(), 9, 0], &[]);
    let mut ack = [0; 20];
    (&raw).read_exact(&mut ack).unwrap();
    assert_eq!(ack[12], 1);
    // Nobody asked for an answer: then it cannot be told.
    rude(&client, &raw, [FrontendReq::SET_BACKEND_REQ_FD.into(), 1, 0], &[]);
    assert!(rig.disconnected().contains("socket pair"));
}

#[test]
fn malformed_messages_end_the_connection() {
    let request = FrontendReq::SET_BACKEND_REQ_FD.into();
    for (words, count, why) in [
        ([request, 9, 8], 1, "malformed"),
        ([request, 8, 0], 1, "malformed"),
        ([request, 13, 0], 1, "malformed"),
        ([request, 9, 0], 2, "more than one"),
        ([request, 9, 0], 3, "more than one"),
    ] {
        let rig = rig();
        let (raw, client) = raw_client(&rig);
        let (a, b) = UnixDatagram::pair().unwrap();
        let fds = [a.as_raw_fd(), b.as_raw_fd(), a.as_raw_fd()];
        rude(&client, &raw, words, &fds[..count]);
        let reason = rig.disconnected();
        assert!(reason.starts_with("protocol error") && reason.contains(why), "{reason}");
    }
}

#[test]
fn a_message_that_does_not_end_is_given_up() {
    let rig = rig();
    for shut in [false, true] {
        let (raw, _client) = raw_client(&rig);
        let words = [FrontendReq::SET_BACKEND_REQ_FD.into(), 9].map(u32::to_ne_bytes);
        (&raw).write_all(&words.concat()).unwrap();
        if shut {
            raw.shutdown(std::net::Shutdown::Both).unwrap();
        }
        assert!(rig.disconnected().contains("does not end"));
    }
}

#[test]
fn not_negotiated_it_is_not_taken() {
    let rig = rig();
    let mut client = rig.connect();
    client.negotiate_with(Protocol::all() & !Protocol::BACKEND_REQ);
    client.share_memory();
    client.start(0, 0);
    rig.change_config(1);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    assert!(client.frontend.set_backend_request_fd(&theirs).is_err());
    client.frontend.get_features().unwrap();
}
