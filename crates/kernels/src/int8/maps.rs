//! Feature maps of bytes, in the lines that [`Blocks`] have.
//!
//! A line of sixteen floats becomes sixteen bytes, in the order that four neighbouring lines have in `lines.rs`: byte `8 (j / 2) + 2 i + j % 2` belongs to
//! lane `4 j + i`, for `i` and `j` from 0 to 3. Halos and channels are those of the blocks; outside of the map there is the byte of zero. So
//! four lines in a row are a line of sixty-four samples for [`super::any4`].

use super::CACHE;
use super::dot::{self, Dot, Task};
use super::grid::Grid;
use super::lanes::{Joined, Lanes, SAMPLES, place};
use super::linear::{bytes, bytes_of};
use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::edges::Edges;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload};
use crate::simd::Simd;
use crate::{LANES, length};

/// Lines that are quantised at once.
pub(super) const STRIP: usize = SAMPLES / LANES;

/// Where a lane is in its line of bytes.
pub(super) const fn byte_of_lane(lane: usize) -> usize {
    place(lane / 4, lane % 4)
}

/// Floats that hold the bytes of `lanes` numbers.
pub(super) fn floats_for(lanes: usize) -> usize {
    lanes.div_ceil(size_of::<f32>())
}

/// Quantises maps in blocks, with their halos.
#[derive(Debug, Clone)]
pub struct Quantize {
    dot: Dot,
    blocks: Blocks,
    grid: Grid,
}

impl Quantize {
    /// To bytes of a grid: `round(x / scale + zero_point)`, as [`super::quantize`] computes it.
    pub fn new(dot: Dot, blocks: Blocks, grid: Grid) -> Self {
        Self { dot, blocks, grid }
    }

    /// `y`, `n` samples in blocks of bytes, from `x` in blocks of floats.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        length::check("x", x.len(), [n, self.blocks.len()]);
        length::check("y", y.len(), [n, self.blocks.byte_len()]);
        let lines = QuantizeLines {
            x: x.as_ptr(),
            y: bytes(y).as_mut_ptr(),
            lines: x.len() / LANES,
            grid: self.grid,
        };
        // SAFETY: both have that many lines, as was just checked.
        unsafe { dot::run(self.dot, lines) };
    }
}

/// Quantises lines: `x` is readable for sixteen floats for each, `y` writable for sixteen bytes.
pub(super) struct QuantizeLines {
    pub x: *const f32,
    pub y: *mut u8,
    pub lines: usize,
    pub grid: Grid,
}

impl Task for QuantizeLines {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: whole strips of lines are read and written in place, those of the last one through a buffer; the instruction set is enabled (contract of
        // the trait).
        unsafe {
            let whole = self.lines / STRIP;
            for strip in 0..whole {
                let at = strip * SAMPLES;
                quantize_strip::<L>(self.x.add(at), self.y.add(at), self.grid);
            }
            let rest = self.lines % STRIP * LANES;
            if rest > 0 {
                let at = whole * SAMPLES;
                let (mut floats, mut line) = ([0.0_f32; SAMPLES], [0_u8; SAMPLES]);
                self.x.add(at).copy_to(floats.as_mut_ptr(), rest);
                quantize_strip::<L>(floats.as_ptr(), line.as_mut_ptr(), self.grid);
                line.as_ptr().copy_to(self.y.add(at), rest);
            }
        }
    }
}

/// Four neighbouring lines.
///
/// # Safety
/// `x` is readable for sixty-four floats, `y` writable for as many bytes, and the instruction set of `L` enabled where this is inlined.
#[inline(always)]
unsafe fn quantize_strip<L: Lanes>(x: *const f32, y: *mut u8, grid: Grid) {
    // SAFETY: by the contract of this function.
    unsafe {
        for part in (0..SAMPLES).step_by(4 * L::N) {
            let load = |k: usize| L::Floats::load(x.add(part + k * L::N));
            let values = L::of_lines([load(0), load(1), load(2), load(3)]);
            store_bytes::<L>(y.add(part), values, grid, [0, u8::MAX]);
        }
    }
}

/// Quantises `4 N` numbers in the order of sums, and stores them, clamped to `bounds`.
///
/// # Safety
/// `y` is writable for `4 N` bytes, and the instruction set of `L` enabled where this is inlined.
#[inline(always)]
pub(super) unsafe fn store_bytes<L: Lanes>(
    y: *mut u8,
    values: [<L::Floats as Simd>::V; 4],
    grid: Grid,
    bounds: [u8; 2],
) {
    // SAFETY: by the contract of this function.
    unsafe { L::store_bytes(y, None, scaled_to::<L>(values, grid, true), bounds) }
}

