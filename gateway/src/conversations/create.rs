//! Makes conversations: a direct one once for each pair, a group as often as it is asked for.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, UserId},
    position::Seq,
    runs::Runs,
    wire::{Conversation, ConversationKind, ConversationName, CreateConversation, Participant, Progress, Role},
};
use sqlx::Acquire;
use time::OffsetDateTime;

use super::{
    Conversations,
    blocks::{self, blocked_by, direct_of},
    changes::{insert_change, insert_participants},
    rules,
};
use crate::{
    database::{bounded, statement},
    quota::{EVENT_BYTES, Resource},
    refusal::Refusal,
};

/// The answer to a request for a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The conversation.
    pub conversation: Conversation,
    /// Whether this request made it.
    pub is_new: bool,
}

/// A conversation that is about to be made.
struct Draft {
    conversation_id: ConversationId,
    kind: ConversationKind,
    pair: Option<[UserId; 2]>,
    participants: Vec<Participant>,
    created_at: Timestamp,
}

impl Conversations {
    /// Makes a conversation, or finds the direct one that the pair has.
    pub async fn create(&self, creator: UserId, request: &CreateConversation) -> Result<Created, Refusal> {
        let draft = self.draft(creator, request)?;
        let existing = match draft.pair {
            Some(pair) => self.find_direct(pair).await?,
            None => None,
        };
        let (conversation_id, is_new) = if let Some(conversation_id) = existing {
            (conversation_id, false)
        } else {
            self.quotas.check(creator, Resource::Conversations)?;
            self.quotas.check(creator, Resource::LogBytes)?;
            let inserted = self.insert(creator, &draft).await?;
            // At once: a client that leaves ends its request at the next wait.
            if inserted.1 {
                self.quotas.count(creator, Resource::Conversations, 1);
                self.quotas.count(creator, Resource::LogBytes, EVENT_BYTES);
            }
            inserted
        };
        self.database.note_change(&[creator.as_uuid()]).await;
        // If it exists and its maker's gateway died, this publishes it.
        self.outbox.publish(conversation_id).await;
        if is_new {
            let mut conversation = draft.into_conversation(creator);
            self.profiles.dress(creator, std::slice::from_mut(&mut conversation)).await;
            return Ok(Created { conversation, is_new });
        }
        Ok(Created { conversation: self.get_changed(creator, conversation_id).await?, is_new })
    }

    fn draft(&self, creator: UserId, request: &CreateConversation) -> Result<Draft, Refusal> {
        let (kind, pair, participants) = match request {
            CreateConversation::Direct { user_id } => {
                let pair = rules::pair(creator, *user_id)?;
                let participants = [creator, *user_id].map(|user_id| Participant { user_id, role: Role::Member });
                (ConversationKind::Direct, Some(pair), participants.to_vec())
            }
            CreateConversation::Group { user_ids } => (ConversationKind::Group, None, rules::group(creator, user_ids)?),
            CreateConversation::Business { .. } => {
                return Err(Refusal::invalid("a conversation with a business is made elsewhere"));
            }
        };
        let created_at = self.clock.now();
        Ok(Draft { conversation_id: ConversationId::random(), kind, pair, participants, created_at })
    }

    async fn find_direct(&self, pair: [UserId; 2]) -> Result<Option<ConversationId>, Refusal> {
        let mut connection = self.database.connection().await?;
        direct_of(&mut connection, pair).await
    }

    /// Inserts the draft; if another request was faster with the same pair, its conversation and false.
    async fn insert(&self, creator: UserId, draft: &Draft) -> Result<(ConversationId, bool), Refusal> {
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        let added: Vec<_> = draft.participants.iter().map(|participant| participant.user_id).collect();
        if let Some(pair) = draft.pair {
            blocks::lock_pair(&mut transaction, pair).await?;
            if !blocked_by(&mut transaction, pair).await?.is_empty() {
                return Err(Refusal::blocked());
            }
        } else {
            blocks::lock_pairs(&mut transaction, creator, &added).await?;
            if blocks::have_blocked(&mut transaction, creator, &added).await? {
                return Err(Refusal::not_to_be_added());
            }
        }
        let low_and_high = draft.pair.map(|pair| pair.map(UserId::as_uuid));
        let inserted = statement(
            sqlx::query!(
                "insert into conversations
                     (conversation_id, kind, direct_low, direct_high, created_at, last_activity_at)
                 values ($1, $2, $3, $4, $5, $5)
                 on conflict on constraint conversations_direct_pair do nothing",
                draft.conversation_id.as_uuid(),
                draft.kind.as_str(),
                low_and_high.map(|[low, _]| low),
                low_and_high.map(|[_, high]| high),
                OffsetDateTime::from(draft.created_at)
            )
            .execute(&mut *transaction),
        )
        .await?;
        if inserted.rows_affected() == 0
            && let Some(pair) = draft.pair
        {
            // The other request has committed: the insertion waited for it.
            let found = direct_of(&mut transaction, pair).await?;
            return Ok((found.ok_or_else(Refusal::no_such_conversation)?, false));
        }
        let (id, at) = (draft.conversation_id, draft.created_at);
        insert_participants(&mut transaction, id, &draft.participants, at).await?;
        let change = rules::Change { participants: draft.participants.clone(), added, ..rules::Change::default() };
        insert_change(&mut transaction, id, draft.kind, 1, change, Vec::new(), at).await?;
        bounded(transaction.commit()).await?;
        Ok((id, true))
    }
}

impl Draft {
    /// As its maker sees it when it has just been made.
    fn into_conversation(self, creator: UserId) -> Conversation {
        let delivered_seq = (self.kind == ConversationKind::Direct).then_some(Seq::ZERO);
        let others = self.participants.iter().map(|participant| participant.user_id);
        let progress = others.filter(|user_id| *user_id != creator).map(|user_id| Progress {
            user_id,
            since_seq: Seq::ZERO,
            read_seq: Seq::ZERO,
            last_read_message_id: None,
            delivered_seq,
        });
        Conversation {
            progress: progress.collect(),
            conversation_id: self.conversation_id,
            kind: self.kind,
            version: 1,
            name: ConversationName::default(),
            participants: self.participants,
            profiles: Vec::new(),
            business: None,
            case: None,
            is_blocked: false,
            last_seq: Seq::ZERO,
            floor_seq: Seq::ZERO,
            read_seq: Seq::ZERO,
            last_read_message_id: None,
            own_runs: Runs::default(),
            unread: 0,
            mute: None,
            last_message: None,
            created_at: self.created_at,
            last_activity_at: self.created_at,
        }
    }
}
