//! One simulated user: a connection that may come and go, the messages without an answer, and what was shown.

use std::{collections::VecDeque, rc::Rc};

use tokio::{net::tcp::OwnedWriteHalf, task::AbortHandle};

use super::{ranges::Ranges, realtime::Reading};
use crate::target::{Opened, Protocol};

/// Bytes that wait to be written to a connection, at the most. A server that takes no more than this is stuck.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// A user with one device.
#[derive(Debug)]
pub struct Client<P: Protocol> {
    /// Its crowd's place in the plan.
    pub crowd: usize,
    /// Its place in its conversation.
    pub offset: usize,
    /// The connection, if there is one.
    pub line: Option<Line<P>>,
    /// Grows with each connection, so that what belongs to an earlier one is known.
    pub generation: u32,
    /// Where the last connection stopped.
    pub place: Option<P::Place>,
    /// What it knows.
    pub record: Record,
}

/// An open connection.
#[derive(Debug)]
pub struct Line<P> {
    pub protocol: P,
    pub write: Rc<OwnedWriteHalf>,
    /// What the kernel had no room for.
    pub pending: Vec<u8>,
    pub reader: Option<AbortHandle>,
}

/// A message without an answer.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub number: u32,
    /// Microseconds of the monotonic clock.
    pub due_us: u64,
    pub was_sent: bool,
}

/// What a client knows of messages; stays when connections go.
#[derive(Debug, Default)]
pub struct Record {
    pub next_number: u32,
    pub waiting: VecDeque<Waiting>,
    pub sent: u64,
    pub rejected: u64,
    pub accepted: Ranges,
    /// Of each seat of the conversation, which of its messages were shown.
    pub shown: Vec<Ranges>,
    /// The conversation's numbers that came.
    pub sequences: Ranges,
    pub repeated_raw: u64,
    pub repeated: u64,
    pub returned: u64,
    pub not_resumed: u64,
    /// After its way back began, when the last message so far that it missed was shown.
    pub caught_up_us: Option<u64>,
    /// How far it and the others have read.
    pub reading: Reading,
}

/// What became of bytes that were to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The kernel has all of them.
    All,
    /// The first that wait; somebody must see to it that they are written.
    Some,
    /// They wait behind others.
    Waiting,
    /// The connection can't take them.
    Failed(&'static str),
}

impl<P: Protocol> Client<P> {
    /// Not connected.
    pub fn new(crowd: usize, offset: usize, conversation_size: usize) -> Self {
        let mut record = Record::default();
        record.shown.resize(conversation_size, Ranges::default());
        record.reading = Reading::of(conversation_size);
        Self { crowd, offset, line: None, generation: 0, place: None, record }
    }

    /// Takes over a connection; gives what has been read from it already, and the rest to read.
    pub fn connected(&mut self, opened: Opened<P>) -> (tokio::net::tcp::OwnedReadHalf, Vec<u8>) {
        let (read, write) = opened.stream.into_split();
        self.generation += 1;
        let (protocol, pending) = (opened.protocol, Vec::new());
        self.line = Some(Line { protocol, write: Rc::new(write), pending, reader: None });
        (read, opened.rest)
    }

    /// Lets go of the connection and remembers where it stopped.
    pub fn disconnected(&mut self) -> Option<Line<P>> {
        let line = self.line.take()?;
        self.place = line.protocol.place();
        if let Some(reader) = &line.reader {
            reader.abort();
        }
        Some(line)
    }
}

impl<P> Line<P> {
    /// Writes, or keeps what the kernel has no room for.
    pub fn write(&mut self, bytes: &[u8]) -> Written {
        if !self.pending.is_empty() {
            if self.pending.len() + bytes.len() > PENDING_BYTES_MAX {
                return Written::Failed("the server takes nothing more");
            }
            self.pending.extend_from_slice(bytes);
            return Written::Waiting;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write.try_write(rest) {
                Ok(0) => return Written::Failed("closed while writing"),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.pending.extend_from_slice(rest);
                    return Written::Some;
                }
                Err(_) => return Written::Failed("failed while writing"),
            }
        }
        Written::All
    }

    /// Writes what waits. [`Written::Some`] if there is still some.
    pub fn write_pending(&mut self) -> Written {
        let pending = std::mem::take(&mut self.pending);
        self.write(&pending)
    }
}

impl Record {
    /// A message that is due now gets its number.
    pub fn begin(&mut self, due_us: u64) -> Waiting {
        let waiting = Waiting { number: self.next_number, due_us, was_sent: false };
        self.next_number += 1;
        waiting
    }

    /// An answer came: the message that it is for, if it was waited for.
    pub fn answered(&mut self, reference: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| u64::from(waiting.number) == reference)?;
        self.waiting.remove(at)
    }

    /// A push with this number in the conversation came: whether the client looks at it.
    pub fn is_new(&mut self, sequence: Option<u64>) -> bool {
        let is_new = sequence.is_none_or(|sequence| self.sequences.insert(sequence));
        self.repeated_raw += u64::from(!is_new);
        is_new
    }

    /// A message of another seat is shown: whether it is for the first time.
    pub fn show(&mut self, offset: usize, number: u32) -> bool {
        let is_first = self.shown[offset].insert(u64::from(number));
        self.repeated += u64::from(!is_first);
        is_first
    }
}
