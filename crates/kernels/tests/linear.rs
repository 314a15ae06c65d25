//! Linear kernels on every instruction set against their slow twin.

use proptest::prelude::*;
use sparsevd_kernels::dense::{Gemv, Linear};
use sparsevd_kernels::spmm::Spmm;
use sparsevd_kernels::spmv::{ByActivity, InputSparse, Spmv};
use sparsevd_kernels::{Buffer, Clamp, Isa, Precision, tiles};
use sparsevd_model::{Csr, Dense};
use sparsevd_testing::arbitrary::{Stream, activations, matrix};
use sparsevd_testing::close::assert_close;
use sparsevd_testing::reference;

/// Sums of up to a thousand products of numbers up to one.
const TOLERANCE: f32 = 5e-5;

fn any_clamp() -> impl Strategy<Value = Clamp> {
    prop_oneof![
        Just(Clamp::None),
        Just(Clamp::Relu),
        Just(Clamp::Clip {
            min: -0.25,
            max: 0.5
        }),
    ]
}

/// A layer, a batch and a clamp.
fn case(
    rows: usize,
    cols: usize,
    wild: bool,
) -> impl Strategy<Value = (Dense, Vec<f32>, Vec<f32>, usize, Clamp)> {
    (matrix(rows, cols), 1..=35_usize, any_clamp()).prop_flat_map(move |((w, b), n, clamp)| {
        let x = activations(n * w.shape.dims()[1], wild);
        (Just(w), Just(b), x, Just(n), Just(clamp))
    })
}

fn check_spmm(isa: Isa, w: &Dense, b: &[f32], x: &[f32], n: usize, clamp: Clamp) {
    let &[rows, cols] = w.shape.dims() else {
        unreachable!()
    };
    let want = reference::linear(&w.values, b, x, cols, |v| clamp.apply(v));
    let spmm = Spmm::pack(isa, &Csr::from_dense(w), Some(b));
    let x = Buffer::from(&reference::to_tiles(x, n, cols)[..]);
    let mut y = Buffer::zeroed(tiles(n) * rows * 16);
    spmm.run(&x, &mut y, n, clamp);
    assert_close(&reference::from_tiles(&y, n, rows), &want, TOLERANCE);
}

fn check_vectors(isa: Isa, w: &Dense, b: &[f32], x: &[f32], clamp: Clamp) {
    let &[rows, cols] = w.shape.dims() else {
        unreachable!()
    };
    let csr = Csr::from_dense(w);
    let want = reference::linear(&w.values, b, x, cols, |v| clamp.apply(v));
    let (spmv, input_sparse) = (
        Spmv::pack(isa, &csr, Some(b)),
        InputSparse::pack(isa, &csr, Some(b)),
    );
    for (x, want) in x.chunks_exact(cols).zip(want.chunks_exact(rows.max(1))) {
        let mut y = vec![f32::NAN; rows];
        spmv.run(x, &mut y, clamp);
        assert_close(&y, want, TOLERANCE);
        let mut y = vec![f32::NAN; rows];
        input_sparse.run(x, &mut y, clamp);
        assert_close(&y, want, TOLERANCE);
        for most in [0, cols / 2, cols] {
            let mut y = vec![f32::NAN; rows];
            ByActivity::new(spmv.clone(), input_sparse.clone(), most).run(x, &mut y, clamp);
            assert_close(&y, want, TOLERANCE);
        }
    }
}

/// Each precision of non-zeros, against plain loops over the rounded weights.
fn check_precisions(isa: Isa, w: &Dense, b: &[f32], x: &[f32], n: usize, clamp: Clamp) {
    let &[rows, cols] = w.shape.dims() else {
        unreachable!()
    };
    let csr = Csr::from_dense(w);
    let tiled = Buffer::from(&reference::to_tiles(x, n, cols)[..]);
    for precision in [
        Precision::Bf16,
        Precision::F16,
        Precision::I8 { scale: 0.0125 },
    ] {
        let rounded: Vec<f32> = w.values.iter().map(|&v| precision.rounded(v)).collect();
        let want = reference::linear(&rounded, b, x, cols, |v| clamp.apply(v));
        let spmm = Spmm::pack_with(isa, &csr, Some(b), 0..rows, precision);
        let mut y = Buffer::zeroed(tiles(n) * rows * 16);
        spmm.run(&tiled, &mut y, n, clamp);
        assert_close(&reference::from_tiles(&y, n, rows), &want, TOLERANCE);
        let spmv = Spmv::pack_with(isa, &csr, Some(b), 0..rows, precision);
        for (x, want) in x.chunks_exact(cols).zip(want.chunks_exact(rows.max(1))) {
            let mut y = vec![f32::NAN; rows];
            spmv.run(x, &mut y, clamp);
            assert_close(&y, want, TOLERANCE);
        }
    }
}

