//! Dense convolution of bytes over spatial [`Blocks`], of filters that read few channels: depthwise ones, and those of first layers.
//!
//! **Fours.** Of four columns of a row of the input, the bytes of each lane are put side by side: sixty-four bytes, which one instruction multiplies by four
//! weights of a row of the filter. Each is made once. With windows that move by one column, two neighbouring outputs share it, the
//! second one with its weights moved by one place: so a row of a 3x3 window takes half an interleaving and one product for sixteen outputs.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use sparsevd_model::{Dense, Window};

use super::any4::Unpacked;
use super::dot::{self, Dot, Task};
use super::grid::Grid;
use super::lanes::{Joined, Lanes, SAMPLES};
use super::linear::{bytes, bytes_of};
use super::maps::{ByteEdges, STRIP, Writes, byte_of_lane, floats_for, scaled_to};
use super::quantization::{Quantization, is_large, largest, level, unpack};
use crate::blocks::Blocks;
use crate::clamp::Bounds;
use crate::conv::check_conv;
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::edges::Edges;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload, each_sample};
use crate::simd::Simd;
use crate::{Clamp, Isa, LANES, length};

/// Filters that are multiplied together, where there are registers for their sums: those of one wait for each other, step after step.
const FILTERS: usize = 4;

/// Bytes of fours of a line of sixteen.
const FOURS: usize = 4 * LANES;

/// A convolution that multiplies int8, of bytes in blocks to floats or bytes in blocks, either of all channels of the input by each filter or of one.
///
/// # Invariants
/// - the input's blocks cover [`BlockConv::input`]
/// - there is a filter for each output channel, as many for each group of input channels; for each of `steps` it has `sharing` times four weights
/// - `first_lines` has a row for each that a row of the output reads
/// - `pitch` covers the columns of the output rounded up to whole strips; fours past `starts` are not written, and only outputs that are not stored read them
#[derive(Debug, Clone)]
pub struct ColumnConv {
    isa: Isa,
    dot: Dot,
    blocks: [Blocks; 2],
    groups: usize,
    split: InputSplit,
    filters: Vec<Filter>,
    /// `[filter][step][output of those that share fours]`, four weights each.
    weights: Vec<[i8; 4]>,
    /// For each four weights of a filter, where their fours are after those of the first ones, in bytes.
    steps: Vec<usize>,
    fours: Interleaving,
    /// The largest magnitude of a number of the output, and whether one in its grid may be large.
    largest: f64,
    large: bool,
    writes: Writes,
}

/// How the rows of a channel of the input become fours.
#[derive(Debug, Clone)]
struct Interleaving {
    /// The line where each row begins that a window reads.
    first_lines: Vec<usize>,
    /// Columns at which fours begin, and the distance of their columns.
    starts: Vec<usize>,
    dilation: usize,
    /// Bytes of a row of a channel of them, and channels, of which those of each row follow each other.
    pitch: usize,
    channels: usize,
    /// Rows of them between those of two rows of the output, and rows of them that one of the output reads.
    stride: usize,
    reach: usize,
    /// Neighbouring outputs that share fours: two or one.
    sharing: usize,
    /// Fours of one output, or of those that share them, which follow each other.
    each: usize,
}

/// The constants of a filter.
#[derive(Debug, Clone, Copy)]
struct Filter {
    start: i32,
    scale: f32,
    offset: f32,
}

