//! Comparisons of a network's outputs with the expected ones.

use std::fmt;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sparsevd_format::{Array, ArrayData};

use crate::error::PipelineError;
use crate::input_samples::describe;
use crate::output_values::OutputValues;

/// The largest difference between an output and its expected values.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Name of the output, where the network has several.
    pub output: Option<String>,
    /// Samples that were compared.
    pub samples: usize,
    /// The largest difference; infinite where a value is NaN.
    pub error: f64,
    /// The largest difference as a share of the largest expected value.
    pub relative: f64,
    /// Sample that has the largest difference.
    pub sample: usize,
    /// Element of that sample.
    pub element: usize,
    /// Value that is expected there.
    pub expected: f32,
    /// Value that the network computed there.
    pub got: f32,
}

impl Comparison {
    /// Compares each output with the array of its name; the only output of a network may be the array `y`. `path` is where the arrays come
    /// from.
    ///
    /// # Errors
    /// An output without an array, or with one of another size or type.
    pub fn of(
        outputs: &[OutputValues],
        path: &Path,
        arrays: &[(String, Array)],
    ) -> Result<Vec<Self>, PipelineError> {
        let is_only = outputs.len() == 1;
        let compare = |output: &OutputValues| {
            let names = [is_only.then_some("y"), Some(output.name.as_str())];
            let mut names = names.into_iter().flatten();
            let array = |name| arrays.iter().find(|(n, _)| n == name);
            let Some((name, expected)) = names.find_map(array) else {
                let name = if is_only { "y" } else { &output.name };
                return Err(PipelineError::NoArray {
                    path: path.to_owned(),
                    expected: format!("`{name}`"),
                    has_choice: false,
                    got: describe(arrays),
                });
            };
            let (elements, samples) = (output.elements(), output.shape[0]);
            match &expected.data {
                ArrayData::F32(expected) if expected.len() == output.values.len() => Ok(Self {
                    output: (!is_only).then(|| output.name.clone()),
                    samples,
                    ..Self::largest(&output.values, expected, elements.max(1))
                }),
                data => Err(PipelineError::invalid(
                    format!("{}: array `{name}`", path.display()),
                    format!(
                        "{} floating-point numbers, {elements} for each of {samples} samples",
                        output.values.len()
                    ),
                    format!("{} {}", data.len(), data.kind()),
                )),
            }
        };
        outputs.iter().map(compare).collect()
    }

    /// The largest difference between two arrays of samples of `elements` numbers.
    fn largest(got: &[f32], expected: &[f32], elements: usize) -> Self {
        // An infinite scale would hide every finite error.
        let finite = expected.iter().filter(|v| v.is_finite());
        let scale = finite.fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
        let mut worst = (0.0_f64, 0);
        for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let error = match (f64::from(got) - f64::from(expected)).abs() {
                _ if got == expected => 0.0,
                // NaN is the worst of all errors.
                error if error.is_nan() => f64::INFINITY,
                error => error,
            };
            if error > worst.0 {
                worst = (error, i);
            }
        }
        let (error, at) = worst;
        Self {
            output: None,
            samples: got.len() / elements,
            error,
            relative: if error == 0.0 { 0.0 } else { error / scale },
            sample: at / elements,
            element: at % elements,
            expected: expected.get(at).copied().unwrap_or_default(),
            got: got.get(at).copied().unwrap_or_default(),
        }
    }

    /// A line that says whether the largest error is at most `tolerance` of the largest expected value.
    pub fn line(&self, tolerance: f64) -> String {
        let verdict = if self.relative <= tolerance {
            "ok"
        } else {
            "FAILED"
        };
        let output = self
            .output
            .as_ref()
            .map_or(String::new(), |o| format!("{o} "));
        format!(
            "{verdict}: {} samples, largest error {:.3e} ({:.3e} of the largest output; tolerance {tolerance:.1e}) at output \
             {output}{} of sample {}: expected {}, got {}",
            self.samples,
            self.error,
            self.relative,
            self.element,
            self.sample,
            self.expected,
            self.got,
        )
    }
}

/// Comparisons of all outputs of a network, and how far they may differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Of each output, in the order of the graph.
    pub outputs: Vec<Comparison>,
    /// Largest error allowed, as a share of the largest expected value.
    pub tolerance: f64,
}

impl Check {
    /// The comparison with the largest relative error, the first of equal ones; `None` without an output.
    pub fn worst(&self) -> Option<&Comparison> {
        let outputs = self.outputs.iter();
        outputs.reduce(|w, c| if c.relative > w.relative { c } else { w })
    }

    /// Whether there is an output and no error is larger than allowed.
    pub fn passes(&self) -> bool {
        self.worst().is_some_and(|w| w.relative <= self.tolerance)
    }
}

impl fmt::Display for Check {
    /// A line for each output, without a line end behind the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.outputs.iter().map(|c| c.line(self.tolerance));
        f.write_str(&lines.collect::<Vec<String>>().join("\n"))
    }
}

impl Serialize for Check {
    /// The verdict and the worst output.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Worst<'c> {
            sample: usize,
            element: usize,
            expected: f32,
            got: f32,
            #[serde(skip_serializing_if = "Option::is_none")]
            output: Option<&'c str>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pass", &self.passes())?;
        if let Some(worst) = self.worst() {
            map.serialize_entry("samples", &worst.samples)?;
            map.serialize_entry("max_error", &worst.error)?;
            map.serialize_entry("max_relative_error", &worst.relative)?;
            map.serialize_entry("tolerance", &self.tolerance)?;
            let worst = Worst {
                sample: worst.sample,
                element: worst.element,
                expected: worst.expected,
                got: worst.got,
                output: worst.output.as_deref(),
            };
            map.serialize_entry("worst", &worst)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_error_is_found_and_nan_is_larger() {
        let expected = [1.0, -4.0, 2.0, 0.0];
        let c = Comparison::largest(&[1.0, -4.0, 2.5, 0.25], &expected, 2);
        assert_eq!((c.error, c.relative), (0.5, 0.125));
        assert_eq!((c.sample, c.element, c.expected, c.got), (1, 0, 2.0, 2.5));
        let c = Comparison::largest(&[1.0, f32::NAN, 9.0, 0.0], &expected, 2);
        assert_eq!((c.error, c.sample, c.element), (f64::INFINITY, 0, 1));
        let same = Comparison::largest(&[0.0; 2], &[0.0; 2], 2);
        assert_eq!((same.error, same.relative), (0.0, 0.0));
    }

    #[test]
    fn infinities_agree_with_themselves_and_hide_nothing() {
        const INF: f32 = f32::INFINITY;
        let cases: [(&[f32], &[f32], f64, usize); 5] = [
            (&[1.5, -4.0], &[1.0, -4.0], 0.125, 0),
            (&[INF, -INF, 2.0], &[INF, -INF, 2.0], 0.0, 0),
            (&[INF, 3.0], &[INF, 2.0], 0.5, 1),
            (&[1.0, -INF], &[1.0, INF], f64::INFINITY, 1),
            (
                &[1.0, f32::NAN, f32::NAN],
                &[1.0, 2.0, 3.0],
                f64::INFINITY,
                1,
            ),
        ];
        for (got, expected, relative, at) in cases {
            let largest = Comparison::largest(got, expected, got.len());
            let found = (largest.relative, largest.element);
            assert_eq!(found, (relative, at), "{got:?} {expected:?}");
        }
    }
}
