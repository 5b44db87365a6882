//! Those who take part in conversations and are away the whole time, with registered devices: what is said reaches them
//! as notifications only.

use anyhow::{Context, Result};
use chat_client::{Rest, ids::UserId};

use super::phone::Phone;
use crate::{
    fleet::{Fleet, Service},
    person::Person,
};

/// Somebody who is away.
#[derive(Debug)]
pub struct Absent {
    pub user_id: UserId,
    /// To ask in their name.
    pub rest: Rest,
    /// One on each platform.
    pub phones: Vec<Phone>,
}

impl Absent {
    /// Comes, registers devices, and goes.
    pub async fn settle_down(fleet: &Fleet, name: &str) -> Result<Self> {
        let gateways = fleet.gateways().iter().map(Service::url).collect();
        let mut person = Person::appear(name, fleet.kaha(), gateways).await?;
        let rest = person.rest()?.clone();
        let phones = Phone::register_all(name, person.user_id, &rest, fleet.push_services()).await;
        person.leave().await?;
        let phones = phones.with_context(|| format!("{name} can't register devices"))?;
        Ok(Self { user_id: person.user_id, rest, phones })
    }
}
