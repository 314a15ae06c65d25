//! Convolutions and pooling over spatial blocks, on every instruction set, against their slow twins.

use proptest::prelude::*;
use sparsevd_kernels::bands::{Band, Halo};
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::pool::Reduction;
use sparsevd_kernels::pool_blocks::{BlockPool, GlobalPool};
use sparsevd_kernels::reblock::{Reblock, Subsample, Unpack};
use sparsevd_kernels::{Buffer, Clamp, Isa};
use sparsevd_model::{Csr, Dense, Window};
use sparsevd_testing::arbitrary::{ConvCase, Stream, activations, convolution};
use sparsevd_testing::close::{assert_close, assert_close_or_nan};
use sparsevd_testing::reference;

/// Sums of up to a thousand products of numbers up to one.
const TOLERANCE: f32 = 5e-5;

/// Checks that threads that split one sample by lines compute the same bits as one thread.
macro_rules! check_bands {
    ($kernel:expr, $whole:expr, ($x:expr, $residual:expr, $clamp:expr)) => {{
        let (whole, x): (&[f32], &[f32]) = ($whole, $x);
        let residual: Option<&[f32]> = $residual;
        let mut y = Buffer::zeroed(whole.len());
        y.fill(f32::NAN);
        std::thread::scope(|scope| {
            let [first, rest] = Band::new(&$kernel, &mut y).split(1, 3);
            let [second, third] = rest.split(1, 2);
            for band in [third, first, second] {
                scope.spawn(move || band.run(x, residual, $clamp));
            }
        });
        std::thread::scope(|scope| {
            for halo in Halo::new(&$kernel, &mut y).split(1, 2) {
                scope.spawn(move || halo.run());
            }
        });
        let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(
            bits(&y) == bits(whole),
            "{y:?} by threads, {whole:?} by one"
        );
    }};
}

fn case(wild: bool) -> impl Strategy<Value = (ConvCase, Vec<f32>, usize, Clamp)> {
    let clamp = prop_oneof![
        Just(Clamp::None),
        Just(Clamp::Clip {
            min: -0.2,
            max: 0.4
        })
    ];
    (convolution(), 1..=2_usize, clamp).prop_flat_map(move |(case, n, clamp)| {
        let x = activations(n * case.input.iter().product::<usize>(), wild);
        (Just(case), x, Just(n), Just(clamp))
    })
}

/// `x` in blocks, with NaN in gaps, so that a kernel that reads a gap is noticed.
fn packed(isa: Isa, blocks: &Blocks, x: &[f32], n: usize) -> Buffer {
    let mut y = Buffer::zeroed(n * blocks.len());
    y.fill(f32::NAN);
    blocks.pack(isa, x, n, &mut y);
    y
}

/// Unpacks `y`, and checks that all that windows may read of it, halos and zeros around the map included, is as after packing.
fn unpacked(isa: Isa, blocks: &Blocks, y: &[f32], n: usize) -> Vec<f32> {
    let pixels: usize = blocks.map().iter().product();
    let mut plain = vec![f32::NAN; n * pixels];
    blocks.unpack(isa, y, n, &mut plain);
    let again = packed(isa, blocks, &plain, n);
    // Convolutions that shift the map by every distance that the halo allows.
    let [c, h, w] = blocks.map();
    let halo = blocks.halo();
    let side = |d: usize| halo[d] + halo[d + 2] + 1;
    let window = Window {
        kernel_shape: [side(0), side(1)],
        pads: halo,
        ..Window::square(1, 1)
    };
    let taps = side(0) * side(1);
    let output = blocks.with_halo([0; 4]);
    for tap in 0..taps {
        let mut filters = Dense::zeros([c, 1, side(0), side(1)]);
        (0..c).for_each(|channel| filters.values[channel * taps + tap] = 1.0);
        let csr = Csr::from_dense(&filters);
        let shape = [c, 1, side(0), side(1)];
        let conv =
            BlockConv::pack_channels(isa, &csr, shape, None, &window, c, [*blocks, output], 0..c);
        let [got, want] = [y, &again[..]].map(|x| {
            let mut moved = Buffer::zeroed(n * output.len());
            conv.run(x, &mut moved, n, Clamp::None);
            let mut plain = vec![0.0; n * c * h * w];
            output.unpack(isa, &moved, n, &mut plain);
            plain
        });
        assert_close(&got, &want, 0.0);
    }
    plain
}

