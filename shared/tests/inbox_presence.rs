//! Who is there, against a real Redis: sessions and leases, and what gateways leave behind.

use std::collections::BTreeSet;

use anyhow::Result;
use chat_dev::test_servers::{TestServers, unique_namespace};
use chat_shared::{
    clock::Clock,
    ids::{ConversationId, DeviceId, GatewayId, SessionId, UserId},
    inbox::{Ended, Inboxes, Lease, Routing, Session},
    limits,
    position::{Cursor, Seq},
    wire::Presence,
};

/// Inboxes, and their Redis as whoever looks into it sees it.
struct Scene {
    inboxes: Inboxes,
    redis: redis::aio::MultiplexedConnection,
    namespace: String,
}

impl Scene {
    async fn set() -> Result<Self> {
        let (url, namespace) = (TestServers::from_env()?.redis_url, unique_namespace());
        let redis = redis::Client::open(&*url)?.get_multiplexed_async_connection().await?;
        Ok(Self { inboxes: Inboxes::connect(&url, &namespace).await?, redis, namespace })
    }

    fn lease(&self, gateway_id: GatewayId) -> String {
        format!("{}:gateway:{}", self.namespace, gateway_id.as_uuid().simple())
    }

    /// A gateway that is there.
    async fn gateway(&self) -> Result<GatewayId> {
        let gateway_id = GatewayId::random();
        assert_eq!(self.inboxes.renew_lease(gateway_id).await?, Lease::Taken);
        Ok(gateway_id)
    }

    /// Lets a gateway's lease run out now.
    async fn expire(&self, gateway_id: GatewayId) -> Result<()> {
        let mut redis = self.redis.clone();
        let removed: usize = redis::cmd("DEL").arg(self.lease(gateway_id)).query_async(&mut redis).await?;
        assert_eq!(removed, 1);
        Ok(())
    }

    /// What is left of a user's keys, in milliseconds; negative for those that aren't there.
    async fn left_ms(&self, user_id: UserId) -> Result<Vec<i64>> {
        let mut redis = self.redis.clone();
        let mut asked = redis::pipe();
        for key in self.keys(user_id) {
            asked.cmd("PTTL").arg(key);
        }
        Ok(asked.query_async(&mut redis).await?)
    }

    /// Lets all of a user's keys end after so many milliseconds.
    async fn end_after(&self, user_id: UserId, ms: i64) -> Result<()> {
        let mut redis = self.redis.clone();
        let mut said = redis::pipe();
        for key in self.keys(user_id) {
            said.cmd("PEXPIRE").arg(key).arg(ms).ignore();
        }
        Ok(said.query_async(&mut redis).await?)
    }

    fn keys(&self, user_id: UserId) -> [String; 5] {
        let user = format!("{}:{{{}}}", self.namespace, user_id.as_uuid().simple());
        ["meta", "entries", "sessions", "devices", "delivered"].map(|key| format!("{user}:{key}"))
    }

    async fn lease_ms(&self, gateway_id: GatewayId) -> Result<i64> {
        let mut redis = self.redis.clone();
        Ok(redis::cmd("PTTL").arg(self.lease(gateway_id)).query_async(&mut redis).await?)
    }

    async fn connect(&self, user_id: UserId, gateway_id: GatewayId) -> Result<SessionId> {
        let session = Session { session_id: SessionId::random(), gateway_id, device_id: DeviceId::random() };
        self.inboxes.register(user_id, session, None).await?;
        Ok(session.session_id)
    }

    async fn presence(&self, user_id: UserId) -> Result<Presence> {
        Ok(self.inboxes.presence(&[user_id]).await?.remove(0).presence)
    }

    async fn is_online(&self, user_id: UserId) -> Result<bool> {
        Ok(self.presence(user_id).await?.is_online)
    }
}