impl ColumnConv {
    /// Packs filters `[out, in, kh, kw]` of levels, integers from -128 to 127, over an input in bytes whose zero is that of the quantization. Either each
    /// filter reads all `in` channels of the input, or `in` is 1, and each channel has as many filters of its own. `split` says which channels parts of a
    /// layer read: where they are those of the part, this is a part of a depthwise convolution, or the whole one.
    ///
    /// # Panics
    /// When the parameters contradict each other, a level is none, a sum may not fit in 32 bits, or the input's blocks do not cover
    /// [`BlockConv::input`].
    #[track_caller]
    pub fn pack(
        (isa, dot): (Isa, Dot),
        levels: &Dense,
        quantization: Quantization<'_>,
        window: &Window,
        split: InputSplit,
        [input, output]: [Blocks; 2],
    ) -> Self {
        let &[out, inputs, kh, kw] = levels.shape.dims() else {
            panic!("filters [out, in, kh, kw], got {}", levels.shape)
        };
        length::check("the filters", levels.values.len(), [out, inputs, kh, kw]);
        quantization.check(out);
        let groups = input.map()[0] / inputs.max(1);
        assert!(inputs == 1 || groups == 1, "filters of one or all channels");
        let [oh, ow] = check_conv([out, inputs, kh, kw], window, groups, input.map());
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        assert!(
            input.covers(&BlockConv::input(input.map(), window, &output)),
            "blocks of the input"
        );
        let [dy, dx] = window.dilations;
        // One column has no distance.
        let dx = if kw == 1 { 1 } else { dx };
        let [sy, sx] = window.strides;
        let sharing = if [sx, dx] == [1, 1] { 2 } else { 1 };
        // Columns of a window, or of those of two outputs, four at a time.
        let parts = (kw + sharing - 1).div_ceil(4);
        let [rows, columns] = output.block();
        let [columns, padded] =
            [columns, columns.next_multiple_of(STRIP)].map(|c| c.div_ceil(sharing));
        // Where outputs share fours, the second group of an output is also the first one of a later output.
        let (starts, places, each, next): (Vec<usize>, _, _, _) = match sharing {
            2 => {
                let more = 2 * (parts - 1);
                let starts = (0..columns + more).map(|i| 2 * i);
                (starts.collect(), padded + more, 1, 2)
            }
            _ => {
                let start = |column| (0..parts).map(move |part| column * sx + 4 * part * dx);
                (
                    (0..columns).flat_map(start).collect(),
                    padded * parts,
                    parts,
                    1,
                )
            }
        };
        let pitch = places * FOURS;
        let reach = (kh - 1) * dy + 1;
        let used = match rows {
            0 => 0,
            _ => (rows - 1) * sy + reach,
        };
        length::planned("fours", [used, inputs, pitch]);
        let [top, left, ..] = window.pads;
        let first = [input.halo()[0] - top, input.halo()[1] - left];
        let row = |row: usize| (first[0] + row) * input.pitch() + first[1];
        // Input channels, rows, and parts of the columns of a window.
        let steps = (0..inputs * kh * parts)
            .map(|step| [step / (kh * parts), step / parts % kh, step % parts]);
        let steps: Vec<[usize; 3]> = steps.collect();
        let place = |&[channel, ky, part]: &[usize; 3]| {
            (ky * dy * inputs + channel) * pitch + part * next * FOURS
        };
        let filter = |f: usize| {
            let taps = inputs * kh * kw;
            let values = &levels.values[f * taps..][..taps];
            (values.iter().map(|v| level(*v)).zip(0..))
                .map(|(level, k)| (k, level))
                .collect()
        };
        let constants = |f: usize| (quantization.scale[f], quantization.offset[f]);
        let filters: Vec<Unpacked> = (0..out)
            .map(|f| unpack(dot, f, filter(f), quantization.zero_point, constants(f)))
            .collect();
        let mut weights = Vec::new();
        for filter in &filters {
            for &[channel, ky, part] in &steps {
                for moved in 0..sharing {
                    let weight = |k: usize| {
                        let kx = (4 * part + k).checked_sub(moved).filter(|kx| *kx < kw);
                        kx.map_or(0, |kx| filter.entries[(channel * kh + ky) * kw + kx].1)
                    };
                    weights.push(std::array::from_fn(weight));
                }
            }
        }
        Self {
            isa,
            dot,
            blocks: [input, output],
            groups,
            split,
            filters: (filters.iter())
                .map(|f| Filter {
                    start: f.start,
                    scale: f.scale,
                    offset: f.offset,
                })
                .collect(),
            weights,
            steps: steps.iter().map(place).collect(),
            fours: Interleaving {
                first_lines: (0..used).map(row).collect(),
                starts,
                dilation: dx,
                pitch,
                channels: inputs,
                stride: sy,
                reach,
                sharing,
                each,
            },
            largest: filters.iter().map(largest).fold(0.0, larger),
            large: false,
            writes: Writes::Floats(Edges::of(&output)),
        }
    }

    /// The same convolution with an output in bytes of a grid.
    #[must_use]
    pub fn writing_bytes(self, grid: Grid) -> Self {
        let edges = ByteEdges::of(&self.blocks[1], grid.zero_point());
        Self {
            large: is_large(self.largest / f64::from(grid.scale()) + 255.0),
            writes: Writes::Bytes(grid, edges),
            ..self
        }
    }

    /// Elements of a sample of the output.
    pub fn output_len(&self) -> usize {
        let output = &self.blocks[1];
        match self.writes {
            Writes::Floats(_) => output.len(),
            Writes::Bytes(..) => output.byte_len(),
        }
    }

