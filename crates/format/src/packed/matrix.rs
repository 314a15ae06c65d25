//! Sparse integer matrices, entropy-coded: how many per row, where, and which numbers.

use sparsevd_model::quantised::MAX_LEVEL;

use super::adaptive::{Family, Number, ONE, odds};
use super::flaw::Flaw;
use super::logistic::ln;
use super::range::Coder;
use super::skeleton::Columns;
use super::tune::t;

/// Integers by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Levels {
    /// Where each row starts, and the end.
    pub starts: Vec<u32>,
    /// Columns, strictly increasing in a row.
    pub columns: Vec<u32>,
    /// The numbers, none of them zero.
    pub levels: Vec<i32>,
}

/// Spent bits, in 1/65,536.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub header: u64,
    pub liveness: u64,
    pub positions: u64,
    pub values: u64,
    pub biases: u64,
}

/// The models of a file.
pub(super) struct Models {
    counts: Number,
    first: Number,
    positions: [Family<2>; 3],
    signs: [Family<3>; 3],
    sizes: Family<4>,
    escapes: Number,
    bias_zero: Family<1>,
    bias_sign: Family<1>,
    bias_size: Family<2>,
    bias_ties: Number,
    pub spent: Spent,
}

const DIGITS: usize = 24;

fn q(i: usize, default: i32) -> u32 {
    (t(i, default) as u32) << 12
}
fn w(i: usize, default: i32) -> i32 {
    t(i, default) << 12
}

impl Models {
    pub fn new() -> Self {
        let p = || Family::new(64, [w(1, 12), w(2, 12)], [q(3, 16), q(4, 16)], t(5, 30));
        let s = || {
            Family::new(
                1 << 16,
                [w(6, 12), w(7, 12), w(60, 12)],
                [q(8, 32), q(9, 32), q(61, 32)],
                t(10, 30),
            )
        };
        Self {
            counts: Number::new(2, 0),
            first: Number::new(1, 256),
            positions: [p(), p(), p()],
            signs: [s(), s(), s()],
            sizes: Family::new(
                1 << 16,
                [w(11, 16), w(12, 16), w(13, 12), w(14, 12)],
                [q(15, 16), q(16, 48), q(17, 96), q(18, 96)],
                t(19, 10),
            ),
            escapes: Number::new(1, 0),
            bias_zero: Family::new(4, [ONE], [q(20, 16)], 0),
            bias_sign: Family::new(4, [ONE], [q(21, 32)], 0),
            bias_size: Family::new(8 * DIGITS, [ONE, ONE], [q(22, 16), q(23, 32)], 0),
            bias_ties: Number::new(1, 0),
            spent: Spent::default(),
        }
    }

    /// Non-zeros of each row: falling where `sorted`, otherwise around the mean so far.
    pub fn row_counts(
        &mut self,
        coder: &mut impl Coder,
        have: Option<&[u32]>,
        rows: usize,
        cols: usize,
        sorted: bool,
    ) -> Result<Vec<u32>, Flaw> {
        let counts = || Flaw::damaged("non-zeros of a row");
        let mut out: Vec<u32> = Vec::new();
        let mut sum = 0_u32;
        for row in 0..rows {
            let have = have.map_or(0, |c| c[row]);
            let n = match out.last() {
                None => self.first.code(coder, have, 0).ok_or_else(counts)?,
                Some(&before) if sorted => {
                    let fall = self
                        .counts
                        .code(coder, before.wrapping_sub(have), 0)
                        .ok_or_else(counts)?;
                    before.checked_sub(fall).ok_or_else(counts)?
                }
                Some(_) => {
                    let mean = sum / row as u32;
                    let d = have.wrapping_sub(mean) as i32;
                    let z = self
                        .counts
                        .code(coder, (d << 1 ^ d >> 31) as u32, 1)
                        .ok_or_else(counts)?;
                    mean.checked_add_signed((z >> 1) as i32 ^ -((z & 1) as i32))
                        .ok_or_else(counts)?
                }
            };
            if n as usize > cols {
                return Err(counts());
            }
            sum = sum.saturating_add(n);
            out.push(n);
        }
        Ok(out)
    }

