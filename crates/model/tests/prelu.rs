//! Channels before a parametric ReLU leave with their slopes.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_model::passes::drop_dead_channels;
use sparsevd_model::{Conv2d, Dense, GraphBuilder, Op, Shape, Weights, ops};

#[test]
fn a_slope_leaves_with_its_channel_and_one_slope_for_all_stays() {
    for slopes in [&[2, 1, 1][..], &[1]] {
        let slopes = Shape(slopes.to_vec());
        let mut b = GraphBuilder::new("prelu");
        let x = b.input("x", [2, 1, 1]);
        let conv = Conv2d::square(2, 1).without_bias();
        let a = b.conv("a", &x, &conv);
        let slope = b.tensor("slope", slopes.clone());
        let p = b.op("p", Op::PRelu(ops::PRelu { slope }), &[&a]);
        b.conv("c", &p, &conv);
        let full = |_: &str, shape: &Shape| {
            Weights::Dense(Dense::new(shape.clone(), vec![0.5; shape.elements()]))
        };
        let mut network = b.network(full).unwrap();
        assert_eq!(drop_dead_channels(&network), None);

        // The second channel has no consumer.
        let reads_one = Dense::new([2, 2, 1, 1], vec![1.0, 0.0, 1.0, 0.0]);
        network
            .tensors
            .insert("c.weight".into(), Weights::Dense(reads_one));
        let after = drop_dead_channels(&network).unwrap();
        assert_eq!(after.tensors["a.weight"].shape().dims(), [1, 2, 1, 1]);
        let left = &slopes.dims()[1..];
        assert_eq!(after.tensors["slope"].shape().0, [&[1], left].concat());
        assert_eq!(after.original_shape("slope"), slopes);
        let back = after.in_original_shapes().unwrap();
        assert_eq!(back.tensors["slope"].shape(), slopes);
    }
}
