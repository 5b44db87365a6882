//! Objects of Kubernetes, as far as the checks look at them.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::yaml;

/// The value at a JSON pointer as text; empty if it is absent.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The value at a JSON pointer as a number; 0 if it is absent.
pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The value at a JSON pointer as a list; empty if it is absent.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

/// `Deployment chat-gateway`.
pub fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// The objects that kustomize prints.
#[derive(Debug, Clone)]
pub struct Objects(pub Vec<Value>);

impl Objects {
    pub fn parse(text: &str) -> Result<Self> {
        yaml::documents(text).map(Self)
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| text(object, "/kind") == kind)
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name)
    }

    /// Deployments and Jobs.
    pub fn workloads(&self) -> impl Iterator<Item = Workload<'_>> {
        self.0.iter().filter(|object| matches!(text(object, "/kind"), "Deployment" | "Job")).map(Workload)
    }

    /// The environment variables of a container. A reference to a `ConfigMap` that is absent is named `missing`.
    pub fn settings(&self, container: &Value) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        for source in list(container, "/envFrom") {
            let name = text(source, "/configMapRef/name");
            match self.find("ConfigMap", name).and_then(|map| map.pointer("/data")).and_then(Value::as_object) {
                Some(data) => settings.extend(
                    data.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())),
                ),
                None => _ = settings.insert("missing".to_owned(), name.to_owned()),
            }
        }
        let own = list(container, "/env").iter();
        settings.extend(own.map(|entry| (text(entry, "/name").to_owned(), text(entry, "/value").to_owned())));
        settings
    }
}

/// A Deployment or a Job.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a>(pub &'a Value);

impl<'a> Workload<'a> {
    pub fn name(self) -> &'a str {
        text(self.0, "/metadata/name")
    }

    pub fn is_job(self) -> bool {
        text(self.0, "/kind") == "Job"
    }

    pub fn pod(self) -> &'a Value {
        self.0.pointer("/spec/template/spec").unwrap_or(&Value::Null)
    }

    pub fn labels(self) -> &'a Value {
        self.0.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null)
    }

    /// The container that serves.
    pub fn main(self) -> &'a Value {
        list(self.pod(), "/containers").first().unwrap_or(&Value::Null)
    }

    /// All containers, those before the start first.
    pub fn containers(self) -> impl Iterator<Item = &'a Value> {
        list(self.pod(), "/initContainers").iter().chain(list(self.pod(), "/containers"))
    }

    /// The number of a named port of the main container.
    pub fn port(self, name: &str) -> Option<u64> {
        let ports = list(self.main(), "/ports");
        ports.iter().find(|port| text(port, "/name") == name).map(|port| number(port, "/containerPort"))
    }

    /// The Secret that its pods mount.
    pub fn secrets(self) -> impl Iterator<Item = &'a str> {
        let volumes = list(self.pod(), "/volumes").iter();
        volumes.map(|volume| text(volume, "/secret/secretName")).filter(|name| !name.is_empty())
    }

    /// Whether a selector (`matchLabels` and `matchExpressions` with `In`) selects its pods. An empty one selects all.
    pub fn is_selected(self, selector: &Value) -> bool {
        let labels = selector.pointer("/matchLabels").and_then(Value::as_object);
        let has_labels = labels.into_iter().flatten().all(|(key, value)| self.labels().get(key) == Some(value));
        has_labels
            && list(selector, "/matchExpressions").iter().all(|expression| {
                let label = self.labels().get(text(expression, "/key")).and_then(Value::as_str).unwrap_or_default();
                text(expression, "/operator") == "In" && texts(expression, "/values").contains(&label)
            })
    }
}
