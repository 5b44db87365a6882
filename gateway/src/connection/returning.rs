//! Registers a connection again that is here and may not be in Redis any more.

use std::sync::Arc;

use chat_shared::inbox::{InboxError, Session};

use super::Connection;
use crate::{
    delivery,
    presence::{self, EndedSession, Parting},
    state::AppState,
};

/// What a registration in place came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// The inbox has all that the client lacks, and the connection goes on.
    Intact,
    /// The user counts as there, and what comes from now on enters their inbox; the client has to reload.
    Lost,
    /// The connection has not begun, or ends.
    Passed,
}

impl Connection {
    /// Registers the session anew, beside others of its device, and catches up.
    pub async fn register_again(self: &Arc<Self>, state: &AppState) -> Result<Returned, InboxError> {
        let (Some((resume, pushed)), Some(device_id)) = (self.place(), self.device_id.get()) else {
            return Ok(Returned::Passed);
        };
        if self.is_closing() {
            return Ok(Returned::Passed);
        }
        state.inboxes.attach(state.gateway_id, self.user_id).await?;
        let session = Session { session_id: self.session_id, gateway_id: state.gateway_id, device_id: *device_id };
        let is_confirmed = self.confirmations.lock().is_any();
        let found = state.inboxes.register_again(self.user_id, session, resume, is_confirmed).await?;
        state.announcer.announce(presence::came(self.user_id, found.at));
        let is_here = |other: &Arc<Self>| other.session_id == self.session_id;
        if !state.connections.of(self.user_id).iter().any(is_here) {
            // It ended meanwhile, and its registration may have been removed before it was made.
            let session = EndedSession { user_id: self.user_id, session_id: self.session_id };
            state.departures.end(state, session, Parting::Broken).await;
            return Ok(Returned::Passed);
        }
        if !found.is_resumed || found.head < pushed {
            return Ok(Returned::Lost);
        }
        if self.begin_catch_up().is_some() {
            delivery::catch_up(state, self).await;
        }
        Ok(Returned::Intact)
    }
}
