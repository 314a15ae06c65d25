//! A linear layer that makes bytes of its input.

use std::ops::Range;

use sparsevd_model::{Csr, Int8Grid, Int8Input};

use super::dot::{self, Dot};
use super::few::{Few, FewVectors, MOST};
use super::lanes::SAMPLES;
use super::lines::{TILES, byte_tiles, quantize, quantize_vectors};
use super::quantization::{Quantization, unpack_rows};
use super::spmm::Spmm;
use crate::cost::{Costs, Size};
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::{Clamp, LANES, length, tiles};

/// A sparse linear layer over [`Layout::Tiled`](crate::Layout::Tiled) that quantises its input, multiplies int8 and writes floats.
#[derive(Debug, Clone)]
pub struct Linear {
    dot: Dot,
    spmm: Spmm,
    input: Int8Input,
    /// The same weights for the samples of a tile of bytes that are few, where bytes are looked up.
    few: Option<Few>,
}

impl Linear {
    /// Packs some rows of a matrix as [`Spmm::pack_rows`], for an input that is quantised as by [`quantize`] or [`quantize_vectors`].
    ///
    /// # Panics
    /// As [`Spmm::pack_rows`], and when the zero points differ.
    #[track_caller]
    pub fn pack_rows(
        dot: Dot,
        levels: &Csr,
        input: impl Into<Int8Input>,
        quantization: Quantization<'_>,
        rows: Range<usize>,
    ) -> Self {
        let input = input.into();
        let zero_point = quantization.zero_point;
        assert_eq!(zero_point, input.zero_point(), "the zero point");
        let rows = unpack_rows(dot, levels, quantization, rows);
        let few = match dot.looks_up() {
            true => Few::of_rows(levels.cols(), &rows),
            false => None,
        };
        Self {
            dot,
            spmm: Spmm::of_rows(dot, levels.cols(), rows),
            input,
            few,
        }
    }

    /// Elements of scratch that a run needs: the lines of one tile of bytes, or vectors, which begin at a cache line.
    pub fn scratch_len(&self) -> usize {
        let lines = self.spmm.cols() * self.dot.line();
        let vectors = self.few.as_ref().map_or(0, |few| few.vectors_len());
        (lines.max(SAMPLES + vectors)).div_ceil(size_of::<f32>())
    }

    /// Expected nanoseconds of such a layer for `n` vectors, with the instructions `dot`.
    pub fn ns(costs: &Costs, dot: Dot, input: Int8Input, size: Size, n: usize) -> f64 {
        let int8 = dot.costs(costs);
        let few = n % SAMPLES;
        if !dot.looks_up() || few > MOST {
            return int8.spmm(size, n, input);
        }
        int8.spmm(size, n - few, input) + int8.few(size, few, input)
    }

    /// `y = clamp(sum * scale + offset)`, where `x` is `[tile][cols][16]` and `y` `[tile][rows][16]`, or [`Spmm::run_vectors`]. `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`Linear::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        let (rows, cols) = (self.spmm.rows(), self.spmm.cols());
        length::check("x", x.len(), [tiles(n), cols, LANES]);
        length::check("y", y.len(), [tiles(n), rows, LANES]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let scratch = bytes(scratch);
        for tile in 0..byte_tiles(n) {
            let samples = (n - tile * SAMPLES).min(SAMPLES);
            let part = |features: usize| {
                let tile_len = features * LANES;
                tile * TILES * tile_len..(tile * TILES + tiles(samples)) * tile_len
            };
            let (x, y) = (&x[part(cols)], &mut y[part(rows)]);
            if let Some(few) = self.few.as_ref().filter(|few| samples <= few.most()) {
                let start = scratch.as_ptr().align_offset(SAMPLES);
                let product = FewVectors {
                    few,
                    input: self.input,
                    n: samples,
                    x: x.as_ptr(),
                    vectors: scratch[start..][..few.vectors_len()].as_mut_ptr(),
                    y: y.as_mut_ptr(),
                    bounds: clamp.bounds(),
                };
                // SAFETY: tiles of the samples, and vectors that were just sliced; such weights are packed where bytes are looked up.
                unsafe { dot::run(self.dot, product) };
                continue;
            }
            let lines = &mut scratch[..cols * self.dot.line()];
            match self.input {
                Int8Input::Grid(Int8Grid { scale, zero_point }) => {
                    quantize(self.dot, x, samples, cols, (scale, zero_point), lines);
                    self.spmm.run(lines, y, samples, clamp);
                }
                Int8Input::PerVector => {
                    let mut scales = [0.0; SAMPLES];
                    quantize_vectors(self.dot, x, samples, cols, &mut scales, lines);
                    self.spmm.run_vectors(lines, &scales, y, samples, clamp);
                }
            }
        }
    }
}

/// The bytes of floats, to write.
pub(super) fn bytes(floats: &mut [f32]) -> &mut [u8] {
    let len = size_of_val(floats);
    // SAFETY: every byte of a float is a byte, any bytes are a float, and the floats are borrowed mutably for as long as the bytes.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), len) }
}

/// The bytes of floats.
pub(super) fn bytes_of(floats: &[f32]) -> &[u8] {
    // SAFETY: every byte of a float is a byte, and the floats are borrowed for as long as the bytes.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

impl PackedKernel for Linear {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            scratch,
            n,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, n, scratch, clamp);
    }

    fn call_split(&self) -> Option<CallSplit> {
        // A few vectors are multiplied for themselves, with the same bits.
        Some(CallSplit::Samples(match self.few {
            Some(_) => LANES,
            None => SAMPLES,
        }))
    }

    fn name(&self) -> String {
        self.spmm.name()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| Self::ns(costs, self.dot, self.input, work.size, n))
    }

    fn bytes(&self) -> usize {
        self.spmm.bytes() + self.few.as_ref().map_or(0, Few::bytes)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn is_int8(&self) -> bool {
        true
    }
}
