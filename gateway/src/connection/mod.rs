//! One WebSocket: handshake → hello → reader and writer, until one of them ends it.
//!
//! The reader carries out commands one after the other; the writer drains the outbox. What others want to say
//! to the client goes through the outbox, which is bounded.

mod commands;
mod confirmations;
mod delivered;
mod frames;
mod handshake;
mod hello;
mod outbox;
mod pace;
mod reader;
mod registry;
mod removals;
mod returning;
#[cfg(test)]
pub mod simulated;
mod writer;

pub use handshake::open;
pub use registry::Registry;
pub use removals::Removals;
pub use returning::Returned;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use chat_shared::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, DeviceId, Epoch, SessionId, UserId},
    position::Cursor,
    wire::{CloseCode, Connected, Encoding, Push, Reply, Resume, WatchedBusiness},
};
use parking_lot::Mutex;

use self::{
    confirmations::Confirmations,
    delivered::Unconfirmed,
    outbox::{About, Outbox},
};
use crate::{
    auth::Identity,
    delivery::{DirectMessage, Shown},
    telemetry,
};

/// A client that has said hello.
pub struct Connection {
    /// Whose it is.
    pub user_id: UserId,
    /// Its registration.
    pub session_id: SessionId,
    /// Known from hello on.
    device_id: OnceLock<DeviceId>,
    encoding: Encoding,
    outbox: Outbox,
    position: Mutex<Position>,
    /// Of the token that it was opened with, or that was shown last.
    identity: Mutex<Identity>,
    /// What the client has confirmed. Locked after `position`, if with it.
    confirmations: Mutex<Confirmations>,
    /// What was pushed and whose senders are told once it is confirmed.
    unconfirmed: Unconfirmed,
    /// What is pushed to nobody who was removed from where it comes from.
    removals: Arc<Removals>,
}

/// How far the user's inbox has been pushed on this connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    /// None until the session is registered, and while Redis is out of reach.
    epoch: Option<Epoch>,
    /// The last cursor that was pushed.
    cursor: Cursor,
    /// While the inbox is being read: the largest cursor that was delivered live meanwhile.
    catching_up: Option<Cursor>,
}

impl Position {
    /// Whether `ready` has been said.
    const fn has_begun(&self) -> bool {
        self.epoch.is_some() || self.catching_up.is_none()
    }
}

/// What a live delivery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was pushed, or had been, or the inbox is being read and will show it.
    Settled,
    /// Something before it is missing: the inbox has to be read from this cursor on.
    Gap,
}

impl Connection {
    fn new(identity: Identity, encoding: Encoding, removals: Arc<Removals>) -> Self {
        Self {
            user_id: identity.user_id,
            session_id: SessionId::random(),
            device_id: OnceLock::new(),
            encoding,
            outbox: Outbox::default(),
            position: Mutex::new(Position { catching_up: Some(Cursor::ZERO), ..Position::default() }),
            identity: Mutex::new(identity),
            confirmations: Mutex::default(),
            unconfirmed: Unconfirmed::default(),
            removals,
        }
    }

    /// Whether the client was let in without a registration, because Redis was out of reach.
    pub fn is_unregistered(&self) -> bool {
        let position = self.position.lock();
        position.epoch.is_none() && position.has_begun()
    }

    /// Where the inbox stands by what the client has confirmed and was pushed; none before `ready`. An epoch of none means
    /// that the client has no place in it.
    fn place(&self) -> Option<(Option<Resume>, Cursor)> {
        let position = self.position.lock();
        let cursor = self.confirmations.lock().place();
        position.has_begun().then(|| (position.epoch.map(|epoch| Resume { epoch, cursor }), position.cursor))
    }

    /// Sets where the connection stands after its registration, and says so before any other push. The inbox, if
    /// there is one, is to be read from here on.
    fn begin(&self, ready: Connected) {
        let mut position = self.position.lock();
        let Connected { epoch, cursor, resumed, .. } = ready;
        *position = Position { epoch, cursor, catching_up: epoch.map(|_| Cursor::ZERO) };
        self.confirmations.lock().begin(cursor, resumed);
        self.push(&Push::Ready(ready));
    }

    fn cursor(&self) -> Cursor {
        self.position.lock().cursor
    }

    /// Pushes what a notifier delivered, if it is the next.
    pub fn deliver(&self, epoch: Epoch, cursor: Cursor, shown: &Shown) -> Delivered {
        self.take(epoch, cursor, Some(shown))
    }

    /// Takes note of what a notifier delivered and what can't be shown at once: it has to be read from the inbox.
    pub fn defer(&self, epoch: Epoch, cursor: Cursor) -> Delivered {
        self.take(epoch, cursor, None)
    }

