//! Rebuilds conversations that a restored database lacks or has in an older version, from what events carry.

use std::collections::{BTreeMap, btree_map::Entry};

use chat_shared::{
    clock::Timestamp,
    event::{Event, Participants},
    ids::ConversationId,
    wire::ConversationKind,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::failure::{self, Failure};

/// A conversation as of the newest version among some events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    conversation_id: ConversationId,
    kind: ConversationKind,
    participants: Participants,
    /// When the first of the events was accepted.
    first_at: Timestamp,
}

impl Roster {
    /// One for each conversation that `events` are about, sorted. `events` are in the order of the log.
    pub fn newest(events: impl IntoIterator<Item = Event>) -> Vec<Self> {
        let mut rosters: BTreeMap<Uuid, Self> = BTreeMap::new();
        // Names of a later version would be lost.
        let is_complete = |event: &Event| event.participants.version > 0 && event.has_known_names();
        for event in events.into_iter().filter(is_complete) {
            let Event { conversation_id, kind, participants, sent_at, .. } = event;
            let roster = Self { conversation_id, kind, participants, first_at: sent_at };
            match rosters.entry(conversation_id.as_uuid()) {
                Entry::Vacant(place) => {
                    place.insert(roster);
                }
                Entry::Occupied(mut known) => {
                    if known.get().participants.version < roster.participants.version {
                        known.get_mut().participants = roster.participants;
                    }
                }
            }
        }
        rosters.into_values().collect()
    }
}

/// Brings the conversations of `rosters` up to date where rows are missing or older. Returns how many it rebuilt, and how
/// many it could not, in most cases since their pair has another conversation by now.
pub async fn rebuild(pool: &PgPool, rosters: &[Roster]) -> sqlx::Result<(u64, u64)> {
    let ids: Vec<_> = rosters.iter().map(|roster| roster.conversation_id.as_uuid()).collect();
    let versions: Vec<_> = rosters.iter().map(|roster| roster.participants.version.cast_signed()).collect();
    let older = sqlx::query_scalar!(
        r#"select wanted.conversation_id as "conversation_id!"
           from unnest($1::uuid[], $2::bigint[]) as wanted (conversation_id, version)
           left join conversations c using (conversation_id)
           where c.version is null or c.version < wanted.version"#,
        &ids,
        &versions,
    )
    .fetch_all(pool)
    .await?;
    let (mut rebuilt, mut refused) = (0, 0);
    for roster in rosters.iter().filter(|roster| older.contains(&roster.conversation_id.as_uuid())) {
        let participants = &roster.participants;
        let members: Vec<_> = participants.list.iter().map(|member| member.user_id.as_uuid()).collect();
        let roles: Vec<_> = participants.list.iter().map(|member| member.role.as_str().to_owned()).collect();
        let blockers: Vec<_> = participants.blocked_by.iter().map(|user_id| user_id.as_uuid()).collect();
        let case = participants.business.as_ref().map(|business| business.case);
        let rebuilding = sqlx::query_scalar!(
            r#"select restore_conversation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) as "is_rebuilt!""#,
            roster.conversation_id.as_uuid(),
            roster.kind.as_str(),
            participants.version.cast_signed(),
            &members,
            &roles,
            &blockers,
            OffsetDateTime::from(roster.first_at),
            participants.business.as_ref().map(|business| business.business_id.as_uuid()),
            case.map(|case| case.number.cast_signed()),
            case.map(|case| case.state.as_str()),
            case.map(|case| OffsetDateTime::from(case.waiting_since)),
        );
        let reason = match rebuilding.fetch_one(pool).await {
            Ok(true) => {
                rebuilt += 1;
                continue;
            }
            Ok(false) => "its pair has made another one".to_owned(),
            Err(error) if failure::classify(&error) == Failure::Transient => return Err(error),
            // One that can't be rebuilt must not hold up the others.
            Err(error) => failure::reason(&error),
        };
        refused += 1;
        tracing::error!(
            conversation_id = ?roster.conversation_id,
            reason,
            "a conversation that the restored database lacks is not rebuilt; its messages are stored"
        );
    }
    Ok((rebuilt, refused))
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        event::{Fact, ParticipantsChanged},
        position::{Seq, StreamSeq},
    };

    use super::*;

    fn event(conversation_id: ConversationId, version: u64, at: i64) -> Event {
        Event {
            conversation_id,
            kind: ConversationKind::Group,
            seq: Seq(0),
            sent_at: Timestamp(at),
            previous: StreamSeq::ZERO,
            participants: Participants { version, ..Participants::default() },
            fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
        }
    }

    #[test]
    fn the_newest_version_of_each_conversation_counts() {
        let (one, two) = (ConversationId::random(), ConversationId::random());
        let rosters = Roster::newest([event(one, 2, 1), event(two, 1, 2), event(one, 3, 3), event(one, 1, 4)]);
        assert_eq!(rosters.len(), 2);
        let of_one = rosters.iter().find(|roster| roster.conversation_id == one).unwrap();
        assert_eq!((of_one.participants.version, of_one.first_at), (3, Timestamp(1)));
        assert_eq!(Roster::newest([event(one, 0, 1)]), [], "an event without participants says nothing");
    }
}
