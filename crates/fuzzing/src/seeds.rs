//! What targets begin with: small whole files of each kind, made here or taken from the golden files of the repository.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use safetensors::tensor::{Dtype, TensorView, serialize};
use sparsevd_compressor::frame::files as frame_files;
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::report::{Report, RunRecord, SCHEMA, Task};
use sparsevd_compressor::trainer::{Observer, RunOptions, Trainer};
use sparsevd_compressor::{TrainingData, checkpoint as checkpoint_files, initialise};
use sparsevd_format::{
    CsrProfile, Dataset, PackOptions, PackProfile, Pixels, WriteOptions, pack, write_network_bytes,
    write_npy, write_npz,
};
use sparsevd_kernels::Isa;
use sparsevd_kernels::cost::Costs;
use sparsevd_model::quantised::{self, RowBits};
use sparsevd_model::{
    Column, Conv2d, DType, GraphBuilder, Input, Network, Op, Preprocessing, Shape, Table, Window,
    ops,
};
use sparsevd_onnx::{ExportOptions, write_onnx_bytes};
use sparsevd_testing::arbitrary::Stream;

use crate::place::Place;

/// A folder of the repository.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

/// The files of a folder of the repository that end in `ending`, up to `most` bytes each.
fn golden(name: &str, ending: &str, most: u64) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder(name)).expect("golden files").flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    let is_small = |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.len() <= most);
    paths.retain(is_small);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Weights on a grid of sixteenths, of which a share is left.
fn fill(builder: GraphBuilder, density: f64, seed: u64) -> Network {
    let mut random = Stream(seed);
    let network = builder.network(|name, shape| {
        let mut dense = match shape.dims().len() {
            1 => random.bernoulli(shape.clone(), 1.0),
            _ => random.bernoulli(shape.clone(), density),
        };
        for value in &mut dense.values {
            *value = (*value * 16.0).round() / 16.0;
            if name.ends_with("variance") {
                *value = value.abs() + 1.0;
            }
        }
        match shape.dims().len() {
            1 => dense.into(),
            // Only the weights of layers are sparse in files.
            _ if name == "table" => dense.into(),
            _ => sparsevd_model::Csr::from_dense(&dense).into(),
        }
    });
    network.expect("a network")
}

/// Two layers for vectors of six.
pub(crate) fn perceptron() -> Network {
    let mut b = GraphBuilder::new("perceptron");
    let preprocessing = Preprocessing::default();
    b.preprocessing(preprocessing);
    let x = b.input("input", [6]);
    let x = b.linear("fc1", &x, 4);
    let x = b.op("relu", Op::Relu, &[&x]);
    b.linear("fc2", &x, 3);
    fill(b, 0.5, 1)
}

