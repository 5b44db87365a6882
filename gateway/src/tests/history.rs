//! History: complete at once, dense, in both directions, whatever PostgreSQL has stored.

use chat_shared::{
    ids::{ConversationId, MessageId, UserId},
    limits,
    position::{Seq, StreamSeq},
    wire::{Conversation, ErrorCode, SendMessage},
};
use futures_util::StreamExt;
use time::{Duration, OffsetDateTime};

use super::place::{Place, until, users};
use crate::history::{Place as PageOf, find_stored, number_of};

async fn talk() -> (Place, UserId, Conversation) {
    let (place, [ana, ben]) = (Place::new().await, users());
    let conversation = place.direct(ana, ben).await;
    (place, ana, conversation)
}

/// Reads everything in one direction, so many at a time.
async fn read_all(place: &Place, user_id: UserId, id: ConversationId, limit: usize, is_forward: bool) -> Vec<u64> {
    let (mut all, mut next) = (Vec::new(), if is_forward { PageOf::After(Seq::ZERO) } else { PageOf::Newest });
    loop {
        let (page, has_more) = place.page(user_id, id, next, limit).await.unwrap();
        assert!(page.len() <= limit);
        next = match (is_forward, page.first(), page.last()) {
            (true, _, Some(&last)) => PageOf::After(Seq(last)),
            (false, Some(&first), _) => PageOf::Before(Seq(first)),
            _ => next,
        };
        if is_forward {
            all.extend(page);
        } else {
            all.splice(0..0, page).for_each(drop);
        }
        if !has_more {
            return all;
        }
    }
}

#[tokio::test]
async fn history_never_lags_behind_accepted_promise_5() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let expected: Vec<u64> = (1..=20).collect();
    place.send_many(ana, id, 20).await;
    // Nothing stored; a part; all but what another persister has yet to commit; everything.
    for (stored, holes) in [(0, &[][..]), (7, &[][..]), (15, &[9, 10, 14]), (20, &[1, 20]), (20, &[])] {
        place.store(id, stored, holes).await;
        for limit in [1, 3, 7, 20, 100] {
            for is_forward in [true, false] {
                let all = read_all(&place, ana, id, limit, is_forward).await;
                assert_eq!(
                    all, expected,
                    "stored up to {stored} but {holes:?}, {limit} at a time, forward {is_forward}"
                );
            }
        }
    }
}

#[tokio::test]
async fn pages_begin_and_end_where_they_should() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    assert_eq!(place.page(ana, id, PageOf::Newest, 5).await, Ok((vec![], false)), "nothing was said yet");
    place.send_many(ana, id, 9).await;
    place.store(id, 6, &[]).await;
    for (page_of, expected) in [
        (PageOf::Newest, (vec![7, 8, 9], true)),
        (PageOf::Before(Seq(4)), (vec![1, 2, 3], false)),
        (PageOf::Before(Seq(1)), (vec![], false)),
        (PageOf::Before(Seq(0)), (vec![], false)),
        (PageOf::Before(Seq(u64::MAX)), (vec![7, 8, 9], true)),
        (PageOf::After(Seq(0)), (vec![1, 2, 3], true)),
        (PageOf::After(Seq(5)), (vec![6, 7, 8], true)),
        (PageOf::After(Seq(9)), (vec![], false)),
        (PageOf::After(Seq(u64::MAX)), (vec![], false)),
    ] {
        assert_eq!(place.page(ana, id, page_of, 3).await, Ok(expected), "{page_of:?}");
    }
}

#[tokio::test]
async fn old_messages_are_found_though_the_log_has_aged_them_out() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    let days_ago = [95, 94, 60, 33, 32, 8, 3, 2, 1, 0];
    for (seq, days) in (1..).zip(days_ago) {
        place.store_old(ana, &conversation, seq, now - Duration::days(days)).await;
    }
    let expected: Vec<u64> = (1..=10).collect();
    for limit in [1, 4, 100] {
        for is_forward in [true, false] {
            assert_eq!(read_all(&place, ana, id, limit, is_forward).await, expected, "{limit}, forward {is_forward}");
        }
    }
    sqlx::query!("update conversations set floor_seq = 3").execute(&place.pool).await.unwrap();
    assert_eq!(place.page(ana, id, PageOf::After(Seq(0)), 3).await, Ok((vec![4, 5, 6], true)));
    assert_eq!(place.page(ana, id, PageOf::Before(Seq(6)), 3).await, Ok((vec![4, 5], false)));
    assert_eq!(place.page(ana, id, PageOf::Before(Seq(3)), 3).await, Ok((vec![], false)));
}

