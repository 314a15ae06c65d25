//! Weights of a convolution that are not zero, times strips of sixty-four pixels.
//!
//! Four lines of output at a time, any four, are a tile of sixty-four samples of a matrix product: the lines that its weights read, one for each
//! (input channel, ky, kx) that any filter has, are gathered side by side, and multiplied by [`super::any4`]. So every line that a step reads
//! begins at a cache line, in as few sets of the cache as need be, whatever strides and maps are. Gathering is a few per cent of the time of large layers,
//! and up to a fifth of that of small ones with few weights.

use super::CACHE;
use super::any4::{Any4, Entry, Last, Output, Partial, Product, Unpacked};
use super::dot::{Dot, Task};
use super::lanes::{Joined, Lanes, SAMPLES};
use super::strip::{Strip, StripOutput};
use crate::LANES;

/// The weights of filters that are not zero.
///
/// # Invariants
/// Columns of a matrix are below the number of its places; all rows are in the first and in the last one.
#[derive(Debug, Clone)]
pub(super) struct Nonzeros {
    columns: Vec<Columns>,
    /// Weights.
    count: usize,
    /// Filters.
    rows: usize,
}

/// Some of the lines that filters read, and their weights.
#[derive(Debug, Clone)]
struct Columns {
    /// Lines of the image before those that are gathered for a strip.
    places: Vec<u32>,
    matrix: Any4,
}

/// Lines of each [`Columns`]: as many as stay in the first-level cache, where the rows have enough weights in each to make up for keeping their sums between;
/// else all.
fn lines_at_once(places: usize, line: usize, nonzeros: usize, rows: usize) -> usize {
    /// Weights of a row.
    const LEAST: usize = 14;
    let blocks = (places * line).div_ceil(CACHE).max(1);
    match nonzeros / (rows * blocks).max(1) >= LEAST {
        true => places.div_ceil(blocks).max(1),
        false => places.max(1),
    }
}

impl Nonzeros {
    /// The weights of filters that are not zero. `line` says which line of the image an entry reads.
    pub fn pack(dot: Dot, filters: Vec<Unpacked>, line: impl Fn(u32) -> u32) -> Self {
        // The lines that any of these filters reads, in their order in memory.
        let read = filters.iter().flat_map(|filter| &filter.entries);
        let mut places: Vec<u32> = read.map(|entry| line(entry.0)).collect();
        places.sort_unstable();
        places.dedup();
        let row_count = filters.len();
        let count = filters.iter().map(|filter| filter.entries.len()).sum();
        let at_once = lines_at_once(places.len(), dot.line(), count, row_count);
        let chunks = places.len().div_ceil(at_once).max(1);
        let mut rows: Vec<Vec<(u32, Unpacked)>> = (0..chunks).map(|_| Vec::new()).collect();
        for (row, whole) in (0..).zip(filters) {
            let place = |&(k, level): &Entry| {
                let place = places.binary_search(&line(k));
                let place = place.expect("a line that a filter reads");
                (u32::try_from(place).expect("as many as lines"), level)
            };
            let mut entries: Vec<Entry> = whole.entries.iter().map(place).collect();
            entries.sort_unstable_by_key(|&(place, _)| place);
            let mut entries = &entries[..];
            for (chunk, rows) in rows.iter_mut().enumerate() {
                let first = chunk * at_once;
                let end = entries.partition_point(|e| (e.0 as usize) < first + at_once);
                let (part, rest) = entries.split_at(end);
                entries = rest;
                if part.is_empty() && chunk > 0 && chunk + 1 < chunks {
                    continue;
                }
                let first = u32::try_from(first).expect("as many as lines");
                let part = part.iter().map(|&(place, level)| (place - first, level));
                rows.push((
                    row,
                    Unpacked {
                        entries: part.collect(),
                        ..whole
                    },
                ));
            }
        }
        let places_of = |chunk: usize| {
            let places = &places[chunk * at_once..];
            places[..at_once.min(places.len())].to_vec()
        };
        let columns = rows.into_iter().enumerate().map(|(chunk, rows)| Columns {
            places: places_of(chunk),
            matrix: Any4::pack_some(dot, rows, dot.line()),
        });
        Self {
            columns: columns.collect(),
            count,
            rows: row_count,
        }
    }

    /// The last line of the image before those that a strip reads.
    pub fn last_place(&self) -> Option<usize> {
        let places = self.columns.iter().flat_map(|c| &c.places);
        places.max().map(|place| *place as usize)
    }

