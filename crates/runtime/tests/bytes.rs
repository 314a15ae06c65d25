//! Plans of networks with layers in bytes, exactly as plain loops compute them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sparsevd_kernels::Isa;
use sparsevd_model::{
    ByteGrid, Conv2d, Csr, Dense, GraphBuilder, Network, Op, Weights, Window, ops, quantised,
};
use sparsevd_runtime::{ByteMode, Plan, PlanOptions, RuntimeError, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

/// Channels and sides of the input.
const INPUT: [usize; 3] = [5, 10, 10];
const CLASSES: usize = 7;

/// Convolutions with a border, a pooling, strides and a residual, a 1x1 convolution and linear layers.
fn network(seed: u64) -> Network {
    let mut b = GraphBuilder::new("bytes");
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
    let mut stream = Stream(seed);
    let network = b.network(|name, shape| match name.ends_with("weight") {
        true => Weights::Csr(Csr::from_dense(&stream.bernoulli(shape.clone(), 0.3))),
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
        let input = ByteGrid {
            scale: 0.015625,
            zero_point: [3, 128, 0, 255][i % 4],
        };
        network.set_bytes(&node.name, input, rows).unwrap();
    }
    network
}

/// A layer in bytes by plain loops, without what was fused behind it.
fn layer(network: &Network, name: &str, x: &[f32], input: [usize; 3]) -> Vec<f32> {
    let node = network.graph.nodes.iter().find(|n| n.name == name).unwrap();
    let layer = network
        .byte_layer(name, node.op.weight().unwrap())
        .unwrap()
        .unwrap();
    let bias = network.bias(node).unwrap();
    let (window, [c, h, w]) = match &node.op {
        Op::Conv(conv) => (conv.window.clone(), input),
        _ => (Window::square(1, 1), [x.len(), 1, 1]),
    };
    let ([oh, ow], [kh, kw]) = (window.output(h, w).unwrap(), window.kernel_shape);
    assert_eq!(layer.levels.cols(), c * kh * kw);
    let mut y = Vec::new();
    for row in 0..layer.levels.rows() {
        for (oy, ox) in (0..oh * ow).map(|i| (i / ow, i % ow)) {
            let (columns, levels) = layer.levels.row(row);
            let mut sum = 0;
            for (&k, &level) in columns.iter().zip(levels) {
                let (ic, ky, kx) = (
                    k as usize / (kh * kw),
                    k as usize / kw % kh,
                    k as usize % kw,
                );
                let iy = (oy * window.strides[0] + ky).wrapping_sub(window.pads[0]);
                let ix = (ox * window.strides[1] + kx).wrapping_sub(window.pads[1]);
                if iy < h && ix < w {
                    let byte = layer.input.byte(x[(ic * h + iy) * w + ix]);
                    sum += level as i32 * (i32::from(byte) - i32::from(layer.input.zero_point));
                }
            }
            let scale = layer.rows[row] * layer.input.scale;
            y.push((sum as f32).mul_add(scale, bias[row]));
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

fn options(isa: Isa, bytes: ByteMode) -> PlanOptions {
    PlanOptions {
        isa,
        bytes,
        batch: 64,
        ..PlanOptions::default()
    }
}

fn in_bytes(plan: &Plan) -> Vec<&str> {
    let nodes = plan.nodes().iter().filter(|n| n.in_bytes);
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
                ..options(isa, ByteMode::Always)
            };
            let plan = Plan::new(&network, &options).unwrap();
            assert_eq!(
                in_bytes(&plan),
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

#[test]
fn bytes_are_multiplied_only_where_the_file_and_the_options_say() {
    let network = network(6);
    let mut bare = network.clone();
    bare.bytes = Default::default();
    let plan = |network: &Network, options: PlanOptions| Plan::new(network, &options).unwrap();
    for isa in Isa::available() {
        let [always, never] = [ByteMode::Always, ByteMode::Never].map(|bytes| options(isa, bytes));
        assert!(in_bytes(&plan(&bare, always)).is_empty());
        let f32 = plan(&network, never);
        assert!(in_bytes(&f32).is_empty());
        let kernels = |plan: &Plan| -> Vec<String> {
            plan.nodes().iter().map(|n| n.kernel.clone()).collect()
        };
        assert_eq!(kernels(&f32), kernels(&plan(&bare, always)));
        let dense = PlanOptions {
            weights: WeightMode::Dense,
            ..always
        };
        assert!(in_bytes(&plan(&network, dense)).is_empty());
        // Plain Rust is not faster in bytes.
        let faster = plan(&network, options(isa, ByteMode::Faster));
        assert!(
            isa != Isa::SCALAR || in_bytes(&faster).is_empty(),
            "{faster}"
        );
        let text = plan(&network, always).to_string();
        assert!(text.contains("6 of 6 layers multiply bytes"), "{text}");
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
    let error = Plan::new(&network, &options(Isa::best(), ByteMode::Faster)).unwrap_err();
    assert!(matches!(error, RuntimeError::Model(_)), "{error}");
    assert!(error.to_string().contains("`c.weight`"), "{error}");
}
