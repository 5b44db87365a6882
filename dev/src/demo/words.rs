//! What people say: small talk, chosen by the seed, behind a mark that no other bytes have.

use std::sync::{Mutex, PoisonError};

use rand::{RngExt, SeedableRng, rngs::StdRng};

const LINES: [&str; 24] = [
    "Are you coming to the market?",
    "The bus is late, as ever.",
    "I have the tickets.",
    "Did it rain over there?",
    "Not a cloud all morning.",
    "Bring the blue umbrella.",
    "Call me when you are home.",
    "My phone is almost empty.",
    "The tea is on the stove.",
    "Who else is coming?",
    "Half the street, it seems.",
    "Wait for me at the corner.",
    "I can see the mountains from here.",
    "Send me the address again.",
    "Third house after the bridge.",
    "The door is open.",
    "Leave some momo for me!",
    "There were twelve. There are three.",
    "What did the doctor say?",
    "All is well, nothing to worry about.",
    "The lights went out again.",
    "Ours too. I am writing in the dark.",
    "See you on Saturday.",
    "Saturday it is.",
];

/// Makes texts.
#[derive(Debug)]
pub struct Words {
    mark: String,
    rng: Mutex<StdRng>,
}

impl Words {
    /// The same small talk for the same seed; the mark is new each time.
    pub fn new(seed: u64) -> Self {
        let mark = format!("{:016x}", rand::rng().random::<u64>());
        Self { mark, rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// Stands in every text, and nowhere else.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The whole text of a message.
    pub fn marked(&self, words: &str) -> String {
        format!("{} {words}", self.mark)
    }

    /// Something to say.
    pub fn some(&self) -> &'static str {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        LINES[rng.random_range(0..LINES.len())]
    }
}
