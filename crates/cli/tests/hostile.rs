//! Hostile inputs before the real binaries: one line of bounded length on stderr, exit code 2, bounded time and memory.
//!
//! Each command runs with a limited address space, so that memory which a file only describes would end it by a signal.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Far above what any of these takes on a busy machine, and far below what they took.
const MOST_TIME: Duration = Duration::from_secs(60);

/// KiB of address space.
const SMALL: u64 = 1_000_000;
/// Enough for all but what a small file describes.
const LARGE: u64 = 10_000_000;

const COMPRESS: &str = env!("CARGO_BIN_EXE_compress");
const RUN_SPARSE: &str = env!("CARGO_BIN_EXE_run-sparse");

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }
}

/// Runs a command within `kib` of address space and [`MOST_TIME`].
fn run(kib: u64, program: &str, args: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -c 0; ulimit -v {kib}; exec \"$0\" \"$@\""),
        program,
    ]);
    command.args(args).args(files);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    // What is printed is far less than a pipe holds.
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > MOST_TIME {
            child.kill().unwrap();
            panic!("{program} {args:?} {files:?} takes too long");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What is wrong with a refusal; `None` for one line of bounded length that has `words`, and exit code 2.
fn fault(output: &Output, words: &str) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_refusal = output.status.code() == Some(2)
        && output.stdout.is_empty()
        && stderr.lines().count() == 1
        && stderr.len() < 10_000
        && !stderr.contains('\u{1b}')
        && stderr.contains(words);
    let begin: String = stderr.chars().take(600).collect();
    (!is_refusal).then(|| format!("expected `{words}`, got {:?}: {begin}", output.status))
}

/// Kibibytes of address space, a program with its arguments and its files, and words of the refusal.
type Case<'c> = (u64, &'c str, &'c [&'c str], &'c [&'c Path], &'c str);

