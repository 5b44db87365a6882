//! Messages, resuming and coming back: against a gateway that does what the protocol allows, at inconvenient moments.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chat_client::{
    Client, ClientOptions, ConnectError, ConnectionState, Event, Outgoing, SendError, Start, StopReason, TokenSource,
    ids::{ConversationId, Epoch, MessageId},
    limits::{EVENTS_MAX, SENDS_IN_FLIGHT_MAX},
    positions::{Cursor, Seq},
    wire::{Encoding, ErrorBody, ErrorCode, Push, Rejected, Reply, Resume, ServerFrame},
};

use crate::{
    connected,
    fake::{DEADLINE, FakeGateway, http, message, switching},
    next_event, next_message,
};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};

#[tokio::test]
async fn messages_come_in_order_and_are_confirmed_once_taken() {
    for encoding in Encoding::ALL {
        let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
        gateway.write(&message(conversation, 1));
        let options = ClientOptions { encoding, ..gateway.options() };
        let (client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
        for (cursor, seq) in [(11, 3), (12, 2), (13, 3)] {
            socket.message(cursor, &message(conversation, seq)).await;
        }
        // The gap may be filled by history or by the push, whichever is first.
        gateway.write(&message(conversation, 2));
        assert_eq!(next_message(&mut events).await.seq, Seq(2));
        assert_eq!(next_message(&mut events).await.seq, Seq(3));
        socket.confirms(13).await;
        let position = client.position();
        assert_eq!(position.inbox.map(|inbox| (inbox.epoch, inbox.cursor)), Some((epoch, Cursor(13))));
        assert_eq!(position.seqs[&conversation], Seq(3));
    }
}

#[tokio::test]
async fn a_gap_is_filled_through_history() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    gateway.write(&message(conversation, 1));
    let options = gateway.options();
    let (_client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    for seq in 2..=5 {
        gateway.write(&message(conversation, seq));
    }
    socket.message(11, &message(conversation, 5)).await;
    for seq in 2..=5 {
        assert_eq!(next_message(&mut events).await.seq, Seq(seq));
    }
}

#[tokio::test]
async fn a_send_whose_connection_is_lost_is_repeated_with_the_same_id() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, _events, mut socket, epoch) = connected(&mut gateway, options).await;
    let sending = client.send(ConversationId::random(), "hello");
    let (accepted, first) = tokio::join!(sending, async {
        let (_, first) = socket.sent().await;
        assert!(!first.is_repeat);
        drop(socket);
        let mut again = gateway.accept().await;
        assert_eq!(again.hello.resume.map(|resume| (resume.epoch, resume.cursor)), Some((epoch, Cursor(10))));
        again.ready(Some(epoch), 10, true).await;
        let repeat = again.accept_send(7).await;
        assert!(repeat.is_repeat);
        assert_eq!(repeat.message_id, first.message_id);
        first
    });
    let accepted = accepted.unwrap();
    assert_eq!((accepted.message_id, accepted.seq), (first.message_id, Seq(7)));
}

#[tokio::test]
async fn what_is_unavailable_is_repeated_and_a_conflict_is_final() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, _events, mut socket, _) = connected(&mut gateway, options).await;
    let sending = client.send(ConversationId::random(), "hello");
    let (outcome, ()) = tokio::join!(sending, async {
        for (code, is_repeat) in
            [(ErrorCode::RateLimited, false), (ErrorCode::Unavailable, false), (ErrorCode::Conflict, true)]
        {
            let (reference, sent) = socket.sent().await;
            assert_eq!(sent.is_repeat, is_repeat, "{code:?}");
            let rejected = Rejected { reference: Some(reference), code, message: "no".into(), retry_after_ms: Some(1) };
            socket.say(&ServerFrame::Reply(Reply::Rejected(rejected))).await;
        }
    });
    assert_eq!(outcome, Err(SendError::Rejected { code: ErrorCode::Conflict, message: "no".into() }));
}

#[tokio::test]
async fn a_deadline_tells_an_unknown_outcome_from_a_message_that_was_not_sent() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, _events, mut socket, _) = connected(&mut gateway, options).await;
    let soon = |wait| Outgoing { wait_max: Some(wait), ..Outgoing::new(ConversationId::random(), "hello") };
    let outgoing = soon(Duration::from_millis(100));
    let message_id = outgoing.message_id;
    let (outcome, _) = tokio::join!(client.send_message(outgoing), socket.sent());
    assert_eq!(outcome, Err(SendError::OutcomeUnknown { message_id }));

    // Every place is taken by sends that get no answer.
    let mut waiting = JoinSet::new();
    for _ in 0..SENDS_IN_FLIGHT_MAX {
        let (client, outgoing) = (client.clone(), soon(DEADLINE));
        waiting.spawn(async move { client.send_message(outgoing).await });
        socket.sent().await;
    }
    let outgoing = soon(Duration::from_millis(100));
    let message_id = outgoing.message_id;
    assert_eq!(client.send_message(outgoing).await, Err(SendError::NotSent { message_id }));
    client.close().await;
    while let Some(outcome) = waiting.join_next().await {
        assert!(matches!(outcome.unwrap(), Err(SendError::OutcomeUnknown { .. })));
    }
}

