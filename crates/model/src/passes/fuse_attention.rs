//! Makes one step of attention that a network spells out: two products with a softmax between them, and heads moved before and behind them.

use std::collections::{HashMap, HashSet};

use super::{normalisation, values};
use crate::{Network, Node, Op, Shape, ops};

/// Most elements of a value whose order is followed.
const MOST_FOLLOWED: usize = 1 << 22;

/// The network with every attention as one step that is spelled out as `softmax(q k^T / sqrt(w)) v` for each head; `None` where there is none.
///
/// Heads may be moved by any reshapings and transpositions, and the factor may be at the queries, the keys, the scores, or in parts at several. A mask, or
/// another factor, leaves it as it is.
pub fn fuse_attention(network: &Network) -> Option<Network> {
    let is_product = |n: &&Node| matches!(n.op, Op::MatMul);
    if network.graph.nodes.iter().filter(is_product).count() < 2 {
        return None;
    }
    let spelled = Spelled::of(network)?;
    let nodes = network.graph.nodes.iter();
    let found: Vec<(usize, Node)> = nodes
        .filter(is_product)
        .filter_map(|n| spelled.attention(n))
        .collect();
    if found.is_empty() {
        return None;
    }
    let mut out = network.clone();
    for (last, attention) in found {
        out.graph.nodes[last] = attention;
    }
    drop_unread(&mut out);
    Some(out)
}

/// Removes what no output depends on any more.
fn drop_unread(network: &mut Network) {
    let graph = &mut network.graph;
    let mut read: HashSet<String> = graph.outputs.iter().cloned().collect();
    for node in graph.nodes.iter().rev() {
        if read.contains(&node.name) {
            read.extend(node.inputs.iter().cloned());
        }
    }
    let tensors = |nodes: &[Node]| -> HashSet<String> {
        let all = nodes.iter().flat_map(|n| n.op.tensors());
        all.map(str::to_owned).collect()
    };
    let before = tensors(&graph.nodes);
    graph.nodes.retain(|node| read.contains(&node.name));
    let after = tensors(&graph.nodes);
    let int8 = &mut network.int8;
    int8.inputs.retain(|node, _| read.contains(node));
    int8.rows.retain(|weight, _| after.contains(weight));
    for gone in before.difference(&after) {
        network.tensors.remove(gone);
        network.scales.remove(gone);
        network.original_shapes.remove(gone);
    }
}

/// A network in which attention is looked for.
struct Spelled<'n> {
    network: &'n Network,
    /// Shapes of values without a free dimension.
    shapes: HashMap<&'n str, Shape>,
    nodes: HashMap<&'n str, usize>,
    consumers: HashMap<&'n str, usize>,
    /// The last node that reads a value.
    readers: HashMap<&'n str, usize>,
}

/// Heads, vectors and numbers of a head.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    vectors: usize,
    width: usize,
}

impl Sizes {
    /// Where a number of a vector is, in `[vectors][heads * width]`.
    fn place(self, head: usize, vector: usize, i: usize) -> usize {
        (vector * self.heads + head) * self.width + i
    }

    /// For each number of heads `[heads][vectors][width]` its place, or of turned ones `[heads][width][vectors]`.
    fn places(self, are_turned: bool) -> Vec<u32> {
        let Self {
            heads,
            vectors,
            width,
        } = self;
        let [outer, inner] = match are_turned {
            true => [width, vectors],
            false => [vectors, width],
        };
        let all =
            (0..heads).flat_map(|h| (0..outer * inner).map(move |at| (h, at / inner, at % inner)));
        let place = |(head, a, b)| match are_turned {
            true => self.place(head, b, a),
            false => self.place(head, a, b),
        };
        all.map(|at| place(at) as u32).collect()
    }
}

