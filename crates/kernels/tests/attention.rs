//! Attention on every instruction set against its slow twin.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_kernels::attention::Attention;
use sparsevd_kernels::{Isa, PackedKernel};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::reference;

/// Runs `samples` samples of equally many vectors, with scratch that holds anything.
fn run(isa: Isa, heads: usize, width: usize, inputs: [&[f32]; 3], samples: usize) -> Vec<f32> {
    let kernel = Attention::new(isa, heads, width);
    let mut y = vec![f32::NAN; inputs[0].len()];
    let mut scratch = vec![f32::NAN; kernel.scratch_len()];
    kernel.run(inputs, &mut y, samples, &mut scratch);
    y
}

fn check(samples: usize, n: usize, heads: usize, width: usize, size: f32, seed: u64) {
    let mut stream = Stream(seed);
    let d = heads * width;
    let [q, k, v] = [0; 3].map(|_| stream.floats(samples * n * d));
    let q: Vec<f32> = q.iter().map(|x| x * size).collect();
    for isa in Isa::available() {
        let y = run(isa, heads, width, [&q, &k, &v], samples);
        for (i, y) in y.chunks(n * d).enumerate() {
            let of = [&q, &k, &v].map(|x| &x[i * n * d..][..n * d]);
            let want = reference::attention(of, d, width);
            let context = format!("sample {i} of {samples}, [{n}, {d}], {heads} heads, {isa}");
            // A score of `size` is off by a share of it, and so is its exponential.
            assert_sums_close(y, &want, 2e-6 * f64::from(size.max(1.0)), context);
        }
    }
}

proptest! {
    #[test]
    fn every_vector_gets_the_weighted_mean_of_all_values(
        samples in 1..=3_usize, n in 1..=70_usize, heads in 1..=3_usize, width in 1..=40_usize,
        size in prop_oneof![Just(0.0_f32), Just(1.0), Just(30.0)], seed in any::<u64>(),
    ) {
        check(samples, n, heads, width, size, seed);
    }
}

#[test]
fn lengths_around_the_edges_of_blocks_and_tiles_are_exact() {
    for n in [
        1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200,
    ] {
        check(1, n, 2, 33, 5.0, n as u64);
    }
    for width in [1, 7, 8, 16, 31, 32, 64, 65, 128] {
        check(2, 19, 2, width, 5.0, width as u64);
    }
}

