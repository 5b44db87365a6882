//! The scenarios of `cargo dev load`, a file each: what is done to a subject, and what is said about it.

pub mod backlog;
pub mod burst;
pub mod dm;
pub mod history;
pub mod hostile;
pub mod idle;
pub mod jitter;
pub mod lists;
pub mod outage;
pub mod race;
pub mod reading;
pub mod reconnect;
pub mod retire;
pub mod seed;
pub mod storm;

use anyhow::{Result, ensure};

use super::run::number;

/// Messages or pages a second that one user may ask for, with room to spare.
const USER_RATE_MAX: u32 = 40;

/// The most that so many users may ask for in a second.
fn rate_max(users: usize) -> f64 {
    number(users as u64) * f64::from(USER_RATE_MAX)
}

/// Refuses a load that would measure the limit of a user.
fn ensure_rate(rate: f64, users: usize) -> Result<()> {
    ensure!(
        rate <= rate_max(users),
        "{rate} a second are too many for {users} users, of whom none may ask for more than {USER_RATE_MAX}: take more \
         conversations or a lower rate"
    );
    Ok(())
}

/// Handshakes that a gateway lets in where connecting is not what is measured: all.
const HANDSHAKES_PER_SECOND: u32 = 100_000;
