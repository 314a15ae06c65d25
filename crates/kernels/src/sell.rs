//! The sparse format and inner loop of batched linear layers and convolutions.
//!
//! **Format, "SELL-4 sorted"** (after Kreutzer et al., "A unified sparse matrix data format", 2014): rows are sorted by their number of
//! non-zeros and put into groups of four. A step of a group holds one weight per row, and the offset of the input line that it multiplies. Loads
//! are the bottleneck of these loops, so the four weights are read with one load and broadcast in registers, and the four offsets with another. The
//! input line of sixteen floats is the memory operand of the multiply-add.
//!
//! **Padding.** Where a row has fewer non-zeros than the longest of its group, it ends with weights of zero for an input that it reads anyway. So
//! the sum of a row has the same bits in any group, and threads may share the rows; but where that input is infinite, the output is NaN. A last
//! group of fewer than four rows repeats rows. Empty rows have groups of their own.
//!
//! **Column blocks.** Columns are cut into blocks whose input lines stay in the first-level cache. Each block adds to the sums that the previous ones
//! stored.
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use crate::clamp::Bounds;
use crate::precision::{Bf16, F16, Precision, Value, quantize};
use crate::simd::{Simd, simd_dispatch};

/// A non-zero: its column block, where its input line begins in that block, in floats, and its weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub block: usize,
    pub offset: usize,
    pub weight: f32,
}

/// A packed sparse matrix.
///
/// # Invariants
/// - `weights` (or `narrow`) and `offsets` have one element per step of each group of each block, in their order
/// - rows of groups are numbers of packed rows times the pitch
/// - an offset plus its block's base is that of an entry that was packed
#[derive(Debug, Clone)]
pub(crate) struct Sell {
    pub(crate) blocks: Vec<ColumnBlock>,
    pub(crate) groups: Vec<Group>,
    pub(crate) weights: Vec<Quad>,
    pub(crate) offsets: Offsets,
    /// Lines processed at once: 1, 2 or 4.
    wide: usize,
    /// Weights in another precision than f32; `weights` is then empty, and offsets are [`Offsets::Short8`].
    pub(crate) narrow: Option<Narrow>,
    /// The scale of integer weights.
    pub(crate) scale: f32,
}

/// Weights of fewer bytes than f32, four per step.
#[derive(Debug, Clone)]
pub(crate) enum Narrow {
    Bf16(Vec<[Bf16; 4]>),
    F16(Vec<[F16; 4]>),
    I8(Vec<[i8; 4]>),
}

/// Four weights, aligned for one load.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Quad([f32; 4]);

#[derive(Debug, Clone)]
pub(crate) struct ColumnBlock {
    /// Floats before the block's first input line.
    pub(crate) base: usize,
    pub(crate) groups: usize,
    pub(crate) first: bool,
    pub(crate) last: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) bias: [f32; 4],
    /// Where the rows begin in the output, in floats.
    pub(crate) rows: [u32; 4],
    pub(crate) steps: u32,
}

#[derive(Debug, Clone)]
pub(crate) enum Offsets {
    /// Four u16 in units of eight bytes, which x86 addresses can scale by.
    Short8(Vec<u64>),
    /// Four u16 in units of a line.
    Short64(Vec<u64>),
    /// Four u32 in units of one float.
    Long4(Vec<[u32; 4]>),
}

impl Offsets {
    /// The offsets of a step in bytes.
    fn bytes(&self, step: usize) -> [usize; 4] {
        // SAFETY: a reference is readable; indexing checks that the step exists.
        unsafe {
            match self {
                Self::Short8(o) => Offset::bytes::<8>(&o[step]),
                Self::Short64(o) => Offset::bytes::<64>(&o[step]),
                Self::Long4(o) => Offset::bytes::<4>(&o[step]),
            }
        }
    }
}

/// How many lines a product has and how far apart they are, in floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineStrides {
    /// Number of lines in a strip.
    pub lines: usize,
    /// From an input line to the next.
    pub x_line: usize,
    /// From an output line to the next.
    pub y_line: usize,
    /// Number of strips.
    pub strips: usize,
    /// From the input of a strip to that of the next.
    pub x_strip: usize,
    /// From the output of a strip to that of the next.
    pub y_strip: usize,
    /// Whether only the first eight floats of the last line of each strip are needed.
    pub narrow: bool,
}

