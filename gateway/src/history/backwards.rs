//! One conversation's events, newest first, of which as many as possible come with one question to the log.
//!
//! **Invariant:** each event is the one at the `previous` of the event after it. The log's leader is asked for what a
//! replica that is behind doesn't have.

use chat_shared::{
    event::Event,
    ids::{ConversationId, UserId},
    position::StreamSeq,
};

use super::tail::{Tail, TailError};

/// Fewer events are read one by one: the first question for several may not find them all.
const MANY_MIN: usize = 8;
/// Events of one question, which is at most 2.5 MB with the longest texts.
const EVENTS_MAX: usize = 256;
/// A question aims at this many times the events that the question before it found, at the most; after a question that
/// found too many it reaches this many times less far.
const GROWTH: usize = 8;
/// As if this many events had been found, each right after the other, before the first question.
const FOUND_FIRST: usize = 8;
/// Questions that go on where the one before ended, because there were more events than expected.
const CONTINUED_MAX: usize = 3;
/// Events that are read one by one after questions for several have failed.
const ONE_BY_ONE: usize = 16;

/// A walk back from an event.
pub(super) struct Backwards<'a> {
    tail: &'a Tail,
    user_id: UserId,
    conversation_id: ConversationId,
    /// Read ahead, ascending; the last is next.
    ready: Vec<Event>,
    /// Where the event before those stands; zero if there is none.
    before: StreamSeq,
    /// How many events the last question found.
    found: usize,
    /// Over how many positions of the log.
    span: u64,
    /// Events to be read one by one before the next question for several.
    one_by_one: usize,
}

impl<'a> Backwards<'a> {
    /// Back from `newest`, which isn't returned.
    pub(super) fn from(tail: &'a Tail, user_id: UserId, newest: &Event) -> Self {
        let Event { conversation_id, previous: before, .. } = *newest;
        let (found, span) = (FOUND_FIRST, FOUND_FIRST as u64);
        Self { tail, user_id, conversation_id, ready: Vec::new(), before, found, span, one_by_one: 0 }
    }

    /// The next event back; none if the log holds no more. `wanted` is the number of events that the caller expects to
    /// take, this one included.
    pub(super) async fn next(&mut self, wanted: usize) -> Result<Option<Event>, TailError> {
        if self.ready.is_empty() && self.before != StreamSeq::ZERO && wanted >= MANY_MIN && self.one_by_one == 0 {
            self.read_many(wanted.min(EVENTS_MAX)).await?;
        }
        if let Some(event) = self.ready.pop() {
            return Ok(Some(event));
        }
        if self.before == StreamSeq::ZERO {
            return Ok(None);
        }
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let event = self.tail.one(self.user_id, self.before).await?;
        self.before = event.as_ref().map_or(StreamSeq::ZERO, |event| event.previous);
        Ok(event)
    }

    /// Reads some events up to the one at `before`. If that fails the next ones are read one by one.
    async fn read_many(&mut self, wanted: usize) -> Result<(), TailError> {
        let goal = wanted.min(self.found * GROWTH);
        // So many positions hold no more events than are asked for.
        let span_min = goal as u64;
        let mut span = (self.span.saturating_mul(span_min) / self.found as u64).max(span_min);
        loop {
            let events = self.read_span(span, (goal + goal / 4 + 1).min(EVENTS_MAX)).await?;
            let is_short = events.last().is_some_and(|(last, _)| *last < self.before);
            let chain = linked(events, self.before);
            if let Some((_, first)) = chain.first() {
                (self.before, self.found, self.span) = (first.previous, chain.len(), span);
                self.ready = chain.into_iter().map(|(_, event)| event).collect();
                return Ok(());
            }
            if !is_short || span == span_min {
                self.one_by_one = ONE_BY_ONE;
                return Ok(());
            }
            span = (span / GROWTH as u64).max(span_min);
        }
    }

    /// The events within `span` positions up to the one at `before`, so many at a time, and perhaps later ones. Ends
    /// before that one if there are far too many, or the replica that answers is behind.
    async fn read_span(&self, span: u64, events_max: usize) -> Result<Vec<(StreamSeq, Event)>, TailError> {
        let mut from = StreamSeq((self.before.0 + 1).saturating_sub(span).max(1));
        let mut events = Vec::new();
        for _ in 0..CONTINUED_MAX {
            let more = match self.tail.many(self.user_id, self.conversation_id, from, events_max).await {
                Err(TailError::Log(error)) => {
                    tracing::debug!(%error, "several events can't be read at once");
                    break;
                }
                more => more?,
            };
            let is_full = more.len() == events_max;
            events.extend(more);
            match events.last() {
                Some((last, _)) if *last < self.before && is_full => from = StreamSeq(last.0 + 1),
                _ => break,
            }
        }
        Ok(events)
    }
}

/// The events that lead without a gap to the one at `last`; none if it is missing.
fn linked(mut events: Vec<(StreamSeq, Event)>, last: StreamSeq) -> Vec<(StreamSeq, Event)> {
    let Some(end) = events.iter().position(|(at, _)| *at == last) else { return Vec::new() };
    events.truncate(end + 1);
    let is_gap = |pair: &[(StreamSeq, Event)]| pair[1].1.previous != pair[0].0;
    if let Some(gap) = events.windows(2).rposition(is_gap) {
        events.drain(..=gap);
    }
    events
}

#[cfg(test)]
mod tests {
    use chat_shared::{
        clock::Timestamp,
        event::{Fact, Participants, ParticipantsChanged},
        position::Seq,
        wire::ConversationKind,
    };

    use super::*;

    /// Events at these positions, each after the one before it.
    fn events(previous: u64, positions: &[u64]) -> Vec<(StreamSeq, Event)> {
        let befores = [previous].into_iter().chain(positions.iter().copied());
        let event = |(previous, at): (u64, &u64)| {
            let event = Event {
                conversation_id: ConversationId::random(),
                kind: ConversationKind::Group,
                seq: Seq::ZERO,
                sent_at: Timestamp(0),
                previous: StreamSeq(previous),
                participants: Participants::default(),
                fact: Fact::ParticipantsChanged(ParticipantsChanged::default()),
            };
            (StreamSeq(*at), event)
        };
        befores.zip(positions).map(event).collect()
    }

    fn linked_positions(events: Vec<(StreamSeq, Event)>, last: u64) -> Vec<u64> {
        linked(events, StreamSeq(last)).into_iter().map(|(at, _)| at.0).collect()
    }

    #[test]
    fn only_events_that_lead_to_the_last_are_taken() {
        assert_eq!(linked_positions(events(1, &[3, 4, 9, 12]), 9), [3, 4, 9]);
        assert_eq!(linked_positions(events(1, &[3, 4]), 9), [0; 0], "the replica is behind");
        let with_gap = [events(1, &[3, 4]), events(6, &[9, 12])].concat();
        assert_eq!(linked_positions(with_gap, 12), [9, 12]);
    }
}
