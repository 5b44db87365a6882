//! What resuming costs the database: everybody comes back at the other gateway, with messages missed.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use chat_client::{
    ids::MessageId,
    positions::Cursor,
    wire::{Resume, SendMessageBody},
};
use serde::Serialize;
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};
use tokio::{task::JoinSet, time::Instant};

use super::{
    socket,
    users::{Seat, Users},
};
use crate::{
    fleet::{Fleet, Service},
    wait,
};

/// Messages that each user misses.
const MISSED: u64 = 3;
/// Resumes at the same time.
const AT_ONCE: usize = 32;
const STORED_DEADLINE: Duration = Duration::from_mins(1);
/// The gateways' counter of statements that requests have sent.
const STATEMENTS: &str = "chat_gateway_sql_statements_total";
/// What the gateways call themselves at Postgres.
const GATEWAY: &str = "chat-gateway";

/// What the resumes came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Resumes {
    pub count: usize,
    pub missed_messages: u64,
    /// By the gateways' own counter.
    pub statements_counted: f64,
    /// By the log of Postgres, with every statement logged: what gateways ran meanwhile …
    pub statements_logged: usize,
    /// … and as long a time without any resume: the gateways' own upkeep.
    pub statements_logged_idle: usize,
    pub seconds: f64,
}

/// Measures with users who are all connected to no gateway now.
pub async fn measure(fleet: &Fleet, users: &Users) -> Result<Resumes> {
    let mut places = Vec::with_capacity(users.0.len());
    for seat in &users.0 {
        let (_reader, mut writer, ready) = open(fleet, seat, 0, None).await?;
        places.push(Resume {
            epoch: ready.epoch.context("the gateway gave no epoch")?,
            cursor: ready.cursor.context("the gateway gave no cursor")?,
        });
        writer.close().await?;
    }
    let mut database = PgConnection::connect(&fleet.urls().postgres).await?;
    send_missed(fleet, users, &mut database).await?;

    log_statements(&mut database, true).await?;
    let log_before = logged(fleet)?;
    let counted_before = counted(fleet).await?;
    let began = Instant::now();
    as_gateway(fleet).await?;
    resume_all(fleet, users, &places).await?;
    let took = began.elapsed();
    let counted_after = counted(fleet).await?;
    let log_after = logged(fleet)?;
    // As long a time with nothing going on; the length is what is compared, so it is waited for as it is.
    tokio::time::sleep(took).await;
    let log_idle = logged(fleet)?;
    log_statements(&mut database, false).await?;
    Ok(Resumes {
        count: places.len(),
        missed_messages: MISSED * places.len() as u64,
        statements_counted: counted_after - counted_before,
        statements_logged: (log_after - log_before).checked_sub(1).context("the log of Postgres lacks a statement")?,
        statements_logged_idle: log_idle - log_after,
        seconds: took.as_secs_f64(),
    })
}

/// At the user's own gateway, or at one further on.
async fn open(
    fleet: &Fleet,
    seat: &Seat,
    further: usize,
    resume: Option<Resume>,
) -> Result<(socket::Reader, socket::Writer, socket::Heard)> {
    let gateways = fleet.gateways();
    let gateway = &gateways[(seat.gateway + further) % gateways.len()];
    socket::open(&gateway.address(), &seat.user.token, seat.user.device_id, resume).await
}

/// One statement under the gateways' name, so that it is known that the log has what it should.
async fn as_gateway(fleet: &Fleet) -> Result<()> {
    let options: PgConnectOptions = fleet.urls().postgres.parse()?;
    let mut connection = PgConnection::connect_with(&options.application_name(GATEWAY)).await?;
    let row = sqlx::raw_sql("select 1").fetch_one(&mut connection).await?;
    ensure!(row.try_get::<i32, _>(0)? == 1, "Postgres can't count");
    Ok(connection.close().await?)
}

