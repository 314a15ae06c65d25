//! Convolution of bytes, over the lines of sixteen that [`Blocks`] and tiles have.
//!
//! **Two kernels.** Weights that are not zero are multiplied by strips of sixty-four pixels, as below; all weights by the pixels of a line
//! ([`super::fours`]), which is faster where most are there, or maps have few pixels.
//!
//! **Strips.** Four lines of output at a time, any four, are a tile of sixty-four samples of a matrix product: the lines that its weights read, one for each
//! (input channel, ky, kx) that any filter has, are gathered side by side, and multiplied by [`super::any4`]. So every line that a step reads
//! begins at a cache line, in as few sets of the cache as need be, whatever strides and maps are. Gathering is a few per cent of the time of large layers,
//! and up to a fifth of that of small ones with few weights.
//!
//! **Input and output** are floats or bytes of a grid ([`super::maps`]), each for itself. Floats are quantised first, into an image of bytes. Tiles get the
//! border of their padding there, of the byte that stands for zero; blocks have it in their halo. What is written in bytes is what a reader
//! would make of the floats, to the bit, but for NaN, which may become the least byte of a clamp in place of 0.
//!
//! **Pooling.** With 2x2 max-pooling a strip is two by two lines, whose largest are stored.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use super::CACHE;
use super::any4::{Any4, Entry, GROUP, Last, Output, Partial, Product, Unpacked};
use super::dot::{self, Dot, Task};
use super::fours::{FourStrips, Fours, ImageWindow};
use super::grid::Grid;
use super::image::{Image, QuantizeImage};
use super::lanes::{Joined, Lanes, SAMPLES};
use super::linear::{bytes, bytes_of};
use super::maps::{ByteEdges, Writes, floats_for};
use super::quantization::{Quantization, level, unpack, zero};
use super::strip::{Onto, Strip, StripOutput, input_line, output_line, strips};
use crate::blocks::Blocks;
use crate::conv::{check_conv, filters_of_groups};
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::edges::Edges;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::pool_blocks::BlockPool;
use crate::{Clamp, Isa, LANES, length};

/// A convolution that multiplies int8, over floats or bytes.
///
/// # Invariants
/// - a place, or what a tap adds to it, plus any line of input of a strip is a line of the image
/// - lines of output of strips are those of a channel of the output, and a strip has one to four of them
/// - of [`Multiplied::Nonzeros`], columns of a matrix are below the number of its places; all rows are in the first and in the last one
#[derive(Debug, Clone)]
pub struct Conv {
    isa: Isa,
    dot: Dot,
    input: Blocks,
    output: Blocks,
    grid: Grid,
    image: Image,
    weights: Weights,
    strips: Vec<Strip>,
    /// Whether a strip is two by two lines of the convolution, for one of the output.
    pools: bool,
    /// Whether the input is in bytes of the grid.
    reads_bytes: bool,
    /// The grid of the residual, if that is in bytes.
    onto: Option<Grid>,
    writes: Writes,
}

/// The weights, for the kernels that multiply them.
#[derive(Debug, Clone)]
enum Weights {
    /// Those that are not zero.
    Nonzeros {
        columns: Vec<Columns>,
        nonzeros: usize,
    },
    All(Box<Fours>),
}

/// Which weights are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplied {
    /// Those that are not zero, sixty-four pixels at a time.
    Nonzeros,
    /// All, each for those pixels whose input is in the map.
    All,
}

/// Some of the lines that filters read, and their weights.
#[derive(Debug, Clone)]
struct Columns {
    /// Lines of the image before those that are gathered for a strip.
    places: Vec<u32>,
    matrix: Any4,
}

/// Lines of each [`Columns`]: as many as stay in the first-level cache, where the rows have enough weights in each to make up for keeping their sums between;
/// else all.
fn lines_at_once(places: usize, line: usize, nonzeros: usize, rows: usize) -> usize {
    /// Weights of a row.
    const LEAST: usize = 14;
    let blocks = (places * line).div_ceil(CACHE).max(1);
    match nonzeros / (rows * blocks).max(1) >= LEAST {
        true => places.div_ceil(blocks).max(1),
        false => places.max(1),
    }
}

