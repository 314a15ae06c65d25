//! The result of a cell in its folder: numbers and the errors of each sample, from which tables are made without running it again.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sparsevd_compressor::CompressError;
use sparsevd_compressor::objective::{PerSample, SampleErrors, Score};
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::read_json;
use sparsevd_format::write_atomically;

use super::cell::Cell;
use super::files::{files, result_path};
use super::method::PruningMethod;
use super::record::CompareRecord;
use crate::error::PipelineError;
use crate::measure::Scores;

/// `cell.json`: what a finished cell gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredCell {
    /// Version of this layout.
    pub schema: u32,
    /// Fingerprints of the network and of the samples, as in the record of the comparison.
    pub network: String,
    pub samples: String,
    pub method: PruningMethod,
    /// Weights of the original network over those that were to be left.
    pub ratio: f64,
    pub seed: u64,
    /// Weights that were to be left.
    pub weights: usize,
    /// Weights that the posterior leaves, of a cell that begins with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior_weights: Option<usize>,
    /// Weights that are left.
    pub left: usize,
    /// Bytes of the packed file, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Wall time of its epochs in seconds, over all sittings, with those of the posterior.
    pub training_seconds: f64,
    /// The recipe that gives this network in one run.
    pub recipe: Recipe,
    pub validation: StoredErrors,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<StoredErrors>,
}

/// Errors of a network on a set of samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum StoredErrors {
    /// Of a classification: the samples that are wrong, of how many.
    Classes { samples: usize, wrong: Vec<usize> },
    /// Of a regression: the terms of `1 - R2`, with `null` for what is no number.
    Regression {
        r2: Option<f64>,
        rmse: Option<f64>,
        terms: Vec<Option<f64>>,
    },
}

impl StoredErrors {
    pub fn of(errors: &SampleErrors) -> Self {
        let number = |x: f64| x.is_finite().then_some(x);
        match &errors.samples {
            PerSample::Classes { wrong, .. } => Self::Classes {
                samples: wrong.len(),
                wrong: (0..wrong.len()).filter(|&i| wrong[i]).collect(),
            },
            PerSample::Regression(terms) => Self::Regression {
                r2: errors.score.r2().and_then(number),
                rmse: number(errors.score.error()),
                terms: terms.iter().map(|&t| number(t)).collect(),
            },
        }
    }

    /// The errors, on the samples that `dense` are of; else what is wrong: expected and got.
    fn beside(&self, dense: &SampleErrors) -> Result<SampleErrors, String> {
        let number = |x: Option<f64>| x.unwrap_or(f64::NAN);
        match (self, &dense.samples) {
            (Self::Classes { samples, wrong }, PerSample::Classes { labels, .. }) => {
                let n = labels.len();
                if *samples != n {
                    return Err(format!("expected errors of {n} samples, got {samples}"));
                }
                let mut marks = vec![false; n];
                for &index in wrong {
                    let mark = marks.get_mut(index).filter(|mark| !**mark);
                    let mark = mark.ok_or_else(|| {
                        format!("expected different samples below {n}, got sample {index}")
                    })?;
                    *mark = true;
                }
                let wrong = wrong.len();
                Ok(SampleErrors {
                    score: Score::Classes { samples: n, wrong },
                    samples: PerSample::Classes {
                        labels: labels.clone(),
                        wrong: marks,
                    },
                })
            }
            (Self::Regression { r2, rmse, terms }, PerSample::Regression(of_dense)) => {
                let samples = of_dense.len();
                if terms.len() != samples {
                    let got = terms.len();
                    return Err(format!("expected errors of {samples} samples, got {got}"));
                }
                let score = Score::Regression {
                    samples,
                    r2: number(*r2),
                    rmse: number(*rmse),
                };
                let samples = PerSample::Regression(terms.iter().map(|&t| number(t)).collect());
                Ok(SampleErrors { score, samples })
            }
            (Self::Classes { .. }, PerSample::Regression(_)) => {
                Err("expected errors of a regression, got those of classes".into())
            }
            (Self::Regression { .. }, PerSample::Classes { .. }) => {
                Err("expected errors of classes, got those of a regression".into())
            }
        }
    }
}

impl StoredCell {
    /// Writes it into the folder of the cell, which is finished then.
    pub fn write(&self, folder: &Path) -> Result<(), CompressError> {
        let path = result_path(folder);
        let json = serde_json::to_string(self).map_err(|e| fail(&path, e.to_string()))?;
        write_atomically(&path, |out| writeln!(out, "{json}"))?;
        Ok(())
    }

