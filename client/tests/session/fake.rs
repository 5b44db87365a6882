//! A gateway that says what a test tells it to: for the mechanics of the client alone. What a real gateway
//! does is tested end to end elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use chat_client::{
    ClientOptions,
    clock::Timestamp,
    ids,
    ids::ConversationId,
    positions::{Cursor, Seq},
    wire::{
        Accepted, Command, CommandFrame, Connected, Conversation, ConversationKind, ConversationName, ConversationPage,
        Encoding, ErrorCode, Hello, HistoryPage, Message, Push, Rejected, Reply, SendMessage, ServerFrame, WireLimits,
    },
};
use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What the fake serves by REST, and how it answers handshakes.
#[derive(Default)]
pub struct World {
    pub messages: BTreeMap<ConversationId, Vec<Message>>,
    /// Answers to the next handshakes, instead of letting them through.
    pub refusals: VecDeque<String>,
    pub list_requests: usize,
    pub single_requests: usize,
    /// Answers to the next requests about businesses and cases.
    pub business_answers: VecDeque<String>,
    /// Those requests: method and target.
    pub business_requests: Vec<String>,
}

pub struct FakeGateway {
    pub url: String,
    pub world: Arc<Mutex<World>>,
    sockets: mpsc::Receiver<(WebSocket<TcpStream>, String)>,
    _tasks: JoinSet<()>,
}

/// A connection that said `hello`.
pub struct Socket {
    frames: WebSocket<TcpStream>,
    encoding: Encoding,
    pub hello: Hello,
    pub token: String,
}

impl FakeGateway {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, sockets) = mpsc::channel(8);
        let world = Arc::new(Mutex::new(World::default()));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&world);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared), sender.clone()));
            }
        });
        Self { url, world, sockets, _tasks: tasks }
    }

    pub fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::new([self.url.as_str()], "token");
        options.connect_wait_max = DEADLINE;
        options.encoding = Encoding::Json;
        options
    }

    /// The next connection, after its `hello`.
    pub async fn accept(&mut self) -> Socket {
        let (socket, head) = timeout(DEADLINE, self.sockets.recv()).await.expect("a connection in time").unwrap();
        let encoding = *Encoding::ALL.iter().find(|encoding| head.contains(encoding.subprotocol())).unwrap();
        let token = header(&head, "authorization").unwrap().trim_start_matches("Bearer ").to_owned();
        let hello = Hello { device_id: ids::DeviceId::random(), resume: None };
        let mut socket = Socket { frames: socket, encoding, hello, token };
        match socket.command().await.command {
            Command::Hello(hello) => socket.hello = hello,
            other => panic!("{other:?} came before hello"),
        }
        socket
    }

    pub fn write(&self, message: &Message) {
        self.world.lock().unwrap().messages.entry(message.conversation_id).or_default().push(message.clone());
    }
}

impl Socket {
    pub async fn ready(&mut self, epoch: Option<ids::Epoch>, cursor: u64, resumed: bool) {
        let ready = Connected {
            session_id: ids::SessionId::random(),
            epoch,
            cursor: Cursor(cursor),
            resumed,
            heartbeat_interval_ms: 15_000,
            limits: WireLimits::default(),
        };
        self.push(Push::Ready(ready)).await;
    }

    pub async fn message(&mut self, cursor: u64, message: &Message) {
        self.push(Push::Message { cursor: Some(Cursor(cursor)), seen_seq: None, message: message.clone() }).await;
    }

    pub async fn push(&mut self, push: Push) {
        self.say(&ServerFrame::Push(push)).await;
    }

    pub async fn say(&mut self, frame: &ServerFrame) {
        let payload = Payload::Owned(self.encoding.encode(frame).unwrap());
        let frame = if self.encoding == Encoding::Json { Frame::text(payload) } else { Frame::binary(payload) };
        self.frames.write_frame(frame).await.unwrap();
    }

    pub async fn say_raw(&mut self, json: &str) {
        self.frames.write_frame(Frame::text(Payload::Borrowed(json.as_bytes()))).await.unwrap();
    }

    /// The next command.
    pub async fn command(&mut self) -> CommandFrame {
        let frame = timeout(DEADLINE, self.frames.read_frame()).await.expect("a command in time").unwrap();
        assert!(matches!(frame.opcode, OpCode::Text | OpCode::Binary), "a command and not {:?}", frame.opcode);
        self.encoding.decode(&frame.payload).unwrap()
    }

    /// The next `send_message`, and its reference.
    pub async fn sent(&mut self) -> (u64, SendMessage) {
        loop {
            let CommandFrame { reference, command } = self.command().await;
            if let Command::SendMessage(sent) = command {
                return (reference.unwrap(), sent);
            }
        }
    }

    /// The next command that is neither a confirm nor a heartbeat, and its reference.
    pub async fn asked(&mut self) -> (u64, Command) {
        loop {
            match self.command().await {
                CommandFrame { command: Command::Confirm(_) | Command::Heartbeat(_), .. } => {}
                CommandFrame { reference, command } => return (reference.unwrap(), command),
            }
        }
    }

    pub async fn done(&mut self, reference: u64) {
        self.say(&ServerFrame::Reply(Reply::Done { reference })).await;
    }

