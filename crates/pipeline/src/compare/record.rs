//! What a comparison began with, kept in its folder: cells of another model, data set or recipe are not for one table.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sparsevd_compressor::CompressError;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::SCHEMA;
use sparsevd_format::write_atomically;

use crate::error::PipelineError;

const FILE: &str = "compare.json";

/// `compare.json`. Paths are absolute and say where things were; fingerprints and the recipe decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CompareRecord {
    /// Version of this layout.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// The file of the network, where it came from one.
    pub model: Option<PathBuf>,
    /// Fingerprint of the network.
    pub network: String,
    /// The data set, where it came from one.
    pub data: Option<PathBuf>,
    /// Fingerprint of the samples to train on, for validation and for testing.
    pub samples: String,
    /// Where the recipe came from, in words.
    pub recipe_source: String,
    /// The recipe, without a search and the places of data sets, and with seed 0.
    pub recipe: Recipe,
}

impl CompareRecord {
    /// Writes the record into the folder of a comparison, or checks that it is that of an earlier one there.
    ///
    /// # Errors
    /// Another model, data set or recipe than that of the record; a record that cannot be read or written.
    pub fn settle(&self, folder: &Path) -> Result<(), PipelineError> {
        let path = folder.join(FILE);
        let fail = |what: String| CompressError::Report {
            path: path.clone(),
            what,
        };
        let text = serde_json::to_string_pretty(self).map_err(|e| fail(e.to_string()))?;
        let earlier = match std::fs::read_to_string(&path) {
            Ok(earlier) => earlier,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let cannot = |e| fail(format!("cannot make the folder of the comparison: {e}"));
                std::fs::create_dir_all(folder).map_err(cannot)?;
                write_atomically(&path, |out| writeln!(out, "{text}"))?;
                return Ok(());
            }
            Err(e) => return Err(fail(e.to_string()).into()),
        };
        let not_one = |e| fail(format!("expected the record of a comparison: {e}"));
        let record: Self = serde_json::from_str(&earlier).map_err(not_one)?;
        if record.schema != SCHEMA {
            let got = record.schema;
            return Err(fail(format!("expected schema {SCHEMA}, got {got}")).into());
        }
        // Both recipes as they come out of a file, whose numbers are rounded alike.
        let recipe = |text: &str| -> Result<Value, CompressError> {
            let mut value: Value = serde_json::from_str(text).map_err(not_one)?;
            Ok(value["recipe"].take())
        };
        let place = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or("memory".into(), |path| path.display().to_string())
        };
        let differs = if record.network != self.network {
            let [earlier, now] = [&record.model, &self.model].map(place);
            Some(("the network of", earlier, format!("another, of {now}")))
        } else if record.samples != self.samples {
            let [earlier, now] = [&record.data, &self.data].map(place);
            Some(("the samples of", earlier, format!("others, of {now}")))
        } else {
            difference("", &recipe(&earlier)?, &recipe(&text)?).map(|(setting, earlier, now)| {
                let earlier = format!("{setting} {earlier}, of {}", record.recipe_source);
                (
                    "the recipe with",
                    earlier,
                    format!("{now}, of {}", self.recipe_source),
                )
            })
        };
        match differs {
            None => Ok(()),
            Some((what, expected, got)) => Err(PipelineError::invalid(
                path.display(),
                format!("{what} {expected}, that the comparison in this folder began with"),
                got,
            )),
        }
    }
}

/// The first setting that differs, and its two values.
fn difference(name: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    let unset = &Value::Null;
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys = x.keys().chain(y.keys());
            keys.find_map(|key| {
                let [a, b] = [x, y].map(|map| map.get(key).unwrap_or(unset));
                difference(format!("{name} {key}").trim_start(), a, b)
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let mut pairs = x.iter().zip(y).enumerate();
            pairs.find_map(|(i, (a, b))| difference(&format!("{name} {}", i + 1), a, b))
        }
        _ if a == b => None,
        _ => Some((name.to_owned(), in_words(a), in_words(b))),
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "unset".into(),
        Value::Array(values) => format!("{} times", values.len()),
        Value::Object(_) => "set".into(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_compressor::recipe::{Method, Phase};

    fn record() -> CompareRecord {
        let phases = [Method::SparseVd, Method::FineTune].map(|m| Phase::new(m, 3));
        CompareRecord {
            schema: SCHEMA,
            version: "1".into(),
            model: Some("a/model.safetensors".into()),
            network: "0a".into(),
            data: None,
            samples: "0b".into(),
            recipe_source: "a/recipe.toml".into(),
            recipe: Recipe::new(phases.into()),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        record().settle(&folder).unwrap();
        record().settle(&folder).unwrap();
        let refused = |change: &dyn Fn(&mut CompareRecord)| {
            let mut other = record();
            change(&mut other);
            let error = other.settle(&folder).unwrap_err().to_string();
            let (_, words) = error.split_once("compare.json: ").unwrap();
            words.to_owned()
        };
        let earlier = "that the comparison in this folder began with";
        assert_eq!(
            refused(&|r| r.network = "0c".into()),
            format!(
                "expected the network of a/model.safetensors, {earlier}, got another, of a/model.safetensors"
            )
        );
        assert_eq!(
            refused(&|r| (r.samples, r.data) = ("0c".into(), Some("d".into()))),
            format!("expected the samples of memory, {earlier}, got others, of d")
        );
        assert_eq!(
            refused(&|r| r.recipe.phases[1].lr = 0.1),
            format!(
                "expected the recipe with phase 2 lr 0.001, of a/recipe.toml, {earlier}, got 0.1, of a/recipe.toml"
            )
        );
        assert!(
            refused(&|r| r.recipe.phases[1].weights = Some(9))
                .starts_with("expected the recipe with phase 2 weights unset")
        );
        assert!(
            refused(&|r| r.recipe.phases.truncate(1))
                .starts_with("expected the recipe with phase 2 times")
        );
        // Another version or another place of the same things is the same comparison.
        let mut moved = record();
        (moved.version, moved.model) = ("2".into(), None);
        moved.settle(&folder).unwrap();
        std::fs::write(folder.join(FILE), "{}").unwrap();
        let error = record().settle(&folder).unwrap_err().to_string();
        assert!(
            error.contains("expected the record of a comparison"),
            "{error}"
        );
    }
}
