//! R3.1, R3.2 and R9: names and pictures are in Redis and with clients, and nowhere else.

use anyhow::{Context, Result, ensure};
use chat_dev::{
    kaha::{Behaviour, Fault, PROFILE_MARK},
    push_services::APP_IDS,
};
use chat_e2e::{Person, Setup, TestFleet, database, eventually, on_own_fleet, said, traces};
use chat_shared::{
    ids::{BusinessId, DeviceId, UserId},
    limits,
    wire::{Encoding, NotificationAddress, Platform, ProfileState, RegisterDevice, StaffRole},
};
use serde_json::{Value, json};

use crate::view;

/// People come, write, are renamed, are away and notified; an agent answers a customer; kaha-main-v3 answers, is wrong and is
/// down.
async fn busy_day(fleet: &TestFleet) -> Result<Person> {
    let [asha, bikram, chandra, agent] = fleet.people()?;
    let direct = fleet.direct(&asha, &bikram).await?;
    let group = fleet.group(&asha, &[&bikram, &chandra]).await?;
    let address = NotificationAddress::Webhook { token: "a-phone".to_owned() };
    let device = RegisterDevice { address, app_id: APP_IDS[0].to_owned(), locale: None };
    let path = format!("devices/{}", DeviceId::random().as_uuid());
    fleet.api(&chandra, 0).put(&path, &device).await?.ok::<Value>()?;
    let mut socket = fleet.ready_socket(&bikram, 1, Encoding::Json).await?;
    for gateway in [0, 1] {
        let api = fleet.api(&asha, gateway);
        view::known(&api, &[asha.id, bikram.id, chandra.id]).await?;
        view::list(&api, 50).await?;
        api.say(direct, &said("directly")).await?;
        api.say(group, &said("to the group")).await?;
        view::shown(&api, &[asha.id], &[BusinessId::random()]).await?;
    }
    let business_id = fleet.business(&[(&agent, StaffRole::Agent)]).await?;
    let case = fleet.business_conversation(&asha, business_id).await?;
    fleet.api(&asha, 0).say(case, &said("to a business")).await?;
    let (desk, inbox) = (fleet.api(&agent, 1), format!("businesses/{}", business_id.as_uuid()));
    desk.post(&format!("{inbox}/claim"), &json!({})).await?.ok::<Value>()?;
    desk.get(&format!("{inbox}/conversations?state=assigned")).await?.ok::<Value>()?;
    desk.say(case, &said("to a customer")).await?;
    let id = asha.id.as_uuid();
    fleet.kaha().profiles().set_user(id, &format!("Asha {PROFILE_MARK} Newname"), None);
    fleet.change_profiles(0, &[id], &[]).await?;
    while view::pushed(&mut socket, asha.id).await?.name != view::name_of(fleet, asha.id)? {}
    fleet.kaha().behave(Behaviour::Wrong(Fault::DamagedEntries));
    view::shown(&fleet.api(&asha, 0), &[UserId::random()], &[]).await?;
    fleet.kaha().behave(Behaviour::Down);
    view::shown(&fleet.api(&asha, 1), &[UserId::random()], &[]).await?;
    fleet.kaha().behave(Behaviour::Normal);
    fleet
        .push_services()
        .wait_for("a notification of the group", |received| received.iter().find(|it| it.is_alert).map(|_| ()))
        .await?;
    let url = &fleet.urls().postgres;
    for conversation_id in [direct, group, case] {
        database::wait_until_stored(url, conversation_id, 2).await?;
    }
    Ok(asha)
}

#[test]
fn r3_1_r3_2_r9_no_profile_is_in_a_table_a_log_or_a_metric() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let person = busy_day(fleet).await?;
        let url = &fleet.urls().postgres;
        let mark = PROFILE_MARK;
        let hex = mark.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let tables = database::tables(url).await?;
        ensure!(tables.iter().any(|table| table.contains("messages_")), "partitions are searched too: {tables:?}");
        let mut seen_at_all = false;
        for table in &tables {
            let rows_with = async |text: &str| {
                let statement = format!("select count(*) from {table} it where it::text ilike '%{text}%'");
                database::count(url, &statement).await
            };
            assert_eq!(rows_with(mark).await?, 0, "a profile is in {table}");
            assert_eq!(rows_with(&hex).await?, 0, "a profile is in {table}, as bytes");
            seen_at_all |= rows_with(&person.id.as_uuid().to_string()).await? > 0;
        }
        assert!(seen_at_all, "the search finds what is there");

        // Nor in what servers write to the disk: write-ahead logs, the log of events, the queue of notifications.
        let servers = fleet.servers().context("the fleet has its own servers")?;
        database::execute(url, "checkpoint").await?;
        for directory in [servers.postgres.data_dir(), servers.nats.data_dir()] {
            let found = traces::files_with(directory, mark.as_bytes())?;
            assert_eq!(found, [] as [std::path::PathBuf; 0], "a profile is in {}", directory.display());
        }
        assert!(
            view::stored(fleet).await?.iter().any(|(_, value)| value.contains(mark)),
            "Redis has them, for a while"
        );

        for log in fleet.logs()? {
            let text = String::from_utf8_lossy(&std::fs::read(&log)?).to_lowercase();
            assert!(!text.contains(&mark.to_lowercase()), "a profile is in {}", log.display());
        }
        for service in fleet.services() {
            let metrics = service.metrics().await?.to_lowercase();
            assert!(!metrics.contains(&mark.to_lowercase()), "a profile is in the metrics of {}", service.name());
        }
        for received in fleet.push_services().received(Platform::Webhook) {
            assert!(!received.payload.to_string().contains(mark), "a profile is in a notification");
        }
        Ok(())
    })
}

#[test]
fn r11_2_profiles_in_redis_end_by_themselves() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        view::user_in(&fleet.api(&asha, 0), bikram.id, ProfileState::Current).await?;
        let client = redis::Client::open(fleet.urls().redis.as_str())?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let kept = eventually("a profile in Redis", || async {
            Ok(Some(view::stored(fleet).await?).filter(|stored| !stored.is_empty()))
        })
        .await?;
        for (key, _) in kept {
            let left_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await?;
            let max_ms = i64::try_from((limits::PROFILE_FRESH + limits::PROFILE_STALE).as_millis())?;
            assert!((1..=max_ms).contains(&left_ms), "{left_ms} ms are left of a profile");
        }
        Ok(())
    })
}
