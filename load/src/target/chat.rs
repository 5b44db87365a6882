//! A client of this backend, in MessagePack.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use chat_shared::{
    ids::{DeviceId, Epoch},
    position::Cursor,
    wire::{Command, CommandFrame, Confirm, Encoding, Heartbeat, Hello, Resume},
};
use rmp_serde::{Deserializer as Unpacker, Serializer as Packer};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{
    ConnectError, Heard, Opened, Outgoing, Protocol, Route, Target,
    frame::{self, Opcode},
};
use crate::plan::Seat;

/// Pushes that are confirmed together.
const CONFIRM_PUSHES: u64 = 32;

/// A gateway of this backend.
#[derive(Debug)]
pub struct Chat;

impl Target for Chat {
    type Protocol = Session;

    async fn connect(&self, route: Route, seat: &Seat, place: Option<Resume>) -> Result<Opened<Session>, ConnectError> {
        let mut stream = route.open().await?;
        let fields = format!(
            "sec-websocket-protocol: {}\r\nauthorization: Bearer {}\r\n",
            Encoding::MessagePack.subprotocol(),
            seat.secret
        );
        let mut input = frame::upgrade(&mut stream, &route.server.to_string(), "/v1/ws", &fields).await?;
        let mut hello = Vec::with_capacity(256);
        let device_id = DeviceId::try_from(seat.device)?;
        let command = Command::Hello(Hello { device_id, resume: place });
        write(&CommandFrame { reference: Some(0), command }, &mut hello);
        stream.write_all(&hello).await?;
        loop {
            if let Some(ready) = frame::read(&input)? {
                let (protocol, has_resumed) = Session::after(ready, place)?;
                let rest = input.split_off(ready.length);
                return Ok(Opened { stream, protocol, rest, has_resumed });
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Err(frame::ended().into());
            }
        }
    }
}

/// A connection after `ready`.
#[derive(Debug)]
pub struct Session {
    epoch: Option<Epoch>,
    cursor: Cursor,
    confirmed: Cursor,
}

impl Session {
    fn after(frame: frame::Frame<'_>, place: Option<Resume>) -> Result<(Self, bool)> {
        if frame.opcode == Opcode::Close {
            bail!("{} instead of ready", frame::close_reason(frame.payload));
        }
        let ready = decode(frame.payload)?;
        if ready.name != "ready" {
            bail!("{} instead of ready", ready.code.unwrap_or(ready.name));
        }
        let has_resumed = ready.resumed == Some(true);
        let cursor = match place {
            // What was missed comes first, from there.
            Some(place) if has_resumed => place.cursor,
            _ => ready.cursor.unwrap_or_default(),
        };
        Ok((Self { epoch: ready.epoch, cursor, confirmed: cursor }, has_resumed))
    }

    fn hear(&mut self, said: &Said<'_>, out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        match (said.name, &said.message) {
            ("accepted", _) => heard(Heard::Accepted { reference: said.reference.unwrap_or_default() }),
            ("rejected", _) => {
                heard(Heard::Rejected { reference: said.reference, reason: said.code.unwrap_or("rejected") });
            }
            ("message", Some(Message { seq, text })) => heard(Heard::Message { sequence: Some(*seq), text }),
            _ => {}
        }
        let (Some(cursor), "message" | "conversation" | "receipt") = (said.cursor, said.name) else { return Ok(()) };
        ensure!(cursor <= self.cursor.next(), "a gap in the inbox");
        self.cursor = self.cursor.max(cursor);
        if self.cursor.0 >= self.confirmed.0 + CONFIRM_PUSHES {
            self.confirmed = self.cursor;
            let command = Command::Confirm(Confirm { cursor: self.cursor });
            write(&CommandFrame { reference: None, command }, out);
        }
        Ok(())
    }
}

impl Protocol for Session {
    type Place = Resume;

    fn send(&mut self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        let &Outgoing { conversation, reference, message_id, text, is_repeat } = message;
        let name = "send_message";
        write(&Send { reference, name, conversation_id: conversation, message_id, text, is_repeat }, out);
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        self.confirmed = self.cursor;
        let cursor = self.epoch.map(|_| self.cursor);
        write(&CommandFrame { reference: None, command: Command::Heartbeat(Heartbeat { cursor }) }, out);
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        frame::write(Opcode::Close, out, |out| out.extend(1000_u16.to_be_bytes()));
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = frame::read(&input[used..])? {
            match frame.opcode {
                Opcode::Binary => self.hear(&decode(frame.payload)?, out, heard)?,
                Opcode::Close => bail!(frame::close_reason(frame.payload)),
                Opcode::Ping => frame::write(Opcode::Pong, out, |out| out.extend_from_slice(frame.payload)),
                Opcode::Text | Opcode::Pong => {}
            }
            used += frame.length;
        }
        Ok(used)
    }

    fn place(&self) -> Option<Resume> {
        self.epoch.map(|epoch| Resume { epoch, cursor: self.cursor })
    }
}

/// `send_message` as the wire has it, but borrowed, since each would be allocated for each message.
#[derive(Serialize)]
struct Send<'a> {
    #[serde(rename = "ref")]
    reference: u64,
    #[serde(rename = "type")]
    name: &'static str,
    conversation_id: &'a str,
    message_id: Uuid,
    text: &'a str,
    is_repeat: bool,
}

