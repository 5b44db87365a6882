//! Each service reaches the servers on which permissions/ gives it a user, and no others; only gateways are reached by clients.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Checks;
use crate::objects::{list, number, text, texts, title};

/// Ports of servers. `*` is every workload.
const SERVERS: [(&str, &[u64]); 7] = [
    ("postgres", &[5432]),
    ("nats", &[4222]),
    ("redis", &[6379]),
    ("kaha", &[443]),
    ("providers", &[443]),
    ("store", &[443]),
    ("dns", &[53, 53]),
];
/// Networks that are not public, which policies for public servers leave out.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"];

impl Checks<'_> {
    pub(super) fn network(&self, faults: &mut Vec<String>) {
        let policies: Vec<_> = self.objects.of_kind("NetworkPolicy").collect();
        for workload in self.objects.workloads() {
            let selects = |policy: &&&Value| workload.is_selected(&policy["spec"]["podSelector"]);
            let chosen: BTreeSet<_> =
                policies.iter().filter(selects).map(|policy| text(policy, "/metadata/name")).collect();
            let wanted = self.policies_of(workload.name());
            for name in wanted.iter().filter(|name| !chosen.contains(name.as_str())) {
                faults.push(format!("{}: the policy {name} does not select it", workload.name()));
            }
            for name in chosen.iter().filter(|name| !wanted.contains(**name)) {
                faults.push(format!("{}: the policy {name} selects it", workload.name()));
            }
        }
        for policy in policies {
            if let Some(fault) = fault_of(policy) {
                faults.push(format!("{}: {fault}", title(policy)));
            }
        }
        self.entrances(faults);
    }

    /// The policies that must select a workload.
    fn policies_of(&self, workload: &str) -> BTreeSet<String> {
        let is_there = |server: &str| match server {
            "kaha" => workload == "chat-gateway",
            "providers" => workload == "chat-notifier",
            "store" => self.has_cold() && matches!(workload, "chat-gateway" | "chat-retention-cold"),
            "dns" => true,
            server => self.facts.users[server].contains(workload),
        };
        let servers = SERVERS.into_iter().map(|(server, _)| server).filter(|server| is_there(server));
        let mut policies: BTreeSet<_> = servers.map(|server| format!("chat-to-{server}")).collect();
        policies.extend(["chat-default-deny", "chat-from-monitoring"].map(str::to_owned));
        if workload == "chat-gateway" {
            policies.extend(["chat-from-clients", "chat-from-platform"].map(str::to_owned));
        }
        policies
    }

    fn has_cold(&self) -> bool {
        self.objects.find("Deployment", "chat-retention-cold").is_some()
    }

    /// Ingresses and HTTP routes lead to the port for clients alone.
    fn entrances(&self, faults: &mut Vec<String>) {
        let mut backends = Vec::new();
        for ingress in self.objects.of_kind("Ingress") {
            for path in list(ingress, "/spec/rules").iter().flat_map(|rule| list(rule, "/http/paths")) {
                backends.push((
                    ingress,
                    text(path, "/path"),
                    text(path, "/backend/service/name"),
                    path.pointer("/backend/service/port/name") == Some(&json!("clients")),
                ));
            }
        }
        for route in self.objects.of_kind("HTTPRoute") {
            for rule in list(route, "/spec/rules") {
                let backends_of_rule = list(rule, "/backendRefs").iter();
                let pairs =
                    backends_of_rule.flat_map(|backend| list(rule, "/matches").iter().map(move |path| (backend, path)));
                for (backend, path) in pairs {
                    let service = self.objects.find("Service", "chat-gateway");
                    let port = service.map(|service| number(service, "/spec/ports/0/port"));
                    backends.push((
                        route,
                        text(path, "/path/value"),
                        text(backend, "/name"),
                        port == Some(number(backend, "/port")),
                    ));
                }
                let is_websocket = list(rule, "/matches").iter().any(|path| text(path, "/path/value") == "/v1/ws");
                if is_websocket && text(rule, "/timeouts/request") != "0s" {
                    faults.push(format!("{}: it ends WebSockets", title(route)));
                }
            }
        }
        for (object, path, service, is_for_clients) in backends {
            if service != "chat-gateway" || !is_for_clients || !(path.starts_with("/v1") || path == "/openapi.json") {
                faults.push(format!("{}: {path} does not lead to the port for clients", title(object)));
            }
        }
    }
}

/// The fault of a policy by itself.
fn fault_of(policy: &Value) -> Option<&'static str> {
    let name = text(policy, "/metadata/name");
    let spec = &policy["spec"];
    if name == "chat-default-deny" {
        let is_deny = spec["policyTypes"] == json!(["Ingress", "Egress"])
            && spec["egress"].is_null()
            && spec["ingress"].is_null();
        return (!is_deny).then_some("it does not refuse everything");
    }
    if let Some(server) = name.strip_prefix("chat-to-") {
        let ports = SERVERS.into_iter().find(|(known, _)| *known == server).map_or(&[][..], |(_, ports)| ports);
        let [rule] = list(spec, "/egress") else { return Some("it has not one rule") };
        let allowed: Vec<_> = list(rule, "/ports").iter().map(|port| number(port, "/port")).collect();
        let peers = list(rule, "/to");
        if allowed != ports || peers.is_empty() || spec["policyTypes"] != json!(["Egress"]) {
            return Some("it does not allow the ports of its server alone");
        }
        let is_public = matches!(server, "providers" | "store");
        return peers.iter().find_map(|peer| peer_fault(peer, server, is_public));
    }
    let port = match name {
        "chat-from-clients" => "clients",
        "chat-from-platform" => "internal",
        "chat-from-monitoring" => "metrics",
        _ => return Some("what it is for is not known"),
    };
    let [rule] = list(spec, "/ingress") else { return Some("it has not one rule") };
    let is_narrow = texts_of_ports(rule) == [port] && list(rule, "/from").iter().all(has_label);
    (!is_narrow || list(rule, "/from").is_empty() || spec["policyTypes"] != json!(["Ingress"]))
        .then_some("it does not allow its port from labelled namespaces alone")
}

fn peer_fault(peer: &Value, server: &str, is_public: bool) -> Option<&'static str> {
    if is_public {
        let network = text(peer, "/ipBlock/cidr");
        let except = texts(peer, "/ipBlock/except");
        let is_right = match network {
            "0.0.0.0/0" => PRIVATE.iter().all(|private| except.contains(private)),
            "::/0" => ["fc00::/7", "fe80::/10"].iter().all(|private| except.contains(private)),
            _ => false,
        };
        return (!is_right).then_some("it allows private addresses");
    }
    let wanted = format!("chat-backend/serves-{server}");
    let labels = peer.pointer("/namespaceSelector/matchLabels").and_then(Value::as_object);
    let is_right = server == "dns" || labels.is_some_and(|labels| labels.contains_key(&wanted));
    (!is_right || labels.is_none()).then_some("it allows namespaces that do not serve it")
}

fn texts_of_ports(rule: &Value) -> Vec<&str> {
    list(rule, "/ports").iter().map(|port| text(port, "/port")).collect()
}

fn has_label(peer: &Value) -> bool {
    let labels = peer.pointer("/namespaceSelector/matchLabels").and_then(Value::as_object);
    labels.is_some_and(|labels| labels.keys().any(|label| label.starts_with("chat-backend/")))
}
