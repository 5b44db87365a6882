//! Made-up users, two by two in direct conversations.

use std::time::Duration;

use anyhow::{Context, Result};
use chat_client::{
    ids::{ConversationId, DeviceId, UserId},
    wire::{Conversation, CreateConversation},
};

use crate::{fleet::Fleet, kaha::Kaha};

const TOKEN_TTL: Duration = Duration::from_hours(2);

/// Somebody with one device.
#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    pub device_id: DeviceId,
    pub token: String,
}

impl User {
    /// Somebody new.
    pub fn new(kaha: &Kaha) -> Result<Self> {
        let id = UserId::random();
        let token = kaha.tokens().user(id.as_uuid(), None, TOKEN_TTL)?;
        Ok(Self { id, device_id: DeviceId::random(), token })
    }
}

/// A user, where they connect, and the conversation they write to.
#[derive(Debug, Clone)]
pub struct Seat {
    pub user: User,
    /// Index of a gateway.
    pub gateway: usize,
    pub conversation_id: ConversationId,
}

/// All of them; those at even places write with the one after them.
#[derive(Debug)]
pub struct Users(pub Vec<Seat>);

impl Users {
    /// Makes pairs, with one at each gateway.
    pub async fn make(fleet: &Fleet, pairs: usize) -> Result<Self> {
        let http = reqwest::Client::new();
        let mut seats = Vec::with_capacity(pairs * 2);
        for _ in 0..pairs {
            let (one, other) = (User::new(fleet.kaha())?, User::new(fleet.kaha())?);
            let conversation: Conversation = http
                .post(format!("{}/v1/conversations", fleet.gateway(0).url()))
                .bearer_auth(&one.token)
                .json(&CreateConversation::Direct { user_id: other.id })
                .send()
                .await?
                .error_for_status()
                .context("a conversation could not be made")?
                .json()
                .await?;
            let conversation_id = conversation.conversation_id;
            seats.push(Seat { user: one, gateway: 0, conversation_id });
            seats.push(Seat { user: other, gateway: 1, conversation_id });
        }
        Ok(Self(seats))
    }
}
