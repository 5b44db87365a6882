//! The bytes of what no client may send, and of what a client may send but not so often.

use chat_shared::limits;
use rand::{Rng, RngExt};
use uuid::Uuid;

use super::Rudeness;
use crate::{
    plan::Seat,
    target::{
        Outgoing, Protocol,
        frame::{self, Opcode},
    },
};

/// Final, binary.
const BINARY: u8 = 0x82;
/// Binary, with more fragments to come.
const FRAGMENT: u8 = 0x02;
/// Final, of a kind that WebSocket leaves for later.
const RESERVED: u8 = 0x83;
/// In the second byte: a mask follows.
const MASKED: u8 = 0x80;
/// Bytes of garbage, at the most; so few that a frame's length is one byte.
const GARBAGE_MAX: usize = 100;

/// Appends a deed. `protocol` is that of the open connection.
pub(super) fn write(rudeness: Rudeness, seat: &Seat, foreign: &str, protocol: &mut impl Protocol, out: &mut Vec<u8>) {
    match rudeness {
        Rudeness::Deaf => send(protocol, &seat.conversation, &"x".repeat(limits::TEXT_BYTES_MAX), out),
        Rudeness::Flood => send(protocol, foreign, "listen to me", out),
        Rudeness::Garbage => garbage(out),
        Rudeness::TooLarge => frame::write(Opcode::Binary, out, |out| {
            out.resize(out.len() + limits::FRAME_BYTES_MAX + 1, 7);
        }),
        Rudeness::Unmasked => out.extend([BINARY, 3, 0x81, 0xa1, b'x']),
        // They never get as far as frames.
        Rudeness::HalfOpen => {}
    }
}

fn send(protocol: &mut impl Protocol, conversation: &str, text: &str, out: &mut Vec<u8>) {
    let reference = rand::rng().random();
    let message_id = Uuid::new_v4();
    protocol.send(&Outgoing { conversation, reference, message_id, text, is_repeat: false }, out);
}

fn garbage(out: &mut Vec<u8>) {
    let mut random = [0; GARBAGE_MAX];
    let mut rng = rand::rng();
    rng.fill_bytes(&mut random);
    let length = rng.random_range(1..=GARBAGE_MAX);
    let payload = random.get(..length).unwrap_or_default();
    match rng.random_range(0..5) {
        0 => frame::write(Opcode::Binary, out, |out| out.extend_from_slice(payload)),
        1 => frame::write(Opcode::Text, out, |out| out.extend_from_slice(payload)),
        // A map with a type, as a command has, and nothing that belongs to it.
        2 => frame::write(Opcode::Binary, out, |out| out.extend(b"\x81\xa4type\xacsend_message")),
        first => {
            let length = u8::try_from(payload.len()).unwrap_or_default();
            out.extend([if first == 3 { FRAGMENT } else { RESERVED }, MASKED | length, 0, 0, 0, 0]);
            out.extend_from_slice(payload);
        }
    }
}
