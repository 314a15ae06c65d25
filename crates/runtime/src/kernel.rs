//! The kernels of a plan behind one call.

use sparsevd_kernels::bands::Banded;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::channels::{self, Affine};
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::dense::{Conv, Gemv, Linear};
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::elementwise::{self, Arithmetic};
use sparsevd_kernels::pool_blocks::{self, BlockPool};
use sparsevd_kernels::reblock::{Reblock, Subsample, Unpack};
use sparsevd_kernels::{
    Activation, Clamp, Isa, LANES, Layout, Pack,
    conv::SparseConv,
    place,
    pool::Pool,
    spmm::Spmm,
    spmv::{ByActivity, Spmv},
    tiles, unpack_tiles,
};

/// A packed layer, or one of the operations without weights.
#[derive(Debug, Clone)]
pub(crate) enum Kernel {
    Spmv(Spmv),
    ByActivity(ByActivity),
    Spmm(Spmm),
    Gemv(Gemv),
    Gemm(Linear),
    SparseConv(SparseConv),
    BlockConv(BlockConv),
    RowConv(RowConv),
    DenseConv(Conv),
    DenseBlockConv(DenseBlockConv),
    Depthwise(Depthwise),
    Pool(Pool, Layout),
    BlockPool(BlockPool),
    /// The mean of each channel of maps in blocks.
    BlockAverage(Blocks),
    /// The activation alone, in place, as are the next three.
    Clamp,
    Activation(Activation),
    Affine(Affine, Layout),
    Softmax {
        features: usize,
    },
    Arithmetic(Arithmetic),
    /// The second operand has one number per channel of maps of `area` pixels.
    PerChannel {
        op: Arithmetic,
        layout: Layout,
        area: usize,
    },
    Pad {
        layout: Layout,
        map: [usize; 2],
        pads: [usize; 4],
        value: f32,
    },
    /// `features` elements of each sample, `offset` into its `total`.
    Place {
        layout: Layout,
        features: usize,
        offset: usize,
        total: usize,
    },
    /// From row-major samples to tiles.
    Pack(Pack),
    /// From tiles to row-major samples.
    Unpack {
        features: usize,
    },
    /// From plain maps to blocks.
    PackBlocks(Blocks),
    /// From blocks to plain maps.
    UnpackBlocks(Unpack),
    /// From blocks to other blocks.
    Reblock(Reblock),
    /// From blocks to blocks of fewer pixels.
    Subsample(Subsample),
    Copy,
}

/// What a kernel reads and writes; `x` is empty where it works in place on `y`.
pub(crate) struct Operands<'a> {
    pub x: &'a [f32],
    /// The second operand: what else an element-wise operation takes, or a convolution adds; `None` where there is none, or it is the first again.
    pub x2: Option<&'a [f32]>,
    pub y: &'a mut [f32],
    pub scratch: &'a mut [f32],
    /// Samples.
    pub n: usize,
    pub clamp: Clamp,
}

impl Kernel {
    /// Runs over `n` samples.
    pub fn run(&self, isa: Isa, op: Operands<'_>) {
        let Operands {
            x,
            x2,
            y,
            scratch,
            n,
            clamp,
        } = op;
        match self {
            Self::Spmv(k) => each_sample(x, y, n, |x, y| k.run(x, y, clamp)),
            Self::ByActivity(k) => each_sample(x, y, n, |x, y| k.run(x, y, clamp)),
            Self::Gemv(k) => each_sample(x, y, n, |x, y| k.run(x, y, clamp)),
            Self::Spmm(k) => k.run(x, y, n, clamp),
            Self::Gemm(k) => k.run_tiled(x, y, tiles(n), clamp),
            Self::SparseConv(k) => k.run(x, y, tiles(n), scratch, clamp),
            Self::BlockConv(k) => k.run_onto(x, x2, y, n.div_ceil(k.samples()), clamp),
            Self::RowConv(k) => k.run(x, y, n, scratch, clamp),
            Self::DenseConv(k) => k.run(x, y, n, scratch, clamp),
            Self::DenseBlockConv(k) => k.run_onto(x, x2, y, n, clamp),
            Self::Depthwise(k) => k.run(x, y, n, clamp),
            Self::BlockPool(k) => k.run(x, y, n),
            Self::BlockAverage(blocks) => pool_blocks::global_average(isa, blocks, x, n, y),
            Self::Pool(k, layout) => k.run(x, y, n.div_ceil(layout.samples())),
            Self::Clamp => elementwise::clamp(isa, y, clamp),
            Self::Activation(function) => function.apply(isa, y),
            Self::Affine(k, layout) => k.run(*layout, y, n.div_ceil(layout.samples()), clamp),
            Self::Softmax { features } => {
                elementwise::softmax(isa, Layout::Single, y, *features, n);
            }
            Self::Arithmetic(op) => {
                elementwise::arithmetic(isa, *op, x, x2.unwrap_or(x), y, clamp);
            }
            Self::PerChannel { op, layout, area } => {
                channels::per_channel(isa, *layout, *op, x, x2.unwrap_or(x), y, *area, clamp);
            }
            Self::Pad {
                layout,
                map,
                pads,
                value,
            } => place::pad(*layout, x, y, *map, *pads, *value),
            Self::Place {
                layout,
                features,
                offset,
                total,
            } => place::place(*layout, x, y, *features, *offset, *total),
            Self::Pack(k) => k.run(x, n, y),
            Self::Unpack { features } => unpack_tiles(isa, x, n, *features, y),
            Self::PackBlocks(blocks) => blocks.pack(isa, x, n, y),
            Self::UnpackBlocks(unpack) => unpack.run(x, n, y),
            Self::Reblock(reblock) => reblock.run(x, n, y, scratch),
            Self::Subsample(subsample) => subsample.run(x, n, y),
            Self::Copy => y.copy_from_slice(x),
        }
    }

