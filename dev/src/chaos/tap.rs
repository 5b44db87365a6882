//! Listens on a line to what gateways push, before the client has filtered it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chat_client::{ids::ConversationId, positions::Seq, wire::Encoding};
use memchr::memmem::Finder;
use serde::Deserialize;
use uuid::Uuid;

use super::wire::take_frame;

/// Bytes of an HTTP head; what has none within this is no handshake.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The longest form of an id.
const ID_BYTES_MAX: usize = 36;

/// What one device was sent, over all its connections.
#[derive(Debug, Default)]
pub struct Tap {
    heard: Mutex<Heard>,
    /// What is searched for in all bytes, handshakes and answers to requests included.
    sought: Vec<Sought>,
}

/// An id, in each form that bytes may have it in.
#[derive(Debug)]
struct Sought(Vec<Finder<'static>>);

impl Sought {
    fn new(id: Uuid) -> Self {
        let texts = [id.hyphenated().to_string().into_bytes(), id.simple().to_string().into_bytes()];
        Self(texts.iter().chain([&id.as_bytes().to_vec()]).map(|form| Finder::new(form).into_owned()).collect())
    }

    /// How often it is in `bytes` and ends after the first `skipped` of them.
    fn count(&self, bytes: &[u8], skipped: usize) -> u64 {
        let ends = |form: &Finder<'_>| {
            let length = form.needle().len();
            form.find_iter(bytes).filter(|at| at + length > skipped).count() as u64
        };
        self.0.iter().map(ends).sum()
    }
}

#[derive(Debug, Default)]
struct Heard {
    /// Those whose handshake was accepted.
    connections: u64,
    /// How often each message was pushed.
    times: BTreeMap<(ConversationId, Seq), u64>,
    /// All bytes, if something is searched for.
    bytes: u64,
    /// How often each id that is searched for was sent.
    found: Vec<u64>,
}

impl Tap {
    /// Searches for ids too.
    pub fn searching(ids: impl IntoIterator<Item = Uuid>) -> Self {
        let sought: Vec<_> = ids.into_iter().map(Sought::new).collect();
        let found = vec![0; sought.len()];
        Self { heard: Mutex::new(Heard { found, ..Heard::default() }), sought }
    }

    /// How many bytes were searched, and how often each id was there.
    pub fn found(&self) -> (u64, Vec<u64>) {
        let heard = self.lock();
        (heard.bytes, heard.found.clone())
    }

    /// Listens to one more connection.
    pub fn ear(self: &Arc<Self>) -> Ear {
        Ear { tap: Arc::clone(self), received: Vec::new(), stage: Stage::Head, end: Vec::new() }
    }

    /// Messages that were pushed, and how many of them had been pushed before.
    pub fn counts(&self) -> (u64, u64) {
        let heard = self.lock();
        let pushes: u64 = heard.times.values().sum();
        (pushes, pushes - heard.times.len() as u64)
    }

    /// Connections, and how often each message was pushed.
    pub fn pushed(&self) -> (u64, Vec<u64>) {
        let heard = self.lock();
        (heard.connections, heard.times.values().copied().collect())
    }

    fn search(&self, bytes: &[u8], skipped: usize) {
        let mut heard = self.lock();
        heard.bytes += (bytes.len() - skipped) as u64;
        for (sought, found) in self.sought.iter().zip(&mut heard.found) {
            *found += sought.count(bytes, skipped);
        }
    }

