//! A case of a business, from the first message until it is resolved. On the way the connection of its agent dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chat_client::{
    ids::{BusinessId, ConversationId},
    wire::{
        Assignment, AssignmentList, BusinessSettings, CreateConversation, ReleaseReason, ResolveCase, SetStatus,
        StaffStatus,
    },
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    narrator::{Narrator, Promise},
    stage::{FIRST, SECOND, Stage},
};
use crate::{
    audit::{Diary, Kept, Key, shown_exactly},
    person::{Person, SHOWN_DEADLINE},
};

/// How long an agent has for an answer: the least that settings take.
const ANSWER_MAX_S: u32 = 10;
/// How long the next agent may take to be shown the case: the time for the answer, and the time until it is looked at.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(30);

/// The conversation of the scene, for the audits.
#[derive(Debug)]
pub struct Case {
    pub id: ConversationId,
    /// Reads it without taking part.
    pub supervisor: Person,
}

/// An agent answers once and is cut off; another one gets the case and ends it.
pub async fn changes_hands(stage: &mut Stage, told: &Narrator) -> Result<()> {
    let kaha = stage.fleet.kaha();
    kaha.push_business().await?;
    let business = kaha.business().clone();
    let business_id: BusinessId = business.id.try_into()?;
    let known = kaha.people().get(3).context("kaha-main-v3 knows too few people")?;
    let mut customer = Person::new(known, kaha)?;
    let staff = business.staff.iter().map(|member| Person::new(&member.person, kaha)).collect::<Result<Vec<_>>>()?;
    let [mut first, mut second, _, supervisor, admin] =
        <[Person; 5]>::try_from(staff).ok().context("the business has another staff")?;
    let desk = Desk { gateway: stage.fleet.gateway(SECOND).url(), business_id };
    desk.hurry(&admin).await?;
    told.tell(&format!("{} gives its agents {ANSWER_MAX_S} seconds for an answer", business.name));

    customer.arrive(stage.gateways_from(FIRST)).await?;
    first.arrive(stage.gateways_from(SECOND)).await?;
    second.arrive(stage.gateways_from(FIRST)).await?;
    desk.set_available(&first).await?;
    let made = customer.rest()?.create_conversation(&CreateConversation::Business { business_id }).await?;
    let id = made.conversation_id;
    stage.case = Some(Case { id, supervisor });
    let supervisor = &stage.case.as_ref().context("it was just set")?.supervisor;

    stage.say(told, &customer, id, "Do you have tea from Ilam?").await?;
    until_shown(&first, id, 1, SHOWN_DEADLINE).await?;
    stage.say(told, &first, id, "We do. How much?").await?;
    until_shown(&customer, id, 2, SHOWN_DEADLINE).await?;
    stage.say(told, &customer, id, "Half a kilo, please.").await?;
    until_shown(&first, id, 3, SHOWN_DEADLINE).await?;
    desk.set_available(&second).await?;
    first.leave().await?;
    told.fault(&format!("the connection of {} dies before the answer", first.name));

    until_shown(&second, id, 3, HANDOVER_DEADLINE).await?;
    told.tell(&format!("{} is given the case, and reads it from the start", second.name));
    let unread = second.rest()?.conversation(id).await.map(|conversation| conversation.unread);
    told.check(Promise::UnreadIsItsDefinition, {
        unread.map_err(Into::into).and_then(|unread| {
            ensure!(unread == 1, "{unread} messages are unread for {}", second.name);
            Ok(format!("1 of 3 messages is unread for {}: the one that was not answered", second.name))
        })
    });
    let last = stage.say(told, &second, id, "It is on its way.").await?;
    until_shown(&customer, id, 4, SHOWN_DEADLINE).await?;
    desk.resolve(&second, id, ResolveCase { seq: last.seq }).await?;

    let kept = stage.ledger.of(id);
    let shown = as_business(&kept, &customer, business_id);
    told.check(Promise::NotYours, {
        shown_exactly(&shown, customer.diary().messages(id)).map(|()| {
            format!("{} was shown 2 of 2 answers as those of the business, whose 2 agents stay unknown", customer.name)
        })
    });
    told.check(Promise::ShownOnce, {
        shown_exactly(&kept, second.diary().messages(id))
            .map(|()| format!("{} was shown {} of {} messages, each once", second.name, kept.len(), kept.len()))
    });
    let assignments = desk.assignments(supervisor, id).await;
    told.check(Promise::CasesGoOn, assignments.and_then(|ledger| handed_over(&ledger, &first, &second)));
    for person in [&mut customer, &mut second] {
        person.leave().await?;
    }
    Ok(())
}

