//! The table of registered devices.

use chat_shared::{
    clock::Timestamp,
    ids::{DeviceId, UserId},
    limits,
    sealing::SealedAddress,
    wire::{Device, DeviceList, RegisterDevice},
};
use sqlx::Acquire;
use time::OffsetDateTime;

use super::{Devices, validate};
use crate::{
    conversations::UnreadableRow,
    database::{DatabaseError, bounded, statement},
    refusal::Refusal,
};

/// Attempts when the same address is registered twice at the same moment.
const ATTEMPTS_MAX: usize = 3;

/// A registration, ready to be kept.
struct Registration<'a> {
    user_id: UserId,
    device_id: DeviceId,
    request: &'a RegisterDevice,
    sealed: SealedAddress,
    /// Under which the same address may be registered: while the master key is exchanged there are two.
    fingerprints: Vec<Vec<u8>>,
    registered_at: Timestamp,
}

impl Devices {
    /// Registers a device, or changes its registration. An address that another device had is this one's from now on,
    /// whoever's the other was; and if the user has too many, the one registered first goes.
    pub async fn register(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        request: RegisterDevice,
    ) -> Result<Device, Refusal> {
        validate::registration(&request, self.allows_loopback)?;
        let sealed = self.master_keys.seal_address(user_id, device_id, &request.address);
        let registration = Registration {
            user_id,
            device_id,
            sealed: sealed.map_err(|error| Refusal::internal(&error))?,
            fingerprints: self.master_keys.fingerprints(&request.address),
            registered_at: self.clock.now(),
            request: &request,
        };
        self.keep(&registration).await?;
        // Until Redis hears of it the user may count as one without devices, so the client repeats this.
        let noted = self.inboxes.note_devices(user_id, true).await;
        noted.map_err(|error| Refusal::unavailable("Redis", &error))?;
        let registered_at = registration.registered_at;
        let RegisterDevice { address, app_id, locale } = request;
        Ok(Device { device_id, platform: address.platform(), app_id, locale, registered_at })
    }

    async fn keep(&self, registration: &Registration<'_>) -> Result<(), Refusal> {
        let mut attempt = 1;
        loop {
            match self.try_to_keep(registration).await {
                Err(error) if attempt < ATTEMPTS_MAX && error.constraint() == Some("notification_devices_address") => {
                    attempt += 1;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn try_to_keep(&self, registration: &Registration<'_>) -> Result<(), DatabaseError> {
        let Registration { user_id, device_id, request, sealed, fingerprints, registered_at } = registration;
        let (user_id, device_id) = (user_id.as_uuid(), device_id.as_uuid());
        let mut connection = self.database.connection().await?;
        let mut transaction = bounded(connection.begin()).await?;
        // In one order, so that two registrations that exchange addresses wait for each other and don't deadlock.
        let locking = sqlx::query!(
            "select device_id from notification_devices where user_id = $1 or fingerprint = any($2)
             order by user_id, device_id for update",
            user_id,
            fingerprints
        );
        statement(locking.fetch_all(&mut *transaction)).await?;
        let displaced = sqlx::query!(
            "delete from notification_devices
             where (user_id, device_id) <> ($1, $2) and (fingerprint = any($3) or (user_id, device_id) in (
                 select user_id, device_id from notification_devices
                 where user_id = $1 and device_id <> $2 and fingerprint <> all($3)
                 order by registered_at desc, device_id offset $4
             ))",
            user_id,
            device_id,
            fingerprints,
            i64::try_from(limits::NOTIFICATION_DEVICES_MAX - 1).unwrap_or(i64::MAX)
        );
        statement(displaced.execute(&mut *transaction)).await?;
        let insertion = sqlx::query!(
            "insert into notification_devices
                 (user_id, device_id, platform, app_id, locale, address, fingerprint, registered_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (user_id, device_id) do update set platform = excluded.platform, app_id = excluded.app_id,
                 locale = excluded.locale, address = excluded.address, fingerprint = excluded.fingerprint,
                 registered_at = excluded.registered_at",
            user_id,
            device_id,
            request.address.platform().as_str(),
            request.app_id,
            request.locale,
            sealed.address,
            sealed.fingerprint,
            OffsetDateTime::from(*registered_at)
        );
        statement(insertion.execute(&mut *transaction)).await?;
        bounded(transaction.commit()).await
    }

    /// The user's devices, in the order of their registration.
    pub async fn list(&self, user_id: UserId) -> Result<DeviceList, Refusal> {
        let mut connection = self.database.connection().await?;
        let rows = statement(
            sqlx::query!(
                "select device_id, platform, app_id, locale, registered_at from notification_devices
                 where user_id = $1 order by registered_at, device_id",
                user_id.as_uuid()
            )
            .fetch_all(&mut *connection),
        )
        .await?;
        let devices = rows.into_iter().map(|row| {
            Ok(Device {
                device_id: row.device_id.try_into()?,
                platform: row.platform.parse()?,
                app_id: row.app_id,
                locale: row.locale,
                registered_at: row.registered_at.into(),
            })
        });
        Ok(DeviceList { devices: devices.collect::<Result<_, UnreadableRow>>()? })
    }

    /// Removes a device, if it is registered.
    pub async fn remove(&self, user_id: UserId, device_id: DeviceId) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let deletion = sqlx::query!(
            "delete from notification_devices where user_id = $1 and device_id = $2",
            user_id.as_uuid(),
            device_id.as_uuid()
        );
        statement(deletion.execute(&mut *connection)).await?;
        Ok(())
    }

    /// Removes all of a user's devices: they have logged out everywhere.
    pub async fn remove_all(&self, user_id: UserId) -> Result<(), Refusal> {
        let mut connection = self.database.connection().await?;
        let deletion = sqlx::query!("delete from notification_devices where user_id = $1", user_id.as_uuid());
        statement(deletion.execute(&mut *connection)).await?;
        Ok(())
    }
}
