//! A network with int8 layers: grids of their inputs, found on samples, and weights rounded row by row.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
#[cfg(feature = "text")]
use std::path::Path;

use serde::Serialize;
use sparsevd_compressor::is_kept_dense;
use sparsevd_compressor::objective::arg_max;
use sparsevd_kernels::{Isa, select};
use sparsevd_model::{
    Csr, Int8Grid, Int8Input, MOST_LEVEL, Network, Node, Op, Weights, hint, quantised, terminal,
};
use sparsevd_runtime::{Int8Mode, Plan, PlanOptions, Session, WeightMode};

use crate::cosines::Cosines;
use crate::data::Data;
#[cfg(feature = "text")]
use crate::encoder_folder::{different, encoder_options};
use crate::error::PipelineError;
use crate::labelled::{EVALUATION_BATCH, LabelledSamples, predictions};
use crate::pruning::folded;
#[cfg(feature = "text")]
use crate::text_encoder::TextEncoder;

/// Samples that run together where the inputs of all layers are kept.
const BATCH: usize = 4;
/// Bins of the numbers of a value, from the least to the largest.
const BINS: usize = 2048;
/// Shares of a range that are tried, in this many equal steps.
const SHARES: usize = 80;
/// Share of the numbers of a value that [`RangeChoice::Percentile`] leaves outside of its range, at each end.
const OUTSIDE: f64 = 1e-4;

/// Which of the numbers that a layer reads its grid reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum RangeChoice {
    /// The range of the least mean squared error: a narrower one has finer steps, and cuts off more.
    #[default]
    Mse,
    /// All but one in ten thousand at each end.
    Percentile,
    /// All.
    Minmax,
}

/// How layers get their int8 grids.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivationQuantisation {
    /// Samples that ranges are found on.
    pub samples: usize,
    /// Most samples that the result is compared on.
    pub held_out: usize,
    /// How ranges are chosen.
    pub range: RangeChoice,
    /// Layers that stay f32, by the name of the node or of its weight.
    pub keep_f32: Vec<String>,
    /// Largest error of the outputs on the samples that ranges are found on: the root of the mean squared difference over that of the outputs' own deviation
    /// from the mean of their sample. Layers of the largest errors stay f32 until it is kept.
    pub max_error: f64,
    /// Whether all rows of a weight have one scale, as a packed file has it.
    pub one_scale: bool,
    /// Whether each vector that a linear layer reads has a scale of its own, found when it runs, in place of a grid found on samples.
    pub dynamic: bool,
}

