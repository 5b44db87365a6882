//! What the application decides: where to, as whom, from where on.

use std::time::Duration;

use chat_shared::{ids::DeviceId, wire::Encoding};

use crate::{position::Position, token::TokenSource};

/// How a [`Client`](crate::Client) connects.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Base URLs of the gateways (`http://` or `https://`), at least one. The first is tried first; after
    /// a failure the next one is. Shuffle the list to spread clients over gateways.
    pub gateways: Vec<String>,
    /// Where tokens come from.
    pub token: TokenSource,
    /// This installation. A second connection with the same id ends the first. Keep it over restarts.
    pub device_id: DeviceId,
    /// How frames are written.
    pub encoding: Encoding,
    /// Where to begin in conversations that the client has no position for, on its first load.
    pub start: Start,
    /// What [`Client::position`](crate::Client::position) gave before a restart.
    pub resume_from: Option<Position>,
    /// How long a send is repeated, unless it names another deadline.
    pub send_wait_max: Duration,
    /// How long [`Client::connect`](crate::Client::connect) waits for the first connection and load.
    pub connect_wait_max: Duration,
}

impl ClientOptions {
    /// Options with a random device, MessagePack, [`Start::Latest`], 60 s to send and 30 s to connect.
    pub fn new<G: Into<String>>(gateways: impl IntoIterator<Item = G>, token: impl Into<TokenSource>) -> Self {
        Self {
            gateways: gateways.into_iter().map(Into::into).collect(),
            token: token.into(),
            device_id: DeviceId::random(),
            encoding: Encoding::MessagePack,
            start: Start::Latest,
            resume_from: None,
            send_wait_max: Duration::from_mins(1),
            connect_wait_max: Duration::from_secs(30),
        }
    }
}

/// Where to begin in the conversations that exist when a client without a position first loads them.
///
/// A conversation that appears later is handed over from its first message on, or, if the client is told
/// that it existed before and [`Latest`](Self::Latest) is chosen, from what follows that news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With what is sent from now on.
    #[default]
    Latest,
    /// With the oldest message that is still kept.
    Beginning,
}
