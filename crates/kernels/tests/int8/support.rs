//! What all of these tests need.

use proptest::prelude::*;
use sparsevd_kernels::Clamp;
use sparsevd_kernels::int8::Dot;

pub fn any_clamp() -> impl Strategy<Value = Clamp> {
    let clip = Clamp::Clip {
        min: -20.5,
        max: 90.0,
    };
    prop_oneof![Just(Clamp::None), Just(Clamp::Relu), Just(clip)]
}

#[track_caller]
pub fn same(got: &[f32], want: &[f32], dot: Dot) {
    let bits = |v: &[f32]| -> Vec<u32> { v.iter().map(|v| v.to_bits()).collect() };
    assert!(bits(got) == bits(want), "{dot}: got {got:?}, want {want:?}");
}

/// Whether weights are stored without zeros.
pub fn expands(dot: Dot) -> bool {
    #[cfg(target_arch = "x86_64")]
    return dot.name() == "avx512vnni" && is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    return dot.name().is_empty();
}
