//! What somebody can do with the credentials of the service that faces the most third parties: the notifier.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use async_nats::{
    StatusCode,
    jetstream::{
        self,
        consumer::{self, DeliverPolicy},
    },
};
use chat_dev::servers::{Login, Urls};
use chat_e2e::{MARK, Person, Setup, TestFleet, database, eventually, in_time, on_own_fleet, said};
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
        let (asha, conversation_id) = talk(fleet).await?;
        let stolen = fleet.urls().of(Login::Notifier);
        ask_postgres(&stolen, &fleet.urls().postgres).await?;
        ask_nats(&stolen, fleet, conversation_id).await?;
        ask_consumers(&stolen, fleet, &asha, conversation_id).await?;
        ask_redis(&stolen, fleet).await
    })
}

/// A conversation with a few messages, which have been delivered and stored; and who wrote them.
async fn talk(fleet: &TestFleet) -> Result<(Person, ConversationId)> {
    let [asha, bikram] = fleet.people()?;
    let conversation_id = fleet.direct(&asha, &bikram).await?;
    let mut socket = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
    for number in 1..=COUNT {
        fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
    }
    socket.frame_where(|frame| frame["message"]["seq"] == COUNT).await?;
    database::wait_until_stored(&fleet.urls().postgres, conversation_id, COUNT).await?;
    Ok((asha, conversation_id))
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
    // None of them has what users write.
    let expected =
        ["_sqlx_migrations", "blocks", "cases", "conversations", "notification_devices", "participants", "staff"];
    assert_eq!(open, expected.map(str::to_owned).into());
    assert!(relations.len() > 20, "partitions are among those that were tried");
    Ok(())
}

/// The log gives nothing that was delivered: not by position, not by subject, not to a consumer of one's own; and the
/// notifiers' consumers can't be set back.
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
    for name in consumers() {
        let from_the_start = consumer::pull::Config {
            durable_name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 1 },
            ..consumer::pull::Config::default()
        };
        ensure!(stream.create_consumer(from_the_start).await.is_err(), "{name} can be set back to the start");
    }
    Ok(())
}

/// The notifiers' consumers give what comes, and nothing that was delivered.
async fn ask_consumers(stolen: &Urls, fleet: &TestFleet, asha: &Person, conversation_id: ConversationId) -> Result<()> {
    let operator = User::connect(&fleet.urls().nats).await?;
    let mut log = jetstream::new(operator.client.clone()).get_stream(stream_name(fleet.namespace())).await?;
    eventually("notifiers who have dealt with everything", || async {
        for name in consumers() {
            let info = log.consumer_info(&name).await?;
            if info.num_pending > 0 || info.num_ack_pending > 0 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;
    fleet.notifier().stop().await?;
    let thief = User::connect(&stolen.nats).await?;
    let given = pull_all(&thief, fleet).await?;
    ensure!(given.is_empty(), "{} events are given that were delivered", given.len());
    // The same questions are answered when there is something: it was no refusal.
    let delivered_until = log.info().await?.state.last_sequence;
    fleet.api(asha, 0).say(conversation_id, &said("something new")).await?;
    let given = pull_all(&thief, fleet).await?;
    ensure!(given.len() == 1, "{} events are given, and not the only one that is new", given.len());
    let event = jetstream::Message { message: given[0].clone(), context: jetstream::new(thief.client.clone()) };
    let position = event.info().map_err(|error| anyhow::anyhow!("{error}"))?.stream_sequence;
    ensure!(position > delivered_until, "the event at {position} was delivered before");
    let subject = format!(".message.{}", conversation_id.as_uuid().simple());
    ensure!(given[0].subject.ends_with(&subject), "the event is of {}", given[0].subject);
    ensure!(!holds(&given[0].payload, MARK.as_bytes()), "the event holds the text");
    fleet.notifier().start_ready().await
}

/// The names of the notifiers' consumers of the log.
fn consumers() -> impl Iterator<Item = String> {
    (0..PARTS).map(|part| format!("notifier-{part:02}"))
}

/// What all of the notifiers' consumers give within a moment.
async fn pull_all(thief: &User, fleet: &TestFleet) -> Result<Vec<async_nats::Message>> {
    let names: Vec<_> = consumers().collect();
    let pulls = names.iter().map(|name| pull(thief, fleet, name));
    Ok(futures_util::future::try_join_all(pulls).await?.concat())
}

/// What one consumer gives. It has to say itself that there is nothing more: a question that it refuses is not good enough.
async fn pull(thief: &User, fleet: &TestFleet, name: &str) -> Result<Vec<async_nats::Message>> {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", stream_name(fleet.namespace()));
    let inbox = thief.client.new_inbox();
    let mut answers = thief.client.subscribe(inbox.clone()).await?;
    let expires_ns = u64::try_from(PATIENCE.as_nanos())?;
    let asked = serde_json::json!({ "batch": 10, "expires": expires_ns, "group": "instances" }).to_string();
    thief.client.publish_with_reply(subject, inbox, asked.into()).await?;
    let mut given = Vec::new();
    loop {
        let answer = in_time("the end of what a consumer gives", answers.next()).await?;
        let answer = answer.context("the thief is still connected")?;
        match answer.status {
            None => given.push(answer),
            Some(StatusCode::TIMEOUT) => return Ok(given),
            Some(other) => bail!("{name} answers {other}: {:?}", answer.description),
        }
    }
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
                chat_dev::fleet::Role::Cold => Login::Cold,
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
