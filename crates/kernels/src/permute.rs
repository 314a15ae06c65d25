//! Lines of sixteen floats put together from lanes of others, the same for every channel of a map.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::{Isa, LANES};

/// Where each lane of a line comes from: a line of the source channel and a lane of that, or nowhere, which makes zero.
pub(crate) type Sources = [Option<(usize, usize)>; LANES];

/// A map of channels to channels.
///
/// # Invariants
/// - lines of `sources`, and of the families, lie in a source channel, and what families make in a channel that is made
/// - `lanes` has, in the order of families, as many for each line that is made as [`Family::picks`] says
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
pub(crate) struct Permute {
    isa: Isa,
    sources: Vec<Sources>,
    /// None where a line has more sources than there are loops for.
    families: Option<Vec<Family>>,
    lanes: Vec<Lanes>,
    /// Floats from a source channel to the next, and from a channel made to the next.
    channels: [usize; 2],
    /// Floats made of each channel; the last line may be short.
    len: usize,
}

/// Lines that are made of the same lines, which stay in registers meanwhile.
#[derive(Debug, Clone)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
struct Family {
    /// Where the lines begin of which these are made, in floats.
    from: Vec<usize>,
    made: Vec<Made>,
}

#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "AVX-512 reads them")
)]
struct Made {
    /// Where the line begins, in floats.
    at: usize,
    /// Lanes that have a source, and lanes that are stored.
    masks: [u16; 2],
}

/// Lanes of two lines, of which the second has numbers from sixteen: of the first two sources; then of what these gave and the third, and so on.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Lanes([i32; LANES]);

/// Numbers of sources for which there are loops.
const COUNTS: [usize; 6] = [1, 2, 3, 4, 6, 8];

impl Permute {
    /// Lines from `sources`, of which the last may have less than sixteen floats: `len` in all.
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
        let (families, lanes) = families(&sources, len).unzip();
        Self {
            isa,
            sources,
            families,
            lanes: lanes.unwrap_or_default(),
            channels,
            len,
        }
    }

    /// Over as many channels as `x` and `y` hold.
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(families) = &self.families
            && self.isa.level() == Level::Avx512
        {
            // SAFETY: an `Isa` of this level is only made where the features were detected.
            return unsafe { avx512::run(self, families, x, y) };
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

impl Family {
    /// How many [`Lanes`] each line has.
    fn picks(&self) -> usize {
        (self.from.len() - 1).max(1)
    }
}

/// Lines by what they are made of; `None` where one is made of too many.
fn families(sources: &[Sources], len: usize) -> Option<(Vec<Family>, Vec<Lanes>)> {
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
    let (mut families, mut lanes) = (Vec::new(), Vec::new());
    for same in order.chunk_by(|a, b| a.0 == b.0) {
        let lines = &same[0].0;
        let count = *COUNTS.iter().find(|n| **n >= lines.len())?;
        let last = lines.last().copied().unwrap_or(0);
        let mut family = Family {
            from: lines.iter().map(|line| line * LANES).collect(),
            made: Vec::new(),
        };
        family.from.resize(count, last * LANES);
        for &(_, i) in same {
            let has = |lane: usize| u16::from(sources[i][lane].is_some()) << lane;
            let floats = (len - i * LANES).min(LANES);
            family.made.push(Made {
                at: i * LANES,
                masks: [
                    (0..LANES).map(has).sum(),
                    (u32::from(u16::MAX) >> (LANES - floats)) as u16,
                ],
            });
            for pick in 0..family.picks() {
                let lane = |to: usize| match sources[i][to] {
                    Some((line, lane)) if pick == 0 && lines[0] == line => lane,
                    Some((line, lane)) if lines.get(pick + 1) == Some(&line) => LANES + lane,
                    _ => to,
                };
                lanes.push(Lanes(std::array::from_fn(|to| lane(to) as i32)));
            }
        }
        families.push(family);
    }
    Some((families, lanes))
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Family, Lanes, Permute};

    #[target_feature(enable = "avx512f")]
    pub(super) fn run(permute: &Permute, families: &[Family], x: &[f32], y: &mut [f32]) {
        let [from, to] = permute.channels;
        let channels = (x.len() / from).min(y.len().div_ceil(to));
        let mut channel = 0;
        while channel < channels {
            let (x, y) = (&x[channel * from..], &mut y[channel * to..]);
            if channel + 2 <= channels {
                few::<2>(permute, families, x, y);
                channel += 2;
            } else {
                few::<1>(permute, families, x, y);
                channel += 1;
            }
        }
    }

    /// `C` channels, which share each load of what permutes them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn few<const C: usize>(permute: &Permute, families: &[Family], x: &[f32], y: &mut [f32]) {
        let [from, to] = permute.channels;
        assert!(x.len() >= C * from, "source channels");
        assert!(y.len() >= (C - 1) * to + permute.len, "channels to make");
        let mut lanes = permute.lanes.as_ptr();
        for family in families {
            let (x, y) = (x.as_ptr(), y.as_mut_ptr());
            // SAFETY: lines lie in their channels, and `lanes` are those of the families in turn (invariants).
            unsafe {
                match family.from.len() {
                    1 => make::<C, 1>(family, lanes, [from, to], x, y),
                    2 => make::<C, 2>(family, lanes, [from, to], x, y),
                    3 => make::<C, 3>(family, lanes, [from, to], x, y),
                    4 => make::<C, 4>(family, lanes, [from, to], x, y),
                    6 => make::<C, 6>(family, lanes, [from, to], x, y),
                    _ => make::<C, 8>(family, lanes, [from, to], x, y),
                }
                lanes = lanes.add(family.made.len() * family.picks());
            }
        }
    }

    /// # Safety
    /// `lanes` must be readable for those of the family, `x` and `y` point to `C` channels, so many floats apart, that hold its lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn make<const C: usize, const N: usize>(
        family: &Family,
        mut lanes: *const Lanes,
        [from, to]: [usize; 2],
        x: *const f32,
        y: *mut f32,
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut sources = [[_mm512_setzero_ps(); N]; C];
            for (c, sources) in sources.iter_mut().enumerate() {
                for (source, line) in sources.iter_mut().zip(&family.from) {
                    *source = _mm512_loadu_ps(x.add(c * from + line));
                }
            }
            for made in &family.made {
                let mut lines = [_mm512_setzero_ps(); C];
                for c in 0..C {
                    lines[c] = sources[c][0];
                }
                for i in 1..N.max(2) {
                    let pick = _mm512_load_si512(lanes.cast());
                    lanes = lanes.add(1);
                    for c in 0..C {
                        lines[c] = _mm512_permutex2var_ps(lines[c], pick, sources[c][i.min(N - 1)]);
                    }
                }
                let [some, stored] = made.masks;
                for (c, line) in lines.into_iter().enumerate() {
                    let line = _mm512_maskz_mov_ps(some, line);
                    let y = y.add(c * to + made.at);
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
