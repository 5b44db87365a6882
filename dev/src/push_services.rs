//! Stand-ins for those who bring notifications to phones and browsers: FCM, APNs, a browser's push service, and a
//! platform's own webhook.
//!
//! They verify what the real ones verify and answer as the real ones answer, keep what arrived and why something was
//! refused, and can be told to fail. They must never be reachable from outside this machine.

mod apns;
mod behaviour;
mod book;
mod credentials;
mod desk;
mod encrypted;
mod fcm;
#[cfg(test)]
mod tests;
mod web_push;
mod webhook;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use chat_shared::wire::Platform;

pub use self::{
    behaviour::Behaviour,
    book::{Received, Refused},
    web_push::Subscription,
};
use self::{book::Book, credentials::Credentials, desk::Desk};
use crate::{
    stand_in::server::{self, Protocol, Server},
    terminal::Prefix,
    wait,
};

/// Ids of the apps that the stand-in for APNs knows.
pub const APP_IDS: [&str; 2] = ["com.example.chat", "com.example.chat.business"];

/// How long [`PushServices::wait_for`] waits.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(40);

/// Refusals told of when a wait was in vain.
const REFUSALS_TOLD_MAX: usize = 5;

/// Where each listens on 127.0.0.1; 0 is any free port.
#[derive(Debug, Clone, Copy, Default)]
pub struct PushPorts {
    /// FCM, with Google's token endpoint.
    pub fcm: u16,
    /// APNs.
    pub apns: u16,
    /// The browser's push service.
    pub web_push: u16,
    /// The platform's webhook.
    pub webhook: u16,
}

/// The running stand-ins. They stop when dropped.
#[derive(Debug)]
pub struct PushServices {
    credentials: Credentials,
    book: Arc<Book>,
    fcm: Arc<fcm::Fcm>,
    apns: Arc<apns::Apns>,
    web_push: Arc<web_push::WebPush>,
    webhook: Arc<webhook::Webhook>,
    fcm_server: Server,
    apns_server: Server,
    web_push_server: Server,
    webhook_server: Server,
}

impl PushServices {
    /// Starts them, with their credentials kept in `directory`.
    pub async fn start(directory: &Path, ports: PushPorts) -> Result<Self> {
        let book = Arc::new(Book::default());
        let desk = |platform| Desk::new(platform, Arc::clone(&book));
        let fcm_listener = server::bind(ports.fcm).await?;
        let web_push_listener = server::bind(ports.web_push).await?;
        let apns_listener = server::bind(ports.apns).await?;
        let webhook_listener = server::bind(ports.webhook).await?;

        let token_url = format!("http://{}/token", fcm_listener.local_addr()?);
        let directory = directory.to_path_buf();
        // Making an RSA key takes long enough to be in the way of others.
        let credentials = tokio::task::spawn_blocking(move || Credentials::kept_in(&directory, &token_url))
            .await
            .context("making credentials failed")??;

        let origin = format!("http://{}", web_push_listener.local_addr()?);
        let fcm = Arc::new(fcm::Fcm::new(desk(Platform::Fcm), credentials.fcm.clone()));
        let apns = Arc::new(apns::Apns::new(desk(Platform::Apns), credentials.apns.public.clone()));
        let key = credentials.web_push.public.clone();
        let web_push = Arc::new(web_push::WebPush::new(desk(Platform::WebPush), key, origin));
        let secret = credentials.webhook.secret.clone();
        let webhook = Arc::new(webhook::Webhook::new(desk(Platform::Webhook), &secret));
        Ok(Self {
            fcm_server: Server::start(fcm_listener, Protocol::Http1, fcm::router(&fcm))?,
            apns_server: Server::start(apns_listener, Protocol::Http2, apns::router(&apns))?,
            web_push_server: Server::start(web_push_listener, Protocol::Http1, web_push::router(&web_push))?,
            webhook_server: Server::start(webhook_listener, Protocol::Http1, webhook::router(&webhook))?,
            credentials,
            book,
            fcm,
            apns,
            web_push,
            webhook,
        })
    }

