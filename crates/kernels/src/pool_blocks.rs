//! Pooling over spatial [`Blocks`].

use std::ops::Range;

use sparsevd_model::Window;

use crate::bands::{Banded, Frame, Tiling, run_whole};
use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::edges::SharedMap;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::pool::{Reduction, larger};
use crate::{Clamp, Isa, LANES, length};

/// Pooling planned for inputs and outputs in spatial [`Blocks`].
///
/// # Invariants
/// - `taps` has an element for each output line of a channel and each element of the window
#[derive(Debug, Clone)]
pub struct BlockPool {
    frame: Frame,
    reduction: Reduction,
    taps: Vec<Tap>,
    /// For each output line of a channel, the number of pixels in the window of each lane.
    counts: Vec<[f32; LANES]>,
}

/// One element of a window for all sixteen blocks.
#[derive(Debug, Clone, Copy)]
struct Tap {
    /// Where its line begins in the input channel, in floats.
    from: usize,
    /// Mask of the lanes for which it lies in the map.
    inside: [u32; LANES],
    /// Whether it lies in the map for all lanes.
    everywhere: bool,
}

impl BlockPool {
    /// The blocks of the output for inputs in `input`, without a halo. `None` where the pooling needs another layout: where outputs would depend on
    /// several lanes, or the halo is too narrow for the window.
    pub fn output(window: &Window, input: &Blocks) -> Option<Blocks> {
        let [c, h, w] = input.map();
        let [oh, ow] = window.output(h, w)?;
        let output = input.over([c, oh, ow], window.strides)?;
        let needed = output
            .under(input.map(), window.strides)
            .with_halo(Blocks::halo_of(window));
        // Where lanes are samples, blocks have no neighbours, so the halo would need padding.
        let borders = input.is_tile() && window.pads != [0; 4];
        (!borders && input.covers(&needed)).then_some(output)
    }

    /// Plans pooling between these blocks.
    ///
    /// # Panics
    /// When the blocks of `output` are not those of [`BlockPool::output`], with any halo.
    #[track_caller]
    pub fn new(
        isa: Isa,
        reduction: Reduction,
        window: &Window,
        [input, output]: [Blocks; 2],
    ) -> Self {
        let fits = Self::output(window, &input).is_some_and(|least| output.covers(&least));
        assert!(fits, "{window:?} from {input:?} to {output:?}");
        let ([kh, kw], [sy, sx]) = (window.kernel_shape, window.strides);
        let ([dy, dx], [top, left, ..]) = (window.dilations, window.pads);
        let at = |row: usize, column: usize| {
            (0..kh).flat_map(move |ky| {
                (0..kw).map(move |kx| {
                    let (y, x) = (row * sy + ky * dy, column * sx + kx * dx);
                    [(y, top), (x, left)].map(|(at, pad)| at.cast_signed() - pad.cast_signed())
                })
            })
        };
        let tap = |[row, column]: [isize; 2]| {
            let inside = input.inside(row, column);
            Tap {
                from: input.line(row, column) * LANES,
                inside: inside.map(|is| if is { u32::MAX } else { 0 }),
                everywhere: inside == [true; LANES],
            }
        };
        let [rows, columns] = output.block();
        let lines = || (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let taps: Vec<Tap> = lines().flat_map(|(r, c)| at(r, c).map(tap)).collect();
        let counts = taps.chunks_exact((kh * kw).max(1)).map(|taps| {
            let inside = |lane: usize| taps.iter().filter(|t| t.inside[lane] != 0).count();
            // Outside of the map there are no pixels; 1 avoids a division by zero.
            std::array::from_fn(|lane| inside(lane).max(1) as f32)
        });
        Self {
            frame: Frame::new(
                isa,
                [input, output],
                Tiling::new(window, [&input, &output], 1),
            ),
            reduction,
            counts: counts.collect(),
            taps,
        }
    }

    /// Where each line of a channel of the output begins.
    pub(crate) fn output_lines(&self) -> impl Iterator<Item = usize> {
        self.frame.tiling.tiles.iter().map(|tile| tile.y)
    }

    /// For each of these lines and each element of the window, where its line begins in the input channel, and the lanes for which it lies in the map.
    pub(crate) fn taps(&self) -> impl Iterator<Item = (usize, [bool; LANES])> {
        let taps = self.taps.iter();
        taps.map(|tap| (tap.from, tap.inside.map(|mask| mask != 0)))
    }

    /// Pools `n` samples, and copies the halos of `y`.
    ///
    /// # Panics
    /// When `x` or `y` is not `n` samples in its blocks.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize) {
        run_whole(self, x, None, y, n, Clamp::None);
    }
}

// SAFETY: tiles do not overlap, `run_units` stores only to lines of its tiles, and all accesses are checked.
unsafe impl Banded for BlockPool {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    unsafe fn run_units(
        &self,
        units: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: *mut f32,
        clamp: Clamp,
    ) {
        assert!(residual.is_none(), "a sum with pooling");
        assert_eq!(clamp, Clamp::None, "an clamp with pooling");
        let isa = self.frame.isa;
        // SAFETY: `y` is one sample in the output's blocks, and only lines of the units are accessed, which by the contract of this function no other thread
        // accesses.
        let y = unsafe { SharedMap::new(y, self.frame.output.len()) };
        match self.reduction {
            Reduction::Max => max(isa, self, x, y, units),
            Reduction::Average => average(isa, self, x, y, units),
        }
    }
}

