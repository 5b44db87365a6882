//! Conversations and their participants: races, bounds, order, and what is nobody else's.

use std::collections::HashSet;

use chat_shared::{
    ids::{ConversationId, UserId},
    limits,
    position::Seq,
    wire::{CreateConversation, ErrorCode, Role},
};
use futures_util::future::join_all;
use time::OffsetDateTime;
use uuid::Uuid;

use super::place::{Place, users};
use crate::{history::Place as PageOf, refusal::Refusal};

#[tokio::test]
async fn a_pair_has_one_direct_conversation_though_sixteen_ask_at_once_r2_1() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let asked = join_all((0..16).map(|turn| {
        let (from, to) = if turn % 2 == 0 { (ana, ben) } else { (ben, ana) };
        let place = &place;
        async move { place.conversations.create(from, &CreateConversation::Direct { user_id: to }).await.unwrap() }
    }));
    let answers = asked.await;
    let ids: HashSet<_> = answers.iter().map(|answer| answer.conversation.conversation_id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.is_new).count(), 1);
    assert!(answers.iter().all(|answer| answer.conversation.participants.len() == 2));
    assert!(answers.iter().all(|answer| answer.conversation.version == 1));
}

#[tokio::test]
async fn the_database_itself_keeps_a_direct_conversation_at_two_r2_1() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let id = place.direct(ana, ben).await.conversation_id.as_uuid();
    let third = sqlx::query!(
        "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', now())",
        id,
        eve.as_uuid()
    );
    assert!(third.execute(&place.pool).await.is_err());
    let one = sqlx::query!("delete from participants where conversation_id = $1 and user_id = $2", id, ben.as_uuid());
    assert!(one.execute(&place.pool).await.is_err());
    let conversations = &place.conversations;
    let conversation_id = ConversationId::try_from(id).unwrap();
    assert_eq!(conversations.remove(ana, conversation_id, ana).await.unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(conversations.add(ana, conversation_id, &[eve]).await.unwrap_err().code, ErrorCode::Conflict);
    let oneself = conversations.create(ana, &CreateConversation::Direct { user_id: ana }).await;
    assert_eq!(oneself.unwrap_err().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn eight_are_in_a_group_though_twelve_are_added_at_once_r2_2() {
    let (place, [owner, member]) = (Place::new().await, users());
    let conversation_id = place.group(owner, &[member]).await.conversation_id;
    let newcomers: [UserId; 12] = users();
    let adding = newcomers.chunks(1).map(|one| place.conversations.add(owner, conversation_id, one));
    let answers = join_all(adding).await;
    let (added, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((added.len(), refused.len()), (6, 6));
    for refusal in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(refusal, Refusal::conflict("the group is full (8)"));
    }
    let group = place.conversations.get(member, conversation_id).await.unwrap();
    assert_eq!((group.participants.len(), group.version), (8, 7));
    let (_, newest) = place.log.newest(conversation_id).await.unwrap().unwrap();
    assert_eq!((newest.participants.list, newest.participants.version), (group.participants, 7));
}

#[tokio::test]
async fn the_database_itself_keeps_a_group_at_eight_r2_2() {
    let (place, owner) = (Place::new().await, UserId::random());
    let id = place.group(owner, &users::<7>()).await.conversation_id.as_uuid();
    let ninth = sqlx::query!(
        "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', now())",
        id,
        UserId::random().as_uuid()
    );
    let error = ninth.execute(&place.pool).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().constraint(), Some("conversations_participants_max"));
}

#[tokio::test]
async fn those_in_the_group_already_are_passed_over() {
    let (place, [owner, member, newcomer]) = (Place::new().await, users());
    let group = place.group(owner, &[member, member, owner]).await;
    let again = place.conversations.add(owner, group.conversation_id, &[member, owner]).await.unwrap();
    assert_eq!(again, group);
    let grown = place.conversations.add(owner, group.conversation_id, &[member, newcomer, newcomer]).await.unwrap();
    assert_eq!((grown.version, grown.participants.len()), (2, 3));
    let nobody = place.conversations.add(owner, group.conversation_id, &[]).await;
    assert_eq!(nobody.unwrap_err().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn the_owner_is_succeeded_by_whoever_has_been_there_longest() {
    let (place, [owner, eldest, youngest]) = (Place::new().await, users());
    let conversation_id = place.group(owner, &[eldest]).await.conversation_id;
    place.conversations.add(owner, conversation_id, &[youngest]).await.unwrap();
    place.conversations.remove(owner, conversation_id, owner).await.unwrap();
    let group = place.conversations.get(youngest, conversation_id).await.unwrap();
    let roles: Vec<_> = group.participants.iter().map(|participant| (participant.user_id, participant.role)).collect();
    assert_eq!(roles, [(eldest, Role::Owner), (youngest, Role::Member)]);
    place.conversations.remove(eldest, conversation_id, youngest).await.unwrap();
    place.conversations.remove(eldest, conversation_id, eldest).await.unwrap();
    let gone = place.conversations.get(eldest, conversation_id).await;
    assert_eq!(gone, Err(Refusal::no_such_conversation()));
}

#[tokio::test]
async fn a_change_fences_sending_and_reading_at_once_r6_4() {
    let (place, [owner, member, newcomer]) = (Place::new().await, users());
    let conversation_id = place.group(owner, &[member]).await.conversation_id;
    place.send_many(member, conversation_id, 2).await;
    let refused = Err(Refusal::no_such_conversation());
    assert_eq!(place.send(newcomer, conversation_id, "3").await, refused);
    place.conversations.add(owner, conversation_id, &[newcomer]).await.unwrap();
    place.send_many(newcomer, conversation_id, 1).await;
    let history = place.page(newcomer, conversation_id, PageOf::Newest, 10).await;
    assert_eq!(history, Ok((vec![1, 2, 3], false)), "who joins reads what was written before");
    place.conversations.remove(owner, conversation_id, member).await.unwrap();
    assert_eq!(place.send(member, conversation_id, "4").await, refused);
    let history = place.page(member, conversation_id, PageOf::Newest, 10).await;
    assert_eq!(history, Err(Refusal::no_such_conversation()));
}

#[tokio::test]
async fn a_stranger_gets_the_answer_for_a_conversation_that_does_not_exist_r6_4() {
    let (place, [owner, member, stranger]) = (Place::new().await, users());
    let group = place.group(owner, &[member]).await.conversation_id;
    let direct = place.direct(owner, member).await.conversation_id;
    for conversation_id in [group, direct, ConversationId::random()] {
        let conversations = &place.conversations;
        let answers = [
            conversations.get(stranger, conversation_id).await.map(drop),
            conversations.add(stranger, conversation_id, &[stranger]).await.map(drop),
            conversations.remove(stranger, conversation_id, stranger).await,
            conversations.remove(stranger, conversation_id, member).await,
            place.send(stranger, conversation_id, "let me in").await.map(drop),
            place.page(stranger, conversation_id, PageOf::Newest, 10).await.map(drop),
        ];
        for answer in answers {
            assert_eq!(answer, Err(Refusal::no_such_conversation()));
        }
    }
    assert!(place.conversations.list(stranger, 10, None).await.unwrap().conversations.is_empty());
    let by_member = place.conversations.add(member, group, &[stranger]).await;
    assert_eq!(by_member.unwrap_err().code, ErrorCode::Forbidden);
    let by_member = place.conversations.remove(member, group, owner).await;
    assert_eq!(by_member.unwrap_err().code, ErrorCode::Forbidden);
    let of_nobody = place.conversations.remove(owner, group, stranger).await;
    assert_eq!(of_nobody, Err(Refusal::no_such_participant()));
}

#[tokio::test]
async fn the_list_is_paged_by_latest_activity_without_gaps_or_repeats() {
    let (place, ana) = (Place::new().await, UserId::random());
    let mut expected = Vec::new();
    for number in 0..7_i64 {
        let conversation = place.direct(ana, UserId::random()).await;
        // Three share a moment, so the id decides between them.
        let minutes_ago = if (2..5).contains(&number) { 3 } else { number };
        let at = OffsetDateTime::from_unix_timestamp(1_767_225_600 - minutes_ago * 60).unwrap();
        place.store_old(ana, &conversation, 1, at).await;
        expected.push((at, conversation.conversation_id));
    }
    expected.sort_unstable();
    expected.reverse();
    for limit in [1, 2, 3, 7, 100] {
        let (mut shown, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = place.conversations.list(ana, limit, cursor.as_deref()).await.unwrap();
            assert!(page.conversations.len() <= limit);
            for conversation in &page.conversations {
                assert_eq!(conversation.last_message.as_ref().unwrap().text, "1");
                assert_eq!(conversation.last_message.as_ref().unwrap().sent_at, conversation.last_activity_at);
                assert_eq!(conversation.participants.len(), 2);
            }
            shown.extend(page.conversations.iter().map(|conversation| conversation.conversation_id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(shown, expected.iter().map(|(_, id)| *id).collect::<Vec<_>>(), "limit {limit}");
    }
    let wrong = place.conversations.list(ana, 10, Some("nonsense")).await;
    assert_eq!(wrong.unwrap_err().code, ErrorCode::Invalid);
}

#[tokio::test]
async fn unread_is_derived_from_last_read_and_floor() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let conversation_id = place.direct(ana, ben).await.conversation_id;
    place.send_many(ana, conversation_id, 10).await;
    place.store(conversation_id, 10, &[]).await;
    for (read, floor, unread) in [(0, 0, 10), (4, 0, 6), (4, 7, 3), (10, 7, 0), (10, 10, 0)] {
        sqlx::query!("update participants set read_seq = $1 where user_id = $2", read, ben.as_uuid())
            .execute(&place.pool)
            .await
            .unwrap();
        sqlx::query!("update conversations set floor_seq = $1", floor).execute(&place.pool).await.unwrap();
        let listed = place.conversations.list(ben, 1, None).await.unwrap().conversations.remove(0);
        assert_eq!((listed.unread, listed.last_seq), (unread, Seq(10)), "read {read}, floor {floor}");
        assert_eq!(listed.last_message.is_some(), floor < 10, "what has been aged out is not shown");
        assert_eq!(listed, place.conversations.get(ben, conversation_id).await.unwrap());
    }
}

/// So many groups of a user alone, each of them active a second before the one before, with one message each.
async fn insert_groups(place: &Place, user_id: UserId, count: i32) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..count).map(|_| ConversationId::random().as_uuid()).collect();
    sqlx::query!(
        "insert into conversations (conversation_id, kind, last_seq, created_at, last_activity_at)
         select conversation_id, 'group', 1, '2026-01-01', timestamptz '2026-01-02' - make_interval(secs => number)
         from unnest($1::uuid[]) with ordinality as made (conversation_id, number)",
        &ids
    )
    .execute(&place.pool)
    .await
    .unwrap();
    sqlx::query!(
        "insert into participants (conversation_id, user_id, role, joined_at)
         select conversation_id, $2, 'owner', '2026-01-01' from unnest($1::uuid[]) as made (conversation_id)",
        &ids,
        user_id.as_uuid()
    )
    .execute(&place.pool)
    .await
    .unwrap();
    ids
}

/// The user's list, so many at a time.
async fn list_all(place: &Place, user_id: UserId, limit: usize) -> Vec<Uuid> {
    let (mut shown, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = place.conversations.list(user_id, limit, cursor.as_deref()).await.unwrap();
        shown.extend(page.conversations.iter().map(|conversation| conversation.conversation_id.as_uuid()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return shown;
        }
    }
}

#[tokio::test]
async fn lists_are_in_order_though_their_index_lags() {
    let (place, [ana]) = (Place::new().await, users());
    let ids = insert_groups(&place, ana, 60).await;
    let lag = i32::try_from(limits::LIST_LAG_MAX.as_secs()).unwrap();
    sqlx::query!(
        "update participants
         set listed_at = listed_at - make_interval(secs => abs(hashtext(conversation_id::text)) % ($1::int + 1))",
        lag
    )
    .execute(&place.pool)
    .await
    .unwrap();
    for limit in [1, 4, 25, 100] {
        assert_eq!(list_all(&place, ana, limit).await, ids, "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_of_a_list_reads_its_own_conversations_alone() {
    let (place, [ana]) = (Place::new().await, users());
    let ids = insert_groups(&place, ana, 500).await;
    // Counts the conversations that the gateway's statements look at.
    let counting = "create sequence looks;
        create function looked() returns boolean language plpgsql volatile cost 100000 security definer
            as $$ begin perform nextval('public.looks'); return true; end $$;
        alter table conversations enable row level security;
        create policy counted on conversations using (looked());
        analyze";
    sqlx::raw_sql(counting).execute(&place.pool).await.unwrap();
    let page = place.conversations.list(ana, 10, None).await.unwrap();
    let shown: Vec<_> = page.conversations.iter().map(|conversation| conversation.conversation_id.as_uuid()).collect();
    assert_eq!(shown, ids[..10]);
    let looks: i64 =
        sqlx::query_scalar!(r#"select last_value as "looks!" from pg_sequences where sequencename = 'looks'"#)
            .fetch_one(&place.pool)
            .await
            .unwrap();
    assert!((10..=60).contains(&looks), "{looks} of 500 conversations were looked at");
}

#[tokio::test]
async fn unread_is_summed_over_a_bounded_number_of_conversations() {
    let (place, [ana]) = (Place::new().await, users());
    let bound = i32::try_from(limits::UNREAD_CONVERSATIONS_MAX).unwrap();
    let ids = insert_groups(&place, ana, bound + 5).await;
    let total = place.conversations.unread(ana).await.unwrap();
    assert_eq!((total.messages, total.conversations), (1000, 1000));
    sqlx::query!("update participants set read_seq = 1 where conversation_id = any($1)", &ids[..10])
        .execute(&place.pool)
        .await
        .unwrap();
    let total = place.conversations.unread(ana).await.unwrap();
    assert_eq!((total.messages, total.conversations), (990, 990));
}

#[tokio::test]
async fn unread_is_its_definition_r5_1() {
    let place = Place::new().await;
    let count = async |last: i64, read: i64, floor: i64, own: &str| {
        let counting = sqlx::query_scalar!(
            r#"select unread_count($1, $2, $3, $4::text::int8multirange) as "unread!""#,
            last,
            floor,
            read,
            own
        );
        counting.fetch_one(&place.pool).await.unwrap()
    };
    assert_eq!(count(0, 0, 0, "{}").await, 0);
    assert_eq!(count(10, 0, 0, "{}").await, 10);
    assert_eq!(count(10, 4, 0, "{}").await, 6);
    assert_eq!(count(10, 4, 7, "{}").await, 3, "what has been aged out is not unread");
    assert_eq!(count(10, 10, 7, "{}").await, 0);
    assert_eq!(count(10, 12, 0, "{}").await, 0, "a read mark that was stored before its message");
    assert_eq!(count(10, 4, 0, "{[6,7],[9,9]}").await, 3, "own messages are not unread");
    assert_eq!(count(10, 4, 7, "{[6,7],[9,9]}").await, 2, "those that were aged out are not taken off twice");
}
