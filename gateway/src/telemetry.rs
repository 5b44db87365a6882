//! Names of the gateway's metrics.

use chat_shared::wire::{AssignmentReason, ReleaseReason};
use metrics::{describe_counter, describe_gauge, describe_histogram};

use crate::business::ListOutcome;

/// Requests and commands refused because a part was out of reach, by `what`.
pub const UNAVAILABLE_TOTAL: &str = "chat_gateway_unavailable_total";
/// Messages accepted.
pub const ACCEPTED_TOTAL: &str = "chat_gateway_accepted_total";
/// Repeats recognised.
pub const REPEATS_TOTAL: &str = "chat_gateway_repeats_total";
/// Seconds from a valid command to `accepted`.
pub const ACCEPT_SECONDS: &str = "chat_gateway_accept_seconds";
/// Appends repeated because another gateway was faster.
pub const APPEND_RETRIES_TOTAL: &str = "chat_gateway_append_retries_total";
/// Requests and commands refused because a user's quota of the day was used up, by `resource`.
pub const QUOTA_REFUSED_TOTAL: &str = "chat_gateway_quota_refused_total";
/// Open connections.
pub const CONNECTIONS: &str = "chat_gateway_connections";
/// Connections that ended, by `reason`: that of the close code, or `client_gone`.
pub const CLOSED_TOTAL: &str = "chat_gateway_closed_total";
/// Open sockets, whatever they carry.
pub const SOCKETS: &str = "chat_gateway_sockets";
/// Connections and requests that the edge refused, by `reason`.
pub const EDGE_REFUSED_TOTAL: &str = "chat_gateway_edge_refused_total";
/// Logouts that are remembered until their tokens have expired.
pub const REVOCATIONS: &str = "chat_gateway_revocations";
/// Logouts that were forgotten before, because there were too many.
pub const REVOCATIONS_DROPPED_TOTAL: &str = "chat_gateway_revocations_dropped_total";
/// Requests of other services, by `endpoint` and `outcome`: the status of the answer.
pub const INTERNAL_REQUESTS_TOTAL: &str = "chat_gateway_internal_requests_total";
/// Pushes put in outboxes.
pub const PUSHED_TOTAL: &str = "chat_gateway_pushed_total";
/// Connections that said hello, by `outcome`: `complete` if resumed, else `reload` or `without_inbox`.
pub const RESUMES_TOTAL: &str = "chat_gateway_resumes_total";
/// Deliveries and events that were skipped because work on them panicked.
pub const PANICS_TOTAL: &str = "chat_gateway_panics_total";
/// Gaps in live pushes that were filled from the inbox.
pub const CATCH_UPS_TOTAL: &str = "chat_gateway_catch_ups_total";
/// Removals, blocks and logouts that were answered before every live gateway had taken them in.
pub const UNHEARD_TOTAL: &str = "chat_gateway_unheard_total";
/// Reads of packs in the object store: one for each pack of a page that is not in memory.
pub const COLD_READS_TOTAL: &str = "chat_gateway_cold_reads_total";
/// Pages that did not get all texts from the object store.
pub const COLD_FAILURES_TOTAL: &str = "chat_gateway_cold_failures_total";
/// Messages that a page did not show because their texts are lost or damaged in the object store.
pub const HISTORY_UNREADABLE_TOTAL: &str = "chat_gateway_history_unreadable_total";
/// Messages in answered pages of exports.
pub const EXPORTED_MESSAGES_TOTAL: &str = "chat_gateway_exported_messages_total";
/// Statements sent to PostgreSQL by requests.
pub const STATEMENTS_TOTAL: &str = "chat_gateway_sql_statements_total";
/// Reads that replicas may be asked for, by `from` (`replica` or `primary`) and `reason`; none without replicas.
pub const READS_TOTAL: &str = "chat_gateway_reads_total";
/// How old what a replica has may be, by `replica`: its place among the addresses.
pub const REPLICA_LAG_SECONDS: &str = "chat_gateway_replica_lag_seconds";
/// Commands refused, by `code`.
pub const REJECTED_TOTAL: &str = "chat_gateway_rejected_total";
/// Changes of conversations that the log has yet to hear of.
pub const OUTBOX_PENDING: &str = "chat_gateway_outbox_pending";
/// Age of the oldest of them.
pub const OUTBOX_OLDEST_SECONDS: &str = "chat_gateway_outbox_oldest_seconds";
/// Conversations whose pending changes a sweep could not publish; each is tried again.
pub const OUTBOX_FAILURES_TOTAL: &str = "chat_gateway_outbox_failures_total";
/// Days after today that this gateway has a content key for.
pub const CONTENT_KEYS_AHEAD_DAYS: &str = "chat_gateway_content_keys_ahead_days";
/// Stored content keys that don't open with this gateway's master key.
pub const CONTENT_KEYS_UNOPENED: &str = "chat_gateway_content_keys_unopened";
/// Fetches of the content keys that failed or found none; those that were fetched before stay in use.
pub const CONTENT_KEYS_FAILURES_TOTAL: &str = "chat_gateway_content_keys_failures_total";
/// Entries of a key set that are skipped because they can't be read, by `set`: `token_keys` or `service_keys`.
pub const KEY_SET_SKIPPED: &str = "chat_gateway_key_set_skipped";
/// Fetches that gave no usable key, by `set`; the last usable key set stays in use.
pub const KEY_SET_FAILURES_TOTAL: &str = "chat_gateway_key_set_failures_total";
/// Messages that neither PostgreSQL nor the log had though both should.
pub const HISTORY_HOLES_TOTAL: &str = "chat_gateway_history_holes_total";
/// Questions to the log for events that PostgreSQL may not have yet, by `way`: for `one` event, or for `many`.
pub const LOG_READS_TOTAL: &str = "chat_gateway_log_reads_total";
/// Questions that were not sent because their user has had too many events read.
pub const LOG_READS_BOUNDED_TOTAL: &str = "chat_gateway_log_reads_bounded_total";

