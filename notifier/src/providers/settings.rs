//! The providers' settings: what is not set is off, what is half set is refused.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use chat_shared::{
    clock::Clock,
    outbound::{check_url, is_loopback_url},
};
use clap::Args;
use reqwest::Url;

use super::{
    Services,
    access_token::{AccessTokens, ServiceAccount},
    apns::{Apns, ProviderToken},
    fcm::Fcm,
    outbound,
    vapid::Vapid,
    web_push::WebPush,
    webhook::{self, Webhook},
};

/// Secrets that sign for the webhook: one, or while it is exchanged the old and the new one.
const WEBHOOK_SECRETS_MAX: usize = 2;
/// A shorter secret could be guessed, and notifications be forged.
const WEBHOOK_SECRET_BYTES_MIN: usize = 16;

/// Who brings notifications to phones and browsers. Each is off until its settings are there; devices of a platform
/// that is off get no notifications.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Notifications")]
pub struct ProviderSettings {
    /// JSON key file of a service account that may send by Firebase Cloud Messaging. Optional.
    ///
    /// For the Firebase project that the apps are built with. Without it, Android devices get no notifications.
    #[arg(long, env = "CHAT_FCM_SERVICE_ACCOUNT_FILE", value_name = "FILE")]
    pub fcm_service_account_file: Option<PathBuf>,
    /// Where Firebase Cloud Messaging is.
    ///
    /// What notifications show, and the tokens of devices, go there.
    #[arg(long, env = "CHAT_FCM_URL", default_value = "https://fcm.googleapis.com", value_name = "URL")]
    pub fcm_url: String,
    /// Key file (.p8) for the Apple Push Notification service, as Apple hands it out. Optional.
    ///
    /// Without it, Apple devices get no notifications. It needs the two ids that follow.
    #[arg(long, env = "CHAT_APNS_KEY_FILE", value_name = "FILE")]
    pub apns_key_file: Option<PathBuf>,
    /// The id that Apple gave the key: ten letters and digits. Required with the key.
    ///
    /// With another one Apple refuses every notification.
    #[arg(long, env = "CHAT_APNS_KEY_ID", value_name = "ID")]
    pub apns_key_id: Option<String>,
    /// The id of the team at Apple whose apps these are: ten letters and digits. Required with the key.
    ///
    /// With another one Apple refuses every notification.
    #[arg(long, env = "CHAT_APNS_TEAM_ID", value_name = "ID")]
    pub apns_team_id: Option<String>,
    /// Where the Apple Push Notification service is. Apps from Xcode need <https://api.sandbox.push.apple.com>.
    ///
    /// Each of the two refuses the other's device tokens as bad.
    #[arg(long, env = "CHAT_APNS_URL", default_value = "https://api.push.apple.com", value_name = "URL")]
    pub apns_url: String,
    /// Private key with which Web Push is signed (VAPID): PKCS#8 in PEM, curve P-256. Optional.
    ///
    /// Browsers subscribe with its public half, so another key ends all subscriptions. Without it, browsers get no
    /// notifications.
    #[arg(long, env = "CHAT_WEB_PUSH_KEY_FILE", value_name = "FILE")]
    pub web_push_key_file: Option<PathBuf>,
    /// Whom push services write to when something is wrong. Required with the key.
    ///
    /// Such as `mailto:operations@example.com` or a page that begins with https:. Some push services refuse notifications
    /// that name nobody.
    #[arg(long, env = "CHAT_WEB_PUSH_CONTACT", value_name = "CONTACT")]
    pub web_push_contact: Option<String>,
    /// Where the platform's own sender takes notifications: https, port 443, a public address. Optional.
    ///
    /// Without it, devices that are registered for it get none. It needs the secret that follows.
    #[arg(long, env = "CHAT_WEBHOOK_URL", hide_env_values = true, value_name = "URL")]
    pub webhook_url: Option<String>,
    /// File with the secret that signs what the platform's own sender gets. Required with its address.
    ///
    /// Any text of 16 bytes or more; white space around it doesn't count. Whoever has it can forge notifications. While it
    /// is exchanged, the files of the old and of the new one, separated by a comma: both sign.
    #[arg(long, env = "CHAT_WEBHOOK_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    pub webhook_secret_file: Vec<PathBuf>,
    /// Allows notifications to this machine, by http and on any port. Development only.
    ///
    /// Whoever registers a device could reach whatever listens here. Off unless it is set.
    #[arg(long, env = "CHAT_ALLOW_LOOPBACK_ENDPOINTS")]
    pub allow_loopback_endpoints: bool,
}

impl ProviderSettings {
    pub(super) fn open(&self, clock: &Clock) -> anyhow::Result<Services> {
        Ok(Services {
            fcm: self.fcm(clock).context("setting up Firebase Cloud Messaging")?,
            apns: self.apns(clock).context("setting up the Apple Push Notification service")?,
            web_push: self.web_push(clock).context("setting up Web Push")?,
            webhook: self.webhook(clock).context("setting up the webhook")?,
        })
    }

