//! Puts messages in order, drops repeats, finds gaps. No I/O: it says what to fetch, and is told what came.
//!
//! **Invariant:** of each conversation, `pop` gives every number once and without holes, except those that
//! `take_skipped` names.

use std::collections::{HashMap, VecDeque};

use chat_shared::{
    ids::ConversationId,
    position::Seq,
    wire::{ChangedConversation, Conversation, HistoryPage, Message},
};

use crate::{
    limits::{HELD_MAX, HELD_PER_CONVERSATION_MAX, STALLED_FETCHES_MAX},
    line::Line,
    options::Start,
};

/// Numbers of a conversation that will not be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) conversation_id: ConversationId,
    pub(crate) from: Seq,
    pub(crate) to: Seq,
}

/// Whether a fetched page brought a conversation further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It did, or nothing was missing.
    Progress,
    /// It did not; ask again later.
    Stalled,
}

/// The order of all conversations of the user.
#[derive(Debug)]
pub(crate) struct Order {
    start: Start,
    /// Whether this client, or an earlier run of it, has loaded the conversation list.
    has_loaded: bool,
    is_loading: bool,
    lines: HashMap<ConversationId, Line>,
    /// Conversations whose next message is held. Each at most once.
    ready: VecDeque<ConversationId>,
    /// Conversations whose next message must be fetched. Each at most once.
    wanting: VecDeque<ConversationId>,
    /// Conversations whose history is being fetched, after which number.
    fetching: HashMap<ConversationId, Seq>,
    held: usize,
    /// Conversations whose head must still be asked for.
    unchecked: usize,
    placed: Vec<(ConversationId, Seq)>,
    skipped: Vec<Skipped>,
}

