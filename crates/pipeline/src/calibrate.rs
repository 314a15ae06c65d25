//! Pruning in one shot by what layers read: the outputs of each layer on some samples stay as near as they can to what they were.

mod allocation;
pub(crate) mod inputs;
mod reader;

use std::collections::HashMap;

use rayon::{ThreadPool, ThreadPoolBuilder};
use sparsevd_compressor::report::Calibration;
use sparsevd_compressor::trainer::Observer;
use sparsevd_compressor::{Magnitude, Moments, Scope, Surgeon, is_kept_dense};
use sparsevd_model::{Csr, Network, Node, Op, Weights, memory};
use sparsevd_runtime::WeightMode;

use self::allocation::{allocate, measured, of_outputs};
use self::inputs::{BATCH, Batches};
use self::reader::Reader;
use crate::error::PipelineError;
use crate::measure::session;
use crate::threads;

/// Rows that a layer is measured on where its inputs have more, but no fewer than [`LEAST_ROWS_PER_INPUT`] for each weight of a unit:
/// enough that their products are those of the data.
const ROWS: usize = 65_536;
const LEAST_ROWS_PER_INPUT: usize = 8;
/// A layer whose units have more weights stays dense: its products and their inverse are half a dozen matrices of as many rows and
/// columns, in double precision.
const MOST_INPUTS: usize = 4608;
/// Matrices of a layer that are in memory together: of products, damped and inverted, and factors.
const MATRICES: usize = 6;

/// The outputs of the network are measured on one batch of this number.
const MEASURED_BATCHES: usize = 4;

/// A layer that is pruned.
struct Layer<'n> {
    node: &'n Node,
    weight: &'n str,
    bias: Option<&'n str>,
    /// What it reads.
    value: &'n str,
    units: usize,
    /// Weights of a unit.
    inputs: usize,
}

/// Prunes a network by what its layers read of some inputs. What is not pruned is told to the observer.
pub(crate) fn calibrate(
    network: &Network,
    settings: &Calibration,
    inputs: &dyn Batches,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Network, PipelineError> {
    let magnitude = Magnitude {
        sparsity: settings.sparsity,
        scope: Scope::Global,
        every_layer: settings.every_layer,
        keep_dense: settings.keep_dense.clone(),
    };
    let names = magnitude.pruned(network)?;
    let (layers, left_out) = layers(network, &names, &settings.keep_dense);
    if !left_out.is_empty() {
        observer.note(&format!("not pruned: {}", left_out.join(", ")));
    }
    observer.note(&format!(
        "calibrating {} layers on {} samples",
        layers.len(),
        inputs.sizes().iter().map(|(count, _)| count).sum::<usize>()
    ));
    let threads = threads::resolve(threads);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| {
        PipelineError::invalid("threads", "some that can be started", error.to_string())
    })?;
    let run = Run {
        inputs,
        threads,
        pool,
    };
    // Layers that read the same value are measured together, such as the queries, keys and values of attention.
    let same: Vec<&[Layer<'_>]> = layers.chunk_by(|a, b| a.reads_as(b)).collect();
    // How many weights each layer is to lose, by what that costs the outputs of the dense network.
    let outputs = run.outputs(network, observer)?;
    if outputs.iter().flatten().any(|y| !y.is_finite()) {
        let what = "calibration: outputs of the network";
        return Err(PipelineError::invalid(what, "finite ones", "others"));
    }
    let variances: Vec<f64> = outputs.iter().map(|y| spread(y)).collect();
    let mut tried = network.clone();
    let mut costs = vec![];
    for layers in &same {
        let moments = run.moments(network, None, &layers[0], observer)?;
        for layer in *layers {
            let surgeon = run.surgeon(network, layer, &moments, observer)?;
            let of_layer = run.pool.install(|| surgeon.costs());
            let mut errors = vec![];
            for removed in measured(&of_layer) {
                let tensors = run.pool.install(|| surgeon.prune_quickly(removed))?;
                layer.set(&mut tried, tensors);
                let others = run.outputs(&tried, observer)?;
                let each = outputs.iter().zip(&others).zip(&variances);
                let error: f64 = each.map(|((a, b), v)| difference(a, b) / v).sum();
                if !error.is_finite() {
                    return Err(not_finite(layer));
                }
                errors.push((removed, error));
            }
            for name in [Some(layer.weight), layer.bias].into_iter().flatten() {
                (tried.tensors).insert(name.into(), network.tensors[name].clone());
            }
            observer.note(&format!("{}: measured", layer.node.name));
            costs.push(of_outputs(&of_layer, &errors));
        }
    }
    let mut removed = allocate(&costs, settings.sparsity).into_iter();
    // From the input to the output, so that each layer makes up for what those before it lost.
    let mut pruned = network.clone();
    for layers in same {
        let moments = run.moments(&pruned, Some(network), &layers[0], observer)?;
        for (layer, removed) in layers.iter().zip(&mut removed) {
            let surgeon = run.surgeon(network, layer, &moments, observer)?;
            layer.set(&mut pruned, run.pool.install(|| surgeon.prune(removed))?);
            let share = removed as f64 / (layer.units * layer.inputs).max(1) as f64;
            let name = &layer.node.name;
            observer.note(&format!(
                "{name}: {:.1} % of the weights removed",
                100.0 * share
            ));
        }
    }
    Ok(pruned)
}

/// The sum of squares of numbers, less their mean; 1 where they are all the same.
fn spread(y: &[f32]) -> f64 {
    let mean = y.iter().map(|y| f64::from(*y)).sum::<f64>() / y.len().max(1) as f64;
    let squares = y.iter().map(|y| (f64::from(*y) - mean).powi(2)).sum();
    if squares > 0.0 { squares } else { 1.0 }
}

/// The sum of squared differences.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum()
}

