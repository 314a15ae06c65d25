//! Plans of networks with int8 layers, exactly as plain loops compute them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sparsevd_kernels::Isa;
use sparsevd_kernels::cost::{Costs, Int8Shares};
use sparsevd_kernels::int8::Dot;
use sparsevd_model::{
    Conv2d, Csr, Dense, GraphBuilder, Input, Int8Grid, Int8Input, Network, Op, Weights, Window,
    ops, quantised,
};
use sparsevd_runtime::{Int8Mode, Plan, PlanOptions, RuntimeError, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

/// Channels and sides of the input.
const INPUT: [usize; 3] = [5, 10, 10];
const CLASSES: usize = 7;

/// Convolutions with a border, a pooling, strides and a residual, a 1x1 convolution and linear layers.
fn network(seed: u64) -> Network {
    let mut b = GraphBuilder::new("int8");
    let x = b.input("x", INPUT);
    let conv = |out, size, padding| Conv2d::square(out, size).padding(padding);
    let pool = Op::MaxPool(ops::MaxPool {
        window: Window::square(2, 2),
    });
    let v = b.conv("a", &x, &conv(12, 3, 1));
    let v = b.op("a.relu", Op::Relu, &[&v]);
    let v = b.op("pool", pool, &[&v]);
    let left = b.conv("b", &v, &conv(12, 3, 1));
    let v = b.op("sum", Op::Add, &[&left, &v]);
    let v = b.op("b.relu", Op::Relu, &[&v]);
    let v = b.conv("c", &v, &conv(16, 1, 0));
    let v = b.conv("d", &v, &conv(8, 3, 1).stride(2));
    let v = b.op("flat", Op::Flatten, &[&v]);
    let v = b.linear("e", &v, 40);
    let v = b.op("e.relu", Op::Relu, &[&v]);
    let v = b.linear("f", &v, CLASSES);
    b.output(&v);
    with_grids(b, seed, 0.3)
}

/// Two linear layers.
fn mlp(density: f64) -> Network {
    let mut b = GraphBuilder::new("mlp");
    let x = b.input("x", [256]);
    let x = b.linear("g", &x, 256);
    let x = b.op("g.relu", Op::Relu, &[&x]);
    let x = b.linear("h", &x, 64);
    b.output(&x);
    with_grids(b, 4, density)
}

/// Seeded weights on grids.
fn with_grids(b: GraphBuilder, seed: u64, density: f64) -> Network {
    let mut stream = Stream(seed);
    let network = b.network(|name, shape| match name.ends_with("weight") {
        true => Weights::Csr(Csr::from_dense(&stream.bernoulli(shape.clone(), density))),
        false => Dense::new(shape.clone(), stream.floats(shape.elements())).into(),
    });
    let mut network = network.unwrap();
    for (i, node) in network.graph.nodes.clone().iter().enumerate() {
        let Some(weight) = node.op.weight() else {
            continue;
        };
        let Weights::Csr(csr) = &network.tensors[weight] else {
            unreachable!()
        };
        let scale = |row: usize| quantised::nearest_scale(0.004 + 0.001 * row as f32, 16).unwrap();
        let rows: Vec<f32> = (0..csr.rows()).map(scale).collect();
        let rounded = csr.map_values(|row, v| {
            // No level is zero, as entries stay.
            let level = (v / rows[row]).round().clamp(-127.0, 127.0);
            (if level == 0.0 { 1.0 } else { level }) * rows[row]
        });
        network.tensors.insert(weight.into(), rounded.into());
        let input = Int8Grid {
            scale: 0.015625,
            zero_point: [3, 128, 0, 255][i % 4],
        };
        network.set_int8(&node.name, input, rows).unwrap();
    }
    network
}

/// An int8 layer by plain loops, without what was fused behind it.
fn layer(network: &Network, name: &str, x: &[f32], input: [usize; 3]) -> Vec<f32> {
    let node = network.graph.nodes.iter().find(|n| n.name == name).unwrap();
    let layer = network
        .int8_layer(name, node.op.weight().unwrap())
        .unwrap()
        .unwrap();
    let bias = network.bias(node).unwrap();
    let (window, groups, [c, h, w]) = match &node.op {
        Op::Conv(conv) => (conv.window.clone(), conv.groups, input),
        _ => (Window::square(1, 1), 1, [x.len(), 1, 1]),
    };
    let ([oh, ow], [kh, kw]) = (window.output(h, w).unwrap(), window.kernel_shape);
    assert_eq!(layer.levels.cols(), c / groups * kh * kw);
    assert_eq!(layer.levels.rows(), bias.len());
    let zero_point = layer.input.zero_point();
    let common = layer.input.grid().map(|grid| grid.scale);
    let largest = x.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let grid = Int8Grid {
        scale: common.unwrap_or_else(|| (largest / 127.0).max(f32::MIN_POSITIVE)),
        zero_point,
    };
    let mut y = Vec::new();
    for (row, &bias) in bias.iter().enumerate() {
        for (oy, ox) in (0..oh * ow).map(|i| (i / ow, i % ow)) {
            let (columns, levels) = layer.levels.row(row);
            let mut sum = 0;
            for (&k, &level) in columns.iter().zip(levels) {
                let (ic, ky, kx) = (
                    row / (layer.rows.len() / groups) * (c / groups) + k as usize / (kh * kw),
                    k as usize / kw % kh,
                    k as usize % kw,
                );
                let iy = (oy * window.strides[0] + ky).wrapping_sub(window.pads[0]);
                let ix = (ox * window.strides[1] + kx).wrapping_sub(window.pads[1]);
                if iy < h && ix < w {
                    let byte = grid.byte(x[(ic * h + iy) * w + ix]);
                    sum += level as i32 * (i32::from(byte) - i32::from(zero_point));
                }
            }
            let scale = layer.rows[row] * grid.scale;
            y.push((sum as f32).mul_add(scale, bias));
        }
    }
    y
}

/// A sample through the network by plain loops.
fn plain(network: &Network, x: &[f32]) -> Vec<f32> {
    let relu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|v| v.max(0.0)).collect() };
    let a = relu(layer(network, "a", x, INPUT));
    let place = |i: usize| (i / 25 * 100) + (i / 5 % 5 * 20) + i % 5 * 2;
    let pooled: Vec<f32> = (0..12 * 25)
        .map(|i| {
            let four = [0, 1, 10, 11].map(|d| a[place(i) + d]);
            four.into_iter().fold(0.0, f32::max)
        })
        .collect();
    let b = layer(network, "b", &pooled, [12, 5, 5]);
    let b = relu(b.iter().zip(&pooled).map(|(b, x)| b + x).collect());
    let c = layer(network, "c", &b, [12, 5, 5]);
    let d = layer(network, "d", &c, [16, 5, 5]);
    let e = relu(layer(network, "e", &d, [0; 3]));
    layer(network, "f", &e, [0; 3])
}

