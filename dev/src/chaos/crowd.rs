//! Who takes part in a run: people with one device or two, each on lines of its own to every gateway, and some who are
//! away, in direct conversations and groups that nobody else is in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chat_client::{
    Client, Rest,
    ids::{ConversationId, UserId},
    wire::Encoding,
};
use uuid::Uuid;

use super::{absent::Absent, guests::Guests, line::Line, past::Past, phone::Phone, presence, tap::Tap};
use crate::{
    audit::{DeviceRecord, Pushed, Reader, Room},
    fleet::{Fleet, Service},
    kaha::Person as Known,
    person::Person,
    wait,
};

/// People of a run.
const PEOPLE: usize = 8;
/// Those who have a second device.
const WITH_TWO_DEVICES: usize = 4;
/// Those who are away.
const ABSENT: usize = 2;
/// How long making a conversation may take, where something has only just come back.
const MAKING_DEADLINE: Duration = Duration::from_secs(30);

/// A device with its lines.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub person: Person,
    /// One for each gateway.
    pub lines: Vec<Line>,
    tap: Arc<Tap>,
}

/// Everybody.
#[derive(Debug)]
pub struct Crowd {
    /// The first device of each person, then the second ones.
    pub devices: Vec<Device>,
    /// Those who are away the whole time.
    pub absent: Vec<Absent>,
    /// Where people talk all the time.
    pub busy: Vec<Room>,
    /// Where exactly one message is sent, so that nothing later shows a client that it was missed. Somebody who is away
    /// takes part in each.
    pub whispers: Vec<Room>,
    /// Where faults talk to all who are away.
    pub calling: Room,
    /// Where single attempts are made, by the first person.
    pub probing: Room,
    /// Others, whose conversations change.
    pub guests: Guests,
}

impl Crowd {
    /// Makes people and conversations, of which so many for one message each, and connects all devices, evenly over the gateways.
    /// With a past, people have conversations of old already, beside so many of others.
    pub async fn gather(
        fleet: &Fleet,
        send_wait_max: Duration,
        whispers: usize,
        past: Option<(&mut Past, usize)>,
    ) -> Result<Self> {
        let mut devices = Vec::with_capacity(PEOPLE + WITH_TWO_DEVICES);
        for number in 0..PEOPLE {
            let known = Known { id: Uuid::new_v4(), name: format!("person-{}", number + 1) };
            let mut person = Person::new(&known, fleet.kaha())?;
            person.send_wait_max = send_wait_max;
            devices.push(Device::open(fleet, format!("{}-phone", known.name), person).await?);
        }
        for number in 0..WITH_TWO_DEVICES {
            let mut person = devices[number].person.other_device();
            person.encoding = Encoding::Json;
            devices.push(Device::open(fleet, format!("person-{}-laptop", number + 1), person).await?);
        }
        let mut absent = Vec::with_capacity(ABSENT);
        for number in 0..ABSENT {
            absent.push(Absent::settle_down(fleet, &format!("absent-{}", number + 1)).await?);
        }
        let mut busy = Vec::new();
        if let Some((past, others)) = past {
            let people: Vec<_> = devices[..PEOPLE].iter().map(|device| device.person.user_id).collect();
            past.remember(fleet, &people, others).await.context("making conversations of the past")?;
            busy.clone_from(&past.busy);
        }
        for (number, device) in devices.iter_mut().enumerate() {
            device.arrive(number).await?;
        }
        let nowhere = || Room { id: ConversationId::random(), members: Vec::new() };
        let (calling, probing) = (nowhere(), nowhere());
        let guests = Guests::gather(fleet, devices[0].person.user_id, &absent, send_wait_max).await?;
        let mut crowd = Self { devices, absent, busy, whispers: Vec::new(), calling, probing, guests };
        crowd.make_rooms(whispers).await?;
        presence::watch_all(&crowd).await?;
        Ok(crowd)
    }

    async fn make_rooms(&mut self, whispers: usize) -> Result<()> {
        for pair in [[0, 1], [2, 3], [4, 5], [6, 7]] {
            self.busy.push(self.room(&pair).await?);
        }
        for group in [&[0, 2, 4, 6][..], &[0, 1, 2, 3, 4, 5, 6, 7]] {
            self.busy.push(self.group(group, &[]).await?);
        }
        for number in 0..whispers {
            let members = [number % PEOPLE, (number + 1) % PEOPLE, (number + 3) % PEOPLE];
            let away = &self.absent[number % ABSENT];
            self.whispers.push(self.group(&members, &[away.user_id]).await?);
        }
        let away: Vec<_> = self.absent.iter().map(|absent| absent.user_id).collect();
        self.calling = self.group(&[1, 2], &away).await?;
        self.probing = self.room(&[0, 7]).await?;
        Ok(())
    }

    async fn room(&self, pair: &[usize; 2]) -> Result<Room> {
        let members: Vec<_> = pair.iter().map(|index| self.devices[*index].person.user_id).collect();
        let rest = self.devices[pair[0]].person.rest()?;
        make_room(members.clone(), || rest.create_direct(members[1])).await
    }

    /// Of people, and of others after them.
    async fn group(&self, indices: &[usize], others: &[UserId]) -> Result<Room> {
        let people = indices.iter().map(|index| self.devices[*index].person.user_id);
        let members: Vec<_> = people.chain(others.iter().copied()).collect();
        let rest = self.devices[indices[0]].person.rest()?;
        make_room(members.clone(), || rest.create_group(members[1..].iter().copied())).await
    }

