//! MobileNetV1 (Howard et al. 2017).

use super::parts::{Preset, classify, finish, images, same};
use crate::{Conv2d, Op};

/// A convolution and thirteen pairs of a depthwise and a pointwise one, each with normalisation and ReLU; 1000 classes.
pub(super) fn mobilenet_v1(input: [usize; 3]) -> Preset {
    let (mut b, x) = images("mobilenet-v1", input);
    let mut layer = |name: &str, x: &str, conv: &Conv2d| {
        let x = b.conv(name, x, conv);
        let x = b.batch_normalization(format!("{name}.bn"), &x);
        b.op(format!("{name}.relu"), Op::Relu, &[&x])
    };
    let mut x = layer("conv1", &x, &same(32, 3, 2));
    let mut channels = 32;
    let pairs = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (1024, 2),
        (1024, 1),
    ];
    for (i, (out, stride)) in (1..).zip(pairs) {
        let depthwise = same(channels, 3, stride).groups(channels);
        x = layer(&format!("depthwise{i}"), &x, &depthwise);
        x = layer(&format!("pointwise{i}"), &x, &same(out, 1, 1));
        channels = out;
    }
    classify(&mut b, &x, 1000);
    finish(b)
}
