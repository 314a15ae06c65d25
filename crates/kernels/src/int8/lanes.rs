//! The few vector operations that products of bytes are built on, one implementation per [`super::Dot`].

use crate::simd::{self, Simd};

/// The two orders of the weights of a step: of its four lines, and with the last two lines first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Weights {
    pub four: [i8; 4],
    pub exchanged: [i8; 4],
}

impl Weights {
    pub fn new([a, b, c, d]: [i8; 4]) -> Self {
        Self {
            four: [a, b, c, d],
            exchanged: [c, d, a, b],
        }
    }
}

/// Which of four lines of sixteen bytes follow each other in memory, so that one load reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    Apart,
    /// The first two, and the last two.
    Pairs,
    Four,
}

/// Four sums of `N` samples each, a part of a line at a time; or sums of `N` rows, a sample at a time (functions of fours).
///
/// # Safety
/// Functions may only be called where the instructions of the implementation are enabled, that is, inlined by [`super::dot::run`]. Pointers must be
/// valid for the number of elements that the function's documentation says. They need no alignment.
pub(super) unsafe trait Lanes: Copy {
    /// `N` floats.
    type Floats: Simd;
    /// `N` integers of 32 bits.
    type Ints: Copy;
    /// Samples of each of four sums: a divisor of sixteen.
    const N: usize = Self::Floats::N;
    /// Forms of a line that are stored: 1 or 2.
    const FORMS: usize;
    /// Whether there are registers for the sums of two rows.
    const TWO_ROWS: bool;
    /// Vectors of sums, besides weights, that registers have room for.
    const SUMS: usize;
    /// What [`Lanes::add_products`] needs in registers.
    type Constants: Copy;
    /// Four weights of each of `N` rows.
    type Fours: Copy;
    /// The constants, for all calls of a loop.
    fn constants() -> Self::Constants;
    /// One integer in all lanes.
    unsafe fn splat(v: i32) -> Self::Ints;
    /// Adds the products of four lines, of which `4 N` bytes from each pointer are read, in each form, with their weights. The second form is
    /// `second` bytes after the first. Sums wrap.
    unsafe fn add_products(
        constants: Self::Constants,
        sums: [Self::Ints; 4],
        lines: [*const u8; 4],
        second: usize,
        weights: &Weights,
    ) -> [Self::Ints; 4];
    /// `4 N` weights, four of a row after the other.
    unsafe fn load_fours(p: *const i8) -> Self::Fours;
    /// The same four weights, from `p` on, of each of `N` rows.
    unsafe fn splat_fours(p: *const i8) -> Self::Fours;
    /// The weights whose bits are set in `there`, the first in the lowest bit, which follow each other at `p`; zeros between them. `4 N` bytes from `p` on
    /// are readable, and [`super::Dot::expands`] holds.
    #[inline(always)]
    unsafe fn expand_fours(there: u64, p: *const i8) -> Self::Fours {
        let mut fours = [0; SAMPLES];
        let mut next = p;
        for (bit, weight) in fours.iter_mut().enumerate().take(4 * Self::N) {
            if there >> bit & 1 == 1 {
                // SAFETY: one of as many weights as there are bits; `fours` has `4 N` weights; the instruction set is enabled (contract of the trait).
                unsafe {
                    *weight = next.read();
                    next = next.add(1);
                }
            }
        }
        // SAFETY: as above.
        unsafe { Self::load_fours(fours.as_ptr()) }
    }
    /// Adds to the sum of each row the products of its four weights with the four bytes from `x` on. Sums wrap.
    unsafe fn add_fours(sums: Self::Ints, x: *const u8, weights: Self::Fours) -> Self::Ints;
    /// Adds to each sum the products of its own four bytes, of `4 N` from `x` on, with its four weights. Sums wrap.
    unsafe fn add_own_fours(sums: Self::Ints, x: *const u8, weights: Self::Fours) -> Self::Ints;
    /// Adds to each sum the products of its own four bytes with its four weights: bytes of the 128 from `span` on, each from the place that `places` says, which is
    /// below that. Sums wrap. [`super::Dot::looks_up`] holds.
    #[inline(always)]
    unsafe fn add_looked_up(
        sums: Self::Ints,
        span: *const u8,
        places: &[u8; SAMPLES],
        weights: &[i8; SAMPLES],
    ) -> Self::Ints {
        // SAFETY: places are in the span; the instruction set is enabled (contract of the trait).
        unsafe {
            let bytes = places.map(|place| span.add(usize::from(place)).read());
            Self::add_own_fours(sums, bytes.as_ptr(), Self::load_fours(weights.as_ptr()))
        }
    }
    /// The instructions that multiply, alone: as [`Lanes::add_own_fours`], of bytes in a register, all of them 0 or 1.
    unsafe fn add_registers(sums: Self::Ints, x: Self::Fours, weights: Self::Fours) -> Self::Ints;
    /// Of four lines of sixteen bytes the bytes of each place, side by side: sixty-four bytes, of all places or those in `order`, which are below sixteen.
    #[inline(always)]
    unsafe fn interleave(
        lines: [*const u8; 4],
        joined: Joined,
        order: Option<&[u32; 16]>,
        to: *mut u8,
    ) {
        let _ = joined;
        for i in 0..16 {
            let place = order.map_or(i, |order| order[i] as usize);
            for (k, line) in lines.into_iter().enumerate() {
                // SAFETY: the lines are readable, and `to` writable (contract of the trait).
                unsafe { to.add(4 * i + k).write(line.add(place).read()) };
            }
        }
    }
    /// `to[pitch * c + r] = from[N * r + c]` for `N` rows and columns.
    #[inline(always)]
    unsafe fn transpose(from: *const i32, to: *mut i32, pitch: usize) {
        for row in 0..Self::N {
            for column in 0..Self::N {
                // SAFETY: the numbers are readable and writable (contract of the trait).
                unsafe {
                    to.add(pitch * column + row)
                        .write(from.add(Self::N * row + column).read())
                };
            }
        }
    }
    /// The sums with their samples in order, in the order of lines. Until then each may hold samples of others.
    unsafe fn in_order(sums: [Self::Ints; 4]) -> [Self::Ints; 4];
    /// The sum of both, lane by lane, which wraps.
    unsafe fn plus(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The larger of numbers and of the magnitudes of `N` floats at `x`, both the bits of floats without a sign: integers that are in the order of the floats, with
    /// NaN above all.
    unsafe fn larger_magnitude(most: Self::Ints, x: *const f32) -> Self::Ints;
    /// `N` integers from memory.
    unsafe fn load(p: *const i32) -> Self::Ints;
    /// `N` integers to memory.
    unsafe fn store(p: *mut i32, v: Self::Ints);
    /// The nearest floats, ties to even.
    unsafe fn floats(v: Self::Ints) -> Floats<Self>;
    /// `a * b + c`, rounded once.
    #[inline(always)]
    unsafe fn fused(a: Floats<Self>, b: Floats<Self>, c: Floats<Self>) -> Floats<Self> {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { Self::Floats::fma(a, b, c) }
    }
    /// Rounds half to even, saturates to bytes, clamps to `bounds`, and stores the part of a line, of `4 N` bytes: in each form, the second `second`
    /// bytes after the first, or in the first form alone. The byte of NaN is that of zero. No number may be above 2^31 - 128.
    unsafe fn store_bytes(p: *mut u8, second: Option<usize>, v: [Floats<Self>; 4], bounds: [u8; 2]);
    /// As [`Lanes::store_bytes`], in the first form, of numbers that follow each other in the order of their bytes: those of the first `lines` times sixteen, of which there is one at least.
    unsafe fn store_lines(p: *mut u8, v: [Floats<Self>; 4], bounds: [u8; 2], lines: usize);
    /// Part `part` of a line in its first form, `4 N` bytes, as numbers in the order of sums. The line is four times sixteen bytes: of four
    /// that are joined only the first pointer is read, of pairs perhaps the first and the third alone.
    unsafe fn load_bytes(line: [*const u8; 4], joined: Joined, part: usize) -> [Floats<Self>; 4];
    /// Copies a line, which is as for [`Lanes::load_bytes`], in each form, the second right behind the first.
    unsafe fn copy_line(line: [*const u8; 4], joined: Joined, to: *mut u8);
    /// Bytes of sixteen in another order, each from the place that `order` says, below 16; zero where that is 255.
    unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16];
    /// [`Lanes::permute`] of each of four lines.
    #[inline(always)]
    unsafe fn permute_four(lines: [u8; 64], order: [u8; 16]) -> [u8; 64] {
        let mut permuted = [0; 64];
        let fours = lines.as_chunks::<16>().0.iter();
        for (to, line) in permuted.as_chunks_mut::<16>().0.iter_mut().zip(fours) {
            // SAFETY: the instruction set is enabled (contract of the trait).
            *to = unsafe { Self::permute(*line, order) };
        }
        permuted
    }
    /// `4 N` numbers in the order of sums as the numbers of lines of sixteen bytes each, one line after the other.
    unsafe fn to_lines(v: [Floats<Self>; 4]) -> [Floats<Self>; 4];
    /// The inverse of [`Lanes::to_lines`].
    unsafe fn of_lines(v: [Floats<Self>; 4]) -> [Floats<Self>; 4];
}

