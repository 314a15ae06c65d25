//! From arrays of a file to samples of a network.

use std::path::Path;

use anyhow::bail;
use sparsevd_format::{Array, ArrayData, FileType, read_array, read_table};
use sparsevd_model::{Network, Shape};

use crate::common::preprocessing;

/// Input samples, `[n][input_shape]` in C order.
#[derive(Debug)]
pub struct Samples {
    pub count: usize,
    pub values: Vec<f32>,
}

/// Reads input samples; `array` names one of several arrays.
pub fn read_samples(
    path: &Path,
    array: Option<&str>,
    network: &Network,
) -> anyhow::Result<Samples> {
    let kind = FileType::of_file(path)?;
    if kind == FileType::Csv {
        return read_rows(path, network);
    }
    let arrays = read_array(path)?;
    let is_image = kind == FileType::Png;
    let input = &network.graph.inputs[0];
    let chosen = match array {
        Some(name) => arrays.iter().find(|(n, _)| n == name),
        None if arrays.len() == 1 => arrays.first(),
        None => ["x", &input.name]
            .iter()
            .find_map(|name| arrays.iter().find(|(n, _)| n == name)),
    };
    let Some((name, chosen)) = chosen else {
        let expected = match array {
            Some(name) => format!("an array `{name}`"),
            None => format!("an array `x` or `{}` (or --array NAME)", input.name),
        };
        bail!(
            "{}: expected {expected}, got {}",
            path.display(),
            describe(&arrays)
        );
    };
    let samples = to_samples(path, name, chosen, network)?;
    // The channels of a colour image could be as many samples of one channel.
    if is_image && samples.count != 1 {
        bail!(
            "{}: expected a grey image, for the input {} of the network, got a colour image {}; convert it: magick IN.png \
             -colorspace gray OUT.png",
            path.display(),
            input.shape,
            Shape(chosen.shape.clone())
        );
    }
    Ok(samples)
}

/// Reads the rows of a table, by the columns that the network stores.
fn read_rows(path: &Path, network: &Network) -> anyhow::Result<Samples> {
    let stored = network.graph.preprocessing.as_ref();
    let Some((p, table)) = stored.and_then(|p| Some((p, p.table.as_ref()?))) else {
        bail!(
            "{}: expected a network that stores the columns of its table, as `compress train` writes it, got `{}` without",
            path.display(),
            network.graph.name
        );
    };
    let features = read_table(path, table)?;
    let mut values = vec![0.0; features.len()];
    p.apply(&network.graph.inputs[0].shape, &features, &mut values);
    Ok(Samples {
        count: features.len() / table.features(),
        values,
    })
}

/// Names and shapes of arrays, for messages; long lists are cut.
pub fn describe(arrays: &[(String, Array)]) -> String {
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

/// Takes an array as one sample or several.
pub fn to_samples(
    path: &Path,
    name: &str,
    array: &Array,
    network: &Network,
) -> anyhow::Result<Samples> {
    let input = &network.graph.inputs[0].shape;
    let last = count_channels_last(&array.shape, input);
    let Some(count) = count(&array.shape, input).or(last) else {
        let dims: Vec<String> = input.dims().iter().map(usize::to_string).collect();
        bail!(
            "{}: array `{name}`: expected shape {input} or [n, {}], got {}",
            path.display(),
            dims.join(", "),
            Shape(array.shape.clone())
        );
    };
    if count == 0 {
        bail!(
            "{}: array `{name}`: expected at least one sample, got none",
            path.display()
        );
    }
    let values = match &array.data {
        ArrayData::F32(values) if last.is_some() => channels_first(values, input),
        ArrayData::F32(values) => values.clone(),
        ArrayData::U8(pixels) => {
            let mut values = vec![0.0; pixels.len()];
            let pixels = match last {
                Some(_) => &channels_first(pixels, input),
                None => pixels,
            };
            preprocessing(network, path)?.apply(input, pixels, &mut values);
            values
        }
        other => bail!(
            "{}: array `{name}`: expected u8 pixels or floating-point numbers, got {}",
            path.display(),
            other.kind()
        ),
    };
    Ok(Samples { count, values })
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
