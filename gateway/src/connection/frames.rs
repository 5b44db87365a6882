//! Reads a client's WebSocket frames, one at a time.
//!
//! The library's reader keeps eight kilobytes for as long as it lives, which is most of what an idle connection would
//! cost. So a reader is made for each frame, once its header says how long it is, and an idle connection keeps only
//! a small buffer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chat_shared::limits;
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocketError, after_handshake_split};
use tokio::{
    io::{AsyncRead, AsyncReadExt, BufReader, copy_buf, sink},
    time::timeout,
};

use super::pace::Pace;

/// Holds the header and, of most frames, all the rest.
const BUFFER_BYTES: usize = 512;
/// Two bytes, up to eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Bytes that a ping, a pong or a close may carry.
const CONTROL_BYTES_MAX: usize = 125;
/// Set in the first byte of those.
const CONTROL: u8 = 0x08;
/// Bytes that are read past when a connection ends, and how long.
const DISCARDED_BYTES_MAX: u64 = 256 * 1024;
const DISCARD_WAIT_MAX: Duration = Duration::from_secs(1);
/// Set in the second byte of every frame that a client sends.
const MASKED: u8 = 0x80;

/// The frames that come from a client.
pub(super) struct Frames<R> {
    socket: BufReader<R>,
    /// Of those that no limit of commands counts.
    pub pace: Pace,
    /// Whether the client's close frame has come; nothing follows it.
    is_closed: bool,
}

/// A frame, unmasked.
pub(super) struct Received {
    /// Whether it is a whole message, or the last of its fragments.
    pub is_final: bool,
    /// What kind of frame it is.
    pub opcode: OpCode,
    /// What it carries.
    pub payload: Bytes,
}

/// The part of a frame that comes before what it carries.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
    payload: u64,
}

impl<R: AsyncRead + Unpin + Send> Frames<R> {
    /// The frames on a socket whose handshake is done.
    pub(super) fn new(socket: R) -> Self {
        Self { socket: BufReader::with_capacity(BUFFER_BYTES, socket), pace: Pace::start(), is_closed: false }
    }

    /// The next frame. Not cancel safe: part of a frame may be lost with it.
    pub(super) async fn next(&mut self) -> Result<Received, WebSocketError> {
        let mut start = [0; 2];
        self.socket.read_exact(&mut start).await?;
        // In a box of its own, since most of the time there is no frame.
        Box::pin(self.finish(start)).await
    }

    /// Reads past what still comes until the client's close frame, for a moment: a socket that is closed with something
    /// unread is reset, and the client might never see why it was closed. After both close frames the socket is the
    /// server's to close, at once.
    pub(super) async fn discard(&mut self) {
        let _late = timeout(DISCARD_WAIT_MAX, async {
            let mut bytes = 0;
            while !self.is_closed && bytes < DISCARDED_BYTES_MAX {
                match self.next().await {
                    Ok(frame) => bytes += (HEADER_BYTES_MAX + frame.payload.len()) as u64,
                    Err(_) => return self.discard_bytes().await,
                }
            }
        })
        .await;
    }

    /// Reads past bytes that are no frames.
    async fn discard_bytes(&mut self) {
        let mut rest = (&mut self.socket).take(DISCARDED_BYTES_MAX);
        let _broken = copy_buf(&mut rest, &mut sink()).await;
    }

    async fn finish(&mut self, start: [u8; 2]) -> Result<Received, WebSocketError> {
        let mut header = Header::start(start)?;
        self.socket.read_exact(&mut header.bytes[2..header.length]).await?;
        header.finish()?;
        let frame = header.bytes[..header.length].chain((&mut self.socket).take(header.payload));
        let (mut reader, _) = after_handshake_split(frame, sink(), Role::Server);
        reader.set_auto_close(false);
        reader.set_auto_pong(false);
        reader.set_max_message_size(limits::FRAME_BYTES_MAX + 1);
        let frame = reader.read_frame(&mut never_sends).await?;
        let payload = match frame.payload {
            Payload::Bytes(bytes) => bytes,
            other => BytesMut::from(&other[..]),
        };
        self.is_closed |= frame.opcode == OpCode::Close;
        Ok(Received { is_final: frame.fin, opcode: frame.opcode, payload: payload.freeze() })
    }
}

