//! How activations lie in memory, and the way between the two layouts.

use crate::Isa;
use crate::isa::multiversion;

/// Samples in a tile, the innermost dimension of [`Layout::Tiled`].
pub const LANES: usize = 16;

/// How the activations of a batch lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Sample after sample: `[n][features]` or `[n][c][h][w]`. The count of a run is the number of samples.
    Single,
    /// Sixteen samples innermost: `[tile][features][16]` or `[tile][c][h][w][16]`. The count of a run is the number of tiles.
    Tiled,
}

impl Layout {
    /// Samples in one unit of the count: 1 or [`LANES`].
    pub fn samples(self) -> usize {
        match self {
            Self::Single => 1,
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
    unpack(isa, src, n, features, dst);
}

multiversion!(fn pack(src: &[f32], n: usize, features: usize, dst: &mut [f32]) = pack_body;);
multiversion!(fn unpack(src: &[f32], n: usize, features: usize, dst: &mut [f32]) = unpack_body;);

#[inline(always)]
fn pack_body(src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    if features == 0 {
        return;
    }
    for (t, tile) in dst.chunks_exact_mut(features * LANES).enumerate() {
        for lane in 0..LANES {
            let sample = t * LANES + lane;
            for f in 0..features {
                tile[f * LANES + lane] = if sample < n {
                    src[sample * features + f]
                } else {
                    0.0
                };
            }
        }
    }
}

#[inline(always)]
fn unpack_body(src: &[f32], n: usize, features: usize, dst: &mut [f32]) {
    for sample in 0..n {
        let tile = &src[sample / LANES * features * LANES..];
        for f in 0..features {
            dst[sample * features + f] = tile[f * LANES + sample % LANES];
        }
    }
}
