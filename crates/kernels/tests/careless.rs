//! Callers that pass wrong lengths, counts and sizes, on every instruction set. Whatever safe code passes, a kernel computes the right number of
//! results or panics with the length that it expected: it never reads or writes outside of the slices that it was given.
//!
//! Products of sizes that wrap to the length of a slice are the dangerous ones. Under AddressSanitizer (`docs/kernels.md`) an access that such a product
//! lets through is found even where it hits memory of the process.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use sparsevd_kernels::attention::Attention;
use sparsevd_kernels::bands::{Band, Halo};
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::channels::{Affine, AffineKernel, PerChannelKernel, per_channel};
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::dense::{Conv, Gemv, Linear};
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::elementwise::{
    Arithmetic, ArithmeticKernel, ClampKernel, SoftmaxKernel, Strided, StridedSoftmaxKernel,
    add_assign, arithmetic, softmax, softmax_strided,
};
use sparsevd_kernels::gemm::{View, gemm};
use sparsevd_kernels::int8::{self, Dot, byte_tiles, quantize};
use sparsevd_kernels::kernel::{InputSplit, Operands};
use sparsevd_kernels::layer_norm::LayerNorm;
use sparsevd_kernels::panel_gemm::PanelGemm;
use sparsevd_kernels::place::{PadKernel, PlaceKernel, SliceKernel, pad, place};
use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::pool_blocks::{BlockPool, GlobalPool};
use sparsevd_kernels::prelu::PRelu;
use sparsevd_kernels::reblock::{PackBlocks, Reblock, Subsample, Unpack};
use sparsevd_kernels::reduce::{L2Normalize, Mean};
use sparsevd_kernels::spmm::Spmm;
use sparsevd_kernels::spmv::{ByActivity, InputSparse, Spmv};
use sparsevd_kernels::{
    Activation, ActivationKernel, Clamp, CopyKernel, Isa, LANES, Layout, Pack, PackedKernel,
    Precision, UnpackTiles, pack_tiles, tiles, unpack_tiles,
};
use sparsevd_model::{Csr, Dense, Int8Grid, Int8Input, Window};
use sparsevd_testing::arbitrary::Stream;

/// Rows, columns and channels: powers of two, so that products with counts wrap to zero and to small lengths.
const SIDE: usize = 16;

/// Counts and sizes that wrap when they are multiplied: powers of two, and a little more than these.
fn huge() -> impl Iterator<Item = usize> {
    let powers = (36..usize::BITS).map(|k| 1 << k);
    let around = powers.flat_map(|p| [p, p + 1, p + 2, p + LANES]);
    around.chain([usize::MAX, usize::MAX - 1, usize::MAX / LANES])
}

/// The message of the panic of `run`; `None` if it returns.
fn panic_of<T>(run: impl FnOnce() -> T) -> Option<String> {
    EXPECTED.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    EXPECTED.set(false);
    let payload = result.err()?;
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    Some(text.unwrap_or_else(|| *payload.downcast::<String>().expect("a text")))
}

/// Checks that `run` panics with a message about lengths or sizes.
#[track_caller]
fn refuses<T>(what: &str, run: impl FnOnce() -> T) {
    let message = panic_of(run).unwrap_or_else(|| panic!("{what} is accepted"));
    let ours = [
        "elements of",
        "samples, of",
        "lines of",
        "rows of",
        "columns of",
        "the part of",
        "channels",
        "a share of",
        "does not fit",
        "of the weight",
        "matrix with strides",
        "blocks of the input",
        "map of the output",
    ];
    assert!(
        ours.iter().any(|part| message.contains(part)),
        "{what}: {message}"
    );
}

thread_local! {
    /// Whether a panic of this thread is expected.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Prints nothing for the thousands of panics that are expected here.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                print(info);
            }
        }));
    });
}

/// A kernel, with the elements of a sample, or of a tile, of each operand.
struct Case {
    kernel: Box<dyn PackedKernel>,
    x: usize,
    x2: Option<usize>,
    y: usize,
    /// Samples of a unit of the count.
    unit: usize,
}

fn case(kernel: impl PackedKernel + 'static, x: usize, y: usize, unit: usize) -> Case {
    Case {
        kernel: Box::new(kernel),
        x,
        x2: None,
        y,
        unit,
    }
}

/// The slices of a call.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    x: usize,
    x2: Option<usize>,
    y: usize,
    scratch: usize,
    n: usize,
}

impl Case {
    fn lengths(&self, units: usize) -> Lengths {
        Lengths {
            x: self.x * units,
            x2: self.x2.map(|x2| x2 * units),
            y: self.y * units,
            scratch: self.kernel.scratch_len(),
            n: units * self.unit,
        }
    }

    /// Runs with slices of exactly these lengths, so that an access past them is one past an allocation.
    fn run(&self, lengths: Lengths) -> Vec<f32> {
        let Lengths {
            x,
            x2,
            y,
            scratch,
            n,
        } = lengths;
        let (x, x2) = (vec![0.5; x], x2.map(|x2| vec![0.25; x2]));
        let (mut y, mut scratch) = (vec![0.125; y], vec![f32::NAN; scratch]);
        self.kernel.run(Operands {
            x: &x,
            x2: x2.as_deref(),
            x3: None,
            y: &mut y,
            scratch: &mut scratch,
            n,
            clamp: Clamp::None,
        });
        y
    }

