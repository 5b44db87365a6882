//! Who may do what with a case (R6.5), and decisions that are based on something old.

use chat_shared::{
    ids::{ConversationId, UserId},
    position::Seq,
    wire::{ErrorCode, SetAgent},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::Shop;
use crate::{history::Place as PageOf, tests::gateway::Gateway};

#[tokio::test]
async fn of_two_decisions_on_one_version_one_is_a_conflict() {
    let shop = Shop::new(3).await;
    shop.available(&shop.agents).await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    let holder = shop.case(id).await.2.unwrap();
    let others: Vec<_> = shop.agents.iter().copied().filter(|agent| *agent != holder).collect();
    let version = shop.version(id).await;
    let transfer = |user_id| SetAgent { user_id, version, force: false };
    let decisions = tokio::join!(
        shop.businesses().set_agent(shop.supervisor, id, transfer(others[0])),
        shop.businesses().set_agent(shop.admin, id, transfer(others[1])),
    );
    let codes = [decisions.0, decisions.1].map(|decision| decision.err().map(|refusal| refusal.code));
    assert!(codes.contains(&None) && codes.contains(&Some(ErrorCode::Conflict)), "{codes:?}");
    let assignments = shop.businesses().assignments(shop.supervisor, id).await.unwrap().assignments;
    assert_eq!(assignments.len(), 2, "the first one, and one transfer");
    assert_eq!(assignments.iter().filter(|assignment| assignment.released_at.is_none()).count(), 1);
}

#[tokio::test]
async fn a_former_agent_sends_and_reads_nothing_from_the_transfer_on_r6_5() {
    let shop = Shop::new(2).await;
    let ([first, second], customer) = ([shop.agents[0], shop.agents[1]], UserId::random());
    shop.available(&[first]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.available(&[second]).await;
    let version = shop.version(id).await;
    let transfer = SetAgent { user_id: second, version, force: false };
    let (transferred, sent) = tokio::join!(shop.businesses().set_agent(first, id, transfer), shop.write(first, id));
    transferred.unwrap();
    let change = shop.place.events(id).await.into_iter().rfind(|event| event.participants.find(second).is_some());
    let change_seq = change.unwrap().seq;
    if let Ok(sent) = sent {
        assert!(sent.seq <= change_seq, "before the change");
    }
    assert_eq!(shop.write(first, id).await.unwrap_err().code, ErrorCode::NotFound);
    let read = shop.place.history.page(first, id, PageOf::Newest, 10).await;
    assert_eq!(read.unwrap_err().code, ErrorCode::NotFound);
    assert!(shop.write(second, id).await.is_ok());
}

#[tokio::test]
async fn cases_are_not_given_to_agents_that_are_away_full_or_strangers() {
    let shop = Shop::new(3).await;
    shop.sql("update businesses set capacity = 1").await;
    let [holder, away, full] = [shop.agents[0], shop.agents[1], shop.agents[2]];
    shop.available(&[full]).await;
    shop.converse(UserId::random()).await.unwrap();
    shop.available(&[holder]).await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    assert_eq!(shop.case(id).await.2, Some(holder));
    let version = shop.version(id).await;
    let give = async |by, user_id, force| {
        let outcome = shop.businesses().set_agent(by, id, SetAgent { user_id, version, force }).await;
        outcome.err().map(|refusal| refusal.code)
    };
    assert_eq!(give(holder, away, false).await, Some(ErrorCode::Conflict));
    assert_eq!(give(holder, full, false).await, Some(ErrorCode::Conflict));
    assert_eq!(give(holder, UserId::random(), false).await, Some(ErrorCode::NotFound));
    assert_eq!(give(holder, away, true).await, Some(ErrorCode::Forbidden));
    assert_eq!(give(shop.supervisor, UserId::random(), true).await, Some(ErrorCode::NotFound));
    assert_eq!(shop.case(id).await.2, Some(holder), "nothing has changed");
    assert_eq!(give(shop.supervisor, full, true).await, None, "a supervisor forces it");
    let claimed = shop.businesses().claim(full, shop.business_id).await;
    assert_eq!(claimed.unwrap_err().code, ErrorCode::Conflict, "full");
}

#[tokio::test]
async fn a_supervisor_reads_without_taking_part_and_each_days_reading_is_recorded_r6_5() {
    let shop = Shop::new(2).await;
    let (agent, customer) = (shop.agents[0], UserId::random());
    shop.available(&[agent]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    for _ in 0..2 {
        shop.businesses().check_reader(shop.supervisor, id).await.unwrap();
    }
    let page = shop.place.history.page_for_staff(shop.supervisor, id, PageOf::Newest, 10).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    for user in [agent, shop.agents[1], customer, UserId::random()] {
        assert_eq!(shop.businesses().check_reader(user, id).await.unwrap_err().code, ErrorCode::NotFound);
    }
    let reads =
        sqlx::query!("select user_id, conversation_id from staff_reads").fetch_all(&shop.place.pool).await.unwrap();
    assert_eq!(reads.len(), 1);
    assert_eq!((reads[0].user_id, reads[0].conversation_id), (shop.supervisor.as_uuid(), id.as_uuid()));
}

#[tokio::test]
async fn the_ledger_gives_the_reason_for_each_candidate_to_supervisors_and_an_agent_its_own_rows() {
    let shop = Shop::new(3).await;
    shop.available(&shop.agents[..2]).await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    let holder = shop.case(id).await.2.unwrap();
    let all = shop.businesses().assignments(shop.supervisor, id).await.unwrap().assignments;
    let verdicts: Vec<_> = all[0].candidates.iter().map(|candidate| candidate.verdict.as_str()).collect();
    assert_eq!(verdicts, ["chosen", "less_preferred"], "of those that are available");
    let own = shop.businesses().assignments(holder, id).await.unwrap().assignments;
    assert_eq!((own.len(), own[0].candidates.len()), (1, 0));
    let refused = shop.businesses().assignments(shop.agents[2], id).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
}

/// What each user may ask over REST, in a state of the case. True: it is carried out.
struct Cell {
    method: Method,
    path: fn(ConversationId, &Shop) -> String,
    body: fn(&Shop, u64) -> Option<Value>,
    /// Of the customer, an agent of another case, the agent, a supervisor, an admin and a stranger.
    allowed: [bool; 6],
}

fn conversation(id: ConversationId, what: &str) -> String {
    format!("/v1/conversations/{}/{what}", id.as_uuid())
}

fn business(shop: &Shop, what: &str) -> String {
    format!("/v1/businesses/{}/{what}", shop.business_id.as_uuid())
}

/// The requests of the matrix, on a case that an agent has.
fn cells() -> [Cell; 10] {
    [
        Cell {
            method: Method::GET,
            path: |id, _| conversation(id, "messages"),
            body: |_, _| None,
            allowed: [true, false, true, true, true, false],
        },
        Cell {
            method: Method::POST,
            path: |id, _| conversation(id, "messages"),
            body: |_, _| Some(json!({ "message_id": uuid::Uuid::new_v4(), "text": "text" })),
            allowed: [true, false, true, false, false, false],
        },
        Cell {
            method: Method::POST,
            path: |id, _| conversation(id, "accept"),
            body: |_, _| None,
            allowed: [false, false, true, false, false, false],
        },
        Cell {
            method: Method::GET,
            path: |id, _| conversation(id, "assignments"),
            body: |_, _| None,
            allowed: [false, false, true, true, true, false],
        },
        Cell {
            method: Method::GET,
            path: |_, shop| business(shop, "conversations?state=waiting"),
            body: |_, _| None,
            allowed: [false, true, true, true, true, false],
        },
        Cell {
            method: Method::GET,
            path: |_, shop| business(shop, "settings"),
            body: |_, _| None,
            allowed: [false, false, false, false, true, false],
        },
        Cell {
            method: Method::PUT,
            path: |_, shop| business(shop, "status"),
            body: |_, _| Some(json!({ "status": "away" })),
            allowed: [false, true, true, true, true, false],
        },
        Cell {
            method: Method::PUT,
            path: |id, _| conversation(id, "agent"),
            body: |shop, version| Some(json!({ "user_id": shop.agents[2].as_uuid(), "version": version })),
            allowed: [false, false, true, true, true, false],
        },
        Cell {
            method: Method::DELETE,
            path: |id, _| conversation(id, "agent"),
            body: |_, _| None,
            allowed: [false, false, true, true, true, false],
        },
        Cell {
            method: Method::POST,
            path: |id, _| conversation(id, "resolve"),
            body: |_, _| Some(json!({ "seq": 1 })),
            allowed: [false, false, true, true, true, false],
        },
    ]
}

#[tokio::test]
async fn every_forbidden_cell_of_the_matrix_is_refused_and_changes_nothing_r6_5() {
    let gateway = Box::pin(Gateway::start()).await;
    let Gateway { place, state, address, http } = gateway;
    let shop = Shop::on(place, 3).await;
    let (customer, stranger) = (UserId::random(), UserId::random());
    shop.available(&shop.agents[1..2]).await;
    let id = shop.converse(customer).await.unwrap().conversation_id;
    shop.write(customer, id).await.unwrap();
    shop.available(&[shop.agents[0], shop.agents[2]]).await;
    let asking = [customer, shop.agents[0], shop.agents[1], shop.supervisor, shop.admin, stranger];
    let snapshot = async || {
        let row = sqlx::query!(
            "select k.state, k.agent_id, k.case_number, c.version, c.resolved_seq from cases k join conversations c using (conversation_id)
             where conversation_id = $1",
            id.as_uuid()
        );
        let row = row.fetch_one(&shop.place.pool).await.unwrap();
        (row.state, row.agent_id, row.case_number, row.version, row.resolved_seq)
    };
    for cell in cells() {
        for (user_id, allowed) in asking.into_iter().zip(cell.allowed) {
            // Each starts from the same state: assigned to the second agent.
            let version = shop.version(id).await;
            if shop.case(id).await.2 != Some(shop.agents[1]) {
                if shop.case(id).await.0 == "resolved" {
                    shop.businesses().reopen(shop.supervisor, id).await.unwrap();
                }
                let version = shop.version(id).await;
                let back = SetAgent { user_id: shop.agents[1], version, force: true };
                shop.businesses().set_agent(shop.admin, id, back).await.unwrap();
            }
            let version = shop.version(id).await.max(version);
            let before = snapshot().await;
            let path = (cell.path)(id, &shop);
            let token = crate::tests::gateway::token(user_id, &json!({}));
            let request = http.request(cell.method.clone(), format!("http://{address}{path}")).bearer_auth(token);
            let request = match (cell.body)(&shop, version) {
                Some(body) => request.json(&body),
                None => request,
            };
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            assert_eq!(
                (200..300).contains(&status),
                allowed,
                "{} {path} by {:?}: {status}",
                cell.method,
                asking.iter().position(|user| *user == user_id)
            );
            if !allowed {
                assert!([403, 404].contains(&status), "{} {path}: {status}", cell.method);
                assert_eq!(snapshot().await, before, "{} {path}", cell.method);
            }
        }
    }
    drop(state);
}

#[tokio::test]
async fn bad_input_of_staff_gets_a_clear_refusal_and_changes_nothing() {
    let gateway = Box::pin(Gateway::start()).await;
    let Gateway { place, state, address, http } = gateway;
    let shop = Shop::on(place, 1).await;
    shop.available(&shop.agents).await;
    let id = shop.converse(UserId::random()).await.unwrap().conversation_id;
    let put = async |user_id, path: String, body: Value| {
        let token = crate::tests::gateway::token(user_id, &json!({}));
        let request = http.put(format!("http://{address}{path}")).bearer_auth(token).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or(Value::Null))
    };
    let settings =
        serde_json::to_value(shop.businesses().settings(shop.admin, shop.business_id).await.unwrap()).unwrap();
    let span = |opens: &str, closes: &str| json!({ "days": ["mon"], "opens": opens, "closes": closes });
    let hours = |zone: &str, weekly: Vec<Value>| json!({ "zone": zone, "weekly": weekly });
    for wrong in [
        json!({ "hours": hours("Asia/Nowhere", vec![]) }),
        json!({ "hours": hours("UTC", vec![span("25:00", "26:00")]) }),
        json!({ "hours": hours("UTC", vec![span("10:00", "10:00")]) }),
        json!({ "hours": hours("UTC", vec![span("10:00", "12:00"), span("11:00", "13:00")]) }),
        json!({ "hours": hours("UTC", vec![span("01:00", "02:00"), span("03:00", "04:00"), span("05:00", "06:00"), span("07:00", "08:00"), span("09:00", "10:00")]) }),
        json!({ "capacity": 51 }),
        json!({ "strategy": "random" }),
        json!({ "unknown": 1 }),
    ] {
        let mut body = settings.clone();
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let (status, answer) = put(shop.admin, business(&shop, "settings"), body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("invalid")), "{wrong}: {answer}");
    }
    let (status, _) = put(shop.admin, business(&shop, "settings"), settings.clone()).await;
    assert_eq!(status, 200);
    let (status, answer) = put(shop.admin, business(&shop, "settings"), settings).await;
    assert_eq!((status, &answer["code"]), (409, &json!("conflict")), "the version has moved on");
    for wrong in [
        json!({ "status": "busy" }),
        json!({ "status": "available", "until": 1 }),
        json!({ "status": "available", "until": i64::MAX }),
        json!({ "status": "away", "until": 4_000_000_000_000_i64 }),
        json!({ "status": "available", "gives_back": true }),
    ] {
        let (status, answer) = put(shop.agents[0], business(&shop, "status"), wrong.clone()).await;
        assert_eq!((status, &answer["code"]), (400, &json!("invalid")), "{wrong}: {answer}");
    }
    assert_eq!(shop.resolve(shop.agents[0], id, 1).await.unwrap_err().code, ErrorCode::Invalid, "no such message");
    assert_eq!(shop.case(id).await.2, Some(shop.agents[0]));
    let newest = shop.place.log.newest(id).await.unwrap().unwrap().1;
    assert_eq!(newest.seq, Seq(0));
    drop(state);
}
