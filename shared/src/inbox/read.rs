//! Reads an inbox from a cursor on.

use redis::streams::StreamRangeReply;

use super::{InboxError, Inboxes, bounded};
use crate::{
    ids::{Epoch, UserId},
    position::Cursor,
};

/// An entry of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its place.
    pub cursor: Cursor,
    /// The event's bytes.
    pub event: Vec<u8>,
}

/// Entries that follow a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The next ones, without a hole after the cursor; none at the end.
    Entries(Vec<InboxEntry>),
    /// The inbox is another one now, or what follows has been trimmed: the client has to reload.
    Lost,
}

/// Epoch, head and run of an inbox.
type Meta = (Option<String>, Option<u64>, Option<String>);

impl Inboxes {
    /// Up to `count` entries after `cursor`.
    pub async fn read(&self, user_id: UserId, epoch: Epoch, cursor: Cursor, count: usize) -> Result<Page, InboxError> {
        let keys = self.keys(user_id);
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("HMGET").arg(&keys.meta).arg("epoch").arg("head").arg("run");
        pipeline
            .cmd("XRANGE")
            .arg(&keys.entries)
            .arg(format!("{}-0", cursor.next().0))
            .arg("+")
            .arg("COUNT")
            .arg(count);
        let mut redis = self.redis.link().await?;
        let ((found, head, run), range): (Meta, StreamRangeReply) = bounded(pipeline.query_async(&mut redis)).await?;
        if super::is_of_another_run(run.as_deref(), &redis) || found.and_then(|found| found.parse().ok()) != Some(epoch)
        {
            return Ok(Page::Lost);
        }
        let entries: Option<Vec<_>> = range.ids.iter().map(entry).collect();
        let entries = entries.ok_or_else(super::unexpected_answer)?;
        let is_complete = match entries.first() {
            Some(first) => first.cursor == cursor.next(),
            // A head before the cursor belongs to an inbox that has lost its last entries.
            None => head == Some(cursor.0),
        };
        Ok(if is_complete { Page::Entries(entries) } else { Page::Lost })
    }
}

fn entry(id: &redis::streams::StreamId) -> Option<InboxEntry> {
    let cursor = Cursor(id.id.split_once('-')?.0.parse().ok()?);
    Some(InboxEntry { cursor, event: id.get("event")? })
}
