//! Least privilege: what each service's credential opens, and that it opens nothing else. Every cell of the tables is tried
//! with the credentials that a running fleet uses, on servers that are set up as `permissions/` says.

mod nats;
mod postgres;
mod redis;
mod restarts;
mod stolen;
mod store;

use anyhow::{Result, ensure};
use chat_dev::servers::Login;

/// Those whose credentials are tried.
const LOGINS: [Login; 7] = [
    Login::Gateway,
    Login::Persister,
    Login::Notifier,
    Login::TextNotifier,
    Login::Retention,
    Login::Cold,
    Login::Kaha,
];

/// Fails with all cells that are not as the table says: `found` has the operation, who tried it, whether they may, and
/// whether they could.
fn assert_as_stated(found: &[(&str, Login, bool, bool)]) -> Result<()> {
    let wrong: Vec<_> = found
        .iter()
        .filter(|(_, _, may, could)| may != could)
        .map(|(operation, login, _, could)| {
            format!("{login:?} {} {operation}", if *could { "must not, and can," } else { "may, and can't," })
        })
        .collect();
    ensure!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), found.len(), wrong.join("\n"));
    Ok(())
}
