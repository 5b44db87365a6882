//! Writes a connection's frames: what is in the outbox, a heartbeat now and then, and the close.

use std::time::Duration;

use chat_shared::{
    limits,
    wire::{CloseCode, Encoding, Push},
};
use fastwebsockets::{Frame, Payload, WebSocketWrite};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout};

use super::{
    Connection,
    outbox::{Ending, Outgoing},
};
use crate::{state::AppState, telemetry};

/// How long the last frames may take once the connection ends.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// The user's keys in Redis are kept alive this often, about once an hour, however quiet the connection is.
const HEARTBEATS_PER_REFRESH: u32 = 240;

/// A frame was left unfinished, so nothing can follow it.
struct Cut;

/// Writes until the connection ends.
pub(super) async fn run(
    state: &AppState,
    connection: &Connection,
    mut socket: WebSocketWrite<impl AsyncWrite + Unpin>,
) {
    let outcome = tokio::select! {
        outcome = write_frames(state, connection, &mut socket) => outcome,
        () = farewell(connection) => Err(Cut),
    };
    // Who can't be written to is gone.
    connection.leave();
    let ending = connection.outbox.closing().unwrap_or(Ending::Left);
    metrics::counter!(telemetry::CLOSED_TOTAL, "reason" => ending.reason()).increment(1);
    if outcome.is_ok() {
        let close = Frame::close(ending.code(), ending.reason().as_bytes());
        // The client may be gone; it knows the code or it doesn't.
        let _closed = timeout(FAREWELL_MAX, socket.write_frame(close)).await;
        let _flushed = timeout(FAREWELL_MAX, socket.flush()).await;
    }
}

async fn farewell(connection: &Connection) {
    let _ending = connection.outbox.closed().await;
    tokio::time::sleep(FAREWELL_MAX).await;
}

async fn write_frames(
    state: &AppState,
    connection: &Connection,
    socket: &mut WebSocketWrite<impl AsyncWrite + Unpin>,
) -> Result<(), Cut> {
    let mut next_heartbeat = Instant::now() + limits::HEARTBEAT_INTERVAL;
    let mut heartbeats = 0;
    loop {
        let expires_in = connection.expires_in(state.clock.now());
        if expires_in.is_zero() {
            connection.close(CloseCode::TokenExpired);
        }
        // Cancel safe: a frame is taken from the outbox only when its branch wins. The clocks come first, so that a
        // client who keeps the outbox busy doesn't outlive its token.
        let outgoing = tokio::select! {
            biased;
            () = tokio::time::sleep(expires_in), if !expires_in.is_zero() => continue,
            () = tokio::time::sleep_until(next_heartbeat) => {
                next_heartbeat += limits::HEARTBEAT_INTERVAL;
                heartbeats += 1;
                let is_due = heartbeats % HEARTBEATS_PER_REFRESH == 0;
                Box::pin(connection.confirm_now(&state.inboxes, is_due)).await;
                connection.push(&Push::Heartbeat { cursor: connection.cursor() });
                continue;
            }
            outgoing = connection.outbox.next() => outgoing,
        };
        let Some(outgoing) = outgoing else { return Ok(()) };
        // Who takes nothing for so long would not be heard from either.
        match timeout(limits::HEARTBEAT_SILENCE_MAX, socket.write_frame(frame(connection.encoding, outgoing))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Cut),
            Err(_) => {
                connection.close(CloseCode::SlowConsumer);
                return Err(Cut);
            }
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
