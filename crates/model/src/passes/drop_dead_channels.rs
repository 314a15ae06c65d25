//! Removes channels that no output depends on, exactly: through sums, activations, pooling, normalisation and depthwise
//! convolutions too.
//!
//! A channel is needed where the network returns it, or where a weight of a unit that is needed reads it. Channels that meet
//! in a sum stay or leave together, and so do the channels before and behind a depthwise convolution. A channel that no weight
//! feeds is a constant: it becomes part of its readers' biases first. Under padding, and on grids, only a constant of zero may.

use std::collections::HashMap;

use crate::bind::bias_name;
use crate::ops::{ChannelTensors, Channels};
use crate::{Csr, Dense, Graph, Network, Node, Op, Shape, Weights, ops};

/// The network without the channels that change no output, of which every value keeps at least one; `None` where all are needed.
///
/// The channels behind a concatenation all stay, and those of convolutions with several groups that are not depthwise.
pub fn drop_dead_channels(network: &Network) -> Option<Network> {
    let mut out = network.clone();
    fold_constants(&mut out);
    let groups = Groups::of(&out)?;
    let alive = groups.alive(&out);
    if alive.values().flatten().all(|a| *a) {
        return None;
    }
    shrink(&mut out, &alive);
    Some(out)
}

/// Elements of the first dimension of every value by its name; `None` where that is not the channels of each.
fn widths(network: &Network) -> Option<HashMap<String, usize>> {
    let shapes = network.shapes().ok()?;
    let width = |shape: Shape| shape.dims().first().copied().unwrap_or(1);
    // Over several vectors of a sample, the units of a layer are not its channels.
    let is_plain = |node: &Node| {
        !matches!(node.op, Op::Linear(_)) || shapes[node.inputs[0].as_str()].dims().len() == 1
    };
    if !network.graph.nodes.iter().all(is_plain) {
        return None;
    }
    Some(
        (shapes
            .into_iter()
            .map(|(name, s)| (name.to_owned(), width(s))))
        .collect(),
    )
}

