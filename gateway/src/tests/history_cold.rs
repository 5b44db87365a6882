//! History whose texts are in the object store.

use bytes::Bytes;
use chat_cold::store::{Purpose, Store, StoreSettings};
use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    position::Seq,
    wire::{Conversation, ErrorCode, SendMessage},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use time::{Duration, OffsetDateTime};

use super::place::{Place, users};
use crate::history::{ColdBodies, History, Place as PageOf};

/// Messages of the old day, numbered from 1; the next ones are of today.
const OLD: u64 = 120;

struct Scene {
    place: Place,
    ana: UserId,
    conversation: Conversation,
    sent_at: OffsetDateTime,
    object: String,
}

/// A conversation with messages of 60 days ago, whose texts are in a pack, and three of today.
async fn scene() -> Scene {
    let (place, [ana, ben]) = (Place::new().await, users());
    let conversation = place.direct(ana, ben).await;
    let sent_at = now() - Duration::days(60);
    for seq in 1..=OLD {
        place.store_old(ana, &conversation, seq, sent_at).await;
    }
    for seq in OLD + 1..=OLD + 3 {
        place.store_old(ana, &conversation, seq, now()).await;
    }
    let object = place.make_cold(sent_at.date()).await;
    Scene { place, ana, conversation, sent_at, object }
}

impl Scene {
    fn id(&self) -> ConversationId {
        self.conversation.conversation_id
    }

    async fn page(&self, page_of: PageOf, limit: usize) -> (Vec<u64>, bool) {
        self.place.page(self.ana, self.id(), page_of, limit).await.unwrap()
    }

    /// A gateway that reads texts from somewhere else.
    fn history(&self, store: Option<Store>) -> History {
        let place = &self.place;
        History::new(place.database.clone(), place.tail.clone(), place.content.clone(), ColdBodies::new(store))
    }

    async fn replace(&self, bytes: Option<Bytes>) {
        self.place.store.delete(&self.object).await.unwrap();
        if let Some(bytes) = bytes {
            self.place.store.put_new(&self.object, bytes).await.unwrap();
        }
    }
}

fn now() -> OffsetDateTime {
    chat_shared::clock::Clock::System.now().into()
}

fn count(metrics: &PrometheusHandle, name: &str) -> u64 {
    let prefix = format!("{name} ");
    metrics.render().lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}

