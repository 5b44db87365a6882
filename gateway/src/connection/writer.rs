//! Writes a connection's frames: what is in the outbox, a heartbeat now and then, and the close.

use std::{sync::atomic::Ordering, time::Duration};

use chat_shared::{
    clock::Timestamp,
    limits,
    wire::{CloseCode, Encoding, Push},
};
use fastwebsockets::{Frame, Payload, WebSocketError, WebSocketWrite};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout};

use super::{
    Connection,
    outbox::{Ending, Outgoing},
};
use crate::{app::AppState, telemetry};

/// How long the last frames may take once the connection ends.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Writes until the connection ends.
pub(super) async fn run(
    state: &AppState,
    connection: &Connection,
    mut socket: WebSocketWrite<impl AsyncWrite + Unpin>,
) {
    // Whoever stops reading is ended by the outbox' bound, or by the silence of its heartbeats.
    let outcome = tokio::select! {
        outcome = write_frames(state, connection, &mut socket) => outcome,
        () = farewell(connection) => Ok(()),
    };
    // Who can't be written to is gone.
    connection.leave();
    let ending = connection.outbox.closing().filter(|_| outcome.is_ok()).unwrap_or(Ending::Left);
    metrics::counter!(telemetry::CLOSED_TOTAL, "reason" => ending.reason()).increment(1);
    let close = Frame::close(ending.code(), ending.reason().as_bytes());
    // The client may be gone; it knows the code or it doesn't.
    let _closed = timeout(FAREWELL_MAX, socket.write_frame(close)).await;
    let _flushed = timeout(FAREWELL_MAX, socket.flush()).await;
}

async fn farewell(connection: &Connection) {
    let _code = connection.outbox.closed().await;
    tokio::time::sleep(FAREWELL_MAX).await;
}

async fn write_frames(
    state: &AppState,
    connection: &Connection,
    socket: &mut WebSocketWrite<impl AsyncWrite + Unpin>,
) -> Result<(), WebSocketError> {
    let mut next_heartbeat = Instant::now() + limits::HEARTBEAT_INTERVAL;
    loop {
        let expires_in = until(state.clock.now(), Timestamp(connection.expires_at.load(Ordering::Relaxed)));
        // Cancel safe: a frame is taken from the outbox only when this branch wins.
        let outgoing = tokio::select! {
            biased;
            outgoing = connection.outbox.next() => outgoing,
            () = tokio::time::sleep(expires_in) => {
                connection.close(CloseCode::TokenExpired);
                continue;
            }
            () = tokio::time::sleep_until(next_heartbeat) => {
                next_heartbeat += limits::HEARTBEAT_INTERVAL;
                Box::pin(connection.confirm_now(&state.inboxes)).await;
                connection.push(&Push::Heartbeat { cursor: connection.cursor() });
                continue;
            }
        };
        match outgoing {
            None => return Ok(()),
            Some(outgoing) => socket.write_frame(frame(connection.encoding, outgoing)).await?,
        }
    }
}

fn frame(encoding: Encoding, outgoing: Outgoing) -> Frame<'static> {
    match (outgoing, encoding) {
        (Outgoing::Pong(bytes), _) => Frame::pong(Payload::Owned(bytes)),
        (Outgoing::Data(bytes), Encoding::Json) => Frame::text(Payload::Owned(bytes)),
        (Outgoing::Data(bytes), Encoding::MessagePack) => Frame::binary(Payload::Owned(bytes)),
    }
}

/// How long until then; a day at the most, so that a far expiry is looked at again.
fn until(now: Timestamp, then: Timestamp) -> Duration {
    let ms = then.0.saturating_sub(now.0).clamp(0, 86_400_000);
    Duration::from_millis(ms.unsigned_abs())
}
