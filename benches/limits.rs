//! How close the sparse kernels come to the machine's limits, and how far ahead of dense kernels and of sprs they are.
//!
//! The contestants of a line take turns in one process, so that a busy neighbour slows all of them. Ratios are of samples of one round, median
//! and spread. The peak of the core is measured before and after; a line whose peak moved by more than two per cent is thrown away and run again,
//! and one that never came steady says so. One thread; pin it:
//!
//! ```sh
//! taskset -c 1 cargo bench --bench limits                   # all
//! taskset -c 1 cargo bench --bench limits -- spmm           # lines of one kind: spmm, spmv, int8, conv, lenets
//! taskset -c 1 cargo bench --bench limits -- spmm 512x512   # of one layer
//! taskset -c 1 cargo bench --bench limits -- spmm json      # one object per line, for programs
//! ```

mod paper;

use std::hint::black_box;
use std::time::Instant;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatRef as Mat, Par};
use sparsevd::runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::dense::{Conv, Gemv};
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::gemm::{View, gemm};
use sparsevd_kernels::int8::{self, Dot, byte_tiles, quantize};
use sparsevd_kernels::panel_gemm::PanelGemm;
use sparsevd_kernels::peak::fma_peak;
use sparsevd_kernels::spmm::Spmm;
use sparsevd_kernels::spmv::{InputSparse, Spmv};
use sparsevd_kernels::{Buffer, Clamp, Isa, pack_tiles, tiles};
use sparsevd_model::{Csr, Window};
use sparsevd_testing::arbitrary::Stream;

const DENSITIES: [f64; 7] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005];
/// Samples of each contestant, and the least that one takes.
const SAMPLES: usize = 11;
const SAMPLE_SECONDS: f64 = 3e-4;

