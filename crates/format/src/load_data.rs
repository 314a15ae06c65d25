//! Data sets of any kind: arrays of a file, IDX files, class folders, tables.

use std::path::{Path, PathBuf};

use sparsevd_model::Shape;
use sparsevd_model::bind::describe;

use crate::array::{Array, ArrayData};
use crate::cifar;
use crate::dataset::{self, DataSplits, Dataset, Parts};
use crate::read_array::safetensors_arrays;
use crate::regression::{self, LoadedSamples, RegressionSplits};
use crate::table::{self, TableOptions};
use crate::{FileType, FormatError, folder as class_folders, read_idx, read_npz};

/// Loads samples with their classes: images, or the rows of a table.
///
/// The path is one of
/// - a folder of IDX files with MNIST's names, plain or `.gz`
/// - a folder of the binary batches of CIFAR-10 or CIFAR-100
/// - a folder with one folder of PNG images per class (labels in the order of the sorted names), or with `train` and
///   `test` folders of such
/// - an `.npz` archive with `x_train`, `y_train`, `x_test`, `y_test`, or with `x`, `y`
/// - a safetensors file with `train_images`, `train_labels`, `test_images`, `test_labels`, or with `images`, `labels`
/// - a table as CSV, whose last column is the target, or a folder with `train.csv` and `test.csv`; see [`load_samples_with`]
///
/// The content of a file decides which it is, not its name.
/// Images `[n, height, width]` become `[1, height, width]` each; those with their channels last are put in order by
/// [`Dataset::for_input`]. A set without a split (`x` and `y`, `images` and
/// `labels`, class folders alone) is [`DataSplits::whole`].
///
/// # Errors
/// A path that is none of these, a split beside a set without one, images and labels of different number, an empty set, labels that are
/// no integers of 0 to 65535, a table whose target makes a regression, and any broken file.
pub fn load_data(path: impl AsRef<Path>) -> Result<DataSplits, FormatError> {
    let path = path.as_ref();
    match find(path)? {
        Found::Arrays(file) => classes(path, file),
        Found::Folder => folder(path),
        Found::Table { train, test } => {
            let loaded = table::load(&train, test.as_deref(), &TableOptions::default())?;
            match loaded {
                LoadedSamples::Classes(splits) => Ok(splits),
                LoadedSamples::Numbers(RegressionSplits { describe, .. })
                | LoadedSamples::Inputs(DataSplits { describe, .. }) => {
                    Err(FormatError::invalid(path, "dataset", "classes", describe))
                }
            }
        }
    }
}

/// Loads samples with their targets, from the paths that [`load_data`] takes.
///
/// Targets that are floating-point numbers, `[n]` or `[n, outputs]`, make a regression; integers are classes. The arrays of a file may
/// also be inputs alone, with no other array beside them.
///
/// # Errors
/// As [`load_data`]; targets of which some are classes and some are numbers, and targets that are not finite.
pub fn load_samples(path: impl AsRef<Path>) -> Result<LoadedSamples, FormatError> {
    load_samples_with(path, &TableOptions::default())
}

/// Loads samples as [`load_samples`] does; `options` says what is known of a table.
///
/// A table is a CSV file with a header, whose values commas, semicolons or tabs separate, or a folder with `train.csv` and
/// `test.csv`. Of one file a fifth of the rows are for testing, by a draw that depends on the number of rows alone. A column holds
/// numbers or words, and words are categories. Targets with a decimal point or an exponent in some row make a regression;
/// integers from 0 to 999 and words are classes. [`crate::Pixels::Table`] holds the features; see [`sparsevd_model::Table`].
///
/// # Errors
/// As [`load_samples`]; a value that is missing, or of another kind than those before it, with its line and column; a target
/// or, against known columns, a header or a category that is another; options for what is no table.
pub fn load_samples_with(
    path: impl AsRef<Path>,
    options: &TableOptions<'_>,
) -> Result<LoadedSamples, FormatError> {
    let path = path.as_ref();
    let found = find(path)?;
    if let (Found::Arrays(_) | Found::Folder, Some(target)) = (&found, options.target) {
        let (expected, got) = ("a table, which it names a column of", "other data");
        return Err(FormatError::invalid(
            path,
            format!("target `{target}`"),
            expected,
            got,
        ));
    }
    let file = match found {
        Found::Arrays(file) => file,
        Found::Folder => return folder(path).map(LoadedSamples::Classes),
        Found::Table { train, test } => return table::load(&train, test.as_deref(), options),
    };
    of_arrays(path, file)
}

