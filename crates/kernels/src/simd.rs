//! The few vector operations that sparse kernels are built on, one implementation per instruction set.
//!
//! Everything is `#[inline(always)]`, so that a generic kernel compiled inside a `#[target_feature]` function
//! (see [`simd_dispatch`]) is compiled for that instruction set throughout.

use crate::Level;
use crate::clamp::Bounds;

/// Vectors of `N` floats.
///
/// # Safety
/// Functions may only be called where the instruction set of the implementation is enabled, that is, inlined into a function of [`simd_dispatch`].
/// Pointers must be valid for the number of elements that the function's documentation says. They need no alignment.
pub(crate) unsafe trait Simd: Copy {
    /// Floats in a vector: a divisor of sixteen.
    const N: usize;
    /// `N` floats.
    type V: Copy;
    /// Four floats, ready to be broadcast one by one.
    type Quad: Copy;
    /// Vectors of half as many floats, where the machine has them; else the same.
    type Half: Simd;
    /// Four half-precision floats from memory.
    #[inline(always)]
    unsafe fn f16x4(p: *const [u16; 4]) -> [f32; 4] {
        // SAFETY: `p` is readable for four numbers, by the contract of the trait.
        unsafe { p.read_unaligned() }.map(|h| half::f16::from_bits(h).to_f32())
    }
    /// `w * x + c` of four floats each.
    #[inline(always)]
    unsafe fn fma4(w: [f32; 4], x: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [
            w[0] * x[0] + c[0],
            w[1] * x[1] + c[1],
            w[2] * x[2] + c[2],
            w[3] * x[3] + c[3],
        ]
    }
    /// The clamp of four floats.
    #[inline(always)]
    unsafe fn clamp4(v: [f32; 4], bounds: Bounds) -> [f32; 4] {
        v.map(|v| bounds.apply(v))
    }
    /// Prefetches the cache line at `p`, which need not be valid.
    #[inline(always)]
    fn prefetch<T>(p: *const T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint that cannot fault, part of every x86-64.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }
    /// `N` floats from memory.
    unsafe fn load(p: *const f32) -> Self::V;
    /// `N` floats to memory.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// One float in all lanes.
    unsafe fn splat(x: f32) -> Self::V;
    /// `a * b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `min(max(v, low), high)`; NaN stays.
    unsafe fn clamp(v: Self::V, low: Self::V, high: Self::V) -> Self::V;
    /// The larger number in each lane; NaN if either is NaN.
    unsafe fn larger(a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each two neighbouring lanes, NaN if either is NaN: those of `a`, then those of `b`.
    #[inline(always)]
    unsafe fn pairs(a: Self::V, b: Self::V) -> Self::V {
        let (mut from, mut to) = ([0.0; 32], [0.0; 16]);
        // SAFETY: `N` is at most sixteen, so that two vectors fit in `from` and one in `to`.
        unsafe {
            Self::store(from.as_mut_ptr(), a);
            Self::store(from.as_mut_ptr().add(Self::N), b);
            for i in 0..Self::N {
                to[i] = crate::pool::larger(from[2 * i], from[2 * i + 1]);
            }
            Self::load(to.as_ptr())
        }
    }
    /// The sum of all lanes.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: `N` is at most sixteen, so that a vector fits in `lanes`.
        unsafe { Self::store(lanes.as_mut_ptr(), v) };
        lanes.iter().sum()
    }
    /// Four floats from memory, with one load.
    unsafe fn quad(p: *const f32) -> Self::Quad;
    /// Four floats from registers.
    unsafe fn quad_of(q: [f32; 4]) -> Self::Quad;
    /// Float `I` of the four in all lanes.
    unsafe fn lane<const I: i32>(q: Self::Quad) -> Self::V;
}

/// Arrays of `LANES` floats, which the compiler vectorises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<const LANES: usize>;

/// The vectors of [`Level::Scalar`].
pub(crate) type Scalar = Plain<{ Level::Scalar.lanes() }>;