    /// Positions and numbers of a matrix whose rows have `counts` non-zeros.
    pub fn matrix<C: Coder>(
        &mut self,
        coder: &mut C,
        matrix: Option<&Levels>,
        counts: &[u32],
        columns: &Columns,
        feeds: Option<&[u32]>,
        layer: usize,
    ) -> Result<Levels, Flaw> {
        let [height, width] = columns.grid;
        let cells = height * width;
        let cols = columns.units * cells;
        let class = match (cells, columns.units) {
            (1, _) => 2,
            (_, 1) => 0,
            _ => 1,
        };
        let mut factors = Factors::new(columns, feeds);
        let mut out = Levels {
            starts: vec![0],
            ..Levels::default()
        };
        // The row as it is so far, with a border of zeros around each grid.
        let stride = width + 2;
        let mut row_levels = vec![0_i32; (height + 1) * stride];
        let mut column_sum = vec![0_i32; cols]; // sum of magnitudes
        let mut column_sign = vec![0_i32; cols];
        for (row, &count) in counts.iter().enumerate() {
            factors.row(columns);
            let (have_c, have_l) = matrix.map_or((&[][..], &[][..]), |m| {
                let range = m.starts[row] as usize..m.starts[row + 1] as usize;
                (&m.columns[range.clone()], &m.levels[range])
            });
            let mut left = count;
            let mut next = 0;
            let mut last_level = 0;
            let mut row_size = 0;
            for unit in 0..columns.units {
                if left == 0 {
                    break;
                }
                row_levels.fill(0);
                let mut in_group = 0;
                let mut sign_group = 0;
                for cell in 0..cells {
                    let column = unit * cells + cell;
                    if left == 0 {
                        break;
                    }
                    let remaining = (cols - column) as u32;
                    let at = (cell / width + 1) * stride + cell % width + 1;
                    let nb = [
                        row_levels[at - 1],
                        row_levels[at - stride],
                        row_levels[at - stride - 1],
                        row_levels[at - stride + 1],
                    ];
                    let near = nb.iter().filter(|l| **l != 0).count();
                    let have = have_c.get(next) == Some(&(column as u32));
                    let before = coder.spent();
                    let bit = if remaining == left {
                        true
                    } else {
                        let base = factors.odds(column, left);
                        let group = if class == 1 { in_group.min(4) + 1 } else { 0 };
                        let third = if class == 1 { 3 * cell / cells } else { 0 };
                        self.positions[class].code(coder, have, base, [near, 8 + 8 * third + group])
                    };
                    self.spent.positions += coder.spent() - before;
                    if !bit {
                        continue;
                    }
                    let before = coder.spent();
                    let sign_near =
                        nb[0].signum() + nb[1].signum() + nb[2].signum() + nb[3].signum();
                    let near_size: i32 = nb.iter().map(|l| l.abs()).sum();
                    let near_size = if near == 0 {
                        0
                    } else {
                        1 + (2 * near_size / near as i32).min(20) as usize
                    };
                    let level = have_l.get(next).copied().unwrap_or(1);
                    let sn = [
                        (sign_near + 4) as usize
                            + 9 * usize::from(class == 1 && near == 0)
                                * (1 + (last_level as i32).signum() + i32::from(in_group > 0) * 3)
                                    as usize,
                        100 + (column_sign[column].clamp(-3, 3) + 3) as usize,
                        200 + (sign_group as i32).clamp(-3, 3).wrapping_add(3) as usize,
                    ];
                    let negative = self.signs[class].code(coder, level < 0, 0, sn);
                    let mut size = 1;
                    let colsize = {
                        let c = factors.seen[column];
                        if c == 0 {
                            0
                        } else {
                            1 + (2 * column_sum[column] as u32 / c).min(20)
                        }
                    } as usize;
                    let _ = row_size;
                    while size < DIGITS as i32 {
                        let n = size as usize - 1;
                        let ctx = [
                            n.min(15),
                            100 + layer * 64 + n,
                            10_000 + (class * 64 + near_size) * 8 + n.min(7),
                            20_000 + (class * 64 + colsize) * 8 + n.min(7),
                        ];
                        if !self
                            .sizes
                            .code(coder, level.abs() > size, odds(t(24, 10)), ctx)
                        {
                            break;
                        }
                        size += 1;
                    }
                    if size == DIGITS as i32 {
                        size = self.escape(coder, level, size)?;
                    }
                    let level = if negative { -size } else { size };
                    self.spent.values += coder.spent() - before;
                    row_levels[at] = level;
                    in_group += 1;
                    sign_group += level.signum();
                    last_level = level;
                    row_size += size;
                    column_sum[column] += size;
                    column_sign[column] += level.signum();
                    factors.seen_now(column);
                    out.columns.push(column as u32);
                    out.levels.push(level);
                    next += 1;
                    left -= 1;
                }
            }
            out.starts.push(out.columns.len() as u32);
            factors.finish_row(count, columns);
            if coder.exhausted() {
                return Err(Flaw::damaged("positions"));
            }
        }
        Ok(out)
    }

