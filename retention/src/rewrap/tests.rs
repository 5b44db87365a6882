//! The exchange of the master key in a real PostgreSQL: complete, repeated, back, with wrong keys and damaged rows.

use base64::{Engine, engine::general_purpose::STANDARD};
use chat_dev::{servers::Login, test_servers::TestServers};
use chat_shared::{
    clock::{Clock, Day, Timestamp},
    ids::{DeviceId, UserId},
    postgres,
    sealing::{MasterKey, MasterKeys, WrappedKey},
    settings::PostgresSettings,
    wire::NotificationAddress,
};
use sqlx::PgPool;
use time::{Date, OffsetDateTime};

use super::{RewrapFailed, Rewrapped, Tally, rewrap};
use crate::prepare::prepare;

const TODAY: Day = Day(20_500);
/// Keys that one preparation makes.
const KEYS: u64 = 16;
const OLD: u8 = 1;
const NEW: u8 = 2;

fn only(byte: u8) -> MasterKeys {
    MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap().into()
}

fn both(current: u8, old: u8) -> MasterKeys {
    let [current, old] = [current, old].map(|byte| MasterKey::parse(&STANDARD.encode([byte; 32])).unwrap());
    MasterKeys::new(current, Some(old)).unwrap()
}

/// As the owner of the tables, and as retention.
async fn connected() -> (PgPool, PgPool) {
    let urls = TestServers::from_env().unwrap().isolated().await.unwrap();
    let connect = |login| postgres::connect(&PostgresSettings::new(urls.of(login).postgres, 4), "test").unwrap();
    (connect(Login::Owner), connect(Login::Retention))
}

async fn make_keys(pool: &PgPool, master_keys: &MasterKeys, today: Day) {
    prepare(pool, &Clock::fixed(Timestamp(today.start().0 + 1)), master_keys).await.unwrap();
}

fn address(token: &str) -> NotificationAddress {
    NotificationAddress::Fcm { token: token.to_owned() }
}

/// Registers a device of a new user, as a gateway with these keys does.
async fn register(pool: &PgPool, master_keys: &MasterKeys, token: &str, at: i64) -> UserId {
    let (user_id, device_id) = (UserId::random(), DeviceId::random());
    let sealed = master_keys.seal_address(user_id, device_id, &address(token)).unwrap();
    sqlx::query!(
        "insert into notification_devices (user_id, device_id, platform, app_id, address, fingerprint, registered_at)
         values ($1, $2, 'fcm', 'app', $3, $4, $5)",
        user_id.as_uuid(),
        device_id.as_uuid(),
        sealed.address,
        sealed.fingerprint,
        OffsetDateTime::from_unix_timestamp(at).unwrap(),
    )
    .execute(pool)
    .await
    .unwrap();
    user_id
}

/// The users whose devices open with these keys and are found by their fingerprint.
async fn opened(pool: &PgPool, master_keys: &MasterKeys) -> Vec<UserId> {
    let rows =
        sqlx::query!("select user_id, device_id, address, fingerprint from notification_devices order by user_id")
            .fetch_all(pool)
            .await
            .unwrap();
    let open = rows.into_iter().filter_map(|row| {
        let user_id = UserId::try_from(row.user_id).unwrap();
        let device_id = DeviceId::try_from(row.device_id).unwrap();
        let address = master_keys.open_address(user_id, device_id, &row.address).ok()?;
        master_keys.fingerprints(&address).contains(&row.fingerprint).then_some(user_id)
    });
    open.collect()
}

async fn keys(pool: &PgPool) -> Vec<WrappedKey> {
    let rows = sqlx::query!("select day, master_key_id, wrapped from content_keys order by day")
        .fetch_all(pool)
        .await
        .unwrap();
    let keys = rows.into_iter().map(|row| WrappedKey {
        day: row.day.into(),
        master_key_id: row.master_key_id,
        bytes: row.wrapped,
    });
    keys.collect()
}

fn sorted(mut users: Vec<UserId>) -> Vec<UserId> {
    users.sort_by_key(|user_id| user_id.as_uuid());
    users
}