    fn check(&self, isa: Isa) {
        let name = format!("{} on {isa}", self.kernel.name());
        let right = [0, 1, 2, 3].map(|units| self.lengths(units));
        for lengths in right {
            let y = self.run(lengths);
            assert!(y.iter().all(|v| v.is_finite()), "{name}: {lengths:?}");
        }
        for lengths in &right[1..] {
            let mut wrong = Vec::new();
            for [x, y] in [[1, 0], [0, 1], [1, 1]] {
                wrong.push(Lengths {
                    x: lengths.x + x * usize::from(self.x > 0),
                    y: lengths.y + y,
                    ..*lengths
                });
                wrong.push(Lengths {
                    x: lengths.x - x * usize::from(self.x > 0),
                    y: lengths.y - y,
                    ..*lengths
                });
            }
            if let Some(x2) = lengths.x2 {
                wrong.extend([x2 - 1, x2 + 1, 0].map(|x2| Lengths {
                    x2: Some(x2),
                    ..*lengths
                }));
            }
            if let Some(scratch) = lengths.scratch.checked_sub(1) {
                wrong.push(Lengths {
                    scratch,
                    ..*lengths
                });
                wrong.push(Lengths {
                    scratch: 0,
                    ..*lengths
                });
            }
            for wrong in wrong.into_iter().filter(|w| {
                (w.x, w.y) != (lengths.x, lengths.y)
                    || w.x2 != lengths.x2
                    || w.scratch != lengths.scratch
            }) {
                refuses(&format!("{name}: {wrong:?}"), || self.run(wrong));
            }
        }
        for n in huge() {
            for lengths in right {
                let wrong = Lengths { n, ..lengths };
                refuses(&format!("{name}: {wrong:?}"), || self.run(wrong));
            }
        }
    }
}

fn window(kernel: usize, stride: usize, pad: usize) -> Window {
    Window {
        pads: [pad; 4],
        ..Window::square(kernel, stride)
    }
}

fn dense(dims: impl Into<sparsevd_model::Shape>) -> Dense {
    Stream(7).bernoulli(dims, 0.4)
}

/// Linear layers of `SIDE` rows and columns.
fn linear_kernels(isa: Isa) -> Vec<Case> {
    let weight = dense([SIDE, SIDE]);
    let csr = Csr::from_dense(&weight);
    let tile = SIDE * LANES;
    let mut all = vec![
        case(Gemv::pack(isa, &weight, None), SIDE, SIDE, 1),
        case(Linear::pack(isa, &weight, None), tile, tile, LANES),
        case(skips_zeros(isa, &csr), SIDE, SIDE, 1),
    ];
    for precision in [
        Precision::F32,
        Precision::Bf16,
        Precision::F16,
        Precision::I8 { scale: 0.01 },
    ] {
        let rows = 0..SIDE;
        let spmm = Spmm::pack_with(isa, &csr, None, rows, precision);
        all.push(case(spmm, tile, tile, LANES));
        let spmv = Spmv::pack_with(isa, &csr, None, precision);
        all.push(case(spmv, SIDE, SIDE, 1));
    }
    all
}

/// [`InputSparse`] behind the interface that all kernels have, for vectors with any number of zeros.
fn skips_zeros(isa: Isa, csr: &Csr) -> ByActivity {
    let all = Spmv::pack(isa, csr, None);
    ByActivity::new(all, InputSparse::pack(isa, csr, None), csr.cols())
}

