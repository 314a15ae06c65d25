//! Pooling over [`Blocks`]: a window is the same few lines for all sixteen blocks.

use sparsevd_model::Window;

use crate::blocks::{Blocks, Edges};
use crate::isa::multiversion;
use crate::pool::{Reduction, larger};
use crate::{Isa, LANES};

/// Pooling without padding, planned for inputs and outputs in [`Blocks`].
#[derive(Debug, Clone)]
pub struct BlockPool {
    isa: Isa,
    reduction: Reduction,
    window: Window,
    input: Blocks,
    output: Blocks,
    edges: Edges,
}

impl BlockPool {
    /// The blocks of outputs over `input`, without a halo, or `None` where this pooling needs another layout: where it has padding, windows do not
    /// move lane for lane, or the halo is too narrow for them.
    pub fn output(window: &Window, input: &Blocks) -> Option<Blocks> {
        let [c, h, w] = input.map();
        let [oh, ow] = window.output(h, w)?;
        let output = input.over([c, oh, ow], window.strides)?;
        let needed = output
            .under(input.map(), window.strides)
            .with_halo(Blocks::halo_of(window));
        (window.pads == [0; 4] && input.covers(&needed)).then_some(output)
    }

    /// Plans pooling.
    ///
    /// # Panics
    /// When the blocks of `output` are not those of [`BlockPool::output`], whatever their halo.
    #[track_caller]
    pub fn new(
        isa: Isa,
        reduction: Reduction,
        window: &Window,
        [input, output]: [Blocks; 2],
    ) -> Self {
        let fits = Self::output(window, &input).is_some_and(|least| output.covers(&least));
        assert!(fits, "{window:?} from {input:?} to {output:?}");
        Self {
            isa,
            reduction,
            window: window.clone(),
            input,
            output,
            edges: output.edges(),
        }
    }

    /// Pools `n` samples.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize) {
        assert_eq!(x.len(), n * self.input.len(), "elements of x");
        assert_eq!(y.len(), n * self.output.len(), "elements of y");
        match self.reduction {
            Reduction::Max => max(self.isa, self, x, y),
            Reduction::Average => average(self.isa, self, x, y),
        }
        self.edges.refresh(self.isa, y);
    }
}

multiversion!(fn max(pool: &BlockPool, x: &[f32], y: &mut [f32]) = max_body;);
multiversion!(fn average(pool: &BlockPool, x: &[f32], y: &mut [f32]) = average_body;);

#[inline(always)]
fn max_body(pool: &BlockPool, x: &[f32], y: &mut [f32]) {
    lines(pool, x, y, f32::NEG_INFINITY, larger, |v| v);
}

#[inline(always)]
fn average_body(pool: &BlockPool, x: &[f32], y: &mut [f32]) {
    let [kh, kw] = pool.window.kernel_shape;
    let count = (kh * kw) as f32;
    lines(pool, x, y, 0.0, |a, b| a + b, |v| v / count);
}

#[inline(always)]
fn lines(
    pool: &BlockPool,
    x: &[f32],
    y: &mut [f32],
    start: f32,
    reduce: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32) -> f32,
) {
    let ([kh, kw], [sy, sx]) = (pool.window.kernel_shape, pool.window.strides);
    let [dy, dx] = pool.window.dilations;
    let [rows, columns] = pool.output.block();
    for (x, y) in x
        .chunks_exact((pool.input.channel() * LANES).max(1))
        .zip(y.chunks_exact_mut((pool.output.channel() * LANES).max(1)))
    {
        for row in 0..rows {
            let to = pool.output.line(row.cast_signed(), 0) * LANES;
            let to = &mut y[to..][..columns * LANES];
            for (column, to) in to.chunks_exact_mut(LANES).enumerate() {
                let mut acc = [start; LANES];
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let (row, column) = (row * sy + ky * dy, column * sx + kx * dx);
                    let line = pool.input.line(row.cast_signed(), column.cast_signed());
                    let line = &x[line * LANES..][..LANES];
                    for lane in 0..LANES {
                        acc[lane] = reduce(acc[lane], line[lane]);
                    }
                }
                for (to, v) in to.iter_mut().zip(acc) {
                    *to = finish(v);
                }
            }
        }
    }
}