multiversion!(fn max(pool: &BlockPool, x: &[f32], y: SharedMap, units: Range<usize>) = max_body;);
multiversion!(fn average(pool: &BlockPool, x: &[f32], y: SharedMap, units: Range<usize>) = average_body;);

#[inline(always)]
fn max_body(pool: &BlockPool, x: &[f32], y: SharedMap, units: Range<usize>) {
    lines(pool, x, y, units, f32::NEG_INFINITY, larger, |v, _| v);
}

#[inline(always)]
fn average_body(pool: &BlockPool, x: &[f32], y: SharedMap, units: Range<usize>) {
    lines(pool, x, y, units, 0.0, |a, b| a + b, |v, count| v / count);
}

#[inline(always)]
fn lines(
    pool: &BlockPool,
    x: &[f32],
    y: SharedMap,
    units: Range<usize>,
    start: f32,
    reduce: impl Fn(f32, f32) -> f32,
    finish: impl Fn(f32, f32) -> f32,
) {
    let Frame {
        input,
        output,
        tiling,
        ..
    } = &pool.frame;
    let per_line = pool.taps.len() / pool.counts.len().max(1);
    for (channel, x) in x.chunks_exact((input.channel() * LANES).max(1)).enumerate() {
        let all = pool.taps.chunks_exact(per_line.max(1));
        let lines = tiling.tiles.iter().zip(all).zip(&pool.counts);
        for ((tile, taps), counts) in lines.take(units.end).skip(units.start) {
            let mut acc = [start; LANES];
            for tap in taps {
                let mut line = [0.0; LANES];
                line.copy_from_slice(&x[tap.from..][..LANES]);
                if !tap.everywhere {
                    for (v, inside) in line.iter_mut().zip(tap.inside) {
                        *v = f32::from_bits((v.to_bits() & inside) | (start.to_bits() & !inside));
                    }
                }
                for lane in 0..LANES {
                    acc[lane] = reduce(acc[lane], line[lane]);
                }
            }
            for lane in 0..LANES {
                acc[lane] = finish(acc[lane], counts[lane]);
            }
            y.store(channel * output.channel() * LANES + tile.y, acc);
        }
    }
}

/// Pooling of whole maps in [`Blocks`]: `[c, h, w]` to `[c]`.
#[derive(Debug, Clone)]
pub struct GlobalPool {
    isa: Isa,
    reduction: Reduction,
    blocks: Blocks,
    /// For each line of a channel without its halo, a mask of the lanes that lie in the map.
    inside: Vec<[u32; LANES]>,
}

impl GlobalPool {
    /// Plans the pooling of maps in these blocks.
    pub fn new(isa: Isa, reduction: Reduction, blocks: Blocks) -> Self {
        let [rows, columns] = blocks.block();
        let lines = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let inside = lines.map(|(row, column)| {
            let inside = blocks.inside(row.cast_signed(), column.cast_signed());
            inside.map(|is| if is { u32::MAX } else { 0 })
        });
        Self {
            isa,
            reduction,
            blocks,
            inside: inside.collect(),
        }
    }

    /// Pools `n` samples: `y` is `[n][c]`.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        length::check("x", x.len(), [n, self.blocks.len()]);
        length::check("y", y.len(), [n, self.blocks.map()[0]]);
        whole(self.isa, self, x, y);
    }
}

multiversion!(fn whole(pool: &GlobalPool, x: &[f32], y: &mut [f32]) = whole_body;);

#[inline(always)]
fn whole_body(pool: &GlobalPool, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = pool.blocks.map();
    match pool.reduction {
        Reduction::Max => reduced(pool, x, y, f32::NEG_INFINITY, larger),
        Reduction::Average => {
            reduced(pool, x, y, 0.0, |a, b| a + b);
            y.iter_mut().for_each(|y| *y /= (h * w) as f32);
        }
    }
}

#[inline(always)]
fn reduced(
    pool: &GlobalPool,
    x: &[f32],
    y: &mut [f32],
    start: f32,
    reduce: impl Fn(f32, f32) -> f32,
) {
    let blocks = &pool.blocks;
    let [rows, columns] = blocks.block();
    let channels = x.chunks_exact((blocks.channel() * LANES).max(1));
    for (x, y) in channels.zip(y) {
        let mut acc = [start; LANES];
        for row in 0..rows {
            let lines = &x[blocks.line(row.cast_signed(), 0) * LANES..][..columns * LANES];
            let inside = &pool.inside[row * columns..][..columns];
            for (line, inside) in lines.chunks_exact(LANES).zip(inside) {
                for lane in 0..LANES {
                    // What lies outside of the map may be anything.
                    let (v, inside) = (line[lane].to_bits(), inside[lane]);
                    let v = f32::from_bits((v & inside) | (start.to_bits() & !inside));
                    acc[lane] = reduce(acc[lane], v);
                }
            }
        }
        *y = acc.into_iter().fold(start, &reduce);
    }
}

impl PackedKernel for BlockPool {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n);
    }

    fn name(&self) -> String {
        "pool-blocks-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn banded(&self) -> Option<&dyn Banded> {
        Some(self)
    }
}

impl PackedKernel for GlobalPool {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        "pool-blocks-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
