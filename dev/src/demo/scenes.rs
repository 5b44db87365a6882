//! The quiet scenes: nothing is broken yet, but much is asked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chat_client::{
    HistoryRange, Outgoing, RestError, SendError,
    ids::{ConversationId, MessageId},
    wire::ErrorCode,
};

use super::{
    narrator::{Narrator, Promise},
    stage::{FIRST, Room, SECOND, Stage},
};
use crate::{
    audit::{self, Diary, shown_exactly},
    person::{Person, SHOWN_DEADLINE},
};

/// How long a message may take to be shown when nothing is broken.
const LIVE_DEADLINE: Duration = Duration::from_secs(2);
/// Messages of which each waits until the one before was shown.
const TURNS: usize = 60;
/// Messages that somebody misses while away.
const MISSED: usize = 20;

/// Two users at two gateways write to each other.
pub async fn two_people(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let direct = stage.asha.rest()?.create_direct(stage.bikram.user_id).await?.conversation_id;
    let again = stage.bikram.rest()?.create_direct(stage.asha.user_id).await?.conversation_id;
    ensure!(direct == again, "the two have two direct conversations");
    let members = vec![stage.asha.user_id, stage.bikram.user_id];
    stage.rooms.push(Room { id: direct, name: "direct", members });

    let (asha, bikram) = (&stage.asha, &stage.bikram);
    for (person, words) in [
        (asha, "Namaste Bikram! Have you left already?"),
        (bikram, "Just now. The bus is late, as ever."),
        (asha, "Then I have time to make tea."),
        (bikram, "Two spoons of sugar, please."),
        (asha, "One. Doctor's orders."),
    ] {
        stage.say(told, person, direct, words).await?;
        stage.until_shown().await?;
    }
    told.check(Promise::ShownAtOnce, take_turns(stage, direct).await);
    told.tell("now both write at the same time, 25 messages each");
    tokio::try_join!(write(stage, asha, direct, 25), write(stage, bikram, direct, 25))?;
    stage.check_shown(told).await;
    Ok(())
}

