//! Computation of one map in spatial [`Blocks`] by several threads, each a band of its lines.
//!
//! In the next layer a thread reads mostly lines that it wrote itself and that are in its own cache, and of other threads only lines next to its
//! band.

use std::marker::PhantomData;
use std::ops::Range;

use sparsevd_model::Window;

use crate::blocks::Blocks;
use crate::edges::Edges;
use crate::{Clamp, Isa, LANES, length};

/// The lines of a channel of output in tiles, and the strides of the input under them.
#[derive(Debug, Clone)]
pub(crate) struct Tiling {
    /// The tiles, row after row.
    pub tiles: Vec<Tile>,
    /// Number of tiles in a row.
    pub per_row: usize,
    /// Floats between the inputs of neighbouring lines of output, in a row and from row to row.
    pub x_line: usize,
    pub x_row: usize,
}

/// Neighbouring lines in a row of a channel of output, which are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    /// Floats before the input of the first line.
    pub x: usize,
    /// Floats of the output channel before the first line.
    pub y: usize,
    pub lines: usize,
}

impl Tiling {
    /// For `window` from `input` to `output`, in tiles of at most `most` lines and about the same size.
    pub fn new(window: &Window, [input, output]: [&Blocks; 2], most: usize) -> Self {
        let [sy, sx] = window.strides;
        let [top, left, ..] = window.pads.map(|n| -n.cast_signed());
        let columns = output.block()[1];
        let per_row = columns.div_ceil(most);
        let origin = input.line(top, left) * LANES;
        let [x_row, x_line] = [sy * input.pitch() * LANES, sx * LANES];
        let bounds = |i: usize| [i, i + 1].map(|i| columns * i / per_row);
        Self {
            tiles: Self::each(output.block()[0], per_row, |row, i| {
                let [first, end] = bounds(i);
                Tile {
                    x: origin + row * x_row + first * x_line,
                    y: output.line(row.cast_signed(), first.cast_signed()) * LANES,
                    lines: end - first,
                }
            }),
            per_row,
            x_line,
            x_row,
        }
    }

    /// The same with 2x2 max-pooling fused: tiles of one line of the pooled `output`, each the largest of four lines.
    pub fn pooled(&self, output: &Blocks) -> Self {
        let [rows, columns] = output.block();
        let origin = self.tiles.first().map_or(0, |t| t.x);
        let tiles = Self::each(rows, columns, |row, column| Tile {
            x: origin + 2 * (row * self.x_row + column * self.x_line),
            y: output.line(row.cast_signed(), column.cast_signed()) * LANES,
            lines: 1,
        });
        Self {
            tiles,
            per_row: columns,
            ..*self
        }
    }

    fn each(rows: usize, per_row: usize, tile: impl Fn(usize, usize) -> Tile) -> Vec<Tile> {
        let all = (0..rows).flat_map(|row| (0..per_row).map(move |i| (row, i)));
        all.map(|(row, i)| tile(row, i)).collect()
    }

    /// Floats of an output channel before `tile`, or up to the end of the last tile.
    pub fn start(&self, tile: usize) -> usize {
        let past = |t: &Tile| t.y + t.lines * LANES;
        match self.tiles.get(tile) {
            Some(tile) => tile.y,
            None => self.tiles.last().map_or(0, past),
        }
    }
}

/// What every kernel between maps in [`Blocks`] has: an instruction set, layouts of input and output, and tiles of the output.
#[derive(Debug, Clone)]
pub struct Frame {
    pub(crate) isa: Isa,
    pub(crate) input: Blocks,
    pub(crate) output: Blocks,
    pub(crate) tiling: Tiling,
    pub(crate) edges: Edges,
}

impl Frame {
    pub(crate) fn new(isa: Isa, [input, output]: [Blocks; 2], tiling: Tiling) -> Self {
        Self {
            isa,
            input,
            edges: Edges::of(&output),
            output,
            tiling,
        }
    }
}

/// A kernel between maps in [`Blocks`] whose units, the tiles of its output, can be computed by different threads.
///
/// # Safety
/// [`Banded::frame`] always returns the same value. [`Banded::run_units`] accesses the input and the residual only within one sample in their
/// blocks, and the output only in lines of the given units.
pub unsafe trait Banded: Sync {
    /// Layouts and tiles of the kernel.
    fn frame(&self) -> &Frame;

    /// Computes some units of one sample, all channels, without halos.
    ///
    /// # Safety
    /// `units` are numbers of tiles of the frame. `x` is one sample in the input's blocks; `y` and, if there is one, `residual` are one sample in the
    /// output's blocks. No other thread accesses the lines of these units in `y` during the call.
    unsafe fn run_units(
        &self,
        units: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: *mut f32,
        clamp: Clamp,
    );
}

