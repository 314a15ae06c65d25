//! The rows that a layer reads.

use std::collections::BTreeSet;

use sparsevd_model::{Network, Node, Op, Shape, TensorType, Window};
use sparsevd_runtime::{Session, WeightMode};

use super::inputs::{BATCH, Batch};
use crate::error::PipelineError;
use crate::measure::session;

/// Gives the rows that a layer reads.
pub(super) struct Reader {
    /// `None` where the layer reads an input of the network.
    session: Option<Session>,
    value: String,
    /// What the layer reads of a sample.
    read: TensorType,
    window: Option<Window>,
    /// Numbers of a row.
    width: usize,
}

impl Reader {
    /// Of a node whose units have `width` weights.
    pub fn new(
        network: &Network,
        node: &Node,
        width: usize,
        threads: usize,
    ) -> Result<Self, PipelineError> {
        let value = &node.inputs[0];
        let read = network.types()?[value.as_str()].clone();
        let window = match &node.op {
            Op::Conv(conv) => Some(conv.window.clone()),
            _ => None,
        };
        let is_input = network.graph.inputs.iter().any(|i| i.name == *value);
        let session = match is_input {
            true => None,
            false => Some(session(
                &up_to(network, value)?,
                WeightMode::Dense,
                BATCH,
                threads,
            )?),
        };
        Ok(Self {
            session,
            value: value.clone(),
            read,
            window,
            width,
        })
    }

    /// Rows of a sample of that length.
    pub fn positions(&self, length: usize) -> usize {
        let shape = self.read.shape(length);
        match (&self.window, shape.dims()) {
            (Some(window), &[_, height, width]) => {
                window.output(height, width).map_or(0, |[h, w]| h * w)
            }
            _ => shape.elements() / self.width.max(1),
        }
    }

    /// Adds every `every`th row of a batch, of which `skip` are left out first; returns how many are to be left out of the next.
    pub fn rows(
        &self,
        batch: &Batch,
        skip: usize,
        every: usize,
        rows: &mut Vec<f32>,
    ) -> Result<usize, PipelineError> {
        let (shape, positions) = (self.read.shape(batch.length), self.positions(batch.length));
        let computed = match &self.session {
            None => None,
            Some(session) => {
                let mut y = vec![0.0; batch.count * shape.elements()];
                session.run(batch.count, &batch.named()[..], &mut y[..])?;
                Some(y)
            }
        };
        let given = || batch.inputs.iter().find(|(name, _)| *name == self.value);
        let values = match &computed {
            Some(values) => values,
            None => given().map_or(&[][..], |(_, values)| values),
        };
        let mut next = skip;
        for value in values.chunks_exact(shape.elements().max(1)) {
            while next < positions {
                self.row(value, &shape, next, rows);
                next += every;
            }
            next -= positions;
        }
        Ok(next)
    }

    /// Adds the row at a position, in the order of the weights of a unit.
    fn row(&self, value: &[f32], shape: &Shape, position: usize, rows: &mut Vec<f32>) {
        let (Some(window), &[channels, height, width]) = (&self.window, shape.dims()) else {
            rows.extend_from_slice(&value[position * self.width..(position + 1) * self.width]);
            return;
        };
        let [_, columns] = window.output(height, width).unwrap_or([1, 1]);
        let [y, x] = [position / columns, position % columns];
        let inside = |at: usize, k: usize, axis: usize, size: usize| {
            let padded = at * window.strides[axis] + k * window.dilations[axis];
            padded.checked_sub(window.pads[axis]).filter(|i| *i < size)
        };
        for map in value.chunks_exact(height * width).take(channels) {
            for ky in 0..window.kernel_shape[0] {
                let row = inside(y, ky, 0, height);
                for kx in 0..window.kernel_shape[1] {
                    let at = row.zip(inside(x, kx, 1, width));
                    rows.push(at.map_or(0.0, |(row, column)| map[row * width + column]));
                }
            }
        }
    }
}

