//! Cuts a stream of XML into stanzas, and reads of each only what a chat client looks at. Names are taken without
//! their namespaces: a server that is well known uses each for one thing.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use memchr::memrchr;
use quick_xml::{
    Error, Reader,
    escape::resolve_predefined_entity,
    events::{BytesRef, BytesStart, Event},
};

/// The stanzas that stand whole at the beginning of some bytes.
pub struct Stanzas<'a> {
    reader: Reader<&'a [u8]>,
    used: usize,
}

/// An element below the stream's own, with all that is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stanza<'a> {
    /// What it is.
    pub name: Name,
    /// The attribute `type`.
    pub kind: Kind,
    /// The attribute `id`, but of messages, where nobody asks for it.
    pub id: String,
    /// The attribute `h`: how many stanzas the other side has had.
    pub handled: Option<u32>,
    /// What is wrong, if something is.
    pub condition: String,
    /// What the `body` says.
    pub body: Option<Cow<'a, str>>,
}

/// The elements that are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Name {
    /// The header of a stream.
    Stream,
    /// What the server can do.
    Features,
    /// It is who they say.
    Success,
    /// It is not.
    Failure,
    /// Stanzas are counted from here on.
    Enabled,
    /// They are counted on from the last time.
    Resumed,
    /// They are not.
    Failed,
    /// How many have been handled?
    Request,
    /// So many.
    Answer,
    /// Something said.
    Message,
    /// Somebody comes or goes.
    Presence,
    /// A question or its answer.
    Iq,
    /// The reason for the end that follows.
    StreamError,
    /// Anything else.
    #[default]
    Other,
}

/// What the attribute `type` says, as far as it is told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Something was refused.
    Error,
    /// A question, or an order.
    Question,
    /// Anything else, or nothing.
    #[default]
    Other,
}

impl Name {
    fn of(element: &str) -> Self {
        match element {
            "stream" => Self::Stream,
            "features" => Self::Features,
            "success" => Self::Success,
            "failure" => Self::Failure,
            "enabled" => Self::Enabled,
            "resumed" => Self::Resumed,
            "failed" => Self::Failed,
            "r" => Self::Request,
            "a" => Self::Answer,
            "message" => Self::Message,
            "presence" => Self::Presence,
            "iq" => Self::Iq,
            "error" => Self::StreamError,
            _ => Self::Other,
        }
    }

    /// Whether the other side wants to know that it came.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Message | Self::Presence | Self::Iq)
    }

    /// Whether its children are conditions.
    fn is_trouble(self) -> bool {
        matches!(self, Self::Failure | Self::Failed | Self::StreamError)
    }
}

impl<'a> Stanzas<'a> {
    /// Looks for them in `input`, which begins between two.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn of(input: &'a [u8]) -> Result<Self> {
        // Up to here nothing is cut in the middle of a character or of `&amp;`.
        let end = memrchr(b'>', input).map_or(0, |last| last + 1);
        let text = std::str::from_utf8(&input[..end]).context("the stream is not UTF-8")?;
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.check_end_names = false;
        config.allow_unmatched_ends = true;
        Ok(Self { reader, used: 0 })
    }

    /// Bytes up to the end of the last stanza that was given.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The next one; none if it isn't whole yet. The header of a stream counts as one.
    ///
    /// # Errors
    /// If it is no XML, or the stream ends.
    pub fn next(&mut self) -> Result<Option<Stanza<'a>>> {
        let mut stanza = Stanza::default();
        let mut depth = 0;
        // Of the elements right in the stanza, which one is open.
        let mut part = Part::Other;
        loop {
            let event = match self.reader.read_event() {
                // The bytes end within it.
                Ok(Event::Eof) | Err(Error::Syntax(_)) => return Ok(None),
                event => event.context("the server sends no XML")?,
            };
            match event {
                Event::Start(start) => {
                    let entered = stanza.enter(depth, part, &start);
                    if depth <= 1 {
                        part = entered;
                    }
                    depth += 1;
                }
                Event::Empty(start) => {
                    stanza.enter(depth, part, &start);
                }
                Event::End(_) if depth == 0 => bail!("closed by the server"),
                Event::End(_) => {
                    depth -= 1;
                    if depth == 1 {
                        part = Part::Other;
                    }
                }
                Event::Text(text) if part == Part::Body => stanza.say(text.into_inner()),
                Event::GeneralRef(reference) if part == Part::Body => stanza.say(resolved(&reference)?),
                // What stands between stanzas keeps connections open and says nothing.
                _ => continue,
            }
            if depth == 0 || stanza.name == Name::Stream {
                self.used = usize::try_from(self.reader.buffer_position())?;
                return Ok(Some(stanza));
            }
        }
    }
}

/// An element right in a stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Body,
    Error,
    Other,
}

