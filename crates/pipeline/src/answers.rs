//! Targets for inputs that have none: the answers of the network that is to be compressed.

use std::thread;

use sparsevd_compressor::objective::{Loss, arg_max};
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::{Dataset, RegressionSet};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Op, Preprocessing};
use sparsevd_runtime::{Plan, PlanOptions, RuntimeError, Session, WeightMode};

use crate::error::PipelineError;
use crate::labelled::EVALUATION_BATCH;
use crate::sample_set::SampleSet;

/// Batches between two questions whether to stop, for each thread.
const BATCHES: usize = 4;

/// A network whose answers are targets.
pub(crate) struct Answers {
    session: Session,
    threads: usize,
    /// The outputs are scores of classes, else numbers.
    classes: bool,
}

impl Answers {
    /// The answers of `network`; `loss` says what its outputs are where a recipe does. Otherwise they are scores of classes where a
    /// softmax makes them probabilities or where there are several, and a single output is a number. The answers do not depend on the
    /// number of threads.
    pub fn of(network: &Network, loss: Option<Loss>) -> Result<Self, PipelineError> {
        let options = PlanOptions {
            weights: WeightMode::Dense,
            isa: Isa::from_env()?,
            threads: 1,
            batch: EVALUATION_BATCH,
            ..PlanOptions::default()
        };
        let session = Session::new(Plan::new(network, &options)?, 1)?;
        let several = session.plan().output_shape().elements() > 1;
        Ok(Self {
            session,
            threads: thread::available_parallelism().map_or(1, usize::from),
            classes: loss.map_or(several, |loss| loss == Loss::CrossEntropy),
        })
    }

    /// What the answers are, for the user.
    pub fn describe(&self, network: &Network) -> String {
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
        format!(
            "the inputs have no labels: the network learns from its own answers as it came, which are {what}, and errors count where the \
             result answers otherwise"
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
        self.session.plan().check_outputs(inputs.len(), 1)?;
        let mut outputs = vec![0.0; inputs.len() * width];
        let piece = BATCHES * self.threads * EVALUATION_BATCH;
        for (i, outputs) in outputs.chunks_mut(piece * width).enumerate() {
            if observer.stop() {
                return Err(PipelineError::Interrupted { folder: None });
            }
            self.compute(&inputs, preprocessing, i * piece, outputs)?;
        }
        Ok(if self.classes {
            let labels = outputs.chunks_exact(width).map(|o| arg_max(o) as u16);
            let labels = labels.collect();
            SampleSet::Classes(Dataset::new(inputs.pixels, inputs.shape, labels)?)
        } else {
            SampleSet::Numbers(RegressionSet::of(inputs, outputs, width)?)
        })
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
                thread
                    .join()
                    .unwrap_or_else(|p| std::panic::resume_unwind(p))
            })
        })
    }
}
