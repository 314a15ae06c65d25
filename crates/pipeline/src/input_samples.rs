//! Samples of the inputs of a network, from arrays of files.

use std::path::Path;

use sparsevd_format::{Array, ArrayData, FileType, read_array, read_table};
use sparsevd_model::{Input, Network, Shape};

use crate::error::PipelineError;
use crate::preprocessing::{of_pixels, of_table};

/// Samples of the inputs of a network, in the order of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSamples {
    /// Samples of each input.
    pub count: usize,
    /// Elements of the free dimension; 1 where there is none.
    pub length: usize,
    /// Of each input its name and its samples, `[n][shape]` in C order.
    inputs: Vec<(String, Vec<f32>)>,
}

impl InputSamples {
    /// `count` samples of each input: `fill(input, n)` makes the `n` elements of all samples of an input. A free dimension has `length` elements.
    pub fn generate(
        network: &Network,
        count: usize,
        length: usize,
        fill: impl Fn(&Input, usize) -> Vec<f32>,
    ) -> Self {
        let inputs = network.graph.inputs.iter().map(|input| {
            let elements = input.tensor_type().shape(length).elements();
            (input.name.clone(), fill(input, count * elements))
        });
        Self {
            count,
            length: network.graph.free_symbol().map_or(1, |_| length),
            inputs: inputs.collect(),
        }
    }

    /// `count` samples of numbers from 0 to 1, or of ids, the same in every run. A free dimension has `length` elements.
    pub fn random(network: &Network, count: usize, length: usize) -> Self {
        let ids = network.ids();
        Self::generate(network, count, length, |input, len| {
            let ids = ids.get(input.name.as_str());
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let next = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let unit = (state >> 40) as f32 / (1u64 << 24) as f32;
                ids.map_or(unit, |&ids| (unit * ids as f32).floor())
            };
            (0..len).map(next).collect()
        })
    }

    /// Reads samples from files, each named `FILE`, or `NAME=FILE` for the input of that name.
    ///
    /// A file has the arrays of [`read_array`], `[shape]` or `[n][shape]`, of which bytes are pixels, or is a CSV file of rows for a
    /// network that stores the columns of a table. Of an input of ids they are integers. `array` names one of several arrays of a file, for a network with one input.
    /// Inputs that `files` do not have are in the arrays `others` of the file with that path.
    ///
    /// # Errors
    /// Inputs without an array or with two; arrays of another shape or type; pixels or a table for a network that does not say how they
    /// become its input; files that cannot be read.
    pub fn read(
        files: &[String],
        array: Option<&str>,
        others: Option<(&Path, &[(String, Array)])>,
        network: &Network,
    ) -> Result<Self, PipelineError> {
        let inputs = &network.graph.inputs;
        let mut sources: Vec<Option<Source<'_>>> = inputs.iter().map(|_| None).collect();
        for file in files {
            let named = file.split_once('=').and_then(|(name, path)| {
                let index = inputs.iter().position(|i| i.name == name)?;
                Some((index, Path::new(path)))
            });
            let (indices, path) = match named {
                Some((index, path)) => (vec![index], path),
                None => ((0..inputs.len()).collect(), Path::new(file)),
            };
            if named.is_none() && file.contains('=') && inputs.len() > 1 && !path.exists() {
                return Err(PipelineError::InputName {
                    file: file.clone(),
                    inputs: names(network),
                });
            }
            let arrays = match FileType::of_file(path)? {
                FileType::Csv => vec![("rows".into(), read_rows(path, network)?)],
                _ => read_array(path)?,
            };
            for index in indices {
                let Some((name, array)) =
                    choose(path, &arrays, array, network, index, named.is_some(), true)?
                else {
                    continue;
                };
                let source = Source {
                    path,
                    name: name.clone(),
                    array: array.clone(),
                };
                if sources[index].replace(source).is_some() {
                    return Err(PipelineError::InputTwice {
                        file: file.clone(),
                        input: inputs[index].name.clone(),
                    });
                }
            }
        }
        if let Some((path, arrays)) = others {
            for (index, source) in sources.iter_mut().enumerate() {
                if source.is_none()
                    && let Some((name, array)) =
                        choose(path, arrays, None, network, index, false, false)?
                {
                    *source = Some(Source {
                        path,
                        name: name.clone(),
                        array: array.clone(),
                    });
                }
            }
        }
        let mut samples = InputSamples {
            count: 0,
            length: 1,
            inputs: Vec::new(),
        };
        for (input, source) in inputs.iter().zip(sources) {
            let Some(Source { path, name, array }) = source else {
                return Err(PipelineError::NoInput {
                    input: input.name.clone(),
                    inputs: names(network),
                });
            };
            let shape = shape_of(&array, input);
            let (count, values) = to_samples(path, &name, &array, input, &shape, network)?;
            if let Some(free) = &input.free {
                samples.length = shape.dims()[free.dimension];
            }
            if !samples.inputs.is_empty() && count != samples.count {
                let path = path.display();
                return Err(PipelineError::invalid(
                    format!("{path}: array `{name}` for the input `{}`", input.name),
                    format!(
                        "{} samples, as of the input `{}`",
                        samples.count, inputs[0].name
                    ),
                    count.to_string(),
                ));
            }
            samples.count = count;
            samples.inputs.push((input.name.clone(), values));
        }
        Ok(samples)
    }

    /// The inputs by name, as a session takes them.
    pub fn named(&self) -> Vec<(&str, &[f32])> {
        let inputs = self.inputs.iter();
        inputs.map(|(n, v)| (n.as_str(), v.as_slice())).collect()
    }

    /// The first `count` samples; where there are fewer, they are repeated.
    pub fn cycled(&self, count: usize) -> Self {
        let cycle = |values: &[f32]| {
            let sample = values.len() / self.count.max(1);
            values
                .iter()
                .copied()
                .cycle()
                .take(count * sample)
                .collect()
        };
        let inputs = self.inputs.iter();
        Self {
            count,
            length: self.length,
            inputs: inputs.map(|(n, v)| (n.clone(), cycle(v))).collect(),
        }
    }
}

