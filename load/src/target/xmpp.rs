//! A client of the XMPP peer: chat messages with stream management, over TCP without TLS.
//!
//! What counts as accepted is a count: after each message the client asks how many stanzas the server has handled.

mod stanza;

use std::{collections::VecDeque, io::Write};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use quick_xml::escape::escape;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::stanza::{Kind, Name, Stanza, Stanzas};
use super::{ConnectError, Heard, Opened, Outgoing, Protocol, Route, Target};
use crate::plan::Seat;

/// The header of a stream; addressed to the one host that the peer serves.
const STREAM: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";
/// Asks for an account of what was handled.
const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";
/// Bytes of one stanza, at the most; more is a server gone mad.
const STANZA_BYTES_MAX: usize = 1024 * 1024;

/// A node of the peer.
#[derive(Debug)]
pub struct Xmpp;

/// What stream management needs to go on where a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The server's name for the session.
    id: Box<str>,
    sent: Sent,
    /// Stanzas that came.
    received: u32,
}

/// Stanzas that went out and count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sent {
    count: u32,
    /// Messages among those that the server has not accounted for: which stanza, and the message's reference.
    waiting: VecDeque<(u32, u64)>,
}

impl Sent {
    fn message(&mut self, reference: u64) {
        self.count = self.count.wrapping_add(1);
        self.waiting.push_back((self.count, reference));
    }

    /// The references of messages among the first `handled` stanzas.
    fn account(&mut self, handled: u32, mut each: impl FnMut(u64)) {
        while let Some((number, reference)) = self.waiting.front().copied() {
            // Counts begin again after the largest.
            if handled.wrapping_sub(number) > u32::MAX / 2 {
                break;
            }
            self.waiting.pop_front();
            each(reference);
        }
    }
}

impl Target for Xmpp {
    type Protocol = Session;

    async fn connect(&self, route: Route, seat: &Seat, place: Option<Place>) -> Result<Opened<Session>, ConnectError> {
        let mut setup = Setup { stream: route.open().await?, input: Vec::with_capacity(2048) };
        setup.authenticate(seat).await?;
        if let Some(place) = place
            && let Some(handled) = setup.resume(&place).await?
        {
            let Setup { stream, input } = setup;
            return Ok(Opened { stream, protocol: Session::resumed(place, handled), rest: input, has_resumed: true });
        }
        let id = setup.bind(seat).await?;
        let place = Place { id, sent: Sent { count: 1, ..Sent::default() }, received: 0 };
        // From here on the user is reachable.
        setup.say(&format!("<presence/>{REQUEST}")).await?;
        setup.has(|stanza| stanza.name == Name::Answer).await?;
        let Setup { stream, input } = setup;
        Ok(Opened { stream, protocol: Session::new(place), rest: input, has_resumed: false })
    }
}

