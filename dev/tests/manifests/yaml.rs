//! Documents of YAML as JSON, as far as kustomize prints it: no aliases, and no keys but texts.

use anyhow::{Context, Result, bail};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// A list or an object whose end has not come.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Object(Map<String, Value>, Option<String>),
}

/// All documents of a text.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    let mut open = Vec::new();
    for event in Parser::new_from_str(text) {
        let value = match event?.0 {
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Object(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop().context("an end without a beginning")? {
                Open::List(items) => Value::Array(items),
                Open::Object(fields, _) => Value::Object(fields),
            },
            // Numbers, true, false and null are written as in JSON.
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()))
            }
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::Alias(_) => bail!("an alias"),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            None => documents.push(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Object(fields, key)) => match (key.take(), value) {
                (Some(key), value) => _ = fields.insert(key, value),
                (None, Value::String(text)) => *key = Some(text),
                (None, other) => bail!("{other} is a key"),
            },
        }
    }
    Ok(documents)
}

#[test]
fn manifests_are_read_as_kustomize_prints_them() -> Result<()> {
    let text = "a: 1\nb:\n- x: \"true\"\n  y: true\n- 2Gi\nc: |-\n  one\n  two\nd: {}\n---\n- null\n";
    let wanted = serde_json::json!([
        {"a": 1, "b": [{"x": "true", "y": true}, "2Gi"], "c": "one\ntwo", "d": {}},
        [null],
    ]);
    assert_eq!(Value::Array(documents(text)?), wanted);
    Ok(())
}
