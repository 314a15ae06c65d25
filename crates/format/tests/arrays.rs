//! Data sets of arrays in memory.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_format::{
    Array, ArrayData, LoadedSamples, load_samples, read_array, read_array_bytes, read_idx,
    samples_of_arrays, write_npy, write_npz,
};

fn array(shape: &[usize], data: ArrayData) -> Array {
    Array {
        shape: shape.to_vec(),
        data,
    }
}

fn inputs() -> Array {
    array(&[4, 3], ArrayData::F32((0..12).map(|i| i as f32).collect()))
}

fn named(arrays: &[(&str, Array)]) -> Vec<(String, Array)> {
    let owned = |(name, array): &(&str, Array)| ((*name).to_owned(), array.clone());
    arrays.iter().map(owned).collect()
}

/// Here, where no test reads a large file: an allocation may have a thousand times the bytes that the process read.
#[test]
fn a_claim_of_gigabytes_is_refused_before_they_are_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-idx3-ubyte");
    let header = [0, 0, 8, 2, 64, 0, 0, 0, 0, 0, 0, 4];
    std::fs::write(&path, [&header[..], &[1, 2, 3]].concat()).unwrap();
    let error = read_idx(&path).unwrap_err().to_string();
    assert!(
        error.contains("memory for array") && error.contains("x-idx3-ubyte"),
        "{error}"
    );
}

#[test]
fn they_are_those_of_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let numbers = array(&[4], ArrayData::F32(vec![1.0, 2.0, 3.0, 4.0]));
    write_npz(
        &path,
        &[
            ("x", &[4, 3], &[0.0; 12]),
            ("y", &[4], &[1.0, 2.0, 3.0, 4.0]),
        ],
    )
    .unwrap();
    let zeros = array(&[4, 3], ArrayData::F32(vec![0.0; 12]));
    let in_memory = samples_of_arrays("data", named(&[("x", zeros), ("y", numbers)])).unwrap();
    let (LoadedSamples::Numbers(a), LoadedSamples::Numbers(b)) =
        (in_memory, load_samples(&path).unwrap())
    else {
        panic!("expected numbers")
    };
    assert_eq!(a.whole, b.whole);
    assert_eq!(
        a.describe,
        "data: arrays, 4 samples [3] with 1 numbers each, not split"
    );
}

#[test]
fn targets_of_integers_are_classes() {
    let classes = array(&[4], ArrayData::I64(vec![0, 1, 2, 1]));
    let arrays = named(&[("x_train", inputs()), ("y_train", classes)]);
    let LoadedSamples::Classes(splits) = samples_of_arrays("data", arrays).unwrap() else {
        panic!("expected classes")
    };
    assert_eq!(splits.train.unwrap().labels, [0, 1, 2, 1]);
}

#[test]
fn what_does_not_fit_is_named() {
    let classes = |of: &[i64]| array(&[of.len()], ArrayData::I64(of.to_vec()));
    let nan = array(&[4, 3], ArrayData::F32(vec![f32::NAN; 12]));
    let cases = [
        (
            vec![
                ("x_train", inputs()),
                ("x_test", inputs()),
                ("y_test", classes(&[0, 1, 1, 0])),
            ],
            "data: tensor `y_train`",
        ),
        (
            vec![("x", inputs()), ("y", classes(&[0, 1, 1]))],
            "data: tensor `y`: shape: expected [4]",
        ),
        (
            vec![("x", nan), ("y", classes(&[0, 1, 1, 0]))],
            "data: tensor `x`: element 0: expected a finite number",
        ),
        (
            vec![("x", inputs()), ("Y", classes(&[0, 1, 1, 0]))],
            "expected arrays named x_train, y_train, x_test, y_test, x, y, got `Y`",
        ),
    ];
    for (arrays, expected) in cases {
        let error = samples_of_arrays("data", named(&arrays)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn the_bytes_of_a_file_are_read_as_the_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.file");
    let mut files = vec![];
    write_npz(&path, &[("x", &[2, 3], &[0.5; 6]), ("y", &[2], &[1.0; 2])]).unwrap();
    files.push(std::fs::read(&path).unwrap());
    write_npy(&path, &[3, 2], &[0.0, 1.0, 2.0, -3.0, 4.0, 5.0]).unwrap();
    files.push(std::fs::read(&path).unwrap());
    files.push(
        [
            &[0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3][..],
            &[9, 8, 7, 6, 5, 4],
        ]
        .concat(),
    );
    let header = r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    files.push([&length[..], header.as_bytes(), &[0; 8]].concat());
    for bytes in &files {
        std::fs::write(&path, bytes).unwrap();
        let expected = read_array(&path).unwrap();
        assert_eq!(read_array_bytes(&path, bytes).unwrap(), expected);
        let cut = read_array_bytes(&path, &bytes[..bytes.len() - 3]);
        assert!(cut.unwrap_err().to_string().contains("a.file"));
    }
    assert!(read_array_bytes(&path, b"").is_err());
}