type Floats<L> = <<L as Lanes>::Floats as Simd>::V;

/// Plain Rust.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar;

/// Samples of a tile of bytes.
pub const SAMPLES: usize = 64;

/// The bits of a float but its sign.
const MAGNITUDE: i32 = i32::MAX;

/// Where sample `i` of sum `j` is in a line, as `lines.rs` says.
pub(super) const fn place(j: usize, i: usize) -> usize {
    16 * (i / 4) + 8 * (j / 2) + 2 * (i % 4) + j % 2
}

// SAFETY: plain Rust, which runs everywhere.
unsafe impl Lanes for Scalar {
    type Floats = simd::Scalar;
    type Ints = [i32; 16];
    const FORMS: usize = 1;
    const TWO_ROWS: bool = false;
    const SUMS: usize = 1;
    type Constants = ();
    type Fours = [[i8; 4]; 16];
    #[inline(always)]
    fn constants() {}
    #[inline(always)]
    unsafe fn splat(v: i32) -> [i32; 16] {
        [v; 16]
    }
    #[inline(always)]
    unsafe fn add_products(
        (): (),
        mut sums: [[i32; 16]; 4],
        lines: [*const u8; 4],
        _: usize,
        weights: &Weights,
    ) -> [[i32; 16]; 4] {
        for (line, weight) in lines.into_iter().zip(weights.four) {
            // SAFETY: `line` is readable for 64 bytes (contract of the trait).
            let line = unsafe { line.cast::<[[u8; 16]; 4]>().read() };
            for (sums, bytes) in sums.iter_mut().zip(line) {
                for (sum, byte) in sums.iter_mut().zip(bytes) {
                    // No product of a signed and an unsigned byte exceeds 2^15.
                    let product = i16::from(weight) * i16::from(byte);
                    *sum = sum.wrapping_add(i32::from(product));
                }
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn load_fours(p: *const i8) -> [[i8; 4]; 16] {
        // SAFETY: `p` is readable for 64 bytes (contract of the trait).
        unsafe { p.cast::<[[i8; 4]; 16]>().read() }
    }
    #[inline(always)]
    unsafe fn splat_fours(p: *const i8) -> [[i8; 4]; 16] {
        // SAFETY: `p` is readable for four bytes (contract of the trait).
        [unsafe { p.cast::<[i8; 4]>().read() }; 16]
    }
    #[inline(always)]
    unsafe fn add_fours(mut sums: [i32; 16], x: *const u8, weights: [[i8; 4]; 16]) -> [i32; 16] {
        // SAFETY: `x` is readable for four bytes (contract of the trait).
        let x = unsafe { x.cast::<[u8; 4]>().read() };
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (weight, x) in weights.into_iter().zip(x) {
                *sum = sum.wrapping_add(i32::from(weight) * i32::from(x));
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn add_own_fours(
        mut sums: [i32; 16],
        x: *const u8,
        weights: [[i8; 4]; 16],
    ) -> [i32; 16] {
        // SAFETY: `x` is readable for 64 bytes (contract of the trait).
        let x = unsafe { x.cast::<[[u8; 4]; 16]>().read() };
        for ((sum, x), weights) in sums.iter_mut().zip(x).zip(weights) {
            for (weight, x) in weights.into_iter().zip(x) {
                *sum = sum.wrapping_add(i32::from(weight) * i32::from(x));
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn add_registers(
        mut sums: [i32; 16],
        x: [[i8; 4]; 16],
        weights: [[i8; 4]; 16],
    ) -> [i32; 16] {
        for (sum, (x, weights)) in sums.iter_mut().zip(x.into_iter().zip(weights)) {
            for (x, weight) in x.into_iter().zip(weights) {
                *sum = sum.wrapping_add(i32::from(weight) * i32::from(x));
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn in_order(sums: [[i32; 16]; 4]) -> [[i32; 16]; 4] {
        let sums = sums.as_flattened();
        std::array::from_fn(|j| std::array::from_fn(|i| sums[place(j, i)]))
    }
    #[inline(always)]
    unsafe fn plus(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn larger_magnitude(most: [i32; 16], x: *const f32) -> [i32; 16] {
        // SAFETY: `x` is readable for sixteen floats (contract of the trait).
        let x = unsafe { x.cast::<[i32; 16]>().read_unaligned() };
        std::array::from_fn(|i| most[i].max(x[i] & MAGNITUDE))
    }
    #[inline(always)]
    unsafe fn load(p: *const i32) -> [i32; 16] {
        // SAFETY: `p` is readable for sixteen integers (contract of the trait).
        unsafe { p.cast::<[i32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut i32, v: [i32; 16]) {
        // SAFETY: `p` is writable for sixteen integers (contract of the trait).
        unsafe { p.cast::<[i32; 16]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn floats(v: [i32; 16]) -> [f32; 16] {
        v.map(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn fused(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, _: Option<usize>, v: [[f32; 16]; 4], [least, most]: [u8; 2]) {
        let mut line = [0; 64];
        for (j, v) in v.iter().enumerate() {
            for (i, v) in v.iter().enumerate() {
                // `as` saturates, and makes NaN zero.
                line[place(j, i)] = (v.round_ties_even() as u8).max(least).min(most);
            }
        }
        // SAFETY: `p` is writable for 64 bytes (contract of the trait).
        unsafe { p.cast::<[u8; 64]>().write(line) }
    }
    #[inline(always)]
    unsafe fn store_lines(p: *mut u8, v: [[f32; 16]; 4], [least, most]: [u8; 2], lines: usize) {
        for (i, v) in v[..lines].as_flattened().iter().enumerate() {
            let byte = (v.round_ties_even() as u8).max(least).min(most);
            // SAFETY: `p` is writable for the lines (contract of the trait).
            unsafe { p.add(i).write(byte) };
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: [*const u8; 4], joined: Joined, _: usize) -> [[f32; 16]; 4] {
        let mut line = [0; 64];
        // SAFETY: the line is readable (contract of the trait).
        unsafe { copy_sixteens(from, joined, line.as_mut_ptr()) };
        std::array::from_fn(|j| std::array::from_fn(|i| f32::from(line[place(j, i)])))
    }
    #[inline(always)]
    unsafe fn copy_line(from: [*const u8; 4], joined: Joined, to: *mut u8) {
        // SAFETY: the pointers are valid for the bytes of a line (contract of the trait).
        unsafe { copy_sixteens(from, joined, to) }
    }
    #[inline(always)]
    unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
        order.map(|from| line.get(usize::from(from)).copied().unwrap_or(0))
    }
    #[inline(always)]
    unsafe fn to_lines(v: [[f32; 16]; 4]) -> [[f32; 16]; 4] {
        std::array::from_fn(|l| std::array::from_fn(|i| v[i / 4][4 * l + i % 4]))
    }
    #[inline(always)]
    unsafe fn of_lines(v: [[f32; 16]; 4]) -> [[f32; 16]; 4] {
        std::array::from_fn(|j| std::array::from_fn(|i| v[i / 4][4 * j + i % 4]))
    }
}

/// [`Lanes::copy_line`] of one form.
///
/// # Safety
/// As [`Lanes::copy_line`].
#[inline(always)]
unsafe fn copy_sixteens(from: [*const u8; 4], joined: Joined, to: *mut u8) {
    for (i, line) in from.into_iter().enumerate() {
        let line = if joined == Joined::Four {
            from[0].wrapping_add(16 * i)
        } else {
            line
        };
        // SAFETY: each is readable for sixteen bytes, and `to` writable for four times as many (contract of this function).
        unsafe {
            to.add(16 * i)
                .cast::<[u8; 16]>()
                .write(line.cast::<[u8; 16]>().read())
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx2Vnni, Avx512Vnni};

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{Neon, NeonDot};

#[cfg(target_arch = "aarch64")]
mod neon;
