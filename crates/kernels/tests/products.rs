//! Products of two values and copies along dimensions against their slow twins.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_kernels::expand::Expand;
use sparsevd_kernels::mat_mul::MatMul;
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::reference;

proptest! {
    #[test]
    fn products_of_any_size_follow_the_definition(
        samples in 0..=3_usize, count in 1..=3_usize, n in 1..=20_usize, k in 1..=40_usize, m in 1..=20_usize,
        seed in any::<u64>(),
    ) {
        let mut stream = Stream(seed);
        let a = stream.floats(samples * count * n * k);
        let b = stream.floats(samples * count * k * m);
        let want = reference::mat_mul(&a, &b, [n, k, m]);
        let mut y = vec![f32::NAN; samples * count * n * m];
        MatMul::new(count, [n, k, m]).run(&a, &b, &mut y, samples);
        assert_sums_close(&y, &want, 1e-5, "products");
    }

    #[test]
    fn copies_lie_where_the_twin_puts_them(
        dims in proptest::collection::vec((prop::sample::select(vec![1_usize, 2, 3, 17]), any::<bool>()), 0..5),
        samples in 0..3_usize,
    ) {
        let shape: Vec<usize> = dims.iter().map(|d| d.0).collect();
        let dims: Vec<usize> = dims.iter().map(|&(size, kept)| if kept { size } else { 1 }).collect();
        let elements: usize = dims.iter().product();
        let x: Vec<f32> = (0..samples * elements).map(|i| i as f32).collect();
        let want: Vec<f32> = x.chunks(elements).flat_map(|x| reference::expand(x, &dims, &shape)).collect();
        let mut y = vec![f32::NAN; want.len()];
        Expand::new(&dims, &shape).run(&x, &mut y, samples);
        prop_assert_eq!(&y, &want);
    }
}

#[test]
fn a_row_and_a_column_meet_in_a_matrix() {
    let mut y = [0.0; 6];
    MatMul::new(1, [2, 1, 3]).run(&[1.0, 2.0], &[3.0, 4.0, 5.0], &mut y, 1);
    assert_eq!(y, [3.0, 4.0, 5.0, 6.0, 8.0, 10.0]);
    Expand::new(&[2, 1], &[2, 3]).run(&[1.0, 2.0], &mut y, 1);
    assert_eq!(y, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    Expand::new(&[1, 3], &[2, 3]).run(&[1.0, 2.0, 3.0], &mut y, 1);
    assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
}

#[test]
fn not_a_number_stays_in_the_row_or_column_that_reads_it() {
    let mut y = [0.0; 4];
    MatMul::new(1, [2, 2, 2]).run(&[f32::NAN, 0.0, 1.0, 1.0], &[1.0; 4], &mut y, 1);
    assert!(y[0].is_nan() && y[1].is_nan());
    assert_eq!(y[2..], [2.0, 2.0]);
}

#[test]
#[should_panic(expected = "b")]
fn factors_of_another_size_are_refused() {
    MatMul::new(1, [2, 2, 2]).run(&[1.0; 4], &[1.0; 3], &mut [0.0; 4], 1);
}

#[test]
#[should_panic(expected = "larger where that has one element")]
fn copies_of_what_is_no_single_element_are_refused() {
    let _ = Expand::new(&[2], &[4]);
}
