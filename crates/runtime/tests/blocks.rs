//! Networks with maps large enough to be cut into blocks: what they compute, and that they stay cut from layer to layer.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::Isa;
use sparsevd_model::{Conv2d, Dense, GraphBuilder, Network, Op, Shape, Window, ops};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor;

/// A network of convolutions with seeded weights.
struct Maps {
    graph: GraphBuilder,
    stream: Stream,
}

impl Maps {
    fn new(input: [usize; 3]) -> Self {
        let mut graph = GraphBuilder::new("maps");
        graph.input("x", input);
        Self {
            graph,
            stream: Stream(3),
        }
    }

    fn op(&mut self, name: &str, op: Op, inputs: &[&str]) {
        self.graph.op(name, op, inputs);
    }

    /// A convolution `{name}.conv` with "same" padding and a ReLU `name` behind it.
    fn conv(
        &mut self,
        name: &str,
        input: &str,
        shape: [usize; 4],
        stride: usize,
        groups: usize,
        density: f64,
    ) {
        let conv = format!("{name}.conv");
        let mut weight = self.stream.bernoulli(shape, density);
        let scale = (2.0 / (shape[1] * shape[2] * shape[3]) as f32 / density as f32).sqrt();
        weight.values.iter_mut().for_each(|v| *v *= scale);
        let bias = Dense::new([shape[0]], self.stream.floats(shape[0]));
        self.graph.weights(format!("{conv}.weight"), weight);
        self.graph.weights(format!("{conv}.bias"), bias);
        let filters = Conv2d::square(shape[0], shape[2]).padding(shape[2] / 2);
        let filters = filters.stride(stride).groups(groups);
        let sums = self.graph.conv(conv, input, &filters);
        self.op(name, Op::Relu, &[&sums]);
    }

    fn build(self) -> Network {
        let absent = |name: &str, _: &Shape| panic!("{name} has no weights");
        self.graph.network(absent).unwrap()
    }
}

/// A dense stem, sparse blocks with residual sums, strides, both kinds of pooling, and a classifier.
fn residual() -> Network {
    let mut b = Maps::new([3, 112, 112]);
    b.conv("stem", "x", [32, 3, 7, 7], 2, 1, 1.0);
    b.conv("a", "stem", [32, 32, 3, 3], 1, 1, 0.2);
    b.conv("b", "a", [32, 32, 3, 3], 1, 1, 0.1);
    b.op("sum", Op::Add, &["b.conv", "stem"]);
    b.op("relu", Op::Relu, &["sum"]);
    let window = Window {
        pads: [1, 1, 0, 0],
        ..Window::square(3, 2)
    };
    b.op("pool", Op::MaxPool(ops::MaxPool { window }), &["relu"]);
    b.conv("c", "pool", [64, 32, 1, 1], 1, 1, 0.9);
    b.conv("d", "c", [64, 64, 3, 3], 2, 1, 0.1);
    b.conv("skip", "c", [64, 64, 1, 1], 2, 1, 0.3);
    b.op("down", Op::Add, &["d", "skip.conv"]);
    b.conv("e", "down", [96, 64, 5, 5], 1, 1, 0.2);
    let window = Window::square(3, 2);
    b.op(
        "average",
        Op::AveragePool(ops::AveragePool { window }),
        &["e"],
    );
    b.conv("f", "average", [64, 48, 3, 3], 1, 2, 0.5);
    b.conv("g", "f", [32, 64, 3, 3], 3, 1, 0.5);
    b.op("global", Op::GlobalAveragePool, &["g"]);
    b.build()
}

/// Depthwise and pointwise convolutions in turns.
fn separable() -> Network {
    let mut b = Maps::new([3, 64, 64]);
    b.conv("stem", "x", [32, 3, 3, 3], 2, 1, 1.0);
    b.conv("dw1", "stem", [32, 1, 3, 3], 1, 32, 1.0);
    b.conv("pw1", "dw1", [128, 32, 1, 1], 1, 1, 0.3);
    b.conv("dw2", "pw1", [128, 1, 3, 3], 2, 128, 1.0);
    b.conv("pw2", "dw2", [256, 128, 1, 1], 1, 1, 0.2);
    b.conv("dw3", "pw2", [256, 1, 3, 3], 1, 256, 1.0);
    b.conv("pw3", "dw3", [128, 256, 1, 1], 1, 1, 0.2);
    b.build()
}