    fn take(&self, epoch: Epoch, cursor: Cursor, shown: Option<&Shown>) -> Delivered {
        let mut position = self.position.lock();
        match &mut *position {
            Position { epoch: Some(known), .. } if *known != epoch => self.close(CloseCode::InboxLost),
            Position { catching_up: Some(seen), .. } => *seen = cursor.max(*seen),
            // It was let in without Redis, and there is an inbox now.
            Position { epoch: None, .. } => self.close(CloseCode::InboxLost),
            // The client had confirmed it before it was delivered: it came late, or the inbox has lost its last entries
            // and gives their cursors again. Reading it tells.
            Position { cursor: last, catching_up, .. } if cursor <= self.confirmations.lock().place() => {
                *catching_up = Some(*last);
                return Delivered::Gap;
            }
            Position { cursor: last, .. } if cursor <= *last => {}
            Position { cursor: last, catching_up, .. } => match shown {
                Some(shown) if cursor == last.next() => {
                    *last = cursor;
                    self.show(cursor, shown);
                }
                _ => {
                    *catching_up = Some(cursor);
                    return Delivered::Gap;
                }
            },
        }
        Delivered::Settled
    }

    /// Pushes what could not be put in the inbox. Before `ready` there is no need: the client reloads after it.
    pub fn deliver_unnumbered(&self, shown: &Shown) {
        let (conversation_id, version) = shown.place();
        self.tell_about(conversation_id, version, &shown.to(self.user_id, None));
    }

    /// Pushes what has no place in the inbox and is of a conversation whose participants are of this version, unless the
    /// user was removed from there since, or `ready` is still to be said.
    pub fn tell_about(&self, conversation_id: ConversationId, version: u64, push: &Push) {
        let position = self.position.lock();
        if position.has_begun() && !self.removals.covers(self.user_id, conversation_id, version) {
            self.push_about(About { conversation_id, version, cursor: None }, push);
        }
    }

    /// Takes back what waits to be written of a conversation before the version with which the user was removed. Whatever
    /// is pushed from now on minds the removal, which is noted: who was about to push has done so.
    fn take_back(&self, conversation_id: ConversationId, version: u64) {
        let _position = self.position.lock();
        let skipped = |cursor| self.encoding.encode(&Push::Skipped { cursor }).ok();
        self.outbox.take_back(conversation_id, version, skipped);
    }

    /// Pushes what has no place in the inbox, unless `ready` is still to be said.
    pub fn tell(&self, push: &Push) {
        let position = self.position.lock();
        if position.has_begun() {
            self.push(push);
        }
    }

    /// Pushes the state of a business in the place of an earlier one that waits, unless `ready` is still to be said.
    pub fn push_business(&self, business: WatchedBusiness) {
        let position = self.position.lock();
        let business_id = business.availability.business_id;
        if position.has_begun()
            && let Some(bytes) = self.encoded(&Push::Business { business })
        {
            metrics::counter!(telemetry::PUSHED_TOTAL).increment(1);
            self.outbox.put_business(business_id, bytes);
        }
    }

    /// Takes back the state of a business that waits to be written.
    pub fn take_back_business(&self, business_id: BusinessId) {
        self.outbox.take_back_business(business_id);
    }

    /// Begins to read the inbox; none if that is under way already, or there is none to read.
    pub fn begin_catch_up(&self) -> Option<(Epoch, Cursor)> {
        let mut position = self.position.lock();
        let epoch = position.epoch?;
        if position.catching_up.is_some() {
            return None;
        }
        position.catching_up = Some(Cursor::ZERO);
        Some((epoch, position.cursor))
    }

    /// Where a catch-up that is under way reads on.
    pub fn catch_up_from(&self) -> Option<(Epoch, Cursor)> {
        let position = self.position.lock();
        Some((position.epoch?, position.cursor))
    }

    /// Pushes an entry that was read from the inbox.
    pub fn push_entry(&self, cursor: Cursor, shown: &Shown) {
        let mut position = self.position.lock();
        if cursor == position.cursor.next() {
            position.cursor = cursor;
            self.show(cursor, shown);
        }
    }

    /// Passes over an entry that can't be shown, so that those after it can.
    pub fn skip_entry(&self, cursor: Cursor) {
        let mut position = self.position.lock();
        if cursor == position.cursor.next() {
            position.cursor = cursor;
            self.push(&Push::Skipped { cursor });
        }
    }

    /// Ends the catch-up at the inbox' end, unless something was delivered meanwhile; then it goes on.
    pub fn end_catch_up(&self) -> bool {
        let mut position = self.position.lock();
        let is_done = position.catching_up.is_none_or(|seen| seen <= position.cursor);
        position.catching_up = if is_done { None } else { Some(Cursor::ZERO) };
        is_done
    }

