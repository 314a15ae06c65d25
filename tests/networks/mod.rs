//! The networks that tests of the whole library go through.

use std::path::Path;

use sparsevd_format::{GraphSource, read_network};
use sparsevd_model::{Dense, Network, presets};
use sparsevd_testing::arbitrary::Stream;

/// Share of the weights of a preset that are not zero.
const DENSITY: f64 = 0.1;

/// A preset with seeded weights. Vectors hold ones, since some are variances, which must be positive.
fn preset(name: &str) -> Network {
    let mut stream = Stream(2017);
    let preset = presets::by_name(name).unwrap();
    Network::from_preset(preset, |_, shape| match shape.dims().len() {
        1 => Dense::new(shape.clone(), vec![1.0; shape.elements()]).into(),
        _ => stream.sparse(shape.clone(), DENSITY).into(),
    })
    .unwrap()
}

/// All presets, and committed networks, by name.
pub fn all() -> Vec<(String, Network)> {
    let presets = presets::NAMES.map(|name| (format!("preset {name}"), preset(name)));
    let committed = [
        "lenet-300-100/record",
        "lenet-5/record",
        "resnet-20-cifar10/sparse",
    ];
    let committed = committed.map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("models")
            .join(name)
            .with_extension("safetensors");
        let file = read_network(path, &GraphSource::Auto).unwrap();
        (format!("committed {name}"), file.network)
    });
    presets.into_iter().chain(committed).collect()
}