/// Cases that wait for an agent.
pub const CASES_WAITING: &str = "chat_gateway_cases_waiting";
/// Age of the oldest of them.
pub const CASES_WAITING_OLDEST_SECONDS: &str = "chat_gateway_cases_waiting_oldest_seconds";
/// Waiting cases that agents have given back five times or more often.
pub const CASES_BOUNCED: &str = "chat_gateway_cases_bounced";
/// Cases that have been waiting for more than a minute although an agent could take them.
pub const CASES_STARVED: &str = "chat_gateway_cases_starved";
/// Members of staff that say that they are available.
pub const STAFF_AVAILABLE: &str = "chat_gateway_staff_available";
/// Cases given to agents, by `reason`.
pub const ASSIGNMENTS_TOTAL: &str = "chat_gateway_assignments_total";
/// Cases that agents have no more, by `reason`.
pub const ASSIGNMENTS_RELEASED_TOTAL: &str = "chat_gateway_assignments_released_total";
/// Seconds that a case has waited when an agent gets it.
pub const ASSIGNMENT_WAIT_SECONDS: &str = "chat_gateway_assignment_wait_seconds";
/// Seconds of one pass of the router, from the wait for its turn to the commit.
pub const ROUTE_SECONDS: &str = "chat_gateway_route_seconds";
/// Staff lists that were pushed or compared, by `outcome`.
pub const STAFF_LISTS_TOTAL: &str = "chat_gateway_staff_lists_total";
/// Attempts to ask kaha-main-v3 for staff lists, by `outcome`.
pub const STAFF_CALLS_TOTAL: &str = "chat_gateway_staff_calls_total";
/// Seconds of such an attempt.
pub const STAFF_CALL_SECONDS: &str = "chat_gateway_staff_call_seconds";
/// Whether kaha-main-v3 is asked for no staff lists because it failed.
pub const STAFF_BREAKER_OPEN: &str = "chat_gateway_staff_breaker_open";

/// Times that users said that they have read something.
pub const READ_MARKS_TOTAL: &str = "chat_gateway_read_marks_total";
/// Receipts that were made of them, and of confirmations, by `kind`: `read` or `delivered`.
pub const RECEIPTS_TOTAL: &str = "chat_gateway_receipts_total";

/// Users that were announced as come or gone.
pub const PRESENCE_ANNOUNCED_TOTAL: &str = "chat_gateway_presence_announced_total";
/// Announcements that were dropped because too many waited for NATS.
pub const PRESENCE_DROPPED_TOTAL: &str = "chat_gateway_presence_dropped_total";
/// Users whose presence was pushed, once for each connection.
pub const PRESENCE_PUSHED_TOTAL: &str = "chat_gateway_presence_pushed_total";
/// Pairs of a connection and a user whom it watches.
pub const WATCHES: &str = "chat_gateway_presence_watches";
/// States of businesses that were pushed, once for each connection.
pub const BUSINESSES_PUSHED_TOTAL: &str = "chat_gateway_businesses_pushed_total";
/// Pairs of a connection and a business that it watches.
pub const BUSINESS_WATCHES: &str = "chat_gateway_business_watches";
/// Times that somebody was said to write or to have stopped, passed on to other gateways.
pub const TYPING_PASSED_TOTAL: &str = "chat_gateway_typing_passed_total";
/// Writers who were not heard of for too long.
pub const TYPING_EXPIRED_TOTAL: &str = "chat_gateway_typing_expired_total";
/// Ends of sessions that were queued because something was not confirmed.
pub const SESSION_ENDED_JOBS_TOTAL: &str = "chat_gateway_session_ended_jobs_total";
/// Ends of sessions that could not be queued: somebody may not be notified.
pub const SESSION_ENDED_JOBS_LOST_TOTAL: &str = "chat_gateway_session_ended_jobs_lost_total";

