//! Times of kernels on a machine, by which plans choose kernels and predict times.
//!
//! Times are nanoseconds on one thread. [`Costs::default`] holds those of the machine that the kernels were developed on (Zen 4, AVX-512);
//! [`crate::tune::measure`] finds those of another.

use serde::{Deserialize, Serialize};
use sparsevd_model::Int8Input;

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
    /// [`crate::panel_gemm::PanelGemm`], per weight and sample; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panel_gemm: Option<f64>,
    /// Convolutions over blocks; `None` where they were not measured ([`Costs::over_blocks`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<BlockCosts>,
    /// Kernels that multiply int8, with the [`crate::int8::Dot`] of the instruction set; `None` where they were not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8Costs>,
}

/// Costs of convolutions over spatial blocks, in nanoseconds per multiply-add, those of lanes past the ends of a map included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockCosts {
    /// [`crate::conv_blocks::BlockConv`], of non-zeros.
    pub conv: f64,
    /// [`crate::dense_blocks::DenseBlockConv`].
    pub dense_conv: f64,
    /// [`crate::depthwise::Depthwise`].
    pub depthwise: f64,
}

/// Costs of the kernels that multiply int8, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Int8Costs {
    /// [`crate::int8::Spmm`], per non-zero and tile of sixty-four samples, by density ([`DENSITIES`]).
    pub spmm: [f64; 8],
    /// [`crate::int8::Conv`] of non-zeros, per multiply-add.
    pub conv: f64,
    /// [`crate::int8::Conv`] of all weights, per multiply-add.
    pub dense_conv: f64,
    /// [`crate::int8::ColumnConv`], per multiply-add.
    pub column_conv: f64,
    /// [`crate::int8::Spmv`], per multiply-add of all weights or a load of them; also what look-ups are counted in, of all kernels that have them.
    pub spmv: f64,
    /// Making a byte of a float.
    pub quantize: f64,
    /// Copying a byte of a map to where products read it.
    pub gather: f64,
    /// Storing a sum of [`crate::int8::Conv`] of non-zeros.
    pub store: f64,
    /// Pooling such a sum, and storing one of four, in place of storing all.
    pub pool: f64,
    /// Storing a sum of [`crate::int8::Conv`] of all weights.
    pub dense_store: f64,
    /// Storing a sum of [`crate::int8::ColumnConv`].
    pub column_store: f64,
}

/// Times of multiply-adds of bytes over those of floats, by which costs are guessed that were not measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Shares {
    /// Of a non-zero and a sample of a linear layer over tiles, over [`Costs::spmm`].
    pub spmm: f64,
    /// Of sparse convolutions, over [`Costs::conv`].
    pub conv: f64,
    /// Of kernels that multiply all weights, over [`Costs::conv`].
    pub all: f64,
}

impl Int8Shares {
    /// Costs by these shares of the costs in f32.
    pub fn of(&self, costs: &Costs) -> Int8Costs {
        let all = costs.conv * self.all;
        // The times over that of a copy into tiles are those of the machine that the kernels were developed on.
        let store = costs.element * 0.7;
        Int8Costs {
            spmm: costs.spmm.map(|ns| ns * self.spmm * TILES as f64),
            conv: costs.conv * self.conv,
            dense_conv: all,
            column_conv: all,
            spmv: all,
            quantize: costs.element,
            gather: costs.element * 0.25,
            store,
            pool: store + costs.element,
            // They go through memory and are transposed.
            dense_store: 4.0 * store,
            column_store: store,
        }
    }
}

