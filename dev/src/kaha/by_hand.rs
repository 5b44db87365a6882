//! Endpoints for whoever tries things by hand, which the real kaha-main-v3 has not: changing a profile or the
//! staff of a business, logging somebody out, and calling `/internal/v1`.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use chat_shared::limits;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Accounts,
    notice::Notice,
    sign_in::{Refused, fault},
    staff::Member,
};

/// When gateways have surely given up one that died.
const GIVEN_UP_WITHIN: Duration = limits::GATEWAY_LEASE.saturating_add(Duration::from_secs(5));
/// Between two times that they are told.
const PAUSE: Duration = Duration::from_secs(1);

/// The endpoints.
pub fn router(accounts: Arc<Accounts>) -> Router {
    Router::new()
        .route("/dev/profiles", post(change_profile))
        .route("/dev/staff", post(change_staff))
        .route("/dev/logout", post(log_out))
        .route("/dev/service-tokens", post(issue_to_service))
        .with_state(accounts)
}

/// Whose profile becomes what. Without a `name` nobody has the id from now on.
#[derive(Debug, Deserialize)]
struct ProfileChange {
    user_id: Option<Uuid>,
    business_id: Option<Uuid>,
    name: Option<String>,
    avatar_url: Option<String>,
}

/// Changes a profile and tells a gateway.
async fn change_profile(
    State(accounts): State<Arc<Accounts>>,
    Json(change): Json<ProfileChange>,
) -> Result<StatusCode, Refused> {
    let avatar_url = change.avatar_url.as_deref();
    for id in change.user_id.iter().chain(&change.business_id) {
        accounts.profiles.forget(*id);
    }
    if let Some(name) = &change.name {
        if let Some(id) = change.user_id {
            accounts.profiles.set_user(id, name, avatar_url);
        }
        if let Some(id) = change.business_id {
            accounts.profiles.set_business(id, name, avatar_url);
        }
    }
    let (users, businesses) = (change.user_id.as_slice(), change.business_id.as_slice());
    answer(tell_some_gateway(&accounts, &Notice::profiles_changed(users, businesses)).await)
}

/// The staff of a business as of a version; without one, of the next version.
#[derive(Debug, Deserialize)]
struct StaffChange {
    business_id: Uuid,
    version: Option<u64>,
    staff: Vec<Member>,
    #[serde(default)]
    push: Push,
}

/// What becomes of the push of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Push {
    /// It is sent.
    #[default]
    Sent,
    /// It is lost: the chat finds the list when it compares.
    Lost,
    /// It is sent, and the list is not what staff is answered with: a push of an old list that is repeated.
    Repeated,
}

/// Changes the staff of a business, and gives it to a gateway.
async fn change_staff(
    State(accounts): State<Arc<Accounts>>,
    Json(change): Json<StaffChange>,
) -> Result<StatusCode, Refused> {
    let StaffChange { business_id, version, staff, push } = change;
    let next = || accounts.staff.get(business_id).map_or(0, |list| list.version).saturating_add(1);
    let version = version.unwrap_or_else(next);
    if push != Push::Repeated {
        accounts.staff.set(business_id, version, &staff);
    }
    if push == Push::Lost {
        return Ok(StatusCode::NO_CONTENT);
    }
    answer(tell_some_gateway(&accounts, &Notice::staff(business_id, version, &staff).unless_newer()).await)
}

/// Who logged out: from the login `sid`, or everywhere.
#[derive(Debug, Deserialize)]
struct Logout {
    user_id: Uuid,
    sid: Option<Uuid>,
}

async fn log_out(State(accounts): State<Arc<Accounts>>, Json(logout): Json<Logout>) -> Result<StatusCode, Refused> {
    answer(tell_some_gateway(&accounts, &Notice::logged_out(logout.user_id, logout.sid)).await)
}

fn answer(told: Result<()>) -> Result<StatusCode, Refused> {
    told.map(|()| StatusCode::NO_CONTENT).map_err(|failure| (StatusCode::BAD_GATEWAY, format!("{failure:#}")))
}

/// Tells one gateway; which of them is all the same, so the first that takes it. As long as one that died lately has not been
/// given up none of them does, so they are asked again.
pub(super) async fn tell_some_gateway(accounts: &Accounts, notice: &Notice) -> Result<()> {
    let urls = accounts.gateways.get().map_or(&[][..], Vec::as_slice);
    let deadline = Instant::now() + GIVEN_UP_WITHIN;
    loop {
        let mut failure = anyhow!("no gateway is known");
        for url in urls {
            match notice.tell(&accounts.service_tokens, url).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        if urls.is_empty() || Instant::now() >= deadline {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}

#[derive(Debug, Deserialize)]
struct ServiceTokenRequest {
    scopes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ServiceTokenAnswer {
    token: String,
}

async fn issue_to_service(
    State(accounts): State<Arc<Accounts>>,
    Json(request): Json<ServiceTokenRequest>,
) -> Result<Json<ServiceTokenAnswer>, Refused> {
    let scopes: Vec<&str> = request.scopes.iter().map(String::as_str).collect();
    Ok(Json(ServiceTokenAnswer { token: accounts.service_tokens.token(&scopes).map_err(|error| fault(&error))? }))
}
