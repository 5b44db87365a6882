//! The fleet, the people and their conversations, and the small things that scenes are made of.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use chat_client::{
    HistoryRange, Outgoing,
    ids::{ConversationId, UserId},
};
use sqlx::{Connection, PgConnection};

use super::{
    cases::Case,
    narrator::{Narrator, Promise},
    words::Words,
};
use crate::{
    audit::{self, Diary, Kept, Key, Ledger, one_order, shown_exactly, stored},
    fleet::{Fleet, Service},
    person::{Person, SHOWN_DEADLINE},
    process::Process,
    servers::Servers,
    wait,
};

/// How long the persister may take to have stored what was accepted.
const STORED_DEADLINE: Duration = Duration::from_secs(30);

/// Index of the gateway that Asha and Chandra prefer.
pub const FIRST: usize = 0;
/// Index of the one that Bikram prefers.
pub const SECOND: usize = 1;

/// A conversation and who is in it.
#[derive(Debug)]
pub struct Room {
    pub id: ConversationId,
    pub name: &'static str,
    pub members: Vec<UserId>,
}

/// Everything that a scene can use.
#[derive(Debug)]
pub struct Stage {
    pub fleet: Fleet,
    pub asha: Person,
    pub bikram: Person,
    pub chandra: Person,
    pub stranger: Person,
    pub rooms: Vec<Room>,
    /// The conversation of a business, in which none of the three takes part.
    pub case: Option<Case>,
    pub ledger: Ledger,
    pub words: Words,
    /// Repeats of a message that were sent on purpose.
    pub repeats: u32,
    /// Requests of strangers that were refused.
    pub refusals: u32,
}

impl Stage {
    /// Nobody is there yet.
    pub fn new(fleet: Fleet, seed: u64) -> Result<Self> {
        let person = |index: usize| {
            let known = fleet.kaha().people().get(index).context("kaha-main-v3 knows too few people")?;
            Person::new(known, fleet.kaha())
        };
        let (asha, bikram, chandra, stranger) = (person(0)?, person(1)?, person(2)?, person(7)?);
        Ok(Self {
            fleet,
            asha,
            bikram,
            chandra,
            stranger,
            rooms: Vec::new(),
            case: None,
            ledger: Ledger::default(),
            words: Words::new(seed),
            repeats: 0,
            refusals: 0,
        })
    }

    /// Those who take part in the conversations.
    pub fn people(&self) -> [&Person; 3] {
        [&self.asha, &self.bikram, &self.chandra]
    }

    /// The conversation of Asha and Bikram.
    pub fn direct(&self) -> Result<ConversationId> {
        Ok(self.rooms.first().context("there is no direct conversation")?.id)
    }

    /// The group.
    pub fn group(&self) -> Result<ConversationId> {
        Ok(self.rooms.get(1).context("there is no group")?.id)
    }

    /// The fleet's own servers.
    pub fn servers(&self) -> Result<&Servers> {
        self.fleet.servers().context("the fleet has no servers of its own")
    }

    /// The gateways' URLs, the preferred one first.
    pub fn gateways_from(&self, preferred: usize) -> Vec<String> {
        let mut urls: Vec<_> = self.fleet.gateways().iter().map(Service::url).collect();
        let turn = preferred % urls.len();
        urls.rotate_left(turn);
        urls
    }

    /// The name of the gateway that somebody is connected to; `…` while they are not.
    pub fn gateway_of(&self, person: &Person) -> String {
        let url = person.gateway().unwrap_or_default();
        let gateway = self.fleet.gateways().iter().find(|gateway| url.starts_with(&gateway.url()));
        gateway.map_or("…", Service::name).to_owned()
    }

    /// Everybody is connected where they prefer to be.
    pub async fn take_places(&mut self) -> Result<()> {
        for (preferred, who) in [(FIRST, 0), (SECOND, 1), (FIRST, 2)] {
            let gateways = self.gateways_from(preferred);
            let person = match who {
                0 => &mut self.asha,
                1 => &mut self.bikram,
                _ => &mut self.chandra,
            };
            let wanted = gateways.first().cloned().unwrap_or_default();
            if person.gateway().is_ok_and(|url| url.starts_with(&wanted)) {
                continue;
            }
            person.leave().await?;
            person.arrive(gateways).await?;
        }
        Ok(())
    }

    /// Starts whatever was killed and not started again, so that the story can go on.
    pub async fn repair(&mut self) -> Result<()> {
        let ended: Vec<_> = self.fleet.processes().filter(|process| !process.is_running()).map(Process::name).collect();
        for name in ended {
            self.fleet.start_again(name).await?;
        }
        self.take_places().await
    }

    /// Sends a message and waits until it is accepted.
    pub async fn send(&self, person: &Person, conversation_id: ConversationId, words: &str) -> Result<Kept> {
        // As an app whose conversation is on the screen.
        let seen_seq = person.diary().messages(conversation_id).last().map(|last| last.seq);
        let outgoing = Outgoing::new(conversation_id, self.words.marked(words));
        self.send_as(person, Outgoing { seen_seq, ..outgoing }).await
    }

