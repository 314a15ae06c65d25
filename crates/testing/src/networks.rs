//! Networks of real shapes with random numbers.

use std::collections::BTreeMap;

use sparsevd_model::{
    Csr, Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window, quantised,
};

use crate::arbitrary::Stream;

/// ResNet-50 with batch normalisation folded away: 25.5 million weights, `density` of them non-zero, in Gaussian values
/// on a 5-bit grid scaled to the largest.
pub fn resnet_50(density: f64, seed: u64) -> Network {
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
        let step = quantised::nearest_step(most / 15.0, 8).expect("a positive value");
        for v in &mut values {
            *v = quantised::value((*v / step).round().clamp(-15.0, 15.0) as i32, step);
        }
        // Values that round to zero are none.
        let csr = Csr::try_new(shape.clone(), starts, columns, values).expect("columns in order");
        let csr = if csr.values().contains(&0.0) {
            Csr::from_dense(&csr.to_dense())
        } else {
            csr
        };
        weights.insert(name.clone(), Weights::Csr(csr));
        steps.insert(name.clone(), step);
    }
    let mut network = Network::new(graph, weights).expect("tensors of the graph");
    for (name, step) in steps {
        network.set_step(&name, step).expect("values on the grid");
    }
    network
}

/// Bits that the positions of the non-zeros of CSR weights take at least where any are as likely as others: `log2 C(n, k)`
/// for each weight.
pub fn positions_bound(network: &Network) -> f64 {
    let weights = network.tensors.values();
    weights
        .filter(|t| matches!(t, Weights::Csr(_)))
        .map(|t| log2_binomial(t.shape().elements(), t.nonzeros()))
        .sum()
}

/// log2 of n over k.
fn log2_binomial(n: usize, k: usize) -> f64 {
    (0..k)
        .map(|i| ((n - i) as f64 / (k - i) as f64).log2())
        .sum()
}
