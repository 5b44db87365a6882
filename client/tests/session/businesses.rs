//! Calls of business conversations, as a gateway gets them.

use chat_client::{
    Client,
    ids::{BusinessId, ConversationId, UserId},
    wire::{AssignmentList, BusinessConversationPage, CaseState, ErrorBody, ErrorCode, StaffedBusinessList},
};
use serde_json::json;

use crate::fake::{FakeGateway, http};

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// A gateway that gives these answers, and a client that asks it.
async fn answering(answers: impl IntoIterator<Item = String>) -> (FakeGateway, Client) {
    let gateway = FakeGateway::start().await;
    gateway.world.lock().unwrap().business_answers.extend(answers);
    let (client, _) = Client::start(gateway.options()).unwrap();
    (gateway, client)
}

#[tokio::test]
async fn a_claim_returns_the_conversation_or_none_if_no_case_waits() {
    let conversation_id = ConversationId::random();
    let claimed = http("200 OK", "", &json!({ "conversation_id": conversation_id }));
    let (_gateway, client) = answering([claimed, NO_CONTENT.to_owned()]).await;
    let business_id = BusinessId::random();
    assert_eq!(client.rest().claim(business_id).await, Ok(Some(conversation_id)));
    assert_eq!(client.rest().claim(business_id).await, Ok(None));
}

#[tokio::test]
async fn a_claim_beyond_the_capacity_is_a_conflict() {
    let full = ErrorBody { code: ErrorCode::Conflict, message: "full".into(), retry_after_ms: None };
    let (_gateway, client) = answering([http("409 Conflict", "", &full)]).await;
    let refused = client.rest().claim(BusinessId::random()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Conflict));
}

#[tokio::test]
async fn calls_of_the_staff_ask_for_the_documented_paths() {
    let (business_id, conversation_id, agent_id) = (BusinessId::random(), ConversationId::random(), UserId::random());
    let (business, conversation) = (business_id.as_uuid(), conversation_id.as_uuid());
    let answers = [
        http("200 OK", "", &StaffedBusinessList { businesses: Vec::new() }),
        http("200 OK", "", &BusinessConversationPage { conversations: Vec::new(), next_cursor: None }),
        NO_CONTENT.to_owned(),
        NO_CONTENT.to_owned(),
        NO_CONTENT.to_owned(),
        http("200 OK", "", &AssignmentList { assignments: Vec::new() }),
    ];
    let (gateway, client) = answering(answers).await;
    let rest = client.rest();
    assert_eq!(rest.businesses().await, Ok(Vec::new()));
    let page = rest.business_inbox(business_id, CaseState::Assigned, Some(agent_id), Some(20), Some("1.a")).await;
    assert_eq!(page.unwrap().conversations, Vec::new());
    rest.give_back(conversation_id).await.unwrap();
    rest.accept(conversation_id).await.unwrap();
    rest.reopen(conversation_id).await.unwrap();
    assert_eq!(rest.assignments(conversation_id).await, Ok(Vec::new()));
    let agent = agent_id.as_uuid();
    let expected = [
        "GET /v1/businesses".to_owned(),
        format!("GET /v1/businesses/{business}/conversations?state=assigned&agent={agent}&limit=20&cursor=1.a"),
        format!("DELETE /v1/conversations/{conversation}/agent"),
        format!("POST /v1/conversations/{conversation}/accept"),
        format!("POST /v1/conversations/{conversation}/reopen"),
        format!("GET /v1/conversations/{conversation}/assignments"),
    ];
    assert_eq!(gateway.world.lock().unwrap().business_requests, expected);
}
