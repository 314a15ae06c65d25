//! Measurement of [`BlockCosts`].

use std::hint::black_box;

use sparsevd_model::{Csr, Dense};

use super::budget::Budget;
use super::maps::{MAP, blocks, window};
use super::pattern::pattern;
use crate::conv_blocks::BlockConv;
use crate::cost::BlockCosts;
use crate::dense_blocks::DenseBlockConv;
use crate::depthwise::Depthwise;
use crate::{Buffer, Clamp, Isa};

/// Times convolutions over blocks.
pub(super) fn measure(isa: Isa, budget: Budget) -> BlockCosts {
    const OUT: usize = 32;
    let [channels, height, width] = MAP;
    let (window, pixels) = (window(3), (height * width) as f64);
    let maps = blocks(OUT, &window);
    let filters = |density| {
        let values = pattern(OUT * channels * 9, density);
        Dense::new([OUT, channels, 3, 3], values)
    };
    let x = Buffer::zeroed(maps[0].len());
    let mut y = Buffer::zeroed(maps[1].len());
    let csr = Csr::from_dense(&filters(0.1));
    let shape = [OUT, channels, 3, 3];
    let sparse = BlockConv::pack_channels(isa, &csr, shape, None, &window, 1, maps, 0..OUT);
    let run = || sparse.run(black_box(&x), &mut y, 1, Clamp::Relu);
    let conv = budget.nanoseconds(run) / (csr.nonzeros() as f64 * pixels);
    let weights = filters(1.0);
    let dense = DenseBlockConv::pack_channels(isa, &weights, None, &window, 1, maps, 0..OUT);
    let run = || dense.run(black_box(&x), &mut y, 1, Clamp::Relu);
    let dense_conv = budget.nanoseconds(run) / (weights.values.len() as f64 * pixels);
    let maps = blocks(channels, &window);
    let weights = Dense::new([channels, 1, 3, 3], pattern(channels * 9, 1.0));
    let each = Depthwise::pack(isa, &weights, None, &window, maps);
    let y = &mut y[..maps[1].len()];
    let run = || each.run(black_box(&x), y, 1, Clamp::Relu);
    BlockCosts {
        conv,
        dense_conv,
        depthwise: budget.nanoseconds(run) / (weights.values.len() as f64 * pixels),
    }
}