// SAFETY: plain Rust, which runs everywhere.
unsafe impl<const LANES: usize> Simd for Plain<LANES> {
    const N: usize = LANES;
    type V = [f32; LANES];
    type Quad = [f32; 4];
    type Half = Plain<8>;
    #[inline(always)]
    unsafe fn quad_of(q: [f32; 4]) -> [f32; 4] {
        q
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; LANES] {
        // SAFETY: `p` is readable for `LANES` floats, by the contract of the trait.
        unsafe { p.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; LANES]) {
        // SAFETY: `p` is writable for `LANES` floats, by the contract of the trait.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; LANES], b: [f32; LANES], mut c: [f32; LANES]) -> [f32; LANES] {
        for i in 0..LANES {
            c[i] += a[i] * b[i];
        }
        c
    }
    #[inline(always)]
    unsafe fn clamp(mut v: [f32; LANES], low: [f32; LANES], high: [f32; LANES]) -> [f32; LANES] {
        for i in 0..LANES {
            v[i] = Bounds {
                min: low[i],
                max: high[i],
            }
            .apply(v[i]);
        }
        v
    }
    #[inline(always)]
    unsafe fn larger(mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        for i in 0..LANES {
            a[i] = crate::pool::larger(a[i], b[i]);
        }
        a
    }
    #[inline(always)]
    unsafe fn quad(p: *const f32) -> [f32; 4] {
        // SAFETY: `p` is readable for four floats, by the contract of the trait.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn lane<const I: i32>(q: [f32; 4]) -> [f32; LANES] {
        [q[I as usize]; LANES]
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use super::{Bounds, Level, Simd};

    // With an intrinsic the compiler would turn the permutes of `lane` into four broadcast loads, and loads are the bottleneck of the kernels.
    #[inline]
    #[target_feature(enable = "avx")]
    unsafe fn vbroadcastf128(p: *const f32) -> __m256 {
        let q;
        // SAFETY: reads the four floats at `p`, which the caller makes sure are readable.
        unsafe {
            asm!("vbroadcastf128 {q}, [{p}]", q = out(ymm_reg) q, p = in(reg) p,
                options(pure, readonly, nostack, preserves_flags));
        }
        q
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn vbroadcastf32x4(p: *const f32) -> __m512 {
        let q;
        // SAFETY: reads the four floats at `p`, which the caller makes sure are readable.
        unsafe {
            asm!("vbroadcastf32x4 {q}, [{p}]", q = out(zmm_reg) q, p = in(reg) p,
                options(pure, readonly, nostack, preserves_flags));
        }
        q
    }

    #[inline(always)]
    unsafe fn vcvtph2ps(p: *const [u16; 4]) -> [f32; 4] {
        let mut out = [0.0; 4];
        // SAFETY: the caller makes sure that `p` is readable for four numbers and that F16C is enabled; `out` holds four floats.
        unsafe {
            let h = _mm_cvtph_ps(_mm_loadl_epi64(p.cast()));
            _mm_storeu_ps(out.as_mut_ptr(), h);
        }
        out
    }

    #[inline(always)]
    unsafe fn vfmadd4(w: [f32; 4], x: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller makes sure that FMA is enabled; `[f32; 4]` and `__m128` have the same size, and any bits are valid.
        unsafe {
            let [w, x, c] = [w, x, c].map(|v| std::mem::transmute::<[f32; 4], __m128>(v));
            std::mem::transmute(_mm_fmadd_ps(w, x, c))
        }
    }

    #[inline(always)]
    unsafe fn clamp4(v: [f32; 4], bounds: Bounds) -> [f32; 4] {
        // With NaN in the second operand, max and min return the second operand.
        // SAFETY: SSE is part of every x86-64; `[f32; 4]` and `__m128` have the same size, and any bits are valid.
        unsafe {
            let v = std::mem::transmute::<[f32; 4], __m128>(v);
            let v = _mm_max_ps(_mm_set1_ps(bounds.min), v);
            std::mem::transmute(_mm_min_ps(_mm_set1_ps(bounds.max), v))
        }
    }

    /// 256-bit vectors with fused multiply-add.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx2;

    // SAFETY: instructions of AVX2, FMA and F16C only, which are those of `Level::Avx2`.
    unsafe impl Simd for Avx2 {
        const N: usize = Level::Avx2.lanes();
        type V = __m256;
        type Quad = __m256;
        type Half = Self;
        #[inline(always)]
        unsafe fn quad_of(q: [f32; 4]) -> __m256 {
            // SAFETY: reads only the four floats of `q`; the instruction set is enabled (contract of the trait).
            unsafe {
                let q = _mm_loadu_ps(q.as_ptr());
                _mm256_set_m128(q, q)
            }
        }
        #[inline(always)]
        unsafe fn f16x4(p: *const [u16; 4]) -> [f32; 4] {
            // SAFETY: `p` is readable for four numbers and F16C is enabled (contract of the trait).
            unsafe { vcvtph2ps(p) }
        }
        #[inline(always)]
        unsafe fn clamp4(v: [f32; 4], bounds: Bounds) -> [f32; 4] {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { clamp4(v, bounds) }
        }
        #[inline(always)]
        unsafe fn fma4(w: [f32; 4], x: [f32; 4], c: [f32; 4]) -> [f32; 4] {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { vfmadd4(w, x, c) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: `p` is readable for `N` floats, of any alignment (contract of the trait).
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            // SAFETY: `p` is writable for `N` floats, of any alignment (contract of the trait).
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m256, low: __m256, high: __m256) -> __m256 {
            // With NaN in the second operand, max and min return the second operand.
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm256_min_ps(high, _mm256_max_ps(low, v)) }
        }
        #[inline(always)]
        unsafe fn larger(a: __m256, b: __m256) -> __m256 {
            // If either operand is NaN the instruction returns the second; their sum is NaN.
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe {
                let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b);
                _mm256_blendv_ps(_mm256_max_ps(a, b), _mm256_add_ps(a, b), nan)
            }
        }
        #[inline(always)]
        unsafe fn pairs(a: __m256, b: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { pairs256::<Self>(a, b) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m256) -> f32 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe {
                let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
                _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
            }
        }
        #[inline(always)]
        unsafe fn quad(p: *const f32) -> __m256 {
            // SAFETY: `p` is readable for four floats, of any alignment (contract of the trait).
            unsafe { vbroadcastf128(p) }
        }
        #[inline(always)]
        unsafe fn lane<const I: i32>(q: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe {
                match I {
                    0 => _mm256_permute_ps::<0x00>(q),
                    1 => _mm256_permute_ps::<0x55>(q),
                    2 => _mm256_permute_ps::<0xaa>(q),
                    _ => _mm256_permute_ps::<0xff>(q),
                }
            }
        }
    }

    /// [`Simd::pairs`] of 256-bit vectors, by their [`Simd::larger`].
    #[inline(always)]
    unsafe fn pairs256<S: Simd<V = __m256>>(a: __m256, b: __m256) -> __m256 {
        // SAFETY: no memory is accessed; both implementations that call this have AVX2 enabled.
        unsafe {
            let even = _mm256_shuffle_ps::<0x88>(a, b);
            let odd = _mm256_shuffle_ps::<0xdd>(a, b);
            let pairs = _mm256_castps_pd(S::larger(even, odd));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(pairs))
        }
    }

