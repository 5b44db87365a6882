//! Forgets entries that neither PostgreSQL nor the log has any more, so that nothing reports them.

use anyhow::bail;
use chat_shared::command_line::say;
use sqlx::PgPool;

use crate::gaps;

/// Forgets them if `is_confirmed`, else only tells what that means.
pub async fn accept_loss(pool: &PgPool, stream_name: &str, is_confirmed: bool) -> anyhow::Result<()> {
    let lost = gaps::lost(pool, stream_name).await?;
    if lost.is_empty() {
        say(format_args!("nothing of the log {stream_name} is known to be lost"));
        return Ok(());
    }
    for (first, last) in &lost {
        say(format_args!("entries {} to {} of the log {stream_name} are lost", first.0, last.0));
    }
    if !is_confirmed {
        bail!(
            "messages, read marks and conversations among them are in no store. A younger backup of PostgreSQL may have \
             them: restore that instead if you can; otherwise repeat the command with --yes"
        );
    }
    gaps::forget_lost(pool, stream_name).await?;
    say(format_args!("the loss is accepted, and reported no more"));
    Ok(())
}
