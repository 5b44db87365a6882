//! WebSocket on the wire, from the client's side: the handshake, and frames as bytes without I/O.
//!
//! A WebSocket library reads into a buffer of its own for each connection and keeps a task busy with each. Here one
//! buffer serves all connections of a process, which is what lets a small machine hold tens of thousands.

use std::{io, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use fastwebsockets::handshake::generate_key;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::ConnectError;

/// Bytes of the answer to a handshake, at the most.
const ANSWER_BYTES_MAX: usize = 4096;
/// Bytes of a frame, at the most; more is a server gone mad.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Two bytes, up to eight of length, and the mask.
const HEADER_BYTES_MAX: usize = 14;
const MASK_BYTES: usize = 4;
/// In the first byte: not the beginning of fragments.
const FINAL: u8 = 0x80;
/// In the second byte: a mask follows.
const MASKED: u8 = 0x80;
/// In the second byte: the length follows.
const LENGTH_OF_2_BYTES: u8 = 126;
const LENGTH_OF_8_BYTES: u8 = 127;
/// How long to stay away if a busy server doesn't say.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A message of text.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The end, with a code and a reason.
    Close = 8,
    /// To be answered with a pong of the same payload.
    Ping = 9,
    /// Such an answer.
    Pong = 10,
}

/// Asks a server to speak WebSocket. `fields` are further header lines, each with its line end.
///
/// # Errors
/// [`ConnectError::Busy`] if the answer is 503 or 429.
pub async fn upgrade(stream: &mut TcpStream, host: &str, path: &str, fields: &str) -> Result<Vec<u8>, ConnectError> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n{fields}\r\n",
        generate_key(),
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    let end = loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(anyhow!("the answer to the handshake does not end").into());
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(anyhow!("closed during the handshake").into());
        }
    };
    let rest = answer.split_off(end);
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_ascii_whitespace().nth(1).unwrap_or_default();
    match status {
        "101" => Ok(rest),
        "429" | "503" => Err(ConnectError::Busy(retry_after(&text).unwrap_or(BUSY_WAIT))),
        _ => Err(anyhow!("the handshake was answered with {status}").into()),
    }
}

fn retry_after(answer: &str) -> Option<Duration> {
    answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let seconds = value.trim().parse().ok()?;
        name.eq_ignore_ascii_case("retry-after").then_some(Duration::from_secs(seconds))
    })
}

/// Appends a whole message as one masked frame; `payload` appends what it carries.
pub fn write(opcode: Opcode, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    payload(out);
    let length = out.len() - start;
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = FINAL | opcode as u8;
    let used = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=125), _) => {
            header[1] = MASKED | length;
            2
        }
        (_, Ok(length)) => {
            header[1] = MASKED | LENGTH_OF_2_BYTES;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            4
        }
        _ => {
            header[1] = MASKED | LENGTH_OF_8_BYTES;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    // A mask of zeros is a mask; masks protect proxies from scripts, and there are neither.
    out.splice(start..start, header[..used + MASK_BYTES].iter().copied());
}

/// A whole frame of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// What it carries.
    pub payload: &'a [u8],
    /// Its bytes in all.
    pub length: usize,
}

/// The frame at the beginning of `input`; none if it isn't whole yet.
pub fn read(input: &[u8]) -> Result<Option<Frame<'_>>> {
    let [first, second, after @ ..] = input else { return Ok(None) };
    ensure!(first & FINAL != 0, "the server sends fragments");
    ensure!(second & MASKED == 0, "the server masks its frames");
    let opcode = match first & 0x0f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => bail!("the server sends frames of no known kind"),
    };
    let (length, payload) = match (second & !MASKED, after) {
        (LENGTH_OF_2_BYTES, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        (LENGTH_OF_8_BYTES, after) => match after.split_first_chunk() {
            Some((bytes, rest)) => (usize::try_from(u64::from_be_bytes(*bytes))?, rest),
            None => return Ok(None),
        },
        (LENGTH_OF_2_BYTES, _) => return Ok(None),
        (length, rest) => (usize::from(length), rest),
    };
    ensure!(length <= FRAME_BYTES_MAX, "the server sends a frame of {length} bytes");
    let header = input.len() - payload.len();
    Ok(payload.get(..length).map(|payload| Frame { opcode, payload, length: header + length }))
}

/// The reason that a close frame gives: its words, or else its code.
pub fn close_reason(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, [])) => format!("closed with {}", u16::from_be_bytes(*code)),
        Some((_, reason)) => format!("closed: {}", String::from_utf8_lossy(reason)),
        None => "closed".to_owned(),
    }
}

/// For a stream that has ended.
pub fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server would send it.
    fn unmasked(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(Opcode::Binary, &mut bytes, |out| out.extend_from_slice(payload));
        let header = bytes.len() - payload.len();
        bytes.drain(header - MASK_BYTES..header);
        bytes[1] &= !MASKED;
        bytes
    }

    #[test]
    fn frames_of_every_length_are_read_whole_and_not_before() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload = vec![7; length];
            let bytes = unmasked(&payload);
            for cut in [0, 1, 2, 3, 9, bytes.len() - 1] {
                assert_eq!(read(&bytes[..cut.min(bytes.len() - 1)]).unwrap(), None, "{length} cut at {cut}");
            }
            let mut more = bytes.clone();
            more.push(1);
            let frame = read(&more).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload, frame.length), (Opcode::Binary, &payload[..], bytes.len()));
        }
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bytes in [[0x02, 0x00], [0x82, 0x80], [0x83, 0x00]] {
            assert!(read(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn reasons_are_found() {
        assert_eq!(close_reason(&[]), "closed");
        assert_eq!(close_reason(&[0x0f, 0xa0]), "closed with 4000");
        assert_eq!(close_reason(b"\x0f\xa0going_away"), "closed: going_away");
        assert_eq!(retry_after("HTTP/1.1 503 x\r\nRetry-After: 7\r\n\r\n"), Some(Duration::from_secs(7)));
    }
}
