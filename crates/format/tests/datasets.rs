//! Datasets and arrays, each made in the test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sparsevd_format::*;
use sparsevd_model::{Input, Preprocessing, Shape};

fn idx(kind: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write_png(path: &Path, width: u32, height: u32, color: png::ColorType, pixels: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
}

/// An `.npy` stream as numpy writes it.
fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

fn npz(arrays: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = if deflated {
        zip::CompressionMethod::Deflated
    } else {
        zip::CompressionMethod::Stored
    };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// What the error says, all in one line that names the path.
fn error<T: std::fmt::Debug>(result: Result<T, FormatError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn idx_files_load_under_every_spelling_plain_and_gzip() {
    let images = idx(8, &[2, 2, 3], &[0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 255]);
    let labels = idx(8, &[2], &[7, 2]);
    for (images_name, labels_name, packed) in [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", false),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte", false),
        (
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            true,
        ),
        // What is packed is seen from the bytes, not the name.
        (
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
            false,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let pack = |bytes: &[u8]| if packed { gzip(bytes) } else { bytes.to_vec() };
        fs::write(folder.path().join(images_name), pack(&images)).unwrap();
        fs::write(folder.path().join(labels_name), pack(&labels)).unwrap();
        let splits = load_data(folder.path()).unwrap();
        let is_train = images_name.starts_with("train");
        assert_eq!(splits.train.is_some(), is_train);
        assert_eq!(splits.test.is_some(), !is_train);
        assert!(splits.whole.is_none());
        let set = splits.train.or(splits.test).unwrap();
        assert_eq!(set.shape, Shape::from([1, 2, 3]));
        assert_eq!(set.labels, [7, 2]);
        assert_eq!(set.classes(), 8);
        assert!(splits.describe.contains("2 t") && splits.describe.contains("[1, 2, 3]"));
        let mut input = [0.0; 6];
        set.fill_input(1, &Preprocessing::default(), &mut input);
        assert_eq!(input[5], 1.0);
        assert_eq!(set.subset(&[1]).labels, [2]);
        assert_eq!(set.subset(&[1, 0, 1]).pixels.len(), 18);
    }
}

#[test]
fn mnist_of_the_project_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnist");
    let splits = load_data(folder).unwrap();
    let (train, test) = (splits.train.unwrap(), splits.test.unwrap());
    assert_eq!((train.len(), test.len()), (60_000, 10_000));
    train.check_against(&Shape::from([1, 28, 28]), 10).unwrap();
    test.check_against(&Shape::from([784]), 10).unwrap();
    let says = error(test.check_against(&Shape::from([3, 32, 32]), 10));
    assert!(
        says.contains("[3, 32, 32]") && says.contains("[1, 28, 28]"),
        "{says}"
    );
    let says = error(test.check_against(&Shape::from([1, 28, 28]), 9));
    assert!(
        says.contains("label of image") && says.contains("0 to 8") && says.ends_with("got 9"),
        "{says}"
    );
    assert_eq!(&test.labels[..5], [7, 2, 1, 0, 4]);
}

#[test]
fn vectors_and_images_stand_for_each_other_only_where_no_channel_is_lost() {
    let set = |shape: Shape| {
        let n = shape.elements();
        Dataset::new(Pixels::U8(vec![0; n]), shape, vec![0]).unwrap()
    };
    for (data, input, fits) in [
        (vec![1, 2, 3], vec![6], true),
        (vec![6], vec![1, 2, 3], true),
        (vec![3, 2, 1], vec![6], true),
        // Per-channel preprocessing would not know where a channel begins.
        (vec![6], vec![3, 2, 1], false),
        (vec![6], vec![6, 1, 1], false),
        (vec![1, 2, 3], vec![6, 1, 1], false),
        (vec![1, 3, 2], vec![1, 2, 3], false),
        (vec![5], vec![6], false),
        // A column, and an image of one line.
        (vec![1, 6, 1], vec![6, 1], true),
        (vec![1, 2, 3], vec![6, 1], true),
        (vec![1, 6, 1], vec![1, 1, 6], true),
    ] {
        let result = set(Shape(data.clone())).check_against(&Shape(input.clone()), 1);
        assert_eq!(result.is_ok(), fits, "{data:?} for {input:?}");
    }
}

#[test]
fn broken_idx_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-idx3-ubyte");
    // 30 MB of zeros in 30 kB, under a header that speaks of two bytes.
    let bomb = gzip(&idx(8, &[2], &vec![0; 30_000_000]));
    let huge = idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[]);
    let mut torn = gzip(&idx(8, &[3000], &[9; 3000]));
    torn.truncate(torn.len() - 12);
    for (name, bytes, says) in [
        ("empty", vec![], "IDX magic"),
        ("bad magic", vec![0, 0, 7, 1, 0, 0, 0, 0], "IDX magic"),
        ("no dimensions", vec![0, 0, 8, 3, 0], "IDX dimensions"),
        ("truncated", idx(8, &[2, 2], &[1, 2, 3]), "expected 4"),
        ("too long", idx(8, &[2, 2], &[1; 5]), "more"),
        ("bomb", bomb, "more"),
        ("overflow", huge, "at most 8589934592 bytes"),
        (
            "widened beyond the limit",
            idx(9, &[1_500_000_000], &[]),
            "at most 8589934592 bytes",
        ),
        ("torn gzip", torn, "IDX data"),
        (
            "f64 too large",
            idx(14, &[1], &1e300_f64.to_be_bytes()),
            "f32 can hold",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let text = error(read_idx(&path));
        assert!(
            text.contains(says) && text.contains("x-idx3-ubyte"),
            "{name}: {text}"
        );
    }
    fs::write(&path, idx(12, &[2], &[0, 0, 1, 0, 255, 255, 255, 255])).unwrap();
    assert_eq!(read_idx(&path).unwrap().data, ArrayData::I64(vec![256, -1]));
}

#[test]
fn idx_folders_that_do_not_belong_together_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("t10k-images-idx3-ubyte"), idx(8, &[2, 1, 1], &[1, 2])).unwrap();
    assert!(error(load_data(folder.path())).contains("both images and labels"));
    fs::write(at("t10k-labels-idx1-ubyte"), idx(8, &[3], &[1, 2, 3])).unwrap();
    let text = error(load_data(folder.path()));
    assert!(
        text.contains("`labels`") && text.contains("[2]") && text.contains("[3]"),
        "{text}"
    );
    fs::write(at("t10k-images-idx3-ubyte"), idx(8, &[0, 1, 1], &[])).unwrap();
    fs::write(at("t10k-labels-idx1-ubyte"), idx(8, &[0], &[])).unwrap();
    assert!(error(load_data(folder.path())).contains("at least one image"));
    let empty = tempfile::tempdir().unwrap();
    assert!(error(load_data(empty.path())).contains("one folder of PNG images per class"));
    assert!(error(load_data(empty.path().join("no"))).contains("cannot read"));
}