fn options(isa: Isa, int8: Int8Mode) -> PlanOptions {
    PlanOptions {
        isa,
        int8,
        batch: 64,
        ..PlanOptions::default()
    }
}

fn in_int8(plan: &Plan) -> Vec<&str> {
    let nodes = plan.nodes().iter().filter(|n| n.is_int8);
    nodes.map(|n| n.name.as_str()).collect()
}

#[test]
fn outputs_are_those_of_plain_loops_on_every_instruction_set() {
    let network = network(5);
    let (n, elements) = (70, INPUT.iter().product::<usize>());
    let mut stream = Stream(11);
    let x: Vec<f32> = stream
        .floats(n * elements)
        .iter()
        .map(|v| 3.0 * v)
        .collect();
    let want: Vec<f32> = x
        .chunks(elements)
        .flat_map(|x| plain(&network, x))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = PlanOptions {
                threads,
                ..options(isa, Int8Mode::Always)
            };
            let plan = Plan::new(&network, &options).unwrap();
            assert_eq!(
                in_int8(&plan),
                ["a", "b", "c", "d", "e", "f"],
                "{isa}: {plan}"
            );
            let mut y = vec![f32::NAN; n * CLASSES];
            let session = Session::new(plan, threads).unwrap();
            session.run(n, &x, &mut y[..]).unwrap();
            let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&y) == bits(&want), "{isa}: {y:?}, expected {want:?}");
        }
    }
}

/// Convolutions over maps that are cut into blocks: with residuals and strides.
fn over_blocks(seed: u64) -> Network {
    let mut b = GraphBuilder::new("blocks");
    let x = b.input("x", [16, 28, 28]);
    let conv = |out, size: usize| Conv2d::square(out, size).padding(size / 2);
    let v = b.conv("p", &x, &conv(32, 3));
    let residual = b.op("p.relu", Op::Relu, &[&v]);
    let v = b.conv("q", &residual, &conv(32, 3));
    let v = b.op("q.relu", Op::Relu, &[&v]);
    let v = b.conv("r", &v, &conv(32, 1));
    let v = b.op("sum", Op::Add, &[&v, &residual]);
    let both = b.op("r.relu", Op::Relu, &[&v]);
    // Blocks of seven lines move over pixels of two in other blocks; the shortcut reads one pixel of four.
    let v = b.conv("s", &both, &conv(48, 3).stride(2));
    let v = b.op("s.relu", Op::Relu, &[&v]);
    let v = b.conv("t", &v, &conv(96, 1));
    let shortcut = b.conv("u", &both, &conv(96, 1).stride(2));
    let v = b.op("sum2", Op::Add, &[&v, &shortcut]);
    let v = b.conv("v", &v, &conv(16, 3));
    let v = b.op("v.relu", Op::Relu, &[&v]);
    b.output(&v);
    let mut network = with_grids(b, seed, 0.5);
    // Both read the same value.
    let (grid, rows) = (
        network.int8.inputs["s"],
        network.int8.rows["u.weight"].clone(),
    );
    network.set_int8("u", grid, rows).unwrap();
    network
}

