//! Who may be in a conversation and who may change it. Pure.

use std::collections::HashSet;

use chat_shared::{
    ids::UserId,
    limits,
    wire::{ConversationKind, Participant, Role},
};

use crate::refusal::Refusal;

/// A change of participants that is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Who takes part after it, in the order of joining.
    pub participants: Vec<Participant>,
    /// Who joins.
    pub added: Vec<UserId>,
    /// Who leaves or is removed.
    pub removed: Option<UserId>,
    /// Who becomes the owner by it.
    pub promoted: Option<UserId>,
}

/// The answer when a ninth would join.
pub fn full() -> Refusal {
    Refusal::conflict(format!("the group is full ({})", limits::GROUP_PARTICIPANTS_MAX))
}

/// The pair of a direct conversation, the smaller id first.
pub fn pair(creator: UserId, other: UserId) -> Result<[UserId; 2], Refusal> {
    if creator == other {
        return Err(Refusal::invalid("`user_id` is yourself; a direct conversation is with somebody else"));
    }
    Ok(if creator < other { [creator, other] } else { [other, creator] })
}

/// A new group: its owner first, then the others as named.
pub fn group(creator: UserId, others: &[UserId]) -> Result<Vec<Participant>, Refusal> {
    let mut seen = HashSet::from([creator]);
    let others = others.iter().copied().filter(|user_id| seen.insert(*user_id));
    let members = others.map(|user_id| Participant { user_id, role: Role::Member });
    let participants: Vec<_> =
        std::iter::once(Participant { user_id: creator, role: Role::Owner }).chain(members).collect();
    let allowed = limits::GROUP_PARTICIPANTS_MIN..=limits::GROUP_PARTICIPANTS_MAX;
    if allowed.contains(&participants.len()) {
        return Ok(participants);
    }
    Err(Refusal::invalid(format!(
        "`user_ids` names {} others; a group is made with {} to {}",
        participants.len() - 1,
        allowed.start() - 1,
        allowed.end() - 1
    )))
}

/// Adds users to a conversation. None if all of them are in it already.
pub fn addition(
    kind: ConversationKind,
    current: &[Participant],
    by: UserId,
    user_ids: &[UserId],
) -> Result<Option<Change>, Refusal> {
    let role = role_of(current, by)?;
    groups_only(kind, "a direct conversation has exactly two participants; make a group instead")?;
    owner_only(role)?;
    let mut seen: HashSet<_> = current.iter().map(|participant| participant.user_id).collect();
    let added: Vec<_> = user_ids.iter().copied().filter(|user_id| seen.insert(*user_id)).collect();
    if added.is_empty() {
        return Ok(None);
    }
    if seen.len() > limits::GROUP_PARTICIPANTS_MAX {
        return Err(full());
    }
    let joining = added.iter().map(|&user_id| Participant { user_id, role: Role::Member });
    let participants = current.iter().copied().chain(joining).collect();
    Ok(Some(Change { participants, added, ..Change::default() }))
}

/// Adds a user who left a group and comes back.
pub fn comeback(current: &[Participant], user_id: UserId) -> Result<Change, Refusal> {
    if current.len() >= limits::GROUP_PARTICIPANTS_MAX {
        return Err(full());
    }
    let role = if current.is_empty() { Role::Owner } else { Role::Member };
    let participants = current.iter().copied().chain([Participant { user_id, role }]).collect();
    Ok(Change { participants, added: vec![user_id], ..Change::default() })
}

/// Removes a user, or lets them leave. The longest-standing member succeeds an owner who leaves.
pub fn removal(kind: ConversationKind, current: &[Participant], by: UserId, target: UserId) -> Result<Change, Refusal> {
    let role = role_of(current, by)?;
    groups_only(kind, "a direct conversation has exactly two participants; nobody can leave it")?;
    if by != target {
        owner_only(role)?;
    }
    let Some(leaver) = current.iter().find(|participant| participant.user_id == target) else {
        return Err(Refusal::no_such_participant());
    };
    let mut participants: Vec<_> =
        current.iter().copied().filter(|participant| participant.user_id != target).collect();
    let mut promoted = None;
    if leaver.role == Role::Owner
        && let Some(eldest) = participants.first_mut()
    {
        eldest.role = Role::Owner;
        promoted = Some(eldest.user_id);
    }
    Ok(Change { participants, removed: Some(target), promoted, ..Change::default() })
}

