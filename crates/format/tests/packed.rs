//! The packed form: round trips, sizes, malformed files.

mod networks;

use sparsevd_format::{Limits, PackOptions, pack, unpack};
use sparsevd_model::{Network, Weights, presets, quantised};
use sparsevd_testing::arbitrary::Stream;

/// Rounds every tensor to a grid of some 5 bits.
fn quantise(mut network: Network) -> Network {
    let names: Vec<String> = network.tensors.keys().cloned().collect();
    for name in names {
        let tensor = network.tensors.get_mut(&name).unwrap();
        let most = tensor.values().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let step = quantised::nearest_step((most / 12.0).max(1e-3), 4).unwrap();
        let round = |v: f32| quantised::value((v / step).round() as i32, step);
        *tensor = match &*tensor {
            Weights::Csr(csr) => {
                let mut dense = csr.to_dense();
                dense.values.iter_mut().for_each(|v| *v = round(*v));
                Weights::Csr(sparsevd_model::Csr::from_dense(&dense))
            }
            other => {
                let mut dense = other.to_dense();
                dense.values.iter_mut().for_each(|v| *v = round(*v));
                Weights::Dense(dense)
            }
        };
        network.set_step(&name, step).unwrap();
    }
    network
}

fn preset(name: &str, seed: u64, density: f64) -> Network {
    let (graph, tensors) = presets::by_name(name).unwrap();
    quantise(networks::fill(graph, &tensors, seed, density, |i| {
        i % 4 != 2
    }))
}

const AS_IT_IS: PackOptions = PackOptions {
    keep_unit_order: true,
    ..PackOptions::small()
};

#[test]
fn networks_come_back_exactly() {
    let mut stream = Stream(1);
    let mut cases = vec![quantise(networks::tiny())];
    for name in presets::NAMES {
        for density in [0.0, 0.003, 0.05] {
            cases.push(preset(name, stream.bits(), density));
        }
    }
    for network in cases {
        let bytes = pack(&network, &AS_IT_IS).unwrap();
        let back = unpack(&bytes, &Limits::default()).unwrap();
        assert_eq!(back.network, network, "{}", network.graph.name);
        assert_eq!(pack(&back.network, &AS_IT_IS).unwrap(), bytes);
    }
}