#[tokio::test]
async fn messages_months_apart_are_all_shown() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    for (seq, days) in (1..).zip([480, 360, 240, 120, 120, 0]) {
        place.store_old(ana, &conversation, seq, now - Duration::days(days)).await;
    }
    let expected: Vec<u64> = (1..=6).collect();
    for limit in [1, 4, 100] {
        for is_forward in [true, false] {
            assert_eq!(read_all(&place, ana, id, limit, is_forward).await, expected, "{limit}, forward {is_forward}");
        }
    }
    let first = place.history.page(ana, id, PageOf::After(Seq::ZERO), 1).await.unwrap().messages.remove(0);
    let newest = place.log.newest(id).await.unwrap().map(|(_, event)| event);
    assert_eq!(number_of(&place.database, &place.tail, ana, newest, id, first.message_id).await, Ok(Some(Seq(1))));
    let listed = place.conversations.get(ana, id).await.unwrap();
    assert_eq!((listed.unread, listed.last_message.unwrap().seq), (6, Seq(6)));
}

#[tokio::test]
async fn a_conversation_that_is_quiet_for_longer_than_any_window_shows_all_above_its_floor_r1_5() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    for (seq, days) in (1..).zip([950, 700, 501, 403, 402, 303, 302, 301, 300]) {
        place.store_old(ana, &conversation, seq, now - Duration::days(days)).await;
    }
    let all: Vec<u64> = (1..=9).collect();
    for floor in [0, 2] {
        let floor_seq = i64::try_from(floor).unwrap();
        sqlx::query!("update conversations set floor_seq = $1", floor_seq).execute(&place.pool).await.unwrap();
        for limit in [1, 4, 100] {
            for is_forward in [true, false] {
                let read = read_all(&place, ana, id, limit, is_forward).await;
                assert_eq!(read, all[floor..], "above {floor}, {limit}, forward {is_forward}");
            }
        }
    }
    // The newest page touches none of these partitions: a statement that does waits until it is given up.
    let mut locked = place.pool.begin().await.unwrap();
    for days in [950, 700, 501, 403, 402] {
        let day = (now - Duration::days(days)).date().to_string().replace('-', "");
        let lock = format!("lock table messages_{day} in access exclusive mode");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *locked).await.unwrap();
    }
    let newest = place.page(ana, id, PageOf::Newest, 4).await;
    assert_eq!(newest, Ok(((6..=9).collect(), true)));
}

/// A page, once PostgreSQL answers in time: on a busy machine a connection may take longer than a request waits.
async fn page_in_time(place: &Place, user_id: UserId, id: ConversationId, of: PageOf) -> (Vec<u64>, bool) {
    let found = parking_lot::Mutex::new(None);
    until("a page", async || {
        let page = place.page(user_id, id, of, 10).await;
        // Shown if the page does not come in time.
        let page = page.inspect_err(|refusal| println!("{of:?}: {refusal:?}"));
        let is_there = page.is_ok();
        *found.lock() = page.ok();
        is_there
    })
    .await;
    found.into_inner().unwrap()
}

#[tokio::test]
async fn a_page_touches_no_newer_days() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    for (seq, days) in (1..).zip((0..=120).rev()) {
        place.store_old(ana, &conversation, seq, now - Duration::days(days)).await;
    }
    assert_eq!(page_in_time(&place, ana, id, PageOf::Before(Seq(41))).await, ((31..=40).collect(), true));
    // A statement that touches these partitions waits until it is given up, as often as it is repeated.
    let mut locked = place.pool.begin().await.unwrap();
    for days in [60, 20, 0] {
        let day = (now - Duration::days(days)).date().to_string().replace('-', "");
        let lock = format!("lock table messages_{day} in access exclusive mode");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut *locked).await.unwrap();
    }
    assert_eq!(page_in_time(&place, ana, id, PageOf::Before(Seq(31))).await, ((21..=30).collect(), true));
    assert_eq!(page_in_time(&place, ana, id, PageOf::After(Seq(30))).await, ((31..=40).collect(), true));
}

