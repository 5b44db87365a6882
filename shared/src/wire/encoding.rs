//! The two encodings of a frame, chosen by the WebSocket subprotocol.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Command, CommandFrame, Map, plain::Plain, without_values};

/// Maps and lists within each other in a frame. The deepest of ours has four.
const DEPTH_MAX: usize = 32;

/// How frames are written on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text frames of JSON.
    Json,
    /// Binary frames of MessagePack: the same maps with the same keys.
    MessagePack,
}

impl Encoding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// The subprotocol that chooses it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "chat.v1.json",
            Self::MessagePack => "chat.v1.msgpack",
        }
    }

    /// The bytes of a frame.
    pub fn encode<T: Serialize>(self, frame: &T) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Json => serde_json::to_vec(frame).map_err(|error| EncodeError(error.to_string())),
            Self::MessagePack => {
                let mut bytes = Vec::with_capacity(256);
                frame
                    .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable())
                    .map_err(|error| EncodeError(error.to_string()))?;
                Ok(bytes)
            }
        }
    }

    /// What a frame's bytes say. A frame is a map, in both encodings.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        self.check(bytes)?;
        self.read(bytes)
    }

    /// Refuses what would cost more than its bytes, with the same bound for both encodings: what is nested too deeply,
    /// and lists and maps that claim to be longer than they are, for which room would be made in advance. And what the
    /// other encoding couldn't say.
    fn check(self, bytes: &[u8]) -> Result<(), DecodeError> {
        match self {
            Self::Json if json_depth(bytes) > DEPTH_MAX => {
                Err(DecodeError::Malformed("it is nested too deeply".into()))
            }
            Self::Json => Ok(()),
            Self::MessagePack => read_packed::<Plain>(bytes).map(|_| ()),
        }
    }

    fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        let read = match self {
            Self::Json => serde_json::from_slice(bytes)
                .map_err(|error| DecodeError::Malformed(without_values(&error.to_string()))),
            Self::MessagePack => read_packed(bytes),
        };
        read.map(|Map(frame)| frame)
    }
}

fn read_packed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = rmp_serde::Deserializer::new(bytes).with_human_readable();
    // The reader refuses what reaches its bound.
    reader.set_max_depth(DEPTH_MAX + 1);
    let value =
        T::deserialize(&mut reader).map_err(|error| DecodeError::Malformed(without_values(&error.to_string())))?;
    if reader.into_inner().is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Malformed("bytes follow the frame".into()))
    }
}

/// How many objects and arrays stand within each other. The reader has a bound of its own, another than ours.
fn json_depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'"' => is_text = !is_text,
            b'\\' => is_escaped = is_text,
            b'{' | b'[' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A frame that can't be written. It doesn't happen with the types of this module.
#[derive(Debug, thiserror::Error)]
#[error("the frame can't be encoded: {0}")]
pub struct EncodeError(String);

/// A frame that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It isn't a map of its encoding, or has no `type`. The connection can't go on.
    #[error("the frame is malformed: {0}")]
    Malformed(String),
    /// Its `type` is none that is known.
    #[error("the command is unknown; known are {}", Command::NAMES.join(", "))]
    UnknownCommand {
        /// The frame's reference.
        reference: Option<u64>,
    },
    /// The command's fields are missing or of the wrong type.
    #[error("{problem}")]
    Invalid {
        /// The frame's reference.
        reference: Option<u64>,
        /// Which field, and what is wrong with it.
        problem: String,
    },
}

/// The part of a frame that every command has.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "ref", default)]
    reference: Option<u64>,
    #[serde(rename = "type")]
    name: String,
}