#[tokio::test]
async fn a_client_that_is_told_to_reload_fills_what_it_missed_and_no_more() {
    let (mut gateway, conversation, new) =
        (FakeGateway::start().await, ConversationId::random(), ConversationId::random());
    gateway.write(&message(conversation, 1));
    let options = gateway.options();
    let (_client, mut events, socket, _) = connected(&mut gateway, options).await;
    for seq in 2..=30 {
        gateway.write(&message(conversation, seq));
    }
    gateway.write(&message(new, 1));
    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(Some(Epoch::random()), 99, false).await;
    let mut seqs = Vec::new();
    let mut is_new_seen = false;
    while seqs.len() < 29 || !is_new_seen {
        let message = next_message(&mut events).await;
        if message.conversation_id == conversation { seqs.push(message.seq.0) } else { is_new_seen = true }
    }
    assert_eq!(seqs, (2..=30).collect::<Vec<_>>());
    assert_eq!(gateway.world.lock().unwrap().list_requests, 2);
}

#[tokio::test]
async fn a_restarted_application_goes_on_where_it_stopped() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    gateway.write(&message(conversation, 1));
    let options = gateway.options();
    let (client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
    socket.message(11, &message(conversation, 2)).await;
    socket.message(12, &message(conversation, 3)).await;
    assert_eq!(next_message(&mut events).await.seq, Seq(2));
    let position = client.position();
    drop((client, events, socket));

    let options = ClientOptions { resume_from: Some(position), ..gateway.options() };
    let (client, ()) = tokio::join!(Client::connect(options), async {
        let mut socket = gateway.accept().await;
        assert_eq!(socket.hello.resume.map(|resume| (resume.epoch, resume.cursor)), Some((epoch, Cursor(11))));
        socket.ready(Some(epoch), 11, true).await;
        socket.message(12, &message(conversation, 3)).await;
        assert_eq!(socket.confirmed().await, Cursor(11), "nothing more was taken");
    });
    assert_eq!(next_message(&mut client.unwrap().1).await.seq, Seq(3));
}

#[tokio::test]
async fn a_gateway_that_goes_away_is_left_for_the_next_one() {
    let (mut first, mut second) = (FakeGateway::start().await, FakeGateway::start().await);
    let options = ClientOptions { gateways: vec![first.url.clone(), second.url.clone()], ..first.options() };
    let (client, _events, mut socket, epoch) = connected(&mut first, options).await;
    socket.push(Push::GoingAway { reconnect_after_ms: 1 }).await;
    socket.close(4000).await;
    let mut socket = second.accept().await;
    assert!(socket.hello.resume.is_some());
    socket.ready(Some(epoch), 10, true).await;
    let state = client.wait_for_state(|state| matches!(state, ConnectionState::Connected { .. })).await;
    assert!(
        matches!(state, ConnectionState::Connected { gateway, resumed: true, .. } if gateway.starts_with(&second.url))
    );
}

#[tokio::test]
async fn a_refused_handshake_is_tried_again_at_the_next_gateway() {
    let (first, mut second) = (FakeGateway::start().await, FakeGateway::start().await);
    let body = ErrorBody { code: ErrorCode::Unavailable, message: "full".into(), retry_after_ms: None };
    first.world.lock().unwrap().refusals.push_back(http("503 Service Unavailable", "Retry-After: 0\r\n", &body));
    let options = ClientOptions { gateways: vec![first.url.clone(), second.url.clone()], ..first.options() };
    connected(&mut second, options).await;
}

#[tokio::test]
async fn a_proxy_that_answers_for_a_gateway_is_left_for_the_next_one() {
    let html = |status| {
        format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 4\r\n\r\n<p/>")
    };
    let of_another_service = http("403 Forbidden", "", &json!({ "code": "no_route", "message": "no" }));
    for refusal in [html("400 Bad Request"), html("401 Unauthorized"), html("404 Not Found"), of_another_service] {
        let (first, mut second) = (FakeGateway::start().await, FakeGateway::start().await);
        first.world.lock().unwrap().refusals.push_back(refusal);
        let options = ClientOptions { gateways: vec![first.url.clone(), second.url.clone()], ..first.options() };
        connected(&mut second, options).await;
    }
}