/// A sample through that network by plain loops. A value that int8 convolutions alone read is rounded for what they add, too.
fn plain_over_blocks(network: &Network, x: &[f32]) -> Vec<f32> {
    let relu = |x: &[f32]| -> Vec<f32> { x.iter().map(|v| v.max(0.0)).collect() };
    let sum = |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let p = relu(&layer(network, "p", x, [16, 28, 28]));
    let q = relu(&layer(network, "q", &p, [32, 28, 28]));
    let grid = network.int8.inputs["q"].grid().unwrap();
    let rounded: Vec<f32> = p.iter().map(|&v| grid.value(grid.byte(v))).collect();
    let r = relu(&sum(&layer(network, "r", &q, [32, 28, 28]), &rounded));
    let s = relu(&layer(network, "s", &r, [32, 28, 28]));
    let t = layer(network, "t", &s, [48, 14, 14]);
    let sampled: Vec<f32> = (0..32 * 14 * 14)
        .map(|i| r[i / 196 * 784 + i / 14 % 14 * 56 + i % 14 * 2])
        .collect();
    // The shortcut as a convolution of what it reads.
    let shortcut = strided(network, "u", &sampled, [32, 14, 14]);
    relu(&layer(network, "v", &sum(&t, &shortcut), [96, 14, 14]))
}

/// A 1x1 convolution with strides, over the pixels that it reads.
fn strided(network: &Network, name: &str, x: &[f32], input: [usize; 3]) -> Vec<f32> {
    let mut network = network.clone();
    let mut nodes = network.graph.nodes.iter_mut();
    let node = nodes.find(|n| n.name == name).unwrap();
    let Op::Conv(conv) = &mut node.op else {
        unreachable!()
    };
    conv.window.strides = [1, 1];
    layer(&network, name, x, input)
}

#[test]
fn values_between_int8_convolutions_are_bytes() {
    let network = over_blocks(8);
    let (n, elements) = (3, 16 * 28 * 28);
    let x: Vec<f32> = Stream(12)
        .floats(n * elements)
        .iter()
        .map(|v| 3.0 * v)
        .collect();
    let want: Vec<f32> = x
        .chunks(elements)
        .flat_map(|x| plain_over_blocks(&network, x))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 2] {
            for batch in [1, n] {
                let options = PlanOptions {
                    threads,
                    batch,
                    ..options(isa, Int8Mode::Always)
                };
                let plan = Plan::new(&network, &options).unwrap();
                let layouts: Vec<(&str, &str)> = plan
                    .nodes()
                    .iter()
                    .filter(|n| n.is_int8)
                    .map(|n| (n.name.as_str(), n.layout))
                    .collect();
                // What `t` computes is only added; `u` adds floats and writes bytes.
                let bytes = |name| {
                    (
                        name,
                        if ["t", "v"].contains(&name) {
                            "blocks"
                        } else {
                            "bytes"
                        },
                    )
                };
                let expected = ["p", "q", "r", "s", "t", "u", "v"].map(bytes);
                assert_eq!(layouts, expected, "{isa}: {plan}");
                let shared = plan.nodes().iter().any(|n| n.name == "u" && n.parts > 1);
                assert_eq!(shared, threads > 1 && batch == 1, "{isa}: {plan}");
                let session = Session::new(plan, threads).unwrap();
                let outputs = want.len() / n;
                for (x, want) in x.chunks(batch * elements).zip(want.chunks(batch * outputs)) {
                    let mut y = vec![f32::NAN; want.len()];
                    session.run(batch, x, &mut y[..]).unwrap();
                    let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert!(
                        bits(&y) == bits(want),
                        "{isa}, batch {batch}, {threads} threads"
                    );
                }
            }
        }
    }
}