/// Numbers as those of bytes of a grid, not rounded yet; where they may be large or NaN, from 0 to 255.
///
/// # Safety
/// The instruction set of `L` is enabled where this is inlined.
#[inline(always)]
pub(super) unsafe fn scaled_to<L: Lanes>(
    [a, b, c, d]: [<L::Floats as Simd>::V; 4],
    grid: Grid,
    large: bool,
) -> [<L::Floats as Simd>::V; 4] {
    // SAFETY: by the contract of this function.
    unsafe {
        let zero_point = f32::from(grid.zero_point());
        let [inverse, zero, least, most] =
            [grid.scale().recip(), zero_point, 0.0, 255.0].map(|v| L::Floats::splat(v));
        let scaled = |v| L::fused(v, inverse, zero);
        if large {
            let clamped = |v| L::Floats::clamp(scaled(v), least, most);
            return [clamped(a), clamped(b), clamped(c), clamped(d)];
        }
        [scaled(a), scaled(b), scaled(c), scaled(d)]
    }
}

/// Part `part` of four lines of bytes as numbers in the order of sums: those of the bytes over the scale.
///
/// # Safety
/// The lines, which are as for [`Lanes::load_bytes`], are readable, and the instruction set of `L` is enabled where this is inlined.
#[inline(always)]
pub(super) unsafe fn load_bytes<L: Lanes>(
    lines: [*const u8; 4],
    joined: Joined,
    part: usize,
    zero_point: u8,
) -> [<L::Floats as Simd>::V; 4] {
    // SAFETY: by the contract of this function.
    unsafe {
        let numbers = L::load_bytes(lines, joined, part);
        if zero_point == 0 {
            return numbers;
        }
        let [one, zero] = [1.0, -f32::from(zero_point)].map(|v| L::Floats::splat(v));
        let less = |v| L::Floats::fma(one, v, zero);
        let [a, b, c, d] = numbers;
        [less(a), less(b), less(c), less(d)]
    }
}

impl PackedKernel for Quantize {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        format!("{}-quantize", self.dot)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, self.blocks.len())
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}

/// The numbers of maps of bytes, in the same blocks of floats.
#[derive(Debug, Clone)]
pub struct Dequantize {
    dot: Dot,
    blocks: Blocks,
    grid: Grid,
}

impl Dequantize {
    /// From bytes of a grid.
    pub fn new(dot: Dot, blocks: Blocks, grid: Grid) -> Self {
        Self { dot, blocks, grid }
    }

    /// `y`, `n` samples in blocks of floats, from `x` in blocks of bytes.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        length::check("x", x.len(), [n, self.blocks.byte_len()]);
        length::check("y", y.len(), [n, self.blocks.len()]);
        let lines = DequantizeLines {
            x: bytes_of(x).as_ptr(),
            y: y.as_mut_ptr(),
            lines: y.len() / LANES,
            grid: self.grid,
        };
        // SAFETY: both have that many lines, as was just checked.
        unsafe { dot::run(self.dot, lines) };
    }
}

/// The numbers of lines of bytes: `x` is readable for sixteen bytes for each, `y` writable for sixteen floats.
struct DequantizeLines {
    x: *const u8,
    y: *mut f32,
    lines: usize,
    grid: Grid,
}

impl Task for DequantizeLines {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as for `QuantizeLines`.
        unsafe {
            let whole = self.lines / STRIP;
            for strip in 0..whole {
                let at = strip * SAMPLES;
                dequantize_strip::<L>(self.x.add(at), self.y.add(at), self.grid);
            }
            let rest = self.lines % STRIP * LANES;
            if rest > 0 {
                let at = whole * SAMPLES;
                let (mut floats, mut line) = ([0.0_f32; SAMPLES], [0_u8; SAMPLES]);
                self.x.add(at).copy_to(line.as_mut_ptr(), rest);
                dequantize_strip::<L>(line.as_ptr(), floats.as_mut_ptr(), self.grid);
                floats.as_ptr().copy_to(self.y.add(at), rest);
            }
        }
    }
}

