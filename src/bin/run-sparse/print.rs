//! Printing on stdout in one go, so that a closed pipe is an error like any other.

use std::fmt::Display;
use std::io::Write;

use serde_json::{Map, Value};

/// Version of everything printed with `--json`.
const SCHEMA: u64 = 1;

/// Prints text and a line end.
pub fn text(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
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
    text(Value::Object(object))
}

/// Bytes with a binary unit.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}
