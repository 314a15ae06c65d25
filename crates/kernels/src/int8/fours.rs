//! Products of all weights of a convolution, zero or not, with strips of its input: what is fastest where most weights are there, or where a map has fewer
//! pixels than [`super::any4`] computes at once.
//!
//! **Sums** are those of `N` output channels, a vector for each pixel. A step multiplies the bytes of four input channels at a pixel, which are side by side
//! and broadcast, by four weights of each of these output channels. Pixels are those of a line, at most sixteen; the weights of a step are read once for
//! all of them.
//!
//! **Weights** are those of [`Stored`].
//!
//! **Lines.** Of maps of many pixels all lines of bytes are interleaved once, four channels at a time. Of others, for each line of output and each tap
//! only those of its pixels are gathered whose input is in the map: a 3x3 window over 2x2 pixels reads 16 of 36 places.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use super::any4::{Row, Unpacked};
use super::dot::{Dot, Task};
use super::image::Image;
use super::lanes::{Joined, Lanes, SAMPLES, place};
use super::maps::{STRIP, byte_of_lane};
use super::stored::{All, Cursor, Nonzeros, Stored, Weights};
use super::strip::{BlockSums, Strip, StripOutput};
use crate::LANES;
use crate::blocks::Blocks;

/// Bytes of four channels of a line.
pub(super) const FOUR_LINES: usize = 4 * LANES;

/// The weights of a convolution over the strips of its output.
///
/// # Invariants
/// - each strip has reads for each of its lines
/// - places are below sixteen, taps below the number of taps; a run has one to sixteen places
/// - there are weights for each block of rows, each tap and each four of channels
#[derive(Debug, Clone)]
pub(super) struct Fours {
    /// In order; the last block of `block` rows may have fewer.
    rows: Vec<Row>,
    block: usize,
    /// What a tap adds to the first values of the sums of whole blocks, `[tap][row]`: nothing where its input is in the padding.
    starts: Vec<i32>,
    weights: Stored,
    window: ImageWindow,
    reads: Reads,
}

/// What the lines of strips read.
#[derive(Debug, Clone, Default)]
struct Reads {
    /// For each strip, which of the runs its lines have.
    strips: Vec<[u32; STRIP]>,
    runs: Vec<Vec<Run>>,
    /// Whether the pixels of runs are gathered, or else whole lines are read.
    gathers: bool,
}

impl Reads {
    /// The runs of all lines.
    fn all(&self) -> impl Iterator<Item = &Run> {
        let lines = self.strips.as_flattened().iter();
        lines.flat_map(|&runs| &self.runs[runs as usize])
    }
}

/// Pixels of a line that read the same taps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// Their bytes in a line; those past the last one are zero.
    order: [u32; LANES],
    places: usize,
    taps: Vec<u32>,
    /// Lines of the image before those that each tap reads.
    lines: Vec<u32>,
    /// What these taps add to the first values of sums.
    starts: Vec<i32>,
}

/// Pixels of a line that read the same taps: a bit for each of the sixteen bytes of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pixels {
    bits: u32,
    taps: Vec<u32>,
}

/// Where the windows of a convolution are in its image.
#[derive(Debug, Clone)]
pub(super) struct ImageWindow {
    pub image: Image,
    pub input: Blocks,
    /// Of the convolution, before a pooling.
    pub output: Blocks,
    /// Row and column of the image at which the windows of the first pixel read each tap.
    pub taps: Vec<[usize; 2]>,
    pub strides: [usize; 2],
}

impl Fours {
    /// Packs filters, without strips yet. An entry of a row has the number `channel * taps + tap`, and adds its weight times `zero` to first values.
    pub fn pack(dot: Dot, filters: &[Unpacked], zero: i32, window: ImageWindow) -> Self {
        let block = dot.rows_at_once();
        let (fours, taps) = (window.image.channels.div_ceil(4), window.taps.len());
        let blocks = filters.len().div_ceil(block);
        let mut bytes = vec![0_i8; blocks * taps * fours * 4 * block];
        let mut starts = vec![0; taps * blocks * block];
        for (number, filter) in filters.iter().enumerate() {
            for &(k, weight) in &filter.entries {
                let (channel, tap) = (k as usize / taps, k as usize % taps);
                let vector = (number / block * taps + tap) * fours + channel / 4;
                bytes[(vector * block + number % block) * 4 + channel % 4] = weight;
                starts[tap * blocks * block + number] += zero * i32::from(weight);
            }
        }
        let weights = Stored::new(dot, &bytes, fours * 4 * block);
        Self {
            rows: (0..)
                .zip(filters)
                .map(|(i, filter)| Row::of(i, filter))
                .collect(),
            block,
            starts,
            weights,
            window,
            reads: Reads::default(),
        }
    }