    /// Reads what `cell` gave in the comparison of `record`, by `recipe`, with a network of `all` weights; `None` where it is not
    /// finished, or a file of its network is gone.
    pub fn read(
        folder: &Path,
        cell: &Cell,
        record: &CompareRecord,
        recipe: &Recipe,
        all: usize,
    ) -> Result<Option<Self>, PipelineError> {
        let path = result_path(folder);
        let fail = |what: String| fail(&path, what);
        let Some(stored) = read_json::<Self>(&path, "the result of a cell")? else {
            return Ok(None);
        };
        // Not by the ratio, of which the number of weights is made.
        let key = |c: &Cell| (c.method, c.weights, c.seed);
        let got = Cell {
            method: stored.method,
            ratio: stored.ratio,
            weights: stored.weights,
            seed: stored.seed,
        };
        if key(&got) != key(cell) {
            return Err(fail(format!("expected {cell}, got {got}")).into());
        }
        for (what, expected, got) in [
            ("network", &record.network, &stored.network),
            ("samples", &record.samples, &stored.samples),
        ] {
            if got != expected {
                let what = format!("expected a result of the {what} {expected}, got {got}");
                return Err(fail(what).into());
            }
        }
        if let Some((setting, expected, got)) = stored.other_setting(recipe) {
            let what = format!("expected a result with {setting} {expected}, got {got}");
            return Err(fail(what).into());
        }
        for weights in [Some(stored.left), stored.posterior_weights] {
            if let Some(got) = weights.filter(|left| *left > all) {
                let what = format!("expected at most {all} weights, got {got}");
                return Err(fail(what).into());
            }
        }
        let files = files(folder, &stored.recipe)?;
        if files.packed.is_some() != stored.bytes.is_some() {
            let what = "expected the bytes of a packed file where there is one, and only there";
            return Err(fail(what.into()).into());
        }
        let mut networks = files.network.iter().chain(&files.packed);
        Ok(networks.all(|file| file.is_file()).then_some(stored))
    }

    /// The first setting in which its recipe differs from `expected`, but for data sets.
    fn other_setting(&self, expected: &Recipe) -> Option<(String, String, String)> {
        let (mut got, expected) = (self.recipe.without_data(), expected.without_data());
        if expected.target_deviation.is_none() {
            // A trainer sets it by the network and the samples.
            got.target_deviation = None;
        }
        expected.difference(&got)
    }

    /// The errors of its network on the samples that `dense` are of.
    pub fn scores(&self, folder: &Path, dense: &Scores) -> Result<Scores, CompressError> {
        let path = result_path(folder);
        let of = |errors: &StoredErrors, dense: &SampleErrors| {
            errors.beside(dense).map_err(|what| fail(&path, what))
        };
        let test = match (&self.test, &dense.test) {
            (Some(errors), Some(dense)) => Some(of(errors, dense)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let what =
                    "expected test errors where the data set has test samples, and only there";
                return Err(fail(&path, what.into()));
            }
        };
        Ok(Scores {
            validation: of(&self.validation, &dense.validation)?,
            test,
        })
    }
}

