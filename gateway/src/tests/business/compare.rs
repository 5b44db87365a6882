//! Staff lists against those of kaha-main-v3, whose stand-in loses pushes, repeats old ones and answers late.

use std::{collections::HashMap, time::Duration};

use chat_dev::kaha::{Behaviour, Fault, Kaha, Member};
use chat_shared::{
    clock::Clock,
    ids::{BusinessId, ConversationId, UserId},
    limits,
    wire::{ErrorCode, StaffRole},
};

use super::Shop;
use crate::{
    business::Comparison,
    profiles::ProfileSettings,
    tests::{place::until, profiles::ground::stand_in},
};

/// A business whose staff kaha-main-v3 has as version 1, as it was pushed.
struct Ground {
    shop: Shop,
    kaha: Kaha,
    settings: ProfileSettings,
    comparison: Comparison,
    _directory: tempfile::TempDir,
}

impl Ground {
    async fn new(agents: usize) -> Self {
        let (directory, kaha, settings) = stand_in().await;
        let shop = Shop::new(agents).await;
        shop.sql("update businesses set checked_at = now()").await;
        let comparison = comparison(&shop, &settings);
        let ground = Self { shop, kaha, settings, comparison, _directory: directory };
        ground.change(1, &ground.shop.agents);
        ground
    }

    /// The comparison of another gateway.
    fn gateway(&self) -> Comparison {
        comparison(&self.shop, &self.settings)
    }

    /// Changes the list at kaha-main-v3. Its push is lost.
    fn change(&self, version: u64, agents: &[UserId]) {
        self.kaha.staff().set(self.shop.business_id.as_uuid(), version, &self.list(agents));
    }

    fn list(&self, agents: &[UserId]) -> Vec<Member> {
        let member = |user_id: &UserId, role| Member::from((user_id.as_uuid(), role));
        let leads = [member(&self.shop.supervisor, StaffRole::Supervisor), member(&self.shop.admin, StaffRole::Admin)];
        agents.iter().map(|agent| member(agent, StaffRole::Agent)).chain(leads).collect()
    }

    /// An hour passes for all businesses, and they are compared.
    async fn compare(&self) {
        self.pass_time("1 hour").await;
        until("a comparison", async || self.comparison.pass().await.is_ok()).await;
    }

    async fn pass_time(&self, interval: &str) {
        self.shop.sql(&format!("update businesses set checked_at = checked_at - interval '{interval}'")).await;
    }

    /// The stored version, and the agents.
    async fn stored(&self) -> (i64, Vec<UserId>) {
        let id = self.shop.business_id.as_uuid();
        let version = sqlx::query_scalar!("select staff_version from businesses where business_id = $1", id);
        let version = version.fetch_one(&self.shop.place.pool).await.unwrap();
        let agents = sqlx::query_scalar!(
            "select user_id from staff where business_id = $1 and role = 'agent' order by user_id",
            id
        );
        let agents = agents.fetch_all(&self.shop.place.pool).await.unwrap();
        (version, agents.into_iter().map(|id| id.try_into().unwrap()).collect())
    }

    /// Those agents as `stored` orders them.
    fn sorted(agents: &[UserId]) -> Vec<UserId> {
        let mut agents = agents.to_vec();
        agents.sort_unstable();
        agents
    }

    /// A case that the first agent has.
    async fn assigned(&self) -> ConversationId {
        let customer = UserId::random();
        let id = self.shop.converse(customer).await.unwrap().conversation_id;
        self.shop.write(customer, id).await.unwrap();
        self.shop.store(id).await;
        self.shop.available(&self.shop.agents[..1]).await;
        self.shop.route().await;
        assert_eq!(self.shop.case(id).await.2, Some(self.shop.agents[0]));
        id
    }

    fn calls(&self) -> usize {
        self.kaha.staff_calls().all().len()
    }
}

fn comparison(shop: &Shop, settings: &ProfileSettings) -> Comparison {
    let businesses = shop.place.conversations.businesses(shop.place.log.clone());
    Comparison::new(businesses, settings, settings.signer().unwrap(), Clock::System).unwrap().unwrap()
}

