//! What follows from the pixels of a map in [`Blocks`], and is written after them: zeros past the end of the map, and halos.

use std::ops::Range;

use crate::blocks::Blocks;
use crate::isa::multiversion;
use crate::{Isa, LANES};

/// Lines of a channel that follow from its pixels: zeros past the end of the map, and halos.
#[derive(Debug, Clone)]
pub(crate) struct Edges {
    channel: usize,
    /// Lines in which some lanes lie past the end of the map and become zero, in order.
    ends: Vec<LineCopy>,
    /// Lines of the halo, copied from lines of pixels, in order.
    halos: Vec<LineCopy>,
}

/// `to..to + 16` becomes `from..from + 16` where the mask is set, else zero.
#[derive(Debug, Clone, Copy)]
struct LineCopy {
    to: usize,
    from: usize,
    mask: [u32; LANES],
}

impl Edges {
    /// Those of maps in `blocks`.
    pub fn of(blocks: &Blocks) -> Self {
        let [bh, bw] = blocks.block().map(|n| n.cast_signed());
        let halo = blocks.halo().map(|n| n.cast_signed());
        let grid = blocks.grid();
        let mut edges = Self {
            channel: blocks.channel() * LANES,
            ends: Vec::new(),
            halos: Vec::new(),
        };
        for row in -halo[0]..bh + halo[2] {
            for column in -halo[1]..bw + halo[3] {
                let (up, left) = (row.div_euclid(bh.max(1)), column.div_euclid(bw.max(1)));
                // Samples have no neighbours.
                let alone = blocks.is_tile() && (up, left) != (0, 0);
                let shift = up * grid[1].cast_signed() + left;
                let inside = blocks.inside(row, column);
                let origin = blocks.inside(0, 0);
                let any = |lane: usize| !origin[lane] && !blocks.zeros_outside();
                let keeps = |lane: usize| {
                    let from = (lane / grid[1]).wrapping_add_signed(up);
                    let from_column = (lane % grid[1]).wrapping_add_signed(left);
                    let there = from < grid[0] && from_column < grid[1];
                    inside[lane] && !alone && (there || blocks.is_tile())
                };
                if shift == 0 && up == 0 && (0..LANES).all(|l| keeps(l) || any(l)) {
                    continue;
                }
                let mask: [u32; LANES] =
                    std::array::from_fn(|l| if keeps(l) { u32::MAX } else { 0 });
                let to = blocks.line(row, column) * LANES;
                let from = blocks.line(row - up * bh, column - left * bw) * LANES;
                let from = from.wrapping_add_signed(shift);
                let from = if mask == [0; LANES] { to } else { from };
                let own = (0..bh).contains(&row) && (0..bw).contains(&column);
                let moves = if own {
                    &mut edges.ends
                } else {
                    &mut edges.halos
                };
                moves.push(LineCopy { to, from, mask });
            }
        }
        edges
    }

    /// For each of these lines of a channel, in the order in which they are written: from which line and lane each of its lanes comes, or that it is zero.
    pub fn lines(&self) -> impl Iterator<Item = (usize, [Option<(usize, usize)>; LANES])> {
        self.ends.iter().chain(&self.halos).map(|line| {
            let from = |lane: usize| {
                let at = line.from + lane;
                (line.mask[lane] != 0).then_some((at / LANES, at % LANES))
            };
            (line.to / LANES, std::array::from_fn(from))
        })
    }

    /// Updates all channels of `y`, of any number of samples.
    pub fn refresh(&self, isa: Isa, y: &mut [f32]) {
        // SAFETY: `y` is borrowed mutably, so no other thread accesses it.
        let lines = unsafe { SharedMap::new(y.as_mut_ptr(), y.len()) };
        refresh(isa, self.channel, &self.ends, lines);
        refresh(isa, self.channel, &self.halos, lines);
    }

    /// Number of halo lines of a channel.
    pub fn halo_lines(&self) -> usize {
        self.halos.len()
    }