#[tokio::test]
async fn online_is_a_session_on_a_gateway_that_is_there_r8_1() -> Result<()> {
    let scene = Scene::set().await?;
    let user_id = UserId::random();
    let stranger = Presence { user_id, is_online: false, last_seen_at: None };
    assert_eq!(scene.presence(user_id).await?, stranger);
    let gateway_id = scene.gateway().await?;
    let session_id = scene.connect(user_id, gateway_id).await?;
    let here = Presence { is_online: true, ..stranger };
    assert_eq!(scene.presence(user_id).await?, here);

    let departure = scene.inboxes.unregister(user_id, Ended::Session(session_id)).await?;
    assert_eq!((departure.removed, departure.left), (1, 0));
    assert_eq!(scene.presence(user_id).await?, Presence { last_seen_at: Some(departure.now), ..stranger });
    let again = scene.inboxes.unregister(user_id, Ended::Session(session_id)).await?;
    assert_eq!((again.removed, again.left, again.unconfirmed), (0, 0, None));
    assert_eq!(scene.presence(user_id).await?.last_seen_at, Some(departure.now), "it ended only once");

    scene.connect(user_id, gateway_id).await?;
    assert_eq!(scene.presence(user_id).await?, here);
    Ok(())
}

#[tokio::test]
async fn several_devices_and_gateways_of_a_user_count_as_one_r8_2() -> Result<()> {
    let scene = Scene::set().await?;
    let user_id = UserId::random();
    let (one, other) = (scene.gateway().await?, scene.gateway().await?);
    let on_one = scene.connect(user_id, one).await?;
    let on_other = scene.connect(user_id, other).await?;
    scene.connect(user_id, other).await?;
    let departure = scene.inboxes.unregister(user_id, Ended::Session(on_other)).await?;
    assert_eq!((departure.removed, departure.left), (1, 2));
    scene.expire(other).await?;
    assert!(scene.is_online(user_id).await?, "one gateway is still there");
    scene.expire(one).await?;
    let gone = scene.presence(user_id).await?;
    assert_eq!(gone, Presence { user_id, is_online: false, last_seen_at: None }, "nobody has settled it yet");
    assert_eq!(scene.inboxes.renew_lease(one).await?, Lease::Taken);
    assert!(scene.is_online(user_id).await?, "it was only late");

    let departure = scene.inboxes.unregister(user_id, Ended::Gateway(other)).await?;
    assert_eq!((departure.removed, departure.left), (1, 1));
    assert!(scene.is_online(user_id).await?);
    let departure = scene.inboxes.unregister(user_id, Ended::Session(on_one)).await?;
    assert_eq!((departure.removed, departure.left), (1, 0));
    assert_eq!(scene.presence(user_id).await?.last_seen_at, Some(departure.now));
    Ok(())
}

