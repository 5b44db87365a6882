//! This backend as a subject: its own servers, a fleet of release builds, users that talk to each other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use chat_load::plan::{Seat, TargetKind};
use chat_shared::{
    ids::UserId,
    log::{self, stream_name},
    wire::{Conversation, CreateConversation},
};
use sqlx::{Connection, PgConnection, Row};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    calls::RedisWork,
    machine,
    run::number,
    statements::{self, PostgresWork},
    subject::{Subject, Watched, Work},
};
use crate::{
    fleet::{self, Fleet, FleetOptions, Programs, ServerSource, Service},
    ports::Ports,
    process::Process,
    servers::{Binaries, Durability, NatsServers, Servers},
    terminal,
};

const TOKEN_TTL: Duration = Duration::from_hours(2);
/// Conversations that are made at the same time.
const MAKING_MAX: usize = 16;
/// Room for what a load leaves in the log.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The backend, running.
#[derive(Debug)]
pub struct Chat {
    // The fleet goes before what it stands on.
    fleet: Fleet,
    servers: Servers,
    binaries: Binaries,
}

/// How it is set up.
#[derive(Debug, Clone, Copy)]
pub struct ChatOptions {
    /// How many gateways.
    pub gateways: usize,
    /// Handshakes a second that a gateway lets in; its own default if none.
    pub handshakes_per_second: Option<u32>,
}

impl Chat {
    /// Starts servers in `directory`, with Postgres as careful as in production, and a fleet on them.
    pub async fn start(binaries: Binaries, programs: Programs, directory: &Path, options: ChatOptions) -> Result<Self> {
        terminal::progress("starting servers and services of its own");
        let servers = start_servers(&binaries, directory).await?;
        Self::start_on(servers, binaries, programs, directory, options).await
    }

    /// Starts a fleet on servers that run already.
    pub async fn start_on(
        servers: Servers,
        binaries: Binaries,
        programs: Programs,
        directory: &Path,
        options: ChatOptions,
    ) -> Result<Self> {
        servers.postgres.ensure_database(fleet::DATABASE).await?;
        let mut env = vec![("CHAT_LOG_BYTES_MAX".to_owned(), LOG_BYTES_MAX.to_string())];
        env.extend(
            options.handshakes_per_second.map(|rate| ("CHAT_HANDSHAKES_PER_SECOND_MAX".to_owned(), rate.to_string())),
        );
        let fleet = Box::pin(Fleet::start(FleetOptions {
            gateways: options.gateways,
            dir: Some(directory.to_path_buf()),
            servers: ServerSource::Borrowed(servers.urls(fleet::DATABASE)),
            programs: Some(programs),
            has_cold: servers.store.is_some(),
            env,
            ..FleetOptions::default()
        }))
        .await?;
        Ok(Self { fleet, servers, binaries })
    }

    /// The services.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What they stand on.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// How far each user has read, in the one conversation that they have.
    pub async fn read(&self) -> Result<HashMap<String, u64>> {
        let mut database = self.database().await?;
        let question = "select user_id::text, max(read_seq) from participants group by user_id";
        let rows = sqlx::raw_sql(question).fetch_all(&mut database).await?;
        database.close().await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs()))).collect()
    }

    /// The position of the log's last event.
    pub async fn log_end(&self) -> Result<u64> {
        let client = log::connect(&self.servers.nats.url(), "load", |_| {}).await?;
        let name = stream_name(self.fleet.namespace());
        let stream = async_nats::jetstream::new(client).get_stream(name).await?;
        Ok(stream.cached_info().state.last_sequence)
    }

    /// A connection to its database, as the administrator.
    pub(super) async fn database(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.fleet.urls().postgres).await?)
    }

    /// A counter of the gateways without labels, all of them together.
    pub(super) async fn counted(&self, name: &str) -> Result<f64> {
        let mut sum = 0;
        for gateway in self.fleet.gateways() {
            sum += gateway.value(name).await?;
        }
        Ok(number(sum))
    }

    /// Somebody new, with a token.
    pub(super) fn user(&self) -> Result<(UserId, String)> {
        let id = UserId::random();
        Ok((id, self.fleet.kaha().tokens().user(id.as_uuid(), None, TOKEN_TTL)?))
    }
}

/// Servers for a load: Postgres waits for the disk, and counts statements.
pub async fn start_servers(binaries: &Binaries, directory: &Path) -> Result<Servers> {
    let servers =
        Servers::start(binaries, &directory.join("data"), Durability::Kept, NatsServers::One, &Ports::fresh()).await?;
    statements::begin_counting(&servers.postgres).await?;
    Ok(servers)
}

impl Subject for Chat {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn target(&self) -> TargetKind {
        TargetKind::Chat
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.fleet.gateways().iter().filter_map(|gateway| gateway.address().parse().ok()).collect()
    }

