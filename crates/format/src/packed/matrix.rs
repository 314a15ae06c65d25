//! Sparse integer matrices, entropy-coded: how many numbers in each row, where, and which.

use sparsevd_model::quantised::MAX_LEVEL;

use super::adaptive::{Family, Look, Number, ONE};
use super::error::PackedError;
use super::factors::Factors;
use super::logistic::{UNIT, ln};
use super::neighbours::Neighbours;
use super::range::Coder;
use super::skeleton::Columns;

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

/// What is known of the order of a matrix's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// Nothing.
    Any,
    /// Nothing; each row is marked by whether it has non-zeros.
    Marked,
    /// Those with the most non-zeros are first, and of equals those with the largest bias.
    Sorted,
}

/// Spent bits, in 1/65,536.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub counts: u64,
    pub positions: u64,
    pub values: u64,
    pub biases: u64,
}

/// Magnitudes from here on are escaped.
const ESCAPE: i32 = 24;

/// Layers from here on share their statistics.
const LAYERS: usize = 64;

/// Classes of matrices, by their columns: they have statistics of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Class {
    /// One flattened map of more than 64 positions, such as an image.
    Map,
    /// Kernels or small maps of several units.
    Kernels,
    /// Units without positions.
    Units,
    /// Kernels over a single unit.
    Kernel,
}

const CLASSES: usize = 4;

impl Class {
    fn of(columns: &Columns) -> Self {
        match (columns.grid[0] * columns.grid[1], columns.units) {
            (1, _) => Self::Units,
            (65.., 1) => Self::Map,
            (_, 1) => Self::Kernel,
            _ => Self::Kernels,
        }
    }
}

/// How much likelier, in 1/16, a non-zero is expected to be by class and neighbours' pattern, before any is seen.
const PATTERNS: [[u32; 16]; CLASSES] = [
    [
        8, 65, 59, 88, 29, 53, 65, 88, 48, 97, 72, 97, 43, 88, 59, 97,
    ],
    [
        14, 53, 48, 72, 24, 53, 39, 53, 29, 59, 59, 65, 53, 65, 53, 59,
    ],
    [16; 16],
    [
        14, 20, 20, 22, 18, 20, 20, 22, 18, 22, 22, 22, 20, 22, 20, 22,
    ],
];

/// The same by non-zeros further away; the first is for grids where that is not known.
const FAR: [u32; 10] = [16, 13, 16, 16, 18, 20, 22, 24, 24, 29];

/// The statistics of a file.
pub(super) struct Models {
    numbers: Number,
    falls: Family<1>,
    empties: Family<1>,
    positions: [Family<2>; CLASSES],
    signs: [Family<1>; CLASSES],
    sizes: Family<3>,
    bias_is_zero: Family<1>,
    bias_signs: Family<1>,
    bias_sizes: Family<2>,
    pub spent: Spent,
}

/// Kinds of numbers.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Kind {
    First,
    Deviation,
    Escape,
    BiasFall,
    Count,
}

/// `sixteenths` of 65,536.
const fn of(sixteenths: u32) -> u32 {
    sixteenths * (ONE / 16)
}

const fn look(contexts: usize, weight: u32, strength: u32) -> Look {
    Look {
        contexts,
        weight: of(weight),
        strength: of(strength),
    }
}

impl Models {
    pub fn new() -> Self {
        let positions = |class: usize| {
            let looks = [look(16, 16, 32), look(FAR.len(), 13, 32)];
            let mut family = Family::new(looks, 10);
            for (pattern, &ratio) in PATTERNS[class].iter().enumerate() {
                family.expect(0, pattern, of(30), ratio);
            }
            for (far, &ratio) in FAR.iter().enumerate() {
                family.expect(1, far, of(32), ratio);
            }
            family
        };
        Self {
            numbers: Number::new(Kind::Count as usize),
            falls: Family::new([look(8, 12, 64)], 0),
            empties: Family::new([look(3, 16, 16)], 0),
            positions: std::array::from_fn(positions),
            signs: std::array::from_fn(|_| Family::new([look(16, 24, 9)], 30)),
            sizes: Family::new(
                [
                    look(ESCAPE as usize, 7, 16),
                    look(LAYERS * ESCAPE as usize, 7, 48),
                    look(CLASSES * 22 * 8, 12, 58),
                ],
                10,
            ),
            bias_is_zero: Family::new([look(2, 16, 16)], 0),
            bias_signs: Family::new([look(1, 16, 32)], 0),
            bias_sizes: Family::new([look(4, 16, 16), look(ESCAPE as usize, 16, 51)], 0),
            spent: Spent::default(),
        }
    }

    fn number(
        &mut self,
        coder: &mut impl Coder,
        value: u32,
        kind: Kind,
    ) -> Result<u32, PackedError> {
        (self.numbers.code(coder, value, kind as usize))
            .ok_or_else(|| PackedError::damaged("number"))
    }