    /// Plans what strips read: the pixels that are in the map, or whole lines where that is faster.
    pub fn plan(&mut self, strips: &[Strip]) {
        let mut found: Vec<Vec<Pixels>> = vec![Vec::new()];
        let mut number = |strip: &Strip, k: usize| {
            let pixels = match k < strip.reads {
                true => self.window.pixels(strip.x[k] as usize),
                false => Vec::new(),
            };
            let number = found.iter().position(|f| *f == pixels).unwrap_or_else(|| {
                found.push(pixels);
                found.len() - 1
            });
            u32::try_from(number).expect("at most as many as lines")
        };
        let numbers = |strip| std::array::from_fn(|k| number(strip, k));
        let gathering = Reads {
            strips: strips.iter().map(numbers).collect(),
            runs: (found.into_iter())
                .map(|line| line.into_iter().map(|pixels| self.run(pixels)).collect())
                .collect(),
            gathers: true,
        };
        let all = Pixels {
            bits: (1 << LANES) - 1,
            taps: (0..).take(self.window.taps.len()).collect(),
        };
        let lines = |strip: &Strip| std::array::from_fn(|k| u32::from(k < strip.reads));
        let whole = Reads {
            strips: strips.iter().map(lines).collect(),
            runs: vec![Vec::new(), vec![self.run(all)]],
            gathers: false,
        };
        let time = |reads: &Reads| {
            let [products, copies] = self.vectors(reads);
            products + COPY * copies
        };
        self.reads = match time(&whole) <= time(&gathering) {
            true => whole,
            false => gathering,
        };
    }

    /// What pixels that read the same taps need.
    fn run(&self, Pixels { bits, taps }: Pixels) -> Run {
        let mut order = [0; LANES];
        let places = (0..LANES as u32).filter(|place| bits >> place & 1 == 1);
        let places = order.iter_mut().zip(places).map(|(to, place)| *to = place);
        let places = places.count();
        let line = |&tap: &u32| {
            let [row, column] = self.window.taps[tap as usize];
            let line = row * self.window.image.row + column;
            u32::try_from(line).expect("an image of less than 2^32 lines")
        };
        let rows = self.block * self.rows.len().div_ceil(self.block);
        let mut starts = vec![0; rows];
        for &tap in &taps {
            let of_tap = &self.starts[tap as usize * rows..][..rows];
            for (sum, start) in starts.iter_mut().zip(of_tap) {
                *sum += start;
            }
        }
        Run {
            order,
            places,
            lines: taps.iter().map(line).collect(),
            taps,
            starts,
        }
    }

    /// Input channels, four at a time.
    fn fours(&self) -> usize {
        self.window.image.channels.div_ceil(4)
    }

    /// Vectors of products, and vectors of bytes that are interleaved.
    fn vectors(&self, reads: &Reads) -> [usize; 2] {
        let blocks = self.rows.len().div_ceil(self.block);
        let steps = |run: &Run| run.taps.len() * self.fours();
        let products = reads.all().map(|run| steps(run) * run.places * blocks);
        let copies = match reads.gathers {
            true => reads.all().map(steps).sum(),
            false => self.window.image.channel * self.fours(),
        };
        [products.sum(), copies]
    }

    /// Multiply-adds, those with zeros included and loads in the same unit, and bytes that are interleaved.
    pub fn work(&self) -> [usize; 2] {
        let [products, copies] = self.vectors(&self.reads);
        let blocks = self.rows.len().div_ceil(self.block);
        // A block that shares its bytes with no other loads them for each product, which takes a quarter of its time. Where none shares them, that is part
        // of what a product takes.
        let unshared = (blocks % BLOCKS) * products / (4 * blocks).max(1);
        let taps: usize = self.reads.all().map(|run| run.taps.len()).sum();
        let loads = taps * self.fours() * blocks * self.weights.load();
        [
            (products + unshared + loads) * 4 * self.block,
            copies * FOUR_LINES,
        ]
    }

    /// Bytes of the largest line of output, gathered.
    fn line_len(&self) -> usize {
        let bytes = |run: &Run| run.taps.len() * self.fours() * 4 * run.places;
        let lines = self.reads.runs.iter();
        let most = lines
            .map(|runs| runs.iter().map(bytes).sum::<usize>())
            .max();
        // The last bytes are written as a whole vector.
        (most.unwrap_or(0) + FOUR_LINES).next_multiple_of(SAMPLES)
    }

