//! One map in blocks, made by several threads side by side, each its own lines.
//!
//! A thread that goes on with the lines it made finds them in its nearest cache. Of its neighbours it reads only the lines next to its own.

use std::marker::PhantomData;
use std::ops::Range;

use sparsevd_model::Window;

use crate::blocks::{Blocks, Edges};
use crate::{Clamp, Isa, LANES};

/// The way over the lines of a block.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    /// Lines of a row that are made at once, row after row.
    pub tiles: Vec<Tile>,
    /// How many of them are in a row.
    pub per_row: usize,
    /// Floats from what a line of output reads to what the next reads, in a row and from row to row.
    pub x_line: usize,
    pub x_row: usize,
}

/// Lines of output next to each other, all of one channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    /// Floats before what the first line reads.
    pub x: usize,
    /// Floats before the first line in a channel.
    pub y: usize,
    pub lines: usize,
}

impl Walk {
    /// For windows over `input` that begin at its padding, in tiles of at most that many lines, as even as can be.
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

    /// The way over lines of output that are each the largest of two by two.
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

    /// Floats in a channel of output before that tile, or past the last.
    pub fn start(&self, tile: usize) -> usize {
        let past = |t: &Tile| t.y + t.lines * LANES;
        match self.tiles.get(tile) {
            Some(tile) => tile.y,
            None => self.tiles.last().map_or(0, past),
        }
    }
}

/// What all kernels have that make maps in blocks of maps in blocks.
#[derive(Debug, Clone)]
pub struct Frame {
    pub(crate) isa: Isa,
    pub(crate) input: Blocks,
    pub(crate) output: Blocks,
    pub(crate) walk: Walk,
    pub(crate) edges: Edges,
}

impl Frame {
    pub(crate) fn new(isa: Isa, [input, output]: [Blocks; 2], walk: Walk) -> Self {
        Self {
            isa,
            input,
            edges: output.edges(),
            output,
            walk,
        }
    }
}

/// A kernel whose units, tiles of its walk, write lines of their own.
///
/// # Safety
/// [`Banded::frame`] is always the same. [`Banded::run_units`] takes numbers of its walk's tiles, writes no other lines of the output than those of
/// these tiles, and keeps to the lengths of its blocks.
pub unsafe trait Banded: Sync {
    /// What it has in common with the others.
    fn frame(&self) -> &Frame;

    /// Makes some units of one sample.
    ///
    /// # Safety
    /// `x` holds one sample in the input's blocks, `y` and `residual`, where there is one, in the output's, and nobody else reads or writes the units' lines of `y`.
    unsafe fn run_units(
        &self,
        units: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: *mut f32,
        clamp: Clamp,
    );
}

/// Makes `n` samples with their halos on one thread.
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
        walk,
        edges,
    } = kernel.frame();
    let (x_len, y_len) = (input.len(), output.len());
    assert_eq!(x.len(), n * x_len, "elements of x");
    assert_eq!(y.len(), n * y_len, "elements of y");
    if let Some(residual) = residual {
        assert_eq!(residual.len(), y.len(), "elements of the residual");
    }
    for (i, y) in y.chunks_exact_mut(y_len.max(1)).enumerate() {
        let x = &x[i * x_len..(i + 1) * x_len];
        let residual = residual.map(|r| &r[i * y_len..(i + 1) * y_len]);
        // SAFETY: the lengths were just checked, and `y` is borrowed here alone.
        unsafe { kernel.run_units(0..walk.tiles.len(), x, residual, y.as_mut_ptr(), clamp) };
        edges.refresh(*isa, y);
    }
}

/// Lines of one sample that are still to be made, and may be split between threads.
pub struct Band<'a> {
    kernel: &'a dyn Banded,
    y: *mut f32,
    units: Range<usize>,
    map: PhantomData<&'a mut [f32]>,
}

// SAFETY: a band is the only one that writes its units' lines of the map it borrows.
unsafe impl Send for Band<'_> {}

impl<'a> Band<'a> {
    /// All lines of `y`.
    ///
    /// # Panics
    /// When `y` has another length.
    #[track_caller]
    pub fn new(kernel: &'a dyn Banded, y: &'a mut [f32]) -> Self {
        assert_eq!(y.len(), kernel.frame().output.len(), "elements of y");
        Self {
            kernel,
            y: y.as_mut_ptr(),
            units: 0..kernel.frame().walk.tiles.len(),
            map: PhantomData,
        }
    }

    /// The first `share` parts of `of`, and the others.
    pub fn split(self, share: usize, of: usize) -> [Self; 2] {
        let cut = self.units.start + self.units.len() * share / of.max(1);
        [self.units.start..cut, cut..self.units.end].map(|units| Self { units, ..self })
    }

    /// Makes the lines, from the whole input and, where there is one, the whole residual. Halos are left to [`Halo::run`] once all bands are made.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(self, x: &[f32], residual: Option<&[f32]>, clamp: Clamp) {
        let frame = self.kernel.frame();
        let y_len = frame.output.len();
        assert_eq!(x.len(), frame.input.len(), "elements of x");
        assert!(
            residual.is_none_or(|r| r.len() == y_len),
            "elements of the residual"
        );
        let units = self.units;
        let lines = frame.walk.start(units.start)..frame.walk.start(units.end);
        // SAFETY: the lengths were checked here and in `new`; these units' lines are this band's alone.
        unsafe {
            self.kernel.run_units(units, x, residual, self.y, clamp);
            frame.edges.end(frame.isa, self.y, y_len, lines);
        }
    }
}

/// Halos of one sample whose lines are made, which may be split between threads.
pub struct Halo<'a> {
    kernel: &'a dyn Banded,
    y: *mut f32,
    moves: Range<usize>,
    map: PhantomData<&'a mut [f32]>,
}

// SAFETY: a halo is the only one that writes its lines of the map it borrows, and what it reads is nobody's halo.
unsafe impl Send for Halo<'_> {}

impl<'a> Halo<'a> {
    /// All halos of `y`.
    ///
    /// # Panics
    /// When `y` has another length.
    #[track_caller]
    pub fn new(kernel: &'a dyn Banded, y: &'a mut [f32]) -> Self {
        assert_eq!(y.len(), kernel.frame().output.len(), "elements of y");
        Self {
            kernel,
            y: y.as_mut_ptr(),
            moves: 0..kernel.frame().edges.halos(),
            map: PhantomData,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// The first `share` parts of `of`, and the others.
    pub fn split(self, share: usize, of: usize) -> [Self; 2] {
        let cut = self.moves.start + self.moves.len() * share / of.max(1);
        [self.moves.start..cut, cut..self.moves.end].map(|moves| Self { moves, ..self })
    }

    /// Copies pixels of neighbouring blocks into the halos.
    pub fn run(self) {
        let Frame {
            isa, output, edges, ..
        } = self.kernel.frame();
        // SAFETY: the length was checked in `new`; the lines of these moves are this halo's alone, and those that they read are written by no
        // other.
        unsafe { edges.halo(*isa, self.y, output.len(), self.moves) };
    }
}
