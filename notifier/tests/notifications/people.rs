//! Those whom it is about: users with devices, conversations that write to the log, gateways that listen.

use anyhow::{Context, Result, bail};
use async_nats::Subscriber;
use chat_dev::push_services::APP_IDS;
use chat_shared::{
    clock::{Clock, Day},
    delivery::{Delivery, all_gateways_subject, gateway_subject},
    event::{BusinessPart, Event, Fact, MessageSent, Participants, ParticipantsChanged, ReadAdvanced},
    ids::{BusinessId, ConversationId, DeviceId, GatewayId, MessageId, SessionId, UserId},
    inbox::{Ended, Registration, Session},
    jobs::{AssignedJob, Job, MessageJob},
    log::Appended,
    position::{Seq, StreamSeq},
    sealing::{AudienceTag, Envelope, Sealed},
    wire::{Case, CaseState, ConversationKind, NotificationAddress, Participant, Platform, Resume, Role},
};
use futures_util::{StreamExt, stream::select};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::stage::{DEADLINE, Stage};

/// A device that is registered for notifications.
pub struct Device {
    /// What the provider knows it by.
    pub token: String,
}

impl Stage {
    /// Registers a new device of a user, as a gateway does.
    pub async fn device(&self, user_id: UserId, platform: Platform, locale: Option<&str>) -> Result<Device> {
        let device_id = DeviceId::random();
        let (address, token) = self.address(platform)?;
        let address = serde_json::to_vec(&address)?;
        let key = self.master_key.addresses();
        sqlx::query!(
            "insert into notification_devices
             (user_id, device_id, platform, app_id, locale, address, fingerprint, registered_at)
             values ($1, $2, $3, $4, $5, $6, $7, now())",
            user_id.as_uuid(),
            device_id.as_uuid(),
            platform.as_str(),
            APP_IDS[0],
            locale,
            key.seal(user_id, device_id, &address)?,
            key.fingerprint(token.as_bytes()),
        )
        .execute(&self.pool)
        .await?;
        Ok(Device { token })
    }

    fn address(&self, platform: Platform) -> Result<(NotificationAddress, String)> {
        let token = format!("{0}{0}", Uuid::new_v4().simple());
        Ok(match platform {
            Platform::Fcm => (NotificationAddress::Fcm { token: token.clone() }, token),
            Platform::Apns => (NotificationAddress::Apns { token: token.clone() }, token),
            Platform::Webhook => (NotificationAddress::Webhook { token: token.clone() }, token),
            Platform::WebPush => {
                let subscription = self.services.subscribe()?;
                let (endpoint, p256dh, auth) = (subscription.endpoint, subscription.p256dh, subscription.auth);
                (NotificationAddress::WebPush { endpoint: endpoint.clone(), p256dh, auth }, endpoint)
            }
        })
    }

