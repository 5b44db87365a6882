//! Opening connections, reading from them, and what happens when they end.

use std::{cell::RefMut, future::poll_fn, pin::Pin, rc::Rc, task::Poll, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use rand::RngExt;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::OwnedReadHalf,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Worker,
    client::{Client, Written},
    tally::Listener,
};
use crate::{
    clock,
    target::{ConnectError, Protocol, Route, Target, frame},
};

/// How long opening all connections may take.
const OPENING_MAX: Duration = Duration::from_mins(3);
/// The first limit of the time that a client waits before it comes back, which is random below it.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The limit doubles up to here.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl<T: Target> Worker<T> {
    /// Opens the first connection of every client.
    ///
    /// # Errors
    /// If one can't be opened.
    pub(super) async fn connect_all(self: &Rc<Self>) -> Result<()> {
        let deadline = Instant::now() + OPENING_MAX;
        let mut opening = JoinSet::new();
        for seat in 0..self.clients.len() {
            if opening.len() >= self.plan.opening_max {
                opening.join_next().await.transpose()?.transpose()?;
            }
            opening.spawn_local(Rc::clone(self).connect_first(seat, deadline));
        }
        while let Some(opened) = opening.join_next().await {
            opened??;
        }
        Ok(())
    }

    async fn connect_first(self: Rc<Self>, seat: usize, deadline: Instant) -> Result<()> {
        loop {
            match self.connect(seat, 0).await {
                Ok(_) => return Ok(()),
                Err(ConnectError::Busy(after)) if Instant::now() < deadline => sleep(jittered(after)).await,
                Err(ConnectError::Busy(_)) => bail!("the servers are too busy to let all clients in"),
                Err(ConnectError::Failed(error)) => return Err(error.context("a client can't connect")),
            }
        }
    }

    /// Opens a connection and takes it into use. `attempt` chooses the server. Says whether what was missed follows.
    async fn connect(self: &Rc<Self>, number: usize, attempt: usize) -> Result<bool, ConnectError> {
        let seat = &self.seats[number];
        let (sources, servers) = (&self.plan.sources, &self.plan.addresses);
        let source = *sources.get(number % sources.len().max(1)).context("the plan names no source address")?;
        let server =
            *servers.get((seat.address + attempt) % servers.len().max(1)).context("the plan names no server")?;
        let place = self.clients[number].borrow().place.clone();
        let opened = self.target.connect(Route { source, server }, seat, place).await?;
        let has_resumed = opened.has_resumed;
        let mut client = self.clients[number].borrow_mut();
        let (read, rest) = client.connected(opened);
        let reader = tokio::task::spawn_local(Rc::clone(self).read(number, client.generation, read, rest));
        if let Some(line) = &mut client.line {
            line.reader = Some(reader.abort_handle());
        }
        self.repeat_unanswered(number, &mut client);
        self.watch(number, &mut client);
        Ok(has_resumed)
    }

    /// Writes what was due while the client was away, and what was not answered before it went.
    fn repeat_unanswered(self: &Rc<Self>, seat: usize, client: &mut RefMut<'_, Client<T::Protocol>>) {
        for at in 0..client.record.waiting.len() {
            let mut waiting = client.record.waiting[at];
            self.write_message(seat, client, &mut waiting);
            client.record.waiting[at] = waiting;
        }
    }

    /// Reads until the connection ends.
    async fn read(self: Rc<Self>, seat: usize, generation: u32, mut read: OwnedReadHalf, mut rest: Vec<u8>) {
        let mut result = if rest.is_empty() { Ok(()) } else { self.hear_more(seat, &[], &mut rest) };
        while result.is_ok() {
            // One buffer for all: it is borrowed only while the bytes in it are looked at.
            result = poll_fn(|context| {
                let mut input = self.input.borrow_mut();
                let mut buffer = ReadBuf::new(&mut input);
                Poll::Ready(match Pin::new(&mut read).poll_read(context, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => Err(anyhow!("{}", error.kind())),
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(frame::ended().into()),
                    Poll::Ready(Ok(())) => self.hear_more(seat, buffer.filled(), &mut rest),
                })
            })
            .await;
        }
        if let Err(error) = result {
            self.ended(seat, generation, &error.to_string());
        }
    }

    /// Takes in bytes that follow those in `rest`, and leaves there what is not whole.
    fn hear_more(self: &Rc<Self>, seat: usize, bytes: &[u8], rest: &mut Vec<u8>) -> Result<()> {
        if rest.is_empty() {
            let used = self.hear(seat, bytes)?;
            rest.extend_from_slice(&bytes[used..]);
        } else {
            rest.extend_from_slice(bytes);
            let used = self.hear(seat, rest)?;
            rest.drain(..used);
        }
        Ok(())
    }

    fn hear(self: &Rc<Self>, seat: usize, bytes: &[u8]) -> Result<usize> {
        let now_us = clock::now_us();
        let mut client = self.clients[seat].borrow_mut();
        let Client { crowd, offset, line, record, .. } = &mut *client;
        let Some(line) = line else { return Ok(bytes.len()) };
        let mut output = self.output.borrow_mut();
        output.clear();
        let listener = Listener { crowd: *crowd, offset: *offset, seat, now_us };
        let used = line.protocol.read(bytes, &mut output, &mut |heard| self.note(&listener, record, heard))?;
        if !output.is_empty() {
            let written = line.write(&output);
            self.see_to(seat, &mut client, written);
        }
        self.read_later(seat, &mut client);
        Ok(used)
    }

    /// Sees to it that what couldn't be written at once is written later.
    pub(super) fn see_to(self: &Rc<Self>, seat: usize, client: &mut Client<T::Protocol>, written: Written) {
        match written {
            Written::All | Written::Waiting => {}
            Written::Some => {
                tokio::task::spawn_local(Rc::clone(self).write_later(seat, client.generation));
            }
            Written::Failed(reason) => {
                let (worker, generation) = (Rc::clone(self), client.generation);
                tokio::task::spawn_local(async move { worker.ended(seat, generation, reason) });
            }
        }
    }

    async fn write_later(self: Rc<Self>, seat: usize, generation: u32) {
        loop {
            let write = {
                let client = self.clients[seat].borrow();
                let Some(line) = client.line.as_ref().filter(|_| client.generation == generation) else { return };
                Rc::clone(&line.write)
            };
            let is_writable = write.writable().await.is_ok();
            let mut client = self.clients[seat].borrow_mut();
            let is_current = client.generation == generation;
            let Some(line) = client.line.as_mut().filter(|_| is_current && is_writable) else { return };
            if line.write_pending() != Written::Some {
                return;
            }
        }
    }

    /// A connection has ended by itself: the client comes back, as real ones do.
    fn ended(self: &Rc<Self>, seat: usize, generation: u32, reason: &str) {
        let mut client = self.clients[seat].borrow_mut();
        if client.generation != generation || client.disconnected().is_none() {
            return;
        }
        self.stats.borrow_mut().error(&format!("a connection ended: {reason}"));
        drop(client);
        tokio::task::spawn_local(Rc::clone(self).come_back(seat));
    }

    /// Connects again, for as long as it takes.
    pub(super) async fn come_back(self: Rc<Self>, seat: usize) {
        let began = clock::now_us();
        let mut limit = BACKOFF_FIRST;
        for attempt in 1.. {
            sleep(jittered(limit)).await;
            match self.connect(seat, attempt).await {
                Ok(has_resumed) => return self.is_back(seat, began, has_resumed),
                Err(ConnectError::Busy(after)) => {
                    self.stats.borrow_mut().error("a server was too busy for a handshake");
                    sleep(after).await;
                }
                Err(ConnectError::Failed(error)) => {
                    self.stats.borrow_mut().error(&format!("coming back failed: {}", error.root_cause()));
                }
            }
            limit = (limit * 2).min(BACKOFF_MAX);
        }
    }

    fn is_back(&self, seat: usize, began_us: u64, has_resumed: bool) {
        let mut client = self.clients[seat].borrow_mut();
        client.record.returned += 1;
        client.record.not_resumed += u64::from(!has_resumed);
        let mut stats = self.stats.borrow_mut();
        stats.done.crowds[client.crowd].returns.record(clock::now_us() - began_us);
    }

    /// Closes what is open, as clients that end do.
    pub(super) fn say_goodbye(&self) {
        for client in &self.clients {
            let mut client = client.borrow_mut();
            let Some(line) = &mut client.line else { continue };
            let mut output = self.output.borrow_mut();
            output.clear();
            line.protocol.goodbye(&mut output);
            line.write(&output);
        }
    }
}

/// A random time up to a limit, so that not all come at once.
fn jittered(limit: Duration) -> Duration {
    limit.mul_f64(rand::rng().random::<f64>())
}
