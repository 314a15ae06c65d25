//! What measured layers multiply.

/// Rows and columns of the measured layers, whose weights fit in the second-level cache.
pub(super) const SIDE: usize = 512;

/// Numbers up to one, of which a share of `density` is not zero.
pub(super) fn pattern(len: usize, density: f64) -> Vec<f32> {
    pattern_from(1, len, density)
}

pub(super) fn pattern_from(seed: u64, len: usize, density: f64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut unit = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
    };
    (0..len)
        .map(|_| {
            let kept = f64::from(unit()) < density;
            let v = unit() + 1e-3;
            if kept { v } else { 0.0 }
        })
        .collect()
}
