//! Every user, every conversation, every action: what is not allowed is refused, and what is allowed is done.

use anyhow::{Context, Result};
use chat_e2e::{Person, Socket, TestFleet, on_shared_fleet, said};
use chat_shared::{
    ids::{ConversationId, MessageId},
    wire::Encoding,
};
use reqwest::Method;
use serde_json::{Value, json};

/// What a user is to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Owner,
    Member,
    /// One of two.
    Pair,
    /// One of two, of whom one blocks the other.
    Parted,
    /// Was in it, and was removed.
    Removed,
    Stranger,
}

/// What can be done about a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Show,
    ReadHistory,
    SendByRest,
    RepeatByRest,
    Send,
    Repeat,
    MarkReadByRest,
    MarkRead,
    Type,
    Mute,
    Unmute,
    AddSomebody,
    AddMyself,
    RemoveOther,
    Leave,
}

impl Action {
    const ALL: [Self; 15] = [
        Self::Show,
        Self::ReadHistory,
        Self::SendByRest,
        Self::RepeatByRest,
        Self::Send,
        Self::Repeat,
        Self::MarkReadByRest,
        Self::MarkRead,
        Self::Type,
        Self::Mute,
        Self::Unmute,
        Self::AddSomebody,
        Self::AddMyself,
        Self::RemoveOther,
        Self::Leave,
    ];

    /// Whether a success changes who may do what, so that it is tried on a conversation of its own.
    const fn changes_participants(self) -> bool {
        matches!(self, Self::AddSomebody | Self::RemoveOther | Self::Leave)
    }
}

/// The code that an action is refused with; none if it is allowed. The whole table.
fn expected(relation: Relation, action: Action) -> Option<&'static str> {
    match (relation, action) {
        // Nobody learns whether it exists.
        (Relation::Removed | Relation::Stranger, _) => Some("not_found"),
        (Relation::Parted, Action::SendByRest | Action::RepeatByRest | Action::Send | Action::Repeat) => {
            Some("forbidden")
        }
        (
            Relation::Pair | Relation::Parted,
            Action::AddSomebody | Action::AddMyself | Action::RemoveOther | Action::Leave,
        ) => Some("conflict"),
        (Relation::Member, Action::AddSomebody | Action::AddMyself | Action::RemoveOther) => Some("forbidden"),
        _ => None,
    }
}

/// A conversation, with what everybody is to it.
struct Place {
    name: &'static str,
    conversation_id: ConversationId,
    message_id: MessageId,
    inside: Vec<(Person, Relation)>,
}

impl Place {
    /// A group with its owner, two members and somebody who was removed.
    async fn group(fleet: &TestFleet) -> Result<Self> {
        let [owner, member, other, removed] = fleet.people()?;
        let conversation_id = fleet.group(&owner, &[&member, &other, &removed]).await?;
        let message_id = first_message(fleet, &owner, conversation_id).await?;
        let path = format!("conversations/{}/participants/{}", conversation_id.as_uuid(), removed.id.as_uuid());
        assert_eq!(fleet.api(&owner, 0).delete(&path).await?.status, 204);
        let inside = vec![
            (owner, Relation::Owner),
            (member, Relation::Member),
            (other, Relation::Member),
            (removed, Relation::Removed),
        ];
        Ok(Self { name: "group", conversation_id, message_id, inside })
    }

    /// A direct conversation, in which one may block the other.
    async fn direct(fleet: &TestFleet, relation: Relation) -> Result<Self> {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let message_id = first_message(fleet, &asha, conversation_id).await?;
        if relation == Relation::Parted {
            let path = format!("blocks/{}", bikram.id.as_uuid());
            assert_eq!(fleet.api(&asha, 1).put(&path, &json!({})).await?.status, 204);
        }
        let inside = vec![(asha, relation), (bikram, relation)];
        Ok(Self { name: "direct", conversation_id, message_id, inside })
    }