impl Default for ActivationQuantisation {
    fn default() -> Self {
        Self {
            samples: 128,
            held_out: 1000,
            range: RangeChoice::default(),
            keep_f32: vec![],
            max_error: 0.1,
            one_scale: false,
            dynamic: false,
        }
    }
}

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
    fn of(outputs: &[f32], expected: &[f32], width: usize, are_scores: bool) -> Self {
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

/// A network with int8 layers, and how near it is to the network in f32.
#[derive(Debug, Clone)]
pub struct QuantisedActivations {
    /// The network.
    pub network: Network,
    /// What was found.
    pub report: QuantisationReport,
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

impl ActivationQuantisation {
    /// Gives int8 grids to the layers of a network.
    ///
    /// # Errors
    /// A network with several inputs or outputs, or a free dimension; data that is not for it, or of too few samples; a name in `keep_f32` that no layer has;
    /// settings out of range.
    pub fn run(
        &self,
        network: Network,
        data: Data,
        threads: usize,
    ) -> Result<QuantisedActivations, PipelineError> {
        self.check()?;
        let mut network = folded(network);
        network.int8 = sparsevd_model::Int8Grids::default();
        if let Some(symbol) = network.graph.free_symbol() {
            return Err(PipelineError::invalid(
                format!("network `{}`", network.graph.name),
                "inputs of known shapes",
                format!("the free dimension `{symbol}`"),
            ));
        }
        check_names(&network, &self.keep_f32)?;
        let [calibration, held_out] = data.calibration_and_held_out(&network, self.samples)?;
        let samples = Samples {
            calibration: calibration.len().min(self.samples),
            held_out: held_out.len().min(self.held_out),
            sets: [calibration, held_out],
            threads,
        };
        let layers = self.layers(&network);
        let inputs = self.inputs(&network, &layers, &samples)?;
        self.quantise(&network, layers, &inputs, &samples)
    }

    #[cfg(feature = "text")]
    /// Gives the linear layers of the encoder in `folder` ([`sparsevd_format::read_encoder`]) a scale for each vector, that is for each token. `samples` of
    /// the `texts` are to find out which layers stay f32, those behind them to compare on. Texts that come twice count once.
    ///
    /// # Errors
    /// Those of [`TextEncoder::open`]; settings out of range, or without `dynamic`; fewer than two texts.
    pub fn run_on_texts(
        &self,
        folder: impl AsRef<Path>,
        texts: &[impl AsRef<str>],
        threads: usize,
    ) -> Result<QuantisedActivations, PipelineError> {
        self.check()?;
        if !self.dynamic {
            let expected = "a scale for each vector, for the layers of an encoder";
            return Err(PipelineError::invalid(
                "scales",
                expected,
                "those of samples",
            ));
        }
        let folder = folder.as_ref();
        let mut network = sparsevd_format::read_encoder(folder)?.loaded.network;
        network.int8 = sparsevd_model::Int8Grids::default();
        check_names(&network, &self.keep_f32)?;
        let texts = different(texts);
        if texts.len() <= self.samples {
            let expected = format!(
                "more than {} different ones, of which the last are to compare on",
                self.samples
            );
            let got = texts.len().to_string();
            return Err(PipelineError::invalid("texts", expected, got));
        }
        let (calibration, held_out) = texts.split_at(self.samples);
        let texts = Texts {
            folder,
            sets: [calibration, &held_out[..held_out.len().min(self.held_out)]],
            threads,
        };
        let layers = self.layers(&network);
        let each = |layer: &QuantisedLayer| (layer.name.clone(), Some(Int8Input::PerVector));
        let inputs = layers.iter().map(each).collect();
        self.quantise(&network, layers, &inputs, &texts)
    }

    fn check(&self) -> Result<(), PipelineError> {
        if self.samples == 0 || self.held_out == 0 {
            return Err(PipelineError::invalid("samples", "one or more", "0"));
        }
        if !(self.max_error > 0.0 && self.max_error.is_finite()) {
            let got = self.max_error.to_string();
            return Err(PipelineError::invalid(
                "largest error",
                "a positive number",
                got,
            ));
        }
        Ok(())
    }

    fn quantise(
        &self,
        network: &Network,
        mut layers: Vec<QuantisedLayer>,
        inputs: &Inputs,
        samples: &dyn Compared,
    ) -> Result<QuantisedActivations, PipelineError> {
        let expected = samples.outputs(network, Int8Mode::Never)?;
        let mut quantised: HashMap<String, Rounded> = HashMap::new();
        for layer in &mut layers {
            if layer.kept_f32.is_some() {
                continue;
            }
            let Some(&Some(input)) = inputs.get(&layer.name) else {
                layer.kept_f32 = Some("inputs that are on no int8 grid".into());
                continue;
            };
            let mut alone = network.clone();
            if let Err(why) = set(&mut alone, &layer.name, input, self.one_scale) {
                layer.kept_f32 = Some(why);
                continue;
            }
            let outputs = samples.outputs(&alone, Int8Mode::Always)?;
            if !outputs.is_int8 {
                layer.kept_f32 = Some("no int8 kernel for it".into());
                continue;
            }
            layer.input = Some(input);
            layer.error = Some(outputs.compare(&expected, 0).error);
            layer.held_out = Some(outputs.compare(&expected, 1));
            quantised.insert(layer.name.clone(), Rounded::of(alone, input));
        }
        // The errors of layers alone say which to give up first; the error that counts is that of all together.
        loop {
            let mut result = network.clone();
            for layer in layers.iter().filter(|l| l.kept_f32.is_none()) {
                quantised[&layer.name].apply(&layer.name, &mut result);
            }
            let outputs = samples.outputs(&result, Int8Mode::Always)?;
            let error = outputs.compare(&expected, 0).error;
            let worst = layers.iter_mut().filter(|l| l.kept_f32.is_none());
            let worst = worst.max_by(|a, b| {
                let error = |l: &QuantisedLayer| l.error.unwrap_or(f64::INFINITY);
                error(a).total_cmp(&error(b))
            });
            if let Some(worst) = worst
                && error > self.max_error
            {
                worst.kept_f32 = Some(format!("the network's error would be {error:.2e}"));
                continue;
            }
            let report = QuantisationReport {
                network: network.graph.name.clone(),
                samples: outputs.samples(0),
                held_out: outputs.samples(1),
                range: (layers
                    .iter()
                    .any(|l| l.input.is_some_and(|i| i.grid().is_some())))
                .then_some(self.range),
                max_error: self.max_error,
                int8_layers: result.int8.inputs.len(),
                layers,
                error,
                agreement: outputs.compare(&expected, 1),
                cosine: (!outputs.are_scores).then(|| outputs.cosines(&expected, 1)),
            };
            return Ok(QuantisedActivations {
                network: result,
                report,
            });
        }
    }

    /// The layers of a network; those that cannot run in int8 say why.
    fn layers(&self, network: &Network) -> Vec<QuantisedLayer> {
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for name in network.graph.nodes.iter().flat_map(|n| n.op.tensors()) {
            *uses.entry(name).or_default() += 1;
        }
        let why = |node: &Node| {
            let weight = network.weight(node)?;
            let density = weight.nonzeros() as f64 / weight.shape().elements().max(1) as f64;
            let without_kernel = match &node.op {
                Op::Linear(_) if !select::prefer_sparse_conv(density, 1, 1) => {
                    Some("weights that are not sparse")
                }
                Op::Conv(_) | Op::Linear(_) => None,
                other => return Some(other.name().to_owned()),
            };
            if is_kept_dense(node, &self.keep_f32) {
                Some("as asked for".into())
            } else if let Some(why) = without_kernel {
                Some(why.into())
            } else if node.op.weight().is_some_and(|w| uses[w] > 1) {
                Some("weights of several nodes".into())
            } else {
                None
            }
        };
        let nodes = network.graph.weighted_nodes();
        nodes
            .map(|node| QuantisedLayer {
                name: node.name.clone(),
                kept_f32: why(node),
                input: None,
                error: None,
                held_out: None,
            })
            .collect()
    }

    /// How the input of each layer that may run in int8 becomes bytes.
    fn inputs(
        &self,
        network: &Network,
        layers: &[QuantisedLayer],
        samples: &Samples,
    ) -> Result<Inputs, PipelineError> {
        let nodes = network.graph.nodes.iter().filter(|n| {
            layers
                .iter()
                .any(|l| l.name == n.name && l.kept_f32.is_none())
        });
        let (each, by_grid): (Vec<&Node>, Vec<&Node>) =
            nodes.partition(|n| self.dynamic && matches!(n.op, Op::Linear(_)));
        let each = each.into_iter().map(|n| n.name.clone());
        let mut inputs: Inputs = each
            .map(|name| (name, Some(Int8Input::PerVector)))
            .collect();
        if by_grid.is_empty() {
            return Ok(inputs);
        }
        let read: Vec<(&str, &str)> = by_grid
            .into_iter()
            .map(|n| (n.name.as_str(), n.inputs[0].as_str()))
            .collect();
        let values: BTreeSet<&str> = read.iter().map(|(_, value)| *value).collect();
        let mut numbers: HashMap<&str, Numbers> = values
            .iter()
            .map(|value| (*value, Numbers::new()))
            .collect();
        for pass in [Numbers::widen, Numbers::count] {
            samples.visit(network, &values, &mut |value, x| {
                if let Some(numbers) = numbers.get_mut(value) {
                    pass(numbers, x);
                }
            })?;
        }
        let grid = |value: &str| numbers.get(value).and_then(|n| n.grid(self.range));
        let by_grid = read.into_iter().map(|(name, value)| {
            let grid = grid(value);
            (name.to_owned(), grid.map(Int8Input::from))
        });
        inputs.extend(by_grid);
        Ok(inputs)
    }
}

/// An int8 layer with its rounded weight.
struct Rounded {
    input: Int8Input,
    weights: Vec<(String, Weights, Option<f32>, Vec<f32>)>,
}

impl Rounded {
    /// The one int8 layer of a network.
    fn of(mut network: Network, input: Int8Input) -> Self {
        let rows = std::mem::take(&mut network.int8.rows);
        let weights = rows.into_iter().filter_map(|(name, rows)| {
            let weight = network.tensors.remove(&name)?;
            let scale = network.scales.get(&name).copied();
            Some((name, weight, scale, rows))
        });
        Self {
            input,
            weights: weights.collect(),
        }
    }

    /// Puts it in the place of the layer in f32.
    fn apply(&self, layer: &str, network: &mut Network) {
        for (name, weight, scale, rows) in &self.weights {
            network.tensors.insert(name.clone(), weight.clone());
            match scale {
                Some(scale) => network.scales.insert(name.clone(), *scale),
                None => network.scales.remove(name),
            };
            network.int8.rows.insert(name.clone(), rows.clone());
        }
        network.int8.inputs.insert(layer.to_owned(), self.input);
    }
}

/// How the input of each layer becomes bytes, by the name of its node; `None` where it has numbers that are on no grid.
type Inputs = HashMap<String, Option<Int8Input>>;

/// Samples that layers are chosen on, and others to compare on.
trait Compared {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError>;
}

/// Texts of an encoder.
#[cfg(feature = "text")]
struct Texts<'a> {
    folder: &'a Path,
    sets: [&'a [&'a str]; 2],
    threads: usize,
}

