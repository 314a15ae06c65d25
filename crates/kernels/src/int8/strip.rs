//! Strips of a convolution: which lines they read, and what becomes of their sums.

use sparsevd_model::Window;

use super::any4::{At, Output, Row, scaled};
use super::dot::Task;
use super::grid::Grid;
use super::image::Image;
use super::lanes::{Joined, Lanes, SAMPLES};
use super::maps::{QuantizeLines, STRIP, load_bytes, store_bytes};
use crate::LANES;
use crate::blocks::Blocks;
use crate::clamp::Bounds;
use crate::simd::Simd;

/// Up to four lines of each channel of the output, or one that is pooled from four.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    /// Lines of the image before the input of each line. Lines that are not there repeat the last one.
    pub x: [u32; STRIP],
    /// Lines of a channel of the output before each line.
    pub y: [u32; STRIP],
    /// Lines that the convolution computes, and lines of output: as many, but where they are pooled.
    pub reads: usize,
    pub lines: usize,
    /// Which lines of input follow each other, and which of output.
    pub joined: [Joined; 2],
}

impl Strip {
    /// A strip of `x`, one to four lines of input, for the lines of output `y`.
    pub fn new(x: &[usize], y: &[usize]) -> Self {
        let four = |lines: &[usize]| -> [u32; STRIP] {
            let line = |i: usize| lines[i.min(lines.len() - 1)];
            std::array::from_fn(|i| u32::try_from(line(i)).expect("less than 2^32 lines"))
        };
        let lines = [four(x), four(y)];
        let joined = |lines: [u32; STRIP]| match lines.map(|line| line.wrapping_sub(lines[0])) {
            [_, 1, 2, 3] => Joined::Four,
            [_, 1, c, d] if d == c.wrapping_add(1) => Joined::Pairs,
            _ => Joined::Apart,
        };
        Self {
            x: lines[0],
            y: lines[1],
            reads: x.len(),
            lines: y.len(),
            joined: lines.map(joined),
        }
    }
}

/// The line of the image where the window of a line of output begins.
pub(super) fn input_line(image: &Image, window: &Window, row: usize, column: usize) -> usize {
    row * window.strides[0] * image.row + column * window.strides[1]
}

pub(super) fn output_line(output: &Blocks, row: usize, column: usize) -> usize {
    output.line(row.cast_signed(), column.cast_signed())
}

/// The strips of all lines of a channel of output.
pub(super) fn strips(image: &Image, window: &Window, output: &Blocks) -> Vec<Strip> {
    let [rows, columns] = output.block();
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let lines: Vec<[usize; 2]> = places
        .map(|(row, column)| {
            [
                input_line(image, window, row, column),
                output_line(output, row, column),
            ]
        })
        .collect();
    let strip = |lines: &[[usize; 2]]| {
        let [x, y] = [0, 1].map(|i| lines.iter().map(|line| line[i]).collect::<Vec<_>>());
        Strip::new(&x, &y)
    };
    lines.chunks(STRIP).map(strip).collect()
}

/// What is added to the sums, in the lines of the output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Onto {
    Nothing,
    Floats(*const f32),
    Bytes(*const u8, Grid),
}

/// `clamp(sum * scale + offset + residual)` in the lines of strips, each a tile of the product.
///
/// `y` is writable, and what is added readable, for the lines of the strips in each row, `channel` lines apart: of floats, or where there is a grid, of
/// bytes. Where the strip is pooled, `pooled` has room for sixty-four floats of each
/// row of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct StripOutput<'a> {
    pub y: *mut f32,
    pub channel: usize,
    pub onto: Onto,
    pub bounds: Bounds,
    pub grid: Option<Grid>,
    /// The bounds in bytes of the grid.
    pub byte_bounds: [u8; 2],
    pub strips: &'a [Strip],
    pub pooled: Option<*mut f32>,
}

/// Sums of a block of rows, `[row][pixel]`, of a strip.
#[repr(C, align(64))]
pub(super) struct BlockSums([i32; SAMPLES * LANES]);