#[test]
fn npz_sets_load_with_every_label_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.npz");
    let x = npy("|u1", false, "(2, 1, 2)", &[1, 2, 3, 4]);
    let floats: Vec<u8> = [0.5_f64, -1.5]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let f = npy("<f8", false, "(2, 1)", &floats);
    for (descr, data) in [
        ("|u1", vec![3, 1]),
        (
            "<i8",
            [3_i64, 1].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            ">i4",
            [3_i32, 1].iter().flat_map(|v| v.to_be_bytes()).collect(),
        ),
        (
            "<u2",
            [3_u16, 1].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
    ] {
        let y = npy(descr, false, "(2,)", &data);
        let arrays = [
            ("x_train", x.clone()),
            ("y_train", y.clone()),
            ("x_test", f.clone()),
            ("y_test", y),
        ];
        fs::write(&path, npz(&arrays, descr == "|u1")).unwrap();
        let splits = load_data(&path).unwrap();
        let (train, test) = (splits.train.unwrap(), splits.test.unwrap());
        assert_eq!(
            (train.labels.as_slice(), &train.shape),
            ([3, 1].as_slice(), &Shape::from([1, 1, 2]))
        );
        assert_eq!(test.pixels, Pixels::F32(vec![0.5, -1.5]));
        // Floating-point values are input as they are.
        let mut input = [0.0];
        test.fill_input(1, &Preprocessing::default(), &mut input);
        assert_eq!(input, [-1.5]);
    }
    // A set that says nothing of a split is neither.
    let y = npy("|u1", false, "(2, 1)", &[0, 1]);
    let whole = [("x", x.clone()), ("y", y.clone())];
    fs::write(&path, npz(&whole, true)).unwrap();
    let splits = load_data(&path).unwrap();
    assert!(splits.train.is_none() && splits.test.is_none());
    assert_eq!(splits.whole.unwrap().labels, [0, 1]);
    assert!(
        splits
            .describe
            .ends_with("2 images [1, 1, 2] of 2 classes, not split"),
        "{}",
        splits.describe
    );
    // Half of a split says what it is.
    for (names, is_train) in [
        (["x_train", "y_train"], true),
        (["x_test", "y_test"], false),
    ] {
        let half = names.into_iter().zip([x.clone(), y.clone()]);
        let half: Vec<_> = half.collect();
        fs::write(&path, npz(&half, true)).unwrap();
        let splits = load_data(&path).unwrap();
        assert_eq!(splits.train.is_some(), is_train);
        assert_eq!(splits.test.is_some(), !is_train);
        assert!(splits.whole.is_none());
        fs::write(&path, npz(&[&half[..], &whole].concat(), true)).unwrap();
        let text = error(load_data(&path));
        assert!(
            text.contains(&format!("`x` beside `{}`", names[0])),
            "{text}"
        );
    }

    let negative = npy("<i4", false, "(2,)", &[0, 0, 0, 0, 255, 255, 255, 255]);
    let large = npy("<i4", false, "(2,)", &[0, 0, 0, 0, 0, 0, 1, 0]);
    let long = npy("|u1", false, "(3,)", &[0, 1, 2]);
    let nan = npy("<f4", false, "(2, 1)", &[0, 0, 0, 0, 0, 0, 192, 127]);
    let truth = npy("|b1", false, "(2, 1)", &[1, 0]);
    for (name, x, y, says) in [
        (
            "negative",
            &x,
            &negative,
            vec!["`y`", "label 1", "0 to 65535", "-1"],
        ),
        ("large", &x, &large, vec!["`y`", "label 1", "65536"]),
        ("long", &x, &long, vec!["`y`", "[2]", "[3]"]),
        ("float labels", &x, &nan, vec!["`y`", "integers"]),
        ("NaN", &nan, &y, vec!["`x`", "element 1", "NaN"]),
        ("truth", &truth, &y, vec!["`x`", "u8 pixels", "booleans"]),
    ] {
        fs::write(&path, npz(&[("x", x.clone()), ("y", y.clone())], false)).unwrap();
        let text = error(load_data(&path));
        assert!(says.iter().all(|s| text.contains(s)), "{name}: {text}");
    }
    let of_two = npy("|b1", false, "(2,)", &[1, 0]);
    fs::write(&path, npz(&[("x", x.clone()), ("y", of_two)], false)).unwrap();
    assert_eq!(load_data(&path).unwrap().whole.unwrap().labels, [1, 0]);
    // The content decides what the file is.
    let other = folder.path().join("set.safetensors");
    fs::copy(&path, &other).unwrap();
    assert_eq!(
        load_data(&other).unwrap().whole,
        load_data(&path).unwrap().whole
    );
    fs::write(&path, npz(&[("x", x.clone())], false)).unwrap();
    assert!(error(load_data(&path)).contains("`y`"));
    fs::write(&path, npz(&[("z", x)], false)).unwrap();
    assert!(error(load_data(&path)).contains("x_train and y_train"));
    fs::write(&path, b"PK\x03\x04 and then nothing").unwrap();
    assert!(error(load_data(&path)).contains("zip archive"));
}