/// A connection on its way.
struct Setup {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Setup {
    async fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes()).await?)
    }

    async fn read(&mut self) -> Result<()> {
        if self.input.len() > STANZA_BYTES_MAX {
            bail!("a stanza that does not end");
        }
        if self.stream.read_buf(&mut self.input).await? == 0 {
            bail!("closed without a word");
        }
        Ok(())
    }

    /// Takes stanzas up to the one that `look` makes something of.
    async fn until<T>(&mut self, look: impl Fn(&Stanza<'_>) -> Result<Option<T>>) -> Result<T> {
        loop {
            let mut stanzas = Stanzas::of(&self.input)?;
            while let Some(stanza) = stanzas.next()? {
                if let Some(found) = look(&stanza)? {
                    let used = stanzas.used();
                    self.input.drain(..used);
                    return Ok(found);
                }
                if stanza.name == Name::StreamError {
                    bail!("closed: {}", stanza.condition);
                }
            }
            let used = stanzas.used();
            self.input.drain(..used);
            self.read().await?;
        }
    }

    /// Waits until a stanza that `is_it` stands in the input, and leaves it there with all before it.
    async fn has(&mut self, is_it: impl Fn(&Stanza<'_>) -> bool) -> Result<()> {
        loop {
            let mut stanzas = Stanzas::of(&self.input)?;
            while let Some(stanza) = stanzas.next()? {
                if is_it(&stanza) {
                    return Ok(());
                }
            }
            self.read().await?;
        }
    }

    async fn authenticate(&mut self, seat: &Seat) -> Result<()> {
        self.say(STREAM).await?;
        self.until(|stanza| Ok((stanza.name == Name::Features).then_some(()))).await?;
        let credentials = STANDARD.encode(format!("\0{}\0{}", seat.user, seat.secret));
        self.say(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{credentials}</auth>"))
            .await?;
        self.until(|stanza| match stanza.name {
            Name::Success => Ok(Some(())),
            Name::Failure => Err(anyhow!("refused: {}", stanza.condition)),
            _ => Ok(None),
        })
        .await?;
        self.say(STREAM).await?;
        self.until(|stanza| Ok((stanza.name == Name::Features).then_some(()))).await
    }

    /// Goes on with the earlier session, of which the server has handled so many stanzas; none if it can't. Its word for
    /// that stays in the input, so that the session hears of it.
    async fn resume(&mut self, place: &Place) -> Result<Option<u32>> {
        let Place { id, received, .. } = place;
        self.say(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='{received}'/>", escape(&**id))).await?;
        self.has(|stanza| matches!(stanza.name, Name::Resumed | Name::Failed)).await?;
        let answer = Stanzas::of(&self.input)?.next()?.unwrap_or_default();
        if answer.name == Name::Resumed {
            return Ok(Some(answer.handled.context("a resumed session without a count")?));
        }
        self.until(|stanza| Ok((stanza.name == Name::Failed).then_some(None))).await
    }

    /// Takes a name for this connection and has stanzas counted; gives the session's name.
    async fn bind(&mut self, seat: &Seat) -> Result<Box<str>> {
        self.say(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{}</resource></bind></iq>",
            seat.device
        ))
        .await?;
        self.until(|stanza| match (stanza.name, stanza.kind) {
            (Name::Iq, Kind::Error) => Err(anyhow!("refused: {}", stanza.condition)),
            (Name::Iq, _) => Ok(Some(())),
            _ => Ok(None),
        })
        .await?;
        self.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await?;
        self.until(|stanza| match stanza.name {
            Name::Enabled => Ok(Some(stanza.id.as_str().into())),
            Name::Failed => Err(anyhow!("refused: {}", stanza.condition)),
            _ => Ok(None),
        })
        .await
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Session {
    place: Place,
    /// Messages of an earlier connection that the server turned out to have handled, until the client hears of it.
    handled: Vec<u64>,
}

impl Session {
    fn new(place: Place) -> Self {
        Self { place, handled: Vec::new() }
    }

    /// After `count` stanzas. What the server didn't get to see is sent again by whoever waits for an answer.
    fn resumed(mut place: Place, count: u32) -> Self {
        let mut handled = Vec::new();
        place.sent.account(count, |reference| handled.push(reference));
        place.sent = Sent { count, waiting: VecDeque::new() };
        Self { place, handled }
    }

    fn hear(&mut self, stanza: &Stanza<'_>, out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<()> {
        let Self { place: Place { sent, received, .. }, handled } = self;
        if stanza.name.is_counted() {
            *received = received.wrapping_add(1);
        }
        match (stanza.name, stanza.kind) {
            (Name::Answer, _) => {
                let count = stanza.handled.context("an account without a count")?;
                sent.account(count, |reference| heard(Heard::Accepted { reference }));
            }
            (Name::Resumed, _) => handled.drain(..).for_each(|reference| heard(Heard::Accepted { reference })),
            (Name::Request, _) => write(out, format_args!("<a xmlns='urn:xmpp:sm:3' h='{received}'/>")),
            (Name::Message, Kind::Error) => heard(Heard::Rejected { reference: None, reason: &stanza.condition }),
            (Name::Message, _) => {
                if let Some(text) = &stanza.body {
                    heard(Heard::Message { sequence: None, text });
                }
            }
            (Name::Iq, Kind::Question) => {
                write(out, format_args!("<iq type='result' id='{}'/>", stanza.id));
                sent.count = sent.count.wrapping_add(1);
            }
            (Name::StreamError, _) => bail!("closed: {}", stanza.condition),
            _ => {}
        }
        Ok(())
    }
}

impl Protocol for Session {
    type Place = Place;

    fn send(&mut self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        let Outgoing { conversation, reference, message_id, text, is_repeat } = message;
        if *is_repeat && self.handled.contains(reference) {
            return;
        }
        let text = escape(*text);
        write(
            out,
            format_args!(
                "<message to='{conversation}' type='chat' id='{message_id}'><body>{text}</body></message>{REQUEST}"
            ),
        );
        self.place.sent.message(*reference);
    }

    /// Its answer shows that the server is there too.
    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        write(out, format_args!("{REQUEST}"));
    }

    fn goodbye(&mut self, out: &mut Vec<u8>) {
        write(out, format_args!("</stream:stream>"));
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, heard: &mut dyn FnMut(Heard<'_>)) -> Result<usize> {
        let mut stanzas = Stanzas::of(input)?;
        while let Some(stanza) = stanzas.next()? {
            self.hear(&stanza, out, heard)?;
        }
        if input.len() - stanzas.used() > STANZA_BYTES_MAX {
            bail!("a stanza that does not end");
        }
        Ok(stanzas.used())
    }

    fn place(&self) -> Option<Place> {
        Some(self.place.clone())
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes everything");
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session() -> Session {
        // The presence is the first stanza.
        Session::new(Place { id: "s".into(), sent: Sent { count: 1, ..Sent::default() }, received: 0 })
    }

    fn send(session: &mut Session, reference: u64, is_repeat: bool) -> String {
        let mut out = Vec::new();
        let message_id = Uuid::from_u128(7);
        let conversation = "b@localhost";
        session.send(&Outgoing { conversation, reference, message_id, text: "a < b", is_repeat }, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn said(session: &mut Session, text: &str) -> (Vec<String>, String, Result<usize>) {
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let used = session.read(text.as_bytes(), &mut out, &mut |one| heard.push(format!("{one:?}")));
        (heard, String::from_utf8(out).unwrap(), used)
    }

    #[test]
    fn each_message_asks_for_an_account_which_may_cover_several() {
        let mut session = session();
        assert_eq!(
            send(&mut session, 10, false),
            "<message to='b@localhost' type='chat' id='00000000-0000-0000-0000-000000000007'>\
             <body>a &lt; b</body></message><r xmlns='urn:xmpp:sm:3'/>"
        );
        send(&mut session, 11, false);
        send(&mut session, 12, false);
        assert_eq!(said(&mut session, "<a h='1' xmlns='urn:xmpp:sm:3'/>").0, [""; 0]);
        let (heard, _, _) = said(&mut session, "<a h='3' xmlns='urn:xmpp:sm:3'/><a h='3' xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(heard, ["Accepted { reference: 10 }", "Accepted { reference: 11 }"]);
    }

    #[test]
    fn what_came_is_counted_and_accounted_for_when_asked() {
        let text =
            "<presence/><r/><message type='chat'><body>hi</body></message><iq type='get' id='7'><ping/></iq><r/>";
        let (heard, out, used) = said(&mut session(), text);
        assert_eq!(heard, [r#"Message { sequence: None, text: "hi" }"#]);
        let answers = "<a xmlns='urn:xmpp:sm:3' h='1'/><iq type='result' id='7'/><a xmlns='urn:xmpp:sm:3' h='3'/>";
        assert_eq!(out, answers);
        assert_eq!(used.unwrap(), text.len());
    }

    #[test]
    fn a_resumed_session_accounts_for_what_came_and_sends_only_the_rest_again() {
        let mut session = session();
        for reference in 10..13 {
            send(&mut session, reference, false);
        }
        said(&mut session, "<message><body>hi</body></message>").2.unwrap();
        let place = session.place().unwrap();
        assert_eq!(place.received, 1);
        let mut session = Session::resumed(place, 3);
        let again: Vec<bool> = (10..13).map(|reference| !send(&mut session, reference, true).is_empty()).collect();
        assert_eq!(again, [false, false, true]);
        let (heard, _, _) = said(&mut session, "<resumed previd='s' h='3' xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(heard, ["Accepted { reference: 10 }", "Accepted { reference: 11 }"]);
        assert_eq!(said(&mut session, "<a h='4'/>").0, ["Accepted { reference: 12 }"]);
    }

    #[test]
    fn refusals_and_ends_give_their_condition() {
        let refused = "<message type='error'><body>x</body><error><forbidden/></error></message>";
        let (heard, _, _) = said(&mut session(), refused);
        assert_eq!(heard, [r#"Rejected { reference: None, reason: "forbidden" }"#]);
        let (_, _, ended) = said(&mut session(), "<stream:error><conflict/></stream:error></stream:stream>");
        assert_eq!(ended.unwrap_err().to_string(), "closed: conflict");
    }

    #[test]
    fn counts_begin_again_after_the_largest() {
        let mut sent = Sent { count: u32::MAX - 1, ..Sent::default() };
        for reference in 0..3 {
            sent.message(reference);
        }
        let mut accounted = Vec::new();
        sent.account(0, |reference| accounted.push(reference));
        assert_eq!(accounted, [0, 1]);
    }
}