/// Where the array of an input comes from.
struct Source<'a> {
    path: &'a Path,
    name: String,
    array: Array,
}

/// Reads the rows of a table as inputs, by the columns that the network stores.
fn read_rows(path: &Path, network: &Network) -> Result<Array, PipelineError> {
    let preprocessing = of_table(&network.graph, &path.display())?;
    let (input, table) = (&network.graph.inputs[0].shape, preprocessing.table.as_ref());
    let features = table.map_or(Ok(vec![]), |table| read_table(path, table))?;
    let mut values = vec![0.0; features.len()];
    preprocessing.apply(input, &features, &mut values);
    Ok(Array {
        shape: vec![values.len() / input.elements().max(1), input.elements()],
        data: ArrayData::F32(values),
    })
}

/// The array of a file for an input. `is_named` says that the file is for that input alone; another file may leave out some of several inputs.
/// `has_choice` says that `array` could name another.
fn choose<'f>(
    path: &Path,
    arrays: &'f [(String, Array)],
    array: Option<&str>,
    network: &Network,
    index: usize,
    is_named: bool,
    has_choice: bool,
) -> Result<Option<&'f (String, Array)>, PipelineError> {
    let inputs = &network.graph.inputs;
    let input = &inputs[index];
    let find = |name: &str| arrays.iter().find(|(n, _)| n == name);
    let is_only = inputs.len() == 1;
    let chosen = match array {
        Some(name) => find(name),
        None if arrays.len() == 1 && (is_only || is_named) => arrays.first(),
        None if is_only => find("x").or_else(|| find(&input.name)),
        None => find(&input.name),
    };
    if chosen.is_some() || !(is_only || is_named) {
        return Ok(chosen);
    }
    let expected = match array {
        Some(name) => format!("`{name}`"),
        None if is_only => format!("`x` or `{}`", input.name),
        None => format!("`{}`", input.name),
    };
    Err(PipelineError::NoArray {
        path: path.to_owned(),
        expected,
        has_choice: has_choice && is_only && array.is_none(),
        got: describe(arrays),
    })
}