impl Weights {
    /// The weights of filters that are not zero. `line` says which line of the image an entry reads.
    fn nonzeros(dot: Dot, filters: Vec<Unpacked>, line: impl Fn(u32) -> u32) -> Self {
        // The lines that any of these filters reads, in their order in memory.
        let read = filters.iter().flat_map(|filter| &filter.entries);
        let mut places: Vec<u32> = read.map(|entry| line(entry.0)).collect();
        places.sort_unstable();
        places.dedup();
        let nonzeros = filters.iter().map(|filter| filter.entries.len()).sum();
        let at_once = lines_at_once(places.len(), dot.line(), nonzeros, filters.len());
        let chunks = places.len().div_ceil(at_once).max(1);
        let mut rows: Vec<Vec<(u32, Unpacked)>> = (0..chunks).map(|_| Vec::new()).collect();
        for (row, whole) in (0..).zip(filters) {
            let place = |&(k, level): &Entry| {
                let place = places.binary_search(&line(k));
                let place = place.expect("a line that a filter reads");
                (u32::try_from(place).expect("as many as lines"), level)
            };
            let mut entries: Vec<Entry> = whole.entries.iter().map(place).collect();
            entries.sort_unstable_by_key(|&(place, _)| place);
            let mut entries = &entries[..];
            for (chunk, rows) in rows.iter_mut().enumerate() {
                let first = chunk * at_once;
                let end = entries.partition_point(|e| (e.0 as usize) < first + at_once);
                let (part, rest) = entries.split_at(end);
                entries = rest;
                if part.is_empty() && chunk > 0 && chunk + 1 < chunks {
                    continue;
                }
                let first = u32::try_from(first).expect("as many as lines");
                let part = part.iter().map(|&(place, level)| (place - first, level));
                rows.push((
                    row,
                    Unpacked {
                        entries: part.collect(),
                        ..whole
                    },
                ));
            }
        }
        let places_of = |chunk: usize| {
            let places = &places[chunk * at_once..];
            places[..at_once.min(places.len())].to_vec()
        };
        let columns = rows.into_iter().enumerate().map(|(chunk, rows)| Columns {
            places: places_of(chunk),
            matrix: Any4::pack_some(dot, rows, dot.line()),
        });
        Self::Nonzeros {
            columns: columns.collect(),
            nonzeros,
        }
    }
}

