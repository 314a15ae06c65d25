//! Where the numbers of direct products lie.

use crate::LANES;

/// Numbers that a pixel reads: `len` of a plane, from the pixel's own place and `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Distance from the pixel's place.
    pub at: usize,
    /// How many.
    pub len: usize,
}

/// Runs that follow each other in the plane, as one.
pub fn merge_runs(runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
    let mut all: Vec<Run> = vec![];
    for run in runs {
        match all.last_mut() {
            Some(last) if last.at + last.len == run.at => last.len += run.len,
            _ => all.push(run),
        }
    }
    all
}

/// Places of pixels in an array: of the first, and the distances of rows and of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelGrid {
    /// Place of the first pixel.
    pub start: usize,
    /// Distance between rows, and between the pixels of a row.
    pub steps: [usize; 2],
}

impl PixelGrid {
    /// Place behind `len` numbers of the last of `rows` by `columns` pixels, at least one each.
    #[track_caller]
    pub(super) fn end(&self, size: [usize; 2], len: usize) -> usize {
        let along = |i: usize| (size[i] - 1).checked_mul(self.steps[i]);
        let end = along(0).zip(along(1)).and_then(|(y, x)| {
            let last = self.start.checked_add(y)?.checked_add(x)?;
            last.checked_add(len)
        });
        end.expect("pixels that fit in memory")
    }
}

/// `units` in whole vectors.
///
/// # Panics
/// When that is more than a machine can count.
#[track_caller]
pub fn padded_units(units: usize) -> usize {
    let padded = units.checked_next_multiple_of(LANES);
    padded.expect("units that fit in memory")
}

/// What sums begin with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Begin<'a, T> {
    /// Zero.
    Zero,
    /// A number for each unit.
    Bias(&'a [T]),
    /// What is there.
    Sum,
}

/// How many numbers the runs have, which all pixels can read.
#[track_caller]
pub(super) fn check_runs(size: [usize; 2], runs: &[Run], len: usize, at: PixelGrid) -> usize {
    assert!(at.end(size, 0) <= len, "pixels of a plane of {len}");
    let mut numbers = 0_usize;
    for run in runs {
        let end = run.at.checked_add(run.len).map(|far| at.end(size, far));
        assert!(
            end.is_some_and(|end| end <= len),
            "{run:?} of a plane of {len}"
        );
        // Each is in the plane, but many may be there.
        numbers = numbers
            .checked_add(run.len)
            .expect("runs that fit in memory");
    }
    numbers
}
