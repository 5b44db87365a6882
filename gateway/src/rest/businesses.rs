//! Routes of businesses, for their staff: inbox, cases, assignments, status, settings.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    wire::{
        AssignmentList, BusinessAvailability, BusinessConversationPage, BusinessSettings, CaseState, ErrorBody,
        ResolveCase, SetAgent, SetStatus, StaffedBusinessList,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::{
    extract::{Body, InPath, InQuery, PageLimit},
    refusals::{AnyRefusal, BodyRefusal, MemberRefusal},
};
use crate::{
    auth::Identity,
    business::InboxQuery,
    quota::{EVENT_BYTES, Resource},
    refusal::Refusal,
    state::AppState,
};

/// What routes under a business may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum StaffRefusal {
    /// `not_found`: there is no such business, or the user is not on its staff in the role that this takes.
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// What changes of a case may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum CaseRefusal {
    /// `conflict`: the state of the case or of the agent does not allow it; the message says what does.
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// List the businesses of whose staff you are
///
/// Each with your role and status, your cases, and how many cases wait.
#[utoipa::path(
    get,
    path = "/v1/businesses",
    operation_id = "list_businesses",
    tag = "businesses",
    security(("bearer" = [])),
    responses((status = 200, description = "The businesses", body = StaffedBusinessList), AnyRefusal)
)]
pub async fn list(identity: Identity, State(state): State<AppState>) -> Result<Json<StaffedBusinessList>, Refusal> {
    Ok(Json(state.businesses.staffed(identity.user_id).await?))
}

/// Ask whether a business answers now
///
/// For every user. Aggregated from the hours and the agents of the business; at most five seconds old.
#[utoipa::path(
    get,
    path = "/v1/businesses/{business_id}/availability",
    operation_id = "get_availability",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    responses(
        (status = 200, description = "Whether it answers", body = BusinessAvailability),
        (status = 404, description = "`not_found`: there is no such business", body = ErrorBody),
        AnyRefusal,
    )
)]
pub async fn availability(
    _identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
) -> Result<Json<BusinessAvailability>, Refusal> {
    Ok(Json(state.businesses.availability(business_id).await?))
}

/// Which part of the inbox.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BusinessInboxQuery {
    /// Conversations whose cases are in this state: `waiting` unless given.
    #[serde(default = "waiting")]
    state: CaseState,
    /// Only those that this agent has or had last: a user's id, or `me`.
    #[param(value_type = Option<String>)]
    agent: Option<String>,
    /// Conversations of the page: 50 unless given, 100 at the most; more than that gets 100.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, example = 50)]
    limit: PageLimit,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

const fn waiting() -> CaseState {
    CaseState::Waiting
}

/// List the conversations of a business
///
/// Waiting ones: the oldest first; assigned and resolved ones: the latest first. Agents see which cases wait, and of the others
/// their own ones; they read the last message of their own ones alone. Supervisors see and read all.
#[utoipa::path(
    get,
    path = "/v1/businesses/{business_id}/conversations",
    operation_id = "list_business_conversations",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business"), BusinessInboxQuery),
    responses((status = 200, description = "A page", body = BusinessConversationPage), AnyRefusal, StaffRefusal)
)]
pub async fn inbox(
    identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
    InQuery(query): InQuery<BusinessInboxQuery>,
) -> Result<Json<BusinessConversationPage>, Refusal> {
    let agent_id = match query.agent.as_deref() {
        None => None,
        Some("me") => Some(identity.user_id),
        Some(id) => Some(id.parse::<UserId>().map_err(|error| Refusal::invalid(format!("`agent`: {error}, or `me`")))?),
    };
    state.rate.check_rows(identity.user_id, query.limit.0)?;
    let (limit, cursor) = (query.limit.0, query.cursor.as_deref());
    let wanted = InboxQuery { state: query.state, agent_id, limit, cursor };
    let page = state.businesses.inbox(identity.user_id, business_id, wanted).await?;
    for message in page.conversations.iter().filter_map(|conversation| conversation.last_message.as_ref()) {
        state.receipts.remember(message.conversation_id, message.message_id, message.seq);
    }
    Ok(Json(page))
}

