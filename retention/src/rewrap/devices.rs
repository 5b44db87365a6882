//! The addresses of devices, and the fingerprints by which equal ones are found.

use chat_shared::{
    command_line::say,
    ids::{DeviceId, UserId},
    sealing::{MasterKeys, SealedAddress, SealingError},
};
use sqlx::{PgPool, types::Uuid};

use super::{RewrapFailed, Rewrapped};

/// Devices of one statement.
pub const DEVICES_MAX: i64 = 500;
/// Devices from one line of progress to the next.
const PROGRESS_EVERY: u64 = 10_000;

/// A device whose address is to be replaced.
struct Change {
    user_id: Uuid,
    device_id: Uuid,
    /// The address as it was read.
    before: Vec<u8>,
    sealed: SealedAddress,
}

/// The result for one device.
enum Single {
    /// It is sealed anew; so many earlier registrations of its address are removed.
    Anew(u64),
    /// Another device has registered the address later: this one is removed.
    Moved,
    /// It was registered again or removed meanwhile.
    Changed,
}

/// Seals all addresses with the current master key.
pub(super) async fn reseal(
    pool: &PgPool,
    master_keys: &MasterKeys,
    devices_max: i64,
    rewrapped: &mut Rewrapped,
) -> Result<(), RewrapFailed> {
    let (mut after, mut done) = ((Uuid::nil(), Uuid::nil()), 0_u64);
    loop {
        let rows = sqlx::query!(
            "select user_id, device_id, address from notification_devices where (user_id, device_id) > ($1, $2)
             order by user_id, device_id limit $3",
            after.0,
            after.1,
            devices_max,
        )
        .fetch_all(pool)
        .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.user_id, last.device_id);
        let reported = done / PROGRESS_EVERY;
        done += rows.len() as u64;
        let mut changes = Vec::new();
        for row in rows {
            match anew(master_keys, row.user_id, row.device_id, &row.address) {
                Ok(None) => rewrapped.devices.there += 1,
                Ok(Some(sealed)) => {
                    let (user_id, device_id, before) = (row.user_id, row.device_id, row.address);
                    changes.push(Change { user_id, device_id, before, sealed });
                }
                Err(SealingError::NoRandomness) => return Err(SealingError::NoRandomness.into()),
                Err(SealingError::Refused | SealingError::Malformed) => rewrapped.devices_unopened += 1,
            }
        }
        store(pool, &changes, rewrapped).await?;
        if done / PROGRESS_EVERY > reported {
            say(format_args!("addresses of devices: {done} looked at"));
        }
    }
}

fn anew(
    master_keys: &MasterKeys,
    user_id: Uuid,
    device_id: Uuid,
    address: &[u8],
) -> Result<Option<SealedAddress>, SealingError> {
    let user_id = UserId::try_from(user_id).map_err(|_| SealingError::Malformed)?;
    let device_id = DeviceId::try_from(device_id).map_err(|_| SealingError::Malformed)?;
    master_keys.reseal_address(user_id, device_id, address)
}

/// Stores a batch; row by row if one of its addresses is also registered under the current master key.
async fn store(pool: &PgPool, changes: &[Change], rewrapped: &mut Rewrapped) -> Result<(), RewrapFailed> {
    match store_all(pool, changes).await {
        Ok(stored) => rewrapped.devices.anew += stored,
        Err(error) if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) => {
            for change in changes {
                match store_single(pool, change).await? {
                    Single::Anew(removed) => {
                        rewrapped.devices.anew += 1;
                        rewrapped.devices_removed += removed;
                    }
                    Single::Moved => rewrapped.devices_removed += 1,
                    Single::Changed => {}
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Rows are locked in the order in which gateways lock them, so that both wait for each other and don't deadlock.
async fn store_all(pool: &PgPool, changes: &[Change]) -> sqlx::Result<u64> {
    let users: Vec<_> = changes.iter().map(|change| change.user_id).collect();
    let devices: Vec<_> = changes.iter().map(|change| change.device_id).collect();
    let before: Vec<_> = changes.iter().map(|change| change.before.clone()).collect();
    let addresses: Vec<_> = changes.iter().map(|change| change.sealed.address.clone()).collect();
    let fingerprints: Vec<_> = changes.iter().map(|change| change.sealed.fingerprint.clone()).collect();
    let stored = sqlx::query!(
        "with locked as (
             select device.user_id, device.device_id, anew.address, anew.fingerprint
             from unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[])
                 as anew (user_id, device_id, before, address, fingerprint)
             join notification_devices device on (device.user_id, device.device_id) = (anew.user_id, anew.device_id)
             -- Only as it was read: it may have been registered again meanwhile.
             where device.address = anew.before
             order by device.user_id, device.device_id
             for update of device
         )
         update notification_devices set address = locked.address, fingerprint = locked.fingerprint
         from locked
         where (notification_devices.user_id, notification_devices.device_id) = (locked.user_id, locked.device_id)",
        &users,
        &devices,
        &before,
        &addresses,
        &fingerprints,
    )
    .execute(pool)
    .await?;
    Ok(stored.rows_affected())
}

/// Of two registrations of one address the later one stays, as if all gateways had known both master keys.
async fn store_single(pool: &PgPool, change: &Change) -> sqlx::Result<Single> {
    let Change { user_id, device_id, before, sealed } = change;
    let mut transaction = pool.begin().await?;
    let rows = sqlx::query!(
        "select user_id, device_id, address, registered_at from notification_devices
         where (user_id, device_id) = ($1, $2) or fingerprint = $3
         order by user_id, device_id for update",
        user_id,
        device_id,
        sealed.fingerprint,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let is_this = |user: Uuid, device: Uuid| (user, device) == (*user_id, *device_id);
    let this = rows.iter().find(|row| is_this(row.user_id, row.device_id) && row.address == *before);
    let Some(this) = this else { return Ok(Single::Changed) };
    let other = rows.iter().find(|row| !is_this(row.user_id, row.device_id));
    let single = match other {
        Some(other) if other.registered_at > this.registered_at => {
            remove(&mut transaction, *user_id, *device_id).await?;
            Single::Moved
        }
        _ => {
            if let Some(other) = other {
                remove(&mut transaction, other.user_id, other.device_id).await?;
            }
            sqlx::query!(
                "update notification_devices set address = $3, fingerprint = $4 where (user_id, device_id) = ($1, $2)",
                user_id,
                device_id,
                sealed.address,
                sealed.fingerprint,
            )
            .execute(&mut *transaction)
            .await?;
            Single::Anew(other.map_or(0, |_| 1))
        }
    };
    transaction.commit().await?;
    Ok(single)
}

async fn remove(connection: &mut sqlx::PgConnection, user_id: Uuid, device_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from notification_devices where (user_id, device_id) = ($1, $2)", user_id, device_id)
        .execute(connection)
        .await?;
    Ok(())
}