    /// The first device of each person.
    pub fn people(&self) -> &[Device] {
        &self.devices[..PEOPLE]
    }

    /// Those who ask when evidence is gathered.
    pub fn readers(&self) -> Result<Vec<Reader>> {
        let absent = self.absent.iter().map(|it| Ok(Reader { user_id: it.user_id, rest: it.rest.clone() }));
        self.people().iter().chain(self.guests.devices()).map(Device::reader).chain(absent).collect()
    }

    /// All conversations.
    pub fn rooms(&self) -> Vec<Room> {
        let others = self.busy.iter().chain(&self.whispers);
        others.chain([&self.calling, &self.probing]).chain(self.guests.rooms()).cloned().collect()
    }

    /// The registered devices of those who are away.
    pub fn phones(&self) -> impl Iterator<Item = &Phone> {
        self.absent.iter().flat_map(|absent| &absent.phones)
    }

    /// What all devices were shown.
    pub fn records(&self) -> Vec<DeviceRecord> {
        self.devices.iter().map(Device::record).chain(self.guests.records()).collect()
    }

    /// What gateways pushed to all devices.
    pub fn pushed(&self) -> Vec<Pushed> {
        self.all_devices().map(Device::pushed).collect()
    }

    /// The crowd's and the guests'.
    pub fn all_devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().chain(self.guests.devices())
    }

    /// Messages that were pushed to devices, and how many had been pushed to the same device before.
    pub fn raw_counts(&self) -> (u64, u64) {
        self.all_devices().map(|device| device.tap.counts()).fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    /// All devices throw away what their clients have, and connect.
    pub async fn begin_anew(&mut self) -> Result<()> {
        for (number, device) in self.devices.iter_mut().enumerate() {
            device.begin_anew(number).await?;
        }
        self.guests.begin_anew().await?;
        presence::watch_all(self).await
    }

    /// Closes all clients.
    pub async fn leave(&mut self) -> Result<()> {
        for device in &mut self.devices {
            device.person.leave().await?;
        }
        self.guests.leave().await
    }
}

/// A group whose making was not answered may have been made; then another is made, and nobody writes in the first.
pub async fn make_room<F>(members: Vec<UserId>, make: impl Fn() -> F) -> Result<Room>
where
    F: Future<Output = Result<chat_client::wire::Conversation, chat_client::RestError>>,
{
    let id = wait::until("making a conversation", MAKING_DEADLINE, || async {
        Ok(make().await.ok().map(|conversation| conversation.conversation_id))
    })
    .await?;
    Ok(Room { id, members })
}

impl Device {
    /// Connects, over the line to the gateway whose turn it is if that answers.
    pub async fn arrive(&mut self, turn: usize) -> Result<()> {
        let mut urls: Vec<_> = self.lines.iter().map(|line| format!("http://{}", line.address())).collect();
        urls.rotate_left(turn % self.lines.len());
        self.person.arrive(urls).await
    }

    /// Throws away what its client has, as an app that is installed anew, and connects.
    pub async fn begin_anew(&mut self, turn: usize) -> Result<()> {
        self.person.leave().await?;
        self.person = self.person.other_device();
        self.arrive(turn).await
    }

    /// With lines to all gateways, not connected yet.
    pub async fn open(fleet: &Fleet, name: String, person: Person) -> Result<Self> {
        Self::open_tapped(fleet, name, person, Tap::default()).await
    }

    /// As `open`, with what listens on all its lines.
    pub async fn open_tapped(fleet: &Fleet, name: String, person: Person, tap: Tap) -> Result<Self> {
        let tap = Arc::new(tap);
        let mut lines = Vec::new();
        for gateway in fleet.gateways() {
            lines.push(Line::open(Some(Service::address(gateway)), Some(Arc::clone(&tap))).await?);
        }
        Ok(Self { name, person, lines, tap })
    }

    /// What it was shown.
    pub fn record(&self) -> DeviceRecord {
        self.person.diary().record(&self.name, self.person.user_id)
    }

    /// What gateways pushed to it.
    pub fn pushed(&self) -> Pushed {
        let (connections, times) = self.tap.pushed();
        Pushed { device: self.name.clone(), connections, times }
    }

    /// How many bytes it was sent, and how often each id was there that its tap searches for.
    pub fn found(&self) -> (u64, Vec<u64>) {
        self.tap.found()
    }

    /// To ask in the name of its user.
    pub fn reader(&self) -> Result<Reader> {
        Ok(Reader { user_id: self.person.user_id, rest: self.person.rest()?.clone() })
    }

    /// Its client and REST interface.
    pub fn client(&self) -> Result<(Client, Rest)> {
        let client = self.person.client().with_context(|| self.name.clone())?;
        Ok((client.clone(), client.rest().clone()))
    }

    /// How often it has connected.
    pub fn arrivals(&self) -> usize {
        self.person.diary().arrivals().len()
    }

    /// Cuts its connections, whichever gateway they lead to. Gives how many there were.
    pub fn cut(&self) -> u64 {
        let open = self.lines.iter().map(Line::open_count).sum();
        self.lines.iter().for_each(Line::cut);
        open
    }
}
