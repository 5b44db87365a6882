//! Mistakes, one at a time, in manifests that are right: each has to be found.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    checks::Checks,
    facts::Facts,
    objects::{Objects, text},
};

/// In each line an object and the place in it, the value that is put there (none: what is there is removed), and what has to be
/// reported.
const MISTAKES: &str = include_str!("mistakes.txt");
/// Together they have every kind.
const BUILDS: [&str; 2] = ["overlays/production + cold", "overlays/small"];

#[test]
fn every_mistake_in_manifests_is_found() -> Result<()> {
    let facts = Facts::gather()?;
    let mut right = Vec::new();
    for build in chat_dev::manifests::build()?.iter().filter(|build| BUILDS.contains(&build.name.as_str())) {
        right.push((Objects::parse(&build.text)?, Objects::parse(&build.secrets)?));
    }
    let mut missed = Vec::new();
    for mistake in MISTAKES.lines() {
        let [at, value, wanted] = mistake.split(" | ").collect::<Vec<_>>()[..] else {
            bail!("not a mistake: {mistake}")
        };
        let [kind, name, place] = at.split(' ').collect::<Vec<_>>()[..] else { bail!("not a place: {at}") };
        let is_meant = |object: &Value| text(object, "/kind") == kind && name_of(object) == name;
        let (objects, secrets) =
            right.iter().find(|(objects, _)| objects.0.iter().any(is_meant)).with_context(|| mistake.to_owned())?;
        let mut objects = objects.clone();
        let object = objects.0.iter_mut().find(|object| is_meant(object)).with_context(|| mistake.to_owned())?;
        put(object, place, value).with_context(|| mistake.to_owned())?;
        let checks = Checks { objects: &objects, secrets, facts: &facts, is_overlay: true };
        let faults = checks.faults();
        if !faults.iter().any(|fault| fault.contains(wanted)) {
            missed.push(format!("{mistake}\n    reported instead: {faults:?}"));
        }
    }
    ensure!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    Ok(())
}

/// The name of an object, without the hash that kustomize adds to that of a `ConfigMap`.
fn name_of(object: &Value) -> &str {
    let name = text(object, "/metadata/name");
    if text(object, "/kind") == "ConfigMap" { name.rsplit_once('-').map_or(name, |(name, _)| name) } else { name }
}

/// Puts a value at a place, or removes what is there.
fn put(object: &mut Value, place: &str, value: &str) -> Result<()> {
    let (parent, last) = place.rsplit_once('/').context("the place has no parent")?;
    let parent = object.pointer_mut(parent).with_context(|| format!("nothing at {parent}"))?;
    let value: Option<Value> = if value.is_empty() { None } else { Some(serde_json::from_str(value)?) };
    match (parent, value) {
        (Value::Object(fields), Some(value)) => _ = fields.insert(last.to_owned(), value),
        (Value::Object(fields), None) => _ = fields.remove(last).with_context(|| format!("nothing at {place}"))?,
        (Value::Array(items), Some(value)) => *items.get_mut(last.parse::<usize>()?).context("no item")? = value,
        _ => bail!("a value can't be put at {place}"),
    }
    Ok(())
}
