//! Graphs that have a name of their own on the command line.

mod lenet;
mod mobilenet;
mod parts;
mod resnet;
mod vgg;

use std::ops::RangeInclusive;

use crate::Shape;

pub use lenet::mlp;
pub use parts::Preset;

/// Names of networks that [`by_name`] knows.
pub const NAMES: [&str; 8] = [
    "lenet-300-100",
    "lenet-5",
    "vgg-like",
    "resnet-8",
    "resnet-20",
    "resnet-20-mnist",
    "mobilenet-v1",
    "resnet-50",
];

/// Sizes of a multi-layer perceptron that is named by them.
const MLP_SIZES: RangeInclusive<usize> = 2..=18;
/// Most inputs, units or outputs of one.
const MOST_UNITS: usize = 1 << 16;

/// What [`by_name`] takes, in words.
pub fn names() -> String {
    format!(
        "{} and mlp:784,300,100,10 with the sizes of a multi-layer perceptron, {} to {} of 1 to {MOST_UNITS}",
        NAMES.join(", "),
        MLP_SIZES.start(),
        MLP_SIZES.end()
    )
}

/// [`crate::hint`] for a name that is none of the presets.
pub fn hint(name: &str) -> String {
    crate::hint(name, NAMES)
}

/// The multi-layer perceptron of a name such as `mlp:784,300,100,10`: inputs, widths of its hidden layers, outputs.
fn mlp_by_sizes(name: &str) -> Option<Preset> {
    let sizes = name.strip_prefix("mlp:")?.split(',');
    let size = |s: &str| s.parse().ok().filter(|s| (1..=MOST_UNITS).contains(s));
    let sizes: Vec<usize> = sizes.map(size).collect::<Option<_>>()?;
    let (input, widths) = sizes.split_first()?;
    let name = name.replace([':', ','], "-");
    MLP_SIZES
        .contains(&sizes.len())
        .then(|| mlp(&name, Shape::from([*input]), widths))
}

/// The preset of that name, if there is one; a name of sizes such as `mlp:784,300,100,10` is a [multi-layer perceptron](mlp).
pub fn by_name(name: &str) -> Option<Preset> {
    match name {
        "lenet-300-100" => Some(lenet::lenet_300_100()),
        "lenet-5" => Some(lenet::lenet_5()),
        "vgg-like" => Some(vgg::vgg_like([3, 32, 32])),
        "resnet-8" => Some(resnet::resnet_8([3, 32, 32])),
        "resnet-20" => Some(resnet::resnet_20([3, 32, 32])),
        "resnet-20-mnist" => Some(resnet::resnet_20_mnist()),
        "mobilenet-v1" => Some(mobilenet::mobilenet_v1([3, 224, 224])),
        "resnet-50" => Some(resnet::resnet_50([3, 224, 224])),
        _ => mlp_by_sizes(name),
    }
}

/// The preset of that name for another input, `[channels, height, width]`; `None` for the networks of digits, which are made
/// for theirs, for an unknown name, and for an input that is empty or too small for a vgg-like network.
pub fn for_input(name: &str, input: [usize; 3]) -> Option<Preset> {
    if input.contains(&0) || input.iter().any(|d| *d > 1 << 14) {
        return None;
    }
    match name {
        "vgg-like" if input[1].min(input[2]) >= 32 => Some(vgg::vgg_like(input)),
        "resnet-8" => Some(resnet::resnet_8(input)),
        "resnet-20" => Some(resnet::resnet_20(input)),
        "mobilenet-v1" => Some(mobilenet::mobilenet_v1(input)),
        "resnet-50" => Some(resnet::resnet_50(input)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;

    fn weights(preset: &Preset) -> usize {
        let (graph, tensors) = preset;
        let of = |name: &str| {
            tensors
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, s)| s.elements())
        };
        let names = graph.weighted_nodes().filter_map(|n| n.op.weight());
        names.filter_map(of).sum()
    }

    #[test]
    fn presets_have_the_shapes_and_weights_they_are_known_for() {
        let wrong: Vec<String> = [
            ("lenet-300-100", 266_200, 10),
            ("lenet-5", 430_500, 10),
            ("vgg-like", 14_977_728, 10),
            ("resnet-8", 77_360, 10),
            ("resnet-20", 270_896, 10),
            ("resnet-20-mnist", 270_608, 10),
            ("mobilenet-v1", 4_209_088, 1000),
            ("resnet-50", 25_502_912, 1000),
        ]
        .into_iter()
        .filter_map(|(name, count, classes)| {
            let Some(preset) = by_name(name) else {
                return Some(format!("{name} is no preset"));
            };
            let shapes = shape::infer(&preset.0, &|_, tensor| {
                let known = preset.1.iter().find(|(n, _)| n == tensor);
                Ok(known.map(|(_, s)| s.clone()).unwrap_or_default())
            });
            let outputs = shapes.map(|s| s[preset.0.outputs[0].as_str()].clone());
            let good = weights(&preset) == count && outputs == Ok(Shape::from([classes]));
            (!good).then(|| format!("{name}: {} weights, {outputs:?}", weights(&preset)))
        })
        .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(NAMES.iter().all(|n| by_name(n).is_some()));
    }

    #[test]
    fn a_perceptron_is_named_by_its_sizes() {
        let (graph, tensors) = by_name("mlp:784,300,100,10").unwrap();
        assert_eq!(graph.name, "mlp-784-300-100-10");
        assert_eq!(graph.inputs[0].shape, Shape::from([784]));
        assert_eq!(weights(&(graph, tensors.clone())), 266_200);
        assert_eq!(tensors[4], ("fc3.weight".into(), Shape::from([10, 100])));
        let (_, tensors) = by_name("mlp:4,2").unwrap();
        assert_eq!(tensors.len(), 2);
        let long = format!("mlp:{}", ["3"; 19].join(","));
        let wrong = [
            "mlp:",
            "mlp:784",
            "mlp:4,0",
            "mlp:4,x",
            "mlp:4,2,",
            "mlp:4,65537",
            &long,
        ];
        assert!(wrong.iter().all(|name| by_name(name).is_none()));
        assert!(by_name("mlp").is_none(), "its sizes are those of data");
    }

    #[test]
    fn convolutional_presets_take_other_inputs() {
        let (graph, tensors) = for_input("resnet-20", [1, 28, 28]).unwrap();
        assert_eq!(graph.inputs[0].shape, Shape::from([1, 28, 28]));
        assert_eq!(tensors[0].1, Shape::from([16, 1, 3, 3]));
        assert!(for_input("lenet-5", [1, 28, 28]).is_none());
        assert!(for_input("vgg-like", [3, 16, 16]).is_none());
        assert!(for_input("resnet-50", [3, 0, 16]).is_none());
    }
}
