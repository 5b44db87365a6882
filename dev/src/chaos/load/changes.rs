//! Changes that are made during a fault: a user is added to a group and removed, a user is blocked and unblocked, and a user
//! without a connection mutes. Each change is repeated until a gateway has answered it. What must follow from a change is
//! noted once the change is in the log: the client that made it has it, and the outbox in PostgreSQL does not.
//! A client may have it earlier, since a reload reads conversations from PostgreSQL.

use std::{ops::Range, sync::Arc, time::Duration};

use anyhow::Result;
use chat_client::{
    Rest, RestError,
    ids::ConversationId,
    wire::{Accepted, ErrorCode, Mute},
};
use sqlx::{Connection, PgConnection};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    samples::Samples,
    voice::{Voice, is_for_good},
};
use crate::{
    audit::{Actions, Diary, Key, Ledger, Observed, Room, stored},
    chaos::crowd::{Crowd, Device},
    wait,
};

/// Between two rounds of changes.
const PACE_MS: Range<u64> = 1000..3000;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the client that made a change may take to be told of it, and one that was added to be shown a message. Longer
/// than a fault lasts, and than clients wait between two tries to connect. After that nothing is changed any more: the
/// audit finds what was not told.
const TOLD_DEADLINE: Duration = Duration::from_secs(90);

/// What all changes share.
#[derive(Debug, Clone)]
pub struct Changes {
    pub actions: Arc<Actions>,
    pub samples: Arc<Samples>,
    /// The URL of the database with the outbox.
    pub postgres: String,
    pub stop: CancellationToken,
}

/// Somebody who changes things, or whom changes concern.
#[derive(Debug, Clone)]
struct Party {
    voice: Voice,
    rest: Rest,
    diary: watch::Receiver<Diary>,
}

impl Party {
    fn of(device: &Device, ledger: &Arc<Ledger>, samples: &Arc<Samples>) -> Result<Self> {
        let (client, rest) = device.client()?;
        let voice = Voice::new(device.person.user_id, client, ledger, samples);
        Ok(Self { voice, rest, diary: device.person.follow() })
    }

    async fn say(&self, room: ConversationId, text: &str) -> Option<Accepted> {
        self.voice.clone().send(room, format!("{text} {:016x}", rand::random::<u64>())).await
    }

    /// Whether the diary says so in time.
    async fn is_told(&mut self, holds: impl FnMut(&Diary) -> bool) -> bool {
        timeout(TOLD_DEADLINE, self.diary.wait_for(holds)).await.is_ok_and(|told| told.is_ok())
    }

    /// Whether their client shows a message in time.
    async fn is_shown(&mut self, accepted: &Accepted) -> bool {
        timeout(TOLD_DEADLINE, self.diary.wait_for(|diary| diary.has(accepted))).await.is_ok_and(|shown| shown.is_ok())
    }
}

impl Changes {
    /// Kinds of changes.
    pub const KINDS: usize = 3;

    /// Begins with all of them. Gives how many have gone through their first round.
    pub fn start(self, tasks: &mut JoinSet<()>, crowd: &Crowd, ledger: &Arc<Ledger>) -> Result<watch::Receiver<usize>> {
        let guests = &crowd.guests;
        let party = |device| Party::of(device, ledger, &self.samples);
        let (owner, visitor, blocked) = (party(&guests.owner)?, party(&guests.visitor)?, party(&guests.blocked)?);
        let (changed, first_rounds) = watch::channel(0);
        let changed = Arc::new(changed);
        let quiet = guests.quiet.iter().filter_map(|room| {
            let who = crowd.absent.iter().find(|absent| room.members.contains(&absent.user_id))?;
            Some((room.clone(), who.rest.clone()))
        });
        let quiet: Vec<_> = quiet.collect();
        tasks.spawn(self.clone().mute(quiet, owner.clone(), visitor.clone(), Arc::clone(&changed)));
        tasks.spawn(self.clone().come_and_go(guests.club.id, owner.clone(), visitor, Arc::clone(&changed)));
        tasks.spawn(self.block(guests.pair.id, owner, blocked, changed));
        Ok(first_rounds)
    }

