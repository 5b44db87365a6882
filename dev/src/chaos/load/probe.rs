//! Single attempts by REST that no client repeats: they show what gateways answer while something is broken.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chat_client::{
    ids::{ConversationId, MessageId, UserId},
    wire::{Accepted, SendMessageBody},
};
use tokio::time::Instant;

use crate::{
    audit::{Key, Ledger},
    person::Person,
};

/// How long an attempt waits for its answer; longer than a gateway takes to say that the log is out of reach.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(7);

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    Accepted,
    /// 503 `unavailable`.
    Unavailable,
    /// Another answer.
    Refused(u16),
    /// No answer.
    Silence,
}

/// Attempts so far, and how to make more.
#[derive(Debug)]
pub struct Probe {
    http: reqwest::Client,
    gateways: Vec<String>,
    token: String,
    user_id: UserId,
    conversation_id: ConversationId,
    ledger: Arc<Ledger>,
    outcomes: Mutex<Vec<(Instant, ProbeOutcome)>>,
}

impl Probe {
    pub fn new(gateways: Vec<String>, person: &Person, conversation_id: ConversationId, ledger: &Arc<Ledger>) -> Self {
        Self {
            http: reqwest::Client::new(),
            gateways,
            token: person.token().to_owned(),
            user_id: person.user_id,
            conversation_id,
            ledger: Arc::clone(ledger),
            outcomes: Mutex::default(),
        }
    }

    /// Tries to send a message at the gateway whose turn it is.
    pub async fn send(&self, turn: usize) {
        let message_id = MessageId::random();
        let text = format!("attempt {turn}");
        let key = Key { conversation_id: self.conversation_id, sender_id: self.user_id, message_id };
        self.ledger.begin(key, &text);
        let outcome = self.outcome(turn, SendMessageBody { message_id, text, is_repeat: false, seen_seq: None }).await;
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), outcome));
    }

    async fn outcome(&self, turn: usize, body: SendMessageBody) -> ProbeOutcome {
        let path = format!("conversations/{}/messages", self.conversation_id.as_uuid());
        let request = self.http.post(self.url(turn, &path)).json(&body);
        match request.bearer_auth(&self.token).timeout(ANSWER_WAIT_MAX).send().await {
            Ok(answer) if answer.status().is_success() => match answer.json::<Accepted>().await {
                Ok(accepted) => {
                    self.ledger.accept(self.user_id, &accepted);
                    ProbeOutcome::Accepted
                }
                Err(_) => ProbeOutcome::Silence,
            },
            Ok(answer) if answer.status().as_u16() == 503 => ProbeOutcome::Unavailable,
            Ok(answer) => ProbeOutcome::Refused(answer.status().as_u16()),
            Err(_) => ProbeOutcome::Silence,
        }
    }

    /// The status of the conversation list, at the gateway whose turn it is; none without an answer.
    pub async fn list_status(&self, turn: usize) -> Option<u16> {
        let request = self.http.get(self.url(turn, "conversations")).bearer_auth(&self.token);
        Some(request.timeout(ANSWER_WAIT_MAX).send().await.ok()?.status().as_u16())
    }

    fn url(&self, turn: usize, path: &str) -> String {
        format!("{}/v1/{path}", self.gateways[turn % self.gateways.len()])
    }

    /// How many attempts since then had this outcome, and how many there were.
    pub fn since(&self, since: Instant, wanted: ProbeOutcome) -> (usize, usize) {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let since: Vec<_> = outcomes.iter().filter(|(at, _)| *at >= since).collect();
        (since.iter().filter(|(_, outcome)| *outcome == wanted).count(), since.len())
    }

    /// Answers that a good attempt must never get, and how many there were in all.
    pub fn wrong_answers(&self) -> (Vec<u16>, usize) {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = outcomes.iter().filter_map(|(_, outcome)| match outcome {
            ProbeOutcome::Refused(status) => Some(*status),
            _ => None,
        });
        (wrong.collect(), outcomes.len())
    }
}
