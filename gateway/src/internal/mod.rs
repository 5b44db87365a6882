//! The interface of the platform's other services, under /internal/v1, on a port of its own.
//!
//! **Invariant:** every request but for public keys and the description shows a service token, and each endpoint asks for
//! its scope before it reads anything else. What is refused is refused with an [`chat_shared::wire::ErrorBody`].

mod businesses;
mod describe;
mod export;
mod keys;
mod profiles;
mod service;
mod sessions;
mod settings;

pub use settings::InternalSettings;

use std::sync::Arc;

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use chat_shared::{lifecycle::Tasks, limits};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::service::ServiceRates;
use crate::{
    auth::{ServiceVerifier, Signer},
    edge::{self, Admission, Door, ProxyProtocol, TrustedProxies, Waits},
    export::{Bounds, Exports},
    refusal::Refusal,
    rest,
    state::AppState,
    telemetry,
};

/// Open connections. Each service keeps a few.
const CONNECTIONS_MAX: usize = 1000;

/// What requests of other services work with.
#[derive(Clone)]
pub struct Internal {
    state: AppState,
    /// None if no service may call.
    services: Option<ServiceVerifier>,
    rates: ServiceRates,
    exports: Exports,
    /// Those that kaha-main-v3 checks our tokens with.
    public_keys: Arc<Value>,
}

impl Internal {
    /// For services whose tokens `services` takes; `signer` signs what is shown to them.
    pub fn new(state: AppState, services: Option<ServiceVerifier>, signer: Option<&Signer>) -> Self {
        let rates = ServiceRates::start(&state.tasks);
        let public_keys = Arc::new(signer.map_or_else(|| json!({ "keys": [] }), Signer::public_keys));
        let exports = Exports::new(state.clone(), Bounds::default());
        Self { state, services, rates, exports, public_keys }
    }

    /// Whether there is anything to serve.
    const fn is_wanted(services: Option<&ServiceVerifier>, signer: Option<&Signer>) -> bool {
        services.is_some() || signer.is_some()
    }
}

/// Serves it until the process drains, if it is set who may call it or whose keys it publishes.
pub async fn start(
    settings: &InternalSettings,
    user_audience: &str,
    signer: Option<&Signer>,
    state: &AppState,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let services = settings.verifier(user_audience, tasks)?;
    if !Internal::is_wanted(services.as_ref(), signer) {
        return Ok(());
    }
    let address = settings.internal_listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    tracing::info!(%address, "the gateway listens to other services");
    let router = router(Internal::new(state.clone(), services, signer));
    let (proxies, protocol) = (state.edge.door.proxies.clone(), settings.internal_proxy_protocol);
    tasks.essential("internal_http", serve(listener, router, proxies, protocol, tasks.clone()));
    Ok(())
}

/// As the clients' port, but for limits of each address: callers are few and known.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    proxies: TrustedProxies,
    protocol: ProxyProtocol,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let admission = Admission::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
    let door = Arc::new(Door::new(admission, proxies, protocol, Waits::default()));
    edge::serve(listener, edge::bounded(router, &door, &tasks), door, tasks).await
}

/// All routes.
pub fn router(internal: Internal) -> Router {
    let (router, openapi) = described().split_for_parts();
    router
        .route("/internal/openapi.json", get(async move || Json(openapi)))
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .fallback(async || Refusal::no_such_internal_route())
        .method_not_allowed_fallback(rest::wrong_method)
        .layer(middleware::from_fn(count))
        .with_state(internal)
}

fn described() -> OpenApiRouter<Internal> {
    OpenApiRouter::with_openapi(describe::openapi())
        .routes(routes!(businesses::set_open))
        .routes(routes!(businesses::set_staff))
        .routes(routes!(profiles::invalidate))
        .routes(routes!(sessions::close))
        .routes(routes!(export::page))
        .routes(routes!(keys::list))
}

/// Counts requests by what they asked and how they were answered.
async fn count(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let endpoint = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let outcome = response.status().as_str().to_owned();
    metrics::counter!(telemetry::INTERNAL_REQUESTS_TOTAL, "endpoint" => endpoint, "outcome" => outcome).increment(1);
    response
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::path::Operation;

    use super::*;

    fn operations() -> Vec<(String, Operation)> {
        let paths = described().into_openapi().paths.paths.into_iter();
        paths.filter_map(|(path, item)| Some((path, item.post.or(item.put).or(item.get)?))).collect()
    }

    #[test]
    fn every_route_documents_its_responses_and_its_scope_r6_3() {
        let scopes: Vec<_> = operations()
            .into_iter()
            .map(|(path, operation)| {
                let documented = &operation.responses.responses;
                let security = serde_json::to_value(&operation.security).unwrap();
                let scope = security[0]["service"][0].as_str().map(str::to_owned);
                assert!(documented.keys().any(|status| status.starts_with('2')), "{path} succeeds somehow");
                let refusals: &[&str] = match (&scope, &operation.request_body) {
                    (Some(_), Some(_)) => &["400", "401", "403", "413", "429", "500", "503"],
                    (Some(_), None) => &["400", "401", "403", "429", "500", "503"],
                    (None, _) => &["500"],
                };
                for status in refusals {
                    let response = serde_json::to_string(documented.get(*status).unwrap()).unwrap();
                    assert!(response.contains("ErrorBody"), "{path} answers {status} without an ErrorBody");
                }
                assert!(operation.summary.is_some_and(|summary| !summary.is_empty()), "{path} has no summary");
                (path, scope)
            })
            .collect();
        let expected = [
            ("/.well-known/jwks.json", None),
            ("/internal/v1/businesses/{business_id}", Some("businesses:write")),
            ("/internal/v1/businesses/{business_id}/staff", Some("businesses:write")),
            ("/internal/v1/profiles/invalidate", Some("profiles:invalidate")),
            ("/internal/v1/sessions/close", Some("sessions:close")),
            ("/internal/v1/users/{user_id}/export", Some("users:export")),
        ];
        assert_eq!(scopes, expected.map(|(path, scope)| (path.to_owned(), scope.map(str::to_owned))));
    }
}
