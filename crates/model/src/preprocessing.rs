//! How raw pixels become the input of a network.

use serde::{Deserialize, Serialize};

use crate::{ModelError, Shape, Table};

/// Turns pixels of 0 to 255, or the columns of a table, into network input: `(value * scale - mean) / std`, per channel of an
/// image (NCHW) or per feature of a vector.
///
/// It is stored with the network and applied by the same code when training, evaluating and running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Factor on the value, 1/255 by default.
    #[serde(default = "per_255")]
    pub scale: f32,
    /// Mean subtracted after scaling: one number, or one per channel or feature.
    #[serde(default = "zero")]
    pub mean: Vec<f32>,
    /// Standard deviation divided by after that: one number, or one per channel or feature.
    #[serde(default = "one")]
    pub std: Vec<f32>,
    /// The columns of the table that the network was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
}

fn per_255() -> f32 {
    1.0 / 255.0
}
fn zero() -> Vec<f32> {
    vec![0.0]
}
fn one() -> Vec<f32> {
    vec![1.0]
}

impl Default for Preprocessing {
    fn default() -> Self {
        Self {
            scale: per_255(),
            mean: zero(),
            std: one(),
            table: None,
        }
    }
}

impl Preprocessing {
    /// Checks the numbers against the shape of the input they are for.
    ///
    /// # Errors
    /// A number of means or deviations that is neither one nor the number of channels or features, or one that is
    /// not finite, or a scale or deviation of zero; columns of a table that are not those of the input.
    pub fn check(&self, input: &Shape) -> Result<(), ModelError> {
        let channels = channels(input);
        let bad = |what, expected: String, got: String| ModelError::Preprocessing {
            what,
            expected,
            got,
        };
        if !self.scale.is_finite() || self.scale == 0.0 {
            return Err(bad(
                "scale",
                "a finite number, not zero".into(),
                self.scale.to_string(),
            ));
        }
        for (what, list) in [("mean", &self.mean), ("std", &self.std)] {
            if list.len() != 1 && list.len() != channels {
                return Err(bad(
                    what,
                    format!(
                        "1 number or {channels}, one per channel or feature of the input {input}"
                    ),
                    list.len().to_string(),
                ));
            }
            if let Some(v) = list.iter().find(|v| !v.is_finite()) {
                return Err(bad(what, "finite numbers".into(), v.to_string()));
            }
        }
        if self.std.contains(&0.0) {
            return Err(bad("std", "no zero".into(), "0".into()));
        }
        match &self.table {
            Some(table) => table.check(input),
            None => Ok(()),
        }
    }

    /// Whether means or deviations differ by channel or feature.
    pub fn is_per_channel(&self) -> bool {
        self.mean.len() > 1 || self.std.len() > 1
    }

    /// Fills `out` (one or more samples of shape `input`) from pixels, or numbers of a table, in the same order.
    ///
    /// # Panics
    /// When the lengths differ or are no whole number of samples.
    #[track_caller]
    pub fn apply<T: Copy + Into<f32>>(&self, input: &Shape, pixels: &[T], out: &mut [f32]) {
        assert_eq!(pixels.len(), out.len(), "one output per pixel");
        let channels = if self.is_per_channel() {
            channels(input)
        } else {
            1
        };
        let plane = (input.elements() / channels).max(1);
        assert_eq!(pixels.len() % (plane * channels), 0, "whole samples");
        for (i, (p, o)) in pixels
            .chunks_exact(plane)
            .zip(out.chunks_exact_mut(plane))
            .enumerate()
        {
            let channel = i % channels;
            let pick = |list: &[f32]| {
                if list.len() == 1 {
                    list[0]
                } else {
                    list[channel]
                }
            };
            let (mean, std) = (pick(&self.mean), pick(&self.std));
            for (o, &p) in o.iter_mut().zip(p) {
                *o = (p.into() * self.scale - mean) / std;
            }
        }
    }
}

fn channels(input: &Shape) -> usize {
    match input.dims() {
        &[c, _, _] | &[c] => c.max(1),
        _ => 1,
    }
}
