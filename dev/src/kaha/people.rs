//! People to try things with, whose ids stay the same in one data directory.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::business::Business;

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
pub struct People {
    people: Vec<Person>,
    business: Business,
}

impl People {
    /// Reads them, or makes them up the first time.
    pub fn kept_in(directory: &Path) -> Result<Self> {
        let people = || NAMES.iter().map(|name| Person { id: Uuid::new_v4(), name: (*name).to_owned() }).collect();
        Ok(Self {
            people: kept(&directory.join("people.json"), people)?,
            business: kept(&directory.join("business.json"), Business::random)?,
        })
    }

    /// Those who work for no business, in the order of the alphabet.
    pub fn private(&self) -> &[Person] {
        &self.people
    }

    /// The business that others of them work for.
    pub const fn business(&self) -> &Business {
        &self.business
    }

    /// In the order of the alphabet.
    pub fn all(&self) -> impl Iterator<Item = &Person> {
        self.people.iter().chain(self.business.staff.iter().map(|member| &member.person))
    }

    /// By name, whatever the case.
    pub fn named(&self, name: &str) -> Option<&Person> {
        self.all().find(|person| person.name.eq_ignore_ascii_case(name))
    }
}

/// The value in a file. If there is no file, `make` gives the value, which is then written to the file.
fn kept<T: Serialize + DeserializeOwned>(file: &Path, make: impl FnOnce() -> T) -> Result<T> {
    if let Ok(text) = std::fs::read(file) {
        return serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()));
    }
    let fresh = make();
    std::fs::write(file, serde_json::to_vec_pretty(&fresh)?)?;
    Ok(fresh)
}