/// Say whether you take cases
///
/// `available`: the router gives you cases as long as you are connected or have a device for notifications, up to your capacity.
/// `away`: it gives you none; you keep those that you have unless you give them back.
#[utoipa::path(
    put,
    path = "/v1/businesses/{business_id}/status",
    operation_id = "set_status",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    request_body = SetStatus,
    responses((status = 204, description = "It is so now"), AnyRefusal, BodyRefusal, StaffRefusal)
)]
pub async fn set_status(
    identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
    Body(request): Body<SetStatus>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.businesses.set_status(identity.user_id, business_id, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The case that was claimed.
#[derive(Serialize, ToSchema)]
pub struct Claimed {
    /// Its conversation.
    conversation_id: ConversationId,
}

/// Take the case that waits longest
#[utoipa::path(
    post,
    path = "/v1/businesses/{business_id}/claim",
    operation_id = "claim_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    responses(
        (status = 200, description = "The case is yours", body = Claimed),
        (status = 204, description = "No case waits"),
        AnyRefusal,
        StaffRefusal,
        CaseRefusal,
    )
)]
pub async fn claim(
    identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
) -> Result<Response, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    let claimed = state.businesses.claim(identity.user_id, business_id).await?;
    Ok(match claimed {
        Some(conversation_id) => Json(Claimed { conversation_id }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Read the settings of a business
///
/// Admins only.
#[utoipa::path(
    get,
    path = "/v1/businesses/{business_id}/settings",
    operation_id = "get_business_settings",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    responses((status = 200, description = "The settings", body = BusinessSettings), AnyRefusal, StaffRefusal)
)]
pub async fn settings(
    identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
) -> Result<Json<BusinessSettings>, Refusal> {
    Ok(Json(state.businesses.settings(identity.user_id, business_id).await?))
}

/// Replace the settings of a business
///
/// Admins only. `settings_version` is the version that the change is based on.
#[utoipa::path(
    put,
    path = "/v1/businesses/{business_id}/settings",
    operation_id = "set_business_settings",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    request_body = BusinessSettings,
    responses(
        (status = 200, description = "The settings with their new version", body = BusinessSettings),
        (status = 409, description = "`conflict`: the settings have changed since that version", body = ErrorBody),
        AnyRefusal,
        BodyRefusal,
        StaffRefusal,
    )
)]
pub async fn set_settings(
    identity: Identity,
    State(state): State<AppState>,
    InPath(business_id): InPath<BusinessId>,
    Body(settings): Body<BusinessSettings>,
) -> Result<Json<BusinessSettings>, Refusal> {
    Ok(Json(state.businesses.set_settings(identity.user_id, business_id, settings).await?))
}

/// Claim a case, or give it to another agent
///
/// Agents claim waiting cases and hand over their own ones; supervisors decide about all. The decision is based on the `version`
/// of the conversation. The other agent is available, reachable and not full, unless a supervisor forces it.
#[utoipa::path(
    put,
    path = "/v1/conversations/{conversation_id}/agent",
    operation_id = "set_agent",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = SetAgent,
    responses(
        (status = 204, description = "The agent has the case"),
        (status = 403, description = "`forbidden`: only supervisors use `force`", body = ErrorBody),
        AnyRefusal,
        BodyRefusal,
        MemberRefusal,
        CaseRefusal,
    )
)]
pub async fn set_agent(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(request): Body<SetAgent>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.businesses.set_agent(identity.user_id, conversation_id, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a case back to the queue
///
/// It keeps its age. By its agent or a supervisor.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{conversation_id}/agent",
    operation_id = "give_back",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "The case waits, or has no agent anyway"), AnyRefusal, MemberRefusal)
)]
pub async fn give_back(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.businesses.give_back(identity.user_id, conversation_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Confirm that you answer a case soon
///
/// Then the time for later answers counts instead of the time for the first one.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/accept",
    operation_id = "accept_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "It is noted"), AnyRefusal, MemberRefusal)
)]
pub async fn accept(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<StatusCode, Refusal> {
    state.businesses.accept(identity.user_id, conversation_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resolve a case
///
/// By its agent or a supervisor. `seq` is the last message that you have seen: a later message of the customer opens the next
/// case, also one that was accepted meanwhile.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/resolve",
    operation_id = "resolve_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = ResolveCase,
    responses((status = 204, description = "The case is resolved"), AnyRefusal, BodyRefusal, MemberRefusal)
)]
pub async fn resolve(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
    Body(request): Body<ResolveCase>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.businesses.resolve(identity.user_id, conversation_id, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Open a resolved case again
///
/// It becomes yours. For the agent that had it last, within 7 days, and for supervisors.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/reopen",
    operation_id = "reopen_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "The case is yours"), AnyRefusal, MemberRefusal, CaseRefusal)
)]
pub async fn reopen(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<StatusCode, Refusal> {
    state.quotas.take(identity.user_id, Resource::LogBytes, EVENT_BYTES)?;
    state.businesses.reopen(identity.user_id, conversation_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show which agents had the cases of a conversation, and why
///
/// To supervisors all assignments, each with the agents that the router compared; to an agent its own ones.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_id}/assignments",
    operation_id = "list_assignments",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 200, description = "The newest first", body = AssignmentList), AnyRefusal, MemberRefusal)
)]
pub async fn assignments(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<Json<AssignmentList>, Refusal> {
    Ok(Json(state.businesses.assignments(identity.user_id, conversation_id).await?))
}