/// Maps that end small, with sums around them.
fn narrowing() -> Network {
    let mut b = Maps::new([3, 56, 56]);
    b.conv("stem", "x", [16, 3, 3, 3], 1, 1, 1.0);
    b.conv("a", "stem", [32, 16, 3, 3], 2, 1, 0.3);
    b.conv("b", "a", [64, 32, 3, 3], 2, 1, 0.3);
    b.conv("c", "b", [64, 64, 3, 3], 2, 1, 0.3);
    b.conv("d", "c", [96, 64, 1, 1], 1, 1, 0.5);
    b.conv("skip", "b", [96, 64, 1, 1], 2, 1, 0.5);
    b.op("down", Op::Add, &["d.conv", "skip.conv"]);
    b.op("relu", Op::Relu, &["down"]);
    b.conv("e", "relu", [128, 96, 1, 1], 1, 1, 0.5);
    b.conv("f", "e", [128, 128, 3, 3], 1, 1, 0.6);
    b.conv("g", "f", [96, 128, 1, 1], 1, 1, 0.5);
    b.op("sum", Op::Add, &["g.conv", "relu"]);
    b.op("out", Op::Relu, &["sum"]);
    b.op("global", Op::GlobalAveragePool, &["out"]);
    b.build()
}

fn run(network: &Network, options: &PlanOptions, x: &[f32]) -> (Vec<f32>, String) {
    let plan = Plan::new(network, options).unwrap();
    let session = Session::new(plan, options.threads).unwrap();
    let inn = session.plan().input_shape().elements();
    let out = session.plan().output_shape().elements();
    let n = x.len() / inn;
    let mut y = vec![f32::NAN; n * out];
    // Twice, so that what a run leaves behind would show.
    for _ in 0..2 {
        session.run(n, x, &mut y).unwrap();
    }
    (y, session.plan().to_string())
}

#[test]
fn maps_in_blocks_give_what_plain_loops_give() {
    for network in [residual(), separable()] {
        let inn = network.graph.inputs[0].shape.elements();
        let x = Stream(9).floats(3 * inn);
        let want: Vec<f64> = x
            .chunks(inn)
            .flat_map(|x| executor::run(&network, x))
            .collect();
        for isa in Isa::available() {
            for (weights, batch, threads) in [
                (WeightMode::Sparse, 1, 1),
                (WeightMode::Sparse, 1, 2),
                (WeightMode::Sparse, 3, 1),
                (WeightMode::Sparse, 20, 1),
                (WeightMode::Sparse, 20, 2),
                (WeightMode::Dense, 1, 2),
                (WeightMode::Dense, 20, 1),
            ] {
                let options = PlanOptions {
                    weights,
                    isa,
                    batch,
                    threads,
                    ..PlanOptions::default()
                };
                // One block and some of the next, of the same samples over and over.
                let samples = if batch == 20 { 11 } else { 3 };
                let x: Vec<f32> = x.iter().copied().cycle().take(samples * inn).collect();
                let outputs = samples * want.len() / 3;
                let want: Vec<f64> = want.iter().copied().cycle().take(outputs).collect();
                let (got, plan) = run(&network, &options, &x);
                assert_sums_close(&got, &want, 1e-4, plan);
            }
        }
    }
}

