//! What waits to be written to a connection: bounded in bytes. Over the bound the client reads too slowly
//! and the connection ends; the client resumes, and nothing is lost.

use std::collections::VecDeque;

use chat_shared::{
    ids::{BusinessId, ConversationId},
    limits,
    position::Cursor,
    wire::CloseCode,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// An entry of the inbox is put in only when no more than this waits; the largest frame fits beside it.
const ROOM_BYTES: usize = limits::OUTBOX_BYTES_MAX / 4;
/// What a frame costs beyond its bytes.
const FRAME_OVERHEAD_BYTES: usize = 96;

/// A queue of frames, and how the connection ends.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
    closed: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Outgoing, Option<Topic>)>,
    bytes: usize,
    ending: Option<Ending>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The gateway closes it.
    Closed(CloseCode),
    /// The client closed it, or is gone.
    Left,
}

impl Ending {
    /// The code of the close frame; a client that closed gets its own goodbye.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Closed(code) => code.code(),
            Self::Left => 1000,
        }
    }

    /// Its name in the close frame and in metrics.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Closed(code) => code.reason(),
            Self::Left => "client_left",
        }
    }
}

/// The reason for which a frame may be taken back or replaced before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    /// A push of a conversation.
    Conversation(About),
    /// The state of a watched business.
    Business(BusinessId),
}

/// What a push is about, if it is of a conversation: it is taken back if its user is removed from there before it is
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct About {
    /// Which conversation.
    pub(super) conversation_id: ConversationId,
    /// The version of its participants.
    pub(super) version: u64,
    /// Its place in the inbox, if it has one.
    pub(super) cursor: Option<Cursor>,
}

/// A frame to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// In the connection's encoding.
    Data(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
}

impl Outgoing {
    fn cost(&self) -> usize {
        let (Self::Data(bytes) | Self::Pong(bytes)) = self;
        bytes.len() + FRAME_OVERHEAD_BYTES
    }
}

impl Outbox {
    /// Puts a frame of the connection's encoding.
    pub(super) fn put(&self, bytes: Vec<u8>) {
        self.add(Outgoing::Data(bytes), None);
    }

    /// As `put`, for a push that is taken back if its user is removed from the conversation.
    pub(super) fn put_about(&self, about: About, bytes: Vec<u8>) {
        self.add(Outgoing::Data(bytes), Some(Topic::Conversation(about)));
    }

    /// As `put`, for the state of a business, in the place of an earlier state that waits.
    pub(super) fn put_business(&self, business_id: BusinessId, bytes: Vec<u8>) {
        self.take_back_business(business_id);
        self.add(Outgoing::Data(bytes), Some(Topic::Business(business_id)));
    }

    /// Takes back the state of a business. The frame that is being written at the moment is beyond reach.
    pub(super) fn take_back_business(&self, business_id: BusinessId) {
        let mut queue = self.queue.lock();
        queue.frames.retain(|(_, topic)| *topic != Some(Topic::Business(business_id)));
        queue.bytes = queue.frames.iter().map(|(frame, _)| frame.cost()).sum();
        drop(queue);
        self.drained.notify_one();
    }

    /// Takes back what is about a conversation before this version: what has a place in the inbox becomes what `skipped`
    /// makes of it, and the rest goes. The frame that is being written at the moment is beyond reach.
    pub(super) fn take_back(
        &self,
        conversation_id: ConversationId,
        version: u64,
        skipped: impl Fn(Cursor) -> Option<Vec<u8>>,
    ) {
        let mut queue = self.queue.lock();
        let taken = |topic: &Option<Topic>| match topic {
            Some(Topic::Conversation(about)) => {
                Some(*about).filter(|about| about.conversation_id == conversation_id && about.version < version)
            }
            Some(Topic::Business(_)) | None => None,
        };
        if !queue.frames.iter().any(|(_, topic)| taken(topic).is_some()) {
            return;
        }
        queue.frames.retain_mut(|(frame, topic)| {
            let Some(about) = taken(topic) else { return true };
            *topic = None;
            about.cursor.and_then(&skipped).map(|bytes| *frame = Outgoing::Data(bytes)).is_some()
        });
        queue.bytes = queue.frames.iter().map(|(frame, _)| frame.cost()).sum();
        drop(queue);
        self.drained.notify_one();
    }

    /// Puts the answer to a ping.
    pub(super) fn pong(&self, bytes: Vec<u8>) {
        self.add(Outgoing::Pong(bytes), None);
    }

