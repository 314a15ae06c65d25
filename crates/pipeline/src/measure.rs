//! Measurements of a network by the runtime: errors, kernels, latency and memory.

use std::time::Duration;

use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::{self, SampleErrors};
use sparsevd_compressor::report::{ClassError, KernelChoice, SplitScore, Timing, was_trained_on};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Shape, memory};
use sparsevd_runtime::bench::measure;
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};

use crate::error::PipelineError;
use crate::input_samples::InputSamples;
use crate::labelled::{EVALUATION_BATCH, predictions};
use crate::split::Split;
use crate::threads;

/// Batches that latencies are measured at.
const BATCHES: [usize; 2] = [1, 64];

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
        let session = session(network, weights, EVALUATION_BATCH, threads)?;
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
    let options = PlanOptions {
        weights,
        isa: Isa::from_env()?,
        threads,
        batch,
        ..PlanOptions::default()
    };
    Ok(Session::new(Plan::new(network, &options)?, threads)?)
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

/// Kernels of the sparse plan of `sparse`, and latency and memory of it and of the dense plan of `dense`, on one thread, over
/// `samples`, or over numbers from 0 to 1 where there are none.
pub(crate) fn timings(
    sparse: &Network,
    dense: &Network,
    samples: Option<&dyn Samples>,
) -> Result<(Vec<KernelChoice>, Vec<Timing>), PipelineError> {
    let (mut kernels, mut timings) = (vec![], vec![]);
    for batch in BATCHES {
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
        let weighted = sessions[0].plan().nodes().iter().filter(|n| n.weights > 0);
        kernels.extend(weighted.map(|n| KernelChoice {
            layer: n.name.clone(),
            batch,
            kernel: n.kernel.clone(),
        }));
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
        }));
    }
    Ok((kernels, timings))
}
