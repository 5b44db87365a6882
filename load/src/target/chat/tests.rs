//! What a client says is the wire's, and what it hears is what gateways say.

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    position::Seq,
    wire::{
        Accepted, ErrorCode, MarkRead as Mark, Message as Whole, Presence, Push, Receipt as Reached, ReceiptKind,
        Rejected, Reply, SendMessage, ServerFrame, SetTyping as Types, Typing as Writes, WatchPresence, decode_command,
    },
};

use super::*;

fn session() -> Session {
    Session { epoch: Some(Epoch::random()), cursor: Cursor(4), confirmed: Cursor(4), awaits_list: false }
}

/// As a gateway sends it.
fn from_gateway(frames: &[ServerFrame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for said in frames {
        let payload = Encoding::MessagePack.encode(said).unwrap();
        let mut one = Vec::new();
        frame::write(Opcode::Binary, &mut one, |out| out.extend_from_slice(&payload));
        let header = one.len() - payload.len();
        one.drain(header - 4..header);
        one[1] &= 0x7f;
        bytes.extend(one);
    }
    bytes
}

fn push(cursor: u64) -> ServerFrame {
    let message = Whole {
        conversation_id: ConversationId::random(),
        message_id: MessageId::random(),
        sender_id: UserId::random(),
        seq: Seq(cursor + 100),
        sent_at: Timestamp(5),
        text: format!("text {cursor}"),
    };
    ServerFrame::Push(Push::Message { cursor: Some(Cursor(cursor)), seen_seq: None, message })
}

fn said(session: &mut Session, bytes: &[u8]) -> (Vec<String>, Vec<u8>, Result<usize>) {
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let used = session.read(bytes, &mut out, &mut |one| heard.push(format!("{one:?}")));
    (heard, out, used)
}

#[test]
fn what_is_sent_is_the_wire_s_command() {
    let (conversation_id, message_id) = (ConversationId::random(), MessageId::random());
    let conversation = conversation_id.as_uuid().to_string();
    let outgoing = Outgoing {
        conversation: &conversation,
        reference: 9,
        message_id: message_id.as_uuid(),
        text: "hello",
        is_repeat: true,
    };
    let mut out = Vec::new();
    session().send(&outgoing, &mut out);
    let payload = &out[8..];
    let command = SendMessage { conversation_id, message_id, text: "hello".into(), is_repeat: true, seen_seq: None };
    assert_eq!(
        decode_command(Encoding::MessagePack, payload),
        Ok(CommandFrame { reference: Some(9), command: Command::SendMessage(command) })
    );
}

#[test]
fn replies_and_messages_are_heard_and_a_part_of_a_frame_waits() {
    let rejected = Rejected {
        reference: Some(8),
        code: ErrorCode::RateLimited,
        message: "too many".into(),
        retry_after_ms: Some(5),
    };
    let accepted = Accepted {
        reference: Some(7),
        conversation_id: ConversationId::random(),
        message_id: MessageId::random(),
        seq: Seq(4),
        sent_at: Timestamp(5),
    };
    let bytes = from_gateway(&[
        ServerFrame::Reply(Reply::Accepted(accepted)),
        ServerFrame::Reply(Reply::Rejected(rejected)),
        push(5),
        push(6),
    ]);
    let whole = bytes.len() - from_gateway(&[push(6)]).len();
    let (heard, out, used) = said(&mut session(), &bytes[..bytes.len() - 1]);
    assert_eq!(
        heard,
        [
            r"Accepted { reference: 7 }",
            r#"Rejected { reference: Some(8), reason: "rate_limited" }"#,
            r#"Message { sequence: Some(105), text: "text 5" }"#
        ]
    );
    assert!(out.is_empty());
    assert_eq!(used.unwrap(), whole);
}

#[test]
fn every_32_pushes_are_confirmed_and_a_gap_ends_the_connection() {
    let mut session = session();
    let pushes: Vec<ServerFrame> = (5..=36).map(push).collect();
    let (heard, out, _) = said(&mut session, &from_gateway(&pushes));
    assert_eq!(heard.len(), 32);
    let confirm = Command::Confirm(Confirm { cursor: Cursor(36) });
    assert_eq!(decode_command(Encoding::MessagePack, &out[6..]).unwrap().command, confirm);
    assert_eq!(session.place().unwrap().cursor, Cursor(36));
    let (_, _, used) = said(&mut session, &from_gateway(&[push(38)]));
    assert_eq!(used.unwrap_err().to_string(), "a gap in the inbox");
}

#[test]
fn gestures_are_the_wire_s_commands() {
    let (conversation_id, message_id, user_id) = (ConversationId::random(), MessageId::random(), UserId::random());
    let (conversation, user) = (conversation_id.as_uuid().to_string(), user_id.as_uuid().to_string());
    let gestures = [
        (
            Gesture::MarkRead { reference: 1 << 32, conversation: &conversation, message_id: message_id.as_uuid() },
            CommandFrame {
                reference: Some(1 << 32),
                command: Command::MarkRead(Mark { conversation_id, message_id, seq: None }),
            },
        ),
        (
            Gesture::Typing { conversation: &conversation },
            CommandFrame { reference: None, command: Command::SetTyping(Types { conversation_id, is_typing: true }) },
        ),
        (
            Gesture::Watch { users: &[&user] },
            CommandFrame {
                reference: None,
                command: Command::WatchPresence(WatchPresence { user_ids: vec![user_id] }),
            },
        ),
    ];
    for (gesture, command) in gestures {
        let mut out = Vec::new();
        session().gesture(&gesture, &mut out);
        let header = if out[1] & 0x7f == 126 { 8 } else { 6 };
        assert_eq!(decode_command(Encoding::MessagePack, &out[header..]), Ok(command));
    }
}

#[test]
fn what_others_do_is_heard_and_the_first_list_of_who_is_there_is_no_change() {
    let (conversation_id, user_id) = (ConversationId::random(), UserId::random());
    let receipt = |cursor, kind| {
        let receipt = Reached {
            conversation_id,
            user_id,
            kind,
            seq: Seq(7),
            message_id: None,
            unread: Some(0),
            at: Timestamp(5),
        };
        ServerFrame::Push(Push::Receipt { cursor: Some(Cursor(cursor)), receipt })
    };
    let typing = |is_typing| ServerFrame::Push(Push::Typing { typing: Writes { conversation_id, user_id, is_typing } });
    let presence =
        || ServerFrame::Push(Push::Presence { users: vec![Presence { user_id, is_online: true, last_seen_at: None }] });
    let mut session = session();
    session.gesture(&Gesture::Watch { users: &["somebody"] }, &mut Vec::new());
    let bytes = from_gateway(&[
        ServerFrame::Reply(Reply::Done { reference: 3 }),
        presence(),
        receipt(5, ReceiptKind::Delivered),
        receipt(6, ReceiptKind::Read),
        typing(true),
        typing(false),
        presence(),
    ]);
    let (heard, _, used) = said(&mut session, &bytes);
    assert_eq!(used.unwrap(), bytes.len());
    let reader = user_id.as_uuid();
    let expected = [
        Heard::Done { reference: 3 },
        Heard::Receipt { user: reader, is_read: false, sequence: 7 },
        Heard::Receipt { user: reader, is_read: true, sequence: 7 },
        Heard::Typing,
        Heard::Presence { changes: 1 },
    ];
    assert_eq!(heard, expected.map(|one| format!("{one:?}")));
    assert_eq!(session.cursor, Cursor(6), "receipts take places in the inbox");
}
