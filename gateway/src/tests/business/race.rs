//! Many customers, agents and gateways at once: what the database holds, and what the router does.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chat_shared::{
    ids::UserId,
    wire::{ResolveCase, StaffStatus},
};
use futures_util::{StreamExt, future::join_all, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::Shop;
use crate::{business::Businesses, tests::place::until};

/// Customers of one business.
const CUSTOMERS: usize = 80;
const AGENTS: usize = 8;

#[tokio::test]
async fn no_agent_has_more_than_its_capacity_and_no_case_two_agents_however_many_gateways_decide_r2_4() {
    let shop = Shop::new(AGENTS).await;
    shop.available(&shop.agents).await;
    // Each is a gateway of its own: it takes its own turns.
    let gateways: Vec<Businesses> =
        (0..4).map(|_| shop.place.conversations.businesses(shop.place.log.clone())).collect();
    let gateways = Arc::new(gateways);
    let (started, are_all_made) = (Instant::now(), AtomicBool::new(false));
    let starts = stream::iter(0..CUSTOMERS).map(async |index| {
        let gateway = &gateways[index % gateways.len()];
        let customer = UserId::random();
        // As a client does: again while PostgreSQL does not answer in time.
        until("a conversation", async || {
            gateway.converse(&shop.place.quotas, customer, shop.business_id).await.is_ok()
        })
        .await;
    });
    let agents = join_all(shop.agents.iter().enumerate().map(async |(index, agent)| {
        let gateway = &gateways[index % gateways.len()];
        let mut random = StdRng::seed_from_u64(index as u64);
        while !(are_all_made.load(Ordering::Relaxed) && open_cases(&shop).await == 0) {
            let own = sqlx::query_scalar!("select conversation_id from cases where agent_id = $1", agent.as_uuid());
            for id in own.fetch_all(&shop.place.pool).await.unwrap_or_default() {
                let id = id.try_into().unwrap();
                match random.random_range(0..10) {
                    0 => drop(gateway.give_back(*agent, id).await),
                    1 => {
                        let _away = shop.set_status(*agent, StaffStatus::Away).await;
                        until("available", async || shop.set_status(*agent, StaffStatus::Available).await.is_ok())
                            .await;
                    }
                    _ => drop(gateway.resolve(*agent, id, ResolveCase { seq: chat_shared::position::Seq(0) }).await),
                }
                drop(gateway.route(shop.business_id, &[]).await);
            }
        }
    }));
    let starts = async {
        starts.buffer_unordered(8).collect::<()>().await;
        are_all_made.store(true, Ordering::Relaxed);
    };
    tokio::join!(starts, agents);
    let elapsed = started.elapsed();
    let facts = sqlx::query!(
        r#"select (select count(*) from assignments) as "assignments!", (select count(*) from cases) as "cases!",
               (
                   select count(*) from assignments a join assignments b
                       on a.conversation_id = b.conversation_id and a.assignment_id < b.assignment_id
                       and (a.released_at is null or a.released_at > b.assigned_at)
               ) as "overlapping!",
               (select count(*) from cases where state <> 'resolved') as "open!",
               (select count(*) from assignments where released_at is null) as "leases!""#
    );
    let facts = facts.fetch_one(&shop.place.pool).await.unwrap();
    assert_eq!(usize::try_from(facts.cases), Ok(CUSTOMERS));
    assert_eq!((facts.overlapping, facts.open, facts.leases), (0, 0, 0));
    // The most cases that an agent had at a time, by the ledger.
    let most = sqlx::query_scalar!(
        r#"select max(load) as "most!" from (
               select sum(change) over (partition by agent_id order by at, change) as load from (
                   select agent_id, assigned_at as at, 1 as change from assignments
                   union all
                   select agent_id, released_at, -1 from assignments
               ) changes
           ) loads"#
    );
    assert!(most.fetch_one(&shop.place.pool).await.unwrap() <= 5);
    println!("{} assignments in {elapsed:?}", facts.assignments);
}

async fn open_cases(shop: &Shop) -> i64 {
    let open = sqlx::query_scalar!(r#"select count(*) as "open!" from cases where state <> 'resolved'"#);
    open.fetch_one(&shop.place.pool).await.unwrap_or(1)
}