    /// Waits until there is room for an entry of the inbox, or the connection ends.
    pub async fn room(&self) {
        self.outbox.room().await;
    }

    /// Whether the connection ends, so that nothing more is taken.
    pub fn is_closing(&self) -> bool {
        self.outbox.closing().is_some()
    }

    /// Of the token that it was opened with, or that was shown last.
    pub fn identity(&self) -> Identity {
        *self.identity.lock()
    }

    /// Goes on with another token of the same user.
    fn renew(&self, identity: Identity) {
        *self.identity.lock() = identity;
    }

    /// How long the token is still valid; a day at the most, so that a far expiry is looked at again.
    fn expires_in(&self, now: Timestamp) -> Duration {
        let ms = self.identity().expires_at.0.saturating_sub(now.0).clamp(0, 86_400_000);
        Duration::from_millis(ms.unsigned_abs())
    }

    /// Pushes an entry of the inbox whose turn it is.
    fn show(&self, cursor: Cursor, shown: &Shown) {
        let (conversation_id, version) = shown.place();
        if self.removals.covers(self.user_id, conversation_id, version) {
            return self.push(&Push::Skipped { cursor });
        }
        if let Some(message) = shown.direct_message_to(self.user_id) {
            self.unconfirmed.add(cursor, message);
        }
        self.push_about(
            About { conversation_id, version, cursor: Some(cursor) },
            &shown.to(self.user_id, Some(cursor)),
        );
    }

    /// The messages of direct conversations that the client has confirmed with `cursor` and not before.
    fn take_delivered(&self, cursor: Cursor) -> Vec<Arc<DirectMessage>> {
        self.unconfirmed.take(cursor)
    }

    fn push(&self, push: &Push) {
        metrics::counter!(telemetry::PUSHED_TOTAL).increment(1);
        self.put(push);
    }

    fn push_about(&self, about: About, push: &Push) {
        metrics::counter!(telemetry::PUSHED_TOTAL).increment(1);
        if let Some(bytes) = self.encoded(push) {
            self.outbox.put_about(about, bytes);
        }
    }

    fn reply(&self, reply: &Reply) {
        if let Reply::Rejected(rejected) = reply {
            metrics::counter!(telemetry::REJECTED_TOTAL, "code" => rejected.code.as_str()).increment(1);
        }
        self.put(reply);
    }

    fn put(&self, frame: &impl serde::Serialize) {
        if let Some(bytes) = self.encoded(frame) {
            self.outbox.put(bytes);
        }
    }

    fn encoded(&self, frame: &impl serde::Serialize) -> Option<Vec<u8>> {
        let encoded = self.encoding.encode(frame);
        encoded.inspect_err(|error| tracing::error!(%error, "a frame could not be written")).ok()
    }

    /// Ends the connection, once what is in the outbox has been written.
    pub fn close(&self, code: CloseCode) {
        self.outbox.close(code);
    }

    /// Ends the connection whose client has left it.
    fn leave(&self) {
        self.outbox.leave();
    }

    /// Announces that the gateway stops, and ends the connection.
    pub fn go_away(&self, reconnect_after: Duration) {
        let reconnect_after_ms = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX);
        self.push(&Push::GoingAway { reconnect_after_ms });
        self.close(CloseCode::GoingAway);
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::{event::Participants, ids::ConversationId, position::Seq, wire::WireLimits};

    use super::{outbox::Ending, *};

    fn connection(cursor: u64) -> (Connection, Epoch) {
        let connection = Connection::new(Identity::for_ever(UserId::random()), Encoding::Json, Arc::default());
        let epoch = Epoch::random();
        connection.begin(ready(epoch, cursor));
        (connection, epoch)
    }

    fn ready(epoch: Epoch, cursor: u64) -> Connected {
        Connected {
            session_id: SessionId::random(),
            epoch: Some(epoch),
            cursor: Cursor(cursor),
            resumed: true,
            heartbeat_interval_ms: 15_000,
            limits: WireLimits::default(),
        }
    }

    fn shown() -> Shown {
        Shown::for_test(DirectMessage {
            conversation_id: ConversationId::random(),
            participants: Participants::default(),
            sender_id: UserId::random(),
            seq: Seq(7),
            sent_at: Timestamp(0),
        })
    }

    #[test]
    fn live_pushes_go_out_in_order_and_repeats_are_dropped() {
        let (connection, epoch) = connection(4);
        assert!(connection.end_catch_up());
        for cursor in [5, 6, 5, 6] {
            assert_eq!(connection.deliver(epoch, Cursor(cursor), &shown()), Delivered::Settled);
        }
        assert_eq!((connection.cursor(), connection.outbox.len()), (Cursor(6), 3));
    }

