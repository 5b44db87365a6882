//! Strangers take the files of gateways: each connection is one.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use tokio::{net::TcpStream, time::Instant};

use crate::chaos::{ground::FEW_FILES, trial::Trial};

/// How long an answer to an operator may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two rounds of connections: gateways close those that send nothing for 10 s.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// More connections than a gateway may open files, again and again.
pub async fn used_up(trial: &mut Trial<'_>) -> Result<()> {
    let ground = trial.ground;
    let gateways = ground.fleet.gateways();
    let refused = async || ground.of_gateways("chat_gateway_edge_refused_total", "reason=\"connections\"").await;
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(ANSWER_WAIT_MAX).build()?;
    let before = refused().await?;
    trial.fault(&format!("strangers open connections to gateways that may open {FEW_FILES} files"));
    let (began, length) = (Instant::now(), trial.scale.seconds(20, 5));
    let (mut strangers, mut answers) = (Vec::new(), 0);
    while began.elapsed() < length {
        let addresses = gateways.iter().flat_map(|gateway| (0..FEW_FILES).map(|_| gateway.address()));
        // Those that are closed make room for these.
        strangers = join_all(addresses.map(TcpStream::connect)).await;
        for gateway in gateways {
            for path in ["livez", "readyz"] {
                let url = format!("{}/{path}", gateway.metrics_url());
                let status = http.get(&url).send().await.map(|answer| answer.status().as_u16());
                ensure!(matches!(status, Ok(200)), "{} of {}: {status:?}", path, gateway.name());
                answers += 1;
            }
        }
        trial.last(ROUND_PAUSE).await;
    }
    let opened = strangers.iter().filter(|stranger| stranger.is_ok()).count();
    drop(strangers);
    let refused = refused().await? - before;
    trial.bite(
        refused > 0,
        format!("{refused} connections were refused, {opened} opened at the end; operators got {answers} answers"),
    );
    Ok(())
}