/// Such windows make maps larger, so that they read blocks of which no pixel lies in the map; a convolution before them has written its bias there.
#[test]
fn windows_that_lie_in_the_padding_read_zeros() {
    let windows = [
        ([1, 1], [1, 1], [0, 0, 1, 1]),
        ([1, 3], [1, 1], [0, 2, 1, 0]),
        ([2, 2], [1, 1], [1, 1, 1, 1]),
        ([3, 3], [1, 1], [2, 2, 2, 2]),
        ([3, 3], [1, 2], [0, 0, 3, 3]),
        ([2, 2], [2, 2], [0, 0, 4, 4]),
    ];
    // Sparse, depthwise and dense.
    for (groups, density) in [(1, 0.3), (32, 1.0), (1, 1.0)] {
        for (side, (kernel_shape, strides, pads)) in [5, 8, 9]
            .into_iter()
            .flat_map(|side| windows.map(|w| (side, w)))
        {
            // Small layers stay over rows unless they have strides.
            let mut b = Maps::new([32, 2 * side, 2 * side]);
            b.conv("first", "x", [32, 32, 3, 3], 2, 1, 0.3);
            let window = Window {
                kernel_shape,
                strides,
                pads,
                dilations: [1, 1],
            };
            let filters = Conv2d::new(32, window).groups(groups);
            let shape = [32, 32 / groups, kernel_shape[0], kernel_shape[1]];
            let weight = b.stream.bernoulli(shape, density);
            b.graph.weights("second.weight", weight);
            b.graph
                .weights("second.bias", Dense::new([32], vec![0.0; 32]));
            b.graph.conv("second", "first", &filters);
            let network = b.build();
            let x = Stream(9).floats(32 * 4 * side * side);
            let want = executor::run(&network, &x);
            for isa in Isa::available() {
                let options = PlanOptions {
                    isa,
                    ..PlanOptions::default()
                };
                let (got, plan) = run(&network, &options, &x);
                assert_sums_close(&got, &want, 1e-4, plan);
            }
        }
    }
}

#[test]
fn a_chain_is_packed_at_its_edges_only() {
    for isa in Isa::available() {
        let options = PlanOptions {
            isa,
            ..PlanOptions::default()
        };
        let plan = Plan::new(&separable(), &options).unwrap();
        let (named, changes): (Vec<_>, Vec<_>) =
            plan.nodes().iter().partition(|n| !n.name.is_empty());
        // The dense stem is direct, over blocks, on wide instruction sets only.
        let chain = named.iter().filter(|n| n.name != "stem.conv");
        assert!(chain.clone().all(|n| n.layout == "blocks"), "{plan}");
        assert_eq!(changes.len(), 2, "{plan}");
    }
}

#[test]
fn sums_are_part_of_the_convolution_before_them() {
    for weights in [WeightMode::Sparse, WeightMode::Dense] {
        let isa = Isa::best();
        let options = PlanOptions {
            weights,
            ..PlanOptions::default()
        };
        let plan = Plan::new(&residual(), &options).unwrap();
        let fused = plan
            .nodes()
            .iter()
            .filter(|n| n.op.contains("+Add"))
            .count();
        let alone = plan
            .nodes()
            .iter()
            .filter(|n| n.op.starts_with("Add"))
            .count();
        // Where dense convolutions go through im2col, their sums stand behind them.
        if weights == WeightMode::Sparse || sparsevd_kernels::select::prefer_direct(isa) {
            assert_eq!((fused, alone), (2, 0), "{plan}");
        } else {
            assert_eq!((fused, alone), (0, 2), "{plan}");
        }
    }
}

/// Maps of up to four pixels, with strides, groups, a sum, a pooling, and a window larger than its map.
fn few_pixels() -> Network {
    let mut b = Maps::new([64, 4, 4]);
    b.conv("a", "x", [96, 64, 3, 3], 2, 1, 0.1);
    b.conv("b", "a", [96, 96, 3, 3], 1, 1, 0.1);
    b.op("sum", Op::Add, &["b.conv", "a"]);
    b.conv("c", "sum", [96, 48, 3, 3], 1, 2, 0.1);
    b.conv("d", "c", [128, 96, 5, 5], 1, 1, 0.03);
    let window = Window::square(2, 2);
    b.op("pool", Op::MaxPool(ops::MaxPool { window }), &["d"]);
    b.conv("e", "pool", [256, 128, 3, 3], 1, 1, 0.1);
    b.conv("f", "e", [64, 256, 1, 1], 1, 1, 0.1);
    b.build()
}

