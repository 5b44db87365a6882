//! `--check-config`: what the gateway would read and connect to.

use std::{process::ExitCode, time::Duration};

use chat_cold::store::{Purpose, Store};
use chat_shared::{
    clock::Clock,
    config_check::{self, Report},
};
use reqwest::{StatusCode, Url};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{config::Config, database::check_replicas};

const APPLICATION: &str = "chat-gateway";
/// What this service does with tables of PostgreSQL.
const RIGHTS: &[(&str, &[&str])] = &[
    ("conversations", &["select", "insert", "update"]),
    ("participants", &["select", "insert", "update", "delete"]),
    ("outbox", &["select", "insert", "update", "delete"]),
    ("messages", &["select"]),
    ("content_keys", &["select"]),
    ("log_checkpoints", &["select"]),
    ("notification_devices", &["select", "insert", "update", "delete"]),
    ("blocks", &["select", "insert", "delete"]),
    ("cold_packs", &["select"]),
    ("cold_chunks", &["select"]),
];
/// How long kaha-main-v3 may take to answer. Clients wait much less, but this is to see whether it is there at all.
const KAHA_WAIT_MAX: Duration = Duration::from_secs(5);
/// What kaha-main-v3 is asked for: the last part of the path, and the scope.
const KAHA_ENDPOINTS: [(&str, &str); 2] = [("profiles", "profiles:read"), ("staff", "staff:read")];

/// Says what is wrong with the settings, and with what they lead to.
pub async fn run(config: &Config) -> ExitCode {
    let mut report = Report::default();
    report.telemetry(&config.telemetry);
    if let Err(error) = config.check_proxies() {
        report.wrong(format_args!("{error:#}"));
    }
    let master_keys = config_check::master_key(&mut report, &config.master_key);
    users_keys(&mut report, config).await;
    services_keys(&mut report, config).await;
    kaha(&mut report, config).await;
    let log = Box::pin(config_check::nats(&mut report, &config.nats, &config.namespace, APPLICATION)).await;
    let pool = Box::pin(config_check::postgres(&mut report, &config.postgres, APPLICATION)).await;
    config_check::rights(&mut report, pool.as_ref(), RIGHTS).await;
    check_replicas(&mut report, &config.replicas, pool.as_ref()).await;
    config_check::log_and_database(&mut report, pool.as_ref(), log.as_ref()).await;
    config_check::content_keys(&mut report, pool.as_ref(), master_keys.as_ref(), &Clock::System).await;
    Box::pin(config_check::redis(&mut report, &config.redis, &config.namespace)).await;
    cold_store(&mut report, config, pool.as_ref()).await;
    report.conclude()
}

/// Reads the beginning of the newest pack, if there is one.
async fn cold_store(report: &mut Report, config: &Config, pool: Option<&PgPool>) {
    let store =
        report.part("settings of the object store", Store::open(&config.cold_store, Purpose::Reading)).flatten();
    let Some(pool) = pool else { return };
    let newest = sqlx::query_scalar!("select object from cold_packs order by day desc, number desc limit 1");
    match (newest.fetch_optional(pool).await, store) {
        (Ok(None), None) => report.note("object store: none, and none is needed: no texts are in packs"),
        (Ok(Some(_)), None) => {
            report.wrong(
                "object store: CHAT_COLD_STORE_URL is missing, and old texts are in packs: their pages are refused",
            );
        }
        (Ok(Some(object)), Some(store)) => {
            report.part("object store", store.read_ranges(&object, std::slice::from_ref(&(0..1))).await.map(drop));
        }
        (Ok(None), Some(_)) => report.ok("object store: not tried, as there are no packs yet"),
        (Err(error), _) => report.wrong(format_args!("table cold_packs: {error}")),
    }
}

async fn users_keys(report: &mut Report, config: &Config) {
    let what = "keys of users' tokens";
    match config.tokens.verifier() {
        Err(error) => report.wrong(format_args!("{what}: {error:#}")),
        Ok(settings) => tell(report, what, settings.keys.try_once().await),
    }
}

async fn services_keys(report: &mut Report, config: &Config) {
    let what = "keys of services' tokens";
    match config.internal.keys() {
        Err(error) => report.wrong(format_args!("{what}: {error:#}")),
        Ok(None) => report.note(format_args!("{what}: none, so no service may call the internal interface")),
        Ok(Some(source)) => tell(report, what, source.try_once().await),
    }
    if config.internal.service_audience == config.tokens.jwt_audience {
        report.wrong(
            "CHAT_SERVICE_AUDIENCE is the same as CHAT_JWT_AUDIENCE, so that users' tokens would be taken for services'; \
             give another one",
        );
    }
}

fn tell(report: &mut Report, what: &str, outcome: anyhow::Result<String>) {
    match outcome {
        Ok(found) => report.ok(format_args!("{what}: {found}")),
        Err(error) => report.wrong(format_args!("{what}: {error:#}")),
    }
}

/// Asks kaha-main-v3 for the profile and the staff of a business that does not exist.
async fn kaha(report: &mut Report, config: &Config) {
    let settings = &config.profiles;
    let signer = match settings.signer() {
        Ok(signer) => signer,
        Err(error) => return report.wrong(format_args!("kaha-main-v3: {error:#}")),
    };
    let (Some(url), Some(signer)) = (&settings.kaha_url, signer) else {
        return report.note("kaha-main-v3: no address, so everybody is called by a neutral name");
    };
    for (what, scope) in KAHA_ENDPOINTS {
        let token = signer.token(&settings.kaha_audience, scope, Clock::System.now());
        match ask_kaha(url, what, &token).await {
            Ok(StatusCode::OK) => {}
            Ok(StatusCode::UNAUTHORIZED) => {
                return report.wrong(
                    "kaha-main-v3 refuses our token: has it our public keys (/.well-known/jwks.json of the internal port), and \
                     are CHAT_SERVICE_NAME and CHAT_KAHA_AUDIENCE what it expects?",
                );
            }
            Ok(StatusCode::FORBIDDEN) => {
                return report
                    .wrong(format_args!("kaha-main-v3 doesn't let this service do {scope}; have it allowed there"));
            }
            Ok(status) => {
                return report.wrong(format_args!(
                    "kaha-main-v3 answers {status} when it is asked for {what}; is CHAT_KAHA_URL its base address?"
                ));
            }
            Err(error) => {
                return report.wrong(format_args!("kaha-main-v3 is out of reach: {error:#}; is CHAT_KAHA_URL right?"));
            }
        }
    }
    report.ok("kaha-main-v3: it takes our token and answers");
}

async fn ask_kaha(base: &Url, what: &str, token: &str) -> anyhow::Result<StatusCode> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| anyhow::anyhow!("the address has no path"))?
        .pop_if_empty()
        .extend(["api", "batch", what]);
    let http = reqwest::Client::builder().timeout(KAHA_WAIT_MAX).redirect(reqwest::redirect::Policy::none()).build()?;
    let mut body = json!({ "business_ids": [Uuid::new_v4()] });
    if what == "profiles" {
        body["user_ids"] = json!([]);
    }
    Ok(http.post(url).bearer_auth(token).json(&body).send().await.map_err(reqwest::Error::without_url)?.status())
}
