//! The networks of LeCun et al. (1998), as Caffe has the second.

use super::parts::{Preset, finish, images, max_pool};
use crate::{Conv2d, Op, Shape};

pub(super) fn lenet_300_100() -> Preset {
    mlp("lenet-300-100", Shape::from([1, 28, 28]), &[300, 100, 10])
}

/// LeNet-5 of Caffe: 20@5x5, ReLU, pool, 50@5x5, ReLU, pool, 500, ReLU, 10; 430,500 weights.
pub(super) fn lenet_5() -> Preset {
    let (mut b, x) = images("lenet-5", [1, 28, 28]);
    let x = b.conv("conv1", &x, &Conv2d::square(20, 5));
    let x = b.op("relu1", Op::Relu, &[&x]);
    let x = b.op("pool1", max_pool(2, 2, 0), &[&x]);
    let x = b.conv("conv2", &x, &Conv2d::square(50, 5));
    let x = b.op("relu2", Op::Relu, &[&x]);
    let x = b.op("pool2", max_pool(2, 2, 0), &[&x]);
    let x = b.op("flatten", Op::Flatten, &[&x]);
    let x = b.linear("fc1", &x, 500);
    let x = b.op("relu3", Op::Relu, &[&x]);
    b.linear("fc2", &x, 10);
    finish(b)
}

/// A multi-layer perceptron with ReLU between its linear layers, `fc1`, `fc2`, ...
pub fn mlp(name: &str, input: Shape, widths: &[usize]) -> Preset {
    let is_vector = input.dims().len() == 1;
    let (mut b, mut x) = images(name, input);
    if !is_vector {
        x = b.op("flatten", Op::Flatten, &[&x]);
    }
    for (i, &out) in widths.iter().enumerate() {
        if i > 0 {
            x = b.op(format!("relu{i}"), Op::Relu, &[&x]);
        }
        x = b.linear(format!("fc{}", i + 1), &x, out);
    }
    finish(b)
}
