//! Commands: both encodings carry all of them and say the same; what is none is refused, in both in the same way.

use chat_shared::{
    limits::FRAME_BYTES_MAX,
    position::{Cursor, Seq},
    wire::{
        Command, CommandFrame, Confirm, DecodeError, Encoding, Heartbeat, Hello, MarkRead, RenewToken, Resume,
        SendMessage, SetTyping, WatchBusinesses, WatchPresence, decode_command,
    },
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;

use super::{
    mutation::{id, mutated, numbers, texts},
    values::altered,
};

/// Any command.
pub fn commands() -> impl Strategy<Value = Command> {
    let cursors = || numbers().prop_map(Cursor);
    let resume = (id(), cursors()).prop_map(|(epoch, cursor)| Resume { epoch, cursor });
    prop_oneof![
        (id(), option::of(resume)).prop_map(|(device_id, resume)| Command::Hello(Hello { device_id, resume })),
        (id(), id(), texts(), any::<bool>(), option::of(any::<u64>())).prop_map(
            |(conversation_id, message_id, text, is_repeat, seen)| {
                Command::SendMessage(SendMessage {
                    conversation_id,
                    message_id,
                    text,
                    is_repeat,
                    seen_seq: seen.map(Seq),
                })
            }
        ),
        cursors().prop_map(|cursor| Command::Confirm(Confirm { cursor })),
        option::of(cursors()).prop_map(|cursor| Command::Heartbeat(Heartbeat { cursor })),
        texts().prop_map(|token| Command::RenewToken(RenewToken { token })),
        (id(), id(), option::of(numbers().prop_map(Seq))).prop_map(|(conversation_id, message_id, seq)| {
            Command::MarkRead(MarkRead { conversation_id, message_id, seq })
        }),
        (id(), any::<bool>())
            .prop_map(|(conversation_id, is_typing)| { Command::SetTyping(SetTyping { conversation_id, is_typing }) }),
        vec(id(), 0..5).prop_map(|user_ids| Command::WatchPresence(WatchPresence { user_ids })),
        vec(id(), 0..5).prop_map(|business_ids| Command::WatchBusinesses(WatchBusinesses { business_ids })),
    ]
}

fn frames() -> impl Strategy<Value = CommandFrame> {
    (option::of(numbers()), commands()).prop_map(|(reference, command)| CommandFrame { reference, command })
}

fn encoded() -> impl Strategy<Value = (Encoding, Vec<u8>)> {
    (proptest::sample::select(&Encoding::ALL[..]), frames()).prop_map(|(encoding, frame)| {
        let bytes = encoding.encode(&frame).unwrap();
        (encoding, bytes)
    })
}

/// What becomes of a frame; the words of a refusal may differ.
#[derive(Debug, PartialEq)]
enum Verdict {
    Command(CommandFrame),
    Closed,
    Unknown(Option<u64>),
    Invalid(Option<u64>),
}

fn verdict(encoding: Encoding, bytes: &[u8]) -> Verdict {
    match decode_command(encoding, bytes) {
        Ok(frame) => Verdict::Command(frame),
        Err(DecodeError::Malformed(_)) => Verdict::Closed,
        Err(DecodeError::UnknownCommand { reference }) => Verdict::Unknown(reference),
        Err(DecodeError::Invalid { reference, .. }) => Verdict::Invalid(reference),
    }
}

fn in_both(value: &Value) -> [Verdict; 2] {
    Encoding::ALL.map(|encoding| verdict(encoding, &encoding.encode(value).unwrap()))
}

proptest! {
    #[test]
    fn every_command_means_the_same_in_both_encodings(frame in frames()) {
        for encoding in Encoding::ALL {
            prop_assert_eq!(decode_command(encoding, &encoding.encode(&frame).unwrap()), Ok(frame.clone()));
        }
    }

    #[test]
    fn what_is_nearly_a_command_gets_the_same_verdict_in_both_encodings(
        value in altered(frames().prop_map(|frame| serde_json::to_value(frame).unwrap()))
    ) {
        let [json, packed] = in_both(&value);
        prop_assert_eq!(&json, &packed);
        if !value.is_object() {
            prop_assert_eq!(json, Verdict::Closed);
        }
    }

    #[test]
    fn a_list_of_a_commands_fields_is_no_command(frame in frames()) {
        let map = serde_json::to_value(frame).unwrap();
        let list = Value::Array(map.as_object().unwrap().values().cloned().collect());
        prop_assert_eq!(in_both(&list), [Verdict::Closed, Verdict::Closed]);
        let name = map["type"].clone();
        for tagged in [Value::from(vec![name.clone(), map.clone()]), Value::from(vec![Value::Null, name, list])] {
            prop_assert_eq!(in_both(&tagged), [Verdict::Closed, Verdict::Closed]);
        }
    }

    #[test]
    fn changed_bytes_are_a_command_or_an_error_and_cost_no_more_than_their_length_allows(
        (encoding, bytes) in encoded().prop_flat_map(|(encoding, bytes)| (Just(encoding), mutated(Just(bytes))))
    ) {
        let mut decoded = None;
        let cost = allocation_counter::measure(|| decoded = Some(decode_command(encoding, &bytes)));
        prop_assert!(cost.bytes_max <= cost_max(bytes.len()), "{} bytes cost {}", bytes.len(), cost.bytes_max);
        if let Some(Ok(frame)) = decoded {
            // Whatever one encoding says, the other can say too, and means the same by it.
            let value: Value = encoding.decode(&bytes).unwrap();
            prop_assert_eq!(in_both(&value), [(); 2].map(|()| Verdict::Command(frame.clone())));
            // Whatever was made of it is a command that can be said again.
            let again = decode_command(encoding, &encoding.encode(&frame).unwrap());
            prop_assert_eq!(again, Ok(frame));
        }
    }
}

/// Bytes of memory while a frame is read. A value of one byte, in a field that nobody knows, takes 32.
pub fn cost_max(frame_bytes: usize) -> u64 {
    u64::try_from(frame_bytes * 128 + 16 * 1024).unwrap()
}

#[test]
fn what_json_could_not_say_is_no_packed_command() {
    let id = [0x93, 0x6d, 0xa0, 0x1f, 0x9a, 0xbd, 0x4d, 0x9d, 0x80, 0xc7, 0x02, 0xaf, 0x85, 0xc8, 0x22, 0xa8];
    let confirm = b"\xa4type\xa7confirm";
    let plain = [&b"\x82"[..], confirm, b"\xa6cursor\x05"].concat();
    assert!(matches!(verdict(Encoding::MessagePack, &plain), Verdict::Command(_)));
    for odd in [
        [&b"\x82"[..], confirm, b"\x00\x05"].concat(),
        [&b"\x82"[..], confirm, b"\xc4\x06cursor\x05"].concat(),
        [&b"\x82\xa4type\xc4\x07confirm"[..], b"\xa6cursor\x05"].concat(),
        [&b"\x82\xa4type\xabrenew_token"[..], b"\xa5token\xc4\x01x"].concat(),
        [&b"\x82\xa4type\xa5hello"[..], b"\xa9device_id\xc4\x10", &id].concat(),
        [&b"\x83"[..], confirm, b"\xa6cursor\x05\xa1x\xd4\x01\x00"].concat(),
        [&b"\x83"[..], confirm, b"\xa6cursor\x05\xa1x\xa1\xff"].concat(),
        [&b"\x83"[..], confirm, b"\xa6cursor\x05\xa1x\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"].concat(),
    ] {
        assert_eq!(verdict(Encoding::MessagePack, &odd), Verdict::Closed, "{}", odd.escape_ascii());
    }
}

#[test]
fn the_resume_of_a_hello_is_a_map_too() {
    let epoch = "0b9d7c44-5a1e-4c83-8f20-6d5e4f3a2b1c";
    let hello = |resume: Value| {
        in_both(&serde_json::json!({
            "type": "hello", "ref": 3, "device_id": "7f0e1c8a-3b52-4f6d-9a61-1f2e3d4c5b6a", "resume": resume
        }))
    };
    let [json, packed] = hello(serde_json::json!({ "epoch": epoch, "cursor": 7 }));
    assert!(matches!(json, Verdict::Command(_)));
    assert_eq!(json, packed);
    assert!(matches!(hello(Value::Null)[0], Verdict::Command(_)));
    assert_eq!(hello(serde_json::json!([epoch, 7])), [Verdict::Invalid(Some(3)), Verdict::Invalid(Some(3))]);
}

#[test]
fn the_largest_frames_of_nothing_but_values_cost_what_is_allowed() {
    let start = b"{\"type\":\"heartbeat\",\"x\":[0";
    let mut json = start.to_vec();
    json.extend(b",0".repeat((FRAME_BYTES_MAX - start.len() - 2) / 2));
    json.extend(b"]}");
    let start = b"\x82\xa4type\xa9heartbeat\xa1x\xdc\x7f\x00";
    let mut packed = start.to_vec();
    packed.extend(vec![0; 0x7f00]);
    // Lists within lists, each of which claims to be as long as one can be.
    let mut lies = b"\x82\xa4type\xa9heartbeat\xa1x".to_vec();
    lies.extend(b"\xdd\xff\xff\xff\xff".repeat(31));
    for (encoding, bytes, is_command) in
        [(Encoding::Json, json, true), (Encoding::MessagePack, packed, true), (Encoding::MessagePack, lies, false)]
    {
        assert!(bytes.len() <= FRAME_BYTES_MAX);
        let mut decoded = None;
        let cost = allocation_counter::measure(|| decoded = Some(decode_command(encoding, &bytes).is_ok()));
        assert_eq!(decoded, Some(is_command), "{encoding:?}");
        assert!(cost.bytes_max <= cost_max(bytes.len()), "{} bytes cost {}", bytes.len(), cost.bytes_max);
    }
}
