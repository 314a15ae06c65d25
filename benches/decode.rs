//! Size and decoding time of packed files, against the bound of their positions: `cargo bench --bench decode`.
//!
//! Both committed LeNets, and ResNet-50's shapes at 90 % random sparsity with Gaussian values on a 5-bit grid. A time is that
//! of [`unpack`]: from the bytes of the file to the network in memory. The large profile uses every core that it is given.
#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use sparsevd::format::{Limits, PackOptions, pack, packed_breakdown, unpack};
use sparsevd_testing::networks::{positions_bound, resnet_50};

/// How long each file is decoded again and again, at least five times.
const TIME: Duration = Duration::from_secs(2);

fn main() {
    println!(
        "{:14} {:>10} {:>9} {:>9} {:>14} {:>14} {:>8} {:>9} {:>9}",
        "network",
        "weights",
        "left",
        "bytes",
        "positions, bit",
        "log2 C, bit",
        "over",
        "p50 ms",
        "min ms"
    );
    for name in ["lenet-300-100", "lenet-5"] {
        let file = format!("{}/models/{name}/record.spvd", env!("CARGO_MANIFEST_DIR"));
        line(name, &std::fs::read(file).expect("a committed file"));
    }
    let network = resnet_50(0.1, 50);
    let bytes = pack(&network, &PackOptions::large()).expect("a network on grids");
    line("resnet-50", &bytes);
}

fn line(name: &str, bytes: &[u8]) {
    let limits = Limits::default();
    let network = unpack(bytes, &limits).expect("a packed file").network;
    let spent = packed_breakdown(bytes).expect("a packed file");
    let positions = (spent.liveness + spent.positions) as f64;
    let bound = positions_bound(&network);
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || start.elapsed() < TIME {
        let start = Instant::now();
        black_box(unpack(black_box(bytes), &limits).is_ok());
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{name:14} {:>10} {:>9} {:>9} {positions:>14.0} {bound:>14.0} {:>7.2}% {:>9.3} {:>9.3}",
        network.original_weights(),
        network.nonzeros(),
        bytes.len(),
        100.0 * (positions / bound - 1.0),
        times[times.len() / 2],
        times[0],
    );
}
