//! Layouts, activations, arithmetic, padding and softmax on every instruction set against their slow twins.

use proptest::prelude::*;
use sparsevd_kernels::channels::{Affine, per_channel};
use sparsevd_kernels::elementwise::Arithmetic;
use sparsevd_kernels::{
    Activation, Clamp, Isa, Layout, Pack, elementwise, pack_tiles, place, tiles, unpack_tiles,
};
use sparsevd_testing::arbitrary::{Stream, activations};
use sparsevd_testing::close::assert_close;
use sparsevd_testing::reference;

type Twin = fn(f32, f32) -> f32;

const ARITHMETIC: [(Arithmetic, Twin); 6] = [
    (Arithmetic::Add, |a, b| a + b),
    (Arithmetic::Sub, |a, b| a - b),
    (Arithmetic::Mul, |a, b| a * b),
    (Arithmetic::Div, |a, b| a / b),
    (Arithmetic::Max, |a, b| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            a.max(b)
        }
    }),
    (Arithmetic::Min, |a, b| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            a.min(b)
        }
    }),
];

type Formula = fn(f64) -> f64;

/// Every activation with its formula.
fn functions() -> Vec<(Activation, Formula)> {
    vec![
        (Activation::LeakyRelu { alpha: 0.25 }, |x| {
            if x < 0.0 { 0.25 * x } else { x }
        }),
        (Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (
            Activation::HardSigmoid {
                alpha: 0.25,
                beta: 0.5,
            },
            |x| (0.25 * x + 0.5).clamp(0.0, 1.0),
        ),
        (Activation::HardSwish, |x| {
            x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
        }),
        (Activation::Tanh, f64::tanh),
        (Activation::Gelu, reference::gelu),
        (Activation::Elu { alpha: 0.75 }, |x| {
            if x < 0.0 { 0.75 * x.exp_m1() } else { x }
        }),
        (Activation::Softplus, reference::softplus),
        (Activation::Exp, f64::exp),
        (Activation::Log, f64::ln),
        (Activation::Sqrt, f64::sqrt),
        (Activation::Erf, reference::erf),
        (Activation::GeluTanh, |x| {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }),
    ]
}

#[test]
fn functions_follow_their_formulas_and_let_nan_through() {
    let mut x: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 3e-3).collect();
    x.extend([
        1e-6, -1e-6, 60.0, -60.0, 89.0, -89.0, 1e4, -1e4, 0.35, -0.35,
    ]);
    for (function, twin) in functions() {
        let want: Vec<f32> = x.iter().map(|v| twin(f64::from(*v)) as f32).collect();
        for isa in Isa::available() {
            let mut y = x.clone();
            function.apply(isa, &mut y);
            assert_close(&y, &want, 1e-6);
            let mut y = vec![f32::NAN; 37];
            function.apply(isa, &mut y);
            assert!(y.iter().all(|v| v.is_nan()), "{function:?} of NaN on {isa}");
            let ends = match function {
                Activation::Exp => Some([0.0, f32::INFINITY]),
                Activation::Elu { .. } => Some([-0.75, f32::INFINITY]),
                Activation::Softplus => Some([0.0, f32::INFINITY]),
                Activation::Erf => Some([-1.0, 1.0]),
                _ => None,
            };
            if let Some(ends) = ends {
                let mut y = [f32::NEG_INFINITY, f32::INFINITY];
                function.apply(isa, &mut y);
                assert_eq!(y, ends, "{function:?} on {isa}");
            }
            if matches!(function, Activation::Gelu | Activation::GeluTanh) {
                let mut y = [-1e20, -1e30, -3e38, 3e38];
                function.apply(isa, &mut y);
                assert_eq!(y, [0.0, 0.0, 0.0, 3e38], "{function:?} on {isa}");
            }
        }
    }
}

#[test]
fn what_is_zero_at_zero_is_so_exactly_and_small_numbers_keep_their_digits() {
    let x: Vec<f32> = (1..=400).map(|i| i as f32 * -1e-3).collect();
    let functions: [(Activation, Formula); 2] = [
        (Activation::Erf, reference::erf),
        (Activation::Elu { alpha: 0.75 }, |x| 0.75 * x.exp_m1()),
    ];
    for (function, formula) in functions {
        for isa in Isa::available() {
            let mut y = x.clone();
            function.apply(isa, &mut y);
            for (x, y) in x.iter().zip(y) {
                let want = formula(f64::from(*x));
                let error = ((f64::from(y) - want) / want).abs();
                assert!(error < 1e-6, "{function:?} of {x} = {y}, not {want}");
            }
            let mut y = [0.0; 19];
            function.apply(isa, &mut y);
            assert_eq!(y, [0.0; 19], "{function:?} of 0 on {isa}");
        }
    }
}

