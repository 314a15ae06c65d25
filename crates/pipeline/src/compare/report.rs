//! What a comparison found: results by method and ratio, and methods beside each other.

use std::path::PathBuf;

use serde::Serialize;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Part, PooledScore, SplitScore};

use super::method::PruningMethod;
use crate::train::ScoreReport;

/// What methods gave at the same ratios, seeds, epochs and distillation.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedMethods {
    /// Version of this layout.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// Name of the network.
    pub network: String,
    /// Its file, where it came from one.
    pub model: Option<PathBuf>,
    /// What was guessed when its file was read, and whether it was probably trained on the validation samples.
    pub warnings: Vec<String>,
    /// The data set, in words.
    pub data: String,
    /// Where the recipe came from, in words.
    pub recipe_source: String,
    /// Weights of the network.
    pub weights: usize,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Samples that the table is about: test, where the data set has any.
    pub about: Part,
    /// Score of the network as it came, on the validation samples.
    pub validation: ScoreReport,
    /// The same on the test samples.
    pub test: Option<ScoreReport>,
    /// A result for each ratio and method.
    pub results: Vec<MethodResult>,
    /// Every other method beside the first, at each ratio.
    pub paired: Vec<PairedMethods>,
}

/// What a method gave at a ratio.
#[derive(Debug, Clone, Serialize)]
pub struct MethodResult {
    /// The method.
    pub method: PruningMethod,
    /// Weights of the network over those that were to be left.
    pub asked_ratio: f64,
    /// Weights that were to be left.
    pub asked_weights: usize,
    /// Weights left, a mean over the seeds.
    pub left: f64,
    /// Weights of the network over weights left, where any is left.
    pub ratio: Option<f64>,
    /// Bytes of the packed file, a mean over the seeds, where there are packed files.
    pub bytes: Option<f64>,
    /// Beside the network as it came, on the validation samples.
    pub validation: PooledScore,
    /// The same on the test samples.
    pub test: Option<PooledScore>,
    /// The recipe, with the first seed.
    pub recipe: Recipe,
    /// What each seed gave.
    pub seeds: Vec<SeedResult>,
}

/// What a method gave at a ratio with one seed.
#[derive(Debug, Clone, Serialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Weights left.
    pub left: usize,
    /// Weights of the network over weights left, where any is left.
    pub ratio: Option<f64>,
    /// Bytes of the packed file, where there is one.
    pub bytes: Option<u64>,
    /// Weights that the posterior left, of a method that has one. The result has no more, also where more were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posterior_weights: Option<usize>,
    /// Wall time of all epochs of the recipe in seconds.
    pub training_seconds: f64,
    /// Beside the network as it came, on the validation samples.
    pub validation: SplitScore,
    /// The same on the test samples.
    pub test: Option<SplitScore>,
    /// The file of the network.
    pub file: PathBuf,
    /// The packed file.
    pub packed: Option<PathBuf>,
}

/// A method beside the first one at a ratio, each seed with the same seed.
#[derive(Debug, Clone, Serialize)]
pub struct PairedMethods {
    /// The method.
    pub method: PruningMethod,
    /// The first method, which it is compared with.
    pub reference: PruningMethod,
    /// The ratio that both were asked for.
    pub asked_ratio: f64,
    /// Weights that it left, a mean over the seeds.
    pub left: f64,
    /// Weights that the first method left, a mean over the seeds.
    pub reference_left: f64,
    /// On the validation samples.
    pub validation: PooledScore,
    /// On the test samples.
    pub test: Option<PooledScore>,
}

impl MethodResult {
    /// The score on the samples that the table is about.
    pub fn score(&self, about: Part) -> &PooledScore {
        let test = self.test.as_ref().filter(|_| about == Part::Test);
        test.unwrap_or(&self.validation)
    }

    /// The score of the seed that lost most on these samples.
    pub fn worst(&self, about: Part) -> Option<&SplitScore> {
        let scores = self.seeds.iter().map(|seed| {
            let test = seed.test.as_ref().filter(|_| about == Part::Test);
            test.unwrap_or(&seed.validation)
        });
        // A drop that is no number is the worst.
        scores.max_by(|a, b| {
            let [a, b] = [a, b].map(|score| score.drop());
            a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(&b))
        })
    }
}

impl PairedMethods {
    /// The score on the samples that the table is about.
    pub fn score(&self, about: Part) -> &PooledScore {
        let test = self.test.as_ref().filter(|_| about == Part::Test);
        test.unwrap_or(&self.validation)
    }
}
