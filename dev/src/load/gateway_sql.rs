//! Statements that gateways send to Postgres: by their own counter, and by the log of Postgres.

use std::fs;

use anyhow::{Context, Result, ensure};
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};

use super::chat::Chat;

/// The gateways' counter of statements that requests have sent.
const STATEMENTS: &str = "chat_gateway_sql_statements_total";
/// What the gateways call themselves at Postgres.
const GATEWAY: &str = "chat-gateway";
/// Tables that gateways ask in the background, every few seconds and whoever comes or goes.
const BACKGROUND: [&str; 3] = ["from outbox", "from log_checkpoints", "from content_keys"];

/// Statements of gateways, counted from a moment on.
#[derive(Debug)]
pub struct GatewaySql {
    counted: f64,
    logged: usize,
}

/// How many there were, but for those in the background.
#[derive(Debug, Clone, Copy)]
pub struct Statements {
    /// By the gateways' counters.
    pub counted: f64,
    /// By the log of Postgres.
    pub logged: usize,
}

impl GatewaySql {
    /// Begins to count.
    pub async fn begin(chat: &Chat) -> Result<Self> {
        log_statements(chat, true).await?;
        let begun = Self { counted: counted(chat).await?, logged: logged(chat)? };
        as_gateway(chat).await?;
        Ok(begun)
    }

    /// How many there were since.
    pub async fn end(self, chat: &Chat) -> Result<Statements> {
        let (counted, logged) = (counted(chat).await? - self.counted, logged(chat)? - self.logged);
        log_statements(chat, false).await?;
        let logged = logged.checked_sub(1).context("the log of Postgres lacks a statement that was sent")?;
        Ok(Statements { counted, logged })
    }
}

/// One statement under the gateways' name, so that it is known that the log has what it should.
async fn as_gateway(chat: &Chat) -> Result<()> {
    let options: PgConnectOptions = chat.servers().postgres.url().parse()?;
    let mut connection = PgConnection::connect_with(&options.application_name(GATEWAY)).await?;
    let row = sqlx::raw_sql("select 1").fetch_one(&mut connection).await?;
    ensure!(row.try_get::<i32, _>(0)? == 1, "Postgres can't count");
    Ok(connection.close().await?)
}

/// Statements by the gateways' counters since they started.
pub async fn counted(chat: &Chat) -> Result<f64> {
    chat.counted(STATEMENTS).await
}

/// Has Postgres log every statement with the name of the program that sent it.
async fn log_statements(chat: &Chat, is_on: bool) -> Result<()> {
    let mut database = PgConnection::connect(&chat.servers().postgres.url()).await?;
    let statements = if is_on {
        ["alter system set log_line_prefix = '%a '", "alter system set log_statement = 'all'"]
    } else {
        ["alter system reset log_line_prefix", "alter system reset log_statement"]
    };
    for statement in statements {
        database.execute(statement).await?;
    }
    database.execute("select pg_reload_conf()").await?;
    Ok(database.close().await?)
}

fn logged(chat: &Chat) -> Result<usize> {
    let log = fs::read_to_string(chat.servers().postgres.process().log())?;
    Ok(log
        .lines()
        .filter(|line| line.strip_prefix(GATEWAY).is_some_and(|line| line.trim_start().starts_with("LOG:")))
        .filter(|line| !BACKGROUND.iter().any(|table| line.contains(table)))
        .count())
}