    /// Bytes of lines that a run needs.
    pub fn lines_len(&self) -> usize {
        match self.reads.gathers {
            true => STRIP * self.line_len(),
            false => self.window.image.channel * self.fours() * FOUR_LINES,
        }
    }

    /// The last line of the image, before that of a strip, that is read; `None` where there are no filters.
    pub fn last_place(&self) -> Option<usize> {
        self.window.last_place().filter(|_| !self.rows.is_empty())
    }

    /// Bytes of weights and of what is stored for each row.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + size_of_val(&self.rows[..])
    }

    /// Whether zeros are not stored.
    pub fn expands(&self) -> bool {
        self.weights.expands()
    }
}

impl ImageWindow {
    /// The last line of the image, before that where a window begins, that is read; `None` where there are no channels.
    pub fn last_place(&self) -> Option<usize> {
        let Self { image, taps, .. } = self;
        let lines = taps.iter().map(|[row, column]| row * image.row + column);
        Some(image.channels.checked_sub(1)? * image.channel + lines.max()?)
    }

    /// The pixels, of those of the line of output whose windows begin at a line of a channel of the image, that read the map: a bit for each of the sixteen
    /// bytes of the line.
    pub fn places(&self, x: usize) -> u32 {
        self.pixels(x)
            .iter()
            .fold(0, |all, pixels| all | pixels.bits)
    }

    /// What the line of output reads whose windows begin at a line of a channel of the image: its pixels by the taps whose input is in the map.
    fn pixels(&self, x: usize) -> Vec<Pixels> {
        let begins = [x / self.image.row, x % self.image.row];
        let halo = self.output.halo();
        let of_output = [0, 1].map(|d| halo[d] + begins[d] / self.strides[d]);
        let inside = |blocks: &Blocks, [row, column]: [usize; 2]| {
            let [_, height, width] = blocks.map();
            blocks
                .origins()
                .map(|[y, x]| y.wrapping_add(row) < height && x.wrapping_add(column) < width)
        };
        let computed = inside(&self.output, of_output);
        let mut all: Vec<Pixels> = Vec::new();
        for (number, tap) in (0..).zip(&self.taps) {
            let read = |d: usize| (begins[d] + tap[d]).wrapping_sub(self.image.border[d]);
            let there = inside(&self.input, [read(0), read(1)]);
            let reads = (0..LANES).filter(|&lane| there[lane] && computed[lane]);
            let bits: u32 = reads.map(|lane| 1 << byte_of_lane(lane)).sum();
            match all.iter_mut().find(|pixels| pixels.bits == bits) {
                _ if bits == 0 => {}
                Some(pixels) => pixels.taps.push(number),
                None => all.push(Pixels {
                    bits,
                    taps: vec![number],
                }),
            }
        }
        all
    }
}

/// Products that take as long as interleaving a vector.
const COPY: usize = 12;

/// All strips of a sample, or of a tile.
///
/// `x` is readable for the lines of the image that strips and taps say, `lines` writable for [`Fours::lines_len`] bytes, and what the output says holds for
/// each strip.
pub(super) struct FourStrips<'a> {
    pub fours: &'a Fours,
    pub x: *const u8,
    pub lines: *mut u8,
    pub output: StripOutput<'a>,
}

/// Blocks of rows that share each load of bytes, where there are registers for them.
const BLOCKS: usize = 2;

/// Most pixels whose sums, for two blocks of rows, are in registers.
const PIXELS: usize = 14;

/// Sums of a block of rows, `[pixel][row]`, of a strip.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([i32; SAMPLES * LANES]);

