//! Measurement of [`Int8Costs`].
//!
//! Times of whole layers are what the plans' own estimates say of them, with the costs as unknowns: so what a layer does is counted in one place.

use std::hint::black_box;

use sparsevd_model::{Csr, Dense, Int8Grid, Window};

use super::budget::Budget;
use super::maps::{MAP, blocks, window};
use super::pattern::{SIDE, pattern};
use crate::cost::{Costs, DENSITIES, Int8Costs};
use crate::int8::{ColumnConv, Conv, Dot, Multiplied, Quantization, SAMPLES, Spmm, Spmv, quantize};
use crate::kernel::InputSplit;
use crate::pool_blocks::BlockPool;
use crate::{Buffer, Clamp, Isa};

/// The grid of all inputs.
const GRID: Int8Grid = Int8Grid {
    scale: 1.0 / 256.0,
    zero_point: 3,
};

/// A cost is at least this share of the time of the layer that it is found by, over what it is the cost of: no time is negative, however disturbed.
const LEAST: f64 = 0.02;

/// A measured layer.
struct Timed {
    ns: f64,
    /// How often it does what each of some costs is the cost of.
    counts: Vec<f64>,
}

impl Timed {
    /// `expected` is the estimate of the layer by some costs.
    fn new(ns: f64, expected: impl Fn(&Costs) -> f64, costs: &[Cost]) -> Self {
        let count = |cost: &Cost| {
            let mut int8 = NOTHING;
            *cost(&mut int8) = 1.0;
            expected(&Costs {
                // Weights are in the caches.
                stream: [0.0; 3],
                int8: Some(int8),
                ..Costs::default()
            })
        };
        Self {
            ns,
            counts: costs.iter().map(count).collect(),
        }
    }

    /// As a layer of which nothing counts but one cost, which takes `ns`.
    fn known(cost: usize, ns: f64) -> Self {
        let mut counts = vec![0.0; 3];
        counts[cost] = 1.0;
        Self { ns, counts }
    }

    /// The cost of that number, where the others are known.
    fn rest(&self, cost: usize, costs: &[f64]) -> f64 {
        let others = self.counts.iter().zip(costs).enumerate();
        let others: f64 = others
            .filter(|(i, _)| *i != cost)
            .map(|(_, (count, ns))| count * ns)
            .sum();
        (self.ns - others).max(LEAST * self.ns) / self.counts[cost].max(1.0)
    }
}

/// One of the costs.
type Cost = fn(&mut Int8Costs) -> &mut f64;

const NOTHING: Int8Costs = Int8Costs {
    spmm: [0.0; 8],
    conv: 0.0,
    dense_conv: 0.0,
    column_conv: 0.0,
    spmv: 0.0,
    quantize: 0.0,
    gather: 0.0,
    store: 0.0,
    pool: 0.0,
    dense_store: 0.0,
    column_store: 0.0,
};

/// Times the kernels that multiply int8 with these instructions.
pub(super) fn measure(on: (Isa, Dot), budget: Budget) -> Int8Costs {
    let (_, dot) = on;
    let mut costs = NOTHING;
    (costs.spmm, costs.quantize) = linear(dot, budget);
    [costs.conv, costs.gather, costs.store, costs.pool] = sparse_convolutions(on, budget);
    [costs.dense_conv, costs.dense_store] = dense_convolutions(on, costs.gather, budget);
    [costs.column_conv, costs.column_store] = depthwise_convolutions(on, costs.gather, budget);
    costs.spmv = vector(dot, costs.quantize, budget);
    costs
}

/// Levels of a weight, of which a share of `density` is not zero.
fn levels(rows: usize, cols: usize, density: f64) -> Dense {
    let values = pattern(rows * cols, density).into_iter();
    Dense::new([rows, cols], values.map(|v| (v * 126.0).ceil()).collect())
}

/// Scales and offsets of rows.
struct Rows {
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Rows {
    fn new(rows: usize) -> Self {
        Self {
            scale: vec![1e-4; rows],
            offset: vec![0.5; rows],
        }
    }

    fn quantization(&self) -> Quantization<'_> {
        Quantization {
            zero_point: GRID.zero_point,
            scale: &self.scale,
            offset: &self.offset,
        }
    }
}

