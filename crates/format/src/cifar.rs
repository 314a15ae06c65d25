//! The binary batches of CIFAR-10 and CIFAR-100 (Krizhevsky 2009).

use std::path::Path;

use sparsevd_model::Shape;

use crate::array::MAX_BYTES;
use crate::dataset::Parts;
use crate::{Dataset, FormatError, Pixels, read_file};

const IMAGE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = 3 * 32 * 32;

/// The files of one of the sets: records of labels, one byte each, and the pixels of an image, channel by channel.
struct Kind {
    name: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// Bytes before the pixels, of which the last is the label: CIFAR-100 has that of the superclass before it.
    labels: usize,
    classes: u8,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "CIFAR-10 batches",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        labels: 1,
        classes: 10,
    },
    Kind {
        name: "CIFAR-100 batches",
        train: &["train.bin"],
        test: "test.bin",
        labels: 2,
        classes: 100,
    },
];

/// The sets of a folder of batches, with their name, if it has any.
pub(crate) fn load(folder: &Path) -> Result<Option<(&'static str, Parts<Dataset>)>, FormatError> {
    for kind in &KINDS {
        let (train, test) = (
            kind.set(folder, kind.train)?,
            kind.set(folder, &[kind.test])?,
        );
        if train.is_some() || test.is_some() {
            let whole = None;
            return Ok(Some((kind.name, Parts { train, test, whole })));
        }
    }
    Ok(None)
}

impl Kind {
    /// The images of these files, of which all or none must be there.
    fn set(&self, folder: &Path, files: &[&str]) -> Result<Option<Dataset>, FormatError> {
        if !files.iter().any(|name| folder.join(name).is_file()) {
            return Ok(None);
        }
        let (mut pixels, mut labels) = (vec![], vec![]);
        for name in files {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(FormatError::invalid(folder, self.name, *name, "none"));
            }
            let bytes = read_file(&path, MAX_BYTES)?;
            let record = self.labels + PIXELS;
            if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
                let expected = format!("records of {record} bytes");
                let got = format!("{} bytes", bytes.len());
                return Err(FormatError::invalid(&path, self.name, expected, got));
            }
            for (i, record) in bytes.chunks_exact(record).enumerate() {
                let (of_record, image) = record.split_at(self.labels);
                let label = of_record[self.labels - 1];
                if label >= self.classes {
                    return Err(FormatError::invalid(
                        &path,
                        format!("label of image {i}"),
                        format!("0 to {}", self.classes - 1),
                        label.to_string(),
                    ));
                }
                labels.push(u16::from(label));
                pixels.extend_from_slice(image);
            }
        }
        Dataset::new(Pixels::U8(pixels), Shape::from(IMAGE), labels).map(Some)
    }
}
