//! Stand-ins for what is around the notifier: conversations that write to the log, gateways that listen.

use anyhow::{Context, Result, bail};
use async_nats::Subscriber;
use chat_shared::{
    clock::Clock,
    delivery::{Delivery, NumberedEvent, Recipient, all_gateways_subject, gateway_subject},
    event::{Event, Fact, Participants, ParticipantsChanged},
    ids::{ConversationId, DeviceId, GatewayId, SessionId, UserId},
    inbox::{Page, Registration, Session},
    log::{Appended, Log},
    position::{Cursor, Seq, StreamSeq},
    wire::{ConversationKind, Participant, Role},
};
use futures_util::{StreamExt, stream::select};

use crate::installation::{DEADLINE, Installation};

/// A conversation that numbers its own events.
pub struct Conversation {
    pub id: ConversationId,
    pub members: Vec<UserId>,
    pub seq: u64,
    head: StreamSeq,
}

impl Conversation {
    pub fn of(members: &[UserId]) -> Self {
        Self { id: ConversationId::random(), members: members.to_vec(), seq: 0, head: StreamSeq::ZERO }
    }

    /// Appends its next event, which everybody in it and everybody `removed` is to get.
    pub async fn append(&mut self, log: &Log, removed: &[UserId]) -> Result<()> {
        let event = self.next(removed);
        let id = format!("{}:{}", self.id.as_uuid(), self.seq);
        let Appended::At(head) = log.append(&event, &id).await? else { bail!("appended twice") };
        self.head = head;
        Ok(())
    }

    /// Its next event, wherever it is put.
    pub fn next(&mut self, removed: &[UserId]) -> Event {
        self.seq += 1;
        let list = self.members.iter().map(|user_id| Participant { user_id: *user_id, role: Role::Member }).collect();
        Event {
            conversation_id: self.id,
            kind: ConversationKind::Group,
            seq: Seq(self.seq),
            sent_at: Clock::System.now(),
            previous: self.head,
            participants: Participants { version: 1, list, ..Participants::default() },
            fact: Fact::ParticipantsChanged(ParticipantsChanged {
                removed: removed.to_vec(),
                ..ParticipantsChanged::default()
            }),
        }
    }
}

/// A gateway that only listens.
pub struct Gateway {
    pub gateway_id: GatewayId,
    deliveries: futures_util::stream::Select<Subscriber, Subscriber>,
}

/// What came for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub event: Event,
    pub recipients: Vec<Recipient>,
}

impl Gateway {
    pub async fn listen(installation: &Installation) -> Result<Self> {
        let gateway_id = GatewayId::random();
        let client = &installation.client;
        let own = client.subscribe(gateway_subject(&installation.namespace, gateway_id)).await?;
        let all = client.subscribe(all_gateways_subject(&installation.namespace)).await?;
        client.flush().await?;
        Ok(Self { gateway_id, deliveries: select(own, all) })
    }

    /// A new user who is connected here.
    pub async fn user(&self, installation: &Installation) -> Result<(UserId, Registration)> {
        let user_id = UserId::random();
        Ok((user_id, self.again(installation, user_id).await?))
    }

    /// A user connects here with a new device.
    pub async fn again(&self, installation: &Installation, user_id: UserId) -> Result<Registration> {
        let (session_id, device_id) = (SessionId::random(), DeviceId::random());
        let session = Session { session_id, gateway_id: self.gateway_id, device_id };
        Ok(installation.inboxes.register(user_id, session, None).await?)
    }

    /// The next delivery, beacons included.
    pub async fn next(&mut self) -> Result<Delivery> {
        let message = tokio::time::timeout(DEADLINE, self.deliveries.next()).await.context("nothing was delivered")?;
        Ok(Delivery::decode(&message.context("the subscription ended")?.payload)?)
    }

    /// The next numbered events.
    pub async fn numbered(&mut self) -> Result<Vec<Got>> {
        loop {
            if let Delivery::Numbered(events) = self.next().await? {
                return events.into_iter().map(got).collect();
            }
        }
    }

    /// The next numbered event for a user, with that user as its one recipient.
    pub async fn numbered_for(&mut self, user_id: UserId) -> Result<Got> {
        loop {
            for mut got in self.numbered().await? {
                got.recipients.retain(|recipient| recipient.user_id == user_id);
                if !got.recipients.is_empty() {
                    return Ok(got);
                }
            }
        }
    }

    /// The next unnumbered events.
    pub async fn unnumbered(&mut self) -> Result<Vec<Event>> {
        loop {
            if let Delivery::Unnumbered(events) = self.next().await? {
                return events.iter().map(|event| Ok(Event::decode(event)?)).collect();
            }
        }
    }
}

fn got(numbered: NumberedEvent) -> Result<Got> {
    Ok(Got { event: Event::decode(&numbered.event)?, recipients: numbered.recipients })
}

/// The numbers that stand in a user's inbox, in its order, of all conversations.
pub async fn inbox(installation: &Installation, user_id: UserId, registration: &Registration) -> Result<Vec<u64>> {
    let page = installation.inboxes.read(user_id, registration.epoch, Cursor(0), 1000).await?;
    let Page::Entries(entries) = page else { bail!("the inbox is lost") };
    entries.iter().map(|entry| Ok(Event::decode(&entry.event)?.seq.0)).collect()
}
