//! Convolutions of channels-last maps without patches in memory: products of filters with what pixels read where it lies.
//!
//! A map lies in a plane with a border of zeros, so that no window reaches over it. What a pixel reads are [`Run`]s of the plane,
//! the same for all pixels; a filter bank lies as `[number][unit]`, the numbers in the order of the runs, units in [whole
//! vectors](wide). So vectors run over units, one number of the plane is broadcast to them, and several pixels share the load of
//! a vector of weights.

mod plain;
mod vectors;

pub(super) use vectors::{products, sums_of_products};
pub(super) mod twin {
    pub(in crate::training) use super::plain::{products, sums_of_products};
}

use crate::Isa;
use crate::LANES;
use crate::training::Real;

/// Numbers that a pixel reads: `len` of a plane, from the pixel's own place and `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Distance from the pixel's place.
    pub at: usize,
    /// How many.
    pub len: usize,
}

/// Runs that follow each other in the plane, as one.
pub fn merged(runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
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
pub struct Pixels {
    /// Place of the first pixel.
    pub start: usize,
    /// Distance between rows, and between the pixels of a row.
    pub steps: [usize; 2],
}

impl Pixels {
    /// Place of the last of `rows` by `columns` pixels.
    fn last(&self, [rows, columns]: [usize; 2]) -> usize {
        self.start + (rows - 1) * self.steps[0] + (columns - 1) * self.steps[1]
    }
}

/// `units` in whole vectors.
pub fn wide(units: usize) -> usize {
    units.next_multiple_of(LANES)
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

/// `to[pixel][unit] = begin + sum of from[pixel + run] weights[number][unit]`, for `size` rows and columns of pixels.
///
/// `weights` is `[numbers of all runs][wide(units)]`.
///
/// # Panics
/// When a pixel reads or writes outside its array, or lengths disagree.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "both sides of a product")]
pub fn direct_product<T: Real>(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], Pixels),
    weights: &[T],
    (to, out): (&mut [T], Pixels),
    units: usize,
    begin: Begin<'_, T>,
) {
    if size.contains(&0) || units == 0 {
        return;
    }
    let numbers = check_runs(size, runs, from.len(), at);
    assert_eq!(weights.len(), numbers * wide(units), "weights");
    assert!(out.last(size) + units <= to.len(), "output");
    if let Begin::Bias(bias) = begin {
        assert_eq!(bias.len(), units, "bias");
    }
    // SAFETY: checked above.
    unsafe {
        T::direct_product(
            isa,
            size,
            runs,
            (from, at),
            weights,
            (to, out),
            units,
            begin,
        )
    }
}

/// `sums[number][unit] += sum over pixels of from[pixel + run] by[pixel][unit]`, for `size` rows and columns of pixels: the
/// gradient of a filter bank, where `by` is that of its output.
///
/// `sums` is `[numbers of all runs][wide(units)]`; each pixel of `by` has as many numbers, zeros behind the last unit.
///
/// # Panics
/// When a pixel is outside its array, or lengths disagree.
#[track_caller]
pub fn sum_of_products<T: Real>(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], Pixels),
    (by, of): (&[T], Pixels),
    units: usize,
    sums: &mut [T],
) {
    if size.contains(&0) || units == 0 {
        return;
    }
    let numbers = check_runs(size, runs, from.len(), at);
    assert_eq!(sums.len(), numbers * wide(units), "sums");
    assert!(of.last(size) + wide(units) <= by.len(), "gradients");
    // SAFETY: checked above.
    unsafe { T::sum_of_products(isa, size, runs, (from, at), (by, of), units, sums) }
}

