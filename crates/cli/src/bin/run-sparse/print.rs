//! Printing for people and as JSON.

use serde_json::{Map, Value};

pub use sparsevd_cli::text;

/// Version of everything printed with `--json`.
const SCHEMA: u64 = 1;

/// Prints an object about a network as one line of JSON, `schema` first and last what the network's file left to be guessed.
pub fn json_of(warnings: &[String], mut value: Value) -> anyhow::Result<()> {
    value["warnings"] = warnings.into();
    json(value)
}

/// Prints an object as one line of JSON, `schema` first.
pub fn json(value: Value) -> anyhow::Result<()> {
    let mut object = Map::from_iter([("schema".to_owned(), Value::from(SCHEMA))]);
    match value {
        Value::Object(fields) => object.extend(fields),
        other => {
            object.insert("value".into(), other);
        }
    }
    sparsevd_cli::json(&Value::Object(object).to_string())
}