/// Computes `n` samples with their halos on one thread.
///
/// # Panics
/// When a slice has another length.
#[inline(always)]
#[track_caller]
pub(crate) fn run_whole(
    kernel: &impl Banded,
    x: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
    n: usize,
    clamp: Clamp,
) {
    let Frame {
        isa,
        input,
        output,
        tiling,
        edges,
    } = kernel.frame();
    let (x_len, y_len) = (input.len(), output.len());
    length::check("x", x.len(), [n, x_len]);
    length::check("y", y.len(), [n, y_len]);
    if let Some(residual) = residual {
        length::check("the residual", residual.len(), [y.len()]);
    }
    for (i, y) in y.chunks_exact_mut(y_len.max(1)).enumerate() {
        let x = &x[i * x_len..(i + 1) * x_len];
        let residual = residual.map(|r| &r[i * y_len..(i + 1) * y_len]);
        // SAFETY: the lengths were just checked, the units are all tiles, and `y` is borrowed mutably, so no other thread accesses it.
        unsafe { kernel.run_units(0..tiling.tiles.len(), x, residual, y.as_mut_ptr(), clamp) };
        edges.refresh(*isa, y);
    }
}

/// Where the first `share / of` of a range ends: never outside of it, so that what two threads get never overlaps.
///
/// # Panics
/// When `share` is above `of`.
#[track_caller]
fn cut(range: &Range<usize>, share: usize, of: usize) -> usize {
    assert!(share <= of, "a share of {share} of {of}");
    let first = range.len() as u128 * share as u128 / of.max(1) as u128;
    range.start + first as usize
}

/// Lines of one sample that are still to be computed, which can be split between threads.
pub struct Band<'a> {
    kernel: &'a dyn Banded,
    y: *mut f32,
    units: Range<usize>,
    map: PhantomData<&'a mut [f32]>,
}

// SAFETY: the map is borrowed mutably, and `split` gives each unit to one band, so that no two bands access the same lines. Kernels are `Sync`.
unsafe impl Send for Band<'_> {}

impl<'a> Band<'a> {
    /// All lines of the output `y` of `kernel`, one sample.
    ///
    /// # Panics
    /// When `y` is not one sample in the output's blocks.
    #[track_caller]
    pub fn new(kernel: &'a dyn Banded, y: &'a mut [f32]) -> Self {
        length::check("y", y.len(), [kernel.frame().output.len()]);
        Self {
            kernel,
            y: y.as_mut_ptr(),
            units: 0..kernel.frame().tiling.tiles.len(),
            map: PhantomData,
        }
    }

    /// The first `share / of` of it, and the rest.
    ///
    /// # Panics
    /// When `share` is above `of`.
    #[track_caller]
    pub fn split(self, share: usize, of: usize) -> [Self; 2] {
        let cut = cut(&self.units, share, of);
        [self.units.start..cut, cut..self.units.end].map(|units| Self { units, ..self })
    }

    /// Computes the lines, from the whole sample of the input and, if there is one, of the residual. Halos are copied by [`Halo::run`], once all
    /// bands are computed.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(self, x: &[f32], residual: Option<&[f32]>, clamp: Clamp) {
        let frame = self.kernel.frame();
        let y_len = frame.output.len();
        length::check("x", x.len(), [frame.input.len()]);
        if let Some(residual) = residual {
            length::check("the residual", residual.len(), [y_len]);
        }
        let units = self.units;
        let lines = frame.tiling.start(units.start)..frame.tiling.start(units.end);
        // SAFETY: the lengths were checked here and in `new`. Only this band has these units, so no other thread accesses their lines.
        unsafe {
            self.kernel.run_units(units, x, residual, self.y, clamp);
            frame.edges.zero_past_end(frame.isa, self.y, y_len, lines);
        }
    }
}

/// Halo lines of one sample whose pixels are computed, which can be split between threads.
pub struct Halo<'a> {
    kernel: &'a dyn Banded,
    y: *mut f32,
    moves: Range<usize>,
    map: PhantomData<&'a mut [f32]>,
}

// SAFETY: the map is borrowed mutably, and `split` gives each halo line to one `Halo`. All of them read only pixels, which none writes.
unsafe impl Send for Halo<'_> {}

impl<'a> Halo<'a> {
    /// All halo lines of the output `y` of `kernel`, one sample.
    ///
    /// # Panics
    /// When `y` is not one sample in the output's blocks.
    #[track_caller]
    pub fn new(kernel: &'a dyn Banded, y: &'a mut [f32]) -> Self {
        length::check("y", y.len(), [kernel.frame().output.len()]);
        Self {
            kernel,
            y: y.as_mut_ptr(),
            moves: 0..kernel.frame().edges.halo_lines(),
            map: PhantomData,
        }
    }

    /// Whether there are no halo lines.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// The first `share / of` of it, and the rest.
    ///
    /// # Panics
    /// When `share` is above `of`.
    #[track_caller]
    pub fn split(self, share: usize, of: usize) -> [Self; 2] {
        let cut = cut(&self.moves, share, of);
        [self.moves.start..cut, cut..self.moves.end].map(|moves| Self { moves, ..self })
    }

    /// Copies pixels of neighbouring blocks into the halos.
    pub fn run(self) {
        let Frame {
            isa, output, edges, ..
        } = self.kernel.frame();
        // SAFETY: the length was checked in `new`. Only this value has these halo lines, and what is read are pixels, which no `Halo` writes.
        unsafe { edges.copy_halos(*isa, self.y, output.len(), self.moves) };
    }
}
