//! Alerts and scaling: expressions name metrics that the programs have, and the rules are those of the table in
//! docs/operations.md. Objects of operators have no other schema here, so their fields are compared too.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Checks;
use crate::{
    facts::names,
    objects::{list, text, title},
};

/// Metrics of other programs, which are named where they are used.
const OTHERS: [&str; 6] = [
    "kube_pod_status_ready",
    "kube_deployment_status_observed_generation",
    "redis_memory_used_bytes",
    "redis_memory_max_bytes",
    "kubelet_volume_stats_used_bytes",
    "kubelet_volume_stats_capacity_bytes",
];
/// Fields of the kinds of operators: each that is here, below `spec`, with `*` for the items of a list.
const FIELDS: [(&str, &str, &[&str]); 4] = [
    (
        "PodMonitor",
        "monitoring.coreos.com/v1",
        &[
            "selector.matchLabels.app.kubernetes.io/part-of",
            "podMetricsEndpoints.*.port",
            "podMetricsEndpoints.*.path",
            "podMetricsEndpoints.*.interval",
        ],
    ),
    (
        "PrometheusRule",
        "monitoring.coreos.com/v1",
        &[
            "groups.*.name",
            "groups.*.rules.*.alert",
            "groups.*.rules.*.expr",
            "groups.*.rules.*.for",
            "groups.*.rules.*.labels.severity",
            "groups.*.rules.*.annotations.summary",
            "groups.*.rules.*.annotations.runbook",
        ],
    ),
    (
        "ScaledObject",
        "keda.sh/v1alpha1",
        &[
            "scaleTargetRef.name",
            "minReplicaCount",
            "maxReplicaCount",
            "fallback.failureThreshold",
            "fallback.replicas",
            "fallback.behavior",
            "advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds",
            "advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies.*.type",
            "advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies.*.value",
            "advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies.*.periodSeconds",
            "triggers.*.type",
            "triggers.*.metricType",
            "triggers.*.metadata.value",
            "triggers.*.metadata.containerName",
            "triggers.*.metadata.serverAddress",
            "triggers.*.metadata.query",
            "triggers.*.metadata.threshold",
            "triggers.*.metadata.natsServerMonitoringEndpoint",
            "triggers.*.metadata.account",
            "triggers.*.metadata.stream",
            "triggers.*.metadata.consumer",
            "triggers.*.metadata.lagThreshold",
        ],
    ),
    (
        "HTTPRoute",
        "gateway.networking.k8s.io/v1",
        &[
            "parentRefs.*.name",
            "parentRefs.*.namespace",
            "parentRefs.*.sectionName",
            "hostnames.*",
            "rules.*.matches.*.path.type",
            "rules.*.matches.*.path.value",
            "rules.*.timeouts.request",
            "rules.*.filters.*.type",
            "rules.*.filters.*.responseHeaderModifier.set.*.name",
            "rules.*.filters.*.responseHeaderModifier.set.*.value",
            "rules.*.backendRefs.*.name",
            "rules.*.backendRefs.*.port",
        ],
    ),
];

impl Checks<'_> {
    pub(super) fn alerts(&self, faults: &mut Vec<String>) {
        for (kind, version, fields) in FIELDS {
            for object in self.objects.of_kind(kind) {
                if text(object, "/apiVersion") != version {
                    faults.push(format!("{}: its version is not {version}", title(object)));
                }
                unknown_fields(&object["spec"], "", fields, &mut |field| {
                    faults.push(format!("{}: {field} is not a field that is known here", title(object)));
                });
            }
        }
        let rules = self.objects.of_kind("PrometheusRule").flat_map(|object| list(object, "/spec/groups"));
        let rules: Vec<_> = rules.flat_map(|group| list(group, "/rules")).collect();
        let mut watched = BTreeSet::new();
        for rule in &rules {
            let alert = text(rule, "/alert");
            let metrics = self.metrics_in(text(rule, "/expr"), alert, faults);
            if metrics.is_empty() || alert.is_empty() || text(rule, "/annotations/summary").is_empty() {
                faults.push(format!("{alert}: it has no metric or no summary"));
            }
            watched.extend(metrics);
        }
        if !rules.is_empty() {
            self.compare_with_table(&watched, faults);
        }
        self.scaling(faults);
    }

    /// The metrics of an expression. All others of ours are faults.
    fn metrics_in(&self, expression: &str, of: &str, faults: &mut Vec<String>) -> BTreeSet<String> {
        let is_metric =
            |name: &&str| ["chat_", "kube_", "kubelet_", "redis_"].iter().any(|prefix| name.starts_with(prefix));
        let mut found = BTreeSet::new();
        for name in names(expression).into_iter().filter(is_metric) {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            if !self.facts.metrics.contains(name) && !OTHERS.contains(&name) {
                faults.push(format!("{of}: no program has the metric {name}"));
            }
            found.insert(name.to_owned());
        }
        found
    }

    /// Each metric of the table has a rule, and each rule stands in the table.
    fn compare_with_table(&self, watched: &BTreeSet<String>, faults: &mut Vec<String>) {
        let is_named = |metric: &str, name: &str| metric == name || metric.ends_with(&format!("_{name}"));
        for name in &self.facts.alerts {
            if !watched.iter().any(|metric| is_named(metric, name)) {
                faults.push(format!("no rule watches {name}, which is in the table of alerts"));
            }
        }
        for metric in watched.iter().filter(|metric| metric.starts_with("chat_")) {
            if !self.facts.alerts.iter().any(|name| is_named(metric, name)) {
                faults.push(format!("a rule watches {metric}, which is not in the table of alerts"));
            }
        }
    }

    fn scaling(&self, faults: &mut Vec<String>) {
        for object in self.objects.of_kind("ScaledObject") {
            let name = text(object, "/spec/scaleTargetRef/name");
            match self.objects.find("Deployment", name) {
                Some(deployment) if deployment["spec"]["replicas"].is_null() => {}
                Some(_) => faults.push(format!("{}: the Deployment sets the number of pods too", title(object))),
                None => faults.push(format!("{}: there is no Deployment {name}", title(object))),
            }
            let settings = self.objects.of_kind("ConfigMap").filter_map(|map| map.pointer("/data/CHAT_NAMESPACE"));
            let streams: Vec<_> =
                settings.filter_map(Value::as_str).map(|namespace| format!("{namespace}-log")).collect();
            for trigger in list(object, "/spec/triggers") {
                let query = text(trigger, "/metadata/query");
                self.metrics_in(query, &title(object), faults);
                let is_nats = text(trigger, "/type") == "nats-jetstream";
                if is_nats && !streams.iter().any(|stream| stream == text(trigger, "/metadata/stream")) {
                    faults.push(format!("{}: its stream is not that of CHAT_NAMESPACE", title(object)));
                }
            }
        }
    }
}

/// Fields of a value that are not among the known ones.
fn unknown_fields(value: &Value, path: &str, known: &[&str], fault: &mut impl FnMut(&str)) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                unknown_fields(value, &below(name), known, fault);
            }
        }
        Value::Array(items) => {
            for item in items {
                unknown_fields(item, &below("*"), known, fault);
            }
        }
        _ if known.contains(&path) => {}
        _ => fault(path),
    }
}
