//! Networks with the shapes of well-known ones and random weights.

use std::collections::BTreeMap;

use sparsevd_model::{Csr, Dense, Network, Weights, passes, presets, quantised};

use crate::arbitrary::Stream;

/// ResNet-50 with batch normalisation folded away: 25.5 million weights, `density` of them non-zero, in Gaussian values
/// on a 5-bit grid scaled to the largest.
pub fn resnet_50(density: f64, seed: u64) -> Network {
    let preset = presets::by_name("resnet-50").expect("a preset");
    // Zeros but for the variances: folding leaves biases of zero.
    let plain = Network::from_preset(preset, |name, shape| {
        let one = name.contains("running_var");
        Dense::new(shape.clone(), vec![f32::from(one); shape.elements()]).into()
    });
    let plain = plain.expect("tensors of the graph");
    let mut network = passes::for_running(&plain).into_owned();
    let weights: Vec<String> = (network.graph.weighted_nodes())
        .filter_map(|n| n.op.weight().map(str::to_owned))
        .collect();
    let mut stream = Stream(seed);
    let mut steps: BTreeMap<String, f32> = network
        .tensors
        .keys()
        .map(|name| (name.clone(), 1.0))
        .collect();
    for name in weights {
        let shape = network.tensors[&name].shape().clone();
        let (rows, cols) = shape.matrix();
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for _ in 0..rows {
            for column in 0..cols {
                if stream.unit() < density {
                    columns.push(column as u32);
                    let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
                    values.push((radius * (stream.unit() * std::f64::consts::TAU).cos()) as f32);
                }
            }
            starts.push(columns.len() as u32);
        }
        let most = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let step = quantised::nearest_scale(most / 15.0, 8).expect("a positive value");
        for v in &mut values {
            *v = quantised::value((*v / step).round().clamp(-15.0, 15.0) as i32, step);
        }
        // Values that round to zero are none.
        let csr = Csr::try_new(shape.clone(), starts, columns, values).expect("columns in order");
        let csr = if csr.values().contains(&0.0) {
            Csr::from_dense(&csr.to_dense())
        } else {
            csr
        };
        network.tensors.insert(name.clone(), Weights::Csr(csr));
        steps.insert(name, step);
    }
    for (name, step) in steps {
        network.set_scale(&name, step).expect("values on the grid");
    }
    network
}

/// Fewest bits that the positions of the non-zeros of CSR weights take where all positions are equally likely: the sum of
/// `log2 C(n, k)` over the weights, with `k` non-zeros of `n` elements.
pub fn positions_bound(network: &Network) -> f64 {
    let weights = network.tensors.values();
    weights
        .filter(|t| matches!(t, Weights::Csr(_)))
        .map(|t| log2_binomial(t.shape().elements(), t.nonzeros()))
        .sum()
}

/// log2 of n over k.
fn log2_binomial(n: usize, k: usize) -> f64 {
    (0..k)
        .map(|i| ((n - i) as f64 / (k - i) as f64).log2())
        .sum()
}
