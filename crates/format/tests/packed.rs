//! The packed form: round trips, sizes, malformed files.

mod networks;

use sparsevd_format::{Limits, PackOptions, pack, packed_breakdown, unpack};
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

/// log2 of n over k.
fn log2_binomial(n: usize, k: usize) -> f64 {
    (0..k)
        .map(|i| ((n - i) as f64 / (k - i) as f64).log2())
        .sum()
}

#[test]
fn large_networks_come_back_exactly() {
    for network in [
        quantise(networks::tiny()),
        preset("lenet-5", 3, 0.02),
        preset("lenet-300-100", 4, 0.0),
    ] {
        let bytes = pack(&network, &PackOptions::large()).unwrap();
        let back = unpack(&bytes, &Limits::default()).unwrap().network;
        assert_eq!(back, network, "{}", network.graph.name);
    }
}

/// `cargo test --release -p sparsevd-format --test packed -- --ignored --nocapture`
#[test]
#[ignore = "25 million weights: seconds without optimisation"]
fn resnet_50_is_within_three_thousandths_of_the_bound() {
    let network = networks::resnet_50(0.1, 50);
    let bytes = pack(&network, &PackOptions::large()).unwrap();
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let back = unpack(&bytes, &Limits::default()).unwrap().network;
        fastest = fastest.min(start.elapsed().as_secs_f64());
        assert!(back == network);
    }
    let breakdown = packed_breakdown(&bytes).unwrap();
    let bound: f64 = (network.tensors.values())
        .filter(|t| matches!(t, Weights::Csr(_)))
        .map(|t| log2_binomial(t.shape().elements(), t.nonzeros()))
        .sum();
    println!(
        "{} weights, {} non-zeros: {} bytes, decoded in {fastest:.3} s; positions {:.0} of {bound:.0} bits (+{:.2} %); {breakdown:?}",
        network.original_weights(),
        network.nonzeros(),
        bytes.len(),
        breakdown.positions,
        100.0 * (breakdown.positions as f64 / bound - 1.0),
    );
    assert!(
        bytes.len() <= 2_470_000 && (breakdown.positions as f64) < 1.003 * bound && fastest < 1.0
    );
}
