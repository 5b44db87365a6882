//! What one person was shown, in the order it happened.

use std::collections::{BTreeMap, HashMap};

use chat_client::{
    ConnectionState, Event,
    ids::{ConversationId, UserId},
    positions::Seq,
    wire::{ConversationKind, Message},
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

/// Everything the client handed over to one person, through all their connections.
#[derive(Debug, Default)]
pub struct Diary {
    shown: BTreeMap<ConversationId, Vec<Message>>,
    arrivals: Vec<Arrival>,
    reloads: usize,
    skipped: Vec<(ConversationId, Seq, Seq)>,
    groups: Vec<ConversationId>,
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
            Event::Reloaded(_) => self.reloads += 1,
            Event::Skipped { conversation_id, from, to } => self.skipped.push((conversation_id, from, to)),
            Event::Conversation(changed) if changed.kind == ConversationKind::Group => {
                self.groups.push(changed.conversation_id);
            }
            Event::Presence(users) => {
                let now = Instant::now();
                self.online.extend(users.into_iter().map(|user| (user.user_id, (user.is_online, now))));
            }
            // Nobody is watched any more.
            Event::WatchEnded { .. } => self.online.clear(),
            Event::Typing(typing) => {
                let key = (typing.conversation_id, typing.user_id);
                self.typing.insert(key, (typing.is_typing, Instant::now()));
            }
            _ => {}
        }
    }

    /// The messages of a conversation, in the order they were shown.
    pub fn messages(&self, conversation_id: ConversationId) -> &[Message] {
        self.shown.get(&conversation_id).map_or(&[], Vec::as_slice)
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

    /// As evidence.
    pub fn record(&self, name: &str, user_id: UserId) -> DeviceRecord {
        DeviceRecord {
            name: name.to_owned(),
            user_id,
            messages: self.shown.values().flatten().cloned().collect(),
            skipped: self.skipped.iter().map(|(_, from, to)| to.0.saturating_sub(from.0) + 1).sum(),
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
