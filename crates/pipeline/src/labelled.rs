//! One part of a data set, and the score of a session on it.

use std::fmt;
use std::time::Instant;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sparsevd_compressor::objective::{Score, Targets, score_predictions};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Preprocessing, terminal};
use sparsevd_runtime::{RuntimeError, Session, WeightMode, evaluate};

use crate::error::PipelineError;
use crate::input_samples::InputSamples;
use crate::sample_set::SampleSet;

/// Samples per run when a network is scored.
pub(crate) const EVALUATION_BATCH: usize = 64;

/// Part of a labelled set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum DataSplit {
    /// Images to report on; all of a set that is not split.
    Test,
    /// Images to train on.
    Train,
}

impl DataSplit {
    /// This part of a data set, with the name that [`LabelledSamples::part`] gives it.
    ///
    /// The array has the training samples, the test samples, and those of a set that is not split. `data` names the data set in an
    /// error, and `found` says what it has.
    pub(crate) fn of<S>(
        self,
        data: &str,
        [train, test, whole]: [Option<S>; 3],
        found: &str,
    ) -> Result<(S, &'static str), PipelineError> {
        let (set, name, part) = match self {
            Self::Test => (test, "test", "test"),
            Self::Train => (train, "training", "train"),
        };
        match (set, whole, self) {
            (Some(set), _, _) => Ok((set, part)),
            (None, Some(whole), Self::Test) => Ok((whole, "whole")),
            _ => Err(PipelineError::invalid(
                data,
                format!("{name} images"),
                found,
            )),
        }
    }
}

/// Samples with their targets, for one network.
#[derive(Debug, Clone)]
pub struct LabelledSamples {
    pub(crate) set: SampleSet,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) part: &'static str,
}

impl LabelledSamples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which part of the data they are: `test`, `train`, or `whole` where there is no split.
    pub fn part(&self) -> &'static str {
        self.part
    }

    /// Writes sample `index` as the input of the network.
    pub fn fill_input(&self, index: usize, out: &mut [f32]) {
        self.set.fill_input(index, &self.preprocessing, out);
    }

    /// The first `count` samples as inputs of their network, whose free dimension has `length` elements; where there are fewer, they are
    /// repeated.
    pub fn inputs(&self, network: &Network, count: usize, length: usize) -> InputSamples {
        InputSamples::generate(network, count, length, |_, len| {
            let mut input = vec![0.0; len];
            for (i, x) in input.chunks_exact_mut((len / count).max(1)).enumerate() {
                self.fill_input(i % self.len(), x);
            }
            input
        })
    }

    /// The score of a session of their network, with what a report says of it; `network` is the network's name.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn evaluate<'n>(
        &self,
        network: &'n str,
        session: &Session,
    ) -> Result<EvaluationReport<'n>, RuntimeError> {
        let start = Instant::now();
        let score = self.score(session)?;
        let options = session.plan().options();
        Ok(EvaluationReport {
            score,
            network,
            plan: options.weights,
            isa: options.isa,
            seconds: start.elapsed().as_secs_f64(),
            part: self.part,
        })
    }

    /// The score of a session of their network.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn score(&self, session: &Session) -> Result<Score, RuntimeError> {
        let fill = |index: usize, out: &mut [f32]| self.fill_input(index, out);
        match &self.set {
            SampleSet::Classes(set) => {
                let result = evaluate(session, &set.labels, fill)?;
                Ok(Score::Classes {
                    samples: result.images,
                    wrong: result.wrong,
                })
            }
            SampleSet::Numbers(set) => {
                let targets = Targets::vectors(set.targets(), set.outputs());
                let outputs = predictions(session, set.len(), fill)?;
                Ok(score_predictions(&outputs, &targets))
            }
            SampleSet::Inputs(_) => unreachable!("`Data::part` refuses samples without targets"),
        }
    }
}

/// Outputs of a session for `samples` samples, `[samples][outputs]`; `fill(i, x)` writes sample `i` into `x`.
pub(crate) fn predictions(
    session: &Session,
    samples: usize,
    fill: impl Fn(usize, &mut [f32]),
) -> Result<Vec<f32>, RuntimeError> {
    let (inn, out) = (
        session.plan().input_shape().elements(),
        session.plan().output_shape().elements(),
    );
    session.plan().check_outputs(samples, 1)?;
    let mut x = vec![0.0; EVALUATION_BATCH * inn];
    let mut outputs = vec![0.0; samples * out];
    let batches = outputs.chunks_mut((EVALUATION_BATCH * out).max(1));
    for (batch, y) in batches.enumerate() {
        let n = y.len() / out;
        for (i, x) in x.chunks_exact_mut(inn).take(n).enumerate() {
            fill(batch * EVALUATION_BATCH + i, x);
        }
        session.run(n, &x[..n * inn], y)?;
    }
    Ok(outputs)
}

/// The score of a session on one part of a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluationReport<'n> {
    /// The score.
    pub score: Score,
    /// Name of the network.
    pub network: &'n str,
    /// Sparse or dense plan.
    pub plan: WeightMode,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Wall time.
    pub seconds: f64,
    /// Part of the data; see [`LabelledSamples::part`].
    pub part: &'static str,
}

/// Share of samples that are right, 0 to 1.
fn top1(samples: usize, wrong: usize) -> f64 {
    1.0 - wrong as f64 / samples as f64
}

impl fmt::Display for EvaluationReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, score, .. } = self;
        let network = terminal::name(network);
        match *score {
            Score::Classes { samples, wrong } => write!(
                f,
                "{network}: {wrong} of {samples} images wrong, {score}, top-1 {:.2} %",
                top1(samples, wrong) * 100.0
            )?,
            Score::Regression { samples, .. } => {
                write!(f, "{network}: {score} of {samples} samples")?;
            }
        }
        write!(f, " ({} plan, {})", self.plan, self.isa)?;
        match self.part {
            "whole" => f.write_str(
                "; the set is not split, so these may be samples that the network was trained on",
            ),
            _ => Ok(()),
        }
    }
}

impl Serialize for EvaluationReport<'_> {
    /// The numbers of the score come first, in the same object.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.score {
            Score::Classes { samples, wrong } => {
                map.serialize_entry("images", &samples)?;
                map.serialize_entry("error_percent", &self.score.error())?;
                map.serialize_entry("top1", &top1(samples, wrong))?;
                map.serialize_entry("wrong", &wrong)?;
            }
            Score::Regression { samples, r2, rmse } => {
                map.serialize_entry("samples", &samples)?;
                map.serialize_entry("r2", &r2)?;
                map.serialize_entry("rmse", &rmse)?;
            }
        }
        map.serialize_entry("network", self.network)?;
        map.serialize_entry("plan", &self.plan)?;
        map.serialize_entry("isa", self.isa.name())?;
        map.serialize_entry("seconds", &self.seconds)?;
        map.serialize_entry("part", self.part)?;
        map.end()
    }
}