/// A count as a gauge takes it.
#[expect(clippy::cast_precision_loss, reason = "a gauge; counts stay far below 2^52")]
pub const fn as_gauge(count: i64) -> f64 {
    count as f64
}

/// Describes the metrics, and touches those counters that have no labels.
pub fn describe() {
    describe_counter!(UNAVAILABLE_TOTAL, "Requests and commands refused because a part was out of reach");
    describe_counter!(ACCEPTED_TOTAL, "Messages accepted");
    describe_counter!(REPEATS_TOTAL, "Messages that had been accepted before");
    describe_histogram!(ACCEPT_SECONDS, "Seconds from a valid send to its answer");
    describe_counter!(APPEND_RETRIES_TOTAL, "Appends repeated because another append came first");
    describe_counter!(QUOTA_REFUSED_TOTAL, "Requests and commands refused because a quota of the day was used up");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(CLOSED_TOTAL, "Connections that ended");
    describe_gauge!(SOCKETS, "Open sockets, whatever they carry");
    describe_counter!(EDGE_REFUSED_TOTAL, "Connections and requests refused before anything looked at them");
    describe_gauge!(REVOCATIONS, "Logouts remembered until their tokens have expired");
    describe_counter!(REVOCATIONS_DROPPED_TOTAL, "Logouts forgotten before, because there were too many");
    describe_counter!(INTERNAL_REQUESTS_TOTAL, "Requests of other services");
    describe_counter!(PUSHED_TOTAL, "Pushes put in outboxes");
    describe_counter!(RESUMES_TOTAL, "Connections that said hello");
    describe_counter!(PANICS_TOTAL, "Deliveries and events that were skipped because work on them panicked");
    describe_counter!(CATCH_UPS_TOTAL, "Gaps in live pushes that were filled from the inbox");
    describe_counter!(
        UNHEARD_TOTAL,
        "Removals, blocks and logouts answered before every live gateway had taken them in"
    );
    describe_counter!(STATEMENTS_TOTAL, "Statements sent to PostgreSQL by requests");
    describe_counter!(READS_TOTAL, "Reads that replicas of PostgreSQL may be asked for");
    describe_gauge!(REPLICA_LAG_SECONDS, "Age of what a replica of PostgreSQL has; 60 if it is older, or away");
    describe_counter!(REJECTED_TOTAL, "Commands refused");
    describe_gauge!(OUTBOX_PENDING, "Changes of conversations that the log has yet to hear of");
    describe_gauge!(OUTBOX_OLDEST_SECONDS, "Age of the oldest of them in seconds");
    describe_counter!(OUTBOX_FAILURES_TOTAL, "Conversations whose pending changes could not be published in a sweep");
    describe_gauge!(CONTENT_KEYS_AHEAD_DAYS, "Days after today that this gateway has a content key for");
    describe_gauge!(CONTENT_KEYS_UNOPENED, "Stored content keys that don't open with this gateway's master key");
    describe_counter!(CONTENT_KEYS_FAILURES_TOTAL, "Fetches of the content keys that failed or found none");
    describe_gauge!(KEY_SET_SKIPPED, "Entries of a key set that are skipped because they can't be read");
    describe_counter!(KEY_SET_FAILURES_TOTAL, "Fetches of a key set that gave no usable key");
    describe_counter!(COLD_READS_TOTAL, "Packs of old texts of which a page read chunks from the object store");
    describe_counter!(COLD_FAILURES_TOTAL, "Pages that did not get all old texts from the object store");
    describe_counter!(
        HISTORY_UNREADABLE_TOTAL,
        "Messages not shown because the object store lost or damaged their texts"
    );
    describe_counter!(EXPORTED_MESSAGES_TOTAL, "Messages in answered pages of exports");
    describe_counter!(HISTORY_HOLES_TOTAL, "Numbers that neither PostgreSQL nor the log has a message for");
    describe_counter!(LOG_READS_TOTAL, "Questions to the log for events that PostgreSQL may not have yet");
    describe_counter!(LOG_READS_BOUNDED_TOTAL, "Questions not sent because their user has had too many events read");
    describe_counter!(READ_MARKS_TOTAL, "Marks of what users have read, before those that belong together are one");
    describe_counter!(RECEIPTS_TOTAL, "Receipts written to the log or told to senders");
    describe_counter!(PRESENCE_ANNOUNCED_TOTAL, "Users announced as come or gone");
    describe_counter!(PRESENCE_DROPPED_TOTAL, "Announcements dropped because too many waited for NATS");
    describe_counter!(PRESENCE_PUSHED_TOTAL, "Users whose presence was pushed, once for each connection");
    describe_gauge!(WATCHES, "Pairs of a connection and a user whom it watches");
    describe_counter!(TYPING_PASSED_TOTAL, "Beginnings and ends of typing passed on to gateways");
    describe_counter!(TYPING_EXPIRED_TOTAL, "Writers who were not heard of for too long");
    describe_counter!(SESSION_ENDED_JOBS_TOTAL, "Ends of sessions queued because something was not confirmed");
    describe_counter!(SESSION_ENDED_JOBS_LOST_TOTAL, "Ends of sessions that the full queue did not take");
    for name in [
        ACCEPTED_TOTAL,
        REPEATS_TOTAL,
        APPEND_RETRIES_TOTAL,
        PUSHED_TOTAL,
        REVOCATIONS_DROPPED_TOTAL,
        PANICS_TOTAL,
        CATCH_UPS_TOTAL,
        UNHEARD_TOTAL,
        STATEMENTS_TOTAL,
        HISTORY_HOLES_TOTAL,
        COLD_READS_TOTAL,
        COLD_FAILURES_TOTAL,
        HISTORY_UNREADABLE_TOTAL,
        EXPORTED_MESSAGES_TOTAL,
        OUTBOX_FAILURES_TOTAL,
        LOG_READS_BOUNDED_TOTAL,
        PRESENCE_ANNOUNCED_TOTAL,
        PRESENCE_DROPPED_TOTAL,
        PRESENCE_PUSHED_TOTAL,
        TYPING_PASSED_TOTAL,
        TYPING_EXPIRED_TOTAL,
        SESSION_ENDED_JOBS_TOTAL,
        SESSION_ENDED_JOBS_LOST_TOTAL,
        READ_MARKS_TOTAL,
    ] {
        metrics::counter!(name).absolute(0);
    }
    for way in ["one", "many"] {
        metrics::counter!(LOG_READS_TOTAL, "way" => way).absolute(0);
    }
    metrics::gauge!(CONNECTIONS).set(0);
    metrics::gauge!(SOCKETS).set(0);
    metrics::gauge!(REVOCATIONS).set(0);
    metrics::gauge!(WATCHES).set(0);
    metrics::gauge!(CONTENT_KEYS_AHEAD_DAYS).set(0);
    metrics::gauge!(CONTENT_KEYS_UNOPENED).set(0);
    metrics::counter!(CONTENT_KEYS_FAILURES_TOTAL).absolute(0);
    describe_businesses();
}

