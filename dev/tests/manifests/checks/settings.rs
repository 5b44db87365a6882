//! Settings are those of the program, and complete; each service has its own secrets and no others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Checks, SECRETS, names_of};
use crate::{
    facts::Setting,
    objects::{Workload, list, text, texts, title},
};

impl Checks<'_> {
    pub(super) fn settings(&self, faults: &mut Vec<String>) {
        let mut used = BTreeSet::new();
        for workload in self.objects.workloads() {
            for container in workload.containers() {
                used.extend(list(container, "/envFrom").iter().map(|source| text(source, "/configMapRef/name")));
                self.settings_of(workload, container, faults);
            }
        }
        for map in self.objects.of_kind("ConfigMap") {
            if !used.contains(text(map, "/metadata/name")) {
                faults.push(format!("{}: no pod uses it", title(map)));
            }
        }
    }

    fn settings_of(&self, workload: Workload<'_>, container: &Value, faults: &mut Vec<String>) {
        let name = workload.name();
        let command: Vec<_> = texts(container, "/command")
            .into_iter()
            .filter(|word| *word != "--check-config")
            .map(str::to_owned)
            .collect();
        let Some(known) = self.facts.settings.get(&command) else {
            return faults.push(format!("{name}: {command:?} is no program"));
        };
        let settings = self.objects.settings(container);
        for variable in settings.keys().filter(|variable| !known.iter().any(|known| known.variable == **variable)) {
            faults.push(format!("{name}: {variable} is not in `{} --help`", command.join(" ")));
        }
        if self.is_overlay {
            let missing = known.iter().enumerate().filter(|(place, _)| is_missing(&known[*place..], &settings));
            faults.extend(missing.map(|(_, setting)| format!("{name}: {} is required, and not set", setting.variable)));
        }
        for (port, variable) in
            [("clients", "CHAT_LISTEN"), ("internal", "CHAT_INTERNAL_LISTEN"), ("metrics", "CHAT_METRICS_LISTEN")]
        {
            let default = || known.iter().find(|known| known.variable == variable).and_then(Setting::default);
            let address = settings.get(variable).map(String::as_str).or_else(default);
            let listens = address.and_then(|address| address.rsplit(':').next()?.parse().ok());
            if !workload.is_job() && workload.port(port) != listens {
                faults.push(format!("{name}: the port {port} is not that of {variable}"));
            }
        }
    }

    pub(super) fn secrets(&self, faults: &mut Vec<String>) {
        let mut users = BTreeMap::new();
        for workload in self.objects.workloads() {
            let name = workload.name();
            let files: BTreeSet<_> = workload.containers().flat_map(|container| self.secret_files(container)).collect();
            let mounted: Vec<_> = workload.secrets().collect();
            let [secret] = mounted[..] else {
                faults.push(format!("{name}: mounts {} Secrets, not one", mounted.len()));
                continue;
            };
            if let Some(other) = users.insert(secret, name) {
                faults.push(format!("{name}: shares the Secret {secret} with {other}"));
            }
            let Some(example) = self.secrets.find("Secret", secret) else {
                faults.push(format!("{name}: the Secret {secret} is not in secrets.example"));
                continue;
            };
            let keys: BTreeSet<_> =
                example["data"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
            for (variable, key) in &files {
                if !self.may_have(name, variable) {
                    faults.push(format!("{name}: {variable} is a secret of others, by docs/operations.md"));
                }
                if !keys.contains(key) {
                    faults.push(format!("{name}: {variable} names {key}, which the Secret {secret} lacks"));
                }
            }
            for key in keys.iter().filter(|key| !files.iter().any(|(_, file)| file == *key)) {
                faults.push(format!("{name}: the Secret {secret} holds {key}, which no setting names"));
            }
            for container in workload.containers() {
                for variable in self.objects.settings(container).keys().filter(|variable| self.is_secret(variable)) {
                    faults.push(format!("{name}: {variable} is a secret, and not in a file"));
                }
            }
        }
    }

    /// Settings that name a file among the secrets, with its name.
    fn secret_files(&self, container: &Value) -> Vec<(String, String)> {
        let settings = self.objects.settings(container);
        let files =
            settings.into_iter().filter_map(|(name, value)| Some((name, value.strip_prefix(SECRETS)?.to_owned())));
        files.collect()
    }

    fn is_secret(&self, variable: &str) -> bool {
        let mut listed = self.facts.secrets.iter().flat_map(|row| &row.variables);
        !variable.ends_with("_FILE") && listed.any(|listed| listed == variable)
    }

    fn may_have(&self, workload: &str, variable: &str) -> bool {
        let (service, _) = names_of(workload);
        self.facts.secrets.iter().any(|row| {
            let is_named = row.variables.iter().any(|listed| match listed.strip_suffix('…') {
                Some(prefix) => variable.starts_with(prefix),
                None => listed == variable,
            });
            is_named && row.services.iter().any(|listed| listed == service || listed == "all")
        })
    }
}

/// Whether the first of these settings is required, and neither it nor what replaces it is set.
fn is_missing(known: &[Setting], settings: &BTreeMap<String, String>) -> bool {
    let description = &known[0].description;
    let alternatives = if description.contains("Either this or one of the two files that follow is required") {
        3
    } else if description.contains("This or the file is required") {
        2
    } else if description.contains("must be set") {
        1
    } else {
        return false;
    };
    !known.iter().take(alternatives).any(|setting| settings.contains_key(&setting.variable))
}