    /// Writes the zeros past the end of the map, in lines that begin in `floats` of each channel.
    ///
    /// # Safety
    /// `y` is valid for `len` floats, and no other thread accesses the lines that begin in `floats` of any channel during the call.
    pub unsafe fn zero_past_end(&self, isa: Isa, y: *mut f32, len: usize, floats: Range<usize>) {
        let first = self.ends.partition_point(|m| m.to < floats.start);
        let end = self.ends.partition_point(|m| m.to < floats.end);
        // SAFETY: each of these lines is read and written in place, and no other thread accesses it (the contract of this function).
        let lines = unsafe { SharedMap::new(y, len) };
        refresh(isa, self.channel, &self.ends[first..end], lines);
    }

    /// Copies the halo lines with numbers `moves`, of all channels.
    ///
    /// # Safety
    /// `y` is valid for `len` floats. During the call no other thread accesses these halo lines, and none writes pixels.
    pub unsafe fn copy_halos(&self, isa: Isa, y: *mut f32, len: usize, moves: Range<usize>) {
        // SAFETY: only these halo lines are written, and only pixels are read, which no thread writes (the contract of this function).
        let lines = unsafe { SharedMap::new(y, len) };
        refresh_shared(isa, self.channel, &self.halos[moves], lines);
    }
}

/// A map that several threads write, each its own lines.
#[derive(Clone, Copy)]
pub(crate) struct SharedMap {
    y: *mut f32,
    len: usize,
}

impl SharedMap {
    /// # Safety
    /// `y` is valid for `len` floats for as long as the value is used. Meanwhile no other thread accesses lines that are written through it, and none
    /// writes lanes that are read through it.
    pub unsafe fn new(y: *mut f32, len: usize) -> Self {
        Self { y, len }
    }

    #[inline(always)]
    fn check(self, at: usize) {
        let last = self.len.checked_sub(LANES);
        assert!(last.is_some_and(|last| at <= last), "a line of a channel");
    }

    /// The sixteen floats from `at` on.
    #[inline(always)]
    fn load(self, at: usize) -> [f32; LANES] {
        self.check(at);
        // SAFETY: the line was just checked to lie in `y`, which is valid and not written by another thread (the contract of `new`).
        unsafe { self.y.add(at).cast::<[f32; LANES]>().read_unaligned() }
    }

    /// As [`SharedMap::load`], but floats whose mask is not set are zero and not read.
    #[inline(always)]
    fn load_some(self, at: usize, mask: [u32; LANES]) -> [f32; LANES] {
        self.check(at);
        let mut line = [0.0; LANES];
        for lane in 0..LANES {
            if mask[lane] != 0 {
                // SAFETY: as in `load`, for this lane alone.
                line[lane] = unsafe { *self.y.add(at + lane) };
            }
        }
        line
    }

    #[inline(always)]
    pub fn store(self, at: usize, line: [f32; LANES]) {
        self.check(at);
        // SAFETY: the line was just checked to lie in `y`, which is valid, and no other thread accesses it (the contract of `new`).
        unsafe { self.y.add(at).cast::<[f32; LANES]>().write_unaligned(line) };
    }
}

multiversion!(fn refresh(channel: usize, moves: &[LineCopy], y: SharedMap) = refresh_body;);
multiversion!(fn refresh_shared(channel: usize, moves: &[LineCopy], y: SharedMap) = refresh_shared_body;);

#[inline(always)]
fn refresh_body(channel: usize, moves: &[LineCopy], y: SharedMap) {
    if moves.is_empty() {
        return;
    }
    for first in (0..y.len).step_by(channel.max(1)) {
        for edge in moves {
            let mut line = y.load(first + edge.from);
            for (v, mask) in line.iter_mut().zip(edge.mask) {
                *v = f32::from_bits(v.to_bits() & mask);
            }
            y.store(first + edge.to, line);
        }
    }
}

/// As [`refresh_body`], while other threads copy other halo lines. A copy between lanes begins inside the line before its source, or ends inside
/// the next, either of which another thread may be writing; so only lanes that are needed are read.
#[inline(always)]
fn refresh_shared_body(channel: usize, moves: &[LineCopy], y: SharedMap) {
    if moves.is_empty() {
        return;
    }
    for first in (0..y.len).step_by(channel.max(1)) {
        for edge in moves {
            y.store(first + edge.to, y.load_some(first + edge.from, edge.mask));
        }
    }
}