    /// Has one user block another.
    pub async fn block(&self, by: UserId, user_id: UserId) -> Result<()> {
        sqlx::query!(
            "insert into blocks (blocker_id, blocked_id, created_at) values ($1, $2, now())",
            by.as_uuid(),
            user_id.as_uuid(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many devices of a user are registered.
    pub async fn devices(&self, user_id: UserId) -> Result<i64> {
        let counting = sqlx::query_scalar!(
            r#"select count(*) as "count!" from notification_devices where user_id = $1"#,
            user_id.as_uuid()
        );
        Ok(counting.fetch_one(&self.pool).await?)
    }

    /// Lets a user's devices have been registered at another time.
    pub async fn registered_at(&self, user_id: UserId, at: OffsetDateTime) -> Result<()> {
        sqlx::query!("update notification_devices set registered_at = $2 where user_id = $1", user_id.as_uuid(), at)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Makes today's content key.
    pub async fn content_key(&self) -> Result<Day> {
        let day = Clock::System.now().day();
        let wrapped = self.master_key.generate(day)?;
        sqlx::query!(
            "insert into content_keys (day, master_key_id, wrapped, created_at) values ($1, $2, $3, now())",
            Date::from(day),
            wrapped.master_key_id,
            wrapped.bytes,
        )
        .execute(&self.pool)
        .await?;
        Ok(day)
    }

    async fn seal(&self, day: Day, place: &Sealed, text: &str) -> Result<Envelope> {
        let wrapped = sqlx::query!("select master_key_id, wrapped from content_keys where day = $1", Date::from(day))
            .fetch_one(&self.pool)
            .await?;
        let (master_key_id, bytes) = (wrapped.master_key_id, wrapped.wrapped);
        let key = self.master_key.unwrap(&chat_shared::sealing::WrappedKey { day, master_key_id, bytes })?;
        Ok(key.seal(place, text.as_bytes())?)
    }
}

/// A conversation that numbers its own events.
pub struct Conversation {
    pub id: ConversationId,
    kind: ConversationKind,
    participants: Participants,
    seq: u64,
    head: StreamSeq,
}

impl Conversation {
    /// A new group.
    pub async fn of(stage: &Stage, members: &[UserId]) -> Result<Self> {
        let id = ConversationId::random();
        sqlx::query!(
            "insert into conversations (conversation_id, kind, created_at, last_activity_at)
             values ($1, 'group', now(), now())",
            id.as_uuid()
        )
        .execute(&stage.pool)
        .await?;
        for user_id in members {
            sqlx::query!(
                "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', now())",
                id.as_uuid(),
                user_id.as_uuid(),
            )
            .execute(&stage.pool)
            .await?;
        }
        let list = members.iter().map(|user_id| Participant { user_id: *user_id, role: Role::Member }).collect();
        let participants = Participants { version: 1, list, ..Participants::default() };
        Ok(Self { id, kind: ConversationKind::Group, participants, seq: 0, head: StreamSeq::ZERO })
    }

    /// A new conversation of a customer with a business, whose case waits.
    pub async fn business(stage: &Stage, customer_id: UserId) -> Result<(Self, BusinessId)> {
        let business_id = BusinessId::random();
        Ok((Self::of_business(stage, business_id, customer_id).await?, business_id))
    }

    /// The same with a business that may be there already.
    pub async fn of_business(stage: &Stage, business_id: BusinessId, customer_id: UserId) -> Result<Self> {
        let id = ConversationId::random();
        sqlx::query!("insert into businesses (business_id) values ($1) on conflict do nothing", business_id.as_uuid())
            .execute(&stage.pool)
            .await?;
        sqlx::query!(
            "insert into conversations (conversation_id, kind, business_id, customer_id, created_at, last_activity_at)
             values ($1, 'business', $2, $3, now(), now())",
            id.as_uuid(),
            business_id.as_uuid(),
            customer_id.as_uuid(),
        )
        .execute(&stage.pool)
        .await?;
        let case = Case { number: 1, state: CaseState::Waiting, waiting_since: Clock::System.now() };
        let business = Some(BusinessPart { business_id, case, is_closed: false });
        let participants = Participants { version: 1, business, ..Participants::default() };
        let kind = ConversationKind::Business;
        let mut conversation = Self { id, kind, participants, seq: 0, head: StreamSeq::ZERO };
        conversation.join(stage, customer_id, Role::Customer).await?;
        Ok(conversation)
    }

    /// Assigns the case of a business conversation; what was written before is unread for the agent.
    pub async fn assign(&mut self, stage: &Stage, agent_id: UserId) -> Result<()> {
        self.join(stage, agent_id, Role::Agent).await?;
        self.participants.version += 1;
        let fact =
            ParticipantsChanged { added: vec![agent_id], removed: Vec::new(), returned: vec![agent_id], lsn: None };
        let event = self.event(Fact::ParticipantsChanged(fact));
        let Appended::At(head) = stage.log.append(&event, &Uuid::new_v4().to_string()).await? else {
            bail!("appended twice")
        };
        self.head = head;
        Ok(())
    }

    async fn join(&mut self, stage: &Stage, user_id: UserId, role: Role) -> Result<()> {
        sqlx::query!(
            "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, $3, now())",
            self.id.as_uuid(),
            user_id.as_uuid(),
            role.as_str(),
        )
        .execute(&stage.pool)
        .await?;
        self.participants.list.push(Participant { user_id, role });
        Ok(())
    }

    /// A new direct conversation.
    pub async fn direct(stage: &Stage, pair: [UserId; 2]) -> Result<Self> {
        let conversation = Self::of(stage, &pair).await?;
        sqlx::query!(
            "update conversations
             set kind = 'direct', direct_low = least($2::uuid, $3::uuid), direct_high = greatest($2::uuid, $3::uuid)
             where conversation_id = $1",
            conversation.id.as_uuid(),
            pair[0].as_uuid(),
            pair[1].as_uuid(),
        )
        .execute(&stage.pool)
        .await?;
        Ok(conversation)
    }

    /// Its next message, which can't be opened.
    pub async fn message(&mut self, stage: &Stage, sender_id: UserId) -> Result<MessageId> {
        let message_id = MessageId::random();
        self.append(stage, message_id, sender_id, Envelope::from_bytes(b"nonsense".to_vec())).await?;
        Ok(message_id)
    }

    /// Its next message, sealed with a day's key.
    pub async fn text(&mut self, stage: &Stage, sender_id: UserId, day: Day, text: &str) -> Result<MessageId> {
        let message_id = MessageId::random();
        let place = Sealed { conversation_id: self.id, message_id, sender_id };
        let envelope = stage.seal(day, &place, text).await?;
        self.append(stage, message_id, sender_id, envelope).await?;
        Ok(message_id)
    }

    async fn append(
        &mut self,
        stage: &Stage,
        message_id: MessageId,
        sender_id: UserId,
        envelope: Envelope,
    ) -> Result<()> {
        self.seq += 1;
        let event = self.event(Fact::MessageSent(MessageSent {
            message_id,
            sender_id,
            envelope,
            seen_seq: Seq::ZERO,
            audience: AudienceTag::default(),
        }));
        let Appended::At(head) = stage.log.append(&event, &message_id.as_uuid().to_string()).await? else {
            bail!("appended twice")
        };
        self.head = head;
        Ok(())
    }

    /// The receipt that a user has read everything, which is also stored.
    pub async fn read(&self, stage: &Stage, user_id: UserId) -> Result<()> {
        self.store_read(stage, user_id).await?;
        self.read_unstored(stage, user_id).await
    }

    /// The receipt that a user has read everything.
    pub async fn read_unstored(&self, stage: &Stage, user_id: UserId) -> Result<()> {
        let read = ReadAdvanced { user_id, message_id: MessageId::random(), read_seq: Seq(self.seq) };
        stage.log.append_facts(&[self.event(Fact::ReadAdvanced(read))]).await?;
        Ok(())
    }

    /// Stores that a user has read everything, and that all there is was sent.
    pub async fn store_read(&self, stage: &Stage, user_id: UserId) -> Result<()> {
        let (id, seq) = (self.id.as_uuid(), Seq(self.seq).to_sql());
        sqlx::query!("update conversations set last_seq = $2 where conversation_id = $1", id, seq)
            .execute(&stage.pool)
            .await?;
        sqlx::query!(
            "update participants set read_seq = $3 where conversation_id = $1 and user_id = $2",
            id,
            user_id.as_uuid(),
            seq,
        )
        .execute(&stage.pool)
        .await?;
        Ok(())
    }

    /// Mutes it for a user until then.
    pub async fn mute(&self, stage: &Stage, user_id: UserId, until: OffsetDateTime) -> Result<()> {
        sqlx::query!(
            "update participants set muted_until = $3 where conversation_id = $1 and user_id = $2",
            self.id.as_uuid(),
            user_id.as_uuid(),
            until,
        )
        .execute(&stage.pool)
        .await?;
        Ok(())
    }

    /// Removes a participant, for PostgreSQL only.
    pub async fn remove(&self, stage: &Stage, user_id: UserId) -> Result<()> {
        let (id, user_id) = (self.id.as_uuid(), user_id.as_uuid());
        sqlx::query!("delete from participants where conversation_id = $1 and user_id = $2", id, user_id)
            .execute(&stage.pool)
            .await?;
        Ok(())
    }

    /// The job to notify a user of its last message.
    pub fn job(&self, message_id: MessageId, user_id: UserId, sender_id: UserId) -> Job {
        Job::Message(MessageJob {
            user_id,
            conversation_id: self.id,
            message_id,
            seq: Seq(self.seq),
            sender_id,
            shown_sender_id: None,
            sent_at: Clock::System.now(),
            place: None,
            envelope: None,
        })
    }

    /// The job to notify an agent of the last assignment.
    pub fn assigned(&self, user_id: UserId, customer_id: UserId) -> Job {
        Job::Assigned(AssignedJob {
            user_id,
            conversation_id: self.id,
            version: self.participants.version,
            seq: Seq(self.seq),
            customer_id,
            sent_at: Clock::System.now(),
            place: None,
        })
    }

    fn event(&self, fact: Fact) -> Event {
        Event {
            conversation_id: self.id,
            kind: self.kind,
            seq: Seq(self.seq),
            sent_at: Clock::System.now(),
            previous: self.head,
            participants: self.participants.clone(),
            fact,
        }
    }
}

/// A gateway that holds sessions, and only listens.
pub struct Gateway {
    pub gateway_id: GatewayId,
    deliveries: futures_util::stream::Select<Subscriber, Subscriber>,
}

/// A session of a user.
#[derive(Clone, Copy)]
pub struct Held {
    pub user_id: UserId,
    pub session: Session,
}

impl Gateway {
    /// One whose lease holds for now.
    pub async fn open(stage: &Stage) -> Result<Self> {
        let gateway_id = GatewayId::random();
        let own = stage.client.subscribe(gateway_subject(&stage.namespace, gateway_id)).await?;
        let all = stage.client.subscribe(all_gateways_subject(&stage.namespace)).await?;
        stage.client.flush().await?;
        stage.inboxes.renew_lease(gateway_id).await?;
        Ok(Self { gateway_id, deliveries: select(own, all) })
    }

    /// Connects a user, with a new device or one that was connected before.
    pub async fn connect(
        &self,
        stage: &Stage,
        user_id: UserId,
        resume: Option<(DeviceId, Resume)>,
    ) -> Result<(Held, Registration)> {
        let device_id = resume.map_or_else(DeviceId::random, |(device_id, _)| device_id);
        let session = Session { session_id: SessionId::random(), gateway_id: self.gateway_id, device_id };
        stage.inboxes.attach(self.gateway_id, user_id).await?;
        let registration = stage.inboxes.register(user_id, session, resume.map(|(_, resume)| resume)).await?;
        Ok((Held { user_id, session }, registration))
    }

    /// Ends a session as a gateway does, and says in a job what is unconfirmed.
    pub async fn end(&self, stage: &Stage, held: Held) -> Result<()> {
        let departure = stage.inboxes.unregister(held.user_id, Ended::Session(held.session.session_id)).await?;
        if let Some(unconfirmed) = departure.unconfirmed {
            stage.jobs.add(&[Job::session_ended(held.user_id, unconfirmed)]).await?;
        }
        stage.inboxes.detach(self.gateway_id, &[held.user_id]).await?;
        Ok(())
    }

    /// The next delivery that `wanted` makes something of.
    pub async fn next<T>(&mut self, wanted: impl Fn(Delivery) -> Option<T>) -> Result<T> {
        let next = async {
            while let Some(message) = self.deliveries.next().await {
                if let Some(found) = wanted(Delivery::decode(&message.payload)?) {
                    return Ok(found);
                }
            }
            bail!("the subscription ended")
        };
        tokio::time::timeout(DEADLINE, next).await.context("nothing was delivered")?
    }

    /// Waits for the next numbered event.
    pub async fn numbered(&mut self) -> Result<()> {
        self.next(|delivery| matches!(delivery, Delivery::Numbered(_)).then_some(())).await
    }
}
