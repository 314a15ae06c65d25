//! Residual networks (He et al. 2016), with torchvision's names of tensors.

use super::parts::{Preset, classify, finish, images, max_pool, same};
use crate::{Conv2d, GraphBuilder, Op};

/// ResNet-20 for small images: three stages of three pairs of 3x3 convolutions, with a 1x1 convolution where a stage begins;
/// 10 classes.
pub(super) fn resnet_20(input: [usize; 3]) -> Preset {
    small("resnet-20", input, 1, 3)
}

/// ResNet-8 for small images, that of MLPerf Tiny (Banbury et al. 2021) but for biases, which are those of the normalisation: three stages
/// of one pair of 3x3 convolutions; 10 classes.
pub(super) fn resnet_8(input: [usize; 3]) -> Preset {
    small("resnet-8", input, 1, 1)
}

/// ResNet-20 for handwritten digits of 28x28 pixels: the first convolution has stride 2, so that stages have 14x14, 7x7 and 4x4.
pub(super) fn resnet_20_mnist() -> Preset {
    small("resnet-20-mnist", [1, 28, 28], 2, 3)
}

/// A residual network of three stages of 16, 32 and 64 channels; `stride` is that of the first convolution, `blocks` how many pairs of
/// convolutions a stage has.
fn small(name: &str, input: [usize; 3], stride: usize, blocks: usize) -> Preset {
    let (mut b, x) = images(name, input);
    let x = layer(&mut b, "conv1", "bn1", &x, &same(16, 3, stride));
    let mut x = b.op("relu", Op::Relu, &[&x]);
    for (stage, out) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let convs = [same(out, 3, stride), same(out, 3, 1)];
            x = residual(&mut b, &format!("layer{}.{block}", stage + 1), &x, &convs);
        }
    }
    classify(&mut b, &x, 10);
    finish(b)
}

/// ResNet-50 with strides in the 3x3 convolutions ("v1.5", as torchvision has it); 1000 classes.
pub(super) fn resnet_50(input: [usize; 3]) -> Preset {
    let (mut b, x) = images("resnet-50", input);
    let x = layer(&mut b, "conv1", "bn1", &x, &same(64, 7, 2));
    let x = b.op("relu", Op::Relu, &[&x]);
    let mut x = b.op("maxpool", max_pool(3, 2, 1), &[&x]);
    for (stage, (blocks, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)]
        .into_iter()
        .enumerate()
    {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let convs = [
                same(width, 1, 1),
                same(width, 3, stride),
                same(4 * width, 1, 1),
            ];
            x = residual(&mut b, &format!("layer{}.{block}", stage + 1), &x, &convs);
        }
    }
    classify(&mut b, &x, 1000);
    finish(b)
}

fn layer(b: &mut GraphBuilder, conv: &str, norm: &str, x: &str, filters: &Conv2d) -> String {
    let x = b.conv(conv, x, filters);
    b.batch_normalization(norm, &x)
}

/// Convolutions, and their input added to what they make: through a 1x1 convolution where shapes differ.
fn residual(b: &mut GraphBuilder, name: &str, input: &str, convs: &[Conv2d]) -> String {
    let mut body = input.to_owned();
    for (i, conv) in (1..).zip(convs) {
        let (filters, norm) = (format!("{name}.conv{i}"), format!("{name}.bn{i}"));
        body = layer(b, &filters, &norm, &body, conv);
        if i < convs.len() {
            body = b.op(format!("{name}.relu{i}"), Op::Relu, &[&body]);
        }
    }
    let shortcut = if b.shape(input) == b.shape(&body) {
        input.to_owned()
    } else {
        let out = convs[convs.len() - 1].out_channels;
        let stride = convs.iter().map(|c| c.window.strides[0]).product();
        let (filters, norm) = (
            format!("{name}.downsample.0"),
            format!("{name}.downsample.1"),
        );
        layer(b, &filters, &norm, input, &same(out, 1, stride))
    };
    let sum = b.op(format!("{name}.add"), Op::Add, &[&body, &shortcut]);
    b.op(format!("{name}.relu"), Op::Relu, &[&sum])
}
