//! Linear kernels on every instruction set against their slow twin.

use std::ops::Range;

use proptest::prelude::*;
use sparsevd_kernels::dense::{Gemv, Linear};
use sparsevd_kernels::panel_gemm::PanelGemm;
use sparsevd_kernels::spmm::Spmm;
use sparsevd_kernels::spmv::{ByActivity, InputSparse, Spmv};
use sparsevd_kernels::{Buffer, Clamp, Isa, Precision, tiles};
use sparsevd_model::{Csr, Dense};
use sparsevd_testing::arbitrary::{Stream, activations, matrix};
use sparsevd_testing::close::{assert_close, assert_close_or_nan};
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

/// For each output, the sum of the sizes of what it adds; not finite where that is so of a summand.
fn sizes(w: &[f32], b: &[f32], x: &[f32], cols: usize) -> Vec<f32> {
    let [w, b, x] = [w, b, x].map(|v| v.iter().map(|v| v.abs()).collect::<Vec<f32>>());
    reference::linear(&w, &b, &x, cols, |v| v)
}

fn check_spmm(isa: Isa, w: &Dense, b: &[f32], x: &[f32], n: usize, clamp: Clamp) {
    let &[rows, cols] = w.shape.dims() else {
        unreachable!()
    };
    let want = reference::linear(&w.values, b, x, cols, |v| clamp.apply(v));
    let sizes = sizes(&w.values, b, x, cols);
    let spmm = Spmm::pack(isa, &Csr::from_dense(w), Some(b));
    let x = Buffer::from(&reference::to_tiles(x, n, cols)[..]);
    let mut y = Buffer::zeroed(tiles(n) * rows * 16);
    spmm.run(&x, &mut y, n, clamp);
    assert_close_or_nan(
        &reference::from_tiles(&y, n, rows),
        &want,
        &sizes,
        TOLERANCE,
    );
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
        let sizes = sizes(&w.values, b, x, cols);
        let mut y = vec![f32::NAN; rows];
        spmv.run(x, &mut y, clamp);
        assert_close_or_nan(&y, want, &sizes, TOLERANCE);
        let mut scratch = vec![f32::NAN; input_sparse.scratch_len()];
        let mut y = vec![f32::NAN; rows];
        input_sparse.run(x, &mut y, &mut scratch, clamp);
        assert_close(&y, want, TOLERANCE);
        for most in [0, cols / 2, cols] {
            let mut y = vec![f32::NAN; rows];
            ByActivity::new(spmv.clone(), input_sparse.clone(), most).run(
                x,
                &mut y,
                &mut scratch,
                clamp,
            );
            assert_close_or_nan(&y, want, &sizes, TOLERANCE);
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
        let all = sizes(&rounded, b, x, cols);
        let spmm = Spmm::pack_with(isa, &csr, Some(b), 0..rows, precision);
        let mut y = Buffer::zeroed(tiles(n) * rows * 16);
        spmm.run(&tiled, &mut y, n, clamp);
        assert_close_or_nan(&reference::from_tiles(&y, n, rows), &want, &all, TOLERANCE);
        let spmv = Spmv::pack_with(isa, &csr, Some(b), precision);
        for (x, want) in x.chunks_exact(cols).zip(want.chunks_exact(rows.max(1))) {
            let mut y = vec![f32::NAN; rows];
            spmv.run(x, &mut y, clamp);
            assert_close_or_nan(&y, want, &sizes(&rounded, b, x, cols), TOLERANCE);
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
            PanelGemm::pack(isa, &w, Some(&b)).run(&x, &mut y, n, clamp);
            assert_close(&y, &want, TOLERANCE);
            let linear = Linear::pack(isa, &w, Some(&b));
            let tiles = n.div_ceil(16);
            let mut y = vec![f32::NAN; tiles * rows * 16];
            linear.run(&reference::to_tiles(&x, n, cols), &mut y, tiles, clamp);
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
    fn rows_have_the_same_bits_in_any_part((w, b, x, n, clamp) in case(40, 200, false), cut in 0.0..1.0_f64) {
        let csr = Csr::from_dense(&w);
        for (isa, precision) in Isa::available().into_iter().flat_map(|isa| PRECISIONS.map(|p| (isa, p))) {
            check_parts_of_tiles(isa, &csr, &b, &x, n, cut, (clamp, precision));
            check_parts_of_vectors(isa, &csr, &b, &x, cut, (clamp, precision));
        }
    }
}

const PRECISIONS: [Precision; 4] = [
    Precision::F32,
    Precision::Bf16,
    Precision::F16,
    Precision::I8 { scale: 0.0125 },
];

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|v| v.to_bits()).collect()
}