impl<'n> Spelled<'n> {
    fn of(network: &'n Network) -> Option<Self> {
        let graph = &network.graph;
        let types = network.types().ok()?;
        let known = types.into_iter().filter(|(_, t)| t.free().is_none());
        let nodes = graph.nodes.iter().enumerate();
        let reads = nodes.flat_map(|(i, n)| n.inputs.iter().map(move |input| (input.as_str(), i)));
        Some(Self {
            network,
            shapes: known.map(|(name, t)| (name, t.shape(0))).collect(),
            nodes: (graph.nodes.iter().enumerate())
                .map(|(i, n)| (n.name.as_str(), i))
                .collect(),
            consumers: values::consumers(graph),
            readers: reads.collect(),
        })
    }

    fn node(&self, value: &str) -> Option<&'n Node> {
        self.nodes.get(value).map(|&i| &self.network.graph.nodes[i])
    }

    /// The attention whose second product a node is, and the node that it takes the place of.
    fn attention(&self, product: &Node) -> Option<(usize, Node)> {
        let [shares, values] = product.inputs.as_slice() else {
            return None;
        };
        let softmax = self.alone(shares)?;
        if !matches!(softmax.op, Op::Softmax(ops::Softmax { axis: 2 })) {
            return None;
        }
        let mut factor = 1.0;
        let mut scores = self.alone(&softmax.inputs[0])?;
        while let Some(by) = self.factor(&scores.op) {
            factor *= by;
            scores = self.alone(&scores.inputs[0])?;
        }
        let (Op::MatMul, [queries, keys]) = (&scores.op, scores.inputs.as_slice()) else {
            return None;
        };
        let &[heads, vectors, width] = self.shapes.get(queries.as_str())?.dims() else {
            return None;
        };
        let sizes = Sizes {
            heads,
            vectors,
            width,
        };
        // Before anything is made of sizes that a file says.
        let elements = heads.checked_mul(vectors)?.checked_mul(width)?;
        if elements > MOST_FOLLOWED {
            return None;
        }
        let of_heads = [&[heads, width, vectors], &[heads, vectors, width]];
        let shape = |value: &str| self.shapes.get(value).map(Shape::dims);
        if shape(keys) != Some(of_heads[0]) || shape(values) != Some(of_heads[1]) {
            return None;
        }
        let (queries, by_queries) = self.source(queries, sizes, false)?;
        let (keys, by_keys) = self.source(keys, sizes, true)?;
        let (values, by_values) = self.source(values, sizes, false)?;
        let wanted = 1.0 / (width as f32).sqrt();
        let given = factor * by_queries * by_keys;
        if (given - wanted).abs() > 1e-5 * wanted || by_values != 1.0 {
            return None;
        }
        let last = self.joined(product, sizes)?;
        let attention = Node {
            name: self.network.graph.nodes[last].name.clone(),
            op: Op::Attention(ops::Attention { heads }),
            inputs: vec![queries, keys, values],
        };
        Some((last, attention))
    }

    /// The node of a value that nothing else reads.
    fn alone(&self, value: &str) -> Option<&'n Node> {
        self.node(value)
            .filter(|_| self.consumers.get(value) == Some(&1))
    }

    /// What a node multiplies all numbers by, where it does nothing else.
    fn factor(&self, op: &Op) -> Option<f32> {
        let (factors, summands) = normalisation(self.network, op)?;
        let first = *factors.first()?;
        let same = factors.iter().all(|f| *f == first) && summands.iter().all(|s| *s == 0.0);
        same.then_some(first)
    }

    /// The vectors `[vectors][heads * width]` of which moves of numbers make heads, perhaps `turned`, and what they are multiplied by on the way.
    fn source(&self, heads: &str, sizes: Sizes, are_turned: bool) -> Option<(String, f32)> {
        let wanted = sizes.places(are_turned);
        // For each number of the heads its place in the value.
        let mut places: Vec<u32> = (0..wanted.len() as u32).collect();
        let (mut value, mut factor, mut found) = (heads, 1.0, None);
        loop {
            let is_source = self.shapes.get(value).map(Shape::dims)
                == Some(&[sizes.vectors, sizes.heads * sizes.width][..])
                && places == wanted;
            if is_source {
                found = Some((value.to_owned(), factor));
            }
            let Some(node) = self.node(value) else {
                return found;
            };
            if let Op::Transpose(ops::Transpose { perm }) = &node.op {
                let Some(before) = self.shapes.get(node.inputs[0].as_str()) else {
                    return found;
                };
                let from = permuted(before.dims(), perm);
                for place in &mut places {
                    *place = from[*place as usize];
                }
            } else if let Some(by) = self.factor(&node.op) {
                factor *= by;
            } else if !matches!(node.op, Op::Reshape(_) | Op::Flatten) {
                return found;
            }
            value = &node.inputs[0];
        }
    }

    /// The node that makes vectors `[vectors][heads * width]` of the heads that `product` makes.
    fn joined(&self, product: &Node, sizes: Sizes) -> Option<usize> {
        let wanted = sizes.places(false);
        // For each number of the value its place in the heads.
        let mut places: Vec<u32> = (0..wanted.len() as u32).collect();
        let mut value = product.name.as_str();
        loop {
            self.consumers.get(value).filter(|n| **n == 1)?;
            let &reader = self.readers.get(value)?;
            let node = &self.network.graph.nodes[reader];
            match &node.op {
                Op::Transpose(ops::Transpose { perm }) => {
                    let from = permuted(self.shapes.get(value)?.dims(), perm);
                    places = from.iter().map(|&at| places[at as usize]).collect();
                }
                Op::Reshape(_) => {}
                _ => return None,
            }
            value = node.name.as_str();
            let vectors = [sizes.vectors, sizes.heads * sizes.width];
            let is_joined = || {
                let mut back = places.iter().enumerate();
                back.all(|(at, &of_heads)| wanted[of_heads as usize] as usize == at)
            };
            if self.shapes.get(value)?.dims() == vectors && is_joined() {
                return Some(reader);
            }
        }
    }
}

