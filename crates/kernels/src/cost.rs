//! Times of kernels on a machine, by which plans choose kernels and predict times.
//!
//! Times are nanoseconds on one thread. [`Costs::default`] holds those of the machine that the kernels were developed on (Zen 4, AVX-512);
//! [`crate::tune::measure`] finds those of another.

use serde::{Deserialize, Serialize};

use crate::{LANES, Precision};

/// Densities at which costs per non-zero are measured; between them they are interpolated.
pub const DENSITIES: [f64; 8] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8];

/// Bytes of weights at which the cost of reading them from memory is measured.
pub const STREAMS: [f64; 3] = [4e6, 16e6, 64e6];

/// Costs of the kernels on one machine and instruction set, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// [`crate::spmv::Spmv`], per non-zero, by density.
    pub spmv: [f64; 8],
    /// [`crate::spmm::Spmm`], per non-zero and tile of sixteen samples, by density.
    pub spmm: [f64; 8],
    /// Time of a tile of at most eight samples over that of a whole tile.
    pub half_tile: f64,
    /// [`crate::spmv::InputSparse`], per non-zero under a non-zero input.
    pub input_sparse: f64,
    /// [`crate::spmv::InputSparse`], per non-zero input.
    pub input_sparse_column: f64,
    /// [`crate::dense::Gemv`], per weight in the second-level cache.
    pub gemv: f64,
    /// [`crate::dense::Linear`], per weight and tile.
    pub gemm: f64,
    /// Reading one byte of weights, by the number of bytes that a run reads ([`STREAMS`]).
    pub stream: [f64; 3],
    /// Sparse convolutions, per multiply-add of a non-zero.
    pub conv: f64,
    /// Dense convolutions, per multiply-add.
    pub dense_conv: f64,
    /// Copies into tiles and out of them, per element. Other operations without weights are taken to need three times as long.
    pub element: f64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            spmv: [0.270, 0.222, 0.180, 0.122, 0.088, 0.062, 0.057, 0.057],
            spmm: [0.61, 0.492, 0.427, 0.381, 0.381, 0.381, 0.367, 0.367],
            half_tile: 0.72,
            input_sparse: 0.42,
            input_sparse_column: 4.6,
            gemv: 0.0415,
            gemm: 0.28,
            stream: [0.0103, 0.016, 0.046],
            conv: 0.029,
            dense_conv: 0.026,
            element: 0.08,
        }
    }
}

/// Shape, number of non-zeros and precision of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Size {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Non-zero weights.
    pub nonzeros: usize,
    /// How non-zeros are stored.
    pub precision: Precision,
}

impl Size {
    fn elements(self) -> f64 {
        (self.rows * self.cols) as f64
    }

    fn density(self) -> f64 {
        self.nonzeros as f64 / self.elements().max(1.0)
    }

    /// Bytes of a non-zero: its value and its index.
    fn bytes(self) -> f64 {
        let value = match self.precision {
            Precision::F32 => 4.0,
            Precision::Bf16 | Precision::F16 => 2.0,
            Precision::I8 { .. } => 1.0,
        };
        value + 1.5
    }
}

impl Costs {
    /// Whether all costs are finite and positive.
    pub fn are_times(&self) -> bool {
        let curves = [&self.spmv[..], &self.spmm, &self.stream];
        let ones = [
            self.half_tile,
            self.input_sparse,
            self.input_sparse_column,
            self.gemv,
            self.gemm,
            self.conv,
            self.dense_conv,
            self.element,
        ];
        let all = curves.into_iter().flatten().chain(&ones);
        all.into_iter().all(|c| c.is_finite() && *c > 0.0)
    }

    /// Nanoseconds of a sparse product with one vector.
    pub fn spmv(&self, size: Size) -> f64 {
        let nonzeros = size.nonzeros as f64;
        let compute = nonzeros * at(&DENSITIES, &self.spmv, size.density());
        compute.max(self.streamed(nonzeros * size.bytes()))
    }