#[cfg(feature = "text")]
impl Compared for Texts<'_> {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError> {
        let options = PlanOptions {
            int8,
            ..encoder_options(self.threads)?
        };
        let encoder = TextEncoder::with_network(self.folder, Some(network), &options)?;
        let [calibration, held_out] = self.sets;
        let [calibration, held_out] = [encoder.embed(calibration)?, encoder.embed(held_out)?];
        Ok(Outputs {
            width: calibration.width,
            values: [calibration.values, held_out.values],
            is_int8: encoder.plan().nodes().iter().any(|node| node.is_int8),
            are_scores: false,
        })
    }
}

/// Samples that ranges are found on, and others.
struct Samples {
    sets: [LabelledSamples; 2],
    calibration: usize,
    held_out: usize,
    threads: usize,
}

/// Outputs for the samples that ranges are found on, and for the others, with the number of outputs of a sample.
struct Outputs {
    values: [Vec<f32>; 2],
    width: usize,
    /// Whether a layer ran in int8.
    is_int8: bool,
    /// Whether the outputs are scores of classes, and no embeddings.
    are_scores: bool,
}

impl Outputs {
    /// Samples of one of the two sets.
    fn samples(&self, set: usize) -> usize {
        self.values[set].len() / self.width.max(1)
    }

