//! Blocks of rows of a large matrix, each coded by itself with static frequencies.

use sparsevd_model::quantised::MAX_LEVEL;

use super::crc::Crc;
use super::error::PackedError;
use super::matrix::{unzigzag, zigzag};
use super::rans::{Decoder, Encoder, Table};

/// Elements, zeros included, that a chunk has at least, where the matrix has as many.
const CELLS: usize = 1 << 18;

/// The value symbol that two bytes follow.
const ESCAPE: u8 = 255;

/// Most value symbols, the escape among them.
pub(super) const SYMBOLS: usize = 256;

/// Rows of each chunk of a matrix but the last.
pub(super) fn rows_per_chunk(rows: usize, cols: usize) -> usize {
    CELLS.div_ceil(cols.max(1)).clamp(1, rows.max(1))
}

/// Frequencies of the lengths of runs of zeros before a non-zero, where `nonzeros` of `cells` are non-zero: geometric. One last symbol,
/// whose number is returned too, is a run of that many zeros that no non-zero ends.
fn gaps(nonzeros: u64, cells: u64) -> (Table, usize) {
    let zero = ((cells - nonzeros) << 32) / cells.max(1);
    // What is left, of 2^32, after each zero.
    let mut left = 1_u64 << 32;
    let mut weights = Vec::new();
    while weights.len() < 255 && (left > 1 << 22 || weights.is_empty()) {
        let next = (left * zero) >> 32;
        weights.push(left - next);
        left = next;
    }
    let run = weights.len();
    weights.push(left);
    (Table::new(&weights), run)
}

/// Symbol of a level that is not zero, and what follows an escape.
fn symbol(level: i32) -> (u8, u16) {
    let n = zigzag(level) - 1;
    match u8::try_from(n) {
        Ok(n) if n < ESCAPE => (n, 0),
        _ => (ESCAPE, n as u16),
    }
}

/// How often each value symbol occurs, up to the last one that does.
pub(super) fn histogram(levels: &[i32]) -> Vec<u64> {
    let mut counts = vec![0_u64; SYMBOLS];
    for &level in levels {
        counts[usize::from(symbol(level).0)] += 1;
    }
    let end = counts
        .iter()
        .rposition(|c| *c > 0)
        .map_or(0, |last| last + 1);
    counts.truncate(end);
    counts
}

/// One chunk of a matrix.
pub(super) struct Chunk<'a> {
    pub rows: usize,
    pub cols: usize,
    /// Frequencies of the value symbols.
    pub values: &'a Table,
}

impl Chunk<'_> {
    /// The bytes of the non-zeros of a block of rows; `starts` are where its rows start, and the end, in
    /// `columns` and `levels`.
    pub fn encode(&self, starts: &[u32], columns: &[u32], levels: &[i32]) -> Vec<u8> {
        let range = starts[0] as usize..starts[self.rows] as usize;
        let nonzeros = range.len();
        if nonzeros == 0 {
            return Vec::new();
        }
        let cells = self.rows as u64 * self.cols as u64;
        let (table, run) = gaps(nonzeros as u64, cells);
        let mut crc = Crc::new();
        let mut symbols = Vec::with_capacity(nonzeros);
        let mut next = 0_u64;
        for row in 0..self.rows {
            for i in starts[row] as usize..starts[row + 1] as usize {
                let cell = row as u64 * self.cols as u64 + u64::from(columns[i]);
                push(&mut crc, cell, levels[i]);
                symbols.push((cell - next, levels[i]));
                next = cell + 1;
            }
        }
        let mut encoder = Encoder::new();
        for &(gap, level) in symbols.iter().rev() {
            let (symbol, more) = symbol(level);
            if symbol == ESCAPE {
                more.to_le_bytes()
                    .iter()
                    .rev()
                    .for_each(|b| encoder.byte(*b));
            }
            encoder.symbol(self.values, symbol);
            encoder.symbol(&table, (gap % run as u64) as u8);
            for _ in 0..gap / run as u64 {
                encoder.symbol(&table, run as u8);
            }
        }
        let mut bytes = crc.value().to_le_bytes().to_vec();
        bytes.extend(encoder.finish());
        bytes
    }

    /// Reads the non-zeros of a block of rows into `columns` and `levels`, which have their number, and how many each
    /// row has into `counts`.
    pub fn decode(
        &self,
        bytes: &[u8],
        counts: &mut [u32],
        columns: &mut [u32],
        levels: &mut [i32],
    ) -> Result<(), PackedError> {
        let bad = || PackedError::damaged("chunk");
        if columns.is_empty() {
            return if bytes.is_empty() { Ok(()) } else { Err(bad()) };
        }
        let (checksum, stream) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
        let mut decoder = Decoder::new(stream).ok_or_else(bad)?;
        let cells = self.rows as u64 * self.cols as u64;
        let (table, run) = gaps(columns.len() as u64, cells);
        let mut crc = Crc::new();
        let cols = self.cols as u64;
        // The cell after the last non-zero, and its row's first cell.
        let (mut next, mut row, mut row_start) = (0_u64, 0, 0_u64);
        for (column, level) in columns.iter_mut().zip(levels) {
            loop {
                let gap = usize::from(decoder.symbol(&table));
                next += gap as u64;
                if gap < run {
                    break;
                }
                if next >= cells {
                    return Err(bad());
                }
            }
            if next >= cells {
                return Err(bad());
            }
            while next - row_start >= cols {
                row += 1;
                row_start += cols;
            }
            let n = match decoder.symbol(self.values) {
                ESCAPE => u32::from(u16::from_le_bytes([decoder.byte(), decoder.byte()])),
                n => u32::from(n),
            };
            *level = unzigzag(n + 1);
            if level.abs() > MAX_LEVEL {
                return Err(bad());
            }
            *column = (next - row_start) as u32;
            counts[row] += 1;
            push(&mut crc, next, *level);
            next += 1;
        }
        if !decoder.is_at_end() || crc.value() != u32::from_le_bytes(*checksum) {
            return Err(bad());
        }
        Ok(())
    }
}

fn push(crc: &mut Crc, cell: u64, level: i32) {
    let [a, b, c, d] = (cell as u32).to_le_bytes();
    let [e, f] = (level as i16).to_le_bytes();
    [a, b, c, d, e, f].iter().for_each(|byte| crc.push(*byte));
}
