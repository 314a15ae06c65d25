//! Small networks for the tests of this crate, and surgery on their files.
#![allow(dead_code)]

use std::collections::BTreeMap;

use serde_json::Value;
use sparsevd_model::{Csr, Dense, Graph, Network, Shape, Weights, presets};
use sparsevd_testing::arbitrary::Stream;

/// Fills a graph's tensors with random numbers; `layout` says which weights are CSR.
pub fn fill(
    graph: Graph,
    tensors: &[(String, Shape)],
    seed: u64,
    density: f64,
    layout: impl Fn(usize) -> bool,
) -> Network {
    let mut stream = Stream(seed);
    let mut filled = BTreeMap::new();
    for (i, (name, shape)) in tensors.iter().enumerate() {
        let tensor = if shape.dims().len() < 2 {
            Weights::Dense(Dense::new(shape.clone(), stream.floats(shape.elements())))
        } else if layout(i) {
            Weights::Csr(stream.sparse(shape.clone(), density))
        } else {
            Weights::Dense(stream.bernoulli(shape.clone(), density))
        };
        filled.insert(name.clone(), tensor);
    }
    Network::new(graph, filled).unwrap()
}

/// LeNet-5 with every weight CSR at 1 % density.
pub fn lenet_5() -> Network {
    let (graph, tensors) = presets::by_name("lenet-5").unwrap();
    fill(graph, &tensors, 5, 0.01, |_| true)
}

