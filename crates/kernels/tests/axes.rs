//! Transposition of axes against its slow twin.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_kernels::axes::Transpose;
use sparsevd_testing::reference;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_number_goes_where_the_twin_puts_it(
        dims in proptest::collection::vec(prop::sample::select(vec![1_usize, 2, 3, 5, 16, 17, 33]), 4),
        perm in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        samples in 0..3usize,
    ) {
        let elements: usize = dims.iter().product();
        let x: Vec<f32> = (0..samples * elements).map(|i| i as f32).collect();
        let want: Vec<f32> = x
            .chunks(elements)
            .flat_map(|x| reference::transpose(x, &dims, &perm))
            .collect();
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; x.len()];
            Transpose::new(isa, &dims, &perm).run(&x, &mut y);
            prop_assert_eq!(&y, &want);
        }
    }
}

#[test]
fn a_matrix_becomes_its_columns() {
    let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let want = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
    for isa in Isa::available() {
        let mut y = [0.0; 6];
        Transpose::new(isa, &[2, 3], &[1, 0]).run(&x, &mut y);
        assert_eq!(y, want);
    }
    assert_eq!(reference::transpose(&x, &[2, 3], &[1, 0]), want);
}
