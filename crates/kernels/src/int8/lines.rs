//! The layout of quantised activations, and quantisation into it.
//!
//! A *line* is one feature of sixty-four samples, a byte each. Samples are not in order in it: byte `16 l + 8 (j / 2) + 2 i + j % 2` belongs to
//! sample `16 j + 4 l + i`, for `i`, `j` and `l` from 0 to 3. So two interleavings of four lines, within 128-bit lanes, leave the four bytes of
//! a sample side by side and samples in order in the registers that sum them.
//!
//! On AVX-512 a line is followed by its second form, in which neighbouring bytes are exchanged. A pair of lines in the second form has
//! its 16-bit words where a pair in the first form has those of the other half of samples, so that blends, which run on more ports than
//! shuffles, put the two pairs together.

use super::dot::{self, Dot, Task};
use super::lanes::{Lanes, SAMPLES, place};
use crate::simd::Simd;
use crate::{LANES, length, tiles};

/// Tiles of sixteen samples in a tile of bytes.
pub(super) const TILES: usize = SAMPLES / LANES;

/// Number of tiles of bytes for `n` samples; the last may be partly empty.
pub fn byte_tiles(n: usize) -> usize {
    n.div_ceil(SAMPLES)
}

/// Which byte of a line belongs to a sample of a tile, in its first form.
///
/// # Panics
/// When `sample` is not below [`SAMPLES`].
pub fn byte_of(sample: usize) -> usize {
    assert!(sample < SAMPLES, "sample {sample} of {SAMPLES}");
    place(sample / LANES, sample % LANES)
}

/// Quantises `x`, `[tile][features][16]`, into lines: `y` is `[byte tile][features][line]`, with `dot.line()` bytes in a line.
///
/// A byte is `round(x / scale + zero_point)`, rounded half to even and saturated to 0..=255; that of NaN is 0. The quotient is computed as a
/// product with `1 / scale`, in one rounding with the sum. Tiles of sixteen that `x` lacks become the zero point. The scale must have a finite
/// reciprocal.
///
/// # Panics
/// When `x` does not have `tiles(n) * features * 16` elements or `y` not `byte_tiles(n) * features * dot.line()`.
#[track_caller]
pub fn quantize(
    dot: Dot,
    x: &[f32],
    n: usize,
    features: usize,
    (scale, zero_point): (f32, u8),
    y: &mut [u8],
) {
    length::check("x", x.len(), [tiles(n), features, LANES]);
    length::check("y", y.len(), [byte_tiles(n), features, dot.line()]);
    if y.is_empty() {
        return;
    }
    let task = Quantize {
        x: x.as_ptr(),
        y: y.as_mut_ptr(),
        line: dot.line(),
        tiles: tiles(n),
        features,
        inverse: scale.recip(),
        zero_point: f32::from(zero_point),
    };
    // SAFETY: the slices have the lengths that were just checked.
    unsafe { dot::run(dot, task) };
}

/// [`quantize`].
///
/// `x` is readable for `tiles * features * 16` floats, `y` writable for `line` bytes for each feature of each tile of bytes.
struct Quantize {
    x: *const f32,
    y: *mut u8,
    line: usize,
    tiles: usize,
    features: usize,
    inverse: f32,
    zero_point: f32,
}

impl Task for Quantize {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: of each line of `x` that exists, and each line of `y`, all parts; the instruction set is enabled (contract of the trait).
        unsafe {
            let [inverse, zero, most] =
                [self.inverse, self.zero_point, 255.0].map(|v| L::Floats::splat(v));
            let none = L::Floats::splat(0.0);
            for tile in 0..self.tiles.div_ceil(TILES) {
                for feature in 0..self.features {
                    let y = self.y.add((tile * self.features + feature) * self.line);
                    for part in 0..LANES / L::N {
                        let scaled = |j: usize| {
                            let t = tile * TILES + j;
                            let at = (t * self.features + feature) * LANES + part * L::N;
                            let x = if t < self.tiles {
                                L::Floats::load(self.x.add(at))
                            } else {
                                none
                            };
                            L::Floats::clamp(L::fused(x, inverse, zero), none, most)
                        };
                        let values = [scaled(0), scaled(1), scaled(2), scaled(3)];
                        let y = y.add(part * TILES * L::N);
                        L::store_bytes(y, Some(SAMPLES), values, [0, u8::MAX]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_own_byte() {
        let mut bytes: Vec<usize> = (0..SAMPLES).map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, Vec::from_iter(0..SAMPLES));
    }
}
