//! Forgets how far the log was stored, so that a log that was lost or recreated is accepted.

use anyhow::bail;
use chat_shared::command_line::say;

use crate::store::Store;

/// Forgets it if `is_confirmed`, else only tells what that means.
pub async fn forget_log(store: &Store, stream_name: &str, is_confirmed: bool) -> anyhow::Result<()> {
    let Some(stored) = store.checkpoint(stream_name).await? else {
        say(format_args!("nothing is known about the log {stream_name}, so any log is accepted"));
        return Ok(());
    };
    if !is_confirmed {
        bail!(
            "PostgreSQL has stored the log {stream_name} up to position {stored}. Forgetting this makes the services accept \
             whatever log there is. What had been accepted but not stored stays lost, and its numbers are given to new \
             messages: clients that saw the lost ones must reload. Restore the stream instead if you can; otherwise stop \
             all gateways and persisters, and repeat the command with --yes",
            stored = stored.0,
        );
    }
    store.forget_checkpoint(stream_name).await?;
    say(format_args!("position {} of the log {stream_name} is forgotten; the services can be started", stored.0));
    Ok(())
}