    async fn seats(&self, conversations: usize, size: usize) -> Result<Vec<Seat>> {
        let http = reqwest::Client::new();
        let gateways: Vec<String> = self.fleet.gateways().iter().map(Service::url).collect();
        if size == 1 {
            terminal::progress(&format!("making {conversations} users"));
            return (0..conversations).map(|_| Ok(seat(self.user()?, Uuid::new_v4().to_string(), 0))).collect();
        }
        terminal::progress(&format!("making {} users in {conversations} conversations", conversations * size));
        let mut making = JoinSet::new();
        let mut seats = Vec::with_capacity(conversations * size);
        for conversation in 0..conversations {
            if making.len() >= MAKING_MAX {
                seats.extend(making.join_next().await.transpose()?.transpose()?.unwrap_or_default());
            }
            let users = (0..size).map(|_| self.user()).collect::<Result<Vec<_>>>()?;
            let gateway = gateways[conversation % gateways.len()].clone();
            making.spawn(make_conversation(http.clone(), gateway, gateways.len(), users));
        }
        while let Some(made) = making.join_next().await {
            seats.extend(made??);
        }
        Ok(seats)
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        let services = self.fleet.services().map(|service| watched(service.process(), false, false));
        let servers = [
            watched(self.servers.postgres.process(), true, false),
            watched(self.servers.nats.process(), false, true),
            watched(self.servers.redis.process(), false, false),
        ];
        let store = self.servers.store.iter().map(|store| watched(store.process(), false, false));
        services.chain(servers).chain(store).collect()
    }

    fn holder(&self) -> Result<Watched> {
        watched(self.fleet.gateway(0).process(), false, false)
    }

    async fn work(&self) -> Result<Work> {
        let redis_url = self.servers.redis.url();
        let (postgres, redis) = tokio::try_join!(PostgresWork::of(&self.servers.postgres), RedisWork::of(&redis_url))?;
        Ok(Work {
            fsyncs: BTreeMap::from([("postgres".to_owned(), postgres.fsyncs)]),
            sql_statements: postgres.statements,
            redis_calls: Some(redis.calls),
            redis_scripts: Some(redis.scripts),
        })
    }

    async fn stored(&self) -> Result<u64> {
        let mut database = self.database().await?;
        let question = "select count(*) from messages where sent_at > now() - interval '1 day'";
        let count: i64 = sqlx::raw_sql(question).fetch_one(&mut database).await?.try_get(0)?;
        database.close().await?;
        Ok(count.unsigned_abs())
    }

    async fn stored_ids(&self, within: Duration) -> Result<HashSet<Uuid>> {
        let mut database = self.database().await?;
        let seconds = within.as_secs();
        let question = format!("select message_id from messages where sent_at > now() - interval '{seconds} seconds'");
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(question)).fetch_all(&mut database).await?;
        database.close().await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let binaries = self.binaries.clone();
        Ok(tokio::task::spawn_blocking(move || machine::versions(&binaries)).await?)
    }

    async fn stop(self) -> Result<()> {
        self.fleet.stop().await?;
        self.servers.stop().await
    }
}

/// Makes one conversation of all these users; the first makes it. Each is told another gateway to connect to.
async fn make_conversation(
    http: reqwest::Client,
    gateway: String,
    gateways: usize,
    users: Vec<(UserId, String)>,
) -> Result<Vec<Seat>> {
    let (_, token) = users.first().context("a conversation needs somebody")?;
    let others: Vec<UserId> = users[1..].iter().map(|(id, _)| *id).collect();
    let wish = match others[..] {
        [user_id] => CreateConversation::Direct { user_id },
        _ => CreateConversation::Group { user_ids: others },
    };
    let made: Conversation = http
        .post(format!("{gateway}/v1/conversations"))
        .bearer_auth(token)
        .json(&wish)
        .send()
        .await?
        .error_for_status()
        .context("a conversation could not be made")?
        .json()
        .await?;
    let conversation = made.conversation_id.as_uuid().to_string();
    let seats = users.into_iter().enumerate();
    Ok(seats.map(|(number, user)| seat(user, conversation.clone(), number % gateways)).collect())
}

/// A user with a new device.
pub(super) fn seat((id, token): (UserId, String), conversation: String, address: usize) -> Seat {
    Seat { user: id.as_uuid().to_string(), secret: token, device: Uuid::new_v4(), conversation, address }
}

pub(super) fn watched(process: &Process, has_family: bool, counts_syncs: bool) -> Result<Watched> {
    let name = process.name().to_owned();
    let pid = process.pid().with_context(|| format!("{name} has ended"))?;
    Ok(Watched { name, pid, has_family, counts_syncs })
}
