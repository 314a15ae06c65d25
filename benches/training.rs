//! One training step, forward, backward and update, of both LeNets and a ResNet-20: dense, Sparse VD, and dense with 95 % of each
//! layer's weights removed, on one thread and on two. Images are those of MNIST in batches of 100, or of CIFAR-10 in batches of 128.
//!
//! `cargo bench --bench training`; about two minutes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparsevd_compressor::engine::{Batch, Engine, Hyper, Rule};
use sparsevd_compressor::objective::{CrossEntropy, Distillation, Targets};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{State, initialise};
use sparsevd_kernels::Isa;
use sparsevd_model::presets;
use sparsevd_testing::arbitrary::Stream;

/// Names, the preset, the shape of an image, and the size of a batch.
const NETWORKS: [(&str, &str, [usize; 3], usize); 4] = [
    ("lenet-300-100", "lenet-300-100", [1, 28, 28], 100),
    ("lenet-5", "lenet-5", [1, 28, 28], 100),
    ("resnet-20", "resnet-20", [1, 28, 28], 100),
    ("resnet-20-cifar-10", "resnet-20", [3, 32, 32], 128),
];

fn steps(c: &mut Criterion) {
    for (name, preset, shape, samples) in NETWORKS {
        // Four in five pixels are zero, as in MNIST.
        let pixel = |v: f32| if v.abs() > 0.8 { v.abs() } else { 0.0 };
        let pixels: usize = shape.iter().product();
        let numbers = Stream(1).floats(samples * pixels);
        let images: Vec<f32> = numbers.into_iter().map(pixel).collect();
        let labels: Vec<u16> = (0..samples as u16).map(|i| i % 10).collect();
        let fill =
            |i: usize, out: &mut [f32]| out.copy_from_slice(&images[i * pixels..(i + 1) * pixels]);
        let batch = Batch {
            samples,
            fill: &fill,
            objective: &CrossEntropy {
                smoothing: 0.0,
                distillation: Distillation::NONE,
            },
            targets: &Targets::classes(&labels),
            teacher: None,
        };
        let mut group = c.benchmark_group(name);
        group
            .sample_size(20)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));
        group.throughput(Throughput::Elements(samples as u64));
        for method in [Method::Dense, Method::SparseVd, Method::Zeros] {
            for threads in [1, 2] {
                let mut engine = engine(preset, shape, method, threads);
                let mut step = 0;
                group.bench_function(
                    BenchmarkId::new(method.name(), format!("{threads} thread(s)")),
                    |b| {
                        b.iter(|| {
                            let report = engine.backward(&batch, 1, step);
                            black_box(report.expect("one process"));
                            step += 1;
                            engine.update(&Hyper {
                                rule: Rule::Adam,
                                weight_decay: 0.0,
                                learning_rate: 1e-3,
                                learning_rate_log_sigma2: 1e-3,
                                kl_weight: 1.0 / 60_000.0,
                                adam_step: step,
                            });
                        });
                    },
                );
            }
        }
        group.finish();
    }
}

#[derive(Clone, Copy)]
enum Method {
    Dense,
    SparseVd,
    /// Dense training of what is left of 95 % zeros.
    Zeros,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::SparseVd => "sparse-vd",
            Self::Zeros => "95 % zeros",
        }
    }
}

fn engine(preset: &str, shape: [usize; 3], method: Method, threads: usize) -> Engine<f32> {
    let small = presets::for_input(preset, shape);
    let (graph, shapes) = small
        .or_else(|| presets::by_name(preset))
        .expect("a preset");
    let network = initialise(graph, &shapes, 1).expect("a preset is valid");
    let mut state = State::from_network(&network).expect("a preset can be trained");
    let mut stream = Stream(2);
    for layer in &mut state.layers {
        match method {
            Method::Dense => {}
            Method::SparseVd => layer.start_noise(-8.0, Granularity::Weight),
            Method::Zeros => {
                let draws = stream.floats(layer.theta.len());
                let keep: Vec<bool> = draws.iter().map(|d| *d > 0.9).collect();
                layer.remove(&keep);
            }
        }
    }
    let pool = || {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads")
    };
    let pool = (threads > 1).then(|| Arc::new(pool()));
    Engine::new(
        &network.graph,
        state,
        Granularity::Weight,
        Isa::best(),
        pool,
    )
    .expect("a preset can be trained")
}

criterion_group!(benches, steps);
criterion_main!(benches);
