//! Sixteen by sixteen floats, turned in registers (AVX-512).

#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::arch::x86_64::*;

const SIDE: usize = 16;

/// `to[c * to_pitch + r] = from[r * from_pitch + c]` for `rows` by `cols` of at most sixteen each; the other rows count as zeros, and
/// each of the `cols` lines of `to` is written up to `width` elements.
///
/// # Safety
/// The CPU has AVX-512 F and DQ; both pointers are valid for the elements named.
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) unsafe fn transpose(
    from: *const f32,
    from_pitch: usize,
    [rows, cols]: [usize; 2],
    to: *mut f32,
    to_pitch: usize,
    width: usize,
) {
    let mask = |n: usize| (((1_u32 << n.min(SIDE)) - 1) & 0xffff) as __mmask16;
    let zero = _mm512_setzero_ps();
    let mut a = [zero; SIDE];
    for r in 0..SIDE {
        if r < rows {
            // SAFETY: the mask keeps the load to `cols` elements of an existing row.
            a[r] = unsafe { _mm512_maskz_loadu_ps(mask(cols), from.add(r * from_pitch)) };
        }
    }
    let mut b = [zero; SIDE];
    for i in 0..SIDE / 2 {
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    // Now a[4 * i + j] gets, in each quarter q, column 4 * q + j of rows 4 * i to 4 * i + 3.
    for i in 0..SIDE / 4 {
        let [p, q, r, s] =
            [b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]].map(|v| _mm512_castps_pd(v));
        a[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, r));
        a[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, r));
        a[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(q, s));
        a[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(q, s));
    }
    for j in 0..4 {
        let (p, q, r, s) = (a[j], a[4 + j], a[8 + j], a[12 + j]);
        let (even_low, odd_low) = (
            _mm512_shuffle_f32x4::<0x88>(p, q),
            _mm512_shuffle_f32x4::<0xdd>(p, q),
        );
        let (even_high, odd_high) = (
            _mm512_shuffle_f32x4::<0x88>(r, s),
            _mm512_shuffle_f32x4::<0xdd>(r, s),
        );
        b[j] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
        b[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
        b[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
        b[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
    }
    for c in 0..SIDE {
        if c < cols {
            // SAFETY: the mask keeps the store to `width` elements of an existing line.
            unsafe { _mm512_mask_storeu_ps(to.add(c * to_pitch), mask(width), b[c]) };
        }
    }
}