/// 4 to 3 (CSR, five non-zeros) to 2 (dense), with biases.
pub fn tiny() -> Network {
    let (graph, _) = presets::mlp("tiny", Shape::from([4]), &[3, 2]);
    let csr = Csr::try_new(
        [3, 4],
        vec![0, 2, 2, 5],
        vec![0, 3, 0, 1, 2],
        vec![1.0, -2.0, 0.5, 4.0, 8.0],
    );
    let tensors = BTreeMap::from([
        ("fc1.weight".to_owned(), Weights::Csr(csr.unwrap())),
        (
            "fc1.bias".to_owned(),
            Weights::Dense(Dense::new([3], vec![0.25, 0.5, 0.75])),
        ),
        (
            "fc2.weight".to_owned(),
            Weights::Dense(Dense::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ),
        (
            "fc2.bias".to_owned(),
            Weights::Dense(Dense::new([2], vec![-1.0, 1.0])),
        ),
    ]);
    let mut network = Network::new(graph, tensors).unwrap();
    (network.original_shapes).insert("fc1.weight".into(), Shape::from([5, 4]));
    network
}

/// A safetensors file in pieces.
#[derive(Clone)]
pub struct Pieces {
    pub header: Value,
    pub data: Vec<u8>,
}

impl Pieces {
    pub fn of(file: &[u8]) -> Self {
        let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        Self {
            header: serde_json::from_slice(&file[8..8 + n]).unwrap(),
            data: file[8 + n..].to_vec(),
        }
    }

    pub fn join(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(&self.data);
        file
    }

    /// Where the bytes of a tensor are in `data`.
    pub fn range(&self, tensor: &str) -> std::ops::Range<usize> {
        let at = |i: usize| self.header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        at(0)..at(1)
    }

    /// Overwrites the bytes of a tensor from an element on.
    pub fn set(&mut self, tensor: &str, element: usize, bytes: &[u8]) -> &mut Self {
        let start = self.range(tensor).start + element * bytes.len();
        self.data[start..start + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Gives a tensor another dtype, shape and bytes.
    pub fn replace(
        &mut self,
        tensor: &str,
        dtype: &str,
        shape: &[usize],
        bytes: &[u8],
    ) -> &mut Self {
        self.remove(tensor);
        let (start, end) = (self.data.len(), self.data.len() + bytes.len());
        self.data.extend(bytes);
        self.header[tensor] =
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        self
    }

    /// Takes a tensor out, closing the hole.
    pub fn remove(&mut self, tensor: &str) -> &mut Self {
        if self.header.get(tensor).is_none() {
            return self;
        }
        let range = self.range(tensor);
        self.data.drain(range.clone());
        let object = self.header.as_object_mut().unwrap();
        object.remove(tensor);
        for (name, info) in object.iter_mut() {
            if name == "__metadata__" {
                continue;
            }
            for end in info["data_offsets"].as_array_mut().unwrap() {
                let at = end.as_u64().unwrap() as usize;
                if at >= range.end {
                    *end = (at - range.len()).into();
                }
            }
        }
        self
    }

    /// Edits a metadata value that is JSON itself.
    pub fn edit(&mut self, key: &str, change: impl Fn(&mut Value)) -> &mut Self {
        let entry = &mut self.header["__metadata__"][key];
        let mut value: Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
        change(&mut value);
        *entry = value.to_string().into();
        self
    }

    pub fn metadata(&mut self, key: &str, value: &str) -> &mut Self {
        self.header["__metadata__"][key] = value.into();
        self
    }
}

/// ResNet-50 with batch normalisation folded away: 25.5 million weights, `density` of them non-zero, in Gaussian values
/// on a 5-bit grid scaled to the largest.
pub fn resnet_50(density: f64, seed: u64) -> Network {
    use sparsevd_model::{Input, Node, Op, Window, quantised};
    let mut nodes: Vec<Node> = Vec::new();
    let mut tensors: Vec<(String, Shape)> = Vec::new();
    let mut conv =
        |nodes: &mut Vec<Node>, name: String, from: &str, shape: [usize; 4], stride: usize| {
            let [_, _, size, _] = shape;
            let window = Window {
                pads: [size / 2; 4],
                ..Window::square(size, stride)
            };
            let weight = format!("{name}.weight");
            tensors.push((weight.clone(), Shape::from(shape)));
            tensors.push((format!("{name}.bias"), Shape::from([shape[0]])));
            let op = Op::Conv {
                weight,
                bias: Some(format!("{name}.bias")),
                window,
                groups: 1,
            };
            nodes.push(Node {
                name: name.clone(),
                inputs: vec![from.into()],
                op,
            });
            name
        };
    let push = |nodes: &mut Vec<Node>, name: String, from: &[&str], op: Op| {
        let inputs = from.iter().map(|f| (*f).to_owned()).collect();
        nodes.push(Node {
            name: name.clone(),
            inputs,
            op,
        });
        name
    };
    let x = conv(&mut nodes, "conv1".into(), "input", [64, 3, 7, 7], 2);
    let x = push(&mut nodes, "relu".into(), &[&x], Op::Relu);
    let window = Window {
        pads: [1; 4],
        ..Window::square(3, 2)
    };
    let mut x = push(&mut nodes, "maxpool".into(), &[&x], Op::MaxPool { window });
    let mut channels = 64;
    for (i, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << i;
        for block in 0..blocks {
            let name = |part: &str| format!("layer{}.{block}.{part}", i + 1);
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            let a = conv(&mut nodes, name("conv1"), &x, [width, channels, 1, 1], 1);
            let a = push(&mut nodes, name("relu1"), &[&a], Op::Relu);
            let a = conv(&mut nodes, name("conv2"), &a, [width, width, 3, 3], stride);
            let a = push(&mut nodes, name("relu2"), &[&a], Op::Relu);
            let a = conv(&mut nodes, name("conv3"), &a, [4 * width, width, 1, 1], 1);
            if block == 0 {
                x = conv(
                    &mut nodes,
                    name("downsample.0"),
                    &x,
                    [4 * width, channels, 1, 1],
                    stride,
                );
            }
            let a = push(&mut nodes, name("add"), &[&a, &x], Op::Add);
            x = push(&mut nodes, name("relu3"), &[&a], Op::Relu);
            channels = 4 * width;
        }
    }
    let x = push(&mut nodes, "avgpool".into(), &[&x], Op::GlobalAveragePool);
    let x = push(&mut nodes, "flatten".into(), &[&x], Op::Flatten);
    tensors.push(("fc.weight".into(), Shape::from([1000, channels])));
    tensors.push(("fc.bias".into(), Shape::from([1000])));
    let op = Op::Linear {
        weight: "fc.weight".into(),
        bias: Some("fc.bias".into()),
    };
    push(&mut nodes, "fc".into(), &[&x], op);
    let input = Input {
        name: "input".into(),
        shape: Shape::from([3, 224, 224]),
    };
    let graph = Graph {
        name: "resnet-50".into(),
        inputs: vec![input],
        nodes,
        outputs: vec!["fc".into()],
        preprocessing: None,
    };
    let mut stream = Stream(seed);
    let mut weights = BTreeMap::new();
    let mut steps = BTreeMap::new();
    for (name, shape) in &tensors {
        if shape.dims().len() < 2 {
            weights.insert(name.clone(), Weights::Dense(Dense::zeros(shape.clone())));
            steps.insert(name.clone(), 1.0);
            continue;
        }
        let (rows, cols) = shape.matrix();
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for _ in 0..rows {
            for column in 0..cols {
                if stream.unit() < density {
                    columns.push(column as u32);
                    let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
                    values.push((radius * (stream.unit() * std::f64::consts::TAU).cos()) as f32);
                }
            }
            starts.push(columns.len() as u32);
        }
        let most = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let step = quantised::nearest_step(most / 15.0, 8).unwrap();
        for v in &mut values {
            *v = quantised::value((*v / step).round().clamp(-15.0, 15.0) as i32, step);
        }
        // Values that round to zero are none.
        let csr = Csr::try_new(shape.clone(), starts, columns, values).unwrap();
        let csr = if csr.values().contains(&0.0) {
            Csr::from_dense(&csr.to_dense())
        } else {
            csr
        };
        weights.insert(name.clone(), Weights::Csr(csr));
        steps.insert(name.clone(), step);
    }
    let mut network = Network::new(graph, weights).unwrap();
    for (name, step) in steps {
        network.set_step(&name, step).unwrap();
    }
    network
}
