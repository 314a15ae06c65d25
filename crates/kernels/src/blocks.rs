//! Feature maps cut into spatial blocks: a space-to-batch with contiguous blocks, one for each SIMD lane.
//!
//! A grid cuts the map into sixteen rectangles of equal size. A *line* of sixteen floats holds the same pixel of all blocks. So to move by one
//! pixel, in any direction, is to move by a whole line: every load of a window is aligned, and strides, dilations and pooling do not mix lanes.
//! Each block is surrounded by a *halo*, as wide as the windows of the next layer reach: copies of pixels of the neighbouring blocks, and zeros
//! outside of the map.

use sparsevd_model::Window;

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::isa::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::transpose::{RUN, lines_of_runs, runs_of_lines};
use crate::{Isa, LANES, length};

/// Most lines of a row that convolutions compute at once.
pub(crate) const TILE: usize = 4;

/// The layout of a feature map `[c, h, w]` in spatial blocks: `[c][rows][columns][16]`, where rows and columns are those of a block with its halo.
///
/// After a channel there may be a gap of one line.
///
/// # Invariants
/// - a slice can hold all channels, or one where there is none: no product of their sides wraps, and no place in one
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blocks {
    map: [usize; 3],
    grid: [usize; 2],
    block: [usize; 2],
    /// Rows above, columns on the left, rows below, columns on the right.
    halo: [usize; 4],
    /// Whether blocks that lie wholly outside of the map hold zeros; else they may hold anything.
    zeros_outside: bool,
}

impl Blocks {
    /// The blocks of a map under the grid that gives the fewest lines and tiles; without a halo.
    ///
    /// # Panics
    /// When no slice can hold a map in blocks, as all that make them.
    #[track_caller]
    pub fn of_map(map: [usize; 3]) -> Self {
        let cut = |grid| Self::cut(map, grid);
        // A tile costs two fifths of a line more than its lines.
        let cost = |b: &Self| b.block[0] * (b.block[1] * 5 + b.block[1].div_ceil(TILE) * 2);
        let grids = [[8, 2], [2, 8], [16, 1], [1, 16]].map(cut);
        let square = cut([4, 4]);
        grids.into_iter().fold(square, |best, other| {
            // Oblong blocks keep fewer lines in the cache.
            if cost(&other) * 20 < cost(&best) * 19 {
                other
            } else {
                best
            }
        })
    }

    /// The map of a tile of sixteen samples ([`crate::Layout::Tiled`]), for kernels that work whatever the lanes are: one block, the whole map, whose
    /// lanes are samples. Its halo holds only padding.
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[track_caller]
    pub fn of_tile(map: [usize; 3]) -> Self {
        Self::cut(map, [1, 1])
    }

    /// Whether lanes are samples ([`Blocks::of_tile`]).
    pub fn is_tile(&self) -> bool {
        self.grid == [1, 1]
    }

    #[track_caller]
    fn cut(map: [usize; 3], grid: [usize; 2]) -> Self {
        Self {
            map,
            grid,
            block: [0, 1].map(|d| map[d + 1].div_ceil(grid[d])),
            halo: [0; 4],
            zeros_outside: false,
        }
        .checked()
    }

    /// These blocks.
    ///
    /// # Panics
    /// When no slice can hold a map in them, or the map alone.
    #[track_caller]
    fn checked(self) -> Self {
        let Self {
            map: [channels, height, width],
            grid,
            block,
            halo,
            ..
        } = self;
        length::planned("a map", [channels, height, width]);
        let sides = [0, 1].map(|d| {
            let side = length::sum("lines of a block", [halo[d], block[d], halo[d + 2], 1]);
            // Corners of blocks are counted in pixels of the map.
            length::planned("the blocks of a map", [block[d], grid[d], LANES]);
            side
        });
        length::planned("a map in blocks", [channels, sides[0], sides[1], LANES]);
        self
    }

    /// The blocks of another map under the same grid, if they have no more lines than [`Blocks::of_map`], else those; without a halo.
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[must_use]
    #[track_caller]
    pub fn alike(&self, map: [usize; 3]) -> Self {
        let (alike, best) = (Self::cut(map, self.grid), Self::of_map(map));
        if alike.lines() <= best.lines() {
            alike
        } else {
            best
        }
    }

