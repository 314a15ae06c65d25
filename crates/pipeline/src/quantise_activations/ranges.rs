//! The grids of values, by the numbers that they have.

use sparsevd_compressor::recipe::RangeChoice;
use sparsevd_model::Int8Grid;

/// Bins of the numbers of a value, from the least to the largest.
const BINS: usize = 2048;
/// Shares of a range that are tried, in this many equal steps.
const SHARES: usize = 80;
/// Share of the numbers of a value that [`RangeChoice::Percentile`] leaves outside of its range, at each end.
const OUTSIDE: f64 = 1e-4;

/// The numbers that a value has.
pub(super) struct Numbers {
    least: f32,
    most: f32,
    finite: bool,
    /// How many there are in each bin from the least to the largest.
    bins: Vec<u64>,
}

impl Numbers {
    pub fn new() -> Self {
        Self {
            least: 0.0,
            most: 0.0,
            finite: true,
            bins: vec![0; BINS],
        }
    }

    /// First pass: their range.
    pub fn widen(&mut self, x: &[f32]) {
        for &v in x {
            self.finite &= v.is_finite();
            self.least = self.least.min(v);
            self.most = self.most.max(v);
        }
    }

    /// Second pass: their distribution.
    pub fn count(&mut self, x: &[f32]) {
        let per_bin = BINS as f32 / (self.most - self.least);
        if self.finite && per_bin.is_finite() {
            for &v in x {
                let bin = ((v - self.least) * per_bin) as usize;
                self.bins[bin.min(BINS - 1)] += 1;
            }
        }
    }

    /// The number in the middle of a bin.
    fn middle(&self, bin: usize) -> f32 {
        self.least + (bin as f32 + 0.5) * ((self.most - self.least) / BINS as f32)
    }

    pub fn grid(&self, range: RangeChoice) -> Option<Int8Grid> {
        if !self.finite {
            return None;
        }
        let all = Int8Grid::of_range(self.least, self.most);
        match range {
            RangeChoice::Minmax => all,
            RangeChoice::Percentile => {
                let [least, most] = self.percentiles();
                Int8Grid::of_range(least, most)
            }
            RangeChoice::Mse => {
                let shares = (1..=SHARES).rev().map(|i| i as f32 / SHARES as f32);
                let grids = shares.filter_map(|share| {
                    let grid = Int8Grid::of_range(share * self.least, share * self.most)?;
                    Some((self.squares(grid), grid))
                });
                grids
                    .min_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(_, grid)| grid)
            }
        }
    }

    /// The ends between which all but [`OUTSIDE`] of the numbers are, at each end.
    fn percentiles(&self) -> [f32; 2] {
        let all: u64 = self.bins.iter().sum();
        let outside = (all as f64 * OUTSIDE) as u64;
        let first = |bin: fn(usize) -> usize| {
            let mut seen = 0;
            let bins = (0..BINS).map(bin);
            let mut inner = bins.skip_while(|&bin| {
                seen += self.bins[bin];
                seen <= outside
            });
            inner.next().map_or(0.0, |bin| self.middle(bin))
        };
        [first(|i| i), first(|i| BINS - 1 - i)]
    }

    /// The sum of the squared errors of a grid.
    fn squares(&self, grid: Int8Grid) -> f64 {
        let bins = self
            .bins
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0);
        bins.map(|(bin, &count)| {
            let v = self.middle(bin);
            let error = f64::from(grid.value(grid.byte(v)) - v);
            count as f64 * error * error
        })
        .sum()
    }
}