impl Order {
    /// Begins with what an earlier run had handed over, if one had come so far as to load the list.
    pub(crate) fn new(start: Start, handed: Option<impl IntoIterator<Item = (ConversationId, Seq)>>) -> Self {
        let has_loaded = handed.is_some();
        let lines = handed.into_iter().flatten().map(|(id, seq)| (id, Line::placed_at(seq))).collect();
        Self {
            start,
            has_loaded,
            is_loading: false,
            lines,
            ready: VecDeque::new(),
            wanting: VecDeque::new(),
            fetching: HashMap::new(),
            held: 0,
            unchecked: 0,
            placed: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// The conversation list is about to be loaded. Messages of unknown conversations wait for it.
    pub(crate) fn load_began(&mut self) {
        self.is_loading = true;
    }

    /// The list is there: places what is new, and finds what was missed.
    ///
    /// The list may be a moment behind what was accepted, while history never is. So each conversation's history
    /// is asked too, except where only what comes from now on is wanted.
    pub(crate) fn loaded(&mut self, conversations: &[Conversation]) {
        let begins_at_head = self.start == Start::Latest && !self.has_loaded;
        for conversation in conversations {
            let line = self.lines.entry(conversation.conversation_id).or_default();
            line.version = line.version.max(conversation.version);
            line.head = line.head.max(conversation.last_seq);
            if !begins_at_head && !line.is_unchecked {
                line.is_unchecked = true;
                self.unchecked += 1;
            }
            if line.handed.is_none() {
                let base = match line.joined_at {
                    // What was pushed since the connection stands is handed over even if the list has it already.
                    _ if begins_at_head => conversation.last_seq.min(line.before_first_seen()),
                    Some(joined_at) if self.start == Start::Latest => joined_at,
                    _ => conversation.floor_seq,
                };
                self.place(conversation.conversation_id, base);
            } else {
                self.refresh(conversation.conversation_id);
            }
        }
        // Conversations that became active while the list was read can be missing from it.
        let unplaced: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| line.handed.is_none())
            .map(|(id, line)| (*id, line.unlisted_place()))
            .collect();
        for (id, (joined_at, before_first_seen)) in unplaced {
            let base = match joined_at {
                Some(joined_at) if self.start == Start::Latest => joined_at.min(before_first_seen),
                _ if begins_at_head => before_first_seen,
                _ => Seq::ZERO,
            };
            self.place(id, base);
        }
        self.is_loading = false;
        self.has_loaded = true;
    }

    /// Takes in a pushed message. A repeat is dropped.
    pub(crate) fn push(&mut self, message: Message) {
        let id = message.conversation_id;
        let is_unknown = !self.lines.contains_key(&id);
        let line = self.lines.entry(id).or_default();
        line.head = line.head.max(message.seq);
        line.note_seen(message.seq);
        let has_room = self.held < HELD_MAX || line.handed.is_some_and(|handed| handed.next() == message.seq);
        if has_room {
            self.held += line.hold(message);
            self.held -= line.shrink_to(HELD_PER_CONVERSATION_MAX);
        }
        if is_unknown && !self.is_loading {
            // It has been made since the list was loaded, so it is handed over from its beginning.
            self.place(id, Seq::ZERO);
        } else {
            self.refresh(id);
        }
    }

    /// Takes in a change of a conversation. False if it is older than what is known.
    pub(crate) fn changed(&mut self, change: &ChangedConversation) -> bool {
        let id = change.conversation_id;
        let is_unknown = !self.lines.contains_key(&id);
        let line = self.lines.entry(id).or_default();
        if line.version >= change.version && !is_unknown {
            return false;
        }
        line.version = change.version;
        line.joined_at.get_or_insert(change.last_seq);
        line.head = line.head.max(change.last_seq);
        if is_unknown && !self.is_loading {
            self.place(id, if self.start == Start::Latest { change.last_seq } else { Seq::ZERO });
        } else {
            self.refresh(id);
        }
        true
    }

    /// The next message to hand over.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        while let Some(id) = self.ready.pop_front() {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            line.is_ready = false;
            let message = line.take_next();
            self.held -= usize::from(message.is_some());
            self.refresh(id);
            if message.is_some() {
                return message;
            }
        }
        None
    }

    /// Whether `pop` would give a message.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.iter().any(|id| self.lines.get(id).is_some_and(Line::has_next))
    }

    /// Whether fetching would bring more than there is room for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.held > HELD_MAX / 2 && self.has_ready()
    }

    /// The next part of history to fetch, `after` this number. Answer with `fetched`, `put_off` or `abandon`.
    pub(crate) fn next_fetch(&mut self) -> Option<(ConversationId, Seq)> {
        while let Some(id) = self.wanting.pop_front() {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            line.is_wanting = false;
            if let Some(after) = line.missing_after() {
                self.fetching.insert(id, after);
                return Some((id, after));
            }
        }
        None
    }

    /// How many fetches have not been answered.
    pub(crate) fn fetches(&self) -> usize {
        self.fetching.len()
    }

    /// A part of history has come.
    pub(crate) fn fetched(&mut self, id: ConversationId, mut page: HistoryPage) -> Fetched {
        // Only a gateway at fault has others there, and they would be handed over out of their order.
        page.messages.retain(|message| message.conversation_id == id);
        let Some(after) = self.fetching.remove(&id) else { return Fetched::Progress };
        let Some(line) = self.lines.get_mut(&id) else { return Fetched::Progress };
        self.unchecked -= usize::from(std::mem::take(&mut line.is_unchecked));
        self.held += line.hold_page(after, page);
        // What the page brought comes before what was pushed, so the latest go when there are too many.
        self.held -= line.shrink_to(2 * HELD_PER_CONVERSATION_MAX);
        let mut skip_to = line.gone_up_to();
        line.stalls = if line.missing_after().is_none() || skip_to.is_some() { 0 } else { line.stalls + 1 };
        let is_stalled = line.stalls > 0;
        if line.stalls >= STALLED_FETCHES_MAX {
            line.stalls = 0;
            skip_to = Some(line.before_first_held());
        }
        if let Some(to) = skip_to {
            self.skip(id, to);
        }
        self.refresh(id);
        if is_stalled { Fetched::Stalled } else { Fetched::Progress }
    }

    /// A fetch failed; it will be asked for again.
    pub(crate) fn put_off(&mut self, id: ConversationId) {
        self.fetching.remove(&id);
        self.refresh(id);
    }

    /// The user may not read this conversation any more.
    pub(crate) fn abandon(&mut self, id: ConversationId) {
        self.fetching.remove(&id);
        if let Some(line) = self.lines.get_mut(&id) {
            self.unchecked -= usize::from(std::mem::take(&mut line.is_unchecked));
            let head = line.head;
            self.skip(id, head);
        }
    }

    /// Conversations that begin for this client behind these numbers, since the last call.
    #[must_use]
    pub(crate) fn take_placed(&mut self) -> Vec<(ConversationId, Seq)> {
        std::mem::take(&mut self.placed)
    }

    /// Numbers that will not be handed over, since the last call.
    pub(crate) fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }

    /// Whether the head of every conversation is known, and not only what the list said.
    pub(crate) const fn are_heads_known(&self) -> bool {
        self.unchecked == 0
    }

    /// Whether everything known has been handed over. Looks at every conversation.
    pub(crate) fn is_complete(&self) -> bool {
        self.held == 0
            && self.unchecked == 0
            && self.lines.values().all(|line| line.handed.is_some_and(|handed| handed >= line.head))
    }

    fn place(&mut self, id: ConversationId, base: Seq) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.handed = Some(base);
            line.head = line.head.max(base);
            self.held -= line.drop_handed();
            self.placed.push((id, base));
            self.refresh(id);
        }
    }

    fn skip(&mut self, id: ConversationId, to: Seq) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let Some(handed) = line.handed.filter(|handed| *handed < to) else { return };
        line.handed = Some(to);
        line.head = line.head.max(to);
        self.held -= line.drop_handed();
        self.skipped.push(Skipped { conversation_id: id, from: handed.next(), to });
        self.refresh(id);
    }

    /// Puts a conversation where its state says it belongs.
    fn refresh(&mut self, id: ConversationId) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.has_next() {
            if !line.is_ready {
                line.is_ready = true;
                self.ready.push_back(id);
            }
        } else if let Some(to) = line.gone_up_to() {
            self.skip(id, to);
        } else if line.missing_after().is_some() && !line.is_wanting && !self.fetching.contains_key(&id) {
            line.is_wanting = true;
            self.wanting.push_back(id);
        }
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
