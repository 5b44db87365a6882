//! A client process: connects the seats of a plan, writes what is due when it is due, and counts what comes back.
//!
//! One thread, one timer for all that is due, one buffer for all that is read, and a task for each open connection.
//! It shares the machine with what it measures, so every cycle that it doesn't need is one less that it distorts.

mod absence;
mod client;
mod connections;
mod ranges;
mod realtime;
mod schedule;
mod stats;
mod tally;
mod timer;

use std::{
    cell::{Cell, RefCell},
    collections::BinaryHeap,
    io::Write,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, stdin},
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use self::{
    client::Client,
    schedule::{Due, Schedule},
    stats::Stats,
    timer::Timer,
};
use crate::{
    clock,
    message::{Mark, message_id},
    plan::{Line, Plan, Seat, Start, TargetKind},
    target::{Outgoing, Protocol, Target, chat::Chat, socket_io::SocketIo, xmpp::Xmpp},
};

/// Bytes that are read from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// How often a client shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked whose heartbeat is due.
const HEARTBEAT_STEP: Duration = Duration::from_millis(50);
/// How often it is looked whether everything has come.
const DRAIN_STEP: Duration = Duration::from_millis(20);
const SECOND_US: u64 = 1_000_000;

/// Does what a plan says.
///
/// # Errors
/// If the clients can't connect, or whoever started this is gone.
pub fn run(plan: Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = LocalSet::new().block_on(&runtime, async {
        match plan.target {
            TargetKind::Chat => Worker::new(Chat, plan).run().await,
            TargetKind::SocketIo => Worker::new(SocketIo, plan).run().await,
            TargetKind::Xmpp => Worker::new(Xmpp, plan).run().await,
        }
    });
    // The thread that reads standard input waits for a line that won't come.
    runtime.shutdown_background();
    done
}

/// All clients of a process.
struct Worker<T: Target> {
    target: T,
    plan: Plan,
    /// By the seats' numbers in this process.
    seats: Vec<Seat>,
    /// The same seats' users, where they are UUIDs.
    users: Vec<Uuid>,
    clients: Vec<RefCell<Client<T::Protocol>>>,
    /// The number of each crowd's first seat in this process.
    first_seats: Vec<usize>,
    stats: RefCell<Stats>,
    /// The common start; what is due is due after it.
    start_us: Cell<u64>,
    input: RefCell<Vec<u8>>,
    output: RefCell<Vec<u8>>,
    text: RefCell<String>,
}

impl<T: Target> Worker<T> {
    fn new(target: T, mut plan: Plan) -> Rc<Self> {
        let counts = RefCell::new(Stats::new(&plan));
        let (mut seats, mut clients, mut first_seats) = (Vec::new(), Vec::new(), Vec::new());
        for (number, crowd) in plan.crowds.iter_mut().enumerate() {
            first_seats.push(seats.len());
            let size = crowd.conversation_size;
            clients.extend((0..crowd.seats.len()).map(|seat| RefCell::new(Client::new(number, seat % size, size))));
            seats.append(&mut crowd.seats);
        }
        first_seats.push(seats.len());
        let users = seats.iter().map(|seat| seat.user.parse().unwrap_or_default()).collect();
        Rc::new(Self {
            target,
            plan,
            seats,
            users,
            clients,
            first_seats,
            stats: counts,
            start_us: Cell::new(u64::MAX),
            input: RefCell::new(vec![0; READ_BYTES]),
            output: RefCell::default(),
            text: RefCell::default(),
        })
    }

    async fn run(self: Rc<Self>) -> Result<()> {
        let began = clock::now_us();
        tokio::task::spawn_local(Rc::clone(&self).heartbeats());
        self.connect_all().await?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
        let seconds = (clock::now_us() - began) as f64 / 1e6;
        say(&Line::Connected { count: self.clients.len(), seconds })?;
        let mut orders = BufReader::new(stdin());
        let mut order = String::new();
        orders.read_line(&mut order).await?;
        let start: Start = serde_json::from_str(&order).context("the start can't be read")?;
        self.start_us.set(start.at_us);
        tokio::select! {
            ran = self.play() => ran?,
            () = ended(orders) => bail!("whoever started this is gone"),
        }
        say(&Line::Done(self.done()))?;
        self.say_goodbye();
        Ok(())
    }