#[tokio::test]
async fn an_answer_to_another_handshake_is_not_taken() {
    let gateway = FakeGateway::start().await;
    let of_another_key = switching("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", Encoding::Json.subprotocol());
    gateway.world.lock().unwrap().refusals.push_back(of_another_key);
    let (_client, mut events) = Client::start(gateway.options()).unwrap();
    let reason = loop {
        if let Event::State(ConnectionState::Disconnected { reason, .. }) = next_event(&mut events).await {
            break reason;
        }
    };
    assert!(reason.contains("did not accept the key"), "{reason}");
}

#[tokio::test]
async fn missing_pushes_are_resumed_and_if_that_does_not_help_reloaded() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (_client, _events, mut socket, epoch) = connected(&mut gateway, options).await;
    socket.push(Push::Heartbeat { cursor: Cursor(10) }).await;
    socket.push(Push::Heartbeat { cursor: Cursor(11) }).await;
    let mut socket = gateway.accept().await;
    assert_eq!(socket.hello.resume.map(|resume| resume.cursor), Some(Cursor(10)));
    socket.ready(Some(epoch), 10, true).await;
    socket.message(12, &message(ConversationId::random(), 1)).await;
    let mut socket = gateway.accept().await;
    assert_eq!(socket.hello.resume, None);
    socket.ready(Some(epoch), 12, false).await;
}

#[tokio::test]
async fn a_push_without_a_cursor_is_an_extra_copy_and_the_inbox_goes_on() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
    let messages = [1, 2, 3].map(|seq| message(conversation, seq));
    socket.message(11, &messages[0]).await;
    for message in &messages[1..] {
        socket.push(Push::Message { cursor: None, seen_seq: None, message: message.clone() }).await;
    }
    for message in &messages {
        assert_eq!(next_message(&mut events).await, *message);
    }
    assert_eq!(client.position().inbox, Some(Resume { epoch, cursor: Cursor(11) }));
    socket.confirms(11).await;
    // The numbered copies come when the inbox is back, one of them after a resume.
    socket.message(12, &messages[1]).await;
    socket.confirms(12).await;
    socket.close(4003).await;
    let mut socket = gateway.accept().await;
    assert_eq!(socket.hello.resume, Some(Resume { epoch, cursor: Cursor(12) }));
    socket.ready(Some(epoch), 12, true).await;
    socket.message(13, &messages[2]).await;
    socket.message(14, &message(conversation, 4)).await;
    assert_eq!(next_message(&mut events).await.seq, Seq(4), "no message is handed over twice");
    socket.confirms(14).await;
    assert_eq!(gateway.world.lock().unwrap().list_requests, 1, "nothing was loaded again");
}

#[tokio::test]
async fn a_connection_without_an_inbox_reloads_and_leaves_the_place_in_it_as_it_was() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    gateway.write(&message(conversation, 1));
    let options = gateway.options();
    let (_client, mut events, socket, epoch) = connected(&mut gateway, options).await;
    let (second, third) = (message(conversation, 2), message(conversation, 3));
    gateway.write(&second);
    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(None, 0, false).await;
    gateway.write(&third);
    socket.push(Push::Message { cursor: None, seen_seq: None, message: third.clone() }).await;
    for message in [&second, &third] {
        assert_eq!(next_message(&mut events).await, *message);
    }
    socket.close(4003).await;
    let mut socket = gateway.accept().await;
    assert_eq!(socket.hello.resume, Some(Resume { epoch, cursor: Cursor(10) }));
    socket.ready(Some(epoch), 10, true).await;
    for (cursor, message) in [(11, &second), (12, &third), (13, &message(conversation, 4))] {
        socket.message(cursor, message).await;
    }
    assert_eq!(next_message(&mut events).await.seq, Seq(4), "no message is handed over twice");
    let mut taker = JoinSet::new();
    taker.spawn(async move { while events.next().await.is_some() {} });
    socket.confirms(13).await;
}

#[tokio::test]
async fn where_the_inbox_stood_is_confirmed_once_what_a_reload_showed_is_taken() {
    for head in [10, 0] {
        let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
        gateway.write(&message(conversation, 1));
        let options = ClientOptions { start: Start::Beginning, ..gateway.options() };
        let (client, mut socket) = tokio::join!(Client::connect(options), async {
            let mut socket = gateway.accept().await;
            socket.ready(Some(Epoch::random()), head, false).await;
            socket
        });
        let (_client, mut events) = client.unwrap();
        socket.push(Push::Heartbeat { cursor: Cursor(head) }).await;
        assert_eq!(socket.heartbeat().await, None, "the message is not taken");
        assert_eq!(next_message(&mut events).await.seq, Seq(1));
        assert_eq!(socket.confirmed().await, Cursor(head));
    }
}

#[tokio::test]
async fn each_heartbeat_is_answered_with_what_was_taken() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (_client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    for cursor in [11, 12] {
        let message = message(conversation, cursor - 10);
        socket.message(cursor, &message).await;
        assert_eq!(next_message(&mut events).await, message);
        socket.push(Push::Heartbeat { cursor: Cursor(cursor) }).await;
        assert_eq!(socket.heartbeat().await, Some(Cursor(cursor)));
    }
}

