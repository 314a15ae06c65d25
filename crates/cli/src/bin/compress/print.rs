//! Printing for people and as JSON.

use serde::Serialize;

pub use sparsevd_compressor::report::count;

pub use sparsevd_cli::text;

/// Prints JSON as one line.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    sparsevd_cli::json(&serde_json::to_string(value)?)
}
