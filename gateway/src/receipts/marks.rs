//! How far users have read: gathered, checked against who takes part, and appended to the log.
//!
//! **Invariant:** nothing is answered as done before the log has it, or something further.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use chat_shared::{
    event::{Event, Fact, ReadAdvanced},
    ids::{ConversationId, MessageId, UserId},
    limits,
    log::Head,
    position::{Seq, StreamSeq},
    wire::MarkRead,
};
use futures_util::{StreamExt, stream};
use moka::{policy::EvictionPolicy, sync::Cache};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Receipts;
use crate::{
    conversations,
    quota::{EVENT_BYTES, Resource},
    refusal::Refusal,
    telemetry,
};

/// How long a mark may take, the search for its message included.
const MARK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Heads that are read at the same time.
const HEADS_MAX: usize = 32;
/// Users and conversations whose furthest mark is remembered; of the others a mark that is behind is written again.
const FURTHEST_MAX: u64 = 100_000;

type Outcome = Result<(), Refusal>;

/// Who has read what in which conversation.
type Place = (UserId, ConversationId);

/// The marks that wait to be written, and what was written.
pub(super) struct Marks {
    gathered: Mutex<Gathered>,
    rung: Notify,
    /// A read mark outlives the membership of its user.
    furthest: Cache<Place, Seq>,
}

impl Default for Marks {
    fn default() -> Self {
        let furthest = Cache::builder().max_capacity(FURTHEST_MAX).eviction_policy(EvictionPolicy::lru()).build();
        Self { gathered: Mutex::default(), rung: Notify::default(), furthest }
    }
}

/// Marks that become one for each user and conversation. Their number is bounded by that of the requests that wait.
#[derive(Default)]
struct Gathered(HashMap<Place, Mark>);

/// The furthest of the marks of a user in a conversation.
struct Mark {
    message_id: MessageId,
    seq: Seq,
    /// Who asked, the others included.
    waiting: Vec<oneshot::Sender<Outcome>>,
}

/// Marks wait for more than can be written.
#[derive(Debug, thiserror::Error)]
#[error("too many receipts wait to be written")]
struct Full;

/// A mark is not written in time.
#[derive(Debug, thiserror::Error)]
#[error("a receipt could not be written in time")]
struct TooSlow;

impl Gathered {
    fn add(&mut self, place: Place, message_id: MessageId, seq: Seq) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let mark = self.0.entry(place).or_insert_with(|| Mark { message_id, seq, waiting: Vec::new() });
        if seq > mark.seq {
            (mark.message_id, mark.seq) = (message_id, seq);
        }
        mark.waiting.push(answer);
        answered
    }
}

impl Mark {
    fn answer(self, outcome: &Outcome) {
        for waiting in self.waiting {
            // Who has gone needs no answer.
            let _gone = waiting.send(outcome.clone());
        }
    }
}

impl Marks {
    /// Notes that somebody has read so far, by whatever way it became known.
    pub(super) fn note(&self, user_id: UserId, conversation_id: ConversationId, seq: Seq) {
        if self.is_ahead((user_id, conversation_id), seq) {
            self.furthest.insert((user_id, conversation_id), seq);
        }
    }

    fn is_ahead(&self, place: Place, seq: Seq) -> bool {
        self.furthest.get(&place).is_none_or(|furthest| seq > furthest)
    }

    fn add(&self, place: Place, message_id: MessageId, seq: Seq) -> oneshot::Receiver<Outcome> {
        let answered = self.gathered.lock().add(place, message_id, seq);
        self.rung.notify_one();
        answered
    }
}

impl Receipts {
    /// Marks everything up to a message as read. Refused at once if too many wait or the user's quota is used up; else what is returned ends when the
    /// mark is written, and whoever asked can go on meanwhile.
    pub fn mark_read(
        self: &Arc<Self>,
        user_id: UserId,
        MarkRead { conversation_id, message_id, seq }: MarkRead,
    ) -> Result<impl Future<Output = Outcome> + Send + use<>, Refusal> {
        self.sender.quotas().check(user_id, Resource::LogBytes)?;
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        let place = place.map_err(|_| Refusal::unavailable("the gathering of receipts", &Full))?;
        metrics::counter!(telemetry::READ_MARKS_TOTAL).increment(1);
        let receipts = Arc::clone(self);
        Ok(async move {
            let _place = place;
            let marking = async {
                let seq = if let Some(seq) = seq {
                    receipts.checked_number(user_id, conversation_id, message_id, seq).await?
                } else {
                    // First, so that the time of a refusal tells nothing about messages of others.
                    receipts.sender.participants_with(user_id, conversation_id).await?;
                    receipts.number(user_id, conversation_id, message_id).await?
                };
                let written = receipts.marks.add((user_id, conversation_id), message_id, seq).await;
                written.unwrap_or_else(|_| Err(Refusal::unavailable("the log", &TooSlow)))
            };
            let marked = tokio::time::timeout(MARK_WAIT_MAX, Box::pin(marking)).await;
            marked.unwrap_or_else(|_| Err(Refusal::unavailable("the log", &TooSlow)))
        })
    }

