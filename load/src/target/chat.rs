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
    de::{IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{
    ConnectError, Gesture, Heard, Opened, Outgoing, Protocol, Route, Target,
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
    /// The next push of presence lists everybody who is watched.
    awaits_list: bool,
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
        Ok((Self { epoch: ready.epoch, cursor, confirmed: cursor, awaits_list: false }, has_resumed))
    }

    fn hear_realtime(&mut self, said: &Said<'_>, heard: &mut dyn FnMut(Heard<'_>)) {
        let is_list = said.name == "presence" && std::mem::take(&mut self.awaits_list);
        match (said.name, &said.receipt, &said.typing, &said.users) {
            ("done", ..) => heard(Heard::Done { reference: said.reference.unwrap_or_default() }),
            ("receipt", Some(Receipt { user_id, kind, seq }), ..) => {
                heard(Heard::Receipt { user: *user_id, is_read: *kind == "read", sequence: *seq });
            }
            ("typing", _, Some(Typing { is_typing: true }), _) => heard(Heard::Typing),
            ("presence", _, _, Some(users)) if !is_list => heard(Heard::Presence { changes: users.len() }),
            _ => {}
        }
    }

    fn hear(&mut self, said: &Said<'_>, out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        match (said.name, &said.message) {
            ("accepted", _) => heard(Heard::Accepted { reference: said.reference.unwrap_or_default() }),
            ("rejected", _) => {
                heard(Heard::Rejected { reference: said.reference, reason: said.code.unwrap_or("rejected") });
            }
            ("message", Some(Message { seq, text })) => heard(Heard::Message { sequence: Some(*seq), text }),
            _ => self.hear_realtime(said, heard),
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

    fn gesture(&mut self, gesture: &Gesture<'_>, out: &mut Vec<u8>) {
        match *gesture {
            Gesture::MarkRead { reference, conversation, message_id } => {
                let name = "mark_read";
                write(&MarkRead { reference, name, conversation_id: conversation, message_id }, out);
            }
            Gesture::Typing { conversation } => {
                write(&SetTyping { name: "set_typing", conversation_id: conversation, is_typing: true }, out);
            }
            Gesture::Watch { users } => {
                self.awaits_list = true;
                write(&Watch { name: "watch_presence", user_ids: users }, out);
            }
        }
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

/// `mark_read`, borrowed as well.
#[derive(Serialize)]
struct MarkRead<'a> {
    #[serde(rename = "ref")]
    reference: u64,
    #[serde(rename = "type")]
    name: &'static str,
    conversation_id: &'a str,
    message_id: Uuid,
}

/// `set_typing`.
#[derive(Serialize)]
struct SetTyping<'a> {
    #[serde(rename = "type")]
    name: &'static str,
    conversation_id: &'a str,
    is_typing: bool,
}

/// `watch_presence`.
#[derive(Serialize)]
struct Watch<'a> {
    #[serde(rename = "type")]
    name: &'static str,
    user_ids: &'a [&'a str],
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
    #[serde(borrow)]
    receipt: Option<Receipt<'a>>,
    typing: Option<Typing>,
    users: Option<Vec<IgnoredAny>>,
}

/// A receipt in a push.
#[derive(Debug, Deserialize)]
struct Receipt<'a> {
    user_id: Uuid,
    kind: &'a str,
    seq: u64,
}

/// Who writes, in a push.
#[derive(Debug, Deserialize)]
struct Typing {
    is_typing: bool,
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
mod tests;
