//! One service process of a fleet, with its addresses.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};

use super::{READY_DEADLINE, STOP_DEADLINE};
use crate::{
    process::{Launch, Process, last_lines},
    wait,
};

/// Lines of its log shown about a service that died.
pub const LAST_LINES: usize = 20;

/// How long one look at `/readyz` may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// What a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Talks to clients.
    Gateway,
    /// Copies the log into Postgres.
    Persister,
    /// Delivers.
    Notifier,
    /// Makes partitions and content keys ahead of time.
    Retention,
    /// Moves bodies of old messages to the object store.
    Cold,
}

impl Role {
    /// Those of every fleet.
    pub const ALL: [Self; 4] = [Self::Gateway, Self::Persister, Self::Notifier, Self::Retention];

    /// The name of its package and of its program.
    pub fn package(self) -> &'static str {
        match self {
            Self::Gateway => "chat-gateway",
            Self::Persister => "chat-persister",
            Self::Notifier => "chat-notifier",
            Self::Retention | Self::Cold => "chat-retention",
        }
    }

    /// What its program is started with.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Cold => &["cold"],
            Self::Gateway | Self::Persister | Self::Notifier | Self::Retention => &[],
        }
    }
}

/// Where a gateway listens on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct GatewayPorts {
    /// For clients.
    pub clients: u16,
    /// For other services.
    pub internal: u16,
}

/// A process of the fleet. It keeps its ports through all its lives.
#[derive(Debug)]
pub struct Service {
    role: Role,
    process: Process,
    ports: Option<GatewayPorts>,
    metrics_port: u16,
}

impl Service {
    pub(super) fn new(role: Role, launch: Launch, ports: Option<GatewayPorts>, metrics_port: u16) -> Self {
        Self { role, process: Process::new(launch), ports, metrics_port }
    }

    /// `gateway-1`, `persister` …
    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// `http://…` where a gateway serves clients.
    ///
    /// # Panics
    /// If it is not a gateway.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `ws://…/v1/ws` of a gateway.
    ///
    /// # Panics
    /// If it is not a gateway.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/v1/ws", self.address())
    }

    /// `host:port` where a gateway listens.
    ///
    /// # Panics
    /// If it is not a gateway.
    pub fn address(&self) -> String {
        let ports = self.ports.expect("only gateways are asked where clients connect");
        format!("127.0.0.1:{}", ports.clients)
    }

    /// `http://…` where a gateway serves other services, under `/internal/v1`.
    ///
    /// # Panics
    /// If it is not a gateway.
    pub fn internal_url(&self) -> String {
        let ports = self.ports.expect("only gateways are asked where services call them");
        format!("http://127.0.0.1:{}", ports.internal)
    }

    /// Base of `/metrics`, `/livez` and `/readyz`.
    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics_port)
    }

    /// What it exports now, in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.metrics_url());
        Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
    }

    /// The sum of its values of a counter whose labels contain `label`; zero if it has none yet.
    pub async fn counter(&self, metric: &str, label: &str) -> Result<u64> {
        Ok(sum_of(&self.metrics().await?, metric, label))
    }

    /// The value of a metric without labels.
    ///
    /// # Errors
    /// If it has no such metric.
    pub async fn value(&self, metric: &str) -> Result<u64> {
        let metrics = self.metrics().await?;
        let values = metrics.lines().filter_map(|line| line.split_once(' '));
        let value = values.into_iter().find_map(|(found, value)| (found == metric).then_some(value));
        Ok(value.with_context(|| format!("{} doesn't count {metric}", self.name()))?.parse()?)
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Starts it, (again) on the same ports; does not wait for readiness.
    pub fn start(&self) -> Result<()> {
        self.process.start()
    }

    /// Starts it and waits until it is ready.
    pub async fn start_ready(&self) -> Result<()> {
        self.start()?;
        self.wait_ready(READY_DEADLINE).await
    }

    /// SIGTERM, then waits for its end.
    ///
    /// # Errors
    /// If it has to be killed after 30 s.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(STOP_DEADLINE).await
    }

    /// SIGKILL, then waits until it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGSTOP: its connections stay open and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Whether it says it is ready now.
    pub async fn is_ready(&self) -> bool {
        let url = format!("{}/readyz", self.metrics_url());
        let probe = tokio::time::timeout(PROBE_DEADLINE, reqwest::get(url)).await;
        probe.is_ok_and(|answer| answer.is_ok_and(|response| response.status().is_success()))
    }

    /// Waits until it says it is ready.
    ///
    /// # Errors
    /// If it ends or the deadline passes, with the last lines of its log.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let name = self.name();
        wait::until(&format!("readiness of {name}"), deadline, || async {
            if !self.process.is_running() {
                bail!("{name} ended");
            }
            Ok(self.is_ready().await.then_some(()))
        })
        .await
        .with_context(|| format!("{name} says:\n{}", last_lines(self.log(), LAST_LINES)))
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The sum of the values of a counter, with labels that contain `label`, in the Prometheus text format.
fn sum_of(metrics: &str, metric: &str, label: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(metric));
    let lines = lines.filter(|line| line.starts_with([' ', '{']) && line.contains(label));
    lines.filter_map(|line| line.split_whitespace().next_back()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_by_their_label() {
        let metrics = "# TYPE chat_retention_lock_attempts_total counter\n\
                       chat_retention_lock_attempts_total{outcome=\"taken\"} 4\n\
                       chat_retention_lock_attempts_total{outcome=\"refused\"} 2\n";
        let attempts = |label| sum_of(metrics, "chat_retention_lock_attempts_total", label);
        assert_eq!((attempts("outcome=\"taken\""), attempts("outcome=\"refused\"")), (4, 2));
        assert_eq!((attempts(""), sum_of(metrics, "chat_retention_lock_attempts", "")), (6, 0));
    }
}
