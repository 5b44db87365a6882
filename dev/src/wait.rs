//! Waiting for a condition with a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::{Instant, sleep};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `check` again and again until it gives a value.
///
/// # Errors
/// What `check` fails with ends the wait at once; `what` is named when `deadline` passes.
pub async fn until<T, F, Fut>(what: &str, deadline: Duration, check: F) -> Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = check().await? {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(anyhow!("{what} did not happen within {deadline:?}"));
        }
        sleep(PAUSE).await;
    }
}
