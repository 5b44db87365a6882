//! A text that a real gateway took 98 days ago, by its own clock, and its copies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chat_client::{
    clock::Clock,
    ids::{ConversationId, MessageId, UserId},
    wire::{Accepted, Conversation, CreateConversation, SendMessageBody},
};
use chat_shared::{
    clock::Day,
    event::{Event, Fact},
    log::Slot,
    sealing::Envelope,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};

use super::days::{MS_PER_DAY, Old};
use crate::{
    audit::{Key, search::bytes_in},
    chaos::ground::Ground,
    servers::faketime::Faketime,
    wait,
};

/// How long the text may take to be stored.
const STORED_DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Canary {
    pub message: Old,
    /// Where each copy was read.
    pub copies: Vec<(&'static str, Envelope)>,
    /// How often it stood in the servers' files.
    pub in_files: usize,
}

impl Canary {
    /// Starts a gateway whose clock stands on `day`, lets it take a text, and ends it.
    pub async fn send(ground: &Ground, day: Day) -> Result<Self> {
        let gateway = ground.fleet.gateways().last().context("a fleet has gateways")?;
        let behind_ms = Clock::System.now().day().start().0 - day.start().0;
        gateway.stop().await?;
        let variables = Faketime::find_or_fetch().await?.variables(-behind_ms / 1000);
        for (name, value) in &variables {
            gateway.process().set(name, Some(value.as_str()));
        }
        gateway.start_ready().await?;
        let sent = take(ground, &gateway.url(), behind_ms).await;
        for (name, _) in &variables {
            gateway.process().set(name, None);
        }
        gateway.stop().await?;
        let (accepted, sender_id, text) = sent?;
        let Accepted { conversation_id, message_id, seq, sent_at, .. } = accepted;
        ensure!(sent_at.day() == day, "the gateway's clock is not {} days behind", behind_ms / MS_PER_DAY);
        let row = wait::until("the row of the canary", STORED_DEADLINE, || row(ground, conversation_id)).await?;
        let logged = logged(ground, conversation_id).await?;
        let in_files = bytes_in(ground.servers()?.postgres.data_dir(), row.as_bytes())?.hits
            + bytes_in(ground.fleet.dir(), row.as_bytes())?.hits;
        let key = Key { conversation_id, sender_id, message_id };
        let message = Old { key, seq, sent_at, text, envelope: row.clone() };
        Ok(Self { message, copies: vec![("in its row", row), ("in the log", logged)], in_files })
    }
}

/// Sends a text with a token that was issued at that time.
async fn take(ground: &Ground, url: &str, behind_ms: i64) -> Result<(Accepted, UserId, String)> {
    let (sender_id, issued_s) = (UserId::random(), (Clock::System.now().0 - behind_ms) / 1000);
    let claims = json!({ "iat": issued_s, "nbf": issued_s, "exp": issued_s + 3600 });
    let token = ground.fleet.kaha().tokens().with_claims(sender_id.as_uuid(), &claims)?;
    let (http, base) = (reqwest::Client::new(), format!("{url}/v1/conversations"));
    let post = |url: &str| http.post(url).bearer_auth(&token);
    let direct = CreateConversation::Direct { user_id: UserId::random() };
    let made: Conversation = post(&base).json(&direct).send().await?.error_for_status()?.json().await?;
    let messages = format!("{base}/{}/messages", made.conversation_id.as_uuid());
    let text = format!("canary-{:032x}", rand::random::<u128>());
    let body =
        SendMessageBody { message_id: MessageId::random(), text: text.clone(), is_repeat: false, seen_seq: None };
    let accepted = post(&messages).json(&body).send().await?.error_for_status()?.json().await?;
    Ok((accepted, sender_id, text))
}

async fn row(ground: &Ground, conversation_id: ConversationId) -> Result<Option<Envelope>> {
    let id = conversation_id.as_uuid();
    let statement = format!("select envelope from messages where conversation_id = '{id}'");
    let row = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_optional(&mut ground.postgres().await?).await?;
    row.map(|row| Ok(Envelope::from_bytes(row.try_get(0)?))).transpose()
}

async fn logged(ground: &Ground, conversation_id: ConversationId) -> Result<Envelope> {
    let (namespace, slot) = (ground.fleet.namespace(), Slot::of(conversation_id));
    let subject = format!("{namespace}.{slot}.message.{}", conversation_id.as_uuid().simple());
    let entry = ground.stream().await?.get_last_raw_message_by_subject(&subject).await?;
    match Event::decode(&entry.payload)?.fact {
        Fact::MessageSent(sent) => Ok(sent.envelope),
        other => anyhow::bail!("the canary is not the last event of its conversation, but {other:?}"),
    }
}
