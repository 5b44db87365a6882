//! Where a test takes place: a database and a log of its own, and the gateway's rooms on them.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use chat_cold::{
    pack::{Draft, Key},
    store::Store,
};
use chat_dev::{
    content_keys,
    servers::{Login, Urls},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::{Clock, Timestamp},
    event::{Event, Fact},
    ids::{ConversationId, MessageId, UserId},
    inbox::Inboxes,
    jobs::Jobs,
    lifecycle::Tasks,
    log::{self, Log, Replicas},
    position::Seq,
    postgres,
    redis::Redis,
    sealing::{MasterKey, MasterKeys, Sealed, WrappedKey},
    settings::PostgresSettings,
    telemetry::Latch,
    wire::{Conversation, CreateConversation, SendMessage},
};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use crate::{
    business::Businesses,
    content::Content,
    conversations::Conversations,
    database::Database,
    delivery::Gateways,
    devices::Devices,
    history::{ColdBodies, History, Place as PageOf, Tail},
    profiles::{ProfileSettings, Profiles, Surroundings},
    quota::{QuotaSettings, Quotas},
    rate::RateLimits,
    receipts::Receipts,
    refusal::Refusal,
    send::{Acceptance, Sender},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Everything but what the gateway itself does is done as an administrator.
pub struct Place {
    pub pool: PgPool,
    pub operator: async_nats::Client,
    pub database: Database,
    pub nats: async_nats::Client,
    pub namespace: String,
    pub redis: Redis,
    pub inboxes: Inboxes,
    pub profiles: Profiles,
    pub quotas: Quotas,
    pub log: Log,
    pub tail: Tail,
    pub content: Content,
    pub sender: Sender,
    pub conversations: Conversations,
    pub businesses: Businesses,
    pub history: History,
    /// Has the texts of messages that `make_cold` moved.
    pub store: Store,
    pub tasks: Tasks,
}

pub fn users<const N: usize>() -> [UserId; N] {
    std::array::from_fn(|_| UserId::random())
}

impl Place {
    pub async fn new() -> Self {
        Self::on(&TestServers::from_env().unwrap().isolated().await.unwrap()).await
    }

    pub async fn on(urls: &Urls) -> Self {
        Box::pin(Self::with_profiles(urls, &ProfileSettings::none())).await
    }

    /// As `on`, with profiles from somewhere.
    pub async fn with_profiles(urls: &Urls, settings: &ProfileSettings) -> Self {
        Box::pin(Self::with(urls, settings, &quota_settings())).await
    }

    /// As `on`, with profiles from somewhere and these quotas.
    pub async fn with(urls: &Urls, settings: &ProfileSettings, quotas: &QuotaSettings) -> Self {
        let connect = |url: &str| postgres::connect(&PostgresSettings::new(url, 8), "test").unwrap();
        let own = urls.of(Login::Gateway);
        let (pool, own_pool) = (connect(&urls.postgres), connect(&own.postgres));
        let operator = log::connect(&urls.nats, "test", |_| {}).await.unwrap();
        let nats = log::connect(&own.nats, "test", |_| {}).await.unwrap();
        let namespace = unique_namespace();
        let replicas = Replicas { count: 1, bytes_max: 64 * 1024 * 1024 };
        let log = Log::open(&nats, &namespace, replicas).await.unwrap();
        let (clock, tasks) = (Clock::System, Tasks::default());
        let content = content(&pool, &own_pool, &tasks).await;
        let database = Database::new(own_pool);
        let redis = Redis::open(&own.redis, &namespace).unwrap();
        let inboxes = Inboxes::on(&redis);
        let surroundings = Surroundings {
            redis: redis.clone(),
            nats: nats.clone(),
            database: database.clone(),
            clock: clock.clone(),
            signer: settings.signer().unwrap(),
            tasks: tasks.clone(),
        };
        let profiles = Profiles::start(settings, surroundings).unwrap();
        let quotas = Quotas::start(quotas, redis.clone(), clock.clone(), &tasks);
        let tail = Tail::new(log.clone(), RateLimits::start(NonZeroU32::MIN, &tasks));
        let sender =
            Sender::new(tail.clone(), database.clone(), content.clone(), clock.clone(), quotas.clone(), &tasks);
        let conversations = Conversations::new(
            database.clone(),
            inboxes.clone(),
            sender.clone(),
            content.clone(),
            clock.clone(),
            profiles.clone(),
            Gateways::new(nats.clone(), namespace.clone(), inboxes.clone()),
        );
        let businesses = conversations.businesses(log.clone());
        let store = Store::in_memory();
        let place = Self {
            conversations,
            businesses,
            history: History::new(
                database.clone(),
                tail.clone(),
                content.clone(),
                ColdBodies::new(Some(store.clone())),
            ),
            store,
            pool,
            operator,
            database,
            nats,
            namespace,
            redis,
            inboxes,
            profiles,
            quotas,
            log,
            tail,
            content,
            sender,
            tasks,
        };
        place.make_partition(Clock::System.now().into()).await;
        place
    }

    /// Devices for notifications; their addresses may be of this machine.
    pub fn devices(&self) -> Devices {
        self.devices_with(master_key().into())
    }

    /// As `devices`, of a gateway with these master keys.
    pub fn devices_with(&self, master_keys: MasterKeys) -> Devices {
        let (database, inboxes) = (self.database.clone(), self.inboxes.clone());
        Devices::new(database, inboxes, Arc::new(master_keys), Clock::System, true)
    }

    /// The receipts of a gateway that has just started, and so knows of no message.
    pub fn receipts(&self) -> Arc<Receipts> {
        let receipts =
            Arc::new(Receipts::new(self.tail.clone(), self.sender.clone(), self.database.clone(), Clock::System));
        let (writing, stopping) = (Arc::clone(&receipts), self.tasks.draining().clone());
        self.tasks.lasting("read_receipts", async move {
            stopping.run_until_cancelled(writing.write_marks()).await;
        });
        receipts
    }

    /// The queue of notifications.
    pub async fn jobs(&self) -> Jobs {
        let replicas = Replicas { count: 1, bytes_max: 64 * 1024 * 1024 };
        Jobs::open(&self.nats, &self.namespace, replicas).await.unwrap()
    }

    pub async fn group(&self, owner: UserId, others: &[UserId]) -> Conversation {
        let request = CreateConversation::Group { user_ids: others.to_vec() };
        Box::pin(self.conversations.create(owner, &request)).await.unwrap().conversation
    }

    pub async fn direct(&self, creator: UserId, other: UserId) -> Conversation {
        let request = CreateConversation::Direct { user_id: other };
        Box::pin(self.conversations.create(creator, &request)).await.unwrap().conversation
    }

    pub async fn send(&self, from: UserId, conversation_id: ConversationId, text: &str) -> Result<Acceptance, Refusal> {
        let message_id = MessageId::random();
        let command =
            SendMessage { conversation_id, message_id, text: text.to_owned(), is_repeat: false, seen_seq: None };
        self.sender.send(from, command).await
    }

    /// Sends so many messages, whose texts are their numbers.
    pub async fn send_many(&self, from: UserId, conversation_id: ConversationId, count: u64) {
        for _ in 0..count {
            let next = self.log.newest(conversation_id).await.unwrap().unwrap().1.seq.next();
            assert_eq!(self.send(from, conversation_id, &next.0.to_string()).await.unwrap().seq, next);
        }
    }

    /// The numbers and texts of a page.
    pub async fn page(
        &self,
        user_id: UserId,
        conversation_id: ConversationId,
        place: PageOf,
        limit: usize,
    ) -> Result<(Vec<u64>, bool), Refusal> {
        let page = self.history.page(user_id, conversation_id, place, limit).await?;
        for message in &page.messages {
            assert_eq!(message.text, message.seq.0.to_string(), "the text that was sent under this number");
        }
        Ok((page.messages.iter().map(|message| message.seq.0).collect(), page.has_more))
    }

    /// Does the persister's work for one conversation: stores what the log has, but for some numbers that another
    /// persister has not committed yet.
    pub async fn store(&self, conversation_id: ConversationId, up_to: u64, holes: &[u64]) {
        for event in self.events(conversation_id).await {
            if event.seq.0 <= up_to && !holes.contains(&event.seq.0) {
                self.store_event(&event, event.sent_at.into()).await;
            }
        }
    }

    /// What the log has of a conversation, ascending.
    pub async fn events(&self, conversation_id: ConversationId) -> Vec<Event> {
        let (at, _) = self.log.newest(conversation_id).await.unwrap().unwrap();
        self.tail.read(UserId::random(), at, Seq::ZERO).await.unwrap()
    }

    /// Stores a message as if it had been sent at `sent_at`.
    pub async fn store_event(&self, event: &Event, sent_at: OffsetDateTime) {
        let mut connection = self.pool.acquire().await.unwrap();
        self.store_event_on(&mut connection, event, sent_at).await;
    }

    /// As `store_event`, on a connection that may hold locks.
    pub async fn store_event_on(&self, connection: &mut PgConnection, event: &Event, sent_at: OffsetDateTime) {
        let Fact::MessageSent(message) = &event.fact else { return };
        self.make_partition(sent_at).await;
        sqlx::query!(
            "insert into messages (conversation_id, seq, sent_at, message_id, sender_id, envelope)
             values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
            event.conversation_id.as_uuid(),
            event.seq.to_sql(),
            sent_at,
            message.message_id.as_uuid(),
            message.sender_id.as_uuid(),
            message.envelope.as_bytes()
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        sqlx::query!(
            "with head as (
                 update conversations
                 set last_seq = $2, last_message_id = $3, last_message_at = $4, last_activity_at = $4,
                     customer_seq = case customer_id when $5 then $2 else customer_seq end,
                     agent_seq = case when customer_id <> $5 then $2 else agent_seq end
                 where conversation_id = $1 and last_seq < $2
                 returning conversation_id, last_activity_at
             )
             update participants p set listed_at = head.last_activity_at
             from head where p.conversation_id = head.conversation_id",
            event.conversation_id.as_uuid(),
            event.seq.to_sql(),
            message.message_id.as_uuid(),
            sent_at,
            message.sender_id.as_uuid()
        )
        .execute(&mut *connection)
        .await
        .unwrap();
    }

    /// A message that only PostgreSQL has, because the log has aged it out. Its text is its number.
    pub async fn store_old(&self, from: UserId, conversation: &Conversation, seq: u64, sent_at: OffsetDateTime) {
        let conversation_id = conversation.conversation_id;
        let place = Sealed { conversation_id, message_id: MessageId::random(), sender_id: from };
        let envelope = self.content.seal(&place, &seq.to_string()).unwrap();
        let audience = chat_shared::sealing::AudienceTag::default();
        let (message_id, sender_id) = (place.message_id, from);
        let message =
            chat_shared::event::MessageSent { message_id, sender_id, envelope, seen_seq: Seq::ZERO, audience };
        let event = Event {
            conversation_id,
            kind: conversation.kind,
            seq: Seq(seq),
            sent_at: Timestamp::from(sent_at),
            previous: chat_shared::position::StreamSeq::ZERO,
            participants: chat_shared::event::Participants::default(),
            fact: Fact::MessageSent(message),
        };
        self.store_event(&event, sent_at).await;
    }

    /// Moves the texts of a day into a pack, as the cold worker does; the pack's name.
    pub async fn make_cold(&self, day: time::Date) -> String {
        let (first, mut draft) = (day.midnight().assume_utc(), Draft::default());
        let rows = sqlx::query!(
            r#"select conversation_id, seq, envelope as "envelope!" from messages
               where sent_at >= $1 and sent_at < $1 + interval '1 day' order by conversation_id, seq"#,
            first
        );
        for row in rows.fetch_all(&self.pool).await.unwrap() {
            draft.push(Key { conversation_id: row.conversation_id, seq: row.seq.unsigned_abs() }, row.envelope);
        }
        let (pack, object) = (draft.finish().unwrap(), format!("{day}.pack"));
        self.store.put_new(&object, pack.bytes.clone()).await.unwrap();
        sqlx::query!("insert into cold_days (day) values ($1)", day).execute(&self.pool).await.unwrap();
        sqlx::query!(
            "insert into cold_packs values ($1, 1, $2, $3, 1, '', $4, 1)",
            day,
            object,
            i64::try_from(pack.bytes.len()).unwrap(),
            pack.last.conversation_id
        )
        .execute(&self.pool)
        .await
        .unwrap();
        for chunk in &pack.chunks {
            sqlx::query!(
                "insert into cold_chunks values ($1, $2, $3, 1, $4, $5)",
                day,
                chunk.first.conversation_id,
                i64::try_from(chunk.first.seq).unwrap(),
                i32::try_from(chunk.place).unwrap(),
                i32::try_from(chunk.length).unwrap()
            )
            .execute(&self.pool)
            .await
            .unwrap();
        }
        sqlx::query!(
            "update messages m set envelope = null from conversations c
             where c.conversation_id = m.conversation_id and m.seq < c.last_seq
                 and sent_at >= $1 and sent_at < $1 + interval '1 day'",
            first
        )
        .execute(&self.pool)
        .await
        .unwrap();
        object
    }

    async fn make_partition(&self, at: OffsetDateTime) {
        sqlx::query!("select make_message_partition($1)", at.date()).fetch_one(&self.pool).await.unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tasks.draining().cancel();
    }
}

/// Quotas that no test but one about them uses up.
pub fn quota_settings() -> QuotaSettings {
    QuotaSettings {
        log_bytes_per_user_day_max: NonZeroU64::MAX,
        conversations_per_user_day_max: NonZeroU64::MAX,
        profile_ids_per_user_day_max: NonZeroU64::MAX,
    }
}

pub fn master_key() -> MasterKey {
    MasterKey::parse("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap()
}

/// Stores a content key.
pub async fn store_key(pool: &PgPool, key: &WrappedKey) {
    content_keys::store(&mut pool.acquire().await.unwrap(), [key].into_iter()).await.unwrap();
}

/// Content with a key for today.
async fn content(pool: &PgPool, own_pool: &PgPool, tasks: &Tasks) -> Content {
    let wrapped = master_key().generate(Clock::System.now().day()).unwrap();
    store_key(pool, &wrapped).await;
    let latch = Latch::default();
    let content = Content::start(own_pool.clone(), Arc::new(master_key().into()), Clock::System, latch.clone(), tasks);
    until("fetching the key", async || latch.is_set()).await;
    content
}

/// Waits for a condition.
pub async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let check = &check;
    wait::until(what, DEADLINE, || async move { Ok(check().await.then_some(())) }).await.unwrap();
}
