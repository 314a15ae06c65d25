//! Memory layouts of activations, and conversion between single samples and tiles.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::int8::Grid;
use crate::isa::multiversion;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
#[cfg(target_arch = "x86_64")]
use crate::transpose::{lines_of_quads, transpose};
use crate::{Isa, length};

/// Samples in a tile, the innermost dimension of [`Layout::Tiled`]; also the number of spatial blocks of a map.
pub const LANES: usize = 16;

/// Memory layout of the activations of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Sample after sample: `[n][features]` or `[n][c][h][w]`. The count of a run is the number of samples.
    Single,
    /// Sixteen samples innermost: `[tile][features][16]` or `[tile][c][h][w][16]`. The count of a run is the number of tiles.
    Tiled,
    /// Sample after sample, each map cut into sixteen spatial blocks: `[n][c][rows][columns][16]`. The count is the number of samples.
    Blocks(Blocks),
    /// As [`Layout::Blocks`], with a byte of a grid for each number ([`crate::int8`]); four of them take the place of a float.
    Bytes(Blocks, Grid),
}

impl Layout {
    /// Samples in one unit of the count: 1 or [`LANES`].
    pub fn samples(self) -> usize {
        match self {
            Self::Single | Self::Blocks(_) | Self::Bytes(..) => 1,
            Self::Tiled => LANES,
        }
    }
}

