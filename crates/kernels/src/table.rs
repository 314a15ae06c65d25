//! Sparse matrix times one vector, with the vector held in registers as a lookup table (AVX-512).
//!
//! The sixteen rows of a group are the sixteen lanes. A unit of work is a window of [`Format::window`] columns, whose inputs are held in two or four
//! registers, and [`Format::steps`] steps. In a step, every lane picks one input of the window by a permutation of two registers and multiplies it by
//! its own weight. Rows are sorted by non-zeros, so that the rows of a group have about the same number. A window begins at the first column that
//! any row of the group still needs, or at the multiple of eight before it where that is faster, because its loads do not straddle cache lines.
//! Slots without a non-zero have weight 0, which gives wrong results for NaN and infinite inputs. Vectors with such inputs take a slow loop that skips
//! these slots.

#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use sparsevd_model::Csr;

use crate::clamp::Bounds;
use crate::precision::{Bf16, F16, Precision, Value, quantize};
use crate::{Isa, Level};

const LANES: usize = 16;

/// Columns per window, steps per unit, and the alignment of the first column of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format {
    window: usize,
    steps: usize,
    align: usize,
}

/// All formats that have a kernel.
const FORMATS: [Format; 12] = {
    const fn format(window: usize, steps: usize, align: usize) -> Format {
        Format {
            window,
            steps,
            align,
        }
    }
    [
        format(32, 1, 1),
        format(32, 2, 1),
        format(32, 4, 1),
        format(64, 1, 1),
        format(64, 2, 1),
        format(64, 4, 1),
        format(32, 1, 8),
        format(32, 2, 8),
        format(32, 4, 8),
        format(64, 1, 8),
        format(64, 2, 8),
        format(64, 4, 8),
    ]
};

impl Format {
    /// Cycles per unit, measured on a Zen 4 core with the weights in its second-level cache.
    fn cost(self) -> f64 {
        match (self.window, self.steps, self.align) {
            (32, 1, 1) => 5.3,
            (32, 2, 1) => 6.9,
            (32, _, 1) => 11.8,
            (_, 1, 1) => 8.4,
            (_, 2, 1) => 10.1,
            (_, _, 1) => 14.8,
            (32, 1, _) => 4.6,
            (32, 2, _) => 6.4,
            (32, _, _) => 11.6,
            (_, 1, _) => 6.6,
            (_, 2, _) => 8.6,
            (_, _, _) => 14.2,
        }
    }
}

/// A packed sparse matrix.
///
/// # Invariants
/// - `bases` has one element per unit of each group; `weights` has `format.steps` elements per unit, `indices` sixteen times that
/// - a base plus the window is at most the number of columns; or the base is 0 and there are fewer columns than the window
/// - a base plus an index is below the number of columns; row numbers of groups are below the number of rows
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: usize,
    cols: usize,
    format: Format,
    groups: Vec<LaneGroup>,
    bases: Vec<u32>,
    /// For each unit, `steps` bytes per lane.
    indices: Vec<u8>,
    weights: Stored,
}

/// Weights in their precision, sixteen per step; integers with their scale.
#[derive(Debug, Clone)]
enum Stored {
    F32(Vec<F32x16>),
    Bf16(Vec<[Bf16; LANES]>),
    F16(Vec<[F16; LANES]>),
    I8(Vec<[i8; LANES]>, f32),
}

impl Stored {
    fn new(weights: Vec<F32x16>, precision: Precision) -> Self {
        let lanes = weights.iter().map(|w| w.0);
        match precision {
            Precision::F32 => Self::F32(weights),
            Precision::Bf16 => Self::Bf16(lanes.map(|w| w.map(Bf16::of)).collect()),
            Precision::F16 => Self::F16(lanes.map(|w| w.map(F16::of)).collect()),
            Precision::I8 { scale } => Self::I8(
                lanes.map(|w| w.map(|v| quantize(v, scale))).collect(),
                scale,
            ),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::Bf16(_) => "bf16",
            Self::F16(_) => "f16",
            Self::I8(..) => "i8",
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(w) => size_of_val(&w[..]),
            Self::Bf16(w) => size_of_val(&w[..]),
            Self::F16(w) => size_of_val(&w[..]),
            Self::I8(w, _) => size_of_val(&w[..]),
        }
    }

    fn slice(&self, steps: Range<usize>) -> Self {
        match self {
            Self::F32(w) => Self::F32(w[steps].to_vec()),
            Self::Bf16(w) => Self::Bf16(w[steps].to_vec()),
            Self::F16(w) => Self::F16(w[steps].to_vec()),
            Self::I8(w, scale) => Self::I8(w[steps].to_vec(), *scale),
        }
    }

