//! Transposition in registers, sixteen rows or columns at a time (AVX and AVX-512).

#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::arch::x86_64::*;

const SIDE: usize = 16;

/// Floats of a run.
pub(crate) const RUN: usize = 8;

/// `to[c * to_pitch + r] = from[r * from_pitch + c]` for `rows` by `cols`, at most sixteen each. `width` elements of each of the `cols` lines of `to` are
/// written; those from `rows` on are zeros.
///
/// # Safety
/// The CPU has AVX-512 F and DQ. `from` is readable and `to` writable for these elements.
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
            // SAFETY: the mask limits the load to `cols` elements of an existing row.
            a[r] = unsafe { _mm512_maskz_loadu_ps(mask(cols), from.add(r * from_pitch)) };
        }
    }
    let mut b = [zero; SIDE];
    for i in 0..SIDE / 2 {
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    // Quarter q of a[4 * i + j] becomes column 4 * q + j of rows 4 * i to 4 * i + 3.
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
            // SAFETY: the mask limits the store to `width` elements of an existing line.
            unsafe { _mm512_mask_storeu_ps(to.add(c * to_pitch), mask(width), b[c]) };
        }
    }
}

/// `to[16 * c + r] = from[r * pitch + c]` for the columns `4 * q` to `4 * q + 3` of each quad `q`, and `rows` rows, at most sixteen; rows from `rows` on
/// become zeros.
///
/// Loads insert rows into halves of registers, which saves half of the shuffles.
///
/// # Safety
/// The CPU has AVX. `from` is readable and `to` writable for these elements.
#[target_feature(enable = "avx")]
pub(crate) unsafe fn lines_of_quads(
    from: *const f32,
    pitch: usize,
    rows: usize,
    quads: impl Iterator<Item = usize>,
    to: *mut f32,
) {
    // SAFETY: the contract of this function, passed on for each quad.
    unsafe {
        if rows == SIDE {
            for q in quads {
                lines_of_quad::<true>(from.add(4 * q), pitch, SIDE, to.add(4 * q * SIDE));
            }
        } else {
            for q in quads {
                lines_of_quad::<false>(from.add(4 * q), pitch, rows, to.add(4 * q * SIDE));
            }
        }
    }
}

/// # Safety
/// As [`lines_of_quads`], for one quad; `ALL` means that `rows` is sixteen.
#[inline]
#[target_feature(enable = "avx")]
unsafe fn lines_of_quad<const ALL: bool>(
    from: *const f32,
    pitch: usize,
    rows: usize,
    to: *mut f32,
) {
    for half in [0, SIDE / 2] {
        let mut a = [_mm256_setzero_ps(); 4];
        for i in 0..4 {
            let mut fours = [_mm_setzero_ps(); 2];
            for (four, r) in fours.iter_mut().zip([half + i, half + i + 4]) {
                if ALL || r < rows {
                    // SAFETY: these are four elements of an existing row.
                    *four = unsafe { _mm_loadu_ps(from.add(r * pitch)) };
                }
            }
            a[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(fours[0]), fours[1]);
        }
        let (p, q) = (
            _mm256_unpacklo_ps(a[0], a[1]),
            _mm256_unpackhi_ps(a[0], a[1]),
        );
        let (r, s) = (
            _mm256_unpacklo_ps(a[2], a[3]),
            _mm256_unpackhi_ps(a[2], a[3]),
        );
        let [p, q, r, s] = [p, q, r, s].map(|v| _mm256_castps_pd(v));
        let lines = [
            _mm256_unpacklo_pd(p, r),
            _mm256_unpackhi_pd(p, r),
            _mm256_unpacklo_pd(q, s),
            _mm256_unpackhi_pd(q, s),
        ];
        for c in 0..4 {
            // SAFETY: this is half of an existing line.
            unsafe { _mm256_storeu_ps(to.add(c * SIDE + half), _mm256_castpd_ps(lines[c])) };
        }
    }
}

/// `to[16 * i + r] = from[runs[r] + i]` for sixteen runs `r` of eight floats and `i` below `lines`, at most eight. Elements whose bit in the mask of their
/// run is not set become zeros.
///
/// # Safety
/// `from` is readable for the elements of runs whose bit is set, `to` is writable for `lines` lines.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
pub(crate) unsafe fn lines_of_runs(
    from: *const f32,
    runs: &[isize; SIDE],
    masks: &[__mmask8; SIDE],
    to: *mut f32,
    lines: usize,
) {
    let mut a = [_mm512_setzero_ps(); RUN];
    for i in 0..RUN {
        let low = i / 4 * 8 + i % 4;
        let [low, high] = [low, low + 4].map(|r| {
            // SAFETY: the mask limits the load to readable elements of the run.
            unsafe { _mm256_maskz_loadu_ps(masks[r], from.wrapping_offset(runs[r])) }
        });
        a[i] = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high);
    }
    for i in 0..2 {
        let [p, q, r, s] = quarters([a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]]);
        (a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3]) = (p, q, r, s);
    }
    for i in 0..lines.min(RUN) {
        let line = if i < 4 {
            _mm512_shuffle_f32x4::<0x88>(a[i], a[i + 4])
        } else {
            _mm512_shuffle_f32x4::<0xdd>(a[i - 4], a[i])
        };
        // SAFETY: this is one of the `lines` lines.
        unsafe { _mm512_storeu_ps(to.add(i * SIDE), line) };
    }
}

/// The inverse of [`lines_of_runs`]: `to[runs[r] + i] = from[16 * i + r]` where the bit of the element in the mask of its run is set.
///
/// # Safety
/// `from` is readable for `lines` lines, `to` is writable for the elements of runs whose bit is set.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
pub(crate) unsafe fn runs_of_lines(
    from: *const f32,
    lines: usize,
    to: *mut f32,
    runs: &[isize; SIDE],
    masks: &[__mmask8; SIDE],
) {
    let mut b = [_mm512_setzero_ps(); RUN];
    for i in 0..RUN {
        if i < lines {
            // SAFETY: this is one of the `lines` lines.
            b[i] = unsafe { _mm512_loadu_ps(from.add(i * SIDE)) };
        }
    }
    let mut a = b;
    for i in 0..4 {
        a[i] = _mm512_shuffle_f32x4::<0x44>(b[i], b[i + 4]);
        a[i + 4] = _mm512_shuffle_f32x4::<0xee>(b[i], b[i + 4]);
    }
    for half in 0..2 {
        let rows = quarters([
            a[4 * half],
            a[4 * half + 1],
            a[4 * half + 2],
            a[4 * half + 3],
        ]);
        for i in 0..4 {
            let pair = _mm512_shuffle_f32x4::<0xd8>(rows[i], rows[i]);
            let (low, high) = (8 * half + i, 8 * half + i + 4);
            let at = |r: usize| to.wrapping_offset(runs[r]);
            // SAFETY: the masks limit the stores to writable elements of the runs.
            unsafe {
                _mm256_mask_storeu_ps(at(low), masks[low], _mm512_castps512_ps256(pair));
                _mm256_mask_storeu_ps(at(high), masks[high], _mm512_extractf32x8_ps::<1>(pair));
            }
        }
    }
}

/// Transposes the four by four elements in each quarter of four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    let (p, q) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (r, s) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let [p, q, r, s] = [p, q, r, s].map(|v| _mm512_castps_pd(v));
    [
        _mm512_castpd_ps(_mm512_unpacklo_pd(p, r)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(p, r)),
        _mm512_castpd_ps(_mm512_unpacklo_pd(q, s)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(q, s)),
    ]
}
