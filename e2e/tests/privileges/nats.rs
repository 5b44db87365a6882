//! What each service may say to NATS, and what it may hear.

use std::sync::{Arc, Mutex};

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

/// What may be said, and by whom. `NS` is the namespace.
const SAID: &[(&str, &[Login])] = &[
    ("NS.7.message.0123456789abcdef0123456789abcdef", OF_GATEWAY),
    ("NS.7.fact", OF_GATEWAY),
    ("NS.7.anything", NOBODY),
    ("NS.notifications", BOTH),
    ("NS.gateway.0123456789abcdef", BOTH),
    ("NS.gateways", BOTH),
    ("NS.profiles.changed", &[Kaha]),
    ("other.7.fact", NOBODY),
    ("other.gateways", NOBODY),
    ("_INBOX_chat_gateway.1", NOBODY),
    ("_INBOX_chat_persister.1", NOBODY),
    // The log and the queue.
    ("$JS.API.INFO", NOBODY),
    ("$JS.API.STREAM.NAMES", NOBODY),
    ("$JS.API.STREAM.LIST", NOBODY),
    ("$JS.API.STREAM.INFO.NS-log", ALL_BUT_KAHA),
    ("$JS.API.STREAM.CREATE.NS-log", ALL_BUT_KAHA),
    ("$JS.API.STREAM.CREATE.a-copy", NOBODY),
    ("$JS.API.STREAM.UPDATE.NS-log", NOBODY),
    ("$JS.API.STREAM.PURGE.NS-log", NOBODY),
    ("$JS.API.STREAM.DELETE.NS-log", NOBODY),
    ("$JS.API.STREAM.MSG.DELETE.NS-log", NOBODY),
    ("$JS.API.STREAM.SNAPSHOT.NS-log", NOBODY),
    ("$JS.API.STREAM.RESTORE.NS-log", NOBODY),
    ("$JS.API.STREAM.MSG.GET.NS-log", OF_GATEWAY),
    ("$JS.API.DIRECT.GET.NS-log", OF_GATEWAY),
    ("$JS.API.DIRECT.GET.NS-log.NS.7.fact", OF_GATEWAY),
    ("$JS.API.STREAM.INFO.NS-notifications", BOTH),
    ("$JS.API.STREAM.CREATE.NS-notifications", BOTH),
    ("$JS.API.STREAM.MSG.GET.NS-notifications", NOBODY),
    ("$JS.API.DIRECT.GET.NS-notifications", NOBODY),
    ("$JS.API.STREAM.PURGE.NS-notifications", NOBODY),
    ("$JS.API.STREAM.UPDATE.NS-notifications", NOBODY),
    ("$JS.API.STREAM.DELETE.NS-notifications", NOBODY),
    // Their consumers.
    ("$JS.API.CONSUMER.CREATE.NS-log", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-log.mine", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-log.mine.NS.>", NOBODY),
    ("$JS.API.CONSUMER.DURABLE.CREATE.NS-log.mine", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-log.persister", OF_PERSISTER),
    ("$JS.API.CONSUMER.CREATE.NS-log.persister.NS.>", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.NS-log.notifier-15", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.NS-log.notifier-16", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-log.notifications", NOBODY),
    ("$JS.API.CONSUMER.CREATE.NS-notifications.notifications", OF_NOTIFIER),
    ("$JS.API.CONSUMER.CREATE.NS-notifications.mine", NOBODY),
    ("$JS.API.CONSUMER.DELETE.NS-log.persister", NOBODY),
    ("$JS.API.CONSUMER.DELETE.NS-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.DELETE.NS-notifications.notifications", NOBODY),
    ("$JS.API.CONSUMER.RESET.NS-log.persister", NOBODY),
    ("$JS.API.CONSUMER.RESET.NS-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.PAUSE.NS-log.persister", NOBODY),
    ("$JS.API.CONSUMER.PAUSE.NS-log.notifier-00", NOBODY),
    ("$JS.API.CONSUMER.UNPIN.NS-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.INFO.NS-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.INFO.NS-log.persister", NOBODY),
    ("$JS.API.CONSUMER.LIST.NS-log", NOBODY),
    ("$JS.API.CONSUMER.MSG.NEXT.NS-log.persister", OF_PERSISTER),
    ("$JS.API.CONSUMER.MSG.NEXT.NS-log.notifier-00", OF_NOTIFIER),
    ("$JS.API.CONSUMER.MSG.NEXT.NS-notifications.notifications", OF_NOTIFIER),
    ("$JS.ACK.NS-log.persister.1.1.1.1.0", OF_PERSISTER),
    ("$JS.ACK.NS-log.notifier-00.1.1.1.1.0", OF_NOTIFIER),
    ("$JS.ACK.NS-notifications.notifications.1.1.1.1.0", OF_NOTIFIER),
    ("$SYS.REQ.SERVER.PING", NOBODY),
];

/// What may be heard, and by whom.
const HEARD: &[(&str, &[Login])] = &[
    (">", NOBODY),
    ("*.*.message.*", NOBODY),
    ("NS.>", NOBODY),
    ("NS.7.message.*", NOBODY),
    ("NS.7.fact", NOBODY),
    ("NS.notifications", NOBODY),
    ("NS.gateway.0123456789abcdef", OF_GATEWAY),
    ("NS.gateways", OF_GATEWAY),
    ("NS.profiles.changed", OF_GATEWAY),
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
            let named = |subject: &str| subject.replace("NS", fleet.namespace());
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
        let nobody = fleet.urls().nats.replace(|letter: char| letter == '@', "x@");
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
                noting.lock().unwrap().push(error.to_string());
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
        let refused = |what: &str| self.refused.lock().unwrap().iter().any(|error| has(error, what));
        eventually("a refusal of what nobody may say", || async { Ok(refused(END).then_some(())) }).await?;
        let was_refused = refused(what);
        self.refused.lock().unwrap().clear();
        Ok(was_refused)
    }
}

fn has(error: &str, what: &str) -> bool {
    error.to_ascii_lowercase().contains(&what.to_ascii_lowercase())
}
