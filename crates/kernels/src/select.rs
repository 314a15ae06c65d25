//! The choice of kernels, and all thresholds that it uses. The times that it compares are in [`crate::cost`].

use sparsevd_model::{Csr, Int8Input};

use crate::blocks::{Blocks, TILE};
use crate::cost::{Costs, Size};
use crate::int8::{self, Dot};
use crate::{Isa, LANES, Layout, Level, Precision};

/// Kernel of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearKernel {
    /// [`crate::dense::Gemv`], over [`Layout::Single`].
    Gemv,
    /// [`crate::panel_gemm::PanelGemm`], over [`Layout::Single`].
    PanelGemm,
    /// [`crate::dense::Linear`], over [`Layout::Tiled`].
    Gemm,
    /// [`crate::spmv::Spmv`], over [`Layout::Single`].
    Spmv,
    /// [`crate::spmm::Spmm`], over [`Layout::Tiled`].
    Spmm,
}

impl LinearKernel {
    /// The layout of its input and output.
    pub fn layout(self) -> Layout {
        match self {
            Self::Spmm | Self::Gemm => Layout::Tiled,
            Self::Spmv | Self::Gemv | Self::PanelGemm => Layout::Single,
        }
    }
}

/// Whether a convolution of this density should run sparse. Depthwise convolutions stay dense.
pub fn prefer_sparse_conv(density: f64, per_group_inputs: usize, groups: usize) -> bool {
    let depthwise = per_group_inputs == 1 && groups > 1;
    !depthwise && density <= 0.7
}

/// A layer must be expected to win by this much to run in int8.
const INT8_MARGIN: f64 = 0.95;

/// Whether a convolution should multiply int8: `products` are the nanoseconds of its products, `moved` the floats, or four bytes
/// each, that it reads and writes, and `converted` those that are converted for it; all `[in int8, in f32]`.
pub fn prefer_int8_conv(
    costs: &Costs,
    products: [f64; 2],
    moved: [usize; 2],
    converted: [usize; 2],
) -> bool {
    let ns = |i: usize| products[i] + (moved[i] + converted[i]) as f64 * costs.element;
    ns(0) < INT8_MARGIN * ns(1)
}

/// Whether a linear layer with int8 grids should multiply `n` vectors one by one in int8, which takes `ns` for each. `active` are the inputs that are not zero,
/// where another kernel skips the others.
pub fn prefer_int8_spmv(
    costs: &Costs,
    ns: f64,
    size: Size,
    n: usize,
    active: Option<usize>,
) -> bool {
    let one = costs.spmv_from_far(size).min(costs.gemv_from_far(size));
    let skipping = active.map_or(f64::INFINITY, |active| costs.input_sparse(size, active));
    let mut floats = n as f64 * one.min(skipping);
    if single_dense(n) == LinearKernel::PanelGemm {
        floats = floats.min(costs.panel_gemm(size, n).max(costs.gemv_from_far(size)));
    }
    n as f64 * ns < INT8_MARGIN * floats
}

/// Whether kernels that multiply all weights may store a weight of `elements`: at most 64 bytes for each non-zero.
pub fn may_store_all(elements: usize, nonzeros: usize) -> bool {
    elements / 64 <= nonzeros
}

/// Whether filters `[in, kh, kw]` are so small that [`crate::int8::ColumnConv`] takes few products for an output: each waits for the one before, where there
/// are no registers for several filters.
pub fn few_columns(dot: Dot, [inputs, kh, kw]: [usize; 3]) -> bool {
    let most = if dot.has_many_registers() { 48 } else { 16 };
    (1..=most).contains(&(inputs * kh * kw.div_ceil(4)))
}

