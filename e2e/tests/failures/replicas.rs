//! R12.1: lists and history come from replicas, a user is never shown a list from before an own change or a push, and a
//! replica fails no request.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use chat_dev::{kaha::SCOPE_EXPORT, servers::Postgres};
use chat_e2e::{Answer, Person, Setup, TestFleet, database, eventually, in_time, on_own_fleet, said};
use chat_shared::{
    ids::ConversationId,
    wire::{ConversationPage, Mute},
};
use serde_json::{Value, json};

const FROM_REPLICA: &str = "from=\"replica\"";
const UNREPLAYED: &str = "reason=\"unreplayed\"";
const BEHIND: &str = "reason=\"behind\"";
const RIGHTS: &str = "reason=\"rights\"";

/// Reads of all gateways with a label.
async fn reads(fleet: &TestFleet, label: &str) -> Result<u64> {
    let mut sum = 0;
    for gateway in fleet.gateways() {
        sum += gateway.counter("chat_gateway_reads_total", label).await?;
    }
    Ok(sum)
}

fn replica(fleet: &TestFleet) -> Result<&Postgres> {
    fleet.servers().and_then(|servers| servers.replicas.first()).context("the fleet has a replica")
}

/// Lets the replica receive the primary's log without replaying it, or go on.
async fn set_replay(fleet: &TestFleet, is_on: bool) -> Result<()> {
    let call = if is_on { "select pg_wal_replay_resume()" } else { "select pg_wal_replay_pause()" };
    database::execute(&replica(fleet)?.url(), call).await
}

/// The answer to a GET, once the rate limit of the user lets the request pass: these tests send many without a pause.
async fn answer(fleet: &TestFleet, person: &Person, gateway: usize, path: &str) -> Result<Answer> {
    eventually("an answer within the limits", async || {
        let answer = fleet.api(person, gateway).get(path).await?;
        Ok((answer.code() != "429 rate_limited").then_some(answer))
    })
    .await
}

/// The ids on a user's first page at a gateway.
async fn listed(fleet: &TestFleet, person: &Person, gateway: usize) -> Result<Vec<ConversationId>> {
    let page: ConversationPage = answer(fleet, person, gateway, "conversations?limit=100").await?.ok()?;
    Ok(page.conversations.into_iter().map(|conversation| conversation.conversation_id).collect())
}

/// Waits until both gateways read lists from the replica.
async fn until_read_from_replica(fleet: &TestFleet) -> Result<()> {
    let [reader] = fleet.people()?;
    for gateway in [0, 1] {
        let service = fleet.gateway(gateway);
        let before = service.counter("chat_gateway_reads_total", FROM_REPLICA).await?;
        eventually("a list from the replica", async || {
            listed(fleet, &reader, gateway).await?;
            let reads = service.counter("chat_gateway_reads_total", FROM_REPLICA).await?;
            Ok((reads > before).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// All changes that a list shows, each made at one gateway and looked for at the other.
async fn change_and_list(fleet: &TestFleet, turn: usize) -> Result<()> {
    let [owner, member, other] = fleet.people()?;
    let (here, there) = (turn % 2, (turn + 1) % 2);
    let group = fleet.group_at(&owner, &[&other], here).await?;
    ensure!(listed(fleet, &owner, there).await? == [group], "a group that was made is missing in the list");
    let (path, api) = (format!("conversations/{}", group.as_uuid()), fleet.api(&owner, here));
    ensure!(fleet.api(&owner, there).listed(group).await?.version == 1);
    let body = json!({ "user_ids": [member.id] });
    ensure!(api.post(&format!("{path}/participants"), &body).await?.status == 200);
    ensure!(fleet.api(&owner, there).listed(group).await?.version == 2, "an added user is missing");
    ensure!(api.put(&format!("{path}/mute"), &Mute::ForGood).await?.status == 204);
    ensure!(fleet.api(&owner, there).listed(group).await?.mute.is_some(), "a mute is missing");
    ensure!(api.delete(&format!("{path}/participants/{}", owner.id.as_uuid())).await?.status == 204);
    ensure!(listed(fleet, &owner, there).await?.is_empty(), "a group that was left is in the list");
    let direct = fleet.direct(&owner, &member).await?;
    ensure!(api.put(&format!("blocks/{}", member.id.as_uuid()), &json!({})).await?.status == 204);
    ensure!(fleet.api(&owner, there).listed(direct).await?.is_blocked, "a block is missing");
    Ok(())
}

#[test]
fn r12_1_a_writer_is_shown_every_own_change_at_once_at_another_gateway() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        until_read_from_replica(fleet).await?;
        let before = reads(fleet, FROM_REPLICA).await?;
        for turn in 0..30 {
            change_and_list(fleet, turn).await?;
        }
        ensure!(reads(fleet, FROM_REPLICA).await? > before, "a replica that has the changes is read from");
        let before = reads(fleet, UNREPLAYED).await?;
        set_replay(fleet, false).await?;
        for turn in 0..20 {
            change_and_list(fleet, turn).await?;
        }
        ensure!(reads(fleet, UNREPLAYED).await? > before, "a replica that lacks a change is not read from");
        // A user without a change is shown what others have changed after a while, since the replica is too old then.
        let [asha, bikram] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        eventually("the list without the replica", async || {
            listed(fleet, &asha, 0).await?;
            Ok((reads(fleet, BEHIND).await? > 0).then_some(()))
        })
        .await?;
        ensure!(listed(fleet, &bikram, 1).await? == [group]);
        set_replay(fleet, true).await?;
        until_read_from_replica(fleet).await?;
        change_and_list(fleet, 0).await
    })
}

#[test]
fn r12_1_a_user_who_was_pushed_a_change_finds_it_in_the_list() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        until_read_from_replica(fleet).await?;
        let [bikram] = fleet.people()?;
        let mut pushed = fleet.connect(&bikram, 1).await?;
        for turn in 0..40 {
            if turn == 20 {
                set_replay(fleet, false).await?;
            }
            let [asha] = fleet.people()?;
            let group = fleet.group(&asha, &[&bikram]).await?;
            let change = pushed.change().await?;
            ensure!((change.conversation_id, change.version) == (group, 1));
            ensure!(
                listed(fleet, &bikram, 1).await?.contains(&group),
                "a group that was pushed is missing in the list"
            );
            let path = format!("conversations/{}/participants/{}", group.as_uuid(), bikram.id.as_uuid());
            ensure!(fleet.api(&asha, 0).delete(&path).await?.status == 204);
            pushed.change().await?;
            ensure!(!listed(fleet, &bikram, 1).await?.contains(&group), "the list has a group after a pushed removal");
            ensure!(answer(fleet, &bikram, 1, &format!("conversations/{}", group.as_uuid())).await?.status == 404);
        }
        ensure!(reads(fleet, UNREPLAYED).await? > 0);
        set_replay(fleet, true).await
    })
}

