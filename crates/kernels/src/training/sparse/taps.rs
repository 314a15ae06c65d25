//! What sparse products read and write: the weights that are left, and vectors of samples at the positions of maps.

use crate::LANES;

/// The weights that are left, by rows as in CSR: of row `r`, numbers `starts[r]` to `starts[r + 1]` of an array of weights, each of
/// which multiplies the vector at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taps {
    pub(super) starts: Vec<usize>,
    pub(super) places: Vec<u32>,
    /// One more than the largest place.
    pub(super) end: usize,
}

impl Taps {
    /// # Panics
    /// When `starts` do not begin at 0, ascend and end at the number of `places`.
    #[track_caller]
    pub fn new(starts: Vec<usize>, places: Vec<u32>) -> Self {
        let whole = starts.first() == Some(&0) && starts.last() == Some(&places.len());
        assert!(whole && starts.is_sorted(), "starts of rows");
        let end = places.iter().max().map_or(0, |p| *p as usize + 1);
        Self {
            starts,
            places,
            end,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of the first weight of a row; of the number of rows, that of all weights.
    pub fn start(&self, row: usize) -> usize {
        self.starts[row]
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no weight is left.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Positions of a map, and how far neighbours are apart in an array: `[rows, columns]` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of positions.
    pub size: [usize; 2],
    /// Vectors from one position to the next.
    pub steps: [usize; 2],
}

impl Grid {
    /// Vectors from the first position to the last.
    fn reach(&self) -> usize {
        let along = |i: usize| (self.size[i] - 1).checked_mul(self.steps[i]);
        along(0)
            .zip(along(1))
            .and_then(|(a, b)| a.checked_add(b))
            .expect("a map that fits in memory")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size.contains(&0)
    }
}

/// Checks that the vectors from `first` on, at all positions, are in an array of `len` numbers.
#[track_caller]
pub(super) fn check(what: &str, len: usize, first: usize, grid: Grid) {
    let end = first
        .checked_add(grid.reach())
        .and_then(|v| v.checked_add(1));
    let end = end.and_then(|v| v.checked_mul(LANES));
    assert!(
        end.is_some_and(|end| end <= len),
        "{what}: {len} numbers, and positions {grid:?} from vector {first} on"
    );
}

/// The first vector of the last of `rows` rows that are `plane` apart.
#[track_caller]
pub(super) fn last_row(rows: usize, plane: usize) -> usize {
    (rows - 1)
        .checked_mul(plane)
        .expect("an array that fits in memory")
}

/// An array of vectors that is read, or written, at the positions of `grid`.
#[derive(Debug)]
pub struct Plane<A> {
    /// The vectors.
    pub array: A,
    /// Positions that are visited.
    pub grid: Grid,
    /// Vectors from one channel to the next.
    pub plane: usize,
}

/// Numbers of up to sixteen samples, `[lane][position][channel]`: how far lanes and positions are apart.
#[derive(Debug, Clone, Copy)]
pub struct LaneLayout {
    /// How many samples there are.
    pub lanes: usize,
    /// Numbers from one sample to the next.
    pub lane_step: usize,
    /// Numbers from one position to the next, by rows and columns.
    pub steps: [usize; 2],
    /// Numbers at a position.
    pub channels: usize,
}

impl LaneLayout {
    #[track_caller]
    pub(super) fn check(&self, len: usize, size: [usize; 2]) {
        assert!((1..=LANES).contains(&self.lanes), "{} samples", self.lanes);
        let last = [
            (self.lanes - 1, self.lane_step),
            (size[0] - 1, self.steps[0]),
            (size[1] - 1, self.steps[1]),
        ];
        let end = last.iter().try_fold(self.channels, |end, (n, step)| {
            end.checked_add(n.checked_mul(*step)?)
        });
        assert!(
            end.is_some_and(|end| end <= len),
            "{len} numbers for {self:?} at {size:?} positions"
        );
    }
}

/// Calls `visit` with each position and where it lies in `grid` and in `samples`.
#[inline(always)]
pub(super) fn for_each_position(
    grid: Grid,
    samples: LaneLayout,
    mut visit: impl FnMut(usize, usize),
) {
    for y in 0..grid.size[0] {
        for x in 0..grid.size[1] {
            visit(
                y * grid.steps[0] + x * grid.steps[1],
                y * samples.steps[0] + x * samples.steps[1],
            );
        }
    }
}
