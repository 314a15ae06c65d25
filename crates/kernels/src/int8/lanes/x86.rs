//! AVX2, AVX2 with VNNI and AVX-512 with VNNI.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::int8::lanes::{Joined, Lanes, MAGNITUDE, SAMPLES, Weights, copy_sixteens, place};
use crate::simd;
use crate::transpose::transpose;

/// For each byte of a 128-bit lane of a line, where it is after three saturating packs: at `4 j + i`.
const PACKED: [i8; 16] = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];
/// The same for the second form.
const PACKED_SECOND: [i8; 16] = [4, 0, 5, 1, 6, 2, 7, 3, 12, 8, 13, 9, 14, 10, 15, 11];
/// For each byte of a 128-bit lane of the second form, where it is in the first.
const EXCHANGED: [i8; 16] = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14];

/// Where the bytes of the four sums are in each 128-bit lane of a line, as 32-bit integers; the other bytes are zero.
const UNPACK: [[i8; 16]; 4] = {
    let mut orders = [[-1; 16]; 4];
    let mut j = 0;
    while j < 4 {
        let mut i = 0;
        while i < 4 {
            orders[j][4 * i] = place(j, i) as i8;
            i += 1;
        }
        j += 1;
    }
    orders
};

/// [`Lanes::permute`].
///
/// # Safety
/// SSSE3, which AVX2 includes, must be enabled where this is inlined.
#[inline(always)]
unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
    // SAFETY: any sixteen bytes are a vector and the other way round; the instruction set is enabled (contract of this function).
    unsafe {
        let [line, order] =
            [line, order].map(|bytes| std::mem::transmute::<[u8; 16], __m128i>(bytes));
        std::mem::transmute::<__m128i, [u8; 16]>(_mm_shuffle_epi8(line, order))
    }
}

/// Sums of the products of four bytes each.
trait Products {
    /// `sums` plus the products of each four bytes with the four of `weights`.
    ///
    /// # Safety
    /// The instructions must be enabled where this is inlined.
    unsafe fn add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i;
    /// The same for any weights, where [`Products::add`] may saturate.
    ///
    /// # Safety
    /// As [`Products::add`].
    #[inline(always)]
    unsafe fn add_any(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { Self::add(sums, x, weights) }
    }
}

/// AVX2 without VNNI. It sums two products in 16 bits, with saturation: see `any4.rs` for why they fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

impl Products for Avx2 {
    #[inline(always)]
    unsafe fn add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe {
            let pairs = _mm256_maddubs_epi16(x, weights);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn add_any(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // One product of each pair at a time fits.
        // SAFETY: by the contract of this function.
        unsafe {
            let low = _mm256_set1_epi16(0xff);
            let sums = Self::add(sums, x, _mm256_and_si256(weights, low));
            Self::add(sums, x, _mm256_andnot_si256(low, weights))
        }
    }
}

/// AVX2 with VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2Vnni;

impl Products for Avx2Vnni {
    #[inline(always)]
    unsafe fn add(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { _mm256_dpbusd_avx_epi32(sums, x, weights) }
    }
}

/// Numbers as bytes, rounded, saturated and clamped: four of each in turn, for each 128-bit lane.
///
/// # Safety
/// AVX2 must be enabled where this is inlined.
#[inline(always)]
unsafe fn packed(v: [__m256; 4], [least, most]: [u8; 2]) -> __m256i {
    // SAFETY: no memory is accessed; the instruction set is enabled (contract of this function).
    unsafe {
        let [a, b, c, d] = v.map(|v| _mm256_cvtps_epi32(v));
        let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)];
        let bytes = _mm256_packus_epi16(words[0], words[1]);
        let bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8(least.cast_signed()));
        _mm256_min_epu8(bytes, _mm256_set1_epi8(most.cast_signed()))
    }
}

