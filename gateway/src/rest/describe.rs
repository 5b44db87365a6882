//! What the OpenAPI document says beside the routes.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

/// The document's frame; the routes are added where they are made.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat",
        description = "What is not live: conversations, their participants, history, what is unread, devices for \
                       notifications, and sending for servers and scripts. Live messages travel by WebSocket at /v1/ws. \
                       Ids are UUIDs of version 4; moments are milliseconds since 1970-01-01T00:00:00Z; whatever is \
                       refused is answered with an `ErrorBody`. A conversation that doesn't exist and one of other \
                       people are the same `not_found`."
    ),
    tags(
        (name = "conversations", description = "Make, list and show conversations, and change who takes part"),
        (name = "businesses", description = "Answer the customers of a business, and say how its cases are assigned"),
        (name = "messages", description = "Read history and send"),
        (name = "presence", description = "Ask who is there"),
        (name = "profiles", description = "Ask what somebody is called"),
        (name = "receipts", description = "Say what has been read, and ask what has not"),
        (name = "devices", description = "Register devices for notifications"),
        (name = "tickets", description = "Open a WebSocket without setting a header or a subprotocol"),
        (name = "blocks", description = "Say whom you want nothing to do with"),
    ),
    modifiers(&Bearer)
)]
struct Frame;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("A user's token. Its `sub` is the user's id."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document without routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}
