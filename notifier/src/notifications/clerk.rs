//! Puts in the queue what routing makes necessary, beside the deliverer, so that live delivery doesn't wait for the queue.
//!
//! What comes while some of it is on its way goes with the next.

use chat_shared::lifecycle::Tasks;
use tokio::sync::mpsc;

use super::intake::{Intake, Reasons};
use crate::deliverer::{Answer, NotDelivered};

/// Batches that wait. Each has the lot of at least one worker, who sends no other one before it is answered.
const BATCHES_MAX: usize = 16;
/// Batches that go together.
const TOGETHER_MAX: usize = 8;

/// The way to whoever does it.
#[derive(Clone)]
pub struct Clerk {
    batches: mpsc::Sender<Filed>,
}

struct Filed {
    reasons: Reasons,
    answers: Vec<Answer>,
}

impl Clerk {
    /// Works until the last clone is dropped.
    pub fn start(intake: Intake, tasks: &Tasks) -> Self {
        let (batches, queue) = mpsc::channel(BATCHES_MAX);
        tasks.essential("clerk", run(intake, queue));
        Self { batches }
    }

    /// Has a batch's lots answered when all that it makes necessary is in the queue.
    pub async fn file(&self, reasons: Reasons, answers: Vec<Answer>) {
        // Without an answer they are delivered again.
        _ = self.batches.send(Filed { reasons, answers }).await;
    }
}

async fn run(intake: Intake, mut queue: mpsc::Receiver<Filed>) -> anyhow::Result<()> {
    while let Some(Filed { mut reasons, mut answers }) = queue.recv().await {
        for _ in 1..TOGETHER_MAX {
            let Ok(mut next) = queue.try_recv() else { break };
            reasons.append(next.reasons);
            answers.append(&mut next.answers);
        }
        let taken = intake.take(reasons).await.map_err(|error| {
            tracing::warn!(%error, "a batch will be delivered again");
            NotDelivered
        });
        for answer in answers {
            _ = answer.send(taken);
        }
    }
    Ok(())
}