/// Whether a node has its tensors for itself; others are left as they are.
fn owns_tensors(graph: &Graph) -> impl Fn(&Op) -> bool + use<> {
    let mut users: HashMap<String, usize> = HashMap::new();
    for tensor in graph.nodes.iter().flat_map(|n| n.op.tensors()) {
        *users.entry(tensor.to_owned()).or_default() += 1;
    }
    move |op| op.tensors().all(|t| users.get(t) == Some(&1))
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

/// Moves what constant channels contribute into the biases of their readers, which read them no longer.
fn fold_constants(network: &mut Network) {
    let Some(widths) = widths(network) else {
        return;
    };
    let owns = owns_tensors(&network.graph);
    // The constant that each channel of a value is everywhere, where it is one.
    let mut constants: HashMap<String, Vec<Option<f32>>> = HashMap::new();
    for input in &network.graph.inputs {
        constants.insert(input.name.clone(), vec![None; widths[&input.name]]);
    }
    for at in 0..network.graph.nodes.len() {
        let node = &network.graph.nodes[at];
        let name = node.name.clone();
        let inputs: Vec<&[Option<f32>]> = (node.inputs.iter())
            .map(|i| constants[i].as_slice())
            .collect();
        let made = if node.op.weight().is_some() && owns(&node.op) {
            let x = inputs[0].to_vec();
            fold_into(network, at, &x)
        } else {
            passed_on(network, &node.op, &inputs, widths[&name])
        };
        constants.insert(name, made);
    }
}

/// Folds the constants among a layer's inputs; returns the constants among its outputs.
fn fold_into(network: &mut Network, at: usize, x: &[Option<f32>]) -> Vec<Option<f32>> {
    let op = network.graph.nodes[at].op.clone();
    let Some((name, weight)) = op.weight().and_then(|w| Some((w, network.tensors.get(w)?))) else {
        return vec![];
    };
    let shape = weight.shape();
    let rows = shape.matrix().0;
    let padded = matches!(&op, Op::Conv(ops::Conv { window, .. }) if window.pads != [0; 4]);
    let only_zero = padded || network.scales.contains_key(name);
    let folds = |row, col| x[channel(&op, &shape, row, col)].filter(|k| *k == 0.0 || !only_zero);
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
    if sums.iter().any(|s| *s != 0.0) {
        let bias = match op.bias() {
            Some(bias) => bias.to_owned(),
            None => {
                let mut free = bias_name(name);
                while network.tensors.contains_key(&free) {
                    free.push('_');
                }
                network.graph.nodes[at]
                    .op
                    .rename_tensors(name.to_owned(), Some(free.clone()));
                free
            }
        };
        let before = network.tensors.get(&bias).map(Weights::to_dense);
        let moved = (sums.iter().enumerate())
            .map(|(i, s)| (before.as_ref().map_or(0.0, |b| f64::from(b.values[i])) + s) as f32);
        let moved = Dense::new([rows], moved.collect());
        network.tensors.insert(bias, Weights::Dense(moved));
    }
    let bias = network.bias(&network.graph.nodes[at]);
    (fed.iter().enumerate())
        .map(|(i, fed)| (!fed).then(|| bias.map_or(0.0, |b| b[i])))
        .collect()
}

/// The constants among the channels that an operator makes, `width` of them; none of an operator with weights of its own.
fn passed_on(
    network: &Network,
    op: &Op,
    inputs: &[&[Option<f32>]],
    width: usize,
) -> Vec<Option<f32>> {
    let x = inputs[0];
    let operator = op.operator();
    match operator.channels() {
        Channels::Rows | Channels::All => vec![None; width],
        Channels::Flattened => {
            let area = width / x.len().max(1);
            x.iter().flat_map(|k| vec![*k; area]).collect()
        }
        Channels::Appended => inputs.concat(),
        Channels::Same => {
            let tensors: HashMap<&str, Vec<f32>> = op
                .tensors()
                .filter_map(|t| Some((t, network.tensors.get(t)?.to_dense().values)))
                .collect();
            let constant = |c: usize| {
                let here: Option<Vec<_>> = inputs.iter().map(|i| i.get(c).copied()).collect();
                let element = |name: &str| tensors.get(name)?.get(c).copied();
                operator.constant(&here?, &ChannelTensors { element: &element })
            };
            (0..width).map(constant).collect()
        }
    }
}

/// Which channels stay or leave together: sets of them, and the sets that must stay.
struct Groups {
    /// The set of each channel of each value, through `joined`.
    of: HashMap<String, Vec<usize>>,
    joined: Vec<usize>,
    pinned: Vec<usize>,
}

impl Groups {
    fn of(network: &Network) -> Option<Self> {
        let widths = widths(network)?;
        let owns = owns_tensors(&network.graph);
        let mut sets = Self {
            of: HashMap::new(),
            joined: vec![],
            pinned: vec![],
        };
        for input in &network.graph.inputs {
            let fresh = sets.fresh(widths[&input.name]);
            sets.pinned.extend(&fresh);
            sets.of.insert(input.name.clone(), fresh);
        }
        for node in &network.graph.nodes {
            let width = widths[&node.name];
            let inputs: Vec<Vec<usize>> =
                (node.inputs.iter()).map(|i| sets.of[i].clone()).collect();
            let x = &inputs[0];
            let op = &node.op;
            let made = match op.operator().channels() {
                Channels::Rows => {
                    let made = sets.fresh(width);
                    let shape = network.weight(node)?.shape();
                    let grouped = op.groups() > 1;
                    if is_depthwise(op, &shape) && owns(op) {
                        let units = width / x.len().max(1);
                        made.iter()
                            .enumerate()
                            .for_each(|(o, &m)| sets.join(m, x[o / units]));
                    } else if grouped || !owns(op) {
                        sets.pinned.extend(made.iter().chain(x));
                    }
                    made
                }
                Channels::Same => {
                    for other in &inputs[1..] {
                        (x.iter().zip(other)).for_each(|(&a, &b)| sets.join(a, b));
                    }
                    if !owns(op) {
                        sets.pinned.extend(x);
                    }
                    x.clone()
                }
                Channels::Appended => {
                    sets.pinned.extend(inputs.iter().flatten());
                    inputs.concat()
                }
                Channels::Flattened => {
                    let area = width / x.len().max(1);
                    x.iter().flat_map(|&c| vec![c; area]).collect()
                }
                Channels::All => {
                    sets.pinned.extend(x);
                    x.clone()
                }
            };
            sets.of.insert(node.name.clone(), made);
        }
        for output in &network.graph.outputs {
            sets.pinned.extend(&sets.of[output]);
        }
        Some(sets)
    }

    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let from = self.joined.len();
        self.joined.extend(from..from + count);
        (from..from + count).collect()
    }

    fn find(&self, mut set: usize) -> usize {
        while self.joined[set] != set {
            set = self.joined[set];
        }
        set
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // The smaller number is the older set, so that chains stay short.
        self.joined[a.max(b)] = a.min(b);
    }

    /// Whether each channel of each value stays.
    fn alive(&self, network: &Network) -> HashMap<String, Vec<bool>> {
        let roots: Vec<usize> = (0..self.joined.len()).map(|s| self.find(s)).collect();
        let mut alive = vec![false; roots.len()];
        for &set in &self.pinned {
            alive[roots[set]] = true;
        }
        let root_of = |value: &str, channel: usize| roots[self.of[value][channel]];
        loop {
            let mut changed = false;
            for node in network.graph.nodes.iter().rev() {
                let Some(weight) = network.weight(node) else {
                    continue;
                };
                let shape = weight.shape();
                for (row, col, _) in elements(weight) {
                    if alive[root_of(&node.name, row)] {
                        let read = channel(&node.op, &shape, row, col);
                        let read = root_of(&node.inputs[0], read);
                        changed |= !std::mem::replace(&mut alive[read], true);
                    }
                }
            }
            if !changed {
                break;
            }
        }
        // No value may be without channels.
        for node in &network.graph.nodes {
            let sets = &self.of[&node.name];
            if !sets.iter().any(|s| alive[roots[*s]])
                && let Some(&first) = sets.first()
            {
                alive[roots[first]] = true;
            }
        }
        let stays = |sets: &Vec<usize>| sets.iter().map(|s| alive[roots[*s]]).collect();
        (self.of.iter())
            .map(|(name, sets)| (name.clone(), stays(sets)))
            .collect()
    }
}

/// Takes the channels that do not stay out of every tensor.
fn shrink(network: &mut Network, alive: &HashMap<String, Vec<bool>>) {
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
        let (inn, out) = (&alive[&node.inputs[0]], &alive[&node.name]);
        if node.op.operator().channels() == Channels::Same {
            for name in node.op.tensors().filter(|_| out.contains(&false)) {
                let before = network.tensors.get(name).map(Weights::shape);
                let before = before.unwrap_or_default();
                // One number for all channels stays.
                if before.elements() == out.len() {
                    let original = network.original_shapes.entry(name.to_owned());
                    original.or_insert(before);
                    gather(&mut network.tensors, name, out);
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
        let ((from, inputs), (to, units)) = (places(inn), places(out));
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
            gather(&mut network.tensors, bias, out);
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

    fn set(network: &mut Network, tensor: &str, values: &[f32]) {
        let shape = network.tensors[tensor].shape();
        let dense = Dense::new(shape, values.to_vec());
        network.tensors.insert(tensor.into(), Weights::Dense(dense));
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