    fn fcm(&self, clock: &Clock) -> anyhow::Result<Option<Fcm>> {
        let Some(path) = &self.fcm_service_account_file else { return Ok(None) };
        let account = ServiceAccount::read(path).context("CHAT_FCM_SERVICE_ACCOUNT_FILE")?;
        let mut url = self.operators_url(&self.fcm_url).context("CHAT_FCM_URL")?;
        url.path_segments_mut().map_err(|()| anyhow::anyhow!("CHAT_FCM_URL has no path"))?.pop_if_empty().extend([
            "v1",
            "projects",
            &account.project_id,
            "messages:send",
        ]);
        let token_url = self.operators_url(&account.token_uri).context("the service account's token_uri")?;
        let http = outbound::build(outbound::client(self.allow_loopback_endpoints))?;
        let tokens = AccessTokens::new(&account, http.clone(), token_url, clock.clone())
            .with_context(|| format!("CHAT_FCM_SERVICE_ACCOUNT_FILE: {}", path.display()))?;
        Ok(Some(Fcm::new(http, url, tokens, clock.clone())))
    }

    fn apns(&self, clock: &Clock) -> anyhow::Result<Option<Apns>> {
        let given = (&self.apns_key_file, &self.apns_key_id, &self.apns_team_id);
        let (path, key_id, team_id) = match given {
            (None, None, None) => return Ok(None),
            (Some(path), Some(key_id), Some(team_id)) => (path, key_id, team_id),
            _ => bail!(
                "CHAT_APNS_KEY_FILE, CHAT_APNS_KEY_ID and CHAT_APNS_TEAM_ID go together: set all three, or none to \
                 send nothing to Apple devices"
            ),
        };
        let token = ProviderToken::read(path, key_id, team_id).context("CHAT_APNS_KEY_FILE")?;
        let mut url = self.operators_url(&self.apns_url).context("CHAT_APNS_URL")?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let mut http = outbound::client(self.allow_loopback_endpoints);
        if url.scheme() == "http" {
            // Without TLS nobody can agree on HTTP/2, which is all that it speaks.
            http = http.http2_prior_knowledge();
        }
        Ok(Some(Apns::new(outbound::build(http)?, url, token, clock.clone())))
    }

    fn web_push(&self, clock: &Clock) -> anyhow::Result<Option<WebPush>> {
        let (path, contact) = match (&self.web_push_key_file, &self.web_push_contact) {
            (None, None) => return Ok(None),
            (Some(path), Some(contact)) => (path, contact),
            _ => bail!(
                "CHAT_WEB_PUSH_KEY_FILE and CHAT_WEB_PUSH_CONTACT go together: set both, or none to send nothing to \
                 browsers"
            ),
        };
        ensure!(
            contact.starts_with("mailto:") || contact.starts_with("https:"),
            "CHAT_WEB_PUSH_CONTACT begins with mailto: or https:"
        );
        let vapid = Vapid::read(path, contact.clone()).context("CHAT_WEB_PUSH_KEY_FILE")?;
        let allow_loopback = self.allow_loopback_endpoints;
        let http = outbound::build(outbound::public_client(allow_loopback))?;
        Ok(Some(WebPush::new(http, vapid, allow_loopback, clock.clone())))
    }

    fn webhook(&self, clock: &Clock) -> anyhow::Result<Option<Webhook>> {
        let (url, paths) = match (&self.webhook_url, self.webhook_secret_file.as_slice()) {
            (None, []) => return Ok(None),
            (Some(url), paths @ [_, ..]) => (url, paths),
            _ => bail!(
                "CHAT_WEBHOOK_URL and CHAT_WEBHOOK_SECRET_FILE go together: set both, or none to have no sender of \
                 your own"
            ),
        };
        let url = check_url(url, self.allow_loopback_endpoints).context("CHAT_WEBHOOK_URL")?;
        ensure!(
            paths.len() <= WEBHOOK_SECRETS_MAX,
            "CHAT_WEBHOOK_SECRET_FILE names more than {WEBHOOK_SECRETS_MAX} files: one, or while the secret is exchanged two"
        );
        let secrets: Vec<_> =
            paths.iter().map(|path| secret(path)).collect::<anyhow::Result<_>>().context("CHAT_WEBHOOK_SECRET_FILE")?;
        let http = outbound::public_client(self.allow_loopback_endpoints).pool_idle_timeout(webhook::IDLE_MAX);
        Ok(Some(Webhook::new(outbound::build(http)?, url, &secrets, clock.clone())))
    }

    /// A URL that the operator names, and nobody else: any host and port, but by https.
    fn operators_url(&self, text: &str) -> anyhow::Result<Url> {
        let url = Url::parse(text).context("it is not a URL such as https://example.com")?;
        let is_safe = url.scheme() == "https" || (self.allow_loopback_endpoints && is_loopback_url(&url));
        ensure!(
            is_safe && url.has_host(),
            "it must begin with https://, or be this machine's with CHAT_ALLOW_LOOPBACK_ENDPOINTS"
        );
        Ok(url)
    }
}

fn secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let secret = text.trim();
    ensure!(
        secret.len() >= WEBHOOK_SECRET_BYTES_MIN,
        "{} holds fewer than {WEBHOOK_SECRET_BYTES_MIN} bytes; make a secret with `head -c 32 /dev/urandom | base64`",
        path.display()
    );
    Ok(secret.to_owned())
}
