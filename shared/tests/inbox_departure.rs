//! What the end of a session leaves unconfirmed, against a real Redis: no entry is forgotten and none named in vain.

use anyhow::Result;
use chat_dev::test_servers::{TestServers, unique_namespace};
use chat_shared::{
    ids::{DeviceId, Epoch, GatewayId, SessionId, UserId},
    inbox::{Ended, Inboxes, Routing, Session, Unconfirmed},
    position::Cursor,
    wire::Resume,
};

/// A user and their inbox.
struct Scene {
    inboxes: Inboxes,
    user_id: UserId,
}

fn session() -> Session {
    Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() }
}

fn again(session: Session) -> Session {
    Session { session_id: SessionId::random(), ..session }
}

impl Scene {
    async fn set() -> Result<Self> {
        let inboxes = Inboxes::connect(&TestServers::from_env()?.redis_url, &unique_namespace()).await?;
        Ok(Self { inboxes, user_id: UserId::random() })
    }

    async fn route(&self, events: usize) -> Result<()> {
        let routing = Routing { user_id: self.user_id, event: b"event", delivered: None, lsn: None };
        self.inboxes.route(&vec![routing; events]).await?;
        Ok(())
    }

    async fn register(&self, session: Session, resume: Option<Resume>) -> Result<Epoch> {
        Ok(self.inboxes.register(self.user_id, session, resume).await?.epoch)
    }

    async fn confirm(&self, epoch: Epoch, session: Session, cursor: u64) -> Result<()> {
        assert!(self.inboxes.confirm(self.user_id, epoch, session.device_id, Cursor(cursor)).await?);
        Ok(())
    }

    /// The first and the last entry that the end leaves unconfirmed.
    async fn end(&self, ended: Ended) -> Result<Option<(u64, u64)>> {
        let left = self.inboxes.unregister(self.user_id, ended).await?.unconfirmed;
        Ok(left.map(|Unconfirmed { after, up_to, .. }| (after.0 + 1, up_to.0)))
    }

    async fn end_session(&self, session: Session) -> Result<Option<(u64, u64)>> {
        self.end(Ended::Session(session.session_id)).await
    }
}

#[tokio::test]
async fn what_came_in_while_the_session_lasted_is_unconfirmed_until_it_is_confirmed() -> Result<()> {
    let scene = Scene::set().await?;
    let phone = session();
    scene.register(phone, None).await?;
    assert_eq!(scene.end_session(phone).await?, None, "nothing came in");
    scene.route(3).await?;
    let phone = again(phone);
    let epoch = scene.register(phone, None).await?;
    scene.route(3).await?;
    assert_eq!(scene.end_session(phone).await?, Some((4, 6)), "what came before it began was notified then");

    let phone = again(phone);
    let resume = Some(Resume { epoch, cursor: Cursor(6) });
    scene.register(phone, resume).await?;
    scene.route(4).await?;
    scene.confirm(epoch, phone, 8).await?;
    let departure = scene.inboxes.unregister(scene.user_id, Ended::Session(phone.session_id)).await?;
    assert_eq!(departure.unconfirmed, Some(Unconfirmed { epoch, after: Cursor(8), up_to: Cursor(10) }));
    assert_eq!(scene.end_session(phone).await?, None, "once");

    let phone = again(phone);
    scene.register(phone, resume).await?;
    scene.confirm(epoch, phone, 10).await?;
    assert_eq!(scene.end_session(phone).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_session_answers_for_those_it_replaces() -> Result<()> {
    let scene = Scene::set().await?;
    let phone = session();
    let epoch = scene.register(phone, None).await?;
    scene.route(2).await?;
    // The phone lost its connection without anybody noticing, and is back before its first session ended.
    let (second, third) = (again(phone), again(phone));
    for returned in [second, third] {
        scene.register(returned, Some(Resume { epoch, cursor: Cursor(0) })).await?;
        scene.route(1).await?;
    }
    assert_eq!(scene.end_session(phone).await?, None, "it had been replaced");
    assert_eq!(scene.end_session(second).await?, None);
    assert_eq!(scene.end_session(third).await?, Some((1, 4)));
    Ok(())
}

#[tokio::test]
async fn what_another_device_has_confirmed_is_not_unconfirmed() -> Result<()> {
    let scene = Scene::set().await?;
    let (phone, laptop) = (session(), session());
    let epoch = scene.register(phone, None).await?;
    scene.register(laptop, None).await?;
    scene.route(5).await?;
    scene.confirm(epoch, laptop, 4).await?;
    assert_eq!(scene.end_session(phone).await?, Some((5, 5)));
    scene.confirm(epoch, laptop, 5).await?;
    assert_eq!(scene.end_session(laptop).await?, None);
    Ok(())
}

#[tokio::test]
async fn all_sessions_of_a_gateway_end_at_once_and_no_others() -> Result<()> {
    let scene = Scene::set().await?;
    let (phone, elsewhere) = (session(), session());
    let tablet = Session { gateway_id: phone.gateway_id, ..session() };
    let epoch = scene.register(phone, None).await?;
    scene.route(2).await?;
    scene.register(tablet, None).await?;
    scene.register(elsewhere, None).await?;
    scene.route(2).await?;
    scene.confirm(epoch, phone, 3).await?;
    let departure = scene.inboxes.unregister(scene.user_id, Ended::Gateway(phone.gateway_id)).await?;
    assert_eq!((departure.removed, departure.left), (2, 1));
    assert_eq!(departure.unconfirmed, Some(Unconfirmed { epoch, after: Cursor(3), up_to: Cursor(4) }));
    assert_eq!(scene.end(Ended::Gateway(phone.gateway_id)).await?, None);
    assert_eq!(scene.end_session(elsewhere).await?, Some((4, 4)));
    Ok(())
}

#[tokio::test]
async fn a_user_without_an_inbox_leaves_nothing() -> Result<()> {
    let scene = Scene::set().await?;
    for ended in [Ended::Session(SessionId::random()), Ended::Gateway(GatewayId::random())] {
        let departure = scene.inboxes.unregister(scene.user_id, ended).await?;
        assert_eq!((departure.removed, departure.left, departure.unconfirmed), (0, 0, None));
    }
    Ok(())
}