/// Reads a client's frame. Only [`DecodeError::Malformed`] is a reason to close.
pub fn decode_command(encoding: Encoding, bytes: &[u8]) -> Result<CommandFrame, DecodeError> {
    let header: Header = encoding.decode(bytes)?;
    if !Command::NAMES.contains(&header.name.as_str()) {
        return Err(DecodeError::UnknownCommand { reference: header.reference });
    }
    encoding.read(bytes).map_err(|error| match error {
        DecodeError::Malformed(problem) => DecodeError::Invalid { reference: header.reference, problem },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        clock::Timestamp,
        ids::{BusinessId, ConversationId, DeviceId, Epoch, MessageId, UserId},
        limits::{FRAME_BYTES_MAX, TEXT_BYTES_MAX},
        position::{Cursor, Seq},
        wire::{
            Accepted, Confirm, Conversation, ConversationKind, ErrorCode, Heartbeat, Hello, MarkRead, Message,
            Presence, Push, Receipt, ReceiptKind, RenewToken, Reply, Resume, Role, SendMessage, ServerFrame, SetTyping,
            Typing, WatchBusinesses, WatchPresence,
        },
    };

    /// A value of a later version, as bytes of each encoding.
    fn later(value: &serde_json::Value) -> [(Encoding, Vec<u8>); 2] {
        Encoding::ALL.map(|encoding| (encoding, encoding.encode(value).unwrap()))
    }

    #[test]
    fn frames_and_rows_of_a_later_version_are_read_but_for_the_names_it_adds() {
        let id = ConversationId::random();
        let participants = json!([{ "user_id": UserId::random(), "role": "guide", "since": 7 }]);
        let changed = json!({
            "type": "conversation", "cursor": 9, "conversation": {
                "conversation_id": id, "kind": "support", "version": 2, "name": { "text": "Shop", "more": 0 },
                "participants": participants, "added": [], "removed": [], "last_seq": 3, "changed_at": 5, "queue": "a"
            }
        });
        for (encoding, frame) in later(&changed) {
            let read = encoding.decode(&frame);
            let Ok(ServerFrame::Push(Push::Conversation { cursor, conversation })) = read else { panic!("{read:?}") };
            assert_eq!((cursor, conversation.kind), (Some(Cursor(9)), ConversationKind::Unknown));
            assert_eq!(conversation.participants[0].role, Role::Unknown);
        }
        let receipt = json!({ "conversation_id": id, "user_id": UserId::random(), "kind": "heard", "seq": 3, "at": 5 });
        for (encoding, frame) in later(&json!({ "type": "receipt", "cursor": 9, "receipt": receipt })) {
            let read = encoding.decode(&frame);
            let Ok(ServerFrame::Push(Push::Receipt { receipt, .. })) = read else { panic!("{read:?}") };
            assert_eq!(receipt.kind, ReceiptKind::Unknown);
        }
        for (encoding, frame) in later(&json!({ "type": "rejected", "ref": 4, "code": "closed", "message": "" })) {
            let read = encoding.decode(&frame);
            let Ok(ServerFrame::Reply(Reply::Rejected(rejected))) = read else { panic!("{read:?}") };
            assert_eq!((rejected.reference, rejected.code), (Some(4), ErrorCode::Unknown));
        }
        let row = json!({
            "conversation_id": id, "kind": "support", "version": 2, "participants": participants, "last_seq": 3,
            "floor_seq": 0, "read_seq": 1, "unread": 2, "created_at": 5, "last_activity_at": 5, "queue": { "place": 1 }
        });
        let row: Conversation = serde_json::from_value(row).unwrap();
        assert_eq!((row.kind, row.participants[0].role), (ConversationKind::Unknown, Role::Unknown));
    }

    fn commands() -> Vec<Command> {
        vec![
            Command::Hello(Hello { device_id: DeviceId::random(), resume: None }),
            Command::Hello(Hello {
                device_id: DeviceId::random(),
                resume: Some(Resume { epoch: Epoch::random(), cursor: Cursor(7) }),
            }),
            Command::SendMessage(SendMessage {
                conversation_id: ConversationId::random(),
                message_id: MessageId::random(),
                text: "नमस्ते 👋".into(),
                is_repeat: true,
                seen_seq: Some(Seq(3)),
            }),
            Command::Confirm(Confirm { cursor: Cursor(u64::MAX) }),
            Command::Heartbeat(Heartbeat { cursor: None }),
            Command::RenewToken(RenewToken { token: "a.b.c".into() }),
            Command::MarkRead(MarkRead {
                conversation_id: ConversationId::random(),
                message_id: MessageId::random(),
                seq: Some(Seq(17)),
            }),
            Command::SetTyping(SetTyping { conversation_id: ConversationId::random(), is_typing: true }),
            Command::WatchPresence(WatchPresence { user_ids: vec![UserId::random(), UserId::random()] }),
            Command::WatchBusinesses(WatchBusinesses { business_ids: vec![BusinessId::random()] }),
        ]
    }

    #[test]
    fn every_command_survives_both_encodings() {
        assert_eq!(commands().len(), Command::NAMES.len() + 1);
        for command in commands() {
            for encoding in Encoding::ALL {
                for reference in [None, Some(9)] {
                    let frame = CommandFrame { reference, command: command.clone() };
                    let bytes = encoding.encode(&frame).unwrap();
                    assert_eq!(decode_command(encoding, &bytes), Ok(frame), "{encoding:?}");
                }
            }
        }
    }

    #[test]
    fn replies_and_pushes_survive_both_encodings() {
        let message = Message {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            sender_id: UserId::random(),
            seq: Seq(1),
            sent_at: Timestamp(1_767_225_600_000),
            text: "hello".into(),
        };
        let accepted = Accepted {
            reference: Some(3),
            conversation_id: message.conversation_id,
            message_id: message.message_id,
            seq: Seq(4),
            sent_at: Timestamp(5),
        };
        for encoding in Encoding::ALL {
            for frame in [
                ServerFrame::Push(Push::Message { cursor: Some(Cursor(1)), seen_seq: None, message: message.clone() }),
                ServerFrame::Push(Push::Heartbeat { cursor: Cursor(0) }),
                ServerFrame::Push(Push::Receipt {
                    cursor: Some(Cursor(2)),
                    receipt: Receipt {
                        conversation_id: message.conversation_id,
                        user_id: message.sender_id,
                        kind: ReceiptKind::Read,
                        seq: Seq(1),
                        message_id: Some(message.message_id),
                        unread: Some(0),
                        at: Timestamp(7),
                    },
                }),
                ServerFrame::Push(Push::Typing {
                    typing: Typing {
                        conversation_id: message.conversation_id,
                        user_id: message.sender_id,
                        is_typing: true,
                    },
                }),
                ServerFrame::Push(Push::Presence {
                    users: vec![Presence { user_id: message.sender_id, is_online: false, last_seen_at: None }],
                }),
                ServerFrame::Reply(Reply::Accepted(accepted.clone())),
                ServerFrame::Reply(Reply::Done { reference: 1 }),
            ] {
                let bytes = encoding.encode(&frame).unwrap();
                assert_eq!(encoding.decode::<ServerFrame>(&bytes), Ok(frame), "{encoding:?}");
            }
        }
    }

    #[test]
    fn added_fields_are_ignored_and_unknown_commands_are_not_a_reason_to_close() {
        let json = Encoding::Json;
        assert!(decode_command(json, br#"{"type":"confirm","cursor":1,"colour":"blue"}"#).is_ok());
        assert_eq!(
            decode_command(json, br#"{"type":"dance","ref":5}"#),
            Err(DecodeError::UnknownCommand { reference: Some(5) })
        );
        assert!(matches!(
            decode_command(json, br#"{"type":"confirm","ref":5,"cursor":"one"}"#),
            Err(DecodeError::Invalid { reference: Some(5), .. })
        ));
        assert!(matches!(
            decode_command(
                json,
                br#"{"type":"send_message","ref":5,"conversation_id":"x","message_id":"y","text":""}"#
            ),
            Err(DecodeError::Invalid { reference: Some(5), .. })
        ));
        for malformed in
            [&b""[..], b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"{\"type\":1}", b"{\"type\":\"confirm\",\"ref\":-1}"]
        {
            assert!(matches!(decode_command(json, malformed), Err(DecodeError::Malformed(_))), "{malformed:?}");
        }
    }

    #[test]
    fn an_id_in_another_spelling_is_invalid_in_both_encodings_r1_3() {
        let right = "936da01f-9abd-4d9d-80c7-02af85c822a8";
        let frame = |id: &str| json!({ "type": "set_typing", "ref": 5, "conversation_id": id, "is_typing": true });
        for encoding in Encoding::ALL {
            let read = |id: &str| decode_command(encoding, &encoding.encode(&frame(id)).unwrap());
            assert!(read(right).is_ok());
            for wrong in [right.to_uppercase(), right.replace('-', ""), format!("urn:uuid:{right}")] {
                let refused = read(&wrong);
                assert!(matches!(refused, Err(DecodeError::Invalid { reference: Some(5), .. })), "{wrong} {refused:?}");
            }
        }
    }

    #[test]
    fn a_frame_whose_type_or_reference_is_of_a_wrong_type_is_malformed_in_both_encodings() {
        for encoding in Encoding::ALL {
            let read = |frame| decode_command(encoding, &encoding.encode(&frame).unwrap());
            assert!(read(json!({ "type": "confirm", "ref": null, "cursor": 1 })).is_ok(), "null is absent");
            for wrong in [
                json!({ "cursor": 1 }),
                json!({ "type": null, "cursor": 1 }),
                json!({ "type": 1, "cursor": 1 }),
                json!({ "type": "confirm", "ref": "1", "cursor": 1 }),
                json!({ "type": "confirm", "ref": 1.5, "cursor": 1 }),
                json!({ "type": "confirm", "ref": -1, "cursor": 1 }),
                json!({ "type": "dance", "ref": true }),
            ] {
                let refused = read(wrong.clone());
                assert!(matches!(refused, Err(DecodeError::Malformed(_))), "{wrong} {refused:?}");
            }
        }
    }

    #[test]
    fn escapes_count_against_the_size_of_a_frame_and_not_of_its_text() {
        let text = "\u{1}".repeat(TEXT_BYTES_MAX);
        let command = Command::SendMessage(SendMessage {
            conversation_id: ConversationId::random(),
            message_id: MessageId::random(),
            text,
            is_repeat: false,
            seen_seq: None,
        });
        let frame = CommandFrame { reference: None, command };
        let fits = Encoding::ALL.map(|encoding| encoding.encode(&frame).unwrap().len() <= FRAME_BYTES_MAX);
        assert_eq!(fits, [false, true]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for encoding in Encoding::ALL {
                let _outcome = decode_command(encoding, &bytes);
            }
        }
    }
}