    /// Compares the outputs of one of the two sets.
    fn compare(&self, expected: &Self, set: usize) -> Agreement {
        let [outputs, expected] = [&self.values[set], &expected.values[set]];
        Agreement::of(outputs, expected, self.width, self.are_scores)
    }

    /// The cosines of embeddings of one of the two sets.
    fn cosines(&self, expected: &Self, set: usize) -> Cosines {
        Cosines::of(&self.values[set], &expected.values[set], self.width)
    }
}

impl Samples {
    fn session(
        &self,
        network: &Network,
        batch: usize,
        int8: Int8Mode,
    ) -> Result<Session, PipelineError> {
        let options = PlanOptions {
            weights: WeightMode::Sparse,
            isa: Isa::from_env()?,
            threads: self.threads,
            batch,
            int8,
            ..PlanOptions::default()
        };
        Ok(Session::new(Plan::new(network, &options)?, self.threads)?)
    }

    /// Calls `visit` with the numbers that some values have on the samples that ranges are found on.
    fn visit(
        &self,
        network: &Network,
        values: &BTreeSet<&str>,
        visit: &mut dyn FnMut(&str, &[f32]),
    ) -> Result<(), PipelineError> {
        let input = &network.graph.inputs[0];
        let elements = input.shape.elements();
        let inner: Vec<String> = (values.iter())
            .filter(|value| **value != input.name)
            .map(|value| (*value).to_owned())
            .collect();
        let mut inside = network.clone();
        let session = match inner.is_empty() {
            true => None,
            false => {
                inside.graph.outputs = inner;
                Some(self.session(&inside, BATCH, Int8Mode::Never)?)
            }
        };
        for first in (0..self.calibration).step_by(BATCH) {
            let count = BATCH.min(self.calibration - first);
            let mut x = vec![0.0; count * elements];
            for (i, x) in x.chunks_exact_mut(elements.max(1)).enumerate() {
                self.sets[0].fill_input(first + i, x);
            }
            if values.contains(input.name.as_str()) {
                visit(&input.name, &x);
            }
            let Some(session) = &session else { continue };
            session.plan().check_outputs(count, 1)?;
            let mut outputs: Vec<(&str, Vec<f32>)> = (session.plan().outputs().iter())
                .map(|o| (o.name.as_str(), vec![0.0; count * o.elements(1)]))
                .collect();
            let mut named: Vec<(&str, &mut [f32])> = outputs
                .iter_mut()
                .map(|(name, y)| (*name, y.as_mut_slice()))
                .collect();
            session.run(count, &[(input.name.as_str(), &x[..])][..], &mut named[..])?;
            for (name, y) in &outputs {
                visit(name, y);
            }
        }
        Ok(())
    }
}

