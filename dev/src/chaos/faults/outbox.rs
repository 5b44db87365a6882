//! A gateway dies between the commit of a change and its append to the log: only another gateway's sweeper can bring the
//! change to clients.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Context, Result};
use chat_client::{ids::ConversationId, wire::CreateConversation};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    audit::{Check, Diary},
    chaos::{
        crowd::{Crowd, Device},
        ground::Ground,
        trial::Trial,
    },
    person::SHOWN_DEADLINE,
    process::Signal,
    wait,
};

/// The gateway that dies.
const VICTIM: usize = 0;
/// Those who are made a group: the first makes it.
const GROUP: std::ops::Range<usize> = 0..4;
/// How long a gateway may take to commit. It waits for the log only afterwards, and for less.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the other gateway may take to find what was left. It looks every two seconds.
const SWEEP_DEADLINE: Duration = Duration::from_secs(20);

/// Several times: NATS is frozen, a group is made, and its gateway is killed once PostgreSQL has the group.
pub async fn swept(trial: &mut Trial<'_>) -> Result<()> {
    for _ in 0..trial.scale.of(4, 1) {
        trial.pause(300..1500).await;
        round(trial).await?;
    }
    Ok(())
}

async fn round(trial: &mut Trial<'_>) -> Result<()> {
    let (ground, crowd) = (trial.ground, trial.crowd);
    let (nats, gateway) = (&ground.servers()?.nats, ground.fleet.gateway(VICTIM));
    let members = &crowd.people()[GROUP];
    nats.pause()?;
    trial.fault("NATS is frozen, and a group is made");
    let mut making = JoinSet::new();
    making.spawn(make_group(&gateway.url(), members)?);
    let left =
        wait::until("a change that is committed and not in the log", COMMIT_DEADLINE, || left(ground, crowd)).await;
    gateway.kill().await?;
    nats.resume()?;
    drop(making);
    let status = gateway.process().exited().await?;
    let group = left.context("the group was not committed")?;
    trial
        .fault(&format!("{} is killed with SIGKILL after its commit and before the log has the group", gateway.name()));
    let swept = wait::until("the other gateway's sweep", SWEEP_DEADLINE, || async {
        let mut postgres = ground.postgres().await?;
        Ok((!is_left(&mut postgres, group).await?).then_some(()))
    })
    .await;
    trial.bite(
        status.signal() == Some(Signal::KILL.as_raw()) && !gateway.process().is_running(),
        format!("{} died with a committed group that the log did not have, and stayed dead", gateway.name()),
    );
    let mut not_told = Vec::new();
    for device in members {
        let told = device.person.until("the new group", SHOWN_DEADLINE, |diary: &Diary| diary.knows_group(group)).await;
        not_told.extend(told.is_err().then(|| device.name.clone()));
    }
    trial.promise(Check::ChangeNotTold, not_told.len(), members.len(), not_told.first().cloned());
    let first = swept.err().map(|error| format!("{error:#}"));
    trial.promise(Check::Unsettled, usize::from(first.is_some()), 1, first);
    gateway.start_ready().await
}

/// Makes a group at one gateway, whose answer is of no interest.
fn make_group(gateway: &str, members: &[Device]) -> Result<impl Future<Output = ()> + Send + use<>> {
    let maker = members.first().context("a group has members")?;
    let others = members[1..].iter().map(|device| device.person.user_id).collect();
    let request = reqwest::Client::new()
        .post(format!("{gateway}/v1/conversations"))
        .bearer_auth(maker.person.token())
        .json(&CreateConversation::Group { user_ids: others });
    Ok(async move {
        _ = request.send().await;
    })
}

/// The group that waits for the log, among changes of other conversations.
async fn left(ground: &Ground, crowd: &Crowd) -> Result<Option<ConversationId>> {
    let known: Vec<_> = crowd.rooms().iter().map(|room| room.id.as_uuid()).collect();
    let statement = "select conversation_id from outbox where version = 1".to_owned();
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut ground.postgres().await?).await?;
    for row in rows {
        let id: Uuid = row.try_get(0)?;
        if !known.contains(&id) {
            return Ok(Some(id.try_into()?));
        }
    }
    Ok(None)
}

async fn is_left(postgres: &mut sqlx::PgConnection, group: ConversationId) -> Result<bool> {
    let statement = format!("select count(*) from outbox where conversation_id = '{}'", group.as_uuid());
    Ok(crate::audit::stored::number(postgres, statement).await? > 0)
}
