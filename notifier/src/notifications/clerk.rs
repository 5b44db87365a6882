//! Files the jobs that routing causes, beside the deliverer, so that live delivery doesn't wait for the queue.
//!
//! Batches that arrive while others are being filed are filed together.

use chat_shared::lifecycle::Tasks;
use tokio::sync::{mpsc, oneshot};

use super::intake::{Intake, Reasons};

/// Batches that wait. Each has the lot of at least one worker, which sends no other one before it is filed.
const BATCHES_MAX: usize = 16;
/// Batches that go together.
const TOGETHER_MAX: usize = 8;

/// Handle for filing the jobs of batches.
#[derive(Clone)]
pub struct Clerk {
    batches: mpsc::Sender<Batch>,
}

struct Batch {
    reasons: Reasons,
    filed: Vec<Filed>,
}

/// Resolves a lot's [`Filing`].
pub type Filed = oneshot::Sender<()>;
/// Resolves when a lot's jobs stand in the queue, are held in memory, or are dropped and counted. Fails only if the process
/// ends.
pub type Filing = oneshot::Receiver<()>;

impl Clerk {
    /// Works until the last clone is dropped.
    pub fn start(intake: Intake, tasks: &Tasks) -> Self {
        let (batches, queue) = mpsc::channel(BATCHES_MAX);
        tasks.essential("clerk", run(intake, queue));
        Self { batches }
    }

    /// Files a batch's jobs, then resolves its lots' filings.
    pub async fn file(&self, reasons: Reasons, filed: Vec<Filed>) {
        // It fails only if the process ends.
        _ = self.batches.send(Batch { reasons, filed }).await;
    }
}

async fn run(intake: Intake, mut queue: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
    while let Some(Batch { mut reasons, mut filed }) = queue.recv().await {
        for _ in 1..TOGETHER_MAX {
            let Ok(mut next) = queue.try_recv() else { break };
            reasons.append(next.reasons);
            filed.append(&mut next.filed);
        }
        intake.take(reasons).await;
        for filed in filed {
            _ = filed.send(());
        }
    }
    Ok(())
}
