//! Measurements of a network by the runtime: errors, kernels, latency and memory.

use std::time::Duration;

use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::{self, SampleErrors};
use sparsevd_compressor::report::{ClassError, KernelChoice, SplitScore, Timing, was_trained_on};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Shape, memory};
use sparsevd_runtime::bench::measure;
use sparsevd_runtime::{Int8Mode, Plan, PlanOptions, Session, WeightMode};

use crate::error::PipelineError;
use crate::input_samples::InputSamples;
use crate::labelled::{EVALUATION_BATCH, predictions};
use crate::split::Split;
use crate::threads;

/// The larger of the two batches that latencies are measured at.
const LARGE_BATCH: usize = 64;

/// Multiply-adds of a dense run up to which that batch stays so large: a second, more or less. A network that is large itself is measured at
/// fewer samples, so that three runs of it are a matter of seconds. The time itself may not decide, as plans are made for the batch.
const MULTIPLY_ADDS: usize = 1 << 35;

/// Time per plan and batch.
const BUDGET: Duration = Duration::from_millis(200);

/// Scores of a network, as the runtime computes them, with the errors of each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// On the validation samples.
    pub validation: SampleErrors,
    /// On the test samples, where the data set has any.
    pub test: Option<SampleErrors>,
}

impl Scores {
    /// The scores of `network` on the samples of a run. `threads` of 0 are all cores.
    pub(crate) fn of(
        network: &Network,
        weights: WeightMode,
        samples: &Split,
        threads: usize,
    ) -> Result<Self, PipelineError> {
        let threads = threads::resolve(threads);
        // Int8 layers in int8, so that scores do not depend on the times of a machine.
        let options = PlanOptions {
            int8: Int8Mode::Always,
            ..options(weights, EVALUATION_BATCH, threads)?
        };
        let session = Session::new(Plan::new(network, &options)?, threads)?;
        let input = &network.graph.inputs[0].shape;
        let (validation, test) = samples.measured();
        Ok(Self {
            validation: errors(&session, input, validation)?,
            test: test.map(|test| errors(&session, input, test)).transpose()?,
        })
    }

    /// Errors by class of a dense network, which these are of, and of the sparse one, on the validation and on the test samples.
    pub(crate) fn classes_beside(&self, sparse: &Self) -> [Vec<ClassError>; 2] {
        let test = self.test.as_ref().zip(sparse.test.as_ref());
        [
            ClassError::of(&self.validation, &sparse.validation),
            test.map_or(vec![], |(dense, sparse)| ClassError::of(dense, sparse)),
        ]
    }

    /// Whether the network was probably trained on the validation samples; see [`was_trained_on`].
    pub(crate) fn saw_validation(&self) -> bool {
        let test = self.test.as_ref();
        test.is_some_and(|test| was_trained_on(&self.validation, test))
    }

    /// These scores, of a dense network, beside those of the sparse one.
    pub(crate) fn beside(&self, sparse: &Self) -> (SplitScore, Option<SplitScore>) {
        let test = self.test.as_ref().zip(sparse.test.as_ref());
        (
            SplitScore::new(&self.validation, &sparse.validation),
            test.map(|(dense, sparse)| SplitScore::new(dense, sparse)),
        )
    }
}

pub(crate) fn session(
    network: &Network,
    weights: WeightMode,
    batch: usize,
    threads: usize,
) -> Result<Session, PipelineError> {
    let options = options(weights, batch, threads)?;
    Ok(Session::new(Plan::new(network, &options)?, threads)?)
}

fn options(
    weights: WeightMode,
    batch: usize,
    threads: usize,
) -> Result<PlanOptions, PipelineError> {
    Ok(PlanOptions {
        weights,
        isa: Isa::from_env()?,
        threads,
        batch,
        ..PlanOptions::default()
    })
}

/// Errors of a session on samples.
fn errors(
    session: &Session,
    input: &Shape,
    samples: &dyn Samples,
) -> Result<SampleErrors, PipelineError> {
    let fill = |index: usize, x: &mut [f32]| fill_input(samples, index, [0, 0], input, x);
    let outputs = predictions(session, samples.len(), fill)?;
    Ok(objective::sample_errors(&outputs, &samples.targets()))
}

/// Writes the network's input for a sample in the layout of the runtime, channels first, moved `shift` pixels down and right.
pub(crate) fn fill_input(
    samples: &dyn Samples,
    index: usize,
    shift: [i32; 2],
    input: &Shape,
    out: &mut [f32],
) {
    let channels = match *input.dims() {
        [channels, _, _] => channels,
        _ => 1,
    };
    if channels == 1 {
        return samples.fill(index, shift, out);
    }
    let mut last = vec![0.0; out.len()];
    samples.fill(index, shift, &mut last);
    let area = out.len() / channels;
    for (position, pixel) in last.chunks_exact(channels).enumerate() {
        for (channel, &value) in pixel.iter().enumerate() {
            out[channel * area + position] = value;
        }
    }
}

