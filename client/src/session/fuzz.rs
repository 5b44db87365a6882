//! A gateway that says anything: frames with changed bytes and absurd numbers, in any order. The client neither panics nor
//! hands a message over twice.

use std::collections::HashSet;

use chat_shared::{
    clock::Timestamp,
    ids::{ConversationId, Epoch, MessageId, SessionId, UserId},
    position::{Cursor, Seq},
    wire::{
        Accepted, ChangedConversation, Connected, Conversation, ConversationKind, ConversationName, ErrorCode,
        HistoryPage, Message, Participant, Presence, ProfileList, ProfileState, Progress, Push, Receipt, ReceiptKind,
        Rejected, Reply, Role, ServerFrame, Typing, UserProfile, WatchPresence, WireLimits,
    },
};
use fastwebsockets::{Frame, Payload};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    connection::{Connection, decode},
    error::RestError,
};

#[path = "../../../shared/tests/input/fuzz/mutation.rs"]
mod mutation;

use mutation::{Change, apply, changes, id, mutated, numbers, texts};

/// What happens to a session, one after the other.
#[derive(Debug, Clone)]
enum Step {
    /// A connection says `ready`.
    Ready(Connected),
    /// A frame comes, some of its bytes changed.
    Frame(Box<ServerFrame>, Vec<Change>),
    /// The list of conversations comes.
    List(Vec<Conversation>),
    /// A page of history comes.
    Page(ConversationId, HistoryPage),
    /// A conversation comes.
    Conversation(Box<Conversation>),
    /// The application takes what there is.
    Take,
    /// The application watches.
    Watch(Vec<UserId>),
    /// The connection breaks.
    Break,
}

/// One of three, so that what is said of one thing meets what was said of it before.
fn few<T: TryFrom<uuid::Uuid, Error: std::fmt::Debug> + Clone + std::fmt::Debug + 'static>(
    kind: u8,
) -> impl Strategy<Value = T> {
    let one = move |number| {
        let bytes = [kind, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        T::try_from(uuid::Builder::from_random_bytes(bytes).into_uuid()).unwrap()
    };
    select(vec![one(1), one(2), one(3)])
}

fn conversation_ids() -> impl Strategy<Value = ConversationId> {
    few(1)
}

fn user_ids() -> impl Strategy<Value = UserId> {
    few(2)
}

fn message_ids() -> impl Strategy<Value = MessageId> {
    few(3)
}

fn epochs() -> impl Strategy<Value = Option<Epoch>> {
    option::weighted(0.9, few(4))
}

/// Mostly those that follow each other.
fn positions() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12_u64, 1 => numbers()]
}

