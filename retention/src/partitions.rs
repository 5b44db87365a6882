//! The partitions of `messages`: one a day, made before the day begins.

use chat_shared::clock::Day;
use sqlx::PgPool;
use time::Date;

/// Makes the missing partitions of `days`; how many were missing.
pub async fn make(pool: &PgPool, days: impl Iterator<Item = Day>) -> sqlx::Result<usize> {
    let mut made = 0;
    for day in days {
        // One transaction each, so that nobody waits long for the lock on the table's shape.
        let is_new = sqlx::query_scalar!(r#"select make_message_partition($1) as "is_new!""#, Date::from(day))
            .fetch_one(pool)
            .await?;
        made += usize::from(is_new);
    }
    Ok(made)
}