/// For each number of a value with permuted axes its place before: axis `i` is axis `perm[i]` of `dims`.
fn permuted(dims: &[usize], perm: &[usize]) -> Vec<u32> {
    let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
    let mut places = vec![0_u32];
    for &axis in perm {
        let along = |place: u32| (0..dims[axis]).map(move |i| place + (i * stride(axis)) as u32);
        places = places.iter().copied().flat_map(along).collect();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dense, GraphBuilder};

    /// Products and a softmax over heads of an input `[heads, vectors, width]` that is queries, turned keys and values.
    fn products(heads: usize, vectors: usize, width: usize) -> Network {
        let mut b = GraphBuilder::new("n");
        let q = b.input("q", [heads, vectors, width]);
        let k = b.input("k", [heads, width, vectors]);
        let scores = b.op("scores", Op::MatMul, &[&q, &k]);
        let shares = b.op("shares", Op::Softmax(ops::Softmax { axis: 2 }), &[&scores]);
        let v = b.input("v", [heads, vectors, width]);
        let y = b.op("y", Op::MatMul, &[&shares, &v]);
        b.output(&y);
        b.network(|_, shape| Dense::zeros(shape.clone()).into())
            .unwrap()
    }

    #[test]
    fn sizes_of_a_file_are_never_followed_beyond_the_limit() {
        // 2^31 numbers, of which not one is made.
        assert!(fuse_attention(&products(1 << 11, 1 << 10, 1 << 10)).is_none());
        assert!(fuse_attention(&products(2, 3, 4)).is_none());
    }

    #[test]
    fn places_before_a_permutation_are_those_of_its_axes() {
        assert_eq!(permuted(&[2, 3], &[1, 0]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(permuted(&[2, 1, 2], &[0, 1, 2]), [0, 1, 2, 3]);
        let sizes = Sizes {
            heads: 2,
            vectors: 2,
            width: 2,
        };
        assert_eq!(sizes.places(false), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(sizes.places(true), [0, 4, 1, 5, 2, 6, 3, 7]);
    }
}
