//! One connection: handshake, `hello`, and the two tasks that read and write its frames. It decides nothing.

use std::{io, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use chat_shared::{
    position::Cursor,
    wire::{Command, CommandFrame, Connected, Encoding, ErrorBody, Hello, Push, Rejected, Reply, ServerFrame},
};
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
    handshake::generate_key,
};
use reqwest::{
    StatusCode, Upgraded, Url,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use serde::Deserialize;
use tokio::{
    io::{BufWriter, ReadHalf, WriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::{
    limits::{INBOUND_FRAMES_MAX, OPENING_WAIT_MAX, OUTBOX_FRAMES_MAX, SERVER_FRAME_BYTES_MAX},
    rest::{endpoint, retry_after_header},
    token::Tokens,
    verdict::Ending,
};

/// What a connection is opened with.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) http: reqwest::Client,
    pub(crate) tokens: Arc<Tokens>,
    /// A token that a gateway has refused.
    pub(crate) refused_token: Option<Arc<str>>,
    pub(crate) gateway: Url,
    pub(crate) encoding: Encoding,
    pub(crate) hello: Hello,
}

/// A connection that has said `ready`. Dropping it ends its tasks and closes the socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) ready: Connected,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    pub(crate) outbox: mpsc::Sender<Outbound>,
    pub(crate) token: Arc<str>,
    tasks: JoinSet<()>,
}

/// What was read.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A frame of a known type.
    Frame(ServerFrame),
    /// A frame of a type from a later version.
    Unknown { cursor: Option<Cursor> },
    /// A sign of life without content.
    Ping,
    /// Nothing more comes.
    End(Ending),
}

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Outbound {
    Frame(Vec<u8>),
    Pong(Vec<u8>),
    /// The last one.
    Close,
}

/// Opens a connection, up to `ready`. If it fails, the token it was tried with comes along.
pub(crate) async fn open(opening: Opening) -> Result<Connection, (Ending, Option<Arc<str>>)> {
    let token = match &opening.refused_token {
        Some(refused) => opening.tokens.renewed(refused).await,
        None => opening.tokens.current().await,
    };
    let token = token.map_err(|error| (error.into(), None))?;
    match timeout(OPENING_WAIT_MAX, open_with(opening, Arc::clone(&token))).await {
        Ok(opened) => opened.map_err(|ending| (ending, Some(token))),
        Err(_) => Err((Ending::OpeningTimedOut, Some(token))),
    }
}

