//! What is said of input that can't be read: what is wrong with it, and where, but nothing of what it held.

/// A decoder's words without the values that it repeats: texts, which it writes in quotes, and names that aren't known.
pub fn without_values(complaint: &str) -> String {
    const UNKNOWN: &str = "unknown variant `";
    let mut said = String::with_capacity(complaint.len());
    let mut rest = complaint;
    // The last end counts, since the name can hold anything, also what looks like an end.
    if let Some(at) = rest.find(UNKNOWN)
        && let Some(end) = rest.rfind("`, expected").filter(|end| *end >= at + UNKNOWN.len())
    {
        push_without_texts(&mut said, &rest[..at]);
        said.push_str("unknown variant");
        rest = &rest[end + 1..];
    }
    push_without_texts(&mut said, rest);
    said
}

fn push_without_texts(said: &mut String, part: &str) {
    let (mut is_text, mut is_escaped) = (false, false);
    for character in part.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => {
                is_text = !is_text;
                if !is_text {
                    said.push('…');
                }
            }
            _ if is_text => {}
            other => said.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{CreateConversation, Encoding, SendMessage, decode_command};

    #[test]
    fn what_is_wrong_is_said_and_where() {
        for (complaint, said) in [
            ("missing field `text` at line 1 column 2", "missing field `text` at line 1 column 2"),
            (r#"invalid type: string "a \" b", expected u64"#, "invalid type: string …, expected u64"),
            (
                "kind: unknown variant `party`, expected `direct` or `group`",
                "kind: unknown variant, expected `direct` or `group`",
            ),
            ("unknown variant `x`, expected y`, expected `direct`", "unknown variant, expected `direct`"),
            (r#"invalid value: string "never ends"#, "invalid value: string "),
        ] {
            assert_eq!(without_values(complaint), said);
        }
    }

    proptest! {
        #[test]
        fn fuzz_no_complaint_repeats_what_it_complains_of(secret in "[\"\\\\`, a-z]{0,6}SECRET[\"\\\\`,: a-z]{0,12}", which in 0..6_usize) {
            let secret = &secret;
            let (id, map) = ("936da01f-9abd-4d9d-80c7-02af85c822a8", serde_json::json!({ "type": "confirm", "cursor": secret }));
            let frames = [
                map,
                serde_json::json!({ "type": "confirm", "ref": secret, "cursor": 1 }),
                serde_json::json!({ "type": "watch_presence", "user_ids": secret }),
                serde_json::json!({ "type": "hello", "device_id": secret }),
                serde_json::json!({ "type": "set_typing", "conversation_id": id, "is_typing": secret }),
                serde_json::json!({ "type": "hello", "device_id": id, "resume": secret }),
            ];
            for encoding in Encoding::ALL {
                let refused = decode_command(encoding, &encoding.encode(&frames[which]).unwrap()).unwrap_err();
                prop_assert!(!refused.to_string().contains("SECRET"), "{refused}");
            }
            for value in [serde_json::json!({ "kind": secret }), serde_json::json!({ "kind": "group", "user_ids": secret })] {
                let complaint = serde_json::from_value::<CreateConversation>(value.clone()).unwrap_err().to_string();
                prop_assert!(!without_values(&complaint).contains("SECRET"), "{complaint}");
                let complaint = serde_json::from_str::<CreateConversation>(&value.to_string()).unwrap_err().to_string();
                prop_assert!(!without_values(&complaint).contains("SECRET"), "{complaint}");
                let complaint = serde_json::from_value::<SendMessage>(value).unwrap_err().to_string();
                prop_assert!(!without_values(&complaint).contains("SECRET"), "{complaint}");
            }
        }
    }
}
