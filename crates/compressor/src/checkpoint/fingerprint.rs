//! What a network and a data set are, in one number each.

use std::collections::HashMap;

use sparsevd_model::{Graph, Network, Weights};

use crate::data::Samples;
use crate::objective::Targets;

/// A fingerprint of what a network computes and of the elements it stores.
///
/// Neither names nor how a file spells the graph play a part: values count by their place, attributes as numbers.
pub fn network_fingerprint(network: &Network) -> String {
    let mut hash = Hash(0);
    hash.network(network);
    hash.digits()
}

/// A fingerprint of the inputs, those of a network with this graph, and the targets of sets of samples. Answers of the network are no part of it:
/// they follow from it, and their last bits depend on the instruction set.
pub fn samples_fingerprint<'a>(
    sets: impl IntoIterator<Item = &'a dyn Samples>,
    graph: &Graph,
) -> String {
    let elements = |length| -> usize {
        let graph = graph.at_length(length);
        graph.inputs.iter().map(|i| i.shape.elements()).sum()
    };
    // Elements are those of length 1 and as many more for each.
    let first = elements(1);
    let more = elements(2) - first;
    let mut hash = Hash(0);
    let mut input = vec![];
    for set in sets {
        hash.count(set.len());
        for index in 0..set.len() {
            input.resize(first + more * (set.length(index) - 1), 0.0);
            set.fill(index, [0, 0], &mut input);
            hash.floats(&input);
        }
        if !set.has_targets() {
            continue;
        }
        match set.targets() {
            Targets::Classes(classes) => classes.iter().for_each(|&c| hash.word(c.into())),
            Targets::Vectors { values, .. } => hash.floats(&values),
        }
    }
    hash.digits()
}

/// A hash of words: a product with a large odd number after each.
struct Hash(u64);

impl Hash {
    fn network(&mut self, network: &Network) {
        let graph = &network.graph;
        let mut places: HashMap<&str, usize> = HashMap::new();
        self.count(graph.inputs.len());
        for input in &graph.inputs {
            places.insert(&input.name, places.len());
            self.counts(input.shape.dims());
        }
        for node in &graph.nodes {
            self.text(node.op.name());
            let inputs: Vec<usize> = node.inputs.iter().map(|i| places[i.as_str()]).collect();
            self.counts(&inputs);
            for attribute in node.op.attributes() {
                self.word(attribute.map_or(u64::MAX, f64::to_bits));
            }
            let tensors: Vec<&Weights> = (node.op.tensors())
                .filter_map(|name| network.tensors.get(name))
                .collect();
            self.count(tensors.len());
            for tensor in tensors {
                self.tensor(tensor);
            }
            if let Some(input) = network.int8.inputs.get(&node.name) {
                self.floats(&[input.common_scale()]);
                self.word(input.zero_point().into());
            }
            places.insert(&node.name, places.len());
        }
        let outputs: Vec<usize> = graph.outputs.iter().map(|o| places[o.as_str()]).collect();
        self.counts(&outputs);
        let pixels = graph.preprocessing.clone().unwrap_or_default();
        self.floats(&[pixels.scale]);
        self.floats(&pixels.mean);
        self.floats(&pixels.std);
    }

    fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn count(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn counts(&mut self, counts: &[usize]) {
        self.count(counts.len());
        counts.iter().for_each(|&n| self.count(n));
    }

    fn floats(&mut self, floats: &[f32]) {
        self.count(floats.len());
        floats.iter().for_each(|v| self.word(v.to_bits().into()));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        text.bytes().for_each(|b| self.word(b.into()));
    }

    /// Shape, and each stored element with its place: an element that is not stored was removed, which zero is not.
    fn tensor(&mut self, tensor: &Weights) {
        self.counts(tensor.shape().dims());
        let mut element = |place: usize, v: f32| {
            self.count(place);
            self.word(v.to_bits().into());
        };
        match tensor {
            Weights::Csr(csr) => {
                for row in 0..csr.rows() {
                    let (columns, values) = csr.row(row);
                    for (&column, &v) in columns.iter().zip(values) {
                        element(row * csr.cols() + column as usize, v);
                    }
                }
            }
            other => {
                for (place, &v) in other.values().iter().enumerate() {
                    element(place, v);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Csr, Input, Int8Grid, Op, Preprocessing, ops, presets};

    use super::*;
    use crate::initialise;

    fn network() -> Network {
        let (graph, shapes) = presets::for_input("resnet-20", [1, 8, 8]).unwrap();
        initialise(graph, &shapes, 1).unwrap()
    }

    fn of(network: &Network) -> String {
        network_fingerprint(network)
    }

    /// The network with a suffix on every name, and every weight as CSR of all its elements.
    fn respelled(network: &Network) -> Network {
        let rename = |name: &String| format!("{name}.x");
        let mut graph = network.graph.clone();
        graph.name = "another".into();
        graph.outputs = graph.outputs.iter().map(rename).collect();
        graph.preprocessing = Some(Preprocessing::default());
        for input in &mut graph.inputs {
            input.name = rename(&input.name);
        }
        for node in &mut graph.nodes {
            node.name = rename(&node.name);
            node.inputs = node.inputs.iter().map(rename).collect();
            if let Op::BatchNormalization(ops::BatchNormalization {
                scale,
                bias,
                mean,
                variance,
                ..
            }) = &mut node.op
            {
                for name in [scale, bias, mean, variance] {
                    *name = rename(name);
                }
            }
            if let Some(weight) = node.op.weight().map(str::to_owned) {
                let bias = node.op.bias().map(str::to_owned);
                node.op
                    .rename_tensors(rename(&weight), bias.as_ref().map(rename));
            }
        }
        let tensors = network.tensors.iter().map(|(name, tensor)| {
            let dense = tensor.to_dense();
            let tensor = match dense.shape.dims().len() {
                1 => Weights::Dense(dense),
                _ => Weights::Csr(Csr::from_dense(&dense)),
            };
            (rename(name), tensor)
        });
        Network::new(graph, tensors.collect()).unwrap()
    }

    #[test]
    fn names_and_layouts_play_no_part() {
        let network = network();
        assert_eq!(of(&respelled(&network)), of(&network));
        let json = serde_json::to_string(&network.graph).unwrap();
        // Files of older versions spell defaults out.
        let long = json.replace(
            "\"kernel_shape\":[1,1]",
            "\"kernel_shape\":[1,1],\"dilations\":[1,1],\"groups\":1",
        );
        assert_ne!(long, json);
        let graph = serde_json::from_str(&long).unwrap();
        let spelled = Network::new(graph, network.tensors.clone()).unwrap();
        assert_eq!(of(&spelled), of(&network));
    }

    #[test]
    fn samples_count_by_inputs_targets_and_set() {
        use sparsevd_format::{Dataset, Pixels};
        use sparsevd_model::Shape;

        let set = |pixels: &[u8], labels: &[u16]| {
            let shape = Shape::from([1, 1, 2]);
            let dataset = Dataset::new(Pixels::U8(pixels.to_vec()), shape.clone(), labels.to_vec());
            crate::Images::new(dataset.unwrap(), &shape, &Preprocessing::default())
        };
        let input = Input::new("x", [1, 1, 2]);
        let graph = Graph {
            inputs: vec![input],
            ..network().graph
        };
        let of = |sets: &[crate::Images]| {
            samples_fingerprint(sets.iter().map(|set| set as &dyn Samples), &graph)
        };
        let seen = [
            of(&[set(&[1, 2, 3, 4], &[0, 1])]),
            of(&[set(&[1, 2, 3, 5], &[0, 1])]),
            of(&[set(&[1, 2, 3, 4], &[1, 1])]),
            of(&[set(&[1, 2], &[0]), set(&[3, 4], &[1])]),
        ];
        for (i, one) in seen.iter().enumerate() {
            assert!(!seen[..i].contains(one), "{i}");
        }
        assert_eq!(of(&[set(&[1, 2, 3, 4], &[0, 1])]), seen[0]);
    }

    #[test]
    fn every_part_of_what_is_trained_counts() {
        let network = network();
        let mut others = vec![network.clone(); 8];
        let name = "conv1.weight";
        let [
            weight,
            removed,
            stride,
            input,
            pixels,
            order,
            bytes,
            other_bytes,
        ] = &mut others[..]
        else {
            unreachable!()
        };
        let mut dense = weight.tensors[name].to_dense();
        dense.values[3] += 1e-6;
        weight.tensors.insert(name.into(), Weights::Dense(dense));
        // A weight that was removed does not train; one that is zero does.
        let mut dense = network.tensors[name].to_dense();
        dense.values[3] = 0.0;
        let zero = Weights::Csr(Csr::from_dense(&dense));
        removed.tensors.insert(name.into(), zero);
        let Some(Op::Conv(ops::Conv { window, .. })) =
            stride.graph.nodes.first_mut().map(|n| &mut n.op)
        else {
            unreachable!("a convolution is first")
        };
        window.dilations = [2, 2];
        input.graph.inputs[0].shape.0[1] = 9;
        pixels.graph.preprocessing = Some(Preprocessing {
            scale: 0.5,
            ..Preprocessing::default()
        });
        let add = order.graph.nodes.iter_mut().find(|n| n.op == Op::Add);
        add.unwrap().inputs.reverse();
        for (network, zero_point) in [(bytes, 0), (other_bytes, 9)] {
            let grid = Int8Grid {
                scale: 0.5,
                zero_point,
            };
            network.int8.inputs.insert("conv1".into(), grid.into());
        }
        let mut seen = vec![of(&network)];
        for (i, other) in others.iter().enumerate() {
            let one = of(other);
            assert!(!seen.contains(&one), "{i}");
            seen.push(one);
        }
    }
}