/// Whether a linear layer should multiply int8 over tiles, in calls of `n` samples, with the instructions `dot` and scales of its input as `input` has them. In f32 it is
/// over `layout`.
pub fn prefer_int8_linear(
    costs: &Costs,
    (dot, input): (Dot, Int8Input),
    size: Size,
    (layout, n): (Layout, usize),
) -> bool {
    let fastest = |layout| {
        let times = linear_times(costs, size, layout, n);
        times.sparse.min(times.dense)
    };
    let bytes = int8::Linear::ns(costs, dot, input, size, n);
    let (bytes, floats) = match layout {
        Layout::Tiled => (bytes, fastest(Layout::Tiled)),
        // Bytes are converted to tiles, and are no better than floats that are.
        layout => {
            let converted = edges(costs, size.rows + size.cols, n);
            let tiled = fastest(Layout::Tiled) + converted;
            (bytes + converted, tiled.min(fastest(layout)))
        }
    };
    bytes < INT8_MARGIN * floats
}

/// Fewer samples leave most lanes of a tile empty.
pub const LEAST_IN_TILE: usize = 6;

/// The fastest layout for `n` samples of a network with convolutions: tiles, unless most lanes would be empty.
pub fn batch_layout(n: usize) -> Layout {
    if n < LEAST_IN_TILE {
        Layout::Single
    } else {
        Layout::Tiled
    }
}

/// A layer must be expected to win by this much to run sparse, so that it never loses by more than a few per cent.
const SPARSE_MARGIN: f64 = 0.95;

/// Expected nanoseconds of a linear layer by its sparse and by its dense kernel.
struct LinearTimes {
    sparse: f64,
    dense: f64,
}

impl LinearTimes {
    fn prefer_sparse(&self) -> bool {
        self.sparse < SPARSE_MARGIN * self.dense
    }
}

/// The times of `n` samples in `layout`.
fn linear_times(costs: &Costs, size: Size, layout: Layout, n: usize) -> LinearTimes {
    /// Nanoseconds of one call of a kernel beside the time of its weights: short rows, the last store.
    const CALL: f64 = 50.0;
    match layout {
        Layout::Tiled => LinearTimes {
            sparse: costs.spmm(size, n),
            dense: costs.gemm(size, n),
        },
        _ => LinearTimes {
            sparse: n as f64 * (CALL + costs.spmv(size)),
            dense: CALL
                + match single_dense(n) {
                    LinearKernel::PanelGemm => costs.panel_gemm(size, n),
                    _ => costs.gemv(size),
                },
        },
    }
}

/// The kernel of a linear layer for `n` samples in `layout` that should take less time by [`Costs`].
pub fn linear(costs: &Costs, size: Size, layout: Layout, n: usize) -> LinearKernel {
    let sparse = linear_times(costs, size, layout, n).prefer_sparse();
    match layout {
        Layout::Tiled if sparse => LinearKernel::Spmm,
        Layout::Tiled => LinearKernel::Gemm,
        _ if sparse => LinearKernel::Spmv,
        _ => single_dense(n),
    }
}

/// The dense kernel of a linear layer for `n` samples over [`Layout::Single`].
pub fn single_dense(n: usize) -> LinearKernel {
    if n > 1 {
        LinearKernel::PanelGemm
    } else {
        LinearKernel::Gemv
    }
}

/// Expected nanoseconds of converting `elements` of each of `n` samples to tiles, or back. Empty lanes are written too.
fn edges(costs: &Costs, elements: usize, n: usize) -> f64 {
    (elements * n.next_multiple_of(LANES)) as f64 * costs.element
}

/// Nanoseconds of `n` samples through linear layers in `layout`, to compare layouts by: those that are expected, but more by the margin of a sparse layer. With `sparse`,
/// each layer has the kernel that [`linear`] chooses. `edge` is the number of inputs and outputs of the network, which are converted to tiles and back.
fn linear_time(
    costs: &Costs,
    sizes: &[Size],
    sparse: bool,
    edge: usize,
    layout: Layout,
    n: usize,
) -> f64 {
    let layer = |size: &Size| {
        let times = linear_times(costs, *size, layout, n);
        match sparse && times.prefer_sparse() {
            // As if it took as long as a dense kernel that it would replace, so that the margin also holds between layouts.
            true => times.sparse / SPARSE_MARGIN,
            false => times.dense,
        }
    };
    let edges = match layout {
        Layout::Tiled => edges(costs, edge, n),
        _ => 0.0,
    };
    sizes.iter().map(layer).sum::<f64>() + edges
}