async fn until_shown(person: &Person, id: ConversationId, count: usize, deadline: Duration) -> Result<()> {
    let what = format!("{count} messages of the case");
    person.until(&what, deadline, |diary: &Diary| diary.messages(id).len() >= count).await
}

/// The messages of a conversation, as the customer is shown them.
fn as_business(kept: &[Kept], customer: &Person, business_id: BusinessId) -> Vec<Kept> {
    let shown = |kept: &Kept| {
        let is_own = kept.key.sender_id == customer.user_id;
        let sender_id = if is_own { customer.user_id } else { business_id.into() };
        Kept { key: Key { sender_id, ..kept.key }, ..kept.clone() }
    };
    kept.iter().map(shown).collect()
}

/// The ledger says that the case went from one agent to the other.
fn handed_over(ledger: &[Assignment], first: &Person, second: &Person) -> Result<String> {
    let told: Vec<_> = ledger.iter().rev().map(|lease| (lease.agent_id, lease.release_reason)).collect();
    let right = [(first.user_id, Some(ReleaseReason::ReplyMissed)), (second.user_id, Some(ReleaseReason::Resolved))];
    let reasons: Vec<_> = told.iter().map(|(_, reason)| reason).collect();
    ensure!(told == right, "the ledger has {} assignments, which ended as {reasons:?}", told.len());
    Ok(format!("the ledger shows {}, who missed the answer, and {}, who resolved the case", first.name, second.name))
}

/// Requests of staff over REST.
struct Desk {
    gateway: String,
    business_id: BusinessId,
}

impl Desk {
    /// Shortens the time for answers.
    async fn hurry(&self, admin: &Person) -> Result<()> {
        let path = self.path("settings");
        let mut settings: BusinessSettings = self.ask(admin, Method::GET, &path, None::<&()>).await?;
        settings.clocks.answer_max_s = ANSWER_MAX_S;
        settings.clocks.reply_max_s = ANSWER_MAX_S;
        self.ask::<_, Value>(admin, Method::PUT, &path, Some(&settings)).await.map(drop)
    }

    async fn set_available(&self, agent: &Person) -> Result<()> {
        let status = SetStatus { status: StaffStatus::Available, until: None, gives_back: false };
        self.ask::<_, ()>(agent, Method::PUT, &self.path("status"), Some(&status)).await
    }

    async fn resolve(&self, agent: &Person, id: ConversationId, resolve: ResolveCase) -> Result<()> {
        let path = format!("conversations/{}/resolve", id.as_uuid());
        self.ask::<_, ()>(agent, Method::POST, &path, Some(&resolve)).await
    }

    /// The newest first.
    async fn assignments(&self, supervisor: &Person, id: ConversationId) -> Result<Vec<Assignment>> {
        let path = format!("conversations/{}/assignments", id.as_uuid());
        let list: AssignmentList = self.ask(supervisor, Method::GET, &path, None::<&()>).await?;
        Ok(list.assignments)
    }

    fn path(&self, part: &str) -> String {
        format!("businesses/{}/{part}", self.business_id.as_uuid())
    }

    /// Any request. An empty answer is read as null.
    async fn ask<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        person: &Person,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T> {
        let mut request =
            reqwest::Client::new().request(method, format!("{}/v1/{path}", self.gateway)).bearer_auth(person.token());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path} of {}: {status} {text}", person.name);
        Ok(serde_json::from_str(if text.is_empty() { "null" } else { &text })?)
    }
}
