//! Graphs that have a name of their own on the command line.

use crate::{Graph, Input, Node, Op, Preprocessing, Shape, Window};

/// Names that [`by_name`] knows.
pub const NAMES: [&str; 2] = ["lenet-300-100", "lenet-5"];

/// The preset graph of that name, if there is one.
pub fn by_name(name: &str) -> Option<(Graph, Vec<(String, Shape)>)> {
    match name {
        "lenet-300-100" => Some(lenet_300_100()),
        "lenet-5" => Some(lenet_5()),
        _ => None,
    }
}

/// Builds a chain of nodes, each reading the one before, and collects the tensors it names.
struct Chain {
    nodes: Vec<Node>,
    tensors: Vec<(String, Shape)>,
}

impl Chain {
    fn push(&mut self, name: &str, op: Op) {
        let before = self.nodes.last().map_or("input", |n| n.name.as_str());
        let inputs = vec![before.to_owned()];
        self.nodes.push(Node {
            name: name.into(),
            inputs,
            op,
        });
    }

    fn tensors(&mut self, name: &str, shape: Shape) -> (String, Option<String>) {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let out = shape.dims()[0];
        self.tensors.push((weight.clone(), shape));
        self.tensors.push((bias.clone(), Shape::from([out])));
        (weight, Some(bias))
    }

    fn linear(&mut self, name: &str, out: usize, inn: usize) {
        let (weight, bias) = self.tensors(name, Shape::from([out, inn]));
        self.push(name, Op::Linear { weight, bias });
    }

    fn conv(&mut self, name: &str, out: usize, inn: usize, size: usize) {
        let (weight, bias) = self.tensors(name, Shape::from([out, inn, size, size]));
        let window = Window::square(size, 1);
        self.push(
            name,
            Op::Conv {
                weight,
                bias,
                window,
                groups: 1,
            },
        );
    }

    fn finish(self, name: &str, input: Shape) -> (Graph, Vec<(String, Shape)>) {
        let outputs = self
            .nodes
            .last()
            .map(|n| n.name.clone())
            .into_iter()
            .collect();
        let graph = Graph {
            name: name.into(),
            inputs: vec![Input {
                name: "input".into(),
                shape: input,
            }],
            nodes: self.nodes,
            outputs,
            preprocessing: Some(Preprocessing::default()),
        };
        (graph, self.tensors)
    }
}

fn lenet_300_100() -> (Graph, Vec<(String, Shape)>) {
    mlp("lenet-300-100", Shape::from([1, 28, 28]), &[300, 100, 10])
}

/// LeNet-5 of Caffe: 20@5x5, ReLU, pool, 50@5x5, ReLU, pool, 500, ReLU, 10; 430,500 weights.
fn lenet_5() -> (Graph, Vec<(String, Shape)>) {
    let mut c = Chain {
        nodes: vec![],
        tensors: vec![],
    };
    let pool = || Op::MaxPool {
        window: Window::square(2, 2),
    };
    c.conv("conv1", 20, 1, 5);
    c.push("relu1", Op::Relu);
    c.push("pool1", pool());
    c.conv("conv2", 50, 20, 5);
    c.push("relu2", Op::Relu);
    c.push("pool2", pool());
    c.push("flatten", Op::Flatten);
    c.linear("fc1", 500, 800);
    c.push("relu3", Op::Relu);
    c.linear("fc2", 10, 500);
    c.finish("lenet-5", Shape::from([1, 28, 28]))
}

/// A multi-layer perceptron with ReLU between its linear layers, `fc1`, `fc2`, ...
pub fn mlp(name: &str, input: Shape, widths: &[usize]) -> (Graph, Vec<(String, Shape)>) {
    let mut c = Chain {
        nodes: vec![],
        tensors: vec![],
    };
    let mut inn = input.elements();
    if input.dims().len() != 1 {
        c.push("flatten", Op::Flatten);
    }
    for (i, &out) in widths.iter().enumerate() {
        if i > 0 {
            c.push(&format!("relu{i}"), Op::Relu);
        }
        c.linear(&format!("fc{}", i + 1), out, inn);
        inn = out;
    }
    c.finish(name, input)
}
