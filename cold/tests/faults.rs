//! What a store that fails looks like, through a proxy that makes it fail.
#![expect(clippy::single_range_in_vec_init, reason = "one range of bytes is asked for, and not many numbers")]

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chat_cold::store::{Purpose, PutError, Store, StoreError};
use chat_dev::{
    servers::{Login, logins::url_as, seaweedfs},
    store_proxy::{StoreFault, StoreProxy},
    test_servers::TestServers,
};
use hyper::Method;

/// The store of a worker and of a gateway, through a proxy, and of a worker that passes it by.
struct Scene {
    proxy: StoreProxy,
    worker: Store,
    gateway: Store,
    direct: Store,
}

impl Scene {
    async fn set() -> Result<Self> {
        let url = TestServers::from_env()?.store().await?;
        let proxy = StoreProxy::open().await?;
        let (_, place) = url.rsplit_once('@').context("a key")?;
        let (address, _) = place.split_once('/').context("a bucket")?;
        proxy.lead_to(address.to_owned());
        let through = |login, purpose| {
            let mut settings = seaweedfs::settings(&url_as(&url, login))?;
            settings.cold_store_endpoint = Some(proxy.url().parse()?);
            Store::open(&settings, purpose)?.context("a store")
        };
        let (worker, gateway) = (through(Login::Cold, Purpose::Writing)?, through(Login::Gateway, Purpose::Reading)?);
        Ok(Self { worker, gateway, direct: seaweedfs::open(&url_as(&url, Login::Cold), Purpose::Writing)?, proxy })
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn r12_3_what_cannot_be_read_for_now_is_out_of_reach_and_read_when_it_is_healed() -> Result<()> {
    let scene = Scene::set().await?;
    scene.worker.put_new("1.pack", bytes("0123456789")).await?;
    for fault in [StoreFault::Refused, StoreFault::Stalled, StoreFault::Cut, StoreFault::FailedAfter] {
        scene.proxy.fail(fault, None);
        let error = scene.gateway.read_ranges("1.pack", &[2..4]).await.unwrap_err();
        ensure!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error}");
        scene.proxy.heal();
        ensure!(scene.gateway.read_ranges("1.pack", &[2..4]).await? == ["23"], "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn r12_3_a_fault_that_passes_is_not_seen() -> Result<()> {
    let scene = Scene::set().await?;
    scene.worker.put_new("1.pack", bytes("0123456789")).await?;
    for fault in [StoreFault::Refused, StoreFault::Stalled, StoreFault::Cut, StoreFault::FailedAfter] {
        let faults = scene.proxy.faults();
        scene.proxy.fail_once(fault, Some(Method::GET));
        ensure!(scene.gateway.read_ranges("1.pack", &[2..4]).await? == ["23"], "{fault:?}");
        ensure!(scene.proxy.faults() == faults + 1, "{fault:?} was not felt");
    }
    Ok(())
}

#[tokio::test]
async fn r12_3_a_write_whose_answer_is_lost_is_not_taken_for_done() -> Result<()> {
    let scene = Scene::set().await?;
    scene.proxy.fail(StoreFault::FailedAfter, Some(Method::PUT));
    let outcome = scene.worker.put_new("1.pack", bytes("stored")).await;
    ensure!(matches!(outcome, Err(PutError::Unknown(_) | PutError::Exists)), "{outcome:?}");
    ensure!(scene.direct.read("1.pack").await? == "stored");
    scene.proxy.fail_once(StoreFault::FailedAfter, Some(Method::PUT));
    let outcome = scene.worker.put_new("2.pack", bytes("stored")).await;
    ensure!(outcome == Err(PutError::Exists), "the second attempt finds the first: {outcome:?}");
    scene.proxy.fail(StoreFault::Refused, Some(Method::PUT));
    let outcome = scene.worker.put_new("3.pack", bytes("lost")).await;
    ensure!(matches!(outcome, Err(PutError::Unknown(_))), "{outcome:?}");
    ensure!(scene.direct.read("3.pack").await == Err(StoreError::Missing));
    Ok(())
}

#[tokio::test]
async fn other_bytes_are_the_readers_to_notice() -> Result<()> {
    let scene = Scene::set().await?;
    scene.worker.put_new("1.pack", bytes("0123456789")).await?;
    scene.proxy.fail(StoreFault::OtherBytes, Some(Method::GET));
    let found = scene.gateway.read_ranges("1.pack", &[2..4]).await?;
    ensure!(found == [[!b'2', !b'3'].as_slice()], "{found:?}");
    Ok(())
}
