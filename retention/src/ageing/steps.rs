//! The statements: one function of the database for each step, which decides by itself whether the step is due.

use sqlx::PgPool;
use time::Date;

/// States of a day in `message_days`.
const STATES: [&str; 5] = ["hot", "deleting", "deleted", "retiring", "gone"];

/// A step of a day, in the order in which they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Messages that are added to the day from now on are deleted.
    Begin,
    /// A batch of conversations shows and counts nothing of the day any more.
    RaiseFloors,
    /// Every row gets its `deleted_at`.
    SoftDelete,
    /// The content key goes.
    DestroyKey,
    /// The key's bytes go from the table's file.
    RewriteKeys,
    /// The partition leaves the table.
    Detach,
    /// The rows go.
    Drop,
    /// A batch of ledgers' rows that are as old goes.
    Forget,
}

impl Step {
    /// Whether it makes others wait while it is done, and gives up soon if it has to wait for them.
    pub const fn takes_lock(self) -> bool {
        matches!(self, Self::Begin | Self::SoftDelete | Self::RewriteKeys | Self::Detach | Self::Drop)
    }

    /// Whether reading and writing messages waits meanwhile, of whatever day.
    pub const fn locks_all_days(self) -> bool {
        matches!(self, Self::SoftDelete | Self::Detach)
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "begin_day_deletion" => Self::Begin,
            "raise_day_floors" => Self::RaiseFloors,
            "soft_delete_day" => Self::SoftDelete,
            "destroy_day_key" => Self::DestroyKey,
            "rewrite_content_keys" => Self::RewriteKeys,
            "detach_day" => Self::Detach,
            "drop_day" => Self::Drop,
            "forget_day" => Self::Forget,
            _ => return None,
        })
    }
}

/// The days that have a partition, or had one.
#[derive(Debug)]
pub struct Days {
    /// How many are in each state.
    pub counts: Vec<(&'static str, i64)>,
    /// Days since the oldest of which something is left.
    pub oldest_age: i32,
}

/// Faults of the partitions, each with its remedy.
pub async fn faults(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(r#"select fault as "fault!" from message_partition_faults() as fault order by fault"#)
        .fetch_all(pool)
        .await
}

/// Gives each partition its row in `message_days`.
pub async fn record_days(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query!("select record_message_days()").fetch_one(pool).await?;
    Ok(())
}

/// The days that have a step which is due, the oldest first.
pub async fn due_days(pool: &PgPool) -> sqlx::Result<Vec<Date>> {
    sqlx::query_scalar!(r#"select day as "day!" from due_day_steps()"#).fetch_all(pool).await
}

/// The step of a day which is due now. A step that a later version has added is left to it.
pub async fn next(pool: &PgPool, day: Date) -> sqlx::Result<Option<Step>> {
    let name = sqlx::query_scalar!(r#"select step as "step!" from due_day_steps() where day = $1"#, day)
        .fetch_optional(pool)
        .await?;
    Ok(name.and_then(|name| Step::named(&name)))
}

/// Does a step, or a batch of it; how many conversations, keys or rows it changed. None if another instance is at the
/// day, the step was done before, or it can't be done as long as some transaction runs. A batch is of `batch_max`
/// conversations, or rows of each ledger.
pub async fn perform(pool: &PgPool, day: Date, step: Step, batch_max: i32) -> sqlx::Result<Option<i64>> {
    match step {
        Step::Begin => sqlx::query_scalar!("select begin_day_deletion($1)", day).fetch_one(pool).await,
        Step::RaiseFloors => {
            sqlx::query_scalar!("select raise_day_floors($1, $2)", day, batch_max).fetch_one(pool).await
        }
        Step::SoftDelete => sqlx::query_scalar!("select soft_delete_day($1)", day).fetch_one(pool).await,
        Step::DestroyKey => sqlx::query_scalar!("select destroy_day_key($1)", day).fetch_one(pool).await,
        Step::RewriteKeys => sqlx::query_scalar!("select rewrite_content_keys($1)", day).fetch_one(pool).await,
        Step::Detach => sqlx::query_scalar!("select detach_day($1)", day).fetch_one(pool).await,
        Step::Drop => sqlx::query_scalar!("select drop_day($1)", day).fetch_one(pool).await,
        Step::Forget => sqlx::query_scalar!("select forget_day($1, $2)", day, batch_max).fetch_one(pool).await,
    }
}

/// How many days are in which state, and how old the oldest is.
pub async fn days(pool: &PgPool) -> sqlx::Result<Days> {
    let rows = sqlx::query!(
        r#"select state, count(*) as "count!", (now() at time zone 'UTC')::date - min(day) as "age!"
           from message_days group by state"#
    )
    .fetch_all(pool)
    .await?;
    let count = |state| rows.iter().find(|row| row.state == state).map_or(0, |row| row.count);
    Ok(Days {
        counts: STATES.map(|state| (state, count(state))).to_vec(),
        oldest_age: rows.iter().filter(|row| row.state != "gone").map(|row| row.age).max().unwrap_or(0).max(0),
    })
}