impl Conv {
    /// Packs a range of output channels of filters of `shape` `[out, in/groups, kh, kw]`, whose `levels` are integers from -128 to 127 in `out` rows, so
    /// that threads can split a convolution by channels. The input is in bytes of `grid`, or quantised to them as by [`super::quantize`].
    /// `quantization` and the blocks of the output are those of all channels. The input's blocks cover [`BlockConv::input`], or are those of a tile without
    /// a border.
    ///
    /// # Panics
    /// When the parameters contradict each other, a level is none, a sum may not fit in 32 bits, the image has 2^32 lines or those of a strip 4 GiB, or
    /// `channels` is out of range.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        (isa, dot): (Isa, Dot),
        multiplied: Multiplied,
        levels: &Csr,
        shape: [usize; 4],
        grid: Grid,
        quantization: Quantization<'_>,
        window: &Window,
        groups: usize,
        [input, output]: [Blocks; 2],
        channels: Range<usize>,
    ) -> Self {
        let [oh, ow] = check_conv(shape, window, groups, input.map());
        let [out, per_group, kh, kw] = shape;
        let Quantization {
            zero_point,
            scale,
            offset,
        } = quantization;
        assert_eq!(zero_point, grid.zero_point(), "the zero point");
        assert_eq!(levels.rows(), out, "rows of the weight");
        assert_eq!(levels.cols(), per_group * kh * kw, "columns of the weight");
        quantization.check(out);
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        let there = input.covers(&BlockConv::input(input.map(), window, &output));
        let bare = input == Blocks::of_tile(input.map()) && output.is_tile();
        assert!(there || bare, "blocks of the input");
        let [top, left, ..] = window.pads;
        let (border, first) = match there {
            true => ([0; 4], [input.halo()[0] - top, input.halo()[1] - left]),
            false => (window.pads, [0; 2]),
        };
        let image = Image::of(&input, border);
        length::planned("an image of bytes", [image.channels, image.channel, LANES]);
        let [dy, dx] = window.dilations;
        let of_groups = || filters_of_groups(out, groups, &channels);
        // A filter, with the numbers of its channels among those of all groups.
        let filter = |(group, filter): (usize, usize)| -> Unpacked {
            let (columns, values) = levels.row(filter);
            let first = group * per_group * kh * kw;
            let entry = |(&k, &v): (&u32, &f32)| -> Entry {
                let k = u32::try_from(first + k as usize).expect("columns of all groups");
                (k, level(v))
            };
            let entries = columns.iter().zip(values).map(entry).collect();
            let constants = (scale[filter], offset[filter]);
            unpack(dot, filter, entries, zero_point, constants)
        };
        let filters = of_groups().flat_map(|(group, filters)| filters.map(move |f| (group, f)));
        let filters: Vec<Unpacked> = filters.map(filter).collect();
        let tap = |tap: usize| [first[0] + tap / kw * dy, first[1] + tap % kw * dx];
        let output = output.with_channels(channels.len());
        let weights = match multiplied {
            Multiplied::Nonzeros => {
                let line = |k: u32| {
                    let [row, column] = tap(k as usize % (kh * kw));
                    let line = k as usize / (kh * kw) * image.channel + row * image.row + column;
                    u32::try_from(line).expect("an image of less than 2^32 lines")
                };
                Weights::nonzeros(dot, filters, line)
            }
            Multiplied::All => {
                let window = ImageWindow {
                    image,
                    input,
                    output,
                    taps: (0..kh * kw).map(tap).collect(),
                    strides: window.strides,
                };
                let zero = zero(dot, zero_point);
                Weights::All(Box::new(Fours::pack(dot, &filters, zero, window)))
            }
        };
        let packed = Self {
            isa,
            dot,
            input,
            output,
            grid,
            image,
            strips: strips(&image, window, &output),
            weights,
            pools: false,
            reads_bytes: false,
            onto: None,
            writes: Writes::Floats(Edges::of(&output)),
        };
        packed.checked()
    }

    /// This convolution, whose strips were just made.
    ///
    /// # Panics
    /// When one reads a line that the image does not have, or writes one that a channel of the output does not have.
    #[track_caller]
    fn checked(mut self) -> Self {
        if let Weights::All(fours) = &mut self.weights {
            fours.plan(&self.strips);
        }
        let most = |lines: &mut dyn Iterator<Item = u32>| lines.max().map(|line| line as usize);
        let read = most(&mut self.strips.iter().flat_map(|strip| strip.x));
        let written = most(&mut self.strips.iter().flat_map(|strip| strip.y));
        let place = match &self.weights {
            Weights::Nonzeros { columns, .. } => {
                most(&mut columns.iter().flat_map(|c| c.places.iter().copied()))
            }
            Weights::All(fours) => fours.last_place(),
        };
        if let (Some(place), Some(line)) = (place, read) {
            assert!(place + line < self.image.lines(), "lines of the input");
        }
        assert!(
            written.is_none_or(|line| line < self.output.channel()),
            "lines of the output"
        );
        self
    }

    /// The same convolution with 2x2 max-pooling fused into the store, for pooled outputs in `output`. `window` is that of the convolution. `None` where
    /// pixels of different blocks are pooled together.
    ///
    /// # Panics
    /// When the window moves out of the input.
    #[track_caller]
    pub fn pooled(mut self, window: &Window, output: Blocks) -> Option<Self> {
        let [channels, ..] = self.output.map();
        let least = BlockPool::output(&Window::square(2, 2), &self.output)?;
        let output = output.with_channels(channels);
        if self.pools || !output.covers(&least) {
            return None;
        }
        let [rows, columns] = output.block();
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let strips = places.map(|(row, column)| {
            let x = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(down, right)| {
                input_line(&self.image, window, 2 * row + down, 2 * column + right)
            });
            Strip::new(&x, &[output_line(&output, row, column)])
        });
        self.strips = strips.collect();
        self.pools = true;
        self.output = output;
        let grid = self.writes.grid();
        self.writes = Writes::Floats(Edges::of(&output));
        let pooled = self.checked();
        Some(match grid {
            Some(grid) => pooled.writing_bytes(grid),
            None => pooled,
        })
    }

    /// The same convolution of an input that is already in bytes of its grid, in the same blocks. `None` where it needs a border.
    pub fn reading_bytes(self) -> Option<Self> {
        let reads_bytes = !self.image.has_border();
        reads_bytes.then_some(Self {
            reads_bytes,
            ..self
        })
    }

    /// The same convolution with a residual in bytes of a grid.
    #[must_use]
    pub fn onto_bytes(self, grid: Grid) -> Self {
        let onto = Some(grid);
        Self { onto, ..self }
    }

    /// The same convolution with an output in bytes of a grid.
    #[must_use]
    pub fn writing_bytes(self, grid: Grid) -> Self {
        let edges = ByteEdges::of(&self.output, grid.zero_point());
        Self {
            writes: Writes::Bytes(grid, edges),
            ..self
        }
    }

    /// Expected nanoseconds of a unit: a sample, or sixteen where lanes are samples.
    pub fn unit_ns(&self, costs: &Costs) -> f64 {
        let lanes = self.strips.len() * SAMPLES;
        let quantized = if self.reads_bytes {
            0
        } else {
            self.input.len()
        };
        let sums = (lanes * self.output.map()[0]) as f64;
        let int8 = self.dot.costs(costs);
        let quantized = quantized as f64 * int8.quantize;
        let store = if self.pools { int8.pool } else { int8.store };
        match &self.weights {
            Weights::Nonzeros { columns, nonzeros } => {
                let places: usize = columns.iter().map(|c| c.places.len()).sum();
                let gathered = (lanes * places) as f64 * int8.gather;
                let products = (nonzeros * lanes) as f64 * int8.conv;
                let products = costs.unless_far(products, Self::bytes(self));
                quantized + gathered + products + sums * store
            }
            Weights::All(fours) => {
                let [multiply_adds, interleaved] = fours.work();
                let gathered = interleaved as f64 * int8.gather;
                // Pooling takes as much longer as there.
                let store = (int8.dense_store + store - int8.store).max(0.0);
                let products = multiply_adds as f64 * int8.dense_conv;
                let products = costs.unless_far(products, fours.bytes());
                quantized + gathered + products + sums * store
            }
        }
    }

    /// Elements of scratch that a run needs: the image, the lines of some strips, and sums over some columns.
    pub fn scratch_len(&self) -> usize {
        floats_for(self.image_len() + self.lines_len()) + self.sums_len()
    }

    /// Bytes of the lines that are gathered at once.
    fn lines_len(&self) -> usize {
        match &self.weights {
            Weights::Nonzeros { columns, .. } => {
                let most = columns.iter().map(|c| c.places.len()).max();
                let strips = self.strips_at_once(columns);
                strips * most.unwrap_or(0) * self.dot.line()
            }
            Weights::All(fours) => fours.lines_len(),
        }
    }

    /// Sums over some of the columns of a strip.
    fn sums_len(&self) -> usize {
        match &self.weights {
            Weights::Nonzeros { columns, .. } if columns.len() > 1 => {
                self.output.map()[0] * SAMPLES
            }
            _ => 0,
        }
    }

    /// Strips that are gathered together, as many as stay in the first-level cache: so neighbouring lines of a channel of output are written one after the
    /// other, and weights are read less often.
    fn strips_at_once(&self, columns: &[Columns]) -> usize {
        let [columns] = columns else {
            return 1;
        };
        let strip = columns.places.len() * self.dot.line();
        (CACHE / strip.max(1)).clamp(1, self.strips.len().max(1))
    }

    /// Bytes of the image in scratch.
    fn image_len(&self) -> usize {
        if self.reads_bytes {
            return 0;
        }
        // So that what follows begins at a cache line.
        (self.image.lines() * LANES).next_multiple_of(SAMPLES)
    }

    /// Elements of a sample, or of a tile, of the input and of the output.
    fn lens(&self) -> [usize; 2] {
        let x = if self.reads_bytes {
            self.input.byte_len()
        } else {
            self.input.len()
        };
        [x, self.output_len()]
    }

    /// Elements of a sample of the output.
    pub fn output_len(&self) -> usize {
        match self.writes {
            Writes::Floats(_) => self.output.len(),
            Writes::Bytes(..) => self.output.byte_len(),
        }
    }

    /// `y = clamp(sum * scale + offset + residual)`, pooled where that is fused, and the halos of `y`. `x`, `y` and the residual are `n` samples in the blocks
    /// of input and output, or `n` tiles where lanes are samples, in floats or bytes. `scratch` is overwritten.
    ///
    /// # Panics
    /// When a slice has another length, `scratch` fewer than [`Conv::scratch_len`] elements, or there is a residual and the output is pooled.
    #[track_caller]
    pub fn run(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        n: usize,
        scratch: &mut [f32],
        clamp: Clamp,
    ) {
        let [x_len, y_len] = self.lens();
        let onto_len = match self.onto {
            Some(_) => self.output.byte_len(),
            None => self.output.len(),
        };
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        if let Some(residual) = residual {
            length::check("the residual", residual.len(), [n, onto_len]);
        }
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        assert!(!self.pools || residual.is_none(), "a sum before pooling");
        if y_len == 0 {
            return;
        }
        let (scratch, sums) =
            scratch[..self.scratch_len()].split_at_mut(self.scratch_len() - self.sums_len());
        let (image, lines) = bytes(scratch).split_at_mut(self.image_len());
        for (i, y) in y.chunks_exact_mut(y_len).enumerate() {
            let x = &x[i * x_len..(i + 1) * x_len];
            let x = if self.reads_bytes {
                bytes_of(x)
            } else {
                let image_of = QuantizeImage {
                    x: x.as_ptr(),
                    y: image.as_mut_ptr(),
                    image: &self.image,
                    grid: self.grid,
                };
                // SAFETY: the input has the lines that the image takes, and the image was given its length.
                unsafe { dot::run(self.dot, image_of) };
                &*image
            };
            let onto = residual.map(|r| r[i * onto_len..][..onto_len].as_ptr());
            let mut pooled = [0.0; GROUP * SAMPLES];
            let grid = self.writes.grid();
            let output = StripOutput {
                y: y.as_mut_ptr(),
                channel: self.output.channel(),
                onto: match (onto, self.onto) {
                    (None, _) => Onto::Nothing,
                    (Some(floats), None) => Onto::Floats(floats),
                    (Some(floats), Some(grid)) => Onto::Bytes(floats.cast(), grid),
                },
                bounds: clamp.bounds(),
                grid,
                byte_bounds: grid.map_or([0, u8::MAX], |grid| grid.bounds(clamp)),
                strips: &self.strips,
                pooled: self.pools.then_some(pooled.as_mut_ptr()),
            };
            // SAFETY: the lengths were just checked; the image has the lines that places and strips say, the scratch those of all places, the
            // output and the residual those of the strips, by the invariants of `Conv`.
            unsafe {
                match &self.weights {
                    Weights::Nonzeros { columns, .. } => {
                        let strips = Strips {
                            columns,
                            at_once: self.strips_at_once(columns),
                            x: x.as_ptr(),
                            lines: lines.as_mut_ptr(),
                            sums: sums.as_mut_ptr().cast(),
                            output,
                        };
                        dot::run(self.dot, strips);
                    }
                    Weights::All(fours) => {
                        let strips = FourStrips {
                            fours,
                            x: x.as_ptr(),
                            lines: lines.as_mut_ptr(),
                            output,
                        };
                        dot::run(self.dot, strips);
                    }
                }
            }
            match &self.writes {
                Writes::Floats(edges) => edges.refresh(self.isa, y),
                Writes::Bytes(_, edges) => edges.refresh(self.dot, bytes(y)),
            }
        }
    }

    /// Samples in one unit of the count of a run: 1, or 16 where lanes are samples.
    pub fn samples(&self) -> usize {
        if self.output.is_tile() { LANES } else { 1 }
    }

    /// `{instructions}-{format}-{types}-{tile}`.
    pub fn name(&self) -> String {
        let pool = if self.pools { "-pool" } else { "" };
        let to = match self.writes {
            Writes::Floats(_) => "",
            Writes::Bytes(..) => "-q",
        };
        let (format, tile) = match &self.weights {
            Weights::Nonzeros { .. } => ("any4", SAMPLES),
            Weights::All(fours) if fours.expands() => ("bitmask4", LANES),
            Weights::All(_) => ("dense4", LANES),
        };
        format!("{}-{format}-conv{pool}-i8i8{to}-1x{tile}", self.dot)
    }

    /// Bytes of packed weights, offsets, row numbers, scales and offsets.
    pub fn bytes(&self) -> usize {
        let bytes = |c: &Columns| c.matrix.bytes() + size_of_val(&c.places[..]);
        match &self.weights {
            Weights::Nonzeros { columns, .. } => columns.iter().map(bytes).sum(),
            Weights::All(fours) => fours.bytes(),
        }
    }
}

