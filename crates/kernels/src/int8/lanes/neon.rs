//! NEON, and NEON with its instructions for dot products.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::int8::lanes::{Joined, Lanes, MAGNITUDE, Weights, copy_sixteens};
use crate::simd;

/// For each byte of a line, where it is after packing: at `4 j + i`.
const PACKED: [u8; 16] = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];

/// Sums of the products of four signed bytes each.
trait Products {
    /// `sums` plus the products of each four bytes with the four of `weights`.
    ///
    /// # Safety
    /// The instructions must be enabled where this is inlined.
    unsafe fn add(sums: int32x4_t, x: int8x16_t, weights: int8x16_t) -> int32x4_t;
}

/// NEON without its instructions for dot products.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon;

impl Products for Neon {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, x: int8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: no memory is accessed; NEON is part of every aarch64. No product of signed bytes exceeds 2^14.
        unsafe {
            let low = vmull_s8(vget_low_s8(x), vget_low_s8(weights));
            let high = vmull_high_s8(x, weights);
            let fours = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
            vaddq_s32(sums, fours)
        }
    }
}

/// NEON with its instructions for dot products.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonDot;

// The intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, x: int8x16_t, weights: int8x16_t) -> int32x4_t {
    // SAFETY: no memory is accessed; the instruction set is enabled.
    unsafe {
        asm!("sdot {sums:v}.4s, {x:v}.16b, {weights:v}.16b",
            sums = inout(vreg) sums, x = in(vreg) x, weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

impl Products for NeonDot {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, x: int8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction set is enabled (contract of the trait).
        unsafe { sdot(sums, x, weights) }
    }
}

/// Numbers as bytes, rounded, saturated and clamped, one vector after the other.
///
/// # Safety
/// NEON must be enabled where this is inlined.
#[inline(always)]
unsafe fn packed(v: [float32x4_t; 4], [least, most]: [u8; 2]) -> uint8x16_t {
    // SAFETY: no memory is accessed; NEON is part of every aarch64.
    unsafe {
        let [a, b, c, d] = v.map(|v| vqmovn_s32(vcvtnq_s32_f32(v)));
        let low = vqmovun_s16(vcombine_s16(a, b));
        let bytes = vqmovun_high_s16(low, vcombine_s16(c, d));
        let bytes = vmaxq_u8(bytes, vdupq_n_u8(least));
        vminq_u8(bytes, vdupq_n_u8(most))
    }
}

macro_rules! neon {
    ($name:ident) => {
        // SAFETY: only instructions that are enabled where `dot::run` inlines this.
        unsafe impl Lanes for $name {
            type Floats = simd::Neon;
            type Ints = int32x4_t;
            const FORMS: usize = 1;
            const TWO_ROWS: bool = true;
            const SUMS: usize = 16;
            type Constants = ();
            type Fours = int8x16_t;
            #[inline(always)]
            fn constants() {}
            #[inline(always)]
            unsafe fn splat(v: i32) -> int32x4_t {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { vdupq_n_s32(v) }
            }
            #[inline(always)]
            unsafe fn add_products(
                (): (),
                [mut s, mut t, mut u, mut v]: [int32x4_t; 4],
                lines: [*const u8; 4],
                _: usize,
                weights: &Weights,
            ) -> [int32x4_t; 4] {
                // SAFETY: each line is readable for 16 bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let weights = i32::from_ne_bytes(weights.four.map(i8::cast_unsigned));
                    let weights = vreinterpretq_s8_s32(vdupq_n_s32(weights));
                    // Bytes less 128 are signed bytes; the first value of the sums makes up for it.
                    let signed = |line: *const u8| veorq_u8(vld1q_u8(line), vdupq_n_u8(128));
                    let [a, b, c, d] = lines.map(signed);
                    let words = |bytes: uint8x16_t| vreinterpretq_u16_u8(bytes);
                    let bytes = |words: uint16x8_t| vreinterpretq_s8_u16(words);
                    let [ab, cd] = [words(vzip1q_u8(a, b)), words(vzip1q_u8(c, d))];
                    s = <$name>::add(s, bytes(vzip1q_u16(ab, cd)), weights);
                    t = <$name>::add(t, bytes(vzip2q_u16(ab, cd)), weights);
                    let [ab, cd] = [words(vzip2q_u8(a, b)), words(vzip2q_u8(c, d))];
                    u = <$name>::add(u, bytes(vzip1q_u16(ab, cd)), weights);
                    v = <$name>::add(v, bytes(vzip2q_u16(ab, cd)), weights);
                    [s, t, u, v]
                }
            }
            #[inline(always)]
            unsafe fn load_fours(p: *const i8) -> int8x16_t {
                // SAFETY: `p` is readable for 16 bytes (contract of the trait).
                unsafe { vld1q_s8(p) }
            }
            #[inline(always)]
            unsafe fn splat_fours(p: *const i8) -> int8x16_t {
                // SAFETY: `p` is readable for four bytes; the instruction set is enabled (contract of the trait).
                unsafe { vreinterpretq_s8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned())) }
            }
            #[inline(always)]
            unsafe fn add_fours(sums: int32x4_t, x: *const u8, weights: int8x16_t) -> int32x4_t {
                // SAFETY: `x` is readable for four bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let x = vreinterpretq_u8_u32(vdupq_n_u32(x.cast::<u32>().read_unaligned()));
                    let signed = vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)));
                    <$name>::add(sums, signed, weights)
                }
            }
            #[inline(always)]
            unsafe fn add_own_fours(
                sums: int32x4_t,
                x: *const u8,
                weights: int8x16_t,
            ) -> int32x4_t {
                // SAFETY: `x` is readable for 16 bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let signed = veorq_u8(vld1q_u8(x), vdupq_n_u8(128));
                    <$name>::add(sums, vreinterpretq_s8_u8(signed), weights)
                }
            }
            #[inline(always)]
            unsafe fn add_registers(
                sums: int32x4_t,
                x: int8x16_t,
                weights: int8x16_t,
            ) -> int32x4_t {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { <$name>::add(sums, x, weights) }
            }
            #[inline(always)]
            unsafe fn in_order([s, t, u, v]: [int32x4_t; 4]) -> [int32x4_t; 4] {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe {
                    [
                        vuzp1q_s32(s, t),
                        vuzp2q_s32(s, t),
                        vuzp1q_s32(u, v),
                        vuzp2q_s32(u, v),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn plus(a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { vaddq_s32(a, b) }
            }
            #[inline(always)]
            unsafe fn larger_magnitude(most: int32x4_t, x: *const f32) -> int32x4_t {
                // SAFETY: `x` is readable for four floats (contract of the trait).
                unsafe {
                    let bits = vandq_s32(Self::load(x.cast()), vdupq_n_s32(MAGNITUDE));
                    vmaxq_s32(most, bits)
                }
            }
            #[inline(always)]
            unsafe fn load(p: *const i32) -> int32x4_t {
                // SAFETY: `p` is readable for four integers (contract of the trait).
                unsafe { vld1q_s32(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut i32, v: int32x4_t) {
                // SAFETY: `p` is writable for four integers (contract of the trait).
                unsafe { vst1q_s32(p, v) }
            }
            #[inline(always)]
            unsafe fn floats(v: int32x4_t) -> float32x4_t {
                // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
                unsafe { vcvtq_f32_s32(v) }
            }
            #[inline(always)]
            unsafe fn load_bytes(
                line: [*const u8; 4],
                joined: Joined,
                part: usize,
            ) -> [float32x4_t; 4] {
                // SAFETY: the line is readable; the instruction set is enabled (contract of the trait).
                unsafe {
                    let line = vld1q_u8(match joined {
                        Joined::Four => line[0].add(16 * part),
                        _ => line[part],
                    });
                    // Bytes of pairs of sums alternate.
                    let even = vuzp1q_u8(line, line);
                    let odd = vuzp2q_u8(line, line);
                    let wide = |v: uint8x16_t| vmovl_u8(vget_low_u8(v));
                    let [even, odd] = [wide(even), wide(odd)];
                    [
                        vcvtq_f32_u32(vmovl_u16(vget_low_u16(even))),
                        vcvtq_f32_u32(vmovl_u16(vget_low_u16(odd))),
                        vcvtq_f32_u32(vmovl_high_u16(even)),
                        vcvtq_f32_u32(vmovl_high_u16(odd)),
                    ]
                }
            }
            #[inline(always)]
            unsafe fn copy_line(from: [*const u8; 4], joined: Joined, to: *mut u8) {
                // SAFETY: the pointers are valid for the bytes of a line (contract of the trait).
                unsafe { copy_sixteens(from, joined, to) }
            }
            #[inline(always)]
            unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
                // SAFETY: the pointers are those of arrays of sixteen bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let permuted = vqtbl1q_u8(vld1q_u8(line.as_ptr()), vld1q_u8(order.as_ptr()));
                    let mut bytes = [0; 16];
                    vst1q_u8(bytes.as_mut_ptr(), permuted);
                    bytes
                }
            }
            #[inline(always)]
            unsafe fn store_bytes(
                p: *mut u8,
                _: Option<usize>,
                v: [float32x4_t; 4],
                bounds: [u8; 2],
            ) {
                // SAFETY: `p` is writable for 16 bytes; the instruction set is enabled (contract of the trait).
                unsafe {
                    let bytes = packed(v, bounds);
                    vst1q_u8(p, vqtbl1q_u8(bytes, vld1q_u8(PACKED.as_ptr())));
                }
            }
            #[inline(always)]
            unsafe fn store_lines(p: *mut u8, v: [float32x4_t; 4], bounds: [u8; 2], _: usize) {
                // SAFETY: `p` is writable for 16 bytes; the instruction set is enabled (contract of the trait).
                unsafe { vst1q_u8(p, packed(v, bounds)) }
            }
            // Sixteen numbers are one line.
            #[inline(always)]
            unsafe fn to_lines(v: [float32x4_t; 4]) -> [float32x4_t; 4] {
                v
            }
            #[inline(always)]
            unsafe fn of_lines(v: [float32x4_t; 4]) -> [float32x4_t; 4] {
                v
            }
        }
    };
}
neon!(Neon);
neon!(NeonDot);