/// Convolutions from `SIDE` channels of 8x8 pixels to as many.
fn convolutions(isa: Isa) -> Vec<Case> {
    let input = [SIDE, 8, 8];
    let floats = |map: [usize; 3]| map.iter().product::<usize>();
    let mut all = Vec::new();
    for window in [
        window(3, 1, 1),
        window(3, 2, 1),
        window(1, 1, 0),
        window(5, 1, 0),
    ] {
        let [k, _] = window.kernel_shape;
        let shape = [SIDE, SIDE, k, k];
        let weight = dense(shape);
        let csr = Csr::from_dense(&weight);
        let [oh, ow] = window.output(8, 8).expect("the window fits");
        let output = [SIDE, oh, ow];
        let (x, y) = (floats(input), floats(output));
        let sparse = SparseConv::pack(isa, &csr, shape, None, &window, 1, input);
        all.push(case(sparse, x * LANES, y * LANES, LANES));
        all.push(case(
            Conv::pack(isa, &weight, None, &window, 1, input),
            x,
            y,
            1,
        ));
        let one = dense([SIDE, 1, k, k]);
        all.push(case(
            Conv::pack(isa, &one, None, &window, SIDE, input),
            x,
            y,
            1,
        ));
        if RowConv::takes(&window) {
            let rows =
                || RowConv::pack_channels(isa, &csr, shape, None, &window, 1, input, 0..SIDE);
            all.push(case(rows(), x, y, 1));
            all.push(case(rows().pooled(), x, SIDE * (oh / 2) * (ow / 2), 1));
        }
        let to = Blocks::of_map(output).with_halo([1; 4]);
        let from = BlockConv::input(input, &window, &to);
        let (x, y) = (from.len(), to.len());
        let blocks = [from, to];
        let conv = || BlockConv::pack_channels(isa, &csr, shape, None, &window, 1, blocks, 0..SIDE);
        all.push(case(conv(), x, y, 1));
        all.push(Case {
            x2: Some(y),
            ..case(conv(), x, y, 1)
        });
        if let Some(pooled) = BlockPool::output(&Window::square(2, 2), &to)
            && let Some(conv) = conv().pooled(pooled)
        {
            all.push(case(conv, x, pooled.len(), 1));
        }
        let direct = DenseBlockConv::pack_channels(isa, &weight, None, &window, 1, blocks, 0..SIDE);
        all.push(Case {
            x2: Some(y),
            ..case(direct, x, y, 1)
        });
        all.push(case(
            Depthwise::pack(isa, &one, None, &window, blocks),
            x,
            y,
            1,
        ));
        let levels = Csr::from_dense(&Dense::new(shape, vec![3.0; weight.values.len()]));
        let bytes = |blocks, multiplied| {
            let instructions = (isa, Dot::of(isa));
            let grid = Int8Grid {
                scale: 0.5,
                zero_point: 128,
            };
            let quantization = int8::Quantization {
                zero_point: grid.zero_point,
                scale: &[0.01; SIDE],
                offset: &[128.0; SIDE],
            };
            let (out, groups) = (0..SIDE, 1);
            int8::Conv::pack_channels(
                instructions,
                multiplied,
                &levels,
                shape,
                grid.into(),
                quantization,
                &window,
                groups,
                blocks,
                out,
            )
        };
        let tiles = [input, output].map(Blocks::of_tile);
        let mut multiplied = vec![int8::Multiplied::Nonzeros, int8::Multiplied::All];
        multiplied.extend(
            Dot::of(isa)
                .looks_up()
                .then_some(int8::Multiplied::LookedUp),
        );
        let of_lanes = [(blocks, 1), (tiles, LANES)];
        let all_ways = (multiplied.iter()).flat_map(|m| of_lanes.map(|l| (l, *m)));
        for ((blocks, lanes), multiplied) in all_ways {
            let [x, y] = blocks.map(|b| b.len());
            all.push(Case {
                x2: Some(y),
                ..case(bytes(blocks, multiplied), x, y, lanes)
            });
            if lanes == 1 {
                let [x, y] = blocks.map(|b| b.byte_len());
                let grid = Int8Grid {
                    scale: 0.5,
                    zero_point: 128,
                };
                let conv = bytes(blocks, multiplied).reading_bytes().expect("blocks");
                // Four bytes near this zero point are a finite float.
                let coarse = Int8Grid {
                    scale: 1e6,
                    zero_point: 64,
                };
                let conv = conv.onto_bytes(grid.into()).writing_bytes(coarse.into());
                all.push(Case {
                    x2: Some(y),
                    ..case(conv, x, y, 1)
                });
                let (dot, from, floats) = (Dot::of(isa), blocks[0], blocks[0].len());
                all.push(case(
                    int8::Quantize::new(dot, from, coarse.into()),
                    floats,
                    x,
                    1,
                ));
                all.push(case(
                    int8::Dequantize::new(dot, from, grid.into()),
                    x,
                    floats,
                    1,
                ));
                let same = int8::ReblockBytes::new(dot, [from, from], [1, 1], grid.into());
                all.push(case(same, x, x, 1));
            }
            if let Some(pooled) = BlockPool::output(&Window::square(2, 2), &blocks[1])
                && let Some(conv) = bytes(blocks, multiplied).pooled(&window, pooled)
            {
                all.push(case(conv, x, pooled.len(), lanes));
            }
        }
        if window.pads == [0; 4] {
            let [from, to] = [input, output].map(Blocks::of_tile);
            let conv =
                BlockConv::pack_channels(isa, &csr, shape, None, &window, 1, [from, to], 0..SIDE);
            all.push(case(conv, from.len(), to.len(), LANES));
        }
    }
    all
}

/// Pooling and conversions of `SIDE` channels of 8x8 pixels.
fn map_kernels(isa: Isa) -> Vec<Case> {
    let input = [SIDE, 8, 8];
    let floats: usize = input.iter().product();
    let mut all = Vec::new();
    for (reduction, window) in [
        (Reduction::Max, window(2, 2, 0)),
        (Reduction::Max, window(3, 2, 1)),
        (Reduction::Average, window(3, 1, 1)),
        (Reduction::Average, window(8, 1, 0)),
    ] {
        let [oh, ow] = window.output(8, 8).expect("the window fits");
        for layout in [Layout::Single, Layout::Tiled] {
            let lanes = layout.samples();
            let pool = Pool::new(isa, reduction, layout, &window, input);
            all.push(case(pool, floats * lanes, SIDE * oh * ow * lanes, lanes));
        }
        let from = Blocks::of_map(input).with_halo([1; 4]);
        if let Some(to) = BlockPool::output(&window, &from) {
            let pool = BlockPool::new(isa, reduction, &window, [from, to]);
            all.push(case(pool, from.len(), to.len(), 1));
        }
    }
    let blocks = Blocks::of_map(input).with_halo([1, 2, 1, 0]);
    let other = Blocks::of_map(input);
    let half = Blocks::of_map([SIDE, 4, 4]);
    let (b, o) = (blocks.len(), other.len());
    let window = window(3, 1, 1);
    let from = BlockConv::input(input, &window, &other);
    let levels = Dense::new([SIDE, 1, 3, 3], vec![3.0; SIDE * 9]);
    let quantization = int8::Quantization {
        zero_point: 7,
        scale: &[0.5; SIDE],
        offset: &[0.0; SIDE],
    };
    let dot = Dot::of(isa);
    let conv = int8::ColumnConv::pack(
        (isa, dot),
        &levels,
        quantization,
        &window,
        InputSplit::Channels,
        [from, other],
    );
    all.push(case(conv.clone(), from.byte_len(), o, 1));
    let grid = Int8Grid {
        scale: 0.5,
        zero_point: 3,
    };
    let conv = conv.writing_bytes(grid.into());
    all.push(case(conv, from.byte_len(), other.byte_len(), 1));
    all.extend([
        case(PackBlocks { isa, blocks }, floats, b, 1),
        case(Unpack::new(isa, blocks), b, floats, 1),
        case(Reblock::new(isa, other, blocks), o, b, 1),
        case(Subsample::new(isa, other, half, [2, 2]), o, half.len(), 1),
        case(GlobalPool::new(isa, Reduction::Max, blocks), b, SIDE, 1),
    ]);
    all
}

