//! Which kernel a layer gets: the only place with thresholds. What they weigh is in [`crate::cost`].

use sparsevd_model::Csr;

use crate::blocks::{Blocks, TILE};
use crate::cost::{Costs, Size};
use crate::{Isa, LANES, Layout, Level, Precision};

/// Kernel of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearKernel {
    /// [`crate::dense::Gemv`], over [`Layout::Single`].
    Gemv,
    /// [`crate::dense::Linear::run_tiled`], over [`Layout::Tiled`].
    Gemm,
    /// [`crate::spmv::Spmv`], over [`Layout::Single`].
    Spmv,
    /// [`crate::spmm::Spmm`], over [`Layout::Tiled`].
    Spmm,
}

/// Whether a convolution of that density should run sparse; depthwise ones stay dense.
pub fn prefer_sparse_conv(density: f64, per_group_inputs: usize, groups: usize) -> bool {
    let depthwise = per_group_inputs == 1 && groups > 1;
    !depthwise && density <= 0.7
}

/// The layout in which a batch of `n` is best run through a network with convolutions: tiles once lanes are mostly filled.
pub fn batch_layout(n: usize) -> Layout {
    if n < 6 { Layout::Single } else { Layout::Tiled }
}

/// The kernel of a linear layer for `n` samples in that layout: the one that should take less time, by [`Costs`]. Lanes that the batch does
/// not fill cost sparse and dense tiles alike.
pub fn linear(costs: &Costs, size: Size, layout: Layout, n: usize) -> LinearKernel {
    /// A layer must be expected to win by this much to run sparse, so that it never loses by more than a few per cent.
    const MARGIN: f64 = 0.95;
    match layout {
        Layout::Tiled if costs.spmm(size, n) < MARGIN * costs.gemm(size, n) => LinearKernel::Spmm,
        Layout::Tiled => LinearKernel::Gemm,
        _ if costs.spmv(size) < MARGIN * costs.gemv(size) => LinearKernel::Spmv,
        _ => LinearKernel::Gemv,
    }
}

/// Expected nanoseconds of `n` samples through linear layers, sparse where that is allowed and better, in that layout. `edge` is the number of
/// inputs and outputs of the network, which are brought into tiles and back.
pub fn linear_time(
    costs: &Costs,
    sizes: &[Size],
    sparse: bool,
    edge: usize,
    layout: Layout,
    n: usize,
) -> f64 {
    /// What a call of a kernel for one sample takes beside its weights: rows that are shorter than a vector, a last store.
    const CALL: f64 = 50.0;
    let layer = |size: &Size| match layout {
        Layout::Tiled if sparse => costs.spmm(*size, n).min(costs.gemm(*size, n)),
        Layout::Tiled => costs.gemm(*size, n),
        _ if sparse => n as f64 * (CALL + costs.spmv(*size).min(costs.gemv(*size))),
        _ => n as f64 * (CALL + costs.gemv(*size)),
    };
    // Lanes that nobody fills are written too.
    let edges = match layout {
        Layout::Tiled => (edge * n.next_multiple_of(LANES)) as f64 * costs.element,
        _ => 0.0,
    };
    sizes.iter().map(layer).sum::<f64>() + edges
}

/// The layout in which `n` samples are best run through a network of linear layers alone.
pub fn linear_layout(costs: &Costs, sizes: &[Size], sparse: bool, edge: usize, n: usize) -> Layout {
    let time = |layout| linear_time(costs, sizes, sparse, edge, layout, n);
    if time(Layout::Single) <= time(Layout::Tiled) {
        Layout::Single
    } else {
        Layout::Tiled
    }
}

/// How many of the last of `n` samples, few in their half of a tile, are better run one by one.
pub fn last_alone(costs: &Costs, sizes: &[Size], edge: usize, n: usize) -> usize {
    let rest = n % (LANES / 2);
    let tiled = |n| linear_time(costs, sizes, true, edge, Layout::Tiled, n);
    let alone = linear_time(costs, sizes, true, edge, Layout::Single, rest);
    // Kept twice, weights must pay.
    if rest < n && tiled(n - rest) + alone < 0.9 * tiled(n) {
        rest
    } else {
        0
    }
}

/// Most inputs that are not zero for which a layer should look at those alone, or `None` where it should always look at all.
///
/// `share` is how many inputs of samples were not zero, where that was measured; where it was not, such a layer is only worth its second
/// packing if zeros pay from a quarter of active inputs on, which is what rectified layers commonly leave.
pub fn most_active(costs: &Costs, size: Size, share: Option<f64>) -> Option<usize> {
    let most = costs.most_active(size);
    let wanted = share.unwrap_or(0.25) * size.cols as f64;
    (size.precision == Precision::F32 && wanted <= most as f64).then_some(most)
}

/// Threads worth waking for a run of that many multiply-adds, at most `most`: a wake-up costs tens of microseconds.
pub fn threads(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 1_000_000).clamp(1, most.max(1))
}

/// Parts into which a layer of that many multiply-adds is worth cutting, at most `most`, by threads that are awake already.
pub fn parts(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 100_000).clamp(1, most.max(1))
}

/// Whether so many threads should share the lines of a convolution over blocks, with weights of which so many are multiplied, rather than its
/// channels. Each then reads all weights, but of the input, so many floats, mostly lines that it made itself.
pub fn share_lines(input: usize, weights: usize, output: &Blocks, threads: usize) -> bool {
    let [rows, columns] = output.block();
    let tiles = rows * columns.div_ceil(TILE);
    // A part must not have much more to do than the others.
    let even = tiles.is_multiple_of(threads) || tiles >= 4 * threads;
    even && input > weights
}

