//! Supervisors are notified that customers of a business wait while no agent is there.

use anyhow::Result;
use chat_shared::{
    clock::Clock,
    ids::{BusinessId, UserId},
    jobs::{Job, WaitingJob},
    wire::{Platform, StaffRole},
};

use crate::{people::Conversation, stage::Stage};

/// The job that a gateway files which finds so many seconds ago that customers wait.
fn job(user_id: UserId, business_id: BusinessId, seconds_ago: u64) -> Job {
    let found_at = Clock::System.now().before(std::time::Duration::from_secs(seconds_ago));
    Job::Waiting(WaitingJob { user_id, business_id, found_at })
}

impl Stage {
    /// A business with one who leads it.
    async fn led_by(&self, user_id: UserId, role: StaffRole) -> Result<BusinessId> {
        let business_id = BusinessId::random();
        sqlx::query!("insert into businesses (business_id) values ($1)", business_id.as_uuid())
            .execute(&self.pool)
            .await?;
        sqlx::query!(
            "insert into staff (business_id, user_id, role, status_at) values ($1, $2, $3, now())",
            business_id.as_uuid(),
            user_id.as_uuid(),
            role.as_str(),
        )
        .execute(&self.pool)
        .await?;
        Ok(business_id)
    }

    /// A case of the business that has waited for so long.
    async fn case(&self, business_id: BusinessId, customer_id: UserId, seconds: i32) -> Result<()> {
        let conversation = Conversation::of_business(self, business_id, customer_id).await?;
        sqlx::query!(
            "insert into cases (conversation_id, business_id, customer_id, state, opened_at, waiting_since)
             values ($1, $2, $3, 'waiting', now(), now() - make_interval(secs => $4))",
            conversation.id.as_uuid(),
            business_id.as_uuid(),
            customer_id.as_uuid(),
            f64::from(seconds),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_supervisor_is_notified_once_in_ten_minutes_on_each_device_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let notifier = stage.notifier().await?;
    let (supervisor, customers) = (UserId::random(), [UserId::random(), UserId::random()]);
    for platform in Platform::ALL {
        stage.device(supervisor, platform, Some("ne-NP")).await?;
    }
    let business_id = stage.led_by(supervisor, StaffRole::Supervisor).await?;
    stage.case(business_id, customers[0], 61).await?;
    stage.case(business_id, customers[1], 0).await?;
    stage.jobs.add(&[job(supervisor, business_id, 0)]).await?;
    notifier.wait_for("sent", 4).await?;

    // The same is found in the next minutes, and by another notifier after this one.
    stage.repeat(&job(supervisor, business_id, 0)).await?;
    stage.settled().await?;
    notifier.stop().await?;
    let other = stage.notifier().await?;
    for seconds_ago in [0, 70, 599] {
        stage.repeat(&job(supervisor, business_id, seconds_ago)).await?;
    }
    let received = stage.all_received().await?;
    assert_eq!(received.len(), 4);
    for received in &received {
        let platform = received.platform;
        assert!(received.is_alert && (received.is_urgent || platform == Platform::Webhook));
        assert_eq!((received.title.as_deref(), received.body.as_deref()), (Some("ग्राहकहरू पर्खिरहेका छन्"), Some("")));
        assert_eq!(received.business_id, Some(business_id.as_uuid().to_string()));
        assert_eq!((received.waiting, received.badge), (Some(2), None), "{platform:?}: the badge stays as it is");
        assert_eq!((&received.conversation_id, &received.message_id, received.seq), (&None, &None, None));
        assert!(received.ttl.is_none_or(|ttl| ttl.as_secs() <= 600), "{platform:?}");
        let told = received.payload.to_string();
        assert!(customers.iter().all(|customer| !told.contains(&customer.as_uuid().to_string())));
    }
    // Another business is another matter.
    let second = stage.led_by(supervisor, StaffRole::Admin).await?;
    stage.case(second, customers[0], 61).await?;
    stage.jobs.add(&[job(supervisor, second, 0)]).await?;
    assert_eq!(stage.all_received().await?.len(), 8);
    other.stop().await
}

#[tokio::test]
async fn only_who_leads_the_business_is_notified_and_only_while_another_customer_waits_r7_2() -> Result<()> {
    let stage = Stage::set().await?;
    let customer = UserId::random();
    let lead = async |role| {
        let user_id = UserId::random();
        stage.device(user_id, Platform::Fcm, None).await?;
        anyhow::Ok((user_id, stage.led_by(user_id, role).await?))
    };
    let mut jobs = Vec::new();
    let (agent, business_id) = lead(StaffRole::Agent).await?;
    stage.case(business_id, customer, 61).await?;
    jobs.push(job(agent, business_id, 0));
    let (former, business_id) = lead(StaffRole::Supervisor).await?;
    stage.case(business_id, customer, 61).await?;
    sqlx::query!("delete from staff where user_id = $1", former.as_uuid()).execute(&stage.pool).await?;
    jobs.push(job(former, business_id, 0));
    jobs.push(job(customer, business_id, 0));

    let (of_young_case, business_id) = lead(StaffRole::Supervisor).await?;
    stage.case(business_id, customer, 20).await?;
    jobs.push(job(of_young_case, business_id, 0));
    let (of_no_case, business_id) = lead(StaffRole::Admin).await?;
    stage.case(business_id, customer, 61).await?;
    sqlx::query!(
        "update cases set state = 'resolved', resolved_at = now() where business_id = $1",
        business_id.as_uuid()
    )
    .execute(&stage.pool)
    .await?;
    jobs.push(job(of_no_case, business_id, 0));
    let (of_own_case, business_id) = lead(StaffRole::Supervisor).await?;
    stage.case(business_id, of_own_case, 61).await?;
    jobs.push(job(of_own_case, business_id, 0));

    let (late, business_id) = lead(StaffRole::Supervisor).await?;
    stage.case(business_id, customer, 700).await?;
    jobs.push(job(late, business_id, 600));
    let without_device = UserId::random();
    let business_id = stage.led_by(without_device, StaffRole::Supervisor).await?;
    stage.case(business_id, customer, 61).await?;
    jobs.push(job(without_device, business_id, 0));

    stage.jobs.add(&jobs).await?;
    let notifier = stage.notifier().await?;
    for (outcome, count) in [("left", 3), ("not_waiting", 3), ("expired", 1), ("no_device", 1)] {
        notifier.wait_for(outcome, count).await?;
    }
    assert_eq!(stage.all_received().await?.len(), 0);
    notifier.stop().await
}