/// The fastest layout for `n` samples of a network that has only linear layers.
pub fn linear_layout(costs: &Costs, sizes: &[Size], sparse: bool, edge: usize, n: usize) -> Layout {
    let time = |layout| linear_time(costs, sizes, sparse, edge, layout, n);
    if time(Layout::Single) <= time(Layout::Tiled) {
        Layout::Single
    } else {
        Layout::Tiled
    }
}

/// How many of the last of `n` samples are faster over [`Layout::Single`] than as part of a tile: those that fill few lanes of a half tile, else none.
pub fn last_alone(costs: &Costs, sizes: &[Size], edge: usize, n: usize) -> usize {
    let rest = n % (LANES / 2);
    let tiled = |n| linear_time(costs, sizes, true, edge, Layout::Tiled, n);
    let alone = linear_time(costs, sizes, true, edge, Layout::Single, rest);
    // The weights are then packed twice, which a small gain does not justify.
    if rest < n && tiled(n - rest) + alone < 0.9 * tiled(n) {
        rest
    } else {
        0
    }
}

/// The largest number of non-zero inputs for which a layer should skip zero inputs; `None` where it should never skip them.
///
/// `share` is the measured share of non-zero inputs, if there is one. Without it a quarter is assumed, which is typical behind a ReLU: the
/// second packing of the weights is only worth its memory where skipping is faster at that share.
pub fn most_active(costs: &Costs, size: Size, share: Option<f64>) -> Option<usize> {
    let most = costs.most_active(size);
    let wanted = share.unwrap_or(0.25) * size.cols as f64;
    (size.precision == Precision::F32 && wanted <= most as f64).then_some(most)
}

/// Whether the non-zeros of a linear layer with `kernel`, in calls of `n` samples, should be stored in another type than f32, which may round them, in a run
/// that reads `run` bytes of weights: where fewer bytes should be faster. `active` are the inputs that are not zero, where the layer would skip the others in f32.
pub fn prefer_precision(
    costs: &Costs,
    (kernel, n): (LinearKernel, usize),
    size: Size,
    precision: Precision,
    run: f64,
    active: Option<usize>,
) -> bool {
    /// A layer must be expected to win by this much to be rounded.
    const MARGIN: f64 = 0.95;
    let ns = |precision| {
        let size = Size { precision, ..size };
        match kernel {
            LinearKernel::Spmv => costs.spmv_in_run(size, run),
            LinearKernel::Spmm => costs.spmm_in_run(size, n, run),
            // They have f32 alone.
            LinearKernel::Gemv | LinearKernel::PanelGemm | LinearKernel::Gemm => 0.0,
        }
    };
    let skipping = active.map_or(f64::INFINITY, |active| costs.input_sparse(size, active));
    ns(precision) < MARGIN * ns(Precision::F32).min(skipping)
}

/// The number of threads for a run of `multiply_adds`, at most `most`: to wake a thread costs tens of microseconds.
pub fn threads(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 1_000_000).clamp(1, most.max(1))
}

/// Multiply-adds that take about as long as moving a number.
pub const MOVE: usize = 16;

/// The number of parts of a layer of `multiply_adds` for threads that are already awake, at most `most`.
pub fn parts(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 100_000).clamp(1, most.max(1))
}

