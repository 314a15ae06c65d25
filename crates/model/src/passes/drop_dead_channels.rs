//! Removes channels that no output depends on, exactly: through sums, activations, pooling, normalisation and depthwise
//! convolutions too. [`super::channels`] says which they are.
//!
//! Under padding, and on grids, only a constant of zero may become part of a bias.

use std::collections::HashMap;

use super::channels::{ChannelSets, ChannelWeights, LiveChannels, fold_constants};
use crate::bind::bias_name;
use crate::ops::{ChannelTensors, Channels};
use crate::{Csr, Dense, Int8Grids, ModelError, Network, Node, Op, Shape, Weights, ops};

/// The network without the channels that change no output, of which every value keeps at least one; `None` where all are needed.
///
/// The channels behind a concatenation all stay, and those of convolutions with several groups that are not depthwise.
pub fn drop_dead_channels(network: &Network) -> Option<Network> {
    let mut stored = Stored::new(network.clone()).ok()?;
    let graph = &network.graph;
    fold_constants(graph, &mut stored, None);
    let mut live = ChannelSets::new(graph, &stored).needed(graph, &stored);
    live.keep_one(graph, |_| 0);
    if live.are_all() {
        return None;
    }
    shrink(&mut stored.network, &live);
    // Rows of weights are not those that had scales.
    stored.network.int8 = Int8Grids::default();
    Some(stored.network)
}

/// A network's tensors, as the analysis of channels sees them.
struct Stored {
    network: Network,
    shapes: HashMap<String, Shape>,
    /// How many nodes use each tensor.
    users: HashMap<String, usize>,
}

impl Stored {
    fn new(network: Network) -> Result<Self, ModelError> {
        let shapes = network.shapes()?.into_iter();
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape));
        let shapes = shapes.collect();
        let mut users: HashMap<String, usize> = HashMap::new();
        for tensor in network.graph.nodes.iter().flat_map(|n| n.op.tensors()) {
            *users.entry(tensor.to_owned()).or_default() += 1;
        }
        Ok(Self {
            network,
            shapes,
            users,
        })
    }

    /// Whether a node has its tensors for itself; others are left as they are.
    fn owns_tensors(&self, op: &Op) -> bool {
        op.tensors().all(|t| self.users.get(t) == Some(&1))
    }
}

impl ChannelWeights for Stored {
    type Number = f32;

    fn rows(&self, node: &Node) -> usize {
        let weight = self.network.weight(node);
        weight.map_or(0, |w| w.shape().matrix().0)
    }

    fn shape(&self, value: &str) -> &Shape {
        &self.shapes[value]
    }

    fn may_leave(&self, node: &Node) -> bool {
        let depthwise =
            || (self.network.weight(node)).is_some_and(|w| is_depthwise(&node.op, &w.shape()));
        self.owns_tensors(&node.op) && (node.op.groups() == 1 || depthwise())
    }

    fn visit(&self, node: &Node, visit: &mut dyn FnMut(usize, usize)) {
        if let Some(weight) = self.network.weight(node) {
            let shape = weight.shape();
            for (row, col, _) in elements(weight) {
                visit(row, channel(&node.op, &shape, row, col));
            }
        }
    }

    fn constants(&self, node: &Node, inputs: &[&[Option<f32>]]) -> Vec<Option<f32>> {
        let (op, operator) = (&node.op, node.op.operator());
        let tensors: HashMap<&str, Vec<f32>> = op
            .tensors()
            .filter_map(|t| Some((t, self.network.tensors.get(t)?.to_dense().values)))
            .collect();
        let constant = |c: usize| {
            let here: Option<Vec<_>> = inputs.iter().map(|i| i.get(c).copied()).collect();
            let element = |name: &str| tensors.get(name)?.get(c).copied();
            operator.constant(&here?, &ChannelTensors { element: &element })
        };
        (0..inputs[0].len()).map(constant).collect()
    }

