//! Tries to store the dead letters again.

use chat_shared::position::StreamSeq;

use chat_shared::command_line::say;

use crate::{batch::Item, keep::Keeper};

/// Dead letters of one page.
const PAGE_ROWS: i64 = 500;

/// What became of the dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Stored, and gone from the table.
    pub stored: usize,
    /// Still in the table.
    pub kept: usize,
}

/// Goes through all dead letters once, oldest first.
pub async fn replay(keeper: &Keeper) -> anyhow::Result<Replayed> {
    let total = keeper.store.count_letters().await?;
    let mut replayed = Replayed::default();
    let mut after = 0;
    loop {
        let letters = keeper.store.letters(after, PAGE_ROWS).await?;
        let Some(last) = letters.last() else { return Ok(replayed) };
        after = last.dead_letter_id;
        // Letters of different streams may share a position, so here their row's number tells them apart.
        let key = |dead_letter_id: i64| StreamSeq::from_sql(dead_letter_id);
        let mut refused = Vec::new();
        let mut items = Vec::new();
        for letter in &letters {
            match Item::read(key(letter.dead_letter_id), &letter.subject, &letter.payload) {
                Ok(item) => items.push(item),
                Err(error) => refused.push((key(letter.dead_letter_id), error.to_string())),
            }
        }
        refused.extend(keeper.keep(&items).await?.into_iter().map(|refusal| (refusal.stream_seq, refusal.reason)));
        for letter in &letters {
            if let Some((_, reason)) = refused.iter().find(|(at, _)| *at == key(letter.dead_letter_id)) {
                say(format_args!("entry {} stays: {reason}", letter.stream_seq.0));
            }
        }
        let stored: Vec<i64> = letters
            .iter()
            .map(|letter| letter.dead_letter_id)
            .filter(|id| !refused.iter().any(|(at, _)| at == &key(*id)))
            .collect();
        // After they have been stored: if it fails in between, storing them once more is harmless.
        keeper.store.remove_letters(&stored).await?;
        replayed.stored += stored.len();
        replayed.kept += refused.len();
        say(format_args!("{} of {total} dead letters tried", replayed.stored + replayed.kept));
    }
}
