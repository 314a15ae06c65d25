//! `compress convert` there and back, with what `run-sparse` makes of each file.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use sparsevd_format::{GraphSource, WriteOptions, read_network, write_network, write_npy};
use sparsevd_model::{Csr, Network, Weights};
use sparsevd_testing::arbitrary::Stream;

use synthetic::Workplace;

/// LeNet-5 with nine in ten weights zero, stored dense: what a pruner elsewhere leaves.
fn pruned() -> Network {
    let mut network = synthetic::random_preset("lenet-5");
    for (at, tensor) in network.tensors.values_mut().enumerate() {
        if let Weights::Dense(dense) = tensor
            && dense.shape.dims().len() > 1
        {
            let mut stream = Stream(at as u64);
            dense
                .values
                .iter_mut()
                .for_each(|v| *v = if stream.unit() < 0.9 { 0.0 } else { *v });
        }
    }
    network
}

fn read(w: &Workplace, name: &str) -> Network {
    read_network(w.path(name), &GraphSource::Auto)
        .unwrap()
        .network
}

#[test]
fn a_network_keeps_its_numbers_through_every_form() {
    let w = Workplace::without_network();
    let metadata = [("licence".to_owned(), "MIT".to_owned())];
    let options = WriteOptions {
        metadata: metadata.into(),
        ..WriteOptions::default()
    };
    write_network(w.path("dense.safetensors"), &pruned(), &options).unwrap();
    let steps: [(&str, &str, &[&str]); 7] = [
        ("dense", "csr", &[]),
        ("csr", "interop", &["--profile", "interop"]),
        ("interop", "back", &["--dense"]),
        ("csr", "f16", &["--values", "f16"]),
        ("f16", "f16-again", &["--values", "f16"]),
        ("f16", "f16-dense", &["--dense"]),
        ("csr", "bf16", &["--values", "bf16"]),
    ];
    for (from, to, more) in steps {
        let (from, to) = (format!("{from}.safetensors"), format!("{to}.safetensors"));
        let text = w.ok(&[&["convert", &from, &to][..], more].concat());
        assert!(text.contains(&to), "{text}");
    }
    assert_eq!(
        w.read("dense.safetensors"),
        w.read("back.safetensors"),
        "there and back"
    );
    assert_eq!(
        w.read("f16.safetensors"),
        w.read("f16-again.safetensors"),
        "rounding once is enough"
    );
    assert_eq!(read(&w, "csr.safetensors"), read(&w, "interop.safetensors"));
    let csr = read(&w, "csr.safetensors");
    assert!(csr.graph.weighted_nodes().all(
        |n| matches!(csr.weight(n), Some(Weights::Csr(c)) if *c == Csr::from_dense(&c.to_dense()))
    ));
    assert!(w.read("csr.safetensors").len() * 4 < w.read("dense.safetensors").len());
    assert!(w.read("f16.safetensors").len() < w.read("csr.safetensors").len());
    let loaded = read_network(w.path("f16-dense.safetensors"), &GraphSource::Auto).unwrap();
    assert_eq!(
        loaded.metadata["licence"], "MIT",
        "what the format gives no meaning to stays"
    );

    // Whatever the form, the same answers.
    let x = Stream(5).floats(4 * 784);
    write_npy(w.path("x.npy"), &[4, 1, 28, 28], &x).unwrap();
    w.ok_run_sparse(&[
        "dense.safetensors",
        "-i",
        "x.npy",
        "-o",
        "y.npz",
        "--weights",
        "dense",
    ]);
    let arrays = sparsevd_format::read_npz(w.path("y.npz")).unwrap();
    let sparsevd_format::ArrayData::F32(y) = &arrays[0].1.data else {
        panic!("{arrays:?}")
    };
    sparsevd_format::write_npz(
        w.path("expect.npz"),
        &[("x", &[4, 1, 28, 28], &x), ("y", &[4, 10], y)],
    )
    .unwrap();
    for (name, tolerance) in [
        ("csr", "1e-5"),
        ("interop", "1e-5"),
        ("back", "1e-5"),
        ("f16", "5e-3"),
        ("f16-dense", "5e-3"),
        ("bf16", "5e-2"),
    ] {
        w.ok_run_sparse(&[
            "check",
            &format!("{name}.safetensors"),
            "-e",
            "expect.npz",
            "--tolerance",
            tolerance,
        ]);
    }
}

#[test]
fn a_value_too_large_for_its_type_is_an_error() {
    let w = Workplace::without_network();
    let mut network = pruned();
    if let Some(Weights::Dense(dense)) = network.tensors.get_mut("fc2.weight") {
        dense.values[7] = 1e6;
    }
    write_network(
        w.path("large.safetensors"),
        &network,
        &WriteOptions::default(),
    )
    .unwrap();
    let complaint = w.complaint(
        &[
            "convert",
            "large.safetensors",
            "out.safetensors",
            "--values",
            "f16",
        ],
        &["fc2.weight", "1000000", "F16"],
    );
    assert_eq!(complaint, None);
}
