//! The port for operators: /metrics, /livez without any I/O, /readyz.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::ErrorCounter;

use super::{Health, lines};
use crate::lifecycle::Tasks;

/// Buckets of durations, in seconds; metrics of durations end in `_seconds`.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets of counts; metrics of counts end in `_events`.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// How often histograms are tidied.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn start(
    listen: SocketAddr,
    health: Health,
    lines_dropped: ErrorCounter,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .and_then(|metrics| metrics.set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &COUNTS))
        .context("setting the buckets")?
        .install_recorder()
        .context("starting the metrics")?;
    metrics::describe_counter!(lines::LINES_DROPPED_TOTAL, "Log lines dropped because standard output took none");
    let upkeep = metrics.clone();
    let stopping = tasks.stopping().clone();
    tasks.lasting("metrics_upkeep", async move {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        // Cancel safe: a tick that is lost is made up by the next.
        while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
            upkeep.run_upkeep();
            lines::show(&lines_dropped);
        }
    });
    let leaving = tasks.leaving().clone();
    let router = Router::new()
        .route("/metrics", get(async move || metrics.render()))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async move || readiness(&health, &leaving)));
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} for /metrics"))?;
    let stopping = tasks.stopping().clone();
    tasks.lasting("metrics_server", async move {
        // It ends with the process, so that the last state can still be seen while draining.
        if let Some(Err(error)) = stopping.run_until_cancelled(axum::serve(listener, router).into_future()).await {
            tracing::error!(%error, "the metrics server ended");
        }
    });
    Ok(())
}

fn readiness(health: &Health, leaving: &CancellationToken) -> (StatusCode, String) {
    let missing = health.missing();
    if leaving.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned())
    } else if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", ")))
    }
}
