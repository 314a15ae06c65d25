//! Lines of sixteen floats put together from lanes of others, the same for every channel of a map.

#[cfg(target_arch = "x86_64")]
use crate::isa::Level;
use crate::{Isa, LANES};

/// Where each lane of a line comes from: a line of the source channel and a lane of that, or nowhere, which makes zero.
pub(crate) type Sources = [Option<(usize, usize)>; LANES];

/// A map of channels to channels.
///
/// # Invariants
/// - `sources` of each line lie below `lines[0]` lines
/// - `picks` has `per_line` for each line
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
pub(crate) struct Permute {
    isa: Isa,
    sources: Vec<Sources>,
    picks: Vec<Pick>,
    per_line: usize,
    /// Floats from a source channel to the next, and from a channel made to the next.
    channels: [usize; 2],
    /// Floats made of each channel; the last line may be short.
    len: usize,
}

/// Lanes that one source line gives.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
struct Pick {
    from: usize,
    lanes: [i32; LANES],
    mask: u16,
}

/// Numbers of picks for which there are loops.
const COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 8];

impl Permute {
    /// Lines from `sources`, of which the last may have less than sixteen floats: `len` in all.
    pub fn new(isa: Isa, sources: Vec<Sources>, channels: [usize; 2], len: usize) -> Self {
        let last = sources.iter().flatten().flatten().map(|s| s.0).max();
        assert!(
            last.is_none_or(|line| (line + 1) * LANES <= channels[0]),
            "a line outside of its channel"
        );
        assert!(
            len <= channels[1] && len.div_ceil(LANES) == sources.len(),
            "{} lines for {len} floats",
            sources.len()
        );
        let mut lines: Vec<Vec<Pick>> = sources.iter().map(picks).collect();
        let most = lines.iter().map(Vec::len).max().unwrap_or(0);
        let per_line = COUNTS.into_iter().find(|n| *n >= most).unwrap_or(0);
        for picks in &mut lines {
            let none = Pick {
                from: 0,
                lanes: [0; LANES],
                mask: 0,
            };
            picks.resize(per_line, none);
        }
        Self {
            isa,
            sources,
            picks: lines.concat(),
            per_line,
            channels,
            len,
        }
    }

    /// Over as many channels as `x` and `y` hold.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if self.per_line > 0 && self.isa.level() == Level::Avx512 {
            // SAFETY: an `Isa` of this level is only made where the features were detected.
            return unsafe { avx512::run(self, x, y) };
        }
        let (from, to) = (self.channels[0], self.channels[1]);
        for (x, y) in x.chunks_exact(from).zip(y.chunks_mut(to)) {
            for (sources, y) in self.sources.iter().zip(y[..self.len].chunks_mut(LANES)) {
                for (y, source) in y.iter_mut().zip(sources) {
                    *y = source.map_or(0.0, |(line, lane)| x[line * LANES + lane]);
                }
            }
        }
    }
}

fn picks(sources: &Sources) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    for (to, &(line, lane)) in sources
        .iter()
        .enumerate()
        .filter_map(|(to, s)| Some((to, s.as_ref()?)))
    {
        let from = line * LANES;
        let i = picks.iter().position(|p| p.from == from);
        let i = i.unwrap_or_else(|| {
            picks.push(Pick {
                from,
                lanes: [0; LANES],
                mask: 0,
            });
            picks.len() - 1
        });
        picks[i].lanes[to] = (lane % LANES) as i32;
        picks[i].mask |= 1 << to;
    }
    picks
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LANES, Permute, Pick};

    #[target_feature(enable = "avx512f")]
    pub(super) fn run(permute: &Permute, x: &[f32], y: &mut [f32]) {
        /// Floats of a few channels that stay in the first-level cache while all their lines are made.
        const CACHE: usize = 6 * 1024;
        let [from, to] = permute.channels;
        let channels = (CACHE / (from + to)).max(2);
        for (x, y) in x.chunks(channels * from).zip(y.chunks_mut(channels * to)) {
            few(permute, x, y);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn few(permute: &Permute, x: &[f32], y: &mut [f32]) {
        for (i, picks) in permute.picks.chunks_exact(permute.per_line).enumerate() {
            let at = i * LANES;
            match permute.per_line {
                1 => line::<1>(permute, picks, at, x, y),
                2 => line::<2>(permute, picks, at, x, y),
                3 => line::<3>(permute, picks, at, x, y),
                4 => line::<4>(permute, picks, at, x, y),
                6 => line::<6>(permute, picks, at, x, y),
                _ => line::<8>(permute, picks, at, x, y),
            }
        }
    }

    /// One line of each channel, so that what permutes it stays in registers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn line<const N: usize>(
        permute: &Permute,
        picks: &[Pick],
        at: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        let mut lanes = [_mm512_setzero_si512(); N];
        let (mut masks, mut from) = ([0; N], [0; N]);
        for i in 0..N {
            // SAFETY: sixteen elements.
            lanes[i] = unsafe { _mm512_loadu_si512(picks[i].lanes.as_ptr().cast()) };
            (masks[i], from[i]) = (picks[i].mask, picks[i].from);
        }
        let floats = (permute.len - at).min(LANES);
        let store = ((1_u32 << floats) - 1) as __mmask16;
        let [x_channel, y_channel] = permute.channels;
        let channels = (x.len() / x_channel).min(y.len() / y_channel);
        let (mut x, mut y) = (x.as_ptr(), y[at..].as_mut_ptr());
        for _ in 0..channels {
            // SAFETY: lines lie in their channel (invariants), as does what is stored, to which the mask keeps the last line.
            unsafe {
                let first = _mm512_loadu_ps(x.add(from[0]));
                let mut line = _mm512_maskz_permutexvar_ps(masks[0], lanes[0], first);
                for i in 1..N {
                    let from = _mm512_loadu_ps(x.add(from[i]));
                    line = _mm512_mask_permutexvar_ps(line, masks[i], lanes[i], from);
                }
                if floats == LANES {
                    _mm512_storeu_ps(y, line);
                } else {
                    _mm512_mask_storeu_ps(y, store, line);
                }
            }
            (x, y) = (x.wrapping_add(x_channel), y.wrapping_add(y_channel));
        }
    }
}