    fn note(&self, conversation_id: ConversationId, seq: Seq) {
        *self.lock().times.entry((conversation_id, seq)).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what a server sends on one connection.
#[derive(Debug)]
pub struct Ear {
    tap: Arc<Tap>,
    received: Vec<u8>,
    stage: Stage,
    /// The last bytes, in which an id may begin.
    end: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Before the end of the answer to the first request.
    Head,
    Frames(Encoding),
    /// It is no WebSocket, or can't be read.
    Nothing,
}

/// A push, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Push {
    #[serde(rename = "type")]
    name: String,
    message: Option<Said>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Message { conversation_id: ConversationId, seq: Seq },
    Problem(#[expect(dead_code, reason = "tells rejections from messages")] String),
}

impl Ear {
    /// Takes the next bytes.
    pub fn hear(&mut self, bytes: &[u8]) {
        if !self.tap.sought.is_empty() {
            let skipped = self.end.len();
            self.end.extend_from_slice(bytes);
            self.tap.search(&self.end, skipped);
            self.end.drain(..self.end.len().saturating_sub(ID_BYTES_MAX - 1));
        }
        if matches!(self.stage, Stage::Nothing) {
            return;
        }
        self.received.extend_from_slice(bytes);
        if matches!(self.stage, Stage::Head) {
            self.read_head();
        }
        if let Stage::Frames(encoding) = self.stage {
            while let Some((first_byte, payload)) = take_frame(&mut self.received) {
                // Text and binary frames; gateways send no fragments.
                if matches!(first_byte & 0x0f, 1 | 2)
                    && let Ok(Push { name, message: Some(Said::Message { conversation_id, seq }) }) =
                        encoding.decode(&payload)
                    && name == "message"
                {
                    self.tap.note(conversation_id, seq);
                }
            }
        }
    }

    fn read_head(&mut self) {
        let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") else {
            if self.received.len() > HEAD_BYTES_MAX {
                self.stage = Stage::Nothing;
            }
            return;
        };
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        let spoken = Encoding::ALL.into_iter().find(|encoding| head.contains(encoding.subprotocol()));
        self.stage = match spoken {
            Some(encoding) if head.starts_with("http/1.1 101") => {
                self.tap.lock().connections += 1;
                Stage::Frames(encoding)
            }
            _ => Stage::Nothing,
        };
        self.received.drain(..end + 4);
    }
}

#[cfg(test)]
mod tests {
    use chat_client::{
        clock::Timestamp,
        ids::{MessageId, UserId},
        wire::Message,
    };
    use serde_json::json;

    use super::*;

    fn push(encoding: Encoding, seq: u64) -> Vec<u8> {
        let message = Message {
            conversation_id: "936da01f-9abd-4d9d-80c7-02af85c822a8".parse().unwrap(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
            seq: Seq(seq),
            sent_at: Timestamp(1),
            text: "x".repeat(200),
        };
        let payload = encoding.encode(&json!({ "type": "message", "cursor": seq, "message": message })).unwrap();
        let mut frame = vec![if encoding == Encoding::Json { 0x81 } else { 0x82 }, 126];
        frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn repeats_are_counted_whatever_the_encoding_and_however_the_bytes_come() {
        for encoding in Encoding::ALL {
            let tap = Arc::new(Tap::default());
            let mut bytes = format!(
                "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: {}\r\n\r\n",
                encoding.subprotocol()
            )
            .into_bytes();
            for seq in [1, 2, 2, 3, 1] {
                bytes.extend(push(encoding, seq));
            }
            bytes.extend([0x8a, 0]);
            for size in [1, 7, 1000] {
                let before = tap.counts();
                let mut ear = tap.ear();
                bytes.chunks(size).for_each(|chunk| ear.hear(chunk));
                assert_eq!(tap.counts().0 - before.0, 5, "in pieces of {size}");
            }
            assert_eq!(tap.counts(), (15, 12));
            assert_eq!(tap.pushed(), (3, vec![6, 6, 3]));
        }
    }

    #[test]
    fn ids_are_found_in_each_form_and_however_the_bytes_come() {
        let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
        let mut bytes = format!("HTTP/1.1 200 OK\r\n\r\n{id} {}", id.simple()).into_bytes();
        bytes.extend(id.as_bytes());
        for size in [1, 7, 35, 1000] {
            let tap = Arc::new(Tap::searching([id, other]));
            let mut ear = tap.ear();
            bytes.chunks(size).for_each(|chunk| ear.hear(chunk));
            assert_eq!(tap.found(), (bytes.len() as u64, vec![3, 0]), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_websocket_is_not_listened_to() {
        let tap = Arc::new(Tap::default());
        tap.ear().hear(b"HTTP/1.1 200 OK\r\n\r\n{\"type\":\"message\"}");
        assert_eq!(tap.counts(), (0, 0));
    }
}
