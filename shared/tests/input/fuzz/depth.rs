//! Nesting: as deep as it is allowed, and far deeper, it never runs out of stack.

use chat_shared::{
    delivery::Delivery,
    event::Event,
    jobs::Job,
    wire::{DecodeError, Encoding, decode_command},
};
use serde_json::{Value, json};

/// Lists and maps within each other that a frame may have, the frame's own map included.
const DEPTH_MAX: usize = 32;

fn nested(depth: usize, is_map: bool) -> Value {
    (1..depth).fold(json!({}), |inner, _| if is_map { json!({ "x": inner }) } else { json!([inner]) })
}

#[test]
fn both_encodings_take_the_same_depth_and_no_more() {
    for depth in 2..60 {
        for is_map in [false, true] {
            let frame = json!({ "type": "heartbeat", "ref": 5, "x": nested(depth - 1, is_map), "y": "[[[\"{{{\\" });
            for encoding in Encoding::ALL {
                let decoded = decode_command(encoding, &encoding.encode(&frame).unwrap());
                if depth <= DEPTH_MAX {
                    assert!(decoded.is_ok(), "{depth} in {encoding:?}: {decoded:?}");
                } else {
                    assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{depth} in {encoding:?}: {decoded:?}");
                }
            }
        }
    }
}

#[test]
fn no_depth_runs_out_of_stack() {
    for opening in [&b"["[..], b"{\"x\":", b"{\"type\":\"heartbeat\",\"x\":["] {
        for count in [100, 127, 128, 129, 10_000] {
            assert!(decode_command(Encoding::Json, &opening.repeat(count)).is_err());
        }
    }
    // Lists, maps and extensions of one element.
    for opening in [&b"\x91"[..], b"\x81\xa1x", b"\x81\x81", b"\xc7\x01\x01", b"\xdd\x00\x00\x00\x01"] {
        for count in [31, 32, 33, 1000, 1023, 1024, 1025, 10_000] {
            let bytes = opening.repeat(count);
            assert!(decode_command(Encoding::MessagePack, &bytes).is_err());
            // Within a field that nobody knows, which is passed over.
            for start in [
                &b"\x81\xa1x"[..],
                b"\x82\xa4kind\xa6direct\xa1x",
                b"\x81\xa7Message\x81\xa1x",
                b"\x81\xa8Numbered\x91\x81\xa1x",
            ] {
                let bytes = [start, &bytes, b"\xc0"].concat();
                assert!(
                    Event::decode(&bytes).is_err() && Delivery::decode(&bytes).is_err() && Job::decode(&bytes).is_err()
                );
            }
        }
    }
}
