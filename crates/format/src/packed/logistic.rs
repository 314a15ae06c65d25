//! Logarithms, and probabilities as log-odds, in integers only: every platform computes the same bits.
//!
//! Log-odds and natural logarithms are in units of 1/256.

/// One, as log-odds.
pub(super) const UNIT: i32 = 256;

/// Largest log-odds: 12, a probability of 1 - 6e-6.
pub(super) const LIMIT: i32 = 12 * UNIT - 1;

/// exp(-1/256) * 2^32.
const DECAY: u64 = 4_278_222_805;

/// ln 2 * 2^24.
const LN_2: u64 = 11_629_080;

/// `65,536 / (1 + exp(-i/256))`, rounded down, for i from 0.
static SQUASH: [u16; LIMIT as usize + 1] = squash_table();

/// ln(i) for i from 2,048 to 4,095, in 1/256, at i - 2,048.
static LN: [u16; 2048] = ln_table();

const fn squash_table() -> [u16; LIMIT as usize + 1] {
    let mut table = [0; LIMIT as usize + 1];
    let mut e = 1_u64 << 32;
    let mut i = 0;
    while i < table.len() {
        table[i] = ((1 << 48) / ((1 << 32) + e)) as u16;
        e = (e * DECAY) >> 32;
        i += 1;
    }
    table
}

const fn ln_table() -> [u16; 2048] {
    let mut table = [0; 2048];
    let mut i = 0;
    while i < table.len() {
        // log2 by squaring: each squaring of the mantissa gives one more bit.
        let mut m = (2048 + i as u64) << 20;
        let mut log2 = 11_u64;
        let mut bit = 0;
        while bit < 16 {
            m = (m * m) >> 31;
            log2 <<= 1;
            if m >> 32 != 0 {
                m >>= 1;
                log2 += 1;
            }
            bit += 1;
        }
        // 16 and 24 fractional bits, of which 8 stay.
        table[i] = ((log2 * LN_2 + (1 << 31)) >> 32) as u16;
        i += 1;
    }
    table
}

/// The probability, of 65,536, that log-odds stand for; 1 to 65,535.
pub(super) fn squash(odds: i32) -> u32 {
    let p = u32::from(SQUASH[odds.unsigned_abs().min(LIMIT as u32) as usize]);
    if odds < 0 { 65_536 - p } else { p }
}

/// ln(x) in 1/256; 0 counts as 1.
pub(super) fn ln(x: u32) -> i32 {
    let x = x.max(1);
    let top = 31 - x.leading_zeros();
    let (index, shift) = if top >= 11 {
        (x >> (top - 11), top as i32 - 11)
    } else {
        (x << (11 - top), top as i32 - 11)
    };
    i32::from(LN[(index - 2048) as usize]) + ((shift * LN_2 as i32 + (1 << 15)) >> 16)
}

/// ln(x) of a wider number; bits below the highest 32 do not count.
pub(super) fn ln_wide(x: u64) -> i32 {
    let shift = (32 - x.leading_zeros() as i32).max(0);
    ln((x >> shift) as u32) + ((shift * LN_2 as i32 + (1 << 15)) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_what_they_say() {
        for i in -3100..=3100_i32 {
            let exact = 65_536.0 / (1.0 + (-f64::from(i.clamp(-LIMIT, LIMIT)) / 256.0).exp());
            let got = squash(i);
            assert!(
                (1..65_536).contains(&got) && (f64::from(got) - exact).abs() <= 1.0,
                "{i}: {got} {exact}"
            );
        }
        for x in (1..5000).chain((5000..u32::MAX - 77_777).step_by(77_777)) {
            let exact = f64::from(x).ln() * 256.0;
            assert!(
                (f64::from(ln(x)) - exact).abs() <= 1.2,
                "{x}: {} {exact}",
                ln(x)
            );
        }
    }
}
