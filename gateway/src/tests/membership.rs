//! Groups: who may be added, who comes back, and where the read mark of a new participant starts.

use chat_shared::{
    event::{Event, Fact, ParticipantsChanged},
    ids::{ConversationId, UserId},
    position::Seq,
    wire::{Conversation, CreateConversation, ErrorCode, Role},
};
use futures_util::future::join_all;

use super::place::{Place, users};
use crate::refusal::Refusal;

fn group_of(others: &[UserId]) -> CreateConversation {
    CreateConversation::Group { user_ids: others.to_vec() }
}

fn member_ids(conversation: &Conversation) -> Vec<UserId> {
    conversation.participants.iter().map(|participant| participant.user_id).collect()
}

async fn last_change(place: &Place, conversation_id: ConversationId) -> (ParticipantsChanged, Event) {
    let (_, event) = place.log.newest(conversation_id).await.unwrap().unwrap();
    let Fact::ParticipantsChanged(change) = event.fact.clone() else { panic!("{event:?}") };
    (change, event)
}

#[tokio::test]
async fn a_user_is_not_put_into_a_group_by_one_whom_the_user_has_blocked_r6_4() {
    let (place, [ana, ben, eve]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let (old, other) =
        (place.group(ben, &[ana, eve]).await.conversation_id, place.group(ben, &[eve]).await.conversation_id);
    conversations.block(ana, ben).await.unwrap();
    for others in [&[ana][..], &[eve, ana]] {
        assert_eq!(conversations.create(ben, &group_of(others)).await, Err(Refusal::not_to_be_added()));
    }
    assert_eq!(conversations.add(ben, other, &[ana]).await, Err(Refusal::not_to_be_added()));
    assert!(conversations.get(ana, other).await.is_err());

    // Groups that exist go on, others may add the user, and so may the user whom nobody has blocked.
    assert!(place.send(ben, old, "still here").await.is_ok());
    assert_eq!(member_ids(&place.group(eve, &[ana, ben]).await), [eve, ana, ben]);
    assert!(conversations.create(ana, &group_of(&[ben])).await.is_ok());
    conversations.unblock(ana, ben).await.unwrap();
    assert_eq!(member_ids(&conversations.add(ben, other, &[ana]).await.unwrap()), [ben, eve, ana]);
}

#[tokio::test]
async fn a_block_that_is_answered_first_keeps_the_user_out_of_groups_made_at_the_same_time_r6_4() {
    let place = Place::new().await;
    let race = async || {
        let [ana, ben, eve] = users();
        let group = place.group(ben, &[eve]).await.conversation_id;
        let conversations = &place.conversations;
        let request = group_of(&[ana, eve]);
        let blocking = async {
            conversations.block(ana, ben).await.unwrap();
            // Whatever is in a group by now was put there before the block was answered.
            let listed = conversations.list(ana, 10, None).await.unwrap().conversations;
            listed.iter().map(|conversation| conversation.conversation_id).collect::<Vec<_>>()
        };
        let added = [ana];
        let adding = conversations.add(ben, group, &added);
        let making = conversations.create(ben, &request);
        let (by_then, added, made) = tokio::join!(blocking, adding, making);
        let made = made.map(|made| made.conversation.conversation_id);
        for id in [added.map(|conversation| conversation.conversation_id), made] {
            match id {
                Ok(id) => assert!(by_then.contains(&id)),
                Err(refusal) => assert_eq!(refusal, Refusal::not_to_be_added()),
            }
        }
    };
    join_all((0..16).map(|_| race())).await;
}

#[tokio::test]
async fn a_user_who_left_is_not_added_back_and_comes_back_alone() {
    let (place, [owner, member, leaver]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let id = place.group(owner, &[member, leaver]).await.conversation_id;
    conversations.remove(leaver, id, leaver).await.unwrap();
    for users in [&[leaver][..], &[UserId::random(), leaver]] {
        assert_eq!(conversations.add(owner, id, users).await, Err(Refusal::not_to_be_added()));
    }
    let refused = Err(Refusal::no_such_conversation());
    assert_eq!(conversations.add(leaver, id, &[leaver, UserId::random()]).await, refused, "alone");
    assert_eq!(conversations.get(leaver, id).await, refused);
    let back = conversations.add(leaver, id, &[leaver]).await.unwrap();
    assert_eq!(member_ids(&back), [owner, member, leaver]);
    assert_eq!(last_change(&place, id).await.0.returned, [leaver]);
    assert!(place.send(leaver, id, "hello again").await.is_ok());

    // A user whom the owner removed comes back by the owner alone.
    conversations.remove(owner, id, leaver).await.unwrap();
    assert_eq!(conversations.add(leaver, id, &[leaver]).await, refused);
    assert!(conversations.add(owner, id, &[leaver]).await.is_ok());
}

#[tokio::test]
async fn a_user_comes_back_to_a_group_that_has_room_and_owns_one_that_is_empty() {
    let (place, [owner, leaver]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let id = place.group(owner, &[leaver]).await.conversation_id;
    conversations.remove(leaver, id, leaver).await.unwrap();
    conversations.add(owner, id, &users::<7>()).await.unwrap();
    assert_eq!(conversations.add(leaver, id, &[leaver]).await.unwrap_err().code, ErrorCode::Conflict);

    let id = place.group(owner, &[leaver]).await.conversation_id;
    for user_id in [leaver, owner] {
        conversations.remove(user_id, id, user_id).await.unwrap();
    }
    let roles = async |user_id| {
        let group = conversations.add(user_id, id, &[user_id]).await.unwrap();
        group.participants.iter().map(|participant| (participant.user_id, participant.role)).collect::<Vec<_>>()
    };
    assert_eq!(roles(leaver).await, [(leaver, Role::Owner)]);
    assert_eq!(roles(owner).await, [(leaver, Role::Owner), (owner, Role::Member)]);
}

#[tokio::test]
async fn a_new_participant_has_nothing_unread_and_a_returning_one_keeps_the_read_mark_r5_1() {
    let (place, [owner, member, newcomer]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let id = place.group(owner, &[member]).await.conversation_id;
    place.send_many(owner, id, 5).await;
    place.store(id, 5, &[]).await;
    sqlx::query!("update participants set read_seq = 2 where user_id = $1", member.as_uuid())
        .execute(&place.pool)
        .await
        .unwrap();
    conversations.remove(owner, id, member).await.unwrap();
    let added = conversations.add(owner, id, &[newcomer, member]).await.unwrap();
    let since: Vec<_> = added.progress.iter().map(|progress| (progress.user_id, progress.since_seq)).collect();
    assert_eq!(since, [(newcomer, Seq(5)), (member, Seq(5))]);
    let (change, event) = last_change(&place, id).await;
    assert_eq!((change.added, change.returned, event.seq), (vec![newcomer, member], vec![member], Seq(5)));
    for (user_id, read_seq, unread) in [(newcomer, Seq(5), 0), (member, Seq(2), 3)] {
        let shown = conversations.get(user_id, id).await.unwrap();
        assert_eq!((shown.read_seq, shown.unread), (read_seq, unread));
    }
}

#[tokio::test]
async fn the_owner_ends_the_right_of_a_user_who_left_to_come_back() {
    let (place, [owner, member, leaver]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let id = place.group(owner, &[member, leaver]).await.conversation_id;
    conversations.remove(leaver, id, leaver).await.unwrap();
    assert_eq!(conversations.remove(member, id, leaver).await.unwrap_err().code, ErrorCode::Forbidden);
    assert!(conversations.add(leaver, id, &[leaver]).await.is_ok());
    conversations.remove(leaver, id, leaver).await.unwrap();
    conversations.remove(owner, id, leaver).await.unwrap();
    assert_eq!(conversations.add(leaver, id, &[leaver]).await, Err(Refusal::no_such_conversation()));
    assert_eq!(conversations.remove(owner, id, leaver).await, Err(Refusal::no_such_participant()));
    assert!(conversations.add(owner, id, &[leaver]).await.is_ok());
}

#[tokio::test]
async fn a_user_whom_a_gateway_of_an_earlier_version_added_back_can_leave_again() {
    let (place, [owner, member]) = (Place::new().await, users());
    let conversations = &place.conversations;
    let id = place.group(owner, &[member]).await.conversation_id;
    conversations.remove(owner, id, member).await.unwrap();
    let addition = sqlx::query!(
        "insert into participants (conversation_id, user_id, role, joined_at) values ($1, $2, 'member', now())",
        id.as_uuid(),
        member.as_uuid()
    );
    addition.execute(&place.pool).await.unwrap();
    conversations.remove(member, id, member).await.unwrap();
    assert!(conversations.get(member, id).await.is_err());
}

#[tokio::test]
async fn a_change_that_the_log_had_already_marks_nothing_as_read() {
    let (place, [owner, member, newcomer]) = (Place::new().await, users());
    let id = place.group(owner, &[member]).await.conversation_id;
    place.conversations.add(owner, id, &[newcomer]).await.unwrap();
    let (_, event) = last_change(&place, id).await;
    place.send_many(owner, id, 3).await;
    // Of an earlier number, since the log takes the same change once within ten minutes.
    let mut again = event.clone();
    again.participants.version = 0;
    place.sender.append_change(again).await.unwrap();
    let (change, repeated) = last_change(&place, id).await;
    assert_eq!((change.returned, repeated.seq), (vec![newcomer], Seq(3)));
    assert_eq!(repeated.participants, event.participants);
}
