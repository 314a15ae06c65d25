//! Maps of bytes in blocks: pooled, and in other blocks.

use sparsevd_kernels::Isa;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::int8::{Dot, MaxPool, Quantize, ReblockBytes};
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_model::{Int8Grid, Window};
use sparsevd_testing::arbitrary::Stream;

/// Pooling bytes gives the bytes of pooled floats, halos included.
#[test]
fn maps_of_bytes_are_pooled() {
    let mut stream = Stream(12);
    let isa = Isa::best();
    let windows = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 1, 2)];
    // Halos of the many channels are made some at a time.
    for ([c, h, w], zero_point) in [
        ([3, 28, 28], 0),
        ([3, 12, 33], 0),
        ([67, 28, 28], 90),
        ([3, 8, 16], 255),
    ] {
        let grid = Int8Grid {
            scale: 0.25,
            zero_point,
        };
        let n = 2;
        let x: Vec<f32> = stream.floats(n * c * h * w);
        let bytes = |dot, blocks: Blocks, plain: &[f32]| {
            let mut floats = vec![0.0; n * blocks.len()];
            blocks.pack(isa, plain, n, &mut floats);
            let mut y = vec![f32::NAN; n * blocks.byte_len()];
            Quantize::new(dot, blocks, grid.into()).run(&floats, n, &mut y);
            y
        };
        for (side, stride, pad) in windows {
            let window = Window {
                pads: [pad; 4],
                ..Window::square(side, stride)
            };
            let from = Blocks::of_map([c, h, w]).with_halo([2; 4]);
            let Some(to) = BlockPool::output(&window, &from) else {
                continue;
            };
            let to = to.with_halo([1, 0, 2, 1]);
            let [_, oh, ow] = to.map();
            let pixel = |i: usize| {
                let (map, y, x_) = (i / (oh * ow), i / ow % oh, i % ow);
                let taps = (0..side * side).filter_map(|t| {
                    let y = (y * stride + t / side)
                        .checked_sub(pad)
                        .filter(|y| *y < h)?;
                    let x_ = (x_ * stride + t % side)
                        .checked_sub(pad)
                        .filter(|x| *x < w)?;
                    Some(x[map * h * w + y * w + x_])
                });
                taps.fold(f32::NEG_INFINITY, f32::max)
            };
            let want: Vec<f32> = (0..n * c * oh * ow).map(pixel).collect();
            for dot in Dot::available() {
                let x = bytes(dot, from, &x);
                let mut y = vec![f32::NAN; n * to.byte_len()];
                MaxPool::new((isa, dot), &window, [from, to], grid.into()).run(&x, &mut y, n);
                // All lines of a channel, but a gap behind them.
                let [above, left, below, right] = to.halo();
                let [rows, columns] = to.block();
                let lines = (above + rows + below) * (left + columns + right);
                let lines = |y: &[f32]| -> Vec<u32> {
                    let channels = y.chunks(to.byte_len() / c);
                    let lines = channels.flat_map(|channel| &channel[..lines * 4]);
                    lines.map(|v| v.to_bits()).collect()
                };
                let want = bytes(dot, to, &want);
                assert!(lines(&y) == lines(&want), "{dot}: {h}x{w} {window:?}");
            }
        }
    }
}

/// Maps of bytes in other blocks, and one pixel of several, are those of floats.
#[test]
fn maps_of_bytes_are_regrouped_and_subsampled() {
    let mut stream = Stream(11);
    let isa = Isa::best();
    let grid = Int8Grid {
        scale: 0.25,
        zero_point: 77,
    };
    for [h, w] in [[28, 28], [7, 9], [1, 5], [16, 33]] {
        let (c, n) = (3, 2);
        let x: Vec<f32> = stream.floats(n * c * h * w);
        let bytes = |dot, blocks: Blocks, plain: &[f32]| {
            let mut floats = vec![0.0; n * blocks.len()];
            blocks.pack(isa, plain, n, &mut floats);
            let mut y = vec![f32::NAN; n * blocks.byte_len()];
            Quantize::new(dot, blocks, grid.into()).run(&floats, n, &mut y);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        for strides in [[1, 1], [2, 2], [2, 1], [3, 2]] {
            let [oh, ow] = [h.div_ceil(strides[0]), w.div_ceil(strides[1])];
            let sampled: Vec<f32> = (0..n * c * oh * ow)
                .map(|i| {
                    let (map, y, x_) = (i / (oh * ow), i / ow % oh, i % ow);
                    x[map * h * w + y * strides[0] * w + x_ * strides[1]]
                })
                .collect();
            let from = Blocks::of_map([c, h, w]).with_halo([1, 0, 2, 1]);
            let to = Blocks::of_map([c, oh, ow]).with_halo([1, 2, 0, 1]);
            for dot in Dot::available() {
                let x: Vec<f32> = bytes(dot, from, &x)
                    .into_iter()
                    .map(f32::from_bits)
                    .collect();
                let mut y = vec![f32::NAN; n * to.byte_len()];
                ReblockBytes::new(dot, [from, to], strides, grid.into()).run(&x, n, &mut y);
                let got: Vec<u32> = y.into_iter().map(f32::to_bits).collect();
                assert!(
                    got == bytes(dot, to, &sampled),
                    "{dot}: {h}x{w} by {strides:?}"
                );
            }
        }
    }
}
