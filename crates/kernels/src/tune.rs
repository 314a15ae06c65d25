//! Measurement of [`Costs`] on this machine.

mod blocks;
mod budget;
mod int8;
mod maps;
mod pattern;

use std::hint::black_box;

use sparsevd_model::{Csr, Dense, Window};

use budget::Budget;
use pattern::{SIDE, pattern, pattern_from};

use crate::cost::{Costs, DENSITIES, STREAMS};
use crate::dense::{Conv, Gemv, Linear};
use crate::int8::Dot;
use crate::panel_gemm::PanelGemm;
use crate::{Buffer, Clamp, Isa, LANES, conv_rows::RowConv, pack_tiles, spmm::Spmm, spmv};

/// Times the kernels of an instruction set, and those that multiply int8 in plans for it, in about a second on one thread. The machine should have nothing else to do.
pub fn measure(isa: Isa) -> Costs {
    measure_within(isa, Budget::DEFAULT)
}

fn measure_within(isa: Isa, budget: Budget) -> Costs {
    let mut costs = Costs::default();
    let elements = (SIDE * SIDE) as f64;
    let x = Buffer::from(&pattern(SIDE * LANES, 1.0)[..]);
    let mut y = Buffer::zeroed(SIDE * LANES);
    for (i, &density) in DENSITIES.iter().enumerate() {
        let csr = layer(SIDE, SIDE, density);
        let nonzeros = csr.nonzeros() as f64;
        let one = spmv::Spmv::pack(isa, &csr, None);
        let run = || one.run(black_box(&x[..SIDE]), &mut y[..SIDE], Clamp::Relu);
        costs.spmv[i] = budget.nanoseconds(run) / nonzeros;
        let tile = Spmm::pack(isa, &csr, None);
        let mut run = |n| budget.nanoseconds(|| tile.run(black_box(&x), &mut y, n, Clamp::Relu));
        costs.spmm[i] = run(LANES) / nonzeros;
        if density == 0.05 {
            costs.half_tile = run(LANES / 2) / run(LANES);
        }
    }
    (costs.input_sparse, costs.input_sparse_column) = input_sparse(isa, budget);
    let dense = Dense::new([SIDE, SIDE], pattern(SIDE * SIDE, 1.0));
    let gemv = Gemv::pack(isa, &dense, None);
    let run = || gemv.run(black_box(&x[..SIDE]), &mut y[..SIDE], Clamp::Relu);
    costs.gemv = budget.nanoseconds(run) / elements;
    let gemm = Linear::pack(isa, &dense, None);
    let run = || gemm.run(black_box(&x), &mut y, 1, Clamp::Relu);
    costs.gemm = budget.nanoseconds(run) / elements;
    let panels = PanelGemm::pack(isa, &dense, None);
    let run = || panels.run(black_box(&x), &mut y, LANES, Clamp::Relu);
    costs.panel_gemm = Some(budget.nanoseconds(run) / (elements * LANES as f64));
    for (cost, bytes) in costs.stream.iter_mut().zip(STREAMS) {
        *cost = stream(isa, bytes as usize / 4, budget);
    }
    (costs.conv, costs.dense_conv) = convolutions(isa, budget);
    let samples = pattern(SIDE * LANES, 1.0);
    let run = || pack_tiles(isa, black_box(&samples), LANES, SIDE, &mut y);
    costs.element = budget.nanoseconds(run) / (SIDE * LANES) as f64;
    costs.blocks = Some(blocks::measure(isa, budget));
    costs.int8 = Some(int8::measure((isa, Dot::of(isa)), budget));
    costs
}

/// Nanoseconds per entry and per column of a non-zero input, from two densities; a fifth of the inputs is not zero.
fn input_sparse(isa: Isa, budget: Budget) -> (f64, f64) {
    // Several vectors, so that the branch predictor cannot learn one of them.
    let inputs: Vec<Vec<f32>> = (0..16).map(|i| pattern_from(i + 2, SIDE, 0.2)).collect();
    let active: usize = inputs.iter().flatten().filter(|v| **v != 0.0).count();
    let active = active as f64 / inputs.len() as f64;
    let mut y = vec![0.0; SIDE];
    let mut time = |density: f64| {
        let csr = layer(SIDE, SIDE, density);
        let kernel = spmv::InputSparse::pack(isa, &csr, None);
        let mut scratch = vec![0.0; kernel.scratch_len()];
        let mut turn = 0;
        let ns = budget.nanoseconds(|| {
            turn = (turn + 1) % inputs.len();
            kernel.run(black_box(&inputs[turn]), &mut y, &mut scratch, Clamp::Relu);
        });
        let entries = csr.nonzeros() as f64 * active / SIDE as f64 + 1.5 * active;
        (entries, ns)
    };
    let ((few, short), (many, long)) = (time(0.02), time(0.2));
    let each = ((long - short) / (many - few)).max(0.01);
    (each, ((short - few * each) / active).max(0.01))
}