/// What a frame says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    #[serde(rename = "ref")]
    reference: Option<u64>,
    cursor: Option<Cursor>,
    epoch: Option<Epoch>,
    resumed: Option<bool>,
    code: Option<&'a str>,
    #[serde(default, borrow, deserialize_with = "message")]
    message: Option<Message<'a>>,
}

/// A message in a push.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    seq: u64,
    text: &'a str,
}

/// In a rejection `message` is mere words.
fn message<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Message<'a>>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Option<Message<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a message or words")
        }

        fn visit_str<E>(self, _words: &str) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Message::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Either)
}

fn decode(payload: &[u8]) -> Result<Said<'_>> {
    Said::deserialize(&mut Unpacker::from_read_ref(payload).with_human_readable()).context("a frame can't be read")
}

fn write<T: Serialize>(command: &T, out: &mut Vec<u8>) {
    frame::write(Opcode::Binary, out, |out| {
        let mut serializer = Packer::new(out).with_struct_map().with_human_readable();
        command.serialize(&mut serializer).expect("a vector takes everything");
    });
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        ids::{ConversationId, MessageId, UserId},
        position::Seq,
        wire::{
            Accepted, ErrorCode, Message as Whole, Push, Rejected, Reply, SendMessage, ServerFrame, decode_command,
        },
    };

    use super::*;

    fn session() -> Session {
        Session { epoch: Some(Epoch::random()), cursor: Cursor(4), confirmed: Cursor(4) }
    }

    /// As a gateway sends it.
    fn from_gateway(frames: &[ServerFrame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for said in frames {
            let payload = Encoding::MessagePack.encode(said).unwrap();
            let mut one = Vec::new();
            frame::write(Opcode::Binary, &mut one, |out| out.extend_from_slice(&payload));
            let header = one.len() - payload.len();
            one.drain(header - 4..header);
            one[1] &= 0x7f;
            bytes.extend(one);
        }
        bytes
    }

    fn push(cursor: u64) -> ServerFrame {
        let message = Whole {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
            seq: Seq(cursor + 100),
            sent_at: Timestamp(5),
            text: format!("text {cursor}"),
        };
        ServerFrame::Push(Push::Message { cursor: Some(Cursor(cursor)), message })
    }

    fn said(session: &mut Session, bytes: &[u8]) -> (Vec<String>, Vec<u8>, Result<usize>) {
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let used = session.read(bytes, &mut out, &mut |one| heard.push(format!("{one:?}")));
        (heard, out, used)
    }

    #[test]
    fn what_is_sent_is_the_wire_s_command() {
        let (conversation_id, message_id) = (ConversationId::random(), MessageId::random());
        let conversation = conversation_id.as_uuid().to_string();
        let outgoing = Outgoing {
            conversation: &conversation,
            reference: 9,
            message_id: message_id.as_uuid(),
            text: "hello",
            is_repeat: true,
        };
        let mut out = Vec::new();
        session().send(&outgoing, &mut out);
        let payload = &out[8..];
        let command = SendMessage { conversation_id, message_id, text: "hello".into(), is_repeat: true };
        assert_eq!(
            decode_command(Encoding::MessagePack, payload),
            Ok(CommandFrame { reference: Some(9), command: Command::SendMessage(command) })
        );
    }

    #[test]
    fn replies_and_messages_are_heard_and_a_part_of_a_frame_waits() {
        let rejected = Rejected {
            reference: Some(8),
            code: ErrorCode::RateLimited,
            message: "too many".into(),
            retry_after_ms: Some(5),
        };
        let accepted = Accepted {
            reference: Some(7),
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            seq: Seq(4),
            sent_at: Timestamp(5),
        };
        let bytes = from_gateway(&[
            ServerFrame::Reply(Reply::Accepted(accepted)),
            ServerFrame::Reply(Reply::Rejected(rejected)),
            push(5),
            push(6),
        ]);
        let whole = bytes.len() - from_gateway(&[push(6)]).len();
        let (heard, out, used) = said(&mut session(), &bytes[..bytes.len() - 1]);
        assert_eq!(
            heard,
            [
                r"Accepted { reference: 7 }",
                r#"Rejected { reference: Some(8), reason: "rate_limited" }"#,
                r#"Message { sequence: Some(105), text: "text 5" }"#
            ]
        );
        assert!(out.is_empty());
        assert_eq!(used.unwrap(), whole);
    }

    #[test]
    fn every_32_pushes_are_confirmed_and_a_gap_ends_the_connection() {
        let mut session = session();
        let pushes: Vec<ServerFrame> = (5..=36).map(push).collect();
        let (heard, out, _) = said(&mut session, &from_gateway(&pushes));
        assert_eq!(heard.len(), 32);
        let confirm = Command::Confirm(Confirm { cursor: Cursor(36) });
        assert_eq!(decode_command(Encoding::MessagePack, &out[6..]).unwrap().command, confirm);
        assert_eq!(session.place().unwrap().cursor, Cursor(36));
        let (_, _, used) = said(&mut session, &from_gateway(&[push(38)]));
        assert_eq!(used.unwrap_err().to_string(), "a gap in the inbox");
    }
}
