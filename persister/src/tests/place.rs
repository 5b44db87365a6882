//! Where a test takes place: a database and a log of its own, and persisters on them.

use std::{future::Future, sync::Arc, time::Duration};

use chat_dev::{
    servers::{Login, Urls},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::{Clock, Timestamp},
    event::{Event, Fact, MessageSent, Participants, ReadAdvanced},
    ids::{ConversationId, MessageId, UserId},
    limits,
    log::{self, Log, LogState, Replicas},
    position::{Seq, StreamSeq},
    postgres,
    sealing::{AudienceTag, Envelope},
    settings::PostgresSettings,
    telemetry::Latch,
    wire::ConversationKind,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::Item,
    keep::Keeper,
    repair::Repair,
    source::Source,
    store::Store,
    watch::Watch,
    worker::{Worker, consumer_spec},
};

const DEADLINE: Duration = Duration::from_mins(1);

/// Everything but what the persister itself does is done as an administrator.
pub struct Place {
    pub pool: PgPool,
    pub nats: async_nats::Client,
    pub log: Log,
    /// The persister's.
    pub own_pool: PgPool,
    /// The persister's.
    pub own_log: Log,
    pub state: LogState,
}

/// A conversation and the numbers that it has given out.
pub struct Talk {
    pub conversation_id: ConversationId,
    pub users: Vec<UserId>,
    pub events: Vec<Event>,
    previous: StreamSeq,
}

/// How far a participant has read, and after which message it takes part.
struct Mark {
    read_seq: Seq,
    last_read_message_id: Option<uuid::Uuid>,
    since_seq: Seq,
}

/// A persister in this process. Dropping it is as abrupt as a kill.
pub struct Running {
    pub postgres: Latch,
    draining: CancellationToken,
    tasks: JoinSet<()>,
}

impl Place {
    pub async fn new() -> Self {
        Self::on(&TestServers::from_env().unwrap().isolated().await.unwrap()).await
    }

    pub async fn on(urls: &Urls) -> Self {
        let connect = |url: &str| postgres::connect(&PostgresSettings::new(url, 8), "test").unwrap();
        let (own, namespace) = (urls.of(Login::Persister), unique_namespace());
        let nats = log::connect(&urls.nats, "test", |_| {}).await.unwrap();
        let own_nats = log::connect(&own.nats, "test", |_| {}).await.unwrap();
        let replicas = Replicas { count: 1, bytes_max: 64 * 1024 * 1024 };
        let own_log = Log::open(&own_nats, &namespace, replicas).await.unwrap();
        let log = Log::open(&nats, &namespace, replicas).await.unwrap();
        let state = own_log.state().await.unwrap();
        let (pool, own_pool) = (connect(&urls.postgres), connect(&own.postgres));
        let place = Self { pool, nats, log, own_pool, own_log, state };
        place.make_partition(now()).await;
        place
    }

    pub fn source(&self) -> Source {
        Source { log: self.own_log.clone(), state: self.state.clone() }
    }

    /// Closes gaps as a persister does.
    pub fn repair(&self) -> Repair {
        Repair { log: self.own_log.clone(), keeper: Keeper { source: None, ..self.keeper() } }
    }

    pub fn store(&self) -> Store {
        Store::new(self.own_pool.clone(), Clock::System)
    }

    pub async fn make_partition(&self, at: Timestamp) {
        self.store().make_partition(at.day()).await.unwrap();
    }

    /// Stores directly, and gives up at the first failure.
    pub fn keeper(&self) -> Keeper {
        Keeper {
            store: self.store(),
            source: Some(self.source()),
            clock: Clock::System,
            postgres: Latch::default(),
            draining: CancellationToken::new(),
            attempts_max: Some(1),
            evidence: Arc::default(),
            rows_metric: crate::metrics::ROWS_TOTAL,
        }
    }

    /// Starts a persister as `run` does, only that it hands over quickly.
    pub async fn persister(&self) -> Running {
        let spec = log::ConsumerSpec { ack_wait: Duration::from_secs(2), ..consumer_spec() };
        let (draining, postgres) = (CancellationToken::new(), Latch::default());
        let worker = Worker {
            consumer: self.own_log.consumer(spec).await.unwrap(),
            stream_name: self.state.name.clone(),
            keeper: Keeper {
                postgres: postgres.clone(),
                draining: draining.clone(),
                attempts_max: None,
                ..self.keeper()
            },
        };
        let repair = Repair {
            keeper: Keeper { draining: draining.clone(), attempts_max: None, ..self.repair().keeper },
            ..self.repair()
        };
        let (pool, log) = (self.own_pool.clone(), self.own_log.clone());
        let watch = Watch { pool, store: self.store(), log, source: self.source(), postgres: postgres.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run(draining.clone()));
        let (repairing, watching) = (draining.clone(), draining.clone());
        tasks.spawn(async { repair.run(repairing).await.unwrap() });
        tasks.spawn(async { Box::pin(watch.run(watching)).await.unwrap() });
        Running { postgres, draining, tasks }
    }