    /// Elements of scratch that a run needs: the fours of the channels that a filter reads.
    pub fn scratch_len(&self) -> usize {
        floats_for(self.fours.first_lines.len() * self.fours.channels * self.fours.pitch)
    }

    /// `y = clamp(sum * scale + offset)` and its halos, of `n` samples `x` in bytes. `scratch` is overwritten.
    ///
    /// # Panics
    /// When a slice has another length, or `scratch` fewer than [`ColumnConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        length::check("x", x.len(), [n, self.blocks[0].byte_len()]);
        length::check("y", y.len(), [n, self.output_len()]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        if y.is_empty() {
            return;
        }
        let fours = bytes(&mut scratch[..self.scratch_len()]);
        let grid = self.writes.grid();
        each_sample(x, y, n, |x, y| {
            let task = Groups {
                conv: self,
                x: bytes_of(x).as_ptr(),
                fours: fours.as_mut_ptr(),
                y: y.as_mut_ptr(),
                bounds: clamp.bounds(),
                byte_bounds: grid.map_or([0, u8::MAX], |grid| grid.bounds(clamp)),
            };
            // SAFETY: `x` is a sample of the input, `y` one of the output, `fours` has room for what the invariants say.
            unsafe { dot::run(self.dot, task) };
            match &self.writes {
                Writes::Floats(edges) => edges.refresh(self.isa, y),
                Writes::Bytes(_, edges) => edges.refresh(self.dot, bytes(y)),
            }
        });
    }

    /// Expected nanoseconds of a sample.
    pub fn unit_ns(&self, costs: &Costs) -> f64 {
        let [input, output] = self.blocks.map(|b| b.map()[0]);
        let lanes = self.blocks[1].lines() * LANES * output;
        let fours = self.fours.first_lines.len() * self.fours.starts.len() * FOURS * input;
        let multiply_adds = lanes * self.steps.len() * 4;
        let int8 = self.dot.costs(costs);
        let products = multiply_adds as f64 * int8.column_conv;
        let copies = fours as f64 * int8.gather + lanes as f64 * int8.column_store;
        costs.unless_far(products, self.bytes()) + copies
    }

    /// `{instructions}-{format}-{types}-{tile}`.
    pub fn name(&self) -> String {
        let to = match self.writes {
            Writes::Floats(_) => "",
            Writes::Bytes(..) => "-q",
        };
        let format = match self.split {
            InputSplit::Channels => "depthwise-blocks",
            InputSplit::Whole => "columns4-conv",
        };
        format!("{}-{format}-i8i8{to}-1x{SAMPLES}", self.dot)
    }

    /// Bytes of packed weights and constants.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.filters[..])
    }
}

/// The larger one, or NaN.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// All channels of a sample.
///
/// `x` is readable for a sample of the input, `fours` writable for the fours of a group, `y` for a sample of the output, in floats or bytes.
struct Groups<'a> {
    conv: &'a ColumnConv,
    x: *const u8,
    fours: *mut u8,
    y: *mut f32,
    bounds: Bounds,
    byte_bounds: [u8; 2],
}

impl Task for Groups<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let to_floats = ToFloats {
            y: self.y,
            bounds: self.bounds,
        };
        let to_bytes = |grid| ToBytes {
            y: self.y.cast(),
            grid,
            large: self.conv.large,
            bounds: self.byte_bounds,
        };
        // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
        unsafe {
            match (self.conv.fours.sharing, self.conv.writes.grid()) {
                (2, Some(grid)) => self.rows::<L, 2, _>(&to_bytes(grid)),
                (_, Some(grid)) => self.rows::<L, 1, _>(&to_bytes(grid)),
                (2, None) => self.rows::<L, 2, _>(&to_floats),
                (_, None) => self.rows::<L, 1, _>(&to_floats),
            }
        }
    }
}

/// What the loops of a convolution need, by value: from a reference they would read it again after each store.
#[derive(Clone, Copy)]
struct Loops<'a> {
    fours: *mut u8,
    first_lines: &'a [usize],
    starts: &'a [usize],
    dilation: usize,
    each: usize,
    steps: &'a [usize],
    /// Lines of a channel of the input.
    lines: usize,
}