/// A dense first convolution, poolings between int8 convolutions, maps of a few pixels, and a vector.
fn narrowing(density: f64) -> Network {
    let mut b = GraphBuilder::new("narrowing");
    let x = b.input("x", [3, 64, 64]);
    let pool = |b: &mut GraphBuilder, name: &str, window: Window, x: &str| {
        b.op(name, Op::MaxPool(ops::MaxPool { window }), &[x])
    };
    let v = b.conv("s", &x, &Conv2d::square(32, 7).stride(2).padding(3));
    let v = b.op("s.relu", Op::Relu, &[&v]);
    let overlapping = Window {
        pads: [1; 4],
        ..Window::square(3, 2)
    };
    let v = pool(&mut b, "overlapping", overlapping, &v);
    let v = b.conv("m", &v, &Conv2d::square(50, 3).padding(1));
    let v = b.op("m.relu", Op::Relu, &[&v]);
    let v = pool(&mut b, "halves", Window::square(4, 4), &v);
    let residual = b.conv("n", &v, &Conv2d::square(150, 3).padding(1));
    let v = b.conv("o", &residual, &Conv2d::square(150, 3).padding(1));
    let v = b.op("sum", Op::Add, &[&v, &residual]);
    let v = b.conv("q", &v, &Conv2d::square(130, 3).padding(1).stride(2));
    let v = b.op("q.relu", Op::Relu, &[&v]);
    let v = b.op("flat", Op::Flatten, &[&v]);
    let v = b.linear("k", &v, 600);
    b.output(&v);
    with_grids(b, 9, density)
}

/// Max-pooling `[c, h, w]` by plain loops.
fn pooled(x: &[f32], [c, h, w]: [usize; 3], window: &Window) -> Vec<f32> {
    let [oh, ow] = window.output(h, w).unwrap();
    let [kh, kw] = window.kernel_shape;
    let pixel = |i: usize| {
        let (map, y, x_) = (i / (oh * ow), i / ow % oh, i % ow);
        let taps = (0..kh * kw).filter_map(|t| {
            let y = (y * window.strides[0] + t / kw).checked_sub(window.pads[0]);
            let x_ = (x_ * window.strides[1] + t % kw).checked_sub(window.pads[1]);
            let (y, x_) = (y.filter(|y| *y < h)?, x_.filter(|x| *x < w)?);
            Some(x[(map * h + y) * w + x_])
        });
        taps.fold(f32::NEG_INFINITY, f32::max)
    };
    (0..c * oh * ow).map(pixel).collect()
}

#[test]
fn poolings_and_maps_of_a_few_pixels_stay_exact() {
    let (n, elements) = (2, 3 * 64 * 64);
    let x: Vec<f32> = Stream(13)
        .floats(n * elements)
        .iter()
        .map(|v| 3.0 * v)
        .collect();
    let relu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|v| v.max(0.0)).collect() };
    for density in [0.1, 0.9] {
        let network = narrowing(density);
        let pool = |name: &str| {
            let node = network.graph.nodes.iter().find(|n| n.name == name).unwrap();
            node.op.operator().window().unwrap().clone()
        };
        let plain = |x: &[f32]| {
            let s = relu(layer(&network, "s", x, [3, 64, 64]));
            let v = pooled(&s, [32, 32, 32], &pool("overlapping"));
            let m = relu(layer(&network, "m", &v, [32, 16, 16]));
            let v = pooled(&m, [50, 16, 16], &pool("halves"));
            let n = layer(&network, "n", &v, [50, 4, 4]);
            let o = layer(&network, "o", &n, [150, 4, 4]);
            // What a convolution reads itself is added by another step, in floats.
            let sum: Vec<f32> = o.iter().zip(&n).map(|(o, n)| o + n).collect();
            let q = relu(layer(&network, "q", &sum, [150, 4, 4]));
            layer(&network, "k", &q, [0; 3])
        };
        let want: Vec<f32> = x.chunks(elements).flat_map(plain).collect();
        for isa in Isa::available() {
            for threads in [1, 2] {
                let options = PlanOptions {
                    threads,
                    batch: 1,
                    ..options(isa, Int8Mode::Always)
                };
                let plan = Plan::new(&network, &options).unwrap();
                assert_eq!(in_int8(&plan), ["s", "m", "n", "o", "q", "k"], "{plan}");
                let kernel = |name: &str| -> String {
                    let node = plan.nodes().iter().find(|n| n.name == name).unwrap();
                    node.kernel.clone()
                };
                assert_eq!(kernel("overlapping"), "pool-blocks-i8", "{plan}");
                // All weights are multiplied of what is dense, and by pixels of small maps.
                let format = |name: &str| kernel(name).split('-').nth(1).unwrap().to_owned();
                if density == 0.9 || Dot::of(isa).name().ends_with("vnni") {
                    assert!(
                        ["dense4", "bitmask4", "spans4"].contains(&&format("q")[..]),
                        "{plan}"
                    );
                }
                let session = Session::new(plan, threads).unwrap();
                for (x, want) in x.chunks(elements).zip(want.chunks(600)) {
                    let mut y = vec![f32::NAN; 600];
                    session.run(1, x, &mut y[..]).unwrap();
                    let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert!(
                        bits(&y) == bits(want),
                        "{isa}, {threads} threads, {density}"
                    );
                }
            }
        }
    }
}