/// Kernels without weights whose count of samples is checked.
fn plain_kernels(isa: Isa) -> Vec<Case> {
    let features = SIDE * 4;
    let some: Vec<bool> = (0..features).map(|i| i % 12 < 3).collect();
    let tile = features * LANES;
    let affine = |layout| AffineKernel {
        affine: Affine::new(isa, vec![1.0; SIDE], vec![0.5; SIDE], 4),
        layout,
    };
    let softmax = SoftmaxKernel { isa, features };
    vec![
        case(UnpackTiles { isa, features }, tile, features * LANES, LANES),
        case(Pack::all(isa, features), features * LANES, tile, LANES),
        case(Pack::some(isa, &some), features * LANES, tile, LANES),
        case(affine(Layout::Single), 0, features, 1),
        case(affine(Layout::Tiled), 0, tile, LANES),
        case(softmax, 0, features, 1),
    ]
}

#[test]
fn counts_and_lengths_that_do_not_fit_are_refused() {
    quiet();
    for isa in Isa::available() {
        for kernels in [linear_kernels, convolutions, map_kernels, plain_kernels] {
            kernels(isa).iter().for_each(|case| case.check(isa));
        }
    }
}

#[test]
fn kernels_that_take_any_count_refuse_slices_that_do_not_fit_together() {
    quiet();
    for isa in Isa::available() {
        let run = |kernel: &dyn PackedKernel, [x, y]: [usize; 2], x2: Option<usize>, n| {
            let (x, mut y, x2) = (vec![1.0; x], vec![1.0; y], x2.map(|x2| vec![1.0; x2]));
            kernel.run(Operands {
                x: &x,
                x2: x2.as_deref(),
                x3: None,
                y: &mut y,
                scratch: &mut [],
                n,
                clamp: Clamp::None,
            });
            y
        };
        for n in huge().chain([0, 1]) {
            let op = Arithmetic::Add;
            run(&CopyKernel, [8, 8], None, n);
            refuses("a copy", || run(&CopyKernel, [8, 7], None, n));
            let sum = ArithmeticKernel { isa, op };
            run(&sum, [8, 8], Some(8), n);
            refuses("a sum", || run(&sum, [8, 8], Some(7), n));
            refuses("a sum", || run(&sum, [8, 9], None, n));
            for layout in [Layout::Single, Layout::Tiled] {
                let lanes = layout.samples();
                let each = PerChannelKernel { isa, op, layout };
                run(&each, [8 * lanes; 2], Some(2 * lanes), n);
                refuses("a value per channel", || {
                    run(&each, [8 * lanes; 2], Some(3 * lanes), n)
                });
                refuses("a value per channel", || {
                    run(&each, [8 * lanes, 7], Some(2 * lanes), n)
                });
                let norm = LayerNorm::new(isa, layout, vec![1.0; 4], None, 1e-5);
                run(&norm, [0, 8 * lanes], None, n);
                refuses("a group", || run(&norm, [0, 8 * lanes + 1], None, n));
                refuses("a part of a sample", || {
                    run(
                        &PRelu::new(isa, layout, vec![0.5; 3]),
                        [0, 8 * lanes],
                        None,
                        n,
                    )
                });
            }
            for (known, log) in [Strided::Size(4), Strided::Inner(4)]
                .into_iter()
                .flat_map(|known| [(known, false), (known, true)])
            {
                let softmax = StridedSoftmaxKernel { isa, known, log };
                run(&softmax, [0, 0], None, n);
                if n == 1 {
                    run(&softmax, [0, 8], None, n);
                    refuses("a softmax", || run(&softmax, [0, 9], None, n));
                } else {
                    refuses("a softmax", || run(&softmax, [0, 8], None, n));
                }
            }
            let mean = Mean::new(isa, 4);
            let normalize = L2Normalize::new(isa, 4);
            run(&mean, [0, 0], None, 0);
            run(&normalize, [0, 8], None, n);
            refuses("a vector", || run(&normalize, [0, 9], None, n));
            refuses("a mean", || run(&mean, [9, 4], None, n));
            let attention = Attention::new(isa, 2, 2);
            refuses("a third input", || run(&attention, [8, 8], Some(8), n));
            if n != 1 {
                refuses("a mean", || run(&mean, [8, 4], None, n));
            }
            let function = Activation::Tanh;
            assert_eq!(
                run(&ActivationKernel { isa, function }, [0, 5], None, n).len(),
                5
            );
            assert_eq!(run(&ClampKernel { isa }, [0, 5], None, n), [1.0; 5]);
        }
    }
}

