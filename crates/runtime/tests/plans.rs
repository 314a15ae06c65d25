//! The steps of plans that must have no step too many.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::Isa;
use sparsevd_model::{Network, presets};
use sparsevd_runtime::{Plan, PlanOptions};
use sparsevd_testing::arbitrary::Stream;

/// LeNet-5 with as many weights left as the paper of Sparse VD reports.
fn lenet_5() -> Network {
    let mut densities = [0.33, 0.02, 0.002, 0.05].into_iter();
    let mut stream = Stream(2017);
    let preset = presets::by_name("lenet-5").unwrap();
    Network::from_preset(preset, |_, shape| match shape.dims().len() {
        1 => stream.bernoulli(shape.clone(), 1.0).into(),
        _ => (stream.sparse(shape.clone(), densities.next().unwrap())).into(),
    })
    .unwrap()
}

/// Steps of a plan of LeNet-5, their kernels without instruction set and tile, and its arena in KiB.
fn planned(batch: usize) -> (Vec<String>, usize) {
    let options = PlanOptions {
        batch,
        isa: Isa::best(),
        ..PlanOptions::default()
    };
    let plan = Plan::new(&lenet_5(), &options).unwrap();
    let step = |node: &sparsevd_runtime::PlanNode| {
        let kernel = node
            .kernel
            .split_once("-f32")
            .map_or(&*node.kernel, |k| k.0);
        let kernel = kernel
            .trim_start_matches(options.isa.name())
            .trim_start_matches('-');
        format!("{} {kernel}", node.op)
    };
    let steps = plan.nodes().iter().map(step).collect();
    (steps, plan.arena_bytes().div_ceil(1024))
}

#[test]
fn one_sample_of_lenet_5_takes_four_steps() {
    let (steps, arena) = planned(1);
    let linear = |step: &String| step.starts_with("Linear");
    assert_eq!(
        steps[..2],
        [
            "Conv+Relu+MaxPool sell4-rows-pool",
            "Conv+Relu+MaxPool sell4-rows-pool"
        ]
    );
    assert!(
        steps.len() == 4 && steps[2..].iter().all(linear),
        "{steps:?}"
    );
    assert!(arena <= 32, "{arena} KiB fall out of the first-level cache");
}

#[test]
fn a_batch_of_lenet_5_is_brought_into_tiles_once() {
    let (steps, arena) = planned(64);
    let expected = [
        "Pack pack-1x16",
        "Conv+Relu+MaxPool sell4-blocks-pool",
        "Conv+Relu+MaxPool sell4-blocks-pool",
        "Linear+Relu sell4",
        "Linear sell4",
        "Unpack unpack-16x1",
    ];
    assert_eq!(steps, expected);
    // The input of a tile and the pooled maps of the first layer, without a border around them.
    let least = 16 * (28 * 28 + 20 * 12 * 12) * 4 / 1024;
    assert!(arena <= least + 8, "{arena} KiB for {least}");
}