impl BlockSums {
    pub const ZERO: Self = Self([0; SAMPLES * LANES]);
}

/// Numbers of `4 N` lanes.
type Four<L> = [<<L as Lanes>::Floats as Simd>::V; 4];

impl StripOutput<'_> {
    /// A line of a strip in that row.
    #[inline(always)]
    fn line(&self, row: &Row, strip: &Strip, line: usize) -> usize {
        row.row as usize * self.channel + strip.y[line] as usize
    }

    /// Where a vector of numbers in the order of lines is, of the four of part `part` of the strip. `None` past the last line.
    #[inline(always)]
    fn place<L: Lanes>(
        &self,
        row: &Row,
        strip: &Strip,
        part: usize,
        vector: usize,
    ) -> Option<usize> {
        let number = (part * 4 + vector) * L::N;
        let line = number / LANES;
        (line < strip.lines).then(|| self.line(row, strip, line) * LANES + number % LANES)
    }

    /// Adds the residual to numbers in the order of sums.
    ///
    /// # Safety
    /// The instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn add<L: Lanes>(
        &self,
        row: &Row,
        strip: &Strip,
        part: usize,
        values: Four<L>,
    ) -> Four<L> {
        // SAFETY: lines of the strip that are there, by what the strip's output says of its pointers; a buffer of a whole strip; the instruction set is
        // enabled (contract of this function).
        unsafe {
            let (residual, scale) = match self.onto {
                Onto::Nothing => return values,
                Onto::Floats(floats) => {
                    let vector = |k: usize| match self.place::<L>(row, strip, part, k) {
                        Some(at) => L::Floats::load(floats.add(at)),
                        None => L::Floats::splat(0.0),
                    };
                    let lines = [vector(0), vector(1), vector(2), vector(3)];
                    (L::of_lines(lines), 1.0)
                }
                Onto::Bytes(bytes, grid) => {
                    let line = |k: usize| bytes.add(self.line(row, strip, k) * LANES);
                    let lines = [line(0), line(1), line(2), line(3)];
                    let joined = strip.joined[1];
                    let numbers = load_bytes::<L>(lines, joined, part, grid.zero_point());
                    (numbers, grid.scale())
                }
            };
            let scale = L::Floats::splat(scale);
            let [r, s, t, u] = residual;
            let [a, b, c, d] = values;
            [
                L::Floats::fma(r, scale, a),
                L::Floats::fma(s, scale, b),
                L::Floats::fma(t, scale, c),
                L::Floats::fma(u, scale, d),
            ]
        }
    }

    /// Stores a part of the strip in bytes.
    ///
    /// # Safety
    /// The instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn store_bytes<L: Lanes>(
        &self,
        row: &Row,
        strip: &Strip,
        part: usize,
        values: Four<L>,
        grid: Grid,
    ) {
        // SAFETY: lines of the strip that are there, by what the strip's output says of its pointers; the instruction set is enabled (contract of this
        // function).
        unsafe {
            let y = self.y.cast::<u8>();
            if strip.joined[1] == Joined::Four {
                let at = self.line(row, strip, 0) * LANES + part * 4 * L::N;
                return store_bytes::<L>(y.add(at), values, grid, self.byte_bounds);
            }
            let mut lines = [[0_u8; LANES]; STRIP];
            store_bytes::<L>(lines.as_mut_ptr().cast(), values, grid, self.byte_bounds);
            // A part of a strip is one line or more.
            let (first, count) = (part * 4 * L::N / LANES, 4 * L::N / LANES);
            for (i, line) in lines[..count].iter().enumerate() {
                if first + i < strip.lines {
                    let at = self.line(row, strip, first + i) * LANES;
                    y.add(at).cast::<[u8; LANES]>().write(*line);
                }
            }
        }
    }

    /// Stores the largest of the four lines of the strip.
    ///
    /// # Safety
    /// The buffer holds all four lines, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn store_largest<L: Lanes>(&self, row: &Row, strip: &Strip, lines: *mut f32) {
        // SAFETY: by the contract of this function, and what the strip's output says of its pointers.
        unsafe {
            for at in (0..LANES).step_by(L::N) {
                let line = |i: usize| L::Floats::load(lines.add(i * LANES + at));
                let above = L::Floats::larger(line(0), line(1));
                let below = L::Floats::larger(line(2), line(3));
                L::Floats::store(lines.add(at), L::Floats::larger(above, below));
            }
            let at = self.line(row, strip, 0) * LANES;
            match self.grid {
                None => lines.copy_to(self.y.add(at), LANES),
                Some(grid) => {
                    let mut strip = [0_u8; SAMPLES];
                    let lines = QuantizeLines {
                        x: lines,
                        y: strip.as_mut_ptr(),
                        lines: 1,
                        grid,
                    };
                    lines.run::<L>();
                    strip.as_ptr().copy_to(self.y.cast::<u8>().add(at), LANES);
                }
            }
        }
    }
}

