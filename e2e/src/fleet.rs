//! A fleet for tests, and what has to be true of it at the end of each.

use std::{collections::HashSet, ops::Deref, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use chat_client::{Client, ClientOptions};
use chat_dev::{
    fleet::{Fleet, FleetOptions},
    test_servers::TestServers,
};
use chat_shared::{
    ids::{ConversationId, DeviceId, UserId},
    wire::{Conversation, Encoding, Platform},
};
use serde_json::json;
use uuid::Uuid;

use crate::{Api, Online, Person, Socket, database, eventually, http, traces};

/// Bytes of a test's log: JetStream sets them aside, and many tests share a server.
const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long a token of a test's person lives.
const TOKEN_TTL: Duration = Duration::from_hours(1);

/// What kind of fleet a test needs.
#[derive(Debug, Default)]
pub struct Setup {
    has_own_servers: bool,
    replicas: usize,
    env: Vec<(String, String)>,
    expected_faults: Vec<&'static str>,
}

impl Setup {
    /// With NATS, Postgres and Redis of its own, which the test may break.
    #[must_use]
    pub fn with_own_servers(mut self) -> Self {
        self.has_own_servers = true;
        self
    }

    /// With servers of its own and so many replicas of Postgres.
    #[must_use]
    pub fn with_replicas(mut self, count: usize) -> Self {
        self.has_own_servers = true;
        self.replicas = count;
        self
    }

    /// Whose services may log faults with this text, because the test causes them.
    #[must_use]
    pub fn with_fault(mut self, text: &'static str) -> Self {
        self.expected_faults.push(text);
        self
    }

    /// With a setting for all services.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Two gateways and one of each worker, running.
#[derive(Debug)]
pub struct TestFleet {
    fleet: Fleet,
    expected_faults: Vec<&'static str>,
}

impl Deref for TestFleet {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}

impl TestFleet {
    /// Starts one and waits until it is ready.
    pub async fn start(setup: Setup) -> Result<Self> {
        let servers = TestServers::from_env()?;
        let mut options: FleetOptions =
            if setup.has_own_servers { servers.private_fleet() } else { servers.shared_fleet().await? };
        options.replicas = setup.replicas;
        // Tests stand before the gateways as a proxy does, and say where its clients are.
        options.env =
            [("CHAT_LOG_BYTES_MAX", LOG_BYTES_MAX.to_string()), ("CHAT_TRUSTED_PROXIES", "127.0.0.0/8".to_owned())]
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec();
        options.env.extend(setup.env);
        Ok(Self { fleet: Fleet::start(options).await?, expected_faults: setup.expected_faults })
    }

    /// Somebody new, with a token.
    pub fn person(&self) -> Result<Person> {
        let id = UserId::random();
        let token = self.kaha().tokens().user(id.as_uuid(), None, TOKEN_TTL)?;
        Ok(Person { id, token })
    }

    /// So many new people.
    pub fn people<const N: usize>(&self) -> Result<[Person; N]> {
        let people = (0..N).map(|_| self.person()).collect::<Result<Vec<_>>>()?;
        people.try_into().map_err(|_| anyhow::anyhow!("as many as asked for were made"))
    }

    /// REST as a person, at one gateway.
    pub fn api(&self, person: &Person, gateway: usize) -> Api {
        Api::new(self.gateway(gateway).url(), Some(person.token.clone()))
    }

    /// The direct conversation of two people.
    pub async fn direct(&self, one: &Person, other: &Person) -> Result<ConversationId> {
        let body = json!({ "kind": "direct", "user_id": other.id });
        let made: Conversation = self.api(one, 0).post("conversations", &body).await?.ok()?;
        Ok(made.conversation_id)
    }

    /// A new group that the first person owns.
    pub async fn group(&self, owner: &Person, others: &[&Person]) -> Result<ConversationId> {
        self.group_at(owner, others, 0).await
    }

    /// As `group`, made at a gateway.
    pub async fn group_at(&self, owner: &Person, others: &[&Person], gateway: usize) -> Result<ConversationId> {
        let user_ids: Vec<_> = others.iter().map(|person| person.id).collect();
        let body = json!({ "kind": "group", "user_ids": user_ids });
        let made: Conversation = self.api(owner, gateway).post("conversations", &body).await?.ok()?;
        Ok(made.conversation_id)
    }

    /// Options of a client that prefers a gateway and knows them all.
    pub fn options(&self, person: &Person, gateway: usize) -> ClientOptions {
        let mut urls: Vec<String> = self.gateways().iter().map(chat_dev::fleet::Service::url).collect();
        urls.rotate_left(gateway);
        ClientOptions::new(urls, person.token.as_str())
    }

    /// A client that knows one gateway only.
    pub fn options_at(&self, person: &Person, gateway: usize) -> ClientOptions {
        ClientOptions::new([self.gateway(gateway).url()], person.token.as_str())
    }

    /// A client of a person, connected; it prefers a gateway and knows them all.
    pub async fn connect(&self, person: &Person, gateway: usize) -> Result<Online> {
        Self::connect_with(self.options(person, gateway)).await
    }

    /// A connected client with these options.
    pub async fn connect_with(options: ClientOptions) -> Result<Online> {
        let (client, events) = Client::connect(options).await?;
        Ok(Online::new(client, events))
    }

    /// A raw socket after its handshake and before `hello`.
    pub async fn socket(&self, person: &Person, gateway: usize, encoding: Encoding) -> Result<Socket> {
        http::open(&self.gateway(gateway).address(), encoding, &person.token).await
    }

    /// A raw socket after `hello` and `ready`, of a new device.
    pub async fn ready_socket(&self, person: &Person, gateway: usize, encoding: Encoding) -> Result<Socket> {
        let mut socket = self.socket(person, gateway, encoding).await?;
        socket.hello(DeviceId::random(), None).await?;
        Ok(socket)
    }

    /// kaha-main-v3 says to a gateway that a user logged out, from the login `sid` or everywhere; again until it is answered
    /// with 204, from when on it is in force.
    pub async fn log_out(&self, gateway: usize, id: UserId, sid: Option<Uuid>) -> Result<()> {
        let url = self.gateway(gateway).internal_url();
        until_heard("a logout", || self.kaha().close_sessions(&url, id.as_uuid(), sid)).await
    }

    /// kaha-main-v3 says to a gateway that these profiles have changed; again until it is answered with 204.
    pub async fn change_profiles(&self, gateway: usize, users: &[Uuid], businesses: &[Uuid]) -> Result<()> {
        let url = self.gateway(gateway).internal_url();
        until_heard("a change of profiles", || self.kaha().invalidate_profiles(&url, users, businesses)).await
    }

    /// Checks what is true of every fleet at rest: all services run, nothing is pending, no event was set aside, and
    /// neither logs nor metrics tell anything that they must not.
    pub async fn check(&self) -> Result<()> {
        for service in self.services() {
            ensure!(service.process().is_running(), "{} is not running at the end of the test", service.name());
        }
        let url = &self.urls().postgres;
        eventually("an empty outbox", || async {
            Ok((database::count(url, "select count(*) from outbox").await? == 0).then_some(()))
        })
        .await?;
        let dead_letters = database::count(url, "select count(*) from dead_letters").await?;
        ensure!(dead_letters == 0, "{dead_letters} events were set aside as dead letters");
        for service in self.services() {
            let metrics = service.metrics().await?;
            ensure!(metrics.contains("chat_"), "{} measures nothing", service.name());
            traces::check_metrics(service.name(), &metrics)?;
        }
        let complaints = self.kaha().calls().complaints();
        ensure!(complaints.is_empty(), "kaha-main-v3 complains: {complaints:?}");
        traces::check_logs(&self.logs()?, &self.expected_faults)?;
        self.check_devices_are_nowhere()
    }

    /// Checks that no log names a device that was notified.
    fn check_devices_are_nowhere(&self) -> Result<()> {
        let notified = Platform::ALL.into_iter().flat_map(|platform| self.push_services().received(platform));
        let tokens: HashSet<String> = notified.map(|received| received.token).collect();
        for log in self.logs()? {
            let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            let named = tokens.iter().find(|token| text.contains(token.as_str()));
            ensure!(named.is_none(), "the address of a device is in {}", log.display());
        }
        Ok(())
    }

    /// Stops the services; each has to end by itself and with success.
    pub async fn stop_cleanly(&self) -> Result<()> {
        self.stop().await?;
        for service in self.services() {
            let status = service.process().exited().await?;
            ensure!(status.success(), "{} ended with {status}", service.name());
        }
        traces::check_logs(&self.logs()?, &self.expected_faults)
    }

    /// The log files of all services, those of commands that ended included.
    pub fn logs(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.dir().join("logs"))?;
        Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    }

    /// What the services warned of last, for the message of a test that failed.
    pub fn last_words(&self) -> String {
        self.logs().map_or_else(|error| format!("no logs: {error}"), |logs| traces::warnings(&logs))
    }
}

/// Says something to a gateway again while it answers 503: it can't say that every gateway has heard.
pub(crate) async fn until_heard<Fut: Future<Output = Result<()>>>(what: &str, tell: impl Fn() -> Fut) -> Result<()> {
    eventually(&format!("{what} that every gateway has heard of"), || async {
        match tell().await {
            Ok(()) => Ok(Some(())),
            Err(error) if error.to_string().contains("answered 503") => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}