/// Samples from arrays in memory, which have the names of those in an `.npz`: `x_train`, `y_train`, `x_test` and `y_test`, or `x` and `y`.
///
/// They are what [`load_samples`] makes of an `.npz` with these arrays; `name` stands for the file in errors.
///
/// # Errors
/// As [`load_samples`]; an array of another name.
pub fn samples_of_arrays(
    name: &str,
    arrays: Vec<(String, Array)>,
) -> Result<LoadedSamples, FormatError> {
    let path = Path::new(name);
    let known = || NPZ_NAMES.iter().flat_map(|(x, y)| [*x, *y]);
    if let Some((other, _)) = arrays.iter().find(|(n, _)| !known().any(|k| k == n)) {
        let known: Vec<&str> = known().collect();
        let expected = format!("arrays named {}", known.join(", "));
        return Err(FormatError::invalid(
            path,
            "dataset",
            expected,
            format!("`{other}`"),
        ));
    }
    let file = FileArrays {
        kind: "arrays",
        names: NPZ_NAMES,
        arrays,
    };
    of_arrays(path, file)
}

/// Samples with classes or numbers, as the targets are.
fn of_arrays(path: &Path, file: FileArrays) -> Result<LoadedSamples, FormatError> {
    let is_target = |name: &str| file.names.iter().any(|(_, target)| *target == name);
    // With other arrays beside them, targets may have another name than is known.
    let is_input = |(name, _): &(String, Array)| file.names.iter().any(|(input, _)| input == name);
    if !file.arrays.is_empty() && file.arrays.iter().all(is_input) {
        let kind = file.kind;
        let parts = parts(path, file, |file, [input, _]| {
            let array = file.take(input);
            array
                .map(|array| dataset::alone(path, input, array))
                .transpose()
        })?;
        return Ok(LoadedSamples::Inputs(dataset::inputs_alone(
            path, kind, parts,
        )));
    }
    let mut targets = file.arrays.iter().filter(|(name, _)| is_target(name));
    if !targets.any(|(_, array)| matches!(array.data, ArrayData::F32(_))) {
        return classes(path, file).map(LoadedSamples::Classes);
    }
    let kind = file.kind;
    let parts = from_arrays(path, file, regression::join)?;
    Ok(LoadedSamples::Numbers(RegressionSplits::of(
        path, kind, parts,
    )))
}

/// Where the samples of a path are.
enum Found {
    /// In the arrays of a file.
    Arrays(FileArrays),
    /// In IDX files or class folders.
    Folder,
    /// In one table, or in two.
    Table {
        train: PathBuf,
        test: Option<PathBuf>,
    },
}

/// Looks at the kind of a path, and reads its arrays where it is a file that has some.
fn find(path: &Path) -> Result<Found, FormatError> {
    let [train, test] = ["train.csv", "test.csv"].map(|name| path.join(name));
    if train.is_file() {
        return Ok(Found::Table {
            train,
            test: test.is_file().then_some(test),
        });
    }
    let metadata = std::fs::metadata(path).map_err(|e| FormatError::io(path, "read", e))?;
    if metadata.is_dir() {
        return Ok(Found::Folder);
    }
    match FileType::of_file(path)? {
        FileType::Csv => Ok(Found::Table {
            train: path.to_owned(),
            test: None,
        }),
        kind => file_arrays(path, kind).map(Found::Arrays),
    }
}

/// Splits with classes from a folder.
fn folder(path: &Path) -> Result<DataSplits, FormatError> {
    let (kind, parts) = load_folder(path)?;
    Ok(dataset::splits(path, kind, parts))
}

/// The arrays of a file, and the names of inputs and targets: of training, of test, and of a set that is not split.
struct FileArrays {
    kind: &'static str,
    names: [(&'static str, &'static str); 3],
    arrays: Vec<(String, Array)>,
}

impl FileArrays {
    /// The array of this name, which leaves the file.
    fn take(&mut self, name: &str) -> Option<Array> {
        let at = self.arrays.iter().position(|(n, _)| n == name)?;
        Some(self.arrays.swap_remove(at).1)
    }

    /// Names and shapes of the arrays, in words.
    fn found(&self) -> String {
        let arrays = self.arrays.iter();
        describe(arrays.map(|(name, array)| (name.as_str(), Shape(array.shape.clone()))))
    }
}

/// Names of inputs and targets in an `.npz`, and of arrays in memory.
const NPZ_NAMES: [(&str, &str); 3] = [("x_train", "y_train"), ("x_test", "y_test"), ("x", "y")];

/// Reads the arrays of a file.
fn file_arrays(path: &Path, kind: FileType) -> Result<FileArrays, FormatError> {
    Ok(match kind {
        FileType::Npz => FileArrays {
            kind: "npz arrays",
            names: NPZ_NAMES,
            arrays: read_npz(path)?,
        },
        FileType::Safetensors => FileArrays {
            kind: "safetensors arrays",
            names: [
                ("train_images", "train_labels"),
                ("test_images", "test_labels"),
                ("images", "labels"),
            ],
            arrays: safetensors_arrays(path)?,
        },
        other => {
            return Err(FormatError::invalid(
                path,
                "dataset",
                "a folder of IDX files, of CIFAR's batches or of class folders, an .npz, a safetensors file, or a table as CSV",
                other.instead_of_arrays(path),
            ));
        }
    })
}