    /// Non-zeros of each row: falling in sorted rows, otherwise around the mean so far, of the rows that have
    /// any where it is said which these are.
    pub fn row_counts(
        &mut self,
        coder: &mut impl Coder,
        have: Option<&[u32]>,
        [rows, cols]: [usize; 2],
        order: RowOrder,
    ) -> Result<Vec<u32>, PackedError> {
        let bad = || PackedError::damaged("non-zeros of a row");
        let start = coder.spent();
        let mut counts: Vec<u32> = Vec::new();
        let (mut sum, mut counted) = (0_u64, 0_u64);
        for row in 0..rows {
            let have = have.map_or(0, |c| c[row]);
            let marked = order == RowOrder::Marked;
            if marked && self.is_empty(coder, have == 0, counts.last()) {
                counts.push(0);
                continue;
            }
            let count = match counts.last() {
                _ if counted == 0 => self.number(coder, have, Kind::First)?,
                Some(&before) if order == RowOrder::Sorted => {
                    before - self.fall(coder, before, before.wrapping_sub(have), rows - row)
                }
                _ => {
                    let mean = (sum / counted) as u32;
                    // Low bits, as many as a deviation of the square root of the mean has, are not modelled.
                    let low = (33 - mean.leading_zeros()) / 2;
                    let deviation = zigzag(have.wrapping_sub(mean) as i32);
                    let high = self.number(coder, deviation >> low, Kind::Deviation)?;
                    let high = high.checked_mul(1 << low).ok_or_else(bad)?;
                    let deviation = high | coder.raw(deviation & ((1 << low) - 1), low);
                    mean.checked_add_signed(unzigzag(deviation))
                        .ok_or_else(bad)?
                }
            };
            if count as usize > cols || marked && count == 0 || coder.exhausted() {
                return Err(bad());
            }
            (sum, counted) = (sum + u64::from(count), counted + 1);
            counts.push(count);
        }
        self.spent.counts += coder.spent() - start;
        Ok(counts)
    }

    /// Whether a row has no non-zeros; `before` is the count of the row before.
    fn is_empty(&mut self, coder: &mut impl Coder, have: bool, before: Option<&u32>) -> bool {
        let context = before.map_or(0, |&count| 1 + usize::from(count == 0));
        self.empties.code(coder, have, RARELY_EMPTY, [context])
    }

    /// How many non-zeros fewer a row has than the one before, which has `before`; `rows` rows are left. Coded in unary, with a
    /// probability as if the counts fell evenly to zero over these rows, which adapts.
    fn fall(&mut self, coder: &mut impl Coder, before: u32, wanted: u32, rows: usize) -> u32 {
        let base = ln(before.saturating_mul(16)) - ln((rows as u32).saturating_mul(16));
        let mut fall = 0;
        while fall < before
            && self
                .falls
                .code(coder, wanted > fall, base, [fall.min(7) as usize])
        {
            fall += 1;
        }
        fall
    }

    /// Positions and numbers of a matrix whose rows have `counts` non-zeros; `dead` are the dead units, where they are known.
    pub fn matrix<C: Coder>(
        &mut self,
        coder: &mut C,
        have: Option<&Levels>,
        counts: &[u32],
        columns: &Columns,
        dead: &[bool],
        layer: usize,
    ) -> Result<Levels, PackedError> {
        let cells = columns.grid[0] * columns.grid[1];
        let cols = columns.units * cells;
        let class = Class::of(columns);
        let mut factors = Factors::new(columns, dead);
        let mut neighbours = Neighbours::new(columns.grid, class == Class::Map);
        let mut out = Levels {
            starts: vec![0],
            ..Levels::default()
        };
        for (row, &count) in counts.iter().enumerate() {
            let start = out.columns.len();
            if count > 0 {
                factors.begin_row();
            }
            let have_row =
                have.map_or(0..0, |h| h.starts[row] as usize..h.starts[row + 1] as usize);
            let (have_columns, have_levels) = have.map_or((&[][..], &[][..]), |h| {
                (&h.columns[have_row.clone()], &h.levels[have_row])
            });
            let mut left = count;
            let mut log_left = ln(left);
            let (mut cell, mut before) = (0, 0);
            neighbours.clear();
            for column in 0..cols {
                if left == 0 {
                    break;
                }
                if cell == cells {
                    cell = 0;
                    before = 0;
                    neighbours.clear();
                }
                let next = (count - left) as usize;
                // As many non-zeros as columns are left: every column has one.
                let is_here = cols - column == left as usize || {
                    let spent = coder.spent();
                    let is_here = self.positions[class as usize].code(
                        coder,
                        have_columns.get(next) == Some(&(column as u32)),
                        factors.odds(column, left, log_left),
                        [neighbours.pattern(cell), neighbours.far(cell)],
                    );
                    self.spent.positions += coder.spent() - spent;
                    is_here
                };
                if is_here {
                    let spent = coder.spent();
                    let around = neighbours.around(cell);
                    let sign = match (neighbours.pattern(cell), class) {
                        // The last one of the same kernel, where none is near.
                        (0, Class::Kernels) => 10 + before,
                        _ => around.signs + 4,
                    };
                    let size = class as usize * 22 + around.size.min(21) as usize;
                    let have = have_levels.get(next).copied().unwrap_or(1);
                    let level = self.level(coder, have, class, sign as usize, size, layer)?;
                    self.spent.values += coder.spent() - spent;
                    neighbours.put(cell, level);
                    before = if level < 0 { 1 } else { 2 };
                    out.columns.push(column as u32);
                    out.levels.push(level);
                    left -= 1;
                    log_left = ln(left);
                }
                cell += 1;
            }
            factors.end_row(&out.columns[start..]);
            out.starts.push(out.columns.len() as u32);
            if coder.exhausted() {
                return Err(PackedError::damaged("positions"));
            }
        }
        Ok(out)
    }

