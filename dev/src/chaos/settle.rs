//! After a fault: everything gets the time to become what it has to be, and then the evidence is gathered.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use chat_client::{Rest, ids::UserId, wire::SendMessageBody};
use tokio::time::{Instant, sleep};

use super::{claims::Claimed, crowd::Crowd, ground::Ground, load::Load, presence};
use crate::{
    audit::{Attempt, Check, Evidence, Fate, Finding, Kept, Key, Ledger, Reader, Row, are_told, gather, stored},
    wait,
};

/// How long the outcome of a single message may stay unknown once everything runs.
const KNOWN_DEADLINE: Duration = Duration::from_mins(1);
/// How long everything accepted may take to be in PostgreSQL and on all devices. Clients wait up to 30 s between two
/// tries to connect.
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);
/// How long changes of participants may take to be in the log. Gateways sweep every two seconds.
const OUTBOX_DEADLINE: Duration = Duration::from_secs(30);
/// How long notifications may take. They rest between two tries, longer after each failure.
const QUEUE_DEADLINE: Duration = Duration::from_mins(3);
/// How long presence may take to be right: a gateway that died is noticed within 30 s.
const PRESENCE_DEADLINE: Duration = Duration::from_secs(30);
/// How long pushes of marks and changes may be on their way to devices.
const TOLD_DEADLINE: Duration = Duration::from_secs(30);
/// Between two tries, or two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Sends every message of unknown outcome again, as a client has to, until the outcome is known.
pub async fn learn_outcomes(readers: &[Reader], ledger: &Ledger) -> u64 {
    let rest_of = |user_id: UserId| readers.iter().find(|reader| reader.user_id == user_id).map(|reader| &reader.rest);
    let end = Instant::now() + KNOWN_DEADLINE;
    let mut unknown = 0;
    for attempt in ledger.attempts().into_iter().filter(|attempt| attempt.fate == Fate::Unknown) {
        unknown += 1;
        if let Some(rest) = rest_of(attempt.key.sender_id) {
            learn_outcome(rest, ledger, &attempt, end).await;
        }
    }
    unknown
}