/// Names of the inputs, for messages.
fn names(network: &Network) -> String {
    let inputs = network.graph.inputs.iter();
    let names: Vec<String> = inputs
        .map(|i| format!("`{}` {}", i.name, i.tensor_type()))
        .collect();
    names.join(", ")
}

/// Names and shapes of arrays, for messages; long lists are cut.
pub(crate) fn describe(arrays: &[(String, Array)]) -> String {
    const MOST: usize = 24;
    let listed: Vec<String> = (arrays.iter().take(MOST))
        .map(|(n, a)| format!("`{n}` {}", Shape(a.shape.clone())))
        .collect();
    match arrays.len() {
        0 => "no array".into(),
        n if n > MOST => format!("{}, ... ({} more)", listed.join(", "), n - MOST),
        _ => listed.join(", "),
    }
}

/// Shape of a sample of an input; a free dimension has the size that an array of one or more samples has there.
fn shape_of(array: &Array, input: &Input) -> Shape {
    let Some(free) = &input.free else {
        return input.shape.clone();
    };
    let batch = array.shape.len().checked_sub(input.shape.dims().len());
    let size = match batch {
        Some(axes @ 0..=1) => array.shape[axes + free.dimension],
        _ => 0,
    };
    input.tensor_type().shape(size)
}

/// Takes an array as one sample of an input or several: their number, and the numbers in the layout of the input.
fn to_samples(
    path: &Path,
    name: &str,
    array: &Array,
    of: &Input,
    input: &Shape,
    network: &Network,
) -> Result<(usize, Vec<f32>), PipelineError> {
    let at = || format!("{}: array `{name}`", path.display());
    let last = match of.dtype.is_id() {
        true => None,
        false => count_channels_last(&array.shape, input),
    };
    let Some(count) = count(&array.shape, input).or(last) else {
        let expected = of.tensor_type();
        let dims: Vec<String> = expected.dims.iter().map(ToString::to_string).collect();
        return Err(PipelineError::invalid(
            at(),
            format!("shape {expected} or [n, {}]", dims.join(", ")),
            Shape(array.shape.clone()).to_string(),
        ));
    };
    if count == 0 {
        return Err(PipelineError::invalid(at(), "at least one sample", "none"));
    }
    let values = match &array.data {
        ArrayData::U8(ids) if of.dtype.is_id() => ids.iter().map(|&id| f32::from(id)).collect(),
        // Those that are no `f32` number no row.
        ArrayData::I64(ids) if of.dtype.is_id() => ids.iter().map(|&id| id as f32).collect(),
        other if of.dtype.is_id() => {
            let expected = "integers, for an input of ids";
            return Err(PipelineError::invalid(at(), expected, other.kind()));
        }
        ArrayData::F32(values) if last.is_some() => channels_first(values, input),
        ArrayData::F32(values) => values.clone(),
        ArrayData::U8(pixels) if network.graph.inputs[0].name == of.name => {
            let mut values = vec![0.0; pixels.len()];
            let pixels = match last {
                Some(_) => &channels_first(pixels, input),
                None => pixels,
            };
            of_pixels(&network.graph, &path.display())?.apply(input, pixels, &mut values);
            values
        }
        other => {
            return Err(PipelineError::invalid(
                at(),
                "u8 pixels or floating-point numbers",
                other.kind(),
            ));
        }
    };
    // The channels of a colour image could be as many samples of one channel.
    if count != 1 && FileType::of_file(path)? == FileType::Png {
        return Err(PipelineError::invalid(
            path.display(),
            format!("a grey image, for the input {input} of the network"),
            format!(
                "a colour image {}; convert it: magick IN.png -colorspace gray OUT.png",
                Shape(array.shape.clone())
            ),
        ));
    }
    Ok((count, values))
}

