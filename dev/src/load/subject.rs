//! What is measured: this backend, or a peer of it. Everything that a load needs to know of one is asked here, so that
//! all get the same workload, the same proof and the same counting.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Result;
use chat_load::plan::{Seat, TargetKind};
use uuid::Uuid;

/// Running servers that pass messages on and keep them in Postgres.
pub trait Subject {
    /// Its name in reports: `chat`, `socket.io`, `ejabberd`.
    fn name(&self) -> &'static str;

    /// What clients of it speak.
    fn target(&self) -> TargetKind;

    /// Where clients connect; two or more.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// Makes users and conversations: `size` seats for each of `conversations`, one after the other, their addresses
    /// taking turns. Of size 1: users who only connect, all to the same process, in no conversation.
    fn seats(&self, conversations: usize, size: usize) -> impl Future<Output = Result<Vec<Seat>>>;

    /// All its processes, servers included.
    ///
    /// # Errors
    /// If one has ended.
    fn processes(&self) -> Result<Vec<Watched>>;

    /// The one of these that clients are connected to who only connect.
    ///
    /// # Errors
    /// If it has ended.
    fn holder(&self) -> Result<Watched>;

    /// What its servers were asked to do since they started.
    fn work(&self) -> impl Future<Output = Result<Work>>;

    /// How many messages its database holds; those older than a day may be left out.
    fn stored(&self) -> impl Future<Output = Result<u64>>;

    /// The ids, as their senders chose them, of the messages that came into its database within the last `within`.
    fn stored_ids(&self, within: Duration) -> impl Future<Output = Result<HashSet<Uuid>>>;

    /// Version by program.
    fn versions(&self) -> impl Future<Output = Result<BTreeMap<String, String>>>;

    /// Ends all of it.
    fn stop(self) -> impl Future<Output = Result<()>>;
}

/// A process whose time and memory are counted, with its children.
#[derive(Debug, Clone)]
pub struct Watched {
    /// For the report: `gateway-1`, `postgres` …
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Its children count too, as the backends of Postgres.
    pub has_family: bool,
    /// Writes made durable are counted by its system calls, because it can't be asked for them.
    pub counts_syncs: bool,
}

/// Work of servers since they started; differences are what is reported. None where it can't be counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Writes made durable, by those servers that can be asked.
    pub fsyncs: BTreeMap<String, u64>,
    /// Statements that Postgres carried out, `BEGIN` and `COMMIT` included.
    pub sql_statements: Option<u64>,
    /// Commands that Redis carried out, those within scripts included.
    pub redis_calls: Option<u64>,
    /// Scripts that Redis ran.
    pub redis_scripts: Option<u64>,
}

impl Work {
    /// What came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let difference = |after: Option<u64>, before: Option<u64>| Some(after?.saturating_sub(before?));
        let fsyncs = self.fsyncs.iter().map(|(server, after)| {
            let before = before.fsyncs.get(server).copied().unwrap_or_default();
            (server.clone(), after.saturating_sub(before))
        });
        Self {
            fsyncs: fsyncs.collect(),
            sql_statements: difference(self.sql_statements, before.sql_statements),
            redis_calls: difference(self.redis_calls, before.redis_calls),
            redis_scripts: difference(self.redis_scripts, before.redis_scripts),
        }
    }
}