impl<'a> Stanza<'a> {
    fn enter(&mut self, depth: usize, part: Part, start: &BytesStart<'a>) -> Part {
        let name = start.local_name();
        match depth {
            0 => {
                self.name = Name::of(name.as_ref());
                self.look_at(start);
            }
            1 if self.name.is_trouble() => self.blame(name.as_ref()),
            1 if name.as_ref() == "body" => return Part::Body,
            1 if name.as_ref() == "error" => return Part::Error,
            2 if part == Part::Error => self.blame(name.as_ref()),
            _ => {}
        }
        Part::Other
    }

    fn look_at(&mut self, start: &BytesStart<'a>) {
        for attribute in start.attributes().with_checks(false).flatten() {
            match (attribute.key.as_ref(), &*attribute.value) {
                ("type", "error") => self.kind = Kind::Error,
                ("type", "get" | "set") => self.kind = Kind::Question,
                ("id", id) if self.name != Name::Message => id.clone_into(&mut self.id),
                ("h", handled) => self.handled = handled.parse().ok(),
                _ => {}
            }
        }
    }

    /// The first condition is the defined one.
    fn blame(&mut self, condition: &str) {
        if self.condition.is_empty() {
            condition.clone_into(&mut self.condition);
        }
    }

    fn say(&mut self, text: Cow<'a, str>) {
        match &mut self.body {
            Some(body) => body.to_mut().push_str(&text),
            None => self.body = Some(text),
        }
    }
}

fn resolved<'a>(reference: &BytesRef<'a>) -> Result<Cow<'a, str>> {
    if let Some(character) = reference.resolve_char_ref()? {
        return Ok(Cow::Owned(character.to_string()));
    }
    resolve_predefined_entity(&reference.xml10_content()).map(Cow::Borrowed).context("an entity that XML doesn't have")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "<message xml:lang='en' to='b@localhost' from='a@localhost/r' type='chat' id='m1'>\
        <archived by='b@localhost' id='1' xmlns='urn:xmpp:mam:tmp'/><body>h\u{e4} &amp; y&#246;u</body></message>";

    fn all(input: &[u8]) -> (Vec<Stanza<'_>>, usize) {
        let mut stanzas = Stanzas::of(input).unwrap();
        let mut found = Vec::new();
        while let Some(stanza) = stanzas.next().unwrap() {
            found.push(stanza);
        }
        (found, stanzas.used())
    }

    #[test]
    fn what_is_whole_is_found_wherever_the_bytes_are_cut() {
        let text = format!("<r xmlns='urn:xmpp:sm:3'/> {MESSAGE}<a h='4' xmlns='urn:xmpp:sm:3'/>");
        let ends = [26, 27 + MESSAGE.len(), text.len()];
        for cut in 0..=text.len() {
            let (found, used) = all(&text.as_bytes()[..cut]);
            assert_eq!(found.len(), ends.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
            assert_eq!(used, ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0), "cut at {cut}");
        }
        let (found, _) = all(text.as_bytes());
        assert_eq!(found[0].name, Name::Request);
        assert_eq!((found[1].name, found[1].body.as_deref()), (Name::Message, Some("h\u{e4} & y\u{f6}u")));
        assert_eq!((found[2].name, found[2].handled), (Name::Answer, Some(4)));
    }

    #[test]
    fn a_header_is_whole_without_its_end() {
        let text = "<?xml version='1.0'?><stream:stream id='5' xmlns:stream='x' xmlns='jabber:client'>\
            <stream:features><bind/><session><optional/></session></stream:features>";
        let (found, used) = all(text.as_bytes());
        assert_eq!(found.iter().map(|stanza| stanza.name).collect::<Vec<_>>(), [Name::Stream, Name::Features]);
        assert_eq!(used, text.len());
    }

    #[test]
    fn conditions_are_found_where_each_kind_of_stanza_has_them() {
        for (text, condition) in [
            ("<failure xmlns='s'><not-authorized/><text>no</text></failure>", "not-authorized"),
            ("<failed xmlns='s' h='1'><item-not-found xmlns='x'/></failed>", "item-not-found"),
            ("<stream:error><conflict xmlns='x'/><text>no</text></stream:error>", "conflict"),
            (
                "<message type='error'><body>hi</body><x><y/></x><error type='cancel'><service-unavailable/><text/></error></message>",
                "service-unavailable",
            ),
        ] {
            let (found, _) = all(text.as_bytes());
            assert_eq!(found[0].condition, condition, "{text}");
        }
    }

    #[test]
    fn the_end_of_the_stream_is_an_error() {
        let mut stanzas = Stanzas::of(b"<r/></stream:stream>").unwrap();
        assert!(stanzas.next().unwrap().is_some());
        assert_eq!(stanzas.next().unwrap_err().to_string(), "closed by the server");
    }

    #[test]
    fn only_the_body_right_in_a_message_is_what_it_says() {
        let text = "<message><html><body>no</body></html><body/><subject>no</subject></message>\
            <iq type='get' id='7'><ping/></iq>";
        let (found, _) = all(text.as_bytes());
        assert_eq!(found[0].body, None);
        assert_eq!((found[1].name, found[1].kind, found[1].id.as_str()), (Name::Iq, Kind::Question, "7"));
    }
}