impl Groups<'_> {
    /// All rows of all channels.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined. `S` outputs share fours.
    #[inline(always)]
    unsafe fn rows<L: Lanes, const S: usize, O: Store>(&self, to: &O) {
        let conv = self.conv;
        let [input, output] = conv.blocks;
        let [rows, columns] = output.block();
        let (first, between, channel) = (output.line(0, 0), output.pitch(), output.channel());
        let Interleaving {
            pitch,
            channels,
            stride,
            reach,
            ..
        } = conv.fours;
        let loops = Loops {
            fours: self.fours,
            first_lines: &conv.fours.first_lines,
            starts: &conv.fours.starts,
            dilation: conv.fours.dilation,
            each: conv.fours.each,
            steps: &conv.steps,
            lines: input.channel(),
        };
        let per_group = conv.filters.len() / conv.groups;
        let weights = conv.weights.as_ptr();
        // SAFETY: by the contract of this function.
        unsafe {
            for (group, filters) in conv.filters.chunks_exact(per_group).enumerate() {
                let x = self.x.add(group * channels * loops.lines * LANES);
                let mut made = 0;
                for row in 0..rows {
                    // With wide strides some rows are read by none.
                    made = made.max(row * stride);
                    // Just before they are read, so that they are in the first-level cache.
                    for made in made..row * stride + reach {
                        for c in 0..channels {
                            let x = x.add(c * loops.lines * LANES);
                            let to = loops.fours.add((made * channels + c) * pitch);
                            let line = *loops.first_lines.get_unchecked(made);
                            loops.interleave::<L>(x, line, O::ORDER.as_ref(), to);
                        }
                    }
                    made = row * stride + reach;
                    let mut from = loops
                        .fours
                        .add(row * stride * channels * pitch)
                        .cast_const();
                    // What a strip reads stays in the first-level cache for all filters.
                    for strip in (0..columns).step_by(STRIP) {
                        let lines = STRIP.min(columns - strip);
                        let first = first + row * between + strip;
                        let (fours, rest) = match L::TWO_ROWS {
                            true => filters.as_chunks::<FILTERS>(),
                            false => (&[][..], filters),
                        };
                        let mut number = group * per_group;
                        for filters in fours {
                            let weights = weights.add(number * loops.steps.len() * S);
                            let place = [number * channel + first, channel, lines];
                            loops.strip::<L, S, FILTERS, O>(filters, weights, from, to, place);
                            number += FILTERS;
                        }
                        for filter in rest {
                            let weights = weights.add(number * loops.steps.len() * S);
                            let place = [number * channel + first, channel, lines];
                            loops.strip::<L, S, 1, O>(&[*filter], weights, from, to, place);
                            number += 1;
                        }
                        from = from.add(STRIP / S * loops.each * FOURS);
                    }
                }
            }
        }
    }
}

impl Loops<'_> {
    /// Makes a row of fours of a channel, of its lines from `first` on.
    ///
    /// # Safety
    /// `x` is readable for the channel, `to` writable for the row, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn interleave<L: Lanes>(
        self,
        x: *const u8,
        first: usize,
        order: Option<&[u32; LANES]>,
        to: *mut u8,
    ) {
        let last = first + self.starts.last().map_or(0, |start| start + 3);
        // SAFETY: by the contract of this function.
        unsafe {
            if self.dilation == 1 && last < self.lines {
                let x = x.add(first * LANES);
                for (i, start) in self.starts.iter().enumerate() {
                    let x = x.add(start * LANES);
                    let four = [0, 1, 2, 3].map(|k| x.add(k * LANES));
                    L::interleave(four, Joined::Four, order, to.add(i * FOURS));
                }
                return;
            }
            for (i, start) in self.starts.iter().enumerate() {
                // Past the end of the channel any line does, as it is multiplied by zeros.
                let line = |k: usize| (first + start + k * self.dilation).min(self.lines - 1);
                let four = [0, 1, 2, 3].map(|k| x.add(line(k) * LANES));
                L::interleave(four, Joined::Apart, order, to.add(i * FOURS));
            }
        }
    }

    /// Computes four lines of a row of `F` channels of the output, of the fours `from` on: the first `lines` from line `first` of the output on are stored,
    /// and those of the next filter `channel` lines after them.
    ///
    /// # Safety
    /// As [`Groups::rows`]. The fours that the lines read are there, and the weights are those of the filters.
    #[inline(always)]
    unsafe fn strip<L: Lanes, const S: usize, const F: usize, O: Store>(
        self,
        filters: &[Filter; F],
        weights: *const [i8; 4],
        from: *const u8,
        to: &O,
        [first, channel, lines]: [usize; 3],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            for part in 0..SAMPLES / (4 * L::N) {
                let sums = self.part::<L, S, F>(filters, from, weights, part);
                for f in 0..F {
                    let Filter { scale, offset, .. } = filters[f];
                    let [scale, offset] = [scale, offset].map(|v| L::Floats::splat(v));
                    let values = sums[f].map(|sum| L::fused(L::floats(sum), scale, offset));
                    to.store::<L>(values, first + f * channel, part, lines);
                }
            }
        }
    }

    /// The sums of `4 N` numbers of a strip of each filter, after those of `part` such parts.
    ///
    /// # Safety
    /// As [`Loops::strip`].
    #[inline(always)]
    unsafe fn part<L: Lanes, const S: usize, const F: usize>(
        self,
        filters: &[Filter; F],
        from: *const u8,
        mut weights: *const [i8; 4],
        part: usize,
    ) -> [[L::Ints; 4]; F] {
        // The output of each vector, and the first of its lanes.
        let number = |v: usize| (4 * part + v) * L::N;
        let output = |v: usize| number(v) / LANES;
        // SAFETY: by the contract of this function.
        unsafe {
            let mut sums = [[L::splat(0); 4]; F];
            for f in 0..F {
                sums[f] = [L::splat(filters[f].start); 4];
            }
            for &step in self.steps {
                for v in 0..4 {
                    let own = output(v) / S * self.each * FOURS + number(v) % LANES * 4;
                    let fours = from.add(step + own);
                    for f in 0..F {
                        let of_filter = weights.add(f * self.steps.len() * S + output(v) % S);
                        let four = L::splat_fours(of_filter.cast());
                        sums[f][v] = L::add_own_fours(sums[f][v], fours, four);
                    }
                }
                weights = weights.add(S);
            }
            sums
        }
    }
}

