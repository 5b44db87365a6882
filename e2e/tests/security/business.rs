//! R7.2: a customer sees the business, and never the account of an agent.

use anyhow::{Context, Result, ensure};
use chat_e2e::{Person, Socket, TestFleet, api::Answer, on_shared_fleet, said};
use chat_shared::{
    ids::{BusinessId, ConversationId, DeviceId, MessageId, UserId},
    wire::{Encoding, Resume, StaffRole},
};
use serde_json::{Value, json};

/// The gateway of the customer.
const FIRST: usize = 0;
/// The gateway of the agents.
const SECOND: usize = 1;

/// A business with two agents who are there, and a customer.
struct Scene<'a> {
    fleet: &'a TestFleet,
    business_id: BusinessId,
    customer: Person,
    agent: Person,
    colleague: Person,
    supervisor: Person,
    /// Everything that the customer received.
    received: Vec<u8>,
}

#[test]
fn no_id_of_staff_reaches_a_customer_r7_2() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [json, message_pack] = Encoding::ALL;
        for (customers, agents) in [(json, message_pack), (message_pack, json)] {
            let mut scene = Scene::new(fleet).await?;
            scene.play(customers, agents).await?;
            scene.check(customers)?;
        }
        Ok(())
    })
}

impl<'a> Scene<'a> {
    async fn new(fleet: &'a TestFleet) -> Result<Self> {
        let [customer, agent, colleague, supervisor] = fleet.people()?;
        let staff = [(&agent, StaffRole::Agent), (&colleague, StaffRole::Agent), (&supervisor, StaffRole::Supervisor)];
        let business_id = fleet.business(&staff).await?;
        Ok(Self { fleet, business_id, customer, agent, colleague, supervisor, received: Vec::new() })
    }

    /// A case from the first message to the second case, which another agent answers.
    async fn play(&mut self, customers: Encoding, agents: Encoding) -> Result<()> {
        let device_id = DeviceId::random();
        let mut customer = self.fleet.socket(&self.customer, FIRST, customers).await?;
        customer.record();
        let ready = customer.hello(device_id, None).await?;
        let watch = json!({ "type": "watch_businesses", "business_ids": [self.business_id] });
        ensure!(customer.ask(watch).await?["type"] == "done", "every user may watch a business");
        let mut agent = self.fleet.ready_socket(&self.agent, SECOND, agents).await?;
        self.as_staff(&self.agent, "PUT", &self.path("status"), json!({ "status": "available" })).await?;

        let made = self.asks("POST", "conversations", json!({ "kind": "business", "business_id": self.business_id }));
        let made = made.await?;
        let id = made["conversation_id"].as_str().context("a conversation has an id")?.parse::<ConversationId>()?;
        let question = say(&mut customer, id, "the question").await?;
        message(&mut agent, 1).await?;
        self.shows_all(id).await?;

        self.types(&mut agent, &mut customer, id).await?;
        let answer = say(&mut agent, id, "the answer").await?;
        ensure!(message(&mut customer, 2).await?["sender_id"] == json!(self.business_id), "not sent by the business");
        agent.mark_read(id, question).await?;
        let receipt = customer.receipt().await?;
        ensure!(receipt.user_id == self.business_id.into(), "not read by the business");
        customer.mark_read(id, answer).await?;
        let customer_id = self.customer.id;
        while agent.receipt().await?.user_id != customer_id {}

        self.as_staff(&self.agent, "POST", &of(id, "resolve"), json!({ "seq": 2 })).await?;
        state(&mut customer, 1, "resolved").await?;
        self.shows_all(id).await?;
        say(&mut customer, id, "one more question").await?;
        state(&mut customer, 2, "assigned").await?;
        // Sent while the agent did not take part, so it is in the history alone.
        state(&mut agent, 2, "assigned").await?;
        say(&mut agent, id, "one more answer").await?;
        message(&mut customer, 4).await?;

        let mut colleague = self.fleet.ready_socket(&self.colleague, FIRST, agents).await?;
        self.as_staff(&self.colleague, "PUT", &self.path("status"), json!({ "status": "available" })).await?;
        let seen = self.fleet.api(&self.agent, SECOND).listed(id).await?;
        let transfer = json!({ "user_id": self.colleague.id, "version": seen.version });
        self.as_staff(&self.agent, "PUT", &of(id, "agent"), transfer).await?;
        say(&mut colleague, id, "the answer of a colleague").await?;
        message(&mut customer, 5).await?;
        self.fleet.api(&self.supervisor, SECOND).history(id, "limit=10").await?;
        self.shows_all(id).await?;

        // Once more from the beginning, as a device that was away, at the other gateway.
        self.received.extend_from_slice(customer.recorded());
        drop(customer);
        let mut again = self.fleet.socket(&self.customer, SECOND, customers).await?;
        again.record();
        let epoch = ready.epoch.context("Redis is there, so there is an inbox")?;
        let resumed = again.hello(device_id, Some(Resume { epoch, cursor: ready.cursor })).await?;
        ensure!(resumed.resumed, "the inbox holds what was missed");
        message(&mut again, 5).await?;
        self.received.extend_from_slice(again.recorded());
        Ok(())
    }