/// All strips of a sample, or of a tile.
///
/// `x` is readable for the lines that places and strips say, `lines` writable for a line for each place of some columns and [`Conv::strips_at_once`] strips,
/// `sums` for [`Conv::sums_len`] sums, and what the output says holds for each strip.
struct Strips<'a> {
    columns: &'a [Columns],
    at_once: usize,
    x: *const u8,
    lines: *mut u8,
    sums: *mut i32,
    output: StripOutput<'a>,
}

impl Task for Strips<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for strips in self.output.strips.chunks(self.at_once) {
            let output = StripOutput {
                strips,
                ..self.output
            };
            // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
            unsafe {
                if let [columns] = self.columns {
                    self.product::<L, _>(columns, strips, output);
                    continue;
                }
                for (i, columns) in self.columns.iter().enumerate() {
                    let before = Partial {
                        sums: self.sums,
                        begins: i == 0,
                    };
                    if i + 1 < self.columns.len() {
                        self.product::<L, _>(columns, strips, before);
                    } else {
                        self.product::<L, _>(columns, strips, Last { before, output });
                    }
                }
            }
        }
    }
}

impl Strips<'_> {
    /// Gathers the lines of some columns for a strip. `joined` is that of the strip, as a constant, so that each kind has a loop of its own.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(
        &self,
        columns: &Columns,
        strip: &Strip,
        joined: Joined,
        to: *mut u8,
    ) {
        for (i, &place) in columns.places.iter().enumerate() {
            // SAFETY: by the contract of this function.
            unsafe {
                let from = |k: usize| {
                    let line = place as usize + strip.x[k] as usize;
                    self.x.add(line * LANES)
                };
                let from = [from(0), from(1), from(2), from(3)];
                L::copy_line(from, joined, to.add(i * SAMPLES * L::FORMS));
            }
        }
    }

    /// Gathers the lines of some columns for strips, and multiplies them.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn product<L: Lanes, O: Output>(&self, columns: &Columns, strips: &[Strip], output: O) {
        let line = SAMPLES * L::FORMS;
        let tile = columns.places.len() * line;
        // SAFETY: by the contract of this function.
        unsafe {
            for (t, strip) in strips.iter().enumerate() {
                let to = self.lines.add(t * tile);
                match strip.joined[0] {
                    Joined::Apart => self.gather::<L>(columns, strip, Joined::Apart, to),
                    Joined::Pairs => self.gather::<L>(columns, strip, Joined::Pairs, to),
                    Joined::Four => self.gather::<L>(columns, strip, Joined::Four, to),
                }
            }
            let product = Product {
                matrix: &columns.matrix,
                x: self.lines,
                tile,
                tiles: strips.len(),
                at_once: strips.len(),
                output,
            };
            product.run::<L>();
        }
    }
}

impl PackedKernel for Conv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            x2,
            y,
            scratch,
            n,
            clamp,
            ..
        } = operands;
        Self::run(self, x, x2, y, n.div_ceil(self.samples()), scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| self.unit_ns(costs) * n.div_ceil(self.samples()) as f64)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        match &self.weights {
            Weights::Nonzeros { .. } => true,
            Weights::All(fours) => fours.expands(),
        }
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn takes_residual(&self) -> bool {
        !self.pools
    }
}