macro_rules! avx2 {
    ($name:ident) => {
        // SAFETY: only instructions that are enabled where `dot::run` inlines this.
        unsafe impl Lanes for $name {
            type Floats = simd::Avx2;
            type Ints = __m256i;
            const FORMS: usize = 1;
            const TWO_ROWS: bool = false;
            const SUMS: usize = 8;
            type Constants = ();
            type Fours = __m256i;
            #[inline(always)]
            fn constants() {}
            #[inline(always)]
            unsafe fn splat(v: i32) -> __m256i {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { _mm256_set1_epi32(v) }
            }
            #[inline(always)]
            unsafe fn add_products(
                (): (),
                [mut s, mut t, mut u, mut v]: [__m256i; 4],
                lines: [*const u8; 4],
                _: usize,
                weights: &Weights,
            ) -> [__m256i; 4] {
                // SAFETY: each line is readable for 32 bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let [a, b, c, d] = lines.map(|line| _mm256_loadu_si256(line.cast()));
                    let weights =
                        _mm256_set1_epi32(i32::from_ne_bytes(weights.four.map(i8::cast_unsigned)));
                    let ab = _mm256_unpacklo_epi8(a, b);
                    let cd = _mm256_unpacklo_epi8(c, d);
                    s = <$name>::add(s, _mm256_unpacklo_epi16(ab, cd), weights);
                    t = <$name>::add(t, _mm256_unpackhi_epi16(ab, cd), weights);
                    let ab = _mm256_unpackhi_epi8(a, b);
                    let cd = _mm256_unpackhi_epi8(c, d);
                    u = <$name>::add(u, _mm256_unpacklo_epi16(ab, cd), weights);
                    v = <$name>::add(v, _mm256_unpackhi_epi16(ab, cd), weights);
                    [s, t, u, v]
                }
            }
            #[inline(always)]
            unsafe fn load_fours(p: *const i8) -> __m256i {
                // SAFETY: `p` is readable for 32 bytes (contract of the trait).
                unsafe { _mm256_loadu_si256(p.cast()) }
            }
            #[inline(always)]
            unsafe fn splat_fours(p: *const i8) -> __m256i {
                // SAFETY: `p` is readable for four bytes; the instruction set is enabled (contract of the trait).
                unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
            }
            #[inline(always)]
            unsafe fn add_fours(sums: __m256i, x: *const u8, weights: __m256i) -> __m256i {
                // SAFETY: `x` is readable for four bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                    <$name>::add_any(sums, x, weights)
                }
            }
            #[inline(always)]
            unsafe fn add_own_fours(sums: __m256i, x: *const u8, weights: __m256i) -> __m256i {
                // SAFETY: `x` is readable for 32 bytes; the instruction set is enabled (contract of the trait).
                unsafe { <$name>::add_any(sums, _mm256_loadu_si256(x.cast()), weights) }
            }
            #[inline(always)]
            unsafe fn add_registers(sums: __m256i, x: __m256i, weights: __m256i) -> __m256i {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { <$name>::add(sums, x, weights) }
            }
            #[inline(always)]
            unsafe fn interleave(
                lines: [*const u8; 4],
                _: Joined,
                order: Option<&[u32; 16]>,
                to: *mut u8,
            ) {
                // SAFETY: each line is readable for 16 bytes, and `to` writable for 64; the instruction set is enabled (contract of the trait).
                unsafe {
                    let [a, b, c, d] = lines.map(|line| _mm_loadu_si128(line.cast()));
                    let [ab, cd] = [_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d)];
                    let low = [_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)];
                    let [ab, cd] = [_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d)];
                    let high = [_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)];
                    let fours = [low[0], low[1], high[0], high[1]];
                    let Some(order) = order else {
                        return to.cast::<[__m128i; 4]>().write_unaligned(fours);
                    };
                    let fours = std::mem::transmute::<[__m128i; 4], [[u8; 4]; 16]>(fours);
                    for (i, &place) in order.iter().enumerate() {
                        let four = fours[place as usize % 16];
                        to.add(4 * i).cast::<[u8; 4]>().write(four);
                    }
                }
            }
            #[inline(always)]
            unsafe fn in_order(sums: [__m256i; 4]) -> [__m256i; 4] {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe {
                    let [s, t, u, v] = sums.map(|s| _mm256_castsi256_ps(s));
                    [
                        _mm256_shuffle_ps::<0x88>(s, t),
                        _mm256_shuffle_ps::<0xdd>(s, t),
                        _mm256_shuffle_ps::<0x88>(u, v),
                        _mm256_shuffle_ps::<0xdd>(u, v),
                    ]
                    .map(|s| _mm256_castps_si256(s))
                }
            }
            #[inline(always)]
            unsafe fn plus(a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { _mm256_add_epi32(a, b) }
            }
            #[inline(always)]
            unsafe fn larger_magnitude(most: __m256i, x: *const f32) -> __m256i {
                // SAFETY: `x` is readable for eight floats (contract of the trait).
                unsafe {
                    let bits = _mm256_and_si256(Self::load(x.cast()), _mm256_set1_epi32(MAGNITUDE));
                    _mm256_max_epi32(most, bits)
                }
            }
            #[inline(always)]
            unsafe fn load(p: *const i32) -> __m256i {
                // SAFETY: `p` is readable for eight integers (contract of the trait).
                unsafe { _mm256_loadu_si256(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut i32, v: __m256i) {
                // SAFETY: `p` is writable for eight integers (contract of the trait).
                unsafe { _mm256_storeu_si256(p.cast(), v) }
            }
            #[inline(always)]
            unsafe fn floats(v: __m256i) -> __m256 {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { _mm256_cvtepi32_ps(v) }
            }
            #[inline(always)]
            unsafe fn load_bytes(line: [*const u8; 4], joined: Joined, part: usize) -> [__m256; 4] {
                // SAFETY: the line is readable; the instruction set is enabled (contract of the trait).
                unsafe {
                    let line = if joined == Joined::Four {
                        _mm256_loadu_si256(line[0].add(32 * part).cast())
                    } else {
                        let [low, high] = [line[2 * part], line[2 * part + 1]];
                        _mm256_loadu2_m128i(high.cast(), low.cast())
                    };
                    let sum = |j: usize| {
                        let order = _mm_loadu_si128(UNPACK[j].as_ptr().cast());
                        let order = _mm256_broadcastsi128_si256(order);
                        _mm256_cvtepi32_ps(_mm256_shuffle_epi8(line, order))
                    };
                    [sum(0), sum(1), sum(2), sum(3)]
                }
            }
            #[inline(always)]
            unsafe fn copy_line(from: [*const u8; 4], joined: Joined, to: *mut u8) {
                // SAFETY: the pointers are valid for the bytes of a line (contract of the trait).
                unsafe { copy_sixteens(from, joined, to) }
            }
            #[inline(always)]
            unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
                // SAFETY: the instruction set is enabled (contract of the trait).
                unsafe { permute(line, order) }
            }
            #[inline(always)]
            unsafe fn store_bytes(p: *mut u8, _: Option<usize>, v: [__m256; 4], bounds: [u8; 2]) {
                // SAFETY: `p` is writable for 32 bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let bytes = packed(v, bounds);
                    let order = _mm_loadu_si128(PACKED.as_ptr().cast());
                    let order = _mm256_broadcastsi128_si256(order);
                    _mm256_storeu_si256(p.cast(), _mm256_shuffle_epi8(bytes, order));
                }
            }
            #[inline(always)]
            unsafe fn store_lines(p: *mut u8, v: [__m256; 4], bounds: [u8; 2], lines: usize) {
                // SAFETY: `p` is writable for the lines; the instruction set is enabled (contract of the trait).
                unsafe {
                    let halves = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    let bytes = _mm256_permutevar8x32_epi32(packed(v, bounds), halves);
                    match lines {
                        1 => _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(bytes)),
                        _ => _mm256_storeu_si256(p.cast(), bytes),
                    }
                }
            }
            #[inline(always)]
            unsafe fn to_lines([s, t, u, v]: [__m256; 4]) -> [__m256; 4] {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe {
                    [
                        _mm256_permute2f128_ps::<0x20>(s, t),
                        _mm256_permute2f128_ps::<0x20>(u, v),
                        _mm256_permute2f128_ps::<0x31>(s, t),
                        _mm256_permute2f128_ps::<0x31>(u, v),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn of_lines([s, t, u, v]: [__m256; 4]) -> [__m256; 4] {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe {
                    [
                        _mm256_permute2f128_ps::<0x20>(s, u),
                        _mm256_permute2f128_ps::<0x31>(s, u),
                        _mm256_permute2f128_ps::<0x20>(t, v),
                        _mm256_permute2f128_ps::<0x31>(t, v),
                    ]
                }
            }
        }
    };
}
avx2!(Avx2);
avx2!(Avx2Vnni);