#[test]
fn npy_files_are_read_in_both_orders_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let read = |bytes: Vec<u8>| {
        fs::write(&path, bytes).unwrap();
        read_npy(&path)
    };
    // numpy.arange(6).reshape(1, 2, 3) in Fortran order.
    let array = read(npy("|u1", true, "(1, 2, 3)", &[0, 3, 1, 4, 2, 5])).unwrap();
    assert_eq!(array.shape, [1, 2, 3]);
    assert_eq!(array.data, ArrayData::U8(vec![0, 1, 2, 3, 4, 5]));
    let truth = read(npy("|b1", true, "(2, 2)", &[0, 1, 0, 1])).unwrap();
    assert_eq!(truth.data, ArrayData::Bool(vec![false, false, true, true]));
    let scalar = read(npy("<f2", false, "()", &[0, 0x3c])).unwrap();
    assert_eq!(scalar.data, ArrayData::F32(vec![1.0]));
    for (name, bytes, says) in [
        (
            "truncated",
            npy("<f4", false, "(2,)", &[0; 7]),
            "expected 8 for [2], got 7",
        ),
        ("too long", npy("<f4", false, "(2,)", &[0; 9]), "more"),
        ("complex", npy("<c8", false, "(1,)", &[0; 8]), "<c8"),
        ("text", npy("<U1", false, "(1,)", &[0; 4]), "<U1"),
        ("objects", npy("|O", false, "(1,)", &[0; 8]), "npy dtype"),
        (
            "overflow",
            npy("<f4", false, "(4294967296, 4294967296, 4)", &[]),
            "at most",
        ),
        (
            "a large claim",
            npy("|u1", false, "(4000000000,)", &[1]),
            "got 1",
        ),
        ("negative", npy("<f4", false, "(-2,)", &[]), "npy header"),
        (
            "nesting",
            npy("<f4", false, &"(".repeat(4000), &[]),
            "opening brackets",
        ),
        (
            "no dictionary",
            b"\x93NUMPY\x01\x00\x02\x00[\n".to_vec(),
            "npy header",
        ),
        (
            "unknown version",
            b"\x93NUMPY\x09\x00\x02\x00\x00\x00{\n".to_vec(),
            "npy header",
        ),
        (
            "a long header",
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
            "npy header",
        ),
        (
            "widened beyond the limit",
            npy("|i1", false, "(1500000000,)", &[]),
            "at most 8589934592 bytes in memory",
        ),
        ("seven bytes", b"\x93NUMPY\x01".to_vec(), "npy data"),
        ("u64", npy("<u8", false, "(1,)", &[255; 8]), "below 2^63"),
    ] {
        let text = error(read(bytes));
        assert!(
            text.contains(says) && text.contains("a.npy"),
            "{name}: {text}"
        );
    }
}

