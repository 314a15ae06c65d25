//! Products of the non-zeros of a convolution with its pixels one by one: what is fastest where a map has fewer pixels than [`super::any4`] computes at once, and
//! most weights are zero.
//!
//! The bytes that a pixel reads, tap after tap and channel after channel, are a vector. Vectors of all pixels of a strip are gathered; of those in the padding the byte
//! that stands for zero. Then weights are multiplied as those of a matrix ([`super::spans`]), each for four pixels.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use super::any4::{Row, Unpacked};
use super::dot::Task;
use super::fours::{FOUR_LINES, ImageWindow, four_lines, slots};
use super::lanes::{Joined, Lanes, SAMPLES};
use super::maps::STRIP;
use super::spans::{BLOCKS, INPUTS, ROWS, Spans, VECTORS, write_vectors};
use super::strip::{BlockSums, Strip, StripOutput};
use crate::LANES;
use crate::cost::SHARED_LOOK_UP;

/// The weights of a convolution over the strips of its output.
///
/// # Invariants
/// - there is a first value of sums for each row of a group of blocks
/// - each strip has pixels for each of its lines; their places are below sixteen
#[derive(Debug, Clone)]
pub(super) struct Pixels {
    rows: Vec<Row>,
    starts: Vec<i32>,
    spans: Spans<BLOCKS>,
    window: ImageWindow,
    strips: Vec<[Line; STRIP]>,
}

/// The pixels of a line that read the map: their places among its bytes. Those past the last one are zero.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    order: [u32; LANES],
    count: usize,
}

/// Pixels of a strip.
fn pixels(strip: &[Line; STRIP]) -> usize {
    strip.iter().map(|line| line.count).sum()
}

impl Pixels {
    /// Packs filters, without strips yet. An entry of a row has the number `channel * taps + tap`.
    pub fn pack(filters: &[Unpacked], window: ImageWindow) -> Self {
        let taps = window.taps.len();
        let of_tap = window.image.channels.next_multiple_of(INPUTS);
        let place = |k: u32| {
            let place = k as usize % taps * of_tap + k as usize / taps;
            u32::try_from(place).expect("fewer than 2^32 places")
        };
        let weights: Vec<_> = filters.iter().map(|row| row.nonzeros(place)).collect();
        let mut starts: Vec<i32> = filters.iter().map(|filter| filter.start).collect();
        starts.resize(starts.len().next_multiple_of(BLOCKS * ROWS), 0);
        let spans = Spans::pack(&weights, taps * of_tap, usize::MAX);
        Self {
            rows: (0..)
                .zip(filters)
                .map(|(i, filter)| Row::of(i, filter))
                .collect(),
            starts,
            spans: spans.expect("any number of bytes"),
            window,
            strips: Vec::new(),
        }
    }

    /// Plans which pixels strips have.
    pub fn plan(&mut self, strips: &[Strip]) {
        let line = |strip: &Strip, k: usize| {
            let mut line = Line::default();
            if k < strip.reads {
                let places = self.window.places(strip.x[k] as usize);
                for place in (0..LANES as u32).filter(|place| places >> place & 1 == 1) {
                    line.order[line.count] = place;
                    line.count += 1;
                }
            }
            line
        };
        let lines = |strip| std::array::from_fn(|k| line(strip, k));
        self.strips = strips.iter().map(lines).collect();
    }

    /// Products of all pixels, and what takes as long, and bytes that are interleaved and transposed.
    pub fn work(&self) -> [usize; 2] {
        let vectors = self
            .strips
            .iter()
            .map(|strip| pixels(strip).next_multiple_of(VECTORS));
        let lines = self.strips.as_flattened().iter();
        let lines = lines.filter(|line| line.count > 0).count();
        [
            SHARED_LOOK_UP * self.spans.weights() * vectors.sum::<usize>(),
            2 * lines * LANES * self.spans.len(),
        ]
    }

    /// Bytes of the vectors of a strip. A line is written with as many as it may have.
    pub fn lines_len(&self) -> usize {
        let most = self.strips.iter().map(pixels).max().unwrap_or(0);
        (most + LANES) * self.spans.len()
    }

    /// The last line of the image, before that of a strip, that is read; `None` where there are no filters.
    pub fn last_place(&self) -> Option<usize> {
        self.window.last_place().filter(|_| !self.rows.is_empty())
    }

