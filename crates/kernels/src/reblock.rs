//! Conversion from spatial [`Blocks`] to plain maps and to other [`Blocks`], and subsampling.

use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload};
use crate::permute::{Permute, Sources};
use crate::{Isa, LANES, length};

/// Conversion from maps in blocks to `[n][c][h][w]`, planned for one size.
#[derive(Debug, Clone)]
pub struct Unpack {
    isa: Isa,
    blocks: Blocks,
    /// For narrow blocks, whose rows are short: gathers lines of the map from lanes.
    narrow: Option<Permute>,
}

impl Unpack {
    /// Plans the conversion.
    pub fn new(isa: Isa, blocks: Blocks) -> Self {
        // Up to this number of pixels in a row of a block, gathering is faster than transposing eight lines at once.
        const NARROW: usize = 5;
        let [_, h, w] = blocks.map();
        let line = |first: usize| {
            let pixels = first..(first + LANES).min(h * w);
            let mut sources: Sources = [None; LANES];
            for (source, at) in sources.iter_mut().zip(pixels) {
                *source = Some(blocks.place(at / w, at % w));
            }
            sources
        };
        let channels = [blocks.channel() * LANES, h * w];
        Self {
            isa,
            blocks,
            narrow: (blocks.block()[1] <= NARROW).then(|| {
                let lines = (0..h * w).step_by(LANES).map(line).collect();
                Permute::new(isa, lines, channels, h * w)
            }),
        }
    }

    /// Converts `n` samples in blocks to `[n][c][h][w]`.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        let [c, h, w] = self.blocks.map();
        length::check("x", x.len(), [n, self.blocks.len()]);
        length::check("y", y.len(), [n, c, h, w]);
        match &self.narrow {
            Some(permute) => permute.run(x, y),
            None => self.blocks.unpack(self.isa, x, n, y),
        }
    }
}

/// Conversion from maps in blocks to other blocks of the same grid, with the halos of those.
///
/// There are two passes, over rows and over columns. So a line is gathered from blocks of one column of the grid, then of one row, not from all
/// sixteen.
#[derive(Debug, Clone)]
pub struct Reblock {
    blocks: [Blocks; 2],
    down: Permute,
    across: Permute,
    /// Floats of a channel: of the input, between the passes, and of the output.
    channels: [usize; 3],
}

impl Reblock {
    /// Plans the conversion.
    ///
    /// # Panics
    /// When the maps or the grids differ ([`Blocks::regroups`]).
    #[track_caller]
    pub fn new(isa: Isa, from: Blocks, to: Blocks) -> Self {
        let grid = from.grid();
        assert!(from.regroups(&to), "from {from:?} to {to:?}");
        let [_, h, w] = from.map();
        let [height, width] = [to.height(), to.pitch()];
        let [_, columns] = from.block();
        // Rows of the new blocks, columns of the old ones.
        let down = (0..height * columns).map(|line| {
            let (row, column) = (line / columns, line % columns);
            std::array::from_fn(|lane| {
                let y = to.pixel(lane, row, 0)[0];
                let x = lane % grid[1] * columns + column;
                (y < h && x < w).then(|| from.place(y, x))
            })
        });
        let across = (0..height * width).map(|line| {
            let (row, column) = (line / width, line % width);
            std::array::from_fn(|lane| {
                let [y, x] = to.pixel(lane, row, column);
                // Outside of the map the column may be any number.
                let from = || lane / grid[1] * grid[1] + x / columns;
                (y < h && x < w).then(|| (row * columns + x % columns, from()))
            })
        });
        let between = height * columns * LANES;
        let [old, new] = [from, to].map(|b| b.channel() * LANES);
        Self {
            blocks: [from, to],
            down: Permute::new(isa, down.collect(), [old, between], between),
            across: Permute::new(
                isa,
                across.collect(),
                [between, new],
                height * width * LANES,
            ),
            channels: [old, between, new],
        }
    }

    /// Channels that go through both passes at once, so that what lies between the passes stays in the first-level cache.
    fn at_once(&self) -> usize {
        const CACHE: usize = 6 * 1024;
        let floats: usize = self.channels.iter().sum();
        (CACHE / floats.max(1)).clamp(2, self.blocks[0].map()[0].max(2))
    }

    /// Floats of scratch that [`Reblock::run`] needs, for any count.
    pub fn scratch_len(&self) -> usize {
        self.at_once() * self.channels[1]
    }

    /// Converts `n` samples; `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`Reblock::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32], scratch: &mut [f32]) {
        let [x_len, y_len] = self.blocks.map(|b| b.len());
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let [old, between, new] = self.channels;
        let at_once = self.at_once();
        // Samples are contiguous, as channels are, so chunks may span samples.
        for (x, y) in x
            .chunks((at_once * old).max(1))
            .zip(y.chunks_mut((at_once * new).max(1)))
        {
            let scratch = &mut scratch[..y.len() / new * between];
            self.down.run(x, scratch);
            self.across.run(scratch, y);
        }
    }
}

/// Subsampling of maps in blocks: the pixels that a 1x1 convolution with strides reads, in blocks of their own.
#[derive(Debug, Clone)]
pub struct Subsample {
    blocks: [Blocks; 2],
    permute: Permute,
}

impl Subsample {
    /// Plans to take every `strides[0]`-th row and `strides[1]`-th column of `from` to `to`.
    ///
    /// # Panics
    /// When the map of `to` is not that of `from` divided by the strides, rounded up.
    #[track_caller]
    pub fn new(isa: Isa, from: Blocks, to: Blocks, strides: [usize; 2]) -> Self {
        let ([c, h, w], [channels, oh, ow]) = (from.map(), to.map());
        assert_eq!(
            [channels, oh, ow],
            [c, h.div_ceil(strides[0]), w.div_ceil(strides[1])],
            "the map of one pixel in {strides:?}"
        );
        let [height, width] = [to.height(), to.pitch()];
        let line = |line: usize| -> Sources {
            std::array::from_fn(|lane| {
                let [y, x] = to.pixel(lane, line / width, line % width);
                (y < oh && x < ow).then(|| from.place(y * strides[0], x * strides[1]))
            })
        };
        let lines = (0..height * width).map(line).collect();
        let channels = [from, to].map(|b| b.channel() * LANES);
        Self {
            blocks: [from, to],
            permute: Permute::new(isa, lines, channels, height * width * LANES),
        }
    }

    /// Subsamples `n` samples.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        let [x_len, y_len] = self.blocks.map(|b| b.len());
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        self.permute.run(x, y);
    }
}

/// [`Blocks::pack`]: plain maps into blocks, with their halos.
#[derive(Debug, Clone)]
pub struct PackBlocks {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// Blocks of the output.
    pub blocks: Blocks,
}

impl PackedKernel for PackBlocks {
    fn run(&self, operands: Operands<'_>) {
        let Operands { x, y, n, .. } = operands;
        self.blocks.pack(self.isa, x, n, y);
    }

    fn name(&self) -> String {
        "pack-blocks".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}

impl PackedKernel for Unpack {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        "unpack-blocks".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}

impl PackedKernel for Reblock {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x, y, n, scratch, ..
        } = operands;
        Self::run(self, x, n, y, scratch);
    }

    fn name(&self) -> String {
        "reblock".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}

impl PackedKernel for Subsample {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        "subsample".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}
