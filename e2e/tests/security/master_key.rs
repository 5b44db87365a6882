//! The exchange of the master key, as docs/operations.md says it step by step.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context, Result, ensure};
use chat_dev::{
    fleet::{READY_DEADLINE, Role, Service},
    push_services::APP_IDS,
    servers::Login,
    test_servers::TestServers,
};
use chat_e2e::{Api, Setup, TestFleet, database, eventually, in_time, on_own_fleet, said};
use chat_shared::{
    ids::{ConversationId, DeviceId, UserId},
    sealing::{MasterKey, MasterKeys},
    wire::{DeviceList, NotificationAddress},
};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio::process::Command;

/// Logged by a gateway that is started with the old master key alone.
const UNOPENED: &str = "content keys don't open";
/// More devices than `rewrap` changes in one statement.
const DEVICES: usize = 600;
const NEW_KEY: &str = "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldyE=";
const WRONG_KEY: &str = "d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmchd3I=";

/// Files with master keys: the old one, the new one, and a wrong one.
struct Keys {
    old: PathBuf,
    new: PathBuf,
    wrong: PathBuf,
}

impl Keys {
    fn of(fleet: &TestFleet) -> Result<Self> {
        let directory = fleet.dir().join("keys");
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        let (new, wrong) = (file("new.key", NEW_KEY)?, file("wrong.key", WRONG_KEY)?);
        Ok(Self { old: directory.join("master.key"), new, wrong })
    }
}

/// Starts a service again with these master keys.
async fn restart(service: &Service, current: &Path, old: Option<&Path>) -> Result<()> {
    service.stop().await?;
    give(service, current, old);
    service.start_ready().await
}

fn give(service: &Service, current: &Path, old: Option<&Path>) {
    let old = old.map(|path| path.display().to_string());
    service.process().set("CHAT_MASTER_KEY_FILE", Some(&current.display().to_string()));
    service.process().set("CHAT_MASTER_KEY_OLD_FILE", old.as_deref());
}

/// In the order of docs/operations.md.
async fn restart_all(fleet: &TestFleet, current: &Path, old: Option<&Path>) -> Result<()> {
    for service in [fleet.notifier(), fleet.gateway(0), fleet.gateway(1), fleet.retention()] {
        restart(service, current, old).await?;
    }
    Ok(())
}

fn rewrap(fleet: &TestFleet, current: &Path, old: Option<&Path>) -> Result<Command> {
    let mut command = Command::new(TestServers::from_env()?.programs.of(Role::Retention));
    command.arg("rewrap").env_clear().kill_on_drop(true);
    command.env("CHAT_POSTGRES_URL", fleet.urls().of(Login::Owner).postgres).env("CHAT_MASTER_KEY_FILE", current);
    if let Some(old) = old {
        command.env("CHAT_MASTER_KEY_OLD_FILE", old);
    }
    Ok(command)
}