    /// What the notifier is told, so that it uses them.
    pub fn settings(&self) -> Vec<(String, String)> {
        let Credentials { fcm, apns, web_push, webhook } = &self.credentials;
        let settings = [
            ("CHAT_FCM_SERVICE_ACCOUNT_FILE", fcm.file.display().to_string()),
            ("CHAT_FCM_URL", self.url(Platform::Fcm)),
            ("CHAT_APNS_KEY_FILE", apns.file.display().to_string()),
            ("CHAT_APNS_KEY_ID", credentials::APNS_KEY_ID.to_owned()),
            ("CHAT_APNS_TEAM_ID", credentials::APNS_TEAM_ID.to_owned()),
            ("CHAT_APNS_URL", self.url(Platform::Apns)),
            ("CHAT_WEB_PUSH_KEY_FILE", web_push.file.display().to_string()),
            ("CHAT_WEB_PUSH_CONTACT", "mailto:operations@example.com".to_owned()),
            ("CHAT_WEBHOOK_URL", format!("{}/notifications", self.url(Platform::Webhook))),
            ("CHAT_WEBHOOK_SECRET_FILE", webhook.file.display().to_string()),
            ("CHAT_ALLOW_LOOPBACK_ENDPOINTS", "true".to_owned()),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Prints a line for each notification that arrives from now on.
    pub fn print_arrivals(&self, prefix: Prefix) {
        self.book.print_arrivals(prefix);
    }

    /// Base of one stand-in's endpoints. By `GET` it lists the last notifications that arrived.
    pub fn url(&self, platform: Platform) -> String {
        self.server(platform).url()
    }

    /// A browser's subscription, made for the VAPID key of the settings.
    pub fn subscribe(&self) -> Result<Subscription> {
        self.web_push.subscribe()
    }

    /// How one of them acts from now on.
    pub fn behave(&self, platform: Platform, behaviour: Behaviour) {
        self.desk(platform).behave(behaviour);
        self.server(platform).set_down(behaviour == Behaviour::Down);
    }

    /// Makes a token dead, or a subscription, which is named by its endpoint: its app was removed.
    pub fn kill_token(&self, token: &str) {
        for platform in Platform::ALL {
            self.desk(platform).kill(token);
        }
    }

    /// Makes a token or subscription one that was given out for other credentials: of another project, of the other one of
    /// sandbox and production, or for another VAPID key. A webhook has none of these.
    pub fn disown(&self, token: &str) {
        for platform in Platform::ALL {
            self.desk(platform).disown(token);
        }
    }

    /// Switches a phone of FCM off: what is sent to it is kept.
    pub fn disconnect(&self, token: &str) {
        self.fcm.disconnect(token);
    }

    /// Switches it on again, and says what it gets of what was sent meanwhile.
    pub fn reconnect(&self, token: &str) -> Vec<Received> {
        self.fcm.reconnect(token)
    }

    /// Access tokens that the stand-in for Google gave out and has not revoked.
    pub fn access_tokens(&self) -> usize {
        self.fcm.access_tokens()
    }

    /// Makes all access tokens worthless that the stand-in for Google gave out.
    pub fn revoke_access_tokens(&self) {
        self.fcm.revoke_access_tokens();
    }

    /// What one of them took, in the order of arrival.
    pub fn received(&self, platform: Platform) -> Vec<Received> {
        self.book.received(platform)
    }

    /// What one of them refused, and why.
    pub fn refused(&self, platform: Platform) -> Vec<Refused> {
        self.book.refused(platform)
    }

    /// Waits until `check` finds what it looks for in what all of them took.
    ///
    /// # Errors
    /// If it doesn't within [`WAIT_DEADLINE`]; the last refusals are told.
    pub async fn wait_for<T>(&self, what: &str, check: impl Fn(&[Received]) -> Option<T>) -> Result<T> {
        let waited = wait::until(what, WAIT_DEADLINE, || async { Ok(self.book.look(&check)) }).await;
        waited.with_context(|| self.book.last_refusals(REFUSALS_TOLD_MAX))
    }

    fn desk(&self, platform: Platform) -> &Desk {
        match platform {
            Platform::Fcm => self.fcm.desk(),
            Platform::Apns => self.apns.desk(),
            Platform::WebPush => self.web_push.desk(),
            Platform::Webhook => self.webhook.desk(),
        }
    }

    fn server(&self, platform: Platform) -> &Server {
        match platform {
            Platform::Fcm => &self.fcm_server,
            Platform::Apns => &self.apns_server,
            Platform::WebPush => &self.web_push_server,
            Platform::Webhook => &self.webhook_server,
        }
    }
}
