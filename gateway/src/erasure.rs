//! Erasure of a user: here ends what the account has. The texts of the user's messages are removed by retention and the cold
//! worker.
//!
//! **Invariant:** the request is stored before anything ends, and each step takes what it finds, so that a repeat goes on
//! where a request or its gateway ended.

use std::time::{Duration, Instant};

use chat_shared::{clock::Timestamp, ids::UserId, wire::ErrorCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{database::statement, refusal::Refusal, state::AppState};

/// How long one request works. Then it is refused, and its repeat goes on.
const WORK_MAX: Duration = Duration::from_secs(10);
/// Rows of one statement.
const PAGE: i64 = 100;

/// How far an erasure is. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Erasure {
    /// The user.
    pub user_id: UserId,
    /// When it was requested first.
    pub requested_at: Timestamp,
    /// When logins, devices, blocks, groups and open cases had ended. Messages up to then are erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_erased_at: Option<Timestamp>,
    /// Of messages that PostgreSQL had by then, none has its text there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swept_at: Option<Timestamp>,
    /// Texts that are left in packs of the object store.
    pub texts_in_packs: u64,
    /// When no text was left, and the log could bring none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
}

/// What is left of the time of a request.
#[derive(Debug, Clone, Copy)]
struct WorkTime {
    ends_at: Instant,
}

impl WorkTime {
    /// Refuses to go on when the time is over.
    fn check(self) -> Result<(), Refusal> {
        if Instant::now() < self.ends_at { Ok(()) } else { Err(Refusal::unfinished_erasure()) }
    }
}

/// Requests the erasure of a user and ends what the account has, as far as the time of a request allows.
pub async fn request(state: &AppState, user_id: UserId) -> Result<Erasure, Refusal> {
    request_within(state, user_id, WORK_MAX).await
}

/// As `request`, in so much time. At least one block, group or case ends.
pub async fn request_within(state: &AppState, user_id: UserId, work_max: Duration) -> Result<Erasure, Refusal> {
    let time = WorkTime { ends_at: Instant::now() + work_max };
    let mut connection = state.database.connection().await?;
    let requesting = sqlx::query!("select request_erasure($1)", user_id.as_uuid());
    statement(requesting.fetch_one(&mut *connection)).await?;
    drop(connection);
    let erasure = find(state, user_id).await?;
    if erasure.account_erased_at.is_some() {
        return Ok(erasure);
    }
    end_account(state, user_id, time).await?;
    let mut connection = state.database.connection().await?;
    let finishing = sqlx::query!("select finish_account_erasure($1)", user_id.as_uuid());
    statement(finishing.fetch_one(&mut *connection)).await?;
    drop(connection);
    find(state, user_id).await
}

/// How far the erasure of a user is.
pub async fn find(state: &AppState, user_id: UserId) -> Result<Erasure, Refusal> {
    let mut connection = state.database.connection().await?;
    let finding = sqlx::query!(
        r#"select requested_at, account_erased_at, swept_at, erased_at,
               (select count(*) from cold_erasures c where c.user_id = e.user_id) as "texts_in_packs!"
           from erasures e where user_id = $1"#,
        user_id.as_uuid()
    );
    let found = statement(finding.fetch_optional(&mut *connection)).await?.ok_or_else(Refusal::no_such_erasure)?;
    Ok(Erasure {
        user_id,
        requested_at: found.requested_at.into(),
        account_erased_at: found.account_erased_at.map(Timestamp::from),
        swept_at: found.swept_at.map(Timestamp::from),
        texts_in_packs: found.texts_in_packs.unsigned_abs(),
        erased_at: found.erased_at.map(Timestamp::from),
    })
}

async fn end_account(state: &AppState, user_id: UserId, time: WorkTime) -> Result<(), Refusal> {
    state.revocations.revoke(state, user_id, None).await?;
    state.profiles.changed(&[user_id], &[]).await?;
    loop {
        let blocks = state.conversations.blocks_with(user_id, PAGE).await?;
        if blocks.is_empty() {
            break;
        }
        for [blocker_id, blocked_id] in blocks {
            state.conversations.unblock(blocker_id, blocked_id).await?;
            time.check()?;
        }
    }
    loop {
        let groups = state.conversations.groups_of(user_id, PAGE).await?;
        if groups.is_empty() {
            break;
        }
        for conversation_id in groups {
            match state.conversations.remove(user_id, conversation_id, user_id).await {
                // The owner was faster.
                Err(refusal) if refusal.code == ErrorCode::NotFound => {}
                left => left?,
            }
            time.check()?;
        }
    }
    loop {
        let cases = state.businesses.open_cases_of(user_id, PAGE).await?;
        if cases.is_empty() {
            break;
        }
        for (business_id, conversation_id) in cases {
            state.businesses.resolve_for_customer(business_id, conversation_id).await?;
            time.check()?;
        }
    }
    while state.conversations.forget_memberships(user_id, PAGE).await? > 0 {
        time.check()?;
    }
    let forgotten = state.inboxes.forget(user_id).await;
    forgotten.map_err(|error| Refusal::unavailable("Redis", &error))
}