#[tokio::test]
async fn deleted_messages_are_not_shown() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    place.send_many(ana, id, 5).await;
    place.store(id, 5, &[]).await;
    sqlx::query!("update messages set deleted_at = now() where seq in (2, 5)").execute(&place.pool).await.unwrap();
    assert_eq!(place.page(ana, id, PageOf::Newest, 10).await, Ok((vec![1, 3, 4], false)));
    let listed = place.conversations.get(ana, id).await.unwrap();
    assert_eq!((listed.last_seq, listed.last_message), (Seq(5), None));
}

#[tokio::test]
async fn r1_5_messages_of_days_that_have_aged_out_are_neither_shown_nor_counted() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    for (seq, days) in (1..).zip([95, 91, 91, 89, 0]) {
        place.store_old(ana, &conversation, seq, now - Duration::days(days)).await;
    }
    // All steps of the days that are due, as retention calls them.
    let age = "select record_message_days();
         do $$
         declare
             due record;
         begin
             loop
                 select day, step into due from due_day_steps() limit 1;
                 exit when not found;
                 execute format('select %I(%L%s)', due.step, due.day, case due.step when 'raise_day_floors' then ', 2' end);
             end loop;
         end
         $$";
    sqlx::raw_sql(age).execute(&place.pool).await.unwrap();
    assert_eq!(place.page(ana, id, PageOf::Newest, 10).await, Ok((vec![4, 5], false)));
    let listed = place.conversations.get(ana, id).await.unwrap();
    assert_eq!((listed.unread, listed.floor_seq, listed.last_message.unwrap().seq), (2, Seq(3), Seq(5)));
    // The rows say so too.
    sqlx::raw_sql("update conversations set floor_seq = 0").execute(&place.pool).await.unwrap();
    assert_eq!(place.page(ana, id, PageOf::Newest, 10).await, Ok((vec![4, 5], false)));
}

#[tokio::test]
async fn a_page_of_deleted_messages_alone_is_empty_and_says_that_there_are_more() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    place.send_many(ana, id, 6).await;
    place.store(id, 6, &[]).await;
    let delete = "update messages set deleted_at = now() where seq between 2 and 5";
    sqlx::raw_sql(delete).execute(&place.pool).await.unwrap();
    for (page_of, expected) in [
        (PageOf::After(Seq(1)), (vec![], true)),
        (PageOf::After(Seq(3)), (vec![], true)),
        (PageOf::After(Seq(5)), (vec![6], false)),
        (PageOf::Before(Seq(6)), (vec![], true)),
        (PageOf::Before(Seq(4)), (vec![], true)),
        (PageOf::Before(Seq(2)), (vec![1], false)),
    ] {
        assert_eq!(place.page(ana, id, page_of, 2).await, Ok(expected), "{page_of:?}");
    }
}

#[tokio::test]
async fn a_message_that_neither_side_has_leaves_a_hole_and_not_an_outage() {
    let (place, ana, conversation) = talk().await;
    // Of this one the log has never heard, as of one that it has aged out.
    let conversation = Conversation { conversation_id: ConversationId::random(), ..conversation };
    sqlx::query!(
        "insert into conversations (conversation_id, kind, created_at, last_activity_at) values ($1, 'group', now(), now())",
        conversation.conversation_id.as_uuid()
    )
    .execute(&place.pool)
    .await
    .unwrap();
    sqlx::query!(
        "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'owner', now())",
        conversation.conversation_id.as_uuid(),
        ana.as_uuid()
    )
    .execute(&place.pool)
    .await
    .unwrap();
    let now = OffsetDateTime::from(chat_shared::clock::Clock::System.now());
    for seq in [1, 2, 4] {
        place.store_old(ana, &conversation, seq, now).await;
    }
    let page = place.page(ana, conversation.conversation_id, PageOf::Newest, 10).await;
    assert_eq!(page, Ok((vec![1, 2, 4], false)));
}