#[test]
fn arrays_are_told_apart_by_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0]);
    write_npy(at("one"), &[2, 3], &a).unwrap();
    let arrays: [(&str, &[usize], &[f32]); 2] = [("a", &[2, 3], &a), ("b", &[1], &b)];
    write_npz(at("two"), &arrays).unwrap();
    let first = fs::read(at("two")).unwrap();
    write_npz(at("two"), &arrays).unwrap();
    assert_eq!(fs::read(at("two")).unwrap(), first, "no time in the file");
    fs::write(at("three.gz"), gzip(&idx(8, &[1, 2], &[5, 6]))).unwrap();
    fs::write(at("four"), idx(8, &[1, 2], &[5, 6])).unwrap();
    write_png(&at("five"), 2, 1, png::ColorType::Rgb, &[1, 2, 3, 4, 5, 6]);
    let bytes: Vec<u8> = a.iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes);
    fs::write(
        at("six"),
        safetensors::serialize([("x", view.unwrap())], None).unwrap(),
    )
    .unwrap();
    fs::write(at("seven"), b"hello, world").unwrap();

    let read = |name: &str| read_array(at(name)).unwrap();
    let floats = |shape: &[usize], values: &[f32]| Array {
        shape: shape.to_vec(),
        data: ArrayData::F32(values.to_vec()),
    };
    let bytes = |shape: &[usize], values: &[u8]| Array {
        shape: shape.to_vec(),
        data: ArrayData::U8(values.to_vec()),
    };
    assert_eq!(read("one"), [("one".into(), floats(&[2, 3], &a))]);
    assert_eq!(
        read("two"),
        [
            ("a".into(), floats(&[2, 3], &a)),
            ("b".into(), floats(&[1], &b))
        ]
    );
    assert_eq!(
        read("three.gz"),
        [("three".into(), bytes(&[1, 2], &[5, 6]))]
    );
    assert_eq!(read("four"), [("four".into(), bytes(&[1, 2], &[5, 6]))]);
    assert_eq!(
        read("five"),
        [("five".into(), bytes(&[3, 1, 2], &[1, 4, 2, 5, 3, 6]))]
    );
    assert_eq!(read("six"), [("x".into(), floats(&[2, 3], &a))]);
    assert!(error(read_array(at("seven"))).contains("seven: array file"));
    assert!(error(read_array(at("eight"))).contains("cannot read"));
}

