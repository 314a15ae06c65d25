//! Outputs of a network for samples: their largest values, and files of them.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use sparsevd_format::{write_npy, write_npz};
use sparsevd_model::{Network, Op, terminal};
use sparsevd_runtime::{RuntimeError, Session};

use crate::error::PipelineError;
use crate::input_samples::InputSamples;

/// The values of one output for some samples.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputValues {
    /// Name of the output.
    pub name: String,
    /// `[samples, ...]`.
    pub shape: Vec<usize>,
    /// The values in C order.
    pub values: Vec<f32>,
}

/// One of the largest values of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TopClass {
    /// Index in the output.
    pub class: usize,
    /// Its value.
    pub value: f32,
    /// The value itself behind a softmax, else the softmax of the values.
    pub probability: f64,
}

impl OutputValues {
    /// Runs all samples; the outputs are in the order of the graph.
    ///
    /// # Errors
    /// Those of [`Session::run`].
    pub fn of(session: &Session, samples: &InputSamples) -> Result<Vec<Self>, RuntimeError> {
        let (count, length) = (samples.count, samples.length);
        session.plan().check_outputs(count, length)?;
        let mut outputs: Vec<Self> = (session.plan().outputs().iter())
            .map(|value| Self {
                name: value.name.clone(),
                shape: [&[count], value.tensor_type.shape(length).dims()].concat(),
                values: vec![0.0; count * value.elements(length)],
            })
            .collect();
        let mut named: Vec<(&str, &mut [f32])> = (outputs.iter_mut())
            .map(|o| (o.name.as_str(), o.values.as_mut_slice()))
            .collect();
        session.run(count, &samples.named()[..], &mut named[..])?;
        Ok(outputs)
    }

    /// Shape of one sample.
    pub fn sample_shape(&self) -> &[usize] {
        &self.shape[1..]
    }

    /// Numbers of one sample.
    pub fn elements(&self) -> usize {
        self.sample_shape().iter().product()
    }

    /// The `k` largest values of each sample, the largest first.
    pub fn top(&self, k: usize, network: &Network) -> Vec<Vec<TopClass>> {
        let node = network.graph.nodes.iter().find(|n| n.name == self.name);
        let is_probability = node.is_some_and(|n| matches!(n.op, Op::Softmax(_)));
        let samples = self.values.chunks_exact(self.elements().max(1));
        samples.map(|y| top(y, k, is_probability)).collect()
    }
}

/// The `k` largest of the outputs `y` of a sample.
fn top(y: &[f32], k: usize, is_probability: bool) -> Vec<TopClass> {
    let max = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |v: f32| f64::from(v - max).exp();
    let total: f64 = y.iter().map(|&v| exp(v)).sum();
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|&a, &b| y[b].total_cmp(&y[a]).then(a.cmp(&b)));
    let class = |class: usize| TopClass {
        class,
        value: y[class],
        probability: if is_probability {
            f64::from(y[class])
        } else {
            exp(y[class]) / total
        },
    };
    order.into_iter().take(k).map(class).collect()
}

/// The largest values of every output for some samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Predictions<'o> {
    /// Name of the network.
    pub network: &'o str,
    /// Samples.
    pub samples: usize,
    /// The outputs in the order of the graph.
    #[serde(flatten)]
    pub outputs: PredictedOutputs<'o>,
}

/// One output or several.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PredictedOutputs<'o> {
    /// Of a network with one output.
    One {
        /// Shape of one sample.
        output_shape: &'o [usize],
        /// The largest values by sample.
        results: Vec<SamplePrediction>,
    },
    /// Of a network with several.
    Several {
        /// The outputs.
        outputs: Vec<NamedPrediction<'o>>,
    },
}

/// The largest values of one of several outputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedPrediction<'o> {
    /// Name of the output.
    pub name: &'o str,
    /// Shape of one sample.
    pub shape: &'o [usize],
    /// The largest values by sample.
    pub results: Vec<SamplePrediction>,
}

/// The largest values of one sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SamplePrediction {
    /// Index of the sample.
    pub sample: usize,
    /// The largest first.
    pub top: Vec<TopClass>,
}

impl<'o> Predictions<'o> {
    /// The `k` largest values of each sample in each output.
    pub fn of(network: &'o Network, outputs: &'o [OutputValues], k: usize) -> Self {
        let results = |output: &OutputValues| {
            let samples = output.top(k, network).into_iter().enumerate();
            samples
                .map(|(sample, top)| SamplePrediction { sample, top })
                .collect()
        };
        let named = |output: &'o OutputValues| NamedPrediction {
            name: &output.name,
            shape: output.sample_shape(),
            results: results(output),
        };
        Self {
            network: &network.graph.name,
            samples: outputs.first().map_or(0, |o| o.shape[0]),
            outputs: match outputs {
                [output] => PredictedOutputs::One {
                    output_shape: output.sample_shape(),
                    results: results(output),
                },
                several => PredictedOutputs::Several {
                    outputs: several.iter().map(named).collect(),
                },
            },
        }
    }
}

impl fmt::Display for Predictions<'_> {
    /// A line for each sample, with the name of the output where there are several; each ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outputs {
            PredictedOutputs::One { results, .. } => {
                results.iter().try_for_each(|r| writeln!(f, "{r}"))
            }
            PredictedOutputs::Several { outputs } => outputs.iter().try_for_each(|output| {
                let mut results = output.results.iter();
                let name = terminal::name(output.name);
                results.try_for_each(|r| writeln!(f, "{name} {r}"))
            }),
        }
    }
}

impl fmt::Display for SamplePrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.sample)?;
        for top in &self.top {
            let percent = top.probability * 100.0;
            write!(f, "  {} ({percent:.1} %, {:.4})", top.class, top.value)?;
        }
        Ok(())
    }
}

/// Writes one output as an `.npy`, where `path` ends so, or as array `y` of an `.npz`, and several as arrays of their names. A file that
/// exists is overwritten.
///
/// # Errors
/// Several outputs for an `.npy`; a file that cannot be written.
pub fn write_outputs(path: &Path, outputs: &[OutputValues]) -> Result<(), PipelineError> {
    let is_npy = path.extension().is_some_and(|e| e == "npy");
    match outputs {
        [output] if is_npy => write_npy(path, &output.shape, &output.values)?,
        [output] => write_npz(path, &[("y", &output.shape, &output.values)])?,
        several if is_npy => {
            return Err(PipelineError::invalid(
                path.display(),
                format!("an .npz for {} outputs", several.len()),
                "an .npy, which holds one array",
            ));
        }
        several => {
            let arrays: Vec<(&str, &[usize], &[f32])> = (several.iter())
                .map(|o| (o.name.as_str(), o.shape.as_slice(), o.values.as_slice()))
                .collect();
            write_npz(path, &arrays)?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_with_their_probabilities() {
        let of = |y: &[f32], k, is_probability| -> Vec<(usize, f32, f64)> {
            let top = top(y, k, is_probability).into_iter();
            top.map(|t| (t.class, t.value, t.probability)).collect()
        };
        let ln2 = std::f32::consts::LN_2;
        let scores = of(&[0.0, ln2, 0.0], 2, false);
        assert_eq!((scores[0].0, scores[1].0), (1, 0), "the first of equals");
        assert!((scores[0].2 - 0.5).abs() < 1e-6 && (scores[1].2 - 0.25).abs() < 1e-6);
        assert_eq!(
            of(&[0.25, 0.75], 9, true),
            [(1, 0.75, 0.75), (0, 0.25, 0.25)]
        );
    }
}