    /// Multiply-adds and gathered bytes of each pixel.
    pub fn work(&self) -> [usize; 2] {
        let places = self.columns.iter().map(|c| c.places.len()).sum();
        [self.count, places]
    }

    /// Bytes of the lines that are gathered at once, of `line` bytes each, for `strips` strips.
    pub fn lines_len(&self, line: usize, strips: usize) -> usize {
        let most = self.columns.iter().map(|c| c.places.len()).max();
        self.strips_at_once(line, strips) * most.unwrap_or(0) * line
    }

    /// Sums over some of the columns of a strip.
    pub fn sums_len(&self) -> usize {
        match self.columns.len() {
            0 | 1 => 0,
            _ => self.rows * SAMPLES,
        }
    }

    /// Strips that are gathered together, as many as stay in the first-level cache: so neighbouring lines of a channel of output are written one after the
    /// other, and weights are read less often.
    fn strips_at_once(&self, line: usize, strips: usize) -> usize {
        let [columns] = &self.columns[..] else {
            return 1;
        };
        let strip = columns.places.len() * line;
        (CACHE / strip.max(1)).clamp(1, strips.max(1))
    }

    /// Bytes of packed weights, offsets, row numbers, scales and offsets.
    pub fn bytes(&self) -> usize {
        let bytes = |c: &Columns| c.matrix.bytes() + size_of_val(&c.places[..]);
        self.columns.iter().map(bytes).sum()
    }
}

/// All strips of a sample, or of a tile.
///
/// `x` is readable for the lines that places and strips say, `lines` writable for a line for each place of some columns and [`Nonzeros::strips_at_once`] strips,
/// `sums` for [`Nonzeros::sums_len`] sums, and what the output says holds for each strip.
pub(super) struct NonzeroStrips<'a> {
    pub nonzeros: &'a Nonzeros,
    pub x: *const u8,
    pub lines: *mut u8,
    pub sums: *mut i32,
    pub output: StripOutput<'a>,
}

impl Task for NonzeroStrips<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let (all, parts) = (self.output.strips, &self.nonzeros.columns[..]);
        let at_once = self.nonzeros.strips_at_once(SAMPLES * L::FORMS, all.len());
        for strips in all.chunks(at_once) {
            let output = StripOutput {
                strips,
                ..self.output
            };
            // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
            unsafe {
                if let [columns] = parts {
                    self.product::<L, _>(columns, strips, output);
                    continue;
                }
                for (i, columns) in parts.iter().enumerate() {
                    let before = Partial {
                        sums: self.sums,
                        begins: i == 0,
                    };
                    if i + 1 < parts.len() {
                        self.product::<L, _>(columns, strips, before);
                    } else {
                        self.product::<L, _>(columns, strips, Last { before, output });
                    }
                }
            }
        }
    }
}

impl NonzeroStrips<'_> {
    /// Gathers the lines of some columns for a strip. `joined` is that of the strip, as a constant, so that each kind has a loop of its own.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn gather<L: Lanes>(
        &self,
        columns: &Columns,
        strip: &Strip,
        joined: Joined,
        to: *mut u8,
    ) {
        for (i, &place) in columns.places.iter().enumerate() {
            // SAFETY: by the contract of this function.
            unsafe {
                let from = |k: usize| {
                    let line = place as usize + strip.x[k] as usize;
                    self.x.add(line * LANES)
                };
                let from = [from(0), from(1), from(2), from(3)];
                L::copy_line(from, joined, to.add(i * SAMPLES * L::FORMS));
            }
        }
    }

    /// Gathers the lines of some columns for strips, and multiplies them.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn product<L: Lanes, O: Output>(&self, columns: &Columns, strips: &[Strip], output: O) {
        let line = SAMPLES * L::FORMS;
        let tile = columns.places.len() * line;
        // SAFETY: by the contract of this function.
        unsafe {
            for (t, strip) in strips.iter().enumerate() {
                let to = self.lines.add(t * tile);
                match strip.joined[0] {
                    Joined::Apart => self.gather::<L>(columns, strip, Joined::Apart, to),
                    Joined::Pairs => self.gather::<L>(columns, strip, Joined::Pairs, to),
                    Joined::Four => self.gather::<L>(columns, strip, Joined::Four, to),
                }
            }
            let product = Product {
                matrix: &columns.matrix,
                x: self.lines,
                tile,
                tiles: strips.len(),
                at_once: strips.len(),
                output,
            };
            product.run::<L>();
        }
    }
}