    /// 256-bit vectors where AVX-512 is enabled, which has masks for them.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512Half;

    // SAFETY: instructions of AVX2, FMA, F16C and AVX-512 F, DQ and VL only, which are among those of `Level::Avx512`.
    unsafe impl Simd for Avx512Half {
        const N: usize = 8;
        type V = __m256;
        type Quad = __m256;
        type Half = Self;
        #[inline(always)]
        unsafe fn quad_of(q: [f32; 4]) -> __m256 {
            // SAFETY: reads only the four floats of `q`; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::quad_of(q) }
        }
        #[inline(always)]
        unsafe fn f16x4(p: *const [u16; 4]) -> [f32; 4] {
            // SAFETY: `p` is readable for four numbers and F16C is enabled (contract of the trait).
            unsafe { vcvtph2ps(p) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            // SAFETY: `p` is readable for `N` floats, of any alignment (contract of the trait).
            unsafe { Avx2::load(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            // SAFETY: `p` is writable for `N` floats, of any alignment (contract of the trait).
            unsafe { Avx2::store(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::splat(x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::fma(a, b, c) }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m256, low: __m256, high: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::clamp(v, low, high) }
        }
        #[inline(always)]
        unsafe fn larger(a: __m256, b: __m256) -> __m256 {
            // If either operand is NaN the instruction returns the second; NaN or-ed with the other is NaN. A sum would be NaN too, but the
            // compiler turns it into a slow horizontal add in `pairs`.
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe {
                let nan = _mm256_cmp_ps_mask::<_CMP_UNORD_Q>(a, b);
                _mm256_mask_or_ps(_mm256_max_ps(a, b), nan, a, b)
            }
        }
        #[inline(always)]
        unsafe fn pairs(a: __m256, b: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { pairs256::<Self>(a, b) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m256) -> f32 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::sum(v) }
        }
        #[inline(always)]
        unsafe fn quad(p: *const f32) -> __m256 {
            // SAFETY: `p` is readable for four floats, of any alignment (contract of the trait).
            unsafe { Avx2::quad(p) }
        }
        #[inline(always)]
        unsafe fn lane<const I: i32>(q: __m256) -> __m256 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { Avx2::lane::<I>(q) }
        }
    }

    /// 512-bit vectors.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512;

    // SAFETY: instructions of `Level::Avx512` only.
    unsafe impl Simd for Avx512 {
        const N: usize = Level::Avx512.lanes();
        type V = __m512;
        type Quad = __m512;
        type Half = Avx512Half;
        #[inline(always)]
        unsafe fn quad_of(q: [f32; 4]) -> __m512 {
            // SAFETY: reads only the four floats of `q`; the instruction set is enabled (contract of the trait).
            unsafe { _mm512_broadcast_f32x4(_mm_loadu_ps(q.as_ptr())) }
        }
        #[inline(always)]
        unsafe fn f16x4(p: *const [u16; 4]) -> [f32; 4] {
            // SAFETY: `p` is readable for four numbers and F16C is enabled (contract of the trait).
            unsafe { vcvtph2ps(p) }
        }
        #[inline(always)]
        unsafe fn clamp4(v: [f32; 4], bounds: Bounds) -> [f32; 4] {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { clamp4(v, bounds) }
        }
        #[inline(always)]
        unsafe fn fma4(w: [f32; 4], x: [f32; 4], c: [f32; 4]) -> [f32; 4] {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { vfmadd4(w, x, c) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            // SAFETY: `p` is readable for `N` floats, of any alignment (contract of the trait).
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            // SAFETY: `p` is writable for `N` floats, of any alignment (contract of the trait).
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn clamp(v: __m512, low: __m512, high: __m512) -> __m512 {
            // With NaN in the second operand, max and min return the second operand.
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm512_min_ps(high, _mm512_max_ps(low, v)) }
        }
        #[inline(always)]
        unsafe fn larger(a: __m512, b: __m512) -> __m512 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { crate::pool::larger_lanes(a, b) }
        }
        #[inline(always)]
        unsafe fn sum(v: __m512) -> f32 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { _mm512_reduce_add_ps(v) }
        }
        #[inline(always)]
        unsafe fn quad(p: *const f32) -> __m512 {
            // SAFETY: `p` is readable for four floats, of any alignment (contract of the trait).
            unsafe { vbroadcastf32x4(p) }
        }
        #[inline(always)]
        unsafe fn lane<const I: i32>(q: __m512) -> __m512 {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe {
                match I {
                    0 => _mm512_permute_ps::<0x00>(q),
                    1 => _mm512_permute_ps::<0x55>(q),
                    2 => _mm512_permute_ps::<0xaa>(q),
                    _ => _mm512_permute_ps::<0xff>(q),
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::Neon;

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Level, Simd};

    /// 128-bit vectors.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Neon;

    // SAFETY: NEON is part of the aarch64 baseline.
    unsafe impl Simd for Neon {
        const N: usize = Level::Neon.lanes();
        type V = float32x4_t;
        type Quad = float32x4_t;
        type Half = Self;
        #[inline(always)]
        unsafe fn quad_of(q: [f32; 4]) -> float32x4_t {
            // SAFETY: reads only the four floats of `q`; the instruction set is enabled (contract of the trait).
            unsafe { vld1q_f32(q.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> float32x4_t {
            // SAFETY: `p` is readable for `N` floats, of any alignment (contract of the trait).
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: float32x4_t) {
            // SAFETY: `p` is writable for `N` floats, of any alignment (contract of the trait).
            unsafe { vst1q_f32(p, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn clamp(v: float32x4_t, low: float32x4_t, high: float32x4_t) -> float32x4_t {
            // SAFETY: no memory is accessed. Both instructions keep NaN.
            unsafe { vminq_f32(high, vmaxq_f32(low, v)) }
        }
        #[inline(always)]
        unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: no memory is accessed. The instruction returns NaN if either operand is NaN.
            unsafe { vmaxq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn quad(p: *const f32) -> float32x4_t {
            // SAFETY: `p` is readable for four floats, of any alignment (contract of the trait).
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn lane<const I: i32>(q: float32x4_t) -> float32x4_t {
            // SAFETY: no memory is accessed. The compiler folds this into a multiply-add by lane.
            unsafe { vdupq_laneq_f32::<I>(q) }
        }
    }
}

/// Defines a function that runs one `unsafe`, `#[inline(always)]` body, generic over [`Simd`], for the instruction set of its first argument.
///
/// The macro makes sure that the instruction set is enabled. The rest of the body's contract is left to the caller, so the function is `unsafe` too.
macro_rules! simd_dispatch {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
        $vis unsafe fn $name(isa: $crate::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the caller keeps the body's contract; the instruction set is enabled here.
                unsafe { $body::<$crate::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the caller keeps the body's contract; the instruction set is enabled here.
                unsafe { $body::<$crate::simd::Avx2>($($arg),*) }
            }
            // SAFETY: the caller keeps the body's contract; an `Isa` of a level exists only where its features were detected.
            unsafe {
                match isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::Level::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::Level::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::Level::Neon => $body::<$crate::simd::Neon>($($arg),*),
                    $crate::Level::Scalar => $body::<$crate::simd::Scalar>($($arg),*),
                    #[cfg(not(target_arch = "x86_64"))]
                    $crate::Level::Avx512 | $crate::Level::Avx2 => unreachable!("only x86-64 has AVX"),
                    #[cfg(not(target_arch = "aarch64"))]
                    $crate::Level::Neon => unreachable!("only aarch64 has NEON"),
                }
            }
        }
    };
}
pub(crate) use simd_dispatch;