/// Whether `threads` should split a convolution over blocks by lines rather than by channels. Each thread then reads all of its `weights` non-zero
/// weights, but of the `input` floats mostly lines that it wrote itself.
pub fn share_lines(input: usize, weights: usize, output: &Blocks, threads: usize) -> bool {
    let [rows, columns] = output.block();
    let tiles = rows * columns.div_ceil(TILE);
    // No part may be much larger than the others.
    let even = tiles.is_multiple_of(threads) || tiles >= 4 * threads;
    even && input > weights
}

/// Whether threads should split depthwise convolutions of a map by channels rather than by lines: where blocks have so few rows that most
/// lines of a thread are next to those of another thread.
pub fn share_channels(map: &Blocks) -> bool {
    let [above, _, below, _] = map.halo();
    4 * (above + below) > map.block()[0]
}

/// Whether a dense matrix of `elements` does not stay in the caches between two tiles, so that all tiles should share one pass over it.
pub fn tiles_share_weights(elements: usize) -> bool {
    elements > 2 << 20
}

/// Whether sixteen maps of `largest_map` elements, the largest of the network, stay in the second-level cache. Where they do not, it is faster to run
/// one sample after the other, over blocks.
pub fn tile_fits(largest_map: usize) -> bool {
    largest_map * LANES <= 256 << 10
}

/// Most samples of `vectors` vectors each in a block of a network whose layers are not all over tiles: enough to share each load of weights many times, and no more
/// than the caches hold. With `bytes` there may be tiles of 64 vectors, of which the last is seldom full: twice as many, which took no longer.
pub fn vectors_together(vectors: usize, bytes: bool) -> usize {
    let most = if bytes { 512 } else { 256 };
    (most / vectors.max(1)).max(1)
}

/// How many of `n` samples go through the last layers of a network together where large maps are run sample by sample: up to sixteen, in groups of
/// about the same size.
pub fn even_blocks(n: usize) -> usize {
    n.div_ceil(n.div_ceil(LANES).max(1))
}

/// Whether a convolution of `n` samples, between two maps `[c, h, w]`, should run over tiles in a plan whose maps are in blocks: where the samples
/// fill more lanes than the blocks of a small map, or fill all of them and blocks are one line, for which a weight is loaded to be used once.
pub fn prefer_tiles([input, output]: [[usize; 3]; 2], n: usize) -> bool {
    /// Tiles of more pixels do not stay in the second-level cache.
    const MOST: usize = 64;
    /// Tiles must need at most this share of the lines of blocks, to pay for the conversion to tiles and back.
    const WORTH: f64 = 0.85;
    let n = n.min(LANES);
    let pixels = |[_, h, w]: [usize; 3]| h * w;
    let lines = Blocks::of_map(output).lines();
    let fewer_lines = (pixels(output) as f64) < WORTH * (lines * n) as f64;
    n >= LANES / 2
        && pixels(input).max(pixels(output)) <= MOST
        && (fewer_lines || (lines == 1 && n == LANES))
}

/// Whether a sparse convolution of `nonzeros` should convert its input to blocks, which fill whole vectors, instead of running over rows, which fill eight
/// lanes. In a small layer the conversion costs more than it gains, and the blocks of a map of a few pixels have mostly empty lanes.
pub fn prefer_blocks(isa: Isa, nonzeros: usize, output: &Blocks) -> bool {
    let [_, height, width] = output.map();
    let pixels = height * width;
    let fills_more = isa.level().lanes() == LANES && 2 * pixels >= output.lines() * LANES;
    nonzeros * pixels >= if fills_more { 1 << 18 } else { 1 << 20 }
}

/// Whether a dense convolution of `multiply_adds` should convert its input to blocks of `input` floats: where it is large or uses each input often.
/// Depthwise convolutions do neither, but are usually followed by pointwise ones, which need blocks.
pub fn prefer_dense_blocks(multiply_adds: usize, input: usize, depthwise: bool) -> bool {
    multiply_adds >= if depthwise { 1 << 17 } else { 1 << 20 } || multiply_adds >= 32 * input
}