    /// Name for people: `{isa}-{format}-{dtype}-{tile}`, or what the operation does.
    pub fn name(&self) -> String {
        match self {
            Self::Spmv(k) => k.name(),
            Self::ByActivity(k) => k.name(),
            Self::Spmm(k) => k.name(),
            Self::Gemv(k) => k.name().into(),
            Self::Gemm(k) => k.name().into(),
            Self::SparseConv(k) => k.name().into(),
            Self::BlockConv(k) => k.name().into(),
            Self::RowConv(k) => k.name().into(),
            Self::DenseConv(k) => k.name().into(),
            Self::DenseBlockConv(k) => k.name().into(),
            Self::Depthwise(k) => k.name().into(),
            Self::BlockPool(_) | Self::BlockAverage(_) => "pool-blocks-f32".into(),
            Self::Pool(..) => "pool-f32".into(),
            Self::Clamp => "clamp-in-place".into(),
            Self::Activation(function) => format!("{}-in-place", function.name()),
            Self::Affine(..) => "affine-in-place".into(),
            Self::Softmax { .. } => "softmax-in-place".into(),
            Self::Arithmetic(op) => op.name().into(),
            Self::PerChannel { op, .. } => format!("{}-per-channel", op.name()),
            Self::Pad { .. } => "pad-f32".into(),
            Self::Place { .. } => "place-f32".into(),
            Self::Pack(_) => format!("pack-1x{LANES}"),
            Self::Unpack { .. } => format!("unpack-{LANES}x1"),
            Self::PackBlocks(_) => "pack-blocks".into(),
            Self::UnpackBlocks(_) => "unpack-blocks".into(),
            Self::Reblock(_) => "reblock".into(),
            Self::Subsample(_) => "subsample".into(),
            Self::Copy => "copy".into(),
        }
    }

    /// Bytes of weights, indices and biases.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Spmv(k) => k.bytes(),
            Self::ByActivity(k) => k.bytes(),
            Self::Spmm(k) => k.bytes(),
            Self::Gemv(k) => k.bytes(),
            Self::Gemm(k) => k.bytes(),
            Self::SparseConv(k) => k.bytes(),
            Self::BlockConv(k) => k.bytes(),
            Self::RowConv(k) => k.bytes(),
            Self::DenseConv(k) => k.bytes(),
            Self::DenseBlockConv(k) => k.bytes(),
            Self::Depthwise(k) => k.bytes(),
            Self::Affine(k, _) => k.bytes(),
            _ => 0,
        }
    }

    /// Samples that it takes at once.
    pub fn samples(&self) -> usize {
        match self {
            Self::SparseConv(_) => LANES,
            _ => 1,
        }
    }

    /// Whether it reads and writes one buffer.
    pub fn in_place(&self) -> bool {
        matches!(
            self,
            Self::Clamp | Self::Activation(_) | Self::Affine(..) | Self::Softmax { .. }
        )
    }

    /// Whether it can add a second operand, of the shape and layout of its output, before the activation.
    pub fn takes_residual(&self) -> bool {
        match self {
            Self::BlockConv(k) => k.takes_residual(),
            Self::DenseBlockConv(_) => true,
            _ => false,
        }
    }

    /// The kernel as one whose lines threads may share.
    pub fn banded(&self) -> Option<&dyn Banded> {
        match self {
            Self::BlockConv(k) => Some(k),
            Self::DenseBlockConv(k) => Some(k),
            Self::Depthwise(k) => Some(k),
            Self::BlockPool(k) => Some(k),
            _ => None,
        }
    }

    /// Whether it multiplies by stored non-zeros alone.
    pub fn is_sparse(&self) -> bool {
        matches!(
            self,
            Self::Spmv(_)
                | Self::ByActivity(_)
                | Self::Spmm(_)
                | Self::SparseConv(_)
                | Self::BlockConv(_)
                | Self::RowConv(_)
        )
    }

    /// Elements of scratch that a run needs.
    pub fn scratch_len(&self) -> usize {
        match self {
            Self::SparseConv(k) => k.scratch_len(),
            Self::RowConv(k) => k.scratch_len(),
            Self::DenseConv(k) => k.scratch_len(),
            Self::Reblock(k) => k.scratch_len(),
            _ => 0,
        }
    }
}

/// Runs a kernel for single samples over each sample of a batch.
#[inline]
fn each_sample(x: &[f32], y: &mut [f32], n: usize, run: impl Fn(&[f32], &mut [f32])) {
    if n == 1 {
        return run(x, y);
    }
    let (inn, out) = (x.len() / n.max(1), y.len() / n.max(1));
    for s in 0..n {
        run(&x[s * inn..][..inn], &mut y[s * out..][..out]);
    }
}