impl Header {
    /// From its first two bytes: how long it is.
    fn start(start: [u8; 2]) -> Result<Self, WebSocketError> {
        // A client has to mask what it sends.
        if start[1] & MASKED == 0 {
            return Err(WebSocketError::InvalidValue);
        }
        let length_bytes = match start[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[..2].copy_from_slice(&start);
        Ok(Self { bytes, length: 2 + length_bytes + 4, payload: u64::from(start[1] & !MASKED) })
    }

    /// Once all of it is there: how much follows.
    fn finish(&mut self) -> Result<(), WebSocketError> {
        let length = &self.bytes[2..self.length - 4];
        if !length.is_empty() {
            self.payload = length.iter().fold(0, |payload, byte| payload << 8 | u64::from(*byte));
        }
        let most = if self.bytes[0] & CONTROL == 0 { limits::FRAME_BYTES_MAX } else { CONTROL_BYTES_MAX };
        let is_allowed = usize::try_from(self.payload).is_ok_and(|payload| payload <= most);
        if is_allowed { Ok(()) } else { Err(WebSocketError::FrameTooLarge) }
    }
}

/// With automatic pongs and closes off, the library has nothing to send.
async fn never_sends(_frame: Frame<'_>) -> Result<(), WebSocketError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Frame::new(true, opcode, Some([1, 2, 3, 4]), Payload::Owned(payload.to_vec()));
        frame.mask();
        let mut bytes = Vec::new();
        frame.write(&mut bytes).to_vec()
    }

    async fn read(bytes: &[u8], frames: usize) -> Vec<Result<(OpCode, Bytes), String>> {
        let mut reader = Frames::new(bytes);
        let mut read = Vec::new();
        for _ in 0..frames {
            let frame = reader.next().await;
            read.push(frame.map(|frame| (frame.opcode, frame.payload)).map_err(|error| error.to_string()));
        }
        read
    }

    #[tokio::test]
    async fn frames_of_all_lengths_come_out_whole_and_one_after_the_other() {
        let sizes = [0, 1, 125, 126, 511, 512, 600, 20_000, limits::FRAME_BYTES_MAX];
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| masked(OpCode::Binary, &vec![7; *size])).collect();
        let frames = read(&bytes, sizes.len()).await;
        for (frame, size) in frames.into_iter().zip(sizes) {
            assert_eq!(frame, Ok((OpCode::Binary, vec![7; size].into())), "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_after_the_clients_close_frame() {
        let (client, server) = tokio::io::duplex(1024);
        let (mut client, began) = (client, tokio::time::Instant::now());
        let sent = [masked(OpCode::Text, b"late"), masked(OpCode::Close, &[])].concat();
        client.write_all(&sent).await.unwrap();
        let mut frames = Frames::new(server);
        frames.discard().await;
        frames.discard().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "though the client keeps the socket open");
    }

    #[tokio::test]
    async fn what_is_too_large_or_unmasked_or_cut_off_is_refused() {
        let too_large = masked(OpCode::Binary, &vec![0; limits::FRAME_BYTES_MAX + 1]);
        assert_eq!(read(&too_large, 1).await, [Err("Frame too large".to_owned())]);
        assert_eq!(read(&[0x82, 127, 255, 255], 1).await, [Err("Invalid value".to_owned())]);
        assert_eq!(
            read(&[0x82, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4], 1).await,
            [Err("Frame too large".to_owned())]
        );
        let whole = masked(OpCode::Text, b"hello");
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 1).await[0].is_err(), "{length}");
        }
    }
}