/// Whether dense convolutions should run direct, over blocks ([`crate::dense_blocks::DenseBlockConv`]).
///
/// Sixteen registers are enough for four channels at once only. These use a line of input too seldom for the bandwidth of the second-level cache,
/// and im2col is 1.7 times as fast.
pub fn prefer_direct(isa: Isa) -> bool {
    dense_tile(isa)[0] == 8
}

/// Vectors of rows in a panel of [`crate::panel_gemm::PanelGemm`], and most samples whose sums are in registers at once: with 32 registers 24 sums,
/// with 16 twelve, beside the weights and an input.
pub(crate) const fn panel_tile(level: Level) -> [usize; 2] {
    match level {
        Level::Neon | Level::Avx512 => [3, 8],
        Level::Avx2 => [2, 6],
        // A vector of plain Rust is several registers.
        Level::Scalar => [1, 2],
    }
}

/// How many samples of `cols` inputs go through all panels of a dense weight together: as many as stay in the second-level cache, but enough to hide the time
/// of reading the weights.
pub(crate) fn panel_block(cols: usize) -> usize {
    /// Floats of the inputs.
    const CACHE: usize = 64 << 10;
    (CACHE / cols.max(1)).max(16)
}

/// How [`crate::spmm::Spmm`] divides a matrix and its tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpmmTile {
    /// Columns of a block. Their lines stay in the first-level cache, beside weights and outputs.
    pub columns: usize,
    /// Tiles processed at once.
    pub lines: usize,
}

/// The tile by density. With fewer lines at once more columns stay in the cache; with more lines each load of weights and offsets is used more
/// often; with smaller blocks sums are stored more often. Blocks have about the same number of columns each.
pub(crate) fn spmm_tile(isa: Isa, weight: &Csr) -> SpmmTile {
    /// Columns of two lines that mostly stay in the first-level cache.
    const TWO: usize = 320;
    let elements = (weight.rows() * weight.cols()).max(1);
    let density = weight.nonzeros() as f64 / elements as f64;
    let several_lines = isa.level().lanes() == LANES;
    let few = weight.cols() <= TWO;
    let (most, lines) = match density {
        d if d <= 0.15 && several_lines && few => (TWO, 2),
        d if d <= 0.03 => (1024, 1),
        d if d <= 0.07 || !several_lines => (512, 1),
        d if d <= 0.15 => (256, 2),
        d if d <= 0.35 => (192, 2),
        _ => (384, 4),
    };
    let blocks = weight.cols().div_ceil(most).max(1);
    SpmmTile {
        columns: weight.cols().div_ceil(blocks).max(1),
        lines,
    }
}

/// Input channels in a block of a convolution: `floats` are the inputs of one strip of outputs per channel, `weights` the non-zero weights of one
/// filter per channel.
pub(crate) fn conv_block(floats: usize, weights: f64) -> usize {
    /// Floats of input that fit in the first-level cache.
    const CACHE: usize = 6 * 1024;
    /// Weights of a filter in a block that make up for loading and storing its sums.
    const WORTH: f64 = 32.0;
    let worth = (WORTH / weights.max(0.01)).ceil() as usize;
    (CACHE / floats).max(worth).max(1)
}

/// How many outputs a convolution computes at once: as many as there are registers for their sums.
#[derive(Debug, Clone, Copy)]
struct ConvTiles {
    /// Sparse, over blocks: lines of a row, of four channels each.
    block: usize,
    /// Sparse, over rows: rows, of four channels each.
    row: usize,
    /// Dense, over blocks: output channels, and lines of a row.
    dense: [usize; 2],
}

fn conv_tiles(isa: Isa) -> ConvTiles {
    match isa.level() {
        Level::Scalar => ConvTiles {
            block: 1,
            row: 1,
            dense: [4, 1],
        },
        Level::Avx2 => ConvTiles {
            block: 3,
            row: 3,
            dense: [4, 3],
        },
        Level::Neon | Level::Avx512 => ConvTiles {
            block: TILE,
            row: 6,
            dense: [8, 3],
        },
    }
}