proptest! {
    #[test]
    fn sparse_kernels_agree_with_plain_loops((w, b, x, n, clamp) in case(40, 200, false)) {
        for isa in Isa::available() {
            check_spmm(isa, &w, &b, &x, n, clamp);
            check_vectors(isa, &w, &b, &x, clamp);
        }
    }

    #[test]
    fn nan_and_infinity_stay_in_the_rows_that_read_them((w, b, x, n, clamp) in case(20, 90, true)) {
        for isa in Isa::available() {
            check_spmm(isa, &w, &b, &x, n, clamp);
            check_vectors(isa, &w, &b, &x, clamp);
        }
    }

    #[test]
    fn rounded_values_agree_with_plain_loops_over_rounded_weights((w, b, x, n, clamp) in case(40, 200, false)) {
        for isa in Isa::available() {
            check_precisions(isa, &w, &b, &x, n, clamp);
        }
    }

    #[test]
    fn nan_and_infinity_stay_where_rounded_values_read_them((w, b, x, n, clamp) in case(20, 90, true)) {
        // What the widest grid rounds to zero is not read by any kernel, as in the reference.
        for isa in Isa::available() {
            check_precisions(isa, &w, &b, &x, n, clamp);
        }
    }

    #[test]
    fn dense_kernels_agree_with_plain_loops((w, b, x, n, clamp) in case(40, 200, false)) {
        let &[rows, cols] = w.shape.dims() else { unreachable!() };
        let want = reference::linear(&w.values, &b, &x, cols, |v| clamp.apply(v));
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; n * rows];
            let linear = Linear::pack(isa, &w, Some(&b));
            linear.run(&x, &mut y, n, clamp);
            assert_close(&y, &want, TOLERANCE);
            let tiles = n.div_ceil(16);
            let mut y = vec![f32::NAN; tiles * rows * 16];
            linear.run_tiled(&reference::to_tiles(&x, n, cols), &mut y, tiles, clamp);
            assert_close(&reference::from_tiles(&y, n, rows), &want, TOLERANCE);
            let gemv = Gemv::pack(isa, &w, Some(&b));
            for (x, want) in x.chunks_exact(cols).zip(want.chunks_exact(rows.max(1))) {
                let mut y = vec![f32::NAN; rows];
                gemv.run(x, &mut y, clamp);
                assert_close(&y, want, TOLERANCE);
            }
        }
    }

    #[test]
    fn parts_of_rows_make_up_the_whole((w, b, x, n, clamp) in case(40, 60, false), cut in 0.0..1.0_f64) {
        let &[rows, cols] = w.shape.dims() else { unreachable!() };
        let (csr, cut) = (Csr::from_dense(&w), (cut * rows as f64) as usize);
        let want = reference::linear(&w.values, &b, &x, cols, |v| clamp.apply(v));
        let tile = reference::to_tiles(&x[..cols * n.min(16)], n.min(16), cols);
        for isa in Isa::available() {
            let mut vector = vec![0.0; rows];
            let mut y = vec![0.0; rows * 16];
            for part in [0..cut, cut..rows] {
                let spmm = Spmm::pack_rows(isa, &csr, Some(&b), part.clone());
                spmm.run(&tile, &mut y[part.start * 16..part.end * 16], n.min(16), clamp);
                let spmv = Spmv::pack_rows(isa, &csr, Some(&b), part.clone());
                spmv.run(&x[..cols], &mut vector[part], clamp);
            }
            assert_close(&vector, &want[..rows], TOLERANCE);
            assert_close(&reference::from_tiles(&y, n.min(16), rows), &want[..rows * n.min(16)], TOLERANCE);
        }
    }
}

#[test]
fn large_layers_of_every_density_agree_with_plain_loops() {
    for isa in Isa::available() {
        for (rows, cols, n) in [
            (300, 784, 33),
            (65, 1500, 17),
            (3, 70_000, 3),
            (700, 1, 2),
            (64, 64, 16),
        ] {
            for density in [0.005, 0.02, 0.1, 0.6] {
                let mut stream = Stream(3);
                let w = stream.bernoulli([rows, cols], density);
                let (b, x) = (stream.floats(rows), stream.floats(n * cols));
                check_spmm(isa, &w, &b, &x, n, Clamp::Relu);
                check_vectors(isa, &w, &b, &x, Clamp::None);
            }
        }
    }
}

#[test]
fn a_matrix_without_columns_gives_its_bias() {
    let csr = Csr::try_new([5, 0], vec![0; 6], vec![], vec![]).expect("an empty matrix is valid");
    let bias = [1.0, -2.0, 3.0, -4.0, 5.0];
    for isa in Isa::available() {
        let mut y = [f32::NAN; 5];
        Spmv::pack(isa, &csr, Some(&bias)).run(&[], &mut y, Clamp::Relu);
        assert_eq!(y, [1.0, 0.0, 3.0, 0.0, 5.0]);
        let mut y = Buffer::zeroed(5 * 16 * 2);
        Spmm::pack(isa, &csr, Some(&bias)).run(&[], &mut y, 32, Clamp::None);
        assert_close(&reference::from_tiles(&y, 32, 5), &bias.repeat(32), 0.0);
    }
}