/// Nanoseconds of a non-zero for a tile of bytes, by density, and of quantising a float.
fn linear(dot: Dot, budget: Budget) -> ([f64; 8], f64) {
    let rows = Rows::new(SIDE);
    let x = Buffer::from(&pattern(SIDE * SAMPLES, 1.0)[..]);
    let mut lines = vec![0; SIDE * dot.line()];
    let mut y = Buffer::zeroed(SIDE * SAMPLES);
    let grid = (GRID.scale, GRID.zero_point);
    let run = || quantize(dot, black_box(&x), SAMPLES, SIDE, grid, &mut lines);
    let quantized = budget.nanoseconds(run) / (SIDE * SAMPLES) as f64;
    let by_density = DENSITIES.map(|density| {
        let csr = Csr::from_dense(&levels(SIDE, SIDE, density));
        let product = Spmm::pack(dot, &csr, rows.quantization());
        let run = || product.run(black_box(&lines), &mut y, SAMPLES, Clamp::Relu);
        budget.nanoseconds(run) / csr.nonzeros() as f64
    });
    (by_density, quantized)
}

/// Nanoseconds of a multiply-add of a product with one vector, where quantising a float takes `quantized`.
fn vector(dot: Dot, quantized: f64, budget: Budget) -> f64 {
    let rows = Rows::new(SIDE);
    let csr = Csr::from_dense(&levels(SIDE, SIDE, 1.0));
    let product = Spmv::pack_rows(dot, &csr, GRID, rows.quantization(), 0..SIDE);
    let x = pattern(SIDE, 1.0);
    let (mut y, mut scratch) = (vec![0.0; SIDE], Buffer::zeroed(product.scratch_len()));
    let run = || product.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::Relu);
    let ns = budget.nanoseconds(run);
    let costs: [Cost; 2] = [|c| &mut c.spmv, |c| &mut c.quantize];
    Timed::new(ns, |c| product.ns(c), &costs).rest(0, &[0.0, quantized])
}

/// A convolution to `out` channels, of filters of `side` times `side` pixels, whose input and output are in bytes.
fn convolution(
    (isa, dot): (Isa, Dot),
    multiplied: Multiplied,
    [out, side]: [usize; 2],
    density: f64,
) -> Conv {
    let (rows, window) = (Rows::new(out), window(side));
    let [channels, ..] = MAP;
    let conv = Conv::pack_channels(
        (isa, dot),
        multiplied,
        &Csr::from_dense(&levels(out, channels * side * side, density)),
        [out, channels, side, side],
        GRID.into(),
        rows.quantization(),
        &window,
        1,
        blocks(out, &window),
        0..out,
    );
    let conv = conv.reading_bytes().expect("a border that is in the halo");
    conv.writing_bytes(GRID.into())
}

fn time(conv: &Conv, side: usize, costs: &[Cost], budget: Budget) -> Timed {
    let x = Buffer::zeroed(blocks(1, &window(side))[0].byte_len());
    let mut y = Buffer::zeroed(conv.output_len());
    let mut scratch = Buffer::zeroed(conv.scratch_len());
    let run = || conv.run(black_box(&x), None, &mut y, 1, &mut scratch, Clamp::Relu);
    Timed::new(budget.nanoseconds(run), |c| conv.unit_ns(c), costs)
}

/// Nanoseconds of a multiply-add of a non-zero, of gathering a byte, and of storing and of pooling a sum.
fn sparse_convolutions(on: (Isa, Dot), budget: Budget) -> [f64; 4] {
    const OUT: usize = 32;
    let costs: [Cost; 4] = [
        |c| &mut c.conv,
        |c| &mut c.gather,
        |c| &mut c.store,
        |c| &mut c.pool,
    ];
    let conv = |out, density| convolution(on, Multiplied::Nonzeros, [out, 3], density);
    let sparse = conv(OUT, 0.1);
    let layers = [&sparse, &conv(OUT, 0.5), &conv(4, 0.5)];
    let [each, gather, store] = separate(layers.map(|c| time(c, 3, &costs[..3], budget)));
    let (window, square) = (window(3), Window::square(2, 2));
    let [_, output] = blocks(OUT, &window);
    let pooled = BlockPool::output(&square, &output).expect("blocks of even size");
    let pooled = sparse.pooled(&window, pooled);
    let pooled = time(&pooled.expect("blocks that cover these"), 3, &costs, budget);
    let pool = pooled.rest(3, &[each, gather, store, 0.0]);
    [each, gather, store, pool]
}

/// Nanoseconds of a multiply-add of a convolution of all weights, and of storing a sum, where gathering a byte takes `gather`.
fn dense_convolutions(on: (Isa, Dot), gather: f64, budget: Budget) -> [f64; 2] {
    let costs: [Cost; 3] = [
        |c| &mut c.dense_conv,
        |c| &mut c.gather,
        |c| &mut c.dense_store,
    ];
    let [large, small] = [3, 1].map(|side| {
        let conv = convolution(on, Multiplied::All, [32, side], 1.0);
        time(&conv, side, &costs, budget)
    });
    let [each, _, store] = separate([large, small, Timed::known(1, gather)]);
    [each, store]
}

