//! The environment variables that the services are started with: the contract
//! between this crate and their `config.rs`.

use anyhow::Result;

use super::{Role, ServiceEnv, keys::Keys, service::GatewayPorts};
use crate::{
    kaha::{AUDIENCE, ISSUER, Kaha},
    push_services::PushServices,
    servers::{Login, Urls, logins, seaweedfs},
};

/// Bytes of a fleet's log. Small enough that many fleets share one NATS server, which sets the room aside.
const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Requests each second and connections that a gateway takes from one address: all clients of a fleet have the same.
const PER_ADDRESS_MAX: usize = 1_000_000;

/// What all services of a fleet have in common.
#[derive(Debug)]
pub struct Settings<'a> {
    pub urls: &'a Urls,
    /// Of PostgreSQL's replicas, for the administrator.
    pub replica_urls: &'a [String],
    pub namespace: &'a str,
    pub kaha: &'a Kaha,
    pub push_services: &'a PushServices,
    pub keys: Keys,
    /// Bodies of old messages are in the object store.
    pub has_cold: bool,
    /// Added last, so that it can override.
    pub extra: &'a [(String, String)],
    /// Added after those, to single services.
    pub of_services: &'a [ServiceEnv],
    /// Logs for people instead of for machines.
    pub is_readable: bool,
}

impl Settings<'_> {
    /// The variables of one service. Gateways listen on `ports`.
    pub fn of(&self, role: Role, ports: Option<GatewayPorts>, metrics_port: u16) -> Result<Vec<(String, String)>> {
        let mut env = self.common(metrics_port);
        env.extend(self.urls_of(role)?);
        if matches!(role, Role::Gateway | Role::Notifier | Role::Retention) {
            env.push(("CHAT_MASTER_KEY_FILE", self.keys.master.display().to_string()));
        }
        if role == Role::Gateway && !self.replica_urls.is_empty() {
            let urls: Vec<_> = self.replica_urls.iter().map(|url| logins::url_as(url, Login::Gateway)).collect();
            env.push(("CHAT_POSTGRES_REPLICA_URLS", urls.join(",")));
        }
        if let Some(GatewayPorts { clients: port, internal }) = ports {
            env.extend([
                ("CHAT_LISTEN", format!("127.0.0.1:{port}")),
                ("CHAT_JWKS_URL", self.kaha.jwks_url()),
                ("CHAT_JWT_AUDIENCE", AUDIENCE.to_owned()),
                ("CHAT_JWT_ISSUER", ISSUER.to_owned()),
                ("CHAT_ALLOWED_ORIGINS", format!("http://127.0.0.1:{port}")),
                ("CHAT_REQUESTS_PER_ADDRESS_MAX", PER_ADDRESS_MAX.to_string()),
                ("CHAT_CONNECTIONS_PER_ADDRESS_MAX", PER_ADDRESS_MAX.to_string()),
                ("CHAT_KAHA_URL", self.kaha.api_url()),
                ("CHAT_SERVICE_KEY_FILE", self.keys.service.display().to_string()),
                ("CHAT_SERVICE_NEXT_KEY_FILE", self.keys.next_service.display().to_string()),
                ("CHAT_INTERNAL_LISTEN", format!("127.0.0.1:{internal}")),
                ("CHAT_SERVICE_JWKS_URL", self.kaha.service_jwks_url()),
                // The stand-in for browsers' push services is on this machine.
                ("CHAT_ALLOW_LOOPBACK_ENDPOINTS", "true".to_owned()),
            ]);
        }
        let mut env: Vec<_> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        match role {
            Role::Notifier => env.extend(self.push_services.settings()),
            Role::Gateway | Role::Persister | Role::Retention | Role::Cold => {}
        }
        env.extend_from_slice(self.extra);
        Ok(env)
    }

    /// What one service is told besides, by its name.
    pub fn of_service(&self, service: &str) -> impl Iterator<Item = (String, String)> {
        let is_for_it = move |setting: &&ServiceEnv| setting.service == service;
        self.of_services.iter().filter(is_for_it).map(|setting| (setting.name.clone(), setting.value.clone()))
    }

    /// Where a service finds the servers that it needs, with a name and password of its own.
    fn urls_of(&self, role: Role) -> Result<Vec<(&'static str, String)>> {
        let own = self.of_services.iter().map(|setting| (&setting.name, &setting.value));
        let mut settings = self.extra.iter().map(|(name, value)| (name, value)).chain(own);
        let shows_text = settings.any(|(name, value)| name == "CHAT_NOTIFICATION_CONTENT" && value == "text");
        let login = match role {
            Role::Gateway => Login::Gateway,
            Role::Persister => Login::Persister,
            Role::Notifier if shows_text => Login::TextNotifier,
            Role::Notifier => Login::Notifier,
            Role::Retention => Login::Retention,
            Role::Cold => Login::Cold,
        };
        let Urls { postgres, nats, redis, store } = self.urls.of(login);
        let mut urls = vec![("CHAT_POSTGRES_URL", postgres)];
        if matches!(role, Role::Gateway | Role::Persister | Role::Notifier) {
            urls.push(("CHAT_NATS_URL", nats));
        }
        if matches!(role, Role::Gateway | Role::Notifier) {
            urls.push(("CHAT_REDIS_URL", redis));
        }
        if let Some(url) = store.filter(|_| self.has_cold && matches!(role, Role::Gateway | Role::Cold)) {
            urls.extend(seaweedfs::environment(&url)?);
        }
        Ok(urls)
    }

    fn common(&self, metrics_port: u16) -> Vec<(&'static str, String)> {
        let format = if self.is_readable { "pretty" } else { "json" };
        vec![
            ("CHAT_NAMESPACE", self.namespace.to_owned()),
            ("CHAT_LOG_BYTES_MAX", LOG_BYTES_MAX.to_string()),
            ("CHAT_LOG_FORMAT", format.to_owned()),
            ("CHAT_MASK_KEY_FILE", self.keys.mask.display().to_string()),
            ("CHAT_METRICS_LISTEN", format!("127.0.0.1:{metrics_port}")),
        ]
    }
}
