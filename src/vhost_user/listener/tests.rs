use std::io::{Read, Write};

use proptest::prelude::*;
use vhost::VhostBackend;

use super::*;
use crate::vhost_user::rig::*;
use crate::vhost_user::socket::Access;

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, flags, u32::try_from(body.len()).unwrap()] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

#[test]
fn garbage_ends_the_connection_and_the_next_one_is_served() {
    let rig = Rig::new();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        message(5, 1, &[0; 8]),
        message(999, 1, &[]),
        message(1, 1, &[1, 2, 3]),
        message(2, 1, &[0; 4000]),
    ] {
        let mut raw = rig.raw();
        raw.write_all(&garbage).unwrap();
        let reason = rig.disconnected();
        assert!(reason.starts_with("protocol error"), "{reason}");
    }
    let client = rig.connect();
    assert!(client.frontend.get_features().is_ok());
}

#[test]
fn a_memory_table_without_descriptors_says_how_to_share_memory() {
    let rig = Rig::new();
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
    body.extend([0; 32]);
    body[16] = 1;
    rig.raw().write_all(&message(5, 1, &body)).unwrap();
    let reason = rig.disconnected();
    assert!(reason.contains("SET_MEM_TABLE") && reason.contains("share=on"), "{reason}");
}

#[test]
fn a_kick_without_a_descriptor_is_refused() {
    let rig = Rig::new();
    rig.raw().write_all(&message(12, 1, &0x100u64.to_ne_bytes())).unwrap();
    assert!(rig.disconnected().contains("polling without a kick"));
}

#[test]
fn a_client_that_goes_away_without_a_word_is_no_error() {
    let rig = Rig::new();
    drop(rig.raw());
    assert_eq!(rig.disconnected(), "closed by the front-end");
}

#[test]
fn a_second_client_is_sent_away_while_the_first_is_served() {
    let rig = Rig::new();
    let first = rig.connect();
    first.frontend.get_features().unwrap();
    let mut second = rig.raw();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "closed");
    rig.await_event(&SessionEvent::ClientRefused);
    assert!(first.frontend.get_features().is_ok());
    drop(first);
    rig.disconnected();
    assert!(rig.connect().frontend.get_features().is_ok());
}

#[test]
fn an_adopted_connection_is_served_and_then_it_is_over() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, events) = std::sync::mpsc::channel();
    let handle = spawn(
        Socket::adopt(theirs.into()).unwrap(),
        Arc::new(Device::default()),
        Arc::new(Host::default()),
        Settings::default(),
        Box::new(move |event| drop(sender.send(event))),
    )
    .unwrap();
    let frontend = vhost::vhost_user::Frontend::from_stream(ours, 1);
    assert!(frontend.get_features().is_ok());
    drop(frontend);
    let events: Vec<_> = events.iter().collect();
    let reason = DisconnectReason::Closed;
    let expected =
        [SessionEvent::Connected, SessionEvent::Disconnected { reason }, SessionEvent::Finished];
    assert_eq!(events, expected);
    assert_eq!(handle.join(), 0);
}

#[test]
fn a_listener_without_clients_shuts_down_at_once() {
    let dir = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let socket = Socket::bind(&dir.as_path().join("s"), Access::default()).unwrap();
    let sink = Box::new(|_| ());
    let (device, host) = (Arc::new(Device::default()), Arc::new(Host::default()));
    let handle = spawn(socket, device, host, Settings::default(), sink).unwrap();
    assert!(!handle.is_finished());
    assert_eq!(handle.join(), 0);
}

/// Rings the kernel keeps are waited for, but not for ever.
#[test]
fn shutdown_gives_up_on_rings_the_kernel_keeps() {
    let mut rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    rig.host.state().stuck = true;
    assert_eq!(rig.handle.take().unwrap().join(), 1);
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    // Half of the bodies are small integers: indexes, sizes and flags that
    // reach further than noise does.
    let word = prop_oneof![0..4u64, 0..0x200u64, any::<u64>()];
    (0..44u32, prop_oneof![Just(1u32), Just(9u32)], prop::collection::vec(word, 0..6)).prop_map(
        |(request, flags, words)| {
            let body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            message(request, flags, &body)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Well-framed messages of any kind in any order.
    #[test]
    fn no_order_of_messages_breaks_the_listener(
        messages in prop::collection::vec(any_message(), 1..30),
        set_up: bool,
    ) {
        let rig = Rig::new();
        {
            let mut raw = rig.raw();
            let frontend = vhost::vhost_user::Frontend::from_stream(raw.try_clone().unwrap(), 8);
            let mut client = Client::over(frontend);
            if set_up {
                client.begin();
            }
            for message in &messages {
                if raw.write_all(message).is_err() {
                    break;
                }
            }
        }
        rig.disconnected();
        prop_assert!(rig.connect().frontend.get_features().is_ok());
    }
}