/// Everybody writes to their other half, by REST; waits until Postgres has it all, so that it is quiet afterwards.
async fn send_missed(fleet: &Fleet, users: &Users, database: &mut PgConnection) -> Result<()> {
    let http = reqwest::Client::new();
    let before = stored(database).await?;
    for seat in &users.0 {
        let url = format!(
            "{}/v1/conversations/{}/messages",
            fleet.gateway(seat.gateway).url(),
            seat.conversation_id.as_uuid()
        );
        for number in 0..MISSED {
            let body =
                SendMessageBody { message_id: MessageId::random(), text: format!("missed {number}"), is_repeat: false };
            http.post(&url).bearer_auth(&seat.user.token).json(&body).send().await?.error_for_status()?;
        }
    }
    let wanted = before + (users.0.len() as u64 * MISSED).cast_signed();
    let url = &fleet.urls().postgres;
    wait::until("storing the missed messages", STORED_DEADLINE, || async {
        let mut database = PgConnection::connect(url).await?;
        Ok((stored(&mut database).await? >= wanted).then_some(()))
    })
    .await
}

async fn stored(database: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::raw_sql("select count(*) from messages").fetch_one(database).await?.try_get(0)?)
}

async fn resume_all(fleet: &Fleet, users: &Users, places: &[Resume]) -> Result<()> {
    let mut resuming = JoinSet::new();
    for (seat, place) in users.0.iter().zip(places) {
        if resuming.len() >= AT_ONCE {
            resuming.join_next().await.transpose()?.transpose()?;
        }
        let gateways: Vec<String> = fleet.gateways().iter().map(Service::address).collect();
        let address = gateways[(seat.gateway + 1) % gateways.len()].clone();
        resuming.spawn(resume(address, seat.clone(), *place));
    }
    while let Some(resumed) = resuming.join_next().await {
        resumed??;
    }
    Ok(())
}

/// Resumes, and reads what was missed: the other's messages and one's own.
async fn resume(address: String, seat: Seat, place: Resume) -> Result<()> {
    let user = &seat.user;
    let (mut reader, mut writer, ready) = socket::open(&address, &user.token, user.device_id, Some(place)).await?;
    ensure!(ready.resumed == Some(true), "the gateway could not resume");
    let mut next = place.cursor;
    for _ in 0..2 * MISSED {
        let heard = reader.next().await?;
        next = Cursor(next.0 + 1);
        ensure!(heard.text().is_some() && heard.cursor == Some(next), "a missed message did not come: {heard:?}");
    }
    writer.close().await
}

async fn counted(fleet: &Fleet) -> Result<f64> {
    let mut sum = 0.0;
    for gateway in fleet.gateways() {
        let metrics = gateway.metrics().await?;
        let line = metrics.lines().find(|line| line.split_whitespace().next() == Some(STATEMENTS));
        let value = line.and_then(|line| line.split_whitespace().nth(1)).context("the gateway counts no statements")?;
        sum += value.parse::<f64>()?;
    }
    Ok(sum)
}

/// Has Postgres log every statement with the name of the program that sent it.
async fn log_statements(database: &mut PgConnection, is_on: bool) -> Result<()> {
    let statements = if is_on {
        ["alter system set log_line_prefix = '%a '", "alter system set log_statement = 'all'"]
    } else {
        ["alter system reset log_line_prefix", "alter system reset log_statement"]
    };
    for statement in statements {
        database.execute(statement).await?;
    }
    database.execute("select pg_reload_conf()").await?;
    Ok(())
}

/// Tables that gateways ask in the background, every few seconds and whoever comes or goes.
const BACKGROUND: [&str; 3] = ["from outbox", "from log_checkpoints", "from content_keys"];

/// How many statements of gateways the log of Postgres has, but for those in the background.
fn logged(fleet: &Fleet) -> Result<usize> {
    let postgres = &fleet.servers().context("the fleet has no servers of its own")?.postgres;
    let log = fs::read_to_string(postgres.process().log())?;
    Ok(log
        .lines()
        .filter(|line| line.strip_prefix(GATEWAY).is_some_and(|line| line.trim_start().starts_with("LOG:")))
        .filter(|line| !BACKGROUND.iter().any(|table| line.contains(table)))
        .count())
}