#[test]
fn maps_of_a_few_pixels_are_vectors_that_a_matrix_multiplies() {
    let network = few_pixels();
    let x = Stream(21).floats(3 * 64 * 16);
    let want: Vec<f64> = (x.chunks(64 * 16))
        .flat_map(|x| executor::run(&network, x))
        .collect();
    for isa in Isa::available() {
        for batch in [1, 3] {
            let options = PlanOptions {
                isa,
                batch,
                ..PlanOptions::default()
            };
            let (y, plan) = run(&network, &options, &x);
            assert_sums_close(&y, &want, 1e-4, &plan);
            for name in ["d.conv", "e.conv", "f.conv"] {
                let line = plan.lines().find(|l| l.starts_with(name)).unwrap();
                assert!(!line.contains("blocks") && !line.contains("rows"), "{plan}");
            }
        }
    }
}

#[test]
fn callers_share_the_threads_of_a_session() {
    let network = residual();
    let inn = network.graph.inputs[0].shape.elements();
    let x = Stream(9).floats(inn);
    let options = PlanOptions {
        threads: 2,
        ..PlanOptions::default()
    };
    let session = Session::new(Plan::new(&network, &options).unwrap(), 2).unwrap();
    assert_eq!(session.threads(), 2, "{}", session.plan());
    let mut want = vec![f32::NAN; session.plan().output_shape().elements()];
    session.run(1, &x, &mut want).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let mut y = vec![f32::NAN; want.len()];
                    session.run(1, &x, &mut y).unwrap();
                    assert_eq!(y, want);
                }
            });
        }
    });
}

#[test]
fn threads_share_lines_of_large_maps_and_channels_of_small_ones() {
    let plan = |threads| {
        let options = PlanOptions {
            threads,
            ..PlanOptions::default()
        };
        Plan::new(&separable(), &options).unwrap()
    };
    let [one, two] = [1, 2].map(plan);
    let shares = |plan: &Plan, name: &str| {
        let node = plan.nodes().iter().find(|n| n.name == name);
        node.map(|n| (n.parts, n.weight_bytes)).unwrap()
    };
    let convolutions = two.nodes().iter().filter(|n| n.op.starts_with("Conv"));
    for node in convolutions {
        assert_eq!(node.parts, 2, "{}\n{two}", node.name);
    }
    // Parts of channels are packed each for itself, which pads them; lines are made of the same weights.
    assert_eq!(shares(&two, "dw1.conv").1, shares(&one, "dw1.conv").1);
    assert_eq!(shares(&two, "pw1.conv").1, shares(&one, "pw1.conv").1);
    assert_ne!(shares(&two, "pw2.conv").1, shares(&one, "pw2.conv").1);
}

#[test]
fn a_batch_goes_one_by_one_through_large_maps_only() {
    let options = PlanOptions {
        batch: 20,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&residual(), &options).unwrap();
    assert_eq!(plan.block(), 10, "{plan}");
    let text = plan.to_string();
    let turn = text.lines().find(|l| l.contains("one by one up to"));
    assert!(turn.is_some_and(|l| !l.contains("stem")), "{plan}");
    let layout = |name: &str| plan.nodes().iter().find(|n| n.name == name).unwrap().layout;
    assert_eq!(
        [layout("b.conv"), layout("g.conv")],
        ["blocks", "tiled"],
        "{plan}"
    );
}

#[test]
fn small_maps_of_many_samples_are_in_tiles_and_so_are_their_sums() {
    let network = narrowing();
    let inn = network.graph.inputs[0].shape.elements();
    let x = Stream(9).floats(17 * inn);
    let want: Vec<f64> = x
        .chunks(inn)
        .flat_map(|x| executor::run(&network, x))
        .collect();
    for isa in Isa::available() {
        let options = PlanOptions {
            isa,
            batch: 16,
            ..PlanOptions::default()
        };
        let (got, text) = run(&network, &options, &x);
        assert_sums_close(&got, &want, 1e-4, text);
        let plan = Plan::new(&network, &options).unwrap();
        let layouts = |name: &str| -> Vec<&str> {
            let name = format!("{name}.conv");
            let nodes = plan.nodes().iter().filter(|n| n.name == name);
            nodes.map(|n| n.layout).collect()
        };
        assert_eq!(layouts("c"), ["blocks"], "{plan}");
        // A convolution in blocks, whose sum is with what is in tiles.
        assert_eq!(layouts("skip"), ["blocks", "tiled"], "{plan}");
        for name in ["d", "e", "f", "g"] {
            assert_eq!(layouts(name), ["tiled"], "{plan}");
        }
    }
}
