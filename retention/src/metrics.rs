//! The metrics of this service, by name.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Alert below 3: the persister heals a day that begins without its partition, but slowly.
pub const PARTITIONS_AHEAD_DAYS: &str = "chat_retention_partitions_ahead_days";
/// Alert below 3: on a day without a key nothing can be sent.
pub const KEYS_AHEAD_DAYS: &str = "chat_retention_keys_ahead_days";
/// Failed preparations.
pub const FAILURES_TOTAL: &str = "chat_retention_preparation_failures_total";

/// Describes all of them and sets them to zero.
pub fn describe() {
    describe_gauge!(PARTITIONS_AHEAD_DAYS, Unit::Count, "Days after today whose message partition is made");
    describe_gauge!(KEYS_AHEAD_DAYS, Unit::Count, "Days after today whose content key is made");
    describe_counter!(FAILURES_TOTAL, Unit::Count, "Preparations of partitions and keys that failed");
    gauge!(PARTITIONS_AHEAD_DAYS).set(0);
    gauge!(KEYS_AHEAD_DAYS).set(0);
    counter!(FAILURES_TOTAL).absolute(0);
}
