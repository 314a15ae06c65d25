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
        let same = g == w
            || g.is_nan() && w.is_nan()
            || g.is_finite() && (g - w).abs() <= tolerance * w.abs().max(1.0);
        assert!(same, "element {i} of {}: expected {w}, got {g}", got.len());
    }
}
