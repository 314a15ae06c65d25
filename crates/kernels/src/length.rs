//! Lengths of slices, checked where a kernel is entered and where it is planned. The loops behind these checks may access memory without any of
//! their own, so a product that wraps must not pass here.

/// Most floats of a value: what a slice can hold at most.
const MOST: usize = isize::MAX.unsigned_abs() / size_of::<f32>();

/// The product of `dims`; `None` where it does not fit in a `usize`.
#[inline(always)]
fn product<const N: usize>(dims: [usize; N]) -> Option<usize> {
    let mut product = Some(1_usize);
    for d in dims {
        product = product.and_then(|p| p.checked_mul(d));
    }
    match product {
        None if dims.contains(&0) => Some(0),
        product => product,
    }
}

/// Checks that a slice of `len` elements holds the product of `dims`, no more and no less. `what` is its name in the message.
///
/// # Panics
/// When it does not.
#[inline(always)]
#[track_caller]
pub(crate) fn check<const N: usize>(what: &str, len: usize, dims: [usize; N]) {
    if product(dims) != Some(len) {
        wrong(what, len, &dims);
    }
}

/// Checks that a slice of `len` elements, of which a kernel uses the first, holds at least `least`.
///
/// # Panics
/// When it does not.
#[inline(always)]
#[track_caller]
pub(crate) fn check_at_least(what: &str, len: usize, least: usize) {
    assert!(
        len >= least,
        "elements of {what}: expected at least {least}, got {len}"
    );
}

#[cold]
#[inline(never)]
#[track_caller]
fn wrong(what: &str, len: usize, dims: &[usize]) -> ! {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    panic!(
        "elements of {what}: expected {}, got {len}",
        dims.join(" x ")
    )
}

/// The product of the dimensions of a value for which a kernel is planned. `what` is its name in the message.
///
/// # Panics
/// When no slice can hold as many elements. That is so even if one of `dims` is zero, because products of some of them must not wrap either.
#[track_caller]
pub(crate) fn planned<const N: usize>(what: &str, dims: [usize; N]) -> usize {
    let whole = dims
        .map(|d| d.max(1))
        .into_iter()
        .try_fold(1_usize, usize::checked_mul);
    assert!(
        whole.is_some_and(|whole| whole <= MOST),
        "elements of {what}: expected at most {MOST}, got {dims:?}"
    );
    dims.into_iter().product()
}

/// The sum of `parts`. `what` is its name in the message.
///
/// # Panics
/// When it does not fit in a `usize`.
#[track_caller]
pub(crate) fn sum<const N: usize>(what: &str, parts: [usize; N]) -> usize {
    let sum = parts.into_iter().try_fold(0, usize::checked_add);
    sum.unwrap_or_else(|| {
        panic!(
            "{what}: expected at most {}, got the sum of {parts:?}",
            usize::MAX
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_wrap_are_none_unless_a_factor_is_zero() {
        assert_eq!(product([]), Some(1));
        assert_eq!(product([2, 3, 4]), Some(24));
        assert_eq!(product([usize::MAX, 1]), Some(usize::MAX));
        assert_eq!(product([1 << 60, 16]), None);
        assert_eq!(product([1 << 60, 16, 0]), Some(0));
        assert_eq!(product([0, usize::MAX, usize::MAX]), Some(0));
    }

    #[test]
    fn values_that_no_slice_can_hold_are_refused() {
        assert_eq!(planned("x", [1 << 30, 1 << 30]), 1 << 60);
        for dims in [[1 << 32, 1 << 32], [0, usize::MAX], [1 << 31, 1 << 31]] {
            let refused = std::panic::catch_unwind(|| planned("x", dims));
            assert!(refused.is_err(), "{dims:?}");
        }
    }
}