#[test]
fn images_with_their_channels_last_are_put_in_the_order_of_the_network() {
    let set = |shape: [usize; 3], pixels: Pixels| {
        Dataset::new(pixels, Shape::from(shape), vec![0]).unwrap()
    };
    let input = |shape: [usize; 3]| Input::new("x", shape);
    // Two rows of two pixels of red, green and blue.
    let bytes = || Pixels::U8((1..=12).collect());
    let got = set([2, 2, 3], bytes()).for_input(&input([3, 2, 2]), None);
    let planes = vec![1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12];
    assert_eq!(got.unwrap(), set([3, 2, 2], Pixels::U8(planes)));
    let numbers = Pixels::F32(vec![0.5, 1.5, 2.5, 3.5]);
    let got = set([2, 1, 2], numbers).for_input(&input([2, 2, 1]), None);
    let planes = Pixels::F32(vec![0.5, 2.5, 1.5, 3.5]);
    assert_eq!(got.unwrap(), set([2, 2, 1], planes));
    // Images that fit as they are, and others, stay.
    for shape in [[3, 3, 3], [2, 2, 3], [1, 4, 3]] {
        let count = shape.iter().product::<usize>() as u8;
        let images = set(shape, Pixels::U8((0..count).collect()));
        let input = input(if shape == [1, 4, 3] { [4, 3, 1] } else { shape });
        assert_eq!(images.clone().for_input(&input, None).unwrap(), images);
    }
}

#[test]
fn batches_of_cifar_load() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let record = |labels: &[u8], first: u8| {
        let mut bytes = labels.to_vec();
        bytes.extend((0..3072).map(|i| first.wrapping_add((i % 251) as u8)));
        bytes
    };
    fs::write(root.join("test_batch.bin"), record(&[9], 1)).unwrap();
    let two = [record(&[3], 5), record(&[0], 6)].concat();
    fs::write(root.join("data_batch_2.bin"), two).unwrap();
    fs::write(root.join("data_batch_1.bin"), record(&[7], 2)).unwrap();
    let text = error(load_data(root));
    assert!(text.contains("data_batch_3.bin, got none"), "{text}");
    for i in 3..=5 {
        fs::write(root.join(format!("data_batch_{i}.bin")), record(&[i], i)).unwrap();
    }
    let splits = load_data(root).unwrap();
    assert!(
        splits.describe.ends_with(
            "CIFAR-10 batches, 6 training images [3, 32, 32] of 8 classes, 1 test images [3, 32, 32] of 10 classes"
        ),
        "{}",
        splits.describe
    );
    let train = splits.train.unwrap();
    assert_eq!(train.labels, [7, 3, 0, 3, 4, 5]);
    let Pixels::U8(pixels) = &train.pixels else {
        panic!("expected bytes")
    };
    assert_eq!(
        [pixels[0], pixels[1], pixels[3072], pixels[6144]],
        [2, 3, 5, 6]
    );
    // A label that is none, and a file that was cut.
    fs::write(root.join("data_batch_1.bin"), record(&[10], 2)).unwrap();
    let text = error(load_data(root));
    assert!(
        text.contains("data_batch_1.bin") && text.contains("expected 0 to 9, got 10"),
        "{text}"
    );
    fs::write(root.join("data_batch_1.bin"), [1; 3072]).unwrap();
    let text = error(load_data(root));
    assert!(text.contains("records of 3073 bytes, got 3072"), "{text}");

    // CIFAR-100 has the label of a superclass before that of the class.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.bin"), record(&[19, 99], 4)).unwrap();
    let splits = load_data(folder.path()).unwrap();
    assert!(splits.test.is_none());
    assert_eq!(splits.train.unwrap().labels, [99]);
}