#[test]
fn padding_and_places_refuse_sizes_that_wrap() {
    quiet();
    let run = |kernel: &dyn PackedKernel, x: usize, y: usize, n: usize| {
        let (x, mut y) = (vec![1.0; x], vec![0.0; y]);
        kernel.run(Operands {
            x: &x,
            x2: None,
            x3: None,
            y: &mut y,
            scratch: &mut [],
            n,
            clamp: Clamp::None,
        });
        y
    };
    for layout in [Layout::Single, Layout::Tiled] {
        let lanes = layout.samples();
        let at = |map, pads| PadKernel {
            layout,
            map,
            pads,
            value: 0.5,
        };
        let right = at([2, 4], [1, 2, 1, 2]);
        assert_eq!(run(&right, 16 * lanes, 64 * lanes, 1).len(), 64 * lanes);
        let place_at = |features, offset, total| PlaceKernel {
            layout,
            features,
            offset,
            total,
        };
        assert_eq!(
            run(&place_at(2, 1, 4), 4 * lanes, 8 * lanes, 2 * lanes).len(),
            8 * lanes
        );
        for big in huge() {
            for d in 0..4 {
                let mut pads = [1, 2, 1, 2];
                pads[d] = big;
                refuses("a border", || {
                    run(&at([2, 4], pads), 16 * lanes, 64 * lanes, 1)
                });
                refuses("a border", || run(&at([2, 4], pads), 0, 64 * lanes, 1));
            }
            for map in [[big, 4], [2, big], [big, big]] {
                refuses("a map", || run(&at(map, [1; 4]), 16 * lanes, 64 * lanes, 1));
            }
            for (features, offset, total) in
                [(big, 0, 4), (2, big, 4), (2, 0, big), (big, big, big)]
            {
                let kernel = place_at(features, offset, total);
                refuses("a place", || run(&kernel, 4 * lanes, 8 * lanes, 2 * lanes));
                let (x, mut y) = (vec![1.0; 4 * lanes], vec![0.0; 8 * lanes]);
                refuses("a place", || {
                    place(layout, &x, &mut y, features, offset, total)
                });
            }
            let mut y = vec![0.0; 64 * lanes];
            refuses("a border", || {
                pad(
                    layout,
                    &vec![1.0; 16 * lanes],
                    &mut y,
                    [2, 4],
                    [big; 4],
                    0.0,
                );
            });
        }
    }
    let part = |features, offset, total| SliceKernel {
        layout: Layout::Single,
        features,
        offset,
        total,
    };
    // The total is that of the input, where a free dimension is cut.
    assert_eq!(run(&part(2, 1, Some(5)), 15, 6, 3), [1.0; 6]);
    assert_eq!(run(&part(2, 1, None), 15, 6, 3), [1.0; 6]);
    assert!(run(&part(2, 1, None), 0, 0, 0).is_empty());
    for (kernel, x, y, n) in [
        (part(2, 1, Some(5)), 14, 6, 3),
        (part(2, 1, None), 14, 6, 3),
        (part(2, 1, None), 15, 4, 3),
        (part(2, 1, None), 6, 6, 3),
    ] {
        refuses("a part", || run(&kernel, x, y, n));
    }
    for big in huge() {
        refuses("a part", || run(&part(2, 1, None), 15, 6, big));
        for total in [Some(5), None] {
            refuses("a part", || run(&part(big, 1, total), 15, 6, 3));
            refuses("a part", || run(&part(2, big, total), 15, 6, 3));
        }
        refuses("a part", || run(&part(2, 1, Some(big)), 15, 6, 3));
    }
}

#[test]
fn functions_refuse_sizes_that_wrap() {
    quiet();
    for isa in Isa::available() {
        let (x, mut y) = (vec![1.0; 64], vec![0.0; 64]);
        for big in huge() {
            for [n, features] in [[big, 16], [16, big], [big, big], [big, 1]] {
                let what = format!("{n} samples of {features} on {isa}");
                refuses(&what, || pack_tiles(isa, &x, n, features, &mut y));
                refuses(&what, || unpack_tiles(isa, &x, n, features, &mut y));
                refuses(&what, || pack_tiles(isa, &[], n, features, &mut []));
                refuses(&what, || unpack_tiles(isa, &[], n, features, &mut []));
                for layout in [Layout::Single, Layout::Tiled] {
                    refuses(&what, || softmax(isa, layout, &mut y, features, n));
                    refuses(&what, || softmax(isa, layout, &mut [], features, n));
                }
                refuses(&what, || softmax_strided(isa, &mut y, features, n));
            }
            let weight = dense([SIDE, SIDE]);
            let panels = PanelGemm::pack(isa, &weight, None);
            refuses("samples", || panels.run(&x, &mut y, big, Clamp::None));
            refuses("samples", || panels.run(&[], &mut [], big, Clamp::None));
            // Without an element, any number of samples is right, and takes no time.
            PanelGemm::pack(isa, &dense([0, 0]), None).run(&[], &mut [], big, Clamp::None);
            let linear = Linear::pack(isa, &weight, None);
            refuses("tiles", || linear.run(&[], &mut [], big, Clamp::None));
            for layout in [Layout::Single, Layout::Tiled] {
                let op = Arithmetic::Mul;
                refuses("an area", || {
                    per_channel(isa, layout, op, &x, &[1.0; 16], &mut y, big, Clamp::None);
                });
                let affine = Affine::new(isa, vec![1.0; 16], vec![1.0; 16], big);
                refuses("an area", || affine.run(layout, &mut [], 1, Clamp::None));
                refuses("a count", || {
                    Affine::new(isa, vec![1.0; 16], vec![1.0; 16], 1).run(
                        layout,
                        &mut y,
                        big,
                        Clamp::None,
                    );
                });
            }
            let blocks = Blocks::of_map([SIDE, 8, 8]);
            refuses("samples", || {
                GlobalPool::new(isa, Reduction::Average, blocks).run(&[], big, &mut [])
            });
            refuses("samples", || blocks.pack(isa, &[], big, &mut []));
            refuses("samples", || blocks.unpack(isa, &[], big, &mut []));
        }
        refuses("a sum", || add_assign(isa, &mut y, &x[..63], Clamp::None));
        refuses("a sum", || {
            arithmetic(isa, Arithmetic::Add, &x, &x, &mut y[..63], Clamp::None)
        });
        for row_stride in huge() {
            refuses("a stride", || View::new(&x, 16, 4, row_stride, 1));
            refuses("a stride", || View::new(&x, 4, 16, 1, row_stride));
            refuses("a stride", || {
                let a = View::row_major(&x, 4, 16);
                gemm(&mut y, row_stride, a, View::row_major(&x, 16, 4), false);
            });
            refuses("rows", || View::row_major(&x, row_stride, 16));
            refuses("columns", || View::row_major(&x, 16, row_stride));
        }
    }
}

