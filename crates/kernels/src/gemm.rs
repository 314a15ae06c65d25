//! Dense matrix products, by the `gemm-f32` crate.

/// A matrix inside a slice: element (r, c) is at `r * row_stride + c * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A matrix with strides.
    ///
    /// # Panics
    /// When the last element lies outside the slice.
    #[track_caller]
    pub fn new(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        check(data.len(), rows, cols, row_stride, col_stride);
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// A row-major matrix without gaps.
    #[track_caller]
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::new(data, rows, cols, cols, 1)
    }

    /// The transpose, without moving anything.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

#[track_caller]
fn check(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) {
    if rows > 0 && cols > 0 {
        let last = (rows - 1).checked_mul(row_stride).and_then(|r| {
            (cols - 1)
                .checked_mul(col_stride)
                .and_then(|c| r.checked_add(c))
        });
        assert!(
            last.is_some_and(|l| l < len),
            "a {rows}x{cols} matrix with strides {row_stride}, {col_stride} in {len} elements"
        );
    }
}

/// `c = a b`, or `c += a b` with `accumulate`; `c` is row-major with rows `c_row_stride` apart. One thread.
///
/// # Panics
/// When shapes disagree or `c` is too short.
#[track_caller]
pub fn gemm(c: &mut [f32], c_row_stride: usize, a: View<'_>, b: View<'_>, accumulate: bool) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(m < 2 || c_row_stride >= n, "rows of c overlap");
    check(c.len(), m, n, c_row_stride, 1);
    if m == 0 || n == 0 {
        return;
    }
    let stride = |s: usize| isize::try_from(s).expect("strides of slices fit in isize");
    // gemm-f32 is fastest with a column-major destination, so compute the transpose: c' = b' a'.
    // SAFETY: `View::new` and `check` established that all m*k, k*n and m*n elements lie inside their slices,
    // `c` is borrowed mutably and its rows do not overlap.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            n,
            m,
            k,
            c.as_mut_ptr(),
            stride(c_row_stride),
            1,
            accumulate,
            b.data.as_ptr(),
            stride(b.row_stride),
            stride(b.col_stride),
            a.data.as_ptr(),
            stride(a.row_stride),
            stride(a.col_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm_common::Parallelism::None,
        );
    }
}
