//! What each service may say to NATS, and what it may hear.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use async_nats::{Client, Event, HeaderMap, header};
use chat_dev::servers::Login::{self, Gateway, Kaha, Notifier, Owner, Persister, Retention};
use chat_e2e::{Setup, eventually, on_own_fleet};
use chat_shared::{delivery::Delivery, log};

use crate::assert_as_stated;

/// Those that NATS knows.
const SERVICES: [Login; 4] = [Gateway, Persister, Notifier, Kaha];

const BOTH: &[Login] = &[Gateway, Notifier];
const OF_GATEWAY: &[Login] = &[Gateway];
const OF_PERSISTER: &[Login] = &[Persister];
const OF_NOTIFIER: &[Login] = &[Notifier];
const ALL_BUT_KAHA: &[Login] = &[Gateway, Persister, Notifier];
const NOBODY: &[Login] = &[];

/// Nobody may say this: when it is refused, everything before has been answered.
const END: &str = "nobody.says.this";

/// What may be said, and by whom. `{ns}` is the namespace.
const SAID: &[(&str, &[Login])] = &[
    ("{ns}.7.message.0123456789abcdef0123456789abcdef", OF_GATEWAY),
    ("{ns}.7.fact", OF_GATEWAY),
    ("{ns}.7.anything", NOBODY),
    ("{ns}.notifications", BOTH),
    ("{ns}.gateway.0123456789abcdef", BOTH),
    // It would stand in the log.
    ("{ns}.gateway.fact", NOBODY),
    ("{ns}.gateways", BOTH),
    ("{ns}.profiles.changed", &[Kaha]),
    ("other.7.fact", NOBODY),
    ("other.gateways", NOBODY),
    ("_INBOX_chat_gateway.1", NOBODY),
    ("_INBOX_chat_persister.1", NOBODY),
    // The log and the queue.
    ("$JS.API.INFO", NOBODY),
    ("$JS.API.STREAM.NAMES", NOBODY),
    ("$JS.API.STREAM.LIST", NOBODY),
    ("$JS.API.STREAM.INFO.{ns}-log", ALL_BUT_KAHA),
    ("$JS.API.STREAM.CREATE.{ns}-log", ALL_BUT_KAHA),
    ("$JS.API.STREAM.CREATE.a-copy", NOBODY),
    ("$JS.API.STREAM.UPDATE.{ns}-log", NOBODY),
    ("$JS.API.STREAM.PURGE.{ns}-log", OF_PERSISTER),
    ("$JS.API.STREAM.DELETE.{ns}-log", NOBODY),
    ("$JS.API.STREAM.MSG.DELETE.{ns}-log", NOBODY),
    ("$JS.API.STREAM.SNAPSHOT.{ns}-log", NOBODY),
    ("$JS.API.STREAM.RESTORE.{ns}-log", NOBODY),
    ("$JS.API.STREAM.MSG.GET.{ns}-log", &[Gateway, Persister]),
    ("$JS.API.DIRECT.GET.{ns}-log", &[Gateway, Persister]),
    ("$JS.API.DIRECT.GET.{ns}-log.{ns}.7.fact", OF_GATEWAY),
    ("$JS.API.STREAM.INFO.{ns}-notifications", BOTH),
    ("$JS.API.STREAM.CREATE.{ns}-notifications", BOTH),
    ("$JS.API.STREAM.MSG.GET.{ns}-notifications", NOBODY),
    ("$JS.API.DIRECT.GET.{ns}-notifications", NOBODY),
    ("$JS.API.STREAM.PURGE.{ns}-notifications", NOBODY),
    ("$JS.API.STREAM.UPDATE.{ns}-notifications", NOBODY),
    ("$JS.API.STREAM.DELETE.{ns}-notifications", NOBODY),
    // Their consumers.
    ("$JS.API.CONSUMER.CREATE.{ns}-log", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.mine", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.mine.{ns}.>", NOBODY),
    ("$JS.API.CONSUMER.DURABLE.CREATE.{ns}-log.mine", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.persister", OF_PERSISTER),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.persister.{ns}.>", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.notifier-15", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.notifier-16", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-log.notifications", NOBODY),
    ("$JS.API.CONSUMER.CREATE.{ns}-notifications.notifications", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.{ns}-notifications.mine", NOBODY),
    ("$JS.API.CONSUMER.DELETE.{ns}-log.persister", NOBODY),
    ("$JS.API.CONSUMER.DELETE.{ns}-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.DELETE.{ns}-notifications.notifications", NOBODY),
    ("$JS.API.CONSUMER.RESET.{ns}-log.persister", NOBODY),
    ("$JS.API.CONSUMER.RESET.{ns}-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.PAUSE.{ns}-log.persister", NOBODY),
    ("$JS.API.CONSUMER.PAUSE.{ns}-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.UNPIN.{ns}-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.INFO.{ns}-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.INFO.{ns}-log.persister", OF_PERSISTER),
    ("$JS.API.CONSUMER.LIST.{ns}-log", OF_PERSISTER),
    ("$JS.API.CONSUMER.MSG.NEXT.{ns}-log.persister", OF_PERSISTER),
    ("$JS.API.CONSUMER.MSG.NEXT.{ns}-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.MSG.NEXT.{ns}-notifications.notifications", OF_NOTIFIER),
    ("$JS.ACK.{ns}-log.persister.1.1.1.1.0", OF_PERSISTER),
    ("$JS.ACK.{ns}-log.notifier-00.1.1.1.1.0", OF_NOTIFIER),
    ("$JS.ACK.{ns}-notifications.notifications.1.1.1.1.0", OF_NOTIFIER),
    ("$SYS.REQ.SERVER.PING", NOBODY),
];

/// What may be heard, and by whom.
const HEARD: &[(&str, &[Login])] = &[
    (">", NOBODY),
    ("*.*.message.*", NOBODY),
    ("{ns}.>", NOBODY),
    ("{ns}.7.message.*", NOBODY),
    ("{ns}.7.fact", NOBODY),
    ("{ns}.notifications", NOBODY),
    ("{ns}.gateway.0123456789abcdef", OF_GATEWAY),
    ("{ns}.gateways", OF_GATEWAY),
    ("{ns}.profiles.changed", OF_GATEWAY),
    ("other.gateways", NOBODY),
    ("_INBOX.>", NOBODY),
    ("_INBOX_chat_gateway.>", OF_GATEWAY),
    ("_INBOX_chat_persister.>", OF_PERSISTER),
    ("_INBOX_chat_notifier.>", OF_NOTIFIER),
    ("$JS.ACK.>", NOBODY),
    ("$JS.API.>", NOBODY),
    ("$JS.EVENT.>", NOBODY),
    ("$SYS.>", NOBODY),
];

#[test]
fn r6_4_each_service_says_to_nats_and_hears_from_it_what_it_needs_and_nothing_else() -> Result<()> {
    on_own_fleet(Setup::default().with_own_servers(), async |fleet| {
        let mut found = Vec::new();
        for login in SERVICES {
            let user = User::connect(&fleet.urls().of(login).nats).await?;
            let named = |subject: &str| subject.replace("{ns}", fleet.namespace());
            for (subject, allowed) in SAID {
                found.push((*subject, login, allowed.contains(&login), user.may_say(&named(subject)).await?));
            }
            for (subject, allowed) in HEARD {
                found.push((*subject, login, allowed.contains(&login), user.may_hear(&named(subject)).await?));
            }
        }
        for login in [Retention, Owner] {
            ensure!(User::connect(&fleet.urls().of(login).nats).await.is_err(), "{login:?} has nothing to do in NATS");
        }
        let nobody = fleet.urls().nats.replace('@', "x@");
        ensure!(User::connect(&nobody).await.is_err(), "a wrong password is refused");
        assert_as_stated(&found)
    })
}

/// A connection, and what was refused on it.
pub struct User {
    pub client: Client,
    refused: Arc<Mutex<Vec<String>>>,
}

impl User {
    pub async fn connect(url: &str) -> Result<Self> {
        let refused = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&refused);
        let client = log::connect(url, "privileges", move |event| {
            if let Event::ServerError(error) = event {
                locked(&noting).push(error.to_string());
            }
        });
        Ok(Self { client: client.await?, refused })
    }

    /// Whether it may be said. What is said has no effect where it is let through: the log wants it in another stream,
    /// JetStream is asked nothing that can be answered, and gateways hear a beacon.
    pub async fn may_say(&self, subject: &str) -> Result<bool> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, "another");
        let payload = match subject {
            _ if subject.ends_with(".profiles.changed") => r#"{"user_ids":[],"business_ids":[]}"#.into(),
            _ if subject.starts_with("$JS.ACK") => "+WPI".into(),
            _ if subject.contains(".gateway") => Delivery::Beacon.encode().into(),
            _ if subject.starts_with("$JS") => "nonsense".into(),
            _ => "".into(),
        };
        self.client.publish_with_headers(subject.to_owned(), headers, payload).await?;
        Ok(!self.was_refused(&format!("Publish to \"{subject}\"")).await?)
    }

    pub async fn may_hear(&self, subject: &str) -> Result<bool> {
        let _subscription = self.client.subscribe(subject.to_owned()).await?;
        Ok(!self.was_refused(&format!("Subscription to \"{subject}\"")).await?)
    }

    async fn was_refused(&self, what: &str) -> Result<bool> {
        self.client.publish(END, "".into()).await?;
        self.client.flush().await?;
        let refused = |what: &str| locked(&self.refused).iter().any(|error| has(error, what));
        eventually("a refusal of what nobody may say", || async { Ok(refused(END).then_some(())) }).await?;
        let was_refused = refused(what);
        locked(&self.refused).clear();
        Ok(was_refused)
    }
}

fn locked(refused: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    refused.lock().unwrap_or_else(PoisonError::into_inner)
}

fn has(error: &str, what: &str) -> bool {
    error.to_ascii_lowercase().contains(&what.to_ascii_lowercase())
}