impl Task for FourStrips<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let fours = self.fours;
        let mut by_pixels = [Sums([0; SAMPLES * LANES]); BLOCKS];
        let sums = by_pixels.as_mut_ptr().cast::<i32>();
        let mut by_rows = BlockSums::ZERO;
        let slots = slots::<L>();
        // SAFETY: by the contract of the task, and the invariants of `Fours`; the instruction set is enabled (contract of the trait).
        unsafe {
            if !fours.reads.gathers {
                for line in 0..fours.window.image.channel {
                    for four in 0..fours.fours() {
                        let to = (line * fours.fours() + four) * FOUR_LINES;
                        L::interleave(
                            four_lines(&fours.window.image, self.x, four, line),
                            Joined::Apart,
                            None,
                            self.lines.add(to),
                        );
                    }
                }
            }
            for (tile, strip) in self.output.strips.iter().enumerate() {
                if fours.reads.gathers {
                    self.gather::<L>(strip, &fours.reads.strips[tile]);
                }
                let blocks = fours.rows.len().div_ceil(L::N);
                let at_once = if L::TWO_ROWS { BLOCKS } else { 1 };
                for first in (0..blocks).step_by(at_once) {
                    let blocks = first..blocks.min(first + at_once);
                    for slot in 0..blocks.len() * SAMPLES {
                        L::store(sums.add(slot * L::N), L::splat(0));
                    }
                    for (k, &runs) in fours.reads.strips[tile].iter().enumerate() {
                        let slots = &slots[k * LANES..][..LANES];
                        let line = strip.x[k] as usize;
                        self.line::<L>(k, line, runs, blocks.clone(), sums, slots);
                    }
                    for (i, block) in blocks.enumerate() {
                        let rows = &fours.rows[block * L::N..];
                        let rows = &rows[..rows.len().min(L::N)];
                        let sums = sums.add(i * SAMPLES * L::N);
                        (self.output).store_block::<L>(rows, tile, sums, &mut by_rows);
                    }
                }
            }
        }
    }
}

/// For each byte of four lines, where its sum is among those in order: `[part][sum][lane]`.
pub(super) fn slots<L: Lanes>() -> [u8; SAMPLES] {
    let mut slots = [0; SAMPLES];
    let lanes = 4 * L::N;
    for part in 0..SAMPLES / lanes {
        for j in 0..4 {
            for i in 0..L::N {
                let slot = part * lanes + j * L::N + i;
                slots[part * lanes + place(j, i)] = slot as u8;
            }
        }
    }
    slots
}

/// A line of each of four channels of the image `x`; of those past the last one, which have weights of zero, that of the last one.
///
/// # Safety
/// The line is one of a channel of the image.
#[inline(always)]
pub(super) unsafe fn four_lines(
    image: &Image,
    x: *const u8,
    four: usize,
    line: usize,
) -> [*const u8; 4] {
    let last = image.channels - 1;
    let of = |channel: usize| {
        let line = channel.min(last) * image.channel + line;
        // SAFETY: by the contract of this function.
        unsafe { x.add(line * LANES) }
    };
    let first = 4 * four;
    [of(first), of(first + 1), of(first + 2), of(first + 3)]
}

