//! Every message is sent again: at both gateways, within the time that the log remembers ids, and after it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chat_client::{
    Rest,
    ids::{ConversationId, MessageId, UserId},
    wire::{Accepted, Conversation, CreateConversation, SendMessageBody},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    audit::{Attempt, Fate, Reader},
    chaos::{ground::Ground, trial::Trial},
};

/// The time that the log remembers ids, while this lasts. It is ten minutes otherwise.
const SHORT_WINDOW: Duration = Duration::from_secs(1);
/// Longer than that window, and than the log takes to forget.
const AFTER_WINDOW: Duration = Duration::from_secs(3);
const TOKEN_TTL: Duration = Duration::from_hours(2);
/// Between two messages of the same person, which keeps them within their rate.
const PACE: Duration = Duration::from_millis(30);

/// Sends everything three times: once for real, once within the window, and once after it.
pub async fn everything(trial: &mut Trial<'_>) -> Result<()> {
    let wanted = trial.load.ledger.count() + trial.scale.of(1000, 150);
    trial.load.ledger.until_count(wanted).await?;
    let (ground, readers) = (trial.ground, trial.crowd.readers()?);
    let repeats = || ground.of_gateways("chat_gateway_repeats_total", "");
    let known = accepted(trial);
    trial.fault(&format!("all {} messages are sent a second time", known.len()));
    let before = repeats().await?;
    let answered = repeat_all(trial, &readers, &known, false).await?;
    let counted = repeats().await?.saturating_sub(before);
    trial.bite(
        answered == known.len() && counted >= known.len() as u64,
        format!("{answered} of {} repeats were answered, and gateways recognised {counted}", known.len()),
    );

    let mut config = ground.stream().await?.get_info().await?.config;
    let window = config.duplicate_window;
    config.duplicate_window = SHORT_WINDOW;
    let jetstream = ground.jetstream().await?;
    jetstream.update_stream(&config).await?;
    trial.told.line(&format!("the log now remembers ids for {} s", SHORT_WINDOW.as_secs()));
    // That the window has passed is what this waits for, and it is proven below.
    sleep(AFTER_WINDOW).await;
    let outcome = after_window(trial, &readers).await;
    config.duplicate_window = window;
    jetstream.update_stream(&config).await?;
    outcome
}

async fn after_window(trial: &mut Trial<'_>, readers: &[Reader]) -> Result<()> {
    let (forgot, numbers) = is_forgotten(trial.ground).await?;
    trial.bite(forgot, format!("the log has forgotten ids: a message that was not called a repeat became {numbers}"));
    let known = accepted(trial);
    trial.fault(&format!("all {} messages are sent again, as repeats, after the log forgot them", known.len()));
    let before = trial.ground.of_gateways("chat_gateway_repeats_total", "").await?;
    let answered = repeat_all(trial, readers, &known, true).await?;
    let counted = trial.ground.of_gateways("chat_gateway_repeats_total", "").await?.saturating_sub(before);
    trial.bite(
        answered == known.len() && counted >= known.len() as u64,
        format!("{answered} of {} late repeats were answered, and gateways recognised {counted}", known.len()),
    );
    Ok(())
}

/// In a conversation of people who are not audited: what a client must not do, and what then happens, shows that the log forgot.
async fn is_forgotten(ground: &Ground) -> Result<(bool, String)> {
    let fleet = &ground.fleet;
    let token = fleet.kaha().tokens().user(UserId::random().as_uuid(), None, TOKEN_TTL)?;
    let (http, base) = (reqwest::Client::new(), format!("{}/v1/conversations", fleet.gateway(0).url()));
    let post = |url: &str| http.post(url).bearer_auth(&token);
    let direct = CreateConversation::Direct { user_id: UserId::random() };
    let made: Conversation = post(&base).json(&direct).send().await?.error_for_status()?.json().await?;
    let messages = format!("{base}/{}/messages", made.conversation_id.as_uuid());
    let body =
        SendMessageBody { message_id: MessageId::random(), text: "once".to_owned(), is_repeat: false, seen_seq: None };
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let accepted: Accepted = post(&messages).json(&body).send().await?.error_for_status()?.json().await?;
        numbers.push(accepted.seq.0);
        sleep(AFTER_WINDOW).await;
    }
    Ok((numbers[0] != numbers[1], format!("numbers {} and {}", numbers[0], numbers[1])))
}

/// Without the messages of the guests: those of them that were removed or blocked since may not repeat any.
fn accepted(trial: &Trial<'_>) -> Vec<Attempt> {
    let is_of_guests = |attempt: &Attempt| {
        let mut rooms = trial.crowd.guests.rooms();
        rooms.any(|room| room.id == attempt.key.conversation_id)
    };
    let attempts = trial.load.ledger.attempts().into_iter();
    attempts.filter(|attempt| matches!(attempt.fate, Fate::Accepted(_)) && !is_of_guests(attempt)).collect()
}

/// Sends each again by its sender; the answers go to the ledger, which knows the first ones. Gives how many came.
async fn repeat_all(trial: &Trial<'_>, readers: &[Reader], known: &[Attempt], is_repeat: bool) -> Result<usize> {
    let mut sending = JoinSet::new();
    let mut count = 0;
    for reader in readers {
        let own: Vec<_> = known.iter().filter(|attempt| attempt.key.sender_id == reader.user_id).cloned().collect();
        count += own.len();
        let (rest, ledger, user_id) = (reader.rest.clone(), trial.load.ledger.clone(), reader.user_id);
        sending.spawn(async move {
            let mut answered = 0;
            for attempt in own {
                let (key, text) = (attempt.key, attempt.text);
                let accepted = send(&rest, key.conversation_id, key.message_id, text, is_repeat).await?;
                ledger.accept(user_id, &accepted);
                answered += 1;
                sleep(PACE).await;
            }
            anyhow::Ok(answered)
        });
    }
    ensure!(count == known.len(), "{} messages were sent by nobody who is here", known.len() - count);
    let mut answered = 0;
    while let Some(outcome) = sending.join_next().await {
        answered += outcome??;
    }
    Ok(answered)
}

async fn send(
    rest: &Rest,
    conversation_id: ConversationId,
    message_id: MessageId,
    text: String,
    is_repeat: bool,
) -> Result<Accepted> {
    let body = SendMessageBody { message_id, text, is_repeat, seen_seq: None };
    rest.send_message(conversation_id, &body).await.context("a repeat was refused")
}
