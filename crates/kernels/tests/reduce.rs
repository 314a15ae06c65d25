//! Means of vectors and vectors of length 1 on every instruction set against their slow twins.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_kernels::reduce::{L2Normalize, Mean};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::{assert_close, assert_sums_close};
use sparsevd_testing::reference;

proptest! {
    #[test]
    fn the_mean_of_any_number_of_rows_is_taken(
        samples in 1..=3_usize, rows in 1..=40_usize, inner in 1..=70_usize, seed in any::<u64>(),
    ) {
        let x = Stream(seed).floats(samples * rows * inner);
        let want: Vec<f64> = x.chunks(rows * inner).flat_map(|x| reference::mean_of_rows(x, inner)).collect();
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; samples * inner];
            Mean::new(isa, inner).run(&x, &mut y, samples);
            assert_sums_close(&y, &want, 1e-6, isa);
        }
    }

    #[test]
    fn vectors_of_any_size_get_length_1(
        vectors in 0..=5_usize, width in 1..=70_usize, power in -18..=18_i32, seed in any::<u64>(),
    ) {
        let x: Vec<f32> = Stream(seed).floats(vectors * width).iter().map(|x| x * 10_f32.powi(power)).collect();
        let want: Vec<f32> = reference::l2_normalize(&x, width).iter().map(|x| *x as f32).collect();
        for isa in Isa::available() {
            let mut y = x.clone();
            L2Normalize::new(isa, width).run(&mut y);
            assert_close(&y, &want, 1e-6);
        }
    }
}

#[test]
fn zeros_stay_and_nan_stays_in_its_vector_and_column() {
    for isa in Isa::available() {
        let mut y = vec![0.0; 20];
        y[13] = f32::NAN;
        L2Normalize::new(isa, 5).run(&mut y);
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i / 5 == 2, "element {i}");
            assert!(y.is_nan() || *y == 0.0, "element {i}: {y}");
        }
        let (mut x, mut y) = (vec![1.0; 24], vec![0.0; 6]);
        x[12 + 7] = f32::NAN;
        Mean::new(isa, 3).run(&x, &mut y, 2);
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i == 3 + 1, "element {i}");
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for isa in Isa::available() {
        let mean = |x: usize, y: usize, n: usize| {
            let (x, mut y) = (vec![1.0; x], vec![0.0; y]);
            let run = || Mean::new(isa, 4).run(&x, &mut y, n);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!(!mean(24, 8, 2) && !mean(0, 0, 0));
        assert!(mean(24, 4, 2) && mean(20, 8, 2) && mean(0, 8, 2) && mean(24, 8, usize::MAX));
        let norm = |width: usize, x: usize| {
            let run = || L2Normalize::new(isa, width).run(&mut vec![1.0; x]);
            std::panic::catch_unwind(run).is_err()
        };
        assert!(!norm(4, 8) && !norm(0, 0));
        assert!(norm(4, 9) && norm(0, 4));
    }
}
