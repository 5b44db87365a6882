//! Reads a connection's frames, one command after the other, from hello to its end.

use std::{sync::Arc, time::Duration};

use chat_shared::{
    limits,
    wire::{
        CloseCode, Command, CommandFrame, DecodeError, Encoding, ErrorCode, Hello, Rejected, Reply, decode_command,
    },
};
use fastwebsockets::{OpCode, Role, WebSocket, WebSocketError, after_handshake_split};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, empty, split};

use super::{
    Connection, commands,
    frames::{Frames, Received},
    hello, writer,
};
use crate::{auth::Identity, presence::Parting, state::AppState};

/// Serves a connection until it ends.
pub(super) async fn serve(
    state: AppState,
    identity: Identity,
    encoding: Encoding,
    socket: WebSocket<TokioIo<Upgraded>>,
) {
    // Nothing has been read yet, so nothing is lost with the buffers.
    let (read, write) = split(socket.into_inner());
    let mut frames = Frames::new(read);
    let (_, write) = after_handshake_split(empty(), write, Role::Server);
    let connection = Arc::new(Connection::new(identity, encoding, state.connections.removals()));
    let written = Arc::clone(&connection);
    let serving = state.clone();
    state.tasks.best_effort("connection_writer", async move { writer::run(&serving, &written, write).await });

    // What is seldom under way is in boxes of its own: an idle connection holds only what it waits with.
    let draining = state.tasks.draining();
    match Box::pin(draining.run_until_cancelled(first_command(&connection, &mut frames))).await {
        Some(Some(hello)) => converse(&state, &connection, &mut frames, hello).await,
        Some(None) => {}
        None => connection.close(CloseCode::GoingAway),
    }
    // However the reading ended, the writer ends too.
    connection.leave();
    Box::pin(frames.discard()).await;
}

/// From hello to goodbye.
async fn converse(
    state: &AppState,
    connection: &Arc<Connection>,
    frames: &mut Frames<impl AsyncRead + Unpin + Send>,
    hello: Hello,
) {
    Box::pin(hello::arrive(state, connection, hello)).await;
    let parting = read_commands(state, connection, frames).await;
    Box::pin(hello::depart(state, connection, parting)).await;
}

async fn first_command(connection: &Connection, frames: &mut Frames<impl AsyncRead + Unpin + Send>) -> Option<Hello> {
    let first = next_command(connection, frames, limits::HELLO_WAIT_MAX);
    // Pings on the way to it don't make the wait longer.
    match tokio::time::timeout(limits::HELLO_WAIT_MAX, first).await.unwrap_or(Err(Ended::Silent)) {
        Ok(CommandFrame { command: Command::Hello(hello), .. }) => return Some(hello),
        Err(Ended::Gone | Ended::Goodbye) => {}
        Err(Ended::Closed(code)) => connection.close(code),
        Err(Ended::Rejected(rejected)) => {
            connection.reply(&Reply::Rejected(rejected));
            connection.close(CloseCode::HelloMissed);
        }
        Ok(_) | Err(Ended::Silent) => connection.close(CloseCode::HelloMissed),
    }
    None
}

async fn read_commands(
    state: &AppState,
    connection: &Arc<Connection>,
    frames: &mut Frames<impl AsyncRead + Unpin + Send>,
) -> Parting {
    loop {
        match next_command(connection, frames, limits::HEARTBEAT_SILENCE_MAX).await {
            Ok(_) if connection.expires_in(state.clock.now()).is_zero() => {
                connection.close(CloseCode::TokenExpired);
                return Parting::Broken;
            }
            Ok(frame) => Box::pin(commands::carry_out(state, connection, frame)).await,
            Err(Ended::Rejected(rejected)) => {
                // A client that sends nonsense is slowed down as any other.
                let counted =
                    state.rate.check(connection.user_id).map_err(|refusal| refusal.into_reply(rejected.reference));
                connection.reply(&Reply::Rejected(counted.err().unwrap_or(rejected)));
            }
            Err(Ended::Silent) => {
                connection.close(CloseCode::HeartbeatMissed);
                return Parting::Final;
            }
            Err(Ended::Closed(code)) => {
                connection.close(code);
                return Parting::Broken;
            }
            Err(Ended::Goodbye) => return Parting::Final,
            Err(Ended::Gone) => return Parting::Broken,
        }
    }
}

