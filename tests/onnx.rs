//! ONNX files in and out, against what onnxruntime computed from them (`golden/onnx/make.py`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use sparsevd::format::{ArrayData, read_array};
use sparsevd::model::{Csr, Network, Op, Weights};
use sparsevd::onnx::{ExportOptions, read_onnx, read_onnx_bytes, write_onnx_bytes};
use sparsevd::runtime::{Int8Mode, Plan, PlanOptions, Session, WeightMode};

const GOLDEN: [&str; 17] = [
    "residual",
    "perceptron",
    "shape_chain",
    "mobile",
    "sparse",
    "half",
    "opset_7",
    "opset_10",
    "opset_11",
    "opset_13",
    "opset_18",
    "opset_23",
    "layer_normalization",
    "prelu",
    "decomposed",
    "moved",
    "computed",
];

fn golden(name: &str, ending: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/onnx")
        .join(format!("{name}.{ending}"))
}

/// Inputs and outputs of a golden file.
fn expected(name: &str) -> (Vec<f32>, Vec<f32>) {
    let arrays = read_array(golden(name, "npz")).unwrap();
    let array = |wanted: &str| {
        let (_, array) = arrays.iter().find(|(n, _)| n == wanted).unwrap();
        match &array.data {
            ArrayData::F32(values) => values.clone(),
            other => panic!("{name}: {wanted} holds {}", other.kind()),
        }
    };
    (array("x"), array("y"))
}

fn run(network: &Network, weights: WeightMode, x: &[f32], batch: usize) -> Vec<f32> {
    let options = PlanOptions {
        weights,
        batch,
        ..PlanOptions::default()
    };
    let session = Session::new(Plan::new(network, &options).unwrap(), 1).unwrap();
    let mut y = vec![f32::NAN; batch * session.plan().output_shape().elements()];
    session.run(batch, x, &mut y).unwrap();
    y
}

/// The largest difference as a share of the largest expected number.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    worst.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m }) / largest
}

#[test]
fn golden_files_compute_what_onnxruntime_does() {
    let mut wrong = Vec::new();
    for name in GOLDEN {
        let network = read_onnx(golden(name, "onnx")).unwrap().network;
        let (x, y) = expected(name);
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            let difference = difference(&run(&network, weights, &x, 3), &y);
            if difference.is_nan() || difference > 1e-5 {
                wrong.push(format!("{name}, {weights}: {difference:e}"));
            }
        }
        // Sixteen times the first sample: tiles.
        let (inn, out) = (x.len() / 3, y.len() / 3);
        let difference = difference(
            &run(&network, WeightMode::Sparse, &x[..inn].repeat(16), 16),
            &y[..out].repeat(16),
        );
        if difference.is_nan() || difference > 1e-5 {
            wrong.push(format!("{name}, tiles: {difference:e}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Files whose inputs or outputs have another layout in the network than in the file, and others of one or more operators
/// that become several.
const LAYOUTS: [&str; 10] = [
    "flat_to_image",
    "one_channel_last",
    "channels_last",
    "constants_of_each_element",
    "softmax_of_map",
    "open_size",
    "column",
    "one_dimension",
    "no_batch",
    "elementwise",
];

#[test]
fn a_network_of_channels_last_has_its_channels_first() {
    let network = read_onnx(golden("channels_last", "onnx")).unwrap().network;
    assert_eq!(network.graph.inputs[0].shape.dims(), [3, 5, 6]);
    let (x, y) = expected("channels_last");
    let first: Vec<f32> = (x.chunks(3 * 5 * 6))
        .flat_map(|image| (0..3).flat_map(|c| image[c..].iter().step_by(3).copied()))
        .collect();
    assert!(difference(&run(&network, WeightMode::Dense, &first, 3), &y) < 1e-5);
    // No operator but layers is left of the transposes.
    let flat = network.graph.nodes.iter().filter(|n| n.op == Op::Flatten);
    assert!(flat.count() <= 4, "{:#?}", network.graph.nodes);
}

#[test]
fn written_files_come_back_as_the_same_network() {
    let layouts = LAYOUTS.into_iter().filter(|name| *name != "open_size");
    let several = ["several", "sequence", "ids"];
    for name in GOLDEN.into_iter().chain(layouts).chain(several) {
        let mut network = read_onnx(golden(name, "onnx")).unwrap().network;
        for (sparse, csr) in [(false, false), (true, true), (false, true)] {
            if csr {
                for tensor in network.tensors.values_mut() {
                    if tensor.shape().dims().len() > 1 {
                        *tensor = Weights::Csr(Csr::from_dense(&tensor.to_dense()));
                    }
                }
            }
            let options = ExportOptions {
                sparse_initializers: sparse,
                ..ExportOptions::default()
            };
            let bytes = write_onnx_bytes(&network, &options).unwrap();
            assert_eq!(bytes, write_onnx_bytes(&network, &options).unwrap());
            let back = read_onnx_bytes("back.onnx", bytes).unwrap().network;
            if name == "computed" {
                // An Expand or a Clip without bounds is written as other nodes, which compute the same.
                let (x, _) = expected(name);
                let [is, was] = [&back, &network].map(|n| run(n, WeightMode::Dense, &x, 3));
                assert_eq!(is, was, "{name}");
                continue;
            }
            assert_eq!(back.to_dense(), network.to_dense(), "{name}");
        }
    }
}

/// Files as onnxruntime quantises them: it rounds to integers at each pair, the network here computes numbers between.
#[test]
fn quantised_files_compute_what_onnxruntime_does() {
    for name in ["quantised/qdq", "quantised/qoperator"] {
        let network = read_onnx(golden(name, "onnx")).unwrap().network;
        assert_eq!(network.int8.inputs.len(), 4, "{name}");
        let (x, y) = expected(name);
        let (x, y) = (x.repeat(22), y.repeat(22));
        for int8 in [Int8Mode::Never, Int8Mode::Always] {
            let options = PlanOptions {
                batch: 66,
                int8,
                ..PlanOptions::default()
            };
            let session = Session::new(Plan::new(&network, &options).unwrap(), 1).unwrap();
            let mut got = vec![f32::NAN; y.len()];
            session.run(66, &x, &mut got).unwrap();
            // Half a step of 1/255 at each of five pairs, which the layers behind enlarge.
            let difference = difference(&got, &y);
            assert!(difference < 0.02, "{name}, {int8}: {difference}");
        }
        // Written and read again, it is the same network: clamps of ranges come once.
        let bytes = write_onnx_bytes(&network, &ExportOptions::default()).unwrap();
        let back = read_onnx_bytes("back.onnx", bytes).unwrap().network;
        assert_eq!(
            (&back.int8, &back.tensors),
            (&network.int8, &network.tensors),
            "{name}"
        );
    }
}
