//! When two results count as the same.

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
}
