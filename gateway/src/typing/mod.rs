//! Who writes at the moment: passed on from gateway to gateways, shown for a while, stored nowhere.

mod shown;

use std::time::Duration;

use chat_shared::{
    customer_view::CustomerView,
    delivery::{Delivery, gateway_subject},
    event::{Event, Fact},
    ids::{ConversationId, GatewayId, UserId},
    wire::{Push, SetTyping, Typing as Said},
};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

pub use self::shown::Told;
use self::shown::{Shown, Writer};
use crate::{delivery, refusal::Refusal, state::AppState, telemetry};

/// What was passed on this recently is not passed on again.
const REPEAT: Duration = Duration::from_secs(1);
/// Writers whose repeats are recognised.
const PASSED_MAX: u64 = 50_000;

/// Who writes, as far as this gateway has passed it on or shows it.
pub struct Typing {
    passed: Cache<Writer, ()>,
    shown: Mutex<Shown>,
    rung: Notify,
}

impl Default for Typing {
    fn default() -> Self {
        let passed = Cache::builder().max_capacity(PASSED_MAX).time_to_live(REPEAT).build();
        Self { passed, shown: Mutex::default(), rung: Notify::new() }
    }
}

impl Typing {
    /// Passes on that a user writes or has stopped. Lost without Redis or NATS, as it would soon be over anyway.
    pub async fn set(&self, state: &AppState, user_id: UserId, command: SetTyping) -> Result<(), Refusal> {
        state.rate.check_typing(user_id)?;
        let SetTyping { conversation_id, is_typing } = command;
        let participants = state.sender.participants_with(user_id, conversation_id).await?;
        if participants.is_blocked() {
            return Ok(());
        }
        let writer = (conversation_id, user_id);
        if !is_typing {
            self.passed.invalidate(&writer);
        } else if !self.passed.entry(writer).or_default().is_fresh() {
            return Ok(());
        }
        let others: Vec<_> =
            participants.list.iter().map(|other| other.user_id).filter(|other| *other != user_id).collect();
        let Ok(gateways) = state.inboxes.gateways_of(&others).await else { return Ok(()) };
        let shown_as = CustomerView::id_to_others(&participants, user_id);
        for (gateway_id, user_ids) in by_gateway(&others, &gateways) {
            let typing = Said { conversation_id, user_id: shown_as, is_typing };
            let subject = gateway_subject(&state.namespace, gateway_id);
            delivery::publish(state, subject, &Delivery::Typing { typing, version: participants.version, user_ids })
                .await;
        }
        metrics::counter!(telemetry::TYPING_PASSED_TOTAL).increment(1);
        Ok(())
    }

    /// Notes that a user has sent a message: if they write again, that is news.
    pub fn sent(&self, conversation_id: ConversationId, user_id: UserId) {
        self.passed.invalidate(&(conversation_id, user_id));
    }

    /// Shows what another gateway passed on.
    pub fn show(&self, state: &AppState, typing: Said, told: &Told) {
        let writer = (typing.conversation_id, typing.user_id);
        if !typing.is_typing {
            return self.end(state, writer);
        }
        // In the order in which it is decided, so that what ended doesn't seem to go on.
        let mut shown = self.shown.lock();
        if shown.show(writer, told.clone(), Instant::now()) {
            tell(state, typing, told);
            self.rung.notify_one();
        }
    }

    /// A message says that its sender has written.
    pub fn delivered(&self, state: &AppState, event: &Event) {
        if let Fact::MessageSent(message) = &event.fact {
            let shown_as = CustomerView::id_to_others(&event.participants, message.sender_id);
            self.end(state, (event.conversation_id, shown_as));
        }
    }

    fn end(&self, state: &AppState, writer: Writer) {
        let mut shown = self.shown.lock();
        if let Some(told) = shown.end(writer) {
            tell(state, stopped(writer), &told);
        }
    }

    fn expire(&self, state: &AppState, now: Instant) {
        let mut shown = self.shown.lock();
        while let Some((writer, told)) = shown.expire(now) {
            metrics::counter!(telemetry::TYPING_EXPIRED_TOTAL).increment(1);
            tell(state, stopped(writer), &told);
        }
    }
}

const fn stopped((conversation_id, user_id): Writer) -> Said {
    Said { conversation_id, user_id, is_typing: false }
}

fn tell(state: &AppState, typing: Said, told: &Told) {
    for connection in told.user_ids.iter().flat_map(|user_id| state.connections.of(*user_id)) {
        connection.tell_about(typing.conversation_id, told.version, &Push::Typing { typing });
    }
}

/// Whom to tell on each gateway.
fn by_gateway(users: &[UserId], gateways: &[Vec<GatewayId>]) -> Vec<(GatewayId, Vec<UserId>)> {
    let mut found: Vec<(GatewayId, Vec<UserId>)> = Vec::new();
    for (user_id, gateways) in users.iter().zip(gateways) {
        for gateway_id in gateways {
            match found.iter_mut().find(|(known, _)| known == gateway_id) {
                Some((_, users)) => users.push(*user_id),
                None => found.push((*gateway_id, vec![*user_id])),
            }
        }
    }
    found
}

/// Ends what has been shown for long enough, until the gateway drains.
pub async fn expire(state: AppState) {
    let (typing, draining) = (&state.typing, state.tasks.draining());
    loop {
        let next = typing.shown.lock().next();
        // Cancel safe: each branch only waits.
        tokio::select! {
            () = draining.cancelled() => return,
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                typing.expire(&state, Instant::now());
            }
            () = typing.rung.notified(), if next.is_none() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_is_told_once_and_of_its_own_users_r8_3() {
        let [ana, ben, eve] = [UserId::random(), UserId::random(), UserId::random()];
        let [one, two] = [GatewayId::random(), GatewayId::random()];
        let plan = by_gateway(&[ana, ben, eve], &[vec![one], vec![one, two], vec![]]);
        assert_eq!(plan, [(one, vec![ana, ben]), (two, vec![ben])]);
    }
}
