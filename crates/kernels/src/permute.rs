//! Gathers lines of sixteen floats from lanes of other lines, in the same way for every channel of a map.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::{Isa, LANES};

/// The source of each lane of a line: a line of the source channel and a lane of it; `None` gives zero.
pub(crate) type Sources = [Option<(usize, usize)>; LANES];

/// A permutation of lanes, applied to every channel.
///
/// # Invariants
/// - lines of `sources` and of [`SharedSources::from`] lie in a source channel, and [`OutputLine::at`] in an output channel
/// - `picks` has [`SharedSources::picks_per_line`] elements for each output line, in the order of the groups
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
pub(crate) struct Permute {
    isa: Isa,
    sources: Vec<Sources>,
    /// Output lines by their source lines; `None` where a line has more of these than there are loops for.
    groups: Option<Vec<SharedSources>>,
    picks: Vec<Picks>,
    /// Floats from a source channel to the next, and from an output channel to the next.
    channels: [usize; 2],
    /// Floats of an output channel that are written; the last line may be short.
    len: usize,
}

/// Output lines that have the same source lines, which stay in registers for all of them.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
struct SharedSources {
    /// Where the source lines begin, in floats.
    from: Vec<usize>,
    outputs: Vec<OutputLine>,
}

#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
struct OutputLine {
    /// Where the line begins, in floats.
    at: usize,
    /// Masks of the lanes that have a source, and of the lanes that are stored.
    masks: [u16; 2],
}

/// Indices for a permutation of two vectors, where 16 to 31 are the lanes of the second: first of two source lines, then of the result and the
/// third source line, and so on.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Picks([i32; LANES]);

/// Numbers of source lines for which there are loops.
const COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 8];

impl Permute {
    /// Writes `len` floats of each channel, one line for each element of `sources`; the last line may be short. `channels` are the floats from a
    /// source channel to the next, and from an output channel to the next.
    ///
    /// # Panics
    /// When a source lies outside of its channel, or `len` contradicts `sources` or `channels`.
    pub fn new(isa: Isa, sources: Vec<Sources>, channels: [usize; 2], len: usize) -> Self {
        let last = sources.iter().flatten().flatten().map(|s| s.0).max();
        assert!(
            (last.unwrap_or(0) + 1) * LANES <= channels[0],
            "a line outside of its channel"
        );
        let lanes = sources.iter().flatten().flatten().map(|s| s.1);
        assert!(
            lanes.max().unwrap_or(0) < LANES,
            "a lane outside of its line"
        );
        assert!(
            len <= channels[1] && len.div_ceil(LANES) == sources.len(),
            "{} lines for {len} floats",
            sources.len()
        );
        let (groups, picks) = groups(&sources, len).unzip();
        Self {
            isa,
            sources,
            groups,
            picks: picks.unwrap_or_default(),
            channels,
            len,
        }
    }

