//! The metrics of this service, by name.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// Alert below 3: the persister heals a day that begins without its partition, but slowly.
pub const PARTITIONS_AHEAD_DAYS: &str = "chat_retention_partitions_ahead_days";
/// Alert below 3: on a day without a key nothing can be sent.
pub const KEYS_AHEAD_DAYS: &str = "chat_retention_keys_ahead_days";
/// Alert above zero: messages of a day can't be read.
pub const KEYS_DAMAGED: &str = "chat_retention_keys_damaged";
/// Failed preparations.
pub const FAILURES_TOTAL: &str = "chat_retention_preparation_failures_total";
/// Alert above zero: what lists show as unread is wrong.
pub const UNREAD_DRIFT: &str = "chat_retention_unread_drift";
/// Participants whose lists were compared with their messages; alert when it stands still.
pub const UNREAD_AUDITED_TOTAL: &str = "chat_retention_unread_audited_total";

/// Describes all of them and sets them to zero.
pub fn describe() {
    describe_gauge!(PARTITIONS_AHEAD_DAYS, Unit::Count, "Days after today whose message partition is made");
    describe_gauge!(KEYS_AHEAD_DAYS, Unit::Count, "Days after today whose content key is made");
    describe_gauge!(KEYS_DAMAGED, Unit::Count, "Content keys since yesterday that don't open");
    describe_counter!(FAILURES_TOTAL, Unit::Count, "Preparations of partitions and keys that failed");
    describe_gauge!(
        UNREAD_DRIFT,
        Unit::Count,
        "Participants to whom lists show another number of unread messages than there are"
    );
    describe_counter!(UNREAD_AUDITED_TOTAL, Unit::Count, "Participants whose lists were compared with their messages");
    gauge!(PARTITIONS_AHEAD_DAYS).set(0);
    gauge!(KEYS_AHEAD_DAYS).set(0);
    gauge!(KEYS_DAMAGED).set(0);
    counter!(FAILURES_TOTAL).absolute(0);
    gauge!(UNREAD_DRIFT).set(0);
    counter!(UNREAD_AUDITED_TOTAL).absolute(0);
}
