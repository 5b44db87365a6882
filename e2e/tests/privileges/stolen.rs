//! What somebody can do with the credentials of the service that faces the most third parties: the notifier.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
};
use chat_dev::servers::{Login, Urls};
use chat_e2e::{MARK, Setup, TestFleet, database, eventually, on_own_fleet, said};
use chat_shared::{ids::ConversationId, log::stream_name, wire::Encoding};
use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::{
    LOGINS,
    nats::User,
    redis::{connect, may},
};

/// How long a thief waits for JetStream to give something.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages of the conversation.
const COUNT: u64 = 3;
/// The notifiers' consumers of the log.
const PARTS: u8 = 16;

#[test]
fn r6_4_a_stolen_notifier_credential_cannot_read_history() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let conversation_id = talk(fleet).await?;
        let stolen = fleet.urls().of(Login::Notifier);
        ask_postgres(&stolen, &fleet.urls().postgres).await?;
        ask_nats(&stolen, fleet, conversation_id).await?;
        ask_redis(&stolen, fleet).await
    })
}

/// A conversation with a few messages, which have been delivered and stored.
async fn talk(fleet: &TestFleet) -> Result<ConversationId> {
    let [asha, bikram] = fleet.people()?;
    let conversation_id = fleet.direct(&asha, &bikram).await?;
    let mut socket = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
    for number in 1..=COUNT {
        fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
    }
    socket.frame_where(|frame| frame["message"]["seq"] == COUNT).await?;
    database::wait_until_stored(&fleet.urls().postgres, conversation_id, COUNT).await?;
    Ok(conversation_id)
}

/// No table with content, with keys or with what waits for the log opens, and neither does a partition.
async fn ask_postgres(stolen: &Urls, operator: &str) -> Result<()> {
    let mut operator = PgConnection::connect(operator).await?;
    let listing = "select relname::text from pg_class
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S') order by relname";
    let relations = operator.fetch_all(listing).await?;
    let mut thief = PgConnection::connect(&stolen.postgres).await?;
    let mut open = BTreeSet::new();
    for relation in &relations {
        let name: String = relation.try_get(0)?;
        let listing = format!(
            "select attname::text from pg_attribute where attrelid = '{name}'::regclass and attnum > 0 and not attisdropped"
        );
        for column in operator.fetch_all(AssertSqlSafe(listing)).await? {
            let column: String = column.try_get(0)?;
            let question = format!("select {column} from {name} limit 1");
            if thief.fetch_all(AssertSqlSafe(question)).await.is_ok() {
                open.insert(name.clone());
            }
        }
    }
    let expected = ["_sqlx_migrations", "blocks", "conversations", "notification_devices", "participants"];
    assert_eq!(open, expected.map(str::to_owned).into());
    assert!(relations.len() > 20, "partitions are among those that were tried");
    Ok(())
}

/// The log gives nothing that was delivered: not by position, not by subject, not to a consumer of one's own, and not to
/// the notifiers' consumers, which don't go back.
async fn ask_nats(stolen: &Urls, fleet: &TestFleet, conversation_id: ConversationId) -> Result<()> {
    let thief = User::connect(&stolen.nats).await?;
    let (namespace, log) = (fleet.namespace(), stream_name(fleet.namespace()));
    for subject in [
        format!("$JS.API.STREAM.MSG.GET.{log}"),
        format!("$JS.API.DIRECT.GET.{log}"),
        format!("$JS.API.DIRECT.GET.{log}.{namespace}.*.message.{}", conversation_id.as_uuid().simple()),
        format!("$JS.API.CONSUMER.CREATE.{log}.mine"),
        "$JS.API.STREAM.CREATE.a-copy".to_owned(),
    ] {
        ensure!(!thief.may_say(&subject).await?, "the notifier's user may say {subject}");
    }
    let context = jetstream::ContextBuilder::new().timeout(PATIENCE).build(thief.client.clone());
    let stream = context.get_stream_no_info(&log).await?;
    for part in 0..PARTS {
        let name = format!("notifier-{part:02}");
        let from_the_start = pull::Config {
            durable_name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 1 },
            ..pull::Config::default()
        };
        ensure!(stream.create_consumer(from_the_start).await.is_err(), "{name} can be set back to the start");
    }
    fleet.notifier().stop().await?;
    for part in 0..PARTS {
        let name = format!("notifier-{part:02}");
        let asked = serde_json::json!({ "batch": 10, "no_wait": true, "group": "instances" }).to_string();
        let inbox = thief.client.new_inbox();
        let mut given = thief.client.subscribe(inbox.clone()).await?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{log}.{name}");
        thief.client.publish_with_reply(subject, inbox, asked.into()).await?;
        let answer = tokio::time::timeout(PATIENCE, given.next()).await;
        let is_event = answer.is_ok_and(|answer| answer.is_some_and(|answer| !answer.payload.is_empty()));
        ensure!(!is_event, "{name} gives an event that was delivered");
    }
    fleet.notifier().start_ready().await
}