impl Sell {
    /// Packs rows with their biases. `bases` are where the column blocks begin in the input, `pitch` is the distance of rows of the output, both
    /// in floats; `wide` is the number of lines to process at once.
    ///
    /// # Panics
    /// When an offset is odd or at least 2^17 floats, unless the precision is f32.
    pub fn pack(
        rows: &[Vec<Entry>],
        bias: &[f32],
        bases: &[usize],
        pitch: usize,
        wide: usize,
        precision: Precision,
    ) -> Self {
        assert_eq!(rows.len(), bias.len(), "elements of the bias");
        let mut packed = Self {
            blocks: Vec::new(),
            groups: Vec::new(),
            weights: Vec::new(),
            offsets: Offsets::Short8(Vec::new()),
            wide,
            narrow: None,
            scale: 1.0,
        };
        let mut steps: Vec<[usize; 4]> = Vec::new();
        for (block, &base) in bases.iter().enumerate() {
            let (first, last) = (block == 0, block + 1 == bases.len());
            let mut parts: Vec<(usize, Vec<Entry>)> = rows
                .iter()
                .map(|row| row.iter().filter(|e| e.block == block).copied().collect())
                .enumerate()
                .filter(|(_, row): &(usize, Vec<Entry>)| first || last || !row.is_empty())
                .collect();
            parts.sort_by_key(|(_, row)| std::cmp::Reverse(row.len()));
            let before = packed.groups.len();
            let full = parts.partition_point(|(_, row)| !row.is_empty());
            for group in parts[..full].chunks(4).chain(parts[full..].chunks(4)) {
                packed.push_group(group, bias, pitch, &mut steps);
            }
            packed.blocks.push(ColumnBlock {
                base,
                groups: packed.groups.len() - before,
                first,
                last,
            });
        }
        let largest = steps.iter().flatten().max().copied().unwrap_or(0);
        let fits = |unit: usize| {
            steps.iter().flatten().all(|o| o.is_multiple_of(unit))
                && largest / unit <= usize::from(u16::MAX)
        };
        let short = |unit: usize| {
            let pack = |s: &[usize; 4]| {
                s.iter()
                    .rev()
                    .fold(0, |packed, o| packed << 16 | (o / unit) as u64)
            };
            steps.iter().map(pack).collect()
        };
        packed.offsets = if fits(2) {
            Offsets::Short8(short(2))
        } else if fits(16) {
            Offsets::Short64(short(16))
        } else {
            let long = |o: usize| u32::try_from(o).expect("an input of less than 16 GiB");
            Offsets::Long4(steps.iter().map(|s| s.map(long)).collect())
        };
        packed.narrow_weights(precision);
        packed
    }

    fn narrow_weights(&mut self, precision: Precision) {
        let quads = self.weights.iter().map(|q| q.0);
        self.narrow = Some(match precision {
            Precision::F32 => return,
            Precision::Bf16 => Narrow::Bf16(quads.map(|q| q.map(Bf16::of)).collect()),
            Precision::F16 => Narrow::F16(quads.map(|q| q.map(F16::of)).collect()),
            Precision::I8 { scale } => {
                self.scale = scale;
                Narrow::I8(quads.map(|q| q.map(|v| quantize(v, scale))).collect())
            }
        });
        assert!(
            matches!(self.offsets, Offsets::Short8(_)),
            "narrow weights have short offsets"
        );
        self.weights = Vec::new();
    }

