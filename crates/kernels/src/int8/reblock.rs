//! Maps of bytes between blocks.
//!
//! The bytes of a line come from a few lines of the input, each of which is permuted: neighbouring lines of the output, of neighbouring ones, four at a time.

use super::dot::{self, Dot, Task};
use super::grid::Grid;
use super::lanes::{Lanes, SAMPLES};
use super::linear::{bytes, bytes_of};
use super::maps::{STRIP, byte_of_lane};
use crate::blocks::Blocks;
use crate::cost::Costs;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload};
use crate::{LANES, length};

/// Maps of bytes in other blocks, whole or subsampled.
///
/// # Invariants
/// - runs write lines of a channel of the output, and their sources are lines of a channel of the input
#[derive(Debug, Clone)]
pub struct ReblockBytes {
    dot: Dot,
    blocks: [Blocks; 2],
    runs: Vec<Run>,
    /// Lines of the input between those that neighbouring lines of a run read.
    step: usize,
}

/// Neighbouring lines of a channel of the output whose bytes come from neighbouring lines of the input.
#[derive(Debug, Clone)]
struct Run {
    to: usize,
    lines: usize,
    /// What the first line is made of.
    sources: Vec<Source>,
    /// The byte of zero for what is outside of the map, and zero elsewhere.
    fill: [u8; LANES],
}

/// A line of a channel of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    line: usize,
    /// For each byte of the output the byte of the line; 255 where it is from another line.
    order: [u8; LANES],
}

impl ReblockBytes {
    /// From the blocks of a map to those of one pixel in `strides` rows and columns of it.
    ///
    /// # Panics
    /// When the second map is not that.
    #[track_caller]
    pub fn new(dot: Dot, [from, to]: [Blocks; 2], strides: [usize; 2], grid: Grid) -> Self {
        let ([c, h, w], [channels, height, width]) = (from.map(), to.map());
        let sampled = [h.div_ceil(strides[0]), w.div_ceil(strides[1])];
        assert_eq!(
            [channels, height, width],
            [c, sampled[0], sampled[1]],
            "a subsampled map"
        );
        let mut runs: Vec<Run> = Vec::new();
        for to_line in 0..to.channel() {
            let (row, column) = (to_line / to.pitch().max(1), to_line % to.pitch().max(1));
            let mut sources: Vec<Source> = Vec::new();
            let mut fill = [grid.zero_point(); LANES];
            for lane in 0..LANES {
                let [y, x] = to.pixel(lane, row, column);
                // Behind the last row there may be a gap.
                if row >= to.height() || y >= height || x >= width {
                    continue;
                }
                let (line, from_lane) = from.place(y * strides[0], x * strides[1]);
                let known = sources.iter().position(|source| source.line == line);
                let source = known.unwrap_or_else(|| {
                    let order = [u8::MAX; LANES];
                    sources.push(Source { line, order });
                    sources.len() - 1
                });
                sources[source].order[byte_of_lane(lane)] = byte_of_lane(from_lane) as u8;
                fill[byte_of_lane(lane)] = 0;
            }
            match runs.last_mut() {
                Some(run) if run.goes_on(&sources, fill, strides[1]) => run.lines += 1,
                _ => runs.push(Run {
                    to: to_line,
                    lines: 1,
                    sources,
                    fill,
                }),
            }
        }
        Self {
            dot,
            blocks: [from, to],
            runs,
            step: strides[1],
        }
    }

    /// Converts `n` samples.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], n: usize, y: &mut [f32]) {
        let [from, to] = &self.blocks;
        length::check("x", x.len(), [n, from.byte_len()]);
        length::check("y", y.len(), [n, to.byte_len()]);
        let task = Channels {
            reblock: self,
            x: bytes_of(x).as_ptr(),
            y: bytes(y).as_mut_ptr(),
            channels: n * from.map()[0],
        };
        // SAFETY: both have that many channels, as was just checked.
        unsafe { dot::run(self.dot, task) };
    }
}

impl Run {
    /// Whether a line, right behind those of the run, is made of lines `step` behind those of the last one.
    fn goes_on(&self, sources: &[Source], fill: [u8; LANES], step: usize) -> bool {
        let moved = |(own, next): (&Source, &Source)| {
            next.order == own.order && next.line == own.line + self.lines * step
        };
        self.fill == fill
            && self.sources.len() == sources.len()
            && self.sources.iter().zip(sources).all(moved)
    }
}

/// Some channels: `x` is readable for those of the input, `y` writable for those of the output.
struct Channels<'a> {
    reblock: &'a ReblockBytes,
    x: *const u8,
    y: *mut u8,
    channels: usize,
}

impl Task for Channels<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let [from, to] = self.reblock.blocks.map(|b| b.channel() * LANES);
        let step = self.reblock.step;
        for channel in 0..self.channels {
            // SAFETY: lines of the channel, by the invariants; the instruction set is enabled (contract of the trait).
            unsafe {
                let (x, y) = (self.x.add(channel * from), self.y.add(channel * to));
                for run in &self.reblock.runs {
                    let y = y.add(run.to * LANES);
                    let x = |line: usize| x.add(line * step * LANES);
                    if step == 1 && run.lines >= STRIP {
                        // Of the last four some may be there already.
                        for first in (0..run.lines).step_by(STRIP) {
                            let first = first.min(run.lines - STRIP);
                            let lines = four_lines::<L>(run, x(first));
                            y.add(first * LANES).cast::<[u8; SAMPLES]>().write(lines);
                        }
                    } else {
                        for i in 0..run.lines {
                            let line = one_line::<L>(run, x(i));
                            y.add(i * LANES).cast::<[u8; LANES]>().write(line);
                        }
                    }
                }
            }
        }
    }
}

fn in_a_row(lines: [[u8; LANES]; STRIP]) -> [u8; SAMPLES] {
    // SAFETY: as many bytes, and any are.
    unsafe { std::mem::transmute(lines) }
}

/// A line of a run, whose sources are as far behind their lines as `x` is behind the channel.
///
/// # Safety
/// They are readable, and the instruction set of `L` is enabled where this is inlined.
#[inline(always)]
unsafe fn one_line<L: Lanes>(run: &Run, x: *const u8) -> [u8; LANES] {
    let mut line = run.fill;
    for source in &run.sources {
        // SAFETY: by the contract of this function.
        let permuted = unsafe {
            let from = x.add(source.line * LANES).cast::<[u8; LANES]>().read();
            L::permute(from, source.order)
        };
        line = std::array::from_fn(|i| line[i] | permuted[i]);
    }
    line
}

/// Four neighbouring lines, as [`one_line`].
///
/// # Safety
/// As [`one_line`].
#[inline(always)]
unsafe fn four_lines<L: Lanes>(run: &Run, x: *const u8) -> [u8; SAMPLES] {
    let mut lines = in_a_row([run.fill; STRIP]);
    for source in &run.sources {
        // SAFETY: by the contract of this function.
        let permuted = unsafe {
            let from = x.add(source.line * LANES).cast::<[u8; SAMPLES]>().read();
            L::permute_four(from, source.order)
        };
        lines = std::array::from_fn(|i| lines[i] | permuted[i]);
    }
    lines
}

impl PackedKernel for ReblockBytes {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.n, operands.y);
    }

    fn name(&self) -> String {
        format!("{}-reblock-i8", self.dot)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, self.blocks[1].len())
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}
