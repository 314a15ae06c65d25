//! Convolutions and pooling over single samples and tiles, on every instruction set, against their slow twins.

use std::ops::Range;

use proptest::prelude::*;
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::dense::Conv;
use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::{Buffer, Clamp, Isa, LANES, Layout, tiles};
use sparsevd_model::{Csr, Window};
use sparsevd_testing::arbitrary::{ConvCase, Stream, activations, convolution};
use sparsevd_testing::close::{assert_close, assert_close_or_nan};
use sparsevd_testing::reference;

/// Sums of up to a thousand products of numbers up to one.
const TOLERANCE: f32 = 5e-5;

fn case(wild: bool) -> impl Strategy<Value = (ConvCase, Vec<f32>, usize, Clamp)> {
    let clamp = prop_oneof![
        Just(Clamp::None),
        Just(Clamp::Clip {
            min: -0.2,
            max: 0.4
        })
    ];
    (convolution(), 1..=3_usize, clamp).prop_flat_map(move |(case, n, clamp)| {
        let x = activations(n * case.input.iter().product::<usize>(), wild);
        (Just(case), x, Just(n), Just(clamp))
    })
}

fn check_sparse(isa: Isa, case: &ConvCase, x: &[f32], n: usize, clamp: Clamp) {
    let ConvCase {
        filters,
        bias,
        window,
        groups,
        input,
    } = case;
    let want = reference::conv(&filters.values, bias, x, *input, window, *groups, |v| {
        clamp.apply(v)
    });
    let sizes = case.sizes(x);
    let &[out, inn, kh, kw] = filters.shape.dims() else {
        unreachable!()
    };
    let csr = Csr::from_dense(filters);
    let (bias, shape) = (Some(&bias[..]), [out, inn, kh, kw]);
    let conv = SparseConv::pack(isa, &csr, shape, bias, window, *groups, *input);
    let (x_len, y_len) = (input.iter().product(), conv.output().iter().product());
    let mut scratch = Buffer::zeroed(conv.scratch_len());
    scratch.fill(f32::NAN);
    let tiled = Buffer::from(&reference::to_tiles(x, n, x_len)[..]);
    let mut y = Buffer::zeroed(tiles(n) * y_len * 16);
    conv.run(&tiled, &mut y, tiles(n), &mut scratch, clamp);
    assert_close_or_nan(
        &reference::from_tiles(&y, n, y_len),
        &want,
        &sizes,
        TOLERANCE,
    );
    if !RowConv::takes(window) {
        return;
    }
    let conv = RowConv::pack_channels(isa, &csr, shape, bias, window, *groups, *input, 0..out);
    let mut scratch = vec![f32::NAN; conv.scratch_len()];
    let mut y = vec![f32::NAN; want.len()];
    conv.run(x, &mut y, n, &mut scratch, clamp);
    assert_close_or_nan(&y, &want, &sizes, TOLERANCE);
    let [_, oh, ow] = conv.output();
    if oh < 2 || ow < 2 {
        return;
    }
    let largest = |p: &[f32]| {
        let nan = p.iter().copied().find(|v| v.is_nan());
        nan.unwrap_or_else(|| p.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    };
    let [want, sizes] =
        [want, sizes].map(|map| reference::pool(&map, [oh, ow], &Window::square(2, 2), largest));
    let conv = conv.pooled();
    let mut scratch = vec![f32::NAN; conv.scratch_len()];
    let mut y = vec![f32::NAN; want.len()];
    conv.run(x, &mut y, n, &mut scratch, clamp);
    assert_close_or_nan(&y, &want, &sizes, TOLERANCE);
}

proptest! {
    #[test]
    fn sparse_convolutions_agree_with_plain_loops((case, x, n, clamp) in case(false)) {
        for isa in Isa::available() {
            check_sparse(isa, &case, &x, n, clamp);
        }
    }

    #[test]
    fn nan_and_infinity_stay_in_the_pixels_that_read_them((case, x, n, clamp) in case(true)) {
        for isa in Isa::available() {
            check_sparse(isa, &case, &x, n, clamp);
        }
    }

    #[test]
    fn dense_convolutions_agree_with_plain_loops((case, x, n, clamp) in case(false)) {
        let ConvCase { filters, bias, window, groups, input } = &case;
        let want = reference::conv(&filters.values, bias, &x, *input, window, *groups, |v| clamp.apply(v));
        for isa in Isa::available() {
            let conv = Conv::pack(isa, filters, Some(bias), window, *groups, *input);
            let mut scratch = vec![f32::NAN; conv.scratch_len()];
            let mut y = vec![f32::NAN; want.len()];
            conv.run(&x, &mut y, n, &mut scratch, clamp);
            assert_close(&y, &want, TOLERANCE);
        }
    }

    #[test]
    fn channels_have_the_same_bits_in_any_part((case, x, n, clamp) in case(false), cut in 0.0..1.0_f64) {
        let ConvCase { filters, bias, window, groups, input } = &case;
        let x = &x[..x.len() / n];
        let want = reference::conv(&filters.values, bias, x, *input, window, *groups, |v| clamp.apply(v));
        let &[out, inn, kh, kw] = filters.shape.dims() else { unreachable!() };
        let (csr, cut) = (Csr::from_dense(filters), (cut * out as f64) as usize);
        let shape = [out, inn, kh, kw];
        let tile = Buffer::from(&reference::to_tiles(x, 1, x.len())[..]);
        for isa in Isa::available() {
            let over_tiles = |part: Range<usize>| {
                let conv = SparseConv::pack_channels(
                    isa, &csr, shape, Some(bias), window, *groups, *input, part,
                );
                let mut scratch = vec![f32::NAN; conv.scratch_len()];
                let mut y = vec![f32::NAN; conv.output().iter().product::<usize>() * LANES];
                conv.run(&tile, &mut y, 1, &mut scratch, clamp);
                y.into_iter().step_by(LANES).collect::<Vec<f32>>()
            };
            let over_rows = |part: Range<usize>| {
                let conv = RowConv::pack_channels(
                    isa, &csr, shape, Some(bias), window, *groups, *input, part,
                );
                let mut scratch = vec![f32::NAN; conv.scratch_len()];
                let mut y = vec![f32::NAN; conv.output().iter().product()];
                conv.run(x, &mut y, 1, &mut scratch, clamp);
                y
            };
            let kernels: [&dyn Fn(Range<usize>) -> Vec<f32>; 2] = [&over_tiles, &over_rows];
            for run in &kernels[..1 + usize::from(RowConv::takes(window))] {
                let whole = run(0..out);
                assert_close(&whole, &want, TOLERANCE);
                let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits([run(0..cut), run(cut..out)].concat()), bits(whole), "{isa}");
            }
        }
    }

    #[test]
    fn pooling_agrees_with_plain_loops(
        (kernel, stride, pad) in (1..=4_usize, 1..=3_usize, 0..=1_usize),
        (n, c, h, w) in (1..=18_usize, 1..=3_usize, 4..=19_usize, 4..=19_usize),
        seed in any::<u64>(),
    ) {
        let pad = pad.min(kernel - 1);
        let window = Window { pads: [pad; 4], ..Window::square(kernel, stride) };
        let x = Stream(seed).floats(n * c * h * w);
        let max = |p: &[f32]| p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mean = |p: &[f32]| p.iter().sum::<f32>() / p.len() as f32;
        let global = Window { kernel_shape: [h, w], ..Window::square(1, 1) };
        for isa in Isa::available() {
            for layout in [Layout::Single, Layout::Tiled] {
                let pools = [
                    (Pool::new(isa, Reduction::Max, layout, &window, [c, h, w]), reference::pool(&x, [h, w], &window, max)),
                    (Pool::new(isa, Reduction::Average, layout, &window, [c, h, w]), reference::pool(&x, [h, w], &window, mean)),
                    (Pool::global(isa, Reduction::Average, layout, [c, h, w]), reference::pool(&x, [h, w], &global, mean)),
                    (Pool::global(isa, Reduction::Max, layout, [c, h, w]), reference::pool(&x, [h, w], &global, max)),
                ];
                for (pool, want) in pools {
                    let y_len: usize = pool.output().iter().product();
                    let got = match layout {
                        Layout::Tiled => {
                            let mut y = vec![f32::NAN; tiles(n) * y_len * 16];
                            pool.run(&reference::to_tiles(&x, n, c * h * w), &mut y, tiles(n));
                            reference::from_tiles(&y, n, y_len)
                        }
                        _ => {
                            let mut y = vec![f32::NAN; n * y_len];
                            pool.run(&x, &mut y, n);
                            y
                        }
                    };
                    assert_close(&got, &want, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn convolutions_of_real_networks_agree_with_plain_loops() {
    let shapes = [
        ([20, 1, 5, 5], 28, 1, 0, 1),
        ([50, 20, 5, 5], 12, 1, 0, 1),
        ([24, 16, 3, 3], 56, 1, 1, 1),
        ([24, 70, 3, 3], 14, 1, 1, 1),
        ([24, 16, 3, 3], 7, 1, 1, 1),
        ([24, 16, 3, 3], 28, 2, 1, 1),
        ([16, 1, 3, 3], 14, 1, 1, 16),
        ([32, 24, 1, 1], 9, 1, 0, 1),
    ];
    for isa in Isa::available() {
        for (shape, side, stride, pad, groups) in shapes {
            for density in [0.03, 0.2, 1.0] {
                let mut stream = Stream(11);
                let case = ConvCase {
                    filters: stream.bernoulli(shape, density),
                    bias: stream.floats(shape[0]),
                    window: Window {
                        pads: [pad; 4],
                        ..Window::square(shape[2], stride)
                    },
                    groups,
                    input: [shape[1] * groups, side, side],
                };
                let x = stream.floats(2 * case.input.iter().product::<usize>());
                check_sparse(isa, &case, &x, 2, Clamp::Relu);
            }
        }
    }
}

#[test]
fn the_largest_pixel_is_nan_where_one_is() {
    let mut x = vec![0.0; 16];
    (x[5], x[8], x[3]) = (f32::NAN, 1.0, f32::NAN);
    for isa in Isa::available() {
        let mut y = [0.0; 4];
        let pool = Pool::new(
            isa,
            Reduction::Max,
            Layout::Single,
            &Window::square(2, 2),
            [1, 4, 4],
        );
        pool.run(&x, &mut y, 1);
        assert_close(&y, &[f32::NAN, f32::NAN, 1.0, 0.0], 0.0);
    }
}