#[tokio::test]
async fn a_page_shows_nothing_that_came_after_its_user_was_removed_while_postgresql_kept_it_waiting_r6_4() {
    let (place, [ana, ben, cai]) = (Place::new().await, users());
    let id = place.group(ben, &[ana, cai]).await.conversation_id;
    place.send_many(ben, id, 1).await;
    let mut removal = place.pool.begin().await.unwrap();
    sqlx::query!("lock table participants in access exclusive mode").execute(&mut *removal).await.unwrap();
    let remove = async {
        until("waiting for PostgreSQL", async || {
            sqlx::query_scalar!(
                r#"select exists (
                       select from pg_locks where not granted and relation = 'participants'::regclass
                   ) as "is_waiting!""#
            )
            .fetch_one(&place.pool)
            .await
            .unwrap()
        })
        .await;
        // As ben writes again once ana is gone.
        let (at, mut event) = place.log.newest(id).await.unwrap().unwrap();
        event.participants.list.retain(|participant| participant.user_id != ana);
        (event.seq, event.previous) = (event.seq.next(), at);
        place.log.append(&event, "after the removal").await.unwrap();
        place.store_event_on(&mut removal, &event, event.sent_at.into()).await;
        sqlx::query!("delete from participants where user_id = $1", ana.as_uuid())
            .execute(&mut *removal)
            .await
            .unwrap();
        removal.commit().await.unwrap();
    };
    let (page, ()) = tokio::join!(place.history.page(ana, id, PageOf::Newest, 10), remove);
    assert_eq!(page.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn an_id_is_one_message_of_its_conversation_in_the_log_and_once_it_is_stored() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [conversation_id, elsewhere] =
        [place.direct(ana, ben).await, place.group(ana, &[ben]).await].map(|made| made.conversation_id);
    let message_id = MessageId::random();
    let find = async |conversation_id| find_stored(&place.database, conversation_id, message_id).await.unwrap();
    let send = async |by, conversation_id, is_repeat| {
        let command = SendMessage { conversation_id, message_id, text: "once".to_owned(), is_repeat, seen_seq: None };
        place.sender.send(by, command).await
    };
    let first = send(ana, conversation_id, false).await.unwrap();
    let before = find(conversation_id).await;
    assert_eq!((before.last_seq, before.message), (Seq::ZERO, None));
    for is_repeat in [false, true] {
        assert_eq!(
            send(ben, conversation_id, is_repeat).await.unwrap_err().code,
            ErrorCode::Conflict,
            "ben in the log"
        );
        assert_eq!(send(ana, conversation_id, is_repeat).await.unwrap().seq, first.seq);
    }
    place.store(conversation_id, 1, &[]).await;
    let found = find(conversation_id).await;
    let row = found.message.unwrap();
    assert_eq!((found.last_seq, row.seq, row.sent_at), (Seq(1), first.seq, first.sent_at));
    assert_eq!(place.content.open_message(conversation_id, &row.message).unwrap(), "once");
    assert_eq!(send(ben, conversation_id, true).await.unwrap_err().code, ErrorCode::Conflict, "ben once it is stored");
    assert_eq!(find(elsewhere).await.message, None);
    assert!(!send(ben, elsewhere, false).await.unwrap().is_repeat, "another conversation has ids of its own");
}

