//! Products with the weights of a layer that were not removed, and the gradients of those alone.
//!
//! A removed weight costs nothing here, so a step of a network that is 95 % zeros does a twentieth of the multiply-adds. The
//! places of zeros follow no pattern, so vectors run over samples: `[channel][position][lane]`, where a lane is one of
//! [`LANES`] samples. Every multiply-add then has one weight, broadcast, and a vector that lies in memory as it is needed,
//! whichever weights are left. Distances ("steps") and places are in vectors.

use crate::simd::{Simd, simd_dispatch};
use crate::training::Real;
use crate::{Isa, LANES, Level};

/// The weights that are left, by rows as in CSR: of row `r`, numbers `starts[r]` to `starts[r + 1]` of an array of weights, each of
/// which multiplies the vector at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taps {
    starts: Vec<usize>,
    places: Vec<u32>,
    /// One more than the largest place.
    end: usize,
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

    fn is_empty(&self) -> bool {
        self.size.contains(&0)
    }
}

/// Checks that the vectors from `first` on, at all positions, are in an array of `len` numbers.
#[track_caller]
fn check(what: &str, len: usize, first: usize, grid: Grid) {
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
fn last_row(rows: usize, plane: usize) -> usize {
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

/// `to[row][position] = first[row] + sum of weights[tap] * from[place of tap + position]`, over the taps of each row.
///
/// `first` is the bias; without it sums begin at zero. `from.plane` is not used, since places are in the whole array.
///
/// # Panics
/// When a vector lies outside its array, or grids and lengths disagree.
#[track_caller]
pub fn sparse_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    weights: &[T],
    first: Option<&[T]>,
    from: Plane<&[T]>,
    to: Plane<&mut [T]>,
) {
    assert_eq!(weights.len(), taps.len(), "weights");
    assert_eq!(from.grid.size, to.grid.size, "positions");
    assert!(first.is_none_or(|f| f.len() == taps.rows()), "bias");
    if taps.rows() == 0 || to.grid.is_empty() {
        return;
    }
    if !taps.is_empty() {
        check("input", from.array.len(), taps.end - 1, from.grid);
    }
    check(
        "output",
        to.array.len(),
        last_row(taps.rows(), to.plane),
        to.grid,
    );
    // SAFETY: checked above.
    unsafe { T::sparse_product(isa, taps, weights, first, from, to) }
}

/// `gradients[tap] += sum over positions and lanes of by_output[row][position] * input[place of tap + position]`: gradients
/// of the weights of `rows`, in the order of their taps.
///
/// `input.plane` is not used, since places are in the whole array.
///
/// # Panics
/// When a vector lies outside its array, or grids and lengths disagree.
#[track_caller]
pub fn sampled_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    rows: std::ops::Range<usize>,
    by_output: Plane<&[T]>,
    input: Plane<&[T]>,
    gradients: &mut [T],
) {
    let here = taps.starts[rows.start]..taps.starts[rows.end];
    assert_eq!(gradients.len(), here.len(), "gradients");
    assert_eq!(by_output.grid.size, input.grid.size, "positions");
    if here.is_empty() || input.grid.is_empty() {
        return;
    }
    check("input", input.array.len(), taps.end - 1, input.grid);
    let last = last_row(rows.end, by_output.plane);
    check("gradient", by_output.array.len(), last, by_output.grid);
    // SAFETY: checked above.
    unsafe { T::sampled_product(isa, taps, rows, by_output, input, gradients) }
}

