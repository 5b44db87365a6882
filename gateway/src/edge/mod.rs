//! The edge: who may connect, from where, how often and how slowly, before anything else looks at a request.
//!
//! **Invariant:** no address of a person leaves this room, in a log line, a metric or an answer.

mod activity;
mod address;
mod admission;
mod bounds;
mod files;
mod headers;
mod heads;
mod origins;
mod proxy;
mod rates;
mod server;
mod settings;

#[cfg(test)]
pub use self::origins::BAD_ORIGINS;
pub use self::{
    activity::Waits,
    address::TrustedProxies,
    admission::{Admission, Full, Place},
    origins::Origins,
    proxy::ProxyProtocol,
    server::{Client, Door, serve},
    settings::EdgeSettings,
};

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use chat_shared::lifecycle::Tasks;
use tokio::{sync::oneshot, time::timeout};

use self::rates::AddressRates;
use crate::{refusal::Refusal, telemetry};

/// What keeps the clients' port.
pub struct Edge {
    /// Who may connect.
    pub door: Arc<Door>,
    origins: Origins,
    rates: AddressRates,
    tasks: Tasks,
}

impl Edge {
    /// As it is set.
    pub fn start(settings: &EdgeSettings, waits: Waits, tasks: &Tasks) -> Arc<Self> {
        let connections_max = files::allow(settings.connections_max.get().into());
        let bound = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX);
        let per_address_max = settings.connections_per_address_max.get().into();
        let admission = Admission::new(bound(connections_max), bound(per_address_max));
        Arc::new(Self {
            door: Arc::new(Door::new(admission, settings.trusted_proxies.clone(), settings.proxy_protocol, waits)),
            origins: settings.allowed_origins.clone(),
            rates: AddressRates::start(settings.requests_per_address_max, tasks),
            tasks: tasks.clone(),
        })
    }

    /// Puts everything that this room does with a request before a router.
    pub fn protect(self: &Arc<Self>, router: Router) -> Router {
        within_bounds(router, &self.door.waits, &self.tasks)
            .layer(middleware::from_fn_with_state(Arc::clone(self), count))
            .layer(self.origins.cors())
            .layer(middleware::map_response(headers::secured))
    }

    /// Refuses a page of a site that isn't in the list.
    pub fn check_origin(&self, headers: &axum::http::HeaderMap) -> Result<(), Refusal> {
        self.origins.check(headers).inspect_err(|_| note("origin"))
    }

    /// Refuses to look at a token if too many from there were no good.
    pub fn check_failures(&self, client: Client) -> Result<(), Refusal> {
        self.rates.check_failures(client.address).inspect_err(|_| note("address_failures"))
    }

    /// Counts a token that was no good.
    pub fn note_failure(&self, client: Client) {
        self.rates.note_failure(client.address);
    }

    /// The place that a WebSocket needs, beside its socket's: behind a proxy only now it is known whose it is.
    pub fn admit(&self, client: Client) -> Result<Option<Place>, Refusal> {
        if !client.is_forwarded {
            return Ok(None);
        }
        let admitted = self.door.admission.client(client.address);
        admitted.map(Some).map_err(|full| {
            note(full.reason());
            Refusal::no_room(full)
        })
    }
}

/// Bounds for a port that only services of ours reach: heads, bodies, times.
pub fn bounded(router: Router, door: &Door, tasks: &Tasks) -> Router {
    within_bounds(router, &door.waits, tasks).layer(middleware::map_response(headers::secured))
}

fn within_bounds(router: Router, waits: &Arc<Waits>, tasks: &Tasks) -> Router {
    router
        .layer(middleware::from_fn_with_state((tasks.clone(), Arc::clone(waits)), carry_through))
        .layer(middleware::from_fn_with_state(Arc::clone(waits), bounds::in_time))
        .layer(middleware::from_fn(bounds::small_head))
}

/// Carries every request that may change something to its end, also when its client hangs up: what follows a change,
/// such as telling the other gateways, must not be left out. One that is answered as too slow has as long again for that.
async fn carry_through(State((tasks, waits)): State<(Tasks, Arc<Waits>)>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (answer, answered) = oneshot::channel();
    tasks.best_effort("request", async move {
        if let Ok(response) = timeout(waits.request_max * 2, next.run(request)).await {
            // Whoever has hung up needs no answer.
            let _unread = answer.send(response);
        } else {
            tracing::warn!("a request that took too long is given up, maybe half done");
        }
    });
    answered.await.unwrap_or_else(|_| Refusal::internal(&Ended).into_response())
}

/// A request's task ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a request ended without an answer")]
struct Ended;

async fn count(State(edge): State<Arc<Edge>>, client: Client, request: Request, next: Next) -> Response {
    match edge.rates.check(client.address) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            note("address_requests");
            refusal.into_response()
        }
    }
}

fn note(reason: &'static str) {
    metrics::counter!(telemetry::EDGE_REFUSED_TOTAL, "reason" => reason).increment(1);
}

/// A router is served without the server that says who asks.
#[derive(Debug, thiserror::Error)]
#[error("it is not known who asks")]
struct Unknown;

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        parts.extensions.get().copied().ok_or_else(|| Refusal::internal(&Unknown))
    }
}