/// How many numbers the runs have, which all pixels can read.
#[track_caller]
fn check_runs(size: [usize; 2], runs: &[Run], len: usize, at: Pixels) -> usize {
    let last = at.last(size);
    for run in runs {
        assert!(
            last + run.at + run.len <= len,
            "{run:?} of a plane of {len}"
        );
    }
    runs.iter().map(|run| run.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::philox4x32;

    fn numbers(count: usize, stream: u32) -> Vec<f32> {
        let number = |i| philox4x32([i, stream, 0, 0], [0; 2])[0] as f32 / u32::MAX as f32 - 0.5;
        (0..count as u32).map(number).collect()
    }

    #[test]
    fn runs_that_follow_each_other_become_one() {
        let run = |at, len| Run { at, len };
        let runs = [run(0, 3), run(3, 2), run(7, 1), run(8, 1)];
        assert_eq!(merged(runs), [run(0, 5), run(7, 2)]);
        assert_eq!([1, 16, 17].map(wide), [16, 16, 32]);
    }

    /// Every instruction set against the plain form, for rows of all lengths and units that fill vectors or do not.
    #[test]
    fn vectors_compute_what_the_plain_form_does() {
        let runs = [
            Run { at: 0, len: 5 },
            Run { at: 9, len: 1 },
            Run { at: 30, len: 7 },
        ];
        for (i, units) in [1, 7, 16, 20, 32, 48, 64, 70, 130].into_iter().enumerate() {
            for columns in [1, 2, 3, 7, 8, 13, 16, 31, 33] {
                let (size, wide) = ([2, columns], wide(units));
                let at = Pixels {
                    start: 3,
                    steps: [4 * columns + 1, 2],
                };
                let from = numbers(at.last(size) + 40, 1);
                let weights = numbers(13 * wide, 2);
                let out = Pixels {
                    start: 2,
                    steps: [columns * (units + 1), units + 1],
                };
                let bias = numbers(units, 3);
                let begin = [Begin::Zero, Begin::Bias(&bias), Begin::Sum][i % 3];
                let before = numbers(out.last(size) + units, 4);
                let mut want = before.clone();
                twin::products(
                    size,
                    &runs,
                    (&from, at),
                    &weights,
                    (&mut want, out),
                    units,
                    begin,
                );
                let of = Pixels {
                    start: 1,
                    steps: [columns * wide + 5, wide],
                };
                let by = numbers(of.last(size) + wide, 5);
                let sums = numbers(13 * wide, 6);
                let mut want_sums = sums.clone();
                twin::sums_of_products(size, &runs, (&from, at), (&by, of), units, &mut want_sums);
                for isa in Isa::available() {
                    let mut got = before.clone();
                    direct_product(
                        isa,
                        size,
                        &runs,
                        (&from, at),
                        &weights,
                        (&mut got, out),
                        units,
                        begin,
                    );
                    let near = |a: &[f32], b: &[f32]| {
                        a.iter()
                            .zip(b)
                            .all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs()))
                    };
                    assert!(
                        near(&got, &want),
                        "{isa:?}: {units} units, {columns} columns"
                    );
                    let mut got = sums.clone();
                    sum_of_products(isa, size, &runs, (&from, at), (&by, of), units, &mut got);
                    for (got, want) in got.chunks(wide).zip(want_sums.chunks(wide)) {
                        assert!(
                            near(&got[..units], &want[..units]),
                            "{isa:?}: {units} units, {columns} columns"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_outside_is_refused() {
        let refused =
            |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
        let isa = Isa::best();
        let run = [Run { at: 0, len: 2 }];
        let pixels = |start| Pixels {
            start,
            steps: [4, 2],
        };
        let product = |start, weights: usize, out: usize| {
            let weights = vec![0.0f32; weights];
            let to = (
                &mut [0.0f32; 4][..],
                Pixels {
                    start: out,
                    steps: [2, 1],
                },
            );
            let from = (&[0.0f32; 8][..], pixels(start));
            direct_product(isa, [2, 2], &run, from, &weights, to, 1, Begin::Zero);
        };
        product(0, 32, 0);
        assert!(refused(&|| product(1, 32, 0)) && refused(&|| product(0, 31, 0)));
        assert!(refused(&|| product(0, 32, 1)));
        let sums = |by: usize, sums: usize| {
            let by = vec![0.0f32; by];
            let by = (
                &by[..],
                Pixels {
                    start: 0,
                    steps: [32, 16],
                },
            );
            let from = (&[0.0f32; 8][..], pixels(0));
            sum_of_products(isa, [2, 2], &run, from, by, 1, &mut vec![0.0f32; sums]);
        };
        sums(64, 32);
        assert!(refused(&|| sums(63, 32)) && refused(&|| sums(64, 48)));
    }
}
