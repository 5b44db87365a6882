//! A WebSocket whose every byte the test decides.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use chat_shared::{
    ids::{ConversationId, DeviceId, MessageId},
    wire::{Connected, Encoding, Resume},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::in_time;

/// Opcodes, as the first byte of a frame has them in its lower half.
pub mod opcode {
    /// Goes on with a message that came in fragments.
    pub const CONTINUATION: u8 = 0;
    /// JSON.
    pub const TEXT: u8 = 1;
    /// MessagePack.
    pub const BINARY: u8 = 2;
    /// The end.
    pub const CLOSE: u8 = 8;
    /// Wants a pong.
    pub const PING: u8 = 9;
    /// The answer to a ping.
    pub const PONG: u8 = 10;
    /// Set in the first byte of a message's last frame.
    pub const FIN: u8 = 0x80;
}

/// Clients must mask; any key will do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A socket after its handshake.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    /// All bytes since [`Self::record`].
    recorded: Option<Vec<u8>>,
    encoding: Encoding,
    next_reference: u64,
    /// Pushes that came while a reply was waited for.
    kept: VecDeque<Incoming>,
}

/// What a gateway sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A reply or a push.
    Frame(Value),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The end, with its reason.
    Close(u16, String),
    /// The end of the stream, without a word.
    Gone,
}

impl Socket {
    pub(crate) const fn new(stream: TcpStream, received: Vec<u8>, encoding: Encoding) -> Self {
        Self { stream, received, recorded: None, encoding, next_reference: 1, kept: VecDeque::new() }
    }

    /// Keeps all bytes that come from now on, and those that are not taken yet.
    pub fn record(&mut self) {
        self.recorded = Some(self.received.clone());
    }

    /// The bytes that were kept.
    pub fn recorded(&self) -> &[u8] {
        self.recorded.as_deref().unwrap_or_default()
    }

    /// Says `hello` and waits for `ready`.
    pub async fn hello(&mut self, device_id: DeviceId, resume: Option<Resume>) -> Result<Connected> {
        let mut hello = json!({ "type": "hello", "device_id": device_id });
        if let Some(resume) = resume {
            hello["resume"] = serde_json::to_value(resume)?;
        }
        self.command(&hello).await?;
        let ready = self.frame().await?;
        ensure!(ready["type"] == "ready", "hello was answered with {ready}");
        Ok(serde_json::from_value(ready)?)
    }

    /// Sends a command in the connection's encoding.
    pub async fn command(&mut self, command: &Value) -> Result<()> {
        let bytes = self.encoding.encode(command)?;
        self.data(&bytes).await
    }

    /// Sends a data frame of the right type.
    pub async fn data(&mut self, payload: &[u8]) -> Result<()> {
        let opcode = match self.encoding {
            Encoding::Json => opcode::TEXT,
            Encoding::MessagePack => opcode::BINARY,
        };
        self.raw_frame(opcode::FIN | opcode, payload).await
    }