/// Each message is sent only once the one before was shown to the other, so none can hide behind the next.
async fn take_turns(stage: &Stage, room: ConversationId) -> Result<String> {
    let mut times = Vec::with_capacity(TURNS);
    for turn in 0..TURNS {
        let (writer, reader) = if turn % 2 == 0 { (&stage.asha, &stage.bikram) } else { (&stage.bikram, &stage.asha) };
        let began = Instant::now();
        let kept = stage.send(writer, room, stage.words.some()).await?;
        let what = format!("number {} alone, with nothing sent after it", kept.seq.0);
        let is_last = |diary: &Diary| diary.messages(room).last().is_some_and(|last| last.seq >= kept.seq);
        reader.until(&what, LIVE_DEADLINE, is_last).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times[TURNS / 2].as_secs_f64() * 1000.0;
    Ok(format!(
        "{TURNS} of {TURNS} messages reached the other gateway by themselves, in the median after {median:.1} ms"
    ))
}

async fn write(stage: &Stage, person: &Person, room: ConversationId, count: usize) -> Result<()> {
    for _ in 0..count {
        stage.send(person, room, stage.words.some()).await?;
    }
    Ok(())
}

/// A third joins a group and reads its history.
pub async fn a_third_joins(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let group = stage.asha.rest()?.create_group([stage.bikram.user_id]).await?.conversation_id;
    let members = vec![stage.asha.user_id, stage.bikram.user_id];
    stage.rooms.push(Room { id: group, name: "group", members });
    for (person, words) in [
        (&stage.asha, "I made a group for Saturday."),
        (&stage.bikram, "Good. Chandra should be in it."),
        (&stage.asha, "I am adding her now."),
    ] {
        stage.say(told, person, group, words).await?;
    }
    let before = stage.ledger.of(group);
    stage.asha.rest()?.add_participants(group, [stage.chandra.user_id]).await?;
    stage.rooms.last_mut().context("the group was just made")?.members.push(stage.chandra.user_id);
    let chandra = &stage.chandra;
    chandra.until("news of the group", SHOWN_DEADLINE, |diary| diary.knows_group(group)).await?;
    let history = audit::history(chandra.rest()?, group).await?;
    let reads = shown_exactly(&before, &history).map(|()| {
        format!("Chandra joins at {} and reads the {} messages from before", stage.gateway_of(chandra), before.len())
    });
    told.check(Promise::HistoryNeverLags, reads);
    stage.say(told, chandra, group, "Thank you! I read it all. Saturday it is.").await?;
    stage.check_shown(told).await;
    Ok(())
}

/// One goes away, gets 20 messages, and comes back at the other gateway.
pub async fn away_and_back(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let direct = stage.direct()?;
    told.tell(&format!("Bikram leaves {}", stage.gateway_of(&stage.bikram)));
    stage.bikram.leave().await?;
    let before = stage.bikram.diary().messages(direct).len();
    write(stage, &stage.asha, direct, MISSED).await?;
    told.tell(&format!("Asha writes him {MISSED} messages; he has no phone in his hand"));
    ensure!(stage.bikram.diary().messages(direct).len() == before, "somebody who is away was shown something");

    let gateways = stage.gateways_from(FIRST);
    stage.bikram.arrive(gateways).await?;
    told.tell(&format!("Bikram comes back at {}", stage.gateway_of(&stage.bikram)));
    let outcome = async {
        stage.until_shown().await?;
        let missed: Vec<_> = stage.ledger.of(direct).split_off(before);
        let diary = stage.bikram.diary();
        shown_exactly(&missed, &diary.messages(direct)[before..])?;
        let is_resumed = diary.arrivals().last().is_some_and(|arrival| arrival.is_resumed);
        ensure!(is_resumed, "the gateway could not resume");
        ensure!(missed.len() == MISSED, "{} messages were missed instead of {MISSED}", missed.len());
        Ok(format!("resumed: true, and exactly the {MISSED} of {MISSED} messages he missed, in order"))
    };
    told.check(Promise::ResumeIsComplete, outcome.await);
    Ok(())
}

/// The same `message_id` twice is one message; with other content it is refused.
pub async fn the_same_twice(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let direct = stage.direct()?;
    let first = Outgoing::new(direct, stage.words.marked("Did this go through?"));
    let kept = stage.send_as(&stage.asha, first.clone()).await?;
    told.says("Asha", &stage.gateway_of(&stage.asha), kept.seq.0, "Did this go through?");

    let mut tablet = stage.asha.other_device();
    tablet.arrive(stage.gateways_from(SECOND)).await?;
    let mut places = Vec::new();
    for (device, is_repeat) in [(&stage.asha, false), (&stage.asha, true), (&tablet, false), (&tablet, true)] {
        let accepted = device.client()?.send_message(Outgoing { is_repeat, ..first.clone() }).await?;
        places.push((accepted.seq, accepted.sent_at));
    }
    stage.repeats += 4;
    let is_same = places.iter().all(|place| *place == (kept.seq, kept.sent_at));
    let same = if is_same {
        Ok(format!("4 of 4 repeats, at two gateways, were answered with number {} again", kept.seq.0))
    } else {
        Err(anyhow::anyhow!("number {} came back as {places:?}", kept.seq.0))
    };
    told.check(Promise::OneIdOneMessage, same);

    let changed = Outgoing { text: stage.words.marked("Something else."), ..first };
    let mut refused = Vec::new();
    for (device, is_repeat) in [(&stage.asha, false), (&tablet, true)] {
        let outcome = device.client()?.send_message(Outgoing { is_repeat, ..changed.clone() }).await;
        refused.push(matches!(outcome, Err(SendError::Rejected { code: ErrorCode::Conflict, .. })));
    }
    tablet.leave().await?;
    stage.repeats += 2;
    let conflict = if refused == [true, true] {
        Ok("the same id with other words is refused as a conflict, 2 of 2 times")
    } else {
        Err(anyhow::anyhow!("the same id with other words was not refused as a conflict: {refused:?}"))
    };
    told.check(Promise::OneIdOneMessage, conflict);
    stage.check_shown(told).await;
    Ok(())
}

/// A stranger is refused reading and writing.
pub async fn a_stranger(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let gateways = stage.gateways_from(SECOND);
    stage.stranger.arrive(gateways).await?;
    let mut refusals = 0;
    for room in [stage.direct()?, stage.group()?] {
        match try_everything(stage, room).await {
            Ok(count) => refusals += count,
            Err(error) => {
                told.check::<&str>(Promise::NotYours, Err(error));
                return stage.stranger.leave().await;
            }
        }
    }
    stage.refusals += refusals;
    // Something to see, if they saw anything.
    stage.say(told, &stage.asha, stage.group()?, "Who is this Hari?").await?;
    stage.check_shown(told).await;
    let outcome = async {
        let list = stage.stranger.rest()?.list_conversations(None, None).await?.conversations.len();
        let shown = stage.stranger.diary().count();
        ensure!(
            list == 0 && shown == 0,
            "{} lists {list} conversations and was shown {shown} messages",
            stage.stranger.name
        );
        Ok(format!(
            "{refusals} of {refusals} attempts of {} were refused; he lists 0 conversations, was shown 0 of {} messages",
            stage.stranger.name,
            stage.ledger.count()
        ))
    };
    told.check(Promise::NotYours, outcome.await);
    stage.stranger.leave().await
}

async fn try_everything(stage: &Stage, room: ConversationId) -> Result<u32> {
    let stranger = &stage.stranger;
    let rest = stranger.rest()?;
    refused("read the conversation", rest.conversation(room).await)?;
    refused("read its history", rest.history(room, HistoryRange::Newest, None).await)?;
    refused("join it", rest.add_participants(room, [stranger.user_id]).await)?;
    refused("remove somebody", rest.remove_participant(room, stage.asha.user_id).await)?;
    let by_rest = chat_client::wire::SendMessageBody {
        message_id: MessageId::random(),
        text: stage.words.marked("Let me in."),
        is_repeat: false,
        seen_seq: None,
    };
    refused("write by REST", rest.send_message(room, &by_rest).await)?;
    // An id that exists, with its text: the first answer must not be given to somebody else.
    let known = stage.ledger.of(room).pop().context("nothing was said yet")?;
    for (message_id, text, is_repeat) in [
        (MessageId::random(), stage.words.marked("Let me in."), false),
        (known.key.message_id, known.text.clone(), true),
    ] {
        let outgoing = Outgoing { message_id, is_repeat, ..Outgoing::new(room, text) };
        match stranger.client()?.send_message(outgoing).await {
            Err(SendError::Rejected { code: ErrorCode::NotFound | ErrorCode::Forbidden, .. }) => {}
            other => bail!("{} could write: {other:?}", stranger.name),
        }
    }
    Ok(7)
}

/// Checks that an attempt was refused as not the user's or not allowed.
pub(super) fn refused<T>(what: &str, outcome: Result<T, RestError>) -> Result<()> {
    match outcome {
        Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Forbidden)) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("an attempt to {what} was not refused as forbidden or not found"))
        }
        Ok(_) => bail!("an attempt to {what} was not refused"),
    }
}
