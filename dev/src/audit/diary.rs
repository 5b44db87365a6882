//! What one person was shown, in the order it happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chat_client::{
    ConnectionState, Event, WatchList,
    clock::Timestamp,
    ids::{ConversationId, UserId},
    positions::Seq,
    wire::{Accepted, Conversation, ConversationKind, Message, Participant, ReceiptKind},
};
use tokio::time::Instant;

use super::evidence::DeviceRecord;

/// How a connection began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The gateway's base URL.
    pub gateway: String,
    /// What the gateway said about what was missed.
    pub is_resumed: bool,
}

/// Something that is so, or isn't, and since when.
pub type News = (bool, Instant);

/// A conversation as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    version: u64,
    participants: BTreeSet<UserId>,
    is_blocked: bool,
}

/// Everything the client handed over to one person, through all their connections.
#[derive(Debug, Default)]
pub struct Diary {
    shown: BTreeMap<ConversationId, Vec<Message>>,
    arrivals: Vec<Arrival>,
    reloads: usize,
    reloaded_at: Option<Instant>,
    skipped: Vec<(ConversationId, Seq, Seq)>,
    groups: Vec<ConversationId>,
    conversations: BTreeMap<ConversationId, Known>,
    /// When the newest change of each conversation happened that was pushed.
    changed: BTreeMap<ConversationId, Timestamp>,
    /// How far others have read, as receipts and lists have it.
    reads: BTreeMap<(ConversationId, UserId), Seq>,
    online: HashMap<UserId, News>,
    typing: HashMap<(ConversationId, UserId), News>,
}