    /// The blocks of the output `map` of windows with `strides` over this map, in which each lane depends only on the same lane of this map; without a
    /// halo. `None` where there are none, or they have more lines than [`Blocks::of_map`].
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[track_caller]
    pub fn over(&self, map: [usize; 3], strides: [usize; 2]) -> Option<Self> {
        let divides = (0..2).all(|d| self.block[d].is_multiple_of(strides[d]));
        let blocks = Self {
            map,
            grid: self.grid,
            block: [0, 1].map(|d| self.block[d] / strides[d].max(1)),
            halo: [0; 4],
            zeros_outside: false,
        };
        let whole = (0..2).all(|d| blocks.block[d] * blocks.grid[d] >= map[d + 1]);
        let few = || self.is_tile() || blocks.lines() <= Self::of_map(map).lines();
        (divides && whole && few()).then(|| blocks.checked())
    }

    /// The same blocks with a halo at least this wide: rows above, columns on the left, rows below, columns on the right.
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[must_use]
    #[track_caller]
    pub fn with_halo(self, halo: [usize; 4]) -> Self {
        Self {
            halo: std::array::from_fn(|i| self.halo[i].max(halo[i])),
            ..self
        }
        .checked()
    }

    /// The blocks of the input `map` of windows with `strides` whose outputs are in these blocks; without a halo.
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[must_use]
    #[track_caller]
    pub fn under(self, map: [usize; 3], strides: [usize; 2]) -> Self {
        if self.is_tile() {
            return Self::of_tile(map);
        }
        Self {
            map,
            grid: self.grid,
            block: [0, 1].map(|d| self.block[d].saturating_mul(strides[d])),
            halo: [0; 4],
            zeros_outside: false,
        }
        .checked()
    }

    /// The same blocks for windows whose outputs lie in `output`: where one begins in a block that lies wholly outside of this map, as it may where
    /// windows lie in the padding, such blocks hold zeros.
    #[must_use]
    pub(crate) fn read_for(self, output: &Self) -> Self {
        let (read, there) = (output.inside(0, 0), self.inside(0, 0));
        let outside = (0..LANES).any(|lane| read[lane] && !there[lane]);
        Self {
            zeros_outside: self.zeros_outside || outside,
            ..self
        }
    }

    /// The halo that a window needs: its padding above and on the left, and its overlap with the next block below and on the right.
    pub fn halo_of(window: &Window) -> [usize; 4] {
        let [top, left, ..] = window.pads;
        let overlap = |d: usize| {
            let last = window.dilations[d].saturating_mul(window.kernel_shape[d].saturating_sub(1));
            let reach = last.saturating_add(1);
            reach.saturating_sub(window.strides[d].saturating_add(window.pads[d]))
        };
        [top, left, overlap(0), overlap(1)]
    }

    /// Whether a kernel that needs `other` can read this layout: the same blocks, a halo at least as wide, and zeros outside of the map where it
    /// needs them.
    pub fn covers(&self, other: &Self) -> bool {
        let same = (self.map, self.grid, self.block) == (other.map, other.grid, other.block);
        let zeros = self.zeros_outside >= other.zeros_outside;
        same && zeros && (0..4).all(|i| self.halo[i] >= other.halo[i])
    }

    /// Whether `other` has the same map and grid, so that [`crate::reblock::Reblock`] can convert to it.
    pub fn regroups(&self, other: &Self) -> bool {
        (self.map, self.grid) == (other.map, other.grid)
    }

    /// Channels, height and width.
    pub fn map(&self) -> [usize; 3] {
        self.map
    }

    /// Rows and columns of a block.
    pub fn block(&self) -> [usize; 2] {
        self.block
    }

    /// Rows above, columns on the left, rows below and columns on the right of each block.
    pub fn halo(&self) -> [usize; 4] {
        self.halo
    }

    /// Lines of a channel without its halo.
    pub fn lines(&self) -> usize {
        self.block[0] * self.block[1]
    }

    /// Lines in a row of a block with its halo.
    pub(crate) fn pitch(&self) -> usize {
        self.halo[1] + self.block[1] + self.halo[3]
    }

    /// Lines of a channel with halos, and a gap that keeps channels off the same sets of the cache.
    pub(crate) fn channel(&self) -> usize {
        let lines = self.height() * self.pitch();
        if self.is_tile() { lines } else { lines | 1 }
    }