/// Numbers of up to sixteen samples, `[lane][position][channel]`: how far lanes and positions are apart.
#[derive(Debug, Clone, Copy)]
pub struct LaneLayout {
    /// LaneLayout that there are.
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
    fn check(&self, len: usize, size: [usize; 2]) {
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

/// Copies samples into vectors: `to[channel][position][lane] = from[lane][position][channel]`, zero in lanes without a sample.
///
/// # Panics
/// When a number lies outside its array.
#[track_caller]
pub fn to_lanes<T: Real>(isa: Isa, from: &[T], samples: LaneLayout, to: Plane<&mut [T]>) {
    if samples.channels == 0 || to.grid.is_empty() {
        return;
    }
    samples.check(from.len(), to.grid.size);
    check(
        "vectors",
        to.array.len(),
        last_row(samples.channels, to.plane),
        to.grid,
    );
    // SAFETY: checked above.
    unsafe { T::to_lanes(isa, from, samples, to) }
}

/// Copies vectors back into samples, or adds them: the inverse of [`to_lanes`].
///
/// # Panics
/// When a number lies outside its array.
#[track_caller]
pub fn from_lanes<T: Real>(
    isa: Isa,
    from: Plane<&[T]>,
    samples: LaneLayout,
    to: &mut [T],
    add: bool,
) {
    if samples.channels == 0 || from.grid.is_empty() {
        return;
    }
    samples.check(to.len(), from.grid.size);
    check(
        "vectors",
        from.array.len(),
        last_row(samples.channels, from.plane),
        from.grid,
    );
    // SAFETY: checked above.
    unsafe { T::from_lanes(isa, from, samples, to, add) }
}

/// Calls `visit` with each position and where it lies in `grid` and in `samples`.
#[inline(always)]
fn for_each_position(grid: Grid, samples: LaneLayout, mut visit: impl FnMut(usize, usize)) {
    for y in 0..grid.size[0] {
        for x in 0..grid.size[1] {
            visit(
                y * grid.steps[0] + x * grid.steps[1],
                y * samples.steps[0] + x * samples.steps[1],
            );
        }
    }
}

/// The functions of this module for any number type, one number after the other.
pub(super) mod plain {
    use super::{Grid, LANES, LaneLayout, Plane, Real, Taps, for_each_position};

    fn positions(a: Grid, b: Grid) -> impl Iterator<Item = [usize; 2]> {
        (0..a.size[0]).flat_map(move |y| {
            (0..a.size[1]).map(move |x| [a, b].map(|grid| y * grid.steps[0] + x * grid.steps[1]))
        })
    }

    pub fn sparse_product<T: Real>(
        taps: &Taps,
        weights: &[T],
        first: Option<&[T]>,
        from: Plane<&[T]>,
        to: Plane<&mut [T]>,
    ) {
        for row in 0..taps.rows() {
            let here = taps.starts[row]..taps.starts[row + 1];
            for [at, out] in positions(from.grid, to.grid) {
                let out = (row * to.plane + out) * LANES;
                for lane in 0..LANES {
                    let mut sum = first.map_or(T::default(), |f| f[row]);
                    for tap in here.clone() {
                        let place = taps.places[tap] as usize + at;
                        sum += weights[tap] * from.array[place * LANES + lane];
                    }
                    to.array[out + lane] = sum;
                }
            }
        }
    }

    pub fn sampled_product<T: Real>(
        taps: &Taps,
        rows: std::ops::Range<usize>,
        by_output: Plane<&[T]>,
        input: Plane<&[T]>,
        gradients: &mut [T],
    ) {
        let begin = taps.starts[rows.start];
        for row in rows {
            for tap in taps.starts[row]..taps.starts[row + 1] {
                for [g, x] in positions(by_output.grid, input.grid) {
                    let g = (row * by_output.plane + g) * LANES;
                    let x = (taps.places[tap] as usize + x) * LANES;
                    for lane in 0..LANES {
                        gradients[tap - begin] += by_output.array[g + lane] * input.array[x + lane];
                    }
                }
            }
        }
    }

    pub fn to_lanes<T: Real>(from: &[T], samples: LaneLayout, to: Plane<&mut [T]>) {
        for_each_position(to.grid, samples, |vector, number| {
            for c in 0..samples.channels {
                let line = &mut to.array[(c * to.plane + vector) * LANES..][..LANES];
                for (lane, out) in line.iter_mut().enumerate() {
                    *out = match lane < samples.lanes {
                        true => from[lane * samples.lane_step + number + c],
                        false => T::default(),
                    };
                }
            }
        });
    }

    pub fn from_lanes<T: Real>(from: Plane<&[T]>, samples: LaneLayout, to: &mut [T], add: bool) {
        for_each_position(from.grid, samples, |vector, number| {
            for lane in 0..samples.lanes {
                let out = &mut to[lane * samples.lane_step + number..][..samples.channels];
                for (c, out) in out.iter_mut().enumerate() {
                    let v = from.array[(c * from.plane + vector) * LANES + lane];
                    *out = if add { *out + v } else { v };
                }
            }
        });
    }
}

/// The same in f32, in vectors.
pub(super) mod vectors {
    use super::{Isa, LANES, LaneLayout, Level, Plane, Simd, Taps, plain, simd_dispatch};

    /// What one call reads and writes. Pointers are to floats, distances in floats.
    #[derive(Clone, Copy)]
    struct Job<'a> {
        taps: &'a Taps,
        size: [usize; 2],
        from: *const f32,
        from_steps: [usize; 2],
        to: *mut f32,
        to_steps: [usize; 2],
        to_plane: usize,
        /// Positions whose sums are kept in registers at a time.
        block: usize,
    }

    fn floats(steps: [usize; 2]) -> [usize; 2] {
        steps.map(|s| s * LANES)
    }

    /// # Safety
    /// As [`Real::sparse_product`](super::Real::sparse_product).
    pub unsafe fn sparse_product(
        isa: Isa,
        taps: &Taps,
        weights: &[f32],
        first: Option<&[f32]>,
        from: Plane<&[f32]>,
        to: Plane<&mut [f32]>,
    ) {
        let job = Job {
            taps,
            size: to.grid.size,
            from: from.array.as_ptr(),
            from_steps: floats(from.grid.steps),
            to: to.array.as_mut_ptr(),
            to_steps: floats(to.grid.steps),
            to_plane: to.plane * LANES,
            block: match isa.level() {
                Level::Avx512 | Level::Neon => 16,
                Level::Avx2 => 8,
                Level::Scalar => 2,
            },
        };
        // SAFETY: all vectors lie in their arrays, and each tap has a weight, by the contract of this function.
        unsafe { product(isa, job, weights, first) }
    }

    simd_dispatch! {
        /// # Safety
        /// The vectors of the job lie in its arrays, and each tap has a weight, each row a first number where there are some.
        unsafe fn product(job: Job<'_>, weights: &[f32], first: Option<&[f32]>) = product_body;
    }

    #[inline(always)]
    unsafe fn product_body<S: Simd>(job: Job<'_>, weights: &[f32], first: Option<&[f32]>) {
        let [height, width] = job.size;
        for y in 0..height {
            let mut x = 0;
            while x < width {
                let left = (width - x).min(job.block);
                // SAFETY: the contract of this function; a block ends at `width` at the latest.
                unsafe {
                    x += match left {
                        16.. => product_block::<S, 16>(job, weights, first, [y, x]),
                        8.. => product_block::<S, 8>(job, weights, first, [y, x]),
                        4.. => product_block::<S, 4>(job, weights, first, [y, x]),
                        2.. => product_block::<S, 2>(job, weights, first, [y, x]),
                        _ => product_block::<S, 1>(job, weights, first, [y, x]),
                    };
                }
            }
        }
    }

    /// `P` positions of all rows; returns `P`.
    #[inline(always)]
    unsafe fn product_block<S: Simd, const P: usize>(
        job: Job<'_>,
        weights: &[f32],
        first: Option<&[f32]>,
        [y, x]: [usize; 2],
    ) -> usize {
        let step = job.from_steps[1];
        let taps = job.taps;
        for row in 0..taps.rows() {
            let here = taps.starts[row]..taps.starts[row + 1];
            for part in (0..LANES).step_by(S::N) {
                // SAFETY: the contract of `product`.
                unsafe {
                    let from = job.from.add(y * job.from_steps[0] + x * step + part);
                    let begin = first.map_or(0.0, |f| *f.get_unchecked(row));
                    let mut sums = [S::splat(begin); P];
                    for tap in here.clone() {
                        let weight = S::splat(*weights.get_unchecked(tap));
                        let at = from.add(*taps.places.get_unchecked(tap) as usize * LANES);
                        for (p, sum) in sums.iter_mut().enumerate() {
                            *sum = S::fma(weight, S::load(at.add(p * step)), *sum);
                        }
                    }
                    let to = job.to.add(row * job.to_plane + y * job.to_steps[0] + part);
                    for (p, sum) in sums.iter().enumerate() {
                        S::store(to.add((x + p) * job.to_steps[1]), *sum);
                    }
                }
            }
        }
        P
    }

    /// # Safety
    /// As [`Real::sampled_product`](super::Real::sampled_product).
    pub unsafe fn sampled_product(
        isa: Isa,
        taps: &Taps,
        rows: std::ops::Range<usize>,
        by_output: Plane<&[f32]>,
        input: Plane<&[f32]>,
        gradients: &mut [f32],
    ) {
        let job = Sampled {
            taps,
            size: input.grid.size,
            by_output: by_output.array.as_ptr(),
            by_output_steps: floats(by_output.grid.steps),
            by_output_plane: by_output.plane * LANES,
            input: input.array.as_ptr(),
            input_steps: floats(input.grid.steps),
        };
        // SAFETY: all vectors lie in their arrays, and each tap of the rows has a gradient, by the contract of this function.
        unsafe { sampled(isa, job, rows, gradients) }
    }

    /// As [`Job`], for gradients.
    #[derive(Clone, Copy)]
    struct Sampled<'a> {
        taps: &'a Taps,
        size: [usize; 2],
        by_output: *const f32,
        by_output_steps: [usize; 2],
        by_output_plane: usize,
        input: *const f32,
        input_steps: [usize; 2],
    }

    simd_dispatch! {
        /// # Safety
        /// The vectors of the job lie in its arrays, and each tap of the rows has a gradient.
        unsafe fn sampled(job: Sampled<'_>, rows: std::ops::Range<usize>, gradients: &mut [f32]) = sampled_body;
    }

    #[inline(always)]
    unsafe fn sampled_body<S: Simd>(
        job: Sampled<'_>,
        rows: std::ops::Range<usize>,
        gradients: &mut [f32],
    ) {
        let taps = job.taps;
        let mut rest = gradients;
        for row in rows {
            let mut tap = taps.starts[row];
            let end = taps.starts[row + 1];
            while tap < end {
                // SAFETY: the contract of this function; taps from `tap` on are of this row.
                let done = unsafe {
                    match end - tap {
                        8.. => sampled_taps::<S, 8>(job, row, tap, rest),
                        4.. => sampled_taps::<S, 4>(job, row, tap, rest),
                        2.. => sampled_taps::<S, 2>(job, row, tap, rest),
                        _ => sampled_taps::<S, 1>(job, row, tap, rest),
                    }
                };
                tap += done;
                rest = &mut std::mem::take(&mut rest)[done..];
            }
        }
    }

    /// The gradients of `J` taps of a row; returns `J`.
    #[inline(always)]
    unsafe fn sampled_taps<S: Simd, const J: usize>(
        job: Sampled<'_>,
        row: usize,
        tap: usize,
        gradients: &mut [f32],
    ) -> usize {
        // SAFETY: the contract of `sampled`.
        unsafe {
            let mut from = [job.input; J];
            for (j, from) in from.iter_mut().enumerate() {
                let place = *job.taps.places.get_unchecked(tap + j) as usize;
                *from = job.input.add(place * LANES);
            }
            let by_output = job.by_output.add(row * job.by_output_plane);
            let mut sums = [S::splat(0.0); J];
            for y in 0..job.size[0] {
                for x in 0..job.size[1] {
                    let g = y * job.by_output_steps[0] + x * job.by_output_steps[1];
                    let at = y * job.input_steps[0] + x * job.input_steps[1];
                    for part in (0..LANES).step_by(S::N) {
                        let g = S::load(by_output.add(g + part));
                        for (sum, from) in sums.iter_mut().zip(&from) {
                            *sum = S::fma(g, S::load(from.add(at + part)), *sum);
                        }
                    }
                }
            }
            for (gradient, sum) in gradients.iter_mut().zip(sums) {
                *gradient += S::sum(sum);
            }
        }
        J
    }

    /// # Safety
    /// As [`Real::to_lanes`](super::Real::to_lanes).
    pub unsafe fn to_lanes(isa: Isa, from: &[f32], samples: LaneLayout, to: Plane<&mut [f32]>) {
        #[cfg(target_arch = "x86_64")]
        if isa.level() == Level::Avx512 {
            let LaneLayout {
                lanes, channels, ..
            } = samples;
            super::for_each_position(to.grid, samples, |vector, number| {
                for c in (0..channels).step_by(LANES) {
                    let size = [lanes, LANES.min(channels - c)];
                    let line = to.array[(c * to.plane + vector) * LANES..].as_mut_ptr();
                    let from = from[number + c..].as_ptr();
                    // SAFETY: the machine has AVX-512, and the numbers of all lanes and channels lie in their arrays.
                    unsafe {
                        let pitch = samples.lane_step;
                        let plane = to.plane * LANES;
                        crate::transpose::transpose(from, pitch, size, line, plane, LANES);
                    }
                }
            });
            return;
        }
        let _ = isa;
        plain::to_lanes(from, samples, to);
    }

    /// # Safety
    /// As [`Real::from_lanes`](super::Real::from_lanes).
    pub unsafe fn from_lanes(
        isa: Isa,
        from: Plane<&[f32]>,
        samples: LaneLayout,
        to: &mut [f32],
        add: bool,
    ) {
        #[cfg(target_arch = "x86_64")]
        if isa.level() == Level::Avx512 {
            let LaneLayout {
                lanes, channels, ..
            } = samples;
            let mut square = [0.0; LANES * LANES];
            super::for_each_position(from.grid, samples, |vector, number| {
                for c in (0..channels).step_by(LANES) {
                    let width = LANES.min(channels - c);
                    let line = from.array[(c * from.plane + vector) * LANES..].as_ptr();
                    let (plane, size) = (from.plane * LANES, [width, lanes]);
                    let to = &mut to[number + c..];
                    let (start, pitch) = match add {
                        true => (square.as_mut_ptr(), LANES),
                        false => (to.as_mut_ptr(), samples.lane_step),
                    };
                    // SAFETY: the machine has AVX-512, vectors and numbers lie in their arrays, and the square holds sixteen
                    // lines.
                    unsafe { crate::transpose::transpose(line, plane, size, start, pitch, width) };
                    if add {
                        for (lane, line) in square.chunks_exact(LANES).take(lanes).enumerate() {
                            let to = &mut to[lane * samples.lane_step..][..width];
                            to.iter_mut().zip(line).for_each(|(to, v)| *to += v);
                        }
                    }
                }
            });
            return;
        }
        let _ = isa;
        plain::from_lanes(from, samples, to, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that sums of a few products of keep exactly.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 2_654_435_761 + seed * 97) >> 7 & 15) as f32 - 7.0)
            .collect()
    }