    /// Biases of the rows of a matrix; where `counts` are sorted, they fall within each run of one count.
    pub fn biases(
        &mut self,
        coder: &mut impl Coder,
        biases: Option<&[i32]>,
        counts: &[u32],
        sorted: bool,
    ) -> Result<Vec<i32>, Flaw> {
        let bad = || Flaw::damaged("bias");
        let mut out: Vec<i32> = Vec::new();
        let start = coder.spent();
        for (row, &count) in counts.iter().enumerate() {
            let have = biases.map_or(0, |b| b[row]);
            if sorted && row > 0 && counts[row - 1] == count {
                let before = out[row - 1];
                let fall = self
                    .bias_ties
                    .code(coder, before.wrapping_sub(have) as u32, 0)
                    .ok_or_else(bad)?;
                out.push(before.checked_sub_unsigned(fall).ok_or_else(bad)?);
                continue;
            }
            out.push(self.bias(coder, have)?);
        }
        self.spent.biases += coder.spent() - start;
        if out.iter().any(|b| b.unsigned_abs() > 32_767) {
            return Err(bad());
        }
        Ok(out)
    }

    /// What a magnitude has beyond `DIGITS`.
    fn escape(&mut self, coder: &mut impl Coder, have: i32, size: i32) -> Result<i32, Flaw> {
        let more = self
            .escapes
            .code(coder, (have.abs() - size).max(0) as u32, 0);
        more.and_then(|m| size.checked_add_unsigned(m))
            .filter(|s| *s <= MAX_LEVEL)
            .ok_or_else(|| Flaw::damaged("magnitude"))
    }

    fn bias(&mut self, coder: &mut impl Coder, have: i32) -> Result<i32, Flaw> {
        if self.bias_zero.code(coder, have == 0, odds(-15), [0]) {
            return Ok(0);
        }
        let negative = self.bias_sign.code(coder, have < 0, 0, [0]);
        let mut size = 1;
        while size < DIGITS as i32 {
            let n = size as usize - 1;
            if !self
                .bias_size
                .code(coder, have.abs() > size, odds(10), [n.min(3), DIGITS + n])
            {
                break;
            }
            size += 1;
        }
        if size == DIGITS as i32 {
            size = self.escape(coder, have, size)?;
        }
        Ok(if negative { -size } else { size })
    }
}

/// How much denser each column is than the mean, learned from the rows above.
struct Factors {
    /// Non-zeros of each column in the rows above.
    seen: Vec<u32>,
    fresh: Vec<u32>,
    /// 65,536 times the non-zeros that each column would have if all were alike.
    expected: u64,
    /// 4,096 for a column like the others.
    factor: Vec<u32>,
    /// Sum of the factors from each column on.
    sums: Vec<u64>,
    /// Effects of what the producers have.
    bucket: Vec<usize>,
    bucket_size: Vec<u32>,
}

/// (seen + strength * prior) / (expected + strength), everything in 1/65,536.
fn ratio(seen: u64, expected: u64, prior: u64, strength: u64) -> u64 {
    ((seen << 16) + ((strength * prior) >> 0)) / (((expected + strength) >> 0).max(1))
}

impl Factors {
    fn new(columns: &Columns, feeds: Option<&[u32]>) -> Self {
        let n = columns.units * columns.grid[0] * columns.grid[1];
        let bucket: Vec<usize> = match feeds {
            None => vec![0; columns.units],
            Some(f) => f
                .iter()
                .map(|&c| ((ln(c + 1) * t(39, 3)) / 256).clamp(0, 31) as usize)
                .collect(),
        };
        let mut bucket_size = vec![0; 32];
        for &b in &bucket {
            bucket_size[b] += 1;
        }
        Self {
            seen: vec![0; n],
            fresh: Vec::new(),
            expected: 0,
            factor: vec![4096; n],
            sums: vec![0; n + 1],
            bucket,
            bucket_size,
        }
    }