#[tokio::test]
async fn the_tail_is_read_so_far_and_no_further() {
    let (place, ana, conversation) = talk().await;
    let id = conversation.conversation_id;
    let count = u64::try_from(limits::TAIL_STEPS_MAX).unwrap() + 5;
    for _ in 0..count {
        place.send(ana, id, "on and on").await.unwrap();
    }
    let (at, _) = place.log.newest(id).await.unwrap().unwrap();
    let seqs = async |down_to| {
        let events = place.tail.read(UserId::random(), at, Seq(down_to)).await;
        events.map(|events| events.iter().map(|event| event.seq.0).collect::<Vec<_>>())
    };
    assert_eq!(seqs(count).await, Ok(vec![]));
    assert_eq!(seqs(count - 3).await, Ok(vec![count - 2, count - 1, count]));
    assert_eq!(seqs(5).await, Ok((6..=count).collect()));
    assert_eq!(seqs(4).await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(place.tail.read(ana, StreamSeq::ZERO, Seq::ZERO).await, Ok(vec![]));
    // What is out of reach is said to be, and what is within reach is shown.
    let newest = place.history.page(ana, id, PageOf::Newest, 100).await.unwrap();
    assert_eq!((newest.messages.len(), newest.has_more), (100, true));
    let far = place.history.page(ana, id, PageOf::After(Seq(0)), 100).await;
    assert_eq!(far.unwrap_err().code, ErrorCode::Unavailable);
    let edge = place.history.page(ana, id, PageOf::Before(Seq(8)), 5).await.unwrap();
    assert_eq!((edge.messages[0].seq, edge.messages.len(), edge.has_more), (Seq(6), 2, true));
}

/// What is asked of the log from now on.
struct Questions {
    asked: async_nats::Subscriber,
    operator: async_nats::Client,
    log: String,
}

impl Questions {
    async fn listen(place: &Place) -> Self {
        let (operator, log) = (place.operator.clone(), place.log.name().to_owned());
        let mut questions = Self { asked: operator.subscribe("$JS.API.>").await.unwrap(), operator, log };
        questions.count().await;
        questions
    }

    /// How many there were since the last count.
    async fn count(&mut self) -> usize {
        let end = format!("$JS.API.{}", MessageId::random().as_uuid());
        self.operator.publish(end.clone(), "".into()).await.unwrap();
        let mut count = 0;
        while let Some(message) = self.asked.next().await {
            if message.subject.as_str() == end {
                return count;
            }
            count += usize::from(message.subject.split('.').any(|token| token == self.log));
        }
        panic!("NATS has gone");
    }
}

/// A conversation of 500 messages, of which the log has them between those of another.
async fn long_talk() -> (Place, [UserId; 2], ConversationId) {
    let (place, [ana, ben, cai]) = (Place::new().await, users());
    let (id, other) = (place.direct(ana, ben).await.conversation_id, place.direct(ana, cai).await.conversation_id);
    for number in 1..=500 {
        place.send(ana, id, &number.to_string()).await.unwrap();
        for _ in 0..number % 4 {
            place.send(ana, other, "between").await.unwrap();
        }
    }
    (place, [ana, ben], id)
}

#[tokio::test]
async fn a_deep_tail_costs_few_questions_to_the_log() {
    let (place, [ana, ben], id) = Box::pin(long_talk()).await;
    let mut questions = Questions::listen(&place).await;
    let page = place.page(ana, id, PageOf::Before(Seq(101)), 100).await;
    assert_eq!(page, Ok(((1..=100).collect(), false)));
    let asked = questions.count().await;
    assert!((1..=16).contains(&asked), "{asked} questions for 400 events back");
    place.store(id, 450, &[120, 300, 301]).await;
    questions.count().await;
    for (page_of, expected) in [(PageOf::Before(Seq(351)), 251..=350), (PageOf::After(Seq(100)), 101..=200)] {
        assert_eq!(place.page(ben, id, page_of, 100).await, Ok((expected.collect(), true)), "{page_of:?}");
    }
    let asked = questions.count().await;
    assert!((1..=32).contains(&asked), "{asked} questions for holes");
}

#[tokio::test]
async fn reads_of_the_log_are_bounded_for_each_user() {
    let (place, [ana, ben], id) = Box::pin(long_talk()).await;
    let mut refusal = None;
    for _ in 0..50 {
        refusal = place.page(ana, id, PageOf::Before(Seq(101)), 100).await.err();
        if refusal.is_some() {
            break;
        }
    }
    let refusal = refusal.unwrap();
    assert_eq!(refusal.code, ErrorCode::RateLimited);
    assert!(refusal.retry_after.is_some_and(|wait| wait.as_secs() < 5));
    assert_eq!(place.page(ben, id, PageOf::Before(Seq(101)), 100).await, Ok(((1..=100).collect(), false)));
}