#[tokio::test]
async fn an_unknown_push_counts_in_the_inbox_and_disturbs_nothing() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (_client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    socket.say_raw(r#"{"type":"weather","cursor":11,"sky":"blue"}"#).await;
    socket.message(12, &message(conversation, 1)).await;
    assert_eq!(next_message(&mut events).await.seq, Seq(1));
    socket.confirms(12).await;
}

#[tokio::test]
async fn an_application_that_takes_no_events_loses_none_and_can_still_send() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    gateway.write(&message(conversation, 1));
    let options = gateway.options();
    let (client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    let count = EVENTS_MAX as u64 + 2000;
    for seq in 2..=count {
        let message = message(conversation, seq);
        gateway.write(&message);
        socket.message(9 + seq, &message).await;
    }
    let (accepted, _) = tokio::join!(client.send(conversation, "hello"), socket.accept_send(count + 1));
    assert_eq!(accepted.unwrap().seq, Seq(count + 1));
    for seq in 2..=count {
        assert_eq!(next_message(&mut events).await.seq, Seq(seq));
    }
    socket.confirms(9 + count).await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_by_a_fresh_one() {
    let mut gateway = FakeGateway::start().await;
    let calls = Arc::new(AtomicU32::new(0));
    let token = TokenSource::callback(move || {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        async move { Ok(format!("token-{number}")) }
    });
    let options = ClientOptions { token, ..gateway.options() };
    let (_client, _events, socket, epoch) = connected(&mut gateway, options).await;
    assert_eq!(socket.token, "token-0");
    socket.close(4504).await;
    let body = ErrorBody { code: ErrorCode::Unauthenticated, message: "no".into(), retry_after_ms: None };
    gateway.world.lock().unwrap().refusals.push_back(http("401 Unauthorized", "", &body));
    let mut socket = gateway.accept().await;
    assert!(["token-1", "token-2"].contains(&socket.token.as_str()), "{}", socket.token);
    socket.ready(Some(epoch), 10, true).await;
}

#[tokio::test]
async fn a_client_stops_when_coming_back_cannot_help() {
    let mut gateway = FakeGateway::start().await;
    for code in [4504, 4505] {
        let options = gateway.options();
        let (client, mut events, mut socket, _) = connected(&mut gateway, options).await;
        let sending = client.send(ConversationId::random(), "hello");
        let (outcome, ()) = tokio::join!(sending, async {
            socket.sent().await;
            socket.close(code).await;
        });
        assert!(matches!(outcome, Err(SendError::OutcomeUnknown { .. })));
        let mut last = None;
        while let Some(event) = timeout(DEADLINE, events.next()).await.expect("the end in time") {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::State(ConnectionState::Stopped { .. }))), "{last:?}");
        let outcome = client.send(ConversationId::random(), "too late").await;
        assert!(matches!(outcome, Err(SendError::NotSent { .. })));
    }
    let body = ErrorBody { code: ErrorCode::Forbidden, message: "origin".into(), retry_after_ms: None };
    gateway.world.lock().unwrap().refusals.push_back(http("403 Forbidden", "", &body));
    let refused = StopReason::Refused { status: 403, code: ErrorCode::Forbidden, message: "origin".into() };
    assert_eq!(Client::connect(gateway.options()).await.err(), Some(ConnectError::Stopped(refused)));
}

#[tokio::test]
async fn closing_confirms_what_was_taken() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    socket.message(11, &message(conversation, 1)).await;
    assert_eq!(next_message(&mut events).await.seq, Seq(1));
    let (position, ()) = tokio::join!(client.close(), async {
        socket.confirms(11).await;
        socket.close(1000).await;
    });
    assert_eq!(position.inbox.map(|inbox| inbox.cursor), Some(Cursor(11)));
    assert!(matches!(client.state(), ConnectionState::Stopped { reason: StopReason::Closed }));
}

#[tokio::test]
async fn text_that_no_gateway_would_take_is_refused_at_once() {
    let gateway = FakeGateway::start().await;
    let (client, _events) = Client::start(gateway.options()).unwrap();
    for text in [String::new(), "x".repeat(8 * 1024 + 1)] {
        let outgoing = Outgoing { message_id: MessageId::random(), ..Outgoing::new(ConversationId::random(), text) };
        assert!(matches!(client.send_message(outgoing).await, Err(SendError::InvalidText { .. })));
    }
    assert!(matches!(Client::start(ClientOptions::new(["ftp://x"], "t")), Err(ConnectError::InvalidOptions(_))));
    assert!(matches!(Client::start(ClientOptions::new([""; 0], "t")), Err(ConnectError::InvalidOptions(_))));
}
