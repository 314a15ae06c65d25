//! How dense each column of a matrix is, learned from the rows above.

use super::adaptive::ONE;
use super::logistic::{ln, ln_wide};
use super::skeleton::Columns;

/// Strengths of the priors: how many non-zeros (in 1/65,536 of one) count as much as the density that the surroundings of a column suggest.
const OWN_OF_MAP: u64 = 85 << 12;
const NEAR: u64 = 85 << 12;
const AROUND: u64 = 64 << 12;
/// Density, against the mean, of a part of a map of which nothing is known. Above one: the dead parts soon show.
const UNKNOWN: u64 = 4 << 16;
const UNIT_OF_KERNEL: u64 = 85 << 12;
const UNIT_ALONE: u64 = 85 << 12;
const CELL: u64 = 338 << 12;
const OWN_OF_KERNEL: u64 = 48 << 12;

/// `(seen + strength * prior) / (expected + strength)`, where all but `seen`, a count, are in 1/65,536; by one multiplication.
#[derive(Clone, Copy)]
struct Ratio {
    reciprocal: u64,
    strength: u64,
}

impl Ratio {
    fn new(expected: u64, strength: u64) -> Self {
        let reciprocal = (1 << 40) / (expected.saturating_add(strength));
        Self {
            reciprocal,
            strength,
        }
    }

    fn of(self, seen: u32, prior: u64) -> u64 {
        let sum = (u64::from(seen) << 16) + ((self.strength * prior) >> 16);
        (sum.saturating_mul(self.reciprocal) >> 24).min(MOST)
    }
}

/// Largest and smallest factor, in 1/65,536: what the columns' weights are clamped to.
const MOST: u64 = 1 << 24;
const LEAST: u64 = 1 << 8;

/// What the density of units is expected to be, against the mean: of dead ones next to none, and all others alike.
fn priors(units: usize, dead: &[bool]) -> Vec<u64> {
    let alive = dead.iter().filter(|dead| !**dead).count() as u64;
    if alive == 0 || dead.len() != units {
        return vec![u64::from(ONE); units];
    }
    let of_alive = (units as u64 * u64::from(ONE) / alive).min(MOST);
    let prior = |dead: &bool| if *dead { LEAST } else { of_alive };
    dead.iter().map(prior).collect()
}

/// Non-zeros of the columns so far, and how much denser than the mean each is.
pub(super) struct Factors {
    units: usize,
    height: usize,
    width: usize,
    /// Density of each unit, against the mean, before any row is known.
    of_units: Vec<u64>,
    /// Non-zeros of each column in the rows above.
    seen: Vec<u32>,
    /// Where all columns are one map: non-zeros in the 3 by 3 and the 5 by 5 around each cell, and the cells there.
    around: [Vec<u32>; 2],
    cells_around: [Vec<u8>; 2],
    /// Otherwise: non-zeros of each position of the grid and of each unit.
    at_cell: Vec<u32>,
    at_unit: Vec<u32>,
    /// Non-zeros, in 1/65,536, that each column would have if all were alike.
    expected: u64,
    /// Factors in 1/4,096 and their logarithms.
    factor: Vec<u32>,
    log: Vec<i32>,
    /// Sums of the factors from each column on.
    sums: Vec<u64>,
}

impl Factors {
    /// Factors before the first row; `dead` says which units are dead, or is empty where that is not known.
    pub fn new(columns: &Columns, dead: &[bool]) -> Self {
        let (units, [height, width]) = (columns.units, columns.grid);
        let cells = height * width;
        let n = units * cells;
        let map = if units == 1 { cells } else { 0 };
        let cells_around = [1, 2].map(|reach| {
            (0..map)
                .map(|cell| {
                    let (y, x) = (cell / width, cell % width);
                    let side = |at: usize, end: usize| {
                        (at + reach).min(end - 1) - at.saturating_sub(reach) + 1
                    };
                    (side(y, height) * side(x, width)) as u8
                })
                .collect()
        });
        Self {
            units,
            height,
            width,
            of_units: priors(units, dead),
            seen: vec![0; n],
            around: [vec![0; map], vec![0; map]],
            cells_around,
            at_cell: vec![0; cells],
            at_unit: vec![0; units],
            expected: 0,
            factor: vec![0; n],
            log: vec![0; n],
            sums: vec![0; n + 1],
        }
    }

