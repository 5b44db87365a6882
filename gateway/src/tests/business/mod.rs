//! Businesses: cases and their agents, on real servers.
#![expect(clippy::large_futures, reason = "each test awaits whole transactions, once")]

mod access;
mod cases;
mod compare;
mod leases;
mod race;
mod unattended;
mod watch;

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{Conversation, ResolveCase, SetStatus, StaffStatus},
};
use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::place::{Place, until, users};
use crate::{
    business::{Businesses, StaffList},
    refusal::Refusal,
    send::Acceptance,
};

/// A business with its staff.
pub struct Shop {
    pub place: Place,
    pub business_id: BusinessId,
    pub agents: Vec<UserId>,
    pub supervisor: UserId,
    pub admin: UserId,
}

impl Shop {
    /// With so many agents, none of them available yet. All staff have a device, so are reachable.
    pub async fn new(agents: usize) -> Self {
        Self::on(Box::pin(Place::new()).await, agents).await
    }

    pub async fn on(place: Place, agents: usize) -> Self {
        let [supervisor, admin] = users();
        let agents: Vec<_> = std::iter::repeat_with(UserId::random).take(agents).collect();
        let shop = Self { place, business_id: BusinessId::random(), agents, supervisor, admin };
        shop.set_staff(1, &shop.agents).await.unwrap();
        for user_id in shop.agents.iter().chain([&supervisor, &admin]) {
            shop.give_device(*user_id).await;
        }
        shop
    }

    pub fn businesses(&self) -> &Businesses {
        &self.place.businesses
    }

    /// Pushes a staff list with these agents, the supervisor and the admin.
    pub async fn set_staff(&self, version: u64, agents: &[UserId]) -> Result<(), Refusal> {
        let member = |user_id: &UserId, role: &str| json!({ "user_id": user_id.as_uuid(), "role": role });
        let mut staff: Vec<_> = agents.iter().map(|agent| member(agent, "agent")).collect();
        staff.extend([member(&self.supervisor, "supervisor"), member(&self.admin, "admin")]);
        let list: StaffList = serde_json::from_value(json!({ "version": version, "staff": staff })).unwrap();
        self.businesses().set_staff(self.business_id, &list).await
    }

    pub async fn give_device(&self, user_id: UserId) {
        sqlx::query!(
            "insert into notification_devices (user_id, device_id, platform, app_id, address, fingerprint, registered_at)
             values ($1, gen_random_uuid(), 'fcm', 'app', '', $2, now())",
            user_id.as_uuid(),
            user_id.as_uuid().as_bytes().to_vec()
        )
        .execute(&self.place.pool)
        .await
        .unwrap();
    }

    pub async fn take_devices(&self) {
        self.sql("delete from notification_devices").await;
    }

    pub async fn set_status(&self, agent: UserId, status: StaffStatus) -> Result<(), Refusal> {
        let request = SetStatus { status, until: None, gives_back: false };
        self.businesses().set_status(agent, self.business_id, request).await
    }

    pub async fn available(&self, agents: &[UserId]) {
        for agent in agents {
            self.set_status(*agent, StaffStatus::Available).await.unwrap();
        }
    }

    /// The customer's conversation; made if it is new.
    pub async fn converse(&self, customer: UserId) -> Result<Conversation, Refusal> {
        let converse = self.businesses().converse(&self.place.quotas, customer, self.business_id);
        Box::pin(converse).await.map(|created| created.conversation)
    }

    /// Lets the router look, as a wake or the sweep does.
    pub async fn route(&self) {
        self.businesses().route(self.business_id, &[]).await.unwrap();
    }

    /// A sweep, as if the one before had just been; again while PostgreSQL does not answer in time.
    pub async fn sweep(&self) {
        self.sql("update case_sweeps set swept_at = now()").await;
        self.sweep_only().await;
    }

    /// A sweep, however long ago the one before was. A notifier runs.
    pub async fn sweep_only(&self) {
        self.businesses().note_notifier();
        let jobs = self.place.jobs().await;
        until("a sweep", async || self.businesses().sweep(&jobs, true).await.is_ok()).await;
    }

    /// Sends, and lets the router know as the gateway that accepts does. What is accepted is not stored.
    pub async fn write(&self, from: UserId, id: ConversationId) -> Result<Acceptance, Refusal> {
        let sent = self.place.send(from, id, "text").await?;
        if let Some(business_id) = sent.opens_case {
            self.businesses().route(business_id, &[(id, sent.seq)]).await?;
        }
        Ok(sent)
    }

    /// Stores everything that was accepted.
    pub async fn store(&self, id: ConversationId) {
        self.place.store(id, u64::MAX, &[]).await;
    }

    pub async fn resolve(&self, by: UserId, id: ConversationId, seq: u64) -> Result<(), Refusal> {
        self.businesses().resolve(by, id, ResolveCase { seq: Seq(seq) }).await
    }

    /// The state of the case, its number and its agent.
    pub async fn case(&self, id: ConversationId) -> (String, i32, Option<UserId>) {
        let row =
            sqlx::query!("select state, case_number, agent_id from cases where conversation_id = $1", id.as_uuid());
        let row = row.fetch_one(&self.place.pool).await.unwrap();
        (row.state, row.case_number, row.agent_id.map(|id| id.try_into().unwrap()))
    }

    /// The conversations with messages of customers after what was resolved, whose cases are resolved.
    pub async fn reopened(&self) -> Vec<Uuid> {
        let found = sqlx::query_scalar!(
            "select conversation_id from conversations join cases using (conversation_id)
             where customer_seq > resolved_seq and state = 'resolved'"
        );
        found.fetch_all(&self.place.pool).await.unwrap()
    }

    pub async fn version(&self, id: ConversationId) -> u64 {
        let version = sqlx::query_scalar!("select version from conversations where conversation_id = $1", id.as_uuid());
        version.fetch_one(&self.place.pool).await.unwrap().unsigned_abs()
    }

    /// The users that the log shows as participants.
    pub async fn participants(&self, id: ConversationId) -> Vec<UserId> {
        let (_, event) = self.place.log.newest(id).await.unwrap().unwrap();
        event.participants.list.iter().map(|participant| participant.user_id).collect()
    }

    /// As an administrator.
    pub async fn sql(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&self.place.pool).await.unwrap();
    }

    /// Lets time pass for a case: all that happened was so many seconds earlier, and the sweep looks now.
    pub async fn pass(&self, id: ConversationId, seconds: i32) {
        let id = id.as_uuid();
        self.sql(&format!(
            "select make_message_partition(current_date - 1);
             update messages set sent_at = sent_at - interval '{seconds} s' where conversation_id = '{id}';
             update conversations set last_message_at = last_message_at - interval '{seconds} s'
             where conversation_id = '{id}';
             update cases set assigned_at = assigned_at - interval '{seconds} s',
                 accepted_at = accepted_at - interval '{seconds} s',
                 clock_from = clock_from - interval '{seconds} s', due_at = now()
             where conversation_id = '{id}'"
        ))
        .await;
    }
}

fn key(id: ConversationId) -> Uuid {
    id.as_uuid()
}