impl Output for StripOutput<'_> {
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        // SAFETY: by the contract of the trait.
        unsafe { self.store_in_order::<L>(row, at, L::in_order(sums)) }
    }
}

impl StripOutput<'_> {
    /// Stores sums of rows of a block, `[pixel][row]`, of a strip. `by_rows` is overwritten.
    ///
    /// # Safety
    /// As [`Output::store`]; there are sums of a strip for as many rows as a vector has.
    #[inline(always)]
    pub unsafe fn store_block<L: Lanes>(
        &self,
        rows: &[Row],
        tile: usize,
        sums: *const i32,
        by_rows: &mut BlockSums,
    ) {
        let by_rows = by_rows.0.as_mut_ptr();
        // SAFETY: by the contract of this function.
        unsafe {
            for first in (0..SAMPLES).step_by(L::N) {
                L::transpose(sums.add(first * L::N), by_rows.add(first), SAMPLES);
            }
            for (i, row) in rows.iter().enumerate() {
                for part in 0..SAMPLES / (4 * L::N) {
                    let at = At {
                        tile,
                        part,
                        member: 0,
                    };
                    let from = by_rows.add(i * SAMPLES + part * 4 * L::N);
                    let four = |j: usize| L::load(from.add(j * L::N));
                    let sums = [four(0), four(1), four(2), four(3)];
                    self.store_in_order::<L>(row, at, sums);
                }
            }
        }
    }

    /// Stores sums of a row, which are in order.
    ///
    /// # Safety
    /// As [`Output::store`].
    #[inline(always)]
    pub unsafe fn store_in_order<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        let At { tile, part, member } = at;
        let strip = &self.strips[tile];
        // SAFETY: lines of the strip that are there, by what the strip's output says of its pointers; the instruction set is enabled (contract of the
        // trait).
        unsafe {
            let values = self.add::<L>(row, strip, part, scaled::<L>(row, sums));
            // Parts of the rows of a group come in turn, so each row has its own buffer.
            let pooled = self
                .pooled
                .map(|lines| lines.wrapping_add(member * SAMPLES));
            if let Some(grid) = self.grid
                && pooled.is_none()
            {
                return self.store_bytes::<L>(row, strip, part, values, grid);
            }
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let clamp = |v| L::Floats::clamp(v, low, high);
            let [a, b, c, d] = values;
            let values = L::to_lines([clamp(a), clamp(b), clamp(c), clamp(d)]);
            for (k, v) in values.into_iter().enumerate() {
                if let Some(lines) = pooled {
                    L::Floats::store(lines.add((part * 4 + k) * L::N), v);
                } else if let Some(at) = self.place::<L>(row, strip, part, k) {
                    L::Floats::store(self.y.add(at), v);
                }
            }
            if let Some(lines) = pooled
                && (part + 1) * 4 * L::N == SAMPLES
            {
                self.store_largest::<L>(row, strip, lines);
            }
        }
    }
}
