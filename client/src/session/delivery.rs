//! What goes to the application, and what must be loaded before it can: the list, pages of history, tokens.

use std::sync::Arc;

use chat_shared::{
    ids::ConversationId,
    wire::{ErrorCode, HistoryPage},
};
use tokio::time::Instant;

use super::{Link, Session};
use crate::{
    backoff::{Backoff, Hint, chance},
    error::RestError,
    events::{Envelope, Event},
    limits::FETCHES_MAX,
    load::{self, Loaded},
    order::Fetched,
};

/// The loads that are wanted or running.
#[derive(Debug, Default)]
pub(super) struct Loading {
    /// The list's load that is wanted; results of earlier ones are out of date.
    number: u64,
    is_list_wanted: bool,
    is_list_running: bool,
    list_backoff: Backoff,
    list_pause: Option<Instant>,
    page_backoff: Backoff,
    page_pause: Option<Instant>,
}

#[cfg(test)]
impl Loading {
    /// The number of the load whose result would be taken in.
    pub(super) const fn wanted(&self) -> u64 {
        self.number
    }
}

impl Session {
    /// Wants the conversation list, as it is from now on.
    pub(super) fn request_load(&mut self) {
        self.loading.number += 1;
        self.loading.is_list_wanted = true;
        self.loading.list_pause = None;
        self.order.load_began();
        self.realtime.unread.lock().load_began();
    }

    /// The connection was resumed; if no earlier load is under way, the client has everything.
    pub(super) fn is_up_to_date(&self) {
        if !self.loading.is_list_wanted && !self.loading.is_list_running {
            self.status.send_modify(|status| status.is_loaded = true);
        }
    }

    pub(super) fn next_loading_tick(&self) -> Option<Instant> {
        let now = Instant::now();
        let pauses = [self.loading.list_pause, self.loading.page_pause];
        pauses.into_iter().flatten().filter(|until| *until > now).min()
    }

    /// Starts what is wanted and may run now. Loads run only while a connection stands, so that clients
    /// that can't connect don't press on REST either.
    pub(super) fn start_jobs(&mut self) {
        if !self.link.is_live() || !self.has_taker {
            return;
        }
        let now = Instant::now();
        let is_over = |pause: Option<Instant>| pause.is_none_or(|until| until <= now);
        let may_run = !self.loading.is_list_running && is_over(self.loading.list_pause) && self.notices.has_room();
        if self.loading.is_list_wanted && may_run {
            self.loading.is_list_wanted = false;
            self.loading.is_list_running = true;
            self.jobs.spawn(load::list(self.rest.clone(), self.loading.number));
        }
        if !is_over(self.loading.page_pause) {
            return;
        }
        self.start_looking();
        if !self.order.is_crowded() {
            while self.order.fetches() < FETCHES_MAX {
                let Some((conversation_id, after)) = self.order.next_fetch() else { break };
                self.jobs.spawn(load::page(self.rest.clone(), conversation_id, after));
            }
        }
    }

    pub(super) fn start_renewal(&mut self, stale: Arc<str>) {
        self.jobs.spawn(load::token(Arc::clone(&self.rest.tokens), stale));
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::List { load, outcome } => {
                self.loading.is_list_running = false;
                if load == self.loading.number {
                    self.list_loaded(outcome);
                }
            }
            Loaded::Page { conversation_id, outcome } => self.page_loaded(conversation_id, outcome),
            Loaded::Conversation { conversation_id, outcome } => self.conversation_loaded(conversation_id, *outcome),
            Loaded::Token(Ok(token)) => self.renew(token),
            // The gateway will close the connection when the token expires, and then it is tried again.
            Loaded::Token(Err(error)) => tracing::warn!(%error, "the chat token could not be renewed"),
        }
    }

    fn list_loaded(&mut self, outcome: Result<Vec<chat_shared::wire::Conversation>, RestError>) {
        match outcome {
            Ok(conversations) => {
                self.loading.list_backoff.reset();
                self.order.loaded(&conversations);
                self.sync_order();
                self.realtime.loaded(&conversations);
                let heads = conversations.iter().map(|listed| (listed.conversation_id, listed.last_seq));
                self.progress.lock().loaded(heads, self.notices.next_number());
                self.note_heads_known();
                self.notify(Event::Reloaded(conversations));
                self.status.send_modify(|status| status.is_loaded = true);
            }
            Err(error) => {
                let hint = Hint::common(error.retry_after());
                let delay = self.loading.list_backoff.next(hint, chance());
                tracing::debug!(%error, ?delay, "the conversation list could not be loaded");
                self.status.send_modify(|status| status.last_failure = error.to_string());
                self.loading.is_list_wanted = true;
                self.loading.list_pause = Some(Instant::now() + delay);
            }
        }
    }

    fn page_loaded(&mut self, id: ConversationId, outcome: Result<HistoryPage, RestError>) {
        match outcome {
            Ok(page) => {
                self.progress.lock().head_found(id, page.last_seq);
                self.realtime.page(id, &page);
                if self.order.fetched(id, page) == Fetched::Progress {
                    self.loading.page_backoff.reset();
                } else {
                    self.pause_pages(None);
                }
            }
            Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Forbidden)) => {
                self.order.abandon(id);
                self.realtime.left(id);
            }
            Err(error) => {
                self.order.put_off(id);
                self.put_off(&error);
            }
        }
        self.note_heads_known();
        self.sync_order();
    }

    /// Something about one conversation could not be loaded; it will be asked for again later.
    pub(super) fn put_off(&mut self, error: &RestError) {
        tracing::debug!(%error, "a conversation or a page of its history could not be loaded");
        self.pause_pages(Hint::common(error.retry_after()));
    }

    fn note_heads_known(&self) {
        if self.order.are_heads_known() {
            self.progress.lock().heads_known();
        }
    }

    fn pause_pages(&mut self, hint: Option<Hint>) {
        let delay = self.loading.page_backoff.next(hint, chance());
        self.loading.page_pause = Some(Instant::now() + delay);
    }

    /// Passes on what the order found out besides messages.
    pub(super) fn sync_order(&mut self) {
        for (conversation_id, seq) in self.order.take_placed() {
            self.progress.lock().placed(conversation_id, seq);
        }
        for skipped in self.order.take_skipped() {
            let crate::order::Skipped { conversation_id, from, to } = skipped;
            self.notify(Event::Skipped { conversation_id, from, to });
        }
    }

    /// Hands over what there is room for.
    pub(super) fn deliver(&mut self) {
        while self.events.capacity() > 0 {
            // A message that was handed over may have uncovered a skip, which comes before the next one.
            self.sync_order();
            let next = self.notices.pop().or_else(|| self.realtime.pop()).or_else(|| {
                let message = self.order.pop()?;
                Some(Envelope { event: Event::Message(message), notice: None })
            });
            let Some(envelope) = next else { return };
            if self.events.try_send(envelope).is_err() {
                // The application's half is gone; the next turn says so.
                return;
            }
        }
    }

    /// Lets confirming go on after the ledger was full, once nothing waits any more.
    pub(super) fn notice_caught_up(&self) {
        let is_idle = self.notices.is_empty() && self.events.capacity() == self.events.max_capacity();
        let mut progress = self.progress.lock();
        if progress.is_overflowed() && is_idle && matches!(self.link, Link::Live(_)) && self.order.is_complete() {
            progress.caught_up();
        }
    }
}
