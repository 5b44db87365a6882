//! Frames as no honest client sends them: any bytes, with lengths that lie, cut anywhere.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chat_shared::{
    ids::UserId,
    limits,
    wire::{CloseCode, Command, CommandFrame, Encoding, Heartbeat},
};
use fastwebsockets::OpCode;
use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Ended, Frames, next_command};
use crate::{
    auth::Identity,
    connection::{Connection, outbox::Outgoing},
    tests::mutation::{apply, changes},
};

/// Memory while a frame is read, beyond the frame: the library's buffer, and the command that is made of it.
const COST_BESIDES_MAX: usize = 16 * 1024;
/// Bytes of a header, at the most.
const HEADER_BYTES_MAX: usize = 14;
/// Bytes of what isn't data, at the most.
const CONTROL_BYTES_MAX: usize = 125;
const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A stream that gives its bytes in pieces, and then ends, or nothing more for ever.
struct Pieces {
    bytes: VecDeque<u8>,
    sizes: VecDeque<usize>,
    has_end: bool,
}

impl Pieces {
    fn new(bytes: &[u8], sizes: &[usize]) -> Self {
        Self { bytes: bytes.iter().copied().collect(), sizes: sizes.iter().copied().collect(), has_end: true }
    }

    /// One that waits for more after `bytes`.
    fn unended(bytes: &[u8]) -> Self {
        Self { has_end: false, ..Self::new(bytes, &[]) }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.bytes.is_empty() && !self.has_end {
            return Poll::Pending;
        }
        let size = self.sizes.pop_front().unwrap_or(usize::MAX).max(1);
        let count = size.min(into.remaining()).min(self.bytes.len());
        let piece: Vec<u8> = self.bytes.drain(..count).collect();
        into.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

/// A frame on its way, honest or not.
#[derive(Debug, Clone)]
struct Sent {
    first: u8,
    mask: Option<[u8; 4]>,
    /// What the header says of the length, if that isn't so.
    claimed: Option<u64>,
    /// Whether the length is written longer than it needs to be.
    is_long: bool,
    payload: Vec<u8>,
}

impl Sent {
    fn honest(first: u8, mask: [u8; 4], payload: Vec<u8>) -> Self {
        Self { first, mask: Some(mask), claimed: None, is_long: false, payload }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.claimed.unwrap_or(self.payload.len() as u64);
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..126), _) if !self.is_long => bytes.push(masked + length),
            (_, Ok(length)) if !self.is_long => {
                bytes.push(masked + 126);
                bytes.extend(length.to_be_bytes());
            }
            _ => {
                bytes.push(masked + 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(self.mask.into_iter().flatten());
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// What RFC 6455 allows a client.
fn honest() -> impl Strategy<Value = Sent> {
    let data =
        prop_oneof![8 => vec(any::<u8>(), 0..300), 1 => vec(any::<u8>(), 300..2000), 1 => vec(Just(7), 65_500 / 2)];
    let text = "[ -~]{0,200}|\\PC{0,40}".prop_map(String::into_bytes);
    prop_oneof![
        (any::<[u8; 4]>(), text).prop_map(|(mask, text)| Sent::honest(FIN | TEXT, mask, text)),
        (select(vec![BINARY, CONTINUATION, FIN | BINARY, FIN | CONTINUATION, TEXT]), any::<[u8; 4]>(), data)
            .prop_map(|(first, mask, payload)| Sent::honest(first, mask, payload)),
        (select(vec![CLOSE, PING, PONG]), any::<[u8; 4]>(), vec(any::<u8>(), 0..126))
            .prop_map(|(opcode, mask, payload)| Sent::honest(FIN | opcode, mask, payload)),
    ]
}

/// What it doesn't.
fn dishonest() -> impl Strategy<Value = Sent> {
    let most = limits::FRAME_BYTES_MAX as u64;
    let claimed = prop_oneof![
        3 => Just(None),
        1 => (0..200_u64).prop_map(Some),
        1 => select(vec![most - 1, most, most + 1, 65_535, 65_536, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX])
            .prop_map(Some),
        1 => any::<u64>().prop_map(Some),
    ];
    let mask = prop_oneof![4 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    (any::<u8>(), mask, claimed, any::<bool>(), vec(any::<u8>(), 0..300))
        .prop_map(|(first, mask, claimed, is_long, payload)| Sent { first, mask, claimed, is_long, payload })
}

/// Sizes of the pieces that a stream comes in; what is left comes at once.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![4 => 1..20_usize, 1 => 1..2000_usize], 0..60)
}

/// Frames of both sorts, and then some of the bytes changed.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let frames = vec(prop_oneof![3 => honest(), 1 => dishonest()], 0..6);
    (frames, vec(changes(), 0..3)).prop_map(|(frames, changes)| {
        let mut bytes: Vec<u8> = frames.iter().flat_map(Sent::bytes).collect();
        apply(&changes, &mut bytes);
        bytes
    })
}

/// One frame, or why there is none.
type Outcome = Result<(bool, OpCode, Vec<u8>), String>;

/// All frames up to the first that can't be read, and what the dearest of them cost.
fn read_all(stream: Pieces) -> (Vec<Outcome>, u64) {
    let mut frames = Frames::new(stream);
    let (mut outcomes, mut dearest) = (Vec::new(), 0);
    loop {
        let mut outcome = None;
        let cost = allocation_counter::measure(|| {
            let read = frames.next().now_or_never().expect("a stream with an end never waits");
            outcome = Some(match read {
                Ok(frame) => Ok((frame.is_final, frame.opcode, frame.payload.to_vec())),
                Err(error) => Err(error.to_string()),
            });
        });
        dearest = dearest.max(cost.bytes_max);
        let is_end = matches!(outcome, Some(Err(_)));
        outcomes.extend(outcome);
        if is_end {
            return (outcomes, dearest);
        }
    }
}

/// The commands up to the end of a connection, and how it ended.
fn converse(connection: &Connection, stream: Pieces) -> (Vec<CommandFrame>, Ended) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut frames = Frames::new(stream);
    let (mut commands, mut refusals) = (Vec::new(), 0);
    runtime.block_on(async {
        loop {
            match next_command(connection, &mut frames, Duration::from_secs(20)).await {
                Ok(command) => commands.push(command),
                Err(Ended::Rejected(_)) if refusals < 10_000 => refusals += 1,
                Err(ended) => return (commands, ended),
            }
        }
    })
}

fn connection(encoding: Encoding) -> Connection {
    Connection::new(Identity::for_ever(UserId::random()), encoding, Arc::default())
}

fn encodings() -> impl Strategy<Value = Encoding> {
    select(Encoding::ALL.to_vec())
}

/// What waits in a connection's outbox.
fn waiting(connection: &Connection) -> Vec<Vec<u8>> {
    let next = || connection.outbox.next().now_or_never().flatten();
    std::iter::from_fn(next).map(|(Outgoing::Data(bytes) | Outgoing::Pong(bytes))| bytes).collect()
}

proptest! {
    #[test]
    fn what_is_sent_is_read_however_it_is_cut(sent in vec(honest(), 0..6), sizes in sizes()) {
        let bytes: Vec<u8> = sent.iter().flat_map(Sent::bytes).collect();
        let (mut outcomes, _) = read_all(Pieces::new(&bytes, &sizes));
        prop_assert!(outcomes.pop().is_some_and(|end| end.is_err()));
        // A text in fragments is refused unread, so its parts needn't be text.
        let sent: Vec<_> = sent.into_iter().map(|frame| Ok((frame.first & FIN != 0, frame.payload))).collect();
        let read: Vec<_> = outcomes.into_iter().map(|read| read.map(|(is_final, _, payload)| (is_final, payload))).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn any_stream_is_read_within_bounds_and_the_same_however_it_is_cut(bytes in streams(), sizes in sizes()) {
        let (outcomes, dearest) = read_all(Pieces::new(&bytes, &sizes));
        for (_, opcode, payload) in outcomes.iter().flatten() {
            let is_control = matches!(opcode, OpCode::Ping | OpCode::Pong | OpCode::Close);
            let most = if is_control { CONTROL_BYTES_MAX } else { limits::FRAME_BYTES_MAX };
            prop_assert!(payload.len() <= most, "{} bytes", payload.len());
        }
        // The payload is there twice, as this test keeps a copy.
        let cost_max = 2 * limits::FRAME_BYTES_MAX + COST_BESIDES_MAX;
        prop_assert!(dearest <= cost_max as u64, "a frame cost {dearest} bytes");
        prop_assert_eq!(read_all(Pieces::new(&bytes, &[])).0, outcomes);
    }

    #[test]
    fn a_length_over_the_bound_is_refused_without_waiting_for_the_frame(
        opcode in select(vec![CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]), fin in any::<bool>(), mask in any::<[u8; 4]>(),
        excess in prop_oneof![1..10_u64, any::<u64>()], is_long in any::<bool>()
    ) {
        let most = if opcode >= CLOSE { CONTROL_BYTES_MAX } else { limits::FRAME_BYTES_MAX } as u64;
        let first = if fin { FIN | opcode } else { opcode };
        let claimed = Some(most.saturating_add(excess));
        let header = Sent { first, mask: Some(mask), claimed, is_long, payload: Vec::new() }.bytes();
        prop_assert!(header.len() <= HEADER_BYTES_MAX);
        let mut frames = Frames::new(Pieces::unended(&header));
        let mut is_refused = false;
        let cost = allocation_counter::measure(|| {
            is_refused = frames.next().now_or_never().is_some_and(|read| read.is_err());
        });
        prop_assert!(is_refused, "it waits for {claimed:?} bytes");
        prop_assert!(cost.bytes_max <= COST_BESIDES_MAX as u64, "the claim alone cost {} bytes", cost.bytes_max);
    }

    #[test]
    fn commands_come_out_in_their_order_and_pings_are_answered(
        encoding in encodings(), steps in vec((any::<bool>(), any::<u64>(), vec(any::<u8>(), 0..126)), 0..20), sizes in sizes()
    ) {
        let (mut bytes, mut commands, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (is_ping, reference, payload) in steps {
            let frame = if is_ping {
                pings.push(payload.clone());
                Sent::honest(FIN | PING, [1, 2, 3, 4], payload)
            } else {
                let command = Command::Heartbeat(Heartbeat { cursor: None });
                let command = CommandFrame { reference: Some(reference), command };
                let opcode = if encoding == Encoding::Json { TEXT } else { BINARY };
                let frame = Sent::honest(FIN | opcode, [9, 8, 7, 6], encoding.encode(&command).unwrap());
                commands.push(command);
                frame
            };
            bytes.extend(frame.bytes());
        }
        let connection = connection(encoding);
        let (read, ended) = converse(&connection, Pieces::new(&bytes, &sizes));
        prop_assert_eq!(read, commands);
        prop_assert!(matches!(ended, Ended::Gone));
        prop_assert_eq!(waiting(&connection), pings);
    }

    #[test]
    fn nothing_that_was_sent_ahead_is_carried_out_once_the_user_is_logged_out_r6_4(
        encoding in encodings(), count in 1..20_usize, sizes in sizes()
    ) {
        let command = CommandFrame { reference: None, command: Command::Heartbeat(Heartbeat { cursor: None }) };
        let opcode = if encoding == Encoding::Json { TEXT } else { BINARY };
        let frame = Sent::honest(FIN | opcode, [9, 8, 7, 6], encoding.encode(&command).unwrap());
        let connection = connection(encoding);
        connection.close(CloseCode::LoggedOut);
        let (commands, ended) = converse(&connection, Pieces::new(&frame.bytes().repeat(count), &sizes));
        prop_assert_eq!(commands, []);
        prop_assert!(matches!(ended, Ended::Gone));
    }

    #[test]
    fn any_stream_ends_its_connection_and_nothing_else(encoding in encodings(), bytes in streams(), sizes in sizes()) {
        let connection = connection(encoding);
        let mut ended = None;
        let cost = allocation_counter::measure(|| ended = Some(converse(&connection, Pieces::new(&bytes, &sizes)).1));
        let is_end = matches!(ended, Some(Ended::Gone | Ended::Goodbye | Ended::Closed(_)));
        prop_assert!(is_end, "the reader neither went on nor ended");
        // Three times its own bytes, which the test copies, and what one frame and the answers to pings may take.
        let cost_max = 3 * bytes.len() + 128 * limits::FRAME_BYTES_MAX + limits::OUTBOX_BYTES_MAX;
        prop_assert!(cost.bytes_max <= cost_max as u64, "{} bytes cost {}", bytes.len(), cost.bytes_max);
    }
}