/// Whether threads should share the channels, not the lines, of a map for depthwise convolutions: where it has so few rows in a block that most
/// lines of a thread lie next to another's.
pub fn share_channels(map: &Blocks) -> bool {
    let [above, _, below, _] = map.halo();
    4 * (above + below) > map.block()[0]
}

/// Whether that many dense weights fall out of the caches between two tiles, so that tiles should share one pass over them.
pub fn tiles_share_weights(elements: usize) -> bool {
    elements > 2 << 20
}

/// Whether maps of sixteen samples, the largest of so many elements each, stay in the second-level cache. Where they do not, samples are better
/// run one after the other, over blocks of their maps.
pub fn tile_fits(largest_map: usize) -> bool {
    largest_map * LANES <= 256 << 10
}

/// Samples that go through the last layers of a network together, of `n` where large maps go sample after sample: up to sixteen, as evenly
/// as can be.
pub fn even_blocks(n: usize) -> usize {
    n.div_ceil(n.div_ceil(LANES).max(1))
}

/// Whether a convolution from one map to another, `[c, h, w]`, of `n` samples together should run over tiles in a plan whose maps are in blocks:
/// where samples fill more of the lanes than blocks of a small map do.
pub fn prefer_tiles([input, output]: [[usize; 3]; 2], n: usize) -> bool {
    /// Tiles of more pixels fall out of the second-level cache.
    const MOST: usize = 64;
    /// What lanes must be worth, for the way into tiles and back.
    const WORTH: f64 = 0.85;
    let n = n.min(LANES);
    let pixels = |[_, h, w]: [usize; 3]| h * w;
    let lines = Blocks::of_map(output).lines() * n;
    n >= LANES / 2
        && pixels(input).max(pixels(output)) <= MOST
        && (pixels(output) as f64) < WORTH * lines as f64
}

/// Whether a sparse convolution of so many multiply-adds should bring its input into blocks, which fill whole vectors, instead of running over
/// rows: a small layer does not make up for the change of layout.
pub fn prefer_blocks(multiply_adds: usize) -> bool {
    multiply_adds >= 1 << 20
}

/// Whether a dense convolution of so many multiply-adds should bring its input into blocks, which take so many floats: where it is large or uses
/// each of its inputs often. Depthwise ones do little with each pixel, and are read by pointwise ones, which want blocks.
pub fn prefer_dense_blocks(multiply_adds: usize, input: usize, depthwise: bool) -> bool {
    multiply_adds >= if depthwise { 1 << 17 } else { 1 << 20 } || multiply_adds >= 32 * input
}

/// Whether dense convolutions should run direct, over blocks ([`crate::dense_blocks::DenseBlockConv`]).
///
/// Four channels at once, for which sixteen registers are enough, use each line of input too seldom to take it from the second-level
/// cache: there im2col is 1.7 times as fast.
pub fn prefer_direct(isa: Isa) -> bool {
    dense_tile(isa)[0] == 8
}

/// How [`crate::spmm::Spmm`] cuts its work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpmmTile {
    /// Columns in a block: their lines stay in the first-level cache beside weights and outputs.
    pub columns: usize,
    /// Tiles processed at once.
    pub lines: usize,
}

/// Fewer lines at once hold more columns in the cache; more lines share each load of weights and offsets; small blocks store sums
/// more often. Which matters most depends on the density. Blocks have about the same number of columns each.
pub(crate) fn spmm_tile(isa: Isa, weight: &Csr) -> SpmmTile {
    /// Columns of two lines that stay in the first-level cache for the most part.
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

/// Input channels in a block of a convolution, when the inputs of one strip of outputs take so many floats per channel, and
/// so many weights of one filter are not zero per channel.
pub(crate) fn conv_block(floats: usize, weights: f64) -> usize {
    /// Floats of the first-level cache that inputs may take.
    const CACHE: usize = 6 * 1024;
    /// Weights of a filter in a block that pay for loading and storing its sums.
    const WORTH: f64 = 16.0;
    let worth = (WORTH / weights.max(0.01)).ceil() as usize;
    (CACHE / floats).max(worth).max(1)
}

/// How many outputs a convolution sums at once, so that their sums stay in the registers of an instruction set.
#[derive(Debug, Clone, Copy)]
struct ConvTiles {
    /// Lines of a row, of four channels, over blocks.
    block: usize,
    /// Rows, of four channels, over rows.
    row: usize,
    /// Output channels and lines of a row, dense over blocks.
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

/// Most lines of a row that a sparse convolution over blocks takes at once.
pub(crate) fn block_tile(isa: Isa) -> usize {
    conv_tiles(isa).block
}

/// Most rows that a convolution over rows takes at once.
pub(crate) fn row_tile(isa: Isa) -> usize {
    conv_tiles(isa).row
}

/// Output channels and lines whose sums a dense convolution over blocks keeps in registers.
pub(crate) fn dense_tile(isa: Isa) -> [usize; 2] {
    conv_tiles(isa).dense
}

/// Blocks of input channels of a convolution over blocks, when a tile of outputs reads so many floats per channel, and so many weights of
/// one filter are not zero per channel.
pub(crate) fn channel_blocks(channels: usize, floats: usize, weights: f64) -> usize {
    /// Floats of a block that stay in the first-level cache.
    const CACHE: f64 = 8192.0;
    /// Weights of a filter in a block that pay for loading and storing its sums, even where inputs then come from the second-level cache.
    const WORTH: f64 = 16.0;
    /// How many times the first-level cache is then the most that pays.
    const MOST: f64 = 2.3;
    let fit = CACHE / floats as f64;
    let block = fit
        .max((WORTH / weights.max(0.01)).min(MOST * fit))
        .max(1.0);
    ((channels as f64 / block).round() as usize).max(1)
}
