//! Inboxes when Redis comes back with older data, becomes a replica, or answers nothing over a connection that stays open.

#[path = "input/relay.rs"]
mod relay;

use std::time::Duration;

use anyhow::Result;
use chat_dev::{
    paths,
    ports::Ports,
    servers::Redis,
    test_servers::{TestServers, unique_namespace},
    wait,
};
use chat_shared::{
    ids::{DeviceId, GatewayId, SessionId, UserId},
    inbox::{Ended, Inboxes, Lease, Page, RedisProblem, RedisUnfit, Registration, Routed, Routing, Session},
    position::Cursor,
    wire::Resume,
};

use self::relay::Relay;

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

/// A Redis of the test's own; the directory goes with it.
struct Private {
    redis: Redis,
    _directory: tempfile::TempDir,
}

async fn private() -> Result<Private> {
    let directory = paths::scratch("inbox-test")?;
    let redis = Redis::start_in(&TestServers::from_env()?.binaries, directory.path(), &Ports::fresh()).await?;
    Ok(Private { redis, _directory: directory })
}

impl Private {
    async fn inboxes(&self) -> Result<Inboxes> {
        Ok(Inboxes::connect(&self.redis.url(), &unique_namespace()).await?)
    }

    /// SIGKILL; it loads its last dump.
    async fn go_back(&self, inboxes: &Inboxes) -> Result<()> {
        self.redis.kill().await?;
        self.redis.start().await?;
        wait::until("Redis is found again", DEADLINE, async || Ok(inboxes.check().await.ok())).await
    }
}

fn session() -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() }
}

fn at(registration: &Registration, cursor: u64) -> Resume {
    Resume { epoch: registration.epoch, cursor: Cursor(cursor) }
}

async fn route(inboxes: &Inboxes, user_id: UserId, count: usize) -> Result<Vec<Routed>> {
    Ok(inboxes.route(&vec![Routing { user_id, event: b"event", delivered: None, lsn: None }; count]).await?)
}

#[tokio::test]
async fn promise_4_an_inbox_from_an_older_dump_is_lost() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    let [asha, bikram, chitra] = std::array::from_fn(|_| UserId::random());
    let (phone, others) = (session(), session());
    assert_eq!(inboxes.renew_lease(phone.gateway_id).await?, Lease::Taken);
    let before = inboxes.register(asha, phone, None).await?;
    route(&inboxes, asha, 3).await?;
    for user_id in [bikram, chitra] {
        let resume = at(&inboxes.register(user_id, others, None).await?, 0);
        assert!(inboxes.register(user_id, others, Some(resume)).await?.is_resumed);
        route(&inboxes, user_id, 3).await?;
    }
    private.redis.says(&["SAVE"]).await?;
    route(&inboxes, asha, 3).await?;
    assert!(inboxes.confirm(asha, before.epoch, phone.device_id, Cursor(6)).await?);
    private.go_back(&inboxes).await?;

    let presence = inboxes.presence(&[asha]).await?.remove(0).presence;
    assert!(!presence.is_online, "the session is of another run");
    let standing = inboxes.standing(asha).await?;
    assert_eq!((standing.epoch, standing.confirmed), (None, None));
    assert_eq!(inboxes.unconfirmed(&[bikram]).await?, [None]);
    assert_eq!(inboxes.read(asha, before.epoch, Cursor(0), 10).await?, Page::Lost);
    assert!(!inboxes.is_departed(phone.gateway_id).await?, "its gateway is about to renew the lease");
    assert_eq!(inboxes.renew_lease(phone.gateway_id).await?, Lease::Taken);
    assert_eq!(inboxes.renew_lease(phone.gateway_id).await?, Lease::Held);

    // Whatever touches it first finds that it is lost, and it stays lost.
    assert_eq!(route(&inboxes, asha, 3).await?, [Routed::NoInbox, Routed::NoInbox, Routed::NoInbox]);
    let gone = inboxes.unregister(bikram, Ended::Session(others.session_id)).await?;
    assert_eq!((gone.removed, gone.left, gone.unconfirmed), (1, 0, None));
    for user_id in [asha, bikram, chitra] {
        let after = inboxes.register(user_id, phone, Some(at(&before, 6))).await?;
        assert!(after.epoch != before.epoch && !after.is_resumed && after.replaced.is_empty());
        assert_eq!((after.head, after.cursor, after.confirmed), (Cursor(0), Cursor(0), Cursor(0)));
        assert!(matches!(&route(&inboxes, user_id, 1).await?[..], [Routed::At { cursor: Cursor(1), gateways, .. }]
            if *gateways == [phone.gateway_id]));
    }
    assert!(!inboxes.confirm(asha, before.epoch, phone.device_id, Cursor(6)).await?);
    Ok(())
}

