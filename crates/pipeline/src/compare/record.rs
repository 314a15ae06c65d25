//! What a comparison began with, kept in its folder: cells of another model, data set or recipe are not for one table.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::read_json;
use sparsevd_compressor::{CompressError, checkpoint};
use sparsevd_format::{create_atomically, write_atomically};

use super::files::result_path;
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
    /// The recipe, without a search and data sets, and with seed 0.
    pub recipe: Recipe,
}

impl CompareRecord {
    /// Writes the record into the folder of a comparison, or checks that it is that of an earlier one there; returns a warning where
    /// that was of another version of the program.
    ///
    /// A record that differs is replaced as long as nothing was trained by it.
    ///
    /// # Errors
    /// [`PipelineError::OtherComparison`] where the network, samples or recipe of the record differ; a record that cannot be read or
    /// written.
    pub fn write_or_check(&self, folder: &Path) -> Result<Option<String>, PipelineError> {
        let path = folder.join(FILE);
        let fail = |what: String| CompressError::Report {
            path: path.clone(),
            what,
        };
        let text = serde_json::to_string_pretty(self).map_err(|e| fail(e.to_string()))?;
        let cannot = |e| fail(format!("cannot make the folder of the comparison: {e}"));
        std::fs::create_dir_all(folder).map_err(cannot)?;
        if create_atomically(&path, |out| writeln!(out, "{text}"))? {
            return Ok(None);
        }
        let record: Self = read_json(&path, "the record of a comparison")?
            .ok_or_else(|| fail("expected the record of a comparison: it was removed".into()))?;
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
            record
                .recipe
                .difference(&self.recipe)
                .map(|(setting, earlier, now)| {
                    let earlier = format!("{setting} {earlier}, of {}", record.recipe_source);
                    (
                        "the recipe with",
                        earlier,
                        format!("{now}, of {}", self.recipe_source),
                    )
                })
        };
        let Some((what, expected, got)) = differs else {
            let warning = || {
                let (earlier, now) = (&record.version, &self.version);
                format!("this comparison began with version {earlier}, and this is version {now}")
            };
            return Ok((record.version != self.version).then(warning));
        };
        if has_training(folder).map_err(|e| fail(e.to_string()))? {
            return Err(PipelineError::OtherComparison {
                record: path,
                expected: format!("{what} {expected}"),
                got,
            });
        }
        write_atomically(&path, |out| writeln!(out, "{text}"))?;
        Ok(None)
    }
}

/// Whether the folder of a comparison has a finished cell, or a checkpoint to go on from.
fn has_training(folder: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let part = entry?.path();
        if result_path(&part).exists() || checkpoint::exists(&part) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_compressor::recipe::{Method, Phase};
    use sparsevd_compressor::report::SCHEMA;

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
        assert_eq!(record().write_or_check(&folder).unwrap(), None);
        assert_eq!(record().write_or_check(&folder).unwrap(), None);
        let cell = folder.join("fisher-6x-seed-0");
        std::fs::create_dir(&cell).unwrap();
        std::fs::write(result_path(&cell), "").unwrap();
        let refused = |change: &dyn Fn(&mut CompareRecord)| {
            let mut other = record();
            change(&mut other);
            let error = other.write_or_check(&folder).unwrap_err().to_string();
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
                .starts_with("expected the recipe with phase 2 entries")
        );
        // Another version or another place of the same things is the same comparison.
        let mut moved = record();
        (moved.version, moved.model) = ("2".into(), None);
        assert_eq!(
            moved.write_or_check(&folder).unwrap().unwrap(),
            "this comparison began with version 1, and this is version 2"
        );
        std::fs::write(folder.join(FILE), "{}").unwrap();
        let error = record().write_or_check(&folder).unwrap_err().to_string();
        assert!(
            error.contains("expected the record of a comparison"),
            "{error}"
        );
    }
    #[test]
    fn a_record_that_nothing_was_trained_by_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        record().write_or_check(&folder).unwrap();
        std::fs::create_dir(folder.join("posterior-seed-0")).unwrap();
        let mut other = record();
        other.network = "0c".into();
        assert_eq!(other.write_or_check(&folder).unwrap(), None);
        let text = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert_eq!(serde_json::from_str::<CompareRecord>(&text).unwrap(), other);
        std::fs::write(checkpoint::path(&folder.join("posterior-seed-0")), "").unwrap();
        let error = record().write_or_check(&folder).unwrap_err();
        assert!(
            matches!(error, PipelineError::OtherComparison { .. }),
            "{error}"
        );
    }
}
