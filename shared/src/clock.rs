//! Time, as everything here counts it: whole milliseconds since 1970, UTC.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
#[schema(example = 1_767_225_600_000_i64)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The day it falls on, in UTC.
    pub const fn day(self) -> Day {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an i64 of milliseconds divided by a day's fits for 5 million years"
        )]
        Day(self.0.div_euclid(MS_PER_DAY) as i32)
    }

    /// This moment plus `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// So much earlier.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A day in UTC, counted from 1970-01-01 as day 0. The unit of retention: one partition and one content key each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

const MS_PER_DAY: i64 = 86_400_000;

impl Day {
    /// The day's first moment.
    pub const fn start(self) -> Timestamp {
        Timestamp(self.0 as i64 * MS_PER_DAY)
    }

    /// The day `days` later, or earlier when negative.
    #[must_use]
    pub const fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days))
    }
}

/// Where time comes from; passed to whatever needs it, so that tests can set it.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands where it was put, in milliseconds since 1970.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `at`.
    pub fn fixed(at: Timestamp) -> Self {
        Self::Fixed(Arc::new(AtomicI64::new(at.0)))
    }

    /// The moment it is now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp(0).after(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
            Self::Fixed(at) => Timestamp(at.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(feature = "services")]
mod sql {
    use time::{Date, OffsetDateTime};

    use super::{Day, MS_PER_DAY, Timestamp};

    impl From<Timestamp> for OffsetDateTime {
        fn from(at: Timestamp) -> Self {
            Self::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).unwrap_or(Self::UNIX_EPOCH)
        }
    }

    impl From<OffsetDateTime> for Timestamp {
        fn from(at: OffsetDateTime) -> Self {
            Self(i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))
        }
    }

    impl From<Day> for Date {
        fn from(day: Day) -> Self {
            OffsetDateTime::from(day.start()).date()
        }
    }

    impl From<Date> for Day {
        fn from(date: Date) -> Self {
            let days = date.midnight().assume_utc().unix_timestamp() / (MS_PER_DAY / 1000);
            Self(i32::try_from(days).unwrap_or(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(Timestamp(0).day(), Day(0));
        assert_eq!(Timestamp(-1).day(), Day(-1));
        assert_eq!(Timestamp(MS_PER_DAY - 1).day(), Day(0));
        assert_eq!(Day(20_454).start().day(), Day(20_454));
    }

    #[cfg(feature = "services")]
    #[test]
    fn a_day_survives_the_database() {
        for day in [Day(0), Day(20_454), Day(-3)] {
            assert_eq!(Day::from(time::Date::from(day)), day);
        }
    }
}
