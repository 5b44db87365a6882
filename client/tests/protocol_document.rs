//! docs/protocol.md says what the code does: its examples are frames and bodies, its tables are complete.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use chat_client::{
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    positions::{Cursor, Seq},
    wire::{
        AddParticipants, Assignment, AssignmentList, AssignmentReason, Availability, BlockList, BusinessAvailability,
        BusinessConversation, BusinessConversationPage, BusinessQueue, BusinessSettings, Case, CaseState, CloseCode,
        Command, CommandFrame, Considered, ConversationName, ConversationPage, CreateConversation, Device, DeviceList,
        ErrorBody, ErrorCode, HistoryPage, MarkReadBody, Mute, Platform, Presence, PresenceList, ProfileList,
        ProfileState, Progress, Push, Receipt, ReceiptKind, RegisterDevice, ReleaseReason, ResolveCase, Role,
        SendMessageBody, ServerFrame, SetAgent, SetStatus, StaffLoad, StaffRole, StaffStatus, StaffedBusiness,
        StaffedBusinessList, Strategy, Ticket, Typing, UnreadTotal, UserProfile, Verdict, WatchedBusiness,
    },
};
use chat_shared::limits;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The examples, each with what it is an example of.
fn examples() -> Vec<(&'static str, Value)> {
    let blocks = DOCUMENT.split("```json ").skip(1);
    blocks
        .map(|block| {
            let (kind, rest) = block.split_once('\n').unwrap();
            let json = rest.split("```").next().unwrap();
            (kind, serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}")))
        })
        .collect()
}

/// Reads an example as what it claims to be, and writes it again.
fn again<T: DeserializeOwned + Serialize>(example: &Value) -> Value {
    let read: T = serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error} in {example}"));
    serde_json::to_value(read).unwrap()
}

#[test]
fn every_example_is_what_it_claims_to_be() {
    for (kind, mut example) in examples() {
        let written = match kind {
            "command" => again::<CommandFrame>(&example),
            "frame" => again::<ServerFrame>(&example),
            "ErrorBody" => again::<ErrorBody>(&example),
            "CreateConversation" => again::<CreateConversation>(&example),
            "AddParticipants" => again::<AddParticipants>(&example),
            "ConversationPage" => again::<ConversationPage>(&example),
            "SendMessageBody" => again::<SendMessageBody>(&example),
            "HistoryPage" => again::<HistoryPage>(&example),
            "MarkReadBody" => again::<MarkReadBody>(&example),
            "Mute" => again::<Mute>(&example),
            "UnreadTotal" => again::<UnreadTotal>(&example),
            "PresenceList" => again::<PresenceList>(&example),
            "RegisterDevice" => again::<RegisterDevice>(&example),
            "Device" => again::<Device>(&example),
            "DeviceList" => again::<DeviceList>(&example),
            "ProfileList" => again::<ProfileList>(&example),
            "BlockList" => again::<BlockList>(&example),
            "Ticket" => again::<Ticket>(&example),
            "BusinessAvailability" => again::<BusinessAvailability>(&example),
            "StaffedBusinessList" => again::<StaffedBusinessList>(&example),
            "BusinessConversationPage" => again::<BusinessConversationPage>(&example),
            "SetStatus" => again::<SetStatus>(&example),
            "SetAgent" => again::<SetAgent>(&example),
            "ResolveCase" => again::<ResolveCase>(&example),
            "AssignmentList" => again::<AssignmentList>(&example),
            "BusinessSettings" => again::<BusinessSettings>(&example),
            other => panic!("the document has an example of {other}, which this test doesn't know"),
        };
        if kind == "command" && example["is_repeat"] == Value::Bool(false) {
            example.as_object_mut().unwrap().remove("is_repeat");
        }
        assert_eq!(written, example, "no field of an example may be unknown or missing");
    }
}

