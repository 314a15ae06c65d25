//! Reads networks and samples, and makes sessions, as the options of the command line say.

use std::path::Path;

use anyhow::Context;
use sparsevd_cli::VerbosityArgs;
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, memory};
use sparsevd_pipeline::{
    Data, DataSplit, DenseShapes, InputSamples, KernelCosts, LabelledSamples, plan_choices,
};
use sparsevd_runtime::{Int8Mode, Plan, PlanOptions, Session, WeightMode, WeightType};

use crate::args::ModelArgs;

/// About how many samples of input runs take by turns: whole batches, at least one.
const SAMPLES: usize = 256;

/// A network with the preprocessing and the type of weights that the command line sets.
pub struct Model {
    pub network: Network,
    /// What was guessed when its file was read.
    pub warnings: Vec<String>,
    values: WeightType,
    int8: Int8Mode,
    verbosity: VerbosityArgs,
}

impl ModelArgs {
    /// Reads the network, with the preprocessing that the command line sets.
    pub fn load(&self) -> anyhow::Result<Model> {
        let mut loaded = sparsevd_cli::network(&self.model, &self.graph, self.verbosity.quiet)?;
        if self.verbosity.talks() {
            loaded
                .notes
                .iter()
                .for_each(|note| sparsevd_cli::note(note));
        }
        if self.pixels.are_given() {
            let graph = &mut loaded.network.graph;
            let p = self
                .pixels
                .over(graph.preprocessing.take().unwrap_or_default());
            if let Some(input) = graph.inputs.first() {
                p.check(&input.shape)?;
            }
            graph.preprocessing = Some(p);
        }
        Ok(Model {
            network: loaded.network,
            warnings: loaded.warnings,
            values: self.values,
            int8: self.int8,
            verbosity: self.verbosity,
        })
    }
}

impl Model {
    /// The network of a plan with these weights, in the shapes that `--dense-shapes` selects.
    pub fn shaped(&self, shapes: DenseShapes, weights: WeightMode) -> anyhow::Result<Self> {
        Ok(Self {
            network: shapes.network(&self.network, weights)?,
            warnings: vec![],
            values: self.values,
            int8: self.int8,
            verbosity: self.verbosity,
        })
    }

    /// The part `split` of the data set at `path`.
    pub fn labelled(&self, path: &Path, split: DataSplit) -> anyhow::Result<LabelledSamples> {
        let data = Data::load_for(path, self.network.graph.preprocessing.as_ref())?;
        Ok(data.part(split, &self.network)?)
    }

    /// Whole batches of samples: test images where a set is given, those of files where they are given, else random numbers, with `length`
    /// elements in a free dimension.
    pub fn samples(
        &self,
        data: Option<&Path>,
        files: &[String],
        [batch, length]: [usize; 2],
    ) -> anyhow::Result<InputSamples> {
        let count = batch.saturating_mul((SAMPLES / batch).max(1));
        let elements = self.network.graph.inputs.iter();
        let elements = elements.map(|i| i.tensor_type().elements(length));
        let elements = elements
            .fold(0, usize::saturating_add)
            .saturating_mul(count);
        let what = || format!("{count} samples of input");
        memory::check_elements(what, elements, size_of::<f32>())?;
        if !files.is_empty() {
            return Ok(InputSamples::read(files, None, None, &self.network)?.cycled(count));
        }
        Ok(match data {
            None => InputSamples::random(&self.network, count, length),
            Some(path) => {
                let set = self.labelled(path, DataSplit::Test).context("--data")?;
                set.inputs(&self.network, count, length)
            }
        })
    }

    /// A plan for `batch` samples at a time, whose free dimension has `length` elements. `like` holds samples as they will come, by the
    /// name of the input, or nothing.
    pub fn plan(
        &self,
        weights: WeightMode,
        [batch, length, threads]: [usize; 3],
        like: &[(&str, &[f32])],
    ) -> anyhow::Result<Plan> {
        let isa = Isa::from_env()?;
        let options = PlanOptions {
            weights,
            isa,
            threads,
            batch,
            length,
            values: self.values,
            int8: self.int8,
            costs: KernelCosts::of(isa)?,
        };
        let plan = match like {
            [] => Plan::new(&self.network, &options)?,
            _ => Plan::calibrated(&self.network, &options, like)?,
        };
        self.verbosity.explain(|| plan_choices(&plan).join("\n"));
        Ok(plan)
    }

    /// A session of such a plan, with its memory.
    pub fn session(
        &self,
        weights: WeightMode,
        size: [usize; 3],
        like: &[(&str, &[f32])],
    ) -> anyhow::Result<Session> {
        let [_, _, threads] = size;
        let plan = self.plan(weights, size, like)?;
        self.verbosity.explain(|| plan.to_string());
        Session::new(plan, threads).context("session")
    }
}

/// The number of threads that the command line sets, else that of the machine's cores.
pub fn all_threads(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