    /// A conversation with rows in the database.
    pub async fn talk(&self) -> Talk {
        let talk = Talk::new();
        self.insert(&talk).await;
        talk
    }

    /// Puts the rows of a conversation in the database.
    pub async fn insert(&self, talk: &Talk) {
        sqlx::query!(
            "insert into conversations (conversation_id, kind, created_at, last_activity_at)
             values ($1, 'group', now() - interval '1 hour', now() - interval '1 hour')",
            talk.conversation_id.as_uuid()
        )
        .execute(&self.pool)
        .await
        .unwrap();
        for user in &talk.users {
            sqlx::query!(
                "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', now())",
                talk.conversation_id.as_uuid(),
                user.as_uuid()
            )
            .execute(&self.pool)
            .await
            .unwrap();
        }
    }

    /// Removes everything before a position from the log, as its age limit does.
    pub async fn age_out(&self, first: StreamSeq) {
        let context = async_nats::jetstream::new(self.nats.clone());
        let stream = context.get_stream(&self.state.name).await.unwrap();
        stream.purge().sequence(first.0).await.unwrap();
    }

    /// Removes all entries of one conversation from the log.
    pub async fn remove_entries(&self, talk: &Talk) {
        let context = async_nats::jetstream::new(self.nats.clone());
        let stream = context.get_stream(&self.state.name).await.unwrap();
        stream.purge().filter(self.log.subject(talk.conversation_id)).await.unwrap();
    }

    /// Accepts a message.
    pub async fn append(&self, talk: &mut Talk) {
        let event = talk.message(now());
        self.append_event(talk, &event).await;
    }

    pub async fn append_event(&self, talk: &mut Talk, event: &Event) {
        let log::Appended::At(at) = self.log.append(event, &MessageId::random().as_uuid().to_string()).await.unwrap()
        else {
            panic!("a random append id is no duplicate")
        };
        talk.previous = at;
    }

    /// Puts bytes in the log that no gateway would.
    pub async fn append_poison(&self, talk: &mut Talk, bytes: &'static [u8]) {
        talk.previous = self.append_at(&self.log.subject(talk.conversation_id), bytes).await;
    }

    /// Puts bytes in the log on any of its subjects.
    pub async fn append_at(&self, subject: &str, bytes: &[u8]) -> StreamSeq {
        let context = async_nats::jetstream::new(self.nats.clone());
        let ack = context.publish(subject.to_owned(), bytes.to_vec().into()).await.unwrap().await.unwrap();
        StreamSeq(ack.sequence)
    }

    /// The stored messages of a conversation, in order.
    pub async fn stored(&self, talk: &Talk) -> Vec<(Seq, uuid::Uuid)> {
        self.try_stored(talk).await.unwrap()
    }