/// Convolutions of every kind, poolings, and a sum of two branches.
fn images() -> Network {
    let mut b = GraphBuilder::new("images");
    let x = b.input("input", [2, 9, 8]);
    let x = b.conv("first", &x, &Conv2d::square(8, 3).padding(1));
    let x = b.op("r1", Op::Relu, &[&x]);
    let y = b.conv("depthwise", &x, &Conv2d::square(8, 3).padding(1).groups(8));
    let y = b.op(
        "clip",
        Op::Clip(ops::Clip {
            min: Some(-1.0),
            max: Some(6.0),
        }),
        &[&y],
    );
    let y = b.conv("pointwise", &y, &Conv2d::square(8, 1).without_bias());
    let x = b.op("sum", Op::Add, &[&x, &y]);
    let x = b.op(
        "max",
        Op::MaxPool(ops::MaxPool {
            window: Window::square(2, 2),
        }),
        &[&x],
    );
    let x = b.conv("grouped", &x, &Conv2d::square(4, 2).stride(2).groups(2));
    let x = b.op("swish", Op::HardSwish, &[&x]);
    let mean = ops::AveragePool {
        window: Window::square(2, 1),
    };
    let x = b.op("mean", Op::AveragePool(mean), &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    b.linear("scores", &x, 5);
    fill(b, 0.3, 2)
}

/// What exporters write around layers.
fn normalised() -> Network {
    let mut b = GraphBuilder::new("normalised");
    let x = b.input("input", [3, 5, 5]);
    let pad = ops::Pad {
        pads: [1, 0, 1, 2],
        value: 0.5,
    };
    let x = b.op("pad", Op::Pad(pad), &[&x]);
    let x = b.conv("conv", &x, &Conv2d::square(4, 3).without_bias());
    let x = b.batch_normalization("norm", &x);
    let x = b.op(
        "leaky",
        Op::LeakyRelu(ops::LeakyRelu { alpha: 0.125 }),
        &[&x],
    );
    let gate = b.op("gate", Op::GlobalAveragePool, &[&x]);
    let gate = b.op("sigmoid", Op::Sigmoid, &[&gate]);
    let y = b.op("scaled", Op::Mul, &[&x, &gate]);
    let x = b.op("both", Op::Concat(ops::Concat { axis: 0 }), &[&x, &y]);
    let perm = vec![2, 0, 1];
    let x = b.op("turned", Op::Transpose(ops::Transpose { perm }), &[&x]);
    let shape = vec![20, 10];
    let x = b.op("rows", Op::Reshape(ops::Reshape { shape }), &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("scores", &x, 6);
    let x = b.op("tanh", Op::Tanh, &[&x]);
    b.op("softmax", Op::Softmax(ops::Softmax { axis: 0 }), &[&x]);
    fill(b, 0.4, 3)
}

/// A free dimension, two inputs and two outputs.
fn sequence() -> Network {
    let mut b = GraphBuilder::new("sequence");
    let words = b.free_input(Input::with_free("words", [0, 8], 0, "length"));
    let context = b.input("context", [5]);
    let wide = b.linear("wide", &words, 20);
    let approximate = sparsevd_model::Approximate::Tanh;
    let wide = b.op("gelu", Op::Gelu(ops::Gelu { approximate }), &[&wide]);
    let scale = b.tensor("norm.scale", [20]);
    let norm = ops::LayerNormalization {
        scale,
        bias: None,
        dimensions: 1,
        epsilon: 0.125,
    };
    let normal = b.op("norm", Op::LayerNormalization(norm), &[&wide]);
    let tags = b.linear("tags", &normal, 6);
    let topic = b.linear("topic", &context, 4);
    b.output(&tags);
    b.output(&topic);
    fill(b, 0.2, 4)
}

/// Rows of a table of integers of so many bits by ids of any number.
fn ids(bits: RowBits) -> Network {
    let mut b = GraphBuilder::new("ids");
    let ids = Input::with_free("ids", [0], 0, "length").of(DType::I64);
    let ids = b.free_input(ids);
    let table = b.tensor("table", [11, 6]);
    let x = b.op("rows", Op::Embedding(ops::Embedding { table }), &[&ids]);
    let x = b.op("relu", Op::Relu, &[&x]);
    b.linear("tags", &x, 3);
    let mut network = fill(b, 0.6, 6);
    // With a scale for each row, in files and in the kernel.
    if let Some(table) = network.tensors.get_mut("table") {
        let mut dense = table.to_dense();
        quantised::round_rows(&mut dense.values, 6, bits).expect("small numbers");
        *table = dense.into();
    }
    network
}

/// Ids of a fixed number, whose rows become a map.
fn map_of_ids() -> Network {
    let mut b = GraphBuilder::new("map");
    let ids = b.free_input(Input::new("ids", [8]).of(DType::I32));
    let table = b.tensor("table", [7, 3]);
    let x = b.op("rows", Op::Embedding(ops::Embedding { table }), &[&ids]);
    let shape = vec![4, 6];
    let x = b.op("wide", Op::Reshape(ops::Reshape { shape }), &[&x]);
    let perm = vec![1, 0];
    let x = b.op("turned", Op::Transpose(ops::Transpose { perm }), &[&x]);
    let shape = vec![6, 1, 4];
    let x = b.op("map", Op::Reshape(ops::Reshape { shape }), &[&x]);
    let x = b.conv("c", &x, &Conv2d::square(3, 1));
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("fc", &x, 2);
    b.op("p", Op::Softmax(ops::Softmax::default()), &[&x]);
    fill(b, 0.6, 8)
}

/// A wide sparse layer, for the kernels of many columns.
fn wide() -> Network {
    let mut b = GraphBuilder::new("wide");
    let x = b.input("input", [96]);
    let x = b.linear("fc1", &x, 64);
    let x = b.op("relu", Op::Relu, &[&x]);
    b.linear("fc2", &x, 10);
    fill(b, 0.05, 5)
}

pub(crate) fn networks() -> Vec<Network> {
    vec![
        perceptron(),
        images(),
        normalised(),
        sequence(),
        ids(RowBits::Eight),
        ids(RowBits::Four),
        map_of_ids(),
        wide(),
    ]
}

pub(crate) fn safetensors() -> Vec<Vec<u8>> {
    let mut all = golden("tests/golden/packed/v1", "tiny-small.safetensors", 20_000);
    for network in networks() {
        for profile in [
            CsrProfile::Compact,
            CsrProfile::Interop,
            CsrProfile::Bitmask,
        ] {
            let options = WriteOptions {
                profile,
                ..WriteOptions::default()
            };
            all.push(write_network_bytes(&network, &options).expect("a network"));
        }
        let dense = network.to_dense();
        all.push(write_network_bytes(&dense, &WriteOptions::default()).expect("a network"));
    }
    all.push(tensors());
    all
}

/// The tensors of [`perceptron`] under the names of a plain module, without a graph.
pub(crate) fn tensors() -> Vec<u8> {
    let network = perceptron();
    let bytes = |name: &str| -> Vec<u8> {
        let values = network.tensors[name].to_dense().values;
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    };
    let all: Vec<(String, Shape, Vec<u8>)> = (network.tensors.iter())
        .map(|(name, tensor)| (name.clone(), tensor.shape().clone(), bytes(name)))
        .collect();
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.dims().to_vec(), bytes);
        (name.clone(), view.expect("a tensor"))
    });
    serialize(views, None).expect("tensors")
}