    fn fold(&mut self, node: &Node, x: &[Option<f32>]) -> Vec<Option<f32>> {
        let (rows, op) = (self.rows(node), &node.op);
        let weight = op.weight().filter(|_| self.owns_tensors(op));
        let network = &mut self.network;
        let Some((name, weight)) = weight.and_then(|w| Some((w, network.tensors.get(w)?))) else {
            return vec![None; rows];
        };
        let shape = weight.shape();
        let padded = op.operator().window().is_some_and(|w| w.pads != [0; 4]);
        let only_zero = padded || network.scales.contains_key(name);
        let folds = |row, col| x[channel(op, &shape, row, col)].filter(|k| *k == 0.0 || !only_zero);
        let mut sums = vec![0.0_f64; rows];
        let mut fed = vec![false; rows];
        for (row, col, v) in elements(weight) {
            match folds(row, col) {
                Some(k) => sums[row] += f64::from(v) * f64::from(k),
                None => fed[row] = true,
            }
        }
        let left = rebuilt(weight, shape.clone(), |row, col| {
            folds(row, col).is_none().then_some((row, col))
        });
        network.tensors.insert(name.to_owned(), left);
        let stored = op.bias().and_then(|b| network.tensors.get(b));
        let mut bias = stored.map_or(vec![0.0; rows], |b| b.to_dense().values);
        if sums.iter().any(|s| *s != 0.0) {
            let moved = bias.iter().zip(&sums);
            bias = moved.map(|(b, s)| (f64::from(*b) + s) as f32).collect();
            set_bias(network, node, bias.clone());
        }
        (fed.iter().zip(bias))
            .map(|(fed, bias)| (!fed).then_some(bias))
            .collect()
    }
}

/// Stores the bias of a node with a weight, under a free name where the node has none.
fn set_bias(network: &mut Network, node: &Node, bias: Vec<f32>) {
    let weight = node.op.weight().unwrap_or_default();
    let name = node.op.bias().map(str::to_owned).unwrap_or_else(|| {
        let mut free = bias_name(weight);
        while network.tensors.contains_key(&free) {
            free.push('_');
        }
        let same = |n: &&mut Node| n.name == node.name;
        if let Some(node) = network.graph.nodes.iter_mut().find(same) {
            node.op
                .rename_tensors(weight.to_owned(), Some(free.clone()));
        }
        free
    });
    let bias = Dense::new([bias.len()], bias);
    network.tensors.insert(name, Weights::Dense(bias));
}

/// The channel of its input that an element of a node's weight reads.
fn channel(op: &Op, shape: &Shape, row: usize, col: usize) -> usize {
    match (op, shape.dims()) {
        (Op::Conv(ops::Conv { groups, .. }), &[out, inn, kh, kw]) => {
            row / (out / groups) * inn + col / (kh * kw)
        }
        _ => col,
    }
}

fn is_depthwise(op: &Op, shape: &Shape) -> bool {
    matches!(op, Op::Conv(ops::Conv { groups, .. }) if *groups > 1)
        && shape.dims().get(1) == Some(&1)
}

/// Row, column and value of everything in a weight that is not zero.
fn elements(weights: &Weights) -> Box<dyn Iterator<Item = (usize, usize, f32)> + '_> {
    let all: Box<dyn Iterator<Item = (usize, usize, f32)>> = match weights {
        Weights::Dense(dense) => {
            let cols = dense.shape.matrix().1.max(1);
            Box::new((dense.values.iter().enumerate()).map(move |(i, v)| (i / cols, i % cols, *v)))
        }
        Weights::Csr(csr) => Box::new((0..csr.rows()).flat_map(|row| {
            let (columns, values) = csr.row(row);
            (columns.iter().zip(values)).map(move |(c, v)| (row, *c as usize, *v))
        })),
    };
    Box::new(all.filter(|(_, _, v)| *v != 0.0))
}

/// A weight of another shape, of the elements that `place` gives a row and column there. Their order stays.
fn rebuilt(
    weights: &Weights,
    shape: Shape,
    place: impl Fn(usize, usize) -> Option<(usize, usize)>,
) -> Weights {
    let (rows, cols) = shape.matrix();
    let moved = elements(weights).filter_map(|(r, c, v)| place(r, c).map(|(r, c)| (r, c, v)));
    match weights {
        Weights::Dense(_) => {
            let mut dense = Dense::zeros(shape);
            moved.for_each(|(r, c, v)| dense.values[r * cols + c] = v);
            Weights::Dense(dense)
        }
        Weights::Csr(_) => {
            let mut starts = vec![0; rows + 1];
            let (mut columns, mut values) = (vec![], vec![]);
            for (r, c, v) in moved {
                starts[r + 1] += 1;
                columns.push(c as u32);
                values.push(v);
            }
            for row in 0..rows {
                starts[row + 1] += starts[row];
            }
            Weights::Csr(
                Csr::try_new(shape, starts, columns, values).expect("elements in their order"),
            )
        }
    }
}

