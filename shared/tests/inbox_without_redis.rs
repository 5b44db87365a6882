//! Inboxes while Redis loses its data, is gone, hangs, or is set up in a way that inboxes can't live with.

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
    inbox::{InboxError, Inboxes, Lease, Page, RedisProblem, RedisUnfit, Routed, Routing, Session},
    position::Cursor,
    wire::Resume,
};

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

    async fn says(&self, words: &[&str]) -> Result<()> {
        let mut connection = redis::Client::open(self.redis.url())?.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        Ok(command.arg(&words[1..]).query_async(&mut connection).await?)
    }
}

fn session() -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() }
}

async fn route(inboxes: &Inboxes, user_id: UserId) -> Result<Routed, InboxError> {
    Ok(inboxes.route(&[Routing { user_id, event: b"event", delivered: None, lsn: None }]).await?.remove(0))
}

#[tokio::test]
async fn a_flushed_redis_makes_a_new_epoch_and_takes_scripts_again() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    let (user_id, phone) = (UserId::random(), session());
    assert_eq!(inboxes.renew_lease(phone.gateway_id).await?, Lease::Taken);
    let before = inboxes.register(user_id, phone, None).await?;
    route(&inboxes, user_id).await?;
    private.says(&["FLUSHALL"]).await?;
    private.says(&["SCRIPT", "FLUSH"]).await?;

    assert_eq!(inboxes.renew_lease(phone.gateway_id).await?, Lease::Taken, "the gateway sees that its sessions went");
    assert_eq!(route(&inboxes, user_id).await?, Routed::NoInbox);
    assert_eq!(inboxes.read(user_id, before.epoch, Cursor(0), 10).await?, Page::Lost);
    inboxes.confirm(user_id, before.epoch, phone.device_id, Cursor(1)).await?;
    let resume = Some(Resume { epoch: before.epoch, cursor: Cursor(0) });
    let after = inboxes.register(user_id, phone, resume).await?;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!((after.is_resumed, after.cursor), (false, Cursor(0)));
    assert!(matches!(route(&inboxes, user_id).await?, Routed::At { cursor: Cursor(1), .. }));
    Ok(())
}

#[tokio::test]
async fn redis_may_come_later_and_go_and_come_back() -> Result<()> {
    let private = private().await?;
    private.redis.stop().await?;
    let inboxes = private.inboxes().await?;
    let user_id = UserId::random();
    assert!(matches!(route(&inboxes, user_id).await, Err(InboxError::Redis(_))), "refused at once");
    assert!(matches!(inboxes.check().await, Err(RedisUnfit::Unreachable(_))));
    for _ in 0..2 {
        private.redis.start().await?;
        wait::until("Redis is found again", DEADLINE, async || Ok(inboxes.check().await.ok())).await?;
        inboxes.register(user_id, session(), None).await?;
        assert!(matches!(route(&inboxes, user_id).await?, Routed::At { cursor: Cursor(1), .. }));
        private.redis.kill().await?;
        assert!(inboxes.register(user_id, session(), None).await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn nobody_waits_for_a_redis_that_hangs_for_longer_than_the_bound() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    let user_id = UserId::random();
    inboxes.register(user_id, session(), None).await?;
    private.redis.pause()?;
    let patience = chat_shared::limits::REDIS_WAIT_MAX * 4;
    assert!(tokio::time::timeout(patience, route(&inboxes, user_id)).await?.is_err());
    let unconnected = private.inboxes().await?;
    assert!(tokio::time::timeout(patience, route(&unconnected, user_id)).await?.is_err());
    private.redis.resume()?;
    wait::until("Redis is found again", DEADLINE, async || Ok(inboxes.check().await.ok())).await?;
    assert!(matches!(route(&inboxes, user_id).await?, Routed::At { .. }));
    Ok(())
}

#[tokio::test]
async fn a_redis_that_is_too_small_or_evicts_is_told_apart_r10_5() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    inboxes.check().await?;
    private.says(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await?;
    assert!(matches!(inboxes.check().await, Err(RedisUnfit::Problem(RedisProblem::Evicts { .. }))));
    private.says(&["CONFIG", "SET", "maxmemory", "100mb"]).await?;
    assert!(matches!(inboxes.check().await, Err(RedisUnfit::Problem(RedisProblem::TooSmall { found: 104_857_600 }))));
    private.says(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    inboxes.check().await?;
    Ok(())
}

#[tokio::test]
async fn a_full_redis_refuses_without_leaving_holes() -> Result<()> {
    let private = private().await?;
    let inboxes = private.inboxes().await?;
    let user_id = UserId::random();
    let registered = inboxes.register(user_id, session(), None).await?;
    route(&inboxes, user_id).await?;
    private.says(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    assert!(matches!(inboxes.check().await, Err(RedisUnfit::Problem(RedisProblem::Full { found: 1 }))));
    assert!(matches!(route(&inboxes, user_id).await, Err(InboxError::Redis(_))));
    assert!(inboxes.register(user_id, session(), None).await.is_err());
    private.says(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    assert!(matches!(route(&inboxes, user_id).await?, Routed::At { cursor: Cursor(2), .. }));
    assert!(
        matches!(inboxes.read(user_id, registered.epoch, Cursor(0), 10).await?, Page::Entries(found) if found.len() == 2)
    );
    Ok(())
}
