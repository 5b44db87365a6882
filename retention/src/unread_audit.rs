//! Looks whether what lists show as unread is what is unread, some conversations a minute, all of them in turn.
//!
//! Lists subtract numbers; the audit counts rows. A difference counts only if it is still there a little later, because
//! persisters may commit out of order.

mod compare;

use std::{collections::BTreeSet, time::Duration};

use chat_shared::{clock::Clock, ids::ConversationId, mask::Masked};
use metrics::{counter, gauge};
use sqlx::{PgPool, types::Uuid};
use tokio_util::sync::CancellationToken;

use crate::metrics::{UNREAD_AUDITED_TOTAL, UNREAD_DRIFT};

pub use compare::Place;

const INTERVAL: Duration = Duration::from_mins(1);
/// Between the two looks. Entries in the hands of a persister that died are stored by another one within 15 seconds.
const SECOND_LOOK_DELAY: Duration = Duration::from_secs(20);
/// Conversations of one pass.
const CONVERSATIONS_MAX: i64 = 500;
/// Participants that are known to drift. More are not looked for again before their turn comes; the metric stays there.
const DRIFTING_MAX: usize = 1000;
/// Lines of log about the participants of one pass.
const LINES_MAX: usize = 5;

/// Compares lists with messages, for as long as it runs.
#[derive(Debug)]
pub struct UnreadAudit {
    pool: PgPool,
    clock: Clock,
    conversations_max: i64,
    /// The last conversation of the pass before.
    after: Uuid,
    /// Who was found to drift and has not been found right since.
    drifting: BTreeSet<Place>,
}

impl UnreadAudit {
    /// Begins anywhere among the conversations, so that instances that restart don't look at the same ones only.
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        let after = ConversationId::random().as_uuid();
        Self { pool, clock, conversations_max: CONVERSATIONS_MAX, after, drifting: BTreeSet::new() }
    }

    /// Works until `draining`. A pass that fails is passed over, and its conversations come later.
    pub async fn run(mut self, draining: CancellationToken) {
        // Dropping a pass half-way is harmless: it only reads.
        while draining.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let Some(pass) = draining.run_until_cancelled(self.pass()).await else { return };
            if let Err(error) = pass {
                tracing::warn!(%error, "what is unread could not be audited, trying again later");
            }
        }
    }

    /// Looks at the next conversations, and again at those that drifted; how many participants drift.
    pub async fn pass(&mut self) -> sqlx::Result<usize> {
        let suspects = self.look().await?;
        if !suspects.is_empty() {
            tokio::time::sleep(SECOND_LOOK_DELAY).await;
        }
        self.look_again(suspects).await
    }

    /// Whoever seems to drift now.
    async fn look(&mut self) -> sqlx::Result<BTreeSet<Place>> {
        let mut conversations = compare::next_conversations(&self.pool, self.after, self.conversations_max).await?;
        let is_last = i64::try_from(conversations.len()).is_ok_and(|found| found < self.conversations_max);
        self.after = conversations.last().filter(|_| !is_last).copied().unwrap_or_default();
        conversations.extend(self.drifting.iter().map(|place| place.conversation_id));
        let look = compare::compare(&self.pool, &self.clock, &conversations).await?;
        counter!(UNREAD_AUDITED_TOTAL).increment(look.audited);
        Ok(look.drifting)
    }

    /// Whoever of `suspects` still seems to.
    async fn look_again(&mut self, mut suspects: BTreeSet<Place>) -> sqlx::Result<usize> {
        let conversations: Vec<Uuid> = suspects.iter().map(|place| place.conversation_id).collect();
        let look = compare::compare(&self.pool, &self.clock, &conversations).await?;
        suspects.retain(|place| look.drifting.contains(place));
        self.report(suspects);
        Ok(self.drifting.len())
    }

    fn report(&mut self, drifting: BTreeSet<Place>) {
        // Those that drifted before have been looked at again, so nobody else does.
        let new = drifting.difference(&self.drifting).count();
        for place in drifting.difference(&self.drifting).take(LINES_MAX) {
            tracing::error!(
                conversation_id = %Masked(place.conversation_id),
                user_id = %Masked(place.user_id),
                new,
                "what a list shows as unread is not what is unread"
            );
        }
        self.drifting = drifting.into_iter().take(DRIFTING_MAX).collect();
        #[expect(clippy::cast_precision_loss, reason = "there are a thousand at the most")]
        gauge!(UNREAD_DRIFT).set(self.drifting.len() as f64);
    }
}

#[cfg(test)]
mod tests;
