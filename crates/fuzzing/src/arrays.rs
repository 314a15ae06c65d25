//! Files of numbers: arrays, images and tables.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sparsevd_format::{
    Array, FileType, LoadedSamples, TableOptions, load_samples, load_samples_with,
    read_array_bytes, read_table, samples_of_arrays, standardise,
};
use sparsevd_model::{Network, Table};
use sparsevd_pipeline::{Comparison, InputSamples, OutputValues};

use crate::place::{Place, check_error};
use crate::seeds;

thread_local! {
    static PLACE: Place = Place::new();
    static NETWORK: Network = seeds::perceptron();
}

/// Reads arrays; what is read has as many elements as its shape says.
fn read(bytes: &[u8]) -> Vec<(String, Array)> {
    let arrays = match read_array_bytes("fuzz.file", bytes) {
        Ok(arrays) => arrays,
        Err(error) => {
            check_error(&error);
            return vec![];
        }
    };
    for (name, array) in &arrays {
        let elements = array.shape.iter().product::<usize>();
        assert_eq!(elements, array.data.len(), "`{name}`");
    }
    arrays
}

pub(crate) fn idx(bytes: &[u8]) {
    read(bytes);
}

/// The bytes packed, and as they are.
pub(crate) fn gzip(bytes: &[u8]) {
    let mut packed = GzEncoder::new(vec![], Compression::none());
    packed.write_all(bytes).unwrap();
    let packed = packed.finish().unwrap();
    let (plain, packed) = (read(bytes), read(&packed));
    if FileType::of(bytes) == FileType::Idx {
        // As text, in which NaN is itself.
        assert_eq!(format!("{packed:?}"), format!("{plain:?}"));
    }
}

pub(crate) fn npy(bytes: &[u8]) {
    read(bytes);
}

pub(crate) fn npz(bytes: &[u8]) {
    let arrays = read(bytes);
    if let Err(error) = samples_of_arrays("fuzz.npz", arrays) {
        check_error(&error);
    }
}

pub(crate) fn png(bytes: &[u8]) {
    for (_, array) in read(bytes) {
        assert!(
            matches!(array.shape.as_slice(), [1 | 3, _, _]) || FileType::of(bytes) != FileType::Png
        );
    }
}

/// A table to train on, and rows for a network that was trained on another.
pub(crate) fn csv(bytes: &[u8]) {
    PLACE.with(|place| {
        let path = place.write("table.csv", bytes);
        match load_samples(&path) {
            Ok(samples) => of_same_table(&path, samples),
            Err(error) => check_error(&error),
        }
        let target = TableOptions {
            target: Some("b"),
            table: None,
        };
        if let Err(error) = load_samples_with(&path, &target) {
            check_error(&error);
        }
        match read_table(&path, &seeds::table()) {
            Ok(features) => assert_eq!(features.len() % seeds::table().features(), 0),
            Err(error) => check_error(&error),
        }
    });
}

/// A table has the columns that it was read with.
fn of_same_table(path: &Path, samples: LoadedSamples) {
    let table: Option<Table> = match samples {
        LoadedSamples::Classes(splits) => splits.table,
        LoadedSamples::Numbers(splits) => splits.table,
        LoadedSamples::Inputs(_) => None,
    };
    let table = table.expect("the columns of a table");
    let features = read_table(path, &table).expect("a table that was read");
    standardise(&features, table);
}

/// Data sets, inputs and expected outputs, of any kind of file.
pub(crate) fn samples(bytes: &[u8]) {
    PLACE.with(|place| {
        let path = place.write("samples", bytes);
        if let Err(error) = load_samples(&path) {
            check_error(&error);
        }
        let arrays = read(bytes);
        NETWORK.with(|network| {
            let files = [path.to_string_lossy().into_owned()];
            match InputSamples::read(&files, None, None, network) {
                Ok(samples) => {
                    let [(_, values)] = samples.named()[..] else {
                        panic!("one input");
                    };
                    assert_eq!(values.len(), samples.count * 6);
                    samples.cycled(3);
                }
                Err(error) => check_error(&error),
            }
        });
        let outputs = [OutputValues {
            name: "fc2".into(),
            shape: vec![2, 3],
            values: vec![0.0, 1.0, -2.0, f32::NAN, f32::INFINITY, 3.0],
        }];
        match Comparison::of(&outputs, &path, &arrays) {
            Ok(all) => assert!(all[0].error >= 0.0),
            Err(error) => check_error(&error),
        }
    });
}
