//! The load generator against a fleet: what it says was accepted is kept and was shown, with clients that lose their
//! connections as with others, and costs are counted. Debug builds and a few seconds: no figure here means anything.

use std::time::Duration;

use chat_dev::{
    fleet::Profile,
    load::{
        chat::ChatOptions,
        run,
        scenario::{
            burst::{self, Burst},
            race,
        },
        setting::Setting,
        subject::Subject,
        workload::{CrowdLoad, Workload, micros},
    },
    wait,
};
use chat_load::plan::{Absence, Manners, Phase, Reads, Sends, Writers};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(1);
const LENGTH: Duration = Duration::from_secs(4);
const PAIRS: usize = 6;
const GROUPS: usize = 2;
const GROUP: usize = 8;
const PER_SECOND: f64 = 40.0;

fn crowd(seats: Vec<chat_load::plan::Seat>, conversation_size: usize, absence: Option<Absence>) -> CrowdLoad {
    let until_us = micros(WARM_UP + LENGTH);
    let sends = Sends { per_second: PER_SECOND, from_us: 0, until_us, writers: Writers::All };
    CrowdLoad { seats, conversation_size, sends: Some(sends), absence, ..CrowdLoad::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_accepted_is_kept_and_shown_and_costs_are_counted() {
    let setting = Setting::prepare(Profile::Dev, false).await.unwrap();
    let options = ChatOptions { gateways: 2, handshakes_per_second: None };
    let (chat, _) = setting.chat(options).await.unwrap();
    let until_us = micros(WARM_UP + LENGTH);
    let often = Absence::Often {
        online_us: 1_000_000,
        away_us: 200_000,
        from_us: 0,
        until_us,
        says_goodbye: false,
        first_stays: false,
    };
    let steady = chat.seats(PAIRS, 2).await.unwrap();
    let leaving = chat.seats(GROUPS, GROUP).await.unwrap();
    let workload = Workload {
        name: "smoke".to_owned(),
        crowds: vec![crowd(steady, 2, None), crowd(leaving, GROUP, Some(often))],
        phases: vec![Phase { name: "measured".to_owned(), from_us: micros(WARM_UP), until_us }],
        costed: 0,
        drain: Duration::from_mins(1),
    };
    let measured = run::run(&chat, &workload, &setting.tools).await.unwrap();
    chat.stop().await.unwrap();

    // That the generator was late says only that the machine was busy.
    let problems: Vec<&String> = measured.problems.iter().filter(|problem| !problem.contains("was late")).collect();
    assert!(problems.is_empty(), "{problems:?}");
    let proof = measured.run.proof.unwrap();
    let (pairs, groups) = (&measured.done.crowds[0].tally, &measured.done.crowds[1].tally);
    assert_eq!(pairs.accepted, 200);
    assert_eq!((pairs.expected_shows, pairs.shown), (200, 200));
    assert_eq!((groups.expected_shows, groups.shown), (200 * 7, 200 * 7));
    assert_eq!((proof.accepted, proof.kept, proof.lost, proof.repeated), (400, 400, 0, 0));
    assert!(groups.returned > 0 && groups.absent == 0, "{groups:?}");
    assert!(measured.run.deliver.p50_ms > 0.0 && measured.run.accept.count > 0);
    assert!(measured.run.counters.sql_statements_per_1000.is_some_and(|count| count > 0.0));
    assert!(measured.run.counters.redis_calls_per_1000.is_some_and(|count| count > 0.0));
    assert!(measured.run.processes["postgres"].memory_peak_bytes > 0);
    assert!(measured.run.timeline.len() >= 5, "{:?}", measured.run.timeline);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_marked_and_shown_and_who_comes_goes_and_types_is_seen() {
    let setting = Setting::prepare(Profile::Dev, false).await.unwrap();
    let (chat, _) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await.unwrap();
    let until_us = micros(WARM_UP + LENGTH);
    let watching = Manners { watches: true, ..Manners::default() };
    let talking = CrowdLoad {
        manners: Manners { types_before_us: Some(500_000), reads: Some(Reads::Each { after_us: 100_000 }), ..watching },
        ..crowd(chat.seats(PAIRS, 2).await.unwrap(), 2, None)
    };
    let reading = CrowdLoad {
        manners: Manners { reads: Some(Reads::Together { at_us: until_us - 500_000 }), ..Manners::default() },
        sends: Some(Sends { per_second: 20.0, from_us: 0, until_us: until_us - 1_500_000, writers: Writers::First }),
        ..crowd(chat.seats(GROUPS, GROUP).await.unwrap(), GROUP, None)
    };
    let visiting = CrowdLoad {
        sends: None,
        manners: watching,
        ..crowd(
            chat.seats(PAIRS, 2).await.unwrap(),
            2,
            Some(Absence::Often {
                online_us: 1_000_000,
                away_us: 500_000,
                from_us: 0,
                until_us,
                says_goodbye: true,
                first_stays: true,
            }),
        )
    };
    let workload = Workload {
        name: "manners".to_owned(),
        crowds: vec![talking, reading, visiting],
        phases: vec![Phase { name: "measured".to_owned(), from_us: micros(WARM_UP), until_us }],
        costed: 0,
        drain: Duration::from_mins(1),
    };
    let measured = run::run(&chat, &workload, &setting.tools).await.unwrap();
    let [talking, reading, visiting] = &measured.done.crowds[..] else { panic!("three crowds") };
    let marked: Vec<_> = talking.realtime.furthest.iter().chain(&reading.realtime.furthest).collect();
    wait::until("storing what was read", DEADLINE, async || {
        let read = chat.read().await?;
        Ok(marked.iter().all(|(user, marked)| read[*user] >= **marked).then_some(()))
    })
    .await
    .unwrap();
    chat.stop().await.unwrap();

    for crowd in [talking, reading] {
        let realtime = &crowd.realtime;
        assert!(realtime.marks > 0 && realtime.marks == realtime.marks_done, "{realtime:?}");
        assert_eq!(realtime.receipts_shown, realtime.expected_receipts);
        assert!(realtime.shown.count() > 0 && realtime.done.count() == realtime.marks);
    }
    assert_eq!(reading.realtime.marks, (GROUPS * (GROUP - 1)) as u64, "all but those who write");
    assert_eq!(reading.realtime.expected_receipts, (GROUPS * (GROUP - 1) * (GROUP - 1)) as u64);
    assert!(talking.realtime.typing_said > 0 && talking.realtime.typing_shown > 0);
    // One push for each that left, and one for each that came back.
    let seen = visiting.realtime.presence_shown;
    assert!(visiting.tally.returned > 0 && seen >= visiting.tally.returned, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_customer_of_a_burst_gets_an_agent_and_its_case_resolved_r7_2() {
    for new in [false, true] {
        let setting = Setting::prepare(Profile::Dev, false).await.unwrap();
        let (chat, _) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await.unwrap();
        let options = burst::Options { customers: 20, agents: 2, answer_ms: 50, new, rate: 40, pairs: 4, seconds: 2 };
        let (workload, measured) = burst::measure(&options, &chat, &setting.tools).await.unwrap();
        chat.stop().await.unwrap();

        let Burst { assigned, ledger, forgotten, .. } = &measured.meanwhile;
        assert_eq!((*assigned, *forgotten), (20, 0), "{ledger:?}");
        assert!(ledger.assignments >= 20 && ledger.waited_p99_ms > 0.0, "{ledger:?}");
        let proof = measured.run.proof.unwrap();
        assert_eq!((proof.lost, proof.repeated, proof.unanswered), (0, 0, 0));
        assert_eq!(workload.crowds.len(), if new { 1 } else { 2 });
        assert!(measured.done.crowds[0].phases.iter().all(|phase| phase.accepted > 0), "all are measured");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_case_has_two_agents_and_no_customer_none_while_gateways_are_killed_r2_4() {
    let setting = Setting::prepare(Profile::Dev, false).await.unwrap();
    let (chat, _) = setting.chat(ChatOptions { gateways: 2, handshakes_per_second: None }).await.unwrap();
    let options = race::Options { customers: 30, seconds: 3, agents: 3, answer_ms: 100, gateways: 2, kill_ms: 2000 };
    let verdict = race::race(&options, &chat).await.unwrap();
    chat.stop().await.unwrap();

    assert!(verdict.failures().is_empty(), "{verdict:?}");
    assert!(verdict.kills > 0 && verdict.load_max > 0 && verdict.ledger.assignments >= 30, "{verdict:?}");
}
