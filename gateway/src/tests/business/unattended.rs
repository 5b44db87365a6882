//! Customers wait while no agent is there: which supervisors are notified.

use std::collections::BTreeSet;

use async_nats::jetstream;
use chat_shared::{
    ids::{ConversationId, DeviceId, GatewayId, SessionId, UserId},
    inbox::Session,
    jobs::{Job, WaitingJob},
};

use super::Shop;
use crate::tests::{outages::private, place::until};

/// A business with two agents, and a case that nobody takes because all are away. It has waited for so many seconds.
async fn waiting(seconds: i32) -> (Shop, UserId, ConversationId) {
    let (shop, customer) = (Shop::new(2).await, UserId::random());
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.waits_for(id, seconds).await;
    (shop, customer, id)
}

impl Shop {
    async fn waits_for(&self, id: ConversationId, seconds: i32) {
        let id = id.as_uuid();
        self.sql(&format!(
            "update cases set waiting_since = now() - interval '{seconds} s' where conversation_id = '{id}'"
        ))
        .await;
    }

    /// All jobs in the queue of notifications.
    async fn filed(&self) -> Vec<WaitingJob> {
        let context = jetstream::new(self.place.operator.clone());
        let queue = context.get_stream(format!("{}-notifications", self.place.namespace)).await.unwrap();
        let state = queue.get_info().await.unwrap().state;
        let mut jobs = Vec::new();
        for seq in (state.first_sequence..=state.last_sequence).filter(|_| state.messages > 0) {
            let message = queue.get_raw_message(seq).await.unwrap();
            let Job::Waiting(job) = Job::decode(&message.payload).unwrap() else { panic!("another job") };
            assert_eq!(job.business_id, self.business_id);
            jobs.push(job);
        }
        jobs
    }

    /// The users of these jobs.
    async fn notified(&self) -> BTreeSet<UserId> {
        self.filed().await.iter().map(|job| job.user_id).collect()
    }

    fn leaders(&self) -> BTreeSet<UserId> {
        [self.supervisor, self.admin].into()
    }
}

#[tokio::test]
async fn supervisors_and_admins_are_notified_once_however_many_gateways_look_r7_2() {
    let (shop, ..) = waiting(61).await;
    shop.sweep().await;
    shop.sweep().await;
    let other = shop.place.conversations.businesses(shop.place.log.clone());
    let jobs = shop.place.jobs().await;
    until("a sweep", async || other.sweep(&jobs, true).await.is_ok()).await;
    let filed = shop.filed().await;
    let minutes: BTreeSet<_> = filed.iter().map(|job| (job.user_id, job.found_at.0.div_euclid(60_000))).collect();
    assert_eq!(filed.len(), minutes.len(), "once a minute: {filed:?}");
    assert_eq!(shop.notified().await, shop.leaders(), "neither agents nor the customer");
}

#[tokio::test]
async fn nothing_is_said_while_a_case_is_young_an_agent_is_there_or_the_business_is_not_routing_r7_2() {
    let (shop, _, id) = waiting(20).await;
    shop.sweep().await;
    // Nobody is assigned by the router, so that only reachability tells the difference.
    shop.sql("update businesses set strategy = 'manual'").await;
    shop.waits_for(id, 61).await;
    shop.available(&shop.agents[..1]).await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, BTreeSet::new(), "an agent has a device");
    shop.sql(&format!("delete from notification_devices where user_id = '{}'", shop.agents[0].as_uuid())).await;
    let session =
        Session { session_id: SessionId::random(), gateway_id: GatewayId::random(), device_id: DeviceId::random() };
    shop.place.inboxes.renew_lease(session.gateway_id).await.unwrap();
    shop.place.inboxes.register(shop.agents[0], session, None).await.unwrap();
    shop.sweep().await;
    assert_eq!(shop.notified().await, BTreeSet::new(), "an agent is connected");
    shop.sql("update staff set status = 'away'").await;

    let hours = r#"{"zone": "UTC", "is_enforced": true, "weekly": [], "exceptions": []}"#;
    shop.sql(&format!("update businesses set hours = '{hours}'")).await;
    shop.sweep().await;
    shop.sql("update businesses set hours = null, is_open = false").await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, BTreeSet::new(), "outside hours, and closed");

    shop.sql("update businesses set is_open = true").await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, shop.leaders(), "all agents are away");
}

#[tokio::test]
async fn an_agent_that_is_available_but_not_reachable_or_without_capacity_is_not_there_r7_2() {
    let (shop, ..) = waiting(61).await;
    shop.sql("update businesses set strategy = 'manual'").await;
    shop.available(&shop.agents).await;
    shop.sql(&format!("delete from notification_devices where user_id = '{}'", shop.agents[0].as_uuid())).await;
    shop.sql(&format!("update staff set capacity = 0 where user_id = '{}'", shop.agents[1].as_uuid())).await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, shop.leaders());
}

#[tokio::test]
async fn only_leaders_with_a_device_who_are_on_the_staff_are_notified_and_of_no_case_of_their_own_r7_2() {
    let (mut shop, ..) = waiting(61).await;
    let former = std::mem::replace(&mut shop.supervisor, UserId::random());
    shop.set_staff(2, &shop.agents).await.unwrap();
    shop.sweep().await;
    assert_eq!(shop.notified().await, [shop.admin].into(), "{former:?} has left, the next supervisor has no device");

    // The supervisor is the customer of the case that waits.
    let (shop, ..) = waiting(0).await;
    let own = shop.converse(shop.supervisor).await.unwrap().conversation_id;
    shop.waits_for(own, 61).await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, [shop.admin].into());
}

#[tokio::test]
async fn while_the_queue_is_away_the_sweep_goes_on_and_files_later_r7_2() {
    let (shop, ..) = waiting(61).await;
    let context = jetstream::new(shop.place.operator.clone());
    let name = format!("{}-notifications", shop.place.namespace);
    let jobs = shop.place.jobs().await;
    context.delete_stream(&name).await.unwrap();
    shop.sql("update case_sweeps set swept_at = now()").await;
    until("a sweep", async || shop.businesses().sweep(&jobs, true).await.is_ok()).await;
    shop.sweep().await;
    assert_eq!(shop.notified().await, shop.leaders(), "the sweep opened the queue again");
}

#[tokio::test]
async fn while_redis_is_away_nobody_is_notified_r7_2() {
    let (_directory, servers, place) = Box::pin(private()).await;
    let shop = Shop::on(place, 1).await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    shop.waits_for(id, 61).await;
    shop.sql("update businesses set strategy = 'manual'").await;
    shop.available(&shop.agents).await;
    shop.sql(&format!("delete from notification_devices where user_id = '{}'", shop.agents[0].as_uuid())).await;
    servers.redis.kill().await.unwrap();
    shop.sweep().await;
    assert_eq!(shop.notified().await, BTreeSet::new(), "the agent may be connected");
    servers.redis.start().await.unwrap();
    until("a notification", async || {
        shop.sweep().await;
        shop.notified().await == shop.leaders()
    })
    .await;
}