    fn as_f64(x: &[f32]) -> Vec<f64> {
        x.iter().map(|x| f64::from(*x)).collect()
    }

    /// Maps of several widths, so that blocks of every size are met; rows with no tap, one, and many.
    #[test]
    fn all_instruction_sets_give_the_sums_of_the_definition() {
        for (height, width, step) in [(1, 1, 1), (2, 3, 2), (1, 31, 1), (3, 16, 1), (2, 10, 2)] {
            let (channels, pitch) = (3, width * step + 4);
            let plane = (height * step + 2) * pitch;
            let counts = [0, 1, 2, 5, 13, 27];
            let mut starts = vec![0];
            let mut places = vec![];
            for (row, count) in counts.iter().enumerate() {
                for i in 0..*count {
                    let k = (i * 7 + row) % 27;
                    let (c, ky, kx) = (k / 9, k / 3 % 3, k % 3);
                    places.push((c * plane + ky * pitch + kx) as u32);
                }
                starts.push(places.len());
            }
            let taps = Taps::new(starts.clone(), places.clone());
            let weights = numbers(taps.len(), 1);
            let bias = numbers(counts.len(), 2);
            let input = numbers(channels * plane * LANES, 3);
            let from = Grid {
                size: [height, width],
                steps: [step * pitch, step],
            };
            let to = Grid {
                size: [height, width],
                steps: [width, 1],
            };
            let area = height * width;
            let by_output = numbers(counts.len() * area * LANES, 4);
            for isa in Isa::available() {
                let mut out = vec![-1.0; counts.len() * area * LANES];
                let plane_of = |array| Plane {
                    array,
                    grid: from,
                    plane: 0,
                };
                let written = Plane {
                    array: &mut out[..],
                    grid: to,
                    plane: area,
                };
                sparse_product(
                    isa,
                    &taps,
                    &weights,
                    Some(&bias),
                    plane_of(&input[..]),
                    written,
                );
                let mut gradients = vec![1.0; taps.len()];
                let read = Plane {
                    array: &by_output[..],
                    grid: to,
                    plane: area,
                };
                let rows = 0..counts.len();
                sampled_product(isa, &taps, rows, read, plane_of(&input[..]), &mut gradients);
                let mut by_weights = vec![1.0; taps.len()];
                for row in 0..counts.len() {
                    for (position, lane) in (0..area).flat_map(|p| (0..LANES).map(move |l| (p, l)))
                    {
                        let at = position / width * step * pitch + position % width * step;
                        let mut sum = bias[row];
                        let o = (row * area + position) * LANES + lane;
                        for tap in starts[row]..starts[row + 1] {
                            let x = input[(places[tap] as usize + at) * LANES + lane];
                            sum += weights[tap] * x;
                            by_weights[tap] += by_output[o] * x;
                        }
                        assert_eq!(out[o], sum, "{isa}, row {row}, position {position}");
                    }
                }
                assert_eq!(gradients, by_weights, "{isa}, {height} by {width}");
                // Some rows alone give the same.
                let some = starts[3]..starts[5];
                let mut gradients = vec![1.0; some.len()];
                let read = Plane {
                    array: &by_output[..],
                    grid: to,
                    plane: area,
                };
                sampled_product(isa, &taps, 3..5, read, plane_of(&input[..]), &mut gradients);
                assert_eq!(gradients, by_weights[some], "{isa}");
            }
            let mut out = vec![0.0_f64; counts.len() * area * LANES];
            let wide = as_f64(&input);
            let read = Plane {
                array: &wide[..],
                grid: from,
                plane: 0,
            };
            let written = Plane {
                array: &mut out[..],
                grid: to,
                plane: area,
            };
            sparse_product(Isa::SCALAR, &taps, &as_f64(&weights), None, read, written);
            let mut single = vec![0.0_f32; out.len()];
            let read = Plane {
                array: &input[..],
                grid: from,
                plane: 0,
            };
            let written = Plane {
                array: &mut single[..],
                grid: to,
                plane: area,
            };
            sparse_product(Isa::best(), &taps, &weights, None, read, written);
            assert_eq!(as_f64(&single), out);
        }
    }

