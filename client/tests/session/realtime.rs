//! Marks, typing, presence, receipts and what is unread.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chat_client::{
    Client, ClientOptions, CommandError, Event, Events, WatchList,
    clock::Timestamp,
    ids::{BusinessId, ConversationId, MessageId, UserId},
    positions::{Cursor, Seq},
    wire::{
        Availability, BusinessAvailability, Command, ErrorCode, MarkRead, Message, Presence, Push, Receipt,
        ReceiptKind, Typing, WatchBusinesses, WatchPresence, WatchedBusiness,
    },
};
use tokio::join;

use crate::{
    connected,
    fake::{FakeGateway, Socket, message},
    next_event, next_message,
};

/// Options of this user.
fn options_of(gateway: &FakeGateway, user_id: UserId) -> ClientOptions {
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{}"}}"#, user_id.as_uuid()));
    ClientOptions { token: format!("e30.{claims}.c2ln").as_str().into(), ..gateway.options() }
}

/// The next event that isn't about the connection.
async fn next_news(events: &mut Events) -> Event {
    loop {
        match next_event(events).await {
            Event::State(_) | Event::Reloaded(_) => {}
            event => return event,
        }
    }
}

/// The next mark, its reference, and what it marks.
async fn mark(socket: &mut Socket) -> (u64, MessageId) {
    let (reference, MarkRead { message_id, .. }) = whole_mark(socket).await;
    (reference, message_id)
}

async fn whole_mark(socket: &mut Socket) -> (u64, MarkRead) {
    match socket.asked().await {
        (reference, Command::MarkRead(mark)) => (reference, mark),
        (_, other) => panic!("{other:?} came instead of a mark"),
    }
}

/// The next list of users to watch, and its reference.
async fn watch(socket: &mut Socket) -> (u64, Vec<UserId>) {
    match socket.asked().await {
        (reference, Command::WatchPresence(WatchPresence { user_ids })) => (reference, user_ids),
        (_, other) => panic!("{other:?} came instead of a list to watch"),
    }
}

const fn presence(user_id: UserId, is_online: bool) -> Presence {
    Presence { user_id, is_online, last_seen_at: None }
}

fn receipt(conversation_id: ConversationId, user_id: UserId, seq: u64) -> Receipt {
    let (kind, message_id, at) = (ReceiptKind::Read, Some(MessageId::random()), Timestamp(0));
    Receipt { conversation_id, user_id, kind, seq: Seq(seq), message_id, unread: None, at }
}

#[tokio::test]
async fn r8_5_a_mark_that_waits_is_replaced_by_a_newer_one_of_the_same_conversation() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, _events, mut socket, _) = connected(&mut gateway, options).await;
    let ids = [(); 3].map(|()| MessageId::random());
    let gateway_side = async {
        let (reference, message_id) = mark(&mut socket).await;
        assert_eq!(message_id, ids[0]);
        // What is given while it is on its way waits; a mark elsewhere does not, and shows that they have been given.
        let elsewhere = ConversationId::random();
        let (others, ()) = join!(
            async { join!(client.mark_read(conversation, ids[1]), client.mark_read(conversation, ids[2])) },
            async {
                let (marked, ()) = join!(client.mark_read(elsewhere, ids[0]), async {
                    let (reference, message_id) = mark(&mut socket).await;
                    assert_eq!(message_id, ids[0], "of elsewhere");
                    socket.done(reference).await;
                });
                assert_eq!(marked, Ok(()));
                socket.done(reference).await;
                let (reference, message_id) = mark(&mut socket).await;
                assert_eq!(message_id, ids[2], "the one between was replaced");
                socket.done(reference).await;
            }
        );
        assert_eq!(others, (Ok(()), Ok(())));
    };
    assert_eq!(join!(client.mark_read(conversation, ids[0]), gateway_side).0, Ok(()));
}

#[tokio::test]
async fn r8_5_a_mark_carries_the_number_of_a_message_that_has_come() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    let message = message(conversation, 1);
    gateway.write(&message);
    socket.message(11, &message).await;
    assert_eq!(next_message(&mut events).await, message);
    for (message_id, number) in [(message.message_id, Some(Seq(1))), (MessageId::random(), None)] {
        let (marked, ()) = join!(client.mark_read(conversation, message_id), async {
            let (reference, mark) = whole_mark(&mut socket).await;
            assert_eq!((mark.message_id, mark.seq), (message_id, number));
            socket.done(reference).await;
        });
        assert_eq!(marked, Ok(()));
    }
}