fn role_of(current: &[Participant], user_id: UserId) -> Result<Role, Refusal> {
    let participant = current.iter().find(|participant| participant.user_id == user_id);
    participant.map(|participant| participant.role).ok_or_else(Refusal::no_such_conversation)
}

fn groups_only(kind: ConversationKind, of_direct: &'static str) -> Result<(), Refusal> {
    match kind {
        ConversationKind::Direct => Err(Refusal::conflict(of_direct)),
        ConversationKind::Business => Err(Refusal::conflict(
            "the participants of a business conversation change with its case: use /v1/conversations/{id}/agent",
        )),
        ConversationKind::Group | ConversationKind::Unknown => Ok(()),
    }
}

fn owner_only(role: Role) -> Result<(), Refusal> {
    match role {
        Role::Owner => Ok(()),
        Role::Member | Role::Customer | Role::Agent | Role::Business | Role::Unknown => {
            Err(Refusal::forbidden("only the group's owner adds and removes others"))
        }
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    fn users<const N: usize>() -> [UserId; N] {
        std::array::from_fn(|_| UserId::random())
    }

    fn of(owner: UserId, members: &[UserId]) -> Vec<Participant> {
        group(owner, members).unwrap()
    }

    #[test]
    fn a_direct_conversation_is_with_somebody_else_and_the_same_from_both_sides_r2_1() {
        let [ana, ben] = users();
        assert_eq!(pair(ana, ben).unwrap(), pair(ben, ana).unwrap());
        assert_eq!(pair(ana, ana).unwrap_err().code, ErrorCode::Invalid);
    }

    #[test]
    fn a_group_is_made_with_two_to_eight_r2_2() {
        let others: [UserId; 8] = users();
        let owner = UserId::random();
        for count in 0..=8 {
            assert_eq!(group(owner, &others[..count]).is_ok(), (1..=7).contains(&count), "{count} others");
        }
        let folded = group(owner, &[others[0], owner, others[0], others[1]]).unwrap();
        assert_eq!(folded.len(), 3);
        assert_eq!(folded[0], Participant { user_id: owner, role: Role::Owner });
        assert_eq!(group(owner, &[owner, owner]).unwrap_err().code, ErrorCode::Invalid);
    }

    #[test]
    fn only_the_owner_adds_and_nobody_twice() {
        let [owner, member, newcomer, stranger] = users();
        let current = of(owner, &[member]);
        let add = |by, ids: &[UserId]| addition(ConversationKind::Group, &current, by, ids);
        let change = add(owner, &[member, newcomer, newcomer]).unwrap().unwrap();
        assert_eq!(change.added, [newcomer]);
        assert_eq!(change.participants.len(), 3);
        assert_eq!(add(owner, &[member, owner]), Ok(None));
        assert_eq!(add(member, &[newcomer]).unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(add(stranger, &[stranger]), Err(Refusal::no_such_conversation()));
        let others: [UserId; 7] = users();
        assert_eq!(add(owner, &others), Err(full()));
        assert!(add(owner, &others[..6]).is_ok());
        let direct = addition(ConversationKind::Direct, &current, owner, &[newcomer]);
        assert_eq!(direct.unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn the_longest_standing_member_succeeds_the_owner() {
        let [owner, eldest, youngest, stranger] = users();
        let current = of(owner, &[eldest, youngest]);
        let remove = |by, target| removal(ConversationKind::Group, &current, by, target);
        let left = remove(owner, owner).unwrap();
        assert_eq!(left.promoted, Some(eldest));
        assert_eq!(left.participants[0], Participant { user_id: eldest, role: Role::Owner });
        assert_eq!(remove(youngest, youngest).unwrap().promoted, None);
        assert_eq!(remove(owner, youngest).unwrap().removed, Some(youngest));
        assert_eq!(remove(eldest, youngest).unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(remove(owner, stranger).unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(remove(stranger, stranger), Err(Refusal::no_such_conversation()));
        let direct = removal(ConversationKind::Direct, &current, owner, owner);
        assert_eq!(direct.unwrap_err().code, ErrorCode::Conflict);
        let last = removal(ConversationKind::Group, &current[..1], owner, owner).unwrap();
        assert!(last.participants.is_empty());
    }
}
