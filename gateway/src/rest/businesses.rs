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
    refusals::{AnyRefusal, BodyRefusal},
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

/// What routes about a case may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum CaseMissing {
    /// `not_found`: there is no such conversation with a business, or the user has no right to this. Also if the case was taken
    /// from the user since, as by an earlier attempt of this request.
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

/// List the businesses whose staff you belong to
///
/// At most 100, each with your role and status, the number of your cases, and the number of cases that wait.
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
    /// Assigned cases that this agent has, other cases that it had last: a user's id, or `me`.
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
/// Waiting cases: the oldest first. Assigned and resolved ones: the one that was assigned or resolved last first. Agents see all
/// waiting cases, and of the others their own; supervisors see all cases. `last_message` is there only if you have the case now,
/// also for supervisors, who read other conversations with `GET /v1/conversations/{conversation_id}/messages`.
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

/// Set whether the router gives you cases
///
/// `available`: it does, up to your capacity, while you are connected or have a device registered for notifications.
/// `away`: it does not; you keep the cases that you have, unless `gives_back` is true.
#[utoipa::path(
    put,
    path = "/v1/businesses/{business_id}/status",
    operation_id = "set_status",
    tag = "businesses",
    security(("bearer" = [])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    request_body = SetStatus,
    responses((status = 204, description = "The status is set"), AnyRefusal, BodyRefusal, StaffRefusal)
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
///
/// It is a `conflict` if you have as many cases as your capacity allows. Each request takes a case: don't repeat one that was not
/// answered before you have looked at your conversations.
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
/// Agents claim waiting cases and hand over their own; supervisors decide about all. It is a `conflict` if the conversation has
/// another `version`, if the case is resolved, or if the agent is full. Another agent than you must be available and reachable too.
/// With `force`, which supervisors alone may use, neither is required.
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
        CaseMissing,
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
/// It keeps its age. For its agent and for supervisors. The router gives it to the same agent again only if every other available
/// and reachable agent has had it too.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{conversation_id}/agent",
    operation_id = "give_back",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "The case waits, or has no agent anyway"), AnyRefusal, CaseMissing)
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
/// For its agent. From now on the time for later answers (`reply_max_s`) counts instead of the time for the first one.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/accept",
    operation_id = "accept_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "It is noted"), AnyRefusal, CaseMissing)
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
/// For its agent and for supervisors. `seq` is the last message that you have seen: a later message of the customer opens the next
/// case, also one that is accepted while this request is on its way. A `seq` after the last message is `invalid`.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/resolve",
    operation_id = "resolve_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    request_body = ResolveCase,
    responses((status = 204, description = "The case is resolved"), AnyRefusal, BodyRefusal, CaseMissing)
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

/// Open the next case of a conversation whose case is resolved
///
/// It is assigned to you. For the agent that had the last case, within 7 days after it was resolved, and for supervisors. It is a
/// `conflict` if the case is not resolved, if the business is closed, or if you are an agent and full.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_id}/reopen",
    operation_id = "reopen_case",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 204, description = "The case is yours"), AnyRefusal, CaseMissing, CaseRefusal)
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
/// Supervisors get the newest 100 assignments, those of the router with the agents that it compared; an agent gets its own, without
/// these.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_id}/assignments",
    operation_id = "list_assignments",
    tag = "businesses",
    security(("bearer" = [])),
    params(("conversation_id" = ConversationId, Path, description = "Which conversation")),
    responses((status = 200, description = "The newest first", body = AssignmentList), AnyRefusal, CaseMissing)
)]
pub async fn assignments(
    identity: Identity,
    State(state): State<AppState>,
    InPath(conversation_id): InPath<ConversationId>,
) -> Result<Json<AssignmentList>, Refusal> {
    Ok(Json(state.businesses.assignments(identity.user_id, conversation_id).await?))
}
