//! What identifies a generated message: its sender and its number stand in its text, and its id follows from them, so
//! that every reader and whoever looks into a database knows which one it is.

use std::fmt::Write;

use uuid::{Builder, Uuid};

/// Makes a text of about 100 bytes.
const PADDING: &str = "The mountains are out today, all of them, and nobody has looked up yet.";

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The seat that sends it; unique over all processes of a run.
    pub seat: u32,
    /// Its number among those of its sender: 0, 1, 2 …
    pub number: u32,
    /// When it was to be sent, in microseconds of the monotonic clock.
    pub due_us: u64,
}

impl Mark {
    /// Puts the message's text into `text`.
    pub fn write(&self, text: &mut String) {
        text.clear();
        let Self { seat, number, due_us } = self;
        write!(text, "{seat} {number} {due_us} {PADDING}").expect("a string takes everything");
    }

    /// What stands in a text; none if the generator didn't write it.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let seat = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        let due_us = parts.next()?.parse().ok()?;
        parts.next().is_some().then_some(Self { seat, number, due_us })
    }
}

/// The id of a message. Looks as random as those of real clients, and can be told again from outside; `run` keeps the
/// ids of several runs apart.
pub fn message_id(run: u64, seat: u32, number: u32) -> Uuid {
    let high = mixed(run ^ mixed(u64::from(seat) << 32 | u64::from(number)));
    let low = mixed(high ^ run.rotate_left(32));
    Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
}

/// The finalizer of `SplitMix64`: every bit of the input changes half of the output.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_text_says_which_message_it_is() {
        let mark = Mark { seat: 17, number: 4_000_000_000, due_us: 9_876_543_210 };
        let mut text = String::new();
        mark.write(&mut text);
        assert_eq!(Mark::read(&text), Some(mark));
        assert!((90..=120).contains(&text.len()), "{} bytes", text.len());
        for other in ["", "hello", "1 2 3", "1 2 x y", "1 -2 3 y"] {
            assert_eq!(Mark::read(other), None, "{other}");
        }
    }

    #[test]
    fn ids_are_of_version_4_and_differ() {
        let ids: HashSet<Uuid> = (0..2)
            .flat_map(|run| (0..50).flat_map(move |seat| (0..50).map(move |number| message_id(run, seat, number))))
            .collect();
        assert_eq!(ids.len(), 2 * 50 * 50);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        assert_eq!(message_id(7, 8, 9), message_id(7, 8, 9));
    }
}
