//! A network with int8 layers: grids of their inputs, found on samples, and weights rounded row by row.

mod ranges;
mod report;
mod rounding;
mod samples;
mod training;

use std::collections::{BTreeSet, HashMap};
#[cfg(feature = "text")]
use std::path::Path;

use sparsevd_compressor::is_kept_dense;
use sparsevd_compressor::recipe::{QuantiseActivations, RangeChoice};
use sparsevd_kernels::select;
use sparsevd_model::quantised::RowBits;
use sparsevd_model::{Int8Input, Network, Node, Op, hint};
use sparsevd_runtime::Int8Mode;

use crate::data::Data;
#[cfg(feature = "text")]
use crate::encoder_folder::different;
use crate::error::PipelineError;
use crate::labelled::LabelledSamples;
use crate::pruning::folded;
use ranges::Numbers;
use rounding::{Rounded, round_tables, set, tables};
#[cfg(feature = "text")]
use samples::Texts;
use samples::{Compared, Samples, Set};

pub(crate) use training::quantise_at_end;

pub use report::{
    Agreement, Int8Scores, QuantisationReport, QuantisedLayer, RoundedTables, TrainedActivations,
};

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
    /// Bits of the integers that tables of embeddings are rounded to, with a scale for each row, as files then have them; `None` leaves them as they are. A table
    /// that four bits would change too much has eight.
    pub tables: Option<RowBits>,
}

impl Default for ActivationQuantisation {
    fn default() -> Self {
        (&QuantiseActivations::default()).into()
    }
}

impl From<&QuantiseActivations> for ActivationQuantisation {
    /// What a recipe says of it.
    fn from(settings: &QuantiseActivations) -> Self {
        Self {
            samples: settings.samples,
            held_out: 1000,
            range: settings.range,
            keep_f32: settings.keep_f32.clone(),
            max_error: settings.max_error,
            one_scale: false,
            dynamic: false,
            tables: None,
        }
    }
}

/// A network with int8 layers, and how near it is to the network in f32.
#[derive(Debug, Clone)]
pub struct QuantisedActivations {
    /// The network.
    pub network: Network,
    /// What was found.
    pub report: QuantisationReport,
    /// What training took; 0 without.
    pub training_seconds: f64,
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
        let network = self.prepared(network)?;
        let [calibration, held_out] = data.calibration_and_held_out(&network, self.samples)?;
        let fill = |set: &LabelledSamples, index: usize, x: &mut [f32]| set.fill_input(index, x);
        let samples = Samples {
            sets: [
                Set {
                    samples: calibration.len().min(self.samples),
                    fill: &|index, x| fill(&calibration, index, x),
                },
                Set {
                    samples: held_out.len().min(self.held_out),
                    fill: &|index, x| fill(&held_out, index, x),
                },
            ],
            threads,
        };
        self.quantise_on(&network, &samples)
    }

    /// The network in f32, with batch normalisation folded, after what can be refused before any work.
    fn prepared(&self, network: Network) -> Result<Network, PipelineError> {
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
        let [inputs, outputs] = [network.graph.inputs.len(), network.graph.outputs.len()];
        if [inputs, outputs] != [1, 1] {
            return Err(PipelineError::SeveralInputs { inputs, outputs });
        }
        self.check_network(&network)?;
        Ok(network)
    }

    fn quantise_on(
        &self,
        network: &Network,
        samples: &Samples<'_>,
    ) -> Result<QuantisedActivations, PipelineError> {
        let layers = self.layers(network);
        let inputs = self.inputs(network, &layers, samples)?;
        self.quantise(network, layers, &inputs, samples)
    }

    #[cfg(feature = "text")]
    /// Gives the linear layers of the encoder in `folder` ([`sparsevd_format::read_encoder`]) a scale for each vector, that is for each token. `samples` of
    /// the `texts` are to find out which layers stay f32, those behind them to compare on. Texts that come twice count once.
    ///
    /// # Errors
    /// Those of [`TextEncoder::open`](crate::TextEncoder::open); settings out of range, or without `dynamic`; fewer than two texts.
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
        self.check_network(&network)?;
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

    /// That it has the layers and tables that settings name.
    fn check_network(&self, network: &Network) -> Result<(), PipelineError> {
        check_names(network, &self.keep_f32)?;
        if self.tables.is_some() {
            tables(network)?;
        }
        Ok(())
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
        let mut start = network.clone();
        let tables = match self.tables {
            Some(bits) => {
                let tables = round_tables(&mut start, bits)?;
                let error = samples.outputs(&start, Int8Mode::Never)?;
                let error = error.compare(&expected, 0).error;
                if error > self.max_error {
                    let expected = format!(
                        "an error of at most {} by rounding them, as `max_error` says",
                        self.max_error
                    );
                    return Err(PipelineError::invalid(
                        "tables",
                        expected,
                        format!("{error:.2e}"),
                    ));
                }
                Some(RoundedTables { tables, error })
            }
            None => None,
        };
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
            let mut result = start.clone();
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
                tables,
                error,
                agreement: outputs.compare(&expected, 1),
                cosine: (!outputs.are_scores).then(|| outputs.cosines(&expected, 1)),
                training: None,
            };
            return Ok(QuantisedActivations {
                network: result,
                report,
                training_seconds: 0.0,
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
        samples: &Samples<'_>,
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

/// How the input of each layer becomes bytes, by the name of its node; `None` where it has numbers that are on no grid.
type Inputs = HashMap<String, Option<Int8Input>>;

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