/// Four neighbouring lines.
///
/// # Safety
/// `x` is readable for sixty-four bytes, `y` writable for as many floats, and the instruction set of `L` enabled where this is inlined.
#[inline(always)]
unsafe fn dequantize_strip<L: Lanes>(x: *const u8, y: *mut f32, grid: Grid) {
    // SAFETY: by the contract of this function.
    unsafe {
        let [scale, none] = [grid.scale(), 0.0].map(|v| L::Floats::splat(v));
        for part in 0..SAMPLES / (4 * L::N) {
            let numbers = load_bytes::<L>([x; 4], Joined::Four, part, grid.zero_point());
            for (k, v) in L::to_lines(numbers).into_iter().enumerate() {
                let y = y.add((part * 4 + k) * L::N);
                L::Floats::store(y, L::Floats::fma(v, scale, none));
            }
        }
    }
}

impl PackedKernel for Dequantize {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        format!("{}-dequantize", self.dot)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, self.blocks.len())
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}

/// How the output is stored, and what follows from its pixels.
#[derive(Debug, Clone)]
pub(super) enum Writes {
    Floats(Edges),
    Bytes(Grid, ByteEdges),
}

impl Writes {
    /// The grid of the output, if that is in bytes.
    pub fn grid(&self) -> Option<Grid> {
        match self {
            Self::Floats(_) => None,
            Self::Bytes(grid, _) => Some(*grid),
        }
    }
}

/// Bytes that follow from the pixels of a map: those of zero past its end, and halos.
#[derive(Debug, Clone)]
pub(super) struct ByteEdges {
    /// Bytes of a channel.
    channel: usize,
    lines: Vec<EdgeLine>,
}

/// A line that is put together of the bytes of another.
#[derive(Debug, Clone, Copy)]
struct EdgeLine {
    to: usize,
    from: usize,
    /// The place of each byte in the other line; 255 where there is none.
    order: [u8; LANES],
    /// What such bytes are; zero elsewhere.
    fill: [u8; LANES],
}

impl ByteEdges {
    /// Those of maps in `blocks`, whose byte of zero is given.
    pub fn of(blocks: &Blocks, zero_point: u8) -> Self {
        let edges = Edges::of(blocks);
        let lines = edges.lines().map(|(to, sources)| {
            let mut line = EdgeLine {
                to: to * LANES,
                from: to * LANES,
                order: [u8::MAX; LANES],
                fill: [zero_point; LANES],
            };
            for (lane, source) in sources.into_iter().enumerate() {
                if let Some((from, from_lane)) = source {
                    line.from = from * LANES;
                    line.order[byte_of_lane(lane)] = byte_of_lane(from_lane) as u8;
                    line.fill[byte_of_lane(lane)] = 0;
                }
            }
            line
        });
        Self {
            channel: blocks.channel() * LANES,
            lines: lines.collect(),
        }
    }

    /// Updates all channels of `y`.
    ///
    /// # Panics
    /// When a line does not lie in a channel.
    pub fn refresh(&self, dot: Dot, y: &mut [u8]) {
        let ends = self.lines.iter().map(|edge| edge.to.max(edge.from) + LANES);
        let Some(end) = ends.max() else {
            return;
        };
        assert!(end <= self.channel, "lines of a channel");
        // A line is updated in as many channels as fit in the first-level cache, then the next line.
        let at_once = (CACHE / self.channel).max(1);
        for channels in y.chunks_mut(at_once * self.channel) {
            let lines = RefreshLines {
                edges: self,
                channels: channels.len() / self.channel,
                y: channels.as_mut_ptr(),
            };
            // SAFETY: lines lie in a channel, as was just asserted, and there are as many whole channels.
            unsafe { dot::run(dot, lines) };
        }
    }
}

/// `y` is valid for that number of channels, and the lines of the edges lie in a channel.
struct RefreshLines<'a> {
    edges: &'a ByteEdges,
    channels: usize,
    y: *mut u8,
}

impl Task for RefreshLines<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        for edge in &self.edges.lines {
            let [order, fill] = [edge.order, edge.fill];
            for channel in 0..self.channels {
                // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
                unsafe {
                    let y = self.y.add(channel * self.edges.channel);
                    let from = y.add(edge.from).cast::<[u8; LANES]>().read();
                    let line = L::permute(from, order);
                    let filled = std::array::from_fn(|i| line[i] | fill[i]);
                    y.add(edge.to).cast::<[u8; LANES]>().write(filled);
                }
            }
        }
    }
}