fn squeezed(dims: &[usize]) -> Vec<usize> {
    dims.iter().copied().filter(|&d| d != 1).collect()
}

/// Samples in an array of that shape; dimensions of one and the split of a vector into a map do not matter.
fn count(array: &[usize], input: &Shape) -> Option<usize> {
    let fits = |dims: &[usize]| {
        let same = squeezed(dims) == squeezed(input.dims());
        let flat = dims.len() <= 1 || squeezed(input.dims()).len() <= 1;
        same || (flat && dims.iter().product::<usize>() == input.elements())
    };
    match array.split_first() {
        _ if array.len() <= input.dims().len() && fits(array) => Some(1),
        Some((&n, rest)) if fits(rest) => Some(n),
        _ => None,
    }
}

/// Samples in an array `[height, width, channels]` or `[n, height, width, channels]` for an input that has its channels
/// first, where the shape tells the two apart.
fn count_channels_last(array: &[usize], input: &Shape) -> Option<usize> {
    let &[c, h, w] = input.dims() else {
        return None;
    };
    let last = [h, w, c];
    if squeezed(&last) == squeezed(input.dims()) {
        return None;
    }
    match array.split_first() {
        _ if array == last => Some(1),
        Some((&n, rest)) if rest == last => Some(n),
        _ => None,
    }
}

/// Samples with their channels last, in the order of an input `[channels, height, width]`.
fn channels_first<T: Copy>(values: &[T], input: &Shape) -> Vec<T> {
    let channels = input.dims()[0];
    (values.chunks_exact(input.elements()))
        .flat_map(|sample| {
            (0..channels).flat_map(move |c| sample[c..].iter().step_by(channels).copied())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_may_be_last_where_the_shape_says_so() {
        let color = Shape::from([3, 2, 2]);
        assert_eq!(count_channels_last(&[2, 2, 3], &color), Some(1));
        assert_eq!(count_channels_last(&[5, 2, 2, 3], &color), Some(5));
        assert_eq!(count_channels_last(&[3, 2, 2], &color), None);
        assert_eq!(count_channels_last(&[12], &color), None);
        for same in [
            Shape::from([2, 2, 2]),
            Shape::from([5, 1, 5]),
            Shape::from([1, 4, 3]),
        ] {
            let &[c, h, w] = same.dims() else { continue };
            assert_eq!(count_channels_last(&[h, w, c], &same), None, "{same}");
        }
        let pixels: Vec<u8> = (0..24).collect();
        let first = channels_first(&pixels, &color);
        assert_eq!(first[..12], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert_eq!(first[12..14], [12, 15]);
    }

    #[test]
    fn shapes_of_one_and_of_many_samples() {
        let map = Shape::from([1, 28, 28]);
        let vector = Shape::from([784]);
        let color = Shape::from([3, 8, 8]);
        let cases: &[(&[usize], &Shape, Option<usize>)] = &[
            (&[28, 28], &map, Some(1)),
            (&[1, 28, 28], &map, Some(1)),
            (&[1, 1, 28, 28], &map, Some(1)),
            (&[5, 28, 28], &map, Some(5)),
            (&[5, 1, 28, 28], &map, Some(5)),
            (&[5, 784], &map, Some(5)),
            (&[784], &map, Some(1)),
            (&[0, 784], &map, Some(0)),
            (&[28, 27], &map, None),
            (&[5, 785], &map, None),
            (&[784], &vector, Some(1)),
            (&[28, 28], &vector, None),
            (&[2, 28, 28], &vector, Some(2)),
            (&[3, 8, 8], &color, Some(1)),
            (&[3, 3, 8, 8], &color, Some(3)),
            (&[8, 8, 3], &color, None),
            (&[], &vector, None),
        ];
        let wrong: Vec<String> = cases
            .iter()
            .filter(|(array, input, want)| count(array, input) != *want)
            .map(|(array, input, want)| {
                format!(
                    "{array:?} for {input}: expected {want:?}, got {:?}",
                    count(array, input)
                )
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