    /// The line of a pixel of every block in its channel; `row` and `column` are negative above and on the left of the block.
    pub(crate) fn line(&self, row: isize, column: isize) -> usize {
        let row = self.halo[0].wrapping_add_signed(row);
        row * self.pitch() + self.halo[1].wrapping_add_signed(column)
    }

    /// Line and lane of a pixel of the map.
    pub(crate) fn place(&self, y: usize, x: usize) -> (usize, usize) {
        let [bh, bw] = self.block;
        let line = self.line((y % bh).cast_signed(), (x % bw).cast_signed());
        (line, y / bh * self.grid[1] + x / bw)
    }

    /// The pixel of the map at (row, column) of a block, counted from the corner of its halo; above and on the left of the map it wraps to a large number.
    pub(crate) fn pixel(&self, lane: usize, row: usize, column: usize) -> [usize; 2] {
        let origin = self.origins()[lane];
        [origin[0].wrapping_add(row), origin[1].wrapping_add(column)]
    }

    /// For each lane the pixel of the map at the corner of its block's halo, as [`Blocks::pixel`] says.
    pub(crate) fn origins(&self) -> [[usize; 2]; LANES] {
        self.corners().map(|corner| {
            let side = |d: usize| corner[d].cast_unsigned().wrapping_sub(self.halo[d]);
            [side(0), side(1)]
        })
    }

    /// Whether blocks that lie wholly outside of the map hold zeros.
    pub(crate) fn zeros_outside(&self) -> bool {
        self.zeros_outside
    }

    /// Rows and columns of blocks.
    pub(crate) fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Rows of a block with its halo.
    pub(crate) fn height(&self) -> usize {
        self.halo[0] + self.block[0] + self.halo[2]
    }

    /// Whether the layout is the same as without blocks: four by four pixels, each a block.
    pub fn is_plain(&self) -> bool {
        let [_, h, w] = self.map;
        ([h, w], self.grid, self.channel()) == ([4, 4], [4, 4], 1)
    }

    /// Floats of one sample.
    pub fn len(&self) -> usize {
        self.map[0] * self.channel() * LANES
    }

    /// Floats that hold one sample of bytes in place of floats.
    pub fn byte_len(&self) -> usize {
        self.len() / size_of::<f32>()
    }

    /// The same blocks of `channels` channels.
    ///
    /// # Panics
    /// As [`Blocks::of_map`].
    #[must_use]
    #[track_caller]
    pub fn with_channels(self, channels: usize) -> Self {
        let [_, h, w] = self.map;
        Self {
            map: [channels, h, w],
            ..self
        }
        .checked()
    }

    /// Whether there are no pixels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For each lane, whether pixel (row, column) of its block, possibly in the halo, lies in the map.
    pub(crate) fn inside(&self, row: isize, column: isize) -> [bool; LANES] {
        let [_, h, w] = self.map.map(|n| n.cast_signed());
        self.corners()
            .map(|[y, x]| (0..h).contains(&(y + row)) && (0..w).contains(&(x + column)))
    }

    /// The first pixel of each block.
    fn corners(&self) -> [[isize; 2]; LANES] {
        if self.is_tile() {
            return [[0; 2]; LANES];
        }
        std::array::from_fn(|lane| {
            [
                (lane / self.grid[1] * self.block[0]).cast_signed(),
                (lane % self.grid[1] * self.block[1]).cast_signed(),
            ]
        })
    }

    /// Converts `[n][c][h][w]` to `n` samples in blocks with their halos.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn pack(&self, isa: Isa, x: &[f32], n: usize, y: &mut [f32]) {
        let [c, h, w] = self.map;
        length::check("x", x.len(), [n, c, h, w]);
        length::check("y", y.len(), [n, self.len()]);
        if pack_few(self, x, y) {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if isa.level() == Level::Avx512 {
            // SAFETY: an `Isa` of this level is only made where the features were detected.
            return unsafe { pack_avx512(self, x, y) };
        }
        pack(isa, self, x, y);
    }

    /// Converts `n` samples in blocks to `[n][c][h][w]`.
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn unpack(&self, isa: Isa, x: &[f32], n: usize, y: &mut [f32]) {
        let [c, h, w] = self.map;
        length::check("x", x.len(), [n, self.len()]);
        length::check("y", y.len(), [n, c, h, w]);
        #[cfg(target_arch = "x86_64")]
        if isa.level() == Level::Avx512 {
            // SAFETY: an `Isa` of this level is only made where the features were detected.
            return unsafe { unpack_avx512(self, x, y) };
        }
        unpack(isa, self, x, y);
    }
}

