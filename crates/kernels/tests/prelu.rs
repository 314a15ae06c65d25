//! The parametric ReLU on every instruction set against its slow twin.

use proptest::prelude::*;
use sparsevd_kernels::prelu::PRelu;
use sparsevd_kernels::{Isa, Layout};
use sparsevd_testing::arbitrary::{Stream, activations};
use sparsevd_testing::close::assert_close;
use sparsevd_testing::reference;

proptest! {
    /// NaN and infinity pass through.
    #[test]
    fn channels_have_slopes_of_their_own(
        n in 0..=20_usize, c in 1..=5_usize, area in 1..=9_usize, x in activations(20 * 5 * 9, true), seed in any::<u64>(),
    ) {
        let x = &x[..n * c * area];
        let slope = Stream(seed).floats(c);
        let want = reference::prelu(x, &slope, area);
        let want: Vec<f32> = want.iter().map(|v| *v as f32).collect();
        for isa in Isa::available() {
            let kernel = |layout| PRelu::new(isa, layout, slope.clone());
            let mut y = x.to_vec();
            kernel(Layout::Single).run(&mut y, n);
            assert_close(&y, &want, 1e-7);
            let mut y = reference::to_tiles(x, n, c * area);
            kernel(Layout::Tiled).run(&mut y, n);
            assert_close(&reference::from_tiles(&y, n, c * area), &want, 1e-7);
        }
    }
}