#[test]
fn r12_1_history_has_what_was_just_accepted_and_the_log_says_who_reads_it() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        until_read_from_replica(fleet).await?;
        let [asha, bikram] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        fleet.api(&asha, 0).say(group, &said(1)).await?;
        database::wait_until_stored(&fleet.urls().postgres, group, 1).await?;
        set_replay(fleet, false).await?;
        let before = reads(fleet, FROM_REPLICA).await?;
        for number in 2..=20 {
            fleet.api(&asha, 0).say(group, &said(number)).await?;
            let page = fleet.api(&bikram, 1).history(group, "limit=100").await?;
            ensure!(page.messages.iter().map(|message| message.seq.0).eq(1..=number), "a page has a hole");
        }
        ensure!(reads(fleet, FROM_REPLICA).await? > before, "history is read from a replica that lacks messages");
        // The replica has the user in the group still.
        let path = format!("conversations/{}/participants/{}", group.as_uuid(), bikram.id.as_uuid());
        ensure!(fleet.api(&asha, 0).delete(&path).await?.status == 204);
        let history = format!("conversations/{}/messages", group.as_uuid());
        ensure!(fleet.api(&bikram, 1).get(&history).await?.status == 404, "a removed user reads history");
        // Without the log only the primary says who takes part.
        let nats = &fleet.servers().context("the fleet has its own servers")?.nats;
        database::wait_until_stored(&fleet.urls().postgres, group, 20).await?;
        set_replay(fleet, true).await?;
        until_read_from_replica(fleet).await?;
        nats.stop().await?;
        ensure!(fleet.api(&bikram, 1).get(&history).await?.status == 404, "a removed user reads history");
        ensure!(fleet.api(&asha, 1).history(group, "limit=100").await?.messages.len() == 20);
        ensure!(reads(fleet, RIGHTS).await? > 0);
        nats.start().await
    })
}

/// Asks for lists and pages of history until it is told to stop; how many.
async fn read_on(fleet: &TestFleet, person: &Person, group: ConversationId, is_over: &AtomicBool) -> Result<usize> {
    let history = format!("conversations/{}/messages?limit=20", group.as_uuid());
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return Ok(turn);
        }
        for path in ["conversations", "unread", &history] {
            let answer = answer(fleet, person, turn % 2, path).await?;
            ensure!(answer.status == 200, "{path} is answered {}", answer.code());
        }
    }
    Ok(0)
}