pub(crate) fn packed() -> Vec<Vec<u8>> {
    let mut all = golden("tests/golden/packed/v1", ".spvd", 600);
    for mut network in networks() {
        let names = network.layer_tensors();
        let scale = quantised::nearest_scale(1.0 / 16.0, 8).expect("a scale");
        // Some values of a normalisation have no grid.
        if names
            .iter()
            .any(|name| network.set_scale(name, scale).is_err())
        {
            continue;
        }
        for profile in [PackProfile::Small, PackProfile::Large] {
            for keep_unit_order in [true, false] {
                let options = PackOptions {
                    profile,
                    keep_unit_order,
                };
                all.extend(pack(&network, &options));
            }
        }
    }
    all
}

pub(crate) fn onnx() -> Vec<Vec<u8>> {
    let mut all = golden("tests/golden/onnx", ".onnx", 20_000);
    all.extend(golden("tests/golden/onnx/quantised", ".onnx", 20_000));
    for network in networks() {
        all.push(write_onnx_bytes(&network, &ExportOptions::default()).expect("a network"));
    }
    all
}

/// The shards of [`perceptron`], by name.
pub(crate) fn shard_files() -> Vec<(String, Vec<u8>)> {
    let network = perceptron();
    let halves = [["fc1.weight", "fc1.bias"], ["fc2.weight", "fc2.bias"]];
    let all = halves.into_iter().enumerate().map(|(i, names)| {
        let tensors: Vec<(&str, Shape, Vec<u8>)> = (names.iter())
            .map(|name| {
                let dense = network.tensors[*name].to_dense();
                let bytes = dense.values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (*name, dense.shape, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.dims().to_vec(), bytes);
            (*name, view.expect("a tensor"))
        });
        let name = format!("net-{:05}-of-00002.safetensors", i + 1);
        (name, serialize(views, None).expect("tensors"))
    });
    all.collect()
}