/// Batches that plans of a network are made for and measured at: 1 and a larger one, where a run of that takes no minutes.
fn batches(dense: &Network) -> Result<Vec<usize>, PipelineError> {
    let types = dense.types()?;
    let multiply_adds = dense.graph.weighted_nodes().map(|node| {
        let weight = node.op.weight().and_then(|name| dense.tensors.get(name));
        let weight = weight.map_or(0, |weight| weight.shape().elements());
        let shape = types.get(node.name.as_str()).map(|t| t.shape(1));
        let dims = shape.as_ref().map_or(&[][..], Shape::dims);
        // How often each weight is multiplied: once for each pixel, or each vector of a sample.
        let times = match node.op.operator().window() {
            Some(_) => dims.iter().skip(1).product(),
            None => dims.iter().rev().skip(1).product::<usize>(),
        };
        weight.saturating_mul(times)
    });
    let each = multiply_adds.fold(1, usize::saturating_add);
    let mut large = LARGE_BATCH;
    while large > 1 && each.saturating_mul(large) > MULTIPLY_ADDS {
        large /= 2;
    }
    let mut batches = vec![1, large];
    batches.dedup();
    Ok(batches)
}

/// The kernels of the sparse plan of a network, by layer, at the batches that [`timings`] measures.
pub(crate) fn kernels(
    sparse: &Network,
    dense: &Network,
) -> Result<Vec<KernelChoice>, PipelineError> {
    let mut kernels = vec![];
    for batch in batches(dense)? {
        kernels.extend(kernels_of(&session(sparse, WeightMode::Sparse, batch, 1)?));
    }
    Ok(kernels)
}

fn kernels_of(session: &Session) -> impl Iterator<Item = KernelChoice> {
    let batch = session.plan().options().batch;
    let weighted = session.plan().nodes().iter().filter(|n| n.weights > 0);
    weighted.map(move |n| KernelChoice {
        layer: n.name.clone(),
        batch,
        kernel: n.kernel.clone(),
    })
}

/// Kernels of the sparse plan of `sparse`, and latency and memory of it and of the dense plan of `dense`, on one thread, over
/// `samples`, or over numbers from 0 to 1 where there are none.
pub(crate) fn timings(
    sparse: &Network,
    dense: &Network,
    samples: Option<&dyn Samples>,
) -> Result<(Vec<KernelChoice>, Vec<Timing>), PipelineError> {
    let (mut kernels, mut timings) = (vec![], vec![]);
    for batch in batches(dense)? {
        let count = 4 * batch;
        let elements = sparse.graph.inputs.iter().map(|i| i.shape.elements());
        let elements = elements
            .fold(0, usize::saturating_add)
            .saturating_mul(count);
        let what = || format!("{count} samples of input");
        memory::check_elements(what, elements, size_of::<f32>())?;
        let inputs = match samples {
            None => InputSamples::random(sparse, count, 1),
            Some(samples) => InputSamples::generate(sparse, count, 1, |input, len| {
                let mut all = vec![0.0; len];
                for (i, x) in all.chunks_exact_mut((len / count).max(1)).enumerate() {
                    fill_input(samples, i % samples.len(), [0, 0], &input.shape, x);
                }
                all
            }),
        };
        let sessions = [
            session(sparse, WeightMode::Sparse, batch, 1)?,
            session(dense, WeightMode::Dense, batch, 1)?,
        ];
        kernels.extend(kernels_of(&sessions[0]));
        let measured = measure(
            &[&sessions[0], &sessions[1]],
            batch,
            &inputs.named()[..],
            BUDGET,
        )?;
        timings.extend(measured.into_iter().map(|m| Timing {
            plan: m.plan.to_string(),
            batch: m.batch,
            threads: m.threads,
            p50_us: m.p50_us,
            p90_us: m.p90_us,
            p99_us: m.p99_us,
            items_per_s: m.items_per_s,
            weight_bytes: m.weight_bytes,
            arena_bytes: m.arena_bytes,
            runs: Some(m.runs),
        }));
    }
    Ok((kernels, timings))
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Dense, presets};

    use super::*;

    #[test]
    fn large_networks_are_measured_at_fewer_samples() {
        for (name, expected) in [
            ("lenet-300-100", &[1, 64][..]),
            ("resnet-20-mnist", &[1, 64]),
            ("mobilenet-v1", &[1, 32]),
            ("resnet-50", &[1, 8]),
        ] {
            let network = Network::from_preset(presets::by_name(name).unwrap(), |_, shape| {
                Dense::zeros(shape.clone()).into()
            });
            let network = network.unwrap();
            assert_eq!(batches(&network).unwrap(), expected, "{name}");
        }
    }
}
