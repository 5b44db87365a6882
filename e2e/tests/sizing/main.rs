//! What a message, a conversation and a user take in each store, compared with what docs/operations.md states.

mod document;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream::Stream};
use chat_e2e::{MARK, Online, Person, Setup, TestFleet, database, eventually, on_own_fleet};
use chat_shared::{
    ids::ConversationId,
    log::{self, stream_name},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection;

use document::{assert_near, constant};

/// Users, each of whom is connected once.
const PEOPLE: usize = 50;
/// Direct conversations that each of them makes.
const OTHERS: usize = 20;
/// Messages in each direct conversation.
const SENT: usize = 3;
/// Messages of each size in a group.
const SENT_IN_GROUP: usize = 20;
/// Bytes of short and of long texts.
const SHORT: usize = 100;
const LONG: usize = 500;
/// Requests at a time.
const AT_ONCE: usize = 8;

/// Bytes that the log takes.
async fn log_bytes(log: &Stream) -> Result<u64> {
    Ok(log.get_info().await?.state.bytes)
}

/// Bytes that a table takes with its indexes, partitions included.
async fn table_bytes(fleet: &TestFleet, table: &str) -> Result<u64> {
    let partitions = format!("select sum(pg_total_relation_size(relid))::bigint from pg_partition_tree('{table}')");
    let bytes = format!("select coalesce(({partitions}), pg_total_relation_size('{table}'))");
    Ok(database::count(&fleet.urls().postgres, &bytes).await?.unsigned_abs())
}

/// Copies the rows of a table with its indexes and without old versions of rows. Returns the name of the copy.
///
/// `vacuum full` of the table itself keeps the versions that the snapshot of another transaction, as of an automatic
/// `analyze`, may still read.
async fn compact_copy(fleet: &TestFleet, table: &str) -> Result<String> {
    let copy = format!("measured_{table}");
    for statement in [
        format!("create table {copy} (like {table} including indexes including storage)"),
        format!("insert into {copy} select * from {table}"),
        // Indexes filled row by row have more room within pages.
        format!("reindex table {copy}"),
    ] {
        database::execute(&fleet.urls().postgres, &statement).await?;
    }
    Ok(copy)
}

/// Bytes that Redis takes for the keys of a pattern, and how many there are.
async fn redis_bytes(redis: &mut MultiplexedConnection, pattern: &str) -> Result<(u64, usize)> {
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(redis).await?;
    let mut bytes = 0;
    for key in &keys {
        let mut usage = redis::cmd("MEMORY");
        usage.arg(&["USAGE", key, "SAMPLES", "0"]);
        bytes += usage.query_async::<Option<u64>>(redis).await?.unwrap_or_default();
    }
    Ok((bytes, keys.len()))
}

/// Bytes of all keys of these users, and entries of their inboxes.
async fn inboxes(fleet: &TestFleet, redis: &mut MultiplexedConnection, people: &[Person]) -> Result<(u64, u64)> {
    let (mut bytes, mut entries) = (0, 0);
    for person in people {
        let user = format!("{}:{{{}}}", fleet.namespace(), person.id.as_uuid().simple());
        bytes += redis_bytes(redis, &format!("{user}:*")).await?.0;
        entries += redis::cmd("XLEN").arg(format!("{user}:entries")).query_async::<u64>(redis).await?;
    }
    Ok((bytes, entries))
}

/// Waits until persister and notifier have dealt with the whole log.
async fn until_settled(log: &Stream) -> Result<()> {
    eventually("settling the log", || async {
        let consumers: Vec<_> = log.consumers().try_collect().await?;
        let left: u64 = consumers.iter().map(|it| it.num_pending + it.num_ack_pending as u64).sum();
        Ok((left == 0).then_some(()))
    })
    .await
}

/// Sends messages to conversations, so many times one to each, and waits until all are stored and in inboxes.
async fn send(log: &Stream, senders: &[(ConversationId, &Online)], times: usize, bytes: usize) -> Result<()> {
    let mut text = MARK.to_owned();
    text.extend(std::iter::repeat_n('x', bytes - MARK.len()));
    for _ in 0..times {
        stream::iter(senders)
            .map(|(conversation_id, sender)| sender.say(*conversation_id, &text))
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await?;
    }
    until_settled(log).await
}

/// What one of so many takes.
#[expect(clippy::cast_precision_loss, reason = "far fewer bytes than a float holds exactly")]
fn each(bytes: u64, count: usize) -> f64 {
    bytes as f64 / count as f64
}

#[expect(clippy::cast_precision_loss, reason = "hundreds of bytes")]
const fn text_bytes(bytes: usize) -> f64 {
    bytes as f64
}

#[test]
fn each_store_takes_what_the_document_states() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let nats = log::connect(&fleet.urls().nats, "test", |_| {}).await?;
        let log = jetstream::new(nats).get_stream(stream_name(fleet.namespace())).await?;
        let client = redis::Client::open(fleet.urls().redis.as_str())?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let people: [Person; PEOPLE] = fleet.people()?;
        let pairs = (0..PEOPLE).flat_map(|one| (1..=OTHERS).map(move |step| (one, (one + step) % PEOPLE)));
        let made = stream::iter(pairs).map(|(one, other)| {
            let (maker, second) = (&people[one], &people[other]);
            async move { anyhow::Ok((fleet.direct(maker, second).await?, one, other)) }
        });
        let directs: Vec<(ConversationId, usize, usize)> = made.buffer_unordered(AT_ONCE).try_collect().await?;
        ensure!(directs.len() == PEOPLE * OTHERS);
        let mut online = Vec::with_capacity(PEOPLE);
        for (number, person) in people.iter().enumerate() {
            online.push(fleet.connect(person, number % 2).await?);
        }
        until_settled(&log).await?;
        let senders: Vec<_> = directs.iter().map(|(id, one, _)| (*id, &online[*one])).collect();

        let messages = senders.len() * SENT;
        let (log_before, tables_before) = (log_bytes(&log).await?, table_bytes(fleet, "messages").await?);
        let (users, none) = inboxes(fleet, &mut redis, &people).await?;
        ensure!(none == 0, "{none} entries are in inboxes before the first message");
        assert_near("a user in Redis, without entries", each(users, PEOPLE), constant("redis_user")?)?;
        send(&log, &senders, SENT, SHORT).await?;
        let in_log = each(log_bytes(&log).await? - log_before, messages);
        assert_near("a message in the log", in_log, constant("log_message")? + text_bytes(SHORT))?;
        let in_tables = each(table_bytes(fleet, "messages").await? - tables_before, messages);
        assert_near("a message in PostgreSQL", in_tables, constant("postgres_message")? + text_bytes(SHORT))?;
        let (filled, entries) = inboxes(fleet, &mut redis, &people).await?;
        let in_inbox = each(filled - users, usize::try_from(entries)?);
        assert_near("a message in an inbox", in_inbox, constant("redis_entry")? + text_bytes(SHORT))?;

        for (table, name, rows) in [
            ("conversations", "postgres_conversation", directs.len()),
            ("participants", "postgres_participant", 2 * directs.len()),
        ] {
            let copy = compact_copy(fleet, table).await?;
            assert_near(table, each(table_bytes(fleet, &copy).await?, rows), constant(name)?)?;
        }
        let (profiles, count) = redis_bytes(&mut redis, &format!("{}:profile:*", fleet.namespace())).await?;
        assert_near("a profile in Redis", each(profiles, count), constant("redis_profile")?)?;

        let before = log_bytes(&log).await?;
        for (conversation_id, _, other) in &directs[..PEOPLE] {
            let reader = fleet.api(&people[*other], 0);
            let page = reader.history(*conversation_id, "limit=1").await?;
            let last = page.messages.first().context("a conversation is empty")?;
            let answer = reader.mark_read(*conversation_id, last.message_id).await?;
            ensure!(answer.status < 300, "a mark is answered with {}", answer.code());
        }
        assert_near("a read mark in the log", each(log_bytes(&log).await? - before, PEOPLE), constant("log_read")?)?;

        for size in [4, 8] {
            let others: Vec<&Person> = people[1..size].iter().collect();
            let group = fleet.group(&people[0], &others).await?;
            until_settled(&log).await?;
            for bytes in [SHORT, LONG] {
                let before = log_bytes(&log).await?;
                send(&log, &[(group, &online[0])], SENT_IN_GROUP, bytes).await?;
                let in_log = each(log_bytes(&log).await? - before, SENT_IN_GROUP);
                let more = text_bytes(size - 2) * constant("log_participant")?;
                let expected = constant("log_message")? + more + text_bytes(bytes);
                assert_near("a message of a group in the log", in_log, expected)?;
            }
        }
        Ok(())
    })
}
