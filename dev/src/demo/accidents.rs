//! Processes of ours that are killed while people talk.

use anyhow::{Context, Result, ensure};

use super::{
    narrator::{Narrator, Promise},
    stage::{FIRST, Stage},
};
use crate::person::SHOWN_DEADLINE;

/// Messages of each person in a scene.
const EACH: usize = 30;
/// How many are accepted before something is killed.
const MID_STREAM: usize = 25;

/// The persister is killed mid-stream, and history still shows everything at once.
pub async fn persister(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    told.tell(&format!("all three talk at the same time, {EACH} messages each"));
    let before = stage.ledger.count();
    tokio::try_join!(stage.talk(EACH), async {
        stage.ledger.until_count(before + MID_STREAM).await?;
        stage.fleet.persister().kill().await?;
        told.fault("the persister is killed with -9, mid-stream");
        Ok(())
    })?;
    let outcome = async {
        let (direct, group) = (stage.direct()?, stage.group()?);
        for turn in 0..10 {
            let (writer, reader) =
                if turn % 2 == 0 { (&stage.asha, &stage.bikram) } else { (&stage.bikram, &stage.asha) };
            stage.history_has_news(writer, reader, if turn < 5 { direct } else { group }).await?;
        }
        let mut count = 0;
        for room in &stage.rooms {
            count += stage.history_is_complete(room).await?;
        }
        let (stored, accepted) = (stage.stored().await?, stage.ledger.count());
        ensure!(stored < accepted, "Postgres has all {accepted} messages though nobody stores them");
        Ok(format!(
            "10 of 10 new messages are in the next page at the other gateway, and history has all {count} messages, while Postgres has {stored} of {accepted}"
        ))
    };
    told.check(Promise::HistoryNeverLags, outcome.await);
    stage.check_shown(told).await;
    stage.fleet.persister().start_ready().await?;
    told.tell("the persister is started again");
    let kept = stage.until_stored().await.map(|count| format!("Postgres has all {count} messages now"));
    told.check(Promise::AcceptedMeansKept, kept);
    Ok(())
}

/// A gateway is killed, and its users resume at the other.
pub async fn gateway(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let victim = stage.fleet.gateway(FIRST);
    let before = stage.ledger.count();
    let arrivals = [&stage.asha, &stage.chandra].map(|person| person.diary().arrivals().len());
    told.tell(&format!("Asha and Chandra are at {}, Bikram is at the other; all three talk", victim.name()));
    tokio::try_join!(stage.talk(EACH), async {
        stage.ledger.until_count(before + MID_STREAM).await?;
        victim.kill().await?;
        told.fault(&format!("{} is killed with -9, mid-stream", victim.name()));
        Ok(())
    })?;
    let outcome = async {
        for (person, arrivals) in [&stage.asha, &stage.chandra].into_iter().zip(arrivals) {
            person.until("a new connection", SHOWN_DEADLINE, |diary| diary.arrivals().len() > arrivals).await?;
            let diary = person.diary();
            let arrival = diary.arrivals().last().context("nobody arrived")?;
            ensure!(!arrival.gateway.starts_with(&victim.url()), "{} is still at the dead gateway", person.name);
            ensure!(arrival.is_resumed, "{} could not resume", person.name);
        }
        Ok("Asha and Chandra go on at gateway-2, resumed: true for 2 of 2")
    };
    told.check(Promise::ResumeIsComplete, outcome.await);
    stage.check_shown(told).await;
    victim.start_ready().await?;
    told.tell(&format!("{} is started again, and Asha and Chandra go back to it", victim.name()));
    stage.take_places().await
}

/// The notifier is killed mid-stream.
pub async fn notifier(stage: &mut Stage, told: &Narrator) -> Result<()> {
    stage.take_places().await?;
    let before = stage.ledger.count();
    tokio::try_join!(stage.talk(EACH), async {
        stage.ledger.until_count(before + MID_STREAM).await?;
        stage.fleet.notifier().kill().await?;
        told.fault("the notifier is killed with -9, mid-stream");
        Ok(())
    })?;
    let accepted = stage.ledger.count() - before;
    told.check(
        Promise::LosingAHelper,
        Ok(format!("{accepted} of {accepted} messages were accepted, though nobody delivers")),
    );
    stage.fleet.notifier().start_ready().await?;
    told.tell("the notifier is started again");
    stage.check_shown(told).await;
    Ok(())
}
