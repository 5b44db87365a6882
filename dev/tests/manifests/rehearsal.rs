//! The settings and secrets of a pod, given to the real program beside real servers: `--check-config` finds nothing wrong.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use chat_dev::{
    fleet::{Fleet, FleetOptions, Service},
    manifests,
    test_servers::TestServers,
};

use crate::{
    checks::SECRETS,
    objects::{Objects, Workload, texts},
};

/// Settings that say where the platform is, which is elsewhere in tests.
const PLATFORM: [&str; 8] = [
    "CHAT_NAMESPACE",
    "CHAT_JWKS_URL",
    "CHAT_SERVICE_JWKS_URL",
    "CHAT_KAHA_URL",
    "CHAT_COLD_STORE_URL",
    "CHAT_COLD_STORE_REGION",
    "CHAT_COLD_STORE_ACCESS_KEY_ID",
    "CHAT_COLD_STORE_ENDPOINT",
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_find_nothing_wrong_with_the_settings_of_manifests() -> Result<()> {
    let servers = TestServers::from_env()?;
    servers.store().await?;
    let fleet = Fleet::start(FleetOptions { gateways: 1, has_cold: true, ..servers.shared_fleet().await? }).await?;
    for build in manifests::build()?.into_iter().filter(|build| build.is_overlay) {
        let objects = Objects::parse(&build.text)?;
        for workload in objects.workloads().filter(|workload| !workload.is_job()) {
            let name = format!("{} of {}", workload.name(), build.name);
            let service = fleet.services().find(|service| runs(service, workload)).with_context(|| name.clone())?;
            let secrets = tempfile::tempdir_in(&servers.scratch)?;
            let settings = settings(&objects, workload, service, secrets.path())?;
            let program = servers.programs.of(service.role());
            let mut check = Command::new(program);
            check.args(service.role().arguments()).arg("--check-config").env_clear().envs(settings);
            let output = check.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").output()?;
            let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "{name}:\n{said}{error}");
        }
    }
    fleet.stop().await
}

fn runs(service: &Service, workload: Workload<'_>) -> bool {
    let role = service.role();
    let command: Vec<_> = std::iter::once(role.package()).chain(role.arguments().iter().copied()).collect();
    texts(workload.main(), "/command") == command
}

/// The settings of a pod: its secrets are files in `directory`, and the platform is that of the fleet.
fn settings(
    objects: &Objects,
    workload: Workload<'_>,
    service: &Service,
    directory: &Path,
) -> Result<BTreeMap<String, String>> {
    let fleet: HashMap<_, _> = service.process().env().iter().cloned().collect();
    let mut settings = objects.settings(workload.main());
    for (variable, value) in &mut settings {
        if let Some(entry) = value.strip_prefix(SECRETS) {
            let text = match (fleet.get(variable), fleet.get(variable.trim_end_matches("_FILE"))) {
                (Some(file), _) => fs::read_to_string(file)?,
                (None, Some(text)) => text.clone(),
                (None, None) => anyhow::bail!("the fleet has no {variable}"),
            };
            let file = directory.join(entry);
            fs::write(&file, text)?;
            *value = file.display().to_string();
        } else if PLATFORM.contains(&variable.as_str())
            && let Some(elsewhere) = fleet.get(variable)
        {
            value.clone_from(elsewhere);
        }
    }
    // The store of the fleet is not that of Amazon, which is found without an address.
    let endpoint = "CHAT_COLD_STORE_ENDPOINT";
    if settings.contains_key("CHAT_COLD_STORE_URL")
        && let Some(address) = fleet.get(endpoint)
    {
        settings.insert(endpoint.to_owned(), address.clone());
    }
    Ok(settings)
}