/// Nanoseconds per byte of a dense product with one vector that reads `elements` weights.
fn stream(isa: Isa, elements: usize, budget: Budget) -> f64 {
    let (rows, cols) = (elements / 1024, 1024);
    let dense = Dense::new([rows, cols], pattern(rows * cols, 1.0));
    let gemv = Gemv::pack(isa, &dense, None);
    let (x, mut y) = (Buffer::zeroed(cols), Buffer::zeroed(rows));
    budget.nanoseconds(|| gemv.run(black_box(&x), &mut y, Clamp::Relu)) / (rows * cols * 4) as f64
}

/// Nanoseconds per multiply-add of a sparse and of a dense convolution.
fn convolutions(isa: Isa, budget: Budget) -> (f64, f64) {
    let (shape, input) = ([32, 32, 3, 3], [32, 16, 16]);
    let window = Window {
        pads: [1; 4],
        ..Window::square(3, 1)
    };
    let pixels = 16.0 * 16.0;
    let filters = |density| Dense::new(shape, pattern(shape.iter().product(), density));
    let (x, mut y) = (vec![0.5; 32 * 256], vec![0.0; 32 * 256]);
    let csr = Csr::from_dense(&filters(0.1));
    let all = 0..shape[0];
    let sparse = RowConv::pack_channels(isa, &csr, shape, None, &window, 1, input, all);
    let mut scratch = Buffer::zeroed(sparse.scratch_len());
    let ns = budget.nanoseconds(|| sparse.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::Relu));
    let sparse = ns / (csr.nonzeros() as f64 * pixels);
    let dense = Conv::pack(isa, &filters(1.0), None, &window, 1, input);
    let mut scratch = Buffer::zeroed(dense.scratch_len());
    let ns = budget.nanoseconds(|| dense.run(black_box(&x), &mut y, 1, &mut scratch, Clamp::Relu));
    (
        sparse,
        ns / (shape.iter().product::<usize>() as f64 * pixels),
    )
}

fn layer(rows: usize, cols: usize, density: f64) -> Csr {
    Csr::from_dense(&Dense::new([rows, cols], pattern(rows * cols, density)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cost_of_every_instruction_set_is_a_time() {
        for isa in Isa::available() {
            let costs = measure_within(isa, Budget::TINY);
            assert!(costs.are_times(), "{isa}: {costs:?}");
        }
    }

    #[test]
    fn more_work_takes_longer() {
        let elements = (SIDE * SIDE) as f64;
        for isa in Isa::available() {
            let costs = measure_within(isa, Budget::TINY);
            let Costs { spmv, spmm, .. } = costs;
            // Whole layers of 16 and more times as many non-zeros: a non-zero of a dense layer costs less, but not that much less.
            let [sparse, middle, dense] = [0, 3, 7].map(|i| {
                let nonzeros = elements * DENSITIES[i];
                [spmv, spmm].map(|costs| costs[i] * nonzeros)
            });
            for kernel in 0..2 {
                assert!(sparse[kernel] < middle[kernel], "{isa}: {costs:?}");
                assert!(middle[kernel] < dense[kernel], "{isa}: {costs:?}");
            }
            assert!(dense[0] < dense[1], "a tile of samples on {isa}: {costs:?}");
            assert!(costs.half_tile < 1.5, "half a tile on {isa}: {costs:?}");
            let int8 = costs.int8.expect("measured");
            let [sparse, middle, dense] = [0, 3, 7].map(|i| elements * DENSITIES[i] * int8.spmm[i]);
            assert!(sparse < middle && middle < dense, "int8 on {isa}: {int8:?}");
            let [few, .., many] = [0, 1, 2].map(|i| costs.stream[i] * STREAMS[i]);
            assert!(few < many, "bytes of weights on {isa}: {costs:?}");
        }
    }
}