#[test]
fn class_folders_load_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let image = |path: &str, pixels: [u8; 2]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_png(&path, 2, 1, png::ColorType::Grayscale, &pixels);
    };
    image("dog/b.png", [3, 4]);
    image("dog/a.PNG", [1, 2]);
    image("cat/z.png", [5, 6]);
    fs::write(root.join("cat/.hidden"), "x").unwrap();
    fs::write(root.join("README"), "beside the classes").unwrap();
    let splits = load_data(root).unwrap();
    assert!(splits.train.is_none() && splits.test.is_none());
    let set = splits.whole.unwrap();
    assert_eq!(set.labels, [0, 1, 1]);
    assert_eq!(set.pixels, Pixels::U8(vec![5, 6, 1, 2, 3, 4]));
    assert_eq!(set.shape, Shape::from([1, 1, 2]));

    // Another size, another colour type, another kind of file: each is named.
    let odd = root.join("dog/c.png");
    write_png(&odd, 1, 1, png::ColorType::Grayscale, &[1]);
    let text = error(load_data(root));
    assert!(
        text.contains("c.png") && text.contains("[1, 1, 2]") && text.contains("[1, 1, 1]"),
        "{text}"
    );
    write_png(&odd, 2, 1, png::ColorType::Rgba, &[1; 8]);
    let text = error(load_data(root));
    assert!(
        text.contains("c.png") && text.contains("without alpha") && text.contains("Rgba"),
        "{text}"
    );
    let bytes = fs::read(root.join("dog/b.png")).unwrap();
    fs::write(&odd, &bytes[..bytes.len() - 20]).unwrap();
    assert!(error(load_data(root)).contains("c.png: PNG"));
    fs::remove_file(odd).unwrap();
    fs::write(root.join("dog/c.jpg"), "x").unwrap();
    assert!(error(load_data(root)).contains("only PNG images"));
    fs::remove_file(root.join("dog/c.jpg")).unwrap();
    fs::create_dir(root.join("eel")).unwrap();
    assert!(error(load_data(root)).contains("eel: class folder: expected at least one PNG"));

    let split = tempfile::tempdir().unwrap();
    let root = split.path();
    for (path, value) in [
        ("train/a/1.png", 1),
        ("train/b/1.png", 2),
        ("test/a/1.png", 3),
        ("test/b/1.png", 4),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_png(&path, 1, 1, png::ColorType::Grayscale, &[value]);
    }
    let splits = load_data(root).unwrap();
    assert_eq!(splits.train.unwrap().pixels, Pixels::U8(vec![1, 2]));
    assert_eq!(splits.test.unwrap().labels, [0, 1]);
    // A class that only one split has would shift the labels of the others.
    fs::remove_dir_all(root.join("test/a")).unwrap();
    let text = error(load_data(root));
    assert!(text.contains("a, b") && text.ends_with("got b"), "{text}");
}

#[test]
fn png_claims_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.png");
    // A header of 60000 x 60000 RGB pixels and hardly any data.
    let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 60_000, 60_000);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    drop(encoder.write_header().unwrap());
    let text = error(read_png(&path));
    assert!(text.contains("huge.png: PNG"), "{text}");
}

#[test]
fn a_safetensors_set_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.safetensors");
    let view = |dtype, shape: &[usize], data| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), data).unwrap()
    };
    let images = view(safetensors::Dtype::U8, &[2, 1, 1, 2], &[1, 2, 3, 4]);
    let labels = view(safetensors::Dtype::I16, &[2], &[1, 0, 0, 1]);
    let file = safetensors::serialize([("images", images), ("labels", labels)], None).unwrap();
    fs::write(&path, file).unwrap();
    let set = load_data(&path).unwrap().whole.unwrap();
    assert_eq!(
        (set.labels.as_slice(), set.shape),
        ([1, 256].as_slice(), Shape::from([1, 1, 2]))
    );
}

/// One small valid file of each kind.
fn every_kind(folder: &Path) -> Vec<Vec<u8>> {
    let plain = npy("<f4", false, "(2, 3)", &[1; 24]);
    let path = folder.join("x.png");
    write_png(&path, 3, 2, png::ColorType::Rgb, &[7; 18]);
    let images = idx(8, &[2, 2, 2], &[1; 8]);
    vec![
        npz(&[("a", plain.clone()), ("b", plain.clone())], true),
        npz(&[("a", plain.clone())], false),
        plain,
        gzip(&images),
        images,
        fs::read(path).unwrap(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn flipped_and_cut_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static FILES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped");
        for mut bytes in FILES.get_or_init(|| every_kind(folder.path())).clone() {
            for (at, flip) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&path, &bytes).unwrap();
            if let Ok(arrays) = read_array(&path) {
                for (_, array) in arrays {
                    prop_assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
                }
            }
        }
    }
}

