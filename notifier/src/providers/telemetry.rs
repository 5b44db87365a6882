//! Names of the metrics about providers.

use std::time::Duration;

use chat_shared::wire::Platform;
use metrics::{describe_counter, describe_gauge, describe_histogram};

use super::Verdict;

/// Notifications for a provider, by what came of them.
pub const REQUESTS_TOTAL: &str = "chat_notifier_provider_requests_total";
/// Seconds until a provider answered, or was given up.
pub const SECONDS: &str = "chat_notifier_provider_seconds";
/// Whether a provider is left alone because it failed; for Web Push, how many push services are.
pub const OPEN: &str = "chat_notifier_provider_open";

/// Answers that don't accept the credentials, or the device under them.
pub const DENIED_TOTAL: &str = "chat_notifier_provider_denied_total";
/// Devices that a provider says are gone and that were not removed, because it says so of too many.
pub const REMOVALS_HELD_BACK_TOTAL: &str = "chat_notifier_provider_removals_held_back_total";

/// The verdict of what was not sent, because too much was on its way or the provider had failed before.
const HELD_BACK: &str = "held_back";

/// Describes the metrics, and touches counters and gauges.
pub fn describe() {
    describe_counter!(REQUESTS_TOTAL, "Notifications for a provider, by what came of them");
    describe_histogram!(SECONDS, "Seconds until a provider answered, or was given up");
    describe_gauge!(
        OPEN,
        "Whether a provider is left alone because it failed; for Web Push, how many push services are"
    );
    describe_counter!(DENIED_TOTAL, "Answers that don't accept the credentials, or the device under them");
    describe_counter!(
        REMOVALS_HELD_BACK_TOTAL,
        "Devices that are said to be gone and were not removed, because too many are"
    );
    for platform in Platform::ALL {
        for name in [DENIED_TOTAL, REMOVALS_HELD_BACK_TOTAL] {
            metrics::counter!(name, "provider" => platform.as_str()).absolute(0);
        }
        metrics::gauge!(OPEN, "provider" => platform.as_str()).set(0);
        for verdict in ["sent", "gone", "refused", "later", "unknown", HELD_BACK] {
            metrics::counter!(REQUESTS_TOTAL, "provider" => platform.as_str(), "verdict" => verdict).absolute(0);
        }
    }
}

/// Counts what a provider was asked, and how long it took.
pub fn count(platform: Platform, verdict: &Verdict, took: Duration) {
    let verdict = match verdict {
        Verdict::Sent => "sent",
        Verdict::Gone { .. } => "gone",
        Verdict::Refused(_) => "refused",
        Verdict::Later(_) => "later",
        Verdict::Unknown => "unknown",
    };
    metrics::counter!(REQUESTS_TOTAL, "provider" => platform.as_str(), "verdict" => verdict).increment(1);
    metrics::histogram!(SECONDS, "provider" => platform.as_str()).record(took);
}

/// Counts an answer that doesn't accept the credentials, or the device under them.
pub fn count_denied(platform: Platform) {
    metrics::counter!(DENIED_TOTAL, "provider" => platform.as_str()).increment(1);
}

/// Counts a device that was not removed because too many are said to be gone.
pub fn count_removal_held_back(platform: Platform) {
    metrics::counter!(REMOVALS_HELD_BACK_TOTAL, "provider" => platform.as_str()).increment(1);
}

/// Counts what a provider was not asked.
pub fn count_held_back(platform: Platform) {
    metrics::counter!(REQUESTS_TOTAL, "provider" => platform.as_str(), "verdict" => HELD_BACK).increment(1);
}