    /// The same where other layers have put the weights out of the caches since the last run, as in a network that is not small.
    pub fn spmv_from_far(&self, size: Size) -> f64 {
        let [_, _, far] = self.stream;
        let bytes = size.nonzeros as f64 * size.bytes();
        self.spmv(size).max(bytes * far)
    }

    /// Nanoseconds of a sparse product with `n` vectors in tiles.
    pub fn spmm(&self, size: Size, n: usize) -> f64 {
        /// Bytes of weights that stay in the second-level cache from one run to the next.
        const CACHE: f64 = 2e6;
        let nonzeros = size.nonzeros as f64;
        let tile = nonzeros * at(&DENSITIES, &self.spmm, size.density());
        // Two tiles share each load of weights. Unlike those of a dense product, loads from beyond the cache are not wholly hidden by arithmetic.
        let passes = n.div_ceil(2 * LANES) as f64;
        let far = (nonzeros * size.bytes() - CACHE).max(0.0);
        tile * self.tiles(n) + passes * self.streamed(far)
    }

    /// Nanoseconds of a sparse product of bytes with `n` vectors in tiles, made of floats. A multiply-add takes `share` of the time of one of floats.
    pub fn int8_spmm(&self, size: Size, n: usize, share: f64) -> f64 {
        /// Samples of a tile of bytes.
        const SAMPLES: usize = 4 * LANES;
        let tile = size.nonzeros as f64 * at(&DENSITIES, &self.spmm, size.density());
        let multiplied = tile * share * (SAMPLES / LANES) as f64;
        let quantised = (size.cols * SAMPLES) as f64 * self.element;
        n.div_ceil(SAMPLES) as f64 * (multiplied + quantised)
    }

    /// Nanoseconds of a convolution of bytes, made of `quantized` floats, in which `gathered` bytes are copied, and sums
    /// `stored` and `pooled`. A multiply-add takes `share` of the time of one of a sparse convolution of floats, unless reading `bytes` of weights from
    /// beyond the caches takes longer.
    pub fn int8_conv(
        &self,
        (multiply_adds, bytes): (usize, usize),
        [quantized, gathered, stored, pooled]: [usize; 4],
        share: f64,
    ) -> f64 {
        /// Time to gather a byte, and to store and pool a sum, over the time to copy a float into a tile.
        const TIMES: [f64; 3] = [0.25, 0.7, 1.0];
        let copied = gathered as f64 * TIMES[0] + stored as f64 * TIMES[1];
        let copies = quantized as f64 + copied + pooled as f64 * TIMES[2];
        let [_, _, far] = self.stream;
        let products = multiply_adds as f64 * self.conv * share;
        products.max(bytes as f64 * far) + copies * self.element
    }

    /// Nanoseconds of a product of bytes with one vector, made of `cols` floats: what takes as long as `multiply_adds`, each `share` of the time of
    /// one of a sparse convolution of floats, or reading `bytes` of weights from beyond the caches.
    pub fn int8_spmv(&self, multiply_adds: usize, bytes: usize, cols: usize, share: f64) -> f64 {
        let [_, _, far] = self.stream;
        let products = multiply_adds as f64 * self.conv * share;
        products.max(bytes as f64 * far) + cols as f64 * self.element
    }

    /// Nanoseconds of a sparse product with one vector that has `active` non-zero elements.
    pub fn input_sparse(&self, size: Size, active: usize) -> f64 {
        let share = active as f64 / size.cols.max(1) as f64;
        let entries = size.nonzeros as f64 * share;
        // Columns are padded to whole steps of four entries.
        let padded = entries + 1.5 * active as f64;
        padded * self.input_sparse + active as f64 * self.input_sparse_column
    }