fn main() {
    // Cargo passes `--bench`.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let kinds = ["spmm", "spmv", "int8", "conv", "lenets"];
    let all = !wanted.iter().any(|w| kinds.contains(&w.as_str()));
    let want = |kind: &str| all || wanted.iter().any(|w| w == kind);
    let shape = wanted.iter().find(|w| w.contains('x'));
    let json = wanted.iter().any(|w| w == "json");
    let isa = match Isa::from_env() {
        Ok(isa) => isa,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    if !json {
        println!(
            "{isa}; times in microseconds, median of {SAMPLES} (quartiles); ratios are others / sparse"
        );
    }
    let race = Race { isa, json };
    if want("spmm") {
        for_linear_shapes(shape, &[16, 64, 256], |rows, cols, density, n| {
            spmm(&race, rows, cols, density, n)
        });
    }
    if want("spmv") {
        for_linear_shapes(shape, &[1], |rows, cols, density, _| {
            spmv(&race, rows, cols, density)
        });
    }
    if want("int8") {
        for [rows, cols] in [[512, 512], [384, 1536]] {
            if shape.is_none_or(|shape| *shape == format!("{rows}x{cols}")) {
                for density in [0.3, 0.2, 0.1, 0.05] {
                    bytes(&race, rows, cols, density, 64);
                }
            }
        }
    }
    if want("conv") {
        for line in shapes(include_str!("shapes/conv.txt")) {
            for density in [0.2, 0.1, 0.05, 0.02] {
                conv(&race, &line, density);
            }
        }
        for line in shapes(include_str!("shapes/depthwise.txt")) {
            depthwise(&race, &line);
        }
    }
    if want("lenets") {
        for (preset, densities) in paper::NETWORKS {
            for batch in [1, 64] {
                whole(&race, preset, densities, batch);
            }
        }
    }
}

/// Lines of a shape file as words.
fn shapes(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|l| l.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn number(word: &str) -> usize {
    word.parse().expect("a number in the shape file")
}

fn for_linear_shapes(
    only: Option<&String>,
    batches: &[usize],
    run: impl Fn(usize, usize, f64, usize),
) {
    for line in shapes(include_str!("shapes/linear.txt")) {
        if only.is_some_and(|o| *o != line.join("x")) {
            continue;
        }
        for &n in batches {
            for density in DENSITIES {
                run(number(&line[0]), number(&line[1]), density, n);
            }
        }
    }
}

fn spmm(race: &Race, rows: usize, cols: usize, density: f64, n: usize) {
    let isa = race.isa;
    let mut stream = Stream(7);
    let dense = stream.bernoulli([rows, cols], density);
    let csr = Csr::from_dense(&dense);
    let sparse = Spmm::pack(isa, &csr, None);
    let samples = stream.floats(n * cols);
    let mut x = Buffer::zeroed(tiles(n) * cols * 16);
    pack_tiles(isa, &samples, n, cols, &mut x);
    let mut y = Buffer::zeroed(tiles(n) * rows * 16);
    let (by_columns, mut c) = (
        Buffer::from(&stream.floats(cols * n)[..]),
        Buffer::zeroed(rows * n),
    );
    let mut c_t = Buffer::zeroed(rows * n);
    let (panels, mut of_panels) = (PanelGemm::pack(isa, &dense, None), Buffer::zeroed(rows * n));
    let peer = csr.to_sprs();
    let (peer_x, mut peer_y) = (
        ndarray::Array2::<f32>::ones((cols, n)),
        ndarray::Array2::<f32>::zeros((rows, n)),
    );
    let weight = View::row_major(&dense.values, rows, cols);
    // All by columns, as faer likes them.
    let faer_w = Mat::from_row_major_slice(&dense.values, rows, cols).to_owned();
    let faer_x = Mat::from_column_major_slice(&samples, cols, n);
    let mut faer_y = faer::Mat::<f32>::zeros(rows, n);
    race.run(
        &format!("{rows}x{cols} d={density} n={n} {}", sparse.name()),
        2.0 * csr.nonzeros() as f64 * n as f64,
        &mut [
            ("sparse", &mut || {
                sparse.run(black_box(&x), black_box(&mut y), n, Clamp::None);
            }),
            ("panels", &mut || {
                panels.run(
                    black_box(&samples),
                    black_box(&mut of_panels),
                    n,
                    Clamp::None,
                );
            }),
            // Both ways a caller may hold its batch: one column or one row per sample.
            ("gemm", &mut || {
                gemm(
                    black_box(&mut c),
                    n,
                    weight,
                    View::row_major(&by_columns, cols, n),
                    false,
                )
            }),
            ("gemm'", &mut || {
                gemm(
                    black_box(&mut c_t),
                    rows,
                    View::row_major(&samples, n, cols),
                    weight.t(),
                    false,
                );
            }),
            ("faer", &mut || {
                matmul(
                    black_box(faer_y.as_mut()),
                    Accum::Replace,
                    faer_w.as_ref(),
                    faer_x,
                    1.0,
                    Par::Seq,
                );
            }),
            ("sprs", &mut || {
                sprs::prod::csr_mulacc_dense_rowmaj(
                    peer.view(),
                    black_box(peer_x.view()),
                    peer_y.view_mut(),
                );
            }),
        ],
    );
}

/// Products of bytes, whose outputs are bytes or floats, against the same product in f32. The share is that of the peak in f32: it counts each product
/// of bytes as one multiply-add.
fn bytes(race: &Race, rows: usize, cols: usize, density: f64, n: usize) {
    let (isa, dot) = (race.isa, Dot::of(race.isa));
    let mut stream = Stream(7);
    let mut levels = stream.bernoulli([rows, cols], density);
    for v in levels.values.iter_mut().filter(|v| **v != 0.0) {
        *v = (*v * 126.0).round() + v.signum();
    }
    let csr = Csr::from_dense(&levels);
    let quantization = int8::Quantization {
        zero_point: 128,
        scale: &vec![1e-3; rows],
        offset: &vec![128.0; rows],
    };
    let layer = int8::Spmm::pack(dot, &csr, quantization);
    let in_floats = Spmm::pack(isa, &csr, None);
    let samples = stream.floats(n * cols);
    let mut x = Buffer::zeroed(tiles(n) * cols * 16);
    pack_tiles(isa, &samples, n, cols, &mut x);
    let lines = |features: usize| byte_tiles(n) * features * dot.line() / size_of::<f32>();
    let [mut x_bytes, mut y_bytes] = [lines(cols), lines(rows)].map(Buffer::zeroed);
    quantize(dot, &x, n, cols, (1.0 / 128.0, 128), x_bytes.bytes_mut());
    let [mut y, mut y_floats] = [(); 2].map(|()| Buffer::zeroed(tiles(n) * rows * 16));
    race.run(
        &format!("{rows}x{cols} d={density} n={n} {}", layer.name()),
        2.0 * csr.nonzeros() as f64 * n as f64,
        &mut [
            ("to bytes", &mut || {
                let (x, y) = (x_bytes.bytes(), y_bytes.bytes_mut());
                layer.run_bytes(black_box(x), black_box(y), n, [128, 255]);
            }),
            ("to floats", &mut || {
                layer.run(
                    black_box(x_bytes.bytes()),
                    black_box(&mut y),
                    n,
                    Clamp::Relu,
                );
            }),
            ("f32", &mut || {
                in_floats.run(black_box(&x), black_box(&mut y_floats), n, Clamp::Relu);
            }),
        ],
    );
}

fn spmv(race: &Race, rows: usize, cols: usize, density: f64) {
    let isa = race.isa;
    let mut stream = Stream(7);
    let dense = stream.bernoulli([rows, cols], density);
    let csr = Csr::from_dense(&dense);
    let (sparse, gemv) = (Spmv::pack(isa, &csr, None), Gemv::pack(isa, &dense, None));
    let input_sparse = InputSparse::pack(isa, &csr, None);
    let mut scratch = Buffer::zeroed(input_sparse.scratch_len());
    let x = Buffer::from(&stream.floats(cols)[..]);
    // Inputs of which a fifth is not zero; several, so that branches cannot be learnt by heart.
    let mut active: Vec<Buffer> = (0..64)
        .map(|_| Buffer::from(&stream.floats(cols)[..]))
        .collect();
    for v in active.iter_mut().flat_map(|x| x.iter_mut()) {
        *v = if stream.unit() < 0.2 { *v } else { 0.0 };
    }
    let mut turn = 0;
    let mut out = [(); 5].map(|()| Buffer::zeroed(rows));
    let [y, y_active, y_gemv, y_gemm, y_peer] = &mut out;
    let peer = csr.to_sprs();
    let weight = View::row_major(&dense.values, rows, cols);
    let faer_w = Mat::from_row_major_slice(&dense.values, rows, cols).to_owned();
    let faer_x = Mat::from_column_major_slice(&x, cols, 1);
    let mut faer_y = faer::Mat::<f32>::zeros(rows, 1);
    race.run(
        &format!("{rows}x{cols} d={density} n=1 {}", sparse.name()),
        2.0 * csr.nonzeros() as f64,
        &mut [
            ("sparse", &mut || {
                sparse.run(black_box(&x), black_box(y), Clamp::None)
            }),
            ("20 % active", &mut || {
                turn = (turn + 1) % active.len();
                let (x, y) = (black_box(&active[turn]), black_box(&mut *y_active));
                input_sparse.run(x, y, &mut scratch, Clamp::None);
            }),
            ("gemv", &mut || {
                gemv.run(black_box(&x), black_box(y_gemv), Clamp::None)
            }),
            ("gemm", &mut || {
                gemm(
                    black_box(y_gemm),
                    1,
                    weight,
                    View::row_major(&x, cols, 1),
                    false,
                )
            }),
            ("faer", &mut || {
                matmul(
                    black_box(faer_y.as_mut()),
                    Accum::Replace,
                    faer_w.as_ref(),
                    faer_x,
                    1.0,
                    Par::Seq,
                );
            }),
            ("sprs", &mut || {
                sprs::prod::mul_acc_mat_vec_csr(peer.view(), black_box(&x[..]), &mut y_peer[..]);
            }),
        ],
    );
}

fn conv(race: &Race, line: &[String], density: f64) {
    let isa = race.isa;
    let [out, inn, kernel, side, stride, pad] = [1, 2, 3, 4, 5, 6].map(|i| number(&line[i]));
    let mut stream = Stream(7);
    let (shape, input) = ([out, inn, kernel, kernel], [inn, side, side]);
    let window = Window {
        pads: [pad; 4],
        ..Window::square(kernel, stride)
    };
    let filters = stream.bernoulli(shape, density);
    let csr = Csr::from_dense(&filters);
    let tiled = SparseConv::pack(isa, &csr, shape, None, &window, 1, input);
    let dense = Conv::pack(isa, &filters, None, &window, 1, input);
    let [_, height, width] = dense.output();
    let pixels = height * width;
    // As inside a chain of convolutions of this size: the next one's halo is part of the work.
    let to = Blocks::of_map(dense.output()).with_halo([pad; 4]);
    let from = BlockConv::input(input, &window, &to);
    let between = [from, to];
    let blocks = BlockConv::pack_channels(isa, &csr, shape, None, &window, 1, between, 0..out);
    let direct = DenseBlockConv::pack_channels(isa, &filters, None, &window, 1, between, 0..out);
    let x = Buffer::from(&stream.floats(16 * inn * side * side)[..]);
    let first = &x[..inn * side * side];
    let [mut x_blocks, mut y_blocks, mut y_direct] =
        [from, to, to].map(|b| Buffer::zeroed(b.len()));
    from.pack(isa, first, 1, &mut x_blocks);
    let [mut y_dense, mut c] = [(); 2].map(|()| Buffer::zeroed(out * pixels));
    let mut y_tiled = Buffer::zeroed(16 * out * pixels);
    let mut scratch = [tiled.scratch_len(), dense.scratch_len()].map(Buffer::zeroed);
    let [for_tiled, for_dense] = &mut scratch;
    let depth = inn * kernel * kernel;
    let columns = Buffer::from(&stream.floats(depth * pixels)[..]);
    let weight = View::row_major(&filters.values, out, depth);
    let flops = 2.0 * csr.nonzeros() as f64 * pixels as f64;
    let act = Clamp::Relu;
    race.run(
        &format!("{} d={density} {}", line[0], blocks.name()),
        flops,
        &mut [
            ("sparse", &mut || {
                blocks.run(black_box(&x_blocks), black_box(&mut y_blocks), 1, act);
            }),
            ("direct", &mut || {
                direct.run(black_box(&x_blocks), black_box(&mut y_direct), 1, act);
            }),
            ("im2col", &mut || {
                dense.run(black_box(first), black_box(&mut y_dense), 1, for_dense, act);
            }),
            ("gemm alone", &mut || {
                gemm(
                    black_box(&mut c),
                    pixels,
                    weight,
                    View::row_major(&columns, depth, pixels),
                    false,
                );
            }),
        ],
    );
    race.run(
        &format!("{} d={density} {} (16 images)", line[0], tiled.name()),
        16.0 * flops,
        &mut [("sparse", &mut || {
            tiled.run(black_box(&x), black_box(&mut y_tiled), 1, for_tiled, act);
        })],
    );
}

fn depthwise(race: &Race, line: &[String]) {
    let isa = race.isa;
    let [channels, side, stride] = [1, 2, 3].map(|i| number(&line[i]));
    let mut stream = Stream(7);
    let input = [channels, side, side];
    let window = Window {
        pads: [1; 4],
        ..Window::square(3, stride)
    };
    let filters = stream.bernoulli([channels, 1, 3, 3], 1.0);
    let plain = Conv::pack(isa, &filters, None, &window, channels, input);
    let to = Blocks::of_map(plain.output());
    let from = BlockConv::input(input, &window, &to);
    let blocks = Depthwise::pack(isa, &filters, None, &window, [from, to]);
    let x = Buffer::from(&stream.floats(channels * side * side)[..]);
    let [mut x_blocks, mut y_blocks] = [from, to].map(|b| Buffer::zeroed(b.len()));
    from.pack(isa, &x, 1, &mut x_blocks);
    let pixels: usize = plain.output().iter().product();
    let mut y = Buffer::zeroed(pixels);
    let act = Clamp::Relu;
    race.run(
        &format!("{} {}", line[0], blocks.name()),
        18.0 * pixels as f64,
        &mut [
            ("dense", &mut || {
                blocks.run(black_box(&x_blocks), black_box(&mut y_blocks), 1, act);
            }),
            ("plain", &mut || {
                plain.run(black_box(&x), black_box(&mut y), 1, &mut [], act);
            }),
        ],
    );
}

/// Sparse and dense plan of a whole network.
fn whole(race: &Race, preset: &str, densities: &[f64], batch: usize) {
    let network = paper::network(preset, densities);
    let session = |weights| {
        let options = PlanOptions {
            weights,
            isa: race.isa,
            batch,
            ..PlanOptions::default()
        };
        let plan = Plan::new(&network, &options).expect("a preset can be planned");
        Session::new(plan, 1).expect("one thread needs no pool")
    };
    let [sparse, dense] = [WeightMode::Sparse, WeightMode::Dense].map(session);
    let x = Stream(1).floats(batch * 784);
    let [mut y, mut y_dense] = [(); 2].map(|()| vec![0.0; batch * 10]);
    race.run(
        &format!("{preset} batch {batch}"),
        2.0 * (sparse.plan().multiply_adds() * batch) as f64,
        &mut [
            ("sparse", &mut || {
                sparse
                    .run(batch, black_box(&x), &mut y)
                    .expect("whole samples")
            }),
            ("dense", &mut || {
                dense
                    .run(batch, black_box(&x), &mut y_dense)
                    .expect("whole samples")
            }),
        ],
    );
}

struct Race {
    isa: Isa,
    json: bool,
}

impl Race {
    /// Lets the contestants take turns and prints a line: times, ratios to the first, and its share of the peak.
    fn run(&self, title: &str, flops: f64, contestants: &mut [(&str, &mut dyn FnMut())]) {
        const TRIES: usize = 6;
        for attempt in 1..=TRIES {
            let before = fma_peak(self.isa);
            let times = turns(contestants);
            let after = fma_peak(self.isa);
            let steady = (before - after).abs() / before.max(after) <= 0.02;
            if !steady && attempt < TRIES {
                continue;
            }
            let time = |i: usize| spread(times[i].clone());
            let ratio = |i: usize| {
                let rounds = times[i].iter().zip(&times[0]);
                spread(rounds.map(|(other, first)| other / first).collect())
            };
            let share = flops / time(0)[1] / 1e3 / before.max(after);
            if self.json {
                let names = contestants.iter().map(|(name, _)| *name);
                let us: Vec<String> = names
                    .enumerate()
                    .map(|(i, name)| format!("{name:?}:{:.3}", time(i)[1]))
                    .collect();
                println!(
                    "{{\"line\":{title:?},\"us\":{{{}}},\"peak_share\":{share:.4},\"peak\":[{before:.1},{after:.1}],\"steady\":{steady}}}",
                    us.join(",")
                );
                return;
            }
            print!("{title}:");
            for (i, (name, _)) in contestants.iter().enumerate() {
                let [low, median, high] = time(i);
                print!(" {name} {median:.2} ({low:.2}-{high:.2})");
                if i > 0 {
                    let [low, median, high] = ratio(i);
                    print!(" {median:.2}x ({low:.2}-{high:.2})");
                }
                print!(",");
            }
            print!(" {share:.3} of peak {before:.1} {after:.1}");
            println!("{}", if steady { "" } else { " UNSTEADY" });
            return;
        }
    }
}

/// Lower quartile, median and upper quartile.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// Times of each contestant in microseconds, round by round.
fn turns(contestants: &mut [(&str, &mut dyn FnMut())]) -> Vec<Vec<f64>> {
    let seconds = |run: &mut dyn FnMut(), times: usize| {
        let start = Instant::now();
        for _ in 0..times {
            run();
        }
        start.elapsed().as_secs_f64()
    };
    let repeats: Vec<usize> = contestants
        .iter_mut()
        .map(|(_, run)| {
            let mut times = 1;
            while seconds(run, times) < SAMPLE_SECONDS {
                times *= 2;
            }
            times
        })
        .collect();
    let mut samples = vec![Vec::new(); contestants.len()];
    for _ in 0..SAMPLES {
        for (((_, run), &times), samples) in contestants.iter_mut().zip(&repeats).zip(&mut samples)
        {
            // Once untimed, so that each finds its own data in the cache, as after a run of its own.
            run();
            samples.push(seconds(run, times) * 1e6 / times as f64);
        }
    }
    samples
}
