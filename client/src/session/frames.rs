//! What the session does with each frame from the gateway, and with sends that wait to be written.

use std::{ops::ControlFlow, time::Duration};

use chat_shared::{
    position::Cursor,
    wire::{Command, Push, Rejected, Reply, ServerFrame},
};
use tokio::time::Instant;

use super::Session;
use crate::{
    backoff::chance,
    book::repeat_delay,
    connection::Inbound,
    error::SendError,
    events::Event,
    progress::{Content, Succession},
    state::StopReason,
};

impl Session {
    pub(super) fn received(&mut self, inbound: Inbound) -> ControlFlow<StopReason> {
        let now = Instant::now();
        if let Some(live) = self.link.live() {
            live.last_heard = now;
        }
        match inbound {
            Inbound::Frame(ServerFrame::Reply(reply)) => self.replied(reply, now),
            Inbound::Frame(ServerFrame::Push(push)) => return self.pushed(push, now),
            Inbound::Unknown { cursor } => {
                if self.is_jump(cursor) {
                    return self.pushes_missing();
                }
                self.advance(cursor, Content::Nothing, now);
            }
            Inbound::Ping | Inbound::End(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn replied(&mut self, reply: Reply, now: Instant) {
        match reply {
            Reply::Accepted(accepted) => {
                if let Some(waiter) = accepted.reference.and_then(|reference| self.book.accepted(reference)) {
                    waiter.answer(Ok(accepted));
                }
            }
            Reply::Rejected(rejected) => self.rejected(rejected, now),
            Reply::Done { reference } => self.done(reference),
        }
    }

    fn rejected(&mut self, rejected: Rejected, now: Instant) {
        let Rejected { reference, code, message, retry_after_ms } = rejected;
        let repeat_at = now + repeat_delay(retry_after_ms.map(Duration::from_millis), chance());
        if let Some(answered) = reference.and_then(|reference| self.latest.rejected(reference, code, repeat_at)) {
            return self.refused(answered, code, &message);
        }
        match reference.map(|reference| self.book.rejected(reference, code, repeat_at)) {
            Some(Some(waiter)) => waiter.answer(Err(SendError::Rejected { code, message })),
            Some(None) => tracing::debug!(?code, "a command was rejected for now"),
            None => tracing::warn!(?code, message, "the gateway rejected a command without a reference"),
        }
    }

    fn pushed(&mut self, push: Push, now: Instant) -> ControlFlow<StopReason> {
        match push {
            Push::Message { cursor, seen_seq, message } => {
                if self.is_jump(cursor) {
                    return self.pushes_missing();
                }
                self.advance(cursor, Content::Message(message.conversation_id, message.seq), now);
                if self.has_taker {
                    self.realtime.message(&message, seen_seq);
                    self.order.push(message);
                    self.sync_order();
                }
            }
            Push::Conversation { cursor, conversation } => {
                if self.is_jump(cursor) {
                    return self.pushes_missing();
                }
                let is_news = self.has_taker && self.order.changed(&conversation);
                // What it uncovers comes before it.
                self.sync_order();
                self.advance(cursor, self.notice(is_news), now);
                if is_news {
                    self.realtime.changed(&conversation);
                    self.notify(Event::Conversation(conversation));
                }
            }
            Push::Heartbeat { cursor } => {
                let received = self.progress.lock().received_up_to();
                if received.is_some_and(|received| cursor > received) {
                    return self.pushes_missing();
                }
                self.beat();
            }
            Push::GoingAway { reconnect_after_ms } => {
                if let Some(live) = self.link.live() {
                    live.going_away = Some(Duration::from_millis(reconnect_after_ms));
                }
            }
            Push::Receipt { cursor, receipt } => {
                if self.is_jump(cursor) {
                    return self.pushes_missing();
                }
                let is_news = self.has_taker && self.realtime.receipt(&receipt);
                self.advance(cursor, self.notice(is_news), now);
                if is_news {
                    self.notify(Event::Receipt(receipt));
                }
            }
            Push::Typing { typing } if self.has_taker => self.realtime.typists.heard(typing, now),
            Push::Presence { users } if self.has_taker => {
                for presence in users {
                    self.realtime.users.pushed(presence.user_id, presence);
                }
            }
            Push::Business { business } if self.has_taker => {
                self.realtime.businesses.pushed(business.availability.business_id, business);
            }
            Push::Skipped { cursor } => {
                if self.is_jump(Some(cursor)) {
                    return self.pushes_missing();
                }
                self.advance(Some(cursor), Content::Nothing, now);
            }
            Push::Profile { profiles } if self.has_taker => self.notify(Event::Profiles(profiles)),
            Push::Typing { .. } | Push::Presence { .. } | Push::Business { .. } | Push::Profile { .. } => {}
            Push::Ready(_) => tracing::debug!("the gateway said ready twice"),
        }
        ControlFlow::Continue(())
    }

    /// Whether pushes before this one are missing. It isn't taken in then: it comes again after the resume.
    fn is_jump(&self, cursor: Option<Cursor>) -> bool {
        cursor.is_some_and(|cursor| self.progress.lock().succession(cursor) == Succession::Jump)
    }

    /// The notice that a change or a receipt adds, or the last one if it is a repeat: the application may not have taken that.
    const fn notice(&self, is_news: bool) -> Content {
        Content::Notice(if is_news { self.notices.next_number() } else { self.notices.last_number() })
    }

    /// Notes a push's place in the inbox. One without a place is an extra copy: the one that has a place follows.
    fn advance(&mut self, cursor: Option<Cursor>, content: Content, now: Instant) {
        if let Some(cursor) = cursor {
            self.progress.lock().received(cursor, content);
            self.confirm(now);
        }
    }

    /// Writes sends until there are no more, or no room.
    pub(super) fn write_sends(&mut self) {
        while let Some((reference, command)) = self.book.first_unsent() {
            let command = Command::SendMessage(command.clone());
            if !self.write(Some(reference), command) {
                return;
            }
            self.book.written(reference);
        }
    }
}
