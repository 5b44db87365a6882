//! Entries stand in the log that are no events, or that nobody can store. They are set aside, and everything else goes on.

use std::time::Duration;

use anyhow::Result;
use chat_client::{
    clock::Timestamp,
    ids::{ConversationId, MessageId, UserId},
    positions::Seq,
    wire::{ConversationKind, Participant, Role},
};
use chat_shared::{
    event::{Event, Fact, MessageSent, Participants},
    log::Slot,
    position::StreamSeq,
    sealing::{AudienceTag, Envelope},
};
use rand::{Rng, RngExt};

use crate::{audit::stored, chaos::trial::Trial, wait};

/// How long they may take to be set aside.
const SET_ASIDE_DEADLINE: Duration = Duration::from_mins(1);
/// Kinds of poison.
const KINDS: usize = 7;
/// Between two doses.
const PACE_MS: std::ops::Range<u64> = 20..200;

/// Appends them behind the gateways' backs, among everything that is sent.
pub async fn events(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let doses = trial.scale.of(40, 4) * KINDS;
    let mut postgres = ground.postgres().await?;
    let before = stored::dead_letters(&mut postgres).await?;
    let jetstream = ground.jetstream().await?;
    trial.fault(&format!("{doses} entries of {KINDS} kinds that nobody can store are appended to the log"));
    for dose in 0..doses {
        let conversation_id = ConversationId::random();
        let slot = Slot::of(conversation_id);
        let namespace = ground.fleet.namespace();
        // Some stand on subjects of conversations, some elsewhere in the log.
        let subject = if dose % 5 == 0 {
            format!("{namespace}.{slot}.fact")
        } else {
            format!("{namespace}.{slot}.message.{}", conversation_id.as_uuid().simple())
        };
        jetstream.publish(subject, poison(dose % KINDS, conversation_id, &mut trial.rng).into()).await?.await?;
        trial.pause(PACE_MS).await;
    }
    trial.dead_letters_expected = doses as u64;
    let set_aside = wait::until("the poison to be set aside", SET_ASIDE_DEADLINE, || async {
        let letters = stored::dead_letters(&mut ground.postgres().await?).await? - before;
        Ok((letters >= doses as u64).then_some(letters))
    })
    .await;
    let letters = stored::dead_letters(&mut postgres).await? - before;
    trial.bite(set_aside.is_ok(), format!("{letters} of {doses} poisonous entries are dead letters"));
    Ok(())
}

fn poison(kind: usize, conversation_id: ConversationId, rng: &mut impl Rng) -> Vec<u8> {
    let mut event = event(conversation_id);
    match kind {
        // No event at all.
        0 => (0..rng.random_range(1..2000)).map(|_| rng.random()).chain([0xc1]).collect(),
        1 => Vec::new(),
        2 => {
            let mut bytes = event.encode();
            bytes.truncate(bytes.len() / 2);
            bytes
        }
        3 => b"{\"conversation_id\":null}".to_vec(),
        // Events, but with numbers or content that can't be.
        4 => {
            event.seq = Seq(0);
            event.encode()
        }
        5 => {
            event.seq = Seq(u64::MAX);
            event.encode()
        }
        _ => event.encode(),
    }
}

/// A message whose content was never sealed.
fn event(conversation_id: ConversationId) -> Event {
    let sender_id = UserId::random();
    Event {
        conversation_id,
        kind: ConversationKind::Group,
        seq: Seq(1),
        sent_at: Timestamp(1),
        previous: StreamSeq::ZERO,
        participants: Participants {
            version: 1,
            list: vec![Participant { user_id: sender_id, role: Role::Owner }],
            ..Participants::default()
        },
        fact: Fact::MessageSent(MessageSent {
            message_id: MessageId::random(),
            sender_id,
            envelope: unsealed(),
            seen_seq: Seq::ZERO,
            audience: AudienceTag::default(),
        }),
    }
}

fn unsealed() -> Envelope {
    Envelope::from_bytes(Vec::new())
}
