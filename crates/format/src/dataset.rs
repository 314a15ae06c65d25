//! Samples with classes: images, vectors, or rows of a table.

use std::path::Path;

use sparsevd_model::{Input, MOST_IDS, Preprocessing, Shape, Table, memory};

use crate::{Array, ArrayData, FormatError};

/// The values of all images of a [`Dataset`], one after another in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// Pixels of 0 to 255, which the network's preprocessing turns into its input.
    U8(Vec<u8>),
    /// Numbers that are the network's input as they are; no preprocessing applies.
    F32(Vec<f32>),
    /// Features of the rows of a table, which the network's preprocessing turns into its input.
    Table(Vec<f32>),
    /// Integers that number the rows of a network's tables, as floating-point numbers, which hold them exactly. No preprocessing
    /// applies.
    Ids(Vec<f32>),
}

impl Pixels {
    /// Number of values of all images.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::F32(v) | Self::Table(v) | Self::Ids(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Samples of one shape, each with its class: images, vectors, or the features of a table's rows; all are called images here.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Values of all images.
    pub pixels: Pixels,
    /// Shape of one image, `[channels, height, width]` or `[features]`.
    pub shape: Shape,
    /// Class of each image.
    pub labels: Vec<u16>,
}

impl Dataset {
    /// Puts images and labels together.
    ///
    /// # Errors
    /// [`FormatError::Dataset`] for an empty set, or where the number of values is not that of the labels.
    pub fn new(pixels: Pixels, shape: Shape, labels: Vec<u16>) -> Result<Self, FormatError> {
        if labels.is_empty() || shape.elements() == 0 {
            return Err(mismatch(
                "images",
                "at least one image of at least one pixel",
                format!("{} of shape {shape}", labels.len()),
            ));
        }
        if labels.len().checked_mul(shape.elements()) != Some(pixels.len()) {
            return Err(mismatch(
                "images",
                format!("{} of shape {shape}, one per label", labels.len()),
                format!("{} values", pixels.len()),
            ));
        }
        Ok(Self {
            pixels,
            shape,
            labels,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of classes: the largest label and one.
    pub fn classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |&m| usize::from(m) + 1)
    }

    /// Writes the network input of one image to `out`.
    ///
    /// U8 pixels and features of a table go through `preprocessing`; F32 values and ids are input already and are copied as they are.
    ///
    /// # Panics
    /// When there is no such image or `out` is not of its size.
    #[track_caller]
    pub fn fill_input(&self, index: usize, preprocessing: &Preprocessing, out: &mut [f32]) {
        let size = self.shape.elements();
        let range = index * size..(index + 1) * size;
        match &self.pixels {
            Pixels::U8(pixels) => preprocessing.apply(&self.shape, &pixels[range], out),
            Pixels::F32(values) | Pixels::Ids(values) => out.copy_from_slice(&values[range]),
            Pixels::Table(values) => preprocessing.apply(&self.shape, &values[range], out),
        }
    }

    /// The samples for an input of a network: bytes are ids where the input takes ids, of which there are `ids`; images with their
    /// channels last, `[height, width, channels]`, are put in the order of an input `[channels, height, width]`.
    ///
    /// # Errors
    /// [`FormatError::Dataset`] for integers where the input takes pixels or numbers and the other way round, and for an id that is none.
    pub fn for_input(mut self, input: &Input, ids: Option<usize>) -> Result<Self, FormatError> {
        let name = &input.name;
        if !input.dtype.is_id() {
            self.put_channels_first(&input.shape)?;
            return match self.pixels {
                Pixels::Ids(_) => Err(mismatch(
                    format!("values of input `{name}`"),
                    "u8 pixels or floating-point numbers",
                    "integers",
                )),
                _ => Ok(self),
            };
        }
        let values = match self.pixels {
            Pixels::U8(bytes) => bytes.into_iter().map(f32::from).collect(),
            Pixels::Ids(ids) => ids,
            Pixels::F32(_) | Pixels::Table(_) => {
                let what = format!("values of input `{name}`");
                let expected = "integers, which are ids";
                return Err(mismatch(what, expected, "floating-point numbers"));
            }
        };
        let ids = ids.unwrap_or(MOST_IDS);
        let is_id = |v: &f32| v.fract() == 0.0 && (0.0..ids as f32).contains(v);
        if let Some(at) = values.iter().position(|v| !is_id(v)) {
            return Err(mismatch(
                format!("input `{name}`, sample {}", at / self.shape.elements()),
                format!("ids from 0 to {}", ids - 1),
                values[at].to_string(),
            ));
        }
        self.pixels = Pixels::Ids(values);
        Ok(self)
    }

    /// Puts channels before the pixels where images are those of `input` but for that.
    fn put_channels_first(&mut self, input: &Shape) -> Result<(), FormatError> {
        let (&[h, w, c], &[channels, height, width]) = (self.shape.dims(), input.dims()) else {
            return Ok(());
        };
        if [h, w, c] != [height, width, channels] || self.shape == *input {
            return Ok(());
        }
        let bytes = match &self.pixels {
            Pixels::U8(v) => v.len(),
            other => 4 * other.len(),
        };
        let what = "images with their channels last";
        memory::check(|| what.into(), bytes as u64)
            .map_err(|e| mismatch(what, "memory to put them in order", e.to_string()))?;
        match &mut self.pixels {
            Pixels::U8(v) => *v = transposed(v, h * w, c),
            Pixels::F32(v) | Pixels::Table(v) | Pixels::Ids(v) => *v = transposed(v, h * w, c),
        }
        self.shape = input.clone();
        Ok(())
    }

    /// The images at these places, in their order.
    ///
    /// # Panics
    /// When there is no such image.
    #[must_use]
    #[track_caller]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let size = self.shape.elements();
        fn pick<T: Copy>(values: &[T], indices: &[usize], size: usize) -> Vec<T> {
            let mut out = Vec::with_capacity(indices.len() * size);
            for &i in indices {
                out.extend_from_slice(&values[i * size..(i + 1) * size]);
            }
            out
        }
        Self {
            pixels: match &self.pixels {
                Pixels::U8(v) => Pixels::U8(pick(v, indices, size)),
                Pixels::F32(v) => Pixels::F32(pick(v, indices, size)),
                Pixels::Table(v) => Pixels::Table(pick(v, indices, size)),
                Pixels::Ids(v) => Pixels::Ids(pick(v, indices, size)),
            },
            shape: self.shape.clone(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// Checks that the images can be the input of a network and that their labels are among its classes.
    ///
    /// Dimensions of one do not matter. A vector fits where an image of the same size and order is meant: images flatten for a
    /// network that takes `[features]`, and vectors fit a network that takes `[1, height, width]`.
    ///
    /// # Errors
    /// [`FormatError::Dataset`] with the sizes, or with the first label that is out of range.
    pub fn check_against(&self, input: &Shape, classes: usize) -> Result<(), FormatError> {
        let same_size = self.shape.elements() == input.elements();
        let squeezed = |shape: &Shape| -> Vec<usize> {
            shape.dims().iter().copied().filter(|d| *d != 1).collect()
        };
        let (ours, theirs) = (squeezed(&self.shape), squeezed(input));
        // Preprocessing may differ by channel, so channels stay what they are.
        let channels = |shape: &Shape| match shape.dims() {
            &[channels, _, _] => channels,
            _ => 1,
        };
        let same = ours == theirs && channels(&self.shape) == channels(input);
        let flat = channels(input) == 1 && ours.len().min(theirs.len()) <= 1;
        if !(same || (same_size && flat)) {
            return Err(mismatch(
                "shape of a sample",
                format!("{input}, that of the network's input"),
                self.shape.to_string(),
            ));
        }
        match (self.labels.iter()).position(|&l| usize::from(l) >= classes) {
            None => Ok(()),
            Some(at) => Err(mismatch(
                format!("label of image {at}"),
                format!("0 to {}, the network's classes", classes.saturating_sub(1)),
                self.labels[at].to_string(),
            )),
        }
    }
}

/// The parts of a dataset that a path holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSplits {
    /// Images to train on.
    pub train: Option<Dataset>,
    /// Images to evaluate on. Where only these are there, nothing is to be trained on.
    pub test: Option<Dataset>,
    /// All images of a set that says nothing of a split; the other two are `None` then.
    pub whole: Option<Dataset>,
    /// The columns, of a table.
    pub table: Option<Table>,
    /// What was found, in one line for the user.
    pub describe: String,
}

/// Splits with classes from the sets that were found.
pub(crate) fn splits(path: &Path, kind: &str, parts: Parts<Dataset>) -> DataSplits {
    DataSplits {
        table: None,
        describe: parts.describe(path, kind, |name, set| {
            let (n, shape, classes) = (set.len(), &set.shape, set.classes());
            format!("{n} {name}images {shape} of {classes} classes")
        }),
        train: parts.train,
        test: parts.test,
        whole: parts.whole,
    }
}

/// Splits without targets from the sets that were found.
pub(crate) fn inputs_alone(path: &Path, kind: &str, parts: Parts<Dataset>) -> DataSplits {
    DataSplits {
        table: None,
        describe: parts.describe(path, kind, |name, set| {
            format!("{} {name}inputs {} without labels", set.len(), set.shape)
        }),
        train: parts.train,
        test: parts.test,
        whole: parts.whole,
    }
}

/// The sets that were found.
pub(crate) struct Parts<S> {
    pub train: Option<S>,
    pub test: Option<S>,
    pub whole: Option<S>,
}

impl<S> Parts<S> {
    /// One line that describes the sets; `one` describes a set of some name.
    pub fn describe(&self, path: &Path, kind: &str, one: impl Fn(&str, &S) -> String) -> String {
        let sets = [
            ("training ", &self.train, ""),
            ("test ", &self.test, ""),
            ("", &self.whole, ", not split"),
        ];
        let found = sets.into_iter().filter_map(|(name, set, after)| {
            let set = set.as_ref()?;
            Some(format!("{}{after}", one(name, set)))
        });
        let found: Vec<String> = found.collect();
        format!("{}: {kind}, {}", path.display(), found.join(", "))
    }
}

/// `[n][area][channels]` as `[n][channels][area]`.
fn transposed<T: Copy + Default>(values: &[T], area: usize, channels: usize) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    let size = area * channels;
    for (image, out) in values.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
        for (at, pixel) in image.chunks_exact(channels).enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                out[c * area + at] = value;
            }
        }
    }
    out
}

