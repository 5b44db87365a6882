//! Makes jobs of what was pushed to a session that has ended and that nobody has confirmed.

use chat_shared::{
    event::Event,
    ids::{Epoch, UserId},
    inbox::{InboxEntry, Page},
    jobs::Job,
    limits,
    log::Outcome,
    position::Cursor,
};

use super::{Office, Trouble};
use crate::news::News;

/// Entries that are read at once.
const PAGE_ENTRIES: usize = 100;

impl Office {
    /// Each unconfirmed message or assignment becomes a job of its own.
    pub(super) async fn session_ended(
        &self,
        user_id: UserId,
        epoch: Epoch,
        after: Cursor,
        up_to: Cursor,
    ) -> Result<Outcome, Trouble> {
        let mut cursor = after;
        while cursor < up_to {
            let Page::Entries(entries) = self.inboxes.read(user_id, epoch, cursor, PAGE_ENTRIES).await? else {
                // The first are confirmed by all or crowded out by newer ones: on with the oldest that can be there. If
                // that isn't either, the last one stands for all.
                let last = Cursor(up_to.0.saturating_sub(1));
                let kept = Cursor(up_to.0.saturating_sub(limits::INBOX_ENTRIES_MAX as u64));
                if cursor >= last {
                    break;
                }
                cursor = if cursor < kept { kept } else { last };
                continue;
            };
            let Some(last) = entries.last().map(|entry| entry.cursor) else { break };
            let wanted = entries.into_iter().filter(|entry| entry.cursor <= up_to);
            let jobs: Vec<_> = wanted.filter_map(|entry| self.job(user_id, epoch, &entry)).collect();
            self.intake.add(&jobs).await?;
            cursor = last;
        }
        Ok(Outcome::Done)
    }

    fn job(&self, user_id: UserId, epoch: Epoch, entry: &InboxEntry) -> Option<Job> {
        let event = Event::decode(&entry.event).ok()?;
        News::of(event, self.content.is_some()).job(user_id, Some((epoch, entry.cursor)))
    }
}
