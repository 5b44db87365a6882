//! Names of the notifier's metrics.

use metrics::{describe_counter, describe_gauge, describe_histogram};

use crate::notifications::Conclusion;

/// Events put in the inboxes of their audience.
pub const ROUTED_TOTAL: &str = "chat_notifier_routed_total";
/// Deliveries published to gateways.
pub const DELIVERIES_TOTAL: &str = "chat_notifier_deliveries_total";
/// Events published to all gateways because Redis was out of reach.
pub const UNNUMBERED_TOTAL: &str = "chat_notifier_unnumbered_total";
/// Events put back to be delivered again.
pub const RETRIES_TOTAL: &str = "chat_notifier_retries_total";
/// Entries of the log that can't be read as events.
pub const UNREADABLE_TOTAL: &str = "chat_notifier_unreadable_total";
/// Batches that Redis did not take.
pub const REDIS_FAILURES_TOTAL: &str = "chat_notifier_redis_failures_total";
/// Deliveries that NATS did not take.
pub const PUBLISH_FAILURES_TOTAL: &str = "chat_notifier_publish_failures_total";
/// Receipts that another one of the same batch goes beyond, which nobody is told.
pub const RECEIPTS_MERGED_TOTAL: &str = "chat_notifier_receipts_merged_total";
/// Jobs put in the queue of notifications.
pub const JOBS_ADDED_TOTAL: &str = "chat_notifier_jobs_added_total";
/// Jobs that found no room in the queue, or in memory while the queue could not be reached.
pub const JOBS_DROPPED_TOTAL: &str = "chat_notifier_jobs_dropped_total";
/// Jobs held in memory because the queue can't be reached.
pub const JOBS_HELD: &str = "chat_notifier_jobs_held";
/// Inboxes that could not be used and were reset.
pub const INBOXES_RESET_TOTAL: &str = "chat_notifier_inboxes_reset_total";
/// Events and jobs that were skipped because work on them panicked.
pub const PANICS_TOTAL: &str = "chat_notifier_panics_total";
/// Jobs that failed for now, and come again later.
pub const JOB_RETRIES_TOTAL: &str = "chat_notifier_job_retries_total";
/// Jobs in the queue, those that rest between attempts included.
pub const JOBS_WAITING: &str = "chat_notifier_jobs_waiting";
/// Notifications, by what became of them.
pub const NOTIFICATIONS_TOTAL: &str = "chat_notifier_notifications_total";
/// Gateways that are gone, stopped ones included.
pub const GATEWAYS_GONE_TOTAL: &str = "chat_notifier_gateways_gone_total";
/// Users whom gateways left behind, and who are settled.
pub const LEFT_BEHIND_TOTAL: &str = "chat_notifier_left_behind_total";
/// Seconds from reading a batch to its end.
pub const BATCH_SECONDS: &str = "chat_notifier_batch_seconds";
/// Seconds from accepting an event to having it routed.
pub const LAG_SECONDS: &str = "chat_notifier_lag_seconds";

/// Describes the metrics, and touches the counters.
pub fn describe() {
    describe_counter!(ROUTED_TOTAL, "Events put in the inboxes of their audience");
    describe_counter!(DELIVERIES_TOTAL, "Deliveries published to gateways");
    describe_counter!(UNNUMBERED_TOTAL, "Events published to all gateways because Redis was out of reach");
    describe_counter!(RETRIES_TOTAL, "Events put back to be delivered again");
    describe_counter!(UNREADABLE_TOTAL, "Entries of the log that are no events, or on a wrong subject");
    describe_counter!(REDIS_FAILURES_TOTAL, "Batches that Redis did not take");
    describe_counter!(PUBLISH_FAILURES_TOTAL, "Deliveries that NATS did not take");
    describe_counter!(RECEIPTS_MERGED_TOTAL, "Receipts that another one of the same batch goes beyond");
    describe_counter!(JOBS_ADDED_TOTAL, "Jobs put in the queue of notifications");
    describe_counter!(JOBS_DROPPED_TOTAL, "Jobs without room in the queue, or in memory while it could not be reached");
    describe_gauge!(JOBS_HELD, "Jobs held in memory because the queue can't be reached");
    describe_counter!(JOB_RETRIES_TOTAL, "Jobs that failed for now, and come again later");
    describe_gauge!(JOBS_WAITING, "Jobs in the queue, those that rest between attempts included");
    describe_counter!(NOTIFICATIONS_TOTAL, "Notifications, by what became of them");
    describe_counter!(INBOXES_RESET_TOTAL, "Inboxes that could not be used and were reset");
    describe_counter!(PANICS_TOTAL, "Events and jobs that were skipped because work on them panicked");
    describe_counter!(GATEWAYS_GONE_TOTAL, "Gateways that are gone, stopped ones included");
    describe_counter!(LEFT_BEHIND_TOTAL, "Users whom gateways left behind, and who are settled");
    describe_histogram!(BATCH_SECONDS, "Seconds from reading a batch to its end");
    describe_histogram!(LAG_SECONDS, "Seconds from accepting an event to having it routed");
    for name in [
        ROUTED_TOTAL,
        DELIVERIES_TOTAL,
        UNNUMBERED_TOTAL,
        RETRIES_TOTAL,
        UNREADABLE_TOTAL,
        REDIS_FAILURES_TOTAL,
        PUBLISH_FAILURES_TOTAL,
        RECEIPTS_MERGED_TOTAL,
        JOBS_ADDED_TOTAL,
        JOBS_DROPPED_TOTAL,
        JOB_RETRIES_TOTAL,
        INBOXES_RESET_TOTAL,
        PANICS_TOTAL,
        GATEWAYS_GONE_TOTAL,
        LEFT_BEHIND_TOTAL,
    ] {
        metrics::counter!(name).absolute(0);
    }
    metrics::gauge!(JOBS_WAITING).set(0);
    metrics::gauge!(JOBS_HELD).set(0);
    for conclusion in Conclusion::ALL {
        metrics::counter!(NOTIFICATIONS_TOTAL, "outcome" => conclusion.as_str()).absolute(0);
    }
}