#[tokio::test]
async fn a_lost_push_is_found_and_the_removed_agent_has_no_case_r7_3() {
    let ground = Ground::new(2).await;
    let (shop, id) = (&ground.shop, ground.assigned().await);
    ground.change(2, &shop.agents[1..]);
    until("a comparison", async || ground.comparison.pass().await.is_ok()).await;
    assert_eq!(ground.calls(), 0, "it is not due yet");
    ground.compare().await;
    assert_eq!(ground.stored().await, (2, vec![shop.agents[1]]));
    assert_eq!(shop.case(id).await, ("waiting".to_owned(), 1, None));
    assert!(!shop.participants(id).await.contains(&shop.agents[0]));
    assert_eq!(shop.write(shop.agents[0], id).await.unwrap_err().code, ErrorCode::NotFound);
    shop.available(&shop.agents[1..]).await;
    shop.route().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]));

    ground.compare().await;
    assert_eq!(shop.case(id).await.2, Some(shop.agents[1]), "an equal list changes nothing");
    assert!(ground.calls() >= 2);
    assert!(ground.kaha.calls().complaints().is_empty(), "{:?}", ground.kaha.calls().complaints());
}

#[tokio::test]
async fn the_stored_version_with_another_content_is_kept_when_pushed_and_replaced_when_compared() {
    let ground = Ground::new(2).await;
    let (shop, id) = (&ground.shop, ground.assigned().await);
    shop.set_staff(1, &shop.agents[1..]).await.unwrap();
    assert_eq!(ground.stored().await, (1, Ground::sorted(&shop.agents)), "a push of it is a repeat");
    ground.change(1, &shop.agents[1..]);
    ground.compare().await;
    assert_eq!(ground.stored().await, (1, vec![shop.agents[1]]));
    assert_eq!(shop.case(id).await.0, "waiting");

    let mut list = ground.list(&shop.agents[1..]);
    list[0].capacity = Some(7);
    ground.kaha.staff().set(shop.business_id.as_uuid(), 1, &list);
    ground.compare().await;
    let capacity = sqlx::query_scalar!("select capacity from staff where user_id = $1", shop.agents[1].as_uuid());
    assert_eq!(capacity.fetch_one(&shop.place.pool).await.unwrap(), Some(7));
}

#[tokio::test]
async fn an_older_answer_and_an_older_push_change_nothing() {
    let ground = Ground::new(2).await;
    let shop = &ground.shop;
    ground.change(2, &shop.agents[1..]);
    shop.set_staff(3, &shop.agents).await.unwrap();
    let all = Ground::sorted(&shop.agents);
    ground.compare().await;
    assert_eq!(ground.stored().await, (3, all.clone()));
    assert_eq!(shop.set_staff(2, &shop.agents[1..]).await.unwrap_err().code, ErrorCode::Conflict);
    shop.set_staff(3, &shop.agents[1..]).await.unwrap();
    assert_eq!(ground.stored().await, (3, all.clone()));

    // The answer was true when it was asked for, and comes after a push.
    ground.change(4, &shop.agents[1..]);
    ground.kaha.behave(Behaviour::Slow(Duration::from_secs(1)));
    let calls = ground.calls();
    let pushing = async {
        until("the call", async || ground.calls() > calls).await;
        shop.set_staff(5, &shop.agents).await.unwrap();
    };
    tokio::join!(ground.compare(), pushing);
    assert_eq!(ground.stored().await, (5, all));
}

