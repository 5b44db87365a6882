//! The Socket.IO peer: two Node processes, Redis between them, PostgreSQL behind them. What they run stands in
//! `load/peers/socket-io`.

mod packages;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use chat_load::plan::{Seat, TargetKind};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use rand::RngExt;
use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use self::packages::Packages;
use super::{database::Database, is_listening, watched};
use crate::{
    load::{
        calls::RedisWork,
        subject::{Subject, Watched, Work},
    },
    ports::Ports,
    process::{Launch, Process},
    servers::{Binaries, Redis, start_and_wait, wheels::hex},
    terminal,
};

/// The fewest between which messages have to be passed; more would only share the processors of a small machine.
const NODES: usize = 2;
const TOKEN_TTL: Duration = Duration::from_hours(2);
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// All its processes.
pub struct SocketIo {
    // Dropped in this order: the servers after who uses them.
    nodes: Vec<Process>,
    addresses: Vec<SocketAddr>,
    redis: Redis,
    database: Database,
    packages: Packages,
    secret: String,
}

/// The secret stays out.
impl fmt::Debug for SocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIo").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl SocketIo {
    /// Sees to it that what can be missing is there.
    ///
    /// # Errors
    /// If Node is missing or too old, with how to get it; if its packages can't be fetched.
    pub async fn prepare() -> Result<()> {
        tokio::task::spawn_blocking(Packages::find_or_fetch).await?.map(drop)
    }

    /// Starts everything with its data under `directory`.
    ///
    /// # Errors
    /// As [`Self::prepare`], and if something does not start.
    pub async fn start(binaries: &Binaries, directory: &Path) -> Result<Self> {
        let packages = tokio::task::spawn_blocking(Packages::find_or_fetch).await??;
        terminal::progress("starting PostgreSQL, Redis and two Node processes");
        let ports = Ports::fresh();
        let schema = std::fs::read_to_string(packages.schema())?;
        let (redis, database) = tokio::try_join!(
            Redis::start_in(binaries, directory, &ports),
            Database::start(binaries, directory, &ports, "socket_io", schema),
        )?;
        let secret = hex(&rand::rng().random::<[u8; 32]>());
        let mut nodes = Vec::with_capacity(NODES);
        let mut addresses = Vec::with_capacity(NODES);
        for number in 1..=NODES {
            let name = format!("node-{number}");
            let port = ports.get(&name)?;
            let mut launch =
                Launch::new(&name, packages.node(), directory.join(format!("{name}.log"))).args([packages.program()]);
            launch.env = vec![
                ("NODE_ENV".to_owned(), "production".to_owned()),
                ("PORT".to_owned(), port.to_string()),
                ("DATABASE_URL".to_owned(), database.url()),
                ("REDIS_URL".to_owned(), redis.url()),
                ("TOKEN_SECRET".to_owned(), secret.clone()),
            ];
            nodes.push(Process::new(launch));
            addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        for (node, address) in nodes.iter().zip(&addresses) {
            start_and_wait(node, || is_listening(*address)).await?;
        }
        Ok(Self { nodes, addresses, redis, database, packages, secret })
    }

    /// Somebody in no conversation.
    fn lone_seat(&self) -> Result<Seat> {
        let user = Uuid::new_v4().to_string();
        let (secret, conversation) = (self.token(&user)?, Uuid::new_v4().to_string());
        Ok(Seat { user, secret, device: Uuid::new_v4(), conversation, address: 0 })
    }

    fn token(&self, user_id: &str) -> Result<String> {
        let now = get_current_timestamp();
        let claims = json!({ "sub": user_id, "iat": now, "exp": now + TOKEN_TTL.as_secs() });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(self.secret.as_bytes())).context("cannot sign")
    }
}

impl Subject for SocketIo {
    fn name(&self) -> &'static str {
        "socket.io"
    }

    fn target(&self) -> TargetKind {
        TargetKind::SocketIo
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    async fn seats(&self, conversations: usize, size: usize) -> Result<Vec<Seat>> {
        if size == 1 {
            return (0..conversations).map(|_| self.lone_seat()).collect();
        }
        let statement = format!(
            "with made as (
                 insert into conversations (conversation_id)
                 select gen_random_uuid() from generate_series(1, {conversations})
                 returning conversation_id
             ), joined as (
                 insert into participants (conversation_id, user_id)
                 select conversation_id, gen_random_uuid() from made, generate_series(1, {size})
                 returning conversation_id, user_id
             )
             select conversation_id::text, user_id::text from joined order by conversation_id"
        );
        let rows = self.database.rows(statement).await?;
        let seats = rows.iter().enumerate().map(|(number, row)| {
            let user: String = row.try_get(1)?;
            Ok(Seat {
                secret: self.token(&user)?,
                user,
                device: Uuid::new_v4(),
                conversation: row.try_get(0)?,
                address: number % self.addresses.len(),
            })
        });
        seats.collect()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        let nodes = self.nodes.iter().map(|node| watched(node, false));
        nodes.chain([watched(self.redis.process(), false), self.database.watched()]).collect()
    }

    fn holder(&self) -> Result<Watched> {
        watched(self.nodes.first().context("there is no Node process")?, false)
    }

    async fn work(&self) -> Result<Work> {
        let (postgres, redis) = (self.database.work().await?, RedisWork::of(&self.redis.url()).await?);
        Ok(Work {
            fsyncs: BTreeMap::from([("postgres".to_owned(), postgres.fsyncs)]),
            sql_statements: postgres.statements,
            redis_calls: Some(redis.calls),
            redis_scripts: Some(redis.scripts),
        })
    }

    async fn stored(&self) -> Result<u64> {
        self.database.number("select count(*) from messages").await
    }

    async fn stored_ids(&self, within: Duration) -> Result<HashSet<Uuid>> {
        let seconds = within.as_secs();
        let statement = format!("select message_id from messages where sent_at > now() - interval '{seconds} seconds'");
        self.database.ids(statement).await
    }

    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        self.packages.versions()
    }

    async fn stop(self) -> Result<()> {
        for node in &self.nodes {
            node.stop(STOP_DEADLINE).await?;
        }
        tokio::try_join!(self.redis.stop(), self.database.stop())?;
        Ok(())
    }
}
