//! Maps as vectors of samples, which passes over the weights that are left read and write.

use std::ops::Range;

use sparsevd_kernels::training::{Grid, LaneLayout, Plane, Real, from_lanes, to_lanes};
use sparsevd_kernels::{Isa, LANES};

use super::size::MapSize;

/// How the values of a shard lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[sample][row][column][channel]`, or NHWC.
    Samples,
    /// Blocks of sixteen samples, each a [`LaneMap`]: `[N / 16][C][H][W][16]`.
    Lanes,
}

/// A map of sixteen samples, `[channel][row][column][lane]`, with a border of zeros that windows reach over.
///
/// Where samples are fewer, the lanes behind them hold any finite numbers in a value, and zeros in its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneMap {
    map: MapSize,
    /// Rows above the map, and columns to its left.
    before: [usize; 2],
    /// Rows below the map, and columns to its right.
    after: [usize; 2],
}

impl LaneMap {
    /// Without a border.
    pub fn new(map: MapSize) -> Self {
        Self {
            map,
            before: [0; 2],
            after: [0; 2],
        }
    }

    /// Makes the border at least as wide as this.
    pub fn widen(&mut self, before: [usize; 2], after: [usize; 2]) {
        for i in 0..2 {
            self.before[i] = self.before[i].max(before[i]);
            self.after[i] = self.after[i].max(after[i]);
        }
    }

    /// Makes the border at least as wide as that of another map.
    pub fn widen_as(&mut self, other: &Self) {
        self.widen(other.before, other.after);
    }

    pub fn map(&self) -> MapSize {
        self.map
    }

    /// Rows above the map, and columns to its left.
    pub fn before(&self) -> [usize; 2] {
        self.before
    }

    fn size(&self) -> [usize; 2] {
        [self.map.height, self.map.width]
    }

    /// Vectors from one row to the next.
    pub fn pitch(&self) -> usize {
        self.before[1] + self.map.width + self.after[1]
    }

    /// Vectors from one channel to the next: an odd number, since channels that are a power of two apart would meet in few sets
    /// of the caches.
    pub fn plane(&self) -> usize {
        let rows = self.before[0] + self.map.height + self.after[0];
        (rows * self.pitch()) | 1
    }

    /// Numbers of the map of sixteen samples.
    pub fn numbers(&self) -> usize {
        self.map.channels * self.plane() * LANES
    }

    /// The vector of a position, counted from the first of a channel; rows and columns are counted from the border's corner.
    pub fn place(&self, [row, column]: [usize; 2]) -> usize {
        row * self.pitch() + column
    }

    /// The positions of the map, as they lie.
    pub fn grid(&self) -> Grid {
        Grid {
            size: self.size(),
            steps: [self.pitch(), 1],
        }
    }

    fn first(&self) -> usize {
        self.place(self.before) * LANES
    }

    /// The map inside its border.
    pub fn inside<'a, T>(&self, vectors: &'a [T]) -> Plane<&'a [T]> {
        Plane {
            array: &vectors[self.first()..],
            grid: self.grid(),
            plane: self.plane(),
        }
    }

    /// As [`Self::inside`], to be written.
    pub fn inside_mut<'a, T>(&self, vectors: &'a mut [T]) -> Plane<&'a mut [T]> {
        Plane {
            array: &mut vectors[self.first()..],
            grid: self.grid(),
            plane: self.plane(),
        }
    }

    /// Fills the border with zeros.
    pub fn clear_border<T: Real>(&self, vectors: &mut [T]) {
        for map in vectors.chunks_exact_mut(self.plane() * LANES) {
            let mut at = 0;
            for row in 0..self.map.height {
                let inside = self.place([self.before[0] + row, self.before[1]]);
                map[at * LANES..inside * LANES].fill(T::default());
                at = inside + self.map.width;
            }
            map[at * LANES..].fill(T::default());
        }
    }

    fn layout(&self, lanes: usize) -> LaneLayout {
        LaneLayout {
            lanes,
            lane_step: self.map.elements(),
            steps: [self.map.width * self.map.channels, self.map.channels],
            channels: self.map.channels,
        }
    }

    /// Copies at most sixteen samples into vectors; the border stays as it is.
    pub fn pack<T: Real>(&self, isa: Isa, samples: &[T], vectors: &mut [T]) {
        let lanes = samples.len() / self.map.elements();
        to_lanes(isa, samples, self.layout(lanes), self.inside_mut(vectors));
    }

    /// Copies vectors back into at most sixteen samples, or adds them.
    pub fn unpack<T: Real>(&self, isa: Isa, vectors: &[T], samples: &mut [T], add: bool) {
        let lanes = samples.len() / self.map.elements();
        let from = self.inside(vectors);
        from_lanes(isa, from, self.layout(lanes), samples, add);
    }

    /// Where some samples lie in a value; the first begins a block.
    pub fn place_of(&self, layout: Layout, samples: &Range<usize>) -> Range<usize> {
        let [start, end] = [samples.start, samples.end].map(|sample| match layout {
            Layout::Samples => sample * self.map.elements(),
            Layout::Lanes => sample.div_ceil(LANES) * self.numbers(),
        });
        start..end
    }
}

/// Blocks of at most sixteen samples.
pub(crate) fn blocks(samples: usize) -> impl Iterator<Item = Range<usize>> {
    (0..samples)
        .step_by(LANES)
        .map(move |first| first..samples.min(first + LANES))
}