    /// Computes the factors for the next row.
    pub fn begin_row(&mut self) {
        let (cells, e) = (self.height * self.width, self.expected);
        let set = |factor: &mut u32, log: &mut i32, f: u64| {
            *factor = (f.clamp(LEAST, MOST) >> 4) as u32;
            *log = ln(*factor);
        };
        if self.units == 1 {
            let near: [Ratio; 10] =
                std::array::from_fn(|n| Ratio::new(e.saturating_mul(n as u64), NEAR));
            let around: [Ratio; 26] =
                std::array::from_fn(|n| Ratio::new(e.saturating_mul(n as u64), AROUND));
            let own = Ratio::new(e, OWN_OF_MAP);
            for cell in 0..cells {
                let [n3, n5] = [0, 1].map(|i| usize::from(self.cells_around[i][cell]));
                let f = around[n5].of(self.around[1][cell], UNKNOWN);
                let f = near[n3].of(self.around[0][cell], f);
                let f = own.of(self.seen[cell], f);
                set(&mut self.factor[cell], &mut self.log[cell], f);
            }
        } else {
            let one = u64::from(ONE);
            let strength = if cells == 1 {
                UNIT_ALONE
            } else {
                UNIT_OF_KERNEL
            };
            let of_unit = Ratio::new(e.saturating_mul(cells as u64), strength);
            let of_cell = Ratio::new(e.saturating_mul(self.units as u64), CELL);
            let own = Ratio::new(e, OWN_OF_KERNEL);
            let cell_factors: Vec<u64> = self.at_cell.iter().map(|&s| of_cell.of(s, one)).collect();
            for unit in 0..self.units {
                let f = of_unit.of(self.at_unit[unit], self.of_units[unit]);
                for (cell, g) in cell_factors.iter().enumerate() {
                    let column = unit * cells + cell;
                    let f = if cells == 1 {
                        f
                    } else {
                        own.of(self.seen[column], (f * g) >> 16)
                    };
                    set(&mut self.factor[column], &mut self.log[column], f);
                }
            }
        }
        for column in (0..self.factor.len()).rev() {
            self.sums[column] = self.sums[column + 1] + u64::from(self.factor[column]);
        }
    }

    /// Log-odds that `column` is non-zero when this and the later columns of the row have `left` non-zeros; `log_left` is the logarithm of
    /// `left`.
    pub fn odds(&self, column: usize, left: u32, log_left: i32) -> i32 {
        let sum = self.sums[column];
        let rest = sum.saturating_sub(u64::from(left) * u64::from(self.factor[column]));
        self.log[column] + log_left - ln_wide(rest.max(sum >> 6))
    }

    /// Counts the non-zeros of a row, which are in `columns`.
    pub fn end_row(&mut self, columns: &[u32]) {
        let (cells, width) = (self.height * self.width, self.width);
        for &column in columns {
            let column = column as usize;
            self.seen[column] += 1;
            if self.units > 1 {
                self.at_cell[column % cells] += 1;
                self.at_unit[column / cells] += 1;
                continue;
            }
            let (y, x) = (column / width, column % width);
            for (around, reach) in self.around.iter_mut().zip([1, 2]) {
                for yy in y.saturating_sub(reach)..=(y + reach).min(self.height - 1) {
                    for xx in x.saturating_sub(reach)..=(x + reach).min(width - 1) {
                        around[yy * width + xx] += 1;
                    }
                }
            }
        }
        self.expected += ((columns.len() as u64) << 16) / (self.seen.len().max(1)) as u64;
    }
}
