//! Gathers the evidence: PostgreSQL directly, lists and history as participants ask for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chat_client::{
    HistoryRange, Rest, RestError,
    ids::{ConversationId, UserId},
    positions::Seq,
    wire::Message,
};
use sqlx::{Connection, PgConnection};

use super::{
    evidence::{DeviceRecord, Evidence, Listed, Room},
    ledger::Attempt,
    stored,
};
use crate::wait;

/// How long a gateway may refuse what it will answer in the end.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Somebody who can ask.
#[derive(Debug, Clone)]
pub struct Reader {
    pub user_id: UserId,
    pub rest: Rest,
}

/// Reads everything about these conversations; dead letters are those that came after `dead_letters_before`.
pub async fn gather(
    postgres_url: &str,
    rooms: &[Room],
    attempts: Vec<Attempt>,
    readers: &[Reader],
    devices: Vec<DeviceRecord>,
    dead_letters_before: u64,
) -> Result<Evidence> {
    let ids: Vec<_> = rooms.iter().map(|room| room.id).collect();
    let mut connection = PgConnection::connect(postgres_url).await?;
    let mut evidence = Evidence {
        rooms: rooms.to_vec(),
        attempts,
        rows: stored::rows(&mut connection, &ids).await?,
        heads: stored::heads(&mut connection, &ids).await?,
        reads: stored::reads(&mut connection, &ids).await?,
        devices,
        dead_letters: stored::dead_letters(&mut connection).await?.saturating_sub(dead_letters_before),
        ..Evidence::default()
    };
    connection.close().await?;
    for reader in readers {
        evidence.listed.extend(list(reader).await.context("reading a conversation list")?);
    }
    for (turn, room) in rooms.iter().enumerate() {
        // Each conversation is read by another of its participants.
        let mut members: Vec<_> = readers.iter().filter(|reader| room.members.contains(&reader.user_id)).collect();
        let count = members.len().max(1);
        members.rotate_left(turn % count);
        let reader = members.first().context("a conversation has no participant who can read it")?;
        evidence.history.extend(history(&reader.rest, room.id).await.context("reading history")?);
    }
    Ok(evidence)
}

/// The answer of a gateway, which may need a moment to find that what was gone is back.
async fn answered<T, F>(ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, RestError>>,
{
    wait::until("an answer", ANSWER_DEADLINE, || async {
        match ask().await {
            Err(error) if error.retry_after().is_some() => Ok(None),
            answer => Ok(Some(answer?)),
        }
    })
    .await
}

/// The whole list of a user.
async fn list(reader: &Reader) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = answered(|| reader.rest.list_conversations(Some(100), cursor.as_deref())).await?;
        listed.extend(page.conversations.iter().map(|conversation| Listed {
            conversation_id: conversation.conversation_id,
            user_id: reader.user_id,
            last_seq: conversation.last_seq,
            unread: conversation.unread,
        }));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(listed);
        }
    }
}

/// The whole history of a conversation.
pub async fn history(rest: &Rest, conversation_id: ConversationId) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let after = messages.last().map_or(Seq::ZERO, |message| message.seq);
        let page = answered(|| rest.history(conversation_id, HistoryRange::After(after), Some(100))).await?;
        let is_end = !page.has_more;
        ensure!(is_end || !page.messages.is_empty(), "a page is empty though there is more");
        messages.extend(page.messages);
        if is_end {
            return Ok(messages);
        }
    }
}
