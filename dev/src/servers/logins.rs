//! Who logs in to the private servers: an administrator, and each service with a password and rights of its own.
//!
//! One secret belongs to a set of servers. It is the administrator's password, and those of the services are made from
//! it: whoever administers knows them all, and no service knows another's. What each may do is in `permissions/`.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use rand::Rng;

use super::wheels::hex;
use crate::paths;

/// Name of the file with the secret, in the directory of the servers' data.
const FILE: &str = "password";

/// Whom NATS and Redis let do everything.
pub const ADMIN: &str = "chat_admin";

/// Who logs in with rights of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Login {
    /// A gateway.
    Gateway,
    /// A persister.
    Persister,
    /// A notifier.
    Notifier,
    /// A notifier that shows the text of messages. Only in PostgreSQL it differs from the other.
    TextNotifier,
    /// Retention.
    Retention,
    /// Retention that moves bodies of old messages to the object store.
    Cold,
    /// Who owns the tables: `chat-retention migrate`.
    Owner,
    /// kaha-main-v3, which says in NATS whose names have changed.
    Kaha,
}

impl Login {
    /// Those that PostgreSQL knows.
    pub const OF_POSTGRES: [Self; 7] =
        [Self::Gateway, Self::Persister, Self::Notifier, Self::TextNotifier, Self::Retention, Self::Cold, Self::Owner];

    /// Its name in NATS, Redis and the object store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "chat_gateway",
            Self::Persister => "chat_persister",
            Self::Notifier | Self::TextNotifier => "chat_notifier",
            Self::Retention => "chat_retention",
            Self::Cold => "chat_retention_cold",
            Self::Owner => "chat_owner",
            Self::Kaha => "kaha",
        }
    }

    /// Its name in PostgreSQL, where users are in the roles of their services.
    pub fn postgres_name(self) -> &'static str {
        match self {
            Self::Gateway => "chat_gateway_1",
            Self::Persister => "chat_persister_1",
            Self::Notifier => "chat_notifier_1",
            Self::TextNotifier => "chat_notifier_2",
            Self::Retention => "chat_retention_1",
            Self::Cold => "chat_retention_cold_1",
            Self::Owner | Self::Kaha => self.name(),
        }
    }

    /// The roles of PostgreSQL that it is in.
    pub fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &["chat_gateway"],
            Self::Persister => &["chat_persister"],
            Self::Notifier => &["chat_notifier"],
            Self::TextNotifier => &["chat_notifier", "chat_notifier_text"],
            Self::Retention => &["chat_retention"],
            Self::Cold => &["chat_retention_cold"],
            Self::Owner | Self::Kaha => &[],
        }
    }
}

/// The passwords of a set of servers.
#[derive(Clone)]
pub struct Passwords(String);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(…)")
    }
}

impl Passwords {
    /// Those of the servers with their data in `directory`, made if there are none yet.
    pub fn ensure(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = directory.join(FILE);
        let mut secret = [0; 16];
        rand::rng().fill_bytes(&mut secret);
        // A letter first, since NATS takes what begins with a digit for a number.
        let made = format!("p{}", hex(&secret));
        // Written whole before it has its name: three servers start at once.
        let draft = directory.join(format!("{FILE}.{made}"));
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        out.write_all(made.as_bytes())?;
        let linked = std::fs::hard_link(&draft, &file);
        std::fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot write {}", file.display()))
            }
            _ => Ok(Self(std::fs::read_to_string(&file)?)),
        }
    }

    /// The administrator's.
    pub fn admin(&self) -> &str {
        &self.0
    }

    /// The address of a server of NATS or Redis for a login, such as `nats://…` with `nats` as the scheme.
    pub fn url(&self, scheme: &str, login: Login, address: &str) -> String {
        format!("{scheme}://{}:{}@{address}", login.name(), self.of(login))
    }

    /// A service's.
    pub fn of(&self, login: Login) -> String {
        let made_from = format!("{}:{}", self.0, login.postgres_name());
        format!("p{}", hex(&digest::digest(&digest::SHA256, made_from.as_bytes()).as_ref()[..16]))
    }
}

/// Which namespaces a login may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All: many tests share the servers.
    Any,
    /// One, as in production.
    Only(&'a str),
}

/// A file of `permissions/`, for a scope.
pub fn permissions(file: &str, scope: Scope<'_>) -> Result<String> {
    let file = paths::workspace_root()?.join("permissions").join(file);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(match scope {
        Scope::Only(namespace) => text.replace("NAMESPACE", namespace),
        // A wildcard of NATS stands for a whole part of a subject.
        Scope::Any => {
            text.replace("NAMESPACE-log", "*").replace("NAMESPACE-notifications", "*").replace("NAMESPACE", "*")
        }
    })
}

/// The address as the administrator has it, or addresses separated by commas, with another login's name and password.
pub fn url_as(admin_url: &str, login: Login) -> String {
    let name = if admin_url.starts_with("postgres") { login.postgres_name() } else { login.name() };
    let of_one = |url: &str| {
        let parts = url.split_once("://").and_then(|(scheme, rest)| {
            let (user, place) = rest.split_once('@')?;
            Some((scheme, user.split_once(':')?.1, place))
        });
        parts.map_or_else(
            || url.to_owned(),
            |(scheme, password, place)| {
                let of_nats_and_redis = if login == Login::TextNotifier { Login::Notifier } else { login };
                let of = if scheme == "postgres" { login } else { of_nats_and_redis };
                format!("{scheme}://{name}:{}@{place}", Passwords(password.to_owned()).of(of))
            },
        )
    };
    admin_url.split(',').map(of_one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_has_its_own_name_and_password_at_every_address() {
        let admin = "nats://chat_admin:pabc@127.0.0.1:1,nats://chat_admin:pabc@127.0.0.1:2";
        let password = Passwords("pabc".to_owned()).of(Login::Gateway);
        assert_ne!(password, Passwords("pabc".to_owned()).of(Login::Notifier));
        let expected = format!("nats://chat_gateway:{password}@127.0.0.1:1,nats://chat_gateway:{password}@127.0.0.1:2");
        assert_eq!(url_as(admin, Login::Gateway), expected);
        let database = url_as("postgres://postgres:pabc@127.0.0.1:3/chat", Login::Gateway);
        assert_eq!(database, format!("postgres://chat_gateway_1:{password}@127.0.0.1:3/chat"));
        let redis = "redis://chat_admin:pabc@127.0.0.1:4";
        assert_eq!(url_as(redis, Login::TextNotifier), url_as(redis, Login::Notifier));
    }

    #[test]
    fn the_password_of_a_directory_is_made_once_and_is_for_its_owner() -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir()?;
        let first = Passwords::ensure(directory.path())?;
        assert_eq!(first.admin(), Passwords::ensure(directory.path())?.admin());
        let mode = directory.path().join(FILE).metadata()?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path())?.count(), 1);
        Ok(())
    }
}
