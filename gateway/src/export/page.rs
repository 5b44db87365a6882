//! A page of an export: lines of JSON up to a bound. Pure.

use std::time::Duration;

use chat_shared::{
    clock::Timestamp,
    ids::UserId,
    wire::{Block, Device},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::ExportCursor;
use crate::{conversations::ExportedConversation, history::ExportedMessage, refusal::Refusal};

/// How much a page has.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "bounds end in `_max`")]
pub struct Bounds {
    /// Lines of conversations and messages.
    pub lines_max: usize,
    /// Bytes of all lines but the last one. A page has one line of a conversation or message in any case.
    pub bytes_max: usize,
    /// Time to gather them: half of the deadline of a request, so that lines that were gathered are answered.
    pub time_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { lines_max: 1000, bytes_max: 4 * 1024 * 1024, time_max: Duration::from_secs(15) }
    }
}

/// A line of an export, by `type`.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExportLine {
    /// The first line of the first page.
    User(ExportedUser),
    /// A conversation; its messages follow.
    Conversation(ExportedConversation),
    /// A message of the last conversation before it, also of one on an earlier page.
    Message(ExportedMessage),
    /// The last line of a page: repeat the request with this cursor.
    Next {
        /// Where the next page begins.
        cursor: String,
    },
    /// The last line of the last page.
    End,
}

/// The user, with data that belongs to no conversation.
#[derive(Serialize, ToSchema)]
pub struct ExportedUser {
    /// The id of the user.
    pub user_id: UserId,
    /// When the export began, in milliseconds since 1970.
    pub exported_at: Timestamp,
    /// Users that the user has blocked, the latest first.
    pub blocks: Vec<Block>,
    /// Devices that are registered for notifications, without their addresses.
    pub devices: Vec<Device>,
}

/// Lines that are gathered.
pub struct Page {
    bounds: Bounds,
    bytes: Vec<u8>,
    lines: usize,
    /// How many of the lines are messages.
    pub messages: u64,
    /// Up to where everything is exported. None before the first conversation.
    pub place: Option<ExportCursor>,
}

impl Page {
    /// An empty page that begins after `place`.
    pub const fn new(bounds: Bounds, place: Option<ExportCursor>) -> Self {
        Self { bounds, bytes: Vec::new(), lines: 0, messages: 0, place }
    }

    /// Begins an export.
    pub fn begin(&mut self, user: ExportedUser) -> Result<(), Refusal> {
        self.bytes = encode(&ExportLine::User(user))?;
        Ok(())
    }

    /// Adds the line of a conversation; false if there is no room for it.
    pub fn add_conversation(&mut self, conversation: ExportedConversation) -> Result<bool, Refusal> {
        let place = ExportCursor::beginning_of(conversation.conversation_id);
        self.add(&ExportLine::Conversation(conversation), place)
    }

    /// Adds the line of a message; false if there is no room for it.
    pub fn add_message(&mut self, message: ExportedMessage) -> Result<bool, Refusal> {
        let place = ExportCursor { conversation_id: message.conversation_id, seq: message.seq };
        let is_added = self.add(&ExportLine::Message(message), place)?;
        self.messages += u64::from(is_added);
        Ok(is_added)
    }

    fn add(&mut self, line: &ExportLine, place: ExportCursor) -> Result<bool, Refusal> {
        let line = encode(line)?;
        let has_room = self.lines < self.bounds.lines_max && self.bytes.len() + line.len() <= self.bounds.bytes_max;
        if !has_room && self.lines > 0 {
            return Ok(false);
        }
        self.bytes.extend(line);
        self.lines += 1;
        self.place = Some(place);
        Ok(true)
    }

    /// The last page.
    pub fn end(self) -> Result<Vec<u8>, Refusal> {
        self.with_last(&ExportLine::End)
    }

    /// A page; the next one begins after `place`.
    pub fn continued(self, place: ExportCursor) -> Result<Vec<u8>, Refusal> {
        self.with_last(&ExportLine::Next { cursor: place.encode() })
    }

    fn with_last(mut self, line: &ExportLine) -> Result<Vec<u8>, Refusal> {
        self.bytes.extend(encode(line)?);
        Ok(self.bytes)
    }
}