    /// Bytes of weights and of what is stored for each row.
    pub fn bytes(&self) -> usize {
        let starts = size_of_val(&self.starts[..]);
        self.spans.bytes() + starts + size_of_val(&self.rows[..])
    }
}

/// All strips of a sample, or of a tile.
///
/// Bytes are looked up by these instructions. `x` is readable for the lines of the image that strips and taps say, `vectors` writable for [`Pixels::lines_len`] bytes, and
/// what the output says holds for each strip.
pub(super) struct PixelStrips<'a> {
    pub pixels: &'a Pixels,
    pub x: *const u8,
    pub vectors: *mut u8,
    pub output: StripOutput<'a>,
}

/// Sums of a strip for a group of blocks, `[block][pixel][row]`.
#[repr(C, align(64))]
struct Sums([[i32; SAMPLES * ROWS]; BLOCKS]);

impl Task for PixelStrips<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let pixels = self.pixels;
        let all_slots = slots::<L>();
        let mut sums = Sums([[0; SAMPLES * ROWS]; BLOCKS]);
        let mut by_rows = BlockSums::ZERO;
        for (tile, strip) in self.output.strips.iter().enumerate() {
            // Other pixels keep sums of zero: of those in the map that read padding alone, what sums begin with and the products cancel.
            sums.0.as_flattened_mut().fill(0);
            let mut slots = [0_u8; SAMPLES];
            let mut count = 0;
            for (k, line) in pixels.strips[tile].iter().enumerate() {
                // SAFETY: by the contract of the task; there are vectors for all pixels before, and for a line after them.
                unsafe { self.gather::<L>(strip.x[k] as usize, line, count) };
                for &place in &line.order[..line.count] {
                    slots[count] = all_slots[k * LANES + place as usize];
                    count += 1;
                }
            }
            for group in 0..pixels.starts.len() / (BLOCKS * ROWS) {
                for first in (0..count).step_by(VECTORS) {
                    let pixel = |t: usize| (first + t).min(count - 1);
                    // SAFETY: there are vectors of all pixels, and sums for each slot and row; a block has `L::N` rows where bytes are looked up; the rest by the contract of the task.
                    unsafe {
                        let vectors = std::array::from_fn(|t| self.vector(pixel(t)).cast_const());
                        let starts = pixels.starts.as_ptr().add(group * BLOCKS * ROWS);
                        let acc = pixels.spans.sums::<L, VECTORS>(group, starts, vectors);
                        for b in 0..BLOCKS {
                            for t in 0..VECTORS {
                                let slot = usize::from(slots[pixel(t)]);
                                L::store(sums.0[b].as_mut_ptr().add(slot * ROWS), acc[b][t]);
                            }
                        }
                    }
                }
                let rows = pixels.rows[group * BLOCKS * ROWS..].chunks(ROWS);
                for (rows, sums) in rows.zip(&sums.0) {
                    // SAFETY: sums of a strip; the rest by the contract of the task.
                    unsafe {
                        self.output
                            .store_block::<L>(rows, tile, sums.as_ptr(), &mut by_rows)
                    };
                }
            }
        }
    }
}

impl PixelStrips<'_> {
    /// Where the vector of a pixel of the strip is.
    fn vector(&self, pixel: usize) -> *mut u8 {
        self.vectors.wrapping_add(pixel * self.pixels.spans.len())
    }

    /// Gathers the vectors of the pixels of a line, whose windows begin at line `x`, from vector `first` on.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined; sixteen vectors are writable from that one on.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(&self, x: usize, line: &Line, first: usize) {
        let ImageWindow { image, taps, .. } = &self.pixels.window;
        if line.count == 0 {
            return;
        }
        let of_tap = image.channels.next_multiple_of(INPUTS);
        let mut fours = [[0_u8; FOUR_LINES]; ROWS];
        for (tap, [row, column]) in taps.iter().enumerate() {
            let line_of_tap = x + row * image.row + column;
            for channel in (0..of_tap).step_by(INPUTS) {
                // SAFETY: by the contract of this function; weights past the last channel are zero.
                unsafe {
                    for (four, to) in fours.iter_mut().enumerate() {
                        let lines = four_lines(image, self.x, channel / 4 + four, line_of_tap);
                        let order = Some(&line.order);
                        L::interleave(lines, Joined::Apart, order, to.as_mut_ptr());
                    }
                    let to = self.vector(first).add(tap * of_tap + channel);
                    write_vectors::<L>(&fours, to, self.pixels.spans.len());
                }
            }
        }
    }
}