/// What is wrong with a layer whose inputs or weights are not finite.
fn not_finite(layer: &Layer<'_>) -> PipelineError {
    let what = format!("calibration of layer `{}`", layer.node.name);
    PipelineError::invalid(what, "finite inputs and weights", "others")
}

impl Layer<'_> {
    /// Puts weights and biases, as [`Surgeon::prune`] gives them, in the place of those of the layer.
    fn set(&self, network: &mut Network, [weights, bias]: [Vec<f32>; 2]) {
        if let Some(tensor) = network.tensors.get_mut(self.weight) {
            let mut dense = tensor.to_dense();
            dense.values = weights;
            *tensor = Weights::Csr(Csr::from_dense(&dense));
        }
        if let Some(Weights::Dense(old)) = self.bias.and_then(|b| network.tensors.get_mut(b)) {
            old.values = bias;
        }
    }

    /// Whether what another layer reads is the same, row for row.
    fn reads_as(&self, other: &Self) -> bool {
        let window = |op: &Op| match op {
            Op::Conv(conv) => Some(conv.window.clone()),
            _ => None,
        };
        self.value == other.value
            && self.inputs == other.inputs
            && self.bias.is_some() == other.bias.is_some()
            && window(&self.node.op) == window(&other.node.op)
    }
}

/// The layers that are pruned, from the input to the output, and those of `names` that cannot be, each with why.
fn layers<'n>(
    network: &'n Network,
    names: &[&str],
    keep_dense: &[String],
) -> (Vec<Layer<'n>>, Vec<String>) {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in network.graph.nodes.iter().flat_map(|n| n.op.tensors()) {
        *uses.entry(name).or_default() += 1;
    }
    let is_shared = |op: &Op| {
        op.weight()
            .into_iter()
            .chain(op.bias())
            .any(|name| uses[name] > 1)
    };
    let (mut layers, mut left_out) = (vec![], vec![]);
    for node in network.graph.weighted_nodes() {
        let (Some(name), Some(weight)) = (node.op.weight(), network.weight(node)) else {
            continue;
        };
        if !names.contains(&name) {
            let why = match is_kept_dense(node, keep_dense) {
                true => "kept dense",
                false => "few weights that matter much",
            };
            left_out.push(format!("`{}` ({why})", node.name));
            continue;
        }
        let dims = weight.shape().dims().to_vec();
        let inputs = dims[1..].iter().product();
        let why = match &node.op {
            Op::Conv(conv) if conv.groups > 1 => Some("its groups".to_owned()),
            Op::Conv(_) | Op::Linear(_) if is_shared(&node.op) => {
                Some("tensors of several nodes".into())
            }
            Op::Conv(_) | Op::Linear(_) if inputs > MOST_INPUTS => Some(format!(
                "{inputs} weights of a unit, of at most {MOST_INPUTS}"
            )),
            Op::Conv(_) | Op::Linear(_) => None,
            op => Some(op.name().to_owned()),
        };
        match why {
            Some(why) => left_out.push(format!("`{}` ({why})", node.name)),
            None => layers.push(Layer {
                node,
                weight: name,
                bias: node.op.bias(),
                value: &node.inputs[0],
                units: dims[0],
                inputs,
            }),
        }
    }
    (layers, left_out)
}

