//! The endpoint of exports.

use axum::{
    extract::State,
    http::{HeaderName, header},
};
use chat_shared::ids::UserId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Internal,
    describe::ServiceRefusal,
    service::{Allowed, Scope},
};
use crate::{
    export::{ExportCursor, ExportLine},
    refusal::Refusal,
    rest::{AnyRefusal, InPath, InQuery},
};

/// How pages are written: one JSON object in each line.
const NDJSON: &str = "application/x-ndjson";

/// Lets its bearer read all that a user has written.
pub struct UsersExport;

impl Scope for UsersExport {
    const NAME: &'static str = "users:export";
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// The `cursor` of the last line of the page before; none for the first page.
    cursor: Option<String>,
}

/// Export a user's data
///
/// A page of lines, each a JSON object with a `type`. The last line is `end`, or `next` with the cursor for the next request. A
/// page without either was cut off: drop all of it, and repeat the request with the same cursor. Any gateway
/// answers any cursor. On 429 and 503 repeat the request with the same cursor after `Retry-After`: nothing is lost.
#[utoipa::path(
    get,
    path = "/internal/v1/users/{user_id}/export",
    tag = "users",
    security(("service" = ["users:export"])),
    params(("user_id" = UserId, Path, description = "Whose data"), ExportQuery),
    responses(
        (
            status = 200,
            description = "A page: this schema is that of each line",
            content_type = "application/x-ndjson",
            body = ExportLine
        ),
        AnyRefusal,
        ServiceRefusal,
    )
)]
pub async fn page(
    _service: Allowed<UsersExport>,
    State(Internal { exports, .. }): State<Internal>,
    InPath(user_id): InPath<UserId>,
    InQuery(ExportQuery { cursor }): InQuery<ExportQuery>,
) -> Result<([(HeaderName, &'static str); 1], Vec<u8>), Refusal> {
    let after = cursor.as_deref().map(ExportCursor::decode).transpose()?;
    Ok(([(header::CONTENT_TYPE, NDJSON)], Box::pin(exports.page(user_id, after)).await?))
}
