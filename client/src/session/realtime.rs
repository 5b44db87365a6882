//! What the session does besides messages: marks of reading, watching presence, typing, receipts, and what is unread.

use std::{collections::BTreeMap, sync::Arc};

use chat_shared::{
    ids::{BusinessId, ConversationId, UserId},
    position::Seq,
    wire::{
        ChangedConversation, Command, Conversation, ErrorCode, HistoryPage, MarkRead, Message, Presence, Receipt,
        ReceiptKind, SetTyping, WatchBusinesses, WatchPresence, WatchedBusiness,
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::{Asking, Session};
use crate::{
    error::{CommandError, RestError},
    events::{Envelope, Event, WatchList},
    latest::{Answered, Subject},
    load,
    numbers::Numbers,
    position::ReadMark,
    receipts::Receipts,
    typing::{OwnTyping, Typists},
    unread::{SharedUnread, Unread},
    watch::Watch,
};

/// Whoever waits for a command.
#[derive(Debug)]
pub(super) struct Asker {
    answer: oneshot::Sender<Result<(), CommandError>>,
    room: OwnedSemaphorePermit,
}

impl Asker {
    pub(super) fn answer(self, outcome: Result<(), CommandError>) {
        let Self { answer, room } = self;
        // The caller may have given up; then nobody needs the answer.
        let _is_heard = answer.send(outcome);
        drop(room);
    }
}

/// What is known of the others and of oneself, besides messages.
#[derive(Debug)]
pub(super) struct Realtime {
    /// The user, as far as the token says who that is.
    pub(super) me: Option<UserId>,
    pub(super) typists: Typists,
    pub(super) own_typing: OwnTyping,
    pub(super) users: Watch<UserId, Presence>,
    pub(super) businesses: Watch<BusinessId, WatchedBusiness>,
    pub(super) unread: Arc<SharedUnread>,
    receipts: Receipts,
    numbers: Numbers,
    is_looking: bool,
}

impl Realtime {
    pub(super) fn new(reads: BTreeMap<ConversationId, ReadMark>) -> Self {
        Self {
            me: None,
            typists: Typists::default(),
            own_typing: OwnTyping::default(),
            users: Watch::default(),
            businesses: Watch::default(),
            unread: Arc::new(SharedUnread::new(Unread::new(reads))),
            receipts: Receipts::default(),
            numbers: Numbers::default(),
            is_looking: false,
        }
    }

    /// A message was pushed: whoever wrote it has stopped to write.
    pub(super) fn message(&mut self, message: &Message, seen_seq: Option<Seq>) {
        let Message { conversation_id, message_id, sender_id, seq, .. } = *message;
        self.numbers.note(conversation_id, message_id, seq);
        self.typists.stopped((conversation_id, sender_id));
        let seen_seq = seen_seq.unwrap_or_default();
        self.receipts.seen(conversation_id, sender_id, seen_seq);
        self.unread.lock().message(conversation_id, seq, (self.me == Some(sender_id)).then_some(seen_seq));
    }

    /// Takes in a receipt. False if it is behind what is known.
    pub(super) fn receipt(&mut self, receipt: &Receipt) -> bool {
        // Only one's own says what is unread, so it tells whose it is even if the token doesn't.
        let is_own = receipt.unread.is_some() || self.me == Some(receipt.user_id);
        if is_own && receipt.kind == ReceiptKind::Read {
            self.unread.lock().read(receipt.conversation_id, receipt.seq);
        }
        self.receipts.advance(receipt)
    }

    pub(super) fn changed(&mut self, change: &ChangedConversation) {
        let ChangedConversation { conversation_id, ref participants, ref removed, last_seq, .. } = *change;
        let joins = |me| change.added.contains(&me) && !change.returned.contains(&me);
        for user_id in removed {
            self.typists.stopped((conversation_id, *user_id));
        }
        if self.me.is_some_and(|me| removed.contains(&me)) {
            self.left(conversation_id);
        } else {
            self.receipts.keep(conversation_id, participants);
            self.unread.lock().participants_changed(conversation_id, last_seq, self.me.is_some_and(joins));
        }
    }

    pub(super) fn loaded(&mut self, conversations: &[Conversation]) {
        self.receipts.loaded(conversations);
        self.unread.lock().loaded(conversations);
    }

    pub(super) fn page(&mut self, conversation_id: ConversationId, page: &HistoryPage) {
        let mut unread = self.unread.lock();
        unread.page(conversation_id, page.last_seq, page.floor_seq);
        for message in &page.messages {
            self.numbers.note(conversation_id, message.message_id, message.seq);
            if self.me == Some(message.sender_id) {
                unread.message(conversation_id, message.seq, Some(Seq::ZERO));
            }
        }
    }

    /// The user takes part no more.
    pub(super) fn left(&mut self, conversation_id: ConversationId) {
        self.receipts.forget(conversation_id);
        self.unread.lock().forget(conversation_id);
    }

    /// Whether `pop` may give something.
    pub(super) fn has_news(&self) -> bool {
        let is_watch_new = self.users.has_news() || self.businesses.has_news();
        self.typists.has_news() || is_watch_new || self.unread.lock().has_news()
    }

    /// What the application hasn't been told.
    pub(super) fn pop(&mut self) -> Option<Envelope> {
        let unread = || {
            let news = self.unread.lock().pop()?;
            let crate::unread::News { conversation_id, unread, total } = news;
            Some(Event::Unread { conversation_id, unread, total })
        };
        let typing = self.typists.pop().map(Event::Typing);
        let event = typing
            .or_else(|| self.users.pop().map(Event::Presence))
            .or_else(|| self.businesses.pop().map(Event::Businesses))
            .or_else(unread)?;
        Some(Envelope { event, notice: None })
    }
}

impl Session {
    /// Takes in a command of the application.
    pub(super) fn asked(&mut self, asking: Asking) {
        let Asking { mut command, deadline, answer, room } = asking;
        let (subject, reach) = match &mut command {
            Command::MarkRead(MarkRead { conversation_id, message_id, seq }) => {
                *seq = self.realtime.numbers.of(*conversation_id, *message_id);
                (Subject::Reading(*conversation_id), *seq)
            }
            Command::WatchPresence(WatchPresence { user_ids }) => {
                self.realtime.users.ask(user_ids);
                (Subject::Presence, None)
            }
            Command::WatchBusinesses(WatchBusinesses { business_ids }) => {
                self.realtime.businesses.ask(business_ids);
                (Subject::Businesses, None)
            }
            _ => return tracing::error!("a command came that is not one of which the latest counts"),
        };
        self.latest.add(subject, command, reach, (deadline, Asker { answer, room }));
    }

    /// Says that the user writes, if the gateway has to know and can be told now.
    pub(super) fn type_on(&mut self, typing: SetTyping) {
        let (SetTyping { conversation_id, is_typing }, now) = (typing, Instant::now());
        if self.realtime.own_typing.is_due(conversation_id, is_typing, now)
            && let reference = self.book.next_reference()
            && self.write(Some(reference), Command::SetTyping(typing))
        {
            self.realtime.own_typing.told(conversation_id, is_typing, now);
        }
    }

    /// Asks the gateway of this connection for the lists that an earlier one had agreed to, unless others are being asked for.
    pub(super) fn watch_again(&mut self) {
        if !self.latest.has(Subject::Presence)
            && let Some(user_ids) = self.realtime.users.outstanding()
        {
            self.latest.keep(Subject::Presence, Command::WatchPresence(WatchPresence { user_ids }));
        }
        if !self.latest.has(Subject::Businesses)
            && let Some(business_ids) = self.realtime.businesses.outstanding()
        {
            self.latest.keep(Subject::Businesses, Command::WatchBusinesses(WatchBusinesses { business_ids }));
        }
    }

    /// Writes commands until there are no more, or no room.
    pub(super) fn write_latest(&mut self) {
        while let Some((subject, command)) = self.latest.first_unsent() {
            let command = command.clone();
            let reference = self.book.next_reference();
            if !self.write(Some(reference), command) {
                return;
            }
            self.latest.written(subject, reference);
        }
    }

    /// A command was carried out.
    pub(super) fn done(&mut self, reference: u64) {
        let Some(Answered { command, waiters, .. }) = self.latest.answered(reference) else { return };
        match command {
            Command::WatchPresence(WatchPresence { user_ids }) => self.realtime.users.agreed(user_ids),
            Command::WatchBusinesses(WatchBusinesses { business_ids }) => self.realtime.businesses.agreed(business_ids),
            _ => {}
        }
        for asker in waiters {
            asker.answer(Ok(()));
        }
    }

    /// A command was refused for good.
    pub(super) fn refused(&mut self, answered: Answered<Asker>, code: ErrorCode, message: &str) {
        let Answered { command, waiters, is_kept, is_followed } = answered;
        let list = match command {
            Command::WatchPresence(_) => Some(WatchList::Users),
            Command::WatchBusinesses(_) => Some(WatchList::Businesses),
            _ => None,
        };
        match list {
            Some(list) if is_kept => {
                match list {
                    WatchList::Users => self.realtime.users.ended(),
                    WatchList::Businesses => self.realtime.businesses.ended(),
                }
                self.notify(Event::WatchEnded { list, code, message: message.to_owned() });
            }
            Some(list) if !is_followed => {
                match list {
                    WatchList::Users => self.realtime.users.refused(),
                    WatchList::Businesses => self.realtime.businesses.refused(),
                }
                self.watch_again();
            }
            _ => {}
        }
        for asker in waiters {
            asker.answer(Err(CommandError::Rejected { code, message: message.to_owned() }));
        }
    }

    pub(super) fn next_realtime_tick(&self) -> Option<Instant> {
        self.latest.next_tick().into_iter().chain(self.realtime.typists.next_tick()).min()
    }

    pub(super) fn realtime_tick(&mut self, now: Instant) {
        self.realtime.typists.tick(now);
        for asker in self.latest.tick(now, |asker| asker.answer.is_closed()) {
            asker.answer(Err(CommandError::NotAnswered));
        }
        self.watch_again();
    }

    /// Asks for a conversation of which too little is known to say what is unread, one at a time.
    pub(super) fn start_looking(&mut self) {
        if self.realtime.is_looking {
            return;
        }
        let unknown = self.realtime.unread.lock().first_unknown();
        if let Some(conversation_id) = unknown {
            self.realtime.is_looking = true;
            self.jobs.spawn(load::conversation(self.rest.clone(), conversation_id));
        }
    }

    pub(super) fn conversation_loaded(
        &mut self,
        conversation_id: ConversationId,
        outcome: Result<Conversation, RestError>,
    ) {
        self.realtime.is_looking = false;
        match outcome {
            Ok(conversation) => self.realtime.unread.lock().shown(&conversation),
            Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Forbidden)) => {
                self.realtime.left(conversation_id);
            }
            Err(error) => self.put_off(&error),
        }
    }
}