pub(crate) fn shards() -> Vec<Vec<u8>> {
    let shard = |i: usize| format!("net-{i:05}-of-00002.safetensors");
    let index = serde_json::json!({
        "metadata": {"total_size": 160},
        "weight_map": {
            "fc1.weight": shard(1), "fc1.bias": shard(1), "fc2.weight": shard(2), "fc2.bias": shard(2),
        },
    });
    let one = serde_json::json!({"weight_map": {"fc1.weight": shard(1)}});
    [index, one]
        .map(|index| index.to_string().into_bytes())
        .into()
}

pub(crate) fn graphs() -> Vec<Vec<u8>> {
    let json = |network: Network| serde_json::to_vec(&network.graph).expect("a graph");
    networks().into_iter().map(json).collect()
}

pub(crate) fn idx() -> Vec<Vec<u8>> {
    let file = |kind: u8, dims: &[u32], data: &[u8]| {
        let mut file = vec![0, 0, kind, dims.len() as u8];
        dims.iter().for_each(|d| file.extend(d.to_be_bytes()));
        file.extend(data);
        file
    };
    let bytes: Vec<u8> = (0..48).collect();
    let mut all = vec![
        file(0x08, &[3, 4, 4], &bytes),
        file(0x08, &[48], &bytes),
        file(0x09, &[6, 8], &bytes),
        file(0x0b, &[24], &bytes),
        file(0x0c, &[2, 6], &bytes),
        file(0x0d, &[12], &bytes),
        file(0x0e, &[6, 1], &bytes),
        file(0x08, &[0, 4], &[]),
    ];
    for plain in all.clone().iter().take(3) {
        let mut packed = GzEncoder::new(vec![], Compression::best());
        packed.write_all(plain).unwrap();
        all.push(packed.finish().unwrap());
    }
    all
}

pub(crate) fn npy() -> Vec<Vec<u8>> {
    let place = Place::new();
    let path = place.path().join("a.npy");
    write_npy(&path, &[2, 3], &[0.5, 1.0, -2.0, 3.5, 1e30, 0.0]).unwrap();
    let mut all = vec![fs::read(&path).unwrap()];
    let types = [
        ("<f8", 8),
        (">f4", 4),
        ("<f2", 2),
        ("|u1", 1),
        ("|i1", 1),
        ("|b1", 1),
        ("<i2", 2),
        (">u2", 2),
        ("<i4", 4),
        ("<u4", 4),
        ("<i8", 8),
        (">u8", 8),
    ];
    for (i, (descr, size)) in types.into_iter().enumerate() {
        let order = if i % 2 == 0 { "True" } else { "False" };
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': (2, 3), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.bytes());
        file.extend((0..6 * size).map(|b| (b % 60) as u8));
        all.push(file);
    }
    all
}

pub(crate) fn npz() -> Vec<Vec<u8>> {
    let place = Place::new();
    let path = place.path().join("a.npz");
    let split = [
        ("x_train", &[4, 2][..], &[0.5; 8][..]),
        ("y_train", &[4], &[1.0; 4]),
    ];
    write_npz(&path, &split).unwrap();
    let mut all = vec![fs::read(&path).unwrap()];
    write_npz(
        &path,
        &[("x", &[2, 6], &[0.25; 12]), ("y", &[2, 3], &[0.5; 6])],
    )
    .unwrap();
    all.push(fs::read(&path).unwrap());
    all.extend(golden("tests/golden/onnx", "perceptron.npz", 20_000));
    all
}

pub(crate) fn png() -> Vec<Vec<u8>> {
    let image = |color: png::ColorType, channels: usize, filter: png::Filter| {
        let mut file = vec![];
        let mut encoder = png::Encoder::new(&mut file, 7, 5);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_filter(filter);
        let pixels: Vec<u8> = (0..7 * 5 * channels).map(|p| (p * 7) as u8).collect();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&pixels).unwrap();
        writer.finish().unwrap();
        file
    };
    vec![
        image(png::ColorType::Grayscale, 1, png::Filter::NoFilter),
        image(png::ColorType::Grayscale, 1, png::Filter::Paeth),
        image(png::ColorType::Rgb, 3, png::Filter::Sub),
        image(png::ColorType::Rgba, 4, png::Filter::Up),
    ]
}

