//! What PostgreSQL knows of those who may have to be notified. The only room of the notifier that speaks to it.

use std::time::{Duration, Instant};

use chat_shared::{
    breaker::{Breaker, Rules},
    clock::{Day, Timestamp},
    ids::{BusinessId, DeviceId, UserId},
    jobs::ReadUpTo,
    limits,
    position::Seq,
    postgres,
    sealing::WrappedKey,
};
use sqlx::PgPool;
use time::{Date, OffsetDateTime};
use tokio::time::timeout;

use super::{
    decide::{Membership, Queue},
    subject::Subject,
};

/// When PostgreSQL is left alone, and for how long.
const RULES: Rules = Rules { failures_max: 3, rest_min: Duration::from_secs(1), rest_max: Duration::from_secs(8) };
/// Between two looks whether PostgreSQL can be used.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The tables.
pub struct Facts {
    pool: PgPool,
    breaker: Breaker,
}

/// PostgreSQL can't be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL is out of reach")]
pub struct OutOfReach {
    /// How long nobody asks it.
    pub rest: Duration,
}

/// What a message or an assignment is to a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concern {
    /// How they see the conversation.
    pub membership: Membership,
    /// Their unread messages, those up to the subject counted, over [`limits::UNREAD_CONVERSATIONS_MAX`] other conversations at most.
    pub badge: u64,
}

/// A device as it is registered.
pub struct StoredDevice {
    /// Which.
    pub device_id: DeviceId,
    /// Its app.
    pub app_id: String,
    /// Its language.
    pub locale: Option<String>,
    /// Its address, sealed.
    pub address: Vec<u8>,
    /// The address' fingerprint.
    pub fingerprint: Vec<u8>,
}