    fn push_group(
        &mut self,
        group: &[(usize, Vec<Entry>)],
        bias: &[f32],
        pitch: usize,
        steps: &mut Vec<[usize; 4]>,
    ) {
        let longest = group[0].1.len();
        for step in 0..longest {
            let entry: [Entry; 4] = std::array::from_fn(|lane| {
                let entries = &group[lane % group.len()].1;
                let padding = || Entry {
                    weight: 0.0,
                    ..entries[0]
                };
                entries.get(step).copied().unwrap_or_else(padding)
            });
            self.weights.push(Quad(entry.map(|e| e.weight)));
            steps.push(entry.map(|e| e.offset));
        }
        let rows: [usize; 4] = std::array::from_fn(|lane| group[lane % group.len()].0);
        self.groups.push(Group {
            bias: rows.map(|row| bias[row]),
            rows: rows
                .map(|row| u32::try_from(row * pitch).expect("an output of less than 16 GiB")),
            steps: u32::try_from(longest).expect("columns fit in 32 bits"),
        });
    }

    /// Some of the groups of a matrix of one block and a pitch of one float, and the numbers of their rows in the order in which they are written.
    ///
    /// # Panics
    /// When there are several blocks.
    pub fn part(&self, range: Range<usize>) -> (Self, Vec<u32>) {
        let [block] = &self.blocks[..] else {
            panic!("one block, got {}", self.blocks.len());
        };
        let steps = |groups: &[Group]| groups.iter().map(|g| g.steps as usize).sum::<usize>();
        let first = steps(&self.groups[..range.start]);
        let steps = first..first + steps(&self.groups[range.clone()]);
        let mut order: Vec<u32> = Vec::new();
        let renumbered = self.groups[range.clone()].iter().map(|group| {
            let before = order.len();
            for row in group.rows {
                // The last group of a length may repeat rows.
                if !order[before..].contains(&row) {
                    order.push(row);
                }
            }
            let place = |row| order[before..].iter().position(|&r| r == row);
            Group {
                rows: (group.rows).map(|row| (before + place(row).unwrap_or(0)) as u32),
                ..group.clone()
            }
        });
        let groups = renumbered.collect();
        let part = Self {
            blocks: vec![ColumnBlock {
                groups: range.len(),
                ..block.clone()
            }],
            groups,
            weights: match self.narrow {
                None => self.weights[steps.clone()].to_vec(),
                Some(_) => Vec::new(),
            },
            offsets: match &self.offsets {
                Offsets::Short8(o) => Offsets::Short8(o[steps.clone()].to_vec()),
                Offsets::Short64(o) => Offsets::Short64(o[steps.clone()].to_vec()),
                Offsets::Long4(o) => Offsets::Long4(o[steps.clone()].to_vec()),
            },
            wide: self.wide,
            narrow: self.narrow.as_ref().map(|narrow| match narrow {
                Narrow::Bf16(w) => Narrow::Bf16(w[steps.clone()].to_vec()),
                Narrow::F16(w) => Narrow::F16(w[steps.clone()].to_vec()),
                Narrow::I8(w) => Narrow::I8(w[steps.clone()].to_vec()),
            }),
            scale: self.scale,
        };
        (part, order)
    }

    /// Changes the pitch of rows of the output from `old` to `new`.
    pub fn move_rows(&mut self, old: usize, new: usize) {
        for row in self.groups.iter_mut().flat_map(|g| &mut g.rows) {
            let moved = *row as usize / old * new;
            *row = u32::try_from(moved).expect("an output of less than 16 GiB");
        }
    }

    /// Where the input lines that are read begin, in floats, with repetitions.
    pub fn read(&self) -> Vec<usize> {
        let mut places = Vec::new();
        let (mut groups, mut step) = (self.groups.iter(), 0);
        for block in &self.blocks {
            let groups = groups.by_ref().take(block.groups);
            for _ in 0..groups.map(|g| g.steps).sum() {
                let bytes = self.offsets.bytes(step);
                places.extend(bytes.map(|b| block.base + b / size_of::<f32>()));
                step += 1;
            }
        }
        places
    }

    /// Bytes of weights, offsets, row numbers and biases.
    pub fn bytes(&self) -> usize {
        let offsets = match &self.offsets {
            Offsets::Short8(o) | Offsets::Short64(o) => size_of_val(&o[..]),
            Offsets::Long4(o) => size_of_val(&o[..]),
        };
        let narrow = match &self.narrow {
            None => 0,
            Some(Narrow::Bf16(w)) => size_of_val(&w[..]),
            Some(Narrow::F16(w)) => size_of_val(&w[..]),
            Some(Narrow::I8(w)) => size_of_val(&w[..]),
        };
        size_of_val(&self.weights[..]) + narrow + offsets + size_of_val(&self.groups[..])
    }
}