fn fail(path: &Path, what: String) -> CompressError {
    CompressError::Report {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::objective::{Targets, sample_errors};
    use sparsevd_compressor::recipe::{Method, Phase};
    use sparsevd_compressor::report::SCHEMA;

    use super::*;

    fn recipe() -> Recipe {
        let phases = [Method::SparseVd, Method::FineTune, Method::Quantise];
        Recipe::new(phases.map(|m| Phase::new(m, 3)).into())
    }

    fn record() -> CompareRecord {
        CompareRecord {
            schema: SCHEMA,
            version: "1".into(),
            model: None,
            network: "0a".into(),
            data: None,
            samples: "0b".into(),
            recipe_source: "the program".into(),
            recipe: recipe(),
        }
    }

    fn stored(ratio: f64) -> StoredCell {
        StoredCell {
            schema: SCHEMA,
            network: "0a".into(),
            samples: "0b".into(),
            method: PruningMethod::Fisher,
            ratio,
            seed: 3,
            weights: 9,
            posterior_weights: None,
            left: 8,
            bytes: Some(70),
            training_seconds: 0.1,
            recipe: recipe(),
            validation: StoredErrors::Classes {
                samples: 2,
                wrong: vec![1],
            },
            test: None,
        }
    }

    /// Writes a cell with its network, and reads it again.
    fn through_file(folder: &Path, stored: &StoredCell) -> Result<Option<StoredCell>, String> {
        let files = files(folder, &recipe()).unwrap();
        std::fs::write(files.network.unwrap(), "").unwrap();
        std::fs::write(files.packed.unwrap(), "").unwrap();
        stored.write(folder).unwrap();
        let cell = Cell {
            method: PruningMethod::Fisher,
            ratio: 22.786_217_117_450_906,
            weights: 9,
            seed: 3,
        };
        StoredCell::read(folder, &cell, &record(), &recipe(), 200).map_err(|e| e.to_string())
    }

    /// Read to the nearest number but one, this ratio is another.
    #[test]
    fn a_cell_is_its_method_weights_and_seed() {
        let dir = tempfile::tempdir().unwrap();
        let ratio = 22.786_217_117_450_906;
        let written = stored(ratio);
        let read = through_file(dir.path(), &written).unwrap().unwrap();
        assert_eq!(read.ratio.to_bits(), ratio.to_bits());
        assert_eq!(read, written);
        assert!(through_file(dir.path(), &stored(22.8)).unwrap().is_some());
        let refused = |change: &dyn Fn(&mut StoredCell)| {
            let mut other = stored(ratio);
            change(&mut other);
            let error = through_file(dir.path(), &other).unwrap_err();
            let (_, words) = error.split_once("cell.json: expected ").unwrap();
            words.to_owned()
        };
        for (change, words) in [
            (
                &(|c: &mut StoredCell| c.weights = 10) as &dyn Fn(&mut StoredCell),
                "fisher, 22.786217117450906x, seed 3, got",
            ),
            (
                &|c| c.network = "0c".into(),
                "a result of the network 0a, got 0c",
            ),
            (
                &|c| c.samples = "0c".into(),
                "a result of the samples 0b, got 0c",
            ),
            (
                &|c| c.recipe.phases[1].lr = 0.1,
                "a result with phase 2 lr 0.001, got 0.1",
            ),
            (&|c| c.left = 201, "at most 200 weights, got 201"),
            (
                &|c| c.posterior_weights = Some(usize::MAX),
                "at most 200 weights, got 18446744073709551615",
            ),
            (&|c| c.bytes = None, "the bytes of a packed file"),
        ] {
            let got = refused(change);
            assert!(got.starts_with(words), "{got}");
        }
        // What a trainer sets, and where the data was.
        let mut same = stored(ratio);
        same.recipe.target_deviation = Some(0.5);
        same.recipe.data = Some("elsewhere".into());
        assert!(through_file(dir.path(), &same).unwrap().is_some());
    }

    #[test]
    fn errors_survive_the_file() {
        let labels = [0, 1, 0];
        let classes = sample_errors(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0], &Targets::classes(&labels));
        let targets = [1.0, 2.0, 4.0];
        let fit = sample_errors(&[1.0, f32::NAN, 3.0], &Targets::vectors(&targets, 1));
        let through = |errors: &SampleErrors| {
            let json = serde_json::to_string(&StoredErrors::of(errors)).unwrap();
            let stored: StoredErrors = serde_json::from_str(&json).unwrap();
            stored.beside(errors)
        };
        assert_eq!(through(&classes).unwrap(), classes);
        let PerSample::Regression(terms) = through(&fit).unwrap().samples else {
            panic!("a regression")
        };
        assert!(
            terms[0] == 0.0 && terms[1].is_nan() && terms[2] > 0.0,
            "{terms:?}"
        );
    }

    #[test]
    fn damaged_errors_are_refused() {
        let dense = sample_errors(&[1.0, 0.0, 1.0, 0.0], &Targets::classes(&[0, 1]));
        let of = |samples, wrong: &[usize]| {
            let wrong = wrong.to_vec();
            let stored = StoredErrors::Classes { samples, wrong };
            stored.beside(&dense).map(|e| e.score.error())
        };
        assert_eq!(of(2, &[1]), Ok(50.0));
        assert_eq!(
            of(3, &[1]).unwrap_err(),
            "expected errors of 2 samples, got 3"
        );
        for wrong in [&[2][..], &[1, 1]] {
            let error = of(2, wrong).unwrap_err();
            assert!(
                error.starts_with("expected different samples below 2"),
                "{error}"
            );
        }
        let regression = StoredErrors::Regression {
            r2: None,
            rmse: None,
            terms: vec![],
        };
        let error = regression.beside(&dense).unwrap_err();
        assert!(error.contains("got those of a regression"), "{error}");
    }
}