    fn get(&self, step: usize, lane: usize) -> f32 {
        match self {
            Self::F32(w) => w[step].0[lane],
            Self::Bf16(w) => w[step][lane].get(1.0),
            Self::F16(w) => w[step][lane].get(1.0),
            Self::I8(w, scale) => w[step][lane].get(*scale),
        }
    }
}

/// The sixteen weights of a step.
trait Weights: Copy {
    /// The weights as f32; integers are multiplied by `scale`.
    ///
    /// # Safety
    /// The CPU has AVX-512 and F16C, and `p` is readable.
    unsafe fn load(p: *const Self, scale: __m512) -> __m512;
}

impl Weights for F32x16 {
    #[inline(always)]
    unsafe fn load(p: *const Self, _scale: __m512) -> __m512 {
        // SAFETY: `p` is readable (the contract of the function), and `F32x16` is aligned to 64 bytes.
        unsafe { _mm512_load_ps(p.cast()) }
    }
}

impl Weights for [Bf16; LANES] {
    #[inline(always)]
    unsafe fn load(p: *const Self, _scale: __m512) -> __m512 {
        // SAFETY: `p` is readable for its sixteen numbers (the contract of the function); the loads need no alignment.
        unsafe {
            let w = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w))
        }
    }
}

impl Weights for [F16; LANES] {
    #[inline(always)]
    unsafe fn load(p: *const Self, _scale: __m512) -> __m512 {
        // SAFETY: `p` is readable for its sixteen numbers (the contract of the function); the loads need no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
}

impl Weights for [i8; LANES] {
    #[inline(always)]
    unsafe fn load(p: *const Self, scale: __m512) -> __m512 {
        // SAFETY: `p` is readable for its sixteen numbers (the contract of the function); the loads need no alignment.
        unsafe {
            let w = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
            _mm512_mul_ps(_mm512_cvtepi32_ps(w), scale)
        }
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct F32x16([f32; LANES]);

#[derive(Debug, Clone)]
struct LaneGroup {
    bias: F32x16,
    rows: [u32; LANES],
    /// Number of lanes that have a row of their own; the others repeat rows, without entries.
    lanes: usize,
    units: usize,
}

impl Table {
    /// Packs in the format with the least estimated time; `None` without AVX-512.
    pub fn pack(isa: Isa, weight: &Csr, bias: &[f32], precision: Precision) -> Option<Self> {
        if isa.level() != Level::Avx512 {
            return None;
        }
        let pack = |format| Self::pack_as(format, weight, bias, precision);
        FORMATS
            .into_iter()
            .map(pack)
            .min_by(|a, b| a.cost().total_cmp(&b.cost()))
    }

    /// Estimated cycles of a run.
    pub fn cost(&self) -> f64 {
        self.bases.len() as f64 * self.format.cost()
    }

    fn pack_as(format: Format, weight: &Csr, bias: &[f32], precision: Precision) -> Self {
        let mut steps = Vec::new();
        let mut order: Vec<usize> = (0..weight.rows()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(weight.row(row).0.len()));
        let mut packed = Self {
            rows: weight.rows(),
            cols: weight.cols(),
            format,
            groups: Vec::new(),
            bases: Vec::new(),
            indices: Vec::new(),
            weights: Stored::F32(Vec::new()),
        };
        for group in order.chunks(LANES) {
            let mut left: Vec<_> = group.iter().map(|&row| weight.row(row)).collect();
            let before = packed.bases.len();
            while let Some(base) = left.iter().filter_map(|l| l.0.first()).min() {
                let base = (*base as usize / format.align * format.align)
                    .min(weight.cols().saturating_sub(format.window));
                packed.bases.push(base as u32);
                let first = packed.indices.len();
                packed.indices.resize(first + format.steps * LANES, 0);
                for step in 0..format.steps {
                    let mut weights = [0.0; LANES];
                    for (lane, (columns, values)) in left.iter_mut().enumerate() {
                        if let Some(&c) = columns.first()
                            && c as usize - base < format.window
                        {
                            packed.indices[first + lane * format.steps + step] =
                                (c as usize - base) as u8;
                            weights[lane] = values[0];
                            (*columns, *values) = (&columns[1..], &values[1..]);
                        }
                    }
                    steps.push(F32x16(weights));
                }
            }
            let row = |lane: usize| group[lane % group.len()];
            packed.groups.push(LaneGroup {
                bias: F32x16(std::array::from_fn(|lane| bias[row(lane)])),
                rows: std::array::from_fn(|lane| row(lane) as u32),
                lanes: group.len(),
                units: packed.bases.len() - before,
            });
        }
        packed.weights = Stored::new(steps, precision);
        packed
    }

    /// Units of each group.
    pub fn groups(&self) -> Vec<usize> {
        self.groups.iter().map(|group| group.units).collect()
    }

    /// Some of the groups alone, and the numbers of their rows in the order in which they are written.
    pub fn part(&self, range: Range<usize>) -> (Self, Vec<u32>) {
        let units = |groups: &[LaneGroup]| groups.iter().map(|g| g.units).sum::<usize>();
        let first = units(&self.groups[..range.start]);
        let units = first..first + units(&self.groups[range.clone()]);
        let steps = units.start * self.format.steps..units.end * self.format.steps;
        let mut order = Vec::new();
        let renumbered = self.groups[range].iter().map(|group| {
            let before = order.len() as u32;
            order.extend(&group.rows[..group.lanes]);
            LaneGroup {
                rows: std::array::from_fn(|lane| before + (lane % group.lanes) as u32),
                ..group.clone()
            }
        });
        let groups = renumbered.collect();
        let part = Self {
            rows: order.len(),
            cols: self.cols,
            format: self.format,
            groups,
            bases: self.bases[units].to_vec(),
            indices: self.indices[steps.start * LANES..steps.end * LANES].to_vec(),
            weights: self.weights.slice(steps),
        };
        (part, order)
    }

    /// Bytes of weights, indices, bases, row numbers and biases.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.groups[..])
            + size_of_val(&self.bases[..])
            + size_of_val(&self.indices[..])
            + self.weights.bytes()
    }

    /// The kernel's name without its instruction set, which is AVX-512.
    pub fn name(&self) -> String {
        let Format { window, steps, .. } = self.format;
        format!("table{window}-{}-16x{steps}", self.weights.name())
    }

    /// `y = clamp(W x + b)`; `x` has one element per column, `y` one per packed row.
    pub fn run(&self, x: &[f32], y: &mut [f32], bounds: Bounds) {
        assert!(x.len() == self.cols && y.len() == self.rows);
        // SAFETY: `pack` returns a table only for an `Isa` with AVX-512. `weights` are those of the table, and `x` and `y` have the lengths that were just
        // checked, `x` at least those of a window.
        unsafe {
            if !all_finite(x) {
                return self.run_any(x, y, bounds);
            }
            let mut short = [0.0; 64];
            let x = if x.len() < self.format.window {
                short[..x.len()].copy_from_slice(x);
                &short[..]
            } else {
                x
            };
            match &self.weights {
                Stored::F32(w) => self.run_stored(&w[..], 1.0, x, y, bounds),
                Stored::Bf16(w) => self.run_stored(&w[..], 1.0, x, y, bounds),
                Stored::F16(w) => self.run_stored(&w[..], 1.0, x, y, bounds),
                Stored::I8(w, scale) => self.run_stored(&w[..], *scale, x, y, bounds),
            }
        }
    }

    /// # Safety
    /// The CPU has the features. `weights` are those of the table. `x` has at least as many elements as there are columns, and as a window has; `y` has
    /// one per row.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn run_stored<W: Weights>(
        &self,
        weights: &[W],
        scale: f32,
        x: &[f32],
        y: &mut [f32],
        bounds: Bounds,
    ) {
        // SAFETY: the contract of this function, passed on, with `WINDOW` and `STEPS` of the format.
        unsafe {
            match (self.format.window, self.format.steps) {
                (32, 1) => self.run_finite::<W, 32, 1>(weights, scale, x, y, bounds),
                (32, 2) => self.run_finite::<W, 32, 2>(weights, scale, x, y, bounds),
                (32, _) => self.run_finite::<W, 32, 4>(weights, scale, x, y, bounds),
                (_, 1) => self.run_finite::<W, 64, 1>(weights, scale, x, y, bounds),
                (_, 2) => self.run_finite::<W, 64, 2>(weights, scale, x, y, bounds),
                (_, _) => self.run_finite::<W, 64, 4>(weights, scale, x, y, bounds),
            }
        }
    }

