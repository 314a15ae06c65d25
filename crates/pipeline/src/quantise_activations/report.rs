//! What was found of a network with int8 layers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use sparsevd_compressor::objective::arg_max;
use sparsevd_compressor::recipe::RangeChoice;
use sparsevd_compressor::report::{Int8Result, SplitScore};
use sparsevd_model::{Int8Grid, Int8Input, terminal};

use crate::cosines::Cosines;

/// How far the outputs of a network are from those of the network in f32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Share of the samples whose largest output is the same, 0 to 1; `None` for a single output, and for embeddings.
    pub top1: Option<f64>,
    /// The root of the mean squared difference over that of the outputs' deviation from the mean of their sample, or of the outputs where a sample has one.
    pub error: f64,
    /// The largest difference.
    pub largest: f64,
    /// The mean of the absolute differences.
    pub mean: f64,
}

impl Agreement {
    /// Of samples with `width` outputs each, which are scores of classes or other numbers.
    pub(super) fn of(outputs: &[f32], expected: &[f32], width: usize, are_scores: bool) -> Self {
        let (mut squares, mut spread, mut largest, mut sum) = (0.0, 0.0, 0.0_f64, 0.0);
        let mut same = 0;
        let samples = expected.len() / width.max(1);
        for (y, want) in outputs
            .chunks_exact(width.max(1))
            .zip(expected.chunks_exact(width.max(1)))
        {
            let mean = match width {
                1 => 0.0,
                _ => want.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64,
            };
            for (a, b) in y.iter().zip(want) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                squares += (a - b) * (a - b);
                spread += (b - mean) * (b - mean);
                // A number that is not finite is as far away as can be.
                largest = largest.max(if (a - b).is_nan() {
                    f64::INFINITY
                } else {
                    (a - b).abs()
                });
                sum += (a - b).abs();
            }
            same += usize::from(arg_max(y) == arg_max(want));
        }
        let error = match (squares, spread) {
            (0.0, _) => 0.0,
            (squares, spread) => (squares / spread).sqrt(),
        };
        Self {
            top1: (are_scores && width > 1).then(|| same as f64 / samples.max(1) as f64),
            error: if error.is_nan() { f64::INFINITY } else { error },
            largest,
            mean: sum / expected.len().max(1) as f64,
        }
    }
}

/// A layer, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantisedLayer {
    /// Name of its node.
    pub name: String,
    /// Why it stays f32; `None` where it may run in int8.
    pub kept_f32: Option<String>,
    /// How its input becomes bytes, where that was tried.
    pub input: Option<Int8Input>,
    /// Error of the outputs on the samples that ranges are found on where this layer alone is in int8.
    pub error: Option<f64>,
    /// Outputs on held-out samples where this layer alone is in int8.
    pub held_out: Option<Agreement>,
}

/// Tables of embeddings that were rounded row by row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundedTables {
    /// How many there are, by the bits of their integers.
    pub tables: BTreeMap<u32, usize>,
    /// Error of the outputs on the samples that ranges are found on, of these alone.
    pub error: f64,
}

/// Scores of the network in f32 beside those in int8.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Int8Scores {
    /// On the validation samples.
    pub validation: SplitScore,
    /// On the test samples, where the data has such.
    pub test: Option<SplitScore>,
}

impl From<(SplitScore, Option<SplitScore>)> for Int8Scores {
    fn from((validation, test): (SplitScore, Option<SplitScore>)) -> Self {
        Self { validation, test }
    }
}

/// What came of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TrainedActivations {
    /// Passes over the training samples.
    pub epochs: u32,
    /// Whether scores are against the answers of the network in f32, as the samples have no targets: its errors are 0 then.
    pub against_f32: bool,
    /// Weights that were rounded as they came.
    pub rounded: Int8Scores,
    /// Weights that were trained, then rounded.
    pub trained: Int8Scores,
    /// Whether the trained weights are those of the result: their validation score is no worse.
    pub kept: bool,
}

/// What was found of a network with int8 layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantisationReport {
    /// Name of the network.
    pub network: String,
    /// Samples that ranges were found on.
    pub samples: usize,
    /// Samples that the result was compared on, none of which ranges were found on.
    pub held_out: usize,
    /// How ranges were chosen; `None` where no layer has one.
    pub range: Option<RangeChoice>,
    /// Largest error that was allowed.
    pub max_error: f64,
    /// All layers with weights, in their order.
    pub layers: Vec<QuantisedLayer>,
    /// Tables of embeddings, where they were rounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<RoundedTables>,
    /// Layers that may run in int8.
    pub int8_layers: usize,
    /// Error on the samples that ranges were found on.
    pub error: f64,
    /// Outputs on held-out samples, of the whole network with its int8 layers.
    pub agreement: Agreement,
    /// Of embeddings: their cosines to those in f32, on the same samples.
    pub cosine: Option<Cosines>,
    /// Where weights were trained: what that changed. Errors of single layers are those before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainedActivations>,
}