#[tokio::test]
async fn a_cursor_beyond_the_head_makes_another_inbox() -> Result<()> {
    let inboxes = Inboxes::connect(&TestServers::from_env()?.redis_url, &unique_namespace()).await?;
    for confirms in [true, false] {
        let (user_id, phone) = (UserId::random(), session());
        let before = inboxes.register(user_id, phone, None).await?;
        route(&inboxes, user_id, 3).await?;
        if confirms {
            assert!(!inboxes.confirm(user_id, before.epoch, phone.device_id, Cursor(4)).await?);
            assert_eq!(
                route(&inboxes, user_id, 1).await?,
                [Routed::NoInbox],
                "nothing takes the place of what is lost"
            );
        }
        let after = inboxes.register(user_id, phone, Some(at(&before, 4))).await?;
        assert!(after.epoch != before.epoch && !after.is_resumed, "confirms {confirms}");
        assert_eq!((after.head, after.cursor), (Cursor(0), Cursor(0)));
    }
    Ok(())
}

#[tokio::test]
async fn a_session_registered_again_replaces_no_other() -> Result<()> {
    let inboxes = Inboxes::connect(&TestServers::from_env()?.redis_url, &unique_namespace()).await?;
    let (user_id, old) = (UserId::random(), session());
    let newer = Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), ..old };
    let before = inboxes.register(user_id, newer, None).await?;
    route(&inboxes, user_id, 2).await?;
    for _ in 0..2 {
        let again = inboxes.register_again(user_id, old, Some(at(&before, 1)), true).await?;
        assert!(again.is_resumed && again.replaced.is_empty());
        let mut gateways = vec![old.gateway_id, newer.gateway_id];
        gateways.sort_unstable();
        assert_eq!(inboxes.gateways_of(&[user_id]).await?, [gateways]);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_to_a_replica_is_left() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    let user_id = UserId::random();
    inboxes.register(user_id, session(), None).await?;
    private.redis.says(&["REPLICAOF", "127.0.0.1", "1"]).await?;
    wait::until("the replica is recognised", DEADLINE, async || {
        // The writes tell; a new connection is not used.
        _ = route(&inboxes, user_id, 1).await;
        Ok(matches!(inboxes.check().await, Err(RedisUnfit::Problem(RedisProblem::Replica))).then_some(()))
    })
    .await?;
    private.redis.says(&["REPLICAOF", "NO", "ONE"]).await?;
    wait::until("the primary is found", DEADLINE, async || Ok(route(&inboxes, user_id, 1).await.ok())).await?;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_answers_nothing_is_left() -> Result<()> {
    let private = private().await?;
    let relay = Relay::open(private.redis.address()).await?;
    let url = private.redis.url().replace(&private.redis.address(), &relay.address);
    let inboxes = Inboxes::connect(&url, &unique_namespace()).await?;
    let user_id = UserId::random();
    inboxes.register(user_id, session(), None).await?;
    let epoch = inboxes.register(user_id, session(), None).await?.epoch;
    relay.silence();
    assert!(route(&inboxes, user_id, 1).await.is_err(), "the first request waits in vain");
    wait::until("the next connection", DEADLINE, async || Ok(route(&inboxes, user_id, 1).await.ok())).await?;
    assert_eq!(inboxes.register(user_id, session(), None).await?.epoch, epoch, "it leads to the same inbox");
    Ok(())
}