async fn learn_outcome(rest: &Rest, ledger: &Ledger, attempt: &Attempt, end: Instant) {
    let Key { conversation_id, sender_id, message_id } = attempt.key;
    let body = SendMessageBody { message_id, text: attempt.text.clone(), is_repeat: true, seen_seq: None };
    while Instant::now() < end {
        match rest.send_message(conversation_id, &body).await {
            Ok(accepted) => return ledger.accept(sender_id, &accepted),
            // It stays unknown, and may be there or not.
            Err(error) if error.retry_after().is_none() && error.code().is_some() => return,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Waits until everything that was accepted is stored, shown, and dealt with by all workers. What is missing at the end
/// of the wait is found by comparing.
pub async fn drain(ground: &Ground, crowd: &Crowd, ledger: &Ledger) -> Finding {
    let kept: Vec<Kept> = ledger.attempts().iter().filter_map(Attempt::kept).collect();
    let ids: Vec<_> = crowd.rooms().iter().map(|room| room.id).collect();
    let is_stored = wait::until("storing everything", DRAIN_DEADLINE, || async {
        let Ok(mut postgres) = ground.postgres().await else { return Ok(None) };
        let rows = stored::rows(&mut postgres, &ids).await.unwrap_or_default();
        let rows: BTreeSet<Key> = rows.iter().map(Row::key).collect();
        let is_complete = kept.iter().all(|kept| rows.contains(&kept.key));
        if !is_complete {
            sleep(PAUSE).await;
        }
        Ok(is_complete.then_some(()))
    })
    .await;
    let is_shown = wait::until("showing everything", DRAIN_DEADLINE, || async {
        let is_complete = is_shown(crowd, &kept);
        if !is_complete {
            sleep(PAUSE).await;
        }
        Ok(is_complete.then_some(()))
    })
    .await;
    // If nothing comes any more after so long, the workers' own counts are all that is left to look at.
    let deadline = if is_stored.is_ok() && is_shown.is_ok() { DRAIN_DEADLINE } else { Duration::ZERO };
    unsettled(ground, deadline).await
}

fn is_shown(crowd: &Crowd, kept: &[Kept]) -> bool {
    let rooms = crowd.rooms();
    crowd.all_devices().all(|device| {
        let diary = device.person.diary();
        rooms.iter().filter(|room| room.members.contains(&device.person.user_id)).all(|room| {
            let shown: BTreeSet<_> = diary.messages(room.id).iter().map(|message| message.message_id).collect();
            kept.iter()
                .filter(|kept| kept.key.conversation_id == room.id)
                .all(|kept| shown.contains(&kept.key.message_id))
        })
    })
}

/// Entries of the log that a worker has not dealt with within the deadline.
async fn unsettled(ground: &Ground, deadline: Duration) -> Finding {
    let left = || async {
        let mut left = 0;
        for of_persister in [true, false] {
            let progress = ground.progress(of_persister).await?;
            left += progress.unsettled + progress.pending;
        }
        anyhow::Ok(left)
    };
    let waited = wait::until("the end of the workers' backlog", deadline, || async {
        Ok(left().await.is_ok_and(|left| left == 0).then_some(()))
    });
    let mut finding = Finding::new(Check::Unsettled);
    finding.of = match ground.stream().await {
        Ok(stream) => stream.get_info().await.map_or(0, |info| info.state.messages),
        Err(_) => 0,
    };
    if waited.await.is_err() {
        match left().await {
            Ok(left) => {
                finding.violations = left;
                finding.first = Some(format!("{left} entries still wait for a worker"));
            }
            Err(error) => finding.violate(format!("the log can't be asked: {error:#}")),
        }
    }
    finding
}

/// Waits until the log has every change of participants.
pub async fn drain_outbox(ground: &Ground) -> Finding {
    let count =
        || async { stored::number(&mut ground.postgres().await?, "select count(*) from outbox".to_owned()).await };
    // What is left is looked at below.
    _ = wait::until("an empty outbox table", OUTBOX_DEADLINE, || async {
        let is_empty = matches!(count().await, Ok(0));
        if !is_empty {
            sleep(PAUSE).await;
        }
        Ok(is_empty.then_some(()))
    })
    .await;
    let mut finding = Finding::new(Check::Unsettled);
    finding.look(match count().await {
        Ok(0) => Ok(()),
        Ok(left) => Err(format!("{left} changes of participants still wait in the outbox table")),
        Err(error) => Err(format!("the outbox table can't be read: {error:#}")),
    });
    finding
}

/// Waits until all notifications are dealt with.
pub async fn drain_queue(ground: &Ground) -> Finding {
    let mut finding = Finding::new(Check::Unsettled);
    let left = || async {
        // What a notifier had in hand that died would come back only after a minute.
        _ = ground.hand_on_soon().await;
        let left = ground.jobs_left().await;
        if !matches!(left, Ok((0, _))) {
            sleep(PAUSE).await;
        }
        Ok(left.ok().filter(|(left, _)| *left == 0))
    };
    // What is left is looked at below.
    _ = wait::until("the end of the queue of notifications", QUEUE_DEADLINE, left).await;
    match ground.jobs_left().await {
        Ok((left, of)) => {
            finding.of = of;
            if left > 0 {
                finding.violations = left;
                let state = ground.jobs_state().await.unwrap_or_else(|error| format!("{error:#}"));
                finding.first = Some(format!("{left} jobs are left in the queue of notifications: {state}"));
            }
        }
        Err(error) => finding.violate(format!("the queue of notifications can't be asked: {error:#}")),
    }
    finding
}

/// Everything that is to be audited. `claimed` are notifications that may be lost.
pub async fn evidence(
    ground: &Ground,
    crowd: &Crowd,
    load: &Load,
    letters_before: u64,
    claimed: &BTreeSet<Claimed>,
) -> Result<Evidence> {
    let sights = presence::sights(crowd, PRESENCE_DEADLINE).await;
    let services = ground.fleet.push_services();
    let away = crowd.phones().map(|phone| phone.record(services, claimed)).collect();
    let (url, rooms, readers) = (&ground.fleet.urls().postgres, crowd.rooms(), crowd.readers()?);
    let attempts = load.ledger.attempts();
    let (marked, observed, forbidden) = load.actions.record();
    let (muted, informed, pushed) = (crowd.guests.muted(), crowd.guests.informed(&rooms), crowd.pushed());
    let evidence = gather(url, &rooms, attempts, &readers, crowd.records(), letters_before).await?;
    let mut evidence = Evidence { away, sights, pushed, marked, muted, informed, observed, forbidden, ..evidence };
    let end = Instant::now() + TOLD_DEADLINE;
    while !are_told(&evidence) && Instant::now() < end {
        sleep(PAUSE).await;
        evidence.devices = crowd.records();
    }
    Ok(evidence)
}
