//! Names of the metrics about profiles.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Attempts to ask kaha-main-v3, by `outcome`.
pub(super) const CALLS_TOTAL: &str = "chat_gateway_profile_calls_total";
/// Seconds of an attempt.
pub(super) const CALL_SECONDS: &str = "chat_gateway_profile_call_seconds";
/// Profiles shown, by `source`.
pub(super) const SHOWN_TOTAL: &str = "chat_gateway_profiles_shown_total";
/// Profiles that are said to have changed.
pub(super) const CHANGED_TOTAL: &str = "chat_gateway_profiles_changed_total";
/// Profiles that were asked for again because they changed meanwhile.
pub(super) const OVERTAKEN_TOTAL: &str = "chat_gateway_profiles_overtaken_total";
/// Profiles that were not pushed because too many waited.
pub(super) const UNPUSHED_TOTAL: &str = "chat_gateway_profiles_unpushed_total";
/// Whether kaha-main-v3 is left alone because it failed.
pub(super) const BREAKER_OPEN: &str = "chat_gateway_profile_breaker_open";

/// Where a profile comes from that is shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// This gateway remembered it.
    Memory,
    /// Redis had it.
    Redis,
    /// kaha-main-v3 was asked.
    Kaha,
    /// It is as kaha-main-v3 had it once.
    Stale,
    /// A neutral name.
    Fallback,
}

impl Source {
    /// Counts profiles that come from there.
    pub fn count(self, profiles: usize) {
        let name = match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Kaha => "kaha",
            Self::Stale => "stale",
            Self::Fallback => "fallback",
        };
        if profiles > 0 {
            metrics::counter!(SHOWN_TOTAL, "source" => name).increment(number(profiles));
        }
    }
}

/// A count, as counters take it.
pub(super) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Describes the metrics, and touches those without labels.
pub(super) fn describe() {
    describe_counter!(CALLS_TOTAL, "Attempts to ask kaha-main-v3 for profiles");
    describe_histogram!(CALL_SECONDS, "Seconds of such an attempt");
    describe_counter!(SHOWN_TOTAL, "Profiles shown to clients");
    describe_counter!(CHANGED_TOTAL, "Profiles that are said to have changed");
    describe_counter!(OVERTAKEN_TOTAL, "Profiles asked for again because they changed while they were fetched");
    describe_counter!(UNPUSHED_TOTAL, "Profiles that nobody was told of because too many waited");
    describe_gauge!(BREAKER_OPEN, "1 while kaha-main-v3 is left alone because it failed");
    for name in [CHANGED_TOTAL, OVERTAKEN_TOTAL, UNPUSHED_TOTAL] {
        metrics::counter!(name).absolute(0);
    }
}
