//! Pods: restricted, probed as the program serves, with time to stop, one image; Services and budgets select them.

use serde_json::{Value, json};

use super::{Checks, names_of};
use crate::objects::{Workload, list, number, text, texts, title};

/// Milliseconds that a gateway works on after SIGTERM in Kubernetes, unless it is set.
const PAUSE_MS: u64 = 5_000;

impl Checks<'_> {
    pub(super) fn pods(&self, faults: &mut Vec<String>) {
        let mut images: Vec<_> =
            self.objects.workloads().flat_map(Workload::containers).map(|c| text(c, "/image")).collect();
        images.sort_unstable();
        images.dedup();
        let is_pinned = |image: &str| image.split_once("@sha256:").is_some_and(|(_, digest)| digest.len() == 64);
        if images.len() != 1 || self.is_overlay && !is_pinned(images[0]) {
            faults.push(format!("the image is not one that is pinned by its digest: {images:?}"));
        }
        for workload in self.objects.workloads() {
            let mut fault = |what: &str| faults.push(format!("{}: {what}", workload.name()));
            self.restricted(workload, &mut fault);
            if !workload.is_job() {
                self.probes(workload, &mut fault);
                first_check(workload, &mut fault);
                self.stop(workload, &mut fault);
            }
        }
        self.selectors(faults);
        self.roll_out(faults);
    }

    fn restricted(&self, workload: Workload<'_>, fault: &mut impl FnMut(&str)) {
        let pod = workload.pod();
        let wanted = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if pod["securityContext"] != wanted {
            fault("the pod is not restricted");
        }
        if pod["automountServiceAccountToken"] != false || pod["enableServiceLinks"] != false {
            fault("the pod gets a token or variables of Services");
        }
        let account = self.objects.find("ServiceAccount", text(pod, "/serviceAccountName"));
        if account.is_none_or(|account| account["automountServiceAccountToken"] != false) {
            fault("it has no ServiceAccount without a token");
        }
        let wanted = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        });
        for container in workload.containers() {
            if container["securityContext"] != wanted {
                fault("a container is not restricted");
            }
            let limits = &container["resources"]["limits"];
            if limits["memory"].is_null() || !limits["cpu"].is_null() {
                fault("a container has no limit of memory, or one of processor time");
            }
        }
    }

    fn probes(&self, workload: Workload<'_>, fault: &mut impl FnMut(&str)) {
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = workload.main().pointer(&format!("/{probe}/httpGet")).unwrap_or(&Value::Null);
            if *asked != json!({"path": path, "port": "metrics"}) || !self.facts.probes.contains(path) {
                fault(&format!(
                    "{probe} does not ask {path} on the port for metrics, or the program does not serve it"
                ));
            }
        }
    }

    fn stop(&self, workload: Workload<'_>, fault: &mut impl FnMut(&str)) {
        let (_, row) = names_of(workload.name());
        let Some(drain) = self.facts.stops.get(row) else {
            return fault("docs/operations.md does not say how long a stop takes");
        };
        let settings = self.objects.settings(workload.main());
        let milliseconds = |variable: &str| settings.get(variable).and_then(|value| value.parse::<u64>().ok());
        let pause = if row == "a gateway" { milliseconds("CHAT_SHUTDOWN_PAUSE_MS").unwrap_or(PAUSE_MS) } else { 0 };
        let drain = milliseconds("CHAT_DRAIN_MAX_MS").map_or(*drain, |drain_max| (drain_max / 1000 + 3).max(*drain));
        let takes = number(workload.main(), "/lifecycle/preStop/sleep/seconds") + pause.div_ceil(1000) + drain;
        if number(workload.pod(), "/terminationGracePeriodSeconds") < takes {
            fault(&format!("a stop takes up to {takes} s, and terminationGracePeriodSeconds is less"));
        }
    }

    /// Services, budgets, monitors and routes lead to something.
    fn selectors(&self, faults: &mut Vec<String>) {
        for service in self.objects.of_kind("Service") {
            let selector = json!({"matchLabels": service["spec"]["selector"]});
            let ports = list(service, "/spec/ports");
            let leads = |workload: Workload<'_>| {
                let is_there = |port: &Value| workload.port(text(port, "/targetPort")) == Some(number(port, "/port"));
                workload.is_selected(&selector) && ports.iter().all(is_there)
            };
            if ports.is_empty() || !self.objects.workloads().any(leads) {
                faults.push(format!("{}: selects no pods with its ports", title(service)));
            }
        }
        for (kind, pointer) in [("PodDisruptionBudget", "/spec/selector"), ("PodMonitor", "/spec/selector")] {
            for object in self.objects.of_kind(kind) {
                let selector = object.pointer(pointer).unwrap_or(&Value::Null);
                if !self.objects.workloads().any(|workload| workload.is_selected(selector)) {
                    faults.push(format!("{}: selects no pods", title(object)));
                }
            }
        }
        for deployment in self.objects.of_kind("Deployment").map(Workload) {
            if !deployment.is_selected(&deployment.0["spec"]["selector"]) {
                faults.push(format!("{}: does not select its own pods", title(deployment.0)));
            }
            let budgets = self.objects.of_kind("PodDisruptionBudget");
            let count = budgets.filter(|budget| deployment.is_selected(&budget["spec"]["selector"])).count();
            let is_single = text(deployment.0, "/spec/strategy/type") == "Recreate";
            if count != usize::from(!is_single) {
                faults.push(format!("{}: has {count} PodDisruptionBudgets", title(deployment.0)));
            }
        }
    }

    /// Clients move once in a roll-out of gateways, and retention runs once.
    fn roll_out(&self, faults: &mut Vec<String>) {
        let strategy = |name| self.objects.find("Deployment", name).map(|deployment| &deployment["spec"]["strategy"]);
        let wanted = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}});
        if strategy("chat-gateway") != Some(&wanted) {
            faults.push("chat-gateway: new pods are not all ready before old ones end".to_owned());
        }
        if strategy("chat-retention") != Some(&json!({"type": "Recreate"})) {
            faults.push("chat-retention: two may run at once".to_owned());
        }
    }
}

/// The init container tries the settings that the service gets.
fn first_check(workload: Workload<'_>, fault: &mut impl FnMut(&str)) {
    let [check] = list(workload.pod(), "/initContainers") else { return fault("it has no init container") };
    let mut command = texts(workload.main(), "/command");
    command.push("--check-config");
    let is_same = |field: &str| check[field] == workload.main()[field];
    if texts(check, "/command") != command || !is_same("envFrom") || !is_same("env") || !is_same("volumeMounts") {
        fault("the init container does not check the settings of the service");
    }
}
