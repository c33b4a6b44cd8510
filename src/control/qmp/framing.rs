//! QMP's framing: a stream of JSON objects, with or without newlines.
//!
//! Finds where an object ends by its brackets; whether it is JSON at all is
//! seen when it is parsed. Hostile input costs one pass over it and at most
//! [`MAX_MESSAGE`] bytes.

use serde_json::Value;

/// Longest message taken.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    /// A whole JSON value (an object, if the client is sane).
    Value(Value),
    /// Something else; the stream goes on behind it.
    Garbage(String),
    /// A message without end; nothing behind it can be trusted.
    TooLong,
}

/// Bytes received and not yet used up.
#[derive(Debug, Default)]
pub(super) struct Framer {
    bytes: Vec<u8>,
    /// Bytes looked at already, of the message under way.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// How much more may be buffered at present.
    pub(super) fn room(&self) -> usize {
        (MAX_MESSAGE + 1).saturating_sub(self.bytes.len())
    }

    /// Adds what was read.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it is there in full.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if self.depth == 0 && self.scanned == 0 {
            self.skip_blanks();
            match self.bytes.first()? {
                b'{' | b'[' => {}
                _ => return Some(self.garbage()),
            }
        }
        while let Some(byte) = self.bytes.get(self.scanned) {
            self.scanned += 1;
            if self.ends_with(*byte) {
                let message: Vec<u8> = self.bytes.drain(..self.scanned).collect();
                self.scanned = 0;
                return Some(match serde_json::from_slice(&message) {
                    Ok(value) => Frame::Value(value),
                    Err(error) => Frame::Garbage(format!("Invalid JSON syntax: {error}")),
                });
            }
        }
        (self.bytes.len() > MAX_MESSAGE).then_some(Frame::TooLong)
    }

    /// Follows one byte; whether it closes the message.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        self.depth == 0
    }

    fn skip_blanks(&mut self) {
        let blanks = self.bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.bytes.drain(..blanks);
    }

    /// Drops what is no message, up to where one may begin again.
    fn garbage(&mut self) -> Frame {
        let line = self.bytes.iter().position(|b| *b == b'\n');
        let end = line.unwrap_or(self.bytes.len());
        let text = String::from_utf8_lossy(&self.bytes[..end.min(40)]).into_owned();
        self.bytes.drain(..end);
        Frame::Garbage(format!("Invalid JSON syntax: expected an object, got '{}'", text.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn frames(framer: &mut Framer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next()).collect()
    }

    #[test]
    fn objects_need_no_newlines_and_may_have_many() {
        let mut framer = Framer::default();
        framer.feed(b"{\"execute\":\"a\"}{\"execute\":\"b\"}\r\n\n{\n \"x\": \"}{\\\"]\" }  ");
        let expected = [json!({"execute": "a"}), json!({"execute": "b"}), json!({"x": "}{\"]"})];
        assert_eq!(frames(&mut framer), expected.map(Frame::Value));
    }

    #[test]
    fn an_object_may_arrive_byte_by_byte() {
        let mut framer = Framer::default();
        let text = br#"{"a":[1,{"b":"\\"}]}"#;
        for (i, byte) in text.iter().enumerate() {
            assert_eq!(framer.next(), None, "before byte {i}");
            framer.feed(&[*byte]);
        }
        assert_eq!(framer.next(), Some(Frame::Value(json!({"a": [1, {"b": "\\"}]}))));
    }

    #[test]
    fn garbage_is_answered_and_the_next_line_is_heard() {
        let mut framer = Framer::default();
        framer.feed(b"quit\n{\"execute\":\"a\"}{]}\n");
        let got = frames(&mut framer);
        assert!(matches!(&got[0], Frame::Garbage(text) if text.contains("'quit'")), "{got:?}");
        assert_eq!(got[1], Frame::Value(json!({"execute": "a"})));
        assert!(matches!(&got[2], Frame::Garbage(_)), "{got:?}");
    }

    #[test]
    fn a_message_without_end_is_given_up() {
        let mut framer = Framer::default();
        framer.feed(b"{\"a\":\"");
        while framer.room() > 0 {
            assert_eq!(framer.next(), None);
            framer.feed(&vec![b'x'; framer.room().min(1000)]);
        }
        assert_eq!(framer.next(), Some(Frame::TooLong));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let mut framer = Framer::default();
        framer.feed("[".repeat(20_000).as_bytes());
        framer.feed("]".repeat(20_000).as_bytes());
        assert!(matches!(framer.next(), Some(Frame::Garbage(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_end_somewhere(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut framer = Framer::default();
            for chunk in &chunks {
                framer.feed(chunk);
                let before = framer.bytes.len();
                let frames = frames(&mut framer).len();
                prop_assert!(frames <= before);
            }
        }

        #[test]
        fn where_the_stream_is_cut_makes_no_difference(cut in 0usize..40) {
            let text = br#"{"execute":"x","id":"{"} [1] {"y":{}}"#;
            let cut = cut.min(text.len());
            let mut framer = Framer::default();
            framer.feed(&text[..cut]);
            let mut got = frames(&mut framer);
            framer.feed(&text[cut..]);
            got.extend(frames(&mut framer));
            let expected = [json!({"execute": "x", "id": "{"}), json!([1]), json!({"y": {}})];
            prop_assert_eq!(got, expected.map(Frame::Value).to_vec());
        }
    }
}
