//! Targets for inputs that have none: the answers of the network that is to be compressed.

use std::thread;

use sparsevd_compressor::objective::{Loss, arg_max};
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::{Dataset, RegressionSet};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Op, Preprocessing};
use sparsevd_runtime::{Plan, PlanOptions, RuntimeError, Session, WeightMode};

use crate::error::PipelineError;
use crate::labelled::EVALUATION_BATCH;
use crate::sample_set::SampleSet;
use crate::threads;

/// Batches between two questions whether to stop, for each thread.
const BATCHES: usize = 4;

/// Most classes: labels have 16 bits.
const MOST_CLASSES: usize = 1 << 16;

/// Whether the answers of a network with this many outputs are classes: by the loss, where a recipe names one; otherwise several outputs are
/// scores of classes, and a single one is a number.
pub(crate) fn are_classes(outputs: usize, loss: Option<Loss>) -> bool {
    loss.map_or(outputs > 1, |loss| loss == Loss::CrossEntropy)
}

/// A network whose answers are targets.
pub(crate) struct Answers {
    session: Session,
    threads: usize,
    /// The outputs are scores of classes, else numbers.
    classes: bool,
}

impl Answers {
    /// The answers of `network`, which do not depend on the number of `threads`; 0 takes one per core.
    pub fn of(
        network: &Network,
        loss: Option<Loss>,
        threads: usize,
    ) -> Result<Self, PipelineError> {
        let options = PlanOptions {
            weights: WeightMode::Dense,
            isa: Isa::from_env()?,
            threads: 1,
            batch: EVALUATION_BATCH,
            ..PlanOptions::default()
        };
        let session = Session::new(Plan::new(network, &options)?, 1)?;
        let outputs = session.plan().output_shape().elements();
        let classes = are_classes(outputs, loss);
        if classes && outputs > MOST_CLASSES {
            return Err(PipelineError::invalid(
                format!("network `{}`", network.graph.name),
                format!("at most {MOST_CLASSES} outputs, which are scores of classes"),
                outputs.to_string(),
            ));
        }
        Ok(Self {
            session,
            threads: threads::resolve(threads),
            classes,
        })
    }

    /// What the answers are and what they are for, for the user.
    pub fn describe(&self, network: &Network, recipe: &Recipe) -> String {
        let outputs = self.session.plan().output_shape().elements();
        let graph = &network.graph;
        let softmax = (graph.nodes.iter())
            .any(|n| matches!(n.op, Op::Softmax(_)) && graph.outputs.contains(&n.name));
        let what = match (self.classes, softmax) {
            (true, true) => format!("probabilities of {outputs} classes"),
            (true, false) => format!(
                "taken for scores of {outputs} classes (`loss = \"squared-error\"` in a recipe takes them for numbers)"
            ),
            (false, _) => "numbers".into(),
        };
        let learns = match recipe.phases.is_empty() {
            true => "",
            false => "it learns from them, and ",
        };
        format!(
            "the inputs have no labels: the network's own answers as it came, which are {what}, take their place; {learns}errors count where \
             the result answers otherwise"
        )
    }

    /// A set with the answers as targets; one that has targets as it is.
    pub fn to(
        &self,
        set: SampleSet,
        preprocessing: &Preprocessing,
        observer: &mut dyn Observer,
    ) -> Result<SampleSet, PipelineError> {
        let SampleSet::Inputs(inputs) = set else {
            return Ok(set);
        };
        let width = self.session.plan().output_shape().elements();
        let kept = if self.classes { 0 } else { inputs.len() };
        self.session.plan().check_outputs(kept, 1)?;
        let (mut labels, mut numbers) = (vec![], vec![]);
        let piece = BATCHES * self.threads * EVALUATION_BATCH;
        for first in (0..inputs.len()).step_by(piece) {
            if observer.stop() {
                return Err(PipelineError::Interrupted { folder: None });
            }
            let mut outputs = vec![0.0; piece.min(inputs.len() - first) * width];
            self.compute(&inputs, preprocessing, first, &mut outputs)?;
            if self.classes {
                labels.extend(outputs.chunks_exact(width).map(|o| arg_max(o) as u16));
            } else {
                numbers.extend(outputs);
            }
        }
        if self.classes {
            let set = Dataset::new(inputs.pixels, inputs.shape, labels)?;
            return Ok(SampleSet::Classes(set));
        }
        Ok(SampleSet::Numbers(RegressionSet::of(
            inputs, numbers, width,
        )?))
    }

    /// Outputs of the inputs from `first` on. Threads take batches in turn, and each batch runs on one.
    fn compute(
        &self,
        inputs: &Dataset,
        preprocessing: &Preprocessing,
        first: usize,
        outputs: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let plan = self.session.plan();
        let (inn, out) = (
            plan.input_shape().elements(),
            plan.output_shape().elements(),
        );
        let run = |batch: usize, y: &mut [f32]| {
            let n = y.len() / out;
            let mut x = vec![0.0; n * inn];
            for (i, x) in x.chunks_exact_mut(inn).enumerate() {
                inputs.fill_input(first + batch * EVALUATION_BATCH + i, preprocessing, x);
            }
            self.session.run(n, &x, y)
        };
        let mut of_threads: Vec<Vec<(usize, &mut [f32])>> = vec![];
        of_threads.resize_with(self.threads, Vec::new);
        for (batch, y) in outputs.chunks_mut(EVALUATION_BATCH * out).enumerate() {
            of_threads[batch % self.threads].push((batch, y));
        }
        thread::scope(|scope| {
            let threads: Vec<_> = (of_threads.into_iter())
                .map(|batches| {
                    scope.spawn(|| batches.into_iter().try_for_each(|(batch, y)| run(batch, y)))
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                let result = thread.join();
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}
