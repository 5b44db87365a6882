//! Asks kaha-main-v3 for profiles.

use std::{collections::HashMap, sync::Arc};

use chat_shared::{clock::Clock, outbound::is_loopback_url};
use reqwest::Url;
use serde::Serialize;
use uuid::Uuid;

use super::{
    answer,
    record::{ProfileId, Verdict},
    telemetry,
};
use crate::{
    auth::Signer,
    kaha::{CallError, Client, Endpoint, Metrics},
};

/// Where profiles are asked for.
static ENDPOINT: Endpoint = Endpoint {
    path: "api/batch/profiles",
    scope: "profiles:read",
    // Two hundred profiles of everyday lengths take a twentieth of it.
    answer_bytes_max: 1024 * 1024,
    metrics: Metrics {
        calls_total: telemetry::CALLS_TOTAL,
        call_seconds: telemetry::CALL_SECONDS,
        breaker_open: telemetry::BREAKER_OPEN,
    },
    consequence: "profiles are shown as they were last known",
    refused: "profiles can't be asked for",
};

/// What is asked for.
#[derive(Serialize)]
struct Request {
    user_ids: Vec<Uuid>,
    business_ids: Vec<Uuid>,
}

/// kaha-main-v3, as far as it knows profiles.
pub(super) struct Kaha {
    client: Client,
    allow_loopback: bool,
}

impl Kaha {
    /// At `url`, which is asked with tokens of `signer` for `audience`.
    pub fn new(url: &Url, audience: &str, signer: Arc<Signer>, clock: Clock) -> anyhow::Result<Self> {
        let client = Client::new(&ENDPOINT, url, audience, signer, clock)?;
        Ok(Self { client, allow_loopback: is_loopback_url(url) })
    }

    /// Whether a call would end before it began.
    pub fn is_resting(&self) -> bool {
        self.client.is_resting()
    }

    /// Whether it failed of late, so that no request should wait for it.
    pub fn has_failed(&self) -> bool {
        self.client.has_failed()
    }

    /// What it says of ids, [`chat_shared::limits::KAHA_CALL_IDS_MAX`] at the most. One that is missing then is one that it said
    /// nothing usable of.
    pub async fn ask(&self, ids: &[ProfileId]) -> Result<HashMap<ProfileId, Verdict>, CallError> {
        self.client.ask(&Request::of(ids), |body| answer::read(body, ids, self.allow_loopback)).await
    }
}

impl Request {
    fn of(ids: &[ProfileId]) -> Self {
        let (users, businesses): (Vec<_>, Vec<_>) = ids.iter().partition(|id| matches!(id, ProfileId::User(_)));
        let uuids = |ids: Vec<ProfileId>| ids.into_iter().map(ProfileId::as_uuid).collect();
        Self { user_ids: uuids(users), business_ids: uuids(businesses) }
    }
}
