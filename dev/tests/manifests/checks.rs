//! Manifests = programs: what a build of manifests must keep to. Each check adds a line for each fault.

mod alerts;
mod network;
mod pods;
mod settings;

use crate::{facts::Facts, objects::Objects};

/// Where pods find secrets.
pub const SECRETS: &str = "/run/secrets/chat/";

/// A build, and what it is compared with.
pub struct Checks<'a> {
    pub objects: &'a Objects,
    /// The example Secrets for this build.
    pub secrets: &'a Objects,
    pub facts: &'a Facts,
    /// Whether the settings of the platform are there too.
    pub is_overlay: bool,
}

impl Checks<'_> {
    /// All faults.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        self.settings(&mut faults);
        self.secrets(&mut faults);
        self.pods(&mut faults);
        self.network(&mut faults);
        self.alerts(&mut faults);
        faults
    }
}

/// How documents name what a workload runs: in the table of secrets, and in that of stops.
fn names_of(workload: &str) -> (&str, &str) {
    match workload {
        "chat-gateway" => ("gateways", "a gateway"),
        "chat-persister" => ("persisters", "a persister"),
        "chat-notifier" => ("notifiers", "a notifier"),
        "chat-retention" => ("retention", "retention"),
        "chat-retention-cold" => ("the cold worker", "retention"),
        _ => ("", ""),
    }
}
