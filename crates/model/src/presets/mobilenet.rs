//! MobileNetV1 (Howard et al. 2017).

use super::{Builder, Filters, Preset};
use crate::{Op, Shape};

/// A convolution and thirteen pairs of a depthwise and a pointwise one, each with normalisation and ReLU; 1000 classes.
pub(super) fn mobilenet_v1(input: [usize; 3]) -> Preset {
    let mut b = Builder::new();
    let mut layer = |name: &str, filters: Filters| {
        b.conv(name, filters, false);
        b.normalise(&format!("{name}.bn"), filters.out);
        b.push(&format!("{name}.relu"), Op::Relu);
    };
    layer("conv1", Filters::same(32, input[0], 3, 2));
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
    for (i, (out, stride)) in pairs.into_iter().enumerate() {
        let depthwise = Filters {
            groups: channels,
            ..Filters::same(channels, channels, 3, stride)
        };
        layer(&format!("depthwise{}", i + 1), depthwise);
        layer(
            &format!("pointwise{}", i + 1),
            Filters::same(out, channels, 1, 1),
        );
        channels = out;
    }
    b.classify(1000, channels);
    b.finish("mobilenet-v1", Shape::from(input))
}
