//! The VGG-like network for CIFAR that Sparse Variational Dropout was shown on (Molchanov et al. 2017; Zagoruyko 2015).

use super::{Builder, Filters, Preset};
use crate::{Op, Shape};

/// Thirteen 3x3 convolutions in five stages, each followed by normalisation and ReLU, and two linear layers.
pub(super) fn vgg_like(input: [usize; 3]) -> Preset {
    let [mut channels, mut height, mut width] = input;
    let mut b = Builder::new();
    for (stage, (layers, out)) in [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]
        .into_iter()
        .enumerate()
    {
        for layer in 1..=layers {
            let name = format!("{}_{layer}", stage + 1);
            b.conv(
                &format!("conv{name}"),
                Filters::same(out, channels, 3, 1),
                true,
            );
            b.normalise(&format!("bn{name}"), out);
            b.push(&format!("relu{name}"), Op::Relu);
            channels = out;
        }
        b.max_pool(&format!("pool{}", stage + 1), 2, 2, 0);
        (height, width) = (height / 2, width / 2);
    }
    b.push("flatten", Op::Flatten);
    b.linear("fc1", 512, channels * height * width);
    b.normalise("bn_fc1", 512);
    b.push("relu_fc1", Op::Relu);
    b.linear("fc2", 10, 512);
    b.finish("vgg-like", Shape::from(input))
}
