//! Listens on a line to what gateways push, before the client has filtered it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chat_client::{ids::ConversationId, positions::Seq, wire::Encoding};
use serde::Deserialize;

use super::wire::take_frame;

/// Bytes of an HTTP head; what has none within this is no handshake.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What one device was sent, over all its connections.
#[derive(Debug, Default)]
pub struct Tap(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Those whose handshake was accepted.
    connections: u64,
    /// How often each message was pushed.
    times: BTreeMap<(ConversationId, Seq), u64>,
}

impl Tap {
    /// Listens to one more connection.
    pub fn ear(self: &Arc<Self>) -> Ear {
        Ear { tap: Arc::clone(self), received: Vec::new(), stage: Stage::Head }
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

    fn note(&self, conversation_id: ConversationId, seq: Seq) {
        *self.lock().times.entry((conversation_id, seq)).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what a server sends on one connection.
#[derive(Debug)]
pub struct Ear {
    tap: Arc<Tap>,
    received: Vec<u8>,
    stage: Stage,
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
    fn what_is_no_websocket_is_not_listened_to() {
        let tap = Arc::new(Tap::default());
        tap.ear().hear(b"HTTP/1.1 200 OK\r\n\r\n{\"type\":\"message\"}");
        assert_eq!(tap.counts(), (0, 0));
    }
}
