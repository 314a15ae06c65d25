//! Addressed noise: every standard normal is a pure function of (seed, step, layer, sample, element).
//!
//! Philox4x32-10 is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (2011); the Box-Muller transform turns its words into normals. Because nothing is drawn from a stream, the
//! noise does not depend on the number of threads, and a resumed run sees the noise of an uninterrupted one.

use crate::isa::multiversion;
use crate::training::Real;

const LANES: usize = 16;
/// Normals per block: 16 counters of four words each.
const BLOCK: usize = 4 * LANES;

/// The address of noise, without the element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoiseKey {
    /// Seed of the run.
    pub seed: u64,
    /// Training step, counted from the start of the run.
    pub step: u32,
    /// Layer, or another consumer of noise within a step.
    pub layer: u32,
    /// Sample within the batch.
    pub sample: u32,
}

/// Ten rounds of Philox4x32 for one counter.
#[inline(always)]
pub fn philox4x32(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    const M0: u64 = 0xD251_1F53;
    const M1: u64 = 0xCD9E_8D57;
    for _ in 0..10 {
        let (p0, p1) = (M0 * u64::from(c[0]), M1 * u64::from(c[2]));
        c = [
            (p1 >> 32) as u32 ^ c[1] ^ k[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ c[3] ^ k[1],
            p0 as u32,
        ];
        k = [
            k[0].wrapping_add(0x9E37_79B9),
            k[1].wrapping_add(0xBB67_AE85),
        ];
    }
    c
}

multiversion! {
    /// Fills `out` with the standard normals of elements `0..out.len()` at `key`.
    ///
    /// Element `e` is word `(e % 64) / 16` of counter `e / 64 * 16 + e % 16`. No fused multiply-add is used, so every
    /// instruction set gives the same bits.
    pub fn normals[T: Real](key: NoiseKey, out: &mut [T]) = normals_body::<T>;
}

#[inline(always)]
#[allow(
    clippy::needless_range_loop,
    reason = "lanes run innermost over several arrays, as vectors do"
)]
fn normals_body<T: Real>(key: NoiseKey, out: &mut [T]) {
    let k = [key.seed as u32, (key.seed >> 32) as u32];
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut words = [[0u32; LANES]; 4];
        let first = (block * LANES) as u32;
        for lane in 0..LANES {
            let w = philox4x32(
                [
                    first.wrapping_add(lane as u32),
                    key.sample,
                    key.layer,
                    key.step,
                ],
                k,
            );
            for j in 0..4 {
                words[j][lane] = w[j];
            }
        }
        let mut normal = [[0f32; LANES]; 4];
        for pair in 0..2 {
            for lane in 0..LANES {
                let (a, b) = box_muller(words[2 * pair][lane], words[2 * pair + 1][lane]);
                normal[2 * pair][lane] = a;
                normal[2 * pair + 1][lane] = b;
            }
        }
        for (o, n) in out.iter_mut().zip(normal.as_flattened()) {
            *o = T::of(f64::from(*n));
        }
    }
}

/// Two independent standard normals from two uniform words.
#[inline(always)]
fn box_muller(u: u32, v: u32) -> (f32, f32) {
    // 24 bits, moved off zero: u in (0, 1).
    let u = ((u >> 8) as i32 as f32 + 0.5) * (1.0 / 16_777_216.0);
    let radius = (-2.0 * Real::ln(u)).sqrt();
    // The angle 2 pi v as a quarter turn q and a rest r in [-1/8, 1/8] turns.
    let turns = (v >> 8) as i32 as f32 * (1.0 / 16_777_216.0);
    let q = (turns * 4.0 + 0.5) as i32;
    let r = (turns - q as f32 * 0.25) * std::f32::consts::TAU;
    let r2 = r * r;
    let sin = r * (1.0 + r2 * (-1.0 / 6.0 + r2 * (1.0 / 120.0 + r2 * (-1.0 / 5040.0))));
    let cos = 1.0 + r2 * (-0.5 + r2 * (1.0 / 24.0 + r2 * (-1.0 / 720.0 + r2 * (1.0 / 40320.0))));
    let (s, c) = if q & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let s = if q & 2 == 0 { s } else { -s };
    let c = if (q + 1) & 2 == 0 { c } else { -c };
    (radius * c, radius * s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn known_answers_of_random123() {
        // kat_vectors of the Random123 distribution, philox4x32 10.
        let full = u32::MAX;
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([full; 4], [full; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn key(sample: u32) -> NoiseKey {
        NoiseKey {
            seed: 7,
            step: 3,
            layer: 2,
            sample,
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let draw = |isa| {
            let mut out = vec![0f32; 10_007];
            normals(isa, key(1), &mut out);
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let want = draw(Isa::SCALAR);
        for isa in Isa::available() {
            assert!(draw(isa) == want, "{isa}");
        }
        let mut short = vec![0f32; 77];
        normals(Isa::best(), key(1), &mut short);
        assert!(
            short.iter().zip(&want).all(|(a, b)| a.to_bits() == *b),
            "a prefix is a prefix"
        );
    }

    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let (n, mut sums) = (200_000, [0f64; 4]);
        let mut out = vec![0f32; n / 10];
        for sample in 0..10 {
            normals(Isa::best(), key(sample), &mut out);
            for &x in &out {
                let x = f64::from(x);
                for (i, s) in sums.iter_mut().enumerate() {
                    *s += x.powi(i as i32 + 1) / n as f64;
                }
            }
        }
        // Five standard errors of each moment.
        for (got, (want, error)) in sums.iter().zip([
            (0.0, 1.0),
            (1.0, 2.0f64.sqrt()),
            (0.0, 15f64.sqrt()),
            (3.0, 96f64.sqrt()),
        ]) {
            assert!(
                (got - want).abs() < 5.0 * error / (n as f64).sqrt(),
                "{sums:?}"
            );
        }
    }
}
