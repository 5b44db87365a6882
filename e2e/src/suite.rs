//! Runs tests on fleets: on one that all tests of a program share, or on one of their own.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use tokio::{runtime::Runtime, sync::OnceCell};

use crate::{Setup, TestFleet};

/// One for all tests of the program: what a shared fleet needs must outlive the test that started it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("the system gives threads to a test"));

/// Started by the first test that wants it. Its processes end with this program.
static SHARED: OnceCell<TestFleet> = OnceCell::const_new();

/// Runs a test that disturbs nobody on the fleet of this program, then checks the fleet.
///
/// # Errors
/// If the test fails, or leaves behind what no fleet may.
pub fn on_shared_fleet(test: impl AsyncFnOnce(&TestFleet) -> Result<()>) -> Result<()> {
    RUNTIME.block_on(async {
        let fleet = SHARED.get_or_try_init(|| TestFleet::start(Setup::default())).await?;
        run(fleet, test).await
    })
}

/// Runs a test on a fleet of its own, checks the fleet, and stops it cleanly.
///
/// # Errors
/// If the test fails, or the fleet is left in another state than running and clean.
pub fn on_own_fleet(setup: Setup, test: impl AsyncFnOnce(&TestFleet) -> Result<()>) -> Result<()> {
    RUNTIME.block_on(async {
        let fleet = TestFleet::start(setup).await?;
        run(&fleet, test).await?;
        fleet.stop_cleanly().await
    })
}

async fn run(fleet: &TestFleet, test: impl AsyncFnOnce(&TestFleet) -> Result<()>) -> Result<()> {
    let witness = Witness(fleet);
    let outcome = async {
        test(fleet).await?;
        fleet.check().await
    };
    let outcome = outcome.await.with_context(|| fleet.last_words());
    std::mem::forget(witness);
    outcome
}

/// Tells what the services had to say when a test panics.
struct Witness<'a>(&'a TestFleet);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        chat_dev::terminal::progress(&self.0.last_words());
    }
}