/// A first convolution, and depthwise ones with pointwise ones: with strides, with several filters for each channel, before a sum and a pooling.
fn separable(seed: u64) -> Network {
    let mut b = GraphBuilder::new("separable");
    let x = b.input("x", [3, 63, 64]);
    let depthwise = |out: usize, size: usize, groups: usize| {
        Conv2d::square(out, size).padding(size / 2).groups(groups)
    };
    let v = b.conv("s", &x, &Conv2d::square(24, 3).stride(2).padding(1));
    let v = b.op("s.relu", Op::Relu, &[&v]);
    let v = b.conv("d", &v, &depthwise(24, 3, 24));
    let v = b.op("d.relu", Op::Relu, &[&v]);
    let v = b.conv("p", &v, &Conv2d::square(32, 1));
    let residual = b.conv("e", &v, &depthwise(64, 5, 32).stride(2));
    let v = b.conv("q", &residual, &Conv2d::square(64, 1));
    let v = b.conv("f", &v, &depthwise(64, 3, 64));
    let v = b.op("sum", Op::Add, &[&v, &residual]);
    let v = b.conv("g", &v, &depthwise(64, 3, 64));
    let pool = Op::MaxPool(ops::MaxPool {
        window: Window::square(2, 2),
    });
    let v = b.op("pool", pool, &[&v]);
    let v = b.conv("r", &v, &Conv2d::square(16, 1));
    b.output(&v);
    with_grids(b, seed, 0.6)
}

#[test]
fn depthwise_and_first_convolutions_are_those_of_plain_loops() {
    let network = separable(3);
    let (n, elements) = (2, 3 * 63 * 64);
    let x: Vec<f32> = Stream(14)
        .floats(n * elements)
        .iter()
        .map(|v| 3.0 * v)
        .collect();
    let relu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|v| v.max(0.0)).collect() };
    let plain = |x: &[f32]| {
        let s = relu(layer(&network, "s", x, [3, 63, 64]));
        let d = relu(layer(&network, "d", &s, [24, 32, 32]));
        let p = layer(&network, "p", &d, [24, 32, 32]);
        let e = layer(&network, "e", &p, [32, 32, 32]);
        let q = layer(&network, "q", &e, [64, 16, 16]);
        let f = layer(&network, "f", &q, [64, 16, 16]);
        // It is there in bytes.
        let grid = network.int8.inputs["q"].grid().unwrap();
        let rounded = e.iter().map(|&v| grid.value(grid.byte(v)));
        let sum: Vec<f32> = f.iter().zip(rounded).map(|(f, e)| f + e).collect();
        let g = layer(&network, "g", &sum, [64, 16, 16]);
        let v = pooled(&g, [64, 16, 16], &Window::square(2, 2));
        layer(&network, "r", &v, [64, 8, 8])
    };
    let want: Vec<f32> = x.chunks(elements).flat_map(plain).collect();
    for isa in Isa::available() {
        for (threads, batch) in [(1, 1), (2, 1), (1, n), (2, n)] {
            let options = PlanOptions {
                threads,
                batch,
                ..options(isa, Int8Mode::Always)
            };
            let plan = Plan::new(&network, &options).unwrap();
            let all = ["s", "d", "p", "e", "q", "f", "g", "r"];
            assert_eq!(in_int8(&plan), all, "{isa}: {plan}");
            let node = |name: &str| plan.nodes().iter().find(|n| n.name == name).unwrap();
            for name in ["d", "e", "f", "g"] {
                let kernel = &node(name).kernel;
                assert!(kernel.contains("-depthwise-blocks-i8i8"), "{plan}");
            }
            if Dot::of(isa).name().ends_with("vnni") {
                assert!(node("s").kernel.contains("-columns4-conv-i8i8"), "{plan}");
            }
            assert_eq!(node("d").parts > 1, threads > 1 && batch == 1, "{plan}");
            let session = Session::new(plan, threads).unwrap();
            let outputs = want.len() / n;
            for (x, want) in x.chunks(batch * elements).zip(want.chunks(batch * outputs)) {
                let mut y = vec![f32::NAN; want.len()];
                session.run(batch, x, &mut y[..]).unwrap();
                let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(
                    bits(&y) == bits(want),
                    "{isa}, {threads} threads, batch {batch}"
                );
            }
        }
    }
}