fn check(isa: Isa, case: &ConvCase, x: &[f32], n: usize, clamp: Clamp, halo: [usize; 4]) {
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
    let &[out, inn, kh, kw] = filters.shape.dims() else {
        unreachable!()
    };
    let [oh, ow] = window.output(input[1], input[2]).expect("it fits");
    let csr = Csr::from_dense(filters);
    let to = Blocks::of_map([out, oh, ow]).with_halo(halo);
    let from = BlockConv::input(*input, window, &to);
    let (reached, sizes) = (reached(case, x), case.sizes(x));
    let (plain, x) = (x, packed(isa, &from, x, n));
    // Parts of the channels follow each other in each sample, and each channel has the same bits in any.
    let mut whole: Option<[Vec<u32>; 2]> = None;
    let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for cut in [0, out / 2] {
        let mut y = Buffer::zeroed(n * to.len());
        y.fill(f32::NAN);
        for part in [0..cut, cut..out] {
            let shape = [out, inn, kh, kw];
            let blocks = [from, to];
            let conv = BlockConv::pack_channels(
                isa,
                &csr,
                shape,
                Some(bias),
                window,
                *groups,
                blocks,
                part.clone(),
            );
            for sample in 0..n {
                let len = to.len() / out.max(1);
                let y = &mut y[sample * to.len()..][part.start * len..part.end * len];
                conv.run(&x[sample * from.len()..][..from.len()], y, 1, clamp);
            }
        }
        let sparse = unpacked(isa, &to, &y, n);
        assert_close_or_nan(&sparse, &want, &sizes, TOLERANCE);
        y.fill(f32::NAN);
        for part in [0..cut, cut..out] {
            let (bias, blocks) = (Some(&bias[..]), [from, to]);
            let conv = DenseBlockConv::pack_channels(
                isa,
                filters,
                bias,
                window,
                *groups,
                blocks,
                part.clone(),
            );
            for sample in 0..n {
                let len = to.len() / out.max(1);
                let y = &mut y[sample * to.len()..][part.start * len..part.end * len];
                conv.run(&x[sample * from.len()..][..from.len()], y, 1, clamp);
            }
        }
        let dense = unpacked(isa, &to, &y, n);
        check_dense(&dense, &want, &reached);
        if x.iter().all(|v| v.is_finite() || v.is_nan()) {
            let bits = [bits(&sparse), bits(&dense)];
            assert!(*whole.get_or_insert_with(|| bits.clone()) == bits, "{isa}");
        }
    }
    check_pooled(isa, case, [from, to], &x, [&want, &sizes], n, clamp);
    check_residual(isa, case, [from, to], [plain, &x], n, clamp);
    if inn == 1 {
        let mut y = Buffer::zeroed(n * to.len());
        y.fill(f32::NAN);
        let conv = Depthwise::pack(isa, filters, Some(bias), window, [from, to]);
        conv.run(&x, &mut y, n, clamp);
        let got = unpacked(isa, &to, &y, n);
        check_dense(&got, &want, &reached);
        check_bands!(conv, &y[..to.len()], (&x[..from.len()], None, clamp));
    }
}

