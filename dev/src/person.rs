//! Somebody with a phone: connects, goes away, comes back, and keeps a diary.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use chat_client::{
    Client, ClientOptions, ConnectionState, Position, Rest, Start, TokenSource,
    ids::{DeviceId, UserId},
    wire::Encoding,
};
use tokio::{
    sync::watch::{self, Ref},
    task::JoinSet,
    time::timeout,
};
use uuid::Uuid;

use crate::{
    audit::Diary,
    kaha::{Kaha, Person as Known, TOKEN_TTL},
};

/// How long a message is repeated, unless the person is told otherwise.
const SEND_WAIT_MAX: Duration = Duration::from_mins(1);

/// How long a message may take to be shown once nothing stands in its way.
pub const SHOWN_DEADLINE: Duration = Duration::from_secs(20);

/// A person and their one device.
#[derive(Debug)]
pub struct Person {
    pub name: String,
    pub user_id: UserId,
    /// How their device writes frames.
    pub encoding: Encoding,
    /// How long a message is repeated until it is given up.
    pub send_wait_max: Duration,
    device_id: DeviceId,
    token: String,
    diary: Arc<watch::Sender<Diary>>,
    session: Option<Session>,
    position: Option<Position>,
}

/// While they are there.
#[derive(Debug)]
struct Session {
    client: Client,
    /// The one task that writes the diary.
    writer: JoinSet<()>,
}

impl Person {
    /// Known to kaha-main-v3, not connected yet.
    pub fn new(known: &Known, kaha: &Kaha) -> Result<Self> {
        Ok(Self {
            name: known.name.clone(),
            user_id: known.id.try_into()?,
            encoding: Encoding::MessagePack,
            send_wait_max: SEND_WAIT_MAX,
            device_id: DeviceId::random(),
            token: kaha.tokens().user(known.id, Some(&known.name), TOKEN_TTL)?,
            diary: Arc::new(watch::Sender::new(Diary::default())),
            session: None,
            position: None,
        })
    }

    /// Somebody new, who connects at once.
    pub async fn appear(name: &str, kaha: &Kaha, gateways: Vec<String>) -> Result<Self> {
        let mut person = Self::new(&Known { id: Uuid::new_v4(), name: name.to_owned() }, kaha)?;
        person.arrive(gateways).await?;
        Ok(person)
    }

    /// Another device of the same person, with a diary of its own.
    pub fn other_device(&self) -> Self {
        Self {
            name: self.name.clone(),
            user_id: self.user_id,
            encoding: self.encoding,
            send_wait_max: self.send_wait_max,
            device_id: DeviceId::random(),
            token: self.token.clone(),
            diary: Arc::new(watch::Sender::new(Diary::default())),
            session: None,
            position: None,
        }
    }

    /// Connects, to the first gateway if it answers, from where they left off.
    pub async fn arrive(&mut self, gateways: Vec<String>) -> Result<()> {
        let mut options = ClientOptions::new(gateways, TokenSource::fixed(self.token.clone()));
        options.device_id = self.device_id;
        options.encoding = self.encoding;
        options.send_wait_max = self.send_wait_max;
        options.start = Start::Beginning;
        options.resume_from.clone_from(&self.position);
        let (client, mut events) =
            Client::connect(options).await.with_context(|| format!("{} can't connect", self.name))?;
        let diary = Arc::clone(&self.diary);
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            while let Some(event) = events.next().await {
                diary.send_modify(|diary| diary.note(event));
            }
        });
        self.session = Some(Session { client, writer });
        Ok(())
    }

    /// Closes the connection, as an app that is put away.
    pub async fn leave(&mut self) -> Result<()> {
        let Some(Session { client, mut writer }) = self.session.take() else {
            return Ok(());
        };
        client.close().await;
        // What was there is still read, so that the position is the diary's end.
        while writer.join_next().await.is_some() {}
        self.position = Some(client.position());
        Ok(())
    }

    /// Their token, for those who ask in their name.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether they are connected, or trying to.
    pub const fn is_there(&self) -> bool {
        self.session.is_some()
    }

    /// Their client.
    pub fn client(&self) -> Result<&Client> {
        Ok(&self.session.as_ref().with_context(|| format!("{} is away", self.name))?.client)
    }

    /// REST with their token, at the gateway that they are connected to.
    pub fn rest(&self) -> Result<&Rest> {
        Ok(self.client()?.rest())
    }

    /// The base URL of the gateway that they are connected to now.
    pub fn gateway(&self) -> Result<String> {
        match self.client()?.state() {
            ConnectionState::Connected { gateway, .. } => Ok(gateway),
            other => bail!("{} is not connected: {other:?}", self.name),
        }
    }

    /// What they were shown. The diary's writer waits while this is held.
    pub fn diary(&self) -> Ref<'_, Diary> {
        self.diary.borrow()
    }

    /// To wait for what they are shown.
    pub fn follow(&self) -> watch::Receiver<Diary> {
        self.diary.subscribe()
    }

    /// Waits until the diary says so.
    ///
    /// # Errors
    /// When the deadline passes; `what` is named.
    pub async fn until(&self, what: &str, deadline: Duration, holds: impl FnMut(&Diary) -> bool) -> Result<()> {
        let mut diary = self.diary.subscribe();
        match timeout(deadline, diary.wait_for(holds)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the diary of {} was closed", self.name),
            Err(_) => bail!("{}: {what}: not within {deadline:?}", self.name),
        }
    }
}