/// Number of tiles for `n` samples; the last may be partly empty.
pub fn tiles(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// Converts `[n][features]` to `[tile][features][16]`; lanes past the last sample become zero.
///
/// # Panics
/// When `src` is not `n * features` long or `dst` not `tiles(n) * features * 16`.
#[track_caller]
pub fn pack_tiles(isa: Isa, src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    length::check("samples", src.len(), [n, features]);
    length::check("tiles", dst.len(), [tiles(n), features, LANES]);
    if dst.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 {
        for t in 0..tiles(n) {
            let samples = (n - t * LANES).min(LANES);
            for f in (0..features).step_by(LANES) {
                let size = [samples, (features - f).min(LANES)];
                // SAFETY: an `Isa` of this level is only made where the features were detected; lengths were just checked.
                unsafe {
                    let from = src.as_ptr().add(t * LANES * features + f);
                    let to = dst.as_mut_ptr().add((t * features + f) * LANES);
                    transpose(from, features, size, to, LANES, LANES);
                }
            }
        }
        return;
    }
    pack(isa, src, [n, features], 0..features / QUAD, true, dst);
}

/// As [`pack_tiles`], but only for features that the next layers read: lines of other features keep their values.
///
/// # Invariants
/// - `quads` are below a fourth of `features`
#[derive(Debug, Clone)]
pub struct Pack {
    isa: Isa,
    features: usize,
    /// The groups of four features of which at least one is read.
    quads: Vec<u32>,
    /// Whether a feature past the last whole group of four is read.
    rest: bool,
}

impl Pack {
    /// All features.
    pub fn all(isa: Isa, features: usize) -> Self {
        Self::some(isa, &vec![true; features])
    }

    /// At least the features whose element of `read` is true.
    pub fn some(isa: Isa, read: &[bool]) -> Self {
        let (whole, rest) = read.as_chunks::<QUAD>();
        let quads = whole.iter().zip(0..).filter(|(q, _)| q.contains(&true));
        Self {
            isa,
            features: read.len(),
            quads: quads.map(|(_, number)| number).collect(),
            rest: rest.contains(&true),
        }
    }

    /// Converts `[n][features]` to `[tile][features][16]`; lanes past the last sample become zero.
    ///
    /// # Panics
    /// When `src` is not `n * features` long or `dst` not `tiles(n) * features * 16`.
    #[track_caller]
    pub fn run(&self, src: &[f32], n: usize, dst: &mut [f32]) {
        if self.packed() == self.features {
            return pack_tiles(self.isa, src, n, self.features, dst);
        }
        let quads = self.quads.iter().map(|&q| q as usize);
        pack(self.isa, src, [n, self.features], quads, self.rest, dst);
    }

    /// Number of features that are converted.
    pub fn packed(&self) -> usize {
        let rest = if self.rest { self.features % QUAD } else { 0 };
        self.quads.len() * QUAD + rest
    }
}

/// Converts `[tile][features][16]` to `[n][features]`.
///
/// # Panics
/// When `src` is not `tiles(n) * features * 16` long or `dst` not `n * features`.
#[track_caller]
pub fn unpack_tiles(isa: Isa, src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    length::check("tiles", src.len(), [tiles(n), features, LANES]);
    length::check("samples", dst.len(), [n, features]);
    if dst.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 {
        for t in 0..tiles(n) {
            let samples = (n - t * LANES).min(LANES);
            for f in (0..features).step_by(LANES) {
                let width = (features - f).min(LANES);
                // SAFETY: as in `pack_tiles`; only lines of existing features are read and only rows of existing samples written.
                unsafe {
                    let from = src.as_ptr().add((t * features + f) * LANES);
                    let to = dst.as_mut_ptr().add(t * LANES * features + f);
                    transpose(from, LANES, [width, samples], to, features, width);
                }
            }
        }
        return;
    }
    unpack(isa, src, features, dst);
}

/// Features that are packed together.
const QUAD: usize = 4;

/// Packs groups of four features, given by their numbers, and with `rest` the features past the last whole group.
#[track_caller]
fn pack(
    isa: Isa,
    src: &[f32],
    [n, features]: [usize; 2],
    quads: impl Iterator<Item = usize> + Clone,
    rest: bool,
    dst: &mut [f32],
) {
    length::check("samples", src.len(), [n, features]);
    length::check("tiles", dst.len(), [tiles(n), features, LANES]);
    if dst.is_empty() {
        return;
    }
    for t in 0..tiles(n) {
        let samples = (n - t * LANES).min(LANES);
        let src = &src[t * LANES * features..][..samples * features];
        let tile = &mut dst[t * features * LANES..][..features * LANES];
        pack_quads(isa, src, features, quads.clone(), tile);
        let behind = features - features % QUAD;
        for f in if rest { behind..features } else { 0..0 } {
            for lane in 0..LANES {
                tile[f * LANES + lane] = src.get(lane * features + f).copied().unwrap_or(0.0);
            }
        }
    }
}

/// Packs whole quads of the samples of one tile.
fn pack_quads(
    isa: Isa,
    src: &[f32],
    features: usize,
    quads: impl Iterator<Item = usize>,
    tile: &mut [f32],
) {
    let samples = src.len() / features.max(1);
    let _ = isa;
    #[cfg(target_arch = "x86_64")]
    if isa.level() >= Level::Avx2 {
        // SAFETY: an `Isa` of these levels is only made where AVX was detected; `src` has `samples` rows of `features` elements, of which quads are part,
        // and `tile` a line for each.
        unsafe { lines_of_quads(src.as_ptr(), features, samples, quads, tile.as_mut_ptr()) };
        return;
    }
    for f in quads.map(|q| q * QUAD) {
        let mut rows = [[0.0; QUAD]; LANES];
        for (lane, row) in rows.iter_mut().take(samples).enumerate() {
            row.copy_from_slice(&src[lane * features + f..][..QUAD]);
        }
        for (i, line) in tile[f * LANES..][..QUAD * LANES]
            .chunks_exact_mut(LANES)
            .enumerate()
        {
            for (to, row) in line.iter_mut().zip(&rows) {
                *to = row[i];
            }
        }
    }
}

multiversion!(fn unpack(src: &[f32], features: usize, dst: &mut [f32]) = unpack_body;);

/// Features that go through registers at once: eight lines of sixteen samples are read, sixteen rows of eight features written.
const BLOCK: usize = 8;

#[inline(always)]
fn unpack_body(src: &[f32], features: usize, dst: &mut [f32]) {
    if features == 0 {
        return;
    }
    for (tile, dst) in src
        .chunks_exact(features * LANES)
        .zip(dst.chunks_mut(features * LANES))
    {
        let samples = dst.len() / features;
        let whole = if samples == LANES {
            features / BLOCK * BLOCK
        } else {
            0
        };
        for f in (0..whole).step_by(BLOCK) {
            let mut lines = [[0.0; LANES]; BLOCK];
            for (line, from) in lines.iter_mut().zip(tile[f * LANES..].chunks_exact(LANES)) {
                line.copy_from_slice(from);
            }
            for lane in 0..LANES {
                let mut row = [0.0; BLOCK];
                for (to, line) in row.iter_mut().zip(&lines) {
                    *to = line[lane];
                }
                dst[lane * features + f..][..BLOCK].copy_from_slice(&row);
            }
        }
        for lane in 0..samples {
            for f in whole..features {
                dst[lane * features + f] = tile[f * LANES + lane];
            }
        }
    }
}

impl PackedKernel for Pack {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Samples(LANES))
    }

    fn name(&self) -> String {
        format!("pack-1x{LANES}")
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, self.packed())
    }
}

/// [`unpack_tiles`] of samples of one size.
#[derive(Debug, Clone)]
pub struct UnpackTiles {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// Elements of a sample.
    pub features: usize,
}

impl PackedKernel for UnpackTiles {
    fn run(&self, operands: Operands<'_>) {
        let Operands { x, y, n, .. } = operands;
        unpack_tiles(self.isa, x, n, self.features, y);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Samples(LANES))
    }

    fn name(&self) -> String {
        format!("unpack-{LANES}x1")
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, self.features)
    }
}