/// Most lines of a row that a sparse convolution over blocks computes at once, for four channels.
pub(crate) fn block_tile(isa: Isa) -> usize {
    conv_tiles(isa).block
}

/// Most rows that a convolution over rows computes at once, for four channels.
pub(crate) fn row_tile(isa: Isa) -> usize {
    conv_tiles(isa).row
}

/// Output channels, and lines of a row, that a dense convolution over blocks computes at once.
pub(crate) fn dense_tile(isa: Isa) -> [usize; 2] {
    conv_tiles(isa).dense
}

/// Into how many parts a convolution over spatial blocks cuts its `channels` input channels: `floats` are the inputs of a tile of outputs per
/// channel, `weights` the non-zero weights of one filter per channel.
pub(crate) fn channel_blocks(channels: usize, floats: usize, weights: f64) -> usize {
    /// Floats of a part that stay in the first-level cache.
    const CACHE: f64 = 8192.0;
    /// Weights of a filter in a part that make up for loading and storing its sums, even if inputs then come from the second-level cache.
    const WORTH: f64 = 16.0;
    /// The largest part that is worth it, in first-level caches.
    const MOST: f64 = 2.3;
    let fit = CACHE / floats as f64;
    let block = fit
        .max((WORTH / weights.max(0.01)).min(MOST * fit))
        .max(1.0);
    ((channels as f64 / block).round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tile of bytes takes as long for a few vectors as for all.
    #[test]
    fn few_vectors_are_multiplied_in_bytes_where_these_are_looked_up() {
        let costs = Costs::default();
        let size = Size {
            rows: 1536,
            cols: 384,
            nonzeros: 1536 * 384 / 5,
            ..Size::default()
        };
        for dot in Dot::available() {
            let ns = |n| int8::Linear::ns(&costs, dot, Int8Input::PerVector, size, n);
            assert_eq!(ns(65) < ns(64) + ns(63), dot.looks_up(), "{dot}");
            assert_eq!(ns(12) < ns(40), dot.looks_up(), "{dot}");
            assert_eq!(ns(40), ns(64), "{dot}");
            let scales = (dot, Int8Input::PerVector);
            let worth = prefer_int8_linear(&costs, scales, size, (Layout::Tiled, 12));
            assert!(worth || !dot.looks_up(), "{dot}");
        }
    }

    /// The dense rival of a sparse kernel over tiles is over vectors as they lie.
    #[test]
    fn a_sparse_layer_must_win_by_the_margin_in_whatever_layout_the_dense_one_is() {
        let size = Size {
            rows: 512,
            cols: 512,
            nonzeros: 512 * 512 / 2,
            ..Size::default()
        };
        let (n, edge) = (64, 0);
        let kernel = |share: f64| {
            let mut costs = Costs::default();
            let dense = costs.panel_gemm(size, n);
            costs.gemm = 1.0;
            costs.spmm = [share * dense / (size.nonzeros as f64 * costs.tiles(n)); 8];
            let layout = linear_layout(&costs, &[size], true, edge, n);
            linear(&costs, size, layout, n)
        };
        assert_eq!(kernel(0.93), LinearKernel::Spmm);
        assert_eq!(kernel(0.97), LinearKernel::PanelGemm);
        assert_eq!(kernel(1.1), LinearKernel::PanelGemm);
    }

    #[test]
    fn few_samples_of_a_dense_layer_share_its_weights() {
        let size = Size {
            rows: 300,
            cols: 784,
            nonzeros: 300 * 784,
            ..Size::default()
        };
        let kernel = |n| linear(&Costs::default(), size, Layout::Single, n);
        assert_eq!(kernel(1), LinearKernel::Gemv);
        for n in [2, 3, 5, 16, 100] {
            assert_eq!(kernel(n), LinearKernel::PanelGemm, "{n}");
        }
    }
}