/// The four weights of a step, as they are stored.
///
/// # Safety
/// Implementations of both functions may only read `*p`. Callers run them where the instruction set of `S` is enabled, with a readable `p`.
pub(crate) unsafe trait Weight: Copy {
    /// The four weights; integers are multiplied by `scale`.
    unsafe fn four<S: Simd>(p: *const Self, scale: f32) -> [f32; 4];
    /// The same, ready to be broadcast.
    #[inline(always)]
    unsafe fn quad<S: Simd>(p: *const Self, scale: f32) -> S::Quad {
        // SAFETY: `p` is readable and the instruction set enabled, by the contract of the trait.
        unsafe { S::quad_of(Self::four::<S>(p, scale)) }
    }
}

// SAFETY: only `*p` is read.
unsafe impl Weight for Quad {
    #[inline(always)]
    unsafe fn four<S: Simd>(p: *const Self, _scale: f32) -> [f32; 4] {
        // SAFETY: `p` is readable, by the contract of the trait.
        unsafe { p.read().0 }
    }
    #[inline(always)]
    unsafe fn quad<S: Simd>(p: *const Self, _scale: f32) -> S::Quad {
        // SAFETY: a `Quad` is four floats, and `p` is readable, by the contract of the trait.
        unsafe { S::quad(p.cast()) }
    }
}

// SAFETY: only `*p` is read.
unsafe impl Weight for [Bf16; 4] {
    #[inline(always)]
    unsafe fn four<S: Simd>(p: *const Self, scale: f32) -> [f32; 4] {
        // SAFETY: `p` is readable, by the contract of the trait.
        let [a, b, c, d] = unsafe { p.read() };
        [a.get(scale), b.get(scale), c.get(scale), d.get(scale)]
    }
}

// SAFETY: only `*p` is read.
unsafe impl Weight for [F16; 4] {
    #[inline(always)]
    unsafe fn four<S: Simd>(p: *const Self, _scale: f32) -> [f32; 4] {
        // SAFETY: `F16` is a transparent `u16`, and `p` is readable, by the contract of the trait.
        unsafe { S::f16x4(p.cast()) }
    }
}

// SAFETY: only `*p` is read.
unsafe impl Weight for [i8; 4] {
    #[inline(always)]
    unsafe fn four<S: Simd>(p: *const Self, scale: f32) -> [f32; 4] {
        // SAFETY: `p` is readable, by the contract of the trait.
        let [a, b, c, d] = unsafe { p.read() };
        [a.get(scale), b.get(scale), c.get(scale), d.get(scale)]
    }
}

