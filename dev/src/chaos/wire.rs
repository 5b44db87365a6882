//! Frames as bytes: as gateways write them, and as no client should.

/// The first whole frame in `received`, which is taken out: its first byte and what it carries. Servers don't mask.
pub fn take_frame(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, rest @ ..] = received.as_slice() else { return None };
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let (extra, length): (usize, usize) = match second & 0x7f {
        126 => (2, number(rest.get(..2)?)),
        127 => (8, number(rest.get(..8)?)),
        length => (0, usize::from(length)),
    };
    let payload = rest.get(extra..extra.checked_add(length)?)?.to_vec();
    let first = *first;
    received.drain(..2 + extra + length);
    Some((first, payload))
}

/// Any key will do; clients must have one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame with any first byte.
pub fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first_byte, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The beginning of a client's frame that says it carries so many bytes.
pub fn header(first_byte: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..126), _) => bytes.push(0x80 | length),
        (_, Ok(length)) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}
