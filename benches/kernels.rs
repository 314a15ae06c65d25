//! Sparse times dense: our kernels, `gemm-f32` and sprs over layer shapes, densities and batch sizes.
//!
//! For trends over time; `limits.rs` is the instrument for ratios.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparsevd_kernels::dense::Gemv;
use sparsevd_kernels::gemm::{View, gemm};
use sparsevd_kernels::spmm::Spmm;
use sparsevd_kernels::spmv::Spmv;
use sparsevd_kernels::{Buffer, Clamp, Isa, tiles};
use sparsevd_model::Csr;
use sparsevd_testing::arbitrary::Stream;

const DENSITIES: [f64; 6] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01];

fn products(criterion: &mut Criterion) {
    let isa = Isa::from_env().expect("SPARSE_ISA names an instruction set of this machine");
    for line in include_str!("shapes/linear.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let size: Vec<usize> = line
            .split(' ')
            .map(|w| w.parse().expect("a number"))
            .collect();
        let (rows, cols) = (size[0], size[1]);
        for n in [1, 16, 64] {
            let mut group = criterion.benchmark_group(format!("{rows}x{cols}/n{n}"));
            group.warm_up_time(Duration::from_millis(20));
            group.measurement_time(Duration::from_millis(100));
            group.sample_size(10);
            let mut stream = Stream(7);
            let full = stream.bernoulli([rows, cols], 1.0);
            let x = Buffer::from(&stream.floats(tiles(n) * 16 * cols)[..]);
            let mut y = Buffer::zeroed(tiles(n) * 16 * rows);
            if n == 1 {
                let gemv = Gemv::pack(isa, &full, None);
                group.bench_function("dense", |b| {
                    b.iter(|| gemv.run(black_box(&x[..cols]), &mut y[..rows], Clamp::None));
                });
            } else {
                let weight = View::row_major(&full.values, rows, cols);
                group.bench_function("dense", |b| {
                    b.iter(|| {
                        gemm(
                            &mut y,
                            n,
                            weight,
                            View::row_major(black_box(&x), cols, n),
                            false,
                        )
                    });
                });
            }
            for density in DENSITIES {
                let csr: Csr = stream.sparse([rows, cols], density);
                group.throughput(Throughput::Elements((csr.nonzeros() * n) as u64));
                if n == 1 {
                    let spmv = Spmv::pack(isa, &csr, None);
                    group.bench_function(BenchmarkId::new("sparse", density), |b| {
                        b.iter(|| spmv.run(black_box(&x[..cols]), &mut y[..rows], Clamp::None));
                    });
                } else {
                    let spmm = Spmm::pack(isa, &csr, None);
                    group.bench_function(BenchmarkId::new("sparse", density), |b| {
                        b.iter(|| spmm.run(black_box(&x), &mut y, n, Clamp::None));
                    });
                }
                let peer = csr.to_sprs();
                let peer_x = ndarray::Array2::<f32>::ones((cols, n));
                let mut peer_y = ndarray::Array2::<f32>::zeros((rows, n));
                group.bench_function(BenchmarkId::new("sprs", density), |b| {
                    b.iter(|| {
                        let x = black_box(peer_x.view());
                        sprs::prod::csr_mulacc_dense_rowmaj(peer.view(), x, peer_y.view_mut());
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