impl Compared for Samples {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError> {
        let session = self.session(network, EVALUATION_BATCH, int8)?;
        let [calibration, held_out] = &self.sets;
        let of = |set: &LabelledSamples, count| {
            predictions(&session, count, |index, x| set.fill_input(index, x))
        };
        Ok(Outputs {
            values: [
                of(calibration, self.calibration)?,
                of(held_out, self.held_out)?,
            ],
            width: session.plan().output_shape().elements(),
            is_int8: session.plan().nodes().iter().any(|node| node.is_int8),
            are_scores: true,
        })
    }
}

/// The numbers that a value has.
struct Numbers {
    least: f32,
    most: f32,
    finite: bool,
    /// How many there are in each bin from the least to the largest.
    bins: Vec<u64>,
}

impl Numbers {
    fn new() -> Self {
        Self {
            least: 0.0,
            most: 0.0,
            finite: true,
            bins: vec![0; BINS],
        }
    }

    /// First pass: their range.
    fn widen(&mut self, x: &[f32]) {
        for &v in x {
            self.finite &= v.is_finite();
            self.least = self.least.min(v);
            self.most = self.most.max(v);
        }
    }

    /// Second pass: their distribution.
    fn count(&mut self, x: &[f32]) {
        let per_bin = BINS as f32 / (self.most - self.least);
        if self.finite && per_bin.is_finite() {
            for &v in x {
                let bin = ((v - self.least) * per_bin) as usize;
                self.bins[bin.min(BINS - 1)] += 1;
            }
        }
    }

    /// The number in the middle of a bin.
    fn middle(&self, bin: usize) -> f32 {
        self.least + (bin as f32 + 0.5) * ((self.most - self.least) / BINS as f32)
    }

    fn grid(&self, range: RangeChoice) -> Option<Int8Grid> {
        if !self.finite {
            return None;
        }
        let all = Int8Grid::of_range(self.least, self.most);
        match range {
            RangeChoice::Minmax => all,
            RangeChoice::Percentile => {
                let [least, most] = self.percentiles();
                Int8Grid::of_range(least, most)
            }
            RangeChoice::Mse => {
                let shares = (1..=SHARES).rev().map(|i| i as f32 / SHARES as f32);
                let grids = shares.filter_map(|share| {
                    let grid = Int8Grid::of_range(share * self.least, share * self.most)?;
                    Some((self.squares(grid), grid))
                });
                grids
                    .min_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(_, grid)| grid)
            }
        }
    }

    /// The ends between which all but [`OUTSIDE`] of the numbers are, at each end.
    fn percentiles(&self) -> [f32; 2] {
        let all: u64 = self.bins.iter().sum();
        let outside = (all as f64 * OUTSIDE) as u64;
        let first = |bin: fn(usize) -> usize| {
            let mut seen = 0;
            let bins = (0..BINS).map(bin);
            let mut inner = bins.skip_while(|&bin| {
                seen += self.bins[bin];
                seen <= outside
            });
            inner.next().map_or(0.0, |bin| self.middle(bin))
        };
        [first(|i| i), first(|i| BINS - 1 - i)]
    }

    /// The sum of the squared errors of a grid.
    fn squares(&self, grid: Int8Grid) -> f64 {
        let bins = self
            .bins
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        bins.map(|(bin, &count)| {
            let v = self.middle(bin);
            let error = f64::from(grid.value(grid.byte(v)) - v);
            count as f64 * error * error
        })
        .sum()
    }
}