/// Inputs from an array, and the shape of one of them.
fn inputs(path: &Path, name: &str, array: Array) -> Result<(Pixels, Shape), FormatError> {
    let shape = match array.shape.as_slice() {
        &[_, h, w] => Shape::from([1, h, w]),
        [_, rest @ ..] if matches!(rest.len(), 1 | 3) => Shape(rest.to_vec()),
        other => {
            return Err(FormatError::tensor(
                path,
                name,
                "shape",
                "[n, features], [n, height, width] or [n, channels, height, width]",
                Shape(other.to_vec()).to_string(),
            ));
        }
    };
    let fail = |at: usize, expected: String, got: String| {
        FormatError::tensor(path, name, format!("element {at}"), expected, got)
    };
    let pixels = match array.data {
        ArrayData::U8(v) => Pixels::U8(v),
        ArrayData::F32(v) => match v.iter().position(|v| !v.is_finite()) {
            None => Pixels::F32(v),
            Some(at) => return Err(fail(at, "a finite number".into(), v[at].to_string())),
        },
        ArrayData::I64(v) => match v.iter().position(|v| !(0..MOST_IDS as i64).contains(v)) {
            None => Pixels::Ids(v.into_iter().map(|id| id as f32).collect()),
            Some(at) => {
                let expected = format!("an id from 0 to {}", MOST_IDS - 1);
                return Err(fail(at, expected, v[at].to_string()));
            }
        },
        other @ ArrayData::Bool(_) => {
            return Err(FormatError::tensor(
                path,
                name,
                "element type",
                "u8 pixels, floating-point numbers, or integers, which are ids",
                other.kind(),
            ));
        }
    };
    Ok((pixels, shape))
}

