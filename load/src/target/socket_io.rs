//! A client of the Socket.IO peer: Socket.IO 5 in Engine.IO 4, in text over WebSocket alone.

use std::borrow::Cow;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use super::{
    ConnectError, Heard, Opened, Outgoing, Protocol, Route, Target,
    frame::{self, Opcode},
};
use crate::plan::Seat;

/// Straight to WebSocket, as the server allows nothing else.
const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
/// The number of the request for what was missed: the largest that JavaScript counts to, so that no message has it.
const SYNC: u64 = (1 << 53) - 1;

/// A process of the peer.
#[derive(Debug)]
pub struct SocketIo;

/// Up to which number a client has everything of its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position(u64);

impl Target for SocketIo {
    type Protocol = Session;

    async fn connect(
        &self,
        route: Route,
        seat: &Seat,
        place: Option<Position>,
    ) -> Result<Opened<Session>, ConnectError> {
        let mut stream = route.open().await?;
        let mut input = frame::upgrade(&mut stream, &route.server.to_string(), PATH, "").await?;
        expect(&mut stream, &mut input, "0").await?;
        let mut out = Vec::with_capacity(512);
        write(&mut out, "40", &serde_json::json!({ "token": seat.secret }));
        stream.write_all(&out).await?;
        expect(&mut stream, &mut input, "40").await?;
        out.clear();
        let mut protocol = Session::new(&seat.conversation, place);
        protocol.sync(&mut out);
        stream.write_all(&out).await?;
        if place.is_none() {
            protocol.learn_position(&mut stream, &mut input).await?;
        }
        Ok(Opened { stream, protocol, rest: input, has_resumed: place.is_some() })
    }
}

/// Takes the next frame, which must begin so.
async fn expect(stream: &mut TcpStream, input: &mut Vec<u8>, beginning: &str) -> Result<()> {
    let length = whole_frame(stream, input, 0).await?;
    let said = text(frame::read(input)?)?;
    if !said.starts_with(beginning) {
        bail!("{} instead of {beginning}", said.get(..2).unwrap_or(said));
    }
    input.drain(..length);
    Ok(())
}

/// Reads until a whole frame stands at `offset` of `input`, and gives its length.
async fn whole_frame(stream: &mut TcpStream, input: &mut Vec<u8>, offset: usize) -> Result<usize> {
    loop {
        if let Some(frame) = frame::read(&input[offset..])? {
            return Ok(frame.length);
        }
        if stream.read_buf(input).await? == 0 {
            return Err(frame::ended().into());
        }
    }
}

