//! A client process: connects the seats of a plan, writes what is due when it is due, and counts what comes back.

use anyhow::{Result, bail};

use crate::plan::{Plan, TargetKind};

/// Does what a plan says.
///
/// # Errors
/// If the clients can't connect.
pub fn run(plan: Plan) -> Result<()> {
    match plan.target {
        TargetKind::Chat | TargetKind::SocketIo | TargetKind::Xmpp => bail!("not there yet"),
    }
}