#[test]
fn small_results_of_softplus_keep_their_digits() {
    let x: Vec<f32> = (1..=400).map(|i| i as f32 * -0.2).collect();
    for isa in Isa::available() {
        let mut y = x.clone();
        Activation::Softplus.apply(isa, &mut y);
        for (x, y) in x.iter().zip(y) {
            let want = f64::from(*x).exp().ln_1p();
            let error = (f64::from(y) - want).abs() / want;
            assert!(error < 1e-6, "softplus({x}) = {y}, not {want} on {isa}");
        }
    }
}

#[test]
fn small_numbers_keep_their_digits_in_tanh() {
    let x: Vec<f32> = (1..=400).map(|i| i as f32 * 1e-3).collect();
    for isa in Isa::available() {
        let mut y = x.clone();
        Activation::Tanh.apply(isa, &mut y);
        for (x, y) in x.iter().zip(y) {
            let want = f64::from(*x).tanh();
            let error = (f64::from(y) - want).abs() / want;
            assert!(error < 5e-7, "tanh({x}) = {y}, not {want}");
        }
    }
}

proptest! {
    #[test]
    fn channels_are_scaled_shifted_and_combined(
        n in 0..=33_usize, c in 1..=5_usize, area in 1..=20_usize, seed in any::<u64>(), clip in any::<bool>(),
    ) {
        let mut stream = Stream(seed);
        let (x, b) = (stream.floats(n * c * area), stream.floats(n * c));
        let (scale, shift) = (stream.floats(c), stream.floats(c));
        let clamp = if clip { Clamp::Clip { min: -0.25, max: 0.5 } } else { Clamp::None };
        let affine: Vec<f32> = x.iter().enumerate()
            .map(|(i, v)| clamp.apply(v * scale[i / area % c] + shift[i / area % c]))
            .collect();
        for isa in Isa::available() {
            let kernel = Affine::new(isa, scale.clone(), shift.clone(), area);
            let mut y = x.clone();
            kernel.run(Layout::Single, &mut y, n, clamp);
            assert_close(&y, &affine, 1e-6);
            let mut y = reference::to_tiles(&x, n, c * area);
            kernel.run(Layout::Tiled, &mut y, tiles(n), clamp);
            assert_close(&reference::from_tiles(&y, n, c * area), &affine, 1e-6);
            for (op, twin) in ARITHMETIC {
                let want: Vec<f32> = x.iter().enumerate().map(|(i, v)| clamp.apply(twin(*v, b[i / area]))).collect();
                let mut y = vec![f32::NAN; x.len()];
                per_channel(isa, Layout::Single, op, &x, &b, &mut y, area, clamp);
                assert_close(&y, &want, 0.0);
                let (x, b) = (reference::to_tiles(&x, n, c * area), reference::to_tiles(&b, n, c));
                let mut y = vec![f32::NAN; x.len()];
                per_channel(isa, Layout::Tiled, op, &x, &b, &mut y, area, clamp);
                assert_close(&reference::from_tiles(&y, n, c * area), &want, 0.0);
            }
        }
    }

    #[test]
    fn borders_surround_maps_and_parts_find_their_place(
        n in 0..=20_usize, c in 1..=3_usize, size in [1..=5_usize, 1..=5], pads in [0..=3_usize, 0..=3, 0..=3, 0..=3],
        more in [0..=4_usize, 0..=4], seed in any::<u64>(),
    ) {
        let [h, w] = size;
        let features = c * h * w;
        let x = Stream(seed).floats(n * features);
        let want = reference::pad(&x, size, pads, 0.5);
        let padded = c * (pads[0] + h + pads[2]) * (pads[1] + w + pads[3]);
        let mut y = vec![f32::NAN; want.len()];
        place::pad(Layout::Single, &x, &mut y, size, pads, 0.5);
        prop_assert_eq!(&y, &want);
        let x_tiles = reference::to_tiles(&x, n, features);
        let mut y = vec![f32::NAN; tiles(n) * padded * 16];
        place::pad(Layout::Tiled, &x_tiles, &mut y, size, pads, 0.5);
        prop_assert_eq!(&reference::from_tiles(&y, n, padded), &want);

        let total = more[0] + features + more[1];
        let inside = |i: usize| (i % total).checked_sub(more[0]).filter(|f| *f < features);
        let want: Vec<f32> = (0..n * total).map(|i| inside(i).map_or(7.0, |f| x[i / total * features + f])).collect();
        let mut y = vec![7.0; n * total];
        place::place(Layout::Single, &x, &mut y, features, more[0], total);
        prop_assert_eq!(&y, &want);
        let mut y = vec![7.0; tiles(n) * total * 16];
        place::place(Layout::Tiled, &x_tiles, &mut y, features, more[0], total);
        prop_assert_eq!(&reference::from_tiles(&y, n, total), &want);

        // Back out of it.
        let mut part = vec![f32::NAN; n * features];
        place::slice(Layout::Single, &want, &mut part, features, more[0], total);
        prop_assert_eq!(&part, &x);
        let mut part = vec![f32::NAN; x_tiles.len()];
        place::slice(Layout::Tiled, &y, &mut part, features, more[0], total);
        prop_assert_eq!(&reference::from_tiles(&part, n, features), &x);
    }

    #[test]
    fn tiles_hold_samples_and_zeros(n in 0..=50_usize, features in 1..=50_usize, seed in any::<u64>()) {
        let x = Stream(seed).floats(n * features);
        for isa in Isa::available() {
            let mut packed = vec![f32::NAN; tiles(n) * features * 16];
            pack_tiles(isa, &x, n, features, &mut packed);
            prop_assert_eq!(&packed, &reference::to_tiles(&x, n, features));
            let mut back = vec![f32::NAN; x.len()];
            unpack_tiles(isa, &packed, n, features, &mut back);
            prop_assert_eq!(&back, &x);
        }
    }

    #[test]
    fn only_features_that_are_read_need_a_place_in_tiles(n in 0..=50_usize, features in 1..=50_usize, seed in any::<u64>()) {
        let mut stream = Stream(seed);
        let x = stream.floats(n * features);
        let read: Vec<bool> = (0..features).map(|_| stream.unit() < 0.2).collect();
        let want = reference::to_tiles(&x, n, features);
        for isa in Isa::available() {
            let mut packed = vec![f32::NAN; want.len()];
            Pack::some(isa, &read).run(&x, n, &mut packed);
            for (i, (got, want)) in packed.chunks(16).zip(want.chunks(16)).enumerate() {
                let kept = got.iter().all(|v| v.is_nan());
                prop_assert!(got == want || kept && !read[i % features], "line {i}: {got:?}, {want:?}");
            }
        }
    }

    #[test]
    fn elements_are_clamped_and_added(x in activations(200, true), n in 0..=100_usize, min in -1.0..0.5_f32) {
        let (a, b) = (&x[..n], &x[100..100 + n]);
        for clamp in [Clamp::None, Clamp::Relu, Clamp::Clip { min, max: 0.75 }] {
            let want: Vec<f32> = a.iter().map(|v| clamp.apply(*v)).collect();
            let sums: Vec<f32> = a.iter().zip(b).map(|(a, b)| clamp.apply(a + b)).collect();
            for isa in Isa::available() {
                let mut y = a.to_vec();
                elementwise::clamp(isa, &mut y, clamp);
                assert_close(&y, &want, 0.0);
                for (op, twin) in ARITHMETIC {
                    let want: Vec<f32> = a.iter().zip(b).map(|(a, b)| clamp.apply(twin(*a, *b))).collect();
                    let mut y = vec![0.0; n];
                    elementwise::arithmetic(isa, op, a, b, &mut y, clamp);
                    assert_close(&y, &want, 0.0);
                }
                let mut y = a.to_vec();
                elementwise::add_assign(isa, &mut y, b, clamp);
                assert_close(&y, &sums, 0.0);
            }
        }
    }

    #[test]
    fn logarithms_of_probabilities_follow_their_formula(
        n in 1..=4_usize, size in 1..=20_usize, inner in 1..=20_usize, seed in any::<u64>(), scale in 0.0..2000.0_f32,
    ) {
        let x: Vec<f32> = Stream(seed).floats(n * size * inner).iter().map(|v| v * scale).collect();
        let mut want = vec![0.0; x.len()];
        for first in (0..x.len()).filter(|i| i / inner % size == 0) {
            let row: Vec<f32> = (0..size).map(|k| x[first + k * inner]).collect();
            for (k, y) in reference::log_softmax_of_row(&row).into_iter().enumerate() {
                want[first + k * inner] = y as f32;
            }
        }
        for isa in Isa::available() {
            let mut y = x.clone();
            elementwise::log_softmax_strided(isa, &mut y, size, inner);
            assert_close(&y, &want, 1e-6);
        }
    }

    #[test]
    fn softmax_gives_probabilities(n in 1..=20_usize, features in 1..=40_usize, seed in any::<u64>(), scale in 0.0..200.0_f32) {
        let x: Vec<f32> = Stream(seed).floats(n * features).iter().map(|v| v * scale).collect();
        let want = reference::softmax(&x, features);
        for isa in Isa::available() {
            let mut y = x.clone();
            elementwise::softmax(isa, Layout::Single, &mut y, features, n);
            assert_close(&y, &want, 1e-5);
            let mut y = reference::to_tiles(&x, n, features);
            elementwise::softmax(isa, Layout::Tiled, &mut y, features, tiles(n));
            assert_close(&reference::from_tiles(&y, n, features), &want, 1e-5);
        }
    }
}

#[test]
fn logarithms_of_probabilities_keep_far_scores_and_let_nan_through() {
    for isa in Isa::available() {
        // A probability of e^-300 is no f32, but its logarithm is.
        let mut y = [0.0, 300.0, f32::NEG_INFINITY, 1.0, f32::NAN, 2.0];
        elementwise::log_softmax_strided(isa, &mut y, 3, 1);
        assert_eq!(y[..3], [-300.0, 0.0, f32::NEG_INFINITY]);
        assert!(y[3..].iter().all(|v| v.is_nan()), "{y:?} on {isa}");
    }
}