simd_dispatch! {
    /// `y = clamp(W x + b)`, line by line.
    ///
    /// # Safety
    /// For every strip, line and entry of the matrix, `x` is readable for the sixteen floats at `strip * x_strip + line * x_line + base + offset`. For
    /// every strip, line and row, `y` is readable and writable for those at `strip * y_strip + line * y_line + row * pitch`.
    pub(crate) unsafe fn run(sell: &Sell, x: *const f32, y: *mut f32, strides: LineStrides, bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(
    sell: &Sell,
    x: *const f32,
    y: *mut f32,
    strides: LineStrides,
    bounds: Bounds,
) {
    // SAFETY: pointers by the contract of `run`; weights and offsets are those of `sell`, in the unit of their variant.
    unsafe {
        let w = sell.weights.as_ptr();
        match (&sell.narrow, &sell.offsets) {
            (None, Offsets::Short8(o)) => {
                strips::<S, u64, Quad, 8>(sell, (w, o.as_ptr()), x, y, strides, bounds);
            }
            (None, Offsets::Short64(o)) => {
                strips::<S, u64, Quad, 64>(sell, (w, o.as_ptr()), x, y, strides, bounds);
            }
            (None, Offsets::Long4(o)) => {
                strips::<S, [u32; 4], Quad, 4>(sell, (w, o.as_ptr()), x, y, strides, bounds);
            }
            (Some(Narrow::Bf16(w)), Offsets::Short8(o)) => {
                strips::<S, u64, [Bf16; 4], 8>(
                    sell,
                    (w.as_ptr(), o.as_ptr()),
                    x,
                    y,
                    strides,
                    bounds,
                );
            }
            (Some(Narrow::F16(w)), Offsets::Short8(o)) => {
                strips::<S, u64, [F16; 4], 8>(
                    sell,
                    (w.as_ptr(), o.as_ptr()),
                    x,
                    y,
                    strides,
                    bounds,
                );
            }
            (Some(Narrow::I8(w)), Offsets::Short8(o)) => {
                strips::<S, u64, [i8; 4], 8>(sell, (w.as_ptr(), o.as_ptr()), x, y, strides, bounds);
            }
            (Some(_), _) => unreachable!("`narrow_weights` asks for short offsets"),
        }
    }
}

#[inline(always)]
unsafe fn strips<S: Simd, O: Offset, W: Weight, const UNIT: usize>(
    sell: &Sell,
    (weights, offsets): (*const W, *const O),
    x: *const f32,
    y: *mut f32,
    strides: LineStrides,
    bounds: Bounds,
) {
    for strip in 0..strides.strips {
        let mut line = 0;
        // SAFETY: `at` stays inside the strips and lines of the contract of `run`.
        unsafe {
            let (x, y) = (
                x.add(strip * strides.x_strip),
                y.add(strip * strides.y_strip),
            );
            let at = |line: usize| (x.add(line * strides.x_line), y.add(line * strides.y_line));
            let stored = (weights, offsets);
            // Of the last line of a strip perhaps only half is needed.
            let full = strides.lines - usize::from(strides.narrow);
            if S::N == 16 {
                while sell.wide >= 4 && line + 4 <= full {
                    let (x, y) = at(line);
                    lines::<S, O, W, UNIT, 4>(sell, stored, x, y, strides, bounds);
                    line += 4;
                }
                while sell.wide >= 2 && line + 2 <= full {
                    let (x, y) = at(line);
                    lines::<S, O, W, UNIT, 2>(sell, stored, x, y, strides, bounds);
                    line += 2;
                }
            }
            while line < full {
                let (x, y) = at(line);
                match S::N {
                    16 => lines::<S, O, W, UNIT, 1>(sell, stored, x, y, strides, bounds),
                    8 => lines::<S, O, W, UNIT, 2>(sell, stored, x, y, strides, bounds),
                    _ => lines::<S, O, W, UNIT, 4>(sell, stored, x, y, strides, bounds),
                }
                line += 1;
            }
            if strides.narrow {
                let (x, y) = at(line);
                match S::Half::N {
                    16 => lines::<S::Half, O, W, UNIT, 1>(sell, stored, x, y, strides, bounds),
                    8 => lines::<S::Half, O, W, UNIT, 1>(sell, stored, x, y, strides, bounds),
                    _ => lines::<S::Half, O, W, UNIT, 2>(sell, stored, x, y, strides, bounds),
                }
            }
        }
    }
}

/// `T` vectors of output for each row, over all column blocks.
#[inline(always)]
unsafe fn lines<S: Simd, O: Offset, W: Weight, const UNIT: usize, const T: usize>(
    sell: &Sell,
    (mut weights, mut offsets): (*const W, *const O),
    x: *const f32,
    y: *mut f32,
    strides: LineStrides,
    bounds: Bounds,
) {
    let per_line = 16 / S::N;
    let mut groups = sell.groups.as_ptr();
    let scale = sell.scale;
    // SAFETY: `x` and `y` by the contract of `run`; weights, offsets and groups by the invariants of `Sell`.
    unsafe {
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let bounded = bounds.min > f32::NEG_INFINITY || bounds.max < f32::INFINITY;
        for block in &sell.blocks {
            let (mut xs, mut place) = ([x.cast::<u8>(); T], [0; T]);
            for t in 0..T {
                let (line, part) = (t / per_line, t % per_line * S::N);
                xs[t] = x.add(block.base + line * strides.x_line + part).cast();
                place[t] = line * strides.y_line + part;
            }
            let end = groups.add(block.groups);
            let (first, clamped) = (block.first, block.last && bounded);
            while groups < end {
                let group = &*groups;
                groups = groups.add(1);
                // Plain loops: a closure given to `map` or `from_fn` may not be inlined, and then lacks the instruction set.
                let mut acc = [[low; T]; 4];
                if first {
                    let bias = quad_lanes::<S>(S::quad(group.bias.as_ptr()));
                    for r in 0..4 {
                        acc[r] = [bias[r]; T];
                    }
                } else {
                    let rows = group.places();
                    for r in 0..4 {
                        for t in 0..T {
                            acc[r][t] = S::load(y.add(rows[r] + place[t]));
                        }
                    }
                }
                let last = offsets.add(group.steps as usize);
                while offsets < last {
                    let quad = W::quad::<S>(weights, scale);
                    let at = O::bytes::<UNIT>(offsets);
                    weights = weights.add(1);
                    offsets = offsets.add(1);
                    let quad = quad_lanes::<S>(quad);
                    for r in 0..4 {
                        for t in 0..T {
                            acc[r][t] =
                                S::fma(quad[r], S::load(xs[t].add(at[r]).cast()), acc[r][t]);
                        }
                    }
                }
                let rows = group.places();
                for r in 0..4 {
                    for t in 0..T {
                        let v = acc[r][t];
                        S::store(
                            y.add(rows[r] + place[t]),
                            if clamped { S::clamp(v, low, high) } else { v },
                        );
                    }
                }
            }
        }
    }
}

/// Four floats, each in all lanes.
#[inline(always)]
unsafe fn quad_lanes<S: Simd>(quad: S::Quad) -> [S::V; 4] {
    // SAFETY: no memory is accessed; the instruction set is enabled where this is inlined (the contract of `Simd`).
    unsafe {
        [
            S::lane::<0>(quad),
            S::lane::<1>(quad),
            S::lane::<2>(quad),
            S::lane::<3>(quad),
        ]
    }
}

impl Group {
    /// The places of the rows, read two at a time, because loads are the bottleneck.
    #[inline(always)]
    fn places(&self) -> [usize; 4] {
        let [a, b, c, d] = self.rows;
        if cfg!(target_endian = "big") {
            return [a as usize, b as usize, c as usize, d as usize];
        }
        let pairs = self.rows.as_ptr().cast::<[u64; 2]>();
        // SAFETY: the four `u32` of `rows` are two `u64`, read without alignment.
        let [ab, cd] = unsafe { pairs.read_unaligned() };
        [
            ab as u32 as usize,
            (ab >> 32) as usize,
            cd as u32 as usize,
            (cd >> 32) as usize,
        ]
    }
}

/// Four packed offsets.
///
/// # Safety
/// Implementations of [`Offset::bytes`] may only read `*p`, which callers must make sure is readable.
pub(crate) unsafe trait Offset: Copy {
    /// The four offsets in bytes; they are stored in units of `UNIT` bytes.
    unsafe fn bytes<const UNIT: usize>(p: *const Self) -> [usize; 4];
}

// SAFETY: only `*p` is read.
unsafe impl Offset for u64 {
    #[inline(always)]
    unsafe fn bytes<const UNIT: usize>(p: *const Self) -> [usize; 4] {
        // SAFETY: `p` is readable, by the contract of the trait.
        let q = unsafe { p.read() } as usize;
        [
            (q & 0xffff) * UNIT,
            (q >> 16 & 0xffff) * UNIT,
            (q >> 32 & 0xffff) * UNIT,
            (q >> 48) * UNIT,
        ]
    }
}

// SAFETY: only `*p` is read.
unsafe impl Offset for [u32; 4] {
    #[inline(always)]
    unsafe fn bytes<const UNIT: usize>(p: *const Self) -> [usize; 4] {
        // SAFETY: `p` is readable, by the contract of the trait.
        let [a, b, c, d] = unsafe { p.read() };
        [
            a as usize * UNIT,
            b as usize * UNIT,
            c as usize * UNIT,
            d as usize * UNIT,
        ]
    }
}
