//! What was found of a network with int8 layers.

use std::fmt;

use serde::Serialize;
use sparsevd_compressor::objective::arg_max;
use sparsevd_model::{Int8Grid, Int8Input, terminal};

use super::ranges::RangeChoice;
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
    /// Layers that may run in int8.
    pub int8_layers: usize,
    /// Error on the samples that ranges were found on.
    pub error: f64,
    /// Outputs on held-out samples, of the whole network with its int8 layers.
    pub agreement: Agreement,
    /// Of embeddings: their cosines to those in f32, on the same samples.
    pub cosine: Option<Cosines>,
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
        match self.cosine {
            Some(cosine) => write!(f, "\n{cosine}"),
            None => Ok(()),
        }
    }
}