fn cursors() -> impl Strategy<Value = Option<Cursor>> {
    option::weighted(0.9, positions().prop_map(Cursor))
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn messages() -> impl Strategy<Value = Message> {
    (conversation_ids(), message_ids(), user_ids(), positions(), times(), texts()).prop_map(
        |(conversation_id, message_id, sender_id, seq, sent_at, text)| Message {
            conversation_id,
            message_id,
            sender_id,
            seq: Seq(seq),
            sent_at,
            text,
        },
    )
}

fn participants() -> impl Strategy<Value = Vec<Participant>> {
    vec(user_ids().prop_map(|user_id| Participant { user_id, role: Role::Member }), 0..4)
}

fn changed_conversations() -> impl Strategy<Value = ChangedConversation> {
    let changed = (participants(), vec(user_ids(), 0..2), vec(user_ids(), 0..2), vec(user_ids(), 0..2));
    (conversation_ids(), positions(), changed, positions(), times()).prop_map(
        |(conversation_id, version, (participants, added, removed, returned), last_seq, changed_at)| {
            ChangedConversation {
                conversation_id,
                kind: ConversationKind::Group,
                version,
                name: ConversationName::default(),
                participants,
                profiles: Vec::new(),
                business: None,
                case: None,
                is_blocked: false,
                added,
                removed,
                returned,
                last_seq: Seq(last_seq),
                changed_at,
            }
        },
    )
}

fn receipts() -> impl Strategy<Value = Receipt> {
    let unread = option::of(numbers());
    (conversation_ids(), user_ids(), any::<bool>(), positions(), option::of(message_ids()), unread, times()).prop_map(
        |(conversation_id, user_id, is_read, seq, message_id, unread, at)| Receipt {
            conversation_id,
            user_id,
            kind: if is_read { ReceiptKind::Read } else { ReceiptKind::Delivered },
            seq: Seq(seq),
            message_id,
            unread,
            at,
        },
    )
}

fn readies() -> impl Strategy<Value = Connected> {
    (id::<SessionId>(), epochs(), positions(), any::<bool>(), numbers()).prop_map(
        |(session_id, epoch, cursor, resumed, heartbeat_interval_ms)| Connected {
            session_id,
            epoch,
            cursor: Cursor(cursor),
            resumed,
            heartbeat_interval_ms,
            limits: WireLimits::default(),
        },
    )
}

fn pushes() -> impl Strategy<Value = Push> {
    let presence = (user_ids(), any::<bool>(), option::of(times()))
        .prop_map(|(user_id, is_online, last_seen_at)| Presence { user_id, is_online, last_seen_at });
    let profile = (user_ids(), texts()).prop_map(|(user_id, name)| UserProfile {
        user_id,
        name,
        avatar_url: None,
        state: ProfileState::Current,
    });
    prop_oneof![
        6 => (cursors(), messages()).prop_map(|(cursor, message)| Push::Message { cursor, seen_seq: None, message }),
        2 => (cursors(), changed_conversations())
            .prop_map(|(cursor, conversation)| Push::Conversation { cursor, conversation }),
        2 => (cursors(), receipts()).prop_map(|(cursor, receipt)| Push::Receipt { cursor, receipt }),
        1 => (conversation_ids(), user_ids(), any::<bool>()).prop_map(|(conversation_id, user_id, is_typing)| {
            Push::Typing { typing: Typing { conversation_id, user_id, is_typing } }
        }),
        1 => vec(presence, 0..4).prop_map(|users| Push::Presence { users }),
        1 => positions().prop_map(|cursor| Push::Skipped { cursor: Cursor(cursor) }),
        1 => vec(profile, 0..3)
            .prop_map(|users| Push::Profile { profiles: ProfileList { users, businesses: Vec::new() } }),
        1 => positions().prop_map(|cursor| Push::Heartbeat { cursor: Cursor(cursor) }),
        1 => numbers().prop_map(|reconnect_after_ms| Push::GoingAway { reconnect_after_ms }),
        1 => readies().prop_map(Push::Ready),
    ]
}

fn replies() -> impl Strategy<Value = Reply> {
    let references = || option::of(positions());
    let codes = select(vec![ErrorCode::Unavailable, ErrorCode::RateLimited, ErrorCode::NotFound, ErrorCode::Internal]);
    prop_oneof![
        (references(), conversation_ids(), message_ids(), positions()).prop_map(
            |(reference, conversation_id, message_id, seq)| {
                let (seq, sent_at) = (Seq(seq), Timestamp(0));
                Reply::Accepted(Accepted { reference, conversation_id, message_id, seq, sent_at })
            }
        ),
        positions().prop_map(|reference| Reply::Done { reference }),
        (references(), codes, texts(), option::of(numbers())).prop_map(|(reference, code, message, retry_after_ms)| {
            Reply::Rejected(Rejected { reference, code, message, retry_after_ms })
        }),
    ]
}

fn conversations() -> impl Strategy<Value = Conversation> {
    let numbers = (positions(), positions(), positions(), positions(), numbers());
    let progress = (user_ids(), positions(), option::of(positions())).prop_map(|(user_id, read, delivered)| Progress {
        user_id,
        since_seq: Seq::ZERO,
        read_seq: Seq(read),
        last_read_message_id: None,
        delivered_seq: delivered.map(Seq),
    });
    (conversation_ids(), numbers, participants(), vec(progress, 0..3)).prop_map(
        |(conversation_id, (version, last, floor, read, unread), participants, progress)| Conversation {
            conversation_id,
            kind: ConversationKind::Group,
            version,
            name: ConversationName::default(),
            participants,
            profiles: Vec::new(),
            business: None,
            case: None,
            is_blocked: false,
            last_seq: Seq(last),
            floor_seq: Seq(floor),
            read_seq: Seq(read),
            last_read_message_id: None,
            own_runs: chat_shared::runs::Runs::default(),
            unread,
            progress,
            mute: None,
            last_message: None,
            created_at: Timestamp(0),
            last_activity_at: Timestamp(0),
        },
    )
}

fn pages() -> impl Strategy<Value = HistoryPage> {
    (vec(messages(), 0..6), any::<bool>(), positions(), positions()).prop_map(|(messages, has_more, last, floor)| {
        HistoryPage { messages, has_more, last_seq: Seq(last), floor_seq: Seq(floor) }
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let frames = prop_oneof![
        4 => pushes().prop_map(ServerFrame::Push),
        1 => replies().prop_map(ServerFrame::Reply),
    ];
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => vec(changes(), 1..4)];
    prop_oneof![
        2 => readies().prop_map(Step::Ready),
        20 => (frames, changes).prop_map(|(frame, changes)| Step::Frame(Box::new(frame), changes)),
        2 => vec(conversations(), 0..4).prop_map(Step::List),
        3 => (conversation_ids(), pages()).prop_map(|(id, page)| Step::Page(id, page)),
        1 => conversations().prop_map(|conversation| Step::Conversation(Box::new(conversation))),
        4 => Just(Step::Take),
        1 => vec(user_ids(), 0..3).prop_map(Step::Watch),
        1 => Just(Step::Break),
    ]
}

/// A session without its task, and what the application has taken from it.
struct Ground {
    session: Session,
    started: Started,
    outboxes: Vec<mpsc::Receiver<crate::connection::Outbound>>,
    messages: HashSet<(ConversationId, Seq)>,
}

impl Ground {
    fn new(encoding: Encoding) -> Self {
        let mut options = ClientOptions::new(["http://127.0.0.1:1"], "token");
        options.encoding = encoding;
        let (session, started) = prepare(options).unwrap();
        Self { session, started, outboxes: Vec::new(), messages: HashSet::new() }
    }

    fn take(&mut self, step: Step) -> ControlFlow<StopReason> {
        let Self { session, .. } = self;
        match step {
            Step::Ready(ready) => {
                let (connection, outbox) = Connection::detached(ready);
                self.outboxes.push(outbox);
                let taken = session.take(Turn::Opened(Box::new(Ok(connection))));
                let _asked = session.order.next_fetch();
                taken
            }
            Step::Frame(frame, changes) => {
                let mut bytes = session.encoding.encode(&frame).unwrap();
                apply(&changes, &mut bytes);
                let inbound = decode(session.encoding, &Frame::binary(Payload::Owned(bytes)));
                session.take(Turn::Received(Some(inbound)))
            }
            Step::List(list) => {
                let load = session.loading.wanted();
                session.take(Turn::Loaded(Loaded::List { load, outcome: Ok(list) }))
            }
            Step::Page(conversation_id, page) => {
                let _asked = session.order.next_fetch();
                session.take(Turn::Loaded(Loaded::Page { conversation_id, outcome: Ok(page) }))
            }
            Step::Conversation(conversation) => {
                let (conversation_id, outcome) =
                    (conversation.conversation_id, Box::new(Ok::<_, RestError>(*conversation)));
                session.take(Turn::Loaded(Loaded::Conversation { conversation_id, outcome }))
            }
            Step::Take => {
                session.deliver();
                self.hand_over();
                ControlFlow::Continue(())
            }
            Step::Watch(user_ids) => {
                session.realtime.users.ask(&user_ids);
                session.latest.keep(
                    crate::latest::Subject::Presence,
                    chat_shared::wire::Command::WatchPresence(WatchPresence { user_ids }),
                );
                session.take(Turn::OutboxHasRoom)
            }
            Step::Break => session.take(Turn::Received(None)),
        }
    }

    /// What waits for the application, which has not seen any of it before.
    fn hand_over(&mut self) {
        while let Ok(envelope) = self.started.events.try_recv() {
            if let Event::Message(message) = &envelope.event {
                let place = (message.conversation_id, message.seq);
                assert!(self.messages.insert(place), "a message was handed over twice");
            }
            self.started.progress.lock().taken(&envelope);
        }
    }
}

/// A push, and its bytes with changes.
fn changed() -> impl Strategy<Value = (Encoding, Push, Vec<u8>)> {
    (select(Encoding::ALL.to_vec()), pushes()).prop_flat_map(|(encoding, push)| {
        let bytes = encoding.encode(&ServerFrame::Push(push.clone())).unwrap();
        (Just(encoding), Just(push), mutated(Just(bytes)))
    })
}

proptest! {
    #[test]
    fn no_gateway_makes_a_client_panic_or_repeat_a_message(
        encoding in select(Encoding::ALL.to_vec()), steps in vec(steps(), 0..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ground = Ground::new(encoding);
            for step in steps {
                if ground.take(step).is_break() {
                    break;
                }
                let _tick = ground.session.next_tick();
            }
            assert!(ground.take(Step::Take).is_continue());
        });
    }

    #[test]
    fn changed_frames_are_read_or_end_the_connection((encoding, frame, bytes) in changed(), is_final in any::<bool>()) {
        let is_same = encoding.decode(&bytes) == Ok(ServerFrame::Push(frame.clone()));
        let mut sent = Frame::binary(Payload::Owned(bytes));
        sent.fin = is_final;
        match decode(encoding, &sent) {
            Inbound::Frame(ServerFrame::Push(read)) if is_same => prop_assert_eq!(read, frame),
            Inbound::Frame(_) | Inbound::Unknown { .. } => prop_assert!(is_final && !is_same),
            Inbound::End(_) => prop_assert!(!is_final || !is_same),
            Inbound::Ping => prop_assert!(false, "no text is a ping"),
        }
    }
}

#[test]
fn absurd_delays_and_numbers_of_a_gateway_do_not_end_the_client() {
    let reply = |retry_after_ms| {
        let (code, message) = (ErrorCode::Unavailable, String::new());
        ServerFrame::Reply(Reply::Rejected(Rejected { reference: Some(1), code, message, retry_after_ms }))
    };
    let mut ground = Ground::new(Encoding::Json);
    for retry_after_ms in [0, u64::MAX, u64::MAX / 2, 1 << 63] {
        assert!(ground.take(Step::Frame(Box::new(reply(Some(retry_after_ms))), Vec::new())).is_continue());
    }
    for _ in 0..3 {
        let mut unread = ground.started.unread.lock();
        let id = ConversationId::random();
        unread.message(id, Seq(1), None);
        unread.message(id, Seq(u64::MAX), None);
        assert_eq!(unread.of(id), Some(u64::MAX));
    }
}

#[test]
fn a_connection_without_an_inbox_is_told_nothing_of_the_one_before() {
    let mut ground = Ground::new(Encoding::Json);
    let ready = |epoch, cursor| {
        let (session_id, heartbeat_interval_ms, limits) = (SessionId::random(), 15_000, WireLimits::default());
        Step::Ready(Connected { session_id, epoch, cursor, resumed: false, heartbeat_interval_ms, limits })
    };
    let beat = |cursor| Step::Frame(Box::new(ServerFrame::Push(Push::Heartbeat { cursor })), Vec::new());
    let mut told = Vec::new();
    for (epoch, cursor) in [(Some(Epoch::random()), Cursor(10)), (None, Cursor::ZERO)] {
        for step in [ready(epoch, cursor), Step::List(Vec::new()), Step::Take, beat(cursor)] {
            assert!(ground.take(step).is_continue());
        }
        let Ok(crate::connection::Outbound::Frame(frame)) = ground.outboxes.last_mut().unwrap().try_recv() else {
            panic!("no answer")
        };
        told.push(String::from_utf8(frame).unwrap());
    }
    assert_eq!(told, [r#"{"type":"heartbeat","cursor":10}"#, r#"{"type":"heartbeat"}"#]);
    assert_eq!(ground.started.progress.lock().position().inbox.map(|inbox| inbox.cursor), Some(Cursor(10)));
}