#[tokio::test]
async fn a_mark_is_repeated_over_a_lost_connection_and_a_busy_gateway_and_a_refusal_is_final() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, _events, mut socket, epoch) = connected(&mut gateway, options).await;
    let message_id = MessageId::random();
    let (marked, ()) = join!(client.mark_read(conversation, message_id), async {
        assert_eq!(mark(&mut socket).await.1, message_id);
        drop(socket);
        let mut socket = gateway.accept().await;
        socket.ready(Some(epoch), 10, true).await;
        for code in [ErrorCode::Unavailable, ErrorCode::RateLimited, ErrorCode::NotFound] {
            let (reference, repeated) = mark(&mut socket).await;
            assert_eq!(repeated, message_id);
            socket.reject(reference, code).await;
        }
    });
    assert_eq!(marked, Err(CommandError::Rejected { code: ErrorCode::NotFound, message: "because".into() }));
}

#[tokio::test]
async fn a_command_without_a_connection_ends_at_its_deadline() {
    let gateway = FakeGateway::start().await;
    let options = ClientOptions { send_wait_max: std::time::Duration::from_millis(1), ..gateway.options() };
    let (client, _events) = Client::start(options).unwrap();
    let marked = client.mark_read(ConversationId::random(), MessageId::random()).await;
    assert_eq!(marked, Err(CommandError::NotAnswered));
    assert_eq!(client.watch_presence(vec![UserId::random()]).await, Err(CommandError::NotAnswered));
    let many = (0..101).map(|_| UserId::random()).collect();
    assert!(matches!(client.watch_presence(many).await, Err(CommandError::Rejected { code: ErrorCode::Invalid, .. })));
}

#[tokio::test]
async fn r8_4_typing_of_others_ends_with_their_message_or_by_itself() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (_client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    let message = message(ConversationId::random(), 1);
    let Message { conversation_id, sender_id: user_id, .. } = message;
    let typing = Typing { conversation_id, user_id, is_typing: true };
    socket.push(Push::Typing { typing }).await;
    socket.push(Push::Typing { typing }).await;
    assert_eq!(next_news(&mut events).await, Event::Typing(typing));
    socket.message(11, &message).await;
    let ended = Event::Typing(Typing { is_typing: false, ..typing });
    assert_eq!(next_news(&mut events).await, ended);
    assert_eq!(next_news(&mut events).await, Event::Unread { conversation_id, unread: 1, total: 1 });
    assert_eq!(next_news(&mut events).await, Event::Message(message));
    socket.push(Push::Typing { typing }).await;
    assert_eq!(next_news(&mut events).await, Event::Typing(typing));
    assert_eq!(next_news(&mut events).await, ended, "nothing more was heard of it");
}

#[tokio::test]
async fn r8_3_the_gateway_is_told_of_typing_once_and_of_its_end() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, _events, mut socket, epoch) = connected(&mut gateway, options).await;
    let conversation = ConversationId::random();
    for is_typing in [false, true, true, true, false, false] {
        client.set_typing(conversation, is_typing);
    }
    let told = async |socket: &mut Socket| match socket.asked().await.1 {
        Command::SetTyping(typing) => (typing.conversation_id, typing.is_typing),
        other => panic!("{other:?} came instead of typing"),
    };
    assert_eq!(told(&mut socket).await, (conversation, true));
    assert_eq!(told(&mut socket).await, (conversation, false));
    client.set_typing(conversation, true);
    assert_eq!(told(&mut socket).await, (conversation, true));
    drop(socket);
    let mut socket = gateway.accept().await;
    // Without a connection it is dropped, and after it the gateway is told anew.
    client.set_typing(conversation, true);
    socket.ready(Some(epoch), 10, true).await;
    client.wait_for_state(|state| matches!(state, chat_client::ConnectionState::Connected { .. })).await;
    client.set_typing(conversation, true);
    assert_eq!(told(&mut socket).await, (conversation, true));
    let sending = client.send(conversation, "done");
    let (accepted, ()) = join!(sending, async {
        socket.accept_send(1).await;
    });
    assert!(accepted.is_ok());
    client.set_typing(conversation, true);
    assert_eq!(told(&mut socket).await, (conversation, true), "sending has ended it");
}