async fn open_with(opening: Opening, token: Arc<str>) -> Result<Connection, Ending> {
    let Opening { http, gateway, encoding, hello, .. } = opening;
    let socket = shake_hands(&http, &gateway, encoding, &token).await?;
    let (read, write) = tokio::io::split(socket);
    let (mut reader, mut writer) = after_handshake_split(read, BufWriter::new(write), Role::Client);
    reader.set_auto_close(false);
    reader.set_auto_pong(false);
    reader.set_max_message_size(SERVER_FRAME_BYTES_MAX);
    writer.set_writev(false);

    let (outbox, to_write) = mpsc::channel(OUTBOX_FRAMES_MAX);
    let (to_session, mut inbound) = mpsc::channel(INBOUND_FRAMES_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(write_frames(writer, to_write, encoding));
    tasks.spawn(read_frames(reader, to_session, outbox.clone(), encoding));

    let hello = CommandFrame { reference: Some(0), command: Command::Hello(hello) };
    let bytes = encoding.encode(&hello).map_err(|error| Ending::Protocol(error.to_string()))?;
    // The outbox is empty, so there is room; if the writer has ended, the reader says why.
    let _is_written = outbox.try_send(Outbound::Frame(bytes));
    let ready = wait_for_ready(&mut inbound).await?;
    Ok(Connection { ready, inbound, outbox, token, tasks })
}

async fn wait_for_ready(inbound: &mut mpsc::Receiver<Inbound>) -> Result<Connected, Ending> {
    loop {
        match inbound.recv().await {
            Some(Inbound::Frame(ServerFrame::Push(Push::Ready(ready)))) => return Ok(ready),
            Some(Inbound::Frame(ServerFrame::Reply(Reply::Rejected(rejected)))) => return Err(refused(rejected)),
            Some(
                Inbound::Frame(ServerFrame::Push(Push::GoingAway { .. })) | Inbound::Ping | Inbound::Unknown { .. },
            ) => {}
            Some(Inbound::Frame(_)) => return Err(Ending::Protocol("another frame came before ready".into())),
            Some(Inbound::End(ending)) => return Err(ending),
            None => return Err(Ending::Transport("the connection ended before ready".into())),
        }
    }
}

fn refused(rejected: Rejected) -> Ending {
    let Rejected { code, message, retry_after_ms, .. } = rejected;
    let retry_after = retry_after_ms.map(Duration::from_millis);
    Ending::Handshake {
        status: code.http_status(),
        body: Some(ErrorBody { code, message, retry_after_ms }),
        retry_after,
    }
}

async fn shake_hands(
    http: &reqwest::Client,
    gateway: &Url,
    encoding: Encoding,
    token: &str,
) -> Result<Upgraded, Ending> {
    let key = generate_key();
    let response = http
        .get(endpoint(gateway, &["ws"]))
        .bearer_auth(token)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, encoding.subprotocol())
        .send()
        .await
        .map_err(transport)?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let retry_after = retry_after_header(&response);
        let body = response.bytes().await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        return Err(Ending::Handshake { status: status.as_u16(), body, retry_after });
    }
    let says =
        |name, value: &str| response.headers().get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
    if !says(SEC_WEBSOCKET_ACCEPT, &accept_of(&key)) {
        return Err(Ending::Protocol("it did not accept the key of the handshake".into()));
    }
    if !says(SEC_WEBSOCKET_PROTOCOL, encoding.subprotocol()) {
        return Err(Ending::Protocol("it did not agree to the subprotocol".into()));
    }
    response.upgrade().await.map_err(transport)
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2). A cache does not give it.
fn accept_of(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

fn transport(error: reqwest::Error) -> Ending {
    // The whole chain, because the outermost error says no more than "sending failed".
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Ending::Transport(text)
}

/// Reads until the connection ends. Stops reading while the session has frames to look at, and so passes the
/// pressure on to the gateway.
async fn read_frames(
    mut reader: WebSocketRead<ReadHalf<Upgraded>>,
    session: mpsc::Sender<Inbound>,
    outbox: mpsc::Sender<Outbound>,
    encoding: Encoding,
) {
    loop {
        // `read_frame` is not cancel safe, so this task does nothing else.
        let inbound = match reader.read_frame(&mut |_| async { Ok::<_, io::Error>(()) }).await {
            Err(error) => Inbound::End(ending(&error)),
            Ok(frame) => match frame.opcode {
                OpCode::Text | OpCode::Binary => decode(encoding, &frame),
                OpCode::Close => Inbound::End(closed(&frame.payload)),
                OpCode::Ping => {
                    // Without room for the answer the writer is stuck, and heartbeats will show it.
                    let _is_queued = outbox.try_send(Outbound::Pong(frame.payload.to_vec()));
                    Inbound::Ping
                }
                OpCode::Pong => Inbound::Ping,
                OpCode::Continuation => Inbound::End(Ending::Protocol("a message came in fragments".into())),
            },
        };
        let is_end = matches!(inbound, Inbound::End(_));
        if session.send(inbound).await.is_err() || is_end {
            return;
        }
    }
}

fn ending(error: &WebSocketError) -> Ending {
    Ending::Transport(error.to_string())
}

fn closed(payload: &[u8]) -> Ending {
    match payload {
        [high, low, reason @ ..] => Ending::Closed {
            code: u16::from_be_bytes([*high, *low]),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        _ => Ending::Transport("the gateway closed the connection without a code".into()),
    }
}

pub(crate) fn decode(encoding: Encoding, frame: &Frame<'_>) -> Inbound {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "type")]
        _name: String,
        #[serde(default)]
        cursor: Option<Cursor>,
    }

    if !frame.fin {
        return Inbound::End(Ending::Protocol("a message came in fragments".into()));
    }
    match encoding.decode::<ServerFrame>(&frame.payload) {
        Ok(frame) => Inbound::Frame(frame),
        Err(error) => match encoding.decode::<Header>(&frame.payload) {
            Ok(header) => Inbound::Unknown { cursor: header.cursor },
            Err(_) => Inbound::End(Ending::Protocol(error.to_string())),
        },
    }
}

/// Writes until the session has no more, or the connection breaks; the reader notices that too.
async fn write_frames(
    mut writer: WebSocketWrite<BufWriter<WriteHalf<Upgraded>>>,
    mut frames: mpsc::Receiver<Outbound>,
    encoding: Encoding,
) {
    let mut batch = Vec::with_capacity(OUTBOX_FRAMES_MAX);
    while frames.recv_many(&mut batch, OUTBOX_FRAMES_MAX).await > 0 {
        for outbound in batch.drain(..) {
            let frame = match outbound {
                Outbound::Frame(bytes) if encoding == Encoding::Json => Frame::text(Payload::Owned(bytes)),
                Outbound::Frame(bytes) => Frame::binary(Payload::Owned(bytes)),
                Outbound::Pong(bytes) => Frame::pong(Payload::Owned(bytes)),
                Outbound::Close => Frame::close(1000, b""),
            };
            if writer.write_frame(frame).await.is_err() {
                return;
            }
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
impl Connection {
    /// One without a socket, and what would be written to it.
    pub(crate) fn detached(ready: Connected) -> (Self, mpsc::Receiver<Outbound>) {
        let (outbox, to_write) = mpsc::channel(OUTBOX_FRAMES_MAX);
        let (_, inbound) = mpsc::channel(1);
        (Self { ready, inbound, outbox, token: Arc::from("token"), tasks: JoinSet::new() }, to_write)
    }
}

impl Connection {
    /// Says goodbye, and waits for what is in the outbox to be written and the gateway to close.
    pub(crate) async fn close(self) {
        let Self { mut inbound, outbox, tasks, .. } = self;
        if outbox.send(Outbound::Close).await.is_ok() {
            drop(outbox);
            // The gateway answers with its own close frame, which ends the reader.
            while let Some(inbound) = inbound.recv().await {
                if matches!(inbound, Inbound::End(_)) {
                    break;
                }
            }
        }
        drop(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