multiversion!(fn pack(blocks: &Blocks, x: &[f32], y: &mut [f32]) = pack_body;);
multiversion!(fn unpack(blocks: &Blocks, x: &[f32], y: &mut [f32]) = unpack_body;);

/// Pixels of a row of each block that go through registers at once.
#[cfg(not(target_arch = "x86_64"))]
const RUN: usize = 8;

/// Packs maps of a few pixels, most of whose lanes are zeros; `false` where there are more.
fn pack_few(blocks: &Blocks, x: &[f32], y: &mut [f32]) -> bool {
    /// Most numbers of a channel, halos included, that are copied one by one.
    const FEW: usize = 128;
    let [_, h, w] = blocks.map;
    if h * w > LANES {
        return false;
    }
    let mut places = [[0; 2]; FEW];
    let mut count = 0;
    let origins = blocks.origins();
    for row in 0..blocks.height() {
        for column in 0..blocks.pitch() {
            for (lane, origin) in origins.into_iter().enumerate() {
                let [y, x] = [origin[0].wrapping_add(row), origin[1].wrapping_add(column)];
                if y < h && x < w {
                    let Some(place) = places.get_mut(count) else {
                        return false;
                    };
                    *place = [y * w + x, (row * blocks.pitch() + column) * LANES + lane];
                    count += 1;
                }
            }
        }
    }
    let channels = y.chunks_exact_mut((blocks.channel() * LANES).max(1));
    for (map, channel) in x.chunks_exact((h * w).max(1)).zip(channels) {
        channel.fill(0.0);
        for &[from, to] in &places[..count] {
            channel[to] = map[from];
        }
    }
    true
}