    async fn try_stored(&self, talk: &Talk) -> sqlx::Result<Vec<(Seq, uuid::Uuid)>> {
        let rows = sqlx::query!(
            "select seq, message_id from messages where conversation_id = $1 order by seq",
            talk.conversation_id.as_uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (Seq::from_sql(row.seq), row.message_id)).collect())
    }

    /// Waits until all that `talk` has accepted is stored, once and in order, and the conversation knows.
    pub async fn wait_for(&self, talk: &Talk) {
        until("storing", async || self.try_stored(talk).await.is_ok_and(|rows| rows.len() >= talk.events.len())).await;
        self.assert_stored(talk).await;
    }

    pub async fn assert_stored(&self, talk: &Talk) {
        let expected: Vec<_> = talk.events.iter().map(|event| (event.seq, message_id(event))).collect();
        assert_eq!(self.stored(talk).await, expected);
        let last = talk.events.last().unwrap();
        let head = sqlx::query!(
            "select last_seq, last_message_id, last_message_at, last_activity_at from conversations
             where conversation_id = $1",
            talk.conversation_id.as_uuid()
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(Seq::from_sql(head.last_seq), last.seq);
        assert_eq!(head.last_message_id, Some(message_id(last)));
        assert_eq!(head.last_message_at, Some(OffsetDateTime::from(last.sent_at)));
        assert_eq!(head.last_activity_at, OffsetDateTime::from(last.sent_at));
        let misplaced = sqlx::query_scalar!(
            r#"select count(*) as "count!" from participants
               where conversation_id = $1 and listed_at not between $2::timestamptz - make_interval(secs => $3) and $2"#,
            talk.conversation_id.as_uuid(),
            OffsetDateTime::from(last.sent_at),
            limits::LIST_LAG_MAX.as_secs_f64()
        );
        assert_eq!(misplaced.fetch_one(&self.pool).await.unwrap(), 0, "each participant's list has it in its place");
    }

    /// How far each of the users has read.
    pub async fn reads(&self, talk: &Talk) -> Vec<Seq> {
        self.marks(talk).await.into_iter().map(|mark| mark.read_seq).collect()
    }

    /// After which message each of the users takes part.
    pub async fn since(&self, talk: &Talk) -> Vec<Seq> {
        self.marks(talk).await.into_iter().map(|mark| mark.since_seq).collect()
    }

    /// The message that each of the users read last.
    pub async fn last_read(&self, talk: &Talk) -> Vec<Option<uuid::Uuid>> {
        self.marks(talk).await.into_iter().map(|mark| mark.last_read_message_id).collect()
    }

    async fn marks(&self, talk: &Talk) -> Vec<Mark> {
        let mut marks = Vec::new();
        for user in &talk.users {
            let reading = sqlx::query!(
                "select read_seq, last_read_message_id, since_seq from participants
                 where conversation_id = $1 and user_id = $2",
                talk.conversation_id.as_uuid(),
                user.as_uuid()
            );
            let row = reading.fetch_one(&self.pool).await.unwrap();
            marks.push(Mark {
                read_seq: Seq::from_sql(row.read_seq),
                last_read_message_id: row.last_read_message_id,
                since_seq: Seq::from_sql(row.since_seq),
            });
        }
        marks
    }

    /// Changes the schema, as its owner or an operator may.
    pub async fn alter(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    async fn consumer(&self) -> async_nats::jetstream::consumer::PullConsumer {
        let context = async_nats::jetstream::new(self.nats.clone());
        context.get_consumer_from_stream("persister", &self.state.name).await.unwrap()
    }

    /// Entries that persisters were given more than once and have not settled.
    pub async fn redelivered(&self) -> usize {
        self.consumer().await.get_info().await.map_or(0, |info| info.num_redelivered)
    }

    /// Waits until the log has nothing more for any persister.
    pub async fn wait_until_settled(&self) {
        let consumer = self.consumer().await;
        until("settling", async || {
            consumer.get_info().await.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
        })
        .await;
    }
}

impl Talk {
    pub fn new() -> Self {
        Self {
            conversation_id: ConversationId::random(),
            users: vec![UserId::random(), UserId::random()],
            events: Vec::new(),
            previous: StreamSeq::ZERO,
        }
    }

    /// The log holds nothing of it any more, so its next event follows none.
    pub const fn forget_log(&mut self) {
        self.previous = StreamSeq::ZERO;
    }

    /// The next message, from one user after the other.
    pub fn message(&mut self, sent_at: Timestamp) -> Event {
        let event = self.unnumbered(self.events.len() as u64 + 1, sent_at);
        self.events.push(event.clone());
        event
    }

    /// A user's mark at the message of a number.
    pub fn read(&self, user_id: UserId, seq: u64) -> Event {
        let sent = usize::try_from(seq).ok().and_then(|seq| self.events.get(seq.checked_sub(1)?));
        let message_id = sent.map_or_else(MessageId::random, |event| {
            let Fact::MessageSent(sent) = &event.fact else { panic!("not a message") };
            sent.message_id
        });
        let fact = Fact::ReadAdvanced(ReadAdvanced { user_id, message_id, read_seq: Seq(seq) });
        Event { fact, previous: StreamSeq::ZERO, ..self.unnumbered(self.events.len() as u64, now()) }
    }

    /// A message with any number; it isn't expected to be stored.
    pub fn unnumbered(&self, seq: u64, sent_at: Timestamp) -> Event {
        let sender = usize::try_from(seq).unwrap_or(0) % self.users.len();
        Event {
            conversation_id: self.conversation_id,
            kind: ConversationKind::Group,
            seq: Seq(seq),
            sent_at,
            previous: self.previous,
            participants: Participants::default(),
            fact: Fact::MessageSent(MessageSent {
                message_id: MessageId::random(),
                sender_id: self.users[sender],
                envelope: Envelope::from_bytes([&[1, 0, 0, 0x4f, 0xe6][..], &[7; 60]].concat()),
                seen_seq: Seq(seq.saturating_sub(1)),
                audience: AudienceTag::default(),
            }),
        }
    }
}

impl Running {
    /// Stops it as SIGTERM does.
    pub async fn stop(mut self) {
        self.draining.cancel();
        while let Some(ended) = tokio::time::timeout(DEADLINE, self.tasks.join_next()).await.expect("it stops") {
            ended.unwrap();
        }
    }
}

pub fn now() -> Timestamp {
    Clock::System.now()
}

pub fn message_id(event: &Event) -> uuid::Uuid {
    let Fact::MessageSent(sent) = &event.fact else { panic!("not a message") };
    sent.message_id.as_uuid()
}

/// The entries that `events` make when they stand in the log from `first` on.
pub fn items(first: u64, events: &[Event]) -> Vec<Item> {
    let item = |(at, event): (u64, &Event)| {
        Item::read(StreamSeq(at), &log::subject_of("test", event), &event.encode()).unwrap()
    };
    (first..).zip(events).map(item).collect()
}

pub async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    wait::until(what, DEADLINE, || {
        let holds = check();
        async { Ok(holds.await.then_some(())) }
    })
    .await
    .unwrap();
}
