//! When two results count as the same.

use std::fmt::Display;

use crate::reference::Number;

/// Checks that `got` is `want` up to rounding: NaN and infinities must agree exactly, the rest within `tolerance` of the
/// larger of 1 and the element's size.
///
/// # Panics
/// At the first element that differs, naming it.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "number of elements");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let of = got.len();
        assert!(
            is_close(g, w, tolerance),
            "element {i} of {of}: expected {w}, got {g}"
        );
    }
}

/// As [`assert_close`], but an element may also be NaN where its sum has a summand that is not finite. `sizes` has the sums of the sizes of the
/// summands, which show where that is.
///
/// For sparse kernels, whose padding multiplies inputs by zero.
///
/// # Panics
/// As [`assert_close`].
#[track_caller]
pub fn assert_close_or_nan(got: &[f32], want: &[f32], sizes: &[f32], tolerance: f32) {
    assert_eq!(sizes.len(), want.len(), "number of sizes");
    let at = |((got, want), size): ((&f32, &f32), &f32)| match got.is_nan() && !size.is_finite() {
        true => f32::NAN,
        false => *want,
    };
    let want: Vec<f32> = got.iter().zip(want).zip(sizes).map(at).collect();
    assert_close(got, &want, tolerance);
}

/// Checks that each element of `got` is within `tolerance` of `want`, as a share of the largest size in `want` or of 1.
///
/// For sums that may cancel, whose elements have no scale of their own. `context` is printed with a difference.
///
/// # Panics
/// At the first element that differs or is not finite, naming it.
#[track_caller]
pub fn assert_sums_close<X: Number>(
    got: &[X],
    want: &[f64],
    tolerance: f64,
    context: impl Display,
) {
    assert_eq!(got.len(), want.len(), "number of elements: {context}");
    let scale = want.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    for (i, (&g, w)) in got.iter().zip(want).enumerate() {
        let (g, of): (f64, usize) = (g.into(), want.len());
        assert!(
            (g - w).abs() <= tolerance * scale,
            "element {i} of {of}: expected {w}, got {g}: {context}"
        );
    }
}

fn is_close(got: f32, want: f32, tolerance: f32) -> bool {
    // A tolerance relative to infinity would take any number.
    let finite = got.is_finite() && want.is_finite();
    got == want
        || got.is_nan() && want.is_nan()
        || finite && (got - want).abs() <= tolerance * want.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rounding_explains_is_close() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (1.0, 1.0, true),
            (1.0 + 1e-6, 1.0, true),
            (1.001, 1.0, false),
            (1e-6, 0.0, true),
            (1000.001, 1000.0, true),
            (inf, inf, true),
            (-inf, inf, false),
            (1.0, inf, false),
            (f32::MAX, inf, false),
            (inf, 1.0, false),
            (nan, nan, true),
            (nan, 1.0, false),
            (1.0, nan, false),
            (nan, inf, false),
            (inf, nan, false),
        ];
        for (got, want, close) in cases {
            assert_eq!(
                is_close(got, want, 1e-5),
                close,
                "expected {want}, got {got}"
            );
        }
    }

    #[test]
    fn sums_are_as_close_as_the_largest_allows() {
        let check = |got: &[f32], want: &[f64]| {
            let check = || assert_sums_close(got, want, 1e-5, "here");
            std::panic::catch_unwind(check).is_ok()
        };
        assert!(check(&[100.0, 0.0005], &[100.0, 0.0]));
        assert!(check(&[0.1, 5e-6], &[0.1, 0.0]));
        assert!(!check(&[100.0, 0.005], &[100.0, 0.0]));
        assert!(!check(&[f32::NAN], &[0.0]));
        assert!(!check(&[0.0], &[f64::NAN]));
        assert!(!check(&[f32::INFINITY], &[f64::INFINITY]));
        assert!(!check(&[0.0], &[0.0, 0.0]));
    }
}
