//! Carries out a client's commands.

use std::sync::Arc;

use chat_shared::{
    position::Cursor,
    wire::{
        Accepted, CloseCode, Command, CommandFrame, Confirm, ErrorCode, Heartbeat, MarkRead, Rejected, RenewToken,
        Reply, SendMessage,
    },
};

use super::Connection;
use crate::{auth, refusal::Refusal, state::AppState};

/// Confirmations are recorded in Redis when this many have gathered, with each heartbeat, and at once where a notification may
/// wait for them.
const CONFIRMATIONS_MAX: u64 = 32;

/// Carries out one command, and replies.
pub(super) async fn carry_out(state: &AppState, connection: &Arc<Connection>, frame: CommandFrame) {
    let reference = frame.reference;
    let outcome = match frame.command {
        // What a client owes by itself is not counted against it.
        Command::Heartbeat(Heartbeat { cursor: None }) => Ok(Answer::Done),
        Command::Heartbeat(Heartbeat { cursor: Some(cursor) }) | Command::Confirm(Confirm { cursor }) => {
            confirm(state, connection, cursor).await;
            Ok(Answer::Done)
        }
        counted => match state.rate.check(connection.user_id) {
            Ok(()) => carry_out_counted(state, connection, reference, counted).await,
            Err(refusal) => Err(refusal),
        },
    };
    answer(connection, reference, outcome);
}

/// What a command came to.
enum Answer {
    /// It is carried out, and there is nothing more to say.
    Done,
    /// It has a reply of its own.
    Reply(Reply),
    /// It is answered elsewhere.
    Elsewhere,
}

fn answer(connection: &Connection, reference: Option<u64>, outcome: Result<Answer, Refusal>) {
    match (outcome, reference) {
        (Ok(Answer::Reply(reply)), _) => connection.reply(&reply),
        (Ok(Answer::Done), Some(reference)) => connection.reply(&Reply::Done { reference }),
        (Ok(Answer::Done), None) | (Ok(Answer::Elsewhere), _) => {}
        (Err(refusal), _) => connection.reply(&Reply::Rejected(refusal.into_reply(reference))),
    }
}

/// Notes what the client confirms, also for those whose messages it is.
async fn confirm(state: &AppState, connection: &Connection, cursor: Cursor) {
    state.receipts.delivered(connection.user_id, connection.take_delivered(cursor));
    if connection.note_confirmed(cursor, CONFIRMATIONS_MAX) {
        connection.confirm_now(&state.inboxes, false).await;
    }
}

async fn carry_out_counted(
    state: &AppState,
    connection: &Arc<Connection>,
    reference: Option<u64>,
    command: Command,
) -> Result<Answer, Refusal> {
    match command {
        Command::SendMessage(command) => send_message(state, connection, reference, command).await.map(Answer::Reply),
        Command::RenewToken(command) => renew_token(state, connection, command).await.map(|()| Answer::Done),
        Command::Hello(_) => Ok(Answer::Reply(Reply::Rejected(Rejected {
            reference,
            code: ErrorCode::HelloRequired,
            message: "`hello` comes once, as the first command of a connection".to_owned(),
            retry_after_ms: None,
        }))),
        Command::MarkRead(command) => mark_read(state, connection, reference, command).map(|()| Answer::Elsewhere),
        Command::SetTyping(command) => {
            state.typing.set(state, connection.user_id, command).await.map(|()| Answer::Done)
        }
        Command::WatchPresence(command) => {
            let prepared = state.watches.prepare(state, connection, command.user_ids).await?;
            // The first push comes after the answer.
            answer(connection, reference, Ok(Answer::Done));
            state.watches.begin(connection, &prepared);
            Ok(Answer::Elsewhere)
        }
        Command::WatchBusinesses(command) => {
            state.rate.check_watch(connection.user_id)?;
            // The first push comes after the answer.
            let answer_first = || answer(connection, reference, Ok(Answer::Done));
            state.businesses.watch(connection, command.business_ids, answer_first).await?;
            Ok(Answer::Elsewhere)
        }
        Command::Heartbeat(_) | Command::Confirm(_) => Ok(Answer::Done),
    }
}

async fn send_message(
    state: &AppState,
    connection: &Connection,
    reference: Option<u64>,
    command: SendMessage,
) -> Result<Reply, Refusal> {
    let (conversation_id, message_id) = (command.conversation_id, command.message_id);
    let sent = state.sender.send(connection.user_id, command).await?;
    state.accepted(connection.user_id, conversation_id, message_id, &sent);
    Ok(Reply::Accepted(Accepted { reference, conversation_id, message_id, seq: sent.seq, sent_at: sent.sent_at }))
}

/// Answered once the mark is written; the commands after it don't wait for that.
fn mark_read(
    state: &AppState,
    connection: &Arc<Connection>,
    reference: Option<u64>,
    command: MarkRead,
) -> Result<(), Refusal> {
    let marking = state.receipts.mark_read(connection.user_id, command)?;
    let connection = Arc::clone(connection);
    state.tasks.best_effort("mark_read", async move {
        answer(&connection, reference, marking.await.map(|()| Answer::Done));
    });
    Ok(())
}

async fn renew_token(state: &AppState, connection: &Connection, command: RenewToken) -> Result<(), Refusal> {
    let identity = auth::verify(state, &command.token).await?;
    if identity.user_id != connection.user_id {
        return Err(Refusal::forbidden("the token is another user's; open another connection for them"));
    }
    connection.renew(identity);
    // A logout that was learned of since the check has passed by the old identity.
    if state.revocations.is_revoked(&identity) {
        connection.close(CloseCode::LoggedOut);
    }
    Ok(())
}
