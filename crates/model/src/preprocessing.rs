//! How raw pixels become the input of a network.

use serde::{Deserialize, Serialize};

use crate::{ModelError, Shape};

/// Turns pixels of 0 to 255 into network input: `(pixel * scale - mean) / std`, per channel, NCHW.
///
/// It is stored with the network and applied by the same code when training, evaluating and running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Factor on the pixel, 1/255 by default.
    #[serde(default = "per_255")]
    pub scale: f32,
    /// Mean subtracted after scaling: one number, or one per channel.
    #[serde(default = "zero")]
    pub mean: Vec<f32>,
    /// Standard deviation divided by after that: one number, or one per channel.
    #[serde(default = "one")]
    pub std: Vec<f32>,
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
        }
    }
}

impl Preprocessing {
    /// Checks the numbers against the shape of the input they are for.
    ///
    /// # Errors
    /// A number of means or deviations that is neither one nor the number of channels, or one that is not finite,
    /// or a scale or deviation of zero.
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
                    format!("1 number or {channels}, one per channel of the input {input}"),
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
        Ok(())
    }

    /// Fills `out` (one or more samples of shape `input`) from pixels in the same order.
    ///
    /// # Panics
    /// When the lengths differ or are no whole number of samples.
    #[track_caller]
    pub fn apply(&self, input: &Shape, pixels: &[u8], out: &mut [f32]) {
        assert_eq!(pixels.len(), out.len(), "one output per pixel");
        let channels = channels(input);
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
                *o = (f32::from(p) * self.scale - mean) / std;
            }
        }
    }
}

fn channels(input: &Shape) -> usize {
    match input.dims() {
        &[c, _, _] => c.max(1),
        _ => 1,
    }
}