    pub async fn reject(&mut self, reference: u64, code: ErrorCode) {
        let rejected =
            Rejected { reference: Some(reference), code, message: "because".into(), retry_after_ms: Some(1) };
        self.say(&ServerFrame::Reply(Reply::Rejected(rejected))).await;
    }

    /// The next confirmed cursor.
    pub async fn confirmed(&mut self) -> Cursor {
        loop {
            if let Command::Confirm(confirm) = self.command().await.command {
                return confirm.cursor;
            }
        }
    }

    /// Waits until a cursor is confirmed.
    pub async fn confirms(&mut self, cursor: u64) {
        while self.confirmed().await != Cursor(cursor) {}
    }

    /// The cursor of the next heartbeat.
    pub async fn heartbeat(&mut self) -> Option<Cursor> {
        loop {
            if let Command::Heartbeat(heartbeat) = self.command().await.command {
                return heartbeat.cursor;
            }
        }
    }

    pub async fn accept_send(&mut self, seq: u64) -> SendMessage {
        let (reference, sent) = self.sent().await;
        let accepted = Accepted {
            reference: Some(reference),
            conversation_id: sent.conversation_id,
            message_id: sent.message_id,
            seq: Seq(seq),
            sent_at: Timestamp(1),
        };
        self.say(&ServerFrame::Reply(Reply::Accepted(accepted))).await;
        sent
    }

    pub async fn close(mut self, code: u16) {
        self.frames.write_frame(Frame::close(code, b"because")).await.unwrap();
    }
}

pub fn message(conversation_id: ConversationId, seq: u64) -> Message {
    Message {
        conversation_id,
        message_id: ids::MessageId::random(),
        sender_id: ids::UserId::random(),
        seq: Seq(seq),
        sent_at: Timestamp(i64::try_from(seq).unwrap()),
        text: format!("message {seq}"),
    }
}

async fn serve(mut stream: TcpStream, world: Arc<Mutex<World>>, sockets: mpsc::Sender<(WebSocket<TcpStream>, String)>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (method, target) = head.split_once(' ').unwrap();
    let target = target.split(' ').next().unwrap();
    if target != "/v1/ws" {
        let answer = rest(&mut world.lock().unwrap(), method, target);
        let _outcome = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let refusal = world.lock().unwrap().refusals.pop_front();
    if let Some(refusal) = refusal {
        let _outcome = stream.write_all(refusal.as_bytes()).await;
        return;
    }
    let protocol = header(&head, "sec-websocket-protocol").unwrap();
    let answer = switching(&accept_of(&header(&head, "sec-websocket-key").unwrap()), &protocol);
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _outcome = sockets.send((WebSocket::after_handshake(stream, Role::Server), head)).await;
    }
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455).
fn accept_of(key: &str) -> String {
    let answered = key.to_owned() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, answered.as_bytes()))
}

/// An answer that turns a handshake into a WebSocket.
pub fn switching(accept: &str, protocol: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

pub fn http(status: &str, headers: &str, body: &impl Serialize) -> String {
    let body = serde_json::to_string(body).unwrap();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

fn rest(world: &mut World, method: &str, target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path.split('/').collect::<Vec<_>>()[..] {
        ["", "v1", "conversations"] => {
            world.list_requests += 1;
            let conversations = world.messages.iter().map(|(id, messages)| conversation(*id, messages)).collect();
            http("200 OK", "", &ConversationPage { conversations, next_cursor: None })
        }
        ["", "v1", "conversations", id] => {
            world.single_requests += 1;
            let id = id.parse().unwrap();
            http("200 OK", "", &conversation(id, &world.messages[&id]))
        }
        ["", "v1", "conversations", id, "messages"] => {
            let after = query.split('&').find_map(|part| part.strip_prefix("after=")).unwrap().parse().unwrap();
            let messages = &world.messages[&id.parse().unwrap()];
            let later = messages.iter().filter(|message| message.seq > Seq(after));
            http(
                "200 OK",
                "",
                &HistoryPage {
                    messages: later.clone().take(100).cloned().collect(),
                    has_more: later.count() > 100,
                    last_seq: messages.last().map_or(Seq(0), |message| message.seq),
                    floor_seq: Seq(0),
                },
            )
        }
        ["", "v1", "businesses", ..]
        | ["", "v1", "conversations", _, "accept" | "agent" | "assignments" | "reopen"] => {
            world.business_requests.push(format!("{method} {target}"));
            world.business_answers.pop_front().unwrap_or_else(|| panic!("no answer to {method} {target}"))
        }
        _ => panic!("the client asked for {target}"),
    }
}

fn conversation(conversation_id: ConversationId, messages: &[Message]) -> Conversation {
    Conversation {
        conversation_id,
        kind: ConversationKind::Direct,
        version: 1,
        name: ConversationName::default(),
        profiles: Vec::new(),
        business: None,
        case: None,
        is_blocked: false,
        participants: Vec::new(),
        last_seq: messages.last().map_or(Seq(0), |message| message.seq),
        floor_seq: Seq(0),
        read_seq: messages.last().map_or(Seq(0), |message| message.seq),
        last_read_message_id: None,
        own_runs: chat_shared::runs::Runs::default(),
        unread: 0,
        progress: Vec::new(),
        mute: None,
        last_message: messages.last().cloned(),
        created_at: Timestamp(0),
        last_activity_at: Timestamp(0),
    }
}