#[tokio::test]
async fn r8_1_presence_is_watched_again_after_a_reconnect_and_only_changes_are_told() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
    let users = [UserId::random(), UserId::random()];
    let (watched, ()) = join!(client.watch_presence(users.to_vec()), async {
        let (reference, list) = watch(&mut socket).await;
        assert_eq!(list, users);
        socket.done(reference).await;
        socket.push(Push::Presence { users: users.map(|user_id| presence(user_id, false)).to_vec() }).await;
    });
    assert_eq!(watched, Ok(()));
    let offline = users.map(|user_id| presence(user_id, false)).to_vec();
    assert_eq!(next_news(&mut events).await, Event::Presence(offline.clone()));

    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(Some(epoch), 10, true).await;
    let (reference, list) = watch(&mut socket).await;
    assert_eq!(list, users, "nobody had to ask again");
    socket.done(reference).await;
    socket.push(Push::Presence { users: offline }).await;
    socket.push(Push::Presence { users: vec![presence(users[1], true)] }).await;
    assert_eq!(next_news(&mut events).await, Event::Presence(vec![presence(users[1], true)]));

    let (refused, ()) = join!(client.watch_presence(vec![UserId::random()]), async {
        let (reference, _) = watch(&mut socket).await;
        socket.reject(reference, ErrorCode::NotFound).await;
    });
    assert!(matches!(refused, Err(CommandError::Rejected { code: ErrorCode::NotFound, .. })));
    socket.push(Push::Presence { users: vec![presence(users[0], true)] }).await;
    assert_eq!(next_news(&mut events).await, Event::Presence(vec![presence(users[0], true)]), "the older list stands");

    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(Some(epoch), 10, true).await;
    let (reference, _) = watch(&mut socket).await;
    socket.reject(reference, ErrorCode::NotFound).await;
    let ended = Event::WatchEnded { list: WatchList::Users, code: ErrorCode::NotFound, message: "because".into() };
    assert_eq!(next_news(&mut events).await, ended);
}

/// The next `watch_businesses`: its reference, and the list.
async fn watch_businesses(socket: &mut Socket) -> (u64, Vec<BusinessId>) {
    match socket.asked().await {
        (reference, Command::WatchBusinesses(WatchBusinesses { business_ids })) => (reference, business_ids),
        (_, other) => panic!("{other:?} came instead of a list of businesses"),
    }
}

#[tokio::test]
async fn r7_3_businesses_are_watched_again_after_a_reconnect_and_only_changes_are_handed_over() {
    let mut gateway = FakeGateway::start().await;
    let options = gateway.options();
    let (client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
    let business_id = BusinessId::random();
    let state = |state| WatchedBusiness {
        availability: BusinessAvailability { business_id, state, opens_at: None, closes_at: None, waiting: None },
        queue: None,
    };
    let (watched, ()) = join!(client.watch_businesses(vec![business_id]), async {
        let (reference, list) = watch_businesses(&mut socket).await;
        assert_eq!(list, [business_id]);
        socket.done(reference).await;
        socket.push(Push::Business { business: state(Availability::Away) }).await;
    });
    assert_eq!(watched, Ok(()));
    assert_eq!(next_news(&mut events).await, Event::Businesses(vec![state(Availability::Away)]));

    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(Some(epoch), 10, true).await;
    let (reference, list) = watch_businesses(&mut socket).await;
    assert_eq!(list, [business_id], "the application does not ask again");
    socket.done(reference).await;
    socket.push(Push::Business { business: state(Availability::Away) }).await;
    socket.push(Push::Business { business: state(Availability::Busy) }).await;
    assert_eq!(next_news(&mut events).await, Event::Businesses(vec![state(Availability::Busy)]));

    let many = std::iter::repeat_with(BusinessId::random).take(21).collect();
    let refused = client.watch_businesses(many).await;
    assert!(matches!(refused, Err(CommandError::Rejected { code: ErrorCode::Invalid, .. })));

    drop(socket);
    let mut socket = gateway.accept().await;
    socket.ready(Some(epoch), 10, true).await;
    let (reference, _) = watch_businesses(&mut socket).await;
    socket.reject(reference, ErrorCode::NotFound).await;
    let ended = Event::WatchEnded { list: WatchList::Businesses, code: ErrorCode::NotFound, message: "because".into() };
    assert_eq!(next_news(&mut events).await, ended);
}

#[tokio::test]
async fn r8_5_receipts_take_part_in_the_order_of_pushes_and_only_go_forward() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (_client, mut events, mut socket, epoch) = connected(&mut gateway, options).await;
    let other = UserId::random();
    let (third, second, fifth) =
        (receipt(conversation, other, 3), receipt(conversation, other, 2), receipt(conversation, other, 5));
    for (cursor, receipt) in [(11, third), (12, second)] {
        socket.push(Push::Receipt { cursor: Some(Cursor(cursor)), receipt }).await;
    }
    assert_eq!(next_news(&mut events).await, Event::Receipt(third));
    socket.confirms(12).await;
    // One that jumps is not taken in; it comes again after the resume.
    socket.push(Push::Receipt { cursor: Some(Cursor(14)), receipt: fifth }).await;
    let mut socket = gateway.accept().await;
    assert_eq!(socket.hello.resume.map(|resume| resume.cursor), Some(Cursor(12)));
    socket.ready(Some(epoch), 14, true).await;
    socket.message(13, &message(conversation, 1)).await;
    socket.push(Push::Receipt { cursor: Some(Cursor(14)), receipt: fifth }).await;
    loop {
        match next_news(&mut events).await {
            Event::Receipt(receipt) => break assert_eq!(receipt, fifth),
            Event::Message(_) | Event::Unread { .. } => {}
            other => panic!("{other:?} came"),
        }
    }
}

