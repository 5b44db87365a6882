//! What each service may do in the object store, and which service has which secret.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use chat_cold::store::{Purpose, PutError, Store, StoreError, StoreSettings};
use chat_dev::{
    fleet::{Fleet, FleetOptions, Service},
    test_servers::TestServers,
};

/// The store as a service finds it by its environment.
fn store_of(service: &Service) -> Result<Store> {
    let settings: BTreeMap<_, _> = service.process().env().iter().cloned().collect();
    let of = |name: &str| settings.get(name).with_context(|| format!("{} has no {name}", service.name()));
    let settings = StoreSettings {
        cold_store_url: Some(of("CHAT_COLD_STORE_URL")?.parse()?),
        cold_store_endpoint: Some(of("CHAT_COLD_STORE_ENDPOINT")?.parse()?),
        cold_store_access_key_id: Some(of("CHAT_COLD_STORE_ACCESS_KEY_ID")?.clone()),
        cold_store_secret_access_key: Some(of("CHAT_COLD_STORE_SECRET_ACCESS_KEY")?.clone().into()),
        ..StoreSettings::default()
    };
    Store::open(&settings, Purpose::Writing)?.context("a store")
}

fn has(service: &Service, prefix: &str) -> bool {
    service.process().env().iter().any(|(name, _)| name.starts_with(prefix))
}

#[tokio::test]
async fn r6_4_r12_3_the_cold_worker_has_no_master_key_and_gateways_write_no_object() -> Result<()> {
    let servers = TestServers::from_env()?;
    // The services don't run: what they are started with is looked at.
    let fleet = Fleet::assemble(FleetOptions { has_cold: true, ..servers.private_fleet() }).await?;
    let cold = fleet.cold().context("a cold worker")?;
    ensure!(cold.process().args() == ["cold"], "{:?}", cold.process().args());
    for secret in ["CHAT_MASTER_KEY", "CHAT_NATS_URL", "CHAT_REDIS_URL"] {
        ensure!(!has(cold, secret), "the cold worker has {secret}");
    }
    for service in [fleet.persister(), fleet.notifier(), fleet.retention()] {
        ensure!(!has(service, "CHAT_COLD_STORE"), "{} has the object store", service.name());
    }
    let worker = store_of(cold)?;
    worker.put_new("1.pack", "sealed".into()).await?;
    for gateway in fleet.gateways() {
        let gateway = store_of(gateway)?;
        ensure!(gateway.read("1.pack").await? == "sealed");
        ensure!(matches!(gateway.put_new("2.pack", "forged".into()).await, Err(PutError::Refused(_))));
        ensure!(matches!(gateway.delete("1.pack").await, Err(StoreError::Refused(_))));
    }
    worker.delete("1.pack").await?;
    fleet.stop().await
}
