//! What services refuse to start with, and what they say then: an operator has to know what to do next.

mod check_config;
mod refusals;
mod scene;

use anyhow::{Context, Result, ensure};
use chat_dev::{
    fleet::{Role, Service},
    test_servers::TestServers,
};
use chat_e2e::{Setup, TestFleet, database, in_time, on_own_fleet, said};
use chat_shared::log::{self, stream_name};

/// Starts a service that must refuse; what it says.
async fn refusal(service: &Service) -> Result<String> {
    let before = std::fs::read(service.log())?.len();
    service.start()?;
    let status = in_time("the end of a service that refuses to start", service.process().exited()).await??;
    ensure!(!status.success(), "{} ended with success", service.name());
    ensure!(status.code().is_some(), "{} did not end by itself: {status}", service.name());
    let said = std::fs::read(service.log())?;
    Ok(String::from_utf8_lossy(&said[before..]).into_owned())
}

/// The services that use the database, stopped.
async fn stopped(fleet: &TestFleet) -> Result<Vec<&Service>> {
    let services = vec![fleet.gateway(0), fleet.gateway(1), fleet.persister(), fleet.retention()];
    for service in &services {
        service.stop().await?;
    }
    Ok(services)
}

async fn start_again(services: Vec<&Service>) -> Result<()> {
    for service in services.into_iter().rev() {
        service.start_ready().await?;
    }
    Ok(())
}

#[test]
fn r10_4_a_database_that_is_not_migrated_is_refused_with_the_command_that_helps() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let url = &fleet.urls().postgres;
        let services = stopped(fleet).await?;
        for (hide, show) in [
            (
                "create table hidden as select * from _sqlx_migrations where version = 2;
                 delete from _sqlx_migrations where version = 2",
                "insert into _sqlx_migrations select * from hidden; drop table hidden",
            ),
            ("alter table _sqlx_migrations rename to hidden", "alter table hidden rename to _sqlx_migrations"),
        ] {
            database::execute(url, hide).await?;
            for service in &services {
                let said = refusal(service).await?;
                assert!(said.contains("chat-retention migrate"), "{} says: {said}", service.name());
            }
            database::execute(url, show).await?;
        }
        start_again(services).await
    })
}

#[tokio::test]
async fn r10_4_r1_3_ids_are_stored_as_uuids() -> Result<()> {
    let url = TestServers::from_env()?.isolated().await?.postgres;
    let is_id = "table_schema = 'public'
        and column_name in ('conversation_id', 'user_id', 'message_id', 'sender_id', 'last_message_id')";
    let columns = format!("select count(*) from information_schema.columns where {is_id}");
    assert!(database::count(&url, &columns).await? >= 8, "the columns are found");
    assert_eq!(database::count(&url, &format!("{columns} and data_type <> 'uuid'")).await?, 0);
    Ok(())
}

#[test]
fn promise_3_a_log_that_was_lost_is_refused_with_the_command_that_accepts_it() -> Result<()> {
    on_own_fleet(Setup::default(), async |fleet| {
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        for number in 1..=3 {
            fleet.api(&asha, 0).say(conversation_id, &said(number)).await?;
        }
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 3).await?;
        fleet.notifier().stop().await?;
        fleet.gateway(0).stop().await?;
        fleet.gateway(1).stop().await?;
        fleet.persister().stop().await?;
        let nats = log::connect(&fleet.urls().nats, "test", |_| {}).await?;
        async_nats::jetstream::new(nats).delete_stream(stream_name(fleet.namespace())).await?;

        for service in [fleet.gateway(0), fleet.persister()] {
            let said = refusal(service).await?;
            assert!(said.contains("chat-persister forget-log"), "{} says: {said}", service.name());
        }
        // Accepting the loss is what the message says, and then numbers go on after what was kept.
        let program = TestServers::from_env()?.programs;
        let forget = tokio::process::Command::new(program.of(Role::Persister))
            .args(["forget-log", "--yes", "--namespace", fleet.namespace()])
            .args(["--postgres-url", &fleet.urls().postgres])
            .output()
            .await
            .context("running chat-persister forget-log")?;
        ensure!(forget.status.success(), "{}", String::from_utf8_lossy(&forget.stderr));
        fleet.persister().start_ready().await?;
        fleet.notifier().start_ready().await?;
        fleet.gateway(0).start_ready().await?;
        fleet.gateway(1).start_ready().await?;
        assert_eq!(fleet.api(&bikram, 1).say(conversation_id, &said(4)).await?.seq.0, 4);
        let page = fleet.api(&asha, 0).history(conversation_id, "").await?;
        assert!(page.messages.iter().map(|message| message.seq.0).eq(1..=4));
        database::wait_until_stored(&fleet.urls().postgres, conversation_id, 4).await
    })
}

#[test]
fn r10_5_a_redis_that_is_too_small_is_named_and_chat_goes_on() -> Result<()> {
    let setup = Setup::default().with_own_servers().with_fault("inboxes need 256 MB");
    on_own_fleet(setup, async |fleet| {
        let client = redis::Client::open(fleet.urls().redis.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", "100mb"]).exec_async(&mut connection).await?;
        for service in [fleet.gateway(0), fleet.notifier()] {
            service.stop().await?;
            service.start_ready().await?;
            chat_e2e::eventually("the service's word about Redis", || async {
                let said = String::from_utf8_lossy(&std::fs::read(service.log())?).into_owned();
                Ok(said.contains("limited to 100 MB").then_some(()))
            })
            .await?;
        }
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut reader = fleet.connect(&bikram, 1).await?;
        fleet.api(&asha, 0).say(conversation_id, &said("hello")).await?;
        reader.expect([1]).await?;
        Ok(())
    })
}

#[test]
fn r10_5_services_start_without_redis_and_say_so() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let redis = &fleet.servers().context("the fleet has its own servers")?.redis;
        redis.kill().await?;
        for (service, words) in
            [(fleet.gateway(0), "chat goes on without Redis"), (fleet.notifier(), "events go to all gateways now")]
        {
            service.stop().await?;
            let before = std::fs::read(service.log())?.len();
            service.start_ready().await?;
            chat_e2e::eventually("the service's word about Redis", || async {
                let said = std::fs::read(service.log())?;
                Ok(String::from_utf8_lossy(&said[before..]).contains(words).then_some(()))
            })
            .await?;
        }
        let [asha, bikram] = fleet.people()?;
        let conversation_id = fleet.direct(&asha, &bikram).await?;
        let mut reader = fleet.connect(&bikram, 1).await?;
        fleet.api(&asha, 0).say(conversation_id, &said("hello")).await?;
        reader.expect([1]).await?;
        redis.start().await
    })
}