/// Lets one layer run in int8, with its weights rounded; why it cannot, where it cannot.
fn set(network: &mut Network, name: &str, input: Int8Input, one_scale: bool) -> Result<(), String> {
    let node = network.graph.nodes.iter().find(|n| n.name == name);
    let weight = node.and_then(|n| n.op.weight()).map(str::to_owned);
    let Some((weight, tensor)) = weight.and_then(|w| Some((w.clone(), network.tensors.get(&w)?)))
    else {
        return Err("no weight".into());
    };
    // Dense ones too: grids of rows are those of values in CSR.
    let csr = match tensor {
        Weights::Csr(csr) => csr.clone(),
        other => Csr::from_dense(&other.to_dense()),
    };
    let rounded = rounded(&csr, one_scale);
    let rows = csr.rows();
    network.tensors.insert(weight.clone(), csr.into());
    // A weight on a grid of its own that int8 has stays as it is.
    if let Some(&scale) = network.scales.get(&weight)
        && network.set_int8(name, input, vec![scale; rows]).is_ok()
    {
        return Ok(());
    }
    let (csr, rows) = rounded.ok_or_else(|| "weights that are on no int8 grid".to_owned())?;
    network.tensors.insert(weight.clone(), Weights::Csr(csr));
    match rows.first() {
        Some(&scale) if one_scale => network.scales.insert(weight, scale),
        _ => network.scales.remove(&weight),
    };
    let done = network.set_int8(name, input, rows);
    done.map_err(|error| error.to_string())
}

/// A weight whose rows are integers up to [`MOST_LEVEL`] times their scales, and these, which may be one. Zeros stay, and what rounds to zero leaves.
fn rounded(csr: &Csr, one_scale: bool) -> Option<(Csr, Vec<f32>)> {
    let most = MOST_LEVEL as f32;
    let largest = |numbers: &[f32]| numbers.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let of_all = one_scale.then(|| largest(csr.values()));
    let (mut starts, mut columns, mut values, mut rows) = (vec![0], vec![], vec![], vec![]);
    for row in 0..csr.rows() {
        let (of_row, numbers) = csr.row(row);
        let scale = match of_all.unwrap_or_else(|| largest(numbers)) {
            0.0 => 1.0,
            largest => quantised::nearest_scale(largest / most, quantised::STEP_BITS)?,
        };
        for (column, v) in of_row.iter().zip(numbers) {
            let level = (v / scale).round_ties_even().clamp(-most, most) as i32;
            if level != 0 {
                columns.push(*column);
                values.push(quantised::value(level, scale));
            }
        }
        starts.push(u32::try_from(values.len()).ok()?);
        rows.push(scale);
    }
    let csr = Csr::try_new(csr.shape().clone(), starts, columns, values).ok()?;
    Some((csr, rows))
}

/// Checks that layers have these names.
fn check_names(network: &Network, names: &[String]) -> Result<(), PipelineError> {
    let layers: Vec<&Node> = network.graph.weighted_nodes().collect();
    match names.iter().find(|name| {
        !layers
            .iter()
            .any(|node| is_kept_dense(node, std::slice::from_ref(name)))
    }) {
        None => Ok(()),
        Some(name) => Err(PipelineError::invalid(
            "layers that stay f32",
            "names of layers or of their weights",
            format!(
                "`{name}`{}",
                hint(name, layers.iter().map(|node| node.name.as_str()))
            ),
        )),
    }
}
