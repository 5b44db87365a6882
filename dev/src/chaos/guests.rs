//! People beside the crowd whose conversations change while things break: one comes to a group and is removed from it,
//! one is blocked, and somebody who is away mutes.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use chat_client::ids::{ConversationId, UserId};
use uuid::Uuid;

use super::{
    absent::Absent,
    crowd::{Device, make_room},
};
use crate::{
    audit::{DeviceRecord, Room},
    fleet::Fleet,
    kaha::Person as Known,
    person::Person,
};

/// Groups that somebody who is away mutes.
const MUTED: usize = 6;

/// Three people with a device each.
#[derive(Debug)]
pub struct Guests {
    /// Owns the group, and blocks.
    pub owner: Device,
    /// Comes and goes.
    pub visitor: Device,
    /// Is blocked for a while each time.
    pub blocked: Device,
    /// The owner and one of the crowd, and at times the visitor.
    pub club: Room,
    /// The direct conversation of the owner and whom they block.
    pub pair: Room,
    /// The owner, the visitor, and somebody who is away and mutes it before its first message.
    pub quiet: Vec<Room>,
}

impl Guests {
    /// Makes them and their conversations.
    pub async fn gather(fleet: &Fleet, member: UserId, absent: &[Absent], send_wait_max: Duration) -> Result<Self> {
        let open = |name: &'static str, turn: usize| async move {
            let known = Known { id: Uuid::new_v4(), name: name.to_owned() };
            let mut person = Person::new(&known, fleet.kaha())?;
            person.send_wait_max = send_wait_max;
            let mut device = Device::open(fleet, name.to_owned(), person).await?;
            device.arrive(turn).await?;
            anyhow::Ok(device)
        };
        let (owner, visitor, blocked) = (open("owner", 0).await?, open("visitor", 1).await?, open("blocked", 1).await?);
        let ids = [&owner, &visitor, &blocked].map(|device| device.person.user_id);
        let rest = owner.person.rest()?;
        let club = make_room(vec![ids[0], member], || rest.create_group([member])).await?;
        let pair = make_room(vec![ids[0], ids[2]], || rest.create_direct(ids[2])).await?;
        let mut quiet = Vec::with_capacity(MUTED);
        for number in 0..MUTED {
            let away = absent[number % absent.len()].user_id;
            quiet.push(make_room(vec![ids[0], ids[1], away], || rest.create_group([ids[1], away])).await?);
        }
        Ok(Self { owner, visitor, blocked, club, pair, quiet })
    }

    /// All of them.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        [&self.owner, &self.visitor, &self.blocked].into_iter()
    }

    /// What their devices were shown. The client of the visitor skips messages of the club if a removal comes before it has
    /// fetched them.
    pub fn records(&self) -> impl Iterator<Item = DeviceRecord> {
        let mut visitor = self.visitor.record();
        visitor.skipped = visitor.skipped.saturating_sub(self.visitor.person.diary().skipped_in(self.club.id));
        [self.owner.record(), visitor, self.blocked.record()].into_iter()
    }

    /// All their conversations, with those who take part all the time.
    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        [&self.club, &self.pair].into_iter().chain(&self.quiet)
    }

    /// Who has muted which conversation.
    pub fn muted(&self) -> BTreeSet<(ConversationId, UserId)> {
        self.quiet.iter().filter_map(|room| Some((room.id, *room.members.last()?))).collect()
    }

    /// Whose devices have to know the newest version of which conversation. Of a block only who made it is told.
    pub fn informed(&self, rooms: &[Room]) -> Vec<(ConversationId, UserId)> {
        let blocked = (self.pair.id, self.blocked.person.user_id);
        let members = rooms.iter().flat_map(|room| room.members.iter().map(|user_id| (room.id, *user_id)));
        let members = members.filter(|it| *it != blocked);
        members.chain([(self.club.id, self.visitor.person.user_id)]).collect()
    }

    /// Their devices throw away what their clients have, and connect.
    pub async fn begin_anew(&mut self) -> Result<()> {
        for (turn, device) in [&mut self.owner, &mut self.visitor, &mut self.blocked].into_iter().enumerate() {
            device.begin_anew(turn).await?;
        }
        Ok(())
    }

    /// Closes their clients.
    pub async fn leave(&mut self) -> Result<()> {
        for device in [&mut self.owner, &mut self.visitor, &mut self.blocked] {
            device.person.leave().await?;
        }
        Ok(())
    }
}
