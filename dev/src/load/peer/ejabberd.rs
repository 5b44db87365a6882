//! The ejabberd peer: one node of the distribution's package, PostgreSQL behind it. How it is set up stands in
//! `load/peers/ejabberd`.

mod installation;

use std::{
    collections::{BTreeMap, HashSet},
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chat_load::plan::{Seat, TargetKind};
use sqlx::Row;
use uuid::Uuid;

use self::installation::Installation;
use super::{database::Database, is_listening, watched};
use crate::{
    load::subject::{Subject, Watched, Work},
    paths,
    ports::Ports,
    process::{Launch, Process},
    servers::{
        Binaries,
        account::{self, Account},
        start_and_wait,
    },
    terminal,
};

/// The one that `ejabberd.yml` names.
const HOST: &str = "localhost";
/// What the package's own script gives the Erlang machine.
const MACHINE: [&str; 4] = ["+K", "true", "+P", "250000"];
/// Schedulers without work sleep at once instead of spinning, since others want the processors too: the usual advice for
/// shared machines, which took a third off what a message costs here.
const NO_SPINNING: [&str; 6] = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];
/// Its bound of open files and sockets, as the package's script has it.
const PORTS_MAX: &str = "32000";
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Rows of the archive that are the sender's own: only there the other side is without its device.
const IS_SENDERS: &str = "peer = bare_peer";

/// All its processes.
#[derive(Debug)]
pub struct Ejabberd {
    // Dropped in this order: the database after who uses it.
    node: Process,
    address: SocketAddr,
    database: Database,
    installation: Installation,
}

impl Ejabberd {
    /// Sees to it that what can be missing is there.
    ///
    /// # Errors
    /// If ejabberd is not installed, with how to get it.
    pub async fn prepare() -> Result<()> {
        tokio::task::spawn_blocking(Installation::find).await?.map(drop)
    }

    /// Starts everything with its data under `directory`.
    ///
    /// # Errors
    /// As [`Self::prepare`], and if something does not start.
    pub async fn start(binaries: &Binaries, directory: &Path) -> Result<Self> {
        let installation = tokio::task::spawn_blocking(Installation::find).await??;
        terminal::progress("starting PostgreSQL and ejabberd");
        let ports = Ports::fresh();
        let schema = std::fs::read_to_string(&installation.schema)?;
        let database = Database::start(binaries, directory, &ports, "ejabberd", schema).await?;
        let address = SocketAddr::from(([127, 0, 0, 1], ports.get("ejabberd")?));
        let account = Account::unprivileged()?;
        let home = account::reachable(&directory.join("ejabberd"), account.as_ref());
        let configuration = configure(&home, address.port(), &database)?;
        if let Some(account) = &account {
            account.own(&home)?;
        }
        let mut launch = Launch::new("ejabberd", &installation.erl, directory.join("ejabberd.log"))
            .args(MACHINE)
            .args(NO_SPINNING)
            .args(["-noinput", "-mnesia", "dir", &format!("\"{}\"", home.join("mnesia").display()), "-s", "ejabberd"]);
        launch.env = vec![
            ("EJABBERD_CONFIG_PATH".to_owned(), configuration.display().to_string()),
            ("EJABBERD_LOG_PATH".to_owned(), home.join("ejabberd.log").display().to_string()),
            ("ERL_LIBS".to_owned(), installation.libraries.display().to_string()),
            ("ERL_MAX_PORTS".to_owned(), PORTS_MAX.to_owned()),
            ("ERL_CRASH_DUMP_BYTES".to_owned(), "0".to_owned()),
            ("HOME".to_owned(), home.display().to_string()),
        ];
        launch.account = account;
        launch.has_family = true;
        let node = Process::new(launch);
        start_and_wait(&node, || is_listening(address)).await?;
        Ok(Self { node, address, database, installation })
    }
}

/// Fills in the template.
fn configure(home: &Path, port: u16, database: &Database) -> Result<PathBuf> {
    let template = paths::workspace_root()?.join("load/peers/ejabberd/ejabberd.yml");
    let text = std::fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
    let text = text
        .replace("@PORT@", &port.to_string())
        .replace("@POSTGRES_PORT@", &database.port().to_string())
        .replace("@PASSWORD@", database.password())
        .replace("@DATABASE@", database.name());
    std::fs::create_dir_all(home)?;
    let file = home.join("ejabberd.yml");
    std::fs::write(&file, text)?;
    // The account that reads it is not the one that writes it, and the password is that of servers that are thrown away.
    std::fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    Ok(file)
}

impl Subject for Ejabberd {
    fn name(&self) -> &'static str {
        "ejabberd"
    }

    fn target(&self) -> TargetKind {
        TargetKind::Xmpp
    }

    /// One node uses all processors; clients that come back find the same one.
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address; 2]
    }

    /// Accounts are rows, as registration would make them, only faster. A conversation is the other's address.
    async fn seats(&self, conversations: usize, size: usize) -> Result<Vec<Seat>> {
        ensure!(
            (1..=2).contains(&size),
            "ejabberd is loaded with messages between two; its groups are another protocol"
        );
        let statement = format!(
            "insert into users (username, password)
             select gen_random_uuid()::text, gen_random_uuid()::text from generate_series(1, {})
             returning username, password",
            conversations * size
        );
        let rows = self.database.rows(statement).await?;
        let name = |number: usize| -> Result<String> { Ok(rows[number].try_get(0)?) };
        let seat = |number: usize| {
            let other = number - number % size + (number + 1) % size;
            Ok(Seat {
                user: name(number)?,
                secret: rows[number].try_get(1)?,
                device: Uuid::new_v4(),
                conversation: format!("{}@{HOST}", name(other)?),
                address: number % 2,
            })
        };
        (0..rows.len()).map(seat).collect()
    }

    fn processes(&self) -> Result<Vec<Watched>> {
        Ok(vec![self.holder()?, self.database.watched()?])
    }

    fn holder(&self) -> Result<Watched> {
        watched(&self.node, true)
    }

    async fn work(&self) -> Result<Work> {
        let postgres = self.database.work().await?;
        let fsyncs = BTreeMap::from([("postgres".to_owned(), postgres.fsyncs)]);
        Ok(Work { fsyncs, sql_statements: postgres.statements, ..Work::default() })
    }

    /// Each is in two archives and counts once.
    async fn stored(&self) -> Result<u64> {
        self.database.number(&format!("select count(*) from archive where {IS_SENDERS}")).await
    }

    async fn stored_ids(&self, within: Duration) -> Result<HashSet<Uuid>> {
        let seconds = within.as_secs();
        let statement = format!(
            r"select found::uuid from archive, substring(xml from '\sid=''([0-9a-f-]{{36}})''') as found
              where {IS_SENDERS} and found is not null and created_at > now() - interval '{seconds} seconds'"
        );
        self.database.ids(statement).await
    }

    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.installation.versions())
    }

    async fn stop(self) -> Result<()> {
        self.node.stop(STOP_DEADLINE).await?;
        self.database.stop().await
    }
}