/// Inputs without targets from an array; all labels are 0.
pub(crate) fn alone(path: &Path, name: &str, array: Array) -> Result<Dataset, FormatError> {
    let count = array.shape.first().copied().unwrap_or_default();
    let (pixels, shape) = inputs(path, name, array)?;
    new(path, name, pixels, shape, vec![0; count])
}

/// [`Dataset::new`], whose error names the array of the inputs.
fn new(
    path: &Path,
    name: &str,
    pixels: Pixels,
    shape: Shape,
    labels: Vec<u16>,
) -> Result<Dataset, FormatError> {
    Dataset::new(pixels, shape, labels).map_err(|e| match e {
        FormatError::Dataset {
            what,
            expected,
            got,
        } => FormatError::tensor(path, name, what, expected, got),
        other => other,
    })
}

/// Images and labels from arrays.
pub(crate) fn join(
    path: &Path,
    images_name: &str,
    images: Array,
    labels_name: &str,
    labels: Array,
) -> Result<Dataset, FormatError> {
    let count = images.shape.first().copied().unwrap_or_default();
    let (pixels, shape) = inputs(path, images_name, images)?;
    if !matches!(labels.shape.as_slice(), [_] | [_, 1]) || labels.shape[0] != count {
        return Err(FormatError::tensor(
            path,
            labels_name,
            "shape",
            format!("[{count}], one label per image of `{images_name}`"),
            Shape(labels.shape).to_string(),
        ));
    }
    let classes: Vec<u16> = match labels.data {
        ArrayData::U8(v) => v.into_iter().map(u16::from).collect(),
        ArrayData::Bool(v) => v.into_iter().map(u16::from).collect(),
        ArrayData::I64(v) => {
            let label = |(at, v): (usize, i64)| {
                u16::try_from(v).map_err(|_| {
                    let what = format!("label {at}");
                    FormatError::tensor(path, labels_name, what, "0 to 65535", v.to_string())
                })
            };
            v.into_iter()
                .enumerate()
                .map(label)
                .collect::<Result<_, _>>()?
        }
        ArrayData::F32(_) => {
            return Err(FormatError::tensor(
                path,
                labels_name,
                "element type",
                "integers",
                "floating-point numbers",
            ));
        }
    };
    new(path, images_name, pixels, shape, classes)
}

pub(crate) fn mismatch(
    what: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> FormatError {
    FormatError::Dataset {
        what: what.into(),
        expected: expected.into(),
        got: got.into(),
    }
}