/// Sparse and dense convolution with a residual.
fn check_residual(
    isa: Isa,
    case: &ConvCase,
    [from, to]: [Blocks; 2],
    [plain, x]: [&[f32]; 2],
    n: usize,
    clamp: Clamp,
) {
    let ConvCase {
        filters,
        bias,
        window,
        groups,
        input,
    } = case;
    let &[out, inn, kh, kw] = filters.shape.dims() else {
        unreachable!()
    };
    let sums = reference::conv(&filters.values, bias, plain, *input, window, *groups, |v| v);
    let reached = reached(case, plain);
    let residual = Stream(23).floats(sums.len());
    let want: Vec<f32> = sums
        .iter()
        .zip(&residual)
        .map(|(a, b)| clamp.apply(a + b))
        .collect();
    let residual = packed(isa, &to, &residual, n);
    let (csr, shape) = (Csr::from_dense(filters), [out, inn, kh, kw]);
    let (bias, blocks) = (Some(&bias[..]), [from, to]);
    let conv = BlockConv::pack_channels(isa, &csr, shape, bias, window, *groups, blocks, 0..out);
    let mut y = Buffer::zeroed(n * to.len());
    y.fill(f32::NAN);
    conv.run_onto(x, Some(&residual), &mut y, n, clamp);
    let sizes = case.sizes(plain);
    assert_close_or_nan(&unpacked(isa, &to, &y, n), &want, &sizes, TOLERANCE);
    let sample = (&x[..from.len()], Some(&residual[..to.len()]));
    check_bands!(conv, &y[..to.len()], (sample.0, sample.1, clamp));
    let conv = DenseBlockConv::pack_channels(isa, filters, bias, window, *groups, blocks, 0..out);
    y.fill(f32::NAN);
    conv.run_onto(x, Some(&residual), &mut y, n, clamp);
    check_dense(&unpacked(isa, &to, &y, n), &want, &reached);
    check_bands!(conv, &y[..to.len()], (sample.0, sample.1, clamp));
}

/// For each output of a convolution, whether its window holds a number that is not finite, under a zero weight too.
fn reached(case: &ConvCase, x: &[f32]) -> Vec<bool> {
    let ones = vec![1.0; case.filters.values.len()];
    let bias = vec![0.0; case.bias.len()];
    let x: Vec<f32> = x.iter().map(|v| f32::from(!v.is_finite())).collect();
    let count = |n: f32| n;
    let counts = reference::conv(
        &ones,
        &bias,
        &x,
        case.input,
        &case.window,
        case.groups,
        count,
    );
    counts.into_iter().map(|n| n > 0.0).collect()
}

/// A dense kernel also multiplies zero weights, which gives NaN where the input is not finite, and only there.
fn check_dense(got: &[f32], want: &[f32], reached: &[bool]) {
    assert_eq!((got.len(), want.len()), (reached.len(), reached.len()));
    for ((got, want), reached) in got.iter().zip(want).zip(reached) {
        if !reached || want.is_finite() && !got.is_nan() {
            assert_close(&[*got], &[*want], TOLERANCE);
        }
    }
}