fn text(frame: Option<frame::Frame<'_>>) -> Result<&str> {
    match frame {
        Some(frame::Frame { opcode: Opcode::Text, payload, .. }) => Ok(std::str::from_utf8(payload)?),
        Some(frame::Frame { opcode: Opcode::Close, payload, .. }) => bail!(frame::close_reason(payload)),
        _ => bail!("a frame that is no text"),
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Session {
    conversation: Box<str>,
    /// Everything up to here has been seen; none before the server has said where the conversation is.
    position: Option<u64>,
    /// Numbers after that which were seen, in ascending order: the two processes of the server overtake each other.
    ahead: Vec<u64>,
}

impl Session {
    fn new(conversation: &str, place: Option<Position>) -> Self {
        Self { conversation: conversation.into(), position: place.map(|Position(seq)| seq), ahead: Vec::new() }
    }

    /// Asks for everything since the position.
    fn sync(&self, out: &mut Vec<u8>) {
        let since = match self.position {
            Some(seq) => serde_json::json!({ &*self.conversation: seq }),
            None => serde_json::json!({}),
        };
        write(out, &format!("42{SYNC}"), &("sync", serde_json::json!({ "since": since })));
    }

    /// Waits for the first answer. What is pushed before it stays in `input`.
    async fn learn_position(&mut self, stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<()> {
        let mut offset = 0;
        loop {
            let length = whole_frame(stream, input, offset).await?;
            let said = text(frame::read(&input[offset..])?)?;
            if let Some((SYNC, answer)) = reply(said)? {
                let (answer,): (Synced<'_>,) = serde_json::from_str(answer).context("what was missed can't be read")?;
                self.position = Some(answer.position(&self.conversation)?);
                input.drain(offset..offset + length);
                return Ok(());
            }
            offset += length;
        }
    }

    fn hear(&mut self, said: &str, out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        if said == "2" {
            frame::write(Opcode::Text, out, |out| out.push(b'3'));
        } else if let Some(event) = said.strip_prefix("42") {
            let (name, message): (&str, Message<'_>) = serde_json::from_str(event).context("an event can't be read")?;
            if name == "message" {
                self.hear_message(&message, heard);
            }
        } else if let Some((reference, answer)) = reply(said)? {
            if reference == SYNC {
                self.hear_missed(answer, out, heard)?;
            } else {
                self.hear_reply(reference, answer, heard)?;
            }
        } else if said.starts_with("41") || said == "1" {
            bail!("closed by the server");
        }
        Ok(())
    }

    fn hear_message(&mut self, message: &Message<'_>, heard: &mut dyn FnMut(Heard<'_>)) {
        if *message.conversation_id == *self.conversation {
            self.see(message.seq);
        }
        heard(Heard::Message { sequence: Some(message.seq), text: &message.text });
    }

    fn hear_reply(&mut self, reference: u64, answer: &str, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let (answer,): (Sent<'_>,) = serde_json::from_str(answer).context("an answer can't be read")?;
        match (answer.seq, answer.error) {
            (Some(seq), None) => {
                // Nobody pushes one's own message.
                self.see(seq);
                heard(Heard::Accepted { reference });
            }
            (_, error) => {
                let reason = error.unwrap_or("without a reason");
                heard(Heard::Rejected { reference: Some(reference), reason });
            }
        }
        Ok(())
    }

    fn hear_missed(&mut self, answer: &str, out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let (answer,): (Synced<'_>,) = serde_json::from_str(answer).context("what was missed can't be read")?;
        if let Some(error) = answer.error {
            bail!("what was missed: {error}");
        }
        for message in &answer.messages {
            self.hear_message(message, heard);
        }
        if answer.has_more {
            self.sync(out);
        }
        Ok(())
    }

    /// Takes a number in.
    fn see(&mut self, seq: u64) {
        let Some(position) = &mut self.position else { return };
        match self.ahead.binary_search(&seq) {
            Err(place) if seq > *position => self.ahead.insert(place, seq),
            _ => return,
        }
        let mut taken = 0;
        for seq in &self.ahead {
            if *seq != *position + 1 {
                break;
            }
            *position = *seq;
            taken += 1;
        }
        self.ahead.drain(..taken);
    }
}

impl Protocol for Session {
    type Place = Position;

    fn send(&mut self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        let &Outgoing { conversation, reference, message_id, text, is_repeat: _ } = message;
        frame::write(Opcode::Text, out, |out| {
            out.extend_from_slice(b"42");
            out.extend_from_slice(reference.to_string().as_bytes());
            let event = ("send", Send { conversation_id: conversation, message_id, text });
            serde_json::to_writer(out, &event).expect("a vector takes everything");
        });
    }

    /// It is the server that asks, and is answered when it does.
    fn heartbeat(&mut self, _out: &mut Vec<u8>) {}

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        frame::write(Opcode::Text, out, |out| out.extend_from_slice(b"41"));
        frame::write(Opcode::Close, out, |out| out.extend(1000_u16.to_be_bytes()));
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = frame::read(&input[used..])? {
            match frame.opcode {
                Opcode::Text | Opcode::Close => self.hear(text(Some(frame))?, out, heard)?,
                Opcode::Ping => frame::write(Opcode::Pong, out, |out| out.extend_from_slice(frame.payload)),
                Opcode::Binary | Opcode::Pong => {}
            }
            used += frame.length;
        }
        Ok(used)
    }

    fn place(&self) -> Option<Position> {
        self.position.map(Position)
    }
}

/// `beginning` is the packets' types, and the number of a request.
fn write<T: Serialize>(out: &mut Vec<u8>, beginning: &str, content: &T) {
    frame::write(Opcode::Text, out, |out| {
        out.extend_from_slice(beginning.as_bytes());
        serde_json::to_writer(out, content).expect("a vector takes everything");
    });
}

/// The number of the request that this answers, and the answer; none if it is something else.
fn reply(said: &str) -> Result<Option<(u64, &str)>> {
    let Some(rest) = said.strip_prefix("43") else { return Ok(None) };
    let digits = rest.find('[').context("an answer without content")?;
    let reference = rest[..digits].parse().map_err(|_| anyhow!("an answer to nothing"))?;
    Ok(Some((reference, &rest[digits..])))
}

#[derive(Serialize)]
struct Send<'a> {
    conversation_id: &'a str,
    message_id: Uuid,
    text: &'a str,
}

/// The answer to `send`.
#[derive(Deserialize)]
struct Sent<'a> {
    seq: Option<u64>,
    error: Option<&'a str>,
}

/// The answer to `sync`.
#[derive(Deserialize)]
struct Synced<'a> {
    error: Option<&'a str>,
    #[serde(default)]
    positions: serde_json::Map<String, Value>,
    #[serde(default, borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    has_more: bool,
}

impl Synced<'_> {
    /// A user who has no conversation is at the beginning of it.
    fn position(&self, conversation: &str) -> Result<u64> {
        if let Some(error) = self.error {
            bail!("positions: {error}");
        }
        Ok(self.positions.get(conversation).and_then(Value::as_u64).unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    conversation_id: &'a str,
    seq: u64,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[cfg(test)]
mod tests;