/// The part of a network that one value depends on, which is its output.
fn up_to(network: &Network, value: &str) -> Result<Network, PipelineError> {
    let mut needed: BTreeSet<&str> = [value].into();
    for node in network.graph.nodes.iter().rev() {
        if needed.contains(node.name.as_str()) {
            needed.extend(node.inputs.iter().map(String::as_str));
        }
    }
    let mut graph = network.graph.clone();
    graph
        .nodes
        .retain(|node| needed.contains(node.name.as_str()));
    graph.outputs = vec![value.to_owned()];
    let used: BTreeSet<&str> = graph.nodes.iter().flat_map(|n| n.op.tensors()).collect();
    let tensors = network.tensors.iter();
    let tensors = tensors.filter(|(name, _)| used.contains(name.as_str()));
    let tensors = tensors
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    Ok(Network::new(graph, tensors)?)
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::{Images, initialise};
    use sparsevd_format::{Dataset, Pixels};
    use sparsevd_model::{Conv2d, GraphBuilder, Preprocessing};

    use super::*;
    use crate::calibrate::inputs::{Batches, FirstSamples};
    use crate::measure::fill_input;

    /// The products of rows and weights are what the layers compute.
    #[test]
    fn rows_are_what_layers_read_in_the_order_of_their_weights() {
        let mut b = GraphBuilder::new("rows");
        b.preprocessing(Preprocessing::default());
        let shape = Shape::from([2, 7, 6]);
        let x = b.input("x", shape.clone());
        let window = Window {
            kernel_shape: [3, 2],
            strides: [2, 1],
            pads: [1, 0, 0, 1],
            dilations: [1, 2],
        };
        let x = b.conv("c", &x, &Conv2d::new(3, window.clone()));
        let x = b.op("r", Op::Relu, &[&x]);
        let x = b.conv("d", &x, &Conv2d::new(4, window));
        let x = b.op("flat", Op::Flatten, &[&x]);
        b.linear("l", &x, 5);
        let (graph, shapes) = b.finish_with_tensors().unwrap();
        let network = initialise(graph, &shapes, 4).unwrap();
        let pixels = (0..3 * 84_u32).map(|i| (i * 73 % 251) as u8).collect();
        let set = Dataset::new(Pixels::U8(pixels), shape.clone(), vec![0; 3]).unwrap();
        let samples = Images::new(set, &shape, &Preprocessing::default());
        assert_eq!(network.graph.weighted_nodes().count(), 3);
        for node in network.graph.weighted_nodes() {
            let weight = network.weight(node).unwrap().to_dense();
            let units = weight.shape.dims()[0];
            let width = weight.values.len() / units;
            let reader = Reader::new(&network, node, width, 1).unwrap();
            let mut rows = vec![];
            let batches = FirstSamples::new(&network, &samples, 3);
            let visited = batches.for_each(&mut |batch| {
                assert_eq!(reader.rows(batch, 0, 1, &mut rows)?, 0);
                Ok(())
            });
            visited.unwrap();
            let positions = reader.positions(1);
            let whole = up_to(&network, &node.name).unwrap();
            let session = session(&whole, WeightMode::Dense, 3, 1).unwrap();
            let mut x = vec![0.0; 3 * 84];
            for (i, x) in x.chunks_exact_mut(84).enumerate() {
                fill_input(&samples, i, [0, 0], &shape, x);
            }
            let mut want = vec![0.0; 3 * session.plan().output_shape().elements()];
            session.run(3, &x[..], &mut want[..]).unwrap();
            let bias = network.bias(node).unwrap();
            assert_eq!(rows.len(), 3 * positions * width);
            for (i, row) in rows.chunks_exact(width).enumerate() {
                for (unit, weights) in weight.values.chunks_exact(width).enumerate() {
                    let sum: f32 = row.iter().zip(weights).map(|(x, w)| x * w).sum();
                    let (sample, position) = (i / positions, i % positions);
                    let at = (sample * units + unit) * positions + position;
                    let difference = (sum + bias[unit] - want[at]).abs();
                    assert!(difference < 1e-4, "{}, row {i}, unit {unit}", node.name);
                }
            }
            // Every third row, over the ends of samples and from a batch to the next.
            let mut some = vec![];
            let batch = |first: usize, count: usize| Batch {
                count,
                length: 1,
                inputs: vec![("x".into(), x[first * 84..(first + count) * 84].to_vec())],
            };
            let next = reader.rows(&batch(0, 2), 1, 3, &mut some).unwrap();
            reader.rows(&batch(2, 1), next, 3, &mut some).unwrap();
            let wanted: Vec<f32> = (rows.chunks_exact(width).skip(1).step_by(3))
                .flatten()
                .copied()
                .collect();
            assert_eq!(some, wanted, "{}", node.name);
        }
    }
}