#[test]
fn r12_1_a_replica_that_is_killed_paused_restarted_or_promoted_fails_no_request() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        for number in 1..=30 {
            fleet.api(&asha, 0).say(group, &said(number)).await?;
        }
        until_read_from_replica(fleet).await?;
        let (replica, is_over) = (replica(fleet)?, AtomicBool::new(false));
        let breaking = async {
            for _ in 0..2 {
                replica.kill().await?;
                change_and_list(fleet, 0).await?;
                replica.start().await?;
                until_read_from_replica(fleet).await?;
                replica.pause()?;
                change_and_list(fleet, 1).await?;
                replica.resume()?;
                until_read_from_replica(fleet).await?;
            }
            database::execute(&replica.url(), "select pg_promote()").await?;
            // What it has from now on is its own.
            for turn in 0..10 {
                change_and_list(fleet, turn).await?;
            }
            is_over.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        let reading = async {
            let read = tokio::join!(read_on(fleet, &asha, group, &is_over), read_on(fleet, &bikram, group, &is_over));
            Ok(read.0? + read.1?)
        };
        let ((), turns) = tokio::try_join!(breaking, reading)?;
        ensure!(turns > 20, "lists and history were asked for only {turns} times");
        Ok(())
    })
}

/// What `--check-config` of a gateway prints with other addresses of replicas.
async fn checked(fleet: &TestFleet, urls: &str) -> Result<(bool, String)> {
    let changes = [("CHAT_POSTGRES_REPLICA_URLS", urls), ("CHAT_METRICS_LISTEN", "127.0.0.1:0")];
    let check = fleet.gateway(0).process().beside("check-config", &["--check-config"], &changes);
    check.start()?;
    let status = in_time("the check", check.exited()).await??;
    let lines = std::fs::read_to_string(check.log())?;
    std::fs::remove_file(check.log())?;
    Ok((status.success(), lines))
}

#[test]
fn r12_1_check_config_tells_whether_a_replica_follows_the_primary() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        let set = |name: &str| {
            let set = fleet.gateway(0).process().env().iter().find(|(variable, _)| variable == name);
            set.map(|(_, value)| value.clone()).context("the gateway has the setting")
        };
        let (primary, replicas) = (set("CHAT_POSTGRES_URL")?, set("CHAT_POSTGRES_REPLICA_URLS")?);
        let (is_right, lines) = checked(fleet, &replicas).await?;
        ensure!(is_right && lines.contains("follows the primary"), "{lines}");
        let (is_right, lines) = checked(fleet, &format!("{replicas}, {primary}")).await?;
        ensure!(!is_right && lines.contains("replica 1 of PostgreSQL") && lines.contains("is a primary"), "{lines}");
        set_replay(fleet, false).await?;
        fleet.direct(&fleet.person()?, &fleet.person()?).await?;
        let (is_right, lines) = checked(fleet, &replicas).await?;
        ensure!(is_right && lines.contains("5000 ms behind"), "{lines}");
        set_replay(fleet, true).await?;
        replica(fleet)?.stop().await?;
        let (is_right, lines) = checked(fleet, &replicas).await?;
        ensure!(!is_right && lines.contains("out of reach"), "{lines}");
        Ok(())
    })
}

#[test]
fn r12_1_an_export_is_read_from_a_replica_and_goes_on_without_it() -> Result<()> {
    on_own_fleet(Setup::default().with_replicas(1), async |fleet| {
        until_read_from_replica(fleet).await?;
        let [asha, bikram] = fleet.people()?;
        let group = fleet.group(&asha, &[&bikram]).await?;
        for number in 1..=20 {
            let sender = if number % 2 == 1 { &asha } else { &bikram };
            fleet.api(sender, 0).say(group, &said(number)).await?;
        }
        database::wait_until_stored(&fleet.urls().postgres, group, 20).await?;
        let export = async |gateway: usize| {
            let (base, token) =
                (fleet.gateway(gateway).internal_url(), fleet.kaha().service_tokens().token(&[SCOPE_EXPORT])?);
            let url = format!("{base}/internal/v1/users/{}/export", asha.id.as_uuid());
            let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await?;
            ensure!(answer.status() == 200, "an export is answered {}", answer.status());
            let lines = answer.text().await?;
            let lines = lines.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
            ensure!(lines.first().is_some_and(|line| line["type"] == "user"));
            ensure!(lines.last().is_some_and(|line| line["type"] == "end"));
            let messages = lines.into_iter().filter(|line| line["type"] == "message");
            let texts = messages.map(|line| line.get("text").and_then(Value::as_str).map(str::to_owned));
            anyhow::Ok(texts.collect::<Vec<_>>())
        };
        let expected: Vec<_> = (1..=20).map(|number| (number % 2 == 1).then(|| said(number))).collect();
        let before = reads(fleet, FROM_REPLICA).await?;
        for gateway in [0, 1] {
            ensure!(export(gateway).await? == expected);
        }
        ensure!(reads(fleet, FROM_REPLICA).await? >= before + 4, "conversations and messages come from the replica");
        replica(fleet)?.kill().await?;
        for gateway in [0, 1] {
            ensure!(export(gateway).await? == expected, "an export without the replica");
        }
        replica(fleet)?.start().await
    })
}
