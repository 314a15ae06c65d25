//! Which kernel a layer gets: the only place with thresholds.

use sparsevd_model::Csr;

use crate::simd::lanes;
use crate::{Isa, LANES, Layout};

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

/// Whether a linear layer `[rows, cols]` of that density should run sparse at that batch size.
///
/// At density 0.5 the sparse kernels were 1.4 times (batch 1) and 1.3 to 1.8 times (tiles) as fast as the dense ones; time goes with density.
pub fn prefer_sparse(density: f64, _rows: usize, _cols: usize, batch: usize) -> bool {
    match batch_layout(batch) {
        // Lanes that the batch does not fill cost both kernels the same.
        Layout::Tiled => density <= 0.65,
        _ => density <= 0.6,
    }
}

/// Whether a convolution of that density should run sparse; depthwise ones stay dense.
pub fn prefer_sparse_conv(
    density: f64,
    per_group_inputs: usize,
    groups: usize,
    batch: usize,
) -> bool {
    let _ = batch;
    let depthwise = per_group_inputs == 1 && groups > 1;
    !depthwise && density <= 0.7
}

/// The layout in which a batch of `n` is best run: tiles once lanes are mostly filled.
pub fn batch_layout(n: usize) -> Layout {
    if n < 6 { Layout::Single } else { Layout::Tiled }
}

/// The kernel of a linear layer `[rows, cols]` with that density at that batch size.
pub fn linear(density: f64, rows: usize, cols: usize, batch: usize) -> LinearKernel {
    match (
        prefer_sparse(density, rows, cols, batch),
        batch_layout(batch),
    ) {
        (true, Layout::Tiled) => LinearKernel::Spmm,
        (true, _) => LinearKernel::Spmv,
        (false, Layout::Tiled) => LinearKernel::Gemm,
        (false, _) => LinearKernel::Gemv,
    }
}

/// Threads worth waking for a run of that many multiply-adds, at most `most`: a wake-up costs tens of microseconds.
pub fn threads(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 1_000_000).clamp(1, most.max(1))
}

/// Parts into which a layer of that many multiply-adds is worth cutting, at most `most`, by threads that are awake already.
pub fn parts(multiply_adds: usize, most: usize) -> usize {
    (multiply_adds / 100_000).clamp(1, most.max(1))
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

/// Whether a convolution with so many non-zeros and output pixels should bring its input into blocks, which take so many floats.
///
/// It then runs a third faster than over planes, but a lone small layer does not make up for the change of layout, unless it
/// uses each of its inputs often. Depthwise ones do little with each pixel, and are read by pointwise ones, which want blocks.
pub fn prefer_blocks(nonzeros: usize, pixels: usize, input: usize, depthwise: bool) -> bool {
    let multiply_adds = nonzeros * pixels;
    multiply_adds >= if depthwise { 1 << 17 } else { 1 << 20 } || multiply_adds >= 32 * input
}

/// Whether dense convolutions should run direct, over blocks ([`crate::dense_blocks::DenseBlockConv`]).
///
/// Four channels at once, for which sixteen registers are enough, use each line of input too seldom to take it from the second-level
/// cache: there im2col is 1.7 times as fast.
pub fn prefer_direct(isa: Isa) -> bool {
    dense_tile(isa).0 == 8
}

/// Whether the columns of zero inputs should be skipped ([`crate::spmv::InputSparse`]), given the share of inputs that are not zero.
pub fn prefer_input_sparse(density: f64, active_fraction: f64) -> bool {
    // Cycles per non-zero: of all inputs, and of active ones when only they are looked at. Measured on layers of LeNet size, where
    // columns hold few non-zeros and each active one costs a jump. From density 0.02 to 0.05 the layer measured was LeNet-300-100's
    // first after its dead units left, 92x784 at 0.0225: 0.47 us of all inputs, 0.73 us of the active fifth.
    let (all_inputs, active_inputs) = match density {
        d if d >= 0.2 => (0.22, 2.4),
        d if d >= 0.1 => (0.31, 2.7),
        d if d >= 0.05 => (0.44, 3.0),
        d if d >= 0.02 => (0.72, 8.0),
        d if d >= 0.01 => (1.1, 4.6),
        _ => (1.9, 6.5),
    };
    active_fraction * active_inputs < all_inputs
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
/// more often. Which matters most depends on the density.
pub(crate) fn spmm_tile(isa: Isa, weight: &Csr) -> SpmmTile {
    let elements = (weight.rows() * weight.cols()).max(1);
    let density = weight.nonzeros() as f64 / elements as f64;
    let several_lines = lanes(isa) == LANES;
    let (columns, lines) = match density {
        d if d <= 0.03 => (1024, 1),
        d if d <= 0.07 || !several_lines => (512, 1),
        d if d <= 0.15 => (256, 2),
        d if d <= 0.35 => (192, 2),
        _ => (1024, 4),
    };
    SpmmTile { columns, lines }
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

/// Most lines of a row that a convolution over blocks takes at once: their sums, for four channels, stay in registers.
pub(crate) fn block_tile(isa: Isa) -> usize {
    match isa.name() {
        "avx2" => 3,
        "scalar" => 1,
        _ => crate::blocks::TILE,
    }
}

/// Output channels and lines whose sums a dense convolution over blocks keeps in registers.
pub(crate) fn dense_tile(isa: Isa) -> (usize, usize) {
    match isa.name() {
        "avx2" => (4, 3),
        "scalar" => (4, 1),
        _ => (8, 3),
    }
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