#[test]
fn floating_point_targets_make_a_regression() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let floats =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let x = npy("<f4", false, "(4, 3)", &floats(&x));
    let y = npy(
        "<f4",
        false,
        "(4, 2)",
        &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    );
    let vector = npy("<f4", false, "(4,)", &floats(&[1.0, 2.0, 3.0, 4.0]));
    fs::write(&path, npz(&[("x", x.clone()), ("y", y.clone())], true)).unwrap();
    let LoadedSamples::Numbers(splits) = load_samples(&path).unwrap() else {
        panic!("expected numbers")
    };
    assert!(splits.train.is_none() && splits.test.is_none());
    assert!(
        splits
            .describe
            .ends_with("npz arrays, 4 samples [3] with 2 numbers each, not split")
    );
    let set = splits.whole.unwrap();
    let some = set.subset(&[3, 1]);
    assert_eq!(some.targets(), [7.0, 8.0, 3.0, 4.0]);
    let mut input = [0.0; 3];
    some.fill_input(0, &Preprocessing::default(), &mut input);
    assert_eq!(input, [9.0, 10.0, 11.0]);
    assert!(set.check_against(&Shape::from([3]), 2).is_ok());
    let error = set
        .check_against(&Shape::from([3]), 5)
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected 5 per sample"), "{error}");

    // Classes stay classes, and a folder has no numbers.
    let classes = npy("|u1", false, "(4,)", &[0, 1, 2, 1]);
    fs::write(
        &path,
        npz(&[("x", x.clone()), ("y", classes.clone())], false),
    )
    .unwrap();
    let LoadedSamples::Classes(splits) = load_samples(&path).unwrap() else {
        panic!("expected classes")
    };
    assert_eq!(splits, load_data(&path).unwrap());

    let nan = npy("<f4", false, "(4,)", &floats(&[1.0, f32::NAN, 3.0, 4.0]));
    let short = npy("<f4", false, "(3,)", &floats(&[1.0, 3.0, 4.0]));
    let empty = npy("<f4", false, "(4, 0)", &[]);
    let cases = [
        (vec![("x", x.clone()), ("y", nan)], "finite"),
        (vec![("x", x.clone()), ("y", short)], "[4] or [4, outputs]"),
        (vec![("x", x.clone()), ("y", empty)], "[4] or [4, outputs]"),
        (
            vec![
                ("x_train", x.clone()),
                ("y_train", vector),
                ("x_test", x.clone()),
                ("y_test", classes),
            ],
            "as the other targets",
        ),
    ];
    for (arrays, expected) in cases {
        fs::write(&path, npz(&arrays, false)).unwrap();
        let error = load_samples(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn arrays_of_inputs_alone_are_inputs_without_targets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let ids = |ids: &[i16]| -> Vec<u8> { ids.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let train = npy("<i2", false, "(2, 3)", &ids(&[0, 256, 3, 4, 5, 6]));
    let test = npy("<i2", false, "(1, 3)", &ids(&[7, 8, 9]));
    let arrays = [("x_train", train.clone()), ("x_test", test.clone())];
    fs::write(&path, npz(&arrays, true)).unwrap();
    let LoadedSamples::Inputs(splits) = load_samples(&path).unwrap() else {
        panic!("expected inputs alone")
    };
    assert!(
        splits.describe.ends_with(
            "npz arrays, 2 training inputs [3] without labels, 1 test inputs [3] without labels"
        ),
        "{}",
        splits.describe
    );
    let train_set = splits.train.unwrap();
    assert_eq!(
        train_set.pixels,
        Pixels::Ids(vec![0.0, 256.0, 3.0, 4.0, 5.0, 6.0])
    );
    let mut input = [0.0; 3];
    train_set.fill_input(0, &Preprocessing::default(), &mut input);
    assert_eq!(input, [0.0, 256.0, 3.0]);
    assert!(splits.whole.is_none() && splits.test.unwrap().len() == 1);

    // With the labels of one part, those of the others are missing.
    let labels = npy("|u1", false, "(2,)", &[0, 1]);
    let negative = npy("<i2", false, "(1, 3)", &ids(&[0, -1, 2]));
    let cases = [
        (
            vec![
                ("x_train", train.clone()),
                ("y_train", labels),
                ("x_test", test.clone()),
            ],
            "expected it beside `x_test`",
        ),
        (
            vec![("x_train", train), ("x", test)],
            "a set that is split or one that is not",
        ),
        (
            vec![("x", negative)],
            "element 1: expected an id from 0 to 16777215, got -1",
        ),
    ];
    for (arrays, expected) in cases {
        fs::write(&path, npz(&arrays, false)).unwrap();
        let error = load_samples(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let error = load_data(&path).unwrap_err().to_string();
    assert!(error.contains("`y`"), "{error}");
}