#[tokio::test]
async fn everything_opens_with_the_new_master_key_alone_afterwards_and_a_repeat_finds_nothing_to_do_r1_5() {
    let (owner, retention) = connected().await;
    make_keys(&retention, &only(OLD), TODAY).await;
    // Both keys are known to retention and gateways, and some seals are new already.
    make_keys(&retention, &both(NEW, OLD), TODAY.plus(2)).await;
    let mut users = Vec::new();
    for number in 0..7 {
        let keys = if number == 3 { both(NEW, OLD) } else { only(OLD) };
        users.push(register(&owner, &keys, &number.to_string(), 1).await);
    }
    let before: Vec<_> = keys(&owner).await;
    let done = rewrap(&owner, &both(NEW, OLD), 2).await.unwrap();
    assert_eq!(done.keys, Tally { anew: KEYS, there: 2 });
    assert_eq!(done.devices, Tally { anew: 6, there: 1 });
    done.conclude(&both(NEW, OLD)).unwrap();
    assert_eq!(opened(&owner, &only(NEW)).await, sorted(users));
    let after = keys(&owner).await;
    assert!(after.iter().all(|key| only(NEW).unwrap(key).is_ok()));
    assert!(before.iter().zip(&after).all(|(before, after)| before.day == after.day));
    make_keys(&retention, &only(NEW), TODAY.plus(3)).await;

    let repeated = rewrap(&owner, &only(NEW), 2).await.unwrap();
    assert_eq!((repeated.keys.anew, repeated.devices), (0, Tally { anew: 0, there: 7 }));
    // And back.
    let back = rewrap(&owner, &both(OLD, NEW), 100).await.unwrap();
    assert_eq!((back.keys.there, back.devices.anew, back.devices_unopened), (0, 7, 0));
    assert!(keys(&owner).await.iter().all(|key| only(OLD).unwrap(key).is_ok()));
}

#[tokio::test]
async fn keys_and_addresses_that_do_not_open_are_reported_and_stop_nothing_else_r1_5() {
    let (owner, retention) = connected().await;
    make_keys(&retention, &only(OLD), TODAY).await;
    sqlx::query!(
        "update content_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where day = $1",
        Date::from(TODAY)
    )
    .execute(&owner)
    .await
    .unwrap();
    let user_id = register(&owner, &only(OLD), "1", 1).await;
    register(&owner, &only(7), "2", 1).await;
    let done = rewrap(&owner, &both(NEW, OLD), 100).await.unwrap();
    assert_eq!(done.keys_unopened, [(TODAY, only(OLD).current().id().to_owned())].into());
    assert_eq!((done.keys.anew, done.devices.anew, done.devices_unopened), (KEYS - 1, 1, 1));
    let error = done.conclude(&both(NEW, OLD)).unwrap_err().to_string();
    assert!(error.starts_with("1 content keys and 1 addresses of devices open with no master key"), "{error}");
    assert_eq!(opened(&owner, &only(NEW)).await, [user_id]);
    // Retention makes the next days' keys all the same, with the old key given or not.
    for (days, master_keys) in [(1, both(NEW, OLD)), (2, only(NEW))] {
        let clock = Clock::fixed(TODAY.plus(days).start());
        let prepared = prepare(&retention, &clock, &master_keys).await.unwrap();
        assert_eq!((prepared.keys_made, prepared.keys_unopened), (1, usize::from(days == 1)));
    }
}

#[tokio::test]
async fn a_wrong_old_key_and_a_user_who_may_not_change_nothing_r1_5() {
    let (owner, retention) = connected().await;
    make_keys(&retention, &only(OLD), TODAY).await;
    register(&owner, &only(OLD), "1", 1).await;
    let before = keys(&owner).await;
    let wrong = rewrap(&owner, &both(NEW, 9), 100).await.unwrap();
    assert_eq!((wrong.keys, wrong.devices), (Tally::default(), Tally::default()));
    assert_eq!((wrong.keys_unopened.len(), wrong.devices_unopened), (before.len(), 1));
    assert!(wrong.conclude(&both(NEW, 9)).is_err());
    let refused = rewrap(&retention, &both(NEW, OLD), 100).await.unwrap_err();
    assert!(matches!(refused, RewrapFailed::NotAllowed(_)), "{refused}");
    assert!(keys(&owner).await == before);
    assert_eq!(opened(&owner, &only(OLD)).await.len(), 1);
}

#[tokio::test]
async fn of_two_registrations_of_one_address_under_both_keys_the_later_one_stays_r1_5() {
    let (owner, _) = connected().await;
    // Each pair: a gateway that knew the old key alone did not find the other registration.
    let mut stay = Vec::new();
    for (token, at_old, at_new) in [("a", 1, 2), ("b", 2, 1), ("c", 3, 3)] {
        let old = register(&owner, &only(OLD), token, at_old).await;
        let new = register(&owner, &both(NEW, OLD), token, at_new).await;
        stay.push(if at_new > at_old { new } else { old });
    }
    stay.push(register(&owner, &only(OLD), "d", 1).await);
    let done = rewrap(&owner, &both(NEW, OLD), 100).await.unwrap();
    assert_eq!((done.devices, done.devices_removed), (Tally { anew: 3, there: 3 }, 3));
    assert_eq!(opened(&owner, &only(NEW)).await, sorted(stay));
    assert_eq!(rewrap(&owner, &only(NEW), 100).await.unwrap().devices, Tally { anew: 0, there: 4 });
    assert_eq!(Rewrapped::default().keys, done.keys);
}
