//! What clients do besides writing messages: they mark what they were shown as read, say that they write, and watch each
//! other; and what they are told of the others.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Worker,
    client::{Client, Record},
    schedule::Schedule,
    tally::Listener,
};
use crate::{
    clock,
    plan::{Reads, RealtimeDone, Sends},
    target::{Gesture, Heard, Protocol, Target},
};

/// References of read marks begin here, beyond those of messages.
const MARKS_FROM: u64 = 1 << 32;

/// A message that a client was shown.
#[derive(Debug, Clone, Copy)]
pub struct Unread {
    /// Its number in the conversation.
    pub sequence: u64,
    /// Its id.
    pub message_id: Uuid,
}

/// A read mark without an answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    reference: u64,
    due_us: u64,
}

/// How far a client and the others of its conversation have read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The last message that it was shown.
    unread: Option<Unread>,
    /// A message came since this was last looked at.
    is_news: bool,
    /// How far it has written itself, which it has read, too.
    own: u64,
    /// What it has marked, and when each mark was due.
    marked: Vec<(u64, u64)>,
    waiting: VecDeque<Waiting>,
    /// How far each of the others has marked, as it was shown.
    others: Vec<u64>,
}

impl Reading {
    /// Of a client in a conversation of so many.
    pub fn of(conversation_size: usize) -> Self {
        Self { others: vec![0; conversation_size], ..Self::default() }
    }

    /// A message of somebody else was shown.
    pub fn see(&mut self, unread: Unread) {
        if self.unread.is_none_or(|before| before.sequence < unread.sequence) {
            self.unread = Some(unread);
            self.is_news = true;
        }
    }

    /// A message of its own stands in the conversation.
    pub fn wrote(&mut self, sequence: u64) {
        self.own = self.own.max(sequence);
    }

    /// Whether every mark was answered.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How far it has marked.
    fn furthest(&self) -> u64 {
        self.marked.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// What is to be marked now, and by which reference.
    fn begin(&mut self, due_us: u64) -> Option<(u64, Uuid)> {
        let unread = self.unread.filter(|unread| unread.sequence > self.furthest().max(self.own))?;
        let reference = MARKS_FROM + self.marked.len() as u64;
        self.marked.push((unread.sequence, due_us));
        self.waiting.push_back(Waiting { reference, due_us });
        Some((reference, unread.message_id))
    }

    /// When the mark was due that was waited for.
    fn answered(&mut self, reference: u64) -> Option<u64> {
        let at = self.waiting.iter().position(|waiting| waiting.reference == reference)?;
        self.waiting.remove(at).map(|waiting| waiting.due_us)
    }

    /// When the last mark up to a number was due.
    fn marked_at(&self, sequence: u64) -> Option<u64> {
        self.marked.iter().rev().find(|(marked, _)| *marked <= sequence).map(|(_, due_us)| *due_us)
    }
}

impl<T: Target> Worker<T> {
    /// When each crowd says that it writes, if it does.
    pub(super) fn typing(&self) -> Vec<Option<Schedule>> {
        let seats = self.first_seats.windows(2).map(|pair| pair[1] - pair[0]);
        let schedule = |(crowd, seats): (&crate::plan::Crowd, usize)| {
            let (sends, before) = (crowd.sends?, crowd.manners.types_before_us?);
            let earlier = |at: u64| at.saturating_sub(before);
            let sends = Sends { from_us: earlier(sends.from_us), until_us: earlier(sends.until_us), ..sends };
            Some(Schedule::new(sends, seats, crowd.conversation_size))
        };
        self.plan.crowds.iter().zip(seats).map(schedule).collect()
    }

    /// A client says that it writes.
    pub(super) fn say_typing(self: &Rc<Self>, seat: usize) {
        let mut client = self.clients[seat].borrow_mut();
        if self.gesture(seat, &mut client, &Gesture::Typing { conversation: &self.seats[seat].conversation }) {
            self.stats.borrow_mut().done.crowds[client.crowd].realtime.typing_said += 1;
        }
    }

    /// A client that has just connected watches the others of its conversation, if its crowd does.
    pub(super) fn watch(self: &Rc<Self>, seat: usize, client: &mut Client<T::Protocol>) {
        if self.plan.crowds[client.crowd].manners.watches {
            let first = seat - client.offset;
            let others = (first..first + client.record.shown.len()).filter(|other| *other != seat);
            let users: Vec<&str> = others.map(|other| self.seats[other].user.as_str()).collect();
            self.gesture(seat, client, &Gesture::Watch { users: &users });
        }
    }

