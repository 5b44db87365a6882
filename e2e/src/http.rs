//! WebSocket handshakes as plain bytes, so that they can be wrong.

use anyhow::{Context, Result, bail, ensure};
use chat_shared::wire::Encoding;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Socket, api::ADDRESSES, in_time, traces};

/// Bytes that the head of an answer may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The answer to a handshake.
#[derive(Debug)]
pub struct Handshake {
    /// The HTTP status; 101 for a success.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as JSON, null if there is none.
    pub body: Value,
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Handshake {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Status and error code, as in `401 unauthenticated`; `101` for a success.
    pub fn code(&self) -> String {
        match self.body["code"].as_str() {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }

    /// The socket of a handshake that succeeded.
    pub fn into_socket(self, encoding: Encoding) -> Result<Socket> {
        ensure!(self.status == 101, "the handshake was refused with {} {}", self.status, self.body);
        Ok(Socket::new(self.stream, self.rest, encoding))
    }
}

/// Opens a socket in the ordinary way.
pub async fn open(address: &str, encoding: Encoding, token: &str) -> Result<Socket> {
    let authorization = format!("Bearer {token}");
    let headers = [("Sec-WebSocket-Protocol", encoding.subprotocol()), ("Authorization", authorization.as_str())];
    shake_hands(address, &headers).await?.into_socket(encoding)
}

/// Asks for `/v1/ws` with these headers besides those that every handshake has.
pub async fn shake_hands(address: &str, headers: &[(&str, &str)]) -> Result<Handshake> {
    shake_hands_at(address, "/v1/ws", headers).await
}

/// Asks for a path, which may have a query.
pub async fn shake_hands_at(address: &str, path: &str, headers: &[(&str, &str)]) -> Result<Handshake> {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         X-Forwarded-For: {ADDRESSES}8\r\n"
    );
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    request.extend(headers.chain(["\r\n".to_owned()]));
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request.as_bytes()).await?;
    in_time("the answer to a handshake", read_answer(stream)).await?
}

async fn read_answer(mut stream: TcpStream) -> Result<Handshake> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        ensure!(bytes.len() < HEAD_BYTES_MAX, "the answer's head does not end");
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the gateway hung up before it had answered");
    };
    let head = String::from_utf8(bytes[..head_end].to_vec())?;
    let mut rest = bytes.split_off(head_end + 4);
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).context("the answer has no status")?.parse::<u16>()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse::<usize>());
    let mut body = Value::Null;
    if let Some(length) = length.transpose()? {
        while rest.len() < length {
            if stream.read_buf(&mut rest).await? == 0 {
                bail!("the answer ends after {} of {length} bytes", rest.len());
            }
        }
        if status >= 400 {
            let text = String::from_utf8_lossy(&rest[..length]);
            ensure!(traces::secret_in(&text).is_none(), "a refusal tells too much: {text}");
        }
        body = serde_json::from_slice(&rest[..length]).unwrap_or_default();
    }
    Ok(Handshake { status, headers, body, stream, rest })
}
