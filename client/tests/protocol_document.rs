//! docs/protocol.md says what the code does: its examples are frames and bodies, its tables are complete.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use chat_client::wire::{
    AddParticipants, CloseCode, Command, CommandFrame, ConversationPage, CreateConversation, ErrorBody, ErrorCode,
    HistoryPage, SendMessageBody, ServerFrame,
};
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
    let frames = ["accepted", "done", "rejected", "ready", "message", "conversation", "heartbeat", "going_away"];
    assert_eq!(of("frame"), frames);
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
        ErrorCode::Unavailable => None,
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
