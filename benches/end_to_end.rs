//! Whole networks, sparse and dense, on one thread: `cargo bench --bench end_to_end`.
#![allow(missing_docs, reason = "a benchmark")]

mod paper;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparsevd::runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

fn end_to_end(c: &mut Criterion) {
    for (preset, densities) in paper::NETWORKS {
        let network = paper::network(preset, densities);
        let mut group = c.benchmark_group(preset);
        for batch in [1, 64] {
            group.throughput(Throughput::Elements(batch as u64));
            let input = Stream(1).floats(batch * 784);
            let mut output = vec![0.0; batch * 10];
            for weights in [WeightMode::Sparse, WeightMode::Dense] {
                let options = PlanOptions {
                    weights,
                    batch,
                    ..PlanOptions::default()
                };
                let plan = Plan::new(&network, &options).expect("a preset can be planned");
                let session = Session::new(plan, 1).expect("one thread needs no pool");
                group.bench_function(BenchmarkId::new(weights.to_string(), batch), |b| {
                    b.iter(|| {
                        session
                            .run(batch, &input, &mut output)
                            .expect("whole samples")
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = end_to_end
}
criterion_main!(benches);