/// The columns of a network that was trained on a table.
pub(crate) fn table() -> Table {
    let column = |name: &str, categories: &[&str]| Column {
        name: name.into(),
        categories: categories.iter().map(|c| (*c).into()).collect(),
    };
    Table {
        columns: vec![column("a", &[]), column("b", &["x", "y"])],
        target: "t".into(),
        classes: None,
    }
}

pub(crate) fn csv() -> Vec<Vec<u8>> {
    let rows = |first: &str, row: &dyn Fn(usize) -> String| {
        let rows: Vec<String> = (0..12).map(row).collect();
        format!("{first}\n{}\n", rows.join("\n")).into_bytes()
    };
    let word = |i: usize| if i.is_multiple_of(2) { "x" } else { "y" };
    vec![
        rows("a,b,t", &|i| format!("{i},{},{}.5", word(i), i * 2)),
        rows("a;b;t", &|i| format!("{}e-1;\"{}\";{}", i, word(i), i % 3)),
        rows("a\tb\tt", &|i| {
            format!("-{i}\t{}\t{}", word(i), word(i + 1))
        }),
        rows("b,a", &|i| format!("{},{i}\r", word(i))),
    ]
}

/// Files with samples or expected outputs of every kind.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let of: [fn() -> Vec<Vec<u8>>; 5] = [npy, npz, png, csv, idx];
    let mut all: Vec<Vec<u8>> = of.iter().flat_map(|of| of().into_iter().take(2)).collect();
    let place = Place::new();
    let path = place.path().join("a.npz");
    write_npz(&path, &[("x", &[2, 6], &[0.25; 12])]).unwrap();
    all.push(fs::read(&path).unwrap());
    for (input, output) in [("x", "y"), ("input", "fc2")] {
        write_npz(
            &path,
            &[(input, &[2, 6], &[0.25; 12]), (output, &[2, 3], &[0.5; 6])],
        )
        .unwrap();
        all.push(fs::read(&path).unwrap());
    }
    all.push(tensors());
    all
}

/// A recipe with every kind of phase.
fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        batch: 10,
        lr: 1e-2,
        prune_from: 1,
        ..Phase::new(method, epochs)
    };
    let mut quantise = phase(Method::Quantise, 1);
    quantise.grid = vec![0.5];
    let phases = [
        phase(Method::Dense, 1),
        phase(Method::SparseVd, 2),
        phase(Method::FineTune, 1),
        quantise,
    ];
    Recipe::new(phases.into())
}

pub(crate) fn recipes() -> Vec<Vec<u8>> {
    let mut all = vec![recipe().to_toml().into_bytes()];
    for model in fs::read_dir(folder("models")).expect("models").flatten() {
        let path = model.path().join("recipe.toml");
        all.extend(fs::read(path));
    }
    all.sort();
    all
}

/// The report that tests of pages show.
pub(crate) fn report() -> Report {
    Report::read(&folder("crates/report/tests").join("report.json")).expect("a report")
}

pub(crate) fn reports() -> Vec<Vec<u8>> {
    golden("crates/report/tests", "report.json", 100_000)
}

pub(crate) fn run_records() -> Vec<Vec<u8>> {
    let tasks = [
        Task::Compress {
            model: "/net.safetensors".into(),
            network: Some("lenet-5".into()),
        },
        Task::Convert {
            model: "/net.onnx".into(),
            network: None,
        },
        Task::Train {
            network: "graph.json".into(),
        },
    ];
    let record = |task: Task| {
        let record = RunRecord {
            schema: SCHEMA,
            version: "0.1.0".into(),
            task,
            data: "/data".into(),
            preprocessing: Some(Preprocessing::default()),
            recipe_source: "recipe.toml".into(),
            recipe: recipe(),
        };
        serde_json::to_vec(&record).unwrap()
    };
    tasks.map(record).into()
}

pub(crate) fn costs() -> Vec<Vec<u8>> {
    let names = Isa::available().into_iter().map(|isa| isa.name());
    let costs: serde_json::Map<_, _> = names
        .map(|name| {
            (
                name.to_owned(),
                serde_json::to_value(Costs::default()).unwrap(),
            )
        })
        .collect();
    let file = serde_json::json!({"schema": 1, "costs": costs});
    vec![file.to_string().into_bytes()]
}

