//! What the OpenAPI document of the internal interface says beside the routes.

use chat_shared::wire::ErrorBody;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

/// The document's frame; the routes are added where they are made.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat, for other services",
        description = "What the platform's other services tell the chat backend. Whatever is refused is answered with an \
                       `ErrorBody`."
    ),
    tags(
        (name = "businesses", description = "Staff, and whether a business takes conversations"),
        (name = "profiles", description = "Names and pictures"),
        (name = "sessions", description = "Logouts"),
        (name = "users", description = "A user's data"),
        (name = "keys", description = "What the chat backend's own tokens are checked with"),
    ),
    modifiers(&ServiceToken)
)]
struct Frame;

struct ServiceToken;

impl Modify for ServiceToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "A service's token, made for the chat backend and good for five minutes at the most. Its `scope` has, \
                 separated by spaces, what the endpoint asks for.",
            ))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("service", SecurityScheme::Http(scheme));
    }
}

/// The document without routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// What routes that ask for a scope may answer.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only describes; refusals are answered by `Refusal`")]
pub enum ServiceRefusal {
    /// `forbidden`: the token lacks the scope that the message names.
    #[response(status = 403)]
    Forbidden(ErrorBody),
}