    /// The same with an id of the scene's. A repeat gets its first answer, and is one message in the ledger.
    pub async fn send_as(&self, person: &Person, outgoing: Outgoing) -> Result<Kept> {
        let Outgoing { conversation_id, message_id, text, .. } = outgoing.clone();
        let key = Key { conversation_id, sender_id: person.user_id, message_id };
        self.ledger.begin(key, &text);
        let accepted = person.client()?.send_message(outgoing).await?;
        self.ledger.accept(person.user_id, &accepted);
        Ok(Kept { key, seq: accepted.seq, sent_at: accepted.sent_at, text })
    }

    /// Says something, aloud.
    pub async fn say(&self, told: &Narrator, person: &Person, room: ConversationId, words: &str) -> Result<Kept> {
        let kept = self.send(person, room, words).await?;
        told.says(&person.name, &self.gateway_of(person), kept.seq.0, words);
        Ok(kept)
    }

    /// Everybody who is there talks at the same time, so many messages each, in the direct conversation and in the group.
    pub async fn talk(&self, each: usize) -> Result<()> {
        let (direct, group) = (self.direct()?, self.group()?);
        tokio::try_join!(
            self.monologue(&self.asha, [direct, group], each),
            self.monologue(&self.bikram, [group, direct], each),
            self.monologue(&self.chandra, [group, group], each),
        )?;
        Ok(())
    }

    async fn monologue(&self, person: &Person, rooms: [ConversationId; 2], count: usize) -> Result<()> {
        if !person.is_there() {
            return Ok(());
        }
        for room in rooms.iter().cycle().take(count) {
            self.send(person, *room, self.words.some()).await?;
        }
        Ok(())
    }

    /// Waits until everybody who is there has been shown as much as was accepted.
    pub async fn until_shown(&self) -> Result<()> {
        for room in &self.rooms {
            let count = self.ledger.of(room.id).len();
            for person in self.people().into_iter().filter(|person| person.is_there()) {
                if room.members.contains(&person.user_id) {
                    let what = format!("{count} messages in the {} conversation", room.name);
                    let is_shown = |diary: &Diary| diary.messages(room.id).len() >= count;
                    person.until(&what, SHOWN_DEADLINE, is_shown).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits as `until_shown`, then checks that everybody was shown everything once and in one order.
    pub async fn check_shown(&self, told: &Narrator) {
        let outcome = async {
            self.until_shown().await?;
            let mut count = 0;
            for room in &self.rooms {
                let kept = self.ledger.of(room.id);
                one_order(&kept)?;
                for person in self.people().into_iter().filter(|person| person.is_there()) {
                    if room.members.contains(&person.user_id) {
                        shown_exactly(&kept, person.diary().messages(room.id)).with_context(|| person.name.clone())?;
                        count += kept.len();
                    }
                }
            }
            Ok(format!("{} accepted, {count} showings, each once and in order", self.ledger.count()))
        };
        told.check(Promise::ShownOnce, outcome.await);
    }

    /// Whether history is what was accepted, at the gateways of all who may read it. Gives how many messages it has.
    pub async fn history_is_complete(&self, room: &Room) -> Result<usize> {
        let kept = self.ledger.of(room.id);
        for person in self.people() {
            if room.members.contains(&person.user_id) && person.is_there() {
                let history = audit::history(person.rest()?, room.id).await?;
                shown_exactly(&kept, &history)
                    .with_context(|| format!("history of {} at {}", person.name, self.gateway_of(person)))?;
            }
        }
        Ok(kept.len())
    }

    /// How many messages Postgres has.
    pub async fn stored(&self) -> Result<usize> {
        let mut connection = PgConnection::connect(&self.fleet.urls().postgres).await?;
        let count = stored::number(&mut connection, "select count(*) from messages".to_owned()).await?;
        connection.close().await?;
        Ok(usize::try_from(count)?)
    }

    /// Waits until Postgres has as many messages as were accepted.
    pub async fn until_stored(&self) -> Result<usize> {
        let accepted = self.ledger.count();
        let waited = wait::until("storing everything that was accepted", STORED_DEADLINE, || async {
            Ok((self.stored().await? >= accepted).then_some(accepted))
        });
        match waited.await {
            Ok(accepted) => Ok(accepted),
            Err(error) => Err(error.context(format!("Postgres has {} of {accepted} messages", self.stored().await?))),
        }
    }

    /// A message right after which a reader asks for history: it must be there.
    pub async fn history_has_news(&self, writer: &Person, reader: &Person, room: ConversationId) -> Result<()> {
        let kept = self.send(writer, room, self.words.some()).await?;
        let page = reader.rest()?.history(room, HistoryRange::Newest, None).await?;
        match page.messages.last() {
            Some(last) if last.message_id == kept.key.message_id => Ok(()),
            Some(last) => bail!("number {} was accepted, and the newest page ends with {}", kept.seq.0, last.seq.0),
            None => bail!("number {} was accepted, and the newest page is empty", kept.seq.0),
        }
    }
}