/// Images whose brighter half is their class.
fn halves() -> Dataset {
    let mut random = Stream(1);
    let (n, side) = (60, 6);
    let mut pixels = vec![];
    for image in 0..n {
        for at in 0..side * side {
            let bright = usize::from(at % side >= side / 2) == image % 2;
            pixels.push((random.unit() * 60.0) as u8 + if bright { 150 } else { 0 });
        }
    }
    let labels = (0..n).map(|i| (i % 2) as u16).collect();
    Dataset::new(Pixels::U8(pixels), Shape::from([1, side, side]), labels).expect("images")
}

/// A convolution, a normalisation and two linear layers, with fresh weights.
fn trained() -> Network {
    let mut b = GraphBuilder::new("small");
    b.preprocessing(Preprocessing::default());
    let x = b.input("input", [1, 6, 6]);
    let x = b.conv("c", &x, &Conv2d::square(2, 3).without_bias());
    let x = b.batch_normalization("n", &x);
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("f1", &x, 3);
    let x = b.op("r2", Op::Relu, &[&x]);
    b.linear("f2", &x, 2);
    let (graph, tensors) = b.finish_with_tensors().expect("a graph");
    initialise(graph, &tensors, 1).expect("a network")
}

/// A run of a few steps, with files in a folder where there is one.
pub(crate) fn trainer(folder: Option<&Path>) -> Trainer {
    let network = trained();
    let shape = network.graph.inputs[0].shape.clone();
    let data = TrainingData::split(&halves(), 20, &shape, &Preprocessing::default(), 2);
    let options = RunOptions {
        threads: 1,
        run_folder: folder.map(Path::to_owned),
    };
    Trainer::new(&network, recipe(), data.expect("samples"), &options).expect("a run")
}

/// Stops after a number of steps.
struct Stop(u32);

impl Observer for Stop {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.0 = self.0.saturating_sub(1);
    }
    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

/// A folder of a run that was stopped after some steps.
fn stopped(steps: u32) -> Place {
    let place = Place::new();
    let mut run = trainer(Some(place.path()));
    run.run(&mut Stop(steps)).expect("a run");
    place
}

pub(crate) fn checkpoints() -> Vec<Vec<u8>> {
    let one = |steps| fs::read(checkpoint_files::path(stopped(steps).path())).unwrap();
    [2, 5, 11, 14, 18, 99].map(one).into()
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let place = stopped(99);
    let files = frame_files(place.path()).unwrap();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

pub(crate) fn posteriors() -> Vec<Vec<u8>> {
    let network = perceptron();
    let with = |noise: &str| {
        let mut all: Vec<(String, Shape, Vec<u8>)> = vec![];
        for (name, tensor) in &network.tensors {
            let dense = tensor.to_dense();
            let bytes: Vec<u8> = dense.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            match name.strip_suffix(".weight") {
                Some(stem) => {
                    all.push((format!("{stem}.theta"), dense.shape.clone(), bytes.clone()));
                    all.push((format!("{stem}.{noise}"), dense.shape, bytes));
                }
                None => all.push((name.clone(), dense.shape, bytes)),
            }
        }
        let views = all.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.dims().to_vec(), bytes);
            (name.clone(), view.expect("a tensor"))
        });
        serialize(views, None).expect("tensors")
    };
    let place = Place::new();
    let path = place.path().join("a.npz");
    let arrays = [
        ("fc1.theta", &[4, 6][..], &[0.5; 24][..]),
        ("fc1.log_alpha", &[4, 6], &[1.0; 24]),
        ("fc2.weight.theta", &[3, 4], &[-0.5; 12]),
        ("fc2.weight.log_sigma2", &[3, 4], &[-3.0; 12]),
    ];
    write_npz(&path, &arrays).unwrap();
    vec![
        with("log_sigma2"),
        with("log_alpha"),
        fs::read(&path).unwrap(),
    ]
}