    /// The same once more, with other people.
    async fn another(&self, fleet: &TestFleet) -> Result<Self> {
        match self.inside[0].1 {
            Relation::Owner => Self::group(fleet).await,
            relation => Self::direct(fleet, relation).await,
        }
    }

    fn relation(&self, person: &Person) -> Relation {
        self.inside.iter().find(|(inside, _)| inside.id == person.id).map_or(Relation::Stranger, |(_, found)| *found)
    }

    /// Somebody who takes part, and is somebody else.
    fn other(&self, person: &Person) -> &Person {
        let may_go = |relation| !matches!(relation, Relation::Owner | Relation::Removed);
        let mut others = self.inside.iter().filter(|(inside, relation)| inside.id != person.id && may_go(*relation));
        others.next().map(|(other, _)| other).expect("every conversation has two")
    }
}

async fn first_message(fleet: &TestFleet, by: &Person, conversation_id: ConversationId) -> Result<MessageId> {
    let message_id = MessageId::random();
    fleet.api(by, 0).send(conversation_id, message_id, &said("between us")).await?;
    Ok(message_id)
}

/// A user at one gateway.
struct Actor<'a> {
    fleet: &'a TestFleet,
    person: &'a Person,
    gateway: usize,
    socket: Socket,
}

impl<'a> Actor<'a> {
    async fn at(fleet: &'a TestFleet, person: &'a Person, gateway: usize) -> Result<Self> {
        let encoding = Encoding::ALL[gateway % 2];
        Ok(Self { fleet, person, gateway, socket: fleet.ready_socket(person, gateway, encoding).await? })
    }

    /// Does it; the code of the refusal, if it was refused.
    async fn act(&mut self, place: &Place, action: Action) -> Result<Option<String>> {
        let (id, message_id) = (place.conversation_id, place.message_id);
        let message =
            |is_repeat| json!({ "message_id": MessageId::random(), "text": said("mine"), "is_repeat": is_repeat });
        let command = |kind: &str, mut fields: Value| {
            (fields["type"], fields["conversation_id"]) = (json!(kind), json!(id));
            fields
        };
        let add = |person: &Person| json!({ "user_ids": [person.id] });
        let remove = |person: &Person| format!("participants/{}", person.id.as_uuid());
        match action {
            Action::Show => self.ask(Method::GET, place, "", None).await,
            Action::ReadHistory => self.ask(Method::GET, place, "messages", None).await,
            Action::SendByRest => self.ask(Method::POST, place, "messages", Some(message(false))).await,
            Action::RepeatByRest => self.ask(Method::POST, place, "messages", Some(message(true))).await,
            Action::Send => self.command(command("send_message", message(false))).await,
            Action::Repeat => self.command(command("send_message", message(true))).await,
            Action::MarkReadByRest => {
                self.ask(Method::POST, place, "read", Some(json!({ "message_id": message_id }))).await
            }
            Action::MarkRead => self.command(command("mark_read", json!({ "message_id": message_id }))).await,
            Action::Type => self.command(command("set_typing", json!({ "is_typing": false }))).await,
            Action::Mute => self.ask(Method::PUT, place, "mute", Some(json!({ "for_good": true }))).await,
            Action::Unmute => self.ask(Method::DELETE, place, "mute", None).await,
            Action::AddSomebody => {
                let somebody = self.fleet.person()?;
                self.ask(Method::POST, place, "participants", Some(add(&somebody))).await
            }
            Action::AddMyself => self.ask(Method::POST, place, "participants", Some(add(self.person))).await,
            Action::RemoveOther => self.ask(Method::DELETE, place, &remove(place.other(self.person)), None).await,
            Action::Leave => self.ask(Method::DELETE, place, &remove(self.person), None).await,
        }
    }

