//! How a business deals with its cases: strategy, capacity, clocks, hours. One row, one version.

use std::ops::RangeInclusive;

use chat_shared::{
    ids::{BusinessId, UserId},
    wire::{BusinessSettings, Clocks, StaffRole, Strategy},
};

use super::{Businesses, decide::member, hours::Schedule, store};
use crate::{database::statement, refusal::Refusal};

impl Businesses {
    /// The settings, for an admin of the business.
    pub async fn settings(&self, by: UserId, business_id: BusinessId) -> Result<BusinessSettings, Refusal> {
        let mut connection = self.database.connection().await?;
        let member = member(&mut connection, business_id, by).await?;
        member.filter(|member| member.role == StaffRole::Admin).ok_or_else(Refusal::no_such_business)?;
        let business = store::read(&mut connection, business_id).await?;
        Ok(business.ok_or_else(Refusal::no_such_business)?.settings)
    }

    /// Replaces the settings, as far as they are based on the present version. Returns them with their new version.
    pub async fn set_settings(
        &self,
        by: UserId,
        business_id: BusinessId,
        mut settings: BusinessSettings,
    ) -> Result<BusinessSettings, Refusal> {
        check(&settings)?;
        let hours = serde_json::to_string(&settings.hours).map_err(|error| Refusal::internal(&error))?;
        let version = self
            .change(business_id, async |connection, business| {
                let member = member(connection, business_id, by).await?;
                member.filter(|member| member.role == StaffRole::Admin).ok_or_else(Refusal::no_such_business)?;
                let stored = business.settings.settings_version;
                if settings.settings_version != stored {
                    return Err(Refusal::conflict(format!(
                        "the settings have changed since: their version is {stored}; read them again and decide anew"
                    )));
                }
                let clocks = settings.clocks;
                let setting = sqlx::query!(
                    "update businesses
                     set strategy = $2, capacity = $3, answer_max_s = $4, notified_max_s = $5, reply_max_s = $6,
                         quiet_max_s = $7, affinity_s = $8, hours = $9::text::jsonb, settings_version = settings_version + 1
                     where business_id = $1",
                    business_id.as_uuid(),
                    settings.strategy.as_str(),
                    settings.capacity.cast_signed(),
                    clocks.answer_max_s.cast_signed(),
                    clocks.notified_max_s.cast_signed(),
                    clocks.reply_max_s.cast_signed(),
                    clocks.quiet_max_s.cast_signed(),
                    clocks.affinity_s.cast_signed(),
                    hours
                );
                statement(setting.execute(&mut *connection)).await?;
                // The new clocks hold for cases that agents have, so the sweep looks at them afresh.
                let looking = sqlx::query!(
                    "update cases set due_at = clock_timestamp() where business_id = $1 and state = 'assigned'",
                    business_id.as_uuid()
                );
                statement(looking.execute(connection)).await?;
                Ok((stored + 1, Vec::new()))
            })
            .await?;
        self.wake(business_id);
        settings.settings_version = version;
        Ok(settings)
    }
}

/// Refuses settings that are out of their bounds.
fn check(settings: &BusinessSettings) -> Result<(), Refusal> {
    if settings.strategy == Strategy::Unknown {
        return Err(Refusal::invalid("`strategy` is `least_busy`, `round_robin` or `manual`"));
    }
    let Clocks { answer_max_s, notified_max_s, reply_max_s, quiet_max_s, affinity_s } = settings.clocks;
    let bounds: [(&str, u32, RangeInclusive<u32>); 6] = [
        ("capacity", settings.capacity, 1..=50),
        ("answer_max_s", answer_max_s, 10..=86_400),
        ("notified_max_s", notified_max_s, 10..=86_400),
        ("reply_max_s", reply_max_s, 10..=86_400),
        ("quiet_max_s", quiet_max_s, 60..=604_800),
        ("affinity_s", affinity_s, 0..=2_592_000),
    ];
    for (name, value, bound) in bounds {
        if !bound.contains(&value) {
            return Err(Refusal::invalid(format!(
                "`{name}` is a whole number from {} to {}",
                bound.start(),
                bound.end()
            )));
        }
    }
    Schedule::new(&settings.hours).map(drop).map_err(|error| Refusal::invalid(format!("`hours`: {error}")))
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::{ErrorCode, Hours};

    use super::*;

    #[test]
    fn settings_out_of_their_bounds_are_refused() {
        let clocks =
            Clocks { answer_max_s: 120, notified_max_s: 600, reply_max_s: 900, quiet_max_s: 1800, affinity_s: 86_400 };
        let settings = BusinessSettings {
            settings_version: 1,
            strategy: Strategy::LeastBusy,
            capacity: 5,
            clocks,
            hours: Hours::default(),
        };
        assert_eq!(check(&settings), Ok(()));
        let wrong_zone = Hours { zone: "Nepal/Everywhere".to_owned(), ..Hours::default() };
        for wrong in [
            BusinessSettings { strategy: Strategy::Unknown, ..settings.clone() },
            BusinessSettings { capacity: 0, ..settings.clone() },
            BusinessSettings { capacity: 51, ..settings.clone() },
            BusinessSettings { clocks: Clocks { answer_max_s: 9, ..clocks }, ..settings.clone() },
            BusinessSettings { clocks: Clocks { quiet_max_s: 604_801, ..clocks }, ..settings.clone() },
            BusinessSettings { hours: wrong_zone, ..settings.clone() },
        ] {
            assert_eq!(check(&wrong).unwrap_err().code, ErrorCode::Invalid);
        }
    }
}