fn refuse(cases: &[Case<'_>]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(kib, program, args, files, words)| {
            let fault = fault(&run(*kib, program, args, files), words)?;
            Some(format!("{args:?} {files:?}: {fault}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A safetensors file of tensors (name, dtype, shape, bytes).
fn safetensors(
    tensors: &[(&str, &str, &[usize], Vec<u8>)],
    metadata: &[(&str, String)],
) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let metadata = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone().into()));
    header.insert("__metadata__".into(), Value::Object(metadata.collect()));
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(
            (*name).to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
    }
    with_header(&Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// A safetensors file without a weight that its graph needs.
fn of_graph(graph: &Value) -> Vec<u8> {
    let one = ("a", "F32", &[1][..], vec![0; 4]);
    safetensors(&[one], &[("sparsevd.network", graph.to_string())])
}

fn graph(shape: &[usize], nodes: Vec<Value>, output: &str) -> Value {
    let input = json!({"name": "x", "shape": shape});
    json!({"name": "h", "inputs": [input], "nodes": nodes, "outputs": [output]})
}

fn chain(nodes: usize) -> Vec<u8> {
    let node = |i: usize| {
        let before = if i == 0 {
            "x".to_owned()
        } else {
            format!("n{}", i - 1)
        };
        json!({"name": format!("n{i}"), "inputs": [before], "op": "Tanh"})
    };
    of_graph(&graph(
        &[4],
        (0..nodes).map(node).collect(),
        &format!("n{}", nodes - 1),
    ))
}

fn pad(size: usize) -> Value {
    json!({"name": "pad", "inputs": ["x"], "op": "Pad", "pads": [size, size, size, size]})
}

/// A convolution of 3 by 3 with `window` over a map of 8 by 8.
fn conv(window: Value) -> Vec<u8> {
    let mut node = json!({"name": "conv", "inputs": ["x"], "op": "Conv", "weight": "w", "kernel_shape": [3, 3]});
    node.as_object_mut()
        .unwrap()
        .extend(window.as_object().unwrap().clone());
    let graph = graph(&[1, 8, 8], vec![node], "conv");
    let weight = ("w", "F32", &[1, 1, 3, 3][..], [0, 0, 0x80, 0x3f].repeat(9));
    safetensors(&[weight], &[("sparsevd.network", graph.to_string())])
}

/// A linear layer of CSR parts.
fn csr(rows: usize, cols: usize, crow: &[u32], columns: &[u32]) -> Vec<u8> {
    let bytes = |v: &[u32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let values: Vec<u8> = columns.iter().flat_map(|_| 1f32.to_le_bytes()).collect();
    let node = json!({"name": "l", "inputs": ["x"], "op": "Linear", "weight": "w"});
    let sparse = json!({"v": 1, "w": {"layout": "csr", "shape": [rows, cols]}});
    safetensors(
        &[
            ("w.values", "F32", &[columns.len()], values),
            ("w.col_indices", "U32", &[columns.len()], bytes(columns)),
            ("w.crow_indices", "U32", &[crow.len()], bytes(crow)),
        ],
        &[
            (
                "sparsevd.network",
                graph(&[cols], vec![node], "l").to_string(),
            ),
            ("sparsevd.sparse", sparse.to_string()),
        ],
    )
}

fn linear() -> Vec<u8> {
    csr(1, 4, &[0, 1], &[2])
}

#[test]
fn memory_that_a_network_only_describes_is_refused() {
    let f = Folder::new();
    let border = f.file(
        "border",
        of_graph(&graph(&[1, 1, 1], vec![pad(30_000)], "pad")),
    );
    let mean = json!({"name": "g", "inputs": ["pad"], "op": "GlobalAveragePool"});
    let hidden = graph(&[1, 1, 1], vec![pad(30_000), mean], "g");
    let hidden = f.file("hidden", of_graph(&hidden));
    let wide = f.file("wide", csr(1, 4_294_967_294, &[0, 1], &[5]));
    let convolution = f.file(
        "conv",
        conv(json!({"pads": [30_000, 30_000, 30_000, 30_000]})),
    );
    let overflow = f.file(
        "overflow",
        conv(json!({"pads": [usize::MAX / 2, 0, usize::MAX / 2, 9]})),
    );
    let dilated = json!({"pads": [1_000_000, 1_000_000, 1_000_000, 1_000_000], "dilations": [1_000_000, 1_000_000]});
    let dilated = f.file("dilated", conv(dilated));
    let doubled: Vec<Value> = (0..40)
        .map(|i| {
            let before = if i == 0 {
                "x".to_owned()
            } else {
                format!("n{}", i - 1)
            };
            json!({"name": format!("n{i}"), "inputs": [before, before], "op": "Concat"})
        })
        .collect();
    let doubled = f.file("doubled", of_graph(&graph(&[1], doubled, "n39")));
    let onnx = f.path("wide.onnx");
    let plan: &[&str] = &["plan"];
    refuse(&[
        (LARGE, RUN_SPARSE, plan, &[&border], "memory"),
        (LARGE, RUN_SPARSE, plan, &[&hidden], "--max-memory"),
        (SMALL, RUN_SPARSE, plan, &[&hidden], "memory"),
        (
            LARGE,
            RUN_SPARSE,
            &["plan", "--weights", "dense"],
            &[&wide],
            "memory",
        ),
        (LARGE, RUN_SPARSE, plan, &[&convolution], "memory"),
        (LARGE, RUN_SPARSE, plan, &[&overflow], "conv"),
        (LARGE, RUN_SPARSE, plan, &[&dilated], "conv"),
        (LARGE, RUN_SPARSE, plan, &[&doubled], "at most"),
        (
            LARGE,
            COMPRESS,
            &["convert", "--dense"],
            &[&wide, &f.path("wide.safetensors")],
            "memory",
        ),
        (LARGE, COMPRESS, &["convert"], &[&wide, &onnx], "memory"),
    ]);
    assert!(!onnx.exists());
    // Describing takes no memory.
    let inspected = run(SMALL, COMPRESS, &["inspect"], &[&wide]);
    assert_eq!(inspected.status.code(), Some(0), "{inspected:?}");
    assert!(
        String::from_utf8_lossy(&inspected.stdout).contains("17,179,869,")
            || !inspected.stdout.is_empty()
    );
}

#[test]
fn a_limit_of_memory_holds_for_what_is_allowed_otherwise() {
    let f = Folder::new();
    let path = f.file(
        "border",
        of_graph(&graph(&[1, 1, 1], vec![pad(4_000)], "pad")),
    );
    // 256 MB.
    let allowed = run(LARGE, RUN_SPARSE, &["plan"], &[&path]);
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    for before in [
        &["--max-memory", "100M", "plan"][..],
        &["plan", "--max-memory=100M"],
    ] {
        let output = run(LARGE, RUN_SPARSE, before, &[&path]);
        // Before a subcommand, clap takes options for those of inference.
        assert_eq!(output.status.code(), Some(2), "{before:?} {output:?}");
    }
    refuse(&[(
        LARGE,
        RUN_SPARSE,
        &["plan", "--max-memory", "100M"],
        &[&path],
        "100 MiB",
    )]);
}

/// An IDX array of zeros of that type and number of bytes, as gzip of few bytes.
fn packed_zeros(kind: u8, bytes: u32) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    const MEMBER: u32 = 1 << 24;
    let header = [&[0, 0, kind, 1][..], &bytes.to_be_bytes()].concat();
    // Files behind each other are one file.
    let whole = gzip(&vec![0; MEMBER as usize]).repeat((bytes / MEMBER) as usize);
    [
        gzip(&header),
        whole,
        gzip(&vec![0; (bytes % MEMBER) as usize]),
    ]
    .concat()
}

/// What is just small enough for the limits that hold without `--max-memory` ends within them, and is refused by smaller ones.
#[test]
fn bombs_of_just_under_a_gibibyte_stay_within_memory() {
    const GIB: u32 = 1 << 30;
    let f = Folder::new();
    let network = f.file("network", linear());
    let pixels = f.file("pixels.gz", packed_zeros(8, GIB - 4096));
    let integers = f.file("integers.gz", packed_zeros(9, GIB / 9 - 4096));
    let border = graph(&[1, 1, 1], vec![pad(8_190)], "pad");
    let border = f.file("border", of_graph(&border));
    let wide = f.file("wide", csr(1, GIB as usize / 4 - 4096, &[0, 1], &[5]));
    for small in [true, false] {
        for input in [&pixels, &integers] {
            let input = format!("--input={}", input.display());
            let mut args = vec![input.as_str()];
            args.extend(small.then_some("--max-memory=100M"));
            let output = run(3_000_000, RUN_SPARSE, &args, &[&network]);
            // Read, it is no input of the network; a machine with little memory left does not read it.
            let is_refused = fault(&output, "memory").is_none();
            let is_no_input = !small && fault(&output, "expected").is_none();
            assert!(is_refused || is_no_input, "{args:?}: {output:?}");
        }
    }
    for (args, file) in [
        (&["plan"][..], &border),
        (&["plan", "--weights", "dense"], &wide),
    ] {
        let output = run(3_000_000, RUN_SPARSE, args, &[file]);
        let is_refused = fault(&output, "memory").is_none();
        assert!(is_refused || output.status.success(), "{output:?}");
        let limited = [args, &["--max-memory=100M"]].concat();
        let output = run(3_000_000, RUN_SPARSE, &limited, &[file]);
        assert_eq!(fault(&output, "memory"), None, "{limited:?}");
    }
}

#[test]
fn networks_of_many_parts_take_linear_time_or_are_refused() {
    let f = Folder::new();
    let chain_of = |n: usize| f.file(&format!("chain{n}"), chain(n));
    let whole = chain_of(100_000);
    let output = run(SMALL, RUN_SPARSE, &["plan", "--json"], &[&chain_of(3)]);
    assert_eq!(output.status.code(), Some(0));
    // The table of a plan fills the pipe, so the answer of a run is looked at.
    let x = f.file("x.npy", npy(&npy_header("'<f4'", "(1, 4)"), &[0; 16]));
    let input = format!("--input={}", x.display());
    let output = run(SMALL, RUN_SPARSE, &[&input], &[&whole]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let inputs = |n: usize| {
        let node = json!({"name": "c", "inputs": vec!["x"; n], "op": "Concat"});
        of_graph(&graph(&[1, 1, 1], vec![node], "c"))
    };
    let too_many = f.file("inputs", inputs(1_000_000));
    let long = chain_of(300_000);
    let wide = json!({
        "name": "h", "nodes": [{"name": "t", "inputs": ["x0"], "op": "Tanh"}], "outputs": ["t"],
        "inputs": (0..100_000).map(|i| json!({"name": format!("x{i}"), "shape": [1]})).collect::<Vec<_>>(),
    });
    let wide = f.file("wide", of_graph(&wide));
    let tensors: Vec<String> = (0..200_000)
        .map(|i| format!("\"t{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}"))
        .collect();
    let tensors = f.file(
        "tensors",
        with_header(&format!("{{{}}}", tensors.join(",")), &[]),
    );
    let shared = (0..20_000).map(|i| {
        let before = if i == 0 {
            "x".to_owned()
        } else {
            format!("n{}", i - 1)
        };
        json!({"name": format!("n{i}"), "inputs": [before], "op": "Linear", "weight": "w"})
    });
    let shared = graph(&[256], shared.collect(), "n19999");
    let weight = (
        "w",
        "F32",
        &[256, 256][..],
        [0, 0, 0x80, 0x3f].repeat(256 * 256),
    );
    let metadata = [("sparsevd.network", shared.to_string())];
    let shared = f.file("shared", safetensors(&[weight], &metadata));
    let plan: &[&str] = &["plan"];
    refuse(&[
        (SMALL, RUN_SPARSE, plan, &[&shared], "shared tensors"),
        (SMALL, COMPRESS, &["inspect"], &[&shared], "shared tensors"),
        (SMALL, RUN_SPARSE, plan, &[&long], "more than 131072 nodes"),
        (
            SMALL,
            RUN_SPARSE,
            plan,
            &[&too_many],
            "more than 262144 inputs",
        ),
        (SMALL, RUN_SPARSE, plan, &[&wide], "more than 16384 inputs"),
        (SMALL, COMPRESS, &["inspect"], &[&tensors], "131072 tensors"),
    ]);
}

#[test]
fn damaged_networks_of_every_format_are_refused() {
    let f = Folder::new();
    let good = linear();
    let nested = |n: usize| "[".repeat(n);
    let file = |name: &str, bytes: Vec<u8>| f.file(name, bytes);
    let packed = |rest: &[u8]| [b"SPVD", rest].concat();
    // A model with a graph of one node, whose field `tag` announces more bytes than there are.
    let node = |field: &[u8]| {
        let node = [&[0x0a, field.len() as u8][..], field].concat();
        [&[0x08, 8, 0x3a, node.len() as u8][..], &node].concat()
    };
    let mut deep = vec![];
    for _ in 0..40 {
        deep = [&[0x2a, deep.len() as u8][..], &deep].concat();
    }
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("length-max", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        (
            "length-claimed",
            [&100_000_000u64.to_le_bytes()[..], b"{}"].concat(),
        ),
        (
            "length-2-63",
            [&(1u64 << 63).to_le_bytes()[..], b"{"].concat(),
        ),
        (
            "offsets-back",
            with_header(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}",
                &[0; 4],
            ),
        ),
        (
            "offsets-far",
            with_header(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,18446744073709551615]}}",
                &[0; 4],
            ),
        ),
        (
            "shape-overflow",
            with_header(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
                &[0; 4],
            ),
        ),
        ("nested-header", with_header(&nested(500_000), &[])),
        (
            "nested-graph",
            safetensors(&[], &[("sparsevd.network", nested(200_000))]),
        ),
        (
            "infinite",
            safetensors(
                &[],
                &[(
                    "sparsevd.network",
                    "{\"name\":\"h\",\"inputs\":[{\"name\":\"x\",\"shape\":[1e999]}]}".into(),
                )],
            ),
        ),
        (
            "cycle",
            of_graph(&graph(
                &[4],
                vec![
                    json!({"name": "a", "inputs": ["b"], "op": "Relu"}),
                    json!({"name": "b", "inputs": ["a"], "op": "Relu"}),
                ],
                "b",
            )),
        ),
        ("crow-falls", csr(2, 4, &[0, 2, 1], &[0])),
        ("crow-past-end", csr(1, 4, &[0, u32::MAX], &[0])),
        ("column-past-end", csr(1, 4, &[0, 1], &[4])),
        ("crow-short", csr(3, 4, &[0, 1], &[0])),
        ("cut", good[..good.len() - 3].to_vec()),
        ("packed-empty", packed(&[])),
        ("packed-ones", packed(&[0xff; 64])),
        ("packed-zeros", packed(&[0; 64])),
        ("packed-long", packed(&[&[1][..], &[0x80; 300]].concat())),
        ("onnx-length", node(&[0x0a, 0x7f])),
        (
            "onnx-number",
            node(&[
                0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ]),
        ),
        ("onnx-nested", node(&deep)),
        (
            "onnx-empty-nodes",
            [
                &[0x08, 8, 0x3a, 0xc0, 0x84, 0x3d][..],
                &[0x0a, 0].repeat(500_000),
            ]
            .concat(),
        ),
        (
            "index-outside",
            b"{\"weight_map\": {\"a\": \"../../etc/passwd\"}}".to_vec(),
        ),
        (
            "index-many",
            format!(
                "{{\"weight_map\": {{{}}}}}",
                (0..100_000)
                    .map(|i| format!("\"t{i}\":\"f{i}\""))
                    .collect::<Vec<_>>()
                    .join(",")
            )
            .into_bytes(),
        ),
    ];
    let wrong: Vec<String> = cases
        .into_iter()
        .flat_map(|(name, bytes)| {
            let path = file(name, bytes);
            [(RUN_SPARSE, "plan"), (COMPRESS, "inspect")].map(|(program, command)| {
                let output = run(SMALL, program, &[command], &[&path]);
                fault(&output, name).map(|fault| format!("{command} {name}: {fault}"))
            })
        })
        .flatten()
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn npy_header(dtype: &str, shape: &str) -> String {
    format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

/// A PNG of that size without its pixels; sums are right.
fn png(width: u32, height: u32, color: u8) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, b| {
            (0..8).fold(crc ^ u32::from(*b), |c, _| {
                (c >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(c & 1))
            })
        })
    };
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let chunk = [b"IHDR", &size[..], &[8, color, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\x0d",
        &chunk[..],
        &crc(&chunk).to_be_bytes(),
        b"\0\0\0\x01IDAT",
    ]
    .concat()
}