    #[test]
    fn a_delivery_behind_the_confirmed_cursor_reads_the_inbox() {
        let (connection, epoch) = connection(4);
        assert!(connection.end_catch_up());
        for cursor in [5, 6, 7] {
            assert_eq!(connection.deliver(epoch, Cursor(cursor), &shown()), Delivered::Settled);
        }
        connection.note_confirmed(Cursor(6), 32);
        assert_eq!(connection.deliver(epoch, Cursor(7), &shown()), Delivered::Settled, "a repeat");
        assert_eq!(connection.deliver(epoch, Cursor(6), &shown()), Delivered::Gap);
        assert!(connection.end_catch_up(), "from the last cursor on");
        assert_eq!(connection.outbox.len(), 4);
    }

    #[test]
    fn a_delivery_to_a_client_without_an_inbox_ends_the_connection() {
        let connection = Connection::new(Identity::for_ever(UserId::random()), Encoding::Json, Arc::default());
        connection.begin(Connected { epoch: None, ..ready(Epoch::random(), 0) });
        let _settled = connection.deliver(Epoch::random(), Cursor(1), &shown());
        assert_eq!(connection.outbox.closing(), Some(Ending::Closed(CloseCode::InboxLost)));
    }

    #[test]
    fn a_gap_stops_live_pushes_until_the_inbox_has_been_read() {
        let (connection, epoch) = connection(4);
        assert!(connection.end_catch_up());
        assert_eq!(connection.deliver(epoch, Cursor(6), &shown()), Delivered::Gap);
        assert_eq!(connection.deliver(epoch, Cursor(7), &shown()), Delivered::Settled, "the reader will find it");
        connection.push_entry(Cursor(5), &shown());
        connection.push_entry(Cursor(6), &shown());
        assert!(!connection.end_catch_up(), "7 was seen and not read yet");
        connection.push_entry(Cursor(7), &shown());
        assert!(connection.end_catch_up());
        assert_eq!(connection.outbox.len(), 4);
    }

    #[test]
    fn what_is_delivered_between_the_last_page_and_its_end_is_not_lost() {
        let (connection, epoch) = connection(0);
        assert_eq!(connection.deliver(epoch, Cursor(1), &shown()), Delivered::Settled);
        assert!(!connection.end_catch_up());
        connection.push_entry(Cursor(1), &shown());
        assert!(connection.end_catch_up());
        assert_eq!(connection.deliver(epoch, Cursor(2), &shown()), Delivered::Settled);
        assert_eq!(connection.outbox.len(), 3);
    }

    #[test]
    fn what_a_client_confirms_of_others_direct_messages_is_delivered_also_when_it_caught_up_r8_6() {
        let (connection, epoch) = connection(0);
        let direct = |sender_id, seq| {
            let (conversation_id, participants) = (ConversationId::random(), Participants::default());
            Shown::for_test(DirectMessage {
                conversation_id,
                participants,
                sender_id,
                seq: Seq(seq),
                sent_at: Timestamp(0),
            })
        };
        connection.push_entry(Cursor(1), &direct(UserId::random(), 11));
        connection.push_entry(Cursor(2), &direct(connection.user_id, 12));
        assert!(connection.end_catch_up());
        let _settled = connection.deliver(epoch, Cursor(3), &direct(UserId::random(), 13));
        let _repeated = connection.deliver(epoch, Cursor(3), &direct(UserId::random(), 13));
        connection.deliver_unnumbered(&direct(UserId::random(), 14));
        let delivered = |cursor| -> Vec<_> {
            connection.take_delivered(Cursor(cursor)).iter().map(|message| message.seq.0).collect()
        };
        assert_eq!((delivered(0), delivered(2), delivered(9), delivered(9)), (vec![], vec![11], vec![13], vec![]));
    }

    #[test]
    fn another_epoch_ends_the_connection() {
        let (connection, _) = connection(4);
        let _settled = connection.deliver(Epoch::random(), Cursor(1), &shown());
        assert_eq!(connection.outbox.closing(), Some(Ending::Closed(CloseCode::InboxLost)));
    }

    #[tokio::test]
    async fn nothing_is_pushed_before_ready() {
        let connection = Connection::new(Identity::for_ever(UserId::random()), Encoding::Json, Arc::default());
        connection.deliver_unnumbered(&shown());
        assert_eq!(connection.deliver(Epoch::random(), Cursor(1), &shown()), Delivered::Settled);
        assert_eq!(connection.outbox.len(), 0);
        connection.begin(Connected { epoch: None, ..ready(Epoch::random(), 0) });
        connection.deliver_unnumbered(&shown());
        assert_eq!(connection.outbox.len(), 2);
    }
}
