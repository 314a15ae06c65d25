//! Convolutions of channels-last maps without patches in memory: products of filters with what pixels read where it lies.
//!
//! A map lies in a plane with a border of zeros, so that no window reaches over it. What a pixel reads are [`Run`]s of the plane,
//! the same for all pixels; a filter bank lies as `[number][unit]`, the numbers in the order of the runs, units in [whole
//! vectors](padded_units). So vectors run over units, one number of the plane is broadcast to them, and several pixels share the load of
//! a vector of weights.

pub(super) mod layout;
pub(super) mod plain;
pub(super) mod vectors;

use self::layout::check_runs;
use crate::Isa;
use crate::training::Real;

pub use self::layout::{Begin, PixelGrid, Run, merge_runs, padded_units};

/// `to[pixel][unit] = begin + sum of from[pixel + run] weights[number][unit]`, for `size` rows and columns of pixels.
///
/// `weights` is `[numbers of all runs][padded_units(units)]`. Pixels of `to` must not overlap.
///
/// # Panics
/// When a pixel reads or writes outside its array, or lengths disagree.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "both sides of a product")]
pub fn direct_product<T: Real>(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], PixelGrid),
    weights: &[T],
    (to, out): (&mut [T], PixelGrid),
    units: usize,
    begin: Begin<'_, T>,
) {
    if size.contains(&0) || units == 0 {
        return;
    }
    let numbers = check_runs(size, runs, from.len(), at);
    let expected = numbers.checked_mul(padded_units(units));
    assert_eq!(Some(weights.len()), expected, "weights");
    assert!(out.end(size, units) <= to.len(), "output");
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
/// `sums` is `[numbers of all runs][padded_units(units)]`; each pixel of `by` has as many numbers, zeros behind the last unit.
///
/// # Panics
/// When a pixel is outside its array, or lengths disagree.
#[track_caller]
pub fn direct_weight_gradient<T: Real>(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], PixelGrid),
    (by, of): (&[T], PixelGrid),
    units: usize,
    sums: &mut [T],
) {
    if size.contains(&0) || units == 0 {
        return;
    }
    let numbers = check_runs(size, runs, from.len(), at);
    let expected = numbers.checked_mul(padded_units(units));
    assert_eq!(Some(sums.len()), expected, "sums");
    assert!(of.end(size, padded_units(units)) <= by.len(), "gradients");
    // SAFETY: checked above.
    unsafe { T::direct_weight_gradient(isa, size, runs, (from, at), (by, of), units, sums) }
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
        assert_eq!(merge_runs(runs), [run(0, 5), run(7, 2)]);
        assert_eq!([1, 16, 17].map(padded_units), [16, 16, 32]);
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
                let (size, wide) = ([2, columns], padded_units(units));
                let at = PixelGrid {
                    start: 3,
                    steps: [4 * columns + 1, 2],
                };
                let from = numbers(at.end(size, 40), 1);
                let weights = numbers(13 * wide, 2);
                let out = PixelGrid {
                    start: 2,
                    steps: [columns * (units + 1), units + 1],
                };
                let bias = numbers(units, 3);
                let begin = [Begin::Zero, Begin::Bias(&bias), Begin::Sum][i % 3];
                let before = numbers(out.end(size, units), 4);
                let mut want = before.clone();
                plain::products(
                    size,
                    &runs,
                    (&from, at),
                    &weights,
                    (&mut want, out),
                    units,
                    begin,
                );
                let of = PixelGrid {
                    start: 1,
                    steps: [columns * wide + 5, wide],
                };
                let by = numbers(of.end(size, wide), 5);
                let sums = numbers(13 * wide, 6);
                let mut want_sums = sums.clone();
                plain::weight_gradients(size, &runs, (&from, at), (&by, of), units, &mut want_sums);
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
                    direct_weight_gradient(
                        isa,
                        size,
                        &runs,
                        (&from, at),
                        (&by, of),
                        units,
                        &mut got,
                    );
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
        let pixels = |start| PixelGrid {
            start,
            steps: [4, 2],
        };
        let product = |start, weights: usize, out: usize| {
            let weights = vec![0.0f32; weights];
            let to = (
                &mut [0.0f32; 4][..],
                PixelGrid {
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
        // Distances that wrap, and pixels outside of which nothing is read.
        let wrapping = |runs: &[Run], steps: [usize; 2], size: [usize; 2]| {
            let from = (&[0.0f32; 8][..], PixelGrid { start: 1, steps });
            let to = (
                &mut [0.0f32; 4][..],
                PixelGrid {
                    start: 0,
                    steps: [0, 0],
                },
            );
            let weights = vec![0.0; 16 * runs.iter().map(|r| r.len).sum::<usize>()];
            direct_product(isa, size, runs, from, &weights, to, 1, Begin::Zero);
        };
        let one = [Run { at: 0, len: 1 }];
        wrapping(&one, [1, 1], [2, 1]);
        assert!(refused(&|| wrapping(&one, [usize::MAX, 1], [2, 1])));
        assert!(refused(&|| wrapping(&one, [usize::MAX / 2 + 1, 1], [3, 1])));
        assert!(refused(&|| wrapping(&[], [9, 1], [2, 1])));
        let far = [Run {
            at: usize::MAX,
            len: 1,
        }];
        assert!(refused(&|| wrapping(&far, [1, 1], [1, 1])));
        assert!(refused(&|| assert_eq!(padded_units(usize::MAX), 0)));
        let sums = |by: usize, sums: usize| {
            let by = vec![0.0f32; by];
            let by = (
                &by[..],
                PixelGrid {
                    start: 0,
                    steps: [32, 16],
                },
            );
            let from = (&[0.0f32; 8][..], pixels(0));
            direct_weight_gradient(isa, [2, 2], &run, from, by, 1, &mut vec![0.0f32; sums]);
        };
        sums(64, 32);
        assert!(refused(&|| sums(63, 32)) && refused(&|| sums(64, 48)));
    }
}
