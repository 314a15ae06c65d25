//! A linear layer that makes bytes of its input.

use sparsevd_model::{Int8Grid, Int8Input};

use super::dot::Dot;
use super::lanes::SAMPLES;
use super::lines::{TILES, byte_tiles, quantize, quantize_vectors};
use super::spmm::Spmm;
use crate::cost::Costs;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::{Clamp, LANES, length, tiles};

/// A sparse linear layer over [`Layout::Tiled`](crate::Layout::Tiled) that quantises its input, multiplies int8 and writes floats.
#[derive(Debug, Clone)]
pub struct Linear {
    dot: Dot,
    spmm: Spmm,
    input: Int8Input,
}

impl Linear {
    /// A layer with a packed matrix, whose input is quantised as by [`quantize`] or [`quantize_vectors`]. The zero point of the matrix must be that of the
    /// input.
    pub fn new(dot: Dot, spmm: Spmm, input: impl Into<Int8Input>) -> Self {
        let input = input.into();
        Self { dot, spmm, input }
    }

    /// Elements of scratch that a run needs: the lines of one tile of bytes.
    pub fn scratch_len(&self) -> usize {
        (self.spmm.cols() * self.dot.line()).div_ceil(size_of::<f32>())
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
        let lines = &mut bytes(scratch)[..cols * self.dot.line()];
        for tile in 0..byte_tiles(n) {
            let samples = (n - tile * SAMPLES).min(SAMPLES);
            let part = |features: usize| {
                let tile_len = features * LANES;
                tile * TILES * tile_len..(tile * TILES + tiles(samples)) * tile_len
            };
            let (x, y) = (&x[part(cols)], &mut y[part(rows)]);
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
        Some(CallSplit::Samples(SAMPLES))
    }

    fn name(&self) -> String {
        self.spmm.name()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let int8 = self.dot.costs(costs);
        work.blocks(|n| int8.spmm(work.size, n, self.input))
    }

    fn bytes(&self) -> usize {
        self.spmm.bytes()
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
