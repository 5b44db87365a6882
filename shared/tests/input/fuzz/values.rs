//! Trees of maps, lists and values that are nearly a frame.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Map, Value};

use super::mutation::{numbers, texts};

/// A change somewhere in a tree.
#[derive(Debug, Clone)]
enum Alteration {
    /// Another value stands in its place.
    Replaced(Value),
    /// A map becomes a list of its values, a list a map, any other value a list of it.
    Restructured,
    /// A field goes, of a map.
    Without(Index),
    /// A field comes, to a map.
    With(String, Value),
    /// A field of a map gets another name.
    Renamed(Index, String),
}

/// Any value of a few levels.
fn values() -> impl Strategy<Value = Value> {
    let scalars = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        numbers().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts().prop_map(Value::from),
        "[0-9a-f]{8}-[0-9a-f]{4}-[14][0-9a-f]{3}-[089ab][0-9a-f]{3}-[0-9a-f]{12}".prop_map(Value::from),
    ];
    scalars.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((names(), inner), 0..4).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// Names of fields and commands, and others.
fn names() -> impl Strategy<Value = String> {
    let known =
        ["type", "ref", "cursor", "resume", "epoch", "text", "conversation_id", "message_id", "hello", "confirm"];
    prop_oneof![proptest::sample::select(known.to_vec()).prop_map(str::to_owned), "[a-z_]{0,8}", texts()]
}

fn alterations() -> impl Strategy<Value = Alteration> {
    prop_oneof![
        values().prop_map(Alteration::Replaced),
        names().prop_map(|name| Alteration::Replaced(Value::from(name))),
        Just(Alteration::Restructured),
        any::<Index>().prop_map(Alteration::Without),
        (names(), values()).prop_map(|(name, value)| Alteration::With(name, value)),
        (any::<Index>(), names()).prop_map(|(index, name)| Alteration::Renamed(index, name)),
    ]
}

/// Trees with none, one or a few changes.
pub fn altered(valid: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (valid, vec((any::<Index>(), alterations()), 0..4)).prop_map(|(mut value, alterations)| {
        for (place, alteration) in alterations {
            let place = place.index(size(&value));
            alter(&mut value, place, &alteration);
        }
        value
    })
}

/// How many values there are, this one included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// Changes the value at a place, counted from the root; gives how many places were passed.
fn alter(value: &mut Value, place: usize, alteration: &Alteration) -> usize {
    if place == 0 {
        apply(value, alteration);
        return 1;
    }
    let mut passed = 1;
    let within: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    };
    for inner in within {
        let size = size(inner);
        if place < passed + size {
            alter(inner, place - passed, alteration);
            return place + 1;
        }
        passed += size;
    }
    passed
}

fn apply(value: &mut Value, alteration: &Alteration) {
    match (alteration, value) {
        (Alteration::Replaced(other), value) => *value = other.clone(),
        (Alteration::Restructured, value) => {
            *value = match value.take() {
                Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                Value::Array(list) => list.into_iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
                other => Value::from(vec![other]),
            }
        }
        (Alteration::Without(index), Value::Object(map)) if !map.is_empty() => {
            let name = map.keys().nth(index.index(map.len())).cloned().unwrap_or_default();
            map.remove(&name);
        }
        (Alteration::With(name, added), Value::Object(map)) => {
            map.insert(name.clone(), added.clone());
        }
        (Alteration::Renamed(index, name), Value::Object(map)) if !map.is_empty() => {
            let before = map.keys().nth(index.index(map.len())).cloned().unwrap_or_default();
            if let Some(value) = map.remove(&before) {
                map.insert(name.clone(), value);
            }
        }
        (Alteration::Without(_) | Alteration::With(..) | Alteration::Renamed(..), value) => *value = Value::Null,
    }
}
