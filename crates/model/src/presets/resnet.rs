//! Residual networks (He et al. 2016), with torchvision's names of tensors.

use super::{Builder, Filters, Preset};
use crate::{Op, Shape};

/// ResNet-20 for small images: three stages of three pairs of 3x3 convolutions, with a 1x1 convolution where a stage begins;
/// 10 classes.
pub(super) fn resnet_20(input: [usize; 3]) -> Preset {
    small("resnet-20", input, 1)
}

/// ResNet-20 for handwritten digits of 28x28 pixels: the first convolution has stride 2, so that stages have 14x14, 7x7 and 4x4.
pub(super) fn resnet_20_mnist() -> Preset {
    small("resnet-20-mnist", [1, 28, 28], 2)
}

fn small(name: &str, input: [usize; 3], stride: usize) -> Preset {
    let mut b = Builder::new();
    let first = Filters::same(16, input[0], 3, stride);
    layer(&mut b, "conv1", "bn1", first);
    b.push("relu", Op::Relu);
    let mut channels = 16;
    for (stage, out) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let filters = [
                Filters::same(out, channels, 3, stride),
                Filters::same(out, out, 3, 1),
            ];
            residual(&mut b, &format!("layer{}.{block}", stage + 1), &filters);
            channels = out;
        }
    }
    b.classify(10, channels);
    b.finish(name, Shape::from(input))
}

/// ResNet-50 with strides in the 3x3 convolutions ("v1.5", as torchvision has it); 1000 classes.
pub(super) fn resnet_50(input: [usize; 3]) -> Preset {
    let mut b = Builder::new();
    layer(&mut b, "conv1", "bn1", Filters::same(64, input[0], 7, 2));
    b.push("relu", Op::Relu);
    b.max_pool("maxpool", 3, 2, 1);
    let mut channels = 64;
    for (stage, (blocks, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)]
        .into_iter()
        .enumerate()
    {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let filters = [
                Filters::same(width, channels, 1, 1),
                Filters::same(width, width, 3, stride),
                Filters::same(4 * width, width, 1, 1),
            ];
            residual(&mut b, &format!("layer{}.{block}", stage + 1), &filters);
            channels = 4 * width;
        }
    }
    b.classify(1000, channels);
    b.finish("resnet-50", Shape::from(input))
}

fn layer(b: &mut Builder, conv: &str, norm: &str, filters: Filters) {
    b.conv(conv, filters, false);
    b.normalise(norm, filters.out);
}

/// Convolutions, and their input added to what they make: through a 1x1 convolution where shapes differ.
fn residual(b: &mut Builder, name: &str, filters: &[Filters]) {
    let input = b.last.clone();
    for (i, &f) in (1..).zip(filters) {
        layer(b, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), f);
        if i < filters.len() {
            b.push(&format!("{name}.relu{i}"), Op::Relu);
        }
    }
    let body = b.last.clone();
    let (inn, out) = (filters[0].inn, filters[filters.len() - 1].out);
    let stride: usize = filters.iter().map(|f| f.stride).product();
    let shortcut = if inn == out && stride == 1 {
        input
    } else {
        b.last = input;
        let conv = format!("{name}.downsample.0");
        layer(
            b,
            &conv,
            &format!("{name}.downsample.1"),
            Filters::same(out, inn, 1, stride),
        );
        b.last.clone()
    };
    b.last = body;
    b.add(&format!("{name}.add"), shortcut);
    b.push(&format!("{name}.relu"), Op::Relu);
}