/// A first convolution of one channel is split by its filters, each of which reads that channel.
#[test]
fn threads_share_the_filters_of_a_single_channel() {
    let mut b = GraphBuilder::new("grey");
    let x = b.input("x", [1, 64, 64]);
    let v = b.conv("s", &x, &Conv2d::square(32, 3).padding(1));
    let v = b.conv("t", &v, &Conv2d::square(16, 3).padding(1));
    b.output(&v);
    let network = with_grids(b, 6, 0.5);
    let x = Stream(15).floats(64 * 64);
    let s = layer(&network, "s", &x, [1, 64, 64]);
    let want = layer(&network, "t", &s, [32, 64, 64]);
    for isa in Isa::available() {
        for threads in [1, 2] {
            let options = PlanOptions {
                threads,
                batch: 1,
                ..options(isa, Int8Mode::Always)
            };
            let plan = Plan::new(&network, &options).unwrap();
            let s = plan.nodes().iter().find(|n| n.name == "s").unwrap();
            assert_eq!((s.parts > 1, s.is_int8), (threads > 1, true), "{plan}");
            let mut y = vec![f32::NAN; want.len()];
            let session = Session::new(plan, threads).unwrap();
            session.run(1, &x, &mut y[..]).unwrap();
            let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&y) == bits(&want), "{isa}, {threads} threads");
        }
    }
}

/// The vectors of a sample, such as tokens, have scales of their own, alone and in batches.
#[test]
fn vectors_of_a_sample_have_scales_of_their_own() {
    const TOKENS: usize = 5;
    let mut b = GraphBuilder::new("tokens");
    let x = b.input("x", [TOKENS, 256]);
    let x = b.linear("g", &x, 192);
    let x = b.op("g.relu", Op::Relu, &[&x]);
    let x = b.linear("h", &x, 64);
    b.output(&x);
    let mut network = with_grids(b, 4, 0.2);
    for input in network.int8.inputs.values_mut() {
        *input = Int8Input::PerVector;
    }
    network.check_int8().unwrap();
    let samples = 31;
    let mut x = Stream(11).floats(samples * TOKENS * 256);
    for (i, vector) in x.chunks_exact_mut(256).enumerate() {
        let magnitude = [1.0, 0.0, 300.0, 1e-4][i % 4];
        vector.iter_mut().for_each(|v| *v *= magnitude);
    }
    let relu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|v| v.max(0.0)).collect() };
    let plain = |x: &[f32]| {
        let g = relu(layer(&network, "g", x, [256, 1, 1]));
        layer(&network, "h", &g, [192, 1, 1])
    };
    let want: Vec<f32> = x.chunks_exact(256).flat_map(plain).collect();
    for isa in Isa::available() {
        for batch in [7, samples] {
            let options = PlanOptions {
                batch,
                ..options(isa, Int8Mode::Always)
            };
            let plan = Plan::new(&network, &options).unwrap();
            assert_eq!(in_int8(&plan), ["g", "h"], "{isa}, batch {batch}");
            let session = Session::new(plan, 1).unwrap();
            let (of_input, of_output) = (TOKENS * 256, TOKENS * 64);
            let mut y = vec![f32::NAN; want.len()];
            for (x, y) in (x.chunks(batch * of_input)).zip(y.chunks_mut(batch * of_output)) {
                session.run(x.len() / of_input, x, y).unwrap();
            }
            assert_eq!(y, want, "{isa}, batch {batch}");
        }
    }
}

/// In f32 they would run over vectors as they lie.
#[test]
fn layers_with_few_zeros_multiply_int8_where_that_is_asked_for() {
    let network = mlp(0.9);
    let relu = |x: Vec<f32>| -> Vec<f32> { x.into_iter().map(|v| v.max(0.0)).collect() };
    let plain = |x: &[f32]| {
        let g = relu(layer(&network, "g", x, [256, 1, 1]));
        layer(&network, "h", &g, [256, 1, 1])
    };
    for isa in Isa::available() {
        for batch in [1, 2, 3, 5, 6, 64] {
            let options = |int8| PlanOptions {
                batch,
                ..options(isa, int8)
            };
            let plan = |int8| Plan::new(&network, &options(int8)).unwrap();
            let chosen = plan(Int8Mode::Always);
            assert_eq!(in_int8(&chosen), ["g", "h"], "{isa}, batch {batch}");
            let layout = if batch < 6 { "single" } else { "tiled" };
            assert!(
                chosen
                    .nodes()
                    .iter()
                    .filter(|n| n.is_int8)
                    .all(|n| n.layout == layout)
            );
            if batch > 1 {
                let floats = plan(Int8Mode::Never);
                let kernel = &floats.nodes()[0].kernel;
                assert!(kernel.contains("panels"), "{isa}, batch {batch}\n{floats}");
            }
            let x = Stream(batch as u64).floats(batch * 256);
            let want: Vec<f32> = x.chunks_exact(256).flat_map(plain).collect();
            let mut y = vec![f32::NAN; batch * 64];
            let session = Session::new(chosen, 1).unwrap();
            session.run(batch, &x, &mut y).unwrap();
            assert_eq!(y, want, "{isa}, batch {batch}");
        }
    }
}

