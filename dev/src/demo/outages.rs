//! Servers beneath us that lose their data or go away while people talk.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use chat_client::{
    HistoryRange, Outgoing, RestError,
    ids::{MessageId, UserId},
    wire::{ErrorCode, SendMessageBody},
};
use tokio::time::interval;

use super::{
    narrator::{Narrator, Promise},
    stage::Stage,
};
use crate::{
    audit::{Diary, Kept},
    person::SHOWN_DEADLINE,
};

/// How long Postgres is away.
const POSTGRES_AWAY: Duration = Duration::from_secs(10);
/// How often people say something meanwhile.
const PACE: Duration = Duration::from_millis(400);
/// Messages of each person around a flush.
const EACH: usize = 20;

/// Redis is flushed; clients are told so and reload.
pub async fn redis_flushed(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let before = stage.ledger.count();
    let marks = stage.people().map(|person| (person.diary().arrivals().len(), person.diary().reloads()));
    tokio::try_join!(stage.talk(EACH), async {
        stage.ledger.until_count(before + EACH).await?;
        let client = redis::Client::open(stage.fleet.urls().redis.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        told.fault("Redis is flushed (FLUSHALL), mid-stream");
        Ok(())
    })?;
    let outcome = async {
        for (person, (arrivals, reloads)) in stage.people().into_iter().zip(marks) {
            let is_told = |diary: &Diary| {
                diary.arrivals()[arrivals..].iter().any(|arrival| !arrival.is_resumed) && diary.reloads() > reloads
            };
            person.until("resumed: false, and a reload", SHOWN_DEADLINE, is_told).await?;
        }
        Ok("3 of 3 clients were told resumed: false, and reloaded")
    };
    told.check(Promise::ResumeIsComplete, outcome.await);
    stage.check_shown(told).await;
    Ok(())
}

/// Postgres is stopped for ten seconds while both keep chatting.
pub async fn postgres_stopped(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let before = stage.ledger.count();
    stage.servers()?.postgres.stop().await?;
    told.fault("Postgres is stopped, for ten seconds");
    let talked = talk_without_postgres(stage, told, Instant::now()).await;
    let since = stage.ledger.count() - before;
    let is_refused = new_conversation_is_refused(stage).await;
    stage.servers()?.postgres.start().await?;
    told.tell("Postgres is started again");
    told.check(
        Promise::LosingAHelper,
        talked.map(|shown| {
            format!("{since} of {since} messages were accepted meanwhile, and shown to both: {shown} showings")
        }),
    );
    told.check(Promise::LosingAHelper, is_refused);
    let kept = stage.until_stored().await.map(|count| format!("Postgres has all {count} messages now"));
    told.check(Promise::AcceptedMeansKept, kept);
    stage.check_shown(told).await;
    Ok(())
}

async fn talk_without_postgres(stage: &Stage, told: &Narrator, since: Instant) -> Result<usize> {
    let direct = stage.direct()?;
    let mut pace = interval(PACE);
    let mut showings = 0;
    for turn in 0_usize.. {
        pace.tick().await;
        if since.elapsed() >= POSTGRES_AWAY {
            break;
        }
        let (writer, reader) = if turn % 2 == 0 { (&stage.asha, &stage.bikram) } else { (&stage.bikram, &stage.asha) };
        if turn < 4 {
            stage.say(told, writer, direct, stage.words.some()).await?;
        } else if turn % 3 == 0 {
            stage.history_has_news(writer, reader, direct).await?;
        } else {
            stage.send(writer, direct, stage.words.some()).await?;
        }
        stage.until_shown().await?;
        showings += 2;
    }
    Ok(showings)
}

async fn new_conversation_is_refused(stage: &Stage) -> Result<&'static str> {
    match stage.asha.rest()?.create_direct(UserId::random()).await {
        Err(RestError::Refused { code: ErrorCode::Unavailable, retry_after: Some(_), .. }) => {
            Ok("a new conversation is refused as unavailable, with the time to try again")
        }
        Err(error) => bail!("a new conversation was not refused as unavailable: {error}"),
        Ok(_) => bail!("a new conversation was made without Postgres"),
    }
}

/// NATS is killed and started again.
pub async fn nats_restarted(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let (direct, group) = (stage.direct()?, stage.group()?);
    let by_rest = SendMessageBody {
        message_id: MessageId::random(),
        text: stage.words.marked("Is anybody there?"),
        is_repeat: false,
        seen_seq: None,
    };
    stage.servers()?.nats.kill().await?;
    told.fault("NATS is killed with -9");
    let (asha, bikram, refused) = tokio::join!(
        stage.send(&stage.asha, direct, "Can you read this?"),
        stage.send(&stage.bikram, group, "And you this?"),
        async {
            let refused = without_log(stage, &by_rest).await;
            stage.servers()?.nats.start().await?;
            told.tell("NATS is started again");
            refused
        }
    );
    told.check(Promise::LosingAHelper, refused);
    for (person, kept) in [(&stage.asha, asha), (&stage.bikram, bikram)] {
        let kept = kept.map(|kept| {
            format!(
                "the message {} had written meanwhile was repeated by the client, and is number {}",
                person.name, kept.seq.0
            )
        });
        told.check(Promise::AcceptedMeansKept, kept);
    }
    // Its outcome was unknown; asking again with the same id settles it.
    let SendMessageBody { message_id, text, .. } = by_rest;
    let again = Outgoing { message_id, is_repeat: true, ..Outgoing::new(direct, text) };
    let settled: Result<Kept> = stage.send_as(&stage.asha, again).await;
    stage.repeats += 1;
    told.check(
        Promise::OneIdOneMessage,
        settled.map(|kept| format!("the refused one, repeated with its id, is number {}", kept.seq.0)),
    );
    stage.talk(5).await?;
    stage.check_shown(told).await;
    Ok(())
}

/// What a gateway says while nothing can be made durable.
async fn without_log(stage: &Stage, by_rest: &SendMessageBody) -> Result<String> {
    let rest = stage.asha.rest()?;
    match rest.send_message(stage.direct()?, by_rest).await {
        Err(error) if error.code() == Some(ErrorCode::Unavailable) => {}
        Err(error) => bail!("a message that can't be kept was not refused as unavailable: {error}"),
        Ok(_) => bail!("a message was accepted without the log"),
    }
    let listed = rest.list_conversations(None, None).await?.conversations.len();
    ensure!(listed == 2, "{listed} of 2 conversations are listed without the log");
    let read = rest.history(stage.direct()?, HistoryRange::Newest, None).await;
    let history = match read {
        Ok(page) => format!("history gives {} messages", page.messages.len()),
        Err(error) if error.code() == Some(ErrorCode::Unavailable) => {
            "history says that it can't be sure to be complete".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    Ok(format!("a send is refused as unavailable instead of being lost; conversations are still listed, {history}"))
}