    /// Sends a frame with any first byte.
    pub async fn raw_frame(&mut self, first_byte: u8, payload: &[u8]) -> Result<()> {
        let mut bytes = vec![first_byte];
        match payload.len() {
            length @ 0..126 => bytes.push(0x80 | u8::try_from(length)?),
            length @ 126..0x1_0000 => {
                bytes.push(0x80 | 0x7e);
                bytes.extend(u16::try_from(length)?.to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 0x7f);
                bytes.extend(u64::try_from(length)?.to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.bytes(&bytes).await
    }

    /// Sends bytes as they are.
    pub async fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        in_time("room for a frame", self.stream.write_all(bytes)).await?.context("writing to the gateway")
    }

    /// Says that nothing more will be sent; what the gateway sends can still be read.
    pub async fn end(&mut self) {
        // A connection that is gone has ended already.
        let _ended = self.stream.shutdown().await;
    }

    /// Sends a command with a reference of its own and waits for the reply; pushes that come before it come again.
    pub async fn ask(&mut self, mut command: Value) -> Result<Value> {
        let reference = self.next_reference;
        self.next_reference += 1;
        command["ref"] = json!(reference);
        self.command(&command).await?;
        let mut passed = VecDeque::new();
        loop {
            match self.incoming().await? {
                Incoming::Frame(frame) if frame["ref"] == reference => {
                    self.kept = passed;
                    return Ok(frame);
                }
                Incoming::Close(code, reason) => bail!("the gateway closed the connection with {code} {reason}"),
                Incoming::Gone => bail!("the gateway hung up"),
                push => passed.push_back(push),
            }
        }
    }

    /// Sends a message and waits for the reply.
    pub async fn send(&mut self, conversation_id: ConversationId, message_id: MessageId, text: &str) -> Result<Value> {
        self.ask(send_message(conversation_id, message_id, text)).await
    }

    /// The next frame that is no heartbeat.
    pub async fn frame(&mut self) -> Result<Value> {
        self.frame_where(|frame| frame["type"] != "heartbeat").await
    }

    /// Passes over frames until one fits.
    pub async fn frame_where(&mut self, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            match self.incoming().await? {
                Incoming::Frame(frame) if fits(&frame) => return Ok(frame),
                Incoming::Frame(_) | Incoming::Pong(_) => {}
                Incoming::Close(code, reason) => bail!("the gateway closed the connection with {code} {reason}"),
                Incoming::Gone => bail!("the gateway hung up"),
            }
        }
    }

    /// Passes over frames until the gateway closes the connection; the code and its reason.
    pub async fn close_code(&mut self) -> Result<(u16, String)> {
        loop {
            match self.incoming().await? {
                Incoming::Close(code, reason) => return Ok((code, reason)),
                Incoming::Gone => bail!("the gateway hung up without a close code"),
                Incoming::Frame(_) | Incoming::Pong(_) => {}
            }
        }
    }

    /// Whatever comes next.
    pub async fn incoming(&mut self) -> Result<Incoming> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        in_time("a frame", self.read()).await?
    }

    async fn read(&mut self) -> Result<Incoming> {
        loop {
            if let Some((opcode, payload)) = self.take_frame()? {
                return Ok(match opcode {
                    opcode::PONG => Incoming::Pong(payload),
                    opcode::CLOSE => {
                        let (code, reason) = payload.split_first_chunk().context("the close frame is empty")?;
                        Incoming::Close(u16::from_be_bytes(*code), String::from_utf8(reason.to_vec())?)
                    }
                    _ => {
                        let expected = self.encoding == Encoding::Json;
                        ensure!((opcode == opcode::TEXT) == expected, "a frame of opcode {opcode} came");
                        Incoming::Frame(self.encoding.decode(&payload)?)
                    }
                });
            }
            // A reset connection is as gone as one that ended.
            let Ok(count @ 1..) = self.stream.read_buf(&mut self.received).await else {
                return Ok(Incoming::Gone);
            };
            if let Some(recorded) = &mut self.recorded {
                recorded.extend_from_slice(&self.received[self.received.len() - count..]);
            }
        }
    }

    /// A whole frame, if one has been received: opcode and payload.
    fn take_frame(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let [first, second, rest @ ..] = self.received.as_slice() else { return Ok(None) };
        ensure!(first & opcode::FIN != 0, "the gateway sent a fragment");
        ensure!(second & 0x80 == 0, "the gateway masked a frame");
        let length_of = |bytes: &[u8]| bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        let extended = match second {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended {
            return Ok(None);
        }
        let length = if extended == 0 { usize::from(*second) } else { length_of(&rest[..extended]) };
        let end = 2 + extended + length;
        if self.received.len() < end {
            return Ok(None);
        }
        let opcode = first & 0x0f;
        let payload = self.received[2 + extended..end].to_vec();
        self.received.drain(..end);
        Ok(Some((opcode, payload)))
    }
}

/// The command that sends a message.
pub fn send_message(conversation_id: ConversationId, message_id: MessageId, text: &str) -> Value {
    json!({
        "type": "send_message",
        "conversation_id": conversation_id,
        "message_id": message_id,
        "text": text,
    })
}
