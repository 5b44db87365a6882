//! A lean WebSocket client: no tasks, no queues, no repeats. For load, where the convenient client would be measured
//! instead of the gateway.

use std::io;

use anyhow::{Context, Result, bail, ensure};
use chat_client::{
    ids::{DeviceId, Epoch},
    positions::Cursor,
    wire::{Command, CommandFrame, Encoding, Hello, Resume},
};
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketRead, WebSocketWrite, after_handshake_split, handshake::generate_key,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Bytes of the answer to a handshake, at the most.
const ANSWER_BYTES_MAX: usize = 4096;

/// Reads frames.
pub struct Reader(WebSocketRead<OwnedReadHalf>);

/// Writes frames.
pub struct Writer(WebSocketWrite<OwnedWriteHalf>);

/// What a frame says, as far as it matters here.
#[derive(Debug, Deserialize)]
pub struct Heard {
    /// The frame's type.
    #[serde(rename = "type")]
    pub name: String,
    #[serde(rename = "ref")]
    pub reference: Option<u64>,
    pub cursor: Option<Cursor>,
    pub epoch: Option<Epoch>,
    pub resumed: Option<bool>,
    message: Option<Said>,
}

/// What stands in `message`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    /// In a push: somebody's words.
    Message { text: String },
    /// In a rejection: what is wrong.
    Problem(String),
}

impl Heard {
    /// The text of a message, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.message {
            Some(Said::Message { text }) => Some(text),
            _ => None,
        }
    }

    /// Why a command was rejected, if it was.
    pub fn problem(&self) -> Option<&str> {
        match &self.message {
            Some(Said::Problem(problem)) => Some(problem),
            _ => None,
        }
    }
}

/// Opens a connection up to `ready`, which is given too.
pub async fn open(
    address: &str,
    token: &str,
    device_id: DeviceId,
    resume: Option<Resume>,
) -> Result<(Reader, Writer, Heard)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\nsec-websocket-protocol: {}\r\n\
         authorization: Bearer {token}\r\n\r\n",
        generate_key(),
        Encoding::MessagePack.subprotocol(),
    );
    stream.write_all(request.as_bytes()).await?;
    read_answer(&mut stream).await?;
    let (read, write) = stream.into_split();
    let (mut reader, writer) = after_handshake_split(read, write, Role::Client);
    reader.set_auto_close(false);
    reader.set_auto_pong(false);
    let (mut reader, mut writer) = (Reader(reader), Writer(writer));
    writer.write(Some(0), Command::Hello(Hello { device_id, resume })).await?;
    let ready = reader.next().await?;
    ensure!(ready.name == "ready", "the gateway said {ready:?} instead of ready");
    Ok((reader, writer, ready))
}

/// The gateway says nothing more before `hello`, so what is read ends with the answer.
async fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(answer.len() < ANSWER_BYTES_MAX, "the answer to the handshake does not end");
        ensure!(stream.read_buf(&mut answer).await? > 0, "the gateway closed the connection");
    }
    let text = String::from_utf8_lossy(&answer);
    ensure!(text.starts_with("HTTP/1.1 101"), "the gateway answered {}", text.lines().next().unwrap_or_default());
    Ok(())
}

impl Reader {
    /// The next frame. Not cancel safe.
    pub async fn next(&mut self) -> Result<Heard> {
        loop {
            let frame = self.0.read_frame(&mut |_| async { Ok::<_, io::Error>(()) }).await?;
            match frame.opcode {
                OpCode::Binary => {
                    return Encoding::MessagePack.decode(&frame.payload).context("a frame can't be read");
                }
                OpCode::Close => {
                    bail!("the gateway closed: {}", String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default()))
                }
                _ => {}
            }
        }
    }
}

impl Writer {
    /// Writes a command at once.
    pub async fn write(&mut self, reference: Option<u64>, command: Command) -> Result<()> {
        let bytes = Encoding::MessagePack.encode(&CommandFrame { reference, command })?;
        Ok(self.0.write_frame(Frame::binary(Payload::Owned(bytes))).await?)
    }

    /// Says goodbye.
    pub async fn close(&mut self) -> Result<()> {
        Ok(self.0.write_frame(Frame::close(1000, b"")).await?)
    }
}