/// Splits with classes from the arrays of a file.
fn classes(path: &Path, file: FileArrays) -> Result<DataSplits, FormatError> {
    let kind = file.kind;
    let parts = from_arrays(path, file, dataset::join)?;
    Ok(dataset::splits(path, kind, parts))
}

fn load_folder(path: &Path) -> Result<(&'static str, Parts<Dataset>), FormatError> {
    let train = idx_pair(path, "train")?;
    let test = idx_pair(path, "t10k")?;
    if train.is_some() || test.is_some() {
        let parts = Parts {
            train,
            test,
            whole: None,
        };
        return Ok(("IDX files", parts));
    }
    if let Some(batches) = cifar::load(path)? {
        return Ok(batches);
    }
    let (train, test) = (path.join("train"), path.join("test"));
    if !train.is_dir() && !test.is_dir() {
        let parts = Parts {
            train: None,
            test: None,
            whole: Some(class_folders::load(path)?),
        };
        return Ok(("class folders", parts));
    }
    if train.is_dir() && test.is_dir() {
        let (of_train, of_test) = (
            class_folders::classes(&train)?,
            class_folders::classes(&test)?,
        );
        if of_train != of_test {
            return Err(FormatError::invalid(
                &test,
                "class folders",
                format!("those of {}: {}", train.display(), of_train.join(", ")),
                of_test.join(", "),
            ));
        }
    }
    let load = |path: &Path| path.is_dir().then(|| class_folders::load(path)).transpose();
    let parts = Parts {
        train: load(&train)?,
        test: load(&test)?,
        whole: None,
    };
    Ok(("class folders", parts))
}

/// The IDX files of one split, if they are there.
fn idx_pair(folder: &Path, split: &str) -> Result<Option<Dataset>, FormatError> {
    let find = |kind: &str, dims: u8| -> Option<PathBuf> {
        ["-", "."]
            .iter()
            .flat_map(|sep| ["", ".gz"].map(|gz| format!("{split}-{kind}{sep}idx{dims}-ubyte{gz}")))
            .map(|name| folder.join(name))
            .find(|p| p.is_file())
    };
    let (images, labels) = match (find("images", 3), find("labels", 1)) {
        (None, None) => return Ok(None),
        (Some(images), Some(labels)) => (images, labels),
        (images, labels) => {
            let got = images.or(labels).unwrap_or_default();
            return Err(FormatError::invalid(
                folder,
                format!("IDX files of `{split}`"),
                "both images and labels",
                format!("only {}", got.display()),
            ));
        }
    };
    let (of_images, of_labels) = (read_idx(&images)?, read_idx(&labels)?);
    dataset::join(&images, "images", of_images, "labels", of_labels).map(Some)
}

/// Splits by the names of their arrays.
///
/// `join` makes a set of the arrays of inputs and of targets, each behind its name.
fn from_arrays<S>(
    path: &Path,
    file: FileArrays,
    join: impl Fn(&Path, &str, Array, &str, Array) -> Result<S, FormatError>,
) -> Result<Parts<S>, FormatError> {
    let found = file.found();
    parts(path, file, |file, [images, labels]| {
        match (file.take(images), file.take(labels)) {
            (None, None) => Ok(None),
            (Some(x), Some(y)) => join(path, images, x, labels, y).map(Some),
            (x, _) => {
                let (there, absent) = match x {
                    Some(_) => (images, labels),
                    None => (labels, images),
                };
                Err(FormatError::tensor(
                    path,
                    absent,
                    "dataset",
                    format!("it beside `{there}`"),
                    format!("only {found}"),
                ))
            }
        }
    })
}

/// The sets of a file; `set` takes that of an array of inputs and of an array of targets, by their names, out of it. The last pair of
/// names is a set that is not split.
fn parts<S>(
    path: &Path,
    mut file: FileArrays,
    set: impl Fn(&mut FileArrays, [&'static str; 2]) -> Result<Option<S>, FormatError>,
) -> Result<Parts<S>, FormatError> {
    let (found, names) = (file.found(), file.names);
    let mut part = |(images, labels)| set(&mut file, [images, labels]);
    let (train, test, whole) = (part(names[0])?, part(names[1])?, part(names[2])?);
    if train.is_none() && test.is_none() && whole.is_none() {
        let expected: Vec<String> = names.iter().map(|(x, y)| format!("{x} and {y}")).collect();
        return Err(FormatError::invalid(
            path,
            "dataset",
            format!("arrays named {}", expected.join(", or ")),
            found,
        ));
    }
    if whole.is_some() && (train.is_some() || test.is_some()) {
        let split = if train.is_some() { names[0] } else { names[1] };
        return Err(FormatError::invalid(
            path,
            "dataset",
            "a set that is split or one that is not",
            format!("`{}` beside `{}`", names[2].0, split.0),
        ));
    }
    Ok(Parts { train, test, whole })
}