#[tokio::test]
async fn many_users_are_asked_for_at_once_and_answered_in_order() -> Result<()> {
    let scene = Scene::set().await?;
    let (one, other) = (scene.gateway().await?, scene.gateway().await?);
    let users: Vec<UserId> = (0..limits::PRESENCE_USERS_MAX).map(|_| UserId::random()).collect();
    for user_id in users.iter().step_by(3) {
        scene.connect(*user_id, one).await?;
        scene.connect(*user_id, other).await?;
        scene.connect(*user_id, other).await?;
    }
    let found = scene.inboxes.presence(&users).await?;
    assert!(found.iter().map(|seen| seen.presence.user_id).eq(users.iter().copied()));
    let gateways = scene.inboxes.gateways_of(&users).await?;
    let both = BTreeSet::from([one, other]);
    for (number, (seen, gateways)) in found.into_iter().zip(gateways).enumerate() {
        assert_eq!(seen.presence.is_online, number % 3 == 0);
        assert_eq!(gateways.len(), if number % 3 == 0 { 2 } else { 0 }, "each once");
        assert!(gateways.iter().all(|gateway_id| both.contains(gateway_id)));
    }
    assert!(scene.inboxes.presence(&[]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn times_of_presence_come_from_one_clock_and_do_not_run_backwards() -> Result<()> {
    let scene = Scene::set().await?;
    let (user_id, gateway_id) = (UserId::random(), scene.gateway().await?);
    let session = Session { session_id: SessionId::random(), gateway_id, device_id: DeviceId::random() };
    let registered = scene.inboxes.register(user_id, session, None).await?.at;
    let seen = scene.inboxes.presence(&[user_id]).await?[0].at;
    let departed = scene.inboxes.unregister(user_id, Ended::Session(session.session_id)).await?.at;
    let gone = scene.inboxes.presence(&[user_id]).await?[0].at;
    assert!([registered, seen, departed, gone].is_sorted());
    Ok(())
}

#[tokio::test]
async fn changes_of_presence_are_in_order_when_the_clock_of_redis_was_set_back_r8_1() -> Result<()> {
    let scene = Scene::set().await?;
    let (user_id, gateway_id) = (UserId::random(), scene.gateway().await?);
    let first = scene.connect(user_id, gateway_id).await?;
    // As if the clock had been ten minutes ahead then.
    let ahead = Clock::System.now().after(std::time::Duration::from_mins(10));
    let (mut redis, [meta, ..]) = (scene.redis.clone(), scene.keys(user_id));
    redis::cmd("HSET").arg(&meta).arg("presence_at").arg(ahead.0).exec_async(&mut redis).await?;
    let seen = async || anyhow::Ok(scene.inboxes.presence(&[user_id]).await?.remove(0));
    let before = seen().await?;
    assert_eq!((before.at, before.presence.is_online), (ahead, true));
    assert!(before.now < ahead);

    let gone = scene.inboxes.unregister(user_id, Ended::Session(first)).await?;
    assert_eq!(gone.at.0, ahead.0 + 1);
    let away = seen().await?;
    assert_eq!((away.at, away.presence.is_online), (gone.at, false));
    assert_eq!(away.presence.last_seen_at, Some(gone.now), "shown by the clock as it is");
    let again = scene.inboxes.unregister(user_id, Ended::Session(first)).await?;
    assert_eq!((again.removed, again.at), (0, gone.at), "nothing has changed");
    scene.connect(user_id, gateway_id).await?;
    let back = seen().await?;
    assert_eq!((back.at.0, back.presence.is_online), (gone.at.0 + 1, true));

    // The data of another run may be older, but not the order.
    redis::cmd("HSET").arg(&meta).arg("run").arg("another").exec_async(&mut redis).await?;
    let other = seen().await?;
    assert_eq!((other.at.0, other.presence.is_online), (other.now.0 - 1, false), "it comes after what was announced");
    scene.connect(user_id, gateway_id).await?;
    assert_eq!(seen().await?.at.0, back.at.0 + 1);
    // As written by an earlier version.
    redis::cmd("HDEL").arg(&meta).arg("presence_at").exec_async(&mut redis).await?;
    let unnumbered = seen().await?;
    assert_eq!(unnumbered.at.0, unnumbered.now.0 - 1);
    Ok(())
}

#[tokio::test]
async fn a_lease_is_taken_once_and_held_and_runs_out_soon_after_its_release() -> Result<()> {
    let scene = Scene::set().await?;
    let gateway_id = scene.gateway().await?;
    let lease = i64::try_from(limits::GATEWAY_LEASE.as_millis())?;
    let left = scene.lease_ms(gateway_id).await?;
    assert!((1..=lease).contains(&left), "{left} ms");
    assert_eq!(scene.inboxes.renew_lease(gateway_id).await?, Lease::Held);
    let other = GatewayId::random();
    assert_eq!(scene.inboxes.renew_lease(other).await?, Lease::Taken);
    scene.inboxes.release_lease(gateway_id).await?;
    let left = scene.lease_ms(gateway_id).await?;
    assert!((1..=8000).contains(&left), "its clients are on their way to another gateway: {left} ms");
    assert!(!scene.inboxes.is_departed(gateway_id).await?, "until then they count as there");
    assert_eq!(scene.inboxes.serving_gateways().await?, [other], "and nobody waits for the gateway");
    assert_eq!(scene.inboxes.renew_lease(gateway_id).await?, Lease::Held);
    assert_eq!(scene.inboxes.serving_gateways().await?.len(), 2);
    scene.expire(gateway_id).await?;
    assert_eq!(scene.inboxes.renew_lease(gateway_id).await?, Lease::Taken);
    scene.inboxes.release_lease(GatewayId::random()).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_dead_gateway_left_behind_is_found_until_it_is_settled_r8_2() -> Result<()> {
    let scene = Scene::set().await?;
    let inboxes = &scene.inboxes;
    let (dead, alive) = (scene.gateway().await?, scene.gateway().await?);
    let users: BTreeSet<UserId> = (0..10).map(|_| UserId::random()).collect();
    for user_id in &users {
        inboxes.attach(dead, *user_id).await?;
        inboxes.attach(dead, *user_id).await?;
        inboxes.attach(alive, *user_id).await?;
    }
    let settled: Vec<UserId> = users.iter().copied().take(2).collect();
    inboxes.detach(dead, &settled).await?;
    inboxes.detach(dead, &[]).await?;
    assert_eq!(inboxes.departed().await?, []);
    scene.expire(dead).await?;
    assert_eq!(inboxes.departed().await?, [dead]);

    let mut found = BTreeSet::new();
    loop {
        let some = inboxes.left_behind(dead, 3).await?;
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 3);
        inboxes.detach(dead, &some).await?;
        assert!(some.into_iter().all(|user_id| found.insert(user_id)), "each once");
        assert_eq!(inboxes.departed().await?, [dead], "until it is forgotten");
    }
    assert_eq!(found.len(), 8, "those who were settled are not left behind");
    assert_eq!(found.into_iter().chain(settled).collect::<BTreeSet<_>>(), users);
    inboxes.forget_gateway(dead).await?;
    assert_eq!(inboxes.departed().await?, []);
    assert_eq!(inboxes.left_behind(alive, 100).await?.len(), 10, "the other gateway's users are its own");

    // It was only cut off, and comes back: it counts again.
    assert_eq!(inboxes.renew_lease(dead).await?, Lease::Taken);
    scene.expire(dead).await?;
    assert_eq!(inboxes.departed().await?, [dead]);
    Ok(())
}

#[tokio::test]
async fn an_inbox_is_kept_for_14_days_from_each_sign_of_life_and_few_are_written() -> Result<()> {
    let scene = Scene::set().await?;
    let (user_id, gateway_id) = (UserId::random(), scene.gateway().await?);
    let session = Session { session_id: SessionId::random(), gateway_id, device_id: DeviceId::random() };
    let epoch = scene.inboxes.register(user_id, session, None).await?.epoch;
    scene.inboxes.confirm(user_id, epoch, session.device_id, Cursor(0)).await?;
    let conversation = ConversationId::random();
    let routing = Routing { user_id, event: b"delivery", delivered: Some((conversation, Seq(1))), lsn: None };
    scene.inboxes.route(&[routing]).await?;
    let idle = i64::try_from(limits::INBOX_IDLE_MAX.as_millis())?;
    let is_kept = |left: &i64| *left > idle;
    assert!(scene.left_ms(user_id).await?.iter().all(is_kept), "all five, those that others made included");

    // As it is an hour later, and as it is a day later.
    scene.end_after(user_id, idle + 3_600_000).await?;
    scene.inboxes.confirm(user_id, epoch, session.device_id, Cursor(1)).await?;
    let left = scene.left_ms(user_id).await?;
    assert!(left.iter().all(|left| (idle..=idle + 3_600_000).contains(left)), "there is time: {left:?}");
    scene.end_after(user_id, idle - 1000).await?;
    scene.inboxes.confirm(user_id, epoch, session.device_id, Cursor(1)).await?;
    assert!(scene.left_ms(user_id).await?.iter().all(is_kept));
    scene.end_after(user_id, idle - 1000).await?;
    let again = Session { session_id: SessionId::random(), ..session };
    scene.inboxes.register(user_id, again, None).await?;
    assert!(scene.left_ms(user_id).await?.iter().all(is_kept));
    Ok(())
}
