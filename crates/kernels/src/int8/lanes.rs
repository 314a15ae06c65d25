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
    /// Of four lines of sixteen bytes the bytes of each place, side by side: sixty-four bytes, of the places in `order`, which are below sixteen.
    #[inline(always)]
    unsafe fn interleave(lines: [*const u8; 4], order: &[u32; 16], to: *mut u8) {
        for (i, &place) in order.iter().enumerate() {
            for (k, line) in lines.into_iter().enumerate() {
                // SAFETY: the lines are readable, and `to` writable (contract of the trait).
                unsafe { to.add(4 * i + k).write(line.add(place as usize).read()) };
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
    /// Part `part` of a line in its first form, `4 N` bytes, as numbers in the order of sums. The line is four times sixteen bytes, or, where they are
    /// `joined`, sixty-four in a row from the first pointer on.
    unsafe fn load_bytes(line: [*const u8; 4], joined: bool, part: usize) -> [Floats<Self>; 4];
    /// Copies a line, which is as for [`Lanes::load_bytes`], in each form, the second right behind the first.
    unsafe fn copy_line(line: [*const u8; 4], joined: bool, to: *mut u8);
    /// Bytes of sixteen in another order, each from the place that `order` says, below 16; zero where that is 255.
    unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16];
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
    unsafe fn in_order(sums: [[i32; 16]; 4]) -> [[i32; 16]; 4] {
        let sums = sums.as_flattened();
        std::array::from_fn(|j| std::array::from_fn(|i| sums[place(j, i)]))
    }
    #[inline(always)]
    unsafe fn plus(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
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
    unsafe fn load_bytes(from: [*const u8; 4], joined: bool, _: usize) -> [[f32; 16]; 4] {
        let mut line = [0; 64];
        // SAFETY: the line is readable (contract of the trait).
        unsafe { copy_sixteens(from, joined, line.as_mut_ptr()) };
        std::array::from_fn(|j| std::array::from_fn(|i| f32::from(line[place(j, i)])))
    }
    #[inline(always)]
    unsafe fn copy_line(from: [*const u8; 4], joined: bool, to: *mut u8) {
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
unsafe fn copy_sixteens(from: [*const u8; 4], joined: bool, to: *mut u8) {
    for (i, line) in from.into_iter().enumerate() {
        let line = if joined {
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
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    use crate::int8::lanes::{Lanes, Weights, copy_sixteens, place};
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
                        let weights = _mm256_set1_epi32(i32::from_ne_bytes(
                            weights.four.map(i8::cast_unsigned),
                        ));
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
                unsafe fn add_fours(sums: __m256i, x: *const u8, weights: __m256i) -> __m256i {
                    // SAFETY: `x` is readable for four bytes; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let x = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                        <$name>::add_any(sums, x, weights)
                    }
                }
                #[inline(always)]
                unsafe fn interleave(lines: [*const u8; 4], order: &[u32; 16], to: *mut u8) {
                    // SAFETY: each line is readable for 16 bytes, and `to` writable for 64; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let [a, b, c, d] = lines.map(|line| _mm_loadu_si128(line.cast()));
                        let [ab, cd] = [_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d)];
                        let low = [_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)];
                        let [ab, cd] = [_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d)];
                        let high = [_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd)];
                        let fours = [low[0], low[1], high[0], high[1]];
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
                unsafe fn load_bytes(
                    line: [*const u8; 4],
                    joined: bool,
                    part: usize,
                ) -> [__m256; 4] {
                    // SAFETY: the line is readable; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let line = if joined {
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
                unsafe fn copy_line(from: [*const u8; 4], joined: bool, to: *mut u8) {
                    // SAFETY: the pointers are valid for the bytes of a line (contract of the trait).
                    unsafe { copy_sixteens(from, joined, to) }
                }
                #[inline(always)]
                unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
                    // SAFETY: the instruction set is enabled (contract of the trait).
                    unsafe { permute(line, order) }
                }
                #[inline(always)]
                unsafe fn store_bytes(
                    p: *mut u8,
                    _: Option<usize>,
                    v: [__m256; 4],
                    [least, most]: [u8; 2],
                ) {
                    // SAFETY: `p` is writable for 32 bytes; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let [a, b, c, d] = v.map(|v| _mm256_cvtps_epi32(v));
                        let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)];
                        let bytes = _mm256_packus_epi16(words[0], words[1]);
                        let bytes = _mm256_max_epu8(bytes, _mm256_set1_epi8(least.cast_signed()));
                        let bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8(most.cast_signed()));
                        let order = _mm_loadu_si128(PACKED.as_ptr().cast());
                        let order = _mm256_broadcastsi128_si256(order);
                        _mm256_storeu_si256(p.cast(), _mm256_shuffle_epi8(bytes, order));
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
    unsafe fn load_line([a, b, c, d]: [*const u8; 4], joined: bool) -> __m512i {
        // SAFETY: by the contract of this function.
        unsafe {
            if joined {
                return _mm512_loadu_si512(a.cast());
            }
            let low = _mm256_loadu2_m128i(b.cast(), a.cast());
            let high = _mm256_loadu2_m128i(d.cast(), c.cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
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
        unsafe fn interleave(lines: [*const u8; 4], order: &[u32; 16], to: *mut u8) {
            // SAFETY: each line is readable for 16 bytes, and `to` writable for 64; the instruction set is enabled (contract of the trait).
            unsafe {
                let lines = load_line(lines, false);
                // Four bytes of each line in each 128-bit lane.
                let quarters =
                    _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let sides = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let quarters = _mm512_permutexvar_epi32(quarters, lines);
                let fours = _mm512_shuffle_epi8(quarters, _mm512_broadcast_i32x4(sides));
                let order = _mm512_loadu_si512(order.as_ptr().cast());
                _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi32(order, fours));
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
        unsafe fn load_bytes(line: [*const u8; 4], joined: bool, _: usize) -> [__m512; 4] {
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
        unsafe fn copy_line(from: [*const u8; 4], joined: bool, to: *mut u8) {
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
        unsafe fn store_bytes(
            p: *mut u8,
            second: Option<usize>,
            v: [__m512; 4],
            [least, most]: [u8; 2],
        ) {
            // SAFETY: `p` is writable for 64 bytes in each form; the instruction set is enabled (contract of the trait).
            unsafe {
                let [a, b, c, d] = v.map(|v| _mm512_cvtps_epi32(v));
                let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
                let bytes = _mm512_packus_epi16(words[0], words[1]);
                let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(least.cast_signed()));
                let bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8(most.cast_signed()));
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
}

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{Neon, NeonDot};

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use crate::int8::lanes::{Lanes, Weights, copy_sixteens};
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
                unsafe fn add_fours(
                    sums: int32x4_t,
                    x: *const u8,
                    weights: int8x16_t,
                ) -> int32x4_t {
                    // SAFETY: `x` is readable for four bytes; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let x = vreinterpretq_u8_u32(vdupq_n_u32(x.cast::<u32>().read_unaligned()));
                        let signed = vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)));
                        <$name>::add(sums, signed, weights)
                    }
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
                    joined: bool,
                    part: usize,
                ) -> [float32x4_t; 4] {
                    // SAFETY: the line is readable; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let line = vld1q_u8(match joined {
                            true => line[0].add(16 * part),
                            false => line[part],
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
                unsafe fn copy_line(from: [*const u8; 4], joined: bool, to: *mut u8) {
                    // SAFETY: the pointers are valid for the bytes of a line (contract of the trait).
                    unsafe { copy_sixteens(from, joined, to) }
                }
                #[inline(always)]
                unsafe fn permute(line: [u8; 16], order: [u8; 16]) -> [u8; 16] {
                    // SAFETY: the pointers are those of arrays of sixteen bytes; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let permuted =
                            vqtbl1q_u8(vld1q_u8(line.as_ptr()), vld1q_u8(order.as_ptr()));
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
                    [least, most]: [u8; 2],
                ) {
                    // SAFETY: `p` is writable for 16 bytes; the instruction set is enabled (contract of the trait).
                    unsafe {
                        let [a, b, c, d] = v.map(|v| vqmovn_s32(vcvtnq_s32_f32(v)));
                        let low = vqmovun_s16(vcombine_s16(a, b));
                        let bytes = vqmovun_high_s16(low, vcombine_s16(c, d));
                        let bytes = vmaxq_u8(bytes, vdupq_n_u8(least));
                        let bytes = vminq_u8(bytes, vdupq_n_u8(most));
                        vst1q_u8(p, vqtbl1q_u8(bytes, vld1q_u8(PACKED.as_ptr())));
                    }
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
}
