//! Layer normalisation on every instruction set against its slow twin.

use proptest::prelude::*;
use sparsevd_kernels::layer_norm::LayerNorm;
use sparsevd_kernels::{Isa, Layout};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_close;
use sparsevd_testing::reference;

proptest! {
    #[test]
    fn groups_of_single_samples_and_tiles_are_normalised(
        n in 0..=33_usize, groups in 1..=3_usize, size in 1..=40_usize, mean in -1000.0..1000.0_f32, with_bias in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut stream = Stream(seed);
        let features = groups * size;
        let x: Vec<f32> = stream.floats(n * features).iter().map(|v| v + mean).collect();
        let scale = stream.floats(size);
        let bias = with_bias.then(|| stream.floats(size));
        let epsilon = 1e-2;
        let want = reference::layer_norm(&x, &scale, bias.as_deref(), epsilon);
        let want: Vec<f32> = want.iter().map(|v| *v as f32).collect();
        // A number of a thousand is off by up to 6e-5, and the deviation is at least a tenth.
        let tolerance = 1e-5 + 2e-6 * mean.abs();
        for isa in Isa::available() {
            let kernel = |layout| LayerNorm::new(isa, layout, scale.clone(), bias.clone(), epsilon);
            let mut y = x.clone();
            kernel(Layout::Single).run(&mut y);
            assert_close(&y, &want, tolerance);
            let mut y = reference::to_tiles(&x, n, features);
            kernel(Layout::Tiled).run(&mut y);
            assert_close(&reference::from_tiles(&y, n, features), &want, tolerance);
        }
    }
}

#[test]
fn nan_and_infinity_stay_in_their_group_and_sample() {
    let (n, groups, size) = (17, 3, 20);
    let features = groups * size;
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = Stream(4).floats(n * features);
        x[5 * features + size + 3] = bad;
        let stays = |y: &[f32]| {
            for (i, group) in y.chunks(size).enumerate() {
                let all = group.iter().all(|v| v.is_nan());
                let any = group.iter().any(|v| v.is_nan());
                assert_eq!([all, any], [i == 5 * groups + 1; 2], "group {i} with {bad}");
            }
        };
        for isa in Isa::available() {
            let kernel = |layout| LayerNorm::new(isa, layout, vec![1.0; size], None, 1e-5);
            let mut y = x.clone();
            kernel(Layout::Single).run(&mut y);
            stays(&y);
            let mut y = reference::to_tiles(&x, n, features);
            kernel(Layout::Tiled).run(&mut y);
            stays(&reference::from_tiles(&y, n, features));
        }
    }
}