/// Where a layer has no inputs or no outputs, any count is right, and takes no time.
#[test]
fn layers_of_nothing_take_any_count() {
    quiet();
    for isa in Isa::available() {
        for [rows, cols] in [[0, 0], [0, SIDE], [SIDE, 0]] {
            let weight = Dense::zeros([rows, cols]);
            let csr = Csr::from_dense(&weight);
            for n in huge() {
                let kernels: [Box<dyn PackedKernel>; 5] = [
                    Box::new(Gemv::pack(isa, &weight, None)),
                    Box::new(Linear::pack(isa, &weight, None)),
                    Box::new(Spmv::pack(isa, &csr, None)),
                    Box::new(Spmm::pack(isa, &csr, None)),
                    Box::new(skips_zeros(isa, &csr)),
                ];
                for kernel in kernels {
                    let mut scratch = vec![0.0; kernel.scratch_len()];
                    let panic = panic_of(|| {
                        kernel.run(Operands {
                            x: &[],
                            x2: None,
                            x3: None,
                            y: &mut [],
                            scratch: &mut scratch,
                            n,
                            clamp: Clamp::None,
                        });
                    });
                    let name = kernel.name();
                    assert_eq!(panic.is_none(), rows + cols == 0, "{name}: {rows}x{cols}");
                }
            }
        }
        for n in huge() {
            pack_tiles(isa, &[], n, 0, &mut []);
            unpack_tiles(isa, &[], n, 0, &mut []);
            Pack::all(isa, 0).run(&[], n, &mut []);
            pack_tiles(isa, &[], 0, n, &mut []);
            unpack_tiles(isa, &[], 0, n, &mut []);
        }
        // One vector of nothing gives the biases.
        let (weight, bias) = (Dense::zeros([SIDE, 0]), [0.5; SIDE]);
        let mut y = [0.0; SIDE];
        Spmv::pack(isa, &Csr::from_dense(&weight), Some(&bias)).run(&[], &mut y, Clamp::None);
        assert_eq!(y, bias);
        let mut y = [0.0; SIDE * LANES];
        Spmm::pack(isa, &Csr::from_dense(&weight), Some(&bias)).run(&[], &mut y, 16, Clamp::None);
        assert_eq!(y, [0.5; SIDE * LANES]);
        let mut y = [0.0; SIDE];
        Gemv::pack(isa, &weight, Some(&bias)).run(&[], &mut y, Clamp::None);
        assert_eq!(y, bias);
    }
}

/// A run with slices of these lengths and a count of samples.
type Run<'a> = &'a dyn Fn([usize; 2], usize);