/// Runs `rewrap` to its end: whether it succeeds, and its output.
async fn rewrapped(fleet: &TestFleet, current: &Path, old: Option<&Path>) -> Result<(bool, String)> {
    let Output { status, stdout, stderr } =
        in_time("the end of rewrap", rewrap(fleet, current, old)?.output()).await??;
    Ok((status.success(), [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()))
}

async fn register(api: &Api, token: &str) -> Result<()> {
    let device = json!({ "platform": "webhook", "token": token, "app_id": APP_IDS[0] });
    let answer = api.put(&format!("devices/{}", DeviceId::random().as_uuid()), &device).await?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

async fn devices(api: &Api) -> Result<usize> {
    let list: DeviceList = api.get("devices").await?.ok()?;
    Ok(list.devices.len())
}

/// Registers devices of users who never come, as gateways with the old key did.
async fn fill(fleet: &TestFleet, keys: &Keys) -> Result<()> {
    let keys = MasterKeys::from(MasterKey::parse(&std::fs::read_to_string(&keys.old)?)?);
    let mut rows = Vec::new();
    for number in 0..DEVICES {
        let (user_id, device_id) = (UserId::random(), DeviceId::random());
        let address = NotificationAddress::Webhook { token: format!("nobody-{number}") };
        let sealed = keys.seal_address(user_id, device_id, &address)?;
        rows.push(format!(
            "('{}', '{}', 'webhook', 'app', '\\x{}', '\\x{}', now())",
            user_id.as_uuid(),
            device_id.as_uuid(),
            hex(&sealed.address)?,
            hex(&sealed.fingerprint)?
        ));
    }
    let columns = "user_id, device_id, platform, app_id, address, fingerprint, registered_at";
    let statement = format!("insert into notification_devices ({columns}) values {}", rows.join(", "));
    database::execute(&fleet.urls().postgres, &statement).await
}

fn hex(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// Sends a message and waits for its notification on the phone of the recipient.
async fn talk(fleet: &TestFleet, from: &Api, id: ConversationId, token: &str, text: &str) -> Result<()> {
    let wanted = from.say(id, &said(text)).await?.message_id.as_uuid().to_string();
    let is_it = |received: &chat_dev::push_services::Received| {
        received.token == token && received.message_id.as_ref() == Some(&wanted)
    };
    fleet.push_services().wait_for("a notification", |all| all.iter().any(is_it).then_some(())).await
}

async fn texts(api: &Api, id: ConversationId) -> Result<Vec<String>> {
    let page = api.history(id, "").await?;
    Ok(page.messages.into_iter().map(|message| message.text).collect())
}

#[test]
fn r1_5_the_master_key_is_exchanged_while_everything_runs_and_back_again() -> Result<()> {
    on_own_fleet(Setup::default().with_fault(UNOPENED), async |fleet| {
        let (url, keys) = (&fleet.urls().postgres, Keys::of(fleet)?);
        let [asha, bikram] = fleet.people()?;
        let [first, second] = [0, 1].map(|gateway| [fleet.api(&asha, gateway), fleet.api(&bikram, gateway)]);
        let id = fleet.direct(&asha, &bikram).await?;
        register(&first[1], "phone").await?;
        fill(fleet, &keys).await?;
        talk(fleet, &first[0], id, "phone", "before").await?;
        database::wait_until_stored(url, id, 1).await?;

        // Both keys, but in the second gateway, which is left behind.
        for service in [fleet.notifier(), fleet.gateway(0), fleet.retention()] {
            restart(service, &keys.new, Some(keys.old.as_path())).await?;
        }
        talk(fleet, &first[0], id, "phone", "with both").await?;
        register(&first[1], "tablet").await?;
        register(&second[0], "tablet").await?;
        let both = (devices(&first[0]).await?, devices(&first[1]).await?);
        ensure!(both == (1, 2), "a gateway with the old key alone does not find the tablet of before: {both:?}");

        let (is_ok, words) = rewrapped(fleet, &keys.new, Some(keys.wrong.as_path())).await?;
        ensure!(!is_ok && words.contains("content keys: 0 wrapped anew, 0 were already, 16 don't open"), "{words}");
        ensure!(words.contains("addresses of devices: 0 sealed anew, 1 were already, 602 don't open"), "{words}");
        ensure!(words.contains("error: 16 content keys and 602 addresses"), "{words}");
        interrupt(fleet, &keys).await?;

        let (is_ok, words) = rewrapped(fleet, &keys.new, Some(keys.old.as_path())).await?;
        ensure!(is_ok && words.contains("content keys: 0 wrapped anew, 16 were already, 0 don't open"), "{words}");
        ensure!(words.contains("0 don't open") && words.contains("can be removed from all settings"), "{words}");
        let owners = (devices(&first[0]).await?, devices(&first[1]).await?);
        ensure!(owners == (1, 1), "the tablet belongs to the one who registered it last: {owners:?}");

        // The one that was left behind goes on with the keys that it has opened, until it is started again.
        talk(fleet, &second[0], id, "phone", "left behind").await?;
        ensure!(texts(&second[1], id).await? == ["before", "with both", "left behind"].map(said));
        let left = fleet.gateway(1);
        left.stop().await?;
        left.start()?;
        eventually("a complaint", || async {
            let log = std::fs::read_to_string(left.log()).context("reading the log")?;
            Ok(log.contains(UNOPENED).then_some(()))
        })
        .await?;
        ensure!(!left.is_ready().await, "it opens nothing");

        restart_all(fleet, &keys.new, None).await?;
        talk(fleet, &second[0], id, "phone", "afterwards").await?;
        let all = ["before", "with both", "left behind", "afterwards"].map(said);
        ensure!(texts(&first[1], id).await? == all && texts(&second[1], id).await? == all);
        let (is_ok, words) = rewrapped(fleet, &keys.new, None).await?;
        ensure!(
            is_ok && words.contains("addresses of devices: 0 sealed anew, 602 were already, 0 don't open"),
            "{words}"
        );

        // And back.
        restart_all(fleet, &keys.old, Some(keys.new.as_path())).await?;
        let (is_ok, words) = rewrapped(fleet, &keys.old, Some(keys.new.as_path())).await?;
        ensure!(is_ok && words.contains("content keys: 16 wrapped anew, 0 were already, 0 don't open"), "{words}");
        restart_all(fleet, &keys.old, None).await?;
        talk(fleet, &first[0], id, "phone", "back").await?;
        ensure!(texts(&second[1], id).await?.len() == 5);
        for service in fleet.services() {
            service.wait_ready(READY_DEADLINE).await?;
        }
        Ok(())
    })
}

/// Kills a `rewrap` when some devices are done and others are not.
async fn interrupt(fleet: &TestFleet, keys: &Keys) -> Result<()> {
    let url = &fleet.urls().postgres;
    database::execute(url, "create table kept as select user_id, device_id, fingerprint from notification_devices")
        .await?;
    // The last device of all is held, so that the last statement waits.
    let mut holder = PgConnection::connect(url).await?;
    let mut holding = holder.begin().await?;
    holding
        .execute("select from notification_devices order by user_id desc, device_id desc limit 1 for update")
        .await?;
    let mut running = rewrap(fleet, &keys.new, Some(keys.old.as_path()))?.spawn()?;
    eventually("a rewrap that waits", || async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                       and application_name = 'chat-retention rewrap' and wait_event_type = 'Lock'";
        Ok((database::count(url, waiting).await? == 1).then_some(()))
    })
    .await?;
    running.kill().await?;
    // PostgreSQL would carry the statement out after the lock is released, though its client is gone.
    let connected =
        "pg_stat_activity where datname = current_database() and application_name = 'chat-retention rewrap'";
    database::count(url, &format!("select count(pg_terminate_backend(pid)) from {connected}")).await?;
    eventually("the end of its statement", || async {
        Ok((database::count(url, &format!("select count(*) from {connected}")).await? == 0).then_some(()))
    })
    .await?;
    holding.rollback().await?;
    let changed = "select count(*) from kept join notification_devices now using (user_id, device_id)
                   where now.fingerprint <> kept.fingerprint";
    let changed = database::count(url, changed).await?;
    // The second batch changes nothing, or, if it holds the tablet that two users registered, all but the locked device.
    ensure!(
        (400..=DEVICES + 1).contains(&usize::try_from(changed)?),
        "{changed} devices are changed, not a part of them"
    );
    database::execute(url, "drop table kept").await
}
