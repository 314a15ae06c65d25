//! The VGG-like network for CIFAR that Sparse Variational Dropout was shown on (Molchanov et al. 2017; Zagoruyko 2015).

use super::parts::{Preset, finish, images, max_pool};
use crate::{Conv2d, Op};

/// Thirteen 3x3 convolutions in five stages, each followed by normalisation and ReLU, and two linear layers.
pub(super) fn vgg_like(input: [usize; 3]) -> Preset {
    let (mut b, mut x) = images("vgg-like", input);
    for (stage, (layers, out)) in [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
        .into_iter()
        .enumerate()
    {
        for layer in 1..=layers {
            let name = format!("{}_{layer}", stage + 1);
            let conv = Conv2d::square(out, 3).padding(1);
            x = b.conv(format!("conv{name}"), &x, &conv);
            x = b.batch_normalization(format!("bn{name}"), &x);
            x = b.op(format!("relu{name}"), Op::Relu, &[&x]);
        }
        x = b.op(format!("pool{}", stage + 1), max_pool(2, 2, 0), &[&x]);
    }
    let x = b.op("flatten", Op::Flatten, &[&x]);
    let x = b.linear("fc1", &x, 512);
    let x = b.batch_normalization("bn_fc1", &x);
    let x = b.op("relu_fc1", Op::Relu, &[&x]);
    b.linear("fc2", &x, 10);
    finish(b)
}