fn check_parts_of_tiles(
    isa: Isa,
    csr: &Csr,
    b: &[f32],
    x: &[f32],
    n: usize,
    cut: f64,
    (clamp, precision): (Clamp, Precision),
) {
    let (rows, n) = (csr.rows(), n.min(16));
    let tile = reference::to_tiles(&x[..csr.cols() * n], n, csr.cols());
    let run = |part: Range<usize>| {
        let mut y = vec![0.0; part.len() * 16];
        Spmm::pack_with(isa, csr, Some(b), part, precision).run(&tile, &mut y, n, clamp);
        bits(&y)
    };
    let cut = (cut * rows as f64) as usize;
    assert_eq!(
        [run(0..cut), run(cut..rows)].concat(),
        run(0..rows),
        "{isa}"
    );
}

fn check_parts_of_vectors(
    isa: Isa,
    csr: &Csr,
    b: &[f32],
    x: &[f32],
    cut: f64,
    (clamp, precision): (Clamp, Precision),
) {
    let x = &x[..csr.cols()];
    let whole = Spmv::pack_with(isa, csr, Some(b), precision);
    let columns = InputSparse::pack(isa, csr, Some(b));
    let mut scratch = vec![f32::NAN; columns.scratch_len()];
    let [mut want, mut got, mut want_columns, mut got_columns] =
        [(); 4].map(|()| vec![f32::NAN; csr.rows()]);
    whole.run(x, &mut want, clamp);
    columns.run(x, &mut want_columns, &mut scratch, clamp);
    let groups = whole.groups().len();
    let cut = (cut * groups as f64) as usize;
    for part in [0..cut, cut..groups] {
        let part = whole.part(part);
        let order = part.order().expect("a part");
        let mut y = vec![f32::NAN; part.rows()];
        part.run(x, &mut y, clamp);
        let part = InputSparse::pack_rows(isa, csr, Some(b), order);
        let mut y_columns = vec![f32::NAN; part.rows()];
        part.run(x, &mut y_columns, &mut scratch, clamp);
        for (i, &row) in order.iter().enumerate() {
            got[row as usize] = y[i];
            got_columns[row as usize] = y_columns[i];
        }
    }
    assert_eq!(bits(&got), bits(&want), "{}", whole.name());
    assert_eq!(bits(&got_columns), bits(&want_columns), "{isa}");
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
        let mut y = [f32::NAN; 15];
        let dense = Dense::zeros([5, 0]);
        PanelGemm::pack(isa, &dense, Some(&bias)).run(&[], &mut y, 3, Clamp::None);
        assert_eq!(y[..], bias.repeat(3));
        let mut y = Buffer::zeroed(5 * 16 * 2);
        Spmm::pack(isa, &csr, Some(&bias)).run(&[], &mut y, 32, Clamp::None);
        assert_close(&reference::from_tiles(&y, 32, 5), &bias.repeat(32), 0.0);
    }
}

#[test]
fn a_sample_has_the_same_bits_beside_any_others() {
    // Several panels, of which the last has fewer vectors of rows, some rows of them empty; more samples than go through the panels together.
    let (rows, cols, n) = (3 * 16 * 2 + 5, 3000, 35);
    let mut stream = Stream(4);
    let w = stream.bernoulli([rows, cols], 1.0);
    let (b, x) = (stream.floats(rows), stream.floats(n * cols));
    let want = reference::linear(&w.values, &b, &x, cols, |v| Clamp::Relu.apply(v));
    let sizes = sizes(&w.values, &b, &x, cols);
    for isa in Isa::available() {
        let panels = PanelGemm::pack(isa, &w, Some(&b));
        let run = |x: &[f32]| {
            let n = x.len() / cols;
            let mut y = vec![f32::NAN; n * rows];
            panels.run(x, &mut y, n, Clamp::Relu);
            y
        };
        let all = run(&x);
        assert_close_or_nan(&all, &want, &sizes, TOLERANCE);
        for together in [1, 2, 9, 20] {
            let parts: Vec<f32> = x.chunks(together * cols).flat_map(run).collect();
            assert_eq!(bits(&parts), bits(&all), "{together} on {isa}");
        }
    }
}