fn describe_businesses() {
    describe_gauge!(CASES_WAITING, "Cases that wait for an agent, of the whole installation");
    describe_gauge!(CASES_WAITING_OLDEST_SECONDS, "Age of the oldest waiting case in seconds");
    describe_gauge!(CASES_BOUNCED, "Waiting cases that agents have given back five times or more often");
    describe_gauge!(CASES_STARVED, "Cases waiting for more than a minute although an agent could take them");
    describe_gauge!(STAFF_AVAILABLE, "Members of staff that say that they are available");
    describe_counter!(ASSIGNMENTS_TOTAL, "Cases given to agents");
    describe_counter!(ASSIGNMENTS_RELEASED_TOTAL, "Cases that agents have no more");
    describe_histogram!(ASSIGNMENT_WAIT_SECONDS, "Seconds that a case has waited when the router gives it to an agent");
    describe_histogram!(ROUTE_SECONDS, "Seconds of one pass of the router");
    describe_counter!(STAFF_LISTS_TOTAL, "Staff lists that were pushed or compared");
    describe_counter!(STAFF_CALLS_TOTAL, "Attempts to ask kaha-main-v3 for staff lists");
    describe_histogram!(STAFF_CALL_SECONDS, "Seconds of such an attempt");
    describe_gauge!(STAFF_BREAKER_OPEN, "1 while kaha-main-v3 is asked for no staff lists because it failed");
    describe_counter!(BUSINESSES_PUSHED_TOTAL, "States of businesses pushed, once for each connection");
    describe_gauge!(BUSINESS_WATCHES, "Pairs of a connection and a business that it watches");
    for reason in AssignmentReason::ALL {
        metrics::counter!(ASSIGNMENTS_TOTAL, "reason" => reason.as_str()).absolute(0);
    }
    for reason in ReleaseReason::ALL {
        metrics::counter!(ASSIGNMENTS_RELEASED_TOTAL, "reason" => reason.as_str()).absolute(0);
    }
    for outcome in ListOutcome::ALL {
        metrics::counter!(STAFF_LISTS_TOTAL, "outcome" => outcome.as_str()).absolute(0);
    }
    metrics::counter!(BUSINESSES_PUSHED_TOTAL).absolute(0);
    metrics::gauge!(BUSINESS_WATCHES).set(0);
}
