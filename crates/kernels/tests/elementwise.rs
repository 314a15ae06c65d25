//! Layouts, activations and softmax of every instruction set against their slow twins.

use proptest::prelude::*;
use sparsevd_kernels::{Activation, Isa, Layout, elementwise, pack_tiles, tiles, unpack_tiles};
use sparsevd_testing::arbitrary::{Stream, activations};
use sparsevd_testing::close::assert_close;
use sparsevd_testing::reference;

proptest! {
    #[test]
    fn tiles_hold_samples_and_zeros(n in 0..=50_usize, features in 1..=50_usize, seed in any::<u64>()) {
        let x = Stream(seed).floats(n * features);
        for isa in Isa::available() {
            let mut packed = vec![f32::NAN; tiles(n) * features * 16];
            pack_tiles(isa, &x, n, features, &mut packed);
            prop_assert_eq!(&packed, &reference::to_tiles(&x, n, features));
            let mut back = vec![f32::NAN; x.len()];
            unpack_tiles(isa, &packed, n, features, &mut back);
            prop_assert_eq!(&back, &x);
        }
    }

    #[test]
    fn elements_are_clamped_and_added(x in activations(200, true), n in 0..=100_usize, min in -1.0..0.5_f32) {
        let (a, b) = (&x[..n], &x[100..100 + n]);
        for act in [Activation::None, Activation::Relu, Activation::Clip { min, max: 0.75 }] {
            let want: Vec<f32> = a.iter().map(|v| act.apply(*v)).collect();
            let sums: Vec<f32> = a.iter().zip(b).map(|(a, b)| act.apply(a + b)).collect();
            for isa in Isa::available() {
                let mut y = a.to_vec();
                elementwise::activate(isa, &mut y, act);
                assert_close(&y, &want, 0.0);
                let mut y = vec![0.0; n];
                elementwise::add(isa, a, b, &mut y, act);
                assert_close(&y, &sums, 0.0);
                let mut y = a.to_vec();
                elementwise::add_assign(isa, &mut y, b, act);
                assert_close(&y, &sums, 0.0);
            }
        }
    }

    #[test]
    fn softmax_gives_probabilities(n in 1..=20_usize, features in 1..=40_usize, seed in any::<u64>(), scale in 0.0..200.0_f32) {
        let x: Vec<f32> = Stream(seed).floats(n * features).iter().map(|v| v * scale).collect();
        let want = reference::softmax(&x, features);
        for isa in Isa::available() {
            let mut y = x.clone();
            elementwise::softmax(isa, Layout::Single, &mut y, features, n);
            assert_close(&y, &want, 1e-5);
            let mut y = reference::to_tiles(&x, n, features);
            elementwise::softmax(isa, Layout::Tiled, &mut y, features, tiles(n));
            assert_close(&reference::from_tiles(&y, n, features), &want, 1e-5);
        }
    }
}