/// Each thread has scratch for its bytes, and whole tiles of 64 vectors.
#[test]
fn threads_share_a_sequence_in_int8_and_change_no_bit() {
    let mut b = GraphBuilder::new("sequence");
    let x = b.free_input(Input::with_free("x", [0, 256], 0, "length"));
    let x = b.linear("g", &x, 256);
    let x = b.op("g.relu", Op::Relu, &[&x]);
    let x = b.linear("h", &x, 256);
    b.output(&x);
    let mut network = with_grids(b, 4, 0.4);
    for input in network.int8.inputs.values_mut() {
        *input = Int8Input::PerVector;
    }
    for isa in Isa::available() {
        let plan = |threads, length| {
            let options = PlanOptions {
                batch: 1,
                threads,
                length,
                ..options(isa, Int8Mode::Always)
            };
            Plan::new(&network, &options).unwrap()
        };
        // A single tile of bytes is not shared, except where bytes are looked up: there threads share it 16 vectors at a time.
        let tile = plan(3, 64);
        let parts = if Dot::of(isa).looks_up() { 3 } else { 1 };
        let layers = tile.nodes().iter().filter(|n| n.is_int8);
        let layers: Vec<_> = layers.map(|n| (n.name.as_str(), n.parts)).collect();
        assert_eq!(layers, [("g", parts), ("h", parts)], "{tile}");
        let session = |threads| Session::new(plan(threads, 200), threads).unwrap();
        let [one, two, three] = [1, 2, 3].map(session);
        for (session, threads) in [(&two, 2), (&three, 3)] {
            let shared = |name| {
                let mut nodes = session.plan().nodes().iter();
                nodes.any(|n| n.name == name && n.is_int8 && n.parts == threads)
            };
            assert!(shared("g") && shared("h"), "{}", session.plan());
        }
        for length in [5, 64, 65, 100, 128, 129, 256] {
            let x = Stream(length as u64).floats(length * 256);
            let run = |session: &Session| {
                let mut y = vec![f32::NAN; length * 256];
                session.run(1, &x, &mut y).unwrap();
                y
            };
            let want = run(&one);
            assert!(want.iter().all(|y| y.is_finite()));
            for session in [&two, &three] {
                assert!(run(session) == want, "length {length} on {isa}");
            }
        }
    }
}

#[test]
fn int8_is_multiplied_only_where_the_file_and_the_options_say() {
    let network = network(6);
    let mut bare = network.clone();
    bare.int8 = Default::default();
    let plan = |network: &Network, options: PlanOptions| Plan::new(network, &options).unwrap();
    for isa in Isa::available() {
        let [always, never] = [Int8Mode::Always, Int8Mode::Never].map(|int8| options(isa, int8));
        assert!(in_int8(&plan(&bare, always)).is_empty());
        let f32 = plan(&network, never);
        assert!(in_int8(&f32).is_empty());
        let kernels = |plan: &Plan| -> Vec<String> {
            plan.nodes().iter().map(|n| n.kernel.clone()).collect()
        };
        assert_eq!(kernels(&f32), kernels(&plan(&bare, always)));
        let dense = PlanOptions {
            weights: WeightMode::Dense,
            ..always
        };
        assert!(in_int8(&plan(&network, dense)).is_empty());
        // Plain Rust is not faster in int8.
        let faster = plan(&network, options(isa, Int8Mode::Faster));
        assert!(
            isa != Isa::SCALAR || in_int8(&faster).is_empty(),
            "{faster}"
        );
        let text = plan(&network, always).to_string();
        assert!(text.contains("6 of 6 layers multiply int8"), "{text}");
    }
}

