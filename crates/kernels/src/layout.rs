//! How activations lie in memory, and the way between the two layouts.

use crate::Isa;
use crate::blocks::Blocks;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;
use crate::isa::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::transpose::transpose;

/// Samples in a tile, the innermost dimension of [`Layout::Tiled`].
pub const LANES: usize = 16;

/// How the activations of a batch lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Sample after sample: `[n][features]` or `[n][c][h][w]`. The count of a run is the number of samples.
    Single,
    /// Sixteen samples innermost: `[tile][features][16]` or `[tile][c][h][w][16]`. The count of a run is the number of tiles.
    Tiled,
    /// Sample after sample, the map of each cut into sixteen blocks: `[n][c][rows][columns][16]`. The count is the number of samples.
    Blocks(Blocks),
}

impl Layout {
    /// Samples in one unit of the count: 1 or [`LANES`].
    pub fn samples(self) -> usize {
        match self {
            Self::Single | Self::Blocks(_) => 1,
            Self::Tiled => LANES,
        }
    }
}

/// Tiles that `n` samples fill, the last one padded.
pub fn tiles(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// Turns `[n][features]` into `[tile][features][16]`; lanes past the last sample become zero.
///
/// # Panics
/// When `src` is not `n * features` long or `dst` not `tiles(n) * features * 16`.
#[track_caller]
pub fn pack_tiles(isa: Isa, src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    assert_eq!(src.len(), n * features, "row-major samples");
    assert_eq!(dst.len(), tiles(n) * features * LANES, "tiles");
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
    pack(isa, src, n, features, dst);
}

/// Turns `[tile][features][16]` back into `[n][features]`.
///
/// # Panics
/// When `src` is not `tiles(n) * features * 16` long or `dst` not `n * features`.
#[track_caller]
pub fn unpack_tiles(isa: Isa, src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    assert_eq!(src.len(), tiles(n) * features * LANES, "tiles");
    assert_eq!(dst.len(), n * features, "row-major samples");
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

multiversion!(fn pack(src: &[f32], n: usize, features: usize, dst: &mut [f32]) = pack_body;);
multiversion!(fn unpack(src: &[f32], features: usize, dst: &mut [f32]) = unpack_body;);

/// Blocks of sixteen samples by eight features go through registers: sixteen short rows in, eight lines out.
const BLOCK: usize = 8;

#[inline(always)]
fn pack_body(src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    if features == 0 {
        return;
    }
    for (t, tile) in dst.chunks_exact_mut(features * LANES).enumerate() {
        let first = t * LANES;
        let samples = (n - first).min(LANES);
        let src = &src[first * features..(first + samples) * features];
        let whole = if samples == LANES {
            features / BLOCK * BLOCK
        } else {
            0
        };
        for f in (0..whole).step_by(BLOCK) {
            let mut rows = [[0.0; BLOCK]; LANES];
            for (lane, row) in rows.iter_mut().enumerate() {
                row.copy_from_slice(&src[lane * features + f..][..BLOCK]);
            }
            for (i, line) in tile[f * LANES..][..BLOCK * LANES]
                .chunks_exact_mut(LANES)
                .enumerate()
            {
                for lane in 0..LANES {
                    line[lane] = rows[lane][i];
                }
            }
        }
        for f in whole..features {
            for lane in 0..LANES {
                tile[f * LANES + lane] = if lane < samples {
                    src[lane * features + f]
                } else {
                    0.0
                };
            }
        }
    }
}

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
