//! Hello and goodbye: registers the session, says where it stands, and replays what was missed.

use std::sync::Arc;

use chat_shared::{
    delivery::{Delivery, gateway_subject},
    inbox::{InboxError, Registration, Replaced, Session},
    limits,
    position::Cursor,
    wire::{CloseCode, Connected, Hello, WireLimits},
};

use super::Connection;
use crate::{
    delivery,
    presence::{self, EndedSession, Parting},
    state::AppState,
    telemetry,
};

/// Shows the connection to those who deliver, and registers it.
pub(super) async fn arrive(state: &AppState, connection: &Arc<Connection>, hello: Hello) {
    // From here on live deliveries find the connection; what they bring before the registration is known is read from
    // the inbox afterwards.
    state.connections.add(Arc::clone(connection));
    if state.tasks.draining().is_cancelled() {
        // The farewell to all connections may have passed this one.
        connection.close(CloseCode::GoingAway);
    }
    if state.revocations.is_revoked(&connection.identity()) {
        // The logout was learned of before the connection could be found, and after its token was checked.
        connection.close(CloseCode::LoggedOut);
        return;
    }
    register(state, connection, hello).await;
}

/// Registers the connection, pushes `ready`, and then everything the client missed.
///
/// Without Redis the connection works all the same, only without cursors.
async fn register(state: &AppState, connection: &Arc<Connection>, hello: Hello) {
    connection.device_id.get_or_init(|| hello.device_id);
    let registration = match attach_and_register(state, connection, &hello).await {
        Ok(registration) => {
            state.announcer.announce(presence::came(connection.user_id, registration.at));
            Some(registration)
        }
        Err(error) => {
            tracing::warn!(%error, "a session could not be registered; it goes on without an inbox");
            None
        }
    };
    let outcome = match &registration {
        None => "without_inbox",
        Some(Registration { is_resumed: true, .. }) => "complete",
        Some(_) => "reload",
    };
    if hello.resume.is_some() {
        metrics::counter!(telemetry::RESUMES_TOTAL, "outcome" => outcome).increment(1);
    }

    let (epoch, cursor, resumed) = registration
        .as_ref()
        .map_or((None, Cursor::ZERO, false), |found| (Some(found.epoch), found.cursor, found.is_resumed));
    connection.begin(Connected {
        session_id: connection.session_id,
        epoch,
        cursor,
        resumed,
        heartbeat_interval_ms: u64::try_from(limits::HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX),
        limits: WireLimits::default(),
    });
    if let Some(registration) = registration {
        connection.await_confirmation(registration.head);
        for replaced in registration.replaced {
            end_replaced(state, connection, replaced).await;
        }
        if registration.is_resumed {
            let Registration { epoch, confirmed, cursor, .. } = registration;
            delivery::made_up_for(state, connection.user_id, epoch, confirmed, cursor).await;
        }
        delivery::catch_up(state, connection).await;
    }
}

/// Attached first, so that no session is left behind by a gateway that dies without anybody finding it.
async fn attach_and_register(
    state: &AppState,
    connection: &Connection,
    hello: &Hello,
) -> Result<Registration, InboxError> {
    let (session_id, gateway_id, device_id) = (connection.session_id, state.gateway_id, hello.device_id);
    state.inboxes.attach(gateway_id, connection.user_id).await?;
    let session = Session { session_id, gateway_id, device_id };
    match state.inboxes.register(connection.user_id, session, hello.resume).await {
        // Otherwise the user could never have an inbox again.
        Err(error) if error.is_of_user() => {
            tracing::error!(user_id = ?connection.user_id, %error, "an inbox can't be used and is reset");
            state.inboxes.reset(connection.user_id).await?;
            state.inboxes.register(connection.user_id, session, hello.resume).await
        }
        registered => registered,
    }
}

/// Ends the connection that this one replaces, wherever it is.
async fn end_replaced(state: &AppState, connection: &Connection, replaced: Replaced) {
    if replaced.gateway_id == state.gateway_id {
        state.connections.close(connection.user_id, replaced.session_id, CloseCode::Replaced);
        return;
    }
    let delivery = Delivery::SessionReplaced { user_id: connection.user_id, session_id: replaced.session_id };
    delivery::publish(state, gateway_subject(&state.namespace, replaced.gateway_id), &delivery).await;
}

/// Hides the connection from those who deliver, records what the client has confirmed, and removes the registration, also
/// one that was never answered.
pub(super) async fn depart(state: &AppState, connection: &Connection, parting: Parting) {
    state.connections.remove(connection);
    state.watches.forget(connection.session_id);
    state.businesses.forget_watches(connection.session_id);
    connection.confirm_now(&state.inboxes, false).await;
    let session = EndedSession { user_id: connection.user_id, session_id: connection.session_id };
    state.departures.end(state, session, parting).await;
}

impl Connection {
    /// Records in Redis what the client has confirmed since the last time; if `is_due`, also if that is nothing.
    pub async fn confirm_now(&self, inboxes: &chat_shared::inbox::Inboxes, is_due: bool) {
        let (Some((epoch, _)), Some(device_id)) = (self.catch_up_from(), self.device_id.get()) else { return };
        let (recorded, confirmed) = self.confirmations.lock().record();
        if recorded == confirmed && !is_due {
            return;
        }
        match inboxes.confirm(self.user_id, epoch, *device_id, confirmed).await {
            Ok(true) => {}
            Ok(false) => self.close(CloseCode::InboxLost),
            Err(error) => {
                self.confirmations.lock().give_back(recorded);
                tracing::debug!(%error, "a confirmation could not be recorded, it is tried again");
            }
        }
    }

    /// Notes that a notification may wait until the client confirms what comes up to `cursor`.
    pub fn await_confirmation(&self, cursor: Cursor) {
        self.confirmations.lock().await_up_to(cursor);
    }

    /// Notes what the client confirms; true if that is to be recorded in Redis now.
    pub(super) fn note_confirmed(&self, cursor: Cursor, unrecorded_max: u64) -> bool {
        let cursor = cursor.min(self.cursor());
        self.confirmations.lock().note(cursor, unrecorded_max)
    }
}
