use super::*;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

struct Bench {
    server: Server,
    path: PathBuf,
}

struct Peer(BufReader<UnixStream>);

impl Bench {
    fn new(name: &str) -> Bench {
        let name = format!("vhost-mpath-qmp-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let server = Server::bind(&path).unwrap();
        Bench { server, path }
    }

    fn connect(&mut self) -> Peer {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.server.receive();
        self.server.send();
        Peer(BufReader::new(stream))
    }

    /// A client that is past the negotiation.
    fn ready(&mut self) -> Peer {
        let mut peer = self.connect();
        assert!(peer.read()["QMP"]["capabilities"].as_array().is_some_and(Vec::is_empty));
        peer.write(r#"{"execute":"qmp_capabilities"}"#);
        assert_eq!(self.step(), None);
        assert_eq!(peer.read(), json!({ "return": {} }));
        peer
    }

    fn step(&mut self) -> Option<Request> {
        self.server.receive();
        let request = self.server.next_request();
        self.server.send();
        request
    }
}

impl Peer {
    fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or(Value::Null)
    }
}

#[test]
fn nothing_is_carried_out_before_the_negotiation() {
    let mut bench = Bench::new("early");
    let mut peer = bench.connect();
    peer.read();
    peer.write(r#"{"execute":"quit","id":7}"#);
    assert_eq!(bench.step(), None);
    let answer = peer.read();
    assert_eq!(answer["error"]["class"], "CommandNotFound");
    assert_eq!(answer["id"], 7);
}

#[test]
fn a_command_is_answered_with_its_id_and_in_order() {
    let mut bench = Bench::new("order");
    let mut peer = bench.ready();
    peer.write(r#"{"execute":"a","id":{"n":1},"arguments":{"x":2}}{"execute":"b"}"#);
    let first = bench.step().unwrap();
    assert_eq!((first.command.as_str(), &first.arguments["x"]), ("a", &json!(2)));
    assert_eq!(bench.step(), None, "the second waits for the first one's answer");
    bench.server.answer(first.client, Ok(json!({ "done": true })));
    assert_eq!(peer.read(), json!({ "return": { "done": true }, "id": { "n": 1 } }));
    let second = bench.step().unwrap();
    bench.server.answer(second.client, Err(QmpError::generic("no")));
    assert_eq!(peer.read(), json!({ "error": { "class": "GenericError", "desc": "no" } }));
}

#[test]
fn malformed_messages_are_refused_in_words() {
    let mut bench = Bench::new("malformed");
    let mut peer = bench.ready();
    for (text, word) in [
        ("nonsense\n", "expected an object"),
        ("[1]", "must be a JSON object"),
        ("{}", "lacks member 'execute'"),
        (r#"{"execute":1}"#, "must be a string"),
        (r#"{"execute":"a","arguments":[]}"#, "must be an object"),
        (r#"{"execute":"a","exec-oob":1}"#, "'exec-oob' is unexpected"),
        (r#"{"execute":"qmp_capabilities"}"#, "already complete"),
    ] {
        peer.write(text);
        assert_eq!(bench.step(), None, "{text}");
        let desc = peer.read()["error"]["desc"].to_string();
        assert!(desc.contains(word), "{text}: {desc}");
    }
}

#[test]
fn events_reach_every_negotiated_client_and_no_other() {
    let mut bench = Bench::new("events");
    let (mut one, mut two) = (bench.ready(), bench.ready());
    let mut early = bench.connect();
    early.read();
    bench.server.broadcast("NO_PATH", &Map::new());
    for peer in [&mut one, &mut two] {
        let event = peer.read();
        assert_eq!(event["event"], "NO_PATH");
        assert!(event["timestamp"]["microseconds"].as_u64().is_some_and(|us| us < 1_000_000));
    }
    early.write(r#"{"execute":"qmp_capabilities"}"#);
    assert_eq!(bench.step(), None);
    assert_eq!(early.read(), json!({ "return": {} }), "no event came before");
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_others_live() {
    let mut bench = Bench::new("slow");
    let slow = bench.ready();
    let mut live = bench.ready();
    let mut data = Map::new();
    data.insert("x".to_owned(), json!("y".repeat(10_000)));
    for _ in 0..400 {
        bench.server.broadcast("FLOOD", &data);
        live.read();
    }
    bench.server.send();
    assert_eq!(bench.server.clients.len(), 1);
    drop(slow);
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answer() {
    let mut bench = Bench::new("half");
    let mut peer = bench.ready();
    peer.write(r#"{"execute":"a"}"#);
    peer.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let request = bench.step().unwrap();
    bench.server.answer(request.client, Ok(json!(1)));
    assert_eq!(peer.read()["return"], 1);
    bench.server.send();
    assert!(bench.server.clients.is_empty());
}

#[test]
fn an_endless_message_ends_the_connection() {
    let mut bench = Bench::new("endless");
    let mut peer = bench.ready();
    peer.write("{\"x\":\"");
    peer.write(&"y".repeat(framing::MAX_MESSAGE));
    assert_eq!(bench.step(), None);
    assert!(peer.read()["error"]["desc"].as_str().is_some_and(|d| d.contains("longer than")));
    bench.server.send();
    assert!(bench.server.clients.is_empty());
}

#[test]
fn only_the_owner_may_connect() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new("mode");
    let mode = std::fs::metadata(&bench.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