    /// Does everything at its time, then waits for what is outstanding.
    async fn play(self: &Rc<Self>) -> Result<()> {
        let timer = Timer::new()?;
        let start_us = self.start_us.get();
        let end_us = start_us + stats::end_us(&self.plan);
        let (mut schedules, mut typing) = (self.schedules(), self.typing());
        let mut absences: BinaryHeap<_> = self.absences().into();
        let mut second = 0;
        loop {
            let due = schedules.iter().chain(&typing).flatten().filter_map(Schedule::peek);
            let sends = due.map(|due| start_us + due.at_us);
            let absence = absences.peek().map(absence::Change::at_us);
            let next_second = start_us + (second + 1) * SECOND_US;
            let Some(next) = sends.chain(absence).chain([next_second, end_us]).min() else { break };
            timer.until(next).await?;
            if next == next_second {
                self.say_second(second)?;
                second += 1;
            } else if absence == Some(next) {
                self.change(&mut absences);
            } else if next == end_us {
                break;
            }
            let now = clock::now_us();
            let is_due = |due: &Due| start_us + due.at_us <= now;
            for (first_seat, schedule) in self.first_seats.iter().zip(&mut schedules) {
                while let Some(due) = schedule.as_mut().and_then(|schedule| schedule.next_if(is_due)) {
                    self.send(first_seat + due.seat, start_us + due.at_us);
                }
            }
            for (first_seat, schedule) in self.first_seats.iter().zip(&mut typing) {
                while let Some(due) = schedule.as_mut().and_then(|schedule| schedule.next_if(is_due)) {
                    self.say_typing(first_seat + due.seat);
                }
            }
        }
        self.drain(end_us + self.plan.drain_us, second).await
    }

    fn schedules(&self) -> Vec<Option<Schedule>> {
        let seats = self.first_seats.windows(2).map(|pair| pair[1] - pair[0]);
        let crowds = self.plan.crowds.iter().zip(seats);
        crowds
            .map(|(crowd, seats)| crowd.sends.map(|sends| Schedule::new(sends, seats, crowd.conversation_size)))
            .collect()
    }

    /// A message is due: its client writes it, or keeps it until it is connected.
    fn send(self: &Rc<Self>, seat: usize, due_us: u64) {
        let mut client = self.clients[seat].borrow_mut();
        self.stats.borrow_mut().offered(client.crowd, due_us - self.start_us.get());
        let mut waiting = client.record.begin(due_us);
        if client.line.is_some() {
            self.write_message(seat, &mut client, &mut waiting);
            // Of a message that waits for its client to come back it is not the generator that is late.
            self.stats.borrow_mut().done.lateness.record(clock::now_us().saturating_sub(due_us));
        }
        client.record.waiting.push_back(waiting);
    }

    /// Writes a message, perhaps again.
    fn write_message(self: &Rc<Self>, seat: usize, client: &mut Client<T::Protocol>, waiting: &mut client::Waiting) {
        let Some(line) = &mut client.line else { return };
        let number = self.plan.first_seat + u32::try_from(seat).unwrap_or(u32::MAX);
        let (mut text, mut output) = (self.text.borrow_mut(), self.output.borrow_mut());
        Mark { seat: number, number: waiting.number, due_us: waiting.due_us }.write(&mut text);
        output.clear();
        let outgoing = Outgoing {
            conversation: &self.seats[seat].conversation,
            reference: waiting.number.into(),
            message_id: message_id(self.plan.run, number, waiting.number),
            text: &text,
            is_repeat: waiting.was_sent,
        };
        line.protocol.send(&outgoing, &mut output);
        let written = line.write(&output);
        if !waiting.was_sent {
            waiting.was_sent = true;
            client.record.sent += 1;
        }
        self.see_to(seat, client, written);
    }

    /// Sends everybody's heartbeats, evenly over time.
    async fn heartbeats(self: Rc<Self>) {
        let mut steps = interval(HEARTBEAT_STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = clock::now_us();
        let round = u64::try_from(HEARTBEAT.as_micros()).unwrap_or(u64::MAX);
        let count = self.clients.len() as u64;
        let mut sent = 0;
        loop {
            steps.tick().await;
            let due = (clock::now_us() - began) * count / round;
            while sent < due {
                if let Ok(seat) = usize::try_from(sent % count) {
                    self.heartbeat(seat);
                }
                sent += 1;
            }
        }
    }

    fn heartbeat(self: &Rc<Self>, seat: usize) {
        let mut client = self.clients[seat].borrow_mut();
        let Some(line) = &mut client.line else { return };
        let mut output = self.output.borrow_mut();
        output.clear();
        line.protocol.heartbeat(&mut output);
        let written = line.write(&output);
        self.see_to(seat, &mut client, written);
    }

    /// Waits until every answer and every show has come, or for as long as the plan says.
    async fn drain(&self, deadline_us: u64, mut second: u64) -> Result<()> {
        let mut steps = interval(DRAIN_STEP);
        loop {
            steps.tick().await;
            let now = clock::now_us();
            if now >= self.start_us.get() + (second + 1) * SECOND_US {
                self.say_second(second)?;
                second += 1;
            }
            if now >= deadline_us || self.is_drained() {
                return self.say_second(second);
            }
        }
    }

    fn say_second(&self, second: u64) -> Result<()> {
        let connected = self.clients.iter().filter(|client| client.borrow().line.is_some()).count();
        say(&Line::Second(self.stats.borrow_mut().take_second(second, connected as u64)))
    }
}

/// Writes a line to standard output.
fn say(line: &Line) -> Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes)?;
    Ok(out.flush()?)
}

/// Waits until there is nothing more to read.
async fn ended(mut orders: impl AsyncRead + Unpin) {
    let mut rest = [0; 64];
    while orders.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}