#[tokio::test]
async fn what_came_without_a_cursor_is_confirmed_with_its_numbered_copy_once_it_is_taken() {
    let (mut gateway, conversation) = (FakeGateway::start().await, ConversationId::random());
    let options = gateway.options();
    let (client, mut events, mut socket, _) = connected(&mut gateway, options).await;
    while !matches!(next_event(&mut events).await, Event::Reloaded(_)) {}
    let receipt = receipt(conversation, UserId::random(), 3);
    for cursor in [None, Some(Cursor(11))] {
        socket.push(Push::Receipt { cursor, receipt }).await;
    }
    // Its answer shows that the pushes before it were taken in.
    let (accepted, _) = join!(client.send(conversation, "hello"), socket.accept_send(4));
    assert!(accepted.is_ok());
    let cursor = |client: &Client| client.position().inbox.map(|inbox| inbox.cursor);
    assert_eq!(cursor(&client), Some(Cursor(10)));
    assert_eq!(next_news(&mut events).await, Event::Receipt(receipt));
    assert_eq!(cursor(&client), Some(Cursor(11)));
}

#[tokio::test]
async fn r5_1_what_is_unread_follows_messages_marks_and_ones_own() {
    let (mut gateway, conversation, me) = (FakeGateway::start().await, ConversationId::random(), UserId::random());
    gateway.write(&message(conversation, 1));
    let options = options_of(&gateway, me);
    let (client, mut events, mut socket, _) = connected(&mut gateway, options.clone()).await;
    assert_eq!((client.unread(conversation), client.unread_total()), (Some(0), 0));
    let unread = async |events: &mut Events| loop {
        if let Event::Unread { conversation_id, unread, total } = next_news(events).await {
            return (conversation_id, unread, total);
        }
    };
    let (second, third) = (message(conversation, 2), message(conversation, 3));
    for (cursor, message) in [(11, &second), (12, &third)] {
        gateway.write(message);
        socket.message(cursor, message).await;
    }
    while unread(&mut events).await != (conversation, 2, 2) {}
    let receipt = receipt(conversation, me, 2);
    socket.push(Push::Receipt { cursor: Some(Cursor(13)), receipt }).await;
    assert_eq!(unread(&mut events).await, (conversation, 1, 1));
    assert_eq!((client.unread(conversation), client.unread_total()), (Some(1), 1));

    let own = Message { sender_id: me, ..message(conversation, 4) };
    gateway.write(&own);
    // The device that sent it had shown the third.
    socket.push(Push::Message { cursor: Some(Cursor(14)), seen_seq: Some(Seq(3)), message: own }).await;
    assert_eq!(unread(&mut events).await, (conversation, 0, 0));

    // A conversation that is met halfway is asked for before anything is said of it.
    let other = ConversationId::random();
    let messages = [1, 2, 3].map(|seq| message(other, seq));
    messages[..2].iter().for_each(|message| gateway.write(message));
    socket.message(15, &messages[2]).await;
    assert_eq!(unread(&mut events).await, (other, 1, 1));
    assert_eq!(gateway.world.lock().unwrap().single_requests, 1);

    // The numbers survive a restart with a resume, which brings no list.
    let position = client.position();
    assert_eq!(position.reads[&conversation].unread(), 0);
    drop((client, events, socket));
    let (client, (mut socket, cursor)) =
        join!(Client::connect(ClientOptions { resume_from: Some(position), ..options }), async {
            let mut socket = gateway.accept().await;
            let resume = socket.hello.resume.unwrap();
            socket.ready(Some(resume.epoch), resume.cursor.0, true).await;
            (socket, resume.cursor.next().0)
        });
    let (client, mut events) = client.unwrap();
    assert_eq!(client.unread(conversation), Some(0));
    let fifth = message(conversation, 5);
    gateway.write(&fifth);
    socket.message(cursor, &fifth).await;
    assert_eq!(unread(&mut events).await, (conversation, 1, 2));
}