/// What was summed under a smaller maximum is scaled down, whenever the largest score comes; scores of hundreds would overflow without one.
#[test]
fn the_largest_score_may_come_in_any_block() {
    let (n, width) = (200, 4);
    let v = Stream(3).floats(n * width);
    for best in [0, 63, 64, 130, 199] {
        let mut k = vec![0.0; n * width];
        for (i, row) in k.chunks_mut(width).enumerate() {
            // Scores rise to it: `2 * 400 / sqrt(4)` at most.
            row[0] = 400.0 - 2.0 * (i as f32 - best as f32).abs();
        }
        let q = [2.0, 0.0, 0.0, 0.0].repeat(n);
        for isa in Isa::available() {
            let y = run(isa, 1, width, [&q, &k, &v], 1);
            let want = reference::attention([&q, &k, &v], width, width);
            assert_sums_close(&y, &want, 1e-4, format!("largest at {best}, {isa}"));
            // The two neighbours have e^-2 of its weight each, and all others together about a twentieth of that.
            assert!((y[0] - v[best * width]).abs() < 0.6, "{isa}: {}", y[0]);
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_sample_and_head_and_column() {
    let (n, heads, width) = (70, 2, 5);
    let d = heads * width;
    let clean = Stream(5).floats(2 * n * d);
    // Row 66 of the second sample, column 2 of the second head.
    let at = (n + 66) * d + width + 2;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = clean.clone();
        x[at] = bad;
        for isa in Isa::available() {
            for dirty in 0..3 {
                let mut inputs = [clean.as_slice(); 3];
                inputs[dirty] = &x;
                let y = run(isa, heads, width, inputs, 2);
                let whole = run(isa, heads, width, [&clean; 3], 2);
                for (i, (y, whole)) in y.iter().zip(&whole).enumerate() {
                    let (row, column) = (i / d, i % d);
                    let reads = match dirty {
                        0 => row == n + 66 && column >= width,
                        1 => row >= n && column >= width,
                        _ => row >= n && column == width + 2,
                    };
                    if !reads {
                        assert_eq!(y, whole, "{isa}: {bad} in input {dirty}, element {i}");
                    } else if bad.is_nan() {
                        assert!(y.is_nan(), "{isa}: input {dirty}, element {i}: {y}");
                    } else if dirty == 2 {
                        assert!(!y.is_finite(), "{isa}: element {i}: {y}");
                    }
                }
            }
        }
    }
}

/// A key that no query can attend to has no part, even where the first 64 are all such.
#[test]
fn scores_of_minus_infinity_weigh_nothing() {
    let (n, width) = (80, 4);
    let q = vec![1.0; n * width];
    let mut k = Stream(1).floats(n * width);
    k[..64 * width].fill(f32::NEG_INFINITY);
    let v = Stream(2).floats(n * width);
    let rest = 64 * width;
    let want = reference::attention([&q[rest..], &k[rest..], &v[rest..]], width, width);
    for isa in Isa::available() {
        let y = run(isa, 1, width, [&q, &k, &v], 1);
        assert_sums_close(&y[rest..], &want, 1e-5, isa);
    }
}

#[test]
fn one_value_may_be_all_three_inputs_and_lengths_must_fit() {
    for isa in Isa::available() {
        let x = Stream(8).floats(6 * 9);
        let y = run(isa, 3, 3, [&x; 3], 1);
        let want = reference::attention([&x; 3], 9, 3);
        assert_sums_close(&y, &want, 1e-5, isa);
        assert_eq!(run(isa, 3, 3, [&[]; 3], 0), []);
        let refused = |lengths: [usize; 4], n: usize, less: usize| {
            let of = |i: usize| vec![0.5; lengths[i]];
            let (q, k, v, mut y) = (of(0), of(1), of(2), of(3));
            let kernel = Attention::new(isa, 3, 3);
            let mut scratch = vec![0.0; kernel.scratch_len() - less];
            let run = || kernel.run([&q, &k, &v], &mut y, n, &mut scratch);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!(!refused([54; 4], 2, 0));
        for lengths in [
            [45, 54, 54, 54],
            [54, 45, 54, 54],
            [54, 54, 63, 54],
            [54, 54, 54, 55],
            [55; 4],
        ] {
            assert!(refused(lengths, 2, 0), "{lengths:?}");
        }
        assert!(refused([54; 4], 4, 0) && refused([54; 4], 0, 0));
        assert!(refused([54; 4], usize::MAX, 0) && refused([54; 4], 2, 1));
        for [heads, width] in [[0, 1], [1, 0], [usize::MAX, 2], [1, usize::MAX / 64]] {
            let new = || Attention::new(isa, heads, width);
            assert!(std::panic::catch_unwind(new).is_err(), "{heads} x {width}");
        }
    }
}

#[test]
fn some_queries_of_a_sample_have_the_bits_that_they_have_beside_all() {
    let (n, heads, width) = (150, 2, 24);
    let d = heads * width;
    let mut stream = Stream(9);
    let [q, k, v] = [0; 3].map(|_| stream.floats(n * d));
    for isa in Isa::available() {
        let all = run(isa, heads, width, [&q, &k, &v], 1);
        for cut in [0, 1, 3, 64, 70, 149, 150] {
            let (left, right) = q.split_at(cut * d);
            let parts = [left, right].map(|q| run(isa, heads, width, [q, &k, &v], 1));
            assert!(parts.concat() == all, "cut at {cut}, {isa}");
        }
    }
}