/// Where numbers of a strip go.
trait Store {
    /// The byte of the input of each number of a line, in the order in which numbers are stored; `None` for that of the bytes.
    const ORDER: Option<[u32; LANES]>;

    /// Stores `4 N` numbers of a strip, after those of `part` such parts, as far as they are in its first `lines` lines. Before the strip there are `first`
    /// lines.
    ///
    /// # Safety
    /// Those lines are writable, and the instruction set of `L` is enabled where this is inlined.
    unsafe fn store<L: Lanes>(
        &self,
        values: [<L::Floats as Simd>::V; 4],
        first: usize,
        part: usize,
        lines: usize,
    );
}

struct ToFloats {
    y: *mut f32,
    bounds: Bounds,
}

impl Store for ToFloats {
    const ORDER: Option<[u32; LANES]> = {
        let mut order = [0; LANES];
        let mut lane = 0;
        while lane < LANES {
            order[lane] = byte_of_lane(lane) as u32;
            lane += 1;
        }
        Some(order)
    };

    #[inline(always)]
    unsafe fn store<L: Lanes>(
        &self,
        values: [<L::Floats as Simd>::V; 4],
        first: usize,
        part: usize,
        lines: usize,
    ) {
        // SAFETY: by the contract of the trait.
        unsafe {
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            for (v, value) in values.into_iter().enumerate() {
                let number = (4 * part + v) * L::N;
                if number < lines * LANES {
                    let to = self.y.add(first * LANES + number);
                    L::Floats::store(to, L::Floats::clamp(value, low, high));
                }
            }
        }
    }
}

struct ToBytes {
    y: *mut u8,
    grid: Grid,
    large: bool,
    bounds: [u8; 2],
}

impl Store for ToBytes {
    const ORDER: Option<[u32; LANES]> = None;

    #[inline(always)]
    unsafe fn store<L: Lanes>(
        &self,
        values: [<L::Floats as Simd>::V; 4],
        first: usize,
        part: usize,
        lines: usize,
    ) {
        // A part is one line or more.
        let of_part = 4 * L::N / LANES;
        let lines = lines.saturating_sub(part * of_part).min(of_part);
        if lines == 0 {
            return;
        }
        // SAFETY: by the contract of the trait.
        unsafe {
            let scaled = scaled_to::<L>(values, self.grid, self.large);
            let to = self.y.add((first + part * of_part) * LANES);
            L::store_lines(to, scaled, self.bounds, lines);
        }
    }
}

impl PackedKernel for ColumnConv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            scratch,
            n,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, n, scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.each(self.unit_ns(costs))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn input_split(&self) -> InputSplit {
        self.split
    }
}
