//! Several messages in one write of a stream: all of them, or none.

use async_nats::{
    Client, HeaderMap, HeaderValue,
    jetstream::{Context, context::PublishError, message::PublishMessage, publish::PublishAck},
};
use bytes::Bytes;
use uuid::Uuid;

use crate::limits;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// One of them.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Why they are not there, or may not be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTogether {
    /// They were not all sent, so none is kept.
    #[error("{0}")]
    NotSent(String),
    /// The server's answer to the last one, or that there was none.
    #[error(transparent)]
    Answer(#[from] PublishError),
}

/// Publishes to a stream that allows batches; gives the answer to the last part.
pub(crate) async fn publish_together(
    client: &Client,
    context: &Context,
    parts: impl ExactSizeIterator<Item = Part>,
) -> Result<PublishAck, NotTogether> {
    let batch_id = Uuid::new_v4().simple().to_string();
    let last = parts.len() as u64;
    let mut commit = None;
    let sending = async {
        for (Part { subject, mut headers, payload }, number) in parts.zip(1_u64..) {
            headers.insert(BATCH_ID, batch_id.as_str());
            headers.insert(BATCH_SEQUENCE, HeaderValue::from(number));
            if number == last {
                headers.insert(BATCH_COMMIT, "1");
                commit = Some((subject, PublishMessage::build().headers(headers).payload(payload)));
            } else {
                // The server answers with the last of a batch, also if one before it didn't come.
                client.publish_with_headers(subject, headers, payload).await?;
            }
        }
        Ok::<_, async_nats::PublishError>(())
    };
    let not_sent = |why: &dyn std::fmt::Display| NotTogether::NotSent(why.to_string());
    let sent = tokio::time::timeout(limits::APPEND_WAIT_MAX, sending).await;
    // Without the last one nothing is kept.
    sent.map_err(|_| not_sent(&"NATS takes nothing now"))?.map_err(|error| not_sent(&error))?;
    let (subject, publish) = commit.ok_or_else(|| not_sent(&"nothing to append"))?;
    Ok(context.send_publish(subject, publish).await?.await?)
}