/// The same of depthwise convolutions.
fn depthwise_convolutions((isa, dot): (Isa, Dot), gather: f64, budget: Budget) -> [f64; 2] {
    let costs: [Cost; 3] = [
        |c| &mut c.column_conv,
        |c| &mut c.gather,
        |c| &mut c.column_store,
    ];
    let [channels, ..] = MAP;
    let rows = Rows::new(channels);
    let [small, large] = [3, 5].map(|side| {
        let filters = levels(channels, side * side, 1.0).values;
        let blocks = blocks(channels, &window(side));
        let conv = ColumnConv::pack(
            (isa, dot),
            &Dense::new([channels, 1, side, side], filters),
            rows.quantization(),
            &window(side),
            InputSplit::Channels,
            blocks,
        );
        let conv = conv.writing_bytes(GRID.into());
        let x = Buffer::zeroed(blocks[0].byte_len());
        let mut y = Buffer::zeroed(conv.output_len());
        let mut scratch = Buffer::zeroed(conv.scratch_len());
        let run = || conv.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::Relu);
        Timed::new(budget.nanoseconds(run), |c| conv.unit_ns(c), &costs)
    });
    let [each, _, store] = separate([small, large, Timed::known(1, gather)]);
    [each, store]
}

/// Costs of a multiply-add, of gathering a byte and of storing a sum, by which three layers take the times that were measured: the first one, which is
/// typical, exactly; the others too, unless a cost were not positive.
fn separate(layers: [Timed; 3]) -> [f64; 3] {
    let equations = layers.each_ref().map(|layer| {
        let counts = [0, 1, 2].map(|cost| layer.counts[cost]);
        (counts, layer.ns)
    });
    let mut costs = solve(equations).unwrap_or_default();
    for (cost, layer) in [(1, &layers[2]), (2, &layers[0])] {
        let most = layer.ns / layer.counts[cost].max(1.0);
        costs[cost] = costs[cost].clamp(LEAST * most, most);
    }
    costs[0] = layers[0].rest(0, &costs);
    costs
}

/// The solution of three equations, each with its right side.
fn solve(equations: [([f64; 3], f64); 3]) -> Option<[f64; 3]> {
    let [a, b, c] = equations.map(|(row, _)| row);
    let determinant = |[a, b, c]: [[f64; 3]; 3]| {
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
    };
    let all = determinant([a, b, c]);
    (all != 0.0).then(|| {
        std::array::from_fn(|column| {
            let replaced = equations.map(|(mut row, right)| {
                row[column] = right;
                row
            });
            determinant(replaced) / all
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cost_of_every_dot_is_a_time() {
        for dot in Dot::available() {
            let mut all = Isa::available().into_iter();
            let isa = all.rfind(|isa| isa.level() <= dot.level()).unwrap();
            let costs = Costs {
                int8: Some(measure((isa, dot), Budget::TINY)),
                ..Costs::default()
            };
            assert!(costs.are_times(), "{dot}: {costs:?}");
        }
    }

    #[test]
    fn three_equations_have_their_solution() {
        let want = [2.0, -1.0, 0.5];
        let rows = [[3.0, 1.0, 2.0], [0.0, 4.0, 1.0], [5.0, 1.0, 1.0]];
        let equation = |row: [f64; 3]| (row, row.iter().zip(want).map(|(a, x)| a * x).sum());
        let got = solve(rows.map(equation)).unwrap();
        for (got, want) in got.into_iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{got}, want {want}");
        }
        assert_eq!(solve([rows[0], rows[0], rows[1]].map(equation)), None);
    }

    #[test]
    fn estimates_by_measured_costs_are_the_times_that_were_measured() {
        let isa = Isa::best();
        let conv = convolution((isa, Dot::of(isa)), Multiplied::Nonzeros, [32, 3], 0.1);
        let costs: [Cost; 2] = [|c| &mut c.conv, |c| &mut c.store];
        let timed = Timed::new(5000.0, |c| conv.unit_ns(c), &costs);
        let each = timed.rest(0, &[0.0, 0.01]);
        let int8 = Int8Costs {
            conv: each,
            store: 0.01,
            ..NOTHING
        };
        let costs = Costs {
            stream: [0.0; 3],
            int8: Some(int8),
            ..Costs::default()
        };
        assert!((conv.unit_ns(&costs) - 5000.0).abs() < 1e-6);
    }
}