    /// Permutes as many channels as `x` and `y` hold.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(groups) = &self.groups
            && self.isa.level() == Level::Avx512
        {
            // SAFETY: an `Isa` of this level is only made where the features were detected.
            return unsafe { avx512::run(self, groups, x, y) };
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

impl SharedSources {
    /// Number of [`Picks`] of each output line.
    fn picks_per_line(&self) -> usize {
        (self.from.len() - 1).max(1)
    }
}

/// Output lines by their source lines, with their picks; `None` where a line has too many source lines.
fn groups(sources: &[Sources], len: usize) -> Option<(Vec<SharedSources>, Vec<Picks>)> {
    let lines_of = |sources: &Sources| {
        let mut lines: Vec<usize> = sources.iter().flatten().map(|s| s.0).collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    };
    let mut order: Vec<(Vec<usize>, usize)> = sources
        .iter()
        .enumerate()
        .map(|(i, s)| (lines_of(s), i))
        .collect();
    order.sort();
    let (mut groups, mut picks) = (Vec::new(), Vec::new());
    for same in order.chunk_by(|a, b| a.0 == b.0) {
        let lines = &same[0].0;
        let count = *COUNTS.iter().find(|n| **n >= lines.len())?;
        let last = lines.last().copied().unwrap_or(0);
        let mut group = SharedSources {
            from: lines.iter().map(|line| line * LANES).collect(),
            outputs: Vec::new(),
        };
        group.from.resize(count, last * LANES);
        for &(_, i) in same {
            let has = |lane: usize| u16::from(sources[i][lane].is_some()) << lane;
            let floats = (len - i * LANES).min(LANES);
            group.outputs.push(OutputLine {
                at: i * LANES,
                masks: [
                    (0..LANES).map(has).sum(),
                    (u32::from(u16::MAX) >> (LANES - floats)) as u16,
                ],
            });
            for pick in 0..group.picks_per_line() {
                let lane = |to: usize| match sources[i][to] {
                    Some((line, lane)) if pick == 0 && lines[0] == line => lane,
                    Some((line, lane)) if lines.get(pick + 1) == Some(&line) => LANES + lane,
                    _ => to,
                };
                picks.push(Picks(std::array::from_fn(|to| lane(to) as i32)));
            }
        }
        groups.push(group);
    }
    Some((groups, picks))
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Permute, Picks, SharedSources};

    #[target_feature(enable = "avx512f")]
    pub(super) fn run(permute: &Permute, groups: &[SharedSources], x: &[f32], y: &mut [f32]) {
        let [from, to] = permute.channels;
        let channels = (x.len() / from).min(y.len().div_ceil(to));
        let mut channel = 0;
        while channel < channels {
            let (x, y) = (&x[channel * from..], &mut y[channel * to..]);
            if channel + 2 <= channels {
                run_channels::<2>(permute, groups, x, y);
                channel += 2;
            } else {
                run_channels::<1>(permute, groups, x, y);
                channel += 1;
            }
        }
    }

    /// `C` channels, which share each load of picks.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn run_channels<const C: usize>(
        permute: &Permute,
        groups: &[SharedSources],
        x: &[f32],
        y: &mut [f32],
    ) {
        let [from, to] = permute.channels;
        assert!(x.len() >= C * from, "source channels");
        assert!(y.len() >= (C - 1) * to + permute.len, "output channels");
        let mut picks = permute.picks.as_ptr();
        for group in groups {
            let (x, y) = (x.as_ptr(), y.as_mut_ptr());
            // SAFETY: lines lie in their channels, and `picks` are those of the groups in turn (invariants).
            unsafe {
                match group.from.len() {
                    1 => permute_lines::<C, 1>(group, picks, [from, to], x, y),
                    2 => permute_lines::<C, 2>(group, picks, [from, to], x, y),
                    3 => permute_lines::<C, 3>(group, picks, [from, to], x, y),
                    4 => permute_lines::<C, 4>(group, picks, [from, to], x, y),
                    6 => permute_lines::<C, 6>(group, picks, [from, to], x, y),
                    _ => permute_lines::<C, 8>(group, picks, [from, to], x, y),
                }
                picks = picks.add(group.outputs.len() * group.picks_per_line());
            }
        }
    }

    /// # Safety
    /// `picks` is readable for all output lines of the group. `x` and `y` point to `C` channels, `from` and `to` floats apart, that hold its lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn permute_lines<const C: usize, const N: usize>(
        group: &SharedSources,
        mut picks: *const Picks,
        [from, to]: [usize; 2],
        x: *const f32,
        y: *mut f32,
    ) {
        // SAFETY: loads and stores are of lines of the `C` channels, and `picks` of those of the output lines, by the contract of this function.
        unsafe {
            let mut sources = [[_mm512_setzero_ps(); N]; C];
            for (c, sources) in sources.iter_mut().enumerate() {
                for (source, line) in sources.iter_mut().zip(&group.from) {
                    *source = _mm512_loadu_ps(x.add(c * from + line));
                }
            }
            for output in &group.outputs {
                let mut lines = [_mm512_setzero_ps(); C];
                for c in 0..C {
                    lines[c] = sources[c][0];
                }
                for i in 1..N.max(2) {
                    let pick = _mm512_load_si512(picks.cast());
                    picks = picks.add(1);
                    for c in 0..C {
                        lines[c] = _mm512_permutex2var_ps(lines[c], pick, sources[c][i.min(N - 1)]);
                    }
                }
                let [some, stored] = output.masks;
                for (c, line) in lines.into_iter().enumerate() {
                    let line = _mm512_maskz_mov_ps(some, line);
                    let y = y.add(c * to + output.at);
                    if stored == u16::MAX {
                        _mm512_storeu_ps(y, line);
                    } else {
                        _mm512_mask_storeu_ps(y, stored, line);
                    }
                }
            }
        }
    }
}