/// Tiles of floats in one of bytes.
const TILES: usize = 4;

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
            panel_gemm: Some(0.0172),
            blocks: None,
            int8: None,
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

    /// Bytes of its non-zeros, with their indices.
    pub fn stored_bytes(self) -> f64 {
        self.nonzeros as f64 * self.bytes()
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
        all.into_iter().all(is_time)
            && self.panel_gemm.as_ref().is_none_or(is_time)
            && self.blocks.as_ref().is_none_or(BlockCosts::are_times)
            && self.int8.as_ref().is_none_or(Int8Costs::are_times)
    }

    /// Costs of convolutions over blocks: as measured, else those of convolutions over plain maps.
    pub fn over_blocks(&self) -> BlockCosts {
        self.blocks.unwrap_or(BlockCosts {
            conv: self.conv,
            dense_conv: self.dense_conv,
            depthwise: self.dense_conv,
        })
    }

    /// Nanoseconds of a sparse product with one vector.
    pub fn spmv(&self, size: Size) -> f64 {
        self.spmv_in_run(size, 0.0)
    }

    /// The same in a run that reads `run` bytes of weights, those of other layers among them.
    pub fn spmv_in_run(&self, size: Size, run: f64) -> f64 {
        let bytes = size.stored_bytes();
        let compute = size.nonzeros as f64 * at(&DENSITIES, &self.spmv, size.density());
        compute.max(bytes * at(&STREAMS, &self.stream, bytes.max(run)))
    }

    /// The same where other layers have put the weights out of the caches since the last run, as in a network that is not small.
    pub fn spmv_from_far(&self, size: Size) -> f64 {
        let [_, _, far] = self.stream;
        self.spmv(size).max(size.stored_bytes() * far)
    }

    /// Nanoseconds of a sparse product with `n` vectors in tiles.
    pub fn spmm(&self, size: Size, n: usize) -> f64 {
        self.spmm_in_run(size, n, 0.0)
    }

    /// The same in a run that reads `run` bytes of weights, those of other layers among them.
    pub fn spmm_in_run(&self, size: Size, n: usize, run: f64) -> f64 {
        /// Bytes of weights that stay in the second-level cache from one run to the next.
        const CACHE: f64 = 2e6;
        let nonzeros = size.nonzeros as f64;
        let tile = nonzeros * at(&DENSITIES, &self.spmm, size.density());
        // Two tiles share each load of weights. Unlike those of a dense product, loads from beyond the cache are not wholly hidden by arithmetic.
        let passes = n.div_ceil(2 * LANES) as f64;
        let bytes = size.stored_bytes();
        let run = bytes.max(run).max(1.0);
        let far = (run - CACHE).max(0.0);
        tile * self.tiles(n) + passes * self.streamed(far) * (bytes / run)
    }

    /// The larger of `ns` and the nanoseconds of reading `bytes` of weights from beyond the caches.
    pub(crate) fn unless_far(&self, ns: f64, bytes: usize) -> f64 {
        let [_, _, far] = self.stream;
        ns.max(bytes as f64 * far)
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

    /// Nanoseconds of a dense product with `n` vectors that lie one after the other.
    pub fn panel_gemm(&self, size: Size, n: usize) -> f64 {
        // Without a measurement, that of a sample in a full tile.
        let each = self.panel_gemm.unwrap_or(self.gemm / LANES as f64);
        // Few samples wait for the weights.
        (size.elements() * each * n as f64).max(self.gemv(size))
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

impl BlockCosts {
    /// Whether all costs are finite and positive.
    fn are_times(&self) -> bool {
        let Self {
            conv,
            dense_conv,
            depthwise,
        } = self;
        [conv, dense_conv, depthwise].into_iter().all(is_time)
    }
}

impl Int8Costs {
    /// Whether all costs are finite and positive.
    fn are_times(&self) -> bool {
        let Self {
            spmm,
            conv,
            dense_conv,
            column_conv,
            spmv,
            quantize,
            gather,
            store,
            pool,
            dense_store,
            column_store,
        } = self;
        let products = [conv, dense_conv, column_conv, spmv];
        let copies = [quantize, gather];
        let stores = [store, pool, dense_store, column_store];
        let all = spmm.iter().chain(products).chain(copies).chain(stores);
        all.into_iter().all(is_time)
    }

    /// Nanoseconds of making bytes of a float.
    pub fn quantize(&self, input: Int8Input) -> f64 {
        /// Time to find the scales of vectors over that to make bytes by them, as measured where both read the caches.
        const FINDING: f64 = 0.75;
        match input {
            Int8Input::Grid(_) => self.quantize,
            Int8Input::PerVector => self.quantize * (1.0 + FINDING),
        }
    }

    /// Nanoseconds of a sparse product of bytes with `n` vectors in tiles, made of floats.
    pub fn spmm(&self, size: Size, n: usize, input: Int8Input) -> f64 {
        /// Samples of a tile of bytes.
        const SAMPLES: usize = TILES * LANES;
        let multiplied = size.nonzeros as f64 * at(&DENSITIES, &self.spmm, size.density());
        let quantized = (size.cols * SAMPLES) as f64 * self.quantize(input);
        n.div_ceil(SAMPLES) as f64 * (multiplied + quantized)
    }

    /// The same with few vectors, for each of which the time is its own, where bytes are looked up.
    pub(crate) fn few(&self, size: Size, n: usize, input: Int8Input) -> f64 {
        // Weights of steps over those that are not zero, as of random places in some hundred columns.
        let padded = 1.05 + 0.03 / size.density().max(1e-3);
        let weights = padded * size.nonzeros as f64;
        // Four vectors share each load of weights.
        let multiplied = (SHARED_LOOK_UP * n.next_multiple_of(4)) as f64 * weights * self.spmv;
        // Bytes are transposed, too.
        let quantized = (2 * size.cols * n.next_multiple_of(LANES)) as f64;
        multiplied + quantized * self.quantize(input)
    }
}

/// Products ([`Int8Costs::spmv`]) that take as long as a weight whose input is looked up: a look-up, a product, four loads of a vector.
pub(crate) const LOOK_UP: usize = 5;

/// The same for each of several vectors, with several blocks of rows, which share these loads.
pub(crate) const SHARED_LOOK_UP: usize = 3;

fn is_time(ns: &f64) -> bool {
    ns.is_finite() && *ns > 0.0
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
    use sparsevd_model::Int8Grid;

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

    /// As on a machine with fast products of bytes.
    const SHARES: Int8Shares = Int8Shares {
        spmm: 0.5,
        conv: 0.4,
        all: 0.12,
    };

    #[test]
    fn all_measured_costs_must_be_times() {
        let int8 = SHARES.of(&Costs::default());
        let blocks = Costs::default().over_blocks();
        let costs = |int8, blocks| Costs {
            int8: Some(int8),
            blocks: Some(blocks),
            ..Costs::default()
        };
        assert!(costs(int8, blocks).are_times());
        let of_int8: [fn(&mut Int8Costs) -> &mut f64; 12] = [
            |c| &mut c.spmm[0],
            |c| &mut c.spmm[7],
            |c| &mut c.conv,
            |c| &mut c.dense_conv,
            |c| &mut c.column_conv,
            |c| &mut c.spmv,
            |c| &mut c.quantize,
            |c| &mut c.gather,
            |c| &mut c.store,
            |c| &mut c.pool,
            |c| &mut c.dense_store,
            |c| &mut c.column_store,
        ];
        let of_blocks: [fn(&mut BlockCosts) -> &mut f64; 3] =
            [|c| &mut c.conv, |c| &mut c.dense_conv, |c| &mut c.depthwise];
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let panels = Costs {
                panel_gemm: Some(wrong),
                ..Costs::default()
            };
            assert!(!panels.are_times(), "{wrong}");
            for cost in of_int8 {
                let mut int8 = int8;
                *cost(&mut int8) = wrong;
                assert!(!costs(int8, blocks).are_times(), "{int8:?}");
            }
            for cost in of_blocks {
                let mut blocks = blocks;
                *cost(&mut blocks) = wrong;
                assert!(!costs(int8, blocks).are_times(), "{blocks:?}");
            }
        }
    }

    #[test]
    fn without_a_measurement_bytes_take_a_share_of_the_time_of_floats() {
        let costs = Costs::default();
        let size = Size {
            rows: 256,
            cols: 1,
            nonzeros: 128,
            precision: Precision::F32,
        };
        let grid = Int8Grid {
            scale: 1.0,
            zero_point: 0,
        };
        for (input, times) in [(grid.into(), 1.0), (Int8Input::PerVector, 1.75)] {
            let bytes = SHARES.of(&costs).spmm(size, 64, input);
            let quantised = times * 64.0 * costs.element;
            let want = 0.5 * costs.spmm(size, 64) + quantised;
            assert!((bytes - want).abs() < 1e-9, "{bytes}, want {want}");
        }
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