    async fn come_and_go(
        self,
        club: ConversationId,
        mut owner: Party,
        mut visitor: Party,
        changed: Arc<watch::Sender<usize>>,
    ) {
        let visitor_id = visitor.voice.user_id;
        let (rest, ids) = (owner.rest.clone(), [visitor_id]);
        let mut is_first = true;
        let mut not_for_them = None;
        while self.goes_on(is_first, &changed).await {
            is_first = false;
            if let Some(accepted) = not_for_them.take() {
                let is_shown = visitor.diary.borrow().has(&accepted);
                self.observe(&accepted, &owner, &visitor, false, is_shown);
            }
            self.until_answered(|| rest.add_participants(club, ids)).await;
            let is_told = owner.is_told(|diary| diary.takes_part(club, visitor_id) == Some(true)).await;
            if is_told && let Some(welcome) = owner.say(club, "welcome").await {
                // What a removal overtakes is not shown any more.
                let is_shown = visitor.is_shown(&welcome).await;
                self.observe(&welcome, &owner, &visitor, true, is_shown);
                if let Some(hello) = visitor.say(club, "hello").await {
                    visitor.is_shown(&hello).await;
                }
            }
            self.until_answered(|| async {
                match rest.remove_participant(club, visitor_id).await {
                    // The client repeats what got no answer, and the first attempt has removed them.
                    Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
                    outcome => outcome,
                }
            })
            .await;
            if !is_told
                || !owner.is_told(|diary| diary.takes_part(club, visitor_id) == Some(false)).await
                || !self.is_in_log(club).await
            {
                return;
            }
            not_for_them = owner.say(club, "they are gone").await;
            visitor.voice.try_forbidden(club, &self.actions).await;
        }
    }

    async fn block(self, pair: ConversationId, mut owner: Party, other: Party, changed: Arc<watch::Sender<usize>>) {
        let (rest, other_id) = (owner.rest.clone(), other.voice.user_id);
        let mut is_first = true;
        while self.goes_on(is_first, &changed).await {
            is_first = false;
            self.until_answered(|| rest.block(other_id)).await;
            let is_told = owner.is_told(|diary| diary.is_blocked(pair) == Some(true)).await;
            if is_told && self.is_in_log(pair).await {
                other.voice.try_forbidden(pair, &self.actions).await;
                owner.voice.try_forbidden(pair, &self.actions).await;
            }
            self.until_answered(|| rest.unblock(other_id)).await;
            if !is_told || !owner.is_told(|diary| diary.is_blocked(pair) == Some(false)).await {
                return;
            }
            other.say(pair, "are you there?").await;
            owner.say(pair, "yes").await;
        }
    }

    /// One conversation after the other is muted, and only then written in.
    async fn mute(self, quiet: Vec<(Room, Rest)>, owner: Party, visitor: Party, changed: Arc<watch::Sender<usize>>) {
        let mut is_first = true;
        for (room, rest) in quiet {
            if !self.goes_on(is_first, &changed).await {
                return;
            }
            is_first = false;
            if self.until_answered(|| rest.mute(room.id, Mute::ForGood)).await {
                owner.say(room.id, "quietly").await;
                visitor.say(room.id, "quietly too").await;
            }
        }
    }

    /// Whether there is another round. A round that has begun is always ended.
    async fn goes_on(&self, is_first: bool, changed: &watch::Sender<usize>) -> bool {
        if is_first {
            return !self.stop.is_cancelled();
        }
        changed.send_modify(|rounds| *rounds += 1);
        let pause = Duration::from_millis(rand::random_range(PACE_MS));
        self.stop.run_until_cancelled(sleep(pause)).await.is_some()
    }

    fn observe(&self, accepted: &Accepted, sender: &Party, reader: &Party, is_for_them: bool, is_shown: bool) {
        let (conversation_id, message_id) = (accepted.conversation_id, accepted.message_id);
        let key = Key { conversation_id, sender_id: sender.voice.user_id, message_id };
        self.actions.observe(Observed { key, user_id: reader.voice.user_id, is_for_them, is_shown });
    }

    /// Whether the outbox has no change of a conversation any more, in time: a change leaves it once the log has it.
    async fn is_in_log(&self, conversation_id: ConversationId) -> bool {
        let published = wait::until("publishing a change", TOLD_DEADLINE, async || {
            // While PostgreSQL is away this is not known.
            Ok(self.pending(conversation_id).await.is_ok_and(|pending| pending == 0).then_some(()))
        });
        published.await.is_ok()
    }

    async fn pending(&self, conversation_id: ConversationId) -> Result<u64> {
        let mut connection = PgConnection::connect(&self.postgres).await?;
        let id = conversation_id.as_uuid();
        stored::number(&mut connection, format!("select count(*) from outbox where conversation_id = '{id}'")).await
    }

    /// Asks until a gateway has answered. Gives whether it agreed; a refusal for good is a fault.
    async fn until_answered<T, F>(&self, ask: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<T, RestError>>,
    {
        loop {
            match ask().await {
                Ok(_) => return true,
                Err(error) if is_for_good(&error) => {
                    self.samples.refused(format!("{error}"));
                    return false;
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}