    fn row(&mut self, columns: &Columns) {
        let [height, width] = columns.grid;
        let cells = height * width;
        let (units, e) = (columns.units, self.expected);
        const P1: u64 = 1 << 16;
        let a_own = u64::from(q(30, 16));
        if units == 1 {
            let (a3, a5) = (u64::from(q(31, 16)), u64::from(q(32, 16)));
            let sum = |cell: usize, r: isize| {
                let (y, x) = ((cell / width) as isize, (cell % width) as isize);
                let (mut s, mut n) = (0_u64, 0_u64);
                for yy in (y - r).max(0)..=(y + r).min(height as isize - 1) {
                    for xx in (x - r).max(0)..=(x + r).min(width as isize - 1) {
                        s += u64::from(self.seen[yy as usize * width + xx as usize]);
                        n += 1;
                    }
                }
                (s << 16, n * e)
            };
            for cell in 0..cells {
                let (s5, e5) = sum(cell, 2);
                let f5 = ratio(s5, e5, P1, a5);
                let (s3, e3) = sum(cell, 1);
                let f3 = ratio(s3, e3, f5, a3);
                let f = ratio(u64::from(self.seen[cell]) << 16, e, f3, a_own);
                self.factor[cell] = (f >> 4).clamp(16, 1 << 20) as u32;
            }
        } else {
            let mut at_cell = vec![0_u64; cells];
            let mut at_unit = vec![0_u64; units];
            for (column, &s) in self.seen.iter().enumerate() {
                at_cell[column % cells] += u64::from(s) << 16;
                at_unit[column / cells] += u64::from(s) << 16;
            }
            let mut at_bucket = vec![0_u64; 32];
            for u in 0..units {
                at_bucket[self.bucket[u]] += at_unit[u];
            }
            for unit in 0..units {
                let b = self.bucket[unit];
                let fb = ratio(
                    at_bucket[b],
                    e * (cells as u64) * u64::from(self.bucket_size[b]),
                    P1,
                    u64::from(q(35, 64)),
                );
                let fu = ratio(
                    at_unit[unit],
                    e * cells as u64,
                    fb,
                    u64::from(if cells == 1 { q(36, 16) } else { q(33, 16) }),
                );
                for cell in 0..cells {
                    let column = unit * cells + cell;
                    let f = if cells == 1 {
                        fu
                    } else {
                        let fc = ratio(at_cell[cell], e * units as u64, P1, u64::from(q(34, 64)));
                        ratio(
                            u64::from(self.seen[column]) << 16,
                            e,
                            (fu * fc) >> 16,
                            u64::from(q(37, 32)),
                        )
                    };
                    self.factor[column] = (f >> 4).clamp(16, 1 << 20) as u32;
                }
            }
        }
        for column in (0..self.factor.len()).rev() {
            self.sums[column] = self.sums[column + 1] + u64::from(self.factor[column]);
        }
    }

    /// Log-odds that a column has one of the `left` non-zeros of the row from it on.
    fn odds(&self, column: usize, left: u32) -> i32 {
        let weight = u64::from(left) * u64::from(self.factor[column]);
        let sum = self.sums[column];
        let rest = sum.saturating_sub(weight).max(sum >> 6).max(1);
        ln64(weight) - ln64(rest)
    }

    fn seen_now(&mut self, column: usize) {
        self.fresh.push(column as u32);
    }

    fn finish_row(&mut self, count: u32, columns: &Columns) {
        for &c in &self.fresh {
            self.seen[c as usize] += 1;
        }
        self.fresh.clear();
        let n = columns.units * columns.grid[0] * columns.grid[1];
        self.expected += (u64::from(count) << 16) / n as u64;
    }
}

fn ln64(x: u64) -> i32 {
    let shift = (32 - x.leading_zeros() as i32).max(0);
    ln((x >> shift) as u32) + ((shift * 11_629_080 + (1 << 15)) >> 16)
}
