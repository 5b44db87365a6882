//! People to try things with, whose ids stay the same in one data directory.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// First names from Nepal, where kaha comes from.
pub(super) const NAMES: [&str; 8] = ["Asha", "Bikram", "Chandra", "Deepa", "Ekta", "Furba", "Gita", "Hari"];

/// Somebody with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The user id, a UUID v4.
    pub id: Uuid,
    /// What to call them.
    pub name: String,
}

/// All of them.
#[derive(Debug)]
pub struct People(Vec<Person>);

impl People {
    /// Reads them, or makes them up the first time.
    pub fn kept_in(directory: &Path) -> Result<Self> {
        let file = directory.join("people.json");
        if let Ok(text) = std::fs::read(&file) {
            let people = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
            return Ok(Self(people));
        }
        let people: Vec<Person> =
            NAMES.iter().map(|name| Person { id: Uuid::new_v4(), name: (*name).to_owned() }).collect();
        std::fs::write(&file, serde_json::to_vec_pretty(&people)?)?;
        Ok(Self(people))
    }

    /// In the order of the alphabet.
    pub fn all(&self) -> &[Person] {
        &self.0
    }

    /// By name, whatever the case.
    pub fn named(&self, name: &str) -> Option<&Person> {
        self.0.iter().find(|person| person.name.eq_ignore_ascii_case(name))
    }
}