    /// Writes what has gathered, one lot after the other.
    pub async fn write_marks(&self) {
        loop {
            self.marks.rung.notified().await;
            tokio::time::sleep(limits::RECEIPTS_GATHER).await;
            let Gathered(gathered) = mem::take(&mut *self.marks.gathered.lock());
            Box::pin(self.write(gathered)).await;
        }
    }

    async fn write(&self, mut gathered: HashMap<Place, Mark>) {
        let heads = self.heads(gathered.keys().copied()).await;
        let refused = gathered.extract_if(|(user_id, conversation_id), _| {
            !matches!(heads.get(conversation_id), Some(Ok(Some(head))) if head.participants.find(*user_id).is_some())
        });
        for ((_, conversation_id), mark) in refused {
            let unknown = heads.get(&conversation_id).and_then(|head| head.as_ref().err()).cloned();
            mark.answer(&Err(unknown.unwrap_or_else(Refusal::no_such_conversation)));
        }
        // Who has read this already is answered only now, as anybody who doesn't take part any more is refused.
        let read = gathered.extract_if(|place, mark| !self.marks.is_ahead(*place, mark.seq));
        answer_all(read.map(|(_, mark)| mark), &Ok(()));
        let events: Vec<_> = gathered
            .iter()
            .filter_map(|((user_id, conversation_id), mark)| {
                let head = heads.get(conversation_id)?.as_ref().ok()?.as_ref()?;
                Some(self.event(*user_id, *conversation_id, mark, head))
            })
            .collect();
        match self.tail.log().append_facts(&events).await {
            Ok(()) => {
                metrics::counter!(telemetry::RECEIPTS_TOTAL, "kind" => "read").increment(events.len() as u64);
                for ((user_id, conversation_id), mark) in gathered {
                    self.sender.quotas().count(user_id, Resource::LogBytes, EVENT_BYTES);
                    self.marks.note(user_id, conversation_id, mark.seq);
                    mark.answer(&Ok(()));
                }
            }
            Err(error) => answer_all(gathered.into_values(), &Err(error.into())),
        }
    }

    fn event(&self, user_id: UserId, conversation_id: ConversationId, mark: &Mark, head: &Head) -> Event {
        Event {
            conversation_id,
            kind: head.kind,
            // A replica of the log may be behind what was read.
            seq: head.seq.max(mark.seq),
            sent_at: self.clock.now().max(head.sent_at),
            previous: StreamSeq::ZERO,
            participants: head.participants.clone(),
            fact: Fact::ReadAdvanced(ReadAdvanced { user_id, message_id: mark.message_id, read_seq: mark.seq }),
        }
    }

    /// The head of each conversation now. A head that lanes remember would not do: no append checks it, and it may hold a
    /// user who has just been removed.
    async fn heads(
        &self,
        places: impl Iterator<Item = Place>,
    ) -> HashMap<ConversationId, Result<Option<Head>, Refusal>> {
        let mut readers: HashMap<ConversationId, Vec<UserId>> = HashMap::new();
        places.for_each(|(user_id, conversation_id)| readers.entry(conversation_id).or_default().push(user_id));
        let reads = readers.into_iter().map(async |(conversation_id, user_ids)| {
            (conversation_id, self.head_with(conversation_id, &user_ids).await)
        });
        stream::iter(reads).buffer_unordered(HEADS_MAX).collect().await
    }

    /// The leader's head if one of the users is missing in the head that is read first, by a replica that may be behind.
    async fn head_with(&self, conversation_id: ConversationId, user_ids: &[UserId]) -> Result<Option<Head>, Refusal> {
        let has = |head: &Head| user_ids.iter().all(|user_id| head.participants.find(*user_id).is_some());
        let head = match conversations::head(self.tail.log(), &self.database, conversation_id).await? {
            Some(head) if has(&head) => Some(head),
            _ => conversations::newest_head(self.tail.log(), &self.database, conversation_id).await?,
        };
        // A mark carries the participants on.
        if head.as_ref().is_none_or(Head::is_writable) { Ok(head) } else { Err(Refusal::later_version()) }
    }
}

fn answer_all(marks: impl Iterator<Item = Mark>, outcome: &Outcome) {
    marks.for_each(|mark| mark.answer(outcome));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_furthest_of_a_burst_counts_and_everybody_is_answered_r8_5() {
        let mut gathered = Gathered::default();
        let place = (UserId::random(), ConversationId::random());
        let furthest = MessageId::random();
        let mut answers = vec![gathered.add(place, MessageId::random(), Seq(3))];
        answers.push(gathered.add(place, furthest, Seq(9)));
        answers.push(gathered.add(place, MessageId::random(), Seq(4)));
        let mark = gathered.0.remove(&place).unwrap();
        assert_eq!((mark.message_id, mark.seq, gathered.0.len()), (furthest, Seq(9), 0));
        mark.answer(&Ok(()));
        for mut answer in answers {
            assert_eq!(answer.try_recv(), Ok(Ok(())));
        }
    }

    #[test]
    fn marks_go_only_forward_r8_5() {
        let (marks, user_id, conversation_id) = (Marks::default(), UserId::random(), ConversationId::random());
        for seq in [5, 3] {
            marks.note(user_id, conversation_id, Seq(seq));
        }
        let is_ahead = |seq| marks.is_ahead((user_id, conversation_id), Seq(seq));
        assert_eq!([4, 5, 6].map(is_ahead), [false, false, true]);
    }
}
