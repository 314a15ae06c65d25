//! The layout of quantised activations, and quantisation into it.
//!
//! A *line* is one feature of sixty-four samples, a byte each. Samples are not in order in it: byte `16 l + 8 (j / 2) + 2 i + j % 2` belongs to
//! sample `16 j + 4 l + i`, for `i`, `j` and `l` from 0 to 3. So two interleavings of four lines, within 128-bit lanes, leave the four bytes of
//! a sample side by side and samples in order in the registers that sum them.
//!
//! On AVX-512 a line is followed by its second form, in which neighbouring bytes are exchanged. A pair of lines in the second form has
//! its 16-bit words where a pair in the first form has those of the other half of samples, so that blends, which run on more ports than
//! shuffles, put the two pairs together.

use sparsevd_model::{Int8Input, MOST_LEVEL};

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
    quantize_by(dot, x, n, features, (Common(scale.recip()), zero_point), y);
}

/// Makes the bytes of floats by the reciprocals of scales and a zero point.
#[track_caller]
fn quantize_by(
    dot: Dot,
    x: &[f32],
    n: usize,
    features: usize,
    (inverses, zero_point): (impl Inverses, u8),
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
        inverses,
        zero_point,
    };
    // SAFETY: the slices have the lengths that were just checked.
    unsafe { dot::run(dot, task) };
}

/// Quantises one tile of bytes, of `n` samples at most [`SAMPLES`], each by a scale of its own, with [`Int8Input::PerVector`]: its largest magnitude
/// over 127, and the least normal float at least. `x` is `[tile][features][16]`, `y` `[features][line]`, and nothing of no sample. `scales` are those of all samples of the tile.
///
/// Of a sample with a NaN or an infinity the scale is that.
///
/// # Panics
/// When there are more samples, or `x` does not have `tiles(n) * features * 16` elements or `y` not `byte_tiles(n) * features * dot.line()`.
#[track_caller]
pub fn quantize_vectors(
    dot: Dot,
    x: &[f32],
    n: usize,
    features: usize,
    scales: &mut [f32; SAMPLES],
    y: &mut [u8],
) {
    assert!(n <= SAMPLES, "{n} samples, of {SAMPLES} at most");
    let mut inverses = [0.0; SAMPLES];
    let task = Scales {
        x,
        features,
        scales,
        inverses: &mut inverses,
    };
    // SAFETY: it has no pointers.
    unsafe { dot::run(dot, task) };
    let zero_point = Int8Input::PerVector.zero_point();
    quantize_by(dot, x, n, features, (Each(&inverses), zero_point), y);
}

/// The scale of a vector of a largest magnitude.
#[inline(always)]
pub(super) fn scale_of(largest: f32) -> f32 {
    let scale = largest / MOST_LEVEL as f32;
    // NaN stays.
    if scale < f32::MIN_POSITIVE {
        f32::MIN_POSITIVE
    } else {
        scale
    }
}

/// Of each of sixteen lanes the largest magnitude in some lines of sixteen floats.
///
/// # Safety
/// `x` is readable for the lines; the instructions of `L` must be enabled where this is inlined.
#[inline(always)]
pub(super) unsafe fn largest<L: Lanes>(x: *const f32, lines: usize) -> [f32; LANES] {
    let mut largest = [0; LANES];
    for part in (0..LANES).step_by(L::N) {
        // SAFETY: parts of the lines and of the sixteen numbers; the instruction set is enabled (contract of this function).
        unsafe {
            let mut most = L::splat(0);
            for line in 0..lines {
                most = L::larger_magnitude(most, x.add(line * LANES + part));
            }
            L::store(largest.as_mut_ptr().add(part), most);
        }
    }
    largest.map(|bits| f32::from_bits(bits as u32))
}

/// The scales of the samples of a tile of bytes, and their reciprocals. `x` is `[tile][features][16]`, of four tiles at most.
struct Scales<'a> {
    x: &'a [f32],
    features: usize,
    scales: &'a mut [f32; SAMPLES],
    inverses: &'a mut [f32; SAMPLES],
}

impl Task for Scales<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        *self.scales = [f32::MIN_POSITIVE; SAMPLES];
        let samples = self.scales.as_chunks_mut::<LANES>().0.iter_mut();
        for (scales, x) in samples.zip(self.x.chunks(self.features.max(1) * LANES)) {
            // SAFETY: the lines of a tile; the instruction set is enabled (contract of the trait).
            let largest = unsafe { largest::<L>(x.as_ptr(), x.len() / LANES) };
            *scales = largest.map(scale_of);
        }
        for (scale, inverse) in self.scales.iter().zip(self.inverses) {
            *inverse = scale.recip();
        }
    }
}

/// The reciprocals of the scales that floats are multiplied by.
trait Inverses: Copy {
    /// Those of part `part` of the sixteen samples of tile `j` of a tile of bytes.
    ///
    /// # Safety
    /// The instructions of `L` must be enabled where this is inlined; there are such samples.
    unsafe fn of<L: Lanes>(self, j: usize, part: usize) -> <L::Floats as Simd>::V;
}

/// The same for all samples.
#[derive(Clone, Copy)]
struct Common(f32);

impl Inverses for Common {
    #[inline(always)]
    unsafe fn of<L: Lanes>(self, _: usize, _: usize) -> <L::Floats as Simd>::V {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { L::Floats::splat(self.0) }
    }
}

/// One for each sample of a tile of bytes.
#[derive(Clone, Copy)]
struct Each<'a>(&'a [f32; SAMPLES]);

impl Inverses for Each<'_> {
    #[inline(always)]
    unsafe fn of<L: Lanes>(self, j: usize, part: usize) -> <L::Floats as Simd>::V {
        // SAFETY: samples of the tile; the instruction set is enabled (contract of the trait).
        unsafe { L::Floats::load(self.0.as_ptr().add(j * LANES + part * L::N)) }
    }
}

/// [`quantize`] and [`quantize_vectors`].
///
/// `x` is readable for `tiles * features * 16` floats, `y` writable for `line` bytes for each feature of each tile of bytes.
struct Quantize<I> {
    x: *const f32,
    y: *mut u8,
    line: usize,
    tiles: usize,
    features: usize,
    inverses: I,
    zero_point: u8,
}

impl<I: Inverses> Task for Quantize<I> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: of each line of `x` that exists, and each line of `y`, all parts; the instruction set is enabled (contract of the trait).
        unsafe {
            let [zero, most] = [f32::from(self.zero_point), 255.0].map(|v| L::Floats::splat(v));
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
                            let inverse = self.inverses.of::<L>(j, part);
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