#[tokio::test]
async fn while_kaha_does_not_answer_nothing_changes_and_it_is_asked_again_after_minutes_r3_5() {
    let ground = Ground::new(1).await;
    let failing = [500, 503, 403, 404].map(|status| Behaviour::Failing { status, retry_after: None });
    let wrong = [Fault::BrokenJson, Fault::Body("[]".to_owned()), Fault::Huge, Fault::CutShort].map(Behaviour::Wrong);
    ground.change(2, &[]);
    ground.pass_time("1 hour").await;
    let before = ground.stored().await;
    for behaviour in failing.into_iter().chain(wrong).chain([Behaviour::Down]) {
        ground.kaha.behave(behaviour.clone());
        let gateway = ground.gateway();
        until("a comparison", async || gateway.pass().await.is_ok()).await;
        assert_eq!(ground.stored().await, before, "{behaviour:?}");
        ground.kaha.behave(Behaviour::Normal);
        let calls = ground.calls();
        until("a comparison", async || ground.comparison.pass().await.is_ok()).await;
        assert_eq!(ground.calls(), calls, "not asked again at once after {behaviour:?}");
        ground.pass_time("5 minutes").await;
    }
    until("a comparison", async || ground.comparison.pass().await.is_ok()).await;
    assert_eq!(ground.stored().await, (2, Vec::new()));
}

#[tokio::test]
async fn a_list_that_is_not_valid_or_not_named_changes_nothing_and_harms_no_other() {
    let ground = Ground::new(1).await;
    let (shop, other) = (&ground.shop, BusinessId::random());
    shop.sql(&format!("insert into businesses (business_id) values ('{}')", other.as_uuid())).await;
    let agent = Member::from((shop.agents[0].as_uuid(), StaffRole::Agent));
    let many: Vec<_> = (0..501).map(|_| Member { user_id: UserId::random().as_uuid(), ..agent }).collect();
    let wrong = [
        (0, vec![agent]),
        (9, vec![agent, agent]),
        (9, many),
        (9, vec![Member { role: StaffRole::Unknown, ..agent }]),
        (9, vec![Member { capacity: Some(51), ..agent }]),
        (9, vec![Member { user_id: uuid::Uuid::nil(), ..agent }]),
    ];
    let before = ground.stored().await;
    let other_version = async || {
        let version =
            sqlx::query_scalar!("select staff_version from businesses where business_id = $1", other.as_uuid());
        version.fetch_one(&shop.place.pool).await.unwrap()
    };
    for (version, (wrong_version, list)) in (1..).zip(wrong) {
        ground.kaha.staff().set(shop.business_id.as_uuid(), wrong_version, &list);
        ground.kaha.staff().set(other.as_uuid(), version, &[agent]);
        ground.compare().await;
        assert_eq!(ground.stored().await, before, "version {wrong_version} of {list:?}");
        assert_eq!(u64::try_from(other_version().await), Ok(version));
    }
    ground.kaha.staff().forget(shop.business_id.as_uuid());
    ground.compare().await;
    assert_eq!(ground.stored().await, before);
}

#[tokio::test]
async fn of_two_gateways_one_asks_for_a_business_and_new_businesses_are_not_due_together_r11_4() {
    let ground = Ground::new(0).await;
    let due = async |seconds: f64| {
        let due = sqlx::query_scalar!(
            r#"select count(*) as "count!" from businesses
               where checked_at <= now() + make_interval(secs => $1) - interval '1 hour'"#,
            seconds
        );
        due.fetch_one(&ground.shop.place.pool).await.unwrap()
    };
    ground.shop.sql("insert into businesses (business_id) select gen_random_uuid() from generate_series(1, 449)").await;
    assert_eq!(due(-60.0).await, 0);
    let soon = due(1800.0).await;
    assert!((100..350).contains(&soon), "{soon} are due in half an hour");

    ground.pass_time("1 hour").await;
    let gateways = [ground.gateway(), ground.gateway()];
    until("all comparisons", async || {
        let passes = futures_util::future::join_all(gateways.iter().map(Comparison::pass)).await;
        passes.iter().all(|pass| pass.as_ref().is_ok_and(|is_behind| !is_behind)) && due(0.0).await == 0
    })
    .await;
    let mut asked: HashMap<_, usize> = HashMap::new();
    for call in ground.kaha.staff_calls().all() {
        assert!(call.business_ids.len() <= limits::KAHA_CALL_IDS_MAX);
        for id in call.business_ids {
            *asked.entry(id).or_default() += 1;
        }
    }
    assert_eq!(asked.len(), 450);
    assert!(asked.values().all(|times| *times == 1));
}
