//! What the presets are built of.

use crate::{Conv2d, Graph, GraphBuilder, Op, Preprocessing, Shape, Window, ops};

/// A graph with the names and shapes of its tensors.
pub type Preset = (Graph, Vec<(String, Shape)>);

/// A graph to add the nodes of a preset to, and the name of its one input, which takes pixels as they are.
pub(super) fn images(name: &str, shape: impl Into<Shape>) -> (GraphBuilder, String) {
    let mut b = GraphBuilder::new(name);
    let x = b.input("input", shape);
    b.preprocessing(Preprocessing::default());
    (b, x)
}

/// Square filters without a bias that keep the size of the map at stride 1.
pub(super) fn same(out_channels: usize, size: usize, stride: usize) -> Conv2d {
    let conv = Conv2d::square(out_channels, size).stride(stride);
    conv.padding(size / 2).without_bias()
}

/// Max-pooling with square windows, padded alike on all sides.
pub(super) fn max_pool(size: usize, stride: usize, pad: usize) -> Op {
    let window = Window {
        pads: [pad; 4],
        ..Window::square(size, stride)
    };
    Op::MaxPool(ops::MaxPool { window })
}

/// The mean of each map, and a linear layer of classes.
pub(super) fn classify(b: &mut GraphBuilder, x: &str, classes: usize) {
    let x = b.op("pool", Op::GlobalAveragePool, &[x]);
    let x = b.op("flatten", Op::Flatten, &[&x]);
    b.linear("fc", &x, classes);
}

/// The graph with the shapes of its tensors.
pub(super) fn finish(b: GraphBuilder) -> Preset {
    b.finish_with_tensors().expect("the layers of a preset fit")
}