fn encode(line: &ExportLine) -> Result<Vec<u8>, Refusal> {
    let mut line = serde_json::to_vec(line).map_err(|error| Refusal::internal(&error))?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        ids::{ConversationId, MessageId},
        position::Seq,
        wire::{ConversationKind, Role},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::history::Unreadable;

    #[expect(clippy::option_option, reason = "as in the message")]
    fn message(seq: u64, text: Option<Option<String>>) -> ExportedMessage {
        ExportedMessage {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
            seq: Seq(seq),
            sent_at: Timestamp(7),
            reason: matches!(text, Some(None)).then_some(Unreadable::KeyDestroyed),
            text,
        }
    }

    fn lines(bytes: &[u8]) -> Vec<Value> {
        std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_look_as_documented() {
        let document = include_str!("../../../docs/kaha.md").split_once("```ndjson\n").unwrap().1;
        let documented = lines(document.split("```").next().unwrap().as_bytes());
        let read = |line: usize, name: &str| documented[line][name].clone();
        let [ana, ben] = [(2, "sender_id"), (3, "sender_id")].map(|(line, name)| read(line, name));
        let device = serde_json::from_value(read(0, "devices")[0].clone()).unwrap();
        let mut page = Page::new(Bounds::default(), None);
        let (user_id, exported_at) = (serde_json::from_value(ana).unwrap(), Timestamp(1_767_225_600_000));
        page.begin(ExportedUser { user_id, exported_at, blocks: Vec::new(), devices: vec![device] }).unwrap();
        let conversation_id = serde_json::from_value(read(1, "conversation_id")).unwrap();
        let ben = serde_json::from_value(ben).unwrap();
        let at = Timestamp(1_767_100_000_000);
        let conversation = ExportedConversation {
            conversation_id,
            kind: ConversationKind::Direct,
            is_participant: true,
            role: Some(Role::Member),
            joined_at: Some(at),
            created_at: at,
            business_id: None,
            participants: vec![ben],
            read_seq: Seq(2),
            last_read_message_id: None,
            mute: None,
        };
        assert!(page.add_conversation(conversation).unwrap());
        for (seq, sender_id, text) in [(1, user_id, Some(Some("Namaste".to_owned()))), (2, ben, None)] {
            let message_id = serde_json::from_value(read(seq + 1, "message_id")).unwrap();
            let sent_at = serde_json::from_value(read(seq + 1, "sent_at")).unwrap();
            let seq = Seq(u64::try_from(seq).unwrap());
            let message = ExportedMessage { conversation_id, message_id, sender_id, seq, sent_at, text, reason: None };
            assert!(page.add_message(message).unwrap());
        }
        let place = page.place.unwrap();
        assert_eq!(lines(&page.continued(place).unwrap()), documented);
    }

    #[test]
    fn a_page_has_as_many_lines_as_it_may_and_one_in_any_case() {
        let bounds = Bounds { lines_max: 2, bytes_max: 1000, ..Bounds::default() };
        let mut page = Page::new(bounds, None);
        let added: Vec<_> = (1..=3).map(|seq| page.add_message(message(seq, None)).unwrap()).collect();
        assert_eq!((added, page.messages), (vec![true, true, false], 2));
        assert_eq!(page.place.unwrap().seq, Seq(2));
        let mut page = Page::new(Bounds { bytes_max: 1, ..bounds }, None);
        assert!(page.add_message(message(1, Some(Some("x".repeat(8192))))).unwrap());
        assert!(!page.add_message(message(2, None)).unwrap());
        let place = page.place.unwrap();
        assert_eq!(lines(&page.continued(place).unwrap())[1], json!({ "type": "next", "cursor": place.encode() }));
    }

    #[test]
    fn a_text_is_there_or_null_with_a_reason_or_absent() {
        let mut page = Page::new(Bounds::default(), None);
        for text in [Some(Some("a\nb\u{2028}".to_owned())), Some(None), None] {
            assert!(page.add_message(message(1, text)).unwrap());
        }
        let lines = lines(&page.end().unwrap());
        assert_eq!(lines.len(), 4, "a text has no line break of its own");
        assert_eq!((&lines[0]["type"], &lines[0]["text"]), (&json!("message"), &json!("a\nb\u{2028}")));
        assert_eq!((lines[1].get("text"), &lines[1]["reason"]), (Some(&Value::Null), &json!("key_destroyed")));
        assert_eq!((lines[2].get("text"), lines[2].get("reason")), (None, None));
        assert_eq!(lines[3], json!({ "type": "end" }));
    }
}
