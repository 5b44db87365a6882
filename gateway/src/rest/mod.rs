//! The REST interface under /v1, and its description at /openapi.json.
//!
//! **Invariant:** whatever is refused is refused with an [`chat_shared::wire::ErrorBody`], routes that don't exist included.

mod blocks;
mod businesses;
mod conversations;
mod describe;
mod devices;
mod extract;
#[cfg(test)]
mod fuzz;
mod messages;
mod mute;
mod presence;
mod profiles;
mod receipts;
mod refusals;
mod tickets;

pub use extract::{Body, InPath, InQuery};
pub use refusals::{AnyRefusal, BodyRefusal};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use chat_shared::{
    limits,
    wire::{ErrorBody, ErrorCode},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{refusal::Refusal, state::AppState};

/// All routes but the WebSocket's.
pub fn router() -> Router<AppState> {
    let (router, openapi) = described().split_for_parts();
    router
        .route("/openapi.json", get(async move || Json(openapi)))
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .fallback(async || Refusal::no_such_route())
        .method_not_allowed_fallback(wrong_method)
}

fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(describe::openapi())
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::get))
        .routes(routes!(conversations::add))
        .routes(routes!(conversations::remove))
        .routes(routes!(businesses::list))
        .routes(routes!(businesses::availability))
        .routes(routes!(businesses::inbox))
        .routes(routes!(businesses::set_status))
        .routes(routes!(businesses::claim))
        .routes(routes!(businesses::settings, businesses::set_settings))
        .routes(routes!(businesses::set_agent, businesses::give_back))
        .routes(routes!(businesses::accept))
        .routes(routes!(businesses::resolve))
        .routes(routes!(businesses::reopen))
        .routes(routes!(businesses::assignments))
        .routes(routes!(messages::page, messages::send))
        .routes(routes!(mute::mute, mute::unmute))
        .routes(routes!(receipts::mark_read))
        .routes(routes!(receipts::unread))
        .routes(routes!(presence::list))
        .routes(routes!(profiles::list))
        .routes(routes!(tickets::issue))
        .routes(routes!(devices::list))
        .routes(routes!(devices::register, devices::remove))
        .routes(routes!(blocks::list))
        .routes(routes!(blocks::block, blocks::unblock))
}

/// The closed list has no code for it, and a path that exists is not `not_found`.
pub async fn wrong_method() -> Response {
    let message = "this path does not take this method; `Allow` says which it takes".to_owned();
    let body = ErrorBody { code: ErrorCode::Invalid, message, retry_after_ms: None };
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::path::Operation;

    use super::*;

    fn operations() -> Vec<(String, Operation)> {
        let openapi = described().into_openapi();
        let by_method = |(path, item): (String, utoipa::openapi::PathItem)| {
            [("GET", item.get), ("POST", item.post), ("PUT", item.put), ("DELETE", item.delete), ("PATCH", item.patch)]
                .into_iter()
                .filter_map(move |(method, operation)| Some((format!("{method} {path}"), operation?)))
        };
        openapi.paths.paths.into_iter().flat_map(by_method).collect()
    }

    #[test]
    fn the_description_has_every_route() {
        let mut names: Vec<_> = operations().into_iter().map(|(name, _)| name).collect();
        names.sort();
        let expected = [
            "DELETE /v1/blocks/{user_id}",
            "DELETE /v1/conversations/{conversation_id}/agent",
            "DELETE /v1/conversations/{conversation_id}/mute",
            "DELETE /v1/conversations/{conversation_id}/participants/{user_id}",
            "DELETE /v1/devices/{device_id}",
            "GET /v1/blocks",
            "GET /v1/businesses",
            "GET /v1/businesses/{business_id}/availability",
            "GET /v1/businesses/{business_id}/conversations",
            "GET /v1/businesses/{business_id}/settings",
            "GET /v1/conversations",
            "GET /v1/conversations/{conversation_id}",
            "GET /v1/conversations/{conversation_id}/assignments",
            "GET /v1/conversations/{conversation_id}/messages",
            "GET /v1/devices",
            "GET /v1/presence",
            "GET /v1/profiles",
            "GET /v1/unread",
            "POST /v1/businesses/{business_id}/claim",
            "POST /v1/conversations",
            "POST /v1/conversations/{conversation_id}/accept",
            "POST /v1/conversations/{conversation_id}/messages",
            "POST /v1/conversations/{conversation_id}/participants",
            "POST /v1/conversations/{conversation_id}/read",
            "POST /v1/conversations/{conversation_id}/reopen",
            "POST /v1/conversations/{conversation_id}/resolve",
            "POST /v1/tickets",
            "PUT /v1/blocks/{user_id}",
            "PUT /v1/businesses/{business_id}/settings",
            "PUT /v1/businesses/{business_id}/status",
            "PUT /v1/conversations/{conversation_id}/agent",
            "PUT /v1/conversations/{conversation_id}/mute",
            "PUT /v1/devices/{device_id}",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let ids: Vec<_> = operations().into_iter().filter_map(|(_, operation)| operation.operation_id).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!((ids.len(), distinct.len()), (operations().len(), operations().len()), "{ids:?}");
    }

    #[test]
    fn every_route_documents_its_responses() {
        for (name, operation) in operations() {
            let documented = &operation.responses.responses;
            assert!(documented.keys().any(|status| status.starts_with('2')), "{name} succeeds somehow");
            let mut expected = vec!["400", "401", "429", "500", "503"];
            if name.contains("{conversation_id}") || name.contains("{business_id}") {
                expected.push("404");
            }
            for status in expected {
                assert!(documented.contains_key(status), "{name} says nothing of {status}");
            }
            let refusals = documented.iter().filter(|(status, _)| status.starts_with(['4', '5']));
            for (status, response) in refusals {
                let text = serde_json::to_string(response).unwrap();
                assert!(text.contains("ErrorBody"), "{name} answers {status} without an ErrorBody");
            }
            assert!(operation.summary.is_some_and(|summary| !summary.is_empty()), "{name} has no summary");
            assert!(operation.security.is_some(), "{name} says nothing of tokens");
            assert_eq!(operation.tags.map(|tags| tags.len()), Some(1), "{name} has one tag");
        }
    }
}