    /// The largest number of non-zero inputs at which [`Costs::input_sparse`] is at most [`Costs::spmv`].
    pub fn most_active(&self, size: Size) -> usize {
        let all = self.spmv(size);
        // The cost of `input_sparse` is proportional to the number of non-zero inputs.
        let each = self.input_sparse(size, size.cols) / size.cols.max(1) as f64;
        ((all / each.max(1e-9)) as usize).min(size.cols)
    }

    /// Nanoseconds of a dense product with one vector.
    pub fn gemv(&self, size: Size) -> f64 {
        let elements = size.elements();
        (elements * self.gemv).max(self.streamed(elements * 4.0))
    }

    /// The same where other layers have put the weights out of the caches.
    pub fn gemv_from_far(&self, size: Size) -> f64 {
        let [_, _, far] = self.stream;
        self.gemv(size).max(size.elements() * 4.0 * far)
    }

    /// Nanoseconds of a dense product with `n` vectors in tiles.
    pub fn gemm(&self, size: Size, n: usize) -> f64 {
        size.elements() * self.gemm * n.div_ceil(LANES) as f64
    }

    /// Time of `n` samples in tiles, in units of the time of a whole tile.
    pub fn tiles(&self, n: usize) -> f64 {
        let whole = (n / LANES) as f64;
        match n % LANES {
            0 => whole,
            rest if rest <= LANES / 2 => whole + self.half_tile,
            _ => whole + 1.0,
        }
    }

    /// Nanoseconds of reading `bytes` of weights in one run.
    fn streamed(&self, bytes: f64) -> f64 {
        bytes * at(&STREAMS, &self.stream, bytes)
    }
}

/// The value of a curve, linear in the logarithm of `x` between its points and constant beyond them.
fn at<const N: usize>(points: &[f64; N], values: &[f64; N], x: f64) -> f64 {
    let next = points.partition_point(|&p| p < x);
    match next {
        0 => values[0],
        n if n == N => values[N - 1],
        n => {
            let share = (x / points[n - 1]).ln() / (points[n] / points[n - 1]).ln();
            values[n - 1] + share * (values[n] - values[n - 1])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_pass_through_their_points_and_end_flat() {
        let costs = Costs::default();
        for (&d, &ns) in DENSITIES.iter().zip(&costs.spmv) {
            assert!((at(&DENSITIES, &costs.spmv, d) - ns).abs() < 1e-12, "{d}");
        }
        assert_eq!(at(&DENSITIES, &costs.spmv, 1e-6), costs.spmv[0]);
        assert_eq!(at(&DENSITIES, &costs.spmv, 1.0), costs.spmv[7]);
        let between = at(&DENSITIES, &costs.spmv, 0.03);
        assert!(costs.spmv[3] < between && between < costs.spmv[2]);
    }

    #[test]
    fn fewer_bytes_cost_less_where_weights_come_from_memory() {
        let costs = Costs::default();
        let size = |precision| Size {
            rows: 4096,
            cols: 4096,
            nonzeros: 4096 * 4096 / 2,
            precision,
        };
        assert!(costs.spmv(size(Precision::Bf16)) < costs.spmv(size(Precision::F32)));
        let small = Size {
            rows: 64,
            cols: 64,
            nonzeros: 400,
            precision: Precision::F32,
        };
        let bf16 = Size {
            precision: Precision::Bf16,
            ..small
        };
        assert_eq!(costs.spmv(small), costs.spmv(bf16));
    }

    #[test]
    fn zeros_are_skipped_up_to_the_share_where_both_cost_the_same() {
        let costs = Costs::default();
        let size = Size {
            rows: 1024,
            cols: 1024,
            nonzeros: 10_000,
            precision: Precision::F32,
        };
        let most = costs.most_active(size);
        assert!((100..900).contains(&most), "{most}");
        assert!(costs.input_sparse(size, most) <= costs.spmv(size));
        assert!(costs.input_sparse(size, most + 2) > costs.spmv(size));
    }
}