/// What Redis gives is sealed, and profiles, tickets and revocations it gives not at all.
async fn ask_redis(stolen: &Urls, fleet: &TestFleet) -> Result<()> {
    let (mut operator, mut thief) = (connect(&fleet.urls().redis).await?, connect(&stolen.redis).await?);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut operator).await?;
    let mut sealed = 0;
    for key in keys.iter().filter(|key| key.ends_with(":entries")) {
        let entries: redis::Value = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut thief).await?;
        let text = format!("{entries:?}");
        let bytes: Vec<u8> = bytes_of(&entries);
        ensure!(!text.contains(MARK) && !holds(&bytes, MARK.as_bytes()), "an inbox holds a text");
        sealed += usize::from(!bytes.is_empty());
    }
    ensure!(sealed > 0, "there is an inbox with entries to be looked at");
    let namespace = fleet.namespace();
    for key in [format!("{namespace}:ticket:00"), format!("{namespace}:profile:u:00"), format!("{namespace}:revoked")] {
        let outcome = redis::cmd("GET").arg(&key).exec_async(&mut thief).await;
        ensure!(!may(outcome)?, "the notifier's user may read {key}");
    }
    Ok(())
}

fn bytes_of(value: &redis::Value) -> Vec<u8> {
    match value {
        redis::Value::BulkString(bytes) => bytes.clone(),
        redis::Value::Array(values) => values.iter().flat_map(bytes_of).collect(),
        _ => Vec::new(),
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn r6_4_no_process_is_given_more_than_its_own_credentials() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let operator = password(&fleet.urls().postgres)?;
        for service in fleet.services() {
            let own = match service.role() {
                chat_dev::fleet::Role::Gateway => Login::Gateway,
                chat_dev::fleet::Role::Persister => Login::Persister,
                chat_dev::fleet::Role::Notifier => Login::Notifier,
                chat_dev::fleet::Role::Retention => Login::Retention,
            };
            let environment = eventually("the environment of a process", || async {
                let pid = service.pid().context("it runs")?;
                Ok(std::fs::read(format!("/proc/{pid}/environ")).ok())
            })
            .await?;
            ensure!(!holds(&environment, operator.as_bytes()), "{} has the operator's password", service.name());
            for login in LOGINS {
                let urls = fleet.urls().of(login);
                let theirs = password(&urls.postgres)?;
                let has_it = holds(&environment, theirs.as_bytes());
                ensure!(has_it == (login == own), "{} and the password of {login:?}", service.name());
            }
            let needs = |variable: &str| holds(&environment, format!("{variable}=").as_bytes());
            ensure!(needs("CHAT_NATS_URL") == (own != Login::Retention), "{} and NATS", service.name());
            let uses_redis = matches!(own, Login::Gateway | Login::Notifier);
            ensure!(needs("CHAT_REDIS_URL") == uses_redis, "{} and Redis", service.name());
        }
        Ok(())
    })
}

fn password(url: &str) -> Result<&str> {
    let (user, _) = url.split_once('@').context("the address has a password")?;
    Ok(user.rsplit_once(':').context("the address has a password")?.1)
}