impl Diary {
    /// Takes one event down.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.shown.entry(message.conversation_id).or_default().push(message),
            Event::State(ConnectionState::Connected { gateway, resumed, .. }) => {
                self.arrivals.push(Arrival { gateway, is_resumed: resumed });
            }
            Event::Reloaded(conversations) => {
                self.reloads += 1;
                self.reloaded_at = Some(Instant::now());
                self.reload(&conversations);
            }
            Event::Receipt(receipt) if receipt.kind == ReceiptKind::Read => {
                self.note_read(receipt.conversation_id, receipt.user_id, receipt.seq);
            }
            Event::Skipped { conversation_id, from, to } => self.skipped.push((conversation_id, from, to)),
            Event::Conversation(changed) => {
                if changed.kind == ConversationKind::Group {
                    self.groups.push(changed.conversation_id);
                }
                let newest = self.changed.entry(changed.conversation_id).or_default();
                *newest = changed.changed_at.max(*newest);
                let known = Known::of(changed.version, &changed.participants, changed.is_blocked);
                self.note_conversation(changed.conversation_id, known);
            }
            Event::Presence(users) => {
                let now = Instant::now();
                self.online.extend(users.into_iter().map(|user| (user.user_id, (user.is_online, now))));
            }
            // Nobody is watched any more.
            Event::WatchEnded { list: WatchList::Users, .. } => self.online.clear(),
            Event::Typing(typing) => {
                let key = (typing.conversation_id, typing.user_id);
                self.typing.insert(key, (typing.is_typing, Instant::now()));
            }
            _ => {}
        }
    }

    fn note_conversation(&mut self, conversation_id: ConversationId, known: Known) {
        let newest = self.conversations.entry(conversation_id).or_insert_with(|| known.clone());
        if newest.version <= known.version {
            *newest = known;
        }
    }

    fn note_read(&mut self, conversation_id: ConversationId, user_id: UserId, seq: Seq) {
        let furthest = self.reads.entry((conversation_id, user_id)).or_default();
        *furthest = seq.max(*furthest);
    }

    /// The list is complete: the user takes part in nothing else.
    fn reload(&mut self, listed: &[Conversation]) {
        let ids: BTreeSet<_> = listed.iter().map(|conversation| conversation.conversation_id).collect();
        self.conversations.retain(|id, _| ids.contains(id));
        for conversation in listed {
            let known = Known::of(conversation.version, &conversation.participants, conversation.is_blocked);
            self.note_conversation(conversation.conversation_id, known);
            for progress in &conversation.progress {
                self.note_read(conversation.conversation_id, progress.user_id, progress.read_seq);
            }
        }
    }

    /// Whether a user takes part in a conversation, if the client knows it.
    pub fn takes_part(&self, conversation_id: ConversationId, user_id: UserId) -> Option<bool> {
        Some(self.conversations.get(&conversation_id)?.participants.contains(&user_id))
    }

    /// The conversations that a user takes part in, as the client knows them, with their versions.
    pub fn taken_part_in(&self, user_id: UserId) -> impl Iterator<Item = (ConversationId, u64)> {
        let is_in = move |(_, known): &(_, &Known)| known.participants.contains(&user_id);
        self.conversations.iter().filter(is_in).map(|(id, known)| (*id, known.version))
    }

    /// When the newest change of each conversation happened that was pushed.
    pub const fn changed(&self) -> &BTreeMap<ConversationId, Timestamp> {
        &self.changed
    }

    /// When the conversation list was last loaded.
    pub const fn reloaded_at(&self) -> Option<Instant> {
        self.reloaded_at
    }

    /// Whether the other one of a direct conversation is blocked, if the client knows it.
    pub fn is_blocked(&self, conversation_id: ConversationId) -> Option<bool> {
        Some(self.conversations.get(&conversation_id)?.is_blocked)
    }

    /// The messages of a conversation, in the order they were shown.
    pub fn messages(&self, conversation_id: ConversationId) -> &[Message] {
        self.shown.get(&conversation_id).map_or(&[], Vec::as_slice)
    }

    /// Whether an accepted message was shown.
    pub fn has(&self, accepted: &Accepted) -> bool {
        self.messages(accepted.conversation_id).iter().any(|message| message.message_id == accepted.message_id)
    }

    /// How many messages were shown in all.
    pub fn count(&self) -> usize {
        self.shown.values().map(Vec::len).sum()
    }

    /// The connections so far.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// How often the conversation list was loaded.
    pub const fn reloads(&self) -> usize {
        self.reloads
    }

    /// Messages that the client gave up on.
    pub fn skipped(&self) -> &[(ConversationId, Seq, Seq)] {
        &self.skipped
    }

    /// How many messages of a conversation the client gave up on.
    pub fn skipped_in(&self, conversation_id: ConversationId) -> u64 {
        self.skipped.iter().filter(|(id, ..)| *id == conversation_id).map(count).sum()
    }

    /// As evidence.
    pub fn record(&self, name: &str, user_id: UserId) -> DeviceRecord {
        DeviceRecord {
            name: name.to_owned(),
            user_id,
            messages: self.shown.values().flatten().cloned().collect(),
            skipped: self.skipped.iter().map(count).sum(),
            versions: self.conversations.iter().map(|(id, known)| (*id, known.version)).collect(),
            reads: self.reads.clone(),
            reloaded_at: self.reloaded_at,
        }
    }

    /// Whether news of this group came.
    pub fn knows_group(&self, conversation_id: ConversationId) -> bool {
        self.groups.contains(&conversation_id)
    }

    /// Whether a watched user is online, as told last.
    pub fn online(&self, user_id: UserId) -> Option<News> {
        self.online.get(&user_id).copied()
    }

    /// Whether somebody writes in a conversation, as told last.
    pub fn typing(&self, conversation_id: ConversationId, user_id: UserId) -> Option<News> {
        self.typing.get(&(conversation_id, user_id)).copied()
    }
}

/// The messages of a range, the first and the last one included.
const fn count((_, from, to): &(ConversationId, Seq, Seq)) -> u64 {
    to.0.saturating_sub(from.0) + 1
}

impl Known {
    fn of(version: u64, participants: &[Participant], is_blocked: bool) -> Self {
        let participants = participants.iter().map(|participant| participant.user_id).collect();
        Self { version, participants, is_blocked }
    }
}