/// AVX-512 with VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vnni;

/// A line in its first form, as [`Lanes::load_bytes`] has it.
///
/// # Safety
/// The line is readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_line([a, b, c, d]: [*const u8; 4], joined: Joined) -> __m512i {
    // SAFETY: by the contract of this function.
    unsafe {
        let [low, high] = match joined {
            Joined::Four => return _mm512_loadu_si512(a.cast()),
            Joined::Pairs => [a, c].map(|pair| _mm256_loadu_si256(pair.cast())),
            Joined::Apart => [
                _mm256_loadu2_m128i(b.cast(), a.cast()),
                _mm256_loadu2_m128i(d.cast(), c.cast()),
            ],
        };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    }
}

/// As [`packed`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn packed_512(v: [__m512; 4], [least, most]: [u8; 2]) -> __m512i {
    let [a, b, c, d] = v.map(|v| _mm512_cvtps_epi32(v));
    let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
    let bytes = _mm512_packus_epi16(words[0], words[1]);
    let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(least.cast_signed()));
    _mm512_min_epu8(bytes, _mm512_set1_epi8(most.cast_signed()))
}

/// The order that exchanges rows and columns of four by four groups of four bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters() -> __m512i {
    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}

// An intrinsic with a known order the compiler takes apart into permutes of halves, which are many more.
#[inline]
#[target_feature(enable = "avx512f")]
fn vpermd(order: __m512i, v: __m512i) -> __m512i {
    let permuted;
    // SAFETY: no memory is accessed; the instruction set is enabled.
    unsafe {
        asm!("vpermd {permuted}, {order}, {v}",
            permuted = lateout(zmm_reg) permuted, order = in(zmm_reg) order, v = in(zmm_reg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    permuted
}

// With an intrinsic the compiler may read both numbers with one load and broadcast them from general registers, on the port that shuffles.
#[inline]
#[target_feature(enable = "avx512f")]
fn vpbroadcastd(weights: &Weights) -> [__m512i; 2] {
    let (four, exchanged);
    // SAFETY: reads the eight bytes of `weights`.
    unsafe {
        asm!("vpbroadcastd {four}, [{weights}]", "vpbroadcastd {exchanged}, [{weights} + 4]",
            four = out(zmm_reg) four, exchanged = lateout(zmm_reg) exchanged, weights = in(reg) weights,
            options(pure, readonly, nostack, preserves_flags));
    }
    [four, exchanged]
}

/// Of 64 bytes those whose bits are set, from `p` on; zeros between them. An intrinsic would need VBMI2 where it is inlined, and so wherever there is VNNI.
///
/// # Safety
/// There is VBMI2, and `p` is readable for 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn vpexpandb(there: u64, p: *const i8) -> __m512i {
    let bytes;
    // SAFETY: by the contract of this function.
    unsafe {
        let all = _mm512_loadu_si512(p.cast());
        asm!("vpexpandb {bytes}{{{there}}}{{z}}, {all}",
            bytes = lateout(zmm_reg) bytes, there = in(kreg) there, all = in(zmm_reg) all,
            options(pure, nomem, nostack, preserves_flags));
    }
    bytes
}

/// The bytes of two registers from the places that lanes of `places` say, below 128. The instruction is not among those that
/// `dot::run` enables, as not all machines with the others have it.
///
/// # Safety
/// There is VBMI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn vpermi2b(places: __m512i, low: __m512i, high: __m512i) -> __m512i {
    let mut bytes = places;
    // SAFETY: by the contract of this function.
    unsafe {
        asm!("vpermi2b {bytes}, {low}, {high}",
            bytes = inout(zmm_reg) bytes, low = in(zmm_reg) low, high = in(zmm_reg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    bytes
}

// SAFETY: only instructions that are enabled where `dot::run` inlines this.
unsafe impl Lanes for Avx512Vnni {
    type Floats = simd::Avx512;
    type Ints = __m512i;
    const FORMS: usize = 2;
    const TWO_ROWS: bool = true;
    const SUMS: usize = 16;
    type Fours = __m512i;
    /// Which of two words a blend takes from the second register.
    type Constants = __mmask32;
    #[inline(always)]
    fn constants() -> __mmask32 {
        // If the compiler knew the mask, it would merge blends and interleavings into permutes of two registers, which take three times as long.
        std::hint::black_box(0xaaaa_aaaa)
    }
    #[inline(always)]
    unsafe fn splat(v: i32) -> __m512i {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_set1_epi32(v) }
    }
    #[inline(always)]
    unsafe fn add_products(
        odd: __mmask32,
        [mut s, mut t, mut u, mut v]: [__m512i; 4],
        [a, b, c, d]: [*const u8; 4],
        second: usize,
        weights: &Weights,
    ) -> [__m512i; 4] {
        // SAFETY: each line is readable for 64 bytes in each form; the instruction set is enabled (contract of the trait).
        unsafe {
            let [a, b] = [a, b].map(|line| _mm512_loadu_si512(line.cast()));
            let [c, d] = [c, d].map(|line| _mm512_loadu_si512(line.add(second).cast()));
            let [four, exchanged] = vpbroadcastd(weights);
            // Words of `ab` belong to samples of the first two sums in turn, those of `cd` the other way round.
            let [ab, cd] = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
            s = _mm512_dpbusd_epi32(s, _mm512_mask_blend_epi16(odd, ab, cd), four);
            t = _mm512_dpbusd_epi32(t, _mm512_mask_blend_epi16(odd, cd, ab), exchanged);
            let [ab, cd] = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
            u = _mm512_dpbusd_epi32(u, _mm512_mask_blend_epi16(odd, ab, cd), four);
            v = _mm512_dpbusd_epi32(v, _mm512_mask_blend_epi16(odd, cd, ab), exchanged);
            [s, t, u, v]
        }
    }
    #[inline(always)]
    unsafe fn load_fours(p: *const i8) -> __m512i {
        // SAFETY: `p` is readable for 64 bytes (contract of the trait).
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_fours(p: *const i8) -> __m512i {
        // SAFETY: `p` is readable for four bytes; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn expand_fours(there: u64, p: *const i8) -> __m512i {
        // SAFETY: `p` is readable for 64 bytes; callers checked that there is VBMI2.
        unsafe { vpexpandb(there, p) }
    }
    #[inline(always)]
    unsafe fn add_fours(sums: __m512i, x: *const u8, weights: __m512i) -> __m512i {
        // SAFETY: `x` is readable for four bytes; the instruction set is enabled (contract of the trait).
        unsafe {
            let x = _mm512_set1_epi32(x.cast::<i32>().read_unaligned());
            _mm512_dpbusd_epi32(sums, x, weights)
        }
    }
    #[inline(always)]
    unsafe fn add_own_fours(sums: __m512i, x: *const u8, weights: __m512i) -> __m512i {
        // SAFETY: `x` is readable for 64 bytes; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_dpbusd_epi32(sums, _mm512_loadu_si512(x.cast()), weights) }
    }
    #[inline(always)]
    unsafe fn add_looked_up(
        sums: __m512i,
        span: *const u8,
        places: &[u8; SAMPLES],
        weights: &[i8; SAMPLES],
    ) -> __m512i {
        // SAFETY: `span` is readable for 128 bytes; the instruction set is enabled (contract of the trait), and callers checked that there is VBMI.
        unsafe {
            let low = _mm512_loadu_si512(span.cast());
            let high = _mm512_loadu_si512(span.add(64).cast());
            let bytes = vpermi2b(_mm512_loadu_si512(places.as_ptr().cast()), low, high);
            _mm512_dpbusd_epi32(sums, bytes, _mm512_loadu_si512(weights.as_ptr().cast()))
        }
    }
    #[inline(always)]
    unsafe fn add_registers(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_dpbusd_epi32(sums, x, weights) }
    }
    #[inline(always)]
    unsafe fn interleave(
        lines: [*const u8; 4],
        joined: Joined,
        order: Option<&[u32; 16]>,
        to: *mut u8,
    ) {
        // SAFETY: each line is readable for 16 bytes, and `to` writable for 64; the instruction set is enabled (contract of the trait).
        unsafe {
            let lines = load_line(lines, joined);
            let sides = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            // Four bytes of each line in each 128-bit lane.
            let quarters = vpermd(quarters(), lines);
            let fours = _mm512_shuffle_epi8(quarters, _mm512_broadcast_i32x4(sides));
            let fours = match order {
                Some(order) => vpermd(_mm512_loadu_si512(order.as_ptr().cast()), fours),
                None => fours,
            };
            _mm512_storeu_si512(to.cast(), fours);
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const i32, to: *mut i32, pitch: usize) {
        // Moving the bits of integers as floats does not change them.
        // SAFETY: the numbers are readable and writable; the instruction set is enabled (contract of the trait).
        unsafe { transpose(from.cast(), 16, [16, 16], to.cast(), pitch, 16) };
    }
    #[inline(always)]
    unsafe fn in_order(sums: [__m512i; 4]) -> [__m512i; 4] {
        sums
    }
    #[inline(always)]
    unsafe fn plus(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn larger_magnitude(most: __m512i, x: *const f32) -> __m512i {
        // SAFETY: `x` is readable for sixteen floats (contract of the trait).
        unsafe {
            let bits = _mm512_and_si512(Self::load(x.cast()), _mm512_set1_epi32(MAGNITUDE));
            _mm512_max_epi32(most, bits)
        }
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> __m512i {
        // SAFETY: `p` is readable for sixteen integers (contract of the trait).
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, v: __m512i) {
        // SAFETY: `p` is writable for sixteen integers (contract of the trait).
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn floats(v: __m512i) -> __m512 {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    #[inline(always)]
    unsafe fn load_bytes(line: [*const u8; 4], joined: Joined, _: usize) -> [__m512; 4] {
        // SAFETY: the line is readable; the instruction set is enabled (contract of the trait).
        unsafe {
            let line = load_line(line, joined);
            let sum = |j: usize| {
                let order = _mm_loadu_si128(UNPACK[j].as_ptr().cast());
                let order = _mm512_broadcast_i32x4(order);
                _mm512_cvtepi32_ps(_mm512_shuffle_epi8(line, order))
            };
            [sum(0), sum(1), sum(2), sum(3)]
        }
    }
    #[inline(always)]
    unsafe fn copy_line(from: [*const u8; 4], joined: Joined, to: *mut u8) {
        // SAFETY: the pointers are valid for the bytes of a line, in each form; the instruction set is enabled (contract of the trait).
        unsafe {
            let line = load_line(from, joined);
            let order = _mm512_broadcast_i32x4(_mm_loadu_si128(EXCHANGED.as_ptr().cast()));
            _mm512_storeu_si512(to.cast(), line);
            _mm512_storeu_si512(to.add(64).cast(), _mm512_shuffle_epi8(line, order));
        }
    }
    #[inline(always)]
    unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
        // SAFETY: the instruction set is enabled (contract of the trait).
        unsafe { permute(line, order) }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, second: Option<usize>, v: [__m512; 4], bounds: [u8; 2]) {
        // SAFETY: `p` is writable for 64 bytes in each form; the instruction set is enabled (contract of the trait).
        unsafe {
            let bytes = packed_512(v, bounds);
            let forms = [(Some(0), PACKED), (second, PACKED_SECOND)];
            for (behind, order) in &forms {
                if let &Some(behind) = behind {
                    let order = _mm512_broadcast_i32x4(_mm_loadu_si128(order.as_ptr().cast()));
                    let bytes = _mm512_shuffle_epi8(bytes, order);
                    _mm512_storeu_si512(p.add(behind).cast(), bytes);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn store_lines(p: *mut u8, v: [__m512; 4], bounds: [u8; 2], lines: usize) {
        // SAFETY: `p` is writable for the lines; the instruction set is enabled (contract of the trait).
        unsafe {
            let bytes = vpermd(quarters(), packed_512(v, bounds));
            // Four times four bytes each.
            let there = (1_u32 << (4 * lines)) - 1;
            _mm512_mask_storeu_epi32(p.cast(), there as __mmask16, bytes);
        }
    }
    #[inline(always)]
    unsafe fn to_lines([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe {
            let low = [
                _mm512_shuffle_f32x4::<0x44>(a, b),
                _mm512_shuffle_f32x4::<0x44>(c, d),
            ];
            let high = [
                _mm512_shuffle_f32x4::<0xee>(a, b),
                _mm512_shuffle_f32x4::<0xee>(c, d),
            ];
            [
                _mm512_shuffle_f32x4::<0x88>(low[0], low[1]),
                _mm512_shuffle_f32x4::<0xdd>(low[0], low[1]),
                _mm512_shuffle_f32x4::<0x88>(high[0], high[1]),
                _mm512_shuffle_f32x4::<0xdd>(high[0], high[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn of_lines(v: [__m512; 4]) -> [__m512; 4] {
        // Exchanging 128-bit lanes of four registers is its own inverse.
        // SAFETY: the instruction set is enabled (contract of the trait).
        unsafe { Self::to_lines(v) }
    }
}
