//! The peers of `cargo dev load` pass messages on, keep them, and give a client that comes back what it missed. Is
//! skipped, with a line that says so, where a peer's own tools are not installed, if it says how to get them.

use std::{
    io::{Write, stderr},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Error, Result, bail};
use chat_dev::{
    load::{
        peer::{Ejabberd, SocketIo},
        subject::Subject,
    },
    paths,
    servers::Binaries,
};
use chat_load::{
    plan::Seat,
    target::{ConnectError, Heard, Opened, Outgoing, Protocol, Route, Target, socket_io, xmpp},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(20);

/// A client that remembers what it hears.
struct Client<P> {
    opened: Opened<P>,
    heard: Vec<String>,
}

impl<P: Protocol> Client<P> {
    async fn connect<T: Target<Protocol = P>>(
        target: &T,
        subject: &impl Subject,
        seat: &Seat,
        place: Option<P::Place>,
    ) -> Result<Self> {
        let server = subject.addresses()[seat.address];
        let route = Route { source: IpAddr::from([127, 0, 0, 1]), server };
        match target.connect(route, seat, place).await {
            Ok(opened) => Ok(Self { opened, heard: Vec::new() }),
            Err(ConnectError::Busy(_)) => bail!("busy"),
            Err(ConnectError::Failed(error)) => Err(error),
        }
    }

    async fn send(&mut self, seat: &Seat, reference: u64, message_id: Uuid, is_repeat: bool) -> Result<()> {
        let mut out = Vec::new();
        let text = format!("text {reference} <&>");
        let outgoing = Outgoing { conversation: &seat.conversation, reference, message_id, text: &text, is_repeat };
        self.opened.protocol.send(&outgoing, &mut out);
        Ok(self.opened.stream.write_all(&out).await?)
    }

    /// Waits until something is heard that contains `wanted`.
    async fn hears(&mut self, wanted: &str) -> Result<()> {
        let wait = async {
            loop {
                let Opened { stream, protocol, rest, .. } = &mut self.opened;
                let mut out = Vec::new();
                let used = protocol.read(rest, &mut out, &mut |one: Heard<'_>| self.heard.push(format!("{one:?}")))?;
                rest.drain(..used);
                stream.write_all(&out).await?;
                if self.heard.iter().any(|heard| heard.contains(wanted)) {
                    return Ok(());
                }
                if stream.read_buf(rest).await? == 0 {
                    bail!("the connection ended");
                }
            }
        };
        match timeout(DEADLINE, wait).await {
            Ok(heard) => heard,
            Err(_) => bail!("{wanted} was not heard, only {:?}", self.heard),
        }
    }

    fn count(&self, wanted: &str) -> usize {
        self.heard.iter().filter(|heard| heard.contains(wanted)).count()
    }
}

/// What every peer must do.
async fn passes_on_and_keeps<T: Target>(target: T, subject: &impl Subject) -> Result<()> {
    let seats = subject.seats(2, 2).await?;
    let (one, other) = (&seats[2], &seats[3]);
    let mut writer = Client::connect(&target, subject, one, None).await?;
    let mut reader = Client::connect(&target, subject, other, None).await?;
    let ids = [Uuid::new_v4(), Uuid::new_v4()];
    writer.send(one, 7, ids[0], false).await?;
    writer.hears("Accepted { reference: 7 }").await?;
    reader.hears("text 7 <&>").await?;

    let place = reader.opened.protocol.place();
    drop(reader);
    writer.send(one, 8, ids[1], false).await?;
    writer.hears("Accepted { reference: 8 }").await?;
    let mut reader = Client::connect(&target, subject, other, place).await?;
    assert!(reader.opened.has_resumed);
    reader.hears("text 8 <&>").await?;
    assert_eq!(reader.count("text 7"), 0, "it has that already");

    assert_eq!(subject.stored().await?, 2);
    assert_eq!(subject.stored_ids(Duration::from_mins(1)).await?, ids.into());
    for process in subject.processes()? {
        assert!(process.pid > 0, "{}", process.name);
    }
    let work = subject.work().await?;
    assert!(work.fsyncs["postgres"] >= 2, "{work:?}");
    assert!(work.sql_statements.is_none_or(|statements| statements >= 2), "{work:?}");
    assert!(subject.versions().await?.len() >= 2);
    who_only_connects_does_so_to_one_process(target, subject).await
}

/// What a process holds is told apart from what others do.
async fn who_only_connects_does_so_to_one_process<T: Target>(target: T, subject: &impl Subject) -> Result<()> {
    let (seats, addresses) = (subject.seats(2, 1).await?, subject.addresses());
    let holder = subject.holder()?.pid;
    assert!(subject.processes()?.iter().any(|process| process.pid == holder));
    for seat in &seats {
        assert_eq!(addresses[seat.address], addresses[0]);
        Client::connect(&target, subject, seat, None).await?;
    }
    assert_eq!(subject.stored().await?, 2, "they say nothing");
    Ok(())
}

/// Passes, and says so where a test harness doesn't hold it back.
fn skip(missing: &Error) -> Result<()> {
    Ok(writeln!(stderr(), "SKIPPED, since a tool is missing: {missing}")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_passes_on_and_keeps_each_message_once() -> Result<()> {
    let scratch = paths::scratch("peer")?;
    let binaries = Binaries::find_or_fetch().await?;
    let subject = match SocketIo::start(&binaries, scratch.path()).await {
        Ok(subject) => subject,
        Err(error) if error.to_string().contains("needed for this peer") => return skip(&error),
        Err(error) => return Err(error),
    };
    passes_on_and_keeps(socket_io::SocketIo, &subject).await?;

    // A repeat gets the first answer, and nobody is told again.
    let seats = subject.seats(1, 2).await?;
    let mut writer = Client::connect(&socket_io::SocketIo, &subject, &seats[0], None).await?;
    let mut reader = Client::connect(&socket_io::SocketIo, &subject, &seats[1], None).await?;
    let id = Uuid::new_v4();
    for (reference, message_id, is_repeat) in [(1, id, false), (2, id, true), (3, Uuid::new_v4(), false)] {
        writer.send(&seats[0], reference, message_id, is_repeat).await?;
        writer.hears(&format!("Accepted {{ reference: {reference} }}")).await?;
    }
    reader.hears("text 3").await?;
    assert_eq!(reader.heard.len(), 2, "{:?}", reader.heard);
    assert_eq!(subject.stored().await?, 4);

    // Who is not in it may not write.
    let stranger = Seat { conversation: seats[0].conversation.clone(), ..subject.seats(1, 2).await?.swap_remove(0) };
    let mut stranger_client = Client::connect(&socket_io::SocketIo, &subject, &stranger, None).await?;
    stranger_client.send(&stranger, 1, Uuid::new_v4(), false).await?;
    stranger_client.hears("forbidden").await?;
    subject.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ejabberd_passes_on_and_keeps() -> Result<()> {
    let scratch = paths::scratch("peer")?;
    let binaries = Binaries::find_or_fetch().await?;
    let subject = match Ejabberd::start(&binaries, scratch.path()).await {
        Ok(subject) => subject,
        Err(error) if error.to_string().contains("needed for this peer") => return skip(&error),
        Err(error) => return Err(error),
    };
    passes_on_and_keeps(xmpp::Xmpp, &subject).await?;
    subject.stop().await
}
