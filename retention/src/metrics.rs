//! The metrics of this service, by name.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

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
/// Days with messages, by state.
pub const DAYS: &str = "chat_retention_days";
/// Alert above 98: a day should be gone.
pub const OLDEST_DAY_AGE_DAYS: &str = "chat_retention_oldest_day_age_days";
/// Alert above zero: no day ages out.
pub const PARTITION_FAULTS: &str = "chat_retention_partition_faults";
/// Attempts to lock a table for a step of ageing out, by outcome.
pub const LOCK_ATTEMPTS_TOTAL: &str = "chat_retention_lock_attempts_total";
/// How long such a step takes, waiting included.
pub const LOCK_SECONDS: &str = "chat_retention_lock_seconds";
/// Conversations whose floor was raised.
pub const FLOORS_RAISED_TOTAL: &str = "chat_retention_floors_raised_total";
/// Content keys that were destroyed at the end of their time.
pub const KEYS_DESTROYED_TOTAL: &str = "chat_retention_keys_destroyed_total";
/// Alert when it rises for an hour: days are late.
pub const AGEING_FAILURES_TOTAL: &str = "chat_retention_ageing_failures_total";
/// Erasures that have not ended.
pub const ERASURES_PENDING: &str = "chat_retention_erasures_pending";
/// Alert above ten days: texts of erased users are left.
pub const ERASURES_OLDEST_SECONDS: &str = "chat_retention_erasures_oldest_seconds";
/// Messages whose texts were removed because their senders are erased.
pub const ERASED_MESSAGES_TOTAL: &str = "chat_retention_erased_messages_total";
/// Alert when it rises for an hour: texts of erased users stay.
pub const ERASURE_FAILURES_TOTAL: &str = "chat_retention_erasure_failures_total";
/// Days whose bodies should move; alert above 2 for a day.
pub const COLD_DAYS_DUE: &str = "chat_retention_cold_days_due";
/// Bodies that were packed.
pub const COLD_MESSAGES_TOTAL: &str = "chat_retention_cold_messages_total";
/// Bytes of packs that were stored.
pub const COLD_BYTES_TOTAL: &str = "chat_retention_cold_bytes_total";
/// Alert when it rises for an hour: bodies stay in PostgreSQL.
pub const COLD_FAILURES_TOTAL: &str = "chat_retention_cold_failures_total";
/// Objects that no row named, deleted.
pub const COLD_ORPHANS_TOTAL: &str = "chat_retention_cold_orphans_total";
/// Alert above zero: messages can't be read.
pub const COLD_OBJECTS_MISSING: &str = "chat_retention_cold_objects_missing";

/// Packs that were replaced by others without the bodies of erased users.
pub const COLD_REWRITTEN_TOTAL: &str = "chat_retention_cold_rewritten_total";

/// Describes those of the cold worker and sets them to zero.
pub fn describe_cold() {
    describe_gauge!(COLD_DAYS_DUE, Unit::Count, "Days with a step of moving bodies that is due");
    describe_counter!(COLD_MESSAGES_TOTAL, Unit::Count, "Bodies of messages that were packed");
    describe_counter!(COLD_BYTES_TOTAL, Unit::Bytes, "Bytes of packs that were stored");
    describe_counter!(
        COLD_FAILURES_TOTAL,
        Unit::Count,
        "Steps of moving bodies that failed, and passes without an answer"
    );
    describe_counter!(COLD_ORPHANS_TOTAL, Unit::Count, "Objects of the store that no row named, deleted");
    describe_counter!(
        COLD_REWRITTEN_TOTAL,
        Unit::Count,
        "Packs that were replaced by others without the bodies of erased users"
    );
    describe_gauge!(COLD_OBJECTS_MISSING, Unit::Count, "Packs that the object store does not have");
    gauge!(COLD_DAYS_DUE).set(0);
    gauge!(COLD_OBJECTS_MISSING).set(0);
    for name in [COLD_MESSAGES_TOTAL, COLD_BYTES_TOTAL, COLD_FAILURES_TOTAL, COLD_ORPHANS_TOTAL, COLD_REWRITTEN_TOTAL] {
        counter!(name).absolute(0);
    }
}

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
    describe_gauge!(DAYS, Unit::Count, "Days with messages, by state: hot, deleting, deleted, retiring, gone");
    describe_gauge!(OLDEST_DAY_AGE_DAYS, Unit::Count, "Days since the oldest day of which something is left");
    describe_gauge!(PARTITION_FAULTS, Unit::Count, "Faults of partitions, until whose repair no day ages out");
    describe_counter!(
        LOCK_ATTEMPTS_TOTAL,
        Unit::Count,
        "Attempts to lock a table for a step of ageing out, by outcome"
    );
    describe_histogram!(LOCK_SECONDS, Unit::Seconds, "From such an attempt to the end of its transaction");
    describe_counter!(FLOORS_RAISED_TOTAL, Unit::Count, "Conversations whose floor was raised");
    describe_counter!(KEYS_DESTROYED_TOTAL, Unit::Count, "Content keys that were destroyed at the end of their time");
    describe_counter!(
        AGEING_FAILURES_TOTAL,
        Unit::Count,
        "Steps of ageing out that failed, and passes without an answer"
    );
    describe_gauge!(ERASURES_PENDING, Unit::Count, "Erasures of users that have not ended");
    describe_gauge!(ERASURES_OLDEST_SECONDS, Unit::Seconds, "Time since the oldest of them was requested");
    describe_counter!(
        ERASED_MESSAGES_TOTAL,
        Unit::Count,
        "Messages whose texts were removed because their senders are erased"
    );
    describe_counter!(ERASURE_FAILURES_TOTAL, Unit::Count, "Steps of removing texts of erased users that failed");
    gauge!(ERASURES_PENDING).set(0);
    gauge!(ERASURES_OLDEST_SECONDS).set(0);
    counter!(ERASED_MESSAGES_TOTAL).absolute(0);
    counter!(ERASURE_FAILURES_TOTAL).absolute(0);
    gauge!(PARTITIONS_AHEAD_DAYS).set(0);
    gauge!(KEYS_AHEAD_DAYS).set(0);
    gauge!(KEYS_DAMAGED).set(0);
    counter!(FAILURES_TOTAL).absolute(0);
    gauge!(UNREAD_DRIFT).set(0);
    counter!(UNREAD_AUDITED_TOTAL).absolute(0);
    gauge!(OLDEST_DAY_AGE_DAYS).set(0);
    gauge!(PARTITION_FAULTS).set(0);
    for outcome in ["taken", "refused"] {
        counter!(LOCK_ATTEMPTS_TOTAL, "outcome" => outcome).absolute(0);
    }
    counter!(FLOORS_RAISED_TOTAL).absolute(0);
    counter!(KEYS_DESTROYED_TOTAL).absolute(0);
    counter!(AGEING_FAILURES_TOTAL).absolute(0);
}