fn seqs(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn r12_3_a_page_of_old_messages_takes_two_statements_and_one_read_and_the_next_one_none() {
    let scene = Box::pin(scene()).await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    assert_eq!(scene.page(PageOf::Newest, 3).await, (seqs(OLD + 1..=OLD + 3), true));
    assert_eq!(count(&metrics, "chat_gateway_cold_reads_total"), 0, "new texts are in PostgreSQL");
    assert_eq!(scene.page(PageOf::Before(Seq(OLD + 1)), 50).await, (seqs(71..=OLD), true));
    assert_eq!(count(&metrics, "chat_gateway_cold_reads_total"), 1);
    let before = count(&metrics, "chat_gateway_sql_statements_total");
    assert_eq!(scene.page(PageOf::Before(Seq(71)), 50).await, (seqs(21..=70), true));
    let statements = count(&metrics, "chat_gateway_sql_statements_total") - before;
    assert!(statements <= 3, "one for the right to read, at most two for messages: {statements}");
    assert_eq!(scene.page(PageOf::Before(Seq(21)), 50).await, (seqs(1..=20), false));
    assert_eq!(scene.page(PageOf::After(Seq::ZERO), 50).await, (seqs(1..=50), true));
    assert_eq!(count(&metrics, "chat_gateway_cold_reads_total"), 1, "the chunk is in memory");
    assert_eq!(count(&metrics, "chat_gateway_history_unreadable_total"), 0);
}

#[tokio::test]
async fn r12_3_without_the_store_newer_pages_are_shown_and_older_ones_are_unavailable() {
    let scene = Box::pin(scene()).await;
    let closed = StoreSettings {
        cold_store_url: Some("s3://bucket/prefix".parse().unwrap()),
        cold_store_endpoint: Some("http://127.0.0.1:9".parse().unwrap()),
        cold_store_access_key_id: Some("id".to_owned()),
        cold_store_secret_access_key: Some("secret".to_owned().into()),
        ..StoreSettings::default()
    };
    for store in [None, Store::open(&closed, Purpose::Reading).unwrap()] {
        let history = scene.history(store);
        for (page_of, shown) in [
            (PageOf::Newest, Some(seqs(OLD + 1..=OLD + 3))),
            (PageOf::After(Seq(OLD - 2)), None),
            (PageOf::Before(Seq(OLD + 2)), Some(vec![OLD + 1])),
            (PageOf::Before(Seq(OLD + 1)), None),
        ] {
            let page = history.page(scene.ana, scene.id(), page_of, 50).await;
            match (page, shown) {
                (Ok(page), Some(shown)) => {
                    assert_eq!(
                        page.messages.iter().map(|message| message.seq.0).collect::<Vec<_>>(),
                        shown,
                        "{page_of:?}"
                    );
                    assert!(page.has_more, "{page_of:?}");
                }
                (Err(refusal), None) => assert_eq!(refusal.code, ErrorCode::Unavailable, "{page_of:?}"),
                (page, shown) => panic!("{page_of:?}: {page:?}, expected {shown:?}"),
            }
        }
    }
    // Sending, and repeating what was sent, go on.
    scene.place.send(scene.ana, scene.id(), "on").await.unwrap();
}

#[tokio::test]
async fn r12_3_other_bytes_in_the_store_cost_the_messages_that_they_were() {
    let scene = Box::pin(scene()).await;
    let whole = scene.place.store.read(&scene.object).await.unwrap();
    let texts = async |history: &History| {
        let page = history.page(scene.ana, scene.id(), PageOf::Newest, 100).await.unwrap();
        assert!(page.messages.iter().all(|message| message.text == message.seq.0.to_string()));
        page.messages.len()
    };
    assert_eq!(texts(&scene.history(Some(scene.place.store.clone()))).await, 100);
    // A bit of the last sealed text; the end; everything; the object itself.
    let mut flipped = whole.to_vec();
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    for (bytes, left) in [
        (Some(Bytes::from(flipped)), 99),
        (Some(whole.slice(..whole.len() / 2)), 3),
        (Some(Bytes::from(vec![0xc1; whole.len()])), 3),
        (None, 3),
    ] {
        scene.replace(bytes).await;
        assert_eq!(texts(&scene.history(Some(scene.place.store.clone()))).await, left);
    }
    scene.replace(Some(whole)).await;
}

#[tokio::test]
async fn r12_3_a_page_over_many_packs_is_shorter_and_goes_on() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let conversation = place.direct(ana, ben).await;
    for seq in 1..=20 {
        let sent_at = now() - Duration::days(60 - i64::try_from(seq).unwrap());
        place.store_old(ana, &conversation, seq, sent_at).await;
        if seq > 1 {
            place.make_cold((sent_at - Duration::DAY).date()).await;
        }
    }
    let id = conversation.conversation_id;
    assert_eq!(place.page(ana, id, PageOf::Newest, 50).await, Ok((seqs(12..=20), true)), "the newest and eight packs");
    assert_eq!(place.page(ana, id, PageOf::After(Seq::ZERO), 50).await, Ok((seqs(1..=8), true)));
    assert_eq!(place.page(ana, id, PageOf::Before(Seq(12)), 50).await, Ok((seqs(4..=11), true)));
}

#[tokio::test]
async fn r12_3_a_repeat_of_a_message_whose_text_has_moved_gets_the_first_answer() {
    let scene = Box::pin(scene()).await;
    // Only those of a conversation's last eight days are looked for.
    let (place, [ana, ben]) = (&scene.place, users());
    let conversation = place.direct(ana, ben).await;
    for seq in 1..=3 {
        place.store_old(ana, &conversation, seq, scene.sent_at - Duration::DAY).await;
    }
    place.make_cold((scene.sent_at - Duration::DAY).date()).await;
    let message_id = sqlx::query_scalar!(
        "select message_id from messages where conversation_id = $1 and seq = 2 and envelope is null",
        conversation.conversation_id.as_uuid()
    );
    let message_id = MessageId::try_from(message_id.fetch_one(&place.pool).await.unwrap()).unwrap();
    let repeat = async |by: UserId| {
        let command = SendMessage {
            conversation_id: conversation.conversation_id,
            message_id,
            text: "2".to_owned(),
            is_repeat: true,
            seen_seq: None,
        };
        place.sender.send(by, command).await
    };
    let first = repeat(ana).await.unwrap();
    assert_eq!((first.seq, first.is_repeat), (Seq(2), true));
    assert!(first.sent_at < Timestamp::from(now() - Duration::days(60)));
    assert_eq!(repeat(ben).await.unwrap_err().code, ErrorCode::Conflict);
}
