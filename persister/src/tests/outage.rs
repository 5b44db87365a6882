//! PostgreSQL goes away and comes back.

use chat_dev::{
    ports::Ports,
    servers::{Durability, NatsServers, Servers, postgres},
    test_servers::TestServers,
};

use super::place::{Place, until};

pub async fn private() -> (tempfile::TempDir, Servers, Place) {
    let servers = TestServers::from_env().unwrap();
    let directory = tempfile::tempdir_in(&servers.scratch).unwrap();
    let private =
        Servers::start(&servers.binaries, directory.path(), Durability::ThrowAway, NatsServers::One, &Ports::fresh())
            .await;
    let private = private.unwrap();
    let urls = private.urls("postgres");
    postgres::migrate(&urls.postgres).await.unwrap();
    let place = Place::on(&urls).await;
    (directory, private, place)
}

#[tokio::test]
async fn what_was_accepted_while_postgres_was_down_is_stored_when_it_is_back() {
    let (_directory, servers, place) = private().await;
    let mut talk = place.talk().await;
    let persister = place.persister().await;
    place.append(&mut talk).await;
    place.wait_for(&talk).await;
    servers.postgres.kill().await.unwrap();
    for _ in 0..30 {
        place.append(&mut talk).await;
    }
    until("noticing", async || !persister.postgres.is_set()).await;
    servers.postgres.start().await.unwrap();
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    assert!(persister.postgres.is_set());
    assert_eq!(place.store().count_letters().await.unwrap(), 0, "an outage is nobody's fault");
    persister.stop().await;
}

#[tokio::test]
async fn a_persister_that_stops_while_postgres_is_down_leaves_its_batch_to_the_next() {
    let (_directory, servers, place) = private().await;
    let mut talk = place.talk().await;
    let first = place.persister().await;
    place.append(&mut talk).await;
    place.wait_for(&talk).await;
    servers.postgres.stop().await.unwrap();
    for _ in 0..30 {
        place.append(&mut talk).await;
    }
    until("noticing", async || !first.postgres.is_set()).await;
    first.stop().await;
    servers.postgres.start().await.unwrap();
    let second = place.persister().await;
    place.wait_for(&talk).await;
    place.wait_until_settled().await;
    second.stop().await;
}