    /// # Safety
    /// As [`Table::run_stored`], and `WINDOW` and `STEPS` are those of the format.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn run_finite<W: Weights, const WINDOW: usize, const STEPS: usize>(
        &self,
        weights: &[W],
        scale: f32,
        x: &[f32],
        y: &mut [f32],
        bounds: Bounds,
    ) {
        let (low, high) = (_mm512_set1_ps(bounds.min), _mm512_set1_ps(bounds.max));
        let (mut bases, mut indices, mut weights) =
            (self.bases.as_ptr(), self.indices.as_ptr(), weights.as_ptr());
        let scale = _mm512_set1_ps(scale);
        let x = x.as_ptr();
        for group in &self.groups {
            // SAFETY: `bases`, `indices` and `weights` advance over the units of all groups once (invariants). A window from any base lies in `x`, as a base
            // plus the window is at most the number of columns, or it is 0 and `x` has a window of elements. Rows are below `y.len()`.
            unsafe {
                let mut acc = [_mm512_setzero_ps(); STEPS];
                acc[0] = _mm512_load_ps(group.bias.0.as_ptr());
                let end = bases.add(group.units);
                while bases < end {
                    let x = x.add(*bases as usize);
                    bases = bases.add(1);
                    let (a, b) = (_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16)));
                    let (mut c, mut d) = (a, b);
                    if WINDOW == 64 {
                        (c, d) = (_mm512_loadu_ps(x.add(32)), _mm512_loadu_ps(x.add(48)));
                    }
                    // Only the five or six lowest bits of a lane matter, so a shift by eight gives the indices of the next step.
                    let mut index = match STEPS {
                        1 => _mm512_cvtepu8_epi32(_mm_loadu_si128(indices.cast())),
                        2 => _mm512_cvtepu16_epi32(_mm256_loadu_si256(indices.cast())),
                        _ => _mm512_loadu_si512(indices.cast()),
                    };
                    for step in 0..STEPS {
                        let mut v = _mm512_permutex2var_ps(a, index, b);
                        if WINDOW == 64 {
                            let upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
                            let w = _mm512_permutex2var_ps(c, index, d);
                            v = _mm512_mask_blend_ps(upper, v, w);
                        }
                        let weight = W::load(weights.add(step), scale);
                        acc[step] = _mm512_fmadd_ps(v, weight, acc[step]);
                        index = _mm512_srli_epi32::<8>(index);
                    }
                    indices = indices.add(STEPS * LANES);
                    weights = weights.add(STEPS);
                }
                let mut sum = acc[0];
                for &more in &acc[1..] {
                    sum = _mm512_add_ps(sum, more);
                }
                let mut out = F32x16([0.0; LANES]);
                let clamped = _mm512_min_ps(high, _mm512_max_ps(low, sum));
                _mm512_store_ps(out.0.as_mut_ptr(), clamped);
                // Lanes past the last row repeat rows without their entries. Going backwards, the row itself is stored last.
                for lane in (0..LANES).rev() {
                    *y.get_unchecked_mut(group.rows[lane] as usize) = out.0[lane];
                }
            }
        }
    }

    /// For inputs with NaN or infinities: skips slots without a non-zero.
    #[cold]
    fn run_any(&self, x: &[f32], y: &mut [f32], bounds: Bounds) {
        let mut unit = 0;
        for group in &self.groups {
            let mut acc = group.bias.0;
            for _ in 0..group.units {
                for step in 0..self.format.steps {
                    let at = unit * self.format.steps;
                    for (lane, acc) in acc.iter_mut().enumerate() {
                        let weight = self.weights.get(at + step, lane);
                        if weight != 0.0 {
                            let index = self.indices[at * LANES + lane * self.format.steps + step];
                            *acc += weight * x[self.bases[unit] as usize + usize::from(index)];
                        }
                    }
                }
                unit += 1;
            }
            for (row, acc) in group.rows.iter().zip(acc).take(group.lanes) {
                y[*row as usize] = bounds.apply(acc);
            }
        }
    }
}

/// Whether no element is NaN or infinite.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn all_finite(x: &[f32]) -> bool {
    // Zero times a finite number is zero, times another is NaN. Four sums hide the latency.
    let mut acc = [_mm512_setzero_ps(); 4];
    let zero = _mm512_setzero_ps();
    let blocks = x.chunks_exact(64);
    let rest: f32 = blocks.remainder().iter().map(|v| v * 0.0).sum();
    for block in blocks {
        for i in 0..4 {
            // SAFETY: a block has 64 elements.
            let v = unsafe { _mm512_loadu_ps(block.as_ptr().add(16 * i)) };
            acc[i] = _mm512_fmadd_ps(v, zero, acc[i]);
        }
    }
    let sum = _mm512_add_ps(_mm512_add_ps(acc[0], acc[1]), _mm512_add_ps(acc[2], acc[3]));
    _mm512_reduce_add_ps(sum) + rest == 0.0
}
