//! Settings with which no service starts: each is named in one line that says what to do, and no secret is in it.

use anyhow::{Result, ensure};
use chat_dev::{
    fleet::Role::{self, Gateway, Notifier, Persister, Retention},
    ports,
    process::{Launch, Process},
};
use chat_e2e::{database, eventually};

use crate::scene::{Change, HUSHED, MASTER_KEY, Scene};

const NOWHERE: &str = "/nowhere/at-all";

/// Whoever is told this refuses to start, and these words are in what it says.
async fn refused(scene: &Scene, role: Role, changes: &[Change<'_>], words: &[&str]) -> Result<()> {
    let said = scene.run(role, &[], changes).await?;
    let who = format!("{} with {changes:?}", role.package());
    ensure!(matches!(said.code, Some(1 | 2)), "{who} ended with {:?}: {}", said.code, said.all());
    ensure!(said.err.lines().count() == 1, "{who} says more than a line: {}", said.err);
    ensure!(said.err.starts_with("error: "), "{who} says: {}", said.err);
    for word in words {
        ensure!(said.err.contains(word), "{who} doesn't say {word:?}: {}", said.err);
    }
    ensure!(!said.all().contains(HUSHED), "{who} gives a secret away: {}", said.all());
    Ok(())
}

#[tokio::test]
async fn settings_that_are_missing_twofold_or_unreadable_are_named() -> Result<()> {
    let scene = Scene::set().await?;
    let empty = scene.file("empty", "\n")?;
    let secret = format!("postgres://chat:{HUSHED}@db/chat");
    let file = scene.file("postgres.url", &secret)?;
    let short = scene.file("short", HUSHED)?;
    let pem = scene.file("public.pem", &format!("-----BEGIN {HUSHED}-----"))?;
    let unknown_scheme = format!("http://chat:{HUSHED}@redis");
    for (role, changes, words) in [
        (Gateway, vec![("CHAT_POSTGRES_URL", None)], vec!["the address of PostgreSQL", "CHAT_POSTGRES_URL_FILE"]),
        (Persister, vec![("CHAT_POSTGRES_URL", None)], vec!["CHAT_POSTGRES_URL, or CHAT_POSTGRES_URL_FILE"]),
        (Retention, vec![("CHAT_POSTGRES_URL", Some(""))], vec!["CHAT_POSTGRES_URL, or CHAT_POSTGRES_URL_FILE"]),
        (Gateway, vec![("CHAT_NATS_URL", None)], vec!["the address of NATS", "CHAT_NATS_URL_FILE"]),
        (Persister, vec![("CHAT_NATS_URL", None)], vec!["CHAT_NATS_URL, or CHAT_NATS_URL_FILE"]),
        (Notifier, vec![("CHAT_NATS_URL", None)], vec!["CHAT_NATS_URL, or CHAT_NATS_URL_FILE"]),
        (Gateway, vec![("CHAT_REDIS_URL", None)], vec!["the address of Redis", "CHAT_REDIS_URL_FILE"]),
        (Notifier, vec![("CHAT_REDIS_URL", None)], vec!["CHAT_REDIS_URL, or CHAT_REDIS_URL_FILE"]),
        (Gateway, vec![("CHAT_MASTER_KEY", None)], vec!["the master key", "CHAT_MASTER_KEY_FILE"]),
        (Retention, vec![("CHAT_MASTER_KEY", None)], vec!["CHAT_MASTER_KEY, or CHAT_MASTER_KEY_FILE"]),
        (Notifier, vec![("CHAT_MASTER_KEY", None)], vec!["CHAT_MASTER_KEY, or CHAT_MASTER_KEY_FILE"]),
        (Gateway, vec![("CHAT_JWT_SECRET_FILE", None)], vec!["CHAT_JWKS_URL", "exactly one"]),
        (Persister, vec![("CHAT_POSTGRES_URL_FILE", Some(&file))], vec!["are both set", "keep one"]),
        (Retention, vec![("CHAT_MASTER_KEY_FILE", Some(&file))], vec!["CHAT_MASTER_KEY_FILE are both set"]),
        (Retention, vec![("CHAT_MASK_KEY_FILE", Some(&file))], vec!["CHAT_MASK_KEY_FILE are both set"]),
        (
            Persister,
            vec![("CHAT_POSTGRES_URL", None), ("CHAT_POSTGRES_URL_FILE", Some(NOWHERE))],
            vec!["CHAT_POSTGRES_URL_FILE", NOWHERE, "No such file"],
        ),
        (
            Persister,
            vec![("CHAT_NATS_URL", None), ("CHAT_NATS_URL_FILE", Some(&empty))],
            vec!["CHAT_NATS_URL_FILE", "is empty"],
        ),
        (
            Retention,
            vec![("CHAT_MASTER_KEY", None), ("CHAT_MASTER_KEY_FILE", Some(NOWHERE))],
            vec!["CHAT_MASTER_KEY_FILE", NOWHERE],
        ),
        (Retention, vec![("CHAT_MASTER_KEY", Some(HUSHED))], vec!["CHAT_MASTER_KEY: ", "32 random bytes in base64"]),
        (
            Gateway,
            vec![("CHAT_MASTER_KEY", None), ("CHAT_MASTER_KEY_FILE", Some(&short))],
            vec!["CHAT_MASTER_KEY_FILE: ", "32 random bytes in base64"],
        ),
        (Gateway, vec![("CHAT_MASTER_KEY_OLD", Some(MASTER_KEY))], vec!["CHAT_MASTER_KEY_OLD", "has the same id"]),
        (
            Retention,
            vec![("CHAT_MASTER_KEY_OLD_FILE", Some(&short))],
            vec!["CHAT_MASTER_KEY_OLD_FILE: ", "32 random bytes in base64"],
        ),
        (Persister, vec![("CHAT_MASK_KEY", Some("too short"))], vec!["the mask key has fewer than 16 bytes"]),
        (Gateway, vec![("CHAT_JWT_SECRET_FILE", None), ("CHAT_JWT_PUBLIC_KEY_FILE", Some(NOWHERE))], vec![NOWHERE]),
        (
            Gateway,
            vec![("CHAT_JWT_SECRET_FILE", None), ("CHAT_JWT_PUBLIC_KEY_FILE", Some(&pem))],
            vec!["no public key in PEM"],
        ),
        (Gateway, vec![("CHAT_JWT_SECRET_FILE", Some(&short))], vec!["shared secret"]),
        (Gateway, vec![("CHAT_REDIS_URL", Some(&unknown_scheme))], vec!["Redis"]),
        (Gateway, vec![("CHAT_JWKS_URL", Some(HUSHED))], vec!["CHAT_JWKS_URL: ", "--help"]),
        (Gateway, vec![("CHAT_PROXY_PROTOCOL", Some("on"))], vec!["CHAT_PROXY_PROTOCOL: ", "--help"]),
        (
            Gateway,
            vec![("CHAT_PROXY_PROTOCOL", Some("required"))],
            vec!["CHAT_PROXY_PROTOCOL is `required`", "CHAT_TRUSTED_PROXIES"],
        ),
        (Gateway, vec![("CHAT_LISTEN", Some("nowhere"))], vec!["CHAT_LISTEN: ", "nowhere", "--help"]),
        (Persister, vec![("CHAT_LOG_REPLICAS", Some("many"))], vec!["CHAT_LOG_REPLICAS: ", "many"]),
        (Persister, vec![("CHAT_LOG", Some("a=b=c"))], vec!["CHAT_LOG is written like"]),
        (Notifier, vec![("CHAT_WEBHOOK_SECRET_FILE", None)], vec!["CHAT_WEBHOOK_SECRET_FILE go together"]),
    ] {
        refused(&scene, role, &changes, &words).await?;
    }
    Ok(())
}

#[tokio::test]
async fn options_that_are_unknown_are_named_in_one_line() -> Result<()> {
    let scene = Scene::set().await?;
    for role in Role::ALL {
        let said = scene.run(role, &["--postgers-url", "x"], &[]).await?;
        ensure!(said.code == Some(2) && said.err.lines().count() == 1, "{said:?}");
        ensure!(said.err.contains("--postgers-url") && said.err.contains("--help"), "{said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn r10_4_servers_that_cannot_be_used_are_named_with_what_to_do() -> Result<()> {
    let scene = Scene::set().await?;
    let closed = ports::free()?;
    let (no_postgres, no_nats) =
        (format!("postgres://a:{HUSHED}@127.0.0.1:{closed}/x"), format!("nats://127.0.0.1:{closed}"));
    let (server, _) = scene.urls.postgres.rsplit_once('/').expect("a database in the address");
    let wrong_database = format!("{server}/nowhere");
    let (_, place) = scene.urls.postgres.rsplit_once('@').expect("a user in the address");
    let wrong_password = format!("postgres://chat_gateway_1:{HUSHED}@{place}");
    let (_, place) = scene.urls.nats.rsplit_once('@').expect("a user in the address");
    let wrong_nats = format!("nats://chat_persister:{HUSHED}@{place}");
    for (role, changes, words) in [
        (Gateway, ("CHAT_POSTGRES_URL", &no_postgres), ["PostgreSQL at 127.0.0.1", "is it running"]),
        (
            Gateway,
            ("CHAT_POSTGRES_URL", &wrong_password),
            ["password authentication failed", "check user and password"],
        ),
        (
            Persister,
            ("CHAT_POSTGRES_URL", &wrong_password),
            ["password authentication failed", "check user and password"],
        ),
        (
            Retention,
            ("CHAT_POSTGRES_URL", &wrong_password),
            ["password authentication failed", "check user and password"],
        ),
        (Gateway, ("CHAT_POSTGRES_URL", &wrong_database), ["does not exist", "make the database"]),
        (Persister, ("CHAT_NATS_URL", &wrong_nats), ["authorization violation", "check user and password"]),
        (Gateway, ("CHAT_NATS_URL", &no_nats), ["NATS is out of reach", "is it running"]),
        (Notifier, ("CHAT_NATS_URL", &no_nats), ["NATS is out of reach", "is it running"]),
    ] {
        refused(&scene, role, &[(changes.0, Some(changes.1.as_str()))], &words).await?;
    }
    Ok(())
}

#[tokio::test]
async fn r10_4_ids_that_are_not_stored_as_uuids_are_refused() -> Result<()> {
    let scene = Scene::set().await?;
    database::execute(&scene.urls.postgres, "alter table participants alter column user_id type text").await?;
    for role in [Gateway, Persister, Retention] {
        refused(&scene, role, &[], &["participants.user_id", "text", "uuid"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_nats_server_without_jetstream_is_refused_with_the_words_to_look_for() -> Result<()> {
    let scene = Scene::set().await?;
    let port = ports::free()?;
    let launch =
        Launch::new("nats-without", &scene.servers.binaries.nats, scene.servers.scratch.join("nats-without.log"))
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    let server = Process::new(launch);
    server.start()?;
    eventually("the NATS server without JetStream", || async {
        Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
    })
    .await?;
    let url = format!("nats://127.0.0.1:{port}");
    for role in [Gateway, Notifier] {
        refused(&scene, role, &[("CHAT_NATS_URL", Some(&url))], &["JetStream"]).await?;
    }
    let said = scene.run(Persister, &["--check-config"], &[("CHAT_NATS_URL", Some(&url))]).await?;
    ensure!(said.code == Some(1) && said.out.contains("wrong   NATS has no JetStream"), "{said:?}");
    server.kill().await
}
