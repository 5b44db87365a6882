//! Tests with a real PostgreSQL: what is prepared, twice at once, and what is refused.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use chat_dev::{
    paths,
    ports::Ports,
    servers::{Durability, Login, Postgres, Urls, postgres::copy_database},
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    clock::{Clock, Day, Timestamp},
    postgres,
    sealing::{MasterKey, MasterKeys},
    settings::PostgresSettings,
    telemetry::Latch,
};
use sqlx::PgPool;
use time::Date;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    keys::KeysFailed,
    migrate::migrate,
    prepare::{PreparationFailed, prepare},
    worker::Worker,
};

const DEADLINE: Duration = Duration::from_mins(1);
const TODAY: Day = Day(20_500);
/// Yesterday, today, and as many days ahead as are prepared.
const PARTITIONS: usize = 16;
const KEYS: usize = PARTITIONS;

fn noon() -> Timestamp {
    Timestamp(TODAY.start().0 + 43_200_000)
}

fn master_key(byte: u8) -> MasterKeys {
    MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap().into()
}

fn settings(postgres_url: String) -> PostgresSettings {
    PostgresSettings::new(postgres_url, 4)
}

fn connect(settings: &PostgresSettings) -> PgPool {
    postgres::connect(settings, "test").unwrap()
}

/// As retention.
async fn migrated() -> PgPool {
    connect(&settings(isolated().await.of(Login::Retention).postgres))
}

async fn isolated() -> Urls {
    TestServers::from_env().unwrap().isolated().await.unwrap()
}

/// The address of a database that isn't there.
fn missing(servers: &TestServers) -> (String, PostgresSettings) {
    let name = unique_namespace();
    let (server, _) = servers.postgres_url.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}");
    (name, settings(url))
}