    fn add(&self, frame: Outgoing, topic: Option<Topic>) {
        let mut queue = self.queue.lock();
        if queue.ending.is_some() {
            return;
        }
        if queue.bytes + frame.cost() > limits::OUTBOX_BYTES_MAX {
            // What waited is in the inbox or in history; the client resumes there.
            *queue = Queue { ending: Some(Ending::Closed(CloseCode::SlowConsumer)), ..Queue::default() };
            drop(queue);
            self.wake_all();
            return;
        }
        queue.bytes += frame.cost();
        queue.frames.push_back((frame, topic));
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes nothing more; the first reason counts.
    pub(super) fn close(&self, code: CloseCode) {
        self.end(Ending::Closed(code));
    }

    /// As `close`, for a client that has left by itself.
    pub(super) fn leave(&self) {
        self.end(Ending::Left);
    }

    fn end(&self, ending: Ending) {
        let mut queue = self.queue.lock();
        queue.ending.get_or_insert(ending);
        if ending == Ending::Closed(CloseCode::LoggedOut) {
            // Whoever has the client now may be somebody else: they get nothing of what waits.
            (queue.frames, queue.bytes) = (VecDeque::new(), 0);
        }
        drop(queue);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.filled.notify_one();
        self.drained.notify_one();
        self.closed.notify_waiters();
    }

    /// How the connection ends, if it does.
    pub(super) fn closing(&self) -> Option<Ending> {
        self.queue.lock().ending
    }

    /// The next frame; none when there are no more and the connection ends. Cancel safe.
    pub(super) async fn next(&self) -> Option<Outgoing> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.queue.lock();
                if let Some((frame, _)) = queue.frames.pop_front() {
                    queue.bytes -= frame.cost();
                    if queue.bytes <= ROOM_BYTES {
                        self.drained.notify_one();
                    }
                    return Some(frame);
                }
                if queue.ending.is_some() {
                    return None;
                }
                // An idle connection holds no queue.
                queue.frames.shrink_to(0);
            }
            filled.await;
        }
    }

    /// Waits until little enough waits, or the connection ends.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let queue = self.queue.lock();
                if queue.bytes <= ROOM_BYTES || queue.ending.is_some() {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Waits until the connection ends.
    pub(super) async fn closed(&self) -> Ending {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if let Some(ending) = self.closing() {
                return ending;
            }
            closed.await;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.lock().frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_in_order_and_then_the_end() {
        let outbox = Outbox::default();
        outbox.put(vec![1]);
        outbox.pong(vec![2]);
        outbox.close(CloseCode::GoingAway);
        outbox.put(vec![3]);
        assert_eq!(outbox.next().await, Some(Outgoing::Data(vec![1])));
        assert_eq!(outbox.next().await, Some(Outgoing::Pong(vec![2])));
        assert_eq!(outbox.next().await, None);
    }

    #[tokio::test]
    async fn what_waits_of_a_conversation_is_taken_back_with_its_removal_and_no_cursor_is_missing_r6_4() {
        let (outbox, [here, there]) = (Outbox::default(), [ConversationId::random(), ConversationId::random()]);
        let about = |conversation_id, version, cursor: u64| {
            let cursor = Some(Cursor(cursor)).filter(|cursor| cursor.0 > 0);
            About { conversation_id, version, cursor }
        };
        for (number, (conversation_id, version, cursor)) in
            (1..).zip([(here, 4, 11), (there, 4, 12), (here, 4, 0), (here, 5, 13)])
        {
            outbox.put_about(about(conversation_id, version, cursor), vec![number; 100]);
        }
        outbox.put(vec![5]);
        outbox.take_back(here, 5, |cursor| Some(vec![u8::try_from(cursor.0).unwrap()]));
        outbox.close(CloseCode::GoingAway);
        let mut left = Vec::new();
        while let Some(Outgoing::Data(bytes)) = outbox.next().await {
            left.push((bytes[0], bytes.len()));
        }
        assert_eq!(left, [(11, 1), (2, 100), (4, 100), (5, 1)]);
        assert_eq!(outbox.queue.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_state_of_a_business_replaces_the_one_that_waits_and_is_taken_back_r6_5() {
        let (outbox, [here, there]) = (Outbox::default(), [BusinessId::random(), BusinessId::random()]);
        for (business_id, number) in [(here, 1), (there, 2), (here, 3)] {
            outbox.put_business(business_id, vec![number]);
        }
        outbox.put(vec![4]);
        outbox.take_back_business(there);
        outbox.close(CloseCode::GoingAway);
        assert_eq!(outbox.next().await, Some(Outgoing::Data(vec![3])));
        assert_eq!(outbox.next().await, Some(Outgoing::Data(vec![4])));
        assert_eq!((outbox.next().await, outbox.queue.lock().bytes), (None, 0));
    }

    #[tokio::test]
    async fn a_full_outbox_ends_the_connection_as_a_slow_consumer() {
        let outbox = Outbox::default();
        for _ in 0..=limits::OUTBOX_BYTES_MAX / 1024 {
            outbox.put(vec![0; 1024]);
        }
        assert_eq!(outbox.closing(), Some(Ending::Closed(CloseCode::SlowConsumer)));
        assert_eq!(outbox.next().await, None, "what waited is let go, so the memory is bounded");
        outbox.room().await;
        assert_eq!(outbox.closed().await, Ending::Closed(CloseCode::SlowConsumer));
    }
}
