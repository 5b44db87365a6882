//! Receives from notifiers, on this gateway's subject and on the one of all gateways.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use anyhow::Context;
use chat_shared::{
    delivery::{Delivery, NumberedEvent, Recipient, all_gateways_subject, gateway_subject},
    event::Event,
    ids::UserId,
    telemetry::Latch,
    wire::{CloseCode, ProfileList, Push},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

use super::{Shown, catch_up, events::Named, forget_changed, gateways, one, publish};
use crate::{
    connection::{Connection, Delivered},
    refusal::Refusal,
    state::AppState,
    telemetry,
    typing::Told,
};

/// How often the gateway sends itself a message, the same way that notifiers do.
const ECHO_INTERVAL: Duration = Duration::from_secs(5);
/// Without an echo for this long the gateway is deaf: not ready, and everybody catches up when it hears again.
const DEAF_AFTER: Duration = Duration::from_secs(15);

/// Receives until the gateway drains; from then on until it stops only what must be true everywhere. `latch` shows whether
/// anything would be heard.
pub async fn listen(state: AppState, latch: Latch) -> anyhow::Result<()> {
    let own_subject = gateway_subject(&state.namespace, state.gateway_id);
    let own = state.nats.subscribe(own_subject.clone()).await.context("subscribing to the gateway's subject")?;
    let all = state
        .nats
        .subscribe(all_gateways_subject(&state.namespace))
        .await
        .context("subscribing to all gateways' subject")?;
    // The echo comes back on the gateway's own subject; a notifier's beacon on the other.
    let mut deliveries = stream::select(own.map(|message| (true, message)), all.map(|message| (false, message)));
    let mut echoes = tokio::time::interval(ECHO_INTERVAL);
    let mut heard_at = None;
    let beacon = Delivery::Beacon.encode();
    loop {
        // Cancel safe: each branch only waits for the next of a stream.
        tokio::select! {
            () = state.tasks.draining().cancelled() => {
                let stopping = state.tasks.stopping().clone();
                let rest = take_in_last(state.clone(), deliveries.map(|(_, message)| message));
                // By then every connection has been sent away, and whoever waits for this task would wait for nothing.
                state.tasks.lasting("last_deliveries", async move {
                    stopping.run_until_cancelled(rest).await;
                });
                return Ok(());
            }
            _ = echoes.tick() => {
                latch.set(heard_at.is_some_and(|heard_at: Instant| heard_at.elapsed() < DEAF_AFTER));
                publish(&state, own_subject.clone(), &Delivery::Beacon).await;
            }
            delivery = deliveries.next() => {
                let (is_own, message) = delivery.context("the subscriptions ended")?;
                if is_own {
                    if heard_at.is_some_and(|heard_at| heard_at.elapsed() >= DEAF_AFTER) {
                        state.resync.notify_one();
                    }
                    heard_at = Some(Instant::now());
                    latch.set(true);
                }
                if !is_own && message.payload[..] == beacon[..] {
                    state.businesses.note_notifier();
                }
                take_in(&state, message, |_| true).await;
            }
        }
    }
}

/// Delivers what passes, and says so to whoever waits for it.
async fn take_in(state: &AppState, message: async_nats::Message, is_wanted: fn(&Delivery) -> bool) {
    match Delivery::decode(&message.payload) {
        Ok(delivery) if is_wanted(&delivery) => {
            if one(|| deliver(state, delivery)).is_ok()
                && let Some(asker) = message.reply
            {
                gateways::answer(state, asker).await;
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "a delivery could not be read"),
    }
}

/// Requests that began before the gateway drained go by what others tell it, and others wait for it to hear of that.
async fn take_in_last(state: AppState, messages: impl Stream<Item = async_nats::Message>) {
    let mut messages = pin!(messages);
    while let Some(message) = messages.next().await {
        take_in(&state, message, must_hold_everywhere).await;
    }
}

/// Whether it says who may see what, or what is shown no more.
const fn must_hold_everywhere(delivery: &Delivery) -> bool {
    matches!(
        delivery,
        Delivery::ParticipantRemoved { .. }
            | Delivery::BlocksChanged { .. }
            | Delivery::Revoked(_)
            | Delivery::ProfilesChanged { .. }
            | Delivery::BusinessesChanged { of_staff: true, .. }
    )
}

fn deliver(state: &AppState, delivery: Delivery) {
    match delivery {
        Delivery::Numbered(events) => {
            for event in events {
                // After a panic the recipients' next push finds the gap.
                _ = one(|| deliver_numbered(state, event));
            }
        }
        Delivery::Unnumbered(events) => {
            // Redis did not take the LSNs of these changes.
            state.database.doubt_replicas();
            for event in &events {
                _ = one(|| deliver_unnumbered(state, event));
            }
        }
        Delivery::SessionReplaced { user_id, session_id } => {
            state.connections.close(user_id, session_id, CloseCode::Replaced);
        }
        Delivery::ConfirmationAwaited { user_id, up_to } => {
            for connection in state.connections.of(user_id) {
                connection.await_confirmation(up_to);
                let inboxes = state.inboxes.clone();
                state.tasks.best_effort("confirm", async move { connection.confirm_now(&inboxes, false).await });
            }
        }
        Delivery::PresenceChanged(changes) => {
            state.watches.learn(&changes);
            state.businesses.learn_presence(&changes);
        }
        Delivery::BusinessesChanged { business_ids, of_staff } => {
            state.businesses.learn_changed(&business_ids, of_staff);
        }
        Delivery::Typing { typing, version, user_ids } => {
            state.typing.show(state, typing, &Told { user_ids, version });
        }
        Delivery::ProfilesChanged { user_ids, business_ids } => state.profiles.forget(&user_ids, &business_ids),
        Delivery::Profiles { profiles, user_ids } => push_profiles(state, &profiles, &user_ids),
        Delivery::Revoked(revocations) => state.revocations.learn(&state.connections, &revocations, state.clock.now()),
        Delivery::BlocksChanged { pair, conversation_id } => {
            if let Some(conversation_id) = conversation_id {
                state.sender.forget(conversation_id);
                state.receipts.blocks_changed(conversation_id);
            }
            state.watches.suspect(state, pair);
        }
        Delivery::ParticipantRemoved { conversation_id, user_id, version } => {
            state.connections.removed(user_id, conversation_id, version);
            state.sender.forget(conversation_id);
            state.watches.suspect(state, [user_id]);
        }
        Delivery::Beacon => {}
    }
}

fn push_profiles(state: &AppState, profiles: &ProfileList, user_ids: &[UserId]) {
    for connection in user_ids.iter().flat_map(|user_id| state.connections.of(*user_id)) {
        connection.tell(&Push::Profile { profiles: profiles.clone() });
    }
}

fn deliver_numbered(state: &AppState, NumberedEvent { event, stream_seq, recipients }: NumberedEvent) {
    let event = Event::decode(&event).map_err(|error| Refusal::internal(&error));
    let event = event.inspect(|event| {
        state.sender.learn(event, stream_seq);
        learn(state, event);
    });
    // What can't be shown is logged where it failed; the recipients' next push finds the gap and skips it.
    let Ok(event) = event else { return };
    // Whoever hands it on doesn't say whom it is for.
    let audience: HashSet<_> = event.audience().collect();
    let recipients: Vec<_> = recipients.into_iter().filter(|to| audience.contains(&to.user_id)).collect();
    if recipients.is_empty() {
        return;
    }
    let named = Named::of(&event);
    let Some(profiles) = state.profiles.remembered(&named.users, &named.businesses) else {
        return wait_for_names(state, recipients);
    };
    let Ok(shown) = Shown::new(&state.content, event) else { return };
    let shown = shown.with_profiles(profiles);
    for recipient in recipients {
        for connection in state.connections.of(recipient.user_id) {
            if connection.deliver(recipient.epoch, recipient.cursor, &shown) == Delivered::Gap {
                metrics::counter!(telemetry::CATCH_UPS_TOTAL).increment(1);
                read_inbox(state, connection);
            }
        }
    }
}

/// Lets the connections read from their inboxes what shows names that aren't remembered here: there they can be waited for.
fn wait_for_names(state: &AppState, recipients: Vec<Recipient>) {
    for recipient in recipients {
        for connection in state.connections.of(recipient.user_id) {
            if connection.defer(recipient.epoch, recipient.cursor) == Delivered::Gap {
                read_inbox(state, connection);
            }
        }
    }
}

/// What an event means for other rooms than the log's, wherever it stands.
fn learn(state: &AppState, event: &Event) {
    state.receipts.learn(event);
    state.typing.delivered(state, event);
    state.watches.check(state, event);
}

fn read_inbox(state: &AppState, connection: Arc<Connection>) {
    let filled = state.clone();
    state.tasks.best_effort("catch_up", async move { catch_up(&filled, &connection).await });
}

fn deliver_unnumbered(state: &AppState, event: &[u8]) {
    let Ok(event) = Event::decode(event) else { return };
    let audience: Vec<_> = event.audience().flat_map(|user_id| state.connections.of(user_id)).collect();
    if audience.is_empty() {
        return;
    }
    forget_changed(state, &event);
    learn(state, &event);
    let Named { users, businesses } = Named::of(&event);
    let profiles = state.profiles.remembered_or_neutral(&users, &businesses);
    if let Ok(shown) = Shown::new(&state.content, event).map(|shown| shown.with_profiles(profiles)) {
        for connection in audience {
            connection.deliver_unnumbered(&shown);
        }
    }
}
