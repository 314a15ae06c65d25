//! The networks of LeCun et al. (1998), as Caffe has the second.

use super::{Builder, Filters, Preset};
use crate::{Op, Shape};

pub(super) fn lenet_300_100() -> Preset {
    mlp("lenet-300-100", Shape::from([1, 28, 28]), &[300, 100, 10])
}

/// LeNet-5 of Caffe: 20@5x5, ReLU, pool, 50@5x5, ReLU, pool, 500, ReLU, 10; 430,500 weights.
pub(super) fn lenet_5() -> Preset {
    let mut b = Builder::new();
    let filters = |out, inn| Filters {
        pad: 0,
        ..Filters::same(out, inn, 5, 1)
    };
    b.conv("conv1", filters(20, 1), true);
    b.push("relu1", Op::Relu);
    b.max_pool("pool1", 2, 2, 0);
    b.conv("conv2", filters(50, 20), true);
    b.push("relu2", Op::Relu);
    b.max_pool("pool2", 2, 2, 0);
    b.push("flatten", Op::Flatten);
    b.linear("fc1", 500, 800);
    b.push("relu3", Op::Relu);
    b.linear("fc2", 10, 500);
    b.finish("lenet-5", Shape::from([1, 28, 28]))
}

/// A multi-layer perceptron with ReLU between its linear layers, `fc1`, `fc2`, ...
pub fn mlp(name: &str, input: Shape, widths: &[usize]) -> Preset {
    let mut b = Builder::new();
    let mut inn = input.elements();
    if input.dims().len() != 1 {
        b.push("flatten", Op::Flatten);
    }
    for (i, &out) in widths.iter().enumerate() {
        if i > 0 {
            b.push(&format!("relu{i}"), Op::Relu);
        }
        b.linear(&format!("fc{}", i + 1), out, inn);
        inn = out;
    }
    b.finish(name, input)
}
