//! The endpoints of businesses: the staff, and whether a business takes conversations.

use axum::{extract::State, http::StatusCode};
use chat_shared::{ids::BusinessId, wire::ErrorBody};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Internal,
    describe::ServiceRefusal,
    service::{Allowed, Scope},
};
use crate::{
    business::StaffList,
    refusal::Refusal,
    rest::{AnyRefusal, Body, BodyRefusal, InPath},
};

/// Lets its bearer change businesses.
pub struct BusinessesWrite;

impl Scope for BusinessesWrite {
    const NAME: &'static str = "businesses:write";
}

/// Replace the staff of a business
///
/// Push the whole list with each change, under a version that grows. The first list makes the business. Once it is answered with
/// 204, users that are no longer on the list are pushed nothing of the conversations of the business, and their cases wait for
/// other agents. The stored version again is answered with 204, and its list is not compared: never use one version for two lists.
/// On 503 part of it may be in force: repeat it.
#[utoipa::path(
    put,
    path = "/internal/v1/businesses/{business_id}/staff",
    tag = "businesses",
    security(("service" = ["businesses:write"])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    request_body = StaffList,
    responses(
        (status = 204, description = "It is in force on all gateways"),
        (status = 409, description = "`conflict`: a newer version is stored", body = ErrorBody),
        AnyRefusal,
        BodyRefusal,
        ServiceRefusal,
    )
)]
pub async fn set_staff(
    _service: Allowed<BusinessesWrite>,
    State(Internal { state, .. }): State<Internal>,
    InPath(business_id): InPath<BusinessId>,
    Body(list): Body<StaffList>,
) -> Result<StatusCode, Refusal> {
    state.businesses.set_staff(business_id, &list).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a business takes conversations.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBusiness {
    /// False: its cases are resolved, and nothing is sent in its conversations any more. History stays.
    is_open: bool,
}

/// Open a business to conversations, or close it
///
/// On 503 part of it may be in force: repeat it.
#[utoipa::path(
    put,
    path = "/internal/v1/businesses/{business_id}",
    tag = "businesses",
    security(("service" = ["businesses:write"])),
    params(("business_id" = BusinessId, Path, description = "Which business")),
    request_body = OpenBusiness,
    responses((status = 204, description = "It is in force"), AnyRefusal, BodyRefusal, ServiceRefusal)
)]
pub async fn set_open(
    _service: Allowed<BusinessesWrite>,
    State(Internal { state, .. }): State<Internal>,
    InPath(business_id): InPath<BusinessId>,
    Body(OpenBusiness { is_open }): Body<OpenBusiness>,
) -> Result<StatusCode, Refusal> {
    state.businesses.set_open(business_id, is_open).await?;
    Ok(StatusCode::NO_CONTENT)
}