#[test]
fn damaged_arrays_and_tables_are_refused() {
    let f = Folder::new();
    let network = f.file("network", linear());
    let idx = |kind: u8, dims: &[u32]| {
        let dims_bytes = dims.iter().flat_map(|d| d.to_be_bytes());
        [0, 0, kind, dims.len() as u8]
            .into_iter()
            .chain(dims_bytes)
            .chain([0; 100])
            .collect::<Vec<u8>>()
    };
    let header = |dtype: &str, shape: &str| npy(&npy_header(dtype, shape), &[0; 100]);
    let brackets = "(".repeat(5_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "npy-header-4g",
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(),
        ),
        ("npy-i1", header("'|i1'", "(1500000000,)")),
        ("npy-claim", header("'|u1'", "(8000000000,)")),
        ("npy-overflow", header("'<f8'", "(4294967296, 4294967296)")),
        ("npy-objects", header("'|O'", "(1,)")),
        ("npy-nested", npy(&format!("{{'descr': {brackets}"), &[])),
        ("npy-negative", header("'<f4'", "(-1,)")),
        ("idx-dims", idx(8, &[u32::MAX; 3])),
        ("idx-255", idx(8, &[1; 255])),
        ("idx-i1", idx(9, &[1_500_000_000])),
        ("idx-claim", idx(8, &[4_000_000_000, 28, 28])),
        ("png-huge", png(0x7fff_ffff, 0x7fff_ffff, 2)),
        ("png-large", png(60_000, 60_000, 2)),
        ("png-empty", png(0, 0, 0)),
        ("zip", b"PK\x03\x04\xff\xff\xff\xff".to_vec()),
        ("zip-end", [b"PK\x05\x06", &[0xff; 18][..]].concat()),
        ("gzip", [b"\x1f\x8b\x08\x00", &[0; 20][..]].concat()),
        (
            "csv-line",
            format!("a,b\n{}", "1,".repeat(3_000_000)).into_bytes(),
        ),
        (
            "csv-quote",
            format!("a,b\n\"{}", "x".repeat(3_000_000)).into_bytes(),
        ),
        ("csv-columns", vec![b','; 1_000_000]),
        (
            "csv-name",
            format!("{},{}\n1\n", "n".repeat(1_000_000), "m".repeat(1_000_000)).into_bytes(),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let path = f.file(name, bytes);
        for (command, option) in [(None, "--input"), (Some("eval"), "--data")] {
            let option = format!("{option}={}", path.display());
            let args: Vec<&str> = command.into_iter().chain([option.as_str()]).collect();
            let output = run(LARGE, RUN_SPARSE, &args, &[&network]);
            wrong.extend(fault(&output, name).map(|fault| format!("{args:?}: {fault}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn recipes_that_no_training_can_follow_are_refused() {
    let f = Folder::new();
    let network = f.file("network", linear());
    let phase = "[[phases]]\nmethod = \"sparse-vd\"\nepochs = 1\n";
    let cases: Vec<(&str, String)> = vec![
        ("weights.toml", "[search]\nweights = 0\n".into()),
        ("nan.toml", format!("{phase}kl_scale = nan\n")),
        ("inf.toml", format!("{phase}learning_rate = inf\n")),
        ("nested.toml", format!("a = {}", "[".repeat(100_000))),
        ("dotted.toml", format!("{}a = 1", "a.".repeat(100_000))),
        ("long.toml", "#".repeat(2_000_000)),
        ("binary.toml", "\u{0}\u{1b}[2J".into()),
        ("key.toml", format!("{} = 1", "k".repeat(900_000))),
    ];
    let data = f.file("data.csv", "a,b\n1,2\n");
    let mut wrong = Vec::new();
    for (name, text) in cases {
        let path = f.file(name, text);
        let args = [
            format!("--recipe={}", path.display()),
            format!("--data={}", data.display()),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(SMALL, COMPRESS, &args, &[&network]);
        wrong.extend(fault(&output, name).map(|fault| format!("{name}: {fault}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pipes_and_devices_are_no_files() {
    let f = Folder::new();
    let network = f.file("network", linear());
    let bare = f.file(
        "bare",
        safetensors(&[("w", "F32", &[1, 4], vec![0; 16])], &[]),
    );
    let fifo = f.fifo("fifo");
    f.fifo("w.bin");
    let zero = Path::new("/dev/zero");
    let mut cases = Vec::new();
    for path in [&fifo, &zero.to_owned()] {
        let option = |name: &str| format!("--{name}={}", path.display());
        cases.extend([
            (COMPRESS, vec!["inspect".to_owned()], path.clone()),
            (RUN_SPARSE, vec!["plan".to_owned()], path.clone()),
            (RUN_SPARSE, vec![option("input")], network.clone()),
            (
                RUN_SPARSE,
                vec!["eval".to_owned(), option("data")],
                network.clone(),
            ),
            (
                RUN_SPARSE,
                vec!["check".to_owned(), option("expect")],
                network.clone(),
            ),
            (
                COMPRESS,
                vec![option("recipe"), option("data")],
                network.clone(),
            ),
            (
                COMPRESS,
                vec!["inspect".to_owned(), option("network")],
                bare.clone(),
            ),
        ]);
    }
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(program, args, path)| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let fault = fault(&run(SMALL, program, &args, &[path]), "a regular file")?;
            Some(format!("{args:?} {}: {fault}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Gemm of `x` and the initializer `w` [2, 2], whose bytes are in `w.bin`.
    let text = |field: u8, text: &[u8]| [&[field << 3 | 2, text.len() as u8][..], text].concat();
    let entry = |key: &[u8], value: &[u8]| text(13, &[text(1, key), text(2, value)].concat());
    let tensor = [
        &[0x08, 2, 0x08, 2, 0x10, 1][..],
        &text(8, b"w"),
        &entry(b"location", b"w.bin"),
        &[0x70, 1],
    ]
    .concat();
    let node = [
        text(1, b"x"),
        text(1, b"w"),
        text(2, b"y"),
        text(4, b"Gemm"),
    ]
    .concat();
    let value = |name: &[u8]| {
        let shape = [text(1, &[0x08, 1]), text(1, &[0x08, 2])].concat();
        let kind = text(1, &[&[0x08, 1][..], &text(2, &shape)].concat());
        [text(1, name), text(2, &kind)].concat()
    };
    let graph = [
        text(1, &node),
        text(2, b"g"),
        text(5, &tensor),
        text(11, &value(b"x")),
        text(12, &value(b"y")),
    ]
    .concat();
    let model = [&[0x08, 8][..], &text(7, &graph), &text(8, &[0x10, 13])].concat();
    let model = f.file("model.onnx", model);
    refuse(&[
        (SMALL, COMPRESS, &["inspect"], &[&model], "w.bin"),
        (SMALL, RUN_SPARSE, &["plan"], &[&model], "a regular file"),
    ]);
}

#[test]
fn names_of_a_file_cannot_act_on_a_terminal() {
    let f = Folder::new();
    let hostile = "fc1\n\u{1b}[2J\u{1b}]0;pwned\u{7}\u{202e}";
    // The JSON of its plan has it a few times, and must fit into a pipe.
    let long = "n".repeat(8_000);
    let node = |name: &str, input: &str| json!({"name": name, "inputs": [input], "op": "Tanh"});
    let mut named = graph(&[4], vec![node(hostile, "x"), node(&long, hostile)], &long);
    named["name"] = hostile.into();
    let path = f.file("named", of_graph(&named));
    for (program, args) in [
        (RUN_SPARSE, &["plan"][..]),
        (COMPRESS, &["inspect"]),
        (RUN_SPARSE, &["plan", "--json"]),
    ] {
        let output = run(SMALL, program, args, &[&path]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?} {:?}",
            output.stderr
        );
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{args:?}");
        if args.contains(&"--json") {
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["network"], hostile);
        } else {
            assert!(text.lines().all(|line| line.len() < 1_000), "{args:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("[2J")),
                "{args:?}"
            );
        }
    }
    // As parts of errors.
    let missing = f.file(
        "missing",
        of_graph(&graph(&[4], vec![node(hostile, &long)], hostile)),
    );
    let infinite = (
        "fc1\n\u{1b}[2J.weight",
        "F32",
        &[1, 1][..],
        f32::INFINITY.to_le_bytes().to_vec(),
    );
    let infinite = f.file("infinite", safetensors(&[infinite], &[]));
    refuse(&[
        (SMALL, RUN_SPARSE, &["plan"], &[&missing], "missing"),
        (SMALL, COMPRESS, &["inspect"], &[&infinite], "finite"),
    ]);
}