#[test]
fn a_sample_has_the_same_outputs_wherever_it_is_in_a_batch() {
    let network = mlp(0.1);
    let x = Stream(3).floats(256);
    for isa in Isa::available() {
        let want = layer(&network, "g", &x, [0; 3]);
        let want: Vec<f32> = want.iter().map(|v| v.max(0.0)).collect();
        let want = layer(&network, "h", &want, [0; 3]);
        for batch in 64..=71 {
            let options = PlanOptions {
                batch,
                ..options(isa, Int8Mode::Always)
            };
            let session = Session::new(Plan::new(&network, &options).unwrap(), 1).unwrap();
            let mut y = vec![0.0; batch * 64];
            session.run(batch, &x.repeat(batch), &mut y[..]).unwrap();
            assert!(y.chunks(64).all(|y| *y == want[..]), "{batch} on {isa}");
        }
    }
}

/// Share of the time of f32 below which small layers gain, too: that of instructions which sum four products.
const FAST: f64 = 0.6;

#[test]
fn linear_layers_that_should_be_faster_so_multiply_int8() {
    let network = mlp(0.2);
    for isa in Isa::available() {
        let plan = Plan::new(&network, &options(isa, Int8Mode::Faster)).unwrap();
        let chosen = in_int8(&plan);
        // Making bytes of the input counts for more in the smaller layer.
        match Dot::of(isa).shares().spmm {
            share if share < FAST => assert_eq!(chosen, ["g", "h"], "{isa}: {plan}"),
            share if share < 1.0 => assert!(chosen.contains(&"g"), "{isa}: {plan}"),
            _ => assert!(chosen.is_empty(), "{isa}: {plan}"),
        }
    }
}

/// On a machine without instructions for bytes, or with slow ones, the built-in costs never choose int8, and always do where it was measured to be faster.
#[test]
fn int8_is_multiplied_where_it_was_measured_to_be_faster() {
    let costs = |shares: Int8Shares| Costs {
        int8: Some(shares.of(&Costs::default())),
        ..Costs::default()
    };
    let fast = Int8Shares {
        spmm: 0.1,
        conv: 0.1,
        all: 0.02,
    };
    let slow = Int8Shares {
        spmm: 20.0,
        conv: 20.0,
        all: 20.0,
    };
    for isa in Isa::available() {
        let plan = |network: &Network, batch, costs| {
            let options = PlanOptions {
                batch,
                costs,
                ..options(isa, Int8Mode::Faster)
            };
            Plan::new(network, &options).unwrap()
        };
        for batch in [1, 64] {
            let chosen = plan(&mlp(0.5), batch, costs(fast));
            assert_eq!(in_int8(&chosen), ["g", "h"], "{isa}: {chosen}");
            let chosen = plan(&over_blocks(3), batch, costs(fast));
            assert!(!in_int8(&chosen).is_empty(), "{isa}: {chosen}");
            for network in [mlp(0.5), over_blocks(3)] {
                let chosen = plan(&network, batch, costs(slow));
                assert!(in_int8(&chosen).is_empty(), "{isa}: {chosen}");
            }
        }
    }
    let built_in = Plan::new(&mlp(0.5), &options(Isa::SCALAR, Int8Mode::Faster)).unwrap();
    assert!(in_int8(&built_in).is_empty(), "{built_in}");
}

#[test]
fn a_border_of_gigabytes_is_refused() {
    let mut b = GraphBuilder::new("border");
    let x = b.input("x", [1, 4, 4]);
    let window = Window {
        kernel_shape: [3, 3],
        strides: [1, 1],
        pads: [20_000; 4],
        dilations: [20_000; 2],
    };
    let x = b.conv("i", &x, &Conv2d::new(2, window));
    b.output(&x);
    let network = with_grids(b, 2, 0.5);
    for int8 in [Int8Mode::Always, Int8Mode::Never] {
        for batch in [1, 64] {
            let options = PlanOptions {
                batch,
                ..options(Isa::best(), int8)
            };
            let error = Plan::new(&network, &options).unwrap_err().to_string();
            assert!(error.contains("40004x40004 of 4x4 (node `i`)"), "{error}");
        }
    }
}

#[test]
fn a_weight_that_left_its_grid_is_refused() {
    let mut network = network(7);
    let Weights::Csr(csr) = &network.tensors["c.weight"] else {
        unreachable!()
    };
    let moved = csr.map_values(|row, v| if row == 2 { v * 1.01 } else { v });
    network.tensors.insert("c.weight".into(), moved.into());
    let error = Plan::new(&network, &options(Isa::best(), Int8Mode::Faster)).unwrap_err();
    assert!(matches!(error, RuntimeError::Model(_)), "{error}");
    assert!(error.to_string().contains("`c.weight`"), "{error}");
}