    #[test]
    fn lanes_are_samples_and_come_back() {
        for (lanes, channels, height, width) in [(16, 16, 2, 3), (9, 5, 1, 4), (1, 40, 3, 1)] {
            let per_sample = height * width * channels;
            let from = numbers(lanes * per_sample, 5);
            let samples = LaneLayout {
                lanes,
                lane_step: per_sample,
                steps: [width * channels, channels],
                channels,
            };
            // A border of one vector on each side.
            let (pitch, plane) = (width + 2, (height + 2) * (width + 2));
            let grid = Grid {
                size: [height, width],
                steps: [pitch, 1],
            };
            for isa in Isa::available() {
                let mut vectors = vec![0.5; channels * plane * LANES];
                let first = (pitch + 1) * LANES;
                let array = &mut vectors[first..];
                to_lanes(isa, &from, samples, Plane { array, grid, plane });
                for c in 0..channels {
                    for (y, x) in (0..height + 2).flat_map(|y| (0..pitch).map(move |x| (y, x))) {
                        for lane in 0..LANES {
                            let got = vectors[(c * plane + y * pitch + x) * LANES + lane];
                            let inside = (1..=height).contains(&y) && (1..=width).contains(&x);
                            let want = match inside {
                                false => 0.5,
                                true if lane >= lanes => 0.0,
                                true => {
                                    from[lane * per_sample
                                        + ((y - 1) * width + x - 1) * channels
                                        + c]
                                }
                            };
                            assert_eq!(got, want, "{isa}, channel {c} at {y}, {x}, lane {lane}");
                        }
                    }
                }
                let mut back = vec![1.0; from.len()];
                let array = &vectors[first..];
                from_lanes(isa, Plane { array, grid, plane }, samples, &mut back, true);
                let more: Vec<f32> = from.iter().map(|x| x + 1.0).collect();
                assert_eq!(back, more, "{isa}");
                from_lanes(isa, Plane { array, grid, plane }, samples, &mut back, false);
                assert_eq!(back, from, "{isa}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "input: 32 numbers")]
    fn a_place_outside_the_input_is_refused() {
        let taps = Taps::new(vec![0, 1], vec![1]);
        let grid = Grid {
            size: [1, 2],
            steps: [0, 1],
        };
        let (input, mut out) = ([0.0_f32; 2 * LANES], [0.0; 2 * LANES]);
        let from = Plane {
            array: &input[..],
            grid,
            plane: 0,
        };
        let to = Plane {
            array: &mut out[..],
            grid,
            plane: 0,
        };
        sparse_product(Isa::best(), &taps, &[1.0], None, from, to);
    }

    #[test]
    #[should_panic(expected = "gradient: 16 numbers")]
    fn a_row_outside_the_gradient_is_refused() {
        let taps = Taps::new(vec![0, 1, 1], vec![0]);
        let grid = Grid {
            size: [1, 1],
            steps: [usize::MAX, usize::MAX],
        };
        let input = [0.0_f32; LANES];
        let plane = |plane| Plane {
            array: &input[..],
            grid,
            plane,
        };
        sampled_product(Isa::best(), &taps, 0..2, plane(1), plane(0), &mut [0.0]);
    }
}