/// The inputs that layers are measured on.
struct Run<'s> {
    inputs: &'s dyn Batches,
    threads: usize,
    /// For what is computed of a layer.
    pool: ThreadPool,
}

/// The least number from `least` on that has no divisor in common with the positions of a sample. So the rows that are taken at such
/// a distance are those of all positions, and of all columns of a map.
fn step(least: usize, positions: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = least.max(1);
    while common(step, positions.max(1)) > 1 {
        step += 1;
    }
    step
}

impl Run<'_> {
    /// Which weights of a layer are to go in which order.
    fn surgeon(
        &self,
        network: &Network,
        layer: &Layer<'_>,
        moments: &Moments,
        observer: &mut dyn Observer,
    ) -> Result<Surgeon, PipelineError> {
        if observer.stop() {
            return Err(PipelineError::Interrupted { folder: None });
        }
        let weights = network.tensors[layer.weight].to_dense().values;
        let zeros = vec![0.0; layer.units];
        let bias = network.bias(layer.node).unwrap_or(&zeros);
        let surgeon = self.pool.install(|| Surgeon::new(&weights, bias, moments));
        surgeon.map_err(|_| not_finite(layer))
    }

    /// Each output of a network, on one batch in [`MEASURED_BATCHES`].
    fn outputs(
        &self,
        network: &Network,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Vec<f32>>, PipelineError> {
        let session = session(network, WeightMode::Dense, BATCH, self.threads)?;
        let values = session.plan().outputs();
        let sizes = self.inputs.sizes();
        let elements = |&(count, length): &(usize, usize)| {
            let of_sample = values.iter().map(|value| value.elements(length));
            count * of_sample.sum::<usize>()
        };
        let all = sizes.iter().step_by(MEASURED_BATCHES).map(elements).sum();
        memory::check_elements(
            || "the outputs of a calibration".into(),
            all,
            size_of::<f32>(),
        )?;
        let mut outputs = vec![vec![]; values.len()];
        let mut number = 0;
        self.inputs.for_each(&mut |batch| {
            if observer.stop() {
                return Err(PipelineError::Interrupted { folder: None });
            }
            number += 1;
            if (number - 1) % MEASURED_BATCHES != 0 {
                return Ok(());
            }
            let mut slices: Vec<(&str, &mut [f32])> = vec![];
            for (value, y) in values.iter().zip(&mut outputs) {
                let before = y.len();
                y.resize(before + batch.count * value.elements(batch.length), 0.0);
                slices.push((&value.name, &mut y[before..]));
            }
            session.run(batch.count, &batch.named()[..], &mut slices[..])?;
            Ok(())
        })?;
        Ok(outputs)
    }

    /// What a layer reads in `now`, and in the `dense` network where that is another, summed over the samples.
    fn moments(
        &self,
        now: &Network,
        dense: Option<&Network>,
        layer: &Layer<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Moments, PipelineError> {
        let now = Reader::new(now, layer.node, layer.inputs, self.threads)?;
        let dense = match dense {
            Some(dense) => Some(Reader::new(dense, layer.node, layer.inputs, self.threads)?),
            None => None,
        };
        let sizes = self.inputs.sizes();
        let sizes = sizes
            .iter()
            .map(|&(count, length)| (count, now.positions(length)));
        let rows: usize = sizes
            .clone()
            .map(|(count, positions)| count * positions)
            .sum();
        let longest = sizes.map(|(_, positions)| positions).max().unwrap_or(1);
        let least = rows / ROWS.max(LEAST_ROWS_PER_INPUT * layer.inputs);
        let every = step(least, longest);
        let what = || format!("the calibration of layer `{}`", layer.node.name);
        let matrix = (layer.inputs + 1) * (layer.inputs + 1);
        memory::check_elements(what, MATRICES * matrix, size_of::<f64>())?;
        let mut moments = Moments::new(layer.inputs, layer.bias.is_some());
        let (mut x, mut t, mut skip) = (vec![], vec![], 0);
        self.inputs.for_each(&mut |batch| {
            if observer.stop() {
                return Err(PipelineError::Interrupted { folder: None });
            }
            let at = skip;
            x.clear();
            skip = now.rows(batch, at, every, &mut x)?;
            if let Some(dense) = &dense {
                t.clear();
                dense.rows(batch, at, every, &mut t)?;
            }
            moments.add(&x, dense.as_ref().map(|_| &t[..]));
            Ok(())
        })?;
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::trainer::Silent;
    use sparsevd_compressor::{Images, initialise};
    use sparsevd_format::{Dataset, Pixels};
    use sparsevd_model::{GraphBuilder, Preprocessing, Shape};

    use super::inputs::FirstSamples;
    use super::*;

    #[test]
    fn layers_whose_tensors_others_read_stay() {
        let mut b = GraphBuilder::new("shared");
        let x = b.input("x", Shape::from([3]));
        let x = b.linear("a", &x, 3);
        let x = b.linear("b", &x, 3);
        b.linear("c", &x, 3);
        let (mut graph, shapes) = b.finish_with_tensors().unwrap();
        let mut network = initialise(graph.clone(), &shapes, 1).unwrap();
        if let Op::Linear(linear) = &mut graph.nodes[1].op {
            linear.bias = Some("a.bias".into());
        }
        network.tensors.remove("b.bias");
        let network = Network::new(graph, network.tensors).unwrap();
        let (layers, left_out) = layers(&network, &["a.weight", "b.weight", "c.weight"], &[]);
        let names: Vec<&str> = layers.iter().map(|l| l.weight).collect();
        assert_eq!(names, ["c.weight"]);
        assert_eq!(
            left_out,
            [
                "`a` (tensors of several nodes)",
                "`b` (tensors of several nodes)"
            ]
        );
    }

    #[test]
    fn rows_that_are_left_out_are_not_always_the_same() {
        assert_eq!(
            [step(8, 1024), step(2, 256), step(3, 63), step(0, 49)],
            [9, 3, 4, 1]
        );
    }

    /// Of two layers that are alike, the one that the outputs depend on less loses more weights.
    #[test]
    fn layers_that_matter_little_lose_more() {
        let mut b = GraphBuilder::new("two");
        b.preprocessing(Preprocessing::default());
        let shape = Shape::from([12]);
        let x = b.input("x", shape.clone());
        let [one, two] = ["one", "two"].map(|name| b.linear(name, &x, 12));
        let concat = Op::Concat(sparsevd_model::ops::Concat { axis: 0 });
        let both = b.op("both", concat, &[&one, &two]);
        b.linear("out", &both, 4);
        let (graph, shapes) = b.finish_with_tensors().unwrap();
        let mut network = initialise(graph, &shapes, 3).unwrap();
        let one = network.tensors["one.weight"].clone();
        network.tensors.insert("two.weight".into(), one);
        let Some(Weights::Dense(out)) = network.tensors.get_mut("out.weight") else {
            unreachable!("it was just made");
        };
        for row in out.values.chunks_exact_mut(24) {
            row[12..].iter_mut().for_each(|w| *w *= 0.1);
        }
        let pixels = (0..200 * 12_u32).map(|i| (i * i % 251) as u8).collect();
        let set = Dataset::new(Pixels::U8(pixels), shape.clone(), vec![0; 200]).unwrap();
        let samples = Images::new(set, &shape, &Preprocessing::default());
        let settings = Calibration {
            samples: 200,
            sparsity: 0.5,
            every_layer: true,
            keep_dense: vec!["out".into()],
        };
        let inputs = FirstSamples::new(&network, &samples, 200);
        let pruned = calibrate(&network, &settings, &inputs, 1, &mut Silent).unwrap();
        let left = ["one.weight", "two.weight"].map(|name| pruned.tensors[name].nonzeros());
        assert_eq!(left[0] + left[1], 144);
        assert!(left[0] > 2 * left[1], "{left:?}");
    }
}
