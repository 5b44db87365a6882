//! Reads entries by position, many in one question, and how far a consumer has settled them.

use std::time::Duration;

use async_nats::{
    header,
    jetstream::{context::ConsumerInfoErrorKind, stream::LastRawMessageErrorKind},
};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{AppendError, Log, LogError, append::refused};
use crate::{limits, position::StreamSeq};

/// Bytes of one answer; the entries after them come with the next question.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An entry as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its position.
    pub stream_seq: StreamSeq,
    /// The subject it was appended to.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
}

impl Log {
    /// Entries from position `from` on without a gap, at most `entries_max` and some MiB. Empty if the replica that
    /// answers has nothing at `from`: it may be behind, or `from` has been aged out.
    pub async fn entries(&self, from: StreamSeq, entries_max: usize) -> Result<Vec<StoredEntry>, AppendError> {
        let question = serde_json::json!({
            "seq": from.0, "next_by_subj": ">", "batch": entries_max, "max_bytes": ANSWER_BYTES_MAX
        });
        let mut entries = self.ask_directly(&question, entries_max, limits::APPEND_WAIT_MAX).await?;
        // An answer that was lost on the way leaves a gap.
        let whole = (from.0..).zip(&entries).take_while(|(expected, entry)| entry.stream_seq.0 == *expected).count();
        entries.truncate(whole);
        Ok(entries)
    }

    /// The first position from `from` on that has an entry, as the log's leader knows it; none if all after it are gone.
    pub async fn next_position(&self, from: StreamSeq) -> Result<Option<StreamSeq>, AppendError> {
        match self.stream.get_first_raw_message_by_subject(">", from.0).await {
            Ok(entry) => Ok(Some(StreamSeq(entry.sequence))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The position up to which a durable consumer has settled everything; zero if there is no such consumer.
    pub async fn settled_by(&self, consumer: &str) -> Result<StreamSeq, LogError> {
        match self.stream.consumer_info(consumer).await {
            Ok(info) => Ok(StreamSeq(info.ack_floor.stream_sequence)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(StreamSeq::ZERO),
            Err(error) => Err(LogError::from_jetstream(error)),
        }
    }

    /// The answer to one direct question, by any replica, at most `entries_max` entries of it.
    pub(super) async fn ask_directly(
        &self,
        question: &serde_json::Value,
        entries_max: usize,
        wait_max: Duration,
    ) -> Result<Vec<StoredEntry>, AppendError> {
        let reading = async {
            let inbox = self.client.new_inbox();
            let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| refused(&error))?;
            let to = format!("$JS.API.DIRECT.GET.{}", self.name);
            let asked = self.client.publish_with_reply(to, inbox, question.to_string().into()).await;
            asked.map_err(|error| refused(&error))?;
            let mut entries = Vec::new();
            while let Some(answer) = answers.next().await {
                let header = |name| answer.headers.as_ref().and_then(|headers| headers.get_last(name));
                let (Some(subject), Some(at)) = (header(header::NATS_SUBJECT), header(header::NATS_SEQUENCE)) else {
                    // The end, nothing, or an error.
                    break;
                };
                let (subject, at) = (subject.as_str().to_owned(), at.as_str().parse());
                if let Ok(at) = at {
                    entries.push(StoredEntry { stream_seq: StreamSeq(at), subject, payload: answer.payload });
                }
                if entries.len() == entries_max {
                    break;
                }
            }
            Ok(entries)
        };
        tokio::time::timeout(wait_max, reading).await.map_err(|_| AppendError::Unknown)?
    }
}
