//! The two LeNets at the densities per layer that the paper reports, with seeded random weights in random places.

use sparsevd::model::{Network, presets};
use sparsevd_testing::arbitrary::Stream;

/// Preset and share of weights left per layer (Molchanov, Ashukha, Vetrov 2017, table 1).
pub const NETWORKS: [(&str, &[f64]); 2] = [
    ("lenet-300-100", &[0.011, 0.028, 0.38]),
    ("lenet-5", &[0.33, 0.02, 0.002, 0.05]),
];

/// The preset with random weights of those densities.
pub fn network(preset: &str, densities: &[f64]) -> Network {
    let preset = presets::by_name(preset).expect("a preset");
    let mut stream = Stream(2017);
    let mut densities = densities.iter();
    Network::from_preset(preset, |_, shape| match shape.dims().len() {
        1 => stream.bernoulli(shape.clone(), 1.0).into(),
        _ => {
            let density = *densities.next().expect("a density per layer");
            stream.sparse(shape.clone(), density).into()
        }
    })
    .expect("a preset is valid")
}