#[test]
fn every_frame_has_an_example() {
    let of = |wanted: &str| -> Vec<String> {
        let examples = examples().into_iter().filter(|(kind, _)| *kind == wanted);
        examples.map(|(_, example)| example["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("command"), Command::NAMES);
    let frames = [
        "accepted",
        "done",
        "rejected",
        "ready",
        "message",
        "conversation",
        "receipt",
        "receipt",
        "typing",
        "presence",
        "business",
        "skipped",
        "profile",
        "heartbeat",
        "going_away",
        // Of a business conversation, to its customer and to its agent.
        "conversation",
        "conversation",
    ];
    assert_eq!(of("frame"), frames);
}

/// Every key that stands anywhere in a value.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            found.insert(key.clone());
            keys(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// A watched business as a supervisor is shown it.
fn watched_business(user_id: UserId) -> WatchedBusiness {
    let at = Some(Timestamp(1));
    let member = StaffLoad {
        user_id,
        role: StaffRole::Agent,
        status: StaffStatus::Available,
        is_reachable: true,
        load: 1,
        capacity: 5,
    };
    let (business_id, state) = (BusinessId::random(), Availability::Busy);
    WatchedBusiness {
        availability: BusinessAvailability { business_id, state, opens_at: at, closes_at: at, waiting: Some(1) },
        queue: Some(BusinessQueue { waiting: 1, oldest_waiting_since: at, mine: 1, staff: Some(vec![member]) }),
    }
}

/// What the wire can say besides messages, with every field that may be absent.
fn everything_beside_messages() -> Vec<Value> {
    let (conversation_id, user_id, message_id) = (ConversationId::random(), UserId::random(), MessageId::random());
    let (seq, at) = (Seq(1), Timestamp(1));
    let presence = Presence { user_id, is_online: false, last_seen_at: Some(at) };
    let receipt =
        |kind| Receipt { conversation_id, user_id, kind, seq, message_id: Some(message_id), unread: Some(0), at };
    let cursor = Some(Cursor(1));
    let avatar_url = Some("https://cdn.example.org/asha.png".to_owned());
    let profile =
        UserProfile { user_id, name: "Asha".to_owned(), avatar_url: avatar_url.clone(), state: ProfileState::Current };
    let name = ConversationName { text: "Asha".to_owned(), more: 1, avatar_url, is_fallback: true };
    let pushes = [
        Push::Receipt { cursor, receipt: receipt(ReceiptKind::Read) },
        Push::Receipt { cursor, receipt: receipt(ReceiptKind::Delivered) },
        Push::Typing { typing: Typing { conversation_id, user_id, is_typing: true } },
        Push::Presence { users: vec![presence] },
        Push::Business { business: watched_business(user_id) },
        Push::Skipped { cursor: Cursor(1) },
        Push::Profile { profiles: ProfileList { users: vec![profile], businesses: Vec::new() } },
    ];
    let progress = Progress {
        user_id,
        since_seq: seq,
        read_seq: seq,
        last_read_message_id: Some(message_id),
        delivered_seq: Some(seq),
    };
    let mut values: Vec<Value> = pushes.iter().map(|push| serde_json::to_value(push).unwrap()).collect();
    values.push(serde_json::to_value(progress).unwrap());
    values.push(serde_json::to_value(name).unwrap());
    for mute in [Mute::Until(at), Mute::ForGood] {
        values.push(serde_json::to_value(mute).unwrap());
    }
    values
}

#[test]
fn every_field_of_what_is_pushed_besides_messages_is_documented() {
    let mut fields = BTreeSet::new();
    for value in everything_beside_messages() {
        keys(&value, &mut fields);
    }
    for field in fields {
        let is_documented = DOCUMENT.contains(&format!("\"{field}\":")) || DOCUMENT.contains(&format!("`{field}`"));
        assert!(is_documented, "{field}");
    }
}

/// Answers to staff of businesses, with every field that may be absent.
fn everything_of_businesses() -> Vec<Value> {
    let (business_id, conversation_id, user_id) = (BusinessId::random(), ConversationId::random(), UserId::random());
    let at = Timestamp(1);
    let staffed = StaffedBusiness {
        business_id,
        role: StaffRole::Agent,
        status: StaffStatus::Available,
        available_until: Some(at),
        load: 1,
        capacity: 5,
        waiting: 1,
    };
    let listed = BusinessConversation {
        conversation_id,
        version: 1,
        customer: UserProfile { user_id, name: "Asha".to_owned(), avatar_url: None, state: ProfileState::Current },
        case: Case { number: 1, state: CaseState::Assigned, waiting_since: at },
        agent_id: Some(user_id),
        last_agent_id: Some(user_id),
        needs_answer: true,
        given_back: 1,
        last_message: None,
    };
    let assignment = Assignment {
        assignment_id: 1,
        case_number: 1,
        agent_id: user_id,
        assigned_by: Some(user_id),
        reason: AssignmentReason::Routed,
        strategy: Strategy::LeastBusy,
        waited_ms: 1,
        candidates: vec![Considered { user_id, load: 1, is_online: true, verdict: Verdict::Chosen }],
        assigned_at: at,
        released_at: Some(at),
        release_reason: Some(ReleaseReason::Resolved),
    };
    let away = SetStatus { status: StaffStatus::Away, until: Some(at), gives_back: true };
    let forced = SetAgent { user_id, version: 1, force: true };
    let business = BusinessConversationPage { conversations: vec![listed], next_cursor: Some("1.a".to_owned()) };
    let values = [
        serde_json::to_value(StaffedBusinessList { businesses: vec![staffed] }),
        serde_json::to_value(business),
        serde_json::to_value(AssignmentList { assignments: vec![assignment] }),
        serde_json::to_value(away),
        serde_json::to_value(forced),
        serde_json::to_value(ResolveCase { seq: Seq(1) }),
    ];
    values.map(Result::unwrap).into()
}

#[test]
fn every_field_that_staff_are_shown_is_documented() {
    let mut fields = BTreeSet::new();
    for value in everything_of_businesses() {
        keys(&value, &mut fields);
    }
    for field in fields {
        let is_documented = DOCUMENT.contains(&format!("\"{field}\":")) || DOCUMENT.contains(&format!("`{field}`"));
        assert!(is_documented, "{field}");
    }
}

#[test]
fn every_name_of_business_conversations_is_documented() {
    let roles = [Role::Customer, Role::Agent, Role::Business].map(Role::as_str);
    let names = CaseState::ALL.iter().map(|name| name.as_str());
    let names = names.chain(StaffRole::ALL.iter().map(|name| name.as_str()));
    let names = names.chain(StaffStatus::ALL.iter().map(|name| name.as_str()));
    let names = names.chain(Strategy::ALL.iter().map(|name| name.as_str()));
    let names = names.chain(AssignmentReason::ALL.iter().map(|name| name.as_str()));
    let names = names.chain(ReleaseReason::ALL.iter().map(|name| name.as_str()));
    for name in names.chain(Verdict::ALL.iter().map(|name| name.as_str())).chain(roles) {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_platform_has_an_example_of_its_registration() {
    let registrations = examples().into_iter().filter(|(kind, _)| *kind == "RegisterDevice");
    let platforms: Vec<_> = registrations.map(|(_, example)| example["platform"].clone()).collect();
    assert_eq!(platforms, Platform::ALL.map(|platform| Value::from(platform.as_str())));
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs_f64());
    let rows = [
        ("users that a connection watches", limits::PRESENCE_USERS_MAX.to_string()),
        (
            "`set_typing` of a user on a gateway",
            format!("{} a second, {} at once", limits::TYPING_PER_SECOND_MAX, limits::TYPING_BURST_MAX),
        ),
        ("gathering receipts", seconds(limits::RECEIPTS_GATHER)),
        ("typing that isn't said again", seconds(limits::TYPING_EXPIRY)),
        ("waiting for names", seconds(limits::PROFILE_WAIT_MAX)),
        ("a ticket", format!("{}, once", seconds(limits::TICKET_LIFE))),
        ("profiles that one request asks for", limits::PROFILES_MAX.to_string()),
        ("users that a user blocks", limits::BLOCKS_MAX.to_string()),
        (
            "heartbeats, confirmations and pings",
            format!("{} a second, {} at once", limits::FRAMES_PER_SECOND_MAX, limits::FRAMES_BURST_MAX),
        ),
        ("a connection that broke", seconds(limits::PRESENCE_GRACE)),
        ("devices of a user that are registered for notifications", limits::NOTIFICATION_DEVICES_MAX.to_string()),
        ("a notification that can't be sent", format!("{} hours", limits::NOTIFICATION_TTL.as_secs() / 3600)),
    ];
    for (what, bound) in rows {
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| {what}")));
        let row = row.unwrap_or_else(|| panic!("no bound of {what}"));
        assert!(row.contains(&format!("| {bound} |")), "{row} has another bound than {bound}");
    }
}

#[test]
fn every_code_is_listed() {
    for code in CloseCode::ALL {
        let row = format!("| {} | `{}` |", code.code(), code.reason());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    // Exhaustive, so that a new code doesn't compile until it stands here, and so in the document.
    let next = |code: ErrorCode| match code {
        ErrorCode::Invalid => Some(ErrorCode::UnknownCommand),
        ErrorCode::UnknownCommand => Some(ErrorCode::HelloRequired),
        ErrorCode::HelloRequired => Some(ErrorCode::Unauthenticated),
        ErrorCode::Unauthenticated => Some(ErrorCode::Forbidden),
        ErrorCode::Forbidden => Some(ErrorCode::NotFound),
        ErrorCode::NotFound => Some(ErrorCode::Conflict),
        ErrorCode::Conflict => Some(ErrorCode::TooLarge),
        ErrorCode::TooLarge => Some(ErrorCode::RateLimited),
        ErrorCode::RateLimited => Some(ErrorCode::Internal),
        ErrorCode::Internal => Some(ErrorCode::Unavailable),
        // No gateway of this version sends it.
        ErrorCode::Unavailable | ErrorCode::Unknown => None,
    };
    for code in std::iter::successors(Some(ErrorCode::Invalid), |code| next(*code)) {
        let name = serde_json::to_value(code).unwrap();
        let row = format!("| `{}` | {} |", name.as_str().unwrap(), code.http_status());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

#[test]
fn every_link_within_the_document_leads_somewhere() {
    let headings: Vec<String> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        })
        .collect();
    for link in DOCUMENT.split("](#").skip(1) {
        let target = link.split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == target), "#{target} is not a heading");
    }
}