impl fmt::Display for QuantisationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let top1 = |agreement: &Agreement| {
            let share = agreement
                .top1
                .map(|share| format!("{:.2} %", 100.0 * share));
            share.unwrap_or_else(|| "-".into())
        };
        let width = self.layers.iter().map(|l| l.name.len()).max();
        let width = width.unwrap_or(0).max("layer".len());
        writeln!(
            f,
            "{:width$}  {:>10} {:>5}  {:>9}  {:>9}",
            "layer", "scale", "zero", "error", "agreement"
        )?;
        for layer in &self.layers {
            write!(f, "{:width$}", terminal::name(&layer.name).to_string())?;
            match (layer.input, layer.error, &layer.held_out) {
                (Some(input), Some(error), Some(held_out)) => {
                    match input.grid() {
                        Some(Int8Grid { scale, zero_point }) => {
                            write!(f, "  {scale:>10.3e} {zero_point:>5}")?;
                        }
                        None => write!(f, "  {:>10} {:>5}", "per vector", input.zero_point())?,
                    }
                    write!(f, "  {error:>9.2e}  {:>9}", top1(held_out))?;
                }
                _ => write!(f, "{:40}", "")?,
            }
            match &layer.kept_f32 {
                Some(why) => writeln!(f, "  f32: {why}")?,
                None => writeln!(f, "  int8")?,
            }
        }
        if let Some(RoundedTables { tables, error }) = &self.tables {
            let of_bits = |(bits, tables): (&u32, &usize)| match tables {
                1 => format!("a table of embeddings rounded to {bits} bits"),
                n => format!("{n} tables of embeddings rounded to {bits} bits"),
            };
            let tables = tables.iter().map(of_bits).collect::<Vec<_>>().join(" and ");
            writeln!(f, "{tables}, alone an error of {error:.2e}")?;
        }
        let Agreement {
            error,
            largest,
            mean,
            ..
        } = self.agreement;
        write!(
            f,
            "{} of {} int8 layers, {} {} samples; on {} others: ",
            self.int8_layers,
            self.layers.len(),
            self.range.map_or("chosen on", |_| "ranges from"),
            self.samples,
            self.held_out,
        )?;
        if self.cosine.is_none() {
            write!(f, "agreement {}, ", top1(&self.agreement))?;
        }
        write!(
            f,
            "error {error:.2e}, differences {largest:.3e} at most, {mean:.3e} on average"
        )?;
        if let Some(cosine) = self.cosine {
            write!(f, "\n{cosine}")?;
        }
        match &self.training {
            Some(training) => write!(f, "\n{training}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TrainedActivations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weights = match self.kept {
            true => "the result has the trained weights",
            false => "the result has the weights as they came, rounded, which do better",
        };
        write!(f, "trained {} epochs: {weights}", self.epochs)?;
        let [rounded, trained] = [&self.rounded, &self.trained];
        line(f, "validation", &rounded.validation, &trained.validation)?;
        match (&rounded.test, &trained.test) {
            (Some(rounded), Some(trained)) => line(f, "test", rounded, trained),
            _ => Ok(()),
        }
    }
}

impl From<&QuantisationReport> for Int8Result {
    fn from(report: &QuantisationReport) -> Self {
        let kept = report.layers.iter();
        let kept = kept.filter_map(|layer| Some((layer.name.clone(), layer.kept_f32.clone()?)));
        let training = report.training.as_ref();
        Self {
            int8_layers: report.int8_layers,
            layers: report.layers.len(),
            kept_f32: kept.collect(),
            held_out: report.held_out,
            top1: report.agreement.top1,
            error: report.agreement.error,
            epochs: training.map_or(0, |training| training.epochs),
            is_trained: training.is_some_and(|training| training.kept),
        }
    }
}

/// Scores on one set of samples: in f32, with rounded weights, and with trained ones.
fn line(
    f: &mut fmt::Formatter<'_>,
    part: &str,
    rounded: &SplitScore,
    trained: &SplitScore,
) -> fmt::Result {
    write!(f, "\n{part:<10}  ")?;
    match (rounded, trained) {
        (SplitScore::Errors(rounded), SplitScore::Errors(trained)) => write!(
            f,
            "f32 {:.2} %, rounded {:.2} % (p = {:.2}), trained {:.2} % (p = {:.2})",
            rounded.dense_percent,
            rounded.sparse_percent,
            rounded.mcnemar_p,
            trained.sparse_percent,
            trained.mcnemar_p
        ),
        (SplitScore::Fit(rounded), SplitScore::Fit(trained)) => write!(
            f,
            "R2 in f32 {:.4}, rounded {:.4}, trained {:.4}",
            rounded.dense_r2, rounded.sparse_r2, trained.sparse_r2
        ),
        _ => unreachable!("scores of one set are of one kind"),
    }
}