    /// The customer sees the agent type, under the id of the business.
    async fn types(&self, agent: &mut Socket, customer: &mut Socket, id: ConversationId) -> Result<()> {
        agent.set_typing(id, true).await?;
        let typing = customer.typing().await?;
        ensure!(typing.user_id == self.business_id.into(), "it is not the business that types");
        Ok(())
    }

    /// Everything that REST shows the customer, and what it refuses.
    async fn shows_all(&mut self, id: ConversationId) -> Result<()> {
        let shown = [
            "conversations".to_owned(),
            format!("conversations/{}", id.as_uuid()),
            of(id, "messages"),
            "unread".to_owned(),
            format!("presence?user_ids={}", self.business_id.as_uuid()),
            format!("profiles?business_ids={}", self.business_id.as_uuid()),
            of(id, "assignments"),
            self.path("conversations"),
            self.path("settings"),
        ];
        for gateway in [FIRST, SECOND] {
            for path in &shown {
                let answer = self.fleet.api(&self.customer, gateway).get(path).await?;
                self.keep(&answer);
            }
        }
        Ok(())
    }

    /// What the customer is answered.
    async fn asks(&mut self, method: &str, path: &str, body: Value) -> Result<Value> {
        let method = method.parse()?;
        let answer = self.fleet.api(&self.customer, FIRST).ask(method, path, Some(serde_json::to_vec(&body)?)).await?;
        self.keep(&answer);
        answer.ok()
    }

    fn keep(&mut self, answer: &Answer) {
        self.received.extend_from_slice(&answer.received);
    }

    /// What a member of the staff asks, which has to be done.
    async fn as_staff(&self, person: &Person, method: &str, path: &str, body: Value) -> Result<()> {
        let body = serde_json::to_vec(&body)?;
        let answer = self.fleet.api(person, SECOND).ask(method.parse()?, path, Some(body)).await?;
        ensure!(answer.status == 204, "{path}: {} {}", answer.code(), answer.body);
        Ok(())
    }

    fn path(&self, part: &str) -> String {
        format!("businesses/{}/{part}", self.business_id.as_uuid())
    }

    /// Searches what the customer received for the staff, and for what must be there.
    fn check(&self, encoding: Encoding) -> Result<()> {
        let found = |user_id: UserId| forms(user_id).iter().any(|form| contains(&self.received, form));
        ensure!(found(self.customer.id), "{encoding:?}: the search finds the customer");
        ensure!(found(self.business_id.into()), "{encoding:?}: the search finds the business");
        for (person, role) in [(&self.agent, "agent"), (&self.colleague, "colleague"), (&self.supervisor, "supervisor")]
        {
            ensure!(!found(person.id), "{encoding:?}: the customer has received the id of the {role}");
        }
        Ok(())
    }
}

/// An id as text, with hyphens and without, and as bytes.
fn forms(user_id: UserId) -> [Vec<u8>; 3] {
    let id = user_id.as_uuid();
    [id.to_string().into_bytes(), id.simple().to_string().into_bytes(), id.as_bytes().to_vec()]
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn of(id: ConversationId, part: &str) -> String {
    format!("conversations/{}/{part}", id.as_uuid())
}

async fn say(socket: &mut Socket, id: ConversationId, text: &str) -> Result<MessageId> {
    let message_id = MessageId::random();
    let reply = socket.send(id, message_id, &said(text)).await?;
    ensure!(reply["type"] == "accepted", "{reply}");
    Ok(message_id)
}

/// Passes over frames until the message of a number.
async fn message(socket: &mut Socket, seq: u64) -> Result<Value> {
    let is_it = |frame: &Value| frame["type"] == "message" && frame["message"]["seq"] == seq;
    let mut frame = socket.frame_where(is_it).await.with_context(|| format!("message {seq}"))?;
    Ok(frame["message"].take())
}

/// Passes over frames until a case is in a state.
async fn state(socket: &mut Socket, number: u64, state: &str) -> Result<()> {
    let is_it = |frame: &Value| {
        let case = &frame["conversation"]["case"];
        frame["type"] == "conversation" && case["number"] == number && case["state"] == state
    };
    socket.frame_where(is_it).await.with_context(|| format!("case {number} is {state}"))?;
    Ok(())
}
