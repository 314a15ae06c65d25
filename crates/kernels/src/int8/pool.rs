//! Max-pooling of maps of bytes: rounding to a grid keeps the order of numbers, so the largest byte is that of the largest number.

use sparsevd_model::Window;

use super::dot::Dot;
use super::grid::Grid;
use super::linear::{bytes, bytes_of};
use super::maps::{ByteEdges, byte_of_lane};
use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload};
use crate::pool::Reduction;
use crate::pool_blocks::BlockPool;
use crate::{Isa, LANES, length};

/// Max-pooling of maps of bytes in blocks, to bytes of the same grid.
///
/// # Invariants
/// - `taps` has as many elements for each of `lines`, and each is a line of a channel of the input
#[derive(Debug, Clone)]
pub struct MaxPool {
    isa: Isa,
    dot: Dot,
    blocks: [Blocks; 2],
    /// Where each line of a channel of the output begins.
    lines: Vec<usize>,
    taps: Vec<Tap>,
    edges: ByteEdges,
}

/// One element of a window for all sixteen blocks.
#[derive(Debug, Clone, Copy)]
struct Tap {
    /// Where its line begins in the input channel.
    from: usize,
    /// 255 for the bytes that count, 0 for those out of the map.
    inside: [u8; LANES],
    /// Whether all count, or are the least byte anyway.
    everywhere: bool,
}

impl MaxPool {
    /// Plans pooling between these blocks.
    ///
    /// # Panics
    /// When the blocks of `output` are not those of [`BlockPool::output`], with any halo.
    #[track_caller]
    pub fn new(
        (isa, dot): (Isa, Dot),
        window: &Window,
        [input, output]: [Blocks; 2],
        grid: Grid,
    ) -> Self {
        let floats = BlockPool::new(isa, Reduction::Max, window, [input, output]);
        // Outside of the map there is the byte of zero.
        let zero_is_least = grid.zero_point() == 0;
        let tap = |(from, lanes): (usize, [bool; LANES])| {
            let mut inside = [0; LANES];
            for (lane, is) in lanes.into_iter().enumerate() {
                inside[byte_of_lane(lane)] = if is { u8::MAX } else { 0 };
            }
            Tap {
                from,
                everywhere: zero_is_least || lanes == [true; LANES],
                inside,
            }
        };
        Self {
            isa,
            dot,
            blocks: [input, output],
            lines: floats.output_lines().collect(),
            taps: floats.taps().map(tap).collect(),
            edges: ByteEdges::of(&output, grid.zero_point()),
        }
    }

    /// Pools `n` samples, and makes the halos of `y`.
    ///
    /// # Panics
    /// When `x` or `y` is not `n` samples in its blocks.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize) {
        let [input, output] = &self.blocks;
        length::check("x", x.len(), [n, input.byte_len()]);
        length::check("y", y.len(), [n, output.byte_len()]);
        pool(self.isa, self, bytes_of(x), bytes(y));
        self.edges.refresh(self.dot, bytes(y));
    }
}

multiversion!(fn pool(pool: &MaxPool, x: &[u8], y: &mut [u8]) = pool_body;);

#[inline(always)]
fn pool_body(pool: &MaxPool, x: &[u8], y: &mut [u8]) {
    let [from, to] = pool.blocks.map(|b| (b.channel() * LANES).max(1));
    let per_line = (pool.taps.len() / pool.lines.len().max(1)).max(1);
    for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
        for (&line, taps) in pool.lines.iter().zip(pool.taps.chunks_exact(per_line)) {
            let mut most = [0; LANES];
            for tap in taps {
                let mut bytes = [0; LANES];
                bytes.copy_from_slice(&x[tap.from..][..LANES]);
                if !tap.everywhere {
                    for (byte, inside) in bytes.iter_mut().zip(tap.inside) {
                        *byte &= inside;
                    }
                }
                for (most, byte) in most.iter_mut().zip(bytes) {
                    *most = byte.max(*most);
                }
            }
            y[line..][..LANES].copy_from_slice(&most);
        }
    }
}

impl PackedKernel for MaxPool {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n);
    }

    fn name(&self) -> String {
        "pool-blocks-i8".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        /// Time of a byte over that of a float.
        const SHARE: f64 = 0.5;
        work.elementwise(costs) * SHARE
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}