    async fn ask(&self, method: Method, place: &Place, path: &str, body: Option<Value>) -> Result<Option<String>> {
        let path = format!("conversations/{}/{path}", place.conversation_id.as_uuid());
        let body = body.as_ref().map(serde_json::to_vec).transpose()?;
        let answer = self.fleet.api(self.person, self.gateway).ask(method, path.trim_end_matches('/'), body).await?;
        Ok((answer.status >= 300).then(|| answer.body["code"].as_str().unwrap_or("no code").to_owned()))
    }

    async fn command(&mut self, command: Value) -> Result<Option<String>> {
        let reply = self.socket.ask(command).await?;
        Ok(reply["code"].as_str().map(str::to_owned))
    }
}

#[test]
fn r6_4_every_forbidden_cell_of_users_conversations_and_actions_is_refused() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let places = [
            Place::group(fleet).await?,
            Place::direct(fleet, Relation::Pair).await?,
            Place::direct(fleet, Relation::Parted).await?,
        ];
        let nowhere = fleet.person()?;
        let people = places.iter().flat_map(|place| place.inside.iter().map(|(person, _)| person)).chain([&nowhere]);
        let (mut refused, mut allowed) = (0, 0);
        for person in people {
            for gateway in [0, 1] {
                let mut actor = Actor::at(fleet, person, gateway).await?;
                for place in &places {
                    for action in Action::ALL {
                        let relation = place.relation(person);
                        let wanted = expected(relation, action);
                        if wanted.is_none() && action.changes_participants() {
                            continue;
                        }
                        let found = actor.act(place, action).await?;
                        let cell = format!("{relation:?} of a {} does {action:?} at gateway {gateway}", place.name);
                        assert_eq!(found.as_deref(), wanted, "{cell}");
                        *(if wanted.is_some() { &mut refused } else { &mut allowed }) += 1;
                    }
                }
            }
        }
        assert!(refused > 500 && allowed > 100, "{refused} cells are forbidden, {allowed} are not");
        Ok(())
    })
}

#[test]
fn r6_4_what_changes_participants_is_done_by_those_who_may() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let group = Place::group(fleet).await?;
        for action in Action::ALL.into_iter().filter(|action| action.changes_participants()) {
            for relation in [Relation::Owner, Relation::Member] {
                if expected(relation, action).is_some() {
                    continue;
                }
                let place = group.another(fleet).await?;
                let (person, _) =
                    place.inside.iter().find(|(_, found)| *found == relation).context("somebody is it")?;
                let done = Actor::at(fleet, person, 1).await?.act(&place, action).await?;
                assert_eq!(done, None, "{relation:?} does {action:?}");
            }
        }
        Ok(())
    })
}

/// What everybody has for themself alone: nobody finds it under another's token.
#[test]
fn r6_4_devices_blocks_and_presence_are_each_users_own() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let [asha, bikram, stranger] = fleet.people()?;
        fleet.direct(&asha, &bikram).await?;
        let device = chat_shared::ids::DeviceId::random().as_uuid();
        let registration = json!({ "platform": "webhook", "token": "somewhere", "app_id": "com.example.chat" });
        assert_eq!(fleet.api(&asha, 0).put(&format!("devices/{device}"), &registration).await?.status, 200);
        assert_eq!(
            fleet.api(&asha, 0).put(&format!("blocks/{}", stranger.id.as_uuid()), &json!({})).await?.status,
            204
        );
        for (person, presence) in [(&bikram, "200"), (&stranger, "404 not_found")] {
            let api = fleet.api(person, 1);
            assert_eq!(api.get("devices").await?.body, json!({ "devices": [] }));
            assert_eq!(api.get("blocks").await?.body, json!({ "blocks": [] }));
            let _ignored = api.delete(&format!("devices/{device}")).await?;
            let asked = api.get(&format!("presence?user_ids={}", asha.id.as_uuid())).await?;
            assert_eq!(asked.code(), presence);
        }
        let devices = fleet.api(&asha, 1).get("devices").await?.body["devices"].clone();
        assert_eq!(devices.as_array().map(Vec::len), Some(1), "nobody else removed it");
        Ok(())
    })
}
