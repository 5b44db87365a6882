//! Inboxes that can't be used: each concerns its own user only.

use anyhow::Result;
use chat_shared::ids::UserId;

use crate::{
    installation::{Installation, Private},
    people::{Conversation, Gateway, inbox},
};

/// Commands that break an inbox, on a key of its user.
const BREAKS: &[(&str, &[&str])] = &[
    ("meta", &["SET", "spoilt"]),
    ("entries", &["SET", "spoilt"]),
    ("sessions", &["SET", "spoilt"]),
    ("meta", &["HSET", "head", "spoilt"]),
    ("entries", &["XADD", "1000-0", "event", "x"]),
    ("sessions", &["HSET", "session", "spoilt"]),
];

async fn break_inbox(
    servers: &Private,
    namespace: &str,
    user_id: UserId,
    (key, command): (&str, &[&str]),
) -> Result<()> {
    let mut connection = redis::Client::open(servers.redis.url())?.get_multiplexed_async_connection().await?;
    let key = format!("{namespace}:{{{}}}:{key}", user_id.as_uuid().simple());
    Ok(redis::cmd(command[0]).arg(key).arg(&command[1..]).exec_async(&mut connection).await?)
}

#[tokio::test]
async fn a_broken_inbox_concerns_its_user_only() -> Result<()> {
    let servers = Private::start().await?;
    let installation = Installation::private(&servers).await?;
    let notifier = installation.notifier("notifier").await?;
    let (mut here, mut there) = (Gateway::listen(&installation).await?, Gateway::listen(&installation).await?);
    let (whole, wholes) = here.user(&installation).await?;
    let mut count = 0;
    for broken_by in BREAKS {
        let (broken, brokens) = there.user(&installation).await?;
        let mut conversation = Conversation::of(&[broken, whole]);
        break_inbox(&servers, &installation.namespace, broken, *broken_by).await?;
        conversation.append(&installation.log, &[]).await?;
        count += 1;
        let got = here.numbered_for(whole).await?;
        assert_eq!((got.event.conversation_id, got.recipients[0].cursor.0), (conversation.id, count), "{broken_by:?}");

        // Another epoch than the connection's ends it, and the client resumes.
        let ended = there.numbered_for(broken).await?;
        assert_ne!(ended.recipients[0].epoch, brokens.epoch);
        let again = there.again(&installation, broken).await?;
        assert_ne!(again.epoch, brokens.epoch);
        conversation.append(&installation.log, &[]).await?;
        count += 1;
        here.numbered_for(whole).await?;
        assert_eq!(there.numbered_for(broken).await?.recipients[0].epoch, again.epoch);
        assert_eq!(inbox(&installation, broken, &again).await?, [2], "{broken_by:?}");
    }
    assert_eq!(inbox(&installation, whole, &wholes).await?.len(), BREAKS.len() * 2, "each once");
    assert_eq!(notifier.count("chat_notifier_inboxes_reset_total").await?, BREAKS.len() as u64);
    for metric in ["redis_failures", "unnumbered", "retries"] {
        assert_eq!(notifier.count(&format!("chat_notifier_{metric}_total")).await?, 0, "{metric}");
    }
    notifier.stop().await
}
