//! Networks on grids.

use sparsevd_format::PackOptions;
use sparsevd_model::{Graph, Int8Grid, Network, Shape, Weights, presets, quantised};

use crate::networks;

/// Rounds every tensor to a grid of some 5 bits.
pub fn quantise(mut network: Network) -> Network {
    let names: Vec<String> = network.tensors.keys().cloned().collect();
    for name in names {
        let most = network.tensors[&name]
            .values()
            .iter()
            .fold(0.0_f32, |m, v| m.max(v.abs()));
        let scale = quantised::nearest_scale((most / 12.0).max(1e-3), 4).unwrap();
        quantise_tensor(&mut network, &name, scale);
    }
    network
}

pub fn quantise_tensor(network: &mut Network, name: &str, scale: f32) {
    let tensor = network.tensors.get_mut(name).unwrap();
    let mut dense = tensor.to_dense();
    for v in &mut dense.values {
        *v = quantised::value((*v / scale).round() as i32, scale);
    }
    *tensor = match tensor {
        Weights::Csr(_) => Weights::Csr(sparsevd_model::Csr::from_dense(&dense)),
        _ => Weights::Dense(dense),
    };
    network.set_scale(name, scale).unwrap();
}

pub fn preset(name: &str, seed: u64, density: f64) -> Network {
    let (graph, tensors) = presets::by_name(name).unwrap();
    quantise(networks::fill(graph, &tensors, seed, density, |i| {
        i % 4 != 2
    }))
}

/// The same network, whose layers with sparse weights of at most 127 times their scale may run in int8.
pub fn in_int8(mut network: Network) -> Network {
    let nodes: Vec<_> = network.graph.weighted_nodes().cloned().collect();
    for (i, node) in nodes.iter().enumerate() {
        let weight = node.op.weight().unwrap();
        let rows = vec![network.scales[weight]; network.tensors[weight].shape().matrix().0];
        let zero_point = if i % 2 == 0 { 0 } else { 100 + i as u8 };
        let scale = quantised::nearest_scale(0.013 * (1 + i) as f32, 16).unwrap();
        let grid = Int8Grid { scale, zero_point };
        // What cannot is without a grid, which a file has to tell apart.
        network.set_int8(&node.name, grid, rows).ok();
    }
    assert!(!network.int8.is_empty());
    network
}

/// LeNet-300-100 compacted to 30 and 20 units.
pub fn narrow() -> Network {
    let (graph, tensors) = presets::by_name("lenet-300-100").unwrap();
    let shapes = [[30, 784], [30, 0], [20, 30], [20, 0], [10, 20], [10, 0]];
    let shapes = shapes.map(|[rows, cols]| {
        if cols > 0 {
            vec![rows, cols]
        } else {
            vec![rows]
        }
    });
    let names = tensors.iter().map(|(name, _)| name.clone());
    let small: Vec<(String, Shape)> = names.zip(shapes.map(Shape)).collect();
    let mut network = quantise(networks::fill(graph, &small, 9, 0.03, |_| true));
    network.original_shapes.extend(
        tensors
            .into_iter()
            .filter(|(_, shape)| shape.dims().len() > 1),
    );
    network
}

/// A chain two thirds of whose hidden units have no weights and no bias; what reads them is zero, but for one column of each layer.
pub fn with_dead_units(mut network: Network) -> Network {
    let nodes: Vec<_> = network.graph.weighted_nodes().cloned().collect();
    let matrix = |name: &str| network.tensors[name].shape().matrix();
    let weights: Vec<&str> = nodes.iter().filter_map(|n| n.op.weight()).collect();
    let shapes: Vec<(usize, usize)> = weights.iter().map(|w| matrix(w)).collect();
    let mut change = |name: &str, f: &dyn Fn(usize, usize) -> bool| {
        let tensor = network.tensors.get_mut(name).unwrap();
        let mut dense = tensor.to_dense();
        let cols = match dense.shape.dims().len() {
            1 => 1,
            _ => dense.shape.matrix().1,
        };
        let elements = dense.values.iter_mut().enumerate();
        for (_, v) in elements.filter(|(i, _)| f(i / cols, i % cols)) {
            *v = 0.0;
        }
        *tensor = match tensor {
            Weights::Csr(_) => Weights::Csr(sparsevd_model::Csr::from_dense(&dense)),
            _ => dense.into(),
        };
    };
    for i in 1..nodes.len() {
        change(weights[i - 1], &|row, _| row % 3 != 0);
        change(nodes[i - 1].op.bias().unwrap(), &|row, _| row % 3 != 0);
        let cols = shapes[i].1 / shapes[i - 1].0;
        change(weights[i], &|_, column| {
            !(column / cols).is_multiple_of(3) && column != cols
        });
    }
    network
}

