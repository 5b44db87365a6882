//! Connections that watch a business, through two gateways.

use chat_shared::{
    clock::{Clock, Timestamp},
    ids::{BusinessId, UserId},
    wire::{
        Availability, Command, ErrorCode, Push, Rejected, Reply, SetStatus, StaffStatus, WatchBusinesses,
        WatchedBusiness,
    },
};

use super::{
    super::{place::until, presence::start},
    Shop,
};
use crate::{business, connection::simulated::Client, state::AppState};

/// A gateway that pushes the states of businesses.
async fn gateway(shop: &Shop) -> AppState {
    let state = start(&shop.place).await;
    state.tasks.best_effort("business_watches", business::run_watches(state.clone()));
    state
}

async fn ask(client: &mut Client, business_ids: &[BusinessId]) -> Result<(), ErrorCode> {
    match client.ask(Command::WatchBusinesses(WatchBusinesses { business_ids: business_ids.to_vec() })).await {
        Reply::Done { .. } => Ok(()),
        Reply::Rejected(Rejected { code, .. }) => Err(code),
        Reply::Accepted(_) => panic!("a watch is no message"),
    }
}

/// The next pushed state for which this holds.
async fn until_pushed(client: &mut Client, holds: impl Fn(&WatchedBusiness) -> bool) -> WatchedBusiness {
    loop {
        if let Push::Business { business } = client.push().await
            && holds(&business)
        {
            return business;
        }
    }
}

/// The number of waiting cases, of the user's cases, and of members of staff that are shown.
fn queue(business: &WatchedBusiness) -> Option<(u32, u32, Option<usize>)> {
    let queue = business.queue.as_ref()?;
    Some((queue.waiting, queue.mine, queue.staff.as_ref().map(Vec::len)))
}

#[tokio::test]
async fn watchers_are_pushed_the_availability_and_staff_the_queue_r7_1_r7_3() {
    let shop = Shop::new(1).await;
    let [here, there] = [gateway(&shop).await, gateway(&shop).await];
    let (agent, customer) = (shop.agents[0], UserId::random());
    let mut customers = Client::connect(&here, customer).await;
    let mut agents = Client::connect(&there, agent).await;
    let mut supervisors = Client::connect(&here, shop.supervisor).await;
    for client in [&mut customers, &mut agents, &mut supervisors] {
        ask(client, &[shop.business_id]).await.unwrap();
    }
    let is = |state: Availability| move |business: &WatchedBusiness| business.availability.state == state;
    assert_eq!(queue(&until_pushed(&mut customers, is(Availability::Away)).await), None);
    assert_eq!(queue(&until_pushed(&mut agents, is(Availability::Away)).await), Some((0, 0, None)));
    assert_eq!(queue(&until_pushed(&mut supervisors, is(Availability::Away)).await), Some((0, 0, Some(3))));

    // Through one gateway a case opens, through the other its agent becomes available.
    here.businesses.converse(&shop.place.quotas, customer, shop.business_id).await.unwrap();
    let waiting = until_pushed(&mut agents, |business| queue(business) == Some((1, 0, None))).await;
    assert!(waiting.queue.unwrap().oldest_waiting_since.is_some());
    let request = SetStatus { status: StaffStatus::Available, until: None, gives_back: false };
    there.businesses.set_status(agent, shop.business_id, request).await.unwrap();
    until_pushed(&mut customers, is(Availability::Available)).await;
    there.businesses.route(shop.business_id, &[]).await.unwrap();
    until_pushed(&mut agents, |business| queue(business) == Some((0, 1, None))).await;
    let shown = until_pushed(&mut supervisors, |business| queue(business) == Some((0, 0, Some(3)))).await;
    let of_agent = |business: &WatchedBusiness| {
        let staff = business.queue.as_ref()?.staff.as_ref()?;
        staff.iter().find(|member| member.user_id == agent).map(|member| (member.status, member.load))
    };
    if of_agent(&shown) != Some((StaffStatus::Available, 1)) {
        until_pushed(&mut supervisors, |business| of_agent(business) == Some((StaffStatus::Available, 1))).await;
    }
}

#[tokio::test]
async fn a_change_by_any_gateway_lets_a_watched_business_be_looked_at_before_its_time_r7_1() {
    let shop = Shop::new(1).await;
    // Neither has a task that looks or announces.
    let [here, there] = [start(&shop.place).await, start(&shop.place).await];
    let mut client = Client::connect(&here, shop.agents[0]).await;
    ask(&mut client, &[shop.business_id]).await.unwrap();
    let settled = async || {
        until("a look", async || {
            here.businesses.look_at_watched().await;
            !here.businesses.is_looked_at_early(shop.business_id)
        })
        .await;
    };
    settled().await;
    let announced = async || {
        business::announce_changed(&there).await;
        until("the announcement", async || here.businesses.is_looked_at_early(shop.business_id)).await;
        settled().await;
    };
    // A case opens and no agent has room; an agent says that it is available; its time ends.
    there.businesses.converse(&shop.place.quotas, UserId::random(), shop.business_id).await.unwrap();
    announced().await;
    let until_ms = Clock::System.now().0 + 3_600_000;
    let available = SetStatus { status: StaffStatus::Available, until: Some(Timestamp(until_ms)), gives_back: false };
    there.businesses.set_status(shop.agents[0], shop.business_id, available).await.unwrap();
    announced().await;
    shop.sql("update staff set available_until = now() where available_until is not null").await;
    shop.sql("update case_sweeps set swept_at = now()").await;
    there.businesses.sweep(&shop.place.jobs().await, false).await.unwrap();
    announced().await;
}

#[tokio::test]
async fn a_former_member_of_the_staff_is_pushed_no_queue_r6_5() {
    let shop = Shop::new(2).await;
    // Without a task that looks.
    let here = start(&shop.place).await;
    let leaving = shop.agents[1];
    let looked = async |client: &Client| {
        until("a look", async || {
            here.businesses.look_at_watched().await;
            client.waiting() > 0
        })
        .await;
    };
    let mut client = Client::connect(&here, leaving).await;
    ask(&mut client, &[shop.business_id]).await.unwrap();
    looked(&client).await;
    // It waits to be written, and is known to the gateway.
    shop.set_staff(2, &shop.agents[..1]).await.unwrap();
    assert_eq!(client.waiting(), 0, "it is taken back");
    ask(&mut client, &[shop.business_id]).await.unwrap();
    looked(&client).await;
    assert_eq!(until_pushed(&mut client, |_| true).await.queue, None);
}

#[tokio::test]
async fn lists_of_unknown_or_too_many_businesses_are_refused_and_the_list_before_stands() {
    let shop = Shop::new(0).await;
    let here = gateway(&shop).await;
    let mut client = Client::connect(&here, UserId::random()).await;
    ask(&mut client, &[shop.business_id]).await.unwrap();
    until_pushed(&mut client, |_| true).await;
    assert_eq!(ask(&mut client, &[shop.business_id, BusinessId::random()]).await, Err(ErrorCode::NotFound));
    let many: Vec<_> = std::iter::repeat_with(BusinessId::random).take(21).collect();
    assert_eq!(ask(&mut client, &many).await, Err(ErrorCode::Invalid));
    shop.businesses().set_open(shop.business_id, false).await.unwrap();
    let closed = until_pushed(&mut client, |_| true).await;
    assert_eq!(closed.availability.state, Availability::Closed, "the list before stands");
    ask(&mut client, &[]).await.unwrap();
}