/// Takes the channels that do not stay out of every tensor.
fn shrink(network: &mut Network, live: &LiveChannels) {
    // Where each channel goes.
    let places = |alive: &[bool]| -> (Vec<Option<usize>>, usize) {
        let mut n = 0;
        let places = alive.iter().map(|a| {
            a.then(|| {
                n += 1;
                n - 1
            })
        });
        (places.collect(), n)
    };
    let gather =
        |tensors: &mut std::collections::BTreeMap<String, Weights>, name: &str, stays: &[bool]| {
            if let Some(tensor) = tensors.get_mut(name) {
                let Dense { mut shape, values } = tensor.to_dense();
                let left: Vec<f32> = (values.into_iter().zip(stays))
                    .filter_map(|(v, stays)| stays.then_some(v))
                    .collect();
                shape.0[0] = left.len();
                *tensor = Weights::Dense(Dense::new(shape, left));
            }
        };
    for node in &mut network.graph.nodes {
        let (inn, out) = (live.of(&node.inputs[0]), live.of(&node.name));
        if node.op.operator().channels() == Channels::Same {
            for name in node.op.tensors().filter(|_| out.contains(&false)) {
                let before = network.tensors.get(name).map(Weights::shape);
                let before = before.unwrap_or_default();
                // One number for all channels stays.
                if before.elements() == out.len() {
                    let original = network.original_shapes.entry(name.to_owned());
                    original.or_insert(before);
                    gather(&mut network.tensors, name, &out);
                }
            }
            continue;
        }
        let Some(name) = node.op.weight().map(str::to_owned) else {
            continue;
        };
        let Some(weight) = network.tensors.get(&name) else {
            continue;
        };
        if !inn.contains(&false) && !out.contains(&false) {
            continue;
        }
        let before = weight.shape();
        let ((from, inputs), (to, units)) = (places(&inn), places(&out));
        let depthwise = is_depthwise(&node.op, &before);
        let mut shape = before.clone();
        shape.0[0] = units;
        if !depthwise {
            shape.0[1] = inputs;
        }
        let area: usize = before.dims()[2..].iter().product();
        let moved = rebuilt(weight, shape, |row, col| {
            let read = from[channel(&node.op, &before, row, col)]?;
            let first = if depthwise { 0 } else { read * area };
            Some((to[row]?, first + col % area))
        });
        network.tensors.insert(name.clone(), moved);
        if let Some(bias) = node.op.bias() {
            gather(&mut network.tensors, bias, &out);
        }
        network.original_shapes.entry(name).or_insert(before);
        if let Op::Conv(ops::Conv { groups, .. }) = &mut node.op
            && depthwise
        {
            *groups = inputs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{conv, graph_of, network};
    use super::*;
    use crate::{Conv2d, GraphBuilder};

    fn set(network: &mut Network, tensor: &str, values: &[f32]) {
        let shape = network.tensors[tensor].shape();
        let dense = Dense::new(shape, values.to_vec());
        network.tensors.insert(tensor.into(), Weights::Dense(dense));
    }

    /// A reshaping makes other channels of the same numbers: those behind it may leave, those before it stay.
    #[test]
    fn channels_leave_behind_a_reshaping_that_makes_more_of_them() {
        let mut b = GraphBuilder::new("reshaped");
        let x = b.input("x", [1, 2, 2]);
        let x = b.conv("a", &x, &Conv2d::square(3, 1));
        let shape = vec![4, 1, 3];
        let x = b.op("more", Op::Reshape(ops::Reshape { shape }), &[&x]);
        let x = b.conv("b", &x, &Conv2d::square(5, 1));
        let x = b.op("flat", Op::Flatten, &[&x]);
        b.linear("fc", &x, 2);
        let ones = |_: &str, shape: &Shape| {
            let values = vec![1.0; shape.elements()];
            Weights::Dense(Dense::new(shape.clone(), values))
        };
        let mut network = b.network(ones).unwrap();
        assert_eq!(drop_dead_channels(&network), None);
        // Pixels of the second unit alone are read, and a weight of the first channel of `a` is left.
        let reads = |i: usize| f32::from(u8::from(i % 15 / 3 == 1));
        set(
            &mut network,
            "fc.weight",
            &std::array::from_fn::<f32, 30, _>(reads),
        );
        set(&mut network, "a.weight", &[1.0, 0.0, 0.0]);
        let unread = drop_dead_channels(&network).unwrap();
        let shape = |tensor: &str| unread.tensors[tensor].shape();
        assert_eq!(shape("a.weight"), Shape::from([3, 1, 1, 1]));
        assert_eq!(shape("b.weight"), Shape::from([1, 4, 1, 1]));
        assert_eq!(shape("fc.weight"), Shape::from([2, 3]));
    }

    #[test]
    fn a_channel_leaves_both_sides_of_a_sum() {
        let mut network = network(graph_of(&[
            ("a", &["x"], conv("wa", Some("ba"))),
            ("b", &["x"], conv("wb", Some("bb"))),
            ("s", &["a", "b"], Op::Add),
            ("r", &["s"], Op::Relu),
            ("c", &["r"], conv("wc", Some("bc"))),
        ]));
        // Everything is read.
        assert_eq!(drop_dead_channels(&network), None);
        // The second channel of the sum has no consumer.
        set(&mut network, "wc", &[1.0, 0.0, 1.0, 0.0]);
        let shapes = |n: &Network| ["wa", "wb", "wc"].map(|t| n.tensors[t].shape().0[..2].to_vec());
        let unread = drop_dead_channels(&network).unwrap();
        assert_eq!(shapes(&unread), [[1, 2], [1, 2], [2, 1]]);
        assert_eq!(unread.original_shape("wa"), network.tensors["wa"].shape());
        assert_eq!(unread.tensors["bb"].values(), [1.0]);
        // Nothing feeds it: a constant of 1 + 1 on the way to a bias.
        set(&mut network, "wc", &[1.0, 3.0, 1.0, 4.0]);
        set(&mut network, "wa", &[1.0, 1.0, 0.0, 0.0]);
        set(&mut network, "wb", &[1.0, 1.0, 0.0, 0.0]);
        let constant = drop_dead_channels(&network).unwrap();
        assert_eq!(shapes(&constant), [[1, 2], [1, 2], [2, 1]]);
        assert_eq!(constant.tensors["bc"].values(), [7.0, 9.0]);
        // One side alone is fed.
        set(&mut network, "wb", &[1.0, 1.0, 0.5, 0.0]);
        assert_eq!(drop_dead_channels(&network), None);
    }

    #[test]
    fn a_channel_leaves_through_a_depthwise_convolution_under_padding_only_as_zero() {
        let depthwise = |pad: usize| {
            Op::Conv(ops::Conv {
                weight: "wd".into(),
                bias: Some("bd".into()),
                window: crate::Window {
                    pads: [pad; 4],
                    ..crate::Window::square(1, 1)
                },
                groups: 2,
            })
        };
        for (pad, bias, leaves) in [(0, 1.0, true), (1, 1.0, false), (1, 0.0, true)] {
            let graph = graph_of(&[
                ("a", &["x"], conv("wa", Some("ba"))),
                ("d", &["a"], depthwise(pad)),
                ("r", &["d"], Op::Relu),
                ("c", &["r"], conv("wc", Some("bc"))),
            ]);
            let ones = |shape: Vec<usize>| {
                let shape = Shape(shape);
                let ones = vec![1.0; shape.elements()];
                Weights::Dense(Dense::new(shape, ones))
            };
            let tensors = ["wa", "wc"].map(|w| (w.to_owned(), ones(vec![2, 2, 1, 1])));
            let more = ["ba", "bd", "bc"].map(|b| (b.to_owned(), ones(vec![2])));
            let depthwise = ("wd".to_owned(), ones(vec![2, 1, 1, 1]));
            let tensors = tensors.into_iter().chain(more).chain([depthwise]);
            let mut network = Network::new(graph, tensors.collect()).unwrap();
            set(&mut network, "wa", &[1.0, 1.0, 0.0, 0.0]);
            set(&mut network, "ba", &[1.0, bias]);
            let after = drop_dead_channels(&network);
            assert_eq!(after.is_some(), leaves, "pad {pad}, bias {bias}");
            let Some(after) = after else { continue };
            assert_eq!(after.tensors["wd"].shape(), Shape::from([1, 1, 1, 1]));
            assert!(matches!(
                after.graph.nodes[1].op,
                Op::Conv(ops::Conv { groups: 1, .. })
            ));
            let sent = bias + 1.0;
            assert_eq!(after.tensors["bc"].values(), [1.0 + sent; 2]);
            assert_eq!(after.shapes().unwrap()["c"], network.shapes().unwrap()["c"]);
            let back = after.in_original_shapes().unwrap();
            assert_eq!(back.tensors["wd"].shape(), Shape::from([2, 1, 1, 1]));
        }
    }
}
