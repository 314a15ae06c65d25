//! Convolutions of one image and of sixteen: sparse at several densities, and dense.
//!
//! For trends over time; `limits.rs` is the instrument for ratios.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::dense::Conv;
use sparsevd_kernels::{Buffer, Clamp, Isa, Layout};
use sparsevd_model::Window;
use sparsevd_testing::arbitrary::Stream;

fn convolutions(criterion: &mut Criterion) {
    let isa = Isa::from_env().expect("SPARSE_ISA names an instruction set of this machine");
    for line in include_str!("shapes/conv.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let [out, inn, kernel, side, stride, pad] =
            [1, 2, 3, 4, 5, 6].map(|i| words[i].parse::<usize>().expect("a number"));
        let (shape, input) = ([out, inn, kernel, kernel], [inn, side, side]);
        let window = Window {
            pads: [pad; 4],
            ..Window::square(kernel, stride)
        };
        let mut group = criterion.benchmark_group(words[0]);
        group.warm_up_time(Duration::from_millis(50));
        group.measurement_time(Duration::from_millis(300));
        group.sample_size(10);
        let mut stream = Stream(7);
        let full = stream.bernoulli(shape, 1.0);
        let dense = Conv::pack(isa, &full, None, &window, 1, input);
        let outputs: usize = dense.output().iter().product();
        for layout in [Layout::Single, Layout::Tiled] {
            let images = layout.samples();
            let x = Buffer::from(&stream.floats(images * inn * side * side)[..]);
            let mut y = Buffer::zeroed(images * outputs);
            group.throughput(Throughput::Elements(images as u64));
            let mut scratch = Buffer::zeroed(dense.scratch_len());
            group.bench_function(format!("dense/n{images}"), |b| {
                b.iter(|| dense.run(black_box(&x), &mut y, images, &mut scratch, Clamp::None));
            });
            for density in [0.2, 0.1, 0.05, 0.02] {
                let csr = stream.sparse(shape, density);
                let id = BenchmarkId::new(format!("sparse/n{images}"), density);
                if layout == Layout::Tiled {
                    let conv = SparseConv::pack(isa, &csr, shape, None, &window, 1, input);
                    let mut scratch = Buffer::zeroed(conv.scratch_len());
                    group.bench_function(id, |b| {
                        b.iter(|| conv.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::None));
                    });
                } else if RowConv::takes(&window) {
                    let all = 0..out;
                    let conv =
                        RowConv::pack_channels(isa, &csr, shape, None, &window, 1, input, all);
                    let mut scratch = Buffer::zeroed(conv.scratch_len());
                    group.bench_function(id, |b| {
                        b.iter(|| conv.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::None));
                    });
                }
            }
        }
        group.finish();
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