impl FourStrips<'_> {
    /// Gathers what the lines of a strip read, one after the other.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(&self, strip: &Strip, lines: &[u32; STRIP]) {
        let fours = self.fours;
        for (k, &runs) in lines.iter().enumerate() {
            let mut to = self.lines.wrapping_add(k * fours.line_len());
            for run in &fours.reads.runs[runs as usize] {
                for &line in &run.lines {
                    let line = (strip.x[k] + line) as usize;
                    for four in 0..fours.fours() {
                        // SAFETY: by the contract of this function; a whole vector is written, of which the next one overwrites what is too much.
                        unsafe {
                            L::interleave(
                                four_lines(&fours.window.image, self.x, four, line),
                                Joined::Apart,
                                Some(&run.order),
                                to,
                            )
                        };
                        to = to.wrapping_add(4 * run.places);
                    }
                }
            }
        }
    }

    /// Adds to the sums of one or two blocks of rows the products of line `k` of a strip, whose windows begin at line `x`.
    ///
    /// # Safety
    /// As [`FourStrips::gather`]; `sums` is valid for the sums of a strip, and `slots` are those of the line.
    #[inline(always)]
    unsafe fn line<L: Lanes>(
        &self,
        k: usize,
        x: usize,
        runs: u32,
        blocks: Range<usize>,
        sums: *mut i32,
        slots: &[u8],
    ) {
        let fours = self.fours;
        let mut gathered = k * fours.line_len();
        for run in &fours.reads.runs[runs as usize] {
            let tap = 4 * run.places * fours.fours();
            let first = gathered;
            gathered += tap * run.taps.len();
            let mut at = 0;
            let (most, alone) = match &fours.weights {
                // One block has registers for all pixels.
                _ if !L::TWO_ROWS || blocks.len() < BLOCKS => (L::SUMS, false),
                // Expanding weights once more takes longer than bytes that no second block shares.
                Stored::Bitmask(_) if run.places > PIXELS => (L::SUMS, true),
                _ if run.places > PIXELS => (run.places.div_ceil(2), false),
                _ => (PIXELS, false),
            };
            while at < run.places {
                let count = most.min(run.places - at);
                let mut slot = [0; LANES];
                for (to, &place) in slot.iter_mut().zip(&run.order[at..at + count]) {
                    *to = usize::from(slots[place as usize]) * L::N;
                }
                let run = Places {
                    run,
                    first: match fours.reads.gathers {
                        true => first + 4 * at,
                        false => x * tap + 4 * at,
                    },
                    step: 4 * run.places,
                    tap,
                    vectors: fours.fours(),
                    taps: fours.window.taps.len(),
                    slots: &slot,
                };
                // SAFETY: by the contract of this function.
                unsafe {
                    match &fours.weights {
                        Stored::Dense(all) => {
                            let weights = All::of(all);
                            self.places::<L, _>(count, alone, run, weights, blocks.clone(), sums);
                        }
                        Stored::Bitmask(nonzeros) => {
                            let weights = Nonzeros::of(nonzeros);
                            self.places::<L, _>(count, alone, run, weights, blocks.clone(), sums);
                        }
                    }
                }
                at += count;
            }
        }
    }

    /// The products of `count` pixels of a run, of all blocks of rows together, or of each alone.
    ///
    /// # Safety
    /// As [`FourStrips::line`].
    #[inline(always)]
    unsafe fn places<L: Lanes, W: Weights>(
        &self,
        count: usize,
        alone: bool,
        run: Places<'_>,
        weights: W,
        blocks: Range<usize>,
        sums: *mut i32,
    ) {
        macro_rules! products {
            ($blocks:expr, $first:expr, $sums:expr, $most:expr, $($count:literal)*) => {
                match count {
                    $($count if $count <= $most => {
                        self.products::<L, W, $count, $blocks>(run, weights, $first, $sums)
                    })*
                    _ => unreachable!("at most as many places as there are registers"),
                }
            };
        }
        // SAFETY: by the contract of this function.
        unsafe {
            if L::TWO_ROWS && !alone && blocks.len() == BLOCKS {
                return products!(BLOCKS, blocks.start, sums, PIXELS, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
            }
            for (i, block) in blocks.enumerate() {
                let sums = sums.add(i * SAMPLES * L::N);
                products!(1, block, sums, L::SUMS, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
            }
        }
    }

    /// The products of `P` pixels of a run and `B` blocks of rows.
    ///
    /// # Safety
    /// As [`FourStrips::line`].
    #[inline(always)]
    unsafe fn products<L: Lanes, W: Weights, const P: usize, const B: usize>(
        &self,
        places: Places<'_>,
        weights: W,
        block: usize,
        sums: *mut i32,
    ) {
        let Places { run, slots, .. } = places;
        // SAFETY: by the contract of this function.
        unsafe {
            let mut acc = [[L::splat(0); P]; B];
            for b in 0..B {
                let start = L::load(run.starts.as_ptr().add((block + b) * L::N));
                for p in 0..P {
                    let sum = L::load(sums.add(b * SAMPLES * L::N + slots[p]));
                    acc[b][p] = L::plus(sum, start);
                }
            }
            let mut gathered = places.first;
            for (&tap, &line) in run.taps.iter().zip(&run.lines) {
                let first = match self.fours.reads.gathers {
                    true => gathered,
                    false => places.first + line as usize * places.tap,
                };
                gathered += places.tap;
                let mut x = self.lines.cast_const().add(first);
                let cursor = |b: usize| {
                    let tap = (block + b) * places.taps + tap as usize;
                    weights.part::<L>(tap, places.vectors)
                };
                let mut cursors = [cursor(0), cursor(B - 1)];
                for _ in 0..places.vectors {
                    let mut fours = [cursors[0].next::<L>(); B];
                    if B > 1 {
                        fours[B - 1] = cursors[1].next::<L>();
                    }
                    for p in 0..P {
                        for b in 0..B {
                            acc[b][p] = L::add_fours(acc[b][p], x.add(4 * p), fours[b]);
                        }
                    }
                    x = x.add(places.step);
                }
            }
            for b in 0..B {
                for p in 0..P {
                    L::store(sums.add(b * SAMPLES * L::N + slots[p]), acc[b][p]);
                }
            }
        }
    }
}

/// Pixels of a run whose sums are in registers.
#[derive(Clone, Copy)]
struct Places<'a> {
    run: &'a Run,
    /// Where the bytes of the first of them begin: those that were gathered, or those of the line where windows begin.
    first: usize,
    /// Bytes between four channels and the next, and those of all channels of a line.
    step: usize,
    tap: usize,
    /// Vectors of weights of a tap.
    vectors: usize,
    /// Taps of a block of rows.
    taps: usize,
    /// Where their sums are.
    slots: &'a [usize; LANES],
}