/// The convolution with fused pooling, where that is possible; `plain` are the values before pooling, and their sizes.
fn check_pooled(
    isa: Isa,
    case: &ConvCase,
    [from, to]: [Blocks; 2],
    x: &[f32],
    plain: [&[f32]; 2],
    n: usize,
    clamp: Clamp,
) {
    let ConvCase {
        filters,
        bias,
        window,
        groups,
        ..
    } = case;
    let &[out, inn, kh, kw] = filters.shape.dims() else {
        unreachable!()
    };
    let pairs = Window::square(2, 2);
    let Some(pooled) = BlockPool::output(&pairs, &to) else {
        return;
    };
    let pooled = pooled.with_halo([1; 4]);
    let (csr, shape) = (Csr::from_dense(filters), [out, inn, kh, kw]);
    let bias = Some(&bias[..]);
    let blocks = [from, to];
    let conv = BlockConv::pack_channels(isa, &csr, shape, bias, window, *groups, blocks, 0..out);
    let Some(conv) = conv.pooled(pooled) else {
        return;
    };
    let mut y = Buffer::zeroed(n * pooled.len());
    y.fill(f32::NAN);
    conv.run(x, &mut y, n, clamp);
    let [_, h, w] = to.map();
    let largest = |p: &[f32]| {
        let nan = p.iter().copied().find(|v| v.is_nan());
        nan.unwrap_or_else(|| p.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    };
    let [want, sizes] = plain.map(|map| reference::pool(map, [h, w], &pairs, largest));
    assert_close_or_nan(&unpacked(isa, &pooled, &y, n), &want, &sizes, TOLERANCE);
    check_bands!(conv, &y[..pooled.len()], (&x[..from.len()], None, clamp));
}

proptest! {
    #[test]
    fn convolutions_agree_with_plain_loops(
        (case, x, n, clamp) in case(false), halo in [0..=3_usize, 0..=3, 0..=3, 0..=3],
    ) {
        for isa in Isa::available() {
            check(isa, &case, &x, n, clamp, halo);
        }
    }

    #[test]
    fn nan_and_infinity_stay_in_the_pixels_that_read_them((case, x, n, clamp) in case(true)) {
        for isa in Isa::available() {
            check(isa, &case, &x, n, clamp, [1; 4]);
        }
    }

    #[test]
    fn pooling_agrees_with_plain_loops(
        (kernel, stride) in ([1..=3_usize, 1..=3], [1..=3_usize, 1..=3]),
        (n, c, block) in (1..=2_usize, 1..=3_usize, [1..=4_usize, 1..=5]),
        (pad, short) in ([0..=2_usize, 0..=2, 0..=2, 0..=2], [0..=3_usize, 0..=3]),
        (halo, seed) in (0..=2_usize, any::<u64>()),
    ) {
        // Padding less than the window, so that no window sees padding alone.
        let pads = std::array::from_fn(|i| pad[i].min(kernel[i % 2] - 1));
        let window = Window { kernel_shape: kernel, strides: stride, pads, ..Window::square(1, 1) };
        let [h, w] = [0, 1].map(|d| (4 * block[d] * stride[d]).saturating_sub(short[d]).max(1));
        prop_assume!(window.output(h, w).is_some());
        let [oh, ow] = window.output(h, w).expect("it fits");
        let x = Stream(seed).floats(n * c * h * w);
        let max = |p: &[f32]| p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mean = |p: &[f32]| p.iter().sum::<f32>() / p.len() as f32;
        let from = Blocks::of_map([c, h, w]).with_halo(Blocks::halo_of(&window));
        let to = BlockPool::output(&window, &from);
        prop_assume!(to.is_some());
        let to = to.expect("some").with_halo([halo; 4]);
        for isa in Isa::available() {
            for (reduction, want) in [
                (Reduction::Max, reference::pool(&x, [h, w], &window, max)),
                (Reduction::Average, reference::pool(&x, [h, w], &window, mean)),
            ] {
                let pool = BlockPool::new(isa, reduction, &window, [from, to]);
                let (x, mut y) = (packed(isa, &from, &x, n), Buffer::zeroed(n * to.len()));
                y.fill(f32::NAN);
                pool.run(&x, &mut y, n);
                prop_assert_eq!(want.len(), n * c * oh * ow);
                assert_close(&unpacked(isa, &to, &y, n), &want, TOLERANCE);
                check_bands!(pool, &y[..to.len()], (&x[..from.len()], None, Clamp::None));
            }
        }
    }

    #[test]
    fn the_mean_of_maps_agrees_with_plain_loops(
        map in (1..=3_usize, 1..=20_usize, 1..=20_usize), n in 1..=2_usize, halo in 0..=2_usize,
    ) {
        let [c, h, w] = [map.0, map.1, map.2];
        let x = Stream(7).floats(n * c * h * w);
        // Only negative numbers show that what lies outside of the map is no part of a maximum.
        let x: Vec<f32> = x.into_iter().map(|v| v - 2.0).collect();
        let mean = |m: &[f32]| m.iter().sum::<f32>() / (h * w) as f32;
        let max = |m: &[f32]| m.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let want: [Vec<f32>; 2] = [x.chunks_exact(h * w).map(mean).collect(), x.chunks_exact(h * w).map(max).collect()];
        let blocks = Blocks::of_map([c, h, w]).with_halo([halo; 4]);
        for isa in Isa::available() {
            let mut packed = packed(isa, &blocks, &x, n);
            // Blocks that lie wholly outside of the map may hold anything.
            let ones = self::packed(isa, &Blocks::of_map([c, h, w]), &vec![1.0; c * h * w], 1);
            let lived = |lane: usize| ones.chunks_exact(16).any(|line| line[lane] == 1.0);
            let dead: Vec<usize> = (0..16).filter(|&l| !lived(l)).collect();
            for line in packed.chunks_exact_mut(16) {
                dead.iter().for_each(|&l| line[l] = f32::NAN);
            }
            for (reduction, want) in [Reduction::Average, Reduction::Max].into_iter().zip(&want) {
                let mut y = vec![f32::NAN; n * c];
                GlobalPool::new(isa, reduction, blocks).run(&packed, n, &mut y);
                assert_close(&y, want, TOLERANCE);
            }
        }
    }

    #[test]
    fn subsampling_agrees_with_plain_loops(
        map in (1..=5_usize, 1..=30_usize, 1..=30_usize), strides in [1..=3_usize, 1..=3], n in 1..=2_usize, halo in 0..=2_usize,
    ) {
        let [c, h, w] = [map.0, map.1, map.2];
        let x = Stream(9).floats(n * c * h * w);
        let fewer = [c, h.div_ceil(strides[0]), w.div_ceil(strides[1])];
        let window = Window { strides, ..Window::square(1, 1) };
        let picked = reference::pool(&x, [h, w], &window, |p| p[0]);
        let from = Blocks::of_map([c, h, w]).with_halo([halo; 4]);
        for to in [Blocks::of_map(fewer), from.alike(fewer).with_halo([1, 0, 2, 1])] {
            for isa in Isa::available() {
                let [mut got, mut want] = [(); 2].map(|()| Buffer::zeroed(n * to.len()));
                Subsample::new(isa, from, to, strides).run(&packed(isa, &from, &x, n), n, &mut got);
                to.pack(isa, &picked, n, &mut want);
                assert_close(&got, &want, 0.0);
            }
        }
    }

    #[test]
    fn maps_come_back_as_they_went_in(map in (1..=3_usize, prop_oneof![Just(4), 1..=40_usize], prop_oneof![Just(4), 1..=40_usize]), n in 1..=2_usize, halo in 0..=3_usize) {
        let map = [map.0, map.1, map.2];
        let x = Stream(5).floats(n * map.iter().product::<usize>());
        for isa in Isa::available() {
            let blocks = Blocks::of_map(map).with_halo([halo; 4]);
            let y = packed(isa, &blocks, &x, n);
            assert_close(&unpacked(isa, &blocks, &y, n), &x, 0.0);
            let mut plain = vec![f32::NAN; x.len()];
            Unpack::new(isa, blocks).run(&y, n, &mut plain);
            assert_close(&plain, &x, 0.0);
            prop_assert!(!blocks.is_plain() || y[..] == x[..]);
            // To the blocks that a window without padding reads.
            let [c, h, w] = map;
            let window = Window::square(1 + h.min(w) / 3, 1);
            let under = Blocks::of_map([c, h - window.kernel_shape[0] + 1, w - window.kernel_shape[1] + 1]);
            for to in [blocks.with_halo([1, 2, 3, 4]), BlockConv::input(map, &window, &under)] {
                if !blocks.regroups(&to) { continue }
                let reblock = Reblock::new(isa, blocks, to);
                let mut scratch = vec![f32::NAN; reblock.scratch_len()];
                let [mut got, mut want] = [(); 2].map(|()| Buffer::zeroed(n * to.len()));
                reblock.run(&y, n, &mut got, &mut scratch);
                to.pack(isa, &x, n, &mut want);
                assert_close(&got, &want, 0.0);
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
        ([24, 90, 3, 3], 7, 1, 1, 1),
        ([24, 16, 3, 3], 28, 2, 1, 1),
        ([8, 3, 7, 7], 64, 2, 3, 1),
        ([16, 1, 3, 3], 14, 1, 1, 16),
        ([16, 1, 3, 3], 112, 2, 1, 16),
        ([32, 24, 1, 1], 9, 1, 0, 1),
        ([32, 24, 1, 1], 56, 2, 0, 1),
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
                check(isa, &case, &x, 2, Clamp::Relu, [1; 4]);
            }
        }
    }
}

#[test]
fn lanes_may_be_samples() {
    for isa in Isa::available() {
        for (shape, side) in [([20, 1, 5, 5], 28), ([7, 20, 5, 5], 12), ([5, 3, 2, 3], 9)] {
            let mut stream = Stream(4);
            let filters = stream.bernoulli(shape, 0.03);
            let (bias, input) = (stream.floats(shape[0]), [shape[1], side, side]);
            let window = Window {
                kernel_shape: [shape[2], shape[3]],
                ..Window::square(1, 1)
            };
            let [oh, ow] = window.output(side, side).expect("it fits");
            let x = stream.floats(16 * input.iter().product::<usize>());
            let plain = reference::conv(&filters.values, &bias, &x, input, &window, 1, |v| {
                v.max(0.0)
            });
            let x = Buffer::from(&reference::to_tiles(&x, 16, x.len() / 16)[..]);
            let blocks = [Blocks::of_tile(input), Blocks::of_tile([shape[0], oh, ow])];
            let csr = Csr::from_dense(&filters);
            let conv = BlockConv::pack_channels(
                isa,
                &csr,
                shape,
                Some(&bias),
                &window,
                1,
                blocks,
                0..shape[0],
            );
            assert_eq!(conv.samples(), 16);
            let mut y = vec![f32::NAN; plain.len()];
            conv.run(&x, &mut y, 1, Clamp::Relu);
            assert_close(
                &reference::from_tiles(&y, 16, y.len() / 16),
                &plain,
                TOLERANCE,
            );
            let pairs = Window::square(2, 2);
            let Some(pooled) = BlockPool::output(&pairs, &blocks[1]) else {
                assert!(!oh.is_multiple_of(2) || !ow.is_multiple_of(2), "{oh}x{ow}");
                continue;
            };
            let conv = conv.pooled(pooled).expect("one block of channels");
            let max = |p: &[f32]| p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let want = reference::pool(&plain, [oh, ow], &pairs, max);
            let mut y = vec![f32::NAN; want.len()];
            conv.run(&x, &mut y, 1, Clamp::Relu);
            assert_close(
                &reference::from_tiles(&y, 16, y.len() / 16),
                &want,
                TOLERANCE,
            );
        }
    }
}

#[test]
fn pooling_follows_the_lanes_of_a_chain() {
    let window = Window::square(2, 2);
    let mut blocks = Blocks::of_map([4, 32, 32]);
    for side in [16, 8, 4] {
        blocks = BlockPool::output(&window, &blocks).expect("blocks of an even side");
        assert_eq!(blocks.map(), [4, side, side]);
    }
    let padded = Window {
        pads: [1; 4],
        ..Window::square(3, 2)
    };
    let map = Blocks::of_map([1, 32, 32]);
    assert_eq!(BlockPool::output(&padded, &map), None, "no halo");
    let wide = map.with_halo(Blocks::halo_of(&padded));
    let pooled = BlockPool::output(&padded, &wide).expect("blocks with a halo");
    assert_eq!(pooled.map(), [1, 16, 16]);
}

/// A convolution may write the blocks that windows in wide padding read: its bias stays inside of the map.
#[test]
fn outputs_have_zeros_outside_of_the_map_where_windows_read_them() {
    let wide = Window {
        pads: [0, 0, 1, 1],
        ..Window::square(1, 1)
    };
    let (map, padded) = ([1, 9, 9], Blocks::of_map([1, 10, 10]));
    let one = |value| Csr::from_dense(&Dense::new([1, 1, 1, 1], vec![value]));
    let between = BlockConv::input(map, &wide, &padded);
    let (shape, plain) = ([1, 1, 1, 1], Window::square(1, 1));
    let from = BlockConv::input(map, &plain, &between);
    for isa in Isa::available() {
        let pack = |weight, bias: f32, window, blocks| {
            BlockConv::pack_channels(
                isa,
                &one(weight),
                shape,
                Some(&[bias]),
                window,
                1,
                blocks,
                0..1,
            )
        };
        let first = pack(1.0, 2.0, &plain, [from, between]);
        let second = pack(1.0, 0.0, &wide, [between, padded]);
        let x = packed(isa, &from, &[1.0; 81], 1);
        let [mut y, mut z] = [between, padded].map(|b| Buffer::zeroed(b.len()));
        y.fill(f32::NAN);
        first.run(&x, &mut y, 1, Clamp::None);
        second.run(&y, &mut z, 1, Clamp::None);
        let mut got = vec![f32::NAN; 100];
        padded.unpack(isa, &z, 1, &mut got);
        let is_inside = |i: usize| i / 10 < 9 && i % 10 < 9;
        let want: Vec<f32> = (0..100)
            .map(|i| if is_inside(i) { 3.0 } else { 0.0 })
            .collect();
        assert_eq!(got, want, "{isa}");
    }
}
