//! Frames that can't be read: each ends its connection with its documented code.

use anyhow::Result;
use chat_e2e::{
    Incoming, TestFleet, on_shared_fleet,
    socket::opcode::{BINARY, CONTINUATION, FIN, PING, TEXT},
};
use chat_shared::{limits::FRAME_BYTES_MAX, wire::Encoding};
use serde_json::json;

use crate::witness::Witness;

const MALFORMED: (u16, &str) = (4500, "malformed_frame");
const TOO_LARGE: (u16, &str) = (4501, "frame_too_large");
const FRAGMENTED: (u16, &str) = (4502, "fragmented");

/// A name, the encoding of the connection, the frame's first byte and payload, and how the connection ends.
type Case = (&'static str, Encoding, u8, Vec<u8>, (u16, &'static str));

fn cases() -> Vec<Case> {
    use Encoding::{Json, MessagePack};
    let mut cases: Vec<Case> = vec![
        ("a binary frame on a JSON connection", Json, FIN | BINARY, b"{}".to_vec(), MALFORMED),
        ("a text frame on a MessagePack connection", MessagePack, FIN | TEXT, b"{}".to_vec(), MALFORMED),
        ("a byte that MessagePack never uses", MessagePack, FIN | BINARY, vec![0xc1; 9], MALFORMED),
        ("a map that ends too soon", MessagePack, FIN | BINARY, vec![0x82, 0xa4, b't', b'y'], MALFORMED),
        (
            "an array that claims four billion entries",
            MessagePack,
            FIN | BINARY,
            vec![0xdd, 255, 255, 255, 255],
            MALFORMED,
        ),
        (
            "a map that claims four billion entries",
            MessagePack,
            FIN | BINARY,
            vec![0xdf, 255, 255, 255, 255],
            MALFORMED,
        ),
        ("deep nesting", MessagePack, FIN | BINARY, vec![0x91; 20_000], MALFORMED),
        ("nothing", MessagePack, FIN | BINARY, vec![], MALFORMED),
        (
            "bytes after the frame's map",
            MessagePack,
            FIN | BINARY,
            b"\x81\xa4type\xa9heartbeat\xc0".to_vec(),
            MALFORMED,
        ),
        ("the first fragment of JSON", Json, TEXT, b"{".to_vec(), FRAGMENTED),
        ("the first fragment of MessagePack", MessagePack, BINARY, vec![0x81], FRAGMENTED),
        ("a last fragment without a first", Json, FIN | CONTINUATION, b"}".to_vec(), FRAGMENTED),
        ("a frame over the bound", Json, FIN | TEXT, vec![b' '; FRAME_BYTES_MAX + 1], TOO_LARGE),
        ("a packed frame over the bound", MessagePack, FIN | BINARY, vec![0xc0; FRAME_BYTES_MAX + 1], TOO_LARGE),
        ("a reserved bit", Json, FIN | 0x40 | TEXT, b"{}".to_vec(), MALFORMED),
        ("a reserved opcode", Json, FIN | 3, b"{}".to_vec(), MALFORMED),
        ("a ping in fragments", Json, PING, b"x".to_vec(), MALFORMED),
        ("a ping over its bound", Json, FIN | PING, vec![0; 126], TOO_LARGE),
        ("deep nesting in JSON", Json, FIN | TEXT, vec![b'['; 20_000], MALFORMED),
    ];
    let documents: [(&'static str, &[u8]); 11] = [
        ("no JSON at all", b"hello"),
        ("an empty frame", b""),
        ("half an object", b"{\"type\":"),
        ("an array", b"[]"),
        ("null", b"null"),
        ("no type", b"{}"),
        ("a type that is a number", b"{\"type\":1}"),
        ("a negative reference", b"{\"type\":\"heartbeat\",\"ref\":-1}"),
        ("a reference that is text", b"{\"type\":\"heartbeat\",\"ref\":\"1\"}"),
        ("invalid UTF-8", b"{\"type\":\"heartbeat\",\"x\":\"\xff\xfe\"}"),
        ("two objects", b"{\"type\":\"heartbeat\"}{}"),
    ];
    cases.extend(documents.map(|(name, document)| (name, Json, FIN | TEXT, document.to_vec(), MALFORMED)));
    cases
}

async fn assert_closed(
    fleet: &TestFleet,
    (name, encoding, first_byte, payload, end): &Case,
    has_hello: bool,
) -> Result<()> {
    let person = fleet.person()?;
    let mut socket = if has_hello {
        fleet.ready_socket(&person, 0, *encoding).await?
    } else {
        fleet.socket(&person, 0, *encoding).await?
    };
    socket.raw_frame(*first_byte, payload).await?;
    let (code, reason) = socket.close_code().await?;
    assert_eq!((code, reason.as_str()), *end, "{name}, after hello: {has_hello}");
    Ok(())
}

#[test]
fn frames_that_cannot_be_read_end_their_connection_with_the_documented_code() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let mut witness = Witness::of(fleet).await?;
        for case in cases() {
            assert_closed(fleet, &case, false).await?;
            assert_closed(fleet, &case, true).await?;
            witness.is_undisturbed(fleet).await?;
        }
        Ok(())
    })
}

#[test]
fn a_frame_that_claims_to_be_huge_is_refused_before_it_comes() -> Result<()> {
    on_shared_fleet(async |fleet| {
        for length in [1_u64 << 20, 1 << 40, 1 << 62, u64::MAX] {
            let mut socket = fleet.ready_socket(&fleet.person()?, 0, Encoding::Json).await?;
            let mut header = vec![FIN | TEXT, 0xff];
            header.extend(length.to_be_bytes());
            header.extend([0; 4]);
            socket.bytes(&header).await?;
            assert_eq!(socket.close_code().await?, (4501, "frame_too_large".to_owned()), "{length}");
        }
        Ok(())
    })
}

#[test]
fn random_bytes_end_one_connection_and_nothing_else() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let mut witness = Witness::of(fleet).await?;
        // The same bytes in every run: a generator of Lehmer's kind.
        let mut state = 0x1234_5678_u64;
        let mut next_byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        for round in 0..40 {
            let encoding = Encoding::ALL[round % 2];
            let mut socket = fleet.socket(&fleet.person()?, 0, encoding).await?;
            if round % 4 < 2 {
                socket.hello(chat_shared::ids::DeviceId::random(), None).await?;
            }
            let bytes: Vec<u8> = (0..700).map(|_| next_byte()).collect();
            // The gateway may have hung up before it has all of it.
            let _outcome = socket.bytes(&bytes).await;
            socket.end().await;
            loop {
                match socket.incoming().await? {
                    Incoming::Close(code, _) => assert!((4500..=4503).contains(&code), "{code}"),
                    Incoming::Gone => break,
                    Incoming::Frame(_) | Incoming::Pong(_) => {}
                }
            }
        }
        witness.is_undisturbed(fleet).await
    })
}

#[test]
fn a_frame_at_the_bound_and_a_ping_are_answered() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let mut socket = fleet.ready_socket(&fleet.person()?, 0, Encoding::Json).await?;
        let mut command = json!({ "type": "heartbeat", "ref": 1 }).to_string();
        command.push_str(&" ".repeat(FRAME_BYTES_MAX - command.len()));
        socket.data(command.as_bytes()).await?;
        assert_eq!(socket.frame().await?, json!({ "type": "done", "ref": 1 }));
        for payload in [&b""[..], &[b'x'; 125]] {
            socket.raw_frame(FIN | PING, payload).await?;
            assert_eq!(socket.incoming().await?, Incoming::Pong(payload.to_vec()));
        }
        Ok(())
    })
}