/// Why there is no command.
enum Ended {
    /// The frame is no command; the connection goes on.
    Rejected(Rejected),
    /// Nothing came for too long.
    Silent,
    /// The connection must end with this code.
    Closed(CloseCode),
    /// The client has closed it.
    Goodbye,
    /// The client is gone, or the connection is closing already.
    Gone,
}

async fn next_command(
    connection: &Connection,
    frames: &mut Frames<impl AsyncRead + Unpin + Send>,
    silence_max: Duration,
) -> Result<CommandFrame, Ended> {
    loop {
        // Reading is not cancel safe: whenever another branch wins, the connection ends.
        let Received { is_final, opcode, payload } = tokio::select! {
            // First, so that nothing that a client has sent ahead is carried out after a logout.
            biased;
            _ = connection.outbox.closed() => return Err(Ended::Gone),
            read = tokio::time::timeout(silence_max, frames.next()) => match read {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return Err(ended_by(&error)),
                Err(_) => return Err(Ended::Silent),
            },
        };
        match (opcode, connection.encoding) {
            (_, _) if !is_final => return Err(Ended::Closed(CloseCode::Fragmented)),
            (OpCode::Continuation, _) => return Err(Ended::Closed(CloseCode::Fragmented)),
            (OpCode::Text, Encoding::Json) | (OpCode::Binary, Encoding::MessagePack) => {
                let command = decode_command(connection.encoding, &payload).map_err(|error| rejected(&error))?;
                let is_uncounted = matches!(command.command, Command::Heartbeat(_) | Command::Confirm(_));
                if is_uncounted && !frames.pace.count() {
                    return Err(Ended::Closed(CloseCode::TooManyFrames));
                }
                return Ok(command);
            }
            (OpCode::Text | OpCode::Binary, _) => return Err(Ended::Closed(CloseCode::MalformedFrame)),
            (OpCode::Ping | OpCode::Pong, _) if !frames.pace.count() => {
                return Err(Ended::Closed(CloseCode::TooManyFrames));
            }
            (OpCode::Ping, _) => connection.outbox.pong(payload.to_vec()),
            (OpCode::Pong, _) => {}
            // An answer to our own close is no goodbye.
            (OpCode::Close, _) if connection.is_closing() => return Err(Ended::Gone),
            (OpCode::Close, _) => return Err(Ended::Goodbye),
        }
    }
}

fn ended_by(error: &WebSocketError) -> Ended {
    match error {
        WebSocketError::FrameTooLarge | WebSocketError::PingFrameTooLarge => Ended::Closed(CloseCode::FrameTooLarge),
        WebSocketError::InvalidUTF8
        | WebSocketError::ReservedBitsNotZero
        | WebSocketError::ControlFrameFragmented
        | WebSocketError::InvalidValue => Ended::Closed(CloseCode::MalformedFrame),
        _ => Ended::Gone,
    }
}

fn rejected(error: &DecodeError) -> Ended {
    let (code, reference) = match *error {
        DecodeError::Malformed(_) => return Ended::Closed(CloseCode::MalformedFrame),
        DecodeError::UnknownCommand { reference } => (ErrorCode::UnknownCommand, reference),
        DecodeError::Invalid { reference, .. } => (ErrorCode::Invalid, reference),
    };
    Ended::Rejected(Rejected { reference, code, message: error.to_string(), retry_after_ms: None })
}

#[cfg(test)]
mod fuzz;