/// Products of bytes, which are no [`PackedKernel`] yet.
#[test]
fn lines_of_bytes_that_do_not_fit_are_refused() {
    quiet();
    let mut levels = dense([SIDE, SIDE]);
    for v in &mut levels.values {
        *v = (*v * 127.0).trunc();
    }
    let csr = Csr::from_dense(&levels);
    let quantization = int8::Quantization {
        zero_point: 128,
        scale: &[0.01; SIDE],
        offset: &[128.0; SIDE],
    };
    for dot in Dot::available() {
        let layer = int8::Spmm::pack(dot, &csr, quantization);
        let sums = |[x, y]: [usize; 2], n| layer.run_sums(&vec![3; x], &mut vec![0; y], n);
        let floats =
            |[x, y]: [usize; 2], n| layer.run(&vec![3; x], &mut vec![0.0; y], n, Clamp::None);
        let bytes =
            |[x, y]: [usize; 2], n| layer.run_bytes(&vec![3; x], &mut vec![0; y], n, [0, 255]);
        let lines = |[x, y]: [usize; 2], n| {
            quantize(dot, &vec![0.5; x], n, SIDE, (0.01, 3), &mut vec![0; y]);
        };
        for right in [0, 1, 15, 16, 17, 63, 64, 65, 130] {
            let of_bytes = byte_tiles(right) * SIDE * dot.line();
            let of_floats = tiles(right) * SIDE * LANES;
            let whole = |[x, y]: [usize; 2], n| {
                let (grid, each) = (
                    Int8Grid {
                        scale: 0.5,
                        zero_point: 128,
                    },
                    Int8Input::PerVector,
                );
                let input = if right % 2 == 0 { grid.into() } else { each };
                let layer = int8::Linear::pack_rows(dot, &csr, input, quantization, 0..SIDE);
                let mut scratch = vec![f32::NAN; layer.scratch_len()];
                layer.run(
                    &vec![0.5; x],
                    &mut vec![0.0; y],
                    n,
                    &mut scratch,
                    Clamp::None,
                );
            };
            let kernels: [(Run<'_>, [usize; 2]); 5] = [
                (&whole, [of_floats; 2]),
                (&sums, [of_bytes, of_floats]),
                (&floats, [of_bytes, of_floats]),
                (&bytes, [of_bytes; 2]),
                (&lines, [of_floats, of_bytes]),
            ];
            for (run, [x, y]) in kernels {
                run([x, y], right);
                let wrong = [
                    [x + 1, y],
                    [x, y + 1],
                    [x.wrapping_sub(1), y],
                    [x, y.wrapping_sub(1)],
                ];
                for lengths in wrong.into_iter().filter(|w| !w.contains(&usize::MAX)) {
                    refuses(&format!("{dot}: {lengths:?}"), || run(lengths, right));
                }
                for n in huge() {
                    refuses(&format!("{dot}: {n} samples"), || run([x, y], n));
                }
            }
        }
        let vectors = |[x, y]: [usize; 2], n| {
            let (x, mut y) = (vec![3; x], vec![0.0; y]);
            layer.run_vectors(&x, &[1.0; int8::SAMPLES], &mut y, n, Clamp::None);
        };
        let lines = |[x, y]: [usize; 2], n| {
            let (x, mut y) = (vec![0.5; x], vec![0; y]);
            int8::quantize_vectors(dot, &x, n, SIDE, &mut [0.0; int8::SAMPLES], &mut y);
        };
        for right in [1, 16, 17, int8::SAMPLES] {
            let [of_bytes, of_floats] = [SIDE * dot.line(), tiles(right) * SIDE * LANES];
            let kernels: [(Run<'_>, [usize; 2]); 2] = [
                (&vectors, [of_bytes, of_floats]),
                (&lines, [of_floats, of_bytes]),
            ];
            for (run, [x, y]) in kernels {
                run([x, y], right);
                for lengths in [[x + 1, y], [x, y + 1], [x - 1, y], [x, y - 1]] {
                    refuses(&format!("{dot}: {lengths:?}"), || run(lengths, right));
                }
                for n in huge().chain([int8::SAMPLES + 1]) {
                    refuses(&format!("{dot}: {n} samples"), || run([x, y], n));
                }
            }
        }
        for [rows, cols] in [[0, 0], [0, SIDE], [SIDE, 0]] {
            let levels = Csr::from_dense(&Dense::zeros([rows, cols]));
            let quantization = int8::Quantization {
                scale: &vec![1.0; rows],
                offset: &vec![0.0; rows],
                ..quantization
            };
            let layer = int8::Spmm::pack(dot, &levels, quantization);
            for n in huge() {
                let panic = panic_of(|| layer.run_bytes(&[], &mut [], n, [0, 255]));
                assert_eq!(panic.is_none(), rows + cols == 0, "{dot}: {rows}x{cols}");
                quantize(dot, &[], n, 0, (1.0, 0), &mut []);
            }
            let none: &[f32] = &[];
            for [scale, offset] in [[none, &[0.0; SIDE]], [&[1.0; SIDE], none]] {
                let quantization = int8::Quantization {
                    scale,
                    offset,
                    ..quantization
                };
                refuses("numbers of rows", || {
                    int8::Spmm::pack(dot, &csr, quantization)
                });
            }
        }
        for n in huge() {
            refuses("features", || {
                quantize(dot, &[], SIDE, n, (1.0, 0), &mut [])
            });
        }
    }
}

/// Windows and maps that a kernel cannot be planned for.
#[test]
fn sizes_that_no_slice_can_hold_are_refused() {
    quiet();
    let isa = Isa::best();
    let weight = dense([SIDE, SIDE, 1, 1]);
    let csr = Csr::from_dense(&weight);
    let shape = [SIDE, SIDE, 1, 1];
    let plain = window(1, 1, 0);
    let pack_all = |window: &Window, input: [usize; 3]| {
        refuses("a sparse convolution", || {
            SparseConv::pack(isa, &csr, shape, None, window, 1, input)
        });
        refuses("a convolution over rows", || {
            RowConv::pack_channels(isa, &csr, shape, None, window, 1, input, 0..SIDE)
        });
        refuses("a dense convolution", || {
            Conv::pack(isa, &weight, None, window, 1, input)
        });
        refuses("a convolution over blocks", || {
            let blocks = [input, [SIDE, 8, 8]].map(Blocks::of_map);
            BlockConv::pack_channels(isa, &csr, shape, None, window, 1, blocks, 0..SIDE)
        });
    };
    // Smaller maps are refused only if they do not fit in the memory of this machine.
    for big in huge().filter(|n| *n >= 1 << 60) {
        for input in [
            [SIDE, big, 8],
            [SIDE, 8, big],
            [SIDE, big, big],
            [big, 8, 8],
        ] {
            pack_all(&plain, input);
            refuses("blocks", || Blocks::of_map(input));
            refuses("blocks", || Blocks::of_tile(input));
            let small = Blocks::of_map([SIDE, 8, 8]);
            refuses("blocks", || small.alike(input));
            refuses("blocks", || small.under(input, [1, 1]));
            assert_eq!(small.over([SIDE, big, 8], [1, 1]), None);
        }
        let small = Blocks::of_map([SIDE, 8, 8]);
        refuses("channels", || small.with_channels(big));
        refuses("strides", || small.under([SIDE, 16, 16], [big, 1]));
        for d in 0..4 {
            let mut sides = [0; 4];
            sides[d] = big;
            refuses("a halo", || small.with_halo(sides));
            let window = Window {
                pads: sides,
                strides: [big, big],
                ..plain.clone()
            };
            pack_all(&window, [SIDE, 8, 8]);
        }
    }
    let square = 1 << 32;
    refuses("blocks", || Blocks::of_map([0, square, square]));
    refuses("blocks", || {
        Blocks::of_map([1, square, square]).with_halo([1; 4])
    });
    pack_all(&plain, [SIDE, square, square]);
}

/// The fields of a dense tensor are public, so its values may be fewer than its shape says.
#[test]
fn values_that_do_not_fill_their_shape_are_refused() {
    quiet();
    for isa in Isa::available() {
        let short = |dims: &[usize]| Dense {
            shape: sparsevd_model::Shape(dims.to_vec()),
            values: vec![1.0; 3],
        };
        let blocks = [Blocks::of_map([SIDE, 8, 8]); 2];
        refuses("a depthwise convolution", || {
            Depthwise::pack(
                isa,
                &short(&[SIDE, 1, 1, 1]),
                None,
                &window(1, 1, 0),
                blocks,
            )
        });
        for kernel in [0, 1, 2, 3] {
            let run = || match kernel {
                0 => {
                    Box::new(Gemv::pack(isa, &short(&[SIDE, SIDE]), None)) as Box<dyn PackedKernel>
                }
                1 => Box::new(Linear::pack(isa, &short(&[SIDE, SIDE]), None)),
                2 => {
                    let weight = short(&[SIDE, SIDE, 1, 1]);
                    let window = window(1, 1, 0);
                    Box::new(DenseBlockConv::pack_channels(
                        isa,
                        &weight,
                        None,
                        &window,
                        1,
                        blocks,
                        0..SIDE,
                    ))
                }
                _ => {
                    let weight = short(&[SIDE, SIDE, 1, 1]);
                    Box::new(Conv::pack(
                        isa,
                        &weight,
                        None,
                        &window(1, 1, 0),
                        1,
                        [SIDE, 8, 8],
                    ))
                }
            };
            // These index the values where they pack or multiply them.
            let panic = panic_of(|| {
                let len = [SIDE, SIDE * LANES, blocks[0].len(), SIDE * 64][kernel];
                let case = case_of(run(), len);
                case.run(case.lengths(1))
            });
            assert!(panic.is_some(), "kernel {kernel} on {isa}");
        }
    }
}

fn case_of(kernel: Box<dyn PackedKernel>, len: usize) -> Case {
    Case {
        kernel,
        x: len,
        x2: None,
        y: len,
        unit: 1,
    }
}

/// Two bands that had a line in common would let two threads write to it.
#[test]
fn no_split_gives_a_band_the_lines_of_another() {
    quiet();
    let isa = Isa::best();
    let weight = dense([SIDE, 1, 3, 3]);
    let output = Blocks::of_map([SIDE, 24, 24]).with_halo([1; 4]);
    let window = window(3, 1, 1);
    let input = BlockConv::input([SIDE, 24, 24], &window, &output);
    let kernel = Depthwise::pack(isa, &weight, None, &window, [input, output]);
    let x = vec![1.0; input.len()];
    let mut want = vec![0.0; output.len()];
    kernel.run(&x, &mut want, 1, Clamp::None);
    let mut y = vec![0.0; output.len()];
    for (share, of) in [
        (2, 1),
        (usize::MAX, 1),
        (usize::MAX, usize::MAX - 1),
        (1, 0),
    ] {
        refuses("a share", || Band::new(&kernel, &mut y).split(share, of));
        refuses("a share", || Halo::new(&kernel, &mut y).split(share, of));
    }
    let middle = usize::MAX / 2;
    for (share, of) in [
        (0, 1),
        (1, 1),
        (0, 0),
        (1, 3),
        (usize::MAX, usize::MAX),
        (middle, usize::MAX),
    ] {
        let mut y = vec![0.0; output.len()];
        for band in Band::new(&kernel, &mut y).split(share, of) {
            band.run(&x, None, Clamp::None);
        }
        for halo in Halo::new(&kernel, &mut y).split(share, of) {
            halo.run();
        }
        assert_eq!(y, want, "{share} of {of}");
    }
    let len = y.len();
    refuses("a short map", || {
        Band::new(&kernel, &mut y[..len - 1]).run(&x, None, Clamp::None)
    });
    refuses("a short input", || {
        Band::new(&kernel, &mut y).run(&x[1..], None, Clamp::None);
    });
    refuses("a short residual", || {
        Band::new(&kernel, &mut y).run(&x, Some(&x[1..]), Clamp::None);
    });
}

/// Ranges of rows and channels that do not exist are refused or empty.
#[test]
#[allow(
    clippy::reversed_empty_ranges,
    reason = "what a careless caller passes"
)]
fn ranges_that_do_not_exist_write_nothing() {
    quiet();
    let csr = Csr::from_dense(&dense([SIDE, SIDE]));
    for isa in Isa::available() {
        for rows in [
            0..SIDE + 1,
            5..3,
            SIDE + 2..SIDE + 3,
            usize::MAX - 1..usize::MAX,
        ] {
            let what = format!("{rows:?} of {SIDE} on {isa}");
            let spmm = panic_of(|| Spmm::pack_rows(isa, &csr, None, rows.clone()));
            assert!(spmm.is_some(), "{what}");
            let spmv = panic_of(|| Spmv::pack(isa, &csr, None).part(rows.clone()));
            assert!(spmv.is_some(), "{what}");
            let filters = Csr::from_dense(&dense([SIDE, SIDE, 1, 1]));
            let conv = panic_of(|| {
                let shape = [SIDE, SIDE, 1, 1];
                let (window, input) = (window(1, 1, 0), [SIDE, 4, 4]);
                let conv = RowConv::pack_channels(
                    isa,
                    &filters,
                    shape,
                    None,
                    &window,
                    1,
                    input,
                    rows.clone(),
                );
                let case = case(conv, SIDE * 16, rows.len() * 16, 1);
                case.run(case.lengths(1))
            });
            assert!(conv.is_none_or(|m| m.contains("channels")), "{what}");
        }
        let last = Spmm::pack_rows(isa, &csr, None, SIDE..SIDE);
        assert_eq!(last.rows(), 0);
        last.run(&vec![1.0; SIDE * LANES * tiles(1)], &mut [], 1, Clamp::None);
    }
}
