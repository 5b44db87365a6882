//! The store against a server that speaks the protocol of S3.
#![expect(clippy::single_range_in_vec_init, reason = "one range of bytes is asked for, and not many numbers")]

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chat_cold::store::{Purpose, PutError, Store, StoreError};
use chat_dev::{
    paths,
    ports::Ports,
    servers::{Binaries, Login, Seaweedfs, logins::url_as, seaweedfs},
    test_servers::TestServers,
};
use futures_util::TryStreamExt;

/// A prefix of its own.
struct Scene {
    url: String,
}

impl Scene {
    async fn set() -> Result<Self> {
        Ok(Self { url: TestServers::from_env()?.store().await? })
    }

    fn store(&self, login: Login) -> Result<Store> {
        seaweedfs::open(&url_as(&self.url, login), Purpose::Writing)
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn is_refused<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Refused(_)))
}

#[tokio::test]
async fn an_object_is_written_once_read_in_parts_listed_and_deleted() -> Result<()> {
    let scene = Scene::set().await?;
    let (store, other) = (scene.store(Login::Cold)?, Scene::set().await?.store(Login::Cold)?);
    store.put_new("2026/01/1.pack", bytes("0123456789")).await?;
    ensure!(store.put_new("2026/01/1.pack", bytes("other")).await == Err(PutError::Exists));
    ensure!(store.read("2026/01/1.pack").await? == "0123456789");
    ensure!(store.read("2026/01/2.pack").await == Err(StoreError::Missing));

    let found = store.read_ranges("2026/01/1.pack", &[7..9, 0..2, 1..4, 5..5]).await?;
    ensure!(found == ["78", "01", "123", ""]);
    let cut = store.read_ranges("2026/01/1.pack", &[2..4, 8..12, 11..15]).await?;
    ensure!(cut == ["23", "89", ""], "{cut:?}");
    let far_apart = store.read_ranges("2026/01/1.pack", &[0..1, 5_000_000..5_000_001]).await?;
    ensure!(far_apart == ["0", ""], "{far_apart:?}");
    ensure!(store.read_ranges("2026/01/2.pack", &[0..1]).await == Err(StoreError::Missing));

    store.put_new("2026/011/1.pack", bytes("elsewhere")).await?;
    let listed: Vec<_> = store.list("2026/01").try_collect().await?;
    let [object] = listed.as_slice() else { anyhow::bail!("{listed:?}") };
    ensure!((object.name.as_str(), object.bytes) == ("2026/01/1.pack", 10), "{object:?}");
    ensure!(object.modified_at.year() > 2000, "{object:?}");
    ensure!(other.list("").try_collect::<Vec<_>>().await?.is_empty(), "a store sees what is under its prefix only");

    store.delete("2026/01/1.pack").await?;
    store.delete("2026/01/1.pack").await?;
    ensure!(store.read("2026/01/1.pack").await == Err(StoreError::Missing));
    Ok(())
}

#[tokio::test]
async fn r12_3_a_pack_of_32_mib_is_written_and_read() -> Result<()> {
    const PACK_BYTES: usize = 32 * 1024 * 1024;
    let scene = Scene::set().await?;
    let store = scene.store(Login::Cold)?;
    let mut pack = vec![0; PACK_BYTES];
    for (byte, number) in pack.iter_mut().zip((0..251u8).cycle()) {
        *byte = number;
    }
    let pack = Bytes::from(pack);
    store.put_new("1.pack", pack.clone()).await?;
    ensure!(store.read("1.pack").await? == pack);
    let end = PACK_BYTES as u64;
    let found = scene.store(Login::Gateway)?.read_ranges("1.pack", &[end - 131_072..end, 100..200]).await?;
    ensure!(found == [pack.slice(PACK_BYTES - 131_072..), pack.slice(100..200)]);
    store.delete("1.pack").await?;
    Ok(())
}

#[tokio::test]
async fn r6_4_gateways_read_and_do_nothing_else() -> Result<()> {
    let scene = Scene::set().await?;
    let (worker, gateway) = (scene.store(Login::Cold)?, scene.store(Login::Gateway)?);
    worker.put_new("1.pack", bytes("sealed")).await?;
    ensure!(gateway.read("1.pack").await? == "sealed");
    ensure!(gateway.read_ranges("1.pack", &[1..3]).await? == ["ea"]);
    let written = gateway.put_new("2.pack", bytes("forged")).await;
    ensure!(matches!(written, Err(PutError::Refused(_))), "{written:?}");
    ensure!(is_refused(&gateway.delete("1.pack").await));
    ensure!(is_refused(&gateway.list("").try_collect::<Vec<_>>().await));
    ensure!(worker.read("1.pack").await? == "sealed");
    ensure!(worker.read("2.pack").await == Err(StoreError::Missing));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_key_or_bucket_is_refused_with_its_reason() -> Result<()> {
    let scene = Scene::set().await?;
    let url = url_as(&scene.url, Login::Cold);
    let (key, rest) =
        url.rsplit_once(':').and_then(|(before, port)| Some((before.rsplit_once(':')?.0, port))).context("a key")?;
    let wrong = [
        (format!("{key}:hush-hush@127.0.0.1:{rest}"), "SignatureDoesNotMatch"),
        (url.replace("chat_retention_cold:", "chat_retention:"), "InvalidAccessKeyId"),
        (url.replace("/chat/", "/chut/"), "AccessDenied"),
    ];
    for (url, reason) in wrong {
        let store = seaweedfs::open(&url, Purpose::Reading)?;
        let error = store.read("1.pack").await.unwrap_err();
        ensure!(matches!(&error, StoreError::Refused(given) if given.contains(reason)), "{error}");
        let error = store.put_new("1.pack", bytes("lost")).await.unwrap_err();
        ensure!(matches!(&error, PutError::Refused(given) if given.contains(reason)), "{error}");
        ensure!(!error.to_string().contains("hush-hush"));
    }
    Ok(())
}

#[tokio::test]
async fn objects_outlast_a_stop_and_a_kill_and_a_frozen_server_is_out_of_reach() -> Result<()> {
    let scratch = paths::scratch("store-test")?;
    let binaries = TestServers::from_env().map_or(Binaries::find_or_fetch().await?, |servers| servers.binaries);
    let server = Seaweedfs::start_in(&binaries, scratch.path(), &Ports::fresh()).await?;
    let log = std::fs::read_to_string(server.process().log())?;
    ensure!(log.contains("I am the leader"), "its log is elsewhere");
    ensure!(!log.contains("anonymous cluster statistics"), "it reports to its makers");

    let worker = seaweedfs::open(&url_as(&server.url(), Login::Cold), Purpose::Writing)?;
    let gateway = seaweedfs::open(&url_as(&server.url(), Login::Gateway), Purpose::Reading)?;
    worker.put_new("1.pack", bytes("sealed")).await?;
    server.stop().await?;
    let error = gateway.read("1.pack").await.unwrap_err();
    ensure!(matches!(error, StoreError::Unavailable(_)), "{error}");
    server.start().await?;
    ensure!(gateway.read("1.pack").await? == "sealed");

    server.kill().await?;
    server.start().await?;
    ensure!(gateway.read("1.pack").await? == "sealed");
    server.pause()?;
    let error = gateway.read_ranges("1.pack", &[0..1]).await.unwrap_err();
    ensure!(matches!(error, StoreError::Unavailable(_)), "{error}");
    server.resume()?;
    ensure!(gateway.read_ranges("1.pack", &[0..1]).await? == ["s"]);
    server.stop().await
}