    /// A number that is not zero.
    fn level(
        &mut self,
        coder: &mut impl Coder,
        have: i32,
        class: Class,
        sign: usize,
        around: usize,
        layer: usize,
    ) -> Result<i32, PackedError> {
        let negative = self.signs[class as usize].code(coder, have < 0, 0, [sign]);
        let first = layer.min(LAYERS - 1) * ESCAPE as usize;
        let mut size = 1;
        while size < ESCAPE {
            let n = size as usize - 1;
            let contexts = [n.min(15), first + n, around * 8 + n.min(7)];
            if !self.sizes.code(coder, have.abs() > size, LONGER, contexts) {
                break;
            }
            size += 1;
        }
        self.finish_level(coder, have, size, negative)
    }

    /// What a magnitude has beyond the escape, and the sign.
    fn finish_level(
        &mut self,
        coder: &mut impl Coder,
        have: i32,
        mut size: i32,
        negative: bool,
    ) -> Result<i32, PackedError> {
        if size == ESCAPE {
            let more = self.number(coder, (have.abs() - size).max(0) as u32, Kind::Escape)?;
            size = (size.checked_add_unsigned(more))
                .filter(|s| *s <= MAX_LEVEL)
                .ok_or_else(|| PackedError::damaged("magnitude"))?;
        }
        Ok(if negative { -size } else { size })
    }

    /// Biases of the rows of a matrix; where rows are sorted, they fall within each run of one count, and where the rows that have no
    /// non-zeros are marked, most of their biases are zero.
    pub fn biases(
        &mut self,
        coder: &mut impl Coder,
        have: Option<&[i32]>,
        counts: &[u32],
        order: RowOrder,
    ) -> Result<Vec<i32>, PackedError> {
        let start = coder.spent();
        let mut biases: Vec<i32> = Vec::new();
        for (row, &count) in counts.iter().enumerate() {
            let have = have.map_or(0, |b| b[row]);
            let bias = match biases.last() {
                Some(&before) if order == RowOrder::Sorted && counts[row - 1] == count => {
                    let fall =
                        self.number(coder, before.wrapping_sub(have) as u32, Kind::BiasFall)?;
                    (before.checked_sub_unsigned(fall))
                        .filter(|b| *b >= -MAX_LEVEL)
                        .ok_or_else(|| PackedError::damaged("bias"))?
                }
                _ => self.bias(coder, have, order == RowOrder::Marked && count == 0)?,
            };
            biases.push(bias);
            if coder.exhausted() {
                return Err(PackedError::damaged("bias"));
            }
        }
        self.spent.biases += coder.spent() - start;
        Ok(biases)
    }

    fn bias(
        &mut self,
        coder: &mut impl Coder,
        have: i32,
        of_empty: bool,
    ) -> Result<i32, PackedError> {
        let base = if of_empty { 2 * UNIT } else { -UNIT * 3 / 2 };
        let context = usize::from(of_empty);
        if self.bias_is_zero.code(coder, have == 0, base, [context]) {
            return Ok(0);
        }
        let negative = self.bias_signs.code(coder, have < 0, 0, [0]);
        let mut size = 1;
        while size < ESCAPE {
            let n = size as usize - 1;
            if !self
                .bias_sizes
                .code(coder, have.abs() > size, UNIT, [n.min(3), n])
            {
                break;
            }
            size += 1;
        }
        self.finish_level(coder, have, size, negative)
    }
}

/// Log-odds, at first, that a row has no non-zeros.
const RARELY_EMPTY: i32 = -2 * UNIT;

/// Log-odds, at first, that a magnitude is larger than it is so far.
const LONGER: i32 = UNIT * 2 / 5;

/// Numbers of either sign as numbers from 0: 0, -1, 1, -2, ...
pub(super) fn zigzag(n: i32) -> u32 {
    (n << 1 ^ n >> 31) as u32
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(z: u32) -> i32 {
    (z >> 1) as i32 ^ -((z & 1) as i32)
}
