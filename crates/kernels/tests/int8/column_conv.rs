//! Dense convolutions over blocks: depthwise ones, and of few channels.

use proptest::prelude::*;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::int8::{ColumnConv, Dequantize, Dot, Quantization, Quantize};
use sparsevd_kernels::kernel::InputSplit;
use sparsevd_kernels::{Clamp, Isa};
use sparsevd_model::{Dense, Int8Grid, Window};
use sparsevd_testing::arbitrary::{ConvCase, Stream};

use crate::filters::{Filters, any_filters, in_blocks};
use crate::support::any_clamp;

/// Levels with many extremes.
fn levels(stream: &mut Stream, count: usize) -> Vec<f32> {
    let level = |stream: &mut Stream| match stream.bits() % 4 {
        0 => -128.0,
        1 => 127.0,
        _ => f32::from(stream.bits() as i8),
    };
    (0..count).map(|_| level(stream)).collect()
}

/// The same window over the same input, of which each filter reads all channels, or each channel has filters of its own.
fn with_filters(filters: Filters, out: usize, split: InputSplit, seed: u64) -> Filters {
    let channels = filters.case.input[0];
    let [kh, kw] = filters.case.window.kernel_shape;
    let (inputs, groups, out) = match split {
        InputSplit::Whole => (channels, 1, out),
        InputSplit::Channels => (1, channels, out * channels),
    };
    let values = levels(&mut Stream(seed | 1), out * inputs * kh * kw);
    Filters {
        scale: (0..out).map(|i| 0.002 * (i + 1) as f32).collect(),
        case: ConvCase {
            filters: Dense::new([out, inputs, kh, kw], values),
            bias: (0..out).map(|i| i as f32 - 2.5).collect(),
            groups,
            ..filters.case
        },
        ..filters
    }
}

/// With every instruction set, to floats and to bytes of a grid.
fn check(filters: &Filters, clamp: Clamp, writes: Int8Grid) {
    let Filters { case, grid, n, .. } = filters;
    let halo = if n % 2 == 0 { [0; 4] } else { [1, 0, 0, 2] };
    let to = Blocks::of_map(filters.map()).with_halo(halo);
    let from = BlockConv::input(case.input, &case.window, &to);
    // As where another convolution reads more of it.
    let wide = from.halo().map(|lines| lines + n % 3);
    let from = from.with_halo(wide);
    let split = match case.groups {
        1 => InputSplit::Whole,
        _ => InputSplit::Channels,
    };
    let quantization = Quantization {
        zero_point: grid.zero_point,
        scale: &filters.scale,
        offset: &case.bias,
    };
    let want: Vec<f32> = filters.plain().iter().map(|v| clamp.apply(*v)).collect();
    for dot in Dot::available() {
        let mut all = Isa::available().into_iter();
        let isa = all.rfind(|isa| isa.level() <= dot.level()).expect("scalar");
        let mut floats = vec![0.0; n * from.len()];
        from.pack(isa, &filters.x, *n, &mut floats);
        let mut x = vec![f32::NAN; n * from.byte_len()];
        Quantize::new(dot, from, (*grid).into()).run(&floats, *n, &mut x);
        let conv = ColumnConv::pack(
            (isa, dot),
            &case.filters,
            quantization,
            &case.window,
            split,
            [from, to],
        );
        let mut scratch = vec![f32::NAN; conv.scratch_len()];
        let mut y = vec![f32::NAN; n * conv.output_len()];
        conv.run(&x, &mut y, *n, &mut scratch, clamp);
        in_blocks(&y, &want, (to, *n), dot);

        let conv = conv.writing_bytes(writes.into());
        let mut bytes = vec![f32::NAN; n * conv.output_len() + 16];
        let (written, behind) = bytes.split_at_mut(n * conv.output_len());
        conv.run(&x, written, *n, &mut scratch, clamp);
        assert!(behind.iter().all(|v| v.is_nan()), "{dot}: past the end");
        Dequantize::new(dot, to, writes.into()).run(written, *n, &mut y);
        let want: Vec<f32> = want.iter().map(|&v| writes.value(writes.byte(v))).collect();
        in_blocks(&y, &want, (to, *n), dot);
    }
}

proptest! {
    #[test]
    fn dense_convolutions_are_those_of_plain_loops(
        filters in any_filters(),
        each in 1..=3_usize,
        seed: u64,
        clamp in any_clamp(),
        zero_point: u8,
    ) {
        let writes = Int8Grid { scale: 0.5, zero_point };
        for split in [InputSplit::Channels, InputSplit::Whole] {
            let filters = with_filters(filters.clone(), each, split, seed);
            check(&filters, clamp, writes);
        }
    }
}

/// The windows and maps of networks, whose rows have whole strips and others.
#[test]
fn windows_of_networks_are_those_of_plain_loops() {
    let mut stream = Stream(5);
    for (side, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (9, 1), (2, 2)] {
        for map in [112, 30, 14, 7, 4] {
            let window = Window {
                pads: [side / 2; 4],
                ..Window::square(side, stride)
            };
            let (channels, n) = (2, 2);
            let filters = Filters {
                case: ConvCase {
                    filters: Dense::new(
                        [channels, 1, side, side],
                        levels(&mut stream, channels * side * side),
                    ),
                    bias: vec![-3.0, 40.0],
                    window,
                    groups: channels,
                    input: [channels, map, map],
                },
                grid: Int8Grid {
                    scale: 1.0,
                    zero_point: 131,
                },
                scale: vec![1e-3, 2e-3],
                x: (0..n * channels * map * map)
                    .map(|_| (stream.bits() % 300) as f32 - 150.0)
                    .collect(),
                n,
            };
            check(
                &filters,
                Clamp::Relu,
                Int8Grid {
                    scale: 0.25,
                    zero_point: 9,
                },
            );
        }
    }
}

/// Numbers that no 32-bit integer holds are the least and the largest byte.
#[test]
fn results_beyond_all_bytes_saturate() {
    let filters = Filters {
        case: ConvCase {
            filters: Dense::new([2, 1, 1, 1], vec![127.0, -128.0]),
            bias: vec![0.0, -1e12],
            window: Window::square(1, 1),
            groups: 2,
            input: [2, 5, 9],
        },
        grid: Int8Grid {
            scale: 1.0,
            zero_point: 0,
        },
        scale: vec![1e12, 1.0],
        x: (0..2 * 5 * 9).map(|i| i as f32).collect(),
        n: 1,
    };
    let writes = Int8Grid {
        scale: 0.5,
        zero_point: 9,
    };
    check(&filters, Clamp::None, writes);
}

/// `name` tells what a kernel writes.
#[test]
fn a_convolution_says_what_it_is() {
    let blocks = Blocks::of_map([1, 16, 16]);
    let dot = Dot::best();
    let quantization = Quantization {
        zero_point: 0,
        scale: &[1.0],
        offset: &[0.0],
    };
    let levels = Dense::new([1, 1, 1, 1], vec![3.0]);
    let window = Window::square(1, 1);
    let conv = ColumnConv::pack(
        (Isa::best(), dot),
        &levels,
        quantization,
        &window,
        InputSplit::Channels,
        [blocks; 2],
    );
    assert_eq!(conv.name(), format!("{dot}-depthwise-blocks-i8i8-1x64"));
    let grid = Int8Grid {
        scale: 0.5,
        zero_point: 0,
    };
    let conv = conv.writing_bytes(grid.into());
    assert_eq!(conv.name(), format!("{dot}-depthwise-blocks-i8i8-q-1x64"));
    assert_eq!(conv.output_len() * 4, blocks.len());
}