pub const AS_IT_IS: PackOptions = PackOptions {
    keep_unit_order: true,
    ..PackOptions::small()
};

/// Two convolutions with padding, groups, a residual sum, odd names, a weight used twice and no bias somewhere.
pub fn residual() -> Network {
    let graph: Graph = serde_json::from_value(serde_json::json!({
        "name": "d\u{e9}j\u{e0} vu",
        "inputs": [{"name": "image", "shape": [3, 6, 5]}, {"name": "unused", "shape": [7]}],
        "nodes": [
            {"name": "stem", "inputs": ["image"], "op": "Conv", "weight": "stem.weight", "bias": "offset",
             "kernel_shape": [3, 2], "strides": [1, 1], "pads": [1, 1, 1, 0], "groups": 1},
            {"name": "a", "inputs": ["stem"], "op": "Conv", "weight": "filters", "kernel_shape": [3, 3],
             "pads": [2, 2, 2, 2], "dilations": [2, 2], "groups": 2},
            {"name": "b", "inputs": ["a"], "op": "Relu"},
            {"name": "c", "inputs": ["b"], "op": "Conv", "weight": "filters", "kernel_shape": [3, 3],
             "pads": [1, 1, 1, 1], "groups": 2},
            {"name": "sum", "inputs": ["c", "stem"], "op": "Add"},
            {"name": "mean", "inputs": ["sum"], "op": "AveragePool", "kernel_shape": [2, 2], "strides": [2, 1]},
            {"name": "all", "inputs": ["mean"], "op": "GlobalAveragePool"},
            {"name": "flat", "inputs": ["all"], "op": "Flatten"},
            {"name": "head", "inputs": ["flat"], "op": "Linear", "weight": "head.weight", "bias": "head.bias"},
            {"name": "classes", "inputs": ["head"], "op": "Softmax"}
        ],
        "outputs": ["classes", "sum"],
        "preprocessing": {"scale": 0.0078125, "mean": [0.5, 0.25, 0.125], "std": [0.25, 0.5, 1.0]}
    }))
    .unwrap();
    let shape = |dims: &[usize]| Shape(dims.to_vec());
    let tensors = [
        ("stem.weight".to_owned(), shape(&[4, 3, 3, 2])),
        ("offset".to_owned(), shape(&[4])),
        ("filters".to_owned(), shape(&[4, 2, 3, 3])),
        ("head.weight".to_owned(), shape(&[10, 4])),
        ("head.bias".to_owned(), shape(&[10])),
    ];
    let mut network = quantise(networks::fill(graph, &tensors, 8, 0.4, |i| i % 2 == 0));
    network
        .original_shapes
        .insert("head.weight".into(), shape(&[10, 9]));
    network
}

/// Layer normalisations of a map and of rows, and slopes of channels, with tensors of odd names, one of them smaller than it was and one used twice.
pub fn with_plain_tensors() -> Network {
    let graph: Graph = serde_json::from_value(serde_json::json!({
        "name": "normalised",
        "inputs": [{"name": "x", "shape": [2, 3, 4]}],
        "nodes": [
            {"name": "n1", "inputs": ["x"], "op": "LayerNormalization", "scale": "n1.weight", "bias": "n1.bias", "dimensions": 3,
             "epsilon": 1e-5},
            {"name": "n2", "inputs": ["n1"], "op": "LayerNormalization", "scale": "factors", "dimensions": 1, "epsilon": 0.5},
            {"name": "n3", "inputs": ["n2"], "op": "LayerNormalization", "scale": "factors", "bias": "summands",
             "dimensions": 1, "epsilon": 0.5},
            {"name": "p", "inputs": ["n3"], "op": "PRelu", "slope": "slopes"},
            {"name": "flat", "inputs": ["p"], "op": "Flatten"},
            {"name": "head", "inputs": ["flat"], "op": "Linear", "weight": "head.weight", "bias": "head.bias"}
        ],
        "outputs": ["head"]
    }))
    .unwrap();
    let plain = ["slopes", "n1.weight", "n1.bias", "factors", "summands"];
    let shapes: [&[usize]; 7] = [
        &[2, 1, 1],
        &[2, 3, 4],
        &[2, 3, 4],
        &[4],
        &[4],
        &[4, 24],
        &[4],
    ];
    let names = plain.into_iter().chain(["head.weight", "head.bias"]);
    let tensors: Vec<(String, Shape)> = names
        .zip(shapes)
        .map(|(name, dims)| (name.to_owned(), Shape(dims.to_vec())))
        .collect();
    let mut network = networks::fill(graph, &tensors, 9, 1.0, |_| false);
    for name in ["head.weight", "head.bias"] {
        quantise_tensor(&mut network, name, 0.125);
    }
    network
        .original_shapes
        .insert("summands".into(), Shape::from([9]));
    network
}