    /// Marks what was shown last as read.
    pub(super) fn mark_read(self: &Rc<Self>, seat: usize, due_us: u64) {
        let mut client = self.clients[seat].borrow_mut();
        if client.line.is_none() {
            return;
        }
        let Some((reference, message_id)) = client.record.reading.begin(due_us) else { return };
        let conversation = &self.seats[seat].conversation;
        self.gesture(seat, &mut client, &Gesture::MarkRead { reference, conversation, message_id });
        let mut stats = self.stats.borrow_mut();
        let realtime = &mut stats.done.crowds[client.crowd].realtime;
        realtime.marks += 1;
        realtime.written.record(clock::now_us().saturating_sub(due_us));
    }

    /// After a client has heard something: what came is marked a while later, if its crowd marks each message.
    pub(super) fn read_later(self: &Rc<Self>, seat: usize, client: &mut Client<T::Protocol>) {
        if let Some(Reads::Each { after_us }) = self.plan.crowds[client.crowd].manners.reads
            && std::mem::take(&mut client.record.reading.is_news)
        {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                sleep(Duration::from_micros(after_us)).await;
                worker.mark_read(seat, clock::now_us());
            });
        }
    }

    /// False if there is no connection.
    fn gesture(self: &Rc<Self>, seat: usize, client: &mut Client<T::Protocol>, gesture: &Gesture<'_>) -> bool {
        let Some(line) = &mut client.line else { return false };
        let mut output = self.output.borrow_mut();
        output.clear();
        line.protocol.gesture(gesture, &mut output);
        let written = line.write(&output);
        self.see_to(seat, client, written);
        true
    }

    /// Notes what is no message and no answer to one.
    pub(super) fn note_realtime(&self, listener: &Listener, record: &mut Record, heard: &Heard<'_>) {
        if listener.now_us < self.start_us.get() {
            // Others connect, and that is not what is measured.
            return;
        }
        let mut stats = self.stats.borrow_mut();
        let realtime = &mut stats.done.crowds[listener.crowd].realtime;
        match *heard {
            Heard::Done { reference } => {
                if let Some(due_us) = record.reading.answered(reference) {
                    realtime.marks_done += 1;
                    realtime.done.record(listener.now_us.saturating_sub(due_us));
                }
            }
            Heard::Rejected { reference: Some(reference), .. } => {
                realtime.marks_refused += u64::from(record.reading.answered(reference).is_some());
            }
            Heard::Receipt { user, is_read: true, sequence } => {
                self.note_read(listener, record, (user, sequence), realtime);
            }
            Heard::Receipt { .. } => realtime.deliveries_shown += 1,
            Heard::Typing => realtime.typing_shown += 1,
            Heard::Presence { changes } => realtime.presence_shown += changes as u64,
            Heard::Accepted { .. } | Heard::Rejected { .. } | Heard::Message { .. } => {}
        }
    }

    fn note_read(
        &self,
        listener: &Listener,
        record: &mut Record,
        (user, sequence): (Uuid, u64),
        realtime: &mut RealtimeDone,
    ) {
        let first = listener.seat - listener.offset;
        let users = &self.users[first..first + record.reading.others.len()];
        let Some(offset) = users.iter().position(|one| *one == user).filter(|offset| *offset != listener.offset) else {
            return;
        };
        let shown = &mut record.reading.others[offset];
        if sequence > *shown {
            *shown = sequence;
            let marked_at = self.clients[first + offset].borrow().record.reading.marked_at(sequence);
            realtime.shown.record(listener.now_us.saturating_sub(marked_at.unwrap_or(listener.now_us)));
        }
    }

    /// Adds how far a client has read, and to whom that was shown.
    pub(super) fn add_reading(&self, seat: usize, done: &mut RealtimeDone) {
        let client = self.clients[seat].borrow();
        let furthest = client.record.reading.furthest();
        if furthest == 0 {
            return;
        }
        done.furthest.insert(self.seats[seat].user.clone(), furthest);
        let first = seat - client.offset;
        let others = (first..first + client.record.shown.len()).filter(|other| *other != seat);
        for other in others {
            done.expected_receipts += 1;
            let shown = self.clients[other].borrow().record.reading.others[client.offset];
            done.receipts_shown += u64::from(shown >= furthest);
        }
    }
}
