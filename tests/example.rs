//! `examples/compress.rs`, on a data set of a few images.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/compress.rs"]
#[allow(dead_code, reason = "the program around the example")]
mod example;

use std::path::Path;

use sparsevd::format::{GraphSource, WriteOptions, read_network, write_network};
use sparsevd::model::{Preprocessing, Shape, presets};

/// Side of the images.
const SIDE: usize = 4;

const RECIPE: &str = "\
validation = 20

[[phase]]
method = \"sparse-vd\"
epochs = 8
batch = 10
lr = 1e-2
lr_log_sigma2 = 1e-1
kl_scale = 0.5

[[phase]]
method = \"quantise\"
epochs = 1
batch = 10
";

/// IDX files of two classes, bright on the left and on the right.
fn write_data(folder: &Path) {
    let write = |name: String, dims: &[usize], data: Vec<u8>| {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| (*d as u32).to_be_bytes()));
        bytes.extend(data);
        std::fs::write(folder.join(name), bytes).unwrap();
    };
    std::fs::create_dir(folder).unwrap();
    for (part, count) in [("train", 120), ("t10k", 30)] {
        let pixels = (0..count * SIDE * SIDE).map(|i| {
            let (image, column) = (i / (SIDE * SIDE), i % SIDE);
            let bright = usize::from(column >= SIDE / 2) == image % 2;
            (i * 7 % 60) as u8 + if bright { 150 } else { 0 }
        });
        let labels = (0..count).map(|i| (i % 2) as u8);
        let images = [count, SIDE, SIDE];
        write(
            format!("{part}-images-idx3-ubyte"),
            &images,
            pixels.collect(),
        );
        write(
            format!("{part}-labels-idx1-ubyte"),
            &[count],
            labels.collect(),
        );
    }
}

#[test]
fn the_example_compresses() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["net.safetensors", "data", "recipe.toml", "out.safetensors"];
    let [model, data, recipe, out] = paths.map(|name| folder.path().join(name));
    let (graph, shapes) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[8, 2]);
    let mut network = sparsevd::compressor::initialise(graph, &shapes, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing::default());
    write_network(&model, &network, &WriteOptions::default()).unwrap();
    write_data(&data);
    std::fs::write(&recipe, RECIPE).unwrap();

    let [model, data, recipe, named] =
        [&model, &data, &recipe, &out].map(|path| path.to_str().unwrap());
    example::compress(model, data, recipe, named).unwrap();
    let sparse = read_network(&out, &GraphSource::Auto).unwrap().network;
    let (left, all) = (sparse.nonzeros(), network.nonzeros());
    assert!(0 < left && left < all / 2, "{left} of {all} weights");
    assert!(out.with_file_name("out.spvd").is_file());
    assert!(out.with_file_name("out.report.json").is_file());
    // Another run of the same is the same.
    let again = folder.path().join("again.safetensors");
    example::compress(model, data, recipe, again.to_str().unwrap()).unwrap();
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap());
}