/// Rows of two tables by the same ids, reshaped and transposed before a convolution.
pub fn of_ids(dtype: &str) -> Network {
    let graph: Graph = serde_json::from_value(serde_json::json!({
        "name": "ids",
        "inputs": [{"name": "numbers", "shape": [2]}, {"name": "ids", "shape": [4], "dtype": dtype}],
        "nodes": [
            {"name": "rows", "inputs": ["ids"], "op": "Embedding", "table": "rows.weight"},
            {"name": "others", "inputs": ["ids"], "op": "Embedding", "table": "words"},
            {"name": "sum", "inputs": ["rows", "others"], "op": "Add"},
            {"name": "turned", "inputs": ["sum"], "op": "Transpose", "perm": [1, 0]},
            {"name": "map", "inputs": ["turned"], "op": "Reshape", "shape": [3, 1, 4]},
            {"name": "c", "inputs": ["map"], "op": "Conv", "weight": "c.weight", "bias": "c.bias", "kernel_shape": [1, 2]},
            {"name": "flat", "inputs": ["c"], "op": "Reshape", "shape": [6]},
            {"name": "all", "inputs": ["flat", "numbers"], "op": "Concat"},
            {"name": "head", "inputs": ["all"], "op": "Linear", "weight": "head.weight", "bias": "head.bias"}
        ],
        "outputs": ["head"]
    }))
    .unwrap();
    let shapes: [(&str, &[usize]); 6] = [
        ("rows.weight", &[5, 3]),
        ("words", &[9, 3]),
        ("c.weight", &[2, 3, 1, 2]),
        ("c.bias", &[2]),
        ("head.weight", &[3, 8]),
        ("head.bias", &[3]),
    ];
    let tensors = shapes.map(|(name, dims)| (name.to_owned(), Shape(dims.to_vec())));
    let mut network = networks::fill(graph, &tensors, 11, 1.0, |_| false);
    for (name, _) in &shapes[2..] {
        quantise_tensor(&mut network, name, 0.125);
    }
    network
}

/// LeNet-5 as it is after compaction, with large numbers, an untouched grid and zeros.
pub fn compact() -> Network {
    let (graph, tensors) = presets::by_name("lenet-5").unwrap();
    let rows = |name: &str| match &name[..4] {
        "conv" => {
            if name.starts_with("conv1") {
                7
            } else {
                11
            }
        }
        _ => {
            if name.starts_with("fc1") {
                23
            } else {
                10
            }
        }
    };
    let mut before = 1;
    let mut small = Vec::new();
    for (name, shape) in &tensors {
        let mut dims = shape.dims().to_vec();
        dims[0] = rows(name);
        match dims.len() {
            4 => dims[1] = before,
            2 if name.starts_with("fc1") => dims[1] = before * 16,
            2 => dims[1] = before,
            _ => before = dims[0],
        }
        small.push((name.clone(), Shape(dims)));
    }
    let mut network = networks::fill(graph, &small, 11, 0.1, |_| true);
    for (i, (name, shape)) in tensors.into_iter().enumerate() {
        let scale =
            quantised::nearest_scale([0.3, 1e-4, 0.002, 0.011][i % 4], [1, 4, 8, 16][i / 2])
                .unwrap();
        quantise_tensor(&mut network, &name, scale);
        if shape.dims().len() > 1 {
            network.original_shapes.insert(name, shape);
        }
    }
    network.original_shapes.remove("conv1.weight");
    let original = Shape::from([20, 1, 5, 5]);
    network
        .original_shapes
        .insert("conv1.weight".into(), original);
    network
}