async fn partitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar!(
        r#"select inhrelid::regclass::text as "name!" from pg_inherits
           where inhparent = 'messages'::regclass order by 1"#
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn key_days(pool: &PgPool) -> Vec<Day> {
    let days = sqlx::query_scalar!("select day from content_keys order by day").fetch_all(pool).await.unwrap();
    days.into_iter().map(Day::from).collect()
}

#[tokio::test]
async fn the_coming_days_are_prepared_and_a_repeat_finds_nothing_to_do() {
    let pool = migrated().await;
    let clock = Clock::fixed(noon());
    let first = prepare(&pool, &clock, &master_key(1)).await.unwrap();
    assert_eq!((first.partitions_made, first.keys_made), (PARTITIONS, KEYS));
    let again = prepare(&pool, &clock, &master_key(1)).await.unwrap();
    assert_eq!((again.partitions_made, again.keys_made), (0, 0));
    let tomorrow = Clock::fixed(TODAY.plus(1).start());
    let next = prepare(&pool, &tomorrow, &master_key(1)).await.unwrap();
    assert_eq!((next.partitions_made, next.keys_made), (1, 1), "one of each a day");
    assert_eq!(key_days(&pool).await, (-1..=15).map(|days| TODAY.plus(days)).collect::<Vec<_>>());
    let partitions = partitions(&pool).await;
    assert_eq!(partitions.first().unwrap(), &partition_name(TODAY.plus(-1)));
    assert_eq!(partitions.last().unwrap(), &partition_name(TODAY.plus(15)));
}

fn partition_name(day: Day) -> String {
    let date = Date::from(day);
    format!("messages_{}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

#[tokio::test]
async fn retention_twice_at_once_makes_everything_once() {
    let pool = migrated().await;
    let (clock, key) = (Clock::fixed(noon()), master_key(1));
    let (one, two, three) =
        tokio::try_join!(prepare(&pool, &clock, &key), prepare(&pool, &clock, &key), prepare(&pool, &clock, &key))
            .unwrap();
    assert_eq!(one.partitions_made + two.partitions_made + three.partitions_made, PARTITIONS);
    assert_eq!(one.keys_made + two.keys_made + three.keys_made, KEYS);
    assert_eq!(partitions(&pool).await.len(), PARTITIONS);
}

#[tokio::test]
async fn another_master_key_is_refused_and_changes_nothing() {
    let pool = migrated().await;
    prepare(&pool, &Clock::fixed(noon()), &master_key(1)).await.unwrap();
    // Weeks later, so that none of the days in question has a key: the last one there is still tells.
    let later = Clock::fixed(TODAY.plus(40).start());
    let error = prepare(&pool, &later, &master_key(2)).await.unwrap_err();
    assert!(matches!(error, PreparationFailed::Keys(KeysFailed::OtherMasterKey { .. })), "{error}");
    assert!(!error.is_transient());
    assert!(error.to_string().contains("CHAT_MASTER_KEY_FILE"), "{error}");
    assert_eq!(key_days(&pool).await.len(), KEYS);
}

#[tokio::test]
async fn a_damaged_key_costs_its_day_only() {
    let urls = isolated().await;
    let pool = connect(&settings(urls.of(Login::Retention).postgres));
    let clock = Clock::fixed(noon());
    prepare(&pool, &clock, &master_key(1)).await.unwrap();
    sqlx::query!(
        "update content_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where day = $1",
        Date::from(TODAY)
    )
    .execute(&connect(&settings(urls.postgres)))
    .await
    .unwrap();
    let tomorrow = Clock::fixed(TODAY.plus(1).start());
    let prepared = prepare(&pool, &tomorrow, &master_key(1)).await.unwrap();
    assert_eq!((prepared.keys_made, prepared.keys_unopened), (1, 1), "the next days' keys are made all the same");
}

#[tokio::test]
async fn migrating_twice_at_once_and_again_is_harmless() {
    let servers = TestServers::from_env().unwrap();
    let (name, settings) = missing(&servers);
    copy_database(&servers.postgres_url, "template1", &name).await.unwrap();
    let pool = connect(&settings);
    assert!(postgres::check(&pool).await.is_err(), "nothing is there yet");
    tokio::try_join!(migrate(&pool, &settings), migrate(&pool, &settings)).unwrap();
    postgres::check(&pool).await.unwrap();
    migrate(&pool, &settings).await.unwrap();
}

/// Whether a role may read texts.
async fn reads_messages(pool: &PgPool, role: &str) -> bool {
    sqlx::query_scalar!(
        r#"select has_column_privilege($1::text::name, 'messages', 'envelope', 'select') as "may!""#,
        role
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn each_migration_takes_back_what_was_granted_besides() {
    let urls = isolated().await;
    let owner = settings(urls.of(Login::Owner).postgres);
    let pool = connect(&owner);
    sqlx::raw_sql("grant select on messages to chat_notifier").execute(&pool).await.unwrap();
    assert!(reads_messages(&pool, "chat_notifier").await);
    migrate(&pool, &owner).await.unwrap();
    assert!(!reads_messages(&pool, "chat_notifier").await);
    let notifier = settings(urls.of(Login::Notifier).postgres);
    let error = migrate(&connect(&notifier), &notifier).await.unwrap_err().to_string();
    assert!(error.contains("the user who owns the tables"), "{error}");
}

#[tokio::test]
async fn without_the_services_roles_the_schema_is_migrated_and_no_right_is_granted() {
    let servers = TestServers::from_env().unwrap();
    let directory = paths::scratch("retention-test").unwrap();
    let own = Postgres::start_in(&servers.binaries, directory.path(), Durability::ThrowAway, &Ports::fresh()).await;
    let own = own.unwrap();
    let settings = settings(own.url());
    let pool = connect(&settings);
    sqlx::raw_sql("drop role chat_notifier_text, chat_notifier_2").execute(&pool).await.unwrap();
    migrate(&pool, &settings).await.unwrap();
    postgres::check(&pool).await.unwrap();
    assert!(!reads_messages(&pool, "chat_gateway").await);
}

#[tokio::test]
async fn the_worker_waits_for_a_database_that_comes_later() {
    let servers = TestServers::from_env().unwrap();
    let (name, settings) = missing(&servers);
    let (prepared, draining, mut tasks) = (Latch::default(), CancellationToken::new(), JoinSet::new());
    let worker = Worker {
        pool: connect(&settings),
        clock: Clock::fixed(noon()),
        master_keys: master_key(1),
        prepared: prepared.clone(),
    };
    tasks.spawn(worker.run(draining.clone()));
    copy_database(&servers.postgres_url, &servers.postgres_template, &name).await.unwrap();
    wait::until("preparing", DEADLINE, async || Ok(prepared.is_set().then_some(()))).await.unwrap();
    draining.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(key_days(&connect(&settings)).await.len(), KEYS);
}

#[tokio::test]
async fn the_worker_ends_with_a_database_that_was_not_migrated() {
    let servers = TestServers::from_env().unwrap();
    let (name, settings) = missing(&servers);
    copy_database(&servers.postgres_url, "template1", &name).await.unwrap();
    let worker = Worker {
        pool: connect(&settings),
        clock: Clock::fixed(noon()),
        master_keys: master_key(1),
        prepared: Latch::default(),
    };
    let error = worker.run(CancellationToken::new()).await.unwrap_err();
    assert!(format!("{error:#}").contains("chat-retention migrate"), "{error:#}");
}