#[inline(always)]
fn pack_body(blocks: &Blocks, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = blocks.map;
    let [top, left, bottom, right] = blocks.halo.map(|n| n.cast_signed());
    let [bh, bw] = blocks.block.map(|n| n.cast_signed());
    let corners = blocks.corners();
    for (map, channel) in x
        .chunks_exact((h * w).max(1))
        .zip(y.chunks_exact_mut((blocks.channel() * LANES).max(1)))
    {
        for row in -top..bh + bottom {
            for column in (-left..bw + right).step_by(RUN) {
                let mut runs = [[0.0; RUN]; LANES];
                for (run, [y, x]) in runs.iter_mut().zip(corners) {
                    let (y, x) = (y + row, x + column);
                    if y < 0 || y >= h.cast_signed() {
                        continue;
                    }
                    let from = &map[y.cast_unsigned() * w..][..w];
                    if x >= 0 && x.cast_unsigned() + RUN <= w {
                        run.copy_from_slice(&from[x.cast_unsigned()..][..RUN]);
                    } else {
                        for (i, v) in run.iter_mut().enumerate() {
                            *v = from
                                .get(x.wrapping_add_unsigned(i).cast_unsigned())
                                .map_or(0.0, |v| *v);
                        }
                    }
                }
                let lines = (bw + right - column).min(RUN.cast_signed()).cast_unsigned();
                let to = &mut channel[blocks.line(row, column) * LANES..][..lines * LANES];
                for (i, line) in to.chunks_exact_mut(LANES).enumerate() {
                    for lane in 0..LANES {
                        line[lane] = runs[lane][i];
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn unpack_body(blocks: &Blocks, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = blocks.map;
    let [bh, bw] = blocks.block;
    let corners = blocks.corners();
    for (channel, map) in x
        .chunks_exact((blocks.channel() * LANES).max(1))
        .zip(y.chunks_exact_mut((h * w).max(1)))
    {
        for row in 0..bh {
            for column in (0..bw).step_by(RUN) {
                let lines = (bw - column).min(RUN);
                let at = blocks.line(row.cast_signed(), column.cast_signed());
                let mut runs = [[0.0; RUN]; LANES];
                for (i, line) in channel[at * LANES..][..lines * LANES]
                    .chunks_exact(LANES)
                    .enumerate()
                {
                    for lane in 0..LANES {
                        runs[lane][i] = line[lane];
                    }
                }
                for (run, at) in runs.iter().zip(corners) {
                    let (y, x) = (at[0].cast_unsigned() + row, at[1].cast_unsigned() + column);
                    if y >= h || x >= w {
                        continue;
                    }
                    let to = &mut map[y * w + x..(y + 1) * w];
                    if lines == RUN && to.len() >= RUN {
                        to[..RUN].copy_from_slice(run);
                    } else {
                        for (to, v) in to.iter_mut().zip(&run[..lines]) {
                            *to = *v;
                        }
                    }
                }
            }
        }
    }
}

/// The masks of the blocks, cleared where `row` of a block lies outside of the map.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn in_rows(
    corners: &[[isize; 2]; LANES],
    row: isize,
    h: isize,
    mut masks: [u8; LANES],
) -> [u8; LANES] {
    // Most rows lie in the map in every block.
    if row < 0 || corners[LANES - 1][0] + row >= h {
        for (mask, [y, _]) in masks.iter_mut().zip(corners) {
            if !(0..h).contains(&(y + row)) {
                *mask = 0;
            }
        }
    }
    masks
}

/// As [`pack_body`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn pack_avx512(blocks: &Blocks, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = blocks.map.map(|n| n.cast_signed());
    let [top, left, bottom, right] = blocks.halo.map(|n| n.cast_signed());
    let [bh, bw] = blocks.block.map(|n| n.cast_signed());
    let corners = blocks.corners();
    // Loops in place of closures, which may be compiled apart from this function, without its features.
    let (mut runs, mut columns) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let [y, x] = corners[lane];
        (runs[lane], columns[lane]) = (y * w + x, x);
    }
    for (map, channel) in x
        .chunks_exact((h * w).max(1).cast_unsigned())
        .zip(y.chunks_exact_mut((blocks.channel() * LANES).max(1)))
    {
        for column in (-left..bw + right).step_by(RUN) {
            let lines = (bw + right - column).min(RUN.cast_signed()).cast_unsigned();
            let mut masks = [0; LANES];
            for lane in 0..LANES {
                let x = columns[lane] + column;
                let (first, end) = ((-x).clamp(0, 8), (w - x).clamp(0, 8));
                masks[lane] = (((1_u32 << end) - 1) & !((1 << first) - 1)) as u8;
            }
            for row in -top..bh + bottom {
                let masks = in_rows(&corners, row, h, masks);
                let from = map.as_ptr().wrapping_offset(row * w + column);
                let to = &mut channel[blocks.line(row, column) * LANES..][..lines * LANES];
                // SAFETY: masks limit loads to pixels of the map; `to` holds `lines` lines.
                unsafe { lines_of_runs(from, &runs, &masks, to.as_mut_ptr(), lines) };
            }
        }
    }
}

/// As [`unpack_body`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn unpack_avx512(blocks: &Blocks, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = blocks.map.map(|n| n.cast_signed());
    let [bh, bw] = blocks.block.map(|n| n.cast_signed());
    let corners = blocks.corners();
    // Loops in place of closures, which may be compiled apart from this function, without its features.
    let (mut runs, mut columns) = ([0; LANES], [0; LANES]);
    for lane in 0..LANES {
        let [y, x] = corners[lane];
        (runs[lane], columns[lane]) = (y * w + x, x);
    }
    for (channel, map) in x
        .chunks_exact((blocks.channel() * LANES).max(1))
        .zip(y.chunks_exact_mut((h * w).max(1).cast_unsigned()))
    {
        for column in (0..bw).step_by(RUN) {
            let lines = (bw - column).min(RUN.cast_signed());
            let mut masks = [0; LANES];
            for lane in 0..LANES {
                let inside = (w - columns[lane] - column).clamp(0, lines);
                masks[lane] = ((1_u32 << inside) - 1) as u8;
            }
            for row in 0..bh {
                let masks = in_rows(&corners, row, h, masks);
                let lines = lines.cast_unsigned();
                let from = &channel[blocks.line(row, column) * LANES..][..lines * LANES];
                let to = map.as_mut_ptr().wrapping_offset(row * w + column);
                // SAFETY: masks limit stores to pixels of the map; `from` holds `lines` lines.
                unsafe { runs_of_lines(from.as_ptr(), lines, to, &runs, &masks) };
            }
        }
    }
}