impl Facts {
    /// Behind this pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, breaker: Breaker::new(RULES) }
    }

    /// Waits until PostgreSQL is there and has the schema that is expected.
    pub async fn wait_until_fit(&self) {
        let mut told = String::new();
        while let Err(error) = postgres::check(&self.pool).await {
            let error = error.to_string();
            if error != told {
                tracing::warn!(error, "notifications wait for PostgreSQL; live delivery goes on");
                told = error;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// What the subject is to its user; none if they don't take part.
    pub async fn concern(&self, subject: &Subject, now: Timestamp) -> Result<Option<Concern>, OutOfReach> {
        let asking = sqlx::query!(
            r#"select greatest(me.read_seq, here.floor_seq) as "read_seq!",
                   coalesce(me.muted_until > $4, false) as "is_muted!", here.last_seq >= $3 as "is_stored!",
                   exists (
                       select from blocks
                       where (blocker_id, blocked_id) in
                           ((here.direct_low, here.direct_high), (here.direct_high, here.direct_low))
                   ) as "is_blocked!",
                   unread_count(greatest(here.last_seq, $3), here.floor_seq, me.read_seq, me.own_runs) + (
                       select coalesce(sum(unread_count(c.last_seq, c.floor_seq, p.read_seq, p.own_runs)), 0)::bigint
                       from (
                           select conversation_id, read_seq, own_runs from participants
                           where user_id = $1 and conversation_id <> $2
                           order by listed_at desc
                           limit $5
                       ) p
                       join conversations c using (conversation_id)
                   ) as "badge!"
               from participants me join conversations here using (conversation_id)
               where me.conversation_id = $2 and me.user_id = $1"#,
            subject.user_id.as_uuid(),
            subject.conversation_id.as_uuid(),
            subject.seq.to_sql(),
            OffsetDateTime::from(now),
            limits::UNREAD_CONVERSATIONS_MAX,
        )
        .fetch_optional(&self.pool);
        let row = self.ask(asking).await?;
        Ok(row.map(|row| Concern {
            membership: Membership {
                read_seq: Seq::from_sql(row.read_seq),
                is_muted: row.is_muted,
                is_blocked: row.is_blocked,
                is_stored: row.is_stored,
            },
            badge: row.badge.unsigned_abs(),
        }))
    }

    /// The user's unread messages, over the [`limits::UNREAD_CONVERSATIONS_MAX`] conversations with the latest activity. What
    /// is known to be `read` may not be stored yet.
    pub async fn badge(&self, user_id: UserId, read: &[ReadUpTo]) -> Result<u64, OutOfReach> {
        let (conversations, numbers): (Vec<_>, Vec<_>) =
            read.iter().map(|read| (read.conversation_id.as_uuid(), read.read_seq.to_sql())).unzip();
        let asking = sqlx::query_scalar!(
            r#"select coalesce(sum(
                   unread_count(c.last_seq, c.floor_seq, greatest(p.read_seq, known.read_seq), p.own_runs)
               ), 0)::bigint as "badge!"
               from (
                   select conversation_id, read_seq, own_runs from participants where user_id = $1
                   order by listed_at desc
                   limit $2
               ) p
               join conversations c using (conversation_id)
               left join unnest($3::uuid[], $4::bigint[]) as known (conversation_id, read_seq) using (conversation_id)"#,
            user_id.as_uuid(),
            limits::UNREAD_CONVERSATIONS_MAX,
            &conversations,
            &numbers,
        )
        .fetch_one(&self.pool);
        Ok(self.ask(asking).await?.unsigned_abs())
    }

    /// What waits in a business, without a case of the user as a customer; none if the user is neither supervisor nor admin of
    /// it. The clock is that of PostgreSQL.
    pub async fn queue(&self, user_id: UserId, business_id: BusinessId) -> Result<Option<Queue>, OutOfReach> {
        let asking = sqlx::query!(
            r#"select count(k.customer_id) as "waiting!",
                   coalesce(min(k.waiting_since) < clock_timestamp() - make_interval(secs => $3), false) as "is_late!"
               from staff s
               left join cases k on k.business_id = s.business_id and k.state = 'waiting' and k.customer_id <> s.user_id
               where s.business_id = $1 and s.user_id = $2 and s.role in ('supervisor', 'admin')
               group by s.user_id"#,
            business_id.as_uuid(),
            user_id.as_uuid(),
            limits::WAITING_NOTIFIED_AFTER.as_secs_f64(),
        )
        .fetch_optional(&self.pool);
        let row = self.ask(asking).await?;
        Ok(row.map(|row| Queue { waiting: row.waiting.unsigned_abs(), is_late: row.is_late }))
    }

    /// The user's devices.
    pub async fn devices(&self, user_id: UserId) -> Result<Vec<StoredDevice>, OutOfReach> {
        let asking = sqlx::query!(
            "select device_id, app_id, locale, address, fingerprint from notification_devices
             where user_id = $1 order by registered_at desc limit $2",
            user_id.as_uuid(),
            i64::try_from(limits::NOTIFICATION_DEVICES_MAX).unwrap_or(i64::MAX),
        )
        .fetch_all(&self.pool);
        let rows = self.ask(asking).await?;
        let devices = rows.into_iter().filter_map(|row| {
            Some(StoredDevice {
                device_id: row.device_id.try_into().ok()?,
                app_id: row.app_id,
                locale: row.locale,
                address: row.address,
                fingerprint: row.fingerprint,
            })
        });
        Ok(devices.collect())
    }

    /// Removes a device, unless it has registered another address meanwhile, or the same one after `gone_since`.
    pub async fn remove(
        &self,
        user_id: UserId,
        device: &StoredDevice,
        gone_since: Option<Timestamp>,
    ) -> Result<(), OutOfReach> {
        let removing = sqlx::query!(
            "delete from notification_devices
             where user_id = $1 and device_id = $2 and fingerprint = $3 and ($4::timestamptz is null or registered_at < $4)",
            user_id.as_uuid(),
            device.device_id.as_uuid(),
            device.fingerprint,
            gone_since.map(OffsetDateTime::from),
        )
        .execute(&self.pool);
        self.ask(removing).await?;
        Ok(())
    }

    /// The content key of a day; none if it was destroyed.
    pub async fn content_key(&self, day: Day) -> Result<Option<WrappedKey>, OutOfReach> {
        let asking = sqlx::query!("select master_key_id, wrapped from content_keys where day = $1", Date::from(day))
            .fetch_optional(&self.pool);
        let row = self.ask(asking).await?;
        Ok(row.map(|row| WrappedKey { day, master_key_id: row.master_key_id, bytes: row.wrapped }))
    }

    async fn ask<T>(&self, statement: impl Future<Output = sqlx::Result<T>>) -> Result<T, OutOfReach> {
        let asked_at = Instant::now();
        if !self.breaker.permits(asked_at) {
            return Err(OutOfReach { rest: self.breaker.rest(asked_at) });
        }
        let answer = timeout(limits::STATEMENT_WAIT_MAX, statement).await;
        let now = Instant::now();
        let error = match answer {
            Ok(Ok(answer)) => {
                if self.breaker.close(now) {
                    tracing::info!("PostgreSQL answers again");
                }
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it didn't answer in time".to_owned(),
        };
        if self.breaker.fail(asked_at, now) {
            tracing::warn!(error, "notifications wait for PostgreSQL; live delivery goes on");
        }
        Err(OutOfReach { rest: self.breaker.rest(now) })
    }
}
